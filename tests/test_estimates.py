"""What trainings will take: steps on a clock of our own, and what is said of them."""

from types import SimpleNamespace

import pytest
import torch

from twinscore import environment
from twinscore.denoisers import NetworkSpec
from twinscore.environment import Execution
from twinscore.experiments import estimates
from twinscore.training import TrainingSpec, memory, timing

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

NETWORK = NetworkSpec(kind="bf_cnn", width=2, layers=3)
SHAPE = (1, 64, 64)  # 16 images are as many pixels as a CPU is timed with
WARM_UP, OVERHEAD = 100.0, 0.01


@pytest.fixture
def clock(monkeypatch):
    """Trainings that take no time but on a clock: ``clock(a)`` sets seconds of an image.

    Returns the list of what was trained: batches and threads.
    """
    trained, now = [], [0.0]

    def ticking(seconds):
        def fit(denoiser, images, spec, *, fabric, on_step):
            assert tuple(images.shape[1:]) == SHAPE
            trained.append((spec.batch, torch.get_num_threads()))
            for step in range(1, spec.steps + 1):
                now[0] += WARM_UP * (step == 1) + OVERHEAD + seconds * spec.batch
                on_step(step, None)

        monkeypatch.setattr(timing, "fit", fit)
        return trained

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "single_device", lambda name: None)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    return ticking


def seconds_of(batch, device="cpu", threads=1):
    training = TrainingSpec(steps=1000, batch=batch, evaluations=3)
    return timing.training_seconds(NETWORK, training, SHAPE, device, threads=threads)


def steps_of(batch):
    """1000, and 3 times 64 images of two sets at 7 noise levels, forward."""
    return 1000 + 3 * 2 * 64 * 7 / (3 * batch)


@pytest.mark.parametrize(
    ("device", "batch", "image", "timed", "step"),
    [
        ("cpu", 8, 0.001, [8], OVERHEAD + 0.008),
        ("cpu", 32, 0.001, [16, 32], OVERHEAD + 0.032),  # a short step is made whole
        ("cpu", 32, 1.0, [16], 2 * OVERHEAD + 32),  # a long one is not
        ("cuda", 512, 1.0, [512], OVERHEAD + 512),
    ],
)
def test_a_training_is_its_steps_without_the_first(clock, device, batch, image, timed, step):
    trained = clock(image)
    assert seconds_of(batch, device) == pytest.approx(step * steps_of(batch))
    assert trained == [(size, 1) for size in timed]


@pytest.mark.parametrize(("device", "factor"), [("cpu", 3), ("cuda", 1)])
def test_threads_are_those_of_a_worker(clock, device, factor):
    before = torch.get_num_threads()
    trained = clock(0.001)
    found = seconds_of(8, device, threads=3)
    assert found == pytest.approx(factor * (OVERHEAD + 0.008) * steps_of(8))
    assert trained == [(8, 3)]
    assert torch.get_num_threads() == before


def test_slow_steps_are_few(clock, monkeypatch):
    made = []
    monkeypatch.setattr(timing.statistics, "median", lambda laps: made.extend(laps) or 1.0)
    clock(1.0)
    seconds_of(8)
    assert made == pytest.approx([8 + OVERHEAD])


def test_a_real_training_is_timed_with_its_average():
    """However busy the machine is: more than nothing, and steps count."""
    for training in (TrainingSpec(batch=2), TrainingSpec(batch=2, ema=0.9, clip=1.0)):
        found = timing.training_seconds(NETWORK, training, (3, 8, 8), "cpu", threads=1)
        assert 0 < found / training.steps < 60


GB = 10**9


@pytest.mark.parametrize(
    ("networks", "work", "how", "seconds"),
    [
        (1, 0.2, (1, 1), 0.2),
        (2, 80.0, (2, 1), 40),
        (1, 80.0, (2, 1), 80),
        (4, 1200.0, (2, 2), 300),
        (3, 900.0, (2, 1), 600),  # two, then one
        (8, 480.0, (8, 1), 120),  # on four cores
    ],
)
def test_workers_share_the_cores(monkeypatch, networks, work, how, seconds):
    monkeypatch.setattr(environment, "available_cores", lambda: 4)
    assert estimates.by_the_clock(networks, work, Execution("cpu", *how)) == seconds


def test_an_accelerator_is_one_however_many_use_it():
    assert estimates.by_the_clock(3, 600.0, Execution("cuda", 2, 4)) == 600


@pytest.mark.parametrize(
    ("seconds", "memory", "disk", "text"),
    [
        (0.2, 2 * GB, 5_400_000, "a second, 2.0 GB of memory and 5.4 MB of disk"),
        (80, 123_456_789, 12 * GB, "80 seconds, 123 MB of memory and 12 GB of disk"),
        (300, 1, 1, "5.0 minutes, less than 1 kB of memory and less than 1 kB of disk"),
        (36000, 1500, 1e12, "10.0 hours, 1.5 kB of memory and 1.0 TB of disk"),
        (3 * 86400, 1500, 1e12, "3.0 days, 1.5 kB of memory and 1.0 TB of disk"),
    ],
)
def test_an_estimate_is_one_line(seconds, memory, disk, text):
    assert (
        estimates.Estimate("4 networks", seconds, memory, disk).text()
        == f"4 networks: about {text}"
    )


def test_trainings_count_what_is_measured_and_kept(clock, monkeypatch):
    monkeypatch.setattr(environment, "available_cores", lambda: 4)
    clock(0.001)
    training = TrainingSpec(steps=1000, batch=8, evaluations=3)
    spec = SimpleNamespace(network=NETWORK, training=training)
    how = Execution("cpu", 2, 1)

    def estimate(left, **more):
        return estimates.of_trainings(lambda spec: estimates.Needs(SHAPE, **more), spec, left, how)

    plain, cost = estimate(4), memory.cost(NETWORK, 8, SHAPE)
    each = (OVERHEAD + 0.008) * steps_of(8)
    assert plain.seconds == pytest.approx(2 * each)
    assert plain.memory == 2 * (memory.PROCESS + cost.total)
    assert plain.disk == 4 * cost.parameters + 2 * cost.weights
    assert estimate(4, passes=8000).seconds == pytest.approx(2 * each * 4 / 3)
    assert estimate(4, seconds=lambda device: 7.0).seconds == pytest.approx(2 * (each + 7))
    assert estimate(4, stored=10).disk == plain.disk + 40
