"""What a group reads, and how its members share that out, in plain SimPy: partitions, members that die alone, rebalances."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import simpy

from simlib import draws
from simlib.architectures.ground import Side, Story

if TYPE_CHECKING:
    from simlib.architectures.streaming.model import Streaming


@dataclass
class Record:
    """A message as it was published: what it carries, whether it was before, who waits for its confirm; which delivery of it is the
    next, or the last."""

    message: int
    level: int
    version: int
    copy: int
    confirmed: simpy.Event | None = None
    delivery: int = 1

    @property
    def place(self) -> int:
        """Where the draws of its delivery stand."""
        place = draws.fold(draws.fold(0, self.message), self.delivery - 1)
        return draws.fold(place, self.copy) if self.copy else place


class Shelf:
    """A list that grows, and who waits until it is long enough."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self.records = env, list[Record]()
        self.waiting: list[tuple[int, simpy.Event]] = []
        self.seen: dict[int, int] = {}

    def put(self, message: int, level: int, version: int, confirmed: simpy.Event | None = None) -> None:
        copy = self.seen.get(message, 0)
        self.seen[message] = copy + 1
        self.records.append(Record(message, level, version, copy, confirmed))
        for needed, event in list(self.waiting):
            if len(self.records) >= needed:
                self.waiting.remove((needed, event))
                event.succeed()

    def until(self, needed: int, patience: float | None = None) -> Story:
        """Wait until there are so many, or for so long."""
        over = None if patience is None else self.env.timeout(patience)
        while len(self.records) < needed:
            long_enough = self.env.event()
            self.waiting.append((needed, long_enough))
            yield long_enough if over is None else long_enough | over
            if over is not None and over.processed and not long_enough.triggered:
                self.waiting.remove((needed, long_enough))
                return

    def take(self, most: int) -> list[Record]:
        taken, self.records = self.records[:most], self.records[most:]
        return taken


@dataclass(eq=False)
class Member:
    """A process as a member of a group: what its polls take turns by, and what they are; whether it lives, is one as far as is
    known, has joined the rebalance, and in how many of its polls it has records in hand; deaths that are not noticed."""

    side: Side
    turns: list[simpy.Resource]
    polls: list[Callable[[], Story]] = field(default_factory=list)
    running: list[simpy.Process] = field(default_factory=list)
    lives: bool = True
    known: bool = True
    joined: bool = False
    in_hand: int = 0
    unnoticed: int = 0

    @property
    def at_rest(self) -> bool:
        return self.lives and not self.in_hand


