"""The times of the batch exchange's own, from its runs of updates: some dozen files, each of some records.

What a record costs, `record`, is no distribution but a parameter that is set: a file takes what it takes longer than its records.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from simlib.calibration.stages import SHORTEST, WAIT, Estimate, Estimates, Runs, times
from simlib.domain import STOCK_UPDATE
from simlib.history import History

_FILE = "stamps of a file's making, its flush among it, and of its reading, each taken as half, less its records: their mean"


def estimates(idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """`file` and `registration`.

    A change is one transaction: what it lasts beside what a transaction does is the registration.
    """
    run = idle[STOCK_UPDATE]
    transaction = 2 * known["database_client"] + known["read"] + known["commit"]
    record = run.meta["parameters"]["record"]
    return {
        "file": Estimate(max(float(np.mean(files(run, record))), SHORTEST), _FILE),
        "registration": Estimate(times(changes(run) - transaction), WAIT),
    }


def files(history: History, record: float) -> np.ndarray:
    """How long each of accounting's files is made or read, less its records', s."""
    stamps = history.attempts.to_pandas()
    made, opened = (
        stamps[(stamps["block"] == block) & (stamps["attempt"] == 1)].set_index("message")
        for block in ("accounting.make", "shop.open")
    )
    both = pd.DataFrame({"file": made["start"], "lasts": _length(made) + _length(opened)}).groupby("file")["lasts"]
    found: np.ndarray = (both.first() / 2 - record * both.size()).to_numpy()
    return found


def changes(history: History) -> np.ndarray:
    """How long each change lasted that met an idle system, s. That a message waits for its file is no work: unlike `walks`, this
    asks whether anything was done when the change began, by its stamps."""
    stamps = history.attempts.to_pandas()
    stamps = stamps[~stamps["block"].isin(("driver", "request"))].sort_values("start")
    idle = stamps["start"] > stamps["end"].cummax().shift(fill_value=-1.0)
    found: np.ndarray = _length(stamps[idle & (stamps["block"] == "accounting.change")]).to_numpy()
    return found


def _length(stamps: pd.DataFrame) -> pd.Series:
    return stamps["end"] - stamps["start"]
