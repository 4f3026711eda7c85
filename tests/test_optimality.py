"""Gaps and the KL bound, against divergences known in closed form or by other solvers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinscore.analysis.levels import integrate_levels
from twinscore.analysis.optimality import (
    LazyImages,
    gaps,
    kl_bound,
    kl_bound_between_twins,
    twin_errors,
    variance_integral,
)
from twinscore.denoisers.closed_form import Gaussian, GaussianMixture
from twinscore.denoisers.layers import generator_of
from twinscore.theory import targets
from twinscore.theory.coordinates import standard_grid
from twinscore.theory.densities import divergences
from twinscore.theory.fokker_planck import reverse_sde
from twinscore.theory.probability_flow import probability_flow
from twinscore.theory.processes import ramp, variance_exploding

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

ENDS = {"sigma_min": 0.1, "sigma_max": 10.0}


def normal(count, shape=(1, 1, 1), seed=0):
    return torch.randn(count, *shape, generator=generator_of(seed), dtype=torch.float64)


def gaussian(variance, mean=0.0):
    one = torch.ones(1, 1, dtype=torch.float64)
    return Gaussian.of(torch.full((1, 1, 1), mean, dtype=torch.float64), variance * one)


NORMAL = gaussian(1.0)


def random_gaussian(seed, shape=(1, 3, 3)):
    d = math.prod(shape)
    root = 0.2 * normal(d, (d,), seed) + 0.2 * torch.eye(d, dtype=torch.float64)
    return Gaussian.of(0.5 + 0.3 * normal(1, shape, seed + 1)[0], root @ root.T)


def divergence(p, q, sigma):
    """KL between two Gaussians with noise added, nats."""
    noise = sigma**2 * torch.eye(p.mean.numel(), dtype=torch.float64)
    first, second = ((g.components * g.variances) @ g.components.T + noise for g in (p, q))
    apart = (q.mean - p.mean).flatten()
    spread = torch.linalg.solve(second, first + torch.outer(apart, apart)).trace() - len(apart)
    return float(spread + second.logdet() - first.logdet()) / 2


def mixture(target):
    """The denoiser of a one-dimensional target."""
    weights, means, variances = map(
        torch.from_numpy, (target.weights, target.means, target.variances)
    )
    return GaussianMixture.of(weights, means.view(-1, 1, 1, 1), variances)


def perturbed(factor, shift=0.0):
    """A denoiser of a score that is wrong by a factor, and by a wave."""

    def of(best):
        def denoiser(y, sigma):
            level = torch.as_tensor(sigma).view(-1, 1, 1, 1)
            wave = shift * torch.sin(3 * y) / (1 + level)
            return y + level**2 * (factor * best.score(y, sigma) + wave)

        return denoiser

    return of


def scores_of(denoiser):
    """As the solvers of one-dimensional densities take them, (1, n) at points (n, 1)."""

    def scores(t, x):
        y = torch.from_numpy(x)[:, :, None, None]
        return ((denoiser(y, t) - y) / t**2).numpy().reshape(1, -1)

    return scores


# The bound ----------------------------------------------------------------------------------------


def test_the_optimal_mixture_has_no_bound():
    best = mixture(targets.two_modes(2.0, (0.3, 0.7)))
    found = kl_bound(best, best, normal(100), **ENDS)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_the_optimal_denoiser_has_no_bound_but_its_start():
    p = random_gaussian(0)
    found = kl_bound(p, p, p.draw(normal(500, (1, 3, 3))), **ENDS)
    assert (found.value, found.low, found.high, found.quadrature_error) == (0, 0, 0, 0)
    assert not found.gaps.any()
    assert abs(found.start - p.variances.sum() / 200) < 3 * found.start_error
    assert found.total == found.start


@pytest.mark.parametrize("seed", [0, 10, 20])
def test_equality_between_gaussians(seed):
    p, q = random_gaussian(seed), random_gaussian(seed + 5)
    found = kl_bound(q, p, p.draw(normal(2000, (1, 3, 3), seed)), **ENDS)
    known = divergence(p, q, 0.1) - divergence(p, q, 10.0)
    assert abs(found.value - known) < 3 * found.standard_error
    assert found.standard_error < 0.05 * found.value  # or equality would say little
    assert found.quadrature_error < max(1e-3 * found.value, 0.1 * found.standard_error)
    assert found.low < found.value < found.high
    assert (found.sigma_min, found.sigma_max) == (0.1, 10.0)
    # and at every level in between; 3 standard errors of the whole cover those of a part of it
    levels = found.sigmas[::4]
    exact = [divergence(p, q, s) - divergence(p, q, 10.0) for s in levels]
    np.testing.assert_allclose(found.cumulative[::4], exact, atol=3 * found.standard_error)


def test_equality_between_mixtures():
    p = targets.gaussian_mixture([0.3, 0.7], [-2.0, 2.0], [0.5, 1.0])
    q = targets.gaussian_mixture([0.6, 0.4], [-1.5, 2.5], [1.0, 0.7])
    process = variance_exploding(ramp(0, 2), end=100.0)
    x, step = np.linspace(-80, 80, 200_001, retstep=True)

    def known(sigma):
        noised = p.at(process, sigma), q.at(process, sigma)
        log_p, log_q = (density.log_density(x[:, None]) for density in noised)
        return step * np.exp(log_p) @ (log_p - log_q)

    drawn = torch.from_numpy(p.draw(8000, np.random.default_rng(0)))[:, :, None, None]
    found = kl_bound(mixture(q), mixture(p), drawn, **ENDS, batch=8000)
    exact = known(0.1) - known(10.0)
    assert found.standard_error < 0.05 * exact
    assert abs(found.value - exact) < 3 * found.standard_error


@pytest.mark.parametrize(("factor", "shift"), [(1.2, 0.0), (0.7, 0.0), (1.0, 1.0), (1.3, -1.0)])
def test_perturbed_scores_stay_strictly_below_the_bound(factor, shift):
    """p_theta by the Fokker-Planck equation, from the exact law at sigma_max."""
    target = targets.two_modes(2.0, (0.3, 0.7))
    process = variance_exploding(ramp(0, 2), end=ENDS["sigma_max"])
    best = mixture(target)
    denoiser = perturbed(factor, shift)(best)
    grid = standard_grid(target, process, ENDS["sigma_min"])
    start = target.at(process, process.end)
    apart = divergences(reverse_sde(scores_of(denoiser), grid, initial=start, tolerance=1e-3))
    drawn = torch.from_numpy(target.draw(4000, np.random.default_rng(0)))[:, :, None, None]
    found = kl_bound(denoiser, best, drawn, **ENDS, batch=4000)
    assert apart.converged.all()
    assert apart.direct[0] > 10 * apart.error[0]
    assert apart.direct[0] + apart.error[0] < found.value - 3 * found.standard_error


def test_the_probability_flow_is_not_bounded():
    """docs/formulas.md#kl-bound: p = N(0, 1) with its score times 1.2, from sigma = 100."""
    denoiser = perturbed(1.2)(NORMAL)
    ends = {"sigma_min": 1e-3, "sigma_max": 100.0}
    found = kl_bound(denoiser, NORMAL, normal(6000), **ends, batch=6000)
    known = 0.02 * math.log((1 + 1e4) / (1 + 1e-6))
    assert abs(found.value - known) < 3 * found.standard_error + found.quadrature_error
    assert found.value == pytest.approx(0.18, abs=0.01)
    process = variance_exploding(ramp(0, 2), end=100.0)
    grid = standard_grid(targets.gaussian_mixture([1.0], [0.0], 1.0), process, 1e-3)
    flow, sde = (
        divergences(solve(scores_of(denoiser), grid)).direct[0]
        for solve in (probability_flow, reverse_sde)
    )
    assert flow == pytest.approx(1.7, abs=0.05)
    assert sde < found.low < found.high < flow / 8


