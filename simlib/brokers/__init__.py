"""Find or start the real parts: a server that the environment names, or a binary on the PATH or in a Python package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from simlib.brokers.processes import Program
from simlib.errors import BadInput

Greet = Callable[[str], str]
"""Logs in at a URL as a client does: the server's version. Raises OSError or ValueError where nobody lets us in."""


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


def answers(url: str, greet: Greet) -> bool:
    """Whether the server at a URL lets us in."""
    try:
        greet(url)
    except (OSError, ValueError):
        return False
    return True


def version_at(variable: str, url: str, schemes: Sequence[str], server: str, greet: Greet) -> str:
    """Version of the server that a variable of the environment names; raises BadInput where it is no such server."""
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise BadInput(f"{variable} must start with {schemes[0]}://, got '{url.split('://')[0]}': correct or unset it")
    try:
        return greet(url)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise BadInput(f"{variable} must name a {server} that lets us in: {reason}: correct or unset it") from None
