"""One function for each figure: from the tables of `simlib.comparison` to a matplotlib Figure, in either language."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from simlib.calibration.fit import quantiles
from simlib.comparison import TIMELY, baseline
from simlib.distributions import Distribution
from simlib.domain import KINDS, ORDER, STOCK_UPDATE
from simlib.figures import style
from simlib.figures.catalogue import TEXTS, Language, text, title, twin_title
from simlib.statistics import mean_interval

COUNTS = ("stale_read_fraction", "oversold_units", "failed", "half_finished", "lost", "duplicated")
LEVELS = ("p50", "p95", "p99")
LEVEL = ("steady", "fulfilment")
"""The scenarios whose backlog has no course through time."""
_MARK: Any = {"color": "#1b1b1b", "marker": "o", "linestyle": "-"}
"""Where all that is drawn is of one kind."""


def response_time(points: pd.DataFrame, language: Language = "en") -> Figure:
    """Median and 95th percentile of the response time of each kind of message against the offered rate, a panel each candidate."""
    return _times(points, "response_time", KINDS, language)


def delivery_time(points: pd.DataFrame, language: Language = "en") -> Figure:
    """Median and 95th percentile of the delivery time of stock updates and orders against the offered rate, a panel each candidate."""
    return _times(points, "delivery_time", (STOCK_UPDATE, ORDER), language)


def saturation(points: pd.DataFrame, language: Language = "en") -> Figure:
    """Goodput against the offered rate, a panel each candidate, with the line on which all that is offered is done in time."""
    with style.drawing():
        grid = _grid(points)
        candidates = _candidates(grid)
        figure, panels = _panels(candidates, 1.25, language)
        top = float(grid["rate"].max())
        for candidate, axes in panels.items():
            axes.plot([0, top], [0, top], color="#999999", linewidth=0.9)
            rows = _rows(grid, candidate, "goodput")
            _errorbar(axes, rows, _MARK)
            full = rows[rows["overloaded"]]
            axes.plot(full["rate"], full["value"], "x", color=_MARK["color"], markersize=9)
            axes.set(xlim=(0, None), ylim=(0, top))
            style.numbers(axes, language)
        _label(panels, text("rate", language), text("goodput", language))
        ideal = Line2D([], [], color="#999999", linewidth=0.9, label=text("ideal", language))
        figure.legend(handles=[ideal, _cross(language)], loc="outside upper center", ncols=2)
        return _finished(figure, grid, language)


def backlog(series: pd.DataFrame, points: pd.DataFrame, language: Language = "en") -> Figure:
    """Messages issued and not settled through time in the scenarios that are not level, a panel each candidate.

    Where arrivals follow a profile the replications' means are shown with 95 % intervals; else, as bursts come at other
    times in each, one run.
    """
    series = series[~series["scenario"].isin(LEVEL)]
    variant = series["variant"].where(series["variant"] == "", "/" + series["variant"])
    series = series.assign(candidate=series["architecture"] + variant)
    marks = style.marks(_known_first(series["scenario"].unique()))
    with style.drawing():
        figure, panels = _panels(_candidates(points), 1.25, language)
        for candidate, axes in panels.items():
            for scenario, mark in marks.items():
                own = series[(series["candidate"] == candidate) & (series["scenario"] == scenario)]
                profile = not points.loc[points["scenario"] == scenario, "cut"].any()
                _backlog_line(axes, own, mark, profile)
            axes.set_yscale("log")
        for axes in panels.values():
            axes.set(xlim=(0, None), ylim=(1, None))
            _plain_log(axes, language)
        _label(panels, text("time", language), text("backlog", language))
        handles = []
        for scenario, mark in marks.items():
            profile = not points.loc[points["scenario"] == scenario, "cut"].any()
            runs = series.loc[series["scenario"] == scenario, "replication"].nunique()
            what = text("mean_of_runs", language, runs=runs) if profile else text("one_run", language)
            look = {"color": mark["color"], "linestyle": mark["linestyle"]}
            handles.append(Line2D([], [], label=f"{title(scenario, language)} ({what})", **look))
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        return _finished(figure, points, language)


def consistency(points: pd.DataFrame, language: Language = "en") -> Figure:
    """What a run fails, loses, doubles, oversells and reads stale in each scenario, with intervals, a row each candidate."""
    with style.drawing():
        chosen = _at_one_rate(points)
        marks = style.marks(_known_first(chosen["scenario"].unique()))
        candidates = _candidates(points)
        figure = Figure(figsize=(style.WIDTH, 2 * _height(candidates) + 0.9), layout="constrained")
        panels = figure.subplots(2, len(COUNTS) // 2, sharey=True)
        for axes, metric in zip(panels.flat, COUNTS, strict=True):
            rows = chosen[chosen["metric"] == metric]
            scale = 100.0 if "fraction" in metric else 1.0
            if rows["value"].any():
                for shift, (scenario, mark) in _shifted(marks):
                    own = rows[rows["scenario"] == scenario].set_index("candidate").reindex(candidates)
                    _dots(axes, own[["value", "low", "high"]] * scale, shift, mark)
                axes.set_xlim(0, None)
            else:
                axes.set(xlim=(0, 1), xticks=[])
                axes.text(0.5, 0.5, text("none_in_any_run", language), transform=axes.transAxes, ha="center", color="#555555")
            axes.set_title(_wrapped(text(metric, language), 18), loc="left", fontsize=8)
            _name_rows(axes, candidates, language)
        handles = [_handle(_at(chosen, scenario, language), mark) for scenario, mark in marks.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        return _finished(figure, points, language)


def differences(headlines: pd.DataFrame, points: pd.DataFrame, language: Language = "en") -> Figure:
    """Times and saturation as multiples of the baseline's, with the 95 % intervals of the paired differences.

    A row each candidate, a panel each metric; filled where the interval leaves out what is equal.
    """
    with style.drawing():
        base = baseline(headlines["b"])
        rows = headlines[headlines["aspect"].isin(TIMELY) & headlines["low"].notna() & (headlines["b"] == base)]
        metrics = list(dict.fromkeys(rows["metric"]))
        candidates = [name for name in _candidates(points) if name != base]
        marks = style.marks(_known_first(rows["scenario"].unique()))
        lines = math.ceil(len(metrics) / 2)
        figure = Figure(figsize=(style.WIDTH, lines * (_height(candidates) + 0.2) + 0.9), layout="constrained")
        panels = figure.subplots(max(1, lines), 2, sharey=True, squeeze=False)
        for axes, metric in zip(panels.flat, metrics, strict=False):
            axes.axvline(1, color="#555555", linewidth=0.9)
            for shift, (scenario, mark) in _shifted(marks):
                own = rows[(rows["metric"] == metric) & (rows["scenario"] == scenario)].set_index("a").reindex(candidates)
                ratio = own[["difference", "low", "high"]].div(own["reference"], axis=0) + 1
                found = (ratio["low"] > 1) | (ratio["high"] < 1)
                _dots(axes, ratio.rename(columns={"difference": "value"}), shift, mark, found)
            axes.set_xscale("log")
            axes.set_title(text(f"short:{metric}", language), loc="left")
            _plain_log(axes, language)
            _name_rows(axes, candidates, language)
        for axes in panels.flat[len(metrics) :]:
            axes.set_axis_off()
        for axes in panels[-1]:
            axes.set_xlabel(_wrapped(text("ratio", language, base=title(base, language)), 26), fontsize=7.5)
        handles = [_handle(_at(rows, scenario, language), mark) for scenario, mark in marks.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        return _finished(figure, points, language)


def validation(found: Mapping[str, Any], language: Language = "en") -> Figure:
    """Predicted over measured percentiles, a row each twin and a panel each level, with the accuracy that was stated as a band.

    `found` is the document of `simlib validate --json`.
    """
    rows, accuracy = found["rows"], found["accuracy"]
    names = list(dict.fromkeys(twin_title(row, language) for row in rows))
    with style.drawing():
        figure = Figure(figsize=(style.WIDTH, _height(names) + 1.1), layout="constrained")
        panels = figure.subplots(1, len(LEVELS), sharey=True)
        for axes, level in zip(panels, LEVELS, strict=True):
            if level in accuracy:
                axes.axvspan(1 - accuracy[level], 1 + accuracy[level], color="#e4e4e4", linewidth=0)
            axes.axvline(1, color="#555555", linewidth=0.9)
            for kind, shift, face in (("trace", -0.15, "#1b1b1b"), ("independent", 0.15, "white")):
                own = [row for row in rows if row["kind"] == kind]
                x = [1 + row["error"][level] for row in own]
                y = [names.index(twin_title(row, language)) + shift for row in own]
                axes.plot(x, y, "o", color="#1b1b1b", markerfacecolor=face, markersize=3, markeredgewidth=0.7)
            axes.set_xscale("log")
            axes.set_title(text(level, language), loc="left")
            axes.set_xlabel(text("predicted_over_measured", language), fontsize=7)
            _plain_log(axes, language)
            _name_rows(axes, names, language)
        plain = {"color": "#1b1b1b", "marker": "o"}
        handles = [_handle(text(kind, language), plain, kind == "trace") for kind in ("trace", "independent")]
        handles.append(Line2D([], [], color="#e4e4e4", linewidth=7, label=text("stated", language)))
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
        return _with_footer(figure, style.calibration(found["calibration"], language))


def fits(
    samples: Mapping[str, np.ndarray], fitted: Mapping[str, Distribution], foot: str, language: Language = "en"
) -> Figure:
    """Each time that was fitted: its samples' distribution function with that of the fit, and quantiles of one against the other.

    `samples` are arrays of shape (n,), s, by parameter; `foot` says what they come from.
    """
    with style.drawing():
        figure = Figure(figsize=(style.WIDTH, 2.2 * len(samples) + 0.5), layout="constrained")
        panels = figure.subplots(len(samples), 2, squeeze=False)
        levels = np.linspace(0.001, 0.999, 500)
        for (left, right), (name, values) in zip(panels, samples.items(), strict=True):
            law, seen = fitted[name], 1e3 * np.sort(values)
            ranks = (np.arange(seen.size) + 0.5) / seen.size
            left.step(seen, ranks, where="post", color="#1b1b1b", label=text("samples", language))
            foretold = 1e3 * quantiles(law, levels)
            left.plot(foretold, levels, color="#d55e00", linestyle="--", label=text("fitted", language))
            left.set(xlabel=text("time_ms", language), ylabel=text("share_below", language), ylim=(0, 1))
            label = f"parameter:{name}"
            left.set_title(_wrapped(text(label, language) if label in TEXTS else name, 60), loc="left", fontsize=8)
            theirs = 1e3 * quantiles(law, ranks)
            limits = _limits([*seen.tolist(), *theirs.tolist()])
            right.plot(limits, limits, color="#555555", linewidth=0.9)
            right.plot(theirs, seen, "o", color="#0072b2", markerfacecolor="white", markersize=3)
            right.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
            right.set(xlabel=text("fitted_ms", language), ylabel=text("sample_ms", language))
            _plain_log(right, language)
            style.numbers(left, language)
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
        return _with_footer(figure, foot)


def readme_comparison(points: pd.DataFrame, language: Language = "en") -> Figure:
    """The comparison at a glance: how long a customer waits for an order, and how long a stock update is under way.

    At the middle rate of the grid at which nobody is overloaded, a row each candidate.
    """
    with style.drawing():
        grid = _at_one_rate(_grid(points))
        candidates = _candidates(grid)
        figure = Figure(figsize=(style.WIDTH * 1.15, _height(candidates) + 0.9), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (metric, kind) in zip(
            panels, (("response_time", ORDER), ("delivery_time", STOCK_UPDATE)), strict=True
        ):
            for level, filled in (("p50", False), ("p95", True)):
                own = grid[grid["metric"] == f"{metric}_{level}.{kind}"].set_index("candidate").reindex(candidates)
                _dots(axes, own[["value", "low", "high"]] * 1e3, 0.0, _MARK, filled)
            axes.set_xscale("log")
            axes.set(xlabel=text(metric, language))
            at = text("per_second", language, rate=style.number(float(grid["rate"].iloc[0]), language))
            axes.set_title(f"{title(kind, language)}, {at}", loc="left")
            _plain_log(axes, language)
            _name_rows(axes, candidates, language)
        handles = [_handle(text(level, language), _MARK, level == "p95") for level in ("p50", "p95")]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        return _finished(figure, grid, language)


def _times(points: pd.DataFrame, metric: str, kinds: Sequence[str], language: Language) -> Figure:
    """A panel each candidate; where it is overloaded a cross at the upper edge, and a second axis of its own load."""
    marks = style.marks(kinds)
    with style.drawing():
        grid = _grid(points)
        figure, panels = _panels(_candidates(grid), 1.45, language)
        for candidate, axes in panels.items():
            for kind, mark in marks.items():
                for level, filled in (("p50", False), ("p95", True)):
                    rows = _rows(grid, candidate, f"{metric}_{level}.{kind}")
                    shown = {**mark, "markerfacecolor": mark["color"] if filled else "white", "markersize": 3}
                    _errorbar(axes, rows, shown, scale=1e3, linewidth=1.1 if filled else 0.7)
            full = rows.loc[rows["overloaded"], "rate"]
            axes.plot(full, np.full(len(full), 0.93), "x", color="#1b1b1b", transform=axes.get_xaxis_transform(), markersize=5)
            axes.set_yscale("log")
            axes.set_xlim(0, float(grid["rate"].max()) * 1.05)
            _load_axis(axes, grid, candidate, language)
            _plain_log(axes, language)
        _label(panels, text("rate", language), text(metric, language))
        handles = [_handle(title(kind, language), mark, line=True) for kind, mark in marks.items()]
        handles += [_handle(text(level, language), _MARK, level == "p95") for level in ("p50", "p95")]
        figure.legend(handles=[*handles, _cross(language)], loc="outside upper center", ncols=3)
        return _finished(figure, grid, language)


def _panels(candidates: Sequence[str], height: float, language: Language) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel each candidate, three in a line, on the same scales; `height` of a panel, inches."""
    lines = math.ceil(len(candidates) / 3)
    figure = Figure(figsize=(style.WIDTH, height * lines + 1.0), layout="constrained")
    panels = figure.subplots(lines, 3, sharex=True, sharey=True, squeeze=False).flat
    for axes in panels[len(candidates) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(candidates) - 3) : len(candidates)]:
        axes.tick_params(labelbottom=True)
    named = dict(zip(candidates, panels, strict=False))
    for candidate, axes in named.items():
        axes.set_title(_wrapped(title(candidate, language), 30), loc="left", fontsize=7.5)
        axes.tick_params(labelsize=7)
    return figure, named


