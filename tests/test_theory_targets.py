import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr

from twinscore.theory.processes import geometric, ramp, variance_exploding, variance_preserving
from twinscore.theory.quadrature import grid, panels
from twinscore.theory.targets import (
    bounded,
    empirical,
    gaussian_mixture,
    prior,
    two_modes,
    uniform,
)

NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
PROCESSES = {
    "preserving": variance_preserving(),
    "exploding": variance_exploding(ramp(0, 2), end=10.0),
    "geometric": variance_exploding(geometric(25.0)),
    "cosine": variance_preserving(lambda t: 3 + 2 * np.cos(t), end=2.0),
}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_scale_and_deviation_solve_the_moment_equations(process):
    t, step = np.linspace(0.1, 0.9, 7) * process.end, 1e-5 * process.end
    after, before = t + step, t - step
    scale = (process.scale(after) - process.scale(before)) / (2 * step)
    variance = (process.deviation(after) ** 2 - process.deviation(before) ** 2) / (2 * step)
    # central differences: relative error of order (1e-5)^2 times a few, and rounding / 1e-5
    np.testing.assert_allclose(scale, process.drift(t) * process.scale(t), rtol=1e-7, atol=1e-9)
    expected = 2 * process.drift(t) * process.deviation(t) ** 2 + process.diffusion(t)
    np.testing.assert_allclose(variance, expected, rtol=1e-6, atol=1e-9)


def test_variance_is_preserved_and_time_can_be_the_noise_level():
    preserving, exploding = PROCESSES["preserving"], PROCESSES["exploding"]
    t = np.linspace(0, 1, 11)
    np.testing.assert_allclose(preserving.scale(t) ** 2 + preserving.deviation(t) ** 2, 1)
    np.testing.assert_allclose(exploding.deviation(t), t, atol=1e-15)
    assert exploding.scale(0.3) == 1
    assert preserving.prior == 1
    assert exploding.prior == pytest.approx(100)


