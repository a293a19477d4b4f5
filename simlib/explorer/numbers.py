"""The numbers that the explorer shows of a run: no more of the metrics than that, so that they are there at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from simlib import api, architectures, metrics
from simlib.domain import KINDS, STOCK_QUERY
from simlib.errors import BadInput
from simlib.history import History
from simlib.scenario import Arrivals, Profile, Scenario, load_scenario

SHARES = np.linspace(0.0, 1.0, 201)
"""Shares of the messages at which a distribution is drawn; among them those of `LEVELS`."""
LEVELS = {"p50": 100, "p95": 190, "p99": 198}
"""Where in `SHARES` the percentiles stand that the table shows."""
COUNTS = (
    "lost",
    "duplicated",
    "reordered",
    "dead_lettered",
    "oversold_units",
    "undersold_units",
    "stale_read_fraction",
    "read_your_writes_violations",
)
LOADS = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9)
"""Where latency against load is computed, as shares of what the bottleneck bears."""
COARSE = 4000
"""Messages of a point of latency against load."""
DRAFT = 20_000
"""Messages that are shown first of a run of more."""
SERIES = (
    *(("response_time", kind) for kind in KINDS),
    *(("delivery_time", kind) for kind in KINDS if kind != STOCK_QUERY),
)
"""The times that are shown: each of a kind of message."""


@dataclass(frozen=True)
class Numbers:
    """What the figures show of a run. `times` holds, by time and kind, the seconds within which each of `SHARES` was done (NaN
    where none was)."""

    messages: int
    times: Mapping[tuple[str, str], np.ndarray]
    utilisation: Mapping[str, float]
    overloaded: bool


def numbers(history: History) -> Numbers:
    """The numbers of a history, after its warm-up."""
    cut = metrics.warmup(history) or 0
    facts = metrics.Facts(history, cut)
    return Numbers(
        messages=len(facts),
        times={series: _quantiles(facts, *series) for series in SERIES},
        utilisation={pool: float(np.mean(used)) if used.size else np.nan for pool, used in facts.pools.items()},
        overloaded=metrics.overloaded(history, cut=cut),
    )


def _quantiles(facts: metrics.Facts, time: str, kind: str) -> np.ndarray:
    observed = metrics.metric_of(f"{time}_p50").observe(facts, kind)
    if not observed.size:
        return np.full(SHARES.size, np.nan)
    return np.interp(SHARES * (observed.size - 1), np.arange(observed.size), np.sort(observed))


def counts(history: History) -> dict[str, float]:
    """`COUNTS` of a history, after its warm-up."""
    facts = metrics.Facts(history, metrics.warmup(history) or 0)
    return {name: metrics.metric_of(name).value(facts, None) for name in COUNTS}


def draft(case: api.Case) -> api.Case:
    """The same case with no more than `DRAFT` messages, unless it cannot end so early."""
    if isinstance(case.scenario.arrivals, Profile):
        return case
    return replace(case, messages=min(case.messages, DRAFT))


def run(case: api.Case, seed: int) -> History:
    """A run on arrivals that are kept, since most moves do not change them."""
    return case.run(seed, _arrivals(case.scenario, seed, case.messages))


@lru_cache(maxsize=32)
def _arrivals(scenario: Scenario, seed: int, messages: int) -> Arrivals:
    return scenario.draw(seed, messages)


@lru_cache(maxsize=32)
def base_rate(scenario: str) -> float | None:
    """A scenario's own base rate, messages a second; None for a recorded trace, which has no other than its own."""
    loaded = load_scenario(scenario)
    try:
        return loaded.rate / loaded.with_rate(1.0).rate
    except BadInput:
        return None


def loads(case: api.Case) -> list[api.Case]:
    """The case at each of `LOADS`: base rates at which the mean rate is that share of what the bottleneck bears."""
    try:
        mean_of_one = case.scenario.with_rate(1.0).rate
    except BadInput:
        return []
    flow = architectures.get(case.architecture).build(case.parameters, case.scenario)
    mix = case.scenario.mix.model_dump()
    most = flow.bounds({kind: mix[kind] for kind in KINDS}).throughput / mean_of_one
    if not np.isfinite(most):
        return []
    found = []
    for load in LOADS:
        scenario = case.scenario.with_rate(load * most)
        needed = scenario.arrivals.needed() if isinstance(scenario.arrivals, Profile) else 0
        found.append(api.Case(case.architecture, scenario, case.parameters, max(COARSE, needed), case.engine))
    return found


def percentiles(cases: list[api.Case], seed: int) -> Iterator[tuple[api.Case, dict[tuple[str, str], float] | None]]:
    """For each case its 95th percentiles, s; None where it is overloaded."""
    for case in cases:
        found = numbers(case.run(seed))
        yield case, None if found.overloaded else {s: float(times[LEVELS["p95"]]) for s, times in found.times.items()}
