"""The evidence of an audit: pairs of a sample and an image, how one shows the other, pictures."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from twinscore.analysis.audit.ballots import Ballots
from twinscore.analysis.audit.search import best_pair
from twinscore.analysis.audit.views import difference
from twinscore.experiments.audit.pool import Sets
from twinscore.experiments.audit.searching import kinds_of
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.audit.votes import Votes
from twinscore.experiments.study import Arrays
from twinscore.results.audit import Match, Transform

PICTURED = 24
"""Matches whose pictures are kept, at most; and as many decoys as a quarter of them."""

LARGEST_PICTURE = 128

AS_NEAR = 0.05
"""Relative distances that differ by less say that a sample shows an image as well either way."""


def matches(spec: Spec, sets: Sets, votes: Votes, ranks: Sequence[int]) -> list[Match]:
    """The pairs at some ranks, from 0, with how the sample shows the image."""
    kinds = kinds_of(spec)
    of, found = votes.all, []
    strongest = np.bincount(of.image[votes.best], minlength=sets.images)
    for rank in ranks:
        row = _plainest(of, votes.order[rank])
        image, sample, place = int(of.image[row]), int(of.sample[row]), int(of.place[row])
        kind = kinds[of.kind[row]]
        what = best_pair(sets.samples[sample], sets.image(image), kind, place)[0].what
        pixels = {name: what.get(name, 0) / kind.side for name in ("down", "right")}
        found.append(
            Match(
                rank=rank + 1,
                image=image if image < len(sets.train) else image - len(sets.train),
                name=sets.name(image),
                sample=sample,
                sample_name=sets.samples.names[sample],
                score=float(of.strength[votes.order[rank]]),
                distance=float(of.distance[row]),
                votes=int(strongest[image]),
                transform=Transform(kind=kind.name, place=kind.places[place], **what | pixels),
            )
        )
    return found


def _plainest(votes: Ballots, row: int) -> int:
    """The vote of the same sample for the same image that says the most: whole before a tile."""
    same = (votes.sample == votes.sample[row]) & (votes.image == votes.image[row])
    near = np.flatnonzero(same & (votes.distance <= votes.distance[row] + AS_NEAR))
    return int(near[np.argmin(votes.kind[near])])


def pictures(sets: Sets, trained: Sequence[Match], decoys: Sequence[Match]) -> Arrays:
    """Sample, image as the sample shows it, and difference of each pair, (K, C, H, W)."""
    arrays = {}
    for name, pairs, images in (
        ("matches", trained[:PICTURED], sets.train),
        ("decoys", decoys[: PICTURED // 4], sets.held_out),
    ):
        if not pairs:
            continue
        sample, image = (
            torch.cat([picture(of[[i]]) for i in rows])
            for of, rows in (
                (sets.samples, [m.sample for m in pairs]),
                (images, [m.image for m in pairs]),
            )
        )
        laid = torch.cat([aligned(x[None], m.transform) for x, m in zip(image, pairs, strict=True)])
        left = [difference(x, y) for x, y in zip(sample, laid, strict=True)]
        arrays |= {
            f"{name}/sample": sample.numpy(),
            f"{name}/image": image.numpy(),
            f"{name}/laid": laid.numpy(),
            f"{name}/difference": torch.stack(left).numpy(),
        }
    return arrays


def picture(image: Tensor) -> Tensor:
    """One image (1, C, H, W), at most ``LARGEST_PICTURE`` pixels large."""
    _, _, height, width = image.shape
    shrink = min(1.0, LARGEST_PICTURE / max(height, width))
    if shrink == 1:
        return image
    shape = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    return F.interpolate(image, shape, mode="bilinear", antialias=True)


def aligned(image: Tensor, how: Transform) -> Tensor:
    """An image (1, C, H, W) mirrored, moved and zoomed as a sample shows it; edges are repeated."""
    if how.kind == "tiles" and not how.mirrored:
        return image
    mirror = -1.0 if how.mirrored else 1.0
    theta = torch.tensor(
        [
            [mirror / how.zoom, 0, -2 * how.right / how.zoom],
            [0, 1 / how.zoom, -2 * how.down / how.zoom],
        ]
    )
    grid = F.affine_grid(theta[None], list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)
