"""`explain`: known models are named, and patches of copies are traced to what was copied."""

import numpy as np
import pytest
import torch

from twinscore import cli, runs
from twinscore.analysis.explained import explained, squares
from twinscore.analysis.patches import traced
from twinscore.denoisers.layers import generator_of
from twinscore.report import style

TRAIN, HELD_OUT = "discs:size=8,count=24,seed=1", "discs:size=8,count=24,seed=2"
QUICK = ("--images", "12", "--samples", "6", "--steps", "8", "--sigmas", "0.1", "0.4")


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=generator_of(seed), dtype=torch.float64)


@pytest.fixture
def told(tmp_path, capsys, monkeypatch):
    """Run the command, figures drawn but not encoded: exit code, what it printed, the result."""
    monkeypatch.setattr(style, "settle", lambda figure: figure)
    for kind in ("svg", "png", "pdf"):
        monkeypatch.setattr(style, kind, lambda *_: b"drawn")

    def call(*words):
        out = tmp_path / "run"
        words = ["explain", *words, *QUICK, "--train", TRAIN, "--device", "cpu"]
        code = cli.main([*words, "--out", str(out)])
        result = runs.read_json(out / "result.json") if out.exists() else None
        return code, capsys.readouterr(), result

    return call


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (f"empirical:{TRAIN}", "memory"),
        (f"local:{TRAIN},patch=3", "mosaic"),
        (f"gaussian:{TRAIN}", "linear"),
        ("threshold:wavelets", "thresholding"),
    ],
)
def test_a_known_model_is_named(told, model, name):
    code, said, result = told("--model", model, "--patch", "3", "--held-out", HELD_OUT)
    assert code == 0, said.err
    assert result["learned"] == result["samples"]["best"] == name
    assert f"is nearest to {name}" in said.out
    for level in [*result["levels"], result["samples"]]:
        r2 = {each["companion"]: each["r2"]["value"] for each in level["explained"]}
        assert r2.pop(name) == 1
        assert max(r2.values()) < 0.999


def test_samples_of_memory_are_copies_whole(told):
    _, said, result = told("--model", f"empirical:{TRAIN}", "--patch", "3", "--held-out", HELD_OUT)
    found = result["samples"]["patches"]
    assert found["near"]["value"] > 0.9
    assert found["p"] < 0.05  # six copies of six images in T: 2^-6 or so
    assert found["distance"] < 0.01 < found["control_distance"]
    assert np.mean([sample["share"] for sample in found["samples"]]) > 0.9
    assert "patches nearer to training images" in said.out


def test_without_held_out_images_no_patch_is_traced(told):
    code, said, result = told("--model", f"gaussian:{TRAIN}", "--patch", "3")
    assert code == 0
    assert result["samples"]["patches"] is None
    assert "noisy training images" in said.out


