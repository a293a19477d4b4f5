"""The verbs: what a message goes through, as data. Steps hold no Python, so that every engine reads the same model."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from simlib.distributions import Constant, Distribution, distribution
from simlib.domain import KINDS, RESPONSES, undone
from simlib.errors import BadInput, unknown

if TYPE_CHECKING:
    from simlib.flow.model import Budget, Credit, Link, Log, Pool, Queue, Replica, Table

FIELDS = (
    "kind", "sku", "session", "quantity", "poison", "attempt", "delivery", "result", "level", "version", "batch", "nth", "member",
    "awaited",
)  # fmt: skip
"""What a condition can read: columns of the message, counters of the path, the registers of the row: `result` (of
the last call, index into `domain.RESPONSES`), `level` and `version` (of the last cell read or written, as carried in
messages); and `batch`, how many deliveries an actor has in hand, `nth`, which of them it is at in a `for_each`, 1 the first;
`member`, which one the row was last given a unit of, 0 the first, where a pool has several; `awaited`, 1 where a consumer waited
for the delivery that it has, or a row for the unit of a pool that it was last given, 0 where it had that at once; event loops leave
it as it is.
Beside them `TABLE.level` and `TABLE.version`, of the message's cell in a table (of its first replica)."""
CELL_FIELDS = ("level", "version")
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Step:
    """A step of a flow."""


Steps = Sequence[Step]


@dataclass(frozen=True)
class Linear:
    """A number, and so many times a field: `snapshots.version + 100`, `2 * LEVEL + 1`."""

    base: float
    times: int = 0
    field: str = ""

    def __add__(self, more: float) -> Linear:
        return Linear(self.base + more, self.times, self.field)


@dataclass(frozen=True)
class Condition:
    """A comparison of a field with a number, or with one that grows with another field."""

    field: str
    comparison: str
    value: float | Linear


