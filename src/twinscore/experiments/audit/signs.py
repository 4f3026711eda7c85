"""Local signs of the audited model at the images at risk: its Jacobian, as `harmonics` takes it."""

import numpy as np
import torch
from numpy.typing import NDArray

from twinscore.analysis.audit import membership as measures
from twinscore.analysis.jacobian import linearise, trace_and_rank
from twinscore.denoisers import Checkpoint
from twinscore.errors import one_line
from twinscore.execution import Report
from twinscore.experiments.audit.pool import Sets, Units, units
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.study import Arrays
from twinscore.results.audit import Sign, Signs
from twinscore.runs import derive_seed
from twinscore.sampling import noise

PAIRS = 8
"""Training images that are looked at, each beside a held-out one of about equal error."""

PRODUCTS = 96
"""With the Jacobian of each image, for its trace, and a third more for its rank."""

EVALUATIONS = 2 * PAIRS * 3 * PRODUCTS * 4 // 3
"""Of the model, about: a product takes three."""


def measure(
    spec: Spec,
    sets: Sets,
    model: Checkpoint,
    errors: NDArray,
    device: torch.device,
    report: Report,
) -> Arrays:
    """Trace and effective rank at the training images of the smallest error, and their pairs.

    At the middle one of the noise levels, with the same noise for every image.

    Returns
    -------
    dict
        ``signs`` (2 P, 4): number in the pool, error, trace, rank; no row for a model that is not
        differentiable. Cost: ``EVALUATIONS``.
    """
    space, level = model.within(device), len(spec.sigmas) // 2
    sigma, rows = spec.sigmas[level], []
    none = np.empty((0, 2), dtype=np.int64)
    chosen = pairs(measures.combined(errors), units(sets, none, none)).ravel()
    for number, image in enumerate(chosen.tolist()):
        x = space.encode(sets.images_of([image]).to(device))
        z = noise([derive_seed(spec.seed, "signs")], tuple(x.shape[1:])).to(x)
        try:
            around = linearise(space.denoiser, x + sigma * z, sigma)
        except (ValueError, RuntimeError) as error:
            report("signs", {"text": f"no local signs: {one_line(error)}"})
            return {"signs": np.empty((0, 4))}
        trace, rank = 0.0, 0.0
        if around.forward(z.flatten(1)).double().square().any():
            found = trace_and_rank(
                around, products=PRODUCTS, seed=derive_seed(spec.seed, "products")
            )
            trace, rank = (of.value for of in found)
        rows.append((image, errors[image, level], trace, rank))
        report("signs", {"step": number + 1, "steps": len(chosen)})
    return {"signs": np.array(rows)}


def pairs(score: NDArray, units: Units) -> NDArray[np.int64]:
    """Training images of the smallest scores, each with a held-out one of the nearest, (P, 2).

    One image of each unit, and none twice.
    """
    order = np.argsort(score, kind="stable")
    first = order[np.sort(np.unique(units.of[order], return_index=True)[1])]
    trained = units.trained[units.of[first]]
    others, found = first[~trained].tolist(), []
    for image in first[trained][: min(PAIRS, len(others))]:
        nearest = min(others, key=lambda other, own=score[image]: abs(score[other] - own))
        others.remove(nearest)
        found.append((image, nearest))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def judged(spec: Spec, sets: Sets, found: Arrays) -> Signs | None:
    """The numbers of each image, by its name; None without any."""
    rows = found.get("signs", np.empty((0, 4)))
    if not len(rows):
        return None
    n = len(sets.train)
    images = [
        Sign(
            image=int(image) if image < n else int(image) - n,
            name=sets.name(int(image)),
            trained=bool(image < n),
            error=error,
            trace=trace,
            rank=rank,
        )
        for image, error, trace, rank in rows.tolist()
    ]
    return Signs(sigma=spec.sigmas[len(spec.sigmas) // 2], images=images)
