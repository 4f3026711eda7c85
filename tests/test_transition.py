"""The transition study, end to end: what a run folder holds, and that running again is cheap."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from importlib import metadata
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from twinscore import cli, environment, images, runs
from twinscore.analysis.verdict import Thresholds
from twinscore.denoisers import NetworkSpec, load
from twinscore.denoisers.user_files import called
from twinscore.errors import InputError
from twinscore.experiments import transition, twins
from twinscore.experiments.transition import Result, Spec
from twinscore.experiments.trials import factory_identity
from twinscore.report import page, style
from twinscore.results.transition import CriticalN, Verdict
from twinscore.sampling import SamplingSpec
from twinscore.training import TrainingError, TrainingSpec, memory

SIGMAS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]
SPEC = Spec(
    sizes=(5, 2),
    test=6,
    samples=7,
    network=NetworkSpec(width=16, levels=1),
    training=TrainingSpec(steps=20, batch=4, evaluations=2),
    sampling=SamplingSpec(steps=3),
)
SMALL = SPEC.model_copy(update={"network": NetworkSpec(width=2, levels=1)})


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """One thread: two that share a busy core wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return transition.run(SPEC, tmp_path_factory.mktemp("runs") / "finished", device="cpu")


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished.folder, tmp_path / "run")


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the encoding of figures out, which takes seconds."""
    monkeypatch.setattr(style, "settle", lambda figure: figure)
    for kind in ("svg", "png", "pdf"):
        monkeypatch.setattr(style, kind, lambda *_: b"")


def content(folder):
    """The bytes that a run promises to repeat."""
    names = ["result.json", "arrays.safetensors", "levels.csv", "images.csv", "spec.json"]
    weights = sorted(folder.glob("trials/*/weights.safetensors"))
    return {p.relative_to(folder): p.read_bytes() for p in [folder / n for n in names] + weights}


def written_at(folder):
    return {p: p.stat().st_mtime_ns for p in sorted(folder.glob("trials/*/[!.]*"))}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# What a run folder holds


def test_result_has_the_documented_names_and_no_others(finished):
    result = json.loads((finished.folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert set(result) == {
        *("schema_version", "sha256", "study", "complete", "missing", "arrays", "verdict"),
        *(
            "critical_n",
            "critical_n_phrase",
            "closest_pairs",
            "held_out_nearest",
            "data",
            "levels",
            "harmonics",
            "twins_kl",
            "along",
        ),
    }
    assert (result["schema_version"], result["study"]) == (3, "transition")
    assert (result["complete"], result["missing"]) == (True, [])
    assert [level["n"] for level in result["levels"]] == [2, 5]
    for level in result["levels"]:
        assert set(level) == {
            *("n", "verdict", "why", "memorisation", "agreement", "alike", "excess", "copies"),
            *("learned", "twin_similarity", "nearest_similarity", "memorised_fraction"),
            *("control_fraction", "diversity", "closest_pairs", "held_out_nearest"),
            *("held_out_quantiles", "unfinished_samples", "warnings", "psnr", "psnr_gap"),
        }
        assert level["verdict"] in get_args(Verdict)
        number = {"value", "low", "high", "method", "covers"}
        assert set(level["memorisation"]) == number | {"p", "others"}
        assert set(level["copies"]) == {"a", "b"}
        assert set(level["learned"]) == {"passed", "gain_db", "samples", "why"}
        assert level["learned"]["passed"] == (not level["learned"]["why"])
        found = [level[name] for name in ("agreement", "alike", "excess")]
        for interval in [*found, level["learned"]["gain_db"], *level["copies"].values()]:
            assert set(interval) == number
            assert interval["low"] <= interval["value"] <= interval["high"]
        nearest, copied = level["nearest_similarity"], level["memorised_fraction"]
        medians = [level["twin_similarity"], level["closest_pairs"], level["held_out_nearest"]]
        for median in [*medians, nearest["a"], nearest["b"]]:
            assert set(median) == {"value", "low", "high", "method", "covers"}
            assert -1 <= median["low"] <= median["value"] <= median["high"] <= 1 + 1e-6
        for side in "ab":
            assert set(copied[side]) == {"value", "low", "high", "method", "covers"}
            assert 0 <= copied[side]["low"] <= copied[side]["value"] <= copied[side]["high"] <= 1
        assert set(nearest) == set(copied) == set(level["diversity"]) == {"a", "b"}
        curves = {f"{part}{end}" for part in ("train", "test") for end in ("", "_low", "_high")}
        assert set(level["psnr"]) == curves | {"sigma"}
        assert level["psnr"]["sigma"] == SIGMAS
        for part in ("train", "test"):
            low, middle, high = (level["psnr"][part + end] for end in ("_low", "", "_high"))
            assert len(middle) == len(SIGMAS)
            assert all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True))


def test_result_validates_and_is_what_run_returned(finished):
    text = (finished.folder / "result.json").read_text()
    assert Result.model_validate_json(text) == finished.result
    with pytest.raises(ValueError, match="finite"):
        Result.model_validate_json(re.sub(r'"value": [^,]+', '"value": NaN', text, count=1))


def test_verdict_is_one_sentence_that_names_data_and_every_size(finished):
    verdict = finished.result.verdict
    assert re.fullmatch(r"On digits the denoiser [^\n]+ N = .*2.*5.*critical N: [^\n]+\.", verdict)


def test_levels_csv_repeats_the_result(finished):
    for row, level in zip(
        rows(finished.folder / "levels.csv"), finished.result.levels, strict=True
    ):
        assert next(iter(row)) == "n"
        assert int(row["n"]) == level.n
        assert row["verdict"] == level.verdict
        assert float(row["twin_similarity_value"]) == level.twin_similarity.value
        assert float(row["nearest_similarity_b_low"]) == level.nearest_similarity.b.low
        assert float(row["psnr_test_high_0.3"]) == level.psnr.test_high[3]


def test_votes_csv_has_a_row_for_each_sample_and_adds_up_to_the_index(finished):
    table, arrays = (
        rows(finished.folder / "votes.csv"),
        load_file(finished.folder / "arrays.safetensors"),
    )
    roles = {row["index"]: row["role_0"] for row in rows(finished.folder / "images.csv")}
    assert len(table) == 2 * 2 * 7
    for level in finished.result.levels:
        own = [row for row in table if int(row["n"]) == level.n]
        share = {
            twin: np.mean([row["half"] == "a" for row in own if row["twin"] == twin])
            for twin in "ab"
        }
        assert share["a"] - share["b"] == pytest.approx(level.memorisation.value)
        for row in own:
            assert roles[row["image"]][0] == row["half"]
            if row["half"] == row["twin"]:
                i = arrays[f"n{level.n:05d}/noise_seeds"].tolist().index(int(row["seed"]))
                near = arrays[f"n{level.n:05d}/nearest_similarity_{row['twin']}"][0, i]
                assert float(row["similarity"]) == pytest.approx(near, abs=1e-5)


def test_a_finished_run_is_judged_by_other_thresholds_without_training(finished, folder):
    before = written_at(folder)
    asked = SPEC.model_copy(
        update={"thresholds": Thresholds(gain_db=-100, factor=1000, energy=1000)}
    )
    done = transition.run(asked, folder, device="cpu")
    assert any(level.learned.why for level in finished.result.levels)
    assert not any(level.learned.why for level in done.result.levels)
    assert written_at(folder) == before
    transition.run(SPEC, folder, device="cpu")
    assert content(folder) == content(finished.folder)


def test_what_thresholds_were_not_there_before_are_the_defaults(finished, folder):
    """A folder of before, with other verdicts, is judged anew without training."""
    before, spec = written_at(folder), json.loads((folder / "spec.json").read_text())
    del spec["thresholds"]
    runs.write_json(folder / "spec.json", spec | {"schema_version": 2})
    transition.run(SPEC, folder, device="cpu")
    assert content(folder) == content(finished.folder)
    assert written_at(folder) == before


def test_replicates_have_noise_of_their_own():
    spec = SPEC.model_copy(update={"replicates": 2})
    trials = [t for t in transition.trials(spec, lambda *_: None) if (t.n, t.twin) == (2, "a")]
    first, second = (twins.key(spec, trial)["seeds"] for trial in trials)
    assert not set(first) & set(second)
    assert first == [runs.derive_seed(0, "image", i) for i in range(7)]


def test_images_csv_gives_order_content_and_role_of_every_image(finished):
    table, digits = rows(finished.folder / "images.csv"), images.load("digits")
    assert [int(row["index"]) for row in table] == list(range(len(digits)))
    assert tuple(row["name"] for row in table) == digits.names
    assert tuple(row["sha256"] for row in table) == digits.digests
    drop = images.near_duplicates(digits, threshold=0.95).drop
    split = images.twins(digits, 5, test=6, seed=0, among=np.flatnonzero(~drop))
    roles = [row["role_0"] for row in table]
    assert [roles[i] for i in split.a] == [f"a{k}" for k in range(5)]
    assert [roles[i] for i in split.b] == [f"b{k}" for k in range(5)]
    assert {i for i, role in enumerate(roles) if role == "test"} == set(split.test.tolist())
    assert [role == "near-duplicate" for role in roles] == drop.tolist()
    data = finished.result.data
    assert (data.images, data.dropped, data.test) == (len(digits), int(drop.sum()), 6)


def test_arrays_hold_what_the_report_draws(finished):
    arrays = load_file(finished.folder / "arrays.safetensors")
    pictures = {f"{what}_{side}": (7, 1, 8, 8) for what in ("samples", "nearest") for side in "ab"}
    for n in (2, 5):
        shapes = pictures | {
            "noise_seeds": (7,),
            "twin_similarity": (1, 7),
            "nearest_similarity_a": (1, 7),
            "nearest_similarity_b": (1, 7),
            "closest_pairs": (n,),
            "held_out_nearest": (12,),
        }
        own = {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(f"n{n:05d}/")}
        assert {name: array.shape for name, array in own.items()} == shapes
        assert all(np.isfinite(array).all() for array in own.values())
        seeds = [runs.derive_seed(0, "image", i) for i in range(7)]
        assert own["noise_seeds"].tolist() == seeds
        similar = np.median(own["twin_similarity"])
        [level] = [level for level in finished.result.levels if level.n == n]
        assert level.twin_similarity.value == pytest.approx(float(similar))
    assert len(arrays) == 2 * len(shapes)


def test_spec_and_environment_say_how(finished):
    spec = runs.read_json(finished.folder / "spec.json")
    assert (spec.pop("schema_version"), spec.pop("study")) == (3, "transition")
    assert spec.pop("data_digest") == images.load("digits").digest
    assert spec == SPEC.model_dump(mode="json")
    assert Spec(**spec).model_dump() == SPEC.model_dump()
    machine = runs.read_json(finished.folder / "environment.json")
    assert machine["device"] == "cpu"
    assert (machine["threads"], machine["workers"]) == (1, 1)
    assert machine["versions"]["torch"] == metadata.version("torch")
    assert machine["started"] <= machine["finished"]
    assert machine["wall_seconds"] > 0


def test_a_trial_is_addressed_by_its_spec_and_is_a_model(finished):
    trials = sorted((finished.folder / "trials").iterdir())
    assert [t.name[:8] for t in trials] == ["n00002-a", "n00002-b", "n00005-a", "n00005-b"]
    for trial in trials:
        spec = runs.read_json(trial / "spec.json")
        identity = {k: v for k, v in spec.items() if k not in {"schema_version", "data"}}
        assert trial.name == f"n{spec['n']:05d}-{spec['twin']}-{runs.digest(identity)[:8]}"
        shown = sorted(p.name for p in trial.iterdir() if not p.name.startswith("."))
        [measures] = [name for name in shown if name.startswith("measures-")]
        assert shown == ["history.csv", measures, "spec.json", "weights.safetensors"]
        assert [float(row["step"]) for row in rows(trial / "history.csv")] == [10, 20]
        assert load(trial).shape == (1, 8, 8)


def test_twins_share_nothing_but_the_noise_of_their_samples(finished):
    arrays = load_file(finished.folder / "arrays.safetensors")
    for n in (2, 5):
        assert not np.array_equal(arrays[f"n{n:05d}/samples_a"], arrays[f"n{n:05d}/samples_b"])
    hidden = [
        load(trial).denoiser.state_dict()["first.weight"]
        for trial in (finished.folder / "trials").iterdir()
    ]
    for i, one in enumerate(hidden):
        for other in hidden[:i]:
            assert not torch.allclose(one, other, atol=0.1)


# Running again


def test_measures_that_a_kill_lost_are_the_same_when_measured_again(finished, folder):
    for lost in [*folder.glob("trials/*/measures-*"), *folder.glob("*.csv")]:
        lost.unlink()
    (folder / "result.json").unlink()
    next(folder.glob("trials/*-a-*/")).joinpath("resume.safetensors").write_bytes(b"killed here")
    transition.run(SPEC, folder, device="cpu")
    assert content(folder) == content(finished.folder)
    assert not list(folder.glob("trials/*/resume.safetensors"))


def test_more_sizes_train_only_the_new_trials(finished, folder):
    before = written_at(folder)
    more = SPEC.model_copy(update={"sizes": (2, 5, 7)})
    extended = transition.run(more, folder, device="cpu")
    after = written_at(folder)
    assert {path: after[path] for path in before} == before
    new = {path.parent.name[:8] for path in after.keys() - before.keys()}
    assert new == {"n00007-a", "n00007-b"}
    for old, new in zip(finished.result.levels, extended.result.levels, strict=False):
        other = {"learned": new.learned, "verdict": new.verdict, "why": new.why}
        assert old.model_copy(update=other) == new  # the baseline is that of the largest N
    assert [level.n for level in extended.result.levels] == [2, 5, 7]
    assert runs.read_json(folder / "spec.json")["sizes"] == [2, 5, 7]
    with pytest.raises(InputError, match=r"differs in sizes"):
        transition.run(SPEC, folder, device="cpu")


def test_more_samples_train_nothing_and_begin_with_the_same(finished, folder):
    weights = {p: p.stat().st_mtime_ns for p in folder.glob("trials/*/weights*")}
    more = transition.run(SPEC.model_copy(update={"samples": 9}), folder, device="cpu")
    assert {p: p.stat().st_mtime_ns for p in folder.glob("trials/*/weights*")} == weights
    before, after = (load_file(of / "arrays.safetensors") for of in (finished.folder, folder))
    for n in (2, 5):
        seeds = [of[f"n{n:05d}/noise_seeds"].tolist() for of in (before, after)]
        assert (seeds[0], len(seeds[1])) == (seeds[1][:7], 9)
        drawn = [of[f"n{n:05d}/samples_a"] for of in (before, after)]
        # a batch of another size rounds otherwise
        np.testing.assert_allclose(drawn[1][:7], drawn[0], rtol=1e-3, atol=1e-3)
    assert [level.n for level in more.result.levels] == [2, 5]
    transition.run(SPEC, folder, device="cpu")
    assert content(folder) == content(finished.folder)


def between_sizes(levels):
    """A critical N whose gap is below 0 at less than 6 images, and above from there on."""
    low = max((level.n for level in levels if level.n < 6), default=None)
    high = min((level.n for level in levels if level.n >= 6), default=None)
    return CriticalN(value=6, low=low, high=high), "known"


def test_sizes_are_added_until_the_critical_n_is_known_as_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(transition, "_critical", between_sizes)
    asked = SMALL.model_copy(update={"sizes": (2, 20), "refine": 1.5})
    folder = tmp_path / "run"
    done = transition.run(asked, folder, device="cpu")
    assert [level.n for level in done.result.levels] == [2, 3, 4, 6, 20]
    assert (done.result.critical_n.low, done.result.critical_n.high) == (4, 6)
    assert runs.read_json(folder / "spec.json")["sizes"] == [2, 20]
    before, held = written_at(folder), content(folder)
    transition.run(asked, folder, device="cpu")
    assert (written_at(folder), content(folder)) == (before, held)
    asked = asked.model_copy(update={"sizes": (2, 6, 20), "refine": None})
    coarse = transition.run(asked, folder, device="cpu")
    assert [level.n for level in coarse.result.levels] == [2, 6, 20]
    assert written_at(folder) == before


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"network": {"kind": "unet", "width": 3, "levels": 1}}, "network.width"),
        ({"training": {"steps": 21, "batch": 4, "evaluations": 2}, "seed": 1}, "seed, training.st"),
        ({"sizes": [2, 6]}, "sizes"),
    ],
)
def test_another_spec_in_the_same_folder_is_refused(finished, change, fields):
    before = content(finished.folder)
    with pytest.raises(InputError, match=re.escape(f"differs in {fields}")):
        transition.run(Spec(**SPEC.model_dump() | change), finished.folder, device="cpu")
    assert content(finished.folder) == before


def test_images_that_changed_are_another_run(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    spec = SMALL.model_copy(update={"data": str(tmp_path / "pixels.npy"), "sizes": (2,)})
    transition.run(spec, tmp_path / "run", device="cpu")
    np.save(tmp_path / "pixels.npy", pixels[::-1])
    with pytest.raises(InputError, match=r"differs in data\)"):
        transition.run(spec, tmp_path / "run", device="cpu")


def test_an_interrupted_run_says_what_is_missing_and_then_finishes(finished, tmp_path, undrawn):
    folder, study = tmp_path / "run", transition.STUDY

    def stopped(spec, trial, report):
        if trial.n == 5:
            raise KeyboardInterrupt
        return study.work(spec, trial, report)

    with pytest.raises(KeyboardInterrupt):
        replace(study, work=stopped).run(SPEC, folder, device="cpu")
    partial = Result.model_validate_json((folder / "result.json").read_text())
    assert (partial.complete, partial.missing) == (False, ["N = 5"])
    assert [level.n for level in partial.levels] == [2]
    assert partial.levels[0] == finished.result.levels[0]
    assert runs.read_json(folder / "environment.json")["finished"] is None
    html = page.write(folder).read_text()
    assert "N = 5" in html
    transition.run(SPEC, folder, device="cpu")
    assert content(folder) == content(finished.folder)
    assert runs.read_json(folder / "environment.json")["finished"] is not None


def test_a_run_leaves_threads_and_random_state_alone(finished, folder):
    before = torch.get_num_threads(), torch.random.get_rng_state()
    shutil.rmtree(next(folder.glob("trials/n00002-a-*")))
    transition.run(SPEC, folder, device="cpu")
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_twins_that_cannot_be_compared_in_memory_are_refused(tmp_path, monkeypatch):
    """Both sets of 500 images of 64 pixels, float32, and five copies of one: 896 kB."""
    monkeypatch.setattr(memory, "available_memory", lambda device: 890_000)
    spec = SMALL.model_copy(update={"sizes": (2, 500)})
    with pytest.raises(InputError, match=r"^data: size 8 needs about 0.0 GB for the comparison"):
        transition.run(spec, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


# Edges


def test_one_image_and_replicates(tmp_path):
    spec = SMALL.model_copy(update={"sizes": (1,), "replicates": 2, "samples": 2})
    done = transition.run(spec, tmp_path, device="cpu")
    [level] = done.result.levels
    assert (level.memorised_fraction.a, level.memorised_fraction.b) == (None, None)
    assert level.diversity.a is not None
    assert load_file(tmp_path / "arrays.safetensors")["n00001/twin_similarity"].shape == (2, 2)
    assert len(list((tmp_path / "trials").iterdir())) == 4
    table = rows(tmp_path / "images.csv")
    for role in ("a0", "b0", "test"):
        first, second = ({r["index"] for r in table if r[f"role_{k}"] == role} for k in (0, 1))
        assert first
        assert first != second
    assert "memorised_fraction_a_value" not in rows(tmp_path / "levels.csv")[0]


def test_stochastic_samples_have_their_own_run(tmp_path):
    sampling = SamplingSpec(method="stochastic", h0=0.9, beta=0.9)
    spec = SMALL.model_copy(update={"sizes": (2,), "samples": 2, "sampling": sampling})
    done = transition.run(spec, tmp_path, device="cpu")
    unfinished = done.result.levels[0].unfinished_samples
    assert 0 <= unfinished.a <= 2
    samples = load_file(tmp_path / "arrays.safetensors")["n00002/samples_a"]
    assert np.isfinite(samples).all()


def test_a_loss_that_is_not_finite_stops_the_run_and_says_so(tmp_path):
    training = TrainingSpec(steps=20, batch=4, learning_rate=1e30, schedule="constant")
    spec = SMALL.model_copy(update={"sizes": (2,), "training": training})
    with pytest.raises(TrainingError, match="step"):
        transition.run(spec, tmp_path, device="cpu")
    assert not (tmp_path / "result.json").exists()
    assert not list(tmp_path.glob("trials/*/weights.safetensors"))
    assert runs.read_json(tmp_path / "environment.json")["finished"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sizes": (627,)}, "626"),
        ({"test": 5000}, "test: 5000"),
        ({"data": "nowhere/"}, "nowhere/"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, change, words):
    with pytest.raises(InputError, match=words) as caught:
        transition.run(SMALL.model_copy(update=change), tmp_path / "run", device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_workers_and_devices_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(InputError, match="--workers"):
        transition.run(SMALL, tmp_path / "run", workers=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device: cuda"):
            transition.run(SMALL, tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


def test_sampling_goes_down():
    with pytest.raises(ValueError, match="sigma_min 2 is not below sigma_max 1"):
        SamplingSpec(sigma_max=1, sigma_min=2)


@pytest.mark.parametrize("sizes", [(), (0, 3), (-1,)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=r"at least 1|greater than or equal to 1"):
        Spec(sizes=sizes)


def test_sizes_are_sorted_and_each_counts_once():
    assert Spec(sizes=(5, 2, 5)).sizes == (2, 5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_of_a_spec_are_finite(value):
    with pytest.raises(ValueError, match=r"finite|greater"):
        SamplingSpec(sigma_min=value)


# A network of the user's own


class Shrinkage(nn.Module):
    """A gain per channel: the smallest denoiser that learns."""

    def __init__(self, channels):
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, y, sigma=None):
        return self.gain * y


def test_twins_of_a_network_of_ones_own(tmp_path):
    state = torch.random.get_rng_state()
    still = TrainingSpec(steps=20, batch=4, learning_rate=1e-12)
    spec = SMALL.model_copy(update={"sizes": (2,), "training": still})
    done = transition.run(spec, tmp_path / "own", network=Shrinkage, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state)
    name = factory_identity(Shrinkage)
    assert name.startswith(f"{__name__}.Shrinkage ")
    assert runs.read_json(done.folder / "spec.json")["network"] == name
    trials = sorted((done.folder / "trials").iterdir())
    assert [runs.read_json(t / "spec.json")["network"] for t in trials] == [name, name]
    initial = [load(t, network=Shrinkage).denoiser.gain.item() for t in trials]
    assert abs(initial[0] - initial[1]) > 1e-3
    assert all(0 <= gain <= 1 for gain in initial)
    before, result = content(done.folder), done.result
    assert transition.run(spec, done.folder, network=Shrinkage, device="cpu").result == result
    assert content(done.folder) == before
    with pytest.raises(InputError, match=r"differs in network\)"):
        transition.run(spec, done.folder, device="cpu")


def test_a_network_of_ones_own_gets_its_own_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = SMALL.model_copy(update={"sizes": (2,)})
    done = transition.run(spec, network=Shrinkage, device="cpu")
    assert re.fullmatch(r"runs/transition-[0-9a-f]{8}", str(done.folder))
    plain = {"study": "transition"} | spec.model_dump(mode="json")
    plain |= {"data_digest": images.load("digits").digest}
    assert done.folder != runs.default_folder(plain)
    assert done.folder == runs.default_folder(plain | {"network": factory_identity(Shrinkage)})


def test_a_network_with_other_code_is_another(tmp_path):
    found = []
    for body in ("gain * y", "gain * y", "gain * y / 2"):
        (tmp_path / "own.py").write_text(OWN.format(body=body))
        found.append(factory_identity(called(tmp_path / "own.py", "network")[0]).split()[-1])
    assert found[0] == found[1] != found[2]


OWN = """
from torch import nn

