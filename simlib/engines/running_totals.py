"""Runs of which only metrics are kept: in the memory of a window of messages, however many there are.

Messages are drawn in chunks, and each takes the place of one that is over, which is counted then: its times in buckets, so that
a quantile is within `ERROR` of what the whole history has; everything else exactly. What cannot be known without the whole
history (`ABSENT`) is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from simlib.domain import KINDS, ORDER, OUTCOMES, RESPONSES, STOCK_QUERY
from simlib.engines import compiled, kernel
from simlib.engines.records import NOTED, OUTCOME, width_of
from simlib.engines.workspace import Workspace
from simlib.errors import BadInput
from simlib.flow.lowering import Lowered, lower
from simlib.flow.model import Flow
from simlib.metrics import FULL, LEVELS, REGISTRY, Metric, utilisation
from simlib.scenario import CHUNK, Arrivals, Scenario, joined

if TYPE_CHECKING:
    import pandas as pd

ERROR = 2.0 ** -(kernel.MANTISSA + 1)
"""The relative error of a quantile, at most, of times of a picosecond and more."""
MOST = 10**9
"""Most messages of such a run."""
ABSENT = (
    "backlog_max", "compensated", "half_finished", "miscounted", "reordered", "stale", "undersold_units", "stale_read_fraction",
    "read_your_writes_violations", "age_of_information_mean", "age_of_information_p95", "age_of_information_max",
)  # fmt: skip
"""Metrics that need the whole history."""
Chunks = Callable[[int], Iterator[Arrivals]]
"""The messages of a run, so many at a time."""


@dataclass(frozen=True)
class Totals:
    """What a run adds up to. Arrays have a row each kind: `tallies` and `spreads` (kinds, 2, buckets) are of its messages and
    their times, `ends` (kinds, responses, what was noted, alive or not) counts how they ended."""

    kinds: Sequence[str]
    tallies: np.ndarray
    spreads: np.ndarray
    ends: np.ndarray
    parts: pa.Table
    start: float
    """When the warm-up is over, s."""
    last_arrival: float
    meta: dict[str, Any]

    def metrics(self) -> pd.DataFrame:
        """A row each metric but those of `ABSENT`: name, value, low, high, unit; one run has no interval here."""
        import pandas as pd

        rows = [(name, value, math.nan, math.nan, unit) for name, value, unit in self._rows()]
        return pd.DataFrame(rows, columns=["name", "value", "low", "high", "unit"])

    def values(self) -> dict[str, float]:
        """The value of each metric, by name."""
        return {name: value for name, value, _ in self._rows()}

    @property
    def overloaded(self) -> bool:
        """Whether a pool is as good as always busy; whether the backlog grows is not known here."""
        pools = utilisation(self.parts, self.start, self.last_arrival).values()
        return any(used.size and np.mean(used) >= FULL for used in pools)

    def _rows(self) -> Iterator[tuple[str, float, str]]:
        counts = self._counts()
        pools = utilisation(self.parts, self.start, self.last_arrival)
        used = [kind for kind, n in zip(self.kinds, self.ends["messages"].sum(axis=(1, 2, 3)), strict=True) if n]
        asked = list(KINDS) if set(used) <= set(KINDS) else sorted(used)
        for metric in REGISTRY.values():
            if metric.by == "pool":
                for pool, used_up in pools.items():
                    yield f"utilisation.{pool}", float(np.mean(used_up)) if used_up.size else math.nan, metric.unit
            elif metric.by:
                kinds = [kind for kind in asked if metric.by == "kind" or kind != STOCK_QUERY]
                yield metric.name, self._of_kinds(metric, kinds), metric.unit
                for kind in kinds:
                    yield f"{metric.name}.{kind}", self._of_kinds(metric, [kind]), metric.unit
            elif metric.name in counts:
                yield metric.name, counts[metric.name], metric.unit

    def _of_kinds(self, metric: Metric, kinds: Sequence[str]) -> float:
        """A time of the messages of some kinds, or the share of them that have it."""
        rows = [i for i, kind in enumerate(self.kinds) if kind in kinds]
        which = int(metric.name.startswith("deliver"))
        spread = self.spreads[rows, which].sum(axis=0)
        n = int(spread.sum())
        if metric.unit != "s":
            return _ratio(n, self.tallies["messages"][rows].sum())
        if metric.statistic == "mean":
            return _ratio(self.tallies[("responded", "applied")[which]][rows].sum(), n)
        return _quantile(spread, LEVELS[metric.statistic]) if n else math.nan

    def _counts(self) -> dict[str, float]:
        """What is counted of all messages."""
        ended = {name: self.ends[:, OUTCOME == code] for code, name in enumerate(OUTCOMES)}
        ok, failed = RESPONSES.index("ok"), [RESPONSES.index(name) for name in ("failed", "timed_out")]
        delivers = np.array([kind != STOCK_QUERY for kind in self.kinds])
        told = self.ends[:, ok]
        lost = told["messages"][:, OUTCOME[ok] == OUTCOMES.index("lost")].sum()
        lost += told["messages"][delivers][:, OUTCOME[ok] == OUTCOMES.index("answered")].sum()
        orders = np.array([kind == ORDER for kind in self.kinds])
        span = self.last_arrival - self.start
        in_flight = ended["in_flight"]["messages"].sum()
        tallies = self.tallies
        return {
            "throughput": _ratio(tallies["settled"].sum(), span),
            "goodput": _ratio(tallies["good"].sum(), span),
            "drain_time": math.nan if in_flight else float(tallies["settled_last"].max() - self.last_arrival),
            "lost": float(lost),
            "duplicated": float(self.ends["duplicated"].sum()),
            "failed": float(self.ends[:, failed]["messages"].sum()),
            "dead_lettered": float(ended["dead_lettered"]["messages"].sum()),
            "retry_amplification": _ratio(tallies["attempts"].sum(), tallies["attempted"].sum()),
            "oversold_units": float(told["units"][orders][:, OUTCOME[ok] == OUTCOMES.index("rejected")].sum()),
        }


def _ratio(a: float, b: float) -> float:
    return float(a) / float(b) if b > 0 else math.nan


def _quantile(spread: np.ndarray, p: float) -> float:
    """The p-quantile, linear between order statistics, each of which is taken for the middle of its bucket."""
    below = np.cumsum(spread)
    place = (int(below[-1]) - 1) * p
    low, high = (_middle(int(np.searchsorted(below, rank, side="right"))) for rank in (int(place), math.ceil(place)))
    return low + (high - low) * (place - int(place))


def _middle(bucket: int) -> float:
    bits = ((bucket + (kernel.LEAST_EXPONENT << kernel.MANTISSA)) << (52 - kernel.MANTISSA)) + (
        1 << (51 - kernel.MANTISSA)
    )
    return float(np.int64(bits).view(np.float64))


def run(
    flow: Flow,
    chunks: Chunks,
    count: int,
    last_arrival: float,
    kinds: Sequence[str],
    seed: int,
    scenario: Scenario | None,
    cut: int,
    meta: dict[str, Any],
) -> Totals:
    """Run a flow on messages that are drawn as they are needed, the first `cut` of which are the warm-up.

    Raises BadInput where a flow keeps something of every message, RunFailed where a draw is no time.
    """
    lowered = lower(flow, scenario.strikes if scenario else {})
    _refuse(flow, lowered, scenario, meta)
    room = compiled.ROOM | {"effects": 1, "window": 2 * CHUNK}
    while True:
        totals = _attempt(flow, lowered, chunks, count, last_arrival, kinds, seed, scenario, cut, meta, room)
        if totals is not None:
            return totals


def _refuse(flow: Flow, lowered: Lowered, scenario: Scenario | None, meta: dict[str, Any]) -> None:
    what = "must be kept where only metrics are: leave out --keep metrics"
    for queue in compiled.revivable(flow, scenario):
        if queue.log is not None:
            raise BadInput(f"log '{queue.name}' keeps every message, whose history {what}")
        raise BadInput(f"queue '{queue.name}' may hand out again what was settled, whose history {what}")
    for i, table in enumerate(flow.tables.values()):
        if i in lowered.celled and table.window is not None:
            raise BadInput(f"table '{table.name}' has cells for each window of time, whose history {what}")
        if i in lowered.celled and table.key not in ("sku", None):
            raise BadInput(f"table '{table.name}' has a cell for each {table.key}, whose history {what}")
    for credit in flow.credits.values():
        if credit.key not in ("sku", None):
            raise BadInput(f"credit '{credit.name}' has tokens for each {credit.key}, whose history {what}")
    if lowered.undoable or meta.get("process", "simple") != "simple":
        raise BadInput(f"orders of several steps may be half finished, their history {what}")
    for source in flow.sources.values():
        if source.population is not None:
            raise BadInput(f"source '{source.kind}' has a population, whose history {what}")


def _attempt(
    flow: Flow,
    lowered: Lowered,
    chunks: Chunks,
    count: int,
    last_arrival: float,
    kinds: Sequence[str],
    seed: int,
    scenario: Scenario | None,
    cut: int,
    meta: dict[str, Any],
    room: dict[str, int],
) -> Totals | None:
    """The run; None where a table was too small, which is then larger."""
    window = room["window"]
    ahead = chunks(window // 2)
    beginning = joined(islice(ahead, 2), min(count, window))
    there = len(beginning)
    keys = dict.fromkeys(table.key for i, table in enumerate(flow.tables.values()) if i in lowered.celled)
    keys |= dict.fromkeys(credit.key for credit in flow.credits.values())
    tables = compiled.prepare(flow, lowered, beginning, kinds, seed, scenario, room)
    shapes = {
        "tallies": (len(kinds),),
        "spreads": (len(kinds), 2, kernel.SPREAD),
        "ends": (len(kinds), len(RESPONSES), NOTED, 2),
    }
    counted = {name: np.zeros(shape, kernel.TABLES[name]) for name, shape in shapes.items()}
    patience = meta.get("timeout")
    known = {
        "messages_window": window - 1 if there == window else -1,
        "cut": cut,
        "begins": math.inf if cut else 0.0,
        "last_arrival": last_arrival,
        "timeout": math.inf if patience is None else patience,
    }
    start = compiled.beginning(flow, lowered, count, there, scenario, room)
    work = Workspace({**tables, **counted, "kept": there}, **(start | known))
    work["meters"]["width"] = work["meters"]["edge"] = width_of(np.array([last_arrival]))
    s = work.s
    while kernel.run(s, compiled.SLICE):
        if compiled.abandoned.is_set():
            raise KeyboardInterrupt
        if s["following"] == s["drawn_ahead"] < count and not _draw(next(ahead), keys, work):
            room["window"] *= 4
            return None
    if compiled.too_small(s, room):
        return None
    compiled.check(lowered, s)
    kernel.count_rest(s)
    begins = float(s["begins"])
    return Totals(
        kinds,
        counted["tallies"],
        counted["spreads"]["count"],
        counted["ends"],
        compiled.parts_of(flow, work),
        begins if math.isfinite(begins) else last_arrival,
        last_arrival,
        meta,
    )


def _draw(chunk: Arrivals, keys: Collection[Any], work: Workspace) -> bool:
    """Put the messages that follow in the place of the oldest; whether these are over."""
    window, first = len(work["messages"]), int(work.s["drawn_ahead"])
    places = slice(first % window, first % window + len(chunk))
    if not work["kept"]["counted"][places].all():
        return False
    for name, column in compiled.came(chunk).items():
        work[name][places] = column
    for numbers, key in zip(work["numbers"]["value"].reshape(-1, window), keys, strict=True):
        numbers[places] = compiled.numbered(chunk, key)
    kernel.expect(work.s, first, first + len(chunk))
    work.s["drawn_ahead"] = first + len(chunk)
    return True
