"""From the measures of twins at one N to its numbers, and from all N to the critical one."""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from twinscore.analysis import memorization, similarity, statistics
from twinscore.experiments.results import (
    Level,
    Median,
    PerTwin,
    Psnr,
    Quantiles,
    Similarity,
    Unfinished,
    Value,
)
from twinscore.experiments.trials import Measures
from twinscore.images import ImageSet, Twins
from twinscore.runs import derive_seed
from twinscore.training.history import SIGMAS

COPIES = 0.05
"""Largest memorised fraction (lower bound) with which a level may be said to generalise."""


def median_of(values: NDArray, seed: int) -> Median:
    """Median of (R, S) values with its interval."""
    low, high = statistics.interval(statistics.resampled(values, np.median, seed=seed))
    return Median(median=float(np.median(values)), low=low, high=high)


def mean_of(values: NDArray, seed: int) -> Value:
    """Mean of (R, S) values with its interval."""
    values = values.astype(np.float64)
    low, high = statistics.interval(statistics.resampled(values, np.mean, seed=seed))
    return Value(value=float(values.mean()), low=low, high=high)


def psnr_of(pairs: list[tuple[Measures, Measures]], seed: int) -> Psnr:
    """Train and test curves, averaged over the twins, with bands over images."""
    curves: dict[str, list[float]] = {"sigma": list(SIGMAS)}
    for part in ("train", "test"):
        table = np.stack(
            [(getattr(a, f"psnr_{part}") + getattr(b, f"psnr_{part}")) / 2 for a, b in pairs]
        )
        values = [mean_of(table[:, k], derive_seed(seed, part, k)) for k in range(len(SIGMAS))]
        curves |= {
            part: [v.value for v in values],
            f"{part}_low": [v.low for v in values],
            f"{part}_high": [v.high for v in values],
        }
    return Psnr(**curves)


def fraction_of(samples: list[NDArray], training: list[torch.Tensor], seed: int) -> Value | None:
    """Memorised fraction over replicates; ``None`` for a single training image."""
    if len(training[0]) < 2:
        return None
    rows = [
        memorization.copied(torch.from_numpy(s), t).numpy()
        for s, t in zip(samples, training, strict=True)
    ]
    return mean_of(np.stack(rows), seed)


def diversity_of(samples: list[NDArray], seed: int) -> Value | None:
    """Mean pairwise similarity of a twin's samples; ``None`` for a single sample."""
    if len(samples[0]) < 2:
        return None
    rows = [similarity.diversity(torch.from_numpy(s)).numpy() for s in samples]
    return mean_of(np.stack(rows), seed)


def verdict_of(
    twin: Median, nearest: Similarity, fraction: PerTwin, held_out: Quantiles
) -> memorization.Verdict:
    """Apply the rule of docs/transition.md.

    *memorises*: for both twins, the interval of the similarity to the nearest training image lies
    above that of the similarity between the twins, and its median above 95 % of real held-out
    images. *generalises*: it lies below, its median is not below 95 % of them (or agreement means
    little), and the memorised fraction is not above ``COPIES``. *transition*: anything else.
    """
    sides = (nearest.a, nearest.b)
    if all(s.low > twin.high and s.median > held_out.high for s in sides):
        return "memorises"
    copies = [f.low for f in (fraction.a, fraction.b) if f]
    if (
        all(s.high < twin.low and s.median >= held_out.low for s in sides)
        and copies
        and max(copies) <= COPIES
    ):
        return "generalises"
    return "transition"


def critical_n(
    levels: dict[int, NDArray], seed: int, implausible: Collection[int] = ()
) -> tuple[Value | None, str]:
    """Where the twins become more alike than samples and training images, and a phrase for it.

    The gap at each N is the median twin similarity less the larger of the two median
    nearest-training similarities; the critical N is where it turns positive, linear in log N.

    Parameters
    ----------
    levels : dict
        For each N an array (R, S, 3): similarity between the twins, and of each twin's sample to
        its nearest training image, for every sample.
    seed : int
        Seed of the bootstrap.
    implausible : collection of int
        Sizes at which samples do not look like the data, so that agreement means little: there
        the gap counts as not positive.

    Returns
    -------
    value : Value or None
        With a bootstrap interval, cut at the sizes tried; None where the crossing is not inside.
    phrase : str
        The same in words.
    """
    sizes = sorted(levels)
    point = np.array([[_gap(levels[n].reshape(1, -1, 3), axis=1)[0] for n in sizes]])
    draws = [
        statistics.resampled(levels[n], _gap, seed=derive_seed(seed, "critical", n)) for n in sizes
    ]
    cap = np.where(np.isin(sizes, list(implausible)), 0.0, np.inf)
    value = statistics.crossing(sizes, np.minimum(point, cap))[0]
    if value == 0.0:
        return None, f"below the smallest size tried, {sizes[0]:,} images"
    if np.isinf(value):
        return None, f"not reached: needs more than {sizes[-1]:,} images"
    crossings = statistics.crossing(sizes, np.minimum(np.stack(draws, axis=1), cap))
    low, high = statistics.interval(np.clip(crossings, sizes[0], sizes[-1]))
    found = Value(value=float(value), low=low, high=high)
    return found, f"about {value:,.0f} images (95% interval {low:,.0f} to {high:,.0f})"


