"""Pools: units that rows hold, and the rule that chooses among members."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from simlib import draws
from simlib.engines.simpy.clock import Clock, cancel
from simlib.engines.simpy.rows import Failed, Row, Served
from simlib.flow.model import Pool

if TYPE_CHECKING:
    from simlib.engines.simpy.engine import Engine

Rest = tuple[float, Served]
"""What is left of a service, s, and where the row waits while it is served."""


class Member:
    """One member of a pool: its units and those who wait for them; how often it failed in a row, and until when it is left out."""

    def __init__(self, pool: PoolState, number: int, clock: Clock) -> None:
        noun = pool.noun
        self.pool, self.number, self.capacity, self.limit = pool, number, noun.capacity, noun.queue_limit
        self.clock, self.meter = clock, pool.meter
        self.busy = self.requests = self.failures = 0
        self.out_until = -math.inf
        self.waiting: dict[int, OrderedDict[Row, Rest | None]] = {}

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
        self.line(priority)[row] = None
        return False

    def seize(self, row: Row, priority: int) -> bool:
        """As `take`; the row knows whether it waits."""
        taken = self.take(row, priority)
        row.awaited = int(not taken)
        return taken

    def line(self, priority: int) -> OrderedDict[Row, Rest | None]:
        """Those of a priority who wait."""
        if priority not in self.waiting:
            self.waiting[priority] = OrderedDict()
            self.waiting = dict(sorted(self.waiting.items()))
        return self.waiting[priority]

    def release(self, row: Row) -> None:
        """Give a unit back; the next who waits has it from now on."""
        self.hand_over(row)
        self.requests -= 1
        for priority, rows in self.waiting.items():
            if rows:
                following, rest = rows.popitem(last=False)
                self.meter.change(self.clock._now, waiting=-1, completed=1)
                following.held.append(self)
                self.hand_to(following, priority, rest)
                return
        self.busy -= 1
        self.meter.change(self.clock._now, busy=-1, completed=1)

    def hand_over(self, row: Row) -> None:
        """The unit is no longer among what the row holds."""
        held = row.held
        del held[max(i for i, member in enumerate(held) if member is self) if held[-1] is not self else -1]

    def hand_to(self, row: Row, priority: int, rest: Rest | None) -> None:
        """The row has waited."""
        row.wake()

    def forget(self, row: Row) -> None:
        """The row waits no longer."""
        for rows in self.waiting.values():
            if row in rows:
                del rows[row]
        self.requests -= 1
        self.meter.change(self.clock._now, waiting=-1)

    @property
    def out(self) -> bool:
        """Whether the breaker leaves it out."""
        return self.clock._now < self.out_until

    def succeeded(self) -> None:
        """A visit was a success."""
        self.failures = 0

    def failed(self) -> None:
        """A visit was none: after so many in a row it is left out, where not too many are."""
        breaker = self.pool.noun.breaker
        self.failures += 1
        if breaker is None or self.out or self.failures < breaker.failures:
            return
        members = self.pool.members
        if sum(member.out for member in members) < int(breaker.at_most * len(members)):
            self.out_until = self.clock._now + breaker.lasts


class Preemptive(Member):
    """A member whose only unit an arrival of a better priority takes from the row that has it."""

    user: Row
    priority: int

    def take(self, row: Row, priority: int) -> bool:
        """Take the unit at once, also from a row of a worse priority, or join those who wait; fails where too many do."""
        if self.busy and priority < self.priority and self.displaces():
            row.held.append(self)
        elif not super().take(row, priority):
            return False
        self.user, self.priority = row, priority
        return True

    def displaces(self) -> bool:
        """Whether the row that has the unit makes way, which it does unless it is about to give it back: it waits at the
        head of its line, with what is left of its service where it is served now."""
        row, rest = self.user, None
        assert row.event is not None
        if row.event._value is not None:
            return False
        if isinstance(row.at, Served):
            rest = row.due - row.engine.faults.goes_on(row.at.part or row.part), row.at
        cancel(row.event)
        row.held.pop()
        row.at = self
        line = self.line(self.priority)
        line[row] = rest
        line.move_to_end(row, last=False)
        self.requests += 1
        self.meter.change(self.clock._now, waiting=1)
        return True

    def hand_to(self, row: Row, priority: int, rest: Rest | None) -> None:
        """The row has waited; one that was displaced from its service goes on with what is left of it."""
        self.user, self.priority = row, priority
        if rest is None:
            row.wake()
            return
        left, served = rest
        row.at = row.serve(row.engine.faults.goes_on(served.part or row.part) + left, served)


class EventLoop(Member):
    """The only unit of an event loop, which a row that gives it back keeps until it waits."""

    def take(self, row: Row, priority: int) -> bool:
        """Take the unit at once, also where the row still keeps it, or wait for it."""
        if row.keeps is self:
            row.keeps = None
            row.held.append(self)
            return True
        return super().take(row, priority)

    seize = take

    def turn(self, row: Row) -> bool:
        """As `take`, but behind all who wait also where the row still keeps the unit."""
        if row.keeps is not self or not self.line(0):
            return self.take(row, 0)
        self.requests += 1
        self.meter.change(self.clock._now, waiting=1)
        self.line(0)[row] = None
        self.pass_on(row)
        return False

    def release(self, row: Row) -> None:
        """Give the unit back, and keep it until the row waits."""
        self.hand_over(row)
        if row.keeps is not None:
            row.keeps.pass_on(row)
        row.keeps = self
        self.meter.change(self.clock._now, completed=1)

    def pass_on(self, row: Row) -> None:
        """The row keeps the unit no longer, the next who waits has it."""
        row.keeps = None
        self.requests -= 1
        waiting = self.line(0)
        following = next(iter(waiting), None)
        if following is None:
            self.busy -= 1
            self.meter.change(self.clock._now, busy=-1)
        else:
            del waiting[following]
            self.meter.change(self.clock._now, waiting=-1)
            following.held.append(self)
            following.wake()


MEMBERS = {"priority": Member, "preemptive": Preemptive, "event_loop": EventLoop}


class PoolState:
    """A pool's members, and the rule that chooses among them."""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        self.noun = pool
        self.meter = engine.records.meter(pool.name, pool.kind, pool.capacity * pool.members)
        member = MEMBERS[pool.discipline]
        self.members = [member(self, number, engine.clock) for number in range(pool.members)]
        self.select, self.turn = pool.select, 0
        self.sku = engine.arrivals.sku

    def pick(self, row: Row, stream: int) -> Member:
        """The member that this row goes to, which it remembers where there are several; fails where all are left out."""
        members = self.members
        if self.noun.breaker is not None:
            members = [member for member in members if not member.out]
            if not members:
                raise Failed("open")
        if len(self.members) == 1:
            return members[0]
        member = self.choose(members, row, stream)
        row.member = member.number
        return member

    def choose(self, members: list[Member], row: Row, stream: int) -> Member:
        """One of these members; what is random about it comes from the stream."""
        n = len(members)
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
