"""The early-stopping study end to end: run folder, resume, report, refusals and known facts."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from pydantic import ValidationError

from twinscore.cli import main
from twinscore.environment import Execution
from twinscore.errors import InputError
from twinscore.experiments import mixture
from twinscore.experiments.folders import Done
from twinscore.experiments.mixture import cost, replicates, shift, summary, sweep
from twinscore.experiments.mixture.spec import ShiftSpec, Spec, TwinsSpec
from twinscore.report import mixture as drawings
from twinscore.report import mixture_axes, page, reading, style
from twinscore.results.base import Interval
from twinscore.results.mixture import Along, Varied
from twinscore.theory.densities import Learned
from twinscore.theory.targets import gaussian_mixture, two_modes
from twinscore.training import memory

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

FIGURES = ("training", "rates", "terms", "capacity", "shift", "dynamics", "modes", "twins")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Done:
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
    with (finished.folder / "shift.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, shifted in zip(rows, finished.result.shifted, strict=True):
        assert (row["n"] or None) == (shifted.n and str(shifted.n))
        for name in ("kl", "approximation", "training"):
            assert float(row[name]) == pytest.approx(getattr(shifted, name).value, rel=1e-5)


def test_a_second_run_measures_nothing_and_finds_the_same(finished, monkeypatch):
    before = (finished.folder / "result.json").read_bytes()
    missing = finished.folder / "trials" / f"twins-v{replicates.MEASURES_VERSION}-r001.safetensors"
    missing.unlink()
    asked = []
    real = replicates.MEASURES["twins"]
    monkeypatch.setitem(
        replicates.MEASURES, "twins", lambda *args: asked.append(args[-1]) or real(*args)
    )
    for part in ("sweep", "shift"):
        monkeypatch.setitem(replicates.MEASURES, part, lambda *args: pytest.fail("measured again"))
    mixture.run(SMALL, finished.folder, workers=1)
    assert asked == [1]
    assert (finished.folder / "result.json").read_bytes() == before


def test_whole_replicates_give_a_result_before_the_others_are_done(tmp_path, monkeypatch):
    spec = SMALL.model_copy(update={"replicates": 3})
    real = replicates.MEASURES["sweep"]

    def stopped_at_the_third(spec, name, replicate):
        if replicate == 2:
            raise KeyboardInterrupt
        return real(spec, name, replicate)

    monkeypatch.setitem(replicates.MEASURES, "sweep", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        mixture.run(spec, tmp_path / "run", workers=1)
    run = reading.read(tmp_path / "run")
    assert (run.result.complete, run.result.missing) == (False, ["replicate 2"])
    assert run.result.stops
    assert tuple(page.figures(run.folder)) == FIGURES


def test_one_replicate_gives_no_result():
    tasks = replicates.tasks(SMALL, print)
    assert summary.summarise(SMALL, [(task, {}) for task in tasks if task.replicate == 0]) is None


def test_what_is_fitted_along_is_read_as_it_is_written():
    for varied, held, said in (
        (Varied.BOTH, None, "m = n"),
        (Varied.UP_TO_M, 64, "n <= m, at m = 64"),
        (Varied.M, 16, "m, at n = 16"),
    ):
        assert str(Along(varied, held)) == said
        assert Along.of(said) == Along(varied, held)


def test_features_that_do_not_fit_the_memory_are_refused_with_those_that_do(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**9)
    cost.refuse(SMALL, "cpu", 2)
    spec = SMALL.model_copy(update={"widths": (8, 4096)})
    with pytest.raises(
        InputError, match=r"widths: 4096 needs about 1\.[34] GB .*; \d+ features fit$"
    ):
        cost.refuse(spec, "cpu", 1)
    twins = SMALL.model_copy(update={"twins": TwinsSpec(width=4096)})
    with pytest.raises(InputError, match=r"twins\.width: 4096 .*fewer --workers"):
        cost.refuse(twins, "cpu", 3)


def test_the_estimate_counts_the_files_to_the_byte_but_for_their_headers(finished):
    count = mixture.STUDY.count(SMALL)
    found = cost.estimate(SMALL, count, Execution("cpu", 1, 1))
    written = [path.stat().st_size for path in (finished.folder / "trials").iterdir()]
    assert found.what == f"{count} replicates" == f"{len(written)} replicates"
    assert 0 < sum(written) - found.disk < 1200 * count


def test_a_folder_of_another_spec_is_refused(finished):
    with pytest.raises(InputError, match=r"another spec .*seed"):
        mixture.run(SMALL.model_copy(update={"seed": 1}), finished.folder)


def test_the_report_draws_every_figure_with_a_caption(finished):
    drawn = page.figures(finished.folder)
    content = drawings.content(reading.read(finished.folder))
    assert tuple(drawn) == FIGURES
    assert all(getattr(drawings, name).title for name in FIGURES)
    assert content.verdict == finished.result.verdict
    assert style.png(drawn["rates"]).startswith(b"\x89PNG")


def test_ticks_of_many_sizes_are_evenly_spaced():
    sizes = [16, 32, 64, 128, 256, 512, 1024, 2048]
    axes = Figure().subplots()
    axes.plot(sizes, sizes)
    mixture_axes.counted(axes, sizes)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["16", "64", "256", "1,024"]


def test_minima_at_an_end_of_the_range_are_drawn_hollow():
    axes = Figure(facecolor="white").subplots()
    numbers = [Interval(value=v, low=v, high=v) for v in (3.0, 2.0, 1.0)]
    mixture_axes.error_bars(axes, [1, 2, 3], numbers, "red", "o", "", [False, True, False])
    hollow = axes.lines[-1]
    assert hollow.get_xdata().tolist() == [1, 3]
    assert to_hex(hollow.get_markerfacecolor()) == to_hex("white")


@pytest.mark.slow
def test_a_run_without_any_result_still_has_a_page(tmp_path):
    spec = SMALL.model_copy(
        update={
            "mu": 100.0,
            "sizes": (16,),
            "widths": (8,),
            "tau_count": 4,
            "tolerance": 1e-12,
            "shift": SMALL.shift.model_copy(update={"tolerance": 1e-12, "weights": ()}),
        }
    )
    done = mixture.run(spec, tmp_path / "run", workers=1)
    assert done.result.failed == done.result.densities
    drawn = page.figures(done.folder)
    said = [text.get_text() for axes in drawn["training"].axes for text in axes.texts]
    assert said == ["no result"]
    content = drawings.content(reading.read(done.folder))
    assert content.verdict.startswith("too few minima")
    # far modes of p_T, each as wide as pi: KL is half the squared distance less log 2
    about = "modes at -100 and 100: the reverse process starts KL(p_T || pi) = 11 nats"
    assert about in content.verdict
    assert any(about in note for note in content.notes)
    assert done.result.prior["mixture"] == pytest.approx(1e4 * np.exp(-6.05) / 2 - np.log(2), 1e-3)


def test_a_start_that_is_small_against_the_least_kl_is_not_worth_a_word(finished):
    result = finished.result
    assert max(s.prior for s in result.shifted) < 1e-3 < min(s.kl.value for s in result.shifted)
    assert result.cautions == []


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


def two_and_one(mu, wide):
    """A hump at 0 and the target itself, as densities learned of two modes."""
    target = two_modes(mu)
    points = np.linspace(-20, 20, 801)
    rows = [gaussian_mixture([1.0], [0.0], wide**2), target]
    log_density = np.stack([row.log_density(points[:, None]) for row in rows])
    zero = np.zeros(2)
    weights = np.full(801, 0.05)
    return Learned(points, weights, log_density, log_density[1], zero, zero, zero, 0.02)


def test_a_single_hump_is_not_two_modes():
    mass, rise, target_mass, target_rise = shift.near_modes(two_and_one(3.0, 2.7), 3.0)
    assert (mass[0] / target_mass > summary.HALF).all()  # by mass alone it would be
    assert (rise[0] <= 0).all()
    np.testing.assert_allclose(rise[1], target_rise)
    # log of the height of a mode, nearly that of one Gaussian, over the height of two at 0
    assert target_rise == pytest.approx([4.5 - np.log(2)] * 2, abs=1e-6)


def test_modes_that_the_target_itself_blends_are_never_learned():
    *_, target_rise = shift.near_modes(two_and_one(1.0, 1.0), 1.0)
    part = shifted_part(3) | {"target_rise": np.tile(target_rise, (2, 1))}
    spec = SMALL.model_copy(update={"tau_count": 3, "tau_last": 100.0})
    assert [s.learned_at for s in summary._shifted(spec, 1.0, 0.5, part)] == [None, None]


def test_the_shift_tells_approximation_from_training():
    few, many = (SMALL.model_copy(update={"tau_last": last}) for last in (1e2, 1e15))
    short, long = (shift.measure(spec, 3.0, 0.5, 0) for spec in (few, many))
    assert short["approximation"] == pytest.approx(long["approximation"])
    assert (np.diff(short["training"]) < 0).all()
    assert short["training"][-1] > short["approximation"][0]
    assert long["training"][-1] < 1e-2 * long["approximation"][0]  # all but the slowest is learned


def shifted_part(times):
    """Two replicates of a mixture whose modes are there at all times."""
    shape = (2, 2, times, 2)
    return {
        "kl": np.ones(shape[:3]),
        "converged": np.ones(shape[:3], dtype=bool),
        "kept": np.ones(shape),
        "rise": np.ones(shape),
        "target_rise": np.ones((2, 2)),
        "training": np.ones((2, times)),
        "approximation": np.ones((2, 1)),
    }


def test_a_mode_of_a_density_without_a_result_is_not_there():
    there = np.array([[False, True, True], [True, True, True], [False, False, True]])
    found = summary._learned_at(there, np.array([1.0, 2.0, 4.0]))
    assert (found.median, found.first, found.last) == (2.0, 1.0, 4.0)
    part = shifted_part(3)
    part["converged"][:, :, 0] = False
    spec = SMALL.model_copy(update={"tau_count": 3, "tau_last": 100.0})
    for shifted in summary._shifted(spec, 3.0, 0.5, part):
        assert [at.first for at in shifted.learned_at] == pytest.approx([10.0, 10.0])
    assert np.isnan(summary._shares(part)[:, :, 0]).all()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sizes": [0, 10]}, "greater than or equal to 1"),
        ({"widths": []}, "at least 1, got"),
        ({"tau_first": 10, "tau_last": 10}, "must increase: tau_last 10 is not above"),
        ({"mu": 0}, "greater than or equal to 0.000001"),
        ({"mu": 101}, "less than or equal to 100"),
        ({"shift": {"weights": [0.0]}}, r"in \(0, 0.5\)"),
        ({"shift": {"distances": [-3]}}, r"in \(0, 100\]"),
        ({"shift": {"shown": [10, 10]}}, "that increase"),
        ({"shift": {"watched": [4]}}, "watched must be among"),
        ({"replicates": 1}, "greater than or equal to 2"),
        ({"sizes": [200_000]}, "less than or equal to 100000"),
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
    monkeypatch.setattr(type(mixture.STUDY), "run", lambda *args, **kwargs: finished)
    monkeypatch.setattr(
        "twinscore.report.page.write", lambda folder, images: Path(folder) / "report.html"
    )
    assert main(["mixture", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == finished.result.verdict
    assert said[-1] == f"report: {finished.folder / 'report.html'}"
