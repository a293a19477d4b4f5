"""A transactional outbox as a textbook would write it in SimPy: a list for each side's outbox, a process for its relay.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path of the polling and of the log-tailing relay and of the dual write, and the pattern's signature
fault, a relay that does not know whether it has published, and publishes again; behind it a queue with confirms,
refusals and acknowledgements. A scenario's faults (loss, crash, poison) are left out. Numbers are drawn from the model's
streams at the model's places, so that equal stories give equal times.
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
    from simlib.architectures.outbox.model import Outbox

OK, REFUSED, FAILED, TIMED_OUT = (RESPONSES.index(name) for name in ("ok", "refused", "failed", "timed_out"))
HANDLER, ANNOUNCEMENT = "handler_work", "announcement_work"
"""Streams of the handlers' work, which all architectures share."""
DRAINED = 60.0
"""For so long after the last arrival relays poll, s."""
Story = Generator[simpy.Event, Any, Any]


@dataclass
class Published:
    """A message in a queue, or a row of an outbox: what it carries; `settled` when it was acknowledged."""

    message: int
    settled: simpy.Event
    level: int = -1
    version: int = -1
    copy: int = 0
    deliveries: int = 0


@dataclass
class Delivery:
    """One delivery of what was published, by its number; `refused` when the consumer handed it back."""

    of: Published
    number: int
    place: int
    refused: simpy.Event


class Queue:
    """A queue at the broker: it writes one message at a time, and hands out as many as may be unacknowledged."""

    def __init__(self, env: simpy.Environment, name: str, p: Outbox) -> None:
        self.name = name
        self.disk = simpy.Resource(env)
        self.ready = simpy.PriorityStore(env)
        self.credit = simpy.Container(env, init=p.prefetch, capacity=p.prefetch)
        self.inbox = simpy.Store(env)
        self.appended = self.returned = 0
        self.times: dict[int, list[float]] = {}


class Side:
    """A service: one event loop, its connections to its database, its goods, what it remembers to have handled, the rows of
    its outbox that are not published, and what its relay waits for; `number` and `turn` say where the relay draws."""

    def __init__(self, env: simpy.Environment, name: str, p: Outbox, units: np.ndarray) -> None:
        self.name = name
        self.cpu = simpy.Resource(env)
        self.database = simpy.Resource(env, p.database_connections)
        self.level, self.version = units.tolist(), [0] * len(units)
        self.handled: dict[int, tuple[int, int, int]] = {}
        self.outbox: list[Published] = []
        self.written: dict[int, int] = {}
        self.awaited: simpy.Event | None = None
        self.number, self.turn = ("accounting", "shop").index(name), 0


