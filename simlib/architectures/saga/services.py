"""What both styles of saga share live: services that do and undo their steps, and the shop's own goods, locks and memory.

What a service does when its step is done, refused or undone is the style's own.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from simlib.architectures.message_queue.broker import Broker, confirmed
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
    service,
)
from simlib.domain import ANNOUNCED, COPIED, DONE_AT, RESERVE

STEPS = tuple(DONE_AT)
PROGRAMS = ("accounting", "payment", "shipping", "shop")
SAGAS = SCHEMA + Path(__file__).with_name("sagas.sql").read_text(encoding="utf-8")
"""Tables and functions of every program's database."""


class Task(BaseModel):
    """What a service is asked: to do its step of an order, or to undo it; and what was known before."""

    order: Order
    before: Receipt
    reply_to: str = ""


Then = Callable[[str, Task, Receipt, bool], Awaitable[None]]
"""What follows when a step came to a result: by its name, what was asked, the result, and whether anybody is to hear of it."""


def asked(step: str) -> str:
    """The queue of a step."""
    return "orders" if step == RESERVE else step


def undoing(step: str) -> str:
    """The queue of the undoing of a step, and what the shop calls a saga that is at it."""
    return f"{step}_undo"


def program(side: Side, broker: Broker, done: Then, undone: Then) -> FastAPI:
    """A service that does its steps of orders, and undoes them, as it is asked through the queues of each."""

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await broker.connect()
        for step in STEPS:
            if DONE_AT[step] == side.config.side:
                await broker.consume(asked(step), partial(do, step))
                await broker.consume(undoing(step), partial(undo, step))
        yield
        await broker.close()

    async def do(step: str, content: bytes, delivery: int) -> None:
        task = Task.model_validate_json(content)
        side.handle(task.order.message, task.order.steps[step].handling, delivery)
        receipt = await side.do(step, task.order, delivery, task.before.version)
        heard = receipt.refused or not task.order.unheard(step, delivery)
        await done(step, task, receipt, heard)

    async def undo(step: str, content: bytes, delivery: int) -> None:
        task = Task.model_validate_json(content)
        side.handle(task.order.message, task.order.steps[step].undoing, delivery)
        await undone(step, task, await side.undo(step, task.order, delivery, task.before.version), True)

    return service(side, running)


def accept_updates(app: FastAPI, side: Side, broker: Broker) -> None:
    """Accounting changes its stock, and publishes that."""

    @app.post("/updates")
    async def update(update: Update) -> None:
        level, version = await side.change(update)
        await confirmed(broker.publish("updates", update.message, COPIED, level_of(update, level, version)))


async def announce(broker: Broker, order: Order, receipt: Receipt) -> None:
    """Accounting tells the shop what an order left."""
    await broker.publish("updates", order.message, ANNOUNCED, level_after(order, receipt))


def answer_queries(app: FastAPI, side: Side) -> None:
    """The shop answers from its copy."""

    @app.post("/queries")
    async def query(query: Query) -> dict[str, int]:
        try:
            side.handle(query.message, query.handling, 1)
        except HandlingFailed as error:
            raise HTTPException(500) from error
        return await side.read(query)


async def answered(side: Side, saga: asyncio.Task[bool | None]) -> None:
    """The customer's answer: what the saga came to, where that is known; it goes on where the customer waits no longer."""
    done, _ = await asyncio.wait([saga], timeout=side.config.parameters["answer_timeout"])
    ended = saga.result() if done else None
    if ended is None:
        raise HTTPException(504, "the order may be carried out, or not")
    if not ended:
        raise HTTPException(409, "refused, and undone as far as it was done")


class Shop:
    """The shop's side of every saga: its copy of the goods, a lock for each SKU, and what it writes down of its sagas."""

    def __init__(self, side: Side) -> None:
        self.side, self.p = side, side.config.parameters
        self.locks: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def level(self, content: bytes, delivery: int) -> None:
        """Write what accounting tells."""
        level = Level.model_validate_json(content)
        self.side.handle(level.message, level.handling, delivery)
        await self.side.write(level, delivery)

    def lock(self, order: Order) -> asyncio.Lock:
        """The lock of the order's SKU, which all who wait for it get in turn; one of its own where there is nothing to lock."""
        return self.locks[order.sku] if self.p["semantic_locks"] and len(order.steps) > 1 else asyncio.Lock()

    async def begin(self, order: Order, at: str) -> None:
        """Write down that a saga begins."""
        if self.p["durable_state"]:
            await self.side.transact(
                order.message, "remember", 1, "INSERT INTO sagas VALUES (%s, %s, %s) RETURNING true",
                order.message, order.model_dump_json(), at,
            )  # fmt: skip

    async def remember(self, order: Order, at: str, known: Receipt) -> None:
        """Write down how far a saga is."""
        if self.p["durable_state"]:
            await self.side.transact(
                order.message, "remember", 1,
                "UPDATE sagas SET at = %s, level = %s, version = %s WHERE message = %s RETURNING true",
                at, known.level, known.version, order.message,
            )  # fmt: skip

    async def under_way(self, over: Sequence[str], first: str) -> list[tuple[Order, str, Receipt]]:
        """The sagas that are not `over`, where they are, and the stock that they know: before others those that are beyond the
        `first` place, as they have their locks; else in the order in which they began."""
        async with self.side.database.connection() as connection:
            found = await connection.execute(
                "SELECT content, at, level, version FROM sagas WHERE at <> ALL(%s) ORDER BY at = %s, nth",
                (list(over), first),
            )
            return [
                (Order.model_validate_json(content), at, Receipt(result="", level=level, version=version))
                for content, at, level, version in await found.fetchall()
            ]
