"""Jobs on all cores: whose they are, how they end, and that no process outlives its parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from twinscore.errors import InputError
from twinscore.execution import WorkerDied
from twinscore.images import parallel
from twinscore.images.quiet import quiet
from twinscore.images.transforms import silent

PATIENCE = 30.0
SCRIPT = """
import os
import sys
import time
from pathlib import Path

from twinscore.images import parallel

parallel._LEAST_FOR_PROCESSES = {least}
parallel.available_cores = lambda: 2


def work(job):
    Path("{folder}", f"job{{job}}-{{os.getpid()}}").touch()
    time.sleep({seconds})


try:
    parallel.for_each(work, 100, lambda *_: None)
except KeyboardInterrupt:
    sys.exit(130)
"""


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(params=["threads", "processes"])
def least(request):
    """From how many jobs on processes do them."""
    if request.param == "processes" and sys.platform != "linux":
        pytest.skip("processes on Linux only")
    return 10**6 if request.param == "threads" else 0


@pytest.fixture
def started(tmp_path, least):
    """A process in the middle of two slow jobs, and what does them."""
    script = SCRIPT.format(least=least, folder=tmp_path, seconds=0.5 if least else 60)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: len(list(tmp_path.glob("job*"))) >= 2, "two jobs")
    yield process, [int(path.name.partition("-")[2]) for path in tmp_path.glob("job*")]
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)


def test_ctrl_c_ends_at_once_and_in_silence(started):
    process, family = started
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    _, said = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - began < 3  # the jobs take 60 s, or in threads 25
    assert (process.returncode, said) == (130, "")
    wait_for(lambda: not any(map(alive, family)), "the processes to end")


def test_what_is_killed_leaves_no_process(started):
    process, family = started
    process.kill()
    process.wait(PATIENCE)
    wait_for(lambda: not any(map(alive, family)), "the processes to end")


def test_jobs_of_two_threads_do_not_mix(monkeypatch, least):
    monkeypatch.setattr(parallel, "_LEAST_FOR_PROCESSES", least)
    outcomes, second = {}, threading.Event()

    def first_of_all(job):
        second.wait(0.05)
        return job

    def run(name, work):
        outcomes[name] = parallel.for_each(work, 40, silent)

    def then(job):
        second.set()
        return -job

    pair = [threading.Thread(target=run, args=args) for args in (("a", first_of_all), ("b", then))]
    for thread in pair:
        thread.start()
    for thread in pair:
        thread.join(PATIENCE)
    assert outcomes == {"a": list(range(40)), "b": [-job for job in range(40)]}


@pytest.mark.skipif(sys.platform != "linux", reason="processes on Linux only")
def test_a_killed_process_is_one_error_within_seconds(monkeypatch):
    monkeypatch.setattr(parallel, "_LEAST_FOR_PROCESSES", 0)

    def work(job):
        if job == 17:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)

    began = time.monotonic()
    with pytest.raises(WorkerDied, match=r"^a process that was reading images was killed by SIGK"):
        parallel.for_each(work, 10**4, silent)
    assert time.monotonic() - began < 5
    assert not multiprocessing.active_children()


def test_nothing_is_left_after_an_error_or_an_interruption(monkeypatch, least):
    monkeypatch.setattr(parallel, "_LEAST_FOR_PROCESSES", least)
    threads = threading.active_count()

    def work(job):
        if job == 30:
            raise InputError("thirty")

    def interrupt(done, number):
        raise KeyboardInterrupt

    with pytest.raises(InputError, match="thirty"):
        parallel.for_each(work, 100, silent)
    with pytest.raises(KeyboardInterrupt):
        parallel.for_each(work, 100, interrupt)
    assert not multiprocessing.active_children()
    assert threading.active_count() == threads
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_process_that_may_not_start_others_uses_threads(monkeypatch):
    monkeypatch.setattr(parallel, "_LEAST_FOR_PROCESSES", 0)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert set(parallel.for_each(lambda job: os.getpid(), 40, silent)) == {os.getpid()}


def test_silence_in_many_threads_leaves_the_filters_as_they_were():
    before, interval = list(warnings.filters), sys.getswitchinterval()

    def often():
        for _ in range(300):
            with quiet():
                warnings.warn("about what nobody reads", stacklevel=1)

    sys.setswitchinterval(1e-6)
    try:
        pair = [threading.Thread(target=often) for _ in range(4)]
        for thread in pair:
            thread.start()
        for thread in pair:
            thread.join(PATIENCE)
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before
