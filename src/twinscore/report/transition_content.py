"""What the page of a transition run says: verdict, table, facts, and what is missing."""

from collections.abc import Callable

import numpy as np

from twinscore.report import reading
from twinscore.report.content import Cell, Content, Part, images_text, interval_cell, percent, table
from twinscore.report.reading import Run
from twinscore.results.base import Interval
from twinscore.results.transition import Data, Level, Result


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    return Content(
        title=f"twinscore: transition on {result.data.source}",
        verdict=result.verdict,
        facts=tuple(_facts(result)),
        table=table(
            "The result at each N, with intervals. Similarities are medians of the cosine "
            "similarity, mean removed: between the twins' samples from the same noise, and from "
            "each sample to the nearest training image of its own twin. The gap is the largest "
            "difference between train and test PSNR over the noise levels.",
            (
                *("N", "verdict", "between twins", "to nearest in A", "to nearest in B"),
                *("memorised A", "memorised B", "train − test gap"),
            ),
            map(_row, result.levels),
        ),
        missing=tuple(_missing(run)),
        notes=tuple(_notes(run)),
        parts=_parts(run),
    )


def sampled(run: Run) -> list[Level]:
    """The levels whose arrays are there."""
    return [x for x in run.result.levels if f"n{x.n:05d}/twin_similarity" in run.arrays]


def bases(run: Run) -> Run | None:
    """The run within, of the bases at both ends."""
    section = run.result.harmonics
    return reading.read(run.folder / section.folder) if section else None


def ends(run: Run) -> str:
    """Names of the two ends, where there is a run within."""
    return " and ".join(model.name for model in bases(run).result.models)


def size(n: float) -> str:
    """A number of images."""
    return f"{round(n):,}"


def share(value: float) -> str:
    """A similarity."""
    return f"{value:.2f}".replace("-", "−")


def _missing(run: Run) -> list[str]:
    """Sizes that were added since the result was written, and arrays that are gone."""
    known = {f"N = {level.n}" for level in run.result.levels} | set(run.result.missing)
    asked = [f"N = {n}" for n in run.spec.get("sizes", [])]
    kept = sampled(run)
    return [f"{size}: no result yet" for size in asked if size not in known] + [
        f"N = {level.n}: its arrays are not in arrays.safetensors, so its samples are not drawn"
        for level in run.result.levels
        if level not in kept
    ]


def _facts(result: Result) -> list[tuple[str, str]]:
    critical, similar = result.critical_n, "(median cosine similarity)"
    held_out = "Held-out image to its nearest training image"
    lines = [
        ("Critical N", _ranged(critical, size) if critical else result.critical_n_phrase),
        ("Closest pairs of A and B", f"{_ranged(result.closest_pairs, share)} {similar}"),
        (held_out, f"{_ranged(result.held_out_nearest, share)} {similar}"),
        ("Images", images_text(result.data)),
    ]
    return lines + ([("Split", _split(result.data))] if result.data.split else [])


def _split(data: Data) -> str:
    words = {
        "random": "at random, image by image",
        "group": "by group: no group is in two of A, B and the test set",
        "label": "by label: A, B and the test set hold the same share of each",
        "attribute": f"by attribute: {data.attribute} is in all of A, none of B and half the test "
        "set",
    }
    return words.get(data.split, f"as the lists in {data.split} say")


def _row(level: Level) -> tuple[Cell | str, ...]:
    nearest, memorised = level.nearest_similarity, level.memorised_fraction
    difference = np.subtract(level.psnr.train, level.psnr.test)
    k = int(np.argmax(difference))
    gap = f"{difference[k]:.2f} dB".replace("-", "−")
    return (
        size(level.n),
        Cell(level.verdict, tone=level.verdict),
        *(interval_cell(median, share) for median in (level.twin_similarity, nearest.a, nearest.b)),
        *(interval_cell(fraction, percent) for fraction in (memorised.a, memorised.b)),
        Cell(gap, f"at σ = {level.psnr.sigma[k]:g}"),
    )


def _ranged(number: Interval, form: Callable[[float], str]) -> str:
    cell = interval_cell(number, form)
    return f"{cell.text} ({cell.detail})"


def _notes(run: Run) -> list[str]:
    """What limits the intervals, and which samples did not finish."""
    lines = []
    if run.spec.get("replicates") == 1:
        lines.append(
            "One replicate: the intervals cover the draw of samples and test images only, not "
            "that of the training sets or the initialisations."
        )
    for level in run.result.levels:
        for twin, count in (("A", level.unfinished_samples.a), ("B", level.unfinished_samples.b)):
            if count:
                lines.append(f"N = {size(level.n)}: {count} samples of {twin} did not finish.")
    return lines


def _parts(run: Run) -> tuple[Part, ...]:
    """The run within has a page of its own."""
    if (within := bases(run)) is None:
        return ()
    eigenvectors = "every eigenvector, with a slider, " if run.images else ""
    return (
        Part(
            run.result.harmonics.folder,
            f"The bases of {ends(run)} at test image {within.result.index} on a page of their own: "
            f"{eigenvectors}where each coefficient goes, and all numbers at every noise level",
        ),
    )
