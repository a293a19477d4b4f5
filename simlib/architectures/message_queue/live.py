"""Message queue, live: accounting and shop talk through queues of NATS JetStream; each answers from its own store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import nats
import nats.errors
from fastapi import FastAPI, HTTPException
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError
from pydantic import BaseModel

from simlib.architectures.twin import (
    SCHEMA,
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
from simlib.domain import ANNOUNCED, COPIED, COPY, TAKEN

PARTS = ("postgres", "nats")
"""Real parts that this architecture stands on."""
READ_FROM = COPY
"""The store that answers queries."""
__all__ = ["PARTS", "READ_FROM", "SCHEMA"]
Handler = Callable[[bytes, int], Awaitable[None]]


class Reply(BaseModel):
    """What accounting tells a shop that waits: what became of the order."""

    message: int
    result: str


class Broker:
    """A side's publisher and consumers: confirms with retries, manual acknowledgements, redelivery, parking.

    What the limit of unacknowledged messages counts is JetStream's way: all consumers of a queue together.
    """

    def __init__(self, side: Side) -> None:
        self.side, self.p = side, side.config.parameters
        self.connection: Connection
        self.inbox: asyncio.Queue[Msg] = asyncio.Queue()
        self.consumers: list[asyncio.Task[None]] = []
        self.busy = 0
        side.pending = self.pending

    def name(self, queue: str) -> str:
        """The queue's name on a server that others may use too."""
        return f"{self.side.config.prefix}_{queue}"

    async def connect(self) -> None:
        """Connect, and make the queues where they are not there yet."""
        assert self.side.config.nats
        self.connection = await nats.connect(self.side.config.nats, max_reconnect_attempts=-1)
        self.jetstream = self.connection.jetstream()
        for queue in ("updates", "orders"):
            await self.jetstream.add_stream(
                StreamConfig(
                    name=self.name(queue), subjects=[self.name(queue)], duplicate_window=self.p["deduplication"]
                )
            )

    async def publish(self, queue: str, message: int, event: str, body: BaseModel, confirm: bool = True) -> None:
        """Publish, and wait for the confirm; again with the same id where it does not come, which JetStream drops then.

        Raises TimeoutError where no confirm came at all: the message may be in the queue, or not.
        """
        subject, content = self.name(queue), body.model_dump_json().encode()
        headers = {"Nats-Msg-Id": f"{message}-{event}"}
        if not (confirm and self.p["confirm"]):
            with self.side.trace.stage(message, "publish"):
                await self.connection.publish(subject, content, headers=headers)
            return
        for attempt in range(1, self.p["confirm_retries"] + 2):
            try:
                with self.side.trace.stage(message, "publish", attempt):
                    await self.jetstream.publish(subject, content, timeout=self.p["confirm_timeout"], headers=headers)
                return
            except nats.errors.TimeoutError:
                continue
        raise TimeoutError(f"no confirm of message {message}")

    async def consume(self, queue: str, handler: Handler) -> None:
        """Let `consumers` tasks compete for the messages of a queue; at most `prefetch` are here unacknowledged."""
        manual = self.p["manual_ack"]
        config = ConsumerConfig(
            ack_policy=AckPolicy.EXPLICIT if manual else AckPolicy.NONE,
            ack_wait=self.p["ack_wait"] if manual else None,
            max_deliver=self.p["max_deliveries"] if manual else None,
            max_ack_pending=self.p["prefetch"] if manual else None,
        )
        self.queue = self.name(queue)
        await self.jetstream.subscribe(
            self.queue, queue=self.queue, stream=self.queue, config=config, cb=self.inbox.put, manual_ack=True
        )
        self.consumers = [asyncio.create_task(self._compete(handler)) for _ in range(self.p["consumers"])]

    async def close(self) -> None:
        """Stop consuming, and leave nothing on a server that others may use too."""
        for consumer in self.consumers:
            consumer.cancel()
        with suppress(NotFoundError):  # the other side was faster
            for queue in ("updates", "orders"):
                await self.jetstream.delete_stream(self.name(queue))
        await self.connection.close()

    async def pending(self) -> int:
        """What is still in this side's queue or in its consumers' hands."""
        info = await self.jetstream.consumer_info(self.queue, self.queue)
        return (info.num_pending or 0) + (info.num_ack_pending or 0) + self.inbox.qsize() + self.busy

    async def _compete(self, handler: Handler) -> None:
        while True:
            delivery = await self.inbox.get()
            self.busy += 1
            try:
                await self._receive(delivery, handler)
            finally:
                self.busy -= 1

    async def _receive(self, delivery: Msg, handler: Handler) -> None:
        """Handle a delivery and acknowledge it after its effect; hand it back if that fails, and park it at last."""
        number = delivery.metadata.num_delivered
        message, _, event = (delivery.headers or {})["Nats-Msg-Id"].partition("-")
        with self.side.trace.stage(int(message), "delivery", number):
            try:
                await handler(delivery.data, number)
            except (HandlingFailed, TimeoutError):
                if not self.p["manual_ack"]:
                    return
                if number < self.p["max_deliveries"]:
                    await delivery.nak(delay=self.p["redelivery_delay"])
                    return
                if self.p["park"]:
                    await self.side.park(int(message), event, number)
                await delivery.term()
            else:
                if self.p["manual_ack"]:
                    await delivery.ack()


def accounting(side: Side) -> FastAPI:
    """The accounting program: publishes each change, and takes stock for the orders that come through the queue."""
    broker = Broker(side)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await broker.connect()
        await broker.consume("orders", order)
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
        receipt, _ = await side.take(order, delivery)
        if order.reply_to:
            await broker.connection.publish(
                order.reply_to, Reply(message=order.message, result=receipt.result).model_dump_json().encode()
            )
        if receipt.result == TAKEN:
            await broker.publish("updates", order.message, ANNOUNCED, level_after(order, receipt))

    return app


def shop(side: Side) -> FastAPI:
    """The web shop: answers queries and promises units from its own copy, which the updates in the queue keep."""
    broker = Broker(side)
    replies: dict[int, asyncio.Future[str]] = {}
    inbox = ""

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        nonlocal inbox
        await broker.connect()
        await broker.consume("updates", level)
        inbox = broker.connection.new_inbox()
        await broker.connection.subscribe(inbox, cb=replied)
        yield
        await broker.close()

    app = service(side, running)

    @app.post("/orders")
    async def order(order: Order) -> None:
        if side.config.parameters["answered_on"] == "reply":
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
        except TimeoutError:
            raise HTTPException(504, "no reply: the order may be taken, or not") from None
        finally:
            del replies[order.message]

    async def replied(delivery: Msg) -> None:
        reply = Reply.model_validate_json(delivery.data)
        if (waiting := replies.get(reply.message)) and not waiting.done():
            waiting.set_result(reply.result)

    @app.post("/queries")
    async def query(query: Query) -> dict[str, int]:
        try:
            side.handle(query.message, query.handling, 1)
        except HandlingFailed as error:
            raise HTTPException(500) from error
        return await side.read(query)

    async def level(content: bytes, delivery: int) -> None:
        level = Level.model_validate_json(content)
        side.handle(level.message, level.handling, delivery)
        await side.write(level, delivery)

    return app


async def confirmed(publication: Awaitable[None]) -> None:
    """The answer to a caller whose message got no confirm: nobody knows whether it is in the queue."""
    try:
        await publication
    except TimeoutError:
        raise HTTPException(504, "no confirm: the message may be in the queue, or not") from None


if __name__ == "__main__":
    main({"accounting": accounting, "shop": shop})
