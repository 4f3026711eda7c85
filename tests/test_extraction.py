"""Extraction: what comes back from a model, with known answers, and rates that hold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from twinscore.analysis.audit import extraction
from twinscore.denoisers import load
from twinscore.sampling.inpainting import filled_in


@given(st.integers(0, 99), st.integers(1, 40))
def test_images_are_chosen_one_of_each_unit_and_blind(seed, count):
    rng = np.random.default_rng(seed)
    score, of = rng.integers(4, size=60).astype(float), rng.integers(30, size=60)
    found = extraction.chosen(score, of, count, seed)
    units = len(np.unique(of))
    assert len(np.unique(of[found])) == len(found)
    assert len(found) == min(count, units) or len(found) <= count
    for image in found:
        assert score[image] == score[of == of[image]].min()
    front = found[: count - count // 2]
    least = np.sort([score[of == unit].min() for unit in np.unique(of)])[: len(front)]
    np.testing.assert_array_equal(np.sort(score[front]), least)


def test_equal_scores_are_chosen_by_lot():
    """Of 100 equal units, half of them in T, 40 chosen have 20 of T on average (400 lots, 4 SE)."""
    of = np.arange(100)
    counts = [(extraction.chosen(np.zeros(100), of, 40, s) < 50).sum() for s in range(400)]
    deviation = np.sqrt(40 * 0.25 * 60 / 99)  # hypergeometric
    assert abs(np.mean(counts) - 20) < 4 * deviation / 20


def test_nearness_counts_other_units_alone():
    images = torch.zeros(4, 1, 1, 2)
    images[:, 0, 0, 0] = torch.tensor([0.0, 0.1, 1.0, 4.0])
    of = np.array([0, 0, 1, 2])
    came = images[[0, 2, 2]] + torch.tensor([0.25, 0.0, torch.nan]).view(3, 1, 1, 1)
    own, units = images[[0, 2, 2]], of[[0, 2, 2]]
    found = extraction.nearness(came, own, units, images, of)
    mine, other = np.hypot(0.25, 0.25), np.hypot(0.75, 0.25)
    np.testing.assert_allclose(found, [mine / other, 0, np.inf])


@settings(max_examples=30)
@given(st.integers(0, 999))
def test_p_of_one_way_is_that_of_fisher(seed):
    rng = np.random.default_rng(seed)
    trained, returned = rng.random(30) < 0.5, rng.random((30, 1)) < 0.4
    table = [[(returned[side, 0] == back).sum() for back in (True, False)]
             for side in (trained, ~trained)]  # fmt: skip
    p, each = extraction.dependence(returned, trained, seed=0)
    assert p == each[0] == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


def test_p_is_not_too_small_where_labels_say_nothing():
    """100 deals of three ways that depend on each other; 3 standard errors."""
    rng, found = np.random.default_rng(0), []
    for seed in range(100):
        hard = rng.normal(size=(60, 1)) + 0.5 * rng.normal(size=(60, 3))
        trained = rng.permutation(60) < 25
        found.append(extraction.dependence(hard < [1, 0, -1], trained, seed=seed)[0])
    for level in (0.05, 0.25, 0.5):
        share = np.mean(np.array(found) <= level)
        assert share <= level + 3 * np.sqrt(level * (1 - level) / 100)
    assert np.mean(np.array(found) <= 0.5) > 0.3


def test_clusters_are_linked_samples():
    rng = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 1, 8, 8, generator=rng)
    samples = kinds[[0, 1, 0, 2, 1, 0]] + 1e-3 * torch.randn(6, 1, 8, 8, generator=rng)
    of = extraction.clusters(samples, 0.9)
    assert of[3] == -1
    assert of[0] == of[2] == of[5] != of[1] == of[4]
    assert (extraction.clusters(samples, 1.0) == -1).all()


def test_clusters_count_distinct_units_by_the_deal():
    trained = np.arange(20) < 10
    found = extraction.pointed(np.array([0, 0, 3, 5, 12]), trained, 10, 10)
    assert (found.trained, found.held_out) == (3, 1)
    # P[Hypergeometric(20, 10, 4) >= 3] = (120 * 10 + 210) / 4845
    assert found.p == pytest.approx(1410 / 4845)
    assert extraction.pointed(np.empty(0, int), trained, 10, 10).p == 1


@pytest.fixture(scope="module")
def sets():
    """60 digits to know, and 60 others."""
    from twinscore import images

    digits = images.load("digits")
    keep = np.flatnonzero(~images.near_duplicates(digits, 0.95).drop)
    order = np.random.default_rng(0).permutation(keep)[:120]
    return digits[order[:60]], digits[order[60:]]


def filled(model, images, **options):
    known = torch.zeros(1, 8, 8, dtype=torch.bool)
    known[..., :4] = True
    own = {"seeds": range(4), "mean": model.mean} | options
    return filled_in(model.denoiser, images, known, **own), known


def test_a_memory_gives_the_other_half_and_leaves_what_is_known(sets, tmp_path):
    train, held_out = sets
    np.save(tmp_path / "train.npy", train[:, 0].numpy())
    model = load(f"empirical:{tmp_path}/train.npy")
    for images, back in ((train, True), (held_out, False)):
        found, known = filled(model, images)
        torch.testing.assert_close(found[:, known], images[:, known], atol=0, rtol=0)
        same = (found - images).abs().amax((1, 2, 3)) < 1e-3
        # paths settle on another image now and then: some 5 % after four tries
        assert same.float().mean() > 0.85 if back else not same.any()


def test_more_paths_fit_better(sets, tmp_path):
    """The known halves choose among them: returned images grow in number."""
    train, _ = sets
    np.save(tmp_path / "train.npy", train[:, 0].numpy())
    model = load(f"empirical:{tmp_path}/train.npy")
    counts = [
        ((filled(model, train, seeds=range(k))[0] - train).abs().amax((1, 2, 3)) < 1e-3).sum()
        for k in (1, 4)
    ]
    assert counts[0] < counts[1]


def test_a_lost_path_is_not_kept():
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(1, 4, 4, dtype=torch.bool)
    known[..., :2] = True
    found = filled_in(lambda y, sigma: y * torch.nan, images, known, seeds=[0], mean=0.25)
    torch.testing.assert_close(found, torch.where(known, images, 0.25))