def _label(panels: Mapping[str, Axes], below: str, left: str) -> None:
    """Labels of the axes at the panels below and at the left."""
    for k, axes in enumerate(panels.values()):
        if k >= len(panels) - 3:
            axes.set_xlabel(_wrapped(below, 30), fontsize=7)
        if k % 3 == 0:
            axes.set_ylabel(_wrapped(left, 22), fontsize=7)


def _load_axis(axes: Axes, grid: pd.DataFrame, candidate: str, language: Language) -> None:
    """A second axis above: the rate as a share of the candidate's own saturation, where that is known."""
    loads = grid.loc[(grid["candidate"] == candidate) & (grid["load"] > 0), ["rate", "load"]]
    if loads.empty:
        return
    capacity = float(loads["rate"].iloc[0] / loads["load"].iloc[0])
    above = axes.secondary_xaxis(
        1.0, functions=(partial(operator.mul, 1 / capacity), partial(operator.mul, capacity))
    )
    above.tick_params(labelsize=6, length=2, pad=1)
    above.xaxis.set_major_formatter(lambda value, _: style.number(value, language))


def _height(rows: Sequence[str]) -> float:
    """How high a panel with so many named rows is, inches."""
    return 0.5 + 0.22 * len(rows)


def _name_rows(axes: Axes, names: Sequence[str], language: Language) -> None:
    """The titles of candidates beside the rows of a panel, the first above."""
    axes.set_yticks(range(len(names)), [_wrapped(title(name, language), 30) for name in names], fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda value, _: style.number(value, language))


