"""What ``import twinscore as ts`` offers by short names: models, samples, and what is in them.

``ts.load``, ``ts.sample``, ``ts.score``, ``ts.sure``, ``ts.eigenpairs``, ``ts.nearest``,
``ts.transition`` and ``ts.audit``; each is imported when it is first used. (``ts.figures`` is
:func:`twinscore.report.page.figures`.)
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from twinscore.analysis.jacobian import Eigenpairs, linearise, symmetric_eigenpairs
from twinscore.analysis.similarity import nearest
from twinscore.analysis.sure import sure
from twinscore.denoisers import Checkpoint, load, score
from twinscore.denoisers.checkpoint import sized
from twinscore.experiments.audit import run as audit
from twinscore.experiments.transition import run as transition
from twinscore.runs import derive_seed
from twinscore.sampling import SamplingSpec
from twinscore.sampling.samples import batch_for, draw

__all__ = ["audit", "eigenpairs", "load", "nearest", "sample", "score", "sure", "transition"]


def sample(
    model: Checkpoint,
    count: int,
    *,
    seed: int = 0,
    size: int | None = None,
    device: torch.device | str = "cpu",
    **sampling: Any,
) -> Tensor:
    """Draw samples of a model, the same as ``twinscore sample``.

    Parameters
    ----------
    model : Checkpoint
        As :func:`~twinscore.denoisers.load` gives it.
    count : int
        S.
    seed : int
        Sample i is a function of (seed, i) only.
    size : int, optional
        Side of the samples in pixels, where it is not that of the model's images.
    device : torch.device or str
        Where the denoiser runs.
    **sampling
        Fields of :class:`~twinscore.sampling.SamplingSpec`, such as ``quality="draft"``.

    Returns
    -------
    Tensor
        (S, C, H, W) float32, not clipped; a path that was lost is NaN.

    Raises
    ------
    ValueError
        For a count below 1, a field that is not one of sampling, or a size that does not suit.

    Examples
    --------
    >>> import twinscore as ts
    >>> model = ts.load("gaussian:digits")
    >>> ts.sample(model, 4, seed=0, quality="draft").shape
    torch.Size([4, 1, 8, 8])
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    model = sized(model, size)
    seeds = np.array([derive_seed(seed, "image", i) for i in range(count)])
    spec = SamplingSpec(**sampling)
    shape = cast(tuple[int, int, int], model.shape)  # sized knows all of it
    samples, _ = draw(model, seeds, spec, batch=batch_for(shape), device=device)
    return torch.from_numpy(samples)


def eigenpairs(
    model: Checkpoint, y: Tensor, sigma: float | None = None, k: int = 16, **options: Any
) -> Eigenpairs:
    """The k largest eigenvalues of a model's Jacobian (its symmetric part) at a noisy image.

    Parameters
    ----------
    model : Checkpoint
        Or any denoiser.
    y : Tensor
        (C, H, W) or (1, C, H, W).
    sigma : float, optional
        Noise level, image units; a blind denoiser needs none.
    k : int
        How many pairs.
    **options
        Of :func:`~twinscore.analysis.jacobian.symmetric_eigenpairs`; errors as there.

    Returns
    -------
    Eigenpairs
        Values, and vectors (k, d).

    Examples
    --------
    >>> import twinscore as ts
    >>> model = ts.load("gaussian:digits")
    >>> y = ts.sample(model, 1, seed=0)
    >>> pairs = ts.eigenpairs(model, y, 0.3, k=3)
    >>> pairs.vectors.shape, bool((pairs.values < 1).all())
    (torch.Size([3, 64]), True)
    """
    denoiser = getattr(model, "denoiser", model)
    around = linearise(denoiser, y if y.ndim == 4 else y[None], sigma)
    return symmetric_eigenpairs(around, k, **options)
