"""The study of C-alpha images: known slopes, a whole run, its page, and what it refuses."""

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from twinscore import cli, environment
from twinscore.analysis.slopes import fitted_slope, slope, slope_difference
from twinscore.denoisers import NetworkSpec
from twinscore.denoisers.closed_form import StationaryGaussian
from twinscore.errors import InputError
from twinscore.experiments import budget, regularity
from twinscore.experiments.regularity import measures, results, study
from twinscore.experiments.regularity.spec import Spec
from twinscore.images import load
from twinscore.images.synthetic import field_law, mixture
from twinscore.report import page, pieces, style
from twinscore.report import regularity as drawn
from twinscore.training import TrainingSpec

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


# Known answers


def test_errors_and_slope_of_the_optimal_denoiser_of_gaussian_fields():
    law = field_law(16, 4.0, contrast=0.2)
    x, _ = mixture(range(400), law, seed=0)
    denoiser = StationaryGaussian(law.means[:1], law.spectra[:1])
    sigmas = [10 ** (-level / 20) for level in (10, 15, 20, 25, 30)]
    measured = measures.errors(denoiser, x, sigmas, seed=0)
    exact = np.array([denoiser.mse(sigma) / 16**2 for sigma in sigmas])
    spread = measured.std(1, ddof=1) / np.sqrt(measured.shape[1])
    np.testing.assert_array_less(np.abs(measured.mean(1) - exact), 4 * spread)
    fit = fitted_slope(sigmas, measured, (10, 30), seed=0)
    margin = (fit.high - fit.low) / 2  # half the interval on each side: 4 standard errors
    assert fit.low - margin < slope(sigmas, exact, (10, 30)) < fit.high + margin


def test_slopes_of_exact_power_laws_have_their_difference_as_contrast():
    sigmas = np.array(SPEC.sigmas)
    scatter = np.linspace(0.5, 1.5, 5)
    errors = {
        (alpha, "regularity"): dict.fromkeys(
            measures.METHODS,
            sigmas[None, :, None] ** (2 * alpha / (alpha + 1)) * scatter * np.ones((2, 1, 1)),
        )
        for alpha in (1.0, 3.0)
    }
    for contrast in results.contrasts_of(SPEC, errors):
        numbers = contrast.difference.model_dump().values()
        np.testing.assert_allclose(list(numbers), 0.25, atol=1e-12)  # images share their slope
        assert contrast.theory == pytest.approx(0.25)


def test_replicates_widen_the_interval_of_a_slope():
    sigmas = SPEC.sigmas
    same = np.array(sigmas)[:, None] ** 1.2 * np.linspace(0.9, 1.1, 8)
    other = np.array(sigmas)[:, None] ** 1.6 * np.linspace(0.9, 1.1, 8)
    # Two slopes, 0.6 and 0.8: their t interval at one degree of freedom is 0.7 -+ 12.706 * 0.1.
    apart = fitted_slope(sigmas, np.stack([same, other]), (10, 30), seed=0)
    assert [apart.low, apart.value, apart.high] == pytest.approx(
        [0.7 - 1.2706, 0.7, 0.7 + 1.2706], abs=1e-4
    )
    alike = fitted_slope(sigmas, np.stack([same, same]), (10, 30), seed=0)
    assert alike.high - alike.low < 1e-9
    one = fitted_slope(sigmas, other, (10, 30), seed=0)
    assert one == fitted_slope(sigmas, other[None], (10, 30), seed=0)


def test_a_difference_of_slopes_is_paired_within_a_replicate():
    """Slopes that differ between replicates but not their difference: an interval of no width."""
    sigmas, scatter = np.array(SPEC.sigmas)[:, None], np.linspace(0.9, 1.1, 8)
    least, most = (
        np.stack([sigmas ** (2 * (slope + shift)) * scatter for shift in (0, 0.2)])
        for slope in (0.5, 0.7)
    )
    paired = slope_difference(SPEC.sigmas, least, most, (10, 30), seed=0)
    assert [paired.low, paired.value, paired.high] == pytest.approx([0.2] * 3, abs=1e-9)
    one = slope_difference(SPEC.sigmas, least[0], most[0], (10, 30), seed=0)
    assert [one.low, one.value, one.high] == pytest.approx([0.2] * 3, abs=1e-9)
    with pytest.raises(ValueError, match="pair errors of one shape"):
        slope_difference(SPEC.sigmas, least, most[0], (10, 30), seed=0)


