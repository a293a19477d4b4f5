"""Queues at a broker between the sides: parameters, semantics and flow that the architectures share which stand on them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import Field

from simlib.architectures.copied import Copied
from simlib.architectures.parameters import Count, Parameters, PositiveDuration, Retries, Time, Truth
from simlib.architectures.sides import Side
from simlib.flow import (
    RESULT,
    Backoff,
    Flow,
    Link,
    Pool,
    Queue,
    Steps,
    ack,
    branch,
    call,
    delay,
    fail,
    nack,
    point,
    publish,
    reply,
    rescue,
    retry,
    spawn,
)
from simlib.flow.model import Requeue
from simlib.quantities import Duration
from simlib.scenario import Scenario


@dataclass(frozen=True)
class Semantics:
    """What a broker does with a queue and its consumers, in the words of `flow.Queue`."""

    shared: bool
    ack_wait: float | None
    detected_after: float | None
    max_deliveries: int | None
    deduplicate: float | None
    requeue: Requeue
    redelivery_delay: float
    buffered: bool
    """Whether the client keeps what it publishes while the broker is down, and sends it when it is back."""


class Queues(Parameters):
    """Parameters that queues have on every broker; the broker's own are in its class below, with its semantics."""

    broker: str = Field("nats", description="whose semantics and times the queue has")
    uplink: Time = Field("0.1 ms", validate_default=True, description="between a side and the broker, each way")
    store: Time = Field(
        "1 ms", validate_default=True, description="the broker's write of a message to disk, one at a time in a queue"
    )
    dispatch: Time = Field(
        "0.1 ms", validate_default=True, description="from when a message is confirmed until the broker hands it out"
    )
    publish_client: Time = Field(
        "0.1 ms", validate_default=True, description="CPU to publish, and as much to take the confirm"
    )
    consume_client: Time = Field(
        "0.1 ms", validate_default=True, description="CPU to take a delivery, and as much to acknowledge it"
    )
    consumers: Count = Field(4, description="consumers of each queue: tasks in the side's one process")
    prefetch: Count = Field(50, description="unacknowledged deliveries")
    confirm: Truth = Field(True, description="whether a publisher waits for the broker's confirm")
    confirm_timeout: PositiveDuration = Field(1.0, description="after which a publisher takes a confirm for lost, s")
    confirm_retries: Retries = Field(3, description="further publications of a message without a confirm")
    reconnect: PositiveDuration = Field(0.05, description="between tries to connect to a broker that is down, s")
    manual_ack: Truth = Field(
        True, description="whether a delivery is acknowledged after its effect, or when handed out"
    )
    park: Truth = Field(True, description="whether what was delivered too often is kept aside, or dropped")
    idempotent_receiver: Truth = Field(True, description="whether a consumer remembers what it has handled")
    write_if_newer: Truth = Field(True, description="whether the copy refuses a version older than its own")

    @property
    def semantics(self) -> Semantics:
        """What the broker does."""
        raise NotImplementedError


class JetStream(Queues):
    """JetStream (docs.nats.io, "JetStream: Consumers"): one limit for all consumers of a queue, a dead consumer noticed by
    `ack_wait` alone, messages known by their id."""

    broker: Literal["nats"] = Field("nats", description="whose semantics and times the queue has")
    prefetch: Count = Field(
        50, description="unacknowledged deliveries of a queue that all its consumers may hold together"
    )
    deduplication: Duration = Field(120.0, description="within which the broker drops a message that it has, s")
    ack_wait: PositiveDuration = Field(
        5.0, description="after which a delivery without acknowledgement is delivered again, s"
    )
    redelivery_delay: Duration = Field(0.05, description="before a refused delivery is delivered again, s")
    max_deliveries: Count = Field(5, description="after which a message is parked")

    @property
    def semantics(self) -> Semantics:
        return Semantics(
            shared=True, ack_wait=self.ack_wait, detected_after=None, max_deliveries=self.max_deliveries,
            deduplicate=self.deduplication, requeue="head", redelivery_delay=self.redelivery_delay, buffered=True,
        )  # fmt: skip


class RabbitMQ(Queues):
    """RabbitMQ (rabbitmq.com/docs, "Consumer Acknowledgements and Publisher Confirms"): a limit for each consumer, a dead one
    noticed by its connection, no memory of messages."""

    broker: Literal["rabbitmq"] = Field("rabbitmq", description="whose semantics and times the queue has")
    queue_type: str = Field("quorum", description="a replicated log that counts deliveries, or a classic durable queue")
    prefetch: Count = Field(12, description="unacknowledged deliveries that each consumer may hold")
    mandatory: Truth = Field(
        True, description="whether what no queue takes is handed back; in the model every queue is there"
    )
    detected_after: Duration = Field(
        0.005, description="after which the broker notices that a consumer's connection is closed, s"
    )


class QuorumQueue(RabbitMQ):
    """A quorum queue on one node (version 3.10, "Quorum Queues": "Poison Message Handling", "Repeated Requeues"): it counts
    deliveries; what comes back stands near the head where there is a limit of them, and at the back where there is none."""

    queue_type: Literal["quorum"] = Field(
        "quorum", description="a replicated log that counts deliveries, or a classic durable queue"
    )
    max_deliveries: Count | None = Field(5, description="after which a message is parked; none: never")

    @property
    def semantics(self) -> Semantics:
        return Semantics(
            shared=False, ack_wait=None, detected_after=self.detected_after, max_deliveries=self.max_deliveries,
            deduplicate=None, requeue="back" if self.max_deliveries is None else "head", redelivery_delay=0.0, buffered=False,
        )  # fmt: skip


