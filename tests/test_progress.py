"""Progress and log are a service: where they fail, the work goes on and nothing else is written."""

import errno
import io
import os
import pty
import sys
from contextlib import suppress

import pytest

from twinscore.errors import say
from twinscore.progress import Reporter


class Failing(io.TextIOBase):
    """A stream whose other end is full or gone."""

    def __init__(self, terminal, error):
        self.terminal, self.error = terminal, error

    def isatty(self):
        return self.terminal

    def write(self, text):
        raise OSError(self.error, os.strerror(self.error))


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "closed at the start": lambda: None,
    "closed meanwhile": closed,
    "full": lambda: Failing(False, errno.ENOSPC),
    "broken": lambda: Failing(False, errno.EPIPE),
    "a terminal that is gone": lambda: Failing(True, errno.EIO),
}


@pytest.mark.parametrize("name", STREAMS)
def test_work_goes_on_without_stderr_and_stdout_is_left_alone(name, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stderr", STREAMS[name]())
    with Reporter(tmp_path / "log.txt") as report:
        report("a", {"text": "begun"})
        report("a", {"step": 1, "steps": 2})
        report("a", {"step": 2, "steps": 2, "note": "good"})
    say("the end")
    monkeypatch.undo()
    assert capfd.readouterr().out == ""
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert log == ["a: begun", "a: step 1 of 2", "a: step 2 of 2 good"]


def test_a_terminal_that_hangs_up_ends_nothing(monkeypatch, capfd):
    ours, theirs = pty.openpty()
    with suppress(OSError), os.fdopen(theirs, "w", buffering=1) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Reporter() as report:
            report("a", {"step": 1, "steps": 2})
            os.close(ours)
            report("a", {"text": "alone"})
            report("a", {"step": 2, "steps": 2})
            done = True
        monkeypatch.undo()
    assert done
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["full", "gone"])
def test_work_goes_on_where_the_log_cannot_be_written(name, tmp_path, capfd):
    log = tmp_path / "gone" / "log.txt"
    if name == "full":
        log = tmp_path / "log.txt"
        log.symlink_to("/dev/full")
    with Reporter(log) as report:
        report("a", {"text": "begun"})
    assert capfd.readouterr().err == "a: begun\n"
