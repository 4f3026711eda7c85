"""Measures against brute force, and the rules that turn them into a verdict."""

import csv
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinscore import images
from twinscore.analysis import memorization, similarity, statistics
from twinscore.analysis.denoising import psnr_table
from twinscore.denoisers.layers import generator_of
from twinscore.experiments import comparison, transition
from twinscore.results.base import Interval
from twinscore.results.transition import PerTwin
from twinscore.training.history import SIGMAS

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def pictures(n, shape=(1, 5, 4), seed=0):
    return torch.rand(n, *shape, generator=generator_of(seed))


def dense(a, b):
    """All similarities in float64, straight from the definition."""
    a, b = (x.flatten(1).double().numpy() for x in (a, b))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


# float32 sums over some tens of values
ROUNDING = {"rtol": 0, "atol": 2e-6}


# Similarity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 4, 4)])
def test_cosine_similarity_is_the_correlation_of_pixels(shape):
    a, b = pictures(20, shape), pictures(20, shape, 1)
    found = similarity.cosine_similarity(a, b).numpy()
    np.testing.assert_allclose(found, np.diag(dense(a, b)), **ROUNDING)
    rows = zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True)
    np.testing.assert_allclose(found, [np.corrcoef(*r)[0, 1] for r in rows], **ROUNDING)


@given(scale=st.floats(0.01, 100), shift=st.floats(-1, 1))
def test_cosine_similarity_ignores_contrast_and_brightness(scale, shift):
    a = pictures(3)
    found = similarity.cosine_similarity(a, scale * a + shift)
    # the shift costs digits of a weak contrast: float32 epsilon times shift / (scale * contrast)
    torch.testing.assert_close(found, torch.ones(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(similarity.cosine_similarity(a, -a), -torch.ones(3))


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1 / 3, 1.0])
@pytest.mark.parametrize("size", [5, 64])
def test_a_constant_image_is_similar_to_nothing(value, size):
    flat = torch.full((1, 1, size, size), value)
    assert not similarity.unit(flat).any()
    assert similarity.cosine_similarity(flat, torch.full_like(flat, 0.7)).item() == 0
    assert similarity.nearest(flat, pictures(3, (1, size, size)))[0].item() == 0


@pytest.mark.parametrize("chunk", [1, 40, 2**24])
def test_nearest_is_the_maximum_of_the_dense_matrix(monkeypatch, chunk):
    monkeypatch.setattr(similarity, "CHUNK_VALUES", chunk)
    queries, references = pictures(15), pictures(12, seed=1)
    references[7] = 0.5 * queries[4]
    expected = dense(queries, references)
    found, index = similarity.nearest(queries, references)
    np.testing.assert_allclose(found.numpy(), expected.max(1), **ROUNDING)
    np.testing.assert_array_equal(index.numpy(), expected.argmax(1))
    assert index[4] == 7


def test_diversity_is_the_mean_over_all_pairs():
    samples = pictures(9)
    samples[3] = 0.5  # constant: similar to nothing
    with np.errstate(invalid="ignore"):
        pairs = np.nan_to_num(dense(samples, samples))
    expected = [np.delete(pairs[i], i).mean() for i in range(9)]
    np.testing.assert_allclose(similarity.diversity(samples).numpy(), expected, **ROUNDING)
    copies = samples[:1].expand(4, 1, 5, 4)
    torch.testing.assert_close(similarity.diversity(copies), torch.ones(4))


