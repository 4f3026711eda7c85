"""Closed-form denoisers against autograd of their densities, finite differences and each other."""

import math

import pytest
import torch

from twinscore.denoisers.closed_form import (
    Empirical,
    Gaussian,
    GaussianMixture,
    LinearSubspace,
    StationaryGaussian,
)
from twinscore.denoisers.layers import generator_of
from twinscore.images.synthetic import subspace, subspace_law

SHAPE = (2, 3, 4)
D = math.prod(SHAPE)
# The same float64 operations in another order.
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def covariance(seed=0, rank=D):
    root = normal(D, rank, seed=seed) / math.sqrt(rank)
    return 0.2 * root @ root.T


def power():
    height, width = SHAPE[1:]
    f = torch.fft.fftfreq(height)[:, None].abs() + torch.fft.fftfreq(width)[None].abs()
    return (0.3 / (1 + 20 * f**2)).double()[None] * torch.tensor([1.0, 0.5]).view(2, 1, 1)


MEAN = 0.5 + 0.1 * normal(*SHAPE, seed=9)
MEANS = 0.5 + 0.4 * normal(3, *SHAPE, seed=8)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
BASIS = torch.linalg.qr(normal(D, 5, seed=7)).Q.T.reshape(5, *SHAPE)
FORMS = {
    "empirical": lambda: Empirical.of(0.5 + 0.3 * normal(20, *SHAPE, seed=5)),
    "subspace": lambda: LinearSubspace(MEAN, BASIS, 0.3),
    "flat subspace": lambda: LinearSubspace(MEAN, BASIS),
    "gaussian": lambda: Gaussian.of(MEAN, covariance()),
    "singular gaussian": lambda: Gaussian.of(MEAN, covariance(rank=5)),
    "stationary": lambda: StationaryGaussian(MEAN, power()),
    "mixture, shared": lambda: GaussianMixture.of(WEIGHTS, MEANS, covariance()),
    "mixture, diagonal": lambda: GaussianMixture.of(
        WEIGHTS, MEANS, 0.05 + 0.3 * normal(3, D, seed=3).abs()
    ),
    "mixture, full": lambda: GaussianMixture.of(
        WEIGHTS, MEANS, torch.stack([covariance(s) for s in range(3)])
    ),
}


@pytest.fixture(params=FORMS, ids=str)
def form(request):
    return FORMS[request.param]()


SIGMAS = [0.05, 0.4, 3.0]
EACH = torch.tensor([0.05, 0.4, 3.0, 0.7], dtype=torch.float64)


@pytest.mark.parametrize("sigma", [*SIGMAS, EACH], ids=str)
def test_the_score_is_the_gradient_of_the_log_density(form, sigma):
    """Miyasawa 1961."""
    y = (0.5 + normal(4, *SHAPE, seed=1)).requires_grad_()
    (gradient,) = torch.autograd.grad(form.log_density(y, sigma).sum(), y)
    torch.testing.assert_close(form.score(y.detach(), sigma), gradient, **CLOSE)


@pytest.mark.parametrize("sigma", [*SIGMAS, EACH], ids=str)
def test_the_jacobian_is_the_derivative(form, sigma):
    y = 0.5 + normal(4, *SHAPE, seed=2)
    found = form.jacobian(y, sigma)
    level = torch.as_tensor(sigma, dtype=y.dtype).expand(4)
    for i, s in enumerate(level.tolist()):
        exact = torch.autograd.functional.jacobian(lambda x, s=s: form(x[None], s)[0], y[i])
        exact = exact.reshape(D, D)
        torch.testing.assert_close(found[i], exact, rtol=1e-8, atol=1e-9)
    assert torch.allclose(found, found.mT, atol=1e-10)
    assert (torch.linalg.eigvalsh(found) > -1e-10).all()


