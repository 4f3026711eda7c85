"""What part of a denoiser's outputs another denoiser explains, with an interval over images."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.statistics import interval, resampled


def squares(outputs: Tensor, others: Tensor) -> NDArray[np.float64]:
    """Squared distance of each output to the other's, and to the mean output, (B, 2).

    ``outputs`` and ``others`` are images (B, C, H, W). What :func:`explained` is computed from.
    """
    ours = outputs.double()
    apart, spread = ours - others.double(), ours - ours.mean(0)
    return np.stack([x.square().flatten(1).sum(1).cpu().numpy() for x in (apart, spread)], 1)


def explained(found: NDArray[np.float64], seed: int) -> tuple[float, float, float] | None:
    """``r^2 = 1 - sum |f - g|^2 / sum |f - mean f|^2`` over B images, and its interval (95 %).

    The coefficient of determination of outputs f by the other's g, as it is, without a fit: 1 where
    they are equal, 0 where g is no nearer than the mean output, negative where it is further off.
    The interval is the bootstrap's over images. None where all outputs are equal, or fewer than
    two.
    """
    if len(found) < 2 or not found[:, 1].sum() > 0:
        return None
    draws = resampled(found[None], r_squared, seed=seed)
    return float(r_squared(found[None], axis=1)[0]), *interval(draws)


def r_squared(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The same of (..., B, 2), along the axis of images."""
    total = values.sum(axis)
    return 1 - total[..., 0] / np.maximum(total[..., 1], np.finfo(float).tiny)
