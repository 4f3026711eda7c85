"""Jacobian products against autograd, finite differences and the closed forms' own Jacobians."""

import math

import pytest
import torch
from torch import nn

from twinscore.analysis import jacobian
from twinscore.analysis.jacobian import linearise
from twinscore.analysis.jacobian.frozen import freeze
from twinscore.denoisers import BFCNN, UNet
from twinscore.denoisers.closed_form import Empirical, Gaussian, GaussianMixture
from twinscore.denoisers.layers import generator_of

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

SHAPE = (1, 5, 6)
D = math.prod(SHAPE)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def network(kind, **sizes):
    """In float64, evaluation mode, with gains and deviations as after a training."""
    made = kind(**sizes).double().eval()
    generator = generator_of(1)
    for name, value in made.state_dict().items():
        if name.endswith(("gain", "running_sd")):
            value.copy_(1 + torch.rand(value.shape, generator=generator))
    return made


class Biased(nn.Module):
    """Convolutions with additive terms, ReLU called in a different way, and a noise level."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(4, 1, 3, padding=1)
        with torch.no_grad():
            for seed, weight in enumerate(self.parameters()):
                weight.copy_(torch.randn(weight.shape, generator=generator_of(seed)) / 4)

    def forward(self, y, sigma=None):
        level = torch.as_tensor(sigma, dtype=y.dtype).view(-1, 1, 1, 1)
        return self.last((self.layers(y / (1 + level)) - 0.1).relu()) * level


class Smooth(Biased):
    def forward(self, y, sigma=None):
        return y - torch.tanh(self.last(self.layers(y)))


def mixture():
    covariances = torch.stack([a @ a.T / D for a in normal(2, D, D, seed=3)])
    return GaussianMixture.of(torch.tensor([0.4, 0.6]), normal(2, *SHAPE, seed=4), covariances)


def gaussian():
    a = normal(D, D, seed=5)
    return Gaussian.of(normal(*SHAPE, seed=6), a @ a.T / D)


DENOISERS = {
    "unet": network(UNet, width=4, levels=1),
    "unet, channels last": network(UNet, width=4).to(memory_format=torch.channels_last),
    "bf_cnn": network(BFCNN, width=5, layers=4),
    "biased": Biased().double().eval(),
    "smooth": Smooth().double().eval(),
    "gaussian": gaussian(),
    "mixture": mixture(),
}
IDS = list(DENOISERS)


@pytest.mark.parametrize("name", IDS)
def test_products_are_those_of_autograds_jacobian(name):
    denoiser, y = DENOISERS[name], normal(2, *SHAPE)
    sigma = torch.tensor([0.5, 0.9])
    around = linearise(denoiser, y, sigma)
    v, u = normal(3, 2, *SHAPE, seed=1), normal(3, 2, *SHAPE, seed=2)
    pushed, pulled = around.push(v), around.pull(u)
    for b in range(2):
        one = lambda x, b=b: denoiser(x[None], sigma[b])[0]  # noqa: E731
        J = torch.autograd.functional.jacobian(one, y[b]).reshape(D, D)
        torch.testing.assert_close(pushed[:, b].flatten(1), v[:, b].flatten(1) @ J.T)
        torch.testing.assert_close(pulled[:, b].flatten(1), u[:, b].flatten(1) @ J)
    assert not pushed.requires_grad
    torch.testing.assert_close(around.value, denoiser(y, sigma).detach())


@pytest.mark.parametrize("name", IDS)
def test_products_are_finite_differences(name):
    """Central differences in float64, step proportional to sigma: relative 1e-6."""
    denoiser, y, sigma = DENOISERS[name], normal(1, *SHAPE), 0.5
    v = normal(1, 1, *SHAPE, seed=1)
    v, step = v / v.norm(), 1e-5 * sigma
    with torch.no_grad():
        difference = (
            (denoiser(y + step * v[0], sigma) - denoiser(y - step * v[0], sigma)) / 2 / step
        )
    found = linearise(denoiser, y, sigma).push(v)[0]
    assert (found - difference).norm() <= 1e-6 * difference.norm()


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_whole_matrix_is_the_closed_forms_own(name):
    denoiser, y = DENOISERS[name], normal(1, *SHAPE)
    around = linearise(denoiser, y, 0.7)
    torch.testing.assert_close(jacobian.full(around), denoiser.jacobian(y, 0.7)[0])


def test_whole_matrix_comes_with_the_eigenbasis_of_its_symmetric_part():
    around = linearise(DENOISERS["unet"], normal(1, *SHAPE))
    whole, matrix = jacobian.decompose(around), jacobian.full(around)
    assert torch.equal(whole.matrix, matrix)
    assert torch.equal(whole.symmetric, whole.symmetric.T)
    torch.testing.assert_close(2 * whole.symmetric, matrix + matrix.T)
    assert (whole.values.diff() <= 0).all()
    again = whole.vectors.T @ torch.diag(whole.values) @ whole.vectors
    torch.testing.assert_close(again, whole.symmetric)
    assert whole.asymmetry == (matrix - matrix.T).norm() / matrix.norm() > 0


def test_chunks_change_nothing(monkeypatch):
    y = normal(1, *SHAPE)
    whole = jacobian.full(linearise(DENOISERS["unet"], y))
    monkeypatch.setattr("twinscore.analysis.jacobian.products._CHUNK_PIXELS", 4 * 30)
    monkeypatch.setattr("twinscore.analysis.jacobian.matrix._CHUNK_VALUES", 7 * D)
    around = linearise(DENOISERS["unet"], y)
    torch.testing.assert_close(jacobian.full(around), whole)
    torch.testing.assert_close(around.transposed(torch.eye(D).double()), whole)


@pytest.mark.parametrize(
    ("name", "piecewise_linear"),
    [("unet", True), ("bf_cnn", True), ("biased", True), ("smooth", False), ("mixture", False)],
)
def test_only_what_relu_alone_bends_is_frozen(name, piecewise_linear):
    frozen = freeze(lambda y: DENOISERS[name](y, 0.5), normal(1, *SHAPE))
    assert (frozen is not None) == piecewise_linear


def test_a_product_of_activations_is_not_mistaken_for_linear():
    gated = lambda y, sigma=None: y.relu() * (1 + y).relu()  # noqa: E731
    y = normal(1, *SHAPE)
    expected = ((1 + 2 * y) * (y > 0)).flatten()
    torch.testing.assert_close(jacobian.full(linearise(gated, y)).diagonal(), expected)


def near_linear_far_away():
    """Closed forms that are affine far from the image, where their Jacobian is different."""
    variances = torch.tensor([0.01, 1.0]).double()[:, None].expand(2, 64)
    weights, means = torch.tensor([0.9, 0.1]).double(), torch.full((2, 1, 8, 8), 0.5).double()
    broad = GaussianMixture.of(weights, means, variances)
    images = torch.rand(20, 1, 12, 12, generator=generator_of(0), dtype=torch.float64)
    images[0] /= 100
    between = (images[[3]] + images[[7]]) / 2
    yield "mixture", broad, means[:1] + normal(1, 1, 8, 8) * 0.14, 0.1
    yield "empirical", Empirical.of(images), between, 0.05
    yield "one image", Empirical.of(images), images[[3]], 0.05


@pytest.mark.parametrize(
    ("denoiser", "y", "sigma"),
    [pytest.param(*case, id=name) for name, *case in near_linear_far_away()],
)
def test_what_is_affine_only_far_from_the_image_is_not_treated_as_affine(denoiser, y, sigma):
    exact = denoiser.jacobian(y, sigma)[0]
    around = linearise(denoiser, y, sigma)
    torch.testing.assert_close(jacobian.full(around), exact)
    assert jacobian.traces(around).item() == pytest.approx(exact.trace().item(), rel=1e-9)
    towards = (0.5 - y)[None]
    torch.testing.assert_close(around.push(towards).flatten(), exact @ towards.flatten())


def test_a_product_that_fails_its_test_falls_to_autograd():
    """A gate that no random probe opens, only a vector along the ones."""

    def gated(y, sigma=None):
        return y.relu() * (2 + torch.tanh(100 * (y.mean((1, 2, 3), keepdim=True) - 3)))

    y = normal(1, *SHAPE)
    assert freeze(gated, y) is not None
    v = torch.stack([5 * torch.ones_like(y), y])
    expected = v * (y > 0)
    torch.testing.assert_close(linearise(gated, y).push(v), expected)


@pytest.mark.parametrize("kind", [UNet, BFCNN])
def test_networks_without_additive_terms_equal_their_own_linearisation(kind):
    from twinscore.analysis.eigenbasis import homogeneity

    made, y = network(kind, width=4), normal(2, 1, 9, 8)
    assert (homogeneity(linearise(made, y)) <= 1e-14).all()  # rounding over some 20 layers
    assert (homogeneity(linearise(made.float(), y.float())) <= 1e-5).all()
    biased = linearise(DENOISERS["biased"], normal(1, *SHAPE), 0.5)
    assert homogeneity(biased) > 1e-3


def test_float32_products_are_exact_to_rounding():
    denoiser = network(UNet, width=4).float()
    y, v = normal(1, 1, 8, 8).float(), normal(5, 1, 1, 8, 8, seed=1).float()
    around = linearise(denoiser, y)
    exact = linearise(denoiser.double(), y.double()).push(v.double())
    denoiser.float()
    assert (around.push(v) - exact).norm() <= 1e-5 * exact.norm()


def test_what_cannot_be_linearised_is_refused():
    y = normal(1, *SHAPE)
    with pytest.raises(ValueError, match="training mode"):
        linearise(UNet(width=4).double(), y)
    with pytest.raises(ValueError, match="must be positive"):
        linearise(gaussian(), y, 0.0)
    with pytest.raises(ValueError, match=r"shape \(1,\)"):
        linearise(gaussian(), y, torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="NaN"):
        linearise(gaussian(), y * math.nan, 0.5)
    with pytest.raises(ValueError, match="must return"):
        linearise(lambda y, sigma: y[..., :3], y, 0.5)
    with pytest.raises(ValueError, match="must return"):
        linearise(lambda y, sigma: y.float(), y, 0.5)
    with pytest.raises(ValueError, match="not differentiable"):
        linearise(lambda y, sigma: y.detach() / 2, y, 0.5)
    root = linearise(lambda y, sigma: (0 * y).sqrt(), y, 0.5)  # of slope 0 times infinity
    for product in (root.push, root.pull):
        with pytest.raises(ValueError, match=r"product .* holds NaN"):
            product(y[None])
    around = linearise(gaussian(), y, torch.tensor([0.5]))
    assert around.push(y[None].repeat(3, 1, 1, 1, 1)).shape == (3, 1, *SHAPE)
    with pytest.raises(ValueError, match=r"vectors must be .*\(K, 1, 1, 5, 6\)"):
        around.push(y)
    with pytest.raises(ValueError, match="one image"):
        jacobian.full(linearise(gaussian(), normal(2, *SHAPE), 0.5))
