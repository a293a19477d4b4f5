"""The comparison of architectures, from the rows of a sweep's store: points, paired differences, criteria.

A *candidate* is an architecture, or a variant of one after a slash. A *point* is a candidate on a scenario at a rate.

The warm-up is cut alike for all candidates that meet at a scenario and rate: a sweep measures each run at several cuts,
and the shortest of these is used that is at least as long as what MSER-5 would cut from any of their runs that are not
overloaded. A point is overloaded where most of its runs are; then it has no mean and no percentile of a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from simlib import architectures, metrics
from simlib.comparison import words
from simlib.statistics import Interval, mean_interval, paired

SATURATION = "saturation"
"""The largest goodput at any rate of a grid; where no point of it is overloaded, a lower bound of it."""
TIMED = ("steady", "burst", "flash_sale")
"""The scenarios in which times are compared, each rougher than the one before."""
ASPECTS: dict[str, dict[str, tuple[str, ...]]] = {
    "performance": {
        "response_time_p95.order": TIMED,
        "response_time_p95.stock_query": TIMED,
        "delivery_time_p95.stock_update": TIMED,
    },
    "scalability": {SATURATION: ("steady",)},
    "reliability": {"failed": ("crashes",), "lost": ("crashes",), "duplicated": ("crashes",)},
    "consistency": {
        "stale_read_fraction": ("steady",),
        "read_your_writes_violations": ("steady",),
        "oversold_units": ("flash_sale",),
    },
    "processes": {
        "half_finished": ("fulfilment",),
        "oversold_units": ("fulfilment",),
        "undersold_units": ("fulfilment",),
    },
}
"""What architectures are judged by: the metrics of each aspect, and the scenarios in which each counts."""
TIMELY = ("performance", "scalability")
"""The aspects about time; the others count what goes wrong."""
MORE = (SATURATION,)
"""The metrics of which more is better."""
OVERVIEW = (
    "response_time_p95.order",
    "response_time_p95.stock_query",
    "response_time_p95.stock_update",
    "delivery_time_p95.stock_update",
    "delivery_time_p95.order",
    "goodput",
    "backlog_max",
)
CONSISTENCY = (
    "failed",
    "lost",
    "duplicated",
    "oversold_units",
    "undersold_units",
    "stale_read_fraction",
    "read_your_writes_violations",
    "half_finished",
)
ORIGIN = ["parameters_hash", "calibration_hash", "version", "draws"]
"""The columns that say what a result stands on."""
NONE = Interval(math.nan, math.nan, math.nan)
_POINT = ["candidate", "scenario", "rate"]


def points(results: pd.DataFrame) -> pd.DataFrame:
    """A row each point and metric: the mean over the replications with its 95 % interval.

    Columns: candidate, scenario, rate (1/s), load (of the candidate's own saturation, NaN where it is not known),
    metric, value, low, high, unit, overloaded, runs, failed (runs that are not in the mean), cut (messages), seed (the
    first), parameters_hash, calibration_hash, version, draws.
    """
    rows, runs = _compared(results)
    values = rows["value"].to_numpy()
    about = rows[["unit", "overloaded", "cut", "seed", *ORIGIN]].to_numpy(dtype=object)
    found = []
    for point, where in _groups(rows, [*_POINT, "metric"]):
        unit, overloaded, *rest = about[where[0]]
        interval = mean_interval(values[where])
        if overloaded and metrics.metric_of(point[-1]).withheld:
            interval = NONE
        found.append((*point, interval.value, interval.low, interval.high, unit, overloaded, len(where), *rest))
    columns = [*_POINT, "metric", "value", "low", "high", "unit", "overloaded", "runs", "cut", "seed", *ORIGIN]
    order = _ordered(runs["candidate"].unique())
    table = pd.DataFrame(found, columns=columns)
    table = table.sort_values("candidate", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)
    failed = runs["failed"].notna().groupby([runs[name] for name in _POINT]).sum().rename("failed")
    table = table.merge(failed.reset_index(), on=_POINT, how="left")
    capacity = saturation(results).query("reached").set_index(["candidate", "scenario"])["value"]
    own = pd.MultiIndex.from_frame(table[["candidate", "scenario"]])
    table.insert(3, "load", table["rate"].to_numpy() / capacity.reindex(own).to_numpy())
    return table


def pairs(results: pd.DataFrame) -> pd.DataFrame:
    """A row each pair of candidates, point and metric: the mean of a − b on common random numbers, with its interval.

    Columns: a, b, scenario, rate (1/s; NaN for the saturation, which is of the whole grid), metric, difference, low,
    high (95 %), unit, reference (the mean of b), runs (replications that neither failed). Times are NaN where either is
    overloaded.
    """
    rows, _ = _compared(results)
    best = _best(rows).assign(metric=SATURATION, rate=math.nan, overloaded=False)
    rows = pd.concat([rows, best], ignore_index=True)
    values, replications = rows["value"].to_numpy(), rows["replication"].to_numpy()
    overloaded, units = rows["overloaded"].to_numpy(bool), rows["unit"].to_numpy()
    points: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}
    for (scenario, rate, metric, candidate), where in _groups(rows, ["scenario", "rate", "metric", "candidate"]):
        points.setdefault((scenario, rate, metric), {})[candidate] = where
    found = []
    for (scenario, rate, metric), runs in points.items():
        withheld = metric != SATURATION and metrics.metric_of(metric).withheld
        for b, a in combinations(_ordered(runs), 2):
            both, of_a, of_b = np.intersect1d(replications[runs[a]], replications[runs[b]], return_indices=True)
            reference = values[runs[b]][of_b]
            if withheld and (overloaded[runs[a]].any() or overloaded[runs[b]].any()):
                interval = NONE
            else:
                interval = paired(values[runs[a]][of_a], reference)
            bounds = (interval.value, interval.low, interval.high, units[runs[b][0]])
            found.append((a, b, scenario, rate, metric, *bounds, mean_interval(reference).value, both.size))
    columns = ["a", "b", "scenario", "rate", "metric", "difference", "low", "high", "unit", "reference", "runs"]
    return pd.DataFrame(found, columns=columns)


def saturation(results: pd.DataFrame) -> pd.DataFrame:
    """A row each candidate and scenario with a grid of rates: the largest goodput, and at which rate it is.

    Columns: candidate, scenario, rate, value, low, high, unit, reached (whether some point of the grid is overloaded).
    """
    rows, runs = _compared(results)
    found = []
    for (candidate, scenario), group in _best(rows).groupby(["candidate", "scenario"], sort=False, observed=True):
        interval = mean_interval(group.sort_values("replication")["value"].to_numpy())
        own = runs[(runs["candidate"] == candidate) & (runs["scenario"] == scenario)]
        bounds = (interval.value, interval.low, interval.high, "1/s")
        found.append((candidate, scenario, group["rate"].iloc[0], *bounds, bool(own["overloaded"].any())))
    order = _ordered(runs["candidate"].unique())
    columns = ["candidate", "scenario", "rate", "value", "low", "high", "unit", "reached"]
    table = pd.DataFrame(found, columns=columns)
    return table.sort_values("candidate", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def headlines(pairs: pd.DataFrame) -> pd.DataFrame:
    """The differences that are told, a row each: by the criteria of `ASPECTS`, of each candidate from the baseline, and of each
    variant from its own architecture.

    Where a scenario has a grid of rates they are at the middle one of those at which all pairs have times. Columns: those of
    `pairs`, and aspect.
    """
    told = pairs[(pairs["b"] == baseline(pairs["b"])) | (pairs["a"].str.rpartition("/")[0] == pairs["b"])]
    return at_criteria(told, reference(pairs))


def criteria(points: pd.DataFrame, saturation: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """What candidates are judged by: a row each candidate and criterion of `ASPECTS`, at the conditions of the headlines.

    Columns: aspect, metric, scenario, rate, candidate, value, low, high, unit.
    """
    full = saturation.assign(metric=SATURATION, rate=math.nan)
    values = pd.concat([points, full])[[*_POINT, "metric", "value", "low", "high", "unit"]]
    return at_criteria(values, reference(pairs))


def at_criteria(rows: pd.DataFrame, rates: Mapping[str, float]) -> pd.DataFrame:
    """Of rows with scenario, rate and metric those at a criterion, in the order of the criteria, with their aspect."""
    chosen = rows[(rows["rate"] == rows["scenario"].map(rates)) | (rows["metric"] == SATURATION)]
    found = [
        chosen[(chosen["metric"] == metric) & (chosen["scenario"] == scenario)].assign(aspect=aspect)
        for aspect, metrics_of in ASPECTS.items()
        for metric, scenarios in metrics_of.items()
        for scenario in scenarios
    ]
    return pd.concat(found, ignore_index=True)


def reference(pairs: pd.DataFrame) -> dict[str, float]:
    """The rate of each scenario that conclusions are drawn at: the middle one of those where all pairs have times."""
    timed = pairs[pairs["metric"] == OVERVIEW[0]]
    rates = {}
    for scenario, group in timed.groupby("scenario", sort=False):
        known = group.groupby("rate")["low"].apply(lambda low: low.notna().all())
        usable = sorted(known.index[known]) or sorted(known.index)
        rates[str(scenario)] = float(usable[len(usable) // 2])
    return rates


def baseline(candidates: Iterable[str]) -> str:
    """What the others are compared with: the first in the order of the architectures."""
    return _ordered(set(candidates))[0]


def compared(candidates: Iterable[str]) -> list[str]:
    """The architectures of candidates, each once, in their order."""
    return list(dict.fromkeys(_architecture(candidate) for candidate in candidates))


def validated(validation: Mapping[str, Any], candidates: Iterable[str]) -> dict[str, Any]:
    """Of what `simlib validate` found, what it found of the architectures of the candidates."""
    names = compared(candidates)
    kept = {part: [row for row in validation[part] if row["architecture"] in names] for part in ("rows", "saturations")}
    return {**validation, **kept}


def overview(points: pd.DataFrame, names: Iterable[str] = OVERVIEW) -> pd.DataFrame:
    """Points as a table to read: a row each point, a column each metric with its interval."""
    return _readable(points, names)


def consistency(points: pd.DataFrame) -> pd.DataFrame:
    """What was lost, doubled, oversold or read stale, as a table to read: means of one run."""
    return _readable(points, CONSISTENCY)


def warm_ups(results: pd.DataFrame) -> pd.DataFrame:
    """A row each scenario and rate: the longest warm-up that MSER-5 found and the cut that is used, in messages.

    `not_stationary` counts the runs in which none was found, because their times are not seen to be stationary.
    """
    _, runs = _compared(results)
    sound = runs[runs["failed"].isna() & ~runs["overloaded"]]
    grouped = sound.groupby(["scenario", "rate"], sort=False)
    return grouped.agg(
        longest=("warm_up", "max"),
        used=("used", "first"),
        runs=("warm_up", "size"),
        not_stationary=("warm_up", lambda found: int(found.isna().sum())),
    ).reset_index()


def in_words(points: pd.DataFrame, failures: Iterable[str] = ()) -> str:
    """What a sweep's entry found, in a few sentences of Markdown."""
    lines = []
    for (candidate, scenario), group in points.groupby(["candidate", "scenario"], sort=False):
        rates = sorted(group["rate"].unique())
        full = sorted(group.loc[group["overloaded"], "rate"].unique())
        where = f"`{candidate}` under `{scenario}`"
        lines.append(
            f"{where} is overloaded at {', '.join(f'{rate:g}' for rate in full)} messages a second."
            if full
            else f"{where} carries {rates[-1]:.4g} messages a second without being overloaded."
        )
        last = group[group["rate"] == (rates[-1] if not full else max([r for r in rates if r not in full] or rates))]
        for metric in ("response_time_p95.order", "lost", "duplicated", "oversold_units"):
            row = last[last["metric"] == metric]
            if len(row) and not math.isnan(row["value"].iloc[0]):
                shown = words.quantity(*row[["value", "unit", "low", "high"]].iloc[0])
                lines.append(f"At {row['rate'].iloc[0]:.4g}/s `{metric}` is {shown}.")
    lines += [f"**A run failed:** {why}" for why in failures]
    return "\n\n".join(lines)


def conclusions(pairs: pd.DataFrame) -> str:
    """What the headlines say, a sentence each, as a Markdown list."""
    lines = []
    for row in headlines(pairs).to_dict("records"):
        where = f"`{row['scenario']}`" + ("" if math.isnan(row["rate"]) else f" at {row['rate']:.4g}/s")
        values = (row["difference"], row["low"], row["high"], row["unit"])
        lines.append("- " + words.difference(f"`{row['metric']}`", where, row["a"], row["b"], *values))
    return "\n".join(lines)


def _compared(results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows at the cuts that are used, and a row each run; `overloaded` is the point's in both.

    Both have a column `candidate`, the runs also `used`, the cut of their point.
    """
    variant = results["variant"].where(results["variant"] == "", "/" + results["variant"])
    rows = results.assign(candidate=results["architecture"] + variant)
    runs = rows.drop_duplicates([*_POINT, "replication"])
    sound = runs["failed"].isna()
    share = runs["overloaded"].where(sound, False).astype(float).groupby([runs[n] for n in _POINT]).transform("mean")
    runs = runs.assign(overloaded=share > 0.5)
    needed = runs["warm_up"].where(sound & ~runs["overloaded"])
    needed = needed.groupby([runs["scenario"], runs["rate"]]).max().rename("needed").reset_index()
    cuts = rows.loc[rows["metric"].notna(), ["scenario", "rate", "cut"]].drop_duplicates()
    cuts = cuts.merge(needed, on=["scenario", "rate"])
    cuts["used"] = cuts["cut"].where(cuts["cut"] >= cuts["needed"].fillna(0))
    used = cuts.groupby(["scenario", "rate"]).agg(used=("used", "min"), longest=("cut", "max"))
    used = used["used"].fillna(used["longest"])
    runs = runs.merge(used.reset_index(), on=["scenario", "rate"], how="left")
    rows = rows.drop(columns=["overloaded"]).merge(
        runs[[*_POINT, "replication", "overloaded", "used"]], on=[*_POINT, "replication"]
    )
    return rows[rows["metric"].notna() & (rows["cut"] == rows["used"])], runs


def _groups(rows: pd.DataFrame, by: list[str]) -> Iterator[tuple[Any, np.ndarray]]:
    """The values of the columns `by` with the places of their rows, in order of replication.

    A NaN is always the same object, so that keys can be looked up.
    """
    order = np.argsort(rows["replication"].to_numpy(), kind="stable")
    numbers = rows.groupby(by, sort=False, dropna=False).ngroup().to_numpy()[order]
    places = order[np.argsort(numbers, kind="stable")]
    starts = np.flatnonzero(np.diff(np.sort(numbers), prepend=-1))
    keys = rows[by].to_numpy(dtype=object)
    for where in np.split(places, starts[1:]):
        yield tuple(math.nan if key != key else key for key in keys[where[0]]), where


def _best(rows: pd.DataFrame) -> pd.DataFrame:
    """The goodput of each candidate, a row each replication, at that rate of a grid where its mean is largest."""
    goodput = rows[rows["metric"] == "goodput"]
    grid = goodput.groupby(["candidate", "scenario"])["rate"].transform("nunique") > 1
    goodput = goodput[grid]
    means = goodput.groupby(_POINT)["value"].transform("mean")
    largest = means.groupby([goodput["candidate"], goodput["scenario"]]).transform("max")
    return goodput[means == largest]


def _ordered(candidates: Iterable[str]) -> list[str]:
    """Candidates in the order of the architectures, the baseline first, each before its variants."""
    known = architectures.names()

    def place(candidate: str) -> tuple[int, str]:
        name = _architecture(candidate)
        return (known.index(name) if name in known else len(known), candidate)

    return sorted(candidates, key=place)


def _architecture(candidate: str) -> str:
    """The architecture that a candidate is, or is a variant of; itself where none is known."""
    within = [name for name in architectures.names() if candidate == name or candidate.startswith(f"{name}/")]
    return within[-1] if within else candidate


def _readable(points: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    wanted = [name for name in names if name in set(points["metric"])]
    chosen = points[points["metric"].isin(wanted)]
    shown = [words.quantity(*row) for row in chosen[["value", "unit", "low", "high"]].itertuples(index=False)]
    table = chosen.assign(shown=shown).pivot(index=["scenario", "rate", "candidate"], columns="metric", values="shown")
    return table[wanted].rename_axis(columns=None).reset_index()
