"""The engines: each runs the same flow on the same arrivals and yields the same history."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from simlib import draws
from simlib.engines import compiled
from simlib.engines import simpy as simpy_engine
from simlib.engines.running_totals import MOST, Totals
from simlib.engines.running_totals import run as run_totals
from simlib.errors import BadInput, unknown
from simlib.flow.check import must_run
from simlib.flow.model import Flow, Source
from simlib.history import History
from simlib.metrics import warmup
from simlib.quantities import whole
from simlib.scenario import CHUNK, MESSAGES, SEEDS, Arrivals

ENGINES = {"compiled": compiled.run, "simpy": simpy_engine.run}
"""Simulating engines by name: the fast one, and the one to read. Their histories are the same to the bit."""
ENGINE = "compiled"
"""The default."""
PILOT = 20_000
"""Messages in which the warm-up of a run is sought of which only metrics are kept."""


def simulate(flow: Flow, messages: int, seed: int = 1, engine: str = ENGINE) -> History:
    """Run a flow whose sources have their own interarrival times or population, for `messages` messages in all.

    Raises BadInput where the flow does not pass its check, RunFailed where a draw is no time.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    whole(messages, "messages", 1, MESSAGES)
    whole(seed, "seed", 0, SEEDS)
    must_run(flow)
    sources = list(flow.sources.values())
    arrivals = _arrivals(sources, messages, seed)
    meta = {"architecture": flow.name, "engine": engine, "seed": seed, "messages": messages, "draws": draws.DRAWS}
    ends = None if arrivals.population else float(arrivals.issued[-1])
    meta |= {"stationary": True, "timeout": None, "issuing_ends": ends}
    return ENGINES[engine](flow, arrivals, [source.kind for source in sources], seed, None, meta)


def totals(flow: Flow, messages: int, seed: int = 1) -> Totals:
    """As `simulate`, of which only metrics are kept: in constant memory, for up to `MOST` messages of one source without batches.

    The warm-up is what MSER-5 finds in the first `PILOT` messages. Raises BadInput as `simulate` does, and where the flow keeps
    something of every message.
    """
    whole(messages, "messages", 1, MOST)
    pilot = simulate(flow, min(messages, PILOT), seed)
    kind, source = next(iter(flow.sources.items()))
    gaps = source.interarrival
    if len(flow.sources) > 1 or source.batch > 1 or gaps is None:
        raise BadInput(
            "only metrics can be kept of one source with an interarrival time and without batches: simulate the flow"
        )

    def chunks(size: int) -> Iterator[Arrivals]:
        last = np.empty(0)
        for first in range(0, messages, size):
            drawn = gaps.sample(seed, f"{kind}.interarrival", min(size, messages - first), first)
            times = np.add.accumulate(np.concatenate((last, drawn)))[last.size :]
            last, none = times[-1:], np.zeros(times.size, np.int32)
            yield Arrivals(times, np.zeros(times.size, np.int8), none, none - 1, none)

    for chunk in chunks(CHUNK):
        last_arrival = float(chunk.issued[-1])
    meta = dict(pilot.meta) | {"messages": messages, "issuing_ends": last_arrival}
    return run_totals(flow, chunks, messages, last_arrival, [kind], seed, None, warmup(pilot) or 0, meta)


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
    merged, codes = np.concatenate(times), np.concatenate(kinds)
    if len(sources) > 1:
        first = np.argsort(merged, kind="stable")[:messages]
        merged, codes = merged[first], codes[first]
    none = np.zeros(messages, np.int32)
    return Arrivals(merged, codes, none, none - 1, none, sources[0].population or 0)
