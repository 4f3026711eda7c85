"""How far subspaces coincide: those of two sets of eigenvectors, or of a fixed basis."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pywt
import scipy.fft
import scipy.linalg
import torch
from torch import Tensor


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
    ValueError if the vectors are of different length, or more of them than that.

    Examples
    --------
    >>> import torch
    >>> from twinscore.analysis.subspaces import agreement
    >>> axes = torch.eye(3)
    >>> bool((agreement(axes[:2], axes[1:]).cosines - torch.tensor([1.0, 0.0])).abs().max() < 1e-6)
    True
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
    much of ``b_j`` lies in their span; the k elements with most are compared. Coefficients, (k, d),
    are the vectors in that basis, ``dct(vectors)`` or ``wavelet(vectors)``. The ``chance``, k/d, is
    that of a fixed choice; the best k of d elements are above it. ValueError if there are more
    vectors than dimensions.
    """
    k, d = coefficients.shape
    chosen = coefficients.square().sum(0).topk(min(k, d)).indices
    return agreement(coefficients, torch.eye(d, dtype=coefficients.dtype)[chosen])


def _columns(rows: Tensor) -> np.ndarray:
    return rows.detach().cpu().resolve_conj().numpy().T
