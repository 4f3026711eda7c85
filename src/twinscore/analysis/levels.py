"""Errors of denoisers image by image, and their integrals over all noise levels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from twinscore.analysis.statistics import LEVEL
from twinscore.runs import derive_seed

BATCH = 128
TOLERANCE = 1e-3
"""Relative quadrature error that is small enough."""
COARSEST, FINEST = 8, 128
"""Intervals of the first and of the last rule."""
_SHARE = 0.1
"""Of the standard error: a smaller quadrature error is not worth more evaluations."""


class Images(Protocol):
    """Clean images by slice, (n, C, H, W): a tensor, an ImageSet, or :class:`LazyImages`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class LazyImages:
    """Images made only when they are needed.

    Attributes
    ----------
    draw : callable
        ``draw(indices) -> (n, C, H, W)`` for a range of indices; image i must depend on i alone.
    count : int
        Number of images.
    """

    draw: Callable[[range], Tensor]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice) -> Tensor:
        return self.draw(range(self.count)[rows])


Errors = Callable[[Tensor, Tensor, float], Tensor]
"""``errors(x, y, sigma)`` of clean and noisy images (B, C, H, W): (B,) or (B, Q) numbers."""


@torch.no_grad()
def image_errors(
    errors: Errors, images: Images, sigmas: Sequence[float] | NDArray, *, seed: int, batch: int
) -> NDArray[np.float64]:
    """Errors of every image at every noise level, with the same noise z at all levels.

    Parameters
    ----------
    errors : callable
        What is measured.
    images : Images
        N clean images; floats of any precision, on any device.
    sigmas : sequence of float
        Noise levels, image units, (K,).
    seed : int
        The noise of image i is a function of (seed, i) only, and so are results, in any batch, up
        to rounding.
    batch : int
        Images denoised at once; bounds memory.

    Returns
    -------
    array
        (K, N) or (K, N, Q).

    Raises
    ------
    ValueError
        For fewer than two images, or a level that is not positive and finite.
    """
    if len(images) < 2:
        raise ValueError(f"error bars need at least 2 images, got {len(images)}")
    if not all(0 < sigma < math.inf for sigma in sigmas):
        raise ValueError(f"noise levels must be positive and finite, got {list(sigmas)}")
    generator = torch.Generator()
    parts = []
    for start in range(0, len(images), batch):
        x = images[start : start + batch]
        z = torch.empty(x.shape, dtype=x.dtype)
        for i, image in enumerate(z, start):
            generator.manual_seed(derive_seed("optimality", seed, i))
            torch.randn(image.shape, generator=generator, out=image)
        z = z.to(x.device)
        parts.append(torch.stack([errors(x, x + s * z, float(s)).cpu().double() for s in sigmas]))
    return torch.cat(parts, 1).numpy()


@dataclass(frozen=True, eq=False)
class LevelIntegral:
    """``int E[gap(sigma)] sigma^-3 dsigma`` between two noise levels, and where it comes from.

    Attributes
    ----------
    value : float
        The integral, nats.
    low, high : float
        95 % interval over images (Student), widened on either side by the quadrature error.
    standard_error : float
        Of the value, over images: each image's integral is one sample, so that correlations
        between its noise levels are included.
    quadrature_error : float
        Change of the value when every second level is left out.
    sigmas : array
        (K,) levels at which gaps were measured, falling from sigma_max to sigma_min.
    gaps, gap_errors : array
        (K,): mean over images, summed over pixels, and its standard error.
    cumulative : array
        (K,): the integral from each level up to sigma_max, nats; it ends at ``value``.
    """

    value: float
    low: float
    high: float
    standard_error: float
    quadrature_error: float
    sigmas: NDArray[np.float64]
    gaps: NDArray[np.float64]
    gap_errors: NDArray[np.float64]
    cumulative: NDArray[np.float64]

    @property
    def sigma_min(self) -> float:
        """Lower end, image units."""
        return float(self.sigmas[-1])

    @property
    def sigma_max(self) -> float:
        """Upper end, image units."""
        return float(self.sigmas[0])


def integrate_levels(
    measure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    sigma_min: float,
    sigma_max: float,
    *,
    tolerance: float,
) -> LevelIntegral:
    """Integrate gaps in the logarithm of the noise level, ``gap / sigma^2 dlog sigma``.

    Nested Clenshaw-Curtis rules of 9, 17, 33, 65 and 129 levels; each uses all levels of the one
    before. With the same noise at all levels the mean over images is as smooth in sigma as the
    denoisers are, so that the rules converge to the integral *of these images*, and the difference
    of two of them is quadrature error alone.

    Parameters
    ----------
    measure : callable
        (K,) levels to the gaps of N images, (K, N).
    sigma_min, sigma_max : float
        Ends, image units.
    tolerance : float
        Levels are doubled until the quadrature error is below this share of the value, or below a
        tenth of the standard error, and at most up to 129.

    Raises
    ------
    ValueError
        For ends that are not ``0 < sigma_min < sigma_max``, or a negative tolerance.
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    if tolerance < 0:
        raise ValueError(f"the tolerance must be 0 or more, got {tolerance}")
    sigmas, rule = _rule(sigma_min, sigma_max, COARSEST)
    gaps = measure(sigmas)
    value, error = float(rule[-1] @ gaps.mean(1)), math.inf
    for doubling in range(1, (FINEST // COARSEST).bit_length()):
        sigmas, rule = _rule(sigma_min, sigma_max, COARSEST << doubling)
        coarse, gaps = gaps, np.empty((len(sigmas), gaps.shape[1]))
        gaps[::2], gaps[1::2] = coarse, measure(sigmas[1::2])
        samples = rule[-1] @ gaps
        before, value = value, float(samples.mean())
        error, standard_error = abs(value - before), float(standard_errors(samples))
        if error <= max(tolerance * value, _SHARE * standard_error):
            break
    half = interval_factor(len(samples)) * standard_error + error
    return LevelIntegral(
        value,
        value - half,
        value + half,
        standard_error,
        error,
        sigmas,
        gaps.mean(1),
        standard_errors(gaps),
        rule @ gaps.mean(1),
    )


def standard_errors(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard errors of the means of (..., N) samples."""
    return samples.std(-1, ddof=1) / math.sqrt(samples.shape[-1])


def interval_factor(count: int) -> float:
    """Half the 95 % interval of a mean of ``count`` samples, in standard errors (Student's law)."""
    return float(student.ppf((1 + LEVEL) / 2, count - 1))


def _rule(
    sigma_min: float, sigma_max: float, intervals: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Falling levels (K,) and, for each, weights (K, K) of the integral from there to sigma_max.

    Integrals of the polynomial through the values at Chebyshev's points (Clenshaw & Curtis 1960).
    """
    half = math.log(sigma_max / sigma_min) / 2
    points = np.cos(np.pi * np.arange(intervals + 1) / intervals)
    sigmas = math.sqrt(sigma_min * sigma_max) * np.exp(half * points)
    sigmas[0], sigmas[-1] = sigma_max, sigma_min
    coefficients = np.linalg.inv(chebyshev.chebvander(points, intervals))
    antiderivatives = chebyshev.chebint(coefficients, lbnd=1)
    rule = -half * chebyshev.chebvander(points, intervals + 1) @ antiderivatives
    return sigmas, rule / sigmas**2
