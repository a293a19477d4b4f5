"""Processes that are started are stopped, also those that do not listen; SIGTERM ends a block as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import pytest

from simlib.brokers import processes
from simlib.errors import BadInput


def python(tmp_path, program):
    return processes.start([sys.executable, "-c", program], tmp_path / "log")


def test_sigterm_ends_an_interruptible_block_and_only_that():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), processes.interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STOPS_WITHIN", 0.3)
    deaf = python(
        tmp_path, "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    processes.wait_until(lambda: "deaf" in (tmp_path / "log").read_text(), deaf, "it", tmp_path / "log")
    processes.stop(deaf)
    assert deaf.returncode == -signal.SIGKILL


def test_a_paused_process_is_stopped(tmp_path):
    paused = python(tmp_path, "import time; time.sleep(60)")
    paused.send_signal(signal.SIGSTOP)
    processes.stop(paused)
    assert paused.returncode is not None


def test_a_program_that_ends_before_it_is_ready_is_said_with_its_last_words(tmp_path):
    broken = python(tmp_path, "raise SystemExit('no room on the disk')")
    with pytest.raises(BadInput, match="status 1: no room on the disk"):
        processes.wait_until(lambda: False, broken, "the part", tmp_path / "log")


def test_a_program_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STARTS_WITHIN", 0.1)
    silent = python(tmp_path, "import time; time.sleep(60)")
    try:
        with pytest.raises(BadInput, match="must answer within"):
            processes.wait_until(lambda: False, silent, "the part", tmp_path / "log")
    finally:
        processes.stop(silent)


def test_a_program_is_killed_and_started_again_within_its_block_and_stopped_at_its_end(tmp_path):
    log = tmp_path / "log"
    waiting = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    with processes.Program("it", waiting, log, lambda: "up" in log.read_text()) as program:
        first = program.process
        assert program.ended() is None
        fell = program.kill()
        assert program.ended() is None, "not by itself"
        assert fell[0] <= fell[1] <= time.monotonic_ns()
        assert first.returncode == -signal.SIGKILL
        log.write_text("")
        before = time.monotonic_ns()
        not_yet, ready = program.start()
        assert before < not_yet <= ready <= time.monotonic_ns()
        assert program.process.pid != first.pid and program.ended() is None
        processes.stop(program.process)
        assert program.ended() == -signal.SIGTERM
    assert program.process.returncode == -signal.SIGTERM


def test_a_free_port_is_one_that_nobody_has_and_no_connection_is_given(monkeypatch):
    ports, taken, free = processes.PORTS, processes.free_port(), processes.free_port()
    monkeypatch.setattr(processes, "PORTS", (taken, taken, taken, free))
    with socket.create_server(("127.0.0.1", taken)) as server:
        assert {processes.free_port() for _ in range(20)} == {free}
        callers = [socket.create_connection(server.getsockname()) for _ in range(20)]
        given = {caller.getsockname()[1] for caller in callers}
        for caller in callers:
            caller.close()
    assert given.isdisjoint(ports)
