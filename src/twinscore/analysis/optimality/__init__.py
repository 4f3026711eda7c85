r"""How close a denoiser comes to the best one: gaps in mean squared error, and the KL bound.

[GAHB] eq. 5, with the two ends that make it a number (docs/formulas.md#kl-bound):

.. math:: KL(p_{min} \| p_{\theta,min}) \le
    \int_{\sigma_{min}}^{\sigma_{max}} E\|f - f^*\|^2\, \sigma^{-3} d\sigma
    + \frac{\mathrm{tr}\,\mathrm{Cov}\,x}{2 \sigma_{max}^2}.

p_min is the density of ``x + sigma_min z``, ``f*`` its posterior mean, and p_theta what the *exact
reverse SDE* of f makes of ``N(mean, sigma_max^2)``. The probability flow of the same f may lie much
farther away. Squared errors are summed over pixels here.
"""

from twinscore.analysis.levels import LazyImages, LevelIntegral
from twinscore.analysis.optimality.bound import KLBound, kl_bound, kl_bound_between_twins
from twinscore.analysis.optimality.gap import Estimates, Gaps, gaps
from twinscore.analysis.optimality.twins import TwinErrors, twin_errors, variance_integral

__all__ = [
    "Estimates",
    "Gaps",
    "KLBound",
    "LazyImages",
    "LevelIntegral",
    "TwinErrors",
    "gaps",
    "kl_bound",
    "kl_bound_between_twins",
    "twin_errors",
    "variance_integral",
]
