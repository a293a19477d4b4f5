"""The explorer's figures: made once, then moved in place, because drawing anew takes longer than simulating."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

import bqplot
import ipywidgets as widgets
import numpy as np

from simlib.domain import KINDS
from simlib.explorer.numbers import COUNTS, LEVELS, SERIES, SHARES, Numbers
from simlib.figures import style
from simlib.figures.catalogue import Language, text

_COLOURS = {kind: mark["color"] for kind, mark in style.marks(KINDS).items()}
_DASHES = {"response_time": "solid", "delivery_time": "dashed"}
_HEIGHT = "262px"
_STEPS = (1.0, 2.0, 5.0)
_OVERLOAD = 95.0


class Distribution:
    """The share of messages done within a time, a line for each kind of message."""

    def __init__(self, time: str) -> None:
        self.time = time
        self.series = [series for series in SERIES if series[0] == time]
        self.x, y = bqplot.LogScale(min=1.0, max=100.0), bqplot.LinearScale(min=0.0, max=100.0)
        shares = np.tile(100 * SHARES, (len(self.series), 1))
        self.lines = _lines(self.series, np.full_like(shares, np.nan), shares, self.x, y)
        self.across, self.up = _axis(self.x), _axis(y, "left")
        self.figure = _figure([self.lines], [self.across, self.up])

    def label(self, language: Language) -> None:
        """Write the axes' labels."""
        self.across.label, self.up.label = text(self.time, language), text("done_within", language)
        _number_ticks(self.across, self.x, language)

    def show(self, found: Numbers, language: Language) -> None:
        """Move the lines."""
        times = 1e3 * np.array([found.times[series] for series in self.series])
        _fit(self.x, times)
        _number_ticks(self.across, self.x, language)
        self.lines.x = times


class Loads:
    """The 95th percentile of each time against the offered rate, with a line at the rate that is chosen."""

    def __init__(self) -> None:
        self.x, self.y = bqplot.LinearScale(min=0.0, max=100.0), bqplot.LogScale(min=1.0, max=100.0)
        self.lines = {}
        for time in _DASHES:
            series = [series for series in SERIES if series[0] == time]
            self.lines[time] = _lines(series, np.zeros(2), np.zeros((len(series), 2)), self.x, self.y)
        for lines in self.lines.values():
            lines.marker, lines.marker_size, lines.visible = "circle", 25, False
        self.chosen = bqplot.Lines(
            x=[0.0, 0.0], y=[1e-6, 1e9], scales={"x": self.x, "y": self.y}, colors=["#999999"], stroke_width=1.2
        )
        self.across, self.up = _axis(self.x), _axis(self.y, "left")
        self.figure = _figure([self.chosen, *self.lines.values()], [self.across, self.up])

    def label(self, language: Language) -> None:
        """Write the axes' labels."""
        self.across.label, self.up.label = text("rate", language), text("p95_ms", language)
        _number_ticks(self.up, self.y, language)

    def choose(self, rate: float) -> None:
        """Move the line of the chosen rate."""
        self.chosen.x = [rate, rate]

    def show(
        self, rates: Sequence[float], points: Sequence[Mapping[tuple[str, str], float]], language: Language
    ) -> None:
        """Move the lines, which go through the points of these rates; fewer than two make none."""
        for lines in self.lines.values():
            lines.visible = len(rates) > 1
        if len(rates) < 2:
            return
        times = 1e3 * np.array([[point[series] for point in points] for series in SERIES])
        self.x.max = 1.05 * max([*rates, float(self.chosen.x[0])])
        _fit(self.y, times)
        _number_ticks(self.up, self.y, language)
        for time, lines in self.lines.items():
            with lines.hold_sync():
                lines.x = np.array(rates)
                lines.y = times[[series[0] == time for series in SERIES]]


class Utilisation:
    """How busy each pool is, as bars."""

    def __init__(self) -> None:
        self.x, self.y = bqplot.LinearScale(min=0.0, max=100.0), bqplot.OrdinalScale()
        self.bars = bqplot.Bars(
            x=[""],
            y=[0.0],
            scales={"x": self.y, "y": self.x},
            orientation="horizontal",
            colors=["#7a9cb8"],
            padding=0.3,
        )
        self.across, self.up = _axis(self.x), _axis(self.y, "left")
        self.up.grid_lines = "none"
        self.figure = _figure([self.bars], [self.up, self.across], left=150)

    def label(self, language: Language) -> None:
        """Write the axis's label."""
        self.across.label = text("utilisation", language)

    def show(self, found: Numbers) -> None:
        """Move the bars; the first pool stands above."""
        pools = list(found.utilisation)[::-1]
        used = np.nan_to_num([100 * found.utilisation[pool] for pool in pools])
        with self.bars.hold_sync():
            if list(self.bars.x) != pools:
                self.bars.x = pools
            self.bars.y = used
            self.bars.colors = ["#d55e00" if share >= _OVERLOAD else "#7a9cb8" for share in used]


