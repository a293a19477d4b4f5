"""The message queue on NATS JetStream: one limit for all consumers of a queue, known ids, the consumer parks by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import nats
import nats.errors
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.errors import NoStreamResponseError
from pydantic import BaseModel

from simlib.architectures.message_queue.broker import Broker, Handler, identified, identity
from simlib.architectures.twin import Side

ID, PLAIN_ID = "Nats-Msg-Id", "Message-Id"
"""The header by which JetStream knows a message again, and one that it does not look at."""


class OnNats(Broker):
    """A side's way to JetStream."""

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self.id = ID if self.p["deduplication"] else PLAIN_ID  # a window of 0 means the server's own default
        self.connection: Connection

    async def connect(self) -> None:
        self.connection = await nats.connect(
            self.side.config.broker, max_reconnect_attempts=-1, reconnect_time_wait=self.p["reconnect"]
        )
        self.jetstream = self.connection.jetstream()

    async def send(self, queue: str, message: int, event: str, content: bytes, confirmed: bool) -> bool:
        subject, headers = self.name(queue), {self.id: identity(message, event)}
        if not confirmed:
            await self.connection.publish(subject, content, headers=headers)
            return False
        try:
            await self.jetstream.publish(subject, content, timeout=self.p["confirm_timeout"], headers=headers)
        except nats.errors.TimeoutError:
            return False
        except NoStreamResponseError:  # the server is back, its streams are not yet
            await asyncio.sleep(self.p["reconnect"])
            return False
        return True

    async def replies(self, replied: Callable[[bytes], Awaitable[None]]) -> str:
        async def received(delivery: Msg) -> None:
            await replied(delivery.data)

        inbox = self.connection.new_inbox()
        await self.connection.subscribe(inbox, cb=received)
        return inbox

    async def reply(self, to: str, body: BaseModel) -> None:
        await self.connection.publish(to, body.model_dump_json().encode())

    async def consume(self, queue: str, handler: Handler) -> None:
        """At most `prefetch` are here unacknowledged."""
        manual = self.p["manual_ack"]
        config = ConsumerConfig(
            ack_policy=AckPolicy.EXPLICIT if manual else AckPolicy.NONE,
            ack_wait=self.p["ack_wait"] if manual else None,
            max_deliver=self.p["max_deliveries"] if manual else None,
            max_ack_pending=self.p["prefetch"] if manual else None,
        )
        inbox: asyncio.Queue[Msg] = asyncio.Queue()

        async def take(delivery: Msg) -> None:
            self.fetched(inbox, delivery)

        name = self.name(queue)
        await self.jetstream.add_stream(
            StreamConfig(name=name, subjects=[name], duplicate_window=self.p["deduplication"])
        )
        await self.jetstream.subscribe(name, queue=name, stream=name, config=config, cb=take, manual_ack=True)
        self.read.append(name)
        self.consumers += [asyncio.create_task(self.compete(inbox, handler)) for _ in range(self.p["consumers"])]

    async def close(self) -> None:
        for consumer in self.consumers:
            consumer.cancel()
        for queue in self.read:
            await self.jetstream.delete_stream(queue)
        await self.connection.close()

    async def pending(self) -> int:
        waiting = 0
        for queue in self.read:
            info = await self.jetstream.consumer_info(queue, queue)
            waiting += (info.num_pending or 0) + (info.num_ack_pending or 0)
        return waiting + self.in_hand

    async def receive(self, delivery: Msg, handler: Handler) -> None:
        """As the broker's; and park it after the last delivery, which JetStream does not."""
        number = delivery.metadata.num_delivered
        message, event = identified((delivery.headers or {})[self.id])
        with self.side.trace.stage(message, "delivery", number):
            done = await self.handled(message, number, delivery.data, handler)
            if not self.p["manual_ack"]:
                return
            if done:
                await delivery.ack()
            elif number < self.p["max_deliveries"]:
                await delivery.nak(delay=self.p["redelivery_delay"])
            else:
                if self.p["park"]:
                    await self.side.park(message, event, number)
                await delivery.term()
