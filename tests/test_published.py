"""Published checkpoints: the same function from the same tensors, and one line for other files."""

import importlib.util
import os
import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

import published_layout as layout
from twinscore.denoisers import BFCNN, UNet, load
from twinscore.denoisers.layers import generator_of
from twinscore.denoisers.published import network_of
from twinscore.errors import InputError

PUBLISHED = os.environ.get("TWINSCORE_PUBLISHED")
needs_published = pytest.mark.skipif(
    not PUBLISHED, reason="TWINSCORE_PUBLISHED does not name the folder of the published code"
)
UNETS = [
    {},
    {"channels": 3, "levels": 1},
    {"levels": 3, "convolutions": 3, "width": 2},
]
BF_CNNS = [{}, {"channels": 3, "layers": 3}, {"points": (1, 3)}]


def noisy(channels=1):
    return torch.randn(2, channels, 16, 24, generator=generator_of(5))


@torch.no_grad()
def relative_error(denoiser, residual, y):
    """Of the predicted noise, in the maximum norm."""
    return ((y - denoiser(y)) - residual).abs().max() / residual.abs().max()


def saved(path, state):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


@pytest.mark.parametrize("sizes", UNETS, ids=str)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_unet_computes_what_its_tensors_say(tmp_path, sizes, prefix):
    state = layout.unet(**sizes)
    path = saved(tmp_path / "model.pt", {prefix + key: value for key, value in state.items()})
    model = load(f"lcv:{path}")
    assert type(model.denoiser) is UNet
    channels = sizes.get("channels", 1)
    assert (model.shape, model.mean) == ((channels, None, None), (0.5,) * channels)
    assert not model.denoiser.training
    like = {key: value for key, value in sizes.items() if key in ("levels", "convolutions")}
    y = noisy(channels)
    # 1e-5: float32, whose sums come in another order in another memory layout
    assert relative_error(model.denoiser, layout.unet_residual(state, y, **like), y) < 1e-5
    assert (
        load(f"lcv:{tmp_path}").denoiser.state_dict().keys() == model.denoiser.state_dict().keys()
    )


@pytest.mark.parametrize("sizes", BF_CNNS, ids=str)
@pytest.mark.parametrize(("first_relu", "prefix"), [(False, ""), (True, ""), (False, "module.")])
def test_a_bf_cnn_computes_what_its_tensors_say(tmp_path, sizes, first_relu, prefix):
    state = layout.bf_cnn(**sizes)
    path = saved(tmp_path / "model.pt", {prefix + key: value for key, value in state.items()})
    model = load(f"lcv:{path},first=relu" if first_relu else f"lcv:{path}")
    assert type(model.denoiser) is BFCNN
    y = noisy(sizes.get("channels", 1))
    expected = layout.bf_cnn_residual(state, y, sizes.get("layers", 6), first_relu)
    assert relative_error(model.denoiser, expected, y) < 1e-5
    other = layout.bf_cnn_residual(state, y, sizes.get("layers", 6), not first_relu)
    assert relative_error(model.denoiser, other, y) > 1e-2


def test_default_sizes_give_the_published_numbers_of_parameters():
    def parameters(network):
        return sum(p.numel() for p in network.parameters())

    assert parameters(network_of(layout.unet(width=64, levels=3))) == 7_659_264
    assert parameters(network_of(layout.bf_cnn(width=64, layers=21))) == 702_784


def network_module():
    spec = importlib.util.spec_from_file_location("network", Path(PUBLISHED) / "network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ARGUMENTS = {
    "kernel_size": 3,
    "padding": 1,
    "bias": False,
    "num_channels": 1,
    "num_kernels": 8,
    "pool_window": 2,
    "num_enc_conv": 2,
    "num_mid_conv": 2,
    "num_dec_conv": 2,
    "num_blocks": 3,
    "num_layers": 21,
    "first_layer_linear": True,
    "coarse": True,
    "RF": 43,
}
CODE = {
    "UNet": ("UNet", {}),
    "UNet, deep": ("UNet", {"num_enc_conv": 3, "num_mid_conv": 3, "num_dec_conv": 3}),
    "UNet, colour": ("UNet", {"num_channels": 3, "num_blocks": 1}),
    "BF_CNN": ("BF_CNN", {}),
    "BF_CNN, ReLU": ("BF_CNN", {"first_layer_linear": False}),
    "BF_CNN_RF 43": ("BF_CNN_RF", {}),
    "BF_CNN_RF 13": ("BF_CNN_RF", {"RF": 13}),
}


