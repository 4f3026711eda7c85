"""How similar images are: cosines with the mean removed, nearest neighbours, diversity."""

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_VALUES = 2**24
"""Entries of a block of similarities held at once (64 MiB of float32)."""


def unit(images: Tensor) -> Tensor:
    """Each image flattened, its mean removed, at unit norm: (N, C, H, W) to (N, d).

    A constant image gives zeros, so that it is similar to nothing.
    """
    flat = images.flatten(1)
    flat = flat - flat[:, :1]  # exact zeros for a constant image of any value
    return F.normalize(flat - flat.mean(1, keepdim=True), dim=1)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Similarity of each pair ``a[i], b[i]``, mean removed, in [-1, 1]: (N, C, H, W) to (N,).

    The measure of [GAHB] figure 2.

    Examples
    --------
    >>> import torch
    >>> from twinscore.analysis.similarity import cosine_similarity
    >>> x = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 2, 2)
    >>> cosine_similarity(x, 0.3 * x + 0.2).item(), cosine_similarity(x, 1 - x).item()
    (1.0, -1.0)
    """
    return (unit(a) * unit(b)).sum(1).clamp(-1, 1)


def nearest(queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Most similar reference, of (N, C, H, W), for each query, of (M, C, H, W).

    Their cosine similarities, mean removed, (M,), and indices, (M,) int64. Cost: M N d products;
    memory bounded by ``CHUNK_VALUES``.

    Examples
    --------
    >>> import twinscore as ts
    >>> from twinscore import images
    >>> digits = images.load("digits")
    >>> similarity, which = ts.nearest(digits[[5, 7]], digits[:10])
    >>> which
    tensor([5, 7])
    """
    q, r = unit(queries), unit(references)
    rows = max(1, CHUNK_VALUES // len(r))
    best = [(block @ r.T).max(1) for block in q.split(rows)]
    similarity = torch.cat([b.values for b in best]).clamp(-1, 1)
    return similarity, torch.cat([b.indices for b in best])


def closest(images: Tensor) -> float:
    """Similarity of the two most similar of images (N, C, H, W); -1 for a single one.

    Cost: N^2 d products; memory bounded by ``CHUNK_VALUES``.
    """
    u, best = unit(images), -1.0
    rows = max(1, CHUNK_VALUES // len(u))
    for start in range(0, len(u), rows):
        table = u[start : start + rows] @ u.T
        table.diagonal(start).fill_(-1)
        best = max(best, table.max().item())
    return min(best, 1.0)


def diversity(samples: Tensor) -> Tensor:
    """Mean similarity of each image to all the others; high means little diversity.

    Shapes (N, C, H, W) to (N,), N >= 2. By the sum of all unit vectors, at cost N d.
    """
    u = unit(samples)
    total = u.sum(0)
    return (u @ total - u.square().sum(1)) / (len(u) - 1)
