"""A run on discs on paper: the network beside the optimum, its spectrum, and its eigenvectors.

After figure 6 of Kadkhodaie, Guth, Simoncelli and Mallat (ICLR 2024).
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from twinscore.report import style
from twinscore.report.content import (
    HOLDS_SYNTHETIC,
    Cell,
    Content,
    Table,
    covers,
    figure,
    interval_cell,
)
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.base import Interval
from twinscore.results.manifold import Beside, Level, Result

RANKS = 30
MOST_LEVELS = 5
DASHED = (0, (4, 2))


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
            "noise, and worse than that elsewhere: a negative gap to it is no error.",
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
    rows = tuple(
        (
            Cell(f"{level.sigma:.3g}"),
            interval_cell(level.network, 2, " dB"),
            interval_cell(level.gap_exact, 2, " dB"),
            interval_cell(level.gap_tangent, 2, " dB"),
            interval_cell(level.kept, 1),
            interval_cell(level.kept_exact, 1),
            interval_cell(level.near_one, 1),
            interval_cell(level.near_one_exact, 1),
            interval_cell(level.overlap, 2),
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
    return Table(caption, columns, rows)


@figure("Network and optimum", _gap_text, "Output PSNR and gap in dB against input PSNR.")
def gap(run: Run, theme: Theme) -> Figure:
    """PSNR of network and optimum, and their distance."""
    result, drawn = run.result, style.new_figure(2.9)
    left, right = drawn.subplots(1, 2)
    references = _references(theme)
    network = [_beside_exact(level).network for level in result.levels]
    _errorbars(left, result, network, theme.twins, "o", "-", "network")
    of_reference = {
        "exact": [(level.exact, level.gap_exact) for level in result.levels],
        "tangent": [(of.tangent, of.gap_tangent) for of in map(_beside_exact, result.levels)],
    }
    for name, (colour, marker, label) in references.items():
        psnr, gaps = zip(*of_reference[name], strict=True)
        _errorbars(left, result, psnr, colour, marker, DASHED, label)
        _errorbars(right, result, gaps, colour, marker, "-", f"above {label}")
    right.axhline(0, color=theme.muted, linewidth=1)
    left.set(title="mean squared error", ylabel="output PSNR (dB)")
    right.set(title="network above the reference", ylabel="gap (dB)")
    for axes in (left, right):
        axes.set_xlabel("input PSNR (dB)")
        axes.legend()
    return drawn


def _beside_exact(level: Level) -> Level | Beside:
    """Numbers on the discs of the exact posterior mean, or, where there are none, on all."""
    return level.beside_exact or level


def _references(theme: Theme) -> dict[str, tuple[str, str, str]]:
    return {
        "exact": (theme.nearest, "s", "exact posterior mean"),
        "tangent": (theme.closest_pairs, "^", "tangent projection"),
    }


def _errorbars(
    axes: Axes,
    result: Result,
    values: Sequence[Interval | None],
    colour: str,
    marker: str,
    line: object,
    label: str,
    *,
    fill: str = "full",
) -> None:
    """One quantity against input PSNR; nothing where it was not computed."""
    at = [level.input_psnr for level in result.levels]
    known = [(x, value) for x, value in zip(at, values, strict=True) if value is not None]
    if not known:
        return
    x = [at for at, _ in known]
    middle, low, high = style.curve([value for _, value in known])
    reach = np.maximum([middle - low, high - middle], 0)
    look = {"color": colour, "marker": marker, "linestyle": line, "fillstyle": fill}
    axes.errorbar(x, middle, yerr=reach, capsize=2, label=label, **look)


@figure(
    "Eigenvalues of the Jacobian",
    _spectrum_text,
    "Eigenvalues by rank, their number near 1, and the overlap with the tangent space.",
)
def spectrum(run: Run, theme: Theme) -> Figure:
    """Eigenvalues, how many are near 1, and how much of the tangent space they hold."""
    result, drawn = run.result, style.new_figure(2.9)
    left, middle, right = drawn.subplots(1, 3, width_ratios=(5, 4, 4))
    colours = theme.ordered(len(result.levels))
    lines = {"network": "-", "exact": DASHED}
    for kind in ("network", "exact"):
        name = f"eigenvalues/{kind}"
        if name not in run.arrays:
            continue
        means = run.array(name).mean((0, 2))[:, :RANKS]
        for values, colour, level in zip(means, colours, result.levels, strict=True):
            label = f"σ = {level.sigma:.2g}" if kind == "network" else None
            look = {"color": colour, "linestyle": lines[kind], "label": label}
            left.plot(np.arange(1, len(values) + 1), values, **look)
    for threshold in (result.threshold, result.near_one):
        left.axhline(threshold, color=theme.muted, linewidth=1, linestyle=":")
    left.axvline(result.dimension + 0.5, color=theme.muted, linewidth=1, linestyle=":")
    left.set(title="eigenvalues", xlabel="rank", ylabel="eigenvalue", ylim=(-0.1, None))
    handles, labels = left.get_legend_handles_labels()
    if result.exact:
        handles.append(Line2D([], [], color=theme.muted, linestyle=DASHED))
        labels.append("exact")
    left.legend(handles, labels)
    for name, threshold, fill in (
        ("kept", result.threshold, "full"),
        ("near_one", result.near_one, "none"),
    ):
        for suffix, of, colour, marker, line in (
            ("", "network", theme.twins, "o", "-"),
            ("_exact", "exact", theme.nearest, "s", DASHED),
        ):
            values = [getattr(level, f"{name}{suffix}") for level in result.levels]
            label = f"{of}, above {threshold:g}"
            _errorbars(middle, result, values, colour, marker, line, label, fill=fill)
    middle.axhline(result.dimension, color=theme.muted, linewidth=1, linestyle=":")
    middle.set(title="how many are large", ylabel="number of eigenvalues", ylim=(0, None))
    middle.yaxis.set_major_locator(MaxNLocator(integer=True))
    middle.legend()
    overlap = [level.overlap for level in result.levels]
    _errorbars(right, result, overlap, theme.twins, "o", "-", "network")
    right.set(title="tangent space kept", ylabel="mean squared cosine", ylim=(0, 1.05))
    for axes in (middle, right):
        axes.set_xlabel("input PSNR (dB)")
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
    values, vectors, extra_values, extra, noisy, denoised = (
        run.array(f"shown/{name}")
        for name in (
            *("eigenvalues", "eigenvectors", "extravalues", "extravectors"),
            *("noisy", "denoised"),
        )
    )
    across = 2 + vectors.shape[1]
    rows = 1 + 2 * len(picked)
    drawn = style.new_figure(0.2 + rows * (0.9 * style.WIDTH / across + 0.17))
    drawn.get_layout_engine().set(wspace=0.03, hspace=0.03)
    grid = drawn.subplots(rows, across, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    tangent = run.array("shown/tangent")
    reach = max(np.abs(part).max() for part in (tangent, vectors[picked], extra[picked]))
    _picture(grid[0, 0], run.array("shown/clean")[0], "clean")
    for k, (axes, vector) in enumerate(zip(grid[0, 2:], tangent, strict=False), 1):
        _vector(axes, vector[0], f"tangent {k}", reach)
    for row, k in zip(range(1, rows, 2), picked, strict=True):
        _picture(grid[row, 0], noisy[k, 0], f"σ = {result.levels[k].sigma:.2g}")
        _picture(grid[row, 1], denoised[k, 0], "network")
        _words(grid[row + 1, 1], "extra\ndirections")
        for of_row, shares, directions in (
            (grid[row], values[k], vectors[k]),
            (grid[row + 1], extra_values[k], extra[k]),
        ):
            for axes, share, direction in zip(of_row[2:], shares, directions, strict=True):
                _vector(axes, direction[0], f"{share:.2f}", reach)
    return drawn


def _picture(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=6.5, fontweight="normal", pad=2)


def _vector(axes: Axes, vector: np.ndarray, title: str, reach: float) -> None:
    axes.imshow(vector, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
    axes.set_title(title, fontsize=6.5, fontweight="normal", pad=2)


def _words(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=6.5)
