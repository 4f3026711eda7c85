"""Fits of the early-stopping study: intervals, minima, and exponents next to the theory's."""

import numpy as np
import pytest

from twinscore.analysis.statistics import mean_interval
from twinscore.experiments.mixture import fits
from twinscore.experiments.mixture.spec import ShiftSpec, Spec
from twinscore.results.base import Interval
from twinscore.results.mixture import Along, Exponent, Varied

SMALL = Spec(sizes=(16, 64, 256), widths=(8, 16, 32), tau_count=6)


def test_slope_of_a_power_law_is_its_exponent():
    x = [10, 100, 1000]
    logs = np.log(3 * np.array(x, dtype=float) ** -0.4)
    found = fits.slope(x, logs, np.tile(logs, (5, 1)))
    assert found.value == pytest.approx(-0.4)
    assert found.low == pytest.approx(-0.4)


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=(5, 1))
    curve = fits.means(values, np.ones((5, 1), dtype=bool))
    found = fits.number(curve.value[0], curve.without[:, 0])
    assert (found.value, found.low, found.high) == pytest.approx(mean_interval(values[:, 0]))


@pytest.mark.parametrize("replicates", [3, 6])
def test_intervals_of_few_replicates_cover_what_they_should(replicates):
    x, times = [16, 64, 256], np.geomspace(1, 1e4, 21)
    rng, covered = np.random.default_rng(1), []
    for _ in range(400):
        noise = rng.normal(size=(replicates, 3))
        curve = fits.means(np.exp(0.2 * noise) * np.array(x) ** -0.8, np.ones(noise.shape, bool))
        found = fits.slope(x, np.log(curve.value), np.log(curve.without))
        bottoms = 1 + (np.log(times) - 4 - 0.3 * noise[:, :1]) ** 2
        least = fits.minimum(fits.means(bottoms, np.ones(bottoms.shape, bool)), times)
        tau = fits.positive(least.tau, least.taus)
        covered.append((found.low < -0.8 < found.high, tau.low < np.exp(4) < tau.high))
    # 95 % with a standard error of 1.1 %; resampling three or six covers 70 to 88 %
    assert (np.mean(covered, axis=0) > 0.925).all()


def test_the_least_value_counts_as_inside_only_between_results():
    times = np.array([1.0, 2.0, 3.0, 4.0])
    rising = np.array([np.nan, 1.0, 2.0, 3.0])
    falling = np.array([3.0, 1.0, 2.0, np.nan])
    at = [fits.minimum(fits.Means(v, np.tile(v, (3, 1))), times) for v in (rising, falling)]
    assert [m.inside for m in at if m] == [False, True]
    assert at[0].tau == 2.0
    assert 1.7 < at[1].tau < 2.3  # between the times, nearer the lower of the neighbours
    assert fits.minimum(fits.Means(np.full(4, np.nan), np.full((3, 4), np.nan)), times) is None


def test_minima_at_an_end_of_the_range_enter_no_exponent():
    spec = SMALL.model_copy(update={"sizes": (16, 32, 64), "widths": (8,)})
    kls, flat = 1 / np.array([16, 32, 64.0]), np.ones(3)

    def at(kl, inside):
        return fits.Minimum(1.0, flat, kl, kl * flat, inside)

    for inside, used in ((True, 3), (False, 0)):
        found = {(n, 8): at(kl, inside) for n, kl in zip(spec.sizes, kls, strict=True)}
        found[None, 8] = at(0.0, False)
        fit = [e for e in fits.exponents(spec, "mixture", found) if e.along == Along(Varied.N, 8)]
        assert [e.settings for e in fit] == [used, used]