def test_the_standard_error_is_that_of_repeated_experiments():
    """Levels share an image's noise, and the error bar must have their correlations in it.

    Of 60 experiments the deviation is known to 9 %: 30 % is beyond 3 of these.
    """
    found = [
        kl_bound(gaussian(2.0), NORMAL, normal(100, seed=s), **ENDS, seed=s, batch=100)
        for s in range(60)
    ]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.3)
    covered = sum(
        one.low < divergence(NORMAL, gaussian(2.0), 0.1) - 5e-5 / 2 < one.high for one in found
    )
    assert covered >= 50  # 57 expected, 3 standard errors are 5; skewed samples cost a little


def test_images_may_be_drawn_and_batches_do_not_matter():
    x = normal(50, (1, 2, 2))
    p, q = random_gaussian(0, (1, 2, 2)), random_gaussian(3, (1, 2, 2))
    whole = kl_bound(q, p, x, **ENDS)
    drawn = LazyImages(lambda indices: x[list(indices)], 50)
    parts = kl_bound(q, p, drawn, **ENDS, batch=7)
    # rounding of products of other sizes
    np.testing.assert_allclose(parts.gaps, whole.gaps, rtol=1e-12)
    assert parts.start == pytest.approx(whole.start, rel=1e-12)
    assert kl_bound(q, p, x, **ENDS, seed=1).value != whole.value


