"""A transactional outbox as a textbook would write it in SimPy: a list for each side's outbox, a process for its relay.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path of the polling and of the log-tailing relay and of the dual write, and the pattern's signature
fault, a relay that does not know whether it has published, and publishes again; behind it a queue with confirms,
refusals and acknowledgements. A scenario's faults (loss, crash, poison) are left out. Numbers are drawn from the model's
streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import simpy

from simlib import draws
from simlib.architectures.ground import OK, Known, Side, Story
from simlib.architectures.message_queue.oracle import DRAINED, Published, Queue
from simlib.architectures.message_queue.oracle import Simulation as Queued
from simlib.domain import RESERVE
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.outbox.model import Outbox

INSERTS = {"update.accounting": "update", "order.shop": "order", "orders.accounting": "announce"}
"""Transactions that write a row of the outbox, by what the row tells."""


@dataclass
class Row:
    """What is to be published; which of its message's rows, how often it was taken."""

    message: int
    level: int
    version: int
    copy: int
    deliveries: int = 0


@dataclass
class Relayed:
    """A side's rows that are not published, and its relay: what it waits for, and its number, which says where it draws."""

    side: Side
    queue: Queue
    number: int
    rows: list[Row] = field(default_factory=list)
    written: dict[int, int] = field(default_factory=dict)
    awaited: simpy.Event | None = None


class Simulation(Queued):
    """One run, on the message queue's broker and with its consumers."""

    def __init__(self, p: Outbox, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)  # type: ignore[arg-type]
        self.outbox, env = p, self.env
        [updates] = self.updates
        self.changes_out, self.orders_out = (
            Relayed(side, queue, number)
            for number, (side, queue) in enumerate(((self.accounting, updates), (self.shop, self.orders)))
        )
        if p.publisher != "dual_write":
            env.process(self.relay(self.changes_out))
            env.process(self.relay(self.orders_out))
        if p.publisher == "polling":
            self.tick_until(self.issued[-1] + DRAINED)

    def ask_database(self, side: Side, stream: str, place: int, commits: bool) -> Story:
        """A transaction, which may also write a row of the outbox."""
        server = [self.on_a_core(self.p.read, stream, place)]
        insert = INSERTS.get(stream.removesuffix(".commit"))
        if insert and self.outbox.publisher != "dual_write":
            server.append(self.on_a_core(self.outbox.insert, f"{insert}.insert", place))
        if commits:
            server.append(self.flush(f"{stream}.flush", place))
        yield from self.transaction(side, stream, place, *server)

    # --- the outbox and its relay

    def insert(self, outbox: Relayed, it: Published) -> None:
        """A row of the outbox, in the transaction that has just been committed."""
        copy = outbox.written.get(it.message, 0)
        outbox.written[it.message] = copy + 1
        outbox.rows.append(Row(it.message, it.level, it.version, copy))
        if self.outbox.publisher == "log_tailing":
            self.rouse(outbox)

    def rouse(self, outbox: Relayed) -> None:
        """The relay goes on, if it waits."""
        if outbox.awaited is not None:
            outbox.awaited.succeed()
            outbox.awaited = None

    def tick_until(self, end: float) -> None:
        """The relays that wait go on at every multiple of the interval."""

        def tick(_: simpy.Event) -> None:
            for outbox in (self.changes_out, self.orders_out):
                self.rouse(outbox)

        for k in range(1, int(end / self.outbox.poll_interval)):
            timeout = self.env.timeout(k * self.outbox.poll_interval)
            assert timeout.callbacks is not None
            timeout.callbacks.append(tick)

    def relay(self, outbox: Relayed) -> Story:
        """For ever: take rows, publish each in turn, and only then forget them; all of them again where that failed."""
        side, polls = outbox.side, self.outbox.publisher == "polling"
        name = f"{side.name}.relay"
        for place in self.turns(outbox.number):
            if polls or not outbox.rows:
                outbox.awaited = self.env.event()
                yield outbox.awaited
            if polls:
                rows: list[Row] = []
                yield from self.transaction(side, f"{name}.poll", place, self.poll(outbox, rows, name, place))
            else:
                yield self.time(self.outbox.tail, f"{name}.tail", place)
                rows = self.take_rows(outbox)
            for row in rows:
                it = Published(row.message, self.env.event(), row.level, row.version)
                if (yield from self.publish(name, side, outbox.queue, it, self.place(row))) != OK:
                    outbox.rows[:0] = rows
                    break
            else:
                if polls and rows:
                    marked = self.on_rows(f"{name}.mark", place, len(rows)), self.flush(f"{name}.mark.flush", place)
                    yield from self.transaction(side, f"{name}.mark", place, *marked)

    def take_rows(self, outbox: Relayed) -> list[Row]:
        size = self.outbox.batch_size
        rows, outbox.rows = outbox.rows[:size], outbox.rows[size:]
        for row in rows:
            row.deliveries += 1
            self.deliveries[row.message] += 1
        return rows

    def poll(self, outbox: Relayed, rows: list[Row], name: str, place: int) -> Story:
        """The rows that are there when the database begins to look."""
        rows += self.take_rows(outbox)
        yield from self.on_rows(f"{name}.poll", place, len(rows))

    def on_rows(self, stream: str, place: int, rows: int) -> Story:
        """The server's work for a statement on so many rows."""
        return self.on_a_core(self.p.read, stream, place, more=lambda: self.outbox.per_row * rows)

    @staticmethod
    def place(row: Row) -> int:
        """Where the draws of a row that was taken stand."""
        place = draws.fold(draws.fold(0, row.message), row.deliveries - 1)
        return draws.fold(place, row.copy) if row.copy else place

    # --- what is written in place of what is published

    def publish(self, label: str, side: Side, queue: Queue, it: Published, place: int) -> Story:
        """What the transaction wrote is the relay's to publish."""
        if self.outbox.publisher == "dual_write" or label not in INSERTS.values():
            return (yield from super().publish(label, side, queue, it, place))
        if label != "announce":
            self.insert(self.changes_out if side is self.accounting else self.orders_out, it)
        return OK

    def try_step(self, step: str, it: Published, attempt: int) -> Known:
        known = super().try_step(step, it, attempt)
        if step == RESERVE and known[0] == OK and self.outbox.publisher != "dual_write":
            self.insert(self.changes_out, replace(it, level=known[1], version=known[2]))
        return known


def run(parameters: Outbox, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `deliveries`; `duplicates`, effects that happened again; `parked`, 1 where it was parked.
    """
    return Simulation(parameters, scenario, seed, messages).run("deliveries", "parked")
