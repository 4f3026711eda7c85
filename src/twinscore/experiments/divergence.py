"""How far apart what twins generate can be: the KL bound between them, and their variance."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from twinscore.analysis.levels import COARSEST, interval_factor
from twinscore.analysis.optimality import kl_bound_between_twins, variance_integral
from twinscore.analysis.statistics import mean_interval
from twinscore.denoisers.checkpoint import read
from twinscore.execution import Report
from twinscore.experiments.folders import remembered
from twinscore.experiments.intervals import of_values
from twinscore.experiments.study import Arrays, Pool
from twinscore.experiments.trials import Task, Trial, open_images
from twinscore.results.base import Interval
from twinscore.results.transition import Result, TwinsKL, VarianceByLevel
from twinscore.runs import derive_seed, digest, make_within
from twinscore.training import single_device
from twinscore.training.history import SIGMAS

MOST = 128
"""Samples of each twin, and test images, that are enough: the first of them."""
LEVELS = 2 * COARSEST + 1
"""Noise levels of the least accurate integral; every other has them too."""
FOLDER = "twins_kl"

Work = Callable[[Any, Trial, Report], Arrays]
"""Measures of a trained trial, ``samples`` among them."""


@dataclass(frozen=True, kw_only=True)
class Pair(Task):
    """Trained twins of one replicate."""

    a: Trial
    b: Trial

    @property
    def name(self) -> str:
        """As in ``n00100-r0``."""
        return f"n{self.a.n:05d}-r{self.a.replicate}"

    @property
    def begun(self) -> bool:
        """Whether an earlier run compared them."""
        return any(self.folder.glob(f"{FOLDER}/{self.name}-*.safetensors"))

    @property
    def seal(self) -> str:
        """Digest of all that the weights depend on."""
        return digest([self.a.seal, self.b.seal])


def add_divergence(
    spec: Any, trials: Sequence[Trial], result: Result, pool: Pool, work: Work
) -> Result:
    """Add ``twins_kl``: the bounds between twins and their variance, at every N.

    What is measured of a pair is kept in the run's folder, and read if it is there.
    """
    pairs = [
        Pair(a=a, b=b).placed(a.folder, a.run, a.device, a.custom)
        for a, b in zip(trials[::2], trials[1::2], strict=True)
    ]
    found = {(p.a.n, p.a.replicate): of for p, of in pool(partial(measure, work, spec), pairs)}
    rows = [_row(spec, n, [found[n, r] for r in range(spec.replicates)]) for n in spec.sizes]
    return result.model_copy(update={"twins_kl": rows})


def passes(spec: Any) -> int:
    """Images that each of two twins denoises, if no integral takes more levels than it must."""
    return LEVELS * (2 * min(spec.samples, MOST) + min(spec.test, MOST))


def ends(spec: Any) -> tuple[float, float]:
    """Noise levels of the integrals: from the least that is measured elsewhere, to the training's.

    A training on little noise starts at a twentieth of its largest level.
    """
    most = spec.training.sigma_max
    return min(*SIGMAS, most / 20), most


def measure(work: Work, spec: Any, pair: Pair, report: Report) -> Arrays:
    """Compare twins, or read what was found before.

    Returns
    -------
    dict
        The fields of :class:`~twinscore.analysis.levels.LevelIntegral`, as ``variance/value``:
        those of ``variance``, ``a_from_b`` (the bound on ``KL(p_A || p_B)``) and ``b_from_a``.
        A bound is left out where fewer than two samples were drawn to the end.
    """
    drawn = [work(spec, trial, report)["samples"] for trial in (pair.a, pair.b)]
    samples = [of[of.any((1, 2, 3))][:MOST] for of in drawn]  # lost ones are black
    test, (low, high) = pair.a.test[:MOST], ends(spec)
    key = {
        "samples": [hashlib.sha256(of.tobytes()).hexdigest() for of in samples],
        "test": test.tolist(),
        "ends": [low, high],
    }

    def compute() -> Arrays:
        report(pair.name, {"text": "trained; comparing the twins"})
        device = single_device(pair.device).device
        a, b = (read(t.path, t.custom, key=t.seal).on(device) for t in (pair.a, pair.b))
        own = {"sigma_min": low, "sigma_max": high, "batch": spec.training.batch}
        own |= {"seed": derive_seed(spec.seed, "twins", pair.a.replicate)}
        images = open_images(pair.a.source)[test].to(device)
        found = {"variance": variance_integral([a, b], images, **own)}
        for name, of, (one, other) in (
            ("a_from_b", samples[0], (a, b)),
            ("b_from_a", samples[1], (b, a)),
        ):
            if len(of) > 1:
                clean = torch.from_numpy(of).to(device)
                found[name] = kl_bound_between_twins(one, other, clean, **own)
        return {f"{name}/{k}": v for name, of in found.items() for k, v in vars(of).items()}

    folder = make_within(pair.folder, pair.folder / FOLDER)
    return remembered(folder, pair.name, key, compute, of=pair.seal, report=report)


def _row(spec: Any, n: int, each: Sequence[Arrays]) -> TwinsKL:
    """Of all replicates at one N."""
    low, high = ends(spec)
    step = [(len(of["variance/sigmas"]) - 1) // (LEVELS - 1) for of in each]
    gaps = np.stack([of["variance/gaps"][::k] for of, k in zip(each, step, strict=True)])
    if len(each) > 1:
        bands = np.array([mean_interval(values) for values in gaps.T]).T
    else:
        half = interval_factor(min(spec.test, MOST)) * each[0]["variance/gap_errors"][:: step[0]]
        bands = gaps[0] + np.stack([0 * half, -half, half])
    return TwinsKL(
        n=n,
        sigma_min=low,
        sigma_max=high,
        a_from_b=_interval(each, "a_from_b", "samples"),
        b_from_a=_interval(each, "b_from_a", "samples"),
        variance=_interval(each, "variance", "images"),
        by_level=VarianceByLevel(
            sigma=each[0]["variance/sigmas"][:: step[0]].tolist(),
            **dict(zip(("variance", "low", "high"), bands.tolist(), strict=True)),
        ),
    )


def _interval(each: Sequence[Arrays], name: str, covers: str) -> Interval | None:
    """Over replicates, or over the images of one; None unless all replicates have it."""
    if not all(f"{name}/value" in of for of in each):
        return None
    value, low, high = (np.array([of[f"{name}/{k}"].item() for of in each]) for k in _ENDS)
    if len(each) > 1:
        return of_values(value)
    found = dict(zip(_ENDS, (value.item(), low.item(), high.item()), strict=True))
    return Interval(**found, method="Student's t", covers=covers)


_ENDS = ("value", "low", "high")
