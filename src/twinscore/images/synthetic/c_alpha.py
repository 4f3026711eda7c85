"""C-alpha images: two smooth regions split by a smooth contour (Kadkhodaie et al. 2024, sec. 3.2).

White uniform noise on a periodic grid is filtered by ``|k|^-a`` (k in cycles per image; the mean is
kept as it is): once in 1-D for the contour, twice in 2-D for the backgrounds
(docs/formulas.md#c-alpha-images).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch

from twinscore.errors import InputError
from twinscore.images.synthetic import stream

Filter = Literal["published", "regularity"]

_PIXELS_AT_A_TIME = 2**18


@dataclass(frozen=True)
class CAlpha:
    """The law of C-alpha images.

    Attributes
    ----------
    size : int
        Side in pixels of the image and of the periodic fields, at least 2.
    alpha : float
        Of the contour, 0 or more.
    beta : float or None
        Of the backgrounds, 0 or more; alpha by default.
    filter : str
        ``published``: exponents ``a = alpha`` (1-D) and ``a = beta`` (2-D), which give regularity
        alpha - 1/2 and beta - 1. ``regularity``: ``a = alpha + 1/2`` and ``a = beta + 1``, which
        give regularity alpha and beta.
    blur : int
        The edge is averaged over squares of ``blur x blur`` pixels; 1 leaves it hard.
    antialias : bool
        Keep the contour's exact heights; otherwise they are rounded to whole pixels.
    constant : bool
        Flat backgrounds, each uniform in [0, 1].

    Raises
    ------
    InputError
        When a value is out of its range.
    """

    size: int = 80
    alpha: float = 2.0
    beta: float | None = None
    filter: Filter = "published"
    blur: int = 2
    antialias: bool = False
    constant: bool = False

    def __post_init__(self) -> None:
        if self.size < 2:
            raise InputError(f"size: {self.size} is out of range; give at least 2")
        for name, value in (("alpha", self.alpha), ("beta", self.alpha_and_beta[1])):
            if not 0 <= value < math.inf:
                raise InputError(f"{name}: {value} is out of range; give a number of 0 or more")
        if self.filter not in get_args(Filter):
            raise InputError(
                f"filter: {self.filter!r} is unknown; give {' or '.join(get_args(Filter))}"
            )
        if not 1 <= self.blur <= self.size:
            raise InputError(f"blur: {self.blur} is out of range; give 1 to size={self.size}")

    @property
    def alpha_and_beta(self) -> tuple[float, float]:
        """Alpha, and beta with its default filled in."""
        return self.alpha, self.alpha if self.beta is None else self.beta

    @property
    def exponents(self) -> tuple[float, float]:
        """The exponents a of the 1-D and the 2-D filter."""
        alpha, beta = self.alpha_and_beta
        return (alpha, beta) if self.filter == "published" else (alpha + 0.5, beta + 1)


def c_alpha(
    indices: stream.Indices, law: CAlpha, *, seed: int = 0, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Make C-alpha images, ``(n, 1, size, size)`` float32 in [0, 1].

    One background lies above the contour, the other below. One of the two, chosen at random, is
    rescaled to the range [u, 1], the other to [0, v], u and v uniform in [0, 1].

    The seed and its index determine an image: on a CPU the same bits in any batches and on any
    number of threads. Everything but drawing the numbers is done on ``device``. InputError when the
    seed or an index is negative.

    Notes
    -----
    Time: two complex FFTs of ``size x size`` per image, which carry both backgrounds, and ``2
    size^2 + size`` random numbers. Memory beyond the result: some 10 MB, or twenty times one image.

    The published generator has the same law, except for contours that leave the image at the top,
    where it counts rows from the bottom instead.

    Examples
    --------
    >>> from twinscore.images import synthetic
    >>> synthetic.c_alpha(range(4), synthetic.CAlpha(size=16, alpha=2.0)).shape
    torch.Size([4, 1, 16, 16])
    """
    images = torch.empty(len(indices), 1, law.size, law.size, device=device)
    step = max(1, _PIXELS_AT_A_TIME // law.size**2)
    for start in range(0, len(indices), step):
        chunk = slice(start, start + step)
        numbers = stream.uniform(indices[chunk], _numbers(law.size), seed).to(device)
        images[chunk, 0] = _compose(numbers, law)
    return images


def contours(numbers: torch.Tensor, a: float) -> torch.Tensor:
    """Filter 1-D white noise, ``(n, N)``, by ``|k|^-a``: contour heights, in sides of the image."""
    gain = _gain(numbers.shape[-1], 1, a).to(numbers.device)
    several = numbers.expand(2, -1) if len(numbers) == 1 else numbers
    # The FFT of a single row is rounded differently from those of several, and that of real numbers
    # differently on one thread than on two.
    spectra = torch.fft.fft(torch.complex(several, torch.zeros_like(several)))
    return torch.fft.ifft(spectra * gain).real[: len(numbers)]


def backgrounds(numbers: torch.Tensor, a: float) -> torch.Tensor:
    """Filter pairs of 2-D white noise fields by ``|k|^-a``, as real and imaginary part of one.

    ``(n, N, N, 2)``; the fields are periodic, and not yet rescaled.
    """
    gain = _gain(numbers.shape[1], 2, a).to(numbers.device)
    spectrum = torch.fft.fft2(torch.view_as_complex(numbers))
    torch.view_as_real(spectrum).mul_(gain)
    return torch.view_as_real(torch.fft.ifft2(spectrum))


def masks(heights: torch.Tensor, blur: int) -> torch.Tensor:
    """Fill the region below each contour, and average it over ``blur x blur`` pixels.

    Heights, ``(n, N)``, are the first row of the region in each column, in pixels, not necessarily
    whole. Gives ``(n, N, N)`` in [0, 1], 1 inside the region. The square's centre is half a pixel
    up and to the left for an even side; columns are reflected at the image's border.
    """
    size = heights.shape[-1]
    columns = torch.arange(-(blur // 2), size + (blur - 1) // 2, device=heights.device).abs()
    columns = torch.where(columns < size, columns, 2 * size - 2 - columns)
    rows = torch.arange(size, device=heights.device, dtype=heights.dtype) + (blur - blur // 2)
    covered = rows[:, None] / blur**2 - heights[:, None, columns] / blur**2
    covered.clamp_(0, 1 / blur)
    mask = covered[..., :size]
    for k in range(1, blur):
        mask = mask + covered[..., k : k + size]
    return mask


def _numbers(size: int) -> int:
    return 2 * size * size + size + 3


def _compose(numbers: torch.Tensor, law: CAlpha) -> torch.Tensor:
    n, size = len(numbers), law.size
    noise, contour, ranges = numbers.split([2 * size * size, size, 3], dim=1)
    a_contour, a_background = law.exponents
    heights = contours(contour, a_contour) * size
    if not law.antialias:
        heights = heights.round()
    mask = masks(heights + size // 2, law.blur)
    if law.constant:
        below, above = (ranges[:, :2, None, None].abs()).unbind(1)
        return torch.lerp(above, below, mask)
    fields = backgrounds(noise.contiguous().view(n, size, size, 2), a_background)
    fields = _rescaled(fields.view(n, size, 2 * size), *_random_ranges(ranges))
    below, above = fields.view(n, size, size, 2).unbind(-1)
    return torch.lerp(above, below, mask).clamp_(0, 1)


def _random_ranges(ranges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least and largest value of both backgrounds, ``(n, 2)`` each."""
    coin, u, v = ranges[:, 0] < 0, ranges[:, 1].abs(), ranges[:, 2].abs()
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    least = torch.where(coin[:, None], torch.stack([u, zero], 1), torch.stack([zero, u], 1))
    most = torch.where(coin[:, None], torch.stack([one, v], 1), torch.stack([v, one], 1))
    return least, most


def _rescaled(pairs: torch.Tensor, least: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """Map each of two interleaved fields, ``(n, N, 2 N)``, to its own range.

    Reductions and products run along rows of 2 N numbers: along pairs they are many times slower.
    """
    n, size, _ = pairs.shape
    low = pairs.amin(1).view(n, size, 2).amin(1)
    high = pairs.amax(1).view(n, size, 2).amax(1)
    scale = (most - least) / (high - low)
    offset = least - low * scale
    scale, offset = (values.repeat(1, size)[:, None] for values in (scale, offset))
    return torch.addcmul(offset, pairs, scale)


@lru_cache(maxsize=16)
def _gain(size: int, dimensions: int, a: float) -> torch.Tensor:
    """``|k|^-a``, and 1 at k = 0: ``(N,)``, or ``(N, N, 2)`` with each value twice."""
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64).abs()
    if dimensions == 2:
        k = torch.hypot(k[:, None], k).unsqueeze(-1).expand(-1, -1, 2)
    return torch.where(k == 0, 1.0, k).pow(-a).float().contiguous()
