"""Choreographed saga, live: each service tells the next that its step is done, or the one before that it is to be undone; the shop
hears of the end, and has all undone where it does not hear of it in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI

from simlib.architectures.message_queue.broker import Broker, Unroutable, broker_of
from simlib.architectures.saga.services import (
    PROGRAMS,
    SAGAS,
    Shop,
    Task,
    accept_updates,
    announce,
    answer_queries,
    answered,
    asked,
    program,
    undoing,
)
from simlib.architectures.twin import Order, Receipt, Side, main, service
from simlib.domain import COPY, RESERVE

PARTS = ("postgres",)
"""Real parts that this architecture stands on, besides the broker that its parameters name."""
READ_FROM = COPY
"""The store that answers queries."""
SCHEMA = SAGAS
SIMULATED: tuple[str, ...] = ()
"""Parameters that the model alone has."""
__all__ = ["PARTS", "PROGRAMS", "READ_FROM", "SCHEMA", "SIMULATED"]
BEGUN, COMPLETED, CANCELLED = "begun", "completed", "cancelled"
"""Where a saga is, as the shop knows; the last two are queues too, of those who tell it."""


def of_service(side: Side) -> FastAPI:
    """A service that tells the next one of its step, or the one before; accounting also tells the shop of each change of its
    stock."""
    broker = broker_of(side)

    async def done(step: str, task: Task, receipt: Receipt, heard: bool) -> None:
        if step == RESERVE and not receipt.refused:
            await announce(broker, task.order, receipt)
        if receipt.refused:
            await back(step, task, receipt)
        elif heard:
            after = [*task.order.steps, ""][[*task.order.steps].index(step) + 1]
            await tell(asked(after) if after else COMPLETED, task, receipt)

    async def undone(step: str, task: Task, receipt: Receipt, heard: bool) -> None:
        await back(step, task, receipt)

    async def back(step: str, task: Task, receipt: Receipt) -> None:
        before = ["", *task.order.steps][[*task.order.steps].index(step)]
        goes_on = before and side.config.parameters["compensation"]
        await tell(undoing(before) if goes_on else CANCELLED, task, receipt)

    async def tell(queue: str, task: Task, receipt: Receipt) -> None:
        await broker.publish(queue, task.order.message, queue, Task(order=task.order, before=receipt))

    app = program(side, broker, done, undone)
    if side.config.side == "accounting":
        accept_updates(app, side, broker)
    return app


class Waiting(Shop):
    """Begins the sagas, and waits for their ends."""

    def __init__(self, side: Side, broker: Broker) -> None:
        super().__init__(side)
        self.broker = broker
        self.ends: dict[int, asyncio.Future[str]] = {}
        self.locked: dict[int, asyncio.Lock] = {}

    async def start(self) -> None:
        """Go on with what was under way, and listen for ends."""
        for order, _, _ in await self.under_way([COMPLETED, CANCELLED], BEGUN):
            self.side.spawn(self.go_on(order))
        for queue in (COMPLETED, CANCELLED):
            await self.broker.consume(queue, partial(self.over, queue))

    async def saga(self, order: Order) -> bool | None:
        """The process of an order from its beginning; whether all of it is done, none where that is not known."""
        await self.begin(order, BEGUN)
        return await self.go_on(order)

    async def go_on(self, order: Order) -> bool | None:
        """Ask for the first step, and wait to hear of the end; have the last undone, and so all, where that takes too long."""
        first, *_, last = [*order.steps, *order.steps]
        lock = self.lock(order)
        await lock.acquire()
        self.locked[order.message] = lock
        end = self.ends[order.message] = asyncio.get_running_loop().create_future()
        await self.tell(asked(first), order)
        try:
            return await asyncio.wait_for(end, self.p["deadline"]) == COMPLETED
        except TimeoutError:
            if not self.p["compensation"]:
                self.unlock(order.message)
                return None
            await self.tell(undoing(last), order)
            return False
        finally:
            del self.ends[order.message]

    async def tell(self, queue: str, order: Order) -> None:
        with suppress(TimeoutError, Unroutable):
            await self.broker.publish(queue, order.message, queue, Task(order=order, before=Receipt(result="")))

    async def over(self, at: str, content: bytes, delivery: int) -> None:
        """The end of a saga, as a service tells it; where accounting gave units back, with the stock that it then had."""
        task = Task.model_validate_json(content)
        order, known = task.order, task.before
        restocked = at == CANCELLED and not known.refused
        await self.side.transact(
            order.message, "restock" if restocked else at, delivery, "SELECT end_saga(%s, %s, %s, %s, %s, %s, %s)",
            order.message, at, order.sku, known.level if restocked else -1, known.version, time.monotonic_ns(), delivery,
        )  # fmt: skip
        self.unlock(order.message)
        if (end := self.ends.get(order.message)) and not end.done():
            end.set_result(at)

    def unlock(self, message: int) -> None:
        """Let the next of the SKU go on, once."""
        if lock := self.locked.pop(message, None):
            lock.release()


def shop(side: Side) -> FastAPI:
    """The web shop: begins the sagas of its orders, and answers queries from its own copy, which accounting's updates keep."""
    broker = broker_of(side)
    waiting = Waiting(side, broker)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await broker.connect()
        await broker.consume("updates", waiting.level)
        await waiting.start()
        yield
        await broker.close()

    app = service(side, running)
    answer_queries(app, side)

    @app.post("/orders")
    async def order(order: Order) -> None:
        await answered(side, side.spawn(waiting.saga(order)))

    return app


if __name__ == "__main__":
    main({"accounting": of_service, "payment": of_service, "shipping": of_service, "shop": shop})
