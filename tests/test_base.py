"""The contract of a denoiser: what ``check`` refuses, the score, PSNR."""

from functools import partial

import pytest
import torch

from twinscore.denoisers import UNet, check, denoise, per_image, psnr, score
from twinscore.denoisers.layers import generator_of

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def identity(y, sigma=None):
    return y


def batch(seed=0):
    return torch.randn(3, 1, 4, 4, generator=generator_of(seed))


def test_a_good_denoiser_passes_and_its_estimate_is_returned():
    y = batch()
    assert torch.equal(check(lambda y, sigma: y * sigma.view(-1, 1, 1, 1), y, 0.5), y * 0.5)
    assert check(identity, y) is y
    assert check(UNet(width=2, levels=1).eval(), y, torch.tensor([0.1, 0.2, 0.3])).shape == y.shape


@pytest.mark.parametrize("given", [0.25, 1, torch.tensor(0.25), torch.full((3,), 0.25).double()])
def test_a_denoiser_is_given_one_level_for_each_image(given):
    y, levels = batch().double(), []

    def watching(y, sigma):
        levels.append(sigma)
        return y

    denoise(watching, y, given)
    check(watching, y, given)
    score(watching, y, given)
    for level in levels:
        assert (level.shape, level.dtype, level.is_contiguous()) == ((3,), y.dtype, True)
        assert (level == torch.as_tensor(given)).all()
    assert per_image(None, y) is None
    with pytest.raises(ValueError, match=r"of shape \(3,\), got \(1,\)"):
        per_image(torch.ones(1), y)


def test_training_mode_is_refused():
    network = UNet(width=2, levels=1)
    ways = [network, network.forward, partial(network), partial(network.forward)]
    for denoiser in ways:
        with pytest.raises(ValueError, match="training mode"):
            check(denoiser, batch())
    network.eval()
    for denoiser in ways:
        check(denoiser, batch())


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(4, 4), r"\(B, C, H, W\).*\(4, 4\)"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "floating-point.*uint8"),
        (torch.full((1, 1, 2, 2), torch.nan), "NaN"),
        (torch.full((1, 1, 2, 2), torch.inf), "infinity"),
    ],
)
def test_bad_input_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        check(identity, y)


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (lambda y, sigma: y[:1], r"must return \(3, 1, 4, 4\) float32, got \(1, 1, 4, 4\)"),
        (lambda y, sigma: y.double(), "float64"),
        (lambda y, sigma: y.numpy(), "ndarray"),
        (lambda y, sigma: y * torch.nan, "returned NaN"),
        (lambda y, sigma: y / 0, "returned NaN or infinity"),
    ],
)
def test_bad_output_is_refused(denoiser, message):
    with pytest.raises(ValueError, match=message):
        check(denoiser, batch())


@pytest.mark.parametrize(
    "sigma",
    [0.0, -1.0, torch.nan, torch.inf, torch.ones(2), torch.ones(3, 1), torch.tensor([1, 0, 1.0])],
)
def test_bad_sigma_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma"):
        check(identity, batch(), sigma)


def test_psnr_is_per_image_and_per_pixel():
    x = torch.zeros(3, 2, 4, 4)
    errors = torch.tensor([1.0, 0.1, 0.001])
    x_hat = x + errors.view(3, 1, 1, 1)
    torch.testing.assert_close(psnr(x_hat, x), torch.tensor([0.0, 20.0, 60.0]))
    # One wrong pixel of 32: the MSE is averaged over channels and pixels.
    x_hat = x.clone()
    x_hat[:, 0, 0, 0] = 1.0
    torch.testing.assert_close(psnr(x_hat, x), torch.full((3,), 15.0515))


def test_score_of_the_exact_gaussian_denoiser():
    """x ~ N(0, v): f(y) = y v / (v + sigma^2), so the score is -y / (v + sigma^2)."""
    variance, y = 0.3, batch().double()
    for sigma in (0.2, torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)):
        level = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1, 1, 1)

        def wiener(y, sigma, level=level):
            return y * variance / (variance + level**2)

        torch.testing.assert_close(score(wiener, y, sigma), -y / (variance + level**2))
