"""The nouns, and the flow that holds them: an architecture's model as data, which reads as its diagram does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from simlib.distributions import Constant, Distribution, distribution
from simlib.domain import undoes
from simlib.errors import BadInput
from simlib.flow.blocks import (
    VERSION,
    Add,
    Apply,
    Field,
    GiveToken,
    Once,
    Read,
    Receive,
    Release,
    Seize,
    Send,
    Serve,
    Step,
    Steps,
    Take,
    TakeToken,
    Turn,
    Value,
    WaitForCell,
    Write,
    WriteIfNewer,
    every,
    linear,
    timed,
)
from simlib.quantities import whole

if TYPE_CHECKING:
    from simlib.flow.bounds import Bounds

Select = Literal["round_robin", "random", "two_choices", "least_requests", "key"]
Discipline = Literal["priority", "preemptive", "event_loop"]
Requeue = Literal["head", "back"]
Overflow = Literal["drop", "refuse"]
Key = Literal["sku", "session", "message"]
Choice = Literal["session", "random"]
Replica = int | Choice
"""Which replica of a table: one by its number, the one that the message's session sticks to, or any, drawn by place, so that
a row meets the same one again from the same place."""


@dataclass(frozen=True, eq=False)
class Part:
    """A process or host: what crashes, with everything that runs or is kept there."""

    flow: Flow = field(repr=False)
    name: str
    replica_of: Part | None = None
    """Whose database it uses: tables, pools and queues at that part are at this one too."""

    @property
    def cpu(self) -> Pool:
        """The pool of the part's cores."""
        return self.flow.pools[f"{self.name}.cpu"]

    def pool(self, name: str, capacity: int, **options: Any) -> Pool:
        """A pool at this part; see `Flow.pool`."""
        return self.flow.pool(f"{self.name}.{name}", capacity, at=self, **options)

    def queue(self, name: str, **options: Any) -> Queue:
        """A queue kept at this part; see `Flow.queue`."""
        return self.flow.queue(name, at=self, **options)

    def log(self, name: str, **options: Any) -> Log:
        """A log kept at this part; see `Flow.log`."""
        return self.flow.log(name, at=self, **options)

    def table(self, name: str, **options: Any) -> Table:
        """A table kept at this part; see `Flow.table`."""
        return self.flow.table(name, at=self, **options)

    def credit(self, name: str, tokens: int, **options: Any) -> Credit:
        """A credit kept at this part; see `Flow.credit`."""
        return self.flow.credit(name, tokens, at=self, **options)

    def coordinator(self, name: str, members: Sequence[Part], **options: Any) -> Coordinator:
        """A coordinator at this part; see `Flow.coordinator`."""
        return self.flow.coordinator(name, members, at=self, **options)


@dataclass(frozen=True, eq=False)
class Link:
    """What delays and loses between two parts; transit takes no resource."""

    name: str
    ends: tuple[Part, Part]
    delay: Distribution
    loss: float = 0.0

    def send(self, stream: str | None = None) -> Send:
        """Travel to the other end."""
        return Send(self, stream)


@dataclass(frozen=True)
class Breaker:
    """After so many `failures` of a member in a row nobody goes to it while that `lasts`, s; then one more failure is enough,
    until there is a success. `at_most` of the members, as a share, are left out at a time. A unit that is given back because the
    row that holds it failed or timed out is a failure of its member, a unit that is released a success.

    With all members it is a circuit breaker (Nygard, Release It!), with some an outlier ejection (Envoy).
    """

    failures: int
    lasts: float
    at_most: float = 1.0


@dataclass(frozen=True, eq=False)
class Budget:
    """What retries are paid from: each call pays a `share` of one in, up to the `reserve`; each retry takes one out."""

    name: str
    share: float
    reserve: float = 100.0