class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, y, sigma=None):
        return shrunk(y)

def shrunk(y, gain=0.5):
    return {body}

def network():
    return Own
"""


# Runs of earlier versions


@pytest.fixture
def older(folder, undrawn):
    """A run whose verdict was given by another rule."""
    result = runs.read_json(folder / "result.json")
    for level in result["levels"]:
        for name in ("memorisation", "agreement", "alike", "excess", "copies", "learned", "why"):
            del level[name]
        level["verdict"] = "generalises"
    runs.write_json(folder / "result.json", result | {"schema_version": 2})
    return folder


def test_the_report_judges_an_older_run_anew(finished, older, capsys):
    before = written_at(older)
    assert cli.main(["report", str(older)]) == 0
    said = capsys.readouterr().err
    assert f"{older}: was written by an earlier version; judged anew\n" in said
    assert content(older) == content(finished.folder)
    assert written_at(older) == before
    assert cli.main(["report", str(older)]) == 0
    assert "anew" not in capsys.readouterr().err


def test_an_older_run_without_its_networks_keeps_its_verdict(older, capsys):
    next(older.glob("trials/*/weights.safetensors")).unlink()
    before = content(older)
    assert cli.main(["report", str(older)]) == 0
    said = capsys.readouterr().err
    assert "has the verdict of the version that wrote it: 1 of its 4 networks are missing" in said
    assert content(older) == before
