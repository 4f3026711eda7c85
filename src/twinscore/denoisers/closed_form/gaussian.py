"""Gaussian densities: the Wiener filter, in principal components or by Fourier transform."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers.closed_form.level import Level, centred, finite, positive, variance_of

_SYMMETRIC = 1e-5
"""Largest difference of entries that should be equal, relative to the largest of all."""

_NEGATIVE = 1e-8
"""Most negative eigenvalue, relative to the largest, that counts as rounding in any precision."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Posterior mean of ``x ~ N(mean, C)``: every principal component shrunk on its own.

    ``f(y) = mean + sum_k lambda_k / (lambda_k + sigma^2) <y - mean, e_k> e_k``; make one with
    ``of``. Cost of a call: 4 B d^2 flops.

    Attributes
    ----------
    mean : Tensor
        (C, H, W).
    variances : Tensor
        (d,) eigenvalues of the covariance, ``d = C H W``, ascending, not negative.
    components : Tensor
        (d, d), eigenvectors in columns.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers.closed_form import Gaussian
    >>> optimum = Gaussian.of(torch.zeros(1, 1, 2), torch.diag(torch.tensor([3.0, 1.0])))
    >>> optimum(torch.ones(1, 1, 1, 2), 1.0)  # variance / (variance + sigma^2) of each
    tensor([[[[0.7500, 0.5000]]]])
    """

    mean: Tensor
    variances: Tensor
    components: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> "Gaussian":
        """Gaussian of a mean (C, H, W) and a covariance (d, d). Cost: one eigendecomposition.

        Raises
        ------
        ValueError
            If the mean is not finite, or the covariance has the wrong size, is not symmetric, or
            not positive semi-definite.
        """
        variances, components = spectrum_of(covariance, mean.numel())
        return cls(finite(mean), variances, components)

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """E[x | y], (B, C, H, W)."""
        shrinkage = self._shrinkage(sigma, y)
        basis = self.components.to(y)
        coefficients = centred(y, self.mean) @ basis
        return self.mean.to(y) + ((coefficients * shrinkage) @ basis.T).view_as(y)

    def score(self, y: Tensor, sigma: Level) -> Tensor:
        """Gradient of the log density of ``y``, (B, C, H, W)."""
        return (self(y, sigma) - y) / variance_of(sigma, y).view(-1, 1, 1, 1)

    def log_density(self, y: Tensor, sigma: Level) -> Tensor:
        """Log density of ``y = x + sigma z``, (B,), nats."""
        total = self.variances.to(y) + variance_of(sigma, y)
        coefficients = centred(y, self.mean) @ self.components.to(y)
        return -0.5 * (coefficients**2 / total + total.log() + math.log(2 * math.pi)).sum(1)

    def jacobian(self, y: Tensor, sigma: Level) -> Tensor:
        """Derivative of the denoiser at ``y``, (B, d, d); the same for every ``y``."""
        shrinkage, basis = self._shrinkage(sigma, y), self.components.to(y)
        return ((basis * shrinkage[:, None]) @ basis.T).expand(len(y), -1, -1)

    def mse(self, sigma: float) -> float:
        """Expected squared error, summed over pixels: ``sigma^2 sum lambda/(lambda + sigma^2)``."""
        variances, sigma = self.variances.double(), positive(sigma)
        return (sigma**2 * variances / (variances + sigma**2)).sum().item()

    def draw(self, z: Tensor) -> Tensor:
        """Samples of the density, from standard normal ``z`` (B, C, H, W)."""
        coefficients = z.flatten(1) * self.variances.sqrt().to(z)
        return self.mean.to(z) + (coefficients @ self.components.T.to(z)).view_as(z)

    def _shrinkage(self, sigma: Level, y: Tensor) -> Tensor:
        variances = self.variances.to(y)
        return variances / (variances + variance_of(sigma, y))


@dataclass(frozen=True, eq=False)
class StationaryGaussian:
    """Wiener filter of a periodic stationary field: shrinkage in the Fourier basis, by FFT.

    Cost of a call: two FFTs.

    Attributes
    ----------
    mean : Tensor
        (C, H, W).
    power : Tensor
        (C, H, W) or (1, H, W): variance of each coefficient of the orthonormal 2-D Fourier
        transform, in the order of ``torch.fft.fft2``, even in the frequency.
    """

    mean: Tensor
    power: Tensor

    def __post_init__(self) -> None:
        """Refuse what is not a mean or not a power spectrum."""
        finite(self.mean)
        if self.power.shape not in (self.mean.shape, (1, *self.mean.shape[1:])):
            raise ValueError(
                f"power must have the mean's shape, {tuple(self.mean.shape)}, or 1 channel of its "
                f"size; got {tuple(self.power.shape)}"
            )
        if not ((self.power >= 0) & (self.power < math.inf)).all():
            raise ValueError("power must be non-negative and finite")
        mirrored = self.power.flip(-2, -1).roll((1, 1), (-2, -1))
        if not _equal(self.power, mirrored):
            raise ValueError("power must be even: the same at a frequency and at its negative")

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """E[x | y], (B, C, H, W)."""
        power = self.power.to(y)
        shrinkage = power / (power + variance_of(sigma, y).view(-1, 1, 1, 1))
        coefficients = torch.fft.fft2(centred(y, self.mean).view_as(y))
        return self.mean.to(y) + torch.fft.ifft2(coefficients * shrinkage).real

    def score(self, y: Tensor, sigma: Level) -> Tensor:
        """Gradient of the log density of ``y``, (B, C, H, W)."""
        return (self(y, sigma) - y) / variance_of(sigma, y).view(-1, 1, 1, 1)

    def log_density(self, y: Tensor, sigma: Level) -> Tensor:
        """Log density of ``y = x + sigma z``, (B,), nats."""
        total = self.power.to(y) + variance_of(sigma, y).view(-1, 1, 1, 1)
        energy = torch.fft.fft2(centred(y, self.mean).view_as(y), norm="ortho").abs().square()
        terms = energy / total + (total.log() + math.log(2 * math.pi)).expand_as(energy)
        return -0.5 * terms.flatten(1).sum(1)

    def jacobian(self, y: Tensor, sigma: Level) -> Tensor:
        """Derivative of the denoiser at ``y``, (B, d, d): filters, the same for every ``y``."""
        d = self.mean.numel()
        impulses = torch.eye(d, dtype=y.dtype, device=y.device).view(d, *self.mean.shape)
        levels = variance_of(sigma, y).sqrt().flatten()
        filters = [(self(self.mean.to(y) + impulses, s) - self.mean.to(y)) for s in levels]
        return torch.stack([f.flatten(1).T for f in filters]).expand(len(y), -1, -1)

    def mse(self, sigma: float) -> float:
        """Expected squared error, summed over pixels."""
        power, sigma = self.power.double().expand(self.mean.shape), positive(sigma)
        return (sigma**2 * power / (power + sigma**2)).sum().item()

    def draw(self, z: Tensor) -> Tensor:
        """Samples of the density, from standard normal ``z`` (B, C, H, W)."""
        return self.mean.to(z) + torch.fft.ifft2(torch.fft.fft2(z) * self.power.to(z).sqrt()).real


def spectrum_of(covariance: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues (d,), ascending, and eigenvectors (d, d) in columns, of a covariance.

    Raises
    ------
    ValueError
        If the matrix has the wrong size, is not finite, not symmetric, or not positive
        semi-definite beyond the rounding of its own precision.
    """
    if covariance.shape != (d, d):
        raise ValueError(f"the covariance must be ({d}, {d}), got {tuple(covariance.shape)}")
    if not torch.isfinite(covariance).all():
        raise ValueError("the covariance holds NaN or infinity")
    if not _equal(covariance, covariance.T):
        raise ValueError("the covariance is not symmetric")
    variances, components = torch.linalg.eigh(covariance)
    rounding = max(_NEGATIVE, 10 * d * torch.finfo(covariance.dtype).eps)
    if variances[0] < -rounding * variances[-1].abs():
        raise ValueError(
            f"the covariance has a negative eigenvalue, {variances[0]:.3g}; "
            "it must be positive semi-definite"
        )
    return variances.clamp_min(0), components


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether entries are equal up to rounding, relative to their scale."""
    return torch.allclose(a, b, rtol=0, atol=_SYMMETRIC * a.abs().max().item())
