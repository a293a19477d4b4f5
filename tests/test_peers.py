"""Each peer's model answers as simlib's own, where the peer is installed."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return import_module("benchmarks.peers.__main__")


@pytest.mark.parametrize("peer", ["simpy", "heap", "asimpy", "salabim", "cimba", "ciw"])
def test_a_peer_gives_the_right_answer(table, peer):
    """In a process of its own: cimba has to be imported before numba compiles anything."""
    if command := table.absent(peer):
        pytest.skip(f"{peer} is not installed: {command}")
    run = [sys.executable, "-m", "benchmarks.peers", "--pairs", "1", "--messages", "100", "--peers", peer]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{peer} / simlib" in done.stdout


def test_a_wrong_answer_is_refused(table):
    from simlib.errors import RunFailed

    def wrong(messages, seed):
        return 1.2 * table.tandem(messages, seed)

    with pytest.raises(RunFailed, match="the peer answers"):
        table.check(table.tandem, wrong, messages=300, runs=40, peer_runs=4)
