"""Bits per dimension of images, against densities that are known."""

import numpy as np
import pytest
import torch

from twinscore import images, sampling
from twinscore.denoisers.closed_form.empirical import Empirical
from twinscore.denoisers.closed_form.gaussian import Gaussian
from twinscore.denoisers.closed_form.mixture import GaussianMixture
from twinscore.denoisers.layers import generator_of
from twinscore.runs import derive_seed
from twinscore.sampling.bits import LikelihoodSpec, bits_per_dimension

EXACT = LikelihoodSpec(probes=None)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator_of(seed), dtype=torch.float64)


def fitted(training):
    """The Gaussian of some images."""
    flat = training.flatten(1).double()
    return Gaussian.of(flat.mean(0).view(training.shape[1:]), torch.cov(flat.T))


def bits(log_density):
    return -log_density / (4 * np.log(2))


def test_bits_of_a_gaussian_are_its_own():
    """The flow of the exact denoiser gives the exact density."""
    training = (0.5 + 0.2 * normal(40, 1, 2, 2)).float()
    law, options = fitted(training), {"trained": 1.0, "seed": 1}
    found = bits_per_dimension(law, training[:6], training, EXACT, batch=4, **options)
    again = bits_per_dimension(law, training[:6], training, EXACT, batch=6, **options)
    np.testing.assert_allclose(found, again, atol=1e-5)  # rounding of other batches
    other = bits_per_dimension(law, training[:6], training, EXACT, batch=6, **options | {"seed": 2})
    assert np.abs(other - found).max() > 0.01
    many = bits_per_dimension(law, training, training, EXACT, batch=40, **options)
    variance = law.variances + EXACT.sigma_min**2
    entropy = 0.5 * torch.log2(2 * torch.pi * torch.e * variance).mean().item()
    # The mean over 40 x 4 numbers of z^2 / (2 ln 2) has standard deviation 0.08.
    assert many.mean() == pytest.approx(entropy, abs=0.25)


@pytest.mark.parametrize("trained", [0.5, 1.0, 2.0])
def test_bits_of_a_gaussian_do_not_depend_on_where_they_start(trained):
    """With the density's own mean and covariance, at any level; tolerance: 25 steps."""
    training = 0.5 + 0.2 * normal(40, 1, 2, 2)
    law = fitted(training)
    lone = LikelihoodSpec(probes=None, sigma_min=0.2)
    found = bits_per_dimension(law, training[:1], training, lone, trained=trained, seed=1, batch=1)
    below = LikelihoodSpec(probes=None, sigma_min=0.2, sigma_max=0.4)
    again = bits_per_dimension(law, training[:1], training, below, trained=trained, seed=1, batch=1)
    np.testing.assert_allclose(found, again, atol=1e-4)


def test_bits_of_two_modes_are_theirs_from_a_level_that_hides_them():
    """Modes 1 apart: 3.3 deviations of the noise at level 0.3, where no Gaussian fits, or 1."""
    means = torch.full((2, 1, 2, 2), 0.25, dtype=torch.float64)
    means[1] += 0.5
    weights, variances = torch.full((2,), 0.5).double(), torch.full((2, 4), 0.01).double()
    law = GaussianMixture.of(weights, means, variances)
    u = torch.rand(2000, generator=generator_of(1), dtype=torch.float64)
    training = law.draw(normal(2000, 1, 2, 2), u)
    spec = LikelihoodSpec(probes=None, sigma_min=0.1)
    z = sampling.noise([derive_seed(3, "noisy", i) for i in range(100)], (1, 2, 2))
    exact = bits(law.log_density(training[:100] + spec.sigma_min * z, spec.sigma_min)).numpy()
    off = [
        np.abs(
            bits_per_dimension(
                law, training[:100], training, spec, trained=trained, seed=3, batch=100
            )
            - exact
        ).mean()
        for trained in (0.3, 1.0)
    ]
    assert off[0] > 0.05
    assert off[1] < 0.01


def test_networks_are_asked_for_no_level_they_were_not_trained_on():
    training, asked = 0.5 + 0.2 * normal(8, 1, 2, 2), []
    law = fitted(training)

    def denoiser(y, sigma=None):
        asked.append(sigma)
        return law(y, sigma)

    for trained in (0.7, 1.0):
        asked.clear()
        bits_per_dimension(
            denoiser, training[:1], training, EXACT, trained=trained, seed=0, batch=1
        )
        assert max(asked) == pytest.approx(trained)
    with pytest.raises(ValueError, match=r"above training\.sigma_max 1"):
        bits_per_dimension(
            law, training, training, LikelihoodSpec(sigma_max=2), trained=1.0, seed=0, batch=1
        )


def test_digits_with_noise_of_level_1_are_nearly_gaussian():
    """What the Gaussian costs, at the default level and at a third: two kinds of digits."""
    digits = images.load("digits")
    x = digits[np.flatnonzero(np.isin(digits.labels, (0, 1)))].double()
    law, points = fitted(x), Empirical.of(x)
    costs = []
    for sigma in (0.3, 1.0):
        y = x + sigma * normal(*x.shape)
        cost = points.log_density(y, sigma) - law.log_density(y, sigma)
        costs.append(cost.mean().item() / (64 * np.log(2)))
    assert costs[0] > 0.05
    assert 0 < costs[1] < 0.01
