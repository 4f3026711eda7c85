"""What a network learned, on paper: curves of r², outputs side by side, and traced patches."""

import numpy as np
from matplotlib.figure import Figure

from twinscore.report import plots, style
from twinscore.report.content import Cell, Content, figure, interval_cell, size_text, table
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.explain import Explained, Result, Sample

LOWEST = -0.25
"""Where the axes of r² end: what lies below is drawn there."""
ACROSS = 8  # samples that are shown
TRACED = 6  # of them, with the sources of their patches


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    where = result.held_out or f"{result.train} (noise is added to training images)"
    facts = [
        ("Model", result.model),
        *([("Twin", result.twin)] if result.twin else []),
        ("Training images", f"{result.trained:,} of {result.train}"),
        ("Noisy images", f"{result.images:,} of {where}"),
        ("Size", size_text(result.shape)),
    ]
    rows = [
        (f"{level.sigma:g}", f"{side}", *_cells(level.explained), level.best or "–")
        for level, side in zip(result.levels, result.sides, strict=True)
    ]
    notes = []
    if samples := result.samples:
        rows.append(("samples", "–", *_cells(samples.explained), samples.best or "–"))
        if samples.lost:
            notes.append(f"{samples.lost} samples ran away, of the model or a companion.")
        if patches := samples.patches:
            near = f"{patches.near.times(100).text(1)} % are nearer to training images"
            text = f"{near} (chance: 50 %), p = {patches.p:.2g}; {patches.images} images of each"
            facts.append((f"Patches of side {patches.side}", text))
            facts.append(("Distance to the nearest, a pixel", _distances(result)))
    return Content(
        title=f"twinscore: what {plots.named(result.model)} learned",
        verdict=result.verdict,
        facts=tuple(facts),
        table=table(
            "r² of the model's outputs by those of each companion, without a fit: 1 where they are "
            "equal, 0 where they are no nearer than the mean output. Intervals (95 %) are of the "
            "bootstrap over images, or samples. Patch: side of the mosaic's patches.",
            ("σ", "patch", *result.companions, "explains most"),
            rows,
        ),
        notes=tuple(notes),
    )


def _cells(explained: list[Explained]) -> list[Cell]:
    return [interval_cell(each.r2) for each in explained]


def _distances(result: Result) -> str:
    patches = result.samples.patches
    return f"{patches.distance:.3f} in training images, {patches.control_distance:.3f} in held-out"


def looks(theme: Theme) -> dict[str, dict[str, object]]:
    """Colour and marks of each companion."""
    return {
        "memory": {"color": theme.nearest, "marker": "s"},
        "mosaic": {"color": theme.closest_pairs, "marker": "D"},
        "linear": {"color": theme.held_out, "marker": "^"},
        "thresholding": {"color": theme.muted, "marker": "v"},
        "twin": {"color": theme.twins, "marker": "o", "linestyle": plots.DASHED},
    }


@figure(
    "What was learned",
    "r² of the model's outputs on noisy images by each companion, against the noise level, with "
    "intervals; right, the same of samples from the same noise. Memory is the exact denoiser of "
    "the training images, mosaic that of their patches, linear that of their Gaussian; "
    "thresholding saw no images. What the twin explains, which was trained on other images, does "
    "not depend on the choice of images. "
    f"Values below {LOWEST:g} are drawn there.",
    "r² against noise level, a curve for each companion, and of samples as points.",
)
def learned(run: Run, theme: Theme) -> Figure | None:
    """r² against the noise level, and of samples."""
    result: Result = run.result
    if not result.levels:
        return None
    drawn = style.new_figure(3.2)
    left, right = drawn.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [3, 1]})
    for i, name in enumerate(result.companions):
        look = {"markersize": 4, **looks(theme)[name]}
        colour = look.pop("color")
        known = [(v.sigma, r2) for v in result.levels if (r2 := v.explained[i].r2)]
        if known:
            sigmas, values = zip(*known, strict=True)
            curve = np.maximum(plots.curve(values), LOWEST)
            plots.band(left, sigmas, curve, colour, label=name, **look)
        if result.samples and (r2 := result.samples.explained[i].r2):
            value, low, high = np.maximum([r2.value, r2.low, r2.high], LOWEST)
            ends = [[value - low], [high - value]]
            bar = {"color": colour, "marker": look["marker"], "markersize": 5, "capsize": 3}
            right.errorbar([i], [value], yerr=np.maximum(ends, 0), linestyle="none", **bar)
    left.set(xscale="log", xlabel="noise level σ", ylabel="r²", ylim=(LOWEST - 0.03, 1.03))
    sigmas = [level.sigma for level in result.levels]
    left.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas])
    left.minorticks_off()
    right.set(xlim=(-0.6, len(result.companions) - 0.4), xlabel="samples")
    right.set_xticks([])
    for axes in (left, right):
        axes.axhline(0, color=theme.muted, linewidth=0.8)
    plots.legend(drawn, left)
    return drawn


@figure(
    "One noisy image, by all",
    "A noisy image at each level, and what the model and its companions make of it.",
    "Rows of images: noisy, the model's output, and that of each companion, by noise level.",
    images=True,
)
def outputs(run: Run, theme: Theme) -> Figure | None:
    """The first image, noisy, and all outputs, a column for each level."""
    result: Result = run.result
    if not result.levels:
        return None
    shown = np.stack([run.array(f"level{i}/shown") for i in range(len(result.levels))], 1)
    titles = [f"σ = {level.sigma:g}" for level in result.levels]
    return _rows(["noisy", "model", *result.companions], shown[1:], titles)


