"""Slopes of PSNR curves, against power laws, Wiener's slopes and refusals."""

import numpy as np
import pytest
import torch

from twinscore.analysis.slopes import fitted_local_slopes, fitted_slope, local_slopes, slope
from twinscore.analysis.statistics import mean_interval
from twinscore.denoisers.closed_form import StationaryGaussian
from twinscore.images.synthetic.fields import spectrum_of

DB = np.arange(5, 46, 1.0)
SIGMAS = 10 ** (-DB / 20)


@pytest.mark.parametrize(
    ("regularity", "known", "ours"), [(1, 0.516, 0.515), (2, 0.667, 0.667), (3, 0.750, 0.750)]
)
def test_wiener_slope_of_edge_free_backgrounds(regularity, known, ours):
    """White noise filtered by |k|^-(alpha + 1), 128x128, 10 to 40 dB.

    The known slopes hold to .03 at every contrast that images have; at .2 ours to their last digit.
    """
    exponent = -2.0 * (regularity + 1)
    for contrast in (0.05, 0.1, 0.2, 0.29):
        power = spectrum_of(128, lambda k: k.clamp_min(1).pow(exponent), contrast=contrast)[None]
        wiener = StationaryGaussian(torch.zeros_like(power), power)
        mse = [wiener.mse(sigma) / power.numel() for sigma in SIGMAS]
        found = slope(SIGMAS, mse, (10, 40))
        assert found == pytest.approx(known, abs=0.03)
        if contrast == 0.2:
            assert found == pytest.approx(ours, abs=0.0005)


def test_a_power_law_has_its_exponent_everywhere():
    mse = 3 * SIGMAS ** (2 * 0.6)
    assert slope(SIGMAS[::-1], mse[::-1], (10, 40)) == pytest.approx(0.6, abs=1e-12)
    centres, slopes = local_slopes(SIGMAS[::-1], mse[::-1])
    np.testing.assert_allclose(centres, DB[:-1] + 0.5, rtol=1e-12)
    np.testing.assert_allclose(slopes, 0.6, rtol=1e-9)


def test_the_psnr_is_that_of_the_mean_error():
    """Images of errors sigma^1 and 4 sigma^1, a third and two thirds: the mean is 3 sigma."""
    mse = SIGMAS[:, None] ** [[1.0, 1.5, 2.0]]
    fit = fitted_slope(SIGMAS, mse, (10, 40), seed=0, resamples=10)
    assert fit.value == pytest.approx(slope(SIGMAS, mse.mean(1), (10, 40)), abs=1e-12)
    assert abs(fit.value - 0.75) > 0.1  # the mean of the images' own slopes
    assert (fit.levels, fit.fit_range) == (31, (10, 40))


def test_the_interval_covers_the_true_slope():
    """95 % nominal; of 200 experiments at least 88 % must cover (the percentile interval's
    coverage at N = 40 is 93 %; 88 % is 3 standard errors below)."""
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        noise = generator.gamma(4.0, 0.25, size=(40, 1)) * generator.gamma(9.0, 1 / 9, (40, 13))
        mse = (SIGMAS[5:31:2] ** 1.2)[:, None] * noise.T
        fit = fitted_slope(SIGMAS[5:31:2], mse, (10, 40), seed=seed, resamples=200)
        assert fit.low <= fit.value <= fit.high
        covered += fit.low <= 0.6 <= fit.high
    assert covered >= 176


def test_the_interval_over_three_replicates_covers_what_differs_between_them():
    """Slopes that differ between replicates by 0.05; Student's t is exact: 95 % of 400 is 380, and
    367 is 3 standard errors below. A bootstrap of three replicates covers some 65 %."""
    generator = np.random.default_rng(0)
    inside, covered = SIGMAS[5:31:2], 0
    for _ in range(400):
        slopes = 0.6 + 0.05 * generator.standard_normal((3, 1, 1))
        mse = inside[:, None] ** (2 * slopes) * np.ones((3, 1, 8))
        fit = fitted_slope(inside, mse, (10, 40), seed=0)
        covered += fit.low <= 0.6 <= fit.high
    assert 367 <= covered <= 393


def test_local_slopes_have_the_intervals_of_their_replicates():
    """A kink at 20 dB; each replicate's slopes are those of its mean error."""
    exponents = np.where(DB < 20, 1.0, 1.6)
    steps = np.concatenate([[0], exponents[:-1].cumsum()]) / 10  # d log10(mse) over dB, halved
    tilts = np.array([-0.1, 0.0, 0.2])[:, None] * DB / 10
    mse = 10 ** -(steps + tilts)[:, :, None] * np.linspace(0.5, 1.5, 4)
    found = fitted_local_slopes(SIGMAS[::-1], mse[:, ::-1], seed=0)
    assert [fit.fit_range for fit in found][:2] == [pytest.approx((5, 6)), pytest.approx((6, 7))]
    for fit, below in zip(found, exponents, strict=False):
        expected = mean_interval(below + np.array([-0.1, 0.0, 0.2]))
        np.testing.assert_allclose([fit.value, fit.low, fit.high], expected, atol=1e-9)
    [mean, *_] = np.mean([local_slopes(SIGMAS, of.mean(1))[1] for of in mse], axis=0)
    assert found[0].value == pytest.approx(mean, abs=1e-9)


def test_local_slopes_of_one_replicate_have_the_interval_of_its_images():
    unlike = SIGMAS[::10, None] ** np.linspace(1.0, 1.4, 50)
    for fit in fitted_local_slopes(SIGMAS[::10], unlike, seed=0, resamples=200):
        assert 0.5 < fit.low < fit.value < fit.high < 0.7  # between those of single images
    alike = np.repeat(SIGMAS[::10, None], 3, axis=1)
    for fit in fitted_local_slopes(SIGMAS[::10], alike, seed=0, resamples=20):
        np.testing.assert_allclose([fit.low, fit.value, fit.high], 0.5, rtol=1e-12)


def test_equal_images_give_an_interval_of_no_width():
    mse = np.repeat(SIGMAS[:, None], 3, axis=1)
    fit = fitted_slope(SIGMAS, mse, (10, 40), seed=0, resamples=20)
    np.testing.assert_allclose([fit.low, fit.value, fit.high], 0.5, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SIGMAS, SIGMAS, (10, 11)), "10 to 11 dB holds 2 noise levels and needs 3; add 1"),
        ((SIGMAS, SIGMAS, (60, 70)), "holds 0 noise levels and needs 3; add 3"),
        (([0.1] * 5, [0.1] * 5, (10, 40)), "holds 1 noise level and needs 3; add 2"),
        ((SIGMAS, SIGMAS, (40, 10)), "must ascend"),
        ((SIGMAS, SIGMAS[1:], (10, 40)), "an error for each noise level"),
        ((SIGMAS, 0 * SIGMAS, (10, 40)), "errors must be positive"),
        ((SIGMAS, np.nan * SIGMAS, (10, 40)), "errors must be positive"),
        ((-SIGMAS, SIGMAS, (10, 40)), "noise levels must be positive"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        slope(*arguments)


def test_an_interval_needs_images():
    with pytest.raises(ValueError, match="at least 2 images"):
        fitted_slope(SIGMAS, SIGMAS[:, None], (10, 40), seed=0)


def test_local_slopes_need_different_levels():
    with pytest.raises(ValueError, match="all different"):
        local_slopes([0.1, 0.1], [0.1, 0.1])
    with pytest.raises(ValueError, match="all different"):
        fitted_local_slopes([0.1, 0.1], np.ones((2, 3)), seed=0)
