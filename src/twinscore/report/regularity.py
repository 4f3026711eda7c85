"""C-alpha images on paper: slopes beside the theory, curves, and the eigenvectors.

After Kadkhodaie, Guth, Simoncelli and Mallat (ICLR 2024), figures 4 and 5.
"""

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twinscore.report import plots, style
from twinscore.report.content import (
    HOLDS_SYNTHETIC,
    Cell,
    Content,
    covers,
    figure,
    interval_cell,
    table,
)
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.regularity import NETWORK, Class, Result

VECTORS = 9
CURVES = {  # methods whose curves are drawn
    NETWORK: {"linestyle": "-", "linewidth": 1.8},
    "best basis": {"linestyle": "--", "linewidth": 1.2},
    "cosines": {"linestyle": ":", "linewidth": 1.4},
}
BASES = {  # in which the energy is drawn
    "eigenvectors": ("twins", "-"),
    "best basis": ("closest_pairs", "--"),
    "wavelets": ("nearest", "--"),
    "cosines": ("held_out", "--"),
}
REFERENCE = {"linewidth": 1.1, "marker": "|", "markersize": 6}  # slopes of the theory
THEORY = {"linestyle": plots.DASHED, "linewidth": 1.2}
FULL_TONE = 3.0  # multiple of its root mean square; a constant vector is pale

Colour = tuple[float, ...]


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    size, (low, high) = run.spec["size"], result.fit_range
    once = "none twice" if result.trained_on >= result.shown else f"{result.shown:,} showings"
    cell = partial(interval_cell, form="{:.3f}".format)
    return Content(
        title="twinscore: regularity of C-alpha images",
        verdict=result.verdict,
        facts=(
            ("Images", f"{size} x {size} pixels, gray"),
            ("Fit", f"{low:g} to {high:g} dB of input PSNR, stated in the spec"),
            ("Training images of each network", f"{result.trained_on:,}, {once}"),
        ),
        table=table(
            "Slope of output PSNR (of the mean squared error) against input PSNR in the fit range, "
            "with intervals. Theory: alpha / (alpha + 1); filter's: the slope of the backgrounds "
            "at the regularity s that the filter gives them, s / (s + 1). Oracles know the clean "
            "image.",
            ("class", "theory", *(curve.method for curve in result.classes[0].curves)),
            (
                (
                    f"{c.generator}, alpha {c.alpha:g}",
                    Cell(f"{c.theory:.3f}", f"filter's: {c.of_filter:.3f}"),
                    *(cell(curve.slope) for curve in c.curves),
                )
                for c in result.classes
            ),
        ),
        notes=(covers(run.spec["replicates"], "test images"),),
        holding=HOLDS_SYNTHETIC,
    )


@figure(
    "Slopes",
    "The fitted slope of each method, with its interval; dashed lines are alpha / (alpha + 1). "
    "Cosines, wavelets and best basis threshold the noisy image; oracles know the clean one.",
    lambda run: (
        "Slope of each method for each generator; classes: "
        f"{', '.join(f'alpha {c.alpha:g} ({c.generator})' for c in run.result.classes)}."
    ),
)
def slopes(run: Run, theme: Theme) -> Figure:
    """The slope of each method in a row of its own, a panel for each generator."""
    methods = [curve.method for curve in run.result.classes[0].curves]
    drawn, panels = _panels(run, theme, 0.9 + 0.36 * len(methods), "slope, dB per dB")
    for axes, classes in panels:
        offsets = 0.5 * (np.arange(len(classes)) + 0.5) / len(classes) - 0.25
        for (c, colour), offset in zip(classes, offsets, strict=True):
            value, error = plots.reach([curve.slope for curve in c.curves])
            look = {"color": colour, "fmt": "o", "capsize": 2, "linewidth": 1.2}
            label = f"alpha {c.alpha:g}"
            axes.errorbar(value, np.arange(len(methods)) + offset, xerr=error, label=label, **look)
            axes.axvline(c.theory, color=colour, zorder=1, **THEORY)
    first = panels[0][0]
    first.set_yticks(range(len(methods)), methods)
    first.invert_yaxis()
    plots.legend(drawn, first, [plots.entry(theme.ink, "alpha / (alpha + 1)", **THEORY)])
    return drawn


