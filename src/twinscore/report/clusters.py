"""Near and far clusters on paper: the words of the page, and the figures as a dictionary.

`figures` draws and `content` writes; both read the folder alone.
"""

from pathlib import Path

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from twinscore.report import clusters_figures, reading, style
from twinscore.report.clusters_figures import Data, Mean, Side
from twinscore.report.content import Caption, Cell, Content, Table

FIGURES = ("clusters", "dynamics", "shares", "samples", "agreement")
ROWS = {
    "gap": "train − test PSNR (dB)",
    "test_psnr": "test PSNR (dB)",
    "twin_similarity": "cosine similarity of the twins' samples",
    "memorised_fraction": "fraction of samples memorised",
    "elsewhere": "fraction of samples in other clusters",
    "test_bits": "bits per dimension, test images",
    "bits_gap": "bits per dimension, test − train",
}


class Result(BaseModel):
    """The fields of result.json that the report reads."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    verdict: str
    data: Data
    near: Side
    far: Side
    difference: dict[str, Mean | None]

    @property
    def sides(self) -> tuple[Side, Side]:
        """Near, then far."""
        return self.near, self.far


def figures(folder: Path, *, images: bool = True, theme: str = "light") -> dict[str, Figure]:
    """Draw every figure; none before the run is finished.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore clusters``, finished or not.
    images
        Whether to draw ``clusters`` and ``samples``, which show images.
    theme
        ``light`` or ``dark``.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        In the order of `FIGURES`: ``clusters`` (held-out images), ``dynamics`` (loss and PSNR
        during training), ``shares`` (where samples fall), ``samples`` (both twins', beside their
        nearest training images) and ``agreement`` (similarity of the twins, and the gap at each
        noise level).

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    run = reading.read(folder)
    if not run.result:
        return {}
    sides = reading.result_of(run, Result).sides
    with style.applied(theme) as look:
        drawn = {}
        if images:
            drawn["clusters"] = clusters_figures.clusters(run, sides)
        drawn["dynamics"] = clusters_figures.dynamics(sides, look)
        drawn["shares"] = clusters_figures.shares(run, sides, look)
        if images:
            drawn["samples"] = clusters_figures.samples(run, sides)
        drawn["agreement"] = clusters_figures.agreement(run, sides, look)
        return {name: style.settle(figure) for name, figure in drawn.items()}


def content(folder: Path, *, images: bool = True) -> Content:
    """Write what the page says about the run.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore clusters``, finished or not.
    images
        Whether the page shows images; the words are the same.

    Returns
    -------
    Content
        Verdict, facts, table, captions and what is missing.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    run = reading.read(folder)
    if not run.result:
        return Content(
            title=f"twinscore: near and far clusters of {run.spec.get('data', 'images')}",
            verdict="No verdict yet: not every network is trained.",
            facts=(),
            table=None,
            captions={},
            missing=_missing(run),
        )
    result = reading.result_of(run, Result)
    notes = [
        f"{side.name}: {side.unfinished_samples} samples did not converge."
        for side in result.sides
        if side.unfinished_samples
    ]
    return Content(
        title=f"twinscore: near and far clusters of {result.data.source}",
        verdict=result.verdict,
        facts=_facts(result),
        table=_table(result),
        captions=_captions(),
        notes=tuple(notes),
    )


def _missing(run: reading.Run) -> tuple[str, ...]:
    total = 4 * run.spec["replicates"]
    finished = sum(history.finished for history in reading.histories(run))
    return (f"{total - finished} of {total} networks, and what is measured on all of them",)


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    data = result.data
    channels, height, width = data.shape
    lines = [
        (
            "Images",
            f"{data.source}; {data.images:,} images; {height} × {width} pixels, "
            f"{channels} channel{'s' * (channels > 1)}; {data.dropped:,} near-duplicates left out "
            f"(correlation above {data.threshold:g})",
        ),
        (
            "Clusters",
            f"{len(data.cluster_sizes)} by k-means in {data.components} principal components of "
            f"standardised pixels; sizes {', '.join(f'{size:,}' for size in data.cluster_sizes)}",
        ),
    ]
    for side, word in zip(result.sides, ("Nearest", "Farthest"), strict=True):
        first, second = side.clusters
        lines.append(
            (
                f"{word} two",
                f"clusters {first} and {second}, of {side.sizes[0]:,} and {side.sizes[1]:,} "
                f"images, centres {side.distance:.2f} apart",
            )
        )
    lines.append(
        (
            "Training sets",
            f"{data.n:,} images for each twin, half from each cluster; {data.test:,} test images; "
            f"{data.replicates} replicates",
        )
    )
    return tuple(lines)


def _table(result: Result) -> Table:
    rows = [
        (
            Cell("fraction of samples on the side of the first cluster"),
            *(_cell(side.share) for side in result.sides),
            Cell("–"),
        )
    ]
    for name, label in ROWS.items():
        values = [side.measured[name] for side in result.sides]
        rows.append((Cell(label), *map(_cell, [*values, result.difference[name]])))
    return Table(
        caption=(
            "Means over replicates with Student's t intervals (95 %); A and B are averaged. PSNR "
            "is averaged over images and noise levels. The difference is taken replicate by "
            "replicate."
        ),
        columns=("", "near", "far", "far − near"),
        rows=tuple(rows),
    )


def _cell(mean: Mean | None) -> Cell:
    if mean is None:
        return Cell("–")
    text, low, high = (f"{x:.3f}".replace("-", "−") for x in (mean.value, mean.low, mean.high))
    return Cell(text, f"{low} to {high}")


def _captions() -> dict[str, Caption]:
    return {
        "clusters": Caption(
            "The two nearest and the two farthest clusters",
            "Held-out images of each cluster of the first replicate, which no network has seen.",
            "Four rows of images: both clusters of the near pair, both of the far pair.",
        ),
        "dynamics": Caption(
            "Loss and denoising during training",
            "Against the training step: training loss, PSNR on test images, and PSNR on training "
            "less that on test images (both averaged over noise levels). Lines are means over "
            "replicates, bands their intervals. All networks and both sets take the same noise, "
            "which is not that of the table: the last values differ a little. A test PSNR that "
            "falls while the gap grows is a network that starts to memorise.",
            "Training loss, test PSNR and train − test gap against the step, near and far.",
        ),
        "shares": Caption(
            "Where samples fall",
            "Left: fraction of samples on the first centre's side, which is one half in the "
            "training set (broken line), and fraction nearest to the centre of a third cluster; "
            "small dots are single networks, bars intervals over replicates. Middle and right: "
            "position of samples and of held-out images along the line through the two centres, "
            "0 at the first and 1 at the second. Samples between two humps are blends of both "
            "clusters.",
            "Fractions of samples with intervals; histograms of positions between the centres.",
        ),
        "samples": Caption(
            "Samples of both twins from the same noise",
            "Columns share their noise. From the top, for each pair of clusters: training image "
            "of A nearest to A's sample, sample of A, sample of B, training image of B nearest to "
            "B's sample. Twins that agree have learned it from the distribution.",
            "For near and far, four rows of images: nearest in A, sample of A, sample of B, "
            "nearest in B.",
        ),
        "agreement": Caption(
            "Agreement of the twins, and the gap at each noise level",
            "Left: cosine similarity (mean removed) between the samples of A and B from the same "
            "noise, over all replicates. Right: PSNR on training less that on test images against "
            "the noise level, with intervals over replicates.",
            "Histograms of cosine similarity; train − test PSNR against the noise level.",
        ),
    }
