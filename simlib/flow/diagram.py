"""A flow as a picture: parts from left to right in the order of their definition, and in them what they hold.

Grey boxes are pools with their units, dashed ones credits with their tokens, cylinders tables, circles consumers with
their number, round boxes actors with their period. Arrows from above are sources, those between parts links with their
mean delay; what is published goes into a queue along a solid line and to its consumers, or the actor that receives it,
along a dashed one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from simlib.flow.blocks import Choose, Every, Publish, Release, Seize, Serve, Step, Steps
from simlib.flow.model import Actor, Consumers, Credit, Flow, Link, Part, Pool, Queue, Source, Table, everything

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Language = Literal["en", "ru"]
Noun = Pool | Queue | Table | Consumers | Actor | Credit
Spot = tuple[float, float]
UNITS = {"en": ("s", "ms", "µs"), "ru": ("с", "мс", "мкс")}
LOST = {"en": "{} % lost", "ru": "потери {} %"}

FONT, SIZE = "DejaVu Sans", 9
"""The font that comes with matplotlib, and its size in points."""
ROW, SYMBOL, MARGIN, TITLE, LINE, GAP, ENTRY = 0.52, 0.36, 0.18, 0.42, 0.2, 0.65, 0.35
"""Inches: a row, the symbol in it, around a part's content, its title, a line of text, the least between two parts,
between two sources."""
INK, PAPER, SHADE = "black", "white", "0.93"


def diagram(flow: Flow, language: Language = "en") -> str:
    """The flow as SVG, the same text each time; numbers and units in the language."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": flow.name, "svg.fonttype": "path"}):
        draw(flow, language).savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def draw(flow: Flow, language: Language = "en") -> Figure:
    """The flow as a figure of matplotlib, to be saved as PNG, PDF or SVG."""
    from matplotlib.figure import Figure

    columns = {column.part: column for column in _columns(flow, language)}
    inside: list[Link] = []
    outside: list[Link] = []
    for link in flow.links.values():
        one, other = _ends(columns, link)
        (inside if abs(one.index - other.index) == 1 else outside).append(link)
    x = 0.0
    for column in columns.values():
        labels = [
            _label(link, language) for link in inside if max(c.index for c in _ends(columns, link)) == column.index
        ]
        x += max([GAP, *(_width(label) + 0.3 for label in labels)]) if column.index else 0.0
        column.left = x
        x += column.width
    top = max(column.entries for column in columns.values())
    bottom = -max(column.height for column in columns.values())
    low = bottom - len(outside) * 1.6 * LINE
    figure = Figure(figsize=(x + 2 * MARGIN, top - low + 2 * MARGIN), dpi=150, facecolor=PAPER)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(-MARGIN, x + MARGIN)
    axes.set_ylim(low - MARGIN, top + MARGIN)
    axes.set_axis_off()
    for column in columns.values():
        column.draw(axes, bottom)
    for i, link in enumerate(inside):
        above = sum(set(link.ends) == set(each.ends) for each in inside[:i])
        _between(axes, *_ends(columns, link), -TITLE / 2 - 0.4 * above, _label(link, language))
    for i, link in enumerate(outside):
        _around(axes, *_ends(columns, link), bottom, bottom - (i + 1) * 1.6 * LINE, 0.12 * i, _label(link, language))
    for queue, part in _publishers(flow):
        _published(axes, columns[queue.at], columns[part], queue)
    for group in flow.consumer_groups.values():
        _handed_out(axes, columns[group.queue.at], columns[group.at], group.queue, group)
    for actor in flow.actors.values():
        for queue in actor.queues:
            _handed_out(axes, columns[queue.at], columns[actor.at], queue, actor)
    return figure


