"""Closed-form denoisers of a source of images: Gaussian, empirical, and of its patches."""

import math
from collections.abc import Callable, Iterable
from typing import Any

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


LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Noise levels at which the side of patches is fitted."""

_HELD_OUT = 16
"""Most images on which it is fitted, and at most a fifth of all."""


def local(body: str) -> Checkpoint:
    """Denoiser of the patches of images, for ``local:SOURCE`` and its options.

    ``body`` is a source, followed by any of ``,patch=K``, the side; ``,equivariant=no``, patches
    are compared with those at the same place only; ``,borders=circular``, images continue at the
    other side (:meth:`~twinscore.denoisers.closed_form.Local.of`). Without ``patch`` the side
    depends on the noise level: at each of ``LEVELS`` that of least error on up to 16 images, at
    most a fifth, with the patches of the others; then all images are used. All images are held in
    memory. InputError if there is no such source, or the value of an option is wrong.
    """
    source, options = _cut(body)
    images = image_sets.load(source)
    try:
        denoiser = _of_patches(images[:], **options)
    except ValueError as error:
        raise InputError(f"local:{body}: {error}") from None
    return _checkpoint(" ".join(["local", *map(str, options.values())]), denoiser, images)


def _of_patches(images: Tensor, patch: int | None, **options: Any) -> Denoiser:
    if patch is not None:
        return closed_form.Local.of(images, patch, **options)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    count = min(_HELD_OUT, len(images) // 5)
    if not count:
        raise ValueError(
            f"{len(images)} images are too few to fit the side of patches; give patch=7, say"
        )
    held_out, training = images[order[:count]], images[order[count:]]
    sides = closed_form.fitted_sides(training, held_out, LEVELS, **options)
    forms = {k: closed_form.Local.of(images, k, **options) for k in set(sides.values())}
    return closed_form.LocalByLevel({level: forms[k] for level, k in sides.items()})


_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "patch": (int, "a side in pixels"),
    "equivariant": ({"yes": True, "no": False}.__getitem__, "yes or no"),
    "borders": ({"known": "known", "circular": "circular"}.__getitem__, "known or circular"),
}
"""What reads an option's value, and what that must be."""


def _cut(body: str) -> tuple[str, dict[str, Any]]:
    """The source, and the values of the options that are not its own."""
    options: dict[str, Any] = {"patch": None, "equivariant": True, "borders": "known"}
    words = []
    for word in body.split(","):
        name, _, value = word.partition("=")
        if name not in _OPTIONS:
            words.append(word)
            continue
        read, kind = _OPTIONS[name]
        try:
            options[name] = read(value)
        except (KeyError, ValueError):
            raise InputError(f"local:{body}: {name}={value!r} is not {kind}") from None
    return ",".join(words), options


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
