"""Votes, exact p-values and intervals of the memorisation index, against what they must be."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore.analysis import coin_toss, neighbours, redealing, similarity
from twinscore.analysis.coin_toss import Toss, halves
from twinscore.analysis.neighbours import SIMILARITIES, Votes, votes
from twinscore.analysis.statistics import bounds
from twinscore.denoisers.layers import generator_of

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def images(n, side=8, seed=0, channels=1):
    return torch.rand(n, channels, side, side, generator=generator_of(seed))


def for_images(image, pool):
    """Votes of one sample each."""
    image = np.asarray(image)
    ones = np.ones(len(image))
    return Votes(np.arange(len(image)), image, ones, ones, pool)


def tossed(rng, samples, n, own, hubs=0):
    """Twins that copy from their own half at a rate, and else vote for any image; a few for most.

    Twins share their hubs, so that M is the rate by either deal.
    """
    weight = np.ones(2 * n)
    weight[:hubs] = 20 * n / max(hubs, 1)
    weight = rng.permutation(weight)
    found = []
    for first in (0, n):
        image = rng.choice(2 * n, samples, p=weight / weight.sum())
        half, copied = weight[first : first + n], rng.random(samples) < own
        image[copied] = first + rng.choice(n, copied.sum(), p=half / half.sum())
        found.append(for_images(image, 2 * n))
    return Toss(halves(n), found)


# Votes ------------------------------------------------------------------------------------------


def test_the_vote_is_for_the_nearest_image_and_blocks_change_nothing(monkeypatch):
    samples, pool = images(20), images(30, seed=1)
    found = votes(samples, pool)
    expected, index = similarity.nearest(samples, pool)
    np.testing.assert_array_equal(found.image, index)
    np.testing.assert_array_equal(found.sample, np.arange(20))
    np.testing.assert_allclose(found.similarity, expected, atol=1e-6)
    whole = {name: votes(samples, pool, name) for name in SIMILARITIES}
    monkeypatch.setattr(neighbours, "CHUNK_VALUES", 600)
    for name, of in whole.items():
        blocks = votes(samples, pool, name)
        np.testing.assert_array_equal(blocks.image, of.image)
        np.testing.assert_allclose(blocks.similarity, of.similarity, atol=1e-6)


def test_ties_vote_in_parts_and_a_constant_sample_for_none():
    pool = images(6)
    pool[4] = 0.5 * pool[1] + 0.1  # the same picture, darker
    found = votes(torch.stack([pool[1], torch.full_like(pool[0], 0.3), pool[2]]), pool)
    np.testing.assert_array_equal(found.sample, [0, 0, 2])
    np.testing.assert_array_equal(found.image, [1, 4, 2])
    np.testing.assert_array_equal(found.share, [0.5, 0.5, 1])
    assert found.similarity[1] == 0
    toss = Toss(halves(3), [found, found])
    np.testing.assert_array_equal(coin_toss.by_seed(toss), [0, 0, 0])
    alone = Toss(halves(3), [found], (1,))
    np.testing.assert_array_equal(coin_toss.by_seed(alone), [0, 0, 0.5])


@pytest.mark.parametrize(("down", "right", "mirror"), [(2, -1, False), (-2, 2, True), (0, 1, True)])
def test_shifts_find_an_image_that_moved(down, right, mirror):
    large = images(40, side=12, seed=3)
    pool = large[..., 2:10, 2:10]
    moved = large[..., 2 + down : 10 + down, 2 + right : 10 + right]
    moved = moved.flip(-1) if mirror else moved
    found = votes(moved, pool, "shifts")
    assert np.mean(found.image == np.arange(40)) > 0.9  # edges are lost, of white noise
    assert np.mean(votes(moved, pool).image == np.arange(40)) < 0.5


def test_patches_find_an_image_of_which_a_corner_is_kept():
    pool, samples = images(40, seed=4), images(40, seed=5)
    samples[..., 4:, :4] = pool[..., 4:, :4]
    found = votes(samples, pool, "patches")
    np.testing.assert_array_equal(found.image, np.arange(40))
    np.testing.assert_allclose(found.similarity, 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2)])
def test_every_similarity_takes_images_of_any_size(shape):
    x = torch.rand(4, *shape, generator=generator_of(0))
    for name in SIMILARITIES:
        assert len(votes(x, x.flip(0), name).similarity) == 4


# Re-dealing -------------------------------------------------------------------------------------


def brute_force(weights, labels, strata):
    """Sum over the labelled units by every deal, less its mean."""
    parts = []
    for stratum in np.unique(strata):
        own = np.flatnonzero(strata == stratum)
        parts.append(itertools.combinations(own, labels[own].sum()))
    sums = np.array([weights[list(sum(deal, ()))].sum(0) for deal in itertools.product(*parts)])
    return sums - sums.mean(0)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_few_deals_are_taken_each_once(data):
    units = data.draw(st.integers(2, 8))
    of = lambda strategy: np.array(data.draw(st.lists(strategy, min_size=units, max_size=units)))  # noqa: E731
    labels, strata = of(st.booleans()), of(st.integers(0, 2))
    weights = np.stack([of(st.integers(-3, 3)), of(st.integers(0, 2))], axis=1)
    found = redealing.redeal(weights, labels, strata, seed=0)
    every = brute_force(weights, labels, strata)
    assert found.deals == len(found.draws) == len(every)
    np.testing.assert_allclose(np.sort(found.draws, 0), np.sort(every, 0), atol=1e-9)
    np.testing.assert_allclose(found.deviation, every.std(0), atol=1e-9)
    np.testing.assert_allclose(found.p, (every >= found.observed - 1e-9).mean(0))
    assert (found.p >= found.smallest).all()
    assert (found.corrected >= found.p - 1e-9).all()


def test_random_deals_have_the_moments_of_all_deals(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3 == 0
    strata = np.arange(60) // 20
    weights = rng.normal(size=(60, 2)) * (rng.random((60, 1)) < 0.5)
    monkeypatch.setattr(redealing, "_CHUNK_VALUES", 1000)
    found = redealing.redeal(weights, labels, strata, seed=1)
    assert len(found.draws) == redealing.REDEALINGS
    scale = found.deviation / math.sqrt(len(found.draws))
    assert (np.abs(found.draws.mean(0)) < 4 * scale).all()
    np.testing.assert_allclose(found.draws.std(0), found.deviation, rtol=0.04)
    assert found.smallest == 1e-4


def test_the_smallest_p_is_known():
    for n, smallest in ((1, 1 / 2), (2, 1 / 6), (3, 1 / 20)):
        toss = Toss(halves(n), [for_images(np.arange(9) % n, 2 * n)] * 2)
        assert coin_toss.redealt([[toss]], seed=0).smallest == smallest
        copying = Toss(halves(n), [for_images(np.arange(9) % n + k, 2 * n) for k in (0, n)])
        assert coin_toss.redealt([[copying]], seed=0).p == pytest.approx(smallest)
        [three] = coin_toss.redealt([[copying] * 3], seed=0).p
        assert three == pytest.approx(smallest**3, abs=2e-4)


def test_pairs_of_groups_are_flipped_whole():
    pairs = np.tile(np.repeat(np.arange(5), 4), 2)
    deal = coin_toss.paired(pairs)
    copying = Toss(deal, [for_images(np.arange(20) + k, 40) for k in (0, 20)])
    found = coin_toss.redealt([[copying]], seed=0)
    assert found.deals == 2**5
    assert found.p == pytest.approx(1 / 32)
    assert coin_toss.by_seed(copying).mean() == 1


def test_strata_are_dealt_within():
    """Samples of a kind vote for that kind: no evidence where kinds do not mix."""
    deal = halves(4, np.array(list("xxyyxxyy")))
    toss = Toss(deal, [for_images([0, 1, 2, 3], 8), for_images([4, 5, 6, 7], 8)])
    assert coin_toss.redealt([[toss]], seed=0).deals == math.comb(4, 2) ** 2
    np.testing.assert_array_equal(np.abs(deal.scores), np.full(8, 0.5))


def test_controls_of_a_kind_give_memory_by_kind():
    n = 6
    deal = coin_toss.with_controls(n)
    own = [for_images(np.arange(n) + k, 4 * n) for k in (0, 2 * n)]
    assert coin_toss.by_seed(Toss(deal, own, (1, 1))).mean() == 1
    kind = [for_images(np.arange(2 * n) + k, 4 * n) for k in (0, 2 * n)]
    toss = Toss(deal, kind, (1, 1))
    assert coin_toss.by_seed(toss).mean() == 0
    assert coin_toss.redealt([[toss]], seed=0).p > 0.4


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_intervals_with_controls_cover_the_true_index(truth):
    """The binomial standard error of 150 at 0.95 is 0.018."""
    n, hits, found = 40, 0, []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        kinds = [
            np.where(rng.random(64) < truth, rng.integers(n, size=64), rng.integers(2 * n, size=64))
            for _ in "ab"
        ]
        cast = [for_images(own, 2 * n).moved(k * 2 * n, 4 * n) for k, own in enumerate(kinds)]
        toss = Toss(coin_toss.with_controls(n), cast, (1, 1))
        estimate = coin_toss.memorisation([toss], seed=seed, resamples=300)
        value, low, high = bounds(estimate, (-1, 1))
        hits += low <= truth <= high
        found.append(value)
    assert hits / 150 > 0.95 - 3 * 0.018
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / math.sqrt(150) + 1e-9)


def test_one_model_against_held_out_images_of_another_number():
    deal = coin_toss.of_images(np.arange(40) < 10, np.zeros(40))
    fair = Toss(deal, [for_images(np.arange(40), 40)], (1,))
    assert coin_toss.by_seed(fair).mean() == pytest.approx(0)
    copier = Toss(deal, [for_images(np.arange(40) % 10, 40)], (1,))
    assert coin_toss.by_seed(copier).mean() == pytest.approx(0.75)
    assert coin_toss.redealt([[copier]], seed=0).p == pytest.approx(1e-4)


def test_what_no_coin_dealt_is_refused():
    with pytest.raises(ValueError, match="one entry"):
        coin_toss.Deal(np.ones(2, bool), np.zeros(3), np.arange(2))
    with pytest.raises(ValueError, match="same labels"):
        coin_toss.Deal(np.array([True, False]), np.zeros(2), np.zeros(2, int))
    with pytest.raises(ValueError, match="about the 4 images"):
        Toss(halves(2), [for_images([0], 6)] * 2)
    with pytest.raises(ValueError, match="equally"):
        Toss(halves(2), [for_images([0], 4), for_images([0, 1], 4)])
    with pytest.raises(ValueError, match="one sign"):
        Toss(halves(2), [for_images([0], 4)])


@pytest.mark.parametrize("hubs", [0, 6])
def test_p_is_exact_where_votes_do_not_depend_on_the_half(hubs):
    """Also where a few images get most votes, other ones by each twin, and ties are in parts.

    400 experiments; the share of p up to a level is within 4 standard errors of at most it.
    """
    n, samples, found = 20, 24, []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        cast = []
        for _ in "ab":
            weight = np.ones(2 * n)
            weight[rng.permutation(2 * n)[:hubs]] = 30
            cast.append(for_images(rng.choice(2 * n, samples, p=weight / weight.sum()), 2 * n))
        toss = Toss(halves(n), cast)
        found.append(coin_toss.redealt([[toss]], seed=seed, redealings=199).p[0])
    for level in (0.05, 0.1, 0.25, 0.5):
        below = np.mean(np.array(found) <= level)
        error = math.sqrt(level * (1 - level) / 400)
        assert level - 0.06 - 4 * error < below < level + 4 * error


def test_the_maximum_over_similarities_keeps_the_level_and_finds_one_that_knows():
    found, knows = [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        blind = [tossed(rng, 32, 30, 0.0) for _ in range(3)]
        seeing = [*blind[:2], tossed(rng, 32, 30, 0.9)]
        for tosses, kept in ((blind, found), (seeing, knows)):
            kept.append(coin_toss.redealt([[t] for t in tosses], seed=seed, redealings=199))
    least = np.array([of.corrected.min() for of in found])
    assert np.mean(least <= 0.05) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 120)
    assert np.mean([of.p.min() <= 0.05 for of in found]) > 0.07  # what the correction is for
    assert np.mean([of.corrected[2] <= 0.05 for of in knows]) > 0.95


# Intervals --------------------------------------------------------------------------------------


def covers(truth, samples, n, hubs, repeats, resamples=300):
    hits = 0
    for seed in range(repeats):
        toss = tossed(np.random.default_rng([seed, 7]), samples, n, truth, hubs)
        found = coin_toss.memorisation([toss], seed=seed, resamples=resamples)
        _, low, high = bounds(found, (-1, 1))
        hits += low <= truth <= high
    return hits / repeats


@pytest.mark.parametrize("truth", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize(("n", "hubs"), [(50, 0), (50, 8)])
def test_intervals_cover_the_true_index(truth, n, hubs):
    """The binomial standard error of 150 at 0.95 is 0.018."""
    assert covers(truth, 64, n, hubs, 150) > 0.95 - 3 * 0.018


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0.0, 0.2, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("samples", [64, 256])
@pytest.mark.parametrize(("n", "hubs"), [(10, 0), (100, 0), (1000, 0), (1000, 10), (1000, 30)])
def test_intervals_cover_the_true_index_in_many_settings(truth, samples, n, hubs):
    assert covers(truth, samples, n, hubs, 400) > 0.95 - 4 * 0.011


def test_hubs_of_each_twin_widen_the_interval():
    """Votes for a few images, other ones by each twin: seeds alone say nothing of which half."""
    hits = narrow = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        cast = [for_images(rng.choice(rng.permutation(60)[:8], 128), 60) for _ in "ab"]
        found = coin_toss.memorisation([Toss(halves(30), cast)], seed=seed, resamples=300)
        _, low, high = bounds(found)
        hits += low <= 0 <= high
        low, high = np.quantile(found.draws[0], [0.025, 0.975])
        narrow += low <= 0 <= high
    assert hits / 150 > 0.9
    assert narrow / 150 < 0.6


def test_replicates_cover_what_differs_between_them():
    """True indices of replicates scatter by 0.1 around 0.3: Student's t of 3, and of 1 nothing."""
    hits, single = 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rates = np.clip(rng.normal(0.3, 0.1, 3), 0, 1)
        tosses = [tossed(rng, 128, 40, rate) for rate in rates]
        _, low, high = bounds(coin_toss.memorisation(tosses, seed=seed))
        hits += low <= 0.3 <= high
        _, low, high = bounds(coin_toss.memorisation(tosses[:1], seed=seed, resamples=200))
        single += low <= 0.3 <= high
    assert hits / 100 > 0.93 - 2 * 0.0255
    assert single / 100 < 0.85


