"""The figures of the harmonics study, each a function of the run's data and a theme."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twinscore.report import style
from twinscore.report.harmonics_data import Harmonics
from twinscore.report.pictures import to_rgb
from twinscore.report.style import Theme

LEAST = 1e-3
"""Eigenvalues below are not drawn: on a logarithmic axis they, and negative ones, have no place."""

ACROSS, ROWS = 8, 6
"""Eigenvectors in a row of the gallery, and most rows for each model."""

BINS = 60
"""Edges of the bins over which coefficients are averaged, at most."""


def signed(vectors: np.ndarray) -> np.ndarray:
    """Eigenvectors (K, C, H, W) as pictures: 0 is mid-gray, the largest magnitude black or white.

    The sign of an eigenvector is free; its largest entry is made positive, so that two runs show
    the same.
    """
    rows = vectors.reshape(len(vectors), -1)
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(1)]
    scaled = rows / np.where(largest == 0, 1, largest)[:, None]
    return (0.5 + 0.5 * scaled).reshape(vectors.shape)


def images(data: Harmonics, theme: Theme) -> Figure:
    """Draw the clean image, the noisy one, and what each model makes of it."""
    models = data.result.models
    level = data.main(models[0])
    tiles = [
        ("clean", "", data.array("clean")),
        ("noisy", f"{level.psnr_in:.1f} dB", data.array("noisy")),
    ]
    tiles += [
        (model.name, f"{data.main(model).psnr_out:.1f} dB", data.array("denoised", i))
        for i, model in enumerate(models)
    ]
    height, width = data.result.shape[1:]
    across = style.WIDTH / 4
    figure = style.new_figure(0.5 + 0.92 * across * height / width)
    for axes in figure.subplots(1, 4):
        axes.set_axis_off()
    for axes, (name, below, tile) in zip(figure.axes, tiles, strict=False):
        _tile(axes, tile, name, below)
    return figure


def spectrum(data: Harmonics, theme: Theme) -> Figure:
    """Draw the eigenvalues against their rank, a panel for each model, a curve for each level."""
    models = data.result.models
    figure = style.new_figure(3.0)
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    for i, (axes, model) in enumerate(zip(panels, models, strict=True)):
        spectra = data.array("eigenvalues", i)
        colours = theme.ordered(len(spectra))
        for values, level, colour in zip(spectra, model.levels, colours, strict=True):
            ranks = np.arange(1, len(values) + 1)
            shown = values >= LEAST
            axes.plot(ranks[shown], values[shown], color=colour, label=f"{level.sigma:g}")
        for border in (data.result.kept_from, data.result.removed_below):
            axes.axhline(border, color=theme.muted, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xscale="log", yscale="log", xlabel="rank k", title=model.name)
    panels[0].set_ylabel("eigenvalue $\\lambda_k$")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="σ")
    return figure


def eigenvectors(data: Harmonics, theme: Theme) -> Figure:
    """Draw the first eigenvectors of each model in order, with their eigenvalues."""
    return _gallery(data, ACROSS, ROWS)


def side_by_side(data: Harmonics, theme: Theme) -> Figure:
    """Draw what each model makes of the noisy image, and its first eigenvectors, in one row."""
    models = data.result.models
    height, width = data.result.shape[1:]
    tile = 0.92 * style.WIDTH / ACROSS
    figure = style.new_figure(0.3 + len(models) * (0.45 + tile * height / width))
    grid = figure.subplots(len(models), ACROSS, squeeze=False)
    for i, (row, model) in enumerate(zip(grid, models, strict=True)):
        level = data.main(model)
        _tile(row[0], data.array("clean"), "clean", "")
        _tile(row[1], data.array("noisy"), "noisy", f"{level.psnr_in:.1f} dB")
        _tile(row[2], data.array("denoised", i), model.name, f"{level.psnr_out:.1f} dB")
        _vectors(data, i, row[3:])
    return figure


def coefficients(data: Harmonics, theme: Theme) -> Figure:
    """Draw the coefficients of clean, noisy and denoised image in each model's eigenbasis."""
    models = data.result.models
    figure = style.new_figure(3.2)
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    looks = {
        "noisy": {"color": theme.muted, "marker": ".", "markersize": 3, "linewidth": 0.6},
        "clean": {"color": theme.twins, "marker": ".", "markersize": 3, "linewidth": 0.9},
        "denoised": {"color": theme.nearest, "linewidth": 1.3},
    }
    for i, (axes, model) in enumerate(zip(panels, models, strict=True)):
        level = data.main(model)
        count = len(data.array("coefficients_clean", i))
        shrunk = level.shrunk.directions if level.shrunk else 0
        edges = np.cumsum([0.5, level.kept.directions, shrunk])
        edges = np.minimum([*edges, count + 0.5], count + 0.5)
        words = ("kept", "shrunk", "removed")
        for word, start, end in zip(words, edges[:-1], edges[1:], strict=True):
            if end > start:
                opacity = {"kept": 0.16, "shrunk": 0.07, "removed": 0.0}[word]
                axes.axvspan(start, end, color=theme.closest_pairs, alpha=opacity, linewidth=0)
                _word(axes, np.sqrt(start * end), word)
        for name, look in looks.items():
            axes.plot(*_binned(data.array(f"coefficients_{name}", i)), label=name, **look)
        axes.axhline(data.result.sigma, color=theme.ink, linewidth=0.8, linestyle=":", label="σ")
        axes.set(xscale="log", yscale="log", xlabel="rank k", xlim=(0.5, count + 0.5))
        axes.set_title(model.name, pad=14)
    panels[0].set_ylabel("coefficient (root mean square)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    return figure


def _binned(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle ranks and root mean squares of bins whose width grows in proportion to the rank."""
    count = len(coefficients)
    edges = np.unique(np.rint(np.geomspace(1, count + 1, BINS)).astype(int))
    energy = np.add.reduceat(np.square(coefficients, dtype=float), edges[:-1] - 1)
    middle = np.sqrt(edges[:-1] * (edges[1:] - 1.0))
    return middle, np.sqrt(energy / np.diff(edges))


def _gallery(data: Harmonics, across: int, rows: int) -> Figure:
    models = data.result.models
    height, width = data.result.shape[1:]
    count = min(across * rows, *(len(data.array("eigenvectors", i)) for i in range(len(models))))
    rows = -(-count // across)
    tile = 0.92 * style.WIDTH / across
    figure = style.new_figure(len(models) * (0.35 + rows * (0.24 + tile * height / width)))
    parts = figure.subfigures(len(models), 1, squeeze=False)[:, 0]
    for i, (part, model) in enumerate(zip(parts, models, strict=True)):
        part.suptitle(model.name, fontsize=9, fontweight="bold")
        grid = part.subplots(rows, across, squeeze=False).ravel()
        _vectors(data, i, grid)
    return figure


def _vectors(data: Harmonics, model: int, grid: np.ndarray) -> None:
    """Eigenvectors in order, each with its eigenvalue, over the axes of a grid."""
    vectors = signed(data.array("eigenvectors", model))
    level = data.main(data.result.models[model])
    row = data.result.models[model].levels.index(level)
    values = data.array("eigenvalues", model)[row]
    for axes in grid:
        axes.set_axis_off()
    for k, (axes, vector) in enumerate(zip(grid, vectors, strict=False)):
        _tile(axes, vector, f"{k + 1}", f"{values[k]:.2f}")


def _tile(axes: Axes, tile: np.ndarray, above: str, below: str) -> None:
    axes.imshow(to_rgb(tile[None])[0], interpolation="nearest")
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


def _word(axes: Axes, x: float, word: str) -> None:
    axes.annotate(
        word,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7,
    )
