"""The slope of output PSNR against input PSNR: the rate at which a denoiser's error falls.

If the mean squared error behaves like ``sigma^(2 r)``, the PSNR of the *mean MSE* rises by r dB for
each dB of input PSNR, ``-20 log10(sigma)``; the best rate for C-alpha images is
``alpha/(alpha + 1)`` (docs/formulas.md#shrinkage and #c-alpha-images). On a pixel grid every slope
tends to 1 at low noise: the range of the fit must be stated beforehand, and local slopes shown
next to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinscore.analysis.statistics import LEVEL, RESAMPLES, over_replicates

LEAST_LEVELS = 3
"""Noise levels that a fit needs: two give a line for any curve."""


@dataclass(frozen=True)
class Slope:
    """A fitted slope with its interval, dB per dB.

    Attributes
    ----------
    value, low, high : float
        Least-squares slope, mean over replicates, and the ends of its interval.
    fit_range : tuple of float
        Least and largest input PSNR of the fit, dB.
    levels : int
        Noise levels inside that range.
    """

    value: float
    low: float
    high: float
    fit_range: tuple[float, float]
    levels: int


def fitted_slope(
    sigmas: Sequence[float],
    mse: ArrayLike,
    fit_range: tuple[float, float],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Slope:
    """Fit the slope of the PSNR of the mean MSE, with an interval.

    Parameters
    ----------
    sigmas : sequence of float
        Noise levels, image units, (K,), in any order.
    mse : array
        (K, N): squared error of each of N images at each level, per pixel; or (R, K, N) of R
        replicates.
    fit_range : tuple of float
        Least and largest input PSNR of the fit in dB, both included.
    seed : int
        Of the bootstrap.
    resamples : int
        Its number of draws.
    level : float
        Confidence level of the interval.

    Returns
    -------
    Slope
        With Student's t interval over replicates; of one replicate, with the bootstrap interval
        over images, which are drawn with all their levels.

    Raises
    ------
    ValueError
        If the range holds fewer than 3 noise levels or is empty, there are fewer than 2 images, or
        an error is negative, zero on average, or not finite.
    """
    errors = _replicates(mse).transpose(0, 2, 1)
    inside = _within(sigmas, errors, fit_range)
    inputs = _input_psnr(sigmas)[inside]

    def statistic(drawn: NDArray, axis: int) -> NDArray[np.float64]:
        return _least_squares(inputs, _psnr(drawn.mean(axis)))

    values = errors[:, :, inside]
    value = over_replicates(values, statistic, seed=seed, resamples=resamples, level=level)
    return Slope(*value, fit_range, int(inside.sum()))


def slope_difference(
    sigmas: Sequence[float],
    first: ArrayLike,
    second: ArrayLike,
    fit_range: tuple[float, float],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Slope:
    """Slope of the second errors less that of the first, paired; else as :func:`fitted_slope`.

    Errors are (K, N) or (R, K, N), of one shape (else ValueError): those of one replicate and image
    belong together. The interval is that of the replicates' differences, or with one replicate the
    bootstrap over pairs of images.
    """
    both = [_replicates(mse).transpose(0, 2, 1) for mse in (first, second)]
    if both[0].shape != both[1].shape:
        raise ValueError(f"pair errors of one shape, got {np.shape(first)} and {np.shape(second)}")
    inside = np.logical_and(*(_within(sigmas, errors, fit_range) for errors in both))
    inputs = _input_psnr(sigmas)[inside]

    def statistic(drawn: NDArray, axis: int) -> NDArray[np.float64]:
        slopes = _least_squares(inputs, _psnr(drawn.mean(axis)))
        return slopes[..., 1] - slopes[..., 0]

    values = np.stack(both, axis=2)[..., inside]
    value = over_replicates(values, statistic, seed=seed, resamples=resamples, level=level)
    return Slope(*value, fit_range, int(inside.sum()))


def fitted_local_slopes(
    sigmas: Sequence[float],
    mse: ArrayLike,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[Slope]:
    """Slopes between neighbouring noise levels, K - 1 of them, by ascending input PSNR.

    Parameters as for :func:`fitted_slope`, and its interval, of each slope by itself; ``fit_range``
    are the two levels. ValueError if there are fewer than two levels, two are equal, there are
    fewer than 2 images, or an error is negative, zero on average, or not finite.
    """
    errors = _replicates(mse).transpose(0, 2, 1)
    for replicate in errors.mean(1):
        _check(sigmas, replicate)
    _require_different(sigmas)
    inputs = _input_psnr(sigmas)

    def between(pair: list[int]) -> Slope:
        def statistic(drawn: NDArray, axis: int) -> NDArray[np.float64]:
            return _least_squares(inputs[pair], _psnr(drawn.mean(axis)))

        value = over_replicates(
            errors[:, :, pair], statistic, seed=seed, resamples=resamples, level=level
        )
        low, high = inputs[pair].tolist()
        return Slope(*value, (low, high), 2)

    return [between(list(pair)) for pair in pairwise(inputs.argsort().tolist())]


def slope(sigmas: Sequence[float], mse: ArrayLike, fit_range: tuple[float, float]) -> float:
    """Slope of an exact curve, dB per dB, by least squares: one error for each noise level, (K,).

    Units, range and errors raised as for :func:`fitted_slope`.

    Examples
    --------
    >>> import numpy as np
    >>> from twinscore.analysis.slopes import slope
    >>> sigmas = 10 ** -np.linspace(0.5, 1.5, 5)
    >>> round(slope(sigmas, sigmas ** (2 * 2 / 3), (10, 30)), 3)  # alpha / (alpha + 1) of alpha = 2
    0.667
    """
    errors = np.asarray(mse, dtype=np.float64)
    _check(sigmas, errors)
    inside = levels_inside(sigmas, fit_range)
    return float(_least_squares(_input_psnr(sigmas)[inside], _psnr(errors[inside])))


def local_slopes(
    sigmas: Sequence[float], mse: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slopes between neighbouring noise levels (image units, any order), of errors (K,) per pixel.

    ValueError if there are fewer than two levels, two are equal, or an error is not positive.

    Returns
    -------
    input_psnr : array
        (K - 1,) midpoints in dB, ascending.
    slopes : array
        (K - 1,), dB per dB.
    """
    errors = np.asarray(mse, dtype=np.float64)
    _check(sigmas, errors)
    _require_different(sigmas)
    inputs = _input_psnr(sigmas)
    order = inputs.argsort()
    inputs, outputs = inputs[order], _psnr(errors[order])
    return (inputs[1:] + inputs[:-1]) / 2, np.diff(outputs) / np.diff(inputs)


