"""Windows: a program that counts the orders of each SKU in tumbling windows, with Quix Streams, and keeps what it publishes.

It reads the topic of orders as a group of its own, and publishes each count to a topic. With exactly once counts, changelog of its
state and position are committed in one transaction of Kafka's (KIP-98), else one after the other. It keeps no state for longer than
it runs, and restores it from the changelog when it begins (Quix Streams documentation, Stateful Processing). The counts land in its
database as they are published, each with its position in one transaction: who adds them up sees those that were published again.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import psycopg
import quixstreams
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from fastapi import FastAPI
from quixstreams.dataframe.windows.aggregations import Count, Latest

from simlib.architectures.streaming.log import POLLS_FOR, POSITIONS, Topics, behind, consuming, patience
from simlib.architectures.twin import Side, service
from simlib.brokers.kafka import QUIET


def application(side: Side) -> FastAPI:
    """The program that counts."""
    topics = Topics(side)
    group, partitions = topics.name("windows"), topics.partitions("orders")
    watcher = Consumer(topics.client | consuming(topics.p, group))
    results = Results(side, topics)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await asyncio.to_thread(topics.make)
        counting = await asyncio.to_thread(pipeline, side, topics, group)
        tasks = [side.for_ever(asyncio.to_thread(run)) for run in (counting.run, results.run)]
        yield
        counting.stop()
        results.open = False
        await asyncio.gather(*tasks)
        watcher.close()
        async with side.database.connection() as connection:
            await connection.execute("TRUNCATE log.positions")
        with suppress(KafkaException):
            known = topics.admin.list_topics(timeout=2).topics
            await asyncio.to_thread(topics.delete, [name for name in known if name.startswith(f"changelog__{group}--")])

    async def pending() -> int:
        """Orders that are not counted yet, and counts that have not landed."""
        return await asyncio.to_thread(lambda: behind(watcher, partitions) or results.behind())

    side.pending = pending
    return service(side, running)


class Application(quixstreams.Application):
    """An application that runs in a thread of a service, which is who gets the signals."""

    def _setup_signal_handlers(self) -> None:
        pass


def pipeline(side: Side, topics: Topics, group: str) -> Application:
    """The application: its topic, its windows, and where their counts go."""
    interval, exactly_once = topics.p["commit_interval"], topics.p["guarantee"] == "exactly_once"
    transactions = (
        {"transactional.id": group} if exactly_once else {}
    )  # who comes after a dead one ends what that left open
    application = Application(
        topics.address,
        consumer_group=group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once" if exactly_once else "at-least-once",
        commit_interval=interval,
        consumer_poll_timeout=min(interval, POLLS_FOR),
        state_dir=tempfile.mkdtemp(prefix="state-", dir=side.config.folder),
        consumer_extra_config=QUIET | patience(topics.p),
        producer_extra_config=QUIET | transactions,
        loglevel="WARNING",
    )
    orders = application.dataframe(application.topic(topics.name("orders"), key_deserializer="str"))
    length = timedelta(seconds=topics.p["window"])
    counted = orders.tumbling_window(length).agg(orders=Count(), message=Latest("message"), sku=Latest("sku")).current()
    counted.to_topic(application.topic(topics.name("windows"), key_serializer="str"))
    return application


class Results:
    """What the program publishes, as whoever reads only what is committed sees it."""

    def __init__(self, side: Side, topics: Topics) -> None:
        self.side, self.open = side, True
        self.partitions = topics.partitions("windows")
        self.ends = dict.fromkeys(range(len(self.partitions)), 0)
        own = {"group.id": topics.name("results"), "enable.auto.commit": False, "enable.partition.eof": True}
        self.consumer = Consumer(topics.client | own | {"isolation.level": "read_committed"})

    def run(self) -> None:
        """Each in a transaction with its position, which it goes on from."""
        with psycopg.connect(self.side.config.database, autocommit=True) as connection:
            kept: dict[int, int] = dict(connection.execute(POSITIONS).fetchall())
            self.consumer.assign(
                [TopicPartition(at.topic, at.partition, kept.get(at.partition, 0)) for at in self.partitions]
            )
            while self.open:
                if (result := self.consumer.poll(POLLS_FOR)) is not None:
                    self.land(connection, result)
        self.consumer.close()

    def land(self, connection: psycopg.Connection[Any], result: Message) -> None:
        """One of them; or what says that there is no further one in its partition now."""
        if error := result.error():
            if error.code() == KafkaError._PARTITION_EOF:
                self.ends[result.partition()] = result.offset()
            return
        counted = json.loads(result.value())
        connection.execute(
            "SELECT land_count(%s, %s, %s, %s, %s, %s)",
            (
                counted["message"],
                counted["sku"],
                counted["orders"],
                time.monotonic_ns(),
                result.partition(),
                result.offset() + 1,
            ),
        )

    def behind(self) -> int:
        """How much stands in their topic behind the ends that were reached."""
        ends = [self.consumer.get_watermark_offsets(at, 5.0)[1] for at in self.partitions]
        return sum(ends) - sum(self.ends.values())
