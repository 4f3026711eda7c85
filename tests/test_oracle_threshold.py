"""The best threshold of an image, against all thresholds there are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from twinscore.denoisers import check
from twinscore.denoisers.layers import generator_of
from twinscore.denoisers.shrinkage import (
    Bandlets,
    Cosines,
    OracleThresholding,
    Thresholding,
    Wavelets,
    best_threshold,
    hard,
    soft,
)
from twinscore.images.synthetic import CAlpha, c_alpha

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

DICTIONARIES = {
    "cosines": Cosines(block=8),
    "wavelets": Wavelets(),
    "best basis": Bandlets(geometry_cost=0),
}
RULES = {"hard": hard, "soft": soft}
SIGMA = 0.1


@pytest.fixture(scope="module")
def pairs():
    """Clean and noisy images with edges, 3x16x16."""
    x = c_alpha(range(6), CAlpha(size=16, alpha=2.0, filter="regularity"), seed=5).double()
    x = x.expand(-1, 3, -1, -1)
    return x, x + SIGMA * torch.randn(x.shape, generator=generator_of(1), dtype=x.dtype)


def error(noisy, clean, rule, threshold):
    return (rule(noisy, torch.as_tensor(threshold)) - clean).square().sum().item()


# Multiples of 1/2 are exact in binary, and equal magnitudes come up often.
halves = arrays.arrays(np.float64, (2, 6), elements=st.integers(-6, 6).map(lambda k: k / 2))


@given(halves)
def test_no_hard_threshold_is_better(coefficients):
    """Between magnitudes nothing changes, so that they and 0 are all thresholds there are."""
    noisy, clean = torch.from_numpy(coefficients)
    [found] = best_threshold(noisy[None], clean[None]).tolist()
    assert found >= 0
    errors = [error(noisy, clean, hard, t) for t in (0.0, *noisy.abs().tolist())]
    assert error(noisy, clean, hard, found) == min(errors)


@given(halves)
def test_no_soft_threshold_is_better(coefficients):
    """On a grid that holds all magnitudes the error's parabolas are off by half a step at most."""
    noisy, clean = torch.from_numpy(coefficients)
    [found] = best_threshold(noisy[None], clean[None], soft).tolist()
    step = 1 / 128
    grid = np.arange(0, 3 + step, step)
    least = error(noisy, clean, soft, found)
    errors = [error(noisy, clean, soft, t) for t in grid]
    assert found >= 0
    # 6 coefficients of curvature 2; at a kink the least is on the grid itself.
    assert least - 1e-9 <= min(errors) <= least + 6 * (step / 2) ** 2 + 1e-9


def test_thresholds_by_hand():
    noisy, clean = (
        torch.tensor([[3.0, -2.0, 0.5], [3.0, -2.0, 0.5]]),
        torch.tensor([[2.5, -1.0, 0]]),
    )
    # Kept, -2 costs (2 - 1)^2, killed 1: the same, and the fewest are kept.
    assert best_threshold(noisy, clean).tolist() == [2, 2]
    # Both kept: excesses 0.5 and 1, mean 0.75.
    assert best_threshold(noisy, clean, soft).tolist() == [0.75, 0.75]
    assert best_threshold(noisy[:1], torch.zeros(1, 3)).tolist() == [3]
    assert best_threshold(noisy[:1], noisy[:1]).tolist() == [0]
    assert best_threshold(noisy[:1], noisy[:1], soft).tolist() == [0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", DICTIONARIES)
def test_no_multiple_of_the_noise_has_a_smaller_error_on_any_image(pairs, name, rule):
    x, y = pairs
    basis = DICTIONARIES[name].adapted(x, SIGMA)
    errors = [
        (Thresholding(basis, RULES[rule], multiple)(y, SIGMA) - x).square().flatten(1).sum(1)
        for multiple in (0.5, 1.0, 2.0, 3.0, None)
    ]
    denoiser = OracleThresholding(x, DICTIONARIES[name], RULES[rule])
    found = (check(denoiser, y, SIGMA) - x).square().flatten(1).sum(1)
    assert (found <= torch.stack(errors).amin(0) * (1 + 1e-12)).all()
    assert (found < errors[-1]).all()  # or the universal threshold would be the best already


@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(sorted(DICTIONARIES)),
    rule=st.sampled_from([hard, soft]),
    seed=st.integers(0, 10**6),
)
def test_energy_is_never_raised(name, rule, seed):
    generator = generator_of(seed)
    x, y = torch.randn(2, 2, 1, 16, 16, generator=generator, dtype=torch.float64)
    estimate = OracleThresholding(x, DICTIONARIES[name], rule)(y, 1.0)
    before, after = (v.square().flatten(1).sum(1) for v in (y, estimate))
    assert (after <= before * (1 + 1e-10)).all()  # the digits of sym4's tabulated filters


@pytest.mark.parametrize("rule", RULES)
def test_each_image_has_its_own_threshold(pairs, rule):
    x, y = (v.float() for v in pairs)
    together = check(OracleThresholding(x, Wavelets(), RULES[rule]), y, SIGMA)
    for i in range(len(x)):
        one = OracleThresholding(x[i : i + 1], Wavelets(), RULES[rule])
        torch.testing.assert_close(together[i], one(y[i : i + 1], SIGMA)[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(together[i], one(y, SIGMA)[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: OracleThresholding(x, Wavelets())(x), "pass sigma"),
        (lambda x: OracleThresholding(x, Wavelets())(x[:2], 1.0), "knows images"),
        (lambda x: best_threshold(x, x, torch.add), "the rules hard and soft"),
    ],
)
def test_bad_input_is_refused(pairs, make, message):
    with pytest.raises(ValueError, match=message):
        make(pairs[0])
