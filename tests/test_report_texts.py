"""Names that users give, in figures and pages: any text is drawn, and none is read as a formula."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from twinscore import report
from twinscore.experiments import harmonics
from twinscore.report import page, plots, style
from twinscore.runs import write_json

NAMES = (
    *("$\\frac{$", "$", "a$b$c", "\\$x$", "$x^2$", "a_b^c", "\\frac{1}{2}", "two\nlines", ""),
    *("\t\0\x1b[31m\x7f", "x" * 3000, "word " * 400, "عربي", "עברית", "😀🇪🇺", "漢字", "e\u0301"),
    *("<script>alert(1)</script>", "\" onload='x'", "</title>&amp;", "{{ 7 * 7 }}", "%s {0}"),
    *("\ufeff\u200b\u202e\u2028", "\U0010ffff", "\ufffe"),
)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text())
def drawn_in_a_figure(name):
    with style.applied("light"):
        figure = style.new_figure(2)
        axes = figure.subplots()
        axes.text(1, 1, plots.named(name))
        axes.set(title=plots.named(name), xlabel=plots.named(name, 9))
        style.settle(figure)
    assert not {"\t", "\0", "\x1b"} & set("".join(texts(figure)))
    assert axes.get_title()[:47].count("$") == " ".join(name.split())[:47].count("$")
    assert "\n" not in axes.get_title()
    assert len(axes.get_title()) <= 48


for _name in NAMES:
    drawn_in_a_figure = example(_name)(drawn_in_a_figure)


def test_any_name_is_drawn():
    drawn_in_a_figure()


def test_ticks_of_logarithmic_axes_are_powers_in_plain_text():
    with style.applied("light"):
        figure = style.new_figure(2)
        left, right = figure.subplots(1, 2)
        left.loglog([1, 1e5], [1e-3, 1])
        right.loglog([2, 7], [20, 70])
        style.settle(figure)
    ticks = [tick.get_text() for tick in left.get_xticklabels() + left.get_yticklabels()]
    assert {"10⁰", "10⁴", "10⁻³"} <= set(ticks)
    minor = [tick.get_text() for tick in right.get_xticklabels(minor=True)]
    assert "3×10⁰" in minor
    assert not [text for text in texts(figure) if "$" in text or "\\" in text]


def test_no_label_is_written_as_a_formula():
    sources = Path(report.__file__).parent.glob("*.py")
    written = {
        path.name: re.findall(r"[\"'][^\"'\n]*\$[^\"'\n]*[\"']", path.read_text())
        for path in sources
        if path.name != "style.py"
    }
    assert not any(written.values()), written


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    few = {"vectors": 4, "draws": 2, "sigmas": (0.4,), "data": "digits"}
    models = {"model": "gaussian:digits", "against": "gaussian:digits"}
    harmonics.run(harmonics.Spec(**models, **few), folder, device="cpu")
    return folder


FIRST = ("$\\frac{$", "\" onload='x'<script>alert(1)</script>"), ("😀 عربي\nx_y^\\", "x" * 3000)


@pytest.mark.parametrize(
    "names",
    [
        *FIRST,
        *(
            pytest.param(pair, marks=pytest.mark.slow)
            for pair in zip(NAMES, NAMES[::-1], strict=True)
        ),
    ],
)
def test_any_name_has_its_report(finished, tmp_path, monkeypatch, names):
    for kind in ("svg", "png", "pdf"):
        monkeypatch.setattr(style, kind, lambda *_: b"drawn")
    folder = shutil.copytree(finished, tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    for model, name in zip(result["models"], names, strict=True):
        model["name"] = name
    write_json(folder / "result.json", result)
    text = page.write(folder).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    titles = [html.unescape(title) for title in re.findall(r"<h3>(.*?)</h3>", text, re.DOTALL)]
    assert set(names) <= set(titles)
    quoted = re.findall(r"(?:alt|aria-label)=\"[^\"]*\"(.)", text)
    assert set(quoted) <= set(" >")
