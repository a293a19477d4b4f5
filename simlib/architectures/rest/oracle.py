"""Direct REST as a textbook would write it in SimPy: a process for each message, a resource for each CPU and each pool.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, failures of the handler, and the pattern's signature fault, a caller that gives up while the
server works on, and asks again with the same idempotency key. A scenario's faults (loss, crash, poison) are left out.
Numbers are drawn from the model's streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import simpy

from simlib import draws
from simlib.distributions import Distribution
from simlib.domain import ANNOUNCED, COPIED, KINDS, ORDER, RESPONSES, STOCK_QUERY, STOCK_UPDATE, TAKEN
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.rest.model import Rest

OK, REFUSED, FAILED, TIMED_OUT = (RESPONSES.index(name) for name in ("ok", "refused", "failed", "timed_out"))
HANDLER, ANNOUNCEMENT = "handler_work", "announcement_work"
"""Streams of the handlers' work, which all architectures share."""
Story = Generator[simpy.Event, Any, Any]
Serve = Callable[[int, int], Story]
"""A server's work, by the number of the caller's attempt and the place of its draws."""


class Answer(NamedTuple):
    """What a call comes to: a response, and what a query saw."""

    response: int
    level: int = -1
    version: int = -1


class Side:
    """A service: one event loop, connections to its database and to the other side, its goods, the keys it has seen."""

    def __init__(self, env: simpy.Environment, name: str, p: Rest, units: np.ndarray) -> None:
        self.name = name
        self.cpu = simpy.Resource(env)
        self.database = simpy.Resource(env, p.database_connections)
        self.connections = simpy.Resource(env, p.connections)
        self.level, self.version = units.tolist(), [0] * len(units)
        self.received: dict[tuple[int, str], Answer] = {}


