"""Copies: the distance-ratio rule."""

import torch
from torch import Tensor

RATIO = 1 / 3
CANDIDATES = 8
CHUNK_VALUES = 2**24


def distance_ratio(samples: Tensor, training: Tensor) -> Tensor:
    """Distance to the nearest training image over distance to the second nearest, (M,) in [0, 1].

    Of samples, (M, C, H, W), to distinct training images, (N, C, H, W): ValueError for fewer than
    two, where there is no second nearest. A matrix product preselects ``CANDIDATES`` neighbours,
    whose distances are then computed by direct differences: exact where it matters, at small
    distances.

    Examples
    --------
    >>> import torch
    >>> from twinscore.analysis.memorization import distance_ratio
    >>> training = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1)
    >>> distance_ratio(torch.tensor([0.0, 0.5]).view(2, 1, 1, 1), training)
    tensor([0., 1.])
    """
    if len(training) < 2:
        raise ValueError("the ratio rule needs at least two training images")
    x, t = samples.flatten(1), training.flatten(1)
    norms = t.square().sum(1)
    count = min(CANDIDATES, len(t))
    rows = max(1, CHUNK_VALUES // max(len(t), count * t.shape[1]))
    ratios = []
    for block in x.split(rows):
        near = (norms - 2 * block @ t.T).topk(count, dim=1, largest=False).indices
        distance = (block[:, None] - t[near]).square().sum(2).sqrt().sort(dim=1).values
        ratios.append(distance[:, 0] / distance[:, 1].clamp_min(torch.finfo(x.dtype).tiny))
    return torch.cat(ratios)


def copied(samples: Tensor, training: Tensor) -> Tensor:
    """Which samples are copies: nearest training image under 1/3 as far as the second nearest.

    Yoon et al. 2023; Gu et al. 2023; Bonnaire et al. 2025. Shapes as :func:`distance_ratio`,
    (M,) bool. Unreliable when there are few training images: the second nearest may then be at any
    distance, even from a sharp copy, so no verdict depends on this rule alone
    (docs/formulas.md#similarity-and-copies).
    """
    return distance_ratio(samples, training) < RATIO
