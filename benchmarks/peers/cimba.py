"""cimba: the model's methods are compiled, its processes are coroutines of a C engine."""

from __future__ import annotations

import cimba as cb
from cimba import random

from benchmarks.peers import model
from benchmarks.peers.model import Answer

INTERARRIVAL, SERVICE, HANDLER, DATABASE = model.INTERARRIVAL, model.SERVICE, model.HANDLER, model.DATABASE
TRANSIT, TIMEOUT, NACK_DELAY, BACKOFF = model.TRANSIT, model.TIMEOUT, model.NACK_DELAY, model.BACKOFF
CONSUMERS, CALL_FAILS, HANDLER_FAILS = model.CONSUMERS, model.CALL_FAILS, model.HANDLER_FAILS
ATTEMPTS, DELIVERIES = model.ATTEMPTS, model.DELIVERIES
ANSWERED, TIMED_OUT = 1, 2


class Consumer(cb.Model):
    plant: cb.Ref[Plant]
    local: cb.Store[Call]

    @cb.process
    def work(self):
        plant = self.plant
        while True:
            job = self.local.get()
            plant.cpu.acquire()
            cb.hold(random.exponential(HANDLER))
            plant.cpu.release()
            plant.database.acquire()
            cb.hold(random.exponential(DATABASE))
            plant.database.release()
            if random.bernoulli(HANDLER_FAILS):
                cb.schedule(job.refuse, TRANSIT)
            else:
                plant.times.record(cb.now() - job.issued)
                cb.schedule(job.acknowledge, TRANSIT)


class Call(cb.Model):
    """The far side of a call, which becomes the delivery."""

    plant: cb.Ref[Plant]
    caller: int
    issued: float
    slot: int = 0
    number: int = 0

    @cb.process
    def serve(self):
        plant = self.plant
        plant.service.acquire()
        cb.hold(random.exponential(SERVICE))
        plant.service.release()
        if not random.bernoulli(CALL_FAILS):
            cb.hold(TRANSIT)
            plant.publish(self)
            cb.hold(TRANSIT)
            cb.Process(self.caller).resume(ANSWERED)

    @cb.event
    def arrive(self):
        self.plant.consumers[self.slot].local.put(self)

    @cb.event
    def acknowledge(self):
        plant = self.plant
        plant.credit[self.slot] += 1
        if plant.ready.length() > 0:
            plant.publish(plant.ready.get())

    @cb.event
    def refuse(self):
        if self.number == DELIVERIES:
            cb.schedule(self.acknowledge, 0.0)
        else:
            cb.schedule(self.again, NACK_DELAY)

    @cb.event
    def again(self):
        self.plant.credit[self.slot] += 1
        self.plant.publish(self)


class Job(cb.Model):
    plant: cb.Ref[Plant]

    @cb.process
    def call(self):
        issued = cb.now()
        me = cb.this_process()
        backoff = BACKOFF
        for attempt in range(ATTEMPTS):
            if attempt > 0:
                cb.hold(backoff)
                backoff *= 2
            self.plant.attempts += 1
            me.timer_set(TIMEOUT, TIMED_OUT)
            cb.spawn(Call, plant=self.plant, caller=me.pointer, issued=issued)
            answer = cb.suspend()
            me.timers_clear()
            if answer == ANSWERED:
                break


class Plant(cb.Model):
    messages: cb.Param[int]
    service: cb.Resource = cb.Resource(capacity=model.SERVICES)
    cpu: cb.Resource = cb.Resource(capacity=1)
    database: cb.Resource = cb.Resource(capacity=model.DATABASES)
    consumers: list[Consumer]
    ready: cb.Store[Call]
    credit: cb.Array[int] = cb.Array([model.PREFETCH] * CONSUMERS)
    turn: int = 0
    times: cb.Dataset
    time: cb.Output[float]
    attempts: cb.Output[int] = 0
    deliveries: cb.Output[int] = 0

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.consumers = [Consumer() for _ in range(CONSUMERS)]
        for consumer in self.consumers:
            consumer.plant = self

    @cb.process
    def source(self):
        for _ in range(self.messages):
            cb.hold(random.exponential(INTERARRIVAL))
            cb.spawn(Job, plant=self)

    @cb.function
    def publish(self, job: Call) -> None:
        for i in range(CONSUMERS):
            slot = (self.turn + i) % CONSUMERS
            if self.credit[slot] > 0:
                self.turn = (slot + 1) % CONSUMERS
                self.credit[slot] -= 1
                self.deliveries += 1
                job.slot = slot
                job.number += 1
                cb.schedule(job.arrive, TRANSIT)
                return
        self.ready.put(job)

    @cb.on_end
    def answer(self):
        self.time = self.times.sample_mean()


def message_queue(messages: int, seed: int) -> Answer:
    """The message queue; the first run compiles it."""
    plant = Plant(messages)
    found = cb.Experiment(plant, seed=seed).run(workers=1, on_failure="raise")[plant]
    return Answer(
        float(found.time[0, 0]), float(found.attempts[0, 0]) / messages, float(found.deliveries[0, 0]) / messages
    )


class Visitor(cb.Model):
    tandem: cb.Ref[Tandem]

    @cb.process
    def visit(self):
        tandem = self.tandem
        issued = cb.now()
        tandem.service.acquire()
        cb.hold(random.exponential(SERVICE))
        tandem.service.release()
        while True:
            tandem.cpu.acquire()
            cb.hold(random.exponential(HANDLER))
            tandem.cpu.release()
            tandem.database.acquire()
            cb.hold(random.exponential(DATABASE))
            tandem.database.release()
            if not random.bernoulli(HANDLER_FAILS):
                break
            cb.hold(NACK_DELAY)
        tandem.times.record(cb.now() - issued)


class Tandem(cb.Model):
    messages: cb.Param[int]
    service: cb.Resource = cb.Resource(capacity=model.SERVICES)
    cpu: cb.Resource = cb.Resource(capacity=1)
    database: cb.Resource = cb.Resource(capacity=model.DATABASES)
    times: cb.Dataset
    time: cb.Output[float]

    def __init__(self, messages: int) -> None:
        self.messages = messages

    @cb.process
    def source(self):
        for _ in range(self.messages):
            cb.hold(random.exponential(INTERARRIVAL))
            cb.spawn(Visitor, tandem=self)

    @cb.on_end
    def answer(self):
        self.time = self.times.sample_mean()


def tandem(messages: int, seed: int) -> float:
    """Stations in a row with feedback; the first run compiles it."""
    plant = Tandem(messages)
    return float(cb.Experiment(plant, seed=seed).run(workers=1, on_failure="raise")[plant].time[0, 0])
