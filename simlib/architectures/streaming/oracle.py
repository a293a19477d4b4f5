"""Streaming as a textbook would write it in SimPy: a list for each partition, processes that write batches, processes that poll.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, batches that linger, confirms that come late and records that are published again, handlers that
fail. A scenario's faults (loss, crash, poison), and with them what a group reads again, are left out. Numbers are drawn
from the model's streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from simlib import draws
from simlib.distributions import Distribution
from simlib.domain import ANNOUNCED, COPIED, KINDS, ORDER, RESPONSES, STOCK_QUERY, STOCK_UPDATE, TAKEN
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.streaming.model import Streaming

OK, REFUSED, FAILED, TIMED_OUT = (RESPONSES.index(name) for name in ("ok", "refused", "failed", "timed_out"))
HANDLER, ANNOUNCEMENT = "handler_work", "announcement_work"
"""Streams of the handlers' work, which all architectures share."""
Story = Generator[simpy.Event, Any, Any]


@dataclass
class Record:
    """A message as it was published: what it carries, whether it was before, who waits for its confirm."""

    message: int
    level: int
    version: int
    copy: int
    confirmed: simpy.Event | None = None

    @property
    def place(self) -> int:
        """Where the draws of its delivery stand."""
        place = draws.fold(draws.fold(0, self.message), 0)
        return draws.fold(place, self.copy) if self.copy else place


class Side:
    """A service: one event loop, its connections to its database, its goods, what it remembers to have handled."""

    def __init__(self, env: simpy.Environment, name: str, p: Streaming, units: np.ndarray) -> None:
        self.name = name
        self.cpu = simpy.Resource(env)
        self.database = simpy.Resource(env, p.database_connections)
        self.level, self.version = units.tolist(), [0] * len(units)
        self.handled: dict[int, tuple[int, int, int]] = {}


class Shelf:
    """A list that grows, and who waits until it is long enough."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self.records = env, list[Record]()
        self.waiting: list[tuple[int, simpy.Event]] = []
        self.seen: dict[int, int] = {}

    def put(self, message: int, level: int, version: int, confirmed: simpy.Event | None = None) -> None:
        copy = self.seen.get(message, 0)
        self.seen[message] = copy + 1
        self.records.append(Record(message, level, version, copy, confirmed))
        for needed, event in list(self.waiting):
            if len(self.records) >= needed:
                self.waiting.remove((needed, event))
                event.succeed()

    def until(self, needed: int, patience: float | None = None) -> Story:
        """Wait until there are so many, or for so long."""
        over = None if patience is None else self.env.timeout(patience)
        while len(self.records) < needed:
            long_enough = self.env.event()
            self.waiting.append((needed, long_enough))
            yield long_enough if over is None else long_enough | over
            if over is not None and over.processed and not long_enough.triggered:
                self.waiting.remove((needed, long_enough))
                return

    def take(self, most: int) -> list[Record]:
        taken, self.records = self.records[:most], self.records[most:]
        return taken


class Follower:
    """A follower: what it has not fetched yet, and who waits until it has a message."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self.missing = env, Shelf(env)
        self.arrivals: dict[int, simpy.Event] = {}

    def has(self, message: int) -> simpy.Event:
        return self.arrivals.setdefault(message, self.env.event())


class Topic:
    """A topic: what waits to be written, its disk, its partitions, what it has written before."""

    def __init__(self, env: simpy.Environment, name: str, p: Streaming) -> None:
        self.name, self.batch, self.next, self.io = name, Shelf(env), simpy.Resource(env), simpy.Resource(env)
        self.partitions = [Shelf(env) for _ in range(p.partitions)]
        self.members = [simpy.Resource(env) for _ in range(min(p.members, p.partitions))]
        self.written, self.appended = set[int](), set[int]()
        self.watermark = simpy.Resource(env)
        self.followers = [Follower(env) for _ in range(p.followers if p.acks == "all" else 0)]


