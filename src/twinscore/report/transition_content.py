"""What the page of a transition run says: verdict, table, facts, and what is missing."""

import math
from collections.abc import Callable
from dataclasses import replace

from twinscore.report import reading
from twinscore.report.content import Cell, Content, Part, images_text, interval_cell, percent, table
from twinscore.report.reading import Run
from twinscore.results.base import Interval
from twinscore.results.transition import Data, Level, Memorisation, PsnrGap, Result, TwinsKL


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    return Content(
        title=f"twinscore: transition on {result.data.source}",
        verdict=result.verdict,
        facts=tuple(_facts(result)),
        table=table(
            "The result at each N, with intervals. M: how much more often samples lie nearest to "
            "an image of their own twin's half than a coin toss explains (1: always). G: how far "
            "the twins draw the same sample from the same noise, beyond what all their samples "
            "share (1: the same). Copies: samples nearer to their own half than any sample is to "
            "the other half, or to its controls. Gain: PSNR above the best that second moments can "
            "do, on held-out images. The gap is the largest difference between train and test PSNR "
            "over the noise levels.",
            ("N", "verdict", "M", "G", "copies A", "copies B", "gain", "train − test gap"),
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


def nats(value: float) -> str:
    """A divergence."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


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
        ("Critical N", critical.text() if critical else result.critical_n_phrase),
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
        "set; memory is told by controls, images of a twin's own kind that neither has seen",
    }
    lists = f"as the lists in {data.split} say"
    return words.get(data.split, f"{lists}, dealt at random" if data.dealt_at_random else lists)


def _row(level: Level) -> tuple[Cell | str, ...]:
    m, copies, gap = level.memorisation, level.copies, level.psnr_gap
    return (
        size(level.n),
        Cell(level.verdict, tone=level.verdict),
        _with_p(m) if m else Cell("–"),
        interval_cell(level.agreement, share),
        *(
            interval_cell(rate, percent)
            for rate in ((copies.a, copies.b) if copies else (None,) * 2)
        ),
        interval_cell(level.learned.gain_db if level.learned else None, _signed, unit=" dB"),
        _at_level(gap) if gap else Cell("–"),
    )


def _with_p(m: Memorisation) -> Cell:
    cell = interval_cell(m, share)
    return replace(cell, detail=f"{cell.detail}, {'no p' if m.p is None else f'p = {m.p:.2g}'}")


def _at_level(gap: PsnrGap) -> Cell:
    cell = interval_cell(gap, _signed, unit=" dB")
    return replace(cell, detail=f"{cell.detail}, at σ = {gap.sigma:g}")


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _ranged(number: Interval, form: Callable[[float], str]) -> str:
    cell = interval_cell(number, form)
    return f"{cell.text} ({cell.detail})"


def _notes(run: Run) -> list[str]:
    """Reasons, thresholds, what limits the intervals, and what to beware of."""
    levels: list[Level] = run.result.levels
    lines = [f"N = {size(x.n)}: {x.verdict}, since {x.why}." for x in levels if x.why]
    lines += [f"{warning}." for x in levels for warning in x.warnings]
    lines += [_divergence(x, math.prod(run.result.data.shape)) for x in run.result.twins_kl]
    if any(level.learned is None for level in levels):
        lines.append(
            "Judged by the rule of an earlier version: run the same command again to judge it "
            "anew, which trains nothing."
        )
    if limits := run.spec.get("thresholds"):
        named = (f"{name} {_text(value)}" for name, value in limits.items())
        lines.append(f"Thresholds of the verdict: {', '.join(named)}.")
    lines.append(
        "Agreement shows that the result hardly depends on which images a network was trained on "
        "(low variance). It does not show that the result is right: that takes the error on "
        "held-out images, which the gain compares, or a known optimum. Dealing the labels of one "
        "data set again covers splits and trainings, not new images."
    )
    if run.spec.get("replicates") == 1:
        lines.append(
            "One replicate: the intervals cover the draw of samples and images only, not that of "
            "the training sets or the initialisations."
        )
    return lines


def _divergence(found: TwinsKL, dimension: int) -> str:
    """Bounds and variance of the twins at one N, in words."""
    sides = (("KL(A‖B)", found.a_from_b), ("KL(B‖A)", found.b_from_a))
    bounds = [f"{name} is at most {_ranged(bound, nats)} nats" for name, bound in sides if bound]
    variance = f"the variance integral is {_ranged(found.variance, nats)} nats"
    each = f"{nats(found.variance.value / dimension)} a dimension"
    return f"N = {size(found.n)}: {', '.join([*bounds, variance])}, {each}."


def _text(value: object) -> str:
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)


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
