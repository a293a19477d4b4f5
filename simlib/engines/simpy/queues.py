"""Queues: deliveries that are ready, or handed out and not acknowledged, and the consumers with their credit."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import simpy

from simlib import draws
from simlib.engines import order
from simlib.engines.records import DEAD_LETTERED, EXPIRED, SUPERSEDED
from simlib.engines.simpy.clock import cancel
from simlib.engines.simpy.links import travel
from simlib.engines.simpy.rows import Failed, Row, Waits, Watchers
from simlib.flow.model import Actor, Consumers, Part, Queue

if TYPE_CHECKING:
    from simlib.engines.simpy.coordinators import CoordinatorState
    from simlib.engines.simpy.engine import Engine


class Delivery:
    """A message in a queue: which publishing of it, how often it was handed out, what it carries, whom to answer."""

    __slots__ = (
        "answer_to", "changed", "copy", "level", "message", "nth", "number", "out", "published", "result", "settled", "slot",
        "state", "timer", "urgent", "version",
    )  # fmt: skip

    def __init__(self, state: QueueState, row: Row, copy: int, urgent: bool) -> None:
        self.urgent = urgent
        self.state, self.message, self.copy, self.number, self.slot = state, row.message, copy, 0, 0
        self.nth, self.published = state.count, state.engine.clock._now
        self.out = self.settled = False
        self.changed = -math.inf
        self.level, self.version, self.result = row.level, row.version, row.result
        self.answer_to = row.answer_to
        self.timer: simpy.Event | None = None

    def place(self, number: int) -> int:
        """Where the draws of delivery `number` stand: message, delivery; and copy, where it was published before."""
        place = draws.fold(draws.fold(0, self.message), number - 1)
        return draws.fold(place, self.copy) if self.copy else place


class QueueState:
    """A queue: what is ready, what is unacknowledged, and the consumers with their credit."""

    def __init__(self, engine: Engine, queue: Queue) -> None:
        self.engine, self.queue, self.name = engine, queue, queue.name
        self.meter = engine.records.meter(queue.name, "queue", math.nan)
        self.ready: deque[Delivery] = deque()
        self.urgent = 0
        self.buffers: list[deque[tuple[Delivery, int]]] = []
        self.idle: list[deque[Row]] = []
        self.out: list[int] = []
        self.latest: list[float] = []
        self.turn = self.count = 0
        self.held: dict[Delivery, None] = {}
        self.unwritten: list[Delivery] = []
        self.written, self.due = -math.inf, math.inf
        self.closed = False
        self.kept: list[Delivery] | None = None if queue.log is None else []
        self.seen: dict[int, float] = {}
        self.published: dict[int, int] = {}
        self.consumers_at: Part | None = None
        self.coordinator: CoordinatorState | None = None
        self.given = -math.inf
        self.watchers: Watchers | None = None
        link = queue.link
        self.travel = travel(engine, link, f"{queue.name}.deliver") if link else None
        dispatch = queue.dispatch
        self.dispatch_time = (
            dispatch.draw(draws.stream_key(engine.seed, f"{queue.name}.dispatch")) if dispatch else None
        )
        self.travel_back = travel(engine, link, f"{queue.name}.settle") if link else None

    def attach(self, group: Consumers) -> None:
        """As many buffers as limits: one for each consumer, or one for all."""
        self.consumers_at = group.at
        count = 1 if self.queue.shared else group.count
        self.buffers, self.idle = [deque() for _ in range(count)], [deque() for _ in range(count)]
        self.out, self.latest = [0] * count, [-math.inf] * count

    def attach_actor(self, actor: Actor) -> None:
        """Nothing is handed out: actors receive what they want, all under one limit."""
        self.out, self.watchers = [0], Watchers()
        if self.coordinator is None:
            self.consumers_at = actor.at

    def publish(self, row: Row, urgent: bool) -> None:
        """A new delivery at the end of the queue, or of its urgent ones, unless the message was published within the deduplication
        window; fails where the queue is full and refuses."""
        queue, now = self.queue, self.engine.clock._now
        if queue.deduplicate is not None and now - self.seen.get(row.message, -math.inf) <= queue.deduplicate:
            return
        if queue.overflow == "refuse" and queue.length is not None and len(self.ready) >= queue.length:
            raise Failed("full")
        if queue.deduplicate is not None:
            self.seen[row.message] = now
        copy = self.published.get(row.message, 0)
        self.published[row.message] = copy + 1
        delivery = Delivery(self, row, copy, urgent)
        self.count += 1
        if self.kept is not None:
            self.kept.append(delivery)
        if queue.ttl is not None:
            key = order.key(order.TIMER, row.message, self.engine.copy(row.message), 1)
            self.expire_at(delivery, now + queue.ttl, key)
        self._enter(delivery)
        self.dispatch()

    def _enter(self, delivery: Delivery, at_head: bool = False) -> None:
        """One more is ready."""
        self.engine.records.alive[delivery.message] += 1
        self._join(delivery, at_head)

    def seek(self) -> None:
        """All that was ever published is ready, in its order; what is in hand or on its way comes again."""
        assert self.kept is not None
        self.part_crashed()
        self.ready.clear()
        for delivery in self.kept:
            if delivery.settled:
                delivery.settled = False
                self.engine.revive(delivery.message)
                self._enter(delivery)
                continue
            if delivery.out:
                self._returned(delivery)
                self.meter.change(self.engine.clock._now, waiting=1)
            self.ready.append(delivery)
        self.dispatch()

    def _join(self, delivery: Delivery, at_head: bool) -> None:
        """The delivery is ready: at the head or the end, of the urgent ones or of those behind them."""
        first, end = (0, self.urgent) if delivery.urgent else (self.urgent, len(self.ready))
        self.ready.insert(first if at_head else end, delivery)
        self.urgent += delivery.urgent
        self.meter.change(self.engine.clock._now, waiting=1)
        self.overtake(delivery)
        queue = self.queue
        if queue.overflow == "drop" and queue.length is not None and len(self.ready) > queue.length:
            self._drop(self.ready[0], 0)

    def _leave(self, delivery: Delivery) -> None:
        """The delivery is no longer among the ready."""
        self.ready.remove(delivery)
        self.urgent -= delivery.urgent

    def _drop(self, delivery: Delivery, note: int) -> None:
        """A delivery that is ready is dropped: parked, or gone with a note of why."""
        self._leave(delivery)
        self.meter.change(self.engine.clock._now, waiting=-1)
        self.engine.records.noted[delivery.message] |= DEAD_LETTERED if self.queue.dead_letter else note
        self._close(delivery)

    def expire_at(self, delivery: Delivery, due: float, key: int) -> None:
        """What is ready when its time is over is dropped; later where the queue's part stands still then."""

        def expire(_: Any) -> None:
            until = self.engine.faults.paused.get(self.queue.at, -math.inf)
            if self.engine.clock._now < until:
                self.expire_at(delivery, until, key)
            elif not delivery.settled and not delivery.out:
                self._drop(delivery, EXPIRED)

        self.engine.clock.at(due, key, expire)

    def subscribe(self) -> None:
        """The consumers are connected again, one after the other: each has what is ready up to its limit before the next."""
        self.turn = 0
        self.dispatch(step=0)

    def dispatch(self, step: int = 1) -> None:
        """Hand out what is ready while there is credit, in turn."""
        if self.watchers is not None:
            self.watchers.see(self.available(), self.consumers_at if self.coordinator else None)
            return
        if not self.hands_out():
            return
        limit, n = self.queue.prefetch, len(self.out)
        while self.ready and n:
            for i in range(n):
                slot = (self.turn + i) % n
                if limit is None or self.out[slot] < limit:
                    break
            else:
                return
            self.turn = (slot + step) % n
            delivery = self.ready[0]
            self._leave(delivery)
            self._hand_out(delivery, slot)

    def hands_out(self) -> bool:
        """Not while its part is down or shut, nor while its consumers' is down, or their connection known to be closed."""
        return (
            not self.closed
            and self.engine.faults.serves(self.queue.at)
            and self.consumers_at not in self.engine.faults.down
        )

    def available(self) -> int:
        """How many deliveries an actor could receive."""
        if not self.hands_out():
            return 0
        ready, limit = len(self.ready), self.queue.prefetch
        return ready if limit is None else min(ready, limit - self.out[0])

    def available_to(self, row: Row) -> int:
        """How many an actor's row could receive: none where another member of the group reads the queue."""
        return self.available() if self.coordinator is None or row.part is self.consumers_at else 0

    def fetch(self, row: Row, at_most: int | None) -> None:
        """An actor takes what there is in hand."""
        available = self.available_to(row)
        count = available if at_most is None else min(at_most, available)
        if count and self.coordinator is not None and row.part is not None:
            self.coordinator.took(row, row.part)
        for _ in range(count):
            delivery = self.ready[0]
            self._leave(delivery)
            self._lend(delivery, 0)
            row.batch.append((delivery, delivery.number))

    def _lend(self, delivery: Delivery, slot: int) -> int:
        """The delivery is out, and waited for where that is limited; its copy."""
        engine, message = self.engine, delivery.message
        delivery.number += 1
        delivery.slot, delivery.out = slot, True
        self.held[delivery] = None
        number = delivery.number
        records = engine.records
        records.deliveries[message] += 1
        records.alive[message] += 1
        copy = engine.copy(message)
        self.meter.change(engine.clock._now, waiting=-1, unacknowledged=1)
        self.out[slot] += 1
        if self.queue.automatic_ack:
            self._close(delivery)
            self.meter.change(engine.clock._now, completed=1)
        elif self.queue.ack_wait is not None:
            key = order.key(order.TIMER, message, copy, 1)
            self.await_ack(delivery, number, engine.clock._now + self.queue.ack_wait, key)
        self.note(delivery)
        return copy

    def _hand_out(self, delivery: Delivery, slot: int) -> None:
        engine, message = self.engine, delivery.message
        copy = self._lend(delivery, slot)
        number = delivery.number

        def arrive(_: Any) -> None:
            opens = engine.faults.opens(self.consumers_at)
            if self.consumers_at in engine.faults.down:
                engine.ended(message)
            elif engine.clock._now < opens:
                engine.clock.at(opens, order.key(order.COMPLETION, message, copy), arrive)
            elif self.idle[slot]:
                row = self.idle[slot].popleft()
                self.take(row, delivery, number)
                row.awaited = 1
                row.wake()
            else:
                self.buffers[slot].append((delivery, number))

        if self.travel is None and self.dispatch_time is None:
            arrive(None)
            return
        place = delivery.place(number)
        time = 0.0 if self.travel is None else self.travel(place, self.queue.at)
        if time is None:
            engine.ended(message)
            return
        if self.dispatch_time is not None:
            time += self.dispatch_time(place)
        due = engine.clock._now + time
        if self.kept is not None:
            due = self.latest[slot] = max(due, math.nextafter(self.latest[slot], math.inf))
        engine.clock.at(due, order.key(order.COMPLETION, message, copy), arrive)

    def await_ack(self, delivery: Delivery, number: int, due: float, key: int) -> None:
        """Delivery `number` comes back when it is `due`, or when the queue's part goes on, where that stands still."""
        engine = self.engine

        def expire(_: Any) -> None:
            until = engine.faults.paused.get(self.queue.at, -math.inf)
            if engine.clock._now < until:
                self.await_ack(delivery, number, until, key)
            else:
                self.overdue(delivery, number)

        delivery.timer = engine.clock.at(due, key, expire)

    def take(self, row: Row, delivery: Delivery, number: int) -> None:
        """The delivery is in this consumer's hands: it works for the message from now on."""
        engine = self.engine
        row.message, row.delivery = delivery.message, delivery
        row.place = delivery.place(number)
        row.copy = engine.copy(delivery.message)
        row.level, row.version, row.result, row.answer_to = (
            delivery.level,
            delivery.version,
            delivery.result,
            delivery.answer_to,
        )
        row.attempt = row.number = number
        engine.rows[row] = None

    def receive(self, row: Row, consumer: int) -> Waits:
        """Wait for a delivery."""
        slot = 0 if self.queue.shared else consumer
        if self.buffers[slot]:
            delivery, number = self.buffers[slot].popleft()
            self.take(row, delivery, number)
            row.awaited = 0
        else:
            self.idle[slot].append(row)
            yield self

    def forget(self, row: Row) -> None:
        """The consumer waits no longer."""
        for rows in self.idle:
            if row in rows:
                rows.remove(row)

    def settle(self, delivery: Delivery, number: int) -> None:
        """The broker knows that delivery `number` is done, even where it was about to deliver it again (but over another
        connection)."""
        stale = not delivery.out or delivery.number != number
        if delivery.settled or (stale and self.queue.detected_after is not None):
            return
        if not delivery.out:
            self._leave(delivery)
            self.meter.change(self.engine.clock._now, waiting=-1)
        self._close(delivery)
        delivery.changed = self.engine.clock._now
        self.note(delivery)
        self.meter.change(self.engine.clock._now, completed=1)
        self.dispatch()

    def last(self, number: int) -> bool:
        """Whether delivery `number` of a message is the last that it gets."""
        return self.queue.max_deliveries is not None and number >= self.queue.max_deliveries

    def overdue(self, delivery: Delivery, number: int) -> None:
        """Delivery `number` was not acknowledged in time: a coordinator throws out the member that has it."""
        if self.coordinator is None:
            self.hand_back(delivery, number)
        elif self.consumers_at is not None:
            self.coordinator.throw_out(self.consumers_at)

    def hand_back(self, delivery: Delivery, number: int) -> None:
        """Delivery `number` was refused or not acknowledged in time: it comes again, or is parked after the last; of a log's group
        all that are handed out come again, from its position on."""
        if delivery.settled or not delivery.out or delivery.number != number:
            return
        if self.kept is None:
            self._put_back(delivery)
        else:
            self.part_crashed()
            self.put_all_back()
        self.dispatch()

    def _put_back(self, delivery: Delivery) -> None:
        if self.last(delivery.number):
            if self.queue.dead_letter:
                self.engine.records.noted[delivery.message] |= DEAD_LETTERED
            self._close(delivery)
            return
        self._returned(delivery)
        self._join(delivery, self.queue.requeue == "head")
        self._drop_old(delivery)

    def _drop_old(self, delivery: Delivery) -> None:
        """The delivery is ready again, but for one that is too old by now."""
        if self.queue.ttl is not None and not delivery.settled:
            if self.engine.clock._now >= delivery.published + self.queue.ttl:
                self._drop(delivery, EXPIRED)

    def overtake(self, delivery: Delivery) -> None:
        """A delivery became ready: of those of one SKU only the last published stays, where the queue coalesces them."""
        if not self.queue.coalesce:
            return
        skus = self.engine.skus
        for other in self.ready:
            if other is not delivery and skus[other.message] == skus[delivery.message]:
                older = other if other.nth < delivery.nth else delivery
                self._leave(older)
                self.meter.change(self.engine.clock._now, waiting=-1)
                self.engine.records.noted[older.message] |= SUPERSEDED
                self._close(older)
                return

    def _returned(self, delivery: Delivery) -> None:
        cancel(delivery.timer)
        if delivery.out:
            delivery.out = False
            del self.held[delivery]
            self.out[delivery.slot] -= 1
            self.meter.change(self.engine.clock._now, unacknowledged=-1)

    def _close(self, delivery: Delivery) -> None:
        self._returned(delivery)
        delivery.settled = True
        delivery.changed = -math.inf
        self.engine.ended(delivery.message)

    def part_crashed(self) -> None:
        """What the consumers' part had fetched and not handled is gone from its memory; the broker still has it."""
        for buffer in self.buffers:
            for delivery, _ in buffer:
                self.engine.ended(delivery.message)
            buffer.clear()

    def note(self, delivery: Delivery) -> None:
        """What was handed out or settled is written down: at once, or when `state_every` has passed since the last time."""
        every, now = self.queue.state_every, self.engine.clock._now
        if every is None:
            return
        self._write(now)
        delivery.changed = now
        self.unwritten.append(delivery)
        if self.due < math.inf:
            return
        if now - self.written >= every:
            self.written = now
            self.unwritten.clear()
        else:
            self.due = self.written + every

    def _write(self, now: float) -> None:
        """What was due is written."""
        if now >= self.due:
            self.written, self.due = self.due, math.inf
            self.unwritten = [delivery for delivery in self.unwritten if delivery.changed > self.written]

    def forget_unwritten(self) -> None:
        """What was handed out or settled since the last writing is as if it had not been."""
        if self.queue.state_every is None:
            return
        self._write(self.engine.clock._now)
        changed = {delivery for delivery in self.unwritten if delivery.changed > self.written}
        at_head = self.queue.requeue == "head"
        for delivery in sorted(changed, key=lambda one: one.nth, reverse=at_head):
            if delivery.settled:
                delivery.settled = False
                self.engine.revive(delivery.message)
                self._enter(delivery, at_head)
                self._drop_old(delivery)
            elif delivery.out:
                self._returned(delivery)
                self._join(delivery, at_head)
                self._drop_old(delivery)
        self.unwritten.clear()
        self.written, self.due = -math.inf, math.inf

    def forget_uncommitted(self) -> None:
        """The consumers' part died: what it acknowledged since it last committed is still out."""
        every = self.queue.commit_every
        if every is None:
            return
        assert self.kept is not None
        committed = max(math.floor(self.engine.clock._now / every) * every, self.given)
        for delivery in self.kept:
            if delivery.settled and delivery.changed > committed:
                self._reopen(delivery)

    def _reopen(self, delivery: Delivery) -> None:
        """The delivery is out, as if it had not been acknowledged."""
        self.engine.revive(delivery.message)
        self.engine.records.alive[delivery.message] += 1
        delivery.settled, delivery.out = False, True
        self.held[delivery] = None
        self.out[delivery.slot] += 1
        self.meter.change(self.engine.clock._now, unacknowledged=1)

    def power_lost(self) -> None:
        """What was published since the last flush is gone, as if it had never been."""
        every = self.queue.flush_every
        if every is None:
            return
        flushed = math.floor(self.engine.clock._now / every) * every
        if self.kept is not None:
            self.kept = [delivery for delivery in self.kept if delivery.published <= flushed]
        for delivery in sorted([*self.ready, *self.held], key=lambda one: one.nth):
            if delivery.published > flushed:
                if not delivery.out:
                    self._leave(delivery)
                    self.meter.change(self.engine.clock._now, waiting=-1)
                self.seen.pop(delivery.message, None)
                self._close(delivery)

    def disconnect(self) -> None:
        """The broker notices that the connection is closed: what was handed out over it comes back, in the order in which
        it was published."""
        self.closed = True
        self.put_all_back()

    def put_all_back(self) -> None:
        """What was handed out is ready again."""
        for delivery in sorted(self.held, key=lambda one: one.nth, reverse=self.queue.requeue == "head"):
            self._put_back(delivery)