def _gap(values: NDArray, axis: int) -> NDArray[np.float64]:
    medians = np.median(values, axis=axis)
    return medians[..., 0] - medians[..., 1:].max(axis=-1)


def compare(
    images: ImageSet, pairs: list[tuple[Measures, Measures]], splits: list[Twins], seed: int
) -> tuple[Level, dict[str, NDArray], NDArray]:
    """Everything measured at one N, from R replicates of two twins.

    Returns
    -------
    level : Level
        The numbers.
    arrays : dict
        What the report draws: all samples of the first replicate with their nearest training
        images, (S, C, H, W), and every similarity.
    gaps : array
        (R, S, 3), for :func:`critical_n`.
    """
    n = len(splits[0].a)
    training = {
        "a": [images[split.a] for split in splits],
        "b": [images[split.b] for split in splits],
    }
    samples = {"a": [a.samples for a, _ in pairs], "b": [b.samples for _, b in pairs]}
    twin = np.stack(
        [
            similarity.cosine_similarity(*map(torch.from_numpy, s))
            for s in zip(*samples.values(), strict=True)
        ]
    )
    near, arrays = {}, {}
    for side in "ab":
        found = [
            similarity.nearest(torch.from_numpy(s), t)
            for s, t in zip(samples[side], training[side], strict=True)
        ]
        near[side] = np.stack([values.numpy() for values, _ in found])
        arrays[f"samples_{side}"] = samples[side][0]
        arrays[f"nearest_{side}"] = training[side][0][found[0][1]].numpy()
        arrays[f"nearest_similarity_{side}"] = near[side]
    pairwise, held_out = zip(*(_baselines(images, split) for split in splits), strict=True)
    arrays |= {
        "twin_similarity": twin,
        "closest_pairs": pairwise[0],
        "held_out_nearest": held_out[0],
    }
    seeds = {what: derive_seed(seed, n, what) for what in ("twin", "a", "b", "pairs", "held out")}
    nearest = Similarity(a=median_of(near["a"], seeds["a"]), b=median_of(near["b"], seeds["b"]))
    twin_median = median_of(twin, seeds["twin"])
    fraction = PerTwin(
        **{side: fraction_of(samples[side], training[side], seeds[side]) for side in "ab"}
    )
    low, high = np.quantile(np.stack(held_out), [0.05, 0.95])
    quantiles = Quantiles(low=float(low), high=float(high))
    plausible = min(nearest.a.median, nearest.b.median) >= quantiles.low
    unfinished = Unfinished(
        a=sum(a.unfinished for a, _ in pairs), b=sum(b.unfinished for _, b in pairs)
    )
    level = Level(
        n=n,
        verdict=verdict_of(twin_median, nearest, fraction, quantiles),
        twin_similarity=twin_median,
        nearest_similarity=nearest,
        memorised_fraction=fraction,
        diversity=PerTwin(**{s: diversity_of(samples[s], seeds[s]) for s in "ab"}),
        closest_pairs=median_of(np.stack(pairwise), seeds["pairs"]),
        held_out_nearest=median_of(np.stack(held_out), seeds["held out"]),
        held_out_quantiles=quantiles,
        plausible=plausible,
        unfinished_samples=unfinished,
        warnings=_warnings(n, plausible, unfinished),
        psnr=psnr_of(pairs, derive_seed(seed, n, "psnr")),
    )
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    return level, arrays, np.stack([twin, near["a"], near["b"]], axis=-1)


def _warnings(n: int, plausible: bool, unfinished: Unfinished) -> list[str]:
    warnings = []
    if not plausible:
        warnings.append(
            f"N = {n:,}: a typical sample is farther from the training set than 95% of real "
            "held-out images, so that agreement means little; train longer"
        )
    if unfinished.a or unfinished.b:
        warnings.append(
            f"N = {n:,}: {unfinished.a} samples of A and {unfinished.b} of B did not converge"
        )
    return warnings


def _baselines(images: ImageSet, split: Twins) -> tuple[NDArray, NDArray]:
    """Similarity of each image of A to its closest in B, and of each test image to A and B.

    A held-out image is compared with one twin's training set as a sample is: 2 T similarities.
    """
    a, b, test = images[split.a], images[split.b], images[split.test]
    held_out = torch.cat([similarity.nearest(test, trained)[0] for trained in (a, b)])
    return similarity.nearest(a, b)[0].numpy(), held_out.numpy()
