"""Tasks run here or on a pool, with the threads asked for; one that fails stops the others."""

import os
import signal
import time

import pytest
import torch

from twinscore.errors import InputError
from twinscore.execution import WorkerDied, run_tasks, torch_threads

PATIENCE = 60.0


def square(task, report):
    report(task, {"step": 1, "steps": 1})
    return int(task) ** 2, torch.get_num_threads(), os.getpid()


def act(task, report):
    """Work like a trial: 'until stopped' reports for ever, as a long training does."""
    if task == "fine":
        report(task, {"text": "done"})
        return torch.get_num_threads(), os.getpid(), signal.getsignal(signal.SIGINT)
    if task == "fail":
        time.sleep(1)  # so that what is done before is seen to be done before
        raise InputError("digits: gone")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    for step in range(int(PATIENCE / 0.01)):
        report(task, {"step": step, "steps": 0})
        time.sleep(0.01)
    raise AssertionError("was not stopped")


class Events(list):
    def __call__(self, name, event):
        self.append((name, event))


def test_one_worker_is_this_process_and_restores_its_threads():
    before, events = torch.get_num_threads(), Events()
    threads = before + 1
    outcomes = run_tasks(square, ["3", "2"], workers=1, threads=threads, report=events)
    assert next(outcomes) == ("3", (9, threads, os.getpid()))
    assert events == [("3", {"step": 1, "steps": 1})]
    assert torch.get_num_threads() == threads
    assert list(outcomes) == [("2", (4, threads, os.getpid()))]
    assert torch.get_num_threads() == before


def test_threads_are_restored_when_a_task_fails_or_nobody_waits():
    before = torch.get_num_threads()
    outcomes = run_tasks(square, ["1", "x"], workers=1, threads=before + 1, report=Events())
    next(outcomes)
    with pytest.raises(ValueError, match="x"):
        next(outcomes)
    assert torch.get_num_threads() == before
    outcomes = run_tasks(square, ["1", "2"], workers=1, threads=before + 1, report=Events())
    next(outcomes)
    outcomes.close()
    assert torch.get_num_threads() == before
    with torch_threads(before + 2):
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before


def test_a_failure_on_the_pool_stops_the_other_tasks_and_keeps_what_was_done():
    events, done = Events(), []
    started = time.monotonic()
    tasks = ["fine", "until stopped", "fail"]
    outcomes = run_tasks(act, tasks, workers=2, threads=3, report=events)
    with pytest.raises(InputError, match=r"^digits: gone$"):
        done.extend(outcomes)
    assert time.monotonic() - started < PATIENCE
    [(task, (threads, pid, interrupts))] = done
    assert (task, threads, interrupts) == ("fine", 3, signal.SIG_IGN)
    assert pid != os.getpid()
    assert ("fine", {"text": "done"}) in events
    assert any(name == "until stopped" for name, _ in events)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_worker_that_is_killed_is_one_clear_error():
    with pytest.raises(WorkerDied, match="killed") as caught:
        list(run_tasks(act, ["die", "until stopped"], workers=2, threads=1, report=Events()))
    assert "\n" not in str(caught.value)