@pytest.mark.parametrize("sigma", [*SIGMAS, EACH], ids=str)
def test_finite_differences_give_the_jacobian(form, sigma):
    """Third derivatives go as sigma^-2, so that the step is a share of sigma: error 1e-8, about."""
    y, v = 0.5 + normal(4, *SHAPE, seed=2), normal(4, *SHAPE, seed=11)
    step = 1e-4 * torch.as_tensor(sigma, dtype=y.dtype).view(-1, 1, 1, 1)
    difference = (form(y + step * v, sigma) - form(y - step * v, sigma)) / (2 * step)
    product = (form.jacobian(y, sigma) @ v.flatten(1)[:, :, None])[:, :, 0]
    distance = (difference.flatten(1) - product).norm(dim=1)
    # An image alone with its nearest has a Jacobian of 0: relative to the direction then.
    assert (distance <= 1e-6 * product.norm(dim=1) + 1e-9 * v.flatten(1).norm(dim=1)).all()


def test_the_jacobian_of_a_mixture_is_its_posterior_covariance():
    """Of Gaussians of inverse covariance ``C^-1 + sigma^-2``, weighted by their evidence."""
    form, sigma = FORMS["mixture, full"](), 0.4
    y = 0.5 + normal(1, *SHAPE, seed=2)
    means, covariances, evidence = [], [], []
    for k in range(3):
        total = covariance(k) + sigma**2 * torch.eye(D)
        off = (y - MEANS[k]).flatten()
        gain = torch.linalg.solve(total, covariance(k)).T
        means.append(MEANS[k].flatten() + gain @ off)
        covariances.append(covariance(k) - gain @ covariance(k))
        law = torch.distributions.MultivariateNormal(torch.zeros(D).double(), total)
        evidence.append(WEIGHTS[k].log() + law.log_prob(off))
    weights, means = torch.stack(evidence).softmax(0), torch.stack(means)
    off = means - weights @ means
    within = torch.einsum("k,kij->ij", weights, torch.stack(covariances))
    exact = (within + off.T @ (weights[:, None] * off)) / sigma**2
    torch.testing.assert_close(form.jacobian(y, sigma)[0], exact, rtol=1e-7, atol=1e-9)


def test_a_subspace_is_a_gaussian_of_low_rank_and_projects_in_the_limit():
    flat, y = BASIS.flatten(1), normal(4, *SHAPE, seed=4)
    gaussian, form = Gaussian.of(MEAN, 0.09 * flat.T @ flat), FORMS["subspace"]()
    torch.testing.assert_close(form(y, EACH), gaussian(y, EACH), **CLOSE)
    torch.testing.assert_close(form.log_density(y, EACH), gaussian.log_density(y, EACH), **CLOSE)
    for limit in (FORMS["flat subspace"](), LinearSubspace(MEAN, BASIS, 1e6)):
        eigenvalues = torch.linalg.eigvalsh(limit.jacobian(y[:1], 0.3)[0])
        exact = torch.tensor([0.0] * (D - 5) + [1.0] * 5, dtype=torch.float64)
        torch.testing.assert_close(eigenvalues, exact, rtol=0, atol=1e-10)
        assert limit.mse(0.3) == pytest.approx(5 * 0.3**2)


def test_the_subspace_of_the_source_is_kept():
    law = subspace_law(8, 4)
    form = LinearSubspace(torch.full((1, 8, 8), law.mean), law.basis[:, None], law.scale)
    x = subspace(range(2000), law)
    on = LinearSubspace(form.mean, form.basis)(x, 0.1)
    torch.testing.assert_close(on, x, rtol=0, atol=1e-5)  # float32, sums of 64
    errors = (form(x + 0.3 * normal(2000, 1, 8, 8).float(), 0.3) - x).square().flatten(1).sum(1)
    assert abs(errors.mean() - form.mse(0.3)) < 4 * errors.std() / math.sqrt(2000)


def test_a_mixture_of_one_component_is_a_gaussian():
    one = GaussianMixture.of(torch.ones(1).double(), MEAN[None], covariance())
    y = normal(5, *SHAPE, seed=4)
    gaussian = FORMS["gaussian"]()
    torch.testing.assert_close(one(y, 0.3), gaussian(y, 0.3), **CLOSE)
    torch.testing.assert_close(one.log_density(y, 0.3), gaussian.log_density(y, 0.3), **CLOSE)


