"""The optimiser of kernels, against singular value decompositions and equations in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from twinscore.denoisers import BFCNN, ConditionedUNet, UNet
from twinscore.denoisers.layers import Convolution, generator_of
from twinscore.training import TrainingSpec, fit
from twinscore.training.muon import COEFFICIENTS, ITERATIONS, MOMENTUM, Muon, kernels, orthogonal


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=generator_of(seed), dtype=torch.float64)


def through(singular):
    """What the polynomial makes of singular values."""
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        singular = a * singular + b * singular**3 + c * singular**5
    return singular


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 2**30))
def test_singular_vectors_stay_and_values_go_through_the_polynomial(rows, columns, seed):
    matrices = drawn(2, rows, columns, seed=seed)
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    expected = u @ (through(s / torch.linalg.vector_norm(s, dim=1, keepdim=True))[..., None] * v)
    torch.testing.assert_close(orthogonal(matrices), expected, rtol=0, atol=1e-9)


def test_the_polynomial_takes_a_hundredth_and_more_near_one():
    """The documented range, from a hundredth of the norm on."""
    ends = through(torch.linspace(0.01, 1, 10_000, dtype=torch.float64))
    assert ends.min() > 0.68
    assert ends.max() < 1.14


def test_nothing_comes_of_nothing():
    assert torch.equal(orthogonal(torch.zeros(1, 3, 5)), torch.zeros(1, 3, 5))


@pytest.mark.parametrize("shape", [(12, 5, 3, 3), (70, 6, 1, 1)])
def test_steps_are_those_of_the_equation(shape):
    """``m <- mu m + (1 - mu) g``, then along ``mu m + (1 - mu) g``; the norm stays. Two alike."""
    kernels = [nn.Parameter(drawn(*shape, seed=seed)) for seed in (0, 1)]
    optimizer = Muon(kernels, lr=0.1)
    weights = [kernel.detach().clone() for kernel in kernels]
    momenta = [torch.zeros_like(weight) for weight in weights]
    for step in (0, 1):
        for index, kernel in enumerate(kernels):
            kernel.grad = drawn(*shape, seed=10 + 2 * step + index)
            momenta[index] = MOMENTUM * momenta[index] + (1 - MOMENTUM) * kernel.grad
            ahead = MOMENTUM * momenta[index] + (1 - MOMENTUM) * kernel.grad
            turn = orthogonal(ahead.flatten(1)[None])[0].view(shape)
            norm, rows = weights[index].norm(), max(1, shape[0] / turn[0].numel())
            weights[index] = weights[index] - 0.1 * rows**0.5 * turn
            weights[index] *= norm / weights[index].norm()
        optimizer.step()
    torch.testing.assert_close([kernel.detach() for kernel in kernels], weights)


def test_the_order_of_columns_is_free():
    """Channels-last kernels, whose columns lie otherwise in memory, take the same step."""
    ends = []
    for layout in (torch.contiguous_format, torch.channels_last):
        kernel = nn.Parameter(drawn(6, 8, 3, 3).to(memory_format=layout))
        kernel.grad = drawn(6, 8, 3, 3, seed=1).to(memory_format=layout)
        Muon([kernel], lr=0.1).step()
        ends.append(kernel.detach())
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize(
    ("network", "count"),
    [
        # all but the first and the last: those of 3x3, and the 2x2 of each level
        (UNet(width=8, levels=2), 8 + 2),
        (BFCNN(width=8, layers=5), 3),
        (ConditionedUNet(width=8, levels=1), 6 + 1),
        (UNet(channels=3, width=2, levels=1), 0),
        (nn.Sequential(nn.Conv2d(8, 8, 3), Convolution(8, 3, generator_of(0))), 0),
    ],
)
def test_kernels_are_those_between_features(network, count):
    found = kernels(network)
    assert len(found) == count
    assert all(min(kernel.shape[:2]) > 4 and kernel.abs().max() > 0 for kernel in found)


def test_every_parameter_moves_and_kernels_keep_their_norm(fabric):
    images = drawn(6, 1, 8, 8).float()
    model = UNet(width=8, levels=1)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    known = {id(kernel) for kernel in kernels(model)}
    fit(model, images, TrainingSpec(steps=3, batch=4, evaluations=1), fabric=fabric)
    for name, value in model.named_parameters():
        assert not torch.equal(value, before[name])
        if id(value) in known:
            assert value.norm().item() == pytest.approx(before[name].norm().item(), rel=1e-5)


def test_the_published_recipe_is_adam_alone():
    """[GAHB]: Adam at 0.001, halved at every tenth, levels that know nothing of each other."""
    spec = TrainingSpec(recipe="published", steps=20, batch=4, evaluations=1)
    given = (spec.optimizer, spec.learning_rate, spec.schedule, spec.noise, spec.levels)
    assert given == ("adam", 1e-3, "halving", "sqrt", "independent")
    assert TrainingSpec(recipe="published", learning_rate=0.1).learning_rate == 0.1


def test_a_network_of_somebody_else_is_trained_by_adam_alone(fabric):
    """The same steps as with ``optimizer: adam``, bit for bit."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(1, 1, 3, padding=1)
            nn.init.constant_(self.inner.weight, 0.1)

        def forward(self, y, sigma):
            return self.inner(y)

    ends = []
    for optimizer in ("muon", "adam"):
        spec = TrainingSpec(steps=4, batch=4, evaluations=1, optimizer=optimizer)
        torch.manual_seed(0)
        ends.append(fit(Own(), drawn(6, 1, 8, 8).float(), spec, fabric=fabric).inner.weight)
    assert torch.equal(*ends)
