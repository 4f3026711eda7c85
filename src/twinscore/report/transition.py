"""The transition study on paper: curves, samples, similarities, and the bases of its two ends.

Figures 1 and 2 follow Kadkhodaie, Guth, Simoncelli and Mallat (ICLR 2024), section 2.2.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from twinscore.report import along as along_report
from twinscore.report import eigenvectors, plots, style, transition_content, transition_kl
from twinscore.report import harmonics as bases_report
from twinscore.report import transition_axes as draw
from twinscore.report.content import Viewer, figure, viewer_strip
from twinscore.report.pictures import gap, strip
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.report.transition_content import bases, ends, sampled, share, size
from twinscore.results.transition import Level

SHOWN_SIGMAS = (0.1, 0.5)
STRIPS = 3
COLUMNS = ("near A", "A", "B", "near B")
MOST_SEEDS = 64
MOST_PIXELS = 2**22
HELPS = {"linestyle": plots.DASHED, "linewidth": 1}
OF_B = (0, (3, 1.5))

content = transition_content.content


def _sizes(run: Run) -> str:
    return ", ".join(size(level.n) for level in run.result.levels)


@figure(
    "Denoising of training and test images",
    "Output PSNR against input PSNR (−20 log₁₀ σ, so noise falls from left to right), "
    "averaged over the twins; bands are intervals. Above the dashed line the denoiser "
    "helps. A network that memorises is far better on its training images than on test "
    "images; where both panels show the same curve, it has learned the distribution.",
    lambda run: (
        f"Two panels of output PSNR against input PSNR, one curve for each N ({_sizes(run)}): "
        "training images on the left, test images on the right."
    ),
)
def denoising(run: Run, theme: Theme) -> Figure:
    """Draw output against input PSNR (dB) on training and on test images, a curve for each N."""
    drawn, panels = plots.new_row(3.1, sharex=True, sharey=True)
    colours = draw.colours(run, theme)
    for axes, part in zip(panels, ("train", "test"), strict=True):
        for level in run.result.levels:
            psnr = [getattr(level.psnr, part + end) for end in ("", "_low", "_high")]
            look = {"alpha": 0.25, "marker": "o", "label": size(level.n)}
            plots.band(axes, -20 * np.log10(level.psnr.sigma), psnr, colours[level.n], **look)
        ends = np.array(axes.get_xlim())
        axes.plot(ends, ends, color=theme.muted, zorder=1, **HELPS)
        title = {"train": "training images", "test": "test images"}[part]
        axes.set(xlim=ends, title=title, xlabel=plots.INPUT)
    panels[0].set_ylabel(plots.OUTPUT)
    plots.legend(drawn, panels[0], [plots.entry(theme.muted, "output = input", **HELPS)], title="N")
    return drawn


def _array(run: Run, level: Level, name: str, first: int | None = None) -> np.ndarray:
    return run.array(f"n{level.n:05d}/{name}", first)


def _pictures(run: Run, level: Level, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Nearest in A, samples of A and of B, nearest in B, and the similarities of neighbours."""
    names = ("nearest_a", "samples_a", "samples_b", "nearest_b")
    between = ("nearest_similarity_a", "twin_similarity", "nearest_similarity_b")
    numbers = [_array(run, level, name)[0, :count] for name in between]
    return [_array(run, level, name, count) for name in names], np.stack(numbers, axis=1)