class Simulation:
    """One run."""

    def __init__(self, p: Outbox, scenario: Scenario, seed: int, messages: int) -> None:
        self.p, self.scenario, self.seed = p, scenario, seed
        self.env = env = simpy.Environment()
        self.arrivals = scenario.draw(seed, messages)
        self.cores, self.log = simpy.Resource(self.env, p.cores), simpy.Resource(self.env)
        self.accounting, self.shop = (Side(env, name, p, scenario.stock()) for name in ("accounting", "shop"))
        self.issued, (self.responded, self.applied) = self.arrivals.issued, np.full((2, messages), np.nan)
        self.response, self.deliveries, self.duplicates, self.parked = np.zeros((4, messages), int)
        self.version, self.answer = np.full((2, messages), -1)
        self.done: set[tuple[int, str]] = set()
        self.updates, self.orders = (Queue(env, name, p) for name in ("updates", "orders"))
        for queue, side, body in (
            (self.updates, self.shop, self.write_copy),
            (self.orders, self.accounting, self.take),
        ):
            env.process(self.dispatch(queue, side))
            for _ in range(p.consumers):
                env.process(self.consume(queue, side, body))
        if p.publisher != "dual_write":
            env.process(self.relay(self.accounting, self.updates))
            env.process(self.relay(self.shop, self.orders))
        if p.publisher == "polling":
            self.tick_until(self.issued[-1] + DRAINED)
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

    def ask_database(self, side: Side, stream: str, place: int, commits: bool, insert: str = "") -> Story:
        """A transaction; `insert` names the row that it also writes to the outbox."""
        with side.database.request() as connection:
            yield connection
            yield from self.work(side, self.p.database_client, f"{stream}.ask", place)
            yield from self.on_a_core(self.p.read, stream, place)
            if insert and self.p.publisher != "dual_write":
                yield from self.on_a_core(self.p.insert, insert, place)
            if commits:
                yield from self.flush(stream, place)
            yield from self.work(side, self.p.database_client, f"{stream}.took", place)

    def flush(self, stream: str, place: int) -> Story:
        with self.log.request() as turn:
            yield turn
            yield self.time(self.p.commit, f"{stream}.flush", place)

    def handle(self, side: Side, stream: str, message: int, attempt: int) -> Story:
        """The handler's work; whether it succeeds. Every architecture meets the same at the same attempt."""
        place = draws.fold(draws.fold(0, message), attempt - 1)
        yield from self.work(side, self.scenario.handler_work, stream, place)
        failure = draws.stream_key(self.seed, f"handler_failure.{stream}")
        return draws.uniform(failure, place) >= self.scenario.handler_failure

    # --- the outbox and its relay

    def write(self, side: Side, message: int, level: int = -1, version: int = -1) -> None:
        """A row of the outbox, in the transaction that has just been committed."""
        copy = side.written.get(message, 0)
        side.written[message] = copy + 1
        side.outbox.append(Published(message, self.env.event(), level, version, copy))
        if self.p.publisher == "log_tailing":
            self.rouse(side)

    def rouse(self, side: Side) -> None:
        """The relay goes on, if it waits."""
        if side.awaited is not None:
            side.awaited.succeed()
            side.awaited = None

    def tick_until(self, end: float) -> None:
        """The relays that wait go on at every multiple of the interval."""

        def tick(_: simpy.Event) -> None:
            for side in (self.accounting, self.shop):
                self.rouse(side)

        for k in range(1, int(end / self.p.poll_interval)):
            timeout = self.env.timeout(k * self.p.poll_interval)
            assert timeout.callbacks is not None
            timeout.callbacks.append(tick)

    def relay(self, side: Side, queue: Queue) -> Story:
        """For ever: take rows, publish each in turn, and only then forget them; all of them again where that failed."""
        name, polls = f"{side.name}.relay", self.p.publisher == "polling"
        while True:
            place = draws.fold(draws.fold(0, -1 - side.number), side.turn)
            side.turn += 1
            if polls or not side.outbox:
                side.awaited = self.env.event()
                yield side.awaited
            if polls:
                rows = yield from self.poll(side, name, place)
            else:
                yield self.time(self.p.tail, f"{name}.tail", place)
                rows = self.take_rows(side)
            for row in rows:
                if (yield from self.publish(name, side, queue, row, self.place(row, row.deliveries))) != OK:
                    side.outbox[:0] = rows
                    break
            else:
                if polls and rows:
                    yield from self.mark(side, name, place, len(rows))

    def take_rows(self, side: Side) -> list[Published]:
        rows, side.outbox = side.outbox[: self.p.batch_size], side.outbox[self.p.batch_size :]
        for row in rows:
            row.deliveries += 1
            self.deliveries[row.message] += 1
        return rows

    def poll(self, side: Side, name: str, place: int) -> Story:
        """The rows that are there when the database begins to look."""
        with side.database.request() as connection:
            yield connection
            yield from self.work(side, self.p.database_client, f"{name}.poll.ask", place)
            rows = self.take_rows(side)
            yield from self.on_rows(f"{name}.poll", place, len(rows))
            yield from self.work(side, self.p.database_client, f"{name}.poll.took", place)
        return rows

    def mark(self, side: Side, name: str, place: int, rows: int) -> Story:
        with side.database.request() as connection:
            yield connection
            yield from self.work(side, self.p.database_client, f"{name}.mark.ask", place)
            yield from self.on_rows(f"{name}.mark", place, rows)
            yield from self.flush(f"{name}.mark", place)
            yield from self.work(side, self.p.database_client, f"{name}.mark.took", place)

    def on_rows(self, stream: str, place: int, rows: int) -> Story:
        """The server's work for a statement on so many rows."""
        with self.cores.request() as core:
            yield core
            drawn = self.p.read.draw(draws.stream_key(self.seed, stream))(place)
            yield self.env.timeout(drawn + self.p.per_row * rows)

    @staticmethod
    def place(of: Published, number: int) -> int:
        """Where the draws of a delivery stand, of a message or of a row."""
        place = draws.fold(draws.fold(0, of.message), number - 1)
        return draws.fold(place, of.copy) if of.copy else place

    # --- the broker

    def publish(self, label: str, side: Side, queue: Queue, it: Published, place: int) -> Story:
        """Publish, and wait for the confirm where there is one; again where it does not come. The response."""
        if not self.p.confirm:
            yield from self.work(side, self.p.publish_client, f"{label}.publish.send", place)
            self.env.process(self.store(label, side, queue, it, place))
            return OK
        for attempt in range(self.p.confirm_retries + 1):
            at = draws.fold(place, attempt)
            yield from self.work(side, self.p.publish_client, f"{label}.publish.send", at)
            confirmed = self.env.event()
            self.env.process(self.store(label, side, queue, it, at, confirmed))
            yield confirmed | self.env.timeout(self.p.confirm_timeout)
            if confirmed.triggered:
                yield from self.work(side, self.p.publish_client, f"{label}.publish.took", at)
                return OK
        return TIMED_OUT

    def store(
        self, label: str, side: Side, queue: Queue, it: Published, place: int, confirmed: simpy.Event | None = None
    ) -> Story:
        """What is published travels, is written, and confirmed; what the queue has already, it drops and confirms."""
        yield self.time(self.p.uplink, f"{label}.publish.there.from.{side.name}", place)
        with queue.disk.request() as turn:
            yield turn
            yield self.time(self.p.store, f"{label}.store", place)
        times = queue.times.setdefault(it.message, [])
        if not times or self.env.now - times[-1] > self.p.deduplication:
            new = Published(it.message, self.env.event(), it.level, it.version, copy=len(times))
            times.append(self.env.now)
            queue.appended += 1
            queue.ready.put(simpy.PriorityItem(queue.appended, new))
        if confirmed:
            yield self.time(self.p.uplink, f"{label}.publish.back.from.broker", place)
            confirmed.succeed()

    def dispatch(self, queue: Queue, to: Side) -> Story:
        """Hand out what is ready, as long as there is credit."""
        while True:
            yield queue.credit.get(1)
            it = (yield queue.ready.get()).item
            self.env.process(self.deliver(queue, it, to))

    def deliver(self, queue: Queue, it: Published, to: Side) -> Story:
        """One delivery: its credit is back when it is settled, or back at the head of the queue, or parked."""
        if not it.settled.triggered:
            it.deliveries += 1
            self.deliveries[it.message] += 1
            delivery = Delivery(it, it.deliveries, self.place(it, it.deliveries), self.env.event())
            self.env.process(self.carry(queue, delivery))
            if self.p.manual_ack:
                yield from self.await_acknowledgement(queue, delivery)
        yield queue.credit.put(1)

    def carry(self, queue: Queue, delivery: Delivery) -> Story:
        way = self.drawn(self.p.uplink, f"{queue.name}.deliver.from.broker", delivery.place)
        yield self.env.timeout(way + self.drawn(self.p.dispatch, f"{queue.name}.dispatch", delivery.place))
        yield queue.inbox.put(delivery)

    def await_acknowledgement(self, queue: Queue, delivery: Delivery) -> Story:
        it, last = delivery.of, delivery.number == self.p.max_deliveries
        yield it.settled | delivery.refused | self.env.timeout(self.p.ack_wait)
        if delivery.refused.triggered and not last and self.p.redelivery_delay:
            yield it.settled | self.env.timeout(self.p.redelivery_delay)
        if it.settled.triggered:
            return
        if last:
            self.parked[it.message] |= self.p.park
        else:
            queue.returned += 1
            queue.ready.put(simpy.PriorityItem(-queue.returned, it))

    def consume(self, queue: Queue, side: Side, body: Callable[[Delivery], Story]) -> Story:
        """A consumer, for ever: take a delivery, handle it, acknowledge it or hand it back."""
        while True:
            delivery = yield queue.inbox.get()
            yield from self.work(side, self.p.consume_client, f"{queue.name}.take", delivery.place)
            done = yield from body(delivery)
            answer = "ack" if done else "nack"
            yield from self.work(side, self.p.consume_client, f"{queue.name}.{answer}", delivery.place)
            if self.p.manual_ack:
                self.env.process(self.tell(queue, side, delivery, delivery.of.settled if done else delivery.refused))

    def tell(self, queue: Queue, side: Side, delivery: Delivery, what: simpy.Event) -> Story:
        yield self.time(self.p.uplink, f"{queue.name}.settle.from.{side.name}", delivery.place)
        if not what.triggered:
            what.succeed()

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)
        yield from self.ask_database(self.accounting, "update.accounting.commit", place, True, "update.insert")
        level, version = self.change(message, +1)
        response = OK
        if self.p.publisher == "dual_write":
            it = Published(message, self.env.event(), level, version)
            response = yield from self.publish("update", self.accounting, self.updates, it, place)
        else:
            self.write(self.accounting, message, level, version)
        yield from self.leave("update", "", self.accounting, message, place, response)

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        yield from self.ask_database(self.shop, "order.shop.commit", place, True, "order.insert")
        sku, quantity = self.arrivals.sku[message], int(self.arrivals.quantity[message])
        response, variant = OK, ""
        if self.shop.level[sku] < quantity:
            response, variant = REFUSED, ".refused"
        else:
            self.shop.level[sku] -= quantity
            if self.p.publisher == "dual_write":
                it = Published(message, self.env.event())
                response = yield from self.publish("order", self.shop, self.orders, it, place)
            else:
                self.write(self.shop, message)
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

    # --- what the consumers do; whether it is done

    def write_copy(self, delivery: Delivery) -> Story:
        """Shop: write the copy, where the version is newer and the message was not handled before."""
        it, shop = delivery.of, self.shop
        announced = KINDS[self.arrivals.kind[it.message]] == ORDER
        if not (yield from self.handle(shop, ANNOUNCEMENT if announced else HANDLER, it.message, delivery.number)):
            return False
        yield from self.ask_database(shop, "updates.shop.commit", delivery.place, commits=True)
        sku, again = self.arrivals.sku[it.message], it.message in shop.handled and self.p.idempotent_receiver
        if not again and (it.version > shop.version[sku] or not self.p.write_if_newer):
            shop.level[sku], shop.version[sku] = it.level, it.version
            self.happened(it.message, ANNOUNCED if announced else COPIED)
        shop.handled[it.message] = OK, it.level, it.version
        return True

    def take(self, delivery: Delivery) -> Story:
        """Accounting: take the units or reject the order; announce the new level, in the same transaction or after it."""
        it, accounting, place = delivery.of, self.accounting, delivery.place
        if not (yield from self.handle(accounting, HANDLER, it.message, delivery.number)):
            return False
        yield from self.ask_database(accounting, "orders.accounting.commit", place, True, "announce.insert")
        dual = self.p.publisher == "dual_write"
        if it.message not in accounting.handled or not self.p.idempotent_receiver:
            result, level, version = REFUSED, -1, -1
            if accounting.level[self.arrivals.sku[it.message]] >= self.arrivals.quantity[it.message]:
                result, (level, version) = OK, self.change(it.message, -1)
                self.happened(it.message, TAKEN)
                if not dual:
                    self.write(accounting, it.message, level, version)
            accounting.handled[it.message] = result, level, version
        result, level, version = accounting.handled[it.message]
        if result != OK or not dual:
            return True
        news = Published(it.message, self.env.event(), level, version)
        return (yield from self.publish("announce", accounting, self.updates, news, place)) == OK

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


def run(parameters: Outbox, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `deliveries`; `duplicates`, effects that happened again; `parked`, 1 where it was parked.
    """
    simulation = Simulation(parameters, scenario, seed, messages)
    simulation.env.run()
    names = ("issued", "responded", "applied", "response", "version", "answer", "deliveries", "duplicates", "parked")
    return {name: getattr(simulation, name) for name in names}
