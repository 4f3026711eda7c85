"""Tasks run here or on a pool, with the threads asked for; one that fails stops the others."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import spawn

import pytest
import torch

from twinscore import workers
from twinscore.errors import InputError
from twinscore.execution import WorkerDied, run_tasks, settled_torch
from twinscore.interrupts import SIGNALS

PATIENCE = 60.0


def square(task, report):
    report(task, {"step": 1, "steps": 1})
    return int(task) ** 2, torch.get_num_threads(), os.getpid()


def act(task, report):
    """Work like a trial: 'until stopped' reports for ever, as a long training does."""
    if task == "fine":
        report(task, {"text": "done"})
        return torch.get_num_threads(), os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, [])
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
    with settled_torch(before + 2):
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
    [(task, (threads, pid, blocked))] = done
    assert (task, threads) == ("fine", 3)
    assert set(SIGNALS) <= blocked
    assert pid != os.getpid()
    assert ("fine", {"text": "done"}) in events
    assert any(name == "until stopped" for name, _ in events)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_worker_that_is_killed_is_one_clear_error():
    with pytest.raises(WorkerDied, match="killed") as caught:
        list(run_tasks(act, ["die", "until stopped"], workers=2, threads=1, report=Events()))
    assert "\n" not in str(caught.value)


# What ends a worker is said as far as it is known


def end_by(task, report):
    if task.startswith("signal"):
        os.kill(os.getpid(), int(task.split()[1]))
    os._exit(int(task.split()[1]))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (f"signal {signal.SIGBUS.value}", ["SIGBUS", "became shorter"]),
        (f"signal {signal.SIGSEGV.value}", ["SIGSEGV)"]),
        ("code 7", ["exit code 7"]),
    ],
)
def test_what_ended_a_worker_is_not_guessed(task, said):
    with pytest.raises(WorkerDied) as caught:
        list(run_tasks(end_by, [task, task], workers=2, threads=1, report=Events()))
    assert all(each in str(caught.value) for each in [*said, "run the same command again"])
    assert "memory" not in str(caught.value)


def test_a_worker_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(spawn, "get_executable", lambda: "/nowhere/python")
    with pytest.raises(WorkerDied, match=r"could not start: .*No such file"):
        list(run_tasks(square, ["1", "2"], workers=2, threads=1, report=Events()))


class Unsendable(Exception):  # noqa: N818
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def raise_unsendable(task, report):
    raise Unsendable("this", "that")


def test_an_exception_that_cannot_be_sent_is_told_by_its_text():
    with pytest.raises(RuntimeError, match="Unsendable: this that"):
        list(run_tasks(raise_unsendable, ["1"], workers=2, threads=1, report=Events()))


# A worker outlives neither its parent nor the word to stop


def sleep_deaf(task, report):
    report(task, {"text": str(os.getpid())})
    time.sleep(PATIENCE)


def test_a_worker_that_does_not_listen_is_ended():
    began = []

    def interrupt(name, event):
        began.append((time.monotonic(), int(event["text"])))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(run_tasks(sleep_deaf, ["1"], workers=2, threads=1, report=interrupt))
    [(told, pid)] = began
    assert 0 < time.monotonic() - told < workers.PATIENCE + 3
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# Programs that workers cannot or must not import

PROGRAM = """
import sys
from twinscore.execution import run_tasks
{definition}
outcomes = run_tasks({name}, ["4", "-1"], workers=2, threads=1, report=print)
print(sorted(done for _, done in outcomes))
"""
DEFINITION = "def work(task, report):\n    return abs(int(task))\n"
IMPORTED = {"definition": "from named import work", "name": "work"}
OWN = {"definition": DEFINITION, "name": "work"}
GUARDED = DEFINITION + 'if __name__ != "__main__":\n    run_tasks = lambda *_, **__: []\n'


@pytest.mark.parametrize(
    ("how", "parts", "said"),
    [
        ("stdin", IMPORTED, "[1, 4]"),
        ("script", IMPORTED, "[1, 4]"),
        ("script", OWN | {"definition": GUARDED}, "[1, 4]"),
        ("stdin", OWN, "workers cannot import"),
        ("script", OWN, '"__main__"'),
    ],
)
def test_workers_need_the_main_program_only_where_tasks_refer_to_it(tmp_path, how, parts, said):
    (tmp_path / "named.py").write_text(DEFINITION)
    text = PROGRAM.format(**parts)
    (tmp_path / "script.py").write_text(text)
    words = {"stdin": ["-"], "script": ["script.py"]}[how]
    done = subprocess.run(
        [sys.executable, *words],
        input=text,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=PATIENCE,
    )
    if said.startswith("["):
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1] == said
    else:
        last = done.stderr.splitlines()[-1]
        assert "InputError: workers: " in last
        assert said in last
