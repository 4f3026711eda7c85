"""The command that takes denoisers apart: known spectra, its folder, its page, what it refuses."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from twinscore import cli, images
from twinscore.analysis import eigenbasis, jacobian
from twinscore.denoisers import Checkpoint, NetworkSpec, build, load, save
from twinscore.denoisers.closed_form import Empirical
from twinscore.errors import InputError
from twinscore.experiments import harmonics
from twinscore.report import eigenvectors, page, reading, style
from twinscore.report import harmonics as report
from twinscore.training import memory

SMALL = NetworkSpec(width=4, levels=1)
BASES = ("cosines", "wavelets")
FIGURES = ("images", "spectrum", "eigenvectors", "coefficients")
FEW = {"vectors": 6, "sigmas": (0.1, 0.4), "draws": 8}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two networks as they were born, for 8x8 images."""
    paths = []
    for seed in (0, 1):
        network = build(SMALL, 1, seed).eval()
        paths.append(tmp_path_factory.mktemp("model") / "weights.safetensors")
        save(paths[-1], Checkpoint(network, (1, 8, 8), (0.3,)), SMALL)
    return paths


@pytest.fixture(scope="module")
def pair(models, tmp_path_factory):
    one, other = map(str, models)
    spec = harmonics.Spec(model=one, against=other, names=("one", "other"), index=7, **FEW)
    return harmonics.run(spec, tmp_path_factory.mktemp("runs") / "pair", device="cpu")


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the encoding of figures out, which takes seconds."""
    monkeypatch.setattr(style, "settle", lambda figure: figure)
    for kind in ("svg", "png", "pdf"):
        monkeypatch.setattr(style, kind, lambda *_: b"")


def content(folder):
    return report.content(reading.read(folder))


def caption(folder, name):
    return getattr(report, name).caption(reading.read(folder))


def gaussian_spec(**fields):
    return harmonics.Spec(model="gaussian:digits", index=7, **FEW | fields)


def test_a_gaussian_shrinks_principal_components(tmp_path):
    done = harmonics.run(gaussian_spec(), tmp_path / "run", device="cpu")
    pixels = images.load("digits")[:].flatten(1).double().numpy()
    variances = np.linalg.eigvalsh(np.cov(pixels.T, bias=True))[::-1].clip(0)
    spectra = load_file(done.folder / "arrays.safetensors")["model0/eigenvalues"]
    for spectrum, sigma in zip(spectra, (0.1, 0.2, 0.4), strict=True):
        shrunk = variances / (variances + sigma**2)
        np.testing.assert_allclose(spectrum, shrunk, atol=1e-5)  # products in float32
    [model] = done.result.models
    for level in model.levels:
        expected = variances / (variances + level.sigma**2)
        assert level.trace.value == pytest.approx(expected.sum(), rel=1e-5)
        rank = expected.sum() ** 2 / np.square(expected).sum()
        assert level.effective_rank.value == pytest.approx(rank, rel=1e-5)
        assert level.asymmetry.value < 1e-4
        assert level.complex_pairs == 0
        parts = (level.kept, level.shrunk, level.removed)
        assert sum(part.directions for part in parts) == 64
        assert level.kept.directions == int((expected >= 0.75).sum())
        for share in ("image", "noise"):
            assert sum(getattr(part, share) for part in parts) == pytest.approx(1)


def test_above_the_dense_size_the_same_comes_from_products(tmp_path, monkeypatch):
    dense = harmonics.run(gaussian_spec(), tmp_path / "dense", device="cpu")
    monkeypatch.setattr(eigenbasis, "DENSE", 63)
    sparse = harmonics.run(gaussian_spec(), tmp_path / "sparse", device="cpu")
    one, other = (load_file(d.folder / "arrays.safetensors") for d in (dense, sparse))
    assert other["model0/eigenvalues"].shape == (3, 6)
    np.testing.assert_allclose(
        other["model0/eigenvalues"],
        one["model0/eigenvalues"][:, :6],
        atol=1e-3,  # the residual asked for
    )
    for a, b in zip(dense.result.models[0].levels, sparse.result.models[0].levels, strict=True):
        assert b.converged
        assert b.trace.value == pytest.approx(a.trace.value, abs=4 * b.trace.standard_error)
        rank = b.effective_rank
        assert rank.value == pytest.approx(a.effective_rank.value, abs=4 * rank.standard_error)
    assert sparse.result.models[0].levels[0].removed is None  # six values, all above 0.25


SOME = {"fitted": (1, 6), "draws": 2, "seed": 0}


@pytest.mark.parametrize("k", [6, 20, 40])
def test_what_was_not_computed_is_not_counted(monkeypatch, k):
    x, denoiser = images.load("digits")[[7]], load("gaussian:digits").denoiser
    whole = eigenbasis.measure(denoiser, x, 0.1, k=k, **SOME).level
    monkeypatch.setattr(eigenbasis, "DENSE", 63)
    part = eigenbasis.measure(denoiser, x, 0.1, k=k, **SOME).level
    assert part.kept.directions == min(k, whole.kept.directions)
    assert part.kept.complete == (k > whole.kept.directions)
    assert part.kept.image <= whole.kept.image + 1e-3
    if k <= whole.kept.directions:
        assert part.shrunk is None
    else:
        rest = k - whole.kept.directions
        assert part.shrunk.directions == min(rest, whole.shrunk.directions)
        assert part.shrunk.complete == (rest > whole.shrunk.directions)
    if part.removed is not None:
        # eigenvectors are those of the whole to the residual over the gap at the border
        assert part.removed.directions == whole.removed.directions
        assert part.kept.image == pytest.approx(whole.kept.image, abs=1e-2)
        assert part.shrunk.noise == pytest.approx(whole.shrunk.noise, abs=1e-2)


def test_a_bound_is_called_one(tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr(eigenbasis, "DENSE", 63)
    spec = gaussian_spec(sigma=0.1, sigmas=(0.1,))
    done = harmonics.run(spec, tmp_path / "run", device="cpu")
    assert "keeps at least 6 of 64 directions, which hold at least " in done.result.verdict
    assert done.result.table().splitlines()[1].split()[-4:-1] == [">=", "6", "-"]
    [row] = content(done.folder).table.rows
    assert [cell.text for cell in row[5:8]] == ["≥ 6", "–", "–"]
    assert "m: ≥ 6." in caption(done.folder, "spectrum").text.replace(
        done.result.models[0].name, "m"
    )
    page.figures(done.folder)


def turning(real, imaginary):
    """Denoiser with the eigenvalues ``real +- i imaginary``, (32,) each, on pairs of pixels."""

    def turn(y, sigma=None):
        a, b = y.flatten(1).view(-1, 32, 2).unbind(2)
        return torch.stack([real * a - imaginary * b, imaginary * a + real * b], 2).view_as(y)

    return turn


@pytest.mark.parametrize("k", [5, 6])
def test_a_pair_that_is_cut_counts_whichever_half_is_left(monkeypatch, k):
    monkeypatch.setattr(eigenbasis, "DENSE", 63)
    x = images.load("digits")[[7]].double()
    angles = torch.linspace(0.1, 1.5, 32, dtype=x.dtype)
    level = eigenbasis.measure(turning(angles.cos(), angles.sin()), x, 0.1, k=k, **SOME).level
    assert level.converged
    assert level.complex_pairs == 3
    halves = torch.tensor([0.5 - 0.2j, 0.5 + 0.2j, 0.4 - 0.1j])
    for values in (halves, halves.conj()):
        assert eigenbasis._complex(values)["complex_pairs"] == 2


def test_accuracy_is_of_both_kinds_of_eigenpairs(monkeypatch):
    monkeypatch.setattr(eigenbasis, "DENSE", 63)
    monkeypatch.setattr(eigenbasis, "_products", lambda k: 40)
    x = images.load("digits")[[7]].double()
    denoiser = turning(0.5, torch.linspace(0.1, 0.9, 32, dtype=x.dtype))
    around = jacobian.linearise(denoiser, x, 0.1)
    assert jacobian.symmetric_eigenpairs(around, 4, max_products=40).converged  # half the identity
    level = eigenbasis.measure(denoiser, x, 0.1, k=4, **SOME).level
    assert not level.converged
    assert level.residual > 1e-3


def test_negative_eigenvalues_alone_are_not_a_jacobian_of_zero(monkeypatch):
    monkeypatch.setattr(eigenbasis, "DENSE", 63)
    x = images.load("digits")[[7]].double()
    dark = (torch.arange(64) < 32).view(1, 1, 8, 8)
    level = eigenbasis.measure(lambda y, sigma=None: -0.5 * y * dark, x, 0.1, k=6, **SOME).level
    assert level.trace.value == pytest.approx(-16, abs=4 * level.trace.standard_error + 1e-9)
    assert level.effective_rank.value > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dense", [1024, 63])
def test_a_second_device_changes_nothing(models, monkeypatch, dense):
    monkeypatch.setattr(eigenbasis, "DENSE", dense)
    x, options = images.load("digits")[[7]], {"k": 4, "fitted": (1, 4), "draws": 2, "seed": 0}
    network = load(models[0]).denoiser
    here = eigenbasis.measure(network, x, 0.2, **options)
    there = eigenbasis.measure(network.cuda(), x.cuda(), 0.2, **options)
    network.cpu()
    torch.testing.assert_close(
        there.shrinkage.factors.cpu(), here.shrinkage.factors, rtol=0, atol=1e-3
    )  # TF32 convolutions
    assert there.level.kept.noise == pytest.approx(here.level.kept.noise, abs=1e-2)


@pytest.mark.parametrize("dense", [1024, 63])
def test_a_jacobian_of_zero_has_no_asymmetry(monkeypatch, dense):
    monkeypatch.setattr(eigenbasis, "DENSE", dense)
    digits = images.load("digits")
    nearest = Empirical.of(digits[:5].double())
    options = {"k": 4, "fitted": (1, 4), "draws": 2, "seed": 0}
    level = eigenbasis.measure(nearest, digits[[0]].double(), 1e-3, **options).level
    assert (level.asymmetry, level.trace.value, level.effective_rank.value) == (None, 0, 0)
    assert (level.kept.directions, level.removed.directions) == (0, 64)
    assert level.eigenvalue_decay is None


def test_two_networks_side_by_side(pair):
    arrays = load_file(pair.folder / "arrays.safetensors")
    for i in range(2):
        assert arrays[f"model{i}/eigenvectors"].shape == (6, 1, 8, 8)
        assert arrays[f"model{i}/eigenvalues"].shape == (3, 64)
        rows = arrays[f"model{i}/eigenvectors"].reshape(6, 64)
        np.testing.assert_allclose(rows @ rows.T, np.eye(6), atol=1e-5)
        np.testing.assert_allclose(
            arrays[f"model{i}/coefficients_clean"][:6], rows @ arrays["clean"].ravel(), atol=1e-5
        )
    for model in pair.result.models:
        for level in model.levels:
            assert level.homogeneity < 1e-5  # bias-free
            assert level.converged
    assert [a.dimensions for a in pair.result.agreement[:3]] == [1, 2, 4]
    for found in pair.result.agreement:
        rows = [arrays[f"model{i}/eigenvectors"].reshape(6, 64) for i in range(2)]
        if found.sigma == 0.2:
            top = [r[: found.dimensions] for r in rows]
            shared = np.square(top[0] @ top[1].T).sum() / found.dimensions
            assert found.shared == pytest.approx(shared, rel=1e-4)
        assert found.chance == found.dimensions / 64


FILTER = """
import torch


