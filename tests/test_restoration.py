"""Measurements and their adjoints; posterior samples of Gaussian data against the exact law."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import random as sparse_random
from scipy.sparse.linalg import aslinearoperator

from twinscore import sampling
from twinscore.denoisers.closed_form import Gaussian
from twinscore.denoisers.layers import generator_of
from twinscore.sampling import (
    Solves,
    completed,
    conditioned,
    dpm,
    inconsistency,
    operators,
    probability_flow,
    projected,
    reverse_diffusion,
)

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

SHAPE = (1, 4, 6)
D = math.prod(SHAPE)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def half_mask(shape):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[:, :, : shape[2] // 2] = True
    return mask


def blur(shape):
    """Weighted sums of three neighbours along a row: not orthonormal."""
    kernel = torch.tensor([0.25, 0.5, 0.25]).view(1, 1, 1, 3)

    def measure(x):
        rows = x.reshape(-1, 1, *shape[1:])
        return torch.nn.functional.conv2d(rows, kernel.to(x), padding=(0, 1)).reshape(len(x), -1)

    def adjoint(m):
        return measure(m.view(-1, *shape)).view(-1, *shape)

    return operators.from_callables(measure, adjoint, shape)


def scipy_operator(shape):
    generator = np.random.default_rng(0)
    matrix = sparse_random(7, math.prod(shape), density=0.4, rng=generator)
    return operators.from_scipy(aslinearoperator(matrix.tocsr()), shape)


TASKS = {
    "inpainting": lambda shape: operators.inpainting(half_mask(shape)),
    "random pixels": lambda shape: operators.random_pixels(shape, 0.3, seed=1),
    "super-resolution": lambda shape: operators.super_resolution(shape, 2),
    "deblurring": lambda shape: operators.spectral_deblurring(shape, 0.3),
    "compressive sensing": lambda shape: operators.compressive_sensing(shape, 0.3, seed=2),
}
ALL = TASKS | {"blur": blur, "scipy": scipy_operator}


def matrix_of(operator):
    return operator.measure(torch.eye(D, dtype=torch.float64).view(D, *SHAPE)).T


# Operators -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(TASKS)),
    channels=st.sampled_from([1, 3]),
    height=st.sampled_from([2, 4, 6]),
    width=st.sampled_from([4, 6, 10]),
    seed=st.integers(0, 99),
)
def test_every_task_is_orthonormal_and_adjoint(name, channels, height, width, seed):
    shape = (channels, height, width)
    operator = TASKS[name](shape)
    x, u = normal(2, *shape, seed=seed), normal(2, operator.size, seed=seed + 1)
    assert operator.measure(x).shape == u.shape
    assert operator.orthonormal
    torch.testing.assert_close(
        (operator.measure(x) * u).sum(1), (x * operator.adjoint(u)).flatten(1).sum(1), **CLOSE
    )
    torch.testing.assert_close(operator.measure(operator.adjoint(u)), u, **CLOSE)


def test_what_is_measured_is_what_the_name_says():
    x = normal(2, 3, 4, 6)
    low = operators.super_resolution((3, 4, 6), 2)
    means = torch.nn.functional.avg_pool2d(x, 2).flatten(1)
    torch.testing.assert_close(low.measure(x), 2 * means, **CLOSE)
    mask = half_mask((3, 4, 6))
    torch.testing.assert_close(operators.inpainting(mask).measure(x), x[:, mask], **CLOSE)
    some = operators.random_pixels((3, 4, 6), 0.25, seed=3)
    kept = some.adjoint(some.measure(torch.ones(1, 3, 4, 6)))[0]
    assert kept.sum((1, 2)).tolist() == [6, 6, 6]
    assert torch.equal(kept[0], kept[1])
    smooth = operators.spectral_deblurring((3, 4, 6), 0.4)
    blurred = smooth.adjoint(smooth.measure(x))
    spectrum, kept = torch.fft.fft2(x), torch.fft.fft2(blurred)
    same = (kept - spectrum).abs() < 1e-9
    assert (same | (kept.abs() < 1e-9)).all()  # an ideal low-pass: every frequency or none of it
    assert same[:, :, 0, 0].all()


def test_pairs_that_are_not_adjoint_are_refused_with_the_discrepancy():
    operator = TASKS["super-resolution"](SHAPE)
    with pytest.raises(ValueError, match=r"not a pair: .* differ by \d"):
        operators.from_callables(operator.measure, lambda m: 2 * operator.adjoint(m), SHAPE)
    with pytest.raises(ValueError, match="measure must return"):
        operators.from_callables(lambda x: x, operator.adjoint, SHAPE)
    with pytest.raises(ValueError, match="adjoint must return"):
        operators.from_callables(operator.measure, lambda m: m, SHAPE)
    with pytest.raises(ValueError, match="takes 24 numbers, images have 25"):
        operators.from_scipy(aslinearoperator(np.eye(24)), (1, 5, 5))
    found = operators.from_callables(operator.measure, operator.adjoint, SHAPE)
    assert found.orthonormal
    assert not blur(SHAPE).orthonormal


def test_measurements_that_leave_nothing_or_everything_are_refused():
    with pytest.raises(ValueError, match="nothing is measured"):
        operators.inpainting(torch.zeros(SHAPE, dtype=torch.bool))
    with pytest.raises(ValueError, match="everything is measured"):
        operators.inpainting(torch.ones(SHAPE, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask must be bool"):
        operators.inpainting(torch.zeros(SHAPE))
    for make in (
        operators.random_pixels,
        operators.spectral_deblurring,
        operators.compressive_sensing,
    ):
        for fraction in (0.0, 1.0):
            with pytest.raises(ValueError, match="fraction"):
                make(SHAPE, fraction)
    for factor in (1, 3):
        with pytest.raises(ValueError, match="factor"):
            operators.super_resolution(SHAPE, factor)


# The published rule ----------------------------------------------------------------------------


def gaussian():
    root = normal(D, D, seed=1) / math.sqrt(D)
    covariance = 0.2 * root @ root.T + 0.01 * torch.eye(D, dtype=torch.float64)
    return Gaussian.of(0.5 + 0.1 * normal(*SHAPE, seed=2), covariance)


@pytest.mark.parametrize("name", TASKS)
def test_the_published_recursion_step_by_step(name):
    """docs/formulas.md#restoration; the tracked level for a denoiser that is not blind."""
    form, operator, count = gaussian(), TASKS[name](SHAPE), 3
    m = operator.measure(form.draw(normal(1, *SHAPE, seed=3)))
    h0, beta, top, bottom = 0.1, 0.3, 1.0, 0.05
    z, left = sampling.noise(range(count), SHAPE).double(), []
    found = reverse_diffusion(
        projected(form, operator, m), z, seeds=range(count), h0=h0, beta=beta, sigma_min=bottom,
        mean=completed(operator, m, form.mean), callback=lambda t, s, y: left.append(len(y)),
    )  # fmt: skip
    a = matrix_of(operator)
    mm, taken = a.T @ a, []
    for i in range(count):
        y = (form.mean.flatten() - mm @ form.mean.flatten() + a.T @ m[0]) + top * z[i].flatten()
        sigma, tracked, t = math.inf, top, 0
        while sigma > bottom:
            t += 1
            h = h0 * t / (1 + h0 * (t - 1))
            f = form(y.view(1, *SHAPE), tracked).flatten()
            d = (f - y) - mm @ (f - y) + a.T @ (m[0] - a @ y)
            sigma = d.norm().item() / math.sqrt(D)
            gamma = math.sqrt((1 - beta * h) ** 2 - (1 - h) ** 2) * sigma
            y = y + h * d + gamma * sampling.noise([i], SHAPE, t).double().flatten()
            tracked *= 1 - beta * h
        taken.append(t)
        f = form(y.view(1, *SHAPE), tracked).flatten()
        torch.testing.assert_close(
            found[i].flatten(), f + a.T @ (m[0] - a @ f), rtol=1e-7, atol=1e-7
        )
    assert sum(left) == sum(taken)
    assert inconsistency(operator, found, m).max() < 1e-9


