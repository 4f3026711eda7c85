"""Has a network learned anything? Its error and its samples beside images it has not seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from twinscore.analysis.similarity import unit
from twinscore.analysis.statistics import (
    LEVEL,
    RESAMPLES,
    Estimate,
    interval,
    resampled,
    seed_counts,
)

ROUNDING = (1 / 255) ** 2 / 12
"""Power per pixel of the rounding of images to 8 bits, below which power does not count."""

_MOST_FACTOR = 1000.0

MOST = 1000
"""Images of either set that the energy distance takes, at most."""


def gain(
    network: NDArray,
    baseline: NDArray,
    sigmas: Sequence[float],
    between: tuple[float, float],
    *,
    seed: int,
) -> Estimate:
    """How much better than a baseline a network denoises, in dB, on average over some levels.

    Parameters
    ----------
    network, baseline : array
        (R, K, T): PSNR of T held-out images at K levels, of R replicates, with the same noise.
    sigmas : sequence of float
        (K,).
    between : tuple of float
        The levels that count, ends included.
    seed : int
        Of the bootstrap over images of a single replicate.

    Raises
    ------
    ValueError
        If no level counts.
    """
    levels = np.asarray(sigmas)
    counts = (levels >= between[0] - 1e-9) & (levels <= between[1] + 1e-9)
    if not counts.any():
        raise ValueError(f"no noise level lies between {between[0]:g} and {between[1]:g}")
    gains = (np.asarray(network, np.float64) - baseline)[:, counts].mean(1)
    values = gains.mean(1)
    return Estimate(values, (resampled(gains, np.mean, seed=seed),) if len(values) == 1 else ())


def worse_than_input(psnr: NDArray, sigmas: Sequence[float]) -> list[float]:
    """Noise levels at which the output, PSNR (..., K, T), is worse than the noisy input."""
    given = -20 * np.log10(np.asarray(sigmas))
    output = np.moveaxis(psnr, -2, 0).reshape(len(given), -1).mean(1)
    return [sigma for sigma, a, b in zip(sigmas, output, given, strict=True) if a < b]


@dataclass(frozen=True)
class Trait:
    """One property of samples, relative to the same of held-out images: 1 where they are alike.

    Attributes
    ----------
    value, low, high : float
        The ratio and its interval over samples and images, which holds for all traits at once
        with 95 %.
    """

    value: float
    low: float
    high: float


def traits(samples: Tensor, held_out: Tensor, *, seed: int) -> dict[str, Trait]:
    """Diversity, contrast and radial power of samples over those of held-out images.

    *diversity*: 1 less the mean cosine similarity of different images. *contrast*: the standard
    deviation of an image's pixels. *power 2-4*, *power 4-8*, ...: the power of an image at
    wavelengths of 2 to 4 pixels (4 itself left out), 4 to 8, ..., plus ``ROUNDING``; the corners of
    the spectrum, with wavelengths below 2, are left out. Each on average over images.

    Intervals are Student's t of the log ratio, at 95 % over the number of traits (Bonferroni). Its
    deviation is that of the bootstrap; t has one degree of freedom less than the smaller set has
    images. (Of 4 or 8 photographs percentiles of the bootstrap are too narrow: every fourth set of
    the same law seemed to have another contrast or power.)

    Parameters
    ----------
    samples, held_out : Tensor
        (S, C, H, W) and (T, C, H, W), two or more each, finite.
    seed : int
        Of the bootstrap.
    """
    if min(len(samples), len(held_out)) < 2:
        raise ValueError(f"need 2 images or more; got {len(samples)} and {len(held_out)}")
    names = ["diversity", "contrast", *(f"power {low}-{2 * low}" for low in _octaves(samples))]
    of = [_traits(x, [seed, i]) for i, x in enumerate((samples, held_out))]
    values, draws = zip(*of, strict=True)
    floor = np.finfo(np.float64).tiny
    value = values[0] / np.maximum(values[1], floor)
    spread = np.subtract(*(np.log(np.maximum(part, floor)) for part in draws)).std(0)
    least = min(len(samples), len(held_out))
    t = stdtrit(least - 1, 1 - (1 - LEVEL) / 2 / len(names))
    reach = t * spread * (least / (least - 1)) ** 0.5
    factor = np.exp(np.minimum(reach, np.log(_MOST_FACTOR)))
    ends = zip(value.tolist(), (value / factor).tolist(), (value * factor).tolist(), strict=True)
    return {name: Trait(*of) for name, of in zip(names, ends, strict=True)}


def _traits(images: Tensor, seed: list[int]) -> tuple[NDArray, NDArray]:
    """All of them, (F,), and their bootstrap draws, (B, F)."""
    u = unit(images.double()).cpu().numpy()
    each = np.column_stack(
        [images.double().flatten(1).std(1, correction=0).cpu().numpy(), _power(images)]
    )
    value = np.append(_diversity(np.ones((1, len(u))), u), each.mean(0))
    draws = [
        np.column_stack([_diversity(counts, u), counts @ each / len(u)])
        for counts in seed_counts(len(u), seed, RESAMPLES)
    ]
    return value, np.concatenate(draws)


def _diversity(counts: NDArray, u: NDArray) -> NDArray[np.float64]:
    squares = np.square(counts)
    alike = np.square(counts @ u).sum(1) - squares @ np.square(u).sum(1)
    pairs = counts.sum(1) ** 2 - squares.sum(1)
    mean = np.divide(alike, pairs, out=np.ones_like(alike), where=pairs > 0)
    return np.maximum(1 - mean, 0)


def _octaves(images: Tensor) -> list[int]:
    """Shortest wavelength of each octave that images have, pixels."""
    return [2**k for k in range(1, max(2, max(images.shape[-2:]).bit_length()))]


def _power(images: Tensor) -> NDArray[np.float64]:
    """Power of each image in every octave, (N, octaves), per pixel."""
    down, right = (torch.fft.fftfreq(n, dtype=torch.float64) for n in images.shape[-2:])
    frequency = (down[:, None].square() + right.square()).sqrt().flatten()
    power = torch.fft.fft2(images.double().cpu(), norm="ortho").abs().square().sum(1).flatten(1)
    bands = [
        power[:, (frequency > 0.5 / shortest) & (frequency <= 1 / shortest)].sum(1)
        for shortest in _octaves(images)
    ]
    return torch.stack(bands, 1).numpy() / images[0].numel() + ROUNDING


@dataclass(frozen=True)
class Energy:
    """Energy distance of samples from held-out images, over the mean distance between the latter.

    Attributes
    ----------
    value, low, high : float
        Unbiased, so that it is 0 on average for samples of the same law; 95 % bootstrap interval.
    band : float
        What 97.5 % of random divisions of all images into two such sets stay below: those of both
        twins together do with 95 %.
    """

    value: float
    low: float
    high: float
    band: float


def energy(samples: Tensor, held_out: Tensor, *, seed: int, divisions: int = 999) -> Energy:
    """Energy distance ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` (Székely & Rizzo 2013), unbiased.

    Of the first ``MOST`` images of sets (S, C, H, W) and (T, C, H, W), two or more each: ValueError
    for fewer. Distances are Euclidean. Cost: ``divisions`` and ``RESAMPLES`` times (S + T)^2.
    """
    x, y = (part[:MOST].flatten(1).double().cpu() for part in (samples, held_out))
    if min(len(x), len(y)) < 2:
        raise ValueError(f"need 2 images or more; got {len(x)} and {len(y)}")
    both = torch.cat([x, y])
    distances = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    s = len(x)
    first = (np.arange(len(both)) < s).astype(np.float64)[None]
    scale = max(_within(1 - first, (1 - first) @ distances)[0], np.finfo(np.float64).tiny)
    value = _energy(first, 1 - first, distances)[0] / scale
    divided = [_energy(z, 1 - z, distances) for z in _divisions(len(both), s, divisions, seed)]
    draws = [
        _energy(np.pad(a, ((0, 0), (0, len(y)))), np.pad(b, ((0, 0), (s, 0))), distances)
        for a, b in zip(
            seed_counts(s, [seed, 1], RESAMPLES // 4),
            seed_counts(len(y), [seed, 2], RESAMPLES // 4),
            strict=True,
        )
    ]
    low, high = interval(np.concatenate(draws) / scale)
    band = float(np.quantile(np.concatenate(divided), (1 + LEVEL) / 2) / scale)
    return Energy(float(value), low, high, band)


def energy_p(a: Tensor, b: Tensor, *, seed: int, divisions: int = 1999) -> float:
    """P of the energy distance of two sets by random divisions; sets and cost as :func:`energy`.

    Exact: where both are draws of one law, p is at most x with a probability of at most x.
    """
    x, y = (part[:MOST].flatten(1).double().cpu() for part in (a, b))
    both = torch.cat([x, y])
    distances = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    first = (np.arange(len(both)) < len(x)).astype(np.float64)[None]
    value = _energy(first, 1 - first, distances)[0]
    divided = [_energy(z, 1 - z, distances) for z in _divisions(len(both), len(x), divisions, seed)]
    larger = int((np.concatenate(divided) >= value - 1e-12).sum())
    return (larger + 1) / (divisions + 1)


def _divisions(images: int, first: int, count: int, seed: int) -> Iterator[NDArray[np.float64]]:
    generator = np.random.default_rng([seed, 0])
    rows = max(1, 2**24 // images)
    for start in range(0, count, rows):
        shape = min(rows, count - start), images
        yield generator.permuted(
            np.broadcast_to((np.arange(images) < first).astype(np.float64), shape), axis=1
        )


def _energy(a: NDArray, b: NDArray, distances: NDArray) -> NDArray[np.float64]:
    """Of sets that count image i ``a[:, i]`` and ``b[:, i]`` times, (B,); they share none."""
    of_a, of_b = a @ distances, b @ distances
    between = (of_a * b).sum(1) / (a.sum(1) * b.sum(1))
    return 2 * between - _within(a, of_a) - _within(b, of_b)


def _within(counts: NDArray, distances: NDArray) -> NDArray[np.float64]:
    """Mean distance between different images, from the sum of those from each image."""
    total = (distances * counts).sum(1)
    pairs = counts.sum(1) ** 2 - np.square(counts).sum(1)
    return np.divide(total, pairs, out=np.zeros_like(total), where=pairs > 0)
