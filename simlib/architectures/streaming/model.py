"""Streaming: both sides write to logs in partitions, in batches, and read them as consumer groups, from their positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from simlib.architectures.copied import Copied
from simlib.architectures.parameters import (
    THREAD_DONE,
    Count,
    Parameters,
    PositiveDuration,
    Retries,
    Time,
    Truth,
)
from simlib.architectures.sides import Machine, Side, processes, work
from simlib.brokers import own
from simlib.domain import COUNTED, WINDOWS
from simlib.errors import BadInput, unknown
from simlib.flow import (
    BATCH,
    NTH,
    RESULT,
    Affine,
    Backoff,
    Coordinator,
    Flow,
    Log,
    Part,
    Pool,
    Queue,
    Step,
    Steps,
    ack,
    apply,
    branch,
    call,
    delay,
    fail,
    for_each,
    nack,
    point,
    publish,
    receive,
    reply,
    rescue,
    retry,
    seek,
    spawn,
    timeout,
    wait_until,
)
from simlib.quantities import Duration, Whole
from simlib.scenario import Scenario

NEVER = 10**9
"""More records than any partition will hold."""


class Streaming(Parameters):
    """Parameters of streaming; they are named after Kafka's where they are its own."""

    broker: str = Field("kafka", description="whose times the log has")
    uplink: Time = Field("0.1 ms", validate_default=True, description="between a side and the broker, each way")
    publish_client: Time = Field(
        "0.1 ms", validate_default=True, description="CPU to publish, and as much to take the confirm"
    )
    consume_client: Time = Field(
        "0.1 ms", validate_default=True, description="CPU to take a record, and as much to commit a position"
    )
    fetch: Time = Field(
        "0.1 ms", validate_default=True, description="until a member that waits has a record that was written"
    )
    partitions: Count = Field(4, description="partitions of each topic, by SKU")
    batch_records: Count = Field(16, description="records of a batch at most")
    linger: Duration = Field(0.001, description="for which a batch waits to be filled, s")
    in_flight: Count = Field(5, description="batches of a topic that are written and not yet known to be")
    write_batch: Time = Field("0.2 ms", validate_default=True, description="the broker's work to append a batch")
    per_record: Duration = Field(0.00001, description="and more of it for each record, s")
    broker_work: Time = Field(
        "0.5 ms",
        validate_default=True,
        description="processor time that a batch takes the broker, beside what it waits for",
    )
    acks: Literal["all", "leader", "none"] = Field(
        "all", description="who has a batch before it is confirmed; none: no confirm is waited for"
    )
    replicate: Time = Field("0.5 ms", validate_default=True, description="until enough followers have a batch")
    followers: Retries = Field(
        0, description="brokers that fetch what the leader has appended; 0: acks of all wait for the time alone"
    )
    min_insync_replicas: Count = Field(
        1, description="the leader and followers in sync, below which acks of all are refused"
    )
    replica_lag: PositiveDuration = Field(
        30.0, description="after which the leader takes a follower that has not fetched a batch for out of sync, s"
    )
    flush: Time = Field("1 ms", validate_default=True, description="the broker's flush of a batch to disk")
    flush_every: Duration = Field(
        0.0, description="between two flushes of the page cache; 0: each batch is flushed before its confirm, s"
    )
    confirm_timeout: PositiveDuration = Field(1.0, description="after which a publisher takes a confirm for lost, s")
    confirm_retries: Retries = Field(3, description="further publications of a message without a confirm")
    retry_backoff: Duration = Field(0.1, description="before each of them, s")
    idempotent_producer: Truth = Field(True, description="whether the broker drops what it has been sent before")
    members: Count = Field(2, description="members of each consumer group in one process, which share the partitions")
    processes: Annotated[Whole, Field(ge=1, le=16)] = Field(
        1, description="processes of each side; several are a member of its group each, and die alone"
    )
    partition_assignment_strategy: Literal["roundrobin", "cooperative-sticky"] = Field(
        "roundrobin", description="whether a rebalance stops all partitions, or only those that get another reader"
    )
    rebalance: Duration = Field(0.005, description="until members that all joined know their partitions, s")
    max_poll_records: Count = Field(50, description="records of a partition that a member takes at once")
    max_poll_interval: PositiveDuration = Field(
        300.0, description="after which a member that took records and did not commit is one no longer, s"
    )
    guarantee: Literal["at_least_once", "at_most_once", "exactly_once"] = Field(
        "at_least_once", description="whether the position is committed after the effects, before, or with each of them"
    )
    auto_commit_interval: Duration = Field(
        0.0, description="at least once: between two commits by the clock; 0: a commit after each poll, s"
    )
    commit_position: Time = Field(
        "1 ms", validate_default=True, description="until the broker has written a group's position, there and back"
    )
    session_timeout: PositiveDuration = Field(2.0, description="after which a group notices that a member is dead, s")
    handler_retries: Retries = Field(5, description="further tries of a record that a handler failed on")
    handler_backoff: Duration = Field(0.05, description="before each of them, s")
    idempotent_receiver: Truth = Field(True, description="whether a consumer remembers what it has handled")
    state: Literal["database", "memory"] = Field(
        "database",
        description="where the shop keeps its copy; what is in memory is read again from the log after a crash",
    )
    write_if_newer: Truth = Field(True, description="whether the copy refuses a version older than its own")
    window: Duration = Field(0.0, description="in which the orders of each SKU are counted; 0: nobody counts, s")
    commit_interval: PositiveDuration = Field(
        0.1, description="between two commits of what was counted, its changelog and its position, s"
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        """A broker of the user's own has the semantics of Kafka."""
        if own.kind(self.broker) != "kafka":
            raise unknown("broker", self.broker, ["kafka", *own.names("kafka")])
        return self

    @model_validator(mode="after")
    def _each_member_a_process(self) -> Self:
        """Members that are processes share what is kept."""
        if self.processes > 1 and self.state == "memory":
            raise BadInput(f"state in memory is that of one process, got {self.processes}: set processes to 1")
        return self

    @classmethod
    def stands_on(cls) -> str | None:
        """None: there is no other kind, so that its times are simply the architecture's."""
        return None

    @property
    def profile(self) -> str | None:
        """The broker of the user's own whose times these are."""
        return self.broker if self.broker in own.names() else None


def build(p: Streaming, scenario: Scenario) -> Flow:
    """The flow of streaming."""
    flow = Flow("streaming")
    remembers = p.idempotent_receiver or p.guarantee == "exactly_once"
    kept = p.state == "database"
    between = Copied(flow, p, scenario, idempotent_receiver=remembers, write_if_newer=p.write_if_newer, durable=kept)
    accounting, shop, broker = between.accounting, between.shop, flow.part("broker")
    readers, takers = (processes(flow, side, p.processes) for side in (shop, accounting))
    updates, orders = Topic(p, "updates", takers, broker), Topic(p, "orders", [shop], broker)
    between.accept_updates(then=updates.publish("update", accounting))
    between.accept_orders(between.promise(then=orders.publish("order", shop)))
    between.accept_queries([] if kept else [between.copy.read()])

    def write(shop: Side) -> Steps:
        committed = shop.commit("updates.shop") if kept else []
        return [*between.handle_change(shop), *committed, *between.write_change()]

    def take(accounting: Side) -> Steps:
        announce = branch(RESULT.equals("ok"), updates.publish("announce", accounting, unconfirmed=[fail()]))
        taken = [*accounting.commit("orders.accounting"), *between.take(accounting=accounting)]
        return [*accounting.handle(scenario), *taken, announce]

    updates.consume(readers, write, restored=not kept)
    orders.consume(takers, take)
    if p.window:
        Windows(p, orders, accounting.machine)
    return flow


class Topic:
    """A topic at the broker, to which the processes of one side publish, and which a consumer group of the other reads."""

    def __init__(self, p: Streaming, name: str, publishers: Sequence[Side], broker: Part) -> None:
        self.p, self.name = p, name
        self.links = {side.part: broker.flow.link(side.part, broker, p.uplink) for side in publishers}
        self.link = self.links[publishers[0].part]
        self.cores = publishers[0].machine.cores
        self.log = broker.log(name, partitions=p.partitions, flush_every=p.flush_every or None)
        self.batch = broker.queue(f"{name}.batch", detected_after=0.0)
        self.followers = Followers(p, name, broker) if p.followers and p.acks == "all" else None
        self.next, self.io = (
            broker.pool(f"{name}.next_batch", capacity=1, lock=True),
            broker.pool(f"{name}.io", capacity=1),
        )
        broker.flow.actor(f"{name}.batches", broker, self.write_batches(), count=p.in_flight)

    @property
    def by_the_clock(self) -> bool:
        """Whether a group's position is committed so often, whatever its members do meanwhile."""
        return self.p.guarantee == "at_least_once" and self.p.auto_commit_interval > 0

    def publish(self, label: str, here: Side, unconfirmed: Steps = ()) -> Steps:
        """Publish, and wait for the confirm, where there is one; again where it does not come."""
        p, there = self.p, [self.links[here.part].send(stream=f"{label}.publish.there"), publish(self.batch)]
        ask = here.work(p.publish_client, f"{label}.publish.send")
        if p.acks == "none":
            return [*ask, spawn(there)]
        attempt = [
            *ask,
            call(there, timeout=p.confirm_timeout),
            *here.turns(THREAD_DONE),
            *here.work(p.publish_client, f"{label}.publish.took"),
        ]
        policy = Backoff(retries=p.confirm_retries, base=p.retry_backoff, factor=1.0)
        return [retry(policy, attempt, otherwise=unconfirmed)]

    def write_batches(self) -> Steps:
        """Batches are formed where they arrive: over a link of constant delay that is the same as where they are sent. Where there
        is room for one, it waits to be filled, one at a time; it is appended after the one before, is confirmed, and makes room
        when that is known."""
        p, name, batch = self.p, self.name, self.batch
        fill = [timeout(p.linger, [wait_until(batch, at_least=p.batch_records)], [])] if p.linger else []
        followers = self.followers
        write = delay(Affine(p.write_batch, p.per_record, of=BATCH), stream=f"{name}.append")
        flush = [delay(p.flush, stream=f"{name}.flush")] if not p.flush_every else []
        stored = self.once("sequence", [publish(self.log)])
        confirm = spawn([self.link.send(stream=f"{name}.confirm"), reply("ok")])
        beside = branch(NTH.equals(1), [spawn([self.cores.serve(p.broker_work, stream=f"{name}.work")])])
        replicated = [delay(p.replicate, stream=f"{name}.replication")] if p.acks == "all" else []
        known = [delay(p.uplink, stream=f"{name}.known"), delay(p.uplink, stream=f"{name}.next")]
        if followers is None:
            written = [
                self.io.seize(), write, *flush, for_each([beside, *stored]), self.io.release(),
                *replicated, for_each([confirm]),
            ]  # fmt: skip
        else:
            refuse = spawn([self.link.send(stream=f"{name}.refusal"), reply("failed")])
            appended = self.once("appended", [publish(followers.log)])
            work = [
                for_each(followers.enough([], otherwise=[fail()])),
                self.io.seize(), write, *flush, for_each([beside, *appended]), self.io.release(),
                followers.watermark.seize(), for_each(followers.fetched()), for_each(stored), followers.watermark.release(),
                for_each(followers.enough([confirm], otherwise=[refuse])),
            ]  # fmt: skip
            written = [rescue(work, otherwise=[for_each([refuse])])]
        work = [*written, ack(), *known]
        return [
            self.next.seize(),
            wait_until(batch),
            *fill,
            receive(batch, p.batch_records),
            self.next.release(),
            *work,
        ]

    def once(self, what: str, steps: Steps) -> Steps:
        """The steps once for each message, where the producer is idempotent."""
        if not self.p.idempotent_producer:
            return steps
        return [self.log.at.table(f"{self.name}.{what}", key="message").once(steps)]

    def consume(self, sides: Sequence[Side], handled: Callable[[Side], Steps], restored: bool = False) -> None:
        """A group reads the partitions. Members in one process have each its own for ever; those that are processes get them from
        the coordinator. Where state is to be restored, all begin at the first record whenever the side does."""
        p, side, flow = self.p, sides[0], self.log.at.flow
        dead = side.part.queue(f"{self.name}.dead", max_deliveries=1)
        flow.consumers(dead, at=side.part, count=1, steps=[nack()])
        group = self.log.group(
            self.name, ack_wait=p.max_poll_interval, commit_every=p.auto_commit_interval if self.by_the_clock else None,
            **({"detected_after": p.session_timeout} if len(sides) == 1 else {"coordinator": self.coordinator(sides)}),
        )  # fmt: skip
        if restored:
            again = [seek(partition) for partition in group]
            flow.actor(f"{self.name}.restore", side.part, [*again, wait_until(group[0], at_least=NEVER)])
        alone = len(sides) == 1
        for side in sides:
            count = min(p.members, p.partitions) if alone else 1
            members = [side.part.pool(f"{self.name}.member.{i}", capacity=1) for i in range(count)]
            for i, partition in enumerate(group):
                taken = receive(partition, p.max_poll_records)
                turn = self.poll(side, members[i % count], taken, handled(side), dead_letter=[publish(dead)])
                name = f"{partition.name}.poll" if alone else f"{partition.name}.poll.{side.part.name}"
                flow.actor(name, side.part, [wait_until(partition), *turn])

    def coordinator(self, sides: Sequence[Side]) -> Coordinator:
        """Who shares out the partitions among processes, by Kafka's eager protocol or its cooperative one."""
        p = self.p
        return self.log.at.coordinator(
            f"{self.name}.coordinator", [side.part for side in sides], session_timeout=p.session_timeout,
            rebalance=p.rebalance, cooperative=p.partition_assignment_strategy == "cooperative-sticky",
        )  # fmt: skip

    def poll(self, side: Side, member: Pool, taken: Step, handled: Steps, dead_letter: Steps) -> Steps:
        """A member takes records of a partition in hand, where that is still its own, handles one after the other, and commits its
        position."""
        p, name = self.p, self.name
        commit = [
            *side.work(p.consume_client, f"{name}.commit"),
            delay(p.commit_position, stream=f"{name}.position"),
            *side.turns(THREAD_DONE),
            ack(),
        ]
        before, after, each = [], [], []
        if p.guarantee == "at_most_once":
            before = [*commit, point(f"{name}.committed")]
        elif p.guarantee == "exactly_once" or self.by_the_clock:
            each = [ack()]
        else:
            after = commit
        policy = Backoff(retries=p.handler_retries, base=p.handler_backoff, factor=1.0)
        work = for_each([
            *side.work(p.consume_client, f"{name}.take"),
            retry(policy, handled, otherwise=dead_letter), *each, point(f"{name}.applied"),
        ])  # fmt: skip
        fetched = delay(p.fetch, stream=f"{name}.fetch")
        return [
            member.seize(),
            taken,
            branch(BATCH.at_least(1), [fetched, *side.turns(THREAD_DONE), *before, work, *after]),
            member.release(),
        ]


class Windows:
    """A stream processor that counts the orders of each SKU in tumbling windows: it reads their topic as a group of its own, keeps
    the counts in its memory, and appends to a changelog how they change, from which they are restored when it begins."""

    def __init__(self, p: Streaming, orders: Topic, machine: Machine) -> None:
        self.p, self.machine, self.exactly_once = p, machine, p.guarantee == "exactly_once"
        broker = orders.log.at
        flow = broker.flow
        self.part = flow.part("windows", replica_of=broker)
        self.counts = self.part.table("windows.counts", window=p.window, durable=False)
        self.changelog = broker.log("windows.changelog", partitions=p.partitions, flush_every=p.flush_every or None)
        self.thread = self.part.pool("thread", capacity=1, lock=True)
        commit_every = None if self.exactly_once else p.commit_interval
        orders_read = orders.log.group("windows", detected_after=p.session_timeout, commit_every=commit_every)
        changes_read = self.changelog.group("windows.changelog")
        restored = [step for changes in changes_read for step in self.restore(changes)]
        restore = [self.thread.seize(), *restored, self.thread.release(), wait_until(changes_read[0], at_least=NEVER)]
        flow.actor("windows.restore", self.part, restore)
        for partition, changes in zip(orders_read, changes_read, strict=True):
            flow.actor(f"{partition.name}.count", self.part, self.count(partition, changes))

    def restore(self, changes: Queue) -> Steps:
        """The counts as a partition of the changelog has them, which is read from its first record to its last."""
        take = work(self.part, self.machine, self.p.consume_client, f"{changes.name}.restore")
        fetched = [seek(changes), receive(changes), delay(self.p.fetch, stream=f"{changes.name}.fetch")]
        return [*fetched, for_each([*take, self.counts.write()]), ack()]

    def count(self, partition: Queue, changes: Queue) -> Steps:
        """What has come in is counted, and what that changes written to the changelog and published. The position is committed by
        the clock; or in one transaction with it, whose end the broker writes down as well, and before which nobody reads it."""
        p = self.p
        taken = [
            *work(self.part, self.machine, p.consume_client, "windows.take"),
            *work(self.part, self.machine, p.publish_client, "windows.result"),
        ]
        written = [
            delay(p.uplink, stream="windows.there"),
            delay(Affine(p.write_batch, p.per_record, of=BATCH), stream="windows.append"),
            *([] if p.flush_every else [delay(p.flush, stream="windows.flush")]),
            delay(p.replicate, stream="windows.replication"),
            delay(p.uplink, stream="windows.back"),
        ]
        begun: Steps = []
        if self.exactly_once:
            begun = [delay(p.commit_interval)]
            written += [delay(p.commit_position, stream=f"windows.{what}") for what in ("position", "transaction")]
        counted = for_each([self.counts.add(), publish(self.changelog), apply(COUNTED, WINDOWS)])
        return [
            wait_until(partition),
            *begun,
            self.thread.seize(),
            receive(partition),
            delay(p.fetch, stream="windows.fetch"),
            for_each(taken),
            *written,
            counted,
            ack(),
            receive(changes),
            ack(),
            self.thread.release(),
        ]


class Followers:
    """The followers of a topic's leader. Each fetches what was appended since it did last, as long as it lives; those that are in
    sync hold up the high watermark, before which no record is read or confirmed."""

    def __init__(self, p: Streaming, name: str, leader: Part) -> None:
        self.p = p
        self.log = leader.log(f"{name}.appended")
        self.watermark = leader.pool(f"{name}.watermark", capacity=1, lock=True)
        self.all = [Follower(p, f"{name}.follower.{i}", self.log, at) for i, at in enumerate(brokers(p, leader))]

    def fetched(self) -> Steps:
        """Wait until those that are in sync have a record, or are so no longer."""
        return [
            branch(one.in_sync, [timeout(self.p.replica_lag, [one.has.wait_until(1)], otherwise=[one.falls_out])])
            for one in self.all
        ]

    def enough(self, then: Steps, otherwise: Steps) -> Steps:
        """What is done where so many are in sync as must be, and where they are not."""
        return enough(self.all, self.p.min_insync_replicas - 1, then, otherwise)


class Follower:
    """A follower of a topic at a broker of its own: what it `has`, and how often it fell out of sync and was back."""

    def __init__(self, p: Streaming, name: str, log: Log, at: Part) -> None:
        leader = log.at
        self.has = leader.table(f"{name}.has", key="message")
        out, back = leader.table(f"{name}.out", key=None), leader.table(f"{name}.back", key=None)
        self.in_sync, self.falls_out = out.version.equals(back.version), out.add()
        [appended] = log.group(name)
        fetch = [receive(appended), delay(p.replicate, stream=f"{name}.fetch")]
        kept = for_each([self.has.add(), branch(out.version.differs(back.version), [back.add()])])
        at.flow.actor(f"{name}.fetches", at, [wait_until(appended), *fetch, kept, ack()])


def brokers(p: Streaming, leader: Part) -> list[Part]:
    """The parts of the followers, which both topics share."""
    flow, names = leader.flow, [f"follower.{i}" for i in range(p.followers)]
    return [flow.parts.get(name) or flow.part(name, replica_of=leader) for name in names]


def enough(followers: list[Follower], needed: int, then: Steps, otherwise: Steps) -> Steps:
    """The steps where so many of the followers are in sync; the others where they are not."""
    if needed <= 0:
        return then
    if needed > len(followers):
        return otherwise
    first, *rest = followers
    return [branch(first.in_sync, enough(rest, needed - 1, then, otherwise), enough(rest, needed, then, otherwise))]
