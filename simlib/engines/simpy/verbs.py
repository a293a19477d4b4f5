"""The verbs: what each step of a flow does with a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from simlib import draws
from simlib.distributions import Constant
from simlib.domain import RESPONSES
from simlib.engines import order
from simlib.engines.records import ANSWERED, REJECTED, SUPERSEDED
from simlib.engines.simpy.clock import cancel
from simlib.engines.simpy.links import travel
from simlib.engines.simpy.pools import EventLoop
from simlib.engines.simpy.queues import Delivery
from simlib.engines.simpy.rows import (
    ANSWER,
    FAILED,
    OK,
    REFUSED,
    TIMED_OUT,
    Chosen,
    Crashed,
    Ended,
    Expired,
    Failed,
    Join,
    Program,
    Row,
    Served,
    Timer,
    Waits,
    note_failure,
    walk,
)  # fmt: skip
from simlib.engines.simpy.tables import Cell
from simlib.errors import RunFailed
from simlib.flow import blocks
from simlib.flow.blocks import Steps
from simlib.flow.model import Budget, Log, Pool, Replica, Table
from simlib.scenario import Death, Pause, Slowdown

if TYPE_CHECKING:
    from simlib.engines.simpy.engine import Engine


class Verbs:
    """Prepares the steps of a flow for one run."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.seed, self.clock, self.records = engine, engine.seed, engine.clock, engine.records
        self.faults, self.pools, self.queues, self.tables = engine.faults, engine.pools, engine.queues, engine.tables
        self.paid: dict[Budget, float] = {}
        self.credits = engine.credits

    def prepare(self, steps: Steps, name: str) -> Program:
        """The steps as callables: (whether it may wait, what to do with a row)."""
        program: Program = []
        for i, step in enumerate(steps):
            if isinstance(step, blocks.Checkpoint):
                program.append((True, self.checkpoint(self.prepare(steps[i + 1 :], name))))
                break
            method = getattr(self, f"_{type(step).__name__.lower()}")
            prepared = method(step, name)
            program.append(prepared if isinstance(prepared, tuple) else (True, prepared))
        return program

    def time(self, duration: blocks.Time, stream: str) -> Callable[[Row], float]:
        """A sampler of a duration at a row's place; raises RunFailed where it is no time."""
        if isinstance(duration, blocks.Affine):
            base, read, per = duration.base, self.field(duration.field), duration.per
        else:
            base, read, per = duration, None, 0.0
        draw = base.draw(draws.stream_key(self.seed, stream))

        def time(row: Row) -> float:
            value = draw(row.place)
            if read is not None:
                value += per * read(row)
            if not 0.0 <= value < math.inf:
                raise RunFailed(
                    f"stream '{stream}' drew {value} for message {row.message}: a time must be finite and at least 0"
                )
            return value

        return time

    def service(self, duration: blocks.Time, stream: str, pool: Pool) -> Callable[[Row], float]:
        """A sampler of a service, as slow as the pool's part is, or where it stands at none the part that the row is at."""
        time, slow = self.time(duration, stream), self.faults.slow
        if not any(isinstance(fault.kind, Slowdown) for fault in self.faults.strikes):
            return time
        return lambda row: time(row) * slow.get(pool.at or row.part, 1.0)

    def _delay(self, step: blocks.Delay, name: str) -> Any:
        time = self.time(step.duration, step.stream or f"{name}.delay")

        def run(row: Row) -> Waits:
            yield row.sleep_until(self.clock._now + time(row))

        return run

    def _every(self, step: blocks.Every, name: str) -> Any:
        period = step.period

        def run(row: Row) -> Waits:
            turn = math.floor(self.clock._now / period) + 1
            while turn * period <= self.clock._now:
                turn += 1
            yield row.sleep_until(turn * period)

        return run

    def _seize(self, step: blocks.Seize, name: str) -> Any:
        pool = self.pools[step.pool]
        stream = step.stream or f"{name}.{step.pool.name}.seize"
        select = draws.stream_key(self.seed, f"{stream}.select")

        def run(row: Row) -> Waits:
            member = pool.pick(row, select)
            if not member.seize(row, step.priority):
                yield member

        return run

    def _release(self, step: blocks.Release, name: str) -> Any:
        members = self.pools[step.pool].members

        def run(row: Row) -> None:
            member = next(member for member in reversed(row.held) if member in members)
            member.release(row)
            member.succeeded()

        return False, run

    def _turn(self, step: blocks.Turn, name: str) -> Any:
        (loop,) = self.pools[step.pool].members
        assert isinstance(loop, EventLoop)

        def run(row: Row) -> Waits:
            if not loop.turn(row):
                yield loop
            loop.release(row)
            loop.succeeded()

        return run

    def _serve(self, step: blocks.Serve, name: str) -> Any:
        pool, priority = self.pools[step.pool], step.priority
        stream = step.stream or f"{name}.{step.pool.name}.serve"
        time = self.service(step.duration, stream, step.pool)
        select = draws.stream_key(self.seed, f"{stream}.select")
        served = Served(step.pool.at)

        def run(row: Row) -> Waits:
            member = pool.pick(row, select)
            if not member.seize(row, priority):
                yield member
            yield row.serve(self.faults.goes_on(served.part or row.part) + time(row), served)
            member.release(row)
            member.succeeded()

        return run

    def _send(self, step: blocks.Send, name: str) -> Any:
        journey = travel(self.engine, step.link, step.stream or f"{name}.{step.link.name}.send")
        one, other = step.link.ends

        def run(row: Row) -> Waits:
            start = row.part
            assert start is not None
            time = journey(row.place, start)
            if time is None:
                raise Ended
            row.part = None
            yield row.sleep_until(self.clock._now + time)
            row.part = other if start is one else one
            while True:
                if self.faults.refuses(row.part):
                    if row.answer_to is not None:
                        self.give_answer(row, FAILED)
                    raise Ended
                if self.clock._now >= self.faults.opens(row.part):
                    return
                yield row.sleep_until(self.faults.opens(row.part))

        return run

    def test(self, when: blocks.Condition | float, stream: str) -> Callable[[Row], bool]:
        """Whether a condition holds for a row, or its draw falls under a probability."""
        if not isinstance(when, blocks.Condition):
            key, probability = draws.stream_key(self.seed, stream), float(when)
            return lambda row: draws.uniform(key, row.place) < probability
        read, compare = self.field(when.field), blocks.COMPARISONS[when.comparison]
        if not isinstance(when.value, blocks.Linear):
            number = when.value
            return lambda row: compare(read(row), number)
        value = self.value(when.value)
        return lambda row: compare(read(row), value(row))

    def value(self, linear: blocks.Linear) -> Callable[[Row], float]:
        """What a field is compared with, or a cell is waited for to reach."""
        base, times = linear.base, linear.times
        if not linear.field:
            return lambda row: base
        read = self.field(linear.field)
        return lambda row: base + times * read(row)

    def field(self, name: str) -> Callable[[Row], float]:
        """How a field of a row is read."""
        columns = {"kind": self.engine.kind_codes, "sku": self.engine.skus, "session": self.engine.sessions}
        columns |= {"quantity": self.engine.quantities, "poison": self.engine.poisoned}
        if name in columns:
            column = columns[name]
            return lambda row: column[row.message]
        if name == "batch":
            return lambda row: len(row.batch)
        table, _, which = name.rpartition(".")
        if table:
            cell, get = self.cell(self.engine.flow.tables[table]), attrgetter(which)
            return lambda row: get(cell(row))
        return attrgetter("number" if name == "delivery" else name)

    def cell(self, table: Table, replica: Replica = 0) -> Callable[[Row], Cell]:
        """The cell that a row's message is about, in a replica of a table."""
        cell, count = self.tables[table].cell, table.replicas
        if replica == "session":
            sessions = self.engine.sessions
            return lambda row: cell(row.message, sessions[row.message] % count)
        if replica == "random":
            key = draws.stream_key(self.seed, f"{table.name}.replica")
            return lambda row: cell(row.message, int(draws.uniform(key, row.place) * count))
        return lambda row: cell(row.message, replica)

    def _branch(self, step: blocks.Branch, name: str) -> Any:
        test = self.test(step.when, step.stream or f"{name}.branch")
        then, otherwise = self.prepare(step.then, name), self.prepare(step.otherwise, name)

        def run(row: Row) -> Waits:
            yield from walk(row, then if test(row) else otherwise)

        return self.instant(run, then, otherwise)

    def instant(self, run: Callable[[Row], Waits], *programs: Program) -> Any:
        """A step whose inner steps cannot wait cannot wait either."""
        if any(waits for program in programs for waits, _ in program):
            return True, run

        def at_once(row: Row) -> None:
            for _ in run(row):
                raise AssertionError

        return False, at_once

    def _bysku(self, step: blocks.BySku, name: str) -> Any:
        programs, skus = [self.prepare(branch, name) for branch in step.branches], self.engine.skus

        def run(row: Row) -> Waits:
            yield from walk(row, programs[skus[row.message] % len(programs)])

        return self.instant(run, *programs)

    def _choose(self, step: blocks.Choose, name: str) -> Any:
        key = draws.stream_key(self.seed, step.stream or f"{name}.choose")

        def run(row: Row) -> None:
            rest = draws.uniform(key, row.place)
            row.next = None
            for stage, probability in step.stages:
                if rest < probability:
                    row.next = stage
                    break
                rest -= probability
            raise Chosen

        return False, run

    def _repeat(self, step: blocks.Repeat, name: str) -> Any:
        program = self.prepare(step.steps, name)
        key = draws.stream_key(self.seed, step.stream or f"{name}.repeat")

        def run(row: Row) -> Waits:
            place, turn = row.place, 0
            while True:
                row.place = draws.fold(place, turn)
                yield from walk(row, program)
                if draws.uniform(key, row.place) >= step.again:
                    break
                turn += 1
            row.place = place

        return run

    def _fail(self, step: blocks.Fail, name: str) -> Any:
        def run(row: Row) -> None:
            raise Failed(step.reason)

        return False, run

    def _rescue(self, step: blocks.Rescue, name: str) -> Any:
        program, otherwise = self.prepare(step.steps, name), self.prepare(step.otherwise, name)

        def run(row: Row) -> Waits:
            start = row.here()
            try:
                yield from walk(row, program)
                return
            except Failed as failure:
                note_failure(row, failure)
            yield from row.return_to(start)
            yield from walk(row, otherwise)

        return run

    def _retry(self, step: blocks.Retry, name: str) -> Any:
        program, otherwise, policy = self.prepare(step.steps, name), self.prepare(step.otherwise, name), step.policy
        jitter = draws.stream_key(self.seed, step.stream or f"{name}.retry.backoff")
        attempts, budget = self.records.attempts, policy.budget

        def run(row: Row) -> Waits:
            start = row.here()
            place, before = start[:2]
            first = (max(before, 1) - 1) * (policy.retries + 1) + 1 if step.goes_on else 1
            unheard = False
            if budget is not None:
                self.paid[budget] = min(self.paid.get(budget, 0.0) + budget.share, budget.reserve)
            for attempt in range(policy.retries + 1):
                turn = draws.fold(place, attempt)
                row.place, row.attempt = turn, first + attempt
                if row.main:
                    attempts[row.message] += 1
                try:
                    yield from walk(row, program)
                    row.place, row.attempt = place, before
                    return
                except Failed as failure:
                    note_failure(row, failure)
                    unheard = unheard or row.result == TIMED_OUT
                ready = row.back_to(start)
                if attempt == policy.retries or not self.affords(budget):
                    break
                wait = min(policy.base * policy.factor**attempt, policy.longest)
                yield row.sleep_until(ready + (wait * draws.uniform(jitter, turn) if policy.jitter else wait))
            if self.clock._now < ready:
                yield row.sleep_until(ready)
            if unheard:
                row.result = TIMED_OUT
            yield from walk(row, otherwise)

        return run

    def affords(self, budget: Budget | None) -> bool:
        """Whether a retry is paid for."""
        if budget is None:
            return True
        if self.paid[budget] < 1.0:
            return False
        self.paid[budget] -= 1.0
        return True

    def _timeout(self, step: blocks.Timeout, name: str) -> Any:
        program, otherwise = self.prepare(step.steps, name), self.prepare(step.otherwise, name)
        time = self.time(step.after, step.stream or f"{name}.timeout")

        def run(row: Row) -> Waits:
            start, mine = row.here(), Expired()
            timer = Timer(row, time(row), mine)
            try:
                yield from walk(row, program)
                return
            except Expired as expired:
                if expired is not mine:
                    raise
            finally:
                timer.stop()
            yield from row.return_to(start)
            yield from walk(row, otherwise)

        return run

    def _byattempt(self, step: blocks.ByAttempt, name: str) -> Any:
        program = self.prepare(step.steps, name)

        def run(row: Row) -> Waits:
            place = row.place
            row.place = draws.fold(draws.fold(0, row.message), max(row.attempt, 1) - 1)
            try:
                yield from walk(row, program)
            finally:
                row.place = place

        return self.instant(run, program)

    def checkpoint(self, rest: Program) -> Any:
        """The rest of the steps, again from here where the part that the row is at crashes meanwhile."""

        def run(row: Row) -> Waits:
            (place, attempt, part, held), crashes = row.here(), 0
            level, version, result = row.level, row.version, row.result
            row.saved = (*row.saved, part)
            try:
                while True:
                    try:
                        if crashes and part is not None:
                            yield self.faults.resting[part].rest(row)
                        yield from walk(row, rest)
                        return
                    except Crashed:
                        if row.part is not part:
                            raise
                        crashes += 1
                    row.place, row.attempt = draws.fold(place, crashes), attempt
                    row.level, row.version, row.result = level, version, result
                    row.unwind(held)
            finally:
                row.saved = row.saved[:-1]

        return run

    def _fork(self, step: blocks.Fork, name: str) -> Any:
        programs = [self.prepare(branch, name) for branch in step.branches]
        needed = len(programs) if step.join is None else step.join

        def run(row: Row) -> Waits:
            join = Join(row, needed)
            for program in programs:
                self.engine.child(row, program).join = join
            if needed:
                yield join

        return run

    def _spawn(self, step: blocks.Spawn, name: str) -> Any:
        program = self.prepare(step.steps, name)

        def run(row: Row) -> None:
            self.engine.child(row, program)

        return False, run

    def _call(self, step: blocks.Call, name: str) -> Any:
        program, limit = self.prepare(step.steps, name), step.timeout

        def run(row: Row) -> Waits:
            row.calls += 1
            self.engine.child(row, program).answer_to = row, row.calls
            if limit is None:
                yield ANSWER
                return
            timer = Timer(row, limit, Failed("timed_out"))
            try:
                yield ANSWER
            finally:
                timer.stop()

        return run

    def _hedge(self, step: blocks.Hedge, name: str) -> Any:
        first = self.prepare((blocks.Rescue(step.steps, ()), blocks.Reply()), name)
        second = [*self.prepare((blocks.Delay(Constant(value=step.after)),), name), *first]

        def run(row: Row) -> Waits:
            row.calls += 1
            tries = [self.engine.child(row, program) for program in (first, second)]
            for i, one in enumerate(tries):
                one.place, one.attempt = draws.fold(row.place, i), 2 * max(row.attempt, 1) - 1 + i
                one.answer_to = row, row.calls
            try:
                yield ANSWER
            except (Failed, Expired):
                self.give_up(tries)
                raise
            self.give_up(tries)
            if row.result == TIMED_OUT:
                raise Failed("timed_out")

        return run

    def give_up(self, tries: list[Row]) -> None:
        """What is not over yet of a hedge ends."""
        for one in tries:
            if one in self.engine.rows:
                self.engine.kill(one)

    def give_answer(self, row: Row, result: int) -> None:
        """Tell the caller, if it still waits for this call: result and registers; a result of failed fails the call."""
        if row.answer_to is None:
            return
        caller, call = row.answer_to
        if caller.at is ANSWER and caller.calls == call:
            caller.level, caller.version, caller.result = row.level, row.version, result
            caller.wake(Failed("failed") if result == FAILED else None)

    def _reply(self, step: blocks.Reply, name: str) -> Any:
        result = None if step.result is None else RESPONSES.index(step.result)

        def run(row: Row) -> None:
            self.give_answer(row, row.result if result is None else result)

        return False, run

    def _publish(self, step: blocks.Publish, name: str) -> Any:
        queues, skus = [self.queues[queue] for queue in step.queues], self.engine.skus
        partitions, urgent = step.to.partitions, step.urgent

        def put(row: Row) -> None:
            for queue in queues[skus[row.message] % partitions :: partitions]:
                queue.publish(row, urgent)

        if not isinstance(step.to, Log) or step.to.streams is None or not step.sign:
            return False, put
        its, otherwise = self.cell(step.to.streams), self.prepare(step.otherwise, name)

        def run(row: Row) -> Waits:
            stream = its(row)
            if step.expect and row.version != stream.version:
                yield from walk(row, otherwise)
                return
            row.level, row.version = stream.level + step.sign * self.engine.quantities[row.message], stream.version + 1
            stream.change(row.level, row.version)
            put(row)

        return self.instant(run, otherwise)

    def _seek(self, step: blocks.Seek, name: str) -> Any:
        queue = self.queues[step.queue]

        def run(row: Row) -> None:
            queue.seek()

        return False, run

    def _waituntil(self, step: blocks.WaitUntil, name: str) -> Any:
        queue = self.queues[step.queue]

        def run(row: Row) -> Waits:
            assert queue.watchers is not None
            while queue.available_to(row) < step.at_least:
                queue.watchers.rows[row] = step.at_least
                yield queue.watchers

        return run

    def _receive(self, step: blocks.Receive, name: str) -> Any:
        queue = self.queues[step.queue]

        def run(row: Row) -> None:
            row.put_down()
            queue.fetch(row, step.at_most)

        return False, run

    def _foreach(self, step: blocks.ForEach, name: str) -> Any:
        program = self.prepare(step.steps, name)

        def run(row: Row) -> Waits:
            start = row.here()
            row.passes += 1
            try:
                for delivery, number in row.batch:
                    row.take_up(delivery, number)
                    yield from walk(row, program)
            finally:
                row.let_go(start)

        return self.instant(run, program)

    def settle_over(self, act: Callable[[Delivery, int], None], last_first: bool = False) -> Any:
        """Acknowledgements and refusals travel back over the queue's link while the consumer goes on; those of a whole batch
        one after the other, `last_first` where what is handed back stands before the rest."""

        def run(row: Row) -> None:
            if row.actor >= 0 and row.delivery is None:
                backwards = last_first and bool(row.batch) and row.batch[0][0].state.queue.requeue == "head"
                for one, number in row.batch[::-1] if backwards else row.batch:
                    act(one, number)
                return
            delivery, number = row.delivery, row.number
            if delivery is None or delivery.settled:
                return
            back = delivery.state.travel_back
            if back is None:
                act(delivery, number)
                return
            assert row.part is not None
            time = back(row.place, row.part)
            if time is not None:
                key = order.key(order.COMPLETION, row.message, self.engine.copy(row.message))
                self.clock.at(self.clock._now + time, key, lambda _: arrive(delivery, number, key))

        def arrive(delivery: Delivery, number: int, key: int) -> None:
            at = delivery.state.queue.at
            if at in self.faults.down:
                return
            if self.clock._now < self.faults.opens(at):
                self.clock.at(self.faults.opens(at), key, lambda _: arrive(delivery, number, key))
                return
            act(delivery, number)

        return False, run

    def _ack(self, step: blocks.Ack, name: str) -> Any:
        return self.settle_over(lambda delivery, number: delivery.state.settle(delivery, number))

    def _nack(self, step: blocks.Nack, name: str) -> Any:
        def act(delivery: Delivery, number: int) -> None:
            if not step.delay or delivery.state.last(number):
                delivery.state.hand_back(delivery, number)
            elif delivery.out and delivery.number == number:
                cancel(delivery.timer)
                key = order.key(order.TIMER, delivery.message, self.engine.copy(delivery.message), 1)
                delivery.state.await_ack(delivery, number, self.clock._now + step.delay, key)

        return self.settle_over(act, last_first=True)

    def _read(self, step: blocks.Read, name: str) -> Any:
        its = self.cell(step.table, step.replica)

        def run(row: Row) -> None:
            cell = its(row)
            row.level, row.version, row.result = cell.level, cell.version, OK

        return False, run

    def _waitforcell(self, step: blocks.WaitForCell, name: str) -> Any:
        its, at_least = self.cell(step.table, step.replica), self.value(step.at_least)

        def run(row: Row) -> Waits:
            cell = its(row)
            while cell.version < (needed := at_least(row)):
                cell.watchers.rows[row] = needed
                yield cell.watchers

        return run

    def _write(self, step: blocks.Write, name: str) -> Any:
        its = self.cell(step.table, step.replica)

        def run(row: Row) -> None:
            its(row).change(row.level, row.version)
            row.result = OK

        return False, run

    def _writeifnewer(self, step: blocks.WriteIfNewer, name: str) -> Any:
        its = self.cell(step.table, step.replica)
        then, otherwise = self.prepare(step.then, name), self.prepare(step.otherwise, name)

        def run(row: Row) -> Waits:
            cell = its(row)
            row.result = OK
            if row.version > cell.version:
                cell.change(row.level, row.version)
                yield from walk(row, then)
            else:
                yield from walk(row, otherwise)

        return self.instant(run, then, otherwise)

    def _add(self, step: blocks.Add, name: str) -> Any:
        its = self.cell(step.table)

        def run(row: Row) -> None:
            cell = its(row)
            row.level, row.version = cell.level + self.engine.quantities[row.message], cell.version + 1
            cell.change(row.level, row.version)

        return False, run

    def _take(self, step: blocks.Take, name: str) -> Any:
        its = self.cell(step.table)
        then, otherwise = self.prepare(step.then, name), self.prepare(step.otherwise, name)

        def run(row: Row) -> Waits:
            cell, quantity = its(row), self.engine.quantities[row.message]
            if cell.level < quantity:
                yield from walk(row, otherwise)
                return
            cell.change(cell.level - quantity, cell.version + step.versioned)
            if step.versioned:
                row.level, row.version = cell.level, cell.version
            row.result = OK
            yield from walk(row, then)

        return self.instant(run, then, otherwise)

    def _once(self, step: blocks.Once, name: str) -> Any:
        table, program = self.tables[step.table], self.prepare(step.steps, name)

        def run(row: Row) -> Waits:
            known = table.results.get(row.message)
            if known is not None:
                row.result, row.level, row.version = known
                return
            yield from walk(row, program)
            table.results[row.message] = row.result, row.level, row.version

        return self.instant(run, program)

    def _taketoken(self, step: blocks.TakeToken, name: str) -> Any:
        credit = self.credits[step.credit]

        def run(row: Row) -> Waits:
            purse = credit.purse(row.message)
            if not purse.take(row):
                yield purse

        return run

    def _givetoken(self, step: blocks.GiveToken, name: str) -> Any:
        credit = self.credits[step.credit]
        return False, lambda row: credit.purse(row.message).give()

    def _respond(self, step: blocks.Respond, name: str) -> Any:
        records, query = self.records, bool(step.answer_from)

        def run(row: Row) -> None:
            message = row.message
            result = row.result if step.result is None else RESPONSES.index(step.result)
            if query and result == OK and math.isnan(records.responded[message]):
                records.answer[message], records.version[message] = row.level, row.version
                records.read_from[message] = step.answer_from
                records.noted[message] |= ANSWERED
            records.respond(message, self.clock._now, result)

        return False, run

    def _apply(self, step: blocks.Apply, name: str) -> Any:
        records = self.records

        def run(row: Row) -> None:
            message = row.message
            if step.sign:
                records.version[message] = row.version
            delivery = row.number or row.attempt
            change = step.sign * self.engine.quantities[message]
            records.effect(
                message,
                step.effect,
                step.store,
                self.engine.skus[message],
                row.version,
                change,
                self.clock._now,
                delivery,
            )
            row.result = OK

        return False, run

    def _reject(self, step: blocks.Reject, name: str) -> Any:
        def run(row: Row) -> None:
            self.records.noted[row.message] |= REJECTED
            row.result = REFUSED

        return False, run

    def _supersede(self, step: blocks.Supersede, name: str) -> Any:
        def run(row: Row) -> None:
            self.records.noted[row.message] |= SUPERSEDED
            row.result = OK

        return False, run

    def _mark(self, step: blocks.Mark, name: str) -> Any:
        times = self.records.marks.setdefault(step.name, [math.nan] * len(self.engine.arrivals))

        def run(row: Row) -> None:
            if math.isnan(times[row.message]):
                times[row.message] = self.clock._now

        return False, run

    def _point(self, step: blocks.Point, name: str) -> Any:
        here = [fault for fault in self.faults.strikes if fault.kind.point == step.name]

        def run(row: Row) -> Waits:
            for fault in here:
                if fault.happens(row.place):
                    part = row.part
                    self.faults.strike(fault, fault.lasts(row.place), row.message, running=row)
                    if isinstance(fault.kind, Death) and part is not None and part.name == fault.kind.part:
                        raise Crashed
            until = self.faults.paused.get(row.part, -math.inf)
            if self.clock._now < until:
                yield row.sleep_until(until)

        if any(isinstance(fault.kind, Pause) for fault in here):
            return run
        return self.instant(run)
