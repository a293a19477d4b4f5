"""Direct REST as a textbook would write it in SimPy: a process for each message, a resource for each CPU and each pool.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, failures of the handler, and the pattern's signature fault, a caller that gives up while the
server works on, and asks again with the same idempotency key; several processes of a side, a backlog that is full, a breaker,
a budget of retries. A scenario's faults (loss, crash, poison) are left out.
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
Serve = Callable[["Process", int, int], Story]
"""A server's work, by who does it, the number of the caller's attempt and the place of its draws."""
RESERVE = 100.0
"""Retries that a budget holds at most."""


class Answer(NamedTuple):
    """What a call comes to: a response, and what a query saw."""

    response: int
    level: int = -1
    version: int = -1


class Peer:
    """What a caller knows of one whom it calls: its connections there, failures in a row, until when it leaves it alone."""

    def __init__(self, env: simpy.Environment, connections: int, breaker: int, lasts: float) -> None:
        self.env, self.breaker, self.lasts = env, breaker, lasts
        self.connections = simpy.Resource(env, connections)
        self.failures, self.out_until = 0, -np.inf

    @property
    def requests(self) -> int:
        return self.connections.count + len(self.connections.queue)

    @property
    def out(self) -> bool:
        return self.env.now < self.out_until

    def came_to(self, failed: bool, others: list[Peer], most: float) -> None:
        """What a call came to; no more than a share of all are left alone."""
        self.failures = self.failures + 1 if failed else 0
        if self.breaker and failed and not self.out and self.failures >= self.breaker:
            if sum(peer.out for peer in others) < int(most * len(others)):
                self.out_until = self.env.now + self.lasts


class Process:
    """A process of a side: one event loop, whom it knows of the other side, requests in hand, what its retries are paid from."""

    def __init__(self, env: simpy.Environment, name: str, side: Side, peers: list[Peer]) -> None:
        self.name, self.side, self.peers = name, side, peers
        self.cpu = simpy.Resource(env)
        self.turn = self.in_hand = 0
        self.paid = 0.0


class Side:
    """A service: its processes, the connections of each to the database, its goods, the keys it has seen."""

    def __init__(self, env: simpy.Environment, name: str, p: Rest, units: np.ndarray) -> None:
        self.database = simpy.Resource(env, p.database_connections)
        self.level, self.version = units.tolist(), [0] * len(units)
        self.received: dict[tuple[int, str], Answer] = {}
        names = [name, *(f"{name}.{number}" for number in range(2, p.processes + 1))]
        self.processes = [
            Process(env, each, self, [Peer(env, p.connections, p.breaker, p.breaker_lasts) for _ in names])
            for each in names
        ]


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

    def work(self, at: Process, distribution: Distribution, stream: str, place: int) -> Story:
        with at.cpu.request() as turn:
            yield turn
            yield from self.on_a_core(distribution, stream, place)

    def ask_database(self, at: Process, stream: str, place: int, commits: bool) -> Story:
        with at.side.database.request() as connection:
            yield connection
            yield from self.work(at, self.p.database_client, f"{stream}.ask", place)
            yield from self.on_a_core(self.p.read, stream, place)
            if commits:
                with self.log.request() as turn:
                    yield turn
                    yield self.time(self.p.commit, f"{stream}.flush", place)
            yield from self.work(at, self.p.database_client, f"{stream}.took", place)

    def handle(self, at: Process, stream: str, message: int, attempt: int) -> Story:
        """The handler's work; whether it succeeds. Every architecture meets the same at the same attempt."""
        place = draws.fold(draws.fold(0, message), attempt - 1)
        yield from self.work(at, self.scenario.handler_work, stream, place)
        return self.uniform(f"handler_failure.{stream}", place) >= self.scenario.handler_failure

    # --- calls

    def request(self, label: str, here: Process, there: Side, place: int, serve: Serve, message: int = -1) -> Story:
        """Ask the other side, again where that fails; `serve` is its work. Attempts are counted for `message`."""
        unheard = False
        here.paid = min(here.paid + self.p.retry_budget, RESERVE)
        for attempt in range(self.p.retries + 1):
            self.attempts[message] += message >= 0
            at = draws.fold(place, attempt)
            call = self.env.process(self.attempt(label, here, there, at, attempt + 1, serve))
            ended = yield call | self.env.timeout(self.p.timeout)
            if call not in ended:
                call.interrupt("timed out")
                unheard = True
            elif ended[call].response in (OK, REFUSED):
                return ended[call]
            else:
                unheard = unheard or ended[call].response == TIMED_OUT
            if attempt == self.p.retries or not self.affords(here, self.p.retry_budget, self.p.retries):
                break
            wait = min(self.p.backoff * 2.0**attempt, 60.0)
            yield self.env.timeout(wait * self.uniform(f"{label}.backoff", at) if self.p.jitter else wait)
        return Answer(TIMED_OUT if unheard else FAILED)

    @staticmethod
    def affords(payer: Any, budget: float, retries: int) -> bool:
        """Whether a retry is paid for; where each call pays for all that it may need, none is counted."""
        if budget >= retries:
            return True
        if payer.paid < 1.0:
            return False
        payer.paid -= 1.0
        return True

    def choose(self, here: Any, peers: list[Peer], stream: str, place: int) -> int | None:
        """Which of the peers a call from here goes to, in turn or by what is known; None where all are left alone."""
        there = [number for number, peer in enumerate(peers) if not peer.out]
        if not there:
            return None
        if len(peers) == 1:
            return 0
        if self.p.balancing == "round_robin":
            here.turn += 1
            return there[(here.turn - 1) % len(there)]
        if self.p.balancing == "least_requests":
            return min(there, key=lambda number: peers[number].requests)
        one = there[int(self.uniform(stream, place) * len(there))]
        if self.p.balancing == "random":
            return one
        other = there[int(self.uniform(stream, draws.fold(place, 1)) * len(there))]
        return min(one, other, key=lambda number: peers[number].requests)

    def attempt(self, label: str, here: Process, there: Side, place: int, attempt: int, serve: Serve) -> Story:
        number = self.choose(here, here.peers, f"{label}.balancing.select", place)
        if number is None:
            return Answer(FAILED)
        peer, answer = here.peers[number], None
        try:
            with peer.connections.request() as connection:
                yield connection
                answer = Answer(TIMED_OUT)
                yield from self.work(here, self.p.http_client, f"{label}.client.send", place)
                answer = yield from self.ask(label, here, there, number, place, attempt, serve)
                end = "took" if answer.response in (OK, REFUSED) else "failed"
                yield from self.work(here, self.p.http_client, f"{label}.client.{end}", place)
        except simpy.Interrupt:
            answer = answer and Answer(TIMED_OUT)
        if answer is not None:
            peer.came_to(answer.response not in (OK, REFUSED), here.peers, 1.0)
        return answer or Answer(TIMED_OUT)

    def ask(
        self, label: str, here: Process, there: Side, number: int, place: int, attempt: int, serve: Serve
    ) -> Generator[simpy.Event, Answer, Answer]:
        """Ask the process to which the connection is."""
        answered = self.env.event()
        self.env.process(self.server(label, here, there.processes[number], place, attempt, serve, answered))
        return (yield answered)

    def server(
        self, label: str, here: Process, there: Process, place: int, attempt: int, serve: Serve, answered: simpy.Event
    ) -> Story:
        """The other side's work, which goes on when nobody waits for the answer any more."""
        yield self.time(self.p.network, f"{label}.network.there.from.{here.name}", place)
        answer = yield from self.serve(label, there, place, attempt, serve)
        way = "failed" if answer.response == FAILED else "back"
        yield self.time(self.p.network, f"{label}.network.{way}.from.{there.name}", place)
        answered.succeed(answer)

    def serve(self, label: str, there: Process, place: int, attempt: int, serve: Serve) -> Story:
        """What a request comes to where it is accepted."""
        if there.in_hand == self.p.backlog:
            return Answer(FAILED)
        there.in_hand += 1
        yield from self.work(there, self.p.http_server, f"{label}.server.receive", place)
        answer = yield from serve(there, attempt, place)
        page = "failed" if answer.response == FAILED else "server"
        yield from self.work(there, self.p.http_server, f"{label}.{page}.answer", place)
        there.in_hand -= 1
        return answer

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        (here, *_) = self.accounting.processes
        yield from self.enter("update", here, message, place)
        yield from self.ask_database(here, "update.accounting.commit", place, commits=True)
        level, version = self.change(message, +1)
        serve = partial(self.write_copy, message, COPIED, HANDLER, "update.shop.commit", level, version)
        answer = yield from self.request("update", here, self.shop, place, serve, message)
        yield from self.leave("update", here, message, place, answer)

    def order(self, message: int, place: int) -> Story:
        (here, *_) = self.shop.processes
        yield from self.enter("order", here, message, place)
        serve = partial(self.take, message)
        answer = yield from self.request("order", here, self.accounting, place, serve, message)
        yield from self.leave("order", here, message, place, answer)

    def query(self, message: int, place: int) -> Story:
        (here, *_) = self.shop.processes
        yield from self.enter("query", here, message, place)
        serve = partial(self.read, message)
        answer = yield from self.request("query", here, self.accounting, place, serve, message)
        yield from self.leave("query", here, message, place, answer)
        if answer.response == OK:
            _, self.answer[message], self.version[message] = answer

    def enter(self, label: str, at: Process, message: int, place: int) -> Story:
        yield self.env.timeout(self.issued[message])
        yield self.time(self.p.edge, f"{label}.edge.there", place)
        yield from self.work(at, self.p.http_server, f"{label}.{at.name}.receive", place)

    def leave(self, label: str, at: Process, message: int, place: int, answer: Answer) -> Story:
        yield from self.work(at, self.p.http_server, f"{label}.{at.name}.answer", place)
        yield self.time(self.p.edge, f"{label}.edge.back", place)
        self.responded[message], self.response[message] = self.env.now, answer.response

    # --- what the services do

    def take(self, message: int, at: Process, attempt: int, place: int) -> Story:
        """Accounting: take the units, or refuse, and announce the new level. A known key gets its first answer."""
        if not (yield from self.handle(at, HANDLER, message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(at, "order.accounting.commit", place, commits=True)
        received = self.accounting.received
        if self.p.idempotency and (message, TAKEN) in received:
            return received[message, TAKEN]
        answer = Answer(REFUSED)
        if self.accounting.level[self.arrivals.sku[message]] >= self.arrivals.quantity[message]:
            answer = Answer(OK)
            level, version = self.change(message, -1)
            self.happened(message, TAKEN)
            serve = partial(self.write_copy, message, ANNOUNCED, ANNOUNCEMENT, "announce.shop.commit", level, version)
            self.env.process(self.request("announce", at, self.shop, place, serve))
        received[message, TAKEN] = answer
        return answer

    def read(self, message: int, at: Process, attempt: int, place: int) -> Story:
        """Accounting: the level and version of a SKU."""
        if not (yield from self.handle(at, HANDLER, message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(at, "query.accounting.read", place, commits=False)
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
        at: Process,
        attempt: int,
        place: int,
    ) -> Story:
        """Shop: write the copy where the version is newer, and the key was not seen before."""
        if not (yield from self.handle(at, handler, message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(at, commit, place, commits=True)
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
    return told(Simulation(parameters, scenario, seed, messages))


def told(simulation: Simulation) -> dict[str, np.ndarray]:
    """Run it, and say what came of it."""
    simulation.env.run()
    names = ("issued", "responded", "applied", "response", "version", "answer", "attempts", "duplicates")
    return {name: getattr(simulation, name) for name in names}
