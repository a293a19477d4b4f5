"""A message queue between the sides: durable, confirmed on both ends, read by competing consumers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from simlib.architectures.parameters import Count, Parameters, PositiveDuration, Truth
from simlib.architectures.queues import Channel, ClassicQueue, Exchange, JetStream, Queues, QuorumQueue
from simlib.architectures.sides import Side, group_commit
from simlib.brokers import own
from simlib.errors import unknown
from simlib.flow import Flow, Pool, Step, Steps, delay, fork, reply, spawn
from simlib.quantities import Duration
from simlib.scenario import Scenario


class MessageQueue(Queues):
    """Parameters of the message queue on every broker."""

    answered_on: Literal["confirm", "reply"] = Field("confirm", description="what answers a customer's order")
    sharing: Literal["competing", "single", "by_sku"] = Field(
        "competing",
        description="how consumers share the changes: they compete, one alone works, or each has the goods that hash to it",
    )
    orders_first: Truth = Field(
        False, description="whether the changes that orders made overtake stock updates in the queue"
    )
    at_limit: Literal["unlimited", "drop", "refuse"] = Field(
        "unlimited",
        description="what a queue does when it is full: it never is, drops the first, or refuses the new one",
    )
    max_length: Count = Field(1000, description="messages that may wait in a queue that has a limit")
    expire: Truth = Field(False, description="whether a queue drops what waits too long")
    time_to_live: PositiveDuration = Field(30.0, description="which is too long for a message that waits, s")
    group_commit: Truth = Field(False, description="whether one write to disk serves all messages that wait for it")
    unbound: Literal["none", "updates", "orders"] = Field(
        "none", description="queue that lacks its binding, so that nothing that is published reaches it"
    )
    nodes: Count = Field(1, description="nodes that hold a queue; most of them write a message before its confirm")
    between_nodes: Duration = Field(0.0002, description="between two nodes of the broker, each way, s")

    @classmethod
    def variants(cls) -> tuple[type[Parameters], ...]:
        return OnNats, OnQuorumQueue, OnClassicQueue

    @classmethod
    def variant(cls, values: Mapping[str, Any]) -> type[Parameters]:
        broker, queue_type = str(values.get("broker", "nats")), values.get("queue_type", "quorum")
        kind = own.kind(broker)
        if kind == "nats":
            return OnNats
        if kind != "rabbitmq":
            raise unknown("broker", broker, ("nats", "rabbitmq", *own.names()))
        queues: dict[str, type[Parameters]] = {"quorum": OnQuorumQueue, "classic": OnClassicQueue}
        if queue_type not in queues:
            raise unknown("queue_type", str(queue_type), queues)
        return queues[queue_type]


class OnNats(JetStream, MessageQueue):
    """On NATS JetStream."""


class OnQuorumQueue(QuorumQueue, MessageQueue):
    """On RabbitMQ, a quorum queue."""


class OnClassicQueue(ClassicQueue, MessageQueue):
    """On RabbitMQ, a classic queue."""


class Between(Exchange):
    """Queues with the limits, the order and the replicas that are chosen."""

    p: MessageQueue

    def __init__(self, flow: Flow, p: MessageQueue, scenario: Scenario) -> None:
        self.refuses = p.at_limit == "refuse"
        self.followers: dict[Pool, list[Pool]] = {}
        self.flushed: dict[Pool, Step] = {}
        super().__init__(flow, p, scenario)
        self.unbound = {"none": [], "updates": self.updates, "orders": [self.orders]}[p.unbound]

    def channels(self, name: str, reader: Side) -> list[Channel]:
        if self.p.sharing != "by_sku":
            return super().channels(name, reader)
        return [self.channel(f"{name}.{k}", reader) for k in range(self.p.consumers)]

    def channel(self, name: str, reader: Side, **options: Any) -> Channel:
        p = self.p
        if p.at_limit != "unlimited":
            options |= {"length": p.max_length, "overflow": p.at_limit}
        if p.expire:
            options["ttl"] = p.time_to_live
        queue, log = super().channel(name, reader, **options)
        self.followers[log] = [self.broker.pool(f"{name}_log.{k}", capacity=1) for k in range(1, p.nodes)]
        for k, each in enumerate([log, *self.followers[log]] if p.group_commit else []):
            self.flushed[each] = group_commit(self.broker, each, p.store, f"{name}.node{k}")
        return Channel(queue, log)

    @property
    def active(self) -> int:
        return self.p.consumers if self.p.sharing == "competing" else 1

    def write(self, stream: str, log: Pool) -> Steps:
        """To the disk of a node: alone, or with all that wait."""
        return [self.flushed[log]] if self.p.group_commit else [log.serve(self.p.store, stream=stream)]

    def store(self, label: str, log: Pool) -> Steps:
        """On the leader, and on so many followers that most nodes have it (Raft: Ongaro and Ousterhout, USENIX ATC 2014)."""
        p, leader = self.p, self.write(f"{label}.store", log)
        if p.nodes == 1:
            return leader
        followers = [
            [
                delay(p.between_nodes, stream=f"{label}.node{k}.there"),
                *self.write(f"{label}.node{k}.store", follower),
                delay(p.between_nodes, stream=f"{label}.node{k}.back"),
            ]
            for k, follower in enumerate(self.followers[log], 1)
        ]
        return [fork(leader, *followers, join=p.nodes // 2 + 1)]


def build(p: MessageQueue, scenario: Scenario) -> Flow:
    """The flow of the message queue."""
    flow = Flow("message_queue")
    between = Between(flow, p, scenario)
    accounting, shop = between.accounting, between.shop
    between.accept_updates(then=between.publish("update", accounting))
    if p.answered_on == "reply":
        asked = between.publish("order", shop, reply_within=p.confirm_timeout)
        between.accept_orders([*asked, *between.answer_order()])
    else:
        between.accept_orders(between.promise(then=between.publish("order", shop)))
    between.accept_queries()
    between.consume_updates()
    back = [between.left.send(stream="orders.reply.there"), between.right.send(stream="orders.reply.back"), reply()]
    answered = [spawn(back)] if p.answered_on == "reply" else []
    between.consume_orders(then=[*answered, *between.announce(p.orders_first)])
    return flow
