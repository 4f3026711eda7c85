"""What the audited model makes of images of both sets: paths from noise, and other halves."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.audit import extraction as measures
from twinscore.analysis.audit import membership
from twinscore.denoisers import Checkpoint
from twinscore.execution import Report
from twinscore.experiments.audit.pool import Sets, units
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.study import Arrays
from twinscore.runs import derive_seed
from twinscore.sampling import noise, probability_flow
from twinscore.sampling.inpainting import filled_in
from twinscore.sampling.samples import batch_for

STARTS = (1.0, 2.0, 4.0)
"""Noise levels at which paths start, in parts of the standard deviation of images about their mean:
at 1 a denoiser hardly sees the image, and one that knows it by heart still does."""

STEPS, FILLINGS = 20, 4
"""Of a path and of a filling; and of how many fillings the best one is taken."""

EVALUATIONS = STEPS * (len(STARTS) + FILLINGS)
"""Of the model, for each image that is tried."""

SPREAD = 500
"""Images of the pool that their deviation is taken from, at most."""


@torch.no_grad()
def tried(
    spec: Spec,
    sets: Sets,
    model: Checkpoint,
    errors: NDArray,
    device: torch.device,
    report: Report,
) -> Arrays:
    """Start paths at images of the pool, and fill in their right halves.

    All get the same noise, so that nothing but the image differs. A pipeline that codes its images
    does both with their latents.

    Returns
    -------
    dict
        ``image`` (K,): numbers in the pool; ``sigma`` (L,), in units of what is denoised; ``ends``
        (L, K, C, H, W); ``halves`` (K, C, H, W). Cost: ``EVALUATIONS`` for each image; memory that
        of a batch.
    """
    none = np.empty((0, 2), dtype=np.int64)
    score, of = membership.combined(errors), units(sets, none, none).of
    image = measures.chosen(score, of, spec.extract, derive_seed(spec.seed, "extraction"))
    space, sigmas = model.within(device), starts(spec, sets, model, device)
    mean = (0.0,) if model.latents else model.mean
    path, fillings = (
        [derive_seed(spec.seed, what, draw) for draw in range(count)]
        for what, count in (("path", 1), ("half", FILLINGS))
    )
    size, ends, halves = batch_for(sets.train.shape), [], []
    for start in range(0, len(image), size):
        x = space.encode(sets.images_of(image[start : start + size]).to(device))
        z = noise(path, tuple(x.shape[1:])).to(x).expand_as(x)
        own = {"steps": STEPS, "sigma_min": spec.sampling.sigma_min}
        came = [
            probability_flow(space.denoiser, z, mean=x, sigma_max=sigma, **own) for sigma in sigmas
        ]
        ends.append(torch.stack([space.decode(y).cpu() for y in came]))
        own |= {"seeds": fillings, "mean": mean, "sigma_max": sigmas[-1]}
        half = filled_in(space.denoiser, x, left(x), **own)
        halves.append(space.decode(half).cpu())
        report("extraction", {"step": start + len(x), "steps": len(image)})
    return {
        "image": image,
        "sigma": np.array(sigmas),
        "ends": torch.cat(ends, 1).numpy(),
        "halves": torch.cat(halves).numpy(),
    }


def starts(spec: Spec, sets: Sets, model: Checkpoint, device: torch.device) -> list[float]:
    """Noise levels at which paths start, none above that of sampling."""
    seed = derive_seed(spec.seed, "spread")
    rows = np.sort(np.random.default_rng(seed).permutation(sets.images)[:SPREAD])
    size, space = batch_for(sets.train.shape), model.within(device)
    parts = (rows[start : start + size] for start in range(0, len(rows), size))
    x = torch.cat([space.encode(sets.images_of(part).to(device)) for part in parts])
    spread = (x - x.mean(0)).square().mean().sqrt().item()
    least, most = 2 * spec.sampling.sigma_min, spec.sampling.sigma_max
    return sorted({min(most, max(least, start * spread)) for start in STARTS})


def left(x: Tensor) -> Tensor:
    """The left half of images or latents (..., C, H, W), bool (C, H, W)."""
    mask = torch.zeros(x.shape[-3:], dtype=torch.bool, device=x.device)
    mask[..., : x.shape[-1] // 2] = True
    return mask
