"""The engine to read: SimPy's clock and events under the blocks, with the project's own wait lists and one agenda.

SimPy's resources, conditions and process starts each order an instant in their own way. Here every wake-up of a row
(grant, delivery, reply, join, start, expiry) is one event of SimPy's at the present time, first in, first out, and a row
runs until it must wait; what is free is taken without an event. Timed events carry the keys of `engines.order`.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable
from heapq import heappush
from itertools import count
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
import simpy

from simlib import draws
from simlib.distributions import Constant
from simlib.domain import KINDS, RESPONSES
from simlib.engines import order
from simlib.engines.records import ANSWERED, DEAD_LETTERED, REJECTED, SUPERSEDED, Meter, Records, width_of
from simlib.errors import RunFailed
from simlib.flow import blocks
from simlib.flow.blocks import Steps
from simlib.flow.model import Actor, Consumers, Flow, Link, Part, Pool, Queue, Source, Table
from simlib.history import History
from simlib.scenario import (
    POISON,
    Arrivals,
    Death,
    Loss,
    Outage,
    Partition,
    Pause,
    Poison,
    PowerLoss,
    Scenario,
    Slowdown,
    Strike,
)

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


class Chosen(Exception):
    """The row leaves its steps for the stage that stands in `row.next`, or for good where none does."""


class Timed(simpy.Event):
    """An event of SimPy's that is triggered from the start and calls one back."""

    def __init__(self, clock: Clock, callback: Callable[[Any], None], value: Exception | None) -> None:
        self.env, self.callbacks, self._ok, self._value = clock, [callback], True, value


class Clock(simpy.Environment):
    """SimPy's environment, with events at an absolute time under a key."""

    def at(self, time: float, key: int, callback: Callable[[Any], None], value: Exception | None = None) -> simpy.Event:
        """Call back at `time`, in the order of the key."""
        event = Timed(self, callback, value)
        queue: list[Any] = self._queue
        heappush(queue, (time, key, next(self._eid), event))
        return event


def cancel(event: simpy.Event | None) -> None:
    """A timed event that is pending calls nobody back."""
    if event is not None and event.callbacks:
        event.callbacks.clear()


class Row:
    """A message (or a consumer, or an actor) on its way through the steps: a generator, its registers, its holdings; and what
    an actor has in hand, and how often it went through that."""

    __slots__ = (
        "actor", "answer_to", "at", "attempt", "batch", "calls", "copy", "delivery", "due", "engine", "event", "held", "join",
        "level", "main", "message", "next", "number", "part", "passes", "place", "result", "scopes", "steps", "version",
    )  # fmt: skip

    def __init__(self, engine: Engine, message: int, part: Part | None, place: int) -> None:
        self.engine, self.message, self.part, self.place = engine, message, part, place
        self.copy = self.attempt = self.number = self.result = self.scopes = self.calls = 0
        self.level, self.version, self.due = 0, -1, 0.0
        self.main = False
        self.actor, self.passes = -1, 0
        self.batch: list[tuple[Delivery, int]] = []
        self.held: list[Member] = []
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
        if engine.paused and self.entity >= 0:
            until = engine.paused.get(self.part, -math.inf)
            if engine.clock._now < until:
                key = order.key(order.COMPLETION, self.entity, self.copy)
                self.at, self.event = self, engine.clock.at(until, key, self.resume, value)
                return
        self.at = self.event = None
        try:
            self.at = self.steps.send(None) if value is None else self.steps.throw(value)
        except StopIteration:
            self.engine.finish(self)

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

    def back_to(self, start: Start) -> None:
        """Go on where the scope began; what was taken since is given back, the last first."""
        self.place, self.attempt, self.part, held = start
        self.unwind(held)

    def unwind(self, held: int) -> None:
        """Give back what was taken since there were `held` units, the last first."""
        while len(self.held) > held:
            self.held[-1].release(self)


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
        until = engine.paused.get(self.part, -math.inf)
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


class Watchers:
    """The rows that wait until a level is high enough."""

    def __init__(self) -> None:
        self.rows: dict[Row, int] = {}

    def see(self, level: int) -> None:
        """Those for whom it is go on, and look for themselves."""
        for row in [row for row, needed in self.rows.items() if level >= needed]:
            del self.rows[row]
            row.wake()

    def forget(self, row: Row) -> None:
        """The row waits no longer."""
        del self.rows[row]


class Member:
    """One member of a pool: its units and those who wait for them."""

    def __init__(self, capacity: int, limit: int | None, clock: Clock, meter: Meter) -> None:
        self.capacity, self.limit, self.clock, self.meter = capacity, limit, clock, meter
        self.busy = self.requests = 0
        self.waiting: dict[int, OrderedDict[Row, None]] = {}

    def take(self, row: Row, priority: int) -> bool:
        """Take a unit at once, or join those who wait; fails where too many do."""
        queued = self.requests - self.busy
        if self.busy < self.capacity and not queued:
            self.busy += 1
            self.requests += 1
            self.meter.change(self.clock._now, busy=1)
            row.held.append(self)
            return True
        if self.limit is not None and queued >= self.limit:
            raise Failed("full")
        self.requests += 1
        self.meter.change(self.clock._now, waiting=1)
        if priority not in self.waiting:
            self.waiting[priority] = OrderedDict()
            self.waiting = dict(sorted(self.waiting.items()))
        self.waiting[priority][row] = None
        return False

    def release(self, row: Row) -> None:
        """Give a unit back; the next who waits has it from now on."""
        held = row.held
        del held[max(i for i, member in enumerate(held) if member is self) if held[-1] is not self else -1]
        self.requests -= 1
        for rows in self.waiting.values():
            if rows:
                following, _ = rows.popitem(last=False)
                self.meter.change(self.clock._now, waiting=-1, completed=1)
                following.held.append(self)
                following.wake()
                return
        self.busy -= 1
        self.meter.change(self.clock._now, busy=-1, completed=1)

    def forget(self, row: Row) -> None:
        """The row waits no longer."""
        for rows in self.waiting.values():
            if row in rows:
                del rows[row]
        self.requests -= 1
        self.meter.change(self.clock._now, waiting=-1)


