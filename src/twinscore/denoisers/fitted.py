"""Closed-form denoisers of a source of images: its Gaussian, and its empirical distribution."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from twinscore import images as image_sets
from twinscore.denoisers import closed_form
from twinscore.denoisers.base import Denoiser
from twinscore.denoisers.checkpoint import Checkpoint
from twinscore.errors import InputError
from twinscore.images import ImageSet

LARGEST_D = 10_000
"""Numbers in an image (``d = C H W``) up to which a full covariance is formed, of 0.8 GB."""

_CHUNK = 2**22
"""Numbers of images held at a time in float64."""


def gaussian(source: str) -> Checkpoint:
    """Gaussian with the mean and covariance of images: the best linear denoiser for them.

    The covariance divides by N. With no more images than an image has numbers (N <= d) it is
    singular: the density lies on the affine space through the images, and so does every estimate.
    Cost: N d^2 flops and an eigendecomposition, of order 10 d^3; some five (d, d) matrices of
    float64 in memory. InputError if there is no such source (:func:`twinscore.images.load`), or
    ``d`` exceeds ``LARGEST_D``.
    """
    images = image_sets.load(source)
    channels, height, width = images.shape
    if channels * height * width > LARGEST_D:
        raise InputError(
            f"gaussian:{source}: images of shape {images.shape} hold {channels * height * width:,} "
            f"numbers each, and a full covariance fits for {LARGEST_D:,}; "
            f"give size={math.isqrt(LARGEST_D // channels)} or less"
        )
    denoiser = closed_form.Gaussian.of(*moments(images))
    return _checkpoint("gaussian", denoiser, images)


def empirical(source: str) -> Checkpoint:
    """Exact denoiser of the images themselves: what perfect training on them would give.

    docs/formulas.md#closed-forms. Parameters and errors as for :func:`gaussian`; all images are
    held in memory as float32.
    """
    images = image_sets.load(source)
    return _checkpoint("empirical", closed_form.Empirical.of(images[:]), images)


def moments(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Mean (C, H, W) and covariance (d, d) of images, divided by N; float64, in chunks."""
    d = math.prod(images.shape)
    step = max(1, _CHUNK // d)
    chunks = [slice(start, start + step) for start in range(0, len(images), step)]
    mean = sum(images[chunk].double().sum(0) for chunk in chunks) / len(images)
    return mean, covariance((images[chunk] for chunk in chunks), mean, len(images))


def covariance(parts: Iterable[Tensor], mean: Tensor, divisor: int) -> Tensor:
    """Covariance (d, d) about a mean (C, H, W), of images that come in parts; float64."""
    total = torch.zeros(mean.numel(), mean.numel(), dtype=torch.float64)
    for images in parts:
        centred = (images.double() - mean).flatten(1)
        total.addmm_(centred.T, centred, alpha=1 / divisor)
    return total


def _checkpoint(kind: str, denoiser: Denoiser, images: ImageSet) -> Checkpoint:
    return Checkpoint(denoiser, images.shape, tuple(images.mean()), f"{kind} {images.digest}")
