"""A message queue between the sides: durable, confirmed on both ends, read by competing consumers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from simlib.architectures.parameters import Parameters
from simlib.architectures.queues import ClassicQueue, Exchange, JetStream, Queues, QuorumQueue
from simlib.errors import unknown
from simlib.flow import Flow, reply, spawn
from simlib.scenario import Scenario


class MessageQueue(Queues):
    """Parameters of the message queue on every broker."""

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


class OnNats(JetStream, MessageQueue):
    """On NATS JetStream."""


class OnQuorumQueue(QuorumQueue, MessageQueue):
    """On RabbitMQ, a quorum queue."""


class OnClassicQueue(ClassicQueue, MessageQueue):
    """On RabbitMQ, a classic queue."""


def build(p: MessageQueue, scenario: Scenario) -> Flow:
    """The flow of the message queue."""
    flow = Flow("message_queue")
    between = Exchange(flow, p, scenario)
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
    between.consume_orders(then=[*answered, *between.announce()])
    return flow
