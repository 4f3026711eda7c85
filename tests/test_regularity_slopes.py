"""Slopes and their contrasts in the study of C-alpha images, from errors that are known."""

import numpy as np
import pytest

from twinscore.analysis.slopes import fitted_slope, slope_difference
from twinscore.experiments import regularity
from twinscore.experiments.regularity import COMMON_RANGE, METHODS, Spec

ERRORS = [f"mse/{method}" for method in METHODS]
SPEC = Spec(alphas=(1, 3), generators=("regularity",), levels=(10, 20, 30), fit_range=(10, 30))


def test_slopes_of_exact_power_laws_have_their_difference_as_contrast():
    sigmas = np.array(SPEC.sigmas)
    scatter = np.linspace(0.5, 1.5, 5)
    errors = {
        (alpha, "regularity"): dict.fromkeys(
            ERRORS,
            sigmas[None, :, None] ** (2 * alpha / (alpha + 1)) * scatter * np.ones((2, 1, 1)),
        )
        for alpha in (1.0, 3.0)
    }
    for contrast in regularity.contrasts(SPEC, errors):
        for value in (contrast.difference, contrast.common):
            numbers = [value.value, value.low, value.high]
            np.testing.assert_allclose(numbers, 0.25, atol=1e-12)  # images share their slope
        assert contrast.theory == pytest.approx(0.25)
    for update in ({"fit_range": COMMON_RANGE}, {"fit_range": (10, 40), "levels": (10, 30, 40)}):
        other = SPEC.model_copy(update=update)
        part = {k: {m: e[:, : len(other.levels)] for m, e in v.items()} for k, v in errors.items()}
        assert {contrast.common for contrast in regularity.contrasts(other, part)} == {None}


def test_a_contrast_over_the_common_range_stands_next_to_a_narrower_one():
    """A floor above 20 dB hides there what the slopes below it show."""
    spec = SPEC.model_copy(update={"levels": (10, 15, 20, 25, 30), "fit_range": (10, 20)})
    sigmas = np.maximum(spec.sigmas, 0.1)[None, :, None]
    errors = {
        (alpha, "regularity"): dict.fromkeys(ERRORS, sigmas**power * np.ones((2, 1, 4)))
        for alpha, power in ((1.0, 1.0), (3.0, 1.5))
    }
    contrasts = regularity.contrasts(spec, errors)
    assert contrasts[0].difference.value == pytest.approx(0.25)
    # The least-squares slope of 0, 5, 10, 10, 10 over 0, 5, 10, 15, 20 is 125 / 250.
    assert contrasts[0].common.value == pytest.approx(0.25 * 0.5)
    verdict = regularity.verdict(spec, [], contrasts)
    assert "by 0.250 [0.250, 0.250]" in verdict
    assert "the difference from 10 to 31 dB is 0.125 [0.125, 0.125]" in verdict


def test_replicates_widen_the_interval_of_a_slope():
    sigmas = SPEC.sigmas
    same = np.array(sigmas)[:, None] ** 1.2 * np.linspace(0.9, 1.1, 8)
    other = np.array(sigmas)[:, None] ** 1.6 * np.linspace(0.9, 1.1, 8)
    # Two slopes, 0.6 and 0.8: their t interval at one degree of freedom is 0.7 -+ 12.706 * 0.1.
    apart = fitted_slope(sigmas, np.stack([same, other]), (10, 30), seed=0)
    assert [apart.low, apart.value, apart.high] == pytest.approx(
        [0.7 - 1.2706, 0.7, 0.7 + 1.2706], abs=1e-4
    )
    alike = fitted_slope(sigmas, np.stack([same, same]), (10, 30), seed=0)
    assert alike.high - alike.low < 1e-9
    one = fitted_slope(sigmas, other, (10, 30), seed=0)
    assert one == fitted_slope(sigmas, other[None], (10, 30), seed=0)


def test_a_difference_of_slopes_is_paired_within_a_replicate():
    """Slopes that differ between replicates but not their difference: an interval of no width."""
    sigmas, scatter = np.array(SPEC.sigmas)[:, None], np.linspace(0.9, 1.1, 8)
    least, most = (
        np.stack([sigmas ** (2 * (slope + shift)) * scatter for shift in (0, 0.2)])
        for slope in (0.5, 0.7)
    )
    paired = slope_difference(SPEC.sigmas, least, most, (10, 30), seed=0)
    assert [paired.low, paired.value, paired.high] == pytest.approx([0.2] * 3, abs=1e-9)
    one = slope_difference(SPEC.sigmas, least[0], most[0], (10, 30), seed=0)
    assert [one.low, one.value, one.high] == pytest.approx([0.2] * 3, abs=1e-9)
    with pytest.raises(ValueError, match="pair errors of one shape"):
        slope_difference(SPEC.sigmas, least, most[0], (10, 30), seed=0)
