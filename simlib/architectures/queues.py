"""Queues at a broker between the sides: parameters, semantics and flow that the architectures share which stand on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from simlib.architectures.copied import Copied
from simlib.architectures.fulfilment import Task
from simlib.architectures.parameters import Count, Parameters, PositiveDuration, Retries, Time, Truth
from simlib.architectures.sides import Side
from simlib.brokers import own
from simlib.domain import RESERVE
from simlib.errors import unknown
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
    by_sku,
    call,
    delay,
    every,
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
    """Whether the client keeps what it publishes while the broker is down, and sends it in order when it is back."""
    unroutable: Literal["refused", "returned", "confirmed"]
    """What a publisher who waits for a confirm hears of a message that no queue takes."""
    state_every: float | None = None


class Client(NamedTuple):
    """How many turns of the event loop the tasks of a broker's client take, as the twins use it."""

    delivery: int
    """From the socket to a consumer that waits; while it works they have the next ready for it."""
    confirm: int
    """From the socket to the publisher."""
    waits: bool
    """Whether a consumer waits until another task has written its acknowledgement."""


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

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        """A broker of the user's own has the semantics of its kind."""
        if own.kind(self.broker) != (kind := self.stands_on()):
            raise unknown("broker", self.broker, [str(kind), *own.names(kind)])
        return self

    @property
    def semantics(self) -> Semantics:
        """What the broker does."""
        raise NotImplementedError

    @property
    def client(self) -> Client:
        """What its client does."""
        raise NotImplementedError


class JetStream(Queues):
    """JetStream (docs.nats.io, "JetStream: Consumers"): one limit for all consumers of a queue, a dead consumer noticed by
    `ack_wait` alone, messages known by their id. What it handed out and what was acknowledged it writes down ten times a second at
    most (nats-server 2.11, server/filestore.go, `consumerFileStore.flushLoop`)."""

    broker: str = Field("nats", description="whose semantics and times the queue has")
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
            unroutable="refused", state_every=0.1,
        )  # fmt: skip

    @property
    def client(self) -> Client:
        """A delivery goes from `Client._read_loop` to `Subscription._wait_for_msgs` (nats-py 2.16), a confirm from there to
        `asyncio.wait_for` (Python 3.11); nobody waits until an acknowledgement is written."""
        return Client(delivery=3, confirm=4, waits=False)


class RabbitMQ(Queues):
    """RabbitMQ (rabbitmq.com/docs, "Consumer Acknowledgements and Publisher Confirms"): a limit for each consumer, a dead one
    noticed by its connection, no memory of messages."""

    broker: str = Field("rabbitmq", description="whose semantics and times the queue has")
    queue_type: str = Field("quorum", description="a replicated log that counts deliveries, or a classic durable queue")
    prefetch: Count = Field(12, description="unacknowledged deliveries that each consumer may hold")
    mandatory: Truth = Field(True, description="whether what no queue takes is handed back, or confirmed and dropped")
    detected_after: Duration = Field(
        0.005, description="after which the broker notices that a consumer's connection is closed, s"
    )

    @property
    def unroutable(self) -> Literal["returned", "confirmed"]:
        """What becomes of a message that no queue takes ("Publishers: Unroutable Message Handling")."""
        return "returned" if self.mandatory else "confirmed"

    @property
    def client(self) -> Client:
        """A delivery goes from `Connection.__reader` to `Channel._reader`, to a task of its own (aiormq 7.2), to another one
        (aio-pika 10.2, `queue.consumer`), a confirm only through the first two; who acknowledges waits until `Connection.__writer`
        has written it."""
        return Client(delivery=5, confirm=3, waits=True)


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
            unroutable=self.unroutable,
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
            deduplicate=None, requeue="head", redelivery_delay=0.0, buffered=False, unroutable=self.unroutable,
        )  # fmt: skip


class Channel(NamedTuple):
    """A queue at the broker, and the log that the broker writes it to."""

    queue: Queue
    log: Pool