class PoolState:
    """A pool's members, and the rule that chooses among them."""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        clock = engine.clock
        self.meter = engine.records.meter(pool.name, "pool", pool.capacity * pool.members)
        self.members = [Member(pool.capacity, pool.queue_limit, clock, self.meter) for _ in range(pool.members)]
        self.select, self.turn = pool.select, 0
        self.sku = engine.arrivals.sku

    def pick(self, row: Row, stream: int) -> Member:
        """The member that this row goes to; what is random about it comes from the stream."""
        members = self.members
        n = len(members)
        if n == 1:
            return members[0]
        if self.select == "round_robin":
            self.turn += 1
            return members[(self.turn - 1) % n]
        if self.select == "key":
            return members[int(self.sku[row.message]) % n]
        if self.select == "least_requests":
            return min(members, key=lambda member: member.requests)
        first = members[int(draws.uniform(stream, row.place) * n)]
        if self.select == "random":
            return first
        second = members[int(draws.uniform(stream, draws.fold(row.place, 1)) * n)]
        return first if first.requests <= second.requests else second


class Delivery:
    """A message in a queue: which publishing of it, how often it was handed out, what it carries, whom to answer."""

    __slots__ = (
        "answer_to", "copy", "level", "message", "nth", "number", "out", "published", "result", "settled", "slot", "state",
        "timer", "version",
    )  # fmt: skip

    def __init__(self, state: QueueState, row: Row, copy: int) -> None:
        self.state, self.message, self.copy, self.number, self.slot = state, row.message, copy, 0, 0
        self.nth, self.published = state.count, state.engine.clock._now
        self.out = self.settled = False
        self.level, self.version, self.result = row.level, row.version, row.result
        self.answer_to = row.answer_to
        self.timer: simpy.Event | None = None

    def place(self, number: int) -> int:
        """Where the draws of delivery `number` stand: message, delivery; and copy, where it was published before."""
        place = draws.fold(draws.fold(0, self.message), number - 1)
        return draws.fold(place, self.copy) if self.copy else place


