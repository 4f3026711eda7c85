"""The denoisers of discs against importance sampling, autograd, and each other at small noise."""

import sys

import pytest
import torch
from scipy.stats import truncnorm
from torch import func

from twinscore.analysis.jacobian import linearise
from twinscore.denoisers.closed_form import Disc, disc_tangent
from twinscore.denoisers.closed_form.quadrature import adaptive_nodes, cut_normal
from twinscore.denoisers.layers import generator_of
from twinscore.errors import InputError
from twinscore.images.synthetic import render, sample_parameters, tangents

SIZE = 8
RADIUS = (1.5, 3.0)
DISC = torch.tensor([[3.4, 3.8, 2.2, 0.75, 0.3]], dtype=torch.float64)
MODULE = sys.modules[Disc.__module__]
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


@pytest.mark.parametrize(
    ("size", "radius", "sigma", "count"),
    [(8, RADIUS, 0.316, 60_000), (16, (1.6, 6.4), 0.316, 20_000), (16, (1.6, 6.4), 0.1, 20_000)],
)
def test_the_posterior_mean_is_that_of_draws_of_all_five_parameters(size, radius, sigma, count):
    """About one step of Gauss-Newton from the truth; draws outside the law's support weigh none."""
    disc = DISC if size == 8 else torch.tensor([[7.3, 8.1, 4.2, 0.75, 0.3]], dtype=torch.float64)
    noise = torch.randn(1, 1, size, size, generator=generator_of(0), dtype=torch.float64)
    y = render(disc, size) + sigma * noise
    slopes = tangents(disc, size).flatten(2)[0].T
    curvature = torch.linalg.inv(slopes.T @ slopes)
    centre = disc[0] + curvature @ slopes.T @ (sigma * noise).flatten()
    z = torch.randn(count, 5, generator=generator_of(1), dtype=torch.float64)
    draws = centre + 1.5 * sigma * z @ torch.linalg.cholesky(curvature).T
    margin = torch.minimum(draws[:, :2] + 0.5, size - 0.5 - draws[:, :2]).amin(1)
    r, intensities = draws[:, 2], draws[:, 3:]
    inside = (r > radius[0]) & (r < radius[1]) & (margin >= r)
    inside &= ((intensities > 0) & (intensities < 1)).all(1)
    draws, z, r = draws[inside], z[inside], r[inside]
    images = render(draws, size).flatten(1)
    log_prior = -2 * (size - 2 * r).log()
    misfit = (y.flatten() - images).square().sum(1)
    log_weights = -misfit / (2 * sigma**2) + log_prior + z.square().sum(1) / 2
    assert_consistent(Disc(size, radius)(y, sigma), log_weights, images)


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


@pytest.mark.parametrize("sigma", [0.1, 0.316, 1.0, 3.0])
def test_finite_differences_give_the_jacobian(sigma):
    """So near each other the nodes are the same on both sides of a difference."""
    disc, y = form(), noisy(sigma)
    v = torch.randn(y.shape, generator=generator_of(5), dtype=torch.float64)
    step = 1e-4 * sigma
    difference = (disc(y + step * v, sigma) - disc(y - step * v, sigma)) / (2 * step)
    product = disc.jacobian(y, sigma)[0] @ v.flatten()
    assert (difference.flatten() - product).norm() < 1e-6 * product.norm()


@pytest.mark.parametrize("sigma", [0.316, 3.0])
def test_finite_differences_give_the_second_derivatives(sigma):
    disc, y = form(), noisy(sigma)
    v, w = torch.randn(2, *y.shape, generator=generator_of(5), dtype=torch.float64)

    def product(at):
        at = at.detach().requires_grad_()
        return at, torch.autograd.grad((disc(at, sigma) * v).sum(), at, create_graph=True)[0]

    at, found = product(y)
    (second,) = torch.autograd.grad((found * w).sum(), at)
    step = 1e-4 * sigma
    difference = (product(y + step * w)[1] - product(y - step * w)[1]) / (2 * step)
    assert (difference - second).norm() < 1e-5 * second.norm()


