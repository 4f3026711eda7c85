"""Twins of the user's own recipe: two halves, one verdict, and no training twice."""

import json
import re

import numpy as np
import pytest
import torch

from twinscore import cli, images
from twinscore.experiments import audit
from twinscore.experiments.audit import recipe
from twinscore.images import from_pixels, packed

pytestmark = pytest.mark.usefixtures("cheap")

MODULE = """
import json
from pathlib import Path
import torch
from twinscore.denoisers.closed_form import Empirical, Gaussian

LOG = Path(__file__).with_suffix(".calls")

class Linear(torch.nn.Module):
    '''The best linear denoiser of its images, at any level.'''

    def __init__(self, images):
        super().__init__()
        flat = images.flatten(1)
        self.register_buffer("mean", flat.mean(0))
        values, basis = torch.linalg.eigh(torch.cov(flat.T))
        self.register_buffer("values", values.clamp_min(1e-4))
        self.register_buffer("basis", basis)

    def forward(self, y, sigma):
        centred = (y.flatten(1) - self.mean) @ self.basis
        kept = self.values / (self.values + sigma[:, None] ** 2)
        return ((centred * kept) @ self.basis.T + self.mean).view_as(y)

class Nearest(torch.nn.Module):
    '''Repeats its images.'''

    def __init__(self, images):
        super().__init__()
        self.register_buffer("images", images)

    def forward(self, y, sigma):
        known = self.images.flatten(1)
        apart = (y.flatten(1)[:, None] - known).square().sum(2)
        weight = torch.softmax(-apart / (2 * sigma[:, None] ** 2), 1)
        return (weight @ known).view_as(y)

def note(images, seed):
    calls = json.loads(LOG.read_text()) if LOG.exists() else []
    LOG.write_text(json.dumps([*calls, [len(images), seed, float(images.double().sum())]]))

def train(images, seed):
    note(images, seed)
    return Linear(images)

def copy(images, seed):
    note(images, seed)
    return Nearest(images)

def closure(images, seed):
    note(images, seed)
    network = Linear(images)
    return lambda y, sigma: network.basis.new_tensor(network(y, sigma).tolist())

def function(images, seed):
    note(images, seed)
    values = images.mean(0)
    return lambda y, sigma: values.expand_as(y)

def nothing(images, seed):
    return None

def broken(images, seed):
    raise ValueError("no\\nluck")

def short(images):
    return None
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    digits = images.load("digits")
    keep = np.flatnonzero(~images.near_duplicates(digits, 0.97).drop)
    order = np.random.default_rng(0).permutation(keep)
    for name, start, stop in (("train", 0, 240), ("held", 240, 480), ("samples", 480, 580)):
        np.save(folder / f"{name}.npy", digits[order[start:stop]].numpy()[:, 0])
    return folder


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MODULE)
    return path


def words(folder, recipe, out):
    sets = {"train": "train", "held-out": "held", "samples": "samples"}
    flags = [x for flag, name in sets.items() for x in (f"--{flag}", f"{folder}/{name}.npy")]
    more = ("--recipe-samples", "64", "--sampling.steps", "12", "--device", "cpu")
    return ["audit", *flags, "--recipe", str(recipe), *more, "--out", str(out)]


def audited(folder, recipe, out, *more, capfd):
    code = cli.main([*words(folder, recipe, out), *more])
    said, path = capfd.readouterr(), out / "result.json"
    return code, json.loads(path.read_text()) if path.exists() else None, said.out, said.err


def calls(module):
    path = module.with_suffix(".calls")
    return json.loads(path.read_text()) if path.exists() else []


def test_halves_of_the_training_images_are_trained_on_once(folder, module, tmp_path, capfd):
    out = tmp_path / "run"
    _, found, said, errors = audited(folder, f"{module}:train", out, capfd=capfd)
    (n, seed_a, a), (m, seed_b, b) = calls(module)
    assert n == m == 120
    assert seed_a != seed_b
    total = np.load(folder / "train.npy").astype(float).sum()
    assert a + b == pytest.approx(total, rel=1e-9)
    twins = found["twins"]
    assert twins["n"] == 120
    assert set(twins) == {
        *("n", "verdict", "why", "memorisation", "agreement", "copies", "learned"),
    }
    # a Gaussian of 64 pixels that 120 images give copies none, and is that of the other half
    assert twins["copies"]["a"]["value"] <= 0.05
    assert twins["agreement"]["value"] > 0.3
    assert twins["verdict"] in ("generalises", "transition")
    assert f"twins of the recipe: {twins['verdict']} at N = 120: M " in said
    assert "two trainings of 120 images each" in errors
    assert "half A was trained in" in errors
    again = audited(folder, f"{module}:train", out, "--q", "0.2", capfd=capfd)[1]
    assert len(calls(module)) == 2
    assert again["twins"] == twins


def test_twins_that_copy_memorise(folder, module, tmp_path, capfd):
    found = audited(folder, f"{module}:copy", tmp_path / "run", capfd=capfd)[1]["twins"]
    assert found["verdict"] == "memorises"
    assert found["memorisation"]["value"] > 0.95
    assert found["memorisation"]["p"] <= 0.001
    assert found["copies"]["b"]["low"] > 0.8


def test_a_trained_half_is_not_trained_again(folder, module, tmp_path, capfd):
    """Killed between training and measuring: the network is there, and the measures are not."""
    out = tmp_path / "run"
    _, first, _, errors = audited(folder, f"{module}:train", out, capfd=capfd)
    assert "cannot be kept" not in errors
    for path in out.glob("trials/twin-*.safetensors"):
        path.unlink()
    assert len(list(out.glob("trials/twin-*.pt2"))) == 2
    again = audited(folder, f"{module}:train", out, capfd=capfd)[1]
    assert len(calls(module)) == 2
    assert again["twins"] == first["twins"]
    [half] = out.glob("trials/twin-a-*.pt2")
    half.write_bytes(half.read_bytes()[:-9])
    for path in out.glob("trials/twin-*.safetensors"):
        path.unlink()
    code, again, _, errors = audited(folder, f"{module}:train", out, capfd=capfd)
    assert (code, len(calls(module))) == (3 if again["verdict"] == "inconclusive" else 0, 3)
    assert "is not as it was written; trained again" in errors
    assert again["twins"] == first["twins"]


@pytest.mark.parametrize("name", ["function", "closure"])
def test_what_cannot_be_kept_is_said(folder, module, tmp_path, capfd, name):
    out = tmp_path / "run"
    _, found, _, errors = audited(folder, f"{module}:{name}", out, capfd=capfd)
    assert "half A cannot be kept, and so not be resumed: " in errors
    assert not list(out.glob("trials/twin-*.pt2"))
    audited(folder, f"{module}:{name}", out, capfd=capfd)
    assert len(calls(module)) == 2  # its measures are there
    if name == "function":
        assert found["twins"]["verdict"] == "has not learned"


def test_groups_are_dealt_as_a_whole(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
    people = [f"person {i // 2}" for i in range(24)]
    source = tmp_path / "people.safetensors"
    packed.write(source, from_pixels(pixels, groups=people))
    groups = images.load(str(source)).groups
    split = recipe._split(audit.Spec(train=str(source)))
    of = [{str(groups[i]) for i in half} for half in (split.a, split.b)]
    assert not of[0] & of[1]
    assert len(split.a) == len(split.b) == 12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.py", "is not a function of a file; give FILE.py:FUNCTION"),
        ("none.py:train", "none.py: cannot be read"),
        ("mine.py:missing", "cannot be read: AttributeError"),
        ("mine.py:short", r"does not take \(images, seed\)"),
    ],
)
def test_a_wrong_recipe_is_one_line_before_work_starts(
    folder, module, tmp_path, capfd, name, message
):
    out = tmp_path / "run"
    code, found, said, errors = audited(folder, module.with_name(name), out, capfd=capfd)
    assert (code, found, said) == (2, None, "")
    assert len(errors.splitlines()) == 1
    assert re.search(message, errors), errors
    assert not out.exists()
    assert calls(module) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "mine.py:broken: failed: ValueError: no luck"),
        ("nothing", "mine.py:nothing: returned NoneType; return a denoiser"),
    ],
)
def test_a_recipe_that_fails_is_one_line(folder, module, tmp_path, capfd, name, message):
    code, *_, errors = audited(folder, f"{module}:{name}", tmp_path / "run", capfd=capfd)
    assert code == 1
    assert message in errors.splitlines()[-1]


def test_the_cost_is_said_beforehand(folder, module, tmp_path, capfd):
    code, _, said, errors = audited(
        folder, f"{module}:train", tmp_path / "run", "--estimate", capfd=capfd
    )
    assert code == 0
    assert "two trainings of 120 images each by" in said + errors
    assert calls(module) == []


@pytest.mark.usefixtures("global_random_state_untouched")
def test_a_recipe_leaves_the_global_random_state_alone(folder, module, tmp_path):
    module.write_text(f"{MODULE}\ndef noisy(images, seed):\n    torch.rand(3)\n    return None\n")
    spec = audit.Spec(train=f"{folder}/train.npy", recipe=f"{module}:noisy")
    with pytest.raises(Exception, match="returned NoneType"):
        recipe._made(spec, torch.zeros(2, 1, 8, 8), "twin-a", tmp_path / "a.pt2", lambda *_: None)
