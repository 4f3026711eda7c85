"""Along training: which checkpoints there are, when a model was good, and when it remembered."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinscore import cli, images
from twinscore.analysis.audit import turning
from twinscore.errors import InputError
from twinscore.experiments.audit import checkpoints

pytestmark = pytest.mark.usefixtures("cheap")

N = 100


@given(st.lists(st.floats(0, 1), max_size=12))
def test_testing_goes_back_to_the_first_that_is_not_rejected(p):
    first = turning.turned(p)
    assert all(x <= 0.05 for x in p[first:])
    assert first == 0 or p[first - 1] > 0.05


def test_no_more_are_wrongly_rejected_than_one_test_would():
    """Of 20 checkpoints, none of which depends on T; 2,000 trainings, 3 standard errors."""
    rng = np.random.default_rng(0)
    wrong = np.mean([turning.turned(rng.uniform(size=20)) < 20 for _ in range(2000)])
    assert abs(wrong - 0.05) <= 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_errors_count_alike_at_all_levels():
    errors = np.array([[[1.0, 300.0], [3.0, 100.0]], [[4.0, 100.0], [4.0, 300.0]]])
    # the best means are 2 and 200
    np.testing.assert_allclose(turning.relative(errors), [[1.0, 1.0], [1.25, 1.75]])


def test_the_first_that_cannot_be_told_from_the_best_is_good():
    values, lows = np.array([9, 5, 4.2, 4, 6]), np.array([8, 4.5, 3.9, 3.7, 5.5])
    np.testing.assert_array_equal(turning.reached(values, lows), [0, 0, 1, 1, 0])
    values[3] = lows[3] = np.nan  # the best of those that are known
    np.testing.assert_array_equal(turning.reached(values, lows), [0, 0, 1, 0, 0])


@pytest.mark.parametrize(
    ("names", "pattern", "steps"),
    [
        (("m-9.pt", "m-10.pt", "m-100.pt"), "lcv:{}/m-*.pt", [9, 10, 100]),
        (("step-09", "step-10"), "{}/*", [9, 10]),
        (("epoch=0-step=50", "epoch=1-step=99"), "diffusers:{}/*,class=2", [50, 99]),
        (("step=50-loss=0.3", "step=99-loss=0.12"), "{}/step*", [50, 99]),
        (("a1_7.py", "a2_9.py", "a2_30.py"), "{}/a*.py:model", [7, 9, 30]),
    ],
)
def test_checkpoints_are_in_the_order_of_their_steps(tmp_path, names, pattern, steps):
    for name in names:
        (tmp_path / name).touch()
    found = checkpoints.found(pattern.format(tmp_path))
    assert [step for step, _ in found] == steps
    head, tail = pattern.split("{}")[0], pattern.split("*")[1]
    for name, (_, model) in zip(names, found, strict=True):
        assert model.startswith(f"{head}{tmp_path}/{name}")
        assert model.endswith(tail)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "matches nothing"),
        (("m-1",), "matches only .*m-1"),
        (("m-1", "last"), "differ in more than numbers"),
        (("m-1", "m-01"), "which of .*m-0?1 and .*m-0?1 came first is not clear"),
        (("a1-b2", "a2-b1"), "came first is not clear"),
        (("step=1-v1", "step=1-v2"), None),
    ],
)
def test_an_ambiguous_order_is_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    if message is None:  # one number varies, whatever it is called
        assert [step for step, _ in checkpoints.found(f"{tmp_path}/*")] == [1, 2]
        return
    with pytest.raises(InputError, match=message) as caught:
        checkpoints.found(f"{tmp_path}/*")
    assert "\n" not in str(caught.value)


PLANTED = """
from twinscore import denoisers
from twinscore.denoisers import Checkpoint

MEAN, COPY = {mean}, {copy}

