"""The analytic cases: flows of the vocabulary reproduce results that nobody in this project produced.

Each quantity is estimated from independent replications, whose first messages are cut. Rule: the half-width of the
99.9 % interval must first be at most the case's tolerance, so that the test can tell; then the estimate must lie within
that tolerance of the reference. Run lengths follow from asymptotic variances: a mean whose variance over n messages is
about σ²/n needs n = (3.65 σ / tolerance)². What needs more than 500,000 messages is marked `long`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from ruamel.yaml import YAML

import simlib
from simlib.domain import KINDS
from simlib.draws import replication_seed
from simlib.engines import ENGINES
from simlib.flow import (
    BATCH,
    Affine,
    Backoff,
    Constant,
    Distribution,
    Erlang,
    Exponential,
    Field,
    Flow,
    Hyperexponential,
    Link,
    Lognormal,
    Pool,
    Queue,
    Step,
    ack,
    apply,
    branch,
    call,
    choose,
    delay,
    every,
    fail,
    for_each,
    fork,
    mark,
    publish,
    receive,
    reject,
    repeat,
    reply,
    rescue,
    retry,
    timeout,
    wait_until,
)
from simlib.history import History
from simlib.scenario import Arrivals, Crash, Mix, Pause, Poisson, Scenario
from simlib.statistics import mean_interval, paired

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    case["id"]: case
    for case in YAML(typ="safe", pure=True).load(
        (ROOT / "data/reference/analytic_cases.yaml").read_text(encoding="utf-8")
    )["cases"]
}
SEED = 20_000
CONFIDENCE = 0.999
Values = dict[str, float]


def expected(case: str) -> Values:
    """The case's expected numbers by name; those of a list are NAME.0, NAME.1 …"""
    values: Values = {}
    for name, value in CASES[case]["expected"].items():
        values.update({f"{name}.{i}": v for i, v in enumerate(value)} if isinstance(value, list) else {name: value})
    return values


# --- what is read from a history ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A history whose first `cut` messages do not count. Times are seconds; arrays are over the messages that do."""

    history: History
    cut: int

    def column(self, name: str) -> np.ndarray:
        """A column of the messages that count, shape (n,)."""
        return self.history.messages[name].to_numpy()[self.cut :]

    def where(self, column: str, name: str) -> np.ndarray:
        """Which messages that count have this name in a column, shape (n,)."""
        return pc.equal(self.history.messages[column], name).to_numpy()[self.cut :]

    @property
    def sojourn(self) -> np.ndarray:
        """From issue to the first effect; NaN where there was none."""
        return self.column("applied") - self.column("issued")

    def wait(self, name: str = "mark.started") -> np.ndarray:
        """From issue to a mark; NaN where it was not reached."""
        return self.column(name) - self.column("issued")

    @property
    def span(self) -> float:
        """Time between the first and the last issue that count."""
        issued = self.column("issued")
        return float(issued[-1] - issued[0])

    def share(self, outcome: str) -> float:
        """Share of the messages with an outcome."""
        return float(np.mean(self.where("outcome", outcome)))

    def level(self, noun: str, *areas: str, within: tuple[float, float] | None = None) -> float:
        """Time-average of a noun's areas (busy, waiting, unacknowledged) over the bins inside the span, or `within`."""
        return sum(self._bins(noun, area, within) for area in areas)

    def rate(self, noun: str) -> float:
        """Completions a second of a noun, over the bins within the span."""
        return self._bins(noun, "completed", None)

    def _bins(self, noun: str, column: str, within: tuple[float, float] | None) -> float:
        parts = {
            name: self.history.parts[name].to_numpy(zero_copy_only=False) for name in ("name", "start", "end", column)
        }
        begin, end = within or (self.column("issued")[0], self.column("issued")[-1] * (1 + 1e-12))
        inside = (parts["name"] == noun) & (parts["start"] >= begin) & (parts["end"] <= end)
        assert inside.any(), f"no bins of '{noun}' within the span"
        return float(parts[column][inside].sum() / (parts["end"][inside] - parts["start"][inside]).sum())

    def effects(self, prefix: str) -> float:
        """Effects whose name begins so, for each message."""
        effects = self.history.effects
        counted = effects.filter(pc.greater_equal(effects["message"], self.cut))["effect"]
        return pc.sum(pc.starts_with(counted.cast("string"), prefix)).as_py() / self.column("issued").size


def mean(values: np.ndarray) -> float:
    """The mean of what happened."""
    return float(np.nanmean(values))


def quantile(values: np.ndarray, p: float) -> float:
    """The p-quantile of what happened."""
    return float(np.quantile(values[np.isfinite(values)], p))


def station(run: Run, pool: str = "server", capacity: int = 1) -> Values:
    """All that a single station shows; levels both by their area and by Little's law."""
    sojourn, wait = run.sojourn, run.wait()
    waiting, busy = run.level(pool, "waiting"), run.level(pool, "busy")
    flow = np.isfinite(sojourn).sum() / run.span
    return {
        "W": mean(sojourn), "W_accepted": mean(sojourn),
        "Wq": mean(wait), "Wq_accepted": mean(wait), "Wq_std": float(np.nanstd(wait)),
        "L": waiting + busy, "L by Little": flow * mean(sojourn),
        "Lq": waiting, "Lq by Little": flow * mean(wait),
        "utilization": busy / capacity, "mean_busy": busy, "throughput": flow,
        "P_wait": float(np.mean(wait[np.isfinite(wait)] > 0)),
        "P_loss": run.share("rejected"), "P_block": run.share("rejected"),
        "T_p50": quantile(sojourn, 0.5), "T_p95": quantile(sojourn, 0.95), "T_p99": quantile(sojourn, 0.99),
        "Wq_p95": quantile(wait, 0.95), "Wq_p99": quantile(wait, 0.99), "S_p99": quantile(sojourn - wait, 0.99),
    }  # fmt: skip


# --- the flows ------------------------------------------------------------------------------------------------------


def served(pool: Pool, service: Distribution, priority: int = 0) -> list[Step]:
    """Seize, note the start, work, release."""
    return [pool.seize(priority), mark("started"), delay(service), pool.release()]


def single(
    interarrival: Distribution,
    service: Distribution,
    capacity: int = 1,
    limit: int | None = None,
    batch: int = 1,
) -> Flow:
    """A single station; who finds it full is rejected."""
    flow = Flow("station")
    server = flow.pool("server", capacity=capacity, queue_limit=limit)
    steps = [*served(server, service), apply("done")]
    flow.source(
        "job",
        interarrival=interarrival,
        batch=batch,
        steps=steps if limit is None else [rescue(steps, [reject()])],
    )
    return flow