@figure(
    "Denoising curves",
    "Output PSNR of the mean squared error against input PSNR of the network (solid) and "
    "of thresholding in the best basis (dashed) and in cosines (dotted). The fit range is "
    "shaded; thin lines with a tick at both ends have slope alpha / (alpha + 1) and start "
    "from the network's first point in it. The gray line marks output = input, whose slope "
    "is 1: a slope says how fast an error falls, not how small it is. What lies below it "
    "is worse than the noisy image.",
    "Output PSNR against input PSNR, a curve for each alpha.",
)
def curves(run: Run, theme: Theme) -> Figure:
    """Output against input PSNR of the network and two estimators, and the theory's slopes."""
    levels = np.array(run.result.levels)
    drawn, panels = _panels(run, theme, 4.4, plots.INPUT, plots.OUTPUT)
    for axes, classes in panels:
        _fit_range(axes, run, theme)
        for c, colour in classes:
            for method, look in CURVES.items():
                label = f"alpha {c.alpha:g}" if method == NETWORK else None
                psnr = plots.curve(c.curve(method).psnr)
                plots.band(axes, levels, psnr, colour, label=label, **look)
            axes.plot(*_reference(run.result, c), color=theme.ink, **REFERENCE)
        axes.plot(levels, levels, color=theme.muted, linewidth=1)
    lines = [plots.entry(theme.ink, method, **look) for method, look in CURVES.items()]
    lines.append(plots.entry(theme.ink, "slope\nalpha / (alpha + 1)", **REFERENCE))
    lines.append(plots.entry(theme.muted, "output = input", linewidth=1))
    plots.legend(drawn, panels[0][0], lines)
    return drawn


def _fit_range(axes: Axes, run: Run, theme: Theme) -> None:
    axes.axvspan(*run.result.fit_range, color=theme.muted, alpha=0.12, linewidth=0)


def _reference(result: Result, of: Class) -> tuple[np.ndarray, np.ndarray]:
    """A line of the theory's slope over the fit range, from the network's first point in it."""
    low, high = result.fit_range
    levels = np.array(result.levels)
    inside = (levels >= low) & (levels <= high)
    first = of.curve(NETWORK).psnr[inside.argmax()].value
    ends = levels[inside][[0, -1]]
    return ends, first + of.theory * (ends - ends[0])


@figure(
    "Local slopes of the network",
    "Slopes between neighbouring noise levels, with intervals, and alpha / (alpha + 1) as "
    "short lines at the right. Where they do not settle inside the shaded range, the "
    "fitted slope depends on the range. On a pixel grid the slope of an optimal denoiser "
    "tends to 1 at low noise; a slope near 0 means that the error no longer falls with the "
    "noise. local_slopes.csv has those of every method.",
    "Local slope against input PSNR, a curve for each alpha.",
)
def local(run: Run, theme: Theme) -> Figure:
    """The network's local slopes with their intervals, and the theory's beside them."""
    levels = np.array(run.result.levels)
    drawn, panels = _panels(run, theme, 2.9, plots.INPUT, "local slope, dB per dB")
    for axes, classes in panels:
        _fit_range(axes, run, theme)
        for c, colour in classes:
            look = {"marker": "o", "label": f"alpha {c.alpha:g}"}
            middles, local = (levels[1:] + levels[:-1]) / 2, c.curve(NETWORK).local
            plots.band(axes, middles, plots.curve(local), colour, **look)
            look = {"linewidth": 3, "transform": axes.get_yaxis_transform()}
            axes.plot([0.96, 1.0], [c.theory] * 2, color=colour, **look)
    plots.legend(drawn, panels[0][0])
    return drawn


@figure(
    "Eigenvectors and best-basis vectors",
    "For each class, above: a test image, the noisy and the denoised one, eigenvectors of the "
    "network's Jacobian there, in the order of falling eigenvalues (numbers). Below: vectors of "
    "the clean image's best basis with the largest coefficients. Blue is negative, red positive; a "
    "pale square is the constant vector. In coarse bands, too small for a square that has a "
    "direction, the best basis is plain wavelets. The Jacobian of an optimal denoiser is symmetric "
    "and has no negative eigenvalue. Asymmetry is |J - J'| / |J| in Frobenius norms, from 0 to 2; "
    "eigenvectors are of the symmetric part.",
    "Small pictures: image, noisy, denoised, then eigenvectors; below, best-basis vectors.",
    images=True,
)
def bases(run: Run, theme: Theme) -> Figure:
    """Eigenvectors of each network above best-basis vectors, at one test image each."""
    classes = run.result.classes
    count = min(VECTORS, len(_array(run, classes[0], "eigenvectors")))
    across = 3 + count
    drawn = style.new_figure(len(classes) * (0.35 + 2.2 * 0.95 * style.WIDTH / across))
    drawn.get_layout_engine().set(wspace=0.02, hspace=0.02)
    parts = drawn.subfigures(len(classes), 1, squeeze=False)[:, 0]
    for part, c in zip(parts, classes, strict=True):
        values = _array(run, c, "eigenvalues")
        title = (
            f"{c.generator} filter, alpha {c.alpha:g}: asymmetry {c.asymmetry:.2f}, "
            f"{(values < 0).sum()} of {values.size} eigenvalues negative"
        )
        part.suptitle(title, x=0.01, ha="left", **plots.HEADING)
        grid = plots.blank(part.subplots(2, across))
        for axes, name in zip(grid[0], ("clean", "noisy", "denoised"), strict=False):
            axes.imshow(_array(run, c, name)[0], cmap="gray", vmin=0, vmax=1)
            axes.set_title(name, **plots.SMALL)
        for row, name in zip(grid, ("eigenvectors", "best_basis"), strict=True):
            for axes, vector in zip(row[3:], _array(run, c, name), strict=False):
                bound = max(np.abs(vector).max(), FULL_TONE / vector.size**0.5)
                axes.imshow(vector[0], cmap="RdBu_r", vmin=-bound, vmax=bound)
        for axes, value in zip(grid[0, 3:], values, strict=False):
            axes.set_title(f"{value:.2f}", **plots.SMALL)
        grid[1, 2].text(0.5, 0.5, "best\nbasis", fontsize=7, ha="center", va="center")
    return drawn


