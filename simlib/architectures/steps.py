"""The further steps of orders, live, where accounting hears of orders by what the pattern is about: it then calls one service after
the other, once each, and nobody undoes anything."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Self

import aiohttp
from fastapi import FastAPI, HTTPException

from simlib.architectures.calls import Attempt, handle
from simlib.architectures.twin import FURTHER, HandlingFailed, Order, Receipt, Side, service
from simlib.domain import DONE_AT, GIVEN_UP

KEPT_ALIVE = 3.0
"""How long an idle connection is kept, s: the services close theirs after 5 s."""


def program(side: Side) -> FastAPI:
    """A program that does a further step of orders, and nothing else."""
    app = service(side, nullcontext)

    @app.post("/steps/{step}")
    async def do(step: str, version: int, order: Order, attempt: Attempt) -> Receipt:
        handle(side, order, attempt, order.steps[step].handling)
        receipt = await side.do(step, order, attempt, version)
        if not receipt.refused and order.unheard(step, attempt):
            raise HTTPException(504, "done, and nobody is to hear of it")
        return receipt

    return app


class Onward:
    """What accounting does for an order beyond taking its units: in the background, as far as each step is heard to be done. It is
    entered while the side runs."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        self.sessions = {
            program: aiohttp.ClientSession(
                base_url=self.side.config.address(program),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_ALIVE),
                timeout=aiohttp.ClientTimeout(total=GIVEN_UP),
                raise_for_status=True,
            )
            for program in FURTHER
            if program in self.side.config.ports
        }
        return self

    def begin(self, order: Order, version: int, attempt: int) -> None:
        """Go on with an order whose units were just taken, which made a version of the stock."""
        if order.steps:
            self.side.spawn(self._go(order, version, attempt))

    async def _go(self, order: Order, version: int, attempt: int) -> None:
        for step in order.sequence[1:]:
            try:
                receipt = await self._do(step, order, version, attempt)
            except (HandlingFailed, TimeoutError, aiohttp.ClientError):
                return
            if receipt.refused:
                return

    async def _do(self, step: str, order: Order, version: int, attempt: int) -> Receipt:
        """A step: here, or at the service that does it."""
        there = self.sessions.get(DONE_AT[step])
        if there is None:
            self.side.handle(order.message, order.steps[step].handling, attempt)
            return await self.side.do(step, order, attempt, version)
        headers = {"Content-Type": "application/json", "Attempt": str(attempt)}
        content = order.model_dump_json().encode()
        async with there.post(f"/steps/{step}?version={version}", data=content, headers=headers) as answer:
            return Receipt.model_validate(await answer.json())

    async def __aexit__(self, *_: object) -> None:
        for session in self.sessions.values():
            await session.close()
