"""Shrinkage estimators: energy, reconstruction, oracles, and what the best basis gains."""

import math

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft

from twinscore.analysis.statistics import interval, resampled
from twinscore.denoisers import check
from twinscore.denoisers.layers import generator_of
from twinscore.denoisers.shrinkage import (
    Bandlets,
    Cosines,
    Oracle,
    Thresholding,
    Wavelets,
    attenuate,
    hard,
    keep_or_kill,
    largest_vectors,
    oracle_risk,
    soft,
)
from twinscore.images.synthetic import CAlpha, c_alpha

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

# PyWavelets tabulates the filters of sym4 to 1e-12; each level adds its error.
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
DICTIONARIES = {
    "cosines": Cosines(),
    "block cosines": Cosines(block=4),
    "wavelets": Wavelets(),
    "haar": Wavelets("haar"),
    "best basis": Bandlets(geometry_cost=0),
    "best basis with cost": Bandlets(geometry_cost=1, directions=5, sides=(2, 8)),
}
SHAPES = [(1, 8, 8), (3, 16, 16), (1, 24, 16), (1, 80, 80), (2, 12, 20)]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def edges(count=16, size=32, alpha=2.0, of="regularity"):
    law = CAlpha(size=size, alpha=alpha, filter=of)
    return c_alpha(range(count), law, seed=5).double()


@pytest.fixture(params=DICTIONARIES, ids=str)
def dictionary(request):
    return DICTIONARIES[request.param]


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(sorted(DICTIONARIES)),
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 10**6),
    scale=st.floats(1e-3, 1e3),
)
def test_every_basis_preserves_energy_and_reconstructs(name, shape, seed, scale):
    x = scale * normal(2, *shape, seed=seed)
    basis = DICTIONARIES[name].adapted(x, scale)
    coefficients = basis.forward(x)
    energy = (x.square().sum() / coefficients.square().sum()).item()
    assert energy == pytest.approx(1, abs=CLOSE["rtol"])
    torch.testing.assert_close(basis.inverse(coefficients) / scale, x / scale, **CLOSE)
    torch.testing.assert_close(basis.forward(basis.inverse(x)) / scale, x / scale, **CLOSE)


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(sorted(DICTIONARIES)),
    shrinkage=st.sampled_from([hard, soft, keep_or_kill, attenuate]),
    seed=st.integers(0, 10**6),
    sigma=st.floats(0.01, 10),
)
def test_shrinkage_never_raises_energy(name, shrinkage, seed, sigma):
    y, x = normal(2, 2, 16, 16, seed=seed), normal(2, 2, 16, 16, seed=seed + 1)
    if shrinkage in (hard, soft):
        denoiser = Thresholding(DICTIONARIES[name], shrinkage, multiple=1.0)
    else:
        denoiser = Oracle(x, DICTIONARIES[name], shrinkage)
    before, after = (v.square().flatten(1).sum(1) for v in (y, denoiser(y, sigma)))
    assert (after <= before * (1 + CLOSE["rtol"])).all()


