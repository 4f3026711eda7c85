"""Membership: areas, detection rates and lists with known answers, and rates that hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm

from twinscore.analysis.audit import membership


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_the_area_is_that_of_mann_and_whitney(trained, held_out):
    found = membership.area(np.array(trained, float), np.array(held_out, float))
    u = mannwhitneyu(held_out, trained).statistic
    assert found.value == pytest.approx(u / (len(trained) * len(held_out)))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_areas_of_apart_and_equal_sets():
    apart = membership.area(np.arange(50.0), np.arange(50.0, 100))
    assert (apart.value, apart.high) == (1, 1)
    assert 0.9 < apart.low < 1
    equal = membership.area(np.zeros(30), np.zeros(30))
    assert equal.value == 0.5
    assert equal.low == pytest.approx(1 - equal.high, abs=1e-6)


@pytest.mark.parametrize(("n", "m"), [(100, 100), (40, 200)])
@pytest.mark.parametrize("true", [0.5, 0.75, 0.95])
def test_intervals_of_the_area_cover(n, m, true):
    """Normal scores: the area is Phi(d / sqrt 2); 400 draws, 95 % less 3 standard errors."""
    rng, apart, held = np.random.default_rng(0), np.sqrt(2) * norm.ppf(true), 0
    for _ in range(400):
        found = membership.area(rng.normal(size=n), rng.normal(apart, 1, m))
        held += found.low <= true <= found.high
    assert held >= 400 * (0.95 - 3 * np.sqrt(0.05 * 0.95 / 400))


@pytest.mark.parametrize(("m", "rate"), [(150, 0.01), (999, 0.001), (99, 0.01), (500, 0.05)])
def test_false_positives_are_no_more_than_said(m, rate):
    """Of fresh units, on average over thresholds; 3 standard errors of 2,000 draws."""
    rng = np.random.default_rng(1)
    shares = np.array(
        [membership.detected(rng.normal(size=50), rng.normal(size=m), rate).value
         for _ in range(2000)]
    )  # fmt: skip
    assert shares.mean() <= rate + 3 * shares.std() / np.sqrt(2000)
    assert shares.mean() > rate / 3


def test_too_few_held_out_units_know_no_threshold():
    assert membership.detected(np.zeros(5), np.ones(98), 0.01) is None
    found = membership.detected(np.zeros(5), np.ones(99), 0.01)
    assert (found.value, found.high) == (1, 1)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_conformal_p_counts_the_held_out_that_are_as_small(n, m, seed):
    rng = np.random.default_rng(seed)
    trained, held_out = rng.integers(6, size=n), rng.integers(6, size=m)
    expected = (1 + (held_out <= trained[:, None]).sum(1)) / (m + 1)
    np.testing.assert_allclose(membership.conformal(trained, held_out), expected)


def test_p_of_a_model_that_knows_neither_set_is_uniform():
    """200 repetitions; each level within 3 standard errors."""
    rng, found = np.random.default_rng(2), []
    for seed in range(200):
        scores = rng.normal(size=(90, 1)) + 0.5 * rng.normal(size=(90, 4))
        trained = rng.permutation(90) < 40
        found.append(membership.dependence(scores, trained, seed=seed, redealings=399)[0])
    for level in (0.05, 0.25, 0.5, 0.75):
        share = np.mean(np.array(found) <= level)
        assert abs(share - level) <= 3 * np.sqrt(level * (1 - level) / 200)


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_the_list_is_that_of_benjamini_and_hochberg(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.uniform(size=30) ** 3, 0.2
    listed = membership.at_risk(p, q)
    most = max((k for k in range(31) if (p <= q * k / 30).sum() >= k), default=0)
    assert len(listed) == most
    assert set(listed) == set(np.argsort(p)[:most])


def test_false_discoveries_are_at_most_q():
    """Half of T is known to the model; 400 repetitions, 2 standard errors."""
    rng, shares, q = np.random.default_rng(3), [], 0.1
    for _ in range(400):
        trained = rng.normal(size=100)
        trained[:50] -= 4
        listed = membership.at_risk(membership.conformal(trained, rng.normal(size=300)), q)
        shares.append((listed >= 50).sum() / max(1, len(listed)))
    assert np.mean(shares) <= q + 2 * np.std(shares) / 20
    assert np.mean(shares) > 0


def test_everything_is_at_risk_where_all_come_first_and_enough_are_held_out():
    p = membership.conformal(np.zeros(100), np.ones(100))
    assert len(membership.at_risk(p, 0.1)) == 100
    p = membership.conformal(np.zeros(100), np.ones(8))  # 1/9 > 0.1
    assert len(membership.at_risk(p, 0.1)) == 0
