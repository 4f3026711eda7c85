"""The study of shuffled pixels: control, pairing, resumption, refusals and the report."""

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from twinscore import cli, environment
from twinscore.denoisers import NetworkSpec
from twinscore.denoisers.closed_form import Gaussian
from twinscore.denoisers.layers import generator_of
from twinscore.errors import InputError
from twinscore.experiments import shuffled
from twinscore.images import load
from twinscore.images.synthetic import pixel_shuffle
from twinscore.report import page
from twinscore.report.content import HOLDS_NOT, HOLDS_TEST
from twinscore.training import TrainingSpec, memory
from twinscore.training.history import SIGMAS

SPEC = shuffled.Spec(
    data="digits",
    n=64,
    test=16,
    replicates=2,
    network=NetworkSpec(width=4, levels=1),
    training=TrainingSpec(steps=3, batch=8, evaluations=1),
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        return shuffled.run(SPEC, tmp_path_factory.mktemp("runs") / "run", device="cpu", workers=1)


def test_the_control_loses_nothing_but_rounding(done):
    assert done.result.control < 1e-9


def test_a_denoiser_that_knows_no_neighbours_is_equivariant():
    """Independent pixels of one law, whose shrinkage commutes with every permutation."""
    covariance = 0.1 * torch.eye(16, dtype=torch.float64)
    denoiser = Gaussian.of(torch.full((1, 4, 4), 0.5, dtype=torch.float64), covariance)
    y = torch.randn(3, 1, 4, 4, generator=generator_of(0), dtype=torch.float64)
    moved = shuffled.unshuffled(denoiser, pixel_shuffle(4, 4, 0))(y, 0.3)
    # the products of the two orders are rounded apart
    torch.testing.assert_close(moved, denoiser(y, 0.3), rtol=1e-12, atol=1e-12)


def test_numbers_and_files_agree(done):
    result, errors = done.result, load_file(done.folder / "arrays.safetensors")["errors"]
    assert errors.shape == (2, len(SIGMAS), 16, 2)
    assert [level.sigma for level in result.levels] == list(SIGMAS)
    psnr = (-10 * np.log10(errors.mean(2))).mean(0)
    for level, (plain, moved) in zip(result.levels, psnr, strict=True):
        assert level.plain.value == pytest.approx(plain)
        assert level.shuffled.value == pytest.approx(moved)
        assert level.gap.value == pytest.approx(plain - moved)
        assert level.gap.low <= level.gap.value <= level.gap.high
    with (done.folder / "levels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["gap"]) == result.levels[2].gap.value
    assert shuffled.Result(**json.loads((done.folder / "result.json").read_text())) == result


def test_both_arms_share_images_seeds_and_initial_weights(done):
    specs = [json.loads(path.read_text()) for path in done.folder.glob("trials/*/spec.json")]
    assert len(specs) == 4
    for replicate in (0, 1):
        pair = [spec for spec in specs if spec["replicate"] == replicate]
        differing = {key for key in pair[0] if pair[0][key] != pair[1][key]}
        assert differing == {"data", "data_digest", "sha256"}
    indices = {spec["indices_digest"] for spec in specs}
    assert len(indices) == 2  # another split for each replicate


def test_running_again_reuses_what_is_done(done):
    kept = {path: path.stat().st_mtime_ns for path in done.folder.glob("trials/*/weights*")}
    before = (done.folder / "result.json").read_bytes()
    again = shuffled.run(SPEC, done.folder, device="cpu", workers=1)
    assert again.result == done.result
    assert (done.folder / "result.json").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("images", [True, False])
def test_the_report_is_drawn(done, images):
    text = page.write(done.folder, images=images).read_text()
    assert done.result.verdict in text
    assert "t (95 %) over 2 replicates" in text
    assert (HOLDS_TEST if images else HOLDS_NOT) in text
    drawn = {path.stem for path in (done.folder / "figures").glob("*.png")}
    assert drawn == ({"loss", "estimates"} if images else {"loss"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "digits,shuffle=1"}, "data: digits,shuffle=1 is shuffled already"),
        ({"n": 5000}, "n: 5000 training and 16 test images are more than the 1797"),
    ],
)
def test_bad_input_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        shuffled.run(SPEC.model_copy(update=change), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_moments_are_summed_in_chunks(monkeypatch):
    images, indices = load("digits"), np.arange(0, 400, 3)
    shuffle = pixel_shuffle(*images.shape[1:], 0)
    monkeypatch.setattr(shuffled, "_CHUNK_VALUES", 64 * 50)
    mean, covariance = shuffled.moments(images, indices, shuffle)
    x = shuffle.apply(images[indices]).double()
    # sums of 134 values in another order
    torch.testing.assert_close(mean, x.mean(0), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(covariance, torch.cov(x.flatten(1).T), rtol=1e-12, atol=1e-14)


def test_a_control_that_does_not_fit_is_refused_with_the_size_that_does(monkeypatch):
    """Of 10 MB, six matrices of float64 leave 456 pixels: 21.4 a side."""
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**7)
    nothing = memory.Cost(weights=0, activations=0, images=0)

    def require(*shape):
        before = [shuffled.demand(shape)]
        memory.require_memory(nothing, shape[1], "cpu", 1, "data: size", before=before)

    with pytest.raises(InputError, match=r"^data: size 32 needs .* the control .* size 16 fits$"):
        require(1, 32, 32)
    require(1, 16, 16)
    with pytest.raises(InputError, match=r"no size fits$"):
        require(9, 32, 32)


def test_the_size_that_is_proposed_suits_the_control_and_the_trainings(monkeypatch):
    """The control alone would do with 48 pixels a side, the trainings with 24."""
    monkeypatch.setattr(memory, "available_memory", lambda device: 48 * 52**4)
    side, pixels = 64, 48 * 52**4 // 30**2
    cost = memory.Cost(weights=0, activations=side**2 * pixels, images=0)
    before = [shuffled.demand((1, side, side))]
    with pytest.raises(InputError, match=r"for the control .* size 24 fits$"):
        memory.require_memory(cost, side, "cpu", 1, before=before)
    fitting = memory.Cost(weights=0, activations=24**2 * pixels, images=0)
    before = [shuffled.demand((1, 24, 24))]
    memory.require_memory(fitting, 24, "cpu", 1, before=before)


def test_trainings_that_do_not_fit_are_refused_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**6)
    spec = SPEC.model_copy(update={"training": TrainingSpec(batch=512)})
    with pytest.raises(InputError, match=r"^data: size 8 needs about .* smaller training\.batch$"):
        shuffled.run(spec, tmp_path / "run", device="cpu", workers=1)
    assert not (tmp_path / "run").exists()


