"""One function for each figure: from the tables of `simlib.comparison` to a matplotlib Figure, in either language."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from simlib.calibration.fit import quantiles
from simlib.comparison import TIMELY
from simlib.distributions import Distribution
from simlib.domain import KINDS, ORDER, STOCK_UPDATE
from simlib.figures import style
from simlib.figures.catalogue import TEXTS, Language, text, title, twin_title
from simlib.statistics import mean_interval

COUNTS = ("oversold_units", "stale_read_fraction", "lost", "duplicated")
LEVELS = ("p50", "p95", "p99")


def response_time(points: pd.DataFrame, language: Language = "en") -> Figure:
    """Median and 95th percentile of the response time against the offered rate, a panel for each kind of message."""
    return _times(points, "response_time", KINDS, language)


def delivery_time(points: pd.DataFrame, language: Language = "en") -> Figure:
    """Median and 95th percentile of the delivery time against the offered rate: of stock updates and of orders."""
    return _times(points, "delivery_time", (STOCK_UPDATE, ORDER), language)


def saturation(points: pd.DataFrame, language: Language = "en") -> Figure:
    """Goodput against the offered rate, with the line on which all that is offered is done in time."""
    with style.drawing():
        grid = _grid(points)
        figure = Figure(figsize=(style.WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        top = float(grid["rate"].max())
        axes.plot([0, top], [0, top], color="#999999", linewidth=0.9)
        handles = [Line2D([], [], color="#999999", linewidth=0.9, label=text("ideal", language))]
        for candidate, mark in style.marks(_candidates(grid)).items():
            rows = _rows(grid, candidate, "goodput")
            _errorbar(axes, rows, mark)
            full = rows[rows["overloaded"]]
            axes.plot(full["rate"], full["value"], "x", color=mark["color"], markersize=9)
            handles.append(_handle(title(candidate, language), mark, line=True))
        handles.append(_cross(language))
        axes.set(xlabel=text("rate", language), ylabel=text("goodput", language), xlim=(0, None), ylim=(0, None))
        axes.legend(handles=handles, loc="upper left")
        style.numbers(axes, language)
        return _finished(figure, grid, language)


def backlog(series: pd.DataFrame, points: pd.DataFrame, language: Language = "en") -> Figure:
    """Messages issued and not settled through time, a panel for each scenario without a grid of rates.

    Where arrivals follow a profile the replications' means are shown with 95 % intervals; else, as bursts come at other
    times in each, one run.
    """
    grids = set(_grid(points)["scenario"])
    series = series[~series["scenario"].isin(grids)]
    scenarios = _known_first(series["scenario"].unique())
    variant = series["variant"].where(series["variant"] == "", "/" + series["variant"])
    series = series.assign(candidate=series["architecture"] + variant)
    with style.drawing():
        figure = Figure(figsize=(style.WIDTH, 2.5 * max(1, len(scenarios)) + 0.5), layout="constrained")
        panels = figure.subplots(max(1, len(scenarios)), 1, squeeze=False)[:, 0]
        marks = style.marks(_candidates(points))
        for axes, scenario in zip(panels, scenarios, strict=False):
            rows = series[series["scenario"] == scenario]
            warm = points.loc[points["scenario"] == scenario, "cut"]
            profile = not warm.any()
            for candidate, mark in marks.items():
                own = rows[rows["candidate"] == candidate]
                _backlog_line(axes, own, mark, profile, title(candidate, language))
            runs = rows["replication"].nunique()
            what = text("mean_of_runs", language, runs=runs) if profile else text("one_run", language)
            axes.set_title(f"{title(scenario, language)} ({what})", loc="left")
            axes.set(ylabel=text("backlog", language), xlim=(0, None), ylim=(0, None))
            style.numbers(axes, language)
        panels[-1].set_xlabel(text("time", language))
        if len(scenarios):
            panels[0].legend(loc="upper right")
        return _finished(figure, points, language)


def consistency(points: pd.DataFrame, language: Language = "en") -> Figure:
    """What a run loses, doubles, oversells and reads stale, as bars with intervals for each scenario."""
    with style.drawing():
        chosen = _at_one_rate(points)
        scenarios = _known_first(chosen["scenario"].unique())
        candidates = _candidates(points)
        figure = Figure(figsize=(style.WIDTH, 4.6), layout="constrained")
        panels = figure.subplots(2, 2).flat
        for axes, metric in zip(panels, COUNTS, strict=True):
            _bars(
                axes,
                chosen[chosen["metric"] == metric],
                scenarios,
                candidates,
                100.0 if "fraction" in metric else 1.0,
                language,
            )
            axes.set_title(text(metric, language), loc="left")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(candidates))
        return _finished(figure, points, language)


def differences(headlines: pd.DataFrame, points: pd.DataFrame, language: Language = "en") -> Figure:
    """Paired differences of times and saturation with their 95 % intervals, a panel for each scenario.

    They are in per cent of the second architecture's mean; filled where the interval leaves out zero.
    """
    with style.drawing():
        rows = headlines[headlines["topic"].isin(TIMELY) & headlines["low"].notna()]
        metrics = list(dict.fromkeys(rows["metric"]))
        compared = list(dict.fromkeys(zip(rows["a"], rows["b"], strict=True)))
        scenarios = _known_first(rows["scenario"].unique())
        height = 0.16 * len(metrics) * (1 + len(compared)) + 0.25 * len(compared) + 0.9
        figure = Figure(figsize=(style.WIDTH, height), layout="constrained")
        panels = figure.subplots(1, max(1, len(scenarios)), sharey=True, squeeze=False)[0]
        for axes, scenario in zip(panels, scenarios, strict=False):
            own = rows[rows["scenario"] == scenario]
            axes.axvline(0, color="#555555", linewidth=0.9)
            for k, ((a, b), mark) in enumerate(style.marks(compared).items()):
                of_pair = own[(own["a"] == a) & (own["b"] == b)]
                shift = 0.24 * (k - (len(compared) - 1) / 2)
                _forest(axes, of_pair, [metrics.index(name) + shift for name in of_pair["metric"]], mark)
            words = [title(scenario, language)]
            for rate in own["rate"].dropna().unique():
                words.append(text("per_second", language, rate=style.number(round(rate, 1), language)))
            axes.set_title("\n".join(words), loc="left", fontsize=8)
            style.numbers(axes, language)
            axes.set_yticks(range(len(metrics)), [text(f"short:{name}", language) for name in metrics])
        panels[0].set_ylim(len(metrics) - 0.5, -0.5)
        panels[len(panels) // 2].set_xlabel(text("relative_difference", language))
        handles = [
            _handle(text("against", language, a=title(a, language), b=title(b, language)), mark)
            for (a, b), mark in style.marks(compared).items()
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=1)
        return _finished(figure, points, language)


def validation(found: Mapping[str, Any], language: Language = "en") -> Figure:
    """Predicted against measured percentiles, a panel each, with the accuracy that was stated before as a band.

    `found` is the document of `simlib validate --json`.
    """
    rows, accuracy = found["rows"], found["accuracy"]
    with style.drawing():
        figure = Figure(figsize=(style.WIDTH, 3.3), layout="constrained")
        panels = figure.subplots(1, len(LEVELS))
        names = list(dict.fromkeys(twin_title(row, language) for row in rows))
        marks = style.marks(names)
        for axes, level in zip(panels, LEVELS, strict=True):
            pairs = [(row, 1e3 * row["measured"][level], 1e3 * row["predicted"][level]) for row in rows]
            limits = _limits([x for _, *both in pairs for x in both])
            axes.plot(limits, limits, color="#555555", linewidth=0.9)
            stated = accuracy.get(level)
            if stated is not None:
                ends = np.array(limits)
                axes.fill_between(ends, ends * (1 - stated), ends * (1 + stated), color="#e4e4e4", linewidth=0)
            for row, x, y in pairs:
                mark = marks[twin_title(row, language)]
                face = mark["color"] if row["kind"] == "trace" else "white"
                axes.plot(x, y, mark["marker"], color=mark["color"], markerfacecolor=face, markersize=4.5, alpha=0.9)
            axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
            axes.set_title(text(level, language), loc="left")
            axes.set_xlabel(text("measured", language))
            _plain_log(axes, language)
        panels[0].set_ylabel(text("predicted", language))
        handles = [_handle(name, marks[name]) for name in names]
        handles += [
            _handle(text(kind, language), {"color": "#1b1b1b", "marker": "o"}, kind == "trace")
            for kind in ("trace", "independent")
        ]
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
    """The comparison at a glance: how long a customer waits for an order, and how long a stock update is under way."""
    with style.drawing():
        grid = _grid(points)
        figure = Figure(figsize=(style.WIDTH * 1.15, 3.3), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, (metric, kind) in zip(
            panels, (("response_time", ORDER), ("delivery_time", STOCK_UPDATE)), strict=True
        ):
            _time_panel(axes, grid, metric, kind, language)
            axes.set(xlabel=text("rate", language), ylabel=text(metric, language))
        figure.legend(handles=_time_legend(_candidates(grid), language), loc="outside upper center", ncols=3)
        return _finished(figure, grid, language)


def _times(points: pd.DataFrame, metric: str, kinds: Sequence[str], language: Language) -> Figure:
    with style.drawing():
        grid = _grid(points)
        candidates = _candidates(grid)
        figure = Figure(figsize=(style.WIDTH, 3.1 * math.ceil(len(kinds) / 2) + 0.6), layout="constrained")
        panels = list(figure.subplots(math.ceil(len(kinds) / 2), 2, sharex=True, squeeze=False).flat)
        for axes, kind in zip(panels, kinds, strict=False):
            _time_panel(axes, grid, metric, kind, language)
            axes.set_ylabel(text(metric, language))
        for axes in panels[max(0, len(kinds) - 2) : len(kinds)]:
            axes.set_xlabel(text("rate", language))
            axes.tick_params(labelbottom=True)
        for axes in panels[:2]:
            _load_axes(axes, grid, candidates, language)
        handles = _time_legend(candidates, language)
        if len(kinds) < len(panels):
            panels[-1].set_axis_off()
            panels[-1].legend(handles=handles, loc="center left")
        else:
            figure.legend(handles=handles, loc="outside upper center", ncols=3)
        return _finished(figure, grid, language)


def _time_panel(axes: Axes, grid: pd.DataFrame, metric: str, kind: str, language: Language) -> None:
    """Median and 95th percentile of each candidate; where it is overloaded a cross at the upper edge."""
    for k, (candidate, mark) in enumerate(style.marks(_candidates(grid)).items()):
        for level, filled in (("p50", False), ("p95", True)):
            rows = _rows(grid, candidate, f"{metric}_{level}.{kind}")
            shown = {**mark, "markerfacecolor": mark["color"] if filled else "white"}
            _errorbar(axes, rows, shown, scale=1e3, linewidth=1.3 if filled else 0.9)
        full = rows.loc[rows["overloaded"], "rate"]
        height = np.full(len(full), 0.98 - 0.05 * k)
        axes.plot(full, height, "x", color=mark["color"], transform=axes.get_xaxis_transform(), markersize=6)
    axes.set_yscale("log")
    axes.set_xlim(0, float(grid["rate"].max()) * 1.05)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.2)
    axes.text(0.02, 0.97, title(kind, language), transform=axes.transAxes, va="top", fontsize=9)
    _plain_log(axes, language)


def _time_legend(candidates: Iterable[str], language: Language) -> list[Line2D]:
    handles = [_handle(title(name, language), mark, line=True) for name, mark in style.marks(candidates).items()]
    plain = {"color": "#1b1b1b", "marker": "o"}
    handles += [_handle(text(level, language), plain, level == "p95") for level in ("p50", "p95")]
    return [*handles, _cross(language)]


def _load_axes(axes: Axes, grid: pd.DataFrame, candidates: Sequence[str], language: Language) -> None:
    """A second axis above for each architecture: the rate as a share of its own saturation, where that is known."""
    k = 0
    for candidate in candidates:
        loads = grid.loc[(grid["candidate"] == candidate) & (grid["load"] > 0), ["rate", "load"]]
        if "/" in candidate or loads.empty:
            continue
        capacity = float(loads["rate"].iloc[0] / loads["load"].iloc[0])
        above = axes.secondary_xaxis(
            1.0 + 0.18 * k, functions=(partial(operator.mul, 1 / capacity), partial(operator.mul, capacity))
        )
        above.set_xlabel(text("load", language, candidate=title(candidate, language)), fontsize=6.5, labelpad=3)
        above.tick_params(labelsize=6.5, length=2, pad=1)
        above.xaxis.set_major_formatter(lambda value, _: style.number(value, language))
        k += 1


def _forest(axes: Axes, rows: pd.DataFrame, places: Sequence[float], mark: Mapping[str, Any]) -> None:
    scale = 100 / rows["reference"].to_numpy()
    value, low, high = (rows[name].to_numpy() * scale for name in ("difference", "low", "high"))
    axes.errorbar(value, places, xerr=[value - low, high - value], fmt="none", ecolor=mark["color"], elinewidth=1.1)
    found = np.where((low > 0) | (high < 0), mark["color"], "white")
    axes.scatter(value, places, s=20, zorder=3, marker=mark["marker"], c=found, edgecolors=mark["color"])


def _backlog_line(axes: Axes, rows: pd.DataFrame, mark: Mapping[str, Any], profile: bool, label: str) -> None:
    look: dict[str, Any] = {"color": mark["color"], "linestyle": mark["linestyle"], "linewidth": 1.2}
    if not profile:
        first = rows[rows["replication"] == rows["replication"].min()]
        axes.plot(first["time"], first["backlog"], label=label, **look)
        return
    wide = rows.pivot_table(index="time", columns="replication", values="backlog").dropna()
    intervals = [mean_interval(row) for row in wide.to_numpy()]
    axes.plot(wide.index, [one.value for one in intervals], label=label, **look)
    low, high = ([getattr(one, end) for one in intervals] for end in ("low", "high"))
    axes.fill_between(wide.index, low, high, color=mark["color"], alpha=0.15, linewidth=0)


def _bars(
    axes: Axes,
    rows: pd.DataFrame,
    scenarios: Sequence[str],
    candidates: Sequence[str],
    scale: float,
    language: Language,
) -> None:
    width = 0.8 / len(candidates)
    for k, candidate in enumerate(candidates):
        own = rows[rows["candidate"] == candidate].set_index("scenario").reindex(scenarios)
        value, low, high = (own[name].to_numpy() * scale for name in ("value", "low", "high"))
        x = np.arange(len(scenarios)) + (k - (len(candidates) - 1) / 2) * width
        look: dict[str, Any] = {"color": "white" if k else "#c8c8c8", "edgecolor": "#1b1b1b", "linewidth": 0.8}
        reach = [value - np.maximum(low, 0), high - value]
        hatch = style.HATCHES[k % len(style.HATCHES)]
        axes.bar(x, value, width * 0.9, yerr=reach, hatch=hatch, label=title(candidate, language), **look)
        for place, height in zip(x, value, strict=True):
            if height == 0:
                axes.annotate("0", (place, 0), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=6.5)
    axes.set_xticks(range(len(scenarios)), [_wrapped(title(name, language), 12) for name in scenarios])
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, None)
    if not rows["value"].any():
        axes.set(ylim=(0, 1), yticks=[])
        axes.text(0.5, 0.5, text("none_in_any_run", language), transform=axes.transAxes, ha="center", color="#555555")
    axes.yaxis.set_major_formatter(lambda value, _: style.number(value, language))


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
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_formatter(NullFormatter())
    style.numbers(axes, language)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if value is not None and value > 0]
    return (min(known) / 1.3, max(known) * 1.3) if known else (1.0, 10.0)