def legend(language: Language) -> str:
    """What colours and dashes mean, as HTML."""
    entries = [(_COLOURS[kind], "solid", text(kind, language)) for kind in KINDS]
    entries += [("#888888", dash, text(f"line:{time}", language)) for time, dash in _DASHES.items()]
    return "".join(
        f'<span class="simlib-key"><i style="border-top:3px {dash} {colour}"></i>{html.escape(words)}</span>'
        for colour, dash, words in entries
    )


def percentiles(found: Numbers, language: Language) -> str:
    """The table of percentiles, in ms, as HTML; none where the run is overloaded."""
    head = [text("time_ms", language), *(text(level, language) for level in LEVELS)]
    rows = []
    for series in SERIES:
        values = [1e3 * found.times[series][place] for place in LEVELS.values()]
        shown = ["–" if math.isnan(value) or found.overloaded else _digits(value, language) for value in values]
        rows.append([text("of:" + ".".join(series), language), *shown])
    return _table(head, rows)


def counts(found: Mapping[str, float], language: Language) -> str:
    """The table of what was lost, doubled, oversold or read stale, as HTML."""
    rows = []
    for name in COUNTS:
        value = found[name] * (100 if name == "stale_read_fraction" else 1)
        rows.append([text(name, language), "–" if math.isnan(value) else _digits(value, language)])
    return _table([text("in_this_run", language), ""], rows)


def whole(number: int, language: Language) -> str:
    """A whole number with its thousands set apart."""
    return f"{number:,}".replace(",", "\u00a0" if language == "ru" else ",")


def _digits(value: float, language: Language) -> str:
    return whole(int(value), language) if value == int(value) else style.number(float(f"{value:.3g}"), language)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{html.escape(words)}</th>" for words in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="simlib-table"><tr>{titles}</tr>{body}</table>'


def _lines(
    series: Sequence[tuple[str, str]], x: np.ndarray, y: np.ndarray, across: bqplot.Scale, up: bqplot.Scale
) -> bqplot.Lines:
    dashes = {_DASHES[time] for time, _ in series}
    return bqplot.Lines(
        x=x, y=y, scales={"x": across, "y": up}, colors=[_COLOURS[kind] for _, kind in series], stroke_width=2,
        line_style=dashes.pop() if len(dashes) == 1 else "solid",
    )  # fmt: skip


def _axis(scale: bqplot.Scale, side: str = "bottom") -> bqplot.Axis:
    offset = "44px" if side == "left" else "36px"
    return bqplot.Axis(scale=scale, side=side, grid_color="#e4e4e4", label_offset=offset)


def _figure(marks: list[bqplot.Mark], axes: list[bqplot.Axis], left: int = 64) -> bqplot.Figure:
    return bqplot.Figure(
        marks=marks, axes=axes, animation_duration=0, background_style={"fill": "white"},
        fig_margin={"top": 12, "bottom": 48, "left": left, "right": 18},
        layout=widgets.Layout(width="100%", height=_HEIGHT, min_width="300px"),
    )  # fmt: skip


def _fit(scale: bqplot.LogScale, values: np.ndarray) -> None:
    """Let a logarithmic scale reach from the round number below the values to the one above them."""
    there = values[np.isfinite(values) & (values > 0)]
    if there.size:
        low, high = _round(float(there.min()), up=False), _round(float(there.max()), up=True)
        with scale.hold_sync():
            scale.min, scale.max = low, max(high, 10 * low)


def _round(value: float, up: bool) -> float:
    """The next of 1, 2, 5, 10, 20 … above or below."""
    decade = 10.0 ** math.floor(math.log10(value))
    around = [step * decade for step in (*_STEPS, 10.0)]
    rounded = min(step for step in around if step >= value * (1 - 1e-9)) if up else max(s for s in around if s <= value)
    return float(f"{rounded:.6g}")


def _number_ticks(axis: bqplot.Axis, scale: bqplot.LogScale, language: Language) -> None:
    """Ticks at round numbers of a logarithmic axis, written as the language writes them."""
    first, last = math.floor(math.log10(scale.min)), math.ceil(math.log10(scale.max))
    steps = _STEPS if last - first <= 3 else (1.0,)
    ticks = [float(f"{step * 10.0**decade:.6g}") for decade in range(first, last + 1) for step in steps]
    ticks = [tick for tick in ticks if scale.min * (1 - 1e-9) <= tick <= scale.max * (1 + 1e-9)]
    labels = {np.format_float_positional(tick, trim="-"): style.number(tick, language) for tick in ticks}
    if axis.tick_labels != labels:
        axis.tick_labels = labels  # before the ticks: they are drawn with the labels that are there
        axis.tick_values = np.array(ticks)