class Partition(Shelf):
    """A partition as its group reads it: by whom, unless that is stopped; what is in hand, and what was committed when."""

    reader: Member

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self.stopped, self.given = False, 0.0
        self.in_hand, self.committed = list[Record](), list[tuple[float, Record]]()
        self.looking: list[tuple[Member, simpy.Event]] = []

    def put(self, message: int, level: int, version: int, confirmed: simpy.Event | None = None) -> None:
        super().put(message, level, version, confirmed)
        self.rouse()

    def offers(self, member: Member) -> bool:
        """Whether a member may take something."""
        return bool(self.records) and self.reader is member and not self.stopped

    def until_offered(self, member: Member) -> Story:
        while not self.offers(member):
            self.looking.append((member, self.env.event()))
            yield self.looking[-1][1]

    def rouse(self) -> None:
        """Who may take something looks."""
        for member, event in list(self.looking):
            if self.offers(member):
                self.looking.remove((member, event))
                event.succeed()

    def lend(self, most: int) -> list[Record]:
        """Records that are taken in hand."""
        taken = self.take(most)
        self.in_hand += taken
        return taken

    def commit(self, records: Iterable[Record]) -> None:
        """The position is behind these."""
        for record in records:
            self.in_hand.remove(record)
            self.committed.append((self.env.now, record))

    def stop(self, interval: float) -> None:
        """Nobody reads; where positions are committed by the clock, what came after is forgotten."""
        self.stopped = True
        if interval:
            known = max(self.env.now // interval * interval, self.given)
            self.in_hand[:0] = [record for time, record in self.committed if time > known]
            self.committed = [(time, record) for time, record in self.committed if time <= known]

    def put_back(self) -> None:
        """What was in hand comes again."""
        for record in self.in_hand:
            record.delivery += 1
        self.records[:0], self.in_hand = self.in_hand, []

    def give(self, member: Member) -> None:
        """A member reads from the position on, unless it died meanwhile."""
        self.put_back()
        self.reader, self.stopped, self.given = member, not member.known, self.env.now
        self.rouse()


class Group:
    """The members of a group, whose coordinator shares out the partitions anew when one dies or comes: by Kafka's eager protocol,
    or the cooperative one."""

    def __init__(self, env: simpy.Environment, p: Streaming, partitions: list[Partition], sides: list[Side]) -> None:
        self.env, self.p, self.partitions = env, p, partitions
        polling = min(p.members, p.partitions) if len(sides) == 1 else 1
        self.members = [Member(side, [simpy.Resource(env) for _ in range(polling)]) for side in sides]
        self.cooperative = p.partition_assignment_strategy == "cooperative-sticky"
        self.interval = p.auto_commit_interval if p.guarantee == "at_least_once" else 0.0
        self.rebalancing = self.sharing = False
        self.generation = 0
        for i, partition in enumerate(partitions):
            partition.reader = self.members[i % len(sides)]

    def begin(self, member: Member) -> None:
        """Its polls begin."""
        member.running = [self.env.process(poll()) for poll in member.polls]

    def crash(self, member: Member, time: float, restart: float) -> Story:
        """A member dies, and comes again."""
        yield self.env.timeout(time)
        if not member.lives:
            return
        member.lives, member.in_hand = False, 0
        for partition in self.partitions:
            if partition.reader is member and not (partition.stopped and member.joined):
                partition.stop(self.interval)
        if member.known:
            member.known = False
            member.unnoticed += 1
            self.env.process(self.notice(member))
        for poll in member.running:
            poll.interrupt()
        yield self.env.timeout(restart)
        member.lives = True
        self.begin(member)
        self.rests(member)

    def notice(self, member: Member) -> Story:
        """When the session of a dead member is over, what it had in hand comes again."""
        yield self.env.timeout(self.p.session_timeout)
        member.unnoticed -= 1
        for partition in self.partitions:
            if partition.reader is member and partition.stopped:
                partition.put_back()
        self.rebalance()

    def rests(self, member: Member) -> None:
        """Who has nothing in hand joins the rebalance; or the group."""
        if not member.at_rest:
            return
        if not member.known:
            member.known = True
            self.rebalance()
        elif self.rebalancing:
            member.joined = True
            self.share_out_when_all_joined()

    def rebalance(self) -> None:
        """By the eager protocol nobody takes anything until the partitions are shared out anew."""
        self.generation += 1
        self.rebalancing, self.sharing = True, False
        for partition in self.partitions:
            partition.stopped = partition.stopped or not self.cooperative
        for member in self.members:
            member.joined = member.known and member.at_rest
        self.share_out_when_all_joined()

    def share_out_when_all_joined(self) -> None:
        """And all deaths were noticed: that takes a while."""
        missing = any(member.joined != member.known or member.unnoticed for member in self.members)
        if self.rebalancing and not self.sharing and not missing and any(member.known for member in self.members):
            self.sharing = True
            self.env.process(self.share_out(self.generation))

    def share_out(self, generation: int) -> Story:
        """Each partition gets its reader; what a dead member may have in hand waits until that is noticed."""
        yield self.env.timeout(self.p.rebalance)
        if generation != self.generation:
            return
        self.rebalancing = self.sharing = False
        members = [member for member in self.members if member.joined]
        free = [(i, one) for i, one in enumerate(self.partitions) if not one.reader.unnoticed]
        if not self.cooperative:
            for i, partition in free:
                partition.give(members[i % len(members)])
            return
        load = {member: sum(one.reader is member and not one.stopped for one in self.partitions) for member in members}
        for _, partition in free:
            if partition.stopped:
                fewest = min(members, key=load.__getitem__)
                load[fewest] += 1
                partition.give(fewest)
        self.level(load)

    def level(self, load: dict[Member, int]) -> None:
        """Who reads more partitions than others gives some up, the last first, which then are shared out."""
        moved = False
        while load[most := max(load, key=load.__getitem__)] - load[fewest := min(load, key=load.__getitem__)] > 1:
            *_, last = (one for one in self.partitions if one.reader is most and not one.stopped)
            last.stopped = moved = True
            load[most] -= 1
            load[fewest] += 1
        if moved:
            self.rebalance()
