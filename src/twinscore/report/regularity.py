"""C-alpha images on paper: slopes beside the theory, curves, and the eigenvectors.

After Kadkhodaie, Guth, Simoncelli and Mallat (ICLR 2024), figures 4 and 5.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from twinscore.report import style
from twinscore.report.content import HOLDS_SYNTHETIC, Cell, Content, Table, covers, figure
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.base import Interval
from twinscore.results.regularity import NETWORK, Class, Result

VECTORS = 9
CURVES = {NETWORK: ("-", 1.8), "best basis": ("--", 1.2), "cosines": (":", 1.4)}
"""Line and width of the methods whose curves are drawn."""
BASES = {
    "eigenvectors": ("twins", "-"),
    "best basis": ("closest_pairs", "--"),
    "wavelets": ("nearest", "--"),
    "cosines": ("held_out", "--"),
}
"""Colour and line of the bases in which the energy is drawn."""
REFERENCE = {"linewidth": 1.1, "marker": "|", "markersize": 6}
"""How the theory's slope is drawn beside a curve."""
DASHED = {"linestyle": (0, (4, 3)), "linewidth": 1.2}
SMALL = {"fontsize": 6.5, "fontweight": "normal"}
FULL_TONE = 3.0
"""Entries of a vector are drawn at full tone from this multiple of their root mean square: a
constant vector is pale."""

Colour = tuple[float, ...]


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    size, (low, high) = run.spec["size"], result.fit_range
    once = "none twice" if result.trained_on >= result.shown else f"{result.shown:,} showings"
    return Content(
        title="twinscore: regularity of C-alpha images",
        verdict=result.verdict,
        facts=(
            ("Images", f"{size} x {size} pixels, gray"),
            ("Fit", f"{low:g} to {high:g} dB of input PSNR, stated in the spec"),
            ("Training images of each network", f"{result.trained_on:,}, {once}"),
        ),
        table=_table(result),
        notes=(covers(run.spec["replicates"], "test images"),),
        holding=HOLDS_SYNTHETIC,
    )


def _table(result: Result) -> Table:
    rows = tuple(
        (
            Cell(f"{c.generator}, alpha {c.alpha:g}"),
            Cell(f"{c.theory:.3f}", f"filter's: {c.of_filter:.3f}"),
            *(_cell(curve.slope) for curve in c.curves),
        )
        for c in result.classes
    )
    return Table(
        "Slope of output PSNR (of the mean squared error) against input PSNR in the fit range, "
        "with intervals. Theory: alpha / (alpha + 1); filter's: the slope of the backgrounds at "
        "the regularity s that the filter gives them, s / (s + 1). Oracles know the clean image.",
        ("class", "theory", *(curve.method for curve in result.classes[0].curves)),
        rows,
    )


def _cell(slope: Interval) -> Cell:
    return Cell(f"{slope.value:.3f}", f"{slope.low:.3f} to {slope.high:.3f}")


def _slopes_alt(run: Run) -> str:
    classes = ", ".join(f"alpha {c.alpha:g} ({c.generator})" for c in run.result.classes)
    return f"Slope of each method for each generator; classes: {classes}."


@figure(
    "Slopes",
    "The fitted slope of each method, with its interval; dashed lines are alpha / (alpha + 1). "
    "Cosines, wavelets and best basis threshold the noisy image; oracles know the clean one.",
    _slopes_alt,
)
def slopes(run: Run, theme: Theme) -> Figure:
    """The slope of each method in a row of its own, a panel for each generator."""
    methods = [curve.method for curve in run.result.classes[0].curves]
    drawn = style.new_figure(0.9 + 0.36 * len(methods))
    panels = _panels(drawn, run, theme, "slope, dB per dB")
    for axes, classes in panels:
        offsets = 0.5 * (np.arange(len(classes)) + 0.5) / len(classes) - 0.25
        for (c, colour), offset in zip(classes, offsets, strict=True):
            value, low, high = style.curve([curve.slope for curve in c.curves])
            reach = np.maximum([value - low, high - value], 0)
            look = {"color": colour, "fmt": "o", "capsize": 2, "linewidth": 1.2}
            label = f"alpha {c.alpha:g}"
            axes.errorbar(value, np.arange(len(methods)) + offset, xerr=reach, label=label, **look)
            axes.axvline(c.theory, color=colour, zorder=1, **DASHED)
    first = panels[0][0]
    first.set_yticks(range(len(methods)), methods)
    first.invert_yaxis()
    _legend(drawn, first, {"alpha / (alpha + 1)": Line2D([], [], color=theme.ink, **DASHED)})
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
    drawn, levels = style.new_figure(4.4), np.array(run.result.levels)
    panels = _panels(drawn, run, theme, "input PSNR (dB)", "output PSNR (dB)")
    for axes, classes in panels:
        axes.axvspan(*run.result.fit_range, color=theme.muted, alpha=0.12, linewidth=0)
        for c, colour in classes:
            for method, (line, width) in CURVES.items():
                label = f"alpha {c.alpha:g}" if method == NETWORK else None
                look = {"linestyle": line, "linewidth": width, "label": label}
                _band(axes, levels, c.curve(method).psnr, colour, **look)
            axes.plot(*_reference(run.result, c), color=theme.ink, **REFERENCE)
        axes.plot(levels, levels, color=theme.muted, linewidth=1)
    lines = {
        name: Line2D([], [], color=theme.ink, linestyle=line, linewidth=width)
        for name, (line, width) in CURVES.items()
    }
    lines["slope\nalpha / (alpha + 1)"] = Line2D([], [], color=theme.ink, **REFERENCE)
    lines["output = input"] = Line2D([], [], color=theme.muted, linewidth=1)
    _legend(drawn, panels[0][0], lines)
    return drawn


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
    drawn, levels = style.new_figure(2.9), np.array(run.result.levels)
    panels = _panels(drawn, run, theme, "input PSNR (dB)", "local slope, dB per dB")
    for axes, classes in panels:
        axes.axvspan(*run.result.fit_range, color=theme.muted, alpha=0.12, linewidth=0)
        for c, colour in classes:
            look = {"marker": "o", "label": f"alpha {c.alpha:g}"}
            _band(axes, (levels[1:] + levels[:-1]) / 2, c.curve(NETWORK).local, colour, **look)
            look = {"linewidth": 3, "transform": axes.get_yaxis_transform()}
            axes.plot([0.96, 1.0], [c.theory] * 2, color=colour, **look)
    _legend(drawn, panels[0][0])
    return drawn


