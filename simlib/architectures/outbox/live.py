"""Transactional outbox, live: what a side has to tell is written in the transaction of the change, and a relay publishes it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException

from simlib.architectures import twin
from simlib.architectures.message_queue import live as message_queue
from simlib.architectures.message_queue import steps
from simlib.architectures.message_queue.broker import Broker, Handler, broker_of
from simlib.architectures.outbox.relay import Polling, Relay, Tailing
from simlib.architectures.twin import (
    FURTHER,
    Level,
    Order,
    Receipt,
    Side,
    Update,
    answer_queries,
    level_after,
    level_of,
    main,
    service,
)
from simlib.domain import COPY, RESERVE

PARTS, PROGRAMS, READ_FROM = message_queue.PARTS, message_queue.PROGRAMS, COPY
SCHEMA = twin.SCHEMA + Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
SIMULATED = ()
"""Parameters that the model alone has: none."""
UNDER_WAY = 256
"""More than a relay publishes between two polls."""
RELAYS: dict[str, type[Relay]] = {"polling": Polling, "log_tailing": Tailing}
UNKNOWN = Receipt(result="", level=0, version=0)
"""Stands for what only the transaction finds out."""


def running(
    side: Side, broker: Broker, tells: str, hears: str, handler: Handler
) -> Callable[[], AbstractAsyncContextManager[None]]:
    """What a side runs beside its requests: consumers of the queue that it `hears`, and a relay to the one that it `tells`."""

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        relay = RELAYS[side.config.parameters["publisher"]](side, broker, tells)

        async def pending() -> int:
            return await relay.waiting() + await broker.pending()

        await broker.connect()
        await relay.start()
        side.pending = pending
        await broker.consume(hears, handler)
        await steps.consume(side, broker)
        yield
        await relay.stop()
        await broker.close()

    return run


def accounting(side: Side) -> FastAPI:
    """The accounting program: tells of each change, and takes stock for the orders that come through the queue."""
    logged = tails(side)
    broker = broker_of(side)

    async def order(content: bytes, delivery: int) -> None:
        order = Order.model_validate_json(content)
        side.handle(order.message, order.handling, delivery)
        row = await side.transact(
            order.message, "take", delivery,
            "SELECT * FROM take_and_tell(%s, %s, %s, %s, %s, %s, %s, %s, %s) AS t (result, level, version, again)",
            order.message, order.sku, order.quantity, time.monotonic_ns(), delivery, side.once,
            order.refused(RESERVE, delivery), level_after(order, UNKNOWN).model_dump_json(), logged,
        )  # fmt: skip
        side.tell(order.message)
        await steps.ask_next(broker, RESERVE, order, delivery, Receipt(result=row.result, version=row.version))

    app = service(side, running(side, broker, "updates", "orders", order))

    @app.post("/updates")
    async def update(update: Update) -> None:
        await side.transact(
            update.message, "change", 1, "SELECT change_and_tell(%s, %s, %s, %s, %s, %s)",
            update.message, update.sku, update.change, time.monotonic_ns(),
            level_of(update, 0, 0).model_dump_json(), logged,
        )  # fmt: skip

    return app


def shop(side: Side) -> FastAPI:
    """The web shop: answers queries and promises units from its own copy, and tells of each promise."""
    logged = tails(side)

    async def level(content: bytes, delivery: int) -> None:
        level = Level.model_validate_json(content)
        side.handle(level.message, level.handling, delivery)
        await side.write(level, delivery)

    app = service(side, running(side, broker_of(side), "orders", "updates", level))
    answer_queries(app, side)

    @app.post("/orders")
    async def order(order: Order) -> None:
        row = await side.transact(
            order.message, "promise", 1, "SELECT promise_and_tell(%s, %s, %s, %s, %s) AS promised",
            order.message, order.sku, order.quantity, order.model_dump_json(), logged,
        )  # fmt: skip
        if not row.promised:
            raise HTTPException(409, "sold out")

    return app


def tails(side: Side) -> bool:
    """Whether the relay reads the database's log."""
    return bool(side.config.parameters["publisher"] == "log_tailing")


def chosen(relayed: Callable[[Side], FastAPI], dual: Callable[[Side], FastAPI]) -> Callable[[Side], FastAPI]:
    """The program with a relay, or the message queue's own, which publishes after its commit."""
    return lambda side: (dual if side.config.parameters["publisher"] == "dual_write" else relayed)(side)


if __name__ == "__main__":
    main({
        "accounting": chosen(accounting, message_queue.accounting), "shop": chosen(shop, message_queue.shop),
        **dict.fromkeys(FURTHER, steps.program),
    })  # fmt: skip
