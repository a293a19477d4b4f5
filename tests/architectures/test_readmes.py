"""What the README of each architecture says of parameters, tests and the diagram is so."""

import re
from pathlib import Path

import pytest

from simlib import architectures, paths
from simlib.architectures.parameters import broker_of, calibrated, times
from simlib.distributions import Distribution
from simlib.errors import BadInput

MECHANISMS = Path(__file__).with_name("test_mechanisms.py").read_text(encoding="utf-8")
NAMES = architectures.names()
PREFIXES = {
    "message_queue": "queue",
    "saga/orchestrated": "(?:saga|orchestrated)",
    "saga/choreographed": "(?:saga|choreographed)",
}
"""How the tests of an architecture are called, where not by its name."""


def readme(name):
    return (paths.PACKAGE / "architectures" / name / "README.md").read_text(encoding="utf-8")


def shown(value, timed):
    """A default as the table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not timed:
        return str(value)
    time = value.mean_value if isinstance(value, Distribution) else value
    return f"{time:g} s" if time >= 1 else f"{time * 1000:g} ms"


def parameter_rows(name):
    """The rows of the tables of parameters, one after the other: of the default, and of each further broker what it has of
    its own."""
    section = readme(name).split("## Parameters")[1].split("\n## ")[0]
    for part in section.split("\n### "):
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in part.splitlines()
            if line.startswith("| `")
        ]
        yield {row[0].strip("`"): row[1:] for row in rows}


def expected_rows(model):
    for field, about in model.model_fields.items():
        value, meaning = getattr(model(), field), about.description.removesuffix(", s")
        timed = isinstance(value, Distribution) or about.description.endswith(", s")
        yield field, [shown(value, timed), "s" if timed else "–", meaning]


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_parameters_list_exactly_the_fields_with_default_unit_and_meaning(name):
    known = architectures.get(name)
    by_broker = {}
    for variant in known.variants:
        by_broker.setdefault(variant.stands_on(), dict(expected_rows(variant)))
    common, *others = by_broker.values()
    expected = [common, *({f: row for f, row in rows.items() if row != common.get(f)} for rows in others)]
    tables = list(parameter_rows(name))
    assert [{field: row[:3] for field, row in rows.items()} for rows in tables] == expected
    assert all(re.match("measured|assumed|set", row[3]) for rows in tables for row in rows.values())


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_parameters_say_measured_of_what_is_and_assumed_of_what_is_not(name):
    known = architectures.get(name)
    found = calibrated(name, broker_of(known.parameters, {}))
    rows, *_ = parameter_rows(name)
    said = {time: rows[time][3] for time in times(known.variants[0])}
    assert all(told.startswith(found[time].provenance if time in found else "assumed") for time, told in said.items())


def test_a_parameter_of_one_broker_is_refused_for_another_in_one_line():
    queue = architectures.get("message_queue")
    for chosen, name in (
        ({"broker": "rabbitmq"}, "ack_wait"),
        ({"broker": "rabbitmq"}, "deduplication"),
        ({"broker": "rabbitmq", "queue_type": "classic"}, "max_deliveries"),
        ({"broker": "nats"}, "queue_type"),
        ({}, "detected_after"),
    ):
        with pytest.raises(BadInput, match=f"parameter '{name}' is of broker=") as said:
            queue.load_parameters({**chosen, name: 1})
        assert "\n" not in str(said.value)
    for unknown in ({"broker": "kafka"}, {"broker": "rabbitmq", "queue_type": "stream"}):
        with pytest.raises(BadInput, match="known are"):
            queue.load_parameters(unknown)


@pytest.mark.parametrize("name", NAMES)
def test_tests_named_in_the_readme_exist_and_all_of_an_architecture_are_named(name):
    named = set(re.findall(r"`(test_\w+)`", readme(name)))
    prefix = PREFIXES.get(name, name)
    assert named == set(re.findall(rf"def (test_{prefix}_\w+)", MECHANISMS))


@pytest.mark.parametrize("name", NAMES)
def test_diagram_is_drawn_as_the_readme_says(name):
    (code,) = re.findall(r"```python\n(.*?)```", readme(name), re.DOTALL)
    namespace = {}
    exec(code, namespace)
    assert "<svg" in namespace["svg"]
