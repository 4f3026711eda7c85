"""Numbers often quoted for copies, each to be read beside its value for held-out images."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from torch import Tensor

from twinscore.analysis import memorization

NEAREST = 50
ALPHA = 0.5
CELLS = 3

LEAST = 20
"""A cell counts for C_T with more images than this."""

_ENTRIES = 2**24


@dataclass(frozen=True)
class Legacy:
    """Published numbers of a set of images, against the training images.

    Attributes
    ----------
    ratio : float
        Share whose nearest training image is under 1/3 as far as the second nearest (Yoon et al.
        2023).
    carlini : float
        Share whose nearest training image is under ``ALPHA`` times the mean distance to the
        ``NEAREST`` nearest (Carlini et al. 2023, section 5.1, for any single bound of 1).
    authentic : float
        AuthPct: share that is farther from its nearest training image than that one is from its
        own nearest (Alaa et al. 2022, eq. 8).
    """

    ratio: float
    carlini: float
    authentic: float


def legacy(images: Tensor, training: Tensor) -> Legacy:
    """Of images (M, C, H, W), by Euclidean distance to training images (N, C, H, W), N >= 2.

    Cost: M N d and N^2 d products, memory in chunks.
    """
    x, t = images.flatten(1), training.flatten(1)
    distance, index = nearest(x, t, min(NEAREST, len(t)))
    own, _ = nearest(t, t, 2)
    return Legacy(
        ratio=float(memorization.copied(images, training).float().mean()),
        carlini=float((distance[:, 0] < ALPHA * distance.mean(1)).float().mean()),
        authentic=float((distance[:, 0] > own[index[:, 0], 1]).float().mean()),
    )


def nearest(x: Tensor, t: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Euclidean distances to the ``count`` nearest rows of t, (M, count), and their indices."""
    rows = max(1, _ENTRIES // len(t))
    found = [torch.cdist(part, t).topk(count, 1, largest=False) for part in x.split(rows)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def data_copying(
    images: Tensor, held_out: Tensor, training: Tensor, *, cells: int = CELLS, seed: int = 0
) -> float:
    """C_T of Meehan, Chaudhuri and Dasgupta (2020): below 0 where images lie too near to T.

    In each cell of a k-means of T, the Mann-Whitney U of the distances to the nearest training
    image in the cell, of images against held-out ones, standardised; averaged by the share of
    held-out images in the cell. Cells with no more than ``LEAST`` images, or no held-out one, are
    left out. NaN if none is left.
    """
    x, h, t = (part.flatten(1).double().cpu() for part in (images, held_out, training))
    means = KMeans(min(cells, len(t)), n_init=10, random_state=seed).fit(t.numpy())
    of = [means.predict(part.numpy()) for part in (x, h, t)]
    total, weight = 0.0, 0.0
    for cell in range(means.n_clusters):
        own = [part[torch.from_numpy(c == cell)] for part, c in zip((x, h, t), of, strict=True)]
        if len(own[0]) <= LEAST or not len(own[1]):
            continue
        near = [nearest(part, own[2], 1)[0][:, 0].numpy() for part in own[:2]]
        total += len(own[1]) * standard_u(near[0], near[1])
        weight += len(own[1])
    return total / weight if weight else float("nan")


def standard_u(first: NDArray, second: NDArray) -> float:
    """Mann-Whitney U, standardised with a correction for continuity, above 0 for larger firsts."""
    m, n = len(first), len(second)
    ranks = rankdata(np.concatenate([first, second]))[:m]
    u = ranks.sum() - m * (m + 1) / 2
    return float((u - m * n / 2 + 0.5) / np.sqrt(m * n * (m + n + 1) / 12))
