"""Event sourcing, live: accounting appends to streams of the `eventsourcing` library, the shop projects them into its copy."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from eventsourcing.persistence import InfrastructureFactory, IntegrityError, PersistenceError, Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import ApplicationSubscription
from eventsourcing.utils import Environment
from fastapi import FastAPI, HTTPException

from simlib.architectures.calls import Attempt, Client, handle
from simlib.architectures.event_sourcing.goods import CHANGES, Accounting, Goods, SoldOut, place
from simlib.architectures.steps import Onward, program
from simlib.architectures.twin import (
    FURTHER,
    Drawn,
    HandlingFailed,
    Level,
    Order,
    Query,
    Receipt,
    Side,
    Update,
    main,
    service,
)
from simlib.domain import ANNOUNCED, COPIED, COPY, TAKEN

PARTS = ("postgres",)
"""Real parts that this architecture stands on."""
PROGRAMS = ("accounting", "shop")
"""Processes of its own that it runs as, each with a database."""
READ_FROM = COPY
"""The store that answers queries."""
SCHEMA = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("schema.sql", "steps.sql"))
"""What both databases are made of."""
SIMULATED = ("group_commit", "prefetch", "session_timeout")
"""Parameters that the model alone has."""


class Stock:
    """Accounting's commands: each loads a stream, decides, and appends, again where another was faster.

    The library is synchronous: its work is done by threads, one for each connection.
    """

    def __init__(self, side: Side) -> None:
        self.side, self.p = side, side.config.parameters
        connections = int(self.p["database_connections"])
        self.events = Accounting(place(side.config, side.config.side, connections))
        self.threads = ThreadPoolExecutor(connections)
        self.streams: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def receive(self, update: Update) -> None:
        """A stock update."""
        await self._command(update, "change", 1, lambda goods: goods.receive(update, time.monotonic_ns()))

    async def take(self, order: Order, delivery: int) -> tuple[Receipt, bool]:
        """An order: the units are taken, or it is rejected; and whether they were taken just now."""
        try:
            receipt, now = await self._command(
                order, "take", delivery, lambda goods: goods.take(order, time.monotonic_ns(), delivery)
            )
        except SoldOut as refused:
            receipt, now = await self._reject(order, delivery, *refused.args), False
        self.side.tell(order.message)
        return receipt, now

    async def _command(
        self, command: Update | Order, block: str, delivery: int, decide: Callable[[Goods], None]
    ) -> tuple[Receipt, bool]:
        """The version that the command made, or the answer that it had before; and whether it was made just now."""
        for attempt in range(1, self.p["conflict_retries"] + 2):
            if attempt > 1:
                await asyncio.sleep(self.p["conflict_backoff"] * 2 ** (attempt - 2) * random.random())
            try:
                async with self.streams[command.sku] if self.p["concurrency"] == "lock" else nullcontext():
                    goods = await asyncio.get_running_loop().run_in_executor(
                        self.threads, self._append, command, block, delivery, attempt, decide
                    )
            except IntegrityError:
                if before := await self._received(command):
                    return before, False
            else:
                if self.events.snapshots and goods.version % self.p["snapshot_every"] == 0:
                    self.side.spawn(self._snapshot(goods, command.message))
                return Receipt(result=TAKEN, level=goods.level, version=goods.version), True
        raise HTTPException(503, "others were faster each time")

    def _append(
        self, command: Update | Order, block: str, delivery: int, attempt: int, decide: Callable[[Goods], None]
    ) -> Goods:
        with self.side.trace.stage(command.message, "load", attempt):
            goods: Goods = self.events.repository.get(Goods.identity(command.sku))
        with self.side.trace.stage(command.message, block, delivery):
            decide(goods)
            kept: dict[str, Any] = {}
            if isinstance(command, Order) and self.side.once:
                order = Receipt(result=TAKEN, level=goods.level, version=goods.version)
                kept = {"message": command.message, "order": order}
            self.events.save(goods, **kept)
        return goods

    async def _snapshot(self, goods: Goods, message: int) -> None:
        def put() -> None:
            assert self.events.snapshots
            with self.side.trace.stage(message, "snapshot"):
                self.events.snapshots.put([Goods.Snapshot.take(goods)])

        await asyncio.get_running_loop().run_in_executor(self.threads, put)

    async def _received(self, command: Update | Order) -> Receipt | None:
        """The first answer to an order that came before."""
        row = await self.side.transact(
            command.message, "received", 1,
            "SELECT result, level, version FROM received WHERE message = %s", command.message,
        )  # fmt: skip
        return Receipt(**row._asdict()) if row else None

    async def _reject(self, order: Order, delivery: int, level: int, version: int) -> Receipt:
        """The answer to an order that there are too few units for; the first one where it came before."""
        row = await self.side.transact(
            order.message, "reject", delivery,
            "SELECT * FROM reject(%s, %s, %s, %s, %s, %s, %s) AS t (level, version, result)",
            order.message, order.sku, level, version, time.monotonic_ns(), delivery, self.side.once,
        )  # fmt: skip
        return Receipt(**row._asdict())

    def close(self) -> None:
        """Let the threads end."""
        self.threads.shutdown()
        self.events.close()


def accounting(side: Side) -> FastAPI:
    """The accounting program: appends an event for each update and each order."""
    stock: Stock
    onward = Onward(side)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        nonlocal stock
        stock = Stock(side)
        async with onward:
            yield
        stock.close()

    app = service(side, running)

    @app.post("/updates")
    async def update(update: Update) -> None:
        await stock.receive(update)

    @app.post("/orders")
    async def order(order: Order, attempt: Attempt) -> Receipt:
        handle(side, order, attempt)
        receipt, now = await stock.take(order, attempt)
        if now:
            onward.begin(order, receipt.version, attempt)
        return receipt

    return app


class Copy(PostgresTrackingRecorder):
    """The shop's read model, and how far it has read: written in one transaction."""

    def write(self, level: Level, delivery: int, newer: bool, tracking: Tracking) -> None:
        """The level that an event left."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking=tracking)
            cursor.execute(
                "SELECT write_copy(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (level.message, level.effect, level.sku, level.level, level.version, level.change,
                 time.monotonic_ns(), delivery, newer),
            )  # fmt: skip

    def set_aside(self, level: Level, delivery: int, tracking: Tracking) -> None:
        """An event that cannot be handled, for a human to look at."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking=tracking)
            cursor.execute(
                "INSERT INTO parked VALUES (%s, %s, %s, %s)",
                (level.message, level.effect, delivery, time.monotonic_ns()),
            )

    def forget(self) -> None:
        """Begin with the first event again."""
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute("DELETE FROM copy_tracking")


