"""Exact search for the images most similar to each sample, over all views, in bounded memory."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.audit.views import Kind, Pair

NEAREST = 50
"""Images that a sample's distances are measured against."""

_ENTRIES = 2**26
"""Similarities held at once, twice (256 MiB of float32 each)."""

_CACHED = 2**22
"""Similarities that a processor may still have at hand when it looks for the largest."""

_GROUP = 32
"""Images whose largest similarity is looked at first."""


@dataclass(frozen=True, eq=False)
class Near:
    """The most similar images of each of V voters, most similar first.

    Attributes
    ----------
    similarity : array
        (V, k) float32, cosines.
    image : array
        (V, k) int64.
    """

    similarity: NDArray[np.float32]
    image: NDArray[np.int64]


def search(
    samples: Tensor, blocks: Iterable[tuple[int, Tensor]], kind: Kind, count: int = NEAREST
) -> Near:
    """The ``count`` images most similar to each voter, by the largest cosine over all views.

    Parameters
    ----------
    samples : Tensor
        (S, c, side, side), as the kind looks at them; voter ``p * S + i`` is sample i at place p.
    blocks : iterable of (int, Tensor)
        Parts of the pool: the index of their first image, and images (B, c, side, side), as the
        kind looks at them, on the device of the samples.
    kind : Kind
        What is compared.
    count : int
        Images to keep for each voter, or all if the pool has fewer.

    Returns
    -------
    Near
        Cost: S P k products for each pair of views of k values; memory that of a view of all
        samples, a block, and ``_ENTRIES`` similarities, twice.
    """
    found: Near | None = None
    for first, block in blocks:
        for part in block.split(max(1, _ENTRIES // len(samples))):
            here = _of_block(samples, part, kind, count)
            here = Near(here.similarity, here.image + first)
            found = here if found is None else merged([found, here], count)
            first += len(part)
    if found is None:
        raise ValueError("the pool has no images")
    return found


def merged(parts: Iterable[Near], count: int = NEAREST) -> Near:
    """The same of several parts of a pool, whose images have numbers of their own.

    Of equal similarities the image with the smaller number comes first, so that the order of parts
    does not matter.
    """
    parts = list(parts)
    similarity = np.concatenate([part.similarity for part in parts], 1)
    image = np.concatenate([part.image for part in parts], 1)
    order = np.lexsort((image, -similarity), axis=1)[:, :count]
    return Near(np.take_along_axis(similarity, order, 1), np.take_along_axis(image, order, 1))


def _of_block(samples: Tensor, block: Tensor, kind: Kind, count: int) -> Near:
    found = []
    for pairs in kind.pairs:
        best: dict[int, Tensor] = {}
        for pair in pairs:
            image = pair.of_image(block).T
            vectors = pair.of_sample(samples).split(max(1, _CACHED // len(block)))
            for part, rows in enumerate(vectors):
                cosine = rows @ image
                known = best.get(part)
                best[part] = cosine if known is None else torch.maximum(known, cosine, out=known)
                if pair is pairs[-1]:
                    found.append(_largest(best.pop(part), min(count, len(block))))
    values, index = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
    return merged([Near(values, index)], count)


def _largest(table: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As ``table.topk(count)``, which is slow for long rows.

    The largest entries lie in the groups with the largest maxima.
    """
    rows, columns = table.shape
    groups = columns // _GROUP
    if groups < 4 * count:
        return table.topk(count, 1)
    whole = table[:, : groups * _GROUP].view(rows, groups, _GROUP)
    chosen = whole.amax(2).topk(count, 1, sorted=False).indices
    inside = chosen[:, :, None] * _GROUP + torch.arange(_GROUP, device=table.device)
    rest = torch.arange(groups * _GROUP, columns, device=table.device).expand(rows, -1)
    candidates = torch.cat([inside.flatten(1), rest], 1)
    top = table.gather(1, candidates).topk(count, 1)
    return top.values, candidates.gather(1, top.indices)


def best_pair(sample: Tensor, image: Tensor, kind: Kind, place: int) -> tuple[Pair, float]:
    """The views of a sample and an image, (C, H, W), that are the most alike, and their cosine."""
    sample, image = (kind.look(x[None]) for x in (sample, image))
    cosines = [
        float(pair.of_sample(sample)[0] @ pair.of_image(image)[0]) for pair in kind.pairs[place]
    ]
    best = max(range(len(cosines)), key=cosines.__getitem__)
    return kind.pairs[place][best], cosines[best]
