"""Find or start the real parts: a server that the environment names, or a binary on the PATH or in a Python package."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

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

    def gone(self) -> str | None:
        """Why it does not answer any more; None where it does."""
        if self.program is not None:
            ended = self.program.process.poll()
            return None if ended is None else f"it ended with status {ended}"
        try:
            with socket.create_connection(address(self.url), timeout=5):
                return None
        except OSError as error:
            return str(error)

    @property
    def pid(self) -> int | None:
        """The id of its process, None where it is not ours."""
        return self.program.process.pid if self.program else None

    @cached_property
    def _listening(self) -> int | None:
        """The id of the process that listens where it answers, where that is on this machine and the system tells."""
        host, port = address(self.url)
        if not host.startswith("127.") and host not in ("localhost", "::1"):
            return None
        with suppress(psutil.Error, OSError):
            for one in psutil.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
                    return one.pid
        return None

    def processes(self) -> list[psutil.Process]:
        """The server's own process and its children; none where it is not ours, and nobody tells which it is."""
        pid = self.pid or self._listening
        if pid is None:
            return []
        try:
            main = psutil.Process(pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


PORTS = {"nats": 4222, "amqp": 5672, "kafka": 9092, "redis": 6379, "postgresql": 5432, "postgres": 5432}
"""Where servers listen whose URL names no port, by its scheme."""


def address(url: str) -> tuple[str, int]:
    """Host and port at a URL."""
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or PORTS[parts.scheme]


def answers(url: str, greet: Greet) -> bool:
    """Whether the server at a URL lets us in."""
    try:
        greet(url)
    except (OSError, ValueError):
        return False
    return True


def version_at(
    named: str, url: str, schemes: Sequence[str], server: str, greet: Greet, oldest: tuple[int, ...] = ()
) -> str:
    """Version of the server that a variable of the environment or an option names; raises BadInput where it is no such server,
    or is older than the oldest of use."""
    remedy = "correct it" if named.startswith("--") else "correct or unset it"
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise BadInput(f"{named} must start with {schemes[0]}://, got '{url.split('://')[0]}': {remedy}")
    try:
        version = greet(url)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise BadInput(f"{named} must name a {server} that lets us in: {reason}: {remedy}") from None
    if (numbers := tuple(map(int, re.findall(r"\d+", version)[: len(oldest)]))) and numbers < oldest:
        least = ".".join(map(str, oldest))
        raise BadInput(f"{named} must name a {server} of version {least} or newer, got {version}: name another")
    return version
