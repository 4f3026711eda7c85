"""What a model is known by: wherever it holds its network, the weights and not the name."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from twinscore import cli
from twinscore.denoisers import Checkpoint, adapters, check, load, parts
from twinscore.denoisers.checkpoint import model_digest
from twinscore.denoisers.closed_form import Gaussian
from twinscore.errors import InputError
from twinscore.experiments import audit
from twinscore.experiments.audit import embedding

MINE = """
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

import helper
from twinscore.denoisers import Checkpoint

SEEN = Path(__file__).with_name("weights.npy")

class Shrinkage(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.as_tensor(gain))

    def forward(self, y, sigma=None):
        return self.gain * y

    def denoise(self, y, sigma):
        return self(y)

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self._inner = [made()]

    def forward(self, y, sigma):
        return self._inner[0](y)

class Slotted:
    __slots__ = ("network",)

    def __init__(self):
        self.network = made()

    def __call__(self, y, sigma):
        return self.network(y)

class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.from_numpy(np.load(SEEN)), persistent=False)

    def forward(self, y, sigma):
        return self.gain * y

def made():
    return Shrinkage(np.load(SEEN))

NETWORK = made()
TABLE = {"deep": [SimpleNamespace(network=made())]}

def closure():
    network = made()
    def denoise(y, sigma):
        return network(y)
    return denoise

def anonymous():
    network = made()
    return lambda y, sigma: network(y)

def shrinking():
    network = made()
    return lambda y, sigma: network(y) / (1 + 4 * sigma.view(-1, 1, 1, 1)**2)

def nested():
    inner = closure()
    return lambda y, sigma: (lambda z: inner(z, sigma))(y)

def partially():
    return partial(lambda network, y, sigma: network(y), made())

def method():
    return made().denoise

def of_a_global():
    return lambda y, sigma: NETWORK(y)

def of_a_container():
    return lambda y, sigma: TABLE["deep"][0].network(y)

def of_a_helper():
    return lambda y, sigma: helper.kept.network(y)

def of_a_default():
    return lambda y, sigma, network=made(): network(y)

def hidden():
    return Hidden()

def slotted():
    return Slotted()

def instance():
    return Slotted().__call__

def decorated():
    return torch.no_grad()(closure())

def adapted():
    from twinscore.denoisers import adapters
    return adapters.with_range(closure(), -1, 1)

def known():
    return Checkpoint(closure(), (1, 8, 8), (0.3,))

def compiled():
    return torch.jit.script(made())

def buffered():
    return Buffered()

def tensor():
    gain = torch.from_numpy(np.load(SEEN))
    return lambda y, sigma: gain * y

def array():
    gain = np.load(SEEN)
    return lambda y, sigma: torch.from_numpy(gain) * y

def number():
    gain = float(np.load(SEEN))
    return lambda y, sigma: gain * y

def code():
    return lambda y, sigma: helper.twice(y) / 2

@lru_cache
def once():
    return made()

def cached():
    return lambda y, sigma: once()(y)

def reading():
    return lambda y, sigma: float(np.load(SEEN)) * y

LATE = None

def late():
    def denoise(y, sigma):
        global LATE
        LATE = LATE or made()
        return LATE(y)
    return denoise

def opaque():
    generator = torch.Generator()
    return lambda y, sigma: y + 0 * torch.rand((), generator=generator)

def vouched():
    return Checkpoint(reading(), (1, 8, 8), (0.3,), content=f"gain {np.load(SEEN)}")
"""
HELPER = """
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

class Gain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        gain = np.load(Path(__file__).with_name("weights.npy"))
        self.gain = torch.nn.Parameter(torch.as_tensor(gain))

    def forward(self, y):
        return self.gain * y

kept = SimpleNamespace(network=Gain())

def twice(y):
    return 2 * y
"""
OF_NETWORKS = [
    *("closure", "anonymous", "nested", "partially", "method", "of_a_global", "of_a_container"),
    *("of_a_helper", "of_a_default", "hidden", "slotted", "instance", "decorated", "adapted"),
    *("known", "compiled"),
]
OF_VALUES = ["buffered", "tensor", "array", "number"]


@pytest.fixture
def mine(tmp_path):
    """A file of the user's, the helper that it imports, and the weights that both read."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text(HELPER)
    put(tmp_path, 0.5)
    return tmp_path / "mine.py"


def put(folder, gain):
    np.save(folder / "weights.npy", np.array(gain, dtype=np.float32))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", [*OF_NETWORKS, *OF_VALUES, "vouched"])
