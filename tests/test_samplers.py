"""Every sampler: the one signature, its own exact recursion, its order, and the densities."""

import inspect
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore import sampling
from twinscore.denoisers.closed_form import Gaussian, GaussianMixture
from twinscore.denoisers.layers import generator_of
from twinscore.sampling import (
    ancestral,
    dpm,
    encode,
    euler,
    heun,
    langevin_corrected,
    log_density,
    noise_levels,
    probability_flow,
    reverse_diffusion,
    round_trip_error,
)

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

SHAPE = (3, 1, 2)  # colour
D = math.prod(SHAPE)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def gaussian():
    root = normal(D, D, seed=1) / math.sqrt(D)
    return Gaussian.of(0.5 + 0.1 * normal(*SHAPE, seed=2), 0.3 * root @ root.T)


def mixture():
    means = torch.stack([torch.full(SHAPE, 0.2), torch.full(SHAPE, 0.8)]).double()
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    return GaussianMixture.of(weights, means, 0.01 * torch.eye(D, dtype=torch.float64))


def exact_flow(form, y, sigma, after):
    """Each principal component is scaled by ``sqrt((v + after^2) / (v + sigma^2))``."""
    factor = ((form.variances + after**2) / (form.variances + sigma**2)).sqrt()
    deviation = ((y - form.mean).flatten(1) @ form.components) * factor
    return form.mean + (deviation @ form.components.T).view_as(y)


# One signature ---------------------------------------------------------------------------------


def parameters(function):
    return list(inspect.signature(function).parameters.values())


SAMPLERS = [
    f
    for f in (getattr(sampling, name) for name in sampling.__all__)
    if inspect.isfunction(f) and [p.name for p in parameters(f)[:2]] == ["denoiser", "noise"]
]
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def test_these_are_the_samplers():
    assert set(SAMPLERS) == {probability_flow, ancestral, langevin_corrected, reverse_diffusion}


@every_sampler
def test_every_sampler_has_the_one_signature(sampler):
    shared, found = parameters(sampling.Sampler.__call__)[1:], parameters(sampler)
    common, own = found[: len(shared)], found[len(shared) :]
    assert [(p.name, p.kind) for p in common] == [(p.name, p.kind) for p in shared]
    assert [p.default for p in common[3:]] == [p.default for p in shared[3:]]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in own)
    assert inspect.signature(sampler).return_annotation is torch.Tensor


@every_sampler
def test_a_lost_path_is_nan_and_leaves_the_others_alone(sampler):
    """Also where a denoiser makes something finite of a path that is not."""
    form, z = gaussian(), normal(12, *SHAPE)

    def denoiser(y, sigma):
        level = torch.as_tensor(sigma).view(-1, 1, 1, 1)
        bad = (y[:, :1, :1, :1] > form.mean[0, 0, 0]) & (level > 0.05) & (level < 0.1)
        return torch.where(bad, math.inf, form(y, sigma).nan_to_num())

    found, good = (sampler(f, z, seeds=range(12), mean=form.mean) for f in (denoiser, form))
    lost = torch.isnan(found).flatten(1).any(1)
    assert 0 < lost.sum() < 12
    assert torch.isnan(found[lost]).all()
    torch.testing.assert_close(found[~lost], good[~lost], **CLOSE)


@every_sampler
@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(4)))
def test_a_seed_gives_the_same_bits_in_batches_of_one_size(sampler, order):
    own = {"padded": True, "h0": 0.1, "beta": 0.5} if sampler is reverse_diffusion else {}
    seeds = [5, 3, 9, 7]

    def drawn(seeds):
        z = sampling.noise(seeds, SHAPE)
        shrinkage = lambda y, sigma: y * 0.1 / (0.1 + sigma.view(-1, 1, 1, 1) ** 2)  # noqa: E731
        return sampler(shrinkage, z, seeds=seeds, **own)

    assert torch.equal(drawn([seeds[i] for i in order]), drawn(seeds)[order])


@every_sampler
def test_a_seed_gives_its_image_in_any_batch(sampler):
    form, seeds = mixture(), [5, 3, 9, 7]
    z = sampling.noise(seeds, SHAPE)
    together = sampler(form, z, seeds=seeds, mean=0.5)
    for pick in ([2], [3, 0]):
        part = sampler(form, z[pick], seeds=[seeds[i] for i in pick], mean=0.5)
        torch.testing.assert_close(part, together[pick], rtol=1e-4, atol=1e-4)


