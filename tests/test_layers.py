"""Hand-written gradients against autograd of the plain formulas, in float64."""

from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from twinscore.denoisers import layers
from twinscore.denoisers.layers import EPSILON, BiasFreeNorm, Convolution, Upsample, generator_of

# Sums of up to 1e4 products of numbers of order 1 in float64, in another order.
CLOSE = {"rtol": 1e-10, "atol": 1e-10}

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

FORMATS = pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
SHAPES = pytest.mark.parametrize("shape", [(3, 2, 5, 4), (1, 3, 7, 3), (2, 1, 1, 1), (1, 2, 1, 6)])


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=generator_of(seed), dtype=dtype)


def plain_norm(x, gain):
    variance = x.var((0, 2, 3), unbiased=False, keepdim=True)
    return F.relu(x / torch.sqrt(variance + EPSILON) * gain)


def gradients(function, inputs, upstream):
    inputs = [x.detach().clone(memory_format=torch.preserve_format) for x in inputs]
    for x in inputs:
        x.requires_grad_()
    out = function(*inputs)
    return out, torch.autograd.grad(out, inputs, upstream)


@SHAPES
@FORMATS
def test_convolution_passes_gradcheck(shape, format):
    x = normal(*shape).to(memory_format=format).requires_grad_()
    weight = normal(4, shape[1], 3, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(layers._Conv3x3.apply, (x, weight))


@SHAPES
@FORMATS
def test_normalisation_passes_gradcheck(shape, format):
    x = normal(*shape).to(memory_format=format)
    # Away from the kink of the ReLU; a single pixel has no deviation, so its gradient is steep.
    x = (x + x.sign()).requires_grad_()
    gain = (1 + normal(1, shape[1], 1, 1, seed=1).square()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, g: layers._NormRelu.apply(x, g)[0], (x, gain))


@pytest.mark.parametrize("shape", [(4, 3, 6, 6), (1, 2, 33, 35), (5, 2, 3, 1), (1, 1, 12, 12)])
@FORMATS
def test_normalisation_equals_the_formula(shape, format):
    x = normal(*shape).to(memory_format=format)
    gain = normal(1, shape[1], 1, 1, seed=1)
    upstream = normal(*shape, seed=2)
    ours, ours_grad = gradients(lambda x, g: layers._NormRelu.apply(x, g)[0], (x, gain), upstream)
    plain, plain_grad = gradients(plain_norm, (x, gain), upstream)
    torch.testing.assert_close(ours, plain, **CLOSE)
    torch.testing.assert_close(ours_grad, plain_grad, **CLOSE)


def plain_weight_gradient(x, grad):
    weight = x.new_zeros(grad.shape[1], x.shape[1], 3, 3)
    convolve = lambda w: F.conv2d(x, w, padding=1)  # noqa: E731
    return gradients(convolve, (weight,), grad)[1][0]


def our_weight_gradients(x, grad):
    """As chosen by size, and then every way there is: one image at a time or all at once."""
    yield layers.weight_gradient(x, grad)
    for rows in (1, 3):
        for bytes_, long in ((0, 0), (0, 10**9), (2**30, 0), (2**30, 10**9)):
            with mock.patch.multiple(layers, PATCH_BYTES=bytes_, LONG_SUM=long):
                yield layers._by_unfolding(x, grad, rows)


sizes = st.integers(1, 40)


@settings(deadline=None, max_examples=40)
@given(b=st.integers(1, 3), c_in=st.integers(1, 3), c_out=sizes, h=sizes, w=sizes, data=st.data())
@example(b=1, c_in=1, c_out=1, h=1, w=1, data=None)
@example(b=1, c_in=2, c_out=3, h=33, w=32, data=None)
@example(b=2, c_in=1, c_out=128, h=11, w=13, data=None)
@example(b=2, c_in=2, c_out=130, h=12, w=12, data=None)
@example(b=2, c_in=2, c_out=1, h=1, w=1100, data=None)
@example(b=2, c_in=2, c_out=1, h=1100, w=1, data=None)
def test_weight_gradient_in_every_branch_and_layout(b, c_in, c_out, h, w, data):
    x, grad = normal(b, c_in, h, w), normal(b, c_out, h, w, seed=1)
    expected = plain_weight_gradient(x, grad)
    if data is not None and data.draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    if data is not None and data.draw(st.booleans()):
        grad = grad.to(memory_format=torch.channels_last)
    for gradient in our_weight_gradients(x, grad):
        torch.testing.assert_close(gradient, expected, **CLOSE)


@pytest.mark.parametrize("size", [3, 8, 12, 33])
def test_weight_gradient_of_an_expanded_upstream_gradient(size):
    """What ``sum().backward()`` sends: one number with stride zero."""
    x, grad = normal(2, 3, size, size), torch.ones((), dtype=torch.float64).expand(2, 4, size, size)
    expected = plain_weight_gradient(x, grad)
    for gradient in our_weight_gradients(x, grad):
        torch.testing.assert_close(gradient, expected, **CLOSE)


@pytest.mark.parametrize("layer", [Convolution, Upsample])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 33, 32), (1, 3, 1, 1)])
@FORMATS
def test_training_and_evaluation_compute_the_same_function(layer, shape, format):
    module = layer(3, 4, generator_of(0)).double()
    x = normal(*shape).to(memory_format=format)
    upstream = torch.ones_like(module(x))
    results = []
    for training in (True, False):
        module.train(training)
        y = x.clone().requires_grad_()
        out = module(y)
        results.append([out, *torch.autograd.grad(out, [y, module.weight], upstream)])
    torch.testing.assert_close(*results, **CLOSE)


