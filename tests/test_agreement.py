"""The agreement index and copies, against their definitions and known rates."""

import math

import numpy as np
import pytest
import torch

from twinscore.analysis import agreement as g
from twinscore.analysis import coin_toss, copies, critical, similarity, statistics
from twinscore.analysis.coin_toss import Toss, halves
from twinscore.analysis.neighbours import votes
from twinscore.analysis.statistics import bounds, difference
from twinscore.denoisers.layers import generator_of
from twinscore.results.base import Interval

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def twins(samples, share, seed=0, common=0.0, side=8):
    """Samples of A and B: a common image, what the noise brings both, and what it brings each.

    The vectors are of nearly equal norm, so that G is ``share`` but for terms of order 1/d.
    """
    generator = generator_of(seed)
    of = lambda n: torch.randn(n, 1, side, side, generator=generator)  # noqa: E731
    same, image = math.sqrt(share) * of(samples), common * of(1)
    return tuple(image + same + math.sqrt(1 - share) * of(samples) for _ in "ab")


def by_definition(a, b):
    table = similarity.unit(a.double()) @ similarity.unit(b.double()).T
    paired = table.diagonal().mean()
    unpaired = (table.sum() - table.diagonal().sum()) / (len(a) * (len(a) - 1))
    return ((paired - unpaired) / (1 - unpaired)).item()


@pytest.mark.parametrize("common", [0.0, 2.0])
def test_it_is_its_definition_whatever_all_samples_share(common):
    a, b = twins(50, 0.6, common=common)
    [value] = g.agreement([(a, b)], seed=0).values
    assert value == pytest.approx(by_definition(a, b))
    assert value == pytest.approx(0.6, abs=0.06)


def test_a_draw_is_the_index_of_what_was_drawn():
    """Pairs of different noise are pairs of different seeds, however often each was drawn."""
    a, b = twins(12, 0.5)
    found = g.agreement([(a, b)], seed=4, resamples=3).draws[0]
    [counts] = statistics.seed_counts(12, 4, 3)
    table = (similarity.unit(a.double()) @ similarity.unit(b.double()).T).numpy()
    for value, row in zip(found, counts, strict=True):
        weight = np.outer(row, row) * (1 - np.eye(12))
        unpaired = (weight * table).sum() / weight.sum()
        paired = row @ table.diagonal() / 12
        assert value == pytest.approx((paired - unpaired) / (1 - unpaired))


def test_equal_functions_agree_and_constant_ones_do_not():
    a, _ = twins(20, 1.0)
    assert bounds(g.agreement([(a, 3 * a + 1)], seed=0)) == pytest.approx((1, 1, 1))
    same = a[:1].expand(20, -1, -1, -1)
    assert bounds(g.agreement([(same, same)], seed=0)) == (0, 0, 0)
    blank = torch.full_like(a, 0.5)
    assert bounds(g.agreement([(blank, blank)], seed=0)) == (0, 0, 0)
    with pytest.raises(ValueError, match="two or more samples"):
        g.agreement([(a[:1], a[:1])], seed=0)


def test_blocks_change_nothing(monkeypatch):
    pair = twins(30, 0.5)
    whole = g.agreement([pair], seed=0, resamples=50)
    monkeypatch.setattr(g, "_CHUNK_VALUES", 300)
    monkeypatch.setattr(statistics, "_KEPT_VALUES", 0)
    monkeypatch.setattr(statistics, "_CHUNK_VALUES", 100)
    np.testing.assert_allclose(g.agreement([pair], seed=0, resamples=50).draws, whole.draws)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_intervals_cover(share):
    """Truth by many seeds; the binomial standard error of 150 at 0.95 is 0.018."""
    [truth] = g.agreement([twins(20_000, share, common=1.0)], seed=0, resamples=1).values
    image = 1.0
    hits = 0
    for seed in range(150):
        found = g.agreement([twins(64, share, seed + 1, image)], seed=seed, resamples=300)
        _, low, high = bounds(found)
        hits += low <= truth <= high
    assert hits / 150 > 0.95 - 3 * 0.018