@every_sampler
@pytest.mark.parametrize("options", [{"seeds": [0]}, {"sigma_min": 2.0}, {"sigma_min": 0.0}])
def test_every_sampler_refuses_what_none_can_do(sampler, options):
    with pytest.raises(ValueError, match="need"):
        sampler(gaussian(), normal(2, *SHAPE), **({"seeds": [0, 1]} | options))


# The order of a solver -------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [1.0, 7.0, math.inf])
@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2), (dpm, 2)])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_solvers_converge_to_the_exact_flow_at_their_order(solver, order, rho, direction):
    form, high, low = gaussian(), 1.5, 0.1
    start, end = (high, low) if direction == "down" else (low, high)
    y = form.mean + normal(4, *SHAPE, seed=3)
    exact = exact_flow(form, y, start, end)
    errors = []
    for steps in (129, 257, 513):
        levels = noise_levels(steps, high, low, rho)
        found = solver(form, y, levels if direction == "down" else levels[::-1])
        errors.append((found - exact).norm().item())
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver", [euler, heun, dpm])
def test_a_step_towards_a_single_image_is_exact(solver):
    """A constant estimate makes the path a straight line, which every solver follows."""
    image, y = normal(1, *SHAPE), normal(3, *SHAPE, seed=1)
    found = solver(lambda y, sigma: image.expand_as(y), y, noise_levels(5, 2.0, 0.1))
    torch.testing.assert_close(found, image + 0.05 * (y - image), **CLOSE)


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2), (dpm, 2)])
def test_the_round_trip_error_falls_at_the_solver_order(solver, order):
    form = mixture()
    images = form.draw(normal(4, *SHAPE, seed=3), torch.tensor([0.1, 0.2, 0.5, 0.9]).double())
    errors = [
        round_trip_error(form, images, levels=noise_levels(steps, 1.0, 0.05), solver=solver).max()
        for steps in (129, 257, 513)
    ]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) > order - 0.25


def test_encoding_finds_the_noise_that_sampling_started_from():
    form, z, steps = mixture(), normal(6, *SHAPE, seed=4), 400
    levels = noise_levels(steps, 1.0, 0.05)
    y = heun(form, 0.5 + z, levels)
    found = encode(form, y, mean=0.5, steps=steps, sigma_max=1.0, sigma_min=0.05)
    torch.testing.assert_close(found, z, rtol=1e-3, atol=1e-3)  # second order, 400 steps
    again = probability_flow(
        form, found, mean=0.5, steps=steps, sigma_max=1.0, sigma_min=0.05, solver=heun
    )
    torch.testing.assert_close(again, form(y, 0.05), rtol=1e-3, atol=1e-3)


# Stochastic samplers ---------------------------------------------------------------------------


def recursion(form, sampler, variance, levels, *, eta=1.0, corrections=1, size=0.1):
    """Variance of each principal component at the end, and the factor on its mean's deviation."""
    shrinkage = lambda s: form.variances / (form.variances + s**2)  # noqa: E731
    factor = torch.ones_like(variance)
    for sigma, after in pairwise(levels):
        up = down = 0.0
        if sampler is ancestral:
            up = eta * after * math.sqrt(1 - (after / sigma) ** 2)
        down = math.sqrt(after**2 - up**2)
        a = shrinkage(sigma) + down / sigma * (1 - shrinkage(sigma))
        variance, factor = a**2 * variance + up**2, a * factor
        if sampler is langevin_corrected:
            for _ in range(corrections):
                a = 1 - size + size * shrinkage(after)
                variance, factor = a**2 * variance + 2 * size * after**2, a * factor
    a = shrinkage(levels[-1])
    return a**2 * variance, a * factor


OPTIONS = [
    (ancestral, {}),
    (ancestral, {"eta": 0.5}),
    (langevin_corrected, {}),
    (langevin_corrected, {"corrections": 3, "size": 0.4}),
]


@pytest.mark.parametrize(("sampler", "options"), OPTIONS)
def test_gaussian_samples_follow_the_recursion_of_each_component(sampler, options):
    form, count, schedule = gaussian(), 4000, (8, 1.2, 0.05)
    z = sampling.noise(range(count), SHAPE).double()
    found = sampler(
        form, z, seeds=range(count), mean=0.2, steps=8, sigma_max=1.2, sigma_min=0.05, **options
    )
    start = torch.full_like(form.variances, 1.2**2)
    variance, factor = recursion(form, sampler, start, noise_levels(*schedule), **options)
    offset = (0.2 - form.mean).flatten() @ form.components
    modes = (found - form.mean).flatten(1) @ form.components
    assert ((modes.mean(0) - factor * offset).abs() < 4 * (variance / count).sqrt()).all()
    assert ((modes.var(0) / variance - 1).abs() < 4 * math.sqrt(2 / count)).all()


