"""Samplers against recursions written out here, and against what is known in closed form."""

import math
from itertools import pairwise

import pytest
import torch

from twinscore.denoisers.closed_form import Empirical
from twinscore.denoisers.layers import generator_of
from twinscore.sampling import euler, noise, noise_levels, probability_flow, reverse_diffusion

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

# The same float64 operations in another order, over up to some hundred steps.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def column(sigma, like):
    return torch.as_tensor(sigma, dtype=like.dtype).reshape(-1, 1, 1, 1)


class Wiener:
    """Exact denoiser of independent Gaussian pixels with means and variances (C, H, W)."""

    def __init__(self, mean, variance):
        self.mean, self.variance = mean, variance

    def __call__(self, y, sigma):
        return self.mean + (y - self.mean) * self.variance / (self.variance + column(sigma, y) ** 2)


class Blind:
    """A blind shrinkage that recovers its noise level from the image, in a smooth way."""

    def __init__(self, scale=0.3):
        self.scale = scale

    def __call__(self, y, sigma=None):
        return self.scale * torch.tanh(y / (2 * self.scale)) * torch.ones_like(y)


def gaussian(seed=0, shape=(1, 3, 4)):
    generator = generator_of(seed)
    mean = torch.rand(shape, generator=generator, dtype=torch.float64)
    variance = 0.01 + 0.2 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return Wiener(mean, variance)


def start(count, shape, seed=1):
    return torch.randn(count, *shape, generator=generator_of(seed), dtype=torch.float64)


# Noise ------------------------------------------------------------------------------------------


def test_noise_depends_on_seed_and_step_only():
    shape = (1, 3, 3)  # odd: a stream of numbers cut elsewhere would differ
    alone = [noise([s], shape)[0] for s in (7, 8, 9)]
    together = noise([9, 7, 8, 7], shape)
    assert all(map(torch.equal, together, [alone[2], alone[0], alone[1], alone[0]]))
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(noise([7], shape, step=1)[0], alone[0])


def test_noise_is_standard_normal():
    z = noise(range(500), (1, 10, 10))
    n = z.numel()
    # 5 standard errors.
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.square().mean() - 1) < 5 * math.sqrt(2 / n)
    neighbours = (z[:-1] * z[1:]).mean()
    assert abs(neighbours) < 5 / math.sqrt(n)


# Probability flow -------------------------------------------------------------------------------


def test_noise_levels_are_those_of_karras():
    levels = noise_levels(5, 1.0, 0.01)
    assert levels[0] == pytest.approx(1.0)
    assert levels[-1] == pytest.approx(0.01)
    assert levels[2] == pytest.approx((0.5 * (1 + 0.01 ** (1 / 7))) ** 7)
    assert noise_levels(3, 1.0, 0.5, rho=1.0) == pytest.approx([1, 0.75, 0.5])
    assert noise_levels(3, 1.0, 0.01, rho=math.inf) == pytest.approx([1, 0.1, 0.01])
    assert noise_levels(3, 1.0, 0.01, rho=1e6) == pytest.approx([1, 0.1, 0.01], rel=1e-4)
    assert noise_levels(1, 2.0, 0.5) == pytest.approx([2.0])
    bad_ones = [(0, 1, 0.1), (3, 0.1, 1), (3, 1, 0), (3, math.inf, 1), (3, math.nan, 0.1)]
    for bad in [*bad_ones, (3, 1, 0.1, 0.0)]:
        with pytest.raises(ValueError, match="sigma_min"):
            noise_levels(*bad)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_flow_by_euler_is_its_recursion_on_gaussian_data(steps):
    """Each coordinate is multiplied by ``1 + (s' - s) s / (v + s^2)`` from level s to s'."""
    denoiser, z = gaussian(), start(3, (1, 3, 4))
    levels = noise_levels(steps, 1.3, 0.02)
    factor = torch.ones_like(denoiser.variance)
    for s, after in pairwise(levels):
        factor *= 1 + (after - s) * s / (denoiser.variance + s**2)
    y0 = 0.4 + 1.3 * z
    y = denoiser.mean + factor * (y0 - denoiser.mean)
    found = probability_flow(
        denoiser, z, mean=0.4, steps=steps, sigma_max=1.3, sigma_min=0.02, solver=euler
    )
    torch.testing.assert_close(found, denoiser(y, levels[-1]), **CLOSE)