# Memorisation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 500, 2**24])
@pytest.mark.parametrize("n", [2, 5, 300])
def test_distance_ratio_equals_brute_force(monkeypatch, chunk, n):
    """Also for near copies: one grey level in one pixel, and one part in 1e5 everywhere."""
    monkeypatch.setattr(memorization, "CHUNK_VALUES", chunk)
    training = pictures(n)
    samples = pictures(12, seed=1)
    samples[0] = training[1]
    samples[1] = training[0]
    samples[1, 0, 2, 3] += 1 / 255
    samples[2:6] = training[:1] + 1e-5 * torch.randn(4, 1, 5, 4, generator=generator_of(3))
    distances = torch.cdist(
        samples.flatten(1).double(),
        training.flatten(1).double(),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    first, second = distances.sort(1).values[:, :2].T
    found = memorization.distance_ratio(samples, training)
    # Differences of pixels are exact to float32's 6e-8: relative 6e-3 of 1e-5, ratios of 1e-5.
    torch.testing.assert_close(found.double(), first / second, rtol=1e-5, atol=1e-7)
    assert torch.equal(memorization.copied(samples, training), first / second < 1 / 3)
    assert found[0] == 0
    assert memorization.copied(samples, training)[:6].all()


def test_the_ratio_survives_duplicates_and_needs_two_images():
    training = pictures(1).expand(3, 1, 5, 4)
    assert memorization.distance_ratio(training[:1], training).item() == 0
    with pytest.raises(ValueError, match="at least two"):
        memorization.distance_ratio(training, training[:1])


def test_the_rule_is_strict_at_one_third():
    training = torch.zeros(2, 1, 1, 2)
    training[1, 0, 0, 0] = 4.0
    samples = torch.tensor([0.99, 1.01]).view(2, 1, 1, 1) * torch.tensor([1.0, 0.0])
    assert memorization.copied(samples, training).tolist() == [True, False]


# Denoising --------------------------------------------------------------------------------------


def identity(y, sigma=None):
    return y


def test_psnr_of_the_identity_is_the_noise_level():
    """Averaged over images of d pixels: ``-20 log10 sigma`` less a term of order 1 / d."""
    table = psnr_table(identity, pictures(50, (1, 20, 20)), [0.1, 1.0])
    # The logarithm's curvature gives 10 / ln 10 / d = 0.01; standard error 0.04.
    np.testing.assert_allclose(table.mean(1), [20, 0], atol=0.2)
    assert table.shape == (2, 50)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_psnr_noise_depends_on_the_image_and_level_only(batch):
    x = pictures(7)
    table = psnr_table(identity, x, [0.1, 0.1], batch=batch)
    torch.testing.assert_close(table, psnr_table(identity, x, [0.1, 0.1]))
    torch.testing.assert_close(table[:, :4], psnr_table(identity, x[:4], [0.1, 0.1]))
    assert not torch.equal(table[0], table[1])
    assert not torch.equal(table, psnr_table(identity, x, [0.1, 0.1], seed=1))
    assert not torch.isclose(table[0, 0], table[0, 1:]).any()


# Statistics -------------------------------------------------------------------------------------


def test_bootstrap_interval_covers_a_known_median():
    """200 experiments of 100 Gaussian values; about 95 % of the intervals hold the median, 0.

    Binomial standard error 1.5 %; the percentile interval of a median is known to be near nominal.
    """
    generator = np.random.default_rng(0)
    hits, widths = 0, []
    for seed in range(200):
        values = generator.standard_normal((1, 100))
        draws = statistics.resampled(values, np.median, seed=seed, resamples=400)
        low, high = statistics.interval(draws)
        hits += low <= 0 <= high
        widths.append(high - low)
    assert 0.95 - 0.06 <= hits / 200 <= 1.0
    # 2 * 1.96 * sqrt(pi / 2) / sqrt(100): the asymptotic width of a median's interval
    assert np.mean(widths) == pytest.approx(0.491, rel=0.1)


def test_replicates_that_differ_widen_the_interval():
    generator = np.random.default_rng(0)
    values = generator.standard_normal((4, 100))

    def width(values):
        low, high = statistics.interval(statistics.resampled(values, np.mean, seed=1))
        return high - low

    shifted = values + np.array([[-2.0], [-1.0], [1.0], [2.0]])
    # Means of 4 replicates with standard deviation 1.58: 2 * 1.96 * 1.58 / 2, less as they are few.
    assert 2 < width(shifted) < 3.5
    assert width(shifted) > 4 * width(values)


def test_what_belongs_to_a_sample_is_drawn_together():
    first = np.arange(12.0).reshape(2, 6)
    values = np.stack([first, 100 - first], axis=-1)

    def statistic(drawn, axis):
        assert drawn.shape[1:] == (12, 2)
        np.testing.assert_array_equal(drawn.sum(-1), 100)
        return drawn[..., 0].mean(axis)

    assert statistics.resampled(values, statistic, seed=0).shape == (statistics.RESAMPLES,)


def test_bootstrap_depends_on_its_seed_only_and_keeps_constants():
    values = np.random.default_rng(0).standard_normal((2, 9))
    draw = lambda seed: statistics.resampled(values, np.median, seed=seed)  # noqa: E731
    np.testing.assert_array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))
    assert np.isin(draw(3), (values.reshape(-1, 1) + values.reshape(1, -1)) / 2).all()
    constant = statistics.resampled(np.full((3, 5), 0.7), np.median, seed=0)
    assert statistics.interval(constant) == (0.7, 0.7)


def test_bootstrap_memory_is_bounded(monkeypatch):
    seen = []

    def statistic(drawn, axis):
        seen.append(drawn.size)
        return drawn.mean(axis)

    monkeypatch.setattr(statistics, "_CHUNK_VALUES", 100)
    draws = statistics.resampled(np.arange(30.0).reshape(1, 30), statistic, seed=0, resamples=50)
    assert max(seen) <= 100
    assert len(draws) == 50
    # 5 standard errors of a mean of 50 means of 30 values uniform on 0..29
    assert abs(draws.mean() - 14.5) < 5 * 8.66 / math.sqrt(30 * 50)


