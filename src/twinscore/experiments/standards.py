"""What the twins of a transition are judged by: how images were dealt, and a Gaussian baseline."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twinscore import images as image_sets
from twinscore.analysis import baseline, coin_toss
from twinscore.analysis.coin_toss import Deal, Toss
from twinscore.analysis.denoising import psnr_table
from twinscore.experiments import chosen_split, twins
from twinscore.experiments.judgement import Standard
from twinscore.experiments.trials import open_images
from twinscore.images import ImageSet, Twins
from twinscore.runs import derive_seed
from twinscore.training.history import SIGMAS
from twinscore.training.laws import noise_level

MOST_VALUES = 10_000
"""Numbers of an image above which their covariance is not formed."""

LEVELS = 256
"""Noise levels that stand for the law of the training."""

BALLOT = ("n", "replicate", "twin", "seed", "image", "name", "half", "similarity")
"""Columns of ``votes.csv``."""


def standard(spec: Any, images: ImageSet, keep: NDArray) -> Standard:
    """Of a spec of a transition."""
    rule = image_sets.resolve(images, spec.split)
    kinds = image_sets.having(images, spec.attribute) if rule == "attribute" else None
    large = np.prod(images.shape) > MOST_VALUES
    return Standard(
        thresholds=spec.thresholds,
        deal=lambda split: dealt(images, rule, split),
        untestable=lambda split: untestable(spec, split),
        baseline=None if large else _baseline(spec, images, keep, kinds),
        kinds=kinds,
    )


def untestable(spec: Any, split: Twins) -> str:
    """Why a split tells nothing of memory; empty if it does."""
    if spec.split not in image_sets.BY and not spec.dealt_at_random:
        return "the split is by lists, which are not declared as dealt at random (dealt_at_random)"
    n = len(split.a)
    lacking = dict(zip(("with", "without"), (n - len(of) for of in split.controls), strict=False))
    missing = [f"{k:,} {word} attribute {spec.attribute!r}" for word, k in lacking.items() if k]
    if not missing:
        return ""
    return (
        f"each twin needs {n:,} controls, images of its kind that are neither in a training set "
        f"nor in the test set; {' and '.join(missing)} are missing"
    )


def dealt(images: ImageSet, rule: str, split: Twins) -> Deal:
    """How a rule dealt the images of A and then of B, or of each and its controls."""
    if rule == "group":
        names = images.labels if images.groups is None else images.groups
        own = np.array([str(names[i]) for i in split.a])
        return coin_toss.paired(np.concatenate([own, own]))
    pool = np.concatenate([split.a, split.b])
    if rule == "attribute":
        pool = np.concatenate([split.a, split.controls[0], split.b, split.controls[1]])
        deal = coin_toss.with_controls(len(split.a))
    elif rule == "label":
        labels = np.array([str(x) for x in images.labels])
        deal = coin_toss.halves(len(split.a), labels[pool])
    else:
        deal = coin_toss.halves(len(split.a))
    if images.originals is None:
        return deal
    return coin_toss.together(deal, images.originals[pool])


def _baseline(spec: Any, images: ImageSet, keep: NDArray, kinds: NDArray | None) -> NDArray:
    """PSNR of the Gaussian on test images, (R, K, T): fitted to all images of the largest N.

    Where kinds differ there is one of each, fitted to a twin's images and its controls, for the
    test images of its kind. It knows what the networks here know: they are blind, and without
    additive terms. The noise is that of :func:`~twinscore.experiments.twins.measure`.
    """
    law = spec.training.noise, spec.training.sigma_max
    lists, tables = chosen_split.listed(spec, images, keep), []
    for replicate in range(spec.replicates):
        split = chosen_split.twins(spec, images, keep, lists, max(spec.sizes), replicate)
        both = split.a, split.b
        sets = [both] if kinds is None else zip(both, split.controls, strict=True)
        test, seed = tuple(split.test.tolist()), derive_seed(spec.seed, "psnr", replicate)
        found = [
            _gaussian_psnr(spec.data, images.digest, tuple(fitted.tolist()), test, *law, seed)
            for fitted in map(np.concatenate, sets)
        ]
        tables.append(found[0] if kinds is None else np.where(kinds[split.test], *found))
    return np.stack(tables)


@lru_cache(maxsize=16)
def _gaussian_psnr(
    source: str,
    digest: str,
    fitted: tuple[int, ...],
    test: tuple[int, ...],
    law: str,
    sigma_max: float,
    seed: int,
) -> NDArray:
    """Kept, since every part of a run is compared with it; ``digest`` is of the images."""
    images = open_images(source)
    levels = noise_level((torch.arange(LEVELS) + 0.5) / LEVELS, law, sigma_max)
    denoiser = baseline.fitted(images.take(np.array(fitted)), levels=levels, centre=False)
    return psnr_table(denoiser, images[np.array(test)], SIGMAS, seed=seed).numpy()


def ballots(
    spec: Any, images: ImageSet, splits: Sequence[Twins], tosses: Sequence[Toss]
) -> Iterator[tuple[Any, ...]]:
    """Rows of ``votes.csv`` of one N: the nearest image of each sample, and whose half it is in.

    Of tied images the first is named; a sample that is as similar to all has none. No rows where
    nobody voted.
    """
    for replicate, (split, toss) in enumerate(zip(splits, tosses, strict=bool(tosses))):
        n, parts = len(split.a), {"a": split.a, "b": split.b}
        if split.controls:
            first, second = split.controls
            parts = {"a": split.a, "control a": first, "b": split.b, "control b": second}
        pool, names = np.concatenate(list(parts.values())), list(parts)
        seeds = twins.noise_seeds(spec, replicate).tolist()
        for twin, votes in zip("ab", toss.votes, strict=True):
            for i, seed in enumerate(seeds):
                found = votes.image[votes.sample == i]
                half = " and ".join(names[k] for k in np.unique(found // n))
                image = (
                    (int(pool[found[0]]), images.names[pool[found[0]]]) if len(found) else ("", "")
                )
                yield n, replicate, twin, seed, *image, half, f"{votes.similarity[i]:.6g}"
