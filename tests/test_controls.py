"""Controls of an audited model: is a gap its autoencoder's or its own, its base's or new?"""

import json

import numpy as np
import pytest

from twinscore import cli, images
from twinscore.experiments.audit.controls import culprit

pytestmark = pytest.mark.usefixtures("cheap")

N = 48

AUTOENCODERS = """
import numpy as np
import torch

from twinscore.denoisers import Checkpoint
from twinscore.denoisers.whole_pipelines import Latents


def principal(name, count):
    \"\"\"Mean and principal components, (d,) and (count, d), of a set.\"\"\"
    x = torch.from_numpy(np.load(f"{FOLDER}/{name}.npy")).float().flatten(1)
    mean = x.mean(0)
    return mean, torch.linalg.svd(x - mean, full_matrices=False).Vh[:count]


def reconstructing(name, count):
    mean, waves = principal(name, count)

    def reconstruct(images):
        left = images.flatten(1) - mean
        return (mean + left @ waves.T @ waves).view_as(images)

    return reconstruct


def memorising():
    return reconstructing("train", 47)  # all that 48 images span


def honest():
    return reconstructing("other", 20)


def flattened():
    return lambda images: images.flatten(1)


def broken():
    return lambda images: images / 0


def latent():
    \"\"\"Gaussian latents of other images, in the code of an autoencoder that memorises.\"\"\"
    mean, waves = principal("train", 47)
    other = torch.from_numpy(np.load(f"{FOLDER}/other.npy")).float().flatten(1)
    z = (other - mean) @ waves.T
    middle, spread = z.mean(0), z.var(0)

    def denoise(y, sigma):
        gain = spread / (spread + sigma.view(-1, 1) ** 2)
        return (middle + gain * (y.flatten(1) - middle)).view_as(y)

    def encode(images):
        return ((images.flatten(1) - mean) @ waves.T).view(-1, 1, 1, 47)

    def decode(codes):
        return (mean + codes.flatten(1) @ waves).view(-1, 1, 8, 8)

    space = Latents(denoise, (1, 1, 47), encode, decode)
    return Checkpoint(denoise, (1, 8, 8), (0.3,), "latent of a test", latents=space)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits that were dealt at random: trained on, held out, others, and samples of others.

    By a deal in which chance gives an honest autoencoder no gap: one of 20 does.
    """
    digits = images.load("digits")
    keep = np.flatnonzero(~images.near_duplicates(digits, 0.97).drop)
    order = np.random.default_rng(1).permutation(keep)
    folder, ends = tmp_path_factory.mktemp("sets"), [0, N, 2 * N, 2 * N + 400, 2 * N + 500]
    for name, start, stop in zip(
        ("train", "held", "other", "samples"), ends[:-1], ends[1:], strict=True
    ):
        np.save(folder / f"{name}.npy", digits[order[start:stop]].numpy()[:, 0])
    (folder / "own.py").write_text(f"FOLDER = {str(folder)!r}\n{AUTOENCODERS}")
    return folder


def audited(folder, out, *words, capfd):
    sets = ["--train", f"{folder}/train.npy", "--held-out", f"{folder}/held.npy"]
    sets += ["--extract", "0", "--device", "cpu"]
    if "--samples" not in words:
        sets += ["--samples", f"{folder}/samples.npy"]
    code = cli.main(["audit", *sets, *words, "--out", str(out)])
    said, path = capfd.readouterr(), out / "result.json"
    return code, json.loads(path.read_text()) if path.exists() else None, said


@pytest.mark.parametrize(
    ("model", "autoencoder", "blamed"),
    [
        ("gaussian:{}/other.npy", "memorising", "autoencoder"),
        ("empirical:{}/train.npy", "honest", "diffusion model"),
        ("empirical:{}/train.npy", "memorising", "both"),
        ("gaussian:{}/other.npy", "honest", "neither"),
        ("{}/own.py:latent", None, "autoencoder, and perhaps the diffusion model"),
    ],
)
def test_what_memorises_is_named(folder, tmp_path, capfd, model, autoencoder, blamed):
    words = ["--model", model.format(folder)]
    words += ["--autoencoder", f"{folder}/own.py:{autoencoder}"] if autoencoder else []
    _, found, said = audited(folder, tmp_path / "run", *words, capfd=capfd)
    assert found["autoencoder"]["culprit"] == blamed
    gap = found["autoencoder"]["gap"]
    if blamed.startswith(("autoencoder", "both")):
        assert gap["auc"]["value"] == 1
        assert gap["p"] == pytest.approx(1e-4)
    else:
        assert gap["auc"]["low"] < 0.5 < gap["auc"]["high"]
    assert f"smaller errors on training images: {blamed}" in said.out


