"""What a denoiser's eigenbasis does to an image, and how it compares with other bases.

A denoiser with a symmetric Jacobian and ``f(y) = J(y) y`` shrinks the noisy image in the basis of
its eigenvectors, ``f(y) = sum_k lambda_k <y, e_k> e_k`` ([GAHB] eq. 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pywt
import scipy.fft
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

from twinscore.analysis.jacobian import (
    Eigenpairs,
    Estimate,
    Linearisation,
    linearise,
    trace_and_rank,
)
from twinscore.analysis.statistics import LEVEL
from twinscore.denoisers import Denoiser


def homogeneity(linearisation: Linearisation) -> Tensor:
    """Relative residual ``|f(y) - J(y) y| / |f(y)|`` of each image, (B,).

    Rounding for bias-free networks in evaluation mode, which are homogeneous for positive scales;
    0 where both sides are zero, infinite where ``f(y)`` alone is. Cost: one forward product.
    """
    gap = linearisation.push(linearisation.y[None])[0] - linearisation.value
    norms = gap.flatten(1).norm(dim=1), linearisation.value.flatten(1).norm(dim=1)
    return torch.where(norms[0] == 0, 0, norms[0] / norms[1])


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
    H, W). ValueError if the eigenvectors are complex, or the images of the wrong shape.
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

    For one clean image, (1, C, H, W), and ``products`` of each estimate; see :func:`trace` and
    :func:`effective_rank`. The seed is that of z and of the estimates. ValueError for a noise level
    that is not positive, several images, or a denoiser that breaks the contract.
    """
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    levels = []
    for sigma in sigmas:
        around = linearise(denoiser, x + sigma * z, sigma)
        found = trace_and_rank(around, products=products, seed=seed + 1)
        levels.append(NoiseLevel(sigma, *found))
    return levels


@dataclass(frozen=True)
class Decay:
    """Power law ``value_k ~ k^-exponent`` over the ranks ``first .. last``, counted from 1.

    ``low`` and ``high`` are the 95 % interval of the regression of log value on log rank. It
    covers the scatter about the line, assumed independent, and not the choice of the range.
    """

    exponent: float
    low: float
    high: float
    first: int
    last: int


def decay(values: Tensor, first: int, last: int) -> Decay:
    """Decay exponent of eigenvalues or of squared coefficients, by least squares on logarithms.

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
    return Decay(exponent, exponent - reach, exponent + reach, first, last)


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far two subspaces coincide.

    Attributes
    ----------
    cosines : Tensor
        Cosines of the principal angles, descending, as many as the smaller subspace has
        dimensions: 1 where they share a direction.
    shared : float
        Mean squared cosine: 1 if one subspace contains the other, and for random ones in d
        dimensions the larger's number of dimensions over d, given as ``chance``.
    chance : float
        See ``shared``.
    """

    cosines: Tensor
    shared: float
    chance: float


def agreement(a: Tensor, b: Tensor) -> Agreement:
    """Principal angles between the spans of two sets of vectors (Björck & Golub 1973).

    Rows, (k, d) and (l, d), are linearly independent; complex rows, as of the Jacobian itself, span
    complex subspaces. Take the top k eigenvectors of two denoisers, twins for instance, at the same
    image. Where eigenvalues k and k + 1 are equal, the top k are not defined: cut in a gap.
    ValueError if the vectors differ in length, or there are more of them than numbers in each.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or max(len(a), len(b)) > a.shape[1]:
        raise ValueError(f"need rows (k, d) and (l, d); got {tuple(a.shape)} and {tuple(b.shape)}")
    angles = scipy.linalg.subspace_angles(_columns(a), _columns(b))
    cosines = np.cos(angles[::-1])
    chance = max(len(a), len(b)) / a.shape[1]
    return Agreement(torch.from_numpy(cosines), float(np.mean(cosines**2)), chance)


def agreement_by_eigenspace(
    vectors: Tensor, values: Tensor, exact: Tensor, *, tolerance: float = 1e-6
) -> list[Agreement]:
    """Agreement with known eigenvectors, eigenspace by eigenspace.

    Eigenvectors of equal eigenvalues are not defined one by one; their span is. The known spectrum,
    ``values`` (m,) descending and ``exact`` (m, d) in rows, is cut into groups of equal values:
    neighbours closer than the tolerance, relative to the largest magnitude. Each group is compared
    with the ``vectors`` of the same ranks, (k, d) with k <= m, in the order of descending
    eigenvalues. The last group may reach beyond them: it then has to contain them. ValueError if
    the known spectrum is shorter than ``vectors`` or not descending.
    """
    if len(values) < len(vectors) or (values.diff() > 0).any():
        raise ValueError(f"need at least {len(vectors)} known eigenvalues in descending order")
    cuts = torch.nonzero(-values.diff() > tolerance * values.abs().max()).flatten() + 1
    edges = [0, *cuts.tolist(), len(values)]
    return [agreement(vectors[i:j], exact[i:j]) for i, j in pairwise(edges) if i < len(vectors)]


def dct(images: Tensor) -> Tensor:
    """Coefficients of images in the orthonormal 2-D cosine basis, (B, C, H, W) to (B, d)."""
    transformed = scipy.fft.dctn(images.cpu().numpy(), axes=(-2, -1), norm="ortho")
    return torch.from_numpy(transformed).flatten(1)


def wavelet(images: Tensor, *, name: str = "db2") -> Tensor:
    """Coefficients of images in an orthonormal wavelet basis, (B, C, H, W) to (B, d).

    Periodic, with as many levels as the filter's length and powers of 2 in both sides allow.

    Raises
    ------
    ValueError
        If a side is odd or shorter than the filter, or the wavelet is not orthogonal.
    """
    sides = images.shape[-2:]
    levels = min(pywt.dwt_max_level(min(sides), name), *((n & -n).bit_length() - 1 for n in sides))
    if not levels or not pywt.Wavelet(name).orthogonal:
        raise ValueError(
            "need an orthogonal wavelet and images of even sides, no shorter than its filter; "
            f"got {name!r} and {tuple(sides)}"
        )
    parts = pywt.wavedec2(
        images.cpu().numpy(), name, mode="periodization", level=levels, axes=(-2, -1)
    )
    array, _ = pywt.coeffs_to_array(parts, axes=(-2, -1))
    return torch.from_numpy(array).flatten(1)


def agreement_with_basis(coefficients: Tensor) -> Agreement:
    """Agreement of a subspace with the best span of as many elements of a fixed basis.

    For orthonormal vectors ``e_i`` and an orthonormal basis ``b_j``, ``sum_i <e_i, b_j>^2`` is how
    much of ``b_j`` lies in their span; the k elements with the largest sums are compared.
    Coefficients, (k, d), are the vectors in that basis, ``dct(vectors)`` or ``wavelet(vectors)``.
    The ``chance``, k/d, is that of a fixed choice; the best k of d elements are above it.
    ValueError if there are more vectors than dimensions.
    """
    k, d = coefficients.shape
    chosen = coefficients.square().sum(0).topk(min(k, d)).indices
    return agreement(coefficients, torch.eye(d, dtype=coefficients.dtype)[chosen])


def _columns(rows: Tensor) -> np.ndarray:
    return rows.detach().cpu().resolve_conj().numpy().T