# Torch itself scripts its forward derivatives when they are first used.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_products_with_the_jacobian():
    """By copies of the image, in both modes, and by transforms."""
    disc, sigma, y = form(), 0.3, noisy(0.3)
    jacobian = disc.jacobian(y, sigma)[0]
    v = torch.randn(3, *y.shape, generator=generator_of(5), dtype=torch.float64)
    exact = (v.flatten(1) @ jacobian.T).view_as(v)
    around = linearise(disc, y, sigma)
    for product in (around.push, around.pull):
        torch.testing.assert_close(product(v), exact, **CLOSE)
    _, pushed = func.jvp(lambda y: disc(y, sigma), (y,), (v[0],))
    torch.testing.assert_close(pushed, exact[0], **CLOSE)
    for transform in (func.jacrev, func.jacfwd):
        full = transform(lambda y: disc(y, sigma))(y).view_as(jacobian)
        torch.testing.assert_close(full, jacobian, **CLOSE)


def test_copies_of_an_image_take_one_quadrature(monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(1)
        return adaptive_nodes(*arguments)

    monkeypatch.setattr(MODULE, "adaptive_nodes", counted)
    a, b = noisy(1.0), noisy(1.0, 1)
    found = form()(torch.cat([a, b, a, a]), torch.tensor([1.0, 1.0, 1.0, 2.0]).double())
    assert len(calls) == 3  # a, b, and a at another level
    for row, (y, sigma) in enumerate([(a, 1.0), (b, 1.0), (a, 1.0), (a, 2.0)]):
        assert torch.equal(found[row], form()(y, sigma)[0])


def test_no_derivative_keeps_the_masks():
    """Four numbers per mask, of 64 pixels each; a point that is saved twice counts once."""
    disc, y = form(), noisy(0.3).requires_grad_()
    nodes = len(MODULE._Posterior.apply(*disc._checked(y.detach(), 0.3), disc)[2])
    kept = {}

    def note(saved):
        kept[saved.data_ptr()] = saved.numel()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        (g,) = torch.autograd.grad(disc(y, 0.3).square().sum(), y, create_graph=True)
        torch.autograd.grad(g.square().sum(), y)
    assert nodes > 1000
    assert 4 * nodes <= sum(kept.values()) < 5 * nodes


def test_chunks_change_nothing(monkeypatch):
    y = noisy(0.3)
    whole, jacobian = form()(y, 0.3), form().jacobian(y, 0.3)
    monkeypatch.setattr(MODULE, "_CHUNK", 100 * SIZE**2)
    torch.testing.assert_close(form()(y, 0.3), whole, **CLOSE)
    torch.testing.assert_close(form().jacobian(y, 0.3), jacobian, **CLOSE)


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
    # Of terms as large as (deviation + distance)^3, in scipy too, the last digits cancel.
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


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_a_derivative_in_sigma_is_refused_in_forward_mode_too():
    level = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="not in sigma"):
        func.jvp(lambda sigma: form()(noisy(1.0), sigma), (level,), (level,))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="pass sigma"):
        form()(noisy(1.0))
    with pytest.raises(ValueError, match="is for images of shape"):
        form()(noisy(1.0)[..., 1:], 1.0)
    with pytest.raises(ValueError, match="NaN"):
        form()(noisy(1.0) * torch.nan, 1.0)
    with pytest.raises(ValueError, match="not in sigma"):
        form()(noisy(1.0), torch.tensor(1.0, requires_grad=True))
    with pytest.raises(ValueError, match="tolerance"):
        form(tolerance=0.0)
    with pytest.raises(InputError, match="do not fit"):
        Disc(8, (1, 5))
    with pytest.raises(InputError, match="edge"):
        form(edge=0.0)(noisy(1.0), 1.0)
    with pytest.raises(InputError, match="does not fit"):
        disc_tangent(DISC[0] + 3, SIZE)
