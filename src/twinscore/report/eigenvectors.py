"""Eigenvectors as pictures, in the report of harmonics and in that of a run that holds one."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twinscore.report import style
from twinscore.report.pictures import to_rgb
from twinscore.report.reading import Run
from twinscore.report.style import Theme

ACROSS = 8
"""Pictures in a row."""


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
        show(row[0], run.array("clean"), "clean", "")
        show(row[1], run.array("noisy"), "noisy", f"{level.psnr_in:.1f} dB")
        show(row[2], run.array(f"model{i}/denoised"), model.name, f"{level.psnr_out:.1f} dB")
        gallery(run, i, row[3:])
    return drawn


def gallery(run: Run, model: int, grid: np.ndarray) -> None:
    """Eigenvectors in order, each with its eigenvalue, over the axes of a grid."""
    vectors, values = eigenpairs(run, model)
    for axes in grid:
        axes.set_axis_off()
    for k, (axes, vector) in enumerate(zip(grid, signed(vectors), strict=False)):
        show(axes, vector, f"{k + 1}", f"{values[k]:.2f}")


def eigenpairs(run: Run, model: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors (k, C, H, W) at the noise level of the pictures, and their eigenvalues (k,)."""
    vectors = run.array(f"model{model}/eigenvectors")
    row = [level.sigma for level in run.result.models[model].levels].index(run.result.sigma)
    return vectors, run.array(f"model{model}/eigenvalues")[row][: len(vectors)]


def show(axes: Axes, image: np.ndarray, above: str, below: str) -> None:
    """An image (C, H, W) with a word above and one below."""
    axes.imshow(to_rgb(image[None])[0], interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(above, fontsize=7.5, pad=2)
    axes.annotate(
        below,
        (0.5, 0),
        xycoords="axes fraction",
        xytext=(0, -2),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=7,
    )