def read_sojourn(run: Run, name: str) -> Values:
    return {name: mean(run.sojourn)}


def read_wait(run: Run, name: str) -> Values:
    return {name: mean(run.wait())}


def read_attempts(run: Run, name: str) -> Values:
    return {name: mean(run.column("attempts"))}


def poisson(rate: float) -> Exponential:
    return Exponential(1 / rate)


def priorities() -> Flow:
    flow = Flow("priorities")
    server = flow.pool("server")
    for number, rate in enumerate(CASES["cobham_np_priority"]["params"]["lam"], start=1):
        steps = [*served(server, Exponential(1.0), priority=number), apply("done")]
        flow.source(f"class{number}", interarrival=poisson(rate), steps=steps)
    return flow


def read_priorities(run: Run) -> Values:
    wait = run.wait()
    return {"Wq_all": mean(wait), **{f"Wq_{k}": mean(wait[run.where("kind", f"class{k}")]) for k in (1, 2, 3)}}


def preemptive() -> Flow:
    flow = Flow("preemptive")
    server = flow.pool("server", discipline="preemptive")
    for number, rate in enumerate(CASES["preemptive_resume"]["params"]["lam"], start=1):
        steps = [server.serve(Exponential(1.0), priority=number), apply("done")]
        flow.source(f"class{number}", interarrival=poisson(rate), steps=steps)
    return flow


def read_preemptive(run: Run) -> Values:
    return {f"T_{k}": mean(run.sojourn[run.where("kind", f"class{k}")]) for k in (1, 2, 3)}


def infinite(service: Distribution) -> Flow:
    flow = Flow("infinite")
    flow.source("job", interarrival=poisson(5.0), steps=[delay(service), apply("done")])
    return flow


def read_infinite(run: Run) -> Values:
    """The distribution over time of the number present, from arrivals and departures."""
    begin, end = run.column("issued")[0], run.column("issued")[-1]
    issued, gone = (run.history.messages[name].to_numpy() for name in ("issued", "applied"))
    times = np.concatenate([issued, gone])
    order = np.argsort(times, kind="stable")
    present = np.cumsum(np.repeat([1, -1], issued.size)[order])[:-1]
    spent = np.diff(np.clip(times[order], begin, end))
    average = float(present @ spent / spent.sum())
    return {
        "L": average,
        "var_N": float((present - average) ** 2 @ spent / spent.sum()),
        "P_N_gt_15": float(spent[present > 15].sum() / spent.sum()),
    }


def feedback() -> Flow:
    flow = Flow("feedback")
    server = flow.pool("server")
    steps = [repeat([server.serve(Exponential(1.0))], again=0.4), apply("done")]
    flow.source("job", interarrival=poisson(0.4), steps=steps)
    return flow


def read_feedback(run: Run) -> Values:
    passes, present, total = run.rate("server"), run.level("server", "waiting", "busy"), mean(run.sojourn)
    return {
        "effective_rate": passes,
        "rho": run.level("server", "busy"),
        "L": present,
        "sojourn_total": total,
        "sojourn_per_pass": present / passes,
        "passes_mean": passes * run.span / run.sojourn.size,
    }


def read_transient(run: Run) -> Values:
    """The delays of the first customers; Law's units have the mean interarrival time as 1."""
    wait = run.wait()
    first = {f"avg_delay_first_{n}": float(np.mean(wait[:n])) for n in (25, 50, 100)}
    delays = {f"E_D_{n}": float(wait[n - 1]) for n in (2, 10, 25)}
    return {**first, **delays, "law_units_d25_service0p9_interarrival1": 0.9 * first["avg_delay_first_25"]}


def amplified(failing: float) -> Flow:
    flow = Flow("amplified")
    attempt = [branch(failing, [fail()]), apply("done")]
    flow.source("call", interarrival=poisson(1.0), steps=[retry(Backoff(retries=3), attempt, [reject()])])
    return flow


def impatient() -> Flow:
    flow = Flow("impatient")
    server = flow.pool("server", capacity=10)
    patience = timeout(Exponential(2.0), [server.seize()], [mark("left"), reject(), fail("left")])
    steps = [patience, mark("started"), delay(Exponential(1.0)), server.release(), apply("done")]
    flow.source("call", interarrival=poisson(11.0), steps=steps)
    return flow


def read_impatient(run: Run) -> Values:
    waited = np.fmax(run.wait(), run.wait("mark.left"))
    return {
        "P_abandon": run.share("rejected"),
        "P_wait": float(np.mean(waited > 0)),
        "Wq_all": mean(waited),
        "throughput": run.rate("server"),
        "Lq": run.level("server", "waiting"),
    }


def leaving(service: Distribution, rate: float, away: Distribution) -> Flow:
    """A server that is away for a while whenever nobody waits: absences that are asked for twice as often as they last are
    always there to be taken, and behind all jobs."""
    flow = Flow("leaving")
    server = flow.pool("server")
    absent = [server.seize(priority=1), mark("left"), delay(away), server.release()]
    flow.source("absence", interarrival=Constant(away.mean_value / 2), steps=absent)
    flow.source("job", interarrival=poisson(rate), steps=[*served(server, service), apply("done")])
    return flow


def read_leaving(run: Run) -> Values:
    wait = mean(run.wait())
    return {"Wq": wait, "W": mean(run.sojourn), "vacation_part": wait - CASES["mg1_vacations"]["expected"]["PK_part"]}


def read_polled(run: Run) -> Values:
    """Events are away from their poll for no time of their own; polls are the beginnings of the poller's absences."""
    delays = run.sojourn[np.isfinite(run.sojourn)]
    events, polls = run.column("issued")[run.where("kind", "job")], np.sort(run.column("mark.left"))
    found = np.histogram(events, polls[polls <= events[-1]])[0]
    return {
        "mean_delay": mean(delays), "mean_delay_if_exponential_polls": mean(delays), "std": float(np.std(delays)),
        "p95": quantile(delays, 0.95), "p99": quantile(delays, 0.99),
        "msgs_per_poll": float(found.mean()), "P_empty_poll": float(np.mean(found == 0)),
    }  # fmt: skip


def together(work: Distribution, rate: float, at_most: int) -> Flow:
    """A batch: the first to come works behind a door, where those who come meanwhile, `at_most` in all, wait to leave with it."""
    flow = Flow("together")
    seats, door = flow.pool("seats", capacity=at_most), flow.pool("door")
    first = flow.pool("first", queue_limit=0)
    opens = [first.seize(), mark("opened"), door.serve(work), first.release()]
    batch = rescue(opens, [door.seize(), door.release()])
    flow.source("record", interarrival=poisson(rate), steps=[seats.seize(), batch, seats.release(), apply("done")])
    return flow


