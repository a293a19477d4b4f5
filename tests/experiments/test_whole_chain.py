"""The whole chain on a small load, as its user runs it: from the real parts to the report, in a folder of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simlib import paths
from simlib.brokers import nats, postgres
from tests.conftest import require_part

pytestmark = pytest.mark.live
MEASUREMENTS = paths.PACKAGE.parent / "data" / "measurements" / "rehearsal.yaml"
PLAN = """
seed: 1
replications: 2
messages: 20000
architectures:
  - {architecture: rest}
  - {architecture: message_queue}
scenarios:
  - {scenario: steady, rates: [75/s, 150/s, 300/s]}
  - {scenario: burst}
  - {scenario: flash_sale}
  - {scenario: fulfilment}
  - {scenario: crashes}
"""


def simlib(home: Path, *arguments: str, status: tuple[int, ...] = (0,)) -> dict:
    """What a command prints as JSON, with all data under `home`; it must end with one of these statuses."""
    done = subprocess.run(
        [sys.executable, "-m", "simlib.cli", *arguments, "--json"],
        env={**os.environ, "SIMLIB_HOME": str(home), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in status, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(1200)  # a minute on a quiet machine
def test_from_the_real_parts_to_the_report(tmp_path):
    for part in (postgres, nats):
        require_part(part.found() is not None, part.INSTALL)
    plan = tmp_path / "data" / "plans" / "report.yaml"
    plan.parent.mkdir(parents=True)
    plan.write_text(PLAN)
    shutil.copy(paths.PACKAGE.parent / "data" / "cost.json", tmp_path / "data")
    names = ["rest", "message_queue"]

    measured = simlib(tmp_path, "measure", *names, "--plan", str(MEASUREMENTS))["rows"]
    assert [row["architecture"] for row in measured] == names
    assert all(row["saturation"] > 0 for row in measured)

    calibrated = simlib(tmp_path, "calibrate")["rows"]
    for row in calibrated:
        for name, entry in row["parameters"].items():
            assert entry["provenance"] in ("measured", "assumed"), name
        assert any(entry["provenance"] == "measured" for entry in row["parameters"].values())
    assert {file.name for file in (tmp_path / "data" / "calibration").iterdir()} == {
        "system.yaml",
        "message_queue.nats.yaml",
    }

    # So few messages on a noisy machine may miss even the saturation by more than itself: a result, which ends with status 1.
    validated = simlib(tmp_path, "validate", "--plan", str(MEASUREMENTS), status=(0, 1))["rows"]
    assert {(row["architecture"], row["kind"]) for row in validated} == {
        (name, kind) for name in names for kind in ("trace", "independent")
    }
    assert all(row["measured"]["p50"] > 0 and row["predicted"]["p50"] > 0 for row in validated)

    swept = simlib(tmp_path, "sweep", str(plan), "--workers", "2")["rows"]
    assert [(row["failed_runs"], row["error"]) for row in swept] == [(0, None)] * 10

    files = [Path(file) for file in simlib(tmp_path, "report")["files"]]
    assert {file.suffix for file in files} == {".docx", ".pdf", ".html"}
    for file in files:
        assert file.is_relative_to(tmp_path) and file.stat().st_size > 10_000, file
    assert any((tmp_path / "figures").iterdir())
    assert (tmp_path / "data" / "results" / "report" / "comparison.ipynb").exists()
