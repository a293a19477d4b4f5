"""Message queue, live, where orders go through several steps: each service asks for the next through a queue of its own, and nobody
undoes anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

from fastapi import FastAPI
from pydantic import BaseModel

from simlib.architectures.message_queue.broker import Broker, broker_of
from simlib.architectures.twin import FURTHER, Order, Receipt, Side, service
from simlib.domain import CONFIRM, DONE_AT, DONE_BY, PAY, SHIP

STEPS = (PAY, SHIP, CONFIRM)
"""Further steps of orders, and the queues through which they are asked for."""


class Asked(BaseModel):
    """A further step of an order; the version is of the stock that the order took."""

    order: Order
    version: int


def program(side: Side) -> FastAPI:
    """A program that does a further step of orders, and nothing else."""
    broker = broker_of(side)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await broker.connect()
        await consume(side, broker)
        yield
        await broker.close()

    return service(side, running)


async def consume(side: Side, broker: Broker) -> None:
    """Let a program do its further steps of orders, where there are programs for all of them."""

    async def do(step: str, content: bytes, delivery: int) -> None:
        asked = Asked.model_validate_json(content)
        side.handle(asked.order.message, asked.order.steps[step].handling, delivery)
        receipt = await side.do(step, asked.order, delivery, asked.version)
        await ask_next(broker, step, asked.order, delivery, receipt)

    for step in STEPS if set(FURTHER) <= side.config.ports.keys() else ():
        if DONE_AT[step] == side.config.side:
            await broker.consume(step, partial(do, step))


async def ask_next(broker: Broker, done: str, order: Order, delivery: int, receipt: Receipt) -> None:
    """Ask for the step after one that was done, where anybody is to hear of that."""
    after = dict(pairwise(order.sequence)).get(done)
    if after and not receipt.refused and not order.unheard(done, delivery):
        await broker.publish(after, order.message, DONE_BY[after][0], Asked(order=order, version=receipt.version))