class QueueState:
    """A queue: what is ready, what is unacknowledged, and the consumers with their credit."""

    def __init__(self, engine: Engine, queue: Queue) -> None:
        self.engine, self.queue, self.name = engine, queue, queue.name
        self.meter = engine.records.meter(queue.name, "queue", math.nan)
        self.ready: deque[Delivery] = deque()
        self.buffers: list[deque[tuple[Delivery, int]]] = []
        self.idle: list[deque[Row]] = []
        self.out: list[int] = []
        self.turn = self.count = 0
        self.held: dict[Delivery, None] = {}
        self.closed = False
        self.seen: dict[int, float] = {}
        self.published: dict[int, int] = {}
        self.consumers_at: Part | None = None
        self.watchers: Watchers | None = None
        link = queue.link
        self.travel = engine.travel(link, f"{queue.name}.deliver") if link else None
        self.travel_back = engine.travel(link, f"{queue.name}.settle") if link else None

    def attach(self, group: Consumers) -> None:
        """As many buffers as limits: one for each consumer, or one for all."""
        self.consumers_at = group.at
        count = 1 if self.queue.shared else group.count
        self.buffers, self.idle = [deque() for _ in range(count)], [deque() for _ in range(count)]
        self.out = [0] * count

    def attach_actor(self, actor: Actor) -> None:
        """Nothing is handed out: actors receive what they want, all under one limit."""
        self.consumers_at, self.out, self.watchers = actor.at, [0], Watchers()

    def publish(self, row: Row) -> None:
        """A new delivery at the end of the queue, unless the message was published within the deduplication window."""
        now, window = self.engine.clock._now, self.queue.deduplicate
        if window is not None:
            if now - self.seen.get(row.message, -math.inf) <= window:
                return
            self.seen[row.message] = now
        copy = self.published.get(row.message, 0)
        self.published[row.message] = copy + 1
        self.engine.records.alive[row.message] += 1
        self.ready.append(Delivery(self, row, copy))
        self.count += 1
        self.meter.change(now, waiting=1)
        self.dispatch()

    def dispatch(self) -> None:
        """Hand out what is ready while there is credit, in turn."""
        if self.watchers is not None:
            self.watchers.see(self.available())
            return
        if not self.hands_out():
            return
        limit, n = self.queue.prefetch, len(self.out)
        while self.ready and n:
            for i in range(n):
                slot = (self.turn + i) % n
                if limit is None or self.out[slot] < limit:
                    break
            else:
                return
            self.turn = (slot + 1) % n
            self._hand_out(self.ready.popleft(), slot)

    def hands_out(self) -> bool:
        """Not while its part is down or shut, nor while its consumers' is down, or their connection known to be closed."""
        return not self.closed and self.engine.serves(self.queue.at) and self.consumers_at not in self.engine.down

    def available(self) -> int:
        """How many deliveries an actor could receive."""
        if not self.hands_out():
            return 0
        ready, limit = len(self.ready), self.queue.prefetch
        return ready if limit is None else min(ready, limit - self.out[0])

    def fetch(self, row: Row, at_most: int | None) -> None:
        """An actor takes what there is in hand."""
        count = self.available() if at_most is None else min(at_most, self.available())
        for _ in range(count):
            delivery = self.ready.popleft()
            self._lend(delivery, 0)
            row.batch.append((delivery, delivery.number))

    def _lend(self, delivery: Delivery, slot: int) -> int:
        """The delivery is out, and waited for where that is limited; its copy."""
        engine, message = self.engine, delivery.message
        delivery.number += 1
        delivery.slot, delivery.out = slot, True
        self.held[delivery] = None
        number = delivery.number
        records = engine.records
        records.deliveries[message] += 1
        records.alive[message] += 1
        copy = engine.copy(message)
        self.meter.change(engine.clock._now, waiting=-1, unacknowledged=1)
        self.out[slot] += 1
        if self.queue.automatic_ack:
            self._close(delivery)
            self.meter.change(engine.clock._now, completed=1)
        elif self.queue.ack_wait is not None:
            key = order.key(order.TIMER, message, copy, 1)
            self.await_ack(delivery, number, engine.clock._now + self.queue.ack_wait, key)
        return copy

    def _hand_out(self, delivery: Delivery, slot: int) -> None:
        engine, message = self.engine, delivery.message
        copy = self._lend(delivery, slot)
        number = delivery.number

        def arrive(_: Any) -> None:
            opens = engine.opens(self.consumers_at)
            if self.consumers_at in engine.down:
                engine.ended(message)
            elif engine.clock._now < opens:
                engine.clock.at(opens, order.key(order.COMPLETION, message, copy), arrive)
            elif self.idle[slot]:
                row = self.idle[slot].popleft()
                self.take(row, delivery, number)
                row.wake()
            else:
                self.buffers[slot].append((delivery, number))

        if self.travel is None:
            arrive(None)
        else:
            time = self.travel(delivery.place(number), self.queue.at)
            if time is None:
                engine.ended(message)
            else:
                engine.clock.at(engine.clock._now + time, order.key(order.COMPLETION, message, copy), arrive)

    def await_ack(self, delivery: Delivery, number: int, due: float, key: int) -> None:
        """Delivery `number` comes back when it is `due`, or when the queue's part goes on, where that stands still."""
        engine = self.engine

        def expire(_: Any) -> None:
            until = engine.paused.get(self.queue.at, -math.inf)
            if engine.clock._now < until:
                self.await_ack(delivery, number, until, key)
            else:
                self.hand_back(delivery, number)

        delivery.timer = engine.clock.at(due, key, expire)

    def take(self, row: Row, delivery: Delivery, number: int) -> None:
        """The delivery is in this consumer's hands: it works for the message from now on."""
        engine = self.engine
        row.message, row.delivery = delivery.message, delivery
        row.place = delivery.place(number)
        row.copy = engine.copy(delivery.message)
        row.level, row.version, row.result, row.answer_to = (
            delivery.level,
            delivery.version,
            delivery.result,
            delivery.answer_to,
        )
        row.attempt = row.number = number
        engine.rows[row] = None

    def receive(self, row: Row, consumer: int) -> Waits:
        """Wait for a delivery."""
        slot = 0 if self.queue.shared else consumer
        if self.buffers[slot]:
            delivery, number = self.buffers[slot].popleft()
            self.take(row, delivery, number)
        else:
            self.idle[slot].append(row)
            yield self

    def forget(self, row: Row) -> None:
        """The consumer waits no longer."""
        for rows in self.idle:
            if row in rows:
                rows.remove(row)

    def settle(self, delivery: Delivery, number: int) -> None:
        """The broker knows that delivery `number` is done, even where it was about to deliver it again (but over another
        connection)."""
        stale = not delivery.out or delivery.number != number
        if delivery.settled or (stale and self.queue.detected_after is not None):
            return
        if not delivery.out:
            self.ready.remove(delivery)
            self.meter.change(self.engine.clock._now, waiting=-1)
        self._close(delivery)
        self.meter.change(self.engine.clock._now, completed=1)
        self.dispatch()

    def last(self, number: int) -> bool:
        """Whether delivery `number` of a message is the last that it gets."""
        return self.queue.max_deliveries is not None and number >= self.queue.max_deliveries

    def hand_back(self, delivery: Delivery, number: int) -> None:
        """Delivery `number` was refused or not acknowledged in time: it comes again, or is parked after the last."""
        if delivery.settled or not delivery.out or delivery.number != number:
            return
        self._put_back(delivery)
        self.dispatch()

    def _put_back(self, delivery: Delivery) -> None:
        if self.last(delivery.number):
            if self.queue.dead_letter:
                self.engine.records.noted[delivery.message] |= DEAD_LETTERED
            self._close(delivery)
            return
        self._returned(delivery)
        if self.queue.requeue == "head":
            self.ready.appendleft(delivery)
        else:
            self.ready.append(delivery)
        self.meter.change(self.engine.clock._now, waiting=1)

    def _returned(self, delivery: Delivery) -> None:
        cancel(delivery.timer)
        if delivery.out:
            delivery.out = False
            del self.held[delivery]
            self.out[delivery.slot] -= 1
            self.meter.change(self.engine.clock._now, unacknowledged=-1)

    def _close(self, delivery: Delivery) -> None:
        self._returned(delivery)
        delivery.settled = True
        self.engine.ended(delivery.message)

    def part_crashed(self) -> None:
        """What the consumers' part had fetched and not handled is gone from its memory; the broker still has it."""
        for buffer in self.buffers:
            for delivery, _ in buffer:
                self.engine.ended(delivery.message)
            buffer.clear()

    def power_lost(self) -> None:
        """What was published since the last flush is gone, as if it had never been."""
        every = self.queue.flush_every
        if every is None:
            return
        flushed = math.floor(self.engine.clock._now / every) * every
        for delivery in sorted([*self.ready, *self.held], key=lambda one: one.nth):
            if delivery.published > flushed:
                if not delivery.out:
                    self.ready.remove(delivery)
                    self.meter.change(self.engine.clock._now, waiting=-1)
                self.seen.pop(delivery.message, None)
                self._close(delivery)

    def disconnect(self) -> None:
        """The broker notices that the connection is closed: what was handed out over it comes back, in the order in which
        it was published."""
        self.closed = True
        for delivery in sorted(self.held, key=lambda one: one.nth, reverse=self.queue.requeue == "head"):
            self._put_back(delivery)