class Field:
    """A field to compare: `RESULT.equals("ok")`, `ATTEMPT.at_least(2)`, `VERSION.at_least(snapshots.version + 100)`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __add__(self, more: float) -> Linear:
        return Linear(more, 1, self.name)

    def __rmul__(self, times: int) -> Linear:
        return Linear(0.0, times, self.name)

    def equals(self, value: Value | str) -> Condition:
        """True where the field has this value: a number, or a response's name for `result`, a kind's for `kind`."""
        return Condition(self.name, "==", _code(self.name, value))

    def differs(self, value: Value | str) -> Condition:
        """True where the field has another value."""
        return Condition(self.name, "!=", _code(self.name, value))

    def at_least(self, value: Value) -> Condition:
        """True where the field is this or more."""
        return Condition(self.name, ">=", _code(self.name, value))


Value = float | Field | Linear
"""What a field is compared with, or what a cell is waited for to reach."""


def linear(value: Value) -> Linear:
    """A value as a number and so many times a field."""
    if isinstance(value, Field):
        return value + 0.0
    return value if isinstance(value, Linear) else Linear(float(value))


def _code(field: str, value: Value | str) -> float | Linear:
    if isinstance(value, Field):
        return linear(value)
    if not isinstance(value, str):
        return value
    names = RESPONSES if field == "result" else KINDS
    if value not in names:
        raise unknown(field, value, names)
    return names.index(value)


KIND, SKU, RESULT, POISONED, DELIVERY, ATTEMPT, LEVEL, VERSION, BATCH, NTH, MEMBER, AWAITED = (
    Field(name)
    for name in (
        "kind", "sku", "result", "poison", "delivery", "attempt", "level", "version", "batch", "nth", "member", "awaited",
    )
)  # fmt: skip


@dataclass(frozen=True, init=False)
class Affine:
    """A time that grows with a field: `base`, and `per` seconds for each; `Affine("5 ms", "1 ms", of=BATCH)` for a batch."""

    base: Distribution
    per: float
    field: str

    def __init__(self, base: Any, per: Any, of: Field) -> None:
        for name, value in (
            ("base", distribution(base)),
            ("per", _seconds(per, "per of an Affine")),
            ("field", of.name),
        ):
            object.__setattr__(self, name, value)


Time = Distribution | Affine


def timed(value: Any) -> Time:
    """As `distribution`, or a time that grows with a field."""
    return value if isinstance(value, Affine) else distribution(value)


def _seconds(value: Any, what: str) -> float:
    """One time, in seconds."""
    constant = distribution(value)
    if not isinstance(constant, Constant):
        raise BadInput(f"{what} must be one time, got {constant.family}: give it seconds, or a text such as '5 ms'")
    return constant.value


# --- time -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delay(Step):
    """Wait, with no resource."""

    duration: Time
    stream: str | None = None


@dataclass(frozen=True)
class Every(Step):
    """Wait until the next multiple of a period; those that passed meanwhile are skipped."""

    period: float


@dataclass(frozen=True)
class Seize(Step):
    """Take a unit of a pool, waiting for it; fails with "full" where the pool's queue limit is reached, with "open" where its
    breaker lets nobody in."""

    pool: Pool
    priority: int = 0
    stream: str | None = None


@dataclass(frozen=True)
class Release(Step):
    """Give a unit of a pool back."""

    pool: Pool


@dataclass(frozen=True)
class Serve(Step):
    """Seize, delay, release."""

    pool: Pool
    duration: Time
    stream: str | None = None
    priority: int = 0


@dataclass(frozen=True)
class Turn(Step):
    """Wait for a turn of an event loop behind all who wait for one, also where the row has one."""

    pool: Pool


@dataclass(frozen=True)
class Send(Step):
    """Travel to the other end of a link; what the link loses ends here, and nobody is told."""

    link: Link
    stream: str | None = None


# --- control --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Branch(Step):
    """The first steps where the condition holds (or with the probability), else the others."""

    when: Condition | float
    then: Steps
    otherwise: Steps = ()
    stream: str | None = None


@dataclass(frozen=True)
class BySku(Step):
    """One of the branches, always the same for a SKU."""

    branches: tuple[Steps, ...]


@dataclass(frozen=True)
class Choose(Step):
    """Go on at one of the named stages, each with a probability; what is left over ends the row."""

    stages: tuple[tuple[str, float], ...]
    stream: str | None = None


@dataclass(frozen=True)
class Repeat(Step):
    """The steps, and again with a probability each time."""

    steps: Steps
    again: float
    stream: str | None = None


@dataclass(frozen=True)
class Fail(Step):
    """Give up: the nearest retry or rescue goes on; `result` becomes "failed"."""

    reason: str = "failed"


@dataclass(frozen=True)
class Rescue(Step):
    """The steps; where they fail, the others."""

    steps: Steps
    otherwise: Steps


@dataclass(frozen=True)
class Backoff:
    """When to try again: after base · factor^k, at most `longest`, times a uniform draw where there is jitter
    ("full jitter": Brooker, AWS Architecture Blog 2015); and only where the `budget` has enough."""

    retries: int
    base: float = 0.0
    factor: float = 2.0
    longest: float = 60.0
    jitter: bool = False
    budget: Budget | None = None


@dataclass(frozen=True)
class Retry(Step):
    """The steps, again after a backoff where they fail, as often as the policy says; then the others, with "timed_out" as
    `result` where any attempt timed out: it may have been carried out. `goes_on`: its attempts go on counting those of the retry
    around it, so that they meet other draws `by_attempt`."""

    policy: Backoff
    steps: Steps
    otherwise: Steps = ()
    stream: str | None = None
    goes_on: bool = False


@dataclass(frozen=True)
class Timeout(Step):
    """The steps; where they last longer, this row gives up its own waits and holdings and does the others."""

    after: Distribution
    steps: Steps
    otherwise: Steps
    stream: str | None = None


@dataclass(frozen=True)
class ByAttempt(Step):
    """The steps, whose draws are those of (message, attempt) whatever repeats around them: what architectures share."""

    steps: Steps


@dataclass(frozen=True)
class Checkpoint(Step):
    """From here to the end of these steps the row outlives a crash of the part that it is at: it gives up what it waits for,
    and goes on here, with the registers as they are now, when the part is up again."""


# --- together -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fork(Step):
    """All branches at once; goes on when `join` of them have ended (None: all)."""

    branches: tuple[Steps, ...]
    join: int | None = None


@dataclass(frozen=True)
class Spawn(Step):
    """Start the steps beside this row and go on at once."""

    steps: Steps


@dataclass(frozen=True)
class Call(Step):
    """Start the steps and wait for their reply; after `timeout` seconds fail with "timed_out": the far side works on."""

    steps: Steps
    timeout: float | None = None


@dataclass(frozen=True)
class Hedge(Step):
    """The steps; where they are not over after so many seconds, the same once more beside them. The first to be over counts, also
    where it failed; the other gives up what it waits for and holds (Dean, Barroso: The Tail at Scale, 2013). Both are attempts of
    their own numbers."""

    after: float
    steps: Steps


@dataclass(frozen=True)
class Reply(Step):
    """Answer whoever called (or published with a call waiting): registers go back, and this result or the row's own; this
    row goes on."""

    result: str | None = None


# --- messages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Publish(Step):
    """Put a delivery of this message, with its registers, into a queue at this part; or append a record of it to a log.

    A `sign` changes the level of the log's stream by sign · quantity and makes a new version of it: both go into the registers
    first. `expect`: where the stream is no longer at the version in the register, the others are done instead. A queue hands out
    what is `urgent` before the rest; where it takes no more the step fails with "full"."""

    to: Queue | Log
    sign: Literal[-1, 0, 1] = 0
    expect: bool = False
    otherwise: Steps = ()
    urgent: bool = False

    @property
    def queues(self) -> list[Queue]:
        """Where deliveries go: the queue, or those of the log's groups."""
        return self.to.queues