def test_geometric_diffusion_has_its_closed_form():
    t = np.array([1e-6, 0.3, 1.0])
    expected = np.sqrt(np.expm1(2 * t * math.log(25)) / (2 * math.log(25)))
    np.testing.assert_allclose(PROCESSES["geometric"].deviation(t), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: variance_preserving(end=0.0), "end"),
        (lambda: variance_preserving(lambda t: -np.ones_like(t)), "rate"),
        (lambda: variance_exploding(lambda t: np.zeros_like(t)), "diffusion"),
        (lambda: variance_exploding(lambda t: t * np.nan), "diffusion"),
        (lambda: gaussian_mixture([0.5, 0.5], [0.0, 1.0], [1.0, 0.0]), "variances"),
        (lambda: gaussian_mixture([0.5, 0.5], [0.0, 1.0], -1.0), "variances"),
        (lambda: gaussian_mixture([0.0, 1.0], [0.0, 1.0], 1.0), "weights"),
        (lambda: gaussian_mixture([0.5, 0.6], [0.0, 1.0], 1.0), "weights"),
        (lambda: gaussian_mixture([1.0], [0.0, 1.0], 1.0), "means"),
        (lambda: gaussian_mixture([1.0], [np.inf], 1.0), "means"),
        (lambda: two_modes(3.0).score(np.zeros(4)), "points"),
        (lambda: two_modes(3.0).density(np.zeros((4, 2))), "points"),
        (lambda: empirical(np.zeros((0, 1))), "points"),
        (lambda: empirical(np.zeros((3, 1))).density(np.zeros((1, 1))), "noise"),
        (lambda: uniform(1.0, 1.0), "support"),
        (lambda: uniform(-np.inf, 1.0), "support"),
        (lambda: bounded(lambda y: np.full_like(y, -np.inf), 0.0, 1.0), "integral"),
        (lambda: uniform(0.0, 1.0).score(np.zeros((1, 1))), "noise"),
        (lambda: uniform(0.0, 1.0).density(np.zeros(3)), "points"),
        (lambda: gaussian_mixture([1.0], np.zeros((1, 4)), 1.0).entropy(), "3 dimensions"),
        (lambda: panels(np.array([0.0, 0.0])), "edges"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(make, word):
    with pytest.raises(ValueError, match=word) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_panels_integrate_polynomials_exactly():
    nodes, weights = panels(np.array([-1.0, 0.3, 2.0]), order=3)
    assert weights @ nodes**5 == pytest.approx((2**6 - 1) / 6, rel=1e-14)


@settings(max_examples=25, deadline=None)
@given(
    mu=st.floats(0, 50),
    share=st.floats(0.01, 0.99),
    width=st.floats(0.01, 5),
    t=st.floats(0, 1),
)
def test_any_mixture_has_mass_one_at_any_time(mu, share, width, t):
    target = gaussian_mixture([share, 1 - share], [-mu, mu], [width**2, 1.0])
    density = target.at(PROCESSES["preserving"], t)
    nodes, weights = grid(density.edges())
    # 2e-19 lies beyond the range; panels of half a deviation or more with 16 nodes: rounding
    assert weights @ density.density(nodes) == pytest.approx(1, abs=1e-9)


def test_scores_are_gradients_in_several_dimensions():
    target = gaussian_mixture([0.3, 0.7], [[0, 1, 2], [1, -1, 0]], [[1, 0.5, 2], [0.3, 1, 1]])
    density = target.at(PROCESSES["preserving"], 0.2)
    x = np.random.default_rng(0).normal(size=(20, 3))
    for axis, step in enumerate(1e-5 * np.eye(3)):
        slope = (density.log_density(x + step) - density.log_density(x - step)) / 2e-5
        np.testing.assert_allclose(density.score(x)[:, axis], slope, atol=1e-8)


@pytest.mark.parametrize("mu", [15.0, 50.0])
def test_far_modes_stay_in_the_log_domain(mu):
    target = two_modes(mu)
    x = np.array([[1.0], [-1.0], [4 * mu]])
    # one mode is e^(-2 mu) times as probable as the other: only the near one counts
    np.testing.assert_allclose(target.score(x)[:, 0], [mu - 1, 1 - mu, -3 * mu], rtol=1e-12)
    middle = target.log_density(np.zeros((1, 1)))[0]
    assert middle == pytest.approx(-(mu**2) / 2 - math.log(2 * math.pi) / 2)
    assert target.entropy() == pytest.approx(NORMAL_ENTROPY + math.log(2), abs=1e-12)


def test_entropies_have_their_closed_forms():
    assert gaussian_mixture([1.0], [2.0], 9.0).entropy() == pytest.approx(
        NORMAL_ENTROPY + math.log(3)
    )
    far = gaussian_mixture([0.3, 0.7], [[0, 0], [100, 100]], 1.0)
    mixed = -0.3 * math.log(0.3) - 0.7 * math.log(0.7)
    assert far.entropy() == pytest.approx(2 * NORMAL_ENTROPY + mixed)
    assert uniform(-1.0, 3.0).entropy() == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("name", "t"), [("exploding", 1e-3), ("exploding", 9.0), ("preserving", 0.2)]
)
def test_a_noised_uniform_has_its_closed_form(name, t):
    process = PROCESSES[name]
    scale, deviation = float(process.scale(t)), float(process.deviation(t))
    x = np.linspace(-scale - 8 * deviation, scale + 8 * deviation, 301)
    low, high = (-scale - x) / deviation, (scale - x) / deviation
    low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)
    log_mass = log_ndtr(high) + np.log(-np.expm1(log_ndtr(low) - log_ndtr(high)))
    density = uniform(-1.0, 1.0).at(process, t)
    found = density.log_density(x[:, None])
    np.testing.assert_allclose(found, log_mass - math.log(2 * scale), atol=1e-11)
    nodes, weights = grid(density.edges())
    assert weights @ density.density(nodes) == pytest.approx(1, abs=1e-11)
    step = 1e-4 * deviation
    ahead, behind = (density.log_density(x[:, None] + s) for s in (step, -step))
    slope = (ahead - behind) / (2e-4)
    # central differences of values with 1e-12 of rounding
    np.testing.assert_allclose(density.score(x[:, None])[:, 0] * deviation, slope, atol=1e-6)


def test_a_density_by_quadrature_takes_any_smooth_shape():
    wave = bounded(lambda y: np.log(1 + 0.9 * np.sin(5 * y)), 0.0, 2.0)
    mass = 2 + 0.9 * (1 - math.cos(10)) / 5
    x = np.array([[0.3], [1.7], [2.1]])
    expected = (1 + 0.9 * np.sin(5 * x[:, 0])) / mass
    np.testing.assert_allclose(wave.density(x), [expected[0], expected[1], 0.0])
    noised = wave.at(PROCESSES["exploding"], 0.05)
    nodes, weights = grid(noised.edges())
    assert weights @ noised.density(nodes) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(
    "target", [two_modes(3.0, (0.2, 0.8)), uniform(-1.0, 2.0)], ids=["mixture", "uniform"]
)
def test_draws_have_the_density_s_moments(target):
    drawn = target.draw(20_000, np.random.default_rng(0))
    nodes, weights = grid(target.edges())
    mass = weights * target.density(nodes)
    for power in (1, 2):
        mean = mass @ nodes[:, 0] ** power
        deviation = math.sqrt(mass @ nodes[:, 0] ** (2 * power) - mean**2)
        # 4 standard errors at a fixed seed
        error = abs((drawn**power).mean() - mean)
        assert error < 4 * deviation / math.sqrt(len(drawn))


def test_an_empirical_law_is_the_mixture_of_its_points():
    points = np.random.default_rng(0).normal(size=(50, 2))
    process = PROCESSES["exploding"]
    x = np.random.default_rng(1).normal(size=(7, 2))
    same = gaussian_mixture(np.full(50, 0.02), points, 0.25)
    np.testing.assert_allclose(empirical(points).at(process, 0.5).score(x), same.score(x))
    np.testing.assert_allclose(prior(process, 2).variances, [[100.0, 100.0]])
