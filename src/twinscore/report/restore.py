"""A restoration on paper: original, measured, samples, their mean and spread, side by side."""

from matplotlib.figure import Figure

from twinscore.report import style
from twinscore.report.content import Cell, Content, Table, figure
from twinscore.report.pictures import to_rgb
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
    return Content(
        title=f"twinscore: restoration by {result.task.replace('_', ' ')}",
        verdict=result.verdict,
        facts=tuple(facts),
        table=_table(result),
    )


def _table(result: Result) -> Table:
    scores = [("measured alone", result.measured)]
    scores += [(f"sample {i}", score) for i, score in enumerate(result.samples, 1)]
    scores += [("mean of the samples", result.mean)]
    rows = tuple(
        (Cell(name), Cell(f"{score.psnr:.2f}"), Cell(f"{score.ssim:.3f}")) for name, score in scores
    )
    return Table("Closeness to the original.", ("", "PSNR (dB)", "SSIM"), rows)


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
        axes.imshow(to_rgb(tile[None])[0], interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(name, fontsize=7.5)
        if name in below:
            axes.annotate(
                f"{below[name].psnr:.1f} dB",
                (0.5, 0),
                xycoords="axes fraction",
                xytext=(0, -2),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=7,
            )
    return drawn