@dataclass(frozen=True, eq=False)
class Pool:
    """Units that rows hold for a while. `members` are alike; `select` says which one a row goes to.

    `discipline`: those who wait are served by "priority", a lower number first, first come first served within; where it is
    "preemptive", the only unit of a member also goes at once from the row that is served to one of a better priority, and the
    row that is displaced goes on with what is left of its service (preemptive resume) before all of its own priority. An
    "event_loop" serves who comes first with its only unit; a row that gives the unit back keeps it until it waits for something,
    so that it may go on there, as a consumer does with a delivery that waits for it; see `turn`.
    `queue_limit` counts those who wait, at each member; one more fails with "full". Where the `breaker` leaves out all members, a
    row fails with "open". Who displaces another is never refused; who is displaced counts among those who wait. A `lock` is held
    for the sake of order, also while its holder waits for work: how busy it is says nothing of the load.
    """

    name: str
    capacity: int
    at: Part | None = None
    members: int = 1
    select: Select = "round_robin"
    queue_limit: int | None = None
    breaker: Breaker | None = None
    lock: bool = False
    discipline: Discipline = "priority"

    @property
    def kind(self) -> str:
        """What it is called in a history's parts."""
        return "lock" if self.lock else "pool"

    def serve(self, time: Any, stream: str | None = None, priority: int = 0) -> Serve:
        """Hold a unit for a time. A lower priority number is served first; see `discipline`."""
        return Serve(self, timed(time), stream, priority)

    def seize(self, priority: int = 0, stream: str | None = None) -> Seize:
        """Take a unit; the stream is for the choice of a random member."""
        return Seize(self, priority, stream)

    def release(self) -> Release:
        """Give the unit back."""
        return Release(self)

    def turn(self) -> Turn:
        """Go on in a turn of its own of the event loop, behind all who wait: as a task goes on that another one wakes."""
        return Turn(self)


@dataclass(frozen=True, eq=False)
class Queue:
    """Deliveries of messages, kept at a part, handed to consumers over a link.

    `dispatch`: what the broker takes to hand a delivery out, beside the way; deliveries do not wait for each other there.
    `prefetch` limits the unacknowledged, of each consumer (as RabbitMQ's basic.qos) or of all together (`shared`, as
    JetStream's max_ack_pending). `ack_wait`: a delivery not acknowledged for so long is delivered again. `max_deliveries`:
    after so many it is parked (`dead_letter`) or dropped. `automatic_ack`: settled when handed out. `deduplicate`: a
    message published again within so many seconds is dropped, but confirmed. `requeue`: where what is delivered again
    stands. `detected_after`: so long after the consumers' part died the broker notices that their connection is closed
    (when the part is up again at the latest), delivers again what they held, and takes no acknowledgement of it any more;
    None: what they held comes again by `ack_wait` alone. Nothing is handed out to a part that is down: its machine closed the
    connection. `flush_every`: what is published is flushed to disk so often, s; None: each
    before its confirm. `state_every`: what was handed out and settled is written down at most so often, s; where the queue's part
    dies, what it did since is forgotten, and ready again; None: at once. `coalesce`: of the ready deliveries of one SKU only the
    last published stays; those before it are superseded. `length`: at most so many are ready; of one more the first is dropped, or
    the new one refused (`overflow`). `ttl`: what is not handed out so long after its publication is dropped, s. What is dropped is
    parked where there is a `dead_letter`. `log`: it is that log's group: it keeps its deliveries when they are acknowledged, and
    they arrive in their order. `commit_every`: what its readers acknowledge moves the group's position at multiples of so many
    seconds; where their part dies, what they acknowledged since comes again; None: at once. `coordinator`: who says which of the
    group's members reads it. Consumers that begin again are connected one after the other: each is handed what is ready up to its
    limit before the next one is.
    """

    name: str
    at: Part
    link: Link | None = None
    dispatch: Distribution | None = None
    prefetch: int | None = None
    shared: bool = False
    automatic_ack: bool = False
    ack_wait: float | None = None
    max_deliveries: int | None = None
    dead_letter: bool = True
    deduplicate: float | None = None
    requeue: Requeue = "head"
    detected_after: float | None = None
    flush_every: float | None = None
    state_every: float | None = None
    commit_every: float | None = None
    coalesce: bool = False
    length: int | None = None
    overflow: Overflow = "drop"
    ttl: float | None = None
    log: Log | None = None
    coordinator: Coordinator | None = None

    partitions = 1
    """As a log has them."""

    @property
    def queues(self) -> list[Queue]:
        """Where what is published to it goes."""
        return [self]


