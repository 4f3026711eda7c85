"""What one denoiser does to one noisy image: its eigenbasis, and what follows from it.

A denoiser with a symmetric Jacobian and ``f(y) = J(y) y`` shrinks the noisy image in the basis of
its eigenvectors, ``f(y) = sum_k lambda_k <y, e_k> e_k`` ([GAHB] eq. 6).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from twinscore.analysis import jacobian
from twinscore.analysis.jacobian import Eigenpairs, Estimate, Linearisation
from twinscore.analysis.statistics import LEVEL
from twinscore.analysis.sure import risk
from twinscore.denoisers import Denoiser, psnr
from twinscore.results.base import Interval
from twinscore.results.harmonics import KEPT, REMOVED, Decay, Level, Number, Risk, Share
from twinscore.runs import derive_seed

DENSE = 1024
"""Values of an image, d, up to which the whole Jacobian is formed and the spectrum is complete."""

COMPLEX = 1e-3
"""Imaginary part, relative to the largest magnitude, from which on a pair counts as complex."""

EXACT = 150.0
"""PSNR in dB of an estimate without error; float32 resolves no more."""


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """Where each coefficient goes: kept (factor near 1), shrunk, or removed (near 0).

    Attributes
    ----------
    factors : Tensor
        (k,) eigenvalues.
    noisy, clean, denoised : Tensor
        (k,) ``<y, e_k>``, ``<x, e_k>`` and ``<f(y), e_k>``. The last is ``factors * noisy`` where
        the Jacobian is symmetric and the denoiser homogeneous.
    """

    factors: Tensor
    noisy: Tensor
    clean: Tensor
    denoised: Tensor


def shrinkage(pairs: Eigenpairs, linearisation: Linearisation, x: Tensor) -> Shrinkage:
    """Shrinkage factors and coefficients in an orthonormal eigenbasis.

    Of the symmetric part at one image, of the linearisation there, and of the clean image, (1, C,
    H, W). ValueError if the eigenvectors are complex, or the images of another shape.
    """
    if pairs.vectors.is_complex():
        raise ValueError("coefficients are taken in the eigenbasis of the symmetric part")
    images = (linearisation.y, x, linearisation.value)
    if any(image.numel() != pairs.vectors.shape[1] for image in images):
        raise ValueError(
            f"need one image of {pairs.vectors.shape[1]} values each; got "
            f"{tuple(linearisation.y.shape)} and {tuple(x.shape)}"
        )
    return Shrinkage(
        pairs.values, *(pairs.vectors @ image.flatten().to(pairs.vectors) for image in images)
    )


@dataclass(frozen=True, eq=False)
class Basis:
    """A model at one noise level.

    Attributes
    ----------
    level : Level
        Its numbers.
    denoised : Tensor
        f(y), (C, H, W).
    shrinkage : Shrinkage
        Eigenvalues and coefficients: all of them up to ``DENSE`` values, else k.
    vectors : Tensor
        (k, d) eigenvectors of the largest eigenvalues, in rows, float64.
    """

    level: Level
    denoised: Tensor
    shrinkage: Shrinkage
    vectors: Tensor


def measure(
    denoiser: Denoiser,
    x: Tensor,
    sigma: float,
    *,
    k: int,
    fitted: tuple[int, int],
    draws: int,
    seed: int,
) -> Basis:
    """Take one denoiser apart at one noisy image.

    Up to ``DENSE`` values by d products and two decompositions; beyond, by block Krylov.

    Parameters
    ----------
    denoiser : Denoiser
        Differentiable by autograd.
    x : Tensor
        Clean image, (1, C, H, W); the noise is the same for every denoiser and noise level.
    sigma : float
        Noise level, image units.
    k : int
        Eigenvectors, at most d.
    fitted : tuple of int
        First and last rank of the decays.
    draws : int
        Noisy images over which SURE and the true error are averaged.
    seed : int
        Of the noise and of every estimate.

    Raises
    ------
    ValueError
        If the denoiser breaks the contract or is not differentiable.
    """
    z = noise(x, seed)
    around = jacobian.linearise(denoiser, x + sigma * z, sigma)
    spectrum = _dense if around.d <= DENSE else _sparse
    pairs, facts = spectrum(around, k, derive_seed(seed, "products"))
    coefficients = shrinkage(pairs, around, x)
    kept, shrunk, removed = _shares(pairs, x - x.mean(), z)
    found = risk(denoiser, x.expand(draws, -1, -1, -1), sigma, seed=derive_seed(seed, "risk"))
    eigenvalue_decay, coefficient_decay = _decays(coefficients, fitted)
    level = Level(
        sigma=sigma,
        psnr_in=psnr(around.y, x).item(),
        psnr_out=min(psnr(around.value, x).item(), EXACT),
        homogeneity=_finite(homogeneity(around).item()),
        eigenvalues=len(pairs.values),
        kept=kept,
        shrunk=shrunk,
        removed=removed,
        risk=Risk(
            sure=_mean(found.sure), error=_mean(found.mse), difference=_mean(found.difference)
        ),
        eigenvalue_decay=eigenvalue_decay,
        coefficient_decay=coefficient_decay,
        **facts,
    )
    return Basis(level, around.value[0], coefficients, pairs.vectors[:k])


def homogeneity(linearisation: Linearisation) -> Tensor:
    """Relative residual ``|f(y) - J(y) y| / |f(y)|`` of each image, (B,).

    Rounding for bias-free networks in evaluation mode, which are homogeneous for positive scales;
    0 where both sides are zero, infinite where ``f(y)`` alone is. Cost: one forward product.
    """
    gap = linearisation.push(linearisation.y[None])[0] - linearisation.value
    norms = gap.flatten(1).norm(dim=1), linearisation.value.flatten(1).norm(dim=1)
    return torch.where(norms[0] == 0, 0, norms[0] / norms[1])


def decay(values: Tensor, first: int, last: int) -> Decay:
    """Decay exponent of eigenvalues or of squared coefficients, by least squares on logarithms.

    The interval is that of the regression of log value on log rank. It covers the scatter about the
    line, assumed independent, and not the choice of the range.

    Parameters
    ----------
    values : Tensor
        (k,), in the order in which they are to decay; squares of coefficients, not coefficients.
    first, last : int
        Fitting range, ranks counted from 1, both included, at least three; state it beforehand.

    Raises
    ------
    ValueError
        If the range does not fit, or a value in it is not positive.
    """
    if not 1 <= first <= last - 2 <= len(values) - 2:
        raise ValueError(f"need 3 ranks or more within 1..{len(values)}; got {first}..{last}")
    fitted = values[first - 1 : last].double().cpu().numpy()
    if not (fitted > 0).all():
        raise ValueError(f"only positive values have a decay exponent; least is {fitted.min():.3g}")
    ranks, logs = np.log(np.arange(first, last + 1)), np.log(fitted)
    ranks, logs = ranks - ranks.mean(), logs - logs.mean()
    exponent = -float(ranks @ logs / (ranks @ ranks))
    scatter = np.sum((logs + exponent * ranks) ** 2) / (len(logs) - 2)
    error = float(np.sqrt(scatter / (ranks @ ranks)))
    reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, len(logs) - 2)) * error
    return Decay(
        exponent=exponent, low=exponent - reach, high=exponent + reach, first=first, last=last
    )


@dataclass(frozen=True)
class NoiseLevel:
    """Trace and effective rank of the Jacobian at one noise level."""

    sigma: float
    trace: Estimate
    effective_rank: Estimate


def against_noise_level(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], *, products: int = 96, seed: int = 0
) -> list[NoiseLevel]:
    """Trace and effective rank at ``x + sigma z``, for every sigma (image units) with the same z.

    For one clean image, (1, C, H, W), and ``products`` of each estimate; see
    :func:`~twinscore.analysis.jacobian.trace_and_rank`. The seed is that of z and of the
    estimates. ValueError for a noise level that is not positive, several images, or a denoiser
    that breaks the contract.
    """
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    levels = []
    for sigma in sigmas:
        around = jacobian.linearise(denoiser, x + sigma * z, sigma)
        found = jacobian.trace_and_rank(around, products=products, seed=seed + 1)
        levels.append(NoiseLevel(sigma, *found))
    return levels


def noise(x: Tensor, seed: int) -> Tensor:
    """The standard normal noise z of ``y = x + sigma z``, the same at every noise level."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    return torch.randn(x.shape, generator=generator).to(x)


