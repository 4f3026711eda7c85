"""Mirrored copies: every image is followed by itself with left and right exchanged."""

from dataclasses import replace
from itertools import chain

import numpy as np

from twinscore.errors import InputError
from twinscore.images.imageset import MAX_IMAGES, ImageSet, LazyPixels, digests_of


def with_mirrored(images: ImageSet) -> ImageSet:
    """Let every image be followed by its mirrored copy, made when it is asked for.

    Image 2 k of the result is image k, and 2 k + 1 its copy, of the same label, group and
    attributes, which is called ``NAME/mirrored``. ``originals`` says that they belong together. All
    images are read once, for the digests of the copies.

    Raises
    ------
    InputError
        When the images have copies already, or there would be more than ``MAX_IMAGES``.
    """
    if images.originals is not None:
        raise InputError("augment: these images have mirrored copies already; leave augment out")
    number = 2 * len(images)
    if number > MAX_IMAGES:
        raise InputError(f"augment: {number} images with their copies; give at most {MAX_IMAGES}")

    def read(rows: np.ndarray) -> np.ndarray:
        pixels = np.array(images.pixels[rows // 2], subok=False)
        mirrored = rows % 2 == 1
        pixels[mirrored] = pixels[mirrored, ..., ::-1]
        return pixels

    copies = LazyPixels(
        (len(images), *images.shape),
        images.pixels.dtype,
        lambda rows: np.asarray(images.pixels[rows])[..., ::-1],
    )
    digests = zip(images.digests, digests_of(copies, images.peak), strict=True)
    return replace(
        images,
        pixels=LazyPixels((number, *images.shape), images.pixels.dtype, read),
        names=tuple(f"{name}{end}" for name in images.names for end in ("", "/mirrored")),
        digests=tuple(chain.from_iterable(digests)),
        labels=None if images.labels is None else np.repeat(images.labels, 2),
        groups=None if images.groups is None else tuple(g for g in images.groups for _ in "12"),
        attributes={name: np.repeat(values, 2) for name, values in images.attributes.items()},
        originals=np.repeat(np.arange(len(images)), 2),
    )
