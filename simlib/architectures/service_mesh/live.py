"""A service mesh, live: direct REST's applications as they are, each behind a sidecar that is configured here."""

from __future__ import annotations

import json
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from fastapi import FastAPI

from simlib.architectures.rest import steps
from simlib.architectures.rest.live import PARTS, PROGRAMS, READ_FROM, SCHEMA, accounting, shop
from simlib.architectures.service_mesh import certificates, control_plane
from simlib.architectures.twin import FURTHER, Side, main
from simlib.brokers import Part, Server
from simlib.brokers.envoy import envoy
from simlib.brokers.haproxy import haproxy
from simlib.brokers.processes import Program, free_port

BESIDE = ("sidecar",)
"""What stands beside each process."""
SIMULATED = ("retry_budget", "hedge_after", "backlog", "breaker", "breaker_lasts")
"""Parameters that the model alone has."""
__all__ = ["BESIDE", "FURTHER", "PARTS", "PROGRAMS", "READ_FROM", "SCHEMA", "SIMULATED", "beside"]
ATTEMPT = b"attempt"
"""The header in which the application says which of its attempts a request is."""
TRY = b"x-envoy-attempt-count"
"""The header in which Envoy says which of its tries a request is."""


@contextmanager
def beside(folder: Path, ports: Mapping[str, int], parameters: Mapping[str, Any]) -> Iterator[dict[str, Server]]:
    """A sidecar for each process, which knows that one and the other side's sidecars: Envoy from the control plane."""
    certificates.issue(folder, list(PROGRAMS))
    on_envoy = parameters["proxy"] == "envoy"
    inbound = {process: free_port() for process in ports}
    others = {
        process: [port for other, port in inbound.items() if side_of(other) == other_side(process)] for process in ports
    }
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    ).get_template("envoy.yaml" if on_envoy else "haproxy.cfg")
    with ExitStack() as stack:
        servers = {}
        if on_envoy:
            known = {str(folder / f"{process}.sidecar.endpoints.json"): ports for process, ports in others.items()}
            servers["control_plane"] = stack.enter_context(control(folder, parameters["push_interval"], known))
        for process, own in ports.items():
            outbound, name = free_port(), f"{process}.sidecar"
            config = template.render(
                p=parameters, folder=folder, name=name, side=side_of(process), other=other_side(process),
                own=own, inbound=inbound[process], outbound=outbound, others=others[process],
            )  # fmt: skip
            listens = outbound, inbound[process]
            servers[name] = stack.enter_context(
                envoy(name, folder, config, listens, parameters["workers"])
                if on_envoy
                else haproxy(name, folder, config, listens)
            )
        for process in ports if not on_envoy else ():
            take_in(
                folder / f"{process}.sidecar.sock", [f"{other_side(process)}{k + 1}" for k in range(len(ports) // 2)]
            )
        yield servers


def take_in(commands: Path, others: Sequence[str]) -> None:
    """Tell a HAProxy that the others are well: it leaves out those who did not listen yet when it began, until its next probe."""
    for name in others:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(commands))
            connection.sendall(f"set server other_side/{name} health up\n".encode())
            connection.recv(1024)


@contextmanager
def control(folder: Path, interval: float, sidecars: Mapping[str, list[int]]) -> Iterator[Server]:
    """The control plane, which has sent its first configuration."""
    name = "control_plane"
    config, log = folder / f"{name}.json", folder / f"{name}.log"
    config.write_text(json.dumps({"interval": interval, "sidecars": sidecars}), encoding="utf-8")
    command = [sys.executable, "-m", control_plane.__name__, str(config)]
    with Program("the control plane", command, log, lambda: all(Path(file).exists() for file in sidecars)) as program:
        yield Server(Part(name, version("simlib"), "simlib"), "", program)


def side_of(process: str) -> str:
    """The side that a process is of."""
    return process.partition(".")[0]


def other_side(process: str) -> str:
    """The side that a process calls."""
    (other,) = set(PROGRAMS) - {side_of(process)}
    return other


class Numbered:
    """ASGI middleware that gives each try of a sidecar a number of its own among those of all the application's attempts: the one
    that the sidecar tells, or, where it tells none, how many tries of the attempt have come here."""

    def __init__(self, app: Any, tries: int) -> None:
        self.app, self.tries = app, tries
        self.seen: Counter[tuple[str, bytes, bytes]] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if ATTEMPT in headers:
            attempt = headers[ATTEMPT]
            place = scope["path"], headers[b"idempotency-key"], attempt
            self.seen[place] += 1
            turn = int(headers.get(TRY, self.seen[place]))
            number = (int(attempt) - 1) * self.tries + min(turn, self.tries)
            scope = {**scope, "headers": list({**headers, ATTEMPT: str(number).encode()}.items())}
        await self.app(scope, receive, send)


def numbered(make: Callable[[Side], FastAPI]) -> Callable[[Side], FastAPI]:
    """The application of direct REST, with numbered tries."""

    def made(side: Side) -> FastAPI:
        app = make(side)
        app.add_middleware(Numbered, tries=side.config.parameters["proxy_retries"] + 1)
        return app

    return made


if __name__ == "__main__":
    main({"accounting": numbered(accounting), "shop": numbered(shop), **dict.fromkeys(FURTHER, steps.program)})
