"""Near-duplicates: images that repeat an earlier one, found blockwise by correlation."""

import numpy as np
import torch
import torch.nn.functional as F

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet, chunks

_CONSTANT = 1e-9


def near_duplicates(
    images: ImageSet, threshold: float = 0.95, size: int = 20, block: int = 1024
) -> np.ndarray:
    r"""Mark the images to drop because an earlier image is nearly the same.

    Image j is dropped when, for any i < j, dropped or not,

    .. math:: \frac{\langle x_i - \bar x_i,\, x_j - \bar x_j\rangle}
              {\|x_i - \bar x_i\| \, \|x_j - \bar x_j\|} > \text{threshold},

    on gray images (mean of the channels) reduced to ``size x size`` (bilinear, antialiased). The
    sign counts: a negative is no duplicate. A constant image correlates with nothing. Images equal
    to an earlier one pixel by pixel are dropped in any case, constant ones too.

    Parameters
    ----------
    images : ImageSet
        N images.
    threshold : float
        Largest correlation that is kept, in [0, 1).
    size : int
        Side in pixels at which images are compared, cut to ``min(size, H, W)``.
    block : int
        Images compared at a time. Memory is ``4 (N size^2 + block^2)`` bytes, never ``N^2``;
        the result does not depend on it, up to rounding (1e-6) of the correlation.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` bool, True where the image is to be dropped.

    Raises
    ------
    InputError
        When the threshold, size or block is out of its range.

    References
    ----------
    Kadkhodaie, Guth, Simoncelli and Mallat, ICLR 2024 (arXiv 2310.02557), who take the absolute
    correlation.
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold: {threshold} is out of range; give 0 <= threshold < 1")
    for name, value in (("size", size), ("block", block)):
        if value < 1:
            raise InputError(f"{name}: {value} is out of range; give at least 1")
    drop = _repeats(images.digests)
    features = _unit_features(images, min(size, *images.shape[1:]))
    for start in range(0, len(features), block):
        rows = features[start : start + block]
        for earlier in range(0, start + 1, block):
            close = rows @ features[earlier : earlier + block].T > threshold
            if earlier == start:
                close = close.tril(-1)
            drop[start : start + block] |= close.any(dim=1).numpy()
    return drop


def _repeats(digests: tuple[str, ...]) -> np.ndarray:
    first = dict(zip(reversed(digests), range(len(digests) - 1, -1, -1), strict=True))
    return np.array([first[digest] < k for k, digest in enumerate(digests)], dtype=bool)


def _unit_features(images: ImageSet, side: int) -> torch.Tensor:
    features = torch.empty(len(images), side * side)
    for chunk in chunks(images.pixels):
        gray = images[chunk].double().mean(dim=1, keepdim=True)
        small = F.interpolate(gray, (side, side), mode="bilinear", antialias=True).flatten(1)
        centred = small - small.mean(dim=1, keepdim=True)
        norm = centred.norm(dim=1, keepdim=True)
        features[chunk] = torch.where(norm > _CONSTANT * side, centred / norm, 0.0).float()
    return features
