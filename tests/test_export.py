"""`twinscore export`: other programs read what is written, and it is the same denoiser."""

import json
import logging
from pathlib import Path

import diffusers
import pytest
import torch

from twinscore import cli
from twinscore.denoisers import Checkpoint, NetworkSpec, build, exporting, load, save
from twinscore.denoisers.checkpoint import sized
from twinscore.denoisers.layers import generator_of
from twinscore.errors import InputError
from twinscore.experiments import export
from twinscore.images.quiet import quiet

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

MINE = """
import torch
from torch import nn

from twinscore.denoisers import Checkpoint, adapters

class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, y, sigma):
        return y - sigma.view(-1, 1, 1, 1) * self.inner(y)

with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    network = Net(1).eval()

def held():
    weight = torch.full((1, 1, 1, 1), 0.5)
    return Checkpoint(lambda y, sigma: network(weight * y, sigma), (1, None, None), (0.25,))

def epsilon():
    def told(x, t):
        return network.inner(x) * t.view(-1, 1, 1, 1) / 1000

    return Checkpoint(adapters.converted(told, "epsilon"), (1, 8, 8), (0.25,))

def looks():
    return Checkpoint(lambda y, sigma: y if sigma.max() > 3 else y / 2, (1, 8, 8), (0.5,))

def unknown():
    return network
"""
TRAINED = {
    "unet": {"width": 2, "levels": 2},
    "bf_cnn": {"width": 2, "layers": 3},
    "conditioned_unet": {"width": 8, "levels": 1},
    "own": {"source": "mine.py:Net"},
}
OTHERS = ["gaussian:digits", "mine.py:held", "mine.py:epsilon"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def model_of(kind):
    """A model string of every kind of network, with weights that are all at work."""
    if kind not in TRAINED:
        return kind
    spec = NetworkSpec(kind=kind, **TRAINED[kind])
    network = build(spec, 1, seed=0).eval()
    with torch.no_grad():
        for part in network.parameters():
            part.add_(0.1 * torch.randn(part.shape, generator=generator_of(part.numel())))
    save(Path("weights.safetensors"), Checkpoint(network, (1, 8, 8), (0.25,)), spec)
    return "weights.safetensors"


def exported(model, form, out):
    """The model string of what the command writes."""
    words = ["export", "--model", model, "--format", form, "--out", out]
    assert cli.main(words) == 0
    return f"{form}:{out}"


ENDS = {"torch-export": "a.pt2", "onnx": "a.onnx", "diffusers": "a"}


SLOW = {("unet", "onnx"), ("unet", "diffusers"), *(("conditioned_unet", form) for form in ENDS)}
"""What takes ten seconds or more to be exported."""


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        pytest.param(kind, form, marks=[pytest.mark.slow] * ((kind, form) in SLOW))
        for kind in (*TRAINED, *OTHERS)
        for form in ENDS
    ],
)
def test_what_is_read_back_is_the_same_denoiser(here, kind, form, capfd):
    if form == "diffusers" and kind not in ("conditioned_unet", "unet", "mine.py:held"):
        pytest.skip("the same graph as torch-export")
    model = load(name := model_of(kind))
    again = load(exported(name, form, ENDS[form]))
    said = capfd.readouterr()
    assert said.err == ""
    assert (again.shape, again.mean) == (model.shape, model.mean)
    fixed = kind == "gaussian:digits"
    assert said.out.startswith("takes images of 1 channel, of " + ("8x8" if fixed else "any size"))
    sizes = [(8, 8)] if fixed else [(8, 8), (7, 5), (24, 17)]
    for batch, size, sigma in [(b, s, n) for b in (1, 4) for s in sizes for n in (0.03, 0.7, 20.0)]:
        y = torch.rand(batch, 1, *size, generator=generator_of(batch))
        levels = torch.full((batch,), sigma) * torch.linspace(0.5, 1, batch)
        with torch.no_grad():
            off = (again(y, levels) - model(y, levels)).abs().max().item()
        assert off <= 1e-5 * max(1, sigma), (size, sigma)
    assert [p.name for p in here.iterdir() if p.name.startswith(".")] == []


