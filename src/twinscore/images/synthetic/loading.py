"""Synthetic classes as sources: ``c_alpha:alpha=2,size=80,count=10000,seed=0`` and the like.

Images are made when they are read, and once for their content hashes when they are loaded. Those of
the Gaussian classes are not clipped to [0, 1], so that their densities stay exact.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet, LazyPixels, from_pixels
from twinscore.images.synthetic import fields
from twinscore.images.synthetic.c_alpha import CAlpha, c_alpha
from twinscore.images.synthetic.discs import discs, sample_parameters
from twinscore.images.transforms import Options, center_crop

Read = Callable[[str], Any]
Make = Callable[[np.ndarray | range], torch.Tensor]
"""Images (B, 1, size, size) of B numbers, or their labels (B,)."""
Maker = Callable[..., tuple[Make, Make | None]]
"""``maker(size, seed, **options)`` gives what makes images, and labels where there are any."""

_SIZE = 80
_LARGEST = 1024
_COUNT = 10_000


def load(kind: str, body: str, options: Options) -> ImageSet:
    """Load images of a synthetic class.

    Parameters
    ----------
    kind : str
        One of ``CLASSES``.
    body : str
        Must be empty.
    options : Options
        ``size`` is the side to make (80), ``crop`` keeps the centre of that; ``count`` (10,000) and
        ``seed`` (0), which determines the means of a mixture and the basis of a subspace too; the
        others are arguments of the class's function.

    Returns
    -------
    ImageSet
        float32, made on request. Labels are the components of a mixture of several.

    Raises
    ------
    InputError
        When an option's value is of the wrong kind or out of its range.
    """
    maker, readers = CLASSES[kind]
    values = _values(kind, body, options, readers)
    count, seed = values.pop("count", _COUNT), values.pop("seed", 0)
    size = options.size or _SIZE
    make, labels = maker(size, seed, **values)
    side = options.crop or size
    if side > size:
        raise InputError(f"crop={side} is larger than the images ({size}x{size}); give less")
    pixels = LazyPixels(
        (count, 1, side, side),
        np.dtype(np.float32),
        lambda rows: center_crop(make(rows).numpy(), side, side),
    )
    return from_pixels(pixels, labels=labels(range(count)).numpy() if labels else None)


def _c_alpha(size: int, seed: int, **values: Any) -> tuple[Make, None]:
    law = CAlpha(size=size, **values)
    return lambda rows: c_alpha(rows, law, seed=seed), None


def _discs(size: int, seed: int, **values: Any) -> tuple[Make, None]:
    sample_parameters([], size=size, radius=values.get("radius"))  # refuses what does not fit
    return lambda rows: discs(rows, size=size, seed=seed, **values)[0], None


def _field(size: int, seed: int, **values: Any) -> tuple[Make, None]:
    law = fields.field_law(size, **values)
    return lambda rows: fields.mixture(rows, law, seed=seed)[0], None


def _mixture(size: int, seed: int, **values: Any) -> tuple[Make, Make | None]:
    law = fields.mixture_law(size, seed=seed, **values)
    several = len(law.weights) > 1
    return (
        lambda rows: fields.mixture(rows, law, seed=seed)[0],
        (lambda rows: fields.components_of(rows, law, seed=seed)) if several else None,
    )


def _subspace(size: int, seed: int, **values: Any) -> tuple[Make, None]:
    law = fields.subspace_law(size, seed=seed, **values)
    return lambda rows: fields.subspace(rows, law, seed=seed), None


def _values(kind: str, body: str, options: Options, readers: dict[str, Read]) -> dict[str, Any]:
    """Read the options that sources of a kind have of their own."""
    if body:
        known = ", ".join(sorted({*readers, "crop", "gray", "shuffle", "size"}))
        raise InputError(f"{kind}{body}: no such option; options are {known}")
    if options.size is not None and not 2 <= options.size <= _LARGEST:
        raise InputError(
            f"{kind}size={options.size} is too {'small' if options.size < 2 else 'large'}; "
            f"give 2 to {_LARGEST}"
        )
    values: dict[str, Any] = {}
    for key, text in options.extra.items():
        try:
            values[key] = readers[key](text)
        except ValueError as error:
            raise InputError(f"{kind}{key}={text}: {error}") from None
    return values


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def _integer(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        raise ValueError(f"{text!r} is not a whole number from 0 to 9999999")
    return int(text)


def _positive(text: str) -> int:
    if not (number := _integer(text)):
        raise ValueError("0 is too few; give at least 1")
    return number


def _flag(text: str) -> bool:
    if text not in ("", "true", "false"):
        raise ValueError(f"{text!r} is not true or false")
    return text != "false"


def _range(text: str) -> tuple[float, float]:
    least, _, most = text.partition("..")
    return _float(least), _float(most or least)


_COMMON: dict[str, Read] = {"count": _positive, "seed": _integer}
_LEVELS: dict[str, Read] = {"contrast": _float, "mean": _float, **_COMMON}
CLASSES: dict[str, tuple[Maker, dict[str, Read]]] = {
    "c_alpha:": (
        _c_alpha,
        {
            "alpha": _float,
            "beta": _float,
            "filter": str,
            "blur": _integer,
            "antialias": _flag,
            "constant": _flag,
            **_COMMON,
        },
    ),
    "discs:": (_discs, {"radius": _range, "edge": _float, **_COMMON}),
    "field:": (_field, {"spectrum": _float, **_LEVELS}),
    "mixture:": (
        _mixture,
        {"components": _integer, "spread": _float, "spectrum": _float, **_LEVELS},
    ),
    "subspace:": (_subspace, {"dimension": _integer, **_LEVELS}),
}
"""What makes each class, and how the text of its options is read; ValueError says what is wrong."""