def test_float32_stays_float32_and_close(dictionary):
    x = edges()
    basis = dictionary.adapted(x, 0.1)
    coefficients = basis.forward(x.float())
    assert coefficients.dtype == torch.float32
    # Six levels of products of 32 terms, in units of the mean's coefficient, about 16.
    torch.testing.assert_close(coefficients.double(), basis.forward(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4"])
def test_wavelets_are_those_of_pywavelets(wavelet):
    x = normal(1, 1, 16, 48)
    expected, (height, width) = x[0, 0].numpy().copy(), (16, 48)
    for _ in range(4):
        coarse, (low, right, both) = pywt.dwt2(
            expected[:height, :width], wavelet, mode="periodization"
        )
        expected[:height, :width] = np.block([[coarse, right], [low, both]])
        height, width = height // 2, width // 2
    torch.testing.assert_close(
        Wavelets(wavelet).forward(x)[0, 0], torch.from_numpy(expected), **CLOSE
    )


def test_cosines_are_those_of_scipy():
    x = normal(2, 1, 12, 20)
    whole = fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")
    torch.testing.assert_close(Cosines().forward(x), torch.from_numpy(whole), **CLOSE)
    block = fft.dctn(x.numpy()[1, 0, 4:8, 8:12], norm="ortho")
    torch.testing.assert_close(
        Cosines(4).forward(x)[1, 0, 4:8, 8:12], torch.from_numpy(block), **CLOSE
    )


def test_largest_vectors_are_orthonormal_and_give_the_coefficients(dictionary):
    image = edges(1)[0]
    basis = dictionary.adapted(image[None], 0.05)
    vectors, coefficients = largest_vectors(basis, image, 40)
    flat = vectors.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(40).double(), **CLOSE)
    torch.testing.assert_close(flat @ image.flatten(), coefficients, **CLOSE)
    assert (coefficients.abs().diff() <= 0).all()
    largest = basis.forward(image[None]).abs().max().item()
    assert coefficients[0].abs().item() == largest


@pytest.mark.parametrize("gains", [keep_or_kill, attenuate])
def test_the_oracle_makes_its_risk(dictionary, gains):
    """To 4 standard errors."""
    x = edges(1, size=16)
    y = x + 0.1 * normal(2000, *x.shape[1:], seed=3)
    errors = (Oracle(x, dictionary, gains)(y, 0.1) - x).square().flatten(1).sum(1)
    risk = oracle_risk(x, 0.1, dictionary, gains).item()
    assert abs(errors.mean().item() - risk) < 4 * errors.std().item() / math.sqrt(len(y))


def test_oracle_risks_are_the_known_sums(dictionary):
    """Keep-or-kill risk is ``sum min(c^2, sigma^2)``: 1 to 2 times the attenuating oracle's."""
    x, sigma = edges(), torch.linspace(0.01, 1, 16).double()
    energy = dictionary.adapted(x, sigma).forward(x).square()
    expected = torch.minimum(energy, sigma.view(-1, 1, 1, 1) ** 2).flatten(1).sum(1)
    kept = oracle_risk(x, sigma, dictionary)
    torch.testing.assert_close(kept, expected, **CLOSE)
    best = oracle_risk(x, sigma, dictionary, attenuate)
    assert (best <= kept).all()
    assert (kept <= 2 * best).all()


def test_soft_thresholding_keeps_the_bound_of_donoho_and_johnstone(dictionary):
    """``E|f(y) - x|^2 <= (2 log d + 1)(sigma^2 + oracle risk)`` in a basis chosen beforehand."""
    x, sigma = edges(1, size=16), 0.1
    basis = dictionary.adapted(x, sigma)
    y = x + sigma * normal(500, *x.shape[1:], seed=4)
    error = (Thresholding(basis, soft)(y, sigma) - x).square().flatten(1).sum(1).mean()
    bound = (2 * math.log(256) + 1) * (sigma**2 + oracle_risk(x, sigma, basis).item())
    assert error < bound


def test_rules_by_hand():
    values = torch.tensor([-3.0, -1.0, 0.5, 2.0])
    assert hard(values, torch.tensor(1.5)).tolist() == [-3.0, 0.0, 0.0, 2.0]
    assert soft(values, torch.tensor(1.5)).tolist() == [-1.5, 0.0, 0.0, 0.5]


@pytest.mark.parametrize("multiple", [None, 3.0])
@pytest.mark.parametrize("rule", [hard, soft])
def test_the_contract_holds_image_by_image(dictionary, rule, multiple):
    y = edges(3).float().expand(-1, 3, -1, -1) + 0.1 * normal(3, 3, 32, 32).float()
    sigma = torch.tensor([0.1, 0.2, 0.05])
    denoiser = Thresholding(dictionary, rule, multiple)
    together = check(denoiser, y, sigma)
    for i in range(3):
        alone = denoiser(y[i : i + 1], sigma[i].item())
        # float32 products in another order; a coefficient at the threshold would show as 0.1.
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


def test_oracles_hold_the_contract_with_one_image_or_one_each(dictionary):
    x = edges(3)
    y = x + 0.1 * normal(*x.shape)
    sigma = torch.tensor([0.1, 0.2, 0.05]).double()
    together = check(Oracle(x, dictionary), y, sigma)
    for i in range(3):
        one = Oracle(x[i : i + 1], dictionary)
        torch.testing.assert_close(together[i : i + 1], one(y[i : i + 1], sigma[i].item()), **CLOSE)
        torch.testing.assert_close(together[i], check(one, y, sigma)[i], **CLOSE)


def test_hard_thresholding_is_locally_a_projection(dictionary):
    y = edges(1, size=8)
    J = torch.func.jacrev(lambda v: Thresholding(dictionary)(v, 0.02))(y).view(64, 64)
    torch.testing.assert_close(J, J.T, **CLOSE)
    torch.testing.assert_close(J @ J, J, **CLOSE)
    assert 0 < J.trace() < 64


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), sigma=st.floats(0.01, 3), cost=st.floats(0, 3))
def test_the_best_basis_is_never_worse_than_wavelets(seed, sigma, cost):
    x = normal(2, 1, 32, 32, seed=seed)
    best = oracle_risk(x, sigma, Bandlets(geometry_cost=cost))
    assert (best <= oracle_risk(x, sigma, Wavelets()) * (1 + 1e-12)).all()


