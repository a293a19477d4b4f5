"""The runs of the live exchange: one makes a file of what is registered when it is due, one reads what the other side made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
from fastapi import FastAPI, Request
from fastapi.responses import Response

from simlib.architectures.batch_exchange.file import ROW, Files, Goods, Record, Unreadable, opened, written
from simlib.architectures.twin import HandlingFailed, Level, Side
from simlib.domain import TAKEN

Apply = Callable[[Sequence[Record], Sequence[Goods], int], Awaitable[None]]
"""Writes what was handled, and goods that no message changed, in one transaction; of which try."""


class Export:
    """A side's files, and the run that makes them every `interval`; one that takes longer lets the next go by."""

    def __init__(self, side: Side, files: Files, all_goods: bool) -> None:
        self.side, self.files, self.all_goods = side, files, all_goods
        self.interval = float(side.config.parameters["interval"])

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self.interval - time.monotonic() % self.interval)
            await self.once()

    async def once(self) -> None:
        """A file of what is registered, which then is no more; none of nothing. Who dies in between makes it again.

        What a transaction under way is about to supersede is passed over: to wait for it would be a deadlock, where that one
        supersedes more (the orders of a file), which are taken here.
        """
        messages: list[int] = []
        with self.side.trace.stages(messages, "export"):
            async with self.side.database.connection() as connection, connection.transaction():
                found = await connection.execute(
                    f"SELECT nth, {', '.join(ROW)} FROM registered ORDER BY nth FOR UPDATE SKIP LOCKED"
                )
                rows = await found.fetchall()
                if not rows:
                    return
                messages += [row[1] for row in rows]
                unchanged = []
                if self.all_goods:
                    goods = await connection.execute(
                        "SELECT sku, level, version FROM goods WHERE sku != ALL(%s)", ([row[3] for row in rows],)
                    )
                    unchanged = await goods.fetchall()
                with self.side.trace.stages(messages, "make"):
                    self.files.put(written(self.side.config.side, (row[1:] for row in rows), unchanged))
                await connection.execute("DELETE FROM registered WHERE nth = ANY(%s)", ([row[0] for row in rows],))

    async def waiting(self) -> int:
        """How much is registered, or lies in files that nobody has read."""
        async with self.side.database.connection() as connection:
            rows = await (await connection.execute("SELECT 1 FROM registered")).fetchall()
        return len(rows) + len(self.files.unread())


def serve_files(app: FastAPI, files: Files, within: float) -> Callable[[], int]:
    """Let the other side fetch files and say what became of them; the number of those that wait for one, which is no work."""
    waiting = 0

    @app.get("/files")
    async def fetch() -> Response:
        """The oldest file that is not read, as soon as there is one."""
        nonlocal waiting
        waiting += 1
        try:
            file = await files.fetched(within)
        finally:
            waiting -= 1
        if file is None:
            return Response(status_code=204)
        return Response(file.read_bytes(), headers={"Name": file.name}, media_type="application/xml")

    @app.delete("/files/{name}")
    async def settle(name: str, into: str) -> None:
        """A file was read, or is set aside."""
        files.settle(name, into)

    @app.put("/files/{name}")
    async def keep(name: str, request: Request) -> None:
        """A file was read but for some messages."""
        files.keep(name, await request.json())

    return lambda: waiting


class Import:
    """A side's reader of the other's files: fetches, reads, writes, says so. What fails before that is read again, as a whole or,
    where each record is a transaction, those that failed."""

    def __init__(self, side: Side, apply: Apply) -> None:
        self.side, self.apply = side, apply
        p = side.config.parameters
        self.whole = p["transaction"] == "file"
        self.retry_after, self.max_deliveries, self.park = (
            float(p["retry_after"]),
            int(p["max_deliveries"]),
            bool(p["park"]),
        )
        self.session = aiohttp.ClientSession(
            base_url=side.config.peer, timeout=aiohttp.ClientTimeout(total=float(p["timeout"])), raise_for_status=True
        )

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                async with self.session.get("/files") as answer:
                    if answer.status == 200:
                        await self.read(answer.headers["Name"], await answer.read())
            except (aiohttp.ClientError, TimeoutError, HandlingFailed, Unreadable):
                await asyncio.sleep(self.retry_after)

    async def read(self, name: str, content: bytes) -> None:
        """Read a file, which so often was fetched as its name says."""
        nth, last = int(name.removesuffix(".xml").split("-")[1]), self.max_deliveries
        records: list[Record] = []
        messages: list[int] = []
        with self.side.trace.stages(messages, "delivery", nth):
            try:
                with self.side.trace.stages(messages, "open", nth):
                    found, unchanged = opened(content)
                    records += found
                    messages += [one.message for one in records]
                if nth > last:
                    raise HandlingFailed("its reader died over the last try")
                failed = await self.handle(records, unchanged, nth)
            except (HandlingFailed, Unreadable):
                if nth < last:
                    raise
                await self.set_aside(records, nth)
                await self.say("DELETE", name, params={"into": "aside"})
                return
            if failed and nth < last:
                await self.say("PUT", name, json=[one.message for one in failed])
                return
            await self.set_aside(failed, nth)
            with self.side.trace.stages(messages, "confirm", nth):
                await self.say("DELETE", name, params={"into": "read"})

    async def handle(self, records: Sequence[Record], unchanged: Sequence[Goods], nth: int) -> list[Record]:
        """Do the work for each record, and write them: together, or each by itself; those that failed then."""
        failed = []
        for one in records:
            await asyncio.sleep(0)  # who else waits for the event loop has a turn
            try:
                self.side.handle(one.message, one.handling, nth)
            except HandlingFailed:
                if self.whole:
                    raise
                failed.append(one)
                continue
            if not self.whole:
                await self.apply([one], [], nth)
        if self.whole:
            await self.apply(records, unchanged, nth)
        return failed

    async def set_aside(self, records: Sequence[Record], nth: int) -> None:
        """Keep for a human to look at what was tried too often."""
        for one in records if self.park else ():
            await self.side.park(one.message, one.effect if isinstance(one, Level) else TAKEN, nth)

    async def say(self, method: str, name: str, **what: Any) -> None:
        """Tell the other side what became of a file."""
        async with self.session.request(method, f"/files/{name}", **what):
            pass
