"""An orchestrated saga as a textbook would write it in SimPy: a process that asks one service after the other.

It tells the story of `model.py` and shares nothing with the flow's blocks and their engine, so that each checks the
other: the happy path, and the pattern's signature faults, a step that is refused, a step of which nobody hears, an undoing
that fails. A scenario's faults (loss, crash, poison) are left out. Numbers are drawn from the model's streams at the
model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import simpy

from simlib import draws
from simlib.architectures.message_queue.oracle import OK, REFUSED, TIMED_OUT, Delivery, Published, Queue, Side, Story
from simlib.architectures.saga.story import Known, Sagas
from simlib.domain import RESERVE
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.saga.orchestrated.model import Orchestrated


class Simulation(Sagas):
    """One run."""

    saga: Orchestrated

    def begin(self, message: int, place: int) -> Story:
        """Step by step; back from the last that may have been done, where one was not."""
        asked, answer = [], (OK, -1, -1)
        for step in self.steps:
            yield from self.remember(step, place)
            if step == RESERVE:
                yield from self.lock(message)
            label = "order" if step == RESERVE else step
            answer = yield from self.request(label, self.queues[step], message, answer, place)
            if answer[0] != REFUSED:
                asked.append(step)
            if answer[0] != OK:
                break
        else:
            yield from self.remember("done", place)
            self.unlock(message)
            return OK
        for step in reversed(asked if self.saga.compensation else []):
            answer = yield from self.have_undone(step, message, answer, place)
        yield from self.remember("over", place)
        self.unlock(message)
        return REFUSED

    def have_undone(self, step: str, message: int, answer: Known, place: int) -> Story:
        """Ask for it until somebody answers."""
        name = f"{step}.undo"
        yield from self.remember(name, place)
        for attempt in range(self.saga.undo_retries + 1):
            at = draws.fold(place, attempt)
            answer = yield from self.request(name, self.undo_queues[step], message, answer, at)
            if answer[0] != TIMED_OUT:
                break
        if step == RESERVE and answer[0] == OK:
            yield from self.ask_database(self.shop, "saga.restock.commit", place, commits=True)
            self.restock(message, *answer[1:])
        return answer

    def request(self, label: str, queue: Queue, message: int, before: Known, place: int) -> Story:
        """The answer of a service, or none in time."""
        it = Published(message, self.env.event(), *before[1:], replied=self.env.event())
        assert it.replied is not None
        yield from self.send_published(self.shop, label, place)
        self.env.process(self.store(label, self.shop, queue, it, place))
        yield it.replied | self.env.timeout(self.saga.step_timeout)
        if not it.replied.triggered:
            return TIMED_OUT, *before[1:]
        answer = it.replied.value
        yield from self.take_confirm(self.shop, label, place)
        return answer

    def after(self, step: str, delivery: Delivery, result: int, level: int, version: int) -> Story:
        if self.heard(step, delivery.of.message, delivery.number, result) != TIMED_OUT:
            self.answer_with(self.queues[step].name, step, delivery, (result, level, version))
        if step == RESERVE and result == OK:
            return (yield from self.announce(delivery, level, version)) == OK
        return True

    def after_undoing(self, step: str, delivery: Delivery, result: int, level: int, version: int) -> Story:
        self.answer_with(f"{step}.undo", step, delivery, (result, level, version))
        yield from ()
        return True

    def answer_with(self, name: str, step: str, delivery: Delivery, answer: Known) -> None:
        assert delivery.of.replied is not None
        self.env.process(self.send_back(name, self.at[step], delivery.of.replied, answer, delivery.place))

    def send_back(self, name: str, side: Side, replied: simpy.Event, answer: Known, place: int) -> Story:
        yield self.time(self.p.uplink, f"{name}.reply.there.from.{side.name}", place)
        yield self.time(self.p.uplink, f"{name}.reply.back.from.broker", place)
        if not replied.triggered:
            replied.succeed(answer)


def run(parameters: Orchestrated, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run: see `Sagas.told`."""
    return Simulation(parameters, scenario, seed, messages).told()
