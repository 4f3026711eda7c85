"""Exact denoisers of known densities: the posterior mean, its Jacobian, its error, the density.

All of them need the noise level (``sigma``), compute in the dtype and on the device of ``y``, and
give the Jacobian ``Cov[x | y] / sigma^2`` (docs/formulas.md#optimal-jacobian); of local denoisers,
which belong to no density of images, each row has that of a pixel with its patch.
"""

from twinscore.denoisers.closed_form.disc import Disc, disc_tangent
from twinscore.denoisers.closed_form.empirical import Empirical
from twinscore.denoisers.closed_form.gaussian import Gaussian, StationaryGaussian
from twinscore.denoisers.closed_form.local import Local, LocalByLevel, fitted_sides
from twinscore.denoisers.closed_form.mixture import GaussianMixture
from twinscore.denoisers.closed_form.subspace import LinearSubspace

__all__ = [
    "Disc",
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "LinearSubspace",
    "Local",
    "LocalByLevel",
    "StationaryGaussian",
    "disc_tangent",
    "fitted_sides",
]
