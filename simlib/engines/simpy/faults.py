"""Faults: what strikes when, and in which state parts and links are because of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from simlib import draws
from simlib.engines import order
from simlib.engines.simpy.clock import cancel
from simlib.engines.simpy.rows import Resting, Row, Served
from simlib.flow.model import Part, Queue
from simlib.scenario import Death, Loss, Outage, Partition, PowerLoss, Scenario, Slowdown, Strike

if TYPE_CHECKING:
    from simlib.engines.simpy.engine import Engine


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


class Faults:
    """The faults of a run, and until when each part is in which state."""

    def __init__(self, engine: Engine, scenario: Scenario | None) -> None:
        self.engine = engine
        self.losses = [fault for fault in scenario.faults if isinstance(fault, Loss)] if scenario else []
        self.strikes = [Striking(engine, *named) for named in scenario.strikes.items()] if scenario else []
        self.down: set[Part] = set()
        self.resting = {part: Resting() for part in engine.flow.parts.values()}
        self.refusing: dict[Part | None, float] = {}
        self.shut: dict[Part | None, float] = {}
        self.paused: dict[Part | None, float] = {}
        self.cut: dict[tuple[str, str], float] = {}
        self.slow: dict[Part | None, float] = {}

    def refuses(self, part: Part | None) -> bool:
        """Whether the part refuses a caller at once: it is down, or says no."""
        return part in self.down or self.engine.clock._now < self.refusing.get(part, -math.inf)

    def opens(self, part: Part | None) -> float:
        """When what arrives at the part gets in, s: now, where that is past."""
        return self.shut.get(part, -math.inf)

    def goes_on(self, part: Part | None) -> float:
        """When what is done at the part goes on, s: now, unless it stands still."""
        return max(self.engine.clock._now, self.paused.get(part, -math.inf))

    def serves(self, part: Part) -> bool:
        """Whether a queue at the part hands out: it is up, and nothing keeps it from going on."""
        return part not in self.down and self.engine.clock._now >= self.opens(part)

    def begin(self) -> None:
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

        self.engine.clock.at(time, order.key(order.FAULT, number), strike)

    def strike(self, fault: Striking, lasts: float, message: int = -1, running: Row | None = None) -> None:
        """A fault strikes, for so long; at a point, because of the row that is running."""
        kind, now = fault.kind, self.engine.clock._now
        until = now + lasts
        death = isinstance(kind, Death)
        if (not lasts and not death) or (death and self.engine.flow.parts[kind.where] in self.down):
            return
        self.engine.records.fault_rows.append((kind.fault, kind.where, now, until, message))
        fault.until = max(fault.until, until)
        if isinstance(kind, Partition):
            for end in self.engine.flow.links[kind.link].ends:
                if kind.direction in (None, end.name):
                    later(self.cut, (kind.link, end.name), until)
            return
        part = self.engine.flow.parts[kind.where]
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
        key = order.key(order.FAULT, len(self.engine.records.fault_rows), 1)
        self.engine.clock.at(until, key, lambda _: self.passed(kind, part))

    def passed(self, kind: Strike, part: Part) -> None:
        """A fault is over."""
        if isinstance(kind, Slowdown):
            self.set_speed(part)
        elif isinstance(kind, Death):
            self.up(part)
        else:
            for queue, state in self.engine.queues.items():
                if queue.at is part:
                    state.dispatch()
            for coordinator, members in self.engine.coordinators.items():
                if part in coordinator.members:
                    members.rests(part)

    def crash(self, part: Part, restart: float, running: Row | None, power: bool) -> None:
        """The part's process dies: its rows end in order, its memory is gone, with the power also what was not flushed."""
        self.down.add(part)
        for group, actors in self.engine.actors.items():
            if group.at is part:
                for row in actors.values():
                    if row.message < 0:
                        self.engine.kill(row)
                self.engine.queues[group.queue].part_crashed()
                self._lose_sight(group.queue, restart)
        for queue, read in self.engine.queues.items():
            if read.watchers is not None and read.coordinator is None and read.consumers_at is part:
                self._lose_sight(queue, restart)
        for coordinator, members in self.engine.coordinators.items():
            if part in coordinator.members:
                members.died(part)
        for row in [row for row in self.engine.acting.values() if row.part is part and row is not running]:
            self.engine.kill(row)
        for row in sorted(
            (row for row in self.engine.rows if row.part is part), key=lambda row: (row.message, row.copy)
        ):
            if row is not running:
                self.engine.crash(row)
        for table, state in self.engine.tables.items():
            if table.at is part and not table.durable:
                state.clear()
        for queue, queued in self.engine.queues.items():
            if queue.at is part:
                queued.forget_unwritten()
                if power:
                    queued.power_lost()
        for coordinator, members in self.engine.coordinators.items():
            if coordinator.at is part:
                members.lost()

    def up(self, part: Part) -> None:
        """The part's process is there again: its consumers and actors begin, and what rests at a checkpoint goes on."""
        self.down.discard(part)
        connected = [
            state for queue, state in self.engine.queues.items()
            if queue.detected_after is not None and state.coordinator is None and part in (queue.at, state.consumers_at)
        ]  # fmt: skip
        for state in connected:
            if not state.closed:
                state.disconnect()
            state.closed = state.consumers_at in self.down
        for begin in self.engine.restarts.get(part, ()):
            begin()
        self.resting[part].up()
        for queue, state in self.engine.queues.items():
            if part in (queue.at, state.consumers_at):
                state.subscribe()
        for coordinator, members in self.engine.coordinators.items():
            if coordinator.at is part:
                members.back()
            if part in coordinator.members:
                members.rests(part)

    def _lose_sight(self, queue: Queue, restart: float) -> None:
        """The queue's consumers are gone, which the broker notices after a while; at the latest when they are back."""
        self.engine.queues[queue].forget_uncommitted()
        after = queue.detected_after
        if after is not None and after < restart:
            number = 2 + list(self.engine.queues).index(queue)
            key = order.key(order.FAULT, len(self.engine.records.fault_rows), number)
            self.engine.clock.at(self.engine.clock._now + after, key, lambda _: self.engine.queues[queue].disconnect())

    def set_speed(self, part: Part) -> None:
        """How many times as long service at the part takes from now on: all slowdowns of the moment together."""
        factor = 1.0
        for fault in self.strikes:
            kind = fault.kind
            if isinstance(kind, Slowdown) and kind.part == part.name and self.engine.clock._now < fault.until:
                factor *= kind.factor
        self.slow[part] = factor

    def stand_still(self, part: Part, until: float) -> None:
        """The part pauses: service at it is over later by as much."""
        now = self.engine.clock._now
        more = until - max(now, self.paused.get(part, now))
        for coordinator, members in self.engine.coordinators.items():
            if part in coordinator.members and self.goes_on(part) == now:
                members.stands_still(part)
        later(self.shut, part, until)
        later(self.paused, part, until)
        if more <= 0:
            return
        for row in [*self.engine.rows, *self.engine.acting.values()]:
            if isinstance(row.at, Served) and (row.at.part or row.part) is part:
                cancel(row.event)
                row.serve(row.due + more, row.at)
