"""The lowering: a flow's blocks as one table of core operations, which the compiled engine's kernel reads.

Nothing of a seed stands in it: streams are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from simlib.distributions import Constant, Distribution
from simlib.domain import RESPONSES, counts, undoes
from simlib.errors import BadInput
from simlib.flow import blocks
from simlib.flow.blocks import CELL_FIELDS, COMPARISONS, FIELDS, Steps
from simlib.flow.model import Flow, Link, Log, Part, Pool, Queue, Replica, Table
from simlib.scenario import Strike

OPERATIONS = (
    "END", "RECEIVE", "DELAY", "SEIZE", "RELEASE", "SEND", "ARRIVE", "JUMP", "TEST", "DRAW", "CHOOSE", "REPEAT", "AGAIN",
    "FAIL", "RESCUE", "RESCUED", "RETRY", "NEXT_TRY", "RETRIED", "TIMEOUT", "IN_TIME", "BY_ATTEMPT", "BY_ATTEMPT_END",
    "FORK", "SPAWN", "CALL", "ANSWERED", "REPLY", "PUBLISH", "ACK", "NACK", "READ", "WRITE", "WRITE_IF_NEWER", "ADD",
    "TAKE", "ONCE", "KEEP", "RESPOND", "APPLY", "REJECT", "SUPERSEDE", "MARK", "POINT", "EVERY", "UNTIL", "FETCH",
    "FOR_EACH", "MEMBER", "UNTIL_CELL", "APPEND", "SEEK", "BY_SKU", "CHECKPOINT", "CHECKED", "TAKE_TOKEN", "GIVE_TOKEN",
    "HEDGE", "HEDGED", "TURN",
)  # fmt: skip
"""The core operations; the kernel says what each does, `Lowering` what its columns hold."""
OPERATION = {name: code for code, name in enumerate(OPERATIONS)}
SELECTS = ("round_robin", "key", "least_requests", "random", "two_choices")
MOST_STEPS, MOST_EFFECTS = 1 << 24, 62
"""More operations, or more different effects, than these do not fit the kernel."""
NOWHERE = -1
"""The number of a part, link, queue or step that is not there."""
BY_SESSION, AT_RANDOM = -1, -2
"""In place of the number of a replica: how it is chosen."""
UNWATCHED = -2
"""In place of the part whose speed a time goes by (NOWHERE: the one that the row is at): none."""


STEP = np.dtype([(name, np.int64) for name in ("operation", "a", "b", "c", "d", "e")] + [("real", np.float64)])
"""An operation, its five whole operands and its real one."""


@dataclass(frozen=True, eq=False)
class Lowered:
    """A flow as arrays. Nouns are numbered in the flow's order; streams by `streams`, their names."""

    code: np.ndarray
    """The operations, records of `STEP`."""
    streams: list[str]
    laws: list[tuple[int, int, int, float, float, float]]
    """Of each distribution: family, where its quantiles begin and how many they are; a, b, c."""
    quantiles: list[float]
    """The tables of quantiles, one after the other."""
    travels: list[tuple[str, str, int, int, int]]
    """Link, end, law, stream, stream of the loss: of each way over a link that some step or queue takes."""
    branches: list[int]
    """First steps of the branches of forks, and of those by SKU."""
    choices: list[tuple[int, float]]
    """First step and probability of the stages that are chosen among."""
    waits: list[float]
    """Backoffs of the retries, s."""
    starts: dict[str, int]
    """First step of each kind's source."""
    nothing: int
    """First step of a kind that has no source."""
    consumers: dict[str, int]
    """First step of each queue's consumers."""
    actors: dict[str, int]
    """First step of each actor."""
    thinking: tuple[int, int]
    """Law and stream of the thinking of customers, where a population issues the messages."""
    priorities: list[list[int]]
    """Of each pool, ascending."""
    queue_ways: list[tuple[int, ...]]
    """Of each queue: the way of a delivery, those of an acknowledgement from one end and from the other, and the one; law and
    stream of the time that it takes to hand out; the length of its wait for an acknowledgement."""
    rebalances: list[tuple[int, int]]
    """Of each coordinator: law and stream of how long a rebalance takes."""
    memories: dict[int, int]
    """Of the tables that `once` remembers in: which memory is whose."""
    celled: set[int]
    """The tables whose cells are used."""
    awaited: set[int]
    """Those whose cells are waited for."""
    effects: list[tuple[str, str]]
    """Effect and store."""
    answers: list[str]
    """Stores that queries are answered from."""
    marks: list[str]
    points: list[str]
    strikes: list[tuple[int, int, int, int, int]]
    """Of each fault that strikes and passes: the laws of the time between (NOWHERE: it has none) and of how long it lasts,
    their streams, and that of its chance at a point."""
    depth: int
    """How many scopes a row is in at most."""
    lengths: list[float]
    """The lengths of timers that are always the same, s."""

    @property
    def undoable(self) -> list[tuple[str, str]]:
        """The effects, with their stores, that some step undoes."""
        return [(effect, store) for name, store in self.effects if (effect := undoes(name)) is not None]


