"""CQRS, live: commands go to accounting over HTTP, events come back through the broker into replicas of the shop's read model."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI, HTTPException

from simlib.architectures import twin
from simlib.architectures.calls import Attempt, Client, handle
from simlib.architectures.message_queue.broker import Unroutable, broker_of, confirmed
from simlib.architectures.steps import Onward, program
from simlib.architectures.twin import (
    FURTHER,
    Level,
    Order,
    Query,
    Receipt,
    Side,
    Update,
    level_after,
    level_of,
    main,
    service,
)
from simlib.distributions import distribution
from simlib.domain import ANNOUNCED, COPIED, COPY, RESERVE, TAKEN

PARTS = ("postgres",)
"""Real parts that this architecture stands on, besides the broker that its parameters name."""
PROGRAMS = ("accounting", "shop")
"""Processes of its own that it runs as, each with a database."""
READ_FROM = COPY
"""The store that answers queries."""
SCHEMA = twin.SCHEMA + Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
"""What both databases are made of."""
SIMULATED = ("event_sourcing",)
"""Parameters that the model alone has."""


def accounting(side: Side) -> FastAPI:
    """The accounting program: carries out commands, and publishes what happened."""
    broker, onward = broker_of(side), Onward(side)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await broker.connect()
        async with onward:
            yield
        await broker.close()

    app = service(side, running)

    @app.post("/updates")
    async def update(update: Update) -> None:
        level, version = await side.change(update)
        await confirmed(broker.publish("updates", update.message, COPIED, level_of(update, level, version)))

    @app.post("/orders")
    async def order(order: Order, attempt: Attempt) -> Receipt:
        handle(side, order, attempt)
        receipt, again = await side.take(order, attempt, order.refused(RESERVE, attempt))
        if receipt.result == TAKEN and not again:
            side.spawn(announce(order, receipt))
            onward.begin(order, receipt.version, attempt)
        return receipt

    async def announce(order: Order, receipt: Receipt) -> None:
        with suppress(TimeoutError, Unroutable):  # the read model learns of it with the next change of this SKU
            await broker.publish("updates", order.message, ANNOUNCED, level_after(order, receipt))

    return app


class Replicas:
    """The shop's read model, a table each replica. The first is written by the projection, each other from the one before,
    `replication` later; whoever waits for a version hears of every write."""

    def __init__(self, side: Side) -> None:
        self.side, self.count = side, int(side.config.parameters["replicas"])
        self.lag = distribution(side.config.parameters["replication"]).draw(random.getrandbits(32))
        self.written: dict[tuple[int, int], asyncio.Event] = defaultdict(asyncio.Event)

    @staticmethod
    def table(replica: int) -> str:
        """Where a replica is kept."""
        return f"replica_{replica}" if replica else "goods"

    async def make(self) -> None:
        """The tables, where they are not there yet."""
        async with self.side.database.connection() as connection:
            for replica in range(1, self.count):
                await connection.execute(f"CREATE TABLE IF NOT EXISTS {self.table(replica)} (LIKE goods INCLUDING ALL)")

    async def project(self, level: Level, delivery: int) -> None:
        """An event, written into the first replica, and later into the others."""
        await self.side.write(level, delivery)
        self._tell(0, level.sku)
        self.side.spawn(self._replicate(level))

    async def _replicate(self, level: Level) -> None:
        for replica in range(1, self.count):
            await asyncio.sleep(self.lag(level.message))
            await self.write(replica, level.message, level.sku, level.level, level.version)

    async def write(self, replica: int, message: int, sku: int, level: int, version: int) -> None:
        """A level into one replica, if it is newer."""
        await self.side.transact(
            message, f"replica_{replica}", 1,
            f"UPDATE {self.table(replica)} SET level = %s, version = %s WHERE sku = %s AND (version < %s OR %s) RETURNING 1",
            level, version, sku, version, not self.side.newer,
        )  # fmt: skip
        self._tell(replica, sku)

    async def read(self, replica: int, query: Query) -> dict[str, int]:
        """What a replica shows of a SKU."""
        row = await self.side.transact(
            query.message, "read", 1, f"SELECT level, version FROM {self.table(replica)} WHERE sku = %s", query.sku
        )
        return {"level": row.level, "version": row.version}

    async def read_since(self, replica: int, query: Query, version: int, patience: float) -> dict[str, int]:
        """What a replica shows when it has a version, or what there is when the patience is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while True:
                    written = self.written[replica, query.sku]
                    shown = await self.read(replica, query)
                    if shown["version"] >= version:
                        return shown
                    await written.wait()
        return await self.read(replica, query)

    def _tell(self, replica: int, sku: int) -> None:
        if written := self.written.pop((replica, sku), None):
            written.set()


def shop(side: Side) -> FastAPI:
    """The web shop: hands commands on to accounting, and answers queries from its read model."""
    broker, replicas, p = broker_of(side), Replicas(side), side.config.parameters
    tokens: dict[
        tuple[int, int], int
    ] = {}  # by customer and SKU, the version of their order; a browser would bring it along
    client: Client

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        nonlocal client
        client = Client(side)
        await replicas.make()
        await broker.connect()
        await broker.consume("updates", event)
        yield
        await broker.close()
        await client.session.close()

    app = service(side, running)

    async def event(content: bytes, delivery: int) -> None:
        level = Level.model_validate_json(content)
        side.handle(level.message, level.handling, delivery)
        await replicas.project(level, delivery)

    @app.post("/orders")
    async def order(order: Order) -> Receipt:
        receipt = Receipt.model_validate(await client.post("/orders", order.message, order))
        if receipt.result != TAKEN:
            raise HTTPException(409, "sold out")
        if p["read_your_writes"] == "token":
            tokens[order.session, order.sku] = receipt.version
        elif p["read_your_writes"] == "sticky":
            await replicas.write(own(order), order.message, order.sku, receipt.level, receipt.version)
        return receipt

    def own(message: Order | Query) -> int:
        """The replica that a customer sticks to."""
        return message.session % replicas.count

    @app.post("/queries")
    async def query(query: Query) -> dict[str, int]:
        handle(side, query, 1)
        replica = random.randrange(replicas.count)
        if p["read_your_writes"] == "token":
            return await replicas.read_since(replica, query, tokens.get((query.session, query.sku), 0), p["patience"])
        if p["read_your_writes"] == "sticky" and random.random() < p["affinity"]:
            replica = own(query)
        return await replicas.read(replica, query)

    return app


if __name__ == "__main__":
    main({"accounting": accounting, "shop": shop, **dict.fromkeys(FURTHER, program)})
