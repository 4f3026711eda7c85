"""What every study must do: run, resume, extend, refuse, estimate, report."""

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits

import twinscore as ts
from twinscore import cli, runs
from twinscore.denoisers import Checkpoint, NetworkSpec, build, save
from twinscore.errors import InputError
from twinscore.report import page, reading, style
from twinscore.report.content import HOLDS_NOT
from twinscore.results import studies
from twinscore.training import memory
from words import last_of_each

pytestmark = pytest.mark.usefixtures("cheap")

NET = ("--network.width", "2", "--network.levels", "1")
STEPS = ("--training.steps", "4", "--training.batch", "4", "--training.evaluations", "1")
TRAINED = (*NET, *STEPS)
DRAWN = (*TRAINED, "--sampling.steps", "2")
WORDS = {
    "audit": (
        *("--samples", "discs:size=8,count=40,seed=1", "--train", "discs:size=8,count=50,seed=1"),
        *("--held-out", "discs:size=8,count=50,seed=2", "--duplicates", "0.999"),
    ),
    "capacity": (
        *("--widths", "1", "2", "3", "--sizes", "2", "5", "--test", "6", "--samples", "5"),
        *("--network.levels", "1", *STEPS, "--sampling.steps", "2"),
    ),
    "check_model": (
        *(
            "--model",
            "gaussian:digits",
            "--data",
            "digits",
            "--images",
            "2",
            "--sigmas",
            "0.1",
            "1",
        ),
    ),
    "clusters": (
        *("--clusters", "12", "--n", "4", "--test", "4", "--samples", "3", "--replicates", "2"),
        *("--duplicate-threshold", "1", "--likelihood.images", "2", "--likelihood.steps", "2"),
        *("--likelihood.probes", "1", *DRAWN),
    ),
    "duplicates": ("--threshold", "0.98"),
    "explain": (
        *("--model", "MODEL", "--train", "discs:size=8,count=12,seed=1", "--images", "3"),
        *("--held-out", "discs:size=8,count=9,seed=2", "--samples", "3", "--steps", "3"),
        *("--sigmas", "0.1", "0.5", "--patch", "3"),
    ),
    "harmonics": (
        *("--model", "MODEL", "--vectors", "4", "--sigmas", "0.1", "0.4", "--draws", "4"),
    ),
    "manifold": (
        *("--size", "8", "--radius", "1.5", "3.0", "--n", "12", "--test", "4", "--exact", "0"),
        *("--bases", "1", "--levels", "4", "20", *TRAINED),
    ),
    "mixture": (
        *("--sizes", "16", "32", "64", "--widths", "8", "12", "16", "--tau-count", "4"),
        *("--replicates", "2", "--tolerance", "0.1", "--shift.distances", "1"),
        *("--shift.watched", "1", "--shift.weights", "0.1", "--shift.width", "8"),
        *("--shift.samples", "64", "--shift.replicates", "2", "--twins.width", "8"),
        *("--twins.count", "3", "--twins.replicates", "2"),
    ),
    "regularity": (
        *("--alphas", "1", "3", "--generators", "regularity", "--size", "16", "--test", "5"),
        *("--levels", "10", "20", "30", "--fit-range", "10", "30", "--eigenvectors", "3"),
        *("--network.kind", "bf_cnn", "--network.width", "2", "--network.layers", "2", *STEPS),
    ),
    "restore": (
        *("--model", "gaussian:digits", "--image", "IMAGE", "--samples", "2", "--steps", "4"),
    ),
    "shuffled": ("--data", "digits", "--n", "32", "--test", "8", "--replicates", "2", *TRAINED),
    "transition": ("--sizes", "2", "5", "--test", "6", "--samples", "5", *DRAWN),
}
"""The quickest run of each study; a study that is not here fails the tests."""
SHORTER = {
    "audit": ("--q", "0.2"),
    "capacity": ("--widths", "1", "2"),
    "regularity": ("--alphas", "1"),
    "transition": ("--sizes", "2"),
}
"""What, said after those words, leaves out a part with which the run can be extended, or asks for
another summary of the same work."""
NOT_SAME = (".lock", "environment.json", "log.txt", "report.html", "figures", "resume.safetensors")


