"""Event sourcing as a textbook would write it in SimPy: a list of events, a process that flushes, a process that projects.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, failures of handlers and projection, orders that are asked for again, snapshots, and the pattern's
signature fault, an append that another was faster than. A scenario's faults (loss, crash, poison) and rebuilds are left
out. Numbers are drawn from the model's streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
    GroupCommit,
    Side,
    Story,
    had,
)
from simlib.architectures.rest.oracle import Answer, Calls
from simlib.distributions import Distribution
from simlib.domain import RESERVE, TAKEN
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.cqrs.model import Cqrs
    from simlib.architectures.event_sourcing.model import EventSourcing

CONFLICT = -1
Decide = Callable[[int, int, int, int, int], int]
"""What follows for a message from the level and version of its stream, with the try and the place of its draws: a response, or a
conflict."""


@dataclass
class Event:
    """What happened to the stock of a SKU: what it left, as which version; `number` of those of its message."""

    message: int
    level: int
    version: int
    number: int


class Simulation(Calls):
    """One run."""

    p: EventSourcing | Cqrs

    def __init__(self, p: EventSourcing | Cqrs, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        env = self.env
        self.taken: dict[int, int] = {}
        self.since = [0] * scenario.goods.skus
        self.locks = [simpy.Resource(env) for _ in range(scenario.goods.skus)]
        flushes = draws.stream_key(seed, "events.flush")
        self.together = GroupCommit(env, self.log, p.commit, flushes, 0, self.deliveries) if p.group_commit else None
        self.appended: list[int] = [0] * messages
        self.left: dict[int, tuple[int, int]] = {}
        self.published, self.window = simpy.Store(env), simpy.Container(env, init=p.prefetch, capacity=p.prefetch)
        self.inbox, self.latest = simpy.Store(env), 0.0
        for process in (self.subscription(), self.projection()):
            env.process(process)
        self.issue()

    # --- the event store

    def append(self, label: str, message: int, place: int, decide: Decide, counts: bool) -> Story:
        """Read the stream, write, decide: again where another was faster. The response; tries are counted or not."""
        p, sku = self.p, self.arrivals.sku[message]
        for attempt in range(p.conflict_retries + 1):
            self.attempts[message] += counts
            at = draws.fold(place, attempt)
            if p.concurrency == "lock":
                with self.locks[sku].request() as turn:
                    yield from had(turn)
                    response = yield from self.try_to_append(label, message, attempt + 1, at, decide)
            else:
                response = yield from self.try_to_append(label, message, attempt + 1, at, decide)
            if response != CONFLICT:
                return response
            if attempt < p.conflict_retries:
                wait = min(p.conflict_backoff * 2.0**attempt, 60.0)
                yield self.env.timeout(wait * self.uniform(f"{label}.conflict", at))
        return FAILED

    def try_to_append(self, label: str, message: int, attempt: int, place: int, decide: Decide) -> Story:
        p, side, sku = self.p, self.accounting, self.arrivals.sku[message]
        seen: list[int] = []

        def events() -> float:
            return p.per_event * self.since[sku]

        def read() -> Story:
            seen[:] = side.level[sku], side.version[sku]
            yield from self.on_a_core(p.read, f"{label}.load", place, events)

        yield from self.transaction(side, f"{label}.load", place, read())
        yield from self.work(side, p.recording, f"{label}.replay", place, events)
        yield from self.work(side, p.recording, f"{label}.record", place)
        yield from self.write(f"{label}.append", message, p.append, place)
        return decide(message, attempt, place, *seen)

    def write(self, label: str, message: int, insert: Distribution, place: int) -> Story:
        """A row, which is flushed alone or with all that wait."""
        flushed = self.together.flush(message) if self.together else self.flush(f"{label}.flush", place)
        inserted = self.on_a_core(insert, label, place)
        yield from self.transaction(self.accounting, label, place, inserted, flushed)

    def happens(self, label: str, message: int, sign: int, place: int, seen: int) -> bool:
        """One more event of the stream, unless there is one more than were seen; a snapshot, where there are many since the
        last."""
        sku = self.arrivals.sku[message]
        if self.p.concurrency == "optimistic" and self.accounting.version[sku] != seen:
            return False
        self.left[message] = self.change(message, sign)
        self.published.put(Event(message, *self.left[message], self.appended[message]))
        self.appended[message] += 1
        self.since[sku] += 1
        if self.p.snapshot_every and self.since[sku] >= self.p.snapshot_every:
            self.beside(self.take_snapshot(label, message, place))
        return True

    def take_snapshot(self, label: str, message: int, place: int) -> Story:
        yield from self.write(f"{label}.snapshot", message, self.p.snapshot, place)
        self.since[self.arrivals.sku[message]] = 0

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)

        response = yield from self.append("update", message, place, self.change_stock, counts=True)
        yield from self.leave("update", self.accounting, message, place, response)

    def change_stock(self, message: int, attempt: int, place: int, level: int, version: int) -> int:
        return OK if self.happens("update", message, +1, place, version) else CONFLICT

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        serve = partial(self.take, message)
        answer = yield from self.request("order", self.shop, self.accounting, place, serve, message)
        yield from self.leave("order", self.shop, message, place, answer.response)

    def take(self, message: int, side: Side, attempt: int, place: int) -> Story:
        """Accounting: take the units, or refuse."""
        if not (yield from self.handle(side, HANDLER, message, attempt)):
            return Answer(FAILED)
        response = yield from self.append("order", message, place, self.decide, counts=False)
        return Answer(response, *self.left.get(message, (-1, -1)))

    def decide(self, message: int, attempt: int, place: int, level: int, version: int) -> int:
        """The units, or a refusal, by what was seen; a known key gets its first answer."""
        if self.p.idempotency and message in self.taken:
            return self.taken[message]
        place = self.decided(message, attempt, place)
        response = REFUSED
        if level >= self.arrivals.quantity[message] and not self.refuses(RESERVE, message, attempt):
            if not self.happens("order", message, -1, place, version):
                return CONFLICT
            response = OK
            self.happened(message, TAKEN)
            self.beside(self.call_services(self.accounting, message, attempt, place))
        self.taken[message] = response
        return response

    # --- the projection

    def place(self, event: Event) -> int:
        """Where the draws of an event's delivery stand."""
        place = draws.fold(draws.fold(0, event.message), 0)
        return draws.fold(place, event.number) if event.number else place

    def subscription(self) -> Story:
        """Hand events on, as long as few enough are under way; they arrive in their order."""
        while True:
            yield self.window.get(1)
            event = yield self.published.get()
            self.deliveries[event.message] += 1
            takes = self.drawn(self.p.network, "subscription.deliver.from.accounting", self.place(event))
            takes += self.drawn(self.p.dispatch, "subscription.dispatch", self.place(event))
            self.latest = max(self.env.now + takes, math.nextafter(self.latest, math.inf))
            self.env.process(self.carry(event, self.latest - self.env.now))

    def carry(self, event: Event, takes: float) -> Story:
        yield self.env.timeout(takes)
        yield self.inbox.put(event)

    def projection(self) -> Story:
        """For ever: take the next event."""
        while True:
            yield from self.shop.cpu.turns(1)
            event = yield from had(self.inbox.get())
            place = self.place(event)
            yield from self.work(self.shop, self.p.subscription_client, "events.take", place)
            yield from self.project(event, place)

    def project(self, event: Event, place: int) -> Story:
        """Write an event into the copy, again where that fails; set it aside in the end."""
        for attempt in range(self.p.event_retries + 1):
            at = draws.fold(place, attempt)
            stream = ANNOUNCEMENT if self.ordered(event.message) else HANDLER
            if (yield from self.handle(self.shop, stream, event.message, attempt + 1)):
                yield from self.ask_database(self.shop, "events.shop.commit", at, commits=True)
                self.write_copy(event, at)
                self.env.process(self.acknowledge(at))
                return
            if attempt < self.p.event_retries:
                yield self.env.timeout(self.p.event_backoff)
        self.parked[event.message] = 1
        self.deliveries[event.message] += 1
        self.env.process(self.acknowledge(place))

    def write_copy(self, event: Event, place: int) -> None:
        """Into the copy, where that is newer."""
        self.show(event.message, event.level, event.version, self.p.write_if_newer)

    def acknowledge(self, place: int) -> Story:
        yield self.time(self.p.network, "subscription.settle.from.shop", place)
        yield self.window.put(1)


def run(parameters: EventSourcing, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `attempts` of the caller; `deliveries`; `duplicates`, effects that happened again; `parked`, 1
    where its event was set aside.
    """
    return Simulation(parameters, scenario, seed, messages).run("attempts", "deliveries", "parked")
