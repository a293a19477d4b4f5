"""REST, live: accounting and shop call each other's HTTP service and wait for the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException

from simlib.architectures.calls import Attempt, Client, handle
from simlib.architectures.rest import steps
from simlib.architectures.twin import (
    FURTHER,
    REJECTED,
    SCHEMA,
    Level,
    Order,
    Query,
    Receipt,
    Side,
    Update,
    level_after,
    level_of,
    main,
    service,
)
from simlib.domain import RESERVE, STOCK, TAKEN

PARTS = ("postgres",)
"""Real parts that this architecture stands on."""
PROGRAMS = ("accounting", "shop")
"""Processes of its own that it runs as, each with a database."""
READ_FROM = STOCK
"""The store that answers queries."""
SIMULATED = ("retry_budget", "hedge_after", "processes", "balancing", "backlog", "breaker", "breaker_lasts")
"""Parameters that the model alone has."""
__all__ = ["FURTHER", "PARTS", "PROGRAMS", "READ_FROM", "SCHEMA", "SIMULATED"]


def accounting(side: Side) -> FastAPI:
    """The accounting program: tells the shop of each change, takes stock for orders, answers queries."""
    client: Client

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        nonlocal client
        client = Client(side)
        yield
        await client.session.close()

    app = service(side, running)

    @app.post("/updates")
    async def update(update: Update) -> None:
        level, version = await side.change(update)
        await client.post("/levels", update.message, level_of(update, level, version))

    @app.post("/orders")
    async def order(order: Order, attempt: Attempt) -> Receipt:
        handle(side, order, attempt)
        receipt, again = await side.take(order, attempt, order.refused(RESERVE, attempt))
        if receipt.result == TAKEN and not again:
            side.spawn(announce(order, receipt))
        await steps.late_if_unheard(side, RESERVE, order, attempt, receipt)
        return receipt

    async def announce(order: Order, receipt: Receipt) -> None:
        try:
            await client.post("/levels", order.message, level_after(order, receipt))
        except HTTPException:
            pass  # the shop learns of it with the next change of this SKU

    @app.post("/queries")
    async def query(query: Query, attempt: Attempt) -> dict[str, int]:
        handle(side, query, attempt)
        return await side.read(query, attempt)

    steps.accept(app, side)
    return app


def shop(side: Side) -> FastAPI:
    """The web shop: asks accounting for every order and query, and writes what accounting tells it."""
    client: Client
    onward: steps.Onward

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        nonlocal client, onward
        client = Client(side)
        onward = steps.Onward(side, client)
        yield
        await onward.close()
        await client.session.close()

    app = service(side, running)

    @app.post("/levels")
    async def level(level: Level, attempt: Attempt) -> None:
        handle(side, level, attempt)
        await side.write(level, attempt)

    @app.post("/orders")
    async def order(order: Order) -> dict[str, Any]:
        receipt = await onward.go(order, await client.post("/orders", order.message, order))
        if receipt["result"] == REJECTED:
            raise HTTPException(409, "sold out, or refused by a further step")
        return receipt

    @app.post("/queries")
    async def query(query: Query) -> dict[str, int]:
        return await client.post("/queries", query.message, query)

    return app


if __name__ == "__main__":
    main({"accounting": accounting, "shop": shop, **dict.fromkeys(FURTHER, steps.program)})
