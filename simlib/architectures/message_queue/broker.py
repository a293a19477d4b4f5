"""What a side of the live message queue needs of a broker, and what is the same on each."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel

from simlib.architectures.twin import HandlingFailed, Side

Handler = Callable[[bytes, int], Awaitable[None]]
"""Handles the content of a delivery, and its number."""


class Unroutable(Exception):
    """No queue takes what was published."""


class Broker(ABC):
    """A side's publisher and consumers: confirms with retries, manual acknowledgements, redelivery, parking."""

    def __init__(self, side: Side) -> None:
        self.side, self.p = side, side.config.parameters
        self.read: list[str] = []
        self.consumers: list[asyncio.Task[None]] = []
        self.in_hand = 0
        side.pending = self.pending

    def name(self, queue: str) -> str:
        """The queue's name on a server that others may use too."""
        return f"{self.side.config.prefix}_{queue}"

    @abstractmethod
    async def connect(self) -> None:
        """Connect, so that messages can be published."""

    @abstractmethod
    async def consume(self, queue: str, handler: Handler) -> None:
        """Make a queue, where it is not there yet, and let `consumers` tasks compete for its messages.

        A queue is made by the one side that reads it: two that declare a quorum queue at the same moment may both fail.
        """

    @abstractmethod
    async def receive(self, delivery: Any, handler: Handler) -> None:
        """Handle a delivery and acknowledge it after its effect; hand it back if that fails."""

    def fetched(self, inbox: asyncio.Queue[Any], delivery: Any) -> None:
        """A delivery is here, and waits for a consumer."""
        self.in_hand += 1
        inbox.put_nowait(delivery)

    async def compete(self, inbox: asyncio.Queue[Any], handler: Handler) -> None:
        """A consumer: takes what is here, one after the other."""
        while True:
            delivery = await inbox.get()
            try:
                await self.receive(delivery, handler)
            finally:
                self.in_hand -= 1

    @abstractmethod
    async def replies(self, replied: Callable[[bytes], Awaitable[None]]) -> str:
        """Listen for replies; the address that they are to be sent to."""

    @abstractmethod
    async def reply(self, to: str, body: BaseModel) -> None:
        """Send a reply, which nothing confirms."""

    @abstractmethod
    async def close(self) -> None:
        """Stop consuming, and leave nothing on a server that others may use too."""

    @abstractmethod
    async def pending(self) -> int:
        """What is still in the queues that this side reads, or in its consumers' hands."""

    @abstractmethod
    async def send(self, queue: str, message: int, event: str, content: bytes, confirmed: bool) -> bool:
        """One publication under the message's id; whether it is known to be in the queue. Raises Unroutable."""

    async def publish(self, queue: str, message: int, event: str, body: BaseModel | str, confirm: bool = True) -> None:
        """Publish, and wait for the confirm; again with the same id where it does not come.

        Raises TimeoutError where no confirm came at all: the message may be in the queue, or not; and Unroutable.
        """
        content = (body if isinstance(body, str) else body.model_dump_json()).encode()
        confirm = confirm and self.p["confirm"]
        for attempt in range(1, self.p["confirm_retries"] + 2 if confirm else 2):
            with self.side.trace.stage(message, "publish", attempt):
                known = await self.send(queue, message, event, content, confirm)
            if known or not confirm:
                return
        raise TimeoutError(f"no confirm of message {message}")

    async def handled(self, message: int, number: int, content: bytes, handler: Handler) -> bool:
        """Whether a delivery had its effect."""
        try:
            await handler(content, number)
        except (HandlingFailed, TimeoutError, Unroutable):
            return False
        return True


async def confirmed(publication: Awaitable[None]) -> None:
    """The answer to a caller whose message got no confirm: nobody knows whether it is in the queue."""
    try:
        await publication
    except TimeoutError:
        raise HTTPException(504, "no confirm: the message may be in the queue, or not") from None
    except Unroutable:
        raise HTTPException(502, "no queue takes the message: it was handed back") from None


def broker_of(side: Side) -> Broker:
    """The side's way to its broker."""
    if side.config.parameters["broker"] == "nats":
        from simlib.architectures.message_queue.on_nats import OnNats

        return OnNats(side)
    from simlib.architectures.message_queue.on_rabbitmq import OnRabbitMQ

    return OnRabbitMQ(side)


def identity(message: int, event: str) -> str:
    """The id of what is published: the same, however often it is."""
    return f"{message}-{event}"


def identified(header: Any) -> tuple[int, str]:
    """Message and event of an id."""
    message, _, event = str(header).partition("-")
    return int(message), event
