"""What trainings will take: steps on a clock of our own, and what is said of them."""

import pytest
import torch

from twinscore import environment
from twinscore.denoisers import NetworkSpec
from twinscore.environment import Execution
from twinscore.experiments import budget
from twinscore.training import TrainingSpec

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

        monkeypatch.setattr(budget, "fit", fit)
        return trained

    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(budget, "single_device", lambda name: None)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    return ticking


def seconds_of(batch, device="cpu", threads=1):
    training = TrainingSpec(steps=1000, batch=batch, evaluations=3)
    return budget.training_seconds(NETWORK, training, SHAPE, device, threads=threads)


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
    monkeypatch.setattr(budget.statistics, "median", lambda laps: made.extend(laps) or 1.0)
    clock(1.0)
    seconds_of(8)
    assert made == pytest.approx([8 + OVERHEAD])


def test_a_real_training_is_timed_with_its_average():
    """Whatever the machine is busy with: more than nothing, and steps count."""
    for training in (TrainingSpec(batch=2), TrainingSpec(batch=2, ema=0.9, clip=1.0)):
        found = budget.training_seconds(NETWORK, training, (3, 8, 8), "cpu", threads=1)
        assert 0 < found / training.steps < 60


GB = 10**9


@pytest.mark.parametrize(
    ("networks", "work", "how", "expected"),
    [
        (1, 0.2, (1, 1), "1 network: about a second and 2 GB of memory"),
        (2, 80.0, (2, 1), "2 networks: about 40 seconds and 4 GB of memory"),
        (1, 80.0, (2, 1), "1 network: about 80 seconds and 2 GB of memory"),
        (4, 1200.0, (2, 2), "4 networks: about 5.0 minutes and 4 GB of memory"),
        (3, 900.0, (2, 1), "3 networks: about 10.0 minutes and 4 GB of memory"),  # two, then one
        (2, 72000.0, (2, 1), "2 networks: about 10.0 hours and 4 GB of memory"),
        (8, 480.0, (8, 1), "8 networks: about 2.0 minutes and 16 GB of memory"),  # on four cores
    ],
)
def test_estimates_in_words(monkeypatch, networks, work, how, expected):
    monkeypatch.setattr(environment, "available_cores", lambda: 4)
    needed = budget.Cost(weights=2 * GB, activations=0, images=0)
    assert budget.said(networks, work, needed, Execution("cpu", *how)) == expected


def test_an_accelerator_is_one_however_many_use_it():
    needed = budget.Cost(weights=2 * GB, activations=0, images=0)
    said = budget.said(3, 600.0, needed, Execution("cuda", 2, 4))
    assert said == "3 networks: about 10.0 minutes and 4 GB of memory"
