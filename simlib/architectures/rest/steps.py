"""Direct REST, live, where orders go through several steps: the shop asks one service after the other; nobody undoes anything."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

from fastapi import FastAPI

from simlib.architectures.calls import Attempt, Client, handle
from simlib.architectures.twin import FURTHER, REJECTED, Order, Receipt, Side, service
from simlib.domain import DONE_AT


def program(side: Side) -> FastAPI:
    """A program that does a further step of orders, and nothing else."""
    app = service(side, nullcontext)
    accept(app, side)
    return app


def accept(app: FastAPI, side: Side) -> None:
    """Let a program do further steps of orders."""

    @app.post("/steps/{step}")
    async def do(step: str, version: int, order: Order, attempt: Attempt) -> Receipt:
        handle(side, order, attempt, order.steps[step].handling)
        receipt = await side.do(step, order, attempt, version)
        await late_if_unheard(side, step, order, attempt, receipt)
        return receipt


async def late_if_unheard(side: Side, step: str, order: Order, attempt: int, receipt: Receipt) -> None:
    """Where nobody is to hear that a step is done, its answer is late for whoever asked."""
    if not receipt.refused and order.unheard(step, attempt):
        await asyncio.sleep(side.config.parameters["timeout"])


class Onward:
    """The shop's calls for the further steps of an order, as long as none is refused."""

    def __init__(self, side: Side, accounting: Client) -> None:
        self.others = {program: Client(side, program) for program in FURTHER if program in side.config.ports}
        self.clients = {"accounting": accounting, **self.others}

    async def go(self, order: Order, receipt: dict[str, Any]) -> dict[str, Any]:
        """The receipt of the last step that was asked for, from that of the first."""
        for step in order.sequence[1:]:
            if receipt["result"] != REJECTED:
                way = f"/steps/{step}?version={receipt['version']}"
                receipt = await self.clients[DONE_AT[step]].post(way, order.message, order)
        return receipt

    async def close(self) -> None:
        """Leave the connections."""
        for client in self.others.values():
            await client.session.close()
