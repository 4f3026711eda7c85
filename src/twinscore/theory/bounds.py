"""The score-matching bound on the divergence of the reverse SDE, in one dimension."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.theory.coordinates import Grid
from twinscore.theory.densities import Scores, evaluated
from twinscore.theory.targets import prior

INTERVALS = 256
STEPS = 128


@dataclass(frozen=True, eq=False)
class Bound:
    """``KL(p || p_theta) <= excess + start``, for the reverse SDE of B scores, nats.

    It says nothing about the probability flow: see :func:`score_matching_bound`.

    Attributes
    ----------
    excess : array
        (B,): ``1/2 int g(t)^2 E|s - s_theta|^2 dt`` from the smallest time to T.
    start : float
        ``KL(p_T || pi)``.
    error : array
        (B,): of the excess, its change when steps and points are halved.
    """

    excess: NDArray[np.float64]
    start: float
    error: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """(B,): the bound."""
        return self.excess + self.start


def score_matching_bound(scores: Scores, grid: Grid) -> Bound:
    """Bound on ``KL(p || p_theta)`` at the grid's smallest time by the error of B scores.

    Girsanov's theorem and the data-processing inequality (Song et al. 2021, "Maximum likelihood
    training of score-based diffusion models", theorem 1). With sigma for time it is [GAHB] eq. 5.
    An equality only if s_theta is the exact score of the same process from another target. The
    probability flow may lie beyond it (docs/formulas.md#kl-bound): for p = N(0, 1) and its score
    times 1.2, the flow from sigma = 100 is 1.73 nats away and the bound is 0.18.

    Parameters
    ----------
    scores : callable
        Evaluated at 129 times on 257 points.
    grid : Grid
        Of the target.

    Raises
    ------
    ValueError
        For scores of the wrong shape, or not finite.
    """
    times = grid.times(STEPS)
    z, rates, units = grid.nodes(INTERVALS), grid.pace(times), grid.unit(times)
    weights, coarse = grid.weights(z), grid.weights(z[::2])
    gaps, rough = [], []
    for t, unit, rate in zip(times, units, rates, strict=True):
        noised = grid.target.at(grid.process, float(t))
        x = unit * z
        exact = noised.score(x[:, None]).T
        mass = unit * noised.density(x[:, None])
        missed = (unit * (evaluated(scores, float(t), x) - exact)) ** 2 * rate / 2
        gaps.append(missed @ (weights * mass))
        rough.append(missed[:, ::2] @ (coarse * mass[::2]))
    excess, halved = _simpson(np.stack(gaps)), _simpson(np.stack(rough)[::2])
    return Bound(excess, _prior_divergence(grid, z, weights), np.abs(excess - halved))


def _simpson(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral over [0, 1] of values at an odd number of even points, along the first axis."""
    inner = 4 * values[1:-1:2].sum(0) + 2 * values[2:-1:2].sum(0)
    return (values[0] + inner + values[-1]) / (3 * (len(values) - 1))


def _prior_divergence(grid: Grid, z: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    end = grid.process.end
    unit = float(grid.unit(end))
    x = unit * z[:, None]
    last = grid.target.at(grid.process, end)
    gap = last.log_density(x) - prior(grid.process).log_density(x)
    return float((unit * weights * last.density(x)) @ gap)
