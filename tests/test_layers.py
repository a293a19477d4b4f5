"""The package's layers: each imports only from those before it, so that data flows one way."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "simlib"
LAYERS = [
    {"errors"}, {"paths", "domain", "quantities", "reading"}, {"draws"}, {"distributions"}, {"scenario"}, {"flow", "history"},
    {"ledger"}, {"checker"}, {"statistics"}, {"metrics"}, {"brokers"}, {"engines"}, {"architectures"}, {"api"},
    {"calibration", "experiments", "bench", "validity"}, {"comparison"}, {"figures"}, {"reporting", "explorer"}, {"cli"},
]  # fmt: skip
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
INVERTED = {("history", "metrics"), ("history", "checker")}
"""Deferred imports on purpose: a history hands itself to its metrics and its checker."""


def imports(file):
    """The parts of the package that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "simlib":
            names = node.module.split(".")[1:] or [alias.name for alias in node.names]
            yield from names[:1] if node.module != "simlib" else names
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("simlib."))


def parts():
    return sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")})


def test_every_part_of_the_package_has_its_layer():
    assert set(parts()) - {"__init__"} <= set(RANK)


@pytest.mark.parametrize("part", [part for part in parts() if part != "__init__"])
def test_a_part_imports_only_from_its_own_layer_and_those_before(part):
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").exists() else sorted((PACKAGE / part).rglob("*.py"))
    for file in files:
        for name in imports(file):
            allowed = name in RANK and (RANK[name] < RANK[part] or name == part or (part, name) in INVERTED)
            assert allowed, f"{file.relative_to(PACKAGE.parent)} imports simlib.{name}"