def test_agreement_on_half_of_the_seeds_counts_half():
    """Where medians jump: the index of a mixture is its mean."""
    (a, b), (c, _) = twins(400, 1.0), twins(400, 1.0, seed=9)
    mixed = torch.cat([b[:200], c[:200]])
    [value] = g.agreement([(a, mixed)], seed=0).values
    assert value == pytest.approx(0.5, abs=0.03)
    alike = similarity.cosine_similarity(a, mixed).numpy()[None]
    share, low, high = g.alike(alike)
    assert share == 0.5
    assert 0.44 < low < 0.5 < high < 0.56


def test_the_share_that_agrees_has_an_interval_at_its_ends():
    _, low, high = g.alike(np.ones((1, 20)))
    assert high == 1
    assert low == pytest.approx(0.025 ** (1 / 20))  # the lowest rate that gives 20 of 20 so often
    assert g.alike(np.ones((3, 20))) == (1, 1, 1)
    value, low, high = g.alike(np.array([[0, 1.0], [1, 1], [1, 1]]))
    assert (value, high) == (pytest.approx(5 / 6), 1)
    assert low < 0.5


def test_differences_are_of_the_same_seeds():
    """A part of the seeds agrees, and its votes do too: the bootstrap of G - M knows of both."""
    pair, pool = twins(60, 0.7), twins(20, 0.0, seed=1)
    toss = Toss(halves(20), [votes(x, torch.cat(pool)) for x in pair])
    m = coin_toss.memorisation([toss], seed=5, resamples=100)
    found = g.agreement([pair], seed=5, resamples=100)
    gap = difference(found, m)
    assert gap.values == found.values - m.values
    np.testing.assert_array_equal(gap.draws[0], found.draws[0] - m.draws[0])
    np.testing.assert_array_equal(gap.draws[1], found.draws[0] - m.draws[1])
    two = difference(statistics.Estimate(np.array([1.0, 2])), statistics.Estimate(np.ones(2)))
    np.testing.assert_array_equal(two.values, [0, 1])


def teachers(seed, samples, n, copying, agreeing, side=6):
    """Twins that copy their own half on some seeds, draw the same on others, and else differ."""
    generator = generator_of(seed)
    fresh = lambda count: torch.rand(count, 1, side, side, generator=generator)  # noqa: E731
    half_a, half_b, a, other = fresh(n), fresh(n), fresh(samples), fresh(samples)
    kind = torch.rand(samples, generator=generator)
    which = torch.randint(n, (2, samples), generator=generator)
    agrees = (kind < agreeing)[:, None, None, None]
    copies = (kind > 1 - copying)[:, None, None, None]
    b = torch.where(agrees, a, other)
    a, b = torch.where(copies, half_a[which[0]], a), torch.where(copies, half_b[which[1]], b)
    return (a, b), torch.cat([half_a, half_b])


def gap_of(seed, samples, n, copying, agreeing, replicates=1, resamples=300):
    made = [teachers(1000 * seed + r, samples, n, copying, agreeing) for r in range(replicates)]
    tosses = [Toss(halves(n), [votes(x, pool) for x in pair]) for pair, pool in made]
    m = coin_toss.memorisation(tosses, seed=seed, resamples=resamples)
    return difference(g.agreement([p for p, _ in made], seed=seed, resamples=resamples), m)


@pytest.mark.parametrize(("copying", "agreeing"), [(0.0, 0.9), (0.4, 0.5), (0.9, 0.05)])
@pytest.mark.parametrize("replicates", [1, 3])
def test_gaps_are_covered(copying, agreeing, replicates):
    """Where a seed copies the twins do not agree: M and G are far from independent."""
    samples, repeats = (256, 100) if replicates == 1 else (32, 60)
    hits = 0
    for seed in range(repeats):
        gap = gap_of(seed, samples, 20, copying, agreeing, replicates)
        _, low, high = bounds(gap)
        hits += low <= agreeing - copying <= high
    assert hits / repeats > 0.95 - 3 * math.sqrt(0.05 * 0.95 / repeats)