def test_flow_reports_every_level():
    denoiser, z = gaussian(), start(2, (1, 3, 4))
    seen = []
    found = probability_flow(
        denoiser, z, steps=4, callback=lambda step, sigma, y: seen.append((step, sigma, y.clone()))
    )
    assert [step for step, *_ in seen] == [0, 1, 2, 3]
    assert tuple(sigma for _, sigma, _ in seen) == noise_levels(4, 1.0, 0.01)
    assert torch.equal(seen[0][2], z)
    assert torch.equal(denoiser(seen[-1][2], 0.01), found)


def test_flow_refuses_nan_at_the_start():
    with pytest.raises(ValueError, match="NaN"):
        probability_flow(lambda y, sigma: y * math.nan, start(2, (1, 3, 4)))


# Reverse diffusion ------------------------------------------------------------------------------


def one_image(denoiser, z0, seed, *, mean, sigma_max, sigma_min, h0, beta, max_steps):
    """The published loop for one image, with the tracked level for non-blind denoisers.

    The sample, NaN where the path did not converge, and its steps.
    """
    y, tracked, sigma, t = mean + sigma_max * z0[None], sigma_max, math.inf, 0
    while t < max_steps:
        t += 1
        h = h0 * t / (1 + h0 * (t - 1))
        d = denoiser(y, tracked) - y
        sigma = (d.norm() / math.sqrt(d.numel())).item()
        gamma = math.sqrt((1 - beta * h) ** 2 - (1 - h) ** 2) * sigma
        y = y + h * d + gamma * noise([seed], tuple(z0.shape), t).to(y)
        tracked = (1 - beta * h) * tracked
        if not sigma_min < sigma <= 2:
            break
    x_hat = denoiser(y, tracked)[0]
    return (x_hat if sigma <= sigma_min else torch.full_like(x_hat, math.nan)), t


@pytest.mark.parametrize("denoiser", [gaussian(), Blind(), Empirical.of(start(5, (1, 3, 4), 3))])
@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0])
def test_reverse_diffusion_is_the_published_loop(denoiser, beta):
    z, seeds = start(6, (1, 3, 4)), [4, 8, 15, 16, 23, 42]
    options = {
        "mean": 0.3, "sigma_max": 1.1, "sigma_min": 0.02, "h0": 0.05, "beta": beta,
        "max_steps": 60,
    }  # fmt: skip
    left = []
    found = reverse_diffusion(
        denoiser, z, seeds=seeds, callback=lambda t, sigma, y: left.append(len(y)), **options
    )
    alone = [one_image(denoiser, y, seed, **options) for y, seed in zip(z, seeds, strict=True)]
    samples, steps = zip(*alone, strict=True)
    torch.testing.assert_close(found, torch.stack(samples), equal_nan=True, **CLOSE)
    assert left == [sum(t < taken for taken in steps) for t in range(max(steps))]


def test_images_stop_on_their_own_in_any_batch():
    denoiser, seeds = Empirical.of(start(5, (1, 3, 4), 3).float()), list(range(8))
    z = start(8, (1, 3, 4)).float()
    options = {"h0": 0.05, "beta": 0.3, "sigma_min": 0.05}
    left = []
    together = reverse_diffusion(
        denoiser, z, seeds=seeds, callback=lambda t, sigma, y: left.append(len(y)), **options
    )
    assert len(set(left)) > 2
    for pick in ([3], [5, 1], [7, 6, 5, 4]):
        part = reverse_diffusion(denoiser, z[pick], seeds=[seeds[i] for i in pick], **options)
        # float32 rounding in sums over the images of another batch
        torch.testing.assert_close(part, together[pick], rtol=1e-5, atol=1e-5)


def test_non_blind_denoisers_get_the_tracked_level():
    """``sigma <- (1 - beta h) sigma`` from sigma_max; the last estimate, at the level reached."""
    levels = []

    def watching(y, sigma):
        levels.append(torch.as_tensor(sigma, dtype=torch.float64))
        return torch.zeros_like(y)  # never below the stopping level

    h0, beta, steps = 0.2, 0.5, 5
    reverse_diffusion(
        watching, 0.5 * torch.ones(2, 1, 2, 2), seeds=[0, 1], h0=h0, beta=beta, max_steps=steps
    )
    expected = [1.0]
    for t in range(1, steps + 1):
        expected.append(expected[-1] * (1 - beta * h0 * t / (1 + h0 * (t - 1))))
    check, *inner, last = levels
    assert check.tolist() == [1.0]
    for level, exact in zip([*inner, last], expected, strict=True):
        assert level.tolist() == pytest.approx([exact] * 2)


