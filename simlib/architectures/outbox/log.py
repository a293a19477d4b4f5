"""A database's log as a client of PostgreSQL's streaming replication reads it: the messages that transactions left there.

The protocol is that of logical decoding with `pgoutput` (PostgreSQL documentation, *Streaming Replication Protocol*, *Logical
Replication Message Formats*); psycopg has its ground, libpq, but no reader of its own.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from typing import NamedTuple

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

EPOCH = 946_684_800
"""PostgreSQL counts time from the year 2000, s after 1970."""
IN_USE = b"55006"
"""SQLSTATE of a slot that has a reader."""
ASKED_EVERY = 0.02
"""Between tries to take over a slot whose reader has just died, s."""


class Entry(NamedTuple):
    """A message in the log: its prefix and content, and where its transaction ends."""

    prefix: str
    content: str
    ends: int


class Log:
    """What a slot of a database's log has not confirmed yet, from the first on; positions are bytes of the log."""

    def __init__(self, url: str, slot: str, publication: str) -> None:
        self.url, self.slot, self.publication = url, slot, publication
        self.entries: deque[Entry] = deque()
        self.open_entries: list[tuple[str, str]] = []
        self.there = asyncio.Event()
        self.seen = self.confirmed = 0
        """Up to where it was read; up to where nobody needs it again."""
        self.in_hand = False

    async def open(self) -> None:
        """Make the slot where it is not there yet, and stream from it."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            known = await connection.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (self.slot,))
            if await known.fetchone() is None:
                await connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.slot,))
        self.stream = pq.PGconn.connect(make_conninfo(self.url, replication="database").encode())
        command = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {}, messages 'true')"
        ).format(sql.Identifier(self.slot), sql.Literal(self.publication))
        while (result := self.stream.exec_(command.as_string().encode())).status != pq.ExecStatus.COPY_BOTH:
            if result.error_field(pq.DiagnosticField.SQLSTATE) != IN_USE:
                raise psycopg.OperationalError(result.error_message.decode())
            await asyncio.sleep(ASKED_EVERY)
        self.stream.nonblocking = 1
        asyncio.get_running_loop().add_reader(self.stream.socket, self._arrived)

    def close(self) -> None:
        """Read no more; the slot keeps what was not confirmed."""
        asyncio.get_running_loop().remove_reader(self.stream.socket)
        self.stream.finish()

    async def read(self, most: int) -> list[Entry]:
        """What is there, at least one entry."""
        await self.there.wait()
        batch = [self.entries.popleft() for _ in range(min(most, len(self.entries)))]
        self.in_hand = True
        if not self.entries:
            self.there.clear()
        return batch

    def confirm(self, position: int) -> None:
        """Nobody needs again what ends up to here."""
        self.confirmed, self.in_hand = position, False
        self._say()

    async def read_up_to(self, position: int, within: float) -> bool:
        """Whether all up to a position is read and confirmed."""
        deadline = time.monotonic() + within
        self._say(answer=True)
        while self.seen < position or self.entries or self.in_hand:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.001)
        return True

    def _say(self, answer: bool = False) -> None:
        """A standby's status: up to where it has all, and whether the server is to answer."""
        now = round((time.time() - EPOCH) * 1e6)
        self.stream.put_copy_data(struct.pack("!cQQQqB", b"r", self.seen, self.confirmed, self.confirmed, now, answer))
        self.stream.flush()

    def _arrived(self) -> None:
        self.stream.consume_input()
        while (got := self.stream.get_copy_data(1))[0] > 0:
            data = bytes(got[1])
            if data[:1] == b"k":
                self._alive(*struct.unpack("!QqB", data[1:18]))
            else:
                self._message(data[25:])

    def _alive(self, ends: int, at: int, answer: int) -> None:
        """The server has sent all up to here."""
        self.seen = max(self.seen, ends)
        if not self.entries and not self.in_hand:
            self.confirmed = self.seen
        if answer:
            self._say()

    def _message(self, data: bytes) -> None:
        if data[:1] == b"M":
            prefix, _, rest = data[10:].partition(b"\0")
            self.open_entries.append((prefix.decode(), rest[4:].decode()))
        elif data[:1] == b"C":
            (ends,) = struct.unpack("!Q", data[10:18])
            self.seen = ends
            self.entries += [Entry(prefix, content, ends) for prefix, content in self.open_entries]
            if self.open_entries:
                self.open_entries = []
                self.there.set()