class TableState:
    """Cells, made when first touched: [level, version]; and what `once` remembers."""

    def __init__(self, engine: Engine, table: Table) -> None:
        self.table = table
        self.stock: list[int] | None = engine.stock if table.stocked else None
        self.key: list[int] | range = engine.skus if table.key == "sku" else range(len(engine.skus))
        self.cells: dict[int, list[int]] = {}
        self.results: dict[int, tuple[int, int, int]] = {}

    def cell(self, message: int) -> list[int]:
        """The cell that the message is about."""
        key = self.key[message]
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cells[key] = [self.stock[key] if self.stock else 0, 0]
        return cell

    def clear(self) -> None:
        """What a crash does to a table that is not durable."""
        self.cells.clear()
        self.results.clear()


class Striking:
    """A fault that strikes and passes: its draws, and until when it lasts."""

    def __init__(self, engine: Engine, name: str, kind: Strike) -> None:
        self.kind, self.until = kind, -math.inf
        self.lasts = kind.duration.draw(draws.stream_key(engine.seed, f"{name}.lasts"))
        self.gap = None if kind.every is None else kind.every.draw(draws.stream_key(engine.seed, f"{name}.every"))
        self.chance = draws.stream_key(engine.seed, f"{name}.chance")

    def time(self, nth: int, over: float) -> float | None:
        """When it strikes the nth time by the clock, the last one being `over` then; None where it does not."""
        if self.gap is not None:
            return over + self.gap(draws.fold(0, nth))
        return self.kind.at[nth] if nth < len(self.kind.at) else None

    def happens(self, place: int) -> bool:
        """Whether it strikes what passes its point."""
        return draws.uniform(self.chance, place) < self.kind.probability


def later(until: dict[Any, float], what: Any, time: float) -> None:
    """Put off until when it lasts."""
    until[what] = max(until.get(what, time), time)


