"""Show the basis in which a denoiser shrinks an image."""

from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen, Interval, aligned

KEPT, REMOVED = 0.75, 0.25
"""Eigenvalues from which on a coefficient counts as kept, and below which as removed."""


class Number(Frozen):
    """A number and the standard error of its estimate, 0 where it is exact."""

    value: float
    standard_error: float


class Risk(Frozen):
    """Squared error of one image under fresh noise, summed over pixels: SURE and the truth."""

    sure: Interval
    error: Interval
    difference: Interval


class Decay(Frozen):
    """Exponent of a power law over the ranks ``first .. last``, with its interval (95 %)."""

    exponent: float
    low: float
    high: float
    first: int
    last: int


class Share(Frozen):
    """Directions of one kind, and the share of energy that lies in them.

    ``image`` is of the clean image less its mean, ``noise`` of this noise. All three are lower
    bounds where the eigenvalues that were computed end within this kind.
    """

    directions: int
    image: float
    noise: float
    complete: bool

    @property
    def bound(self) -> str:
        """What goes before the numbers in words."""
        return "" if self.complete else "at least "


class Level(Frozen):
    """One model at one noise level."""

    sigma: float
    psnr_in: float
    psnr_out: float
    trace: Number
    effective_rank: Number
    asymmetry: Number | None
    """Degree of asymmetry, 0 to 2; None where the Jacobian is zero."""
    homogeneity: float | None
    """``|f(y) - J y| / |f(y)|``; None where f(y) is zero and J y is not."""
    complex_pairs: int
    """Conjugate pairs among the ``eigenvalues`` of J itself with an imaginary part above a
    thousandth of the largest magnitude."""
    largest_imaginary: float
    eigenvalues: int
    """How many were computed: d, or the k largest."""
    converged: bool
    residual: float
    """Largest of the eigenpairs', of the symmetric part and of J itself, each relative to its
    largest eigenvalue."""
    kept: Share
    shrunk: Share | None
    removed: Share | None
    """None, as ``shrunk``, where the eigenvalues that were computed end among larger ones."""
    risk: Risk
    eigenvalue_decay: Decay | None
    coefficient_decay: Decay | None
    """Of the squared coefficients of the clean image. None where too few eigenvalues were computed
    and are above zero within the fitting range, which ends where they do."""


class Agreement(Frozen):
    """Mean squared cosine between two models' top ``dimensions`` eigenvectors at one noise level.

    1 for the same subspace, ``chance`` for random ones.
    """

    sigma: float
    dimensions: int
    shared: float
    chance: float


class Fixed(Frozen):
    """Mean squared cosine between a model's top eigenvectors and the best of a fixed basis.

    At the spec's ``sigma``; the best are as many elements, those with most energy in the
    eigenvectors' span. ``chance`` is what as many random directions share with the best for them.
    """

    model: str
    basis: Literal["cosines", "wavelets"]
    dimensions: int
    shared: float
    chance: float


class Model(Frozen):
    """One denoiser at every noise level."""

    name: str
    levels: list[Level]

    def at(self, sigma: float) -> Level:
        """Its numbers at one of the noise levels."""
        return next(level for level in self.levels if level.sigma == sigma)


class Result(base.Result):
    """``result.json`` of one or two models at one image."""

    study: Literal["harmonics"] = "harmonics"
    source: str
    index: int
    image: str
    """Name of the image in its source."""
    shape: tuple[int, int, int]
    sigma: float
    kept_from: float = KEPT
    removed_below: float = REMOVED
    models: list[Model]
    agreement: list[Agreement]
    fixed: list[Fixed]

    def table(self) -> str:
        """Every model and noise level as text."""
        head = ("model", "sigma", "PSNR in", "out", "trace", "rank", "kept", "shrunk", "|J-J'|/|J|")
        rows = [head, *(_row(model.name, level) for model in self.models for level in model.levels)]
        return aligned(rows, left=(0,))


def _row(name: str, level: Level) -> tuple[str, ...]:
    return (
        name,
        f"{level.sigma:g}",
        f"{level.psnr_in:.1f}",
        f"{level.psnr_out:.1f}",
        _estimate(level.trace),
        _estimate(level.effective_rank),
        _directions(level.kept),
        _directions(level.shrunk),
        _estimate(level.asymmetry),
    )


def _directions(share: Share | None) -> str:
    return "-" if share is None else f"{'' if share.complete else '>= '}{share.directions}"


def _estimate(number: Number | None) -> str:
    if number is None:
        return "-"
    spread = f" ± {number.standard_error:.2g}" if number.standard_error else ""
    return f"{number.value:.3g}{spread}"
