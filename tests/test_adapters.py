"""Foreign denoisers: what every function takes as it is, and what an adapter must put right."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from twinscore import sampling
from twinscore.analysis import sure
from twinscore.analysis.denoising import psnr_table
from twinscore.analysis.jacobian import full, linearise
from twinscore.denoisers import adapters, check, score
from twinscore.denoisers.closed_form import Gaussian
from twinscore.denoisers.layers import generator_of
from twinscore.sampling import operators

SHAPE = (1, 3, 3)
SIGMA = torch.tensor([0.1, 0.7, 2.0, 0.3], dtype=torch.float64)


HALF = torch.arange(9).view(SHAPE) < 5


def gaussian(low=0.0, high=1.0):
    """A Gaussian of images in [0, 1], in the units of a different range."""
    generator = generator_of(1)
    root = torch.randn(9, 9, generator=generator, dtype=torch.float64) * 0.2 * (high - low)
    mean = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    return Gaussian.of(low + (high - low) * mean, root @ root.T)


def noisy(count=4):
    return torch.randn(count, *SHAPE, generator=generator_of(2), dtype=torch.float64)


class Shrinkage(nn.Module):
    """A foreign ``D(x, sigma)`` that insists on a (B,) tensor, as EDM's and k-diffusion's do."""

    def __init__(self):
        super().__init__()
        self.variance = nn.Parameter(torch.tensor(0.25, dtype=torch.float64))

    def forward(self, x, sigma):
        assert sigma.shape == (len(x),)
        assert (sigma.dtype, sigma.device) == (x.dtype, x.device)
        return x * (self.variance / (self.variance + sigma**2))[:, None, None, None]


def wiener(y, sigma):
    level = torch.as_tensor(sigma, dtype=y.dtype).reshape(-1, 1, 1, 1)
    return y * 0.25 / (0.25 + level**2)


class Wiener(nn.Module):
    def forward(self, x, sigma):
        return wiener(x, sigma)


FOREIGN = {
    "function": wiener,
    "partial": partial(wiener),
    "module": Wiener().eval(),
    "module that takes a tensor only": Shrinkage().eval(),
    "its method": Shrinkage().eval().forward,
    "adapted": adapters.level_per_image(Shrinkage().eval()),
}
USES = {
    "check": lambda f, y: check(f, y, 0.5),
    "check, a level each": lambda f, y: check(f, y, SIGMA),
    "score": lambda f, y: score(f, y, SIGMA),
    "score, one level": lambda f, y: score(f, y, 0.5),
    "jacobian": lambda f, y: full(linearise(f, y[:1], 0.5)),
    "products": lambda f, y: linearise(f, y, SIGMA).push(torch.stack([y, y.flip(0)])),
    "transposed": lambda f, y: linearise(f, y, 0.5).pull(torch.stack([y, y.flip(0)])),
    "sure": lambda f, y: sure.sure(f, y, 0.5),
    "risk": lambda f, y: torch.tensor(
        [mean.value for mean in vars(sure.risk(f, y, 0.5, batch=3)).values()]
    ),
    "flow": lambda f, y: sampling.probability_flow(f, y, steps=3),
    "heun": lambda f, y: sampling.probability_flow(f, y, steps=3, solver=sampling.heun),
    "encode": lambda f, y: sampling.encode(f, y, steps=3),
    "ancestral": lambda f, y: sampling.ancestral(f, y, seeds=range(4), steps=3),
    "langevin": lambda f, y: sampling.langevin_corrected(f, y, seeds=range(4), steps=3),
    "stochastic": lambda f, y: sampling.reverse_diffusion(f, y, seeds=range(4), h0=0.5),
    "likelihood": lambda f, y: sampling.log_density(
        f, y, lambda z: -z.square().flatten(1).sum(1), steps=2
    ),
    "psnr": lambda f, y: psnr_table(f, y, [0.1, 0.5]),
    "restoration": lambda f, y: sampling.conditioned(
        f, operators.inpainting(HALF), torch.zeros(4, 5).double()
    )(y, SIGMA),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_function_of_image_and_level_is_a_denoiser_everywhere(use, foreign):
    y = noisy()
    expected = USES[use](adapters.level_per_image(Shrinkage().eval()), y)
    torch.testing.assert_close(USES[use](FOREIGN[foreign], y), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.4, torch.tensor(0.4), torch.full((4,), 0.4)], ids=str)
def test_the_level_reaches_a_foreign_network_one_an_image(sigma):
    y = noisy()
    x_hat = adapters.level_per_image(Shrinkage().eval())(y, sigma)
    torch.testing.assert_close(x_hat, wiener(y, 0.4), rtol=1e-6, atol=0)  # 0.4 in float32


NOISE = partial(adapters.converted, convention="noise", low=0.0, high=1.0)


@pytest.mark.parametrize("adapter", [adapters.level_per_image, NOISE])
def test_a_level_that_is_missing_or_of_another_length_is_refused(adapter):
    denoiser = adapter(Shrinkage().eval())
    with pytest.raises(ValueError, match="needs the noise level"):
        denoiser(noisy())
    with pytest.raises(ValueError, match=r"of shape \(4,\), got \(3,\)"):
        denoiser(noisy(), torch.ones(3))


@pytest.mark.parametrize("sigma", [0.3, SIGMA], ids=["float", "tensor"])
def test_predicted_noise_becomes_the_estimate(sigma):
    exact, y = gaussian(), noisy()

    def epsilon(y, level):
        return (y - exact(y, level)) / level[:, None, None, None]

    denoiser = NOISE(epsilon)
    torch.testing.assert_close(denoiser(y, sigma), exact(y, sigma), rtol=1e-12, atol=1e-12)


def test_a_predicted_residual_is_subtracted_and_the_level_ignored():
    y = noisy()
    denoiser = adapters.residual_predicting(lambda y: 0.25 * y)
    for sigma in (None, 0.3, SIGMA):
        torch.testing.assert_close(denoiser(y, sigma), 0.75 * y, rtol=0, atol=1e-15)


@given(low=st.floats(-3, 3), width=st.floats(0.1, 10))
def test_another_range_gives_the_same_posterior_mean(low, width):
    y = noisy()
    denoiser = adapters.with_range(gaussian(low, low + width), low, low + width)
    torch.testing.assert_close(denoiser(y, SIGMA), gaussian()(y, SIGMA), rtol=1e-9, atol=1e-9)


def test_a_blind_denoiser_of_another_range_stays_blind_and_an_empty_range_is_refused():
    y = noisy()
    blind = adapters.with_range(adapters.residual_predicting(lambda y: 0.5 * y), -1, 1)
    torch.testing.assert_close(blind(y), ((2 * y - 1) / 2 + 1) / 2, rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match="low must be below high; got 1 and 1"):
        adapters.with_range(wiener, 1, 1)


def test_training_mode_shows_through_an_adapter():
    network = Shrinkage()
    with pytest.raises(ValueError, match="training mode"):
        check(adapters.level_per_image(network), noisy(), 0.5)
    network.eval()
    denoiser = adapters.with_range(adapters.level_per_image(network), -1, 1)
    check(denoiser, noisy(), 0.5)
    network.train()
    with pytest.raises(ValueError, match="training mode"):
        check(denoiser, noisy(), 0.5)


def test_training_mode_shows_through_a_method():
    network = Shrinkage()
    denoiser = adapters.level_per_image(network.forward)
    with pytest.raises(ValueError, match="training mode"):
        check(denoiser, noisy(), 0.5)
    check(denoiser.eval(), noisy(), 0.5)
    assert not network.training
    assert list(denoiser.state_dict()) == ["inside.0.variance"]


def test_an_adapter_carries_its_network():
    denoiser = adapters.level_per_image(Shrinkage().eval())
    assert list(denoiser.state_dict()) == ["network.variance"]
    other = copy.deepcopy(denoiser)
    with torch.no_grad():
        other.network.variance.zero_()
    assert (other(noisy(), 0.5) == 0).all()
    assert (denoiser(noisy(), 0.5) != 0).all()
    assert denoiser.to(torch.float32)(noisy().float(), 0.5).dtype == torch.float32
