"""A broker of the user's own is measured under its name; one that dies meanwhile, or a busy machine, is said in one line."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from simlib import cli, paths
from simlib.brokers import address, answers, processes
from simlib.brokers import kafka as kafka_part
from simlib.brokers import nats as nats_part
from simlib.brokers import postgres as postgres_part
from simlib.brokers import rabbitmq as rabbitmq_part
from tests.conftest import require_part

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
DATA = paths.PACKAGE.parent / "data"
PLAN = (DATA / "measurements" / "rehearsal.yaml").read_text(encoding="utf-8")
PARTS = {"nats": nats_part, "rabbitmq": rabbitmq_part, "kafka": kafka_part}
STANDS_ON = {"nats": "message_queue", "rabbitmq": "message_queue", "kafka": "streaming"}
"""An architecture for each kind of broker."""


@pytest.fixture
def server(request):
    """The session's server of a kind; a test names it before `home`, in whose folder it would start else."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def mortal(request, monkeypatch):
    """A server of a kind, to be killed; a test names it before `home`."""
    part = PARTS[request.param]
    monkeypatch.delenv(part.URL, raising=False)
    require_part(part.found() is not None, part.INSTALL)
    with getattr(part, request.param)() as server:
        yield server


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
    for part in PARTS.values():
        monkeypatch.delenv(part.URL, raising=False)
    return tmp_path


def said(capsys, command: str, *statuses: int) -> str:
    """What a command prints that ends with one of these statuses: JSON on standard output, or its last line of errors."""
    found = cli.main(command.split())
    printed = capsys.readouterr()
    assert found in statuses, printed.err
    return printed.out if "--json" in command else printed.err.splitlines()[-1]


@pytest.mark.parametrize("server", PARTS, indirect=True)
def test_a_broker_of_ones_own_is_measured_calibrated_validated_and_simulated_under_its_name(server, capsys, home):
    kind, name = server.part.name, STANDS_ON[server.part.name]
    host, port = address(server.url)
    (row,) = json.loads(said(capsys, f"measure {name} --url {server.url} --as mine --plan plan.yaml --json", 0))["rows"]
    assert row["broker"] == "mine" and row["saturation"] > 0 and row["missing"] == []
    (row,) = json.loads(said(capsys, f"calibrate {name} --set broker=mine --json", 0))["rows"]
    assert row["parameters"]["uplink"]["provenance"] == "measured"
    # so few messages on a noisy machine may miss even the saturation by more than itself, which ends with status 1
    (row, *_) = json.loads(said(capsys, f"validate {name} --set broker=mine --plan plan.yaml --json", 0, 1))["rows"]
    assert row["broker"] == "mine"
    ran = json.loads(said(capsys, f"run {name} --set broker=mine --messages 200 --json", 0))
    assert set(ran["calibration"]) == {"system.yaml", f"{name}.mine.yaml"}
    assert ran["parameters"]["broker"] == "mine"
    assert YAML(typ="safe").load(paths.BROKERS / "mine.yaml") == {"kind": kind, "at": f"{host}:{port}"}, "no password"
    assert list((home / "started").iterdir()) == []


@pytest.mark.parametrize("mortal", PARTS, indirect=True)
def test_a_broker_that_dies_while_it_is_measured_is_said_and_what_was_finished_is_kept(mortal, capsys, home):
    kind = mortal.part.name
    killed = threading.Thread(target=kill_when, args=(mortal, "*/idle-stock_update"))
    killed.start()
    line = said(capsys, f"measure {STANDS_ON[kind]} --url {mortal.url} --as mine --plan plan.yaml", 1)
    killed.join()
    assert line.startswith("error: ") and f"{kind} must run for as long as the run lasts" in line
    assert list(paths.MEASUREMENTS.glob("*/idle-stock_update/meta.json"))
    assert not list(paths.MEASUREMENTS.glob("*/saturation.json"))
    assert list((home / "started").iterdir()) == []


def kill_when(server, finished):
    """Kill a server as soon as so much of a measurement is finished."""
    while not list(paths.MEASUREMENTS.glob(f"{finished}/meta.json")):
        time.sleep(0.02)
    server.program.kill()


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


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("amqp://simlib:wrong@{rabbitmq}", "ACCESS_REFUSED"),
        ("amqp://{nats}", "it does not speak AMQP 0-9-1"),
        ("nats://{rabbitmq}", "timed out"),
        ("kafka://{nats}", "must name a Kafka server"),
        ("amqp://{nobody}", "Connection refused"),
        ("nats://{nobody}", "Connection refused"),
        ("kafka://{nobody}", "Connection refused"),
    ],
)
def test_who_is_no_such_broker_or_lets_nobody_in_is_said_before_anything_starts(
    capsys, home, nats, rabbitmq, at, words
):
    there = {name: "{}:{}".format(*address(server.url)) for name, server in (("nats", nats), ("rabbitmq", rabbitmq))}
    url = at.format(**there, nobody=f"127.0.0.1:{processes.free_port()}")
    line = said(capsys, f"measure message_queue --url {url} --as mine --plan plan.yaml", 2)
    assert line.startswith("error: --url must name a ") and line.endswith(": correct it") and words in line
    assert not paths.BROKERS.exists() and list((home / "started").iterdir()) == []
