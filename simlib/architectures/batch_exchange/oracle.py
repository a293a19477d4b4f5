"""Batch exchange as a textbook would write it in SimPy: lists of what is registered and of files, a process for each run.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the other:
the happy path of delta and full files, runs that are late, and the pattern's signature fault, a file that is read again as a
whole because one of its records failed, or because it was not known that it was read. A scenario's faults (loss, crash,
poison) are left out. Numbers are drawn from the model's streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from simlib import draws
from simlib.distributions import Distribution
from simlib.domain import ANNOUNCED, COPIED, KINDS, ORDER, RESPONSES, STOCK_QUERY, STOCK_UPDATE, TAKEN
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.batch_exchange.model import BatchExchange

OK, REFUSED, FAILED = (RESPONSES.index(name) for name in ("ok", "refused", "failed"))
HANDLER, ANNOUNCEMENT = "handler_work", "announcement_work"
"""Streams of the handlers' work, which all architectures share."""
DRAINED = 60.0
"""For so long after the last arrival runs begin, s."""
Story = Generator[simpy.Event, Any, Any]


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


class Side:
    """A service: one event loop, its connections to its database, its goods, what it remembers to have handled; what is
    registered for the next file, the files that the other side has not read, and who waits for a run or for files."""

    def __init__(self, env: simpy.Environment, name: str, p: BatchExchange, units: np.ndarray) -> None:
        self.name = name
        self.cpu = simpy.Resource(env)
        self.database = simpy.Resource(env, p.database_connections)
        self.level, self.version = units.tolist(), [0] * len(units)
        self.handled: set[int] = set()
        self.copies: dict[int, int] = {}
        self.registered: list[Record] = []
        self.files: list[Record] = []
        self.idle: dict[int, simpy.Event] = {}
        self.readers: list[simpy.Event] = []


