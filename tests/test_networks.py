"""The published networks: sizes, no additive term, homogeneity, any image size, seeds."""

import inspect

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from twinscore.denoisers import BFCNN, NetworkSpec, UNet, build
from twinscore.denoisers import spec as specs
from twinscore.denoisers.layers import generator_of

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def trained_looking(network, seed=0):
    """Random gains and running deviations, as after a training, in evaluation mode.

    The deviations are above 1 so that the output neither explodes nor vanishes.
    """
    generator = generator_of(seed)
    for name, value in network.state_dict().items():
        if name.endswith(("gain", "running_sd")):
            value.copy_(1 + torch.rand(value.shape, generator=generator))
    return network.eval()


NETWORKS = {
    "unet": trained_looking(UNet(width=4, levels=2)),
    "unet, 3 levels, 3 convolutions": trained_looking(UNet(width=3, levels=3, convolutions=3)),
    "unet, colour": trained_looking(UNet(channels=3, width=4, levels=1)),
    "bf_cnn": trained_looking(BFCNN(width=5, layers=6)),
    "bf_cnn, colour": trained_looking(BFCNN(channels=3, width=5, layers=3)),
}


def test_published_sizes():
    assert parameters(UNet()) == 7_659_264
    assert parameters(BFCNN()) == 702_784
    assert parameters(UNet(width=32, levels=2)) == parameters(
        build(NetworkSpec(width=32, levels=2), 1, 0)
    )


