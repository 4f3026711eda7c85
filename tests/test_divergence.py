"""The KL bound between the twins of a transition: known answers, and that it is kept."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from twinscore import environment, runs
from twinscore.denoisers import Checkpoint, NetworkSpec
from twinscore.denoisers.closed_form import Gaussian
from twinscore.denoisers.layers import generator_of
from twinscore.experiments import divergence, transition
from twinscore.experiments.trials import open_images
from twinscore.report import reading, style, transition_content, transition_kl
from twinscore.results.transition import Result
from twinscore.sampling import SamplingSpec
from twinscore.training import TrainingSpec

SPEC = transition.Spec(
    sizes=(2, 5),
    test=6,
    samples=5,
    network=NetworkSpec(width=2, levels=1),
    training=TrainingSpec(steps=4, batch=4, evaluations=1),
    sampling=SamplingSpec(steps=2),
)
SHAPE, D = (1, 8, 8), 64
NUMBERS = {"a": (0.4, 0.02), "b": (0.5, 0.04)}
"""Mean and variance of all pixels of what either twin draws."""


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """One core."""
    monkeypatch.setattr(environment, "available_cores", lambda: 1)


@pytest.fixture
def compared(monkeypatch):
    """Names of the pairs that are compared, and not read."""
    found, compute = [], divergence.variance_integral

    def counted(*arguments, **options):
        found.append(len(arguments[1]))
        return compute(*arguments, **options)

    monkeypatch.setattr(divergence, "variance_integral", counted)
    return found


@dataclass
class Counted:
    """An exact posterior mean that counts the images it denoises."""

    best: Gaussian
    images: int = 0

    def __call__(self, y, sigma):
        self.images += len(y)
        return self.best(y, sigma)


@pytest.fixture
def gaussians(monkeypatch):
    """Twins that are the posterior means of two isotropic Gaussians, in place of networks."""
    twins = {
        twin: Counted(Gaussian.of(torch.full(SHAPE, mean), variance * torch.eye(D)))
        for twin, (mean, variance) in NUMBERS.items()
    }

    def read(path, custom, key):
        return Checkpoint(twins[path.name.split("-")[1]], SHAPE, (0.3,))

    monkeypatch.setattr(divergence, "read", read)
    return twins


def drawn(spec, trial, report):
    """Samples of those Gaussians, of which the path of the third was lost."""
    mean, variance = NUMBERS[trial.twin]
    generator = generator_of(trial.replicate + 10 * (trial.twin == "b"))
    samples = mean + variance**0.5 * torch.randn(spec.samples, *SHAPE, generator=generator)
    samples[2] = 0
    return {"samples": samples.numpy()}


def here(function, tasks):
    return ((task, function(task, lambda *_: None)) for task in tasks)


def result_of(spec, folder, work=drawn):
    """What is added to the result of a run."""
    trials = [t.placed(folder, "", "cpu", None) for t in transition.trials(spec, lambda *_: None)]
    empty = Result.model_construct(twins_kl=[])
    return divergence.add_divergence(spec, trials, empty, here, work).twins_kl


def kl(p, q, sigma):
    """Between isotropic Gaussians with noise added, nats."""
    (m, v), (other, w) = NUMBERS[p], NUMBERS[q]
    ratio = (v + sigma**2) / (w + sigma**2)
    return D / 2 * (ratio - 1 - math.log(ratio) + (m - other) ** 2 / (w + sigma**2))


# Known answers


def test_bounds_between_posterior_means_are_differences_of_divergences(gaussians, tmp_path):
    """Exact posterior means make eq. 5 an equality; 127 samples: 4 standard errors, 2 intervals."""
    spec = SPEC.model_copy(update={"samples": 300, "sizes": (2,)})
    [found] = result_of(spec, tmp_path)
    assert (found.n, found.sigma_min, found.sigma_max) == (2, 0.05, 1.0)
    for bound, pair in ((found.a_from_b, "ab"), (found.b_from_a, "ba")):
        expected = kl(*pair, 0.05) - kl(*pair, 1.0)
        assert abs(bound.value - expected) < bound.high - bound.low
        assert bound.high - bound.low < 0.2 * expected
        assert (bound.method, bound.covers) == ("Student's t", "samples")
    assert found.a_from_b.high < found.b_from_a.low  # so that the two cannot be confused


def test_the_variance_is_half_the_squared_distance_at_every_level(gaussians, tmp_path):
    spec = SPEC.model_copy(update={"test": 200, "sizes": (2,)})
    [found] = result_of(spec, tmp_path)
    trial = transition.trials(spec, lambda *_: None)[0]
    x = open_images("digits")[trial.test[: divergence.MOST]].double()
    of = found.by_level
    assert len(of.sigma) == divergence.LEVELS
    assert (of.sigma[0], of.sigma[-1]) == (1.0, 0.05)
    for sigma, value, low, high in zip(of.sigma, of.variance, of.low, of.high, strict=True):
        gains = {twin: v / (v + sigma**2) for twin, (_, v) in NUMBERS.items()}
        slope = gains["a"] - gains["b"]
        offset = sum(s * (1 - gains[t]) * NUMBERS[t][0] for t, s in (("a", 1), ("b", -1)))
        squares = ((slope * x + offset) ** 2).sum() / len(x) + slope**2 * sigma**2 * D
        assert abs(value - squares.item() / 2) < high - low
        assert high - low < 0.5 * value
    assert found.variance.low > 0
    assert found.variance.covers == "images"


def test_the_estimate_counts_every_image_that_twins_denoise(gaussians, tmp_path):
    result_of(SPEC.model_copy(update={"samples": 6, "sizes": (3,)}), tmp_path)
    five = SPEC.model_copy(update={"samples": 5})  # one of six was lost
    for twin in gaussians.values():
        assert twin.images == divergence.passes(five)
    need = transition.STUDY.estimate.args[0](five)
    assert need.passes == transition.needs(five).passes + divergence.passes(five)


def test_replicates_give_intervals_over_replicates(gaussians, tmp_path):
    spec = SPEC.model_copy(update={"samples": 40, "sizes": (2,), "replicates": 3})
    [found] = result_of(spec, tmp_path)
    assert len(list((tmp_path / "twins_kl").iterdir())) == 3
    for bound, pair in ((found.a_from_b, "ab"), (found.b_from_a, "ba")):
        assert bound.low < kl(*pair, 0.05) - kl(*pair, 1.0) < bound.high
        assert (bound.method, bound.covers) == ("Student's t", "replicates")
    assert found.variance.covers == "replicates"
    assert all(np.array(found.by_level.low) < found.by_level.variance)


def test_fewer_than_two_samples_bound_nothing(gaussians, tmp_path):
    def lost(spec, trial, report):
        found = drawn(spec, trial, report)["samples"]
        found[1 if trial.twin == "a" else 4 :] = 0
        return {"samples": found}

    for found in result_of(SPEC, tmp_path, lost):
        assert found.a_from_b is None
        assert found.b_from_a.value > 0
        assert found.variance.value > 0


@pytest.mark.parametrize(("most", "least"), [(1.0, 0.05), (3.0, 0.05), (0.1, 0.005)])
def test_integrals_begin_well_below_the_largest_level(most, least):
    training = SPEC.training.model_copy(update={"sigma_max": most})
    ends = divergence.ends(SPEC.model_copy(update={"training": training}))
    assert ends == (pytest.approx(least), most)


# In a run


def kept(folder):
    return {path: path.read_bytes() for path in sorted((folder / "twins_kl").iterdir())}


def test_a_run_compares_its_twins_once(tmp_path, compared):
    short = SPEC.model_copy(update={"sizes": (2,)})
    first = transition.run(short, tmp_path, device="cpu").result
    assert compared == [6]
    extended = transition.run(SPEC, tmp_path, device="cpu").result
    assert compared == [6, 6]
    assert [found.n for found in extended.twins_kl] == [2, 5]
    assert extended.twins_kl[0] == first.twins_kl[0]
    written, files = (tmp_path / "result.json").read_bytes(), kept(tmp_path)
    assert Result.model_validate(runs.read_json(tmp_path / "result.json")) == extended
    spoilt = next(iter(files))
    spoilt.write_bytes(files[spoilt][:-1] + bytes([files[spoilt][-1] ^ 1]))
    again = transition.run(SPEC, tmp_path, device="cpu")
    assert compared == [6, 6, 6]
    assert again.result == extended
    assert (tmp_path / "result.json").read_bytes() == written
    assert kept(tmp_path) == files
    log = (tmp_path / "log.txt").read_text()
    assert f"{spoilt}: was changed after it was written" in log
    assert log.count("trained; comparing the twins") == 3


def drawing(folder):
    with style.applied("light") as theme:
        return transition_kl.twins_kl.draw(reading.read(folder), theme)


def test_the_page_draws_and_says_it_and_older_folders_lack_it(tmp_path):
    transition.run(SPEC, tmp_path, device="cpu")
    left, right = drawing(tmp_path).axes
    assert (left.get_yscale(), right.get_yscale(), right.get_xscale()) == ("log",) * 3
    assert left.get_ylabel() == "nats"
    assert [line.get_label() for line in right.lines] == ["N = 2", "N = 5"]
    run = reading.read(tmp_path)
    said = [n for n in transition_content.content(run).notes if "KL(A‖B) is at most" in n]
    assert [note.split(":")[0] for note in said] == ["N = 2", "N = 5"]
    caption = transition_kl.twins_kl.caption(run)
    assert "from σ = 0.05 to 1" in caption.text
    assert "twins that miss the optimum in the same way agree" in caption.text

    old = json.loads((tmp_path / "result.json").read_text())
    old["twins_kl"][0]["a_from_b"] = None
    runs.write_json(tmp_path / "result.json", old)
    assert drawing(tmp_path)
    del old["twins_kl"]
    runs.write_json(tmp_path / "result.json", old)
    assert reading.read(tmp_path).result.twins_kl == []
    assert drawing(tmp_path) is None
