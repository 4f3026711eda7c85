"""The denoisers of discs against importance sampling, autograd, and each other at small noise."""

import pytest
import torch
from scipy.stats import truncnorm

from twinscore.denoisers.closed_form import Disc, disc_tangent
from twinscore.denoisers.closed_form.quadrature import adaptive_nodes, cut_normal
from twinscore.denoisers.layers import generator_of
from twinscore.errors import InputError
from twinscore.images.synthetic import render, sample_parameters, tangents

SIZE = 8
RADIUS = (1.5, 3.0)
DISC = torch.tensor([[3.4, 3.8, 2.2, 0.75, 0.3]], dtype=torch.float64)
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def form(**options):
    return Disc(SIZE, RADIUS, **options)


def noisy(sigma, seed=0):
    z = torch.randn(1, 1, SIZE, SIZE, generator=generator_of(seed), dtype=torch.float64)
    return render(DISC, SIZE) + sigma * z


def assert_consistent(found, log_weights, estimates):
    """Within 3 standard errors of a self-normalised estimate in every pixel, from over 1000."""
    weights = log_weights.softmax(0)
    assert 1 / weights.square().sum() > 1000
    mean = weights @ estimates
    error = (weights.square() @ (estimates - mean).square()).sqrt()
    assert ((found.flatten() - mean).abs() < 3 * error).all()


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_the_posterior_mean_is_that_of_weighted_draws_of_the_generator(sigma):
    y = noisy(sigma)
    draws = sample_parameters(range(30_000), size=SIZE, radius=RADIUS)
    images = render(draws, SIZE).flatten(1)
    log_weights = -(y.flatten() - images).square().sum(1) / (2 * sigma**2)
    assert_consistent(form()(y, sigma), log_weights, images)


def fitted(y):
    """Gauss-Newton from the true parameters: the mode of the likelihood, and its curvature."""
    parameters = DISC
    for _ in range(20):
        slopes = tangents(parameters, SIZE).flatten(2)[0].T
        residual = (y - render(parameters, SIZE)).flatten()
        parameters = parameters + torch.linalg.lstsq(slopes, residual[:, None]).solution.T
    return parameters[0], torch.linalg.inv(slopes.T @ slopes)


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_the_posterior_mean_is_that_of_draws_about_the_mode(sigma):
    """Intensities are many deviations inside [0, 1]: their integral is that of a full Gaussian."""
    y = noisy(sigma)
    mode, curvature = fitted(y)
    root = 1.3 * sigma * torch.linalg.cholesky(curvature[:3, :3])
    z = torch.randn(10_000, 3, generator=generator_of(1), dtype=torch.float64)
    masks = mode[:3] + z @ root.T
    margin = torch.minimum(masks[:, :2] + 0.5, SIZE - 0.5 - masks[:, :2]).amin(1)
    r = masks[:, 2]
    fits = (r > RADIUS[0]) & (r < RADIUS[1]) & (margin >= r)
    masks, z, r = masks[fits], z[fits], r[fits]
    white = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(masks), 2)
    inside = render(torch.cat([masks, white], 1), SIZE).flatten(1)
    both = torch.stack([inside, 1 - inside], 1)
    gram, product = both @ both.mT, both @ y.flatten()
    intensities = torch.linalg.solve(gram, product)
    misfit = y.square().sum() - (product * intensities).sum(1)
    log_prior = -2 * (SIZE - 2 * r).log()
    log_weights = -misfit / (2 * sigma**2) - gram.logdet() / 2 + log_prior + z.square().sum(1) / 2
    estimates = (intensities[:, None] @ both)[:, 0]
    assert_consistent(form()(y, sigma), log_weights, estimates)


@pytest.mark.parametrize("sigma", [0.3, 3.0])
def test_the_score_and_the_jacobian_are_derivatives(sigma):
    disc, y = form(), noisy(sigma).requires_grad_()
    (gradient,) = torch.autograd.grad(disc.log_density(y, sigma).sum(), y)
    found = disc.jacobian(y.detach(), sigma)[0]
    # Windows of intensities follow the image; their tails hold e^-18 of the mass.
    torch.testing.assert_close(disc.score(y.detach(), sigma), gradient, rtol=1e-6, atol=1e-7)
    v = torch.randn(y.shape, generator=generator_of(5), dtype=torch.float64)
    (product,) = torch.autograd.grad((disc(y, sigma) * v).sum(), y)
    torch.testing.assert_close(product.flatten(), found @ v.flatten(), rtol=1e-6, atol=1e-7)
    assert torch.linalg.eigvalsh(found).min() > -1e-12


def test_finite_differences_give_the_jacobian():
    """At this level the nodes are the same on both sides of a difference."""
    disc, sigma, y = form(), 3.0, noisy(3.0)
    v = torch.randn(y.shape, generator=generator_of(5), dtype=torch.float64)
    step = 1e-4 * sigma
    difference = (disc(y + step * v, sigma) - disc(y - step * v, sigma)) / (2 * step)
    product = disc.jacobian(y, sigma)[0] @ v.flatten()
    assert (difference.flatten() - product).norm() < 1e-6 * product.norm()