def test_bf_cnn_sees_43_by_43_pixels():
    network = BFCNN()
    for module in network.modules():  # every tap counts, for any random weights
        if hasattr(module, "weight"):
            module.weight.data.fill_(1 / module.weight[0].numel())
    y = torch.rand(1, 1, 61, 61, generator=generator_of(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(network.eval()(y)[0, 0, 30, 30], y)
    seen = torch.zeros(61, 61, dtype=torch.bool)
    seen[30 - 21 : 30 + 22, 30 - 21 : 30 + 22] = True
    assert torch.equal(gradient[0, 0] != 0, seen)


def test_bf_cnn_first_layer_is_linear_and_has_no_normalisation():
    """With one inner layer, the chain is exactly: convolve, convolve, normalise, relu, convolve."""
    network = trained_looking(BFCNN(width=3, layers=3))
    y = torch.randn(2, 1, 7, 6, generator=generator_of(1))
    convolve = lambda x, w: nn.functional.conv2d(x, w, padding=1)  # noqa: E731
    state = network.state_dict()
    hidden = convolve(convolve(y, state["first.weight"]), state["inner.0.weight"])
    hidden = (hidden * state["inner.1.gain"] / state["inner.1.running_sd"]).relu()
    expected = y - convolve(hidden, state["last.weight"])
    torch.testing.assert_close(network(y), expected)


def test_unet_is_the_published_graph():
    """One level, written out: two blocks down and middle, one up with its skip."""
    network = trained_looking(UNet(width=2, levels=1))
    state = network.state_dict()
    convolve = lambda x, name: nn.functional.conv2d(x, state[name + ".weight"], padding=1)  # noqa: E731

    def block(x, name, start=0):
        for i in range(start, 4, 2):
            x = convolve(x, f"{name}.{i - start}")
            x = (x * state[f"{name}.{i - start + 1}.gain"]).relu()
            x = x / state[f"{name}.{i - start + 1}.running_sd"]
        return x

    y = torch.randn(2, 1, 6, 4, generator=generator_of(1))
    skip = block(convolve(y, "first").relu(), "encoder.0", start=2)
    middle = block(nn.functional.avg_pool2d(skip, 2), "middle")
    up = nn.functional.conv_transpose2d(middle, state["up.0.weight"], stride=2)
    x = block(torch.cat([up, skip], 1), "decoder.0", start=2)
    torch.testing.assert_close(network(y), y - convolve(x, "last"))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_no_parameter_or_buffer_is_additive(network):
    names = {name.rsplit(".", 1)[-1] for name in network.state_dict()}
    assert names == {"weight", "gain", "running_sd"}
    for name, value in network.state_dict().items():
        assert value.ndim == 4
        if not name.endswith("weight"):
            assert value.shape == (1, value.shape[1], 1, 1)
    assert not any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in network.modules())
    channels = network.first.weight.shape[1]
    assert not network(torch.zeros(1, channels, 9, 7)).any()


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@settings(deadline=None, max_examples=25)
@given(
    scale=st.floats(1e-3, 1e3),
    height=st.integers(1, 9),
    width=st.integers(1, 7),
    seed=st.integers(0, 2**32),
)
@example(scale=3.0, height=1, width=1, seed=0)
@example(scale=0.1, height=9, width=7, seed=0)
def test_scaling_the_input_scales_the_output(network, scale, height, width, seed):
    y = torch.randn(2, network.first.weight.shape[1], height, width, generator=generator_of(seed))
    with torch.no_grad():
        expected, found = scale * network(y), network(scale * y)
    assert expected.shape == y.shape
    # Relative to the largest value: single pixels may cancel in y - noise.
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_default_unet_is_homogeneous_at_odd_sizes():
    network = trained_looking(UNet())
    y = torch.randn(1, 1, 21, 13, generator=generator_of(0))
    with torch.no_grad():
        expected, found = 7.3 * network(y), network(7.3 * y)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_padding_repeats_the_border():
    network = NETWORKS["unet"]
    y = torch.randn(2, 1, 6, 7, generator=generator_of(0))
    padded = torch.cat([y, y[..., -1:]], 3)
    padded = torch.cat([padded, padded[..., -1:, :], padded[..., -1:, :]], 2)
    with torch.no_grad():
        assert torch.equal(network(y), network(padded)[..., :6, :7])


@pytest.mark.parametrize("kind", [UNet, BFCNN])
def test_images_of_a_batch_do_not_mix_in_evaluation(kind):
    network = trained_looking(kind(width=4))
    y = torch.randn(5, 1, 8, 8, generator=generator_of(0))
    with torch.no_grad():
        # another batch size may choose another kernel: float32 rounding
        torch.testing.assert_close(network(y)[2:3], network(y[2:3]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [UNet, BFCNN])
def test_weights_depend_on_the_seed_only(kind):
    first, again, other = (kind(width=4, seed=s) for s in (1, 1, 2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        if name.endswith("weight"):
            assert not torch.equal(value, other.state_dict()[name])


@pytest.mark.parametrize("kind", [UNet, BFCNN])
def test_sigma_is_ignored(kind):
    network = kind(width=4).eval()
    y = torch.randn(2, 1, 8, 8, generator=generator_of(0))
    with torch.no_grad():
        assert torch.equal(network(y), network(y, 0.3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: UNet(levels=0),
        lambda: UNet(convolutions=1),
        lambda: UNet(width=0),
        lambda: BFCNN(layers=1),
        lambda: BFCNN(channels=0),
        lambda: NetworkSpec(kind="bf_cnn", levels=2),
        lambda: NetworkSpec(kind="unet", layers=5),
        lambda: NetworkSpec(kind="resnet"),
        lambda: NetworkSpec(widht=5),
    ],
)
def test_impossible_networks_are_refused(make):
    with pytest.raises((ValueError, ValidationError)):
        make()


def test_a_spec_fills_in_the_published_defaults():
    assert NetworkSpec().model_dump() == {
        "kind": "unet", "width": 64, "levels": 3, "convolutions": 2,
    }  # fmt: skip
    assert NetworkSpec(kind="bf_cnn").model_dump() == {"kind": "bf_cnn", "width": 64, "layers": 21}
    assert NetworkSpec(width=64).model_dump() == NetworkSpec().model_dump()


@pytest.mark.parametrize("kind", specs.NETWORKS)
def test_spec_and_network_have_the_same_fields_and_defaults(kind):
    spec, network = specs.NETWORKS[kind]
    sizes = dict(inspect.signature(network).parameters)
    assert sizes.pop("channels").default == 1
    assert sizes.pop("seed").default == 0
    assert {name: size.default for name, size in sizes.items()} == spec().model_dump(
        exclude={"kind"}
    )
    assert spec().kind == kind


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"kind": "bf_cnn", "levels": 2}, "bf_cnn has no field levels; it has width, layers"),
        ({"layers": 5}, "unet has no field layers; it has width, levels, convolutions"),
        (
            {"kind": ["unet"]},
            "kind must be one of unet, bf_cnn, conditioned_unet, own; got ['unet']",
        ),
    ],
)
def test_a_spec_says_which_fields_its_kind_has(given, complaint):
    with pytest.raises(ValidationError) as caught:
        NetworkSpec(**given)
    [error] = caught.value.errors()
    assert (error["loc"], error["msg"]) == ((), f"Value error, {complaint}")


def test_an_empty_field_stands_for_its_default():
    spec = NetworkSpec(kind="bf_cnn", width=None, levels=None, layers=9)
    assert spec == NetworkSpec(kind="bf_cnn", layers=9)
    assert hash(spec) == hash(NetworkSpec(kind="bf_cnn", layers=9))
