"""Local signs of an audited model, against its Jacobian in closed form."""

import numpy as np
import pytest
import torch

from twinscore.denoisers import load
from twinscore.experiments import audit
from twinscore.experiments.audit import signs
from twinscore.experiments.audit.pool import Units, opened


@pytest.fixture
def asked(tmp_path):
    """A spec of a Gaussian of 40 images of 4x4, and its sets."""
    rng = np.random.default_rng(0)
    for name in ("train", "held"):
        np.save(tmp_path / f"{name}.npy", rng.uniform(0.2, 0.8, (40, 4, 4)).astype(np.float32))
    spec = audit.Spec(
        model=f"gaussian:{tmp_path}/train.npy",
        samples=f"{tmp_path}/held.npy",
        train=f"{tmp_path}/train.npy",
        held_out=f"{tmp_path}/held.npy",
    )
    return spec, opened(spec)


def test_trace_and_rank_of_a_gaussian_are_those_of_its_shrinkage(asked):
    """J = C (C + sigma^2)^-1 everywhere; of 16 values the trace is exact."""
    spec, sets = asked
    errors = np.random.default_rng(1).random((80, 5))
    own = (errors, torch.device("cpu"), lambda *_: None)
    found = signs.judged(spec, sets, signs.measure(spec, sets, load(spec.model), *own))
    x = sets.train[:].flatten(1).double()
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0))
    gains = values / (values + 0.04)
    assert len(found.images) == 2 * signs.PAIRS
    for sign in found.images:
        assert sign.trace == pytest.approx(gains.sum().item(), rel=1e-4)
        # the norm is that of 32 random vectors: relative error about sqrt(2 / (32 * 16)) = 6 %
        assert sign.rank == pytest.approx((gains.sum() ** 2 / gains.square().sum()).item(), rel=0.3)
    trained = [sign for sign in found.images if sign.trained]
    assert [sign.name for sign in trained] == [sets.train.names[sign.image] for sign in trained]


def test_training_images_are_beside_held_out_ones_of_equal_error():
    score = np.array([3.0, 1.0, 2.0, 2.4, 1.1, 9.0, 1.0])
    of = np.array([0, 1, 2, 3, 4, 5, 1])
    trained = np.array([True, True, True, False, False, False])
    found = signs.pairs(score, Units(of, trained, np.ones(7, bool), "group"))
    np.testing.assert_array_equal(found, [[1, 4], [2, 3], [0, 5]])


def test_a_model_without_derivatives_has_no_signs(asked):
    spec, sets = asked
    said = []
    model = load(spec.model)
    opaque = torch.no_grad()(model.denoiser.__call__)
    own = (np.zeros((80, 5)), torch.device("cpu"), lambda name, what: said.append(what))
    found = signs.measure(spec, sets, type(model)(opaque, model.shape, model.mean), *own)
    assert signs.judged(spec, sets, found) is None
    assert "not differentiable" in said[0]["text"]


def test_a_model_that_lets_nothing_through_has_a_trace_of_zero(asked):
    spec, sets = asked
    model = load(spec.model)
    constant = type(model)(lambda y, sigma: 0 * y + 0.5, model.shape, model.mean)
    own = (np.zeros((80, 5)), torch.device("cpu"), lambda *_: None)
    found = signs.judged(spec, sets, signs.measure(spec, sets, constant, *own))
    assert {(sign.trace, sign.rank) for sign in found.images} == {(0.0, 0.0)}
    assert "a trace of 0.0" in found.text()
