"""asimpy: processes are classes whose `run` is asynchronous."""

from __future__ import annotations

import random
from statistics import fmean

from asimpy import Environment, Event, FirstOf, Process, Queue, Resource

from benchmarks.peers import model
from benchmarks.peers.model import Answer, Broker, Delivery


class Plant:
    """What all processes share."""

    def __init__(self, seed: int) -> None:
        self.env, self.draw = Environment(), random.Random(seed)
        self.service = Resource(self.env, model.SERVICES)
        self.cpu, self.database = Resource(self.env), Resource(self.env, model.DATABASES)
        self.local = [Queue(self.env) for _ in range(model.CONSUMERS)]
        self.broker = Broker(lambda delivery: Arrival(self.env, self, delivery))
        self.times: list[float] = []
        self.attempts = 0


class Source(Process):
    def init(self, plant: Plant, messages: int, visitor: type[Process]) -> None:
        self.plant, self.messages, self.visitor = plant, messages, visitor

    async def run(self) -> None:
        for _ in range(self.messages):
            await self.timeout(self.plant.draw.expovariate(1 / model.INTERARRIVAL))
            self.visitor(self._env, self.plant)


class Job(Process):
    def init(self, plant: Plant) -> None:
        self.plant = plant

    async def run(self) -> None:
        issued = self.now
        for attempt in range(model.ATTEMPTS):
            self.plant.attempts += 1
            answer = Event(self._env)
            Call(self._env, self.plant, issued, answer)
            first, _ = await FirstOf(self._env, answer=answer, timeout=self.timeout(model.TIMEOUT))
            if first == "answer":
                return
            if attempt < model.ATTEMPTS - 1:
                await self.timeout(model.BACKOFF * 2**attempt)


class Call(Process):
    def init(self, plant: Plant, issued: float, answer: Event) -> None:
        self.plant, self.issued, self.answer = plant, issued, answer

    async def run(self) -> None:
        draw = self.plant.draw
        async with self.plant.service:
            await self.timeout(draw.expovariate(1 / model.SERVICE))
        if draw.random() < model.CALL_FAILS:
            return
        await self.timeout(model.TRANSIT)
        self.plant.broker.publish(Delivery(self.issued))
        await self.timeout(model.TRANSIT)
        self.answer.succeed()


class Arrival(Process):
    def init(self, plant: Plant, delivery: Delivery) -> None:
        self.plant, self.delivery = plant, delivery

    async def run(self) -> None:
        await self.timeout(model.TRANSIT)
        await self.plant.local[self.delivery.slot].put(self.delivery)


class Consumer(Process):
    def init(self, plant: Plant, number: int) -> None:
        self.plant, self.number = plant, number

    async def run(self) -> None:
        plant, draw = self.plant, self.plant.draw
        while True:
            delivery = await plant.local[self.number].get()
            async with plant.cpu:
                await self.timeout(draw.expovariate(1 / model.HANDLER))
            async with plant.database:
                await self.timeout(draw.expovariate(1 / model.DATABASE))
            good = draw.random() >= model.HANDLER_FAILS
            if good:
                plant.times.append(self.now - delivery.issued)
            Settlement(self._env, plant.broker, delivery, good)


class Settlement(Process):
    def init(self, broker: Broker, delivery: Delivery, good: bool) -> None:
        self.broker, self.delivery, self.good = broker, delivery, good

    async def run(self) -> None:
        await self.timeout(model.TRANSIT)
        if self.good or self.delivery.number == model.DELIVERIES:
            self.broker.settle(self.delivery)
        else:
            await self.timeout(model.NACK_DELAY)
            self.broker.again(self.delivery)


def message_queue(messages: int, seed: int) -> Answer:
    """The message queue."""
    plant = Plant(seed)
    Source(plant.env, plant, messages, Job)
    for number in range(model.CONSUMERS):
        Consumer(plant.env, plant, number)
    plant.env.run()
    return Answer(fmean(plant.times), plant.attempts / messages, plant.broker.deliveries / messages)


class Visitor(Process):
    def init(self, plant: Plant) -> None:
        self.plant = plant

    async def serve(self, station: Resource, mean: float) -> None:
        async with station:
            await self.timeout(self.plant.draw.expovariate(1 / mean))

    async def run(self) -> None:
        plant, issued = self.plant, self.now
        await self.serve(plant.service, model.SERVICE)
        while True:
            await self.serve(plant.cpu, model.HANDLER)
            await self.serve(plant.database, model.DATABASE)
            if plant.draw.random() >= model.HANDLER_FAILS:
                break
            await self.timeout(model.NACK_DELAY)
        plant.times.append(self.now - issued)


def tandem(messages: int, seed: int) -> float:
    """Stations in a row with feedback."""
    plant = Plant(seed)
    Source(plant.env, plant, messages, Visitor)
    plant.env.run()
    return fmean(plant.times)
