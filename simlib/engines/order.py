"""The order rules that the engines share: when events fall on one instant, which comes first.

Timed events at one time run in the order of their key (rank, entity, copy, slot), packed in 3 + 34 + 20 + 6 bits. Work
that ends at its deadline is in time: completions come before timers. Between timed events there is one agenda, first
in, first out.
"""

from __future__ import annotations

from simlib.errors import RunFailed

FAULT, COMPLETION, TIMER, ARRIVAL, OBSERVER = range(1, 6)
"""Ranks. Each is above SimPy's own priorities, so that the agenda is empty before the next timed event."""
ENTITIES, COPIES, SLOTS = 1 << 34, 1 << 20, 1 << 6


def key(rank: int, entity: int, copy: int = 0, slot: int = 0) -> int:
    """The key of a timed event; raises RunFailed where a number does not fit."""
    if entity >= ENTITIES or copy >= COPIES or slot >= SLOTS:
        raise RunFailed(f"an event's key overflows (entity {entity}, copy {copy}, slot {slot}): the run is too large")
    return rank << 60 | entity << 26 | copy << 6 | slot
