"""Networks in files that hold their code: ONNX, torch.export, TorchScript."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from twinscore import cli
from twinscore.analysis.jacobian import linearise
from twinscore.denoisers import check, load
from twinscore.denoisers.checkpoint import model_digest
from twinscore.denoisers.layers import generator_of
from twinscore.errors import InputError

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

Y = torch.rand(3, 1, 8, 8, generator=generator_of(0))
SIGMA = torch.tensor([0.1, 0.5, 2.0])


class Told(nn.Module):
    """``y - sigma c(y) / (1 + sigma)``, with a smooth c."""

    def __init__(self, gain=0.2):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.first = nn.Conv2d(1, 2, 3, padding=1)
            self.last = nn.Conv2d(2, 1, 3, padding=1, bias=False)
        with torch.no_grad():
            for part in self.parameters():
                values = torch.rand(part.shape, generator=generator_of(part.numel()))
                part.copy_(gain * (values - 0.5))

    def noise(self, y):
        return self.last(torch.tanh(self.first(y)))

    def forward(self, y, sigma):
        level = sigma.view(-1, 1, 1, 1)
        return y - level / (1 + level) * self.noise(y)


class Blind(Told):
    def forward(self, y):
        return y - self.noise(y) / 2


class Unset(Told):
    def forward(self, y, sigma: torch.Tensor | None = None):
        return y - self.noise(y) / 2


class Three(Told):
    def forward(self, y, sigma, more):
        return y - self.noise(y) + more


def quietly(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return function(*args, **options)


def write_program(path, network, *given, dynamic=True):
    given = given or ((Y,) if isinstance(network, Blind) else (Y, SIGMA))
    free = {0: torch.export.Dim.DYNAMIC}
    shapes = tuple(None if of is None else free for of in given) if dynamic else None
    torch.export.save(torch.export.export(network.eval(), given, dynamic_shapes=shapes), path)


def write_script(path, network):
    quietly(torch.jit.save, quietly(torch.jit.script, network.eval()), path)


def write_trace(path, network):
    given = (Y,) if isinstance(network, Blind) else (Y, SIGMA)
    quietly(torch.jit.save, quietly(torch.jit.trace, network.eval(), given), path)


def write_onnx(path, network, batch="B", side=8):
    """The nodes of :class:`Told`, by hand: the exporter of torch needs packages of its own."""
    kind, weights = TensorProto.FLOAT, {k: v.numpy() for k, v in network.state_dict().items()}
    told = not isinstance(network, Blind)
    constants = weights | {"one": np.ones(1, np.float32), "axes": np.array([1, 2, 3])}
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["y", "first.weight", "first.bias"], ["hidden"], **pads),
        helper.make_node("Tanh", ["hidden"], ["bent"]),
        helper.make_node("Conv", ["bent", "last.weight"], ["noise"], **pads),
        helper.make_node("Add", ["level", "one"], ["above"]),
        helper.make_node("Div", ["level", "above"], ["share"]),
        helper.make_node("Mul", ["share", "noise"], ["taken"]),
        helper.make_node("Sub", ["y", "taken"], ["x_hat"]),
    ]
    level = ["Unsqueeze", ["sigma", "axes"]] if told else ["Identity", ["one"]]
    nodes.insert(0, helper.make_node(*level, ["level"]))
    image = [batch, 1, side, side]
    inputs = [helper.make_tensor_value_info("y", kind, image)]
    inputs += [helper.make_tensor_value_info("sigma", kind, [batch])] if told else []
    graph = helper.make_graph(
        nodes,
        "denoiser",
        inputs,
        [helper.make_tensor_value_info("x_hat", kind, image)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class Modal(Told):
    """With parts that differ between the modes."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def noise(self, y):
        return self.last(self.part(torch.tanh(self.first(y))))


def in_mode(path, form, part, training):
    network = Modal(part).train(training)
    free = {0: torch.export.Dim.DYNAMIC}
    if form == "torchscript":
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trace = torch.jit.trace(network, (Y, SIGMA), check_trace=False)
        quietly(torch.jit.save, trace, path)
    elif form == "scripted":
        quietly(torch.jit.save, quietly(torch.jit.script, network), path)
    elif form == "torch-export":
        shapes = (free, free)
        torch.export.save(
            torch.export.export(network, (Y, SIGMA), dynamic_shapes=shapes, strict=False), path
        )
    else:
        names = {"input_names": ["y", "sigma"], "dynamic_axes": {"y": {0: "B"}, "sigma": {0: "B"}}}
        kept = torch.onnx.TrainingMode.PRESERVE
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (Y, SIGMA), path, dynamo=False, training=kept, **names)


