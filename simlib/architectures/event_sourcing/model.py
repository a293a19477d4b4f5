"""Event sourcing: accounting keeps the events of each SKU in place of its stock, and the shop's copy is a projection of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field as Parameter

from simlib.architectures.copied import Copied
from simlib.architectures.parameters import Count, Retries, Time, Truth
from simlib.architectures.rest.model import Caller, request
from simlib.architectures.sides import arrive, group_commit, leave
from simlib.domain import ISSUED, STOCK, STOCK_UPDATE, TAKEN
from simlib.flow import (
    LEVEL,
    Affine,
    Backoff,
    Field,
    Flow,
    Link,
    Steps,
    ack,
    apply,
    branch,
    every,
    fail,
    nack,
    point,
    publish,
    reject,
    retry,
    seek,
    spawn,
)
from simlib.quantities import Duration, Whole
from simlib.scenario import Scenario


class Sourced(Caller):
    """Parameters of a side that keeps events, and of the subscription to them; orders are sent as those of direct REST are."""

    recording: Time = Parameter(
        "0.1 ms", validate_default=True, description="CPU to make a stream of its events, and as much to record one"
    )
    append: Time = Parameter(
        "0.1 ms", validate_default=True, description="the database server's work to write an event"
    )
    per_event: Duration = Parameter(
        0.00002, description="the database server's work for each event that is read, and the side's to apply it, s"
    )
    snapshot_every: Annotated[Whole, Parameter(ge=0)] = Parameter(
        100, description="events of a stream between two snapshots; 0: no snapshots"
    )
    snapshot: Time = Parameter(
        "0.3 ms", validate_default=True, description="the database server's work to write a snapshot"
    )
    concurrency: Literal["optimistic", "lock"] = Parameter(
        "optimistic", description="whether an append expects the version that was read, or the stream is locked before"
    )
    conflict_retries: Retries = Parameter(10, description="further tries of an append that another was faster than")
    conflict_backoff: Duration = Parameter(0.002, description="before the first of them, doubled each time, s")
    group_commit: Truth = Parameter(False, description="whether one flush serves all appends that wait for it")
    subscription_client: Time = Parameter(
        "0.1 ms", validate_default=True, description="CPU to take an event from the subscription"
    )
    session_timeout: Duration = Parameter(
        0.005, description="after which accounting notices that the subscription is closed, s"
    )
    event_retries: Retries = Parameter(5, description="further tries of an event that the projection failed on")
    event_backoff: Duration = Parameter(0.05, description="before each of them, s")
    set_aside: Truth = Parameter(True, description="whether an event is then set aside, or holds up those behind it")
    rebuild_every: Duration = Parameter(
        0.0, description="between two rebuilds of the projection from the first event on, none where it is 0, s"
    )


class EventSourcing(Sourced):
    """Parameters of event sourcing."""

    dispatch: Time = Parameter(
        "0.25 ms", validate_default=True, description="from when an event is stored until the subscription hands it out"
    )
    prefetch: Count = Parameter(50, description="events that are under way to the projection")
    write_if_newer: Truth = Parameter(True, description="whether the copy refuses a version older than its own")


def build(p: EventSourcing, scenario: Scenario) -> Flow:
    """The flow of event sourcing."""
    flow = Flow("event_sourcing")
    between = Copied(flow, p, scenario, idempotent_receiver=False, write_if_newer=p.write_if_newer)
    accounting, shop = between.accounting, between.shop
    network = flow.link(accounting.part, shop.part, p.network)
    to_accounting = shop.part.pool("connections", capacity=p.connections)
    store = EventStore(p, between)
    store.accept_updates()
    asked = request(p, "order", shop, to_accounting, network, accounting, store.take())
    between.accept_orders([*asked, *between.answer_order()])
    between.accept_queries()
    store.project(network, p.dispatch, p.prefetch)
    return flow


class EventStore:
    """Accounting's events: a stream for each SKU, and how many there are since its snapshot."""

    def __init__(self, p: Sourced, between: Copied) -> None:
        self.p, self.between, self.side, self.stock = p, between, between.accounting, between.stock
        part = self.side.part
        self.events = part.log("events", streams=self.stock)
        self.since, self.none = part.table("events_since_snapshot"), part.table("no_events")
        if p.concurrency == "lock":
            self.locks = part.pool("streams", capacity=1, members=between.scenario.goods.skus, select="key")
        if p.group_commit:
            self.flushed = group_commit(part, self.side.machine.log, p.commit, "events")

    def append(self, label: str, decide: Steps, otherwise: Steps) -> Steps:
        """Read a stream, write what it leads to, decide; where another was faster all of it again, and in the end the others."""
        record = self.side.work(self.p.recording, f"{label}.record")
        written = self.write(f"{label}.append", self.p.append)
        attempt = [*self.load(label), *record, *written, *decide, point("event.appended")]
        if self.p.concurrency == "lock":
            attempt = [self.locks.seize(), *attempt, self.locks.release()]
        policy = Backoff(retries=self.p.conflict_retries, base=self.p.conflict_backoff, jitter=True)
        return [retry(policy, attempt, otherwise=otherwise, stream=f"{label}.conflict")]

    def load(self, label: str) -> Steps:
        """The stream, as it is when the database begins to read it; its events since the snapshot are applied one by one."""
        p, side = self.p, self.side
        read = side.machine.cores.serve(Affine(p.read, p.per_event, of=self.since.version), stream=f"{label}.load")
        replay = side.work(Affine(p.recording, p.per_event, of=self.since.version), f"{label}.replay")
        return [*side.transact(f"{label}.load", [self.stock.read(), read]), *replay]

    def write(self, label: str, insert: Time) -> Steps:
        """A transaction that inserts a row and waits until it is flushed: alone, or with all who wait."""
        p, machine = self.p, self.side.machine
        alone = machine.log.serve(p.commit, stream=f"{label}.flush")
        flush = self.flushed if p.group_commit else alone
        return self.side.transact(label, [machine.cores.serve(insert, stream=label), flush])

    def event(self, label: str, sign: Literal[-1, 1], effect: str) -> Steps:
        """One more event of a stream, whose level and version are then in the registers; beside it a snapshot, when there are many
        since the last."""
        optimistic = self.p.concurrency == "optimistic"
        steps: Steps = [
            publish(self.events, sign, expect=optimistic, otherwise=[fail("conflict")] if optimistic else []),
            apply(effect, STOCK, sign=sign), self.since.add(), self.stock.read(),
        ]  # fmt: skip
        if not self.p.snapshot_every:
            return steps
        written = [*self.write(f"{label}.snapshot", self.p.snapshot), self.none.read(), self.since.write()]
        return [*steps, branch(self.since.version.at_least(self.p.snapshot_every), [spawn(written)])]

    def accept_updates(self) -> None:
        """Accounting records a change, and answers."""
        p, side = self.p, self.side
        side.part.flow.source(STOCK_UPDATE, at=side.part, steps=[
            *arrive(p, "update"), *side.receive("update.accounting"),
            *self.append("update", self.event("update", +1, ISSUED), otherwise=[]),
            *side.answer("update.accounting"), *leave(p, "update"),
        ])  # fmt: skip

    def take(self) -> Steps:
        """Accounting's work for an order: by what the stream leads to, the units are taken or the order is rejected."""
        between = self.between
        taken = [*self.event("order", -1, TAKEN), *between.onward()]
        one_unit = between.tasks[0].unless_refused([branch(LEVEL.at_least(Field("quantity")), taken, [reject()])])
        decide = [between.handled_here.once(one_unit)] if self.p.idempotency else one_unit
        return [*self.side.handle(between.scenario), *self.append("order", decide, otherwise=[fail()])]

    def project(self, network: Link, dispatch: Time, prefetch: int) -> None:
        """The shop subscribes, and writes its copy one event after the other; what it fails on it tries again before it goes on.
        The projection is a thread: between events others have a turn."""
        p, between, shop, flow = self.p, self.between, self.between.shop, self.between.flow
        [subscription] = self.events.group(
            "subscription", link=network, dispatch=dispatch, prefetch=prefetch, detected_after=p.session_timeout
        )
        attempt = [*between.handle_change(), *shop.commit("events.shop"), *between.write_change()]
        settle: Steps = [nack()]
        if p.set_aside:
            aside = shop.part.queue("set_aside", max_deliveries=1)
            flow.consumers(aside, at=shop.part, count=1, steps=[nack()])
            settle = [publish(aside), ack()]
        policy = Backoff(retries=p.event_retries if p.set_aside else 100, base=p.event_backoff, factor=1.0)
        flow.consumers(subscription, at=shop.part, count=1, steps=[
            *shop.work(p.subscription_client, "events.take"), point("event.delivered"),
            retry(policy, [*attempt, point("event.projected"), ack()], otherwise=settle),
            *shop.turns(1),
        ])  # fmt: skip
        if p.rebuild_every:
            flow.actor("rebuild", self.side.part, [every(p.rebuild_every), seek(subscription)])
