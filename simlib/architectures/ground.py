"""What the oracles stand on, in plain SimPy: the machine, its two services and their databases, and what is told of a run.

Nothing here knows the flow's blocks and their engines. Numbers are drawn from the model's streams at the model's places.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy
from simpy.resources.resource import Release

from simlib import draws
from simlib.architectures.parameters import CONNECTION_GIVEN
from simlib.distributions import Distribution
from simlib.domain import (
    ANNOUNCED,
    COPIED,
    DONE_AT,
    DONE_BY,
    KINDS,
    ORDER,
    RESERVE,
    RESPONSES,
    STOCK_QUERY,
    STOCK_UPDATE,
    TAKEN,
)
from simlib.scenario import STEP_REFUSED, STEP_UNHEARD, Scenario

if TYPE_CHECKING:
    from simlib.architectures.parameters import Parameters

OK, REFUSED, FAILED, TIMED_OUT = (RESPONSES.index(name) for name in ("ok", "refused", "failed", "timed_out"))
HANDLER, ANNOUNCEMENT = "handler_work", "announcement_work"
"""Streams of the handlers' work, which all architectures share."""
Story = Generator[simpy.Event, Any, Any]
Known = tuple[int, int, int]
"""What a service remembers of a message: the result, and the level and version that went on with it."""


class Units(simpy.Resource):
    """Units that go to who waits as soon as they are given back; those of SimPy's resources go an event later."""

    def _do_get(self, event: Release) -> None:
        super()._do_get(event)
        self._trigger_put(None)


def had(request: simpy.Event) -> Story:
    """Wait for what is asked for; what is there is had at once, without a wait."""
    if not request.triggered:
        yield request
    return request.value


class Turn(simpy.Event):
    """A turn in an event loop, which ends with the block that it is used in."""

    def __init__(self, loop: EventLoop) -> None:
        super().__init__(loop.env)
        self.loop = loop

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        if self.triggered:
            self.loop.keep()
        else:
            self.loop.line.remove(self)


