"""Models against what they did not see: runs at held-out loads, predicted from the same arrivals and from fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from scipy import stats

from simlib import api, architectures, draws, paths
from simlib.distributions import Constant, Exponential
from simlib.domain import ORDER, STOCK_QUERY, STOCK_UPDATE
from simlib.engines.live import under_way
from simlib.history import History
from simlib.metrics import middle_rate
from simlib.quantities import Number, PositiveDuration, Probability, Whole
from simlib.reading import Frozen, read_model
from simlib.scenario import Scenario, Slowdown, load_scenario

LEVELS = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
METRICS = {STOCK_UPDATE: "delivery_time", ORDER: "response_time", STOCK_QUERY: "response_time"}
"""What is validated of each kind of message: the time that its architecture is judged by."""
PREDICTIONS = 20
"""Runs of fresh seeds behind a prediction interval."""
FRESH = 7_000_000
"""Seed of the runs that share nothing with the measured ones."""


class Effort(Frozen):
    """How much is measured for the calibration, and what makes a try at any point invalid."""

    pace: Annotated[Number, Field(ge=1)] = 30.0
    """How long the machine alone is watched for slow episodes, s."""
    idle: Annotated[Whole, Field(ge=40)] = 600
    """Messages of a kind, one after the other."""
    apart: PositiveDuration = 0.008
    """Between two of them, s: most meet an idle system, and one that has not rested for longer than it does under load: what
    rests is slow (`python -m benchmarks.cold`)."""
    bursts: Annotated[Whole, Field(ge=1)] = 100
    saturations: Annotated[Whole, Field(ge=1)] = 5
    saturating: Annotated[Whole, Field(ge=100)] = 1500
    """Messages of a run with a backlog always there."""
    tries: Annotated[Whole, Field(ge=1)] = 5
    """After so many invalid ones a point is unmeasurable."""
    latest: PositiveDuration = 0.001
    """99th percentile of sent - intended above which a try is invalid, s."""
    busiest: Annotated[Number, Field(gt=0)] = 0.1
    """Processor that others and the hypervisor take together above which a try is invalid, cores."""


class HeldOut(Frozen):
    """A plan of measurements: the loads held out from calibration, how they are run, and the accuracy stated for them."""

    scenario: str
    loads: tuple[Annotated[Number, Field(gt=0, lt=1.5)], ...]
    repeats: Annotated[Whole, Field(ge=1)]
    messages: Annotated[Whole, Field(ge=100)]
    warm_up: Annotated[Whole, Field(ge=0)]
    accuracy: dict[Literal["p50", "p95", "p99"], Probability]
    stated_up_to_load: Number
    saturation_accuracy: Probability = 0.05
    """Of the throughput with a backlog always there."""
    effort: Effort = Effort()


@dataclass(frozen=True)
class Point:
    """The valid runs of a twin at one rate (messages a second), with the seeds that they were drawn from, on a machine."""

    architecture: str
    broker: str | None
    rate: float
    load: float
    parameters: dict[str, Any]
    """What the twin was set to. The model's times are those of the calibration."""
    histories: list[History]
    pace: dict[str, float]
    """How the machine alone slows down by itself: see `engines.machine.paced`."""


@dataclass(frozen=True)
class Saturation:
    """The throughputs of a twin with a backlog always there, messages a second, each with the seed that it was drawn from."""

    architecture: str
    broker: str | None
    parameters: dict[str, Any]
    """What the twin was set to."""
    throughputs: dict[int, float]
    """By seed."""


def held_out(file: Path | None = None) -> HeldOut:
    """The plan in a file, the project's own by default; raises BadInput where it is missing or wrong."""
    return read_model(HeldOut, file or paths.MEASUREMENTS / "held_out.yaml", "a plan of measurements")


def validate(points: Iterable[Point], plan: HeldOut) -> list[dict[str, Any]]:
    """A row each point, kind of message and kind of prediction, in the shape of `simlib validate --json`.

    Trace-driven: the same arrivals and handler work, the mean over the repeats of each percentile. Independent: fresh
    seeds; `inside` says whether each percentile of each repeat lies in the 95 % prediction interval for one run
    (Student's t over the predicting runs), `inside_share` in how many of them.
    """
    return [row for point in points for row in _rows(point, plan)]


