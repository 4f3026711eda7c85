"""What follows from the eigenbasis: coefficients, decay, agreement, on cases known in advance."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore.analysis import eigenbasis, subspaces
from twinscore.analysis.jacobian import eigenpairs, full, linearise, symmetric_eigenpairs
from twinscore.denoisers import UNet
from twinscore.denoisers.closed_form import Gaussian, GaussianMixture, StationaryGaussian
from twinscore.denoisers.layers import generator_of

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

SHAPE, D = (1, 8, 8), 64


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def stationary():
    """Power that depends on the frequency's length: eigenvalues two-, four- and eightfold."""
    f = torch.fft.fftfreq(8, dtype=torch.float64)
    radius = (f[:, None] ** 2 + f**2).sqrt()
    return StationaryGaussian(torch.zeros(SHAPE).double(), (1 / (0.02 + radius**2))[None])


def test_denoised_coefficients_are_shrunk_noisy_ones():
    a = normal(D, D)
    denoiser = Gaussian.of(torch.zeros(SHAPE).double(), a @ a.T / D)
    x = normal(1, *SHAPE, seed=1)
    around = linearise(denoiser, x + 0.5 * normal(1, *SHAPE, seed=2), 0.5)
    pairs = symmetric_eigenpairs(around, D)
    found = eigenbasis.shrinkage(pairs, around, x)
    torch.testing.assert_close(found.denoised, found.factors * found.noisy)
    torch.testing.assert_close(found.clean, pairs.vectors @ x.flatten())
    torch.testing.assert_close(found.noisy.norm(), around.y.norm())
    assert eigenbasis.homogeneity(around) < 1e-14
    with pytest.raises(ValueError, match="one image of 64 values"):
        eigenbasis.shrinkage(pairs, around, x[..., 1:])
    with pytest.raises(ValueError, match="symmetric part"):
        eigenbasis.shrinkage(eigenpairs(around, 3), around, x)


def test_trace_and_rank_fall_as_noise_rises():
    denoiser = stationary()
    power = denoiser.power.flatten()
    levels = eigenbasis.against_noise_level(
        denoiser, normal(1, *SHAPE), [0.5, 2.0, 8.0], products=192
    )
    for level in levels:
        factors = power / (power + level.sigma**2)
        assert level.trace.value == pytest.approx(factors.sum().item(), rel=1e-9)
        rank = (factors.sum() ** 2 / factors.square().sum()).item()
        assert abs(level.effective_rank.value - rank) <= 3 * level.effective_rank.standard_error
    assert levels[0].trace.value > levels[1].trace.value > levels[2].trace.value


@settings(deadline=None, max_examples=25)
@given(exponent=st.floats(0.2, 4), scale=st.floats(1e-6, 1e6), first=st.integers(1, 50))
def test_decay_of_a_power_law_is_its_exponent(exponent, scale, first):
    values = scale * torch.arange(1, 101).double() ** -exponent
    found = eigenbasis.decay(values, first, 100)
    assert found.exponent == pytest.approx(exponent, rel=1e-6)
    assert found.high - found.low < 1e-5


def test_equal_values_do_not_decay():
    found = eigenbasis.decay(torch.full((9,), 0.3), 2, 9)
    assert (found.exponent, found.low, found.high) == (0, 0, 0)


def test_a_denoiser_that_returns_zero_is_homogeneous():
    around = linearise(lambda y, sigma=None: y.relu(), -torch.ones(1, *SHAPE))
    assert eigenbasis.homogeneity(around) == 0


def test_a_slope_at_an_estimate_of_zero_has_no_relative_residual():
    around = linearise(lambda y, sigma=None: y - y.detach(), torch.ones(1, *SHAPE))
    assert eigenbasis.homogeneity(around) == math.inf


def test_eigenvectors_of_a_mixture_are_those_of_its_own_jacobian():
    """Between the means, where it is neither of its Gaussians."""
    roots = normal(2, D, D, seed=3) / 8
    weights, means = torch.tensor([0.4, 0.6]).double(), 0.3 * normal(2, *SHAPE, seed=4)
    mixture = GaussianMixture.of(weights, means, roots @ roots.mT)
    y, sigma, k = means.mean(0)[None] + 0.1 * normal(1, *SHAPE), 0.5, 12
    assert mixture.responsibilities(y, sigma).max() < 0.99
    pairs = symmetric_eigenpairs(linearise(mixture, y, sigma), k, tolerance=1e-10)
    values, vectors = torch.linalg.eigh(mixture.jacobian(y, sigma)[0])
    torch.testing.assert_close(pairs.values, values.flip(0)[:k], rtol=1e-9, atol=0)
    parts = subspaces.agreement_by_eigenspace(pairs.vectors, values.flip(0), vectors.T.flip(0))
    assert len(parts) == k  # all distinct
    # an eigenvector is off by residual over gap, its squared cosine by the square of that
    assert all(part.shared == pytest.approx(1, abs=1e-9) for part in parts)