def test_a_quickest_run_is_known(study):
    assert study in WORDS
    extendable = import_module(f"twinscore.experiments.{study}").STUDY.extendable
    assert bool(extendable) == (study in SHORTER)


@pytest.fixture(scope="module", params=sorted(studies()))
def study(request):
    """The name of each study in turn; its tests follow one another, and share a finished run."""
    return request.param


@pytest.mark.parametrize(
    ("room", "never"), [("results", ("torch", "matplotlib")), ("experiments", ("matplotlib",))]
)
def test_results_and_workers_start_light(room, never):
    code = (
        "import importlib, sys\n"
        f"for name in {sorted(studies())}: importlib.import_module(f'twinscore.{room}.{{name}}')\n"
        f"sys.exit(any(name in sys.modules for name in {never}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model and a picture."""
    folder = tmp_path_factory.mktemp("inputs")
    spec = NetworkSpec(width=2, levels=1)
    model = Checkpoint(build(spec, 1, seed=0).eval(), (1, 8, 8), (0.3,))
    save(folder / "model.safetensors", model, spec)
    digit = (load_digits().images[0] * 255 / 16).astype(np.uint8)
    Image.fromarray(digit).save(folder / "image.png")
    return {"MODEL": str(folder / "model.safetensors"), "IMAGE": str(folder / "image.png")}


@pytest.fixture
def twinscore(inputs, capfd):
    """Run a study by the command line: exit code, what it printed, its errors."""

    def call(study, out, *more):
        words = [inputs.get(word, word) for word in WORDS[study]]
        machine = import_module(f"twinscore.experiments.{study}").STUDY.machine
        words += ["--device", "cpu"] if "device" in machine and "--device" not in more else []
        code = cli.main(last_of_each([study, *words, *more, "--out", str(out)]))
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


FINISHED = {}


@pytest.fixture
def finished(study, twinscore, tmp_path_factory):
    """A finished run of the study: its folder, and what was printed."""
    if study not in FINISHED:
        folder = tmp_path_factory.mktemp(study) / "run"
        code, said, errors = twinscore(study, folder)
        assert code == 0, errors
        FINISHED[study] = folder, said
    return FINISHED[study]


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "run", copy_function=shutil.copy2)


