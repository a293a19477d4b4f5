"""What both sagas' oracles tell alike, in plain SimPy: the services and their queues, how a step is done, refused and undone.

It continues the message queue's oracle, whose broker and sides sagas have too, and shares nothing with the flow's blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from simlib.architectures.ground import OK, REFUSED, TIMED_OUT, Known, Side, Story, Units, had
from simlib.architectures.message_queue.oracle import Delivery, Published, Queue, Simulation
from simlib.domain import RESERVE, RESTOCKED
from simlib.scenario import UNDOING_FAILED, Scenario

if TYPE_CHECKING:
    from simlib.architectures.saga.base import Saga


class Sagas(Simulation):
    """One run; what a style does with orders is its own."""

    def __init__(self, p: Saga, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)  # type: ignore[arg-type]
        self.saga, self.steps = p, scenario.steps
        self.undo_queues = {
            step: self.queue(f"{step}.undo", self.at[step], partial(self.undo, step)) for step in self.steps
        }
        self.undone: dict[str, dict[int, Known]] = {step: {} for step in self.steps}
        self.balance: dict[tuple[int, str], int] = {}
        self.taken_back = np.zeros(messages, int)
        self.locks = [Units(self.env) for _ in range(scenario.goods.skus)]
        self.locked: dict[int, Any] = {}

    def queue(self, name: str, side: Side, body: Callable[[Delivery], Story]) -> Queue:
        """A further queue, with its consumers."""
        queue = Queue(self.env, name, self.p)
        self.read(queue, side, body)
        return queue

    def order(self, message: int, place: int) -> Story:
        """A customer waits for the end of the saga, as long as that is."""
        yield from self.enter("order", self.shop, message, place)
        answer = self.answer_within(self.saga.answer_timeout)
        self.beside(self.go_through(message, place, answer))
        response = yield answer
        yield from self.leave("order", self.shop, message, place, response)

    def go_through(self, message: int, place: int, answer: simpy.Event) -> Story:
        """The saga of an order, to its end; whoever still waits is answered."""
        result = yield from self.begin(message, place)
        if not answer.triggered:
            answer.succeed(result)

    def begin(self, message: int, place: int) -> Story:
        """The saga of an order; what is answered."""
        raise NotImplementedError

    # --- what the shop remembers

    def remember(self, label: str, place: int) -> Story:
        if self.saga.durable_state:
            yield from self.ask_database(self.shop, f"saga.{label}.commit", place, commits=True)

    def lock(self, message: int) -> Story:
        if self.saga.semantic_locks and len(self.steps) > 1:
            self.locked[message] = self.locks[self.arrivals.sku[message]].request()
            yield from had(self.locked[message])

    def unlock(self, message: int) -> None:
        if message in self.locked:
            self.locks[self.arrivals.sku[message]].release(self.locked.pop(message))

    def restock(self, message: int, level: int, version: int) -> None:
        sku = self.arrivals.sku[message]
        if version > self.shop.version[sku]:
            self.shop.level[sku], self.shop.version[sku] = level, version
            self.happened(message, RESTOCKED)

    # --- what the services do

    def try_step(self, step: str, it: Published, attempt: int) -> Known:
        known = super().try_step(step, it, attempt)
        if known[0] == OK:
            self.balance[it.message, step] = self.balance.get((it.message, step), 0) + 1
        return known

    def heard(self, step: str, message: int, attempt: int, result: int) -> int:
        """What is heard of the result of a step."""
        return TIMED_OUT if result == OK and self.unheard(step, message, attempt) else result

    def announce(self, delivery: Delivery, level: int, version: int) -> Story:
        news = Published(delivery.of.message, self.env.event(), level, version)
        return (yield from self.publish("announce", self.accounting, self.changes(news.message), news, delivery.place))

    def undo(self, step: str, delivery: Delivery) -> Story:
        """The undoing of a step that was done; of another one, which then is never done."""
        it, side = delivery.of, self.at[step]
        if not (yield from self.handle(side, f"{self.work_of(step)}.undo", it.message, delivery.number)):
            return False
        if self.meets(self.scenario.undoing_failed, f"{UNDOING_FAILED}.{step}", it.message, delivery.number):
            return False
        yield from self.ask_database(side, f"{step}.undo.{side.name}.commit", delivery.place, commits=True)
        done = self.known[step].setdefault(it.message, (REFUSED, it.level, it.version))
        if done[0] == OK:
            if it.message not in self.undone[step]:
                level, version = self.change(it.message, +1) if step == RESERVE else done[1:]
                self.undone[step][it.message] = OK, level, version
                self.taken_back[it.message] += 1
                self.balance[it.message, step] -= 1
            done = self.undone[step][it.message]
        return (yield from self.after_undoing(step, delivery, *done))

    def after(self, step: str, delivery: Delivery, result: int, level: int, version: int) -> Story:
        raise NotImplementedError

    def after_undoing(self, step: str, delivery: Delivery, result: int, level: int, version: int) -> Story:
        raise NotImplementedError

    def told(self) -> dict[str, np.ndarray]:
        """The run, to the time when nothing is under way any more: as the message queue's, and `compensated`, 1 where something
        was undone and nothing of what was done is left."""
        told = self.run("deliveries", "parked")
        left = np.zeros(len(self.issued), int)
        for (message, _), times in self.balance.items():
            left[message] += times != 0
        compensated = (self.taken_back > 0) & (left == 0)
        return {**told, "compensated": compensated.astype(int)}