@pytest.mark.slow
@pytest.mark.parametrize("crossing", [20, 60, 150])
@pytest.mark.parametrize(("replicates", "samples"), [(1, 256), (3, 64)])
def test_critical_n_of_teachers_is_covered(replicates, samples, crossing):
    """Copying falls and agreement rises with N; where they meet is known, and may be a size tried.

    Sizes a factor of 3 apart; 200 runs.
    """
    sizes, hits = (7, 20, 66, 200, 600), 0
    for seed in range(200):
        gaps = []
        for n in sizes:
            share = 1 / (1 + (n / crossing) ** 1.5)
            gap = gap_of(7 * seed + n, samples, n, 0.95 * share, 0.95 * (1 - share), replicates)
            value, low, high = bounds(gap)
            gaps.append(Interval(value=value, low=low, high=high))
        at, _ = critical.critical_n(sizes, gaps, sizes)
        hits += at is not None and (at.low or 0) <= crossing <= (at.high or math.inf)
    assert hits / 200 >= 0.95


# Copies -----------------------------------------------------------------------------------------


def test_a_copy_is_nearer_than_any_sample_is_by_chance():
    own = np.array([[0.99, 0.95, 0.7], [0.97, 0.96, 0.96 + 1e-7]])
    other = np.array([[0.8, 0.2, 0.96], [0.1, 0.1, 0.5]])
    np.testing.assert_array_equal(
        copies.copied(own, other), [[True, False, False], [True, False, False]]
    )


def test_of_groups_a_copy_is_nearer_than_images_of_a_half_are_to_each_other():
    own, other = np.array([[0.99, 0.9], [0.95, 0.8]]), np.full((2, 2), 0.1)
    np.testing.assert_array_equal(copies.copied(own, other, 0.93), [[True, False], [True, False]])


def test_the_closest_pair_is_found_in_parts(monkeypatch):
    x = torch.rand(30, 1, 4, 4, generator=generator_of(0))
    u = similarity.unit(x)
    expected = (u @ u.T - 3 * torch.eye(30)).max().item()
    monkeypatch.setattr(similarity, "CHUNK_VALUES", 100)
    assert similarity.closest(x) == pytest.approx(expected)
    assert similarity.closest(torch.cat([x, x[:1]])) == pytest.approx(1)
    assert similarity.closest(x[:1]) == -1


def test_chance_makes_one_copy_on_average():
    rng = np.random.default_rng(0)
    found = [copies.copied(*rng.random((2, 2, 100))).sum() for _ in range(2000)]
    # The number above the largest of as many others: geometric, mean 1, variance 2.
    assert np.mean(found) == pytest.approx(1, abs=4 * math.sqrt(2 / 2000))


def test_rates_have_exact_one_sided_bounds():
    value, low, high = copies.rate(np.zeros(59, bool))
    assert (value, low) == (0, 0)
    assert high < 0.05 < copies.rate(np.zeros(58, bool))[2]
    value, low, high = copies.rate([np.ones(20, bool), np.ones(5, bool)])
    assert (value, high) == (1, 1)
    assert low == pytest.approx(0.05 ** (1 / 25))
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        statistics.clopper_pearson(3, 2, 0.05)


@pytest.mark.parametrize(("rate", "samples"), [(0.01, 60), (0.05, 256), (0.5, 100)])
def test_bounds_are_exceeded_no_more_often_than_they_say(rate, samples):
    counts = np.random.default_rng(0).binomial(samples, rate, 4000)
    ends = {k: statistics.clopper_pearson(int(k), samples, 0.05) for k in np.unique(counts)}
    for side, wrong in ((0, lambda bound: bound > rate), (1, lambda bound: bound < rate)):
        missed = np.mean([wrong(ends[k][side]) for k in counts])
        assert missed < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 4000)
