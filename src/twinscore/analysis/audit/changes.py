"""What a copy may have been through: images changed on purpose, to see which an audit sees."""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Change = Callable[[Tensor, Tensor, np.random.Generator], Tensor]
"""Images (N, C, H, W), as many others for what they do not fill, and a source of noise, to what
shows the images."""

PART = 3 / 16
"""Of the side, by which an image is moved or over which it is blurred."""


def noisy(x: Tensor, generator: np.random.Generator, sigma: float) -> Tensor:
    """With Gaussian noise."""
    return x + sigma * torch.from_numpy(generator.standard_normal(x.shape)).float()


def blurred(x: Tensor) -> Tensor:
    """By a box as wide as ``PART`` of the side, in whole pixels and an odd number of them."""
    width = max(3, int(PART * min(x.shape[-2:]))) | 1
    around = F.pad(x, (width // 2,) * 4, mode="replicate")
    return F.avg_pool2d(around, width, 1)


def moved(x: Tensor, others: Tensor, part: float = PART) -> Tensor:
    """Down and to the left, into other images."""
    down, left = (max(1, round(part * n)) for n in x.shape[-2:])
    out = others.clone()
    out[..., down:, :-left] = x[..., :-down, left:]
    return out


def cropped(x: Tensor) -> Tensor:
    """The middle nine tenths of the side, enlarged."""
    down, right = (max(1, round(0.05 * n)) for n in x.shape[-2:])
    inner = x[..., down:-down, right:-right]
    return F.interpolate(inner, x.shape[-2:], mode="bicubic", align_corners=False)


def tiled(x: Tensor, others: Tensor) -> Tensor:
    """One quarter, in other images."""
    out, (down, right) = others.clone(), (n // 2 for n in x.shape[-2:])
    out[..., down:, right:] = x[..., down:, right:]
    return out


def jpeg(x: Tensor, quality: int = 60) -> Tensor:
    """Compressed and read again: as a colour picture with three channels, else each by itself."""
    pixels = (255 * x.clamp(0, 1)).round().byte()
    whole = x.shape[1] == 3
    pictures = pixels.movedim(1, -1) if whole else pixels.flatten(0, 1)
    read = np.stack([_compressed(picture, quality) for picture in pictures.numpy()])
    back = torch.from_numpy(read).float() / 255
    return back.movedim(-1, 1) if whole else back.view_as(x)


def _compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _at_once(x: Tensor, others: Tensor, generator: np.random.Generator) -> Tensor:
    small = moved(cropped(x.flip(-1)), others, PART / 3)
    return jpeg(noisy(0.2 + 0.7 * blurred(small), generator, 0.02))


CHANGES: dict[str, Change] = {
    "exact": lambda x, o, g: x,
    "noise 0.1": lambda x, o, g: noisy(x, g, 0.1),
    "shift 3/16": lambda x, o, g: moved(x, o),
    "mirror": lambda x, o, g: x.flip(-1),
    "brightness +0.2": lambda x, o, g: x + 0.2,
    "contrast 0.7": lambda x, o, g: 0.15 + 0.7 * x,
    "crop 90 %": lambda x, o, g: cropped(x),
    "JPEG 60": lambda x, o, g: jpeg(x),
    "blur 3/16": lambda x, o, g: blurred(x),
    "all at once": _at_once,
    "one tile": lambda x, o, g: tiled(x, o),
}
"""Noise, brightness and contrast are in image units; shift, crop and blur in parts of the side.
*All at once*: mirrored, cropped, moved by a third as much, blurred, flatter, noisy, compressed."""


def changed(name: str, x: Tensor, others: Tensor, generator: np.random.Generator) -> Tensor:
    """Images after one of ``CHANGES``, in [0, 1]."""
    return CHANGES[name](x, others, generator).clamp(0, 1)
