"""CQRS as a textbook would write it in SimPy: a service that takes commands, a store of events, a projection, replicas.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: commands that are called over HTTP and called again, events that are published with confirms, a projection that
fails and gets them again, replicas that lag, and the three ways to read. A scenario's faults (loss, crash, poison) are
left out. Numbers are drawn from the model's streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import simpy

from simlib import draws
from simlib.architectures.event_sourcing.oracle import Event as Appended
from simlib.architectures.event_sourcing.oracle import Simulation as EventSourcing
from simlib.architectures.ground import ANNOUNCEMENT, FAILED, HANDLER, OK, TIMED_OUT, Side, Story, had
from simlib.architectures.rest.oracle import Answer, Calls
from simlib.domain import ANNOUNCED, COPIED
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.cqrs.model import Cqrs


@dataclass
class Event:
    """A change of accounting's stock, as it is published; `settled` when the projection has acknowledged it."""

    message: int
    level: int
    version: int
    settled: simpy.Event
    copy: int = 0
    deliveries: int = 0


@dataclass
class Delivery:
    """One delivery of an event, by its number; `refused` when the projection handed it back."""

    of: Event
    number: int
    place: int
    refused: simpy.Event


class Replica:
    """One replica of the read model, which tells of every change of a SKU."""

    def __init__(self, env: simpy.Environment, units: np.ndarray) -> None:
        self.env = env
        self.level, self.version = units.tolist(), [0] * len(units)
        self.changed: dict[int, simpy.Event] = {}

    def write(self, sku: int, level: int, version: int, if_newer: bool) -> bool:
        """Another level; whether it was written."""
        if if_newer and version <= self.version[sku]:
            return False
        self.level[sku], self.version[sku] = level, version
        if sku in self.changed:
            self.changed.pop(sku).succeed()
        return True

    def until(self, sku: int, version: int) -> Story:
        """Wait for a version."""
        while self.version[sku] < version:
            yield self.changed.setdefault(sku, self.env.event())


@dataclass
class Broker:
    """JetStream's queue of events: it writes one at a time, and hands out as many as may be unacknowledged."""

    disk: simpy.Resource
    ready: simpy.PriorityStore
    credit: simpy.Container
    inbox: simpy.Store
    appended: int = 0
    returned: int = 0
    times: dict[int, list[float]] = field(default_factory=dict)


