"""Distances between sets against what they are for Gaussians and for shifted copies."""

import math

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
        assert close.value < 1.5 * close.floor
        assert away.low > 2 * away.floor
        assert away.low < away.value < away.high


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
