"""Find or start the real parts: a server that the environment names, or a binary on the PATH or in a Python package."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from simlib.brokers.processes import Program


@dataclass(frozen=True)
class Part:
    """A real part that was found: its name, version, and where (the variable, the path, or the Python package)."""

    name: str
    version: str
    where: str


@dataclass(frozen=True)
class Server:
    """A server that answers at `url`. `program` is None where it is not ours (named in the environment)."""

    part: Part
    url: str
    program: Program | None = None

    @property
    def pid(self) -> int | None:
        """The id of its process, None where it is not ours."""
        return self.program.process.pid if self.program else None

    def processes(self) -> list[psutil.Process]:
        """The server's own process and its children; none where it is not ours."""
        if self.pid is None:
            return []
        try:
            main = psutil.Process(self.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