# The covariance-aware rule ---------------------------------------------------------------------


def posterior(form, a, m, tau):
    """Mean and covariance of ``x`` given ``m = A x + tau n`` for Gaussian x."""
    covariance = (form.components * form.variances) @ form.components.T
    system = a @ covariance @ a.T + tau**2 * torch.eye(len(a), dtype=a.dtype)
    gain = covariance @ a.T @ torch.linalg.inv(system)
    mean = form.mean.flatten() + gain @ (m[0] - a @ form.mean.flatten())
    return mean, covariance - gain @ a @ covariance


@pytest.mark.parametrize("tau", [0.0, 0.1])
@pytest.mark.parametrize("name", ALL)
def test_the_conditioned_denoiser_is_the_exact_one_of_the_posterior(name, tau):
    form, operator = gaussian(), ALL[name](SHAPE)
    a = matrix_of(operator)
    m = operator.measure(form.draw(normal(1, *SHAPE, seed=3)))
    if tau:
        m = m + tau * normal(1, operator.size, seed=4)
    solves = Solves([])
    found = conditioned(
        form, operator, m, noise_level=tau, iterations=200, tolerance=1e-12, solves=solves
    )
    mean, covariance = posterior(form, a, m, tau)
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    exact = Gaussian(mean.view(SHAPE), values.clamp_min(0), vectors)
    y = normal(4, *SHAPE, seed=5)
    for sigma in (0.1, 0.7, torch.tensor([0.1, 0.3, 1.0, 2.0], dtype=torch.float64)):
        torch.testing.assert_close(found(y, sigma), exact(y, sigma), rtol=1e-6, atol=1e-6)
    assert max(solves.residuals) < 1e-11