def read_together(run: Run) -> Values:
    opened = np.isfinite(run.column("mark.opened"))
    return {
        "batch_mean": opened.size / opened.sum(),
        "batches_per_s": opened.sum() / run.span,
        "batch_open_time": mean(run.sojourn[opened]),
        "wait_mean": mean(run.sojourn), "W": mean(run.sojourn),
        "L": run.level("seats", "busy", "waiting"), "L by Little": opened.size / run.span * mean(run.sojourn),
    }  # fmt: skip


def acted(rate: float, turn: Callable[[Queue], list[Step]]) -> Flow:
    """Jobs that wait in a queue, from which an actor receives them as its turn says."""
    flow = Flow("acted")
    host = flow.part("host")
    jobs = host.queue("jobs")
    flow.source("job", at=host, interarrival=poisson(rate), steps=[publish(jobs)])
    flow.actor("server", at=host, steps=turn(jobs))
    return flow


def one_by_one(service: Distribution, otherwise: Callable[[Queue], Step]) -> Callable[[Queue], list[Step]]:
    """Whoever is there is served; where nobody is, the server does something else."""
    work = [for_each([mark("started")]), delay(service), for_each([apply("done")]), ack()]
    return lambda jobs: [receive(jobs, at_most=1), branch(BATCH.at_least(1), work, [otherwise(jobs)])]


def read_acted(run: Run) -> Values:
    """What a server that is an actor shows, whatever its turn is."""
    sojourn, present = run.sojourn, run.level("jobs", "waiting", "unacknowledged")
    values = {
        "W": mean(sojourn), "L": present, "L by Little's law": sojourn.size / run.span * mean(sojourn),
        "extra_wait": mean(sojourn) - 1 / (1 - CASES["npolicy"]["params"]["lam"]),
        "mean_delay": mean(sojourn), "std": float(np.std(sojourn)),
        "p95": quantile(sojourn, 0.95), "p99": quantile(sojourn, 0.99),
    }  # fmt: skip
    if "mark.started" in run.history.messages.column_names:
        values["Wq"] = mean(run.wait())
    return {**values, **{f"{name} by an actor": value for name, value in values.items()}}


def tandem() -> Flow:
    flow = Flow("tandem")
    pools = [flow.pool(f"server{i}") for i in range(3)]
    rates = CASES["tandem3"]["params"]["mu"]
    steps = [pool.serve(Exponential(1 / rate)) for pool, rate in zip(pools, rates, strict=True)]
    flow.source("job", interarrival=poisson(0.6), steps=[*steps, apply("done")])
    return flow


def read_tandem(run: Run) -> Values:
    sojourn = run.sojourn
    quantiles = {f"T_p{round(100 * p)}": quantile(sojourn, p) for p in (0.5, 0.95, 0.99)}
    return {"W": mean(sojourn), "T_var": float(np.var(sojourn)), **quantiles}


def jackson() -> Flow:
    flow, p = Flow("jackson"), CASES["jackson5"]["params"]
    flow.stage("out", [apply("done")])
    for i, (rate, servers, row) in enumerate(zip(p["mu"], p["c"], p["P"], strict=True)):
        pool = flow.pool(f"server{i}", capacity=servers)
        onward = {f"station{j}": share for j, share in enumerate(row) if share}
        flow.stage(f"station{i}", [pool.serve(Exponential(1 / rate)), choose({**onward, "out": 1 - sum(row)})])
    for i, rate in enumerate(p["ext"]):
        if rate:
            flow.source(f"job{i}", interarrival=poisson(rate), steps=[choose({f"station{i}": 1.0})])
    return flow


def read_jackson(run: Run) -> Values:
    servers = CASES["jackson5"]["params"]["c"]
    levels = [run.level(f"server{i}", "busy", "waiting") for i in range(5)]
    values = {"L_total": sum(levels), "W_total": mean(run.sojourn)}
    for i, present in enumerate(levels):
        values |= {f"gamma.{i}": run.rate(f"server{i}"), f"L.{i}": present}
        values[f"rho.{i}"] = run.level(f"server{i}", "busy") / servers[i]
    return values


def closed() -> Flow:
    flow, p = Flow("closed"), CASES["mva_lazowska_p117"]["params"]
    pools = [flow.pool(name) for name in ("cpu", "disk1", "disk2")]
    steps = [pool.serve(Exponential(demand)) for pool, demand in zip(pools, p["D"], strict=True)]
    flow.source("job", population=p["N"], think=Exponential(p["Z"]), steps=[*steps, apply("done")])
    return flow


def read_closed(run: Run) -> Values:
    queues = {f"Q_{name}": run.level(name, "busy", "waiting") for name in ("cpu", "disk1", "disk2")}
    return {"X": run.rate("cpu"), "R": mean(run.sojourn), **queues}


def repairman() -> Flow:
    flow, p = Flow("repairman"), CASES["repairman"]["params"]
    crew = flow.pool("crew", capacity=p["c"])
    source = {"population": p["N"], "think": Exponential(p["Z"])}
    flow.source("breakdown", steps=[crew.serve(Exponential(p["S"])), apply("repaired")], **source)
    return flow


def read_repairman(run: Run) -> Values:
    busy = run.level("crew", "busy")
    present = busy + run.level("crew", "waiting")
    return {"L": present, "X": run.rate("crew"), "R": mean(run.sojourn), "utilization": busy / 2}


def windowed(prefetch: int) -> Flow:
    """A backlog that is always there, handed over a link to one consumer."""
    flow, p = Flow("windowed"), CASES["prefetch_window"]["params"]
    broker, client = flow.part("broker"), flow.part("client")
    link = flow.link(broker, client, Constant(p["rtt"] / 2))
    jobs = broker.queue("jobs", link=link, prefetch=prefetch)
    flow.source("job", at=broker, interarrival=Constant(p["s"] / 2), steps=[publish(jobs)])
    flow.consumers(jobs, at=client, count=1, steps=[client.cpu.serve(Constant(p["s"])), apply("done"), ack()])
    return flow


