"""The times of the batch exchange's own, from its runs of updates: some dozen files, of a few to some dozen records."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from simlib.calibration.stages import SHORTEST, WAIT, Estimate, Estimates, Runs, times
from simlib.domain import STOCK_UPDATE
from simlib.history import History

_FILE = "stamps of a file's making, its flush among it, and of its reading, each taken as half: what no record adds"
_RECORD = "the same stamps: what each record adds, by least squares"


def estimates(idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """`file`, `record` and `registration`.

    A change is one transaction: what it lasts beside what a transaction does is the registration.
    """
    run = idle[STOCK_UPDATE]
    transaction = 2 * known["database_client"] + known["read"] + known["commit"]
    records, lasts = files(run)
    (file, record), _ = nnls(np.column_stack([np.ones(records.size), records]), lasts)
    return {
        "file": Estimate(max(float(file), SHORTEST), _FILE),
        "record": Estimate(max(float(record), SHORTEST), _RECORD),
        "registration": Estimate(times(changes(run) - transaction), WAIT),
    }


def files(history: History) -> tuple[np.ndarray, np.ndarray]:
    """How many records each of accounting's files has, and how long it is made or read, s: two arrays of shape (files,)."""
    stamps = history.attempts.to_pandas()
    made, opened = (
        stamps[(stamps["block"] == block) & (stamps["attempt"] == 1)].set_index("message")
        for block in ("accounting.make", "shop.open")
    )
    both = pd.DataFrame({"file": made["start"], "lasts": _length(made) + _length(opened)}).groupby("file")["lasts"]
    return both.size().to_numpy(float), both.first().to_numpy() / 2


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
