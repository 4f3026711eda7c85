"""Twins of the user's own recipe: two models, each of half of the training images, are judged."""

import hashlib
import inspect
import time
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from twinscore import images as image_sets
from twinscore.analysis import baseline
from twinscore.analysis.denoising import psnr_table
from twinscore.denoisers import Checkpoint, exported, parts, published
from twinscore.denoisers.adapters import Adapted, level_per_image
from twinscore.denoisers.user_files import importable, module_of
from twinscore.errors import Damaged, InputError, RunFailed, one_line
from twinscore.execution import Report
from twinscore.experiments import standards
from twinscore.experiments.audit.pool import Sets
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.judgement import Drawn, Standard, judge
from twinscore.experiments.study import Arrays
from twinscore.experiments.trials import distinct, open_images
from twinscore.images import Twins
from twinscore.results.audit import RecipeTwins
from twinscore.runs import derive_seed, digest, read_json, write_json
from twinscore.sampling.samples import batch_for, draw
from twinscore.training.history import SIGMAS

PIECE = "twin-"
HALVES = ("a", "b")

MOST = 512
"""Held-out images that the twins denoise, and that their samples are compared with, at most."""

_FEWEST = 2
_SEEDS = 2**31


def named(recipe: str) -> tuple[Path, str]:
    """File and name of a recipe, ``FILE.py:FUNCTION``; InputError for anything else."""
    file, _, name = recipe.rpartition(":")
    if not (file.endswith(".py") and name.isidentifier()):
        raise InputError(f"--recipe: {recipe} is not a function of a file; give FILE.py:FUNCTION")
    return Path(file), name


def check_recipe(spec: Spec) -> str:
    """Digest of a recipe's file and of what its function reaches, called by nobody yet.

    Raises
    ------
    InputError
        If there is no such function of (images, seed), no held-out image, or too few images.
    """
    if not spec.held_out:
        raise InputError("--held-out: not given; without it nobody knows what the twins learned")
    (file, name), sets = named(spec.recipe), _split(spec)
    if len(sets.a) < _FEWEST:
        raise InputError(f"--recipe: {spec.train} has too few images for two halves")
    with importable(file) as content:
        try:
            function = getattr(module_of(file, content), name)
        except Exception as error:
            raise InputError(f"--recipe: {spec.recipe}: cannot be read: {_said(error)}") from error
        try:
            signature = inspect.signature(function)
            signature.bind(None, 0)
        except (TypeError, ValueError):
            raise InputError(
                f"--recipe: {spec.recipe} does not take (images, seed); give a function that does, "
                "and that returns a denoiser, a function of (y, sigma)"
            ) from None
        return digest([content, name, parts.fingerprint(function, partly=True)])


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _split(spec: Spec) -> Twins:
    """Two halves of T that a coin dealt, by group where there are groups; near-duplicates once."""
    images, keep = open_images(spec.train), distinct(spec.train, spec.duplicates)
    own = {"test": 0, "seed": spec.seed, "among": keep}
    n = image_sets.largest_n(images, **own)
    return image_sets.twins(images, max(1, n), **own)


def cost(spec: Spec) -> str:
    """What the twins take, in words; nobody knows the time of a recipe before."""
    n = len(_split(spec).a)
    return f"two trainings of {n:,} images each by {spec.recipe}, whose time comes on top"


def measure(
    spec: Spec, sets: Sets, name: str, file: Path, device: torch.device, report: Report
) -> Arrays:
    """Train one of the twins, or read it, and measure it.

    Parameters
    ----------
    name : str
        Of the piece: ``PIECE`` and one of ``HALVES``.
    file : Path
        Where the trained network is kept.

    Returns
    -------
    dict
        ``samples``: (S, C, H, W), from the noise of both twins; ``psnr``: (K, T) dB of held-out
        images at ``SIGMAS``.
    """
    own = getattr(_split(spec), name.removeprefix(PIECE))
    model = _kept(file, name, report) or _made(spec, sets.train[own], name, file, report)
    model = replace(model, shape=sets.train.shape, mean=tuple(sets.train.mean()))
    batch = batch_for(sets.train.shape)
    psnr = psnr_table(
        model.on(device),
        _held_out(spec, sets).to(device),
        SIGMAS,
        seed=derive_seed(spec.seed, "recipe", "psnr"),
        batch=batch,
    )
    seeds = np.array([derive_seed(spec.seed, "image", i) for i in range(spec.recipe_samples)])
    samples, _ = draw(model, seeds, spec.sampling, batch=batch, device=device)
    return {"samples": samples, "psnr": psnr.cpu().numpy()}


def _held_out(spec: Spec, sets: Sets) -> Tensor:
    order = np.random.default_rng(spec.seed).permutation(len(sets.held_out))
    return sets.held_out[np.sort(order[:MOST])]


