"""Intervals of confidence: from replications, from one run in batches, and for paired differences.

All are Student t intervals of estimates that are nearly independent and normal. Series and values are
one-dimensional, in the unit of the result; a NaN among them (a number that did not exist) makes the result
NaN: it is not dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

BATCHES = 10
"""Batches of one run: of the ten to thirty that are enough (Schmeiser, Operations Research 30 (1982) 556-568)
the fewest, which are the longest and so depend least on each other."""
CORRELATION_TIMES = 20.0
"""A batch must be this many correlation times long, else its run is too short for an interval."""


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its interval; the bounds are NaN where there is no interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def __contains__(self, x: float) -> bool:
        return self.low <= x <= self.high


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of independent values, as of replications; no bounds for fewer than two."""
    values = np.asarray(values, float)
    return _around(_mean(values), values, confidence)


def paired(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of a − b, where a[r] and b[r] met the same random numbers; ValueError for unequal lengths."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"paired values must be equally many, got {a.size} and {b.size}")
    return mean_interval(a - b, confidence)


def batch_means(series: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of one stationary run, from its batches; no bounds where the run is too short for them."""
    return _batched(np.asarray(series, float), _mean, confidence)


def batch_quantile(series: ArrayLike, p: float, confidence: float = 0.95) -> Interval:
    """The p-quantile of one stationary run, from its batches; no bounds where the run is too short."""
    return _batched(np.asarray(series, float), lambda part: quantile(part, p), confidence)


def quantile_interval(groups: Sequence[ArrayLike], p: float, confidence: float = 0.95) -> Interval:
    """The p-quantile of all that the groups hold, each of which is a series of its own, as of a replication.

    The bounds come from how the groups' own quantiles lie about it: sectioning (Asmussen & Glynn, Stochastic
    Simulation, 2007, III.5a), whose centre has less bias than the mean of the groups' quantiles.
    """
    series = [np.asarray(group, float) for group in groups]
    pooled = np.concatenate(series) if series else np.empty(0)
    return _around(quantile(pooled, p), np.array([quantile(part, p) for part in series]), confidence)


def quantile(values: np.ndarray, p: float) -> float:
    """The p-quantile, linear between order statistics (Hyndman & Fan's type 7); NaN of nothing."""
    return float(np.quantile(values, p)) if values.size else math.nan


def autocorrelation(series: ArrayLike) -> float:
    """Correlation of a series with itself one step later (lag 1); 0 for a constant one."""
    centred = np.asarray(series, float)
    centred = centred - np.mean(centred)
    square = float(np.sum(centred**2))
    return float(np.sum(centred[:-1] * centred[1:])) / square if square > 0 else 0.0


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else math.nan


def _batched(series: np.ndarray, statistic: Callable[[np.ndarray], float], confidence: float) -> Interval:
    batches = np.array_split(series, BATCHES) if _long_enough(series) else []
    return _around(statistic(series), np.array([statistic(batch) for batch in batches]), confidence)


def _long_enough(series: np.ndarray) -> bool:
    """Whether batches may pass for independent.

    They may where the series' lag-1 autocorrelation r is not significant (5 %), or where a batch holds
    `CORRELATION_TIMES` times (1 + r) / (1 − r), the correlation time of a process of first order.
    """
    if series.size < 2 * BATCHES:
        return False
    r = autocorrelation(series)
    significant = r > 1.645 / math.sqrt(series.size)
    return not significant or series.size / BATCHES * (1 - r) >= CORRELATION_TIMES * (1 + r)


def _around(value: float, estimates: np.ndarray, confidence: float) -> Interval:
    """The Student t interval about `value`, from the spread of n estimates of it."""
    n = estimates.size
    if n < 2:
        return Interval(value, math.nan, math.nan)
    deviation = math.sqrt(math.fsum((estimates - value) ** 2) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * deviation / math.sqrt(n)
    return Interval(value, value - half, value + half)