class Feed(Copied):
    """The two sides and the broker between them, with a queue of accounting's changes, which the shop reads."""

    p: Queues
    refuses = False
    """Whether a queue may refuse a publication, which is then told so."""
    unbound: Sequence[Channel] = ()
    """Queues that nothing which is published comes to."""

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
        self.links = {self.accounting.part: self.left, self.shop.part: self.right}
        self.options = asdict(p.semantics)
        self.redelivery_delay = self.options.pop("redelivery_delay")
        for publishers in ("buffered", "unroutable"):
            del self.options[publishers]
        self.options |= {"prefetch": p.prefetch, "automatic_ack": not p.manual_ack, "dead_letter": p.park}
        self.options["dispatch"] = p.dispatch
        self.updates = self.channels("updates", self.shop)

    def channels(self, name: str, reader: Side) -> list[Channel]:
        """The queues that share what is published under a name, each with its goods."""
        return [self.channel(name, reader)]

    def channel(self, name: str, reader: Side, **options: Any) -> Channel:
        """A queue at the broker that a side reads; further options as in `flow.Queue`."""
        queue = self.broker.queue(name, link=self.links[reader.part], **self.options, **options)
        return Channel(queue, self.broker.pool(f"{name}_log", capacity=1))

    def consume(self, queue: Queue, side: Side, body: Steps, name: str = "", count: int | None = None) -> None:
        """Consumers at a side, who acknowledge what they have gone through, and hand back where that fails."""
        p, name = self.p, name or queue.name
        through = side.turns_of_who_waited(p.client.delivery)
        written = side.turns(1) if p.client.waits else []
        self.flow.consumers(queue, at=side.part, count=count or p.consumers, steps=[
            *through, *side.work(p.consume_client, f"{name}.take"), point(f"{name}.delivered"),
            rescue([*body, *written, *side.work(p.consume_client, f"{name}.ack"), ack()],
                   otherwise=[*written, *side.work(p.consume_client, f"{name}.nack"), nack(self.redelivery_delay)]),
            *written,
        ])  # fmt: skip

    @property
    def active(self) -> int:
        """How many consumers of a queue of changes work."""
        return self.p.consumers

    def consume_updates(self) -> None:
        """The shop writes its copy."""
        written = [*self.shop.commit("updates.shop"), *self.write_change(), point("updates.applied")]
        for channel in self.updates:
            self.consume(channel.queue, self.shop, [*self.handle_change(), *written], "updates", self.active)

    def publish(
        self,
        label: str,
        here: Side,
        reply_within: float | None = None,
        unconfirmed: Steps = (),
        urgent: bool = False,
    ) -> Steps:
        """Accounting publishes a change: see `send`."""
        return self.send(label, here, self.left, self.updates, reply_within, unconfirmed, urgent)

    def store(self, label: str, log: Pool) -> Steps:
        """The broker writes a message to disk."""
        return [log.serve(self.p.store, stream=f"{label}.store")]

    def taken(self, label: str, channel: Channel, urgent: bool, then: Steps, refused: Steps) -> Steps:
        """The broker writes a message to disk, and puts it into the queue; and where that may refuse, what becomes of it."""
        put = [publish(channel.queue, urgent=urgent), *then]
        return [*self.store(label, channel.log), *([rescue(put, otherwise=refused)] if self.refuses else put)]

    def send(
        self,
        label: str,
        here: Side,
        link: Link,
        channels: Sequence[Channel],
        reply_within: float | None = None,
        unconfirmed: Steps = (),
        urgent: bool = False,
    ) -> Steps:
        """Publish to a queue, of several to that which has the goods: with a confirm that is waited for, and publication again
        where it does not come, in the end `unconfirmed`; with a reply that is waited for instead, so many seconds; or without
        either. Without a confirm nobody knows whether the message is in the queue."""
        p = self.p
        ask = [*here.turns(1), *here.work(p.publish_client, f"{label}.publish.send")]
        took = [*here.turns(p.client.confirm), *here.work(p.publish_client, f"{label}.publish.took")]
        told = [link.send(stream=f"{label}.publish.refused"), reply("failed")]
        returned = [link.send(stream=f"{label}.publish.returned"), reply("refused")]
        confirmed = [link.send(stream=f"{label}.publish.back"), reply("ok")]

        def there(then: Steps = (), refused: Steps = (), unroutable: Steps = ()) -> Steps:
            ways = [
                unroutable if channel in self.unbound else self.taken(label, channel, urgent, then, refused)
                for channel in channels
            ]
            return [link.send(stream=f"{label}.publish.there"), *(ways[0] if len(ways) == 1 else [by_sku(*ways)])]

        if reply_within is not None:
            return [rescue([*ask, call(there(refused=told), timeout=reply_within), *took], otherwise=[])]
        if not p.confirm:
            return [*ask, spawn(there())]
        unroutable = {"refused": told, "returned": returned, "confirmed": confirmed}[p.semantics.unroutable]
        asked = call(there(confirmed, told, unroutable), timeout=p.confirm_timeout)
        unheard = fail("timed_out")
        if p.semantics.buffered:
            again = Backoff(retries=math.ceil(p.confirm_timeout / p.reconnect), base=0.0)
            refused: Steps = [retry(again, [every(p.reconnect), asked], otherwise=[unheard])]
        else:
            refused = [delay(p.reconnect), unheard]
        waits = branch(RESULT.equals("failed"), refused, otherwise=[unheard])
        attempt = [*ask, rescue([asked], otherwise=[waits]), *took]
        policy = Backoff(retries=p.confirm_retries)
        published = retry(policy, attempt, otherwise=unconfirmed, stream=f"{label}.publish.backoff")
        if unroutable is not returned or not set(channels) & set(self.unbound):
            return [published]
        return [published, branch(RESULT.equals("refused"), [rescue([fail()], otherwise=unconfirmed)])]