class EventLoop:
    """Serves who comes first. A process keeps its turn until it waits for something."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self.busy = env, False
        self.keeper: simpy.Process | None = None
        self.line: list[Turn] = []

    def request(self) -> Turn:
        """A turn, which comes at once where the loop is free or the process still has it."""
        turn = Turn(self)
        if self.busy and self.keeper is not self.env.active_process:
            self.line.append(turn)
        else:
            self.busy, self.keeper = True, None
            turn.succeed()
        return turn

    def keep(self) -> None:
        """The process keeps its turn until it waits: that is when another that begins now runs."""
        self.keeper = self.env.active_process
        self.env.process(self.go_round())

    def go_round(self) -> Story:
        """Who is next has a turn, where one was kept."""
        if self.keeper is not None:
            self.pass_on()
        yield from ()

    def over(self) -> None:
        """A process that goes from one thing to the next without a wait keeps no turn."""
        if self.keeper is self.env.active_process:
            self.pass_on()

    def pass_on(self) -> None:
        """Who is next has a turn."""
        self.keeper = None
        if self.line:
            self.line.pop(0).succeed()
        else:
            self.busy = False

    def turns(self, count: int) -> Story:
        """So many turns, the last of which the process keeps; whoever waits comes before."""
        for _ in range(count):
            if not self.busy or self.keeper is not self.env.active_process:
                with self.request() as turn:
                    yield from had(turn)
            elif self.line:
                turn = Turn(self)
                self.line.append(turn)
                self.pass_on()
                with turn:
                    yield turn


class InOrder(Units):
    """Serves who comes first, each piece of work by itself."""

    def over(self) -> None:
        """No turn is kept."""

    def turns(self, count: int) -> Story:
        """No turn is waited for."""
        yield from ()


@dataclass(eq=False)
class Side:
    """A service: one event loop, its connections to its database, its goods or its copy of them."""

    name: str
    cpu: EventLoop | InOrder
    database: simpy.Resource
    level: list[int]
    version: list[int]


class Ground:
    """One run: what a visit to a service or a database takes, and what became of each message."""

    p: Parameters

    def __init__(self, p: Parameters, scenario: Scenario, seed: int, messages: int) -> None:
        self.p, self.scenario, self.seed = p, scenario, seed
        self.env = env = simpy.Environment()
        self.arrivals = scenario.draw(seed, messages)
        self.cores, self.log = Units(env, p.cores), Units(env)
        self.accounting, self.shop = (self.side(name) for name in ("accounting", "shop"))
        others = {name: self.side(name) for name in ("payment", "shipping")}
        named = {"accounting": self.accounting, **others}
        self.at = {step: named[DONE_AT[step]] for step in scenario.steps}
        self.issued, (self.responded, self.applied) = self.arrivals.issued, np.full((2, messages), np.nan)
        self.response, self.attempts, self.deliveries, self.duplicates, self.parked = np.zeros((5, messages), int)
        self.version, self.answer = np.full((2, messages), -1)
        self.done: set[tuple[int, str]] = set()

    def side(self, name: str) -> Side:
        """A service with a database of its own."""
        database, units = Units(self.env, self.p.database_connections), self.scenario.stock().tolist()
        return Side(name, self.event_loop(), database, units, [0] * len(units))

    def event_loop(self) -> EventLoop | InOrder:
        """What serves a process's work."""
        return EventLoop(self.env) if self.p.event_loop else InOrder(self.env)

    def issue(self) -> None:
        """Messages come, to what is there by now."""
        starts = {STOCK_UPDATE: self.update, ORDER: self.order, STOCK_QUERY: self.query}
        for message, kind in enumerate(self.arrivals.kind.tolist()):
            self.env.process(starts[KINDS[kind]](message, draws.fold(0, message)))

    def update(self, message: int, place: int) -> Story:
        """Accounting changes its stock."""
        raise NotImplementedError

    def order(self, message: int, place: int) -> Story:
        """A customer orders at the shop."""
        raise NotImplementedError

    def query(self, message: int, place: int) -> Story:
        """A visitor asks the shop, which looks at its copy."""
        yield from self.enter("query", self.shop, message, place)
        response = FAILED
        if (yield from self.handle(self.shop, HANDLER, message, 1)):
            yield from self.ask_database(self.shop, "query.shop.read", place, commits=False)
            sku, response = self.arrivals.sku[message], OK
            self.answer[message], self.version[message] = self.shop.level[sku], self.shop.version[sku]
        yield from self.leave("query", self.shop, message, place, response)

    # --- the goods

    def change(self, message: int, sign: int) -> tuple[int, int]:
        """Accounting's stock changes by the message's quantity; the new level and version."""
        sku, goods = self.arrivals.sku[message], self.accounting
        goods.level[sku] += sign * int(self.arrivals.quantity[message])
        goods.version[sku] += 1
        self.version[message] = goods.version[sku]
        return goods.level[sku], goods.version[sku]

    def promise(self, message: int) -> bool:
        """The shop promises the units, if its copy shows them."""
        sku, quantity = self.arrivals.sku[message], int(self.arrivals.quantity[message])
        if self.shop.level[sku] < quantity:
            return False
        self.shop.level[sku] -= quantity
        return True

    def reserve(self, message: int, attempt: int) -> Known:
        """Accounting takes the units, if it has them and does not refuse."""
        if self.refuses(RESERVE, message, attempt):
            return REFUSED, -1, -1
        if self.accounting.level[self.arrivals.sku[message]] < self.arrivals.quantity[message]:
            return REFUSED, -1, -1
        level, version = self.change(message, -1)
        self.happened(message, TAKEN)
        return OK, level, version

    def perform(self, step: str, message: int, attempt: int) -> int:
        """A service does a further step of an order, if it does not refuse."""
        if self.refuses(step, message, attempt):
            return REFUSED
        self.happened(message, DONE_BY[step][0])
        return OK

    def show(self, message: int, level: int, version: int, if_newer: bool) -> None:
        """The shop's copy gets a level."""
        sku, shop = self.arrivals.sku[message], self.shop
        if version > shop.version[sku] or not if_newer:
            shop.level[sku], shop.version[sku] = level, version
            self.happened(message, ANNOUNCED if self.ordered(message) else COPIED)

    # --- what a visit takes

    def drawn(self, distribution: Distribution, stream: str, place: int) -> float:
        return distribution.draw(draws.stream_key(self.seed, stream))(place)

    def time(self, distribution: Distribution, stream: str, place: int) -> simpy.Event:
        return self.env.timeout(self.drawn(distribution, stream, place))

    @staticmethod
    def turns(number: int) -> Iterator[int]:
        """Where the draws of the turns of an actor stand, by its number among the model's."""
        for turn in itertools.count():
            yield draws.fold(draws.fold(0, -1 - number), turn)

    def uniform(self, stream: str, place: int) -> float:
        return draws.uniform(draws.stream_key(self.seed, stream), place)

    def on_a_core(
        self, distribution: Distribution, stream: str, place: int, more: Callable[[], float] = lambda: 0.0
    ) -> Story:
        """Work on one of the cores that both sides and the database share, and so many seconds more."""
        with self.cores.request() as core:
            yield from had(core)
            yield self.env.timeout(self.drawn(distribution, stream, place) + more())

    def work(
        self, side: Side, distribution: Distribution, stream: str, place: int, more: Callable[[], float] = lambda: 0.0
    ) -> Story:
        with side.cpu.request() as turn:
            yield from had(turn)
            yield from self.on_a_core(distribution, stream, place, more)

    def post(self, side: Side, label: str, place: int) -> Story:
        """Send a request that has content, which the client writes in a task of its own."""
        yield from self.work(side, self.p.http_client, f"{label}.client.send", place)
        yield from side.cpu.turns(1)

    def within(self, time: float, story: Story) -> Story:
        """A story, which is given up after a time; what it comes to, None where it is."""
        process, timer = self.env.active_process, self.env.timeout(time)
        assert process is not None and timer.callbacks is not None
        timer.callbacks.append(lambda _: process.interrupt(timer))
        try:
            return (yield from story)
        except simpy.Interrupt as interrupt:
            if interrupt.cause is not timer:
                raise
            return None
        finally:
            if timer.callbacks is not None:
                timer.callbacks.clear()

    def answer_within(self, time: float) -> simpy.Event:
        """An answer that somebody waits for no longer than a time, and has timed out then."""
        answer, timer = self.env.event(), self.env.timeout(time)

        def time_out(_: simpy.Event) -> None:
            if not answer.triggered:
                answer.succeed(TIMED_OUT)

        assert timer.callbacks is not None
        timer.callbacks.append(time_out)
        return answer

    def beside(self, story: Story) -> simpy.Process:
        """A process beside this one, which begins in its turn: after what else happens at this instant."""
        turn = self.env.timeout(0.0)

        def begin() -> Story:
            yield turn
            return (yield from story)

        return self.env.process(begin())

    def transaction(self, side: Side, stream: str, place: int, *server: Story) -> Story:
        """A connection, and what the database's client does around the work of the server."""
        with side.database.request() as connection:
            waits = not connection.triggered
            yield from had(connection)
            if waits:
                yield from side.cpu.turns(CONNECTION_GIVEN)
            yield from self.work(side, self.p.database_client, f"{stream}.ask", place)
            for story in server:
                yield from story
            yield from self.work(side, self.p.database_client, f"{stream}.took", place)

    def flush(self, stream: str, place: int) -> Story:
        with self.log.request() as turn:
            yield from had(turn)
            yield self.time(self.p.commit, stream, place)

    def ask_database(self, side: Side, stream: str, place: int, commits: bool) -> Story:
        flushed = [self.flush(f"{stream}.flush", place)] if commits else []
        yield from self.transaction(side, stream, place, self.on_a_core(self.p.read, stream, place), *flushed)

    def handle(self, side: Side, stream: str, message: int, attempt: int) -> Story:
        """The handler's work; whether it succeeds. Every architecture meets the same at the same attempt."""
        place = draws.fold(draws.fold(0, message), attempt - 1)
        yield from self.work(side, self.scenario.handler_work, stream, place)
        return self.uniform(f"handler_failure.{stream}", place) >= self.scenario.handler_failure

    def meets(self, probability: float, stream: str, message: int, attempt: int) -> bool:
        """Whether a chance falls on a message: every architecture meets the same at the same attempt."""
        return self.uniform(stream, draws.fold(draws.fold(0, message), attempt - 1)) < probability

    def refuses(self, step: str, message: int, attempt: int) -> bool:
        """Whether the service refuses a step of an order."""
        return self.meets(self.scenario.step_refused, f"{STEP_REFUSED}.{step}", message, attempt)

    def unheard(self, step: str, message: int, attempt: int) -> bool:
        """Whether nobody is to hear of a step that was done."""
        return self.meets(self.scenario.step_timed_out, f"{STEP_UNHEARD}.{step}", message, attempt)

    def decided(self, message: int, attempt: int, place: int) -> int:
        """Where the draws of what a service does stand: by the attempt, where it may refuse to."""
        return draws.fold(draws.fold(0, message), attempt - 1) if self.scenario.step_refused else place

    def work_of(self, step: str) -> str:
        """The shared stream of the handler's work for a step."""
        return HANDLER if step == RESERVE else f"{HANDLER}.{step}"

    def call_services(self, here: Side, message: int, attempt: int, place: int) -> Story:
        """A process of accounting calls one service after the other for the further steps of an order, once each, as long as each
        is done."""
        for step in self.scenario.steps[1:]:
            if self.at[step] is self.accounting:
                response = yield from self.do_step(step, here, message, attempt, place)
            else:
                response = yield from self.call_service(step, here, self.at[step], message, attempt, place)
            if response != OK:
                return

    def call_service(self, step: str, here: Side, side: Side, message: int, attempt: int, place: int) -> Story:
        way = f"{step}.network"
        yield from self.post(here, step, place)
        yield self.time(self.p.network, f"{way}.there.from.{here.name}", place)
        yield from self.work(side, self.p.http_server, f"{step}.server.receive", place)
        response = yield from self.do_step(step, side, message, attempt, place)
        if response == OK and self.unheard(step, message, attempt):
            return TIMED_OUT
        page, end = ("failed", "failed") if response == FAILED else ("server", "back")
        yield from self.work(side, self.p.http_server, f"{step}.{page}.answer", place)
        yield self.time(self.p.network, f"{way}.{end}.from.{side.name}", place)
        if response != FAILED:
            yield from self.work(here, self.p.http_client, f"{step}.client.took", place)
        return response

    def do_step(self, step: str, side: Side, message: int, attempt: int, place: int) -> Story:
        if not (yield from self.handle(side, self.work_of(step), message, attempt)):
            return FAILED
        yield from self.ask_database(side, f"{step}.{side.name}.commit", place, commits=True)
        return self.perform(step, message, attempt)

    def enter(self, label: str, side: Side, message: int, place: int) -> Story:
        yield self.env.timeout(self.issued[message])
        yield self.time(self.p.edge, f"{label}.edge.there", place)
        yield from self.work(side, self.p.http_server, f"{label}.{side.name}.receive", place)

    def leave(self, label: str, side: Side, message: int, place: int, response: int, variant: str = "") -> Story:
        yield from self.work(side, self.p.http_server, f"{label}.{side.name}{variant}.answer", place)
        yield self.time(self.p.edge, f"{label}{variant}.edge.back", place)
        self.responded[message], self.response[message] = self.env.now, response

    def ordered(self, message: int) -> bool:
        """Whether it is an order, whose change of stock is announced."""
        return KINDS[self.arrivals.kind[message]] == ORDER

    def happened(self, message: int, effect: str) -> None:
        self.duplicates[message] += (message, effect) in self.done
        self.done.add((message, effect))
        self.applied[message] = np.fmin(self.applied[message], self.env.now)

    def run(self, *names: str) -> dict[str, np.ndarray]:
        """Go on until nothing is under way any more; the columns of these names, and of those that every run has."""
        self.env.run()
        names = ("issued", "responded", "applied", "response", "version", "answer", "duplicates", *names)
        return {name: getattr(self, name) for name in names}


