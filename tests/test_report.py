"""The report is drawn from a run folder alone, and shows no images when told not to."""

import base64
import hashlib
import html as html_module
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save

from twinscore import environment, sealed
from twinscore.denoisers import NetworkSpec, checkpoint
from twinscore.errors import InputError
from twinscore.experiments.transition import Spec, run
from twinscore.report import page, pictures, reading, style, transition
from twinscore.report.content import HOLDS, HOLDS_NOT
from twinscore.runs import write_json
from twinscore.sampling import SamplingSpec
from twinscore.training import TrainingSpec

SPEC = Spec(
    sizes=(10, 400),
    test=16,
    samples=40,
    network=NetworkSpec(width=2, levels=1),
    training=TrainingSpec(steps=4, batch=2, evaluations=2),
    sampling=SamplingSpec(steps=2),
)
DRAWN = ["denoising", "samples", "histograms", "verdict", "similarity", "twins_kl", "training"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        run(SPEC, folder, device="cpu")
    change(folder, "environment.json", wall_seconds=492.4)
    return folder


@pytest.fixture(scope="module")
def written(finished):
    return page.write(finished)


@pytest.fixture
def folder(finished, tmp_path):
    drawn = shutil.ignore_patterns("report.html", "figures")
    return shutil.copytree(finished, tmp_path / "run", ignore=drawn)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the encoding of figures out, which takes seconds, where only the words matter."""
    monkeypatch.setattr(style, "settle", lambda figure: figure)
    monkeypatch.setattr(style, "svg", lambda figure, theme: b"svg")
    monkeypatch.setattr(style, "png", lambda figure: b"png")
    monkeypatch.setattr(style, "pdf", lambda figure: b"pdf")


def change(folder, name="result.json", **fields):
    value = json.loads((folder / name).read_text())
    write_json(folder / name, value | fields)


def put_arrays(folder, arrays):
    seal = sealed.write_arrays(folder / "arrays.safetensors", arrays)
    change(folder, arrays=seal)


def trial(folder):
    return next(folder.glob("trials/n00010-a-*"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)


def viewer_data(text):
    found = re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', text)
    return json.loads(found[1])


def test_denoising_curves_are_those_of_the_result(finished, undrawn):
    figure = page.figures(finished)["denoising"]
    levels = json.loads((finished / "result.json").read_text())["levels"]
    for axes, part in zip(figure.axes, ("train", "test"), strict=True):
        for line, level in zip(axes.lines, levels, strict=False):
            order = np.argsort(level["psnr"]["sigma"])
            inputs = -20 * np.log10(np.array(level["psnr"]["sigma"])[order])
            np.testing.assert_allclose(line.get_xdata(), inputs)
            np.testing.assert_allclose(line.get_ydata(), np.array(level["psnr"][part])[order])
    identity = figure.axes[0].lines[len(levels)]
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())


def test_histograms_count_every_sample_also_just_above_one(folder, undrawn):
    arrays = load_file(folder / "arrays.safetensors")
    name = "n00010/nearest_similarity_a"
    arrays[name] = np.full_like(arrays[name], 1 + 1e-6)
    put_arrays(folder, arrays)
    axes = page.figures(folder)["histograms"].axes[0]
    label = "sample of A to nearest in A"
    outline = next(patch for patch in axes.patches if patch.get_label() == label)
    assert outline.get_xy()[:, 1].max() == pytest.approx(1)


def test_write_leaves_one_page_and_every_figure_as_pdf_and_png(finished, written):
    assert written == finished / "report.html"
    names = sorted(path.name for path in (finished / "figures").iterdir())
    assert names == sorted(f"{n}.{kind}" for n in DRAWN for kind in ("pdf", "png"))
    assert (finished / "figures/denoising.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(finished / "figures/denoising.png") as png:
        assert png.width == 1400


def test_page_needs_nothing_else(written):
    text = written.read_text()
    links = re.findall(r'(?:src|srcset|href|action)\s*=\s*"([^"]*)"', text)
    assert len(links) == 12
    assert all(link.startswith("data:") for link in links)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    script = re.search(r"<script>(.*?)</script>\n</body>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_page_puts_the_verdict_first_and_a_row_for_each_size(finished, written):
    text = written.read_text()
    verdict = json.loads((finished / "result.json").read_text())["verdict"]
    assert f"<h1>{verdict}</h1>" in text
    assert text.index("<h1>") < text.index("<table")
    assert re.findall(r'<th scope="row">([\d,]+)</th>', text)[:2] == ["10", "400"]
    assert HOLDS in text
    assert "8 min 12 s" in text
    assert "unfinished" not in text.split("</style>")[1]


def test_viewer_holds_the_samples_and_their_neighbours(finished, written):
    strips = viewer_data(written.read_text())["strips"]
    arrays = load_file(finished / "arrays.safetensors")
    encoded = strips[1]["sheet"].removeprefix("data:image/png;base64,")
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(encoded))))
    for column, name in enumerate(("nearest_a", "samples_a", "samples_b", "nearest_b")):
        tile = sheet[8 * 5 : 8 * 6, 8 * column : 8 * column + 8]
        image = arrays[f"n00400/{name}"][5, 0].clip(0, 1)
        np.testing.assert_array_equal(tile, np.rint(255 * image))
    twins = arrays["n00400/twin_similarity"][0, 5]
    assert strips[1]["between"][5][1] == f"↔ {twins:.2f}".replace("-", "−")


def test_strip_keeps_colours_and_leaves_transparent_gaps():
    red, blue = np.zeros((2, 3, 2, 2), dtype=np.float32)
    red[0], blue[2] = 1, 2
    row = pictures.strip([red, blue])[0].tolist()
    full = [[255, 0, 0, 255]] * 2 + [[0, 0, 0, 0]] + [[0, 0, 255, 255]] * 2
    assert row == full


def test_large_images_get_fewer_seeds(folder, undrawn):
    arrays = load_file(folder / "arrays.safetensors")
    grown = {
        name: np.zeros((*array.shape[:2], 512, 512), np.float32) if array.ndim == 4 else array
        for name, array in arrays.items()
        if name.startswith("n00010/")
    }
    put_arrays(folder, grown)
    assert len(transition.samples.viewer(reading.read(folder)).labels) == 4


def test_without_images_none_is_read_or_left(folder, undrawn, monkeypatch):
    read = []
    array = reading.Run.array
    monkeypatch.setattr(
        reading.Run,
        "array",
        lambda run, name, first=None: read.append(name) or array(run, name, first),
    )
    (folder / "figures").mkdir()
    for stale in ("samples.png", "samples.pdf", ".twinscore-tmp-7-samples.png"):
        (folder / "figures" / stale).write_bytes(b"images")
    text = page.write(folder, images=False).read_text()
    kept = {"twin_similarity", "nearest_similarity_a", "nearest_similarity_b"}
    kept |= {"closest_pairs", "held_out_nearest"}
    assert {name.partition("/")[2] for name in read} == kept
    assert not any("samples" in path.name for path in (folder / "figures").iterdir())
    assert HOLDS_NOT in text
    assert HOLDS not in text
    assert "image/png" not in text
    assert "<canvas" not in text


def test_figures_are_the_same_bytes_every_time(finished, written):
    figure = page.figures(finished)["similarity"]
    stored = finished / "figures"
    assert style.png(figure) == (stored / "similarity.png").read_bytes()
    assert style.pdf(figure) == (stored / "similarity.pdf").read_bytes()


def test_foreign_words_are_escaped(folder, undrawn):
    evil = "</script><script>alert(1)</script>"
    data = json.loads((folder / "result.json").read_text())["data"]
    change(folder, verdict=evil, data=data | {"source": evil}, missing=[evil])
    change(folder, "spec.json", data=evil)
    text = page.write(folder).read_text()
    assert evil not in text
    assert html_module.escape(evil) in text


def test_before_the_first_result_there_is_the_history(folder, undrawn):
    for name in ("result.json", "arrays.safetensors"):
        (folder / name).unlink()
    weights = trial(folder) / "weights.safetensors"
    rows = checkpoint.recorded(weights)[:-1]
    header = {"twinscore": json.dumps({"history": rows})}
    sealed.write(trial(folder) / "resume.safetensors", save({}, header), "")
    weights.unlink()
    assert list(page.figures(folder)) == ["training"]
    text = page.write(folder).read_text()
    assert "No part of this run is finished yet." in text
    assert f"trial {trial(folder).name}: stopped at step 2 of 4" in text


def test_unfinished_run_draws_what_is_there_and_names_the_rest(folder, undrawn):
    levels = json.loads((folder / "result.json").read_text())["levels"]
    unfinished = {"complete": False, "missing": ["N = 400"], "twins_kl": []}
    change(folder, levels=levels[:1], critical_n=None, **unfinished)
    change(folder, "spec.json", sizes=[10, 400, 500])
    assert list(page.figures(folder)) == [name for name in DRAWN if name != "twins_kl"]
    words = transition.content(reading.read(folder))
    assert words.missing == ("N = 500: no result yet",)
    assert [row[0].text for row in words.table.rows] == ["10"]
    text = page.write(folder).read_text()
    assert "This run is unfinished." in text
    assert re.findall("<li>(N = [45]00.*)</li>", text) == ["N = 400", "N = 500: no result yet"]


def test_levels_without_arrays_lose_only_the_figures_that_need_them(folder, undrawn):
    (folder / "arrays.safetensors").unlink()
    assert list(page.figures(folder)) == [
        "denoising",
        "verdict",
        "similarity",
        "twins_kl",
        "training",
    ]
    missing = transition.content(reading.read(folder)).missing
    assert sum("arrays.safetensors" in line for line in missing) == 2


def test_what_a_level_may_lack_and_the_critical_size_are_drawn(folder, undrawn):
    levels = json.loads((folder / "result.json").read_text())["levels"]
    levels[0]["memorised_fraction"] = {"a": None, "b": None}
    levels[0] |= {"agreement": None, "excess": None, "alike": None}
    levels[0]["learned"] |= {"gain_db": None, "samples": None}
    levels[0]["warnings"] = ["N = 10: 3 samples of B did not converge"]
    change(folder, levels=levels, critical_n={"value": 300, "low": 100, "high": None})
    words = transition.content(reading.read(folder))
    assert [words.table.rows[0][k].text for k in (3, 6)] == ["–", "–"]
    assert words.facts[0] == ("Critical N", "300 [100, open]")
    assert "N = 10: 3 samples of B did not converge." in words.notes
    assert {"verdict", "similarity"} <= page.figures(folder).keys()


def test_a_folder_of_before_is_drawn_as_far_as_it_goes(folder, undrawn):
    """Of schema 2: without what its rule did not need, and with what this one has no use for."""
    new = ("why", "memorisation", "agreement", "alike", "excess", "copies", "learned")
    levels = json.loads((folder / "result.json").read_text())["levels"]
    for level in levels:
        for name in (*new, "control_fraction", "psnr_gap"):
            del level[name]
        level |= {"verdict": "generalises", "plausible": True}
    critical = {"value": 300, "low": 100, "high": 350, "method": "bootstrap", "covers": "samples"}
    change(folder, schema_version=2, levels=levels, critical_n=critical)
    spec = json.loads((folder / "spec.json").read_text())
    del spec["thresholds"]
    write_json(folder / "spec.json", spec | {"schema_version": 2})
    words = transition.content(reading.read(folder))
    assert [cell.text for cell in words.table.rows[0]] == ["10", "generalises", *"––––––"]
    assert words.facts[0] == ("Critical N", "300 [100, 350]")
    assert sum("run the same command again to judge it anew" in note for note in words.notes) == 1
    assert list(page.figures(folder)) == [name for name in DRAWN if name != "verdict"]
    assert reading.read(folder).result.table().splitlines()[1].split()[1:] == [
        "generalises",
        *"------",
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "not a run folder"),
        (lambda f: (f / "spec.json").unlink(), "lacks spec.json"),
        (lambda f: (f / "result.json").write_text('{"levels": ['), "result.json: cannot be read"),
        (lambda f: (f / "spec.json").write_text("[]"), "spec.json: .*it is not a JSON object"),
        (lambda f: change(f, schema_version=4), "result.json: schema_version 4 is newer"),
        (lambda f: change(f, study="astrology"), "unknown study 'astrology'.*transition"),
        (lambda f: change(f, levels=[{"n": 10}]), r"result.json: levels.0.verdict: Field required"),
        (lambda f: (f / "arrays.safetensors").write_bytes(b"no"), "arrays.safetensors: cannot be"),
        (
            lambda f: flip(trial(f) / "weights.safetensors"),
            "weights.safetensors: was changed after",
        ),
    ],
)
def test_damaged_folders_are_named_in_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        page.write(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()


OLD = b"step,train_loss\n2,0.5\n4,0.25\n"


@pytest.mark.parametrize(
    ("content", "steps"),
    [
        (OLD, [2, 4]),
        (OLD[:-2], [2, 4]),
        (OLD[:-5], [2, 4]),
        (OLD[:-6], [2]),  # the last row was being written
        (b"", []),
        (OLD.replace(b"0.5", b"0.\xff"), None),
        (OLD.replace(b"2,0.5", b"2"), None),
        (OLD.replace(b"2,0.5", b"2,x"), None),
        (b"\n" + OLD, None),
    ],
)
def test_histories_of_earlier_versions_are_read_or_named_in_one_line(folder, content, steps):
    """They have no checksum, and a table instead of rows in the weights."""
    (trial(folder) / "weights.safetensors").unlink()
    path = trial(folder) / "history.csv"
    path.write_bytes(content)
    if steps is None:
        with pytest.raises(InputError, match=r"^[^\n]*history.csv: cannot be read \([^\n]*\); run"):
            _ = reading.read(folder).histories
    else:
        found = {each.name: each.columns for each in reading.read(folder).histories}
        assert list(found[path.parent.name].get("step", [])) == steps


@pytest.mark.parametrize("header", ["[]", "{", '{"history": 3}', '{"history": [{"step": "x"}]}'])
def test_a_damaged_header_of_an_earlier_version_is_named_in_one_line(folder, header):
    weights = trial(folder) / "weights.safetensors"
    weights.write_bytes(save({}, {"twinscore": header}))
    with pytest.raises(
        InputError, match=r"weights.safetensors: cannot be read \([^\n]*\); run the"
    ):
        _ = reading.read(folder).histories


def test_failure_to_write_leaves_nothing_half_written(folder, undrawn, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        page.write(folder)
    assert list((folder / "figures").iterdir()) == []


def test_report_does_without_torch():
    check = "import sys, twinscore.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_page_fits_a_phone_and_the_slider_moves(finished, written, tmp_path):
    probe = """<!doctype html><body><iframe width=390 height=800 srcdoc="%s"></iframe><script>
    onload = () => setTimeout(() => {
      const inner = document.querySelector("iframe").contentDocument;
      const root = inner.documentElement;
      const label = inner.getElementById("viewer-label");
      const pixels = () => inner.querySelectorAll("canvas")[1].toDataURL();
      const first = [label.textContent, pixels()];
      const press = (key) => inner.body.dispatchEvent(
        new inner.defaultView.KeyboardEvent("keydown", {key, bubbles: true}));
      press("ArrowRight"); press("ArrowRight"); press("ArrowLeft"); press("ArrowRight");
      const moved = label.textContent;
      const slider = inner.getElementById("viewer-slider");
      slider.value = 39; slider.dispatchEvent(new Event("input"));
      document.title = JSON.stringify({overflow: root.scrollWidth - root.clientWidth,
        first: first[0], moved, last: label.textContent, drawn: pixels() !== first[1]});
    }, 500);</script>"""
    wrapper = tmp_path / "phone.html"
    wrapper.write_text(probe % html_module.escape(written.read_text()))
    dom = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=4000",
            "--dump-dom",
            wrapper.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    found = json.loads(html_module.unescape(re.search(r"<title>(\{.*?\})</title>", dom)[1]))
    seeds = load_file(finished / "arrays.safetensors")["n00010/noise_seeds"]
    assert found == {
        "overflow": 0,
        "first": f"1 of 40, noise seed {seeds[0]}",
        "moved": f"3 of 40, noise seed {seeds[2]}",
        "last": f"40 of 40, noise seed {seeds[39]}",
        "drawn": True,
    }