def test_counts_are_the_bootstrap_of_seeds():
    whole = np.concatenate(list(statistics.seed_counts(7, 3, 500)))
    assert whole.shape == (500, 7)
    assert (whole.sum(1) == 7).all()
    # Variance of a count: 7 * (1/7) * (6/7), each draw's relative error sqrt(2/3500) or so.
    assert whole.var() == pytest.approx(6 / 7, rel=0.1)


def test_bounds_are_the_union_of_bootstraps_or_student_t():
    wide, shifted = np.linspace(-1, 1, 1001), np.linspace(0, 4, 1001)
    found = statistics.bounds(statistics.Estimate(np.array([0.5]), (wide, shifted)))
    assert found == pytest.approx((0.5, -0.95, 3.9))
    found = statistics.bounds(statistics.Estimate(np.array([5.0]), (wide,)))
    assert found == pytest.approx((5, -0.95, 5))  # the value is never outside
    values = np.array([0.1, 0.2, 0.4])
    mean, low, high = statistics.mean_interval(values)
    assert statistics.bounds(statistics.Estimate(values)) == (mean, low, high)
    assert statistics.bounds(statistics.Estimate(values), (0, 0.3)) == (mean, 0, 0.3)


def test_interval_is_the_percentile_interval():
    assert statistics.interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert statistics.interval(np.arange(11.0), level=0.8) == pytest.approx((1.0, 9.0))


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([-1, 1, 2], math.sqrt(10 * 100)),  # half way in log N
        ([-3, 1, 2], 10 * 10**0.75),
        ([-1, -1, 3], 100 * 10**0.25),
        ([-1, 1, -1], math.inf),
        ([1, -1, 1], math.sqrt(100 * 1000)),  # it must turn positive for good
        ([1, 2, 3], 0.0),
        ([-1, -2, -3], math.inf),
        ([-1, 0, 1], 100.0),  # zero is not positive
        ([-1, 1, 0], math.inf),
    ],
)
def test_crossing_is_where_the_gap_turns_positive_for_good(gaps, expected):
    found = statistics.crossing([10, 100, 1000], np.array([gaps, gaps], dtype=float))
    assert found == pytest.approx([expected, expected])


# One level, from images to numbers --------------------------------------------------------------


def compared(samples_a, samples_b, n=5, replicates=1):
    pool = images.from_pixels((255 * pictures(60)).round().to(torch.uint8).numpy())
    splits = [images.twins(pool, n, test=30, seed=0, replicate=r) for r in range(replicates)]
    curve = np.arange(30.0) * np.ones((len(SIGMAS), 1))
    pairs = [
        tuple(
            {
                "psnr_train": curve + 1,
                "psnr_test": curve,
                "samples": make(pool, split).numpy(),
                "unfinished": np.array([0]),
            }
            for make in (samples_a, samples_b)
        )
        for split in splits
    ]
    return comparison.compare(pool, pairs, splits, seed=0), pool, splits


def copies_of(side):
    return lambda pool, split: pool[np.resize(getattr(split, side), 20)]


def test_copies_of_training_images_are_memorised():
    (level, arrays, _), pool, splits = compared(copies_of("a"), copies_of("b"))
    assert level.verdict == "memorises"
    assert level.memorisation.value == 1
    assert level.memorisation.low > 0.7  # 20 samples or so
    assert level.memorisation.p == pytest.approx(1 / 252)
    assert level.copies.a.value == level.copies.b.value == 1
    assert level.agreement.high < 0.2
    assert level.excess.high < 0
    assert level.nearest_similarity.a.value == pytest.approx(1.0)
    certain = Interval(value=1.0, low=1.0, high=1.0, method="bootstrap", covers="samples")
    assert level.memorised_fraction.a == level.memorised_fraction.b == certain
    assert level.control_fraction.a.value == 0
    worse = "N = 5: held-out images come out worse than they went in at sigma 0.05, 0.1"
    assert level.warnings == [worse]  # 14.5 dB everywhere
    np.testing.assert_array_equal(arrays["nearest_a"], arrays["samples_a"])
    expected = dense(pool[splits[0].a], pool[splits[0].b]).max(1)
    np.testing.assert_allclose(arrays["closest_pairs"], expected, **ROUNDING)
    assert level.closest_pairs.value == pytest.approx(np.median(expected), abs=2e-6)
    test = pool[splits[0].test]
    held_out = np.concatenate([dense(test, pool[getattr(splits[0], s)]).max(1) for s in "ab"])
    np.testing.assert_allclose(arrays["held_out_nearest"], held_out, **ROUNDING)
    assert level.held_out_quantiles.low == pytest.approx(np.quantile(held_out, 0.05), abs=2e-6)
    # curves: images have 0 .. 29 dB on test, one more on train
    assert level.psnr.test == pytest.approx([14.5] * len(SIGMAS))
    assert level.psnr.train == pytest.approx([15.5] * len(SIGMAS))
    assert level.psnr.sigma == list(SIGMAS)
    assert level.psnr_gap.value == pytest.approx(1)
    assert level.psnr_gap.low < 1 < level.psnr_gap.high


