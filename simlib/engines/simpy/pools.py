"""Pools: units that rows hold, and the rule that chooses among members."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from simlib import draws
from simlib.engines.records import Meter
from simlib.engines.simpy.clock import Clock
from simlib.engines.simpy.rows import Failed, Row
from simlib.flow.model import Pool

if TYPE_CHECKING:
    from simlib.engines.simpy.engine import Engine


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
