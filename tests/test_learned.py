"""Whether a network has learned: the Gaussian baseline, traits of samples, energy distance."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.ndimage import gaussian_filter

from twinscore import images as image_sets
from twinscore.analysis import baseline, learned
from twinscore.analysis.denoising import psnr_table
from twinscore.analysis.statistics import bounds
from twinscore.denoisers.closed_form import Gaussian
from twinscore.denoisers.layers import generator_of
from twinscore.training.history import SIGMAS

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

LEVELS = ((torch.arange(512) + 0.5) / 512).square()  # uniform in its root on [0, 1]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


# Baseline ---------------------------------------------------------------------------------------


def test_on_the_digits_it_is_as_good_as_was_found():
    """Within 0.2 dB of another program's figures, with other noise and other test images.

    Without blindness the first would be 27.6 dB; with the mean known the last one 12.6 dB.
    """
    digits = image_sets.load("digits")
    split = image_sets.twins(digits, 800)
    pool = torch.cat([digits[split.a], digits[split.b]])
    blind = baseline.fitted(pool, levels=LEVELS, centre=False)
    test = digits[split.test]
    found = np.mean([psnr_table(blind, test, SIGMAS, seed=k).mean(1) for k in range(3)], axis=0)
    np.testing.assert_allclose(found, [27.5, 22.6, 18.4, 16.4, 14.1, 13.1, 11.9], atol=0.2)


def test_of_many_images_it_is_their_gaussian():
    x = normal(4000, 1, 2, 3) @ normal(3, 3, seed=1) + 0.5
    flat = x.flatten(1)
    expected = Gaussian.of(x.mean(0), torch.cov(flat.T, correction=0))
    y = normal(5, 1, 2, 3, seed=2)
    torch.testing.assert_close(baseline.fitted(x)(y, 0.7), expected(y, 0.7), rtol=0.01, atol=0.01)


def test_of_few_images_it_is_certain_of_nothing():
    """Ten images in 64 dimensions: their own covariance loses what it has not seen."""
    x, held_out = normal(10, 1, 8, 8), normal(200, 1, 8, 8, seed=1)
    found = baseline.fitted(x)
    own = Gaussian.of(x.mean(0), torch.cov(x.flatten(1).T, correction=0))
    y = held_out + 0.3 * normal(200, 1, 8, 8, seed=2)
    error = lambda f: (f(y, 0.3) - held_out).square().mean().item()  # noqa: E731
    best = 0.09 / 1.09
    assert error(found) < 1.5 * best
    assert error(own) > 5 * best


def test_shrinkage_is_that_of_ledoit_and_wolf():
    from sklearn.covariance import ledoit_wolf

    x = normal(30, 1, 3, 4) @ normal(4, 4, seed=1)
    for centre in (True, False):
        expected, _ = ledoit_wolf(x.flatten(1).numpy(), assume_centered=not centre)
        prior = baseline.fitted(x, centre=centre)
        found = prior.components * prior.variances @ prior.components.T
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert (prior.mean == 0).all() != centre


def test_a_blind_gaussian_averages_over_the_levels_of_its_law():
    """One pixel: the posterior mean by numerical integration over sigma, uniform in its root."""
    prior = Gaussian.of(torch.full((1, 1, 1), 0.2).double(), torch.tensor([[0.3]]).double())
    found = baseline.BlindGaussian(prior, ((torch.arange(4000) + 0.5) / 4000).double().square())

    def weight(u, y):
        return math.exp(-((y - 0.2) ** 2) / (2 * (0.3 + u**4))) / math.sqrt(0.3 + u**4)

    def weighted(u, y):
        return weight(u, y) * (0.2 + 0.3 / (0.3 + u**4) * (y - 0.2))

    for y in (-1.5, 0.1, 0.9):
        expected = integrate.quad(weighted, 0, 1, y)[0] / integrate.quad(weight, 0, 1, y)[0]
        value = found(torch.full((1, 1, 1, 1), y).double()).item()
        assert value == pytest.approx(expected, abs=1e-6)


def test_blindness_costs_little_in_many_dimensions_and_is_never_better():
    x = normal(3000, 1, 8, 8) * torch.linspace(0.02, 0.5, 64).double().view(1, 1, 8, 8)
    told, blind = baseline.fitted(x), baseline.fitted(x, levels=LEVELS)
    held_out = normal(2000, 1, 8, 8, seed=1) * torch.linspace(0.02, 0.5, 64).view(1, 1, 8, 8)
    costs = []
    for sigma in (0.1, 0.3, 0.7):
        y = held_out + sigma * normal(2000, 1, 8, 8, seed=2)
        errors = [(f(y, sigma) - held_out).square().mean().item() for f in (told, blind)]
        costs.append(10 * math.log10(errors[1] / errors[0]))
    assert all(0 < cost < 0.3 for cost in costs)
    with pytest.raises(ValueError, match="needs images"):
        baseline.fitted(x[:0])


def test_a_set_of_images_is_read_in_parts(monkeypatch):
    digits = image_sets.load("digits").take(range(50))
    whole = baseline.fitted(digits[:])
    monkeypatch.setattr(baseline, "_CHUNK", 300)
    y = digits[:3].double()
    torch.testing.assert_close(baseline.fitted(digits)(y, 0.3), whole(y, 0.3))


def test_gains_are_paired_and_of_their_levels():
    rng = np.random.default_rng(0)
    base = rng.normal(20, 5, (1, 7, 40))
    network = base + np.array([9, 1, 2, 3, 4, 5, 9])[None, :, None]
    found = bounds(learned.gain(network, base, SIGMAS, (0.1, 0.7), seed=0))
    assert found == pytest.approx((3, 3, 3))
    three = learned.gain(network.repeat(3, 0), base.repeat(3, 0), SIGMAS, (0.1, 0.7), seed=0)
    assert bounds(three) == pytest.approx((3, 3, 3))
    with pytest.raises(ValueError, match="no noise level lies between"):
        learned.gain(network, base, SIGMAS, (2, 3), seed=0)


def test_output_worse_than_the_input_is_found():
    output = -20 * np.log10(SIGMAS) + np.array([-0.1, 1, 1, 1, 1, 1, -2])
    table = output[:, None] + np.array([-1.0, 1])
    assert learned.worse_than_input(np.stack([table, table]), SIGMAS) == [0.05, 1.0]


# Samples ----------------------------------------------------------------------------------------


def photos():
    return image_sets.load("photos,size=16")


def test_images_of_one_kind_have_the_same_traits():
    x = photos()
    order = torch.randperm(len(x), generator=generator_of(0))
    found = learned.traits(x[order[:256].numpy()], x[order[256:384].numpy()], seed=0)
    assert list(found) == ["diversity", "contrast", *(f"power {k}-{2 * k}" for k in (2, 4, 8, 16))]
    assert all(0.6 < of.value < 1.6 for of in found.values())
    assert all(of.low <= of.value <= of.high for of in found.values())


@pytest.mark.parametrize(
    ("spoil", "trait"),
    [
        (lambda x: x.mean(0, keepdim=True).expand_as(x), "diversity"),
        (lambda x: x.mean(0) + 0.3 * (x - x.mean(0)), "contrast"),
        (lambda x: torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 3, 3))), "power 2-4"),
        (lambda x: x + 0.3 * torch.randn(x.shape, generator=generator_of(3)), "power 2-4"),
    ],
    ids=["the mean image", "flat", "blurred", "noisy"],
)
def test_each_fault_shows_in_its_trait(spoil, trait):
    x = photos()
    order = torch.randperm(len(x), generator=generator_of(1)).numpy()
    found = learned.traits(spoil(x[order[:200]]), x[order[200:328]], seed=0)[trait]
    assert found.value < 0.5 or found.value > 2
    assert found.high < 0.5 or found.low > 2


def test_few_images_of_one_kind_seldom_seem_to_differ():
    """Of photographs power is heavy-tailed: by percentiles of a bootstrap 16 of 60 sets differed.

    An error of 5 % gives more than 9 of 60 once in a thousand times.
    """
    x, differ = photos(), 0
    for seed in range(60):
        order = torch.randperm(len(x), generator=generator_of(seed)).numpy()
        found = learned.traits(x[order[:64]], x[order[64:68]], seed=seed).values()
        differ += any(of.high < 0.5 or of.low > 2 for of in found)
    assert differ <= 9


def test_a_wave_has_power_in_its_octave_alone():
    wave = torch.cos(2 * math.pi * torch.arange(16) / 5.333333).expand(4, 1, 16, 16).contiguous()
    power = learned._power(wave) - learned.ROUNDING
    np.testing.assert_allclose(power, np.tile([0, 0.5, 0, 0], (4, 1)), atol=1e-6)
    assert learned._power(torch.zeros(2, 3, 1, 1)).shape == (2, 1)


def test_energy_is_unbiased_and_its_band_holds_the_same_law():
    """300 pairs of sets of one law: mean 0, and 95 % within the band."""
    values = [
        learned.energy(
            normal(20, 1, 2, 2, seed=i), normal(30, 1, 2, 2, seed=10**6 + i), seed=i, divisions=99
        )
        for i in range(200)
    ]
    found = np.array([of.value for of in values])
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(200)
    within = np.mean([of.value <= of.band for of in values])
    assert within > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 200)


def test_energy_of_a_shift_is_known():
    """In one dimension ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` of N(0, 1) and N(1, 1)."""
    x, y = normal(900, 1, 1, 1) + 1, normal(900, 1, 1, 1, seed=1)
    between = 2 / math.sqrt(math.pi) * math.exp(-0.25) + math.erf(0.5)
    within = 2 / math.sqrt(math.pi)
    found = learned.energy(x, y, seed=0, divisions=99)
    assert found.value == pytest.approx(2 * (between - within) / within, abs=0.08)
    assert found.band < 0.02 < found.low < found.value < found.high


def test_too_few_images_are_refused():
    x = normal(1, 1, 4, 4)
    for measure in (learned.traits, learned.energy):
        with pytest.raises(ValueError, match="2 images or more"):
            measure(x, normal(5, 1, 4, 4), seed=0)
