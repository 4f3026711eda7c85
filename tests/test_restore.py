"""The command that restores a picture: its numbers, its folder, its report, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from twinscore import cli
from twinscore.denoisers import Checkpoint, NetworkSpec, build, save
from twinscore.errors import InputError
from twinscore.experiments import restore
from twinscore.images import load, picture
from twinscore.sampling import probability_flow
from twinscore.training import TrainingSpec, fit, memory, single_device

SMALL = NetworkSpec(width=4, levels=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Trained for a moment on the digits: enough not to run away."""
    path = tmp_path_factory.mktemp("model") / "weights.safetensors"
    digits = load("digits")
    spec = TrainingSpec(steps=60, batch=32, learning_rate=0.01, evaluations=1)
    network = fit(build(SMALL, 1, 0), digits, spec, fabric=single_device("cpu"))
    save(path, Checkpoint(network, (1, 8, 8), tuple(digits.mean())), SMALL)
    return path


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "digit.png"
    Image.fromarray(np.rint(255 * load("digits")[7][0].numpy()).astype(np.uint8)).save(path)
    return path


def spec_of(model, digit, **fields):
    few = {"samples": 3, "steps": 6}
    return restore.Spec(model=str(model), image=str(digit), **few | fields)


TASKS = ["inpainting", "random_pixels", "super_resolution", "deblurring", "compressive_sensing"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_restored_nearer_than_it_was_measured(model, digit, tmp_path, task):
    fraction = 0.2 if task == "inpainting" else 0.4
    done = restore.run(spec_of(model, digit, task=task, fraction=fraction), tmp_path / "run")
    arrays = load_file(tmp_path / "run" / "arrays.safetensors")
    assert arrays["samples"].shape == (3, 1, 8, 8)
    np.testing.assert_allclose(arrays["mean"], arrays["samples"].mean(0), atol=1e-6)
    np.testing.assert_allclose(arrays["deviation"], arrays["samples"].std(0, ddof=1), atol=1e-6)
    error = np.square(arrays["mean"] - arrays["original"]).mean()
    assert done.result.mean.psnr == pytest.approx(-10 * np.log10(error), rel=1e-5)
    assert done.result.inconsistency < 0.1
    assert done.result.measurements == {"inpainting": 48, "super_resolution": 16}.get(
        task, done.result.measurements
    )


def test_the_published_rule_meets_the_measurements_exactly(model, digit, tmp_path):
    spec = spec_of(model, digit, rule="projected", h0=0.1, beta=0.5)
    done = restore.run(spec, tmp_path / "run")
    assert done.result.inconsistency < 1e-5  # float32
    assert done.result.residual is None


def test_samples_that_are_lost_are_left_out(model, digit, tmp_path, monkeypatch):
    def losing(*args, **options):
        x = probability_flow(*args, **options)
        x[1] = torch.nan
        return x

    monkeypatch.setattr(restore.sampling, "probability_flow", losing)
    done = restore.run(spec_of(model, digit), tmp_path / "run")
    assert done.result.unfinished == 1
    assert load_file(tmp_path / "run" / "arrays.safetensors")["samples"].shape == (2, 1, 8, 8)


def test_the_same_spec_gives_the_same_numbers(model, digit, tmp_path):
    spec = spec_of(model, digit, noise=0.1)
    first = restore.run(spec, tmp_path / "a").result
    assert restore.run(spec, tmp_path / "b").result == first
    other = restore.run(spec.model_copy(update={"seed": 1}), tmp_path / "c").result
    assert other.samples != first.samples


def test_the_command_prints_and_draws(model, digit, tmp_path, capsys):
    words = ["restore", "--model", str(model), "--image", str(digit), "--samples", "3"]
    assert cli.main([*words, "--steps", "4", "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("From 48 of 64 numbers (inpainting), digit.png is restored at ")
    assert [line.split()[0] for line in out[2:4]] == ["measured", "mean"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The restoration" in page
    assert (tmp_path / "run" / "figures" / "restored.pdf").stat().st_size > 1000
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["study"] == "restore"


def test_no_images_leaves_the_picture_out(model, digit, tmp_path):
    words = ["restore", "--model", str(model), "--image", str(digit), "--samples", "2"]
    out = tmp_path / "run"
    assert cli.main([*words, "--steps", "3", "--no-images", "--out", str(out)]) == 0
    assert "<img" not in (out / "report.html").read_text()
    assert list(out.glob("figures/*")) == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": ""}, "--model: not given"),
        ({"image": ""}, "--image: not given"),
        ({"image": "nowhere.png"}, "nowhere.png': cannot be read"),
        ({"rule": "projected", "noise": 0.1}, "projected takes measurements without noise"),
        ({"task": "super_resolution", "factor": 3}, "--task super_resolution: factor: 3"),
        ({"task": "random_pixels", "fraction": 0.001}, "leaves none or all"),
    ],
)
def test_what_cannot_be_restored_is_one_line(model, digit, tmp_path, fields, says):
    with pytest.raises(InputError) as caught:
        restore.run(spec_of(model, digit).model_copy(update=fields), tmp_path / "run")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_random_images_that_do_not_fit_the_memory_are_refused(model, digit, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**6)
    spec = spec_of(model, digit, task="compressive_sensing", size=64)
    with pytest.raises(InputError, match=r"size: 64 needs about .* GB for random images .*size 16"):
        restore.run(spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_picture_is_cropped_resized_and_given_the_models_channels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    colour, gray = (picture(tmp_path / "a.png", 10, gray=gray) for gray in (False, True))
    torch.testing.assert_close(
        colour, torch.from_numpy(colours[:, 2:12]).permute(2, 0, 1).float() / 255
    )
    assert gray.shape == (1, 10, 10)
    Image.fromarray(colours[..., 0]).save(tmp_path / "b.png")
    assert picture(tmp_path / "b.png", 4, gray=False).shape == (3, 4, 4)
