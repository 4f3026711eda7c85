"""What docs/formulas.md states and no other test checks; and that everything it cites exists."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from twinscore import sampling
from twinscore.analysis.eigenbasis import shrinkage
from twinscore.analysis.jacobian import full, linearise, symmetric_eigenpairs
from twinscore.analysis.slopes import slope
from twinscore.analysis.sure import risk
from twinscore.denoisers import UNet
from twinscore.denoisers.closed_form import GaussianMixture
from twinscore.denoisers.layers import generator_of
from twinscore.denoisers.shrinkage import Cosines, Thresholding
from twinscore.images.synthetic import stream
from twinscore.images.synthetic.c_alpha import backgrounds, contours
from twinscore.theory import nodes
from twinscore.theory.bounds import score_matching_bound
from twinscore.theory.coordinates import standard_grid
from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.processes import ramp, variance_exploding, variance_preserving
from twinscore.theory.random_features import random_features
from twinscore.theory.score_matching import quadratic_losses
from twinscore.theory.targets import gaussian_mixture, two_modes

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "formulas.md"


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator_of(seed), dtype=torch.float64)


# The page -----------------------------------------------------------------------------------------


def test_every_section_that_is_cited_exists():
    files = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    for folder in ("src", "tests", "benchmarks"):
        files += (ROOT / folder).rglob("*.py")
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    anchors = {
        file.name: {
            re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
            for heading in re.findall(r"^##+ (.+)$", text, re.MULTILINE)
        }
        for file, text in texts.items()
    }
    cited = set()
    for file, text in texts.items():
        cited |= {(file.name, anchor) for anchor in re.findall(r"\]\(#([\w-]+)\)", text)}
        cited |= set(re.findall(r"\b(\w+\.md)#([\w-]+)", text))
    assert (PAGE.name, "kl-bound") in cited
    assert not [(page, anchor) for page, anchor in cited if anchor not in anchors[page]]


def test_every_test_that_is_named_exists():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    assert named
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), (file, name)


# Denoisers ----------------------------------------------------------------------------------------


def test_the_start_costs_no_more_than_half_the_variance_over_that_of_the_noise():
    """The prior is N(0, T^2), so the second moment stands for the variance."""
    target, process = two_modes(3.0, (0.3, 0.7)), variance_exploding(ramp(0, 2), end=5.0)
    grid = standard_grid(target, process, 0.1)
    start = score_matching_bound(lambda t, x: target.at(process, t).score(x).T, grid).start
    assert 0.2 < start / (grid.moment / (2 * 5.0**2)) < 1
    narrow = gaussian_mixture([1.0], [2.0], 1e-6)  # nearly a point: nearly an equality
    grid = standard_grid(narrow, process, 0.1)
    start = score_matching_bound(lambda t, x: narrow.at(process, t).score(x).T, grid).start
    assert start == pytest.approx(grid.moment / (2 * 5.0**2), rel=1e-4)


def test_sure_of_a_hard_threshold_misses_its_jumps():
    """By ``2 sigma^2 T (p(T) + p(-T))`` per coefficient, p the density of the noisy one."""
    sigma, multiple, d = 0.3, 1.5, 16
    denoiser = Thresholding(Cosines(), multiple=multiple)
    found = risk(denoiser, torch.zeros(4000, 1, 4, 4).double(), sigma, probes=None)
    density = math.exp(-(multiple**2) / 2) / math.sqrt(2 * math.pi)  # at T, times sigma
    missed = d * 4 * sigma**2 * multiple * density
    assert abs(found.difference.value + missed) < 4 * found.difference.standard_error
    assert missed > 0.5 * found.mse.value


def test_the_energy_a_bias_free_network_keeps_is_that_of_its_symmetric_part():
    """``<y, f(y)> = sum_k lambda_k <y, e_k>^2``, however far from symmetric the Jacobian is."""
    network, y = UNet(width=3, levels=1, seed=4).double().eval(), normal(1, 1, 6, 6)
    around = linearise(network, y)
    matrix = full(around)
    assert (matrix - matrix.T).norm() > 0.05 * matrix.norm()
    found = shrinkage(symmetric_eigenpairs(around, around.d, tolerance=1e-10), around, y)
    kept = (found.factors * found.noisy.square()).sum()
    torch.testing.assert_close(kept, (y * network(y)).sum())
    assert not torch.allclose(found.factors * found.noisy, found.denoised, rtol=0.01)


@pytest.mark.parametrize("a", [0.5, 1.0, 2.0])
def test_sorted_coefficients_give_the_slope_of_their_tail(a):
    """Energies ``k^-(a+1)``; at d = 10^6 the range ends far above the smallest coefficient."""
    energy = np.arange(1, 10**6 + 1.0) ** -(a + 1)
    sigmas = 10 ** (-np.arange(20, 46, 5.0) / 20)
    risks = [np.minimum(energy, sigma**2).sum() for sigma in sigmas]
    assert slope(sigmas, risks, (20, 45)) == pytest.approx(a / (a + 1), abs=0.02)
    low = 1e-3 * math.sqrt(energy[-1]) * np.array([1, 0.5, 0.25])
    risks = [np.minimum(energy, sigma**2).sum() for sigma in low]
    assert slope(low, risks, (0, 400)) == pytest.approx(1)


def mean_square(field, step, dims):
    """Mean squared increment over ``step`` points along the last of the spatial axes."""
    return (field.roll(step, dims) - field).square().mean().item()


def test_filtered_noise_has_the_regularity_of_its_exponent():
    """Squared increments over delta go as ``delta^(2 s)``, s = a - 1/2 in 1-D and a - 1 in 2-D."""
    line = contours(stream.uniform(range(200), 4096, 0), 1.0).double()
    plane = backgrounds(stream.uniform(range(8), 2 * 256**2, 1).view(-1, 256, 256, 2), 1.5).double()
    for field, dims in ((line, 1), (plane, 2)):
        ratio = mean_square(field, 16, dims) / mean_square(field, 4, dims)
        assert math.log(ratio, 4) == pytest.approx(2 * 0.5, abs=0.15)


# Samplers -----------------------------------------------------------------------------------------


def mixture():
    means = torch.stack([torch.full((1, 3, 3), 0.2), torch.full((1, 3, 3), 0.8)]).double()
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    return GaussianMixture.of(weights, means, 0.01 * torch.eye(9, dtype=torch.float64))


def test_the_residual_measures_the_noise_less_what_remains_of_it():
    """``E|f*(y) - y|^2 = sigma^2 d - MSE*``."""
    form, count, sigma = mixture(), 20_000, 0.3
    x = form.draw(normal(count, 1, 3, 3), torch.rand(count, generator=generator_of(1)).double())
    y = x + sigma * normal(count, 1, 3, 3, seed=2)
    f = form(y, sigma)
    sums = ((f - y).square() + (f - x).square()).flatten(1).sum(1)
    assert abs(sums.mean() - 9 * sigma**2) < 4 * sums.std() / math.sqrt(count)
    assert (f - x).square().sum() > 0.1 * (f - y).square().sum()


def test_reverse_diffusion_without_noise_is_eulers_method_on_the_flow():
    form, z, h0, steps = mixture(), normal(3, 1, 3, 3), 0.1, 12
    levels = [1.0]
    for t in range(1, steps + 1):
        levels.append(levels[-1] * (1 - h0 * t / (1 + h0 * (t - 1))))
    states = []
    options = {"h0": h0, "beta": 1.0, "sigma_min": 1e-9, "max_steps": steps + 1}
    sampling.reverse_diffusion(
        form, z, seeds=range(3), callback=lambda step, sigma, y: states.append(y), **options
    )
    torch.testing.assert_close(states[-1], sampling.euler(form, z, levels), rtol=1e-9, atol=1e-9)


# Score models -------------------------------------------------------------------------------------


def test_the_loss_left_by_the_flow_is_below_the_norm_of_the_coefficients_over_time():
    """``L(tau) - L(inf) <= |A(inf)|^2 / (4 e tau)`` from A(0) = 0; the norm exceeds m."""
    process = variance_preserving()
    rule = nodes.time_rule(process, start=1e-2)
    [loss] = quadratic_losses(
        random_features(32, seed=0), nodes.population_nodes(two_modes(2.0), process, rule)
    )
    flow, taus = gradient_flow(loss), np.geomspace(1, 1e12, 50)
    [limit] = flow.at([np.inf])
    left, bound = flow.loss_above_limit(taus), (limit**2).sum() / (4 * math.e * taus)
    assert (left <= bound).all()
    assert (limit**2).sum() > 32


def bound(tau, n, m):
    """Of [GP], with constants of 1 and without what does not depend on tau."""
    return tau**4 / (m * n) + tau**3 / m**2 + 1 / tau


def exponent(values, x):
    return np.polyfit(np.log(x), np.log(values), 1)[0]


def least(n, m):
    taus = np.geomspace(1, 1e6, 20_001)
    values = bound(taus, n, m)
    return taus[values.argmin()], values.min()


def test_minima_of_the_generalisation_bound():
    """At fixed m: (m n)^(1/5), then m^(1/2); along m = n; and the published stopping time."""
    n = np.geomspace(1e2, 1e4, 9)
    few = np.array([least(size, 1e8) for size in n])
    assert exponent(few[:, 0], n) == pytest.approx(1 / 5, abs=0.01)
    assert exponent(few[:, 1], n) == pytest.approx(-1 / 5, abs=0.01)
    many = np.array([least(1e3 * m**1.5, m) for m in n])
    assert exponent(many[:, 0], n) == pytest.approx(1 / 2, abs=0.01)
    assert exponent(many[:, 1], n) == pytest.approx(-1 / 2, abs=0.01)
    same = np.array([least(size, size) for size in 1e4 * n])
    assert exponent(same[:, 0], n) == pytest.approx(2 / 5, abs=0.01)
    assert exponent(same[:, 1], n) == pytest.approx(-2 / 5, abs=0.01)
    large = np.geomspace(1e8, 1e12, 9)
    stopped = bound(large**0.4, large, large)
    assert exponent(stopped, large) == pytest.approx(-2 / 5, abs=0.01)
    fixed = bound(large**0.4, large, 1e4)  # at fixed m the bound grows with n
    assert exponent(fixed, large) > 0.5
