"""Each figure, drawn from invented numbers: the catalogue's words, the language's numbers, the same bytes."""

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from simlib import comparison, figures
from simlib.figures import charts, style
from simlib.figures.catalogue import LANGUAGES, TEXTS, text

LEVELS = {"p50": 0.012, "p95": 0.031, "p99": 0.055}


@pytest.fixture(scope="module")
def tables(invented_results):
    """What `draw_all` takes but for the validation: points, pairs, backlog."""
    time = np.arange(0.0, 30.0)
    backlog = pd.concat(
        pd.DataFrame(
            {
                "architecture": a,
                "variant": v,
                "scenario": s,
                "rate": 1.0,
                "replication": r,
                "time": time,
                "backlog": r + time,
            }
        )
        for a, v in (("rest", ""), ("message_queue", ""), ("message_queue", "reply"))
        for s in ("steady", "burst", "flash_sale")
        for r in range(4)
    )
    return comparison.points(invented_results), comparison.pairs(invented_results), backlog


@pytest.fixture(scope="module")
def validated():
    rows = [
        {
            "architecture": architecture,
            "broker": broker,
            "rate": 100 * load,
            "load": load,
            "kind": kind,
            "metric": "response_time",
            "kind_of_message": "order",
            "measured": LEVELS,
            "predicted": {name: 1.1 * value for name, value in LEVELS.items()},
            "error": dict.fromkeys(LEVELS, 0.1),
            "accepted": True,
        }
        for architecture, broker in (("rest", None), ("message_queue", "nats"), ("message_queue", "rabbitmq"))
        for load in (0.3, 0.7)
        for kind in ("trace", "independent")
    ]
    return {"rows": rows, "accuracy": {"p50": 0.2, "p95": 0.2, "p99": 0.3}, "calibration": ["system.yaml:0123456789ab"]}


def drawn(name: str, tables, validated, language: str) -> Figure:
    points, pairs, backlog = tables
    draw = getattr(charts, name)
    match name:
        case "backlog":
            return draw(backlog, points, language)
        case "differences":
            return draw(comparison.headlines(pairs), points, language)
        case "validation":
            return draw(validated, language)
    return draw(points, language)


def said(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [found.get_text().replace("\n", " ") for found in figure.findobj(Text) if found.get_text()]


NAMES = {
    "response_time": ["response_time", "rate", "order", "stock_query", "p95", "overloaded", "message_queue/reply"],
    "delivery_time": ["delivery_time", "rate", "stock_update", "p50"],
    "saturation": ["goodput", "rate", "ideal", "overloaded", "rest"],
    "backlog": ["backlog", "time", "rest", "message_queue"],
    "consistency": ["oversold_units", "failed", "lost", "none_in_any_run", "crashes", "rest"],
    "differences": ["steady", "flash_sale", "short:saturation", "message_queue/reply"],
    "validation": ["predicted_over_measured", "stated", "trace", "p99", "message_queue"],
    "readme_comparison": ["response_time", "delivery_time", "order", "stock_update", "p50", "rest"],
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_a_figure_says_what_the_catalogue_says(name, language, tables, validated):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that the font lacks is a warning
        words = said(drawn(name, tables, validated, language))
    expected = {key: text(key, language).replace("\n", " ") for key in NAMES[name]}
    missing = [key for key, words_of in expected.items() if not any(words_of in shown for shown in words)]
    assert not missing
    other = {"ru": "en", "en": "ru"}[language]
    foreign = {TEXTS[key][other] for key in NAMES[name]} - {TEXTS[key][language] for key in NAMES[name]}
    assert not foreign & set(words)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_names_the_calibration_that_it_stands_on(name, tables, validated):
    words = " ".join(said(drawn(name, tables, validated, "ru")))
    assert "калибровка: system.yaml:0123456789ab" in words


def test_a_figure_of_assumed_parameters_says_so(tables):
    points = tables[0].assign(calibration_hash=None)
    assert text("assumed", "ru") in " ".join(said(charts.saturation(points, "ru")))


def test_intervals_are_drawn(tables, validated):
    for name in ("response_time", "delivery_time", "saturation", "consistency", "differences", "readme_comparison"):
        figure = drawn(name, tables, validated, "en")
        assert all(
            any(len(line.get_segments()) for line in axes.collections) for axes in figure.axes if axes.has_data()
        )


def test_candidates_differ_without_colour(tables):
    marks = style.marks(["a", "b", "c", "d", "e"])
    assert len({str((mark["marker"], mark["linestyle"])) for mark in marks.values()}) == 5


@pytest.mark.parametrize(
    ("value", "russian", "english"), [(0.5, "0,5", "0.5"), (-2.5, "−2,5", "−2.5"), (100, "100", "100")]
)
def test_numbers_are_written_as_the_language_does(value, russian, english):
    assert (style.number(value, "ru"), style.number(value, "en")) == (russian, english)


def test_axes_have_decimal_commas_in_russian(tables):
    words = said(charts.differences(comparison.headlines(tables[1]), tables[0], "ru"))
    assert not [shown for shown in words if shown.replace("−", "").replace(".", "", 1).isdigit() and "." in shown]
    loads = said(charts.response_time(tables[0], "ru"))
    assert "0,2" in loads and "0.2" not in loads


def test_a_figure_is_saved_for_print_in_three_formats_as_the_same_bytes(tables, tmp_path):
    first = style.save(charts.saturation(tables[0], "ru"), "saturation", "ru", tmp_path / "one")
    again = style.save(charts.saturation(tables[0], "ru"), "saturation", "ru", tmp_path / "two")
    with Image.open(first) as picture:
        assert picture.info["dpi"][0] >= 200
    for suffix in ("png", "pdf", "svg"):
        one, two = first.with_suffix(f".{suffix}"), again.with_suffix(f".{suffix}")
        assert one.read_bytes() == two.read_bytes(), suffix
    assert first.name == "saturation.ru.png"


def test_all_figures_are_drawn_in_the_languages_asked_for(tables, tmp_path):
    backend = matplotlib.get_backend()
    paths = figures.draw_all(*tables, folder=tmp_path, languages=["en"])
    assert {path.name for path in paths} == {f"{name}.png" for name in NAMES if name != "validation"}
    assert all(path.exists() and path.with_suffix(".svg").exists() for path in paths)
    assert matplotlib.get_backend() == backend
