"""SimPy, by hand."""

from __future__ import annotations

import random
from collections.abc import Generator
from statistics import fmean
from typing import Any

import simpy

from benchmarks.peers import model
from benchmarks.peers.model import Answer, Broker, Delivery

Waits = Generator[simpy.Event, Any, None]


def message_queue(messages: int, seed: int) -> Answer:
    """The message queue."""
    env, draw = simpy.Environment(), random.Random(seed)
    service = simpy.Resource(env, model.SERVICES)
    cpu, database = simpy.Resource(env), simpy.Resource(env, model.DATABASES)
    local = [simpy.Store(env) for _ in range(model.CONSUMERS)]
    times: list[float] = []
    attempts = 0

    def source() -> Waits:
        for _ in range(messages):
            yield env.timeout(draw.expovariate(1 / model.INTERARRIVAL))
            env.process(job())

    def job() -> Waits:
        nonlocal attempts
        issued = env.now
        for attempt in range(model.ATTEMPTS):
            attempts += 1
            answer = env.event()
            env.process(call(issued, answer))
            yield answer | env.timeout(model.TIMEOUT)
            if answer.triggered:
                return
            if attempt < model.ATTEMPTS - 1:
                yield env.timeout(model.BACKOFF * 2**attempt)

    def call(issued: float, answer: simpy.Event) -> Waits:
        with service.request() as request:
            yield request
            yield env.timeout(draw.expovariate(1 / model.SERVICE))
        if draw.random() < model.CALL_FAILS:
            return
        yield env.timeout(model.TRANSIT)
        broker.publish(Delivery(issued))
        yield env.timeout(model.TRANSIT)
        answer.succeed()

    def arrive(delivery: Delivery) -> Waits:
        yield env.timeout(model.TRANSIT)
        local[delivery.slot].put(delivery)

    def consume(consumer: int) -> Waits:
        while True:
            delivery = yield local[consumer].get()
            with cpu.request() as request:
                yield request
                yield env.timeout(draw.expovariate(1 / model.HANDLER))
            with database.request() as request:
                yield request
                yield env.timeout(draw.expovariate(1 / model.DATABASE))
            if draw.random() < model.HANDLER_FAILS:
                env.process(refuse(delivery))
            else:
                times.append(env.now - delivery.issued)
                env.process(acknowledge(delivery))

    def acknowledge(delivery: Delivery) -> Waits:
        yield env.timeout(model.TRANSIT)
        broker.settle(delivery)

    def refuse(delivery: Delivery) -> Waits:
        yield env.timeout(model.TRANSIT)
        if delivery.number == model.DELIVERIES:
            broker.settle(delivery)
        else:
            yield env.timeout(model.NACK_DELAY)
            broker.again(delivery)

    broker = Broker(lambda delivery: env.process(arrive(delivery)))
    env.process(source())
    for consumer in range(model.CONSUMERS):
        env.process(consume(consumer))
    env.run()
    return Answer(fmean(times), attempts / messages, broker.deliveries / messages)


def tandem(messages: int, seed: int) -> float:
    """Stations in a row with feedback."""
    env, draw = simpy.Environment(), random.Random(seed)
    service = simpy.Resource(env, model.SERVICES)
    cpu, database = simpy.Resource(env), simpy.Resource(env, model.DATABASES)
    times: list[float] = []

    def serve(station: simpy.Resource, mean: float) -> Waits:
        with station.request() as request:
            yield request
            yield env.timeout(draw.expovariate(1 / mean))

    def source() -> Waits:
        for _ in range(messages):
            yield env.timeout(draw.expovariate(1 / model.INTERARRIVAL))
            env.process(job())

    def job() -> Waits:
        issued = env.now
        yield from serve(service, model.SERVICE)
        while True:
            yield from serve(cpu, model.HANDLER)
            yield from serve(database, model.DATABASE)
            if draw.random() >= model.HANDLER_FAILS:
                break
            yield env.timeout(model.NACK_DELAY)
        times.append(env.now - issued)

    env.process(source())
    env.run()
    return fmean(times)
