"""A transactional outbox: what is to be published is written in the transaction of the effect, and a relay publishes it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from simlib.architectures.parameters import Count, PositiveDuration, Time
from simlib.architectures.queues import Exchange, JetStream
from simlib.architectures.sides import Side
from simlib.flow import (
    BATCH,
    Affine,
    Flow,
    Queue,
    Steps,
    ack,
    branch,
    delay,
    every,
    fail,
    for_each,
    nack,
    point,
    publish,
    receive,
    rescue,
    wait_until,
)
from simlib.quantities import Duration
from simlib.scenario import Scenario


class Outbox(JetStream):
    """Parameters of the outbox."""

    publisher: Literal["polling", "log_tailing", "dual_write"] = Field(
        "polling", description="a relay that polls the table, one that tails the database's log, or the side itself"
    )
    batch_size: Count = Field(100, description="rows that a relay takes at once")
    insert: Time = Field(
        "0.1 ms", validate_default=True, description="the database server's work to write a row of the outbox"
    )
    poll_interval: PositiveDuration = Field(0.1, description="between two polls of a relay, s")
    per_row: Duration = Field(
        0.00002, description="the database server's work for each row that a poll finds, and as much to mark it, s"
    )
    tail: Time = Field(
        "1 ms", validate_default=True, description="from a commit until the reader of the database's log has it"
    )


def build(p: Outbox, scenario: Scenario) -> Flow:
    """The flow of the outbox; without it (`dual_write`) that of the message queue."""
    flow = Flow("outbox")
    between = Exchange(flow, p, scenario)
    accounting, shop = between.accounting, between.shop
    if p.publisher == "dual_write":
        between.accept_updates(then=between.publish("update", accounting))
        between.accept_orders(between.promise(then=between.publish("order", shop)))
        between.consume_orders(then=between.announce())
    else:
        changes, orders = (relayed(flow, p, between, side) for side in (accounting, shop))
        between.accept_updates(row=[publish(changes)], insert=inserted(p, accounting, "update"))
        between.accept_orders(between.promise(row=[publish(orders)], insert=inserted(p, shop, "order")))
        between.consume_orders(row=[publish(changes)], insert=inserted(p, accounting, "announce"))
    between.accept_queries()
    between.consume_updates()
    return flow


def inserted(p: Outbox, side: Side, label: str) -> Steps:
    """The server's work for the row of the outbox, in the transaction of the effect."""
    return [side.machine.cores.serve(p.insert, stream=f"{label}.insert")]


def relayed(flow: Flow, p: Outbox, between: Exchange, side: Side) -> Queue:
    """A side's outbox, and its relay, a task of the side's process: it takes rows, publishes them in their order, and marks them
    only then. So what it dies over it publishes again, and where a row is not confirmed in the end the whole batch is rolled
    back and taken again."""
    name = f"{side.part.name}.relay"
    outbox = side.part.queue(f"{side.part.name}.outbox", detected_after=0.0)
    each = for_each([*between.publish(name, side, unconfirmed=[fail()]), point("relay.published")])
    if p.publisher == "polling":
        found = [receive(outbox, p.batch_size), side.machine.cores.serve(rows(p), stream=f"{name}.poll")]
        mark = side.transact(f"{name}.mark", [
            side.machine.cores.serve(rows(p), stream=f"{name}.mark"),
            side.machine.log.serve(p.commit, stream=f"{name}.mark.flush"),
        ])  # fmt: skip
        turn = [every(p.poll_interval), *side.transact(f"{name}.poll", found)]
        flow.actor(name, side.part, [*turn, branch(BATCH.at_least(1), [rescue([each, *mark, ack()], [nack()])])])
    else:
        read = [wait_until(outbox), delay(p.tail, stream=f"{name}.tail"), receive(outbox, p.batch_size)]
        flow.actor(name, side.part, [*read, rescue([each, ack()], [nack()])])
    return outbox


def rows(p: Outbox) -> Affine:
    """The server's work for a statement on the rows of a batch."""
    return Affine(p.read, p.per_row, of=BATCH)
