"""Brokers of a user's own: each has a name, which its measurements and calibrations are kept under, and is of a kind."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from simlib import paths
from simlib.brokers import address
from simlib.errors import BadInput
from simlib.reading import Frozen, read_model

WAYS = 200
"""Connections that are opened to see how long the way to a broker is."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


class Own(Frozen):
    """A broker of the user's own."""

    kind: str
    """Whose semantics it has."""
    at: str | None = None
    """Its host and port; None for one of which only a file of latencies is known."""


def kind(name: str) -> str:
    """The kind of a broker of the user's own; any other name is that of a kind itself. Raises BadInput for a broken file."""
    return read_model(Own, _file(name), "a broker").kind if name in names() else name


def names(kind: str | None = None) -> list[str]:
    """The brokers of the user's own, all or those of a kind."""
    found = sorted(file.stem for file in paths.BROKERS.glob("*.yaml"))
    return [name for name in found if kind in (None, read_model(Own, _file(name), "a broker").kind)]


def keep(name: str, own: Own) -> None:
    """Keep what a name stands for; raises BadInput for a name that cannot be, or that stands for another broker."""
    if not _NAME.fullmatch(name) or name in _kinds():
        raise BadInput(
            f"a broker of your own must have a name of lower-case letters, digits, - and _, and not that of a kind, got '{name}':"
            " choose another"
        )
    if name in names() and (known := read_model(Own, _file(name), "a broker")) != own:
        raise BadInput(f"'{name}' is the {known.kind} {_where(known)}: choose another name, or remove {_file(name)}")
    paths.writable(paths.BROKERS)
    paths.BROKERS.mkdir(parents=True, exist_ok=True)
    at = f"at: {own.at}\n" if own.at else ""
    _file(name).write_text(f"# A broker of your own.\nkind: {own.kind}\n{at}", encoding="utf-8")


def at(url: str) -> Own:
    """The broker at a URL, which lets us in; raises BadInput where it does not, or is of no kind that is known."""
    scheme = url.split("://")[0]
    for name, module in _kinds().items():
        if scheme in module.SCHEMES and "://" in url:
            module.version(url, "--url")
            return Own(kind=name, at=_address(url))
    known = " or ".join(f"{scheme}://" for module in _kinds().values() for scheme in module.SCHEMES)
    raise BadInput(f"--url must start with {known}, got '{scheme}': correct it")


@contextmanager
def standing(url: str) -> Iterator[None]:
    """For as long as the block lasts, the broker at a URL is the one of its kind that live runs use."""
    variable = _kinds()[at(url).kind].URL
    before = os.environ.get(variable)
    os.environ[variable] = url
    try:
        yield
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before


def require(name: str) -> str | None:
    """The URL of a broker of the user's own, None where the name is that of a kind; raises BadInput where the environment names
    none, or another one."""
    if name not in names():
        return None
    known = read_model(Own, _file(name), "a broker")
    variable = _kinds()[known.kind].URL
    url = os.environ.get(variable)
    if known.at is None or url is None or _address(url) != known.at:
        raise BadInput(f"'{name}' is the {known.kind} {_where(known)}: give its --url, or name it in {variable}")
    return url


def ways(url: str) -> list[float]:
    """How long the way to a broker is, s: half the time that a connection takes to open, which is there and back (RFC 9293,
    3.5). Raises BadInput where it does not open."""
    found = []
    for _ in range(WAYS):
        begun = time.perf_counter()
        try:
            with socket.create_connection(address(url), timeout=5):
                found.append((time.perf_counter() - begun) / 2)
        except OSError as error:
            raise BadInput(
                f"{_address(url)} must let us connect, but did not ({error}): is the broker there?"
            ) from None
    return found


def _kinds() -> dict[str, ModuleType]:
    """The modules of the brokers that there are, by kind."""
    from simlib.brokers import kafka, nats, rabbitmq

    return {"nats": nats, "rabbitmq": rabbitmq, "kafka": kafka}


def _address(url: str) -> str:
    host, port = address(url)
    return f"{host}:{port}"


def _where(own: Own) -> str:
    return f"at {own.at}" if own.at else "of a file of latencies, and cannot be run live"


def _file(name: str) -> Path:
    return paths.BROKERS / f"{name}.yaml"
