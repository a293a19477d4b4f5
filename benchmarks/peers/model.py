"""The message queue in numbers, what its broker decides, and what a run answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

INTERARRIVAL, SERVICE, HANDLER, DATABASE = 0.005, 0.02, 0.002, 0.005
"""Means of exponential times, s."""
TRANSIT, TIMEOUT, NACK_DELAY = 0.0001, 0.5, 0.05
SERVICES, DATABASES, CONSUMERS, PREFETCH = 8, 2, 4, 5
CALL_FAILS, HANDLER_FAILS = 0.01, 0.05
ATTEMPTS, DELIVERIES = 4, 4
BACKOFF = 0.05
"""Before the second attempt, s; twice as long before each one after it."""


class Answer(NamedTuple):
    """Of one run of the message queue: mean time from issue to effect (s), calls and deliveries of a message."""

    time: float
    attempts: float
    deliveries: float


class Delivery:
    """A message in the broker's hands."""

    __slots__ = ("issued", "number", "slot")

    def __init__(self, issued: float) -> None:
        self.issued, self.number, self.slot = issued, 0, -1


class Broker:
    """Hands deliveries to consumers with credit, in turn; `deliver` sends one on its way to its slot."""

    def __init__(self, deliver: Callable[[Delivery], object]) -> None:
        self.deliver = deliver
        self.ready: deque[Delivery] = deque()
        self.credit = [PREFETCH] * CONSUMERS
        self.turn = self.deliveries = 0

    def publish(self, delivery: Delivery) -> None:
        """A new delivery, at the end of the queue."""
        self.ready.append(delivery)
        self.dispatch()

    def again(self, delivery: Delivery) -> None:
        """What was refused, at the head."""
        self.ready.appendleft(delivery)
        self.settle(delivery)

    def settle(self, delivery: Delivery) -> None:
        """A consumer has room again."""
        self.credit[delivery.slot] += 1
        self.dispatch()

    def dispatch(self) -> None:
        """Hand out what is ready while there is credit."""
        while self.ready:
            for i in range(CONSUMERS):
                slot = (self.turn + i) % CONSUMERS
                if self.credit[slot]:
                    break
            else:
                return
            self.turn = (slot + 1) % CONSUMERS
            self.credit[slot] -= 1
            delivery = self.ready.popleft()
            delivery.slot = slot
            delivery.number += 1
            self.deliveries += 1
            self.deliver(delivery)