@pytest.mark.parametrize("alpha", [1.0, 3.0])
@pytest.mark.parametrize("of", ["published", "regularity"])
@pytest.mark.parametrize(("size", "count"), [(16, 64), (64, 8)])
def test_with_edges_the_best_basis_gains_at_every_noise_level(alpha, of, size, count):
    """Over the levels of quick-c-alpha (4 to 40 dB), whose images are of 16x16, and at 64x64."""
    x = edges(count, size, alpha, of)
    for sigma in (0.63, 0.3, 0.1, 0.03, 0.01):
        pairs = torch.stack(
            [oracle_risk(x, sigma, d) for d in (Wavelets(), Bandlets(geometry_cost=0))], 1
        ).numpy()
        assert (pairs[:, 1] <= pairs[:, 0] * (1 + CLOSE["rtol"])).all()
        draws = resampled(
            pairs[None],
            lambda drawn, axis: 10 * np.log10(np.divide(*drawn.mean(axis).T)),
            seed=0,
            resamples=500,
        )
        assert interval(draws)[0] > 0.25  # dB; the least is 0.32


def test_squares_follow_a_straight_edge():
    """Where a square has a direction, most often it is that of the edge."""
    rows, columns = np.indices((128, 128)) - 64
    angle = 3 * np.pi / 16
    across = rows * np.cos(angle) - columns * np.sin(angle)
    x = torch.from_numpy(1 / (1 + np.exp(-2 * across)))[None, None]
    basis = Bandlets(geometry_cost=1).adapted(x, 0.02)
    # Only the finest bands, without what follows the jumps at the image's borders.
    inner = [
        square.angle
        for square in basis.squares()
        if max(square.row, square.column) >= 64 and all(8 <= v % 64 < 56 for v in square[:2])
    ]
    near = np.isclose(inner, angle, atol=np.pi / 16 + 1e-9)
    assert len(inner) >= 8
    assert near.mean() > 0.7


@pytest.mark.parametrize("size", [16, 80, 128])
def test_squares_stay_in_their_bands_and_apart(size):
    basis = Bandlets(geometry_cost=0).adapted(normal(1, 1, size, size), 1.0)
    taken, levels = np.zeros((size, size), dtype=int), Wavelets().levels(size, size)
    for row, column, side, _ in basis.squares():
        taken[row : row + side, column : column + side] += 1
        level = min(int(np.log2(size / max(row + side, column + side))), levels - 1)
        band = size >> (level + 1)
        assert row // band == (row + side - 1) // band
        assert column // band == (column + side - 1) // band
    assert taken.max() == 1


def test_without_squares_that_fit_wavelets_remain():
    x = normal(2, 1, 6, 10)
    basis = Bandlets(geometry_cost=0).adapted(x, 1.0)
    assert list(basis.squares()) == []
    assert torch.equal(basis.forward(x), Wavelets().forward(x))


def test_chunks_of_images_choose_the_same_squares(monkeypatch):
    x = edges(5)
    whole = Bandlets(geometry_cost=0).adapted(x, 0.1)
    monkeypatch.setattr("twinscore.denoisers.shrinkage.bandlets._VALUES_AT_A_TIME", 2**15)
    parts = Bandlets(geometry_cost=0).adapted(x, 0.1)
    assert all(torch.equal(whole.choices[side], parts.choices[side]) for side in (4, 8, 16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosines(block=0), "at least 1"),
        (lambda: Cosines(block=3).forward(normal(1, 1, 8, 8)), "3 do not tile 8x8"),
        (lambda: Wavelets("nosuch"), "is not a wavelet"),
        (lambda: Wavelets("bior2.2"), "not orthogonal"),
        (lambda: Wavelets().forward(normal(1, 1, 8, 7)), "even sides, got 8x7"),
        (lambda: Bandlets(geometry_cost=-1), "geometry_cost must be 0 or more"),
        (lambda: Bandlets(geometry_cost=0, directions=0), "directions must be at least 1"),
        (lambda: Bandlets(geometry_cost=0, sides=(8, 4)), "ascending powers of two"),
        (lambda: Bandlets(geometry_cost=0, sides=(6,)), "ascending powers of two"),
        (lambda: Thresholding(Cosines(), multiple=0.0), "multiple must be positive"),
        (lambda: Thresholding(Cosines())(normal(1, 1, 8, 8)), "pass sigma"),
        (lambda: Oracle(normal(2, 1, 8, 8), Cosines())(normal(3, 1, 8, 8), 1.0), "knows images"),
        (lambda: largest_vectors(Cosines(), normal(1, 8, 8), 65), "1 to 64, got 65"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
