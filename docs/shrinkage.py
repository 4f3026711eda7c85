"""Measure the tables and draw the figure of docs/shrinkage.md.

python docs/shrinkage.py

Slopes of keep-or-kill oracles on C-alpha images, what the best basis gains on wavelets there and on
two controls, what is lost by the choice of the threshold, and the best basis of one image.
"""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

from twinscore.analysis.slopes import fitted_slope, local_slopes
from twinscore.analysis.statistics import interval, resampled
from twinscore.denoisers.layers import generator_of
from twinscore.denoisers.shrinkage import (
    Bandlets,
    Cosines,
    OracleThresholding,
    Square,
    Thresholding,
    Wavelets,
    largest_vectors,
    oracle_risk,
    soft,
)
from twinscore.images.synthetic import CAlpha, c_alpha, field_law, mixture
from twinscore.report import style

SIZE, COUNT, SEED = 64, 128, 0
FIT_RANGE = (10.0, 30.0)
LEVELS = np.arange(10, 41, 2.0)
FIGURE = 7
FRESH = range(COUNT, COUNT + 64)  # on the first the estimator's geometry_cost was chosen
ORACLES = {
    "cosines": Cosines(),
    "cosines, 8x8 blocks": Cosines(block=8),
    "wavelets": Wavelets(),
    "best basis": Bandlets(geometry_cost=0),
}
ESTIMATORS = {
    "wavelets": Thresholding(Wavelets(), multiple=3.0),
    "best basis": Thresholding(Bandlets(geometry_cost=2), multiple=3.0),
}


def images(alpha: float, indices: range = range(COUNT)) -> torch.Tensor:
    return c_alpha(indices, CAlpha(SIZE, alpha, filter="regularity"), seed=SEED).double()


def with_interval(value: float, bounds: tuple[float, float], digits: int) -> str:
    low, high = bounds
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def gap(reference: np.ndarray, better: np.ndarray) -> str:
    """How much less the mean error is, dB, from errors (N,) of the same images."""
    pairs = np.stack([reference, better], 1)[None]

    def decibels(drawn: np.ndarray, axis: int) -> np.ndarray:
        return 10 * np.log10(np.divide(*drawn.mean(axis).T))

    value = 10 * math.log10(reference.mean() / better.mean())
    return with_interval(value, interval(resampled(pairs, decibels, seed=SEED)), 2)


def gaps(x: torch.Tensor, sigma: float) -> tuple[str, str]:
    """What the best basis gains on wavelets, dB: as oracle, and as estimator."""
    y = x + sigma * torch.randn(x.shape, generator=generator_of(SEED), dtype=x.dtype)
    names = ("wavelets", "best basis")
    oracles = [oracle_risk(x, sigma, ORACLES[name]).numpy() for name in names]
    errors = [(ESTIMATORS[name](y, sigma) - x).square().flatten(1).sum(1) for name in names]
    return gap(*oracles), gap(*(error.numpy() for error in errors))


def slopes(sigmas: np.ndarray, errors: dict[str, np.ndarray], alpha: float) -> None:
    for name, mse in errors.items():
        fit = fitted_slope(sigmas, mse, FIT_RANGE, seed=SEED)
        centres, local = local_slopes(sigmas, mse.mean(1))
        ends = [f"{local[np.abs(centres - at).argmin()]:.2f}" for at in (11, 29, 39)]
        shown = with_interval(fit.value, (fit.low, fit.high), 3)
        print(f"| {alpha:g} | {name} | {shown} | {' | '.join(ends)} |", flush=True)


def measure_slopes() -> None:
    sigmas = 10 ** (-LEVELS / 20)
    for alpha in (1.0, 2.0, 3.0):
        x = images(alpha)
        errors = {
            name: np.stack([oracle_risk(x, s, basis).numpy() / SIZE**2 for s in sigmas])
            for name, basis in ORACLES.items()
        }
        slopes(sigmas, errors, alpha)


def measure_gaps() -> None:
    for alpha in (1.0, 3.0):
        x = images(alpha, FRESH)
        law = field_law(SIZE, 2.0 * (alpha + 1), contrast=0.2)
        edge_free, _ = mixture(range(len(x)), law, seed=SEED)
        classes = (x, torch.cat([x, x.flip(-2)], -2), edge_free.double())
        for level in (10, 20, 30, 40):
            pairs = [gaps(of, 10 ** (-level / 20)) for of in classes]
            cells = [cell for column in zip(*pairs, strict=True) for cell in column]
            print(f"| {alpha:g} | {level} | {' | '.join(cells)} |", flush=True)


def measure_thresholds() -> None:
    """What is gained on the universal threshold in wavelets, dB."""
    for alpha in (1.0, 3.0):
        x = images(alpha, FRESH)
        z = torch.randn(x.shape, generator=generator_of(SEED), dtype=x.dtype)
        denoisers = (
            Thresholding(Wavelets()),
            Thresholding(Wavelets(), multiple=3.0),
            OracleThresholding(x, Wavelets()),
            OracleThresholding(x, Wavelets(), soft),
        )
        for level in (10, 20, 30, 40):
            sigma = 10 ** (-level / 20)
            found = [(d(x + sigma * z, sigma) - x).square().flatten(1).sum(1) for d in denoisers]
            found.append(oracle_risk(x, sigma, Wavelets()))
            universal, *others = (error.numpy() for error in found)
            cells = [gap(universal, other) for other in others]
            print(f"| {alpha:g} | {level} | {' | '.join(cells)} |", flush=True)


def mark(axis: Axes, square: Square, colour: str) -> None:
    """Outline a square and draw its direction through the middle."""
    row, column, side, angle = square
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]) * side - 0.5
    axis.plot(column + corners[:, 1], row + corners[:, 0], color=colour, linewidth=0.6)
    middle = np.array([column, row]) + (side - 1) / 2
    half = 0.38 * side * np.array([math.cos(angle), math.sin(angle)])
    axis.plot(*np.stack([middle - half, middle + half], 1), color=colour, linewidth=1.1)


def draw(path: Path, sigma: float = 0.05) -> None:
    x = images(2.0)[FIGURE : FIGURE + 1]
    basis = Bandlets(geometry_cost=1).adapted(x, sigma)
    vectors, _ = largest_vectors(basis, x[0], 160)
    with style.applied("light") as theme:
        figure = style.new_figure(2.7)
        left, middle, right = figure.subfigures(1, 3)
        left.suptitle("image", fontsize=8)
        axis = left.subplots()
        axis.imshow(x[0, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_axis_off()
        middle.suptitle("wavelets, squares, directions", fontsize=8)
        axis = middle.subplots()
        sizes = Wavelets().forward(x)[0, 0].abs().clamp(1e-3, 1).log10()
        axis.imshow(sizes, cmap="gray_r", interpolation="nearest")
        for square in basis.squares():
            mark(axis, square, theme.nearest)
        axis.set_axis_off()
        right.suptitle("vectors 10, 20, ... 160", fontsize=8)
        for axis, vector in zip(right.subplots(4, 4).flat, vectors[9::10], strict=True):
            bound = vector.abs().max().item()
            axis.imshow(vector[0], cmap="RdBu", vmin=-bound, vmax=bound)
            axis.set_axis_off()
        path.write_bytes(style.png(figure))


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw(Path(__file__).parent / "figures" / "shrinkage.png")
    measure_slopes()
    measure_gaps()
    measure_thresholds()
