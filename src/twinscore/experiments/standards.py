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
    gaussian = None if np.prod(images.shape) > MOST_VALUES else _baseline(spec, images, keep)
    reasons = {
        "attribute": "the split is by attribute: A and B differ in kind, so that neither is the "
        "other's control",
        **dict.fromkeys(("random", "label", "group"), ""),
    }
    return Standard(
        thresholds=spec.thresholds,
        deal=lambda split: dealt(images, rule, split),
        untestable=reasons.get(rule, "the split is by lists, which no coin has dealt"),
        baseline=gaussian,
    )


def dealt(images: ImageSet, rule: str, split: Twins) -> Deal:
    """How a rule dealt the images of A and then of B."""
    if rule == "label":
        both = np.concatenate([split.a, split.b])
        return coin_toss.halves(len(split.a), np.array([str(x) for x in images.labels])[both])
    if rule == "group":
        names = images.labels if images.groups is None else images.groups
        own = np.array([str(names[i]) for i in split.a])
        return coin_toss.paired(np.concatenate([own, own]))
    return coin_toss.halves(len(split.a))


def _baseline(spec: Any, images: ImageSet, keep: NDArray) -> NDArray:
    """PSNR of the Gaussian on test images, (R, K, T): fitted to all images of the largest N.

    It knows what the networks here know: they are blind, and without additive terms. The noise is
    that of :func:`~twinscore.experiments.twins.measure`.
    """
    law = spec.training.noise, spec.training.sigma_max
    lists, tables = chosen_split.listed(spec, images, keep), []
    for replicate in range(spec.replicates):
        split = chosen_split.twins(spec, images, keep, lists, max(spec.sizes), replicate)
        rows = [tuple(part.tolist()) for part in (np.concatenate([split.a, split.b]), split.test)]
        seed = derive_seed(spec.seed, "psnr", replicate)
        tables.append(_gaussian_psnr(spec.data, images.digest, *rows, *law, seed))
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

    Of tied images the first is named; a sample that is as similar to all has none.
    """
    for replicate, (split, toss) in enumerate(zip(splits, tosses, strict=True)):
        pool, n = np.concatenate([split.a, split.b]), len(split.a)
        seeds = twins.noise_seeds(spec, replicate).tolist()
        for twin, votes in zip("ab", toss.votes, strict=True):
            for i, seed in enumerate(seeds):
                found = votes.image[votes.sample == i]
                half = " and ".join("ab"[k] for k in np.unique(found >= n).astype(int))
                image = (
                    (int(pool[found[0]]), images.names[pool[found[0]]]) if len(found) else ("", "")
                )
                yield n, replicate, twin, seed, *image, half, f"{votes.similarity[i]:.6g}"