def low_pass(y, sigma):
    side = y.shape[-1]
    angles = torch.arange(side)[:, None] * (torch.arange(side) + 0.5) * torch.pi / side
    cosines = torch.nn.functional.normalize(torch.cos(angles), dim=1).to(y)
    factors = torch.exp(-torch.arange(side) / 3.0 - torch.arange(side)[:, None] / 5.0).to(y)
    return cosines.T @ (factors * (cosines @ y @ cosines.T)) @ cosines


def model():
    return low_pass
"""


def test_a_filter_of_cosines_has_cosines_for_eigenvectors(tmp_path):
    file = tmp_path / "filter.py"
    file.write_text(FILTER)
    spec = harmonics.Spec(model=f"{file}:model", index=7, **FEW)
    done = harmonics.run(spec, tmp_path / "run", device="cpu")
    by_basis = {name: [f for f in done.result.fixed if f.basis == name] for name in BASES}
    for name, found in by_basis.items():
        assert [f.dimensions for f in found] == [1, 2, 4], name
        assert all(f.dimensions / 64 < f.chance < 0.6 for f in found)  # the best, not fixed ones
    # Eigenvalues are distinct; float32 products settle the vectors to some 1e-6.
    assert [f.shared for f in by_basis["cosines"]] == pytest.approx([1] * 3, abs=1e-5)
    assert by_basis["wavelets"][-1].shared < 0.95
    facts = dict(content(done.folder).facts)
    said = facts[f"{done.result.models[0].name}: shared with the best cosines (chance)"]
    assert said.startswith("top 1: 100 % (")


def test_odd_sides_have_no_wavelets(tmp_path):
    file = tmp_path / "filter.py"
    file.write_text(FILTER)
    spec = harmonics.Spec(model=f"{file}:model", data="digits,size=7", **FEW)
    done = harmonics.run(spec, tmp_path / "run", device="cpu")
    assert {f.basis for f in done.result.fixed} == {"cosines"}


def test_a_second_run_reads_the_first(pair, models, monkeypatch):
    before = (pair.folder / "arrays.safetensors").read_bytes()
    monkeypatch.setattr(harmonics, "measure", pytest.fail)
    one, other = map(str, models)
    spec = harmonics.Spec(model=one, against=other, names=("one", "other"), index=7, **FEW)
    assert harmonics.run(spec, pair.folder, device="cpu").result == pair.result
    assert (pair.folder / "arrays.safetensors").read_bytes() == before
    with pytest.raises(InputError, match=r"differs in index"):
        harmonics.run(spec.model_copy(update={"index": 8}), pair.folder, device="cpu")


def test_a_result_of_another_version_is_written_again(tmp_path, monkeypatch):
    done = harmonics.run(gaussian_spec(), tmp_path / "run", device="cpu")
    file = done.folder / "result.json"
    file.write_text(json.dumps({"study": "harmonics", "verdict": "of old"}))
    monkeypatch.setattr(harmonics, "VERSION", 2)
    assert harmonics.run(gaussian_spec(), done.folder, device="cpu").result == done.result
    monkeypatch.setattr(harmonics, "measure", pytest.fail)
    harmonics.run(gaussian_spec(), done.folder, device="cpu")


def test_an_interrupted_run_continues_level_by_level(pair, models, tmp_path, monkeypatch, undrawn):
    measure, seen = eigenbasis.measure, []

    def at_most(count):
        def measured(denoiser, x, sigma, **options):
            if len(seen) == count:
                raise KeyboardInterrupt
            seen.append(sigma)
            return measure(denoiser, x, sigma, **options)

        monkeypatch.setattr(harmonics, "measure", measured)

    one, other = map(str, models)
    spec = harmonics.Spec(model=one, against=other, names=("one", "other"), index=7, **FEW)

    def interrupted():
        with pytest.raises(KeyboardInterrupt):
            harmonics.run(spec, tmp_path, device="cpu")

    at_most(3)
    interrupted()
    assert not (tmp_path / "result.json").exists()  # the pictures' level is not whole
    at_most(5)
    interrupted()
    half = json.loads((tmp_path / "result.json").read_text())
    assert (half["complete"], half["missing"]) == (False, ["σ = 0.4"])
    assert [level["sigma"] for level in half["models"][1]["levels"]] == [0.1, 0.2]
    assert tuple(page.figures(tmp_path)) == FIGURES
    assert "σ = 0.4" in page.write(tmp_path).read_text()
    at_most(6)
    assert harmonics.run(spec, tmp_path, device="cpu").result == pair.result
    assert seen == [0.1, 0.1, 0.2, 0.2, 0.4, 0.4]
    arrays = [(folder / "arrays.safetensors").read_bytes() for folder in (tmp_path, pair.folder)]
    assert arrays[0] == arrays[1]


class Own(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, y, sigma=None):
        return self.layer(y)


def test_weights_of_a_network_of_the_users_own(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "own.safetensors"
    save(weights, Checkpoint(Own(1).eval(), (1, 8, 8), (0.3,)), "own.Own")
    spec = harmonics.Spec(model=str(weights), **FEW)
    with pytest.raises(InputError):
        harmonics.run(spec, tmp_path / "run", device="cpu")
    done = harmonics.run(spec, tmp_path / "run", device="cpu", network=Own)
    assert len({level.trace.value for level in done.result.models[0].levels}) == 1  # linear
    assert "network" not in json.loads((done.folder / "spec.json").read_text())


def test_the_estimate_grows_with_what_is_left(pair, models, tmp_path, monkeypatch):
    one, other = map(str, models)
    spec = harmonics.Spec(model=one, against=other, names=("one", "other"), index=7, **FEW)
    cost = harmonics.STUDY.cost(spec, tmp_path / "run", device="cpu")
    assert cost.text().startswith("6 Jacobians: about a second, ")
    assert not (tmp_path / "run").exists()
    assert harmonics.STUDY.cost(spec, pair.folder, device="cpu").what == "nothing left to do"
    monkeypatch.setattr(harmonics, "DENSE", 63)
    assert harmonics.STUDY.cost(spec, tmp_path / "run", device="cpu").seconds > 0


def test_too_large_an_image_is_refused(monkeypatch, tmp_path):
    spec = harmonics.Spec(model="threshold:cosines", data="digits,size=48", vectors=40)
    monkeypatch.setattr(memory, "available_memory", lambda device: 4 * 10**6)
    with pytest.raises(InputError, match=r"data: size 48 needs about .* for 40 eigenvectors .*16"):
        harmonics.run(spec, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_weights_are_named_after_their_folders(models, tmp_path):
    one, other = map(str, models)
    spec = harmonics.Spec(model=one, against=other, **FEW)
    done = harmonics.run(spec, tmp_path / "run", device="cpu")
    names = [model.name for model in done.result.models]
    assert names == [path.parent.name for path in models]
    assert names[0] != names[1]


def test_the_command_prints_and_draws(models, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["harmonics", "--model", str(models[0]), "--index", "7", "--vectors", "6"]
    assert cli.main([*words, "--draws", "4", "--sigmas", "0.2", "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("At σ = 0.2 (")
    assert said[1].split()[:2] == ["model", "sigma"]
    html = (out / "report.html").read_text()
    links = re.findall(r'(?:src|srcset|href|action)\s*=\s*"([^"]*)"', html)
    assert links
    assert all(link.startswith("data:") for link in links)
    assert "http:" not in html
    assert "https:" not in html
    script = re.search(r"<script>(.*?)</script>\n</body>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    viewer = json.loads(re.search(r'id="viewer-data">(.*?)</script>', html)[1])
    assert len(viewer["labels"]) == 6
    assert '<label for="viewer-slider">Eigenvector</label>' in html
    names = {path.name for path in (out / "figures").iterdir()}
    assert names == {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")}


def test_figures_have_labels_and_hold_the_numbers(pair, undrawn):
    figures = page.figures(pair.folder)
    assert tuple(figures) == FIGURES
    for name in ("spectrum", "coefficients"):
        left, right = figures[name].axes
        assert (left.get_title(), right.get_title()) == ("one", "other")
        assert left.get_xlabel() == right.get_xlabel() == "rank k"
        assert left.get_ylabel()
        assert figures[name].legends
    arrays = load_file(pair.folder / "arrays.safetensors")
    drawn = figures["spectrum"].axes[1].lines[2]
    values = arrays["model1/eigenvalues"][2]
    np.testing.assert_array_equal(drawn.get_ydata(), values[values >= 1e-3])
    assert drawn.get_label() == "0.4"
    energy = np.square(arrays["model0/coefficients_noisy"]).sum()
    ranks, height = figures["coefficients"].axes[0].lines[0].get_data()
    assert ranks[0] == 1
    assert height[0] == pytest.approx(abs(arrays["model0/coefficients_noisy"][0]))
    assert np.square(height).max() <= energy
    titles = [axes.get_title() for axes in figures["images"].axes]
    assert titles == ["clean", "noisy", "one", "other"]


def test_the_viewer_adds_up_to_what_the_first_directions_give(pair):
    viewer = report.eigenvectors.viewer(reading.read(pair.folder))
    assert len(viewer.labels) == 6
    assert viewer.numbers[0] == "eigenvalue"
    values = load_file(pair.folder / "arrays.safetensors")["model0/eigenvalues"][1]
    shown = [row[0] for row in viewer.strips[0]["between"]]
    assert shown == [f"λ {value:.2f}" for value in values[:6]]


def test_no_images_leaves_eigenvectors_out(pair, undrawn):
    text = page.write(pair.folder, images=False).read_text()
    assert 'id="viewer"' not in text
    assert set(page.figures(pair.folder, images=False)) == {"spectrum", "coefficients"}


TRAINING = """
import torch
from torch import nn


