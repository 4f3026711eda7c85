"""A run on discs on paper: the network beside the optimum, its spectrum, and its eigenvectors.

After figure 6 of Kadkhodaie, Guth, Simoncelli and Mallat (ICLR 2024).
"""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from twinscore.report import plots, style
from twinscore.report.content import (
    HOLDS_SYNTHETIC,
    Content,
    Table,
    covers,
    figure,
    interval_cell,
    table,
)
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.base import Interval
from twinscore.results.manifold import Level, Result

RANKS = 30
MOST_LEVELS = 5
DASHED = (0, (4, 2))
COUNTS = ("kept", "kept_exact", "near_one", "near_one_exact")


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    reference = (
        f"exact posterior mean on {result.exact} discs, tangent projection on {result.test}"
        if result.exact
        else f"tangent projection on {result.test} discs; the exact posterior mean was not computed"
    )
    return Content(
        title=f"twinscore: discs of {result.size} x {result.size} pixels",
        verdict=result.verdict,
        facts=(
            ("Images", f"discs of {result.size} x {result.size} pixels"),
            ("Networks", str(result.replicates)),
            ("Reference, for each network", reference),
            ("Jacobians", f"at {result.bases} discs for each network and noise level"),
        ),
        table=_table(result),
        notes=(
            "The tangent projection is told the true disc. It is the optimum in the limit of small "
            "noise, and worse than that elsewhere: a negative gap to it is not an error.",
            covers(result.replicates, "test discs"),
        ),
        holding=HOLDS_SYNTHETIC,
    )


def _gap_text(run: Run) -> str:
    result = run.result
    same = (
        f"All are of the same discs, {result.exact} for each network; the table's network and "
        f"tangent projection are of all {result.test}. "
        if result.exact
        else ""
    )
    return (
        "Left: PSNR of the mean squared error against input PSNR. Right: how many dB the "
        "network's squared error is above the reference's, on the same noisy discs; below 0 "
        f"the network is better. {same}Bars are 95 % intervals."
    )


def _spectrum_text(run: Run) -> str:
    result = run.result
    return (
        f"Left: the {RANKS} largest eigenvalues of the Jacobian's symmetric part, mean over "
        "networks and discs, one colour for each noise level; dashed, those of the exact "
        f"posterior mean. Middle: how many exceed {result.threshold:g} (filled) and "
        f"{result.near_one:g} (open); the manifold has {result.dimension} dimensions. Right: how "
        f"much of the tangent space the eigenvectors above {result.threshold:g} span (mean "
        "squared cosine of the principal angles)."
    )


def _eigenvectors_text(run: Run) -> str:
    result = run.result
    sigmas = ", ".join(f"{result.levels[k].sigma:.2g}" for k in _picked(result))
    return (
        "Top: a clean disc and an orthonormal basis of its tangent space, all that the optimum "
        f"keeps at small noise. Below, for sigma = {sigmas}: the noisy disc, the network's "
        "estimate and the eigenvectors of its Jacobian with the largest eigenvalues (above "
        "each); and the extra directions, the same with the tangent space taken out. White is "
        "0, red and blue are of opposite sign; all vectors share one scale."
    )


def _table(result: Result) -> Table:
    counts = (f"> {t:g}{of}" for t in (result.threshold, result.near_one) for of in ("", ", exact"))
    columns = ("sigma", "network", "above exact", "above tangent", *counts, "overlap")
    cell = partial(interval_cell, span="[{}, {}]", absent="-")
    rows = (
        (
            f"{level.sigma:.3g}",
            *(cell(x, unit=" dB") for x in (level.network, level.gap_exact, level.gap_tangent)),
            *(cell(getattr(level, name), "{:.1f}".format) for name in COUNTS),
            cell(level.overlap),
        )
        for level in result.levels
    )
    caption = (
        "PSNR of the network's mean squared error; how far that error is above the exact posterior "
        f"mean's and the tangent projection's; eigenvalues above {result.threshold:g} and "
        f"{result.near_one:g}, of the network and of the exact posterior mean; share of the "
        f"tangent space in the span of the network's above {result.threshold:g}. In brackets, 95 % "
        "intervals."
    )
    return table(caption, columns, rows)


@figure("Network and optimum", _gap_text, "Output PSNR and gap in dB against input PSNR.")
def gap(run: Run, theme: Theme) -> Figure:
    """PSNR of network and optimum, and their distance."""
    levels, (drawn, (left, right)) = run.result.levels, plots.new_row(2.9)
    beside = [level.beside_exact or level for level in levels]
    look = {"marker": "o", "linestyle": "-", "label": "network"}
    _against_input(left, levels, [of.network for of in beside], theme.twins, **look)
    exact = ([level.exact for level in levels], [level.gap_exact for level in levels])
    tangent = ([of.tangent for of in beside], [of.gap_tangent for of in beside])
    for (psnr, gaps), colour, marker, label in (
        (exact, theme.nearest, "s", "exact posterior mean"),
        (tangent, theme.closest_pairs, "^", "tangent projection"),
    ):
        look = {"marker": marker, "linestyle": DASHED, "label": label}
        _against_input(left, levels, psnr, colour, **look)
        look |= {"linestyle": "-", "label": f"above {label}"}
        _against_input(right, levels, gaps, colour, **look)
    right.axhline(0, color=theme.muted, linewidth=1)
    left.set(title="mean squared error", xlabel=plots.INPUT, ylabel=plots.OUTPUT)
    right.set(title="network above the reference", xlabel=plots.INPUT, ylabel="gap (dB)")
    left.legend()
    right.legend()
    return drawn


