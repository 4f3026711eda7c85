"""The study of discs: known answers with optimal denoisers, and the run from end to end."""

import csv
import html
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from twinscore import cli, environment, runs
from twinscore.analysis import tangent
from twinscore.denoisers import Checkpoint, NetworkSpec
from twinscore.denoisers.closed_form import Disc, disc_tangent
from twinscore.errors import InputError
from twinscore.experiments import manifold, study
from twinscore.experiments.folders import Done
from twinscore.experiments.manifold import Spec
from twinscore.images.synthetic import discs
from twinscore.report import manifold as drawn
from twinscore.report import page, reading, style
from twinscore.report.content import HOLDS_NOT, HOLDS_SYNTHETIC
from twinscore.results.base import Interval
from twinscore.training import TrainingSpec, memory

SPEC = Spec(
    size=8,
    radius=(1.5, 3.0),
    n=12,
    test=4,
    exact=1,
    bases=2,
    levels=(4.0, 20.0),
    network=NetworkSpec(width=2, levels=1),
    training=TrainingSpec(steps=4, batch=4, evaluations=1),
)
CONTRAST = 0.5


@pytest.fixture(scope="module", autouse=True)
def one_core():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        yield


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Leave the encoding of figures out, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "settle", lambda figure: figure)
        for kind in ("svg", "png", "pdf"):
            patch.setattr(style, kind, lambda *_: b"")
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return manifold.run(SPEC, tmp_path_factory.mktemp("runs") / "discs", device="cpu")


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished.folder, tmp_path / "run")


def of_contrast(spec):
    """The number of a disc whose intensities are far apart compared with the noise."""
    _, parameters = discs(range(50), size=spec.size, radius=spec.radius, seed=spec.seed)
    return int(((parameters[:, 3] - parameters[:, 4]).abs() > CONTRAST).nonzero()[0])


def trial_of(spec, rows):
    """A trial whose test discs are ``rows``."""
    [trial, *_] = manifold.trials(SPEC, silent)
    return replace(trial, test=rows)


def measured(denoiser, spec, rows):
    trial = trial_of(spec, rows)
    model = Checkpoint(denoiser, (1, spec.size, spec.size), (0.5,))
    return trial, manifold.measure(spec, trial, model, silent)


def levels_of(denoiser, spec, rows):
    return manifold.summarise(spec, [measured(denoiser, spec, rows)]).result.levels


def silent(name, event):
    """Report nothing."""


# Known answers


def test_the_exact_posterior_mean_has_no_gap_and_keeps_five():
    """Expanded to first order where it is asked: the same value and Jacobian, at little cost."""
    spec = SPEC.model_copy(update={"levels": (26.0,), "bases": 1})
    row, [sigma] = np.array([of_contrast(spec)]), spec.sigmas
    x, _ = discs(row, size=spec.size, radius=spec.radius)
    seed = runs.derive_seed(spec.seed, "noise", 0)
    at = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    disc = Disc(spec.size, spec.radius, spec.edge)
    value = disc(at.double(), sigma)
    jacobian = disc.jacobian(at.double(), sigma)[0]

    def optimum(y, sigma=None):
        return (value + ((y - at).flatten(1).double() @ jacobian).view_as(y)).to(y)

    [level] = levels_of(optimum, spec, row)
    # It answers in float32, whose rounding is under 1e-5 of the error of a pixel.
    assert [level.gap_exact.value, level.gap_exact.low] == pytest.approx([0, 0], abs=1e-3)
    assert (level.kept.value, level.kept_exact.value) == (5, 5)
    # The same eigenvalues, which rounding to float32 moves by 1e-6.
    assert level.near_one.value == level.near_one_exact.value <= 5
    # Here all discs are those of the exact posterior mean.
    beside = level.beside_exact
    assert (beside.network, beside.tangent) == (level.network, level.tangent)
    assert level.overlap.value > 0.95  # 1 in the limit of small noise


