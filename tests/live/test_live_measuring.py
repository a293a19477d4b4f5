"""A broker of the user's own is measured under its name; one that dies meanwhile, or a busy machine, is said in one line."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from simlib import cli, paths
from simlib.brokers import answers, processes
from simlib.brokers import nats as nats_part
from simlib.brokers import postgres as postgres_part
from tests.conftest import require_part

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
DATA = paths.PACKAGE.parent / "data"
PLAN = """
scenario: steady
loads: [0.3]
repeats: 1
messages: 100
warm_up: 10
accuracy: {p50: 1.0, p95: 1.0, p99: 1.0}
stated_up_to_load: 0.1
effort: {pace: 1, idle: 80, idle_rate: 25/s, bursts: 8, saturations: 1, saturating: 150, tries: 1, latest: 10 s, busiest: 64}
"""


@pytest.fixture
def home(tmp_path, monkeypatch, postgres):
    """A folder for data with the shared calibration, and a folder of its own for what is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "VALIDATION", tmp_path / "validation.json")
    for name in ("BROKERS", "CALIBRATION", "MEASUREMENTS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    paths.CALIBRATION.mkdir()
    shutil.copy(DATA / "calibration" / "system.yaml", paths.CALIBRATION)
    (tmp_path / "plan.yaml").write_text(PLAN)
    started = tmp_path / "started"
    started.mkdir()
    started.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(started))
    monkeypatch.setenv(postgres_part.URL, postgres.url)
    monkeypatch.delenv(nats_part.URL, raising=False)
    return tmp_path


def said(capsys, command: str, status: int) -> str:
    """What a command prints: JSON on standard output, or its last line of errors."""
    found = cli.main(command.split())
    printed = capsys.readouterr()
    assert found == status, printed.err
    return printed.out if status == 0 else printed.err.splitlines()[-1]


def test_a_broker_of_ones_own_is_measured_calibrated_validated_and_simulated_under_its_name(capsys, home, nats):
    measure = f"measure message_queue --url {nats.url} --as mine --plan plan.yaml --json"
    (row,) = json.loads(said(capsys, measure, 0))["rows"]
    assert row["broker"] == "mine" and row["saturation"] > 0 and row["missing"] == []
    (row,) = json.loads(said(capsys, "calibrate message_queue --set broker=mine --json", 0))["rows"]
    assert row["parameters"]["uplink"]["provenance"] == "measured"
    (row, *_) = json.loads(said(capsys, "validate message_queue --set broker=mine --plan plan.yaml --json", 0))["rows"]
    assert row["broker"] == "mine"
    ran = json.loads(said(capsys, "run message_queue --set broker=mine --messages 200 --json", 0))
    assert set(ran["calibration"]) == {"system.yaml", "message_queue.mine.yaml"}
    assert ran["parameters"]["broker"] == "mine"
    assert "password" not in (paths.BROKERS / "mine.yaml").read_text()
    assert list((home / "started").iterdir()) == []


def test_a_broker_that_dies_while_it_is_measured_is_said_and_nothing_is_left(capsys, home):
    require_part(nats_part.found() is not None, nats_part.INSTALL)
    with nats_part.nats() as server:
        threading.Timer(5.0, server.program.kill).start()
        line = said(capsys, f"measure message_queue --url {server.url} --as mine --plan plan.yaml", 1)
    assert line.startswith("error: ") and "nats must run for as long as the run lasts" in line
    assert not list(paths.MEASUREMENTS.glob("*/saturation.json"))
    assert list((home / "started").iterdir()) == []


def test_on_a_machine_that_is_too_busy_points_are_invalid_and_named(capsys, home, nats):
    Path("plan.yaml").write_text(PLAN.replace("latest: 10 s", "latest: 1 ns"))
    line = said(capsys, f"measure message_queue --url {nats.url} --as mine --plan plan.yaml", 1)
    assert "no try of 3 points (message_queue.mine idle-stock_update, " in line and "too busy" in line


@pytest.mark.parametrize(
    ("setting", "user", "status", "words"),
    [
        ("max_file_store: 30KB }", "", 1, "insufficient resources"),
        ('}\nauthorization { user: "a", password: "b" }', "a:c@", 2, "Authorization Violation: correct it"),
    ],
    ids=["no room for messages", "another password"],
)
def test_a_broker_that_takes_no_messages_or_lets_nobody_in_is_said(capsys, home, setting, user, status, words):
    require_part(nats_part.found() is not None, nats_part.INSTALL)
    port, config = processes.free_port(), home / "nats.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{home / "store"}"\n {setting}')
    url = f"nats://{user}127.0.0.1:{port}"
    ready = url.replace("a:c", "a:b")
    command = [nats_part._binary(), "-c", str(config)]
    with processes.Program("NATS", command, home / "nats.log", lambda: answers(ready, nats_part._greet)):
        line = said(capsys, f"measure message_queue --url {url} --as mine --plan plan.yaml", status)
    assert words in line.replace("'", "")
    assert list((home / "started").iterdir()) == []
