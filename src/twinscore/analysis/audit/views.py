"""How a sample may repeat an image: as a whole, moved, or in part; mirrored and zoomed too.

A *kind* looks at images in some way, and compares views of a sample with views of an image. Every
view is a vector of unit norm with its mean removed, so that brightness and contrast do not count;
what is left of both is the largest cosine over all pairs of views.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor
from torch.nn import functional as F

from twinscore.analysis.similarity import unit

ZOOM = 0.9
"""Share of the side that a zoomed view keeps: its middle, brought back to the full size."""

COARSE = 16
"""Side in pixels, at most, at which moved images are compared: a shift by less than one of these
pixels changes little."""

SOFT = (0.04, 0.06)
"""Of Gaussians that blur images, so that blurred copies are alike; shares of the side."""

View = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to vectors of unit norm, or zeros, (N, k)."""


@dataclass(frozen=True)
class Pair:
    """A view of a sample, the view of an image that it is compared with, and what that means.

    ``what``: ``mirrored``, ``down``, ``right`` (pixels by which the sample shows the image moved),
    ``zoom`` (of the sample, relative to the image).
    """

    of_sample: View
    of_image: View
    what: dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One way in which samples are compared with images.

    ``look`` gives what is compared of images (N, C, H, W) of any size: (N, c, side, side).
    ``places`` are the parts of a sample that vote by themselves, one if it is compared as a whole;
    ``pairs``, for each of them, what is tried.
    """

    name: str
    side: int
    places: tuple[str, ...]
    pairs: tuple[tuple[Pair, ...], ...]
    look: Callable[[Tensor], Tensor]


def kinds(side: int, shift: float, details: Callable[[Tensor], Tensor]) -> tuple[Kind, ...]:
    """*whole*, *details*, *moved* (unless ``shift`` is 0) and *tiles*.

    Parameters
    ----------
    side : int
        Pixels, to which images are reduced.
    shift : float
        By how much of the side a sample may show an image moved, below 1/2.
    details : callable
        What *details* makes of reduced images: :class:`Evened` of the pool.
    """
    coarse = min(side, COARSE)
    whole, moved = (*_pairs(0, 0), *_smaller()), moves(coarse, shift)
    fine = (*whole, *_soft(side))
    once, look = ("whole",), partial(reduced, side=side)
    return (
        Kind("whole", side, once, (whole,), look),
        Kind("details", side, once, (fine,), lambda images: details(look(images))),
        *([Kind("moved", coarse, once, (moved,), partial(reduced, side=coarse))] if moved else []),
        _tiles(side, look),
    )


def moves(side: int, shift: float) -> tuple[Pair, ...]:
    """An image moved by at most a share of the side, (2 r + 1)^2 times the four of one place.

    None where that share is less than a pixel.
    """
    reach = int(shift * side)
    steps = range(-reach, reach + 1)
    found = (pair for down, right in product(steps, steps) for pair in _pairs(down, right))
    return tuple(found) if reach else ()


def shown(image: Tensor, other: Tensor, what: dict[str, Any]) -> Tensor:
    """What a sample is that shows an image (C, H, W) so, with another one at the edges."""
    image = image if what["zoom"] == 1 else _zoomed(image[None])[0]
    sample, (down, right) = other.clone(), (what["down"], what["right"])
    sample[..., _kept(down), _kept(right)] = image[..., _kept(-down), _kept(-right)]
    return sample.flip(-1) if what["mirrored"] else sample


@dataclass(frozen=True, eq=False)
class Evened:
    """Images less the mean of a pool, with its strong patterns as weak as its average one.

    Photographs differ mostly in a few smooth patterns, in which chance finds what is alike. A copy
    shares the details too, and most of them survive noise, blur and compression.

    Attributes
    ----------
    mean : Tensor
        (C, h, w), of the pool and its mirror image.
    weight : Tensor
        (C, h, w), of each pattern of the discrete cosine transform: ``(v + mean v)^(-1/2)``, v its
        variance in the pool.
    """

    mean: Tensor
    weight: Tensor

    @classmethod
    def of(cls, parts: Iterable[Tensor]) -> "Evened":
        """Of a pool, given in parts (B, C, h, w)."""
        count, total, squares = 0, 0.0, 0.0
        for part in parts:
            waves = _waves(part.double())
            count, total = count + len(part), total + waves.sum(0)
            squares = squares + waves.square().sum(0)
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        floor = variance.mean().clamp_min(torch.finfo(variance.dtype).tiny)
        centre = _waves(mean, back=True)
        centre = (centre + centre.flip(-1)) / 2
        return cls(centre.float(), (variance + floor).rsqrt().float())

    def __call__(self, images: Tensor) -> Tensor:
        """Of images (N, C, h, w)."""
        mean, weight = (x.to(images) for x in (self.mean, self.weight))
        return _waves(weight * _waves(images - mean), back=True)


def _waves(x: Tensor, back: bool = False) -> Tensor:
    """Orthonormal discrete cosine transform of images, (..., h, w), or its inverse."""
    rows, columns = (
        torch.from_numpy(dct(np.eye(n), axis=0, norm="ortho")).to(x) for n in x.shape[-2:]
    )
    return rows.T @ x @ columns if back else rows @ x @ columns.T


def _pairs(down: int, right: int) -> list[Pair]:
    """What both show, where a sample shows the image moved; mirrored or not, zoomed in or not."""
    of = {"down": down, "right": right}
    image = partial(_seen, down=-down, right=-right)
    return [
        Pair(
            partial(_seen, mirrored=mirrored, **of),
            partial(image, zoomed=zoom != 1),
            {"mirrored": mirrored, "zoom": zoom} | of,
        )
        for mirrored, zoom in product((False, True), (1.0, 1 / ZOOM))
    ]


def _smaller() -> list[Pair]:
    """A sample that shows the image smaller, and more around it."""
    return [
        Pair(
            partial(_seen, mirrored=mirrored, zoomed=True),
            unit,
            {"mirrored": mirrored, "zoom": ZOOM, "down": 0, "right": 0},
        )
        for mirrored in (False, True)
    ]


def _soft(side: int) -> list[Pair]:
    """A sample that shows the image blurred."""
    return [
        Pair(
            partial(_seen, mirrored=mirrored),
            partial(_blurred, width=width * side),
            {"mirrored": mirrored, "zoom": 1.0, "down": 0, "right": 0},
        )
        for mirrored, width in product((False, True), SOFT)
    ]


def _blurred(x: Tensor, *, width: float) -> Tensor:
    """Unit vectors of images that a Gaussian blurs, of a standard deviation in pixels."""
    height, across = (
        torch.exp(-((math.pi * width * torch.arange(n) / n) ** 2) / 2) for n in x.shape[-2:]
    )
    return unit(_waves((height[:, None] * across).to(x) * _waves(x), back=True))


def _seen(
    x: Tensor, *, down: int = 0, right: int = 0, mirrored: bool = False, zoomed: bool = False
) -> Tensor:
    """Unit vectors of what is left of images when their first ``down`` rows are cut off."""
    x = x.flip(-1) if mirrored else x
    x = _zoomed(x) if zoomed else x
    return unit(x[..., _kept(down), _kept(right)])


def _kept(cut: int) -> slice:
    return slice(cut, None) if cut >= 0 else slice(None, cut)


def _tiles(side: int, look: Callable[[Tensor], Tensor]) -> Kind:
    """Nine tiles of half the side, each with the one at its place in the image, or mirrored."""
    size = math.ceil(side / 2)
    names = product(("top", "middle", "bottom"), ("left", "centre", "right"))
    starts = [k * (side - size) // 2 for k in range(3)]
    pairs = []
    for top, left in product(starts, starts):
        cut = partial(_cut, top=top, left=left, size=size)
        mirror = partial(_cut, top=top, left=left, size=size, mirrored=True)
        pairs.append((Pair(cut, cut, {"mirrored": False}), Pair(mirror, cut, {"mirrored": True})))
    return Kind("tiles", side, tuple(map(" ".join, names)), tuple(pairs), look)


def _cut(x: Tensor, *, top: int, left: int, size: int, mirrored: bool = False) -> Tensor:
    x = x.flip(-1) if mirrored else x
    return unit(x[..., top : top + size, left : left + size])


def _zoomed(x: Tensor) -> Tensor:
    """The middle of each image, brought back to its size."""
    height, width = x.shape[-2:]
    down, right = (round(n * (1 - ZOOM) / 2) or 1 for n in (height, width))
    middle = x[..., down : height - down, right : width - right]
    return F.interpolate(middle, (height, width), mode="bilinear", align_corners=False)


def reduced(images: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) as squares of at most ``side`` pixels, in float32."""
    target = min(side, *images.shape[-2:])
    if images.shape[-2:] == (target, target):
        return images.float()
    return F.interpolate(images.float(), (target, target), mode="bilinear", antialias=True)


def difference(sample: Tensor, image: Tensor) -> Tensor:
    """What is left of a sample (C, H, W) after the image, best in brightness and contrast."""
    x, y = sample.flatten(), image.flatten()
    centred = y - y.mean()
    gain = (centred @ x) / centred.square().sum().clamp_min(torch.finfo(y.dtype).tiny)
    return (x - x.mean() - gain * centred).view_as(sample)
