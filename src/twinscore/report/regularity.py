"""The study of C-alpha images on paper: slopes beside the theory, curves, and the eigenvectors.

`figures` draws and `content` writes; both read the folder alone. After Kadkhodaie, Guth, Simoncelli
and Mallat (ICLR 2024), figures 4 and 5.
"""

from pathlib import Path

from matplotlib.figure import Figure

from twinscore.report import reading, regularity_figures, style
from twinscore.report.content import HOLDS_SYNTHETIC, Caption, Cell, Content, Table, covers
from twinscore.report.regularity_data import Data, Value, load

FIGURES = ("slopes", "curves", "local", "bases", "decay", "eigenvalues")


def figures(folder: Path, *, images: bool = True, theme: str = "light") -> dict[str, Figure]:
    """Draw every figure of the classes that are finished.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore regularity``, finished or not.
    images
        Whether to draw ``bases``, the figure that shows images.
    theme
        ``light`` or ``dark``.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        In the order of `FIGURES`: ``slopes`` (of each method), ``curves`` (output against input
        PSNR), ``local`` (slopes between neighbouring levels), ``bases`` (eigenvectors beside
        best-basis vectors), ``decay`` (what the largest coefficients leave) and ``eigenvalues``.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    data = load(reading.read(folder))
    names = FIGURES if images else tuple(name for name in FIGURES if name != "bases")
    if not data.classes:
        return {}
    with style.applied(theme) as look:
        drawn = {name: getattr(regularity_figures, name)(data, look) for name in names}
        return {name: style.settle(figure) for name, figure in drawn.items()}


def content(folder: Path, *, images: bool = True) -> Content:
    """Write what the page says about the run.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore regularity``, finished or not.
    images
        Whether the page shows pictures; the words are the same.

    Returns
    -------
    Content
        Verdict, facts, table, captions and what is missing.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    data = load(reading.read(folder))
    return Content(
        title="twinscore: regularity of C-alpha images",
        verdict=data.result.verdict or "No verdict yet: no class is finished.",
        facts=_facts(data),
        table=_table(data) if data.classes else None,
        captions=_captions(data),
        missing=tuple(data.result.missing),
        notes=_notes(data),
        holding=HOLDS_SYNTHETIC,
    )


def _facts(data: Data) -> tuple[tuple[str, str], ...]:
    spec, result = data.run.spec, data.result
    low, high = spec["fit_range"]
    facts = [
        ("Images", f"{spec['size']} x {spec['size']} pixels, gray"),
        ("Fit", f"{low:g} to {high:g} dB of input PSNR, stated in the spec"),
    ]
    if result.trained_on:
        once = "none twice" if result.trained_on >= result.shown else f"{result.shown:,} showings"
        facts.append(("Training images of each network", f"{result.trained_on:,}, {once}"))
    return tuple(facts)


def _table(data: Data) -> Table:
    methods = [curve.method for curve in data.classes[0].curves]
    rows = tuple(
        (
            Cell(f"{c.generator}, alpha {c.alpha:g}"),
            Cell(f"{c.theory:.3f}", f"filter's: {c.of_filter:.3f}"),
            *(_cell(c.curve(method).slope) for method in methods),
        )
        for c in data.classes
    )
    return Table(
        "Slope of output PSNR (of the mean squared error) against input PSNR in the fit range, "
        "with intervals. Theory: alpha / (alpha + 1); filter's: the slope of the backgrounds at "
        "the regularity s that the filter gives them, s / (s + 1). Oracles know the clean image.",
        ("class", "theory", *methods),
        rows,
    )


def _cell(value: Value) -> Cell:
    return Cell(f"{value.value:.3f}", f"{value.low:.3f} to {value.high:.3f}")


def _captions(data: Data) -> dict[str, Caption]:
    classes = ", ".join(f"alpha {c.alpha:g} ({c.generator})" for c in data.classes)
    return {
        "slopes": Caption(
            "Slopes",
            "The fitted slope of each method, with its interval; dashed lines are alpha / (alpha + "
            "1). Cosines, wavelets and best basis threshold the noisy image; oracles know the "
            "clean one.",
            f"Slope of each method for each generator; classes: {classes}.",
        ),
        "curves": Caption(
            "Denoising curves",
            "Output PSNR of the mean squared error against input PSNR of the network (solid) and "
            "of thresholding in the best basis (dashed) and in cosines (dotted). The fit range is "
            "shaded; thin lines with a tick at both ends have slope alpha / (alpha + 1) and start "
            "from the network's first point in it. The gray line marks output = input, whose slope "
            "is 1: a slope says how fast an error falls, not how small it is. What lies below it "
            "is worse than the noisy image.",
            "Output PSNR against input PSNR, a curve for each alpha.",
        ),
        "local": Caption(
            "Local slopes of the network",
            "Slopes between neighbouring noise levels, with intervals, and alpha / (alpha + 1) as "
            "short lines at the right. Where they do not settle inside the shaded range, the "
            "fitted slope depends on the range. On a pixel grid the slope of an optimal denoiser "
            "tends to 1 at low noise; a slope near 0 means that the error no longer falls with the "
            "noise. local_slopes.csv has those of every method.",
            "Local slope against input PSNR, a curve for each alpha.",
        ),
        "bases": Caption(
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
        ),
        "decay": Caption(
            "How few vectors hold the image",
            "Share of the clean image's energy that its k largest coefficients leave, in the "
            "eigenvectors at the noisy image and in three other bases. The best basis is chosen "
            "with the clean image, the eigenvectors are the network's own. One image.",
            "Residual energy against the number of coefficients, one panel for each class.",
        ),
        "eigenvalues": Caption(
            "Eigenvalues",
            "Of the symmetric part of the network's Jacobian at the same noisy image, in falling "
            "order. An optimal denoiser has none below 0: negative ones, and the asymmetry, say "
            "how far the network is from one.",
            "Eigenvalue against rank, a curve for each alpha.",
        ),
    }


def _notes(data: Data) -> tuple[str, ...]:
    return (covers(data.run.spec["replicates"], "test images"),) if data.classes else ()
