"""A message queue between the sides: durable, confirmed on both ends, read by competing consumers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from simlib.architectures.parameters import Count, Parameters, PositiveDuration, Retries, Time, Truth
from simlib.architectures.sides import ANNOUNCEMENT_WORK, IS_ORDER, Side, arrive, leave, sides
from simlib.domain import ANNOUNCED, COPIED, COPY, ISSUED, ORDER, STOCK, STOCK_QUERY, STOCK_UPDATE, TAKEN
from simlib.errors import unknown
from simlib.flow import (
    RESULT,
    Backoff,
    Flow,
    Link,
    Pool,
    Queue,
    Steps,
    Table,
    ack,
    apply,
    branch,
    call,
    delay,
    fail,
    nack,
    point,
    publish,
    reject,
    reply,
    rescue,
    retry,
    spawn,
    supersede,
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


class MessageQueue(Parameters):
    """Parameters that the queue has on every broker; the broker's own are in its class below, with its semantics."""

    broker: str = Field("nats", description="whose semantics and times the queue has")
    uplink: Time = Field("0.1 ms", validate_default=True, description="between a side and the broker, each way")
    store: Time = Field(
        "1 ms", validate_default=True, description="the broker's write of a message to disk, one at a time in a queue"
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
    answered_on: Literal["confirm", "reply"] = Field("confirm", description="what answers a customer's order")

    @classmethod
    def variants(cls) -> tuple[type[Parameters], ...]:
        return OnNats, OnQuorumQueue, OnClassicQueue

    @classmethod
    def variant(cls, values: Mapping[str, Any]) -> type[Parameters]:
        broker, queue_type = values.get("broker", "nats"), values.get("queue_type", "quorum")
        if broker == "nats":
            return OnNats
        if broker != "rabbitmq":
            raise unknown("broker", str(broker), ("nats", "rabbitmq"))
        queues: dict[str, type[Parameters]] = {"quorum": OnQuorumQueue, "classic": OnClassicQueue}
        if queue_type not in queues:
            raise unknown("queue_type", str(queue_type), queues)
        return queues[queue_type]

    @property
    def semantics(self) -> Semantics:
        """What the broker does."""
        raise NotImplementedError


class OnNats(MessageQueue):
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


class OnRabbitMQ(MessageQueue):
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


class OnQuorumQueue(OnRabbitMQ):
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


class OnClassicQueue(OnRabbitMQ):
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


def build(p: MessageQueue, scenario: Scenario) -> Flow:
    """The flow of the message queue."""
    flow = Flow("message_queue")
    (accounting, shop), broker = sides(flow, p), flow.part("broker")
    left, right = flow.link(accounting.part, broker, p.uplink), flow.link(broker, shop.part, p.uplink)
    updates_log, orders_log = broker.pool("updates_log", capacity=1), broker.pool("orders_log", capacity=1)
    queue = asdict(p.semantics)
    redelivery_delay = queue.pop("redelivery_delay")
    del queue["buffered"]
    queue |= {"prefetch": p.prefetch, "automatic_ack": not p.manual_ack, "dead_letter": p.park}
    updates, orders = broker.queue("updates", link=right, **queue), broker.queue("orders", link=left, **queue)
    stock = accounting.part.table("stock", stocked=True)
    copy = shop.part.table("copy", stocked=True)
    handled_here = accounting.part.table("accounting.handled", key="message")
    handled_there = shop.part.table("shop.handled", key="message")

    def once(table: Table, steps: Steps) -> Steps:
        return [table.once(steps)] if p.idempotent_receiver else steps

    def write_copy(effect: str) -> Steps:
        if not p.write_if_newer:
            return once(handled_there, [copy.write(), apply(effect, COPY)])
        return once(
            handled_there,
            [copy.write_if_newer([apply(effect, COPY)], otherwise=[supersede()] if effect == COPIED else [])],
        )

    flow.source(STOCK_UPDATE, at=accounting.part, steps=[
        *arrive(p, "update"), *accounting.receive("update.accounting"),
        *accounting.commit("update.accounting"), stock.add(), apply(ISSUED, STOCK, sign=1),
        *send(p, "update", accounting, left, updates_log, updates),
        *accounting.answer("update.accounting"), *leave(p, "update"),
    ])  # fmt: skip

    promised = [
        *send(p, "order", shop, right, orders_log, orders, reply_wanted=p.answered_on == "reply"),
        *shop.answer("order.shop"), *leave(p, "order"),
    ]  # fmt: skip
    if p.answered_on == "confirm":
        refused = [*shop.answer("order.shop.refused"), *leave(p, "order.refused")]
        promised = [*shop.commit("order.shop"), copy.take(promised, otherwise=[reject(), *refused], versioned=False)]
    flow.source(ORDER, at=shop.part, steps=[*arrive(p, "order"), *shop.receive("order.shop"), *promised])

    flow.source(STOCK_QUERY, at=shop.part, steps=[
        *arrive(p, "query"), *shop.receive("query.shop"),
        rescue([*shop.handle(scenario), *shop.read("query.shop"), copy.read()], otherwise=[]),
        *shop.answer("query.shop"), *leave(p, "query", answer_from=COPY),
    ])  # fmt: skip

    flow.consumers(updates, at=shop.part, count=p.consumers, steps=[
        *shop.work(p.consume_client, "updates.take"), point("updates.delivered"),
        rescue([
            branch(IS_ORDER, shop.handle(scenario, ANNOUNCEMENT_WORK), otherwise=shop.handle(scenario)),
            *shop.commit("updates.shop"),
            branch(IS_ORDER, write_copy(ANNOUNCED), otherwise=write_copy(COPIED)), point("updates.applied"),
            *shop.work(p.consume_client, "updates.ack"), ack(),
        ], otherwise=[*shop.work(p.consume_client, "updates.nack"), nack(redelivery_delay)]),
    ])  # fmt: skip

    take = [stock.take([apply(TAKEN, STOCK, sign=-1)], otherwise=[reject()])]
    announce = send(p, "announce", accounting, left, updates_log, updates, unconfirmed=[fail()])
    answer = [spawn([left.send(stream="orders.reply.there"), right.send(stream="orders.reply.back"), reply()])]
    flow.consumers(orders, at=accounting.part, count=p.consumers, steps=[
        *accounting.work(p.consume_client, "orders.take"), point("orders.delivered"),
        rescue([
            *accounting.handle(scenario), *accounting.commit("orders.accounting"),
            *once(handled_here, take), point("orders.applied"),
            *(answer if p.answered_on == "reply" else []),
            branch(RESULT.equals("ok"), announce),
            *accounting.work(p.consume_client, "orders.ack"), ack(),
        ], otherwise=[*accounting.work(p.consume_client, "orders.nack"), nack(redelivery_delay)]),
    ])  # fmt: skip
    return flow


def send(
    p: MessageQueue,
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