def model():
    honest = denoisers.load("gaussian:{folder}/other.npy").denoiser
    copies = denoisers.load("empirical:{folder}/train.npy").denoiser
    def denoiser(y, sigma):
        clean = MEAN * y.mean((1, 2, 3), keepdim=True) + (1 - MEAN) * honest(y, sigma)
        return COPY * copies(y, sigma) + (1 - COPY) * clean
    content = "{mean} {copy}"
    return Checkpoint(denoiser, (1, 8, 8), (0.3,), content)
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Models that are honest, first bad and then good, and copy more and more from step 400 on."""
    folder = tmp_path_factory.mktemp("planted")
    digits = images.load("digits")
    keep = np.flatnonzero(~images.near_duplicates(digits, 0.97).drop)
    order = np.random.default_rng(0).permutation(keep)
    for i, name in enumerate(("train", "held", "other")):
        np.save(folder / f"{name}.npy", digits[order[i * N : (i + 1) * N]].numpy()[:, 0])
    schedule = {50: (0.8, 0), 100: (0.4, 0), 200: (0, 0), 300: (0, 0), 400: (0, 0.2)}
    schedule |= {800: (0, 0.5), 1600: (0, 0.9)}
    for step, (mean, copy) in schedule.items():
        text = PLANTED.format(mean=mean, copy=copy, folder=folder)
        (folder / f"step-{step}.py").write_text(text)
    return folder


def audited(folder, out, *more, capfd):
    words = ["audit", "--train", f"{folder}/train.npy", "--held-out", f"{folder}/held.npy"]
    words += ["--checkpoints", f"{folder}/step-*.py:model", "--count", "60", "--draws", "2"]
    words += ["--sampling.steps", "6"]
    code = cli.main([*words, *more, "--device", "cpu", "--out", str(out)])
    said, path = capfd.readouterr(), out / "result.json"
    return code, json.loads(path.read_text()) if path.exists() else None, said.out, said.err


def test_the_turn_of_a_planted_schedule_is_found_within_one_checkpoint(planted, tmp_path, capfd):
    out = tmp_path / "run"
    few = "--checkpoint-samples", "60"
    _, found, said, _ = audited(planted, out, *few, capfd=capfd)
    window = found["window"]
    assert window["tau_mem"] == {"value": 400, "low": 300}
    assert window["tau_gen"] == {"value": 200, "low": 100}
    assert [of["step"] for of in window["checkpoints"]] == [50, 100, 200, 300, 400, 800, 1600]
    assert window["checkpoints"][-1]["auc"]["value"] > 0.9
    assert window["checkpoints"][0]["energy"]["low"] > window["checkpoints"][2]["energy"]["high"]
    assert "along training: quality from step 200 [100, 200] on, memory from step 400" in said
    spec = json.loads((out / "spec.json").read_text())
    assert spec["model"].endswith("step-1600.py:model")
    kept = {path: path.stat().st_mtime_ns for path in out.glob("trials/checkpoint-*")}
    assert len(kept) == 7
    again = audited(planted, out, *few, "--steered", "yes", capfd=capfd)[1]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert again["window"]["tau_mem"] is None  # no deal, no test
    assert again["window"]["checkpoints"][0]["p"] is None


@pytest.mark.slow
def test_without_samples_quality_is_that_of_errors(planted, tmp_path, capfd):
    found = audited(planted, tmp_path / "run", "--checkpoint-samples", "0", capfd=capfd)[1]
    assert all(of["energy"] is None for of in found["window"]["checkpoints"])
    assert found["window"]["tau_gen"]["value"] == 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--checkpoints", "FOLDER/nothing-*"), "matches nothing"),
        (("--checkpoints", "empirical:FOLDER/*.npy"), "differ in more than numbers"),
        (("--held-out", "None"), "--held-out: not given"),
    ],
)
def test_bad_checkpoints_are_one_line(planted, tmp_path, capfd, words, message):
    words = [word.replace("FOLDER", str(planted)) for word in words]
    base = ["audit", "--train", f"{planted}/train.npy", "--device", "cpu"]
    base += ["--samples", f"{planted}/other.npy", "--out", str(tmp_path / "run")]
    given = dict(zip(words[::2], words[1::2], strict=True))
    flags = {"--held-out": f"{planted}/held.npy", "--checkpoints": f"{planted}/step-*.py:model"}
    flags |= given
    code = cli.main([*base, *(x for of in flags.items() for x in of if of[1] != "None")])
    said = capfd.readouterr()
    assert (code, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert re.search(message, said.err), said.err
    assert list(tmp_path.iterdir()) == []
