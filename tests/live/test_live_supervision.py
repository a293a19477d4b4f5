"""A live run leaves nothing behind, however it ends, and says in one line why it cannot begin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from simlib.architectures.rest import live as rest
from simlib.architectures.rest.model import Rest
from simlib.brokers import Part, Server, nats, postgres
from simlib.brokers.processes import free_port
from simlib.engines import live
from simlib.errors import BadInput
from simlib.scenario import Crash, Slowdown, load_scenario
from tests.conftest import require_part

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
PROGRAM = "import simlib; simlib.run('message_queue', engine='live', messages=3000)"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_a_run_is_stopped_every_process_ends_and_the_data_go(by):
    require_part(postgres.found() is not None and nats.found() is not None, "no PostgreSQL or no NATS")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env={**os.environ, "TMPDIR": folder}, stderr=subprocess.PIPE
        )
        main = psutil.Process(program.pid)
        deadline = time.monotonic() + 60
        while not any("driver.py" in " ".join(child.cmdline()) for child in main.children()):
            assert time.monotonic() < deadline and program.poll() is None
            time.sleep(0.1)
        started = main.children(recursive=True)
        program.send_signal(by)
        program.communicate(timeout=90)
        gone, alive = psutil.wait_procs(started, timeout=30)
        assert len(gone) >= 8 and not alive
        assert list(Path(folder).iterdir()) == []


def test_a_fault_that_cannot_be_made_live_is_refused_before_anything_starts(workload, monkeypatch):
    monkeypatch.setattr(live, "postgres", None)
    refused = {
        "a slowdown": Slowdown(part="shop", at=(1.0,), lasts=1.0, factor=2.0),
        "a crash of shop at no given time": Crash(part="shop", point="updates.delivered", probability=0.1),
        "a crash of broker": Crash(part="broker", at=(1.0,)),
    }
    for said, fault in refused.items():
        with pytest.raises(BadInput, match=f"crash .of accounting or shop, at given times., got {said}: take another"):
            live.perform(rest, Rest(), workload(50.0, faults=(fault,)), 1, 10)


def test_a_twin_without_services_for_further_steps_refuses_orders_that_have_some(monkeypatch):
    monkeypatch.delattr(rest, "FURTHER")
    with pytest.raises(BadInput, match=r"this twin does orders in one step, scenario 'fulfilment' has .*: simulate it"):
        live.perform(rest, Rest(), load_scenario("fulfilment"), 1, 10)


def test_a_service_that_cannot_start_says_why_in_its_last_line(bench, monkeypatch):
    part = Part("rabbitmq", "4.0.0", "nowhere")
    monkeypatch.setitem(live.STARTS, "rabbitmq", lambda: nullcontext(Server(part, f"amqp://127.0.0.1:{free_port()}/")))
    told = r"^the (accounting service|shop) must run, but ended with status 1: AMQPConnectionError: "
    with pytest.raises(BadInput, match=told), bench("message_queue", own_broker=True, broker="rabbitmq"):
        pass


def test_a_service_whose_clock_is_another_is_refused_before_anything_is_sent(bench, monkeypatch):
    """As it is in a container that began its monotonic clock anew."""
    ask = live.Service.get
    monkeypatch.setattr(live.Service, "get", lambda self, path: ask(self, path) - (path == "/clock") * 5_000_000_000)
    monkeypatch.setattr(live.Bench, "_warm_up", None)
    clock = (
        r"^the monotonic clock of the accounting service must be that of the load generator, but is -5 s off: run both"
    )
    with pytest.raises(BadInput, match=clock), bench("rest"):
        pass
