"""Along training: how good checkpoints are, and what they know of their training images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis import learned, memorization
from twinscore.analysis.audit import membership, turning
from twinscore.analysis.statistics import clopper_pearson, mean_interval
from twinscore.denoisers import Checkpoint
from twinscore.experiments.study import Arrays
from twinscore.results.base import Interval, Kept, Turn, Window
from twinscore.runs import derive_seed
from twinscore.sampling import SamplingSpec
from twinscore.sampling.samples import batch_for, draw

MOST = learned.MOST
"""Held-out images that the energy distance takes, at most."""

NOTHING = np.full(3, np.nan)


@dataclass(frozen=True)
class Drawing:
    """The samples that are drawn from every checkpoint: how many, and how."""

    count: int
    sampling: SamplingSpec
    seed: int

    def drawn(self, model: Checkpoint, device: torch.device) -> Tensor:
        """Samples (S, C, H, W) of a model, from the same noise for all; lost ones left out."""
        seeds = np.array([derive_seed(self.seed, "image", i) for i in range(self.count)])
        batch = batch_for(model.shape)
        samples = torch.from_numpy(draw(model, seeds, self.sampling, batch=batch, device=device)[0])
        return samples[samples.flatten(1).any(1)]

    def quality(self, samples: Tensor, held_out: Tensor) -> NDArray[np.float64]:
        """Energy distance of samples from held-out images: value, low, high; NaN of too few."""
        if len(samples) < 2:
            return NOTHING
        found = learned.energy(samples, held_out, seed=derive_seed(self.seed, "energy"))
        return np.array([found.value, found.low, found.high])


def copied(samples: Tensor, trained: Tensor) -> NDArray[np.float64]:
    """Share of samples that the ratio rule calls copies: value, low, high; NaN of too few."""
    if not len(samples) or len(trained) < 2:
        return NOTHING
    found = memorization.copied(samples, trained)
    low, high = clopper_pearson(int(found.sum()), len(found), 0.025)
    return np.array([found.double().mean().item(), low, high])


def window(
    models: Sequence[tuple[int, str]], found: Arrays, trained: NDArray, *, sound: bool, seed: int
) -> Window:
    """The two moments, and every checkpoint.

    Parameters
    ----------
    models : sequence of (int, str)
        Step and name of C checkpoints, in the order of training.
    found : dict
        ``errors``: (C, U, K) of U units at K noise levels; ``energy`` and ``copied``: (C, 3),
        value, low and high, NaN where they are not known; the latter may be missing.
    trained : array
        (U,) bool: whether a unit was trained on; the others are held out.
    sound : bool
        Whether the deal can be relied on; if not, nothing is tested.
    seed : int
        Of the dealings.
    """
    errors = found["errors"]
    level = np.array([mean_interval(of) for of in turning.relative(errors[:, ~trained])])
    good = turning.reached(level[:, 0], level[:, 1])
    if np.isfinite(found["energy"]).any():
        good &= turning.reached(found["energy"][:, 0], found["energy"][:, 1])
    p = [membership.dependence(of, trained, seed=seed)[0] for of in errors] if sound else []
    kept = [
        Kept(
            step=step,
            model=name,
            error=_interval(level[i], "Student's t", "images"),
            energy=_known(found["energy"][i], "bootstrap", "samples and images"),
            auc=_auc(errors[i], trained),
            p=p[i] if sound else None,
            copied=_known(found.get("copied", [NOTHING] * len(models))[i], "Clopper-Pearson"),
        )
        for i, (step, name) in enumerate(models)
    ]
    first = turning.turned(p) if sound else len(kept)
    return Window(
        tau_gen=_turn(kept, int(np.argmax(good)) if good.any() else int(np.argmin(level[:, 0]))),
        tau_mem=_turn(kept, first) if first < len(kept) else None,
        checkpoints=kept,
    )


def _turn(kept: Sequence[Kept], first: int) -> Turn:
    return Turn(value=kept[first].step, low=kept[first - 1].step if first else None)


def _auc(errors: NDArray, trained: NDArray) -> Interval:
    score = membership.combined(errors)
    return Interval(**vars(membership.area(score[trained], score[~trained])))


def _interval(of: NDArray, method: str, covers: str) -> Interval:
    value, low, high = of.tolist()
    return Interval(value=value, low=low, high=high, method=method, covers=covers)


def _known(of: NDArray, method: str, covers: str = "samples") -> Interval | None:
    return None if np.isnan(of).any() else _interval(of, method, covers)
