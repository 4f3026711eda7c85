"""Synthetic classes as sources: ``c_alpha:alpha=2,size=80,count=10000,seed=0`` and the like.

Images are made when they are read, and once for their content hashes when they are loaded. Those of
the Gaussian classes are not clipped to [0, 1], so that their densities stay exact.
"""

from collections.abc import Callable, Mapping
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

_SIZE = 80
_LARGEST = 1024
_COUNT = 10_000


def load_c_alpha(body: str, options: Options) -> ImageSet:
    """Load C-alpha images, see :func:`twinscore.images.synthetic.c_alpha.c_alpha`.

    Parameters
    ----------
    body : str
        Must be empty.
    options : Options
        ``size`` is the side to make (80), ``crop`` keeps the centre of that; ``alpha``, ``beta``,
        ``filter``, ``blur``, ``antialias``, ``constant``; ``count`` (10,000) and ``seed`` (0).

    Returns
    -------
    ImageSet
        float32, made on request.

    Raises
    ------
    InputError
        When an option's value is of the wrong kind or out of its range.
    """
    values, count, seed = _values("c_alpha:", body, options, C_ALPHA_KEYS)
    law = CAlpha(size=options.size or _SIZE, **values)
    return from_pixels(
        _pixels(count, law.size, options, lambda rows: c_alpha(rows, law, seed=seed))
    )


def load_discs(body: str, options: Options) -> ImageSet:
    """Load discs, see :func:`twinscore.images.synthetic.discs.discs`.

    Parameters
    ----------
    body : str
        Must be empty.
    options : Options
        As for :func:`load_c_alpha`, with ``radius`` (``8..32``) and ``edge`` of its own.

    Returns
    -------
    ImageSet
        float32, made on request; ``sample_parameters`` gives their parameters.

    Raises
    ------
    InputError
        When an option's value is of the wrong kind, or the discs do not fit.
    """
    values, count, seed = _values("discs:", body, options, DISC_KEYS)
    size = options.size or _SIZE
    sample_parameters([], size=size, radius=values.get("radius"))

    def make(rows: np.ndarray) -> torch.Tensor:
        return discs(rows, size=size, seed=seed, **values)[0]

    return from_pixels(_pixels(count, size, options, make))


def load_field(body: str, options: Options) -> ImageSet:
    """Load stationary Gaussian fields, see :func:`twinscore.images.synthetic.fields.field_law`.

    Parameters
    ----------
    body : str
        Must be empty.
    options : Options
        As for :func:`load_c_alpha`, with ``spectrum`` (an exponent), ``contrast`` and ``mean``.

    Returns
    -------
    ImageSet
        float32, made on request, not clipped.

    Raises
    ------
    InputError
        When an option's value is of the wrong kind or out of its range.
    """
    values, count, seed = _values("field:", body, options, FIELD_KEYS)
    law = fields.field_law(options.size or _SIZE, **values)
    return _mixture_set(law, count, seed, options)


def load_mixture(body: str, options: Options) -> ImageSet:
    """Load Gaussian mixtures, see :func:`twinscore.images.synthetic.fields.mixture_law`.

    Parameters
    ----------
    body : str
        Must be empty.
    options : Options
        As for :func:`load_field`, with ``components`` and ``spread``. The seed determines the means
        too.

    Returns
    -------
    ImageSet
        float32, made on request, not clipped; labels are the components.

    Raises
    ------
    InputError
        When an option's value is of the wrong kind or out of its range.
    """
    values, count, seed = _values("mixture:", body, options, MIXTURE_KEYS)
    law = fields.mixture_law(options.size or _SIZE, seed=seed, **values)
    return _mixture_set(law, count, seed, options)


def load_subspace(body: str, options: Options) -> ImageSet:
    """Load images on a linear subspace, see :func:`twinscore.images.synthetic.fields.subspace_law`.

    Parameters
    ----------
    body : str
        Must be empty.
    options : Options
        As for :func:`load_c_alpha`, with ``dimension``, ``contrast`` and ``mean``. The seed
        determines the subspace too.

    Returns
    -------
    ImageSet
        float32, made on request, not clipped.

    Raises
    ------
    InputError
        When an option's value is of the wrong kind or out of its range.
    """
    values, count, seed = _values("subspace:", body, options, SUBSPACE_KEYS)
    law = fields.subspace_law(options.size or _SIZE, seed=seed, **values)

    def make(rows: np.ndarray) -> torch.Tensor:
        return fields.subspace(rows, law, seed=seed)

    return from_pixels(_pixels(count, law.basis.shape[-1], options, make))


def _mixture_set(law: fields.MixtureLaw, count: int, seed: int, options: Options) -> ImageSet:
    def make(rows: np.ndarray) -> torch.Tensor:
        return fields.mixture(rows, law, seed=seed)[0]

    pixels = _pixels(count, law.means.shape[-1], options, make)
    several = len(law.weights) > 1
    labels = fields.components_of(range(count), law, seed=seed).numpy() if several else None
    return from_pixels(pixels, labels=labels)


def _pixels(
    count: int, size: int, options: Options, make: Callable[[np.ndarray], torch.Tensor]
) -> LazyPixels:
    side = options.crop or size
    if side > size:
        raise InputError(f"crop={side} is larger than the images ({size}x{size}); give less")
    return LazyPixels(
        (count, 1, side, side),
        np.dtype(np.float32),
        lambda rows: center_crop(make(rows).numpy(), side, side),
    )


def _values(
    kind: str, body: str, options: Options, keys: Mapping[str, Read]
) -> tuple[dict[str, Any], int, int]:
    """Read the options of a kind; the number of images and the seed apart."""
    if body:
        known = ", ".join(sorted({*keys, "crop", "gray", "shuffle", "size"}))
        raise InputError(f"{kind}{body}: no such option; options are {known}")
    if options.size is not None and not 2 <= options.size <= _LARGEST:
        raise InputError(
            f"{kind}size={options.size} is too {'small' if options.size < 2 else 'large'}; "
            f"give 2 to {_LARGEST}"
        )
    values: dict[str, Any] = {}
    for key, text in options.extra.items():
        try:
            values[key] = keys[key](text)
        except ValueError as error:
            raise InputError(f"{kind}{key}={text}: {error}") from None
    return values, values.pop("count", _COUNT), values.pop("seed", 0)


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
C_ALPHA_KEYS: dict[str, Read] = {
    "alpha": _float,
    "beta": _float,
    "filter": str,
    "blur": _integer,
    "antialias": _flag,
    "constant": _flag,
    **_COMMON,
}
DISC_KEYS: dict[str, Read] = {"radius": _range, "edge": _float, **_COMMON}
FIELD_KEYS: dict[str, Read] = {
    "spectrum": _float,
    "contrast": _float,
    "mean": _float,
    **_COMMON,
}
MIXTURE_KEYS: dict[str, Read] = {"components": _integer, "spread": _float, **FIELD_KEYS}
SUBSPACE_KEYS: dict[str, Read] = {
    "dimension": _integer,
    "contrast": _float,
    "mean": _float,
    **_COMMON,
}
