"""The report's Markdown: `report.md.j2` filled from a context, every number in it known with its run."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import pandas as pd
from matplotlib.ft2font import FT2Font, LoadFlags

from simlib.errors import RunFailed
from simlib.reporting.context import Figure, ReportContext, Table
from simlib.reporting.numbers import (
    Number,
    brief,
    cell,
    column,
    full,
    listed,
    russian,
    sentence,
    with_unit,
)

TEMPLATE = "report.md.j2"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
"""Fonts that a package brings, so that the PDF is the same on every machine; STIXGeneral is a Times with Cyrillic."""
LINE, PADDING = 467, 12
"""Widths in points: of a table, of a cell's margins."""


class Markdown(str):
    """Text that is Markdown already; all other text that the template prints is escaped."""


@dataclass(frozen=True)
class Source:
    """The filled source: its Markdown, and the pictures by the file names that it refers to."""

    text: str
    pictures: dict[str, Path]


def fill(context: ReportContext, folder: Path) -> Source:
    """Fill the template in `folder`.

    Raises RunFailed where the template names what the context has not, or concludes where there is no interval.
    """
    filling = _Filling(context)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder, encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        comment_start_string="{##",  # `{#` begins the label of a figure in Markdown
        comment_end_string="##}",
    )
    environment.filters["together"] = lambda texts: Markdown(" ".join(texts))
    environment.filters["share"] = lambda percent: plain(with_unit(russian(percent, 1), "%"))
    environment.filters["flow"] = lambda flow: plain(russian(flow, 2))
    environment.filters["listed"] = lambda titles: plain(listed(list(titles)))
    environment.globals.update(
        title_page=context.title_page,
        architectures=context.architectures,
        number=filling.number,
        interval=filling.interval,
        value=filling.value,
        figure=filling.figure,
        diagram=filling.diagram,
        table=filling.table,
        places=context.places,
        origin_table=filling.origin_table,
        sentences=filling.sentences,
        best=filling.best,
    )
    try:
        return Source(environment.get_template(TEMPLATE).render(), filling.pictures)
    except jinja2.TemplateError as error:
        raise RunFailed(f"the report cannot be filled: {folder / TEMPLATE}: {error}") from error
    except _Missing as error:
        raise RunFailed(f"the report cannot be filled: its context has no {error}") from error
    except ValueError as error:
        raise RunFailed(f"the report cannot be filled: {error}") from error


def plain(text: str) -> Markdown:
    """Text in which nothing is markup any more."""
    return Markdown(re.sub(r"([\\`*_{}\[\]()<>#|@$~^!&\"'])", r"\\\1", text.replace("\n", " ")))


class _Missing(LookupError):
    """The template asks for what the context has not."""


def _named(kind: str, known: Any, name: str) -> Any:
    try:
        return known[name]
    except KeyError:
        raise _Missing(f"{kind} '{name}'") from None


