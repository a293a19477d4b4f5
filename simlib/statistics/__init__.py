"""The statistics of simulated and measured runs: intervals, paired comparison, warm-up."""

from simlib.statistics.intervals import (
    BATCHES,
    Interval,
    autocorrelation,
    batch_means,
    batch_quantile,
    mean_interval,
    paired,
    quantile,
    quantile_interval,
)
from simlib.statistics.warmup import longest, mser5

__all__ = [
    "BATCHES",
    "Interval",
    "autocorrelation",
    "batch_means",
    "batch_quantile",
    "longest",
    "mean_interval",
    "mser5",
    "paired",
    "quantile",
    "quantile_interval",
]