def _viewer(run: Run) -> Viewer:
    """Samples of every N beside their nearest training images, one sheet for each N."""
    levels = sampled(run)
    seeds = [_array(run, level, "noise_seeds") for level in levels]
    height, width = _array(run, levels[0], "samples_a", 1).shape[-2:]
    affordable = max(1, MOST_PIXELS // (4 * height * width))
    count = min(MOST_SEEDS, affordable, *(seed.size for seed in seeds))
    columns = ("nearest in A", "sample of A", "sample of B", "nearest in B")
    return Viewer(
        labels=tuple(f"noise seed {seed}" for seed in seeds[0][:count]),
        columns=columns,
        moves="noise",
        numbers=tuple(f"similarity of {one} and {other}" for one, other in pairwise(columns)),
        strips=tuple(_strip(run, level, count) for level in levels),
    )


def _strip(run: Run, level: Level, count: int) -> dict[str, Any]:
    tiles, between = _pictures(run, level, count)
    similarities = [[f"↔ {share(value)}" for value in row] for row in between]
    return viewer_strip(f"N = {size(level.n)}", tiles, similarities, level.verdict)


@figure(
    "Samples of both twins from the same noise",
    "From left to right: the training image of A nearest to A's sample, the sample of A, "
    "the sample of B, the training image of B nearest to B's sample. Numbers are cosine "
    "similarities of neighbours. Twins that memorise reproduce their own images and "
    "disagree; twins that generalise agree on an image that neither has seen.",
    "For each N, a row of four images: nearest in A, sample of A, sample of B, nearest in B.",
    images=True,
    viewer=_viewer,
)
def samples(run: Run, theme: Theme) -> Figure | None:
    """Draw, for each N and a few noises, both twins' samples beside their nearest images."""
    if not (levels := sampled(run)):
        return None
    seeds = min(STRIPS, len(_array(run, levels[0], "noise_seeds")))
    height, width = _array(run, levels[0], "samples_a", 1).shape[-2:]
    tile = 0.9 * style.WIDTH / (4 * seeds)
    drawn = style.new_figure(0.3 + len(levels) * (0.22 + tile * height / width))
    drawn.get_layout_engine().set(wspace=0.06)
    grid = drawn.subplots(len(levels), seeds, squeeze=False)
    centres = (width - 1) / 2 + (width + gap(width)) * np.arange(4)
    for row, level in zip(grid, levels, strict=True):
        tiles, between = _pictures(run, level, seeds)
        for k, axes in enumerate(row):
            axes.imshow(strip([tile[k] for tile in tiles]), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.grid(visible=False)
            for i, number in enumerate(between[k]):
                plots.beside(axes, f"{number:.2f}", centres[i : i + 2].mean(), data=True)
            if level is levels[0]:
                for centre, word in zip(centres, COLUMNS, strict=True):
                    plots.beside(axes, word, centre, above=True, data=True)
        row[0].set_ylabel(f"N = {size(level.n)}", color=theme.ink, fontweight="bold")
    return drawn


@figure(
    "Originality against agreement",
    "Cosine similarity between the twins' samples, and of each sample to the nearest "
    "training image of its own twin. With growing N the first should move right and the "
    "second left. Broken lines mark the medians of two baselines: the closest pairs "
    "between the sets A and B, and real held-out images to their nearest training image. "
    "The vertical axis is a square root, so that few samples show beside many.",
    lambda run: (
        "Histograms of cosine similarity, one panel for each N "
        f"({', '.join(size(level.n) for level in sampled(run))}) on a shared axis."
    ),
)
def histograms(run: Run, theme: Theme) -> Figure | None:
    """Draw the distributions of cosine similarity at each N, with the medians of both baselines."""
    if not (levels := sampled(run)):
        return None
    drawn = style.new_figure(1.1 + 0.95 * len(levels))
    panels = drawn.subplots(len(levels), 1, sharex=True, squeeze=False)[:, 0]
    kinds = (
        ("twin_similarity", "between the twins' samples", theme.twins, "-"),
        ("nearest_similarity_a", "sample of A to nearest in A", theme.nearest, "-"),
        ("nearest_similarity_b", "sample of B to nearest in B", theme.nearest, OF_B),
    )
    values = {
        (level.n, name): _array(run, level, name).ravel() for level in levels for name, *_ in kinds
    }
    lowest = min(1.0, *(float(value.min()) for value in values.values()))
    bins = np.linspace(min(np.floor(lowest * 20) / 20, 0.95), 1, 61)
    for axes, level in zip(panels, levels, strict=True):
        for name, label, colour, line in kinds:
            plots.fractions(axes, values[level.n, name], bins, colour, linestyle=line, label=label)
        for name, label, colour, line in _baselines(theme):
            middle = float(np.median(_array(run, level, name)))
            axes.axvline(middle, color=colour, linestyle=line, label=f"{label} (median)")
        axes.set_title(f"N = {size(level.n)}", loc="left", pad=2)
        axes.set_yscale("function", functions=(np.sqrt, np.square))
        axes.set(xlim=(bins[0], 1 + 0.01 * (1 - bins[0])), ylim=(0, None), yticks=(0, 0.1, 0.5, 1))
        axes.yaxis.set_minor_locator(NullLocator())
    panels[-1].set_xlabel("cosine similarity, mean removed")
    drawn.supylabel("fraction of samples", fontsize=8.5)
    plots.legend(drawn, panels[0], where="upper center", ncols=2)
    return drawn


@figure(
    "What the verdict rests on",
    "Left: memorisation M and agreement G against N with their intervals, and the thresholds that "
    "they are held against: M above the upper line memorises, below the lower one it may "
    "generalise. The gray band marks where G overtakes M, the critical N. Right: the share of "
    "samples that are copies, between one-sided bounds, and of noise seeds on which the twins' "
    "samples are more similar than 0.9.",
    lambda run: f"Memorisation, agreement, copies and seeds that agree against N ({_sizes(run)}).",
)
def verdict(run: Run, theme: Theme) -> Figure | None:
    """Draw M, G, the copy rates and the share of seeds alike against N."""
    levels = [level for level in run.result.levels if level.memorisation]
    if not levels:
        return None
    drawn, (left, right) = plots.new_row(3.1, width_ratios=(3, 2))
    limits = run.spec.get("thresholds", {})
    draw.intervals(
        left, levels, [x.memorisation for x in levels], theme.nearest, "^", "memorisation M"
    )
    draw.intervals(left, levels, [x.agreement for x in levels], theme.twins, "o", "agreement G")
    for name in ("memorises", "transition"):
        if name in limits:
            left.axhline(limits[name], color=theme.muted, **HELPS)
    for twin, marker in (("a", "^"), ("b", "v")):
        rates = [getattr(level.copies, twin) for level in levels]
        draw.intervals(right, levels, rates, theme.nearest, marker, f"copies, {twin.upper()}")
    draw.intervals(right, levels, [x.alike for x in levels], theme.twins, "o", "seeds that agree")
    left.set_ylabel("M, G")
    right.set_ylabel("share")
    draw.finish((left, right), run, theme)
    return drawn


@figure(
    "Similarities against N",
    "Left: medians of the similarities with their intervals against N; where the curve between the "
    "twins lies above the other two, the networks agree more with each other than with the images "
    "they were trained on. Right: the fraction of samples that count as copies (nearest training "
    "image closer than a third of the distance to the second nearest; undefined at N = 1), and the "
    "mean similarity among the samples of one twin, which is high when they lack diversity. None "
    "of this enters the verdict; the gray band marks the critical N, where it was reached.",
    lambda run: f"Median similarity, fraction memorised and diversity against N ({_sizes(run)}).",
)
def similarity(run: Run, theme: Theme) -> Figure:
    """Draw median similarities, the fraction memorised and the diversity against N."""
    drawn, (left, right) = plots.new_row(3.3, width_ratios=(3, 2))
    levels = run.result.levels
    draw.intervals(
        left, levels, [x.twin_similarity for x in levels], theme.twins, "o", "between twins"
    )
    for twin, marker in (("a", "^"), ("b", "v")):
        medians = [getattr(level.nearest_similarity, twin) for level in levels]
        label = f"to nearest in {twin.upper()}"
        draw.intervals(left, levels, medians, theme.nearest, marker, label)
    for name, label, colour, line in _baselines(theme):
        baseline = getattr(run.result, name).value
        left.axhline(baseline, color=colour, linestyle=line, label=label)
    for twin, marker in (("a", "^"), ("b", "v")):
        for field, colour, label in (
            ("memorised_fraction", theme.nearest, f"memorised, {twin.upper()}"),
            ("diversity", theme.ink, f"similarity within {twin.upper()}"),
        ):
            values = [getattr(getattr(level, field), twin) for level in levels]
            draw.intervals(right, levels, values, colour, marker, label)
    left.set_ylabel("median cosine similarity")
    right.set_ylabel("fraction, or mean similarity")
    draw.finish((left, right), run, theme)
    return drawn


turns = along_report.turns
twins_kl = transition_kl.twins_kl


@figure(
    "The basis of one test image",
    lambda run: (
        f"{run.result.harmonics.sentence} Each row: the image, its noisy version, what twin A "
        "makes of it, and the first eigenvectors of that network's Jacobian (gray is zero) with "
        "their eigenvalues, the factors by which it shrinks these directions."
    ),
    lambda run: f"Clean, noisy and denoised test image, and first eigenvectors, for {ends(run)}.",
    images=True,
)
def harmonics(run: Run, theme: Theme) -> Figure | None:
    """A test image and its eigenvectors at an N that memorises and one that generalises."""
    within = bases(run)
    return eigenvectors.side_by_side(within, theme) if within else None


@figure(
    "Shrinkage factors",
    lambda run: (
        "Eigenvalues at that image for several noise levels. The broken lines bound what "
        f"counts as kept and as removed. {bases_report.kept(bases(run))}"
    ),
    lambda run: (
        f"Eigenvalues against rank on logarithmic axes for {ends(run)}, one curve a noise level."
    ),
)
def spectrum(run: Run, theme: Theme) -> Figure | None:
    """The eigenvalues of both."""
    within = bases(run)
    return bases_report.spectrum.draw(within, theme) if within else None


@figure(
    "Training history",
    "Training loss and output PSNR on test images against the step, one curve for each "
    "trained network (A solid, B dashed). A test curve that turns down while the loss "
    "still falls is a network starting to memorise.",
    "Training loss and test PSNR against the training step, one curve for each trial.",
    early=True,
)
def training(run: Run, theme: Theme) -> Figure | None:
    """Draw each trial's loss and test PSNR (dB) against the training step."""
    if not run.histories:
        return None
    drawn, panels = plots.new_row(2.7, 1 + len(SHOWN_SIGMAS))
    colours = draw.colours(run, theme)
    names = ("train_loss", *(f"test_psnr_{sigma:g}" for sigma in SHOWN_SIGMAS))
    for history in run.histories:
        line = "-" if history.twin == "a" else OF_B
        look = {"color": colours[history.n], "linestyle": line, "linewidth": 1.1}
        step = history.columns.get("step", np.empty(0))
        for axes, name in zip(panels, names, strict=True):
            value = history.columns.get(name, np.full(step.shape, np.nan))
            known = np.isfinite(value)
            axes.plot(step[known], value[known], **look)
    panels[0].set(yscale="log", title="training loss", ylabel="loss")
    for axes, sigma in zip(panels[1:], SHOWN_SIGMAS, strict=True):
        axes.set(title=f"test images, σ = {sigma:g}", ylabel=plots.OUTPUT)
    for axes in panels:
        axes.set_xlabel("step")
        axes.locator_params(axis="x", nbins=4)
    sizes = sorted({history.n for history in run.histories})
    lines = [plots.entry(colours[n], f"N = {size(n)}") for n in sizes]
    lines += [plots.entry(theme.ink, "A"), plots.entry(theme.ink, "B", linestyle=OF_B)]
    drawn.legend(handles=lines, loc="outside right center")
    return drawn


def _baselines(theme: Theme) -> tuple[tuple[str, str, str, object], ...]:
    return (
        ("closest_pairs", "closest pairs of A and B", theme.closest_pairs, ":"),
        ("held_out_nearest", "held-out to nearest", theme.held_out, (0, (5, 1.5, 1, 1.5))),
    )