def read_windowed(run: Run) -> Values:
    """While the backlog lasts: throughput, use of the client, and how long a message waits in the client."""
    p = CASES["prefetch_window"]["params"]
    done = np.sort(run.column("applied"))[:-100]
    lasts = float(done[0]), float(done[-1])
    rate = (done.size - 1) / (lasts[1] - lasts[0])
    unacknowledged = run.level("jobs", "unacknowledged", within=lasts)
    return {
        **{f"X_W{prefetch}": rate for prefetch in (1, 10, 26)},
        "util_W1": run.level("client.cpu", "busy", within=lasts),
        "extra_buffer_wait_W51": unacknowledged / rate - p["rtt"] - p["s"],
    }


def forked(servers: int, rate: float) -> Flow:
    flow = Flow("forked")
    pools = [flow.pool(f"server{i}") for i in range(servers)]
    branches = [[pool.serve(Exponential(1.0)), *([mark("first")] if pool is pools[0] else [])] for pool in pools]
    flow.source("job", interarrival=poisson(rate), steps=[fork(*branches), apply("done")])
    return flow


def read_forked(run: Run) -> Values:
    return {"T": mean(run.sojourn), "T_single": mean(run.wait("mark.first"))}


def fanned(width: int, needed: int | None = None) -> Flow:
    flow = Flow("fanned")
    calls = [[delay(Exponential(1.0), stream=f"call{i}")] for i in range(width)]
    flow.source("job", interarrival=poisson(1.0), steps=[fork(*calls, join=needed), apply("done")])
    return flow


def read_fanned(run: Run, index: int) -> Values:
    return {f"mean.{index}": mean(run.sojourn), f"p99.{index}": quantile(run.sojourn, 0.99)}


def balanced(rate: float, servers: int, select: str | None) -> Flow:
    """So many servers, each with a queue of its own to choose, or all with one (None)."""
    flow = Flow("balanced")
    options: dict[str, Any] = {"capacity": servers} if select is None else {"members": servers, "select": select}
    flow.source(
        "job",
        interarrival=poisson(rate),
        steps=[*served(flow.pool("servers", **options), Exponential(1.0)), apply("done")],
    )
    return flow


def lossy(retries: int | None) -> Flow:
    """Stop-and-wait over a link that loses messages and acknowledgements; None: at most once, nobody waits."""
    flow, p = Flow("lossy"), CASES["atleastonce_arq"]["params"]
    sender, receiver = flow.part("sender"), flow.part("receiver")
    out = flow.link(sender, receiver, Constant(0.001), loss=p["p_msg"], name="out")
    back = flow.link(sender, receiver, Constant(0.001), loss=p["p_ack"], name="back")
    if retries is None:
        steps: list[Step] = [out.send(), apply("delivered")]
    else:
        attempt = call([out.send(), apply("delivered"), back.send(), reply()], timeout=0.01)
        steps = [retry(Backoff(retries=retries), [attempt])]
    flow.source("message", at=sender, interarrival=Constant(1.0), steps=steps)
    return flow


def read_lossy(run: Run) -> Values:
    return {
        "attempts_mean": mean(run.column("attempts")),
        "deliveries_mean": mean(run.column("effects")),
        "duplicates_mean": mean(run.column("duplicates")),
        "dup_rate_unlimited": mean(run.column("duplicates")),
        "at_most_once_loss": float(np.mean(np.isnan(run.sojourn))),
    }


def webhook() -> Flow:
    flow, p = Flow("webhook"), CASES["webhook_backoff"]["params"]
    attempt = [branch(p["f"], [fail()]), apply("delivered")]
    policy = Backoff(retries=p["R"], base=p["b0"], factor=2.0)
    flow.source("event", interarrival=poisson(1.0), steps=[retry(policy, attempt, [reject()])])
    return flow


def read_webhook(run: Run) -> Values:
    delivered = np.isfinite(run.sojourn)
    return {
        "P_deliver": float(delivered.mean()),
        "mean_extra_delay_delivered": mean(run.sojourn),
        "attempts_mean": mean(run.column("attempts")),
    }


def saga(steps: int = 5) -> Flow:
    """Steps that fail with a probability; each step's undoing stands around the steps after it."""
    flow = Flow("saga")

    def from_step(k: int) -> list[Step]:
        if k == steps:
            return [apply("completed")]
        failing = branch(CASES["saga_counts"]["params"]["p"], [fail()], stream=f"step{k}.fails")
        return [apply(f"executed{k}"), failing, rescue(from_step(k + 1), [apply(f"undone{k}"), fail()])]

    flow.source("order", interarrival=poisson(1.0), steps=from_step(0))
    return flow


def read_saga(run: Run) -> Values:
    completed, undone = run.effects("completed"), run.effects("undone")
    return {
        "P_complete": completed,
        "steps_executed_mean": run.effects("executed"),
        "compensations_mean": undone,
        "compensations_given_failure": undone / (1 - completed),
    }


def chained(service: float, hop: float) -> Flow:
    """Four services, each of which sends the message on to the next."""
    flow = Flow("chained")
    parts = [flow.part(f"service{i}") for i in range(4)]
    steps: list[Step] = [parts[0].cpu.serve(Constant(service))]
    for before, after in pairwise(parts):
        steps += [flow.link(before, after, Constant(hop)).send(), after.cpu.serve(Constant(service))]
    flow.source("order", at=parts[0], interarrival=Constant(100.0), steps=[*steps, apply("done")])
    return flow


def orchestrated(service: float, hop: float, own: float) -> Flow:
    """An orchestrator that works before, between and after its calls to four services."""
    flow = Flow("orchestrated")
    orchestrator = flow.part("orchestrator")
    steps: list[Step] = [orchestrator.cpu.serve(Constant(own), stream="own")]
    for i in range(4):
        part = flow.part(f"service{i}")
        link = flow.link(orchestrator, part, Constant(hop))
        away = [
            link.send(stream=f"out{i}"),
            part.cpu.serve(Constant(service)),
            link.send(stream=f"back{i}"),
            reply(),
        ]
        steps += [call(away), orchestrator.cpu.serve(Constant(own), stream=f"own{i}")]
    flow.source("order", at=orchestrator, interarrival=Constant(100.0), steps=[*steps, apply("done")])
    return flow


def stormy(rate: float) -> Flow:
    """Calls of a server of 100/s, abandoned after 1 s and tried three times more; a burst of 300 after 100 s."""
    flow = Flow("stormy")
    server = flow.pool("server")
    attempt = call([server.serve(Exponential(0.01)), reply()], timeout=1.0)
    flow.source(
        "call",
        interarrival=poisson(rate),
        steps=[retry(Backoff(retries=3), [attempt, apply("done")], [reject()])],
    )
    flow.source("burst", interarrival=Constant(100.0), batch=300, steps=[server.serve(Exponential(0.01))])
    return flow


# --- the table ------------------------------------------------------------------------------------------------------

