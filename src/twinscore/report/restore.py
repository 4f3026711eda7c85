"""A restoration on paper: original, measured, samples, their mean and spread, side by side."""

from pathlib import Path

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from twinscore.report import reading, style
from twinscore.report.content import Caption, Cell, Content, Table
from twinscore.report.pictures import to_rgb

FIGURES = ("restored",)
SHOWN = 3


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Score(_Part):
    """Closeness to the original."""

    psnr: float
    ssim: float


class Result(_Part):
    """The fields of result.json that the report reads."""

    verdict: str
    task: str
    shape: tuple[int, int, int]
    measurements: int
    measured: Score
    mean: Score
    samples: list[Score]
    inconsistency: float
    residual: float | None
    unfinished: int


def figures(folder: Path, *, images: bool = True, theme: str = "light") -> dict[str, Figure]:
    """Draw the restoration; without images there is nothing to draw.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore restore``.
    images
        Whether to draw ``restored``, which shows images.
    theme
        ``light`` or ``dark``.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        ``restored``: original, measured, samples, mean, and the samples' standard deviation.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    run, result = _load(folder)
    if not images:
        return {}
    with style.applied(theme):
        return {"restored": style.settle(_restored(run, result))}


def content(folder: Path, *, images: bool = True) -> Content:
    """Write what the page says about the run.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore restore``.
    images
        Whether the page shows pictures; the words are the same.

    Returns
    -------
    Content
        Verdict, facts, table and caption.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    _, result = _load(folder)
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
        captions={
            "restored": Caption(
                "The restoration",
                "Original; what was measured, the rest at the mean of the training images; "
                "posterior samples, which differ where the measurements leave room; their mean; "
                "and their standard deviation, black where they agree, white at the largest value.",
                "Original, measured, samples, mean and standard deviation side by side.",
            )
        },
    )


def _load(folder: Path) -> tuple[reading.Run, Result]:
    run = reading.read(folder)
    return run, reading.result_of(run, Result)


def _table(result: Result) -> Table:
    scores = [("measured alone", result.measured)]
    scores += [(f"sample {i}", score) for i, score in enumerate(result.samples, 1)]
    scores += [("mean of the samples", result.mean)]
    rows = tuple(
        (Cell(name), Cell(f"{score.psnr:.2f}"), Cell(f"{score.ssim:.3f}")) for name, score in scores
    )
    return Table("Closeness to the original.", ("", "PSNR (dB)", "SSIM"), rows)


def _restored(run: reading.Run, result: Result) -> Figure:
    samples = reading.array(run, "samples")[:SHOWN]
    deviation = reading.array(run, "deviation")
    tiles = {
        "original": reading.array(run, "original"),
        "measured": reading.array(run, "measured"),
        **{f"sample {i}": sample for i, sample in enumerate(samples, 1)},
        "mean": reading.array(run, "mean"),
        f"sd, to {deviation.max():.2f}": deviation / max(deviation.max(), 1e-12),
    }
    below = {"measured": result.measured, "mean": result.mean}
    below |= {f"sample {i}": score for i, score in enumerate(result.samples[:SHOWN], 1)}
    height, width = result.shape[1:]
    figure = style.new_figure(0.45 + 0.92 * style.WIDTH / len(tiles) * height / width)
    for axes, (name, tile) in zip(figure.subplots(1, len(tiles)), tiles.items(), strict=True):
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
    return figure