def test_an_upsampled_pixel_becomes_its_block_of_weights():
    layer = Upsample(1, 1, generator_of(0))
    for training in (True, False):
        out = layer.train(training)(torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]]))
        assert torch.equal(out[0, 0, :2, :2], layer.weight[0, 0])
        assert torch.equal(out[0, 0, 2:, 2:], 2 * layer.weight[0, 0])
        assert not out[0, 0, :2, 2:].any()


def test_running_deviation_follows_the_published_momentum_rule():
    """``running <- 0.9 running + 0.1 sd``, from 1; evaluation divides by it, sd plays no part."""
    norm = BiasFreeNorm(2)
    norm.gain.data = torch.tensor([0.5, 2.0]).view(1, 2, 1, 1)
    expected = torch.ones(2, dtype=torch.float64)
    for step in range(5):
        x = normal(4, 2, 6, 5, seed=step, dtype=torch.float32) * (step + 1) + 3
        norm(x)
        flat = x.double().transpose(0, 1).flatten(1)
        expected = 0.9 * expected + 0.1 * (flat.var(1, unbiased=False) + 1e-5).sqrt()
    # float32 rounding of five updates
    torch.testing.assert_close(norm.running_sd.double().flatten(), expected, rtol=1e-6, atol=0)
    norm.eval()
    before = norm.running_sd.clone()
    out = norm(x)
    torch.testing.assert_close(out, F.relu(x * norm.gain / before))
    assert torch.equal(norm.running_sd, before)


@pytest.mark.parametrize("layer", [Convolution, Upsample])
def test_initial_weights_are_he_normal(layer):
    """Variance 2 / fan-in: 9 inputs per pixel for the convolution, 1 for stride-2 upsampling."""
    c_in = 64
    weight = layer(c_in, 64, generator_of(3)).weight
    variance = 2 / (9 * c_in if layer is Convolution else c_in)
    # Standard errors of a mean and of a variance, times 5.
    assert abs(weight.mean()) < 5 * (variance / weight.numel()) ** 0.5
    assert abs(weight.var() / variance - 1) < 5 * (2 / weight.numel()) ** 0.5


def test_bfloat16_autocast_trains_with_a_float32_running_deviation():
    model = nn.Sequential(Convolution(1, 4, generator_of(0)), BiasFreeNorm(4))
    x = normal(2, 1, 8, 8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).square().sum()
    loss.backward()
    reference = nn.Sequential(Convolution(1, 4, generator_of(0)), BiasFreeNorm(4))
    reference(x).square().sum().backward()
    assert model[1].running_sd.dtype == torch.float32
    # bfloat16 keeps 8 bits: relative rounding 2**-8 each in the convolution and in the deviation
    torch.testing.assert_close(model[1].running_sd, reference[1].running_sd, rtol=0.02, atol=0)
    torch.testing.assert_close(model[1].gain.grad, reference[1].gain.grad, rtol=0.05, atol=0)