@pytest.mark.parametrize("tau", [0.0, 0.1])
@pytest.mark.parametrize("name", TASKS)
def test_its_samples_have_the_conditional_mean_and_covariance(name, tau):
    form, operator, count, low = gaussian(), TASKS[name](SHAPE), 2000, 0.02
    a = matrix_of(operator)
    m = operator.measure(form.draw(normal(1, *SHAPE, seed=3)))
    mean, covariance = posterior(form, a, m, tau)
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    values = values.clamp_min(0)
    start = mean + (normal(count, D, seed=6) * (values + 1).sqrt()) @ vectors.T
    found = probability_flow(
        conditioned(form, operator, m, noise_level=tau, iterations=100, tolerance=1e-9),
        start.view(count, *SHAPE), steps=40, sigma_min=low, solver=dpm,
    )  # fmt: skip
    modes = (found.flatten(1) - mean) @ vectors
    final = values**2 / (values + low**2)  # the last estimate shrinks once more
    # 4 standard errors, and 1 % for the steps of the flow.
    allowed = 4 * (final / count).sqrt() + 1e-6
    assert (modes.mean(0).abs() < allowed).all()
    error = (modes.var(0) - final).abs()
    assert (error < (4 * math.sqrt(2 / count) + 0.01) * final + 1e-9).all()
    if tau == 0:
        assert inconsistency(operator, found, m).max() < 1e-4


def test_conjugate_gradients_say_when_they_did_not_get_there():
    form, operator = gaussian(), TASKS["compressive sensing"](SHAPE)
    m = operator.measure(form.draw(normal(1, *SHAPE, seed=3)))
    solves = Solves([])
    conditioned(form, operator, m, iterations=1, solves=solves)(normal(2, *SHAPE), 0.1)
    assert solves.residuals[0] > 0.01


def test_restoration_refuses_what_does_not_fit():
    form, operator = gaussian(), TASKS["inpainting"](SHAPE)
    m = operator.measure(form.draw(normal(1, *SHAPE)))
    for function in (projected, conditioned):
        with pytest.raises(ValueError, match=r"measurement must be \(B, 12\), got \(1, 11\)"):
            function(form, operator, m[:, 1:])
    with pytest.raises(ValueError, match="A A' = I"):
        projected(form, blur(SHAPE), blur(SHAPE).measure(form.mean[None]))
    with pytest.raises(ValueError, match="need noise_level"):
        conditioned(form, operator, m, noise_level=-1.0)