def test_weights_are_known_by_their_values_wherever_they_are(mine, name):
    model, y = f"{mine}:{name}", torch.rand(2, 1, 8, 8)
    before = model_digest(load(model))
    assert model_digest(load(model)) == before
    put(mine.parent, 0.25)
    opened = load(model)
    assert model_digest(opened) != before
    scale = 0.25 if name != "adapted" else None
    if scale:
        torch.testing.assert_close(opened.denoiser(y, 0.1), scale * y)
    put(mine.parent, 0.5)
    assert model_digest(load(model)) == before


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", OF_NETWORKS)
def test_a_network_moves_and_shows_its_mode_wherever_it_is(mine, name):
    opened = load(f"{mine}:{name}")
    networks = [net for net in opened.denoiser.modules() if hasattr(net, "gain")]
    assert networks
    assert not any(net.training for net in networks)
    check(opened.denoiser, torch.rand(2, 1, 8, 8), 0.1)
    networks[0].train()
    with pytest.raises(ValueError, match="training mode"):
        check(opened.denoiser, torch.rand(2, 1, 8, 8), 0.1)
    opened.on("meta")
    assert all(net.gain.is_meta for net in networks)


def test_code_of_other_files_is_a_part_too(mine):
    before = model_digest(load(f"{mine}:code"))
    helper = mine.with_name("helper.py")
    helper.write_text(HELPER.replace("return 2 * y", "return 3 * y"))
    opened = load(f"{mine}:code")
    assert model_digest(opened) != before
    y = torch.rand(1, 1, 2, 2)
    torch.testing.assert_close(opened.denoiser(y, 0.1), 1.5 * y)
    assert "helper" not in sys.modules


def test_a_digest_is_the_same_in_every_process(mine):
    code = (
        "import sys; from twinscore.denoisers import load\n"
        "from twinscore.denoisers.checkpoint import model_digest\n"
        "for name in sys.argv[2:]: print(model_digest(load(f'{sys.argv[1]}:{name}')))"
    )
    names = [name for name in (*OF_NETWORKS, *OF_VALUES) if name != "compiled"]
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(mine), *names],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(set(found[0].split())) == len(names)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cached", "what once has cached cannot be seen"),
        ("reading", "brings in by load cannot be seen"),
        ("late", "the global names that late.<locals>.denoise sets cannot be seen"),
        ("opaque", "what an object of torch._C.Generator holds cannot be seen"),
    ],
)
def test_what_cannot_be_seen_is_refused_and_content_asked_for(mine, name, says):
    with pytest.raises(InputError) as caught:
        load(f"{mine}:{name}")
    assert f"mine.py:{name}: cannot tell one version of it from another: " in str(caught.value)
    assert says in str(caught.value)
    assert "content=...)" in str(caught.value)


def test_a_run_with_other_weights_is_another_run(mine, capsys):
    words = ["harmonics", "--model", f"{mine}:shrinking", "--data", "digits", "--sigmas", "0.2"]
    words += ["--draws", "2", "--out", str(mine.parent / "run")]
    put(mine.parent, 0.95)  # else another convention would fit better
    assert cli.main(words) == 0
    put(mine.parent, 0.97)
    capsys.readouterr()
    assert cli.main(words) == 2
    assert "differs in model)" in capsys.readouterr().err


EMBEDDING = """
from pathlib import Path
import numpy as np
import torch

def mine():
    net = torch.nn.Linear(64, 4)
    net.weight.data.fill_(float(np.load(Path(__file__).with_name("weights.npy"))))
    net.bias.data.zero_()
    return lambda x: net(x.flatten(1))
"""


def test_an_embedding_is_known_by_its_weights(tmp_path):
    file = tmp_path / "embedding.py"
    file.write_text(EMBEDDING)
    found = []
    for gain in (0.5, 0.25, 0.5):
        put(tmp_path, gain)
        spec = audit.Spec(
            samples="discs:size=8,count=40,seed=1",
            train="discs:size=8,count=50,seed=1",
            embedding=f"{file}:mine",
        )
        found.append(audit.check_sets(spec)["embedding_digest"])
    assert found[0] == found[2] != found[1]
    net = parts.networks(embedding.opened(f"{file}:mine")[0])[0]
    assert not net.training


class Looped(nn.Module):
    """Refers to itself by a function that it holds."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.again = lambda y: self(y)

    def forward(self, y, sigma=None):
        return self.gain * y


def test_circles_end_and_parts_are_found_once():
    net = Looped()
    both = partial(lambda a, b, y, sigma: a(y) + b(y), net, net.forward)
    assert parts.networks(both) == [net]
    parts.fingerprint(both)
    outer = adapters.level_per_image(adapters.with_range(both, -1, 1))
    assert [name for name, _ in outer.named_parameters()] == ["network.inside.0.gain"]


def test_a_closed_form_has_no_networks_and_is_known_by_its_numbers():
    one, other = (
        Gaussian.of(torch.zeros(1, 2, 2), gain * torch.eye(4, dtype=torch.float64))
        for gain in (1.0, 2.0)
    )
    assert parts.networks(one) == []
    assert not parts.trains(one)
    assert parts.fingerprint(one) != parts.fingerprint(other)
    assert parts.fingerprint(lambda y, s: one(y, s)) != parts.fingerprint(lambda y, s: other(y, s))


def test_a_bare_function_in_python_moves_its_network():
    net = nn.Conv2d(1, 1, 1)
    Checkpoint(lambda y, sigma: net(y), (1, 4, 4), (0.5,)).on("meta")
    assert net.weight.is_meta
