"""From training to the divergence of what is drawn, where all of it is known in closed form."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from twinscore.theory import nodes
from twinscore.theory.coordinates import standard_grid
from twinscore.theory.densities import divergences
from twinscore.theory.fokker_planck import reverse_sde
from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.probability_flow import probability_flow
from twinscore.theory.processes import ramp, variance_exploding, variance_preserving
from twinscore.theory.random_features import RandomFeatures, affine, random_features
from twinscore.theory.score_matching import quadratic_losses
from twinscore.theory.targets import gaussian_mixture, two_modes

START = 1e-2
PRESERVING = variance_preserving()
EXPLODING = variance_exploding(ramp(0, 2), end=10.0)
SOLVERS = [reverse_sde, probability_flow]


def trained(features, target, process, taus):
    """Scores of the model trained on infinitely many samples, for the solvers."""
    rule = nodes.time_rule(process, start=START)
    [loss] = quadratic_losses(features, nodes.population_nodes(target, process, rule))
    A = gradient_flow(loss).at(taus)
    score = features.score(A)
    return lambda t, x: score(t, x)[..., 0]


def slope_after(tau, variance):
    """``a(tau)`` of the model ``a x`` for N(0, variance), as in docs/theory.md."""

    def mean(function):
        return quad(function, START, 1.0, epsabs=0, epsrel=1e-11)[0] / (1 - START)

    def second_moment(t):
        return PRESERVING.scale(t) ** 2 * variance + PRESERVING.deviation(t) ** 2

    V = mean(lambda t: PRESERVING.deviation(t) ** 2 * second_moment(t))
    limit = -mean(lambda t: PRESERVING.deviation(t) ** 2) / V
    return -limit * math.expm1(-2 * V * tau)


def variance_drawn(solve, slope):
    """Variance at START of what the score ``a x`` draws from N(0, 1), variance preserving.

    In B, the integral of the rate beta from T down, ``dv/dB = (1 + 2a) v + 1`` for the reverse SDE
    and ``(1 + a) v`` for the flow.
    """
    passed = 2 * math.log(PRESERVING.scale(START) / PRESERVING.scale(PRESERVING.end))
    if solve is probability_flow:
        return math.exp((1 + slope) * passed)
    rate = 1 + 2 * slope
    return (1 + 1 / rate) * math.exp(rate * passed) - 1 / rate


@pytest.mark.parametrize("tau", [1.0, 3.0, math.inf])
@pytest.mark.parametrize("solve", SOLVERS)
def test_the_divergence_of_a_learned_linear_model_is_closed_form(solve, tau):
    """Target N(0, 1/4): the best coefficient is not the score, and KL stays above zero."""
    target, linear = (
        gaussian_mixture([1.0], [0.0], 0.25),
        RandomFeatures(np.array([[1.0]]), np.zeros((1, 2)), "identity", affine),
    )
    # What is drawn after a short training is 5 times as wide as the target.
    grid = standard_grid(target, PRESERVING, START, reach=30.0)
    found = solve(trained(linear, target, PRESERVING, [tau]), grid)
    noised = PRESERVING.scale(START) ** 2 * 0.25 + PRESERVING.deviation(START) ** 2
    ratio = noised / variance_drawn(solve, slope_after(tau, 0.25))
    expected = (ratio - 1 - math.log(ratio)) / 2
    assert expected > 0.04
    assert found.converged.all()
    assert abs(divergences(found).direct[0] - expected) <= found.error[0]


@pytest.mark.parametrize("process", [PRESERVING, EXPLODING], ids=["preserving", "exploding"])
@pytest.mark.parametrize("solve", SOLVERS)
def test_learned_densities_integrate_to_1_before_anything_is_divided_out(solve, process):
    """Both equations keep mass; 0.3 % of what the flow draws, exploding, lies beyond the grid."""
    target = two_modes(2.0, (0.3, 0.7))
    scores = trained(random_features(32, seed=0), target, process, 32 * np.array([3e3, 1e5]))
    found = solve(scores, standard_grid(target, process, START))
    assert found.converged.all()
    assert (np.abs(found.log_mass) <= (4e-3 if process is EXPLODING else 1e-3)).all()
    assert (found.error >= np.abs(found.log_mass)).all()


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("mu", [100.0, 1000.0])
def test_modes_beyond_any_of_the_study_are_still_resolved(solve, mu):
    """The exact score from the exact law: KL is 0, or the square of an error below 5e-3."""
    target = two_modes(mu)
    found = divergences(drawn_exactly(solve, target))
    assert found.converged.all()
    assert abs(found.direct[0]) < 1e-4


@pytest.mark.parametrize("solve", SOLVERS)
def test_modes_too_far_to_resolve_have_no_divergence(solve):
    found = divergences(drawn_exactly(solve, two_modes(1e5), doublings=2))
    assert not found.converged.any()
    assert np.isnan(found.direct).all()


def drawn_exactly(solve, target, **options):
    return solve(
        lambda t, x: target.at(PRESERVING, t).score(x).T,
        standard_grid(target, PRESERVING, START),
        initial=target.at(PRESERVING, PRESERVING.end),
        **options,
    )
