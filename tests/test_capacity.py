"""What the critical N depends on: the cells, what they share, and their exponents."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from twinscore import cli
from twinscore.errors import InputError
from twinscore.experiments import capacity
from twinscore.experiments.trials import distinct
from twinscore.report import capacity as report
from twinscore.report import style
from twinscore.results.base import Interval
from twinscore.results.capacity import Cell


def spec(**changes):
    return capacity.Spec(**({"sizes": (2, 5), "test": 6, "samples": 5} | changes))


def trials(asked):
    capacity.check_images(asked)
    return capacity.trials(asked, lambda name, event: None)


def cell(critical, parameters, *, pixels=64, kind="unet", bound=100):
    beyond = critical if isinstance(critical, str) else None
    value = None if beyond else Interval(value=critical, low=critical / 2, high=2 * critical)
    common = {"name": "", "kind": kind, "parameters": parameters, "pixels": pixels}
    return Cell(**common, critical_n=value, beyond=beyond, bound=bound)


def test_axes_are_combined_and_a_bf_cnn_has_no_levels():
    asked = spec(widths=(4, 8), levels=(1, 2), kinds=("unet", "bf_cnn"), sides=(4, 8))
    cells = capacity.cells(asked)
    kinds = [c.network.model_dump()["kind"] for c in cells.values()]
    assert (kinds.count("unet"), kinds.count("bf_cnn")) == (8, 4)
    assert {c.data for c in cells.values()} == {"digits,size=4", "digits,size=8"}
    assert {c.network.model_dump().get("levels") for c in cells.values()} == {1, 2, None}
    assert len({json.dumps(c.model_dump(mode="json")) for c in cells.values()}) == len(cells)


def test_an_axis_without_values_stays_at_the_network():
    asked = spec(network={"kind": "unet", "width": 6, "levels": 1}, widths=(), levels=(1, 2))
    networks = [c.network.model_dump() for c in capacity.cells(asked).values()]
    assert [(n["width"], n["levels"]) for n in networks] == [(6, 1), (6, 2)]


def test_cells_share_splits_near_duplicates_and_seeds(monkeypatch):
    asked = spec(widths=(2, 4), sides=(4, 8), network={"levels": 1})
    distinct.cache_clear()
    found = trials(asked)
    assert distinct.cache_info().misses == 1  # of images before they are resized
    for other in found:
        [same] = [t for t in found[:4] if (t.n, t.twin, t.replicate) == (other.n, other.twin, 0)]
        np.testing.assert_array_equal(other.indices, same.indices)
        np.testing.assert_array_equal(other.test, same.test)
        assert other.seed == same.seed
    assert len({t.name for t in found}) == len(found) == capacity.STUDY.count(asked)


def test_images_that_are_others_at_another_size_are_refused():
    asked = spec(data="photos", widths=(), sides=(16, 32))
    with pytest.raises(InputError, match=r"^sides: .*size=16 has .* images, not the .* resized"):
        capacity.check_images(asked)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--widths", "4"], "widths, levels, kinds, sides: give at least two values in all"),
        (["--sides", "0", "8"], "--sides"),
        (["--kinds", "resnet"], "--kinds"),
        (["--widths", "0", "4"], "width"),
    ],
)
def test_bad_axes_are_one_line(tmp_path, capsys, words, message):
    assert cli.main(["capacity", *words, "--out", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_exponents_are_found_and_censored_cells_enter_as_bounds():
    """Critical N = parameters^0.5 with a little scatter."""
    scatter = np.exp(0.05 * np.array([1, -1, 1, -1, 1]))
    sizes = 10 ** np.arange(2, 7)
    cells = [cell(n**0.5 * s, n) for n, s in zip(sizes.tolist(), scatter, strict=True)]
    whole = capacity._exponent(cells, "parameters")
    assert whole.low < 0.5 < whole.high
    assert whole.value == pytest.approx(0.5, abs=0.02)
    cells[-1] = cell("above", 10**6, bound=400)
    censored = capacity._exponent(cells, "parameters")
    assert censored.low < 0.5 < censored.high
    ignored = capacity._exponent([*cells[:-1], cell(400, 10**6)], "parameters")
    assert ignored.value < censored.value - 0.02  # a bound taken for a value flattens the slope
    assert capacity._exponent(cells, "pixels") is None


def test_what_else_varies_is_fitted_with_an_exponent():
    """Critical N = parameters^0.5 pixels^1, larger networks at smaller images."""
    cells = [
        cell(p**0.5 * q * s, p, pixels=q)
        for p, q, s in zip(
            (10**4, 10**4, 10**5, 10**5, 10**6, 10**6),
            (256, 1024, 64, 256, 16, 64),
            np.exp(0.02 * np.array([1, -1, -1, 1, 1, -1])),
            strict=True,
        )
    ]
    assert capacity._exponent(cells, "parameters").value == pytest.approx(0.5, abs=0.05)
    assert capacity._exponent(cells, "pixels").value == pytest.approx(1, abs=0.1)


def test_too_few_critical_n_are_said_to_be_too_few():
    cells = [cell(10, 100), cell(20, 1000), cell("above", 10**4), cell("below", 10)]
    found = capacity._exponent(cells, "parameters")
    assert (found.value, found.low, found.high) == (None, None, None)
    assert "too few critical N" in found.text()
    assert cells[2].text() == "> 100"
    assert cells[3].text() == "< 100"


def test_the_shipped_spec_is_read(capsys):
    assert cli.main(["capacity", "--spec", "quick-capacity", "--print-spec"]) == 0
    assert "sides:\n- 4\n- 8\n" in capsys.readouterr().out


def test_nothing_is_drawn_where_no_critical_n_is_known():
    """Logarithmic axes without a point cannot be drawn."""
    cell = SimpleNamespace(critical_n=None, beyond=None)
    run = SimpleNamespace(result=SimpleNamespace(cells=[cell, cell]))
    assert report.growth.draw(run, None) is None


def test_a_known_critical_n_and_a_bound_are_drawn():
    """A point with its bar for what is known, an arrow for what lies beyond the sizes tried."""
    cells = [cell(30, 1000), cell("above", 4000)]
    run = SimpleNamespace(result=SimpleNamespace(cells=cells))
    with style.applied("light") as theme:
        (axes,) = report.growth.draw(run, theme).axes
    assert [text.get_text() for text in axes.texts] == ["↑"]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(map(float, line.get_xydata().ravel())) for line in points] == [
        pytest.approx([1000 / 1.05**0.5, 30])
    ]
