"""Audits of samples: exact searches, an exact test, a list with its rate, intervals that cover."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom, mannwhitneyu

from twinscore.analysis.audit import (
    ballots,
    changes,
    legacy,
    ranking,
    rates,
    search,
    shortlist,
    views,
)
from twinscore.analysis.audit.ballots import Ballots
from twinscore.analysis.audit.ranking import Ranking
from twinscore.analysis.audit.search import Near
from twinscore.analysis.statistics import clopper_pearson
from twinscore.denoisers.layers import generator_of
from twinscore.experiments.audit import Spec, sensitivity
from twinscore.experiments.audit.judgement import judge
from twinscore.experiments.audit.pool import Units

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def noise(*shape, seed=0):
    return torch.rand(shape, generator=generator_of(seed))


# Views and search


def kinds(side, pool=None):
    """By name; details of a pool."""
    evened = views.Evened.of([noise(20, 1, side, side) if pool is None else pool])
    return {kind.name: kind for kind in views.kinds(side, 0.2, evened)}


def by_definition(samples, pool, kind):
    """Largest cosine over all pairs of views, (V, P), in float64 and one image at a time."""
    rows = []
    for pairs in kind.pairs:
        for x in samples:
            row = []
            for y in pool:
                products = [
                    float(pair.of_sample(x[None].double())[0] @ pair.of_image(y[None].double())[0])
                    for pair in pairs
                ]
                row.append(max(products))
            rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_search_is_exact_and_parts_of_a_pool_join(channels):
    samples, pool = noise(3, channels, 8, 8), noise(11, channels, 8, 8, seed=1)
    for kind in kinds(8, pool).values():
        samples, pool = (kind.look(noise(n, channels, 8, 8, seed=n)) for n in (3, 11))
        expected = by_definition(samples, pool, kind)
        found = search.search(samples, [(0, pool)], kind, 4)
        order = np.argsort(-expected, 1)[:, :4]
        np.testing.assert_array_equal(found.image, order)
        # cosines of float32 vectors of at most 200 values
        np.testing.assert_allclose(
            found.similarity, np.take_along_axis(expected, order, 1), atol=1e-5
        )
        parts = [search.search(samples, [(i, pool[i : i + 3])], kind, 4) for i in range(0, 11, 3)]
        joined = search.merged(parts[::-1], 4)
        np.testing.assert_array_equal(joined.image, found.image)


def test_blocks_change_nothing(monkeypatch):
    samples, pool = noise(6, 1, 8, 8), noise(40, 1, 8, 8, seed=1)
    kind = kinds(8)["moved"]
    whole = search.search(samples, [(0, pool)], kind, 5)
    monkeypatch.setattr(search, "_ENTRIES", 42)
    small = search.search(samples, [(0, pool[:13]), (13, pool[13:])], kind, 5)
    np.testing.assert_array_equal(small.image, whole.image)
    np.testing.assert_allclose(small.similarity, whole.similarity, atol=1e-6)


@given(st.integers(1, 400), st.integers(1, 6), st.integers(0, 99))
def test_the_largest_of_long_rows_are_the_largest(columns, count, seed):
    table = torch.randint(0, 50, (3, columns), generator=generator_of(seed)).float()
    count = min(count, columns)
    values, index = search._largest(table, count)
    torch.testing.assert_close(values, table.topk(count, 1).values)
    torch.testing.assert_close(table.gather(1, index), values)


@pytest.mark.parametrize(
    ("down", "right", "mirrored"), list(itertools.product((-3, 0, 2), (-1, 3), (False, True)))
)
def test_a_moved_image_is_found_exactly_whatever_fills_its_edges(down, right, mirrored):
    image = noise(1, 16, 16)
    moved = noise(1, 16, 16, seed=1)
    source = slice(max(-down, 0), 16 - max(down, 0)), slice(max(-right, 0), 16 - max(right, 0))
    target = slice(max(down, 0), 16 + min(down, 0)), slice(max(right, 0), 16 + min(right, 0))
    moved[:, target[0], target[1]] = image[:, source[0], source[1]]
    moved = moved.flip(-1) if mirrored else moved
    kind = kinds(16)["moved"]
    pair, cosine = search.best_pair(0.3 + 0.5 * moved, image, kind, 0)
    assert cosine == pytest.approx(1, abs=1e-5)
    assert (pair.what["down"], pair.what["right"], pair.what["mirrored"]) == (down, right, mirrored)


def test_a_blurred_image_is_found_as_such():
    """The Gaussian of the view is that of a convolution, so that cosines are 1, away from edges."""
    image, width = noise(1, 32, 32), 0.06 * 32
    steps = torch.arange(-16.0, 17)
    kernel = torch.exp(-((steps / width) ** 2) / 2)
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2)[None, None]
    around = torch.cat([image.flip(-1), image, image.flip(-1)], -1)
    around = torch.cat([around.flip(-2), around, around.flip(-2)], -2)
    blurred = torch.nn.functional.conv2d(around[None], kernel)[0, :, 16:48, 16:48]
    kind = {kind.name: kind for kind in views.kinds(32, 0, lambda x: x)}["details"]
    assert search.best_pair(0.3 + blurred, image, kind, 0)[1] == pytest.approx(1, abs=1e-4)
    assert search.best_pair(blurred.flip(-1), image, kind, 0)[0].what["mirrored"]
    whole = {kind.name: kind for kind in views.kinds(32, 0, lambda x: x)}["whole"]
    assert search.best_pair(blurred, image, whole, 0)[1] < 0.5


def test_a_tile_is_found_at_its_place_and_mirrored():
    image, sample = noise(1, 16, 16), noise(1, 16, 16, seed=1)
    sample[:, 8:, 8:] = image[:, 8:, 8:]
    kind = kinds(16)["tiles"]
    at = kind.places.index("bottom right")
    assert search.best_pair(sample, image, kind, at)[1] == pytest.approx(1, abs=1e-5)
    at = kind.places.index("bottom left")
    pair, cosine = search.best_pair(sample.flip(-1), image, kind, at)
    assert cosine < 0.9  # a tile is compared with the one at its place once the sample is mirrored
    at = kind.places.index("bottom right")
    pair, cosine = search.best_pair(sample.flip(-1), image, kind, at)
    assert (cosine, pair.what["mirrored"]) == (pytest.approx(1, abs=1e-5), True)


def test_a_shortlist_of_all_images_is_the_exact_search():
    samples, pool = noise(5, 2, 8, 8), noise(30, 2, 8, 8, seed=1)
    kind = kinds(8, pool)["moved"]
    exact = search.search(samples, [(0, pool)], kind, 6)
    everything = np.random.default_rng(0).permuted(np.tile(np.arange(30), (5, 1)), axis=1)
    found = shortlist.among(samples, [(0, pool[:11]), (11, pool[11:])], kind, everything, 6)
    np.testing.assert_array_equal(found.image, exact.image)
    np.testing.assert_allclose(found.similarity, exact.similarity, atol=1e-6)
    few = np.sort(exact.image[:, 1:4], 1)
    found = shortlist.among(samples, [(0, pool)], kind, few, 6)
    np.testing.assert_array_equal(found.image, exact.image[:, 1:4])


def test_probes_show_images_as_the_kind_tries_them(monkeypatch):
    monkeypatch.setattr(shortlist, "_NOISE", 0)
    images, kind = noise(40, 1, 16, 16), kinds(16)["moved"]
    probes = shortlist.probes(images, kind, np.random.default_rng(0))
    for probe, image in zip(probes, images, strict=True):
        assert search.best_pair(probe, image, kind, 0)[1] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("side", "shape"), [(32, (1, 20, 30)), (8, (3, 8, 8)), (4, (1, 64, 64))])
def test_images_of_any_size_are_reduced_to_a_square(side, shape):
    size = min(side, *shape[1:])
    assert views.reduced(noise(2, *shape), side).shape == (2, shape[0], size, size)


# Votes


def random_near(voters, images, seed, count=20):
    rng = np.random.default_rng(seed)
    image = np.stack([rng.permutation(images)[:count] for _ in range(voters)])
    return Near(-np.sort(-rng.uniform(0, 0.9, (voters, count)), 1).astype(np.float32), image)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_votes_know_nothing_of_the_sets(seed):
    """With the images in another order, votes are for the same images with the same strength."""
    near, order = random_near(12, 40, seed), np.random.default_rng(seed).permutation(40)
    place = np.argsort(order)
    one = ballots.ballots({"a": near}, 6)
    other = ballots.ballots({"a": Near(near.similarity, place[near.image])}, 6)
    np.testing.assert_array_equal(order[other.image], one.image)
    np.testing.assert_array_equal(other.strength, one.strength)


def test_a_copy_stands_out_and_a_flat_sample_has_no_vote():
    near = random_near(100, 40, 0)
    near.similarity[3, 0] = 1
    near.similarity[5] = 0
    votes = ballots.ballots({"a": near}, 100)
    assert 5 not in votes.sample
    row = int(np.argmax(votes.strength))
    assert (votes.sample[row], votes.image[row], votes.distance[row]) == (3, near.image[3, 0], 0)
    assert votes.strength[row] > 2 * np.delete(votes.strength, row).max()


def spaced(dimension, added, rng, count=50, pool=1000, voters=2000):
    """Near images of voters in a density of some dimension; ``added`` to all squared distances."""
    uniform = np.sort(rng.uniform(size=(voters, pool)), 1)[:, :count]
    squared = 1.2 * uniform ** (2 / dimension) + added
    return Near((1 - squared / 2).astype(np.float32), np.zeros((voters, count), dtype=np.int64))


@pytest.mark.parametrize("dimension", [2, 10, 100])
def test_votes_of_chance_have_one_scale_in_any_dimension(dimension):
    """The sum of four exponentials of means 1, 1/2, 1/3 and 1/4; 3 standard errors of 2,000."""
    found = ballots.strength(spaced(dimension, 0, np.random.default_rng(dimension)))
    rng = np.random.default_rng(0)
    expected = (rng.exponential(size=(10**6, 4)) / [1, 2, 3, 4]).sum(1)
    for level in (2, 4):
        share = (expected > level).mean()
        # the local dimension is known from 45 spacings only, which widens the tail a little
        assert abs((found > level).mean() - share) < 3 * np.sqrt(share / 2000) + 0.02


@pytest.mark.parametrize("votes", [1, 30, 1000])
def test_one_vote_of_chance_is_larger_than_the_largest(votes):
    """Of 4,000 sets of votes; 4 standard errors."""
    rng = np.random.default_rng(votes)
    most = ballots.largest_by_chance(votes)
    strength = (rng.exponential(size=(4000, min(votes, 30), 4)) / [1, 2, 3, 4]).sum(2)
    mean = (strength > most).mean() * votes
    expected = 1 if votes > 1 else 0.5
    error = np.sqrt(expected * votes / strength.size)
    assert abs(mean - expected) < 4 * error


def test_a_copy_under_noise_stands_out_where_its_distance_is_not_small():
    rng = np.random.default_rng(1)
    near = spaced(50, 0.3, rng, voters=500)
    clean = spaced(50, 0, rng, voters=500)
    near.similarity[0, 0] = 1 - 0.3 / 2
    votes = np.append(ballots.strength(clean), ballots.strength(near)[0])
    distances = np.append(ballots.relative_distance(clean), ballots.relative_distance(near)[0])
    assert np.argmax(votes) == 500
    assert distances[500] > 0.4  # a copy without noise has 0
    assert votes[500] > 1.5 * votes[:500].max()


@given(st.integers(1, 9), st.integers(0, 99))
def test_few_near_images_give_a_finite_strength(count, seed):
    assert np.isfinite(ballots.strength(random_near(5, 40, seed, count))).all()


def test_details_have_even_patterns_and_no_mean():
    """The variance v of every pattern becomes v / (v + mean v), and flips stay flips."""
    pool = noise(50, 2, 8, 6) ** 3 + noise(50, 2, 8, 1, seed=1)
    evened = views.Evened.of(pool.split(7))
    found = evened(pool)
    variance = views._waves(pool).var(0, unbiased=False)
    expected = variance / (variance + variance.mean())
    torch.testing.assert_close(views._waves(found).var(0, unbiased=False), expected)
    centre = found.mean(0)
    torch.testing.assert_close(centre, -centre.flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(evened(pool.flip(-1)), found.flip(-1), atol=1e-5, rtol=1e-5)


def test_images_that_do_not_take_part_get_no_vote():
    near, kept = random_near(30, 40, 1), np.ones(40, dtype=bool)
    kept[near.image[:, 0]] = False
    votes = ballots.ballots({"a": ballots.without(near, kept)}, 30)
    assert kept[votes.image].all()
    same = ballots.without(near, np.ones(40, dtype=bool))
    np.testing.assert_array_equal(same.image, near.image)


def test_equal_votes_are_ranked_by_lot():
    first = {int(ballots.ranked(np.zeros(5), seed)[0]) for seed in range(50)}
    assert first == set(range(5))
    assert ballots.ranked(np.array([1.0, 3, 2]), 0).tolist() == [1, 2, 0]


# The test, the list, and power


def dealt(n, m, voted, rng, votes=None):
    """A ranking where samples know nothing of the deal."""
    unit = rng.permutation(n + m)[:voted]
    count = np.ones(voted, dtype=int) if votes is None else votes
    return Ranking(unit, rng.permutation(n + m)[unit] < n, count, n, m)


@pytest.mark.parametrize("hubs", [False, True])
def test_p_of_samples_that_know_nothing_is_below_any_level_no_more_often(hubs):
    rng, found = np.random.default_rng(0), []
    for seed in range(300):
        votes = rng.geometric(0.05 if hubs else 0.9, size=80)
        of = dealt(60, 90, 80, rng, votes)
        found.append(ranking.dependence({"all": of}, seed=seed, redealings=199).p)
    found = np.array(found)
    for level in (0.05, 0.2, 0.5):
        # 3 standard errors of 300 draws
        assert (found <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / 300)
    assert (found <= 0.2).mean() > 0.1  # nor does it stay on the safe side alone


def test_p_of_a_depth_is_hypergeometric():
    of = dealt(50, 70, 40, np.random.default_rng(1))
    found = ranking.dependence({"all": of}, seed=0, redealings=99)
    for kind, depth, x, p in found.by_depth:
        if depth is not None:
            assert (kind, x) == ("all", of.trained[:depth].sum())
            assert p == pytest.approx(hypergeom.sf(x - 1, 120, 50, depth))


def test_copies_at_the_top_and_many_votes_are_found():
    rng = np.random.default_rng(2)
    honest = dealt(500, 500, 300, rng)
    top = np.concatenate([np.ones(10, dtype=bool), honest.trained[10:]])
    copying = Ranking(honest.unit, top, honest.votes, 500, 500)
    assert ranking.dependence({"all": copying}, seed=0).p < 0.01
    votes = np.where(honest.trained, 3, 1)
    leaning = Ranking(honest.unit, honest.trained, votes, 500, 500)
    assert ranking.dependence({"all": leaning}, seed=0).p < 0.01


@pytest.mark.parametrize(("n", "m"), [(500, 500), (1000, 100), (100, 1000)])
def test_the_share_of_chance_finds_in_a_list_is_at_most_q(n, m):
    """Copies are mixed with chance votes; 1,000 deals, 2 standard errors."""
    rng, q, shares = np.random.default_rng(n), 0.1, []
    copied = 150 if n == 1000 else 40
    for _ in range(1000):
        chance = rng.permutation(n - copied + m)[:300] < n - copied
        strength = np.concatenate([rng.normal(2, 1, copied), rng.normal(size=300)])
        trained = np.concatenate([np.ones(copied, dtype=bool), chance])
        order = np.argsort(-strength)
        of = Ranking(order, trained[order], np.ones(len(order), dtype=int), n, m)
        k = ranking.listed(of, q)
        false = (of.trained[:k] & (order[:k] >= copied)).sum()
        shares.append(false / max(1, of.trained[:k].sum()))
    assert np.mean(shares) <= q + 2 * np.std(shares) / np.sqrt(1000)
    assert np.mean(shares) > 0  # something is listed


def test_power_in_distinct_images():
    assert ranking.power(10**6, 10**6, 0.1) == ranking.Power(5, 10)
    assert ranking.power(10**6, 10**5, 0.1) == ranking.Power(32, 100)
    assert ranking.power(500, 500, 0.1).for_list == 10
    assert ranking.power(3, 3, 0.1).for_p == 3  # 1 in 20 deals


def test_a_list_begins_where_power_says():
    for n, m in ((500, 500), (1000, 100)):
        need = ranking.power(n, m, 0.1).for_list
        for top, expected in ((need - 1, 0), (need, need)):
            trained = np.concatenate([np.ones(top, bool), np.zeros(50, bool)])
            of = Ranking(np.arange(top + 50), trained, np.ones(top + 50, int), n, m)
            assert ranking.listed(of, 0.1) == expected


def test_no_more_than_the_first_are_listed():
    of = Ranking(np.arange(60), np.arange(60) < 40, np.ones(60, int), 500, 500)
    assert ranking.listed(of, 0.1) > 30
    assert ranking.listed(of, 0.1, 12) == 12
    assert ranking.listed(of, 0.1, 9) == 0


# Rates


@pytest.mark.parametrize("rate", [0, 0.01, 0.05])
@pytest.mark.parametrize(("n", "m"), [(500, 500), (400, 100)])
def test_intervals_of_the_copy_rate_cover(rate, n, m):
    """200 audits; at least 95 % less 2 standard errors."""
    rng, held = np.random.default_rng(3), 0
    for seed in range(200):
        copies = rng.binomial(400, rate)
        image = rng.integers(n + m, size=400)
        image[:copies] = rng.integers(n, size=copies)
        strength = rng.normal(size=400)
        strength[:copies] += 8
        best = Ballots(np.arange(400), image, strength, *np.zeros((2, 400), int), strength)
        rows = ballots.strongest(best, image, n + m, seed)
        unit = np.flatnonzero(rows >= 0)
        unit = unit[np.argsort(-strength[rows[unit]])]
        length = ranking.listed(Ranking(unit, unit < n, np.ones(len(unit), int), n, m), 0.1)
        cut = strength[rows[unit[length - 1]]] if length else np.inf
        decoy = strength[image >= n].max()
        bound = rates.most_copies((strength > decoy).sum(), 400, 1)
        found = rates.copy_rate(best, image < n, image, n, m, 400, cut=cut, bound=bound, seed=seed)
        held += found[1] <= rate <= found[2]
        assert found[1] <= found[0] <= found[2]
    assert held >= 200 * (0.95 - 2 * np.sqrt(0.05 * 0.95 / 200))


@pytest.mark.parametrize(("rate", "share"), [(0.01, 0.9), (0.05, 0.6), (0.03, 0.1)])
def test_the_bound_covers_copies_of_which_some_are_seen(rate, share):
    """2,000 audits with 32 planted copies; each of two ends may be wrong in 2.5 %."""
    rng = np.random.default_rng(5)
    above = rng.binomial(500, rate * share, size=2000)
    hits = rng.binomial(32, share, size=2000)
    lows = [clopper_pearson(int(k), 32, rates.TAIL)[0] for k in hits]
    bounds = [rates.most_copies(int(k), 500, low) for k, low in zip(above, lows, strict=True)]
    assert np.mean(np.array(bounds) >= rate) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 2000)


def test_the_bound_of_nothing_seen_and_of_a_kind_that_is_never_seen():
    assert rates.most_copies(0, 200, 1) == pytest.approx(1 - 0.025 ** (1 / 200))
    assert rates.most_copies(0, 200, 0.5) == pytest.approx(2 * (1 - 0.025 ** (1 / 200)))
    assert rates.most_copies(0, 200, 0) == 1


def test_extractable_images_are_no_more_than_there_are():
    """Of 300 images that a model repeats equally often: a lower bound, and close to it."""
    rng = np.random.default_rng(4)
    for samples in (200, 600):
        found, later = [], []
        for _ in range(50):
            counts = np.bincount(rng.integers(300, size=2 * samples), minlength=300)
            half = np.bincount(rng.integers(300, size=samples), minlength=300)
            found.append(rates.extractable(half[half > 0], 0, samples))
            later.append((counts > 0).sum())
        # the extrapolation is unbiased where all images are as likely; 3 standard errors
        assert abs(np.mean(found) - np.mean(later)) < 3 * np.std(found) / np.sqrt(50) + 1


# Planted copies


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 20, 30), (2, 8, 8), (4, 5, 5)])
@pytest.mark.parametrize("name", changes.CHANGES)
def test_changes_keep_shape_and_range_and_nothing_else_is_touched(name, shape):
    images, others = noise(3, *shape), noise(3, *shape, seed=1)
    before = images.clone(), others.clone()
    found = [changes.changed(name, images, others, np.random.default_rng(0)) for _ in range(2)]
    assert found[0].shape == images.shape
    assert 0 <= found[0].min() <= found[0].max() <= 1
    assert torch.equal(*found)
    assert torch.equal(torch.stack([images, others]), torch.stack(before))
    assert torch.equal(found[0], images) == (name == "exact")


def test_changes_are_those_that_views_look_for():
    """A shift, a mirror, a tile and a contrast leave a cosine of 1 with some view."""
    images, others = 0.2 + 0.5 * noise(2, 1, 16, 16), noise(2, 1, 16, 16, seed=1)
    rng, of = np.random.default_rng(0), kinds(16)
    looks = {"shift 3/16": "moved", "mirror": "whole", "contrast 0.7": "whole", "one tile": "tiles"}
    for name, kind in looks.items():
        copy = changes.changed(name, images, others, rng)[0]
        place = len(of[kind].places) - 1
        assert search.best_pair(copy, images[0], of[kind], place)[1] == pytest.approx(1, abs=1e-5)


def planted_with(strong, images=40, sources=4):
    """Planted copies of images 0, 1, ...; those of ``strong`` are seen, others are near chance."""
    count = len(changes.CHANGES) * sources
    near = random_near(count, images, 7)
    near.similarity[:] *= 0.5  # all about as far, so that a copy stands out
    names = list(changes.CHANGES)
    for change, source in strong:
        row = names.index(change) * sources + source
        other = np.flatnonzero(near.image[row] == source)
        near.image[row, other] = near.image[row, 0]
        near.image[row, 0], near.similarity[row, 0] = source, 1
    return sensitivity.Planted({"whole": near}, np.arange(sources))


def units_of(images=40, joined=(), dropped=()):
    of, kept = np.arange(images), np.ones(images, dtype=bool)
    for one, other in joined:
        of[one] = of[other]
    kept[list(dropped)] = False
    return Units(of, np.arange(images) < 20, kept, "image")


def seen_of(planted, units, least=4.0):
    own = {"above": 3, "samples": 100, "seed": 0}
    return sensitivity.seen(planted, units, least=least, **own)


def test_the_share_of_planted_copies_that_is_seen():
    found = seen_of(planted_with([("mirror", 0), ("mirror", 2), ("exact", 1)]), units_of())
    assert {k: v.share.value for k, v in found.items() if v.share.value} == {
        "mirror": 0.5,
        "exact": 0.25,
    }
    low = clopper_pearson(2, 4, 0.025)[0]
    assert found["mirror"].share.low == pytest.approx(low)
    assert found["mirror"].high == pytest.approx(min(1, clopper_pearson(3, 100, 0.025)[1] / low))
    assert not found["mirror"].covered
    assert found["blur 3/16"].high == 1
    nothing = seen_of(planted_with([("mirror", 0)]), units_of(), least=1e9)
    assert not any(kind.share.value for kind in nothing.values())


def test_planted_images_of_one_unit_count_once_and_dropped_ones_do_not():
    planted = planted_with([("mirror", 0), ("mirror", 2)])
    assert seen_of(planted, units_of(joined=[(2, 0)]))["mirror"].share.value == pytest.approx(1 / 3)
    assert seen_of(planted, units_of(dropped=[1, 3]))["mirror"].share.value == 1
    nothing = seen_of(planted, units_of(dropped=range(4)))["mirror"]
    assert (nothing.share.value, nothing.high) == (0, 1)


@pytest.mark.parametrize("seen", [True, False])
def test_where_no_planted_copy_is_seen_nothing_is_cleared(seen):
    """Votes of chance, of 200 samples; every planted copy stands out, or none does."""
    every = [(name, i) for name in changes.CHANGES for i in range(20)] if seen else []
    near, units = {"whole": random_near(200, 40, 1)}, units_of()
    found = judge(Spec(), near, units, 200, [], planted_with(every, sources=20), 99)
    assert found.copies.high == (
        pytest.approx(rates.most_copies(0, 200, 0.8), abs=0.1) if seen else 1
    )
    assert found.verdict == ("no copies shown" if found.copies.high <= 0.05 else "inconclusive")
    assert ("planted on purpose" in found.why) != seen


def test_what_is_covered_is_surely_seen():
    everything = [("exact", i) for i in range(32)] + [("mirror", i) for i in range(20)]
    found = seen_of(planted_with(everything, sources=32), units_of())
    assert found["exact"].covered
    assert found["mirror"].share.value > 0.5 > found["mirror"].share.low
    assert not found["mirror"].covered


@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 9]))
def test_voters_are_split_as_they_were_joined(seed, samples, planted, places):
    rng = np.random.default_rng(seed)
    one, other = (rng.random((places, n, 3)).astype(np.float32) for n in (samples, planted))
    both = np.concatenate([one, other], 1).reshape(-1, 3)
    first, second = sensitivity.split(Near(both, np.zeros(both.shape, int)), samples, planted)
    np.testing.assert_array_equal(first.similarity, one.reshape(-1, 3))
    np.testing.assert_array_equal(second.similarity, other.reshape(-1, 3))


# Published numbers


def test_the_published_numbers_of_copies_and_of_others():
    training, fresh = noise(60, 1, 8, 8), noise(60, 1, 8, 8, seed=1)
    near = training + 1e-3 * noise(60, 1, 8, 8, seed=2)
    copies, honest = legacy.legacy(near, training), legacy.legacy(fresh, training)
    assert (copies.ratio, copies.carlini, copies.authentic) == (1, 1, 0)
    assert (honest.ratio, honest.carlini) == (0, 0)
    assert honest.authentic > 0.2
    held_out = noise(60, 1, 8, 8, seed=3)
    assert legacy.data_copying(near, held_out, training, cells=1) < -3
    assert abs(legacy.data_copying(fresh, held_out, training, cells=1)) < 3


@given(st.lists(st.integers(0, 9), min_size=3), st.lists(st.integers(0, 9), min_size=3))
def test_u_is_that_of_mann_and_whitney(first, second):
    a, b = np.array(first, float), np.array(second, float)
    u = mannwhitneyu(a, b).statistic
    m, n = len(a), len(b)
    expected = (u - m * n / 2 + 0.5) / np.sqrt(m * n * (m + n + 1) / 12)
    assert legacy.standard_u(a, b) == pytest.approx(expected)
