"""The history of a training: one CSV row per evaluation, cut back when training resumes."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from twinscore.denoisers import denoise, psnr
from twinscore.errors import Damaged, one_line
from twinscore.runs import derive_seed, write_text

SIGMAS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Noise levels at which progress and results are measured, image units."""


def columns() -> list[str]:
    """Names of the columns of ``history.csv``."""
    curves = [f"{part}_psnr_{sigma:g}" for part in ("train", "test") for sigma in SIGMAS]
    return ["step", "train_loss", "learning_rate", "seconds", *curves]


def read(path: Path) -> list[dict[str, float]]:
    """Rows of a ``history.csv``; empty if there is none, ``Damaged`` if it is not as written."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return [{k: float(v) for k, v in row.items() if v != ""} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:  # None where a row is cut
        raise Damaged(f"{path}: cannot be read as a table of numbers: {one_line(error)}") from None


def timeless(rows: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Rows without their times: the same for every training of the same spec."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def mend(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write these rows unless the file holds them, whatever their times."""
    try:
        same = timeless(read(path)) == timeless(rows)
    except Damaged:
        same = False
    if not same:
        write(path, rows)


def write(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write all rows atomically; what a row lacks is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.0f}" if k == "step" else f"{v:.6g}" for k, v in row.items()} for row in rows
    )
    write_text(path, text.getvalue())


@torch.no_grad()
def psnr_row(denoiser: nn.Module, images: Tensor, part: str) -> dict[str, float]:
    """Mean PSNR in dB of ``images`` (B, C, H, W) at each of ``SIGMAS``, with fixed noise.

    The noise is the same for every ``part``: training and test sets of one size differ in their
    images alone.
    """
    row = {}
    for sigma in SIGMAS:
        generator = torch.Generator().manual_seed(derive_seed("history", f"{sigma:g}"))
        z = torch.randn(images.shape, generator=generator).to(images.device)
        x_hat = denoise(denoiser, images + sigma * z, sigma)
        row[f"{part}_psnr_{sigma:g}"] = psnr(x_hat, images).mean().item()
    return row
