"""The early-stopping study end to end: run folder, resume, report, refusals and known facts."""

import csv
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from twinscore.analysis.statistics import mean_interval
from twinscore.cli import main
from twinscore.errors import InputError
from twinscore.experiments import mixture
from twinscore.experiments.mixture import assembly, fits, shift, sweep
from twinscore.experiments.mixture.results import Exponent, Number
from twinscore.experiments.mixture.spec import ShiftSpec, Spec, TwinsSpec
from twinscore.report import mixture as pages
from twinscore.report import style

SMALL = Spec(
    sizes=(16, 64, 256),
    widths=(8, 16, 32),
    targets=("mixture",),
    tau_count=6,
    replicates=2,
    tolerance=0.02,
    shift=ShiftSpec(
        distances=(3.0,), watched=(3.0,), weights=(0.1,), width=16, samples=64, replicates=2
    ),
    twins=TwinsSpec(width=16, count=3, replicates=2),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> mixture.Done:
    return mixture.run(SMALL, tmp_path_factory.mktemp("mixture") / "run", workers=1)


def test_every_number_has_an_interval_around_it(finished):
    result = finished.result
    numbers = [s.kl for s in result.stops] + [t.variation for t in result.twins]
    numbers += [e.measured for e in result.exponents + result.terms if e.measured]
    assert len(result.stops) == 4 * 3
    assert len(result.twins) == 3
    assert all(n.low <= n.value <= n.high for n in [s.kl for s in result.stops])
    assert all(np.isfinite([n.value, n.low, n.high]).all() and n.low <= n.high for n in numbers)


def test_the_folder_holds_the_run(finished):
    names = {path.name for path in finished.folder.iterdir()}
    assert {"spec.json", "result.json", "levels.csv", "arrays.safetensors", "log.txt"} <= names
    with (finished.folder / "levels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(finished.result.stops)
    assert float(rows[0]["kl"]) == pytest.approx(finished.result.stops[0].kl.value, rel=1e-5)


def test_a_second_run_measures_nothing_and_finds_the_same(finished, monkeypatch):
    before = (finished.folder / "result.json").read_bytes()
    missing = finished.folder / "trials" / "twins-r001.safetensors"
    missing.unlink()
    asked = []
    real = mixture._MEASURES["twins"]
    monkeypatch.setitem(
        mixture._MEASURES, "twins", lambda *args: asked.append(args[-1]) or real(*args)
    )
    for part in ("sweep", "shift"):
        monkeypatch.setitem(mixture._MEASURES, part, lambda *args: pytest.fail("measured again"))
    mixture.run(SMALL, finished.folder, workers=1)
    assert asked == [1]
    assert (finished.folder / "result.json").read_bytes() == before


def test_a_folder_of_another_spec_is_refused(finished):
    with pytest.raises(InputError, match=r"another spec .*seed"):
        mixture.run(SMALL.model_copy(update={"seed": 1}), finished.folder)


def test_the_report_draws_every_figure_with_a_caption(finished):
    drawn = pages.figures(finished.folder)
    content = pages.content(finished.folder)
    assert tuple(drawn) == pages.FIGURES
    assert set(content.captions) == set(pages.FIGURES)
    assert content.verdict == finished.result.verdict
    assert style.png(drawn["rates"]).startswith(b"\x89PNG")


def test_a_run_without_any_result_still_has_a_page(tmp_path):
    spec = SMALL.model_copy(
        update={
            "sizes": (16,),
            "widths": (8,),
            "tau_count": 4,
            "tolerance": 1e-12,
            "shift": SMALL.shift.model_copy(update={"tolerance": 1e-12, "weights": ()}),
        }
    )
    done = mixture.run(spec, tmp_path / "run", workers=1)
    assert done.result.failed == done.result.densities
    drawn = pages.figures(done.folder)
    said = [text.get_text() for axes in drawn["training"].axes for text in axes.texts]
    assert said == ["no result"]
    assert pages.content(done.folder).verdict.startswith("too few minima")


def test_the_bound_holds_and_its_terms_are_parts_of_it():
    arrays = sweep.measure(SMALL, "mixture", 0)
    kept = arrays["converged"]
    excess, kl = arrays["excess"], arrays["kl"]
    assert kept.mean() > 0.5
    assert (kl <= excess + 2 * SMALL.tolerance)[kept].all()  # KL(p_T || pi) is below 2e-4 here
    infinite = arrays["training"] + arrays["approximation"][:, None]
    # the population's loss is what its own flow has left, plus what no coefficients can give
    np.testing.assert_allclose(excess[-1], infinite, rtol=1e-6)
    assert (np.diff(arrays["training"], axis=-1) <= 0).all()


def test_more_features_approximate_no_worse():
    approximation = sweep.measure(SMALL, "mixture", 1)["approximation"]
    assert (np.diff(approximation) <= 0).all()  # the narrower model is a part of the wider


def test_samples_are_nested_and_replicates_differ():
    fewer = SMALL.model_copy(update={"sizes": (16, 256), "widths": (8, 32)})
    some, all_ = (sweep.measure(spec, "mixture", 0) for spec in (fewer, SMALL))
    np.testing.assert_allclose(some["excess"][0, 1], all_["excess"][0, 2], rtol=1e-9)
    other = sweep.measure(fewer, "mixture", 1)
    assert not np.allclose(some["excess"], other["excess"])


def test_modes_a_hundred_apart_keep_finite_densities():
    spec = SMALL.model_copy(
        update={
            "shift": ShiftSpec(
                distances=(50.0,), watched=(50.0,), weights=(), width=16, samples=64, replicates=2
            )
        }
    )
    arrays = shift.measure(spec, 50.0, 0.5, 0)
    assert np.isfinite(arrays["shown"]).all()
    assert np.isfinite(arrays["kept"]).all()
    assert (arrays["kept"][:, 0] < 0.5).any()  # at tau = m no model of these features has both


def test_slope_of_a_power_law_is_its_exponent():
    x = [10, 100, 1000]
    logs = np.log(3 * np.array(x, dtype=float) ** -0.4)
    found = fits.slope(x, logs, np.tile(logs, (5, 1)))
    assert found.value == pytest.approx(-0.4)
    assert found.low == pytest.approx(-0.4)


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=(5, 1))
    curve = fits.means(values, np.ones((5, 1), dtype=bool))
    found = fits.number(curve.value[0], curve.without[:, 0])
    assert (found.value, found.low, found.high) == pytest.approx(mean_interval(values[:, 0]))


@pytest.mark.parametrize("replicates", [3, 6])
def test_intervals_of_few_replicates_cover_what_they_should(replicates):
    x, times = [16, 64, 256], np.geomspace(1, 1e4, 21)
    rng, covered = np.random.default_rng(1), []
    for _ in range(400):
        noise = rng.normal(size=(replicates, 3))
        curve = fits.means(np.exp(0.2 * noise) * np.array(x) ** -0.8, np.ones(noise.shape, bool))
        found = fits.slope(x, np.log(curve.value), np.log(curve.without))
        bottoms = 1 + (np.log(times) - 4 - 0.3 * noise[:, :1]) ** 2
        least = fits.minimum(fits.means(bottoms, np.ones(bottoms.shape, bool)), times)
        tau = fits.positive(least.tau, least.taus)
        covered.append((found.low < -0.8 < found.high, tau.low < np.exp(4) < tau.high))
    # 95 % with a standard error of 1.1 %; resampling three or six covers 70 to 88 %
    assert (np.mean(covered, axis=0) > 0.925).all()


def test_the_least_value_counts_as_inside_only_between_results():
    times = np.array([1.0, 2.0, 3.0, 4.0])
    rising = np.array([np.nan, 1.0, 2.0, 3.0])
    falling = np.array([3.0, 1.0, 2.0, np.nan])
    at = [fits.minimum(fits.Means(v, np.tile(v, (3, 1))), times) for v in (rising, falling)]
    assert [m.inside for m in at if m] == [False, True]
    assert at[0].tau == 2.0
    assert 1.7 < at[1].tau < 2.3  # between the times, nearer the lower of the neighbours
    assert fits.minimum(fits.Means(np.full(4, np.nan), np.full((3, 4), np.nan)), times) is None


def test_minima_at_an_end_of_the_range_enter_no_exponent():
    spec = SMALL.model_copy(update={"sizes": (16, 32, 64), "widths": (8,)})
    kls, flat = 1 / np.array([16, 32, 64.0]), np.ones(3)

    def at(kl, inside):
        return fits.Minimum(1.0, flat, kl, kl * flat, inside)

    for inside, used in ((True, 3), (False, 0)):
        found = {(n, 8): at(kl, inside) for n, kl in zip(spec.sizes, kls, strict=True)}
        found[None, 8] = at(0.0, False)
        fit = [e for e in fits.exponents(spec, "mixture", found) if e.along == "n, at m = 8"]
        assert [e.settings for e in fit] == [used, used]


def test_a_time_without_enough_replicates_has_no_mean():
    values = np.arange(10.0).reshape(5, 2)
    kept = np.ones((5, 2), dtype=bool)
    kept[0, 0] = kept[:2, 1] = False
    found = fits.means(values, kept)
    assert found.value[0] == pytest.approx(5.0)  # mean of 2, 4, 6, 8
    assert found.without[4, 0] == pytest.approx(4.0)
    assert np.isnan(found.value[1])
    assert np.isnan(found.without[:, 1]).all()


def test_a_mode_of_a_density_without_a_result_is_not_there():
    there = np.array([[False, True, True], [True, True, True], [False, False, True]])
    found = assembly._learned_at(there, np.array([1.0, 2.0, 4.0]))
    assert (found.median, found.first, found.last) == (2.0, 1.0, 4.0)
    shape = (2, 2, 3, 2)
    part = {
        "kl": np.ones(shape[:3]),
        "kept": np.ones(shape),
        "converged": np.ones(shape[:3], dtype=bool),
    }
    part["converged"][:, :, 0] = False
    spec = SMALL.model_copy(update={"tau_count": 3, "tau_last": 100.0})
    for shifted in assembly._shifted(spec, 3.0, 0.5, part):
        assert [at.first for at in shifted.learned_at] == pytest.approx([10.0, 10.0])
    assert np.isnan(assembly._shares(part)[:, :, 0]).all()


@pytest.mark.parametrize(
    ("low", "high", "kind", "expected"),
    [
        (-0.9, -0.5, "at most", "compatible"),
        (-0.3, -0.1, "at most", "slower than the bound's"),
        (-0.9, -0.5, "equal", "smaller"),
        (-0.5, -0.3, "equal", "compatible"),
    ],
)
def test_an_upper_bound_is_not_contradicted_by_what_falls_faster(low, high, kind, expected):
    exponent = Exponent(
        target="mixture",
        quantity="KL_min",
        along="m = n",
        measured=Number(value=(low + high) / 2, low=low, high=high),
        predicted=(-0.4, -0.4),
        kind=kind,
        settings=4,
    )
    assert exponent.answer == expected


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sizes": [0, 10]}, "at least 1, got"),
        ({"widths": []}, "at least 1, got"),
        ({"tau_first": 10, "tau_last": 10}, "must increase: tau_last 10 is not above"),
        ({"mu": 0}, "greater than 0"),
        ({"mu": 101}, "less than or equal to 100"),
        ({"shift": {"weights": [0.0]}}, r"in \(0, 0.5\)"),
        ({"shift": {"distances": [-3]}}, r"in \(0, 100\]"),
        ({"shift": {"shown": [10, 10]}}, "that increase"),
        ({"shift": {"watched": [4]}}, "watched must be among"),
        ({"replicates": 1}, "greater than or equal to 2"),
        ({"sizes": [200_000]}, "at most 100000 samples"),
        ({"rate": 3000}, "less than or equal to 100"),
        ({"shift": {"rate": 3000}}, "less than or equal to 100"),
        ({"targets": []}, "one or more targets"),
    ],
)
def test_bad_specs_are_refused(change, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Spec(**change)


def test_a_target_named_twice_is_measured_once():
    assert Spec(targets=("bounded", "mixture", "bounded")).targets == ("bounded", "mixture")


def test_the_command_refuses_in_one_line(capsys):
    assert main(["mixture", "--tau-first", "10", "--tau-last", "5"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "tau_last 5 is not above tau_first 10" in said


@pytest.mark.parametrize("name", ["quick-mixture", "paper-mixture"])
def test_shipped_specs_are_valid(name, capsys):
    assert main(["mixture", "--spec", name, "--print-spec"]) == 0
    assert "tau_count" in capsys.readouterr().out


def test_the_command_prints_verdict_table_and_page(finished, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(mixture, "run", lambda *args, **kwargs: finished)
    monkeypatch.setattr(
        "twinscore.report.page.write", lambda folder, images: Path(folder) / "report.html"
    )
    assert main(["mixture", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == finished.result.verdict
    assert said[-1] == f"report: {finished.folder / 'report.html'}"
