"""What each number means: the registry of metrics with unit, formula and interval, and their values.

A metric is a statistic of a series of observations in a history: `measure` gives its value, `table` its
interval for one run too. Time metrics exist for each kind of message also (`response_time_p95.order`),
utilisation for each pool (`utilisation.shop.cpu`). A number that does not exist is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import stdtrit

from simlib.checker import anomalies
from simlib.domain import KINDS, STOCK_QUERY
from simlib.errors import unknown
from simlib.history import History
from simlib.ledger import Ledger, Words
from simlib.statistics import BATCHES, Interval, batch_means, batch_quantile, mser5, quantile

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SPANS = 200
"""Equal spans of time in which settled messages are counted, for the interval of a rate in one run."""
FULL = 0.95
"""The share of capacity from which on a point is overloaded."""
GROWTH = 0.01
"""Backlog grows when it rises by more than this share of the messages issued meanwhile."""

Statistic = Literal["mean", "p50", "p95", "p99", "max", "sum"]
LEVELS: dict[Statistic, float] = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Facts(Ledger):
    """A ledger with the series that metrics are made from; `cut` messages at the start are the warm-up."""

    def __init__(self, history: History, cut: int = 0) -> None:
        super().__init__(history)
        self.cut = cut
        self.last_arrival = float(np.max(self.issued)) if len(self) else math.nan
        self.start = float(self.issued[cut]) if 0 < cut < len(self) else self.last_arrival if cut else 0.0

    @cached_property
    def kinds(self) -> list[str]:
        """The domain's kinds; of another workload the kinds that it has."""
        used = self.kind.used()
        return list(KINDS) if set(used) <= set(KINDS) else sorted(used)

    @cached_property
    def warm(self) -> np.ndarray:
        """Whether each message was issued after the warm-up."""
        return np.arange(len(self)) >= self.cut

    @cached_property
    def settled(self) -> np.ndarray:
        """When each message was last known of: issued, responded or a counted effect; NaN while in flight."""
        times = np.fmax(self.issued, self.responded)
        np.maximum.at(times, self.effect_row[self.counted], self.effect_time[self.counted])
        return np.where(self.outcome.among("in_flight"), np.nan, times)

    @cached_property
    def anomalies(self) -> dict[str, np.ndarray]:
        """Ids of the messages of each of the checker's anomalies."""
        return anomalies(self)

    @cached_property
    def delivers(self) -> np.ndarray:
        """Whether each message is to have an effect: all but queries."""
        return ~self.kind.among(STOCK_QUERY)

    @cached_property
    def pools(self) -> dict[str, np.ndarray]:
        """By pool, its utilisation in each bin of time from the end of the warm-up to the last arrival."""
        return utilisation(self.parts, self.start, self.last_arrival)

    def of_kind(self, kind: str | None, among: np.ndarray) -> np.ndarray:
        """Which of these messages are of a kind; of any for None."""
        return among if kind is None else among & self.kind.among(kind)


def middle_rate(complete: np.ndarray) -> float:
    """Messages a second over the middle eight tenths of a run, from when each was complete, s, shape (n,)."""
    done = np.sort(complete)
    first, last = done.size // 10, done.size - done.size // 10 - 1
    return float((last - first) / (done[last] - done[first]))


def utilisation(parts: pa.Table, since: float, until: float) -> dict[str, np.ndarray]:
    """By pool, its utilisation in each bin of time that lies between two times, s."""
    start, end, busy, capacity = (parts[name].to_numpy() for name in ("start", "end", "busy", "capacity"))
    names, mine = Words(parts["name"]), Words(parts["kind"]).among("pool")
    inside = mine & (start >= since) & (end <= until * (1 + 1e-9))
    pools = {name: np.flatnonzero(inside & names.among(name)) for name in names.used(mine)}
    return {name: busy[rows] / (capacity[rows] * (end - start)[rows]) for name, rows in pools.items()}


