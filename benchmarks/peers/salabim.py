"""salabim, yieldless, its monitors and trace off."""

from __future__ import annotations

import random
from statistics import fmean

import salabim as sim

from benchmarks.peers import model
from benchmarks.peers.model import Answer, Broker, Delivery


class Plant(sim.Environment):
    """What all components share."""

    def setup(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.service, self.cpu, self.database = (
            sim.Resource(capacity=capacity, monitor=False, env=self)
            for capacity in (model.SERVICES, 1, model.DATABASES)
        )
        self.local = [sim.Store(monitor=False, env=self) for _ in range(model.CONSUMERS)]
        self.broker = Broker(lambda delivery: delivery.activate(process="travel"))
        self.times: list[float] = []
        self.attempts = 0


class Source(sim.Component):
    def process(self, messages: int, visitor: type[sim.Component]) -> None:
        for _ in range(messages):
            self.hold(self.env.draw.expovariate(1 / model.INTERARRIVAL))
            visitor(env=self.env)


class Job(sim.Component):
    def process(self) -> None:
        issued = self.env.now()
        for attempt in range(model.ATTEMPTS):
            self.env.attempts += 1
            self.call = Call(job=self, issued=issued, env=self.env)
            self.hold(model.TIMEOUT)
            if self.call is None:
                return
            self.call = None
            if attempt < model.ATTEMPTS - 1:
                self.hold(model.BACKOFF * 2**attempt)


class Call(sim.Component):
    def process(self, job: Job, issued: float) -> None:
        env = self.env
        self.request(env.service)
        self.hold(env.draw.expovariate(1 / model.SERVICE))
        self.release(env.service)
        if env.draw.random() < model.CALL_FAILS:
            return
        self.hold(model.TRANSIT)
        env.broker.publish(Item(issued=issued, env=env))
        self.hold(model.TRANSIT)
        if job.call is self:
            job.call = None
            job.activate()


class Item(sim.Component, Delivery):
    """What lies in a store has to be a component: this one moves itself."""

    def setup(self, issued: float) -> None:
        Delivery.__init__(self, issued)

    def travel(self) -> None:
        self.hold(model.TRANSIT)
        self.to_store(self.env.local[self.slot], self)

    def acknowledge(self) -> None:
        self.hold(model.TRANSIT)
        self.env.broker.settle(self)

    def refuse(self) -> None:
        self.hold(model.TRANSIT)
        if self.number == model.DELIVERIES:
            self.env.broker.settle(self)
        else:
            self.hold(model.NACK_DELAY)
            self.env.broker.again(self)


class Consumer(sim.Component):
    def process(self, number: int) -> None:
        env = self.env
        while True:
            delivery = self.from_store(env.local[number])
            self.request(env.cpu)
            self.hold(env.draw.expovariate(1 / model.HANDLER))
            self.release(env.cpu)
            self.request(env.database)
            self.hold(env.draw.expovariate(1 / model.DATABASE))
            self.release(env.database)
            if env.draw.random() < model.HANDLER_FAILS:
                delivery.activate(process="refuse")
            else:
                env.times.append(env.now() - delivery.issued)
                delivery.activate(process="acknowledge")


def message_queue(messages: int, seed: int) -> Answer:
    """The message queue."""
    plant = Plant(seed=seed, trace=False, yieldless=True)
    Source(messages=messages, visitor=Job, env=plant)
    for number in range(model.CONSUMERS):
        Consumer(number=number, env=plant)
    plant.run()
    return Answer(fmean(plant.times), plant.attempts / messages, plant.broker.deliveries / messages)


class Visitor(sim.Component):
    def serve(self, station: sim.Resource, mean: float) -> None:
        self.request(station)
        self.hold(self.env.draw.expovariate(1 / mean))
        self.release(station)

    def process(self) -> None:
        env, issued = self.env, self.env.now()
        self.serve(env.service, model.SERVICE)
        while True:
            self.serve(env.cpu, model.HANDLER)
            self.serve(env.database, model.DATABASE)
            if env.draw.random() >= model.HANDLER_FAILS:
                break
            self.hold(model.NACK_DELAY)
        env.times.append(env.now() - issued)


def tandem(messages: int, seed: int) -> float:
    """Stations in a row with feedback."""
    plant = Plant(seed=seed, trace=False, yieldless=True)
    Source(messages=messages, visitor=Visitor, env=plant)
    plant.run()
    return fmean(plant.times)
