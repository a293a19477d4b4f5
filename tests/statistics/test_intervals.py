"""Intervals reproduce published numbers, and cover what they say they cover."""

import math

import numpy as np
import pytest

from simlib.paths import PACKAGE
from simlib.reading import read_yaml
from simlib.statistics import (
    BATCHES,
    autocorrelation,
    batch_means,
    batch_quantile,
    mean_interval,
    paired,
    quantile_interval,
)


def reference(name):
    """The cases of a file of published and exact results, by id."""
    return {case["id"]: case for case in read_yaml(PACKAGE.parent / "data" / "reference" / name)["cases"]}


PUBLISHED, ANALYTIC = reference("output_analysis_reference.yaml"), reference("analytic_cases.yaml")
PLANNED = [ANALYTIC["mm1_asymvar_rho080"], ANALYTIC["mm1_asymvar_rho090"]]


def queue(load, shape, rng, warm=True):
    """Arrivals and waits in M/M/1 queues of mean service time 1, by Lindley's recursion; customers on the last axis.

    A warm queue starts from the stationary law of the wait: 0, or exponential of mean 1 / (1 − load) with
    probability `load`.
    """
    arrived = np.cumsum(rng.exponential(1 / load, shape), axis=-1)
    work = rng.standard_exponential(shape)
    before = np.cumsum(work, axis=-1) - work
    free = np.maximum.accumulate(arrived - before, axis=-1)
    if warm:
        found = np.where(rng.random() < load, rng.exponential(1 / (1 - load)), 0.0)
        free = np.maximum(free, arrived[..., :1] + found)
    return arrived, before + free - arrived, work


def share(found, true):
    """Share of the intervals that hold the true value."""
    return np.mean([true in interval for interval in found])


def test_the_student_interval_is_laws():
    case = PUBLISHED["student_t_ci"]
    found = mean_interval(case["data"], confidence=0.90)
    assert found.value == pytest.approx(case["expected"]["mean"], rel=1e-12)
    assert [found.low, found.high] == pytest.approx(case["expected"]["ci90"], abs=5e-8)


def test_mean_deviation_and_autocorrelation_are_those_certified_by_nist():
    case = PUBLISHED["nist_strd_michelso"]
    data, expected = case["data"], case["expected"]
    found = mean_interval(data)
    deviation = found.half_width / 1.9842169515086827 * math.sqrt(len(data))  # Student's t, 97.5 %, 99 degrees
    assert found.value == pytest.approx(expected["mean"], rel=case["tol_rel"])
    assert deviation == pytest.approx(expected["std"], rel=case["tol_rel"])
    assert autocorrelation(data) == pytest.approx(expected["lag1_autocorr"], rel=case["tol_rel"])


def test_intervals_of_the_first_25_waits_cover_as_often_as_law_reports():
    """Law's shares are of 500 experiments each, ours of 2,000: within four deviations of their difference."""
    case = PUBLISHED["law_mm1_first25"]
    _, waits, _ = queue(0.9, (2_000 * 40, 25), np.random.default_rng(1), warm=False)
    means = waits.mean(axis=1) * 0.9  # there the time between arrivals is 1, and the service takes 0.9
    exact = case["expected"]["exact"]
    assert mean_interval(means, 0.999).half_width < 0.02 * exact
    assert np.mean(means) == pytest.approx(exact, rel=0.02)
    for replications, reported in ((5, 0.880), (10, 0.864), (20, 0.886), (40, 0.914)):
        experiments = means[: 2_000 * replications].reshape(2_000, replications)
        covered = share([mean_interval(values, 0.90) for values in experiments], exact)
        deviation = math.sqrt(reported * (1 - reported) * (1 / 500 + 1 / 2_000))
        assert covered == pytest.approx(reported, abs=4 * deviation)


def spread(batches, length):
    """Length × variance of the mean, between runs and inside them; batches of shape (runs, BATCHES)."""
    assert batches.shape[1] == BATCHES
    between = length * np.var(batches.mean(axis=1), ddof=1)
    inside = length * np.mean(np.var(batches, axis=1, ddof=1)) / BATCHES
    return between, inside


@pytest.mark.parametrize(("load", "customers"), [(0.5, 3_000), (0.8, 10_000), (0.9, 30_000)])
def test_batches_have_the_asymptotic_variance_of_waits(load, customers):
    expected = PUBLISHED["whitt_run_length"]["expected"]["values_Wq"][str(load)]
    rng = np.random.default_rng(2)
    waits = (queue(load, customers, rng)[1] for _ in range(1_500))
    batches = np.array([wait.reshape(BATCHES, -1).mean(axis=1) for wait in waits])
    assert spread(batches, customers) == pytest.approx((expected, expected), rel=0.25)


@pytest.mark.parametrize("case", PLANNED, ids=lambda case: case["id"])
def test_batches_have_the_asymptotic_variance_of_the_number_in_system(case):
    load, expected, tolerance = case["params"]["rho"], case["expected"]["asym_var_L"], case["tol_rel"]
    relaxation = 1 / (1 - math.sqrt(load)) ** 2
    edges = relaxation * (10 + np.linspace(0, 100, BATCHES + 1))
    rng = np.random.default_rng(3)
    batches = []
    for _ in range(1_500):
        arrived, waits, work = queue(load, int(load * edges[-1] * 1.2), rng)
        assert arrived[-1] > edges[-1]
        areas = [np.sum(np.clip(edge - arrived, 0, waits + work)) for edge in edges]
        batches.append(np.diff(areas) / np.diff(edges))
    assert spread(np.array(batches), edges[-1] - edges[0]) == pytest.approx((expected, expected), rel=tolerance)


