"""The explorer in a browser of its own: Voilà serves its notebook on this machine, until it is interrupted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from simlib import paths
from simlib.brokers import processes
from simlib.errors import BadInput

HOST = "127.0.0.1"
NOTEBOOK = paths.NOTEBOOKS / "explore.ipynb"


@contextmanager
def serving(port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve the explorer's notebook on a port, or on a free one; gives its address and the server, which ends with the block,
    and its kernels with it. Raises BadInput where the port cannot be had."""
    if port is None:
        port = processes.free_port()
    else:
        _free(port)
    with processes.folder({}) as folder:
        log = folder / "voila.log"
        command = [
            sys.executable, "-m", "voila", str(NOTEBOOK), "--no-browser", f"--port={port}", f"--Voila.ip={HOST}",
            "--Voila.port_retries=0", "--show_tracebacks=False", "--theme=light",
            "--MappingKernelManager.cull_interval=30", "--MappingKernelManager.cull_idle_timeout=120",
        ]  # fmt: skip
        # What Jupyter keeps of a user (settings, run files) stays out of the way and is removed with the folder.
        environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(folder), "JUPYTER_RUNTIME_DIR": str(folder)}
        process = processes.start(command, log, cwd=NOTEBOOK.parent, env=environment)
        try:
            address = f"http://{HOST}:{port}/"
            processes.wait_until(lambda: _answers(address), process, "Voilà", log)
            yield address, process
        finally:
            processes.stop(process)  # the folder's guard ends the kernels that a killed one leaves


def _free(port: int) -> None:
    """Raise BadInput where a port cannot be had."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BadInput(
                f"port {port} on {HOST} cannot be had: {(error.strerror or '').lower()}: name another, or leave --port out"
            ) from None


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}voila/static/", timeout=1)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
