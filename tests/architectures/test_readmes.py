"""What the README of each architecture says of parameters, tests and the diagram is so."""

import re
from pathlib import Path

import pytest

from simlib import architectures, paths
from simlib.distributions import Distribution

MECHANISMS = Path(__file__).with_name("test_mechanisms.py").read_text(encoding="utf-8")
NAMES = architectures.names()


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
    section = readme(name).split("## Parameters")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_table_of_parameters_lists_exactly_the_fields_with_default_unit_and_meaning(name):
    model = architectures.get(name).parameters
    expected = {}
    for field, about in model.model_fields.items():
        value, meaning = getattr(model(), field), about.description.removesuffix(", s")
        timed = isinstance(value, Distribution) or about.description.endswith(", s")
        expected[field] = [shown(value, timed), "s" if timed else "–", meaning]
    rows = parameter_rows(name)
    assert {field: row[:3] for field, row in rows.items()} == expected
    assert all(re.match("measured|assumed|set", row[3]) for row in rows.values())


@pytest.mark.parametrize("name", NAMES)
def test_tests_named_in_the_readme_exist_and_all_of_an_architecture_are_named(name):
    named = set(re.findall(r"`(test_\w+)`", readme(name)))
    prefix = {"rest": "rest", "message_queue": "queue"}[name]
    assert named == set(re.findall(rf"def (test_{prefix}_\w+)", MECHANISMS))


@pytest.mark.parametrize("name", NAMES)
def test_diagram_is_drawn_as_the_readme_says(name):
    (code,) = re.findall(r"```python\n(.*?)```", readme(name), re.DOTALL)
    namespace = {}
    exec(code, namespace)
    assert "<svg" in namespace["svg"]
