"""What notebooks, commands and users call: run an architecture, replicate it, compare several on common numbers."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from simlib import architectures, draws, paths
from simlib.architectures.parameters import calibration_files, require_calibrated
from simlib.domain import KINDS
from simlib.engines import ENGINE, ENGINES, PILOT, compiled
from simlib.engines.running_totals import MOST, Totals
from simlib.engines.running_totals import run as totals_of
from simlib.errors import BadInput, RunFailed, unknown
from simlib.flow.blocks import Point
from simlib.flow.model import everything
from simlib.history import History
from simlib.quantities import per_second, whole
from simlib.scenario import MESSAGES, SEEDS, Arrivals, Scenario, load_scenario

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from simlib.checker import Verdict

VERSION = "0.1.0"


@cache
def version() -> str:
    """Version of the package with a hash of its code: what a result was made by."""
    digest = hashlib.blake2b(digest_size=6)
    for name, file in paths.code().items():
        digest.update(name.encode() + b"\0" + file.read_bytes())
    return f"{VERSION}+{digest.hexdigest()}"


def calibration(architecture: str, broker: str | None) -> dict[str, str]:
    """The calibration files that an architecture stands on, with a hash of each; empty where nothing was measured."""
    files = [file for file in calibration_files(architecture, broker) if file.exists()]
    return {file.name: hashlib.blake2b(file.read_bytes(), digest_size=6).hexdigest() for file in files}


@dataclass(frozen=True)
class Case:
    """One architecture on one scenario with one set of parameters: everything of a run but its seed."""

    architecture: str
    scenario: Scenario
    parameters: Any
    messages: int
    engine: str = ENGINE

    @property
    def meta(self) -> dict[str, Any]:
        """What a history says of where it comes from, but for the seed."""
        broker = self.parameters.profile
        goods = self.scenario.goods
        return {
            "architecture": self.architecture,
            "scenario": self.scenario.name,
            "engine": self.engine,
            "messages": self.messages,
            "rate": self.scenario.rate,
            "parameters": self.parameters.model_dump(mode="json"),
            "parameters_hash": self.parameters.hash(),
            "calibration": calibration(self.architecture, broker) or None,
            "version": version(),
            "draws": draws.DRAWS,
            "stationary": self.scenario.stationary,
            "timeout": self.scenario.patience,
            "process": self.scenario.process,
            "stock": {"units": goods.units, "sale": goods.units if goods.sale_units is None else goods.sale_units},
        }

    def run(self, seed: int, arrivals: Arrivals | None = None) -> History:
        """The history of one run; `arrivals` may be given where they were drawn before, of this scenario and seed."""
        if self.engine == "live":
            from simlib.engines.live import perform

            twin = architectures.get(self.architecture).live
            return perform(twin, self.parameters, self.scenario, seed, self.messages, self.meta)
        arrivals = arrivals or self.scenario.draw(seed, self.messages)
        flow = architectures.get(self.architecture).build(self.parameters, self.scenario)
        ends = None if arrivals.population else float(arrivals.issued[-1])
        meta = {**self.meta, "seed": seed, "issuing_ends": ends}
        return ENGINES[self.engine](flow, arrivals, KINDS, seed, self.scenario, meta)

    def totals(self, seed: int) -> Totals:
        """What one run adds up to, where only metrics are kept; the warm-up is what MSER-5 finds in the first `PILOT` messages."""
        from simlib.metrics import warmup

        n, scenario, cut = self.messages, self.scenario, 0
        if scenario.stationary:
            cut = warmup(replace(self, messages=min(n, PILOT)).run(seed)) or 0
        flow = architectures.get(self.architecture).build(self.parameters, scenario)
        last = scenario.last_arrival(seed, n)
        meta = {**self.meta, "seed": seed, "issuing_ends": last}
        return totals_of(flow, partial(scenario.chunks, seed, n), n, last, KINDS, seed, scenario, cut, meta)


def case(
    architecture: str,
    scenario: str | Scenario = "steady",
    params: Mapping[str, Any] | None = None,
    messages: int | None = None,
    rate: float | str | None = None,
    engine: str = ENGINE,
    most: int = MESSAGES,
) -> Case:
    """A case from names and overrides; raises BadInput for an unknown name, a bad value, a flow that cannot run."""
    known = architectures.get(architecture)
    if engine != "live" and engine not in ENGINES:
        raise unknown("engine", engine, [*ENGINES, "live"])
    if engine == "live":
        _ = known.live
    workload = load_scenario(scenario) if isinstance(scenario, str) else scenario
    if rate is not None:
        base = per_second(rate)
        if not isinstance(base, float) or base <= 0:
            raise BadInput(f"a rate must be above 0, got {rate}: write --rate 100/s")
        workload = workload.with_rate(base)
    parameters = known.load_parameters(params)
    if engine != "live":
        require_calibrated(architecture, parameters.profile)
    flow = known.build(parameters, workload)
    flow.check()
    points = [step.name for _, steps in flow.programs() for step in everything(steps) if isinstance(step, Point)]
    for fault in workload.faults:
        link = flow.links.get(getattr(fault, "link", ""))
        ends = [end.name for end in link.ends] if link else []
        for what, names in (("part", flow.parts), ("link", flow.links), ("direction", ends), ("point", points)):
            name = getattr(fault, what, None)
            if name is not None and name not in names:
                raise unknown(f"{what} of a fault", name, names)
    return Case(architecture, workload, parameters, workload.count(messages, most), engine)


def run(
    architecture: str,
    scenario: str | Scenario = "steady",
    params: Mapping[str, Any] | None = None,
    seed: int = 1,
    messages: int | None = None,
    rate: float | str | None = None,
    engine: str = ENGINE,
) -> History:
    """One run of an architecture on a scenario; raises BadInput as `case` does."""
    return case(architecture, scenario, params, messages, rate, engine).run(whole(seed, "seed", 0, SEEDS))


def totals(
    architecture: str,
    scenario: str | Scenario = "steady",
    params: Mapping[str, Any] | None = None,
    seed: int = 1,
    messages: int | None = None,
    rate: float | str | None = None,
) -> Totals:
    """As `run`, of which only metrics are kept: in constant memory, for up to `MOST` messages. Raises BadInput as `run` does, and
    where the architecture keeps something of every message."""
    return case(architecture, scenario, params, messages, rate, most=MOST).totals(whole(seed, "seed", 0, SEEDS))


def _run(job: tuple[Case, int]) -> History:
    one, seed = job
    return one.run(seed)


def histories(one: Case, count: int, seed: int, workers: int = 1) -> Iterator[History]:
    """The histories of the replications of a case, in order, made by `workers` at once: threads, whose kernel holds no lock;
    processes for SimPy."""
    jobs = [(one, draws.replication_seed(seed, r)) for r in range(count)]
    if workers <= 1 or count == 1 or one.engine == "live":
        yield from map(_run, jobs)
        return
    spread = _processes if one.engine == "simpy" else _threads
    with spread(min(workers, count)) as pool:
        yield from pool.map(_run, jobs)


@contextmanager
def _threads(workers: int) -> Iterator[Executor]:
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            compiled.abandoned.set()
            pool.shutdown(cancel_futures=True)
            compiled.abandoned.clear()
            raise


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    """Processes that end when the pipe does: with the block, with an interrupt, with this process, however it ends."""
    alive, end = multiprocessing.Pipe(duplex=False)
    with alive, end, ProcessPoolExecutor(workers, initializer=_follow, initargs=(alive, end)) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            end.close()
            pool.shutdown(cancel_futures=True)
            raise


def _follow(alive: Connection, end: Connection) -> None:
    """Let this process end when the other end of the pipe is closed, and leave interrupts to its parent."""

    def watch() -> None:
        with suppress(EOFError):
            alive.recv()
        os._exit(1)

    end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class Replicates:
    """Replications of a case, of the seeds that come from `seed`; `values` has a row each, a column each metric.

    `overloaded` says that most of them are: then there is no mean and no percentile of a time.
    """

    case: Case
    seed: int
    histories: Sequence[History]
    values: pd.DataFrame
    overloaded: bool

    def table(self) -> pd.DataFrame:
        """A row each metric: name, value, low, high (95 %), unit.

        The bounds are Student's t over the replications; of one run alone they come from its batches.
        """
        import pandas as pd

        from simlib.metrics import unit_of
        from simlib.statistics import mean_interval

        if len(self.histories) == 1:
            return self.histories[0].metrics()
        rows = []
        for name in self.values.columns:
            interval = mean_interval(self._shown(name))
            rows.append((name, interval.value, interval.low, interval.high, unit_of(name)))
        return pd.DataFrame(rows, columns=["name", "value", "low", "high", "unit"])

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The checker's verdict on each replication."""
        return [history.check() for history in self.histories]

    def check(self) -> dict[str, int]:
        """How many messages of all replications each anomaly struck; raises RunFailed where an invariant broke."""
        counts: dict[str, int] = {}
        for r, verdict in enumerate(self.verdicts):
            if not verdict.ok:
                where = f"{self.case.architecture}, replication {r}"
                raise RunFailed(f"{where}: an invariant broke: {verdict.violations[0]}")
            for name, count in verdict.counts.items():
                counts[name] = counts.get(name, 0) + count
        return counts

    def _shown(self, name: str) -> np.ndarray:
        """The values of a metric, NaN where overload leaves them no meaning."""
        import numpy as np

        from simlib.metrics import metric_of

        values = self.values[name].to_numpy()
        return np.full(values.shape, np.nan) if self.overloaded and metric_of(name).withheld else values


