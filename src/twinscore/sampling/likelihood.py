"""Log density of images under a denoiser, by the instantaneous change of variables."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, check, denoise
from twinscore.runs import derive_seed
from twinscore.sampling.noise import noise as probe_noise


def log_density(
    denoiser: Denoiser,
    images: Tensor,
    prior: Callable[[Tensor], Tensor],
    *,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    steps: int = 50,
    probes: int | None = None,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Log density at ``sigma_min`` of the law whose probability flow the denoiser drives.

    Along ``dy/dt = y - f(y, sigma)`` with ``t = log sigma`` the log density falls at the rate
    ``d - tr J``; so ``log p_min(y) = log prior(y_max) + int (d - tr J) dt`` (Chen et al. 2018;
    Song et al. 2021, eq. 39). Classical Runge-Kutta of order 4, even steps in ``log sigma``.

    Parameters
    ----------
    denoiser : Denoiser
        Differentiable by autograd.
    images : Tensor
        (B, C, H, W), points of the density at ``sigma_min``.
    prior : callable
        ``prior(y) -> (B,)``: log density at ``sigma_max``, nats.
    sigma_max, sigma_min : float
        Noise levels, image units.
    steps : int
        Runge-Kutta steps, 4 evaluations each.
    probes : int, optional
        Random signs for Hutchinson's estimate of the trace, each image's own, the same all along
        the path; by default the trace is exact.
    seeds : sequence of int, optional
        Seed of each image's probes, in any batch; by default 0, 1, ...

    Returns
    -------
    Tensor
        (B,) nats. Cost: ``4 steps`` evaluations, each with ``probes`` (or d) reverse products;
        memory for one of them at a time.

    Raises
    ------
    ValueError
        For an impossible schedule or a denoiser that breaks the contract.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers.closed_form import Gaussian
    >>> from twinscore.sampling import log_density
    >>> law = Gaussian.of(torch.zeros(1, 1, 2), torch.eye(2))
    >>> y = torch.tensor([0.3, -0.8]).view(1, 1, 1, 2)
    >>> found = log_density(law, y, lambda y: law.log_density(y, 1.0), steps=20)
    >>> bool((found - law.log_density(y, 0.01)).abs() < 1e-4)
    True
    """
    if not (0 < sigma_min < sigma_max < math.inf and steps >= 1):
        raise ValueError(
            f"need 0 < sigma_min < sigma_max and steps >= 1; got {sigma_min}, {sigma_max}, {steps}"
        )
    with torch.no_grad():
        check(denoiser, images[:1], sigma_min)
    directions = _directions(images, probes, range(len(images)) if seeds is None else seeds)
    width = math.log(sigma_max / sigma_min) / steps
    y, gained = images, images.new_zeros(len(images))
    for step in range(steps):
        slopes: list[tuple[Tensor, Tensor]] = []
        for ahead in (0.0, 0.5, 0.5, 1.0):
            at = y + ahead * width * slopes[-1][0] if slopes else y
            sigma = sigma_min * math.exp((step + ahead) * width)
            slopes.append(_slope(denoiser, at, sigma, directions))
        y, gained = (
            value + width / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            for value, (k1, k2, k3, k4) in zip((y, gained), zip(*slopes, strict=True), strict=True)
        )
    return prior(y) + gained


def _directions(images: Tensor, probes: int | None, seeds: Sequence[int]) -> list[Tensor]:
    """Vectors v, (C, H, W) or one for each image, such that the mean of ``v' J v`` is the trace."""
    shape = tuple(images.shape[1:])
    if probes is None:
        d = math.prod(shape)
        return list(torch.eye(d, dtype=images.dtype, device=images.device).view(d, *shape) * d**0.5)
    return [
        probe_noise([derive_seed("probes", i) for i in seeds], shape, k).sign().to(images)
        for k in range(probes)
    ]


def _slope(
    denoiser: Denoiser, y: Tensor, sigma: float, directions: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """``y - f`` and ``d - tr J``."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        x_hat = denoise(denoiser, y, sigma)
        trace = y.new_zeros(len(y))
        for i, v in enumerate(directions):
            keep = i + 1 < len(directions)
            (pulled,) = torch.autograd.grad((x_hat * v).sum(), y, retain_graph=keep)
            trace += (pulled * v).flatten(1).sum(1) / len(directions)
    return (y - x_hat).detach(), y[0].numel() - trace
