"""A program's way to Kafka: topics, a producer whose reports are waited for, and the members of a consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import BaseModel

from simlib.architectures.twin import Call, HandlingFailed, Level, Order, Side
from simlib.brokers.kafka import QUIET, address
from simlib.domain import TAKEN

TOPICS = ("updates", "orders")
POLLS_FOR = 0.2
"""How long a member waits for records at a time, and a side for its members when it ends, s."""
POSITIONS = "SELECT part, next FROM log.positions"
Body = TypeVar("Body", Level, Order)


class Place(NamedTuple):
    """Where a record stands in its topic."""

    partition: int
    offset: int


Handler = Callable[[Body, Place, int], Awaitable[None]]
"""Handles a body, which stands at a place, for so many times by now."""


class Topics:
    """The topics of a run, on a server that others may use too."""

    def __init__(self, side: Side) -> None:
        self.p, self.prefix = side.config.parameters, side.config.prefix
        self.names = (*TOPICS, "windows") if self.p["window"] else TOPICS
        self.address = address(side.config.servers["kafka"])
        self.client = {"bootstrap.servers": self.address, "reconnect.backoff.max.ms": 500, **QUIET}
        self.admin = AdminClient(self.client)

    def name(self, topic: str) -> str:
        """The name of a topic of this run, or of a group."""
        return f"{self.prefix}_{topic}"

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic."""
        return [TopicPartition(self.name(topic), i) for i in range(self.p["partitions"])]

    def make(self) -> None:
        """Make the topics where they are not there yet."""
        flushed = {"flush.ms": milliseconds(self.p["flush_every"])} if self.p["flush_every"] else {"flush.messages": 1}
        topics = [NewTopic(self.name(topic), self.p["partitions"], config=flushed) for topic in self.names]
        for made in self.admin.create_topics(topics, operation_timeout=5).values():
            try:
                made.result()
            except KafkaException as error:  # another program was faster
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise

    def delete(self, names: Iterable[str]) -> None:
        """Delete topics, of which those may be gone that another program deleted."""
        for deleted in self.admin.delete_topics([*names], request_timeout=2).values():
            with suppress(KafkaException):
                deleted.result()