def test_the_tolerance_bounds_the_error():
    y = noisy(0.3)
    coarse, fine = form()(y, 0.3), form(tolerance=1e-6)(y, 0.3)
    # The estimate is of the evidence; means differ by it times the posterior's spread.
    spread = 0.3 * form().jacobian(y, 0.3)[0].trace().sqrt()
    assert (coarse - fine).norm() < 1e-3 * spread


def test_the_tangent_is_the_limit_at_small_noise():
    tangent = disc_tangent(DISC[0], SIZE)
    assert len(tangent.basis) == 5
    assert tangent.mse(0.1) == pytest.approx(5 * 0.1**2)
    distances = []
    for sigma in (0.06, 0.03, 0.015):
        y = noisy(sigma)
        distances.append((form()(y, sigma) - tangent(y, sigma)).norm().item())
    # The manifold leaves its tangent by the square of the distance.
    assert distances[0] / distances[1] == pytest.approx(4, rel=0.3)
    assert distances[1] / distances[2] == pytest.approx(4, rel=0.3)
    eigenvalues = torch.linalg.eigvalsh(form().jacobian(noisy(0.015), 0.015)[0])
    assert (eigenvalues[-5:] - 1).abs().max() < 0.1
    assert eigenvalues[:-5].abs().max() < 0.1


def test_the_tangent_has_two_dimensions_without_contrast():
    flat = DISC[0].clone()
    flat[4] = flat[3]
    assert len(disc_tangent(flat, SIZE).basis) == 2


def test_images_of_a_batch_do_not_matter_to_each_other():
    y, levels = torch.cat([noisy(1.0), noisy(2.0, 1)]), torch.tensor([1.0, 2.0]).double()
    together = form()(y, levels)
    torch.testing.assert_close(together[:1], form()(y[:1], 1.0), **CLOSE)
    torch.testing.assert_close(together[1:], form()(y[1:], 2.0), **CLOSE)
    assert form()(y.float(), 1.0).dtype == torch.float32


@pytest.mark.parametrize(
    ("mean", "deviation"), [(0.3, 0.1), (-3.0, 0.2), (4.0, 0.3), (0.5, 30.0), (1.0, 1e-3)]
)
def test_moments_of_a_normal_law_cut_to_the_unit_interval(mean, deviation):
    exact = truncnorm(-mean / deviation, (1 - mean) / deviation, mean, deviation)
    at = torch.tensor([mean, deviation], dtype=torch.float64)
    _, first, variance, skew = cut_normal(*at)
    assert first.item() == pytest.approx(exact.mean(), rel=1e-8, abs=1e-10)
    assert variance.item() == pytest.approx(exact.var(), rel=1e-6)
    # Of terms as large as (deviation + distance)^3, and of scipy alike, the last digits cancel.
    scale = 1e-12 * (deviation + abs(mean)) ** 3
    assert skew.item() == pytest.approx(exact.stats("s") * exact.std() ** 3, rel=1e-6, abs=scale)


@pytest.mark.parametrize("width", [1.0, 0.1, 1e-3])
def test_nodes_find_a_narrow_peak(width):
    peak = torch.tensor([0.3, 0.61, 0.72], dtype=torch.float64)

    def log_density(points):
        return -((points - peak) / width).square().sum(1) / 2

    _, volumes, values = adaptive_nodes(log_density, 3, 1e-4)
    # Of a normal law's factor in each dimension, sqrt(2 pi) width times the mass in [0, 1].
    mass = [cut_normal(at, torch.tensor(width).double())[0].exp() for at in peak]
    exact = torch.stack(mass).prod() * (2 * torch.pi * width**2) ** 1.5
    assert volumes.exp().sum() == pytest.approx(1)
    assert (volumes + values).logsumexp(0).exp() == pytest.approx(exact.item(), rel=1e-4)


def test_a_tolerance_out_of_reach_is_told(monkeypatch):
    monkeypatch.setattr("twinscore.denoisers.closed_form.quadrature._MOST", 1000)
    with pytest.raises(RuntimeError, match="do not reach the tolerance"):
        adaptive_nodes(lambda points: 1e9 * points.sum(1).sin(), 3, 1e-12)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="pass sigma"):
        form()(noisy(1.0))
    with pytest.raises(ValueError, match="is for images of shape"):
        form()(noisy(1.0)[..., 1:], 1.0)
    with pytest.raises(ValueError, match="NaN"):
        form()(noisy(1.0) * torch.nan, 1.0)
    with pytest.raises(ValueError, match="tolerance"):
        form(tolerance=0.0)
    with pytest.raises(InputError, match="do not fit"):
        Disc(8, (1, 5))
    with pytest.raises(InputError, match="edge"):
        form(edge=0.0)(noisy(1.0), 1.0)
    with pytest.raises(InputError, match="does not fit"):
        disc_tangent(DISC[0] + 3, SIZE)