def _dense(around: Linearisation, k: int, seed: int) -> tuple[Eigenpairs, dict]:
    """The whole spectrum, and what the whole Jacobian says exactly."""
    whole = jacobian.decompose(around)
    matrix, values, vectors = whole.matrix, whole.values, whole.vectors
    gaps = torch.linalg.vector_norm(vectors @ whole.symmetric - values[:, None] * vectors, dim=1)
    scale = values.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    pairs = Eigenpairs(values, vectors, gaps / scale, around.d, 1e-3, survived=True)
    energy, total = matrix.square().sum().item(), matrix.trace().item()
    return pairs, {
        "trace": _exact(total),
        "effective_rank": _exact(total**2 / energy if energy else 0.0),
        "asymmetry": _exact(whole.asymmetry.item()) if energy else None,
        **_accuracy(pairs),
        **_complex(torch.linalg.eigvals(matrix)),
    }


def _sparse(around: Linearisation, k: int, seed: int) -> tuple[Eigenpairs, dict]:
    """The k largest eigenvalues, and estimates of the rest from products."""
    pairs, own = (
        find(around, k, max_products=_products(k), seed=seed)
        for find in (jacobian.symmetric_eigenpairs, jacobian.eigenpairs)
    )
    facts = _accuracy(pairs, own) | _complex(own.values)
    if _is_zero(around, seed):
        return pairs, facts | {
            "trace": _exact(0.0),
            "effective_rank": _exact(0.0),
            "asymmetry": None,
        }
    estimates = (
        *jacobian.trace_and_rank(around, seed=seed),
        jacobian.asymmetry(around, seed=seed),
    )
    trace, rank, asymmetry = (Number(**vars(estimate)) for estimate in estimates)
    return pairs, facts | {"trace": trace, "effective_rank": rank, "asymmetry": asymmetry}