class Log(Generic[Body]):
    """What a side reads: a topic of bodies of one type, each of which `handle` takes."""

    def __init__(self, side: Side, topic: str, body: type[Body], handle: Handler[Body]) -> None:
        self.side, self.p, self.topics = side, side.config.parameters, Topics(side)
        self.topic, self.partitions = self.topics.name(topic), self.topics.partitions(topic)
        self.body: type[Body] = body
        self.handle: Handler[Body] = handle
        self.in_hand, self.open = 0, True
        self.cooperative = self.p["partition_assignment_strategy"] == "cooperative-sticky"
        self.exactly_once, self.by_the_clock = self.p["guarantee"] == "exactly_once", by_the_clock(self.p)
        members = self.p["members"] if self.p["processes"] == 1 else 1
        self.threads = ThreadPoolExecutor(members + 2)
        self.producer = Producer(self.topics.client | producing(self.p))
        group = self.topics.client | consuming(self.p, self.topic)
        self.watcher, *self.consumers = (Consumer(group) for _ in range(1 + members))
        side.once = side.once or self.exactly_once
        side.pending = self.pending

    async def begin(self) -> None:
        """Make the topics where they are not there yet, and begin to read."""
        self.loop = asyncio.get_running_loop()
        await self.aside(self.topics.make)
        self.reporter = self.aside(self._report)
        self.members = [asyncio.create_task(self.member(consumer)) for consumer in self.consumers]

    async def end(self) -> None:
        """Leave the group and the server, and nothing there."""
        self.open = False
        await asyncio.gather(*self.members, self.reporter)
        self.watcher.close()
        await self.aside(self.topics.delete, map(self.topics.name, self.topics.names))
        async with self.side.database.connection() as connection:
            await connection.execute("TRUNCATE log.positions")
        self.threads.shutdown()

    # Writing.

    async def publish(self, topic: str, message: int, sku: int, body: BaseModel) -> None:
        """Publish in the partition of the SKU, and wait for the report, where there is one; the client itself tries again.

        Raises TimeoutError where none says that the record is in the log: it may be there, or not.
        """
        reported = self.loop.create_future()

        def settle(error: Any) -> None:
            if not reported.done():
                reported.set_result(error)

        def report(error: Any, _: Message) -> None:
            self.loop.call_soon_threadsafe(settle, error)

        with self.side.trace.stage(message, "publish"):
            self.producer.produce(
                self.topics.name(topic),
                body.model_dump_json().encode(),
                str(sku),
                sku % len(self.partitions),
                on_delivery=report,
            )
            if self.p["acks"] != "none" and (error := await reported):
                raise TimeoutError(f"no confirm of message {message}: {error}")

    def _report(self) -> None:
        while self.open:
            self.producer.poll(POLLS_FOR)

    # Reading.

    async def member(self, consumer: Consumer) -> None:
        """A member of the group: takes what there is, handles one after the other, and commits the position."""
        consumer.subscribe([self.topic], on_assign=self._go_on if self.exactly_once else lambda *_: None)
        uncommitted: list[Message] = []
        while self.open:
            records: list[Message] = await self.aside(self._poll, consumer)
            self.in_hand += len(records)
            if self.p["guarantee"] == "at_most_once":
                uncommitted = await self.commit(consumer, [*uncommitted, *records])
            for record in records:
                await self.consume(record)
                if self.by_the_clock:
                    self.store(consumer, record)
            if self.p["guarantee"] == "at_least_once" and not self.by_the_clock:
                uncommitted = await self.commit(consumer, [*uncommitted, *records])
            self.in_hand -= len(records)
        await self.aside(consumer.close)

    def _poll(self, consumer: Consumer) -> list[Message]:
        """What there is, or the next record that comes: by one call, since the group may take the partitions of what it returned
        away in the next."""
        records = consumer.consume(self.p["max_poll_records"], 0.0) or [consumer.poll(POLLS_FOR)]
        return [record for record in records if record and not record.error()]

    def _go_on(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """From the positions that were kept with the effects."""
        with psycopg.connect(self.side.config.database) as connection:
            kept: dict[int, int] = dict(connection.execute(POSITIONS).fetchall())
        for partition in partitions:
            partition.offset = kept.get(partition.partition, 0)
        (consumer.incremental_assign if self.cooperative else consumer.assign)(partitions)

    async def consume(self, record: Message) -> None:
        """Handle a record, again where that fails, and set it aside in the end."""
        body, place = self.body.model_validate_json(record.value()), Place(record.partition(), record.offset())
        with self.side.trace.stage(body.message, "delivery"):
            for attempt in range(1, self.p["handler_retries"] + 2):
                with suppress(HandlingFailed, TimeoutError):
                    await self.handle(body, place, attempt)
                    return
                if attempt <= self.p["handler_retries"]:
                    await asyncio.sleep(self.p["handler_backoff"])
            await self.side.park(body.message, body.effect if isinstance(body, Level) else TAKEN, attempt)
            if self.exactly_once:
                await self.keep(body.message, place)

    async def commit(self, consumer: Consumer, records: list[Message]) -> list[Message]:
        """The group goes on behind these records, but for those of partitions that it has taken away meanwhile. All come back where
        it shares partitions out just then: a member that keeps its own must commit again after the next poll."""
        own = {one.partition for one in consumer.assignment()} if records else set()
        ends = {
            record.partition(): TopicPartition(record.topic(), record.partition(), record.offset() + 1)
            for record in records
            if record.partition() in own
        }
        if not ends:
            return []
        last = self.body.model_validate_json(records[-1].value()).message
        try:
            with self.side.trace.stage(last, "commit"):
                await self.aside(lambda: consumer.commit(offsets=list(ends.values()), asynchronous=False))
        except KafkaException:
            return records
        return []

    def store(self, consumer: Consumer, record: Message) -> None:
        """The client commits behind this record when it does next, unless the group has taken the partition away meanwhile."""
        with suppress(KafkaException):
            consumer.store_offsets(record)

    def _commit_stored(self) -> None:
        for consumer in self.consumers:
            with suppress(KafkaException):  # nothing was stored since the last time
                consumer.commit(asynchronous=False)

    async def keep(self, message: int, place: Place) -> None:
        """Keep the position behind a record, in a transaction of its own."""
        await self.side.transact(message, "keep", 1, "SELECT keep_position(%s, %s)", place.partition, place.offset + 1)

    def position(self, place: Place) -> Call:
        """The position behind a record, to be kept with its effect, where that is the guarantee."""
        return (", keep_position(%s, %s)", place.partition, place.offset + 1) if self.exactly_once else ("",)

    async def pending(self) -> int:
        """Records in this side's topic that its group has not done with, then what its members have in hand: what they took
        meanwhile. Who is asked whether all is done does not wait for the clock to commit."""
        if self.by_the_clock:
            await self.aside(self._commit_stored)
        if not self.exactly_once:
            return await self.aside(behind, self.watcher, self.partitions) + self.in_hand
        async with self.side.database.connection() as connection:
            done = {part: following for part, following in await (await connection.execute(POSITIONS)).fetchall()}
        return await self.aside(behind, self.watcher, self.partitions, done) + self.in_hand

    def aside(self, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Do in a thread what waits; the client's own threads do the work."""
        return self.loop.run_in_executor(self.threads, work, *arguments)


def behind(consumer: Consumer, partitions: list[TopicPartition], done: Mapping[int, int] | None = None) -> int:
    """Records of partitions behind the position of the consumer's group in each, or behind what is `done`."""
    if done is None:
        done = {one.partition: max(one.offset, 0) for one in consumer.committed(partitions, 5.0)}
    ends = [consumer.get_watermark_offsets(one, 5.0) for one in partitions]
    return sum(high - done.get(one.partition, 0) for one, (_, high) in zip(partitions, ends, strict=True))


def producing(p: dict[str, Any]) -> dict[str, Any]:
    """Settings of a producer: the client itself tries again, under the same number where it is idempotent."""
    tries = p["confirm_retries"] + 1
    return {
        "acks": {"all": "all", "leader": 1, "none": 0}[p["acks"]],
        "enable.idempotence": p["idempotent_producer"],
        "linger.ms": p["linger"] * 1000,
        "batch.num.messages": p["batch_records"],
        "max.in.flight": p["in_flight"],
        "request.timeout.ms": milliseconds(p["confirm_timeout"]),
        "socket.timeout.ms": milliseconds(p["confirm_timeout"]),
        "message.timeout.ms": milliseconds((p["confirm_timeout"] + p["retry_backoff"]) * tries),
        "retries": p["confirm_retries"],
        "retry.backoff.ms": milliseconds(p["retry_backoff"]),
        "retry.backoff.max.ms": milliseconds(p["retry_backoff"]),
    }


def by_the_clock(p: dict[str, Any]) -> bool:
    """Whether the client commits what was handled, every so often."""
    return p["guarantee"] == "at_least_once" and p["auto_commit_interval"] > 0


def consuming(p: dict[str, Any], group: str) -> dict[str, Any]:
    """Settings of a member: nothing is committed but by hand, or what was stored by hand by the clock."""
    return {
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": by_the_clock(p),
        "auto.commit.interval.ms": milliseconds(p["auto_commit_interval"]),
        "enable.auto.offset.store": False,
        "partition.assignment.strategy": p["partition_assignment_strategy"],
        **patience(p),
    }


def patience(p: dict[str, Any]) -> dict[str, Any]:
    """For how long a group waits for a member, or for its next poll."""
    return {
        "session.timeout.ms": milliseconds(p["session_timeout"]),
        "heartbeat.interval.ms": milliseconds(p["session_timeout"] / 4),
        "max.poll.interval.ms": milliseconds(p["max_poll_interval"]),
    }


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