def contents(folder):
    """Bytes of every file of a run that must not change; histories without their seconds."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if not path.is_file() or any(part in name for part in NOT_SAME):
            continue
        found[name] = path.read_bytes()
        if path.name == "history.csv":
            rows = list(csv.DictReader(path.read_text().splitlines()))
            found[name] = [row | {"seconds": None} for row in rows]
    return found


def kept(folder):
    """When the weights and measures of its tasks were written."""
    return {p: p.stat().st_mtime_ns for p in (folder / "trials").rglob("*.safetensors")}


def test_a_run_holds_its_result_and_prints_it(study, finished):
    folder, said = finished
    run = reading.read(folder)
    assert run.study == study
    assert run.result.complete
    assert run.result.missing == []
    assert said.startswith(f"{run.result.verdict}\n{run.result.table()}\n")
    assert said.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert "NaN" not in (folder / "result.json").read_text()


def test_run_again_it_does_nothing_again(study, finished, copied, twinscore):
    before, times = contents(copied), kept(copied)
    code, said, _ = twinscore(study, copied)
    assert code == 0
    assert said.splitlines()[:-1] == finished[1].splitlines()[:-1]
    assert contents(copied) == before
    assert kept(copied) == times
    assert times, "nothing was kept"


def test_what_is_lost_is_made_again_with_the_same_bytes(study, finished, copied, twinscore):
    before = contents(copied)
    for name in ("result.json", "arrays.safetensors"):
        (copied / name).unlink()
    first = sorted((copied / "trials").iterdir())[0]
    shutil.rmtree(first) if first.is_dir() else first.unlink()
    assert twinscore(study, copied)[0] == 0
    assert contents(copied) == before


def test_stopped_and_continued_it_ends_the_same(study, finished, tmp_path, twinscore, monkeypatch):
    module = import_module("twinscore.experiments.study")
    run_tasks = module.run_tasks

    def stopped_after_the_first(*arguments, **options):
        outcomes = run_tasks(*arguments, **options)
        yield next(outcomes)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_tasks", stopped_after_the_first)
        code, _, errors = twinscore(study, tmp_path / "run")
    assert code == 130
    assert "continue with: twinscore" in errors
    assert twinscore(study, tmp_path / "run")[0] == 0
    assert contents(tmp_path / "run") == contents(finished[0])


def test_extended_it_ends_like_a_run_of_the_whole(study, finished, tmp_path, twinscore):
    if study not in SHORTER:
        pytest.skip("cannot be extended")
    assert twinscore(study, tmp_path / "run", *SHORTER[study])[0] == 0
    times = kept(tmp_path / "run")
    assert twinscore(study, tmp_path / "run")[0] == 0
    assert {path: kept(tmp_path / "run")[path] for path in times} == times
    assert contents(tmp_path / "run") == contents(finished[0])
    code, _, errors = twinscore(study, tmp_path / "run", *SHORTER[study])
    parts = [name for name in SHORTER[study] if name.startswith("--")]
    assert code == (0 if parts == ["--q"] else 2)
    assert code == 0 or len(errors.splitlines()) == 1


def test_another_spec_does_not_touch_the_folder(study, finished, copied, twinscore):
    before = contents(copied)
    other = ("--threshold", "0.97") if study == "duplicates" else ("--seed", "1")
    code, said, errors = twinscore(study, copied, *other)
    assert (code, said) == (2, "")
    assert re.fullmatch(r"twinscore: .*holds a run of another spec \(differs in .*\n", errors)
    assert contents(copied) == before


def test_what_does_not_fit_the_memory_is_refused(study, tmp_path, twinscore, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    code, said, errors = twinscore(study, tmp_path / "run")
    assert (code, said) == (2, "")
    assert re.fullmatch(r"twinscore: .*GB.*\n", errors)
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_is_printed_and_nothing_written(study, tmp_path, finished, twinscore):
    code, said, errors = twinscore(study, tmp_path / "run", "--estimate")
    assert (code, errors) == (0, "")
    assert re.fullmatch(r"\d.*: about .* of memory and .* of disk\n", said)
    assert list(tmp_path.iterdir()) == []
    log = (finished[0] / "log.txt").read_text()
    assert re.search(r"^estimate: \d.*: about .* of memory and .* of disk$", log, flags=re.M)
    code, said, _ = twinscore(study, finished[0], "--estimate")
    assert (code, said.startswith("nothing left to do")) == (0, True)


def test_the_report_leaves_images_out_when_asked(study, copied):
    drawings = page._drawings(study)
    showing = {name for name, drawing in drawings.items() if drawing.images}
    text = page.write(copied).read_text()
    drawn = set(re.findall(r'<figure id="(\w+)">', text))
    assert drawn or study == "capacity"  # whose short run knows no critical N to draw
    assert {path.stem for path in (copied / "figures").iterdir()} == drawn
    assert ("<img" in text) == bool(drawn)
    text = page.write(copied, images=False).read_text()
    assert set(re.findall(r'<figure id="(\w+)">', text)) == drawn - showing
    assert {path.stem for path in (copied / "figures").iterdir()} == drawn - showing
    assert HOLDS_NOT in text
    assert "<canvas" not in text


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_its_figures_are_given_as_matplotlibs(study, finished, theme):
    showing = {name for name, drawing in page._drawings(study).items() if drawing.images}
    found = ts.figures(finished[0], theme=theme)
    assert all(isinstance(figure, Figure) and figure.axes for figure in found.values())
    assert found or study == "capacity"  # whose short run knows no critical N to draw
    paper = {figure.get_facecolor() for figure in found.values()}
    assert paper <= {to_rgba(style.THEMES[theme].paper)}
    assert set(ts.figures(str(finished[0]), images=False)) == set(found) - showing
    assert plt.get_fignums() == []


def test_its_figures_are_listed_in_the_docs(study):
    text = (Path(__file__).parents[1] / "docs" / "figures.md").read_text()
    rows = re.findall(rf"^\| `{study}` \| `(\w+)` \| (.+?) \| (yes)? *\|$", text, flags=re.M)
    expected = [
        (name, drawing.draw.__doc__.strip().splitlines()[0], "yes" if drawing.images else "")
        for name, drawing in page._drawings(study).items()
    ]
    assert rows == expected


def test_a_theme_that_is_not_one_is_refused(finished):
    with pytest.raises(InputError, match="theme: give one of light, dark; got 'sepia'"):
        ts.figures(finished[0], theme="sepia")


def test_a_run_is_not_taken_for_a_model_nor_a_model_for_a_run(finished, tmp_path, capfd):
    """Each is answered with what to give instead, which then serves."""
    folder = finished[0]
    models = sorted(path.parent for path in folder.glob("trials/*/weights.safetensors"))
    words = ["sample", "--count", "1", "--sampling.steps", "1", "--out", str(tmp_path / "x.png")]
    assert cli.main([*words, "--model", str(folder)]) == 2
    said = capfd.readouterr().err
    start = f"twinscore: {folder}: a run folder, not a model; give "
    assert said.startswith(start)
    assert said.count("\n") == 1
    if models:
        instead = said.removeprefix(f"{start}one of its models, such as ").strip()
        assert cli.main([*words, "--model", instead]) == 0
        capfd.readouterr()
        assert cli.main(["report", instead]) == 2
        said = capfd.readouterr().err
        assert said.startswith(f"twinscore: {instead}: a model, which has no report; give its run")
        assert str(folder) in said.partition("give its run folder, ")[2]
        assert said.count("\n") == 1


def test_a_path_that_is_not_utf8_is_refused_at_the_start(study, finished, tmp_path, twinscore):
    code, said, errors = twinscore(study, tmp_path / "caf\udce9")
    assert (code, said) == (2, "")
    assert re.fullmatch(r"twinscore: --out: '.*caf\\udce9' is not UTF-8; .*\n", errors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_terminal_that_knows_ascii_alone_is_told_everything(study, finished, tmp_path, inputs):
    """The run is finished, so that this draws its report and prints its verdict again."""
    out = shutil.copytree(finished[0], tmp_path / "σé", copy_function=shutil.copy2)
    words = [inputs.get(word, word) for word in WORDS[study]]
    machine = import_module(f"twinscore.experiments.{study}").STUDY.machine
    words += ["--device", "cpu"] if "device" in machine else []
    program = "import sys; from twinscore import cli; sys.exit(cli.main())"
    done = subprocess.run(
        [sys.executable, "-c", program, study, *words, "--out", str(out)],
        env=os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    told = finished[1].replace(str(finished[0]), str(out))
    assert done.stdout == told.encode("ascii", "backslashreplace")


def test_a_missing_device_is_one_line(study, tmp_path, twinscore):
    machine = import_module(f"twinscore.experiments.{study}").STUDY.machine
    if "device" not in machine:
        pytest.skip("has no device")
    code, said, errors = twinscore(study, tmp_path / "run", "--device", "mps")
    assert (code, said) == (2, "")
    assert errors == "twinscore: --device: mps is not available on this machine; give auto or cpu\n"
    assert list(tmp_path.iterdir()) == []


def test_results_are_read_back_as_they_were_written(study, finished):
    model = import_module(f"twinscore.results.{study}").Result
    content = runs.read_json(finished[0] / "result.json")
    assert json.loads(model.model_validate(content).model_dump_json()) == content


def flipped(content, rng):
    if not content:
        return b"\0"
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


DAMAGES = {
    "flip": flipped,
    "empty": lambda content, rng: b"",
    "cut": lambda content, rng: content[: rng.randrange(max(len(content), 1))],
    "garbage": lambda content, rng: rng.randbytes(len(content)),
    "gone": lambda content, rng: None,
}


def damage(path, kind, rng):
    content = DAMAGES[kind](path.read_bytes(), rng)
    path.unlink() if content is None else path.write_bytes(content)


SHOWN = (
    *("spec.json", "environment.json", "result.json", "trials/*/spec.json"),
    *("arrays.safetensors", "trials/*/weights.safetensors", "trials/*/resume.safetensors"),
)
KEPT = (
    *("trials/*/measures-*.safetensors", "trials/*/likelihood-*.safetensors"),
    *("trials/[!n]*.safetensors", "twins_kl/*.safetensors"),
)
UNREAD = (
    *("*.csv", "*.parquet", "splits/*/*.txt", "trials/*/history.csv"),
    *("log.txt", ".lock", "trials/*/.lock", "report.html", "figures/*.pdf", "figures/*.png"),
)
KINDS = (*SHOWN, *KEPT, *UNREAD)
"""Every kind of file of a run folder: what reports read, what only a run that continues reads, and
what nobody reads but people."""


def kind_of(path, folder):
    """The kind of a file in a run folder; None for one that is not known."""
    name = path.relative_to(folder)
    return next((k for k in KINDS if len(name.parts) == k.count("/") + 1 and name.match(k)), None)


def by_kind(folder, rng):
    """For each kind of file that a run holds, one of them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.setdefault(kind_of(path, folder), []).append(path)
    return {kind: rng.choice(paths) for kind, paths in found.items()}


