"""Which axis of an array is which: told by letters, or by a shape that can mean only one thing."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from twinscore.errors import InputError
from twinscore.images.stored import Stored

AXES = "NCHW"
"""Images, channels, rows and columns."""

_CHANNELS = (1, 3)


def arranged(images: Stored, layout: str | None, labels: Stored | None, name: str) -> Stored:
    """An array with its axes in the order N, C, H, W, if a layout is given; else as it is.

    ``name`` is what error messages call it. InputError when it does not have as many axes as the
    layout has letters, or 1 or 3 channels; without a layout, when its shape can mean two things.
    As many labels as the first axis is long say that it is N.
    """
    numbered = labels is not None and labels.shape[:1] == images.shape[:1]
    if layout is None and numbered and len(images.shape) == 3:
        return images
    if layout is None:
        _require_one_reading(images.shape, name)
        return images
    if len(layout) != len(images.shape):
        raise InputError(
            f"{name}: layout={layout} names {len(layout)} axes, the array has {len(images.shape)}, "
            f"{images.shape}; name each"
        )
    lengths = dict(zip(layout, images.shape, strict=True))
    if lengths.get("C", 1) not in _CHANNELS:
        raise InputError(
            f"{name}: layout={layout} makes {lengths['C']} channels of {images.shape}; give 1 or 3"
        )

    def access() -> np.ndarray:
        array = images.access()
        array = array.transpose([layout.index(axis) for axis in AXES if axis in layout])
        return array.reshape([lengths.get(axis, 1) for axis in AXES])

    shape = tuple(lengths.get(axis, 1) for axis in AXES)
    return replace(images, shape=shape, access=access)


def _require_one_reading(shape: tuple[int, ...], name: str) -> None:
    """Refuse a shape that may mean two things, and say which.

    Three axes may be gray images, one picture with channels first or last, or images one behind the
    other; four may have the channels second or last.
    """
    first, last = shape[:1], shape[-1:]
    if len(shape) == 3 and last[0] in _CHANNELS and max(shape) > 3:
        other = "HWC"
    elif len(shape) == 3 and shape[1] in _CHANNELS and max(shape) > 3:
        other = "HCW"
    elif len(shape) == 3 and first == (3,) and max(shape) > 3:
        other = "CHW"
    elif len(shape) == 3 and shape[0] == shape[1] != shape[2]:
        other = "HWN"
    elif len(shape) == 4 and {shape[1], shape[3]} <= {*_CHANNELS} and shape[1:] != (1, 1, 1):
        raise InputError(
            f"{name}: an array of shape {shape} is either {_reading('NCHW', shape)}, or "
            f"{_reading('NHWC', shape)}; add layout=NCHW or layout=NHWC"
        )
    else:
        return
    raise InputError(
        f"{name}: an array of shape {shape} is either {_reading('NHW', shape)}, or "
        f"{_reading(other, shape)}; add layout=NHW or layout={other}"
    )


def _reading(layout: Iterable[str], shape: tuple[int, ...]) -> str:
    """What a shape means: *1 colour image of 16x16*."""
    lengths = dict(zip(layout, shape, strict=True))
    colour = "colour" if lengths.get("C") == 3 else "gray"
    number = f"{lengths['N']:,} {colour} images" if "N" in lengths else f"one {colour} picture"
    return f"{number} of {lengths['H']}x{lengths['W']}"
