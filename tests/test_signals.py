"""Ctrl-C at any moment: exit 130 without a traceback, no process left; a second ends at once."""

import os
import pty
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")

RUNNER = """
import sys
from twinscore.cli import main

if __name__ == "__main__":
    sys.exit(main())
"""
LONG = """
import hashlib
import sys
from pathlib import Path
from twinscore import cli, commands


def call(*words):
    Path(__file__).with_name("begun").touch()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in C


commands.call = call
sys.exit(cli.main())
"""
SIZE = [
    *("--device", "cpu", "--network.width", "8", "--network.levels", "1", "--test", "4"),
    *("--training.steps", "400", "--training.batch", "4", "--training.evaluations", "2"),
]
TRAIN = ["train", "--n", "4", *SIZE]
STUDY = ["transition", "--sizes", "2", "--samples", "4", "--sampling.steps", "2", *SIZE]
PATIENCE = 60.0
SECONDS = 25.0
"""From the first signal to the end: a step, a checkpoint, 5 s of patience, on a busy machine."""


def status(pid):
    """What /proc says of a process; nothing of one that only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    found = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return {} if found["State"].startswith(("Z", "X")) else found


def group(leader):
    """Processes of a group that run."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == leader and status(entry.name):
                members.append(int(entry.name))
        except ProcessLookupError:
            continue
    return members


def listens(pid):
    """Whether a process has its own handler of SIGTERM."""
    caught = int(status(pid).get("SigCgt", "0").strip(), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return met


class Program:
    """The command line in a process group of its own."""

    def __init__(self, folder, words, runner=RUNNER, *, stderr=None, ignored=None):
        (folder / "runner.py").write_text(runner)
        self.errors = folder / "stderr"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, folder / "runner.py", *words, "--out", folder / "out"],
                stdout=subprocess.DEVNULL,
                stderr=stderr or errors,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
                preexec_fn=lambda: ignored and signal.signal(ignored, signal.SIG_IGN),
            )
        assert wait_for(lambda: listens(self.process.pid), PATIENCE)

    def send(self, number=signal.SIGINT):
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def ended(self, seconds):
        """Exit code and lines of stderr, once nothing of the group is left."""
        try:
            code = self.process.wait(seconds)
            assert wait_for(lambda: not group(self.process.pid), 5.0)
        finally:
            for pid in group(self.process.pid):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        said = self.errors.read_text()
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        return code, said.splitlines()


def interrupt(folder, words, delay, gap, number=signal.SIGINT):
    """Signals to the whole group, one or two of them."""
    program = Program(folder, words)
    time.sleep(delay)
    program.send(number)
    if gap is not None:
        time.sleep(gap)
        program.send(number)
    code, lines = program.ended(SECONDS)
    assert code == 130 or (code == 0 and delay > 1), (delay, gap, lines)
    return code, lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_start_is_one_line(tmp_path, number):
    code, [line] = interrupt(tmp_path, TRAIN, 0.1, None, number)
    assert code == 130
    assert line.startswith("twinscore: stopped; continue with: twinscore train --n 4 ")


def test_a_second_signal_ends_a_run_with_workers_at_once(tmp_path):
    program = Program(tmp_path, [*STUDY, "--workers", "2"])
    assert wait_for(lambda: list(tmp_path.glob("out/trials/*/history.csv")), PATIENCE)
    program.send()
    time.sleep(0.02)
    program.send()
    assert program.ended(3.0)[0] == 130


def test_a_second_signal_is_heard_in_a_long_computation(tmp_path):
    program = Program(tmp_path, ["report"], LONG)
    assert wait_for((tmp_path / "begun").exists, PATIENCE)
    program.send()
    time.sleep(0.1)
    program.send()
    assert program.ended(3.0)[0] == 130


def test_the_terminal_gets_its_cursor_back(tmp_path):
    ours, theirs = pty.openpty()
    program = Program(tmp_path, ["report"], LONG, stderr=theirs)
    os.close(theirs)
    assert wait_for((tmp_path / "begun").exists, PATIENCE)
    program.send()
    program.send(signal.SIGTERM)
    assert program.ended(3.0)[0] == 130
    assert os.read(ours, 100) == b"\x1b[?25h"
    os.close(ours)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As ``nohup`` has it."""
    program = Program(tmp_path, ["report"], LONG, ignored=signal.SIGHUP)
    assert wait_for((tmp_path / "begun").exists, PATIENCE)
    for _ in range(3):
        program.send(signal.SIGHUP)
    time.sleep(0.3)
    assert program.process.poll() is None
    program.send(signal.SIGTERM)
    program.send(signal.SIGINT)
    assert program.ended(3.0)[0] == 130


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_signals_at_random_moments(tmp_path, seed):
    draw = random.Random(seed)
    words = draw.choice([TRAIN, [*STUDY, "--workers", "2"], [*STUDY, "--workers", "1"]])
    gap = draw.choice([None, draw.uniform(0, 0.3), draw.uniform(0, 0.3)])
    number = draw.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    interrupt(tmp_path, words, draw.uniform(0, 12), gap, number)