def test_shared_new_images_are_generalisation():
    """Both twins draw the same new images, of which there are enough to tell."""
    held_out = lambda pool, split: pool[np.resize(split.test, 80)]  # noqa: E731
    (level, _, [toss]), _, _ = compared(held_out, held_out)
    assert (level.verdict, level.learned.passed) == ("generalises", True)
    assert level.memorisation.value == 0
    assert level.memorisation.p > 0.5
    assert level.agreement.value == pytest.approx(1)
    assert level.alike.value == 1
    assert len(toss.votes[0].similarity) == 80


def test_replicates_give_students_t():
    (level, _, tosses), _, _ = compared(copies_of("test"), copies_of("test"), replicates=3)
    for found in (level.memorisation, level.agreement, level.alike, level.excess):
        assert (found.method, found.covers) == ("Student's t", "replicates")
    assert len(tosses) == 3
    assert (level.copies.a.method, level.copies.a.high > 0) == ("Clopper-Pearson", True)


def test_shared_nonsense_is_not_learned():
    """Twins that agree on one picture."""
    ramp = torch.linspace(0, 1, 20).view(1, 1, 5, 4).repeat(80, 1, 1, 1)
    (level, _, _), _, _ = compared(lambda *_: ramp, lambda *_: ramp)
    assert level.twin_similarity.value == pytest.approx(1.0)
    assert level.agreement.value == 0
    assert level.verdict == "has not learned"
    assert level.why.startswith("diversity of A's samples is 0.00")


def test_lost_samples_count_against_nobody():
    """A third of A's paths were lost: what is left says what all would."""

    def lost(pool, split):
        samples = copies_of("a")(pool, split)
        samples[::3] = 0
        return samples

    (whole, _, _), _, _ = compared(copies_of("a"), copies_of("b"))
    (level, _, _), _, _ = compared(lost, copies_of("b"))
    assert level.copies.a.value == whole.copies.a.value == 1
    assert level.copies.a.low < whole.copies.a.low
    assert level.copies.b == whole.copies.b
    assert level.memorisation.value == pytest.approx(1 - 0.5 * 7 / 20)  # each votes one half
    assert level.agreement.value < 0.3
    assert level.verdict == "memorises"


def test_twins_whose_paths_were_all_lost_have_not_learned():
    black = lambda pool, split: torch.zeros(20, *pool.shape)  # noqa: E731
    (level, _, _), _, _ = compared(black, copies_of("test"))
    assert (level.agreement, level.alike, level.excess) == (None, None, None)
    assert (level.copies.a.low, level.copies.a.high) == (0, 1)
    assert not level.learned.passed
    assert level.learned.why.startswith("only 0 samples of A were drawn to the end; try another")
    assert transition._critical([level])[0] is None


def test_a_single_training_image_has_no_memorised_fraction():
    (level, _, _), _, _ = compared(copies_of("a"), copies_of("b"), n=1)
    assert level.memorised_fraction == PerTwin(a=None, b=None)
    assert level.diversity.a.value == pytest.approx(1.0)
    assert level.verdict == "memorises"


def test_the_csv_has_one_row_per_level_and_no_stray_column():
    (one, _, _), _, _ = compared(copies_of("a"), copies_of("b"), n=1)
    (five, _, _), _, _ = compared(copies_of("a"), copies_of("b"), n=5)
    text = transition.levels_csv([one, five])
    columns, *rows = csv.reader(text.splitlines())
    assert columns[0] == "n"
    assert [row[0] for row in rows] == ["1", "5"]
    cells = [dict(zip(columns, row, strict=True)) for row in rows]
    assert cells[0]["memorised_fraction_a_value"] == ""
    assert float(cells[1]["memorised_fraction_a_value"]) == 1.0
    assert float(cells[1]["psnr_train_0.05"]) == pytest.approx(15.5)
    for column in columns:
        assert any(cell[column] for cell in cells) or column == "learned_why"
    assert float(cells[1]["memorisation_value"]) == 1
    assert cells[1]["learned_samples_a_energy_low"] != ""
