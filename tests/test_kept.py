"""Checkpoints that trainings keep: where they are, that they are models, and what they show."""

import json

import numpy as np
import pytest
import torch

from twinscore import denoisers, images
from twinscore.denoisers import NetworkSpec, build
from twinscore.errors import Damaged
from twinscore.experiments import checkpoints, train, transition
from twinscore.experiments.trials import Trial
from twinscore.report import page
from twinscore.results.base import Interval, Kept, Turn, Window
from twinscore.sampling import SamplingSpec
from twinscore.training import TrainingSpec, fit

pytestmark = pytest.mark.usefixtures("cheap")

NETWORK = NetworkSpec(width=4, levels=1)
TRAINING = TrainingSpec(steps=40, batch=4, evaluations=2, schedule="constant")
SPEC = transition.Spec(
    sizes=(12,),
    test=16,
    samples=4,
    network=NETWORK,
    training=TRAINING,
    sampling=SamplingSpec(steps=3),
    checkpoints=4,
)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.parametrize("ema", [None, 0.9])
def test_what_is_kept_is_what_a_shorter_training_gives(fabric, ema):
    """At a constant rate the first steps do not know how many follow."""
    pictures = images.load("digits")[:12]
    spec = TRAINING.model_copy(update={"ema": ema})
    kept = {}
    whole = fit(
        build(NETWORK, 1, 0),
        pictures,
        spec,
        fabric=fabric,
        keep_at=(7, 40),
        keep=lambda step, model: kept.update({step: weights(model)}),
    )
    short = spec.model_copy(update={"steps": 7})
    assert list(kept) == [7, 40]
    assert same(kept[40], weights(whole))
    alone = fit(build(NETWORK, 1, 0), pictures, spec, fabric=fabric)
    assert same(weights(alone), weights(whole))
    assert same(kept[7], weights(fit(build(NETWORK, 1, 0), pictures, short, fabric=fabric)))


def test_steps_are_spaced_in_their_logarithm():
    def steps(count, total):
        training = TrainingSpec(steps=total)
        trial = Trial(
            source="",
            data_digest="",
            indices=np.arange(3),
            test=np.arange(3),
            mean=(0.0,),
            seed=0,
            network=NETWORK,
            training=training,
            checkpoints=count,
        )
        return list(trial.kept)

    assert steps(None, 100) == []
    assert steps(4, 10_000) == [10, 100, 1000, 10_000]
    assert steps(9, 4) == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return transition.run(SPEC, tmp_path_factory.mktemp("runs") / "run", device="cpu")


def test_every_training_keeps_models(finished):
    trials = sorted(finished.folder.glob("trials/*"))
    assert len(trials) == 2
    for trial in trials:
        files = sorted(trial.glob("checkpoints/*"))
        assert [file.stem for file in files] == ["step-01", "step-06", "step-40"]
    last, whole = (weights(denoisers.load(path).denoiser) for path in (files[-1], folder))
    assert same(last, whole)
    before = [file.stat().st_mtime_ns for file in files]
    train.run(spec, folder, device="cpu")
    assert [file.stat().st_mtime_ns for file in files] == before


def kept(step, p):
    one = Interval(value=1, low=1, high=1)
    return Kept(step=step, model=str(step), error=one, energy=None, auc=one, p=p)


@pytest.mark.parametrize(
    ("p", "mem", "stop"),
    [((0.5, 0.5), None, 2), ((0.5, 0.01), (2, 1), 1), ((0.01, 0.01), (1, None), None)],
)
def test_training_may_go_on_until_the_last_that_is_not_rejected(p, mem, stop):
    turn = None if mem is None else Turn(value=mem[0], low=mem[1])
    checkpoints = [kept(i + 1, of) for i, of in enumerate(p)]
    window = Window(tau_gen=Turn(value=1, low=None), tau_mem=turn, checkpoints=checkpoints)
    assert (window.stop and window.stop.step) == stop
