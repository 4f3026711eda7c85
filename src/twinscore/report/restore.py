"""A restoration on paper: original, measured, samples, their mean and spread, side by side."""

from matplotlib.figure import Figure

from twinscore.report import plots, style
from twinscore.report.content import Content, figure, table
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.restore import Result

SHOWN = 3


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    channels, height, width = result.shape
    facts = [
        ("Image", f"{height} x {width} pixels, {channels} channel{'s' * (channels > 1)}"),
        ("Measured", f"{result.measurements:,} numbers, {result.task.replace('_', ' ')}"),
        ("Measurements are met", f"within {result.inconsistency:.2g} of their norm"),
    ]
    if result.residual is not None:
        facts.append(("Conjugate gradients", f"median relative residual {result.residual:.2g}"))
    if result.unfinished:
        facts.append(("Not converged", f"{result.unfinished} samples, left out"))
    samples = ((f"sample {i}", score) for i, score in enumerate(result.samples, 1))
    scores = (("measured alone", result.measured), *samples, ("mean of the samples", result.mean))
    rows = ((name, f"{score.psnr:.2f}", f"{score.ssim:.3f}") for name, score in scores)
    return Content(
        title=f"twinscore: restoration by {result.task.replace('_', ' ')}",
        verdict=result.verdict,
        facts=tuple(facts),
        table=table("Closeness to the original.", ("", "PSNR (dB)", "SSIM"), rows),
    )


@figure(
    "The restoration",
    "Original; what was measured, the rest at the mean of the training images; posterior samples, "
    "which differ where the measurements leave room; their mean; and their standard deviation, "
    "black where they agree, white at the largest value.",
    "Original, measured, samples, mean and standard deviation side by side.",
    images=True,
)
def restored(run: Run, theme: Theme) -> Figure:
    """Original, measured, samples, mean, and the samples' standard deviation."""
    result, deviation = run.result, run.array("deviation")
    samples = run.array("samples")[:SHOWN]
    tiles = {
        "original": run.array("original"),
        "measured": run.array("measured"),
        **{f"sample {i}": sample for i, sample in enumerate(samples, 1)},
        "mean": run.array("mean"),
        f"sd, to {deviation.max():.2f}": deviation / max(deviation.max(), 1e-12),
    }
    below = {"measured": result.measured, "mean": result.mean}
    below |= {f"sample {i}": score for i, score in enumerate(result.samples[:SHOWN], 1)}
    height, width = result.shape[1:]
    drawn = style.new_figure(0.45 + 0.92 * style.WIDTH / len(tiles) * height / width)
    for axes, (name, tile) in zip(drawn.subplots(1, len(tiles)), tiles.items(), strict=True):
        psnr = f"{below[name].psnr:.1f} dB" if name in below else ""
        plots.show(axes, tile, name, psnr, pad=None)
    return drawn
