"""The engines: each runs the same flow on the same arrivals and yields the same history."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from simlib import draws
from simlib.engines import compiled
from simlib.engines import simpy as simpy_engine
from simlib.errors import BadInput, unknown
from simlib.flow.model import Flow, Source
from simlib.history import History
from simlib.quantities import whole
from simlib.scenario import MESSAGES, SEEDS, Arrivals

ENGINES = {"compiled": compiled.run, "simpy": simpy_engine.run}
"""Simulating engines by name: the fast one, and the one to read. Their histories are the same to the bit."""
ENGINE = "compiled"
"""The default."""


def simulate(flow: Flow, messages: int, seed: int = 1, engine: str = ENGINE) -> History:
    """Run a flow whose sources have their own interarrival times or population, for `messages` messages in all.

    Raises BadInput where the flow does not pass its check, RunFailed where a draw is no time.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    whole(messages, "messages", 1, MESSAGES)
    whole(seed, "seed", 0, SEEDS)
    flow.check()
    sources = list(flow.sources.values())
    arrivals = _arrivals(sources, messages, seed)
    meta = {"architecture": flow.name, "engine": engine, "seed": seed, "messages": messages, "draws": draws.DRAWS}
    closed = any(source.population is not None for source in sources)
    meta |= {"stationary": True, "timeout": None, "issuing_ends": None if closed else float(arrivals.issued[-1])}
    return ENGINES[engine](flow, arrivals, [source.kind for source in sources], seed, None, meta)


def _arrivals(sources: list[Source], messages: int, seed: int) -> Arrivals:
    times: list[Any] = []
    kinds: list[Any] = []
    for kind, source in enumerate(sources):
        if source.population is not None:
            if len(sources) > 1:
                raise BadInput(f"source '{source.kind}' has a population: it must be the flow's only source")
            times.append(np.full(messages, math.nan))
        elif source.interarrival is None:
            raise BadInput(f"source '{source.kind}' takes its messages from a scenario: give it an interarrival time")
        else:
            batches = -(-messages // source.batch)
            gaps = source.interarrival.sample(seed, f"{source.kind}.interarrival", batches)
            times.append(np.repeat(np.add.accumulate(gaps), source.batch)[:messages])
        kinds.append(np.full(messages, kind, np.int8))
    merged = np.concatenate(times)
    first = np.argsort(merged, kind="stable")[:messages]
    none = np.zeros(messages, np.int32)
    return Arrivals(merged[first], np.concatenate(kinds)[first], none, none - 1, none)
