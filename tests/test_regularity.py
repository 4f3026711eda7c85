"""The study of C-alpha images: known slopes, a whole run, its page, and what it refuses."""

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from twinscore import cli, environment
from twinscore.analysis.bases import compare_bases
from twinscore.analysis.denoising import error_table
from twinscore.analysis.slopes import fitted_slope, slope
from twinscore.denoisers import NetworkSpec
from twinscore.denoisers.closed_form import StationaryGaussian
from twinscore.errors import InputError
from twinscore.experiments import estimates, regularity
from twinscore.experiments.regularity import METHODS, STUDY, Spec
from twinscore.images import load
from twinscore.images.synthetic import field_law, mixture
from twinscore.report import content, page, style
from twinscore.results.regularity import Result
from twinscore.training import TrainingSpec, memory

SPEC = Spec(
    alphas=(3.0, 1.0),
    generators=("regularity",),
    size=16,
    test=5,
    replicates=2,
    levels=(10, 20, 30),
    fit_range=(10, 30),
    eigenvectors=3,
    network=NetworkSpec(kind="bf_cnn", width=2, layers=2),
    training=TrainingSpec(steps=6, batch=2, evaluations=1),
)
FIGURES = ("slopes", "curves", "local", "bases", "decay", "eigenvalues")


@pytest.fixture(scope="module", autouse=True)
def light():
    """One thread, and figures that are not encoded, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        patch.setattr(style, "settle", lambda figure: figure)
        for kind in ("svg", "png", "pdf"):
            patch.setattr(style, kind, lambda *_: b"")
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return regularity.run(SPEC, tmp_path_factory.mktemp("runs") / "finished", device="cpu")


@pytest.fixture(scope="module")
def figures(finished):
    return page.figures(finished.folder)


# Known answers


def test_errors_and_slope_of_the_optimal_denoiser_of_gaussian_fields():
    law = field_law(16, 4.0, contrast=0.2)
    x, _ = mixture(range(400), law, seed=0)
    denoiser = StationaryGaussian(law.means[:1], law.spectra[:1])
    sigmas = [10 ** (-level / 20) for level in (10, 15, 20, 25, 30)]
    measured = error_table(denoiser, x, sigmas, seed=0)
    exact = np.array([denoiser.mse(sigma) / 16**2 for sigma in sigmas])
    spread = measured.std(1, ddof=1) / np.sqrt(measured.shape[1])
    np.testing.assert_array_less(np.abs(measured.mean(1) - exact), 4 * spread)
    fit = fitted_slope(sigmas, measured, (10, 30), seed=0)
    margin = (fit.high - fit.low) / 2  # half the interval on each side: 4 standard errors
    assert fit.low - margin < slope(sigmas, exact, (10, 30)) < fit.high + margin


def test_eigenvectors_of_a_linear_denoiser_are_those_of_its_matrix():
    spectrum = torch.linspace(0.1, 1, 64)
    vectors = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q
    matrix = vectors @ (spectrum[:, None] * vectors.T)

    def denoiser(y, sigma=None):
        return (y.flatten(1) @ matrix).view_as(y)

    x = load("c_alpha:alpha=2,size=8,count=1")[:]
    found = compare_bases(denoiser, x, torch.ones_like(x), 0.1, count=4)
    np.testing.assert_allclose(found["eigenvalues"], spectrum.flip(0), atol=1e-5)  # float32
    overlaps = found["eigenvectors"].reshape(4, 64) @ vectors.flip(1)[:, :4].numpy()
    np.testing.assert_allclose(np.abs(overlaps), np.eye(4), atol=1e-3)  # 1e-6 over the gap, .014
    assert found["asymmetry"] < 1e-5
    for name in ("eigenvectors", "best basis", "wavelets", "cosines"):
        left = found[f"residual/{name}"]
        assert (np.diff(left) <= 0).all()
        assert left[-1] < 1e-5 * x.square().sum().item()  # an orthonormal basis leaves nothing


@pytest.mark.parametrize(("upper", "asymmetry"), [(1.0, 2**0.5), (-1.0, 2.0)])
def test_asymmetry_is_that_of_the_whole_difference(upper, asymmetry):
    """``|J - J'| / |J|``: of one entry off the diagonal, and of an antisymmetric matrix."""
    matrix = torch.zeros(64, 64)
    matrix[0, 1] = 1.0
    matrix[1, 0] = min(upper, 0.0)

    def denoiser(y, sigma=None):
        return (y.flatten(1) @ matrix).view_as(y)

    x = load("c_alpha:alpha=2,size=8,count=1")[:]
    found = compare_bases(denoiser, x, torch.ones_like(x), 0.1, count=1)
    assert found["asymmetry"] == pytest.approx(asymmetry, abs=1e-6)


