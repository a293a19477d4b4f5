"""One run: the rows from their first step to their last, consumers, actors, and where messages come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import simpy

from simlib import draws
from simlib.domain import KINDS
from simlib.engines import order
from simlib.engines.records import Records, width_of
from simlib.engines.simpy.clock import Clock, cancel
from simlib.engines.simpy.coordinators import CoordinatorState
from simlib.engines.simpy.credits import CreditState
from simlib.engines.simpy.faults import Faults
from simlib.engines.simpy.pools import PoolState
from simlib.engines.simpy.queues import QueueState
from simlib.engines.simpy.rows import FAILED, Chosen, Crashed, Ended, Failed, Program, Row, Waits, note_failure, walk
from simlib.engines.simpy.tables import TableState
from simlib.engines.simpy.verbs import Verbs
from simlib.flow.model import Actor, Consumers, Flow, Part
from simlib.scenario import POISON, Arrivals, Poison, Scenario


class Engine:
    """One run of a flow."""

    def __init__(self, flow: Flow, arrivals: Arrivals, kinds: list[str], seed: int, scenario: Scenario | None) -> None:
        self.flow, self.arrivals, self.seed = flow, arrivals, seed
        self.skus: list[int] = arrivals.sku.tolist()
        self.sessions: list[int] = arrivals.session.tolist()
        self.quantities: list[int] = arrivals.quantity.tolist()
        self.stock: list[int] | None = scenario.stock().tolist() if scenario else None
        self.horizon = scenario.horizon if scenario else math.inf
        self.clock = Clock()
        self.records = Records(arrivals, kinds, width_of(arrivals.issued))
        self.kind_codes = [KINDS.index(kinds[k]) if kinds[k] in KINDS else k for k in arrivals.kind.tolist()]
        self.open = len(arrivals)
        self.stop = simpy.Event(self.clock)
        self.rows: dict[Row, None] = {}
        self.turns: list[int] = []
        self.faults = Faults(self, scenario)
        self.poisoned = [0] * len(arrivals)
        for poison in (f for f in (scenario.faults if scenario else ()) if isinstance(f, Poison)):
            unlucky = draws.uniforms(draws.stream_key(seed, POISON), len(arrivals), 0) < poison.probability
            for i in np.flatnonzero(unlucky & (arrivals.kind == kinds.index(poison.kind))).tolist():
                self.poisoned[i] = 1
        self.pools = {pool: PoolState(self, pool) for pool in flow.pools.values()}
        self.queues = {queue: QueueState(self, queue) for queue in flow.queues.values()}
        numbered = enumerate(flow.coordinators.values())
        self.coordinators = {one: CoordinatorState(self, one, number) for number, one in numbered}
        self.tables = {table: TableState(self, table) for table in flow.tables.values()}
        self.credits = {credit: CreditState(self, credit) for credit in flow.credits.values()}
        self.verbs = Verbs(self)
        self.stages = {name: self.verbs.prepare(steps, f"stage.{name}") for name, steps in flow.stages.items()}

    def copy(self, message: int) -> int:
        """The number of the next row made for a message."""
        self.records.copies[message] += 1
        return self.records.copies[message]

    def ended(self, message: int) -> None:
        """Something of a message is no longer alive; with the last of it the message is settled."""
        alive = self.records.alive
        alive[message] -= 1
        if not alive[message]:
            self.open -= 1
            if self.closed_loop is not None:
                self.closed_loop(message)
            if not self.open and not self.stop.triggered:
                self.stop.succeed()

    closed_loop: Callable[[int], None] | None = None

    def revive(self, message: int) -> None:
        """Something of a message is about to be alive again: one that was settled is open."""
        if not self.records.alive[message]:
            self.open += 1

    def start(self, row: Row, program: Program) -> None:
        """A row is made; it begins when it is resumed."""
        self.records.alive[row.message] += 1
        self.rows[row] = None
        row.steps = self.life(row, program)

    def life(self, row: Row, program: Program) -> Waits:
        """A row from its first step to its last."""
        try:
            yield from self.journey(row, program)
        except Failed as failure:
            note_failure(row, failure)
            if row.main:
                self.records.respond(row.message, self.clock._now, row.result)
        except Ended:
            pass

    def journey(self, row: Row, program: Program) -> Waits:
        """The steps, and the stages that they choose."""
        while True:
            try:
                yield from walk(row, program)
                return
            except Chosen:
                if row.next is None:
                    return
                program = self.stages[row.next]
                row.place = draws.fold(row.place, 0)

    def finish(self, row: Row) -> None:
        """The row is over, or puts its delivery down: its units return, whoever joins it is told."""
        row.unwind(0)
        row.pass_on()
        self.done(row)

    def done(self, row: Row) -> None:
        """The row has nothing more to do for its message."""
        if row.actor >= 0:
            row.put_down()
            return
        if self.rows.pop(row, row) is None:
            if row.join is not None:
                row.join.branch_ended()
            self.ended(row.message)

    def kill(self, row: Row) -> None:
        """The row ends wherever it is."""
        if row.at is not None:
            row.at.forget(row)
        cancel(row.event)
        row.at = None
        row.steps.close()
        self.finish(row)

    def crash(self, row: Row) -> None:
        """The row's part died: the row goes back to its last checkpoint there, or ends where it made none."""
        if row.part not in row.saved:
            self.kill(row)
            return
        if row.at is not None:
            row.at.forget(row)
        cancel(row.event)
        row.at = row.steps.throw(Crashed())
        row.pass_on()

    def child(self, row: Row, program: Program) -> Row:
        """A row beside this one, for the same message, at the same part and place, with the same registers; it begins when
        its turn comes on the agenda."""
        child = Row(self, row.message, row.part, row.place)
        child.copy = self.copy(row.message)
        child.level, child.version, child.result = row.level, row.version, row.result
        child.attempt, child.answer_to = row.attempt, row.answer_to
        child.delivery, child.number = row.delivery, row.number
        self.start(child, program)
        child.wake()
        return child

    def consume(self, group: Consumers, number: int, program: Program) -> None:
        """A consumer's loop, for ever."""
        state = self.queues[group.queue]

        def loop(row: Row) -> Waits:
            while True:
                yield from state.receive(row, number)
                try:
                    yield from self.journey(row, program)
                except Failed as failure:
                    note_failure(row, failure)
                except Ended:
                    return
                row.unwind(0)
                self.done(row)
                row.delivery, row.message = None, -1

        def begin(_: Any = None) -> None:
            row = Row(self, -1, group.at, 0)
            row.steps = loop(row)
            actors[number] = row
            row.wake()

        actors = self.actors.setdefault(group, {})
        self.restarts.setdefault(group.at, []).append(begin)
        begin()

    # --- actors -----------------------------------------------------------------------------------------------------

    def act(self, actor: Actor, number: int, program: Program) -> None:
        """An actor's loop, for ever; `number` counts all actors of the flow, `turns` its turns in all its lives."""

        def loop(row: Row) -> Waits:
            while True:
                try:
                    yield from walk(row, program)
                except Failed as failure:
                    note_failure(row, failure)
                except Ended:
                    return
                self.finish(row)
                new_turn(row)

        def new_turn(row: Row) -> None:
            row.place = draws.fold(draws.fold(0, -1 - number), self.turns[number])
            self.turns[number] += 1

        def begin(_: Any = None) -> None:
            row = Row(self, -1, actor.at, 0)
            row.actor, row.steps = number, loop(row)
            self.acting[number] = row
            new_turn(row)
            row.wake()

        self.restarts.setdefault(actor.at, []).append(begin)
        begin()

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> float:
        """Run until every message is settled, to the horizon, or until nothing more can happen; the time at the end, s."""
        self.actors: dict[Consumers, dict[int, Row]] = {}
        self.restarts: dict[Part, list[Callable[[], None]]] = {}
        self.acting: dict[int, Row] = {}
        for group in self.flow.consumer_groups.values():
            self.queues[group.queue].attach(group)
            program = self.verbs.prepare(group.steps, group.name)
            for number in range(group.count):
                self.consume(group, number, program)
        numbers = count()
        for actor in self.flow.actors.values():
            for queue in actor.queues:
                self.queues[queue].attach_actor(actor)
            program = self.verbs.prepare(actor.steps, actor.name)
            for _ in range(actor.count):
                self.turns.append(0)
                self.act(actor, next(numbers), program)
        self.faults.begin()
        self.begin_sources()
        while not self.stop.processed and self.clock._queue:
            self.clock.step()
        return self.clock.now

    def begin_sources(self) -> None:
        """The arrivals, one after the other; or the customers of a closed loop."""
        programs = {kind: self.verbs.prepare(source.steps, kind) for kind, source in self.flow.sources.items()}
        sources = self.flow.sources
        begin = [(sources[kind], programs[kind]) if kind in sources else None for kind in self.records.kinds]
        kinds, times = self.arrivals.kind.tolist(), self.records.issued
        n = len(times)

        begin_at_once = simpy.Event(self.clock)
        begin_at_once._value = None

        def issue(message: int) -> None:
            known = begin[kinds[message]]
            source, program = known if known is not None else (None, [])
            part = source.at if source else None
            if self.faults.refuses(part):
                self.records.alive[message] += 1
                self.records.respond(message, self.clock._now, FAILED)
                self.ended(message)
                return
            if self.clock._now < self.faults.opens(part):
                self.clock.at(self.faults.opens(part), order.key(order.ARRIVAL, message, 1), lambda _: issue(message))
                return
            row = Row(self, message, part, draws.fold(0, message))
            row.main = True
            self.start(row, program)
            row.resume(begin_at_once)

        if self.arrivals.population:
            self.begin_customers(issue, n)
            return

        def arrive(event: simpy.Event, message: int = 0) -> None:
            if message + 1 < n:
                following = message + 1
                key = order.key(order.ARRIVAL, following)
                self.clock.at(times[following], key, lambda e: arrive(e, following))
            elif self.horizon < math.inf:
                self.clock.at(times[message] + self.horizon, order.key(order.OBSERVER, 0), self.give_up)
            issue(message)

        self.clock.at(times[0], order.key(order.ARRIVAL, 0), arrive)

    def give_up(self, _: Any) -> None:
        """The horizon: what is left counts as in flight."""
        if not self.stop.triggered:
            self.stop.succeed()

    def begin_customers(self, issue: Callable[[int], None], n: int) -> None:
        """A closed loop: each customer thinks, issues a message, and waits until it is settled."""
        thinking, stream = self.flow.thinking
        think = thinking.draw(draws.stream_key(self.seed, stream))
        issued = 0
        owner: dict[int, tuple[int, int]] = {}

        def next_turn(customer: int, turn: int) -> None:
            time = self.clock._now + think(draws.fold(draws.fold(0, customer), turn))
            self.clock.at(time, order.key(order.ARRIVAL, customer), lambda _: send(customer, turn))

        def send(customer: int, turn: int) -> None:
            nonlocal issued
            if issued < n:
                message, issued = issued, issued + 1
                owner[message] = customer, turn
                self.records.issued[message] = self.clock._now
                issue(message)

        def settled(message: int) -> None:
            if message in owner:  # what comes again is settled once more, and its customer has gone on
                customer, turn = owner.pop(message)
                next_turn(customer, turn + 1)

        self.closed_loop = settled
        for customer in range(self.arrivals.population):
            next_turn(customer, 0)
