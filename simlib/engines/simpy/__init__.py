"""The engine to read: SimPy's clock and events under the blocks, with the project's own wait lists and one agenda.

SimPy's resources, conditions and process starts each order an instant in their own way. Here every wake-up of a row
(grant, delivery, reply, join, start, expiry) is one event of SimPy's at the present time, first in, first out, and a row
runs until it must wait; what is free is taken without an event. Timed events carry the keys of `engines.order`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from simlib.engines.simpy.engine import Engine
from simlib.flow.model import Flow
from simlib.history import History
from simlib.scenario import Arrivals, Scenario

__all__ = ["run"]


def run(
    flow: Flow, arrivals: Arrivals, kinds: Iterable[str], seed: int, scenario: Scenario | None, meta: dict[str, Any]
) -> History:
    """Run a flow on a table of arrivals; `kinds` names the codes of its kinds. Raises RunFailed where a draw is no time."""
    engine = Engine(flow, arrivals, list(kinds), seed, scenario)
    end = engine.run()
    return engine.records.history(end, meta, flow.undoable)