@dataclass
class Column:
    """A part, or what is at none, with the place of everything in it. The top of all boxes is at y = 0."""

    part: Part | None
    index: int
    title: str
    language: Language
    sources: list[tuple[Source, str]]
    slots: dict[Noun, int] = field(default_factory=dict)
    mirrored: set[Noun] = field(default_factory=set)
    """Queues whose consumers are to the left, consumers who stand on the right."""
    left: float = 0.0

    @property
    def width(self) -> float:
        inside = [_width(self.text(noun)) + (0.75 if isinstance(noun, Queue) else 0.3) for noun in self.slots]
        above = [_width(text) + ENTRY * i for i, (_, text) in enumerate(reversed(self.sources))]
        return max([1.3, *inside, *above, _width(self.title, bold=True)]) + 2 * MARGIN

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def height(self) -> float:
        return TITLE + (max(self.slots.values(), default=0) + 1) * ROW + 0.6 * MARGIN

    @property
    def entries(self) -> float:
        """How far the entry arrows stand up."""
        return 0.25 + len(self.sources) * LINE if self.sources else 0.0

    def text(self, noun: Noun) -> str:
        """What is written in a noun's symbol."""
        return _text(noun, self.language)

    def put(self, noun: Noun, wish: int = 0) -> None:
        """Give a noun the first free slot from the one wished for."""
        taken = set(self.slots.values())
        self.slots[noun] = next(slot for slot in range(wish, wish + len(taken) + 1) if slot not in taken)

    def middle(self, noun: Noun) -> float:
        """The height at which a noun is drawn."""
        return -TITLE - (self.slots[noun] + 0.5) * ROW

    def draw(self, axes: Axes, bottom: float) -> None:
        """The box, its title, the entries above and the symbols inside."""
        from matplotlib.patches import Rectangle

        box = Rectangle(
            (self.left, bottom), self.width, -bottom, facecolor=PAPER, edgecolor=INK, linewidth=1.4, zorder=0
        )
        axes.add_patch(box)
        _write(axes, self.left + self.width / 2, -TITLE / 2, self.title, weight="bold")
        for i, (_, text) in enumerate(self.sources):
            x = self.left + MARGIN + ENTRY * (len(self.sources) - 1 - i)
            _arrow(axes, (x, 0.15 + (i + 0.6) * LINE), (x, 0.0))
            _write(axes, x + 0.07, 0.15 + (i + 0.5) * LINE, text, align="left")
        for noun in self.slots:
            place = self.left + MARGIN, self.middle(noun), self.width - 2 * MARGIN
            _SYMBOLS[type(noun)](axes, *place, self.text(noun), noun in self.mirrored)


def _columns(flow: Flow, language: Language) -> list[Column]:
    """What stands at each part, and first what stands at none; consumers are level with their queue where they can."""
    nouns: list[Any] = [
        *flow.pools.values(),
        *flow.queues.values(),
        *flow.consumer_groups.values(),
        *flow.tables.values(),
        *flow.actors.values(),
        *flow.credits.values(),
    ]
    nowhere = any(noun.at is None for noun in (*nouns, *flow.sources.values()))
    parts = [*([None] if nowhere else []), *flow.parts.values()]
    columns = {
        part: Column(
            part, i, flow.name if part is None else part.name, language,
            [(source, _entry(source, language)) for source in flow.sources.values() if source.at is part],
        ) for i, part in enumerate(parts)
    }  # fmt: skip
    used = {
        step.pool
        for _, steps in flow.programs()
        for step in everything(steps)
        if isinstance(step, Serve | Seize | Release)
    }
    for pool in flow.pools.values():
        if pool.at is None or pool in used:
            columns[pool.at].put(pool)
    groups = {group.queue: group for group in flow.consumer_groups.values()}
    for queue in flow.queues.values():
        columns[queue.at].put(queue)
        if queue in groups and groups[queue].at is queue.at:
            columns[queue.at].put(groups[queue])
            columns[queue.at].mirrored.add(groups[queue])
        for actor in (actor for actor in flow.actors.values() if actor.queues[:1] == [queue] and actor.at is queue.at):
            columns[actor.at].put(actor)
    for actor in flow.actors.values():
        if actor not in columns[actor.at].slots:
            columns[actor.at].put(actor)
    for queue, group in groups.items():
        there, here = columns[queue.at], columns[group.at]
        if there is not here:
            here.put(group, there.slots[queue])
        if here.index < there.index:
            there.mirrored.add(queue)
            here.mirrored.add(group)
    for table in flow.tables.values():
        columns[table.at].put(table)
    for credit in flow.credits.values():
        columns[credit.at].put(credit)
    return list(columns.values())


def _publishers(flow: Flow) -> Iterator[tuple[Queue, Part]]:
    """The queues, each with the other parts whose sources, consumers or actors publish to it."""
    for queue in flow.queues.values():
        begins: list[Source | Consumers | Actor] = [
            *flow.sources.values(), *flow.consumer_groups.values(), *flow.actors.values(),
        ]  # fmt: skip
        parts = dict.fromkeys(begin.at for begin in begins if _publishes(flow, begin.steps, queue))
        yield from ((queue, part) for part in parts if part is not None and part is not queue.at)


def _publishes(flow: Flow, steps: Steps, queue: Queue) -> bool:
    """Whether something of a program publishes to the queue, or to the log whose group it is."""
    return any(isinstance(step, Publish) and queue in step.queues for step in _reached(flow, steps))