def test_an_autoencoder_can_be_tested_without_a_model(folder, tmp_path, capfd):
    words = ("--autoencoder", f"{folder}/own.py:memorising")
    found = audited(folder, tmp_path / "run", *words, capfd=capfd)[1]
    assert found["autoencoder"]["culprit"] is None
    assert found["autoencoder"]["gap"]["auc"]["value"] == 1
    assert found["membership"] is None


def test_samples_are_compared_with_reconstructions_too(folder, tmp_path, capfd):
    """Of training images they are the reconstructions themselves; others have no side."""
    words = ("--autoencoder", f"{folder}/own.py:honest")
    votes = audited(folder, tmp_path / "others", *words, capfd=capfd)[1]["autoencoder"]["samples"]
    assert votes["p"] > 0.01
    assert (votes["of"], votes["chance"]) == (100, 0.5)
    trained, other = (np.load(folder / f"{n}.npy").reshape(-1, 64) for n in ("train", "other"))
    waves = np.linalg.svd(other - other.mean(0), full_matrices=False)[2][:20]
    copies = other.mean(0) + (trained - other.mean(0)) @ waves.T @ waves
    np.save(tmp_path / "copies.npy", copies.reshape(-1, 8, 8).clip(0, 1).astype(np.float32))
    words = (*words, "--samples", f"{tmp_path}/copies.npy")
    found = audited(folder, tmp_path / "copies", *words, capfd=capfd)[1]
    votes = found["autoencoder"]["samples"]
    assert (votes["count"], votes["of"]) == (N, N)
    assert votes["p"] == pytest.approx(1e-4)


def test_a_base_is_subtracted(folder, tmp_path, capfd):
    words = ["--model", f"empirical:{folder}/train.npy", "--base", f"gaussian:{folder}/other.npy"]
    _, found, said = audited(folder, tmp_path / "new", *words, capfd=capfd)
    base = found["base"]
    assert base["own"]["p"] > 0.01
    assert base["difference"]["auc"]["value"] > 0.95
    assert base["difference"]["p"] == pytest.approx(1e-4)
    assert "error beyond its: AUC" in said.out
    words[-1] = words[1]  # what the base knew is not the fine-tuning's
    base = audited(folder, tmp_path / "old", *words, capfd=capfd)[1]["base"]
    assert base["own"]["auc"]["value"] == 1
    assert base["difference"]["auc"]["value"] == 0.5
    assert base["difference"]["p"] == 1


def test_who_is_blamed_at_half_the_error_each():
    assert culprit(0.025, 0.03, coded=True) == "autoencoder"
    assert culprit(0.03, 0.025, coded=True) == "diffusion model"
    assert culprit(0.01, 0.01, coded=False) == "both"
    assert culprit(None, 0.01, coded=False) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--base", "gaussian:digits"), "--base: is a control for a model; add --model"),
        (("--autoencoder", "own.py"), "'own.py' is not FILE.py:FUNCTION"),
        (("--autoencoder", "{}/own.py:flattened"), r"gives (1, 64) for images (1, 1, 8, 8)"),
        (("--autoencoder", "{}/own.py:broken"), "gives NaN or infinity"),
        (
            ("--model", "gaussian:digits", "--base", "empirical:digits,size=9"),
            "--base: empirical:digits,size=9: cannot denoise an image",
        ),
    ],
)
def test_controls_that_do_not_fit_are_one_line(folder, tmp_path, capfd, words, message):
    words = [word.format(folder) for word in words]
    code, found, said = audited(folder, tmp_path / "run", *words, capfd=capfd)
    assert (code, found, said.out) == (2, None, "")
    assert message in said.err
    assert len(said.err.splitlines()) == 1
