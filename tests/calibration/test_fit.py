"""Fits recover what samples were drawn from, and say when no family does."""

import numpy as np
import pytest

from simlib.calibration.fit import fit
from simlib.distributions import Constant, Lognormal, Quantiles, Weibull
from simlib.errors import BadInput


@pytest.mark.parametrize("law", [Lognormal(mean=0.002, cv=0.5, shift=0.001), Weibull(scale=0.003, shape=1.5)])
def test_a_fit_recovers_the_mean_and_the_tail_of_its_family(law):
    samples = law.sample(1, "fit", 4000)
    found = fit(samples).distribution
    drawn = found.sample(2, "refit", 200_000)
    assert type(found) is type(law)
    assert drawn.mean() == pytest.approx(law.mean_value, rel=0.03)
    assert np.quantile(drawn, 0.99) == pytest.approx(np.quantile(law.sample(3, "true", 200_000), 0.99), rel=0.1)


def test_where_no_family_fits_the_quantiles_stand_in():
    samples = np.concatenate([Constant(0.001).sample(1, "a", 1000), Constant(0.02).sample(1, "b", 300)])
    samples += Weibull(scale=1e-5, shape=1.0).sample(1, "c", 1300)
    found = fit(samples)
    assert isinstance(found.distribution, Quantiles)
    assert found.distribution.mean_value == pytest.approx(samples.mean(), rel=0.02)
    assert found.p_value < 0.01


def test_equal_samples_are_a_constant():
    assert fit(np.full(50, 0.004)).distribution == Constant(0.004)


@pytest.mark.parametrize("samples", [np.ones(5), np.full(50, -1.0), np.full(50, np.nan)])
def test_samples_that_cannot_be_fitted_are_refused(samples):
    with pytest.raises(BadInput):
        fit(samples)
