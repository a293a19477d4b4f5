"""Measuring the twins: the machine alone, stage times one by one and in bursts, saturation, the loads held out from calibration.

Every try is on record in `tries.json`, with what else the machine did meanwhile; a try is invalid, and repeated, where the
load generator was late or others took the processor. What was measured before is kept: a second call goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simlib import api, architectures, draws, paths
from simlib.architectures.parameters import times
from simlib.brokers import own, processes
from simlib.calibration import stages
from simlib.calibration.validate import Effort, HeldOut, Point, Saturation
from simlib.domain import KINDS, STOCK_QUERY, STOCK_UPDATE
from simlib.engines import machine
from simlib.engines.live import Bench
from simlib.errors import BadInput, RunFailed
from simlib.history import SCHEMAS, History
from simlib.scenario import Mix, Scenario, Trace

BURST, BURST_EVERY = 6, 0.12
"""The burst probe: messages at once, and how long apart (s)."""
CALIBRATED = (STOCK_UPDATE, STOCK_QUERY)
"""Kinds of message that are run alone for the stage times."""
_KEPT = ["message", "kind", "issued", "responded", "applied"]


@dataclass
class Measurement:
    """What was measured of one architecture with one broker: a folder of runs, tries and saturations."""

    architecture: str
    broker: str | None

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return paths.measurement(self.architecture, self.broker)

    def read(self, name: str, default: Any) -> Any:
        """A JSON file of the folder; raises BadInput where it is broken."""
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return default
        except ValueError as error:
            raise BadInput(f"{self.folder / name} is no JSON ({error}): measure again") from None

    def write(self, name: str, data: Any) -> None:
        """Replace a JSON file of the folder as a whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(self.folder / name)

    @property
    def saturation(self) -> float:
        """Messages a second that the twin completes with a backlog always there, median of the runs; raises BadInput if unknown."""
        return float(np.median([run["throughput"] for run in self._saturated()]))

    def _saturated(self) -> list[dict[str, Any]]:
        """The runs with a backlog always there; raises BadInput where there are none."""
        runs: list[dict[str, Any]] = self.read("saturation.json", [])
        if not runs:
            raise BadInput(f"the saturation of {self.folder.name} is not measured: run simlib measure")
        return runs

    def missing(self, plan: HeldOut) -> list[str]:
        """The points that no try has measured yet."""
        alone = [(how, kind) for how in ("idle", "busy") for kind in CALIBRATED]
        alone += [(one.how, name) for name, one in stages.contrasts(self.architecture, self.broker).items()]
        missing = [f"{how}-{name}" for how, name in alone if not self.has(how, name)]
        there = {run["run"] for run in self.read("held_out.json", [])}
        held_out = [f"{load}-{repeat}" for load in plan.loads for repeat in range(plan.repeats)]
        return missing + [name for name in held_out if name not in there]

    def has(self, how: str, name: str) -> bool:
        """Whether this run of one kind alone is measured; see `calibration_run`."""
        return (self.folder / f"{how}-{name}" / "meta.json").exists()

    def calibration_run(self, how: str, name: str) -> History:
        """The run of one kind alone, `how` idle or busy, or of a contrast; raises BadInput where it is not measured."""
        if not self.has(how, name):
            raise BadInput(f"{self.folder / how}-{name} is not measured: run simlib measure")
        return History.load(self.folder / f"{how}-{name}")

    def points(self, plan: HeldOut) -> list[Point]:
        """The valid runs at the held-out loads, by rate; raises BadInput where there are none."""
        runs = self.read("held_out.json", [])
        if not runs:
            raise BadInput(f"{self.folder.name} is not measured at the held-out loads: run simlib measure")
        rows = pq.read_table(self.folder / "held_out.parquet")
        empty = {name: schema.empty_table() for name, schema in SCHEMAS.items() if name != "messages"}
        points = []
        for load in plan.loads:
            chosen = [run for run in runs if run["load"] == load]
            histories = [
                History(messages=rows.filter(pc.equal(rows["run"], run["run"])), **empty, meta=run) for run in chosen
            ]
            if histories:
                values = (self.architecture, self.broker, chosen[0]["rate"], load, self._set(chosen[0]["parameters"]))
                points.append(Point(*values, histories, self.read("pace.json", {})))
        return points

    def saturations(self, plan: HeldOut) -> Saturation:
        """The runs with a backlog always there; raises BadInput where there are none, or none at the held-out loads."""
        runs, (one, *_) = self._saturated(), self.points(plan)
        return Saturation(
            self.architecture, self.broker, one.parameters, {run["seed"]: run["throughput"] for run in runs}
        )

    def _set(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What a twin was set to, of the parameters that its run names; its times are what is to be found out."""
        found_out = times(architectures.get(self.architecture).parameters.variant(parameters))
        return {name: value for name, value in parameters.items() if name not in found_out}


def measured(broker: str | None = None) -> list[str]:
    """The architectures of which something was measured, on a broker or on any kind of one."""
    return [
        name
        for name in architectures.twins()
        if any(
            Measurement(name, each).folder.exists()
            for each in ([broker] if broker else architectures.get(name).brokers)
        )
    ]


def measure(
    architecture: str, plan: HeldOut, say: Callable[[str], object], params: Mapping[str, Any] = MappingProxyType({})
) -> Measurement:
    """Measure what is not there yet of one architecture, some six minutes in all; `say` hears of each step and of each try that
    is invalid, after so many of which a point stays `missing`. `params` names the broker.

    Raises MissingPart or BadInput where a real part is absent or cannot be used, RunFailed where a run fails.
    """
    twin = architectures.get(architecture).live
    case = api.case(architecture, plan.scenario, {**getattr(twin, "MEASURED", {}), **params}, engine="live")
    of = Measurement(architecture, case.parameters.profile)
    paths.writable(of.folder)
    effort = plan.effort
    if (url := own.require(of.broker or "")) and not of.read("ways.json", []):
        of.write("ways.json", own.ways(url))
    if not of.read("pace.json", {}):
        say(f"{architecture}: the machine alone, {effort.pace:g} s")
        of.write("pace.json", machine.pace(effort.pace))
    with Bench(twin, case.parameters) as bench:
        for how in ("idle", "busy"):
            for kind in CALIBRATED:
                if not of.has(how, kind):
                    _alone(of, bench, case, how, kind, kind, effort, say)
        saturations = of.read("saturation.json", [])
        while len(saturations) < effort.saturations:
            say(f"{architecture}: saturation, {len(saturations) + 1} of {effort.saturations}")
            seed = draws.replication_seed(211, len(saturations))
            throughput, usage = bench.saturation(case.scenario, seed, effort.saturating)
            saturations.append({"throughput": throughput, "seed": seed, **usage})
            of.write("saturation.json", saturations)
        for load in plan.loads:
            _hold_out(of, bench, case, plan, load, say)
    for name, contrast in stages.contrasts(architecture, of.broker).items():
        if not of.has(contrast.how, name):
            with Bench(twin, case.parameters.replace(**contrast.changes)) as bench:
                _alone(of, bench, case, contrast.how, STOCK_UPDATE, name, effort, say)
    return of


def _alone(
    of: Measurement,
    bench: Bench,
    case: api.Case,
    how: str,
    kind: str,
    name: str,
    effort: Effort,
    say: Callable[[str], object],
) -> None:
    """A run of one kind of message alone, `how` idle or busy, kept under a name."""
    say(f"{of.architecture}: {how}, {name}")
    idle = how == "idle"
    with processes.folder({}) as folder:
        times = _one_by_one(effort) if idle else _bursts(effort)
        scenario = _at(times, case.scenario, kind, folder)
        point, latest = {"purpose": f"{how}-{name}"}, effort.latest if idle else math.inf
        history = _valid(of, bench, scenario, point, 101, times.size, case.meta, effort, latest, say)
    if history is not None:
        history.save(of.folder / f"{how}-{name}")


def _hold_out(
    of: Measurement, bench: Bench, case: api.Case, plan: HeldOut, load: float, say: Callable[[str], object]
) -> None:
    """The repeats at one held-out load, each of a seed of its own."""
    rate = round(load * of.saturation, 1)
    scenario = case.scenario.with_rate(rate)
    for repeat in range(plan.repeats):
        runs = of.read("held_out.json", [])
        name = f"{load}-{repeat}"
        if any(run["run"] == name for run in runs):
            continue
        say(f"{of.architecture}: load {load:g} ({rate:g}/s), {repeat + 1} of {plan.repeats}")
        seed = draws.replication_seed(307 + round(1000 * load), repeat)
        point = {"purpose": "held_out", "load": load, "rate": rate, "run": name}
        effort = plan.effort
        history = _valid(of, bench, scenario, point, seed, plan.messages, case.meta, effort, effort.latest, say)
        if history is None:
            continue
        rows = history.messages.select(_KEPT)
        rows = rows.append_column("run", pa.array([name] * rows.num_rows)).cast(_held_out_schema())
        file = of.folder / "held_out.parquet"
        before = [pq.read_table(file)] if runs else []
        pq.write_table(pa.concat_tables([*before, rows]), file, compression="zstd")
        of.write("held_out.json", [*runs, {**history.meta, **point}])


def _held_out_schema() -> pa.Schema:
    return pa.schema([(name, SCHEMAS["messages"].field(name).type) for name in _KEPT if name != "kind"]
                     + [("run", pa.string())]).insert(1, pa.field("kind", pa.string()))  # fmt: skip


def _valid(
    of: Measurement,
    bench: Bench,
    scenario: Scenario,
    point: Mapping[str, Any],
    seed: int,
    messages: int,
    meta: Mapping[str, Any],
    effort: Effort,
    latest: float,
    say: Callable[[str], object],
) -> History | None:
    """The first valid run of a point among a few tries, each on record; None where it is unmeasurable.

    Of bursts, whose messages are meant to be sent at one instant, only the processor time is taken: they may be sent late.
    Raises RunFailed where callers were told that something failed, which no handler of a measurement does.
    """
    for attempt in range(1, effort.tries + 1):
        history = bench.run(scenario, seed, messages, {**meta, "rate": scenario.rate})
        if failed := pc.sum(pc.equal(history.messages["response"], "failed")).as_py():
            of_all = f"{failed} of {history.messages.num_rows} messages failed at the twin's services"
            raise RunFailed(f"{point['purpose']}: {of_all}: {bench.last_words()}")
        m = history.meta
        taken, late = m["foreign_cpu"] + m["steal"], m["send_lag_p99"]
        valid = late <= latest and taken <= effort.busiest
        noted = {name: m[name] for name in ("foreign_cpu", "steal", "send_lag_p50", "send_lag_p99", "cpu_seconds")}
        of.write("tries.json", [*of.read("tries.json", []), {**point, **noted, "seed": seed, "valid": valid}])
        if valid:
            return history
        say(
            f"  invalid, {attempt} of {effort.tries}: others took {taken:.2g} cores (at most {effort.busiest:g}), "
            f"messages were sent {1e3 * late:.3g} ms late (at most {1e3 * latest:g})"
        )
    return None


def _one_by_one(effort: Effort) -> np.ndarray:
    """When to send messages of which most meet an idle system, s."""
    return effort.apart * np.arange(1, effort.idle + 1)


def _bursts(effort: Effort) -> np.ndarray:
    """When to send messages of which some are sent at once, so that the event loops stay busy while they are at it, s."""
    return np.repeat(np.arange(1, effort.bursts + 1) * BURST_EVERY, BURST)


def _at(times: np.ndarray, scenario: Scenario, kind: str, folder: Path) -> Scenario:
    """One kind of message alone, at these times."""
    file = folder / "times.txt"
    np.savetxt(file, times)
    mix = Mix(**{name: float(name == kind) for name in KINDS})
    return scenario.model_copy(update={"arrivals": Trace(file=file), "mix": mix})
