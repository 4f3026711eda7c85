"""How figures look: two themes, safe for colour-blind readers, and their encoding as bytes.

Figures are made with the object API, so nothing depends on pyplot or on a display. The hues are
those of Okabe and Ito (2008); ordered sizes take a stretch of viridis that stays clear of the
paper's colour.

No text is read as mathematics: a name that the user gave may hold any character. Formulas in
labels are written in Unicode, powers of ten by :func:`power_of_ten`.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import LogFormatterSciNotation

WIDTH = 7.0  # inches
FONT = "DejaVu Sans"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ABSENT = "□"


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
        "font.family": FONT,
        "text.parse_math": False,
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


def power_of_ten(exponent: str) -> str:
    """Ten to a whole power, as text."""
    return f"10{exponent.translate(_RAISED)}"


class _Powers(LogFormatterSciNotation):
    """The library's ticks of logarithmic axes, as text instead of mathematics."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Label of the tick at ``x``, empty where it has none."""
        text = re.sub(r"\$\\mathdefault\{(.*)\}\$", r"\1", super().__call__(x, pos))
        text = text.replace(r"\times", "×")
        return re.sub(r"10\^\{(-?\d+)\}", lambda found: power_of_ten(found[1]), text)


def _readied(figure: Figure) -> None:
    """Let a figure's ticks be text, and show what its font cannot as an empty box."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if type(axis.get_major_formatter()) is LogFormatterSciNotation:
                axis.set_major_formatter(_Powers())
            if type(axis.get_minor_formatter()) is LogFormatterSciNotation:
                axis.set_minor_formatter(_Powers(labelOnlyBase=False))
    for text in figure.findobj(Text):
        said = text.get_text()
        drawn = "".join(c if c == "\n" or ord(c) in _glyphs() else _ABSENT for c in said)
        if drawn != said:
            text.set_text(drawn)


@cache
def _glyphs() -> frozenset[int]:
    """Characters that the font has, plain and bold."""
    weights = (get_font(findfont(f"{FONT}:{weight}")) for weight in ("regular", "bold"))
    plain, bold = (font.get_charmap().keys() for font in weights)
    return frozenset(plain & bold)


def settle(figure: Figure) -> Figure:
    """Lay a figure out once, so that encoding it several times does not do so again."""
    _readied(figure)
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
    _readied(figure)
    with applied(theme):  # ticks are made while drawing and take the settings of that moment
        figure.savefig(buffer, **options)
    return buffer.getvalue()
