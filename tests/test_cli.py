"""The command line: every error is one line, and nothing is written when input is bad."""

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from twinscore import __version__, cli, commands, environment, runs
from twinscore.errors import InputError
from twinscore.execution import WorkerDied
from twinscore.experiments import train, transition
from twinscore.interrupts import SIGNALS
from twinscore.report import style
from twinscore.training import TrainingError
from words import last_of_each

NETWORK = ["--network.width", "2", "--network.levels", "1"]
TRAINING = ["--training.steps", "8", "--training.batch", "2", "--training.evaluations", "2"]
TINY = [
    *("transition", "--sizes", "2", "--test", "4", "--samples", "4", "--sampling.steps", "2"),
    *("--device", "cpu", *NETWORK, *TRAINING),
]
READER_LEAVES = "TS 2> >(exec 0<&-; sleep 9)"
TRAIN = ["train", "--n", "4", "--test", "4", "--device", "cpu", *NETWORK, *TRAINING]


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """One thread: two that share a busy core wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        yield


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Leave the encoding of figures out, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "settle", lambda figure: figure)
        for kind in ("svg", "png", "pdf"):
            patch.setattr(style, kind, lambda *_: b"")
        yield


@pytest.fixture
def run(capfd):
    """Run the command line here: exit code, stdout, lines of stderr."""

    def call(*words):
        capfd.readouterr()
        code = cli.main(last_of_each(words))
        said = capfd.readouterr()
        return code, said.out, said.err.splitlines()

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A trained model, 4 images and 8 steps."""
    out = tmp_path_factory.mktemp("models") / "tiny"
    assert cli.main([*TRAIN, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder of everything that can be wrong with input."""
    root = tmp_path_factory.mktemp("bad")
    picture = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    for name in ("empty", "corrupt", "truncated", "mixed"):
        (root / name).mkdir()
    for name in ("corrupt", "truncated", "mixed"):
        for k in range(12):
            Image.fromarray(picture + np.uint8(k)).save(root / name / f"{k:02d}.png")
    (root / "corrupt" / "05.png").write_bytes(b"no picture")
    whole = (root / "truncated" / "05.png").read_bytes()
    (root / "truncated" / "05.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(picture[:8]).save(root / "mixed" / "05.png")
    np.save(root / "flat.npy", picture)
    np.save(root / "nan.npy", np.full((12, 8, 8), np.nan, np.float32))
    (root / "misspelt.yaml").write_text("sizes: [2]\nnetwork:\n  widht: 3\n")
    (root / "typed.yaml").write_text("training: {steps: ten}\n")
    (root / "list.yaml").write_text("- digits\n")
    (root / "broken.yaml").write_text("sizes: [2\n")
    (root / "file").write_text("mine")
    newer = root / "newer"
    newer.mkdir()
    (newer / "spec.json").write_text(json.dumps({"schema_version": 99, "study": "transition"}))
    return root


def everything(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


# Bad input

COMPLAINTS = {
    "missing folder": (["--data", "{bad}/nowhere"], ["{bad}/nowhere"]),
    "empty folder": (["--data", "{bad}/empty"], ["{bad}/empty", "PNG"]),
    "corrupt image": (["--data", "{bad}/corrupt"], ["05.png", "skip_corrupt"]),
    "truncated image": (["--data", "{bad}/truncated"], ["05.png", "skip_corrupt"]),
    "mixed sizes": (["--data", "{bad}/mixed"], ["05.png", "size"]),
    "npy of the wrong rank": (["--data", "{bad}/flat.npy"], ["{bad}/flat.npy"]),
    "npy with NaN": (["--data", "{bad}/nan.npy"], ["{bad}/nan.npy"]),
    "unknown option of a source": (["--data", "digits,sise=8"], ["sise", "size"]),
    "N larger than the data": (["--sizes", "900"], ["900", "the largest n that fits is"]),
    "test larger than the data": (["--test", "1800"], ["test", "1800"]),
    "unknown network": (["--network.kind", "resnet"], ["--network.kind", "resnet", "bf_cnn"]),
    "field of another network": (["--network.layers", "3"], ["--network", "layers", "levels"]),
    "misspelt flag": (["--network.widht", "3"], ["--network.widht", "--network.width?"]),
    "misspelt flag of its own": (["--outt", "x"], ["--outt"]),
    "stray word": (["3", "--seed", "1"], ["3"]),
    "word for a number": (["--training.steps", "many"], ["--training.steps", "many"]),
    "number out of range": (["--training.steps", "-3"], ["--training.steps", "-3", "1"]),
    "flag without value": (["--training.steps"], ["--training.steps"]),
    "no sizes": (["--sizes"], ["--sizes", "at least 1"]),
    "size 0": (["--sizes", "0"], ["--sizes", "greater than or equal to 1"]),
    "infinite rate": (["--training.learning-rate", "inf"], ["--training.learning-rate: ", "inf"]),
    "infinite number": (
        ["--sampling.sigma-min", "inf"],
        ["--sampling.sigma-min: ", "finite", "inf"],
    ),
    "settings that do not fit": (["--sampling.sigma-min", "3"], ["--sampling: sigma_min 3"]),
    "no workers": (["--workers", "0"], ["--workers", "1"]),
    "unknown device": (["--device", "tpu"], ["--device", "tpu", "cuda"]),
    "unknown spec": (["--spec", "demmo"], ["--spec", "demmo"]),
    "spec without name": (["--spec"], ["--spec"]),
    "misspelt key in a spec": (
        ["--spec", "{bad}/misspelt.yaml"],
        ["{bad}/misspelt.yaml", "network.widht"],
    ),
    "wrong type in a spec": (
        ["--spec", "{bad}/typed.yaml"],
        ["{bad}/typed.yaml", "training.steps", "ten"],
    ),
    "spec that is a list": (["--spec", "{bad}/list.yaml"], ["{bad}/list.yaml"]),
    "spec that is no YAML": (["--spec", "{bad}/broken.yaml"], ["{bad}/broken.yaml"]),
    "out is a file": (["--out", "{bad}/file"], ["{bad}/file"]),
    "out below a file": (["--out", "{bad}/file/below"], ["{bad}/file/below"]),
    "out where nobody can write": (["--out", "/proc/twinscore"], ["/proc/twinscore"]),
    "out of a newer schema": (["--out", "{bad}/newer"], ["{bad}/newer", "upgrade"]),
    "out of other files": (["--out", "{bad}/corrupt"], ["{bad}/corrupt", "--out"]),
}


@pytest.mark.parametrize("case", COMPLAINTS)
def test_bad_input_is_one_line_and_nothing_is_written(run, bad, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    words, named = COMPLAINTS[case]
    before = everything(bad)
    out = [] if "--out" in words else ["--out", str(tmp_path / "run")]
    code, said, errors = run(*TINY, *out, *(word.format(bad=bad) for word in words))
    assert (code, said) == (2, "")
    [line] = errors
    assert line.startswith("twinscore: ")
    assert len(line) < 400
    for name in named:
        assert name.format(bad=bad) in line
    assert everything(tmp_path) == {}
    assert everything(bad) == before


OTHER_COMPLAINTS = {
    "unknown command": (["publish"], ["publish", "transition", "report"]),
    "misspelt command": (["transitoin"], ["transitoin", "did you mean transition?"]),
    "train with too many": (["train", "--n", "5000", "--out", "x"], ["n: 5000", "largest"]),
    "sample without model": (["sample", "--out", "x.png"], ["--model"]),
    "sample without out": (["sample", "--model", "{model}"], ["--out", ".npz"]),
    "sample of nothing": (["sample", "--model", "nowhere", "--out", "x.png"], ["nowhere"]),
    "sample of a run": (["sample", "--model", "{bad}/empty", "--out", "x.png"], ["{bad}/empty"]),
    "sample of a text": (["sample", "--model", "{bad}/file", "--out", "x.png"], ["{bad}/file"]),
    "sample to a text": (["sample", "--model", "{model}", "--out", "x.txt"], ["x.txt", ".png"]),
    "sample over a file": (["sample", "--model", "{model}", "--out", "{bad}/nan.npy"], ["nan.npy"]),
    "sample below a file": (
        ["sample", "--model", "{model}", "--out", "{bad}/file/x.png"],
        ["{bad}/file"],
    ),
    "sample ending above its start": (
        ["sample", "--model", "{model}", "--out", "x.png", "--sampling.sigma-min", "3"],
        ["--sampling: sigma_min 3"],
    ),
    "report of nothing": (["report"], ["report", "run folder"]),
    "report of an empty folder": (["report", "{bad}/empty"], ["{bad}/empty"]),
    "report of two": (["report", "{bad}/empty", "{bad}/file"], ["{bad}/file"]),
    "report of a model": (["report", "{model}"], ["{model}: a model", "--out", "--model"]),
    "report of weights": (
        ["report", "{model}/weights.safetensors"],
        ["a file, not a run folder; give its folder, {model}"],
    ),
    "report of a path that is not UTF-8": (["report", "caf\udce9"], ["run folder: 'caf\\udce9'"]),
    "report with a spec": (["report", "--spec", "demo", "{bad}/empty"], ["--spec"]),
}


@pytest.mark.parametrize("case", OTHER_COMPLAINTS)
def test_bad_input_of_the_other_commands(run, bad, model, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    words, named = OTHER_COMPLAINTS[case]
    before = everything(bad) | everything(model)
    code, said, errors = run(*(word.format(bad=bad, model=model) for word in words))
    assert (code, said) == (2, "")
    [line] = errors
    assert line.startswith("twinscore: ")
    for name in named:
        assert name.format(bad=bad, model=model) in line
    assert everything(tmp_path) == {}
    assert everything(bad) | everything(model) == before


def test_an_existing_file_is_never_overwritten_by_samples(run, model, tmp_path):
    out = tmp_path / "mine.png"
    out.write_text("mine")
    code, _, [line] = run("sample", "--model", model, "--count", "2", "--out", out)
    assert code == 2
    assert str(out) in line
    assert out.read_text() == "mine"


def test_a_failed_run_is_exit_code_1_and_one_line(run, tmp_path):
    words = ["--training.learning-rate", "1e30", "--training.schedule", "constant"]
    code, said, errors = run(*TINY, *words, "--out", tmp_path / "run")
    assert (code, said) == (1, "")
    [line] = [line for line in errors if line.startswith("twinscore: ")]
    assert "step" in line
    assert "Traceback" not in "\n".join(errors)


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    """Files over 4 KiB cannot be written, from safetensors' own error to an exit code."""
    code = (
        "import resource, signal, sys\n"
        "from twinscore import cli, environment\n"
        "environment.available_cores = lambda: 1\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    out = tmp_path / "model"
    words = last_of_each([*TRAIN, "--network.width", "16", "--out", out])
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("twinscore: ")]
    assert done.returncode == 2, done.stderr
    assert str(out / "weights.safetensors") in line
    assert "Traceback" not in done.stderr
    assert {p.name for p in out.iterdir()} - {".lock"} == {
        *("spec.json", "environment.json", "history.csv", "log.txt")
    }


# Help, version, spec


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], []])
def test_help_and_version_do_not_import_torch(words):
    code = (
        "import sys\n"
        "from twinscore import cli\n"
        "code = cli.main(sys.argv[1:])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'tyro', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0 if words else 2, "")
    if words == ["--version"]:
        assert done.stdout == f"twinscore {__version__}\n"
    else:
        assert all(command in done.stdout for command in cli.commands())


@pytest.mark.parametrize("words", [["--quality", "draft"], ["--quality=draft"]])
def test_the_quality_of_samples_needs_no_prefix(run, words):
    code, said, errors = run("sample", *words, "--print-spec")
    assert (code, errors) == (0, [])
    assert yaml.safe_load(said)["sampling"]["quality"] == "draft"


@pytest.mark.parametrize("command", cli.commands())
def test_every_command_explains_its_options(run, command):
    code, said, errors = run(command, "--help")
    assert (code, errors) == (0, [])
    drawing = set(cli.commands()) - {"prepare", "train", "sample", "export", "mixture", "capacity"}
    assert ("--no-images" in said) == (command in drawing)
    assert ("--out" in said) == (command != "report")
    for hidden in ("--spec.", "--no-no-images"):
        assert hidden not in said


def test_print_spec_is_read_back_to_the_same_spec(run, tmp_path):
    changes = ["--training.ema", "0.9", "--network.convolutions", "3", "--seed", "5"]
    code, said, errors = run(*TINY, *changes, "--print-spec", "--out", tmp_path / "run")
    assert (code, errors) == (0, [])
    path = tmp_path / "spec.yaml"
    path.write_text(said)
    assert transition.Spec(**yaml.safe_load(said)).training.ema == 0.9
    assert run("transition", "--spec", path, "--print-spec") == (0, said, [])
    assert run("transition", f"--spec={path}", "--print-spec") == (0, said, [])
    assert [p.name for p in tmp_path.iterdir()] == ["spec.yaml"]


@pytest.mark.parametrize("command", sorted(set(cli.commands()) - {"prepare", "report"}))
def test_every_default_spec_is_printed_and_read_back(run, tmp_path, command):
    _, said, _ = run(command, "--print-spec")
    (tmp_path / "spec.yaml").write_text(said)
    assert run(command, "--spec", tmp_path / "spec.yaml", "--print-spec") == (0, said, [])


def test_flags_override_the_spec_and_lists_are_replaced(run, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("sizes: [3, 4, 5]\nseed: 7\nnetwork: {kind: bf_cnn, width: 8, layers: 4}\n")
    words = ["--sizes", "9", "--network.width", "6", "--spec", path, "--print-spec"]
    code, said, _ = run("transition", *words)
    spec = yaml.safe_load(said)
    assert code == 0
    assert (spec["sizes"], spec["seed"]) == ([9], 7)
    assert spec["network"] == {"kind": "bf_cnn", "width": 6, "layers": 4}


# What a run says


def test_stdout_is_verdict_table_and_path(run, tmp_path):
    out = tmp_path / "run"
    code, said, errors = run(*TINY, "--out", out)
    result = transition.Result.model_validate_json((out / "result.json").read_text())
    assert code == 0
    assert said == f"{result.verdict}\n{result.table()}\nreport: {out / 'report.html'}\n"
    head, row, *warnings = result.table().splitlines()
    assert head.split()[0] == "N"
    assert re.split(r"\s{2,}", row.strip())[:2] == ["2", result.levels[0].verdict]
    assert set(result.levels[0].warnings) <= set(warnings)
    assert errors
    assert not any(line.startswith("twinscore:") for line in errors)
    assert run("report", out) == (0, f"report: {out / 'report.html'}\n", [])


def test_no_images_leaves_images_out_of_page_and_figures(run, tmp_path):
    out = tmp_path / "run"
    assert run(*TINY, "--out", out)[0] == 0
    with_images = (out / "report.html").read_text()
    held = '<script type="application/json" id="viewer-data">'
    assert held in with_images
    assert (out / "figures" / "samples.png").exists()
    for words in (("report", out), (*TINY, "--out", out)):
        assert run(*words, "--no-images")[0] == 0
        without = (out / "report.html").read_text()
        assert "holds no training images or samples" in without
        assert held not in without
        assert not (out / "figures" / "samples.png").exists()


def test_a_report_of_an_unfinished_run_says_what_is_missing(run, tmp_path, monkeypatch):
    out, study = tmp_path / "run", transition.STUDY

    def stopped(spec, trial, report):
        if trial.n == 3:
            raise KeyboardInterrupt
        return study.work(spec, trial, report)

    monkeypatch.setattr(transition, "STUDY", replace(study, work=stopped))
    words = last_of_each([*TINY, "--sizes", "2", "3", "--out", out])
    code, said, errors = run(*words)
    assert (code, said) == (130, "")
    continued = "continue with: twinscore " + " ".join(words)
    assert errors[-1] == f"twinscore: stopped; {continued}"
    code, said, _ = run("report", out)
    assert code == 0
    html = (out / "report.html").read_text()
    assert "N = 3" in html


# Train and sample


def test_train_writes_a_model_and_continues_it(run, model):
    before = everything(model)
    code, said, _ = run(*TRAIN, "--out", model)
    assert code == 0
    assert said.splitlines()[0].split() == ["sigma", "train", "dB", "test", "dB"]
    assert len(said.splitlines()) == 1 + 7 + 1
    assert said.splitlines()[-1] == f"model: {model}"
    same = {p for p in before if p.name in {"weights.safetensors", "history.csv"}}
    assert {p: p.stat().st_mtime_ns for p in same} == {p: before[p] for p in same}
    code, _, [line] = run(*TRAIN, "--network.width", "3", "--out", model)
    assert code == 2
    assert "differs in network.width)" in line
    spec = runs.read_json(model / "spec.json")
    assert (spec["study"], spec["n"], spec["test"]) == ("train", 4, 4)
    assert train.Spec(**{k: spec[k] for k in train.Spec.model_fields}).n == 4


def test_train_says_what_it_takes_and_with_estimate_stops(run, model, tmp_path):
    code, said, errors = run(*TRAIN, "--estimate", "--out", tmp_path / "new")
    assert (code, errors) == (0, [])
    assert said.startswith("1 network: about ")
    assert list(tmp_path.iterdir()) == []
    assert run(*TRAIN, "--estimate", "--out", model)[1].startswith("nothing left to do: ")
    assert "estimate: 1 network: about " in (model / "log.txt").read_text()


def test_sample_i_depends_on_the_seed_and_i_alone(run, model, tmp_path):
    words = ["sample", "--model", model, "--sampling.steps", "2"]
    for name, count, seed in (("few", 2, 1), ("many", 5, 1), ("other", 2, 2)):
        out = tmp_path / "new" / f"{name}.npz"
        code, said, _ = run(*words, "--count", count, "--seed", seed, "--out", out)
        assert (code, said) == (0, f"samples: {out}\n")
    few, many, other = (
        np.load(tmp_path / "new" / f"{name}.npz") for name in ("few", "many", "other")
    )
    assert many["samples"].shape == (5, 1, 8, 8)
    assert many["samples"].dtype == np.float32
    np.testing.assert_array_equal(few["seeds"], many["seeds"][:2])
    np.testing.assert_allclose(few["samples"], many["samples"][:2], atol=1e-5)
    assert np.abs(few["samples"] - other["samples"]).max() > 1e-3


def test_samples_as_a_picture_are_a_grid(run, model, tmp_path):
    weights, out = model / "weights.safetensors", tmp_path / "grid.png"
    words = ["--count", "5", "--sampling.steps", "2", "--out", out]
    assert run("sample", "--model", weights, *words)[0] == 0
    with Image.open(out) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 9 + 1, 3 * 9 + 1)
    assert (pixels[::9] == 255).all()
    assert (pixels[10:, 19:] == 255).all()
    assert pixels[1:9, 1:9].min() < 255
    assert os.listdir(tmp_path) == ["grid.png"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((40, 8, 8), np.uint8), "all 40 images are the same"),
        (np.repeat(np.arange(40, dtype=np.uint8), 64).reshape(40, 8, 8), "every image is constant"),
    ],
)
@pytest.mark.parametrize("command", ["transition", "train", "clusters", "shuffled"])
def test_images_without_content_are_refused(tmp_path, capfd, command, pixels, words):
    np.save(tmp_path / "black.npy", pixels)
    out = tmp_path / "out"
    assert cli.main([command, "--data", str(tmp_path / "black.npy"), "--out", str(out)]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert words in line
    assert not out.exists()


# What happens to what cannot be foreseen


def failing(error):
    def call(*_):
        raise error

    return call


OUTCOMES = {
    "input": (InputError("x: y"), 2, "twinscore: x: y"),
    "training": (TrainingError("lost"), 1, "twinscore: failed: lost"),
    "worker": (WorkerDied("gone"), 1, "twinscore: failed: gone"),
    "disk": (OSError(28, "No space left"), 1, "twinscore: failed: [Errno 28] No space left"),
    "memory": (MemoryError(), 1, "twinscore: failed: out of memory: MemoryError"),
    "torch's memory": (torch.OutOfMemoryError("2 GB"), 1, "twinscore: failed: out of memory: 2 GB"),
    "bug": (KeyError("k"), 1, "twinscore: bug: KeyError: 'k'; please report it with the output of"),
    "two lines": (RuntimeError("a\nb"), 1, "twinscore: bug: RuntimeError: a b; please report it"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "twinscore: stopped; continue with: twinscore train"),
}


@pytest.mark.parametrize("case", OUTCOMES)
@pytest.mark.parametrize("debug", [False, True])
def test_whatever_is_raised_is_one_line_and_an_exit_code(run, monkeypatch, case, debug):
    error, code, said = OUTCOMES[case]
    monkeypatch.setattr(commands, "call", failing(error))
    monkeypatch.setenv("TWINSCORE_DEBUG", "1" if debug else "")
    found, _, lines = run("train")
    assert found == code
    assert lines[-1].startswith(said)
    assert (len(lines) > 1) == (debug and code == 1)
    assert any("Traceback" in line for line in lines) == (debug and code == 1)


def test_signals_are_as_before_when_main_returns(run):
    before = [signal.getsignal(number) for number in SIGNALS]
    run("--version")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_main_can_be_called_in_a_thread():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, ["--version"]).result() == 0