LONG = 500_000
"""Messages in all above which a check is `long`. Each row that works for a message counts, and each run for 50."""


@dataclass(frozen=True)
class Check:
    """Quantities of a case that replications of one flow can tell: `read` gives them, and perhaps more, by name.

    A name is that of an expected number; " by …" may follow it. `messages` is for each replication; the first `cut` of
    them do not count. `rows`: how many rows work for a message at once.
    """

    case: str
    flow: Flow
    read: Callable[[Run], Values]
    tells: Sequence[str]
    messages: int
    cut: int = 500
    replications: int = 30
    rows: int = 1

    @property
    def long(self) -> bool:
        return (self.messages * self.rows + 50) * self.replications > LONG

    def values(self) -> dict[str, list[float]]:
        """Each quantity's values over the replications."""
        read = []
        for r in range(self.replications):
            history = simlib.simulate(self.flow, self.messages, replication_seed(SEED, r))
            read.append(self.read(Run(history, self.cut)))
        return {name: [values[name] for values in read] for name in self.tells}


def single_stations() -> Iterator[Check]:
    flow = single(Exponential(1.25), Exponential(1.0))
    yield Check("mm1_rho080", flow, station, ["utilization", "P_wait"], 2_500)
    names = ["W", "Wq", "L", "L by Little", "Lq", "Lq by Little"]
    yield Check("mm1_rho080", flow, station, names, 75_000, 2_000)
    yield Check("mm1_rho080", flow, station, ["T_p50", "T_p95", "T_p99"], 140_000, 2_000)

    flow = single(poisson(0.95), Exponential(1.0))
    yield Check("mm1_rho095", flow, station, ["utilization", "P_wait"], 3_500, 2_000)
    names = ["W", "Wq", "L", "L by Little", "Lq", "T_p50", "T_p95", "T_p99"]
    yield Check("mm1_rho095", flow, station, names, 400_000, 10_000)

    flow, four = single(poisson(3.4), Exponential(1.0), capacity=4), partial(station, capacity=4)
    yield Check("mmc_c4_rho085", flow, four, ["P_wait"], 12_500)
    names = ["W", "Wq", "L", "L by Little", "Lq", "Wq_p95", "Wq_p99"]
    yield Check("mmc_c4_rho085", flow, four, names, 250_000, 2_000)

    flow = single(poisson(3.5), Exponential(1.0), capacity=3, limit=7)
    names = ["throughput", "L", "L by Little", "W_accepted", "Wq_accepted"]
    yield Check("mmcK_overload", flow, station, names, 10_000)
    yield Check("mmcK_overload", flow, station, ["P_loss"], 22_000)

    laws: list[Distribution] = [Exponential(1.0), Constant(1.0), Lognormal(1.0, 2.0)]
    for law in laws:
        flow = single(poisson(10.0), law, capacity=12, limit=0)
        yield Check("erlangB_insensitive", flow, station, ["mean_busy"], 2_500)
        yield Check("erlangB_insensitive", flow, station, ["P_block"], 35_000)

    flow = single(poisson(0.8), Constant(1.0))
    yield Check("md1_rho080", flow, station, ["W", "P_wait"], 16_500)
    yield Check("md1_rho080", flow, station, ["Wq", "Wq_p95", "Wq_p99", "Wq_std"], 160_000, 1_000)

    flow = single(poisson(0.75), Erlang(1.0, 4))
    yield Check("mek1_k4", flow, station, ["W", "S_p99"], 11_500)
    yield Check("mek1_k4", flow, station, ["Wq", "L", "L by Little", "Wq_std"], 60_000)

    p = CASES["mh2_scv4"]["params"]
    flow = single(poisson(p["lam"]), Hyperexponential(p["p1"], 1 / p["rate1"], 1 / p["rate2"]))
    yield Check("mh2_scv4", flow, station, ["W", "Wq", "L", "L by Little", "Wq_std"], 110_000, 1_000)

    flow = single(Constant(1.25), Exponential(1.0))
    yield Check("dm1_rho080", flow, station, ["W"], 15_000)
    yield Check("dm1_rho080", flow, station, ["Wq", "Wq_p99"], 80_000)

    yield Check("e2m1_rho080", single(Erlang(1.25, 2), Exponential(1.0)), station, ["Wq"], 60_000)

    laws = [Exponential(2.0), Constant(2.0), Lognormal(2.0, 1.0)]
    for law in laws:
        yield Check("mginf", infinite(law), read_infinite, ["L"], 2_000, 200)
        yield Check("mginf", infinite(law), read_infinite, ["var_N", "P_N_gt_15"], 130_000)

    yield Check("cobham_np_priority", priorities(), read_priorities, ["Wq_1", "Wq_2"], 13_500)
    yield Check("cobham_np_priority", priorities(), read_priorities, ["Wq_3", "Wq_all"], 85_000)

    yield Check("preemptive_resume", preemptive(), read_preemptive, ["T_1", "T_2"], 13_500)
    yield Check("preemptive_resume", preemptive(), read_preemptive, ["T_3"], 85_000)

    flow = single(poisson(0.2), Exponential(1.0), batch=3)
    yield Check("mx_m1_fixed3", flow, station, ["L", "L by Little", "W", "Wq"], 40_000)

    flow = single(poisson(0.9), Exponential(1.0))
    names = ["avg_delay_first_25", "law_units_d25_service0p9_interarrival1"]
    yield Check("mm1_transient_law", flow, read_transient, names, 25, 0, 15_000)
    names = ["avg_delay_first_50", "avg_delay_first_100", "E_D_2", "E_D_10", "E_D_25"]
    yield Check("mm1_transient_law", flow, read_transient, names, 100, 0, 50_000)


def impatience_and_retries() -> Iterator[Check]:
    names = ["effective_rate", "rho", "sojourn_total", "sojourn_per_pass", "passes_mean"]
    yield Check("mm1_feedback", feedback(), read_feedback, names, 15_500)
    yield Check("mm1_feedback", feedback(), read_feedback, ["L"], 25_000)

    yield Check("erlangA", impatient(), read_impatient, ["P_wait", "throughput"], 3_500)
    yield Check("erlangA", impatient(), read_impatient, ["P_abandon", "Wq_all", "Lq"], 25_000)

    for share, name in ((1.0, "amplification_at_full_failure"), (0.5, "amplification_at_f_half")):
        yield Check("retry_storm_threshold", amplified(share), partial(read_attempts, name=name), [name], 1_000)

    names = ["P_deliver", "mean_extra_delay_delivered", "attempts_mean"]
    yield Check("webhook_backoff", webhook(), read_webhook, names, 3_500, 0)

    names = ["attempts_mean", "deliveries_mean", "duplicates_mean"]
    yield Check("atleastonce_arq", lossy(4), read_lossy, names, 10_000, 0)
    yield Check("atleastonce_arq", lossy(50), read_lossy, ["dup_rate_unlimited"], 18_000, 0)
    yield Check("atleastonce_arq", lossy(None), read_lossy, ["at_most_once_loss"], 5_000, 0)

    names = ["P_complete", "steps_executed_mean", "compensations_mean", "compensations_given_failure"]
    yield Check("saga_counts", saga(), read_saga, names, 5_500, 0)