@dataclass(frozen=True, eq=False)
class Table:
    """Cells with a level and a version, by what messages have: their SKU, their session, themselves, or several of these; or
    (None) one cell for all. `window`: of each of these one for every so many seconds, from the start of the run on, by when the
    message was issued (a tumbling window).

    `replicas` have cells of their own, which know of each other what steps write. Durable tables outlive a crash of
    their part.
    """

    name: str
    at: Part
    key: Key | tuple[Key, ...] | None = "sku"
    window: float | None = None
    stocked: bool = False
    durable: bool = True
    replicas: int = 1

    @property
    def level(self) -> Field:
        """The level of the message's cell, to compare."""
        return Field(f"{self.name}.level")

    @property
    def version(self) -> Field:
        """The version of the message's cell, to compare."""
        return Field(f"{self.name}.version")

    def read(self, replica: Replica = 0) -> Read:
        """The cell into the registers."""
        return Read(self, replica)

    def wait_until(self, at_least: Value = VERSION, replica: Replica = 0) -> WaitForCell:
        """Wait until the cell's version is at least this: by default as new as that in the register."""
        return WaitForCell(self, linear(at_least), replica)

    def write(self, replica: Replica = 0) -> Write:
        """The registers into the cell."""
        return Write(self, replica)

    def write_if_newer(self, then: Steps = (), otherwise: Steps = (), replica: Replica = 0) -> WriteIfNewer:
        """The registers into the cell where their version is newer."""
        return WriteIfNewer(self, then, otherwise, replica)

    def add(self) -> Add:
        """Add the message's quantity."""
        return Add(self)

    def take(self, then: Steps = (), otherwise: Steps = (), versioned: bool = True) -> Take:
        """Take the message's quantity where it is there."""
        return Take(self, then, otherwise, versioned)

    def once(self, steps: Steps) -> Once:
        """The steps, once for each message."""
        return Once(self, steps)


@dataclass(frozen=True, eq=False)
class Log:
    """Records of messages, kept at a part for good. Each of its groups has a queue of all of them, in their order, from where
    they come again when the group's reader dies over them, or is sent back: an acknowledgement moves the group's position on,
    and takes nothing away (J. Kreps, "The Log", 2013; a subscription of an event store; a consumer group of Kafka).

    `partitions`: those of a SKU are in one of so many, each with its own order, of which each group has a queue. `streams`: the
    table whose cells hold, for each SKU, what its records add up to, and how many they are. `flush_every`: as in `Queue`.
    """

    name: str
    at: Part
    partitions: int = 1
    streams: Table | None = None
    flush_every: float | None = None

    @property
    def queues(self) -> list[Queue]:
        """Those of its groups, one group after the other, each with one for every partition."""
        return [queue for queue in self.at.flow.queues.values() if queue.log is self]

    def group(self, name: str, **options: Any) -> list[Queue]:
        """Readers that share a position in each partition: the partitions' queues, numbered where they are several. Options as
        in `Queue`, of which `detected_after` is the group's session timeout, and `ack_wait` how long what is handed out may stay
        uncommitted before all of it is handed out again. With a `coordinator` they are shared out among its members, whose
        session timeout is its own, and who does not come back for more within `ack_wait` is a member no longer."""
        names = [name] if self.partitions == 1 else [f"{name}.{i}" for i in range(self.partitions)]
        coordinator = options.get("coordinator")
        timeout = 0.0 if coordinator is None else coordinator.session_timeout
        options = {"log": self, "flush_every": self.flush_every, "detected_after": timeout, **options}
        return [self.at.queue(each, **options) for each in names]


@dataclass(frozen=True, eq=False)
class Coordinator:
    """Who shares out the partitions of a log's group among its members, parts whose actors read them: each partition is read by
    one member at a time (Kafka's group coordinator and assignor; KIP-429).

    A member that is dead, or stands still, is one no longer when nothing was heard of it for the `session_timeout`, s: what it had
    in hand comes again. Whenever one leaves or comes the partitions are shared out anew, which takes the time `rebalance` from when
    every member has had nothing in hand, and those that died are noticed. Until that is over nobody takes anything from a
    partition, and all go round robin (Kafka's eager protocol); or, `cooperative`, each reads on: what nobody reads goes to who
    has the fewest, and what must move for the sake of balance is given up then, and shared out by another rebalance.
    """

    name: str
    at: Part
    members: tuple[Part, ...]
    session_timeout: float
    rebalance: Distribution
    cooperative: bool = False


@dataclass(frozen=True, eq=False)
class Credit:
    """Tokens without an owner, so many, or so many for each key, as of tables: who takes one need not be who gives it back,
    and a crash gives none back."""

    name: str
    tokens: int
    at: Part | None = None
    key: Key | tuple[Key, ...] | None = None

    @property
    def capacity(self) -> float:
        """How many tokens there are in all; NaN where that depends on the keys."""
        return math.nan if self.key else float(self.tokens)

    def take(self) -> TakeToken:
        """Take a token, waiting for it."""
        return TakeToken(self)

    def give(self) -> GiveToken:
        """Give a token back."""
        return GiveToken(self)


@dataclass(frozen=True, eq=False)
class Source:
    """Where messages of a kind begin. Without `interarrival` and `population` they come from the scenario."""

    kind: str
    steps: Steps
    at: Part | None = None
    interarrival: Distribution | None = None
    batch: int = 1
    population: int | None = None
    think: Distribution | None = None


