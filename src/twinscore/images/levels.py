"""From stored numbers to intensities: the bits in use, the window, and which end is white."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from twinscore.errors import InputError
from twinscore.images.imageset import PEAKS, LazyPixels, Pixels, chunks
from twinscore.images.transforms import Options

ROUNDING = 1e-5
"""By how much an intensity may be outside [0, 1], as sums and resized images in float32 are."""


@dataclass(frozen=True)
class Levels:
    """What a file says of its numbers.

    Attributes
    ----------
    depth : int or None
        Bits in use of integers without a sign, if these are fewer than are stored.
    window : tuple of float, or None
        The values that become 0 and 1.
    inverted : bool
        Whether the lowest value is white.
    """

    depth: int | None = None
    window: tuple[float, float] | None = None
    inverted: bool = False


class Levelled(NamedTuple):
    """Images that can be packed.

    Attributes
    ----------
    pixels : Pixels
        uint8, uint16 or float32.
    peak : float
        The value that means intensity 1.
    beyond : int
        How many floats were outside [0, 1], and are clipped.
    """

    pixels: Pixels
    peak: float
    beyond: int = 0


def levelled(
    pixels: Pixels,
    options: Options,
    name: str,
    own: Levels | None = None,
    *,
    slack: float = ROUNDING,
) -> Levelled:
    """Make intensities of ``(N, C, H, W)`` numbers in any byte order.

    What must be converted is converted when it is indexed. ``options.window``, or else
    ``options.depth``, comes before what the file says of itself.

    Parameters
    ----------
    pixels : Pixels
        Integers or floats.
    options : Options
        Its ``window`` and ``depth``.
    name : str
        What error messages call the images.
    own : Levels, optional
        What the file says.
    slack : float
        By how much floats without a window may be outside [0, 1].

    Raises
    ------
    InputError
        When a value is beyond the depth; when there is no window, and the numbers are neither
        uint8, uint16 nor floats in [0, 1]; when one is NaN.
    """
    own = own or Levels()
    window = options.window or (None if options.depth else own.window)
    if window is not None:
        made = Levelled(_windowed(pixels, window, name), 1.0)
    elif pixels.dtype.kind == "f" and options.depth is None:
        made = _floats(pixels, name, slack)
    else:
        made = _integers(pixels, options.depth or own.depth, name)
    if not own.inverted:
        return made
    top, upright = made.pixels.dtype.type(made.peak), made.pixels
    turned = LazyPixels(upright.shape, upright.dtype, lambda rows: top - upright[rows])
    return Levelled(turned, made.peak, made.beyond)


def _windowed(pixels: Pixels, window: tuple[float, float], name: str) -> Pixels:
    low, high = window
    if pixels.dtype.kind not in "iuf":
        raise InputError(f"{name}: {pixels.dtype.name} pixels; window=LOW:HIGH takes numbers")
    if pixels.dtype.kind == "f" and any(np.isnan(pixels[chunk]).any() for chunk in chunks(pixels)):
        raise InputError(f"{name}: holds NaN, which is in no window; give numbers")

    def made(rows: np.ndarray) -> np.ndarray:
        values = (pixels[rows].astype(np.float64) - low) / (high - low)
        return values.clip(0, 1).astype(np.float32)

    return LazyPixels(pixels.shape, np.dtype(np.float32), made)


def _integers(pixels: Pixels, depth: int | None, name: str) -> Levelled:
    target = pixels.dtype.newbyteorder("=")
    if target not in (np.uint8, np.uint16):
        low, high = extremes(pixels)
        raise InputError(
            f"{name}: {target.name} pixels from {low:,} to {high:,}; add window=LOW:HIGH, the "
            "values that become 0 and 1, or give uint8, uint16 or floats in [0, 1]"
        )
    peak = PEAKS[target.name]
    if depth is not None:
        if 2.0**depth - 1 > peak:
            raise InputError(
                f"{name}: is of {8 * target.itemsize} bits, not {depth}; give no depth"
            )
        peak = 2.0**depth - 1
        if (high := extremes(pixels)[1]) > peak:
            raise InputError(
                f"{name}: its largest value {high:,} is beyond {depth} bits ({peak:,.0f}); "
                f"add depth={int(high).bit_length()} or window=LOW:HIGH"
            )
    same = pixels.dtype == target
    made = LazyPixels(pixels.shape, target, lambda rows: pixels[rows].astype(target))
    return Levelled(pixels if same else made, peak)


def _floats(pixels: Pixels, name: str, slack: float) -> Levelled:
    beyond = sum(_beyond(pixels[chunk], name, slack) for chunk in chunks(pixels))
    if not beyond and pixels.dtype == np.dtype(np.float32):
        return Levelled(pixels, 1.0)
    clipped = lambda rows: pixels[rows].astype(np.float32).clip(0, 1)  # noqa: E731
    return Levelled(LazyPixels(pixels.shape, np.dtype(np.float32), clipped), 1.0, beyond)


def _beyond(values: np.ndarray, name: str, slack: float) -> int:
    """How many floats are outside [0, 1].

    Raises
    ------
    InputError
        When one is so by more than ``slack``, NaN or infinite.
    """
    low, high = values.min(), values.max()  # NaN if any is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{name}: holds NaN or infinity; give floats in [0, 1]")
    if low < -slack or high > 1 + slack:
        raise InputError(
            f"{name}: floats from {low:.7g} to {high:.7g} are outside [0, 1]; add window=LOW:HIGH, "
            "the values that become 0 and 1, or rescale them"
        )
    return int(((values < 0) | (values > 1)).sum()) if low < 0 or high > 1 else 0


def extremes(pixels: Pixels) -> tuple[float, float]:
    """The smallest and the largest value of all images."""
    ends = [(pixels[chunk].min(), pixels[chunk].max()) for chunk in chunks(pixels)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def dark_notes(pixels: Pixels, peak: float, name: str) -> list[str]:
    """A line for images of 16 bits that use less than a quarter of the range; none for others."""
    if pixels.dtype != np.uint16:
        return []
    low, high = extremes(pixels)
    if high - low >= peak / 4:
        return []
    bits = max(1, int(high)).bit_length()
    advice = f"add depth={bits} if they are of {bits} bits, or" if high < peak / 4 else "add"
    return [
        f"{name}: values from {low:,} to {high:,} use less than a quarter of the range, 0 to "
        f"{peak:,.0f}, so that images have little contrast; {advice} window=LOW:HIGH"
    ]