def test_an_ascii_terminal_shows_what_it_cannot_say_with_backslashes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "report", "σ"],
        env=os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"twinscore: \\u03c3: not a run folder")
    assert done.stderr.count(b"\n") == 1


# Standard streams that are closed, full, or read by nobody

PROGRAM = """
import sys
from twinscore import cli, environment
environment.available_cores = lambda: 1
sys.exit(cli.main())
"""
FULL = "No space left on device"


def shell(line, *words):
    """Run a shell's line in which TS stands for the program; exit code, stdout, stderr."""
    script = line.replace("TS", '"$PY" -c "$PROGRAM" "$@"')
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}", "bash", *map(str, words)],
        env=os.environ | {"PY": sys.executable, "PROGRAM": PROGRAM, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("TS >&-", 0, "", ""),
        ("TS 2>&-", 0, "usage", ""),
        ("TS <&- >&- 2>&-", 0, "", ""),
        ("TS >/dev/full", 1, "", FULL),
        ("TS >/dev/full 2>/dev/full", 1, "", ""),
        ("TS | :", 0, "", ""),
        ("sleep 1 | TS 2>&1 | :", 0, "", ""),
    ],
)
def test_exit_codes_where_nobody_reads(line, code, out, err):
    done = shell(line, "--help")
    assert done.returncode == code
    assert done.stdout.startswith(out)
    assert bool(done.stdout) == bool(out)
    lines = done.stderr.splitlines()
    assert [err in each for each in lines] == [True] * bool(err)


@pytest.mark.parametrize(
    "line",
    [
        "TS 2>&-",
        *(pytest.param(line, marks=pytest.mark.slow) for line in ("TS 2>/dev/full", READER_LEAVES)),
    ],
)
def test_a_training_does_not_need_stderr(line, tmp_path):
    done = shell(line, *TRAIN, "--out", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    head, *_, path = done.stdout.splitlines()
    assert head.split() == ["sigma", "train", "dB", "test", "dB"]
    assert path == f"model: {tmp_path / 'run'}"
    assert len(done.stdout.splitlines()) == 9


def test_no_file_of_a_run_takes_the_place_of_a_closed_stream():
    found = "import os; from twinscore import cli; cli.main(); print(os.open('.', os.O_RDONLY))"
    done = shell(f'"$PY" -c "{found}" --version <&- 2>&-')
    assert int(done.stdout.splitlines()[-1]) > 2
