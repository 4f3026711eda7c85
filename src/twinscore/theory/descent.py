"""Training by steps: explicit descent on the exact loss, and stochastic training as published."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from twinscore.theory.processes import Process, Schedule, Score
from twinscore.theory.random_features import Embedding, RandomFeatures
from twinscore.theory.score_matching import QuadraticLoss

_BLOCK = 256
"""Steps whose random numbers are drawn at a time."""

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "identity": lambda a: a,
}


def gradient_descent(
    loss: QuadraticLoss,
    rate: float,
    steps: Sequence[int],
    start: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Coefficients after numbers of explicit steps ``A <- A - rate grad L(A)``, (K, dim, m).

    After k steps they differ from the gradient flow at ``tau = k rate`` by a term of first order in
    the rate; descent converges below the rate ``m^2 / g_max``. ``steps`` are K increasing numbers,
    not negative; ``start`` is A(0), (dim, m), by default 0. Cost: ``2 m^2 dim`` flops per step.
    ValueError for a rate that is not positive, numbers of steps that do not increase, or descent
    that diverges.
    """
    _check_rate(rate)
    _check_steps(steps)
    A = np.zeros(loss.cross.T.shape) if start is None else np.array(start, dtype=np.float64)
    taken, out = 0, []
    with np.errstate(over="ignore", invalid="ignore"):
        for count in steps:
            for _ in range(taken, count):
                A = A - rate * loss.gradient(A)
            taken = count
            if not np.isfinite(A).all():
                raise ValueError(f"descent diverged within {count} steps; lower the rate {rate:g}")
            out.append(A)
    return np.stack(out)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A model at some step of its training.

    Attributes
    ----------
    step : int
        Steps taken.
    features : RandomFeatures
        Its first layer at that step.
    A : array
        Its coefficients, (dim, m).
    """

    step: int
    features: RandomFeatures
    A: NDArray[np.float64]

    @property
    def score(self) -> Score:
        """The score model."""
        return self.features.score(self.A)


class ScoreNetwork(nn.Module):
    """``s(t, x) = (1/m) A phi(W x + U e)`` with parameters A, W and U, in float64."""

    def __init__(self, features: RandomFeatures, A: NDArray[np.float64]) -> None:
        super().__init__()
        self.features = features
        self.A = nn.Parameter(torch.tensor(A, dtype=torch.float64))
        self.W = nn.Parameter(torch.tensor(features.W))
        self.U = nn.Parameter(torch.tensor(features.U))

    def forward(self, embedded: Tensor, x: Tensor) -> Tensor:
        """Scores (B, dim) of points (B, dim) at embedded times (B, q)."""
        hidden = _ACTIVATIONS[self.features.activation](x @ self.W.T + embedded @ self.U.T)
        return hidden @ self.A.T / len(self.W)

    def snapshot(self, step: int) -> Snapshot:
        """A copy of what has been learned."""
        A, W, U = (p.detach().numpy().copy() for p in (self.A, self.W, self.U))
        fixed = self.features
        return Snapshot(step, RandomFeatures(W, U, fixed.activation, fixed.embedding), A)


def train(
    features: RandomFeatures,
    samples: NDArray[np.float64],
    process: Process,
    *,
    rates: Mapping[str, float],
    steps: Sequence[int],
    seed: int,
    batch: int = 32,
    start: float = 1e-3,
    weighting: Schedule | None = None,
    A: NDArray[np.float64] | None = None,
    optimizer: Callable[..., Optimizer] = SGD,
) -> list[Snapshot]:
    """Train by stochastic descent of the denoising score-matching loss; snapshots at ``steps``.

    Each step draws a batch with replacement, times uniform on [start, T] and noise. SGD on A alone
    at rate r follows the gradient flow at ``tau = r step``, with noise. The published setting
    ([GP]; docs/formulas.md#modes-shift) is a process whose variance explodes, 16 swish features,
    n = 1000, batches of 32 and SGD on all layers at rate 0.5.

    Parameters
    ----------
    features : RandomFeatures
        The first layer at the start.
    samples : array
        (n, dim).
    process : Process
        The noise.
    rates : mapping
        Learning rate of each layer that learns: ``{"A": r}`` for random features; with W and U, the
        whole network.
    steps : sequence of int
        Increasing numbers of steps after which to keep the model.
    seed : int
        Seed of batches, times and noise.
    weighting : callable, optional
        ``lambda(t)``; by default ``deviation(t)^2``.
    A : array, optional
        Coefficients at the start, (dim, m); by default 0.
    optimizer : callable
        A class of ``torch.optim``, such as ``SGD`` or ``Adam``, given parameter groups with rates.

    Raises
    ------
    ValueError
        For no samples, samples of the wrong dimension, an unknown layer, a rate that is not
        positive, steps that do not increase, a start outside (0, T), coefficients of the wrong
        shape, or training that diverges.
    """
    _check_training(features, samples, batch, rates)
    _check_steps(steps)
    shape = features.dim, features.width
    if not 0 < start < process.end or (A is not None and A.shape != shape):
        raise ValueError(f"need a start in (0, {process.end}) and coefficients {shape}")
    network = ScoreNetwork(features, np.zeros(shape) if A is None else A)
    descent = optimizer(
        [{"params": [getattr(network, name)], "lr": rate} for name, rate in rates.items()]
    )
    weighting = weighting or (lambda t: process.deviation(t) ** 2)
    draws = _noised(samples, process, features.embedding, batch, start, weighting, seed)
    out = []
    for step in range(steps[-1]):
        if step in steps:
            out.append(network.snapshot(step))
        embedded, x, target, weight = next(draws)
        loss = (weight * (network(embedded, x) - target) ** 2).sum(1).mean()
        descent.zero_grad()
        loss.backward()
        descent.step()
    out.append(network.snapshot(steps[-1]))
    if not np.isfinite(out[-1].A).all():
        raise ValueError(f"training diverged within {steps[-1]} steps; lower the rates {rates}")
    return out


def _noised(
    samples: NDArray[np.float64],
    process: Process,
    embedding: Embedding,
    batch: int,
    start: float,
    weighting: Schedule,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Endless batches: embedded times, noised points, targets ``-z / deviation``, weights."""
    generator = np.random.default_rng(seed)
    while True:
        x = samples[generator.integers(len(samples), size=(_BLOCK, batch))]
        t = generator.uniform(start, process.end, (_BLOCK, batch))
        z = generator.standard_normal(x.shape)
        deviation = process.deviation(t)[..., None]
        noised = process.scale(t)[..., None] * x + deviation * z
        arrays = embedding(t), noised, -z / deviation, weighting(t)[..., None]
        yield from zip(*map(torch.from_numpy, arrays), strict=True)


def _check_training(
    features: RandomFeatures,
    samples: NDArray[np.float64],
    batch: int,
    rates: Mapping[str, float],
) -> None:
    if samples.ndim != 2 or not len(samples) or samples.shape[1] != features.dim or batch < 1:
        raise ValueError(
            f"need samples (n, {features.dim}) and a batch of at least 1, "
            f"got {samples.shape} and {batch}"
        )
    if not rates or not set(rates) <= {"A", "W", "U"}:
        raise ValueError(f"rates must be of layers A, W or U, got {sorted(rates)}")
    for rate in rates.values():
        _check_rate(rate)


def _check_rate(rate: float) -> None:
    if not (0 < rate < np.inf):
        raise ValueError(f"a learning rate must be positive, got {rate}")


def _check_steps(steps: Sequence[int]) -> None:
    if not len(steps) or steps[0] < 0 or not (np.diff(steps) > 0).all():
        raise ValueError("numbers of steps must be a list of integers >= 0 that increase")
