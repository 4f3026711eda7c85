"""Denoising by shrinkage of coefficients: thresholds, and oracles that know the clean image.

Donoho & Johnstone 1994. A *dictionary* is a fixed basis, or a family such as ``Bandlets`` out of
which each image takes its own (``adapted``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from twinscore.denoisers.closed_form.level import Level, variance_of
from twinscore.denoisers.shrinkage.transforms import Basis

Rule = Callable[[Tensor, Tensor], Tensor]
"""Of coefficients and a threshold: the coefficients that are kept of them."""

Gains = Callable[[Tensor, Tensor], Tensor]
"""Of the clean coefficients' squares and ``sigma^2``: factors in [0, 1]."""


class Dictionary(Protocol):
    """Gives images an orthonormal basis each."""

    def adapted(self, x: Tensor, threshold: Level) -> Basis:
        """The basis for images ``x`` (B, C, H, W), at a threshold in image units."""
        ...


def hard(coefficients: Tensor, threshold: Tensor) -> Tensor:
    """Coefficients above the threshold in absolute value, the others replaced by 0."""
    return torch.where(coefficients.abs() > threshold, coefficients, 0)


def soft(coefficients: Tensor, threshold: Tensor) -> Tensor:
    """Coefficients moved towards 0 by the threshold, or to 0 if they are below it."""
    return coefficients.sign() * (coefficients.abs() - threshold).clamp_min(0)


def keep_or_kill(energy: Tensor, variance: Tensor) -> Tensor:
    """The best factors out of 0 and 1: a coefficient is kept if it exceeds the noise."""
    return (energy > variance).to(energy)


def attenuate(energy: Tensor, variance: Tensor) -> Tensor:
    """The best factors: ``c^2 / (c^2 + sigma^2)``."""
    return energy / (energy + variance)


@dataclass(frozen=True)
class Thresholding:
    """Denoiser that shrinks small coefficients of the noisy image.

    Attributes
    ----------
    dictionary : Dictionary
        A fixed basis, or a family, of which the noisy image takes its own.
    rule : callable
        :func:`hard` or :func:`soft`.
    multiple : float or None
        Threshold in units of sigma; None for the universal one, ``sqrt(2 log d)``, with
        ``d = C H W``.

    Raises
    ------
    ValueError
        If the multiple is not positive, or (in a call) sigma is missing or not positive.
    """

    dictionary: Dictionary
    rule: Rule = hard
    multiple: float | None = None

    def __post_init__(self) -> None:
        if self.multiple is not None and not 0 < self.multiple < math.inf:
            raise ValueError(f"multiple must be positive and finite, got {self.multiple}")

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """Clean estimate of ``y`` (B, C, H, W)."""
        multiple = self.multiple or math.sqrt(2 * math.log(y.shape[1:].numel()))
        threshold = multiple * variance_of(sigma, y).sqrt().view(-1, 1, 1, 1)
        basis = self.dictionary.adapted(y, threshold.flatten().expand(len(y)))
        return basis.inverse(self.rule(basis.forward(y), threshold))


@dataclass(frozen=True, eq=False)
class Oracle:
    """Denoiser with the best factors for the clean images, which it knows.

    No factors that do not depend on the noise (with :func:`keep_or_kill`: no factors of 0 and 1)
    have a smaller expected error.

    Attributes
    ----------
    x : Tensor
        Clean images, (B, C, H, W), in the order of the noisy ones; or one image, (1, C, H, W).
    dictionary : Dictionary
        A fixed basis, or a family, of which the clean image takes its own.
    gains : callable
        :func:`keep_or_kill` or :func:`attenuate`.
    """

    x: Tensor
    dictionary: Dictionary
    gains: Gains = keep_or_kill

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """Clean estimate of ``y`` (B, C, H, W).

        Raises
        ------
        ValueError
            If sigma is missing or not positive, or there are other images than the clean ones.
        """
        if self.x.shape[1:] != y.shape[1:] or len(self.x) not in (1, len(y)):
            raise ValueError(
                f"the oracle knows images of shape {tuple(self.x.shape)}, got {tuple(y.shape)}"
            )
        variance = variance_of(sigma, y)
        x = self.x.to(y).expand(max(len(self.x), len(variance)), -1, -1, -1)
        basis = self.dictionary.adapted(x, variance.sqrt().flatten().expand(len(x)))
        gains = self.gains(basis.forward(x).square(), variance.view(-1, 1, 1, 1))
        return basis.inverse(gains * basis.forward(y))


def oracle_risk(
    x: Tensor, sigma: Level, dictionary: Dictionary, gains: Gains = keep_or_kill
) -> Tensor:
    """Expected squared error of :class:`Oracle`, summed over pixels, without drawing noise.

    ``sum_k (1 - g_k)^2 c_k^2 + g_k^2 sigma^2``; for :func:`keep_or_kill` this is
    ``sum_k min(c_k^2, sigma^2)`` (STUDIES section 1).

    Parameters
    ----------
    x : Tensor
        Clean images, (B, C, H, W).
    sigma : float or Tensor
        Noise level, scalar or (B,), image units.
    dictionary : Dictionary
        A fixed basis or a family.
    gains : callable
        :func:`keep_or_kill` or :func:`attenuate`.

    Returns
    -------
    Tensor
        (B,).

    Raises
    ------
    ValueError
        If sigma is missing or not positive.
    """
    variance = variance_of(sigma, x)
    energy = dictionary.adapted(x, sigma).forward(x).square()
    variance = variance.view(-1, 1, 1, 1)
    factors = gains(energy, variance)
    return ((1 - factors).square() * energy + factors.square() * variance).flatten(1).sum(1)