def _is_zero(around: Linearisation, seed: int) -> bool:
    """Whether a random vector is taken to zero, or so near that its square is."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "zero"))
    v = torch.randn(1, around.d, generator=generator).to(around.y)
    return not around.forward(v).cpu().double().square().any()


def _accuracy(*found: Eigenpairs) -> dict:
    return {
        "converged": all(pairs.converged for pairs in found),
        "residual": max(pairs.residuals.max().item() for pairs in found),
    }


def _products(k: int) -> int:
    return max(1000, 4 * k)


def _complex(values: Tensor) -> dict:
    """Conjugate pairs, with one that was cut in two; either half may be there."""
    least = COMPLEX * values.abs().max()
    pairs = max(int((part > least).sum()) for part in (values.imag, -values.imag))
    return {"complex_pairs": pairs, "largest_imaginary": values.imag.abs().max().item()}


def _shares(pairs: Eigenpairs, x: Tensor, z: Tensor) -> tuple[Share, Share | None, Share | None]:
    """Kept, shrunk and removed; what was not computed lies below what was."""
    d, values = x.numel(), pairs.values
    image, noise = (
        (pairs.vectors @ part).square()
        / part.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
        for part in (x.flatten().to(pairs.vectors), z.flatten().to(pairs.vectors))
    )
    end = values[-1] if len(values) < d else -torch.inf

    def share(least: float, below: float) -> Share | None:
        if end >= below:
            return None
        mask = (values >= least) & (values < below)
        return Share(
            directions=int(mask.sum()),
            image=image[mask].sum().item(),
            noise=noise[mask].sum().item(),
            complete=bool(end < least),
        )

    kept, shrunk = share(KEPT, torch.inf), share(REMOVED, KEPT)
    if end >= REMOVED:
        return kept, shrunk, None
    removed = Share(
        directions=d - kept.directions - shrunk.directions,
        image=max(0.0, 1 - kept.image - shrunk.image) if x.any() else 0.0,
        noise=max(0.0, 1 - kept.noise - shrunk.noise),
        complete=True,
    )
    return kept, shrunk, removed


def _decays(shrinkage: Shrinkage, fitted: tuple[int, int]) -> tuple[Decay | None, Decay | None]:
    first, last = fitted
    last = min(last, int((shrinkage.factors > 0).sum()))
    if last < first + 2:
        return None, None
    fits = [shrinkage.factors, shrinkage.clean.square()]
    return tuple(
        decay(values, first, last) if (values[first - 1 : last] > 0).all() else None
        for values in fits
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _exact(value: float) -> Number:
    return Number(value=value, standard_error=0.0)


def _mean(found: object) -> Interval:
    how = {"method": "bootstrap", "covers": "noise"}
    return Interval(value=found.value, low=found.low, high=found.high, **how)
