"""Streaming as a textbook would write it in SimPy: a list for each partition, processes that write batches, processes that poll.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, batches that linger, confirms that come late and records that are published again, handlers that
fail, orders that are counted in windows, members of a group that are processes and die alone. A scenario's other faults are
left out. Numbers are drawn from the model's streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import simpy

from simlib import draws
from simlib.architectures.ground import ANNOUNCEMENT, HANDLER, OK, REFUSED, TIMED_OUT, Ground, InOrder, Side, Story, had
from simlib.architectures.parameters import THREAD_DONE
from simlib.architectures.streaming.story import Group, Member, Partition, Record, Shelf
from simlib.scenario import Crash, Scenario

if TYPE_CHECKING:
    from simlib.architectures.streaming.model import Streaming


class Follower:
    """A follower: what it has not fetched yet, and who waits until it has a message."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self.missing = env, Shelf(env)
        self.arrivals: dict[int, simpy.Event] = {}

    def has(self, message: int) -> simpy.Event:
        return self.arrivals.setdefault(message, self.env.event())


class Topic:
    """A topic: what waits to be written, its disk, its partitions as its group and as the windows read them, what it has
    written before."""

    def __init__(self, env: simpy.Environment, name: str, p: Streaming) -> None:
        self.name, self.batch, self.next, self.io = name, Shelf(env), simpy.Resource(env), simpy.Resource(env)
        self.partitions = [Partition(env) for _ in range(p.partitions)]
        self.to_count = [Shelf(env) for _ in range(p.partitions)]
        self.written, self.appended = set[int](), set[int]()
        self.watermark = simpy.Resource(env)
        self.followers = [Follower(env) for _ in range(p.followers if p.acks == "all" else 0)]