def test_every_file_of_a_run_is_of_a_known_kind(finished):
    """One of a new kind must be named above, and so damaged below."""
    folder = finished[0]
    unknown = [p for p in folder.rglob("*") if p.is_file() and kind_of(p, folder) is None]
    assert unknown == []


def files(folder):
    """All files of a run that it may read, or that its user may; not its log and its lock."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [p for p in found if p.name not in (".lock", "log.txt") and p.parent.name != "figures"]


@pytest.mark.parametrize("kind", ["flip", pytest.param("gone", marks=pytest.mark.slow)])
def test_whatever_is_damaged_is_named_and_made_again(study, copied, twinscore, kind):
    """All files at once but the one that says what run this is."""
    before = contents(copied)
    for path in files(copied):
        if path != copied / "environment.json":
            damage(path, kind, random.Random(f"{study} {path.name}"))
    code, _, errors = twinscore(study, copied)
    assert code == 0, errors
    assert contents(copied) == before
    if kind == "flip":
        spoilt = [p for p in kept(copied) if "harmonics" not in str(p.relative_to(copied))]
        assert all(str(path) in errors for path in spoilt)


def same_or_refused(code, said, errors, path):
    """Whether a command took no harm; else it was refused in one line that names the file."""
    assert code in (0, 2), (path, errors)
    assert "Traceback" not in errors
    if code == 2:
        last = errors.splitlines()[-1]
        assert last.startswith("twinscore: ")
        assert str(path) in last
        assert re.search("run the same command again|another --out|new --out", last), last
        assert said == ""
    return code == 0


@pytest.mark.parametrize(
    "damaged", ["flip", *(pytest.param(each, marks=pytest.mark.slow) for each in ("cut", "empty"))]
)
def test_no_report_is_drawn_of_damaged_numbers(study, copied, capfd, damaged):
    """A damaged file is named with what helps; what nobody reads changes nothing."""
    words, rng = ["report", str(copied)], random.Random(f"{study} {damaged}")
    before = (copied / "report.html").read_bytes()
    for kind, path in by_kind(copied, rng).items():
        if kind in SHOWN:
            content = path.read_bytes()
            damage(path, damaged, rng)
            capfd.readouterr()
            code = cli.main(words)
            if same_or_refused(code, *capfd.readouterr(), path):
                assert (copied / "report.html").read_bytes() == before
            path.write_bytes(content)
    for path in copied.rglob("*"):
        if path.is_file() and kind_of(path, copied) not in SHOWN:
            damage(path, damaged, rng)
    assert cli.main(words) == 0
    assert (copied / "report.html").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("damaged", DAMAGES)
def test_one_damaged_file_of_each_kind_is_made_again_or_refused_in_one_line(
    study, finished, copied, twinscore, damaged
):
    before, rng, tried = contents(finished[0]), random.Random(f"{study} {damaged}"), 0
    for path in by_kind(finished[0], rng).values():
        for _ in range(3 if damaged == "flip" else 1):
            shutil.rmtree(copied)
            shutil.copytree(finished[0], copied, copy_function=shutil.copy2)
            spoilt = copied / path.relative_to(finished[0])
            damage(spoilt, damaged, rng)
            tried += 1
            if same_or_refused(*twinscore(study, copied), spoilt):
                assert contents(copied) == before, path
    print(f"{study}, {damaged}: {tried} damaged files, all made again or refused")
