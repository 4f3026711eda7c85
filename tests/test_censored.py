"""Slopes of censored values: least squares where nothing is censored, coverage where much is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from twinscore.analysis.censored import censored_slope

X = np.log([1.0, 2.0, 4.0, 8.0, 16.0])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 8), st.floats(1e-3, 1e3), st.floats(-5, 5))
def test_without_censoring_it_is_least_squares(seed, count, scatter, slope):
    rng = np.random.default_rng(seed)
    x = np.arange(count) + rng.uniform(size=count) / 2
    y = 3 + slope * x + scatter * rng.standard_normal(count)
    found = censored_slope(x, y, np.zeros(count, dtype=int))
    line = stats.linregress(x, y)
    reach = stats.t.ppf(0.975, count - 2) * line.stderr
    # optimisers stop at some 1e-4 of the slope's own uncertainty
    near = pytest.approx([line.slope, line.slope - reach, line.slope + reach], abs=2e-3 * reach)
    assert [found.slope, found.low, found.high] == near


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([-1, 1]), st.floats(0.1, 10), st.floats(-9, 9))
def test_units_do_not_matter(seed, side, unit, shift):
    rng = np.random.default_rng(seed)
    y, sides = X + 0.3 * rng.standard_normal(5), np.array([0, 0, 0, 0, side])
    one, other = censored_slope(X, y, sides), censored_slope(X, unit * y + shift, sides)
    near = {"rel": 1e-2, "abs": 1e-2 * unit}
    assert other.slope == pytest.approx(unit * one.slope, **near)
    assert other.low == pytest.approx(unit * one.low, **near)


def test_a_bound_that_a_line_keeps_says_less_than_the_value():
    y = np.array([0.0, 1.1, 1.9, 3.0, 4.0])
    values = censored_slope(X, y, np.zeros(5, dtype=int))
    bound = censored_slope(X, y, np.array([0, 0, 0, 0, 1]))
    far = censored_slope(X, y - 9 * (X[-1] == X), np.array([0, 0, 0, 0, 1]))
    alone = censored_slope(X[:4], y[:4], np.zeros(4, dtype=int))
    assert bound.high - bound.low > values.high - values.low
    # a bound far below the line says nothing
    assert [far.slope, far.low, far.high] == pytest.approx(
        [alone.slope, alone.low, alone.high], rel=2e-3
    )


@pytest.mark.parametrize("count", [6, 9])
def test_other_regressors_are_fitted_with_it(count):
    """The partial slope and its interval are those of the normal equations."""
    rng = np.random.default_rng(count)
    x, other = rng.standard_normal((2, count))
    y = 1 + 2 * x - 3 * other + 0.1 * rng.standard_normal(count)
    design = np.column_stack([x, other, np.ones(count)])
    fit, residual, *_ = np.linalg.lstsq(design, y, rcond=None)
    variance = residual[0] / (count - 3) * np.linalg.inv(design.T @ design)[0, 0]
    reach = stats.t.ppf(0.975, count - 3) * variance**0.5
    found = censored_slope(x, y, np.zeros(count), [other])
    assert [found.slope, found.low, found.high] == pytest.approx(
        [fit[0], fit[0] - reach, fit[0] + reach], abs=2e-3 * reach
    )
    assert censored_slope(x, y, np.zeros(count), [2 * x]) is None


def test_too_few_values_give_nothing():
    sides = np.array([0, 0, 1, 1, 1])
    assert censored_slope(X, X, sides) is None
    assert censored_slope(np.ones(4), np.arange(4.0), np.zeros(4, dtype=int)) is None


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (-np.inf, 2.2), (0.4, 2.4)])
def test_intervals_hold_the_slope_as_often_as_they_say(bounds):
    """Five values about a line of slope 1, censored at the bounds: 95 %, 400 times."""
    rng, hits, drawn = np.random.default_rng(0), 0, 0
    while drawn < 400:
        truth = X + 0.4 * rng.standard_normal(5)
        y = np.clip(truth, *bounds)
        side = np.sign(truth - y).astype(int)
        found = censored_slope(X, y, side)
        if found is None:
            continue
        drawn += 1
        hits += found.low <= 1 <= found.high
    # 95 % less three standard errors; conservative where values are censored
    assert hits / drawn >= 0.915
