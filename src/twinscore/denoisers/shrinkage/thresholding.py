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
from torch.nn.functional import pad

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
    """The better of the factors 0 and 1: a coefficient is kept if it exceeds the noise."""
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
        A fixed basis, or a family from which the noisy image takes its own.
    rule : callable
        :func:`hard` or :func:`soft`.
    multiple : float or None
        Threshold in units of sigma; None for the universal one, ``sqrt(2 log d)``, with
        ``d = C H W``.

    Raises
    ------
    ValueError
        If the multiple is not positive, or (in a call) sigma is missing or not positive.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers.shrinkage import Thresholding, Wavelets
    >>> denoiser = Thresholding(Wavelets(), multiple=3.0)
    >>> flat = torch.full((1, 1, 16, 16), 0.5)
    >>> noisy = flat + 0.1 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    >>> bool((denoiser(noisy, 0.1) - flat).square().mean() < 0.1**2 / 4)
    True
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
        basis = self.dictionary.adapted(y, threshold.flatten().expand(y.shape[0]))
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
        A fixed basis, or a family from which the clean image takes its own.
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
            If sigma is missing or not positive, or the shape is not that of the clean images.
        """
        variance = variance_of(sigma, y)
        basis, clean = _known(self.x, self.dictionary, y, variance)
        gains = self.gains(clean.square(), variance.view(-1, 1, 1, 1))
        return basis.inverse(gains * basis.forward(y))


@dataclass(frozen=True, eq=False)
class OracleThresholding:
    """Denoiser with the best threshold for each noisy image, found by knowing the clean one.

    The best that a choice of threshold can do: no multiple of sigma has a smaller error on
    any image, in the same basis. The basis out of a family is that of :class:`Oracle`, the clean
    image's at ``T = sigma``; it is not searched again for each threshold.

    Attributes
    ----------
    x : Tensor
        Clean images, (B, C, H, W), in the order of the noisy ones; or one image, (1, C, H, W).
    dictionary : Dictionary
        A fixed basis, or a family from which the clean image takes its own.
    rule : callable
        :func:`hard` or :func:`soft`.
    """

    x: Tensor
    dictionary: Dictionary
    rule: Rule = hard

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """Clean estimate of ``y`` (B, C, H, W).

        Raises
        ------
        ValueError
            As for :class:`Oracle`, or if the rule is neither of the two.
        """
        basis, clean = _known(self.x, self.dictionary, y, variance_of(sigma, y))
        noisy = basis.forward(y)
        threshold = best_threshold(noisy, clean, self.rule)
        return basis.inverse(self.rule(noisy, threshold.to(y).view(-1, 1, 1, 1)))


def _known(x: Tensor, dictionary: Dictionary, y: Tensor, variance: Tensor) -> tuple[Basis, Tensor]:
    """Basis and coefficients of the clean images that belong to noisy ones.

    Raises
    ------
    ValueError
        If the shape is not that of the clean images.
    """
    if x.shape[1:] != y.shape[1:] or len(x) not in (1, len(y)):
        raise ValueError(f"the oracle knows images of shape {tuple(x.shape)}, got {tuple(y.shape)}")
    x = x.to(y).expand(max(len(x), len(variance)), -1, -1, -1)
    basis = dictionary.adapted(x, variance.sqrt().flatten().expand(len(x)))
    return basis, basis.forward(x)


def best_threshold(noisy: Tensor, clean: Tensor, rule: Rule = hard) -> Tensor:
    """Threshold of the least squared error of each image, exact.

    Between two magnitudes that follow each other the same k coefficients are kept. The error of
    hard thresholding is constant there, that of soft thresholding a parabola in the threshold T:
    with noisy coefficients a > 0 (signs turned), clean ones c and all sums over the k kept,
    ``sum c^2`` over all of them plus ``sum a (a - 2 c) - 2 T sum (a - c) + k T^2``. So the least of
    d + 1 numbers is the least of all.

    Parameters
    ----------
    noisy, clean : Tensor
        Coefficients of noisy images, (B, ...), and of the clean ones, of that shape or (1, ...).
    rule : callable
        :func:`hard` or :func:`soft`.

    Returns
    -------
    Tensor
        (B,) float64, in the units of the coefficients. Where several thresholds do the same, one of
        those that keep the fewest coefficients. Cost: a sort of d numbers per image, and memory for
        some ten times as many.

    Raises
    ------
    ValueError
        If the rule is neither of the two.
    """
    if rule not in (hard, soft):
        raise ValueError("the best threshold is known for the rules hard and soft")
    sizes, order = noisy.flatten(1).double().abs().sort(1, descending=True)
    clean = (noisy.sign() * clean).flatten(1).double().gather(1, order)
    lower, upper = pad(sizes, (0, 1)), pad(sizes, (1, 0), value=math.inf)  # the k-th: k are kept
    errors = pad((sizes * (sizes - 2 * clean)).cumsum(1), (1, 0))
    if rule is hard:
        thresholds = lower
        errors = errors.where(lower < upper, math.inf)  # of equal magnitudes all are kept, or none
    else:
        excess = pad((sizes - clean).cumsum(1), (1, 0))
        kept = torch.arange(lower.shape[1]).to(excess)
        thresholds = (excess / kept.clamp_min(1)).clamp(lower, upper)
        errors = errors - 2 * thresholds * excess + kept * thresholds.square()
    return thresholds.gather(1, errors.argmin(1, keepdim=True)).squeeze(1)


def oracle_risk(
    x: Tensor, sigma: Level, dictionary: Dictionary, gains: Gains = keep_or_kill
) -> Tensor:
    """Expected squared error of :class:`Oracle`, (B,), summed over pixels, without drawing noise.

    ``sum_k (1 - g_k)^2 c_k^2 + g_k^2 sigma^2``; for :func:`keep_or_kill` this is ``sum_k min(c_k^2,
    sigma^2)`` (docs/formulas.md#shrinkage). For clean images, (B, C, H, W), and sigma, scalar or
    (B,), image units: ValueError if it is missing or not positive.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers.shrinkage import Cosines, oracle_risk
    >>> flat = torch.full((1, 1, 16, 16), 0.5)  # one coefficient that is not 0
    >>> round(oracle_risk(flat, 0.1, Cosines()).item(), 4)  # sigma^2: its noise is all that is left
    0.01
    """
    variance = variance_of(sigma, x)
    energy = dictionary.adapted(x, sigma).forward(x).square()
    variance = variance.view(-1, 1, 1, 1)
    factors = gains(energy, variance)
    return ((1 - factors).square() * energy + factors.square() * variance).flatten(1).sum(1)