def test_the_estimate_is_said_and_one_source_is_read_after_the_other(done):
    said = (done.folder / "log.txt").read_text()
    assert said.index("estimate: 4 networks: about") < said.index("step 1 of 3")
    tasks = shuffled.trials(SPEC, lambda name, event: None)
    assert [task.arm for task in tasks] == ["plain", "plain", "shuffled", "shuffled"]


def test_the_verdict_counts_intervals_that_exclude_zero():
    errors = np.stack([np.full((1, 8), 0.01), np.full((1, 8), 0.02)], -1)
    # one replicate: the bootstrap over images
    worse, better = (shuffled._level(0.1, e, 0) for e in (errors, errors[..., ::-1]))
    assert worse.gap.value == pytest.approx(10 * np.log10(2))
    assert better.gap.high < 0
    said = shuffled._verdict([worse, better])
    assert "loses up to 3.01 dB and gains up to 3.01 dB" in said
    assert "at 1 of 2 noise levels, and better at 1." in said
    assert "loses 3.01 to 3.01 dB" in shuffled._verdict([worse])
    assert "gains 3.01 to 3.01 dB" in shuffled._verdict([better])


@pytest.mark.parametrize(("name", "replicates"), [("quick-shuffled", 5), ("paper-shuffled", 3)])
def test_shipped_specs_are_read(name, replicates, capsys):
    assert cli.main(["shuffled", "--spec", name, "--print-spec"]) == 0
    assert f"replicates: {replicates}\n" in capsys.readouterr().out
