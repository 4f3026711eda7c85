"""Errors of the audited model on training and held-out images, and what they tell."""

import numpy as np
import torch
from numpy.typing import NDArray

from twinscore.analysis.audit import membership as measures
from twinscore.denoisers import Checkpoint, check
from twinscore.errors import InputError, one_line
from twinscore.execution import Report
from twinscore.experiments.audit.pool import Sets, Units
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.trials import open_model
from twinscore.experiments.wiring import MOST, refuse_other
from twinscore.images import ImageSet
from twinscore.results.audit import Detection, Level, Membership
from twinscore.results.base import Interval
from twinscore.runs import derive_seed
from twinscore.sampling import noise
from twinscore.sampling.samples import batch_for

RISK = ("rank", "image", "name", "p", "listed", "score")
"""Columns of ``risk.csv`` and ``risk.parquet``, and an error for each noise level."""

RATES = {0.01: 99, 0.001: 1000}
"""Rates of false positives, and the least number of held-out units that each is given for."""


@torch.no_grad()
def errors(
    spec: Spec, sets: Sets, model: Checkpoint, device: torch.device, report: Report
) -> NDArray[np.float64]:
    """Mean squared error per pixel of every image of the pool at each noise level, (P, K).

    Of a pipeline that codes its images, the errors are those of their latents.
    """
    space, shape, sigmas = model.within(device), sets.train.shape, spec.sigmas
    seeds = [derive_seed(spec.seed, "membership", draw) for draw in range(spec.draws)]
    z = noise(seeds, space.encode(sets.train[:1].to(device)).shape[1:]).to(device)
    parts, size = [], batch_for(shape)
    for images in sets.pool:
        for start in range(0, len(images), size):
            x = space.encode(images[start : min(start + size, len(images))].to(device))
            parts.append(measures.errors(space.denoiser, x, z, sigmas))
            report("membership", {"step": sum(map(len, parts)), "steps": sets.images})
    return np.concatenate(parts)


@torch.no_grad()
def try_model(spec: Spec, train: ImageSet, flag: str = "model") -> None:
    """Refuse a model that cannot denoise the images, or is wired wrongly; InputError."""
    model = open_model(spec.model)
    x, space = train[:1], model.within("cpu")
    try:
        y = space.encode(x)
        for sigma in spec.sigmas:
            check(space.denoiser, y + sigma * noise([0], y.shape[1:]), sigma)
    except Exception as error:  # whatever a function of the user's own may raise
        raise InputError(
            f"--{flag}: {spec.model}: cannot denoise an image of {spec.train}, "
            f"{tuple(x.shape[1:])}: {one_line(error)}"
        ) from None
    refuse_other(spec.model, model, train[:MOST])


def judged(
    spec: Spec, sets: Sets, units: Units, found: NDArray, *, sound: bool
) -> tuple[Membership, list[tuple]]:
    """What the errors say of T and H, and a row of ``risk.csv`` for each unit of T.

    A unit's error is the mean of its images. Without a sound deal there is no p, and no list.
    """
    there = np.unique(units.of[units.kept])
    rows, trained = by_unit(found, units)[there], units.trained[there]
    p, each = measures.dependence(rows, trained, seed=derive_seed(spec.seed, "membership"))
    score = measures.combined(rows)
    conformal = measures.conformal(score[trained], score[~trained])
    listed = measures.at_risk(conformal, spec.q) if sound else np.empty(0, dtype=int)
    levels = [
        Level(sigma=sigma, auc=interval(rows[trained, k], rows[~trained, k]), p=_p(each[k], sound))
        for k, sigma in enumerate(spec.sigmas)
    ]
    membership = Membership(
        auc=interval(score[trained], score[~trained]),
        p=_p(p, sound),
        by_level=levels,
        detected=_detections(score, trained),
        at_risk=len(listed),
    )
    first = np.full(len(units.trained), sets.images)
    np.minimum.at(first, units.of, np.arange(sets.images))
    images = first[there[trained]]
    order = np.argsort(conformal, kind="stable")
    table = [
        (
            rank + 1,
            int(images[i]),
            sets.name(int(images[i])),
            float(conformal[i]),
            int(i in set(listed.tolist())),
            float(score[trained][i]),
            *(float(f"{x:.6g}") for x in rows[trained][i]),
        )
        for rank, i in enumerate(order.tolist())
    ]
    return membership, table


def by_unit(found: NDArray, units: Units) -> NDArray[np.float64]:
    """Mean over the images of each unit that take part, (U, K)."""
    count = np.bincount(units.of[units.kept], minlength=len(units.trained))
    total = np.zeros((len(units.trained), found.shape[1]))
    np.add.at(total, units.of[units.kept], found[units.kept])
    return total / np.maximum(count, 1)[:, None]


def _p(p: float, sound: bool) -> float | None:
    return float(p) if sound else None


def interval(trained: NDArray, held_out: NDArray) -> Interval:
    """How often a score of T is the smaller one."""
    return Interval(**vars(measures.area(trained, held_out)))


def _detections(score: NDArray, trained: NDArray) -> list[Detection]:
    found = [
        measures.detected(score[trained], score[~trained], rate)
        for rate, least in RATES.items()
        if (~trained).sum() >= least
    ]
    return [
        Detection(rate=of.rate, share=Interval(value=of.value, low=of.low, high=of.high))
        for of in found
        if of is not None
    ]
