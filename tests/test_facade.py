"""What `import twinscore` offers: short names, lazily, that give what the commands give."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import twinscore as ts
from twinscore import cli, images
from twinscore.analysis import jacobian
from twinscore.denoisers import Checkpoint, UNet
from twinscore.denoisers.layers import generator_of
from twinscore.sampling import euler, noise, probability_flow

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


@pytest.fixture(scope="module")
def model():
    return ts.load("gaussian:digits")


def test_importing_it_does_not_import_torch():
    code = "import sys, twinscore; assert 'torch' not in sys.modules; twinscore.load"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_name_is_there_and_another_is_not():
    assert set(ts.__all__) <= set(dir(ts))
    for name in ts.__all__:
        assert callable(getattr(ts, name))
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        _ = ts.smaple


def test_samples_are_those_of_the_command(model, tmp_path):
    found = ts.sample(model, 3, seed=5, quality="draft")
    path = tmp_path / "samples.npz"
    words = ["sample", "--model", "gaussian:digits", "--count", "3", "--seed", "5"]
    words += ["--sampling.quality", "draft", "--device", "cpu", "--out", str(path)]
    assert cli.main(words) == 0
    np.testing.assert_array_equal(np.load(path)["samples"], found.numpy())
    with pytest.raises(ValueError, match="count must be at least 1"):
        ts.sample(model, 0)


def test_a_model_is_called_as_its_denoiser_and_says_what_it_is(model):
    y = torch.rand(2, 1, 8, 8, generator=generator_of(0))
    assert torch.equal(model(y, 0.3), model.denoiser(y, torch.full((2,), 0.3)))
    torch.testing.assert_close(ts.score(model, y, 0.3), (model(y, 0.3) - y) / 0.09)
    assert repr(model) == "<Gaussian of images 1 x 8 x 8 (channels, height, width)>"
    network = Checkpoint(UNet(width=2, levels=1).eval(), (1, None, None), (0.5,))
    count = sum(p.numel() for p in network.denoiser.parameters())
    assert repr(network).startswith("<UNet of images 1 x ? x ? ")
    assert f"{count:,} parameters" in network._repr_html_()
    assert "<UNet" not in network._repr_html_()


def test_eigenpairs_and_risk_of_a_gaussian_are_known(model):
    """Eigenvalues of the Jacobian of a Gaussian's denoiser: v / (v + sigma^2)."""
    sigma, digits = 0.3, images.load("digits")
    x = digits[np.arange(len(digits))].flatten(1).double()
    variance = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    y = digits[:1][0]
    found = ts.eigenpairs(model, y, sigma, 5)
    torch.testing.assert_close(
        found.values, (variance / (variance + sigma**2))[:5], rtol=1e-3, atol=1e-3
    )
    around = jacobian.linearise(model.denoiser, y[None], sigma)
    expected = jacobian.symmetric_eigenpairs(around, 5)
    assert torch.equal(found.values, expected.values)
    trace = (variance / (variance + sigma**2)).sum()
    left = (y[None] - model(y[None], sigma)).double().square().sum()
    torch.testing.assert_close(
        ts.sure(model, y[None], sigma)[0],
        2 * sigma**2 * trace + left - sigma**2 * 64,
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_mean_is_taken_as_it_is_stored():
    def denoiser(y, sigma):
        return y / (1 + sigma.view(-1, 1, 1, 1) ** 2)

    z, how = noise([1, 2], (3, 4, 4)), {"seeds": [1, 2], "steps": 4, "solver": euler}
    stored = probability_flow(denoiser, z, mean=(0.1, 0.2, 0.3), **how)
    tensor = torch.tensor([0.1, 0.2, 0.3]).view(-1, 1, 1)
    assert torch.equal(stored, probability_flow(denoiser, z, mean=tensor, **how))
