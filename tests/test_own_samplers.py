"""A pipeline's own sampler draws what the pipeline draws, image by image from its seed."""

import json

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from twinscore import images, runs  # noqa: E402
from twinscore.cli import main  # noqa: E402
from twinscore.denoisers import Checkpoint, load  # noqa: E402
from twinscore.errors import InputError  # noqa: E402
from twinscore.experiments import audit, folders, sample  # noqa: E402
from twinscore.sampling import SamplingSpec  # noqa: E402
from twinscore.sampling.samples import draw, draw_batch, settled_for  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("global_random_state_untouched"),
    # schedulers of diffusers make arrays of tensors in a way that NumPy 2 warns of
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]

SEEDS = np.array([5, 11, 2**60 + 1])


def network(**options):
    """A small UNet, the same every time."""
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1}
    blocks = {"block_out_channels": (12, 24), "norm_num_groups": 4, "add_attention": False}
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return diffusers.UNet2DModel(**sizes | blocks | kinds | options).eval()


def saved(folder, net, scheduler, kind=None):
    """A pipeline of this kind, or a bare network with its scheduler."""
    if kind:
        getattr(diffusers, kind)(net, scheduler).save_pretrained(folder)
    else:
        net.save_pretrained(folder)
        scheduler.save_pretrained(folder / "scheduler")
    return f"diffusers:{folder}"


def generators():
    return [torch.Generator().manual_seed(int(seed)) for seed in SEEDS]


def theirs(folder, kind, **options):
    """What the pipeline itself draws from the same seeds, (B, C, H, W)."""
    with torch.random.fork_rng(devices=[]):  # Fourier features are drawn before they are read
        pipeline = getattr(diffusers, kind).from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        found = pipeline(len(SEEDS), generator=generators(), output_type="np", **options).images
    return found.transpose(0, 3, 1, 2)


def ours(model, **fields):
    return draw_batch(load(model), SEEDS, SamplingSpec(**fields), size=len(SEEDS))[0]