def _at(rows: pd.DataFrame, scenario: str, language: Language) -> str:
    """A scenario's title with the rate that rows have it at."""
    rates = rows.loc[rows["scenario"] == scenario, "rate"].dropna()
    return ", ".join(
        [
            title(scenario, language),
            *(text("per_second", language, rate=style.number(round(rate, 1), language)) for rate in rates.unique()),
        ]
    )


def _shifted(marks: Mapping[str, dict[str, Any]]) -> Iterator[tuple[float, tuple[str, dict[str, Any]]]]:
    """Each mark with how far it is off the middle of its row, so that none hides another."""
    for k, named in enumerate(marks.items()):
        yield 0.15 * (k - (len(marks) - 1) / 2), named


def _dots(axes: Axes, rows: pd.DataFrame, shift: float, mark: Mapping[str, Any], filled: Any = True) -> None:
    """A dot a row, with its interval; `filled` says of all, or of each, whether it is."""
    value, low, high = (rows[name].to_numpy() for name in ("value", "low", "high"))
    places = np.arange(len(rows)) + shift
    reach = [value - np.fmin(low, value), np.fmax(high, value) - value]
    axes.errorbar(value, places, xerr=reach, fmt="none", ecolor=mark["color"], elinewidth=0.9, capsize=1.5)
    face = np.where(np.broadcast_to(filled, len(rows)), mark["color"], "white")
    axes.scatter(value, places, s=14, zorder=3, marker=mark["marker"], c=face, edgecolors=mark["color"], linewidths=0.8)


