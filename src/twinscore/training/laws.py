"""What happens at step t, as functions of (seed, t) only: images, noise levels, learning rate."""

import math

import torch
from torch import Tensor

from twinscore.runs import derive_seed
from twinscore.training.spec import TrainingSpec

WARM_UP = 0.02
SIGMA_MIN = 1e-3


def batch_indices(seed: int, step: int, n: int, batch: int) -> Tensor:
    """Which images step ``step`` sees: batch after batch from one shuffled deck after another.

    The deck is reshuffled when it is used up, so that after any number of steps every image has
    been seen as often as any other, to within one. The number of steps does not depend on ``n``:
    this is the exposure control of [GAHB], without tiling the set in memory.

    Returns
    -------
    Tensor
        (batch,) int64 in [0, n).
    """
    start, stop = step * batch, (step + 1) * batch
    generator = torch.Generator()
    parts = []
    for deck in range(start // n, (stop - 1) // n + 1):
        generator.manual_seed(derive_seed(seed, "order", deck))
        order = torch.randperm(n, generator=generator)
        parts.append(order[max(start - deck * n, 0) : stop - deck * n])
    return torch.cat(parts)


def noise_level(u: Tensor, law: str, sigma_max: float) -> Tensor:
    """Noise level of a number that is uniform on [0, 1]: the law's quantile function.

    ``law`` is *sqrt*, sigma uniform in its square root on [0, sigma_max] (published code),
    *uniform*, or *log*, log-uniform on [1e-3, sigma_max].
    """
    if law == "sqrt":
        return sigma_max * u.square()
    if law == "uniform":
        return sigma_max * u
    return SIGMA_MIN * (sigma_max / SIGMA_MIN) ** u


def noise_draw(
    seed: int,
    step: int,
    shape: tuple[int, ...],
    law: str,
    sigma_max: float,
    *,
    spread: bool = False,
) -> tuple[Tensor, Tensor]:
    """Noise levels and noise of one step.

    Parameters
    ----------
    seed, step : int
        What the draw depends on.
    shape : tuple of int
        (B, C, H, W).
    law, sigma_max
        As for :func:`noise_level`.
    spread : bool
        One level from each of B equally likely parts of the law, in random order, rather than B
        that know nothing of each other. Each level still has the law.

    Returns
    -------
    sigma : Tensor
        (B, 1, 1, 1).
    noise : Tensor
        ``sigma * z``, (B, C, H, W).
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise", step))
    u = torch.rand(shape[0], 1, 1, 1, generator=generator)
    if spread:
        u = (torch.randperm(shape[0], generator=generator).view_as(u) + u) / shape[0]
    sigma = noise_level(u, law, sigma_max)
    return sigma, sigma * torch.randn(shape, generator=generator)


def annealing(spec: TrainingSpec, step: int) -> float:
    """Learning rate of step ``step`` in [0, steps), relative to its peak."""
    progress = step / spec.steps
    if spec.schedule == "halving":
        return 0.5 ** math.floor(10 * progress)
    if spec.schedule == "constant":
        return 1.0
    warm = min((step + 1) / (WARM_UP * spec.steps), 1.0)
    return warm * 0.5 * (1 + math.cos(math.pi * progress))