@figure(
    "Eigenvectors and best-basis vectors",
    "For each class, above: a test image, the noisy and the denoised one, eigenvectors "
    "of the network's Jacobian there, in the order of falling eigenvalues (numbers). "
    "Below: vectors of the clean image's best basis with the largest coefficients. Blue "
    "is negative, red positive; a pale square is the constant vector. In coarse bands, too "
    "small for a square that has a direction, the best basis is plain wavelets. "
    "The Jacobian of an optimal denoiser is symmetric and has no negative eigenvalue. "
    "Asymmetry is |J - J'| / |J| in Frobenius norms, from 0 to 2; eigenvectors are of the "
    "symmetric part.",
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
        part.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
        grid = part.subplots(2, across)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, name in zip(grid[0], ("clean", "noisy", "denoised"), strict=False):
            axes.imshow(_array(run, c, name)[0], cmap="gray", vmin=0, vmax=1)
            axes.set_title(name, **SMALL)
        for row, name in zip(grid, ("eigenvectors", "best_basis"), strict=True):
            for axes, vector in zip(row[3:], _array(run, c, name), strict=False):
                bound = max(np.abs(vector).max(), FULL_TONE / vector.size**0.5)
                axes.imshow(vector[0], cmap="RdBu_r", vmin=-bound, vmax=bound)
        for axes, value in zip(grid[0, 3:], values, strict=False):
            axes.set_title(f"{value:.2f}", **SMALL)
        look = {"fontsize": 7, "ha": "center", "va": "center", "color": theme.ink}
        grid[1, 2].text(0.5, 0.5, "best\nbasis", **look)
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
    grid = drawn.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, classes in zip(grid, generators.values(), strict=True):
        for axes, c in zip(row, classes, strict=False):
            axes.set_axis_on()
            energy = np.square(_array(run, c, "clean"), dtype=np.float64).sum()
            for name, (colour, line) in BASES.items():
                left = np.maximum(_array(run, c, f"residual/{name}")[:-1] / energy, 1e-6)
                look = {"color": getattr(theme, colour), "linestyle": line, "label": name}
                axes.loglog(np.arange(1, left.size + 1), left, **look)
            axes.set_title(f"{c.generator}, alpha {c.alpha:g}")
            axes.set_ylim(1e-5, 2)
    drawn.supxlabel("number of coefficients k", fontsize=8.5)
    drawn.supylabel("energy left", fontsize=8.5)
    _legend(drawn, grid[0, 0])
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
    drawn = style.new_figure(2.9)
    panels = _panels(drawn, run, theme, "rank", "eigenvalue")
    for axes, classes in panels:
        axes.axhline(0, color=theme.muted, linewidth=1)
        for c, colour in classes:
            values = _array(run, c, "eigenvalues")
            ranks = np.arange(1, values.size + 1)
            axes.plot(ranks, values, color=colour, label=f"alpha {c.alpha:g}")
    _legend(drawn, panels[0][0])
    return drawn


def _array(run: Run, of: Class, name: str) -> np.ndarray:
    return run.array(f"{of.generator}/{of.alpha:g}/{name}")


def _by_generator(result: Result) -> dict[str, list[Class]]:
    found: dict[str, list[Class]] = {}
    for c in result.classes:
        found.setdefault(c.generator, []).append(c)
    return found


def _panels(
    drawn: Figure, run: Run, theme: Theme, xlabel: str, ylabel: str = ""
) -> list[tuple[Axes, list[tuple[Class, Colour]]]]:
    """A panel for each generator with its classes and their colours, one for each alpha."""
    generators = _by_generator(run.result)
    alphas = sorted({c.alpha for c in run.result.classes})
    colours = dict(zip(alphas, theme.ordered(len(alphas)), strict=True))
    panels = drawn.subplots(1, len(generators), squeeze=False, sharex=True, sharey=True)[0]
    for axes, generator in zip(panels, generators, strict=True):
        axes.set(title=f"{generator} filter", xlabel=xlabel)
    panels[0].set_ylabel(ylabel)
    coloured = [[(c, colours[c.alpha]) for c in classes] for classes in generators.values()]
    return list(zip(panels, coloured, strict=True))


def _band(
    axes: Axes, x: np.ndarray, intervals: Sequence[Interval], colour: Colour, **look: object
) -> None:
    """A curve and, behind it, its intervals."""
    value, low, high = style.curve(intervals)
    axes.plot(x, value, color=colour, **look)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _legend(drawn: Figure, axes: Axes, more: dict[str, Line2D] | None = None) -> None:
    """The curves of one panel beside all of them, and other lines."""
    handles, labels = axes.get_legend_handles_labels()
    more = more or {}
    drawn.legend([*handles, *more.values()], [*labels, *more], loc="outside right center")