def _rows(names: list[str], images: np.ndarray, titles: list[str]) -> Figure:
    """Images (rows, columns, C, H, W), with the names of rows and titles of columns."""
    rows, columns = images.shape[:2]
    tile = 0.8 * style.WIDTH / max(columns, ACROSS)
    height = rows * tile * images.shape[3] / images.shape[4]
    drawn = style.new_figure(height + 0.3 + 0.05 * rows)
    grid = plots.blank(drawn.subplots(rows, columns, squeeze=False))
    for i, (line, name) in enumerate(zip(grid, names, strict=True)):
        for axes, image, title in zip(line, images[i], titles, strict=True):
            plots.show(axes, image, "" if i else title)
        line[0].text(
            -0.1, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=8
        )
    return drawn


@figure(
    "Samples from the same noise",
    "Samples of the model and of its companions, by the probability flow from the same noise: what "
    "looks alike from column to column, and what does not.",
    "A row of samples of the model above rows of its companions.",
    images=True,
)
def samples(run: Run, theme: Theme) -> Figure | None:
    """Samples, a row for each denoiser."""
    result: Result = run.result
    if not (result.samples and result.samples.count):
        return None
    shown = run.array("samples")[:, :ACROSS]
    return _rows(["model", *result.companions], shown, [""] * shown.shape[1])


@figure(
    "Where patches come from",
    lambda run: (
        f"Samples; a mosaic of the nearest patches (side {_side(run)}) of training images, each "
        "pixel an average; which image each patch comes from, a colour an image; the training "
        "image that holds most of them, and their share. Below, the same with as many held-out "
        "images: what can be traced by chance. Above the samples: the share of patches that are "
        "nearer to training images."
    ),
    "Samples in a row, mosaics of training patches, maps of their sources, and the same with "
    "held-out images.",
    images=True,
)
def sources(run: Run, theme: Theme) -> Figure | None:
    """Samples, their mosaics and the maps of their sources, in both halves."""
    result: Result = run.result
    if not (result.samples and result.samples.patches):
        return None
    drawn_from, each = run.array("samples")[0][:TRACED], result.samples.patches.samples[:TRACED]
    count, (_, height, width) = len(drawn_from), result.shape
    edge = result.samples.patches.side - 1
    inner = (count, 2, height - edge, width - edge)
    mosaics = run.array("mosaics")[:count]
    of, most = run.array("images")[:count].reshape(inner), run.array("sources")[:count]
    names = ["sample", "mosaic", "which image", "most from", "mosaic", "which image", "most from"]
    tile = 0.8 * style.WIDTH / ACROSS
    drawn = style.new_figure(7 * (tile * height / width + 0.16) + 0.3)
    grid = plots.blank(drawn.subplots(7, count, squeeze=False))
    for k in range(count):
        plots.show(grid[0, k], drawn_from[k], _shares(each[k]))
        for half in (0, 1):
            row = 1 + 3 * half
            plots.show(grid[row, k], mosaics[k, half], "")
            _, places = np.unique(of[k, half], return_inverse=True)
            colours = {"cmap": "tab20", "vmin": 0, "vmax": 19, "interpolation": "nearest"}
            grid[row + 1, k].imshow(places.reshape(of[k, half].shape) % 20, **colours)
            share = each[k].control_share if half else each[k].share
            plots.show(grid[row + 2, k], most[k, half], "")
            plots.beside(grid[row + 2, k], f"{100 * share:.0f} %", fontsize=6.5)
    halves = ("", *["trained on"] * 3, *["held out"] * 3)
    for line, name, half in zip(grid, names, halves, strict=True):
        text = f"{name}\n{half}" if half else name
        line[0].text(
            -0.1, 0.5, text, transform=line[0].transAxes, ha="right", va="center", fontsize=7.5
        )
    return drawn


def _side(run: Run) -> int:
    return run.result.samples.patches.side


def _shares(sample: Sample) -> str:
    return f"{100 * sample.near:.0f} %"


@figure(
    "Copied whole, put together, or neither",
    "Each sample twice: the share of its patches that are nearer to training images, against the "
    "effective number of training images that its nearest training patches lie in (filled); and "
    "the same of held-out images (open). Where nothing was copied, both lie about the broken line, "
    "alike. Copies lie at the top left, mosaics of what was trained on at the top right.",
    "Points of samples: share of patches nearer to either half against number of sources.",
)
def patches(run: Run, theme: Theme) -> Figure | None:
    """Shares of patches nearer to either half against the effective number of sources."""
    result: Result = run.result
    if not (result.samples and result.samples.patches):
        return None
    found = result.samples.patches.samples
    drawn, (axes,) = plots.new_row(3.0, 1)
    sides = {
        "training": ([s.sources for s in found], [s.near for s in found]),
        "held-out": ([s.control_sources for s in found], [1 - s.near for s in found]),
    }
    marks = {
        "training": {"color": theme.nearest, "alpha": 0.6, "linewidths": 0},
        "held-out": {"edgecolors": theme.held_out, "facecolors": "none", "linewidths": 1},
    }
    for name, at in sides.items():
        axes.scatter(*at, label=f"{name} images", s=28, clip_on=False, zorder=3, **marks[name])
    axes.axhline(0.5, color=theme.muted, linewidth=0.9, linestyle=plots.DASHED)
    most = max(max(sources) for sources, _ in sides.values())
    axes.set(xlim=(0.8, 1.05 * most + 0.2), ylim=(0, 1), ylabel="share of patches nearer to them")
    axes.set_xlabel("effective number of images that the nearest patches lie in")
    plots.legend(drawn, axes)
    return drawn