@pytest.mark.parametrize("case", PLANNED, ids=lambda case: case["id"])
def test_a_run_of_the_planned_length_has_the_planned_accuracy(case):
    """A run that long is within 5 % in 95 % of cases, and says so: by Student's t for Whitt's normal."""
    load, eps, z = (case["params"][name] for name in ("rho", "eps", "z"))
    expected = case["expected"]
    true = load / (1 - load)
    planned = expected["customers_Wq_5pct"]
    assert planned == pytest.approx(z**2 * expected["asym_var_Wq"] / (eps * true) ** 2)
    assert expected["run_length_L_5pct"] == pytest.approx(z**2 * expected["asym_var_L"] / (eps * true) ** 2)
    rng = np.random.default_rng(4)
    found = [batch_means(queue(load, int(planned), rng)[1]) for _ in range(200)]
    near = np.mean([abs(interval.value - true) <= eps * true for interval in found])
    assert near == pytest.approx(0.95, abs=0.05)
    t = 2.2621571627409915  # 97.5 %, nine degrees of freedom
    claimed = np.mean([interval.half_width for interval in found]) / true * z / t
    assert claimed == pytest.approx(eps, rel=0.15)


def test_batch_means_cover_the_mean_wait_once_the_run_is_long():
    """Nominal 95 % covers in 92 to 97 % of the runs, at 800 relaxation times."""
    load, rng = 0.9, np.random.default_rng(5)
    customers = int(800 * load / (1 - math.sqrt(load)) ** 2)
    found = [batch_means(queue(load, customers, rng)[1]) for _ in range(400)]
    assert 0.92 <= share(found, load / (1 - load)) <= 0.97


def test_batch_means_cover_the_mean_of_a_first_order_process():
    rng = np.random.default_rng(6)
    series = rng.standard_normal((5_000, 1_000))
    series[0] /= math.sqrt(1 - 0.7**2)
    for i in range(1, 5_000):
        series[i] += 0.7 * series[i - 1]
    found = [batch_means(run) for run in series.T]
    assert share(found, 0.0) == pytest.approx(0.95, abs=0.02)


def test_batch_quantiles_cover_the_percentiles_of_the_response_time():
    rng = np.random.default_rng(7)
    times = [waits + work for _, waits, work in (queue(0.5, 50_000, rng) for _ in range(400))]
    for p in (0.5, 0.95, 0.99):
        assert 0.91 <= share([batch_quantile(run, p) for run in times], -math.log(1 - p) / 0.5) <= 0.98


def test_quantiles_across_replications_cover():
    rng = np.random.default_rng(8)
    found = [quantile_interval(rng.standard_exponential((10, 2_000)), 0.95) for _ in range(1_000)]
    assert share(found, -math.log(0.05)) == pytest.approx(0.95, abs=0.025)


def test_a_quantile_is_that_of_all_groups_together():
    found = quantile_interval([[1.0, 2.0], [3.0, 4.0, 5.0]], 0.5)
    assert found.value == 3.0
    half = 12.706204736174698 * math.sqrt((1.5**2 + 1.0**2) / 1) / math.sqrt(2)  # medians 1.5 and 4 about 3
    assert found.half_width == pytest.approx(half)


def test_a_run_too_short_for_its_correlation_gets_no_bounds():
    rng = np.random.default_rng(9)
    assert math.isnan(batch_means(queue(0.9, 2_000, rng)[1]).low)
    assert math.isnan(batch_quantile(queue(0.9, 2_000, rng)[1], 0.95).high)
    assert not math.isnan(batch_means(queue(0.9, 200_000, rng)[1]).low)
    assert not math.isnan(batch_means(rng.random(2_000)).low)
    assert math.isnan(batch_means(rng.random(2 * BATCHES - 1)).low)


def test_paired_differences_are_taken_pair_by_pair():
    found = paired([3.0, 5.0, 7.0], [1.0, 4.0, 5.0])  # 2, 1, 2
    assert found.value == pytest.approx(5 / 3)
    assert found.half_width == pytest.approx(4.302652729911275 * math.sqrt(1 / 3) / math.sqrt(3))
    with pytest.raises(ValueError, match="3 and 2"):
        paired([1.0, 2.0, 3.0], [1.0, 2.0])


def test_common_random_numbers_make_a_difference_sharper():
    rng = np.random.default_rng(10)
    common = rng.random(50)
    a, b = common + 0.1 + 0.01 * rng.random(50), common + 0.01 * rng.random(50)
    assert 0.1 in paired(a, b)
    assert 0.0 not in paired(a, b)
    assert 0.0 in paired(a, rng.permutation(b))


@pytest.mark.parametrize("interval", [mean_interval, batch_means, lambda values: batch_quantile(values, 0.5)])
def test_no_bounds_without_enough_values_and_no_value_without_any(interval):
    assert math.isnan(interval([]).value)
    assert interval([4.0]).value == 4.0
    assert math.isnan(interval([4.0]).low)


def test_a_number_that_does_not_exist_is_not_dropped():
    assert math.isnan(mean_interval([1.0, 2.0, math.nan]).value)
    assert math.isnan(paired([1.0, 2.0], [1.0, math.nan]).value)


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([2.0] * 5).half_width == 0.0
    assert batch_means([2.0] * 500).half_width == 0.0
