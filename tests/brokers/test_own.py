"""A broker of the user's own has a name, its own times and the semantics of its kind; what it cannot be is said in one line."""

import json
import os
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from simlib import api, architectures, cli, paths
from simlib.architectures.queues import JetStream, QuorumQueue
from simlib.brokers import nats, own, processes
from simlib.errors import BadInput

CALIBRATION = paths.PACKAGE.parent / "data" / "calibration"
PLAN = paths.PACKAGE.parent / "data" / "measurements" / "held_out.yaml"
TIMES = ("publish_client", "consume_client", "store", "dispatch", "uplink")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder for data, with the calibration of the project and no broker of anyone's own."""
    for name in ("BROKERS", "CALIBRATION", "MEASUREMENTS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    paths.CALIBRATION.mkdir()
    for file in CALIBRATION.glob("*.yaml"):
        (paths.CALIBRATION / file.name).write_bytes(file.read_bytes())
    paths.MEASUREMENTS.mkdir()
    (paths.MEASUREMENTS / PLAN.name).write_bytes(PLAN.read_bytes())
    monkeypatch.delenv(nats.URL, raising=False)
    return tmp_path


def calibrated(name, seconds):
    """Write a calibration in which every time of the queue is the same."""
    entry = {"value": {"family": "constant", "value": seconds}, "provenance": "measured"}
    text = json.dumps({"architecture": "message_queue", "broker": name, "parameters": dict.fromkeys(TIMES, entry)})
    (paths.CALIBRATION / f"message_queue.{name}.yaml").write_text(text)


def refused(capsys, command):
    """The one line that a command ends with."""
    assert cli.main(command.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


@contextmanager
def a_nats_of_version(version):
    """The URL of what greets as a NATS of this version does, and lets everybody in."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak():
            with suppress(OSError):
                connection, _ = listening.accept()
                info = {"version": version, "jetstream": True}
                connection.sendall(b"INFO " + json.dumps(info).encode() + b"\r\n")
                connection.recv(4096)
                connection.sendall(b"PONG\r\n")
                connection.recv(4096)
                connection.close()

        threading.Thread(target=speak, daemon=True).start()
        yield f"nats://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(("kind", "semantics"), [("nats", JetStream), ("rabbitmq", QuorumQueue)])
def test_a_broker_of_ones_own_has_its_times_and_the_semantics_of_its_kind(kind, semantics):
    own.keep("mine", own.Own(kind=kind, at="127.0.0.1:1"))
    calibrated("mine", 0.004)
    case = api.case("message_queue", params={"broker": "mine"}, messages=50)
    assert isinstance(case.parameters, semantics) and case.parameters.broker == "mine"
    assert {getattr(case.parameters, name).mean_value for name in TIMES} == {0.004}
    assert set(case.meta["calibration"]) == {"system.yaml", "message_queue.mine.yaml"}
    assert case.run(1).check().ok
    of_kind = api.case("message_queue", params={"broker": kind}, messages=50).parameters
    assert of_kind.store != case.parameters.store and of_kind.semantics == case.parameters.semantics
    assert architectures.get("message_queue").load_parameters(case.parameters.model_dump()) == case.parameters


def test_what_stands_on_the_queues_times_stands_on_those_of_ones_own_broker_too():
    own.keep("mine", own.Own(kind="nats", at="127.0.0.1:1"))
    calibrated("mine", 0.004)
    assert api.case("outbox", params={"broker": "mine"}, messages=50).parameters.store.mean_value == 0.004


def test_a_parameter_of_another_kind_is_refused(capsys):
    own.keep("mine", own.Own(kind="rabbitmq", at="127.0.0.1:1"))
    calibrated("mine", 0.004)
    assert "parameter 'ack_wait' is of broker=nats" in refused(
        capsys, "run message_queue --set broker=mine --set ack_wait=1"
    )
    assert "unknown broker 'mine': known are nats" in refused(capsys, "run outbox --set broker=mine")


def test_a_broker_that_is_not_calibrated_takes_the_times_of_no_other(capsys):
    own.keep("mine", own.Own(kind="nats", at="127.0.0.1:1"))
    for name in ("message_queue", "outbox"):
        said = refused(capsys, f"run {name} --set broker=mine")
        assert "broker 'mine' is not calibrated: run simlib calibrate message_queue --set broker=mine" in said
    assert "did you mean 'mine'" in refused(capsys, "run message_queue --set broker=mien")


@pytest.mark.parametrize("name", ["nats", "kafka", "Mine", "../mine", "", "a.b"])
def test_a_name_that_cannot_be(name):
    with pytest.raises(BadInput, match="choose another"):
        own.keep(name, own.Own(kind="nats", at="127.0.0.1:1"))
    assert own.names() == []


def test_a_name_stands_for_one_broker():
    first = own.Own(kind="nats", at="127.0.0.1:1")
    own.keep("mine", first)
    own.keep("mine", first)
    with pytest.raises(BadInput, match=r"the nats at 127\.0\.0\.1:1: choose another name"):
        own.keep("mine", own.Own(kind="nats", at="127.0.0.1:2"))


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("--url http://127.0.0.1:80 --as mine", "--url must start with nats:// or amqp:// or kafka://, got 'http'"),
        ("--url 127.0.0.1 --as mine", "--url must start with"),
        ("--url nats://127.0.0.1:{closed} --as mine", "--url must name a NATS server with JetStream that lets us in"),
        ("--url nats://127.0.0.1:{closed}", "give both --url and --as"),
        ("--as mine", "give both --url and --as"),
        ("--set broker=mine", "unknown broker 'mine'"),
        ("--url nats://127.0.0.1:{closed} --as mine --set broker=nats", "leave out --set"),
    ],
)
def test_a_broker_that_cannot_be_measured(capsys, home, command, line):
    before = sorted(home.rglob("*"))
    assert line in refused(capsys, f"measure message_queue {command.format(closed=processes.free_port())}")
    assert sorted(home.rglob("*")) == before


def test_a_server_that_is_too_old_is_refused_with_the_version_that_is_needed(capsys):
    with a_nats_of_version("2.1.9") as url:
        said = refused(capsys, f"measure message_queue --url {url} --as mine")
    assert "of version 2.7.2 or newer, got 2.1.9: name another" in said
    with a_nats_of_version("2.10.0-RC.1") as url:
        assert own.at(url).kind == "nats"


@pytest.mark.parametrize(("name", "stands_on"), [("rest", "no broker"), ("streaming", "kafka")])
def test_an_architecture_that_cannot_stand_on_the_broker_is_refused(capsys, name, stands_on):
    with a_nats_of_version("2.10.0") as url:
        said = refused(capsys, f"measure {name} --url {url} --as mine")
    assert f"architecture '{name}' stands on {stands_on}, got the URL of nats: name another" in said
    assert own.names() == []


def test_streaming_stands_on_kafka_or_on_ones_own_of_that_kind():
    own.keep("mine", own.Own(kind="kafka", at="127.0.0.1:1"))
    own.keep("queue", own.Own(kind="nats", at="127.0.0.1:1"))
    streaming = architectures.get("streaming")
    assert [streaming.broker({"broker": name}) for name in ("kafka", "mine")] == [None, "mine"]
    with pytest.raises(BadInput, match="unknown broker 'queue'"):
        streaming.load_parameters({"broker": "queue"})


def test_a_broker_of_ones_own_is_run_live_only_where_it_is_the_one_that_is_named(capsys, monkeypatch):
    own.keep("mine", own.Own(kind="nats", at="127.0.0.1:1"))
    assert f"name it in {nats.URL}" in refused(capsys, "run message_queue --engine live --set broker=mine")
    monkeypatch.setenv(nats.URL, "nats://127.0.0.1:2")
    assert "'mine' is the nats at 127.0.0.1:1" in refused(capsys, "run message_queue --engine live --set broker=mine")


def test_the_environment_is_as_it_was_after_a_broker_stood_in(monkeypatch):
    monkeypatch.setenv(nats.URL, "nats://before:1")
    with a_nats_of_version("2.10.0") as url:
        with own.standing(url):
            assert os.environ[nats.URL] == url
        assert os.environ[nats.URL] == "nats://before:1"
