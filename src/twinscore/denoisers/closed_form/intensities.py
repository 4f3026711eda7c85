"""The two intensities of a disc given its mask and a noisy image: a Gaussian cut to a square."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers.closed_form.quadrature import cut_normal, window


@dataclass(frozen=True, eq=False)
class Intensities:
    """Law of foreground and background for each of M masks, at 20 nodes of the background.

    Attributes
    ----------
    log_joint : Tensor
        (M, 20), log density of the noisy image and probability of the node.
    pairs : Tensor
        (M, 20, 2): mean of the foreground given the background, and the background.
    variance, skew : Tensor
        (M, 20): second and third central moment of the foreground given the background.
    """

    log_joint: Tensor
    pairs: Tensor
    variance: Tensor
    skew: Tensor

    def evidence(self) -> Tensor:
        """Log density of the noisy image given each mask, (M,)."""
        return self.log_joint.logsumexp(1)

    def mean(self) -> Tensor:
        """(M, 2)."""
        return (self._weights()[:, None] @ self.pairs)[:, 0]

    def covariance(self) -> Tensor:
        """(M, 2, 2)."""
        weights, off = self._weights(), self.pairs - self.mean()[:, None]
        within = (weights * self.variance).sum(1)
        only = torch.stack([within, torch.zeros_like(within)], 1)
        return off.mT @ (weights[:, :, None] * off) + torch.diag_embed(only)

    def third(self) -> Tensor:
        """Third central moments, (M, 2, 2, 2)."""
        weights, off = self._weights(), self.pairs - self.mean()[:, None]
        found = torch.einsum("mj,mja,mjb,mjc->mabc", weights, off, off, off)
        mixed = ((weights * self.variance)[:, None] @ off)[:, 0]
        found[:, 0, 0, :] += mixed
        found[:, 0, :, 0] += mixed
        found[:, :, 0, 0] += mixed
        found[:, 0, 0, 0] += (weights * self.skew).sum(1)
        return found

    def _weights(self) -> Tensor:
        return self.log_joint.softmax(1)


def intensities(masks: Tensor, y: Tensor, noise: Tensor) -> Intensities:
    """Law of the intensities, each uniform in [0, 1] before the noisy image is seen.

    Their likelihood is Gaussian, with precision the Gram matrix of mask and complement, and cut to
    the unit square: the integral over the foreground is exact, that over the background by nodes.

    Parameters
    ----------
    masks : Tensor
        (M, d) in [0, 1], float64.
    y : Tensor
        Noisy image, (d,).
    noise : Tensor
        Its noise variance, a scalar.
    """
    d, area, ff = masks.shape[1], masks.sum(1), masks.square().sum(1)
    fb, bb = area - ff, d - 2 * area + ff
    with_mask = masks @ y
    with_rest = y.sum() - with_mask
    given = noise / ff
    with torch.no_grad():
        free = bb - fb**2 / ff
        peak = (with_rest - fb * with_mask / ff) / free
        b, volumes = window(peak, (noise / free).sqrt())
    left = with_mask[:, None] - fb[:, None] * b
    mass, f, variance, skew = cut_normal(left / ff[:, None], given.sqrt()[:, None])
    energy = b * (b * bb[:, None] / 2 - with_rest[:, None]) - left**2 / (2 * ff[:, None])
    over_f = mass + (2 * math.pi * given).log()[:, None] / 2
    log_joint = volumes + over_f - (energy + y.square().sum() / 2) / noise
    log_joint = log_joint - d / 2 * (2 * math.pi * noise).log()
    return Intensities(log_joint, torch.stack([f, b], 2), variance, skew)
