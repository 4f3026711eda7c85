"""The contract of every denoiser, and what follows from it: the check, the score, PSNR."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from twinscore.denoisers import parts


@runtime_checkable
class Denoiser(Protocol):
    """Maps a noisy image to its clean estimate, ``x_hat = denoiser(y, sigma)``.

    ``y = x + sigma z`` has shape (B, C, H, W), and so has the result. ``sigma`` is in image units
    (1 = the whole intensity range): a float, or a ``(B,)`` tensor like ``y``, as which every
    function of this package passes it on. A blind denoiser ignores it.
    """

    def __call__(self, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Clean estimate of ``y``."""
        ...


def per_image(sigma: float | Tensor | None, y: Tensor) -> Tensor | None:
    """The noise level as every denoiser takes it: (B,), of the dtype and on the device of ``y``.

    None, for blind denoisers, stays None.

    Raises
    ------
    ValueError
        If ``sigma`` is neither a number nor of shape (B,).
    """
    if sigma is None:
        return None
    if isinstance(sigma, int | float):
        return y.new_full((y.shape[0],), sigma)
    level = torch.as_tensor(sigma, dtype=y.dtype, device=y.device)
    if level.ndim and level.shape != (y.shape[0],):
        raise ValueError(f"sigma must be a float or of shape ({len(y)},), got {_what(level)}")
    return level.expand(y.shape[0]).contiguous()


def denoise(denoiser: Denoiser, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
    """Clean estimate of ``y`` by a denoiser that is given one noise level for each image.

    So denoisers that take only a (B,) tensor work everywhere. Shapes as in
    :func:`~twinscore.denoisers.check`.
    """
    return denoiser(y, per_image(sigma, y))


def check(denoiser: Denoiser, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
    """Denoise ``y`` once and refuse whatever breaks the contract.

    Parameters
    ----------
    denoiser : Denoiser
        Any denoiser.
    y : Tensor
        Noisy images, (B, C, H, W).
    sigma : float or Tensor or None
        Noise level, scalar or (B,), image units.

    Returns
    -------
    Tensor
        The clean estimate, (B, C, H, W), so that a caller need not evaluate twice.

    Raises
    ------
    ValueError
        If the denoiser is in training mode (its batch statistics would leak between images), if
        ``y`` is not a finite 4-d floating-point tensor, if ``sigma`` is not positive or has the
        wrong length, or if the result has the wrong shape or dtype or is not finite.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers import check
    >>> check(lambda y, sigma: y[:, :, ::2], torch.rand(2, 1, 8, 8), 0.1)
    Traceback (most recent call last):
        ...
    ValueError: the denoiser must return (2, 1, 8, 8) float32, got (2, 1, 4, 8) float32
    """
    if parts.trains(denoiser):
        raise ValueError(
            "the denoiser is in training mode, where images of a batch share statistics; "
            "call denoiser.eval() first"
        )
    if y.ndim != 4 or not y.is_floating_point():
        raise ValueError(f"y must be a floating-point (B, C, H, W) tensor, got {_what(y)}")
    if not torch.isfinite(y).all():
        raise ValueError("y holds NaN or infinity")
    if sigma is not None:
        given = torch.as_tensor(sigma)
        if not (given > 0).all() or not torch.isfinite(given).all():
            raise ValueError("sigma must be positive and finite")
    x_hat = denoise(denoiser, y, sigma)
    if not isinstance(x_hat, Tensor) or x_hat.shape != y.shape or x_hat.dtype != y.dtype:
        raise ValueError(f"the denoiser must return {_what(y)}, got {_what(x_hat)}")
    if not torch.isfinite(x_hat).all():
        raise ValueError("the denoiser returned NaN or infinity")
    return x_hat


def score(denoiser: Denoiser, y: Tensor, sigma: float | Tensor) -> Tensor:
    """Score of the noisy density that the denoiser implies, ``(x_hat - y) / sigma^2``.

    Robbins 1956, Miyasawa 1961; [GAHB] eq. 3. Shapes as in :func:`~twinscore.denoisers.check`.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers import score
    >>> score(lambda y, sigma: 0.5 * y, torch.ones(1, 1, 2, 2), 0.5)[0, 0]
    tensor([[-2., -2.],
            [-2., -2.]])
    """
    level = per_image(sigma, y)
    return (denoiser(y, level) - y) / level.view(-1, 1, 1, 1) ** 2


def psnr(x_hat: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, ``-10 log10(MSE)``, peak 1.

    The MSE is per pixel. Shapes (B, C, H, W) to (B,). Averaging the result over images is the
    published convention; slopes and KL bounds need the PSNR of the mean MSE instead.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers import psnr
    >>> psnr(torch.full((1, 1, 8, 8), 0.1), torch.zeros(1, 1, 8, 8))
    tensor([20.])
    """
    return -10 * torch.log10((x_hat - x).square().flatten(1).mean(1))


def _what(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__