@dataclass(frozen=True, eq=False)
class Consumers:
    """`count` loops at a part, each taking a delivery and going through the steps with it."""

    queue: Queue
    at: Part
    count: int
    steps: Steps

    @property
    def name(self) -> str:
        return f"{self.queue.name}.consumers"


@dataclass(frozen=True, eq=False)
class Actor:
    """`count` loops at a part, each going through the steps for ever: they belong to no message, but to those of the batch
    that they receive."""

    name: str
    at: Part
    count: int
    steps: Steps

    @property
    def queues(self) -> list[Queue]:
        """The queues that it receives from."""
        return list(dict.fromkeys(step.queue for step in everything(self.steps) if isinstance(step, Receive)))


@dataclass(eq=False)
class Flow:
    """An architecture's model, or a textbook queue: nouns, sources and consumers, under one name."""

    name: str
    parts: dict[str, Part] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    logs: dict[str, Log] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    consumer_groups: dict[str, Consumers] = field(default_factory=dict)
    actors: dict[str, Actor] = field(default_factory=dict)
    stages: dict[str, Steps] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    credits: dict[str, Credit] = field(default_factory=dict)
    coordinators: dict[str, Coordinator] = field(default_factory=dict)

    def __init__(self, name: str) -> None:
        self.name = name
        for each in fields(self)[1:]:
            setattr(self, each.name, {})

    def part(
        self, name: str, cores: int = 1, replica_of: Part | None = None, discipline: Discipline = "priority"
    ) -> Part:
        """A part with `cores` units of processor, which serve by a discipline of pools."""
        part = _add(self.parts, name, Part(self, name, replica_of), "part")
        self.pool(f"{name}.cpu", cores, at=part, discipline=discipline)
        return part

    def link(self, one: Part, other: Part, delay: Any, loss: float = 0.0, name: str | None = None) -> Link:
        """A link between two parts; `delay` each way, `loss` the probability that what is sent never arrives."""
        name = name or f"{one.name}-{other.name}"
        return _add(self.links, name, Link(name, (one, other), distribution(delay), loss), "link")

    def pool(self, name: str, capacity: int = 1, *, at: Part | None = None, **options: Any) -> Pool:
        """A pool of `capacity` units at each of its members."""
        whole(capacity, f"capacity of pool '{name}'", 1)
        return _add(self.pools, name, Pool(name, capacity, at, **options), "pool")

    def queue(self, name: str, *, at: Part, **options: Any) -> Queue:
        """A queue kept at a part; options as in `Queue`."""
        if options.get("dispatch") is not None:
            options["dispatch"] = distribution(options["dispatch"])
        return _add(self.queues, name, Queue(name, at, **options), "queue")

    def log(self, name: str, *, at: Part, **options: Any) -> Log:
        """A log kept at a part; options as in `Log`."""
        log = _add(self.logs, name, Log(name, at, **options), "log")
        whole(log.partitions, f"partitions of log '{name}'", 1)
        return log

    def table(self, name: str, *, at: Part, **options: Any) -> Table:
        """A table kept at a part; `stocked` starts with the scenario's units."""
        return _add(self.tables, name, Table(name, at, **options), "table")

    def budget(self, name: str, share: float, **options: Any) -> Budget:
        """What retries are paid from; see `Budget`."""
        return _add(self.budgets, name, Budget(name, share, **options), "budget")

    def credit(
        self,
        name: str,
        tokens: int,
        *,
        at: Part | None = None,
        key: Key | tuple[Key, ...] | None = None,
        rate: float | None = None,
    ) -> Credit:
        """A credit of so many tokens, for each key where there is one. `rate`: one is given back so often a second, by an
        actor at the part (a token bucket)."""
        whole(tokens, f"tokens of credit '{name}'", 1)
        credit = _add(self.credits, name, Credit(name, tokens, at, key), "credit")
        if rate is not None:
            if at is None or key is not None or not rate > 0:
                raise BadInput(
                    f"credit '{name}' with a rate of {rate} must be at a part, without a key, and its rate above 0"
                )
            self.actor(f"{name}.refill", at, [every(1 / rate), credit.give()])
        return credit

    def coordinator(
        self,
        name: str,
        members: Sequence[Part],
        *,
        at: Part,
        session_timeout: float,
        rebalance: Any,
        cooperative: bool = False,
    ) -> Coordinator:
        """Who shares out the partitions of a log's group among members; see `Coordinator`."""
        time = distribution(rebalance)
        coordinator = Coordinator(name, at, tuple(members), session_timeout, time, cooperative)
        return _add(self.coordinators, name, coordinator, "coordinator")

    def source(
        self,
        kind: str,
        steps: Steps,
        at: Part | None = None,
        interarrival: Any = None,
        batch: int = 1,
        population: int | None = None,
        think: Any = None,
    ) -> Source:
        """Where messages of a kind begin: from the scenario, or `batch` at a time every `interarrival`, or each of a
        `population` of customers issues one, waits for it to settle, and thinks."""
        between = None if interarrival is None else distribution(interarrival)
        thinks = None if think is None else distribution(think)
        source = Source(
            kind, tuple(steps), at, between, whole(batch, f"batch of source '{kind}'", 1), population, thinks
        )
        return _add(self.sources, kind, source, "source")

    def consumers(self, queue: Queue, at: Part, count: int, steps: Steps) -> Consumers:
        """Consumers that compete for a queue's deliveries."""
        group = Consumers(queue, at, whole(count, f"consumers of queue '{queue.name}'", 1), tuple(steps))
        return _add(self.consumer_groups, queue.name, group, "consumers of queue")

    def actor(self, name: str, at: Part, steps: Steps, count: int = 1) -> Actor:
        """Loops for ever at a part: a relay, a poller, a scheduled run."""
        actor = Actor(name, at, whole(count, f"count of actor '{name}'", 1), tuple(steps))
        return _add(self.actors, name, actor, "actor")

    def stage(self, name: str, steps: Steps) -> None:
        """Named steps that `choose` goes on at."""
        _add(self.stages, name, tuple(steps), "stage")

    def programs(self) -> Iterator[tuple[str, Steps]]:
        """Every list of steps with the name around it: sources, consumers, actors, stages."""
        for source in self.sources.values():
            yield source.kind, source.steps
        for group in self.consumer_groups.values():
            yield group.name, group.steps
        for actor in self.actors.values():
            yield actor.name, actor.steps
        for name, steps in self.stages.items():
            yield f"stage.{name}", steps

    @property
    def undoable(self) -> tuple[tuple[str, str], ...]:
        """The effects, with their stores, that some step undoes."""
        steps = (step for _, steps in self.programs() for step in everything(steps))
        undoing = ((undoes(step.effect), step.store) for step in steps if isinstance(step, Apply))
        return tuple(dict.fromkeys((effect, store) for effect, store in undoing if effect is not None))

    @property
    def thinking(self) -> tuple[Distribution, str]:
        """How long customers of a population think before each message, with the stream of it."""
        for source in self.sources.values():
            if source.population is not None and source.think is not None:
                return source.think, f"{source.kind}.think"
        return Constant(value=0.0), "think"

    def check(self) -> list[str]:
        """Warnings; raises BadInput where the flow cannot run. See `simlib.flow.check`."""
        from simlib.flow.check import check

        return check(self)

    def diagram(self) -> str:
        """The flow as SVG. See `simlib.flow.diagram`."""
        from simlib.flow.diagram import diagram

        return diagram(self)

    def bounds(self, rates: Mapping[str, float] | None = None) -> Bounds:
        """Utilisation and bottleneck throughput by theory. See `simlib.flow.bounds`."""
        from simlib.flow.bounds import bounds

        return bounds(self, rates)


def children(step: Step) -> list[Steps]:
    """The lists of steps inside a step, in order."""
    return [steps for read in _holding(type(step)) for steps in read(step)]  # type: ignore[arg-type]  # a class can be hashed


@cache
def _holding(kind: type[Any]) -> list[Callable[[Step], Sequence[Steps]]]:
    """How the lists of steps in a step of this kind are read, in order."""
    found: list[Callable[[Step], Sequence[Steps]]] = []
    for each in fields(kind):
        if each.type == "Steps":
            found.append(lambda step, name=each.name: [steps] if (steps := getattr(step, name)) else [])  # type: ignore[misc]
        elif each.type == "tuple[Steps, ...]":
            found.append(attrgetter(each.name))
    return found


def everything(steps: Steps) -> Iterator[Step]:
    """The steps and all steps inside them, in order."""
    left = list(reversed(steps))
    while left:
        step = left.pop()
        yield step
        for inner in reversed(children(step)):
            left += reversed(inner)


def _add(table: dict[str, Any], name: str, value: Any, what: str) -> Any:
    if name in table:
        raise BadInput(f"{what} '{name}' stands in the flow twice: give each its own name")
    table[name] = value
    return value
