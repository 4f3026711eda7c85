"""Score-matching losses: quadrature against random numbers, direct sums and finer quadrature."""

import numpy as np
import pytest

from twinscore.theory import nodes
from twinscore.theory.processes import variance_exploding, variance_preserving
from twinscore.theory.random_features import ACTIVATIONS, affine, fourier, log_deviation
from twinscore.theory.random_features import random_features as features_of
from twinscore.theory.score_matching import quadratic_losses
from twinscore.theory.targets import empirical, gaussian_mixture, two_modes, uniform

PROCESSES = {"preserving": variance_preserving(), "exploding": variance_exploding()}


def coefficients(features, seed=7):
    """Coefficients of a score model about as large as the scores."""
    shape = (features.dim, features.width)
    return 2 * np.random.default_rng(seed).standard_normal(shape)


def within_standard_errors(estimates, exact, errors=3.0):
    estimates = np.asarray(estimates)
    deviation = estimates.std(ddof=1) / np.sqrt(len(estimates))
    return abs(estimates.mean() - exact) < errors * deviation


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("activation", ["relu", "silu", "tanh", "erf"])
def test_quadrature_of_samples_is_the_mean_of_random_numbers(name, activation):
    process = PROCESSES[name]
    rule = nodes.time_rule(process, count=12, start=1e-2)
    samples = two_modes(3.0).draw(40, np.random.default_rng(0))
    features = features_of(8, seed=1, activation=activation)
    A = coefficients(features)
    [exact] = quadratic_losses(features, nodes.empirical_nodes([samples], process, rule))
    drawn = [
        quadratic_losses(features, nodes.sampled_nodes(samples, process, rule, seed=seed))[0]
        for seed in range(20)
    ]
    assert within_standard_errors([loss(A) for loss in drawn], exact(A) + exact.floor)
    corner = [loss.gram[0, 1] for loss in drawn]
    assert within_standard_errors(corner, exact.gram[0, 1])


@pytest.mark.parametrize("target", [two_modes(3.0), uniform(-1.0, 1.0)], ids=["modes", "bounded"])
def test_quadrature_of_a_population_is_the_mean_of_random_numbers(target):
    process = PROCESSES["preserving"]
    rule = nodes.time_rule(process, count=12, start=1e-2)
    features = features_of(8, seed=1)
    A = coefficients(features)
    [exact] = quadratic_losses(features, nodes.population_nodes(target, process, rule))
    drawn = []
    for seed in range(20):
        samples = target.draw(300, np.random.default_rng([5, seed]))
        blocks = nodes.sampled_nodes(samples, process, rule, seed=seed)
        drawn.append(quadratic_losses(features, blocks)[0])
    assert within_standard_errors([loss(A) for loss in drawn], exact(A) + exact.floor)


def test_quadrature_and_random_numbers_agree_in_two_dimensions():
    process = PROCESSES["preserving"]
    rule = nodes.time_rule(process, count=4, start=0.1)
    target = gaussian_mixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 1.0]], 0.5)
    features = features_of(8, seed=1, dim=2, activation="tanh")
    A = coefficients(features)
    [exact] = quadratic_losses(features, nodes.population_nodes(target, process, rule))
    drawn = []
    for seed in range(20):
        samples = target.draw(100, np.random.default_rng([5, seed]))
        blocks = nodes.sampled_nodes(samples, process, rule, draws=2, seed=seed)
        drawn.append(quadratic_losses(features, blocks)[0])
    assert within_standard_errors([loss(A) for loss in drawn], exact(A) + exact.floor)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_finer_quadrature_changes_nothing(name, activation):
    """3e-8: what the stated spacings leave for a feature of weight 3, the largest of 64."""
    check_refinement(PROCESSES[name], activation, 3e-8)


def test_a_relu_is_integrated_at_second_order():
    """The bend falls inside panels: 1e-3 of the Gram matrix at the stated spacing."""
    check_refinement(PROCESSES["preserving"], "relu", 1e-3)


def check_refinement(process, activation, tolerance):
    rule, finer = nodes.time_rule(process), nodes.time_rule(process, count=48)
    samples = two_modes(3.0).draw(100, np.random.default_rng(0))
    features = features_of(64, seed=1, activation=activation)
    target = two_modes(3.0)
    coarse = [
        nodes.empirical_nodes([samples], process, rule),
        nodes.population_nodes(target, process, rule),
    ]
    fine = [
        nodes.empirical_nodes([samples], process, finer, resolution=2.0, spacing=0.07),
        nodes.population_nodes(target, process, finer, widest=0.7),
    ]
    for one, other in zip(coarse, fine, strict=True):
        [a], [b] = quadratic_losses(features, one), quadratic_losses(features, other)
        assert np.abs(a.gram - b.gram).max() < tolerance * np.abs(b.gram).max()
        assert np.abs(a.cross - b.cross).max() < tolerance * np.abs(b.cross).max()


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("mu", [3.0, 50.0])
def test_noised_samples_have_the_density_and_score_of_a_direct_sum(name, mu):
    process = PROCESSES[name]
    rule = nodes.time_rule(process, count=5, weighting=np.ones_like)
    samples = [two_modes(mu).draw(n, np.random.default_rng(n)) for n in (1, 20)]
    for block, share in zip(
        nodes.empirical_nodes(samples, process, rule), rule.weights, strict=True
    ):
        np.testing.assert_allclose(block.weights.sum(1), share, rtol=1e-12)
        for data, weights, targets in zip(samples, block.weights, block.targets, strict=True):
            law = empirical(data).at(process, block.t)
            density = law.density(block.points)
            shape = weights / weights.max() - density / density.max()
            assert np.abs(shape).max() < 1e-12  # the convolution's quadrature: exp(-39)
            certain = density > 1e-6 * density.max()
            error = (targets - law.score(block.points))[certain]
            assert np.abs(error).max() * process.deviation(block.t) < 1e-6