def test_single_precision_gives_the_same_within_its_rounding():
    p, q = random_gaussian(0), random_gaussian(5)
    x = p.draw(normal(200, (1, 3, 3)))
    double, single = (kl_bound(q, p, images, **ENDS) for images in (x, x.float()))
    assert single.value == pytest.approx(double.value, abs=3 * math.sqrt(2) * double.standard_error)
    assert single.gaps.dtype == np.float64


# The quadrature -----------------------------------------------------------------------------------


@given(st.floats(-2.5, 4.5), st.floats(1e-3, 1.0), st.floats(2.0, 1e4))
def test_powers_of_the_level_are_integrated_exactly(power, sigma_min, ratio):
    """Gaps of sigma^power; below 1e-9 of the value where 129 levels resolve them."""
    sigma_max = ratio * sigma_min
    measure = lambda sigmas: np.tile(sigmas[:, None] ** power, (1, 2))  # noqa: E731
    found = integrate_levels(measure, sigma_min, sigma_max, tolerance=1e-9)
    rate = power - 2
    primitive = np.log if abs(rate) < 1e-6 else lambda s: s**rate / rate
    exact = primitive(sigma_max) - primitive(found.sigmas)
    np.testing.assert_allclose(found.value, exact[-1], rtol=1e-5)
    np.testing.assert_allclose(found.cumulative, exact, rtol=1e-5, atol=1e-5 * found.value)
    assert abs(found.value - exact[-1]) <= found.quadrature_error + 1e-5 * found.value
    assert np.all(np.diff(found.sigmas) < 0)


def test_levels_are_added_until_the_quadrature_is_good_enough():
    """A bump a tenth of a factor e wide; with Monte Carlo error there is no need to resolve it."""
    asked = []

    def measure(noise):
        def gap(sigmas):
            asked.append(len(sigmas))
            bump = sigmas**2 * np.exp(-((np.log(sigmas) / 0.3) ** 2))
            return bump[:, None] * (1 + noise * np.array([-1.0, 1.0]))

        return gap

    exact = 0.3 * math.sqrt(math.pi)
    sharp = integrate_levels(measure(0.0), 0.1, 10.0, tolerance=1e-6)
    assert sharp.value == pytest.approx(exact, rel=1e-6)
    assert asked == [9, 8, 16, 32, 64]
    asked.clear()
    noisy = integrate_levels(measure(0.9), 0.1, 10.0, tolerance=1e-6)
    assert asked == [9, 8, 16]
    assert noisy.low < exact < noisy.high


# Gaps and twins -----------------------------------------------------------------------------------


def test_gaps_agree_with_closed_forms_and_with_each_other():
    q, sigmas = gaussian(3.0, 0.5), (0.3, 1.0, 3.0)
    found = gaps(q, NORMAL, normal(20_000), sigmas, batch=20_000)
    for k, sigma in enumerate(sigmas):
        missed = 3 / (3 + sigma**2) - 1 / (1 + sigma**2)
        exact = missed**2 * (1 + sigma**2) + (0.5 * sigma**2 / (3 + sigma**2)) ** 2
        decibels = 10 * math.log10(1 + exact / NORMAL.mse(sigma))
        known = {"mse": exact, "distance": exact, "decibels": decibels}
        for name, value in known.items():
            estimates = getattr(found, name)
            half = (estimates.high[k] - estimates.low[k]) / 2
            assert abs(estimates.value[k] - value) < 3 / 1.96 * half
        # squares of f - f* vary less than differences of squares of errors
        assert np.ptp([found.distance.low[k], found.distance.high[k]]) < np.ptp(
            [found.mse.low[k], found.mse.high[k]]
        )


