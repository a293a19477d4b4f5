"""A service mesh, live: direct REST's applications as they are, each behind a sidecar that is configured here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jinja2
from fastapi import FastAPI

from simlib.architectures.rest.live import PARTS, PROGRAMS, READ_FROM, SCHEMA, accounting, shop
from simlib.architectures.service_mesh import certificates
from simlib.architectures.twin import Side, main
from simlib.brokers import Server
from simlib.brokers.envoy import envoy
from simlib.brokers.processes import free_port

BESIDE = ("sidecar",)
"""What stands beside each process."""
SIMULATED = ("retry_budget", "backlog", "breaker", "breaker_lasts", "push_interval")
"""Parameters that the model alone has."""
__all__ = ["BESIDE", "PARTS", "PROGRAMS", "READ_FROM", "SCHEMA", "SIMULATED", "beside"]
TRY = b"x-envoy-attempt-count"
"""The header in which a sidecar says which of its tries a request is."""


@contextmanager
def beside(folder: Path, ports: Mapping[str, int], parameters: Mapping[str, Any]) -> Iterator[dict[str, Server]]:
    """A sidecar for each process, which knows that one and those of the other side's sidecars."""
    certificates.issue(folder, list(PROGRAMS))
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, undefined=jinja2.StrictUndefined
    ).get_template("envoy.yaml")
    inbound = {process: free_port() for process in ports}
    with ExitStack() as stack:
        sidecars = {}
        for process, own in ports.items():
            side = process.partition(".")[0]
            (other,) = set(PROGRAMS) - {side}
            outbound = free_port()
            config = template.render(
                p=parameters, folder=folder, side=side, other=other, own=own, inbound=inbound[process], outbound=outbound,
                others=[port for name, port in inbound.items() if name.partition(".")[0] == other],
            )  # fmt: skip
            name, listens = f"{process}.sidecar", (outbound, inbound[process])
            sidecars[name] = stack.enter_context(envoy(name, folder, config, listens, parameters["workers"]))
        yield sidecars


class Numbered:
    """ASGI middleware that gives each try of a sidecar a number of its own among those of all the application's attempts."""

    def __init__(self, app: Any, tries: int) -> None:
        self.app, self.tries = app, tries

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if TRY in headers:
            number = (int(headers[b"attempt"]) - 1) * self.tries + int(headers[TRY])
            scope = {**scope, "headers": list({**headers, b"attempt": str(number).encode()}.items())}
        await self.app(scope, receive, send)


def numbered(make: Callable[[Side], FastAPI]) -> Callable[[Side], FastAPI]:
    """The application of direct REST, with numbered tries."""

    def made(side: Side) -> FastAPI:
        app = make(side)
        app.add_middleware(Numbered, tries=side.config.parameters["proxy_retries"] + 1)
        return app

    return made


if __name__ == "__main__":
    main({"accounting": numbered(accounting), "shop": numbered(shop)})