class Centred(nn.Module):
    def forward(self, y, sigma):
        assert sigma.shape == (len(y),)
        return y - y.mean(0) if self.training else y / 2


def module():
    return Centred().train()


def method():
    return Centred().train().forward
"""


@pytest.mark.parametrize("name", ["module", "method"])
def test_a_network_in_training_mode_is_put_in_evaluation(tmp_path, name):
    file = tmp_path / "training.py"
    file.write_text(TRAINING)
    spec = harmonics.Spec(model=f"{file}:{name}", index=7, **FEW)
    [model] = harmonics.run(spec, tmp_path / "run", device="cpu").result.models
    assert [level.trace.value for level in model.levels] == pytest.approx([32] * 3)


def test_a_slope_at_an_estimate_of_zero_is_reported_without_a_residual(tmp_path, undrawn):
    file = tmp_path / "zero.py"
    file.write_text("def zero():\n    return lambda y, sigma: y - y.detach()\n")
    done = harmonics.run(harmonics.Spec(model=f"{file}:zero", **FEW), tmp_path / "run")
    [model] = done.result.models
    assert {level.homogeneity for level in model.levels} == {None}
    table = content(done.folder).table
    column = table.columns.index("|f(y) − J y| / |f(y)|")
    assert {row[column].text for row in table.rows} == {"–"}


def test_captions_say_what_was_measured(pair):
    kept = [[level.kept.directions for level in model.levels] for model in pair.result.models]
    one, other = (", ".join(map(str, counts)) for counts in kept)
    said = f"Directions kept at σ = 0.1, 0.2, 0.4: one: {one}; other: {other}."
    assert caption(pair.folder, "spectrum").text.endswith(said)


def test_largest_entry_of_a_drawn_eigenvector_is_white():
    vectors = torch.tensor([[0.6, -0.8], [0.0, 0.0]]).view(2, 1, 1, 2).numpy()
    np.testing.assert_allclose(
        eigenvectors.signed(vectors).reshape(2, 2), [[0.125, 1.0], [0.5, 0.5]]
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--model: not given"),
        (["--model", "gaussian:digits", "--index", "1797"], "--index: 1797 is outside digits"),
        (["--model", "gaussian:digits", "--vectors", "65"], "--vectors: 65 is more than the 64"),
        (["--model", "gaussian:digits", "--sigma", "0"], "--sigma: "),
        (["--model", "gaussian:digits", "--sigma", "1e-30"], "--sigma: "),
        (
            ["--model", "gaussian:digits", "--sigmas", "0.1", "-1"],
            "--sigmas: should be great",
        ),
        (["--model", "gaussian:digits", "--first", "9", "--last", "10"], "last must be at least"),
        (["--model", "gaussian:digits", "--names", "a", "b"], "names must hold one for each"),
        (["--model", "gaussian:digits", "--against", "nowhere"], "nowhere: not found"),
        (["--model", "gaussian:digits,size=4"], "cannot be taken apart at an image of digits"),
        (["--model", "{nan}"], "the denoiser returned NaN"),
        (["--model", "{flat}"], "not differentiable"),
        (["--model", "{key}"], "KeyError: 'gain'"),
        (["--model", "{kind}"], "TypeError: unsupported operand"),
        (["--model", "{shape}"], "must return (1, 1, 8, 8) float32, got (1, 1, 8, 7) float32"),
        (["--model", "{dtype}"], "must return (1, 1, 8, 8) float32, got (1, 1, 8, 8) float64"),
        (["--model", "{root}"], "--model: {root}: cannot be taken apart at an image of digits, (1"),
        (["--model", "{root}"], "a product with the denoiser's Jacobian holds NaN"),
        (["--model", "{loud}"], "(1, 8, 8), with noise of sigma 0.4: the denoiser returned NaN"),
        (["--model", "{steep}"], "with noise of sigma 0.4: a product with the denoiser's Jac"),
        (["--model", "gaussian:digits", "--against", "{loud}"], "--against: {loud}: cannot be"),
    ],
)
def test_what_cannot_be_taken_apart_is_one_line(tmp_path, capsys, words, says):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def nan():\n    return lambda y, sigma: y * float('nan')\n"
        "def flat():\n    return lambda y, sigma: y.detach() * 0.5\n"
        "def key():\n    return lambda y, sigma: y * {}['gain']\n"
        "def kind():\n    return lambda y, sigma: y * None\n"
        "def shape():\n    return lambda y, sigma: y[..., 1:]\n"
        "def dtype():\n    return lambda y, sigma: y.double()\n"
        "def root():\n    return lambda y, sigma: y.clamp(min=0).sqrt()\n"
        "def loud():\n    return lambda y, sigma: y * (0.39 - sigma[0]).sqrt()\n"
        "def steep():\n    return lambda y, sigma: y + (y * (sigma[0] < 0.3)).abs().sqrt()\n"
    )
    names = ("nan", "flat", "key", "kind", "shape", "dtype", "root", "loud", "steep")
    own = {name: f"{mine}:{name}" for name in names}
    words, says = [w.format(**own) for w in words], says.format(**own)
    assert cli.main(["harmonics", *words, "--out", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "run").exists()