def test_a_reference_worse_than_the_denoiser_has_a_negative_gap():
    bad = gaussian(9.0)
    found = gaps(NORMAL, bad, normal(2000), [1.0, 2.0], batch=2000)
    turned = gaps(bad, NORMAL, normal(2000), [1.0, 2.0], batch=2000)
    assert (found.mse.high < 0).all()
    assert (found.decibels.high < 0).all()
    assert (found.distance.value > 0).all()
    np.testing.assert_allclose(found.mse.value, -turned.mse.value)
    np.testing.assert_allclose(found.decibels.value, -turned.decibels.value)


def test_twins_tell_variance_and_the_sum_of_bias_and_least_error():
    """Twins (s + e_k) y with e_k of deviation .1, s .1 beyond the best: all three parts known."""
    sigma, count = 1.0, 60
    slopes = 0.6 + 0.1 * normal(2 * count, (), seed=1)
    twins = [lambda y, sigma, s=s: s * y for s in slopes.tolist()]
    x = normal(500)  # an average over them is good to 6 %
    pairs = [twin_errors(twins[2 * i : 2 * i + 2], x, [sigma]) for i in range(count)]
    variance, common = (
        np.array([getattr(pair, name).value[0] for pair in pairs])
        for name in ("variance", "common")
    )
    # E y^2 = 2 and MSE* = 1/2
    for found, known in ((variance, 0.01 * 2), (common, 0.5 + 0.1**2 * 2)):
        error = found.std(ddof=1) / math.sqrt(count)
        assert abs(found.mean() - known) < 3 * error + 2 * 0.06 * known
    many = twin_errors(twins[:5], x, [sigma])
    own = [gaps(twin, NORMAL, x, [sigma]).mse.value + _mse(NORMAL, x, sigma) for twin in twins[:5]]
    total = many.variance.value + many.common.value
    np.testing.assert_allclose(np.mean(own, 0), total, rtol=1e-9)


def _mse(denoiser, x, sigma):
    """Error of a denoiser on the very noise that gaps are measured with."""
    identity = lambda y, sigma: y  # noqa: E731
    found = gaps(denoiser, identity, x, [sigma])
    ratio = 10 ** (found.decibels.value / 10)
    return found.mse.value * ratio / (ratio - 1)


def test_the_variance_of_two_twins_is_half_their_squared_distance():
    a, b, x = gaussian(2.0), gaussian(0.5, 0.3), normal(300)
    found = variance_integral([a, b], x, **ENDS)
    apart = kl_bound(a, b, x, **ENDS)
    assert found.value == pytest.approx(apart.value / 2, rel=1e-12)
    np.testing.assert_allclose(found.gaps, apart.gaps / 2, rtol=1e-12)
    alike = variance_integral([a, a, a], x, **ENDS)
    assert alike.value == pytest.approx(0, abs=1e-25)  # the mean of three alike is rounded


def test_the_bound_between_twins_wants_samples_of_the_first():
    a, b = random_gaussian(0), random_gaussian(5)
    z = normal(1000, (1, 3, 3))
    there = kl_bound_between_twins(a, b, a.draw(z), **ENDS)
    back = kl_bound_between_twins(b, a, b.draw(z), **ENDS)
    for found, (p, q) in ((there, (a, b)), (back, (b, a))):
        known = divergence(p, q, 0.1) - divergence(p, q, 10.0)
        assert abs(found.value - known) < 3 * found.standard_error + found.quadrature_error
    wrong = kl_bound_between_twins(a, b, b.draw(z), **ENDS)
    assert abs(wrong.value - there.value) > 10 * there.standard_error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: kl_bound(NORMAL, NORMAL, x, sigma_min=0, sigma_max=1), "0 < sigma_min"),
        (lambda x: kl_bound(NORMAL, NORMAL, x, sigma_min=2, sigma_max=1), "0 < sigma_min"),
        (lambda x: kl_bound(NORMAL, NORMAL, x, **ENDS, tolerance=-1), "0 or more"),
        (lambda x: kl_bound(NORMAL, NORMAL, x[:1], **ENDS), "at least 2 images"),
        (lambda x: kl_bound(lambda y, s: y[:1], NORMAL, x, **ENDS), "must return"),
        (lambda x: gaps(NORMAL, NORMAL, x, [0.1, -1.0]), "positive and finite"),
        (lambda x: twin_errors([NORMAL], x, [1.0]), "at least 2 of them, got 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(normal(4))
