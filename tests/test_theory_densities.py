import math

import numpy as np
import pytest

from twinscore.theory.bounds import score_matching_bound
from twinscore.theory.coordinates import reverse_times, standard_grid
from twinscore.theory.densities import divergences, integrated_score
from twinscore.theory.fokker_planck import reverse_sde
from twinscore.theory.kl_estimate import kl_estimate, log_likelihood
from twinscore.theory.probability_flow import probability_flow
from twinscore.theory.processes import ramp, variance_exploding, variance_preserving
from twinscore.theory.targets import empirical, gaussian_mixture, prior, two_modes, uniform

NORMAL = gaussian_mixture([1.0], [0.0], 1.0)
PRESERVING = variance_preserving()
EXPLODING = variance_exploding(ramp(0, 2), end=10.0)
SOLVERS = [reverse_sde, probability_flow]


def exact(target, process, factor=1.0):
    return lambda t, x: factor * target.at(process, t).score(x).T


def gaussian_kl(variance):
    """KL(N(0, 1) || N(0, variance))."""
    return (1 / variance - 1 + math.log(variance)) / 2


def test_the_flow_may_lie_far_beyond_the_bound_of_the_reverse_sde():
    process = variance_exploding(ramp(0, 2), end=100.0)
    grid = standard_grid(NORMAL, process, 0.0)
    scores = exact(NORMAL, process, 1.2)
    sde, flow = (divergences(solve(scores, grid)) for solve in SOLVERS)
    bound = score_matching_bound(scores, grid)
    # in closed form: the flow's variance is T^2 (1 + T^2)^-1.2, the bound 0.02 log(1 + T^2)
    assert flow.direct[0] == pytest.approx(gaussian_kl(1e4 * 10001**-1.2), abs=1e-6)
    assert bound.total[0] == pytest.approx(0.02 * math.log(10001), abs=1e-7)
    # the reverse SDE's variance settles at 1/1.4
    assert sde.direct[0] == pytest.approx(gaussian_kl(1 / 1.4), abs=1e-4)
    assert sde.direct[0] < bound.total[0] < flow.direct[0] / 9


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("solve", SOLVERS)
def test_linear_scores_give_gaussians_of_known_variance(solve, factor):
    grid = standard_grid(NORMAL, EXPLODING, 0.0)
    found = solve(exact(NORMAL, EXPLODING, factor), grid)
    grown, begin = 101.0, 100 / 101
    if solve is probability_flow:
        variance = begin * grown ** (1 - factor)
    else:
        rate = 2 * factor - 1
        variance = 1 / rate + (begin - 1 / rate) * grown**-rate
    x = found.points
    density = np.exp(-(x**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    assert found.weights @ np.exp(found.log_density[0]) == pytest.approx(1, abs=1e-12)
    assert found.converged.all()
    gap = np.abs(found.log_density[0] + (x**2 / variance + math.log(2 * math.pi * variance)) / 2)
    # 1e-8: quadrature; the widest law has 1.5e-3 of its mass beyond the grid, and says so
    assert (found.weights * density) @ gap <= found.error[0] + 1e-8
    difference = divergences(found).direct[0] - gaussian_kl(variance)
    assert abs(difference) <= found.error[0] + 1e-8


@pytest.mark.parametrize("process", [PRESERVING, EXPLODING], ids=["preserving", "exploding"])
@pytest.mark.parametrize("mu", [3.0, 15.0])
@pytest.mark.parametrize("solve", SOLVERS)
def test_the_exact_score_from_the_exact_law_gives_the_target_back(solve, mu, process):
    target = two_modes(mu, (0.3, 0.7))
    grid = standard_grid(target, process, 0.0)
    found = solve(
        exact(target, process), grid, initial=target.at(process, process.end), tolerance=5e-3
    )
    apart = divergences(found)
    assert apart.converged.all()
    mass = found.weights * np.exp(found.target)
    assert mass @ np.abs(found.log_density[0] - found.target) <= found.error[0] <= 5e-3
    # a mean error of 5e-3 in log density is one of 5e-3^2 in KL, and no more than itself
    assert apart.direct[0] < 3e-4
    assert apart.reverse[0] < 3e-4
    assert apart.total_variation[0] < 5e-3


@pytest.mark.parametrize("mu", [3.0, 50.0])
def test_the_flow_keeps_the_divergence_of_its_start_and_the_sde_reduces_it(mu):
    process = variance_exploding(ramp(0, 2), end=4 * mu)
    target = two_modes(mu, (0.3, 0.7))
    grid = standard_grid(target, process, 0.0)
    start = score_matching_bound(exact(target, process), grid).start
    sde, flow = (divergences(solve(exact(target, process), grid)) for solve in SOLVERS)
    assert flow.direct[0] == pytest.approx(start, abs=2 * flow.error[0] * math.sqrt(start))
    assert -1e-9 < sde.direct[0] < start / 2


def test_a_law_of_points_comes_back_from_its_own_score():
    target = two_modes(3.0)
    points = empirical(target.draw(20, np.random.default_rng(0)))
    grid = standard_grid(target, EXPLODING, 0.3, width=0.3)
    expected = points.at(EXPLODING, 0.3).log_density
    for solve in SOLVERS:
        found = solve(
            exact(points, EXPLODING), grid, initial=points.at(EXPLODING, 10.0), tolerance=2e-2
        )
        log_density = expected(found.points[:, None])
        mass = found.weights * np.exp(log_density)
        assert mass @ np.abs(found.log_density[0] - log_density) < 1e-3
        assert divergences(found).reverse[0] == pytest.approx(
            mass @ (log_density - found.target), abs=2e-3
        )


@pytest.mark.parametrize("solve", SOLVERS)
def test_a_rounded_uniform_comes_back(solve):
    target = uniform(-1.0, 1.0)
    grid = standard_grid(target, EXPLODING, 0.05)
    apart = divergences(solve(exact(target, EXPLODING), grid))
    assert apart.converged.all()
    assert apart.direct[0] < 1e-3
    assert apart.wasserstein_1[0] < 1e-3


@pytest.mark.parametrize("solve", SOLVERS)
def test_the_error_falls_at_third_order_or_better(solve):
    grid = standard_grid(two_modes(3.0), EXPLODING, 0.0)
    gaps = []
    for doublings in (0, 1):
        found = solve(
            exact(grid.target, EXPLODING),
            grid,
            initial=grid.target.at(EXPLODING, 10.0),
            tolerance=0.0,
            doublings=doublings,
        )
        assert not found.converged.any()
        mass = found.weights * np.exp(found.target)
        gaps.append(mass @ np.abs(found.log_density[0] - found.target))
    # 2^3 = 8 in the limit of small steps
    assert gaps[0] / gaps[1] > 5


def test_scores_are_evolved_together_as_alone():
    factors = np.array([[0.7], [1.0], [1.3]])
    grid = standard_grid(two_modes(2.0), PRESERVING, 0.0)
    one = exact(grid.target, PRESERVING)
    for solve in SOLVERS:
        together = solve(lambda t, x: factors * one(t, x), grid)
        for k, factor in enumerate(factors):
            alone = solve(lambda t, x, f=factor: f * one(t, x), grid)
            np.testing.assert_allclose(together.log_density[k], alone.log_density[0], rtol=1e-9)
            assert together.error[k] == pytest.approx(alone.error[0])


def test_the_bound_holds_for_the_reverse_sde_of_perturbed_scores():
    target = two_modes(3.0)
    grid = standard_grid(target, EXPLODING, 0.0)
    waves = np.random.default_rng(0).normal(size=(20, 3)) * 0.3

    def scores(t, x):
        features = np.tanh(x.T * np.array([[0.3], [1.0], [2.0]]))
        return exact(target, EXPLODING)(t, x) + waves @ features / (1 + t)

    found, bound = divergences(reverse_sde(scores, grid)), score_matching_bound(scores, grid)
    assert found.converged.all()
    assert (bound.error < 1e-3 * bound.total).all()
    assert (found.direct < bound.total).all()
    assert (found.direct > 0.01 * bound.total).all()


def test_the_integrated_score_reads_the_last_score_only():
    target = two_modes(3.0, (0.3, 0.7))
    grid = standard_grid(target, EXPLODING, 0.01)
    for interval in (None, (-10.0, 10.0)):
        found = integrated_score(exact(target, EXPLODING), grid, interval=interval)
        assert found.converged.all()
        assert divergences(found).direct[0] == pytest.approx(0, abs=1e-7)
        np.testing.assert_allclose(found.weights @ np.exp(found.log_density[0]), 1)


def test_distances_between_shifted_and_scaled_gaussians_are_known():
    grid = standard_grid(NORMAL, EXPLODING, 0.0)
    found = integrated_score(lambda t, x: np.stack([-(x[:, 0] - 0.5), -x[:, 0] / 1.44]), grid)
    apart = divergences(found)
    np.testing.assert_allclose(apart.direct, [0.125, gaussian_kl(1.44)], atol=1e-8)
    np.testing.assert_allclose(apart.reverse, [0.125, (1.44 - 1 - math.log(1.44)) / 2], atol=1e-8)
    # the trapezoid rule on steps of about 0.02
    np.testing.assert_allclose(apart.wasserstein_2, [0.5, 0.2], atol=1e-3)
    np.testing.assert_allclose(apart.wasserstein_1, [0.5, 0.2 * math.sqrt(2 / math.pi)], atol=1e-3)
    assert apart.total_variation[0] == pytest.approx(math.erf(0.25 / math.sqrt(2)), abs=1e-3)


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize(
    "wrong",
    [lambda t, x: x.T, lambda t, x: -50 * x.T**3],
    ids=["outwards", "runaway"],
)
def test_failures_are_reported_and_have_no_divergence(solve, wrong):
    grid = standard_grid(two_modes(3.0), EXPLODING, 0.0)
    found = solve(wrong, grid, doublings=1)
    assert not found.converged.any()
    assert np.isfinite(found.log_density).all()
    assert found.error[0] > found.tolerance or found.escaped[0] > found.tolerance
    apart = divergences(found)
    assert not apart.converged.any()
    for value in (apart.direct, apart.reverse, apart.total_variation, apart.wasserstein_2):
        assert np.isnan(value).all()


def test_a_density_that_converged_keeps_its_divergence_next_to_one_that_did_not():
    grid = standard_grid(NORMAL, EXPLODING, 0.0)
    score = exact(NORMAL, EXPLODING)
    found = divergences(reverse_sde(lambda t, x: np.vstack([score(t, x), x.T]), grid, doublings=1))
    assert found.converged.tolist() == [True, False]
    assert np.isfinite(found.direct).tolist() == [True, False]


def test_bad_input_is_refused():
    grid = standard_grid(NORMAL, EXPLODING, 0.0)
    for solve in (*SOLVERS, integrated_score):
        with pytest.raises(ValueError, match="scores must be finite"):
            solve(lambda t, x: x.T * np.nan, grid)
        with pytest.raises(ValueError, match="scores must be finite"):
            solve(lambda t, x: x, grid)
    with pytest.raises(ValueError, match="interval"):
        integrated_score(exact(NORMAL, EXPLODING), grid, interval=(1.0, 1.0))
    with pytest.raises(ValueError, match="start"):
        standard_grid(uniform(-1.0, 1.0), EXPLODING, 0.0)
    with pytest.raises(ValueError, match="start"):
        reverse_times(EXPLODING, 10.0, 4, 1.0)
    with pytest.raises(ValueError, match="reach"):
        standard_grid(NORMAL, EXPLODING, 0.0, reach=0.0)
    with pytest.raises(ValueError, match=r"too much noise.* lower its rate"):
        standard_grid(NORMAL, variance_preserving(ramp(0.1, 3000)), 0.01)
    with pytest.raises(ValueError, match="one dimension"):
        standard_grid(gaussian_mixture([1.0], [[0.0, 0.0]], 1.0), EXPLODING, 0.0)


def test_steps_in_time_change_a_feature_by_one_factor():
    times = reverse_times(EXPLODING, 0.0, 10, 1.0)
    ratios = (1 + times[:-1] ** 2) / (1 + times[1:] ** 2)
    np.testing.assert_allclose(ratios, 101**0.1, rtol=1e-9)
    assert times[0] == 10
    assert times[-1] == 0


MIXED = gaussian_mixture([0.3, 0.7], [[0, 0], [1, 2]], [[1, 0.5], [0.3, 1]])


def of(target, process):
    return lambda t, x: target.at(process, t).score(x)


def test_likelihoods_in_two_dimensions_are_exact():
    points = MIXED.draw(50, np.random.default_rng(0))
    found = log_likelihood(
        of(MIXED, PRESERVING),
        points,
        PRESERVING,
        start=0.0,
        width=MIXED.width,
        initial=MIXED.at(PRESERVING, 1.0),
    )
    assert found.converged.all()
    np.testing.assert_allclose(found.log_density, MIXED.log_density(points), atol=2e-3)


def test_the_divergence_in_two_dimensions_is_covered_by_its_interval():
    found = kl_estimate(
        lambda t, x: 1.2 * of(gaussian_mixture([1.0], [[0.0, 0.0]], 1.0), EXPLODING)(t, x),
        gaussian_mixture([1.0], [[0.0, 0.0]], 1.0),
        EXPLODING,
        start=0.0,
        count=400,
        generator=np.random.default_rng(0),
    )
    expected = 2 * gaussian_kl(100 * 101**-1.2)
    assert found.low < expected < found.high
    assert found.failed == 0
    assert found.high - found.low < 0.5 * expected


def test_likelihoods_that_run_away_are_reported():
    points = np.random.default_rng(0).normal(size=(4, 2))
    wild = lambda t, x: -50 * x**3  # noqa: E731
    found = log_likelihood(wild, points, EXPLODING, start=0.0, width=1.0, doublings=1)
    assert not found.converged.any()
    assert np.isnan(found.log_density).all()
    strict = {"tolerance": 1e-14, "doublings": 1}
    stiff = log_likelihood(
        of(MIXED, PRESERVING), points, PRESERVING, start=0.0, width=0.3, **strict
    )
    assert np.isfinite(stiff.error).all()
    assert not stiff.converged.any()
    assert np.isnan(stiff.log_density).all()
    with pytest.raises(ValueError, match="runs away"):
        kl_estimate(wild, NORMAL, EXPLODING, start=0.0, count=3, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match="2 samples"):
        kl_estimate(wild, NORMAL, EXPLODING, start=0.0, count=1, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match="shape"):
        log_likelihood(lambda t, x: x[:, :1], points, EXPLODING, start=0.0, width=1.0)
    with pytest.raises(ValueError, match="points"):
        log_likelihood(wild, points[0], EXPLODING, start=0.0, width=1.0)
    assert prior(EXPLODING).variances[0, 0] == pytest.approx(100)
