"""The harmonics study on paper: an image, the basis in which it is denoised, its coefficients.

Figure 3 of Kadkhodaie, Guth, Simoncelli and Mallat (ICLR 2024) for one model, or two side by side.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from twinscore.report import plots, style
from twinscore.report.content import (
    Cell,
    Content,
    Viewer,
    figure,
    interval_cell,
    percent,
    size_text,
    table,
    viewer_strip,
)
from twinscore.report.eigenvectors import ACROSS, eigenpairs, gallery, signed
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.harmonics import Agreement, Decay, Fixed, Level, Number, Result, Share

LEAST = 1e-3  # of the eigenvalues that are drawn: a logarithmic axis has no place for negative ones
ROWS = 6  # of eigenvectors for each model, at most
BINS = 60  # over which coefficients are averaged: their edges, at most
COLUMNS = (
    *("model", "σ", "PSNR in → out (dB)", "trace", "effective rank", "kept", "shrunk", "removed"),
    *("|J − Jᵀ| / |J|", "|f(y) − J y| / |f(y)|", "complex pairs", "SURE", "true error"),
    *("decay of λ", "decay of ⟨x,e⟩²", "residual"),
)


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    facts = [
        ("Image", f"number {result.index} of {result.source}: {result.image}"),
        ("Size", size_text(result.shape)),
        ("Pictures, eigenvectors, coefficients", f"at σ = {result.sigma:g}"),
    ]
    same = [a for a in result.agreement if a.sigma == result.sigma]
    if same:
        facts.append(("What both models' eigenvectors share (chance)", _shared(same)))
    pairs = dict.fromkeys((f.model, f.basis) for f in result.fixed)
    for model, basis in pairs:
        own = [f for f in result.fixed if (f.model, f.basis) == (model, basis)]
        facts.append((f"{model}: shared with the best {basis} (chance)", _shared(own)))
    return Content(
        title=f"twinscore: harmonics at image {result.index} of {result.source}",
        verdict=result.verdict,
        facts=tuple(facts),
        table=table(
            f"Directions that are kept (eigenvalue from {result.kept_from:g}), shrunk, or removed "
            f"(below {result.removed_below:g}), and below them their share of the image, less its "
            "mean, and of this noise. SURE and the true error: squared error summed over pixels, "
            "averaged over noisy versions of this image, with 95 % intervals. Decays: exponents of "
            "power laws of eigenvalues and of the image's squared coefficients, with 95 % "
            "intervals of the fit and the ranks it covers. ±: standard error of an estimate.",
            COLUMNS,
            (_row(model.name, x, result.shape) for model in result.models for x in model.levels),
        ),
        notes=tuple(
            f"{model.name}, σ = {level.sigma:g}: eigenpairs have not converged "
            f"(largest residual {level.residual:.1e})."
            for model in result.models
            for level in model.levels
            if not level.converged
        ),
    )


def _shared(found: Sequence[Agreement] | Sequence[Fixed]) -> str:
    return "; ".join(
        f"top {a.dimensions}: {percent(a.shared)} ({percent(a.chance)})" for a in found
    )


def _row(name: str, level: Level, shape: tuple[int, int, int]) -> tuple[Cell | str, ...]:
    of = "all" if level.eigenvalues == int(np.prod(shape)) else "the first"
    interval = partial(interval_cell, form="{:.3g}".format)
    return (
        name,
        f"{level.sigma:g}",
        f"{level.psnr_in:.1f} → {level.psnr_out:.1f}",
        _number(level.trace),
        _number(level.effective_rank),
        *map(_share, (level.kept, level.shrunk, level.removed)),
        _number(level.asymmetry),
        "–" if level.homogeneity is None else f"{level.homogeneity:.1e}",
        Cell(
            f"{level.complex_pairs}",
            f"of {of} {level.eigenvalues}; imaginary part up to {level.largest_imaginary:.2g}",
        ),
        interval(level.risk.sure),
        interval(level.risk.error),
        _decay(level.eigenvalue_decay),
        _decay(level.coefficient_decay),
        Cell(f"{level.residual:.1e}", "" if level.converged else "not converged"),
    )


def _number(number: Number | None) -> Cell:
    if number is None:
        return Cell("–")
    error = number.standard_error
    return Cell(f"{number.value:.3g}", f"± {error:.2g}" if error else "")


def _share(share: Share | None) -> Cell:
    if share is None:
        return Cell("–", "not computed")
    least = "" if share.complete else "≥ "
    return Cell(_count(share), f"{least}{percent(share.image)} / {least}{percent(share.noise)}")


def _decay(decay: Decay | None) -> Cell:
    if decay is None:
        return Cell("–")
    ranks = f"ranks {decay.first} to {decay.last}"
    return Cell(f"{decay.exponent:.2f}", f"{decay.low:.2f} to {decay.high:.2f}; {ranks}")


def _names(run: Run) -> str:
    return " and ".join(model.name for model in run.result.models)


@figure(
    "The image",
    lambda run: f"Clean, noisy at σ = {run.result.sigma:g}, and denoised, with PSNR.",
    lambda run: f"Clean and noisy image, and what {_names(run)} return.",
    images=True,
)
def images(run: Run, theme: Theme) -> Figure:
    """The clean image, the noisy one, and what each model makes of it."""
    found = [(model.name, model.at(run.result.sigma)) for model in run.result.models]
    tiles = [("clean", "", "clean"), ("noisy", f"{found[0][1].psnr_in:.1f} dB", "noisy")]
    tiles += [
        (name, f"{level.psnr_out:.1f} dB", f"model{i}/denoised")
        for i, (name, level) in enumerate(found)
    ]
    height, width = run.result.shape[1:]
    across = style.WIDTH / 4
    drawn = style.new_figure(0.5 + 0.92 * across * height / width)
    for axes, (above, below, name) in zip(plots.blank(drawn.subplots(1, 4)), tiles, strict=False):
        plots.show(axes, run.array(name), above, below)
    return drawn


def kept(run: Run) -> str:
    """How many directions each model keeps at each noise level, as a sentence."""
    models = run.result.models
    sigmas = ", ".join(f"{level.sigma:g}" for level in models[0].levels)
    counts = "; ".join(
        f"{model.name}: {', '.join(_count(level.kept) for level in model.levels)}"
        for model in models
    )
    return f"Directions kept at σ = {sigmas}: {counts}."


def _count(share: Share) -> str:
    return f"{'' if share.complete else '≥ '}{share.directions:,}"


@figure(
    "Shrinkage factors",
    lambda run: (
        "Eigenvalues of the symmetric part of the Jacobian, in order, at several noise levels. "
        "Each is the factor by which the denoiser shrinks one direction. The broken lines "
        f"bound what counts as kept, shrunk and removed. {kept(run)}"
    ),
    lambda run: (
        f"Eigenvalues against rank on logarithmic axes for {_names(run)}, one curve a noise level."
    ),
)
def spectrum(run: Run, theme: Theme) -> Figure:
    """The eigenvalues against their rank, a panel for each model, a curve for each level."""
    models = run.result.models
    drawn, panels = plots.new_row(3.0, len(models), sharex=True, sharey=True)
    for i, (axes, model) in enumerate(zip(panels, models, strict=True)):
        spectra = run.array(f"model{i}/eigenvalues")
        colours = theme.ordered(len(spectra))
        for values, level, colour in zip(spectra, model.levels, colours, strict=True):
            ranks = np.arange(1, len(values) + 1)
            shown = values >= LEAST
            axes.plot(ranks[shown], values[shown], color=colour, label=f"{level.sigma:g}")
        for border in (run.result.kept_from, run.result.removed_below):
            axes.axhline(border, color=theme.muted, linewidth=0.8, linestyle=plots.DASHED)
        axes.set(xscale="log", yscale="log", xlabel="rank k", title=plots.named(model.name))
    panels[0].set_ylabel("eigenvalue λₖ")
    plots.legend(drawn, panels[0], title="σ")
    return drawn


def _viewer(run: Run) -> Viewer:
    """Each eigenvector beside the sum of those up to it, the whole estimate and the clean image."""
    strips = tuple(_strip(run, i) for i in range(len(run.result.models)))
    return Viewer(
        labels=tuple(f"k = {k}" for k in range(1, 1 + len(strips[0]["between"]))),
        columns=("eigenvector k", "first k, shrunk", "denoised", "clean"),
        strips=strips,
        moves="eigenvector",
        numbers=("eigenvalue", "coefficient of the noisy image", "of the clean image"),
        beside=True,
    )


def _strip(run: Run, model: int) -> dict[str, object]:
    vectors, values = eigenpairs(run, model)
    count = len(vectors)
    noisy, clean = (
        run.array(f"model{model}/coefficients_{name}")[:count] for name in ("noisy", "clean")
    )
    sums = np.cumsum((values * noisy)[:, None, None, None] * vectors, axis=0)
    still = [run.array(f"model{model}/denoised"), run.array("clean")]
    tiles = [signed(vectors), sums, *(np.repeat(image[None], count, axis=0) for image in still)]
    between = [
        [f"λ {v:.2f}", f"noisy {abs(n):.2f}", f"clean {abs(c):.2f}"]
        for v, n, c in zip(values, noisy, clean, strict=True)
    ]
    return viewer_strip(run.result.models[model].name, tiles, between)


@figure(
    "Eigenvectors in order",
    lambda run: (
        f"Eigenvectors at σ = {run.result.sigma:g}, from the largest eigenvalue on, with their "
        "eigenvalues: gray is zero, black and white are opposite signs. The second tile of the "
        "viewer adds up the first of them, each times its eigenvalue and the noisy image's "
        "coefficient."
    ),
    lambda run: (
        f"The first eigenvectors of {_names(run)} as images, in order of their eigenvalues."
    ),
    images=True,
    viewer=_viewer,
)
def eigenvectors(run: Run, theme: Theme) -> Figure:
    """The first eigenvectors of each model in order, with their eigenvalues."""
    models = run.result.models
    height, width = run.result.shape[1:]
    counts = (len(run.array(f"model{i}/eigenvectors")) for i in range(len(models)))
    rows = -(-min(ACROSS * ROWS, *counts) // ACROSS)
    tile = 0.92 * style.WIDTH / ACROSS
    drawn = style.new_figure(len(models) * (0.35 + rows * (0.24 + tile * height / width)))
    parts = drawn.subfigures(len(models), 1, squeeze=False)[:, 0]
    for i, (part, model) in enumerate(zip(parts, models, strict=True)):
        part.suptitle(plots.named(model.name), **plots.HEADING)
        gallery(run, i, part.subplots(rows, ACROSS, squeeze=False).ravel())
    return drawn


@figure(
    "Where each coefficient goes",
    lambda run: (
        f"Coefficients in the eigenbasis at σ = {run.result.sigma:g}: of the clean image, the "
        "noisy image, and the denoised one; root mean squares over neighbouring ranks. Where a "
        "direction is kept, denoised follows noisy; where it is removed, denoised falls below the "
        "noise (dotted: σ). A good basis has the clean coefficients that stand above the noise on "
        "the left, where they are kept."
    ),
    lambda run: (
        f"Magnitude of coefficients against rank for {_names(run)}, in three shaded zones: kept, "
        "shrunk, removed."
    ),
)
def coefficients(run: Run, theme: Theme) -> Figure:
    """The coefficients of clean, noisy and denoised image in each model's eigenbasis."""
    models = run.result.models
    drawn, panels = plots.new_row(3.2, len(models), sharex=True, sharey=True)
    looks = {
        "noisy": {"color": theme.muted, "marker": ".", "markersize": 3, "linewidth": 0.6},
        "clean": {"color": theme.twins, "marker": ".", "markersize": 3, "linewidth": 0.9},
        "denoised": {"color": theme.nearest, "linewidth": 1.3},
    }
    for i, (axes, model) in enumerate(zip(panels, models, strict=True)):
        level = model.at(run.result.sigma)
        count = len(run.array(f"model{i}/coefficients_clean"))
        shrunk = level.shrunk.directions if level.shrunk else 0
        edges = np.cumsum([0.5, level.kept.directions, shrunk])
        edges = np.minimum([*edges, count + 0.5], count + 0.5)
        shades = {"kept": 0.16, "shrunk": 0.07, "removed": 0.0}
        for (word, shade), (start, end) in zip(shades.items(), pairwise(edges), strict=True):
            if end > start:
                axes.axvspan(start, end, color=theme.closest_pairs, alpha=shade, linewidth=0)
                plots.beside(axes, word, np.sqrt(start * end), above=True, data=True)
        for name, look in looks.items():
            axes.plot(*_binned(run.array(f"model{i}/coefficients_{name}")), label=name, **look)
        axes.axhline(run.result.sigma, color=theme.ink, linewidth=0.8, linestyle=":", label="σ")
        axes.set(xscale="log", yscale="log", xlabel="rank k", xlim=(0.5, count + 0.5))
        axes.set_title(plots.named(model.name), pad=14)
    panels[0].set_ylabel("coefficient (root mean square)")
    plots.legend(drawn, panels[0])
    return drawn


def _binned(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle ranks and root mean squares of bins whose width grows in proportion to the rank."""
    count = len(coefficients)
    edges = np.unique(np.rint(np.geomspace(1, count + 1, BINS)).astype(int))
    energy = np.add.reduceat(np.square(coefficients, dtype=float), edges[:-1] - 1)
    middle = np.sqrt(edges[:-1] * (edges[1:] - 1.0))
    return middle, np.sqrt(energy / np.diff(edges))