def _backlog_line(axes: Axes, rows: pd.DataFrame, mark: Mapping[str, Any], profile: bool) -> None:
    look: dict[str, Any] = {"color": mark["color"], "linestyle": mark["linestyle"], "linewidth": 0.8}
    if not profile:
        first = rows[rows["replication"] == rows["replication"].min()]
        axes.plot(first["time"], first["backlog"], **look)
        return
    wide = rows.pivot_table(index="time", columns="replication", values="backlog").dropna()
    intervals = [mean_interval(row) for row in wide.to_numpy()]
    axes.plot(wide.index, [one.value for one in intervals], **look)
    low, high = ([getattr(one, end) for one in intervals] for end in ("low", "high"))
    axes.fill_between(wide.index, low, high, color=mark["color"], alpha=0.15, linewidth=0)


def _errorbar(
    axes: Axes, rows: pd.DataFrame, mark: Mapping[str, Any], scale: float = 1.0, linewidth: float = 1.3, label: str = ""
) -> None:
    value, low, high = (rows[name].to_numpy() * scale for name in ("value", "low", "high"))
    axes.errorbar(
        rows["rate"], value, yerr=[value - np.fmin(low, value), np.fmax(high, value) - value], linewidth=linewidth,
        label=label or None, **mark,
    )  # fmt: skip