def test_the_tangent_projection_has_no_gap_and_keeps_the_tangent():
    spec = SPEC.model_copy(update={"levels": (10.0, 40.0), "exact": 0, "bases": 1})
    row = np.array([of_contrast(spec)])
    parameters = discs(row, size=spec.size, radius=spec.radius)[1]
    plane = disc_tangent(parameters[0].double(), spec.size)
    done = measured(plane, spec, row)
    for level in manifold.summarise(spec, [done]).result.levels:
        assert level.gap_tangent.value == pytest.approx(0, abs=1e-9)
        assert level.gap is level.gap_tangent
        assert level.exact is level.kept_exact is level.near_one_exact is None
        assert level.beside_exact is None
        assert level.kept.value == level.near_one.value == 5
        assert level.cosines == pytest.approx([1] * 5)
    assert np.abs(done[1]["shown/extravalues"]).max() < 1e-6  # float32: the basis follows y


def test_directions_kept_in_part_are_not_near_one():
    """Four fifths of everything: above 0.5 all, above 0.9 nothing."""
    spec = SPEC.model_copy(update={"levels": (40.0,), "exact": 0, "bases": 1})
    [level] = levels_of(lambda y, sigma=None: 0.8 * y, spec, np.array([of_contrast(spec)]))
    assert (level.kept.value, level.near_one.value) == (64, 0)


def test_a_denoiser_that_keeps_more_is_told_apart():
    """The identity has every eigenvalue 1: all 64 are kept, the tangent among them."""
    spec = SPEC.model_copy(update={"levels": (40.0,), "exact": 0, "bases": 1})
    [level] = levels_of(lambda y, sigma=None: 1.0 * y, spec, np.array([of_contrast(spec)]))
    assert level.kept.value == 64
    assert level.overlap.value == pytest.approx(1)
    # Its error is d sigma^2, the projection's that of 5 of d dimensions.
    assert 6 < level.gap_tangent.value < 16


def test_a_gap_is_paired_signed_and_never_clipped():
    reference = np.random.default_rng(0).exponential(size=(2, 50))
    worse, better = (manifold._gap(f * reference, reference[:, :20], 0) for f in (10.0, 0.1))
    for found, exact in ((worse, 10), (better, -10)):
        # One factor for every disc: paired differences have no spread.
        assert [found.value, found.low, found.high] == pytest.approx([exact] * 3)


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ((2, 3), "is above that of R by 2.00 [1.00, 3.00] dB at sigma = 1 and by 3.00 [2.00"),
        ((-5, 3), "is below that of R by 5.00 [4.00, 6.00] dB at sigma = 1 and above it by 3.00"),
        (
            (2, -3),
            "is above that of R by 2.00 [1.00, 3.00] dB at sigma = 1 and below it by 3.00 [2",
        ),
        ((-5, -3), "is below that of R by 5.00 [4.00, 6.00] dB at sigma = 1 and by 3.00 [2.00"),
        ((-5,), "is below that of R by 5.00 [4.00, 6.00] dB at sigma = 1, where"),
    ],
)
def test_the_verdict_words_the_sign(finished, gaps, said):
    def around(value):
        return Interval(value=value, low=value - 1, high=value + 1)

    levels = [
        finished.result.levels[0].model_copy(
            update={"gap_exact": around(gap), "near_one": around(8.2), "sigma": 1.0 - 0.9 * k}
        )
        for k, gap in enumerate(gaps)
    ]
    found = manifold._verdict(SPEC, levels).replace("the exact posterior mean", "R")
    assert said in found
    assert "above 0.5 and 8.2 [7.2, 9.2] above 0.9; 5 suffice." in found


def test_extra_directions_are_those_beyond_the_tangent():
    basis = torch.linalg.qr(
        torch.randn(9, 9, generator=torch.Generator().manual_seed(0)).double()
    ).Q.T
    symmetric = (
        basis.T @ torch.diag(torch.tensor([1.0] * 7 + [0.2, 0.0], dtype=torch.float64)) @ basis
    )
    values, vectors = tangent.extra_directions(symmetric, basis[:5])
    assert values.tolist() == pytest.approx([1, 1, 0.2] + [0] * 6, abs=1e-12)
    assert (vectors[:2] @ basis[:5].T).abs().max() < 1e-12
    assert tangent.principal_cosines(basis[3:7], basis[:5]).tolist() == pytest.approx(
        [1, 1, 0, 0, 0], abs=1e-12
    )


