"""The numbers of a transition run: the models of ``result.json``, and how they are put in words."""

import csv
import io
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from twinscore.analysis import memorization
from twinscore.runs import SCHEMA_VERSION


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Median(_Model):
    """A median with its bootstrap interval (95 %)."""

    median: float
    low: float
    high: float


class Value(_Model):
    """A number with its bootstrap interval (95 %)."""

    value: float
    low: float
    high: float


class Quantiles(_Model):
    """The 5 % and 95 % quantiles of the values."""

    low: float
    high: float


class Similarity(_Model):
    """Nearest-training similarity of each twin's samples."""

    a: Median
    b: Median


class PerTwin(_Model):
    """One number for each twin; ``None`` where it is not defined."""

    a: Value | None
    b: Value | None


class Unfinished(_Model):
    """Samples of each twin whose path was lost, and which are black."""

    a: int
    b: int


class Psnr(_Model):
    """Output PSNR in dB at each noise level: mean over images of each image's PSNR."""

    sigma: list[float]
    train: list[float]
    train_low: list[float]
    train_high: list[float]
    test: list[float]
    test_low: list[float]
    test_high: list[float]


class Level(_Model):
    """Everything measured at one training set size."""

    n: int
    verdict: memorization.Verdict
    twin_similarity: Median
    nearest_similarity: Similarity
    memorised_fraction: PerTwin
    diversity: PerTwin
    closest_pairs: Median
    held_out_nearest: Median
    held_out_quantiles: Quantiles
    plausible: bool
    unfinished_samples: Unfinished
    warnings: list[str]
    psnr: Psnr


class Data(_Model):
    """The images of the run; ``split`` is a rule (never *auto*) or the folder of the lists."""

    source: str
    images: int
    dropped: int
    threshold: float
    shape: tuple[int, int, int]
    test: int
    split: str
    attribute: str | None


class Harmonics(_Model):
    """What the smallest N that memorises and the largest that generalises do to a test image."""

    sentence: str
    folder: str
    """Within the run's: a run of ``twinscore harmonics``."""


class Result(_Model):
    """``result.json`` of a transition run."""

    schema_version: int = SCHEMA_VERSION
    study: Literal["transition"] = "transition"
    complete: bool
    missing: list[str]
    verdict: str
    critical_n: Value | None
    critical_n_phrase: str
    closest_pairs: Median
    held_out_nearest: Median
    data: Data
    levels: list[Level]
    harmonics: Harmonics | None = None
    """None unless one N memorises and another generalises."""

    def table(self) -> str:
        """The levels as a plain table, with what to beware of and the harmonics below it."""
        head = ("N", "verdict", "twin similarity", "nearest A", "nearest B", "memorised", "gap dB")
        rows = [head, *(_row(level) for level in self.levels)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(w) if i == 1 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        below = [warning for level in self.levels for warning in level.warnings]
        below += [self.harmonics.sentence] if self.harmonics else []
        return "\n".join(lines + below)


def _row(level: Level) -> tuple[str, ...]:
    def show(m: Median) -> str:
        return f"{m.median:.3f} [{m.low:.3f}, {m.high:.3f}]"

    copies = [f"{100 * v.value:.0f}%" for v in (level.memorised_fraction.a,) if v]
    copies += [f"{100 * v.value:.0f}%" for v in (level.memorised_fraction.b,) if v]
    gap = max(a - b for a, b in zip(level.psnr.train, level.psnr.test, strict=True))
    return (
        f"{level.n:,}",
        level.verdict,
        show(level.twin_similarity),
        show(level.nearest_similarity.a),
        show(level.nearest_similarity.b),
        " / ".join(copies) or "-",
        f"{gap:.2f}",
    )


def table(levels: list[Level]) -> str:
    """The levels as CSV: one row per N, nested names joined by underscores."""
    rows = []
    for level in levels:
        content = level.model_dump()
        psnr = content.pop("psnr")
        row = _flat(content)
        for name in psnr.keys() - {"sigma"}:
            row |= {f"psnr_{name}_{s:g}": v for s, v in zip(psnr["sigma"], psnr[name], strict=True)}
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, sorted(set().union(*rows), key=_column), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}_")
        elif isinstance(value, list):
            flat[prefix + key] = "; ".join(value)
        elif value is not None:
            flat[prefix + key] = value
    return flat


def _column(name: str) -> tuple[bool, str]:
    return name != "n", name


def sentence(levels: list[Level], phrase: str, source: str) -> str:
    """The verdict of a run in one sentence."""
    parts = []
    for word in ("memorises", "transition", "generalises"):
        sizes = [f"{level.n:,}" for level in levels if level.verdict == word]
        if sizes:
            verb = "is in transition" if word == "transition" else word
            parts.append(f"{verb} at N = {', '.join(sizes)}")
    return f"On {source} the denoiser {'; '.join(parts)}; critical N: {phrase}."
