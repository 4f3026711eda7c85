"""Model strings: closed forms of a source, functions of the user, commands that take them."""

import numpy as np
import pytest
import torch
from PIL import Image

from twinscore import cli, images
from twinscore.denoisers import Checkpoint, NetworkSpec, build, fitted, load, save
from twinscore.denoisers.checkpoint import model_digest, sized
from twinscore.denoisers.layers import generator_of
from twinscore.denoisers.shrinkage import Bandlets, Cosines, Thresholding, Wavelets, hard, soft
from twinscore.errors import InputError
from twinscore.experiments import harmonics

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

MINE = """
import torch
from torch import nn
from twinscore.denoisers import Checkpoint
from helper import VARIANCE

class Shrinkage(nn.Module):
    def __init__(self):
        super().__init__()
        self.variance = nn.Parameter(torch.tensor(VARIANCE))

    def forward(self, x, sigma):
        return x * (self.variance / (self.variance + sigma**2)).view(-1, 1, 1, 1)

def bare():
    return Shrinkage()

def known():
    return Checkpoint(Shrinkage(), (1, 8, 8), (0.3,))

def coloured():
    return Checkpoint(lambda y, sigma: y / 2, (3, None, None), (0.3,))

def flat():
    return Checkpoint(Shrinkage(), (8, 8), (0.3,))

def broken():
    raise KeyError("weights\\nof mine")

def number():
    return 3
"""


@pytest.fixture
def mine(tmp_path):
    """A file of the user's with another next to it."""
    (tmp_path / "helper.py").write_text("VARIANCE = 0.25\n")
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def digit(tmp_path):
    path = tmp_path / "digit.png"
    pixels = images.load("digits")[7][0].numpy()
    Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("threshold:wavelets", Thresholding(Wavelets())),
        ("threshold:cosines,block=8,multiple=3", Thresholding(Cosines(8), hard, 3.0)),
        ("threshold:best-basis,rule=soft", Thresholding(Bandlets(geometry_cost=2), soft)),
    ],
)
def test_a_shrinkage_estimator_is_a_model(model, expected):
    opened = load(model)
    y = images.load("photos,size=16")[:2].double()
    assert torch.equal(opened.denoiser(y, 0.1), expected(y, 0.1))
    assert (opened.shape, opened.mean) == ((None, None, None), (0.5,))
    with pytest.raises(ValueError, match="pass sigma"):
        opened.denoiser(y)


def test_a_shrinkage_estimator_is_taken_apart_like_a_network(tmp_path):
    """Hard thresholding is a projection: of eigenvalues 1, as many as are kept, and 0."""
    spec = harmonics.Spec(model="threshold:cosines,multiple=2", data="digits", sigma=0.1)
    [model] = harmonics.run(spec, tmp_path / "run", device="cpu").result.models
    for level in model.levels:
        assert level.asymmetry.value < 1e-5
        assert level.trace.value == pytest.approx(
            level.kept.directions, abs=1e-3
        )  # float32, 64 numbers


