"""Command query responsibility segregation: commands go to accounting, queries to a read model, which a projection writes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from simlib.architectures.copied import Copied
from simlib.architectures.event_sourcing.model import EventStore, Sourced
from simlib.architectures.parameters import Count, PositiveDuration, Time, Truth
from simlib.architectures.queues import Feed, JetStream
from simlib.architectures.rest.model import request
from simlib.flow import RESULT, Flow, Step, Steps, branch, delay, spawn, timeout
from simlib.flow.model import Replica
from simlib.quantities import Probability
from simlib.scenario import Scenario


class Cqrs(JetStream, Sourced):
    """Parameters of CQRS: those of REST's calls for the commands, those of a queue for the projection; or, for both, those of
    event sourcing."""

    event_sourcing: Truth = Field(
        False, description="whether accounting keeps its events, to which the projection subscribes, or publishes them"
    )
    read_your_writes: Literal["none", "token", "sticky"] = Field(
        "none",
        description="what shows customers their own orders: nothing, a version to wait for, or a replica of their own",
    )
    replicas: Count = Field(2, description="replicas of the read model")
    replication: Time = Field(
        "20 ms", validate_default=True, description="from a replica of the read model to the next, which lags the more"
    )
    patience: PositiveDuration = Field(
        0.5, description="after which a query that waits for a version is answered with what there is, s"
    )
    affinity: Probability = Field(1.0, description="share of queries that reach the replica their customer sticks to")


class ReadSide(Copied):
    """The shop with a read model of several replicas: the projection writes the first, and each is a copy of the one before."""

    p: Cqrs

    def __init__(self, flow: Flow, p: Cqrs, scenario: Scenario, **options: Any) -> None:
        super().__init__(flow, p, scenario, replicas=p.replicas, **options)
        self.tokens = self.shop.part.table("tokens", key=("session", "sku"))

    def write_change(self) -> Steps:
        """Into the first replica, and from each into the next."""
        onward: list[Step] = []
        for k in range(1, self.p.replicas):
            onward += [delay(self.p.replication, stream=f"replica.{k}"), *self.shop.commit(f"replica.{k}.write")]
            onward += [self.write_replica(k)]
        return [*super().write_change(), *([spawn(onward)] if onward else [])]

    def write_replica(self, replica: Replica) -> Step:
        """One replica gets what is in the registers, if that is newer."""
        return self.copy.write_if_newer(replica=replica) if self.write_if_newer else self.copy.write(replica)

    def remember(self) -> Steps:
        """What makes an order that was taken visible to its customer."""
        if self.p.read_your_writes == "token":
            return [self.tokens.write()]
        if self.p.read_your_writes == "sticky":
            return [*self.shop.commit("order.shop.remember"), self.write_replica("session")]
        return []

    def look(self) -> Steps:
        """Read a replica: any, any that is new enough, or the customer's own."""
        p, copy, read = self.p, self.copy, self.shop.read("query.shop")
        if p.read_your_writes == "token":
            wait = timeout(p.patience, [copy.wait_until(replica="random")], otherwise=[])
            return [self.tokens.read(), wait, *read, copy.read("random")]
        if p.read_your_writes == "sticky":
            own, any_ = [copy.read("session")], [copy.read("random")]
            return [*read, branch(p.affinity, own, otherwise=any_, stream="query.affinity")]
        return [*read, copy.read("random")]


class Published(ReadSide, Feed):
    """What the projection reads is published to a queue."""

    p: Cqrs

    def take_and_publish(self) -> Steps:
        """Accounting's work for an order: the units are taken in a transaction, and then an event is published."""
        accounting, event = self.accounting, spawn(self.publish("announce", self.accounting))
        take = self.tasks[0].done([event, *self.onward()])
        taken = [self.handled_here.once(take)] if self.p.idempotency else take
        return [*accounting.handle(self.scenario), *accounting.commit("order.accounting"), *taken]


def build(p: Cqrs, scenario: Scenario) -> Flow:
    """The flow of CQRS."""
    flow = Flow("cqrs")
    between: ReadSide
    if p.event_sourcing:
        between = ReadSide(flow, p, scenario, idempotent_receiver=False, write_if_newer=p.write_if_newer)
        store = EventStore(p, between)
        store.accept_updates()
        command = store.take()
    else:
        between = published = Published(flow, p, scenario)
        published.accept_updates(then=published.publish("update", published.accounting))
        command = published.take_and_publish()
    accounting, shop = between.accounting, between.shop
    network = flow.link(accounting.part, shop.part, p.network)
    connections = shop.part.pool("connections", capacity=p.connections)
    between.accept_orders([
        *request(p, "order", shop, connections, network, accounting, command),
        branch(RESULT.equals("ok"), between.remember()), *between.answer_order(),
    ])  # fmt: skip
    between.accept_queries(between.look())
    if p.event_sourcing:
        store.project(network, p.dispatch, p.prefetch)
    else:
        published.consume_updates()
    return flow