class Engine:
    """One run of a flow."""

    def __init__(self, flow: Flow, arrivals: Arrivals, kinds: list[str], seed: int, scenario: Scenario | None) -> None:
        self.flow, self.arrivals, self.seed = flow, arrivals, seed
        self.skus: list[int] = arrivals.sku.tolist()
        self.quantities: list[int] = arrivals.quantity.tolist()
        self.stock: list[int] | None = scenario.stock().tolist() if scenario else None
        self.horizon = scenario.horizon if scenario else math.inf
        faults = scenario.faults if scenario else ()
        self.clock = Clock()
        self.records = Records(arrivals, kinds, width_of(arrivals))
        self.kind_codes = [KINDS.index(kinds[k]) if kinds[k] in KINDS else k for k in arrivals.kind.tolist()]
        self.open = len(arrivals)
        self.stop = simpy.Event(self.clock)
        self.rows: dict[Row, None] = {}
        self.turns: list[int] = []
        self.losses = [fault for fault in faults if isinstance(fault, Loss)]
        self.strikes = [Striking(self, *named) for named in scenario.strikes.items()] if scenario else []
        self.down: set[Part] = set()
        self.refusing: dict[Part | None, float] = {}
        self.shut: dict[Part | None, float] = {}
        self.paused: dict[Part | None, float] = {}
        self.cut: dict[tuple[str, str], float] = {}
        self.slow: dict[Part | None, float] = {}
        self.poisoned = [0] * len(arrivals)
        for poison in (fault for fault in faults if isinstance(fault, Poison)):
            unlucky = draws.uniforms(draws.stream_key(seed, POISON), len(arrivals)) < poison.probability
            for i in np.flatnonzero(unlucky & (arrivals.kind == kinds.index(poison.kind))).tolist():
                self.poisoned[i] = 1
        self.pools = {pool: PoolState(self, pool) for pool in flow.pools.values()}
        self.queues = {queue: QueueState(self, queue) for queue in flow.queues.values()}
        self.tables = {table: TableState(self, table) for table in flow.tables.values()}
        self.stages = {name: self.prepare(steps, f"stage.{name}") for name, steps in flow.stages.items()}

    # --- rows -------------------------------------------------------------------------------------------------------

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
        if row.actor >= 0:
            self.put_down(row)
            return
        if self.rows.pop(row, row) is None:
            if row.join is not None:
                row.join.branch_ended()
            self.ended(row.message)

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
                self.finish(row)
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

    def put_down(self, row: Row) -> None:
        """An actor has nothing in hand any more."""
        batch, row.batch, row.passes = row.batch, [], 0
        for delivery, _ in batch:
            self.ended(delivery.message)

    def take_up(self, row: Row, delivery: Delivery, number: int) -> None:
        """An actor works for a message of its batch from now on; its draws stand where a consumer's would, but each time that
        it goes through the batch again elsewhere."""
        row.message, row.delivery, row.copy = delivery.message, delivery, self.copy(delivery.message)
        row.place = delivery.place(number)
        if row.passes > 1:
            row.place = draws.fold(row.place, row.passes - 1)
        row.level, row.version, row.result = delivery.level, delivery.version, delivery.result
        row.answer_to, row.attempt, row.number = delivery.answer_to, number, number

    def let_go(self, row: Row, start: Start) -> None:
        """An actor works for no message any more."""
        row.message, row.delivery, row.copy, row.number, row.answer_to = -1, None, 0, 0, None
        row.place, row.attempt = start[:2]

    # --- faults -----------------------------------------------------------------------------------------------------

    def refuses(self, part: Part | None) -> bool:
        """Whether the part refuses a caller at once: it is down, or says no."""
        return part in self.down or self.clock._now < self.refusing.get(part, -math.inf)

    def opens(self, part: Part | None) -> float:
        """When what arrives at the part gets in, s: now, where that is past."""
        return self.shut.get(part, -math.inf)

    def serves(self, part: Part) -> bool:
        """Whether a queue at the part hands out: it is up, and nothing keeps it from going on."""
        return part not in self.down and self.clock._now >= self.opens(part)

    def begin_faults(self) -> None:
        """The first strike of each fault that strikes by the clock."""
        for number, fault in enumerate(self.strikes):
            self.plan(fault, number, 0, 0.0)

    def plan(self, fault: Striking, number: int, nth: int, over: float) -> None:
        """Strike the nth time, where there is one, and then plan the next; the last one is `over` then."""
        time = fault.time(nth, over)
        if time is None:
            return

        def strike(_: Any) -> None:
            lasts = fault.lasts(draws.fold(0, nth))
            self.strike(fault, lasts)
            self.plan(fault, number, nth + 1, time + lasts)

        self.clock.at(time, order.key(order.FAULT, number), strike)

    def strike(self, fault: Striking, lasts: float, message: int = -1, running: Row | None = None) -> None:
        """A fault strikes, for so long; at a point, because of the row that is running."""
        kind, now = fault.kind, self.clock._now
        until = now + lasts
        death = isinstance(kind, Death)
        if (not lasts and not death) or (death and self.flow.parts[kind.where] in self.down):
            return
        self.records.fault_rows.append((kind.fault, kind.where, now, until, message))
        fault.until = max(fault.until, until)
        if isinstance(kind, Partition):
            for end in self.flow.links[kind.link].ends:
                if kind.direction in (None, end.name):
                    later(self.cut, (kind.link, end.name), until)
            return
        part = self.flow.parts[kind.where]
        if isinstance(kind, Death):
            self.crash(part, lasts, running, power=isinstance(kind, PowerLoss))
        elif isinstance(kind, Slowdown):
            self.set_speed(part)
        elif isinstance(kind, Outage):
            later(self.shut, part, until)
            if kind.mode == "refuse":
                later(self.refusing, part, until)
        else:
            self.stand_still(part, until)
        self.clock.at(until, order.key(order.FAULT, len(self.records.fault_rows), 1), lambda _: self.passed(kind, part))

    def passed(self, kind: Strike, part: Part) -> None:
        """A fault is over."""
        if isinstance(kind, Slowdown):
            self.set_speed(part)
        elif isinstance(kind, Death):
            self.up(part)
        else:
            for queue, state in self.queues.items():
                if queue.at is part:
                    state.dispatch()

    def crash(self, part: Part, restart: float, running: Row | None, power: bool) -> None:
        """The part's process dies: its rows end in order, its memory is gone, with the power also what was not flushed."""
        self.down.add(part)
        for group, actors in self.actors.items():
            if group.at is part:
                for row in actors.values():
                    if row.message < 0:
                        self._kill(row)
                self.queues[group.queue].part_crashed()
                self._lose_sight(group.queue, restart)
        for queue, read in self.queues.items():
            if read.watchers is not None and read.consumers_at is part:
                self._lose_sight(queue, restart)
        for row in [row for row in self.acting.values() if row.part is part and row is not running]:
            self._kill(row)
        for row in sorted((row for row in self.rows if row.part is part), key=lambda row: (row.message, row.copy)):
            if row is not running:
                self._kill(row)
        for table, state in self.tables.items():
            if table.at is part and not table.durable:
                state.clear()
        if power:
            for queue, queued in self.queues.items():
                if queue.at is part:
                    queued.power_lost()

    def up(self, part: Part) -> None:
        """The part's process is there again: its consumers and actors begin."""
        self.down.discard(part)
        connected = [
            state for queue, state in self.queues.items()
            if queue.detected_after is not None and part in (queue.at, state.consumers_at)
        ]  # fmt: skip
        for state in connected:
            if not state.closed:
                state.disconnect()
            state.closed = state.consumers_at in self.down
        for begin in self.restarts.get(part, ()):
            begin()
        for queue, state in self.queues.items():
            if part in (queue.at, state.consumers_at):
                state.dispatch()

    def _lose_sight(self, queue: Queue, restart: float) -> None:
        """The broker notices after a while that the queue's consumers are gone; at the latest when they are back."""
        after = queue.detected_after
        if after is not None and after < restart:
            number = 2 + list(self.queues).index(queue)
            key = order.key(order.FAULT, len(self.records.fault_rows), number)
            self.clock.at(self.clock._now + after, key, lambda _: self.queues[queue].disconnect())

    def _kill(self, row: Row) -> None:
        if row.at is not None:
            row.at.forget(row)
        cancel(row.event)
        row.at = None
        row.steps.close()
        self.finish(row)

    def set_speed(self, part: Part) -> None:
        """How many times as long service at the part takes from now on: all slowdowns of the moment together."""
        factor = 1.0
        for fault in self.strikes:
            kind = fault.kind
            if isinstance(kind, Slowdown) and kind.part == part.name and self.clock._now < fault.until:
                factor *= kind.factor
        self.slow[part] = factor

    def stand_still(self, part: Part, until: float) -> None:
        """The part pauses: service at it is over later by as much."""
        now = self.clock._now
        more = until - max(now, self.paused.get(part, now))
        later(self.shut, part, until)
        later(self.paused, part, until)
        if more <= 0:
            return
        for row in [*self.rows, *self.acting.values()]:
            if isinstance(row.at, Served) and (row.at.part or row.part) is part:
                cancel(row.event)
                self.serve(row, row.due + more, row.at)

    def travel(self, link: Link, stream: str) -> Callable[[int, Part], float | None]:
        """How long it takes over a link from a part, at a place; None where it is lost."""
        by_end = {}
        for end in link.ends:
            losses = [
                link.loss,
                *(f.probability for f in self.losses if f.link == link.name and f.direction in (None, end.name)),
            ]
            keep = 1.0
            for loss in losses:
                keep *= 1.0 - loss
            name = f"{stream}.from.{end.name}"
            by_end[end] = (
                link.delay.draw(draws.stream_key(self.seed, name)),
                draws.stream_key(self.seed, f"{name}.loss"),
                keep,
            )

        def travel(place: int, start: Part) -> float | None:
            draw, lost, keep = by_end[start]
            if self.cut and self.clock._now < self.cut.get((link.name, start.name), -math.inf):
                return None
            if keep < 1.0 and draws.uniform(lost, place) >= keep:
                return None
            return draw(place)

        return travel

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> float:
        """Run until every message is settled, to the horizon, or until nothing more can happen; the time at the end, s."""
        self.actors: dict[Consumers, dict[int, Row]] = {}
        self.restarts: dict[Part, list[Callable[[], None]]] = {}
        self.acting: dict[int, Row] = {}
        for group in self.flow.consumer_groups.values():
            self.queues[group.queue].attach(group)
            program = self.prepare(group.steps, group.name)
            for number in range(group.count):
                self.consume(group, number, program)
        numbers = count()
        for actor in self.flow.actors.values():
            for queue in actor.queues:
                self.queues[queue].attach_actor(actor)
            program = self.prepare(actor.steps, actor.name)
            for _ in range(actor.count):
                self.turns.append(0)
                self.act(actor, next(numbers), program)
        self.begin_faults()
        self.begin_sources()
        while not self.stop.processed and self.clock._queue:
            self.clock.step()
        return self.clock.now

    def begin_sources(self) -> None:
        """The arrivals, one after the other; or the customers of a closed loop."""
        programs = {kind: self.prepare(source.steps, kind) for kind, source in self.flow.sources.items()}
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
            if self.refuses(part):
                self.records.alive[message] += 1
                self.records.respond(message, self.clock._now, FAILED)
                self.ended(message)
                return
            if self.clock._now < self.opens(part):
                self.clock.at(self.opens(part), order.key(order.ARRIVAL, message, 1), lambda _: issue(message))
                return
            row = Row(self, message, part, draws.fold(0, message))
            row.main = True
            self.start(row, program)
            row.resume(begin_at_once)

        closed = [source for source in sources.values() if source.population is not None]
        if closed:
            self.begin_customers(closed[0], issue, n)
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

    def begin_customers(self, source: Source, issue: Callable[[int], None], n: int) -> None:
        """A closed loop: each customer thinks, issues a message, and waits until it is settled."""
        assert source.population is not None
        think = (source.think or Constant(value=0.0)).draw(draws.stream_key(self.seed, f"{source.kind}.think"))
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
            customer, turn = owner.pop(message)
            next_turn(customer, turn + 1)

        self.closed_loop = settled
        for customer in range(source.population):
            next_turn(customer, 0)

    # --- the blocks -------------------------------------------------------------------------------------------------

    def prepare(self, steps: Steps, name: str) -> Program:
        """The steps as callables: (whether it may wait, what to do with a row)."""
        program: Program = []
        for step in steps:
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
        time, slow = self.time(duration, stream), self.slow
        if not any(isinstance(fault.kind, Slowdown) for fault in self.strikes):
            return time
        return lambda row: time(row) * slow.get(pool.at or row.part, 1.0)

    def back_to(self, row: Row, start: Start) -> float:
        """Go on where a scope began, as soon as the part there does: when, s. What comes back to a dead part ends."""
        row.back_to(start)
        if row.part in self.down:
            raise Ended
        return max(self.clock._now, self.paused.get(row.part, -math.inf))

    def return_to(self, row: Row, start: Start) -> Waits:
        """Be back where a scope began, when the part there goes on."""
        ready = self.back_to(row, start)
        if self.clock._now < ready:
            yield self.sleep_until(row, ready)

    def sleep(self, row: Row, time: float) -> Row:
        """The row goes on after a time; it waits at itself."""
        return self.sleep_until(row, self.clock._now + time)

    def sleep_until(self, row: Row, time: float) -> Row:
        """The row goes on at a time."""
        row.event = self.clock.at(time, order.key(order.COMPLETION, row.entity, row.copy), row.resume)
        return row

    def serve(self, row: Row, due: float, served: Served) -> Served:
        """The row goes on when its service is done."""
        row.due = due
        self.sleep_until(row, due)
        return served

    def _delay(self, step: blocks.Delay, name: str) -> Any:
        time = self.time(step.duration, step.stream or f"{name}.delay")

        def run(row: Row) -> Waits:
            yield self.sleep(row, time(row))

        return run

    def _every(self, step: blocks.Every, name: str) -> Any:
        period = step.period

        def run(row: Row) -> Waits:
            turn = math.floor(self.clock._now / period) + 1
            while turn * period <= self.clock._now:
                turn += 1
            yield self.sleep_until(row, turn * period)

        return run

    def _seize(self, step: blocks.Seize, name: str) -> Any:
        pool = self.pools[step.pool]
        stream = step.stream or f"{name}.{step.pool.name}.seize"
        select = draws.stream_key(self.seed, f"{stream}.select")

        def run(row: Row) -> Waits:
            member = pool.pick(row, select)
            if not member.take(row, step.priority):
                yield member

        return run

    def _release(self, step: blocks.Release, name: str) -> Any:
        members = self.pools[step.pool].members

        def run(row: Row) -> None:
            next(member for member in reversed(row.held) if member in members).release(row)

        return False, run

    def _serve(self, step: blocks.Serve, name: str) -> Any:
        pool, priority = self.pools[step.pool], step.priority
        stream = step.stream or f"{name}.{step.pool.name}.serve"
        time = self.service(step.duration, stream, step.pool)
        select = draws.stream_key(self.seed, f"{stream}.select")
        served = Served(step.pool.at)

        def run(row: Row) -> Waits:
            member = pool.pick(row, select)
            if not member.take(row, priority):
                yield member
            yield self.serve(row, self.clock._now + time(row), served)
            member.release(row)

        return run

    def _send(self, step: blocks.Send, name: str) -> Any:
        travel = self.travel(step.link, step.stream or f"{name}.{step.link.name}.send")
        one, other = step.link.ends

        def run(row: Row) -> Waits:
            start = row.part
            assert start is not None
            time = travel(row.place, start)
            if time is None:
                raise Ended
            row.part = None
            yield self.sleep(row, time)
            row.part = other if start is one else one
            while True:
                if self.refuses(row.part):
                    if row.answer_to is not None:
                        self.give_answer(row, FAILED)
                    raise Ended
                if self.clock._now >= self.opens(row.part):
                    return
                yield self.sleep_until(row, self.opens(row.part))

        return run

    def test(self, when: blocks.Condition | float, stream: str) -> Callable[[Row], bool]:
        """Whether a condition holds for a row, or its draw falls under a probability."""
        if not isinstance(when, blocks.Condition):
            key, probability = draws.stream_key(self.seed, stream), float(when)
            return lambda row: draws.uniform(key, row.place) < probability
        read, value, compare = self.field(when.field), when.value, blocks.COMPARISONS[when.comparison]
        return lambda row: compare(read(row), value)

    def field(self, name: str) -> Callable[[Row], float]:
        """How a field of a row is read."""
        columns = {"kind": self.kind_codes, "sku": self.skus, "session": self.arrivals.session.tolist()}
        columns |= {"quantity": self.quantities, "poison": self.poisoned}
        if name in columns:
            column = columns[name]
            return lambda row: column[row.message]
        if name == "batch":
            return lambda row: len(row.batch)
        return attrgetter("number" if name == "delivery" else name)

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
            yield from self.return_to(row, start)
            yield from walk(row, otherwise)

        return run

    def _retry(self, step: blocks.Retry, name: str) -> Any:
        program, otherwise, policy = self.prepare(step.steps, name), self.prepare(step.otherwise, name), step.policy
        jitter = draws.stream_key(self.seed, step.stream or f"{name}.retry.backoff")
        attempts = self.records.attempts

        def run(row: Row) -> Waits:
            start = row.here()
            place, before = start[:2]
            unheard = False
            for attempt in range(policy.retries + 1):
                turn = draws.fold(place, attempt)
                row.place, row.attempt = turn, attempt + 1
                if row.main:
                    attempts[row.message] += 1
                try:
                    yield from walk(row, program)
                    row.place, row.attempt = place, before
                    return
                except Failed as failure:
                    note_failure(row, failure)
                    unheard = unheard or row.result == TIMED_OUT
                ready = self.back_to(row, start)
                if attempt < policy.retries:
                    wait = min(policy.base * policy.factor**attempt, policy.longest)
                    yield self.sleep_until(row, ready + (wait * draws.uniform(jitter, turn) if policy.jitter else wait))
            if self.clock._now < ready:
                yield self.sleep_until(row, ready)
            if unheard:
                row.result = TIMED_OUT
            yield from walk(row, otherwise)

        return run

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
            yield from self.return_to(row, start)
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

    def _fork(self, step: blocks.Fork, name: str) -> Any:
        programs = [self.prepare(branch, name) for branch in step.branches]
        needed = len(programs) if step.join is None else step.join

        def run(row: Row) -> Waits:
            join = Join(row, needed)
            for program in programs:
                self.child(row, program).join = join
            if needed:
                yield join

        return run

    def _spawn(self, step: blocks.Spawn, name: str) -> Any:
        program = self.prepare(step.steps, name)

        def run(row: Row) -> None:
            self.child(row, program)

        return False, run

    def _call(self, step: blocks.Call, name: str) -> Any:
        program, limit = self.prepare(step.steps, name), step.timeout

        def run(row: Row) -> Waits:
            row.calls += 1
            self.child(row, program).answer_to = row, row.calls
            if limit is None:
                yield ANSWER
                return
            timer = Timer(row, limit, Failed("timed_out"))
            try:
                yield ANSWER
            finally:
                timer.stop()

        return run

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
        return False, self.queues[step.queue].publish

    def _waituntil(self, step: blocks.WaitUntil, name: str) -> Any:
        queue = self.queues[step.queue]

        def run(row: Row) -> Waits:
            assert queue.watchers is not None
            while queue.available() < step.at_least:
                queue.watchers.rows[row] = step.at_least
                yield queue.watchers

        return run

    def _receive(self, step: blocks.Receive, name: str) -> Any:
        queue = self.queues[step.queue]

        def run(row: Row) -> None:
            self.put_down(row)
            queue.fetch(row, step.at_most)

        return False, run

    def _foreach(self, step: blocks.ForEach, name: str) -> Any:
        program = self.prepare(step.steps, name)

        def run(row: Row) -> Waits:
            start = row.here()
            row.passes += 1
            try:
                for delivery, number in row.batch:
                    self.take_up(row, delivery, number)
                    yield from walk(row, program)
            finally:
                self.let_go(row, start)

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
                key = order.key(order.COMPLETION, row.message, self.copy(row.message))
                self.clock.at(self.clock._now + time, key, lambda _: arrive(delivery, number, key))

        def arrive(delivery: Delivery, number: int, key: int) -> None:
            at = delivery.state.queue.at
            if at in self.down:
                return
            if self.clock._now < self.opens(at):
                self.clock.at(self.opens(at), key, lambda _: arrive(delivery, number, key))
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
                key = order.key(order.TIMER, delivery.message, self.copy(delivery.message), 1)
                delivery.state.await_ack(delivery, number, self.clock._now + step.delay, key)

        return self.settle_over(act, last_first=True)

    def _read(self, step: blocks.Read, name: str) -> Any:
        table = self.tables[step.table]

        def run(row: Row) -> None:
            row.level, row.version = table.cell(row.message)
            row.result = OK

        return False, run

    def _write(self, step: blocks.Write, name: str) -> Any:
        table = self.tables[step.table]

        def run(row: Row) -> None:
            table.cell(row.message)[:] = row.level, row.version
            row.result = OK

        return False, run

    def _writeifnewer(self, step: blocks.WriteIfNewer, name: str) -> Any:
        table = self.tables[step.table]
        then, otherwise = self.prepare(step.then, name), self.prepare(step.otherwise, name)

        def run(row: Row) -> Waits:
            cell = table.cell(row.message)
            row.result = OK
            if row.version > cell[1]:
                cell[:] = row.level, row.version
                yield from walk(row, then)
            else:
                yield from walk(row, otherwise)

        return self.instant(run, then, otherwise)

    def _add(self, step: blocks.Add, name: str) -> Any:
        table = self.tables[step.table]

        def run(row: Row) -> None:
            cell = table.cell(row.message)
            cell[0] += self.quantities[row.message]
            cell[1] += 1
            row.level, row.version = cell

        return False, run

    def _take(self, step: blocks.Take, name: str) -> Any:
        table = self.tables[step.table]
        then, otherwise = self.prepare(step.then, name), self.prepare(step.otherwise, name)

        def run(row: Row) -> Waits:
            cell, quantity = table.cell(row.message), self.quantities[row.message]
            if cell[0] < quantity:
                yield from walk(row, otherwise)
                return
            cell[0] -= quantity
            if step.versioned:
                cell[1] += 1
                row.level, row.version = cell
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
            change = step.sign * self.quantities[message]
            records.effect(
                message, step.effect, step.store, self.skus[message], row.version, change, self.clock._now, delivery
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
        times = self.records.marks.setdefault(step.name, [math.nan] * len(self.arrivals))

        def run(row: Row) -> None:
            if math.isnan(times[row.message]):
                times[row.message] = self.clock._now

        return False, run

    def _point(self, step: blocks.Point, name: str) -> Any:
        here = [fault for fault in self.strikes if fault.kind.point == step.name]

        def run(row: Row) -> Waits:
            for fault in here:
                if fault.happens(row.place):
                    part = row.part
                    self.strike(fault, fault.lasts(row.place), row.message, running=row)
                    if isinstance(fault.kind, Death) and part is not None and part.name == fault.kind.part:
                        raise Ended
            until = self.paused.get(row.part, -math.inf)
            if self.clock._now < until:
                yield self.sleep_until(row, until)

        if any(isinstance(fault.kind, Pause) for fault in here):
            return run
        return self.instant(run)


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


def run(
    flow: Flow, arrivals: Arrivals, kinds: Iterable[str], seed: int, scenario: Scenario | None, meta: dict[str, Any]
) -> History:
    """Run a flow on a table of arrivals; `kinds` names the codes of its kinds. Raises RunFailed where a draw is no time."""
    engine = Engine(flow, arrivals, list(kinds), seed, scenario)
    end = engine.run()
    return engine.records.history(end, meta)
