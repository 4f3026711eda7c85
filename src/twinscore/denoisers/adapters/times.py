"""The time of a noise level: what a network is told of how noisy its image is."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Levels = Callable[[Tensor], Tensor]
"""A number for each noise level."""


def linear_table(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> tuple[Tensor, ...]:
    """Noise levels and times of the linear schedule of Ho et al. 2020, each (steps,), float64.

    ``sigma_t = sqrt((1 - abar_t) / abar_t)``, ``abar_t`` the product of ``1 - beta`` up to t.
    """
    kept = torch.cumprod(1 - torch.linspace(first, last, steps, dtype=torch.float64), 0)
    return torch.sqrt((1 - kept) / kept), torch.arange(steps, dtype=torch.float64)


def tabulated(sigmas: Tensor | Sequence[float], times: Tensor | Sequence[float]) -> Levels:
    """Times of a table between its noise levels: linear in log sigma, constant beyond its ends.

    Levels that are zero or infinite, at which there is nothing or nothing else to see, are left
    out. The result is a function of (B,) levels, and gives (B,) times like them.

    Raises
    ------
    ValueError
        If the two differ in length, fewer than two levels are left, or two of them are equal.
    """
    levels, given = (torch.as_tensor(x, dtype=torch.float64) for x in (sigmas, times))
    if levels.ndim != 1 or levels.shape != given.shape:
        raise ValueError(f"a table needs as many times as levels; got {len(given)}, {len(levels)}")
    fit = (levels > 0) & (levels < math.inf)
    levels, order = levels[fit].log().sort()
    given = given[fit][order]
    if len(levels) < 2 or not (levels.diff() > 0).all():
        raise ValueError("a table needs two different noise levels or more, each once")

    def time(sigma: Tensor) -> Tensor:
        x = sigma.double().log().clamp(levels[0].item(), levels[-1].item())
        table, own = levels.to(x.device), given.to(x.device)
        after = (table < x.detach()[:, None]).sum(1).clamp(1, len(table) - 1)
        part = (x - table[after - 1]) / (table[after] - table[after - 1])
        return (own[after - 1] + part * (own[after] - own[after - 1])).to(sigma)

    return time


def flow_time(steps: float = 1.0) -> Levels:
    """``steps s`` of the flow ``(1 - s) x + s z``, at the noise level ``sigma = s / (1 - s)``.

    A scheduler's shift decides which of these times its sampler visits; the network is told the
    same time at the same noise level.
    """
    return lambda sigma: steps * sigma / (1 + sigma)
