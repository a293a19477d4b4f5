"""A sweep as a process: papermill runs the notebooks, and what stops it costs nothing but the time of a few runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from simlib import experiments
from simlib.errors import RunFailed
from simlib.experiments import Entry, Outcome, store

PLAN = """
name: tiny
replications: 20
messages: 10000
architectures: [{architecture: rest}]
scenarios: [{scenario: steady, rates: [50/s, 100/s]}]
"""
ENTRY = Path("data/results/tiny/rest-steady")
RUNS = 40
"""So many that a signal meets a sweep that is not over, however fast the machine."""


def command(home: Path, *arguments: str) -> subprocess.Popen[str]:
    (home / "tiny.yaml").write_text(PLAN)
    (home / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "simlib.cli", "sweep", str(home / "tiny.yaml"), "--workers", "1", *arguments],
        env={**os.environ, "SIMLIB_HOME": str(home), "TMPDIR": str(home / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stopped(home: Path, by: signal.Signals) -> tuple[int, int, str]:
    """Stop a sweep by a signal when it has finished two runs; all finished runs, exit status, last words. No process of it is
    left, and no temporary file."""
    before = store.finished_runs(home / ENTRY)
    process = command(home)
    deadline = time.monotonic() + 120
    while store.finished_runs(home / ENTRY) < before + 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    notebooks = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(by)
    _, errors = process.communicate(timeout=60)
    assert notebooks and not psutil.wait_procs(notebooks, timeout=60)[1]
    assert not list((home / "tmp").iterdir())
    return store.finished_runs(home / ENTRY), process.returncode, errors


def test_a_sweep_that_was_killed_goes_on_to_the_same_bytes(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for home in (undisturbed, disturbed):
        home.mkdir()
    process = command(undisturbed, "--json")
    printed, progress = process.communicate(timeout=200)
    assert process.returncode == 0, progress
    [row] = json.loads(printed)["rows"]
    assert (row["name"], row["runs"], row["kept"], row["error"]) == ("rest-steady", RUNS, False, None)
    assert f"{RUNS}/{RUNS}" in progress

    finished, status, _ = stopped(disturbed, signal.SIGKILL)
    assert status == -signal.SIGKILL and 2 <= finished < RUNS
    assert not (disturbed / ENTRY / "run.json").exists()
    finished, status, errors = stopped(disturbed, signal.SIGINT)
    assert status == 130 and errors.splitlines()[-1] == "error: interrupted"
    assert 4 <= finished < RUNS
    first = next((disturbed / ENTRY).glob("runs-*/*.result.parquet"))
    first.write_bytes(first.read_bytes()[:-100])  # as by a power cut: it is run again

    process = command(disturbed)
    _, progress = process.communicate(timeout=200)
    assert process.returncode == 0, progress
    for name in ("result.parquet", "backlog.parquet", "run.json"):
        assert (undisturbed / ENTRY / name).read_bytes() == (disturbed / ENTRY / name).read_bytes(), name
    assert {file.name for file in (disturbed / ENTRY).iterdir()} == {
        "result.parquet", "backlog.parquet", "run.json", "notebook.ipynb"
    }  # fmt: skip
    notebook = json.loads((disturbed / ENTRY / "notebook.ipynb").read_text())
    assert not [out for cell in notebook["cells"] for out in cell.get("outputs", ()) if out.get("name") == "stderr"]

    process = command(disturbed, "--json")
    printed, _ = process.communicate(timeout=100)
    assert [row["kept"] for row in json.loads(printed)["rows"]] == [True]


def test_what_failed_ends_with_status_1_and_names_the_notebook(tmp_path):
    entry = Entry("rest")
    experiments.require([Outcome(entry, tmp_path, kept=True)])
    with pytest.raises(RunFailed, match=r"rest-steady: ValueError: no; kept in .*notebook\.ipynb"):
        experiments.require([Outcome(entry, tmp_path, kept=False, error="ValueError: no")])
    with pytest.raises(RunFailed, match="3 runs failed"):
        experiments.require([Outcome(entry, tmp_path, kept=True, failed_runs=3)])
