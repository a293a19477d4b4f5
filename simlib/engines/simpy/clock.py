"""SimPy's clock, with events at an absolute time under a key."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any

import simpy


class Timed(simpy.Event):
    """An event of SimPy's that is triggered from the start and calls one back."""

    def __init__(self, clock: Clock, callback: Callable[[Any], None], value: Exception | None) -> None:
        self.env, self.callbacks, self._ok, self._value = clock, [callback], True, value


class Clock(simpy.Environment):
    """SimPy's environment, with events at an absolute time under a key."""

    def at(self, time: float, key: int, callback: Callable[[Any], None], value: Exception | None = None) -> simpy.Event:
        """Call back at `time`, in the order of the key."""
        event = Timed(self, callback, value)
        queue: list[Any] = self._queue
        heappush(queue, (time, key, next(self._eid), event))
        return event


def cancel(event: simpy.Event | None) -> None:
    """A timed event that is pending calls nobody back."""
    if event is not None and event.callbacks:
        event.callbacks.clear()
