"""Controls of a model: the one that it was fine-tuned from, and an autoencoder that it works with.

Both are tested as the model is, by their errors on training and held-out images: so that a gap is
blamed on what has it.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.audit import membership as measures
from twinscore.analysis.audit.search import search
from twinscore.analysis.audit.views import kinds
from twinscore.denoisers import parts
from twinscore.denoisers.checkpoint import model_digest, state_digest
from twinscore.denoisers.loading import called, identified
from twinscore.errors import InputError, one_line
from twinscore.execution import Report
from twinscore.experiments.audit import membership
from twinscore.experiments.audit.pool import Sets, Units, blocks, seen
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.study import Arrays
from twinscore.experiments.trials import open_model
from twinscore.images import ImageSet
from twinscore.results.audit import SIGNIFICANCE, Autoencoder, Base, Culprit, Gap, Membership, Votes
from twinscore.runs import derive_seed
from twinscore.sampling.samples import batch_for

PIECE = "controls"

Reconstruct = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] to what an autoencoder makes of them, of the same shape."""


def wanted(spec: Spec) -> bool:
    """Whether there is anything to control for."""
    own = bool(spec.model) and open_model(spec.model).latents is not None
    return bool(spec.base or spec.autoencoder) or own


@lru_cache(maxsize=1)
def _opened(source: str) -> tuple[Reconstruct, str]:
    """The autoencoder of ``FILE.py:FUNCTION``, and a digest of all that it computes from."""
    found = re.fullmatch(r"(.+\.py):(\w+)", source)
    if not found:
        raise InputError(
            f"--autoencoder: {source!r} is not FILE.py:FUNCTION, a function that takes nothing and "
            "returns one of images (B, C, H, W) to their reconstructions"
        )
    made, content = called(Path(found[1]), found[2])
    if not callable(made):
        raise InputError(
            f"--autoencoder: {source} returned {type(made).__name__}; return a function of images"
        )
    for network in parts.networks(made):
        network.eval()
    return made, state_digest(made, f"{content} {identified(made, source)}")


def reconstruction(spec: Spec, device: torch.device | str) -> Reconstruct | None:
    """What the autoencoder makes of images: that which is given, or that of the model's pipeline.

    None for a model of pixels without one.
    """
    if spec.autoencoder:
        made = _opened(spec.autoencoder)[0]
        for network in parts.networks(made):
            network.to(device)
        return made
    space = open_model(spec.model).within(device) if spec.model else None
    if space is None or open_model(spec.model).latents is None:
        return None
    return lambda images: space.decode(space.encode(images))


def check_controls(spec: Spec, train: ImageSet) -> Mapping[str, Any]:
    """Refuse a base and an autoencoder that do not take the images; their digests."""
    _opened.cache_clear()  # the file may have changed since an earlier run of this process
    own = {}
    if spec.base:
        if not spec.model:
            raise InputError("--base: is a control for a model; add --model")
        membership.try_model(spec.model_copy(update={"model": spec.base}), train, "base")
        own["base_digest"] = model_digest(open_model(spec.base))
    if spec.autoencoder:
        own["autoencoder_digest"] = _opened(spec.autoencoder)[1]
        _reconstructed(spec, reconstruction(spec, "cpu"), train[:1])
    return own


@torch.no_grad()
def _reconstructed(spec: Spec, reconstruct: Reconstruct, images: Tensor) -> Tensor:
    """Images from the user's own function; InputError where it fails or gives something else."""
    where = f"--autoencoder: {spec.autoencoder or spec.model}"
    try:
        found = reconstruct(images)
    except Exception as error:  # of the user's own code
        what = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{where}: fails on images {tuple(images.shape)}: {what}") from error
    if not isinstance(found, Tensor) or found.shape != images.shape:
        shape = tuple(getattr(found, "shape", ()))
        raise InputError(f"{where}: gives {shape} for images {tuple(images.shape)}")
    if not torch.isfinite(found).all():
        raise InputError(f"{where}: gives NaN or infinity")
    return found