def batches() -> Iterator[Check]:
    p = CASES["mg1_vacations"]["params"]
    flow = leaving(Exponential(1 / p["mu"]), p["lam"], Constant(p["V"]))
    yield Check("mg1_vacations", flow, read_leaving, ["W", "Wq", "vacation_part"], 15_500)

    p = CASES["poll_delay"]["params"]
    nothing, every = Constant(0.0), p["T"]
    flow, names = leaving(nothing, p["lam"], Constant(every)), ["mean_delay", "p95", "p99", "std", "msgs_per_poll"]
    yield Check("poll_delay", flow, read_polled, names, 6_000)
    yield Check("poll_delay", flow, read_polled, ["P_empty_poll"], 26_000)
    flow, names = leaving(nothing, p["lam"], Exponential(every)), ["mean_delay_if_exponential_polls"]
    yield Check("poll_delay", flow, read_polled, names, 14_000)

    p = CASES["kafka_linger_timeout_dominated"]["params"]
    flow = together(Constant(p["linger"]), p["lam"], p["batch_max"])
    names = ["batch_mean", "wait_mean", "batch_open_time", "batches_per_s"]
    yield Check("kafka_linger_timeout_dominated", flow, read_together, names, 5_500)

    p = CASES["mm1_bulk_service"]["params"]
    flow = together(Exponential(1 / p["mu"]), p["lam"], p["b"])
    yield Check("mm1_bulk_service", flow, read_together, ["L", "L by Little", "W"], 40_000)


def actors() -> Iterator[Check]:
    p = CASES["npolicy"]["params"]
    turn = one_by_one(Exponential(1 / p["mu"]), lambda jobs: wait_until(jobs, at_least=p["N"]))
    yield Check("npolicy", acted(p["lam"], turn), read_acted, ["W", "L", "L by Little's law", "extra_wait"], 20_000)

    p = CASES["mg1_vacations"]["params"]
    turn = one_by_one(Exponential(1 / p["mu"]), lambda jobs: delay(Constant(p["V"])))
    yield Check("mg1_vacations", acted(p["lam"], turn), read_acted, ["W by an actor", "Wq by an actor"], 15_500)

    p = CASES["poll_delay"]["params"]
    flow = acted(p["lam"], lambda jobs: [every(p["T"]), receive(jobs), for_each([apply("done")]), ack()])
    names = [f"{name} by an actor" for name in ("mean_delay", "std", "p95", "p99")]
    yield Check("poll_delay", flow, read_acted, names, 6_000)

    p = CASES["mm1_bulk_service"]["params"]
    work, rest = delay(Exponential(1 / p["mu"])), [for_each([apply("done")]), ack()]
    flow = acted(p["lam"], lambda jobs: [wait_until(jobs), work, receive(jobs, at_most=p["b"]), *rest])
    yield Check("mm1_bulk_service", flow, read_acted, ["L by an actor", "W by an actor"], 40_000)


def networks() -> Iterator[Check]:
    yield Check("tandem3", tandem(), read_tandem, ["W", "T_p50"], 7_500)
    yield Check("tandem3", tandem(), read_tandem, ["T_var", "T_p95", "T_p99"], 130_000)
    yield Check("jackson5", jackson(), read_jackson, list(expected("jackson5")), 4_000)
    yield Check("mva_lazowska_p117", closed(), read_closed, ["X", "R", "Q_cpu", "Q_disk1", "Q_disk2"], 4_000)
    yield Check("repairman", repairman(), read_repairman, ["L", "X", "R", "utilization"], 5_500)

    windows = {1: ["X_W1", "util_W1"], 10: ["X_W10"], 26: ["X_W26"], 51: ["extra_buffer_wait_W51"]}
    for prefetch, names in windows.items():
        yield Check("prefetch_window", windowed(prefetch), read_windowed, names, 2_000, replications=2)

    p = CASES["saga_latency_noload"]["params"]
    sagas = {
        "choreographed": chained(p["s"], p["h"]),
        "orchestrated": orchestrated(p["s"], p["h"], p["o"]),
        "hops_choreographed": chained(service=0.0, hop=1.0),
        "hops_orchestrated": orchestrated(service=0.0, hop=1.0, own=0.0),
    }
    for name, flow in sagas.items():
        yield Check("saga_latency_noload", flow, partial(read_sojourn, name=name), [name], 10, 0, 2)


def joins_and_choices() -> Iterator[Check]:
    yield Check("forkjoin2_rho05", forked(2, 0.5), read_forked, ["T", "T_single"], 5_500, rows=2)
    yield Check("forkjoin5_NT", forked(5, 0.7), read_forked, ["T"], 3_200, rows=5)

    for i, width in enumerate(CASES["fanout_max_exp"]["params"]["k"]):
        whole, fastest = partial(read_fanned, index=i), partial(read_sojourn, name=f"hedged_min_mean.{i}")
        mean_runs, tail_runs = (1_400, 800, 500, 400, 300)[i], (6_500, 5_000, 4_000, 3_500, 3_000)[i]
        yield Check("fanout_max_exp", fanned(width), whole, [f"mean.{i}"], mean_runs, 0, rows=width)
        yield Check("fanout_max_exp", fanned(width), whole, [f"p99.{i}"], tail_runs, 0, rows=width)
        flow, names = fanned(width, needed=1), [f"hedged_min_mean.{i}"]
        yield Check("fanout_max_exp", flow, fastest, names, 1_400, 0, rows=width)

    for name, select in (("W_jsq", "least_requests"), ("W_random", "random"), ("W_shared", None)):
        flow = balanced(1.6, 2, select)
        yield Check("jsq2", flow, partial(read_sojourn, name=name), [name], 130_000, 2_000)
    for name, select in (("Wq_partitioned", "random"), ("Wq_shared", None)):
        flow = balanced(6.4, 8, select)
        yield Check("partitioned_vs_shared", flow, partial(read_wait, name=name), [name], 60_000, 4_000)


