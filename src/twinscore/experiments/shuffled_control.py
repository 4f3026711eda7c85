"""The control of the study of shuffled pixels: a denoiser that knows nothing of neighbourhoods.

The Gaussian denoiser with the mean and the full covariance of the training images loses nothing but
rounding when the pixels of images, noise and moments are shuffled alike.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.levels import image_errors
from twinscore.denoisers import Denoiser, check
from twinscore.denoisers.closed_form import Gaussian
from twinscore.denoisers.fitted import covariance
from twinscore.experiments import budget
from twinscore.images import ImageSet
from twinscore.images.synthetic import PixelShuffle
from twinscore.training.history import SIGMAS

_SQUARES = 6
"""Matrices (d, d) that the control holds at a time, float64; most of them the eigensolver's."""
_CHUNK_VALUES = 2**22
"""Pixels of the images that are summed at once, float64: 32 MiB."""


def demand(shape: tuple[int, int, int]) -> budget.Demand:
    """Memory of the host that the control takes for images (C, H, W)."""
    matrices = _SQUARES * 8 * math.prod(shape) ** 2
    return budget.Demand("the control", budget.available_memory("cpu"), 0, matrices, 4)


def control(
    images: ImageSet,
    split: tuple[NDArray, NDArray],
    shuffle: PixelShuffle,
    seed: int,
    batch: int,
) -> float:
    """Largest gap of the Gaussian denoisers of plain and of shuffled images.

    Parameters
    ----------
    images : ImageSet
        Plain images, d = C H W pixels each.
    split : tuple of array
        Indices of the training images, whose moments the denoisers have, and of the test images.
    shuffle : PixelShuffle
        The permutation.
    seed : int
        Of the noise.
    batch : int
        Test images denoised at once.

    Returns
    -------
    float
        dB, in absolute value. Cost: two eigendecompositions of (d, d), and two passes over the
        training images for each; memory: six matrices (d, d) of float64, and chunks.
    """
    training, test = split
    x = images[test].double()
    identity = PixelShuffle(np.arange(len(shuffle.order)))
    with torch.no_grad():
        plain, shuffled = (
            squared_errors(
                unshuffled(Gaussian.of(*moments(images, training, order)), order), x, seed, batch
            ).mean(1)
            for order in (identity, shuffle)
        )
    return float(np.abs(10 * np.log10(shuffled / plain)).max())


def moments(images: ImageSet, indices: NDArray, order: PixelShuffle) -> tuple[Tensor, Tensor]:
    """Mean (C, H, W) and covariance (d, d) of images in an order of their pixels.

    Both are float64 and summed in chunks, the covariance about the mean.
    """
    n = len(indices)
    parts = np.array_split(indices, math.ceil(n * math.prod(images.shape) / _CHUNK_VALUES))
    mean = sum(order.apply(images[part]).double().sum(0) / n for part in parts)
    return mean, covariance((order.apply(images[part]) for part in parts), mean, n - 1)


def unshuffled(denoiser: Denoiser, order: PixelShuffle) -> Denoiser:
    """What a denoiser of shuffled images does to images: noise is permuted with them."""
    return lambda y, sigma=None: order.invert(denoiser(order.apply(y), sigma))


def squared_errors(denoiser: Denoiser, x: Tensor, seed: int, batch: int) -> NDArray[np.float64]:
    """Squared error per pixel of each image at each training level, (K, N)."""

    def errors(x: Tensor, y: Tensor, sigma: float) -> Tensor:
        return (check(denoiser, y, sigma) - x).cpu().double().square().flatten(1).mean(1)

    return image_errors(errors, x, SIGMAS, seed=seed, batch=batch)
