"""Clusters of images whose partition is known, and the clusters study end to end."""

import csv
import json
import re
import shutil
import struct

import numpy as np
import pytest
import torch

from twinscore import environment, images, runs
from twinscore.analysis.statistics import mean_interval
from twinscore.denoisers import NetworkSpec
from twinscore.errors import InputError
from twinscore.experiments import clusters, study
from twinscore.experiments.clusters import Spec
from twinscore.images import ImageSet, from_pixels
from twinscore.report import page, style
from twinscore.results.clusters import Result
from twinscore.sampling import SamplingSpec
from twinscore.sampling.bits import LikelihoodSpec
from twinscore.training import TrainingSpec, memory

MEASURED = {
    *("gap", "test_psnr", "twin_similarity", "memorised_fraction", "elsewhere"),
    *("test_bits", "bits_gap"),
}
TINY = Spec(
    clusters=12,
    n=4,
    test=4,
    samples=5,
    replicates=2,
    duplicate_threshold=1,
    network=NetworkSpec(width=2, levels=1),
    training=TrainingSpec(steps=12, batch=4, evaluations=3),
    sampling=SamplingSpec(steps=3),
    likelihood=LikelihoodSpec(images=2, steps=2, probes=1),
)


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """One thread: two that share a busy core wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return clusters.run(TINY, tmp_path_factory.mktemp("runs") / "finished", device="cpu")


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished.folder, tmp_path / "run")


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the encoding of figures out, which takes seconds."""
    monkeypatch.setattr(style, "settle", lambda figure: figure)
    for kind in ("svg", "png", "pdf"):
        monkeypatch.setattr(style, kind, lambda *_: b"")


def line_of_clusters(sizes=(30, 40, 20, 25), positions=(0.1, 0.2, 0.5, 0.9), seed=0) -> ImageSet:
    """Images about points on a line through image space, far apart against their noise."""
    generator = np.random.default_rng(seed)
    direction = generator.standard_normal((1, 4, 4))
    direction /= np.abs(direction).max() * 2.5
    labels = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    middle = 0.5 + (np.array(positions)[labels] - 0.5)[:, None, None, None] * direction
    noise = 0.002 * generator.standard_normal(middle.shape)
    return from_pixels((middle + noise).astype(np.float32), labels=labels)


def content(folder):
    names = ["result.json", "arrays.safetensors", "images.csv", "spec.json"]
    weights = sorted(folder.glob("trials/*/weights.safetensors"))
    return {p.relative_to(folder): p.read_bytes() for p in [folder / n for n in names] + weights}


# Clusters


def test_known_clusters_are_found_and_numbered_by_size():
    known = line_of_clusters()
    found = images.cluster(known, 4, seed=3)
    by_size = np.array([1, 0, 3, 2])  # of sizes 40, 30, 25, 20
    np.testing.assert_array_equal(by_size[found.labels], known.labels)
    assert found.sizes.tolist() == [40, 30, 25, 20]
    np.testing.assert_array_equal(found.nearest(known[:]), found.labels)


def test_centres_are_means_and_positions_are_0_and_1_there():
    known = line_of_clusters()
    found = images.cluster(known, 4)
    x = found.coordinates(known[:])
    for label, centre in enumerate(found.centres):
        np.testing.assert_allclose(x[found.labels == label].mean(0), centre, atol=1e-4)
    first, second = (known[:][found.labels == c].double().mean(0, keepdim=True) for c in (0, 2))
    for share in (0.0, 0.25, 1.0):
        at = found.positions(first + share * (second - first), 0, 2)
        assert at == pytest.approx(share, abs=1e-4)  # centres are means of float32 coordinates


def test_nearest_and_farthest_pair_are_those_of_the_line():
    found = images.cluster(line_of_clusters(), 4)  # at 0.2, 0.1, 0.9, 0.5, by size
    nearest, farthest = images.extreme_pairs(found, 20)
    assert {nearest.first, nearest.second} == {0, 1}
    assert {farthest.first, farthest.second} == {1, 2}
    assert nearest.distance * 8 == pytest.approx(farthest.distance, rel=0.02)  # noise 2 %
    nearest, farthest = images.extreme_pairs(found, 25)  # without the one at 0.5
    assert {farthest.first, farthest.second} == {1, 2}
    with pytest.raises(ValueError, match="need 3 clusters of 30 images; got 2"):
        images.extreme_pairs(found, 30)


def test_equal_distances_still_give_two_pairs():
    corners = np.eye(16, dtype=np.float32)[:3].reshape(3, 1, 4, 4)
    found = images.cluster(from_pixels(np.repeat(corners, 4, axis=0)), 3)
    nearest, farthest = images.extreme_pairs(found, 4)
    assert nearest.distance == pytest.approx(farthest.distance, rel=1e-5)
    assert (nearest.first, nearest.second) != (farthest.first, farthest.second)


