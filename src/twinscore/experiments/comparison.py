"""From the measures of twins at one N to its numbers, and from all N to the critical one."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis import memorization, similarity, statistics
from twinscore.experiments.intervals import columns, numbers
from twinscore.images import ImageSet, Twins
from twinscore.results.base import Interval
from twinscore.results.transition import Level, PerTwin, Psnr, Quantiles, Verdict
from twinscore.runs import derive_seed
from twinscore.training.history import SIGMAS

COPIES = 0.05
"""Largest memorised fraction (lower bound) with which a level may be said to generalise."""

Measures = dict[str, NDArray]  # what :func:`twinscore.experiments.twins.measure` gives


def compare(
    images: ImageSet, pairs: Sequence[tuple[Measures, Measures]], splits: Sequence[Twins], seed: int
) -> tuple[Level, dict[str, NDArray], NDArray]:
    """Everything measured at one N, from R replicates of two twins.

    Returns the numbers; the arrays that the report draws (every similarity, and all samples of the
    first replicate with their nearest training images, (S, C, H, W)); and gaps (R, S, 3), for
    :func:`critical_n`.
    """
    n = len(splits[0].a)
    seeds = {what: derive_seed(seed, n, what) for what in ("twin", "a", "b", "pairs", "held out")}
    of_twins = list(zip(*pairs, strict=True))
    samples = [[torch.from_numpy(of["samples"]) for of in twin] for twin in of_twins]
    training = [[images[getattr(split, side)] for split in splits] for side in "ab"]
    twin = _rows(similarity.cosine_similarity, *samples)
    closest = _rows(_nearest, *training)
    held_out = _rows(_held_out, [images[split.test] for split in splits], *training)
    arrays = {"twin_similarity": twin, "closest_pairs": closest[0], "held_out_nearest": held_out[0]}
    near, fraction, diversity = {}, {}, {}
    for side, drawn, known in zip("ab", samples, training, strict=True):
        found = [similarity.nearest(*of) for of in zip(drawn, known, strict=True)]
        near[side] = np.stack([values.numpy() for values, _ in found])
        fraction[side] = (
            _mean(_rows(memorization.copied, drawn, known), seeds[side]) if n > 1 else None
        )
        diversity[side] = _mean(_rows(similarity.diversity, drawn), seeds[side])
        arrays[f"samples_{side}"] = drawn[0].numpy()
        arrays[f"nearest_{side}"] = known[0][found[0][1]].numpy()
        arrays[f"nearest_similarity_{side}"] = near[side]
    low, high = np.quantile(held_out, [0.05, 0.95])
    quantiles = Quantiles(low=float(low), high=float(high))
    twin_median, fractions = _median(twin, seeds["twin"]), PerTwin(**fraction)
    nearest = PerTwin(**{side: _median(values, seeds[side]) for side, values in near.items()})
    plausible = min(nearest.a.value, nearest.b.value) >= quantiles.low
    lost = (sum(int(of["unfinished"].item()) for of in twin) for twin in of_twins)
    unfinished = PerTwin(**dict(zip("ab", lost, strict=True)))
    level = Level(
        n=n,
        verdict=verdict_of(twin_median, nearest, fractions, quantiles),
        twin_similarity=twin_median,
        nearest_similarity=nearest,
        memorised_fraction=fractions,
        diversity=PerTwin(**diversity),
        closest_pairs=_median(closest, seeds["pairs"]),
        held_out_nearest=_median(held_out, seeds["held out"]),
        held_out_quantiles=quantiles,
        plausible=plausible,
        unfinished_samples=unfinished,
        warnings=_warnings(n, plausible, unfinished),
        psnr=_psnr(pairs, derive_seed(seed, n, "psnr")),
    )
    return level, arrays, np.stack([twin, near["a"], near["b"]], axis=-1)


def _rows(measure: Callable[..., Tensor], *replicates: Sequence[Tensor]) -> NDArray:
    """What is measured on each replicate, (R, ...)."""
    return np.stack([measure(*of).numpy() for of in zip(*replicates, strict=True)])


def _nearest(queries: Tensor, references: Tensor) -> Tensor:
    return similarity.nearest(queries, references)[0]


def _held_out(test: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Similarity of each test image to one twin's training set, as of a sample: (2 T,)."""
    return torch.cat([_nearest(test, a), _nearest(test, b)])


def _median(values: NDArray, seed: int) -> Interval:
    """Of (R, S) values."""
    low, high = statistics.interval(statistics.resampled(values, np.median, seed=seed))
    return _interval(np.median(values), low, high, len(values))


def _mean(values: NDArray, seed: int) -> Interval:
    """Of (R, S) values."""
    values = values.astype(np.float64)
    low, high = statistics.interval(statistics.resampled(values, np.mean, seed=seed))
    return _interval(values.mean(), low, high, len(values))


def _interval(value: float, low: float, high: float, replicates: int) -> Interval:
    """Of the bootstrap that draws replicates, where there are several, and samples in each."""
    covers = "samples" if replicates == 1 else "replicates and samples"
    return Interval(value=float(value), low=low, high=high, method="bootstrap", covers=covers)


def _psnr(pairs: Sequence[tuple[Measures, Measures]], seed: int) -> Psnr:
    """Train and test curves, averaged over the twins, with bands over images."""
    curves: dict[str, Sequence[float]] = {"sigma": SIGMAS}
    for part in ("train", "test"):
        table = np.stack([(a[f"psnr_{part}"] + b[f"psnr_{part}"]) / 2 for a, b in pairs])
        means = [_mean(table[:, k], derive_seed(seed, part, k)) for k in range(len(SIGMAS))]
        curves |= zip(columns([part]), zip(*map(numbers, means), strict=True), strict=True)
    return Psnr(**curves)


def verdict_of(
    twin: Interval,
    nearest: PerTwin[Interval],
    fraction: PerTwin[Interval | None],
    held_out: Quantiles,
) -> Verdict:
    """Apply the rule of docs/transition.md.

    *memorises*: for both twins, the interval of the similarity to the nearest training image lies
    above that of the similarity between the twins, and its median above 95 % of real held-out
    images. *generalises*: it lies below, its median is not below 95 % of them (or agreement means
    little), and the memorised fraction is not above ``COPIES``. *transition*: anything else.
    """
    sides = (nearest.a, nearest.b)
    if all(s.low > twin.high and s.value > held_out.high for s in sides):
        return "memorises"
    copies = [f.low for f in (fraction.a, fraction.b) if f]
    apart = all(s.high < twin.low and s.value >= held_out.low for s in sides)
    return "generalises" if apart and copies and max(copies) <= COPIES else "transition"


def _warnings(n: int, plausible: bool, unfinished: PerTwin[int]) -> list[str]:
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


def critical_n(
    levels: dict[int, NDArray], seed: int, implausible: Collection[int] = ()
) -> tuple[Interval | None, str]:
    """Where the twins become more alike than samples and training images, and a phrase for it.

    The gap at each N is the median twin similarity less the larger of the two median
    nearest-training similarities; the critical N is where it turns positive, linear in log N. Its
    bootstrap interval is cut at the sizes tried; it is None where the crossing is not inside.

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
    found = _interval(value, low, high, len(levels[sizes[0]]))
    return found, f"about {value:,.0f} images (95% interval {low:,.0f} to {high:,.0f})"


def _gap(values: NDArray, axis: int) -> NDArray[np.float64]:
    medians = np.median(values, axis=axis)
    return medians[..., 0] - medians[..., 1:].max(axis=-1)
