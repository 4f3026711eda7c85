"""What ``twinscore harmonics`` finds: its numbers, as result.json holds them, and its table."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from twinscore.experiments.eigenbasis import KEPT, REMOVED, Level, Share
from twinscore.runs import SCHEMA_VERSION

STUDY = "harmonics"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Agreement(_Model):
    """Mean squared cosine between two models' top ``dimensions`` eigenvectors at one noise level.

    1 for the same subspace, ``chance`` for random ones.
    """

    sigma: float
    dimensions: int
    shared: float
    chance: float


class Fixed(_Model):
    """Mean squared cosine between a model's top eigenvectors and the best of a fixed basis.

    At the spec's ``sigma``; the best are as many elements, those with most energy in the
    eigenvectors' span. ``chance`` is what as many random directions share with the best for them.
    """

    model: str
    basis: Literal["cosines", "wavelets"]
    dimensions: int
    shared: float
    chance: float


class Model(_Model):
    """One denoiser at every noise level."""

    name: str
    levels: list[Level]

    def at(self, sigma: float) -> Level:
        """Its numbers at one of the noise levels."""
        return next(level for level in self.levels if level.sigma == sigma)


class Result(_Model):
    """What ``result.json`` holds."""

    schema_version: int = SCHEMA_VERSION
    study: Literal["harmonics"] = STUDY
    verdict: str
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
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(w) if i else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )


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


def _estimate(number: Any) -> str:
    if number is None:
        return "-"
    spread = f" ± {number.standard_error:.2g}" if number.standard_error else ""
    return f"{number.value:.3g}{spread}"
