"""Networks that are told the noise level: preconditioning, training, and the file they lie in."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from twinscore.denoisers import Checkpoint, ConditionedUNet, NetworkSpec, build, load, save
from twinscore.denoisers.conditioned_unet import CENTRE, SPREAD
from twinscore.denoisers.layers import generator_of
from twinscore.denoisers.spec import outlined
from twinscore.errors import InputError
from twinscore.experiments import clusters, transition
from twinscore.sampling import SamplingSpec
from twinscore.training import TrainingSpec, fit, history

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def noise(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed))


def perturbed(network, seed=1):
    """With weights everywhere, also in the last layer."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * noise(*parameter.shape, seed=seed))
    return network.eval()


@given(st.floats(1e-3, 10), st.integers(1, 3), st.integers(5, 9))
def test_an_untrained_one_is_the_best_denoiser_of_independent_pixels(sigma, channels, side):
    network = ConditionedUNet(channels, width=2, levels=1).eval()
    y = CENTRE + noise(2, channels, side, side)
    optimum = CENTRE + SPREAD**2 / (SPREAD**2 + sigma**2) * (y - CENTRE)
    with torch.no_grad():
        torch.testing.assert_close(network(y, sigma), optimum)


def test_the_error_stays_in_proportion_to_small_noise():
    """D - y is at most of the order of sigma, whatever the network inside gives."""
    network, y = perturbed(ConditionedUNet(width=4, levels=1)), noise(2, 1, 8, 8)
    with torch.no_grad():
        moved = [(network(y, s) - y).abs().max() / s for s in (1e-2, 1e-3, 1e-4)]
    assert max(moved) < 3 * min(moved)


def test_levels_differ_and_each_image_has_its_own():
    network = perturbed(ConditionedUNet(width=4, levels=2))
    y, sigma = noise(3, 1, 8, 8), torch.tensor([0.05, 0.3, 1.0])
    with torch.no_grad():
        together = network(y, sigma)
        for i in range(3):
            # another batch size may choose another kernel: float32 rounding
            torch.testing.assert_close(
                together[i : i + 1], network(y[i : i + 1], float(sigma[i])), rtol=1e-5, atol=1e-5
            )
        inner = (network(y, 0.3) - network(y, 0.31)).abs().max()
    assert inner > 1e-4
    with pytest.raises(ValueError, match="needs the noise level"):
        network(y)


@pytest.mark.parametrize("shape", [(6, 7), (8, 8), (5, 12)])
def test_images_of_any_size(shape):
    network = perturbed(ConditionedUNet(width=2, levels=2))
    with torch.no_grad():
        assert network(noise(2, 1, *shape), 0.2).shape == (2, 1, *shape)


def test_weights_depend_on_the_seed_and_an_outline_has_the_same():
    spec = NetworkSpec(kind="conditioned_unet", width=4, levels=1, blocks=2)
    first, again, other = (build(spec, 2, seed) for seed in (1, 1, 2))
    described = outlined(spec, 2).state_dict()
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert described[name].shape == value.shape
    assert not torch.equal(first.first.weight, other.first.weight)


@pytest.mark.parametrize("size", ["width", "levels", "blocks"])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="ConditionedUNet needs"):
        ConditionedUNet(**{size: 0})


def test_training_passes_the_level_and_the_file_gives_the_network_back(tmp_path):
    """On images of two gray values, the posterior mean depends on the level."""
    x = torch.tensor([0.2, 0.8]).repeat(32)[:, None, None, None].expand(64, 1, 4, 4).contiguous()
    spec = NetworkSpec(kind="conditioned_unet", width=8, levels=1)
    training = TrainingSpec(steps=250, batch=64, evaluations=1, learning_rate=3e-3)
    rows = []
    network = fit(
        build(spec, 1, 0), x, training, on_step=lambda step, row: rows.append(row) if row else None
    )
    y, sigma = x + 0.3 * noise(64, 1, 4, 4), 0.3
    posterior = torch.sigmoid(0.6 / sigma**2 * (y - 0.5).sum((1, 2, 3)))
    optimum = (0.2 + 0.6 * posterior).view(-1, 1, 1, 1).expand_as(y)
    with torch.no_grad():
        error = (network(y, sigma) - optimum).square().mean()
        independent = (ConditionedUNet(width=8, levels=1).eval()(y, sigma) - optimum).square()
    assert error < independent.mean() / 8
    assert rows[0]["train_psnr_0.05"] > 26.5  # the input has 26.0 dB
    path = tmp_path / "weights.safetensors"
    save(path, Checkpoint(network, (1, 4, 4), (0.5,)), spec)
    again = load(str(path)).denoiser
    with torch.no_grad():
        assert torch.equal(again(y, sigma), network(y, sigma))


def test_history_measures_at_the_level():
    """Of an exact denoiser that needs the level, the history is that of the optimum."""
    x = CENTRE + SPREAD * noise(64, 1, 16, 16)
    row = history.psnr_row(ConditionedUNet(width=2, levels=1).eval(), x, "test")
    for sigma in (0.05, 1.0):
        expected = -10 * torch.log10(torch.tensor(1 / (1 / SPREAD**2 + 1 / sigma**2)))
        # 16,384 pixels: 1 % of the variance, 0.05 dB
        assert row[f"test_psnr_{sigma:g}"] == pytest.approx(expected.item(), abs=0.2)


class Unaware(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, y):
        return self.gain * y


def test_a_network_that_takes_no_level_is_refused_before_training():
    with pytest.raises(InputError, match=r"Unaware\.forward takes no noise level; give forward"):
        fit(Unaware(), torch.zeros(2, 1, 4, 4), TrainingSpec(steps=1, batch=1, evaluations=1))


@pytest.mark.parametrize("study", [clusters, transition])
def test_sampling_starts_at_a_level_that_was_trained(study):
    network = NetworkSpec(kind="conditioned_unet")
    with pytest.raises(ValueError, match=r"sampling.sigma_max 2 is above training.sigma_max 1, .*"):
        study.Spec(network=network)
    study.Spec(network=network, training=TrainingSpec(sigma_max=2))
    study.Spec(network=network, sampling=SamplingSpec(sigma_max=1))
