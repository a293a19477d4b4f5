"""`simlib new architecture` and the recipe of CONTRIBUTING.md lead to an architecture that works, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simlib import paths

ROOT = paths.PACKAGE.parent
RECIPE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Add an architecture")[1].split("\n## ")[0]

MODEL = '''"""One database that both sides use: nothing travels, and nothing is old."""

from __future__ import annotations

from simlib.architectures.parameters import Parameters
from simlib.architectures.sides import arrive, leave
from simlib.domain import ANNOUNCED, COPIED, COPY, ISSUED, ORDER, STOCK, STOCK_QUERY, STOCK_UPDATE, TAKEN
from simlib.flow import Flow, apply, reject
from simlib.scenario import Scenario


class SharedTable(Parameters):
    """Parameters of the shared table."""


def build(p: SharedTable, scenario: Scenario) -> Flow:
    """The flow of the shared table."""
    flow = Flow("shared_table")
    database = flow.part("database")
    stock = database.table("stock", stocked=True)
    taken = stock.take([apply(TAKEN, STOCK, sign=-1), apply(ANNOUNCED, COPY)], otherwise=[reject()])
    added = [stock.add(), apply(ISSUED, STOCK, sign=1), apply(COPIED, COPY)]
    flow.source(STOCK_UPDATE, at=database, steps=[*arrive(p, "update"), *added, *leave(p, "update")])
    flow.source(ORDER, at=database, steps=[*arrive(p, "order"), taken, *leave(p, "order")])
    flow.source(STOCK_QUERY, at=database, steps=[*arrive(p, "query"), stock.read(), *leave(p, "query", answer_from=STOCK)])
    return flow
'''
ORACLE = '''"""The shared table in plain SimPy: a visit is the way there, a look or a change, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import simpy

from simlib import draws
from simlib.domain import KINDS, ORDER, RESPONSES, STOCK_QUERY, STOCK_UPDATE
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.shared_table.model import SharedTable


def run(parameters: SharedTable, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run: issued, responded, applied in s, response, version, answer, of shape (messages,)."""
    env, arrivals = simpy.Environment(), scenario.draw(seed, messages)
    level, versions = scenario.stock().tolist(), [0] * len(scenario.stock())
    responded, applied = np.full((2, messages), np.nan)
    response = np.full(messages, RESPONSES.index("ok"))
    version, answer = np.full((2, messages), -1)

    def visit(i: int):
        kind, sku, place = KINDS[arrivals.kind[i]], arrivals.sku[i], draws.fold(0, i)
        label = {STOCK_UPDATE: "update", ORDER: "order"}.get(kind, "query")
        way = [parameters.edge.draw(draws.stream_key(seed, f"{label}.edge.{end}"))(place) for end in ("there", "back")]
        yield env.timeout(arrivals.issued[i])
        yield env.timeout(way[0])
        change = {STOCK_UPDATE: 1, ORDER: -1}.get(kind, 0) * int(arrivals.quantity[i])
        if level[sku] + change < 0:
            response[i] = RESPONSES.index("refused")
        elif kind != STOCK_QUERY:
            level[sku] += change
            versions[sku] += 1
            version[i], applied[i] = versions[sku], env.now
        else:
            version[i], answer[i] = versions[sku], level[sku]
        yield env.timeout(way[1])
        responded[i] = env.now

    for i in range(messages):
        env.process(visit(i))
    env.run()
    return {"issued": arrivals.issued, "responded": responded, "applied": applied, "response": response,
            "version": version, "answer": answer}  # fmt: skip
'''
GAPS = {
    "where the pattern is described": "M. Fowler, *Patterns of Enterprise Application Architecture*, 2002",
    "its test in tests/architectures/test_mechanisms.py": "none: there is nothing to switch off",
}


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "SIMLIB_HOME"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(folder)} | environment,
        capture_output=True,
        text=True,
    )


def outcome(folder: Path, *tests: object, **environment: str) -> tuple[int, str]:
    done = python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests), **environment)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project without its measurements and what was built."""
    for name in ("simlib", "tests", "data/calibration", "data/reference"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("pyproject.toml", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def fill(folder: Path) -> None:
    """The steps of the recipe."""
    (folder / "model.py").write_text(MODEL)
    (folder / "oracle.py").write_text(ORACLE)
    readme = folder / "README.md"
    readme.write_text(re.sub(r"<([a-z][^>]*)>", lambda gap: GAPS.get(gap[1], "All in one place."), readme.read_text()))


def test_the_recipe_leads_from_a_failing_test_to_an_architecture_that_works(copy: Path) -> None:
    made = python(copy, "-m", "simlib.cli", "new", "architecture", "shared_table")
    assert made.returncode == 0, made.stderr
    files = [Path(line).relative_to(copy).as_posix() for line in made.stdout.splitlines()[:-1]]
    own = "tests/architectures/test_shared_table.py"
    named = [file.replace("shared_table", "NAME") for file in files if not file.endswith("__init__.py")]
    assert all(name in RECIPE for name in [*named, "simlib/architectures/__init__.py"]), "the recipe names the files"
    status, said = outcome(copy, own)
    assert (
        status == 1
        and "in model.py, give the flow" in said
        and "in oracle.py, tell" in said
        and "in README.md, say" in said
    )
    fill(copy / "simlib/architectures/shared_table")
    catalogue = copy / "simlib/figures/catalogue.py"
    catalogue.write_text(
        catalogue.read_text().replace(
            '    "rest": {', '    "shared_table": {"ru": "общая таблица", "en": "shared table"},\n    "rest": {', 1
        )
    )
    status, said = outcome(
        copy,
        own,
        "tests/architectures/test_readmes.py",
        "tests/figures/test_catalogue.py",
        "-k",
        "shared_table or words",
    )
    assert status == 0, said
    listed = python(copy, "-m", "simlib.cli", "list")
    assert "One database that both sides use" in listed.stdout


def test_where_there_is_no_checkout_a_users_own_stand_in_the_folder_that_simlib_home_names(tmp_path: Path) -> None:
    home = {"SIMLIB_HOME": str(tmp_path)}
    made = python(ROOT, "-m", "simlib.cli", "new", "architecture", "shared_table", **home)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "architectures" / "shared_table"
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "__init__.py", "model.py", "oracle.py", "test_shared_table.py",
    ]  # fmt: skip
    before = python(ROOT, "-c", "from simlib import api; print(api.version())", **home).stdout
    fill(folder)
    status, said = outcome(ROOT, folder / "test_shared_table.py", "-c", "/dev/null", "--rootdir", folder, **home)
    assert status == 0, said
    after = python(ROOT, "-c", "from simlib import api; print(api.version())", **home).stdout
    assert before != after, "the code that results come from includes one's own"