@pytest.mark.parametrize("factor", [math.nan, math.inf, 50.0])
def test_images_that_run_away_leave_the_others_alone(factor):
    """Some images go wrong at low noise, by their own content."""
    base = gaussian()

    def denoiser(y, sigma):
        bad = (y[:, :1, :1, :1] < base.mean[0, 0, 0]) & (column(sigma, y) < 0.3)
        return torch.where(bad, y * factor + factor, base(y, sigma))

    z, seeds = start(12, (1, 3, 4)), list(range(12))
    found = reverse_diffusion(denoiser, z, seeds=seeds, mean=base.mean, beta=0.3)
    good = reverse_diffusion(base, z, seeds=seeds, mean=base.mean, beta=0.3)
    assert torch.isfinite(good).all()
    lost = torch.isnan(found).flatten(1).all(1)
    assert 0 < lost.sum() < 12
    torch.testing.assert_close(found[~lost], good[~lost], **CLOSE)


def test_a_large_first_level_is_not_a_runaway():
    base = gaussian()
    z = start(4, (1, 3, 4))
    found = reverse_diffusion(base, z, seeds=range(4), mean=base.mean, sigma_max=5.0, beta=0.3)
    assert torch.isfinite(found).all()


def test_too_few_steps_are_not_converged():
    base = gaussian()
    seen = []
    found = reverse_diffusion(
        base,
        start(2, (1, 3, 4)),
        seeds=[0, 1],
        max_steps=3,
        callback=lambda step, sigma, y: seen.append((step, len(y))),
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert torch.isnan(found).all()


def test_gaussian_samples_have_the_moments_of_the_recursion():
    """The mean energy m of pixels with variance v and mean zero follows the recursion exactly.

    ``d = -s y`` with ``s = tracked^2 / (v + tracked^2)``, so ``sigma_t^2`` is s^2 times the mean
    square of y and ``m <- ((1 - h s)^2 + gamma_h^2 s^2) m`` in expectation, from ``sigma_max^2``.
    """
    v, steps, h0, beta, count, d = 0.09, 40, 0.1, 0.4, 400, 64
    denoiser = Wiener(torch.zeros(1, 8, 8, dtype=torch.float64), torch.tensor(v).double())
    z = start(count, (1, 8, 8))
    found = reverse_diffusion(  # until nothing moves, within `steps`
        denoiser, z, seeds=range(count), h0=h0, beta=beta, sigma_min=1e-9, max_steps=steps
    )
    m, tracked = 1.0, 1.0
    for t in range(1, steps + 1):
        h = h0 * t / (1 + h0 * (t - 1))
        s = tracked**2 / (v + tracked**2)
        m = m * ((1 - h * s) ** 2 + ((1 - beta * h) ** 2 - (1 - h) ** 2) * s**2)
        tracked *= 1 - beta * h
    m *= (v / (v + tracked**2)) ** 2
    energies = found.square().flatten(1).mean(1)
    # 4 standard errors of a mean over independent images.
    assert abs(energies.mean() - m) < 4 * energies.std() / math.sqrt(count)
    assert abs(found.mean()) < 4 * math.sqrt(m / (count * d))
    assert energies.std() / m < 0.5  # so that the first bound says something


@pytest.mark.parametrize(
    "options",
    [
        {"h0": 0}, {"h0": 1.1}, {"beta": 0}, {"beta": 2}, {"sigma_min": 1.0}, {"max_steps": 0},
    ],
)  # fmt: skip
def test_impossible_parameters_are_refused(options):
    with pytest.raises(ValueError, match="need"):
        reverse_diffusion(gaussian(), start(2, (1, 3, 4)), seeds=[0, 1], **options)


def test_a_denoiser_that_breaks_the_contract_is_refused():
    with pytest.raises(ValueError, match="must return"):
        reverse_diffusion(lambda y, sigma: y[..., :1], start(2, (1, 3, 4)), seeds=[0, 1])
