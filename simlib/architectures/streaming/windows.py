"""Windows: a program that counts the orders of each SKU in tumbling windows, with Quix Streams.

It reads the topic of orders as a group of its own. Its position and the changelog of its state are committed in one transaction of
Kafka's, so that each record counts once; it keeps no state of its own for longer than it runs, and restores it from the changelog
when it begins (KIP-98; Quix Streams documentation, Stateful Processing). What it has counted lands in its database as it stands:
to write it again changes nothing.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import psycopg
import quixstreams
from confluent_kafka import Consumer, KafkaException
from fastapi import FastAPI
from quixstreams.dataframe.windows.aggregations import Count, Sum
from quixstreams.sinks import BatchingSink, SinkBatch

from simlib.architectures.streaming.log import POLLS_FOR, Topics, behind, consuming, patience
from simlib.architectures.twin import Side, service
from simlib.brokers.kafka import QUIET

_WRITE = """INSERT INTO log.windows VALUES (%s, %s, %s, %s)
    ON CONFLICT (sku, opened) DO UPDATE SET orders = excluded.orders, units = excluded.units"""


def application(side: Side) -> FastAPI:
    """The program that counts."""
    topics = Topics(side)
    group, partitions = topics.name("windows"), topics.partitions("orders")
    watcher = Consumer(topics.client | consuming(topics.p, group))
    run: asyncio.Task[Any]

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        nonlocal run
        await asyncio.to_thread(topics.make)
        counting = await asyncio.to_thread(pipeline, side, topics, group)
        run = asyncio.create_task(asyncio.to_thread(counting.run))
        yield
        counting.stop()
        await run
        watcher.close()
        async with side.database.connection() as connection:
            await connection.execute("TRUNCATE log.windows")
        with suppress(KafkaException):
            known = topics.admin.list_topics(timeout=2).topics
            await asyncio.to_thread(topics.delete, [name for name in known if name.startswith(f"changelog__{group}--")])

    async def pending() -> int:
        """Records that are not counted yet; raises what ended the count, where something did."""
        if run.done():
            run.result()
        return await asyncio.to_thread(behind, watcher, partitions)

    side.pending = pending
    return service(side, running)


class Application(quixstreams.Application):
    """An application that runs in a thread of a service, which is who gets the signals."""

    def _setup_signal_handlers(self) -> None:
        pass


def pipeline(side: Side, topics: Topics, group: str) -> Application:
    """The application: its topic, its windows, and where they land."""
    application = Application(
        topics.address,
        consumer_group=group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=topics.p["commit_interval"],
        consumer_poll_timeout=min(topics.p["commit_interval"], POLLS_FOR),
        state_dir=tempfile.mkdtemp(prefix="state-", dir=side.config.folder),
        consumer_extra_config=QUIET | patience(topics.p),
        producer_extra_config=QUIET
        | {"transactional.id": group},  # whoever comes after a dead one ends what that left open
        loglevel="WARNING",
    )
    orders = application.dataframe(application.topic(topics.name("orders"), key_deserializer="str"))
    length = timedelta(seconds=topics.p["window"])
    counted = orders.tumbling_window(length).agg(orders=Count(), units=Sum("quantity")).current()
    counted.sink(Table(side.config.database))
    return application


class Table(BatchingSink):
    """Where the windows land."""

    def __init__(self, database: str) -> None:
        super().__init__()
        self.connection = psycopg.connect(database, autocommit=True)

    def write(self, batch: SinkBatch) -> None:
        """Each window as it stands, in the order of the records."""
        rows = [(int(one.key), one.value["start"], one.value["orders"], one.value["units"]) for one in batch]
        self.connection.cursor().executemany(_WRITE, rows)
