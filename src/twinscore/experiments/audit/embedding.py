"""Images as vectors of the user's own embedding: one more way in which they are compared."""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from twinscore.analysis.audit.views import Kind, Pair
from twinscore.denoisers.loading import called
from twinscore.errors import InputError
from twinscore.images import ImageSet

BATCH = 64

Embedding = Callable[[Tensor], Tensor]
"""(B, C, H, W) to (B, k)."""


def _direction(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.flatten(1), dim=1)


KIND = Kind("embedding", 1, ("whole",), ((Pair(_direction, _direction, {}),),))
"""Cosine similarity of :func:`features`."""


@lru_cache(maxsize=1)
def opened(source: str) -> tuple[Embedding, str]:
    """The embedding that ``FILE.py:FUNCTION`` returns, and the digest of the file.

    Raises
    ------
    InputError
        If there is no such function, or it returns nothing that can be called.
    """
    found = re.fullmatch(r"(.+\.py):(\w+)", source)
    if not found:
        raise InputError(
            f"embedding: {source!r} is not FILE.py:FUNCTION, a function that takes nothing and "
            "returns an embedding, (B, C, H, W) to (B, k)"
        )
    embedding, content = called(Path(found[1]), found[2])
    if not callable(embedding):
        raise InputError(
            f"embedding: {source} returned {type(embedding).__name__}; return a function of images"
        )
    return embedding, content


@torch.no_grad()
def features(images: ImageSet, start: int, stop: int, *, source: str) -> Tensor:
    """Vectors of images ``start`` to ``stop``, (n, k, 1, 1), float32.

    Raises
    ------
    InputError
        If the embedding does not give one finite vector for each image.
    """
    embedding, parts = opened(source)[0], []
    for first in range(start, stop, BATCH):
        batch = images[first : min(first + BATCH, stop)]
        vectors = embedding(batch)
        if not (isinstance(vectors, Tensor) and vectors.ndim == 2 and len(vectors) == len(batch)):
            shape = tuple(getattr(vectors, "shape", ()))
            raise InputError(
                f"embedding: {source} gives {type(vectors).__name__} of shape {shape} for "
                f"{len(batch)} images; give ({len(batch)}, k)"
            )
        if not torch.isfinite(vectors).all():
            raise InputError(f"embedding: {source} gives NaN or infinity")
        parts.append(vectors.float().cpu()[:, :, None, None])
    return torch.cat(parts)
