"""The words and numbers of the transition study's page: verdict, table, captions and viewer."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from twinscore.report.content import Caption, Cell, Part, Table, Viewer
from twinscore.report.harmonics import kept
from twinscore.report.pictures import sheet
from twinscore.report.reading import Run
from twinscore.report.transition_data import Level, Median, Transition, Value

MOST_SEEDS = 64
MOST_PIXELS = 2**22


def _size(n: float) -> str:
    return f"{round(n):,}"


def _share(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def verdict(data: Transition) -> str:
    """Give the run's verdict, or say that it has none yet."""
    return data.result.verdict or "No verdict yet: no training-set size is finished."


def source(data: Transition) -> str:
    """Name the images that the run was trained on."""
    spec = data.run.spec.get("data", "images")
    return str(data.result.data.get("source", spec))


def facts(data: Transition) -> tuple[tuple[str, str], ...]:
    """List what holds for the whole run: the critical N, the baselines and the images."""
    result, lines = data.result, []
    if data.levels:
        critical = result.critical_n
        words = result.critical_n_phrase or "not known"
        lines.append(("Critical N", _ranged(critical, _size) if critical else words))
    for name, label in (
        ("closest_pairs", "Closest pairs of A and B"),
        ("held_out_nearest", "Held-out image to its nearest training image"),
    ):
        baseline = getattr(result, name)
        if baseline is not None:
            lines.append((label, f"{_ranged(baseline, _share)} (median cosine similarity)"))
    lines.append(("Images", _images(data)))
    if "split" in result.data:
        lines.append(("Split", _split(result.data)))
    return tuple(lines)


def _split(described: dict[str, Any]) -> str:
    rule, attribute = described["split"], described.get("attribute")
    words = {
        "random": "at random, image by image",
        "group": "by group: no group is in two of A, B and the test set",
        "label": "by label: A, B and the test set hold the same share of each",
        "attribute": f"by attribute: {attribute} is in all of A, none of B and half the test set",
    }
    return words.get(rule, f"as the lists in {rule} say")


def table(data: Transition) -> Table:
    """Lay out the result at each N."""
    return Table(
        caption=(
            "The result at each N, with intervals. Similarities are medians of the cosine "
            "similarity, mean removed: between the twins' samples from the same noise, and from "
            "each sample to the nearest training image of its own twin. The gap is the largest "
            "difference between train and test PSNR over the noise levels."
        ),
        columns=(
            "N",
            "verdict",
            "between twins",
            "to nearest in A",
            "to nearest in B",
            "memorised A",
            "memorised B",
            "train − test gap",
        ),
        rows=tuple(_row(level) for level in data.levels),
    )


def captions(data: Transition) -> dict[str, Caption]:
    """Write the title, the explanation and the text alternative of each figure."""
    sizes = ", ".join(_size(level.n) for level in data.levels)
    drawn = ", ".join(_size(level.n) for level in data.sampled)
    return {
        "denoising": Caption(
            "Denoising of training and test images",
            "Output PSNR against input PSNR (−20 log₁₀ σ, so noise falls from left to right), "
            "averaged over the twins; bands are intervals. Above the dashed line the denoiser "
            "helps. A network that memorises is far better on its training images than on test "
            "images; where both panels show the same curve, it has learned the distribution.",
            f"Two panels of output PSNR against input PSNR, one curve for each N ({sizes}): "
            "training images on the left, test images on the right.",
        ),
        "samples": Caption(
            "Samples of both twins from the same noise",
            "From left to right: the training image of A nearest to A's sample, the sample of A, "
            "the sample of B, the training image of B nearest to B's sample. Numbers are cosine "
            "similarities of neighbours. Twins that memorise reproduce their own images and "
            "disagree; twins that generalise agree on an image that neither has seen.",
            "For each N, a row of four images: nearest in A, sample of A, sample of B, nearest in "
            "B.",
        ),
        "histograms": Caption(
            "Originality against agreement",
            "Cosine similarity between the twins' samples, and of each sample to the nearest "
            "training image of its own twin. With growing N the first should move right and the "
            "second left. Broken lines mark the medians of two baselines: the closest pairs "
            "between the sets A and B, and real held-out images to their nearest training image. "
            "The vertical axis is a square root, so that few samples show beside many.",
            f"Histograms of cosine similarity, one panel for each N ({drawn}) on a shared axis.",
        ),
        "similarity": Caption(
            "From memorising to generalising",
            "Left: medians of the similarities with their intervals against N; where the curve "
            "between the twins lies above the other two, the networks agree more with each other "
            "than with the images they were trained on. Right: the fraction of samples that count "
            "as copies (nearest training image closer than a third of the distance to the second "
            "nearest; undefined at N = 1), and the mean similarity among the samples of one twin, "
            "which is high when they lack diversity. The gray band marks the critical N, where it "
            "was reached.",
            f"Median similarity, fraction memorised and diversity against N ({sizes}).",
        ),
        **(_harmonics(data.result.harmonics.sentence, data.harmonics) if data.harmonics else {}),
        "training": Caption(
            "Training history",
            "Training loss and output PSNR on test images against the step, one curve for each "
            "trained network (A solid, B dashed). A test curve that turns down while the loss "
            "still falls is a network starting to memorise.",
            "Training loss and test PSNR against the training step, one curve for each trial.",
        ),
    }


