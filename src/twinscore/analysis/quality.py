"""How far a set of samples is from held-out images: sliced Wasserstein and Fréchet distances.

No downloaded network is needed: the Fréchet distance is taken in principal components, or in the
user's own embedding. Finite sets of the same law are not at distance zero, so that what each set
adds by being finite, the squared distance between two halves of it, is taken off
(docs/formulas.md#estimates-and-intervals).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from twinscore.analysis.statistics import LEVEL

Embedding = Callable[[Tensor], Tensor]
"""(B, C, H, W) to (B, k)."""

HALVINGS = 10
"""Random halvings of both sets that a distance is averaged over."""

_CHUNK_VALUES = 2**24


@dataclass(frozen=True)
class Distance:
    """A distance between the laws of two sets.

    Attributes
    ----------
    value : float
        The distance, with what finite sets add taken off; not below 0.
    low, high : float
        95 % interval, not below 0.
    floor : float
        What the plain distance between two halves of the reference is, at the number of images on
        each side at which ``value`` was found: distances well below it are hard to tell from 0.
    """

    value: float
    low: float
    high: float
    floor: float


def sliced_wasserstein(a: Tensor, b: Tensor, *, directions: int = 256, seed: int = 0) -> float:
    """Root mean square, over random directions, of the 2-Wasserstein distance of projections.

    Bonneel et al. 2015; directions are orthogonal, d at a time. For sets of unequal size the
    quantile function of the larger is read at the levels of the smaller one. In the units of the
    images, for a direction of unit length: two sets that differ by a constant image c are
    ``|c| / sqrt(d)`` apart.

    Sets are (M, ...) and (N, ...), items of one shape: ValueError if they are not, or a set is
    empty. Cost: (M + N) d products per direction, and a sort; memory: chunks of directions.

    Examples
    --------
    >>> import torch
    >>> from twinscore.analysis.quality import sliced_wasserstein
    >>> x = torch.rand(100, 1, 4, 4)
    >>> round(sliced_wasserstein(x, x + 0.2), 4)
    0.2
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
        For the Fréchet distance; by default the leading 64 principal components of both sets
        together (fewer where there are few images: at most a quarter of ``held_out``). Those of
        one set alone would make that set look wider than the other.
    directions : int
        Of the sliced Wasserstein distance.
    resamples : int
        Bootstrap draws, of both sets.
    seed : int
        Of directions, resamples and halves.

    Returns
    -------
    Quality
        Cost: ``resamples`` and 30 distances of either kind.

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
    components = max(1, min(64, len(held_out) // 4))
    embed = embedding or principal_components(torch.cat([samples, held_out]), components)
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
    """``D(a, b)^2 - (D(a1, a2)^2 + D(b1, b2)^2)/2`` of random halves, all of one size."""
    generator = np.random.default_rng(seed)
    half = min(len(a), len(b)) // 2
    parts = lambda x: x[torch.from_numpy(generator.permutation(len(x))[: 2 * half])].split(half)  # noqa: E731
    squares = np.empty((HALVINGS, 3))
    for i in range(HALVINGS):
        (a1, a2), (b1, b2) = parts(a), parts(b)
        squares[i] = [measure(x, y) ** 2 for x, y in ((a1, b1), (a1, a2), (b1, b2))]
    between, of_a, of_b = squares.mean(0)
    pick = lambda n: torch.from_numpy(generator.integers(n, size=n))  # noqa: E731
    draws = [measure(a[pick(len(a))], b[pick(len(b))]) ** 2 for _ in range(resamples)]
    square, reach = between - (of_a + of_b) / 2, ndtri((1 + LEVEL) / 2) * np.std(draws)
    value, low, high = np.sqrt(np.maximum([square, square - reach, square + reach], 0)).tolist()
    return Distance(value, low, high, float(np.sqrt(of_b)))


def _flat(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[1:] != b.shape[1:] or not len(a) or not len(b):
        raise ValueError(
            f"sets differ in shape or are empty: {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a.flatten(1), b.flatten(1)


def _directions(d: int, count: int, seed: int, items: int, like: Tensor) -> list[Tensor]:
    """Random unit vectors, in columns; any d in turn are orthogonal, which makes shifts exact."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(d, count, generator=generator, dtype=torch.float64).split(d, 1)
    w = torch.cat([torch.linalg.qr(frame).Q for frame in frames], 1).to(like)
    return list(w.split(max(1, _CHUNK_VALUES // items), 1))


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
