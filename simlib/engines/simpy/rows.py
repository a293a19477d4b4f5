"""What walks through the steps: a row, with its registers and holdings; the places where it waits; how it fails and ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol

import simpy

from simlib import draws
from simlib.domain import RESPONSES
from simlib.engines import order
from simlib.engines.simpy.clock import cancel
from simlib.flow.model import Part

if TYPE_CHECKING:
    from simlib.engines.simpy.engine import Engine
    from simlib.engines.simpy.pools import EventLoop, Member
    from simlib.engines.simpy.queues import Delivery

OK, REFUSED, FAILED, TIMED_OUT = (RESPONSES.index(name) for name in ("ok", "refused", "failed", "timed_out"))
Waits = Generator["Place", Any, None]
Program = list[tuple[bool, Callable[["Row"], Any]]]
Start = tuple[int, int, Part | None, int]
"""Where a scope began: place, attempt, part, and how many units were held."""


class Place(Protocol):
    """Where a row waits: told when the row gives up."""

    def forget(self, row: Row) -> None: ...


class Failed(Exception):
    """A step failed; the nearest retry or rescue goes on."""


class Expired(Exception):
    """The time of the scope that this names is up."""


class Ended(Exception):
    """The row ends here: lost in transit, or its part crashed."""


class Crashed(Ended):
    """The row's part crashed: it goes on at its last checkpoint there, where it made one."""


class Chosen(Exception):
    """The row leaves its steps for the stage that stands in `row.next`, or for good where none does."""


class Row:
    """A message (or a consumer, or an actor) on its way through the steps: a generator, its registers, its holdings, the parts
    where it is inside a checkpoint; and what an actor has in hand, and how often it went through that."""

    __slots__ = (
        "actor", "answer_to", "at", "attempt", "awaited", "batch", "calls", "copy", "delivery", "due", "engine", "event", "held",
        "join", "keeps", "level", "main", "member", "message", "next", "nth", "number", "part", "passes", "place", "result",
        "saved", "scopes", "steps", "version",
    )  # fmt: skip

    def __init__(self, engine: Engine, message: int, part: Part | None, place: int) -> None:
        self.engine, self.message, self.part, self.place = engine, message, part, place
        self.copy = self.attempt = self.number = self.result = self.scopes = self.calls = self.member = 0
        self.level, self.version, self.due = 0, -1, 0.0
        self.main = False
        self.actor, self.passes, self.nth, self.awaited = -1, 0, 0, 0
        self.batch: list[tuple[Delivery, int]] = []
        self.held: list[Member] = []
        self.keeps: EventLoop | None = None
        self.saved: tuple[Part | None, ...] = ()
        self.delivery: Delivery | None = None
        self.answer_to: tuple[Row, int] | None = None
        self.join: Join | None = None
        self.next: str | None = None
        self.at: Place | None = None
        self.event: simpy.Event | None = None
        self.steps: Waits

    @property
    def entity(self) -> int:
        """What its timed events are known by: the message; an actor's own number, after all messages, where it has none."""
        return self.message if self.actor < 0 or self.message >= 0 else len(self.engine.skus) + self.actor

    def wake(self, value: Exception | None = None) -> None:
        """Go on, in turn on the agenda; with an exception, go on by raising it."""
        self.at = None
        event = simpy.Event(self.engine.clock)
        event.callbacks = [self.resume]
        self.event = event
        event.succeed(value)

    def resume(self, event: simpy.Event) -> None:
        """Run until the row must wait; when its part goes on, where that stands still."""
        engine, value = self.engine, event._value
        if engine.faults.paused and self.entity >= 0:
            until = engine.faults.paused.get(self.part, -math.inf)
            if engine.clock._now < until:
                key = order.key(order.COMPLETION, self.entity, self.copy)
                self.at, self.event = self, engine.clock.at(until, key, self.resume, value)
                return
        self.at = self.event = None
        try:
            self.at = self.steps.send(None) if value is None else self.steps.throw(value)
        except StopIteration:
            self.engine.finish(self)
        self.pass_on()

    def pass_on(self) -> None:
        """An event loop that the row still kept is for others now."""
        if self.keeps is not None:
            self.keeps.pass_on(self)

    def interrupt(self, value: Exception) -> None:
        """Give up what the row waits for, and go on by raising."""
        if self.at is not None:
            self.at.forget(self)
        self.wake(value)

    def forget(self, row: Row) -> None:
        """As a place, a row is its own delay."""
        cancel(self.event)

    def here(self) -> Start:
        """What a scope that is left early goes back to."""
        return self.place, self.attempt, self.part, len(self.held)

    def sleep_until(self, time: float) -> Row:
        """Go on at a time; the row waits at itself."""
        self.event = self.engine.clock.at(time, order.key(order.COMPLETION, self.entity, self.copy), self.resume)
        return self

    def serve(self, due: float, served: Served) -> Served:
        """Go on when the service is done."""
        self.due = due
        self.sleep_until(due)
        return served

    def back_to(self, start: Start) -> float:
        """Go on where a scope began, as soon as the part there does: when, s. What was taken since is given back, the last
        first; what comes back to a dead part ends."""
        self.place, self.attempt, self.part, held = start
        self.unwind(held, failed=True)
        faults = self.engine.faults
        if self.part in faults.down:
            raise Ended
        return faults.goes_on(self.part)

    def return_to(self, start: Start) -> Waits:
        """Be back where a scope began, when the part there goes on."""
        ready = self.back_to(start)
        if self.engine.clock._now < ready:
            yield self.sleep_until(ready)

    def take_up(self, delivery: Delivery, number: int) -> None:
        """An actor works for a message of its batch from now on; its draws stand where a consumer's would, but each time that
        it goes through the batch again elsewhere."""
        self.message, self.delivery, self.copy = delivery.message, delivery, self.engine.copy(delivery.message)
        self.place = delivery.place(number)
        if self.passes > 1:
            self.place = draws.fold(self.place, self.passes - 1)
        self.level, self.version, self.result = delivery.level, delivery.version, delivery.result
        self.answer_to, self.attempt, self.number = delivery.answer_to, number, number
        self.nth += 1

    def let_go(self, start: Start) -> None:
        """An actor works for no message any more."""
        self.message, self.delivery, self.answer_to = -1, None, None
        self.copy = self.number = self.nth = 0
        self.place, self.attempt = start[:2]

    def put_down(self) -> None:
        """An actor has nothing in hand any more."""
        batch, self.batch, self.passes = self.batch, [], 0
        for delivery, _ in batch:
            self.engine.ended(delivery.message)
        if batch and (coordinator := batch[0][0].state.coordinator) is not None:
            coordinator.put_down(self)

    def unwind(self, held: int, failed: bool = False) -> None:
        """Give back what was taken since there were `held` units, the last first; where the row `failed`, so did their members."""
        while len(self.held) > held:
            member = self.held[-1]
            member.release(self)
            if failed:
                member.failed()


