"""Speed as ratios, measured side by side in one process: engines and oracles in turn, so that the machine's noise meets all.

Nothing is asserted here: a ratio is reported with the range that it had.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from simlib import api, architectures
from simlib.engines import simulate, totals
from simlib.errors import RunFailed
from simlib.flow import Backoff, Exponential, Flow, ack, apply, branch, call, fail, nack, publish, reply, rescue, retry

MESSAGES = 5000
"""Of a run that SimPy does too."""
Job = Callable[[], Any]


@dataclass(frozen=True)
class Ratio:
    """How many times as long `slow` takes as `fast`: the median of pairs run in turn, the least and the most of them."""

    name: str
    slow: str
    fast: str
    ratio: float
    least: float
    most: float
    pairs: int
    fast_seconds: float

    def row(self) -> dict[str, Any]:
        """As a document."""
        return asdict(self)


def queue_with_database(interarrival: float = 0.005) -> Flow:
    """A REST call that publishes, four consumers with a prefetch of five and a database, failures, retries, dead letters."""
    flow = Flow("queue_with_database")
    shop, broker, warehouse = flow.part("shop"), flow.part("broker"), flow.part("warehouse")
    uplink, downlink = flow.link(shop, broker, "0.1 ms"), flow.link(broker, warehouse, "0.1 ms")
    service, database = shop.pool("service", capacity=8), warehouse.pool("database", capacity=2)
    jobs = broker.queue("jobs", link=downlink, prefetch=5, max_deliveries=4)
    sent = [uplink.send(stream="there"), publish(jobs), uplink.send(stream="back"), reply("ok")]
    accept = call([service.serve(Exponential(mean=0.02)), branch(0.01, [fail()]), *sent], timeout=0.5)
    flow.source(
        "job",
        at=shop,
        interarrival=Exponential(mean=interarrival),
        steps=[rescue([retry(Backoff(3, 0.05), [accept])], [])],
    )
    work = [
        warehouse.cpu.serve(Exponential(mean=0.002)),
        database.serve(Exponential(mean=0.005)),
        branch(0.05, [fail()]),
    ]
    flow.consumers(jobs, warehouse, 4, [rescue([*work, apply("done"), ack()], [nack(0.05)])])
    return flow


def ratios(pairs: int = 5) -> list[Ratio]:
    """All ratios; raises RunFailed where what is compared does not do the same."""
    found = [
        _engines("queue_with_database", lambda engine: simulate(queue_with_database(), MESSAGES, engine=engine), pairs)
    ]
    for name in architectures.names():
        one, other = (api.case(name, messages=MESSAGES, engine=engine) for engine in ("compiled", "simpy"))
        cases = {"compiled": one, "simpy": other}
        found.append(_engines(name, lambda engine, cases=cases: cases[engine].run(1), pairs))  # type: ignore[misc]
        oracle = import_module(f"simlib.architectures.{name.replace('/', '.')}.oracle")
        by_hand = partial(oracle.run, one.parameters, one.scenario, 1, MESSAGES)
        found.append(side_by_side(name, ("SimPy by hand", by_hand), ("compiled", partial(one.run, 1)), pairs))
    return [*found, _threads(pairs), _points(), _growth(), _long()]


def _engines(name: str, run: Callable[[str], Any], pairs: int) -> Ratio:
    if _differ(run("simpy"), run("compiled")):
        raise RunFailed(f"the engines disagree on {name}: make test says where")
    return side_by_side(name, ("simpy", lambda: run("simpy")), ("compiled", lambda: run("compiled")), pairs)


def _differ(one: Any, other: Any) -> bool:
    """Whether the messages differ, where a time that did not happen equals itself."""
    return not one.messages.to_pandas().equals(other.messages.to_pandas())


def side_by_side(name: str, slow: tuple[str, Job], fast: tuple[str, Job], pairs: int) -> Ratio:
    times = [(_seconds(slow[1]), _seconds(fast[1])) for _ in range(pairs)]
    values = [a / b for a, b in times]
    middle = statistics.median(b for _, b in times)
    return Ratio(name, slow[0], fast[0], statistics.median(values), min(values), max(values), pairs, middle)


def _threads(pairs: int) -> Ratio:
    """Eight runs one after the other, and on two threads."""
    case = api.case("rest", messages=4 * MESSAGES)

    def on(workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(case.run, range(1, 9)))

    return side_by_side("eight runs", ("one thread", lambda: on(1)), ("two threads", lambda: on(2)), pairs)


def _points() -> Ratio:
    """A thousand models of different load, each checked, run and made a history of, one after the other, and on two threads."""
    loads = np.linspace(0.004, 0.02, 1000).tolist()

    def on(workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda gap: simulate(queue_with_database(gap), 2000), loads))

    jobs = ("one thread", partial(on, 1)), ("two threads", partial(on, 2))
    return side_by_side("a thousand points of 2,000 messages", *jobs, 1)


def _growth() -> Ratio:
    """A message of a run of a million against one of a run of a hundred thousand."""
    short, long = (api.case("rest", messages=count) for count in (100_000, 1_000_000))

    def ten() -> None:
        for seed in range(1, 11):
            short.run(seed)

    return side_by_side("a million messages", ("one run", partial(long.run, 1)), ("ten runs of a tenth", ten), 3)


def _long() -> Ratio:
    """A message of a run of ten millions, of which only metrics are kept, against one of a run of a hundred thousand."""
    one, hundred = (partial(totals, queue_with_database(), count) for count in (10_000_000, 100_000))

    def every() -> None:
        for seed in range(1, 101):
            hundred(seed)

    return side_by_side(
        "ten million messages, metrics only", ("one run", one), ("a hundred runs of a hundredth", every), 1
    )


def _seconds(job: Job) -> float:
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


def table(found: Iterable[Ratio]) -> list[tuple[str, str, str]]:
    """Rows to read: what, the ratio with its range, the time of the faster."""
    return [
        (
            f"{one.name}: {one.slow} / {one.fast}",
            f"{one.ratio:.3g} [{one.least:.3g}, {one.most:.3g}] ({one.pairs})",
            f"{one.fast_seconds * 1e3:.3g} ms",
        )
        for one in found
    ]