class Exchange(Feed):
    """With a queue of the shop's orders too, which accounting reads; where an order has further steps, with one for each of
    them. What publishes is left to the architecture."""

    def __init__(self, flow: Flow, p: Queues, scenario: Scenario) -> None:
        super().__init__(flow, p, scenario)
        self.orders = self.channel("orders", self.accounting)
        self.asked, self.handled = {RESERVE: self.orders}, {RESERVE: self.handled_here}
        for task in self.tasks[1:]:
            part = task.side.part
            if part not in self.links:
                self.links[part] = flow.link(self.broker, part, p.uplink)
            self.asked[task.step] = self.channel(task.step, task.side)
            self.handled[task.step] = part.table(f"{task.step}.handled", key="message")

    def consume_orders(self, then: Steps = (), row: Steps = (), insert: Steps = ()) -> None:
        """Accounting takes the units, or rejects the order. Where there are further steps, each service asks for the next, and
        nobody undoes anything."""
        for k, task in enumerate(self.tasks):
            onward: Steps = []
            if k + 1 < len(self.tasks):
                asked = self.ask(self.tasks[k + 1], task.side, unconfirmed=[fail()])
                onward = [*task.unheard(), branch(RESULT.equals("ok"), asked)]
            if k == 0:
                self.consume_task(task, [*then, *onward], row, insert)
            else:
                self.consume_task(task, onward)

    def consume_task(self, task: Task, then: Steps, row: Steps = (), insert: Steps = ()) -> None:
        """A service does its step of an order, or refuses."""
        queue, side = self.asked[task.step].queue, task.side
        self.consume(queue, side, [
            *side.handle(self.scenario, task.work), *side.commit(f"{queue.name}.{side.part.name}", insert),
            *self.once(self.handled[task.step], task.done(row)), point(f"{queue.name}.applied"), *then,
        ])  # fmt: skip

    def announce(self, urgent: bool = False) -> Steps:
        """Accounting tells the shop what an order left."""
        told = self.publish("announce", self.accounting, unconfirmed=[fail()], urgent=urgent)
        return [branch(RESULT.equals("ok"), told)]

    def ask(self, task: Task, here: Side, reply_within: float | None = None, unconfirmed: Steps = ()) -> Steps:
        """A side publishes to the queue of a step: see `send`."""
        label = "order" if task.step == RESERVE else task.step
        return self.send(label, here, self.links[here.part], [self.asked[task.step]], reply_within, unconfirmed)

    def publish(
        self,
        label: str,
        here: Side,
        reply_within: float | None = None,
        unconfirmed: Steps = (),
        urgent: bool = False,
    ) -> Steps:
        """A side publishes to the queue that the other reads: see `send`."""
        if here is self.accounting:
            return super().publish(label, here, reply_within, unconfirmed, urgent)
        return self.send(label, here, self.right, [self.orders], reply_within, unconfirmed, urgent)