def levels_inside(sigmas: Sequence[float], fit_range: tuple[float, float]) -> NDArray[np.bool_]:
    """Which noise levels a fit range holds, (K,).

    Raises
    ------
    ValueError
        If the range is empty or holds fewer than 3 different levels; says how many are missing.
    """
    low, high = fit_range
    if not low < high:
        raise ValueError(f"the fit range must ascend, got {low:g} to {high:g} dB")
    inputs = _input_psnr(sigmas).round(9)
    inside = (inputs >= low) & (inputs <= high)
    found = len(np.unique(inputs[inside]))
    if found < LEAST_LEVELS:
        held = f"{found} noise level{'s' * (found != 1)}"
        raise ValueError(
            f"the fit range {low:g} to {high:g} dB holds {held} and needs "
            f"{LEAST_LEVELS}; add {LEAST_LEVELS - found} or widen the range"
        )
    return inside


def _replicates(mse: ArrayLike) -> NDArray[np.float64]:
    """Errors as (R, K, N), of at least two images."""
    errors = np.asarray(mse, dtype=np.float64)
    if errors.ndim not in (2, 3) or errors.shape[-1] < 2:
        raise ValueError(
            f"an interval needs errors of at least 2 images, (K, N), got shape {errors.shape}"
        )
    return errors if errors.ndim == 3 else errors[None]


def _within(
    sigmas: Sequence[float], errors: NDArray, fit_range: tuple[float, float]
) -> NDArray[np.bool_]:
    """Levels inside, of errors (R, N, K) that have a slope in every replicate."""
    for mse in errors.mean(1):
        _check(sigmas, mse)
    return levels_inside(sigmas, fit_range)


def _check(sigmas: Sequence[float], mse: NDArray) -> None:
    levels = np.asarray(sigmas, dtype=np.float64)
    if mse.shape != levels.shape or levels.ndim != 1:
        raise ValueError(
            f"give an error for each noise level, got {mse.shape} for {levels.shape} levels"
        )
    if not (np.isfinite(levels).all() and (levels > 0).all()):
        raise ValueError("noise levels must be positive and finite")
    if not (np.isfinite(mse).all() and (mse > 0).all()):
        raise ValueError("mean squared errors must be positive and finite")


def _require_different(sigmas: Sequence[float]) -> None:
    if len(set(sigmas)) < max(2, len(sigmas)):
        raise ValueError(f"local slopes need at least 2 noise levels, all different, got {sigmas}")


def _input_psnr(sigmas: Sequence[float]) -> NDArray[np.float64]:
    return -20 * np.log10(np.asarray(sigmas, dtype=np.float64))


def _psnr(mse: NDArray) -> NDArray[np.float64]:
    return -10 * np.log10(mse)


def _least_squares(inputs: NDArray, outputs: NDArray) -> NDArray[np.float64]:
    """Slopes of (..., K) outputs over (K,) inputs."""
    centred = inputs - inputs.mean()
    return outputs @ centred / (centred @ centred)