@dataclass(frozen=True)
class Metric:
    """A metric: the statistic of the series that `observe` finds in the facts, of a kind or pool if asked."""

    name: str
    unit: str
    formula: str
    statistic: Statistic
    observe: Callable[[Facts, str | None], np.ndarray]
    by: Literal["", "kind", "delivery", "pool"] = ""
    """What it also exists for each of: kinds, kinds but queries, pools (of which alone it exists)."""

    @property
    def withheld(self) -> bool:
        """Whether it means nothing where a point is overloaded: the mean or a percentile of a time."""
        return self.unit == "s" and self.name.endswith(("_mean", *LEVELS))

    def value(self, facts: Facts, of: str | None) -> float:
        """The value for one history."""
        series = self.observe(facts, of)
        if self.statistic in LEVELS:
            return quantile(series, LEVELS[self.statistic])
        if self.statistic == "sum":
            return float(np.sum(series))
        if not series.size:
            return math.nan
        return float(np.mean(series) if self.statistic == "mean" else np.max(series))

    def interval(self, facts: Facts, of: str | None) -> Interval:
        """The value with its 95 % interval from the batches of one run; a sum or a maximum has none."""
        if self.statistic in LEVELS:
            return batch_quantile(self.observe(facts, of), LEVELS[self.statistic])
        if self.statistic == "mean":
            return batch_means(self.observe(facts, of))
        return Interval(self.value(facts, of), math.nan, math.nan)


def measure(history: History, cut: int = 0) -> dict[str, float]:
    """The value of every metric of one history, by name.

    The first `cut` messages are the warm-up: left out of times and ages, their shares, rates and utilisation.
    """
    facts = Facts(history, cut)
    return {name: metric.value(facts, of) for name, metric, of in _named(facts)}


def table(history: History) -> pd.DataFrame:
    """A row each metric of one run: name, value, low, high, unit.

    Low and high are 95 %, by batch means after the warm-up. They are NaN for counts, for a terminating
    scenario (which is one observation) and for a run too short; the times of an overloaded point are NaN.
    """
    import pandas as pd

    cut = warmup(history)
    facts = Facts(history, cut or 0)
    steady = cut is not None and history.meta.get("stationary", True)
    full = overloaded(history, cut=cut or 0)
    rows = []
    for name, metric, of in _named(facts):
        if metric.withheld and full:
            found = Interval(math.nan, math.nan, math.nan)
        elif steady:
            found = metric.interval(facts, of)
        else:
            found = Interval(metric.value(facts, of), math.nan, math.nan)
        rows.append((name, found.value, found.low, found.high, metric.unit))
    return pd.DataFrame(rows, columns=["name", "value", "low", "high", "unit"])


def metric_of(name: str) -> Metric:
    """The metric that a name such as `response_time_p95.order` is of; raises BadInput for an unknown one."""
    base, _, of = name.partition(".")
    metric = REGISTRY.get(f"{base}.POOL" if of else base) or REGISTRY.get(base)
    if metric is None or (of and not metric.by):
        raise unknown("metric", name, REGISTRY)
    return metric


def unit_of(name: str) -> str:
    """The unit of a metric by its full name; raises BadInput for an unknown one."""
    return metric_of(name).unit


def warmup(history: History) -> int | None:
    """How many messages at the start are warm-up: by MSER-5 on response times in order of issue.

    0 for a terminating scenario, which is never cut; None where the times are not seen to be stationary.
    """
    if not history.meta.get("stationary", True):
        return 0
    facts = Facts(history)
    answered = np.flatnonzero(~np.isnan(facts.responded))
    cut = mser5(facts.responded[answered] - facts.issued[answered])
    return None if cut is None else int(answered[cut])


def overloaded(history: History, capacity: float | None = None, cut: int = 0) -> bool:
    """Whether a point is overloaded, so that its times have no mean and no percentile.

    It is where messages arrive at 0.95 or more of `capacity` (messages a second), where a pool is busy for
    0.95 or more of the time after the warm-up, or where the backlog still grows at the end: over the second
    half of the messages its regression on their number rises, significantly (one-sided, 1 %, over means of
    ten batches), by more than 1 % of those messages.
    """
    facts = Facts(history, cut)
    if any(used.size and np.mean(used) >= FULL for used in facts.pools.values()):
        return True
    offered = len(facts) / facts.last_arrival if capacity else 0.0
    return offered >= FULL * (capacity or math.inf) or _grows(_backlog(facts))


