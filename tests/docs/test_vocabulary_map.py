"""The page that maps the vocabulary is whole: every case, every architecture, every operation, every addition."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import simlib.flow

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/vocabulary-map.md").read_text(encoding="utf-8")
CASES = YAML(typ="safe", pure=True).load(ROOT / "data/reference/analytic_cases.yaml")["cases"]
ARCHITECTURES = (
    "rest",
    "batch_exchange",
    "message_queue",
    "outbox",
    "event_sourcing",
    "cqrs",
    "saga/orchestrated",
    "saga/choreographed",
    "streaming",
    "service_mesh",
)
FORMULAS = {
    "mm1_asymvar_rho080",
    "mm1_asymvar_rho090",
    "retry_storm_threshold",
    "replica_availability",
    "es_rehydration",
}


def tables(page: str) -> list[tuple[str, list[dict[str, str]]]]:
    """Each table with the heading above it: its rows, by the names of the columns."""
    found: list[tuple[str, list[dict[str, str]]]] = []
    heading, columns = "", None
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            columns = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if columns is None:
            columns = cells
            found.append((heading, []))
        elif not set(line) <= set("|- "):
            assert len(cells) == len(columns), line
            found[-1][1].append(dict(zip(columns, cells, strict=True)))
    return found


def quoted(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


TABLES = tables(PAGE)
OPERATIONS = [quoted(row["operation"])[0] for row in TABLES[0][1]]
ROWS = [(heading, row) for heading, rows in TABLES[1:] for row in rows]
ADDITIONS = {quoted(row["addition"])[0] for _, row in ROWS if "addition" in row}


def test_operations_are_numbered_and_named_once() -> None:
    assert [row["#"] for row in TABLES[0][1]] == [str(i + 1) for i in range(len(OPERATIONS))]
    assert len(set(OPERATIONS)) == len(OPERATIONS)


def test_every_operation_that_is_used_is_defined() -> None:
    for heading, row in ROWS:
        used = quoted(row["core operations"])
        assert used, f"{heading}: no operation in {row}"
        assert set(used) <= set(OPERATIONS), f"{heading}: {row}"


def test_every_operation_is_used_by_a_block() -> None:
    lowered = {used for _, row in ROWS if "block" in row for used in quoted(row["core operations"])}
    assert lowered == set(OPERATIONS)


def test_every_analytic_case_is_mapped_once() -> None:
    mapped = [row["case"] for _, row in ROWS if "case" in row]
    assert sorted(mapped) == sorted(case["id"] for case in CASES)


def test_the_formula_cases_say_where_they_are_tested() -> None:
    assert {row["case"] for _, row in ROWS if row.get("status", "").startswith("formula: ")} == FORMULAS


def test_every_architecture_is_mapped_mechanism_by_mechanism() -> None:
    mapped = [heading for heading, rows in TABLES if "mechanism" in rows[0]]
    assert mapped == list(ARCHITECTURES)


def test_every_status_is_of_the_legend_and_every_need_is_planned() -> None:
    for row in [row for _, rows in TABLES for row in rows if "status" in row]:
        status = row["status"]
        assert status == "now" or status.startswith(("planned: needs `", "formula: ")), row
        if status.startswith("planned"):
            assert set(quoted(status)) <= ADDITIONS, row


def test_every_addition_is_needed_by_something() -> None:
    statuses = [row["status"] for _, rows in TABLES for row in rows if "status" in row]
    needed = {need for status in statuses if status.startswith("planned") for need in quoted(status)}
    assert needed == ADDITIONS


def test_what_a_row_calls_present_uses_no_operation_that_is_planned() -> None:
    planned = {quoted(row["operation"])[0] for row in TABLES[0][1] if row["status"] != "now"}
    for _, row in ROWS:
        if row.get("status") == "now":
            assert not planned & set(quoted(row["core operations"])), row


@pytest.mark.parametrize("row", [row for _, row in ROWS if "block" in row], ids=lambda row: row["block"])
def test_a_block_is_in_the_vocabulary_when_the_page_says_so(row: dict[str, str]) -> None:
    """Verbs are functions of `simlib.flow`, or methods of a noun."""
    nouns = {"pool": "Pool", "link": "Link", "table": "Table", "credit": "Credit"}
    for call in (text for text in quoted(row["block"]) if "(" in text and row["status"] == "now"):
        noun, _, verb = call.split("(")[0].rpartition(".")
        owner = getattr(simlib.flow, nouns[noun]) if noun else simlib.flow
        assert hasattr(owner, verb) or hasattr(simlib.flow.Flow, verb), call
