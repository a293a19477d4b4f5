"""Direct REST as a textbook would write it in SimPy: a process for each message, a resource for each CPU and each pool.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, failures of the handler, and the pattern's signature fault, a caller that gives up while the
server works on, and asks again with the same idempotency key; several processes of a side, a backlog that is full, a breaker,
a budget of retries, hedged requests. A scenario's faults (loss, crash, poison) are left out. Numbers are drawn from the model's
streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simpy

from simlib import draws
from simlib.architectures.ground import ANNOUNCEMENT, FAILED, HANDLER, OK, REFUSED, TIMED_OUT, Ground, Side, Story, had
from simlib.domain import ANNOUNCED, COPIED, DONE_BY, RESERVE
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.rest import model
    from simlib.architectures.rest.model import Rest

Serve = Callable[[Side, int, int], Story]
"""A server's work, by which process does it, the number of the caller's attempt and the place of its draws."""
SAVED = 100.0
"""Retries that a budget holds at most."""
GIVEN_UP = "given up"
"""Why an attempt ends of which nobody says that it failed."""


class Answer(NamedTuple):
    """What a call comes to: a response, and what a query saw."""

    response: int
    level: int = -1
    version: int = -1


@dataclass(eq=False)
class Peer:
    """A process that a caller knows: its connections there, failures in a row, until when it leaves it alone."""

    process: Side
    connections: simpy.Resource
    failures: int = 0
    out_until: float = -np.inf

    @property
    def requests(self) -> int:
        return self.connections.count + len(self.connections.queue)


@dataclass(eq=False)
class Caller:
    """Who calls a service: the processes that it knows, over how many connections to each; what its retries are paid from; a
    breaker, which leaves alone who failed so often in a row, for so long, and no more than a share of all; after how long it
    hedges; how it chooses."""

    env: simpy.Environment
    processes: list[Side]
    connections: int
    budget: float = np.inf
    breaker: int = 0
    lasts: float = 0.0
    most: float = 1.0
    hedge_after: float = 0.0
    balancing: str = "round_robin"

    def __post_init__(self) -> None:
        self.peers = [Peer(process, simpy.Resource(self.env, self.connections)) for process in self.processes]
        self.turn, self.paid = 0, 0.0

    def is_out(self, peer: Peer) -> bool:
        return self.env.now < peer.out_until

    def hears(self, peer: Peer, failed: bool) -> None:
        """What a call came to."""
        peer.failures = peer.failures + 1 if failed else 0
        if self.breaker and failed and not self.is_out(peer) and peer.failures >= self.breaker:
            if sum(map(self.is_out, self.peers)) < int(self.most * len(self.peers)):
                peer.out_until = self.env.now + self.lasts

    def pays_in(self) -> None:
        """A call pays for the retries of all."""
        self.paid = min(self.paid + self.budget, SAVED)

    def affords(self, retries: int) -> bool:
        """Whether a retry is paid for; where each call pays for all that it may need, none is counted."""
        if self.budget >= retries:
            return True
        if self.paid < 1.0:
            return False
        self.paid -= 1.0
        return True


class Calls(Ground):
    """A run in which services call each other, over HTTP: the shop accounting, at least. `room` is what a process accepts before it
    refuses."""

    p: model.Caller

    def __init__(self, p: model.Caller, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        self.callers = {(self.shop, self.accounting): Caller(self.env, [self.accounting], p.connections)}
        self.room: dict[Side, float] = dict.fromkeys(self.at.values(), np.inf)

    def request(self, label: str, here: Side, there: Side, place: int, serve: Serve, message: int = -1) -> Story:
        """Ask the other side, again where that fails; `serve` is its work. Attempts are counted for `message`."""
        caller, unheard = self.callers[here, there], False
        caller.pays_in()
        for attempt in range(self.p.retries + 1):
            self.attempts[message] += message >= 0
            at = draws.fold(place, attempt)
            ask = self.hedged if caller.hedge_after else self.in_time
            answer = yield from ask(label, here, caller, at, attempt + 1, serve)
            if answer.response in (OK, REFUSED):
                return answer
            unheard = unheard or answer.response == TIMED_OUT
            if attempt == self.p.retries or not caller.affords(self.p.retries):
                break
            wait = min(self.p.backoff * 2.0**attempt, 60.0)
            yield self.env.timeout(wait * self.uniform(f"{label}.backoff", at) if self.p.jitter else wait)
        return Answer(TIMED_OUT if unheard else FAILED)

    def hedged(self, label: str, here: Side, caller: Caller, place: int, attempt: int, serve: Serve) -> Story:
        """Ask, and where there is no answer for so long, once more beside it; whoever is not heard first is given up."""
        heard = self.env.event()

        def ask(i: int) -> Story:
            try:
                yield self.env.timeout(i * caller.hedge_after)
                number = 2 * attempt - 1 + i
                answer = yield from self.in_time(label, here, caller, draws.fold(place, i), number, serve)
                heard.succeed(answer)
            except simpy.Interrupt:
                return

        tries = [self.env.process(ask(i)) for i in range(2)]
        answer = yield heard
        for other in tries:
            if other.is_alive:
                other.interrupt(GIVEN_UP)
                yield other
        return answer

    def in_time(self, label: str, here: Side, caller: Caller, place: int, attempt: int, serve: Serve) -> Story:
        """An attempt, which is abandoned when its time is up."""
        story = self.attempt(label, here, caller, place, attempt, serve)
        answer: Answer | None = yield from self.within(self.p.timeout, story)
        return answer or Answer(TIMED_OUT)

    def choose(self, caller: Caller, stream: str, place: int) -> Peer | None:
        """Whom a call goes to, in turn or by what is known; None where all are left alone."""
        there = [peer for peer in caller.peers if not caller.is_out(peer)]
        if not there:
            return None
        if len(caller.peers) == 1:
            return there[0]
        if caller.balancing == "round_robin":
            caller.turn += 1
            return there[(caller.turn - 1) % len(there)]
        if caller.balancing == "least_requests":
            return min(there, key=lambda peer: peer.requests)
        one = there[int(self.uniform(stream, place) * len(there))]
        if caller.balancing == "random":
            return one
        other = there[int(self.uniform(stream, draws.fold(place, 1)) * len(there))]
        return min(one, other, key=lambda peer: peer.requests)

    def attempt(self, label: str, here: Side, caller: Caller, place: int, attempt: int, serve: Serve) -> Story:
        peer, answer = self.choose(caller, f"{label}.balancing.select", place), None
        if peer is None:
            return Answer(FAILED)
        try:
            with peer.connections.request() as connection:
                yield from had(connection)
                answer = Answer(TIMED_OUT)
                yield from self.post(here, label, place)
                answer = yield from self.ask(label, here, peer.process, place, attempt, serve)
                end = "took" if answer.response in (OK, REFUSED) else "failed"
                yield from self.work(here, self.p.http_client, f"{label}.client.{end}", place)
        except simpy.Interrupt as interrupt:
            if interrupt.cause == GIVEN_UP:
                raise
            answer = answer and Answer(TIMED_OUT)
        if answer is not None:
            caller.hears(peer, answer.response not in (OK, REFUSED))
        return answer or Answer(TIMED_OUT)

    def ask(self, label: str, here: Side, there: Side, place: int, attempt: int, serve: Serve) -> Story:
        """Ask the process to which the connection is."""
        answered = self.env.event()
        self.env.process(self.server(label, here, there, place, attempt, serve, answered))
        return (yield answered)

    def server(
        self, label: str, here: Side, there: Side, place: int, attempt: int, serve: Serve, answered: simpy.Event
    ) -> Story:
        """The other side's work, which goes on when nobody waits for the answer any more."""
        yield self.time(self.p.network, f"{label}.network.there.from.{here.name}", place)
        answer = yield from self.serve(label, there, place, attempt, serve)
        way = "failed" if answer.response == FAILED else "back"
        yield self.time(self.p.network, f"{label}.network.{way}.from.{there.name}", place)
        answered.succeed(answer)

    def serve(self, label: str, there: Side, place: int, attempt: int, serve: Serve) -> Story:
        """What a request comes to where it is accepted."""
        if not self.room[there]:
            return Answer(FAILED)
        self.room[there] -= 1
        yield from self.work(there, self.p.http_server, f"{label}.server.receive", place)
        answer = yield from serve(there, attempt, place)
        page = "failed" if answer.response == FAILED else "server"
        yield from self.work(there, self.p.http_server, f"{label}.{page}.answer", place)
        self.room[there] += 1
        return answer