CASES = {
    "ddpm": ("DDPMPipeline", "DDPMScheduler", {}, {}),
    "ddpm that learns its variance": (
        *("DDPMPipeline", "DDPMScheduler", {"variance_type": "learned_range"}),
        {"out_channels": 2},
    ),
    "ddpm with thresholding": (
        *("DDPMPipeline", "DDPMScheduler", {"thresholding": True, "prediction_type": "sample"}),
        {},
    ),
    "not square": ("DDPMPipeline", "DDPMScheduler", {}, {"sample_size": (8, 12)}),
    "ddim": ("DDIMPipeline", "DDIMScheduler", {"clip_sample": False}, {}),
    "ddim without a last signal": (
        *("DDIMPipeline", "DDIMScheduler"),
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        {"center_input_sample": True},
    ),
    "variance exploding": (
        *("ScoreSdeVePipeline", "ScoreSdeVeScheduler", {"sigma_max": 40.0}),
        {"time_embedding_type": "fourier", "in_channels": 3, "out_channels": 3},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_samples_are_the_pipelines_own(tmp_path, case):
    """To rounding: its attention and ours add up in another order."""
    kind, scheduler, options, sizes = CASES[case]
    model = saved(tmp_path, network(**sizes), getattr(diffusers, scheduler)(**options), kind)
    expected = theirs(tmp_path, kind, num_inference_steps=4)
    np.testing.assert_allclose(ours(model, steps=4), expected, atol=1e-5)
    assert expected.std() > 0.05  # there is something to compare


@pytest.mark.parametrize(
    ("kind", "steps"), [("DDPMPipeline", 1000), ("DDIMPipeline", 50), ("ScoreSdeVePipeline", 2000)]
)
def test_the_steps_are_the_pipelines_own_unless_others_are_given(tmp_path, kind, steps):
    scheduler = getattr(diffusers, kind.replace("Pipeline", "Scheduler"))()
    options = {"time_embedding_type": "fourier"} if kind.startswith("Score") else {}
    model = load(saved(tmp_path, network(**options), scheduler, kind))
    found = settled_for(model, SamplingSpec())
    assert (found.method, found.steps) == ("own", steps)
    assert settled_for(model, SamplingSpec(steps=7)).steps == 7
    assert model.sampler.about == {"scheduler": type(scheduler).__name__}


@pytest.mark.parametrize(
    "scheduler",
    [
        *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
        *("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "PNDMScheduler"),
        *("EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_network_with_a_scheduler_alone_is_drawn_from_by_it(tmp_path, scheduler):
    """The same bits of a seed whatever is drawn beside it."""
    model = saved(tmp_path, network(), getattr(diffusers, scheduler)())
    whole = ours(model, steps=6)
    assert np.isfinite(whole).all()
    again, _ = draw_batch(load(model), SEEDS[:1], SamplingSpec(steps=6), size=3)
    np.testing.assert_array_equal(again[0], whole[0])


def test_one_step_from_noise_is_the_denoisers_estimate(tmp_path):
    """Euler's step from the first noise level to 0 is the clean estimate there."""
    for name in ("EDMEulerScheduler", "EulerDiscreteScheduler"):
        scheduler = getattr(diffusers, name)()
        opened = load(saved(tmp_path / name, network(), scheduler))
        scheduler.set_timesteps(1)
        sigma = scheduler.sigmas[0].item()
        z = torch.cat([torch.randn((1, 1, 8, 8), generator=g) for g in generators()])
        with torch.no_grad():
            y = (z * scheduler.init_noise_sigma + 1) / 2
            expected = opened.denoiser(y, sigma / 2).clamp(0, 1).numpy()
        found, _ = draw_batch(opened, SEEDS, SamplingSpec(steps=1), size=3)
        np.testing.assert_allclose(found, expected, atol=1e-5 * sigma)  # of sigma F, to rounding


def test_a_class_and_guidance_reach_the_sampler(tmp_path):
    net, scheduler = network(num_class_embeds=3), diffusers.DDIMScheduler()
    model = saved(tmp_path, net, scheduler)
    drawn = [ours(f"{model},class={k}", steps=3) for k in (0, 1)]
    guided = ours(f"{model},class=1,guidance=5,null=2", steps=3)
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], guided)
    scheduler.set_timesteps(3)
    x = torch.cat([torch.randn((1, 1, 8, 8), generator=g) for g in generators()])
    for t in scheduler.timesteps:
        with torch.no_grad():
            one, none = (net(x, t, torch.full((3,), k)).sample for k in (1, 2))
        x = scheduler.step(none + 5 * (one - none), t, x).prev_sample
    np.testing.assert_allclose(guided, (x / 2 + 0.5).clamp(0, 1), atol=1e-5)
    about = load(f"{model},class=1,guidance=5,null=2").sampler.about
    assert about == {"scheduler": "DDIMScheduler", "guidance": 5.0}


@pytest.fixture(scope="module")
def ddim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return saved(folder, network(), diffusers.DDIMScheduler(), "DDIMPipeline")


def test_ours_is_an_option(ddim):
    model, spec = load(ddim), SamplingSpec(method="flow", steps=3)
    assert settled_for(model, spec) == spec.resolved
    from_denoiser = Checkpoint(model.denoiser, model.shape, model.mean)
    found, _ = draw(model, SEEDS, spec, batch=3)
    np.testing.assert_array_equal(found, draw(from_denoiser, SEEDS, spec, batch=3)[0])


def test_an_interruption_loses_one_batch_and_the_file_says_how_it_was_drawn(
    ddim, tmp_path, monkeypatch
):
    spec = sample.Spec(model=ddim, count=5, batch=2, sampling=SamplingSpec(steps=3))
    sample.run(spec, tmp_path / "whole.npz")
    calls, kept = [], folders.kept

    def stops(path, compute, **options):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return kept(path, compute, **options)

    monkeypatch.setattr(sample, "kept", stops)
    with pytest.raises(KeyboardInterrupt):
        sample.run(spec, tmp_path / "parts.npz")
    sample.run(spec, tmp_path / "parts.npz")
    with np.load(tmp_path / "whole.npz") as a, np.load(tmp_path / "parts.npz") as b:
        np.testing.assert_array_equal(a["samples"], b["samples"])
        how = json.loads(bytes(b["how"]))
    assert how == {"method": "own", "steps": 3, "scheduler": "DDIMScheduler"}
    assert len(images.load(str(tmp_path / "whole.npz"))) == 5


def test_an_audit_draws_by_the_pipelines_own_sampler_and_keeps_it_in_its_spec(ddim, tmp_path):
    """Of images so bright that no convention of an untrained network denoises them by chance."""
    bright = np.random.default_rng(0).integers(235, 256, (20, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "bright.npy", bright)
    own = {"count": 6, "draws": 1, "sampling": SamplingSpec(steps=2)}
    spec = audit.Spec(model=ddim, train=str(tmp_path / "bright.npy"), **own)
    run = audit.run(spec, tmp_path / "run", device="cpu")
    kept = runs.read_json(tmp_path / "run" / "spec.json")
    assert (kept["sampling"]["method"], kept["sampling"]["steps"]) == ("own", 2)
    with np.load(kept["samples"]) as file:
        assert json.loads(bytes(file["how"]))["scheduler"] == "DDIMScheduler"
        seeds = np.array([runs.derive_seed(0, "image", i) for i in range(6)])
        again, _ = draw_batch(load(ddim), seeds, spec.sampling, size=6)
        np.testing.assert_allclose(file["samples"], again, atol=1e-5)
    assert run.result.data.drawn == 6


REFUSED = {
    "--sampling.sigma-max": ["40"],
    "--sampling.solver": ["heun"],
    "--quality": ["draft"],
    "--mean": ["0.4"],
    "--film": ["4"],
}


@pytest.mark.parametrize("flag", REFUSED)
def test_what_belongs_to_our_samplers_is_refused_in_one_line(ddim, tmp_path, capsys, flag):
    out = tmp_path / "x.png"
    words = ["sample", "--model", ddim, flag, *REFUSED[flag], "--out", str(out)]
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    name = "--sampling.quality" if flag == "--quality" else flag
    assert said.startswith(f"twinscore: {name}: the pipeline's own sampler does not take it; ")
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def test_steps_that_a_scheduler_does_not_take_are_refused(ddim):
    with pytest.raises(InputError, match=r"--sampling.steps: 2000 does not suit DDIMScheduler: "):
        ours(ddim, steps=2000)


def test_a_model_without_a_sampler_of_its_own_says_so(tmp_path, capsys):
    for words in (
        ["sample", "--model", "gaussian:digits", "--out", str(tmp_path / "x.npz")],
        ["transition", "--spec", "demo", "--out", str(tmp_path / "run")],
    ):
        assert main([*words, "--sampling.method", "own"]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].startswith(
            "twinscore: --sampling.method: own is the sampler of a pipeline; this model has none; "
        )
        assert not list(tmp_path.iterdir())


BAD_MODELS = {
    "a tuple": ("level(lambda y, s: (y,))", "must return (1, 1, 8, 8) float32, got tuple"),
    "a dataclass": ("level(lambda y, s: Output(y))", "got Output"),
    "a tuple of a convention": (
        "converted(lambda y, t: (y,), 'epsilon')",
        "the network returned tuple, not a tensor; give a function that takes the tensor out of it",
    ),
    "half precision": ("level(lambda y, s: y.half())", "got (1, 1, 8, 8) float16"),
    "an overflow": (
        "level(lambda y, s: (1e6 * y).half().float())",
        "the denoiser returned NaN or infinity",
    ),
    "another device": (
        "level(lambda y, s: y * elsewhere)",
        "is not on the expected device",
    ),
    "a network without values": (
        "Net(device='meta').eval()",
        "a network lies on the device meta, without",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_what_a_model_of_ones_own_returns_is_refused_in_one_line(tmp_path, capsys, case):
    made, says = BAD_MODELS[case]
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "import torch\n"
        "from twinscore.denoisers import Checkpoint\n"
        "from twinscore.denoisers.adapters import converted, level_per_image as level\n"
        "elsewhere = torch.zeros(1, device='meta')\n"
        "@dataclass\nclass Output:\n    sample: torch.Tensor\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self, device):\n        super().__init__(8, 8, device=device)\n"
        "    def forward(self, y, sigma):\n        return super().forward(y)\n"
        f"def f():\n    return Checkpoint({made}, (1, 8, 8), (0.5,), content='mine')\n"
    )
    out = tmp_path / "x.npz"
    words = ["sample", "--model", f"{tmp_path / 'mine.py'}:f", "--count", "2", "--out", str(out)]
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert says in said
    assert said.startswith("twinscore: --model: ")
    assert "\n" not in said
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".py"] == []