def refusal(model):
    with pytest.raises(InputError) as caught:
        load(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_gaussian_of_a_source_has_its_moments(monkeypatch):
    monkeypatch.setattr(fitted, "_CHUNK", 64 * 500)  # several chunks, the last one short
    model, digits = load("gaussian:digits"), images.load("digits")
    assert model.shape == (1, 8, 8)
    assert model.mean == tuple(digits.mean())
    pixels = digits[:].double().flatten(1).numpy()
    gaussian = model.denoiser
    np.testing.assert_allclose(gaussian.mean.flatten(), pixels.mean(0), atol=1e-12)
    covariance = (gaussian.components * gaussian.variances) @ gaussian.components.T
    np.testing.assert_allclose(covariance, np.cov(pixels.T, bias=True), atol=1e-12)


def test_fewer_images_than_pixels_give_estimates_among_them():
    model = load("gaussian:discs:count=5,size=6")
    few = images.load("discs:count=5,size=6")[:].double().flatten(1)
    assert (model.denoiser.variances > 1e-9).sum() == 4  # 5 points span 4 dimensions
    y = torch.randn(2, 1, 6, 6, generator=generator_of(0), dtype=torch.float64)
    away = (model.denoiser(y, 0.5).flatten(1) - few.mean(0)).numpy()
    span = (few - few.mean(0)).T.numpy()
    inside = span @ np.linalg.lstsq(span, away.T, rcond=1e-9)[0]
    np.testing.assert_allclose(inside.T, away, atol=1e-6)  # eigenvectors of variance about 1e-17


def test_a_gaussian_too_large_for_memory_names_a_size_that_fits(monkeypatch):
    monkeypatch.setattr(fitted, "LARGEST_D", 50)
    message = refusal("gaussian:digits")
    assert message.startswith("gaussian:digits: images of shape (1, 8, 8) hold 64 numbers")
    assert message.endswith("give size=7 or less")
    assert load("gaussian:digits,size=7").shape == (1, 7, 7)


def test_samples_of_the_empirical_denoiser_are_its_images(tmp_path):
    """At noise far below half the smallest distance between two of them."""
    source, out = "discs:count=20,size=6", tmp_path / "samples.npz"
    model, discs = load(f"empirical:{source}"), images.load(source)
    assert (model.shape, model.mean) == (discs.shape, tuple(discs.mean()))
    assert run("sample", "--model", f"empirical:{source}", "--count", 16, "--out", out) == 0
    x = torch.from_numpy(np.load(out)["samples"]).flatten(1)
    nearest = torch.cdist(x, discs[:].flatten(1)).min(1)
    assert nearest.values.max() < 1e-3
    assert len(nearest.indices.unique()) > 4


def test_a_digest_names_the_content(mine):
    models = ["gaussian:digits", "gaussian:digits,size=7", f"{mine}:known", f"{mine}:bare"]
    cosines = ["threshold:cosines", "threshold:cosines,block=4", "threshold:cosines,rule=soft"]
    models = [*cosines, *models]
    digests = [model_digest(load(model)) for model in models]
    assert len(set(digests)) == len(models)
    assert [model_digest(load(model)) for model in models] == digests
    (mine.parent / "helper.py").write_text("VARIANCE = 0.5\n")
    changed = model_digest(load(f"{mine}:bare"))  # the same file, other weights
    mine.write_text(MINE + "# another\n")
    assert len({digests[-1], changed, model_digest(load(f"{mine}:bare"))}) == 3


def test_weights_alone_make_the_digest_of_a_network(tmp_path):
    """In a trial folder, in a file, in a different layout in memory."""
    spec = NetworkSpec(width=3, levels=1)
    network = build(spec, 1, 0).eval()
    before = model_digest(Checkpoint(network, (1, 8, 8), (0.5,)))
    save(tmp_path / "weights.safetensors", Checkpoint(network, (1, 6, 6), (0.4,)), spec)
    for path in (tmp_path, str(tmp_path), str(tmp_path / "weights.safetensors")):
        assert model_digest(load(path)) == before


def test_a_function_of_the_users_gives_a_denoiser(mine):
    y = torch.randn(3, 1, 8, 8, generator=generator_of(0))
    bare, known = load(f"{mine}:bare"), load(f"{mine}:known")
    assert (bare.shape, bare.mean) == ((None, None, None), (0.5,))
    assert (known.shape, known.mean) == ((1, 8, 8), (0.3,))
    for model in (bare, known):
        assert not model.denoiser.network.training
        for sigma in (0.5, torch.full((3,), 0.5)):
            torch.testing.assert_close(model.denoiser(y, sigma), y / 2)
    assert model.on("meta").network.variance.is_meta


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("{mine}:absent", "AttributeError"),
        ("{mine}:broken", "mine.py:broken: cannot be called: KeyError: "),
        ("{mine}:flat", "ValueError: shape must be (C, H, W) and mean hold C numbers, or one; got"),
        ("{mine}:number", "mine.py:number: returned int; return a denoiser"),
        ("{mine}x.py:bare", "cannot be read: No such file"),
        ("{mine}", "not a checkpoint that twinscore wrote"),
        ("gaussian:nothing", "neither a source of images"),
        ("gausian:digits", "gausian:digits: not found; give a finished trial folder"),
        ("lcv:", "not found"),
        ("threshold:fourier", "'fourier'; give one of wavelets, cosines, best-basis"),
        (
            "threshold:wavelets,rule=firm",
            "threshold:wavelets,rule=firm: rule='firm' is not hard or",
        ),
        ("threshold:wavelets,multiple=x", "multiple='x' is not a number"),
        ("threshold:wavelets,multiple=0", "multiple must be positive and finite, got 0.0"),
        (
            "threshold:wavelets,rules=hard",
            "'rules' is not an option; options are rule, multiple, block",
        ),
        ("threshold:wavelets,rule=hard,rule=soft", "'rule' is given twice"),
        ("threshold:wavelets,block=8", "block is an option of cosines only"),
        ("threshold:cosines,block=0", "block must be at least 1, got 0"),
        ("nowhere", "another model (docs/models.md)"),
    ],
)
def test_no_model_is_one_line(mine, model, says):
    assert says in refusal(model.format(mine=mine))


