"""The empirical density against its formula written out, at every noise level and precision."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import func

from twinscore.analysis.jacobian import linearise
from twinscore.denoisers.closed_form import Empirical
from twinscore.denoisers.layers import generator_of
from twinscore.sampling import probability_flow

SHAPE = (2, 3, 4)
D = math.prod(SHAPE)
CLOSE = {"rtol": 1e-9, "atol": 1e-10}
MODULE = sys.modules[Empirical.__module__]


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=generator_of(seed), dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


IMAGES = uniform(50, *SHAPE)
Y = uniform(5, *SHAPE, seed=1)


def naive(images, y, sigma):
    """Posterior weights (B, N), posterior mean, and log density, by direct differences."""
    squares = (y.flatten(1)[:, None] - images.to(y).flatten(1)).square().sum(2)
    exponents = -squares / (2 * sigma**2)
    weights = exponents.softmax(1)
    mean = (weights @ images.to(y).flatten(1)).view_as(y)
    d = y[0].numel()
    normaliser = math.log(len(images)) + d / 2 * math.log(2 * math.pi * sigma**2)
    return weights, mean, exponents.logsumexp(1) - normaliser


@pytest.mark.parametrize("sigma", [1e-4, 1e-2, 0.1, 0.3, 1.0, 10.0])
def test_it_is_the_formula(sigma):
    form = Empirical.of(IMAGES)
    weights, mean, log_density = naive(IMAGES, Y, sigma)
    # Log weights reach 1e8 at sigma 1e-4; they round by 1e-16 of that.
    torch.testing.assert_close(form(Y, sigma), mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(form.log_density(Y, sigma), log_density, rtol=1e-9, atol=1e-9)
    spread = IMAGES.flatten(1) - mean.flatten(1)[:, None]
    covariance = spread.mT @ (weights[:, :, None] * spread)
    found = sigma**2 * form.jacobian(Y, sigma)
    torch.testing.assert_close(found, covariance, rtol=1e-6, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.floats(-4, 1), st.integers(0, 1000), st.sampled_from([1, 7, 200]))
def test_float32_is_within_the_reported_bound(exponent, seed, count):
    sigma = float(np.float32(10**exponent))
    images = uniform(count, 1, 12, 12, seed=seed).float()
    # Near an image, between images that differ little, and far off.
    near = images[:1] + sigma * normal(1, 1, 12, 12, seed=seed + 1).float()
    images[-1] = images[0] + 2 * sigma * normal(1, 12, 12, seed=seed + 2).float() / 12
    y = torch.cat([near, (images[:1] + images[-1:]) / 2, near + 3])
    form = Empirical.of(images)
    exact = naive(images, y.double(), sigma)[1]
    errors = (form(y, sigma).double() - exact).flatten(1).norm(dim=1)
    assert (errors <= form.error_bound(y, sigma)).all()
    assert (form.error_bound(y, sigma) < 0.1 * exact.flatten(1).norm(dim=1)).all()


def test_a_plain_float32_product_would_lose_the_weights():
    """What the preselection is for: the nearest of images a thousandth apart."""
    images = (uniform(1, 1, 32, 32) + 1e-3 * normal(20, 1, 32, 32, seed=2)).float()
    sigma = 3e-4
    y = images[3:4] + sigma * normal(1, 1, 32, 32, seed=3).float()
    flat, x = y.flatten(1), images.flatten(1)
    squares = flat.square().sum(1) - 2 * flat @ x.T + x.square().sum(1)
    exponents = -squares.double() / (2 * sigma**2)
    exact = -(flat.double() - x.double()).square().sum(1) / (2 * sigma**2)
    assert ((exponents - exponents.amax()) - (exact - exact.amax())).abs().max() > 10
    form = Empirical.of(images)
    error = (form(y, sigma).double() - naive(images, y.double(), sigma)[1]).norm()
    assert error <= form.error_bound(y, sigma)
    assert error < 1e-5


@pytest.mark.parametrize("sigma", [1e-4, 0.02, 0.1, 0.3, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_change_nothing(monkeypatch, sigma, dtype):
    form, y = Empirical.of(IMAGES), Y.to(dtype)
    sides = []
    for chunk in (MODULE._CHUNK, 7 * D, 1):
        monkeypatch.setattr(MODULE, "_CHUNK", chunk)
        sides.append((form(y, sigma), form.error_bound(y, sigma)))
    for mean, bound in sides[1:]:
        distance = (mean - sides[0][0]).flatten(1).norm(dim=1)
        assert (distance <= bound + sides[0][1]).all()


@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_the_two_ways_to_exact_distances_agree(monkeypatch, dense):
    monkeypatch.setattr(MODULE, "_DENSE", dense)
    monkeypatch.setattr(MODULE, "_TRUSTED", 1e-6)
    images = uniform(40, 1, 10, 10).float()
    y = images[:6] + 0.3 * normal(6, 1, 10, 10, seed=1).float()
    exact = naive(images, y.double(), 0.3)[1]
    # Weights round to float32, and so does their sum of 40.
    torch.testing.assert_close(Empirical.of(images)(y, 0.3).double(), exact, rtol=0, atol=1e-5)


def test_a_level_for_each_image():
    levels = torch.tensor([1e-3, 0.1, 0.3, 1.0, 5.0], dtype=torch.float64)
    found = Empirical.of(IMAGES)(Y, levels)
    for i, sigma in enumerate(levels.tolist()):
        torch.testing.assert_close(found[i], naive(IMAGES, Y[i : i + 1], sigma)[1][0], **CLOSE)


@pytest.mark.parametrize("mode", ["c", "r"])
def test_a_memory_map_is_read_in_chunks(tmp_path, monkeypatch, mode):
    path = tmp_path / "images.npy"
    np.save(path, IMAGES.float().numpy())
    monkeypatch.setattr(MODULE, "_CHUNK", 7 * D)
    mapped = Empirical.of(np.load(path, mmap_mode=mode))
    torch.testing.assert_close(mapped(Y, 0.3), Empirical.of(IMAGES.float())(Y, 0.3), **CLOSE)


# Torch itself scripts its forward derivatives when they are first used.
SCRIPTED = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


@SCRIPTED
@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_derivatives_of_first_and_second_order(sigma):
    form, y = Empirical.of(IMAGES), Y[:2].clone().requires_grad_()
    scaled = lambda z: form(sigma * z, sigma) / sigma  # noqa: E731
    z = (y.detach() / sigma).requires_grad_()
    assert torch.autograd.gradcheck(scaled, z, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(scaled, z, check_fwd_over_rev=True)
    assert torch.autograd.gradcheck(lambda z: form.log_density(sigma * z, sigma), z)


@SCRIPTED
def test_products_with_the_jacobian_by_functional_transforms():
    form, v = Empirical.of(IMAGES), normal(5, *SHAPE, seed=4)
    exact = (form.jacobian(Y, 0.3) @ v.flatten(1)[:, :, None]).view_as(v)
    denoise = lambda y: form(y, 0.3)  # noqa: E731
    torch.testing.assert_close(func.jvp(denoise, (Y,), (v,))[1], exact, **CLOSE)
    _, pull = func.vjp(denoise, Y)
    torch.testing.assert_close(pull(v)[0], exact, **CLOSE)
    several = func.vmap(lambda w: pull(w)[0])(torch.stack([v, 2 * v]))
    torch.testing.assert_close(several, torch.stack([exact, 2 * exact]), **CLOSE)
    for jacobian in (func.jacrev, func.jacfwd):
        full = jacobian(lambda y: denoise(y[None])[0])(Y[0]).reshape(D, D)
        torch.testing.assert_close(full, form.jacobian(Y[:1], 0.3)[0], **CLOSE)


def test_no_product_keeps_the_weights(monkeypatch):
    """What autograd saves for products with the Jacobian does not grow with the training set."""
    monkeypatch.setattr(MODULE, "_CHUNK", 7 * D)
    kept = {}
    for count in (20, 500):
        form, sizes = Empirical.of(uniform(count, *SHAPE)), []

        def note(saved, sizes=sizes):
            sizes.append(saved.numel())
            return saved

        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            around = linearise(form, Y, 0.3)
            v = normal(3, *Y.shape, seed=4)
            exact = torch.einsum("bij,kbj->kbi", form.jacobian(Y, 0.3), v.flatten(2))
            for product in (around.push, around.pull):
                torch.testing.assert_close(product(v).flatten(2), exact, **CLOSE)
        kept[count] = sizes
    assert len(kept[20]) > 10
    assert kept[20] == kept[500]


@SCRIPTED
def test_a_derivative_in_sigma_is_refused_in_forward_mode_too():
    level = torch.full((5,), 0.3, dtype=torch.float64)
    with pytest.raises(ValueError, match="not in sigma"):
        func.jvp(lambda sigma: Empirical.of(IMAGES)(Y, sigma), (level,), (level,))


def test_the_score_is_the_slope_of_the_log_density():
    """By finite differences: autograd of the log density is the score by construction."""
    form, v, step = Empirical.of(IMAGES), normal(5, *SHAPE, seed=4), 1e-5
    ends = [form.log_density(Y + s * step * v, 0.3) for s in (1, -1)]
    slope = (form.score(Y, 0.3) * v).flatten(1).sum(1)
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("count", [1, 6])
def test_flow_ends_on_a_training_image(count):
    """Levels go down to a 160th of the images' distances, in float64."""
    training = uniform(count, 1, 4, 4)
    found = probability_flow(Empirical.of(training), normal(40, 1, 4, 4, seed=1), mean=0.5)
    distances = (found.flatten(1)[:, None] - training.flatten(1)).norm(dim=2)
    # Images some 1.6 apart differ in weight by exp(-1e4) at sigma 0.01: one alone is left.
    assert distances.amin(1).max() < 1e-12
    assert len(distances.argmin(1).unique()) > count / 3


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="N at least 1"):
        Empirical.of(torch.zeros(0, *SHAPE))
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\)"):
        Empirical.of(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="floating point"):
        Empirical.of(torch.zeros(3, *SHAPE, dtype=torch.uint8))
    with pytest.raises(ValueError, match="NaN"):
        Empirical.of(torch.full((3, *SHAPE), math.nan))
    with pytest.raises(ValueError, match="not in sigma"):
        Empirical.of(IMAGES)(Y, torch.tensor(0.3, requires_grad=True))
    assert torch.isnan(Empirical.of(IMAGES)(Y * math.nan, 0.3)).all()
