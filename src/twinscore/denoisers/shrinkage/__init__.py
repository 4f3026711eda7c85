"""Shrinkage estimators: denoisers that keep the large coefficients in an orthonormal basis.

Baselines for every study. The bases are fixed (``Cosines``, ``Wavelets``) or chosen for each image
(``Bandlets``); the shrinkage is a threshold (``Thresholding``) or, for what is possible at best, by
an oracle that knows the clean image: with the best factors (``Oracle``; ``oracle_risk`` gives its
exact error) or the best threshold (``OracleThresholding``).
"""

from twinscore.denoisers.shrinkage.bandlets import BandletBasis, Bandlets, Square
from twinscore.denoisers.shrinkage.thresholding import (
    Dictionary,
    Oracle,
    OracleThresholding,
    Thresholding,
    attenuate,
    best_threshold,
    hard,
    keep_or_kill,
    oracle_risk,
    soft,
)
from twinscore.denoisers.shrinkage.transforms import Basis, Cosines, Wavelets, largest_vectors

__all__ = [
    "BandletBasis",
    "Bandlets",
    "Basis",
    "Cosines",
    "Dictionary",
    "Oracle",
    "OracleThresholding",
    "Square",
    "Thresholding",
    "Wavelets",
    "attenuate",
    "best_threshold",
    "hard",
    "keep_or_kill",
    "largest_vectors",
    "oracle_risk",
    "soft",
]
