"""One fixed permutation of the pixels, the same for all images: distances and densities stay.

It leaves the optimal denoiser's error unchanged and takes away what convolutions are good at
(docs/formulas.md#shuffled-pixels).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet, LazyPixels, from_pixels
from twinscore.images.synthetic import stream


@dataclass(frozen=True, eq=False)
class PixelShuffle:
    """A permutation of the H W pixels of an image; all channels move together.

    Attributes
    ----------
    order : numpy.ndarray
        ``(H W,)`` int64, every number in ``range(H W)`` once: pixel k of the shuffled image, row by
        row, is pixel ``order[k]`` of the image.

    Raises
    ------
    InputError
        When it is not a permutation.
    """

    order: np.ndarray

    def __post_init__(self) -> None:
        order = np.asarray(self.order)
        if order.ndim != 1 or order.dtype.kind not in "iu":
            raise InputError(
                f"order: {order.dtype} of shape {order.shape} is not a permutation; "
                "give a list of pixel numbers"
            )
        if not np.array_equal(np.sort(order), np.arange(len(order))):
            raise InputError(
                f"order: not a permutation of {len(order)} pixels; "
                f"give every number from 0 to {len(order) - 1} once"
            )
        object.__setattr__(self, "order", order.astype(np.int64))

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Shuffle images ``(..., H, W)``; InputError when the permutation's length is not H W."""
        return self._move(x, self.order)

    def invert(self, x: torch.Tensor) -> torch.Tensor:
        """Undo :meth:`apply`."""
        return self._move(x, np.argsort(self.order))

    def _move(self, x: torch.Tensor, order: np.ndarray) -> torch.Tensor:
        self._require_length(x.shape[-2] * x.shape[-1])
        index = torch.from_numpy(order).to(x.device)
        return x.flatten(-2)[..., index].view(x.shape)

    def _require_length(self, pixels: int) -> None:
        if len(self.order) != pixels:
            raise InputError(
                f"order: a permutation of {len(self.order)} pixels for images of {pixels}; "
                f"give one of {pixels}"
            )


def pixel_shuffle(height: int, width: int, seed: int) -> PixelShuffle:
    """Draw a permutation, uniform among all; InputError when the seed is negative."""
    return PixelShuffle(stream.shared(seed).permutation(height * width))


def shuffle_pixels(images: ImageSet, shuffle: PixelShuffle | int) -> ImageSet:
    """Shuffle the pixels of all images, when they are read; a seed stands for its permutation.

    Names, labels, groups and attributes stay. The images are read once from first to last, for
    their digests. InputError when the permutation does not have H W entries, or the seed is
    negative.
    """
    channels, height, width = images.shape
    if not isinstance(shuffle, PixelShuffle):
        shuffle = pixel_shuffle(height, width, shuffle)
    shuffle._require_length(height * width)
    order = shuffle.order

    def read(rows: np.ndarray) -> np.ndarray:
        flat = np.asarray(images.pixels[rows]).reshape(len(rows), channels, height * width)
        return flat[..., order].reshape(len(rows), channels, height, width)

    pixels = LazyPixels((len(images), channels, height, width), images.pixels.dtype, read)
    packed = from_pixels(pixels, peak=images.peak)
    return replace(images, pixels=packed.pixels, digests=packed.digests)
