"""The transition study on paper: its run folder as figures, and as the words of its page.

`figures` draws and `content` writes; both read the folder alone. What is not finished is left out
of the figures and named in the content. Figures 1 and 2 follow Kadkhodaie, Guth, Simoncelli and
Mallat (ICLR 2024), section 2.2.
"""

from pathlib import Path

from matplotlib.figure import Figure

from twinscore.report import (
    eigenvectors,
    harmonics,
    reading,
    style,
    transition_figures,
    transition_words,
)
from twinscore.report.content import Content
from twinscore.report.transition_data import load

FIGURES = (
    "denoising",
    "samples",
    "histograms",
    "similarity",
    "harmonics",
    "spectrum",
    "training",
)


def figures(folder: Path, *, images: bool = True, theme: str = "light") -> dict[str, Figure]:
    """Draw every figure that the folder has the numbers for.

    Parameters
    ----------
    folder
        Folder of a transition run, finished or not.
    images
        Whether to draw ``samples`` and ``harmonics``, the figures that show images and samples.
    theme
        ``light`` or ``dark``.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        In the order of `FIGURES`: ``denoising`` (output against input PSNR), ``samples`` (each
        twin's samples beside their nearest training images), ``histograms`` (cosine
        similarities), ``similarity`` (their medians against N), ``harmonics`` (a test image and
        its eigenvectors at an N that memorises and one that generalises), ``spectrum`` (the
        eigenvalues of both) and ``training``.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    data = load(reading.read(folder))
    with style.applied(theme) as look:
        drawn = {}
        if data.levels:
            drawn["denoising"] = transition_figures.denoising(data, look)
        if data.sampled and images:
            drawn["samples"] = transition_figures.samples(data, look)
        if data.sampled:
            drawn["histograms"] = transition_figures.histograms(data, look)
        if data.levels:
            drawn["similarity"] = transition_figures.similarity(data, look)
        if data.harmonics and images:
            drawn["harmonics"] = eigenvectors.side_by_side(data.harmonics, look)
        if data.harmonics:
            drawn["spectrum"] = harmonics.spectrum.draw(data.harmonics, look)
        if data.histories:
            drawn["training"] = transition_figures.training(data, look)
        return {name: style.settle(figure) for name, figure in drawn.items()}


def content(folder: Path, *, images: bool = True) -> Content:
    """Write what the page says about the run.

    Parameters
    ----------
    folder
        Folder of a transition run, finished or not.
    images
        Whether to include training images and samples, as a viewer.

    Returns
    -------
    Content
        Verdict, facts, table, captions, viewer and what is missing.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    data = load(reading.read(folder))
    viewers = {"samples": transition_words.viewer(data)} if images and data.sampled else {}
    return Content(
        title=f"twinscore: transition on {transition_words.source(data)}",
        verdict=transition_words.verdict(data),
        facts=transition_words.facts(data),
        table=transition_words.table(data) if data.levels else None,
        captions=transition_words.captions(data),
        missing=data.missing,
        notes=transition_words.notes(data),
        parts=transition_words.parts(data, images=images),
        viewers=viewers,
    )
