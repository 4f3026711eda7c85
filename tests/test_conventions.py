"""Conventions: a denoiser written in each of them is itself again, and every wrong name is told."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.analysis import calibration
from twinscore.denoisers import NetworkSpec, adapters, build, load
from twinscore.denoisers.adapters import CONVENTIONS, RANGES, converted, linear_table, tabulated
from twinscore.training import TrainingSpec, fit

SIGMAS = (0.05, 0.2, 0.5, 1.0, 2.0)
TABLE = [values.numpy() for values in linear_table()]


def level(sigma):
    return sigma.view(-1, 1, 1, 1)


def between(x, points, values):
    return torch.from_numpy(np.interp(x.numpy(), points, values)).to(x)


def of_time(t):
    """Noise level of a time of the linear schedule."""
    return level(between(t, TABLE[1], np.log(TABLE[0])).exp())


def vp(clean, output):
    def network(x, t):
        sigma = of_time(t)
        y = x * torch.sqrt(1 + sigma**2)
        return output(clean(y, sigma.flatten()), y, sigma)

    return network


def velocity(x0, y, sigma):
    """Salimans and Ho 2022: ``alpha eps - sigma x0`` with ``alpha^2 + sigma^2 = 1``."""
    alpha = 1 / torch.sqrt(1 + sigma**2)
    return alpha * (y - x0) / sigma - torch.sqrt(1 - alpha**2) * x0


def flow(clean):
    def network(x, t):
        s = level(t) / 1000
        y, sigma = x / (1 - s), s / (1 - s)
        x0 = clean(y, sigma.flatten())
        return (y - x0) / sigma - x0

    return network


def edm(clean, sign=1, data=0.5):
    def network(x, t):
        sigma = level(torch.exp(4 * t))
        y = x * torch.sqrt(sigma**2 + data**2)
        rest = clean(y, sigma.flatten()) - data**2 / (sigma**2 + data**2) * y
        return sign * rest * torch.sqrt(sigma**2 + data**2) / (sigma * data)

    return network


def trigflow(clean, data=0.5):
    def network(x, t):
        t, x_t = level(t), data * x
        x0 = clean(x_t / torch.cos(t), (data * torch.tan(t)).flatten())
        z = (x_t - torch.cos(t) * x0) / torch.sin(t)
        return (torch.cos(t) * z - torch.sin(t) * x0) / data

    return network


WRITTEN = {
    "epsilon": lambda f: vp(f, lambda x0, y, s: (y - x0) / s),
    "sample": lambda f: vp(f, lambda x0, y, s: x0),
    "velocity": lambda f: vp(f, velocity),
    "flow": flow,
    "edm": edm,
    "edm-velocity": lambda f: edm(f, -1),
    "trigflow": trigflow,
    "score": lambda f: lambda y, s: (f(y, s) - y) / level(s) ** 2,
    "noise": lambda f: lambda y, s: (y - f(y, s)) / level(s),
    "residual": lambda f: lambda y, s: y - f(y, s),
    "denoised": lambda f: lambda y, s: f(y, s),
}
"""The network that a denoiser is, written from the definition of what is predicted."""


def in_range(f, low, high):
    """The same denoiser for images of another range."""
    width = high - low
    return lambda y, sigma: low + width * f((y - low) / width, sigma / width)


def closed_form(dtype):
    exact = load("gaussian:digits").denoiser
    return lambda y, sigma: exact(y.to(dtype), sigma.to(dtype))


@pytest.fixture(scope="module")
def trained(fabric):
    """A small network, trained here."""
    digits = images.load("digits")[:400]
    spec = TrainingSpec(steps=150, batch=32, evaluations=1)
    network = build(NetworkSpec(width=12, levels=1), 1, seed=0)
    network = fit(network, digits, spec, seed=1, fabric=fabric).eval()
    return lambda y, sigma: network(y)


def test_every_convention_is_tested():
    assert WRITTEN.keys() == CONVENTIONS.keys()


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=8, deadline=None)
@given(
    sigmas=st.lists(st.floats(math.log(0.01), math.log(50)), min_size=2, max_size=2),
    ends=st.sampled_from([*RANGES, (-0.5, 2.5)]),
    seed=st.integers(0, 2**30),
)
def test_a_closed_form_written_in_a_convention_is_itself(name, sigmas, ends, seed):
    check_itself(closed_form(torch.float64), name, torch.tensor(sigmas).double().exp(), ends, seed)


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=4, deadline=None)
@given(sigmas=st.lists(st.floats(math.log(0.02), math.log(20)), min_size=2, max_size=2))
def test_a_trained_network_written_in_a_convention_is_itself(trained, name, sigmas):
    with torch.no_grad():
        check_itself(trained, name, torch.tensor(sigmas).exp(), RANGES[0], seed=3)


def check_itself(f, name, sigma, ends, seed):
    """To 1e-5 of the noise in float32, as issue and documentation promise; 1e-9 in float64."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, 1, 8, 8, generator=generator, dtype=sigma.dtype)
    y = images.load("digits")[:2].to(sigma) + level(sigma) * z
    network = WRITTEN[name](in_range(f, *ends))
    found = converted(network, name, low=ends[0], high=ends[1])(y, sigma)
    tolerance = 1e-5 if sigma.dtype == torch.float32 else 1e-9
    error = (found - f(y, sigma)).abs().flatten(1).amax(1)
    assert (error < tolerance * sigma.clamp(min=1)).all()