class Join:
    """Where a forked row waits until enough of its branches have ended."""

    def __init__(self, row: Row, needed: int) -> None:
        self.row: Row | None = row
        self.needed = needed

    def branch_ended(self) -> None:
        """One branch less to wait for."""
        self.needed -= 1
        if not self.needed and self.row is not None:
            self.row.wake()

    def forget(self, row: Row) -> None:
        """The branches go on without the one who waited for them."""
        self.row = None


class Served:
    """Where a row waits while it is served, at a part or (None) at the one that the row is at."""

    def __init__(self, part: Part | None) -> None:
        self.part = part

    def forget(self, row: Row) -> None:
        """The service is given up."""
        cancel(row.event)


class Timer:
    """Interrupts a row after a time, or when the part where it was set goes on, where that stands still."""

    def __init__(self, row: Row, time: float, why: Exception) -> None:
        self.row, self.part, self.why = row, row.part, why
        row.scopes += 1
        self.key = order.key(order.TIMER, row.entity, row.copy, row.scopes)
        self.event = row.engine.clock.at(row.engine.clock._now + time, self.key, self.expire)

    def expire(self, _: Any) -> None:
        """The time is up."""
        engine = self.row.engine
        until = engine.faults.paused.get(self.part, -math.inf)
        if engine.clock._now < until:
            self.event = engine.clock.at(until, self.key, self.expire)
        else:
            self.row.interrupt(self.why)

    def stop(self) -> None:
        """The row has left the scope."""
        cancel(self.event)
        self.row.scopes -= 1


class Answer:
    """Where a caller waits for a reply."""

    def forget(self, row: Row) -> None:
        """A reply that comes now finds nobody waiting."""


ANSWER = Answer()


class Resting:
    """The rows that go on at a checkpoint when their part is up again."""

    def __init__(self) -> None:
        self.rows: dict[Row, None] = {}

    def rest(self, row: Row) -> Resting:
        """The row waits here."""
        self.rows[row] = None
        return self

    def up(self) -> None:
        """All go on."""
        for row in self.rows:
            row.wake()
        self.rows.clear()

    def forget(self, row: Row) -> None:
        """The row waits no longer."""
        del self.rows[row]


class Watchers:
    """The rows that wait until a level is high enough."""

    def __init__(self) -> None:
        self.rows: dict[Row, float] = {}

    def see(self, level: int, at: Part | None = None) -> None:
        """Those for whom it is go on, and look for themselves; only those at a part, where one is named."""
        for row in [row for row, needed in self.rows.items() if level >= needed and at in (None, row.part)]:
            del self.rows[row]
            row.wake()

    def forget(self, row: Row) -> None:
        """The row waits no longer."""
        del self.rows[row]


def note_failure(row: Row, failure: Failed) -> None:
    """What a failed row believes of its call."""
    row.result = TIMED_OUT if failure.args[0] == "timed_out" else FAILED


def walk(row: Row, program: Program) -> Waits:
    """Take a row through prepared steps."""
    for waits, run in program:
        if waits:
            yield from run(row)
        else:
            run(row)