def replicate(
    architecture: str,
    scenario: str | Scenario = "steady",
    params: Mapping[str, Any] | None = None,
    replications: int = 10,
    seed: int = 1,
    messages: int | None = None,
    rate: float | str | None = None,
    engine: str = ENGINE,
    workers: int = 1,
) -> Replicates:
    """Independent replications of a case, the warm-up (the longest that MSER-5 finds) cut from all of them alike."""
    (result,) = _replicated([case(architecture, scenario, params, messages, rate, engine)], replications, seed, workers)
    return result


def _replicated(cases: Sequence[Case], count: int, seed: int, workers: int) -> list[Replicates]:
    import pandas as pd

    from simlib.metrics import measure, overloaded, warmup
    from simlib.statistics import longest

    whole(count, "replications", 1)
    whole(seed, "seed", 0, SEEDS)
    runs = [list(histories(one, count, seed, workers)) for one in cases]
    cut = (longest(warmup(history) for row in runs for history in row) or 0) if cases[0].scenario.stationary else 0
    return [
        Replicates(
            one,
            seed,
            row,
            pd.DataFrame([measure(history, cut) for history in row]),
            sum(overloaded(history, cut=cut) for history in row) > count / 2,
        )
        for one, row in zip(cases, runs, strict=True)
    ]