@dataclass(frozen=True)
class Seek(Step):
    """A log's group begins again at the first record: all of them come again, in their order, before what is new."""

    queue: Queue


@dataclass(frozen=True)
class WaitUntil(Step):
    """Wait until at least so many deliveries are ready in a queue."""

    queue: Queue
    at_least: int = 1


@dataclass(frozen=True)
class Receive(Step):
    """An actor takes in hand what is ready in a queue, at most so many, as one batch, which may be empty; what it had in
    hand before it puts down. The queue may be elsewhere: what asking takes is for the steps around to say."""

    queue: Queue
    at_most: int | None = None


@dataclass(frozen=True)
class ForEach(Step):
    """The steps with each delivery of the batch in hand, one after the other, as a consumer has it."""

    steps: Steps


@dataclass(frozen=True)
class Ack(Step):
    """Settle the delivery in hand, or the whole batch; the acknowledgement travels while the consumer goes on."""


@dataclass(frozen=True)
class Nack(Step):
    """Hand the delivery back, or the whole batch, to be delivered again after `delay` seconds, or parked at once after the
    last delivery."""

    delay: float = 0.0


# --- state ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read(Step):
    """The cell's level and version into the registers; `result` becomes ok."""

    table: Table
    replica: Replica = 0


@dataclass(frozen=True)
class WaitForCell(Step):
    """Wait until the cell's version is at least so much."""

    table: Table
    at_least: Linear
    replica: Replica = 0


@dataclass(frozen=True)
class Write(Step):
    """The registers into the cell; `result` becomes ok."""

    table: Table
    replica: Replica = 0


@dataclass(frozen=True)
class WriteIfNewer(Step):
    """The registers into the cell where their version is newer than the cell's, and the first steps; else the others.
    `result` becomes ok either way."""

    table: Table
    then: Steps = ()
    otherwise: Steps = ()
    replica: Replica = 0


@dataclass(frozen=True)
class Add(Step):
    """Add the message's quantity to the cell: a new version, both into the registers."""

    table: Table


@dataclass(frozen=True)
class Take(Step):
    """Take the message's quantity from the cell where it is there, and do the first steps; else the others. `versioned`:
    it makes a new version, which goes into the registers."""

    table: Table
    then: Steps = ()
    otherwise: Steps = ()
    versioned: bool = True


@dataclass(frozen=True)
class Once(Step):
    """The steps, which take no time, once for each message, as under a unique key in the same transaction; where they were
    done before, only the result they had then is in the register."""

    table: Table
    steps: Steps


@dataclass(frozen=True)
class TakeToken(Step):
    """Take a token of a credit, waiting for it."""

    credit: Credit


@dataclass(frozen=True)
class GiveToken(Step):
    """Give a token of a credit back, whoever took it; where none is out, nothing changes."""

    credit: Credit