class Simulation:
    """One run."""

    def __init__(self, p: Rest, scenario: Scenario, seed: int, messages: int) -> None:
        self.p, self.scenario, self.seed = p, scenario, seed
        self.env = simpy.Environment()
        self.arrivals = scenario.draw(seed, messages)
        self.cores, self.log = simpy.Resource(self.env, p.cores), simpy.Resource(self.env)
        self.accounting, self.shop = (Side(self.env, name, p, scenario.stock()) for name in ("accounting", "shop"))
        self.issued, (self.responded, self.applied) = self.arrivals.issued, np.full((2, messages), np.nan)
        self.response, self.attempts, self.duplicates = np.zeros((3, messages), int)
        self.version, self.answer = np.full((2, messages), -1)
        self.done: set[tuple[int, str]] = set()
        starts = {STOCK_UPDATE: self.update, ORDER: self.order, STOCK_QUERY: self.query}
        for message, kind in enumerate(self.arrivals.kind.tolist()):
            self.env.process(starts[KINDS[kind]](message, draws.fold(0, message)))

    # --- what a visit costs

    def time(self, distribution: Distribution, stream: str, place: int) -> simpy.Event:
        return self.env.timeout(distribution.draw(draws.stream_key(self.seed, stream))(place))

    def uniform(self, stream: str, place: int) -> float:
        return draws.uniform(draws.stream_key(self.seed, stream), place)

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
        return self.uniform(f"handler_failure.{stream}", place) >= self.scenario.handler_failure

    # --- calls

    def request(self, label: str, here: Side, there: Side, place: int, serve: Serve, message: int = -1) -> Story:
        """Ask the other side, again where that fails; `serve` is its work. Attempts are counted for `message`."""
        unheard = False
        for attempt in range(self.p.retries + 1):
            self.attempts[message] += message >= 0
            at = draws.fold(place, attempt)
            call = self.env.process(self.attempt(label, here, there, at, serve(attempt + 1, at)))
            ended = yield call | self.env.timeout(self.p.timeout)
            if call not in ended:
                call.interrupt("timed out")
                unheard = True
            elif ended[call].response != FAILED:
                return ended[call]
            if attempt < self.p.retries:
                wait = min(self.p.backoff * 2.0**attempt, 60.0)
                yield self.env.timeout(wait * self.uniform(f"{label}.backoff", at) if self.p.jitter else wait)
        return Answer(TIMED_OUT if unheard else FAILED)

    def attempt(self, label: str, here: Side, there: Side, place: int, work: Story) -> Story:
        try:
            with here.connections.request() as connection:
                yield connection
                yield from self.work(here, self.p.http_client, f"{label}.client.send", place)
                answered = self.env.event()
                self.env.process(self.server(label, here, there, place, work, answered))
                answer = yield answered
                end = "failed" if answer.response == FAILED else "took"
                yield from self.work(here, self.p.http_client, f"{label}.client.{end}", place)
                return answer
        except simpy.Interrupt:
            return Answer(TIMED_OUT)

    def server(self, label: str, here: Side, there: Side, place: int, work: Story, answered: simpy.Event) -> Story:
        """The other side's work, which goes on when nobody waits for the answer any more."""
        yield self.time(self.p.network, f"{label}.network.there.from.{here.name}", place)
        yield from self.work(there, self.p.http_server, f"{label}.server.receive", place)
        answer = yield from work
        page, way = ("failed", "failed") if answer.response == FAILED else ("server", "back")
        yield from self.work(there, self.p.http_server, f"{label}.{page}.answer", place)
        yield self.time(self.p.network, f"{label}.network.{way}.from.{there.name}", place)
        answered.succeed(answer)

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        yield from self.enter("update", self.accounting, message, place)
        yield from self.ask_database(self.accounting, "update.accounting.commit", place, commits=True)
        level, version = self.change(message, +1)
        serve = partial(self.write_copy, message, COPIED, HANDLER, "update.shop.commit", level, version)
        answer = yield from self.request("update", self.accounting, self.shop, place, serve, message)
        yield from self.leave("update", self.accounting, message, place, answer)

    def order(self, message: int, place: int) -> Story:
        yield from self.enter("order", self.shop, message, place)
        serve = partial(self.take, message)
        answer = yield from self.request("order", self.shop, self.accounting, place, serve, message)
        yield from self.leave("order", self.shop, message, place, answer)

    def query(self, message: int, place: int) -> Story:
        yield from self.enter("query", self.shop, message, place)
        serve = partial(self.read, message)
        answer = yield from self.request("query", self.shop, self.accounting, place, serve, message)
        yield from self.leave("query", self.shop, message, place, answer)
        if answer.response == OK:
            _, self.answer[message], self.version[message] = answer

    def enter(self, label: str, side: Side, message: int, place: int) -> Story:
        yield self.env.timeout(self.issued[message])
        yield self.time(self.p.edge, f"{label}.edge.there", place)
        yield from self.work(side, self.p.http_server, f"{label}.{side.name}.receive", place)

    def leave(self, label: str, side: Side, message: int, place: int, answer: Answer) -> Story:
        yield from self.work(side, self.p.http_server, f"{label}.{side.name}.answer", place)
        yield self.time(self.p.edge, f"{label}.edge.back", place)
        self.responded[message], self.response[message] = self.env.now, answer.response

    # --- what the services do

    def take(self, message: int, attempt: int, place: int) -> Story:
        """Accounting: take the units, or refuse, and announce the new level. A known key gets its first answer."""
        if not (yield from self.handle(self.accounting, HANDLER, message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(self.accounting, "order.accounting.commit", place, commits=True)
        received = self.accounting.received
        if self.p.idempotency and (message, TAKEN) in received:
            return received[message, TAKEN]
        answer = Answer(REFUSED)
        if self.accounting.level[self.arrivals.sku[message]] >= self.arrivals.quantity[message]:
            answer = Answer(OK)
            level, version = self.change(message, -1)
            self.happened(message, TAKEN)
            serve = partial(self.write_copy, message, ANNOUNCED, ANNOUNCEMENT, "announce.shop.commit", level, version)
            self.env.process(self.request("announce", self.accounting, self.shop, place, serve))
        received[message, TAKEN] = answer
        return answer

    def read(self, message: int, attempt: int, place: int) -> Story:
        """Accounting: the level and version of a SKU."""
        if not (yield from self.handle(self.accounting, HANDLER, message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(self.accounting, "query.accounting.read", place, commits=False)
        sku = self.arrivals.sku[message]
        return Answer(OK, self.accounting.level[sku], self.accounting.version[sku])

    def write_copy(
        self,
        message: int,
        effect: str,
        handler: str,
        commit: str,
        level: int,
        version: int,
        attempt: int,
        place: int,
    ) -> Story:
        """Shop: write the copy where the version is newer, and the key was not seen before."""
        if not (yield from self.handle(self.shop, handler, message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(self.shop, commit, place, commits=True)
        sku, known = self.arrivals.sku[message], (message, effect) in self.shop.received
        if version > self.shop.version[sku] and not (known and self.p.idempotency):
            self.shop.level[sku], self.shop.version[sku] = level, version
            self.happened(message, effect)
        self.shop.received[message, effect] = Answer(OK)
        return Answer(OK)

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


def run(parameters: Rest, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `attempts` of the caller; `duplicates`, effects that happened again.
    """
    simulation = Simulation(parameters, scenario, seed, messages)
    simulation.env.run()
    names = ("issued", "responded", "applied", "response", "version", "answer", "attempts", "duplicates")
    return {name: getattr(simulation, name) for name in names}