@pytest.mark.parametrize("part", [nn.Dropout(0.3), nn.BatchNorm2d(2)], ids=["dropout", "batch"])
@pytest.mark.parametrize("form", ["torch-export", "torchscript", "onnx"])
def test_a_network_that_was_in_training_mode_is_refused(tmp_path, form, part):
    file = tmp_path / "a"
    in_mode(file, form, part, training=False)
    y = Y + SIGMA.view(-1, 1, 1, 1)
    again = load(f"{form}:{file}")(y, SIGMA)
    with torch.no_grad():
        torch.testing.assert_close(again, Modal(part).eval()(y, SIGMA), rtol=0, atol=1e-6)
    in_mode(file, form, part, training=True)
    with pytest.raises(InputError, match=r"was exported in training mode: its \S+ draws noise"):
        load(f"{form}:{file}")


def test_a_scripted_network_is_put_into_evaluation_mode(tmp_path):
    file = tmp_path / "a"
    in_mode(file, "scripted", part := nn.Dropout(0.3), training=True)
    with torch.no_grad():
        expected = Modal(part).eval()(Y, SIGMA)
    torch.testing.assert_close(load(f"torchscript:{file}")(Y, SIGMA), expected, rtol=0, atol=1e-6)


WRITERS = {
    "onnx": (write_onnx, "a.onnx"),
    "torch-export": (write_program, "a.pt2"),
    "torchscript": (write_script, "a.pt"),
}


@pytest.fixture(params=[*WRITERS, "traced"])
def written(request, tmp_path):
    """A writer, and the model string of what it writes."""
    write, name = WRITERS.get(request.param, (write_trace, "a.pt"))
    kind = "torchscript" if request.param == "traced" else request.param

    def call(network):
        write(tmp_path / name, network)
        return f"{kind}:{tmp_path / name}"

    return call


@pytest.mark.parametrize("network", [Told(), Blind()], ids=["told", "blind"])
def test_a_file_denoises_as_the_network_it_was_made_of(written, network):
    model = load(written(network))
    given = (Y,) if isinstance(network, Blind) else (Y, SIGMA)
    with torch.no_grad():
        expected = network.eval()(*given)
    found = check(model.denoiser, Y, SIGMA)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # float32 convolutions
    # other batches, and a float as the level
    torch.testing.assert_close(model(Y[:1], 0.1), model(Y, 0.1)[:1], rtol=0, atol=1e-6)
    assert not any(part.training for part in model.denoiser.modules())
    if isinstance(network, Told) and not isinstance(network, Blind):
        with pytest.raises(ValueError, match="needs the noise level; pass sigma"):
            model.denoiser(Y)


def test_the_digest_is_that_of_the_content(written, tmp_path):
    first, again = (model_digest(load(written(Told()))) for _ in range(2))
    other = model_digest(load(written(Told(gain=0.3))))
    assert first != other
    if "onnx" in written(Told()):  # torch writes the names of its files and times into them
        assert first == again


def test_what_a_file_says_of_its_images_is_known(tmp_path):
    write_onnx(tmp_path / "a.onnx", Told())
    write_program(tmp_path / "a.pt2", Told())
    for name in ("onnx:{}/a.onnx", "torch-export:{}/a.pt2"):
        assert load(name.format(tmp_path)).shape == (1, 8, 8)
    write_onnx(tmp_path / "free.onnx", Told(), side="side")
    assert load(f"onnx:{tmp_path}/free.onnx").shape == (1, None, None)
    assert load(f"onnx:{tmp_path}/free.onnx")(torch.zeros(1, 1, 5, 5), 0.1).shape == (1, 1, 5, 5)


def test_none_for_the_level_was_exported(tmp_path):
    write_program(tmp_path / "a.pt2", Unset(), Y, None)
    torch.testing.assert_close(load(f"torch-export:{tmp_path}/a.pt2")(Y, 0.3), Unset()(Y))


def one_node(path, node, *, kind, constants=()):
    """A network of y alone, of any type of numbers."""
    image = ["B", 1, 8, 8]
    given, out = (helper.make_tensor_value_info(name, kind, image) for name in ("y", "x_hat"))
    graph = helper.make_graph([node], "one node", [given], [out], constants)
    imports = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.write_bytes(model.SerializeToString())


def test_other_types_of_numbers_are_converted(tmp_path):
    third = onnx.numpy_helper.from_array(np.array(1 / 3), "third")
    node = helper.make_node("Mul", ["y", "third"], ["x_hat"])
    one_node(tmp_path / "a.onnx", node, kind=TensorProto.DOUBLE, constants=[third])
    found = load(f"onnx:{tmp_path}/a.onnx").denoiser
    assert torch.equal(found(Y.double(), SIGMA.double()), Y.double() * (1 / 3))
    assert torch.equal(found(Y, SIGMA), (Y.double() * (1 / 3)).float())