class ReadModel(Calls):
    """The shop's replicas of the read model, and the three ways to read them; how accounting takes an order is left open."""

    p: Cqrs
    take: Callable[[int, Side, int, int], Story]

    def __init__(self, p: Cqrs, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        self.replicas = [Replica(self.env, scenario.stock()) for _ in range(p.replicas)]
        self.tokens: dict[tuple[int, int], int] = {}

    def replicate(self, event: Event | Appended, place: int) -> Story:
        """Each further replica gets it from the one before."""
        for k in range(1, self.p.replicas):
            yield self.time(self.p.replication, f"replica.{k}", place)
            yield from self.ask_database(self.shop, f"replica.{k}.write.commit", place, commits=True)
            sku = int(self.arrivals.sku[event.message])
            self.replicas[k].write(sku, event.level, event.version, self.p.write_if_newer)

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        serve = partial(self.take, message)
        answer = yield from self.request("order", self.shop, self.accounting, place, serve, message)
        yield from self.remember(message, answer, place)
        yield from self.leave("order", self.shop, message, place, answer.response)

    def remember(self, message: int, answer: Answer, place: int) -> Story:
        """What makes an order that was taken visible to its customer."""
        sku, session = int(self.arrivals.sku[message]), int(self.arrivals.session[message])
        if answer.response == OK and self.p.read_your_writes == "token":
            self.tokens[session, sku] = answer.version
        if answer.response == OK and self.p.read_your_writes == "sticky":
            yield from self.ask_database(self.shop, "order.shop.remember.commit", place, commits=True)
            own = self.replicas[session % self.p.replicas]
            own.write(sku, answer.level, answer.version, self.p.write_if_newer)

    def query(self, message: int, place: int) -> Story:
        yield from self.enter("query", self.shop, message, place)
        response = FAILED
        if (yield from self.handle(self.shop, HANDLER, message, 1)):
            sku, session = int(self.arrivals.sku[message]), int(self.arrivals.session[message])
            replica = self.replicas[int(self.uniform("copy.replica", place) * self.p.replicas)]
            if self.p.read_your_writes == "token":
                yield from self.within(self.p.patience, replica.until(sku, self.tokens.get((session, sku), 0)))
            elif self.p.read_your_writes == "sticky" and self.uniform("query.affinity", place) < self.p.affinity:
                replica = self.replicas[session % self.p.replicas]
            yield from self.ask_database(self.shop, "query.shop.read", place, commits=False)
            response, self.answer[message], self.version[message] = OK, replica.level[sku], replica.version[sku]
        yield from self.leave("query", self.shop, message, place, response)


class Simulation(ReadModel):
    """One run in which events are published to a queue."""

    def __init__(self, p: Cqrs, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        env = self.env
        credit = simpy.Container(env, p.prefetch, p.prefetch)
        self.broker = Broker(simpy.Resource(env), simpy.PriorityStore(env), credit, simpy.Store(env))
        self.keys: dict[int, Answer] = {}
        self.projected: set[int] = set()
        env.process(self.dispatch())
        for _ in range(p.consumers):
            env.process(self.project())
        self.issue()

    # --- commands

    def take(self, message: int, side: Side, attempt: int, place: int) -> Story:
        """The units are taken, and an event says so; or the order is refused. A known key gets its first answer."""
        if not (yield from self.handle(side, HANDLER, message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(side, "order.accounting.commit", place, commits=True)
        if self.p.idempotency and message in self.keys:
            return self.keys[message]
        answer = self.keys[message] = Answer(*self.reserve(message, attempt))
        if answer.response == OK:
            self.beside(self.publish("announce", self.event(message, answer.level, answer.version), place))
            self.beside(self.call_services(side, message, attempt, place))
        return answer

    def event(self, message: int, level: int, version: int) -> Event:
        """What is to be published."""
        return Event(message, level, version, self.env.event())

    # --- events

    def publish(self, label: str, event: Event, place: int) -> Story:
        """Accounting publishes, and waits for the confirm where there is one; again where it does not come. The response."""
        for attempt in range(self.p.confirm_retries + 1):
            at = draws.fold(place, attempt) if self.p.confirm else place
            self.attempts[event.message] += self.p.confirm and label == "update"
            yield from self.accounting.cpu.turns(1)
            yield from self.work(self.accounting, self.p.publish_client, f"{label}.publish.send", at)
            confirmed = self.env.event()
            self.env.process(self.store(label, event, at, confirmed))
            if not self.p.confirm:
                return OK
            yield confirmed | self.env.timeout(self.p.confirm_timeout)
            if confirmed.triggered:
                yield from self.accounting.cpu.turns(self.p.client.confirm)
                yield from self.work(self.accounting, self.p.publish_client, f"{label}.publish.took", at)
                return OK
        return TIMED_OUT

    def store(self, label: str, event: Event, place: int, confirmed: simpy.Event) -> Story:
        """What is published travels, is written, and confirmed; what the broker has already, it drops and confirms."""
        broker = self.broker
        yield self.time(self.p.uplink, f"{label}.publish.there.from.accounting", place)
        with broker.disk.request() as turn:
            yield turn
            yield self.time(self.p.store, f"{label}.store", place)
        times = broker.times.setdefault(event.message, [])
        if not times or self.env.now - times[-1] > self.p.deduplication:
            new = Event(event.message, event.level, event.version, self.env.event(), copy=len(times))
            times.append(self.env.now)
            broker.appended += 1
            broker.ready.put(simpy.PriorityItem(broker.appended, new))
        if self.p.confirm:
            yield self.time(self.p.uplink, f"{label}.publish.back.from.broker", place)
            confirmed.succeed()

    def dispatch(self) -> Story:
        """Hand out what is ready, as long as there is credit."""
        while True:
            yield self.broker.credit.get(1)
            event = (yield self.broker.ready.get()).item
            self.env.process(self.deliver(event))

    def deliver(self, event: Event) -> Story:
        """One delivery: its credit is back when it is settled, or back at the head of the queue, or parked."""
        if not event.settled.triggered:
            event.deliveries += 1
            self.deliveries[event.message] += 1
            place = draws.fold(draws.fold(0, event.message), event.deliveries - 1)
            place = draws.fold(place, event.copy) if event.copy else place
            delivery = Delivery(event, event.deliveries, place, self.env.event())
            self.env.process(self.carry(delivery))
            if self.p.manual_ack:
                yield from self.await_acknowledgement(delivery)
        yield self.broker.credit.put(1)

    def carry(self, delivery: Delivery) -> Story:
        way = self.drawn(self.p.uplink, "updates.deliver.from.broker", delivery.place)
        yield self.env.timeout(way + self.drawn(self.p.dispatch, "updates.dispatch", delivery.place))
        yield self.broker.inbox.put(delivery)

    def await_acknowledgement(self, delivery: Delivery) -> Story:
        event, last = delivery.of, delivery.number == self.p.max_deliveries
        yield event.settled | delivery.refused | self.env.timeout(self.p.ack_wait)
        if delivery.refused.triggered and not last and self.p.redelivery_delay:
            yield event.settled | self.env.timeout(self.p.redelivery_delay)
        if event.settled.triggered:
            return
        if last:
            self.parked[event.message] |= self.p.park
        else:
            self.broker.returned += 1
            self.broker.ready.put(simpy.PriorityItem(-self.broker.returned, event))

    # --- the projection

    def project(self) -> Story:
        """A consumer, for ever: take an event, write it into the read model, acknowledge it or hand it back."""
        while True:
            next_one = self.broker.inbox.get()
            through = 0 if next_one.triggered else self.p.client.delivery
            delivery = yield from had(next_one)
            yield from self.shop.cpu.turns(through)
            event, place = delivery.of, delivery.place
            yield from self.work(self.shop, self.p.consume_client, "updates.take", place)
            work = ANNOUNCEMENT if self.ordered(event.message) else HANDLER
            done = yield from self.handle(self.shop, work, event.message, delivery.number)
            if done:
                yield from self.ask_database(self.shop, "updates.shop.commit", place, commits=True)
                self.write(event)
                self.env.process(self.replicate(event, place))
            answer = "ack" if done else "nack"
            yield from self.work(self.shop, self.p.consume_client, f"updates.{answer}", place)
            if self.p.manual_ack:
                self.env.process(self.tell(delivery, event.settled if done else delivery.refused))

    def write(self, event: Event) -> None:
        """Into the first replica, where the event was not handled before."""
        if event.message in self.projected and self.p.idempotent_receiver:
            return
        self.projected.add(event.message)
        sku = int(self.arrivals.sku[event.message])
        if self.replicas[0].write(sku, event.level, event.version, self.p.write_if_newer):
            self.happened(event.message, ANNOUNCED if self.ordered(event.message) else COPIED)

    def tell(self, delivery: Delivery, what: simpy.Event) -> Story:
        yield self.time(self.p.uplink, "updates.settle.from.shop", delivery.place)
        if not what.triggered:
            what.succeed()

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)
        yield from self.ask_database(self.accounting, "update.accounting.commit", place, commits=True)
        response = yield from self.publish("update", self.event(message, *self.change(message, +1)), place)
        yield from self.leave("update", self.accounting, message, place, response)


class Sourced(ReadModel, EventSourcing):
    """One run in which accounting keeps its events, and the projection subscribes to them."""

    p: Cqrs

    def write_copy(self, event: Appended, place: int) -> None:
        sku = int(self.arrivals.sku[event.message])
        if self.replicas[0].write(sku, event.level, event.version, self.p.write_if_newer):
            self.happened(event.message, ANNOUNCED if self.ordered(event.message) else COPIED)
        self.env.process(self.replicate(event, place))


def run(parameters: Cqrs, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `attempts` of the caller; `deliveries`; `duplicates`, effects that happened again; `parked`, 1
    where it was parked.
    """
    kind = Sourced if parameters.event_sourcing else Simulation
    return kind(parameters, scenario, seed, messages).run("attempts", "deliveries", "parked")