TABLE = [*single_stations(), *impatience_and_retries(), *batches(), *actors(), *networks(), *joins_and_choices()]

OF_THEIR_OWN = {
    "mm1_asymvar_rho080",
    "mm1_asymvar_rho090",
    "replica_availability",
    "es_rehydration",
    "mm1_breakdowns_time",
}
"""Cases that tests of their own tell, below."""


BOUND = "a bound, which the tolerance of T implies"
RARE = "too rare: the tolerance would take 10^9 messages"
STEP = "a number on the way to the others"
LEFT_OUT: dict[str, dict[str, str]] = {
    "mmc_c4_rho085": {"erlangB": STEP},
    "dm1_rho080": {"sigma": STEP},
    "e2m1_rho080": {"sigma": STEP},
    "mm1_transient_law": {"steady_Wq": "of the steady state, which the other cases of M/M/1 tell"},
    "kafka_linger_timeout_dominated": {"P_full": RARE},
    "mm1_bulk_service": {"r0": STEP},
    "mg1_vacations": {"PK_part": "the wait in M/M/1, which the vacation's part is what is left of"},
    "forkjoin5_NT": {"lower_H": BOUND, "upper_indep": BOUND},
    "partitioned_vs_shared": {"ratio": "follows from the two waits"},
    "atleastonce_arq": {"P_lost": RARE, "P_sender_gives_up": RARE},
    "prefetch_window": {"W_star": "a test of its own"},
    "retry_storm_threshold": {
        "lam_always_recovers_below": "a test of its own, on both sides",
        "lam_always_unstable_above": "the capacity itself",
        "band_start_with_10pct_budget": "needs the retry budget",
    },
}
"""What no check tells, and why."""


# --- the rule -------------------------------------------------------------------------------------------------------


def judge(case: str, name: str, values: Sequence[float]) -> str | None:
    """What is wrong with a quantity by the rule; None where nothing is."""
    target = expected(case)[name.split(" by ")[0]]
    tolerance = CASES[case]["tol_rel"] * abs(target)
    interval = mean_interval(values, CONFIDENCE)
    shown = f"{name} = {interval.value:.6g} ± {interval.half_width:.2g}, expected {target:.6g} ± {tolerance:.2g}"
    if not interval.half_width <= tolerance:
        return f"{shown}: the runs are too short to tell"
    if not abs(interval.value - target) <= tolerance:
        return f"{shown}: off"
    return None


def label(check: Check) -> str:
    return f"{check.case}-{check.tells[0].replace(' ', '_')}"


def params(checks: Iterable[Check]) -> list[Any]:
    return [pytest.param(check, id=label(check), marks=pytest.mark.long if check.long else ()) for check in checks]


@pytest.mark.parametrize("check", params(TABLE))
def test_a_flow_reproduces_the_theory(check: Check) -> None:
    wrong = [fault for name, values in check.values().items() if (fault := judge(check.case, name, values))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("case", sorted({check.case for check in TABLE}))
def test_every_expected_number_is_told_or_says_why_not(case: str) -> None:
    told = {name.split(" by ")[0] for check in TABLE if check.case == case for name in check.tells}
    left_out = set(LEFT_OUT.get(case, {}))
    assert told | left_out == set(expected(case))
    assert not told & left_out


def test_every_case_is_told() -> None:
    assert {check.case for check in TABLE} | OF_THEIR_OWN == set(CASES)


def test_the_page_calls_the_same_cases_expressible() -> None:
    page = (ROOT / "docs/vocabulary-map.md").read_text(encoding="utf-8")
    rows = [row.strip("|").split("|") for row in page.splitlines() if row.startswith("|")]
    status = {row[0].strip(): row[-1].strip() for row in rows if row[0].strip() in CASES}
    formulas = {case for case in CASES if status[case].startswith("formula: ")}
    assert {case for case in CASES if status[case] == "now"} == set(CASES) - formulas


# --- what no single number tells ------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "messages", "cut"), [("mm1_asymvar_rho080", 6_000, 1_000), ("mm1_asymvar_rho090", 30_000, 6_000)]
)
def test_the_means_of_runs_scatter_as_their_asymptotic_variance_says(case: str, messages: int, cut: int) -> None:
    """The variance of the runs' means times their length, from twenty groups of runs."""
    p = CASES[case]["params"]
    rho, level = p["rho"], p["rho"] / (1 - p["rho"])
    check = Check("", single(poisson(rho), Exponential(1.0)), station, ["L", "Wq"], messages, cut, replications=500)
    values = check.values()
    customers = messages - cut
    l_variance = [float(np.var(group, ddof=1)) * customers / rho for group in np.array_split(values["L"], 20)]
    w_variance = [float(np.var(group, ddof=1)) * customers for group in np.array_split(values["Wq"], 20)]
    told = {
        "asym_var_L": l_variance,
        "asym_var_Wq": w_variance,
        "run_length_L_5pct": [v * (p["z"] / (p["eps"] * level)) ** 2 for v in l_variance],
        "customers_Wq_5pct": [v * (p["z"] / (p["eps"] * level)) ** 2 for v in w_variance],
    }
    assert set(told) == set(expected(case))
    wrong = [fault for name, each in told.items() if (fault := judge(case, name, each))]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def availability() -> dict[str, list[float]]:
    """Shares of the probes that found enough of three parts up, which fail apart from each other, by replication."""
    p = CASES["replica_availability"]["params"]
    flow = Flow("replicas")
    probe, parts = flow.part("probe"), [flow.part(f"part{i}") for i in range(3)]
    apart = [flow.link(probe, part, Constant(0.0)) for part in parts]
    onward = [flow.link(one, other, Constant(0.0)) for one, other in pairwise(parts)]

    def asked(links: Sequence[Link], found: str) -> list[Step]:
        """A call over a link, from whose end the next is called, down to the last."""
        away = [
            links[0].send(stream=f"{found}.{len(links)}"),
            *(asked(links[1:], found) if len(links) > 1 else [apply(found)]),
            reply(),
        ]
        return [call(away)]

    alone = [[rescue(asked([link], f"up{i}"), [])] for i, link in enumerate(apart)]
    flow.source(KINDS[0], at=probe, steps=[fork(*alone), rescue(asked([apart[0], *onward], "chain"), [])])
    flow.check()
    shares: dict[str, list[float]] = {"A1": [], "A_1of2": [], "A_2of3": [], "A_series3": []}
    for r in range(10):
        seed, probes, every = replication_seed(SEED, r), 10_000, 10.0
        faults = []
        for part in parts:
            lasts = Exponential(p["mtbf"]).sample(seed, f"{part.name}.up", int(probes * every / p["mtbf"]))
            fails = np.cumsum(lasts) + p["mttr"] * np.arange(lasts.size)
            faults.append(Crash(part=part.name, at=tuple(fails), restart=p["mttr"]))
        scenario = Scenario(
            name="probes",
            arrivals=Poisson(rate=1 / every),
            mix=Mix(stock_update=1, order=0, stock_query=0),
            faults=tuple(faults),
        )
        history = ENGINES["compiled"](flow, scenario.draw(seed, probes), KINDS, seed, scenario, {})
        message, effect = history.effects["message"].to_numpy(), history.effects["effect"]
        found = {
            name: np.isin(range(probes), message[pc.equal(effect, name)]) for name in ("up0", "up1", "up2", "chain")
        }
        up = np.array([found[f"up{i}"] for i in range(3)])
        shares["A1"].append(up[0].mean())
        shares["A_1of2"].append((up[0] | up[1]).mean())
        shares["A_2of3"].append((up.sum(axis=0) >= 2).mean())
        shares["A_series3"].append(found["chain"].mean())
    return shares


