"""What the report is filled with: titles, architectures, numbers, tables, figures, standings and the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from pydantic import ConfigDict

from simlib.reading import Frozen, read_model
from simlib.reporting.numbers import Number, Standing


class TitlePage(Frozen):
    """The texts of the title page, as `report/report.yaml` has them."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    ministry: str
    university: str
    department: str
    discipline: str
    title: str
    student: str
    group: str
    supervisor: str
    city: str
    year: str

    @classmethod
    def load(cls, path: Path) -> TitlePage:
        """The title page of a YAML file; raises BadInput where the file is missing, or a key is missing or unknown."""
        return read_model(cls, path, "a title page")


@dataclass(frozen=True)
class Table:
    """A table with Russian column labels, its caption, and the runs that it comes from.

    Cells are numbers, `Number`s (printed with their interval), texts, truths, None or NaN (printed as a dash).
    """

    frame: pd.DataFrame
    caption: str
    run: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture file (PNG or SVG), its caption, the runs that it comes from, and the width to print it with, in cm."""

    path: Path
    caption: str
    run: str = ""
    width: float = 16.0


@dataclass(frozen=True)
class Architecture:
    """An architecture by its folder's name, its Russian title ("вызовы REST") and its diagram.

    The report's text on it is `report/architectures/NAME.md.j2`.
    """

    name: str
    title: str
    diagram: Figure


@dataclass(frozen=True)
class Place:
    """An architecture's place in the choice.

    `flow` is its net flow of preferences with equal weights of the aspects, `first` the share of all weightings for which it
    comes first, in per cent, `aspects` its net flow by the aspects' Russian titles, `favoured` the aspect that weighs most, on
    average, where it comes first; None where it never does.
    """

    name: str
    title: str
    flow: float
    first: float
    aspects: Mapping[str, float]
    favoured: str | None


@dataclass(frozen=True)
class ReportContext:
    """Everything that the report's template needs.

    `numbers`, `tables`, `figures` are by the names that the template uses. `standings` are by aspect ("performance",
    "scalability", "reliability", "consistency", "processes"). `places` are those of all architectures, the best first.
    """

    title_page: TitlePage
    architectures: tuple[Architecture, ...]
    numbers: Mapping[str, Number] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    standings: Mapping[str, tuple[Standing, ...]] = field(default_factory=dict)
    places: tuple[Place, ...] = ()