def _kept(file: Path, name: str, report: Report) -> Checkpoint | None:
    """A network that an earlier run trained."""
    if not file.exists():
        return None
    try:
        if read_json(_seal(file)).get("sha256_of_program") != _digest(file):
            raise Damaged(f"{file}: is not as it was written")
        return exported.read_program(str(file))
    except InputError as error:
        report(name, {"text": f"{error}; trained again"})
        return None


def _made(spec: Spec, images: Tensor, piece: str, file: Path, report: Report) -> Checkpoint:
    """Call the recipe, and keep its network as a program that torch exports, where that is one."""
    (path, name), half = named(spec.recipe), piece.removeprefix(PIECE)
    seed = derive_seed(spec.seed, "recipe", half) % _SEEDS
    began = time.monotonic()
    report(piece, {"text": f"{spec.recipe} trains on {len(images):,} images, half {half.upper()}"})
    with importable(path) as content, torch.random.fork_rng(devices=[]):
        try:
            found = getattr(module_of(path, content), name)(images, seed)
        except Exception as error:  # whatever a function of the user's own may raise
            raise RunFailed(f"{spec.recipe}: failed: {_said(error)}") from error
    took = time.monotonic() - began
    report(piece, {"text": f"half {half.upper()} was trained in {took:.0f} seconds"})
    denoiser = _returned(spec, found)
    why = _export(denoiser, images, file)
    if why is None:
        return exported.read_program(str(file))
    report(piece, {"text": f"half {half.upper()} cannot be kept, and so not be resumed: {why}"})
    return _unknown(denoiser)


def _returned(spec: Spec, found: Any) -> Any:
    """The denoiser that a recipe returned, alone or in a Checkpoint; RunFailed for others."""
    denoiser = found.denoiser if isinstance(found, Checkpoint) else found
    if callable(denoiser):
        return denoiser
    raise RunFailed(
        f"{spec.recipe}: returned {type(found).__name__}; return a denoiser, a function of "
        "(y, sigma), or Checkpoint(denoiser, shape, mean)"
    )


def _unknown(denoiser: Any) -> Checkpoint:
    """With nothing known of its images; any denoiser is called with the level as a tensor."""
    own = denoiser if isinstance(denoiser, Adapted) else level_per_image(denoiser)
    return Checkpoint(own.eval(), (None, None, None), (published.UNKNOWN_MEAN,))


def _export(denoiser: Any, images: Tensor, file: Path) -> str | None:
    """Write a network with its code; why it cannot be written, or None."""
    if not isinstance(denoiser, nn.Module):
        return "it is not a torch module"
    y = images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1)
    free = {0: torch.export.Dim.DYNAMIC}
    try:
        exported.write_program(denoiser.cpu(), (y, torch.full((2,), 0.5)), (free, free), file)
    except Exception as error:  # the exporter may raise anything
        return shorten(_said(error), 200, placeholder=" ...")
    write_json(_seal(file), {"sha256_of_program": _digest(file)})
    return None


def _seal(file: Path) -> Path:
    return file.with_suffix(".json")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def judged(spec: Spec, sets: Sets, given: dict[str, Arrays]) -> RecipeTwins | None:
    """The verdict on the twins, taken out of what all pieces gave; None without them."""
    pair = [given.pop(f"{PIECE}{half}") for half in HALVES if f"{PIECE}{half}" in given]
    if len(pair) < len(HALVES):
        return None
    split, held_out = _split(spec), _held_out(spec, sets)
    halves = sets.train[split.a], sets.train[split.b]
    rule = image_sets.resolve(sets.train, "auto")
    large = np.prod(sets.train.shape) > standards.MOST_VALUES
    standard = Standard(
        deal=lambda split: standards.dealt(sets.train, rule, split),
        baseline=None if large else _baseline(spec, torch.cat(halves), held_out),
    )
    drawn = Drawn(
        samples=[tuple(torch.from_numpy(of["samples"]) for of in pair)],
        training=[halves],
        controls=[halves[::-1]],
        splits=[split],
        held_out=(held_out, held_out),
        psnr=np.mean([of["psnr"] for of in pair], 0)[None],
    )
    found, _ = judge(drawn, standard, derive_seed(spec.seed, "recipe", "verdict"))
    fields = {name: found.get(name) for name in RecipeTwins.model_fields if name != "n"}
    return RecipeTwins(n=len(split.a), **fields)


def _baseline(spec: Spec, fitted: Tensor, held_out: Tensor) -> Any:
    """PSNR of a Gaussian that is told the level, fitted to both halves, (1, K, T)."""
    denoiser, seed = baseline.fitted(fitted), derive_seed(spec.seed, "recipe", "psnr")
    return psnr_table(denoiser, held_out, SIGMAS, seed=seed).numpy()[None]
