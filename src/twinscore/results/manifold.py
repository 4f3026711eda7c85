"""Train on discs: how far is a network from the exact optimum?"""

from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen, Interval, aligned, dashed


class Beside(Frozen):
    """PSNR (dB) and gap on the discs of the exact posterior mean alone, to set beside it."""

    network: Interval
    tangent: Interval
    gap_tangent: Interval


class Level(Frozen):
    """One noise level.

    ``network``, ``tangent``, ``exact`` are the PSNR (dB) of the mean squared error: of the network
    and of the projection on the true disc's tangent on all test discs, of the exact posterior mean
    on those where it was computed. ``gap_tangent`` and ``gap_exact`` are how many dB the network's
    mean squared error is above theirs, on the same noisy discs; negative where it is below.
    ``beside_exact`` has the numbers of network and tangent on the discs of the exact posterior mean
    alone. ``kept`` is the number of eigenvalues above the threshold and ``near_one`` of those above
    0.9, of the network and of the exact posterior mean; ``overlap`` the share of the tangent space
    in the span of the network's kept eigenvectors, the mean squared cosine of the principal angles;
    ``cosines`` their means.
    """

    sigma: float
    input_psnr: float
    network: Interval
    tangent: Interval
    exact: Interval | None
    gap_tangent: Interval
    gap_exact: Interval | None
    beside_exact: Beside | None
    kept: Interval
    kept_exact: Interval | None
    near_one: Interval
    near_one_exact: Interval | None
    overlap: Interval
    cosines: list[float]

    @property
    def gap(self) -> Interval:
        """From the exact posterior mean, or, where that is unknown, from the tangent projection."""
        return self.gap_exact or self.gap_tangent


class Result(base.Result):
    """``result.json`` of a run on discs."""

    study: Literal["manifold"] = "manifold"
    size: int
    threshold: float
    test: int
    exact: int
    bases: int
    replicates: int
    levels: list[Level]
    dimension: int = 5
    """Of the manifold of discs: centre, radius, foreground, background."""
    near_one: float = 0.9
    """An eigenvalue above it is near 1: almost nothing of its direction is taken away."""

    def table(self) -> str:
        """A row for each noise level: errors, then eigenvalues."""
        errors = [("sigma", "network dB", "above exact, dB", "above tangent, dB", "overlap")]
        limits = (self.threshold, self.near_one)
        counts = [("sigma", *(f"> {t:g}{of}" for t in limits for of in ("", ", exact")))]
        for level in self.levels:
            sigma = f"{level.sigma:.3g}"
            gaps = (dashed(level.gap_exact), dashed(level.gap_tangent))
            errors.append((sigma, f"{level.network.value:.2f}", *gaps, dashed(level.overlap)))
            numbers = (level.kept, level.kept_exact, level.near_one, level.near_one_exact)
            counts.append((sigma, *(dashed(number, 1) for number in numbers)))
        return f"{aligned(errors)}\n\neigenvalues of the Jacobian\n{aligned(counts)}"