@pytest.mark.parametrize("count", [1, 6])
def test_as_many_clusters_as_different_images_at_most(count):
    pixels = np.random.default_rng(0).random((5, 1, 4, 4), dtype=np.float32)
    with pytest.raises(
        InputError,
        match=f"clusters: {count} clusters of 5 different images are impossible; give 3 to 5",
    ):
        images.cluster(from_pixels(np.concatenate([pixels, pixels])), count)


# Intervals


def test_mean_interval_is_students():
    """The 97.5 % quantile of Student's t with 2 degrees of freedom is 4.302653."""
    mean, low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    reach = 4.302653 / 3**0.5
    assert (mean, low, high) == pytest.approx((2, 2 - reach, 2 + reach), rel=1e-6)
    with pytest.raises(ValueError, match="at least 2 values"):
        mean_interval(np.array([1.0]))


# The study


def test_a_run_holds_every_number_with_its_interval(finished):
    result = json.loads((finished.folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert Result.model_validate(result) == finished.result
    assert result["study"] == "clusters"
    for measured in (*(result[side]["measured"] for side in ("near", "far")), result["difference"]):
        assert set(measured) == MEASURED
        for mean in measured.values():
            assert mean["low"] <= mean["value"] <= mean["high"]
    for name in MEASURED:
        near, far = (result[side]["measured"][name]["value"] for side in ("near", "far"))
        assert result["difference"][name]["value"] == pytest.approx(far - near, abs=1e-9)
    for side in ("near", "far"):
        for name in ("memorised_fraction", "elsewhere"):
            assert result[side]["measured"][name]["low"] >= 0
            assert result[side]["measured"][name]["high"] <= 1
    assert result["near"]["distance"] < result["far"]["distance"]
    for side in ("near", "far"):
        assert result[side]["dynamics"]["loss"]["at"] == [4, 8, 12]
    assert re.fullmatch(r"Networks trained on two clusters of digits.*\.", result["verdict"])
    assert "far - near" in finished.result.table()


def test_each_half_comes_from_its_cluster_and_no_image_has_two_roles(finished):
    with (finished.folder / "images.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for side in (finished.result.near, finished.result.far):
        for replicate in range(2):
            roles = [row[f"{side.name}_{replicate}"] for row in table]
            for part in ("a", "b", "test"):
                of = [int(row["cluster"]) for row, r in zip(table, roles, strict=True) if r == part]
                assert sorted(of) == sorted(2 * side.clusters)
        assert [row[f"{side.name}_0"] for row in table] != [row[f"{side.name}_1"] for row in table]


def test_shares_of_images_are_those_of_their_clusters():
    digits = images.load("digits")
    found = images.cluster(digits, 12, seed=clusters.derive_seed(0, "clusters"))
    near = images.extreme_pairs(found, 6)[0]
    members = [digits[np.flatnonzero(found.labels == c)[:6]] for c in (near.first, near.second)]
    others = digits[np.flatnonzero(~np.isin(found.labels, (near.first, near.second)))[:4]]
    mixed = torch.cat([members[0], members[1][:2]]).numpy()
    share, elsewhere = clusters.shares(found, near, mixed)
    assert (share, elsewhere) == (0.75, 0.0)
    assert clusters.shares(found, near, others.numpy())[1] == 1.0


def test_every_network_has_its_own_images_and_near_and_far_share_their_seeds(finished):
    specs = [json.loads(p.read_text()) for p in finished.folder.glob("trials/*/spec.json")]
    assert len({spec["indices_digest"] for spec in specs}) == len(specs) == 8
    assert len({(spec["seed"], spec["twin"], spec["replicate"]) for spec in specs}) == 4


def test_a_second_run_reuses_everything_and_a_lost_trial_comes_back(finished, folder):
    before = content(folder)
    kept = sorted(folder.glob("trials/*/weights.safetensors"))
    shutil.rmtree(kept[0].parent)
    (folder / "result.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in kept[1:]}
    again = clusters.run(TINY, folder, device="cpu")
    assert content(folder) == before
    assert {path: path.stat().st_mtime_ns for path in kept[1:]} == times
    assert again.result == finished.result


def interrupt(monkeypatch, after):
    """Stop before the network after ``after`` others is trained."""
    train, made = study.train, []

    def stopped(trial, report):
        if not trial.trained:
            made.append(trial)
            if len(made) > after:
                raise KeyboardInterrupt
        return train(trial, report)

    monkeypatch.setattr(study, "train", stopped)


def test_an_interrupted_run_is_reported_and_then_finishes(finished, folder, monkeypatch, undrawn):
    shutil.rmtree(folder / "trials")
    for name in ("result.json", "arrays.safetensors"):
        (folder / name).unlink()
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            clusters.run(TINY, folder, device="cpu")
    assert "No part of this run is finished yet" in page.write(folder).read_text()
    clusters.run(TINY, folder, device="cpu")
    assert content(folder) == content(finished.folder)


def test_two_replicates_are_a_result_that_tells_what_is_missing(
    finished, folder, monkeypatch, undrawn
):
    """Of three; the two are those of the finished run."""
    asked = runs.read_json(folder / "spec.json") | {"replicates": 3}
    runs.write_json(folder / "spec.json", asked)
    (folder / "result.json").unlink()
    interrupt(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        clusters.run(TINY.model_copy(update={"replicates": 3}), folder, device="cpu")
    result = Result.model_validate_json((folder / "result.json").read_text())
    state = {"complete": False, "missing": ["replicate 2"]}
    assert result == finished.result.model_copy(update=state)
    assert "replicate 2" in page.write(folder).read_text()


def test_what_is_left_is_estimated_and_what_does_not_fit_is_refused(
    finished, tmp_path, monkeypatch
):
    said = (finished.folder / "log.txt").read_text()
    assert said.index("estimate: 8 networks: about") < said.index("step 1 of 12")
    monkeypatch.setattr(memory, "available_memory", lambda device: 40 * 64**2)
    with pytest.raises(InputError, match=r"data: size 8 needs about .* for 1 covariance .* fits"):
        clusters.run(TINY, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_page_shows_every_figure_and_no_image_when_told(folder, undrawn):
    shown = page.write(folder).read_text()
    assert [f'id="{name}"' in shown for name in ("clusters", "shares", "samples")] == [True] * 3
    hidden = page.write(folder, images=False).read_text()
    assert [f'id="{name}"' in hidden for name in ("clusters", "shares", "samples")] == [
        False,
        True,
        False,
    ]


def test_idx_files_work_like_any_source(tmp_path):
    known = line_of_clusters((14, 14, 14), (0.1, 0.3, 0.9))
    pixels = np.rint(255 * known[:].numpy()[:, 0])
    header = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + pixels.astype(np.uint8).tobytes())
    spec = TINY.model_copy(
        update={
            "data": f"idx:{tmp_path / 'train-images-idx3-ubyte'}",
            "clusters": 3,
            "likelihood": LikelihoodSpec(images=0),
        }
    )
    done = clusters.run(spec, tmp_path / "run", device="cpu")
    assert done.result.data.cluster_sizes == [14, 14, 14]
    assert done.result.near.measured.bits_gap is None
    assert done.result.far.distance > 2 * done.result.near.distance


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"n": 400}, r"n: 400 with test 4 needs three clusters of 402 images; .* hold .* fits"),
        ({"clusters": 5000}, "clusters: 5000 clusters of 1,797 different images"),
        ({"clusters": 30, "test": 400}, "give fewer clusters or less test"),
    ],
)
def test_clusters_that_do_not_suffice_are_refused_before_anything_is_written(
    tmp_path, change, complaint
):
    with pytest.raises(InputError, match=complaint):
        clusters.run(TINY.model_copy(update=change), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_n_that_is_said_to_fit_does(tmp_path):
    with pytest.raises(InputError) as error:
        clusters.run(TINY.model_copy(update={"n": 1000}), tmp_path / "run", device="cpu")
    n = int(re.search(r"n of at most (\d+) fits", str(error.value))[1])
    trials = clusters.trials(TINY.model_copy(update={"n": n}), lambda name, event: None)
    assert {trial.n for trial in trials} == {n}
    with pytest.raises(InputError):
        clusters.check(TINY.model_copy(update={"n": n + 2}))


@pytest.mark.parametrize("change", [{"n": 5}, {"test": 7}, {"replicates": 1}, {"clusters": 2}])
def test_spec_refuses_what_has_no_halves_or_no_interval(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Spec(**TINY.model_dump() | change)


def test_spec_refuses_more_likelihoods_than_images():
    with pytest.raises(ValueError, match=r"likelihood.images 5 is more than n 4 or test 4"):
        Spec(**TINY.model_dump() | {"likelihood": {"images": 5}})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sigma_max": 2}, r"likelihood.sigma_max 2 is above training.sigma_max 1, .*at most that"),
        ({"sigma_min": 1}, r"likelihood.sigma_min 1 is not below the largest noise level, 1"),
        ({"sigma_max": 0.5, "sigma_min": 0.6}, r"sigma_min 0.6 is not below .*, 0.5"),
    ],
)
def test_spec_refuses_likelihoods_at_levels_that_are_not_trained(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Spec(**TINY.model_dump() | {"likelihood": {"images": 2, **change}})
    assert Spec(**TINY.model_dump() | {"likelihood": {"images": 0, **change}})