def _against_input(
    axes: Axes, levels: list[Level], values: list[Interval | None], colour: str, **look: Any
) -> None:
    """One quantity against input PSNR; nothing where it was not computed."""
    at = [level.input_psnr for level in levels]
    known = [(x, value) for x, value in zip(at, values, strict=True) if value is not None]
    if known:
        x, found = zip(*known, strict=True)
        plots.error_bars(axes, x, found, colour, **look)


@figure(
    "Eigenvalues of the Jacobian",
    _spectrum_text,
    "Eigenvalues by rank, their number near 1, and the overlap with the tangent space.",
)
def spectrum(run: Run, theme: Theme) -> Figure:
    """Eigenvalues, how many are near 1, and how much of the tangent space they hold."""
    result = run.result
    drawn, (left, middle, right) = plots.new_row(2.9, 3, width_ratios=(5, 4, 4))
    colours, dots = theme.ordered(len(result.levels)), {"color": theme.muted, "linestyle": ":"}
    for kind, line in (("network", "-"), ("exact", DASHED)):
        if f"eigenvalues/{kind}" not in run.arrays:
            continue
        means = run.array(f"eigenvalues/{kind}").mean((0, 2))[:, :RANKS]
        for values, colour, level in zip(means, colours, result.levels, strict=True):
            label = f"σ = {level.sigma:.2g}" if kind == "network" else None
            ranks = np.arange(1, len(values) + 1)
            left.plot(ranks, values, color=colour, linestyle=line, label=label)
    for threshold in (result.threshold, result.near_one):
        left.axhline(threshold, linewidth=1, **dots)
    left.axvline(result.dimension + 0.5, linewidth=1, **dots)
    left.set(title="eigenvalues", xlabel="rank", ylabel="eigenvalue", ylim=(-0.1, None))
    more = [plots.entry(theme.muted, "exact", linestyle=DASHED)] if result.exact else []
    left.legend(handles=[*left.get_legend_handles_labels()[0], *more])
    kept, near_one = (result.threshold, "full"), (result.near_one, "none")
    network, exact = ("network", theme.twins, "o", "-"), ("exact", theme.nearest, "s", DASHED)
    for name, (threshold, fill), (of, colour, marker, line) in zip(
        COUNTS, (kept, kept, near_one, near_one), (network, exact) * 2, strict=True
    ):
        look = {"marker": marker, "linestyle": line, "fillstyle": fill}
        look["label"] = f"{of}, above {threshold:g}"
        values = [getattr(level, name) for level in result.levels]
        _against_input(middle, result.levels, values, colour, **look)
    middle.axhline(result.dimension, linewidth=1, **dots)
    middle.set(title="how many are large", ylabel="number of eigenvalues", ylim=(0, None))
    middle.yaxis.set_major_locator(MaxNLocator(integer=True))
    middle.legend()
    overlap = [level.overlap for level in result.levels]
    _against_input(right, result.levels, overlap, theme.twins, marker="o", label="network")
    right.set(title="tangent space kept", ylabel="mean squared cosine", ylim=(0, 1.05))
    for axes in (middle, right):
        axes.set_xlabel(plots.INPUT)
    return drawn


def _picked(result: Result) -> list[int]:
    """Noise levels whose eigenvectors are shown: all, or a few of many."""
    count = min(len(result.levels), MOST_LEVELS)
    return np.linspace(0, len(result.levels) - 1, count).round().astype(int).tolist()


@figure(
    "What the network keeps",
    _eigenvectors_text,
    "A disc, its tangent vectors, and eigenvectors of the network at several noise levels.",
    images=True,
)
def eigenvectors(run: Run, theme: Theme) -> Figure:
    """Eigenvectors of the network's Jacobian at one disc, beside the tangent space."""
    result, picked = run.result, _picked(run.result)
    names = ("eigenvalues", "eigenvectors", "extravalues", "extravectors", "noisy", "denoised")
    values, vectors, extra_values, extra, noisy, denoised = (
        run.array(f"shown/{name}") for name in names
    )
    across = 2 + vectors.shape[1]
    rows = 1 + 2 * len(picked)
    drawn = style.new_figure(0.2 + rows * (0.9 * style.WIDTH / across + 0.17))
    drawn.get_layout_engine().set(wspace=0.03, hspace=0.03)
    grid = plots.blank(drawn.subplots(rows, across, squeeze=False))
    tangent = run.array("shown/tangent")
    reach = max(np.abs(part).max() for part in (tangent, vectors[picked], extra[picked]))
    of_images = {"cmap": "gray", "vmin": 0, "vmax": 1}
    of_vectors = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    _tile(grid[0, 0], run.array("shown/clean")[0], "clean", of_images)
    for k, (axes, vector) in enumerate(zip(grid[0, 2:], tangent, strict=False), 1):
        _tile(axes, vector[0], f"tangent {k}", of_vectors)
    for above, below, k in zip(grid[1::2], grid[2::2], picked, strict=True):
        _tile(above[0], noisy[k, 0], f"σ = {result.levels[k].sigma:.2g}", of_images)
        _tile(above[1], denoised[k, 0], "network", of_images)
        middle = {"transform": below[1].transAxes, "ha": "center", "va": "center"}
        below[1].text(0.5, 0.5, "extra\ndirections", fontsize=6.5, **middle)
        for line, shares, found in (
            (above, values[k], vectors[k]),
            (below, extra_values[k], extra[k]),
        ):
            for axes, share, direction in zip(line[2:], shares, found, strict=True):
                _tile(axes, direction[0], f"{share:.2f}", of_vectors)
    return drawn


def _tile(axes: Axes, image: np.ndarray, title: str, colours: dict[str, Any]) -> None:
    axes.imshow(image, interpolation="nearest", **colours)
    axes.set_title(title, pad=2, **plots.SMALL)
