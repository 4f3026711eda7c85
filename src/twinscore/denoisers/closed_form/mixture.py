"""Gaussian mixtures: the posterior mean is a soft choice among Wiener filters."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers.closed_form.gaussian import spectrum_of
from twinscore.denoisers.closed_form.level import Level, centred, finite, variance_of

_CHUNK = 2**24
"""Numbers held at a time, for the coefficients of images in the bases of all components."""


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Posterior mean of ``x ~ sum_k w_k N(m_k, C_k)``, exact; make one with ``of``.

    ``f(y) = sum_k r_k(y) f_k(y)`` with the components' Wiener filters ``f_k`` and responsibilities
    ``r_k`` proportional to ``w_k N(y; m_k, C_k + sigma^2)``. Cost of a call: 4 B K d^2 flops, or
    of order B K d where covariances are diagonal; memory is bounded by chunks of images.

    Attributes
    ----------
    weights : Tensor
        (K,), positive, summing to 1.
    means : Tensor
        (K, C, H, W).
    variances : Tensor
        (K, d) eigenvalues of the covariances.
    components : Tensor or None
        (K, d, d) or, shared, (1, d, d): eigenvectors in columns. None where all covariances are
        diagonal.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers.closed_form import GaussianMixture
    >>> means = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    >>> mixture = GaussianMixture.of(torch.tensor([0.5, 0.5]), means, torch.full((2, 1), 0.01))
    >>> mixture(torch.zeros(1, 1, 1, 1), 0.5).item()
    0.0
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    components: Tensor | None

    @classmethod
    def of(cls, weights: Tensor, means: Tensor, covariances: Tensor) -> "GaussianMixture":
        """Mixture of weights (K,), means (K, C, H, W) and covariances.

        The covariances are shared (d, d), diagonal (K, d), or full (K, d, d).

        Raises
        ------
        ValueError
            For no component, means that are not finite, weights that are not positive or do not
            sum to 1, or covariances of the wrong shape or not positive semi-definite.
        """
        if means.ndim != 4 or not len(means):
            raise ValueError(
                f"means must be (K, C, H, W) with K at least 1, got {tuple(means.shape)}"
            )
        count, d = len(finite(means)), means[0].numel()
        if weights.shape != (count,) or not (weights > 0).all() or abs(weights.sum() - 1) > 1e-5:
            raise ValueError(f"weights must be {count} positive numbers that sum to 1")
        if covariances.shape == (count, d) and (count, d) != (d, d):
            if not ((covariances >= 0) & (covariances < math.inf)).all():
                raise ValueError("diagonal covariances must hold finite variances of 0 or more")
            return cls(weights, means, covariances, None)
        full = covariances if covariances.ndim == 3 else covariances[None]
        if full.shape not in ((count, d, d), (1, d, d)):
            raise ValueError(
                f"covariances must be ({d}, {d}), ({count}, {d}) or ({count}, {d}, {d}), "
                f"got {tuple(covariances.shape)}"
            )
        spectra = [spectrum_of(one, d) for one in full]
        variances = torch.stack([values for values, _ in spectra]).expand(count, d)
        return cls(weights, means, variances, torch.stack([vectors for _, vectors in spectra]))

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """E[x | y], (B, C, H, W)."""
        return torch.cat([self._denoise(*part) for part in self._parts(y, sigma)])

    def score(self, y: Tensor, sigma: Level) -> Tensor:
        """Gradient of the log density of ``y``, (B, C, H, W)."""
        return (self(y, sigma) - y) / variance_of(sigma, y).view(-1, 1, 1, 1)

    def log_density(self, y: Tensor, sigma: Level) -> Tensor:
        """Log density of ``y = x + sigma z``, (B,), nats."""
        parts = [self._log_joint(*part)[0].logsumexp(1) for part in self._parts(y, sigma)]
        return torch.cat(parts)

    def responsibilities(self, y: Tensor, sigma: Level) -> Tensor:
        """Probability of each component given ``y``, (B, K)."""
        return torch.cat([self._log_joint(*p)[0].softmax(1) for p in self._parts(y, sigma)])

    def jacobian(self, y: Tensor, sigma: Level) -> Tensor:
        """Derivative of the denoiser at ``y``, ``Cov[x | y] / sigma^2``, (B, d, d).

        Cost: of order B K d^2 memory traffic, or B K d^3 flops where covariances are full.
        """
        return torch.cat([self._jacobian(*part) for part in self._parts(y, sigma)])

    def draw(self, z: Tensor, u: Tensor) -> Tensor:
        """Samples, from standard normal ``z`` (B, C, H, W) and uniform ``u`` (B,) in [0, 1)."""
        edges = self.weights.double().cumsum(0)[:-1].to(u)
        k = torch.searchsorted(edges, u, right=True)
        coefficients = z.flatten(1) * self.variances.sqrt().to(z)[k]
        if self.components is not None:
            basis = self.components.to(z).expand(len(self.weights), -1, -1)[k]
            coefficients = (basis @ coefficients[:, :, None])[:, :, 0]
        return self.means.to(z)[k] + coefficients.view_as(z)

    def _parts(self, y: Tensor, sigma: Level) -> list[tuple[Tensor, Tensor]]:
        """Images and noise variances, cut so that a part's coefficients stay within bounds."""
        centred(y[:0], self.means[0])
        levels = variance_of(sigma, y).expand(len(y), 1)
        size = max(1, _CHUNK // self.variances.numel())
        return list(zip(y.split(size), levels.split(size), strict=True))

    def _log_joint(self, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """``log w_k N(y; m_k, C_k + sigma^2)``, (B, K), and coefficients of y - m_k, (K, B, d)."""
        coefficients = (y.flatten(1) - self.means.to(y).flatten(1)[:, None]).contiguous()
        if self.components is not None:
            coefficients = coefficients @ self.components.to(y)
        total = self.variances.to(y)[:, None] + noise
        energy = coefficients**2 / total + total.log() + math.log(2 * math.pi)
        return self.weights.to(y).log() - 0.5 * energy.sum(2).T, coefficients

    def _filtered(self, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Responsibilities (B, K), component means f_k (K, B, d), and shrinkage (K, B, d)."""
        log_joint, coefficients = self._log_joint(y, noise)
        variances = self.variances.to(y)[:, None]
        shrinkage = variances / (variances + noise)
        deviation = coefficients * shrinkage
        if self.components is not None:
            deviation = deviation @ self.components.to(y).mT
        return log_joint.softmax(1), self.means.to(y).flatten(1)[:, None] + deviation, shrinkage

    def _denoise(self, y: Tensor, noise: Tensor) -> Tensor:
        chosen, means, _ = self._filtered(y, noise)
        return torch.einsum("bk,kbd->bd", chosen, means).view_as(y)

    def _jacobian(self, y: Tensor, noise: Tensor) -> Tensor:
        chosen, means, shrinkage = self._filtered(y, noise)
        centre = torch.einsum("bk,kbd->bd", chosen, means)
        spread = means - centre
        between = torch.einsum("bk,kbi,kbj->bij", chosen, spread, spread) / noise[:, :, None]
        weighted = chosen.T[:, :, None] * shrinkage
        if self.components is None:
            return between + torch.diag_embed(weighted.sum(0))
        for k, basis in enumerate(self.components.to(y).expand(len(self.weights), -1, -1)):
            between += (basis * weighted[k][:, None]) @ basis.T
        return between
