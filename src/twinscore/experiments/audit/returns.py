"""Which images came back from the audited model, and which of its samples recur."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.audit import extraction as measures
from twinscore.analysis.audit.views import reduced
from twinscore.analysis.similarity import closest
from twinscore.analysis.statistics import clopper_pearson
from twinscore.experiments.audit.evidence import picture
from twinscore.experiments.audit.extraction import EVALUATIONS, left
from twinscore.experiments.audit.pool import Sets, Units, seen
from twinscore.experiments.audit.searching import side_of
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.audit.votes import Votes
from twinscore.experiments.study import Arrays
from twinscore.results.audit import Extraction, Recurrence, Tally, Trial
from twinscore.results.base import Interval
from twinscore.runs import derive_seed

TRIED = ("image", "sigma", "ends", "halves")
"""What :func:`~twinscore.experiments.audit.extraction.tried` gives."""

OTHERS = 4096
"""Images of the pool that what comes out is compared with, and samples that may recur, at most."""

PICTURED = 6
"""Training images whose pictures are kept; and half as many held-out ones."""


def judged(
    spec: Spec, sets: Sets, units: Units, votes: Votes, found: Arrays, *, sound: bool
) -> tuple[Extraction, Arrays]:
    """What came back of T and of H, and pictures; ``found`` is empty without a model."""
    recurrence = _recurrence(spec, sets, units, votes, sound)
    came = Came.of(spec, sets, units, found) if found else None
    trials, each = came.trials(spec, sound) if came else ([], [])
    each = [*each, recurrence.p] if sound else []
    extraction = Extraction(
        p=min(1.0, len(each) * min(each)) if each else None,
        recurrence=recurrence,
        trials=trials,
        images=len(came.rows) if came else 0,
        evaluations=EVALUATIONS if came else 0,
    )
    return extraction, _pictures(sets, found, came) if came else {}


@dataclass(frozen=True, eq=False)
class Came:
    """What came of U units that were tried.

    Attributes
    ----------
    rows : array
        (U,): which of the images that were tried they are.
    trained : array
        (U,) bool.
    near : array
        (U, L + 1): how near each came to its image, from every start, and in the right half.
    sigmas : array
        (L,): where paths started.
    """

    rows: NDArray[np.int64]
    trained: NDArray[np.bool_]
    near: NDArray[np.float64]
    sigmas: NDArray[np.float64]

    @classmethod
    def of(cls, spec: Spec, sets: Sets, units: Units, found: Arrays) -> "Came":
        """Of what :func:`~twinscore.experiments.audit.extraction.tried` gave; one of each unit."""
        image = found["image"]
        rows = np.flatnonzero(units.kept[image])
        rows = rows[np.sort(np.unique(units.of[image[rows]], return_index=True)[1])]
        trained = units.trained[units.of[image[rows]]]
        return cls(rows, trained, _near(spec, sets, units, found, rows), found["sigma"])

    @property
    def returned(self) -> NDArray[np.bool_]:
        """Whether each came back, (U, L + 1)."""
        return self.near < measures.RETURNED

    def trials(self, spec: Spec, sound: bool) -> tuple[list[Trial], list[float]]:
        """Every trial, and p of paths (of all starts together) and of halves."""
        returned, trained = self.returned, self.trained
        seed = derive_seed(spec.seed, "returned")
        paths = measures.dependence(returned[:, :-1], trained, seed=seed)
        half = measures.dependence(returned[:, -1:], trained, seed=seed)
        trials = [
            Trial(
                way=way,
                sigma=float(sigma),
                trained=_tally(back[trained]),
                held_out=_tally(back[~trained]),
                p=float(p) if sound else None,
            )
            for way, sigma, back, p in zip(
                ["noise"] * len(self.sigmas) + ["half"],
                [*self.sigmas, self.sigmas[-1]],
                returned.T,
                [*paths[1], *half[1]],
                strict=True,
            )
        ]
        return trials, [paths[0], half[0]]


def _near(spec: Spec, sets: Sets, units: Units, found: Arrays, rows: NDArray) -> NDArray:
    """How near each came to its image, (U, L + 1): at every start, and in the half alone."""
    side, image = side_of(spec), found["image"][rows]
    chosen = np.random.default_rng(derive_seed(spec.seed, "others")).permutation(sets.images)
    chosen = np.sort(chosen[units.kept[chosen]][:OTHERS])
    own, others = (_images(sets, of, side) for of in (image, chosen))
    of, of_others = units.of[image], units.of[chosen]

    def near(came: NDArray, part: slice) -> NDArray[np.float64]:
        x = reduced(torch.from_numpy(came[rows]), side)
        return measures.nearness(x[..., part], own[..., part], of, others[..., part], of_others)

    right = slice(own.shape[-1] // 2, None)
    paths = [near(ends, slice(None)) for ends in found["ends"]]
    return np.stack([*paths, near(found["halves"], right)], 1)


def _tally(returned: NDArray[np.bool_]) -> Tally:
    count, of = int(returned.sum()), len(returned)
    low, high = clopper_pearson(count, of, 0.025) if of else (0.0, 1.0)
    how = {"method": "Clopper-Pearson", "covers": "images"}
    share = Interval(value=count / max(1, of), low=low, high=high, **how)
    return Tally(count=count, of=of, share=share)


def _recurrence(spec: Spec, sets: Sets, units: Units, votes: Votes, sound: bool) -> Recurrence:
    """Clusters of samples more alike than any two units of the pool, and what they are nearest to.

    The level is that of as many images of the pool, drawn blind to the sets, one of each unit.
    """
    side, seed = side_of(spec), derive_seed(spec.seed, "recurrence")
    samples = seen(sets.samples, 0, min(OTHERS, len(sets.samples)), partial(reduced, side=side))
    real = _level(sets, units, len(samples), side, seed)
    of = measures.clusters(samples, real)
    best, n = votes.all.of(votes.best), units.counts
    voted = best.strength.argsort()[::-1]
    voted = voted[(best.sample[voted] < len(samples))]
    voted = voted[of[best.sample[voted]] >= 0]
    first = voted[np.unique(of[best.sample[voted]], return_index=True)[1]]
    found = measures.pointed(units.of[best.image[first]], units.trained, *n)
    return Recurrence(
        samples=len(samples),
        similarity=real,
        recurring=int((of >= 0).sum()),
        clusters=len(np.unique(of[of >= 0])),
        trained=found.trained,
        held_out=found.held_out,
        p=found.p if sound else None,
    )


def _level(sets: Sets, units: Units, count: int, side: int, seed: int) -> float:
    """Similarity of the two most similar of so many images of the pool, one of each unit."""
    order = np.random.default_rng(seed).permutation(sets.images)
    order = order[units.kept[order]]
    rows = order[np.sort(np.unique(units.of[order], return_index=True)[1])][:count]
    return closest(_images(sets, rows, side))


def _images(sets: Sets, rows: NDArray, side: int) -> Tensor:
    """Reduced images of the pool, (N, C, side, side)."""
    return torch.cat([reduced(sets.images_of(rows[[i]]), side) for i in range(len(rows))])


def _pictures(sets: Sets, found: Arrays, came: Came) -> Arrays:
    """Of both sets the images that came back the nearest, with what came back, (K, C, H, W).

    ``end`` is that of the highest level from which the image came back, or of the lowest.
    """
    arrays: Arrays = {}
    rows, trained, near = came.rows, came.trained, came.near
    back = came.returned[:, :-1]
    level = np.where(back.any(1), back.shape[1] - 1 - back[:, ::-1].argmax(1), 0)
    order = np.lexsort((near.min(1), -came.returned.sum(1)))
    for name, member, most in (
        ("trained", trained, PICTURED),
        ("held_out", ~trained, PICTURED // 2),
    ):
        shown = order[member[order]][:most]
        if not len(shown):
            continue
        own = sets.images_of(found["image"][rows[shown]])
        given = torch.where(left(own), own, 0.5)
        ends = torch.from_numpy(found["ends"][level[shown], rows[shown]])
        parts = {"image": own, "end": ends, "given": given}
        parts["half"] = torch.from_numpy(found["halves"][rows[shown]])
        for what, images in parts.items():
            small = torch.cat([picture(x[None]) for x in images])
            arrays[f"extraction/{name}/{what}"] = small.numpy()
        arrays[f"extraction/{name}/pool"] = found["image"][rows[shown]]
        arrays[f"extraction/{name}/sigma"] = found["sigma"][level[shown]].astype(np.float32)
        arrays[f"extraction/{name}/near"] = (
            np.stack([near[shown, level[shown]], near[shown, -1]], 1).clip(max=9).astype(np.float32)
        )
    return arrays