@pytest.mark.parametrize("replicates", [1, 3])
@pytest.mark.parametrize("n", [1, 3, 10])
def test_full_copying_is_one(replicates, n):
    """Of one replicate the interval holds what up to three seeds more might add to 32."""
    tosses = [tossed(np.random.default_rng(i), 32, n, 1.0) for i in range(replicates)]
    value, low, high = bounds(coin_toss.memorisation(tosses, seed=0), (-1, 1))
    assert (value, high) == pytest.approx((1, 1))
    seeds = 32 * replicates
    assert low == pytest.approx((seeds - 3) / (seeds + 3))


@pytest.mark.parametrize("replicates", [1, 2])
@pytest.mark.parametrize(("seeds", "sure"), [(4, False), (8, False), (10, True)])
def test_few_seeds_that_agree_do_not_show_that_most_would(replicates, seeds, sure):
    rng = np.random.default_rng(0)
    tosses = [tossed(rng, seeds // replicates, 50, 1.0) for _ in range(replicates)]
    value, low, _ = bounds(coin_toss.memorisation(tosses, seed=0))
    assert value == 1
    assert (low > 0.5) == sure


def test_who_all_vote_for_one_image_know_nothing():
    """The mean image, say: its nearest image is in one half, for both twins."""
    toss = Toss(halves(5), [for_images(np.full(20, 3), 10)] * 2)
    of = bounds(coin_toss.memorisation([toss], seed=0))
    assert of == pytest.approx((0, -3 / 23, 3 / 23))  # of three seeds more
    assert coin_toss.redealt([[toss]], seed=0).p == 1


def test_the_index_of_no_votes_is_zero():
    none = votes(torch.full((6, 1, 4, 4), 0.4), images(4, side=4))
    toss = Toss(halves(2), [none, none])
    assert bounds(coin_toss.memorisation([toss], seed=0)) == pytest.approx((0, -3 / 9, 3 / 9))
    assert coin_toss.redealt([[toss]], seed=0).p == 1


def test_votes_of_a_pool_find_their_place_in_a_larger_one():
    moved = for_images([0, 1], 2).moved(3, 8)
    np.testing.assert_array_equal(moved.image, [3, 4])
    assert moved.images == 8


def test_blocks_of_draws_change_nothing(monkeypatch):
    toss = tossed(np.random.default_rng(0), 40, 20, 0.4)
    whole = coin_toss.memorisation([toss], seed=3, resamples=100)
    monkeypatch.setattr(coin_toss, "_CHUNK_VALUES", 200)
    parts = coin_toss.memorisation([toss], seed=3, resamples=100)
    np.testing.assert_allclose(whole.draws, parts.draws)
