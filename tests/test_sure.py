"""SURE against the true error: networks, Gaussians, mixtures."""

import math

import pytest
import torch

from twinscore.analysis import sure
from twinscore.denoisers import UNet
from twinscore.denoisers.closed_form import Gaussian, GaussianMixture
from twinscore.denoisers.layers import generator_of

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

SHAPE, D, SIGMA = (1, 4, 4), 16, 0.4


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def covariance(seed):
    a = normal(D, D, seed=seed)
    return a @ a.T / D


GAUSSIAN = Gaussian.of(normal(*SHAPE, seed=1), covariance(2))
MIXTURE = GaussianMixture.of(
    torch.tensor([0.3, 0.7]).double(),
    normal(2, *SHAPE, seed=3),
    torch.stack([covariance(4), covariance(5)]) / 4,
)
CASES = {
    "gaussian": (GAUSSIAN, GAUSSIAN.draw(normal(1500, *SHAPE))),
    "mixture": (
        MIXTURE,
        MIXTURE.draw(
            normal(1500, *SHAPE), torch.rand(1500, generator=generator_of(0), dtype=torch.float64)
        ),
    ),
    "network": (UNet(width=3, levels=1).double().eval(), 0.5 + normal(1500, *SHAPE) / 5),
}


@pytest.mark.parametrize("probes", [1, None])
@pytest.mark.parametrize("name", list(CASES))
def test_sure_is_unbiased(name, probes):
    denoiser, x = CASES[name]
    found = sure.risk(denoiser, x, SIGMA, probes=probes, batch=500)
    assert abs(found.difference.value) <= 3 * found.difference.standard_error
    # and the test can see a bias of a tenth of the error's size
    assert found.difference.standard_error < 0.034 * found.mse.value
    assert found.sure.low < found.sure.value < found.sure.high
    assert found.difference.value == pytest.approx(found.sure.value - found.mse.value)


def test_average_over_a_gaussian_is_its_exact_error():
    denoiser, x = CASES["gaussian"]
    found, exact = sure.risk(denoiser, x, SIGMA, probes=None, batch=1500), GAUSSIAN.mse(SIGMA)
    assert abs(found.sure.value - exact) <= 3 * found.sure.standard_error
    assert abs(found.mse.value - exact) <= 3 * found.mse.standard_error


def test_one_image_by_the_formula():
    y = normal(2, *SHAPE)
    J = GAUSSIAN.jacobian(y, SIGMA)[0]
    residual = (y - GAUSSIAN(y, SIGMA)).square().flatten(1).sum(1)
    expected = 2 * SIGMA**2 * J.trace() + residual - SIGMA**2 * D
    torch.testing.assert_close(sure.sure(GAUSSIAN, y, SIGMA), expected)


def test_bad_input_is_refused():
    denoiser, x = CASES["network"]
    with pytest.raises(ValueError, match="at least 2 images"):
        sure.risk(denoiser, x[:1], SIGMA)
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        sure.risk(denoiser, x, SIGMA, batch=0)
    with pytest.raises(ValueError, match="must be positive"):
        sure.sure(denoiser, x[:1], 0.0)
    with pytest.raises(ValueError, match="NaN"):
        sure.sure(denoiser, x[:1] * math.nan, SIGMA)
    with pytest.raises(ValueError, match="training mode"):
        sure.sure(UNet(width=3, levels=1).double(), x[:1], SIGMA)


def test_signs_are_not_those_of_the_noise():
    """A Jacobian that depends on the noise would be probed where the noise points."""

    def bent(y, sigma=None):
        return y * y.mean((1, 2, 3), keepdim=True).square()

    found = [
        sure.risk(bent, torch.zeros(64, *SHAPE), 1.0, batch=64, seed=seed).difference
        for seed in range(20)
    ]
    mean = sum(difference.value for difference in found) / len(found)
    error = sum(difference.standard_error**2 for difference in found) ** 0.5 / len(found)
    assert abs(mean) < 3 * error


def test_signs_are_not_those_of_noise_drawn_from_the_same_seed():
    """``f(y) = (sum y)^2 y / d``: where signs are those of y the trace comes out too large."""

    def bent(y, sigma=None):
        return y * y.sum((1, 2, 3), keepdim=True).square() / D

    errors = []
    for seed in range(200):
        y = torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(seed))
        probed = sure.sure(bent, y, 1.0, probes=1, seed=seed)
        errors.append((probed - sure.sure(bent, y, 1.0)).item())
    errors = torch.tensor(errors)
    assert abs(errors.mean()) < 3 * errors.std() / len(errors) ** 0.5


@pytest.mark.parametrize(("side", "batch"), [(8, 64), (22, 64), (32, 32), (200, 1)])
def test_large_images_are_taken_few_at_a_time(side, batch):
    sizes = []

    def half(y, sigma=None):
        sizes.append(len(y))
        return y / 2

    sure.risk(half, torch.zeros(70 if batch > 1 else 2, 1, side, side), 0.1)
    assert max(sizes) == batch