def test_random_numbers_are_common_to_nested_samples_and_come_in_pairs():
    process = PROCESSES["preserving"]
    rule = nodes.time_rule(process, count=2)
    samples = np.random.default_rng(0).standard_normal((10, 3))
    [few, *_] = nodes.sampled_nodes(samples[:4], process, rule, draws=2, seed=3)
    [many, *_] = nodes.sampled_nodes(samples, process, rule, draws=2, seed=3)
    np.testing.assert_array_equal(few.points, many.points[: len(few.points)])
    pairs = few.targets.reshape(4, 2, 2, 3)
    np.testing.assert_array_equal(pairs[:, 0], -pairs[:, 1])


def test_times_are_uniform_and_weighted():
    process = PROCESSES["preserving"]
    rule = nodes.time_rule(process, weighting=lambda t: t**2, start=0.01)
    np.testing.assert_allclose(rule.weights.sum(), (1 - 0.01**3) / (3 * 0.99), rtol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_narrower_models_are_the_first_features(activation):
    process = PROCESSES["preserving"]
    wide = features_of(12, seed=4, activation=activation)
    narrow = features_of(5, seed=4, activation=activation)
    x = np.linspace(-3, 3, 9)[:, None]
    np.testing.assert_array_equal(narrow(0.3, x), wide(0.3, x)[:, :5])
    rule = nodes.time_rule(process, count=3)
    one, other = (
        quadratic_losses(f, nodes.population_nodes(two_modes(1.0), process, rule))[0]
        for f in (wide, narrow)
    )
    np.testing.assert_allclose(one.narrowed(5).gram, other.gram, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(wide.narrowed(5).W, narrow.W)


def test_many_models_are_evaluated_at_once():
    features = features_of(6, seed=0, dim=2)
    A = np.random.default_rng(1).standard_normal((3, 4, 2, 6))
    x = np.random.default_rng(2).standard_normal((5, 2))
    together = features.score(A)(0.5, x)
    assert together.shape == (3, 4, 5, 2)
    np.testing.assert_allclose(together[2, 1], features.score(A[2, 1])(0.5, x), rtol=1e-12)


def test_embeddings_take_times_of_any_shape():
    process = PROCESSES["exploding"]
    for embedding, width in ((affine, 2), (fourier(0, 1), 4), (log_deviation(process), 2)):
        t = np.array([[0.1, 0.2], [0.3, 0.4]])
        assert embedding(t).shape == (2, 2, width)
        np.testing.assert_allclose(embedding(t)[1, 0], embedding(0.3), rtol=1e-12)


def test_what_makes_no_sense_is_refused():
    process = PROCESSES["preserving"]
    rule = nodes.time_rule(process)
    good = np.zeros((3, 1))
    for bad in (lambda: features_of(0, seed=0), lambda: features_of(4, seed=0, dim=0)):
        with pytest.raises(ValueError, match="m = "):
            bad()
    with pytest.raises(ValueError, match="activation"):
        features_of(4, seed=0, activation="gelu")
    with pytest.raises(ValueError, match="scales"):
        features_of(4, seed=0, input_scale=0.0)
    with pytest.raises(ValueError, match="frequencies"):
        fourier()
    with pytest.raises(ValueError, match="can keep 1 to 4"):
        features_of(4, seed=0).narrowed(0)
    with pytest.raises(ValueError, match=r"points must be \(n, 1\)"):
        features_of(4, seed=0)(0.1, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="coefficients"):
        features_of(4, seed=0).score(np.zeros((1, 5)))
    with pytest.raises(ValueError, match="start"):
        nodes.time_rule(process, start=0.0)
    with pytest.raises(ValueError, match="weighting"):
        nodes.time_rule(process, weighting=lambda t: -t)
    with pytest.raises(ValueError, match="n >= 1"):
        next(nodes.empirical_nodes([good, good[:0]], process, rule))
    with pytest.raises(ValueError, match="n >= 1"):
        next(nodes.sampled_nodes(good[:0], process, rule, seed=0))
    with pytest.raises(ValueError, match="data set"):
        next(nodes.empirical_nodes([], process, rule))
    with pytest.raises(ValueError, match="finite"):
        next(nodes.empirical_nodes([good + np.nan], process, rule))
    with pytest.raises(ValueError, match="draw"):
        next(nodes.sampled_nodes(good, process, rule, draws=0, seed=0))
    with pytest.raises(ValueError, match="nodes"):
        quadratic_losses(features_of(4, seed=0), [])
