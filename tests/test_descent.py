"""Training by steps: what it learns, what it repeats, what it refuses."""

import numpy as np
import pytest
import torch

from twinscore.theory import nodes
from twinscore.theory.descent import gradient_descent, train
from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.processes import geometric, variance_exploding, variance_preserving
from twinscore.theory.random_features import random_features
from twinscore.theory.score_matching import quadratic_losses
from twinscore.theory.targets import two_modes

EVERY = {"A": 0.5, "W": 0.5, "U": 0.5}


@pytest.fixture(scope="module")
def setting():
    samples = two_modes(1.0).draw(50, np.random.default_rng(0))
    return random_features(4, seed=1), samples, variance_preserving()


def exact_loss(features, samples, process):
    rule = nodes.time_rule(process)
    [loss] = quadratic_losses(features, nodes.empirical_nodes([samples], process, rule))
    return loss


def test_stochastic_descent_follows_the_flow_on_average(setting):
    features, samples, process = setting
    steps, rate = [0, 30, 100], 0.2
    exact = gradient_flow(exact_loss(*setting)).at(rate * np.array(steps))
    runs = np.stack(
        [
            [
                s.A
                for s in train(
                    features, samples, process, rates={"A": rate}, steps=steps, seed=seed
                )
            ]
            for seed in range(10)
        ]
    )
    error = runs.std(0, ddof=1) / np.sqrt(len(runs))
    np.testing.assert_array_equal(runs[:, 0], 0)
    assert (np.abs(runs.mean(0) - exact)[1:] < 4 * error[1:]).all()


def test_only_the_layers_with_a_rate_learn(setting):
    features, samples, process = setting
    options = {"steps": [3], "seed": 0}
    [last] = train(features, samples, process, rates={"A": 1.0}, **options)
    np.testing.assert_array_equal(last.features.W, features.W)
    [every] = train(features, samples, process, rates=EVERY, **options)
    assert not np.allclose(every.features.W, features.W)
    assert not np.allclose(every.features.U, features.U)
    [again] = train(features, samples, process, rates=EVERY, **options)
    np.testing.assert_array_equal(every.A, again.A)


@pytest.mark.parametrize(
    ("rates", "optimizer"),
    [
        (EVERY, torch.optim.SGD),
        ({"A": 0.5, "W": 0.01, "U": 0.01}, torch.optim.Adam),
    ],
)
def test_the_published_setting_learns(rates, optimizer):
    process = variance_exploding(geometric(5.0))
    samples = two_modes(3.0).draw(1000, np.random.default_rng(0))
    features = random_features(16, seed=2)
    first, last = train(
        features, samples, process, rates=rates, steps=[0, 400], seed=3, optimizer=optimizer
    )
    losses = [float(exact_loss(s.features, samples, process)(s.A)) for s in (first, last)]
    assert losses[1] < 0.6 * losses[0]
    assert last.score(0.1, samples[:5]).shape == (5, 1)


def test_descent_that_diverges_says_so(setting):
    features, samples, process = setting
    with pytest.raises(ValueError, match="descent diverged"):
        gradient_descent(exact_loss(*setting), 1e6, [1000])
    with pytest.raises(ValueError, match="training diverged"):
        train(features, samples, process, rates={"A": 1e6}, steps=[300], seed=0)


def test_what_makes_no_sense_is_refused(setting):
    features, samples, process = setting
    good = {"rates": {"A": 0.1}, "steps": [1], "seed": 0}
    for change, message in (
        ({"rates": {"B": 0.1}}, "layers"),
        ({"rates": {}}, "layers"),
        ({"rates": {"A": -0.1}}, "positive"),
        ({"steps": [2, 1]}, "increase"),
        ({"steps": []}, "increase"),
        ({"batch": 0}, "batch"),
        ({"start": 0.0}, "start"),
        ({"A": np.zeros((1, 5))}, "coefficients"),
    ):
        with pytest.raises(ValueError, match=message):
            train(features, samples, process, **(good | change))
    with pytest.raises(ValueError, match="need samples"):
        train(features, samples[:0], process, **good)
    with pytest.raises(ValueError, match="increase"):
        gradient_descent(exact_loss(*setting), 0.1, [-1])


@pytest.mark.parametrize(("base", "low", "high"), [(25.0, 0.04, 0.06), (5.0, 1.0, 2.0)])
def test_the_published_rate_is_stable_only_for_moderate_noise(base, low, high):
    """Descent of A is stable below ``m^2 / g_max``, and swish features grow with the noise."""
    samples = two_modes(3.0).draw(1000, np.random.default_rng(0))
    loss = exact_loss(random_features(16, seed=2), samples, variance_exploding(geometric(base)))
    assert low < 2 / gradient_flow(loss).rates[-1] < high