class GroupCommit:
    """A log of which one flush serves all who wait when it is free. `number` is that of its process among the model's actors,
    `deliveries` counts how often each message was flushed."""

    def __init__(
        self,
        env: simpy.Environment,
        log: simpy.Resource,
        time: Distribution,
        stream: int,
        number: int,
        deliveries: np.ndarray,
    ) -> None:
        self.env, self.log, self.deliveries = env, log, deliveries
        self.time, self.entity = time.draw(stream), draws.fold(0, -1 - number)
        self.waiting: list[tuple[int, simpy.Event]] = []
        self.awaited = env.event()
        env.process(self.flush_for_ever())

    def flush(self, message: int) -> Story:
        """Wait for a flush."""
        done = self.env.event()
        self.waiting.append((message, done))
        if not self.awaited.triggered:
            self.awaited.succeed()
        yield done

    def flush_for_ever(self) -> Story:
        for flushes in itertools.count():
            if not self.waiting:
                self.awaited = self.env.event()
                yield self.awaited
            with self.log.request() as turn:
                yield turn
                together, self.waiting = self.waiting, []
                for message, _ in together:
                    self.deliveries[message] += 1
                yield self.env.timeout(self.time(draws.fold(self.entity, flushes)))
            for _, done in together:
                done.succeed()