def _harmonics(sentence: str, shown: Run) -> dict[str, Caption]:
    names = " and ".join(model.name for model in shown.result.models)
    return {
        "harmonics": Caption(
            "The basis of one test image",
            f"{sentence} Each row: the image, its noisy version, what twin A makes of it, and the "
            "first eigenvectors of that network's Jacobian (gray is zero) with their eigenvalues, "
            "the factors by which it shrinks these directions.",
            f"Clean, noisy and denoised test image, and first eigenvectors, for {names}.",
        ),
        "spectrum": Caption(
            "Shrinkage factors",
            "Eigenvalues at that image for several noise levels. The broken lines bound what "
            f"counts as kept and as removed. {kept(shown)}",
            f"Eigenvalues against rank on logarithmic axes for {names}, one curve a noise level.",
        ),
    }


def parts(data: Transition, *, images: bool) -> tuple[Part, ...]:
    """Name the run within that has a page of its own, and what that page shows."""
    if data.harmonics is None:
        return ()
    shown = data.harmonics.result
    models = " and ".join(model.name for model in shown.models)
    eigenvectors = "every eigenvector, with a slider, " if images else ""
    return (
        Part(
            data.result.harmonics.folder,
            f"The bases of {models} at test image {shown.index} on a page of their own: "
            f"{eigenvectors}where each coefficient goes, and all numbers at every noise level",
        ),
    )


def notes(data: Transition) -> tuple[str, ...]:
    """Say what limits the intervals and which samples did not finish."""
    lines = []
    replicates = {data.array(level, "twin_similarity").shape[0] for level in data.sampled}
    if replicates == {1}:
        lines.append(
            "One replicate: the intervals cover the draw of samples and test images only, not "
            "that of the training sets or the initialisations."
        )
    for level in data.levels:
        for twin, count in (("A", level.unfinished_samples.a), ("B", level.unfinished_samples.b)):
            if count:
                lines.append(f"N = {_size(level.n)}: {count} samples of {twin} did not finish.")
    return tuple(lines)


def viewer(data: Transition) -> Viewer:
    """Put the samples of every N beside their nearest training images, one sheet for each N."""
    seeds = [data.array(level, "noise_seeds") for level in data.sampled]
    height, width = data.array(data.sampled[0], "samples_a", 1).shape[-2:]
    affordable = max(1, MOST_PIXELS // (4 * height * width))
    count = min(MOST_SEEDS, affordable, *(seed.size for seed in seeds))
    shared = all(np.array_equal(seed[:count], seeds[0][:count]) for seed in seeds)
    names = [f"noise seed {seed}" if shared else f"noise {k}" for k, seed in enumerate(seeds[0])]
    columns = ("nearest in A", "sample of A", "sample of B", "nearest in B")
    return Viewer(
        labels=tuple(names[:count]),
        columns=columns,
        moves="noise",
        numbers=tuple(f"similarity of {one} and {other}" for one, other in pairwise(columns)),
        strips=tuple(_strip(data, level, count) for level in data.sampled),
    )


def _strip(data: Transition, level: Level, count: int) -> dict[str, Any]:
    tiles = [
        data.array(level, name, count)
        for name in ("nearest_a", "samples_a", "samples_b", "nearest_b")
    ]
    names = ("nearest_similarity_a", "twin_similarity", "nearest_similarity_b")
    between = np.stack([data.array(level, name)[0, :count] for name in names], axis=1)
    return {
        "title": f"N = {_size(level.n)}",
        "tone": level.verdict,
        "width": tiles[0].shape[-1],
        "height": tiles[0].shape[-2],
        "sheet": sheet(tiles),
        "between": [[f"↔ {_share(value)}" for value in row] for row in between],
    }


def _row(level: Level) -> tuple[Cell, ...]:
    nearest, memorised = level.nearest_similarity, level.memorised_fraction
    return (
        Cell(_size(level.n)),
        Cell(level.verdict, tone=level.verdict),
        _cell(level.twin_similarity),
        _cell(nearest.a),
        _cell(nearest.b),
        _cell(memorised.a, _percent),
        _cell(memorised.b, _percent),
        _gap(level),
    )


def _gap(level: Level) -> Cell:
    difference = np.subtract(level.psnr.train, level.psnr.test)
    if not difference.size:
        return Cell("–")
    k = int(np.argmax(difference))
    return Cell(f"{difference[k]:.2f} dB".replace("-", "−"), f"at σ = {level.psnr.sigma[k]:g}")


def _cell(number: Median | Value | None, form: Callable[[float], str] = _share) -> Cell:
    if number is None:
        return Cell("–")
    return Cell(form(_middle(number)), f"{_end(number.low, form)} to {_end(number.high, form)}")


def _ranged(number: Median | Value, form: Callable[[float], str]) -> str:
    low, high = _end(number.low, form), _end(number.high, form)
    return f"{form(_middle(number))} ({low} to {high})"


def _middle(number: Median | Value) -> float:
    return number.median if isinstance(number, Median) else number.value


def _end(value: float | None, form: Callable[[float], str]) -> str:
    return "?" if value is None else form(value)


def _images(data: Transition) -> str:
    described = data.result.data
    words = [source(data)]
    if "images" in described:
        words.append(f"{described['images']:,} images")
    if "shape" in described:
        channels, height, width = described["shape"]
        words.append(f"{height} × {width} pixels, {channels} channel{'s' * (channels > 1)}")
    if "dropped" in described:
        limit = described.get("threshold")
        above = "" if limit is None else f" (correlation above {limit:g})"
        words.append(f"{described['dropped']:,} near-duplicates left out{above}")
    return "; ".join(words)
