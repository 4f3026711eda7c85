"""Weights on disk: exact round trips, and one line for every file that is not one."""

import json
import re
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from twinscore.denoisers import BFCNN, Checkpoint, NetworkSpec, UNet, build, load, save
from twinscore.denoisers.checkpoint import WEIGHTS
from twinscore.denoisers.layers import generator_of
from twinscore.errors import InputError

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

SPECS = {
    "unet": NetworkSpec(width=3, levels=2),
    "bf_cnn": NetworkSpec(kind="bf_cnn", width=3, layers=4),
}


def written(path, spec=SPECS["unet"], channels=1):
    network = build(spec, channels, seed=1).to(memory_format=torch.channels_last).eval()
    for value in network.state_dict().values():
        value.add_(0.1)  # so that no buffer has its initial value
    checkpoint = Checkpoint(network, (channels, 9, 8), (0.25,) * channels)
    save(path, checkpoint, spec)
    return checkpoint


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip_bit_for_bit(tmp_path, spec, channels):
    before = written(tmp_path / WEIGHTS, spec, channels)
    y = torch.randn(2, channels, 9, 8, generator=generator_of(0))
    for path in (tmp_path, tmp_path / WEIGHTS, str(tmp_path)):
        after = load(path)
        assert type(after.denoiser) is (UNet if spec.root.kind == "unet" else BFCNN)
        assert not after.denoiser.training
        assert (after.shape, after.mean) == ((channels, 9, 8), before.mean)
        state = after.denoiser.state_dict()
        assert list(state) == list(before.denoiser.state_dict())
        for name, value in before.denoiser.state_dict().items():
            assert torch.equal(state[name], value)
        with torch.no_grad():  # the layout is that of training too
            assert torch.equal(after.denoiser(y), before.denoiser(y))
    assert [p.name for p in tmp_path.iterdir()] == [WEIGHTS]


def test_missing_files_are_refused(tmp_path):
    assert "not found" in refusal(tmp_path / "nowhere.safetensors")
    assert "unfinished" in refusal(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_truncated_files_are_refused(tmp_path, size):
    path = tmp_path / WEIGHTS
    written(path)
    path.write_bytes(path.read_bytes()[:size])
    assert "not a checkpoint that twinscore wrote" in refusal(path)


def test_garbage_is_refused(tmp_path):
    path = tmp_path / WEIGHTS
    path.write_bytes(b"\xff" * 1000)
    assert "not a checkpoint that twinscore wrote" in refusal(path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"twinscore": "{"},
        {"twinscore": "[]"},
        {"twinscore": json.dumps({"network": {"kind": "unet"}, "shape": [1, 8, 8]})},
        {"twinscore": json.dumps({"network": {"kind": "vae"}, "shape": [1, 8, 8], "mean": [0]})},
        {"twinscore": json.dumps({"network": {"kind": "unet"}, "shape": [], "mean": [0]})},
    ],
)
def test_foreign_safetensors_are_refused(tmp_path, metadata):
    path = tmp_path / WEIGHTS
    save_file({"weight": torch.zeros(3)}, path, metadata)
    assert "not a checkpoint that twinscore wrote" in refusal(path)


def rewritten(path, change):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as content:
        metadata = content.metadata()
    del metadata["sha256"]  # as earlier versions wrote it
    state = load_file(path)
    change(state)
    save_file(state, path, metadata)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("first.weight"), 'Missing key(s) in state_dict: "first.weight"'),
        (lambda s: s.update(extra=torch.zeros(1)), 'Unexpected key(s) in state_dict: "extra"'),
        (lambda s: s.update({"first.weight": torch.zeros(3, 1, 5, 5)}), "size mismatch"),
    ],
)
def test_tensors_of_another_network_are_refused(tmp_path, change, reason):
    path = tmp_path / WEIGHTS
    written(path)
    rewritten(path, change)
    message = refusal(path)
    assert "weights do not fit" in message
    assert re.search(re.escape(reason), message)


class Tied(nn.Module):
    """A user's network, with one weight used twice and an integer buffer."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = self.first
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, y, sigma=None):
        return self.norm(self.second(self.first(y)))


def test_networks_of_the_user(tmp_path):
    with torch.random.fork_rng(devices=[]):
        network = Tied(2).to(memory_format=torch.channels_last).eval()
    path = tmp_path / WEIGHTS
    save(path, Checkpoint(network, (2, 5, 5), (0.5, 0.5)), "mine.Tied")
    assert "mine.Tied" in refusal(path)
    again = load(path, network=Tied).denoiser
    y = torch.randn(2, 2, 5, 5, generator=generator_of(0))
    with torch.no_grad():
        assert torch.equal(again(y), network(y))
    assert "do not fit" in refusal(path, network=lambda c: UNet(c, width=2, levels=1))


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / WEIGHTS
    written(path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot be written"):
            written(path, NetworkSpec(width=16, levels=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [WEIGHTS]
