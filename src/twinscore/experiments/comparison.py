"""From the measures of twins at one N to its numbers."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis import memorization, similarity, statistics
from twinscore.analysis.coin_toss import Toss
from twinscore.analysis.learned import worse_than_input
from twinscore.experiments.intervals import columns, numbers
from twinscore.experiments.judgement import Drawn, Standard, judge
from twinscore.images import ImageSet, Twins
from twinscore.results.base import Interval
from twinscore.results.transition import Level, PerTwin, Psnr, PsnrGap, Quantiles
from twinscore.runs import derive_seed
from twinscore.training.history import SIGMAS

Measures = dict[str, NDArray]  # what :func:`twinscore.experiments.twins.measure` gives


def compare(
    images: ImageSet,
    pairs: Sequence[tuple[Measures, Measures]],
    splits: Sequence[Twins],
    seed: int,
    standard: Standard = Standard(),  # noqa: B008
) -> tuple[Level, dict[str, NDArray], list[Toss]]:
    """Everything measured at one N, from R replicates of two twins, judged by a standard.

    Returns the numbers; the arrays that the report draws (every similarity, and all samples of the
    first replicate with their nearest training images, (S, C, H, W)); and the votes of each
    replicate's samples, by pixels.
    """
    n = len(splits[0].a)
    seeds = {what: derive_seed(seed, n, what) for what in ("twin", "a", "b", "pairs", "held out")}
    samples = [
        [torch.from_numpy(of["samples"]) for of in twin] for twin in zip(*pairs, strict=True)
    ]
    training = [[images[getattr(split, side)] for split in splits] for side in "ab"]
    controls = _controls(images, splits) or training[::-1]
    twin = _rows(similarity.cosine_similarity, *samples)
    closest = _rows(_nearest, *training)
    held_out = _rows(_held_out, [images[split.test] for split in splits], *training)
    arrays = {"twin_similarity": twin, "closest_pairs": closest[0], "held_out_nearest": held_out[0]}
    near, fraction, control, diversity = {}, {}, {}, {}
    for side, drawn, known, unknown in zip("ab", samples, training, controls, strict=True):
        found = [similarity.nearest(*of) for of in zip(drawn, known, strict=True)]
        near[side] = np.stack([values.numpy() for values, _ in found])
        fraction[side] = _fraction(drawn, known, seeds[side], n)
        control[side] = _fraction(drawn, unknown, seeds[side], n)
        diversity[side] = _mean(_rows(similarity.diversity, drawn), seeds[side])
        arrays[f"samples_{side}"] = drawn[0].numpy()
        arrays[f"nearest_{side}"] = known[0][found[0][1]].numpy()
        arrays[f"nearest_similarity_{side}"] = near[side]
    low, high = np.quantile(held_out, [0.05, 0.95])
    tables = {part: _table(pairs, f"psnr_{part}") for part in ("train", "test")}
    judged, tosses = judge(
        Drawn(
            samples=list(zip(*samples, strict=True)),
            training=list(zip(*training, strict=True)),
            controls=list(zip(*controls, strict=True)),
            splits=splits,
            held_out=_by_kind(images, splits, standard.kinds),
            psnr=_table(pairs, "psnr_test", splits, standard.kinds),
        ),
        standard,
        derive_seed(seed, n, "verdict"),
    )
    lost = [sum(int(of["unfinished"].item()) for of in twin) for twin in zip(*pairs, strict=True)]
    warnings = [*judged.pop("warnings", ()), *_warnings(lost, tables["test"])]
    level = Level(
        n=n,
        **judged,
        twin_similarity=_median(twin, seeds["twin"]),
        nearest_similarity=PerTwin(**{k: _median(of, seeds[k]) for k, of in near.items()}),
        memorised_fraction=PerTwin(**fraction),
        control_fraction=PerTwin(**control),
        diversity=PerTwin(**diversity),
        closest_pairs=_median(closest, seeds["pairs"]),
        held_out_nearest=_median(held_out, seeds["held out"]),
        held_out_quantiles=Quantiles(low=float(low), high=float(high)),
        unfinished_samples=PerTwin(a=lost[0], b=lost[1]),
        warnings=[f"N = {n:,}: {warning}" for warning in warnings],
        psnr=_psnr(tables, derive_seed(seed, n, "psnr")),
        psnr_gap=_psnr_gap(tables, derive_seed(seed, n, "gap")),
    )
    return level, arrays, tosses


def _controls(images: ImageSet, splits: Sequence[Twins]) -> list[list[Tensor]]:
    """Of A and of B, those of every replicate; none where the halves are each other's."""
    return [[images[of] for of in own] for own in zip(*(s.controls for s in splits), strict=True)]


def _fraction(
    drawn: Sequence[Tensor], known: Sequence[Tensor], seed: int, n: int
) -> Interval | None:
    """Copies by the ratio rule; None for a single training image, or fewer controls than n."""
    if len(known[0]) < max(2, n):
        return None
    return _mean(_rows(memorization.copied, drawn, known), seed)


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


def _by_kind(
    images: ImageSet, splits: Sequence[Twins], kinds: NDArray | None
) -> tuple[Tensor, Tensor]:
    """The test images of A's kind and of B's, all of them for both where there is one kind."""
    test = np.unique(np.concatenate([split.test for split in splits]))
    found = images[test]
    if kinds is None:
        return found, found
    return found[kinds[test]], found[~kinds[test]]


def _table(
    pairs: Sequence[tuple[Measures, Measures]],
    name: str,
    splits: Sequence[Twins] = (),
    kinds: NDArray | None = None,
) -> NDArray:
    """Of PSNR, averaged over the twins, or of the twin of each test image's kind, (R, K, T)."""
    if kinds is None:
        return np.stack([(a[name] + b[name]) / 2 for a, b in pairs])
    both = zip(pairs, splits, strict=True)
    return np.stack([np.where(kinds[split.test], a[name], b[name]) for (a, b), split in both])


def _psnr(tables: dict[str, NDArray], seed: int) -> Psnr:
    """Train and test curves with bands over images."""
    curves: dict[str, Sequence[float]] = {"sigma": SIGMAS}
    for part, table in tables.items():
        means = [_mean(table[:, k], derive_seed(seed, part, k)) for k in range(len(SIGMAS))]
        curves |= zip(columns([part]), zip(*map(numbers, means), strict=True), strict=True)
    return Psnr(**curves)


def _psnr_gap(tables: dict[str, NDArray], seed: int) -> PsnrGap:
    """Where the curves are the farthest apart; training and test images are drawn separately."""
    means = {part: table.mean((0, 2)) for part, table in tables.items()}
    k = int(np.argmax(means["train"] - means["test"]))
    train, test = (
        statistics.resampled(table[:, k].astype(np.float64), np.mean, seed=derive_seed(seed, part))
        for part, table in tables.items()
    )
    value = float(means["train"][k] - means["test"][k])
    found = _interval(value, *statistics.interval(train - test), len(tables["test"]))
    how = {"covers": "images"} if len(tables["test"]) == 1 else {}
    return PsnrGap(**found.model_dump() | how, sigma=SIGMAS[k])


def _warnings(lost: Sequence[int], psnr: NDArray) -> list[str]:
    warnings = []
    if any(lost):
        warnings.append(
            f"{lost[0]} samples of A and {lost[1]} of B did not converge; they vote for either "
            "half, and are left out of agreement and copies"
        )
    if worse := worse_than_input(psnr, SIGMAS):
        levels = ", ".join(f"{sigma:g}" for sigma in worse)
        warnings.append(f"held-out images come out worse than they went in at sigma {levels}")
    return warnings