def test_diffusers_samples_from_the_folder_with_its_own_scheduler(here):
    """A Gaussian's samples follow its density: mean and variance, of 400 images."""
    form = exported("gaussian:digits", "diffusers", "folder").partition(":")[2]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        form, custom_pipeline=form, trust_remote_code=True
    )
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline.scheduler) is diffusers.EDMEulerScheduler
    pipeline.scheduler = diffusers.EDMEulerScheduler.from_config(
        pipeline.scheduler.config, sigma_max=20.0
    )
    own = {"generator": generator_of(0), "output_type": "np", "num_inference_steps": 60}
    drawn = torch.tensor(pipeline(batch_size=400, **own).images).permute(0, 3, 1, 2)
    with pytest.raises(TypeError, match="prompt"):
        pipeline(batch_size=1, prompt="a digit")
    exact = load("gaussian:digits").denoiser
    mean = exact.mean.float()
    # clipping to [0, 1] moves the mean of dark pixels by up to 0.08; those in the middle stay
    middle = ((mean > 0.3) & (mean < 0.7)).expand(1, 8, 8)
    off = (drawn.mean(0) - mean)[middle]
    assert off.abs().max() < 4 * 0.4 / 400**0.5  # four standard errors of pixels of deviation 0.4
    assert drawn.std(0)[middle].min() > 0.15


@pytest.mark.slow
def test_a_network_of_diffusers_is_exported_with_its_guards(here):
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1}
    sizes |= {"block_out_channels": (8, 8), "norm_num_groups": 4}
    sizes |= {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    with torch.random.fork_rng(devices=[]):
        network = diffusers.UNet2DModel(**sizes)
    scheduler = diffusers.DDPMScheduler()
    diffusers.DDPMPipeline(network, scheduler).save_pretrained("pipeline")
    model = load("diffusers:pipeline")
    again = load(exported("diffusers:pipeline", "torch-export", "a.pt2"))
    y = torch.rand(3, 1, 8, 8, generator=generator_of(0))
    with torch.no_grad():
        off = (again(y, 0.5) - model(y, 0.5)).abs().max().item()
    assert off <= 1e-5


REFUSED = {
    "looks": (["--model", "mine.py:looks"], "--model: mine.py:looks cannot be exported as a graph"),
    "empirical": (["--model", "empirical:digits"], "cannot be exported as a graph: "),
    "unknown": (["--model", "mine.py:unknown"], "does not say how many channels"),
    "no model": ([], "--model: not given"),
    "another end": (
        ["--model", "gaussian:digits", "--out", "a.bin"],
        "a.bin is not a file for tor",
    ),
    "onnx end": (
        ["--model", "gaussian:digits", "--format", "onnx"],
        "a.pt2 is not a file for onnx",
    ),
    "there": (["--model", "gaussian:digits", "--out", "there.pt2"], "there.pt2 exists; give a new"),
    "already": (
        ["--model", "diffusers:x", "--format", "diffusers", "--out", "a"],
        "--format: diffusers:x is a folder of diffusers already; copy it",
    ),
    "another format": (["--format", "jax"], "--format: give one of torch-export, onnx, diffusers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(here, capfd, case):
    words, message = REFUSED[case]
    (here / "there.pt2").write_bytes(b"kept")
    before = sorted(p.name for p in here.iterdir())
    out = [] if "--out" in words else ["--out", "a.pt2"]
    assert cli.main(["export", *words, *out]) == 2
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert message in said.err
    assert sorted(p.name for p in here.iterdir()) == before
    assert (here / "there.pt2").read_bytes() == b"kept"


def test_what_is_read_back_as_another_denoiser_is_not_written(here, monkeypatch):
    honest = exporting.exported.read_program

    def other(body):
        model = honest(body)
        return Checkpoint(lambda y, sigma: model.denoiser(y, sigma) + 1e-3, model.shape, model.mean)

    monkeypatch.setattr(exporting.exported, "read_program", other)
    with pytest.raises(InputError, match=r"gaussian:digits gives other estimates as a graph, by "):
        export.run(export.Spec(model="gaussian:digits"), here / "a.pt2")
    assert sorted(p.name for p in here.iterdir()) == ["mine.py"]


def test_what_a_file_states_of_its_images_must_be_true(here):
    graph = exporting.traced(model := load("gaussian:digits"))
    for shape, mean, message in (
        ((1, 9, 8), (0.5,), "says that its images are"),
        ((1, 8, 8), (0.5, 0.5), "says that the mean of its images is"),
        ((1, 8, -8), (0.5,), "does not say what its images are"),
    ):
        stated = json.dumps({"shape": shape, "mean": mean})
        with quiet():
            torch.export.save(graph.program, "a.pt2", extra_files={"twinscore": stated})
        with pytest.raises(InputError, match=message):
            load("torch-export:a.pt2")
    with quiet():
        torch.export.save(graph.program, "a.pt2")
    assert load("torch-export:a.pt2").shape == sized(model, None).shape


def test_logging_is_as_it_was(here):
    before = logging.root.manager.disable
    exporting.traced(load("mine.py:held"))
    assert logging.root.manager.disable == before
