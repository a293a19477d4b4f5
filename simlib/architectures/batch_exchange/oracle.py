"""Batch exchange as a textbook would write it in SimPy: lists of what is registered and of files, a process for each run.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the other:
the happy path of delta and full files, runs that are late, and the pattern's signature fault, a file that is read again as a
whole because one of its records failed, or because it was not known that it was read. A scenario's faults (loss, crash,
poison) are left out. Numbers are drawn from the model's streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import simpy

from simlib import draws
from simlib.architectures.ground import ANNOUNCEMENT, HANDLER, OK, REFUSED, Ground, Side, Story
from simlib.distributions import Constant
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.batch_exchange.model import BatchExchange

DRAINED = 60.0
"""For so long after the last arrival runs begin, s."""


@dataclass
class Record:
    """What a message has to say to the other side; `tries`: how often its file was read."""

    message: int
    level: int
    version: int
    copy: int
    tries: int = 0

    @property
    def place(self) -> int:
        """Where the draws of this try stand."""
        place = draws.fold(draws.fold(0, self.message), self.tries - 1)
        return draws.fold(place, self.copy) if self.copy else place


@dataclass
class Outgoing:
    """What a side has for the other: what is registered for the next file, files that are not read, who waits for a run or for
    files; what the other has handled."""

    side: Side
    registered: list[Record] = field(default_factory=list)
    files: list[Record] = field(default_factory=list)
    copies: dict[int, int] = field(default_factory=dict)
    idle: dict[int, simpy.Event] = field(default_factory=dict)
    readers: list[simpy.Event] = field(default_factory=list)
    handled: set[int] = field(default_factory=set)


class Simulation(Ground):
    """One run."""

    p: BatchExchange

    def __init__(self, p: BatchExchange, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        env = self.env
        self.changes, self.orders = Outgoing(self.accounting), Outgoing(self.shop)
        numbers = count()
        for out in (self.changes, self.orders):
            for _ in range(p.runs):
                env.process(self.export(out, next(numbers)))
        for here, out in ((self.shop, self.changes), (self.accounting, self.orders)):
            for _ in range(p.runs):
                env.process(self.read_files(here, out, next(numbers)))
        for k in range(1, int((self.issued[-1] + DRAINED) / p.interval)):
            env.process(self.begin_runs(k * p.interval))
        self.issue()

    # --- the runs

    def begin_runs(self, time: float) -> Story:
        """Whoever has nothing to do begins a run, in the order of their numbers."""
        yield self.env.timeout(time)
        for out in (self.changes, self.orders):
            for _, event in sorted(out.idle.items()):
                event.succeed()
            out.idle.clear()

    @staticmethod
    def rouse(out: Outgoing) -> None:
        """Whoever waits for files looks, in the order in which they came."""
        for event in out.readers:
            event.succeed()
        out.readers.clear()

    def register(self, out: Outgoing, message: int, level: int = -1, version: int = -1) -> None:
        """In the transaction that has just been committed; of a SKU only the last is kept."""
        copy = out.copies.get(message, 0)
        out.copies[message] = copy + 1
        if out is self.changes and (self.p.coalesce or self.p.exchange == "full"):
            skus = self.arrivals.sku
            out.registered = [one for one in out.registered if skus[one.message] != skus[message]]
        out.registered.append(Record(message, level, version, copy))

    def records(self, side: Side, out: Outgoing, records: int) -> Story:
        """Write, or read, the records of a file."""
        full = out is self.changes and self.p.exchange == "full"
        time = Constant(value=self.p.record.mean_value * (self.scenario.goods.skus if full else records))
        yield from self.work(side, time, "", 0)

    def export(self, out: Outgoing, number: int) -> Story:
        """For ever: make a file of what is registered when a run is due."""
        side, name = out.side, f"{out.side.name}.export"
        for place in self.turns(number):
            out.idle[number] = self.env.event()
            yield out.idle[number]
            yield from self.ask_database(side, f"{name}.read", place, commits=False)
            taken, out.registered = out.registered, []
            if not taken:
                continue
            for record in taken:
                self.deliveries[record.message] += 1
            yield from self.work(side, self.p.file, f"{name}.file", place)
            yield from self.records(side, out, len(taken))
            yield from self.ask_database(side, f"{name}.mark.commit", place, commits=True)
            out.files += taken
            self.rouse(out)

    def read_files(self, here: Side, out: Outgoing, number: int) -> Story:
        """For ever: fetch the files that lie on the other side, and read them; again where that failed."""
        for place in self.turns(number):
            here.cpu.over()
            while not out.files:
                out.readers.append(self.env.event())
                yield out.readers[-1]
            taken, out.files = out.files, []
            for record in taken:
                record.tries += 1
                self.deliveries[record.message] += 1
            if not (yield from self.read(here, out, taken, place)):
                yield self.env.timeout(self.p.retry_after)
                self.put_back(out, taken)

    def read(self, here: Side, out: Outgoing, taken: list[Record], place: int) -> Story:
        """Read what was fetched; whether all of it, and the other side knows."""
        name, first = f"{here.name}.import", taken[0].place
        if not (yield from self.ask(f"{name}.fetch", here, out.side, first)):
            return False
        yield from self.work(here, self.p.file, f"{name}.file", place)
        yield from self.records(here, out, len(taken))
        if self.p.transaction == "file":
            for record in taken:
                if not (yield from self.handle_record(here, record)):
                    return False
            yield from self.ask_database(here, f"{name}.commit", place, commits=True)
            for record in taken:
                self.write(here, record, draws.fold(record.place, 2))
        else:
            for record in list(taken):
                if (yield from self.handle_record(here, record)):
                    at = draws.fold(record.place, 1)
                    yield from self.ask_database(here, f"{name}.commit", at, commits=True)
                    self.write(here, record, at)
                else:
                    taken.remove(record)
                    self.put_back(out, [record])
        passed = 3 if self.p.transaction == "file" else 2
        return (yield from self.ask(f"{name}.confirm", here, out.side, draws.fold(first, passed)))

    def put_back(self, out: Outgoing, records: list[Record]) -> None:
        """To be read again, before the rest; or set aside after the last try."""
        again = [record for record in records if record.tries < self.p.max_deliveries]
        for record in records:
            self.parked[record.message] |= self.p.park and record.tries >= self.p.max_deliveries
        out.files[:0] = again
        if again:
            self.rouse(out)

    def ask(self, label: str, here: Side, there: Side, place: int) -> Story:
        """Ask the other side; whether it answers in time."""
        yield from self.work(here, self.p.http_client, f"{label}.client.send", place)
        answered = self.env.event()
        self.env.process(self.answer_asked(label, here, there, place, answered))
        yield answered | self.env.timeout(self.p.timeout)
        if not answered.triggered:
            return False
        yield from self.work(here, self.p.http_client, f"{label}.client.took", place)
        return True

    def answer_asked(self, label: str, here: Side, there: Side, place: int, answered: simpy.Event) -> Story:
        yield self.time(self.p.network, f"{label}.network.there.from.{here.name}", place)
        yield from self.work(there, self.p.http_server, f"{label}.server.receive", place)
        yield from self.work(there, self.p.http_server, f"{label}.server.answer", place)
        yield self.time(self.p.network, f"{label}.network.back.from.{there.name}", place)
        answered.succeed()

    def handle_record(self, here: Side, record: Record) -> Story:
        yield from here.cpu.turns(1)
        announced = here is self.shop and self.ordered(record.message)
        return (yield from self.handle(here, ANNOUNCEMENT if announced else HANDLER, record.message, record.tries))

    # --- the messages

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)
        yield from self.commit("update", self.accounting, place)
        self.register(self.changes, message, *self.change(message, +1))
        yield from self.leave("update", self.accounting, message, place, OK)

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        yield from self.commit("order", self.shop, place)
        response, variant = REFUSED, ".refused"
        if self.promise(message):
            response, variant = OK, ""
            self.register(self.orders, message)
        yield from self.leave("order", self.shop, message, place, response, variant)

    def commit(self, label: str, side: Side, place: int) -> Story:
        """A transaction that also registers what it did."""
        stream = f"{label}.{side.name}.commit"
        read, registered = (
            self.on_a_core(self.p.read, stream, place),
            self.on_a_core(self.p.registration, f"{label}.registration", place),
        )
        yield from self.transaction(side, stream, place, read, registered, self.flush(f"{stream}.flush", place))

    # --- what the records of a file do

    def write(self, here: Side, record: Record, place: int) -> None:
        """What a record says is done: once, where the receiver is idempotent."""
        out = self.changes if here is self.shop else self.orders
        if record.message not in out.handled or not self.p.idempotent_receiver:
            if here is self.shop:
                self.show(record.message, record.level, record.version, self.p.write_if_newer)
            else:
                self.take(record, place)
        out.handled.add(record.message)

    def take(self, record: Record, place: int) -> None:
        """Accounting: take the units or reject the order; register the new level, in the same transaction; call for the rest."""
        message, attempt = record.message, record.tries
        response, level, version = self.reserve(message, attempt)
        if response == OK:
            self.register(self.changes, message, level, version)
            self.beside(self.call_services(self.accounting, message, attempt, self.decided(message, attempt, place)))


def run(parameters: BatchExchange, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `deliveries`; `duplicates`, effects that happened again; `parked`, 1 where it was set aside.
    """
    return Simulation(parameters, scenario, seed, messages).run("deliveries", "parked")
