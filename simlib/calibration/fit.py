"""Distributions from samples of a time: the likeliest of a few families where it fits, else the samples' own quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from simlib.distributions import Constant, Distribution, Lognormal, Quantiles, Weibull
from simlib.errors import BadInput

FEWEST = 30
"""Samples below which nothing is fitted."""
KNOTS = 201
"""Quantiles in the table that stands in where no family fits."""
SHIFTS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98)
"""Shifts that are tried, as shares of the least sample: short of all of it, where the likelihood has no bound."""
SIGNIFICANCE = 0.01
"""Level of the Kolmogorov-Smirnov test that a family must pass."""


@dataclass(frozen=True)
class Fit:
    """A fitted distribution, from how many samples, with its distance to them and the level at which it is refused."""

    distribution: Distribution
    samples: int
    distance: float
    """Kolmogorov-Smirnov distance between the fit and the samples."""
    p_value: float
    """Of the distance; of the best family where the table of quantiles stands in for it."""
    log_likelihood: float


def fit(samples: np.ndarray) -> Fit:
    """The fit of times in seconds, shape (n,); raises BadInput for too few, negative or infinite ones.

    Families: lognormal and Weibull, moved to the right by a share of the least sample; the likeliest is taken where a
    Kolmogorov-Smirnov test does not refuse it, else a table of the samples' quantiles.
    """
    values = np.sort(np.asarray(samples, float))
    if values.size < FEWEST:
        raise BadInput(f"a fit needs at least {FEWEST} samples, got {values.size}: measure for longer")
    if not np.all(np.isfinite(values)) or values[0] < 0:
        raise BadInput(f"samples must be finite and at least 0, got {values[0]}: check the measurement")
    if values[-1] == values[0]:
        return Fit(Constant(value=float(values[0])), values.size, 0.0, 1.0, math.inf)
    fits = [_at_shift(values, law, share * float(values[0])) for law in (_lognormal, _weibull) for share in SHIFTS]
    best = max(fits, key=lambda one: one.log_likelihood)
    if best.p_value >= SIGNIFICANCE:
        return best
    knots = np.quantile(values, np.linspace(0.0, 1.0, min(KNOTS, values.size)))
    table = Quantiles(values=tuple(float(knot) for knot in knots))
    return Fit(table, values.size, 0.0, best.p_value, math.nan)


def quantiles(distribution: Distribution, levels: np.ndarray) -> np.ndarray:
    """Quantiles of a fitted distribution at these levels, s, shape as `levels`."""
    if isinstance(distribution, Lognormal):
        variance = math.log1p(distribution.cv**2)
        scale = distribution.mean * math.exp(-variance / 2)
        return distribution.shift + stats.lognorm(math.sqrt(variance), scale=scale).ppf(levels)
    if isinstance(distribution, Weibull):
        return distribution.shift + stats.weibull_min(distribution.shape, scale=distribution.scale).ppf(levels)
    if isinstance(distribution, Quantiles):
        return np.interp(levels, np.linspace(0.0, 1.0, len(distribution.values)), distribution.values)
    return np.full(np.shape(levels), distribution.mean_value)


def _at_shift(values: np.ndarray, law: Callable[[np.ndarray, float], tuple[Distribution, Any]], shift: float) -> Fit:
    """The maximum-likelihood fit of a family at a given shift."""
    excess = values - shift
    distribution, frozen = law(excess, shift)
    test = stats.kstest(excess, frozen.cdf)
    return Fit(
        distribution, values.size, float(test.statistic), float(test.pvalue), float(np.sum(frozen.logpdf(excess)))
    )


def _lognormal(excess: np.ndarray, shift: float) -> tuple[Distribution, Any]:
    logs = np.log(np.maximum(excess, 1e-12))
    mu, sigma = float(logs.mean()), float(logs.std())
    mean, cv = math.exp(mu + sigma * sigma / 2), math.sqrt(math.expm1(sigma * sigma))
    return Lognormal(mean=mean, cv=cv, shift=shift), stats.lognorm(sigma, scale=math.exp(mu))


def _weibull(excess: np.ndarray, shift: float) -> tuple[Distribution, Any]:
    shape, _, scale = stats.weibull_min.fit(np.maximum(excess, 1e-12), floc=0)
    return Weibull(scale=float(scale), shape=float(shape), shift=shift), stats.weibull_min(shape, scale=scale)
