"""The early-stopping study on paper: figures and words from its run folder alone."""

from pathlib import Path

from matplotlib.figure import Figure

from twinscore.report import mixture_figures, mixture_words, style
from twinscore.report.content import HOLDS_NOT, Content
from twinscore.report.mixture_data import load

FIGURES = ("training", "rates", "terms", "capacity", "shift", "dynamics", "modes", "twins")


def figures(folder: Path, *, images: bool = True, theme: str = "light") -> dict[str, Figure]:
    """Draw the study; no figure shows images.

    Parameters
    ----------
    folder
        Folder of a finished run of ``twinscore mixture``.
    images
        Ignored but for a dark page, which draws all of its figures.
    theme
        ``light`` or ``dark``.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        In the order of `FIGURES`.

    Raises
    ------
    InputError
        If the folder is no finished run or one of its files is damaged.
    """
    data = load(folder)
    with style.applied(theme) as look:
        return {name: style.settle(getattr(mixture_figures, name)(data, look)) for name in FIGURES}


def content(folder: Path, *, images: bool = True) -> Content:
    """Write what the page says about the run.

    Parameters
    ----------
    folder
        Folder of a finished run of ``twinscore mixture``.
    images
        Whether images are shown; there are none.

    Returns
    -------
    Content
        Verdict, facts, table, notes and captions.

    Raises
    ------
    InputError
        If the folder is no finished run or one of its files is damaged.
    """
    data = load(folder)
    return Content(
        title="twinscore: early stopping, capacity and modes shift",
        verdict=data.result.verdict,
        facts=mixture_words.facts(data),
        table=mixture_words.table(data),
        captions=mixture_words.CAPTIONS,
        notes=mixture_words.notes(data),
        holding=HOLDS_NOT,
    )
