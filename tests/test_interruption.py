"""However a run is stopped, nothing of it lives on, and run again it ends as if never stopped."""

import csv
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from twinscore import cli, environment, runs
from twinscore.experiments import transition
from twinscore.experiments.estimates import NOTHING
from twinscore.report import page
from words import last_of_each

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")

WORDS = [
    *("transition", "--sizes", "2", "5", "--test", "6", "--samples", "5", "--device", "cpu"),
    *("--training.steps", "80", "--training.batch", "8", "--training.evaluations", "4"),
    *("--network.width", "16", "--network.levels", "1", "--sampling.steps", "3"),
]
PATIENCE = 120.0
RUNNER = """
import importlib
import sys
import time
from dataclasses import replace

from twinscore.experiments import transition

whole = transition.STUDY
fit = importlib.import_module("twinscore.training.fit")
fit.CHECKPOINT_SECONDS = 0.05  # in the workers too: they import this file
step = fit._step


def slow_step(*arguments):
    time.sleep(0.02)  # time to be stopped in
    return step(*arguments)


fit._step = slow_step


def work(*given):
    return whole.work(*given)  # of this file, so that workers import it


if __name__ == "__main__":
    from twinscore import cli, environment

    transition.STUDY = replace(whole, work=work)
    environment.available_cores = lambda: 2
    sys.exit(cli.main())
"""


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)
    return found


def alive(pid):
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid):
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    own = [int(word) for word in text.split()]
    return own + [grandchild for child in own for grandchild in children(child)]


def is_worker(pid):
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


class Started:
    """``twinscore transition`` with two workers, stopped in the middle of its second pair."""

    def __init__(self, folder):
        self.out, self.said = folder / "run", folder / "stderr"
        runner = folder / "runner.py"
        runner.write_text(RUNNER)
        self.words = [*WORDS, "--out", str(self.out), "--workers", "2"]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, str(runner), *self.words],
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        wait_for(self.in_the_middle, "a trial to finish and another to begin")
        self.family = children(self.process.pid)
        self.workers = [pid for pid in self.family if is_worker(pid)]
        assert len(self.workers) == 2

    def in_the_middle(self):
        assert self.process.poll() is None, self.said.read_text()
        return self.finished() and list(self.out.glob("trials/*/resume.safetensors"))

    def finished(self):
        return {p: p.stat().st_mtime_ns for p in self.out.glob("trials/*/weights.safetensors")}

    def stopped(self):
        """Exit code and stderr, once every process is gone."""
        code = self.process.wait(PATIENCE)
        wait_for(lambda: not any(map(alive, self.family)), "the workers to die")
        text = self.said.read_text()
        assert "Traceback" not in text
        return code, [line for line in text.splitlines() if line.startswith("twinscore:")]


@pytest.fixture
def started(tmp_path):
    run = Started(tmp_path)
    yield run
    if run.process.poll() is None:
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The same run in one go, in this process."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        patch.setattr(page, "write", lambda folder, **_: folder / "report.html")
        assert cli.main([*WORDS, "--out", str(out)]) == 0
    return out


def content(folder):
    names = ["result.json", "arrays.safetensors", "levels.csv", "images.csv", "spec.json"]
    weights = sorted(folder.glob("trials/*/weights.safetensors"))
    return {p.relative_to(folder): p.read_bytes() for p in [folder / n for n in names] + weights}


def history(path):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def finishes(started, uninterrupted, monkeypatch, capfd):
    """Run the same command again; compare with the uninterrupted run."""

    def again(words):
        run = started.out
        assert runs.read_json(run / "environment.json")["finished"] is None
        before, begun = started.finished(), list(run.glob("trials/*/resume.safetensors"))
        assert before
        assert len(before) < 4
        monkeypatch.setattr(page, "write", lambda folder, **_: folder / "report.html")
        capfd.readouterr()
        assert cli.main(last_of_each([*words, "--workers", "1"])) == 0
        said = capfd.readouterr().err
        assert not any(f"{path.parent.name}: step 1 of" in said for path in begun)
        after = started.finished()
        assert {path: after[path] for path in before} == before
        assert content(run) == content(uninterrupted)
        for path in run.glob("trials/*/history.csv"):
            assert history(path) == history(uninterrupted / path.relative_to(run))
        assert runs.read_json(run / "environment.json")["finished"] is not None
        left = [
            p.name for p in run.rglob("*") if ".tmp" in p.name or p.name == "resume.safetensors"
        ]
        assert left == []

    return again


def test_kill_9_of_the_parent_takes_its_workers_along(started, finishes, capfd):
    assert cli.main(started.words) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert f"in use by process {started.process.pid} on " in line
    os.kill(started.process.pid, signal.SIGKILL)
    started.stopped()
    finishes(started.words)


def test_ctrl_c_says_how_to_continue(started, finishes):
    os.killpg(started.process.pid, signal.SIGINT)
    code, [line] = started.stopped()
    assert code == 130
    stopped, command = line.split("continue with: twinscore ")
    assert stopped == "twinscore: stopped; "
    finishes(shlex.split(command))


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_with_one_clear_line(started, finishes):
    os.kill(started.workers[0], signal.SIGKILL)
    code, [line] = started.stopped()
    assert code == 1
    assert "a worker process was killed" in line
    assert "again" in line
    finishes(started.words)


@pytest.mark.slow
@pytest.mark.parametrize("everyone", [False, True])
def test_sigterm_says_how_to_continue(started, finishes, everyone):
    (os.killpg if everyone else os.kill)(started.process.pid, signal.SIGTERM)
    code, [line] = started.stopped()
    assert code == 130
    finishes(shlex.split(line.partition("continue with: twinscore ")[2]))


def test_a_training_that_is_stopped_by_hand_continues_from_its_checkpoint(tmp_path, monkeypatch):
    """Without a pool: what Ctrl-C does to a run from Python."""
    monkeypatch.setattr(environment, "available_cores", lambda: 1)
    fit = sys.modules["twinscore.training.fit"]
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0.0)
    spec = transition.Spec(
        sizes=(3,),
        test=4,
        samples=3,
        network={"width": 16, "levels": 1},
        training={"steps": 40, "batch": 4, "evaluations": 4},
        sampling={"steps": 2},
    )
    study = replace(transition.STUDY, estimate=lambda *_: NOTHING)  # which makes steps of its own
    whole = study.run(spec, tmp_path / "whole", device="cpu")
    count, step = fit._step, 0

    def interrupted(*arguments):
        nonlocal step
        step += 1
        if step in {25, 60}:
            raise KeyboardInterrupt
        return count(*arguments)

    monkeypatch.setattr(fit, "_step", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            study.run(spec, tmp_path / "parts", device="cpu")
    parts = study.run(spec, tmp_path / "parts", device="cpu")
    assert step == 80 + 2
    assert parts.result == whole.result
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
