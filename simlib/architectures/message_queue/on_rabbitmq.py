"""The message queue on RabbitMQ: a limit for each consumer, deliveries counted and parked by a quorum queue itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustChannel, AbstractRobustExchange, AbstractRobustQueue
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError, PublishError
from pydantic import BaseModel

from simlib.architectures.message_queue.broker import Broker, Handler, Unroutable, identified, identity
from simlib.architectures.twin import Side

PARKED = "parked"


class OnRabbitMQ(Broker):
    """A side's way to RabbitMQ: one connection, a channel to publish on and one to consume on, restored where they are lost.

    What was delivered too often goes to a queue of its own, of which the side keeps a list in its database.
    """

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self.quorum = self.p["queue_type"] == "quorum"
        self.sure: AbstractRobustExchange
        self.unsure: AbstractRobustExchange
        self.handed_back: set[str] = set()
        self.seen: Counter[str] = Counter()

    async def connect(self) -> None:
        self.connection = await aio_pika.connect_robust(self.side.config.broker, reconnect_interval=self.p["reconnect"])
        confirming = await self._channel(publisher_confirms=True, on_return_raises=True)
        plain = await self._channel(publisher_confirms=False)
        self.channel = await self._channel(publisher_confirms=False)
        self.sure, self.unsure = [await self._exchange(channel, "") for channel in (confirming, plain)]
        self.default = plain.default_exchange
        self.parking = await self._exchange(self.channel, PARKED)

    def _arguments(self) -> dict[str, Any]:
        """Of a quorum queue: deliveries are counted, and what is dead-lettered is not lost on its way (rabbitmq.com/docs,
        "Quorum Queues": "Poison Message Handling", "Dead lettering")."""
        parking = {"x-dead-letter-exchange": self.name(PARKED)} if self.p["park"] else {}
        if not self.quorum:
            return {"x-queue-type": "classic", **parking}
        limit = self.p["max_deliveries"]
        limited = {} if limit is None else {"x-delivery-limit": limit - 1}  # deliveries after the first
        safe = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"} if parking else {}
        return {"x-queue-type": "quorum", **parking, **limited, **safe}

    async def _channel(self, **options: bool) -> AbstractRobustChannel:
        channel = await self.connection.channel(**options)
        assert isinstance(channel, AbstractRobustChannel)
        return channel

    async def _queue(self, name: str, arguments: dict[str, Any]) -> AbstractRobustQueue:
        return await self.channel.declare_queue(name, durable=True, arguments=arguments)

    async def _exchange(self, channel: AbstractRobustChannel, name: str) -> AbstractRobustExchange:
        return await channel.declare_exchange(self.name(name), aio_pika.ExchangeType.DIRECT, durable=True)

    async def send(self, queue: str, message: int, event: str, content: bytes, confirmed: bool) -> bool:
        """Any number of publications may be on their way on the one channel. What becomes of one whose connection is lost, or
        whose confirm does not come in time, is not known."""
        exchange = self.sure if confirmed else self.unsure
        what = aio_pika.Message(
            content, message_id=identity(message, event), delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        mandatory = self.p["mandatory"] and confirmed
        try:
            async with asyncio.timeout(self.p["confirm_timeout"]):
                await exchange.publish(what, routing_key=self.name(queue), mandatory=mandatory)
        except PublishError:
            raise Unroutable(f"no queue takes message {message}") from None
        except (TimeoutError, DeliveryError):
            return False
        except CONNECTION_EXCEPTIONS:
            await asyncio.sleep(self.p["reconnect"])
            return False
        return True

    async def replies(self, replied: Callable[[bytes], Awaitable[None]]) -> str:
        async def received(delivery: AbstractIncomingMessage) -> None:
            await replied(delivery.body)

        inbox = await self.channel.declare_queue(exclusive=True, auto_delete=True)
        await inbox.consume(received, no_ack=True)
        return inbox.name

    async def reply(self, to: str, body: BaseModel) -> None:
        await self.default.publish(aio_pika.Message(body.model_dump_json().encode()), routing_key=to, mandatory=False)

    async def consume(self, queue: str, handler: Handler) -> None:
        """Each has at most `prefetch` here unacknowledged."""
        name = self.name(queue)
        made = await self._queue(name, self._arguments())
        await made.bind(self.sure, routing_key=name)
        parked = await self._queue(f"{name}_{PARKED}", {"x-queue-type": self.p["queue_type"]})
        await parked.bind(self.parking, routing_key=name)
        self.read += [made.name, parked.name]
        manual = self.p["manual_ack"]
        await self.channel.set_qos(self.p["prefetch"])
        for _ in range(self.p["consumers"]):
            inbox: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            self.consumers.append(asyncio.create_task(self.compete(inbox, handler)))
            await made.consume(self._taker(inbox), no_ack=not manual)
        await parked.consume(self._park)

    async def close(self) -> None:
        for consumer in self.consumers:
            consumer.cancel()
        for queue in self.read:
            await self.channel.queue_delete(queue)
        for name in ("", PARKED):
            await self.channel.exchange_delete(self.name(name))
        await self.connection.close()

    async def pending(self) -> int:
        waiting = 0
        for queue in self.read:
            underlay = await self.channel.get_underlay_channel()
            said = await underlay.queue_declare(queue, passive=True)
            waiting += said.message_count or 0
        return waiting + self.in_hand + len(self.handed_back)

    def _taker(self, inbox: asyncio.Queue[AbstractIncomingMessage]) -> Callable[[AbstractIncomingMessage], Any]:
        async def take(delivery: AbstractIncomingMessage) -> None:
            self.handed_back.discard(str(delivery.message_id))
            self.fetched(inbox, delivery)

        return take

    async def receive(self, delivery: AbstractIncomingMessage, handler: Handler) -> None:
        """Handle a delivery and acknowledge it after its effect; hand it back if that fails."""
        number = self._number(delivery)
        message, _ = identified(delivery.message_id)
        with self.side.trace.stage(message, "delivery", number):
            done = await self.handled(message, number, delivery.body, handler)
            if not self.p["manual_ack"]:
                return
            try:
                if done:
                    await delivery.ack()
                    return
                if self.p["park"] or number != self.p.get("max_deliveries"):
                    self.handed_back.add(str(delivery.message_id))
                await delivery.nack(requeue=True)
            except CONNECTION_EXCEPTIONS:
                return  # the connection is lost: the delivery comes again over the next one

    def _number(self, delivery: AbstractIncomingMessage) -> int:
        """Which delivery of its message it is, from 1 on. A classic queue only says whether it is the first: it is counted
        here, as far as this process remembers."""
        if self.quorum:
            earlier: Any = delivery.headers.get("x-delivery-count", 0)
            return int(earlier) + 1
        name = str(delivery.message_id)
        self.seen[name] = max(self.seen[name] + 1, 2) if delivery.redelivered else 1
        return self.seen[name]

    async def _park(self, delivery: AbstractIncomingMessage) -> None:
        message, event = identified(delivery.message_id)
        await self.side.park(message, event, self.p.get("max_deliveries") or 0)
        await delivery.ack()
        self.handed_back.discard(str(delivery.message_id))