class Simulation(Calls):
    """One run."""

    p: Rest

    def __init__(self, p: Rest, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        self.processes = {side: self.replicated(side) for side in (self.accounting, self.shop)}
        for here, there in ((self.accounting, self.shop), (self.shop, self.accounting)):
            for process in self.processes[here]:
                self.callers[process, there] = self.caller(there)
        for side in self.at.values():
            if side is not self.accounting:
                self.callers[self.shop, side] = Caller(self.env, [side], p.connections)
        self.room.update((process, p.backlog) for processes in self.processes.values() for process in processes)
        self.received: dict[tuple[int, str], int] = {}
        self.issue()

    def replicated(self, side: Side) -> list[Side]:
        """A side's processes, all on its database."""
        numbers = range(2, self.p.processes + 1)
        return [side, *(replace(side, name=f"{side.name}.{k}", cpu=self.event_loop()) for k in numbers)]

    def caller(self, there: Side) -> Caller:
        """Who calls the processes of a side."""
        p = self.p
        guards = p.retry_budget, p.breaker, p.breaker_lasts
        return Caller(
            self.env, self.known(there), p.connections, *guards, hedge_after=p.hedge_after, balancing=p.balancing
        )

    def known(self, there: Side) -> list[Side]:
        """Those of a side's processes that a caller knows."""
        return self.processes[there]

    # --- the three kinds of message

    def update(self, message: int, place: int) -> Story:
        here = self.accounting
        yield from self.enter("update", here, message, place)
        yield from self.ask_database(here, "update.accounting.commit", place, commits=True)
        serve = partial(self.write_copy, message, "update", *self.change(message, +1))
        answer = yield from self.request("update", here, self.shop, place, serve, message)
        yield from self.leave("update", here, message, place, answer.response)

    def order(self, message: int, place: int) -> Story:
        """The shop calls one service after the other, as long as none refuses; nobody undoes anything."""
        here, answer = self.shop, Answer(OK)
        yield from self.enter("order", here, message, place)
        for step in self.scenario.steps:
            if answer.response == OK:
                label, serve = self.label(step), partial(self.do, message, step)
                answer = yield from self.request(label, here, self.at[step], place, serve, message)
        yield from self.leave("order", here, message, place, answer.response)

    def query(self, message: int, place: int) -> Story:
        here = self.shop
        yield from self.enter("query", here, message, place)
        serve = partial(self.read, message)
        answer = yield from self.request("query", here, self.accounting, place, serve, message)
        yield from self.leave("query", here, message, place, answer.response)
        if answer.response == OK:
            _, self.answer[message], self.version[message] = answer

    # --- what the services do

    @staticmethod
    def label(step: str) -> str:
        """How the visits for a step of an order are told from others."""
        return "order" if step == RESERVE else step

    def do(self, message: int, step: str, at: Side, attempt: int, place: int) -> Story:
        """A step of an order, or a refusal; a known key gets its first answer, which is late where nobody is to hear of it."""
        if not (yield from self.handle(at, self.work_of(step), message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(at, f"{self.label(step)}.{self.at[step].name}.commit", place, commits=True)
        key = message, DONE_BY[step][0]
        if key not in self.received or not self.p.idempotency:
            tried = self.take(message, at, attempt, place) if step == RESERVE else self.perform(step, message, attempt)
            self.received[key] = tried
        if self.received[key] == OK and self.unheard(step, message, attempt):
            yield self.env.timeout(self.p.timeout)
            return Answer(TIMED_OUT)
        return Answer(self.received[key])

    def take(self, message: int, at: Side, attempt: int, place: int) -> int:
        """Accounting: take the units, or refuse, and announce the new level."""
        response, level, version = self.reserve(message, attempt)
        if response == OK:
            serve = partial(self.write_copy, message, "announce", level, version)
            self.beside(self.request("announce", at, self.shop, self.decided(message, attempt, place), serve))
        return response

    def read(self, message: int, at: Side, attempt: int, place: int) -> Story:
        """Accounting: the level and version of a SKU."""
        if not (yield from self.handle(at, HANDLER, message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(at, "query.accounting.read", place, commits=False)
        sku = self.arrivals.sku[message]
        return Answer(OK, self.accounting.level[sku], self.accounting.version[sku])

    def write_copy(
        self, message: int, label: str, level: int, version: int, at: Side, attempt: int, place: int
    ) -> Story:
        """Shop: write the copy where the version is newer, and the key was not seen before."""
        work, effect = (ANNOUNCEMENT, ANNOUNCED) if label == "announce" else (HANDLER, COPIED)
        if not (yield from self.handle(at, work, message, attempt)):
            return Answer(FAILED)
        yield from self.ask_database(at, f"{label}.shop.commit", place, commits=True)
        if (message, effect) not in self.received or not self.p.idempotency:
            self.show(message, level, version, if_newer=True)
        self.received[message, effect] = OK
        return Answer(OK)


def run(parameters: Rest, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `attempts` of the caller; `duplicates`, effects that happened again.
    """
    return Simulation(parameters, scenario, seed, messages).run("attempts")
