"""The harmonics study on paper: an image, the basis in which it is denoised, its coefficients.

Figure 3 of Kadkhodaie, Guth, Simoncelli and Mallat (ICLR 2024) for one model, or two side by side.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from twinscore.report import harmonics_figures, style
from twinscore.report.content import Caption, Cell, Content, Table, Viewer
from twinscore.report.harmonics_data import (
    Agreement,
    Decay,
    Fixed,
    Harmonics,
    Level,
    Number,
    Share,
    load,
)
from twinscore.report.harmonics_figures import signed
from twinscore.report.pictures import sheet

FIGURES = ("images", "spectrum", "eigenvectors", "coefficients")
SHOWS_IMAGES = {"images", "eigenvectors"}


def figures(folder: Path, *, images: bool = True, theme: str = "light") -> dict[str, Figure]:
    """Draw every figure.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore harmonics``.
    images
        Whether to draw the image, and the eigenvectors, in which it can be recognised.
    theme
        ``light`` or ``dark``.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        In the order of `FIGURES`.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    data = load(folder)
    names = [name for name in FIGURES if images or name not in SHOWS_IMAGES]
    with style.applied(theme) as look:
        drawn = {name: getattr(harmonics_figures, name)(data, look) for name in names}
        return {name: style.settle(figure) for name, figure in drawn.items()}


def content(folder: Path, *, images: bool = True) -> Content:
    """Write what the page says about the run.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore harmonics``.
    images
        Whether to include the viewer of eigenvectors.

    Returns
    -------
    Content
        Verdict, facts, table, captions and viewer.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    data = load(folder)
    result = data.result
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
        table=_table(data),
        captions=_captions(data),
        notes=_notes(data),
        viewers={"eigenvectors": _viewer(data)} if images else {},
    )


def _shared(found: Sequence[Agreement] | Sequence[Fixed]) -> str:
    return "; ".join(
        f"top {a.dimensions}: {_percent(a.shared)} ({_percent(a.chance)})" for a in found
    )


def _table(data: Harmonics) -> Table:
    rows = [
        _row(model.name, level, data.result.shape)
        for model in data.result.models
        for level in model.levels
    ]
    return Table(
        caption=(
            "Directions that are kept (eigenvalue from "
            f"{data.result.kept_from:g}), shrunk, or removed (below "
            f"{data.result.removed_below:g}), and below them their share of the image, less its "
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
    return Cell(
        f"{least}{share.directions:,}",
        f"{least}{_percent(share.image)} / {least}{_percent(share.noise)}",
    )


def _decay(decay: Decay | None) -> Cell:
    if decay is None:
        return Cell("–")
    ranks = f"ranks {decay.first} to {decay.last}"
    return Cell(f"{decay.exponent:.2f}", f"{decay.low:.2f} to {decay.high:.2f}; {ranks}")


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _notes(data: Harmonics) -> tuple[str, ...]:
    return tuple(
        f"{model.name}, σ = {level.sigma:g}: eigenpairs have not converged "
        f"(largest residual {level.residual:.1e})."
        for model in data.result.models
        for level in model.levels
        if not level.converged
    )


def _captions(data: Harmonics) -> dict[str, Caption]:
    names = " and ".join(model.name for model in data.result.models)
    at = f"at σ = {data.result.sigma:g}"
    return {
        "images": Caption(
            "The image",
            f"Clean, noisy {at}, and denoised, with PSNR.",
            f"Clean and noisy image, and what {names} return.",
        ),
        "spectrum": Caption(
            "Shrinkage factors",
            "Eigenvalues of the symmetric part of the Jacobian, in order, at several noise levels. "
            "Each is the factor by which the denoiser shrinks one direction. The broken lines "
            f"bound what counts as kept, shrunk and removed. {data.kept()}",
            f"Eigenvalues against rank on logarithmic axes for {names}, one curve a noise level.",
        ),
        "eigenvectors": Caption(
            "Eigenvectors in order",
            f"Eigenvectors {at}, from the largest eigenvalue on, with their eigenvalues: gray is "
            "zero, black and white are opposite signs. The second tile of the viewer adds up the "
            "first of them, each times its eigenvalue and the noisy image's coefficient.",
            f"The first eigenvectors of {names} as images, in order of their eigenvalues.",
        ),
        "coefficients": Caption(
            "Where each coefficient goes",
            f"Coefficients in the eigenbasis {at}: of the clean image, the noisy image, and the "
            "denoised one; root mean squares over neighbouring ranks. Where a direction is kept, "
            "denoised follows noisy; where it is removed, denoised falls below the noise (dotted: "
            "σ). A good basis has the clean coefficients that stand above the noise on the left, "
            "where they are kept.",
            f"Magnitude of coefficients against rank for {names}, in three shaded zones: kept, "
            "shrunk, removed.",
        ),
    }


def _viewer(data: Harmonics) -> Viewer:
    """Each eigenvector beside the sum of those up to it, the whole estimate and the clean image."""
    strips = tuple(_strip(data, i) for i in range(len(data.result.models)))
    return Viewer(
        labels=tuple(f"k = {k}" for k in range(1, 1 + len(strips[0]["between"]))),
        columns=("eigenvector k", "first k, shrunk", "denoised", "clean"),
        strips=strips,
        moves="eigenvector",
        numbers=("eigenvalue", "coefficient of the noisy image", "of the clean image"),
        beside=True,
    )


def _strip(data: Harmonics, model: int) -> dict[str, object]:
    vectors = data.array("eigenvectors", model)
    count = len(vectors)
    found = data.result.models[model]
    values = data.array("eigenvalues", model)[found.levels.index(data.main(found))][:count]
    noisy, clean = (
        data.array(f"coefficients_{name}", model)[:count] for name in ("noisy", "clean")
    )
    sums = np.cumsum((values * noisy)[:, None, None, None] * vectors, axis=0)
    still = [data.array("denoised", model), data.array("clean")]
    tiles = [signed(vectors), sums, *(np.repeat(image[None], count, axis=0) for image in still)]
    return {
        "title": found.name,
        "tone": "",
        "width": vectors.shape[-1],
        "height": vectors.shape[-2],
        "sheet": sheet(tiles),
        "between": [
            [f"λ {v:.2f}", f"noisy {abs(n):.2f}", f"clean {abs(c):.2f}"]
            for v, n, c in zip(values, noisy, clean, strict=True)
        ],
    }