@dataclass(frozen=True)
class Comparison:
    """Architectures on one scenario and common random numbers."""

    replicates: list[Replicates]

    def table(self) -> pd.DataFrame:
        """A row each architecture and metric, with its interval."""
        import pandas as pd

        tables = [r.table().assign(architecture=r.case.architecture) for r in self.replicates]
        return pd.concat(tables, ignore_index=True)

    def paired(self) -> pd.DataFrame:
        """A row each pair and metric: a, b, metric, difference (a - b), low, high (95 %), unit."""
        import pandas as pd

        from simlib.metrics import unit_of
        from simlib.statistics import paired

        rows = []
        for i, b in enumerate(self.replicates):
            for a in self.replicates[i + 1 :]:
                for name in a.values.columns.intersection(b.values.columns):
                    interval = paired(a._shown(name), b._shown(name))
                    ends = (a.case.architecture, b.case.architecture)
                    rows.append((*ends, name, interval.value, interval.low, interval.high, unit_of(name)))
        return pd.DataFrame(rows, columns=["a", "b", "metric", "difference", "low", "high", "unit"])


def compare(
    names: Iterable[str] | None = None,
    scenario: str | Scenario = "steady",
    params: Mapping[str, Any] | None = None,
    replications: int = 10,
    seed: int = 1,
    messages: int | None = None,
    rate: float | str | None = None,
    engine: str = ENGINE,
    workers: int = 1,
) -> Comparison:
    """Architectures (all, when none is named) on one scenario, paired on common random numbers."""
    chosen = list(names) if names else architectures.names()
    cases = [case(name, scenario, _own(name, params), messages, rate, engine) for name in chosen]
    return Comparison(_replicated(cases, replications, seed, workers))


def _own(name: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """The overrides that an architecture knows; one that none knows is refused by `case`."""
    known = {
        each: {field for variant in architectures.get(each).variants for field in variant.model_fields}
        for each in architectures.names()
    }
    everywhere = set().union(*known.values())
    return {key: value for key, value in (params or {}).items() if key in known[name] or key not in everywhere}