# The run


def test_a_run_holds_what_it_measured(finished):
    result, run = finished.result, reading.read(finished.folder)
    assert result.complete
    assert [level.sigma for level in result.levels] == pytest.approx([10**-0.2, 0.1])
    for level in result.levels:
        for name in manifold.VALUES:
            value = getattr(level, name)
            assert value.low <= value.value <= value.high
        gap = level.beside_exact.tangent.value - level.beside_exact.network.value
        assert level.beside_exact.gap_tangent.value == pytest.approx(gap)
        assert level.gap_exact.value == pytest.approx(
            level.exact.value - level.beside_exact.network.value
        )
    assert run.array("mse/network").shape == (2, 2, 4)
    assert run.array("eigenvalues/exact").shape == (2, 2, 1, 64)
    assert result.verdict.startswith("On discs of 8x8 pixels the network's squared error is above")
    with (finished.folder / "levels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["gap_exact_low"]) == pytest.approx(
        result.levels[1].gap_exact.low, abs=1e-6
    )


def test_replicates_share_no_disc(finished):
    specs = [json.loads(p.read_text()) for p in finished.folder.glob("trials/*/spec.json")]
    assert len({spec["indices_digest"] for spec in specs}) == 2
    errors = reading.read(finished.folder).array("mse/tangent")
    assert len(np.unique(errors)) == errors.size


def test_a_run_continues_and_ends_with_the_same_bytes(folder, finished, monkeypatch):
    lost = sorted(folder.glob("trials/*"))[0]
    shutil.rmtree(lost)
    for name in ("result.json", "arrays.safetensors"):
        (folder / name).unlink()
    manifold.run(SPEC, folder, device="cpu")
    for name in ("result.json", "arrays.safetensors", "levels.csv"):
        assert (folder / name).read_bytes() == (finished.folder / name).read_bytes()
    monkeypatch.setattr(manifold, "_errors", None)  # nothing is measured again
    assert manifold.run(SPEC, folder, device="cpu").result == finished.result
    with pytest.raises(InputError, match=r"differs in edge\)"):
        manifold.run(SPEC.model_copy(update={"edge": 2.0}), folder, device="cpu")


def test_the_estimate_is_said_before_training(finished):
    said = (finished.folder / "log.txt").read_text()
    assert said.index("estimate: 2 networks: about") < said.index("step 1 of 4")


