"""MSER-5 cuts what is transient, and says so where nothing is stationary."""

import numpy as np
import pytest

from simlib.statistics import longest, mser5


def by_definition(series):
    """The batch, of five observations, from which the squared standard error of the rest's mean is least."""
    means = [np.mean(series[i : i + 5]) for i in range(0, len(series) // 5 * 5, 5)]
    tails = [np.array(means[d:]) for d in range(len(means) - 4)]
    return 5 * int(np.argmin([np.sum((tail - np.mean(tail)) ** 2) / tail.size**2 for tail in tails]))


@pytest.mark.parametrize("seed", range(30))
def test_the_cut_is_that_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(50, 400))
    series = rng.standard_normal(n) + 3 * np.exp(-np.arange(n) / rng.integers(1, 100))
    expected = by_definition(series)
    assert mser5(series) == (expected if expected <= n // 5 // 2 * 5 else None)


def test_a_start_at_another_level_is_cut():
    series = np.random.default_rng(1).standard_normal(5_000)
    series[:500] += 10
    assert 500 <= mser5(series) <= 520


def test_a_level_of_its_own_is_no_warm_up_whatever_the_unit():
    series = np.random.default_rng(2).standard_normal(5_000)
    cut = mser5(series)
    assert cut < 1_000
    assert mser5(series + 1e6) == cut
    assert mser5(series * 1e-3) == cut


def test_a_constant_series_is_not_cut():
    assert mser5(np.full(100, 7.0)) == 0


def test_a_series_that_grows_is_not_stationary():
    assert mser5(np.arange(1_000.0)) is None


def test_a_series_that_changes_in_its_second_half_is_not_stationary():
    series = np.random.default_rng(3).standard_normal(1_000)
    series[:700] += 10
    assert mser5(series) is None


def test_a_few_equal_values_at_the_end_do_not_win():
    series = np.random.default_rng(4).standard_normal(1_000)
    series[-15:] = 0.0
    assert mser5(series) is not None


def test_too_few_observations_say_nothing():
    assert mser5(np.zeros(49)) is None
    assert mser5(np.zeros(50)) == 0
    assert mser5([]) is None


def test_runs_compared_are_cut_alike_by_the_longest():
    assert longest([0, 35, None, 10]) == 35
    assert longest([None, None]) is None
    assert longest([]) is None