@pytest.mark.parametrize(("sampler", "options"), OPTIONS)
def test_the_recursion_converges_to_the_covariance(sampler, options):
    """From the exact law at sigma_max, to the law of the estimate at sigma_min."""
    form, high, low = gaussian(), 1.2, 0.05
    exact = form.variances**2 / (form.variances + low**2)
    errors = []
    for steps in (400, 800, 1600):
        finer = options | ({"size": 40 / steps} if sampler is langevin_corrected else {})
        levels = noise_levels(steps, high, low)
        variance, _ = recursion(form, sampler, form.variances + high**2, levels, **finer)
        errors.append((variance - exact).norm().item())
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(1, abs=0.15)


def test_without_renewal_or_correction_there_is_only_the_flow():
    form, z = mixture(), normal(4, *SHAPE)
    flow = probability_flow(form, z, mean=0.5, steps=20, solver=euler)
    options = {"seeds": range(4), "mean": 0.5, "steps": 20}
    torch.testing.assert_close(ancestral(form, z, eta=0.0, **options), flow, **CLOSE)
    torch.testing.assert_close(langevin_corrected(form, z, corrections=0, **options), flow, **CLOSE)


# Mixtures --------------------------------------------------------------------------------------


def from_the_exact_law(form, count, sigma_max):
    u = torch.rand(count, generator=generator_of(5), dtype=torch.float64)
    x = form.draw(normal(count, *SHAPE, seed=6), u)
    return x / sigma_max + sampling.noise(range(count), SHAPE).double()


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (probability_flow, {"solver": dpm}),
        (probability_flow, {"solver": heun}),
        (ancestral, {"steps": 200}),
        (langevin_corrected, {"steps": 100}),
    ],
)
def test_modes_keep_their_weights(sampler, options):
    form, count = mixture(), 3000
    start = from_the_exact_law(form, count, 2.0)
    found = sampler(form, start, seeds=range(count), sigma_max=2.0, **options)
    share = (found.flatten(1).mean(1) < 0.5).double().mean().item()
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / count)


def test_the_log_density_is_the_exact_one():
    form, high, low = mixture(), 1.0, 0.1
    images = form.draw(normal(5, *SHAPE, seed=3), torch.linspace(0, 0.99, 5).double())
    images = images + low * normal(5, *SHAPE, seed=4)
    exact = form.log_density(images, low)
    errors = []
    for steps in (10, 20, 40):
        found = log_density(
            form,
            images,
            lambda y: form.log_density(y, high),
            sigma_max=high,
            sigma_min=low,
            steps=steps,
        )
        errors.append((found - exact).abs().max().item())
    assert errors[-1] < 1e-5
    assert math.log2(errors[0] / errors[1]) > 3.5  # order 4
    assert math.log2(errors[1] / errors[2]) > 3.5


def test_random_probes_estimate_the_log_density():
    """Exact if the denoiser shrinks all pixels equally; unbiased and less variable than 1 nat."""
    form = GaussianMixture.of(
        torch.ones(1).double(), torch.full((1, *SHAPE), 0.5).double(), 0.2 * torch.eye(D).double()
    )
    y = normal(3, *SHAPE, seed=7)
    prior = lambda y: form.log_density(y, 1.0)  # noqa: E731
    exact = log_density(form, y, prior)
    torch.testing.assert_close(log_density(form, y, prior, probes=2), exact, **CLOSE)


def test_probes_are_each_images_own_in_any_batch():
    form = gaussian()
    one, other = normal(2, *SHAPE, seed=7).split(1)
    prior = lambda y: form.log_density(y, 1.0)  # noqa: E731

    def found(y, *seeds):
        return log_density(form, y, prior, steps=4, probes=1, seeds=seeds)

    alike = found(one.expand(2, *SHAPE), 0, 1)
    assert (alike[0] - alike[1]).abs() > 1e-3  # the same image, its trace by other signs
    together = found(torch.cat([one, other]), 3, 4)
    torch.testing.assert_close(together, torch.cat([found(one, 3), found(other, 4)]), **CLOSE)


# Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (ancestral, {"eta": 1.5}),
        (langevin_corrected, {"size": 0.0}),
        (langevin_corrected, {"corrections": -1}),
        (langevin_corrected, {"steps": 0}),
    ],
)
def test_impossible_parameters_are_refused(sampler, options):
    with pytest.raises(ValueError, match="need"):
        sampler(gaussian(), normal(2, *SHAPE), **({"seeds": [0, 1]} | options))
    with pytest.raises(ValueError, match="need"):
        log_density(gaussian(), normal(2, *SHAPE), lambda y: y, sigma_min=2.0)