@dataclass
class Lowering:
    """A lowering in the making."""

    flow: Flow
    code: list[list[int]] = field(default_factory=list)
    real: list[float] = field(default_factory=list)
    streams: dict[str, int] = field(default_factory=dict)
    laws: dict[Distribution, int] = field(default_factory=dict)
    travels: dict[tuple[str, str, int, int, int], int] = field(default_factory=dict)
    branches: list[int] = field(default_factory=list)
    choices: list[tuple[str, float]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    effects: dict[tuple[str, str], int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)
    memories: dict[int, int] = field(default_factory=dict)
    celled: set[int] = field(default_factory=set)
    awaited: set[int] = field(default_factory=set)
    aside: list[tuple[list[int], int, Steps, str]] = field(default_factory=list)
    deepest: int = 0
    lengths: dict[float, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        flow = self.flow
        self.parts = {part: i for i, part in enumerate(flow.parts.values())}
        self.pools = {pool: i for i, pool in enumerate(flow.pools.values())}
        self.queues = {queue: i for i, queue in enumerate(flow.queues.values())}
        self.tables = {table: i for i, table in enumerate(flow.tables.values())}
        self.credits = {credit: i for i, credit in enumerate(flow.credits.values())}
        self.seized: dict[Pool, dict[int, list[list[int]]]] = {pool: {0: []} for pool in self.pools}

    # --- what operations refer to -----------------------------------------------------------------------------------

    def stream(self, name: str) -> int:
        return self.streams.setdefault(name, len(self.streams))

    def law(self, distribution: Distribution) -> int:
        return self.laws.setdefault(distribution, len(self.laws))

    def part(self, part: Part | None) -> int:
        return NOWHERE if part is None else self.parts[part]

    def travel(self, link: Link, end: Part, stream: str) -> int:
        """The way over a link from one of its ends."""
        name = f"{stream}.from.{end.name}"
        way = link.name, end.name, self.law(link.delay), self.stream(name), self.stream(f"{name}.loss")
        return self.travels.setdefault(way, len(self.travels))

    def length(self, time: float | None) -> int:
        """A length of timers."""
        return NOWHERE if time is None else self.lengths.setdefault(time, len(self.lengths))

    def cells(self, table: Table) -> int:
        """A table whose cells are used."""
        self.celled.add(self.tables[table])
        return self.tables[table]

    def replica(self, table: Table, replica: Replica) -> tuple[int, int]:
        """Which replica of a table: its number or how it is chosen, and the stream for that."""
        if replica == "random":
            return AT_RANDOM, self.stream(f"{table.name}.replica")
        return (replica if isinstance(replica, int) else BY_SESSION), NOWHERE

    def field_code(self, name: str) -> int:
        """A field: by its place in FIELDS, or after them by table and place in CELL_FIELDS; NOWHERE for none."""
        if name in FIELDS or not name:
            return FIELDS.index(name) if name else NOWHERE
        table, _, which = name.rpartition(".")
        return len(FIELDS) + len(CELL_FIELDS) * self.cells(self.flow.tables[table]) + CELL_FIELDS.index(which)

    # --- operations -------------------------------------------------------------------------------------------------

    def add(self, operation: str, *operands: int, real: float = 0.0) -> list[int]:
        """One more operation; its operands can be set later."""
        row = [OPERATION[operation], *operands, *[0] * (5 - len(operands))]
        self.code.append(row)
        self.real.append(real)
        return row

    @property
    def here(self) -> int:
        return len(self.code)

    def program(self, steps: Steps, name: str, receives: Queue | None = None) -> int:
        """A program of its own, with those that it starts beside itself; where it begins."""
        start = self.here
        if receives is not None:
            self.add("RECEIVE", self.queues[receives])
        self.steps(steps, name, 0)
        self.add("END")
        while self.aside:
            row, operand, inner, around = self.aside.pop()
            value = self.here
            if operand < 0:
                self.branches[-1 - operand] = value
            else:
                row[operand] = value
            self.steps(inner, around, 0)
            self.add("END")
        return start

    def steps(self, steps: Steps, name: str, depth: int) -> None:
        """The operations of steps that are `depth` scopes deep."""
        self.deepest = max(self.deepest, depth)
        for i, step in enumerate(steps):
            if isinstance(step, blocks.Checkpoint):
                self.add("CHECKPOINT")
                self.steps(steps[i + 1 :], name, depth + 1)
                self.add("CHECKED")
                return
            getattr(self, f"_{type(step).__name__.lower()}")(step, name, depth)

    def fork_off(self, test: list[int], operand: int, then: Steps, otherwise: Steps, name: str, depth: int) -> None:
        """The first steps after the test; the others where its operand points to."""
        self.steps(then, name, depth)
        jump = self.add("JUMP") if otherwise else None
        test[operand] = self.here
        if jump is not None:
            self.steps(otherwise, name, depth)
            jump[1] = self.here

    def scope(self, begin: list[int], operand: int, end: list[int], otherwise: Steps, name: str, depth: int) -> None:
        """What follows a scope: its end goes past the other steps, which its begin points to."""
        begin[operand] = self.here
        self.steps(otherwise, name, depth)
        end[1] = self.here

    def time(self, time: blocks.Time, stream: str, part: int) -> None:
        """A delay, as slow as the part is; of a time that grows with a field, the field, and how much it grows."""
        if isinstance(time, blocks.Affine):
            law, field, per = self.law(time.base), self.field_code(time.field), time.per
        else:
            law, field, per = self.law(time), NOWHERE, 0.0
        self.add("DELAY", law, self.stream(stream), part, field, real=per)

    def _delay(self, step: blocks.Delay, name: str, depth: int) -> None:
        self.time(step.duration, step.stream or f"{name}.delay", UNWATCHED)

    def _every(self, step: blocks.Every, name: str, depth: int) -> None:
        self.add("EVERY", real=step.period)

    def _seize(self, step: blocks.Seize, name: str, depth: int) -> None:
        stream = step.stream or f"{name}.{step.pool.name}.seize"
        self.seize(step.pool, step.priority, stream)

    def seize(self, pool: Pool, priority: int, stream: str) -> None:
        """A unit of a pool, at a level that is known when all priorities are."""
        row = self.add("SEIZE", self.pools[pool], 0, self.stream(f"{stream}.select"))
        self.seized[pool].setdefault(priority, []).append(row)

    def priorities(self) -> list[list[int]]:
        """The priorities of each pool, ascending, when there are no more operations to come: these get their levels."""
        for steps in self.seized.values():
            for level, priority in enumerate(sorted(steps)):
                for row in steps[priority]:
                    row[2] = level
        return [sorted(steps) for steps in self.seized.values()]

    def _release(self, step: blocks.Release, name: str, depth: int) -> None:
        self.add("RELEASE", self.pools[step.pool])

    def _serve(self, step: blocks.Serve, name: str, depth: int) -> None:
        stream = step.stream or f"{name}.{step.pool.name}.serve"
        self.seize(step.pool, step.priority, stream)
        self.time(step.duration, stream, self.part(step.pool.at))
        self.add("RELEASE", self.pools[step.pool])

    def _turn(self, step: blocks.Turn, name: str, depth: int) -> None:
        self.add("TURN", self.pools[step.pool])
        self.add("RELEASE", self.pools[step.pool])

    def _send(self, step: blocks.Send, name: str, depth: int) -> None:
        stream = step.stream or f"{name}.{step.link.name}.send"
        ends = step.link.ends
        ways = [self.travel(step.link, end, stream) for end in ends]
        parts = [self.parts[end] for end in ends]
        self.add("SEND", *ways, *parts)
        self.add("ARRIVE", *ways, *parts)

    def _branch(self, step: blocks.Branch, name: str, depth: int) -> None:
        when = step.when
        if isinstance(when, blocks.Condition):
            comparison, value = list(COMPARISONS).index(when.comparison), blocks.linear(when.value)
            other = self.field_code(value.field), value.times
            test, operand = self.add("TEST", self.field_code(when.field), comparison, 0, *other, real=value.base), 3
        else:
            test, operand = self.add("DRAW", self.stream(step.stream or f"{name}.branch"), real=float(when)), 2
        self.fork_off(test, operand, step.then, step.otherwise, name, depth)

    def _bysku(self, step: blocks.BySku, name: str, depth: int) -> None:
        first = len(self.branches)
        self.add("BY_SKU", first, len(step.branches))
        self.branches += [NOWHERE] * len(step.branches)
        ends = []
        for i, branch in enumerate(step.branches):
            self.branches[first + i] = self.here
            self.steps(branch, name, depth)
            ends.append(self.add("JUMP"))
        for end in ends:
            end[1] = self.here

    def _choose(self, step: blocks.Choose, name: str, depth: int) -> None:
        self.add("CHOOSE", len(self.choices), len(step.stages), self.stream(step.stream or f"{name}.choose"))
        self.choices += step.stages

    def _repeat(self, step: blocks.Repeat, name: str, depth: int) -> None:
        self.add("REPEAT")
        body = self.here
        self.steps(step.steps, name, depth + 1)
        self.add("AGAIN", self.stream(step.stream or f"{name}.repeat"), body, real=step.again)

    def _fail(self, step: blocks.Fail, name: str, depth: int) -> None:
        self.add("FAIL", failure(step.reason))

    def _rescue(self, step: blocks.Rescue, name: str, depth: int) -> None:
        begin = self.add("RESCUE")
        self.steps(step.steps, name, depth + 1)
        self.scope(begin, 1, self.add("RESCUED"), step.otherwise, name, depth)

    def _retry(self, step: blocks.Retry, name: str, depth: int) -> None:
        policy = step.policy
        jitter = self.stream(step.stream or f"{name}.retry.backoff") if policy.jitter else NOWHERE
        begin = self.add("RETRY", 0, len(self.waits), policy.retries, jitter, self.here + 1)
        budget = NOWHERE if policy.budget is None else list(self.flow.budgets.values()).index(policy.budget)
        self.add("NEXT_TRY", self.here - 1, budget, int(step.goes_on))
        self.waits += [min(policy.base * policy.factor**k, policy.longest) for k in range(policy.retries)]
        self.steps(step.steps, name, depth + 1)
        self.scope(begin, 1, self.add("RETRIED"), step.otherwise, name, depth)

    def _timeout(self, step: blocks.Timeout, name: str, depth: int) -> None:
        length = self.length(step.after.value) if isinstance(step.after, Constant) else NOWHERE
        begin = self.add("TIMEOUT", 0, self.law(step.after), self.stream(step.stream or f"{name}.timeout"), length)
        self.steps(step.steps, name, depth + 1)
        self.scope(begin, 1, self.add("IN_TIME"), step.otherwise, name, depth)

    def _byattempt(self, step: blocks.ByAttempt, name: str, depth: int) -> None:
        self.add("BY_ATTEMPT")
        self.steps(step.steps, name, depth + 1)
        self.add("BY_ATTEMPT_END")

    def _fork(self, step: blocks.Fork, name: str, depth: int) -> None:
        needed = len(step.branches) if step.join is None else step.join
        row = self.add("FORK", len(self.branches), len(step.branches), needed)
        for branch in step.branches:
            self.aside.append((row, -1 - len(self.branches), branch, name))
            self.branches.append(NOWHERE)

    def _spawn(self, step: blocks.Spawn, name: str, depth: int) -> None:
        self.aside.append((self.add("SPAWN"), 1, step.steps, name))

    def _call(self, step: blocks.Call, name: str, depth: int) -> None:
        self.deepest = max(self.deepest, depth + 1)
        row = self.add("CALL", 0, self.length(step.timeout), real=step.timeout or 0.0)
        self.aside.append((row, 1, step.steps, name))
        self.add("ANSWERED")

    def _hedge(self, step: blocks.Hedge, name: str, depth: int) -> None:
        """The second try is a delay, an operation long, and then what the first is."""
        self.deepest = max(self.deepest, depth + 1)
        tried = blocks.Rescue(step.steps, ()), blocks.Reply()
        self.aside.append((self.add("HEDGE"), 1, (blocks.Delay(Constant(value=step.after)), *tried), name))
        self.add("HEDGED")

    def _reply(self, step: blocks.Reply, name: str, depth: int) -> None:
        self.add("REPLY", response(step.result))

    def _publish(self, step: blocks.Publish, name: str, depth: int) -> None:
        refused = None
        if isinstance(step.to, Log) and step.to.streams is not None and step.sign:
            refused = self.add("APPEND", self.cells(step.to.streams), step.sign, int(step.expect))
        for first in step.queues[:: step.to.partitions]:
            self.add("PUBLISH", self.queues[first], int(step.urgent), step.to.partitions)
        if refused is not None and step.expect:
            self.fork_off(refused, 4, (), step.otherwise, name, depth)

    def _seek(self, step: blocks.Seek, name: str, depth: int) -> None:
        self.add("SEEK", self.queues[step.queue])

    def _waituntil(self, step: blocks.WaitUntil, name: str, depth: int) -> None:
        self.add("UNTIL", self.queues[step.queue], step.at_least)

    def _receive(self, step: blocks.Receive, name: str, depth: int) -> None:
        self.add("FETCH", self.queues[step.queue], NOWHERE if step.at_most is None else step.at_most)

    def _foreach(self, step: blocks.ForEach, name: str, depth: int) -> None:
        self.add("FOR_EACH")
        following = self.here
        member = self.add("MEMBER")
        self.steps(step.steps, name, depth + 1)
        self.add("JUMP", following)
        member[1] = self.here

    def _ack(self, step: blocks.Ack, name: str, depth: int) -> None:
        self.add("ACK")

    def _nack(self, step: blocks.Nack, name: str, depth: int) -> None:
        self.add("NACK", real=step.delay)

    def _read(self, step: blocks.Read, name: str, depth: int) -> None:
        self.add("READ", self.cells(step.table), 0, *self.replica(step.table, step.replica))

    def _waitforcell(self, step: blocks.WaitForCell, name: str, depth: int) -> None:
        value, cells = step.at_least, self.cells(step.table)
        self.awaited.add(cells)
        which = self.replica(step.table, step.replica)
        self.add("UNTIL_CELL", cells, self.field_code(value.field), *which, value.times, real=value.base)

    def _write(self, step: blocks.Write, name: str, depth: int) -> None:
        self.add("WRITE", self.cells(step.table), 0, *self.replica(step.table, step.replica))

    def _writeifnewer(self, step: blocks.WriteIfNewer, name: str, depth: int) -> None:
        test = self.add("WRITE_IF_NEWER", self.cells(step.table), 0, *self.replica(step.table, step.replica))
        self.fork_off(test, 2, step.then, step.otherwise, name, depth)

    def _add(self, step: blocks.Add, name: str, depth: int) -> None:
        self.add("ADD", self.cells(step.table))

    def _take(self, step: blocks.Take, name: str, depth: int) -> None:
        test = self.add("TAKE", self.cells(step.table), 0, int(step.versioned))
        self.fork_off(test, 2, step.then, step.otherwise, name, depth)

    def _once(self, step: blocks.Once, name: str, depth: int) -> None:
        memory = self.memories.setdefault(self.tables[step.table], len(self.memories))
        known = self.add("ONCE", memory)
        self.steps(step.steps, name, depth)
        self.add("KEEP", memory)
        known[2] = self.here

    def _taketoken(self, step: blocks.TakeToken, name: str, depth: int) -> None:
        self.add("TAKE_TOKEN", self.credits[step.credit])

    def _givetoken(self, step: blocks.GiveToken, name: str, depth: int) -> None:
        self.add("GIVE_TOKEN", self.credits[step.credit])

    def _respond(self, step: blocks.Respond, name: str, depth: int) -> None:
        answer = self.answers.setdefault(step.answer_from, len(self.answers)) if step.answer_from else NOWHERE
        self.add("RESPOND", response(step.result), answer)

    def _apply(self, step: blocks.Apply, name: str, depth: int) -> None:
        effect = self.effects.setdefault((step.effect, step.store), len(self.effects))
        self.add("APPLY", effect, step.sign, int(counts(step.effect)))

    def _reject(self, step: blocks.Reject, name: str, depth: int) -> None:
        self.add("REJECT")

    def _supersede(self, step: blocks.Supersede, name: str, depth: int) -> None:
        self.add("SUPERSEDE")

    def _mark(self, step: blocks.Mark, name: str, depth: int) -> None:
        self.add("MARK", self.marks.setdefault(step.name, len(self.marks)))

    def _point(self, step: blocks.Point, name: str, depth: int) -> None:
        self.add("POINT", self.points.setdefault(step.name, len(self.points)))


def failure(reason: str) -> int:
    """What a row believes whose step failed for this reason."""
    return RESPONSES.index("timed_out" if reason == "timed_out" else "failed")


def response(result: str | None) -> int:
    """The code of a result; NOWHERE for the row's own."""
    return NOWHERE if result is None else RESPONSES.index(result)


def lower(flow: Flow, faults: Mapping[str, Strike]) -> Lowered:
    """The flow as one table, with the faults that strike it by the names of their streams; raises BadInput where it is too
    large for the kernel."""
    making = Lowering(flow)
    stages = {name: making.program(steps, f"stage.{name}") for name, steps in flow.stages.items()}
    consumers = {
        queue: making.program(group.steps, group.name, receives=group.queue)
        for queue, group in flow.consumer_groups.items()
    }
    actors = {name: making.program(actor.steps, name) for name, actor in flow.actors.items()}
    starts = {kind: making.program(source.steps, kind) for kind, source in flow.sources.items()}
    nothing = making.program((), "nothing")
    queue_ways = [(*_ways(making, queue), making.length(queue.ack_wait)) for queue in flow.queues.values()]
    rebalances = [
        (making.law(one.rebalance), making.stream(f"{name}.rebalance")) for name, one in flow.coordinators.items()
    ]
    law, stream = flow.thinking
    thinking = making.law(law), making.stream(stream)
    if making.here > MOST_STEPS:
        raise BadInput(f"flow '{flow.name}' has {making.here} operations, at most {MOST_STEPS} fit: make it smaller")
    if len(making.effects) > MOST_EFFECTS:
        raise BadInput(
            f"flow '{flow.name}' applies {len(making.effects)} different effects, at most {MOST_EFFECTS} fit: use fewer"
        )
    strikes = []
    for name, fault in faults.items():
        gap = NOWHERE if fault.every is None else making.law(fault.every)
        every, lasts, chance = (making.stream(f"{name}.{what}") for what in ("every", "lasts", "chance"))
        strikes.append((gap, making.law(fault.duration), every, lasts, chance))
    laws, quantiles = _tables(list(making.laws))
    priorities = making.priorities()
    return Lowered(
        code=_code(making.code, making.real),
        streams=list(making.streams),
        laws=laws,
        quantiles=quantiles,
        travels=list(making.travels),
        branches=making.branches,
        choices=[(stages[name], probability) for name, probability in making.choices],
        waits=making.waits,
        starts=starts,
        nothing=nothing,
        consumers=consumers,
        actors=actors,
        thinking=thinking,
        priorities=priorities,
        queue_ways=queue_ways,
        rebalances=rebalances,
        memories=making.memories,
        celled=making.celled,
        awaited=making.awaited,
        effects=list(making.effects),
        answers=list(making.answers),
        marks=list(making.marks),
        points=list(making.points),
        strikes=strikes,
        depth=making.deepest,
        lengths=list(making.lengths),
    )


def _code(steps: list[list[int]], real: list[float]) -> np.ndarray:
    """The operations as records, from their whole numbers and their real ones."""
    code = np.empty((len(steps), 7), np.int64)
    code[:, :6] = np.fromiter(chain.from_iterable(steps), np.int64, 6 * len(steps)).reshape(-1, 6)
    code[:, 6] = np.array(real).view(np.int64)
    return code.view(STEP).ravel()


def _ways(making: Lowering, queue: Queue) -> tuple[int, ...]:
    """The way of a queue's deliveries, those of acknowledgements from one end of its link and the other, and the one; law and
    stream of the time that the broker takes beside."""
    dispatch = NOWHERE, NOWHERE
    if queue.dispatch is not None:
        dispatch = making.law(queue.dispatch), making.stream(f"{queue.name}.dispatch")
    if queue.link is None:
        return NOWHERE, NOWHERE, NOWHERE, NOWHERE, *dispatch
    ends = queue.link.ends
    back = [making.travel(queue.link, end, f"{queue.name}.settle") for end in ends]
    there = making.travel(queue.link, queue.at, f"{queue.name}.deliver")
    return there, back[0], back[1], making.parts[ends[0]], *dispatch


def _tables(distributions: list[Distribution]) -> tuple[list[tuple[int, int, int, float, float, float]], list[float]]:
    """The laws, and their quantiles one after the other."""
    laws: list[tuple[int, int, int, float, float, float]] = []
    quantiles: list[float] = []
    for distribution in distributions:
        family, a, b, c, table = distribution.law()
        laws.append((family, len(quantiles), table.size, a, b, c))
        quantiles += table.tolist()
    return laws, quantiles
