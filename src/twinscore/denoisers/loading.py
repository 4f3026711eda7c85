"""Model strings: what ``--model`` takes becomes a denoiser and what is known of its images.

``trial/folder``, ``weights.safetensors``, ``lcv:model.pt``, ``diffusers:folder``,
``onnx:model.onnx``, ``torch-export:model.pt2``, ``torchscript:model.pt``,
``mine.py:function``, ``empirical:digits``, ``gaussian:photos,size=16``, ``local:digits,patch=7``,
``threshold:wavelets``.
Prefixes win over paths: ``./lcv:x`` is a file.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from twinscore.denoisers import (
    checkpoint,
    exported,
    fitted,
    named_thresholds,
    onnx,
    published,
)
from twinscore.denoisers.adapters import Adapted, level_per_image
from twinscore.denoisers.checkpoint import Checkpoint
from twinscore.denoisers.user_files import called, identified
from twinscore.errors import InputError
from twinscore.execution import settled_torch


@settled_torch()
def load(model: str | Path, *, network: Callable[[int], nn.Module] | None = None) -> Checkpoint:
    """Open the denoiser that a model string names.

    Parameters
    ----------
    model : str or Path
        A trial folder or its weights file; ``lcv:PATH``, a checkpoint published with [GAHB], or its
        folder (with ``,first=relu`` for a BF-CNN whose first layer has a ReLU);
        ``diffusers:PATH``, a folder that the library diffusers wrote (with ``,class=K`` for a
        network of classes, ``,guidance=W`` and, last, ``,prompt=TEXT``); ``onnx:FILE.onnx``,
        ``torch-export:FILE.pt2`` and ``torchscript:FILE.pt``, an exported denoiser;
        ``FILE.py:FUNCTION``, a function of the user's own that takes nothing and returns a
        denoiser, or a :class:`~twinscore.denoisers.Checkpoint` that also gives the images' shape
        and mean;
        ``gaussian:SOURCE`` and ``empirical:SOURCE``, the closed forms of the images of a source
        (:func:`twinscore.images.load`); ``local:SOURCE``, that of their patches
        (``denoisers.fitted.local``); ``threshold:BASIS``, a shrinkage estimator
        (``denoisers.named_thresholds``).
    network : callable, optional
        For weights of a network of the user's own: the factory that made it, ``network(channels)``.

    Returns
    -------
    Checkpoint
        Ready for every sampler and analysis: a network is in evaluation mode, on the CPU.

    Raises
    ------
    InputError
        If there is no such model, or it cannot be used.

    Examples
    --------
    >>> from twinscore import denoisers
    >>> denoisers.load("gaussian:digits").shape
    (1, 8, 8)
    """
    if network is not None or isinstance(model, Path):
        return checkpoint.read(Path(model), network)
    kind, _, body = model.partition(":")
    if body and kind in _KINDS:
        return _KINDS[kind](body)
    if function := re.fullmatch(r"(.+\.py):(\w+)", model):
        return _returned(Path(function[1]), function[2])
    return checkpoint.read(Path(model))


def _published(body: str) -> Checkpoint:
    path = body.removesuffix(",first=relu")
    return published.read(Path(path), first_relu=path != body)


def _pipeline(body: str) -> Checkpoint:
    from twinscore.denoisers import pipeline_folders

    return pipeline_folders.read(body)


_KINDS: dict[str, Callable[[str], Checkpoint]] = {
    "lcv": _published,
    "diffusers": _pipeline,
    "onnx": onnx.read,
    "torch-export": exported.read_program,
    "torchscript": exported.read_script,
    "gaussian": fitted.gaussian,
    "empirical": fitted.empirical,
    "local": fitted.local,
    "threshold": named_thresholds.thresholding,
}


KINDS = tuple(_KINDS)
"""Prefixes of model strings."""


def _returned(file: Path, name: str) -> Checkpoint:
    """The denoiser of a function; any is called with the noise level as a (B,) tensor."""
    found, content = called(file, name)
    nothing_known = (None, None, None), (published.UNKNOWN_MEAN,)
    known = found if isinstance(found, Checkpoint) else Checkpoint(found, *nothing_known)
    if not callable(known.denoiser):
        raise InputError(
            f"{file}:{name}: returned {type(found).__name__}; return a denoiser, a function of "
            "(y, sigma), or Checkpoint(denoiser, shape, mean)"
        )
    own = known.content or identified(known.denoiser, f"{file}:{name}")
    made = isinstance(known.denoiser, Adapted)
    denoiser = known.denoiser if made else level_per_image(known.denoiser)
    return replace(known, denoiser=denoiser.eval(), content=f"{content} {name} {own}")
