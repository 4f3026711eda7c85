"""What the test of an audit relies on, and what speaks against it."""

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis import learned
from twinscore.analysis.redealing import redeal
from twinscore.experiments.audit.pool import Sets, Units, shared_groups, some
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.study import Arrays
from twinscore.results.audit import Assumption

DIFFERENT = 0.001
"""Largest p of a two-sample test that says training and held-out images differ."""

_SHOWN = 3
_TESTED = 500
_LEAST = 1e-6


def check(spec: Spec, sets: Sets, units: Units, pairs: Arrays | None) -> list[Assumption]:
    """All that can be checked, and what only the user knows."""
    if sets.held_out is None or pairs is None:
        return [Assumption(name="control", holds=False, found="there are no held-out images")]
    return [
        _declared("training", spec.steered, "held-out images steered the training", "--steered"),
        _declared("choice", spec.chosen, "what to sample was chosen knowing the sets", "--chosen"),
        _overlap(spec, sets, pairs),
        _groups(sets, units),
        _alike(spec, sets),
        _labels(spec, sets),
        _range(spec, sets),
    ]


def _declared(name: str, said: str | None, what: str, flag: str) -> Assumption:
    if said is None:
        return Assumption(
            name=name, holds=None, found=f"not said whether {what} ({flag} yes or no)"
        )
    found = what if said == "yes" else f"not so that {what}"
    return Assumption(name=name, holds=said == "no", found=found)


def _overlap(spec: Spec, sets: Sets, pairs: Arrays) -> Assumption:
    spanning = pairs["spanning"]
    if not len(spanning):
        return Assumption(name="overlap", holds=True, found="no image of one set is in the other")
    named = ", ".join(f"{sets.name(i)} and {sets.name(j)}" for i, j in spanning[:_SHOWN].tolist())
    found = f"{len(spanning):,} near-duplicates across training and held-out images: {named}"
    if spec.overlap == "drop":
        return Assumption(name="overlap", holds=True, found=f"left out {found}")
    return Assumption(
        name="overlap", holds=False, found=f"{found} (--overlap drop leaves them out)"
    )


def _groups(sets: Sets, units: Units) -> Assumption:
    if shared := shared_groups(sets):
        found = f"{len(shared):,} groups are in both sets: {', '.join(shared[:_SHOWN])}"
        return Assumption(name="groups", holds=False, found=found)
    if len({images.groups is None for images in sets.pool}) > 1:
        found = "only one of the two sets has groups, so that it is not known who was dealt apart"
        return Assumption(name="groups", holds=False, found=found)
    n, m = units.counts
    what = "by group" if units.by == "group" else "image by image"
    return Assumption(name="groups", holds=True, found=f"dealt {what}: {n:,} and {m:,}")


def _alike(spec: Spec, sets: Sets) -> Assumption:
    """An energy distance between the two sets, by permutation."""
    side = min(spec.side, *sets.train.shape[1:])
    parts = [some(images, _TESTED, side, spec.seed) for images in sets.pool]
    if min(map(len, parts)) < 2:
        return Assumption(name="one law", holds=None, found="too few images to compare the sets")
    p = learned.energy_p(*parts, seed=spec.seed)
    words = "differ" if p <= DIFFERENT else "look alike"
    found = f"training and held-out images {words} (energy distance, p = {p:.2g})"
    return Assumption(name="one law", holds=p > DIFFERENT, found=found)


def _labels(spec: Spec, sets: Sets) -> Assumption:
    """Chi-squared of the labels, by permutation; the sets must have the same share of each."""
    if any(images.labels is None for images in sets.pool):
        return Assumption(name="labels", holds=None, found="the images have no labels")
    labels = np.concatenate([np.array([str(x) for x in images.labels]) for images in sets.pool])
    p = _label_p(np.unique(labels, return_inverse=True)[1], len(sets.train), spec.seed)
    words = "differ" if p <= DIFFERENT else "are alike"
    found = f"labels of the two sets {words} (p = {p:.2g})"
    return Assumption(name="labels", holds=p > DIFFERENT, found=found)


def _label_p(labels: NDArray, n: int, seed: int) -> float:
    """Of the largest standardised count of any label among the first n, either way."""
    kinds = np.eye(labels.max() + 1)[labels]
    dealt = redeal(
        np.concatenate([kinds, -kinds], 1),
        np.arange(len(labels)) < n,
        np.zeros(len(labels)),
        seed=seed,
    )
    return float(dealt.corrected.min())


def _range(spec: Spec, sets: Sets) -> Assumption:
    """Brightness and contrast of the samples beside those of the training images."""
    side = min(spec.side, *sets.train.shape[1:])
    drawn, trained = (
        some(x, _TESTED, side, spec.seed).flatten(1) for x in (sets.samples, sets.train)
    )
    mean = float(drawn.mean() / trained.mean().clamp_min(_LEAST))
    spread = float(drawn.std(1).mean() / trained.std(1).mean().clamp_min(_LEAST))
    odd = not 0.5 < mean < 2 or not 0.25 < spread < 4
    note = "; is their range right?" if odd else ""
    found = (
        f"samples have {mean:.2f} times the brightness of training images and {spread:.2f} times"
    )
    return Assumption(
        name="range", holds=None if odd else True, found=f"{found} the contrast{note}"
    )
