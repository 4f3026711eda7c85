"""The exact gradient flow against closed forms, invariances and explicit descent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from twinscore.theory import nodes
from twinscore.theory.descent import gradient_descent
from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.processes import variance_exploding, variance_preserving
from twinscore.theory.random_features import RandomFeatures, affine
from twinscore.theory.random_features import random_features as features_of
from twinscore.theory.score_matching import QuadraticLoss, quadratic_losses
from twinscore.theory.targets import gaussian_mixture, two_modes

START = 1e-2
TAUS = np.geomspace(1e-2, 1e6, 60)


def linear(*weights):
    """Features ``w x``: the score model is linear in x, by one coefficient for all times."""
    W = np.array(weights)[:, None]
    return RandomFeatures(W, np.zeros((len(W), 2)), "identity", affine)


def loss_of(features, target, process, **options):
    rule = nodes.time_rule(process, start=START, **options)
    [loss] = quadratic_losses(features, nodes.population_nodes(target, process, rule))
    return loss


def modes_loss(width=24, activation="silu", seed=1):
    return loss_of(
        features_of(width, seed=seed, activation=activation), two_modes(3.0), variance_preserving()
    )


@pytest.mark.parametrize("variance", [0.25, 1.0])
@pytest.mark.parametrize("process", [variance_preserving(), variance_exploding()])
def test_a_linear_model_of_a_gaussian_follows_the_closed_form(process, variance):
    """``a(tau) = a_inf (1 - exp(-2 V tau))``, V and -1/a_inf time means of variance and weight."""

    def mean(function):
        return quad(function, START, process.end, epsabs=0, epsrel=1e-11)[0] / (process.end - START)

    def second_moment(t):
        return process.scale(t) ** 2 * variance + process.deviation(t) ** 2

    V = mean(lambda t: process.deviation(t) ** 2 * second_moment(t))
    limit = -mean(lambda t: process.deviation(t) ** 2) / V
    flow = gradient_flow(loss_of(linear(1.0), gaussian_mixture([1.0], [0.0], variance), process))
    a = flow.at(TAUS)[:, 0, 0]
    np.testing.assert_allclose(a, -limit * np.expm1(-2 * V * TAUS), rtol=1e-9)


def test_a_linear_model_learns_the_true_score_of_a_stationary_law_only():
    normal, narrow = (gaussian_mixture([1.0], [0.0], variance) for variance in (1.0, 0.25))
    stationary = loss_of(linear(1.0), normal, variance_preserving())
    limit = gradient_flow(stationary).at([np.inf])
    np.testing.assert_allclose(limit, [[[-1.0]]], rtol=1e-12)
    assert abs(stationary(limit)[0]) < 1e-12
    moving = loss_of(linear(1.0), narrow, variance_preserving())
    assert moving(gradient_flow(moving).at([np.inf]))[0] > 0.01


def test_what_the_loss_cannot_see_stays_as_it_was():
    """Features x and 2x are one function: A moves along (1, 2) only."""
    loss = loss_of(linear(1.0, 2.0), gaussian_mixture([1.0], [0.0], 0.5), variance_preserving())
    start = np.array([[3.0, -1.0]])
    path = gradient_flow(loss, start).at([0.0, 1.0, np.inf])
    np.testing.assert_allclose(path[0], start, rtol=1e-12)
    np.testing.assert_allclose(path @ np.array([2.0, -1.0]), [[7.0]] * 3, rtol=1e-12)
    np.testing.assert_allclose(loss.gradient(path[2]), 0, atol=1e-12)


def test_doubled_features_learn_the_same_function_in_twice_the_time():
    """The factor 1/m in front: the function moves at rate tau / m."""
    features = features_of(16, seed=2)
    twice = RandomFeatures(
        np.tile(features.W, (2, 1)), np.tile(features.U, (2, 1)), "silu", features.embedding
    )
    x, taus = np.linspace(-5, 5, 11)[:, None], np.array([1.0, 100.0, 1e4])
    target, process = two_modes(2.0), variance_preserving()
    one, two = (
        f.score(gradient_flow(loss_of(f, target, process)).at(factor * taus))(0.2, x)
        for f, factor in ((features, 1), (twice, 2))
    )
    # Rounding of the Gram matrix, 1e-16 g_max, times tau / m^2: about 1e-12.
    np.testing.assert_allclose(two, one, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("activation", ["relu", "silu", "tanh", "erf"])
def test_explicit_descent_meets_the_flow_at_first_order(activation):
    loss = modes_loss(activation=activation)
    start = np.random.default_rng(0).standard_normal((1, loss.width))
    tau = 200.0
    [exact] = gradient_flow(loss, start).at([tau])
    errors = []
    for steps in (400, 800, 1600):
        [reached] = gradient_descent(loss, tau / steps, [steps], start)
        errors.append(np.abs(reached - exact).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    np.testing.assert_allclose(ratios, 2.0, rtol=0.05)  # the next order is of size 1 / steps


@settings(max_examples=15, deadline=None)
@given(
    mu=st.floats(0, 6),
    seed=st.integers(0, 1000),
    width=st.integers(1, 24),
    activation=st.sampled_from(["relu", "silu", "tanh", "erf"]),
)
def test_the_flow_never_raises_the_loss(mu, seed, width, activation):
    features = features_of(width, seed=seed, activation=activation)
    loss = loss_of(features, two_modes(mu), variance_preserving(), count=8)
    start = np.random.default_rng(seed).standard_normal((1, width))
    flow = gradient_flow(loss, start)
    values = loss(flow.at(TAUS))
    scale = loss(start)
    assert (np.diff(values) <= 1e-12 * scale).all()
    above = flow.loss_above_limit(TAUS)
    assert (np.diff(above) <= 0).all()
    limit = loss(flow.at([np.inf]))[0]
    np.testing.assert_allclose(above, values - limit, rtol=1e-6, atol=1e-9 * scale)


def test_the_flow_of_random_numbers_interpolates_and_stays_bounded():
    """Fewer points than features: the limit is finite, and the loss of the sample vanishes."""
    process = variance_preserving()
    rule = nodes.time_rule(process, count=2, start=0.3)
    samples = two_modes(1.0).draw(2, np.random.default_rng(0))
    blocks = nodes.sampled_nodes(samples, process, rule, seed=0)
    [loss] = quadratic_losses(features_of(64, seed=0, activation="relu"), blocks)
    [limit] = gradient_flow(loss).at([np.inf])
    assert np.isfinite(limit).all()
    assert loss(limit) < 1e-6 * loss.constant


@pytest.mark.parametrize("taus", [[], [1.0, 1.0], [2.0, 1.0], [-1.0, 1.0], [np.nan], [[1.0]]])
def test_times_that_do_not_increase_are_refused(taus):
    with pytest.raises(ValueError, match="tau must be"):
        gradient_flow(modes_loss(width=2)).at(taus)


def test_impossible_starts_and_losses_are_refused():
    loss = modes_loss(width=2)
    with pytest.raises(ValueError, match=r"A\(0\) must be \(1, 2\)"):
        gradient_flow(loss, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="not finite"):
        gradient_flow(QuadraticLoss(loss.gram * np.nan, loss.cross, 1.0, 0.0))