def _grows(backlog: np.ndarray) -> bool:
    """Whether the second half of a backlog, seen at each arrival, rises by the rule of `overloaded`."""
    half = backlog[backlog.size // 2 :]
    if half.size < BATCHES:
        return False
    y = np.array([np.mean(part) for part in np.array_split(half, BATCHES)])
    x = np.arange(BATCHES) - (BATCHES - 1) / 2
    square = math.fsum(x * x)
    slope = math.fsum(x * y) / square
    error = math.sqrt(math.fsum((y - np.mean(y) - slope * x) ** 2) / (BATCHES - 2) / square)
    return slope * BATCHES > GROWTH * half.size and slope > error * float(stdtrit(BATCHES - 2, 0.99))


def _named(facts: Facts) -> Iterator[tuple[str, Metric, str | None]]:
    """Every metric of a history with its full name and the kind or pool that it is of."""
    for metric in REGISTRY.values():
        if metric.by == "pool":
            base = metric.name.partition(".")[0]
            yield from ((f"{base}.{pool}", metric, pool) for pool in facts.pools)
            continue
        yield metric.name, metric, None
        if metric.by:
            asked = facts.kinds if metric.by == "kind" else [k for k in facts.kinds if k != STOCK_QUERY]
            yield from ((f"{metric.name}.{kind}", metric, kind) for kind in asked)


def _response_times(facts: Facts, kind: str | None) -> np.ndarray:
    times = (facts.responded - facts.issued)[facts.of_kind(kind, facts.warm)]
    return times[~np.isnan(times)]


def _responded(facts: Facts, kind: str | None) -> np.ndarray:
    return ~np.isnan(facts.responded[facts.of_kind(kind, facts.warm)])


def _delivery_times(facts: Facts, kind: str | None) -> np.ndarray:
    times = (facts.applied - facts.issued)[facts.of_kind(kind, facts.warm & facts.delivers)]
    return times[~np.isnan(times)]


def _delivered(facts: Facts, kind: str | None) -> np.ndarray:
    return ~np.isnan(facts.applied[facts.of_kind(kind, facts.warm & facts.delivers)])


def _settled(facts: Facts, _: str | None) -> np.ndarray:
    return _rate(facts, facts.settled)


def _good(facts: Facts, _: str | None) -> np.ndarray:
    done = np.where(facts.outcome.among("answered"), facts.responded, facts.applied)
    timeout = facts.meta.get("timeout")
    in_time = done - facts.issued <= (math.inf if timeout is None else timeout)
    good = facts.outcome.among("applied", "answered") & (facts.repeated == 0) & in_time
    good[facts.half_finished] = False
    return _rate(facts, facts.settled[good])


def _rate(facts: Facts, times: np.ndarray) -> np.ndarray:
    """How many of the times, a second, fall into each of `SPANS` equal spans from warm-up to last arrival."""
    if not facts.last_arrival > facts.start:
        return np.empty(0)
    edges = (facts.start, facts.last_arrival)
    return np.histogram(times[~np.isnan(times)], SPANS, edges)[0] * (SPANS / (edges[1] - edges[0]))


def _backlog(facts: Facts, _: str | None = None) -> np.ndarray:
    """How many messages were issued and not settled, just after each arrival."""
    gone = np.sort(facts.settled[~np.isnan(facts.settled)])
    return np.arange(1, len(facts) + 1) - np.searchsorted(gone, np.sort(facts.issued), side="right")


def _drain(facts: Facts, _: str | None) -> np.ndarray:
    settled = facts.settled
    return np.empty(0) if np.isnan(settled).any() else settled - facts.last_arrival


def _attempts(facts: Facts, _: str | None) -> np.ndarray:
    return facts.attempts[facts.attempts > 0]


def _struck(anomaly: str) -> Callable[[Facts, str | None], np.ndarray]:
    return lambda facts, _: np.ones(facts.anomalies[anomaly].size)


def _oversold(facts: Facts, _: str | None) -> np.ndarray:
    return facts.quantity[facts.oversold]


def _undersold(facts: Facts, _: str | None) -> np.ndarray:
    return facts.quantity[facts.undersold] if facts.stock.known else np.array([math.nan])


def _age(facts: Facts, _: str | None) -> np.ndarray:
    reads = facts.reads[facts.warm[facts.reads]]
    outdated = facts.stock.outdated(facts.sku[reads], facts.version[reads])
    return np.maximum(facts.responded[reads] - outdated, 0.0)


_WORDS = {"mean": "mean", "p50": "median", "p95": "95th percentile", "p99": "99th percentile", "max": "longest"}
_TIMES: tuple[Statistic, ...] = ("mean", "p50", "p95", "p99")
_AGES: tuple[Statistic, ...] = ("mean", "p95", "max")
_METRICS = (
    *(
        Metric(
            f"response_time_{statistic}",
            "s",
            f"{_WORDS[statistic]} of responded − issued, over the messages answered or given up",
            statistic,
            _response_times,
            by="kind",
        )
        for statistic in _TIMES
    ),
    Metric(
        "responded_fraction",
        "1",
        "messages answered or given up / messages, after the warm-up",
        "mean",
        _responded,
        by="kind",
    ),
    *(
        Metric(
            f"delivery_time_{statistic}",
            "s",
            f"{_WORDS[statistic]} of applied − issued, over the messages applied: an update when the shop's "
            "copy is first written, an order when accounting first takes the stock",
            statistic,
            _delivery_times,
            by="delivery",
        )
        for statistic in _TIMES
    ),
    Metric(
        "delivered_fraction",
        "1",
        "messages applied / messages that are no queries, after the warm-up",
        "mean",
        _delivered,
        by="delivery",
    ),
    Metric(
        "throughput",
        "1/s",
        "messages settled between the end of the warm-up and the last arrival / that time; a message is "
        "settled at the last of issued, responded and its effects, and never while in flight",
        "mean",
        _settled,
    ),
    Metric(
        "goodput",
        "1/s",
        "as throughput, of the messages applied or answered, with no effect twice and no process half finished, "
        "no later after issue than the caller's time-out",
        "mean",
        _good,
    ),
    Metric(
        "utilisation.POOL",
        "1",
        "busy units × time / (capacity × time), over the bins of time from the warm-up to the last arrival",
        "mean",
        lambda facts, pool: facts.pools[pool or ""],
        by="pool",
    ),
    Metric("backlog_max", "messages", "most messages at a time that are issued and not settled", "max", _backlog),
    Metric("drain_time", "s", "last settling − last arrival; none where a message stays in flight", "max", _drain),
    Metric("lost", "messages", "answered ok, without any effect, and accounted for by nothing", "sum", _struck("lost")),
    Metric("duplicated", "messages", "with the same effect on the same store again", "sum", _struck("duplicated")),
    Metric(
        "reordered",
        "messages",
        "whose version was written to the shop's copy after a newer one of the SKU",
        "sum",
        _struck("reordered"),
    ),
    Metric(
        "stale",
        "messages",
        "queries that saw a version older than the newest at accounting before they were issued",
        "sum",
        _struck("stale"),
    ),
    Metric(
        "failed",
        "messages",
        "whose caller was told that they failed, or gave up",
        "sum",
        lambda facts, _: facts.response.among("failed", "timed_out"),
    ),
    Metric(
        "dead_lettered",
        "messages",
        "parked after their last delivery",
        "sum",
        lambda facts, _: facts.outcome.among("dead_lettered"),
    ),
    Metric(
        "compensated",
        "messages",
        "whose effects were all undone",
        "sum",
        lambda facts, _: facts.outcome.among("compensated"),
    ),
    Metric(
        "half_finished",
        "messages",
        "orders of which some steps stand, neither undone nor followed by the others",
        "sum",
        lambda facts, _: np.ones(facts.half_finished.size),
    ),
    Metric(
        "miscounted",
        "messages",
        "orders that windows counted more than once, or never, though they count and the orders were answered ok",
        "sum",
        _struck("miscounted"),
    ),
    Metric("retry_amplification", "1", "attempts / messages attempted at all", "mean", _attempts),
    Metric(
        "oversold_units", "units", "units of the orders answered ok that were rejected, or undone", "sum", _oversold
    ),
    Metric(
        "undersold_units",
        "units",
        "units of the orders refused, and not undone, though accounting had them all the time from issue to response",
        "sum",
        _undersold,
    ),
    Metric(
        "stale_read_fraction",
        "1",
        "stale queries / queries answered with a version",
        "mean",
        lambda facts, _: facts.stale,
    ),
    Metric(
        "read_your_writes_violations",
        "messages",
        "queries for the SKU of the customer's last order, answered ok before, that saw a version older than "
        "that order made",
        "sum",
        lambda facts, _: facts.own_write_unseen,
    ),
    *(
        Metric(
            f"age_of_information_{statistic}",
            "s",
            f"{_WORDS[statistic]}, over the queries answered with a version, of the time from when accounting "
            "made a newer one until the answer; 0 where there was none",
            statistic,
            _age,
        )
        for statistic in _AGES
    ),
)
REGISTRY = {metric.name: metric for metric in _METRICS}
"""Every metric by its name, in the order in which they are shown."""
