"""How a denoiser's eigenvectors lie to the tangent space of a manifold of images."""

import torch
from torch import Tensor

from twinscore.analysis.jacobian import symmetric_basis


def principal_cosines(a: Tensor, tangent: Tensor) -> Tensor:
    """Cosines of the principal angles between two spans (Björck & Golub 1973), falling, (T,).

    Both are given by orthonormal rows, (A, d) and (T, d); angles that fewer rows leave undefined
    are right angles.
    """
    cosines = torch.linalg.svdvals(a.to(tangent) @ tangent.T)
    return torch.nn.functional.pad(cosines, (0, len(tangent) - len(cosines)))


def extra_directions(symmetric: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenpairs of a symmetric matrix confined to the complement of the tangent, falling.

    The noise that is kept beyond the tangent: the optimum keeps none of it at small noise.
    """
    along = symmetric @ tangent.T @ tangent
    confined = symmetric - along - along.T + tangent.T @ (tangent @ along)
    return symmetric_basis(confined)