def _reached(flow: Flow, steps: Steps) -> Iterator[Step]:
    """All steps of a program, through the stages that it chooses."""
    programs = [steps]
    for program in programs:
        for step in everything(program):
            yield step
            if isinstance(step, Choose):
                stages = (flow.stages[name] for name, _ in step.stages)
                programs += [stage for stage in stages if all(stage is not known for known in programs)]


# --- words ----------------------------------------------------------------------------------------------------------


def _number(value: float, language: Language) -> str:
    text = f"{value:.3g}"
    return text.replace(".", ",") if language == "ru" else text


def _time(seconds: float, language: Language) -> str:
    """A time in the largest unit of which it is a tenth or more."""
    scales = [scale for scale in zip((1.0, 1e-3, 1e-6), UNITS[language], strict=True) if seconds >= 0.1 * scale[0]]
    factor, unit = scales[0] if scales else (1.0, UNITS[language][0])
    return f"{_number(seconds / factor, language)} {unit}"


def _entry(source: Source, language: Language) -> str:
    """A source's kind, with its rate or its population."""
    if source.population is not None:
        return f"{source.kind} ×{source.population}"
    if source.interarrival is not None and source.interarrival.mean_value > 0:
        return f"{source.kind} {_number(source.batch / source.interarrival.mean_value, language)}/{UNITS[language][0]}"
    return source.kind


def _label(link: Link, language: Language) -> str:
    """A link's mean delay, and the share that it loses; its name where it was given one."""
    one, other = link.ends
    named = [] if link.name == f"{one.name}-{other.name}" else [link.name]
    lost = [LOST[language].format(_number(100 * link.loss, language))] if link.loss else []
    return ", ".join([*named, _time(link.delay.mean_value, language), *lost])


def _text(noun: Noun, language: Language) -> str:
    """A noun's name, without that of its part, and how many it is; of an actor how often it turns."""
    if isinstance(noun, Consumers):
        return str(noun.count)
    name = noun.name if noun.at is None else noun.name.removeprefix(f"{noun.at.name}.")
    if isinstance(noun, Pool):
        return f"{name}  {noun.members}×{noun.capacity}" if noun.members > 1 else f"{name}  ×{noun.capacity}"
    if isinstance(noun, Credit):
        return f"{name}  ×{noun.tokens}"
    if isinstance(noun, Actor):
        periods = [_time(step.period, language) for step in noun.steps if isinstance(step, Every)]
        return ", ".join([f"{name}  ×{noun.count}" if noun.count > 1 else name, *periods])
    return name


