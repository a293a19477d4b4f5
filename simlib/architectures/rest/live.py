"""REST, live: accounting and shop call each other's HTTP service and wait for the answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import aiohttp
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel

from simlib.architectures.twin import (
    SCHEMA,
    HandlingFailed,
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
from simlib.domain import STOCK, TAKEN

PARTS = ("postgres",)
"""Real parts that this architecture stands on."""
PROGRAMS = ("accounting", "shop")
"""Processes of its own that it runs as, each with a database."""
READ_FROM = STOCK
"""The store that answers queries."""
SIMULATED = ("retry_budget", "processes", "balancing", "backlog", "breaker", "breaker_lasts")
"""Parameters that the model alone has."""
__all__ = ["PARTS", "PROGRAMS", "READ_FROM", "SCHEMA", "SIMULATED"]
Attempt = Annotated[int, Header()]


class Client:
    """Calls the other side: a pool of connections, a timeout that abandons, retries with backoff and jitter.

    The number of the message is the key by which the server knows a request again (`idempotency`).
    aiohttp and not httpx: a call costs about a seventh of the CPU, which both sides share.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        p = side.config.parameters
        self.retries, self.backoff, self.jitter = int(p["retries"]), float(p["backoff"]), bool(p["jitter"])
        self.session = aiohttp.ClientSession(
            base_url=side.config.peer,
            connector=aiohttp.TCPConnector(limit=int(p["connections"]), keepalive_timeout=3600),
            timeout=aiohttp.ClientTimeout(total=float(p["timeout"])),
        )

    async def post(self, path: str, message: int, body: BaseModel) -> Any:
        """The answer; raises HTTPException 504 where an attempt may have succeeded unheard, 502 where all failed."""
        content, unheard = body.model_dump_json().encode(), False
        for attempt in range(1, self.retries + 2):
            if attempt > 1:
                await asyncio.sleep(self.backoff * 2 ** (attempt - 2) * (random.random() if self.jitter else 1.0))
            try:
                with self.side.trace.stage(message, "call", attempt):
                    return await self._once(path, content, attempt)
            except TimeoutError:
                unheard = True
            except (aiohttp.ClientConnectorError, aiohttp.ClientResponseError):
                continue
            except aiohttp.ClientError:
                unheard = True
        raise HTTPException(504 if unheard else 502)

    async def _once(self, path: str, content: bytes, attempt: int) -> Any:
        headers = {"Content-Type": "application/json", "Attempt": str(attempt)}
        async with self.session.post(path, data=content, headers=headers) as response:
            response.raise_for_status()
            return await response.json()


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
        receipt, again = await side.take(order, attempt)
        if receipt.result == TAKEN and not again:
            side.spawn(announce(order, receipt))
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

    return app


def shop(side: Side) -> FastAPI:
    """The web shop: asks accounting for every order and query, and writes what accounting tells it."""
    client: Client

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        nonlocal client
        client = Client(side)
        yield
        await client.session.close()

    app = service(side, running)

    @app.post("/levels")
    async def level(level: Level, attempt: Attempt) -> None:
        handle(side, level, attempt)
        await side.write(level, attempt)

    @app.post("/orders")
    async def order(order: Order) -> dict[str, Any]:
        receipt = await client.post("/orders", order.message, order)
        if receipt["result"] != TAKEN:
            raise HTTPException(409, "sold out")
        return receipt

    @app.post("/queries")
    async def query(query: Query) -> dict[str, int]:
        return await client.post("/queries", query.message, query)

    return app


def handle(side: Side, message: Order | Query | Level, attempt: int) -> None:
    """The handler's work; a failure is an error of the server to the caller."""
    try:
        side.handle(message.message, message.handling, attempt)
    except HandlingFailed as error:
        raise HTTPException(500) from error


if __name__ == "__main__":
    main({"accounting": accounting, "shop": shop})
