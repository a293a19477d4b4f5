"""Batch exchange: each side registers what changed, and a scheduled run takes it to the other in a file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from simlib.architectures.copied import Copied
from simlib.architectures.parameters import Count, Parameters, PositiveDuration, Time, Truth
from simlib.architectures.sides import Side
from simlib.distributions import Constant
from simlib.flow import (
    BATCH,
    NTH,
    Affine,
    Flow,
    Link,
    Queue,
    Steps,
    ack,
    branch,
    call,
    delay,
    every,
    for_each,
    nack,
    point,
    publish,
    receive,
    reply,
    rescue,
    wait_until,
)
from simlib.scenario import Scenario


class BatchExchange(Parameters):
    """Parameters of the batch exchange."""

    exchange: Literal["delta", "full"] = Field(
        "delta", description="whether a file to the shop holds what changed since the last, or all there is"
    )
    interval: PositiveDuration = Field(10.0, description="between two runs of the exchange, s")
    runs: Count = Field(1, description="runs of one direction that may be under way at once")
    file: Time = Field(
        "50 ms", validate_default=True, description="CPU to make a file, and as much to read it, besides its records"
    )
    record: Time = Field(
        "0.1 ms",
        validate_default=True,
        description="CPU to write a record to a file, and as much to read it, on average",
    )
    registration: Time = Field(
        "0.1 ms",
        validate_default=True,
        description="the database server's work to register what goes into the next file",
    )
    coalesce: Truth = Field(True, description="whether of the changes of a SKU only the last goes into a file")
    transaction: Literal["file", "record"] = Field(
        "file", description="what is committed at once, and fails as a whole, where a file is read"
    )
    timeout: PositiveDuration = Field(1.0, description="after which a side that asks for a file gives up, s")
    retry_after: PositiveDuration = Field(1.0, description="before a file that failed is read again, s")
    max_deliveries: Count = Field(5, description="after which what cannot be read is set aside")
    park: Truth = Field(True, description="whether what is set aside is kept, or dropped")
    idempotent_receiver: Truth = Field(True, description="whether a side remembers what it has handled")
    write_if_newer: Truth = Field(True, description="whether the copy refuses a version older than its own")


def build(p: BatchExchange, scenario: Scenario) -> Flow:
    """The flow of the batch exchange."""
    flow = Flow("batch_exchange")
    between = Copied(
        flow, p, scenario, idempotent_receiver=p.idempotent_receiver, write_if_newer=p.write_if_newer
    )  # fmt: skip
    accounting, shop = between.accounting, between.shop
    network = flow.link(accounting.part, shop.part, p.network)
    full = p.exchange == "full"
    changed = Affine(Constant(value=0.0), p.record.mean_value, of=BATCH)
    goods = Constant(value=p.record.mean_value * scenario.goods.skus) if full else changed
    changes = accounting.part.queue("changes", detected_after=0.0, coalesce=p.coalesce or full)
    orders = shop.part.queue("orders", detected_after=0.0)
    updates_files = exported(p, flow, accounting, changes, goods)
    orders_files = exported(p, flow, shop, orders, changed)
    imported(p, flow, network, accounting, shop, updates_files, goods, between.handle_change(), between.write_change())
    take = between.take(row=[publish(changes)])
    imported(p, flow, network, shop, accounting, orders_files, changed, accounting.handle(scenario), take)
    between.accept_updates(row=[publish(changes)], insert=registered(p, accounting, "update"))
    between.accept_orders(between.promise(row=[publish(orders)], insert=registered(p, shop, "order")))
    between.accept_queries()
    return flow


def registered(p: BatchExchange, side: Side, label: str) -> Steps:
    """The server's work to register a change, in the transaction that makes it."""
    return [side.machine.cores.serve(p.registration, stream=f"{label}.registration")]


def exported(p: BatchExchange, flow: Flow, side: Side, waiting: Queue, records: Affine | Constant) -> Queue:
    """A scheduled run takes what is registered, makes a file of it, and marks it as taken: the files. It makes none of nothing;
    a run that is not over when the next is due lets that go by."""
    name = f"{side.part.name}.export"
    files = side.part.queue(
        f"{side.part.name}.files", detected_after=0.0, max_deliveries=p.max_deliveries, dead_letter=p.park
    )
    made = [*side.work(p.file, f"{name}.file"), *side.work(records, f"{name}.records"), *side.commit(f"{name}.mark")]
    flow.actor(name, side.part, count=p.runs, steps=[
        every(p.interval), *side.read(name), receive(waiting),
        branch(BATCH.at_least(1), [*made, for_each([publish(files)]), ack()]),
    ])  # fmt: skip
    return files


def imported(
    p: BatchExchange,
    flow: Flow,
    network: Link,
    there: Side,
    here: Side,
    files: Queue,
    records: Affine | Constant,
    handle: Steps,
    write: Steps,
) -> None:
    """As soon as files lie on the other side, this one fetches them, reads them, writes what they hold, and says so. What fails
    before that is said is read again as a whole."""
    name = f"{here.part.name}.import"

    def ask(label: str) -> Steps:
        """A request to the other side, one for the whole file; it has no content, and is written at once."""
        server = [
            network.send(stream=f"{label}.network.there"), *there.receive(f"{label}.server"),
            *there.answer(f"{label}.server"), network.send(stream=f"{label}.network.back"), reply("ok"),
        ]  # fmt: skip
        asked = [
            *here.work(p.http_client, f"{label}.client.send"), call(server, timeout=p.timeout),
            *here.work(p.http_client, f"{label}.client.took"),
        ]  # fmt: skip
        return [for_each([branch(NTH.equals(1), asked)])]

    commit = here.commit(name)
    if p.transaction == "file":
        read = [for_each([*here.turns(1), *handle]), *commit, for_each([*write, point(f"{name}.written")])]
    else:
        read = [
            for_each([*here.turns(1), rescue([*handle, *commit, *write, point(f"{name}.written")], otherwise=[nack()])])
        ]
    opened = [*here.work(p.file, f"{name}.file"), *here.work(records, f"{name}.records")]
    turn = [*ask(f"{name}.fetch"), *opened, *read, *ask(f"{name}.confirm"), ack()]
    flow.actor(name, here.part, count=p.runs, steps=[
        wait_until(files), receive(files), rescue(turn, otherwise=[delay(p.retry_after), nack()]),
    ])  # fmt: skip
