"""What a study hands to the page: sentences, a table, figures with captions, viewers of images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from twinscore.report.pictures import sheet
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.base import Interval

HOLDS = "This page holds training images and samples: think before you share it."
HOLDS_TEST = "This page holds test images of the data: think before you share it."
HOLDS_SYNTHETIC = "The images of this page are synthetic; none was trained on."
HOLDS_NOT = "This page holds no training images or samples."


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a value, its interval under it, and a word that colours it."""

    text: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of each row is its heading."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(caption: str, columns: Sequence[str], rows: Iterable[Iterable[Cell | str]]) -> Table:
    """A table of cells; a text alone is a cell too."""
    made = (tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    return Table(caption, tuple(columns), tuple(made))


@dataclass(frozen=True)
class Caption:
    """The words around a figure: its title, how to read it, and its text alternative."""

    title: str
    text: str
    alt: str


@dataclass(frozen=True)
class Viewer:
    """Rows of images to scrub through with a slider, in place of a figure that stands still.

    Each strip has a title, a tone, the width and height of a tile in pixels, a sheet (data URI of
    a PNG with one row of tiles for each label) and `between`: one number fewer than columns, for
    each label. `moves` is what the slider moves along, `numbers` what the numbers are; with
    `beside`, the figure stands below the viewer, for paper and for readers without a slider.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    strips: tuple[Mapping[str, Any], ...]
    moves: str
    numbers: tuple[str, ...]
    beside: bool = False


def viewer_strip(
    title: str, tiles: Sequence[np.ndarray], between: list[list[str]], tone: str = ""
) -> dict[str, Any]:
    """One strip of a viewer, from a column of images (N, C, H, W) for each of its tiles."""
    height, width = tiles[0].shape[-2:]
    look = {"title": title, "tone": tone, "width": width, "height": height}
    return {**look, "sheet": sheet(tiles), "between": between}


Text = str | Callable[[Run], str]
"""A text, or what makes it from a run."""


@dataclass(frozen=True)
class Drawing:
    """A figure that the report of a study draws, and the words around it.

    ``name`` is that of its files. ``draw(run, theme)`` gives None where the run lacks what it
    shows. ``images``: it shows images, so ``--no-images`` leaves it out. ``viewer(run)`` gives what
    replaces the figure on the page, or stands above it. ``early``: it can be drawn before any part
    of the result is there.
    """

    name: str
    draw: Callable[[Run, Theme], Figure | None]
    title: Text
    text: Text
    alt: Text
    images: bool = False
    viewer: Callable[[Run], Viewer] | None = None
    early: bool = False

    def caption(self, run: Run) -> Caption:
        """The words, of this run."""
        texts = (self.title, self.text, self.alt)
        return Caption(*(part if isinstance(part, str) else part(run) for part in texts))


def figure(title: Text, text: Text, alt: Text, **options: Any) -> Callable[..., Drawing]:
    """Make a function that draws one figure a :class:`Drawing` of its module, with its name."""

    def declare(draw: Callable[[Run, Theme], Figure | None]) -> Drawing:
        return Drawing(draw.__name__, draw, title, text, alt, **options)

    return declare


@dataclass(frozen=True)
class Part:
    """A run within the run: its folder, relative to the run's, and what its page shows."""

    folder: str
    shows: str


@dataclass(frozen=True)
class Content:
    """Everything a page says about one run, apart from its figures.

    ``more`` are tables that follow the first one. ``holding`` tells what images the page shows,
    where it may show any. ``missing`` adds to what
    the result says of it.
    """

    title: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    table: Table | None = None
    more: tuple[Table, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    holding: str = HOLDS

    @property
    def tables(self) -> tuple[Table, ...]:
        """All of them."""
        return (*([self.table] if self.table else []), *self.more)


def covers(replicates: int, samples: str) -> str:
    """Say what the intervals of a study cover that repeats its trials."""
    if replicates == 1:
        return (
            f"One replicate: the intervals cover the draw of {samples} only, not that of training "
            "images or initial weights."
        )
    return f"Intervals are Student's t (95 %) over {replicates} replicates."


def interval_cell(
    interval: Interval | None,
    form: Callable[[float], str] = "{:.2f}".format,
    *,
    unit: str = "",
    span: str = "{} to {}",
    absent: str = "–",
) -> Cell:
    """A number with its interval under it, or a dash."""
    if interval is None:
        return Cell(absent)
    return Cell(form(interval.value) + unit, span.format(form(interval.low), form(interval.high)))


def size_text(shape: tuple[int, int, int]) -> str:
    """Height, width and channels of an image (C, H, W)."""
    channels, height, width = shape
    return f"{height} × {width} pixels, {channels} channel{'s' * (channels > 1)}"


def images_text(data: Any) -> str:
    """The images of a study, and what was left out of them."""
    return (
        f"{data.source}; {data.images:,} images; {size_text(data.shape)}; {data.dropped:,} "
        f"near-duplicates left out (correlation above {data.threshold:g})"
    )


def percent(value: float) -> str:
    """A fraction."""
    return f"{100 * value:.0f} %"
