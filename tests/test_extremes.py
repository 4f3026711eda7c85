"""What a transition says of the bases at its two ends: cheap, and added to runs that lack it."""

import json
import re
import shutil

import pytest
import yaml

from twinscore import cli, environment, runs
from twinscore.analysis import eigenbasis
from twinscore.denoisers import NetworkSpec
from twinscore.experiments import comparison, extremes, harmonics, transition
from twinscore.report import page, reading, style, transition_content
from twinscore.report.content import HOLDS, HOLDS_NOT
from twinscore.sampling import SamplingSpec
from twinscore.training import TrainingSpec

SPEC = transition.Spec(
    sizes=(2, 3, 5),
    test=4,
    samples=4,
    network=NetworkSpec(width=2, levels=1),
    training=TrainingSpec(steps=4, batch=2, evaluations=1),
    sampling=SamplingSpec(steps=2),
)
VERDICTS = {2: "memorises", 3: "transition", 5: "generalises"}


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """Verdicts that networks of a few steps do not earn; one core; figures are not encoded."""
    compare = comparison.compare

    def compared(*arguments):
        level, *rest = compare(*arguments)
        return level.model_copy(update={"verdict": VERDICTS[level.n]}), *rest

    monkeypatch.setattr(comparison, "compare", compared)
    monkeypatch.setattr(environment, "available_cores", lambda: 1)
    monkeypatch.setattr(style, "settle", lambda figure: figure)
    for kind in ("svg", "png", "pdf"):
        monkeypatch.setattr(style, kind, lambda *_: b"")


def test_both_ends_are_shown_at_one_test_image(tmp_path):
    done = transition.run(SPEC, tmp_path, device="cpu")
    section = done.result.harmonics
    index = json.loads((tmp_path / section.folder / "spec.json").read_text())["index"]
    rows = (tmp_path / "images.csv").read_text().splitlines()
    assert rows[1 + index].endswith(",test")
    assert section.sentence.startswith(f"Of the 64 directions at test image {index}, σ = 0.2 (")
    assert "at N = 2 the network" in section.sentence
    assert "at N = 5 the network" in section.sentence
    assert done.result.table().splitlines()[-1] == section.sentence
    figures = page.figures(tmp_path)
    assert [axes.get_title() for axes in figures["spectrum"].axes] == ["N = 2", "N = 5"]
    tiles = [axes.get_title() for axes in figures["harmonics"].axes]
    assert tiles[:4] == ["clean", "noisy", "N = 2", "1"]
    assert "harmonics" not in page.figures(tmp_path, images=False)

    html = page.write(tmp_path).read_text()
    for name, inside in re.findall(r'<figure id="(\w+)">(.*?)</figure>', html, flags=re.S):
        assert "<picture>" in inside or 'id="viewer"' in inside, name
        assert (section.sentence in inside) == (name == "harmonics")
    assert re.findall(r'href="([^"]*)"', html) == [f"{section.folder}/report.html"]

    trials = {p: p.stat().st_mtime_ns for p in tmp_path.glob("trials/*/*.safetensors")}
    written = (tmp_path / "result.json").read_bytes()
    shutil.rmtree(tmp_path / "harmonics")
    old = json.loads(written)
    del old["harmonics"]
    runs.write_json(tmp_path / "result.json", old)
    assert "spectrum" not in page.figures(tmp_path)  # a run of before, drawn as far as it goes
    transition.run(SPEC, tmp_path, device="cpu")
    assert (tmp_path / "result.json").read_bytes() == written
    assert {p: p.stat().st_mtime_ns for p in trials} == trials


def test_bounds_are_called_so(tmp_path, monkeypatch):
    monkeypatch.setattr(eigenbasis, "DENSE", 63)
    spec = harmonics.Spec(
        model="gaussian:digits",
        against="gaussian:digits",
        names=("N = 2", "N = 5"),
        vectors=6,
        sigma=0.1,
        sigmas=(0.1,),
        draws=2,
    )
    found = harmonics.run(spec, tmp_path / "run", device="cpu").result
    said = extremes._sentence(found)
    assert said.count("the network keeps at least 6, which hold at least ") == 2


def test_both_commands_write_the_page_of_the_bases_and_link_to_it(tmp_path):
    spec, out = tmp_path / "spec.yaml", tmp_path / "run"
    spec.write_text(yaml.safe_dump(SPEC.model_dump(mode="json")))
    command = ["transition", "--spec", str(spec), "--out", str(out), "--device", "cpu"]
    assert cli.main([*command, "--no-images"]) == 0
    folder = json.loads((out / "result.json").read_text())["harmonics"]["folder"]
    link = f'<a href="{folder}/report.html">The bases of N = 2 and N = 5 at test image '

    def check(*, images):
        outer, inner = (path / "report.html" for path in (out, out / folder))
        assert link in outer.read_text()
        assert ("every eigenvector, with a slider" in outer.read_text()) == images
        for html in (outer.read_text(), inner.read_text()):
            assert (HOLDS if images else HOLDS_NOT) in html
            assert ('id="viewer-data"' in html) == images
        drawn = {"spectrum", "coefficients"} | ({"images", "eigenvectors"} if images else set())
        assert {path.stem for path in (out / folder / "figures").iterdir()} == drawn

    check(images=False)
    (out / folder / "report.html").unlink()
    assert cli.main(["report", str(out)]) == 0
    check(images=True)
    assert cli.main(["report", str(out), "--no-images"]) == 0
    check(images=False)


def test_a_run_without_both_ends_has_none(tmp_path):
    done = transition.run(SPEC.model_copy(update={"sizes": (2, 3)}), tmp_path, device="cpu")
    assert done.result.harmonics is None
    assert not (tmp_path / "harmonics").exists()
    assert "spectrum" not in page.figures(tmp_path)
    assert transition_content.content(reading.read(tmp_path)).parts == ()