class Simulation(Ground):
    """One run."""

    p: Streaming

    def __init__(self, p: Streaming, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        env = self.env
        self.seen: set[int] = set()
        self.known: dict[int, tuple[int, int, int]] = {}
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
            group = Group(env, p, topic.partitions, self.processes(side))
            for member in group.members:
                for i, partition in enumerate(topic.partitions):
                    turn, places = member.turns[i % len(member.turns)], self.turns(number)
                    member.polls.append(partial(self.poll, topic, group, member, partition, turn, body, places))
                    number += 1
                group.begin(member)
                for time, restart in self.deaths(member.side):
                    env.process(group.crash(member, time, restart))
        if p.window:
            self.windows, self.thread = replace(self.side("windows"), cpu=InOrder(env)), simpy.Resource(env)
            self.counts: dict[tuple[int, int], int] = {}
            self.counted, self.counted_at = np.full(messages, -1), np.full(messages, np.nan)
            env.process(self.restore(number))
            for i in range(p.partitions):
                env.process(self.count(self.orders.to_count[i], number + 1 + i))
        self.issue()

    def processes(self, side: Side) -> list[Side]:
        """A side's processes, each with an event loop of its own, on one database."""
        names = [f"{side.name}.{number}" for number in range(2, self.p.processes + 1)]
        return [side, *(replace(side, name=name, cpu=self.event_loop()) for name in names)]

    def deaths(self, process: Side) -> Iterator[tuple[float, float]]:
        """When a process dies, and for how long."""
        for name, fault in self.scenario.strikes.items():
            if isinstance(fault, Crash) and fault.part == process.name:
                for nth, time in enumerate(fault.at):
                    yield time, self.drawn(fault.restart, f"{name}.lasts", draws.fold(0, nth))

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
                yield from side.cpu.turns(THREAD_DONE)
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
        p, name = self.p, topic.name
        for place in self.turns(number):
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
                pass_through = draws.fold(batch[0].place, 1) if topic.followers else batch[0].place
                self.env.process(self.on_a_core(p.broker_work, f"{name}.work", pass_through))
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
                number = self.arrivals.sku[record.message] % self.p.partitions
                for partition in (topic.partitions[number], topic.to_count[number]):
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
        for place in self.turns(number):
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

    def poll(
        self, topic: Topic, group: Group, member: Member, partition: Partition, turn: simpy.Resource,
        body: Callable[..., Story], places: Iterator[int],
    ) -> Story:  # fmt: skip
        """Until the member dies: take records of a partition, when it is its turn at the member; handle each; commit."""
        p, side = self.p, member.side
        try:
            for place in places:
                yield from partition.until_offered(member)
                with turn.request() as had_turn:
                    yield from had(had_turn)
                    if not partition.offers(member):
                        continue
                    records = partition.lend(p.max_poll_records)
                    member.in_hand += 1
                    for record in records:
                        self.deliveries[record.message] += 1
                    yield self.time(p.fetch, f"{topic.name}.fetch", place)
                    yield from side.cpu.turns(THREAD_DONE)
                    yield from self.consume_all(topic, side, body, partition, records, place)
                member.in_hand -= 1
                group.rests(member)
        except simpy.Interrupt:
            return

    def consume_all(
        self,
        topic: Topic,
        side: Side,
        body: Callable[..., Story],
        partition: Partition,
        records: list[Record],
        place: int,
    ) -> Story:
        """Handle records; their position is committed before, with each of them or by the clock, or after."""
        p = self.p
        each = p.guarantee == "exactly_once" or (p.guarantee == "at_least_once" and p.auto_commit_interval > 0)
        if p.guarantee == "at_most_once":
            yield from self.commit(topic, side, place)
            partition.commit(records)
        for record in records:
            yield from self.consume(topic, side, body, record)
            if each:
                partition.commit([record])
        if p.guarantee == "at_least_once" and not each:
            yield from self.commit(topic, side, place)
            partition.commit(records)

    def commit(self, topic: Topic, side: Side, place: int) -> Story:
        yield from self.work(side, self.p.consume_client, f"{topic.name}.commit", place)
        yield self.time(self.p.commit_position, f"{topic.name}.position", place)
        yield from side.cpu.turns(THREAD_DONE)

    def consume(self, topic: Topic, side: Side, body: Callable[..., Story], record: Record) -> Story:
        """Handle a record, again where that fails; aside with it in the end."""
        yield from self.work(side, self.p.consume_client, f"{topic.name}.take", record.place)
        for attempt in range(self.p.handler_retries + 1):
            if (yield from body(side, record, draws.fold(record.place, attempt), attempt + 1)):
                return
            if attempt < self.p.handler_retries:
                yield self.env.timeout(self.p.handler_backoff)
        self.parked[record.message] = 1
        self.deliveries[record.message] += 1

    @property
    def remembers(self) -> bool:
        return self.p.idempotent_receiver or self.p.guarantee == "exactly_once"

    def write_copy(self, shop: Side, record: Record, place: int, attempt: int) -> Story:
        """Shop: write the copy, where the version is newer and the message was not handled before."""
        message = record.message
        work = ANNOUNCEMENT if self.ordered(message) else HANDLER
        if not (yield from self.handle(shop, work, message, attempt)):
            return False
        yield from self.ask_database(shop, "updates.shop.commit", place, commits=True)
        if message not in self.seen or not self.remembers:
            self.show(message, record.level, record.version, self.p.write_if_newer)
        self.seen.add(message)
        return True

    def take(self, accounting: Side, record: Record, place: int, attempt: int) -> Story:
        """Accounting: take the units or reject the order; call for the further steps; announce the new level."""
        message = record.message
        if not (yield from self.handle(accounting, HANDLER, message, attempt)):
            return False
        yield from self.ask_database(accounting, "orders.accounting.commit", place, commits=True)
        if message not in self.known or not self.remembers:
            self.known[message] = self.reserve(message, attempt)
            if self.known[message][0] == OK:
                self.beside(self.call_services(accounting, message, attempt, self.decided(message, attempt, place)))
        result, level, version = self.known[message]
        if result != OK:
            return True
        return (yield from self.publish("announce", accounting, self.updates, message, level, version, place)) == OK

    # --- counting

    def restore(self, number: int) -> Story:
        """Before anything is counted: look into each partition of the changelog, which is empty."""
        place, several = draws.fold(draws.fold(0, -1 - number), 0), self.p.partitions > 1
        with self.thread.request() as turn:
            yield turn
            for i in range(self.p.partitions):
                yield self.time(self.p.fetch, f"windows.changelog{f'.{i}' if several else ''}.fetch", place)

    def count(self, shelf: Shelf, number: int) -> Story:
        """For ever: count the orders that are there, and write that down; in a transaction, so many as come in before its end."""
        p, exactly_once = self.p, self.p.guarantee == "exactly_once"
        for place in self.turns(number):
            yield from shelf.until(1)
            if exactly_once:
                yield self.env.timeout(p.commit_interval)
            with self.thread.request() as turn:
                yield turn
                records = shelf.take(len(shelf.records))
                yield self.time(p.fetch, "windows.fetch", place)
                for record in records:
                    yield from self.work(self.windows, p.consume_client, "windows.take", record.place)
                    yield from self.work(self.windows, p.publish_client, "windows.result", record.place)
                yield self.time(p.uplink, "windows.there", place)
                yield self.env.timeout(self.drawn(p.write_batch, "windows.append", place) + p.per_record * len(records))
                if not p.flush_every:
                    yield self.time(p.flush, "windows.flush", place)
                yield self.time(p.replicate, "windows.replication", place)
                yield self.time(p.uplink, "windows.back", place)
                if exactly_once:
                    yield self.time(p.commit_position, "windows.position", place)
                    yield self.time(p.commit_position, "windows.transaction", place)
                self.tally(records)

    def tally(self, records: list[Record]) -> None:
        """Each order counts in the window of its SKU in which it was issued."""
        for record in records:
            self.deliveries[record.message] += 2  # as an order, and as a change in the changelog
            window = self.arrivals.sku[record.message], int(self.issued[record.message] // self.p.window)
            self.counts[window] = self.counted[record.message] = self.counts.get(window, 0) + 1
            self.counted_at[record.message] = self.env.now

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)
        yield from self.ask_database(self.accounting, "update.accounting.commit", place, commits=True)
        level, version = self.change(message, +1)
        response = yield from self.publish("update", self.accounting, self.updates, message, level, version, place)
        yield from self.leave("update", self.accounting, message, place, response)

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        yield from self.ask_database(self.shop, "order.shop.commit", place, commits=True)
        response, variant = REFUSED, ".refused"
        if self.promise(message):
            response = yield from self.publish("order", self.shop, self.orders, message, -1, -1, place)
            variant = ""
        yield from self.leave("order", self.shop, message, place, response, variant)


def run(parameters: Streaming, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `deliveries`; `duplicates`, effects that happened again; `parked`, 1 where it was set aside. Where
    orders are counted in windows, `counted`, the window's count after the order, -1 for none, and `counted_at`, s.
    """
    counted = ("counted", "counted_at") if parameters.window else ()
    return Simulation(parameters, scenario, seed, messages).run("deliveries", "parked", *counted)
