"""The noise level as closed forms take it."""

import math
import sys

import torch
from torch import Tensor
from torch.autograd import forward_ad

Level = float | Tensor | None


def variance_of(sigma: Level, y: Tensor) -> Tensor:
    """``sigma^2`` as a (B, 1) or (1, 1) tensor like ``y``.

    Raises
    ------
    ValueError
        If ``sigma`` is missing, not positive, so small that its square underflows, or neither a
        number nor of shape (B,).
    """
    if sigma is None:
        raise ValueError("this denoiser needs the noise level; pass sigma")
    level = torch.as_tensor(sigma, dtype=y.dtype, device=y.device)
    if level.ndim > 1 or (level.ndim == 1 and level.shape[0] != y.shape[0]):
        raise ValueError(f"sigma must be a float or of shape ({len(y)},), got {tuple(level.shape)}")
    least = math.sqrt(torch.finfo(y.dtype).tiny)
    fits = (level >= least) & (level < math.inf)
    if not torch.compiler.is_compiling() and not fits.all():  # a graph takes values as they are
        raise ValueError(
            f"sigma must be positive and finite, and at least {least:.2g}, below which its square "
            f"is lost in {str(y.dtype).removeprefix('torch.')}; got {level[~fits][0]:.3g}"
        )
    return level.reshape(-1, 1).square()


def differentiated(level: Tensor) -> bool:
    """Whether a derivative is being taken in the noise level, in reverse or forward mode."""
    return level.requires_grad or forward_ad.unpack_dual(level).tangent is not None


def positive(sigma: float) -> float:
    """The noise level of an expected error, once checked.

    Raises
    ------
    ValueError
        If it is not positive and finite, or its square is not.
    """
    if not (sigma > 0 and sys.float_info.min <= sigma * sigma < math.inf):
        raise ValueError(f"sigma must be positive and finite, and its square too; got {sigma}")
    return sigma


def finite(mean: Tensor) -> Tensor:
    """A mean, once checked.

    Raises
    ------
    ValueError
        If it holds NaN or infinity.
    """
    if not torch.isfinite(mean).all():
        raise ValueError("the mean holds NaN or infinity")
    return mean


def centred(y: Tensor, mean: Tensor) -> Tensor:
    """``y - mean``, flattened to (B, d).

    Raises
    ------
    ValueError
        If the images do not have the mean's shape.
    """
    if y.shape[1:] != mean.shape:
        raise ValueError(
            f"this denoiser is for images of shape {tuple(mean.shape)}, got {tuple(y.shape[1:])}"
        )
    return (y - mean.to(y)).flatten(1)
