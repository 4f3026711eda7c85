"""Block Krylov eigenpairs and random estimates, against dense decompositions and known spectra."""

import math

import pytest
import torch

from twinscore.analysis import jacobian
from twinscore.analysis.jacobian import Linearisation, eigenpairs, linearise, symmetric_eigenpairs
from twinscore.denoisers.closed_form import Gaussian, StationaryGaussian
from twinscore.denoisers.layers import generator_of

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

SHAPE, D, SIGMA = (1, 12, 15), 180, 0.3


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def linear(matrix):
    """Linearisation of ``y -> matrix y`` at an image of zeros."""
    y = torch.zeros(1, *SHAPE, dtype=matrix.dtype)
    times = lambda A: lambda v: (v.flatten(1) @ A).view_as(v)  # noqa: E731
    return Linearisation(y, y, times(matrix.T), times(matrix))


def with_spectrum(values):
    basis = torch.linalg.qr(normal(D, D, seed=7)).Q
    return (basis * values) @ basis.T, basis.T


def test_gaussian_has_the_wiener_factors_and_the_principal_components():
    variances = torch.arange(1, D + 1).double() ** -1.5
    covariance, components = with_spectrum(variances)
    denoiser = Gaussian.of(normal(*SHAPE), covariance)
    found = symmetric_eigenpairs(
        linearise(denoiser, normal(1, *SHAPE), SIGMA), 20, tolerance=1e-9, max_products=D
    )
    assert found.converged
    factors = variances / (variances + SIGMA**2)
    torch.testing.assert_close(found.values, factors[:20], rtol=1e-9, atol=0)
    # an eigenvector is off by residual over gap: 1e-9 over the least gap, 3e-3
    overlap = (found.vectors * components[:20]).sum(1).abs()
    torch.testing.assert_close(overlap, torch.ones(20).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_symmetric_part_equals_the_dense_decomposition(end):
    A = normal(D, D) / math.sqrt(D)
    found = symmetric_eigenpairs(linear(A), 9, end=end, tolerance=1e-8)
    exact = torch.linalg.eigvalsh((A + A.T) / 2)
    exact = exact.flip(0)[:9] if end == "largest" else exact[:9]
    torch.testing.assert_close(found.values, exact)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(9).double())
    gaps = linear(A).symmetric(found.vectors) - found.values[:, None] * found.vectors
    assert gaps.norm(dim=1).max() <= 1e-8 * exact.abs().max() * 1.01


def test_complex_pairs_are_reported():
    A = torch.diag(torch.linspace(0.5, 0, D).double())
    A[:2, :2] = torch.tensor([[0.9, 0.2], [-0.2, 0.9]]).double()
    mixed = normal(D, D, seed=3) / 40 + torch.eye(D).double()
    A = mixed @ A @ torch.linalg.inv(mixed)
    found = eigenpairs(linear(A), 4, tolerance=1e-8)
    assert found.converged
    exact = torch.linalg.eigvals(A)
    exact = exact[exact.real.argsort(descending=True)][:4]
    torch.testing.assert_close(found.values[:2].imag.abs(), torch.full((2,), 0.2).double())
    torch.testing.assert_close(found.values.real, exact.real)
    gaps = found.vectors @ A.T.to(found.vectors) - found.values[:, None] * found.vectors
    assert gaps.abs().max() <= 1e-7


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
@pytest.mark.parametrize(("rank", "k"), [(60, 20), (60, 80), (3, 10), (D, D), (0, 5)])
def test_eigenvalues_of_high_multiplicity_are_all_found(rank, k, scale):
    values = (torch.arange(D) < rank).double()
    found = symmetric_eigenpairs(linear(scale * with_spectrum(values)[0]), k)
    assert found.converged
    torch.testing.assert_close(found.values / scale, values[:k], rtol=0, atol=1e-6)


MANY = torch.cat([torch.ones(12), torch.linspace(0.9, 0.5, 30), 0.2 / torch.arange(1, D - 41)])
"""Twelve equal eigenvalues, more than a block, above others that are not zero."""


@pytest.mark.parametrize("k", [10, 16])
@pytest.mark.parametrize(
    ("find", "end", "sign"),
    [
        (symmetric_eigenpairs, "largest", 1),
        (symmetric_eigenpairs, "smallest", -1),
        (eigenpairs, "largest", 1),
        (eigenpairs, "smallest", -1),
    ],
)
def test_more_equal_eigenvalues_than_a_block_holds(find, end, sign, k):
    values = MANY.double()
    for width in (0, 1e-4):  # equal, and nearly
        spread = values - width * torch.rand(D, generator=generator_of(2)).double()
        exact = spread.sort(descending=True).values[:k]
        for seed in range(3):
            found = find(linear(sign * torch.diag(spread)), k, end=end, seed=seed)
            assert found.converged
            # of a symmetric matrix values are off by the residual, 1e-3, at most
            torch.testing.assert_close(sign * found.values.real, exact, rtol=0, atol=1e-3)


def test_equal_channels_of_a_stationary_gaussian():
    frequencies = torch.fft.fftfreq(8, dtype=torch.float64)
    radius = (frequencies[:, None] ** 2 + frequencies**2).sqrt()
    denoiser = StationaryGaussian(torch.zeros(3, 8, 8).double(), 1 / (0.02 + radius**2)[None])
    y = normal(1, 3, 8, 8)
    exact = torch.linalg.eigvalsh(denoiser.jacobian(y, 2.0)[0]).flip(0)
    for k in (16, 30):
        found = symmetric_eigenpairs(linearise(denoiser, y, 2.0), k)
        assert found.converged
        torch.testing.assert_close(found.values, exact[:k], rtol=0, atol=1e-3)