def measure(spec: Spec, sets: Sets, device: torch.device, report: Report) -> Arrays:
    """Mean squared errors per pixel of the pool: ``base`` (P, K), ``autoencoder`` (P, 1).

    And of each sample, the image whose reconstruction is nearest to it: ``coded`` (S,).
    """
    found = {}
    if spec.base:
        found["base"] = membership.errors(spec, sets, open_model(spec.base), device, report)
    if reconstruct := reconstruction(spec, device):
        rows, size = [], batch_for(sets.train.shape)
        for images in sets.pool:
            for start in range(0, len(images), size):
                x = images[start : min(start + size, len(images))].to(device)
                left = (_reconstructed(spec, reconstruct, x) - x).double()
                rows.append(left.square().flatten(1).mean(1, keepdim=True).cpu().numpy())
        found["autoencoder"] = np.concatenate(rows)
        found["coded"] = _coded(spec, sets, reconstruct, device)
    return found


def _coded(
    spec: Spec, sets: Sets, reconstruct: Reconstruct, device: torch.device
) -> NDArray[np.int64]:
    """Of each sample, the image of the pool whose reconstruction is the most similar, as a whole.

    A decoder can draw no copy that is nearer. Cost: a reconstruction of every image, and one search
    of whole images.
    """
    side = min(spec.side, *sets.train.shape[1:])
    whole = next(kind for kind in kinds(side, 0.0, lambda x: x) if kind.name == "whole")

    def look(images: Tensor) -> Tensor:
        return whole.look(_reconstructed(spec, reconstruct, images.to(device)))

    samples = seen(sets.samples, 0, len(sets.samples), whole.look).to(device)
    return search(samples, blocks(sets, 0, sets.images, look), whole, 1).image[:, 0]


def judged(
    spec: Spec,
    units: Units,
    found: Arrays,
    errors: NDArray | None,
    member: Membership | None,
    *,
    sound: bool,
) -> tuple[Base | None, Autoencoder | None]:
    """What base and autoencoder say, given the model's errors (P, K) and what they said."""
    base = autoencoder = None
    if "base" in found and errors is not None:
        base = Base(
            model=spec.base,
            own=_gap(spec, units, found["base"], sound),
            difference=_gap(spec, units, errors - found["base"], sound),
        )
    if "autoencoder" in found:
        gap = _gap(spec, units, found["autoencoder"], sound)
        source = spec.autoencoder or spec.model
        coded = bool(spec.model) and open_model(spec.model).latents is not None
        blamed = culprit(gap.p, member.p if member else None, coded=coded)
        votes = _votes(spec, units, found["coded"], sound)
        autoencoder = Autoencoder(source=source, gap=gap, culprit=blamed, samples=votes)
    return base, autoencoder


def _votes(spec: Spec, units: Units, nearest: NDArray, sound: bool) -> Votes:
    """How many samples are nearest to the reconstruction of a training image, among all."""
    there = np.unique(units.of[units.kept])
    counts = np.bincount(units.of[nearest], minlength=len(units.trained))[there]
    trained, seed = units.trained[there], derive_seed(spec.seed, "coded")
    p, _ = measures.dependence(-counts[:, None], trained, seed=seed)
    count, of = int(counts[trained].sum()), int(counts.sum())
    return Votes(count=count, of=of, chance=float(trained.mean()), p=float(p) if sound else None)


def _gap(spec: Spec, units: Units, found: NDArray, sound: bool) -> Gap:
    there = np.unique(units.of[units.kept])
    rows, trained = membership.by_unit(found, units)[there], units.trained[there]
    p, _ = measures.dependence(rows, trained, seed=derive_seed(spec.seed, "controls"))
    score = measures.combined(rows)
    auc = membership.interval(score[trained], score[~trained])
    return Gap(auc=auc, p=float(p) if sound else None)


def culprit(autoencoder: float | None, model: float | None, *, coded: bool) -> Culprit | None:
    """Which of the two has smaller errors on T, by their p; each at half the error of both.

    None where one of them has no p. ``coded``: the model's errors are those of codes, which differ
    between T and H where the autoencoder has a gap, whatever the model knows.
    """
    if autoencoder is None or model is None:
        return None
    both: Culprit = "autoencoder, and perhaps the diffusion model" if coded else "both"
    names: dict[tuple[bool, bool], Culprit] = {
        (True, False): "autoencoder",
        (False, True): "diffusion model",
        (True, True): both,
        (False, False): "neither",
    }
    return names[autoencoder <= SIGNIFICANCE / 2, model <= SIGNIFICANCE / 2]