class ClassicQueue(RabbitMQ):
    """A classic durable queue: no limit of deliveries; what comes back stands where it was, which is before the rest."""

    queue_type: Literal["classic"] = Field(
        "classic", description="a replicated log that counts deliveries, or a classic durable queue"
    )

    @property
    def semantics(self) -> Semantics:
        return Semantics(
            shared=False, ack_wait=None, detected_after=self.detected_after, max_deliveries=None,
            deduplicate=None, requeue="head", redelivery_delay=0.0, buffered=False,
        )  # fmt: skip


class Feed(Copied):
    """The two sides and the broker between them, with a queue of accounting's changes, which the shop reads."""

    p: Queues

    def __init__(self, flow: Flow, p: Queues, scenario: Scenario, replicas: int = 1) -> None:
        super().__init__(
            flow,
            p,
            scenario,
            idempotent_receiver=p.idempotent_receiver,
            write_if_newer=p.write_if_newer,
            replicas=replicas,
        )
        self.broker = flow.part("broker")
        self.left = flow.link(self.accounting.part, self.broker, p.uplink)
        self.right = flow.link(self.broker, self.shop.part, p.uplink)
        self.updates_log, self.updates = self.queue("updates", self.right)

    def queue(self, name: str, link: Link) -> tuple[Pool, Queue]:
        """A queue that hands out over a link, and its log on disk."""
        semantics = asdict(self.p.semantics)
        self.redelivery_delay = semantics.pop("redelivery_delay")
        del semantics["buffered"]
        semantics |= {"prefetch": self.p.prefetch, "automatic_ack": not self.p.manual_ack, "dead_letter": self.p.park}
        semantics["dispatch"] = self.p.dispatch
        return self.broker.pool(f"{name}_log", capacity=1), self.broker.queue(name, link=link, **semantics)

    def consume_updates(self) -> None:
        """The shop writes its copy."""
        p, shop = self.p, self.shop
        self.flow.consumers(self.updates, at=shop.part, count=p.consumers, steps=[
            *shop.work(p.consume_client, "updates.take"), point("updates.delivered"),
            rescue([
                *self.handle_change(), *shop.commit("updates.shop"), *self.write_change(), point("updates.applied"),
                *shop.work(p.consume_client, "updates.ack"), ack(),
            ], otherwise=[*shop.work(p.consume_client, "updates.nack"), nack(self.redelivery_delay)]),
        ])  # fmt: skip

    def publish(self, label: str, here: Side, reply_wanted: bool = False, unconfirmed: Steps = ()) -> Steps:
        """Accounting publishes a change: see `send`."""
        return send(self.p, label, here, self.left, self.updates_log, self.updates, reply_wanted, unconfirmed)


class Exchange(Feed):
    """With a queue of the shop's orders too, which accounting reads. What publishes is left to the architecture."""

    def __init__(self, flow: Flow, p: Queues, scenario: Scenario) -> None:
        super().__init__(flow, p, scenario)
        self.orders_log, self.orders = self.queue("orders", self.left)

    def consume_orders(self, then: Steps = (), row: Steps = (), insert: Steps = ()) -> None:
        """Accounting takes the units, or rejects the order."""
        p, side = self.p, self.accounting
        self.flow.consumers(self.orders, at=side.part, count=p.consumers, steps=[
            *side.work(p.consume_client, "orders.take"), point("orders.delivered"),
            rescue([
                *side.handle(self.scenario), *side.commit("orders.accounting", insert),
                *self.take(row), point("orders.applied"),
                *then,
                *side.work(p.consume_client, "orders.ack"), ack(),
            ], otherwise=[*side.work(p.consume_client, "orders.nack"), nack(self.redelivery_delay)]),
        ])  # fmt: skip

    def publish(self, label: str, here: Side, reply_wanted: bool = False, unconfirmed: Steps = ()) -> Steps:
        """A side publishes to the queue that the other reads: see `send`."""
        if here is self.accounting:
            return super().publish(label, here, reply_wanted, unconfirmed)
        return send(self.p, label, here, self.right, self.orders_log, self.orders, reply_wanted, unconfirmed)


def send(
    p: Queues,
    label: str,
    here: Side,
    link: Link,
    log: Pool,
    queue: Queue,
    reply_wanted: bool = False,
    unconfirmed: Steps = (),
) -> Steps:
    """Publish to a queue: with a confirm that is waited for, and publication again where it does not come, in the end
    `unconfirmed`; with a reply that is waited for instead; or without either. Without a confirm nobody knows whether the
    message is in the queue."""
    there = [link.send(stream=f"{label}.publish.there"), log.serve(p.store, stream=f"{label}.store"), publish(queue)]
    ask = here.work(p.publish_client, f"{label}.publish.send")
    took = here.work(p.publish_client, f"{label}.publish.took")
    if reply_wanted:
        return [rescue([*ask, call(there, timeout=p.confirm_timeout), *took], otherwise=[])]
    if not p.confirm:
        return [*ask, spawn(there)]
    confirmed = [*there, link.send(stream=f"{label}.publish.back"), reply("ok")]
    asked = call(confirmed, timeout=p.confirm_timeout)
    unheard = fail("timed_out")
    again = Backoff(retries=math.ceil(p.confirm_timeout / p.reconnect), base=p.reconnect, factor=1.0)
    waits = [delay(p.reconnect), *([retry(again, [asked], otherwise=[unheard])] if p.semantics.buffered else [unheard])]
    attempt = [*ask, rescue([asked], otherwise=[branch(RESULT.equals("failed"), waits, otherwise=[unheard])]), *took]
    policy = Backoff(retries=p.confirm_retries)
    return [retry(policy, attempt, otherwise=unconfirmed, stream=f"{label}.publish.backoff")]
