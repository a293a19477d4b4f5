"""Coordinators: who is a member of a group, which of its partitions each reads, and how they are shared out anew."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from simlib import draws
from simlib.engines import order
from simlib.flow.model import Coordinator, Part

if TYPE_CHECKING:
    from simlib.engines.simpy.engine import Engine
    from simlib.engines.simpy.queues import QueueState
    from simlib.engines.simpy.rows import Row


class CoordinatorState:
    """A group: its members, those that died and are not noticed yet, what they have in hand, and the rebalance under way.

    A queue's `consumers_at` is the member that reads it, or did; while it is `closed` nobody takes anything from it.
    """

    def __init__(self, engine: Engine, coordinator: Coordinator, number: int) -> None:
        self.engine, self.coordinator, self.number = engine, coordinator, number
        self.queues = [state for queue, state in engine.queues.items() if queue.coordinator is coordinator]
        self.known = dict.fromkeys(coordinator.members, True)
        self.unnoticed = dict.fromkeys(coordinator.members, 0)
        self.joined = dict.fromkeys(coordinator.members, False)
        self.patience = dict.fromkeys(coordinator.members, math.inf)
        self.in_hand: dict[Row, Part] = {}
        self.rebalancing = self.sharing = False
        self.generation = self.session = 0
        self.time = coordinator.rebalance.draw(draws.stream_key(engine.seed, f"{coordinator.name}.rebalance"))
        for i, queue in enumerate(self.queues):
            queue.coordinator, queue.consumers_at = self, coordinator.members[i % len(self.known)]

    # --- what becomes of members ------------------------------------------------------------------------------------

    def died(self, part: Part) -> None:
        """A member's process is dead, which shows when its session is over; until then nobody reads what it read."""
        self.gives_up(part)
        if self.known[part]:
            self.known[part] = False
            self.unnoticed[part] += 1
            self.notice(part)

    def notice(self, part: Part) -> None:
        """When the session of a dead member is over, what it had in hand comes again, and a rebalance begins."""
        session = self.session

        def over(_: Any) -> None:
            if session == self.session and self.coordinator.at not in self.engine.faults.down:
                self.unnoticed[part] -= 1
                self.put_back(part)
                self.rebalance()

        self.after_session(part, 0, over)

    def stands_still(self, part: Part) -> None:
        """A member stands still: after the session timeout it is a member no longer, where it still does."""
        due = self.patience[part] = self.engine.clock._now + self.coordinator.session_timeout

        def over(_: Any) -> None:
            faults = self.engine.faults
            if self.patience[part] == due < faults.goes_on(part) and self.coordinator.at not in faults.down:
                self.throw_out(part)

        self.after_session(part, 1, over)

    def after_session(self, part: Part, what: int, over: Any) -> None:
        """The end of a session, by the fault that struck it."""
        slot = self.coordinator.members.index(part)
        self.engine.clock.at(self.engine.clock._now + self.coordinator.session_timeout, self.key(what, slot), over)

    def throw_out(self, part: Part) -> None:
        """A member lives and is one no longer, until it has nothing in hand and joins again: what it has comes again."""
        if not self.known[part]:
            return
        self.gives_up(part)
        self.known[part] = False
        self.put_back(part)
        self.rebalance()

    def gives_up(self, part: Part) -> None:
        """A member reads no more; before it joins a rebalance it commits what it acknowledged."""
        for queue in self.queues:
            if queue.consumers_at is part and not (queue.closed and self.joined[part]):
                queue.forget_uncommitted()
                queue.closed = True

    def put_back(self, part: Part) -> None:
        """What a member that is none any more had in hand comes again."""
        for queue in self.queues:
            if queue.consumers_at is part and queue.closed:
                queue.put_all_back()

    def took(self, row: Row, part: Part) -> None:
        """A member has something in hand."""
        self.in_hand[row] = part

    def put_down(self, row: Row) -> None:
        """A member may have nothing in hand any more."""
        self.rests(self.in_hand.pop(row))

    def rests(self, part: Part) -> None:
        """A member that may have nothing in hand joins the rebalance; or the group, of which it is no member."""
        if not self.at_rest(part):
            return
        if not self.known[part]:
            self.known[part] = True
            self.rebalance()
        elif self.rebalancing:
            self.joined[part] = True
            self.share_out_later()

    def at_rest(self, part: Part) -> bool:
        """Whether a member lives, does not stand still, and has nothing in hand."""
        faults = self.engine.faults
        goes_on = part not in faults.down and faults.goes_on(part) == self.engine.clock._now
        return goes_on and part not in self.in_hand.values()

    # --- rebalances -------------------------------------------------------------------------------------------------

    def rebalance(self) -> None:
        """The partitions are to be shared out anew: by the eager protocol nobody takes anything from them until they are."""
        self.generation += 1
        self.rebalancing, self.sharing = True, False
        if not self.coordinator.cooperative:
            for queue in self.queues:
                queue.closed = True
        for part in self.joined:
            self.joined[part] = self.known[part] and self.at_rest(part)
        self.share_out_later()

    def share_out_later(self) -> None:
        """When all members have joined, and all that died were noticed, the time of a rebalance begins."""
        ready = self.joined == self.known and any(self.known.values()) and not any(self.unnoticed.values())
        if self.sharing or not self.rebalancing or not ready or self.coordinator.at in self.engine.faults.down:
            return
        self.sharing, generation = True, self.generation

        def over(_: Any) -> None:
            if generation == self.generation:
                self.share_out()

        time = self.engine.clock._now + self.time(draws.fold(0, generation))
        self.engine.clock.at(time, self.key(2, 0), over)

    def share_out(self) -> None:
        """Each partition gets its reader; what a dead member may have in hand waits until that is noticed."""
        self.rebalancing = self.sharing = False
        unnoticed = [part for part, times in self.unnoticed.items() if times]
        free = [queue for queue in self.queues if queue.consumers_at not in unnoticed]
        members = [part for part, joined in self.joined.items() if joined]
        if not self.coordinator.cooperative:
            for queue in free:
                self.give(queue, members[self.queues.index(queue) % len(members)])
            return
        load = {part: sum(q.consumers_at is part and not q.closed for q in self.queues) for part in members}
        for queue in free:
            if queue.closed:
                fewest = min(members, key=load.__getitem__)
                load[fewest] += 1
                self.give(queue, fewest)
        moved = False
        while load[most := max(members, key=load.__getitem__)] - load[fewest := min(members, key=load.__getitem__)] > 1:
            *_, last = (queue for queue in free if queue.consumers_at is most and not queue.closed)
            last.closed = moved = True
            load[most] -= 1
            load[fewest] += 1
        if moved:
            self.rebalance()

    def give(self, queue: QueueState, part: Part) -> None:
        """The partition is read by a member from its position on, unless that died meanwhile."""
        queue.put_all_back()
        queue.consumers_at, queue.closed, queue.given = part, not self.known[part], self.engine.clock._now
        queue.dispatch()

    # --- the coordinator's own part ---------------------------------------------------------------------------------

    def lost(self) -> None:
        """The coordinator's part died: nothing that it waited for comes."""
        self.generation += 1
        self.sharing = False

    def back(self) -> None:
        """The coordinator is there again, and knows the members: their sessions begin anew, and the rebalance goes on."""
        self.session += 1
        for part, unnoticed in self.unnoticed.items():
            if unnoticed:
                self.unnoticed[part] = 1
                self.notice(part)
        self.share_out_later()

    def key(self, what: int, slot: int) -> int:
        """The key of an event of the group, whose number comes after those of the queues."""
        states = len(self.engine.coordinators)
        number = 2 + len(self.engine.queues) + what * states + self.number
        return order.key(order.FAULT, len(self.engine.records.fault_rows), number, slot)
