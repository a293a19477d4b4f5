"""`simlib explore`: an address that answers, one line for a port that cannot be had, nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from simlib import cli

SIMLIB = str(Path(sys.executable).with_name("simlib"))


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_interrupted_and_leaves_nothing_behind(by, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([SIMLIB, "explore", "--json"], stdout=subprocess.PIPE, text=True, env=environment) as server:
        document = json.loads("".join(iter(server.stdout.readline, "}\n")) + "}")
        assert {"address", "version", "draws"} <= set(document) and document["address"].startswith("http://127.0.0.1:")
        with urllib.request.urlopen(document["address"], timeout=60) as page:  # which starts a kernel
            assert b"jupyter-widgets" in page.read()
        started = psutil.Process(server.pid).children(recursive=True)
        assert started
        server.send_signal(by)
        assert server.wait(60) == 130
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive and not list(tmp_path.iterdir())


def test_a_port_in_use_is_refused_in_one_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["explore", "--port", str(port)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"port {port}" in err and "in use" in err
