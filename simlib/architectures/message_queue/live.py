"""Message queue, live: accounting and shop talk through queues of a broker; each answers from its own store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from simlib.architectures.message_queue import steps
from simlib.architectures.message_queue.broker import Unroutable, broker_of, confirmed
from simlib.architectures.twin import (
    FURTHER,
    SCHEMA,
    Level,
    Order,
    Side,
    Update,
    answer_queries,
    level_after,
    level_of,
    main,
    service,
)
from simlib.domain import ANNOUNCED, COPIED, COPY, RESERVE, TAKEN

PARTS = ("postgres",)
"""Real parts that this architecture stands on, besides the broker that its parameters name."""
PROGRAMS = ("accounting", "shop")
"""Processes of its own that it runs as, each with a database."""
READ_FROM = COPY
"""The store that answers queries."""
SIMULATED = (
    "sharing", "orders_first", "at_limit", "max_length", "expire", "time_to_live", "group_commit", "unbound", "nodes",
    "between_nodes",
)  # fmt: skip
"""Parameters that the model alone has."""
__all__ = ["FURTHER", "PARTS", "PROGRAMS", "READ_FROM", "SCHEMA", "SIMULATED"]


class Reply(BaseModel):
    """What accounting tells a shop that waits: what became of the order."""

    message: int
    result: str


def accounting(side: Side) -> FastAPI:
    """The accounting program: publishes each change, and takes stock for the orders that come through the queue."""
    broker = broker_of(side)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await broker.connect()
        await broker.consume("orders", order)
        await steps.consume(side, broker)
        yield
        await broker.close()

    app = service(side, running)

    @app.post("/updates")
    async def update(update: Update) -> None:
        level, version = await side.change(update)
        await confirmed(broker.publish("updates", update.message, COPIED, level_of(update, level, version)))

    async def order(content: bytes, delivery: int) -> None:
        order = Order.model_validate_json(content)
        side.handle(order.message, order.handling, delivery)
        receipt, _ = await side.take(order, delivery, order.refused(RESERVE, delivery))
        if order.reply_to:
            await broker.reply(order.reply_to, Reply(message=order.message, result=receipt.result))
        if receipt.result == TAKEN:
            await broker.publish("updates", order.message, ANNOUNCED, level_after(order, receipt))
        await steps.ask_next(broker, RESERVE, order, delivery, receipt)

    return app


def shop(side: Side) -> FastAPI:
    """The web shop: answers queries and promises units from its own copy, which the updates in the queue keep."""
    broker = broker_of(side)
    replies: dict[int, asyncio.Future[str]] = {}
    inbox = ""

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        nonlocal inbox
        await broker.connect()
        await broker.consume("updates", level)
        inbox = await broker.replies(replied)
        yield
        await broker.close()

    app = service(side, running)
    answer_queries(app, side)

    @app.post("/orders")
    async def order(order: Order) -> None:
        if side.config.parameters.get("answered_on") == "reply":
            await replied_to(order)
            return
        if not await side.promise(order):
            raise HTTPException(409, "sold out")
        await confirmed(broker.publish("orders", order.message, TAKEN, order))

    async def replied_to(order: Order) -> None:
        reply = replies[order.message] = asyncio.get_running_loop().create_future()
        order.reply_to = inbox
        try:
            await broker.publish("orders", order.message, TAKEN, order, confirm=False)
            if await asyncio.wait_for(reply, side.config.parameters["confirm_timeout"]) != TAKEN:
                raise HTTPException(409, "sold out")
        except Unroutable:
            raise HTTPException(502, "no queue takes the order: it was handed back") from None
        except TimeoutError:
            raise HTTPException(504, "no reply: the order may be taken, or not") from None
        finally:
            del replies[order.message]

    async def replied(content: bytes) -> None:
        reply = Reply.model_validate_json(content)
        if (waiting := replies.get(reply.message)) and not waiting.done():
            waiting.set_result(reply.result)

    async def level(content: bytes, delivery: int) -> None:
        level = Level.model_validate_json(content)
        side.handle(level.message, level.handling, delivery)
        await side.write(level, delivery)

    return app


if __name__ == "__main__":
    main({"accounting": accounting, "shop": shop, **dict.fromkeys(FURTHER, steps.program)})
