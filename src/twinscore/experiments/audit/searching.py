"""The work of an audit: near-duplicates of the pool, and the images nearest to each sample."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore import images as image_sets
from twinscore.analysis.audit import shortlist
from twinscore.analysis.audit.changes import CHANGES
from twinscore.analysis.audit.search import NEAREST, Near, search
from twinscore.analysis.audit.views import Evened, Kind, kinds, reduced
from twinscore.denoisers import denoise
from twinscore.environment import Execution
from twinscore.execution import Report
from twinscore.experiments.audit import (
    checkpoints,
    controls,
    embedding,
    extraction,
    membership,
    recipe,
    sensitivity,
    signs,
)
from twinscore.experiments.audit.pool import BLOCK, blocks, opened, seen
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.estimates import Estimate, by_the_clock, core_seconds
from twinscore.experiments.folders import remembered
from twinscore.experiments.study import Arrays
from twinscore.experiments.trials import Task, open_images, open_model
from twinscore.runs import derive_seed, make_within
from twinscore.training import memory, single_device

VERSION = 3
"""Raised when the same spec gives other neighbours."""

DUPLICATES, MEMBERSHIP = "duplicates", "membership"

_SHARE, _MOST = 2e12, 16
"""Products that make a part of the search worth its own file, and the most parts."""

LONG = 1e14
"""Products of *moved* images from which those of a shortlist are compared exactly, not all."""

_TIMED = 64
"""Images of which an evaluation of the model is timed."""

PROBES = 32
"""Of each part of the pool, that measure the recall of the shortlist."""


@dataclass(frozen=True)
class Piece(Task):
    """A part of the pool that is searched, or the search for its near-duplicates."""

    name: str = ""
    part: str = "everything"
    start: int = 0
    stop: int = 0


def side_of(spec: Spec) -> int:
    """Side in pixels at which images are compared."""
    return min(spec.side, *opened(spec).train.shape[1:])


def kinds_of(spec: Spec) -> tuple[Kind, ...]:
    """The ways in which they are."""
    own = [embedding.kind_of(spec.embedding)] if spec.embedding else []
    return (*kinds(side_of(spec), spec.shift, lambda x: _evened(spec)(x)), *own)


@lru_cache(maxsize=1)
def _evened(spec: Spec) -> Evened:
    """By all images of the pool, so that nothing in it knows the sets."""
    sets = opened(spec)
    look = partial(reduced, side=side_of(spec))
    return Evened.of(part for _, part in blocks(sets, 0, sets.images, look))


def planted(spec: Spec) -> int:
    """Copies that are planted, to see which are seen: none without held-out images."""
    sets = opened(spec)
    return len(CHANGES) * min(sensitivity.SOURCES, sets.images) if sets.held_out is not None else 0


def products(spec: Spec) -> float:
    """Multiplications of the whole search."""
    kinds = [_rough(spec) if _shortlisted(spec, kind) else kind for kind in kinds_of(spec)]
    return sum(_products(spec, kind) for kind in kinds)


def _products(spec: Spec, kind: Kind) -> float:
    sets = opened(spec)
    one = torch.zeros(1, sets.train.shape[0], kind.side, kind.side)
    values = sum(pair.of_image(one).shape[1] for place in kind.pairs for pair in place)
    return float(len(sets.samples) + planted(spec)) * sets.images * values


def _shortlisted(spec: Spec, kind: Kind) -> bool:
    return kind.name == "moved" and _products(spec, kind) > LONG


def _rough(spec: Spec) -> Kind:
    return shortlist.coarse(spec.shift)


def pieces(spec: Spec, report: Report) -> list[Piece]:
    """Parts of the pool, and near-duplicates where there is a held-out set."""
    sets = opened(spec)
    count = min(_MOST, max(1, math.ceil(products(spec) / _SHARE)), sets.images)
    ends = np.linspace(0, sets.images, count + 1).astype(int).tolist()
    parts = [
        Piece(f"pool-{i:02d}", start=start, stop=stop)
        for i, (start, stop) in enumerate(pairwise(ends))
    ]
    own = [(MEMBERSHIP, bool(spec.model)), (controls.PIECE, controls.wanted(spec))]
    besides = [DUPLICATES, *(name for name, asked in own if asked)] if sets.held_out else []
    besides += checkpoints.names(spec) if spec.checkpoints else []
    besides += [recipe.PIECE + half for half in recipe.HALVES] if spec.recipe else []
    return [*parts, *map(Piece, besides)]


def work(spec: Spec, piece: Piece, report: Report) -> Arrays:
    """What a piece gives, kept in ``trials/``."""
    folder = make_within(piece.folder, piece.folder / "trials")
    key: dict[str, object] = {"version": VERSION}
    if piece.name == DUPLICATES:
        key["threshold"] = spec.duplicates
    if piece.name.startswith(checkpoints.PIECE):
        key |= checkpoints.key(spec, piece.name)
    own_work = {DUPLICATES: _duplicates, MEMBERSHIP: _errors, checkpoints.PIECE: _checkpoint}
    own_work[controls.PIECE] = _controls
    own_work |= {recipe.PIECE + half: _twin for half in recipe.HALVES}
    compute = own_work.get(piece.name.rstrip("0123456789"), _near)
    own = {"of": piece.seal, "report": report}
    return remembered(folder, piece.name, key, lambda: compute(spec, piece, report), **own)


def _near(spec: Spec, piece: Piece, report: Report) -> Arrays:
    """For each kind the nearest images to each voter: ``<kind>/similarity``, ``<kind>/image``.

    The same of planted copies: ``planted/<kind>/similarity``, ``planted/<kind>/image``;
    ``recall``: of each probe of a shortlist, whether it was found.
    """
    sets = opened(spec)
    found, of = {"recall": np.zeros(0, dtype=bool)}, kinds_of(spec)
    for number, kind in enumerate(of):
        report(piece.name, {"step": number, "steps": len(of), "note": f"{kind.name} images"})
        samples = seen(sets.samples, 0, len(sets.samples), kind.look)
        if count := planted(spec):
            samples = torch.cat([samples, sensitivity.probes(sets, spec.seed, kind.look)])
        if _shortlisted(spec, kind):
            near, found["recall"] = _from_shortlist(spec, piece, kind, samples)
        else:
            near = search(samples.to(_device(piece)), _pool(spec, piece, kind), kind, NEAREST)
        own, others = sensitivity.split(near, len(samples) - count, count)
        for name, values in vars(own).items():
            found |= {
                f"{kind.name}/{name}": values,
                f"planted/{kind.name}/{name}": vars(others)[name],
            }
    report(piece.name, {"step": len(of), "steps": len(of)})
    return found


def _pool(spec: Spec, piece: Piece, kind: Kind) -> Iterator[tuple[int, Tensor]]:
    """Blocks of a part of the pool, on its device."""
    parts = blocks(opened(spec), piece.start, piece.stop, kind.look)
    return ((first, part.to(_device(piece))) for first, part in parts)


def _device(piece: Piece) -> torch.device:
    return single_device(piece.device).device


def _from_shortlist(
    spec: Spec, piece: Piece, kind: Kind, samples: Tensor
) -> tuple[Near, NDArray[np.bool_]]:
    """The nearest images among candidates, and whether those of probes were among them."""
    sets, rough = opened(spec), _rough(spec)
    generator = np.random.default_rng(derive_seed(spec.seed, piece.name, "probes"))
    of = piece.start + generator.permutation(piece.stop - piece.start)[:PROBES]
    images = torch.cat([kind.look(sets.image(int(i))[None]) for i in of])
    moved = shortlist.probes(images, kind, generator)
    both = torch.cat([samples, moved]).to(_device(piece))
    first = search(rough.look(both), _pool(spec, piece, rough), rough, shortlist.CANDIDATES)
    near = shortlist.among(both, _pool(spec, piece, kind), kind, first.image, NEAREST)
    found = (first.image[len(samples) :] == of[:, None]).any(1)
    return Near(**{name: values[: len(samples)] for name, values in vars(near).items()}), found


def _duplicates(spec: Spec, piece: Piece, report: Report) -> Arrays:
    """Pairs of near-duplicates, (K, 2), in pool numbers: ``within`` a set, and ``spanning`` both.

    Of the latter the first is held out, the second trained on; and their ``correlation``.
    """
    sets, threshold = opened(spec), spec.duplicates
    within, offset = [], 0
    for images in sets.pool:
        found = image_sets.near_duplicates(images, threshold)
        index = np.flatnonzero(found.drop)
        within.append(np.stack([index, found.partner[index]], 1) + offset)
        offset += len(images)
    across = image_sets.near_duplicates(sets.held_out, threshold, against=sets.train)
    index = np.flatnonzero(across.drop)
    spanning = np.stack([index + len(sets.train), across.partner[index]], 1)
    return {
        "within": np.concatenate(within).astype(np.int64),
        "spanning": spanning.astype(np.int64),
        "correlation": across.correlation[index],
    }


def _errors(spec: Spec, piece: Piece, report: Report) -> Arrays:
    """Errors on both sets, what comes of paths from some of their images, and local signs."""
    sets, model, device = opened(spec), open_model(spec.model), _device(piece)
    errors = membership.errors(spec, sets, model, device, report)
    found = {"errors": errors}
    if spec.extract:
        found |= extraction.tried(spec, sets, model, errors, device, report)
        found |= signs.measure(spec, sets, model, errors, device, report)
    return found


def _controls(spec: Spec, piece: Piece, report: Report) -> Arrays:
    return controls.measure(spec, opened(spec), _device(piece), report)


def _checkpoint(spec: Spec, piece: Piece, report: Report) -> Arrays:
    return checkpoints.measure(spec, opened(spec), piece.name, _device(piece), report)


def _twin(spec: Spec, piece: Piece, report: Report) -> Arrays:
    file = piece.folder / "trials" / f"{piece.name}-{piece.seal[:8]}.pt2"
    return recipe.measure(spec, opened(spec), piece.name, file, _device(piece), report)


def _memory(spec: Spec) -> tuple[int, int]:
    """Bytes of what is done in blocks, and of the samples with their neighbours."""
    sets, side = opened(spec), side_of(spec)
    image = 4 * sets.train.shape[0] * side**2
    samples = len(sets.samples) + planted(spec)
    voters = samples * sum(len(kind.places) for kind in kinds_of(spec))
    return 6 * BLOCK * image + 2**30, samples * 4 * image + 3 * 12 * NEAREST * voters


def refuse(spec: Spec, device: str, workers: int) -> None:
    """Refuse samples that do not fit the memory."""
    each = tuple(workers * part for part in _memory(spec))
    what = f"comparing {len(opened(spec).samples):,} samples"
    memory.require(what, device, *each, side_of(spec))


def _evaluations(spec: Spec) -> int:
    """Of the model, and of its base, for errors, extraction and local signs."""
    images = opened(spec).images
    errors = images * len(spec.sigmas) * spec.draws * (2 if spec.base else 1)
    if not spec.extract:
        return errors
    return errors + min(spec.extract, images) * extraction.EVALUATIONS + signs.EVALUATIONS


@torch.no_grad()
def evaluation_seconds(spec: Spec, device: str) -> float:
    """Seconds of a core, or of the device, of one evaluation of the model for one image."""
    space = open_model(spec.model).within(single_device(device).device)
    x = space.encode(open_images(spec.train)[:_TIMED].to(single_device(device).device))
    timed = [
        core_seconds(lambda: denoise(space.denoiser, x, spec.sigmas[0]).sum().item())
        for _ in range(2)  # the first includes what is set up once
    ]
    return min(timed) / len(x)


def estimate(spec: Spec, left: int, how: Execution) -> Estimate:
    """From the times of a product and of an evaluation of the model on this machine."""
    block = torch.rand(1024, 1024, generator=torch.Generator().manual_seed(0))
    each = min(core_seconds(lambda: block @ block.T) for _ in range(3)) / 1024**3
    tasks = len(pieces(spec, lambda *_: None))
    work = 1.3 * products(spec) * each * left / tasks
    samples = len(opened(spec).samples) + planted(spec)
    voters = samples * sum(len(kind.places) for kind in kinds_of(spec))
    parts = f"{products(spec):.2g} products"
    if spec.model and opened(spec).held_out:
        work += _evaluations(spec) * evaluation_seconds(spec, how.device) * left / tasks
        parts += f", {_evaluations(spec):,} evaluations of the model"
    parts += f" and {recipe.cost(spec)}" if spec.recipe else ""
    most = memory.PROCESS + how.workers * sum(_memory(spec))
    return Estimate(parts, by_the_clock(left, work, how), most, 12 * NEAREST * voters * left)
