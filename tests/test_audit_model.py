"""Audits of a model: its samples, its errors on both sets, and what these tell."""

import csv
import json
import re

import numpy as np
import pytest
import torch

from twinscore import cli, images
from twinscore.experiments import audit
from twinscore.experiments.audit import membership
from twinscore.experiments.audit.pool import opened
from twinscore.experiments.trials import open_model

pytestmark = pytest.mark.usefixtures("cheap")

N = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three sets of digits that a coin dealt: trained on, held out, and another."""
    digits = images.load("digits")
    keep = np.flatnonzero(~images.near_duplicates(digits, 0.97).drop)
    order = np.random.default_rng(0).permutation(keep)
    folder = tmp_path_factory.mktemp("sets")
    for i, name in enumerate(("train", "held", "other")):
        np.save(folder / f"{name}.npy", digits[order[i * N : (i + 1) * N]].numpy()[:, 0])
    return folder


def audited(folder, out, model, *more, capfd):
    words = ["audit", "--train", f"{folder}/train.npy", "--held-out", f"{folder}/held.npy"]
    code = cli.main([*words, "--model", model, *more, "--device", "cpu", "--out", str(out)])
    said, path = capfd.readouterr(), out / "result.json"
    return code, json.loads(path.read_text()) if path.exists() else None, said.out, said.err


def test_a_memoriser_is_caught_from_its_samples_and_from_its_errors(folder, tmp_path, capfd):
    out, model = tmp_path / "run", f"empirical:{folder}/train.npy"
    code, found, said, _ = audited(folder, out, model, "--count", "150", capfd=capfd)
    assert (code, found["verdict"]) == (0, "copies")
    member = found["membership"]
    assert member["auc"]["value"] == 1
    assert member["at_risk"] == N
    assert member["p"] <= 0.001
    assert [d["rate"] for d in member["detected"]] == [0.01]
    assert member["detected"][0]["share"]["value"] == 1
    assert "membership: AUC 1.00 [" in said
    came = found["extraction"]
    assert came["p"] < 1e-6
    assert came["recurrence"]["held_out"] == 0 < came["recurrence"]["trained"]
    first, half = came["trials"][0], came["trials"][-1]
    assert first["trained"]["of"] >= 32
    # digits that differ by little more than the noise are taken for one another now and then
    assert first["trained"]["share"]["value"] > 0.95
    assert half["trained"]["share"]["value"] > 0.85
    assert {trial["held_out"]["count"] for trial in came["trials"]} == {0}
    for way in ("training images come back from noise", "from their half", "samples recur"):
        assert way in said
    assert found["why"].endswith(
        "; more of training than of held-out images comes out of the model"
    )
    with (out / "risk.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == N
    assert {row["listed"] for row in rows} == {"1"}
    [samples] = tmp_path.glob("run-samples-*.npz")
    before = samples.stat().st_mtime_ns
    again = audited(folder, out, model, "--count", "150", "--q", "0.2", capfd=capfd)[1]
    assert samples.stat().st_mtime_ns == before
    assert again["membership"]["auc"] == member["auc"]


def test_a_model_of_neither_set_is_not_accused(folder, tmp_path, capfd):
    model = f"gaussian:{folder}/other.npy"
    found = audited(folder, tmp_path / "run", model, "--count", "150", capfd=capfd)[1]
    assert found["verdict"] in ("no copies shown", "inconclusive")
    member = found["membership"]
    assert member["p"] > 0.01
    assert member["auc"]["low"] < 0.5 < member["auc"]["high"]
    assert member["at_risk"] == 0
    assert found["extraction"]["p"] > 0.05
    assert "comes out" not in found["why"]


def test_errors_of_a_gaussian_are_those_of_its_closed_form(folder):
    """E |D(x + sigma z) - x|^2 = |(1 - A)(x - m)|^2 + sigma^2 tr(A A'), A = S (S + sigma^2)^-1."""
    own = {"train": f"{folder}/train.npy", "held_out": f"{folder}/held.npy"}
    spec = audit.Spec(
        model=f"gaussian:{folder}/train.npy",
        samples=own["held_out"],
        **own,
        sigmas=(0.2,),
        draws=400,
    )
    sets = opened(spec)
    of = open_model(spec.model), torch.device("cpu"), lambda *_: None
    found = membership.errors(spec, sets, *of)[:, 0]
    train = torch.from_numpy(np.load(own["train"])).flatten(1).double()
    mean = train.mean(0)
    covariance = torch.cov(train.T, correction=0)
    smooth = covariance @ torch.linalg.inv(covariance + 0.04 * torch.eye(64))
    pool = torch.cat([sets.train[:N], sets.held_out[:N]]).flatten(1).double()
    left = (pool - mean) @ (torch.eye(64).double() - smooth).T
    expected = (left.square().sum(1) + 0.04 * smooth.square().sum()) / 64
    # of 400 draws of some 30 values of sigma: relative error about 1 %
    np.testing.assert_allclose(found, expected, rtol=0.06)
    assert found[:N].mean() < found[N:].mean()


def test_groups_are_told_as_a_whole(folder):
    errors = np.arange(12.0)[:, None]
    units = audit.pool.Units(
        np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        np.arange(6) < 3,
        np.arange(12) != 1,
        "group",
    )
    np.testing.assert_array_equal(
        membership.by_unit(errors, units)[:, 0], [0, 2.5, 4.5, 6.5, 8.5, 10.5]
    )


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        ("empirical:digits,size=9", (), r"cannot denoise an image of .*\(1, 8, 8\)"),
        ("nothing.safetensors", (), "nothing.safetensors: not found"),
        ("empirical:digits", ("--fail-if", "membership.auc>0.5"), "is not a condition"),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(folder, tmp_path, capfd, model, words, message):
    code, found, said, errors = audited(folder, tmp_path / "run", model, *words, capfd=capfd)
    assert (code, found, said) == (2, None, "")
    assert len(errors.splitlines()) == 1
    assert re.search(message, errors), errors
    assert list(tmp_path.iterdir()) == []


def test_membership_can_fail_a_run(folder, tmp_path, capfd):
    model, words = f"empirical:{folder}/train.npy", ("--fail-if", "membership.auc.low>0.6")
    code, found, _, _ = audited(
        folder, tmp_path / "run", model, "--count", "100", *words, capfd=capfd
    )
    assert (code, found["failed"]) == (1, "membership.auc.low>0.6")


def test_the_estimate_counts_the_evaluations_of_the_model(folder, tmp_path, capfd):
    """240 images at 5 levels, 4 draws; 64 images, 140 each; 16 images, 128 products of three."""
    words = ("--samples", f"{folder}/other.npy", "--estimate")
    said = audited(folder, tmp_path / "run", f"gaussian:{folder}/other.npy", *words, capfd=capfd)[2]
    assert f"{240 * 20 + 64 * 140 + 16 * 128 * 3:,} evaluations of the model" in said


def test_the_estimate_includes_samples_that_are_not_drawn_yet(folder, tmp_path, capfd):
    model, words = f"gaussian:{folder}/train.npy", ("--count", "100", "--estimate")
    said = audited(folder, tmp_path / "run", model, *words, capfd=capfd)[2]
    assert said.startswith("100 samples to be drawn, ")
    assert not list(tmp_path.iterdir())
