r"""Image classes whose densities are exact: Gaussian fields, mixtures of them, linear subspaces.

A stationary Gaussian field on the periodic grid is

.. math:: x = m + F^* S^{1/2} F z,\qquad z \sim N(0, I),

F the unitary 2-D Fourier transform and S the *spectrum*: the eigenvalues of its covariance. The
laws below are all a closed form needs. Values are not clipped to [0, 1], which would spoil the
density: at the default contrast the range ends five standard deviations from the mean.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from twinscore.errors import InputError
from twinscore.images.synthetic import stream

Spectrum = float | Callable[[torch.Tensor], torch.Tensor] | torch.Tensor | np.ndarray

_PIXELS_AT_A_TIME = 2**18
_LARGEST_TABLE = 2**27


@dataclass(frozen=True, eq=False)
class MixtureLaw:
    """A mixture of K Gaussian fields; of one, it is a Gaussian field.

    Attributes
    ----------
    weights : torch.Tensor
        ``(K,)`` float64, positive, of sum 1.
    means : torch.Tensor
        ``(K, H, W)`` float64, image units.
    spectra : torch.Tensor
        ``(K, H, W)`` float64: the covariances' eigenvalues, at the frequencies of
        ``torch.fft.fft2``. Their mean is the variance of a pixel.

    Raises
    ------
    InputError
        When they are not of these shapes, the weights are not probabilities, or a spectrum is
        negative or not a covariance of real images (not even in the frequency).
    """

    weights: torch.Tensor
    means: torch.Tensor
    spectra: torch.Tensor

    def __post_init__(self) -> None:
        if self.means.ndim != 3 or not len(self.means) == len(self.weights):
            raise InputError(
                f"means: shape {tuple(self.means.shape)} for {len(self.weights)} weights; "
                "give (K, H, W)"
            )
        if self.spectra.shape != self.means.shape:
            raise InputError(
                f"spectra: shape {tuple(self.spectra.shape)}; give that of the means, "
                f"{tuple(self.means.shape)}"
            )
        if not (self.weights > 0).all() or abs(float(self.weights.sum()) - 1) > 1e-9:
            raise InputError(f"weights: {self.weights.tolist()}; give positive ones of sum 1")
        mirrored = self.spectra.flip((-2, -1)).roll((1, 1), (-2, -1))
        even = torch.allclose(self.spectra, mirrored, rtol=1e-9, atol=0)
        if not (even and (self.spectra >= 0).all() and torch.isfinite(self.spectra).all()):
            raise InputError(
                "spectra: not a covariance of real images; give finite values of 0 or more with "
                "S(-k) = S(k)"
            )


@dataclass(frozen=True, eq=False)
class SubspaceLaw:
    """Gaussian images on a linear subspace: ``x = mean + scale * basis.T @ z``, z standard normal.

    Attributes
    ----------
    mean : float
        Of every pixel, image units.
    basis : torch.Tensor
        ``(dimension, H, W)`` float64, orthonormal.
    scale : float
        Standard deviation along the subspace; ``scale^2 * dimension / (H W)`` is the mean variance
        of a pixel.
    """

    mean: float
    basis: torch.Tensor
    scale: float


def spectrum_of(size: int, spectrum: Spectrum = 4.0, *, contrast: float = 0.1) -> torch.Tensor:
    """Tabulate a spectrum, scaled to a contrast.

    Parameters
    ----------
    size : int
        Side of the periodic grid in pixels.
    spectrum : float, callable or torch.Tensor
        An exponent p for ``|k|^-p``, k in cycles per image, and 0 at k = 0; a function of ``|k|``
        (``(size, size)`` float64); or the values themselves, up to a factor.
    contrast : float
        Standard deviation of a pixel, image units.

    Returns
    -------
    torch.Tensor
        ``(size, size)`` float64 of mean ``contrast^2``.

    Raises
    ------
    InputError
        When the size is less than 2, the contrast not in (0, 1], or the spectrum has the wrong
        shape, a negative or non-finite value, or vanishes.
    """
    _require_size(size, contrast)
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    k = torch.hypot(k[:, None], k)
    if callable(spectrum):
        values = torch.as_tensor(spectrum(k), dtype=torch.float64)
    elif np.ndim(spectrum) == 0:
        values = torch.where(k == 0, 0.0, k.pow(-float(spectrum)))
    else:
        values = torch.as_tensor(spectrum, dtype=torch.float64)
    if values.shape != k.shape:
        raise InputError(f"spectrum: shape {tuple(values.shape)}; give ({size}, {size})")
    if not (torch.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise InputError("spectrum: negative, not finite or zero; give a variance per frequency")
    return values * (contrast**2 / values.mean())


def field_law(
    size: int, spectrum: Spectrum = 4.0, *, contrast: float = 0.1, mean: float = 0.5
) -> MixtureLaw:
    """The law of a stationary Gaussian field: a mixture of one, ``mean`` in every pixel.

    Other parameters, units and errors as for :func:`spectrum_of`.
    """
    values = spectrum_of(size, spectrum, contrast=contrast)
    _require_mean(mean)
    return MixtureLaw(
        torch.ones(1, dtype=torch.float64), torch.full_like(values, mean)[None], values[None]
    )


def mixture_law(
    size: int,
    components: int = 3,
    spectrum: Spectrum = 4.0,
    *,
    spread: float = 0.1,
    contrast: float = 0.05,
    mean: float = 0.5,
    seed: int = 0,
) -> MixtureLaw:
    """Draw the law of a mixture: equal weights, one spectrum, means that are fields themselves.

    Parameters
    ----------
    size : int
        Side of the image in pixels.
    components : int
        K, at least 1.
    spectrum : float, callable or torch.Tensor
        Of the components and of their means, as for :func:`spectrum_of`.
    spread, contrast : float
        Standard deviation of a pixel, of the means and within a component, image units.
    mean : float
        About which the means are drawn.
    seed : int
        Determines the means.

    Raises
    ------
    InputError
        When there is no component, or as for :func:`spectrum_of`.
    """
    if components < 1:
        raise InputError(f"components: {components} is out of range; give at least 1")
    if components * size**2 > _LARGEST_TABLE:
        raise InputError(f"components: {components} of {size}x{size} take over 1 GB; give less")
    _require_mean(mean)
    white = torch.from_numpy(stream.shared(seed).standard_normal((components, size, size)))
    means = mean + _filtered(white, spectrum_of(size, spectrum, contrast=spread).sqrt())
    inner = spectrum_of(size, spectrum, contrast=contrast).expand(components, -1, -1)
    weights = torch.full((components,), 1 / components, dtype=torch.float64)
    return MixtureLaw(weights, means, inner.contiguous())


def mixture(
    indices: stream.Indices, law: MixtureLaw, *, seed: int = 0, device: str | torch.device = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images of a mixture of Gaussian fields; the seed and its index determine an image.

    Everything but drawing the numbers is done on ``device``. InputError when the seed or an index
    is negative.

    Returns
    -------
    images : torch.Tensor
        ``(n, 1, H, W)`` float32, not clipped.
    components : torch.Tensor
        ``(n,)`` int64: the component each was drawn from.
    """
    height, width = law.means.shape[1:]
    means, roots = law.means.float().to(device), law.spectra.sqrt().float().to(device)
    images = torch.empty(len(indices), 1, height, width, device=device)
    components = components_of(indices, law, seed=seed).to(device)
    step = max(1, _PIXELS_AT_A_TIME // (height * width))
    for start in range(0, len(indices), step):
        chunk = slice(start, start + step)
        numbers = stream.normal(indices[chunk], 1 + height * width, seed)[:, 1:].to(device)
        white, chosen = numbers.reshape(-1, height, width), components[chunk]
        images[chunk, 0] = means[chosen] + _filtered(white, roots[chosen])
    return images, components


def components_of(indices: stream.Indices, law: MixtureLaw, *, seed: int = 0) -> torch.Tensor:
    """The components of :func:`mixture`, ``(n,)`` int64 on the CPU, without making images."""
    first = torch.special.ndtr(stream.normal(indices, 1, seed)[:, 0].double())
    return torch.bucketize(first, law.weights.cumsum(0)[:-1])


def subspace_law(
    size: int,
    dimension: int = 10,
    *,
    contrast: float = 0.1,
    mean: float = 0.5,
    seed: int = 0,
) -> SubspaceLaw:
    """Draw a subspace, uniform among all of its dimension, which is from 1 to ``size^2``.

    The seed determines its basis. ``contrast`` is the standard deviation of a pixel, as an average
    over pixels, and ``mean`` that of every pixel; image units. InputError when the dimension, size
    or contrast is out of its range, or the seed negative.
    """
    _require_size(size, contrast)
    pixels = size * size
    if not 1 <= dimension <= pixels:
        raise InputError(f"dimension: {dimension} is out of range; give 1 to {pixels}")
    if dimension * pixels > _LARGEST_TABLE:
        raise InputError(
            f"dimension: {dimension} directions of {size}x{size} take over 1 GB; give less"
        )
    _require_mean(mean)
    directions = torch.from_numpy(stream.shared(seed).standard_normal((pixels, dimension)))
    basis = torch.linalg.qr(directions).Q.T.reshape(dimension, size, size).contiguous()
    return SubspaceLaw(mean, basis, contrast * math.sqrt(pixels / dimension))


def subspace(
    indices: stream.Indices, law: SubspaceLaw, *, seed: int = 0, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Draw images on a linear subspace, ``(n, 1, H, W)`` float32, not clipped.

    Indices, seed, device and errors as for :func:`mixture`. They lie on it up to rounding.
    Directions are added one after the other: a matrix product's rounding depends on the batch.
    """
    coefficients = law.scale * stream.normal(indices, len(law.basis), seed).to(device)
    images = torch.full((len(indices), 1, *law.basis.shape[1:]), law.mean, device=device)
    for direction, along in zip(law.basis.float().to(device), coefficients.T, strict=True):
        images += along[:, None, None, None] * direction
    return images


def _filtered(white: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
    return torch.fft.ifft2(torch.fft.fft2(white) * roots).real


def _require_size(size: int, contrast: float) -> None:
    if size < 2:
        raise InputError(f"size: {size} is out of range; give at least 2")
    if not 0 < contrast <= 1:
        raise InputError(f"contrast: {contrast} is out of range; give 0 < contrast <= 1")


def _require_mean(mean: float) -> None:
    if not 0 <= mean <= 1:
        raise InputError(f"mean: {mean} is out of range; give 0 to 1")