def test_eigenvectors_of_a_linear_denoiser_are_those_of_its_matrix():
    spectrum = torch.linspace(0.1, 1, 64)
    vectors = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q
    matrix = vectors @ (spectrum[:, None] * vectors.T)

    def denoiser(y, sigma=None):
        return (y.flatten(1) @ matrix).view_as(y)

    x = load("c_alpha:alpha=2,size=8,count=1")[0]
    found = measures.compare_bases(denoiser, x, torch.ones_like(x), 0.1, count=4)
    np.testing.assert_allclose(found["eigenvalues"], spectrum.flip(0), atol=1e-5)  # float32
    overlaps = found["eigenvectors"].reshape(4, 64) @ vectors.flip(1)[:, :4].numpy()
    np.testing.assert_allclose(np.abs(overlaps), np.eye(4), atol=1e-3)  # 1e-6 over the gap, .014
    assert found["asymmetry"] < 1e-5
    for name in ("eigenvectors", "best basis", "wavelets", "cosines"):
        left = found[f"residual/{name}"]
        assert (np.diff(left) <= 0).all()
        assert left[-1] < 1e-5 * x.square().sum().item()  # an orthonormal basis leaves nothing


def test_memory_of_a_training_is_counted_as_torch_keeps_it():
    network = NetworkSpec(kind="bf_cnn", width=8, layers=3)
    small, large = (budget.cost(network, batch, (1, 16, 16), held=7) for batch in (4, 8))
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
        assert [curve.method for curve in c.curves] == list(measures.METHODS)
        for curve in c.curves:
            assert curve.slope.low <= curve.slope.value <= curve.slope.high
            assert (len(curve.psnr), len(curve.local)) == (3, 2)
            psnr = [value.value for value in curve.psnr]
            # The logarithm is concave: images' mean PSNR is never below that of their mean error.
            assert (np.array(curve.mean_psnr) >= np.array(psnr) - 1e-9).all()
            assert np.mean(curve.local) == pytest.approx(curve.slope.value, abs=1e-9)
    text = (finished.folder / "result.json").read_text()
    assert results.Result.model_validate(json.loads(text, parse_constant=pytest.fail)) == result
    with (finished.folder / "levels.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * len(measures.METHODS) * 3


def test_training_and_test_images_of_all_replicates_differ(finished):
    tasks = study._tasks(SPEC, finished.folder, environment.Execution("cpu", 1, 1), print)
    for alpha in range(2):
        parts = [
            indices
            for task in tasks[2 * alpha : 2 * alpha + 2]
            for indices in (task.trial.test, task.trial.indices)
        ]
        together = np.concatenate(parts)
        assert sorted(together) == list(range(2 * (5 + 12)))  # 6 steps of 2: none is seen twice
    assert not any(task.trial.held for task in tasks)


def test_running_again_trains_and_measures_nothing(finished, monkeypatch):
    before = {p: p.read_bytes() for p in finished.folder.rglob("*.safetensors")}
    monkeypatch.setattr(measures, "_measure", None)
    monkeypatch.setattr("twinscore.experiments.trials._fit", None)
    assert regularity.run(SPEC, finished.folder, device="cpu").result == finished.result
    assert {p: p.read_bytes() for p in finished.folder.rglob("*.safetensors")} == before
    changed = SPEC.model_copy(update={"fit_range": (10.0, 31.0)})
    with pytest.raises(InputError, match="differs in fit_range"):
        regularity.run(changed, finished.folder, device="cpu")


def test_an_interrupted_run_ends_with_the_same_bytes(finished, tmp_path, monkeypatch):
    spec, real = SPEC.model_copy(update={"alphas": (1.0,)}), measures._measure
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(measures, "_measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        regularity.run(spec, tmp_path / "run", device="cpu")
    assert "No verdict yet" in page.write(tmp_path / "run").read_text()
    done = regularity.run(spec, tmp_path / "run", device="cpu")
    assert len(calls) == 3
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
    assert pieces.HOLDS_SYNTHETIC in text
    assert all(f'<figure id="{name}">' in text for name in drawn.FIGURES)
    assert cli.main([*words, "--no-images"]) == 0
    assert '<figure id="bases">' not in (finished.folder / "report.html").read_text()


def test_the_figures_show_the_numbers(finished):
    arrays = load_file(finished.folder / "arrays.safetensors")
    bases = drawn.figures(finished.folder)["bases"]
    shown = bases.subfigs[0].axes[3].images[0].get_array()
    np.testing.assert_array_equal(shown, arrays["regularity/1/eigenvectors"][0, 0])
    line = drawn.figures(finished.folder)["local"].axes[0].lines[0]
    local = finished.result.classes[0].curve("network").local
    np.testing.assert_array_equal(line.get_ydata(), local)


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
        (["--n", "100000000"], ["n: 2 networks", "n, at most"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, named):
    out = tmp_path / "run"
    assert cli.main(["regularity", *words, "--out", str(out), "--device", "cpu"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert all(name in line for name in named), line
    assert not line.startswith(("--the", "--fit_range", "--n", "--2"))
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
    monkeypatch.setattr(budget, "available_memory", lambda device: 2 * 10**9)
    out = tmp_path / "run"
    words = ["regularity", "--spec", "paper-c-alpha", "--out", str(out), "--device", "cpu"]
    assert cli.main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "size: 80 needs about" in line
    fits = int(line.split("size ")[-1].split(" fits")[0])
    assert not out.exists()
    network, shape = NetworkSpec(), (1, fits, fits)
    needed = budget.cost(network, 512, shape, held=100_000, jacobians=1)
    budget.require_memory(needed, fits, "cpu", 1)
    with pytest.raises(InputError):
        budget.require_memory(needed, fits, "cpu", 3)


def test_a_jacobian_that_does_not_fit_memory_is_refused(tmp_path, capsys, monkeypatch):
    """48 bytes an entry: 2 GB hold (2e9 / 48)^(1/4) = 80.3 pixels a side."""
    out = tmp_path / "run"
    words = ["regularity", "--size", "512", "--training.batch", "1", "--workers", "1"]
    words += ["--network.width", "1", "--network.levels", "1", "--out", str(out)]
    for free, hint in ((2 * 10**9, "size 80 fits"), (10**6, "no size fits")):
        monkeypatch.setattr(budget, "available_memory", lambda device, free=free: free)
        assert cli.main([*words, "--device", "cpu"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.split("; ")[1].startswith(hint), line
        assert "size 0" not in line
    assert not out.exists()


def test_a_jacobian_is_formed_on_the_device_and_decomposed_on_the_host(monkeypatch):
    needed = budget.Cost(weights=0, activations=1, images=0, entries=32**4)
    for scarce, free in (("cuda", 4 * 32**4), ("cpu", 44 * 32**4)):
        memory = {"cuda": 10**12, "cpu": 10**12} | {scarce: free}
        monkeypatch.setattr(budget, "available_memory", memory.get)
        budget.require_memory(needed, 32, "cuda", 1)
        memory[scarce] -= 1
        with pytest.raises(InputError, match=r"1 Jacobian and .* size 24 fits$"):
            budget.require_memory(needed, 32, "cuda", 1)


def test_only_a_processor_is_shared_out_among_workers_and_threads():
    assert budget.wall_seconds(60, environment.Execution("cpu", 2, 3)) == 10
    assert budget.wall_seconds(60, environment.Execution("cuda", 2, 3)) == 60
