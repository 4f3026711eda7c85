"""Gaussian or flat densities on a linear subspace: projection, shrunk or not."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers.closed_form.level import Level, centred, finite, positive, variance_of

_ORTHONORMAL = 1e-5
"""Largest deviation of the basis' inner products that counts as rounding."""


@dataclass(frozen=True, eq=False)
class LinearSubspace:
    """Posterior mean of ``x = mean + sum_k c_k e_k``, ``c`` normal of standard deviation ``scale``.

    The Jacobian has k eigenvalues ``scale^2 / (scale^2 + sigma^2)``, the others are 0. An infinite
    scale is the flat limit, the orthogonal projection. Cost of a call: 4 B k d flops. The source
    ``subspace:`` draws from ``LinearSubspace(mean, law.basis[:, None], law.scale)``, the mean a
    (1, H, W) image of ``law.mean``.

    Attributes
    ----------
    mean : Tensor
        (C, H, W).
    basis : Tensor
        (k, C, H, W), orthonormal.
    scale : float
        Positive, image units; infinite for a flat density.

    Raises
    ------
    ValueError
        If the mean is not finite, the basis not orthonormal or of a shape other than the mean's, or
        the scale not positive.
    """

    mean: Tensor
    basis: Tensor
    scale: float = math.inf

    def __post_init__(self) -> None:
        """Refuse what is not a mean, not an orthonormal basis or not a scale."""
        finite(self.mean)
        if self.basis.shape[1:] != self.mean.shape:
            raise ValueError(
                f"the basis must be (k, {', '.join(map(str, self.mean.shape))}), "
                f"got {tuple(self.basis.shape)}"
            )
        flat = self.basis.double().flatten(1)
        excess = flat @ flat.T - torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
        if not (excess.abs() <= _ORTHONORMAL).all():
            raise ValueError("the basis is not orthonormal; take one from torch.linalg.qr")
        if not self.scale > 0:
            raise ValueError(f"the scale must be positive, got {self.scale}")

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """E[x | y], (B, C, H, W)."""
        basis = self.basis.to(y).flatten(1)
        coefficients = centred(y, self.mean) @ basis.T * self._shrinkage(variance_of(sigma, y))
        return self.mean.to(y) + (coefficients @ basis).view_as(y)

    def score(self, y: Tensor, sigma: Level) -> Tensor:
        """Gradient of the log density of ``y``, (B, C, H, W)."""
        return (self(y, sigma) - y) / variance_of(sigma, y).view(-1, 1, 1, 1)

    def log_density(self, y: Tensor, sigma: Level) -> Tensor:
        """Log density of ``y = x + sigma z``, (B,), nats; a flat density is 1."""
        noise, flat, basis = variance_of(sigma, y), centred(y, self.mean), self.basis.flatten(1)
        coefficients = flat @ basis.T.to(y)
        off = (flat - coefficients @ basis.to(y)).square().sum(1, keepdim=True)
        k, d = basis.shape
        found = off / noise + (d - k) * (2 * math.pi * noise).log()
        if math.isfinite(self.scale):
            total = self.scale**2 + noise
            along = coefficients.square().sum(1, keepdim=True) / total
            found = found + along + k * (2 * math.pi * total).log()
        return -0.5 * found[:, 0]

    def jacobian(self, y: Tensor, sigma: Level) -> Tensor:
        """Derivative of the denoiser at ``y``, (B, d, d); the same for every ``y``."""
        basis, shrinkage = self.basis.to(y).flatten(1), self._shrinkage(variance_of(sigma, y))
        return (shrinkage[:, :, None] * (basis.T @ basis)).expand(len(y), -1, -1)

    def mse(self, sigma: float) -> float:
        """Expected squared error, summed over pixels: ``k sigma^2 s^2 / (s^2 + sigma^2)``."""
        return len(self.basis) * positive(sigma) ** 2 / (1 + (sigma / self.scale) ** 2)

    def _shrinkage(self, noise: Tensor) -> Tensor:
        return 1 / (1 + noise / self.scale**2)