def test_memory_of_a_training_is_counted_as_torch_keeps_it():
    network = NetworkSpec(kind="bf_cnn", width=8, layers=3)
    small, large = (memory.cost(network, batch, (1, 16, 16), held=7) for batch in (4, 8))
    maps = 4 * 4 * 16 * 16  # bytes of a batch's map of one channel
    # Inputs of the three convolutions, and input and output of the one norm: 1, 8, 8, 8 and 8
    # channels, of which an output is the next input.
    assert 25 * maps <= small.activations <= 60 * maps
    assert large.activations > 1.9 * small.activations
    assert small.images == 2 * 7 * 4 * 16 * 16


# A run


def test_result_has_every_class_and_method(finished):
    result = finished.result
    assert result.complete
    assert [(c.alpha, c.theory, c.of_filter) for c in result.classes] == [
        (1.0, 0.5, 0.5),
        (3.0, 0.75, 0.75),
    ]
    for c in result.classes:
        assert [curve.method for curve in c.curves] == list(METHODS)
        for curve in c.curves:
            assert curve.slope.low <= curve.slope.value <= curve.slope.high
            assert (len(curve.psnr), len(curve.local)) == (3, 2)
            psnr = [value.value for value in curve.psnr]
            # The logarithm is concave: images' mean PSNR is never below that of their mean error.
            assert (np.array(curve.mean_psnr) >= np.array(psnr) - 1e-9).all()
            local = [value.value for value in curve.local]
            assert np.mean(local) == pytest.approx(curve.slope.value, abs=1e-9)
            assert all(value.low <= value.value <= value.high for value in curve.local)
    text = (finished.folder / "result.json").read_text()
    assert Result.model_validate(json.loads(text, parse_constant=pytest.fail)) == result
    with (finished.folder / "levels.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * len(METHODS) * 3
    with (finished.folder / "local_slopes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(METHODS) * 2
    assert (rows[0]["from_input_psnr"], rows[0]["to_input_psnr"]) == ("10", "20")
    first = result.classes[0].curve("network").local[0]
    numbers = [float(rows[0][name]) for name in ("slope", "slope_low", "slope_high")]
    assert numbers == pytest.approx([first.value, first.low, first.high], rel=1e-5)  # 6 digits
    *_, head, alpha_1, _ = result.table().splitlines()
    assert head.split() == ["10-20", "20-30"]
    assert alpha_1.split()[-2] == f"{first.value:.2f}"


def test_the_estimate_comes_first_and_counts_baselines_and_what_is_left(
    finished, tmp_path, monkeypatch
):
    assert (finished.folder / "log.txt").read_text().startswith("estimate: 4 networks: about ")
    assert regularity.baseline_seconds(16, "cpu") > 0
    monkeypatch.setattr(estimates, "training_seconds", lambda *_, **__: 0.0)
    monkeypatch.setattr(regularity, "baseline_seconds", lambda *_: 6.0)

    def estimate():
        return STUDY.cost(SPEC, tmp_path, device="cpu", workers=1)

    assert estimate().text().startswith("4 networks: about 6.0 minutes")  # 4 of 5 images, 3 levels
    for k in range(3):
        (tmp_path / "trials" / f"n{k}").mkdir(parents=True)
        (tmp_path / "trials" / f"n{k}" / "weights.safetensors").touch()
    assert estimate().text().startswith("1 network: about 1.5 minutes")
    (tmp_path / "trials" / "n2" / "weights.safetensors").rename(tmp_path / "moved")
    assert estimate().text().startswith("2 networks: about 3.0 minutes")
    (tmp_path / "trials" / "n3").mkdir()
    for k in (2, 3):
        (tmp_path / "trials" / f"n{k}" / "weights.safetensors").touch()
    assert estimate() == estimates.NOTHING


def test_the_estimate_counts_the_passes_and_the_bytes_of_the_measures(finished):
    needs = regularity.needs(SPEC)
    assert needs.passes == 5 * 3 + 3 * 16**2 / 2  # one replicate of two has a Jacobian
    stored = [path.stat().st_size for path in finished.folder.glob("trials/*/measures-*")]
    assert needs.stored == pytest.approx(np.mean(stored), rel=0.2)  # except for the headers
    assert (needs.shape, needs.held, needs.jacobians) == ((1, 16, 16), 0, 1)


def test_training_and_test_images_of_all_replicates_differ():
    trials = regularity.trials(SPEC, lambda name, event: None)
    for part in ("alpha = 1, regularity", "alpha = 3, regularity"):
        of = [trial for trial in trials if trial.part == part]
        together = np.concatenate([rows for trial in of for rows in (trial.test, trial.indices)])
        assert sorted(together) == list(range(2 * (5 + 12)))  # 6 steps of 2: none is seen twice
    assert not any(trial.held for trial in trials)


def test_running_again_trains_and_measures_nothing(finished, monkeypatch):
    before = {p: p.read_bytes() for p in finished.folder.rglob("*.safetensors")}
    monkeypatch.setattr(regularity, "compare_bases", None)
    monkeypatch.setattr(regularity, "error_table", None)
    monkeypatch.setattr("twinscore.experiments.trials._fit", None)
    assert regularity.run(SPEC, finished.folder, device="cpu").result == finished.result
    assert {p: p.read_bytes() for p in finished.folder.rglob("*.safetensors")} == before
    changed = SPEC.model_copy(update={"fit_range": (10.0, 31.0)})
    with pytest.raises(InputError, match="differs in fit_range"):
        regularity.run(changed, finished.folder, device="cpu")


def test_an_interrupted_run_ends_with_the_same_bytes(finished, tmp_path, monkeypatch):
    spec, real = SPEC.model_copy(update={"alphas": (1.0,)}), regularity.error_table
    calls = []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 6:  # of four for each trial
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(regularity, "error_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        regularity.run(spec, tmp_path / "run", device="cpu")
    assert "No part of this run is finished yet" in page.write(tmp_path / "run").read_text()
    done = regularity.run(spec, tmp_path / "run", device="cpu")
    assert len(calls) == 6 + 4
    assert done.result.classes == finished.result.classes[:1]
    assert "the network's slope is" in done.result.verdict
    extended = regularity.run(SPEC, tmp_path / "run", device="cpu")
    name = "arrays.safetensors"
    assert (extended.folder / name).read_bytes() == (finished.folder / name).read_bytes()


def test_the_command_writes_a_page(finished, tmp_path, capsys):
    path = tmp_path / "spec.json"  # JSON is YAML
    path.write_text(SPEC.model_dump_json())
    words = ["regularity", "--spec", str(path), "--out", str(finished.folder), "--device", "cpu"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith(finished.result.verdict)
    text = (finished.folder / "report.html").read_text()
    assert content.HOLDS_SYNTHETIC in text
    assert all(f'<figure id="{name}">' in text for name in FIGURES)
    assert cli.main([*words, "--no-images"]) == 0
    assert '<figure id="bases">' not in (finished.folder / "report.html").read_text()


def test_the_figures_show_the_numbers(finished, figures):
    arrays = load_file(finished.folder / "arrays.safetensors")
    shown = figures["bases"].subfigs[0].axes[3].images[0].get_array()
    np.testing.assert_array_equal(shown, arrays["regularity/1/eigenvectors"][0, 0])
    line = figures["local"].axes[0].lines[0]
    local = finished.result.classes[0].curve("network").local
    np.testing.assert_array_equal(line.get_ydata(), [value.value for value in local])


def test_the_figures_show_signs_asymmetry_and_the_theory(finished, figures):
    arrays = load_file(finished.folder / "arrays.safetensors")
    eigenvalues = arrays["regularity/1/eigenvalues"]
    line = figures["eigenvalues"].axes[0].lines[1]  # after the axis
    np.testing.assert_array_equal(line.get_ydata(), eigenvalues)
    title = figures["bases"].subfigs[0].get_suptitle()
    assert f"asymmetry {finished.result.classes[0].asymmetry:.2f}" in title
    assert f"{(eigenvalues < 0).sum()} of 256 eigenvalues negative" in title
    reference = next(line for line in figures["curves"].axes[0].lines if line.get_marker() == "|")
    (x0, x1), (y0, y1) = reference.get_data()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(0.5)
    assert (x0, y0) == (10, finished.result.classes[0].curve("network").psnr[0].value)


def test_a_constant_vector_is_pale(figures):
    """Its entries are 1/16, a third of full tone."""
    vectors = [image for axes in figures["bases"].subfigs[0].axes[3:] for image in axes.images]
    assert len(vectors) == 2 * SPEC.eigenvectors
    for image in vectors:
        vector = image.get_array()
        assert image.norm.vmax == pytest.approx(max(np.abs(vector).max(), 3 / 16), rel=1e-6)


# Bad input


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--alphas", "-1"], ["alphas", "above 0"]),
        (["--alphas", "11"], ["alphas", "up to 10"]),
        (
            ["--fit-range", "10", "12"],
            ["fit_range: the fit range", "holds 1 noise level and needs 3; add 2"],
        ),
        (["--fit-range", "30", "10"], ["fit_range: the fit range must ascend"]),
        (["--size", "20"], ["size", "multiple of 8"]),
        (["--generators", "other"], ["generators"]),
        (["--levels", "500"], ["levels", "80 dB"]),
        (["--training.steps", "1000000"], ["n: 2 networks", "give n, at most"]),
        (["--n", "9999999"], ["n: 2 networks", "n, at most"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, named):
    out = tmp_path / "run"
    assert cli.main(["regularity", *words, "--out", str(out), "--device", "cpu"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert all(name in line for name in named), line
    assert not line.removeprefix("twinscore: ").startswith(("--the", "--fit_range", "--2"))
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "stated"), [("quick-c-alpha", "steps: 2000"), ("paper-c-alpha", "steps: 390625")]
)
def test_shipped_specs_are_read(name, stated, capsys):
    assert cli.main(["regularity", "--spec", name, "--print-spec"]) == 0
    assert stated in capsys.readouterr().out


def test_a_spec_that_does_not_fit_memory_is_refused_with_the_size_that_fits(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(memory, "available_memory", lambda device: 2 * 10**9)
    out = tmp_path / "run"
    words = ["regularity", "--spec", "paper-c-alpha", "--out", str(out), "--device", "cpu"]
    assert cli.main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "size: 80 needs about" in line
    fits = int(line.split("size ")[-1].split(" fits")[0])
    assert not out.exists()
    network, shape = NetworkSpec(), (1, fits, fits)
    needed = memory.cost(network, 512, shape, held=100_000, jacobians=1)
    memory.require_memory(needed, fits, "cpu", 1)
    with pytest.raises(InputError):
        memory.require_memory(needed, fits, "cpu", 3)


def test_a_jacobian_that_does_not_fit_memory_is_refused(tmp_path, capsys, monkeypatch):
    """48 bytes per entry: 2 GB hold (2e9 / 48)^(1/4) = 80.3 pixels per side."""
    out = tmp_path / "run"
    words = ["regularity", "--size", "512", "--training.batch", "1", "--workers", "1"]
    words += ["--network.width", "1", "--network.levels", "1", "--out", str(out)]
    for free, hint in ((2 * 10**9, "size 80 fits"), (10**6, "no size fits")):
        monkeypatch.setattr(memory, "available_memory", lambda device, free=free: free)
        assert cli.main([*words, "--device", "cpu"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.split("; ")[1].startswith(hint), line
        assert "size 0" not in line
    assert not out.exists()


def test_a_jacobian_is_formed_on_the_device_and_decomposed_on_the_host(monkeypatch):
    needed = memory.Cost(weights=0, activations=1, images=0, entries=32**4)
    for scarce, free in (("cuda", 4 * 32**4), ("cpu", 44 * 32**4)):
        there = {"cuda": 10**12, "cpu": 10**12} | {scarce: free}
        monkeypatch.setattr(memory, "available_memory", there.get)
        memory.require_memory(needed, 32, "cuda", 1)
        there[scarce] -= 1
        with pytest.raises(InputError, match=r"1 Jacobian and .* size 24 fits$"):
            memory.require_memory(needed, 32, "cuda", 1)


def test_only_a_processor_is_shared_out_among_workers_and_threads(monkeypatch):
    monkeypatch.setattr(environment, "available_cores", lambda: 6)
    assert estimates.by_the_clock(2, 60, environment.Execution("cpu", 2, 3)) == 10
    assert estimates.by_the_clock(2, 60, environment.Execution("cuda", 2, 3)) == 60
