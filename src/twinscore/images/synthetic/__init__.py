"""Image classes made of random numbers, of known regularity, dimension or density.

Every class is a plain function of image numbers and a seed, so that any number of images can be
streamed and none has to be stored, and a source: ``c_alpha:``, ``discs:``, ``field:``,
``mixture:``, ``subspace:``.
"""

from twinscore.images.synthetic.c_alpha import CAlpha, c_alpha
from twinscore.images.synthetic.discs import discs, render, sample_parameters, tangents
from twinscore.images.synthetic.fields import (
    MixtureLaw,
    SubspaceLaw,
    field_law,
    mixture,
    mixture_law,
    spectrum_of,
    subspace,
    subspace_law,
)
from twinscore.images.synthetic.shuffle import PixelShuffle, pixel_shuffle, shuffle_pixels

__all__ = [
    "CAlpha",
    "MixtureLaw",
    "PixelShuffle",
    "SubspaceLaw",
    "c_alpha",
    "discs",
    "field_law",
    "mixture",
    "mixture_law",
    "pixel_shuffle",
    "render",
    "sample_parameters",
    "shuffle_pixels",
    "spectrum_of",
    "subspace",
    "subspace_law",
    "tangents",
]