def test_a_twin_is_a_companion_and_not_a_formula(told):
    words = ("--model", f"gaussian:{TRAIN}", "--twin", f"gaussian:{TRAIN}", "--patch", "3")
    _, _, result = told(*words)
    assert [each["companion"] for each in result["levels"][0]["explained"]][-1] == "twin"
    assert result["levels"][0]["explained"][-1]["r2"]["value"] == 1
    assert result["learned"] == "linear"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "gaussian:digits", "--held-out", "faces"), "--held-out: faces has images"),
        (
            (
                "--model",
                "gaussian:faces",
            ),
            "--model: gaussian:faces: cannot denoise",
        ),
        (("--model", "gaussian:digits", "--side", "4"), "give an odd side"),
        (("--model", "gaussian:digits", "--side", "9"), "more than the side of images"),
        ((), "--model: not given"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(told, words, message):
    code, said, result = told(*words, "--patch", "3")
    assert (code, result) == (2, None)
    assert message in said.err
    assert said.err.count("\n") == 1


def test_r_squared_is_that_of_its_definition():
    ours, theirs = uniform(20, 1, 3, 3), uniform(20, 1, 3, 3, seed=1)
    f, g = ours.flatten(1).numpy(), theirs.flatten(1).numpy()
    exact = 1 - np.square(f - g).sum() / np.square(f - f.mean(0)).sum()
    value, low, high = explained(squares(ours, theirs), seed=0)
    assert value == pytest.approx(exact)
    assert low < value < high
    mean = ours.mean(0, keepdim=True).expand_as(ours)
    assert explained(squares(ours, mean), seed=0)[0] == pytest.approx(0)
    assert explained(squares(ours, ours), seed=0) == (1, 1, 1)
    assert explained(squares(mean, ours), seed=0) is None


def test_intervals_of_r_squared_cover_it():
    """Of a signal with noise of a tenth of its variance: r^2 of the companion is 10/11."""
    inside = 0
    for seed in range(60):
        noise = torch.randn(80, 1, 2, 2, generator=generator_of(2 * seed), dtype=torch.float64)
        other = torch.randn(80, 1, 2, 2, generator=generator_of(2 * seed + 1), dtype=torch.float64)
        _, low, high = explained(squares(other + noise / 10**0.5, other), seed=seed)
        inside += low <= 10 / 11 <= high
    assert inside >= 50  # 95 % of 60 are 57; fewer than 50 have probability 1e-4


def test_patches_are_traced_to_where_they_lie():
    """Samples put together from quarters of training images, each patch of which is known."""
    pool = uniform(8, 2, 9, 9)
    sample = torch.cat([pool[1, :, :5], pool[3, :, 2:6]], 1)[None]
    found = traced(sample, pool, 3)
    rows = found.images[0, 0].reshape(7, 7)
    assert (rows[:3] == 1).all()  # rows 0 to 4 of image 1 hold patches 0 to 2 whole
    assert (rows[5:] == 3).all()
    np.testing.assert_allclose(found.mosaics[0, 0, :, :3], sample[0, :, :3], rtol=1e-6)
    assert np.abs(found.mosaics[0, 1, :, :3] - sample[0, :, :3].numpy()).max() > 0.05
    assert found.distances[0, 0].reshape(7, 7)[:3].max() < 1e-7
    assert found.votes.sum() == pytest.approx(1)
    assert found.votes[0, 1] >= 3 / 7
    images, shares, sources = found.sources(0)
    assert images[0] in (1, 3)
    assert 3 / 7 <= shares[0] < 1 < sources[0] <= 4


def test_brute_force_finds_the_same_patches():
    samples, pool = uniform(2, 1, 5, 4), uniform(6, 1, 5, 4, seed=1)
    found = traced(samples, pool, 3)
    places = [(i, j) for i in range(3) for j in range(2)]
    for s in range(2):
        for u, (i, j) in enumerate(places):
            own = samples[s, :, i : i + 3, j : j + 3]
            far = torch.tensor(
                [
                    [(x[:, k : k + 3, m : m + 3] - own).square().mean() for k, m in places]
                    for x in pool
                ]
            ).amin(1)
            for half in (0, 1):
                own_half = far[3 * half : 3 * half + 3]
                assert found.images[s, half, u] == own_half.argmin()
                assert found.distances[s, half, u] == pytest.approx(own_half.min().sqrt().item())


def test_ties_are_shared_and_labels_do_not_matter():
    flat = torch.zeros(4, 1, 5, 5, dtype=torch.float64)
    found = traced(flat[:2], flat, 3)
    np.testing.assert_allclose(found.votes, 0.25)
    np.testing.assert_allclose(found.near, 0.5)
    assert found.p(0) == 1


def test_p_is_uniform_or_larger_where_nothing_was_copied():
    """Samples, training and held-out images of one law."""
    found = []
    for seed in range(40):
        pool = uniform(12, 1, 5, 5, seed=seed)
        found.append(traced(uniform(4, 1, 5, 5, seed=1000 + seed), pool, 3).p(seed))
    # Of 40, each below 0.1 with probability 0.1: more than 10 with probability 0.001.
    assert sum(p <= 0.1 for p in found) <= 10
    assert min(found) > 1e-3