def _handle(label: str, mark: Mapping[str, Any], filled: bool = True, line: bool = False) -> Line2D:
    look: dict[str, Any] = {
        "color": mark["color"],
        "marker": mark["marker"],
        "markerfacecolor": mark["color"] if filled else "white",
    }
    return Line2D([], [], label=label, linestyle=mark["linestyle"] if line else "", **look)


def _cross(language: Language) -> Line2D:
    return Line2D([], [], color="#1b1b1b", marker="x", linestyle="", label=text("overloaded", language))


def _finished(figure: Figure, points: pd.DataFrame, language: Language) -> Figure:
    """With what it stands on at its foot: runs, seed, version and calibration."""
    foot = [style.origin(points, language), style.calibration(points["calibration_hash"], language)]
    return _with_footer(figure, "\n".join(foot))


def _with_footer(figure: Figure, words: str) -> Figure:
    words = "\n".join(_wrapped(line, int(23 * figure.get_figwidth())) for line in words.split("\n"))
    room = (0.05 + 0.1 * (words.count("\n") + 1)) / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, room, 1, 1 - room))
    figure.text(0.995, 0.003, words, ha="right", va="bottom", fontsize=5.5, color="#555555")
    return figure


def _grid(points: pd.DataFrame) -> pd.DataFrame:
    """The points of the scenario with the most rates."""
    rates = points.groupby("scenario", sort=False)["rate"].nunique()
    return points[points["scenario"] == rates.idxmax()]


def _at_one_rate(points: pd.DataFrame) -> pd.DataFrame:
    """Each scenario at one rate: the middle one of those at which nobody is overloaded."""
    chosen = []
    for _, group in points.groupby("scenario", sort=False):
        full = group.groupby("rate")["overloaded"].any()
        rates = sorted(full.index[~full]) or sorted(full.index)
        chosen.append(group[group["rate"] == rates[len(rates) // 2]])
    return pd.concat(chosen)


def _rows(points: pd.DataFrame, candidate: str, metric: str) -> pd.DataFrame:
    return points[(points["candidate"] == candidate) & (points["metric"] == metric)].sort_values("rate")


def _candidates(points: pd.DataFrame) -> list[str]:
    return _known_first(points["candidate"].unique())


def _known_first(names: Iterable[str]) -> list[str]:
    """Names in the order of the catalogue, then those that it does not know."""
    order = list(TEXTS)
    return sorted(names, key=lambda name: (order.index(name) if name in TEXTS else len(order), name))


def _wrapped(words: str, width: int) -> str:
    lines = [""]
    for word in words.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _plain_log(axes: Axes, language: Language) -> None:
    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
            axis.set_minor_formatter(NullFormatter())
    style.numbers(axes, language)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if value is not None and value > 0]
    return (min(known) / 1.3, max(known) * 1.3) if known else (1.0, 10.0)
