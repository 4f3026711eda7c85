"""Eigenvectors as pictures, in the report of harmonics and in that of a run that holds one."""

import numpy as np
from matplotlib.figure import Figure

from twinscore.report import plots, style
from twinscore.report.reading import Run
from twinscore.report.style import Theme

ACROSS = 8  # pictures in a row


def signed(vectors: np.ndarray) -> np.ndarray:
    """Eigenvectors (K, C, H, W) as pictures: 0 is mid-gray, the largest magnitude black or white.

    The sign of an eigenvector is free; its largest entry is made positive, so that two runs show
    the same.
    """
    rows = vectors.reshape(len(vectors), -1)
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(1)]
    scaled = rows / np.where(largest == 0, 1, largest)[:, None]
    return (0.5 + 0.5 * scaled).reshape(vectors.shape)


def side_by_side(run: Run, theme: Theme) -> Figure:
    """What each model makes of the noisy image, and its first eigenvectors, in one row."""
    models = run.result.models
    height, width = run.result.shape[1:]
    tile = 0.92 * style.WIDTH / ACROSS
    drawn = style.new_figure(0.3 + len(models) * (0.45 + tile * height / width))
    grid = drawn.subplots(len(models), ACROSS, squeeze=False)
    for i, (row, model) in enumerate(zip(grid, models, strict=True)):
        level = model.at(run.result.sigma)
        plots.show(row[0], run.array("clean"), "clean")
        plots.show(row[1], run.array("noisy"), "noisy", f"{level.psnr_in:.1f} dB")
        name, below = plots.named(model.name, 24), f"{level.psnr_out:.1f} dB"
        plots.show(row[2], run.array(f"model{i}/denoised"), name, below)
        gallery(run, i, row[3:])
    return drawn


def gallery(run: Run, model: int, grid: np.ndarray) -> None:
    """Eigenvectors in order, each with its eigenvalue, over the axes of a grid."""
    vectors, values = eigenpairs(run, model)
    for k, (axes, vector) in enumerate(zip(plots.blank(grid), signed(vectors), strict=False)):
        plots.show(axes, vector, f"{k + 1}", f"{values[k]:.2f}")


def eigenpairs(run: Run, model: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors (k, C, H, W) at the noise level of the pictures, and their eigenvalues (k,)."""
    vectors = run.array(f"model{model}/eigenvectors")
    row = [level.sigma for level in run.result.models[model].levels].index(run.result.sigma)
    return vectors, run.array(f"model{model}/eigenvalues")[row][: len(vectors)]
