"""A choreographed saga as a textbook would write it in SimPy: each service's process tells the next, or the one before.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, and the pattern's signature faults, a step that is refused, a step of which nobody hears, an undoing
that fails. A scenario's faults (loss, crash, poison) are left out. Numbers are drawn from the model's streams at the
model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import simpy

from simlib.architectures.message_queue.oracle import OK, REFUSED, TIMED_OUT, Delivery, Published, Queue, Story
from simlib.architectures.saga.story import Sagas
from simlib.domain import RESERVE
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.saga.choreographed.model import Choreographed


@dataclass
class Event(Published):
    """What a service tells another: what its step came to."""

    result: int = OK


class Simulation(Sagas):
    """One run."""

    saga: Choreographed

    def __init__(self, p: Choreographed, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        self.completed = self.queue("completed", self.shop, self.complete)
        self.cancelled = self.queue("cancelled", self.shop, self.cancel)
        self.answered: dict[int, simpy.Event] = {}
        self.confirmed: set[int] = set()
        self.ended: set[int] = set()

    def begin(self, message: int, place: int) -> Story:
        """Publish the order, and wait to hear of its end; have it undone where that takes too long."""
        yield from self.remember("begun", place)
        yield from self.lock(message)
        answered = self.answered[message] = self.env.event()
        order = Published(message, self.env.event())
        yield from self.publish("order", self.shop, self.orders, order, place)
        yield answered | self.env.timeout(self.saga.deadline)
        if answered.triggered:
            return OK if message in self.confirmed else REFUSED
        if not self.saga.compensation:
            self.unlock(message)
            return TIMED_OUT
        late = Published(message, self.env.event())
        yield from self.publish("order.late", self.shop, self.undo_queues[self.steps[-1]], late, place)
        return REFUSED

    def after(self, step: str, delivery: Delivery, result: int, level: int, version: int) -> Story:
        k = self.steps.index(step)
        if step == RESERVE and result == OK and (yield from self.announce(delivery, level, version)) != OK:
            return False
        heard = self.heard(step, delivery.of.message, delivery.number, result)
        if heard == TIMED_OUT:
            return True
        if heard == REFUSED:
            return (yield from self.back(k, step, delivery, result, level, version))
        if k + 1 == len(self.steps):
            return (yield from self.pass_on("completed", step, self.completed, delivery, result, level, version))
        onward = self.steps[k + 1]
        return (yield from self.pass_on(onward, step, self.queues[onward], delivery, result, level, version))

    def after_undoing(self, step: str, delivery: Delivery, result: int, level: int, version: int) -> Story:
        return (yield from self.back(self.steps.index(step), f"{step}.undone", delivery, result, level, version))

    def back(self, k: int, label: str, delivery: Delivery, result: int, level: int, version: int) -> Story:
        """To the step before, or to the shop."""
        last = k == 0 or not self.saga.compensation
        queue = self.cancelled if last else self.undo_queues[self.steps[k - 1]]
        label = f"{label}.{'cancelled' if last else 'undo'}"
        return (yield from self.pass_on(label, self.steps[k], queue, delivery, result, level, version))

    def pass_on(
        self, label: str, step: str, queue: Queue, delivery: Delivery, result: int, level: int, version: int
    ) -> Story:
        event = Event(delivery.of.message, self.env.event(), level, version, result=result)
        return (yield from self.publish(label, self.at[step], queue, event, delivery.place)) == OK

    # --- what the shop hears

    def complete(self, delivery: Delivery) -> Story:
        yield from self.ask_database(self.shop, "completed.shop.commit", delivery.place, commits=True)
        self.confirmed.add(delivery.of.message)
        self.end(delivery.of.message)
        return True

    def cancel(self, delivery: Delivery) -> Story:
        it = delivery.of
        assert isinstance(it, Event)
        yield from self.ask_database(self.shop, "cancelled.shop.commit", delivery.place, commits=True)
        if it.result == OK:
            self.restock(it.message, it.level, it.version)
        self.end(it.message)
        return True

    def end(self, message: int) -> None:
        """The lock is free, and the customer hears of it; once."""
        if message not in self.ended:
            self.ended.add(message)
            self.unlock(message)
        if not self.answered[message].triggered:
            self.answered[message].succeed()


def run(parameters: Choreographed, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run: see `Sagas.told`."""
    return Simulation(parameters, scenario, seed, messages).told()
