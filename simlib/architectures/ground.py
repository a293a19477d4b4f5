"""What the oracles stand on, in plain SimPy: nothing here knows the flow's blocks and their engines."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from simlib import draws
from simlib.distributions import Distribution

Story = Generator[simpy.Event, Any, Any]


class GroupCommit:
    """A log of which one flush serves all who wait when it is free. `number` is that of its process among the model's actors,
    `deliveries` counts how often each message was flushed."""

    def __init__(
        self,
        env: simpy.Environment,
        log: simpy.Resource,
        time: Distribution,
        stream: int,
        number: int,
        deliveries: np.ndarray,
    ) -> None:
        self.env, self.log, self.deliveries = env, log, deliveries
        self.time, self.entity = time.draw(stream), draws.fold(0, -1 - number)
        self.waiting: list[tuple[int, simpy.Event]] = []
        self.awaited = env.event()
        env.process(self.flush_for_ever())

    def flush(self, message: int) -> Story:
        """Wait for a flush."""
        done = self.env.event()
        self.waiting.append((message, done))
        if not self.awaited.triggered:
            self.awaited.succeed()
        yield done

    def flush_for_ever(self) -> Story:
        for flushes in itertools.count():
            if not self.waiting:
                self.awaited = self.env.event()
                yield self.awaited
            with self.log.request() as turn:
                yield turn
                together, self.waiting = self.waiting, []
                for message, _ in together:
                    self.deliveries[message] += 1
                yield self.env.timeout(self.time(draws.fold(self.entity, flushes)))
            for _, done in together:
                done.succeed()
