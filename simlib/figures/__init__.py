"""The figures, drawn from the tables of `simlib.comparison`, in Russian and in English."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from simlib.calibration.stages import Estimates
from simlib.comparison import headlines, validated
from simlib.distributions import distribution
from simlib.figures import charts
from simlib.figures.catalogue import LANGUAGES, Language
from simlib.figures.style import file, save

__all__ = ["LANGUAGES", "Language", "charts", "draw_all", "draw_fits", "file", "save"]


def draw_fits(
    written: Mapping[str, Any],
    estimates: Estimates,
    folder: Path | None = None,
    languages: Iterable[Language] = LANGUAGES,
) -> list[Path]:
    """Draw and save the fits of a calibration, as `calibrate` wrote it, to the samples that it was made from; the paths of the PNGs."""
    samples = {name: one.of for name, one in estimates.items() if isinstance(one.of, np.ndarray)}
    entries = {name: written["parameters"][name] for name in samples}
    fitted = {name: distribution(entry["value"]) for name, entry in entries.items()}
    foot = "; ".join(dict.fromkeys(entry["source"] for entry in entries.values()))
    name = "fits_" + written["architecture"].replace("/", "-") + (f".{written['broker']}" if written["broker"] else "")
    return [save(charts.fits(samples, fitted, foot, language), name, language, folder) for language in languages]


def draw_all(
    points: pd.DataFrame,
    pairs: pd.DataFrame,
    backlog: pd.DataFrame,
    validation: Path | str = "",
    folder: Path | str = "",
    languages: Iterable[Language] = LANGUAGES,
) -> list[Path]:
    """Draw and save every figure in each language; the paths of the PNGs.

    `validation` is the file that `simlib validate` writes, of which the architectures among the points are drawn; without it
    its figure is left out.
    """
    drawn: dict[str, Callable[[Language], Figure]] = {
        "response_time": lambda language: charts.response_time(points, language),
        "delivery_time": lambda language: charts.delivery_time(points, language),
        "saturation": lambda language: charts.saturation(points, language),
        "backlog": lambda language: charts.backlog(backlog, points, language),
        "consistency": lambda language: charts.consistency(points, language),
        "differences": lambda language: charts.differences(headlines(pairs), points, language),
        "readme_comparison": lambda language: charts.readme_comparison(points, language),
    }
    if validation:
        found = validated(json.loads(Path(validation).read_text(encoding="utf-8")), points["candidate"].unique())
        drawn["validation"] = lambda language: charts.validation(found, language)
    return [
        save(draw(language), name, language, Path(folder) if folder else None)
        for language in languages
        for name, draw in drawn.items()
    ]
