"""Streaming, live: accounting and shop write to logs of Kafka, and read each other's as consumer groups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException

from simlib.architectures import twin
from simlib.architectures.steps import Onward, program
from simlib.architectures.streaming.log import Log, Place
from simlib.architectures.twin import (
    FURTHER,
    HandlingFailed,
    Level,
    Order,
    Query,
    Side,
    Update,
    level_after,
    level_of,
    main,
    service,
)
from simlib.domain import COPY, RESERVE, TAKEN

PARTS = ("postgres", "kafka")
"""Real parts that this architecture stands on."""
PROGRAMS = ("accounting", "shop", "windows")
"""Processes of its own that it runs as, each with a database."""
READ_FROM = COPY
"""The store that answers queries."""
SCHEMA = twin.SCHEMA + Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
SIMULATED = ("per_record", "rebalance", "state", "followers", "min_insync_replicas", "replica_lag")
"""Parameters that the model alone has."""


def programs(p: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of them that run with these parameters."""
    return PROGRAMS if p["window"] else PROGRAMS[:2]


def accounting(side: Side) -> FastAPI:
    """The accounting program: publishes each change, and takes stock for the orders that it reads."""
    onward = Onward(side)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with onward, reading(log):
            yield

    async def take(order: Order, place: Place, attempt: int) -> None:
        side.handle(order.message, order.handling, attempt)
        receipt, again = await side.take(order, attempt, order.refused(RESERVE, attempt))
        if receipt.result == TAKEN and not again:
            onward.begin(order, receipt.version, attempt)
        if receipt.result == TAKEN:
            await log.publish("updates", order.message, order.sku, level_after(order, receipt))
        if log.exactly_once:  # an order that is read again gets its first receipt, which is announced again
            await log.keep(order.message, place)

    log = Log(side, "orders", Order, take)
    app = service(side, running)

    @app.post("/updates")
    async def update(update: Update) -> None:
        level, version = await side.change(update)
        await confirmed(log.publish("updates", update.message, update.sku, level_of(update, level, version)))

    return app


def shop(side: Side) -> FastAPI:
    """The web shop: answers queries and promises units from its own copy, which the updates that it reads keep."""

    async def write(level: Level, place: Place, attempt: int) -> None:
        side.handle(level.message, level.handling, attempt)
        await side.write(level, attempt, log.position(place))

    log = Log(side, "updates", Level, write)
    app = service(side, lambda: reading(log))

    @app.post("/orders")
    async def order(order: Order) -> None:
        if not await side.promise(order):
            raise HTTPException(409, "sold out")
        await confirmed(log.publish("orders", order.message, order.sku, order))

    @app.post("/queries")
    async def query(query: Query) -> dict[str, int]:
        try:
            side.handle(query.message, query.handling, 1)
        except HandlingFailed as error:
            raise HTTPException(500) from error
        return await side.read(query)

    return app


def windows(side: Side) -> FastAPI:
    """The program that counts orders in windows; what it stands on is imported where it runs alone."""
    from simlib.architectures.streaming.windows import application

    return application(side)


@asynccontextmanager
async def reading(log: Log[Order] | Log[Level]) -> AsyncIterator[None]:
    """While the side runs, its group reads."""
    await log.begin()
    yield
    await log.end()


async def confirmed(publication: Awaitable[None]) -> None:
    """The answer to a caller whose message got no confirm: nobody knows whether it is in the log."""
    try:
        await publication
    except TimeoutError:
        raise HTTPException(504, "no confirm: the message may be in the log, or not") from None


if __name__ == "__main__":
    main({"accounting": accounting, "shop": shop, "windows": windows, **dict.fromkeys(FURTHER, program)})
