"""Runs whose arrivals a test sets by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simlib.engines import ENGINES
from simlib.flow import Flow
from simlib.history import History
from simlib.scenario import Arrivals, Fault, Goods, Poisson, Scenario

RunAt = Callable[..., History]
"""What the fixture `run_at` gives."""


@pytest.fixture
def run_at() -> RunAt:
    """Run a flow on messages issued at given times, under faults: see `_run_at`."""
    return _run_at


def _run_at(
    flow: Flow,
    times: Sequence[float],
    kinds: Sequence[str] | None = None,
    skus: Sequence[int] | None = None,
    quantities: Sequence[int] | None = None,
    sessions: Sequence[int] | None = None,
    faults: Sequence[Fault] = (),
    units: int = 100,
    horizon: float = 1e6,
    seed: int = 1,
) -> History:
    """Messages issued at `times`, of the flow's first kind unless `kinds` says otherwise, on one unit of SKU 0."""
    flow.check()
    names = list(flow.sources)
    n = len(times)
    arrivals = Arrivals(
        np.array(times, float),
        np.array([names.index(kind) for kind in kinds or names[:1] * n], np.int8),
        np.array(skus or [0] * n, np.int32),
        np.array(sessions or [-1] * n, np.int32),
        np.array(quantities or [1] * n, np.int32),
    )
    scenario = Scenario(
        name="by hand",
        arrivals=Poisson(rate=1),
        goods=Goods(skus=10, units=units),
        faults=tuple(faults),
        horizon=horizon,
    )
    return ENGINES["simpy"](flow, arrivals, names, seed, scenario, {"architecture": flow.name, "engine": "simpy"})


@pytest.fixture
def effects_of() -> Callable[[History], list[tuple[Any, ...]]]:
    """What happened when: (message, effect, time) of a history, in its order."""

    def read(history: History) -> list[tuple[Any, ...]]:
        table: pd.DataFrame = history.effects.to_pandas()
        return list(zip(table["message"], table["effect"], table["time"], strict=True))

    return read
