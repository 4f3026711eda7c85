"""Distances between sets against what they are for Gaussians and for shifted copies."""

import math

import numpy as np
import pytest
import torch

from twinscore.analysis import quality as q
from twinscore.denoisers.layers import generator_of

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def test_a_shifted_copy_is_as_far_as_its_shift():
    x, shift = normal(50, 1, 4, 5), normal(1, 4, 5, seed=1)
    found = q.sliced_wasserstein(x, x + shift, directions=20_000)
    # Mean square of a random unit direction's component is |c|^2/d; its relative standard
    # deviation is sqrt(2) for one direction.
    expected = shift.norm().item() / math.sqrt(20)
    assert found**2 == pytest.approx(expected**2, rel=4 * math.sqrt(2 / 20_000))
    assert q.sliced_wasserstein(x, x) == 0
    assert q.frechet(x.flatten(1), (x + shift).flatten(1)) == pytest.approx(shift.norm().item())


def test_sets_of_unequal_size_are_compared_by_quantiles():
    levels = (torch.arange(400).double() + 0.5) / 400
    a = torch.special.ndtri(levels)[:, None]
    b = 3 * torch.special.ndtri((torch.arange(100).double() + 0.5) / 100)[:, None] + 1
    # In one dimension: sqrt((m1 - m2)^2 + (s1 - s2)^2); the tails of 100 quantiles are cut.
    assert q.sliced_wasserstein(a, b) == pytest.approx(math.sqrt(1 + 4), rel=0.03)
    assert q.sliced_wasserstein(b, a) == q.sliced_wasserstein(a, b)


def test_chunks_of_directions_change_nothing(monkeypatch):
    a, b = normal(30, 1, 3, 3), normal(40, 1, 3, 3, seed=1)
    whole = q.sliced_wasserstein(a, b)
    monkeypatch.setattr(q, "_CHUNK_VALUES", 700)
    assert q.sliced_wasserstein(a, b) == pytest.approx(whole, rel=1e-12)


def test_frechet_is_the_exact_distance_of_the_sets_own_gaussians():
    """Commuting covariances: ``|m|^2 + sum (s_a - s_b)^2``."""
    z = normal(500, 3)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(torch.cov(z.T)), (z - z.mean(0)).T, upper=False
    ).T
    scales = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([1.5, 1.0, 0.5]).double()
    found = q.frechet(white * scales[0], white * scales[1] + 2)
    assert found == pytest.approx(math.sqrt(3 * 4 + (scales[0] - scales[1]).square().sum().item()))


def test_principal_components_keep_what_varies():
    basis = torch.linalg.qr(normal(20, 2)).Q
    x = 0.5 + (normal(60, 2, seed=3) * torch.tensor([3.0, 1.0]).double() @ basis.T).view(
        60, 1, 4, 5
    )
    embed = q.principal_components(x, 2)
    back = embed(x)
    assert back.shape == (60, 2)
    exact = (x - x.mean(0)).flatten(1).norm(dim=1)
    torch.testing.assert_close(back.norm(dim=1), exact, rtol=1e-9, atol=1e-9)
    assert q.principal_components(x[:3], 64)(x).shape == (60, 2)


def test_like_sets_are_at_the_floor_and_unlike_ones_above_it():
    real, like = normal(400, 1, 3, 3, seed=1), normal(200, 1, 3, 3, seed=2)
    near = q.quality(like, real, resamples=50)
    far = q.quality(like + 0.5, real, resamples=50)
    for name in ("sliced_wasserstein", "frechet"):
        close, away = getattr(near, name), getattr(far, name)
        assert close.low == 0
        assert close.low <= close.value <= close.high
        assert away.low > 1.5 * away.floor
        assert away.low < away.value < away.high


def coverage(truth, samples, held_out, repeats):
    """Share of intervals that hold the distances of normal images and those shifted by truth."""
    hits, inside = np.zeros(2), 0
    for seed in range(repeats):
        x = normal(samples, 1, 2, 2, seed=2 * seed) + truth
        found = q.quality(
            x,
            normal(held_out, 1, 2, 2, seed=2 * seed + 1),
            embedding=lambda images: images.flatten(1),
            directions=8,
            resamples=40,
            seed=seed,
        )
        parts = found.sliced_wasserstein, found.frechet
        # The shift is 2 * truth long, and truth in the units of the images.
        hits += [of.low <= at <= of.high for of, at in zip(parts, (truth, 2 * truth), strict=True)]
        inside += all(of.low <= of.value <= of.high for of in parts)
    assert inside == repeats
    return hits / repeats


@pytest.mark.parametrize("truth", [0, 0.05, 0.3])
def test_intervals_cover_the_true_distance(truth):
    """Also a distance of 0. The binomial standard error of 40 at 0.95 is 0.035."""
    assert (coverage(truth, 80, 60, 40) > 0.95 - 3 * 0.035).all()


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0, 0.05, 0.3])
@pytest.mark.parametrize(("samples", "held_out"), [(60, 60), (256, 128)])
def test_intervals_cover_the_true_distance_of_sets_of_many_sizes(truth, samples, held_out):
    assert (coverage(truth, samples, held_out, 300) > 0.95 - 4 * 0.0126).all()


def test_principal_components_favour_neither_set():
    """A perfect model is at distance 0 in the default embedding too, with few images."""
    inside = 0
    for seed in range(20):
        x, y = normal(60, 1, 5, 5, seed=2 * seed), normal(60, 1, 5, 5, seed=2 * seed + 1)
        inside += q.quality(x, y, directions=8, resamples=30, seed=seed).frechet.low == 0
    assert inside >= 18


def test_value_and_floor_are_of_equal_numbers():
    """Of one law the floor is what the plain distance of as many images is."""
    x, y = normal(300, 1, 2, 2), normal(100, 1, 2, 2, seed=1)
    found = q.quality(x, y, directions=8, resamples=5).sliced_wasserstein
    plain = [
        q.sliced_wasserstein(normal(50, 1, 2, 2, seed=5 + i), normal(50, 1, 2, 2, seed=50 + i))
        for i in range(20)
    ]
    assert found.floor == pytest.approx(np.mean(plain), rel=0.2)


def test_an_embedding_of_the_users_own_is_used():
    a, b = normal(50, 1, 3, 3), normal(60, 1, 3, 3, seed=1) + 4
    found = q.quality(a, b, embedding=lambda x: x.flatten(1).mean(1, keepdim=True), resamples=5)
    assert found.frechet.value == pytest.approx(4, abs=4 * math.sqrt((1 / 50 + 1 / 60) / 9) + 0.1)


def test_sets_that_cannot_be_compared_are_refused():
    x = normal(10, 1, 3, 3)
    with pytest.raises(ValueError, match="differ in shape"):
        q.quality(x, normal(10, 1, 3, 4))
    with pytest.raises(ValueError, match="4 images or more"):
        q.quality(x[:3], x)
    with pytest.raises(ValueError, match="NaN"):
        q.quality(x * math.nan, x)
    with pytest.raises(ValueError, match="at least 2"):
        q.frechet(x[:1].flatten(1), x.flatten(1))