def test_times_are_those_of_the_table_and_interpolated_in_the_log_of_the_level():
    sigmas, times = linear_table()
    time = tabulated(sigmas, times)
    torch.testing.assert_close(time(sigmas), times)
    middle = torch.sqrt(sigmas[1:] * sigmas[:-1])
    torch.testing.assert_close(time(middle), times[:-1] + 0.5)
    torch.testing.assert_close(time(torch.tensor([1e-9, 1e9])), torch.tensor([0.0, 999.0]))
    ends = torch.tensor([0.0, *sigmas[::100], math.inf]).flip(0)
    cut = tabulated(ends, torch.arange(12).flip(0))
    torch.testing.assert_close(cut(sigmas[100:101]), torch.tensor([2.0]).double())


@pytest.mark.parametrize(
    ("sigmas", "times", "says"),
    [
        ([1.0, 2.0], [0.0], "as many times as levels; got 1, 2"),
        ([1.0, 1.0], [0.0, 1.0], "two different noise levels or more"),
        ([0.0, 1.0], [0.0, 1.0], "two different noise levels or more"),
    ],
)
def test_a_table_that_is_none_is_refused(sigmas, times, says):
    with pytest.raises(ValueError, match=says):
        tabulated(sigmas, times)


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"'v' is not a convention of denoisers: give one of eps"):
        converted(lambda x, t: x, "v")
    with pytest.raises(ValueError, match="returns one sample that fits the noisy image, not the"):
        converted(lambda x, t: x, "consistency")
    with pytest.raises(ValueError, match="low must be below high; got 1 and 0"):
        converted(lambda x, t: x, "edm", low=1, high=0)


def test_the_deviation_of_the_data_may_be_another():
    f, sigma = closed_form(torch.float64), torch.tensor([0.1, 3.0]).double()
    y = images.load("digits")[:2].double() + level(sigma)
    for made, written in ((adapters.edm, edm), (adapters.trigflow, trigflow)):
        network = written(f, data=0.3)
        found = converted(network, made(0.3), low=0, high=1)(y, sigma)
        torch.testing.assert_close(found, f(y, sigma))


KINDS = [(name, ends) for name in WRITTEN for ends in RANGES]


@pytest.mark.parametrize(("name", "ends"), KINDS, ids=str)
def test_the_right_name_passes_and_every_wrong_one_is_told_the_right_one(name, ends):
    """11 networks in 2 ranges under 22 names each: the 22 right ones pass, 462 are refused."""
    f, x = closed_form(torch.float32), images.load("digits")[:8]
    network = WRITTEN[name](in_range(f, *ends))
    right = converted(network, name, low=ends[0], high=ends[1])
    found = calibration.fits(right, x, SIGMAS, 0)
    assert len(found) == len(KINDS)
    assert calibration.fault(found, SIGMAS) is None
    for own in found[1:]:
        labelled = [own, *(fit for fit in found if fit is not own)]
        said = calibration.fault(labelled, SIGMAS)
        expected = f"this looks like {name} in [{ends[0]:g}, {ends[1]:g}], not {own.wiring}: that"
        assert said.startswith(expected)


def test_fits_do_not_depend_on_the_name_that_is_given():
    f, x = closed_form(torch.float32), images.load("digits")[:2]
    network = WRITTEN["epsilon"](in_range(f, -1, 1))
    right, wrong = (
        calibration.fits(converted(network, name), x, SIGMAS[:2], 0) for name in ("epsilon", "flow")
    )
    assert right[0].wiring == "epsilon in [-1, 1]"
    assert wrong[0].wiring == "flow in [-1, 1]"
    assert sorted(right, key=str) == sorted(wrong, key=str)


@pytest.mark.parametrize("name", ["epsilon", "flow", "velocity", "edm"])
def test_a_network_that_has_learned_nothing_is_not_taken_for_one_that_shrinks(name):
    """Of 0, velocity and EDM make a shrunk image: an estimate, but no sign of a convention."""
    x = images.load("digits")[:8]
    for share in (0.0, 0.02):  # of what a trained network would say of noise
        found = calibration.fits(converted(lambda x, t, a=share: a * x, name), x, SIGMAS, 0)
        assert calibration.better(found, SIGMAS) is None


def test_an_offset_of_less_than_half_the_noise_passes():
    x, exact = images.load("digits")[:4], load("empirical:digits").denoiser
    for offset, passes in ((0.02, True), (-0.02, True), (0.03, False), (-0.03, False)):
        found = calibration.fits(lambda y, s, off=offset: exact(y, s) + off, x, SIGMAS, 0)
        fault = calibration.fault(found, SIGMAS)
        assert fault is None if passes else "off on average" in fault


def test_a_model_that_no_convention_makes_a_denoiser_is_refused():
    x, memory = images.load("digits")[:4], load("empirical:digits").denoiser
    said = {
        "no less than the noise itself": lambda y, s: y + 3 * torch.sin(40 * y),
        "gives no estimate: NaN or infinity": lambda y, s: y * math.inf,
        "gives no estimate: mat1 and mat2": lambda y, s: y.flatten(1) @ torch.zeros(3, 3),
        "off on average at sigma 0.05; the range": lambda y, s: memory(y, s) + 0.03,
    }
    for text, network in said.items():
        found = calibration.fits(converted(network, "denoised", low=0, high=1), x, SIGMAS, 0)
        assert text in calibration.fault(found, SIGMAS)
