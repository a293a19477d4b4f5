"""The explorer's controls: one for each parameter, which stands at the calibrated value and reaches what it says."""

import pytest

from simlib import architectures
from simlib.distributions import FAMILIES, Quantiles, distribution
from simlib.errors import BadInput
from simlib.explorer.controls import STEP, controls
from simlib.figures.catalogue import LANGUAGES

EVERY = [(name, control) for name in architectures.names() for control in controls(name)]
IDS = [f"{name}.{control.name}" for name, control in EVERY]


@pytest.mark.parametrize("name", architectures.names())
def test_every_parameter_has_a_control(name):
    assert [control.name for control in controls(name)] == list(architectures.get(name).parameters.model_fields)


@pytest.mark.parametrize(("architecture", "control"), EVERY, ids=IDS)
def test_a_control_that_is_not_moved_gives_the_default_and_one_at_its_end_is_accepted(architecture, control):
    known = architectures.get(architecture)
    default = getattr(known.load_parameters(), control.name)
    at_start = control.value(control.start)
    if control.distribution is None:
        assert at_start == pytest.approx(default) if isinstance(default, float) else at_start == default
    else:
        assert at_start.mean_value == pytest.approx(default.mean_value, rel=1e-5)
    ends = control.choices or ((False, True) if control.sort == "flag" else (control.low, control.high))
    for place in ends:
        known.load_parameters({control.name: control.value(place)})


@pytest.mark.parametrize(("_", "control"), EVERY, ids=IDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_tooltip_says_range_default_and_provenance(_, control, language):
    lines = control.tooltip(language).splitlines()
    assert lines[0].startswith(f"{control.name}: ")
    assert {"ru": "по умолчанию", "en": "default"}[language] in control.tooltip(language)
    assert "." not in control.shown(control.at(control.start), "ru")


def test_a_distribution_is_moved_by_its_mean_and_keeps_its_shape():
    edge = next(control for control in controls("rest") if control.name == "edge")
    moved = edge.value(100)
    assert moved.mean_value == pytest.approx(10 * edge.distribution.mean_value, rel=1e-5)
    assert type(moved) is type(edge.distribution)
    assert edge.at(1) / edge.at(0) == pytest.approx(STEP)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_distribution_scales(family):
    values = {
        "constant": {"value": 2}, "exponential": {"mean": 2}, "uniform": {"low": 1, "high": 3},
        "lognormal": {"mean": 2, "cv": 0.5, "shift": 1}, "weibull": {"scale": 2, "shape": 1.5, "shift": 1},
        "erlang": {"mean": 2, "stages": 3}, "hyperexponential": {"p": 0.3, "first": 1, "second": 5},
        "quantiles": {"values": [0, 1, 4]},
    }  # fmt: skip
    one = distribution({"family": family, **values[family]})
    scaled = one.scaled(3)
    assert scaled.mean_value == pytest.approx(3 * one.mean_value)
    assert scaled.sample(1, "s", 50) == pytest.approx(3 * one.sample(1, "s", 50))
    assert isinstance(scaled, type(one)) and (family != "quantiles" or isinstance(scaled, Quantiles))


def test_an_unknown_architecture_is_refused():
    with pytest.raises(BadInput, match="unknown architecture 'restt'"):
        controls("restt")
