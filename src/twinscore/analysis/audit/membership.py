"""Membership: does a model treat its training images T better than held-out ones H?

T and H were dealt at random, so that scores which do not depend on the deal are exchangeable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm, rankdata
from torch import Tensor

from twinscore.analysis.redealing import REDEALINGS, redeal
from twinscore.analysis.statistics import clopper_pearson
from twinscore.denoisers import Denoiser, denoise

_TAIL = 0.025

_EDGE = 1e-12
"""From 0 and 1, which solve the equation of the interval too."""


@torch.no_grad()
def errors(denoiser: Denoiser, x: Tensor, z: Tensor, sigmas: Sequence[float]) -> NDArray:
    """Mean squared error per pixel of images (B, C, H, W) at K noise levels, (B, K) float64.

    Every image gets the same noise, ``sigma z`` for each of the draws z, (D, C, H, W), so that
    nothing but the image differs. Cost: B K D evaluations; memory that of B.
    """
    levels = [
        torch.stack([_error(denoiser, x, sigma * of, sigma) for of in z]).mean(0)
        for sigma in sigmas
    ]
    return torch.stack(levels, 1).cpu().numpy()


def _error(denoiser: Denoiser, x: Tensor, z: Tensor, sigma: float) -> Tensor:
    return (denoise(denoiser, x + z, sigma) - x).double().square().flatten(1).mean(1)


@dataclass(frozen=True)
class Area:
    """Area under the curve of true against false positives, and its 95 % interval."""

    value: float
    low: float
    high: float


def area(trained: NDArray, held_out: NDArray) -> Area:
    """Probability that a training unit has a smaller score than a held-out one; ties count half.

    Parameters
    ----------
    trained, held_out : array
        (n,), (m,): scores, such as errors.

    Returns
    -------
    Area
        The interval solves ``|a - A| = z sqrt(V(A))`` with the variance of Hanley and McNeil for
        exponential scores (Newcombe 2006, method 5): it stays within [0, 1], and is no point where
        all training units come first.
    """
    n, m = len(trained), len(held_out)
    ranks = rankdata(np.concatenate([trained, held_out]))[:n]
    value = float(1 - (ranks.sum() - n * (n + 1) / 2) / (n * m))
    z, more = norm.isf(_TAIL), (n + m) / 2 - 1

    def excess(a: float) -> float:
        spread = 1 + more * ((1 - a) / (2 - a) + a / (1 + a))
        return abs(a - value) - z * math.sqrt(a * (1 - a) * spread / (n * m))

    low = brentq(excess, 0, min(value, 1 - _EDGE)) if value > 0 else 0.0
    high = brentq(excess, max(value, _EDGE), 1) if value < 1 else 1.0
    return Area(value, float(low), float(high))


@dataclass(frozen=True)
class Detected:
    """Share of training units below a threshold that few held-out ones are below.

    Attributes
    ----------
    rate : float
        The share of false positives that the threshold has on average, at most.
    value, low, high : float
        The share of T, with Clopper and Pearson's interval for this threshold.
    """

    rate: float
    value: float
    low: float
    high: float


def detected(trained: NDArray, held_out: NDArray, rate: float) -> Detected | None:
    """True positives at a rate of false ones; None where H is too small to know such a threshold.

    The threshold is the k-th smallest score of H, ``k = floor(rate (m + 1))``, and counts what is
    below: a fresh held-out unit is below it with a probability of at most ``k / (m + 1)``.
    """
    k = math.floor(rate * (len(held_out) + 1) + 1e-9)
    if k < 1:
        return None
    below = int((trained < np.sort(held_out)[k - 1]).sum())
    low, high = clopper_pearson(below, len(trained), _TAIL)
    return Detected(rate, below / len(trained), low, high)


def conformal(trained: NDArray, held_out: NDArray) -> NDArray[np.float64]:
    """P of each training unit, (n,): ``(1 + #{scores of H at most its own}) / (m + 1)``.

    Where the unit's score is exchangeable with those of H, at most a share u of such p are u or
    less (Vovk et al. 2005).
    """
    return (1 + np.searchsorted(np.sort(held_out), trained, side="right")) / (len(held_out) + 1)


def at_risk(p: NDArray, q: float) -> NDArray[np.int64]:
    """Units whose p is small at a false-discovery rate of q, smallest p first.

    Benjamini and Hochberg's (1995) step-up; valid for p that share their held-out units (Bates et
    al. 2023). With m of these none can be found unless ``n / (q (m + 1))`` are.
    """
    order = np.argsort(p, kind="stable")
    good = np.flatnonzero(p[order] <= q * np.arange(1, len(p) + 1) / len(p))
    return order[: good[-1] + 1] if len(good) else order[:0]


def dependence(
    scores: NDArray, trained: NDArray, *, seed: int, redealings: int = REDEALINGS
) -> tuple[float, NDArray[np.float64]]:
    """Exact p: whether T has smaller scores by any of K measures than a fair deal would give it.

    Parameters
    ----------
    scores : array
        (U, K), of units, by K measures.
    trained : array
        (U,) bool.
    seed, redealings : int
        As for :func:`~twinscore.analysis.redealing.redeal`.

    Returns
    -------
    p : float
        Of the largest rank sum of all measures, corrected for their number.
    each : array
        (K,), of each by itself.
    """
    dealt = redeal(
        -rankdata(scores, axis=0), trained, np.zeros(len(trained)), seed=seed, redealings=redealings
    )
    return float(dealt.corrected.min()), dealt.p


def combined(scores: NDArray) -> NDArray[np.float64]:
    """One score of K measures, (U,): the mean of their ranks in the pool, blind to T and H."""
    return rankdata(scores, axis=0).mean(1)