def test_decay_interval_covers_the_exponent():
    k = torch.arange(1, 61).double()
    covered = 0
    for seed in range(200):
        fit = eigenbasis.decay(k**-1.5 * torch.exp(0.3 * normal(60, seed=seed)), 5, 60)
        covered += fit.low <= 1.5 <= fit.high
    # binomial(200, .95): 3 standard deviations are 9.2
    assert abs(covered - 190) <= 9.3


def test_decay_needs_a_range_and_positive_values():
    for first, last in ((0, 5), (4, 5), (8, 11)):
        with pytest.raises(ValueError, match=r"within 1\.\.10"):
            eigenbasis.decay(torch.ones(10), first, last)
    with pytest.raises(ValueError, match="positive values"):
        eigenbasis.decay(torch.linspace(1, 0, 10), 1, 10)


def test_principal_angles():
    q = torch.linalg.qr(normal(D, D)).Q.T
    angle = 0.3
    turned = math.cos(angle) * q[1:2] + math.sin(angle) * q[5:6]
    found = subspaces.agreement(q[:2], torch.cat([3 * turned, turned + q[:1]]))
    torch.testing.assert_close(found.cosines, torch.tensor([1, math.cos(angle)]).double())
    assert found.shared == pytest.approx((1 + math.cos(angle) ** 2) / 2)
    assert subspaces.agreement(q[:4], q[2:9]).shared == pytest.approx(2 / 4)
    random = [subspaces.agreement(normal(6, D, seed=s), q[:9]) for s in range(200)]
    # shared is a mean of 6 squared cosines of expectation 9/64; 200 draws
    mean = sum(r.shared for r in random) / 200
    assert mean == pytest.approx(random[0].chance, abs=3 * 0.06 / math.sqrt(200))
    with pytest.raises(ValueError, match="need rows"):
        subspaces.agreement(q[:2], q[:2, 1:])


def test_degenerate_eigenspaces_agree_as_a_whole():
    denoiser, sigma = stationary(), 2.0
    around = linearise(denoiser, normal(1, *SHAPE), sigma)
    pairs = symmetric_eigenpairs(around, 22, tolerance=1e-9)
    values, vectors = torch.linalg.eigh(full(around))
    parts = subspaces.agreement_by_eigenspace(pairs.vectors, values.flip(0), vectors.T.flip(0))
    # an eigenspace is off by residual over gap
    assert all(part.shared == pytest.approx(1, abs=1e-9) for part in parts)
    assert [len(part.cosines) for part in parts] == [1, 4, 4, 4, 8, 1]
    with pytest.raises(ValueError, match="descending"):
        subspaces.agreement_by_eigenspace(pairs.vectors, values, vectors.T)


@pytest.mark.parametrize("transform", [subspaces.dct, subspaces.wavelet])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 16, 12), (1, 40, 40)])
def test_fixed_bases_are_orthonormal_and_agree_with_themselves(transform, shape):
    d = math.prod(shape)
    matrix = transform(torch.eye(d).double().view(d, *shape))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(d).double(), rtol=0, atol=1e-10)
    chosen = matrix.T[[0, 5, d // 2]].view(3, *shape)
    own = subspaces.agreement_with_basis(transform(chosen))
    assert own.shared == pytest.approx(1)
    other = subspaces.agreement_with_basis(transform(normal(3, *shape)))
    assert other.shared < 0.6


def test_images_that_no_wavelet_fits_are_refused():
    for shape in ((1, 1, 7, 8), (1, 1, 2, 8)):
        with pytest.raises(ValueError, match="orthogonal wavelet"):
            subspaces.wavelet(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"bior2\.2"):
        subspaces.wavelet(torch.zeros(1, 1, 16, 16), name="bior2.2")


def test_twins_at_the_same_image():
    x = 0.5 + normal(1, *SHAPE) / 10
    tops = [
        symmetric_eigenpairs(linearise(UNet(width=3, levels=1, seed=s).double().eval(), x), 8)
        for s in (0, 1)
    ]
    assert all(top.converged for top in tops)
    apart = subspaces.agreement(tops[0].vectors, tops[1].vectors)
    assert apart.shared < 0.9
    assert subspaces.agreement(tops[0].vectors, tops[0].vectors).shared == pytest.approx(1)
