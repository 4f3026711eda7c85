"""How figures look: two themes, safe for colour-blind readers, and their encoding as bytes.

Figures are made with the object API, so nothing depends on pyplot or on a display. The hues are
those of Okabe and Ito (2008); ordered sizes take a stretch of viridis that stays clear of the
paper's colour.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

WIDTH = 7.0  # inches


@dataclass(frozen=True)
class Theme:
    """Colours of one theme."""

    paper: str
    ink: str
    muted: str
    grid: str
    twins: str
    nearest: str
    ramp: tuple[float, float]
    closest_pairs: str = "#009E73"
    held_out: str = "#CC79A7"

    def ordered(self, count: int) -> list[tuple[float, ...]]:
        """Give `count` colours (RGBA) in an order that the eye follows."""
        low, high = self.ramp
        steps = (low + (high - low) * i / max(count - 1, 1) for i in range(count))
        return list(map(matplotlib.colormaps["viridis"], steps))


THEMES = {
    "light": Theme(
        paper="#ffffff",
        ink="#1b1f24",
        muted="#656d76",
        grid="#e4e7eb",
        twins="#0072B2",
        nearest="#D55E00",
        ramp=(0.0, 0.85),
    ),
    "dark": Theme(
        paper="#15181c",
        ink="#e6e9ed",
        muted="#9aa4af",
        grid="#2c3239",
        twins="#56B4E9",
        nearest="#E69F00",
        ramp=(0.3, 1.0),
    ),
}


@contextmanager
def applied(name: str) -> Iterator[Theme]:
    """Apply a theme, ``light`` or ``dark``, while figures are made or encoded."""
    theme = THEMES[name]
    settings = {
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "twinscore",
        "font.family": "DejaVu Sans",
        **dict.fromkeys(("font.size", "axes.labelsize"), 8.5),
        **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 8),
        **dict.fromkeys(("legend.fontsize", "legend.title_fontsize"), 8),
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "legend.frameon": False,
        "figure.facecolor": theme.paper,
        "axes.facecolor": "none",
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), theme.muted),
        **dict.fromkeys(("text.color", "axes.labelcolor"), theme.ink),
        **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), theme.ink),
        "axes.linewidth": 0.7,
        **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
        **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.5,
        "lines.markersize": 4.5,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield theme


def new_figure(height: float) -> Figure:
    """Make an empty figure of the column's width and `height` inches that lays itself out."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def settle(figure: Figure) -> Figure:
    """Lay a figure out once, so that encoding it several times does not do so again."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def png(figure: Figure) -> bytes:
    """Encode a light figure as PNG, at 200 dots per inch, without a date."""
    return _encoded(figure, "light", format="png", dpi=200, metadata={"Software": None})


def pdf(figure: Figure) -> bytes:
    """Encode a light figure as PDF with embedded TrueType fonts, without a date."""
    nothing = {"Creator": None, "Producer": None, "CreationDate": None}
    return _encoded(figure, "light", format="pdf", metadata=nothing)


def svg(figure: Figure, theme: str) -> bytes:
    """Encode a figure as SVG on a transparent ground, letters as outlines, without a date."""
    nothing = {"Creator": None, "Date": None}
    return _encoded(figure, theme, format="svg", facecolor="none", metadata=nothing)


def _encoded(figure: Figure, theme: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    with applied(theme):  # ticks are made while drawing and take the settings of that moment
        figure.savefig(buffer, **options)
    return buffer.getvalue()