def saturated(of: Saturation, plan: HeldOut) -> dict[str, Any]:
    """A row of the shape of `simlib validate --json`: the throughput at saturation, measured and predicted.

    The model meets the same messages, as many always under way as at the twin; both are the means over the runs.
    """
    case = api.case(of.architecture, load_scenario(plan.scenario), of.parameters, plan.effort.saturating)
    window = under_way(architectures.get(of.architecture).live)

    def predicted(seed: int) -> float:
        messages = case.run(seed, case.scenario.draw(seed, case.messages).closed(window)).messages
        return middle_rate(np.fmax(messages["responded"].to_numpy(), messages["applied"].to_numpy()))

    seen, foretold = (np.array(list(rates)) for rates in (of.throughputs.values(), map(predicted, of.throughputs)))
    error = float(foretold.mean() / seen.mean() - 1)
    return {
        "architecture": of.architecture,
        "broker": of.broker,
        "runs": len(seen),
        "measured": float(seen.mean()),
        "measured_range": [float(seen.min()), float(seen.max())],
        "predicted": float(foretold.mean()),
        "error": error,
        "accepted": abs(error) <= plan.saturation_accuracy,
    }


def _rows(point: Point, plan: HeldOut) -> Iterator[dict[str, Any]]:
    scenario = load_scenario(plan.scenario).with_rate(point.rate)
    case = api.case(point.architecture, scenario, point.parameters, plan.messages)

    def predicted(seed: int) -> History:
        return replace(case, scenario=on_machine(case, point.pace, seed)).run(seed)

    traced = [predicted(history.meta["seed"]) for history in point.histories]
    fresh = [predicted(draws.replication_seed(FRESH, r)) for r in range(PREDICTIONS)]
    for kind, metric in METRICS.items():
        measured = _percentiles(point.histories, kind, metric, plan.warm_up)
        independent = _percentiles(fresh, kind, metric, plan.warm_up)
        inside = _inside(measured, independent)
        for how, runs in (("trace", _percentiles(traced, kind, metric, plan.warm_up)), ("independent", independent)):
            seen, foretold = measured.mean(axis=0), runs.mean(axis=0)
            error = foretold / seen - 1
            stated = point.load <= plan.stated_up_to_load and how == "trace"
            within = all(abs(error[i]) <= plan.accuracy[name] for i, name in enumerate(LEVELS))  # type: ignore[index]
            yield {
                "architecture": point.architecture,
                "broker": point.broker,
                "rate": point.rate,
                "load": point.load,
                "kind": how,
                "metric": metric,
                "kind_of_message": kind,
                "repeats": len(point.histories),
                "measured": _named(seen),
                "predicted": _named(foretold),
                "error": _named(error),
                "inside": bool(inside.all()),
                "inside_share": float(inside.mean()),
                "accepted": bool(within) if stated else None,
            }


def twin(row: Mapping[str, Any]) -> str:
    """The architecture of a row, with its broker."""
    return row["architecture"] + (f" ({row['broker']})" if row["broker"] else "")


def on_machine(case: api.Case, pace: Mapping[str, float], seed: int) -> Scenario:
    """The scenario of a case on a machine that slows down by itself: all its parts at once, as often, for as long and by as
    much as was seen while nothing ran there; when, by the seed."""
    if not pace or not pace["share"]:
        return case.scenario
    lasts = pace["share"] / pace["episodes_per_second"]
    gaps = Exponential(mean=1 / pace["episodes_per_second"] - lasts)
    ends = case.messages / case.scenario.rate
    count = 2 * math.ceil(ends * pace["episodes_per_second"]) + 10
    begin = np.cumsum(gaps.sample(seed, "machine.slow", count) + lasts) - lasts
    parts = architectures.get(case.architecture).build(case.parameters, case.scenario).parts
    slow = (
        Slowdown(part=part, at=tuple(begin.tolist()), lasts=Constant(value=lasts), factor=pace["factor"])
        for part in parts
    )
    return case.scenario.model_copy(update={"faults": (*case.scenario.faults, *slow)})


def _percentiles(histories: list[History], kind: str, metric: str, warm_up: int) -> np.ndarray:
    """Percentiles of a time by run, s, shape (runs, 3)."""
    rows = []
    for history in histories:
        table = history.messages
        chosen = np.asarray(table["kind"].to_pylist()) == kind
        chosen[:warm_up] = False
        end = table["responded" if metric == "response_time" else "applied"].to_numpy()
        times = (end - table["issued"].to_numpy())[chosen]
        rows.append(np.nanquantile(times, list(LEVELS.values())))
    return np.array(rows)


def _inside(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Whether each measured percentile lies in the 95 % prediction interval of one further run; shape as `measured`."""
    n = len(predicted)
    reach = stats.t.ppf(0.975, n - 1) * predicted.std(axis=0, ddof=1) * math.sqrt(1 + 1 / n)
    return np.abs(measured - predicted.mean(axis=0)) <= reach


def _named(values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(LEVELS, values, strict=True)}
