"""Real parts are found in the stated order, run as an ordinary user, keep data safe, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import nats as nats_client
import psutil
import psycopg
import pytest

from simlib.brokers import Part, kafka, nats, postgres, processes, rabbitmq
from simlib.errors import BadInput, MissingPart
from tests.conftest import require_part

STARTS = {postgres: postgres.postgres, nats: nats.nats, rabbitmq: rabbitmq.rabbitmq, kafka: kafka.kafka}
PARTS = list(STARTS)
live = pytest.mark.live


@pytest.fixture(autouse=True)
def own_servers(monkeypatch):
    """Nothing named in the environment."""
    for part in PARTS:
        monkeypatch.delenv(part.URL, raising=False)


def absent(monkeypatch):
    """No binary on the PATH, none in a Python package."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(postgres.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(nats.sysconfig, "get_path", lambda name: "/nowhere")


@live
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_our_own_is_gone_with_its_data_after_the_block_also_when_that_fails(part, monkeypatch):
    require_part(part.found() is not None, part.INSTALL)
    made = []
    folder = processes.folder

    def noted(owner):
        made.append(folder(owner))
        return made[-1]

    monkeypatch.setattr(processes, "folder", noted)
    with pytest.raises(KeyboardInterrupt), STARTS[part]() as server:
        running = server.processes()
        here = Path(made[0].gen.gi_frame.f_locals["path"])
        assert here.exists() and running
        assert running[0].username() != "root" or (os.geteuid() == 0 and part in (nats, kafka))
        raise KeyboardInterrupt
    assert not here.exists()
    deadline = time.monotonic() + 5  # what the server itself started ends when it hears that the server is gone
    while any(at_work(process) for process in running) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(at_work(process) for process in running)
    assert not any(str(here) in environment.values() for environment in environments()), "a helper was left behind"


def at_work(process):
    """Whether a process runs; not where it only waits for its end to be noted."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def environments():
    """The environment variables of every process that lets us see them."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield process.environ()


@live
def test_postgres_makes_commits_durable():
    require_part(postgres.found() is not None, postgres.INSTALL)
    with postgres.postgres() as server, psycopg.connect(server.url) as connection:
        settings = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in ("fsync", "synchronous_commit")}
    assert settings == {"fsync": "on", "synchronous_commit": "on"}


@live
@pytest.mark.parametrize(("profile", "always"), [("nats", True), ("nats-defaults", False)])
def test_nats_flushes_before_the_confirm_in_the_default_profile_only(profile, always):
    require_part(nats.found() is not None, nats.INSTALL)

    async def publish(url):
        connection = await nats_client.connect(url)
        jetstream = connection.jetstream()
        await jetstream.add_stream(name="s", subjects=["s"])
        confirm = await jetstream.publish("s", b"")
        await connection.close()
        return confirm.seq

    with nats.nats(profile) as server:
        config = Path(psutil.Process(server.pid).cmdline()[-1]).read_text()
        assert asyncio.run(publish(server.url)) == 1
    assert ("sync_interval: always" in config) is always


@live
@pytest.mark.parametrize("part", PARTS)
def test_a_server_named_in_the_environment_is_used_and_not_stopped(part, monkeypatch):
    require_part(part.found() is not None, part.INSTALL)
    with STARTS[part]() as ours:
        monkeypatch.setenv(part.URL, ours.url)
        with STARTS[part]() as named:
            assert named.url == ours.url and named.pid is None and named.part.where == part.URL
            assert ours.part.version.startswith(named.part.version), "Kafka tells no more of its version than 3.9"
        assert ours.processes()[0].is_running()


@pytest.mark.parametrize("part", PARTS)
def test_an_absent_part_is_said_with_what_to_install(part, monkeypatch):
    absent(monkeypatch)
    assert part.found() is None
    with pytest.raises(MissingPart, match="install") as said, STARTS[part]():
        pass
    assert "\n" not in str(said.value)


@live
def test_a_rabbitmq_without_this_virtual_host_is_bad_input(monkeypatch):
    require_part(rabbitmq.found() is not None, rabbitmq.INSTALL)
    with rabbitmq.rabbitmq() as server:
        monkeypatch.setenv(rabbitmq.URL, f"{server.url}x")
        with pytest.raises(BadInput, match="not found"):
            rabbitmq.found()


def test_rabbitmq_is_the_program_behind_a_wrapper_that_lets_only_root_in(monkeypatch, tmp_path):
    wrapper, program = tmp_path / "sbin/rabbitmq-server", tmp_path / "rabbitmq_server/sbin/rabbitmq-server"
    for file in (wrapper, program, program.with_name("rabbitmq-env")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "rabbitmq_server/plugins/rabbit-3.99.1").mkdir(parents=True)
    monkeypatch.setattr(shutil, "which", lambda name: str(wrapper))
    monkeypatch.setattr(rabbitmq, "_BEHIND_WRAPPER", program)
    assert rabbitmq.found() == Part("rabbitmq", "3.99.1", str(wrapper))