def test_a_file_that_does_not_run_is_one_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def f(:\n")
    assert "cannot be called: SyntaxError" in refusal(f"{path}:f")


def test_a_model_of_any_size(mine):
    known, coloured = load(f"{mine}:known"), load(f"{mine}:coloured")
    assert sized(known, None) is sized(known, 8) is known
    assert sized(known, 5).shape == (1, 5, 5)
    assert sized(coloured, 4).shape == (3, 4, 4)
    with pytest.raises(InputError, match="--size: not given"):
        sized(coloured, None)
    with pytest.raises(InputError, match="--model: does not say how many channels"):
        sized(load(f"{mine}:bare"), 8)
    with pytest.raises(InputError, match=r"--model: does not say .* \(docs/models.md\)"):
        sized(load("threshold:wavelets"), 8)
    with pytest.raises(InputError, match=r"--size: 5 does not suit .* shape \(1, 8, 8\)"):
        sized(load("gaussian:digits"), 5)


def run(*words):
    return cli.main([str(word) for word in words])


def test_samples_of_a_closed_form_have_its_moments(tmp_path, capsys):
    out = tmp_path / "samples.npz"
    assert run("sample", "--model", "gaussian:digits", "--count", 400, "--sampling.sigma-max",
               20, "--out", out) == 0  # fmt: skip
    assert capsys.readouterr().out == f"samples: {out}\n"
    x = np.load(out)["samples"].reshape(400, -1)
    pixels = images.load("digits")[:].flatten(1).numpy()
    error = np.abs(x.mean(0) - pixels.mean(0)) / np.sqrt(pixels.var(0) + 1e-4)
    assert error.max() < 4 / np.sqrt(400)  # the largest of 64 standard normals is under 4
    # the standard error of a sum of variances is under sqrt(2/400) of it; 3 of those
    assert abs(x.var(0).sum() / pixels.var(0).sum() - 1) < 3 * np.sqrt(2 / 400)


def test_samples_of_another_size_and_mean(tmp_path, capsys, mine):
    words = ["sample", "--count", 3, "--sampling.steps", 3]
    spec = NetworkSpec(width=3, levels=1)
    network = build(spec, 1, 0).eval()
    save(tmp_path / "weights.safetensors", Checkpoint(network, (1, 8, 8), (0.5,)), spec)
    assert run(*words, "--model", tmp_path, "--size", 11, "--out", tmp_path / "a.npz") == 0
    assert np.load(tmp_path / "a.npz")["samples"].shape == (3, 1, 11, 11)
    grey = ["--model", f"{mine}:coloured", "--size", 5]
    assert run(*words, *grey, "--out", tmp_path / "b.npz") == 0
    assert run(*words, *grey, "--mean", 10.3, "--out", tmp_path / "c.npz") == 0
    low, high = (np.load(tmp_path / name)["samples"] for name in ("b.npz", "c.npz"))
    assert low.shape == (3, 3, 5, 5)
    assert (high > low).all()
    capsys.readouterr()
    assert run(*words, "--model", f"{mine}:coloured", "--out", tmp_path / "d.npz") == 2
    assert capsys.readouterr().err.startswith("twinscore: --size: not given")
    assert run(*words, "--model", "gaussian:digits", "--size", 5, "--out", tmp_path / "d.npz") == 2
    assert capsys.readouterr().err.startswith("twinscore: --size: 5 does not suit the model")


@pytest.mark.parametrize("rule", ["conditioned", "projected"])
def test_a_picture_is_restored_with_a_closed_form(tmp_path, capsys, digit, rule):
    words = ["restore", "--model", "gaussian:digits", "--image", digit, "--samples", 3]
    words += ["--rule", rule, "--h0", 0.1, "--steps", 8, "--no-images"]
    assert run(*words, "--out", tmp_path / "run") == 0
    assert "is restored at" in capsys.readouterr().out
    assert run(*words, "--size", 6, "--out", tmp_path / "other") == 2
    assert capsys.readouterr().err.startswith("twinscore: --size: 6 does not suit the model")


def test_a_picture_is_restored_with_a_function_of_the_users(tmp_path, capsys, digit, mine):
    words = ["restore", "--model", f"{mine}:known", "--image", digit, "--samples", 2]
    assert run(*words, "--steps", 4, "--no-images", "--out", tmp_path / "run") == 0
    mine.write_text(MINE + "# another\n")
    capsys.readouterr()
    assert run(*words, "--steps", 4, "--no-images", "--out", tmp_path / "run") == 2
    assert "differs in model" in capsys.readouterr().err
