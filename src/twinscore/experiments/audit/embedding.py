"""Images as vectors of the user's own embedding: one more way in which they are compared."""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from twinscore.analysis.audit.views import Kind, Pair
from twinscore.denoisers import onnx, parts
from twinscore.denoisers.checkpoint import state_digest
from twinscore.denoisers.user_files import called, identified
from twinscore.errors import InputError, one_line

BATCH = 64

Embedding = Callable[[Tensor], Tensor]
"""(B, C, H, W) to (B, k)."""


def _direction(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.flatten(1), dim=1)


def kind_of(source: str) -> Kind:
    """Cosine similarity of :func:`features`."""
    pair = Pair(_direction, _direction, {})
    return Kind("embedding", 1, ("whole",), ((pair,),), partial(features, source=source))


@lru_cache(maxsize=1)
def opened(source: str) -> tuple[Embedding, str]:
    """The embedding of ``FILE.py:FUNCTION`` or ``FILE.onnx``, and a digest of all it computes from.

    Its networks are in evaluation mode.

    Raises
    ------
    InputError
        If there is no such function, it returns nothing that can be called, the file cannot be
        read, or part of what it computes from cannot be seen.
    """
    if source.endswith(".onnx"):
        return _onnx(Path(source))
    found = re.fullmatch(r"(.+\.py):(\w+)", source)
    if not found:
        raise InputError(
            f"embedding: {source!r} is not FILE.onnx or FILE.py:FUNCTION, a function that takes "
            "nothing and returns an embedding, (B, C, H, W) to (B, k)"
        )
    embedding, content = called(Path(found[1]), found[2])
    if not callable(embedding):
        raise InputError(
            f"embedding: {source} returned {type(embedding).__name__}; return a function of images"
        )
    for network in parts.networks(embedding):
        network.eval()
    return embedding, state_digest(embedding, f"{content} {identified(embedding, source)}")


def _onnx(file: Path) -> tuple[Embedding, str]:
    """The first output of a network, of images as its first input."""
    try:
        session, content = onnx.opened(file)
    except InputError as error:
        raise InputError(f"embedding: {error}") from None
    name = session.get_inputs()[0].name

    def embed(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.float().numpy()})[0])

    return embed, content


@torch.no_grad()
def features(images: Tensor, *, source: str) -> Tensor:
    """Vectors of images (N, C, H, W), (N, k, 1, 1), float32.

    Raises
    ------
    InputError
        If the embedding does not give one finite vector for each image.
    """
    embedding, parts = opened(source)[0], []
    for batch in images.split(BATCH):
        vectors = _called(embedding, batch, source)
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


def _called(embedding: Embedding, images: Tensor, source: str) -> Tensor:
    try:
        return embedding(images)
    except Exception as error:  # of the user's own code
        what = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(
            f"embedding: {source} fails on images {tuple(images.shape)}: {what}"
        ) from error
