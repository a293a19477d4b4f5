"""The relays of the live outbox: they take what a side has to tell, publish it in its order, and forget it only then.

What a relay dies over it publishes again, and where a confirm does not come it takes the whole batch again.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress

from simlib.architectures.message_queue.broker import Broker, identified
from simlib.architectures.outbox.log import Log
from simlib.architectures.twin import Side


class Relay(ABC):
    """A side's relay to a queue, a task of the side's process."""

    def __init__(self, side: Side, broker: Broker, queue: str) -> None:
        self.side, self.broker, self.queue = side, broker, queue
        self.batch_size = int(side.config.parameters["batch_size"])

    async def start(self) -> None:
        """Begin to relay."""
        self.task = asyncio.create_task(self.run())

    async def stop(self) -> None:
        """Leave what is not published to the next start."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    @abstractmethod
    async def run(self) -> None:
        """Relay for ever."""

    @abstractmethod
    async def waiting(self) -> int:
        """How much is not published."""

    async def publish(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Publish what rows (message, event, body) tell, one after the other; raises TimeoutError where a confirm does not come."""
        for message, event, body in rows:
            with self.side.trace.stage(message, "relay"):
                await self.broker.publish(self.queue, message, event, body)


class Polling(Relay):
    """Asks the table every `poll_interval`. One transaction takes rows, which no other relay then takes, and marks them."""

    def __init__(self, side: Side, broker: Broker, queue: str) -> None:
        super().__init__(side, broker, queue)
        self.interval = float(side.config.parameters["poll_interval"])

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.interval - time.monotonic() % self.interval)
            with suppress(TimeoutError):
                await self.poll()

    async def poll(self) -> None:
        """Take rows, publish them, mark them."""
        async with self.side.database.connection() as connection, connection.transaction():
            found = await connection.execute(
                "SELECT id, message, event, body FROM outbox WHERE NOT sent ORDER BY id LIMIT %s"
                " FOR UPDATE SKIP LOCKED", (self.batch_size,),
            )  # fmt: skip
            rows = await found.fetchall()
            if rows:
                await self.publish((message, event, body) for _, message, event, body in rows)
                await connection.execute(
                    "UPDATE outbox SET sent = true WHERE id = ANY(%s)", ([row[0] for row in rows],)
                )

    async def waiting(self) -> int:
        async with self.side.database.connection() as connection:
            return len(await (await connection.execute("SELECT 1 FROM outbox WHERE NOT sent")).fetchall())


class Tailing(Relay):
    """Is sent what was told by the database's log, and says how far it has published."""

    def __init__(self, side: Side, broker: Broker, queue: str) -> None:
        super().__init__(side, broker, queue)
        self.log = Log(side.config.database, f"{side.config.prefix}_{side.config.side}", "outbox")

    async def start(self) -> None:
        await self.log.open()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        self.log.close()

    async def run(self) -> None:
        while True:
            batch = await self.log.read(self.batch_size)
            rows = [(*identified(one.prefix), one.content) for one in batch]
            while True:
                with suppress(TimeoutError):
                    await self.publish(rows)
                    break
            self.log.confirm(batch[-1].ends)

    async def waiting(self) -> int:
        async with self.side.database.connection() as connection:
            ((written,),) = await (await connection.execute("SELECT pg_current_wal_lsn() - '0/0'")).fetchall()
        return int(not await self.log.read_up_to(int(written), within=0.1))
