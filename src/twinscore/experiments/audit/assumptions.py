"""What the test of an audit relies on, and what speaks against it."""

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis import learned
from twinscore.analysis.redealing import redeal
from twinscore.experiments.audit.pool import Sets, Units, shared_groups, some
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.study import Arrays
from twinscore.images import ImageSet
from twinscore.results.audit import Assumption

DIFFERENT = 0.001
"""Largest p of a two-sample test that says training and held-out images differ."""

_SHOWN = 3
_TESTED = 500
_FEW = 100
_LEAST = 1e-6

_ROUNDING = 0.01
"""Of a value in steps of its depth: float32 at 16 bits."""


def check(spec: Spec, sets: Sets, units: Units, pairs: Arrays | None) -> list[Assumption]:
    """All that can be checked, and what only the user knows."""
    if sets.held_out is None or pairs is None:
        return [Assumption(name="control", holds=False, found="there are no held-out images")]
    return [
        _declared("training", spec.steered, "held-out images steered the training", "--steered"),
        _declared("choice", spec.chosen, "what to sample was chosen knowing the sets", "--chosen"),
        _overlap(spec, sets, pairs),
        _groups(sets, units),
        _alike(spec, sets, units),
        _metadata(spec, sets, units),
        _depth(sets),
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


def _alike(spec: Spec, sets: Sets, units: Units) -> Assumption:
    """An energy distance between the two sets, by permutation."""
    side = min(spec.side, *sets.train.shape[1:])
    parts = [
        some(images.take(rows), _TESTED, side, spec.seed)
        for images, rows in zip(sets.pool, _one_of_each(units, sets, spec.seed), strict=True)
    ]
    if min(map(len, parts)) < 2:
        return Assumption(name="one law", holds=None, found="too few images to compare the sets")
    p = learned.energy_p(*parts, seed=spec.seed)
    words = "differ" if p <= DIFFERENT else "look alike"
    found = f"training and held-out images {words} (energy distance, p = {p:.2g})"
    return Assumption(name="one law", holds=p > DIFFERENT, found=found)


def _one_of_each(units: Units, sets: Sets, seed: int) -> tuple[NDArray, NDArray]:
    """An image of every unit that takes part, of either set, by their numbers in it."""
    order = np.random.default_rng(seed).permutation(sets.images)
    order = order[units.kept[order]]
    rows = np.sort(order[np.unique(units.of[order], return_index=True)[1]])
    n = len(sets.train)
    return rows[rows < n], rows[rows >= n] - n


def _metadata(spec: Spec, sets: Sets, units: Units) -> Assumption:
    """Shares of every label and attribute; of one image of each unit, as units were dealt."""
    rows = _one_of_each(units, sets, spec.seed)
    known = {
        name: np.concatenate([of[i] for of, i in zip(parts, rows, strict=True)])
        for name, parts in _properties(sets).items()
    }
    if not known:
        return Assumption(name="metadata", holds=None, found="no labels or attributes in both sets")
    p = _share_p(np.stack(list(known.values()), 1), len(rows[0]), spec.seed)
    worst, words = min(zip(p, known, strict=True)), "are alike"
    if worst[0] <= DIFFERENT:
        words = f"differ, most in {worst[1]}"
    found = f"labels and attributes of the two sets {words} (p = {worst[0]:.2g})"
    return Assumption(name="metadata", holds=worst[0] > DIFFERENT, found=found)


def _properties(sets: Sets) -> dict[str, tuple[NDArray, ...]]:
    """What both sets say of every image, yes or no: each label, each attribute."""
    found = {
        name: tuple(of.attributes[name] for of in sets.pool)
        for name in sets.train.attributes
        if all(name in of.attributes for of in sets.pool)
    }
    if all(of.labels is not None for of in sets.pool):
        labels = [np.array([str(x) for x in of.labels]) for of in sets.pool]
        kinds = np.unique(np.concatenate(labels))
        found |= {f"label {kind}": tuple(of == kind for of in labels) for kind in kinds}
    return found


def _share_p(has: NDArray[np.bool_], n: int, seed: int) -> NDArray[np.float64]:
    """Of the count of each property among the first n, either way, corrected for their number."""
    weights = has.astype(np.float64)
    dealt = redeal(
        np.concatenate([weights, -weights], 1),
        np.arange(len(weights)) < n,
        np.zeros(len(weights)),
        seed=seed,
    )
    return dealt.corrected.reshape(2, -1).min(0)


def _depth(sets: Sets) -> Assumption:
    """Depth and colour as the files have them: nothing is converted."""
    own = {"samples": sets.samples, "train": sets.train, "held_out": sets.held_out}
    said = {name: _stored(images) for name, images in own.items() if images is not None}
    if len(set(said.values())) == 1:
        return Assumption(name="depth", holds=True, found=f"all images are {said['train']}")
    found = ", ".join(f"{name}: {what}" for name, what in said.items())
    if said.get("held_out", said["train"]) != said["train"]:
        return Assumption(name="depth", holds=False, found=f"T and H are stored apart: {found}")
    return Assumption(name="depth", holds=None, found=f"samples are stored otherwise: {found}")


def _stored(images: ImageSet) -> str:
    few = images[:_FEW].numpy()
    steps = [bits for bits in (1, 8, 16) if _on_grid(few, 2**bits - 1)]
    depth = f"{steps[0]} bits" if steps else "of no whole number of bits"
    grey = few.shape[1] > 1 and np.allclose(few, few[:, :1])
    return f"{depth}, gray in {few.shape[1]} channels" if grey else depth


def _on_grid(values: NDArray, steps: int) -> bool:
    return bool(np.abs(values * steps - np.rint(values * steps)).max() < _ROUNDING)


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