class Simulation:
    """One run."""

    def __init__(self, p: Streaming, scenario: Scenario, seed: int, messages: int) -> None:
        self.p, self.scenario, self.seed = p, scenario, seed
        self.env = env = simpy.Environment()
        self.arrivals = scenario.draw(seed, messages)
        self.cores, self.log = simpy.Resource(env, p.cores), simpy.Resource(env)
        self.accounting, self.shop = (Side(env, name, p, scenario.stock()) for name in ("accounting", "shop"))
        self.issued, (self.responded, self.applied) = self.arrivals.issued, np.full((2, messages), np.nan)
        self.response, self.deliveries, self.duplicates, self.parked = np.zeros((4, messages), int)
        self.version, self.answer = np.full((2, messages), -1)
        self.done: set[tuple[int, str]] = set()
        self.updates, self.orders = (Topic(env, name, p) for name in ("updates", "orders"))
        number = 0
        for topic in (self.updates, self.orders):
            for i, follower in enumerate(topic.followers):
                env.process(self.fetch(f"{topic.name}.follower.{i}", follower, number))
                number += 1
            for _ in range(p.in_flight):
                env.process(self.write_batches(topic, number))
                number += 1
        readers = ((self.updates, self.shop, self.write_copy), (self.orders, self.accounting, self.take))
        for topic, side, body in readers:
            for i in range(p.partitions):
                env.process(self.poll(topic, i, side, body, number))
                number += 1
        starts = {STOCK_UPDATE: self.update, ORDER: self.order, STOCK_QUERY: self.query}
        for message, kind in enumerate(self.arrivals.kind.tolist()):
            env.process(starts[KINDS[kind]](message, draws.fold(0, message)))

    # --- what a visit costs

    def drawn(self, distribution: Distribution, stream: str, place: int) -> float:
        return distribution.draw(draws.stream_key(self.seed, stream))(place)

    def time(self, distribution: Distribution, stream: str, place: int) -> simpy.Event:
        return self.env.timeout(self.drawn(distribution, stream, place))

    def on_a_core(self, distribution: Distribution, stream: str, place: int) -> Story:
        """Work on one of the cores that both sides and the database share."""
        with self.cores.request() as core:
            yield core
            yield self.time(distribution, stream, place)

    def work(self, side: Side, distribution: Distribution, stream: str, place: int) -> Story:
        with side.cpu.request() as turn:
            yield turn
            yield from self.on_a_core(distribution, stream, place)

    def ask_database(self, side: Side, stream: str, place: int, commits: bool) -> Story:
        with side.database.request() as connection:
            yield connection
            yield from self.work(side, self.p.database_client, f"{stream}.ask", place)
            yield from self.on_a_core(self.p.read, stream, place)
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

    # --- publishing

    def publish(
        self, label: str, side: Side, topic: Topic, message: int, level: int, version: int, place: int
    ) -> Story:
        """Publish, and wait for the confirm where there is one; again where it does not come. The response."""
        p = self.p
        if p.acks == "none":
            yield from self.work(side, p.publish_client, f"{label}.publish.send", place)
            self.env.process(self.travel(label, side, topic, message, level, version, place, self.env.event()))
            return OK
        for attempt in range(p.confirm_retries + 1):
            at = draws.fold(place, attempt)
            yield from self.work(side, p.publish_client, f"{label}.publish.send", at)
            confirmed = self.env.event()
            self.env.process(self.travel(label, side, topic, message, level, version, at, confirmed))
            yield confirmed | self.env.timeout(p.confirm_timeout)
            if confirmed.triggered:
                yield from self.work(side, p.publish_client, f"{label}.publish.took", at)
                return OK
            if attempt < p.confirm_retries:
                yield self.env.timeout(p.retry_backoff)
        return TIMED_OUT

    def travel(
        self, label: str, side: Side, topic: Topic, message: int, level: int, version: int, place: int,
        confirmed: simpy.Event,
    ) -> Story:  # fmt: skip
        yield self.time(self.p.uplink, f"{label}.publish.there.from.{side.name}", place)
        topic.batch.put(message, level, version, confirmed)

    def write_batches(self, topic: Topic, number: int) -> Story:
        """For ever: wait until a batch is full or has waited enough, append it after the one before, confirm it."""
        p, name, turn = self.p, topic.name, 0
        while True:
            place = draws.fold(draws.fold(0, -1 - number), turn)
            turn += 1
            with topic.next.request() as door:
                yield door
                yield from topic.batch.until(1)
                if p.linger:
                    yield from topic.batch.until(p.batch_records, patience=p.linger)
                batch = topic.batch.take(p.batch_records)
            for record in batch:
                self.deliveries[record.message] += 1
            with topic.io.request() as disk:
                yield disk
                yield self.env.timeout(self.drawn(p.write_batch, f"{name}.append", place) + p.per_record * len(batch))
                if not p.flush_every:
                    yield self.time(p.flush, f"{name}.flush", place)
                if topic.followers:
                    self.append(topic, batch)
                else:
                    self.store(topic, batch)
            if topic.followers:
                yield from self.replicate(topic, batch)
            elif p.acks == "all":
                yield self.time(p.replicate, f"{name}.replication", place)
            for record in batch:
                self.env.process(self.confirm(name, record, passes=5 if topic.followers else 2))
            for way in ("known", "next"):
                yield self.time(p.uplink, f"{name}.{way}", place)

    def append(self, topic: Topic, batch: list[Record]) -> None:
        """The leader has a batch, which its followers may fetch."""
        for record in batch:
            if record.message not in topic.appended or not self.p.idempotent_producer:
                for follower in topic.followers:
                    follower.missing.put(record.message, record.level, record.version)
            topic.appended.add(record.message)

    def store(self, topic: Topic, batch: list[Record]) -> None:
        """A batch may be read."""
        for record in batch:
            if record.message not in topic.written or not self.p.idempotent_producer:
                partition = topic.partitions[self.arrivals.sku[record.message] % self.p.partitions]
                partition.put(record.message, record.level, record.version)
            topic.written.add(record.message)

    def replicate(self, topic: Topic, batch: list[Record]) -> Story:
        """Batch after batch may be read when all followers have it."""
        with topic.watermark.request() as turn:
            yield turn
            for record in batch:
                for follower in topic.followers:
                    yield follower.has(record.message)
            self.store(topic, batch)

    def fetch(self, name: str, follower: Follower, number: int) -> Story:
        """For ever: wait until there is something, and fetch all of it."""
        turn = 0
        while True:
            place = draws.fold(draws.fold(0, -1 - number), turn)
            turn += 1
            yield from follower.missing.until(1)
            batch = follower.missing.take(len(follower.missing.records))
            for record in batch:
                self.deliveries[record.message] += 1
            yield self.time(self.p.replicate, f"{name}.fetch", place)
            for record in batch:
                if not follower.has(record.message).triggered:
                    follower.has(record.message).succeed()

    def confirm(self, name: str, record: Record, passes: int) -> Story:
        """In the broker's last of so many passes through the batch."""
        yield self.time(self.p.uplink, f"{name}.confirm.from.broker", draws.fold(record.place, passes - 1))
        assert record.confirmed is not None
        record.confirmed.succeed()

    # --- reading

    def poll(self, topic: Topic, i: int, side: Side, body: Callable[..., Story], number: int) -> Story:
        """For ever: take records of a partition, when it is its turn at the member; handle each; commit."""
        p, turn = self.p, 0
        while True:
            place = draws.fold(draws.fold(0, -1 - number), turn)
            turn += 1
            yield from topic.partitions[i].until(1)
            with topic.members[i % len(topic.members)].request() as member:
                yield member
                records = topic.partitions[i].take(p.max_poll_records)
                for record in records:
                    self.deliveries[record.message] += 1
                yield self.time(p.fetch, f"{topic.name}.fetch", place)
                if p.guarantee == "at_most_once":
                    yield from self.commit(topic, side, place)
                for record in records:
                    yield from self.consume(topic, side, body, record)
                if p.guarantee == "at_least_once" and not p.auto_commit_interval:
                    yield from self.commit(topic, side, place)

    def commit(self, topic: Topic, side: Side, place: int) -> Story:
        yield from self.work(side, self.p.consume_client, f"{topic.name}.commit", place)
        yield self.time(self.p.commit_position, f"{topic.name}.position", place)

    def consume(self, topic: Topic, side: Side, body: Callable[..., Story], record: Record) -> Story:
        """Handle a record, again where that fails; aside with it in the end."""
        yield from self.work(side, self.p.consume_client, f"{topic.name}.take", record.place)
        for attempt in range(self.p.handler_retries + 1):
            if (yield from body(record, draws.fold(record.place, attempt), attempt + 1)):
                return
            if attempt < self.p.handler_retries:
                yield self.env.timeout(self.p.handler_backoff)
        self.parked[record.message] = 1
        self.deliveries[record.message] += 1

    @property
    def remembers(self) -> bool:
        return self.p.idempotent_receiver or self.p.guarantee == "exactly_once"

    def write_copy(self, record: Record, place: int, attempt: int) -> Story:
        """Shop: write the copy, where the version is newer and the message was not handled before."""
        shop, message = self.shop, record.message
        announced = KINDS[self.arrivals.kind[message]] == ORDER
        if not (yield from self.handle(shop, ANNOUNCEMENT if announced else HANDLER, message, attempt)):
            return False
        yield from self.ask_database(shop, "updates.shop.commit", place, commits=True)
        sku, again = self.arrivals.sku[message], message in shop.handled and self.remembers
        if not again and (record.version > shop.version[sku] or not self.p.write_if_newer):
            shop.level[sku], shop.version[sku] = record.level, record.version
            self.happened(message, ANNOUNCED if announced else COPIED)
        shop.handled[message] = OK, record.level, record.version
        return True

    def take(self, record: Record, place: int, attempt: int) -> Story:
        """Accounting: take the units or reject the order; announce the new level."""
        accounting, message = self.accounting, record.message
        if not (yield from self.handle(accounting, HANDLER, message, attempt)):
            return False
        yield from self.ask_database(accounting, "orders.accounting.commit", place, commits=True)
        if message not in accounting.handled or not self.remembers:
            result, level, version = REFUSED, -1, -1
            if accounting.level[self.arrivals.sku[message]] >= self.arrivals.quantity[message]:
                result, (level, version) = OK, self.change(message, -1)
                self.happened(message, TAKEN)
            accounting.handled[message] = result, level, version
        result, level, version = accounting.handled[message]
        if result != OK:
            return True
        return (yield from self.publish("announce", accounting, self.updates, message, level, version, place)) == OK

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)
        yield from self.ask_database(self.accounting, "update.accounting.commit", place, commits=True)
        level, version = self.change(message, +1)
        response = yield from self.publish("update", self.accounting, self.updates, message, level, version, place)
        yield from self.leave("update", "", self.accounting, message, place, response)

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        yield from self.ask_database(self.shop, "order.shop.commit", place, commits=True)
        sku, quantity = self.arrivals.sku[message], int(self.arrivals.quantity[message])
        response, variant = REFUSED, ".refused"
        if self.shop.level[sku] >= quantity:
            self.shop.level[sku] -= quantity
            response = yield from self.publish("order", self.shop, self.orders, message, -1, -1, place)
            variant = ""
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


def run(parameters: Streaming, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `deliveries`; `duplicates`, effects that happened again; `parked`, 1 where it was set aside.
    """
    simulation = Simulation(parameters, scenario, seed, messages)
    simulation.env.run()
    names = ("issued", "responded", "applied", "response", "version", "answer", "deliveries", "duplicates", "parked")
    return {name: getattr(simulation, name) for name in names}