class Projection:
    """The shop's reader of accounting's events: one after the other, by a thread of its own."""

    def __init__(self, side: Side) -> None:
        self.side, self.p = side, side.config.parameters
        self.log = Accounting(place(side.config, "accounting", connections=3))
        environment = Environment("copy", place(side.config, side.config.side, connections=2))
        self.factory = InfrastructureFactory[Copy].construct(environment)
        self.copy = self.factory.tracking_recorder(Copy)
        self.closing, self.rewinding = threading.Event(), False
        self.events: ApplicationSubscription[Any] | None = None
        self.thread = threading.Thread(target=self._follow)

    def position(self) -> int | None:
        """The event that was written last."""
        return self.copy.max_tracking_id(self.log.name)

    def behind(self) -> int:
        """Whether there are events that were not written yet."""
        return len(self.log.recorder.select_notifications(self.position(), 1, topics=CHANGES, inclusive_of_start=False))

    def rebuild(self) -> None:
        """Read all events again."""
        self.rewinding = True
        if self.events:
            self.events.stop()

    def close(self) -> None:
        """Stop reading."""
        self.closing.set()
        if self.events:
            self.events.stop()
        self.thread.join()
        self.log.close()
        self.factory.close()

    def _follow(self) -> None:
        while not self.closing.is_set():
            try:
                if self.rewinding:
                    self.rewinding = False
                    self.copy.forget()
                with ApplicationSubscription(self.log, gt=self.position(), topics=CHANGES) as self.events:
                    if self.closing.is_set() or self.rewinding:
                        continue
                    for event, tracking in self.events:
                        self._project(event, tracking)
            except PersistenceError:
                self.closing.wait(self.p["event_backoff"])  # the database is away: go on when it is back

    def _project(self, event: Any, tracking: Tracking) -> None:
        """Write the copy; what fails is tried again before the next, and then set aside, or tried for ever."""
        level = Level(
            message=event.message, effect=ANNOUNCED if isinstance(event, Goods.Taken) else COPIED, sku=event.sku,
            level=event.level, version=event.originator_version, change=event.units, handling=Drawn(**event.handling),
        )  # fmt: skip
        tries = 0
        with self.side.trace.stage(level.message, "delivery"):
            while not self.closing.is_set() and not self.rewinding:
                tries += 1
                try:
                    self.side.handle(level.message, level.handling, tries)
                    with self.side.trace.stage(level.message, "write", tries):
                        self.copy.write(level, tries, self.side.newer, tracking)
                    break
                except HandlingFailed:
                    if self.p["set_aside"] and tries > self.p["event_retries"]:
                        self.copy.set_aside(level, tries, tracking)
                        break
                    self.closing.wait(self.p["event_backoff"])
        if level.effect == COPIED:
            self.side.tell(level.message)


def shop(side: Side) -> FastAPI:
    """The web shop: asks accounting for every order, and answers queries from its projection."""
    client: Client
    projection: Projection

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        nonlocal client, projection
        client, projection = Client(side), Projection(side)
        projection.thread.start()
        rebuilding = asyncio.create_task(rebuild())
        yield
        rebuilding.cancel()
        await asyncio.to_thread(projection.close)
        await client.session.close()

    async def rebuild() -> None:
        while every := side.config.parameters["rebuild_every"]:
            await asyncio.sleep(every)
            projection.rebuild()

    async def behind() -> int:
        return await asyncio.to_thread(projection.behind)

    side.pending = behind
    app = service(side, running)

    @app.post("/orders")
    async def order(order: Order) -> dict[str, Any]:
        receipt: dict[str, Any] = await client.post("/orders", order.message, order)
        if receipt["result"] != TAKEN:
            raise HTTPException(409, "sold out")
        return receipt

    @app.post("/queries")
    async def query(query: Query) -> dict[str, int]:
        handle(side, query, 1)
        return await side.read(query)

    return app


if __name__ == "__main__":
    main({"accounting": accounting, "shop": shop, **dict.fromkeys(FURTHER, program)})
