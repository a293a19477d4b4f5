"""Event sourcing as a textbook would write it in SimPy: a list of events, a process that flushes, a process that projects.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, failures of handlers and projection, orders that are asked for again, snapshots, and the pattern's
signature fault, an append that another was faster than. A scenario's faults (loss, crash, poison) and rebuilds are left
out, and a connection that keeps its order is one whose transit takes a constant time. Numbers are drawn from the model's
streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    Story,
)
from simlib.distributions import Distribution
from simlib.domain import RESERVE, TAKEN
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.cqrs.model import Cqrs
    from simlib.architectures.event_sourcing.model import EventSourcing

CONFLICT = -1
Decide = Callable[[int, int, int, int], int]
"""What follows from the level and version of a stream, with the try and the place of its draws: a response, or a conflict."""


@dataclass
class Event:
    """What happened to the stock of a SKU: what it left, as which version; `number` of those of its message."""

    message: int
    level: int
    version: int
    number: int


class Simulation(Ground):
    """One run."""

    p: EventSourcing | Cqrs

    def __init__(self, p: EventSourcing | Cqrs, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        env = self.env
        self.connections = simpy.Resource(env, p.connections)
        self.taken: dict[int, int] = {}
        self.since = [0] * scenario.goods.skus
        self.locks = [simpy.Resource(env) for _ in range(scenario.goods.skus)]
        flushes = draws.stream_key(seed, "events.flush")
        self.together = GroupCommit(env, self.log, p.commit, flushes, 0, self.deliveries) if p.group_commit else None
        self.appended: list[int] = [0] * messages
        self.left: dict[int, tuple[int, int]] = {}
        self.published, self.window = simpy.Store(env), simpy.Container(env, init=p.prefetch, capacity=p.prefetch)
        self.inbox = simpy.Store(env)
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
                    yield turn
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

        def read() -> Story:
            seen[:] = side.level[sku], side.version[sku]
            with self.cores.request() as core:
                yield core
                drawn = self.drawn(p.read, f"{label}.load", place)
                yield self.env.timeout(drawn + p.per_event * self.since[sku])

        yield from self.transaction(side, f"{label}.load", place, read())
        with side.cpu.request() as turn:
            if not turn.triggered:
                yield turn
            with self.cores.request() as core:
                yield core
                drawn = self.drawn(p.recording, f"{label}.replay", place)
                yield self.env.timeout(drawn + p.per_event * self.since[sku])
        yield from self.work(side, p.recording, f"{label}.record", place)
        yield from self.write(f"{label}.append", message, p.append, place)
        return decide(attempt, place, *seen)

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
            self.env.process(self.take_snapshot(label, message, place))
        return True

    def take_snapshot(self, label: str, message: int, place: int) -> Story:
        yield from self.write(f"{label}.snapshot", message, self.p.snapshot, place)
        self.since[self.arrivals.sku[message]] = 0

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)

        def decide(attempt: int, at: int, level: int, version: int) -> int:
            return OK if self.happens("update", message, +1, at, version) else CONFLICT

        response = yield from self.append("update", message, place, decide, counts=True)
        yield from self.leave("update", self.accounting, message, place, response)

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        response = yield from self.command(message, place)
        yield from self.leave("order", self.shop, message, place, response)

    def command(self, message: int, place: int) -> Story:
        """Ask accounting, again where that fails. The response."""
        response, unheard = FAILED, False
        for attempt in range(self.p.retries + 1):
            self.attempts[message] += 1
            at = draws.fold(place, attempt)
            story = self.ask(message, at, attempt + 1)
            response = yield from self.attempt_within(self.p.timeout, self.shop, story)
            if response is not None and response != FAILED:
                break
            unheard = unheard or response is None
            response = TIMED_OUT if unheard else FAILED
            if attempt < self.p.retries:
                wait = min(self.p.backoff * 2.0**attempt, 60.0)
                yield self.env.timeout(wait * self.uniform("order.backoff", at) if self.p.jitter else wait)
        return response

    def ask(self, message: int, place: int, attempt: int) -> Story:
        try:
            with self.connections.request() as connection:
                yield connection
                yield from self.send(self.shop, self.p.http_client, "order.client.send", place)
                answered = self.env.event()
                self.env.process(self.serve(message, place, attempt, answered))
                response = yield answered
                end = "failed" if response == FAILED else "took"
                yield from self.work(self.shop, self.p.http_client, f"order.client.{end}", place)
                return response
        except simpy.Interrupt:
            return TIMED_OUT

    def serve(self, message: int, place: int, attempt: int, answered: simpy.Event) -> Story:
        """Accounting's work, which goes on when nobody waits for the answer any more."""
        p, side = self.p, self.accounting
        yield self.time(p.network, "order.network.there.from.shop", place)
        yield from self.work(side, p.http_server, "order.server.receive", place)
        response = FAILED
        if (yield from self.handle(side, HANDLER, message, attempt)):

            def decide(attempt: int, at: int, level: int, version: int) -> int:
                return self.take(message, attempt, at, level, version)

            response = yield from self.append("order", message, place, decide, counts=False)
        page, way = ("failed", "failed") if response == FAILED else ("server", "back")
        yield from self.send(side, p.http_server, f"order.{page}.answer", place)
        yield self.time(p.network, f"order.network.{way}.from.accounting", place)
        answered.succeed(response)

    def take(self, message: int, attempt: int, place: int, level: int, version: int) -> int:
        """A unit, or a refusal, by what was seen; a known key gets its first answer."""
        if self.p.idempotency and message in self.taken:
            return self.taken[message]
        place = self.decided(message, attempt, place)
        response = REFUSED
        if level >= self.arrivals.quantity[message] and not self.refuses(RESERVE, message, attempt):
            if not self.happens("order", message, -1, place, version):
                return CONFLICT
            response = OK
            self.happened(message, TAKEN)
            self.env.process(self.call_services(message, attempt, place))
        self.taken[message] = response
        return response

    # --- the projection

    def place(self, event: Event) -> int:
        """Where the draws of an event's delivery stand."""
        place = draws.fold(draws.fold(0, event.message), 0)
        return draws.fold(place, event.number) if event.number else place

    def subscription(self) -> Story:
        """Hand events on in their order, as long as few enough are under way."""
        while True:
            yield self.window.get(1)
            event = yield self.published.get()
            self.deliveries[event.message] += 1
            takes = self.drawn(self.p.network, "subscription.deliver.from.accounting", self.place(event))
            takes += self.drawn(self.p.dispatch, "subscription.dispatch", self.place(event))
            self.env.process(self.carry(event, takes))

    def carry(self, event: Event, takes: float) -> Story:
        yield self.env.timeout(takes)
        yield self.inbox.put(event)

    def projection(self) -> Story:
        """For ever: write the next event into the copy; set it aside where that fails too often."""
        while True:
            self.over(self.shop)
            event = yield self.inbox.get()
            place = self.place(event)
            yield from self.work(self.shop, self.p.subscription_client, "events.take", place)
            if not (yield from self.project(event, place)):
                self.parked[event.message] = 1
                self.deliveries[event.message] += 1
            self.env.process(self.acknowledge(place))

    def project(self, event: Event, place: int) -> Story:
        for attempt in range(self.p.event_retries + 1):
            at = draws.fold(place, attempt)
            stream = ANNOUNCEMENT if self.ordered(event.message) else HANDLER
            if (yield from self.handle(self.shop, stream, event.message, attempt + 1)):
                yield from self.ask_database(self.shop, "events.shop.commit", at, commits=True)
                self.write_copy(event, at)
                return True
            if attempt < self.p.event_retries:
                yield self.env.timeout(self.p.event_backoff)
        return False

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