def test_the_stationary_form_is_the_full_one_with_a_circulant_covariance():
    form = FORMS["stationary"]()
    impulses = torch.eye(D, dtype=torch.float64).view(D, *SHAPE)
    filtered = torch.fft.ifft2(torch.fft.fft2(impulses) * form.power).real
    full = Gaussian.of(MEAN, filtered.flatten(1))
    y = normal(5, *SHAPE, seed=4)
    torch.testing.assert_close(form(y, EACH.repeat(2)[:5]), full(y, EACH.repeat(2)[:5]), **CLOSE)
    torch.testing.assert_close(form.log_density(y, 0.2), full.log_density(y, 0.2), **CLOSE)
    assert form.mse(0.2) == pytest.approx(full.mse(0.2))


def test_diagonal_shared_and_full_covariances_agree():
    diagonal = 0.05 + 0.3 * normal(D, seed=3).abs()
    y = 0.5 + normal(6, *SHAPE, seed=5)
    forms = [
        GaussianMixture.of(WEIGHTS, MEANS, diagonal.expand(3, D)),
        GaussianMixture.of(WEIGHTS, MEANS, diagonal.diag()),
        GaussianMixture.of(WEIGHTS, MEANS, diagonal.diag().expand(3, D, D)),
    ]
    for other in forms[1:]:
        torch.testing.assert_close(forms[0](y, 0.3), other(y, 0.3), **CLOSE)
        torch.testing.assert_close(forms[0].jacobian(y, 0.3), other.jacobian(y, 0.3), **CLOSE)


@pytest.mark.parametrize("name", ["gaussian", "stationary"])
def test_the_error_is_what_it_says(name):
    form, count, sigma = FORMS[name](), 20_000, 0.3
    x = form.draw(normal(count, *SHAPE, seed=6))
    errors = (form(x + sigma * normal(count, *SHAPE, seed=7), sigma) - x).square().flatten(1).sum(1)
    assert abs(errors.mean() - form.mse(sigma)) < 4 * errors.std() / math.sqrt(count)
    trace = form.jacobian(x[:1], sigma)[0].trace().item()
    assert form.mse(sigma) == pytest.approx(sigma**2 * trace)


def test_draws_have_the_moments_and_weights_of_the_mixture():
    form, count = FORMS["mixture, full"](), 40_000
    u = torch.rand(count, generator=generator_of(1), dtype=torch.float64)
    x = form.draw(normal(count, *SHAPE, seed=6), u).flatten(1)
    mean = (WEIGHTS[:, None] * MEANS.flatten(1)).sum(0)
    assert ((x.mean(0) - mean).abs() < 5 * x.std(0) / math.sqrt(count)).all()
    chosen = form.responsibilities(x.view(-1, *SHAPE), 1e-3).mean(0)
    assert ((chosen - WEIGHTS).abs() < 4 * (WEIGHTS * (1 - WEIGHTS) / count).sqrt()).all()
    spread = (MEANS.flatten(1) - mean).unsqueeze(2)
    exact = sum(
        w * (covariance(s) + m @ m.T) for s, (w, m) in enumerate(zip(WEIGHTS, spread, strict=True))
    )
    # Entries of a sample covariance: 6 standard errors of products of bounded fourth moment.
    assert (torch.cov(x.T) - exact).abs().max() < 6 * 2 * exact.diag().max() / math.sqrt(count)


def test_chunks_change_nothing(monkeypatch):
    form, y = FORMS["mixture, full"](), normal(7, *SHAPE, seed=3)
    whole = form(y, 0.3), form.jacobian(y, 0.3), form.log_density(y, 0.3)
    monkeypatch.setattr("twinscore.denoisers.closed_form.mixture._CHUNK", 200)
    parts = form(y, 0.3), form.jacobian(y, 0.3), form.log_density(y, 0.3)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("name", FORMS)
def test_bad_input_is_refused(name):
    form, y = FORMS[name](), normal(2, *SHAPE)
    with pytest.raises(ValueError, match="pass sigma"):
        form(y)
    for sigma in (0.0, -1.0, math.nan, torch.ones(3)):
        with pytest.raises(ValueError, match="sigma must be"):
            form(y, sigma)
    with pytest.raises(ValueError, match="is for images of shape"):
        form(y[:, :1], 0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FORMS)
def test_a_level_whose_square_underflows_is_refused(name, dtype):
    """An order of magnitude above it all is finite, variances of zero included."""
    form, y = FORMS[name](), normal(2, *SHAPE).to(dtype)
    least = math.sqrt(torch.finfo(dtype).tiny)
    assert torch.isfinite(form(y, 10 * least)).all()
    for sigma in (0.9 * least, 1e-6 * least, torch.tensor([1.0, 0.9 * least]).to(dtype)):
        with pytest.raises(ValueError, match=r"at least \S+, below which its square is lost in fl"):
            form(y, sigma)


