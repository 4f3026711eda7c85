"""The harmonics study on paper: an image, the basis in which it is denoised, its coefficients.

Figure 3 of Kadkhodaie, Guth, Simoncelli and Mallat (ICLR 2024) for one model, or two side by side.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twinscore.report import style
from twinscore.report.content import Cell, Content, Table, Viewer, figure
from twinscore.report.eigenvectors import ACROSS, eigenpairs, gallery, show, signed
from twinscore.report.pictures import sheet
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.harmonics import Agreement, Decay, Fixed, Level, Number, Result, Share

LEAST = 1e-3
"""Eigenvalues below are not drawn: on a logarithmic axis they, and negative ones, have no place."""

ROWS = 6
"""Most rows of eigenvectors for each model."""

BINS = 60
"""Edges of the bins over which coefficients are averaged, at most."""


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    channels, height, width = result.shape
    facts = [
        ("Image", f"number {result.index} of {result.source}: {result.image}"),
        ("Size", f"{height} × {width} pixels, {channels} channel{'s' * (channels > 1)}"),
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
        table=_table(result),
        notes=_notes(result),
    )


def _shared(found: Sequence[Agreement] | Sequence[Fixed]) -> str:
    return "; ".join(
        f"top {a.dimensions}: {_percent(a.shared)} ({_percent(a.chance)})" for a in found
    )


def _table(result: Result) -> Table:
    rows = [
        _row(model.name, level, result.shape) for model in result.models for level in model.levels
    ]
    return Table(
        caption=(
            "Directions that are kept (eigenvalue from "
            f"{result.kept_from:g}), shrunk, or removed (below "
            f"{result.removed_below:g}), and below them their share of the image, less its "
            "mean, and of this noise. SURE and the true error: squared error summed over pixels, "
            "averaged over noisy versions of this image, with 95 % intervals. Decays: exponents "
            "of power laws of eigenvalues and of the image's squared coefficients, with 95 % "
            "intervals of the fit and the ranks it covers. ±: standard error of an estimate."
        ),
        columns=(
            "model",
            "σ",
            "PSNR in → out (dB)",
            "trace",
            "effective rank",
            "kept",
            "shrunk",
            "removed",
            "|J − Jᵀ| / |J|",
            "|f(y) − J y| / |f(y)|",
            "complex pairs",
            "SURE",
            "true error",
            "decay of λ",
            "decay of ⟨x,e⟩²",
            "residual",
        ),
        rows=tuple(rows),
    )


def _row(name: str, level: Level, shape: tuple[int, int, int]) -> tuple[Cell, ...]:
    whole = level.eigenvalues == int(np.prod(shape))
    risk = level.risk
    return (
        Cell(name),
        Cell(f"{level.sigma:g}"),
        Cell(f"{level.psnr_in:.1f} → {level.psnr_out:.1f}"),
        _number(level.trace),
        _number(level.effective_rank),
        _share(level.kept),
        _share(level.shrunk),
        _share(level.removed),
        _number(level.asymmetry),
        Cell("–" if level.homogeneity is None else f"{level.homogeneity:.1e}"),
        Cell(
            f"{level.complex_pairs}",
            f"of {'all' if whole else 'the first'} {level.eigenvalues}; "
            f"imaginary part up to {level.largest_imaginary:.2g}",
        ),
        Cell(f"{risk.sure.value:.3g}", f"{risk.sure.low:.3g} to {risk.sure.high:.3g}"),
        Cell(f"{risk.error.value:.3g}", f"{risk.error.low:.3g} to {risk.error.high:.3g}"),
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
    return Cell(_count(share), f"{least}{_percent(share.image)} / {least}{_percent(share.noise)}")


def _decay(decay: Decay | None) -> Cell:
    if decay is None:
        return Cell("–")
    ranks = f"ranks {decay.first} to {decay.last}"
    return Cell(f"{decay.exponent:.2f}", f"{decay.low:.2f} to {decay.high:.2f}; {ranks}")


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _notes(result: Result) -> tuple[str, ...]:
    return tuple(
        f"{model.name}, σ = {level.sigma:g}: eigenpairs have not converged "
        f"(largest residual {level.residual:.1e})."
        for model in result.models
        for level in model.levels
        if not level.converged
    )


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
    for axes in drawn.subplots(1, 4):
        axes.set_axis_off()
    for axes, (above, below, name) in zip(drawn.axes, tiles, strict=False):
        show(axes, run.array(name), above, below)
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
    drawn = style.new_figure(3.0)
    panels = drawn.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    for i, (axes, model) in enumerate(zip(panels, models, strict=True)):
        spectra = run.array(f"model{i}/eigenvalues")
        colours = theme.ordered(len(spectra))
        for values, level, colour in zip(spectra, model.levels, colours, strict=True):
            ranks = np.arange(1, len(values) + 1)
            shown = values >= LEAST
            axes.plot(ranks[shown], values[shown], color=colour, label=f"{level.sigma:g}")
        for border in (run.result.kept_from, run.result.removed_below):
            axes.axhline(border, color=theme.muted, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xscale="log", yscale="log", xlabel="rank k", title=model.name)
    panels[0].set_ylabel("eigenvalue $\\lambda_k$")
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right center", title="σ")
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
    return {
        "title": run.result.models[model].name,
        "tone": "",
        "width": vectors.shape[-1],
        "height": vectors.shape[-2],
        "sheet": sheet(tiles),
        "between": [
            [f"λ {v:.2f}", f"noisy {abs(n):.2f}", f"clean {abs(c):.2f}"]
            for v, n, c in zip(values, noisy, clean, strict=True)
        ],
    }


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
    count = min(
        ACROSS * ROWS, *(len(run.array(f"model{i}/eigenvectors")) for i in range(len(models)))
    )
    rows = -(-count // ACROSS)
    tile = 0.92 * style.WIDTH / ACROSS
    drawn = style.new_figure(len(models) * (0.35 + rows * (0.24 + tile * height / width)))
    parts = drawn.subfigures(len(models), 1, squeeze=False)[:, 0]
    for i, (part, model) in enumerate(zip(parts, models, strict=True)):
        part.suptitle(model.name, fontsize=9, fontweight="bold")
        grid = part.subplots(rows, ACROSS, squeeze=False).ravel()
        gallery(run, i, grid)
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
    drawn = style.new_figure(3.2)
    panels = drawn.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
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
        words = ("kept", "shrunk", "removed")
        for word, start, end in zip(words, edges[:-1], edges[1:], strict=True):
            if end > start:
                opacity = {"kept": 0.16, "shrunk": 0.07, "removed": 0.0}[word]
                axes.axvspan(start, end, color=theme.closest_pairs, alpha=opacity, linewidth=0)
                _word(axes, np.sqrt(start * end), word)
        for name, look in looks.items():
            axes.plot(*_binned(run.array(f"model{i}/coefficients_{name}")), label=name, **look)
        axes.axhline(run.result.sigma, color=theme.ink, linewidth=0.8, linestyle=":", label="σ")
        axes.set(xscale="log", yscale="log", xlabel="rank k", xlim=(0.5, count + 0.5))
        axes.set_title(model.name, pad=14)
    panels[0].set_ylabel("coefficient (root mean square)")
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right center")
    return drawn


def _binned(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle ranks and root mean squares of bins whose width grows in proportion to the rank."""
    count = len(coefficients)
    edges = np.unique(np.rint(np.geomspace(1, count + 1, BINS)).astype(int))
    energy = np.add.reduceat(np.square(coefficients, dtype=float), edges[:-1] - 1)
    middle = np.sqrt(edges[:-1] * (edges[1:] - 1.0))
    return middle, np.sqrt(energy / np.diff(edges))


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
