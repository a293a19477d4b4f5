"""Orchestrated saga, live: the shop asks one service after the other through a queue, and where one says no, all before it to
undo; what it writes down of each saga in its database lets it go on with them after it was killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

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
OVER = "over"
"""Where a saga is of which nothing is left to do."""


class Reply(BaseModel):
    """What a service answers: whom, to what, and what its step came to."""

    message: int
    queue: str
    receipt: Receipt


def of_service(side: Side) -> FastAPI:
    """A service that answers whoever asked; accounting also tells the shop of each change of its stock."""
    broker = broker_of(side)

    async def done(step: str, task: Task, receipt: Receipt, heard: bool) -> None:
        if heard:
            await answer(asked(step), task, receipt)
        if step == RESERVE and not receipt.refused:
            await announce(broker, task.order, receipt)

    async def undone(step: str, task: Task, receipt: Receipt, heard: bool) -> None:
        await answer(undoing(step), task, receipt)

    async def answer(queue: str, task: Task, receipt: Receipt) -> None:
        await broker.reply(task.reply_to, Reply(message=task.order.message, queue=queue, receipt=receipt))

    app = program(side, broker, done, undone)
    if side.config.side == "accounting":
        accept_updates(app, side, broker)
    return app


class Orchestrator(Shop):
    """Leads each order through its steps, and back."""

    def __init__(self, side: Side, broker: Broker) -> None:
        super().__init__(side)
        self.broker, self.inbox = broker, ""
        self.waiting: dict[tuple[int, str], asyncio.Future[Receipt]] = {}

    async def start(self) -> None:
        """Listen for answers, and go on with what was under way."""
        self.inbox = await self.broker.replies(self.replied)
        for order, at, known in await self.under_way([OVER], RESERVE):
            self.side.spawn(self.go_on(order, at, known))

    async def saga(self, order: Order) -> bool | None:
        """The process of an order from its beginning; whether all of it is done."""
        first = next(iter(order.steps))
        await self.begin(order, first)
        return await self.go_on(order, first, Receipt(result=""))

    async def go_on(self, order: Order, at: str, known: Receipt) -> bool:
        """The process from where it was written down to be; whether all of it is done."""
        steps = list(order.steps)
        async with self.lock(order):
            if at in steps:
                done, tried, known = await self.forward(order, at, known)
            else:
                done, tried = False, steps[: [*map(undoing, steps)].index(at) + 1]
            if not done and self.p["compensation"]:
                await self.back(order, tried, known)
            await self.remember(order, OVER, known)
        return done

    async def forward(self, order: Order, at: str, known: Receipt) -> tuple[bool, list[str], Receipt]:
        """Step by step: whether all are done, those that may be, and what is known of the stock."""
        steps = list(order.steps)
        tried = steps[: steps.index(at)]
        for step in steps[len(tried) :]:
            if step != at:
                await self.remember(order, step, known)
            answer = await self.ask(asked(step), order, known)
            if answer and answer.refused:
                return False, tried, known
            tried.append(step)
            if not answer:
                return False, tried, known
            known = answer
        return True, tried, known

    async def back(self, order: Order, tried: list[str], known: Receipt) -> None:
        """Have each step undone, the last first; asked for again where nobody answers."""
        for step in reversed(tried):
            await self.remember(order, undoing(step), known)
            for _ in range(self.p["undo_retries"] + 1):
                if answer := await self.ask(undoing(step), order, known):
                    break
            if step == RESERVE and answer and not answer.refused:
                await self.side.restock(order, answer)

    async def ask(self, queue: str, order: Order, known: Receipt) -> Receipt | None:
        """What the service that reads a queue answers; none where it does not in time."""
        key = order.message, queue
        answer = self.waiting[key] = asyncio.get_running_loop().create_future()
        task = Task(order=order, before=known, reply_to=self.inbox)
        try:
            await self.broker.publish(queue, order.message, queue, task, confirm=False)
            return await asyncio.wait_for(answer, self.p["step_timeout"])
        except (TimeoutError, Unroutable):
            return None
        finally:
            del self.waiting[key]

    async def replied(self, content: bytes) -> None:
        reply = Reply.model_validate_json(content)
        if (waiting := self.waiting.get((reply.message, reply.queue))) and not waiting.done():
            waiting.set_result(reply.receipt)


def shop(side: Side) -> FastAPI:
    """The web shop: conducts the sagas of its orders, and answers queries from its own copy, which accounting's updates keep."""
    broker = broker_of(side)
    orchestrator = Orchestrator(side, broker)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await broker.connect()
        await broker.consume("updates", orchestrator.level)
        await orchestrator.start()
        yield
        await broker.close()

    app = service(side, running)
    answer_queries(app, side)

    @app.post("/orders")
    async def order(order: Order) -> None:
        await answered(side, side.spawn(orchestrator.saga(order)))

    return app


if __name__ == "__main__":
    main({"accounting": of_service, "payment": of_service, "shipping": of_service, "shop": shop})