@needs_published
@pytest.mark.parametrize("case", CODE)
def test_the_published_code_computes_the_same(tmp_path, case):
    name, changed = CODE[case]
    arguments = Namespace(**ARGUMENTS | changed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = getattr(network_module(), name)(arguments).eval()
    draw = generator_of(3)
    for key, value in theirs.state_dict().items():  # untrained, they would predict almost 0
        if key.endswith(("gammas", "running_sd")):
            value.copy_(0.5 + torch.rand(value.shape, generator=draw))
        else:
            fan_in = value.shape[0] if key.startswith("upsample") else value[0].numel()
            value.copy_(torch.randn(value.shape, generator=draw) * (2 / fan_in) ** 0.5)
    path = saved(tmp_path / "model.pt", nn.DataParallel(theirs).state_dict())
    option = ",first=relu" if changed.get("first_layer_linear") is False else ""
    y = noisy(arguments.num_channels)
    with torch.no_grad():
        residual = theirs(y)
    assert relative_error(load(f"lcv:{path}{option}").denoiser, residual, y) < 1e-5


def changed(state, **tensors):
    return state | {key.replace("__", "."): value for key, value in tensors.items()}


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


WRONG = {
    "another network": (lambda: {"fc.weight": torch.zeros(3, 3)}, "neither encoder"),
    "no dict": (lambda: torch.zeros(3), "not a state dict"),
    "numbers for names": (lambda: {0: torch.zeros(3)}, "not a state dict"),
    "a training state": (lambda: {"epoch": 3, "model": layout.unet()}, "not a state dict"),
    "one tensor missing": (
        lambda: without(layout.unet(), "encoder.1.1.gammas"),
        "Missing key(s) in state_dict: encoder.1.1.gain",
    ),
    "no upsampling": (lambda: without(layout.unet(), "upsample.1.weight"), "upsample.1.weight"),
    "a bias": (lambda: changed(layout.unet(), encoder__0__0__bias=torch.zeros(4)), "first.bias"),
    "more layers": (lambda: changed(layout.unet(), embed__weight=torch.zeros(4)), "1 tensors more"),
    "kernels of 5x5": (
        lambda: changed(layout.unet(), mid_block__3__weight=torch.zeros(16, 16, 5, 5)),
        "size mismatch",
    ),
    "uneven blocks": (
        lambda: (
            layout.unet() | {f"mid_block.6.{k}": v for k, v in {"weight": torch.zeros(1)}.items()}
        ),
        "2, 3 convolutions",
    ),
    "one convolution a block": (lambda: layout.unet(convolutions=1), "convolutions: Input"),
    "a normalisation missing": (
        lambda: {k: v for k, v in layout.bf_cnn().items() if not k.startswith("BN_layers.2")},
        "has 3 normalisations for 4 inner convolutions",
    ),
    "a conditional network": (
        lambda: changed(layout.bf_cnn(), conv_layers__0__weight=torch.zeros(5, 4, 3, 3)),
        "size mismatch",
    ),
}


def refusal(model):
    with pytest.raises(InputError) as caught:
        load(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("case", WRONG)
def test_other_tensors_are_refused_in_one_line(tmp_path, case):
    make, says = WRONG[case]
    path = saved(tmp_path / "model.pt", make())
    message = refusal(f"lcv:{path}")
    assert str(path) in message
    assert says in message.replace('"', "")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "sprung"))


def test_nothing_is_unpickled(tmp_path):
    trap = tmp_path / "sprung"
    (tmp_path / "exp_arguments.pkl").write_bytes(pickle.dumps(Trap(trap)))
    assert "not a file of tensors" in refusal(f"lcv:{tmp_path / 'exp_arguments.pkl'}")
    saved(tmp_path / "model.pt", {"encoder.0.0.weight": Trap(trap)})
    assert "not a file of tensors" in refusal(f"lcv:{tmp_path}")
    saved(tmp_path / "model.pt", layout.unet())
    load(f"lcv:{tmp_path}")
    assert not trap.exists()


def test_other_files_are_refused_in_one_line(tmp_path):
    assert "not found" in refusal(f"lcv:{tmp_path / 'nowhere.pt'}")
    assert "not found" in refusal(f"lcv:{tmp_path}")
    path = saved(tmp_path / "model.pt", layout.unet())
    for content in (b"", b"text\n", path.read_bytes()[:3000]):
        path.write_bytes(content)
        assert "not a file of tensors" in refusal(f"lcv:{path}")
    torch.save(layout.bf_cnn(width=2, layers=3), path, _use_new_zipfile_serialization=False)
    assert "not a file of tensors that torch.save wrote (since PyTorch 1.6)" in refusal(
        f"lcv:{path}"
    )
    saved(path, layout.unet())
    assert "first=relu is for BF-CNN" in refusal(f"lcv:{path},first=relu")