def test_memory_that_does_not_suffice_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    large = SPEC.model_copy(update={"size": 80, "radius": None, "exact": 0})
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**9)
    with pytest.raises(InputError, match=r"^size: 80 needs about 2\.0 GB .* size 64 fits$"):
        manifold.run(large, tmp_path / "run", device="cpu", workers=1)
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**4)
    with pytest.raises(InputError, match=r"training\.batch"):
        manifold.run(SPEC, tmp_path / "run", device="cpu", workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--size", "12"], ["--size", "multiple of 8"]),
        (["--exact", "300"], ["exact: 300", "at most 256"]),
        (["--bases", "300"], ["bases: 300", "at most 256"]),
        (["--radius", "1", "9"], ["radius", "do not fit"]),
        (["--edge", "100"], ["edge"]),
        (["--levels", "200"], ["levels", "-20 to 80"]),
        (["--threshold", "1"], ["--threshold", "less than 1"]),
        (["--n", "9999999"], ["9,999,999", "give n of at most"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, named):
    assert cli.main(["manifold", *words, "--out", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert all(name in line for name in named), line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["quick-discs", "paper-discs"])
def test_shipped_specs_are_read(name, capsys):
    assert cli.main(["manifold", "--spec", name, "--print-spec"]) == 0
    assert "threshold: 0.5" in capsys.readouterr().out


# The report


def test_the_command_prints_verdict_table_and_path(folder, finished, monkeypatch, capsys):
    monkeypatch.setattr(study.Study, "run", lambda *_, **__: Done(folder, finished.result))
    assert cli.main(["manifold"]) == 0
    result = finished.result
    said = capsys.readouterr().out
    assert said == f"{result.verdict}\n{result.table()}\nreport: {folder / 'report.html'}\n"
    text = (folder / "report.html").read_text()
    assert f"<h1>{html.escape(result.verdict, quote=False).replace(chr(39), '&#39;')}</h1>" in text
    assert '<figure id="eigenvectors">' in text
    assert HOLDS_SYNTHETIC in text
    page.write(folder, images=False)
    text = (folder / "report.html").read_text()
    assert '<figure id="eigenvectors">' not in text
    assert HOLDS_NOT in text


def test_figures_show_the_numbers(finished):
    figures = page.figures(finished.folder)
    assert list(figures) == ["gap", "spectrum", "eigenvectors"]
    lines = {line.get_label(): line for line in figures["spectrum"].axes[0].get_lines()}
    eigenvalues = reading.read(finished.folder).array("eigenvalues/network")
    label = f"σ = {finished.result.levels[1].sigma:.2g}"
    np.testing.assert_allclose(
        lines[label].get_ydata(), eigenvalues[:, 1].mean((0, 1))[: drawn.RANKS]
    )
    titles = [axes.get_title() for axes in figures["eigenvectors"].axes]
    assert titles.count("network") == 2
    assert "tangent 5" in titles
    scales = {image.get_clim() for axes in figures["eigenvectors"].axes for image in axes.images}
    assert len(scales) == 2  # of images, and of vectors: one
    assert all(axes.get_ylabel() for axes in figures["spectrum"].axes)
    assert "exact" in [t.get_text() for t in figures["spectrum"].axes[0].get_legend().get_texts()]


def test_references_are_drawn_on_the_same_discs(finished):
    left, right = page.figures(finished.folder, images=False)["gap"].axes
    levels = finished.result.levels
    for axes, expected in (
        (left, [[at.beside_exact.network, at.exact, at.beside_exact.tangent] for at in levels]),
        (right, [[at.gap_exact, at.beside_exact.gap_tangent] for at in levels]),
    ):
        found = [container.lines[0].get_ydata() for container in axes.containers]
        assert np.transpose(found) == pytest.approx(
            np.array([[value.value for value in row] for row in expected])
        )
    assert "same discs, 1 for each network" in drawn.gap.caption(reading.read(finished.folder)).text


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (4, 4), (5, 5), (9, 5)])
def test_the_caption_names_the_levels_whose_eigenvectors_are_shown(finished, folder, count, shown):
    result = json.loads((folder / "result.json").read_text())
    levels = [result["levels"][0] | {"sigma": 1 / (k + 1)} for k in range(count)]
    runs.write_json(folder / "result.json", result | {"levels": levels})
    text = drawn.eigenvectors.caption(reading.read(folder)).text
    named = text.split("for sigma = ")[1].split(":")[0].split(", ")
    assert len(named) == shown
    assert {named[0], named[-1]} == {"1", f"{1 / count:.2g}"}


def test_a_page_without_the_exact_reference(finished, folder):
    result = json.loads((folder / "result.json").read_text())
    for level in result["levels"]:
        level |= dict.fromkeys(("exact", "gap_exact", "beside_exact"))
        level |= dict.fromkeys(("kept_exact", "near_one_exact"))
    runs.write_json(folder / "result.json", result | {"exact": 0, "missing": ["replicate 1"]})
    facts = dict(drawn.content(reading.read(folder)).facts)
    assert "not computed" in facts["Reference, for each network"]
    assert "<li>replicate 1</li>" in page.write(folder).read_text()
    assert len(page.figures(folder)["gap"].axes[1].containers) == 1


def test_a_folder_without_results_is_one_line(folder):
    (folder / "result.json").unlink()
    text = page.write(folder).read_text()
    assert "No part of this run is finished yet." in text
    assert not list((folder / "figures").glob("*.png"))
    shutil.rmtree(folder / "trials")
    (folder / "trials").mkdir()
    with pytest.raises(InputError, match="nothing is finished yet"):
        page.write(folder)
