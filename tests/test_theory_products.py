"""Targets of independent coordinates, against laws of several dimensions that are known."""

import numpy as np
import pytest

from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.nodes import population_nodes, time_rule
from twinscore.theory.processes import variance_exploding, variance_preserving
from twinscore.theory.products import product
from twinscore.theory.quadrature import grid
from twinscore.theory.random_features import random_features
from twinscore.theory.score_matching import quadratic_losses
from twinscore.theory.targets import bounded, gaussian_mixture, two_modes, uniform

COSINE = bounded(lambda x: 2 * np.log(np.cos(0.4 * x)), -3.0, 3.0)
PROCESSES = [variance_preserving(), variance_exploding()]


@pytest.mark.parametrize("process", PROCESSES)
def test_gaussian_factors_are_the_gaussian_of_several_dimensions(process):
    means, variances = [0.5, -1.0, 2.0], [0.3, 1.0, 2.5]
    ours = product(
        [gaussian_mixture([1], [m], v) for m, v in zip(means, variances, strict=True)]
    ).at(process, 0.3)
    known = gaussian_mixture([1], [means], [variances]).at(process, 0.3)
    x = np.random.default_rng(0).normal(size=(20, 3))
    np.testing.assert_allclose(ours.log_density(x), known.log_density(x), rtol=1e-12)
    np.testing.assert_allclose(ours.score(x), known.score(x), rtol=1e-12)
    assert ours.width == pytest.approx(known.width)


def test_modes_of_two_factors_are_four_modes():
    ours = product([two_modes(2.0), two_modes(3.0)])
    corners = [[a, b] for a in (-2.0, 2.0) for b in (-3.0, 3.0)]
    known = gaussian_mixture([0.25] * 4, corners, 1.0)
    x = np.random.default_rng(1).normal(size=(20, 2))
    np.testing.assert_allclose(ours.log_density(x), known.log_density(x), rtol=1e-12)
    # the entropy of independent coordinates adds up; both by quadrature
    assert ours.entropy() == pytest.approx(known.entropy(), abs=1e-9)


@pytest.mark.parametrize("t", [0.05, 0.5])
def test_a_box_with_noise_has_mass_one_and_its_own_score(t):
    box = product([uniform(-1.0, 1.0), COSINE]).at(variance_exploding(), t)
    nodes, weights = grid(box.edges())
    assert weights @ box.density(nodes) == pytest.approx(1, abs=1e-6)
    x, step = np.random.default_rng(2).uniform(-1.5, 1.5, (10, 2)), 1e-5
    for i, away in enumerate(step * np.eye(2)):
        slope = (box.log_density(x + away) - box.log_density(x - away)) / (2 * step)
        np.testing.assert_allclose(box.score(x)[:, i], slope, rtol=1e-6, atol=1e-6)


def test_samples_lie_in_the_box_and_have_its_moments():
    box = product([uniform(0.0, 2.0), COSINE])
    x = box.draw(40_000, np.random.default_rng(3))
    assert np.isfinite(box.log_density(x)).all()
    nodes, weights = grid(COSINE.edges())
    variances = np.array([1 / 3, weights @ (nodes[:, 0] ** 2 * COSINE.density(nodes))])
    # three standard errors of a mean, and of a variance of a law lighter than Gaussian
    assert (np.abs(x.mean(0) - [1, 0]) < 3 * np.sqrt(variances / len(x))).all()
    assert (np.abs(x.var(0) - variances) < 3 * variances * np.sqrt(2 / len(x))).all()
    assert abs(np.corrcoef(x.T)[0, 1]) < 3 / np.sqrt(len(x))
    assert np.isneginf(box.log_density(np.array([[2.1, 0.0], [1.0, 3.5]]))).all()


def test_random_features_learn_the_score_of_a_box():
    """A population loss over a product: training lowers what is left of the score's energy."""
    process = variance_preserving()
    rule = time_rule(process, count=4, start=0.05)
    box = product([uniform(-1.0, 1.0), COSINE])
    [loss] = quadratic_losses(
        random_features(48, dim=2, seed=0), population_nodes(box, process, rule)
    )
    left = loss(gradient_flow(loss).at([0.0, 1e3, 1e6]))
    assert left[0] > 2 * left[1] > 4 * left[2] > 0


def test_what_is_not_a_product_is_refused():
    with pytest.raises(ValueError, match=r"at least one; got \[\]"):
        product([])
    with pytest.raises(ValueError, match=r"got \[1, 2\]"):
        product([uniform(0, 1), gaussian_mixture([1], [[0, 0]], 1.0)])
    with pytest.raises(ValueError, match=r"must be \(n, 2\), got \(4, 1\)"):
        product([uniform(0, 1), uniform(0, 1)]).log_density(np.zeros((4, 1)))