@dataclass
class _Filling:
    """What the template calls; it notes the runs of all that it prints."""

    context: ReportContext
    pictures: dict[str, Path] = field(default_factory=dict)
    origins: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # label -> what, value, run

    def value(self, name: str) -> float:
        """A number for a condition of the template; not printed."""
        number: Number = _named("number", self.context.numbers, name)
        return number.value

    def number(self, name: str) -> Markdown:
        """A number with its unit."""
        return plain(brief(self._noted(name)))

    def interval(self, name: str) -> Markdown:
        """A number with its unit and interval."""
        return plain(full(self._noted(name)))

    def figure(self, name: str) -> Markdown:
        """A figure, which the text refers to as @fig:NAME."""
        return self._figure(f"fig:{name}", _named("figure", self.context.figures, name))

    def diagram(self, architecture: str) -> Markdown:
        """An architecture's diagram, which the text refers to as @fig:diagram-NAME."""
        known = {each.name: each.diagram for each in self.context.architectures}
        label = f"fig:diagram-{architecture.replace('/', '-')}"
        return self._figure(label, _named("architecture", known, architecture))

    def table(self, name: str) -> Markdown:
        """A table, which the text refers to as @tbl:NAME."""
        table: Table = _named("table", self.context.tables, name)
        label = f"tbl:{name}"
        self.origins[label] = (f"Таблица @{label}", table.caption, table.run)
        return _table(label, table.caption, table.frame)

    def origin_table(self, caption: str) -> Markdown:
        """The runs of all numbers, tables and figures printed so far; the text refers to it as @tbl:origins."""
        what, value, run = zip(*self.origins.values(), strict=True)
        return _table(
            "tbl:origins",
            caption,
            pd.DataFrame(
                {
                    "Что": [Markdown(each) for each in what],
                    "Значение или название": value,
                    "Прогон": [each or None for each in run],
                },
                dtype=object,
            ),
        )

    def sentences(self, aspect: str) -> list[Markdown]:
        """How the architectures stand by each criterion of an aspect."""
        titles = {each.name: each.title for each in self.context.architectures}
        return [plain(sentence(each, titles)) for each in _named("standings", self.context.standings, aspect)]

    def best(self, aspect: str) -> list[str]:
        """The titles of the architectures with the largest net flow by an aspect, which is named by its Russian title."""
        flows = {place.title: _named("aspect", place.aspects, aspect) for place in self.context.places}
        return [title for title, flow in flows.items() if flow == max(flows.values())]

    def _noted(self, name: str) -> Number:
        number: Number = _named("number", self.context.numbers, name)
        self.origins[name] = (plain(name), with_unit(cell(number), number.unit), number.run)
        return number

    def _figure(self, label: str, figure: Figure) -> Markdown:
        if not figure.path.is_file():
            raise _Missing(f"picture {figure.path}")
        picture = f"{label.removeprefix('fig:')}{figure.path.suffix.lower()}"
        self.pictures[picture] = figure.path
        self.origins[label] = (f"Рисунок @{label}", figure.caption, figure.run)
        return Markdown(f"![{plain(figure.caption)}]({picture}){{#{label} width={figure.width:g}cm}}")


def _printed(value: Any) -> Any:
    """How the template's `{{ … }}` prints a value."""
    if isinstance(value, Markdown | jinja2.Undefined):
        return value
    if isinstance(value, int | float):
        return russian(value)
    return plain(str(value))


def _table(label: str, caption: str, frame: pd.DataFrame) -> Markdown:
    """A pipe table; columns of numbers are set right, the widths of columns follow their texts."""
    cells, aligned = [], []
    for name in frame.columns:
        values = frame[name].tolist()
        texts = zip(values, column(values), strict=True)
        cells.append(
            [plain(str(name)), *(text if isinstance(value, Markdown) else plain(text) for value, text in texts)]
        )
        numeric = all(
            isinstance(value, int | float | Number | None) and not isinstance(value, bool) for value in values
        )
        aligned.append("{}:" if numeric else ":{}")
    widths, fits = _widths(cells)
    rule = [mark.format("-" * width) for mark, width in zip(aligned, widths, strict=True)]
    lines = [f"| {' | '.join(row)} |" for row in zip(*cells, strict=True)]
    lines.insert(1, f"|{'|'.join(rule)}|")
    return Markdown("\n".join([f": {plain(caption)} {{#{label}{'' if fits else ' .narrow'}}}", "", *lines]))


def _widths(columns: list[list[str]]) -> tuple[list[int], bool]:
    """The shares of the columns in the table's width, in points, and whether no word is broken by them.

    The longest words come first. What is left goes, point by point, to the column whose cells would wrap most: that
    keeps the sum of the squares of their counts of lines small.
    """
    widths = [
        PADDING + math.ceil(max(_length(word) for text in texts for word in text.split(" "))) for texts in columns
    ]
    bodies = [[_length(text) for text in texts[1:]] for texts in columns]
    squares = [sum(length**2 for length in body) for body in bodies]
    fits = sum(widths) <= LINE
    for _ in range(LINE - sum(widths)):
        wrapping = [i for i, body in enumerate(bodies) if PADDING + max(body, default=0) > widths[i]]
        if not wrapping:
            break
        widths[max(wrapping, key=lambda i: squares[i] / widths[i] ** 3)] += 1
    return widths, fits


def _length(text: str) -> float:
    """The length of a text in a table, in points."""
    font = _font()
    font.set_text(text.replace("\\", ""), flags=LoadFlags.NO_HINTING)
    width: float = font.get_width_height()[0]
    return width / 64


@functools.cache
def _font() -> FT2Font:
    font = FT2Font(str(FONTS / "STIXGeneral.ttf"))
    font.set_size(12, 72)
    return font