@cache
def _width(text: str, bold: bool = False) -> float:
    """How wide a text is, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=FONT, weight="bold" if bold else "normal")
    return float(TextPath((0, 0), text, size=SIZE, prop=font).get_extents().width) / 72 if text else 0.0


# --- symbols: at a place (left, middle, width) of a row -------------------------------------------------------------


def _write(axes: Axes, x: float, y: float, text: str, align: str = "center", weight: str = "normal") -> None:
    axes.text(x, y, text, ha=align, va="center_baseline", fontsize=SIZE, family=FONT, weight=weight, color=INK)


def _arrow(axes: Axes, start: Spot, end: Spot, style: str = "-|>", line: str = "-") -> None:
    from matplotlib.patches import FancyArrowPatch

    arrow = FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=9, shrinkA=0, shrinkB=0, color=INK, zorder=0.5)
    arrow.set(linestyle=line, linewidth=1)
    axes.add_patch(arrow)


def _pool(axes: Axes, x: float, y: float, width: float, text: str, mirrored: bool) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y - SYMBOL / 2), width, SYMBOL, facecolor=SHADE, edgecolor=INK, linewidth=1))
    _write(axes, x + width / 2, y, text)


def _credit(axes: Axes, x: float, y: float, width: float, text: str, mirrored: bool) -> None:
    from matplotlib.patches import Rectangle

    box = Rectangle((x, y - SYMBOL / 2), width, SYMBOL, facecolor=PAPER, edgecolor=INK, linewidth=1, linestyle="--")
    axes.add_patch(box)
    _write(axes, x + width / 2, y, text)


def _queue(axes: Axes, x: float, y: float, width: float, text: str, mirrored: bool) -> None:
    """Open where one joins it, with places where one leaves it."""
    from matplotlib.patches import Rectangle

    low, high = y - SYMBOL / 2, y + SYMBOL / 2
    axes.add_patch(Rectangle((x, low), width, SYMBOL, facecolor=PAPER, edgecolor="none"))
    head, tail, step = (x, x + width, 0.13) if mirrored else (x + width, x, -0.13)
    axes.plot([tail, head, head, tail], [high, high, low, low], color=INK, linewidth=1)
    for i in range(1, 4):
        axes.plot([head + i * step] * 2, [low, high], color=INK, linewidth=1)
    _write(axes, x + width / 2 + 1.5 * step, y, text)


def _table(axes: Axes, x: float, y: float, width: float, text: str, mirrored: bool) -> None:
    """A cylinder."""
    from matplotlib.patches import Arc, Ellipse, Rectangle

    depth = 0.12
    low, high, middle = y - SYMBOL / 2 + depth / 2, y + SYMBOL / 2 - 0.05, x + width / 2
    axes.add_patch(Rectangle((x, low), width, high - low, facecolor=PAPER, edgecolor="none"))
    for side in (x, x + width):
        axes.plot([side, side], [low, high], color=INK, linewidth=1)
    axes.add_patch(Arc((middle, low), width, depth, theta1=180, theta2=360, color=INK, linewidth=1))
    axes.add_patch(Ellipse((middle, high), width, depth, facecolor=SHADE, edgecolor=INK, linewidth=1))
    _write(axes, middle, y - 0.04, text)


def _consumers(axes: Axes, x: float, y: float, width: float, text: str, mirrored: bool) -> None:
    """A circle with their number, on the side that the deliveries come from."""
    from matplotlib.patches import Circle

    middle = x + width - SYMBOL / 2 if mirrored else x + SYMBOL / 2
    axes.add_patch(Circle((middle, y), SYMBOL / 2, facecolor=PAPER, edgecolor=INK, linewidth=1))
    _write(axes, middle, y, text)


def _actor(axes: Axes, x: float, y: float, width: float, text: str, mirrored: bool) -> None:
    """A box with round corners."""
    from matplotlib.patches import FancyBboxPatch

    shape = f"round,pad=0,rounding_size={SYMBOL / 2}"
    corner = x, y - SYMBOL / 2
    axes.add_patch(FancyBboxPatch(corner, width, SYMBOL, shape, facecolor=PAPER, edgecolor=INK, linewidth=1))
    _write(axes, x + width / 2, y, text)


_SYMBOLS: dict[type, Callable[[Axes, float, float, float, str, bool], None]] = {
    Pool: _pool,
    Queue: _queue,
    Table: _table,
    Consumers: _consumers,
    Actor: _actor,
    Credit: _credit,
}


# --- between the parts ----------------------------------------------------------------------------------------------


def _ends(columns: dict[Part | None, Column], link: Link) -> tuple[Column, Column]:
    """The columns of a link's ends, the left one first."""
    one, other = sorted((columns[end] for end in link.ends), key=lambda column: column.index)
    return one, other


def _between(axes: Axes, one: Column, other: Column, y: float, label: str) -> None:
    """A link between neighbours."""
    _arrow(axes, (one.right, y), (other.left, y), style="<|-|>")
    _write(axes, (one.right + other.left) / 2, y + 0.11, label)


def _around(axes: Axes, one: Column, other: Column, bottom: float, y: float, aside: float, label: str) -> None:
    """A link between parts that are no neighbours, below all boxes."""
    ends = (one.left + one.width / 2 - aside, other.left + other.width / 2 + aside)
    axes.plot(ends, [y, y], color=INK, linewidth=1)
    for x in ends:
        _arrow(axes, (x, y), (x, bottom))
    _write(axes, sum(ends) / 2, y + 0.11, label)


def _published(axes: Axes, there: Column, here: Column, queue: Queue) -> None:
    """From the part of those who publish into a queue; a little higher where its consumers are on the same side."""
    left = here.index < there.index
    y = there.middle(queue) + (0.1 if left == (queue in there.mirrored) else 0.0)
    _arrow(axes, (here.right if left else here.left, y), (there.left + MARGIN if left else there.right - MARGIN, y))


def _handed_out(axes: Axes, there: Column, here: Column, queue: Queue, reader: Consumers | Actor) -> None:
    """From a queue to its consumers, or to an actor."""
    start, end = there.middle(queue), here.middle(reader)
    if there is here:
        x = here.right - MARGIN - SYMBOL / 2
        _arrow(axes, (x, start - SYMBOL / 2), (x, end + SYMBOL / 2), line="--")
    elif there.index < here.index:
        _arrow(axes, (there.right - MARGIN, start), (here.left + MARGIN, end), line="--")
    else:
        _arrow(axes, (there.left + MARGIN, start), (here.right - MARGIN, end), line="--")