def test_a_spent_budget_leaves_no_time_to_survive():
    projection = linear(torch.diag((torch.arange(D) < 60).double()))
    short = symmetric_eigenpairs(projection, 10, max_products=16)
    assert (short.residuals <= short.tolerance).all()
    assert short.values.sum() < 9  # eight of the ten
    assert not short.survived
    assert not short.converged
    everything = symmetric_eigenpairs(projection, 10, max_products=D, tolerance=0)
    assert everything.survived


def test_jacobian_itself_at_the_low_end():
    A = torch.diag(torch.linspace(0.5, 0, D).double()) + normal(D, D, seed=3).triu(1) / 100
    exact = torch.linspace(0, 0.5, D)[:5].double()
    found = eigenpairs(linear(A), 5, end="smallest", tolerance=1e-9)
    assert found.converged
    # triangular: eigenvalues are the diagonal's; their condition is below 1e3
    torch.testing.assert_close(found.values.real, exact, rtol=0, atol=1e-6)
    assert found.values.imag.abs().max() <= 1e-6


def test_units_change_no_number_of_products():
    matrix = with_spectrum(torch.arange(1, D + 1).double() ** -1.0)[0]
    counts = {
        symmetric_eigenpairs(linear((scale * matrix).float()), 10, tolerance=1e-5).products
        for scale in (1.0, 2.0**20)
    }
    assert len(counts) == 1


def test_what_has_not_converged_is_said():
    A = torch.diag(torch.linspace(1, 0, D).double())
    short = symmetric_eigenpairs(linear(A), 5, tolerance=1e-6, max_products=30)
    assert not short.converged
    assert short.products == 30
    assert symmetric_eigenpairs(linear(A), 5, tolerance=1e-6).converged


def test_float32_reaches_its_own_precision():
    matrix = with_spectrum(torch.arange(1, D + 1).double() ** -1.0)[0]
    found = symmetric_eigenpairs(linear(matrix.float()), 10, tolerance=1e-5)
    assert found.converged
    expected = torch.arange(1, 11).double() ** -1.0
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-5)


def test_trace_of_few_dimensions_is_exact_and_else_within_its_error():
    low_rank, _ = with_spectrum((torch.arange(D) < 8).double())
    found = jacobian.trace(linear(low_rank), products=30)
    assert found.value == pytest.approx(8, abs=1e-9)
    matrix, _ = with_spectrum(torch.arange(1, D + 1).double() ** -0.5)
    estimates = [jacobian.trace(linear(matrix), products=30, seed=s) for s in range(40)]
    errors = torch.tensor([e.value for e in estimates]) - matrix.trace().item()
    claimed = torch.tensor([e.standard_error for e in estimates])
    # 40 draws: unbiased within 3 errors of their mean; claimed errors match to a third
    assert abs(errors.mean()) <= 3 * errors.std() / math.sqrt(40)
    assert claimed.square().mean().sqrt().item() == pytest.approx(errors.std().item(), rel=0.35)
    exact = jacobian.trace(linear(matrix), products=3 * D)
    assert exact == jacobian.Estimate(pytest.approx(matrix.trace().item()), 0.0)


def test_traces_of_a_batch():
    denoiser = lambda y, sigma: y * torch.tanh(y)  # noqa: E731
    y = normal(3, 1, 4, 5)
    expected = (torch.tanh(y) + y * (1 - torch.tanh(y) ** 2)).flatten(1).sum(1)
    around = linearise(denoiser, y, 0.5)
    torch.testing.assert_close(jacobian.traces(around), expected)
    # signs give a diagonal Jacobian's trace without error
    torch.testing.assert_close(jacobian.traces(around, probes=2), expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_asymmetry_and_effective_rank_within_their_errors(share):
    A = normal(D, D, seed=1)
    even, odd = (A + A.T) / 2, (A - A.T) / 2
    matrix = even / even.norm() + share * odd / odd.norm()
    found = jacobian.asymmetry(linear(matrix), probes=60)
    exact = ((matrix - matrix.T).norm() / matrix.norm()).item()
    assert abs(found.value - exact) <= 3 * found.standard_error + 1e-12
    assert found.standard_error <= 0.05
    projection, _ = with_spectrum((torch.arange(D) < 12).double())
    rank = jacobian.effective_rank(linear(projection + 0.01 * matrix), products=120)
    whole = projection + 0.01 * matrix
    assert abs(rank.value - (whole.trace() / whole.norm()) ** 2) <= 3 * rank.standard_error


def test_bad_arguments_are_refused():
    around = linear(torch.eye(D).double())
    for find in (symmetric_eigenpairs, eigenpairs):
        with pytest.raises(ValueError, match="k must be from 1 to the 180 values"):
            find(around, D + 1)
        with pytest.raises(ValueError, match="k must be"):
            find(around, 0)
        with pytest.raises(ValueError, match="max_products must be at least k = 9"):
            find(around, 9, max_products=8)
    with pytest.raises(ValueError, match="at least 6 products"):
        jacobian.trace(around, products=5)
    with pytest.raises(ValueError, match="at least 2 probes"):
        jacobian.asymmetry(around, probes=1)
    with pytest.raises(ValueError, match="at least 1"):
        jacobian.traces(around, probes=0)
    zero = linear(torch.zeros(D, D).double())
    with pytest.raises(ValueError, match="is zero"):
        jacobian.asymmetry(zero)
    with pytest.raises(ValueError, match="is zero"):
        jacobian.effective_rank(zero)
