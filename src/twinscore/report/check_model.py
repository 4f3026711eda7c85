"""A check of a model on paper: every convention's errors, and one image denoised at each level."""

import numpy as np
from matplotlib.figure import Figure

from twinscore.report import plots, style
from twinscore.report.content import HOLDS, Cell, Content, figure, size_text, table
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.check_model import SHOWN, Result, decibels


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    held_out = " (held out)" if result.held_out else ""
    facts = (
        ("Model", result.model),
        ("Images", f"{result.images} of {result.source}{held_out}"),
        ("Size", size_text(result.shape)),
        ("Named convention", result.fits[0].wiring),
    )
    noisy = ("noisy images", *(decibels(sigma**2) for sigma in result.sigmas), "–")
    rows = (
        (fit.wiring, *map(decibels, fit.errors), _bias(fit.bias, result.sigmas[0]))
        for fit in result.fits
    )
    return Content(
        title=f"twinscore: is {plots.named(result.model)} wired right?",
        verdict=result.verdict,
        facts=facts,
        table=table(
            "PSNR (dB, of the mean squared error) of the images that each convention makes of what "
            "the network returns: the named one first, then the best. Offset: mean of the "
            "error at the smallest noise level, over that level.",
            ("convention", *(f"σ = {sigma:g}" for sigma in result.sigmas), "offset"),
            (noisy, *rows),
        ),
        notes=(*([result.warning] if result.warning else []), *result.notes),
        holding=HOLDS,
    )


def _bias(bias: float | None, sigma: float) -> Cell:
    return Cell("–" if bias is None else f"{bias / sigma:+.2f}")


@figure(
    "Errors of the conventions",
    f"Root mean squared error against the noise level: the named convention, the {SHOWN} others "
    "that fit best, and the noisy images themselves (broken line). The right convention lies below "
    "the line, and below the others.",
    "Error against noise level on logarithmic axes, a curve for each convention.",
)
def errors(run: Run, theme: Theme) -> Figure:
    """Error against noise level, the named convention set off."""
    result = run.result
    drawn, (axes,) = plots.new_row(3.2, 1)
    for fit, colour in zip(result.fits[1 : SHOWN + 1], theme.ordered(SHOWN), strict=False):
        axes.plot(result.sigmas, _roots(fit.errors), color=colour, linewidth=1, label=fit.wiring)
    own = result.fits[0]
    look = {"color": theme.twins, "linewidth": 2.2, "marker": "o", "markersize": 4}
    axes.plot(result.sigmas, _roots(own.errors), label=f"named: {own.wiring}", **look)
    noise = {"color": theme.muted, "linewidth": 0.9, "linestyle": plots.DASHED}
    axes.plot(result.sigmas, result.sigmas, label="noisy images", **noise)
    axes.set(xscale="log", yscale="log", xlabel="noise level σ", ylabel="root mean squared error")
    plots.legend(drawn, axes)
    return drawn


def _roots(errors: list[float | None]) -> np.ndarray:
    return np.sqrt([np.nan if error is None else error for error in errors])


@figure(
    "One image, denoised",
    "An image with noise of each level (top), and what the model makes of it under the named "
    "convention (bottom), with PSNR. A model that is wired right gives back the image where there "
    "is little noise, and something smoother where there is much.",
    "A row of noisy images above a row of denoised ones.",
    images=True,
)
def strip(run: Run, theme: Theme) -> Figure:
    """One image with noise of each level, and denoised."""
    result, clean = run.result, run.array("clean")
    rows = {"noisy": run.array("noisy"), "denoised": run.array("denoised")}
    height, width = result.shape[1:]
    across = 0.92 * style.WIDTH / (len(result.sigmas) + 1)
    drawn = style.new_figure(2 * (0.4 + across * height / width))
    grid = plots.blank(drawn.subplots(2, len(result.sigmas) + 1, squeeze=False))
    plots.show(grid[0, 0], clean, "clean")
    for axes, (name, images) in zip(grid[:, 1:], rows.items(), strict=True):
        for each, image, sigma in zip(axes, images, result.sigmas, strict=True):
            error = float(np.square(image.astype(np.float64) - clean).mean())
            above = f"σ = {sigma:g}" if name == "noisy" else ""
            plots.show(each, image, above, f"{decibels(error)} dB")
    return drawn
