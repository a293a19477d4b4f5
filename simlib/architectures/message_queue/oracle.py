"""A message queue as a textbook would write it in SimPy: stores for queue and inbox, a container for the credit.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, and the pattern's signature fault, a handler that fails: the delivery is refused, delivered
again after a delay, and parked after the last; with confirms, acknowledgements that travel, and a limit of what is
unacknowledged; and how a queue may be limited, shared, and replicated. A scenario's faults (loss, crash, poison) are
left out. Numbers are drawn from the model's streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import simpy

from simlib import draws
from simlib.architectures.ground import (
    ANNOUNCEMENT,
    FAILED,
    HANDLER,
    OK,
    REFUSED,
    TIMED_OUT,
    Ground,
    GroupCommit,
    Known,
    Side,
    Story,
    had,
)
from simlib.domain import RESERVE
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.message_queue.model import MessageQueue

RETURNED = -1
"""What a publisher hears of a message that comes back."""
DRAINED = 60.0
"""So long after the last message was issued nobody publishes any more, s."""


@dataclass
class Published:
    """A message in a queue: what it carries, who waits for a reply to it; `settled` when it was acknowledged."""

    message: int
    settled: simpy.Event
    level: int = -1
    version: int = -1
    replied: simpy.Event | None = None
    urgent: bool = False
    published: float = 0.0
    out: bool = False
    copy: int = 0
    deliveries: int = 0


@dataclass
class Delivery:
    """One delivery of what was published, by its number; `refused` when the consumer handed it back."""

    of: Published
    number: int
    place: int
    refused: simpy.Event
    inbox: int


@dataclass(frozen=True)
class Plain:
    """What a queue is like where nothing else is chosen."""

    answered_on: str = "confirm"
    sharing: str = "competing"
    orders_first: bool = False
    at_limit: str = "unlimited"
    max_length: int = 0
    expire: bool = False
    group_commit: bool = False
    unbound: str = "none"
    time_to_live: float = 0.0
    nodes: int = 1
    between_nodes: float = 0.0


PLAIN = Plain()


class Queue:
    """A queue at the broker: it writes one message at a time, and hands out as many as may be unacknowledged: in one inbox
    for all consumers (JetStream), or in one of each, in turn (RabbitMQ)."""

    def __init__(
        self, env: simpy.Environment, name: str, p: MessageQueue, label: str = "", consumers: int = 0, nodes: int = 1
    ) -> None:
        self.name, self.label, self.consumers = name, label or name, consumers or p.consumers
        inboxes = 1 if p.semantics.shared else self.consumers
        self.disks = [simpy.Resource(env) for _ in range(nodes)]
        self.together: list[GroupCommit] = []
        self.ready = simpy.PriorityStore(env)
        self.credit = simpy.Container(env, init=inboxes * p.prefetch, capacity=inboxes * p.prefetch)
        self.inboxes = [simpy.Store(env) for _ in range(inboxes)]
        self.free = [p.prefetch] * inboxes
        self.turn = 0
        self.appended = self.returned = 0
        self.times: dict[int, list[float]] = {}

    def waiting(self) -> list[simpy.PriorityItem]:
        """What is ready, and neither dropped nor done."""
        return [item for item in self.ready.items if not item.item.settled.triggered]

    def append(self, it: Published) -> None:
        """At the end, or before all that are not urgent."""
        self.appended += 1
        self.ready.put(simpy.PriorityItem((not it.urgent, self.appended), it))

    def put_back(self, it: Published) -> None:
        """At the head, of the urgent ones or of the others."""
        self.returned += 1
        self.ready.put(simpy.PriorityItem((not it.urgent, -self.returned), it))

    def next_with_room(self) -> int:
        """The inbox whose turn it is, of those that may hold more."""
        inbox = next(
            k % len(self.free) for k in range(self.turn, self.turn + len(self.free)) if self.free[k % len(self.free)]
        )
        self.turn = inbox + 1
        return inbox


class Simulation(Ground):
    """One run."""

    p: MessageQueue

    def __init__(
        self,
        p: MessageQueue,
        scenario: Scenario,
        seed: int,
        messages: int,
        limits: MessageQueue | Plain = PLAIN,
    ) -> None:
        super().__init__(p, scenario, seed, messages)
        self.limits, env = limits, self.env
        self.known: dict[str, dict[int, Known]] = {step: {} for step in scenario.steps}
        self.seen: set[int] = set()
        active = p.consumers if limits.sharing == "competing" else 1
        hashed = [f"updates.{k}" for k in range(p.consumers)] if limits.sharing == "by_sku" else ["updates"]
        self.updates = [Queue(env, name, p, "updates", active, limits.nodes) for name in hashed]
        self.orders = Queue(env, "orders", p, nodes=limits.nodes)
        further = {step: Queue(env, step, p, nodes=limits.nodes) for step in scenario.steps[1:]}
        self.queues = {RESERVE: self.orders, **further}
        if limits.group_commit:
            self.flush_together()
        for queue in self.updates:
            self.read(queue, self.shop, self.write_copy)
        for step, queue in self.queues.items():
            self.read(queue, self.at[step], partial(self.do, step))
        self.unconnected: list[tuple[int, simpy.Event]] = []
        if limits.at_limit == "refuse" or limits.unbound != "none":
            self.connect_until(self.issued[-1] + DRAINED)
        self.issue()

    def read(self, queue: Queue, side: Side, body: Callable[[Delivery], Story]) -> None:
        """A side reads a queue."""
        self.env.process(self.dispatch(queue, side))
        for k in range(queue.consumers):
            self.env.process(self.consume(queue, queue.inboxes[k % len(queue.inboxes)], side, body))

    def flush_together(self) -> None:
        """Every disk has a process that flushes for all who wait."""
        number = itertools.count()
        for queue in (*self.updates, *self.queues.values()):
            for k, disk in enumerate(queue.disks):
                stream = draws.stream_key(self.seed, f"{queue.name}.node{k}.flush")
                flusher = GroupCommit(self.env, disk, self.p.store, stream, next(number), self.deliveries)
                queue.together.append(flusher)

    # --- the broker

    def publish(self, label: str, side: Side, queue: Queue, it: Published, place: int) -> Story:
        """Publish, and wait for the confirm where there is one; again where it does not come. The response."""
        if not self.p.confirm:
            yield from self.send_published(side, label, place)
            self.env.process(self.store(label, side, queue, it, place))
            return OK
        for attempt in range(self.p.confirm_retries + 1):
            at = draws.fold(place, attempt)
            yield from self.send_published(side, label, at)
            heard = yield from self.ask(label, side, queue, it, at)
            if heard == FAILED:
                heard = yield from self.ask_again(label, side, queue, it, at)
            if heard in (OK, RETURNED):
                yield from self.take_confirm(side, label, at)
                return OK if heard == OK else FAILED
        return TIMED_OUT

    def send_published(self, side: Side, label: str, place: int) -> Story:
        """The client writes from a task of its own."""
        yield from side.cpu.turns(1)
        yield from self.work(side, self.p.publish_client, f"{label}.publish.send", place)

    def take_confirm(self, side: Side, label: str, place: int) -> Story:
        """Through the client's tasks to the publisher."""
        yield from side.cpu.turns(self.p.client.confirm)
        yield from self.work(side, self.p.publish_client, f"{label}.publish.took", place)

    def ask(self, label: str, side: Side, queue: Queue, it: Published, place: int) -> Story:
        """Publish once: confirmed, refused, or unheard."""
        confirmed = self.env.event()
        self.env.process(self.store(label, side, queue, it, place, confirmed))
        yield confirmed | self.env.timeout(self.p.confirm_timeout)
        return confirmed.value if confirmed.triggered else TIMED_OUT

    def ask_again(self, label: str, side: Side, queue: Queue, it: Published, place: int) -> Story:
        """What is refused waits; a client that keeps what it publishes then tries for as long as it would wait for a confirm."""
        if not self.p.semantics.buffered:
            yield self.env.timeout(self.p.reconnect)
            return TIMED_OUT
        for again in range(math.ceil(self.p.confirm_timeout / self.p.reconnect) + 1):
            connected = self.env.event()
            self.unconnected.append((it.message, connected))
            yield connected
            if (yield from self.ask(label, side, queue, it, draws.fold(place, again))) == OK:
                return OK
        return TIMED_OUT

    def connect_until(self, end: float) -> None:
        """At every multiple of `reconnect` the clients send again what they keep, in its order."""

        def connect(_: simpy.Event) -> None:
            kept = sorted(self.unconnected, key=lambda one: one[0])
            self.unconnected = []
            for connected in [event for _, event in kept]:
                connected.succeed()

        for k in range(1, int(end / self.p.reconnect)):
            timeout = self.env.timeout(k * self.p.reconnect)
            assert timeout.callbacks is not None
            timeout.callbacks.append(connect)

    def write(self, queue: Queue, node: int, message: int, stream: str, place: int) -> Story:
        """To the disk of a node, the first of which leads: alone, or with all that wait."""
        if queue.together:
            yield from queue.together[node].flush(message)
            return
        with queue.disks[node].request() as turn:
            yield turn
            yield self.time(self.p.store, stream, place)

    def follow(self, queue: Queue, node: int, message: int, label: str, place: int) -> Story:
        """A follower's copy, until the leader knows of it."""
        yield self.env.timeout(self.limits.between_nodes)
        yield from self.write(queue, node, message, f"{label}.node{node}.store", place)
        yield self.env.timeout(self.limits.between_nodes)

    def store(
        self, label: str, side: Side, queue: Queue, it: Published, place: int, confirmed: simpy.Event | None = None
    ) -> Story:
        """What is published travels, is written, and confirmed; what the queue has already, it drops and confirms."""
        p, limits = self.p, self.limits
        yield self.time(p.uplink, f"{label}.publish.there.from.{side.name}", place)
        if queue.label == limits.unbound:
            yield from self.return_to_publisher(label, place, confirmed)
            return
        written = [self.env.process(self.write(queue, 0, it.message, f"{label}.store", place))]
        for k in range(1, limits.nodes):
            written.append(self.env.process(self.follow(queue, k, it.message, label, place)))
        yield simpy.events.Condition(self.env, lambda _, count: count > len(written) // 2, written)
        times = queue.times.setdefault(it.message, [])
        window = p.semantics.deduplicate
        if not times or window is None or self.env.now - times[-1] > window:
            if limits.at_limit == "refuse" and len(queue.waiting()) >= limits.max_length:
                yield self.time(p.uplink, f"{label}.publish.refused.from.broker", place)
                told = confirmed or it.replied
                if told and not told.triggered:
                    told.succeed(FAILED)
                return
            new = replace(it, settled=self.env.event(), published=self.env.now, copy=len(times))
            times.append(self.env.now)
            queue.append(new)
            self.keep_within(queue)
            if limits.expire:
                self.env.process(self.expire(new))
        if confirmed:
            yield self.time(p.uplink, f"{label}.publish.back.from.broker", place)
            confirmed.succeed(OK)

    def return_to_publisher(self, label: str, place: int, confirmed: simpy.Event | None) -> Story:
        """What no queue takes JetStream refuses, and RabbitMQ hands back or confirms, to whoever waits for a confirm."""
        if confirmed is None:
            return
        ways = {"refused": ("refused", FAILED), "returned": ("returned", RETURNED), "confirmed": ("back", OK)}
        way, said = ways[self.p.semantics.unroutable]
        yield self.time(self.p.uplink, f"{label}.publish.{way}.from.broker", place)
        if not confirmed.triggered:
            confirmed.succeed(said)

    def keep_within(self, queue: Queue) -> None:
        """A queue that is too long loses its first."""
        if self.limits.at_limit == "drop" and len(queue.waiting()) > self.limits.max_length:
            self.drop(min(queue.waiting()).item)

    def drop(self, it: Published) -> None:
        """It leaves the queue: parked, or for good."""
        self.parked[it.message] |= self.p.park
        it.settled.succeed()

    def expire(self, it: Published) -> Story:
        yield self.env.timeout(self.limits.time_to_live)
        if not it.settled.triggered and not it.out:
            self.drop(it)

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
            it.out = True
            self.deliveries[it.message] += 1
            place = draws.fold(draws.fold(0, it.message), it.deliveries - 1)
            place = draws.fold(place, it.copy) if it.copy else place
            delivery = Delivery(it, it.deliveries, place, self.env.event(), queue.next_with_room())
            self.env.process(self.carry(queue, delivery))
            if self.p.manual_ack:
                queue.free[delivery.inbox] -= 1
                yield from self.await_acknowledgement(queue, delivery)
        yield queue.credit.put(1)

    def carry(self, queue: Queue, delivery: Delivery) -> Story:
        way = self.drawn(self.p.uplink, f"{queue.name}.deliver.from.broker", delivery.place)
        yield self.env.timeout(way + self.drawn(self.p.dispatch, f"{queue.name}.dispatch", delivery.place))
        yield queue.inboxes[delivery.inbox].put(delivery)

    def await_acknowledgement(self, queue: Queue, delivery: Delivery) -> Story:
        broker = self.p.semantics
        it, last = delivery.of, delivery.number == broker.max_deliveries
        over = it.settled | delivery.refused
        yield over if broker.ack_wait is None else over | self.env.timeout(broker.ack_wait)
        if delivery.refused.triggered and not last and broker.redelivery_delay:
            yield it.settled | self.env.timeout(broker.redelivery_delay)
        queue.free[delivery.inbox] += 1
        if it.settled.triggered:
            return
        it.out = False
        if last or (self.limits.expire and self.env.now >= it.published + self.limits.time_to_live):
            self.drop(it)
        elif broker.requeue == "head":
            queue.put_back(it)
        else:
            queue.append(it)
        self.keep_within(queue)

    def consume(self, queue: Queue, inbox: simpy.Store, side: Side, body: Callable[[Delivery], Story]) -> Story:
        """A consumer, for ever: take a delivery, handle it, acknowledge it or hand it back."""
        written = int(self.p.client.waits)
        while True:
            next_one = inbox.get()
            through = 0 if next_one.triggered else self.p.client.delivery
            delivery = yield from had(next_one)
            yield from side.cpu.turns(through)
            yield from self.work(side, self.p.consume_client, f"{queue.label}.take", delivery.place)
            done = yield from body(delivery)
            answer = "ack" if done else "nack"
            yield from side.cpu.turns(written)
            yield from self.work(side, self.p.consume_client, f"{queue.label}.{answer}", delivery.place)
            if self.p.manual_ack:
                self.env.process(self.tell(queue, side, delivery, delivery.of.settled if done else delivery.refused))
            yield from side.cpu.turns(written)

    def tell(self, queue: Queue, side: Side, delivery: Delivery, what: simpy.Event) -> Story:
        yield self.time(self.p.uplink, f"{queue.name}.settle.from.{side.name}", delivery.place)
        if not what.triggered:
            what.succeed()

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)
        yield from self.ask_database(self.accounting, "update.accounting.commit", place, commits=True)
        it = Published(message, self.env.event(), *self.change(message, +1))
        response = yield from self.publish("update", self.accounting, self.changes(message), it, place)
        yield from self.leave("update", self.accounting, message, place, response)

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        it, variant = Published(message, self.env.event()), ""
        if self.limits.answered_on == "reply":
            it.replied = self.env.event()
            response = yield from self.await_reply(it, place)
        else:
            yield from self.ask_database(self.shop, "order.shop.commit", place, commits=True)
            if self.promise(message):
                response = yield from self.publish("order", self.shop, self.orders, it, place)
            else:
                response, variant = REFUSED, ".refused"
        yield from self.leave("order", self.shop, message, place, response, variant)

    def await_reply(self, it: Published, place: int) -> Story:
        assert it.replied is not None
        yield from self.send_published(self.shop, "order", place)
        self.env.process(self.store("order", self.shop, self.orders, it, place))
        yield it.replied | self.env.timeout(self.p.confirm_timeout)
        if not it.replied.triggered:
            return TIMED_OUT
        response = it.replied.value
        if response == FAILED:
            return FAILED
        yield from self.take_confirm(self.shop, "order", place)
        return response

    # --- what the consumers do; whether it is done

    def write_copy(self, delivery: Delivery) -> Story:
        """Shop: write the copy, where the version is newer and the message was not handled before."""
        it, shop = delivery.of, self.shop
        work = ANNOUNCEMENT if self.ordered(it.message) else HANDLER
        if not (yield from self.handle(shop, work, it.message, delivery.number)):
            return False
        yield from self.ask_database(shop, "updates.shop.commit", delivery.place, commits=True)
        if it.message not in self.seen or not self.p.idempotent_receiver:
            self.show(it.message, it.level, it.version, self.p.write_if_newer)
        self.seen.add(it.message)
        return True

    def do(self, step: str, delivery: Delivery) -> Story:
        """A step of an order: done, or refused, or what it came to before; then what is told of it."""
        it, side, queue = delivery.of, self.at[step], self.queues[step]
        if not (yield from self.handle(side, self.work_of(step), it.message, delivery.number)):
            return False
        yield from self.ask_database(side, f"{queue.name}.{side.name}.commit", delivery.place, commits=True)
        known = self.known[step]
        if it.message not in known or not self.p.idempotent_receiver:
            known[it.message] = self.try_step(step, it, delivery.number)
        return (yield from self.after(step, delivery, *known[it.message]))

    def try_step(self, step: str, it: Published, attempt: int) -> Known:
        """The units are taken, or what else the step does; or it is refused."""
        if step == RESERVE:
            return self.reserve(it.message, attempt)
        return self.perform(step, it.message, attempt), it.level, it.version

    def after(self, step: str, delivery: Delivery, result: int, level: int, version: int) -> Story:
        """Reply where someone waits, announce the new level, ask for the next step."""
        it, side, place = delivery.of, self.at[step], delivery.place
        if it.replied:
            self.env.process(self.reply(it.replied, result, place))
        if result != OK:
            return True
        if step == RESERVE:
            news = Published(it.message, self.env.event(), level, version, urgent=self.limits.orders_first)
            if (yield from self.publish("announce", side, self.changes(it.message), news, place)) != OK:
                return False
        further = self.scenario.steps[self.scenario.steps.index(step) + 1 :]
        if not further or self.unheard(step, it.message, delivery.number):
            return True
        asked = Published(it.message, self.env.event(), level, version)
        return (yield from self.publish(further[0], side, self.queues[further[0]], asked, place)) == OK

    def reply(self, replied: simpy.Event, result: int, place: int) -> Story:
        yield self.time(self.p.uplink, "orders.reply.there.from.accounting", place)
        yield self.time(self.p.uplink, "orders.reply.back.from.broker", place)
        if not replied.triggered:
            replied.succeed(result)

    def changes(self, message: int) -> Queue:
        """The queue that has the message's SKU."""
        return self.updates[int(self.arrivals.sku[message]) % len(self.updates)]


def run(parameters: MessageQueue, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `deliveries`; `duplicates`, effects that happened again; `parked`, 1 where it was parked.
    """
    return Simulation(parameters, scenario, seed, messages, limits=parameters).run("deliveries", "parked")