def test_means_that_are_not_finite_are_refused():
    for make in (
        lambda mean: Gaussian.of(mean, covariance()),
        lambda mean: StationaryGaussian(mean, power()),
        lambda mean: LinearSubspace(mean, BASIS),
        lambda mean: GaussianMixture.of(torch.ones(1), mean[None], covariance()),
    ):
        make(MEAN)
        for value in (math.nan, math.inf):
            with pytest.raises(ValueError, match="the mean holds NaN or infinity"):
                make(MEAN.clone().fill_(value))


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"K at least 1, got \(0, 2, 3, 4\)"):
        GaussianMixture.of(WEIGHTS[:0], MEANS[:0], covariance())


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_symmetry_is_asked_for_at_any_scale(scale):
    shift = torch.zeros(D, D).double()
    shift[0, 1] = 1e-3
    Gaussian.of(MEAN, scale * (covariance() + 1e-3 * shift))  # rounding of float32, say
    with pytest.raises(ValueError, match="not symmetric"):
        Gaussian.of(MEAN, scale * (covariance() + shift))
    rising = torch.arange(4).double() / 100
    with pytest.raises(ValueError, match="must be even"):
        StationaryGaussian(MEAN, scale * (power() + rising))


def test_what_is_not_a_covariance_is_refused():
    bad = covariance() - 0.1 * torch.eye(D).double()
    with pytest.raises(ValueError, match="negative eigenvalue"):
        Gaussian.of(MEAN, bad)
    with pytest.raises(ValueError, match="must be"):
        Gaussian.of(MEAN, covariance()[:3])
    with pytest.raises(ValueError, match="not symmetric"):
        Gaussian.of(MEAN, normal(D, D))
    with pytest.raises(ValueError, match="sum to 1"):
        GaussianMixture.of(WEIGHTS * 2, MEANS, covariance())
    with pytest.raises(ValueError, match="covariances must be"):
        GaussianMixture.of(WEIGHTS, MEANS, covariance()[:5])
    with pytest.raises(ValueError, match="must be even"):
        StationaryGaussian(MEAN, power() + torch.arange(4).double())
    with pytest.raises(ValueError, match="not orthonormal"):
        LinearSubspace(MEAN, 2 * BASIS)
    with pytest.raises(ValueError, match="the basis must be"):
        LinearSubspace(MEAN, BASIS[0])
    with pytest.raises(ValueError, match="scale must be positive"):
        LinearSubspace(MEAN, BASIS, 0.0)
    with pytest.raises(ValueError, match="non-negative"):
        StationaryGaussian(MEAN, -power())
    with pytest.raises(ValueError, match="or 1 channel"):
        StationaryGaussian(MEAN, power()[:1].expand(3, -1, -1))
    with pytest.raises(ValueError, match="holds NaN"):
        Gaussian.of(MEAN, covariance() * math.nan)
    with pytest.raises(ValueError, match="finite variances"):
        GaussianMixture.of(WEIGHTS, MEANS, torch.full((len(WEIGHTS), D), math.nan))


@pytest.mark.parametrize("count", [3, 20, 200])
def test_float32_covariances_of_few_images_are_taken(count):
    """Most of their eigenvalues are 0, and come out as small and negative."""
    x = normal(count, 1, 16, 16).float().flatten(1)
    covariance = torch.cov(x.T)
    denoiser = Gaussian.of(torch.zeros(1, 16, 16), covariance)
    assert (denoiser.variances >= 0).all()
    assert denoiser.variances.sum().item() == pytest.approx(covariance.trace().item(), rel=1e-4)


@pytest.mark.parametrize("sigma", [0.0, -0.5, math.nan, math.inf])
def test_no_error_is_expected_without_noise(sigma):
    forms = (
        Gaussian.of(MEAN, covariance()),
        StationaryGaussian(MEAN, power()),
        LinearSubspace(MEAN, BASIS),
    )
    for form in forms:
        with pytest.raises(ValueError, match="sigma must be positive and finite"):
            form.mse(sigma)