@figure(
    "How few vectors hold the image",
    "Share of the clean image's energy that its k largest coefficients leave, in the "
    "eigenvectors at the noisy image and in three other bases. The best basis is chosen "
    "with the clean image, the eigenvectors are the network's own. One image.",
    "Residual energy against the number of coefficients, one panel for each class.",
)
def decay(run: Run, theme: Theme) -> Figure:
    """What the largest coefficients leave in four bases."""
    generators = _by_generator(run.result)
    rows, columns = len(generators), max(map(len, generators.values()))
    drawn = style.new_figure(0.4 + 2.1 * rows)
    grid = plots.blank(drawn.subplots(rows, columns, squeeze=False, sharex=True, sharey=True))
    for row, classes in zip(grid, generators.values(), strict=True):
        for axes, c in zip(row, classes, strict=False):
            axes.set_axis_on()
            energy = np.square(_array(run, c, "clean"), dtype=np.float64).sum()
            for name, (colour, line) in BASES.items():
                left = np.maximum(_array(run, c, f"residual/{name}")[:-1] / energy, 1e-6)
                look = {"color": getattr(theme, colour), "linestyle": line, "label": name}
                axes.loglog(np.arange(1, left.size + 1), left, **look)
            axes.set(title=f"{c.generator}, alpha {c.alpha:g}", ylim=(1e-5, 2))
    drawn.supxlabel("number of coefficients k", fontsize=8.5)
    drawn.supylabel("energy left", fontsize=8.5)
    plots.legend(drawn, grid[0, 0])
    return drawn


@figure(
    "Eigenvalues",
    "Of the symmetric part of the network's Jacobian at the same noisy image, in falling "
    "order. An optimal denoiser has none below 0: negative ones, and the asymmetry, say "
    "how far the network is from one.",
    "Eigenvalue against rank, a curve for each alpha.",
)
def eigenvalues(run: Run, theme: Theme) -> Figure:
    """The eigenvalues of each network's Jacobian at one noisy image, with their signs."""
    drawn, panels = _panels(run, theme, 2.9, "rank", "eigenvalue")
    for axes, classes in panels:
        axes.axhline(0, color=theme.muted, linewidth=1)
        for c, colour in classes:
            values = _array(run, c, "eigenvalues")
            ranks = np.arange(1, values.size + 1)
            axes.plot(ranks, values, color=colour, label=f"alpha {c.alpha:g}")
    plots.legend(drawn, panels[0][0])
    return drawn


def _array(run: Run, of: Class, name: str) -> np.ndarray:
    return run.array(f"{of.generator}/{of.alpha:g}/{name}")


def _by_generator(result: Result) -> dict[str, list[Class]]:
    found: dict[str, list[Class]] = {}
    for c in result.classes:
        found.setdefault(c.generator, []).append(c)
    return found


def _panels(
    run: Run, theme: Theme, height: float, xlabel: str, ylabel: str = ""
) -> tuple[Figure, list[tuple[Axes, list[tuple[Class, Colour]]]]]:
    """A panel for each generator with its classes and their colours, one for each alpha."""
    generators = _by_generator(run.result)
    alphas = sorted({c.alpha for c in run.result.classes})
    colours = dict(zip(alphas, theme.ordered(len(alphas)), strict=True))
    drawn, panels = plots.new_row(height, len(generators), sharex=True, sharey=True)
    for axes, generator in zip(panels, generators, strict=True):
        axes.set(title=f"{generator} filter", xlabel=xlabel)
    panels[0].set_ylabel(ylabel)
    coloured = [[(c, colours[c.alpha]) for c in classes] for classes in generators.values()]
    return drawn, list(zip(panels, coloured, strict=True))