def test_the_theory_is_asked_at_the_settings_that_were_fitted():
    sizes = (16, 32, 48, 128)
    spec = SMALL.model_copy(update={"sizes": sizes, "widths": (16,)})  # n = m^(3/2) at 64
    flat = np.ones(3)
    for last, predicted in ((True, (0.2, 0.0)), (False, (0.2, 0.2))):
        found = {(n, 16): fits.Minimum(1.0, flat, 1 / n, flat / n, n < 64 or last) for n in sizes}
        found[None, 16] = fits.Minimum(1.0, flat, 0.0, 0 * flat, False)
        fit = [e for e in fits.exponents(spec, "mixture", found) if e.along == Along(Varied.N, 16)]
        assert [e.settings for e in fit] == [3 + last] * 2
        assert fit[0].predicted == predicted
        assert fit[1].predicted == tuple(-value for value in predicted)


def bound_terms(spec):
    """Terms that are power laws, of three equal replicates."""
    n, m, t = np.ix_(spec.sizes, spec.widths, spec.times)
    replicates = np.ones((3, 1, 1, 1))
    return {
        "sampling": replicates * (m * t) ** 1.5 / (m * n),
        "training": replicates[:, 0] / (m * t)[0],
        "approximation": replicates[:, 0, 0] / m[0, :, 0] ** 2,
    }


def test_each_term_of_the_bound_is_fitted_along_what_it_depends_on():
    measured = bound_terms(SMALL)
    found = [e.measured.value for e in fits.terms(SMALL, "mixture", measured)]
    # along n; along m at the same tau / m, then at the same tau; along tau; training; approximation
    assert found == pytest.approx([-1, 0.5, -1, 1.5, -1, -2])


def test_widths_that_no_time_reaches_are_not_fitted():
    narrow = SMALL.model_copy(update={"widths": (8, 64, 512), "tau_first": 10.0, "tau_last": 100.0})
    [_, _, at_tau, *_] = fits.terms(narrow, "mixture", bound_terms(narrow))
    assert (at_tau.settings, at_tau.measured) == (1, None)
    wide = narrow.model_copy(update={"tau_first": 1.0, "tau_last": 1e4})
    [_, _, at_tau, *_] = fits.terms(wide, "mixture", bound_terms(wide))
    assert at_tau.settings == 3
    assert at_tau.measured.value == pytest.approx(-1)


def test_the_dependence_on_mu_is_fitted():
    mus = (1.0, 3.0, 9.0)
    spec = SMALL.model_copy(update={"shift": ShiftSpec(distances=mus, watched=(3.0,))})
    curve = np.ones((3, 2, spec.tau_count))
    parts = {
        mu: {
            "kl": mu * curve,
            "converged": np.ones(curve.shape, dtype=bool),
            "sampling": mu**0.5 * curve[:, 0],
            "training": mu**1.5 * curve[:, 0],
            "approximation": mu**2.5 * curve[:, 0, :1],
        }
        for mu in mus
    }
    found = fits.distances(spec, parts)
    assert [e.measured.value for e in found] == pytest.approx([1, 1, 0.5, 1.5, 2.5])
    assert [e.answer for e in found] == ["no degree given"] * 4 + ["slower than the bound's"]


def test_a_time_without_enough_replicates_has_no_mean():
    values = np.arange(10.0).reshape(5, 2)
    kept = np.ones((5, 2), dtype=bool)
    kept[0, 0] = kept[:2, 1] = False
    found = fits.means(values, kept)
    assert found.value[0] == pytest.approx(5.0)  # mean of 2, 4, 6, 8
    assert found.without[4, 0] == pytest.approx(4.0)
    assert np.isnan(found.value[1])
    assert np.isnan(found.without[:, 1]).all()


@pytest.mark.parametrize(
    ("low", "high", "kind", "expected"),
    [
        (-0.9, -0.5, "at most", "compatible"),
        (-0.3, -0.1, "at most", "slower than the bound's"),
        (-0.9, -0.5, "equal", "smaller"),
        (-0.5, -0.3, "equal", "compatible"),
    ],
)
def test_an_upper_bound_is_not_contradicted_by_what_falls_faster(low, high, kind, expected):
    exponent = Exponent(
        target="mixture",
        quantity="KL_min",
        along="m = n",
        measured=Interval(value=(low + high) / 2, low=low, high=high),
        predicted=(-0.4, -0.4),
        kind=kind,
        settings=4,
    )
    assert exponent.answer == expected