class Simulation:
    """One run."""

    def __init__(self, p: BatchExchange, scenario: Scenario, seed: int, messages: int) -> None:
        self.p, self.scenario, self.seed = p, scenario, seed
        self.env = env = simpy.Environment()
        self.arrivals = scenario.draw(seed, messages)
        self.cores, self.log = simpy.Resource(env, p.cores), simpy.Resource(env)
        self.accounting, self.shop = (Side(env, name, p, scenario.stock()) for name in ("accounting", "shop"))
        self.issued, (self.responded, self.applied) = self.arrivals.issued, np.full((2, messages), np.nan)
        self.response, self.deliveries, self.duplicates, self.parked = np.zeros((4, messages), int)
        self.version, self.answer = np.full((2, messages), -1)
        self.done: set[tuple[int, str]] = set()
        numbers = count()
        for side in (self.accounting, self.shop):
            for _ in range(p.runs):
                env.process(self.export(side, next(numbers)))
        for here, there in ((self.shop, self.accounting), (self.accounting, self.shop)):
            for _ in range(p.runs):
                env.process(self.read_files(here, there, next(numbers)))
        for k in range(1, int((self.issued[-1] + DRAINED) / p.interval)):
            env.process(self.begin_runs(k * p.interval))
        starts = {STOCK_UPDATE: self.update, ORDER: self.order, STOCK_QUERY: self.query}
        for message, kind in enumerate(self.arrivals.kind.tolist()):
            env.process(starts[KINDS[kind]](message, draws.fold(0, message)))

    # --- what a visit costs

    def time(self, distribution: Distribution, stream: str, place: int) -> simpy.Event:
        return self.env.timeout(distribution.draw(draws.stream_key(self.seed, stream))(place))

    def on_a_core(self, distribution: Distribution, stream: str, place: int) -> Story:
        """Work on one of the cores that both sides and the database share."""
        with self.cores.request() as core:
            yield core
            yield self.time(distribution, stream, place)

    def work(self, side: Side, distribution: Distribution, stream: str, place: int) -> Story:
        with side.cpu.request() as turn:
            yield turn
            yield from self.on_a_core(distribution, stream, place)

    def ask_database(self, side: Side, stream: str, place: int, commits: bool, registers: str = "") -> Story:
        """A transaction; `registers` names the work to register what it did."""
        with side.database.request() as connection:
            yield connection
            yield from self.work(side, self.p.database_client, f"{stream}.ask", place)
            yield from self.on_a_core(self.p.read, stream, place)
            if registers:
                yield from self.on_a_core(self.p.registration, registers, place)
            if commits:
                with self.log.request() as turn:
                    yield turn
                    yield self.time(self.p.commit, f"{stream}.flush", place)
            yield from self.work(side, self.p.database_client, f"{stream}.took", place)

    def handle(self, side: Side, stream: str, message: int, attempt: int) -> Story:
        """The handler's work; whether it succeeds. Every architecture meets the same at the same attempt."""
        place = draws.fold(draws.fold(0, message), attempt - 1)
        yield from self.work(side, self.scenario.handler_work, stream, place)
        failure = draws.stream_key(self.seed, f"handler_failure.{stream}")
        return draws.uniform(failure, place) >= self.scenario.handler_failure

    # --- the runs

    def begin_runs(self, time: float) -> Story:
        """Whoever has nothing to do begins a run, in the order of their numbers."""
        yield self.env.timeout(time)
        for side in (self.accounting, self.shop):
            for _, event in sorted(side.idle.items()):
                event.succeed()
            side.idle.clear()

    def rouse(self, side: Side) -> None:
        """Whoever waits for files looks, in the order in which they came."""
        for event in side.readers:
            event.succeed()
        side.readers.clear()

    @staticmethod
    def turns(number: int) -> Generator[int, None, None]:
        """Where the draws of the turns of a loop stand."""
        for turn in count():
            yield draws.fold(draws.fold(0, -1 - number), turn)

    def register(self, side: Side, message: int, level: int = -1, version: int = -1) -> None:
        """In the transaction that has just been committed; of a SKU only the last is kept."""
        copy = side.copies.get(message, 0)
        side.copies[message] = copy + 1
        if side is self.accounting and (self.p.coalesce or self.p.exchange == "full"):
            skus = self.arrivals.sku
            side.registered = [one for one in side.registered if skus[one.message] != skus[message]]
        side.registered.append(Record(message, level, version, copy))

    def records(self, side: Side, to_shop: bool, records: int) -> Story:
        """Write, or read, the records of a file."""
        full = to_shop and self.p.exchange == "full"
        with side.cpu.request() as turn:
            yield turn
            with self.cores.request() as core:
                yield core
                yield self.env.timeout(self.p.record * (self.scenario.goods.skus if full else records))

    def export(self, side: Side, number: int) -> Story:
        """For ever: make a file of what is registered when a run is due."""
        name = f"{side.name}.export"
        for place in self.turns(number):
            side.idle[number] = self.env.event()
            yield side.idle[number]
            yield from self.ask_database(side, f"{name}.read", place, commits=False)
            taken, side.registered = side.registered, []
            if not taken:
                continue
            for record in taken:
                self.deliveries[record.message] += 1
            yield from self.work(side, self.p.file, f"{name}.file", place)
            yield from self.records(side, side is self.accounting, len(taken))
            yield from self.ask_database(side, f"{name}.mark.commit", place, commits=True)
            side.files += taken
            self.rouse(side)

    def read_files(self, here: Side, there: Side, number: int) -> Story:
        """For ever: fetch the files that lie on the other side, and read them; again where that failed."""
        for place in self.turns(number):
            while not there.files:
                there.readers.append(self.env.event())
                yield there.readers[-1]
            taken, there.files = there.files, []
            for record in taken:
                record.tries += 1
                self.deliveries[record.message] += 1
            if not (yield from self.read(here, there, taken, place)):
                yield self.env.timeout(self.p.retry_after)
                self.put_back(there, taken)

    def read(self, here: Side, there: Side, taken: list[Record], place: int) -> Story:
        """Read what was fetched; whether all of it, and the other side knows."""
        name, first = f"{here.name}.import", taken[0].place
        if not (yield from self.ask(f"{name}.fetch", here, there, first)):
            return False
        yield from self.work(here, self.p.file, f"{name}.file", place)
        yield from self.records(here, here is self.shop, len(taken))
        if self.p.transaction == "file":
            for record in taken:
                if not (yield from self.handle_record(here, record)):
                    return False
            yield from self.ask_database(here, f"{name}.commit", place, commits=True)
            for record in taken:
                self.write(here, record)
        else:
            for record in list(taken):
                if (yield from self.handle_record(here, record)):
                    at = draws.fold(record.place, 1)
                    yield from self.ask_database(here, f"{name}.commit", at, commits=True)
                    self.write(here, record)
                else:
                    taken.remove(record)
                    self.put_back(there, [record])
        passed = 3 if self.p.transaction == "file" else 2
        return (yield from self.ask(f"{name}.confirm", here, there, draws.fold(first, passed)))

    def put_back(self, there: Side, records: list[Record]) -> None:
        """To be read again, before the rest; or set aside after the last try."""
        again = [record for record in records if record.tries < self.p.max_deliveries]
        for record in records:
            self.parked[record.message] |= self.p.park and record.tries >= self.p.max_deliveries
        there.files[:0] = again
        if again:
            self.rouse(there)

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
        announced = here is self.shop and KINDS[self.arrivals.kind[record.message]] == ORDER
        return (yield from self.handle(here, ANNOUNCEMENT if announced else HANDLER, record.message, record.tries))

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)
        yield from self.ask_database(self.accounting, "update.accounting.commit", place, True, "update.registration")
        level, version = self.change(message, +1)
        self.register(self.accounting, message, level, version)
        yield from self.leave("update", "", self.accounting, message, place, OK)

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        yield from self.ask_database(self.shop, "order.shop.commit", place, True, "order.registration")
        sku, quantity = self.arrivals.sku[message], int(self.arrivals.quantity[message])
        response, variant = OK, ""
        if self.shop.level[sku] < quantity:
            response, variant = REFUSED, ".refused"
        else:
            self.shop.level[sku] -= quantity
            self.register(self.shop, message)
        yield from self.leave("order", variant, self.shop, message, place, response)

    def query(self, message: int, place: int) -> Story:
        yield from self.enter("query", self.shop, message, place)
        response = FAILED
        if (yield from self.handle(self.shop, HANDLER, message, 1)):
            yield from self.ask_database(self.shop, "query.shop.read", place, commits=False)
            sku, response = self.arrivals.sku[message], OK
            self.answer[message], self.version[message] = self.shop.level[sku], self.shop.version[sku]
        yield from self.leave("query", "", self.shop, message, place, response)

    def enter(self, label: str, side: Side, message: int, place: int) -> Story:
        yield self.env.timeout(self.issued[message])
        yield self.time(self.p.edge, f"{label}.edge.there", place)
        yield from self.work(side, self.p.http_server, f"{label}.{side.name}.receive", place)

    def leave(self, label: str, variant: str, side: Side, message: int, place: int, response: int) -> Story:
        yield from self.work(side, self.p.http_server, f"{label}.{side.name}{variant}.answer", place)
        yield self.time(self.p.edge, f"{label}{variant}.edge.back", place)
        self.responded[message], self.response[message] = self.env.now, response

    # --- what the records of a file do

    def write(self, here: Side, record: Record) -> None:
        if here is self.shop:
            self.write_copy(record)
        else:
            self.take(record)

    def write_copy(self, record: Record) -> None:
        """Shop: write the copy, where the version is newer and the message was not handled before."""
        message, shop = record.message, self.shop
        sku, again = self.arrivals.sku[message], message in shop.handled and self.p.idempotent_receiver
        if not again and (record.version > shop.version[sku] or not self.p.write_if_newer):
            shop.level[sku], shop.version[sku] = record.level, record.version
            self.happened(message, ANNOUNCED if KINDS[self.arrivals.kind[message]] == ORDER else COPIED)
        shop.handled.add(message)

    def take(self, record: Record) -> None:
        """Accounting: take the units or reject the order; register the new level, in the same transaction."""
        message, accounting = record.message, self.accounting
        if message in accounting.handled and self.p.idempotent_receiver:
            return
        accounting.handled.add(message)
        if accounting.level[self.arrivals.sku[message]] >= self.arrivals.quantity[message]:
            level, version = self.change(message, -1)
            self.happened(message, TAKEN)
            self.register(accounting, message, level, version)

    def change(self, message: int, sign: int) -> tuple[int, int]:
        """Accounting's stock changes by the message's quantity; the new level and version."""
        sku, goods = self.arrivals.sku[message], self.accounting
        goods.level[sku] += sign * int(self.arrivals.quantity[message])
        goods.version[sku] += 1
        self.version[message] = goods.version[sku]
        return goods.level[sku], goods.version[sku]

    def happened(self, message: int, effect: str) -> None:
        self.duplicates[message] += (message, effect) in self.done
        self.done.add((message, effect))
        self.applied[message] = np.fmin(self.applied[message], self.env.now)


def run(parameters: BatchExchange, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `deliveries`; `duplicates`, effects that happened again; `parked`, 1 where it was set aside.
    """
    simulation = Simulation(parameters, scenario, seed, messages)
    simulation.env.run()
    names = ("issued", "responded", "applied", "response", "version", "answer", "deliveries", "duplicates", "parked")
    return {name: getattr(simulation, name) for name in names}
