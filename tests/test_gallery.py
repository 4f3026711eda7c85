"""The gallery's scripts, run to their end with budgets that are small."""

import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
SMALL = {
    "plot_twins": {"STEPS": 3, "SAMPLES": 8, "MANY": 20},
    "plot_harmonics": {"STEPS": 2},
    "plot_audit_diffusers": {"STEPS": 3},
    "plot_own_network": {"STEPS": 3, "SAMPLES": 8, "MANY": 20},
    "plot_known_optimum": {"STEPS": 2},
    "plot_papers_figures": {"SIZES": (16, 32), "REPLICATES": 2},
}


def test_every_script_is_run():
    assert {path.stem for path in GALLERY.glob("plot_*.py")} == SMALL.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_scripts_run_to_their_end(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = GALLERY / f"{name}.py"
    code = _shrunk(path.read_text(encoding="utf-8"), SMALL[name])
    matplotlib.use("agg")
    exec(compile(code, path, "exec"), {"__name__": "__main__"})
    plt.close("all")


def _shrunk(code, small):
    """The script, with other values after the lines that set these constants."""
    ends = [re.search(rf"^(?:\w+, )*{name}\b.* = .*$", code, flags=re.M).end() for name in small]
    values = "".join(f"\n{name} = {value!r}" for name, value in small.items())
    return code[: max(ends)] + values + code[max(ends) :]