@pytest.mark.parametrize("kind", ["torch-export", "torchscript"])
def test_graphs_have_the_jacobian_of_their_network(tmp_path, kind):
    write, name = WRITERS[kind]
    write(tmp_path / name, Told())
    v = torch.randn(2, 1, 1, 8, 8, generator=generator_of(1))
    found = linearise(load(f"{kind}:{tmp_path / name}").denoiser, Y[:1], 0.5)
    exact = linearise(Told().eval(), Y[:1], 0.5)
    for product in ("push", "pull"):
        torch.testing.assert_close(
            getattr(found, product)(v), getattr(exact, product)(v), rtol=0, atol=1e-5
        )


def test_onnx_has_no_jacobian_and_says_so(tmp_path, capfd):
    write_onnx(tmp_path / "a.onnx", Told())
    with pytest.raises(InputError, match="an ONNX network has no derivatives, and so no Jacobian"):
        linearise(load(f"onnx:{tmp_path}/a.onnx").denoiser, Y[:1], 0.5)
    words = ["harmonics", "--model", f"onnx:{tmp_path}/a.onnx", "--data", "digits"]
    code = cli.main([*words, "--device", "cpu", "--out", str(tmp_path / "run")])
    said = capfd.readouterr().err.splitlines()
    assert code == 2
    assert said[-1].startswith(f"twinscore: --model: onnx:{tmp_path}/a.onnx: cannot be taken apart")
    assert "an ONNX network has no derivatives" in said[-1]


def wide(path):
    write_onnx(path, Told())
    model = onnx.load(path)
    model.graph.input.extend([helper.make_tensor_value_info("more", TensorProto.FLOAT, ["B"])])
    model.graph.output.extend([helper.make_tensor_value_info("more", TensorProto.FLOAT, ["B"])])
    path.write_bytes(model.SerializeToString())


def of_whole_numbers(path):
    one_node(path, helper.make_node("Identity", ["y"], ["x_hat"]), kind=TensorProto.INT64)


@pytest.mark.parametrize(
    ("kind", "make", "says"),
    [
        ("onnx", None, "No such file"),
        ("onnx", lambda p: p.write_text("nothing"), "is not an ONNX network: "),
        ("onnx", wide, "takes y ['B', 1, 8, 8], sigma ['B'], more ['B'] and gives 2 outputs; give"),
        ("onnx", of_whole_numbers, "takes tensor(int64); give a network of floating-point tensors"),
        ("onnx", lambda p: write_onnx(p, Told(), 1), "takes batches of 1 alone; export it with"),
        ("torch-export", None, "cannot be read: No such file"),
        ("torch-export", lambda p: p.write_text("nothing"), "is not a file of torch.export.save: "),
        ("torch-export", lambda p: write_script(p, Told()), "it has no archive_format"),
        ("torch-export", lambda p: p.write_bytes(b"PK\3\4"), "is not a file of torch.export.save"),
        (
            "torch-export",
            lambda p: write_program(p, Told(), dynamic=False),
            "takes batches of 3 alone; export it with a dynamic first axis",
        ),
        (
            "torch-export",
            lambda p: write_program(p, Three(), Y, SIGMA, torch.ones(3, 1, 1, 1)),
            "give a network of y (B, C, H, W) and sigma (B,), or of y alone",
        ),
        ("torchscript", None, "cannot be read: No such file"),
        ("torchscript", lambda p: p.write_text("nothing"), "is not a TorchScript file with a for"),
        ("torchscript", lambda p: write_program(p.with_suffix(".pt2"), Told()), "cannot be read"),
        ("torchscript", lambda p: write_script(p, Three()), "takes y, sigma, more; give a network"),
    ],
)
def test_what_is_no_denoiser_is_refused_in_one_line(tmp_path, capfd, kind, make, says):
    path = tmp_path / ("a.pt2" if kind == "torch-export" else "a.file")
    if make:
        make(path)
    capfd.readouterr()
    with pytest.raises(InputError) as caught:
        load(f"{kind}:{path}")
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_images_that_a_network_does_not_take_are_refused_in_one_line(tmp_path):
    write_onnx(tmp_path / "a.onnx", Told())
    with pytest.raises(InputError, match=r"fails on images \(1, 1, 9, 9\): .*Got: 9 Expected: 8"):
        load(f"onnx:{tmp_path}/a.onnx")(torch.zeros(1, 1, 9, 9), 0.1)


def test_a_function_of_the_users_wraps_a_file(tmp_path):
    write_program(tmp_path / "a.pt2", Told())
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\n"
        "from twinscore.denoisers import adapters, load\n\n\n"
        "def wrapped():\n"
        f"    model = load('torch-export:{tmp_path}/a.pt2')\n"
        "    return replace(model, denoiser=adapters.with_range(model.denoiser, -1, 1))\n"
    )
    model = load(f"{tmp_path}/mine.py:wrapped")
    expected = (Told()(2 * Y - 1, 2 * SIGMA) + 1) / 2
    torch.testing.assert_close(check(model.denoiser, Y, SIGMA), expected)
    before = model_digest(model)
    write_program(tmp_path / "a.pt2", Told(gain=0.3))
    assert model_digest(load(f"{tmp_path}/mine.py:wrapped")) != before
