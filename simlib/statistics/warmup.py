"""The warm-up of a stationary run: how much of its start to cut."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

BATCH = 5
_LAST = 5
_FEWEST = 10


def mser5(series: ArrayLike) -> int | None:
    """How many observations at the start of a series to cut, by MSER-5; None where it is not seen stationary.

    The cut is where the standard error of the mean of what remains is least, over batches of five
    observations (White, Cobb & Spratt, Winter Simulation Conference 2000); cuts that leave fewer than five
    batches are not tried, as a few equal ones would win by chance (Hoad, Robinson & Davies, JORS 61 (2010)
    1389-1403). A cut in the second half says that the series is not stationary or too short to tell; so does
    a series of fewer than ten batches.
    """
    series = np.asarray(series, float)
    count = series.size // BATCH
    if count < _FEWEST:
        return None
    means = series[: count * BATCH].reshape(count, BATCH).mean(axis=1)
    means = (means - means.mean())[::-1]
    kept = np.arange(1, count + 1)
    squares = np.cumsum(means**2) - np.cumsum(means) ** 2 / kept
    error = (np.maximum(squares, 0.0) / kept.astype(float) ** 2)[::-1][: count - _LAST + 1]
    cut = int(np.argmin(error))
    return cut * BATCH if cut <= count // 2 else None


def longest(cuts: Iterable[int | None]) -> int | None:
    """The cut that serves all runs compared: the longest of those found; None where none was."""
    return max((cut for cut in cuts if cut is not None), default=None)
