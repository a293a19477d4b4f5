"""A loop over a heap of events, in plain Python: no simulator."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from statistics import fmean
from typing import Any

from benchmarks.peers import model
from benchmarks.peers.model import Answer, Broker, Delivery


class Loop:
    """Calls what is due, in order of time."""

    def __init__(self) -> None:
        self.now, self.count = 0.0, 0
        self.due: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []

    def after(self, delay: float, what: Callable[..., object], *arguments: Any) -> None:
        self.count += 1
        heappush(self.due, (self.now + delay, self.count, what, arguments))

    def run(self) -> None:
        while self.due:
            self.now, _, what, arguments = heappop(self.due)
            what(*arguments)


class Station:
    """Servers with one queue: whoever came first is served first."""

    def __init__(self, loop: Loop, servers: int, draw: Callable[[], float]) -> None:
        self.loop, self.free, self.draw = loop, servers, draw
        self.waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def serve(self, then: Callable[..., object], *arguments: Any) -> None:
        if self.free:
            self.free -= 1
            self.loop.after(self.draw(), self.done, then, arguments)
        else:
            self.waiting.append((then, arguments))

    def done(self, then: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if self.waiting:
            self.loop.after(self.draw(), self.done, *self.waiting.popleft())
        else:
            self.free += 1
        then(*arguments)


class Job:
    """A caller and the attempt that it waits for; 0 where it waits for none."""

    __slots__ = ("attempts", "issued", "waits_for")

    def __init__(self, issued: float) -> None:
        self.issued, self.attempts, self.waits_for = issued, 0, 0


def message_queue(messages: int, seed: int) -> Answer:
    """The message queue."""
    loop, draw = Loop(), random.Random(seed)
    service = Station(loop, model.SERVICES, lambda: draw.expovariate(1 / model.SERVICE))
    cpu = Station(loop, 1, lambda: draw.expovariate(1 / model.HANDLER))
    database = Station(loop, model.DATABASES, lambda: draw.expovariate(1 / model.DATABASE))
    local: list[deque[Delivery]] = [deque() for _ in range(model.CONSUMERS)]
    idle = [True] * model.CONSUMERS
    times: list[float] = []
    attempts = 0

    def arrival(left: int) -> None:
        attempt(Job(loop.now))
        if left:
            loop.after(draw.expovariate(1 / model.INTERARRIVAL), arrival, left - 1)

    def attempt(job: Job) -> None:
        nonlocal attempts
        attempts += 1
        job.attempts += 1
        job.waits_for = job.attempts
        loop.after(model.TIMEOUT, answer, job, job.attempts, False)
        service.serve(served, job, job.attempts)

    def served(job: Job, number: int) -> None:
        if draw.random() < model.CALL_FAILS:
            return
        loop.after(model.TRANSIT, published, job, number)

    def published(job: Job, number: int) -> None:
        broker.publish(Delivery(job.issued))
        loop.after(model.TRANSIT, answer, job, number, True)

    def answer(job: Job, number: int, good: bool) -> None:
        if job.waits_for != number:
            return
        job.waits_for = 0
        if not good and job.attempts < model.ATTEMPTS:
            loop.after(model.BACKOFF * 2 ** (job.attempts - 1), attempt, job)

    def arrive(delivery: Delivery) -> None:
        slot = delivery.slot
        if idle[slot]:
            idle[slot] = False
            cpu.serve(handled, delivery)
        else:
            local[slot].append(delivery)

    def handled(delivery: Delivery) -> None:
        database.serve(written, delivery)

    def written(delivery: Delivery) -> None:
        if draw.random() >= model.HANDLER_FAILS:
            times.append(loop.now - delivery.issued)
            loop.after(model.TRANSIT, broker.settle, delivery)
        elif delivery.number == model.DELIVERIES:
            loop.after(model.TRANSIT, broker.settle, delivery)
        else:
            loop.after(model.TRANSIT + model.NACK_DELAY, broker.again, delivery)
        if local[delivery.slot]:
            cpu.serve(handled, local[delivery.slot].popleft())
        else:
            idle[delivery.slot] = True

    broker = Broker(lambda delivery: loop.after(model.TRANSIT, arrive, delivery))
    loop.after(draw.expovariate(1 / model.INTERARRIVAL), arrival, messages - 1)
    loop.run()
    return Answer(fmean(times), attempts / messages, broker.deliveries / messages)


def tandem(messages: int, seed: int) -> float:
    """Stations in a row with feedback."""
    loop, draw = Loop(), random.Random(seed)
    service = Station(loop, model.SERVICES, lambda: draw.expovariate(1 / model.SERVICE))
    cpu = Station(loop, 1, lambda: draw.expovariate(1 / model.HANDLER))
    database = Station(loop, model.DATABASES, lambda: draw.expovariate(1 / model.DATABASE))
    times: list[float] = []

    def arrival(left: int) -> None:
        service.serve(work, loop.now)
        if left:
            loop.after(draw.expovariate(1 / model.INTERARRIVAL), arrival, left - 1)

    def work(issued: float) -> None:
        cpu.serve(handled, issued)

    def handled(issued: float) -> None:
        database.serve(written, issued)

    def written(issued: float) -> None:
        if draw.random() < model.HANDLER_FAILS:
            loop.after(model.NACK_DELAY, work, issued)
        else:
            times.append(loop.now - issued)

    loop.after(draw.expovariate(1 / model.INTERARRIVAL), arrival, messages - 1)
    loop.run()
    return fmean(times)