@pytest.mark.parametrize("name", expected("replica_availability"))
def test_replicas_and_chains_are_as_available_as_reliability_says(
    name: str, availability: dict[str, list[float]]
) -> None:
    assert judge("replica_availability", name, availability[name]) is None


def test_a_server_that_breaks_down_at_any_time_and_is_repaired_is_late_as_the_theory_says() -> None:
    """A breakdown is a pause of the server's part by renewal: its work goes on where it stood."""
    p = CASES["mm1_breakdowns_time"]["params"]
    flow = Flow("breakdowns")
    server = flow.part("server")
    flow.source(KINDS[0], at=server, steps=[server.cpu.serve(Exponential(1 / p["mu"])), apply("done")])
    flow.check()
    broken = Pause(part="server", every=Exponential(1 / p["xi"]), lasts=Exponential(1 / p["eta"]))
    scenario = Scenario(
        name="breakdowns",
        arrivals=Poisson(rate=p["lam"]),
        mix=Mix(stock_update=1, order=0, stock_query=0),
        faults=(broken,),
    )
    values: dict[str, list[float]] = {"W": [], "L": [], "availability": []}
    for r in range(30):
        seed = replication_seed(SEED, r)
        run = Run(ENGINES["compiled"](flow, scenario.draw(seed, 12_000), KINDS, seed, scenario, {}), 500)
        end = run.column("issued")[-1]
        start, over = (np.minimum(run.history.faults[name].to_numpy(), end) for name in ("start", "end"))
        values["W"].append(mean(run.sojourn))
        values["L"].append(run.sojourn.size / run.span * mean(run.sojourn))
        values["availability"].append(1 - float(np.sum(over - start)) / end)
    assert set(values) == set(expected("mm1_breakdowns_time"))
    wrong = [fault for name, each in values.items() if (fault := judge("mm1_breakdowns_time", name, each))]
    assert not wrong, "\n".join(wrong)


def replays(snapshot_every: int | None, events: int) -> np.ndarray:
    """How long each event's command takes to read the events since the snapshot, one at a time, of one aggregate."""
    flow, e = Flow("aggregate"), CASES["es_rehydration"]["params"]["e"]
    store = flow.part("store")
    since, empty = store.table("since"), store.table("empty")
    steps = [since.read(), delay(Affine(0.0, e, of=Field("level"))), apply("loaded"), since.add()]
    if snapshot_every:
        steps.append(branch(Field("level").at_least(snapshot_every), [empty.read(), since.write()]))
    flow.source("event", at=store, steps=steps)
    none = np.zeros(events, np.int32)
    arrivals = Arrivals(np.arange(float(events)), none.astype(np.int8), none, none - 1, none + 1)
    history = ENGINES["compiled"](
        flow, arrivals, ["event"], SEED, Scenario(name="events", arrivals=Poisson(rate=1.0)), {}
    )
    return Run(history, 0).sojourn


def test_rehydration_takes_as_long_as_the_events_since_the_snapshot() -> None:
    p, tolerance = CASES["es_rehydration"]["params"], CASES["es_rehydration"]["tol_rel"]
    replay = float(np.mean(replays(p["K"], 60 * p["K"])))
    told = {"mean_replay": replay, "mean_events": replay / p["e"]}
    told["no_snapshot_replay_n1000"] = float(replays(None, 1_001)[1_000])
    assert told == pytest.approx(expected("es_rehydration"), rel=tolerance)


def test_waits_are_ordered_shared_queue_then_shortest_queue_then_random() -> None:
    waits = {
        select: Check(
            "", balanced(1.6, 2, select), partial(read_sojourn, name="W"), ["W"], 4_000, replications=15
        ).values()["W"]
        for select in (None, "least_requests", "random")
    }
    assert paired(waits["least_requests"], waits[None], CONFIDENCE).low > 0
    assert paired(waits["random"], waits["least_requests"], CONFIDENCE).low > 0


def test_a_window_saturates_its_consumer_from_the_round_trip_on() -> None:
    capacity = 1 / CASES["prefetch_window"]["params"]["s"]
    smallest = int(CASES["prefetch_window"]["expected"]["W_star"])
    rates = {}
    for prefetch in range(smallest - 3, smallest + 3):
        check = Check("", windowed(prefetch), read_windowed, ["X_W26"], 2_000, replications=1)
        [rates[prefetch]] = check.values()["X_W26"]
    saturating = [prefetch for prefetch, rate in rates.items() if rate > capacity * 0.999]
    assert min(saturating) == smallest
    assert max(rates.values()) < capacity * 1.001


def test_retries_hold_a_backlog_that_fewer_calls_let_drain() -> None:
    """Below the capacity divided by a call's attempts a burst passes; above it never, though all was well before."""
    p = CASES["retry_storm_threshold"]
    for rate, recovers in ((0.22 * p["params"]["mu"], True), (0.6 * p["params"]["mu"], False)):
        assert (rate < p["expected"]["lam_always_recovers_below"]) == recovers
        history = simlib.simulate(stormy(rate), int(190 * rate) + 300, SEED)
        calls = Run(history, 0).where("kind", "call")
        issued, done = (history.messages[name].to_numpy()[calls] for name in ("issued", "applied"))
        assert np.isfinite(done[issued < 95]).mean() > 0.99
        assert np.isnan(done[(issued > 101) & (issued < 102)]).mean() > 0.9
        late = np.isfinite(done[issued > 180]).mean()
        assert late > 0.99 if recovers else late < 0.01