# --- record ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Respond(Step):
    """Tell the caller at the flow's edge: by default the result of the last call. Only the first response counts."""

    result: str | None = None
    answer_from: str = ""


@dataclass(frozen=True)
class Apply(Step):
    """Record an effect of this message, in a store, with the version in the register and a change of sign · quantity;
    `result` becomes ok."""

    effect: str
    store: str = ""
    sign: Literal[-1, 0, 1] = 0


@dataclass(frozen=True)
class Reject(Step):
    """Record that the destination refused the message; `result` becomes refused."""


@dataclass(frozen=True)
class Supersede(Step):
    """Record that a newer version took this message's place; `result` becomes ok."""


@dataclass(frozen=True)
class Mark(Step):
    """Note the time in the message's column `mark.NAME` (the first time counts)."""

    name: str


@dataclass(frozen=True)
class Point(Step):
    """A named place where a fault may strike."""

    name: str


# --- the words that models write ------------------------------------------------------------------------------------


def delay(value: Any, stream: str | None = None) -> Delay:
    return Delay(timed(value), stream)


def every(period: Any) -> Every:
    return Every(_seconds(period, "period of an every"))


def branch(when: Condition | float, then: Steps, otherwise: Steps = (), stream: str | None = None) -> Branch:
    return Branch(when, then, otherwise, stream)


def by_sku(*branches: Steps) -> BySku:
    return BySku(branches)


def choose(stages: dict[str, float], stream: str | None = None) -> Choose:
    return Choose(tuple(stages.items()), stream)


def repeat(steps: Steps, again: float, stream: str | None = None) -> Repeat:
    return Repeat(steps, again, stream)


def fail(reason: str = "failed") -> Fail:
    return Fail(reason)


def rescue(steps: Steps, otherwise: Steps) -> Rescue:
    return Rescue(steps, otherwise)


def retry(
    policy: Backoff, steps: Steps, otherwise: Steps = (), stream: str | None = None, goes_on: bool = False
) -> Retry:
    return Retry(policy, steps, otherwise, stream, goes_on)


def timeout(after: Any, steps: Steps, otherwise: Steps = (), stream: str | None = None) -> Timeout:
    return Timeout(distribution(after), steps, otherwise, stream)


def by_attempt(steps: Steps) -> ByAttempt:
    return ByAttempt(steps)


def checkpoint() -> Checkpoint:
    return Checkpoint()


def fork(*branches: Steps, join: int | None = None) -> Fork:
    return Fork(branches, join)


def spawn(steps: Steps) -> Spawn:
    return Spawn(steps)


def call(steps: Steps, timeout: float | None = None) -> Call:
    return Call(steps, timeout)


def hedge(after: float, steps: Steps) -> Hedge:
    return Hedge(after, steps)


def reply(result: str | None = None) -> Reply:
    return Reply(result)


def publish(
    to: Queue | Log,
    sign: Literal[-1, 0, 1] = 0,
    expect: bool = False,
    otherwise: Steps = (),
    urgent: bool = False,
) -> Publish:
    return Publish(to, sign, expect, otherwise, urgent)


def seek(group: Queue) -> Seek:
    return Seek(group)


def wait_until(queue: Queue, at_least: int = 1) -> WaitUntil:
    return WaitUntil(queue, at_least)


def receive(queue: Queue, at_most: int | None = None) -> Receive:
    return Receive(queue, at_most)


def for_each(steps: Steps) -> ForEach:
    return ForEach(steps)


def ack() -> Ack:
    return Ack()


def nack(delay: float = 0.0) -> Nack:
    return Nack(delay)


def respond(result: str | None = None, answer_from: str = "") -> Respond:
    return Respond(result, answer_from)


def apply(effect: str, store: str = "", sign: Literal[-1, 0, 1] = 0) -> Apply:
    return Apply(effect, store, sign)


def undo(effect: str, store: str = "", sign: Literal[-1, 0, 1] = 0) -> Apply:
    """An effect taken back, with the change that this makes: where as much was undone as was done of all that the flow
    undoes, the message is compensated."""
    return Apply(undone(effect), store, sign)


def reject() -> Reject:
    return Reject()


def supersede() -> Supersede:
    return Supersede()


def mark(name: str) -> Mark:
    return Mark(name)


def point(name: str) -> Point:
    return Point(name)
