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
        assert [file.stem for file in files] == ["step-01", "step-03", "step-12", "step-40"]
        last = denoisers.load(files[-1])
        assert same(weights(last.denoiser), weights(denoisers.load(trial).denoiser))
        assert last.shape == (1, 8, 8)
        assert not same(weights(last.denoiser), weights(denoisers.load(files[0]).denoiser))


def test_the_result_has_a_window_for_every_training(finished):
    [of] = json.loads((finished.folder / "result.json").read_text())["along"]
    assert (of["n"], len(of["windows"])) == (12, 2)
    for window in of["windows"]:
        assert set(window) == {"tau_gen", "tau_mem", "checkpoints"}
        assert [kept["step"] for kept in window["checkpoints"]] == [1, 3, 12, 40]
        assert all(0 < kept["p"] <= 1 for kept in window["checkpoints"])
        assert min(kept["error"]["value"] for kept in window["checkpoints"]) >= 1 - 1e-9
        assert (finished.folder / window["checkpoints"][0]["model"]).is_file()
    assert "N = 12: quality from step" in finished.result.table()
    assert "turns" in page.figures(finished.folder)


def test_a_run_that_is_finished_measures_nothing_again(finished, monkeypatch):
    [kept] = finished.folder.glob("trials/n00012-a-*/along-*.safetensors")
    monkeypatch.setattr(checkpoints.along, "copied", None)
    assert transition.run(SPEC, finished.folder, device="cpu").result == finished.result
    monkeypatch.undo()
    kept.unlink()
    assert transition.run(SPEC, finished.folder, device="cpu").result == finished.result


def test_a_checkpoint_that_is_lost_is_made_again(finished):
    [file] = finished.folder.glob("trials/n00012-b-*/checkpoints/step-03.safetensors")
    before = file.read_bytes()
    file.unlink()
    transition.run(SPEC, finished.folder, device="cpu")
    assert file.read_bytes() == before


def test_a_checkpoint_of_another_step_is_refused(finished):
    [trial] = finished.folder.glob("trials/n00012-a-*")
    first, second = (trial / "checkpoints" / f"step-{n}.safetensors" for n in ("01", "03"))
    kept, [measured] = first.read_bytes(), list(trial.glob("along-*.safetensors"))
    arrays = measured.read_bytes()
    first.write_bytes(second.read_bytes())
    measured.unlink()
    with pytest.raises(Damaged, match="step-01"):
        transition.run(SPEC, finished.folder, device="cpu")
    first.write_bytes(kept)
    measured.write_bytes(arrays)


def test_without_a_deal_nothing_is_tested(finished):
    """The lists of a folder were dealt by nobody knows whom."""
    spec = SPEC.model_copy(update={"split": str(finished.folder / "splits" / "r0")})
    done = []
    for trial in transition.all_trials(spec, lambda *_: None):
        arrays = {"errors": np.ones((4, 28, 7)), "energy": np.full((4, 3), np.nan)}
        arrays["copied"] = arrays["energy"]
        placed = trial.placed(finished.folder, "", "cpu", None)
        done.append((placed, {f"along/{name}": of for name, of in arrays.items()}))
    [along] = checkpoints.of_sizes(spec, done)
    assert all(not of.tested and of.tau_mem is None for of in along.windows)
    assert "memory is not testable" in along.windows[0].text()
    declared = spec.model_copy(update={"dealt_at_random": True})
    [along] = checkpoints.of_sizes(declared, done)
    assert all(of.tested and of.tau_mem is None for of in along.windows)  # errors are all alike


def test_a_single_training_keeps_them_too(tmp_path):
    spec = train.Spec(n=12, test=8, network=NETWORK, training=TRAINING, checkpoints=3)
    folder = train.run(spec, tmp_path / "model", device="cpu").folder
    files = sorted(folder.glob("checkpoints/*"))
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
    each = [kept(i + 1, of) for i, of in enumerate(p)]
    window = Window(tau_gen=Turn(value=1, low=None), tau_mem=turn, checkpoints=each)
    assert (window.stop and window.stop.step) == stop
