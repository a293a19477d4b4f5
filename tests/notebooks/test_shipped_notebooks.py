"""The notebooks that are shipped: clean in git, without functions of their own, and running without a warning."""

import ast
import json

import pytest

from simlib import experiments, paths
from simlib.brokers import nats, postgres
from simlib.experiments import Entry, notebooks
from simlib.experiments.notebooks import Job
from tests.conftest import require_part

PLAN = paths.PACKAGE.parent / "data" / "measurements" / "rehearsal.yaml"
SHIPPED = sorted(paths.NOTEBOOKS.glob("*.ipynb"))


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_the_sweep_and_the_comparison():
    assert {path.name for path in SHIPPED} >= {"sweep.ipynb", "comparison.ipynb"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_output(path):
    for cell in cells(path):
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_notebook_begins_with_its_question_and_holds_no_function(path):
    first = "".join(cells(path)[0]["source"])
    assert first.startswith("# ") and first.splitlines()[0].endswith("?")
    for cell in cells(path):
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            assert not [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda)]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_notebook_declares_its_parameters(path):
    assert notebooks.declared(path)


def test_the_notebooks_run_on_a_tiny_plan_without_a_warning(tmp_path):
    store = tmp_path / "results"
    common = {"rates": [50.0, 500.0], "messages": 400, "replications": 2}
    jobs = []
    for architecture in ("rest", "message_queue"):
        folder = store / Entry(architecture).name
        parameters = {**common, "architecture": architecture, "folder": str(folder), "key": "k"}
        jobs.append(Job(paths.NOTEBOOKS / "sweep.ipynb", folder / "notebook.ipynb", parameters))
    assert notebooks.run_all(jobs, 2) == [None, None]
    assert len(experiments.read(store)["architecture"].unique()) == 2
    pictures = tmp_path / "figures"
    job = Job(
        paths.NOTEBOOKS / "comparison.ipynb",
        tmp_path / "comparison.ipynb",
        {"results": str(store), "pictures": str(pictures), "languages": ["ru"]},
    )
    assert notebooks.run_all([job], 1) == [None]
    assert (pictures / "readme_comparison.ru.png").exists()
    for path in (*(each.output for each in jobs), job.output):
        outputs = [output for cell in cells(path) for output in cell.get("outputs", ())]
        assert outputs
        assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.live
def test_the_measuring_notebook_measures_calibrates_and_validates_in_a_folder_of_its_own(tmp_path, monkeypatch):
    require_part(postgres.found() is not None and nats.found() is not None, "no PostgreSQL or no NATS")
    monkeypatch.setenv("SIMLIB_HOME", str(tmp_path))
    job = Job(paths.NOTEBOOKS / "measure.ipynb", tmp_path / "measure.ipynb", {"plan": str(PLAN)})
    assert notebooks.run_all([job], 1) == [None]
    assert {file.name for file in (tmp_path / "data" / "calibration").iterdir()} == {
        "system.yaml", "message_queue.nats.yaml",
    }  # fmt: skip
    outputs = [output for cell in cells(job.output) for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not [output for output in outputs if output.get("name") == "stderr"]
