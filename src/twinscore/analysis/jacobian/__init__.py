"""The Jacobian of a denoiser at a noisy image: products, eigenpairs, trace, without forming it."""

from twinscore.analysis.jacobian.estimates import (
    Estimate,
    asymmetry,
    effective_rank,
    trace,
    trace_and_rank,
    traces,
)
from twinscore.analysis.jacobian.krylov import Eigenpairs, eigenpairs, symmetric_eigenpairs
from twinscore.analysis.jacobian.matrix import Decomposed, decompose, full, symmetric_basis
from twinscore.analysis.jacobian.products import Linearisation, linearise

__all__ = [
    "Decomposed",
    "Eigenpairs",
    "Estimate",
    "Linearisation",
    "asymmetry",
    "decompose",
    "effective_rank",
    "eigenpairs",
    "full",
    "linearise",
    "symmetric_basis",
    "symmetric_eigenpairs",
    "trace",
    "trace_and_rank",
    "traces",
]
