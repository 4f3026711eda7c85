"""How far a set of samples is from held-out images: sliced Wasserstein and Fréchet distances.

No downloaded network is needed: the Fréchet distance is taken in principal components, or in the
user's own embedding. Each distance comes with a floor, the same distance between two halves of
the held-out images: finite sets of the same law are not at distance zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twinscore.analysis.statistics import LEVEL

Embedding = Callable[[Tensor], Tensor]
"""(B, C, H, W) to (B, k)."""

_CHUNK_VALUES = 2**24


@dataclass(frozen=True)
class Distance:
    """A distance between two sets, its bootstrap interval, and its value for sets of the same law.

    Attributes
    ----------
    value : float
        The distance.
    low, high : float
        95 % basic bootstrap interval: resampled sets are farther apart than the sets themselves,
        so that the interval is reflected about the value; not below 0.
    floor : float
        The same distance between two halves of the reference, on average over random halves, at
        the same number of images on each side as ``value`` where there are that many.
    """

    value: float
    low: float
    high: float
    floor: float


def sliced_wasserstein(a: Tensor, b: Tensor, *, directions: int = 256, seed: int = 0) -> float:
    """Root mean square, over random directions, of the 2-Wasserstein distance of projections.

    Bonneel et al. 2015. For sets of unequal size the quantile function of the larger is read at the
    levels of the smaller one. In the units of the images, for a direction of unit length: two sets
    that differ by a constant image c are ``|c| / sqrt(d)`` apart.

    Sets are (M, ...) and (N, ...), items of one shape: ValueError if they are not, or a set is
    empty. Cost: (M + N) d products per direction, and a sort; memory: chunks of directions.
    """
    x, y = _flat(a, b)
    squares = [
        _between_quantiles(x @ w, y @ w).square().mean(0)
        for w in _directions(x.shape[1], directions, seed, len(x) + len(y), x)
    ]
    return torch.cat(squares).mean().sqrt().item()


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two sets of features, (M, k) and (N, k), each assumed to be Gaussian.

    The root of ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)`` (Heusel et al. 2017,
    eq. 6), which is in the units of the features. ValueError if the features differ in number, or a
    set has fewer than two.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"need at least 2 items in each set; got {len(a)} and {len(b)}")
    x, y = (part.double() for part in _flat(a, b))
    root = _root(torch.cov(x.T).reshape(x.shape[1], -1))
    other = torch.cov(y.T).reshape(x.shape[1], -1)
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum()
    spread = (root * root).sum() + other.trace() - 2 * cross
    return ((x.mean(0) - y.mean(0)).square().sum() + spread).clamp_min(0).sqrt().item()


def principal_components(images: Tensor, count: int = 64) -> Embedding:
    """Embedding by ``count`` leading principal components of images (N, C, H, W).

    (B, C, H, W) to (B, count), in image units; the count is cut to ``min(N - 1, d)``. Cost of
    making it: one decomposition of an (N, d) matrix.
    """
    flat = images.flatten(1).double()
    mean = flat.mean(0)
    count = min(count, len(flat) - 1, flat.shape[1])
    basis = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:count].T
    return lambda x: (x.flatten(1).double() - mean) @ basis


@dataclass(frozen=True)
class Quality:
    """Distances of samples from held-out images."""

    sliced_wasserstein: Distance
    frechet: Distance


def quality(
    samples: Tensor,
    held_out: Tensor,
    *,
    embedding: Embedding | None = None,
    directions: int = 256,
    resamples: int = 200,
    seed: int = 0,
) -> Quality:
    """Measure samples against images that the model never saw.

    Parameters
    ----------
    samples, held_out : Tensor
        (M, C, H, W) and (N, C, H, W), at least four each.
    embedding : callable, optional
        For the Fréchet distance; by default the leading 64 principal components of ``held_out``
        (fewer where there are few images: at most a quarter of them).
    directions : int
        Of the sliced Wasserstein distance.
    resamples : int
        Bootstrap draws, of both sets.
    seed : int
        Of directions, resamples and halves.

    Raises
    ------
    ValueError
        For fewer than four images, shapes that differ, or samples that are not finite.
    """
    if min(len(samples), len(held_out)) < 4:
        raise ValueError(f"need 4 images or more; got {len(samples)} and {len(held_out)}")
    if not torch.isfinite(samples).all():
        raise ValueError("samples hold NaN or infinity; leave out those that did not converge")
    _flat(samples, held_out)
    embed = embedding or principal_components(held_out, max(1, min(64, len(held_out) // 4)))
    features = embed(samples), embed(held_out)

    def wasserstein(a: Tensor, b: Tensor) -> float:
        return sliced_wasserstein(a, b, directions=directions, seed=seed)

    return Quality(
        _distance(wasserstein, samples, held_out, resamples, seed),
        _distance(frechet, *features, resamples, seed),
    )


def _distance(
    measure: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor, resamples: int, seed: int
) -> Distance:
    generator = np.random.default_rng(seed)
    pick = lambda n: torch.from_numpy(generator.integers(n, size=n))  # noqa: E731
    value = measure(a, b)
    draws = [measure(a[pick(len(a))], b[pick(len(b))]) for _ in range(resamples)]
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    half = min(len(a), len(b) // 2)
    orders = [torch.from_numpy(generator.permutation(len(b))) for _ in range(10)]
    halves = [measure(b[order[:half]], b[order[half : 2 * half]]) for order in orders]
    low, high = max(0.0, 2 * value - float(high)), max(0.0, 2 * value - float(low))
    return Distance(value, low, high, float(np.mean(halves)))


def _flat(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[1:] != b.shape[1:] or not len(a) or not len(b):
        raise ValueError(
            f"sets differ in shape or are empty: {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a.flatten(1), b.flatten(1)


def _directions(d: int, count: int, seed: int, items: int, like: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(d, count, generator=generator).to(like)
    return list((w / w.norm(dim=0)).split(max(1, _CHUNK_VALUES // items), 1))


def _between_quantiles(p: Tensor, q: Tensor) -> Tensor:
    """Differences of the quantile functions of columns (M, k) and (N, k), at min(M, N) levels."""
    p, q = p.sort(0).values, q.sort(0).values
    if len(p) == len(q):
        return p - q
    small, large = (p, q) if len(p) < len(q) else (q, p)
    at = (torch.arange(len(small), device=p.device) + 0.5) / len(small) * len(large) - 0.5
    below = at.floor().clamp(0, len(large) - 1).long()
    above = (below + 1).clamp_max(len(large) - 1)
    share = (at - below).clamp(0, 1).to(large)[:, None]
    return small - torch.lerp(large[below], large[above], share)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
