"""How figures look: sizes, marks that tell series apart in black and white, numbers as the language writes them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from simlib import paths
from simlib.figures.catalogue import Language, text

Name = TypeVar("Name")
DPI = 220
WIDTH = 6.3
"""Width of a figure, inches: that of a page's text."""
_MARKS: tuple[dict[str, Any], ...] = (
    {"color": "#1b1b1b", "marker": "o", "linestyle": "-"},
    {"color": "#0072b2", "marker": "s", "linestyle": "--"},
    {"color": "#d55e00", "marker": "^", "linestyle": "-."},
    {"color": "#009e73", "marker": "D", "linestyle": ":"},
    {"color": "#cc79a7", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
)
_SETTINGS: Any = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "errorbar.capsize": 2.5,
    "svg.hashsalt": "simlib",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


def marks(names: Iterable[Name]) -> dict[Name, dict[str, Any]]:
    """Colour, marker and line style of each series, in their order."""
    return {name: _MARKS[k % len(_MARKS)] for k, name in enumerate(names)}


@contextmanager
def drawing() -> Any:
    """The settings under which figures are made and saved."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def number(value: float, language: Language) -> str:
    """A number to six digits with a true minus, and a decimal comma in Russian."""
    shown = f"{value:.6g}".replace("-", "\u2212")
    return shown.replace(".", ",") if language == "ru" else shown


def numbers(axes: Axes, language: Language) -> None:
    """Write the numbers along both axes as the language does, also where the axis is logarithmic."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, language)))


def origin(points: pd.DataFrame, language: Language) -> str:
    """Runs a point, seed, version of the draws and of the code."""
    return text(
        "origin",
        language,
        runs=_listed(points["runs"]),
        seed=_listed(points["seed"]),
        draws=_listed(points["draws"]),
        version=_listed(points["version"]),
    )


def calibration(hashes: Iterable[Any], language: Language) -> str:
    """The calibration files with their hashes, or that there are none."""
    files = sorted({file for found in hashes if isinstance(found, str) for file in found.split()})
    return text("calibrated", language, files=", ".join(files)) if files else text("assumed", language)


def file(folder: Path, name: str, language: Language, suffix: str) -> Path:
    """Where a figure is kept: the English one under its plain name, others with their language."""
    return folder / (f"{name}.{suffix}" if language == "en" else f"{name}.{language}.{suffix}")


def save(figure: Figure, name: str, language: Language, folder: Path | None = None) -> Path:
    """Write a figure as PNG, PDF and SVG, the same bytes for the same figure; the path of the PNG."""
    folder = folder or paths.FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, for all formats alike
        for suffix, metadata in (("pdf", {"CreationDate": None}), ("svg", {"Date": None}), ("png", {"Software": None})):
            figure.savefig(file(folder, name, language, suffix), dpi=DPI, metadata=metadata)
    return file(folder, name, language, "png")


def _listed(values: pd.Series) -> str:
    return ", ".join(str(value) for value in values.drop_duplicates())
