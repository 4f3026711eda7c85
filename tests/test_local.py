"""Local denoisers against their formula written out, pixel by pixel and patch by patch."""

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import func

from twinscore.analysis.jacobian import linearise
from twinscore.denoisers import load
from twinscore.denoisers.checkpoint import model_digest
from twinscore.denoisers.closed_form import Empirical, Local, LocalByLevel, fitted_sides
from twinscore.denoisers.layers import generator_of
from twinscore.errors import InputError

SHAPE = (2, 4, 3)
D = math.prod(SHAPE)
MODULE = sys.modules[Local.__module__]
KINDS = [(e, b) for e in (True, False) for b in ("known", "circular")]


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=generator_of(seed), dtype=torch.float64)


IMAGES = uniform(7, *SHAPE)
Y = uniform(3, *SHAPE, seed=1)


def window(row, column, patch, shape, borders):
    """Places that a patch sees, and how it is cut."""
    reach = range(-((patch - 1) // 2), patch // 2 + 1)
    seen = [
        (row + i, column + j)
        for i in reach
        for j in reach
        if borders == "circular" or (0 <= row + i < shape[1] and 0 <= column + j < shape[2])
    ]
    return [(i % shape[1], j % shape[2]) for i, j in seen], [(i - row, j - column) for i, j in seen]


def brute(images, y, sigma, patch, equivariant, borders):
    """The formula, in loops."""
    found, shape = torch.zeros_like(y), tuple(y.shape[1:])
    places = [(i, j) for i in range(shape[1]) for j in range(shape[2])]
    for b in range(len(y)):
        for u in places:
            own, cut = window(*u, patch, shape, borders)
            scores, values = [], []
            for v in places if equivariant else [u]:
                theirs, other = window(*v, patch, shape, borders)
                if other != cut:
                    continue
                for x in images:
                    pairs = zip(own, theirs, strict=True)
                    far = sum((y[b][:, *p] - x[:, *q]).square().sum() for p, q in pairs)
                    scores.append(-far / (2 * sigma**2))
                    values.append(x[:, *v])
            weights = torch.stack(scores).softmax(0)
            found[b][:, *u] = (weights[:, None] * torch.stack(values)).sum(0)
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(2, 3),
    st.integers(2, 4),
    st.integers(1, 4),
    st.floats(-2, 1),
    st.sampled_from(KINDS),
    st.integers(0, 100),
)
def test_it_is_the_formula(count, channels, height, width, patch, exponent, kind, seed):
    equivariant, borders = kind
    patch = min(patch, height, width) if borders == "circular" else patch
    images = uniform(count, channels, height, width, seed=seed)
    y, sigma = uniform(2, channels, height, width, seed=seed + 1), 10**exponent
    form = Local.of(images, patch, equivariant=equivariant, borders=borders)
    exact = brute(images, y, sigma, patch, equivariant, borders)
    # Log weights reach 1e5 at sigma 0.01; they round by 1e-16 of that.
    torch.testing.assert_close(form(y, sigma), exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sigma", [1e-4, 0.03, 0.3, 3.0])
def test_the_full_side_without_equivariance_is_the_empirical_denoiser(sigma):
    whole = Local.of(IMAGES, 7, equivariant=False)
    exact = Empirical.of(IMAGES)(Y, sigma)
    # The patches hold the same numbers in another order: sums differ by rounding.
    torch.testing.assert_close(whole(Y, sigma), exact, rtol=0, atol=1e-9)
    square, y = IMAGES[:, :, :3], Y[:, :, :3]
    around = Local.of(square, 3, equivariant=False, borders="circular")
    exact = Empirical.of(square)(y, sigma)
    torch.testing.assert_close(around(y, sigma), exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 100.0])
def test_one_training_image_is_returned(sigma):
    for patch in (1, 2, 5):
        form = Local.of(IMAGES[:1], patch, equivariant=False)
        torch.testing.assert_close(form(Y, sigma), IMAGES[:1].expand_as(Y))
    distinct = Local.of(IMAGES[:1], 3)
    noisy = IMAGES[:1] + 1e-3 * Y[:1]  # far less than patches differ by
    torch.testing.assert_close(distinct(noisy, 1e-3), IMAGES[:1])


def test_limits_of_the_noise():
    """Without noise the nearest patch's value; with much of it the mean of all values."""
    for equivariant in (True, False):
        form = Local.of(IMAGES, 3, equivariant=equivariant)
        # At 1e-3 the second nearest patch weighs exp(-1e4) or so.
        exact = brute(IMAGES, Y, 1e-3, 3, equivariant, "known")
        torch.testing.assert_close(form(Y, 1e-6), exact)
    mean = Local.of(IMAGES, 3, equivariant=False)(Y, 1e6)
    # Weights differ by distances over sigma^2, some 1e-11.
    torch.testing.assert_close(mean, IMAGES.mean(0).expand_as(mean), rtol=0, atol=1e-9)
    mean = Local.of(IMAGES, 3, borders="circular")(Y, 1e6)
    exact = IMAGES.mean((0, 2, 3))[:, None, None].expand_as(mean)
    torch.testing.assert_close(mean, exact, rtol=0, atol=1e-9)


def test_circular_borders_commute_with_shifts_and_known_ones_do_so_inside():
    images, y = uniform(4, 1, 9, 9), uniform(2, 1, 9, 9, seed=1)
    circular = Local.of(images, 3, borders="circular")
    shift = {"shifts": (2, 3), "dims": (2, 3)}
    rolled = torch.roll(circular(y, 0.2), **shift)
    torch.testing.assert_close(circular(torch.roll(y, **shift), 0.2), rolled)
    known = Local.of(images, 3)
    moved = known(torch.roll(y, **shift), 0.2)
    torch.testing.assert_close(moved[..., 3:8, 4:8], known(y, 0.2)[..., 1:6, 1:5])
    assert not torch.allclose(moved, torch.roll(known(y, 0.2), **shift))
    alone = Local.of(images, 3, equivariant=False, borders="circular")
    assert not torch.allclose(
        alone(torch.roll(y, **shift), 0.2), torch.roll(alone(y, 0.2), **shift)
    )


@pytest.mark.parametrize("sigma", [3e-3, 0.03, 0.1, 1.0])
@pytest.mark.parametrize("equivariant", [True, False])
def test_float32_is_close_to_float64(sigma, equivariant):
    """Patches a thousandth apart, whose weights a plain product would lose at small sigma."""
    images = (uniform(1, 1, 12, 12) + 1e-3 * uniform(30, 1, 12, 12, seed=2)).float()
    y = images[:3] + sigma * torch.randn(3, 1, 12, 12, generator=generator_of(3))
    form = Local.of(images, 5, equivariant=equivariant)
    exact = Local.of(images.double(), 5, equivariant=equivariant)(y.double(), sigma)
    # Log weights are off by at most 0.005 (a twentieth of the bound), images by up to 1 apart.
    torch.testing.assert_close(form(y, sigma).double(), exact, rtol=0, atol=5e-4)


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_change_nothing(monkeypatch, sigma, dtype):
    form, y = Local.of(IMAGES, 3), Y.to(dtype)
    whole = form(y, sigma)
    for chunk, queries in ((50, 4), (1, 1), (2**12, 10**6)):
        monkeypatch.setattr(MODULE, "_CHUNK", chunk)
        monkeypatch.setattr(MODULE, "_QUERIES", queries)
        close = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
        torch.testing.assert_close(form(y, sigma), whole, **close)


@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_the_two_ways_to_exact_distances_agree(monkeypatch, dense):
    monkeypatch.setattr(MODULE, "_DENSE", dense)
    for trusted in (0.1, 1e-9):
        monkeypatch.setattr(MODULE, "_TRUSTED", trusted)
        found = Local.of(IMAGES, 3)(Y.float(), 0.1)
        # Weights round to float32, and so does their sum.
        exact = brute(IMAGES, Y, 0.1, 3, True, "known")
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


def test_a_level_for_each_image():
    levels = torch.tensor([0.05, 0.3, 5.0], dtype=torch.float64)
    form = Local.of(IMAGES, 3)
    for i, sigma in enumerate(levels.tolist()):
        torch.testing.assert_close(form(Y, levels)[i], form(Y[i : i + 1], sigma)[0])


# Torch itself scripts its forward derivatives when they are first used.
SCRIPTED = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


@SCRIPTED
@pytest.mark.parametrize(("equivariant", "borders"), KINDS)
def test_derivatives_of_first_and_second_order(equivariant, borders):
    form = Local.of(IMAGES[:, :, :3, :2], 2, equivariant=equivariant, borders=borders)
    y = Y[:1, :, :3, :2].clone().requires_grad_()
    denoise = lambda y: form(y, 0.2)  # noqa: E731
    assert torch.autograd.gradcheck(denoise, y, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(denoise, y)


@SCRIPTED
def test_the_jacobian_and_products_with_it():
    form = Local.of(IMAGES, 3)
    exact = form.jacobian(Y, 0.2)
    alone = lambda y: form(y[None], 0.2)[0]  # noqa: E731
    for jacobian in (func.jacrev, func.jacfwd):
        torch.testing.assert_close(jacobian(alone)(Y[0]).reshape(D, D), exact[0])
    around, v = linearise(form, Y[:1], 0.2), uniform(5, D, seed=3)
    torch.testing.assert_close(around.forward(v), v @ exact[0].T)
    torch.testing.assert_close(around.transposed(v), v @ exact[0])
    # Pixels at opposite corners see nothing of each other.
    assert exact[0, 0, D // 2 - 1] == 0
    assert not torch.allclose(exact, exact.mT)


def test_the_side_of_least_error_is_found():
    """Of white noise a pixel tells of itself alone; of constant images all its pixels do."""
    white, flat = uniform(40, 1, 6, 6), uniform(40, 1, 1, 1).expand(-1, -1, 6, 6)
    for images, side in ((white, 1), (flat, 11)):
        found = fitted_sides(images[8:], images[:8], [0.2], sides=(1, 3, 5), equivariant=False)
        assert found == {0.2: side}


def test_each_image_takes_the_side_of_the_nearest_level():
    small, large = Local.of(IMAGES, 1), Local.of(IMAGES, 5)
    form = LocalByLevel({0.1: small, 1.0: large})
    found = form(Y, torch.tensor([0.05, 0.3, 0.35], dtype=torch.float64))
    for i, (own, sigma) in enumerate(((small, 0.05), (small, 0.3), (large, 0.35))):
        torch.testing.assert_close(found[i], own(Y[i : i + 1], sigma)[0])


def test_a_source_names_it():
    model = load("local:digits,patch=3,equivariant=no,borders=circular")
    assert (model.denoiser.patch, model.shape) == (3, (1, 8, 8))
    named = ("digits,patch=3", "digits,patch=5", "digits,patch=3,equivariant=no", "faces,patch=3")
    digests = {model_digest(load(f"local:{name}")) for name in named}
    assert len(digests) == 4
    assert model_digest(load("local:digits,equivariant=yes,patch=3")) in digests


def test_without_a_side_it_is_fitted():
    model = load("local:discs:size=8,count=40,seed=1")
    sides = [form.patch for form in model.denoiser.forms.values()]
    assert max(sides) > 3
    assert model.denoiser.forms[0.1].columns.shape == (64, 40)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("local:digits,patch=x", "patch='x' is not a side in pixels"),
        ("local:digits,patch=0", "side of at least 1"),
        ("local:digits,patch=9,borders=circular", "at most 8"),
        ("local:digits,patch=3,equivariant=1", "is not yes or no"),
        ("local:discs:size=8,count=4", "4 images are too few"),
    ],
)
def test_a_wrong_option_is_refused(model, message):
    with pytest.raises(InputError, match=message):
        load(model)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="N at least 1"):
        Local.of(torch.zeros(0, *SHAPE), 3)
    with pytest.raises(ValueError, match="floating point"):
        Local.of(torch.zeros(3, *SHAPE, dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="NaN"):
        Local.of(torch.full((3, *SHAPE), math.nan), 3)
    form = Local.of(IMAGES, 3)
    with pytest.raises(ValueError, match="images of shape"):
        form(Y[:, :1], 0.1)
    with pytest.raises(ValueError, match="pass sigma"):
        form(Y)
    with pytest.raises(ValueError, match="not in sigma"):
        form(Y, torch.tensor(0.3, requires_grad=True))
    assert torch.isnan(form(Y * math.nan, 0.3)).all()
    assert torch.isnan(form(Y * math.nan, 1e-6)).all()
