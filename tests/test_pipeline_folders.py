"""Folders of diffusers: schedulers give the known answers, a wrong one is refused by name."""

import json
import shutil

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from twinscore import images  # noqa: E402
from twinscore.analysis import calibration  # noqa: E402
from twinscore.analysis import learned as learned_by  # noqa: E402
from twinscore.cli import main  # noqa: E402
from twinscore.denoisers import load  # noqa: E402
from twinscore.denoisers.adapters import converted  # noqa: E402
from twinscore.denoisers.checkpoint import model_digest  # noqa: E402
from twinscore.errors import InputError  # noqa: E402
from twinscore.experiments import harmonics  # noqa: E402
from twinscore.sampling import SamplingSpec  # noqa: E402
from twinscore.sampling.samples import draw  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("global_random_state_untouched"),
    # schedulers of diffusers make arrays of tensors in a way that NumPy 2 warns of
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]

SIGMAS = (0.1, 0.3, 1.0)


def network(**options):
    """A small UNet, the same every time."""
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1}
    blocks = {"block_out_channels": (12, 24), "norm_num_groups": 4, "add_attention": False}
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return diffusers.UNet2DModel(**sizes | blocks | kinds | options).eval()


def transformer(**options):
    """A small DiT, the same every time, no weight of which is zero."""
    sizes = {"sample_size": 8, "in_channels": 1, "num_layers": 1, "norm_num_groups": 4}
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "patch_size": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return diffusers.DiTTransformer2DModel(**sizes | heads | options).eval()


def saved(folder, net, scheduler, *, pipeline=False):
    """A folder of a bare network with its scheduler, or of a pipeline."""
    if pipeline:
        diffusers.DDPMPipeline(net, scheduler).save_pretrained(folder)
    else:
        net.save_pretrained(folder)
        scheduler.save_pretrained(folder / "scheduler")
    return f"diffusers:{folder}"


def edited(folder, name, **changes):
    """Another value in a configuration."""
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def drawn(shape=(3, 1, 8, 8)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def own(x):
    """[-1, 1] as [0, 1]."""
    return (x + 1) / 2


def close(found, expected, sigma):
    assert (found - expected).abs().max() < 1e-5 * max(1, sigma)


@pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("predicts", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_a_preserving_scheduler_gives_its_own_clean_image(tmp_path, kind, predicts, schedule):
    """What its step calls the original sample, without the clipping that belongs to the sampler."""
    options = {"prediction_type": predicts, "beta_schedule": schedule, "clip_sample": True}
    net, scheduler = network(), getattr(diffusers, kind)(**options)
    opened = load(saved(tmp_path, net, scheduler, pipeline=kind == "DDPMScheduler"))
    assert (opened.shape, opened.mean) == ((1, 8, 8), (0.5,))
    plain = diffusers.DDIMScheduler(**options | {"clip_sample": False})
    plain.set_timesteps(1000)
    for t in (5, 400, 900):
        kept = plain.alphas_cumprod[t]
        sigma = ((1 - kept) / kept).sqrt().item() / 2
        x = drawn()
        with torch.no_grad():
            expected = plain.step(net(x, t).sample, t, x).pred_original_sample
            found = opened.denoiser(own(x / kept.sqrt()), sigma)
        close(found, own(expected), sigma)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_edm_gives_its_own_clean_image(tmp_path, predicts):
    net = network()
    scheduler = diffusers.EDMEulerScheduler(prediction_type=predicts, sigma_data=0.4)
    opened = load(saved(tmp_path, net, scheduler))
    for sigma in (0.05, 1.0, 20.0):
        y = sigma * drawn()
        with torch.no_grad():
            scaled = scheduler.precondition_inputs(y, torch.tensor(sigma))
            output = net(scaled, scheduler.precondition_noise(sigma)).sample
            expected = scheduler.precondition_outputs(y, output, torch.tensor(sigma))
            close(opened.denoiser(own(y), sigma / 2), own(expected), sigma)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_gives_its_own_last_step_whatever_its_shift(tmp_path, shift):
    """From any time straight to 0; a shift moves the times that are visited, not the network's."""
    net, scheduler = network(), diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    opened = load(saved(tmp_path, net, scheduler))
    for count in (1, 3, 8):
        scheduler.set_timesteps(count)
        t, s = scheduler.timesteps[-1], scheduler.sigmas[-2].item()
        if s == 1:
            continue  # noise alone: no level of ours
        x, scheduler._step_index = drawn(), None
        with torch.no_grad():
            output = net(x, t[None]).sample
            expected = scheduler.step(output, t, x).prev_sample
            close(opened.denoiser(own(x / (1 - s)), s / (1 - s) / 2), own(expected), s / (1 - s))


@pytest.mark.parametrize("centred", [True, False])
def test_a_variance_exploding_network_gives_the_score_of_images_in_0_1(tmp_path, centred):
    net = network(time_embedding_type="fourier", center_input_sample=centred)
    opened = load(saved(tmp_path, net, diffusers.ScoreSdeVeScheduler()))
    for sigma in (0.05, 1.0, 20.0):
        y = sigma * drawn()
        with torch.no_grad():
            score = net(y, torch.full((3,), sigma)).sample
            close(opened.denoiser(y, sigma), y + sigma**2 * score, sigma)


def test_of_a_learned_variance_the_mean_is_taken(tmp_path):
    net = network(in_channels=2, out_channels=4, sample_size=(6, 10))
    opened = load(saved(tmp_path, net, diffusers.DDPMScheduler(variance_type="learned_range")))
    assert opened.shape == (2, 6, 10)
    y, t = drawn((2, 2, 6, 10)), 300
    kept = diffusers.DDPMScheduler().alphas_cumprod[t]
    sigma = ((1 - kept) / kept).sqrt()
    with torch.no_grad():
        epsilon = net(y * kept.sqrt(), t).sample[:, :2]
        close(opened.denoiser(own(y), sigma.item() / 2), own(y - sigma * epsilon), sigma.item())


def test_a_class_is_handed_over(tmp_path):
    net = network(num_class_embeds=3)
    path = saved(tmp_path, net, diffusers.DDPMScheduler())
    y = drawn()
    with torch.no_grad():
        found = [load(f"{path},class={k}").denoiser(y, 0.5) for k in range(3)]
    assert not torch.equal(found[0], found[1])
    assert len({model_digest(load(f"{path},class={k}")) for k in range(3)}) == 3
    for words, says in (
        ("", "knows classes, and none is given; add ,class=K, 0 to 2"),
        (",class=3", "class=3 is none of them; add ,class=K, 0 to 2"),
        (",class=one", "class='one' is not a number; give class=0, 1, ..."),
        (",class=0,guidance=2", "needs a class that stands for none, and this network has none"),
        (",class=0,guidance=2,null=3", "null=3 is none of its classes, 0 to 2"),
        (",class=0,guidance=-1", "guidance='-1' is not a number from 0 to 1000"),
        (",class=0,null=1", "null=1 goes with guidance=; leave it out, or add that"),
        (",class=0,class=1", "'class=1' is given twice; known are class=, null=, guidance= and, "),
        (",label=0", "'label=0' is not an option; known are class=, null=, guidance= and, last, "),
        (",class=0,prompt=a cat", "its network takes no prompt; leave out prompt="),
        (",class=0,prompt=", "prompt= is empty; give a text after it"),
    ):
        with pytest.raises(InputError, match=says):
            load(path + words)


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_guidance_weighs_a_class_against_none(tmp_path, kind):
    """Affine in the network's output, and so in the clean image: plain + w (own - plain)."""
    if kind == "unet":
        path = saved(tmp_path, network(num_class_embeds=4), diffusers.DDPMScheduler())
        null, words = "3", ",null=3"
    else:
        path = saved(tmp_path, transformer(num_embeds_ada_norm=3), diffusers.DDIMScheduler())
        null, words = "3", ""
    y = drawn()
    with torch.no_grad():
        one, none = (load(f"{path},class={k}").denoiser(y, 0.7) for k in ("1", null))
        for weight in (0.0, 1.0, 4.5):
            opened = load(f"{path},class=1,guidance={weight}{words}")
            assert opened.guidance == (None if weight == 1 else weight)
            close(opened.denoiser(y, 0.7), none + weight * (one - none), 4.5)
    assert (one - none).abs().max() > 1e-3
    weighed = [model_digest(load(f"{path},class=1,guidance={w}{words}")) for w in (2, 3)]
    assert weighed[0] != weighed[1]


def test_a_guided_denoiser_is_refused_where_a_mean_is_judged(tmp_path, capsys):
    path = saved(tmp_path / "model", network(num_class_embeds=4), diffusers.DDPMScheduler())
    guided = f"{path},class=0,guidance=3,null=3"
    for command in (
        ["check-model", "--model", guided, "--data", "digits"],
        ["harmonics", "--model", guided, "--data", "digits"],
    ):
        assert main([*command, "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err.strip()
        assert "a guided denoiser is not a posterior mean: it weighs the class or prompt 3" in said
        assert "\n" not in said


def test_a_transformer_in_pixels_gives_its_schedulers_clean_image(tmp_path):
    """Of a learned variance the mean; a class, and the one that stands for none."""
    net, scheduler = transformer(out_channels=2, num_embeds_ada_norm=3), diffusers.DDIMScheduler()
    path, t = saved(tmp_path, net, scheduler), torch.full((3,), 400)
    kept, x = scheduler.alphas_cumprod[400], drawn()
    sigma = ((1 - kept) / kept).sqrt().item()
    for label in (1, 3):
        with torch.no_grad():
            epsilon = net(x, t, torch.full((3,), label)).sample[:, :1]
            found = load(f"{path},class={label}").denoiser(own(x / kept.sqrt()), sigma / 2)
        close(found, own(x / kept.sqrt() - sigma * epsilon), sigma)
    with pytest.raises(InputError, match=r"none is given; add ,class=K, 0 to 2 \(3 for none of"):
        load(path)
    with pytest.raises(InputError, match=r"class=4 is none of them"):
        load(f"{path},class=4")


def test_schedulers_that_differ_in_their_steps_alone_give_the_same_denoiser(tmp_path):
    net, y, options = network(), drawn(), {"beta_start": 0.00085, "beta_end": 0.012}
    found = []
    for kind in (
        *("DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"),
        *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
        *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
        "UniPCMultistepScheduler",
    ):
        path = saved(tmp_path / kind, net, getattr(diffusers, kind)(**options))
        with torch.no_grad():
            found.append(load(path).denoiser(y, 0.5))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_a_name_of_the_hub_is_fetched_only_if_it_is_said_to_be_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "kept", network(), diffusers.DDPMScheduler(), pipeline=True)
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(tmp_path / "kept")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    with pytest.raises(InputError, match=r"not a folder; .*, or diffusers:hf:someone/digits to f"):
        load("diffusers:someone/digits")
    with pytest.raises(InputError, match=r"'digits' is not a name of the hub; give hf:OWNER/NAME"):
        load("diffusers:hf:digits")
    assert not asked
    assert load("diffusers:hf:someone/digits").shape == (1, 8, 8)
    assert asked == [("someone/digits", {"use_safetensors": True, "trust_remote_code": False})]


def test_a_path_may_hold_commas(tmp_path):
    path = saved(tmp_path / "a, b", network(num_class_embeds=2), diffusers.DDPMScheduler())
    assert load(f"{path},class=1").shape == (1, 8, 8)


def test_averaged_weights_come_first_and_it_is_said(tmp_path):
    path = saved(tmp_path, network(), diffusers.DDPMScheduler(), pipeline=True)
    plain, y = load(path), drawn()
    averaged = network()
    with torch.no_grad():
        averaged.conv_out.weight.mul_(2)
    averaged.save_pretrained(tmp_path / "unet_ema")
    opened = load(path)
    assert (plain.notes, opened.notes) == ((), ("averaged weights, of unet_ema",))
    assert not torch.equal(opened.denoiser(y, 0.5), plain.denoiser(y, 0.5))
    assert model_digest(opened) != model_digest(plain)


def test_half_precision_is_cast_up(tmp_path):
    net = network().half()
    net.save_pretrained(tmp_path, variant="fp16")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    opened = load(f"diffusers:{tmp_path}")
    found = opened.denoiser(drawn(), 0.5)
    assert found.dtype == torch.float32
    shutil.rmtree(tmp_path)
    same = load(saved(tmp_path, net.float(), diffusers.DDPMScheduler()))
    assert torch.equal(found, same.denoiser(drawn(), 0.5))


def test_a_digest_names_the_scheduler_and_not_the_folder(tmp_path):
    path = saved(tmp_path / "one", network(), diffusers.DDPMScheduler())
    before = model_digest(load(path))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert model_digest(load(f"diffusers:{tmp_path / 'two'}")) == before
    edited(tmp_path / "two", "scheduler/scheduler_config.json", prediction_type="sample")
    assert model_digest(load(f"diffusers:{tmp_path / 'two'}")) != before


def test_a_last_time_without_any_signal_is_left_out_of_the_table(tmp_path):
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    opened = load(saved(tmp_path, network(), diffusers.DDIMScheduler(**options)))
    assert torch.isfinite(opened.denoiser(drawn(), 1e4)).all()


def test_a_network_with_attention_is_taken_apart_like_any_other(tmp_path):
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "attention_head_dim": 4}
    net = network(**blocks, up_block_types=("AttnUpBlock2D", "UpBlock2D"), add_attention=True)
    path = saved(tmp_path / "model", net, diffusers.DDPMScheduler())
    spec = harmonics.Spec(model=path, data="digits", sigma=0.2, sigmas=(0.2,), draws=2)
    [model] = harmonics.run(spec, tmp_path / "run", device="cpu").result.models
    assert model.levels[0].converged


BAD = {
    "no folder": (lambda f: shutil.rmtree(f), "is not a folder; give one that save_pretrained"),
    "no scheduler": (
        lambda f: shutil.rmtree(f / "scheduler"),
        "has no scheduler, which says how the network was trained; put its scheduler_config.json",
    ),
    "no network": (lambda f: (f / "config.json").unlink(), "has no network: "),
    "no weights": (
        lambda f: (f / "diffusion_pytorch_model.safetensors").unlink(),
        "has no weights in safetensors",
    ),
    "damaged weights": (
        lambda f: (f / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing"),
        "cannot be loaded: ",
    ),
    "a weight missing": (
        lambda f: edited(f, "config.json", add_attention=True),
        "the weights do not fit the network: ",
    ),
    "another network": (
        lambda f: edited(f, "config.json", _class_name="UNet2DConditionModel"),
        "UNet2DConditionModel is not a network that is known; known are UNet2DModel, DiTTra",
    ),
    "channels": (
        lambda f: edited(f, "config.json", out_channels=3),
        "takes 1 channels and returns 3; known are as many, or twice as many",
    ),
    "broken": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read: "),
    "another scheduler": (
        lambda f: edited(f, "scheduler/scheduler_config.json", _class_name="CMStochastic"),
        "CMStochastic is not a scheduler that is known; known are DDPMScheduler, DDIMScheduler, ",
    ),
    "prediction": (
        lambda f: edited(f, "scheduler/scheduler_config.json", prediction_type="flow"),
        "prediction_type 'flow' is not known; known are epsilon, sample, v_prediction",
    ),
    "no signal": (
        lambda f: edited(f, "scheduler/scheduler_config.json", rescale_betas_zero_snr=True),
        "prediction_type epsilon with rescale_betas_zero_snr: ",
    ),
    "fourier": (
        lambda f: edited(f, "config.json", time_embedding_type="fourier"),
        "does not go with DDPMScheduler, whose times may be 0; it takes ScoreSdeVeScheduler",
    ),
    "classes": (
        lambda f: edited(f, "config.json", class_embed_type="identity"),
        "classes as 'identity' are not known",
    ),
    "another pipeline": (
        lambda f: (f / "model_index.json").write_text('{"_class_name": "Mine"}'),
        "Mine is not a pipeline that is known; known are DDPMPipeline, DDIMPipeline, ScoreSdeVe",
    ),
    "code of its own": (
        lambda f: (f / "model_index.json").write_text(
            '{"_class_name": "DDPMPipeline", "unet": ["mine", "Net"]}'
        ),
        "its part unet is code of mine, which is not run",
    ),
    "no part": (
        lambda f: (f / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}'),
        "DDPMPipeline has no part unet or transformer",
    ),
    "consistency": (
        lambda f: edited(
            f, "scheduler/scheduler_config.json", _class_name="CMStochasticIterativeScheduler"
        ),
        "is a consistency model, which returns one sample that fits the noisy image, not the mean",
    ),
    "flow sigmas": (
        lambda f: edited(
            f,
            "scheduler/scheduler_config.json",
            _class_name="UniPCMultistepScheduler",
            use_flow_sigmas=True,
        ),
        "UniPCMultistepScheduler with other times than those of its table is not known",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_known_is_refused_in_one_line(tmp_path, case):
    spoil, says = BAD[case]
    path = saved(tmp_path / "model", network(), diffusers.DDPMScheduler())
    spoil(tmp_path / "model")
    with pytest.raises(InputError) as caught:
        load(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_weights_that_overflowed_are_refused(tmp_path):
    net = network()
    with torch.no_grad():
        net.conv_in.weight.mul_(1e6)
    net.half().save_pretrained(tmp_path)
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(InputError, match=r"hold NaN or infinity; were they saved in half"):
        load(f"diffusers:{tmp_path}")


LABELS = {
    "epsilon": ("DDPMScheduler", {"prediction_type": "epsilon"}),
    "sample": ("DDPMScheduler", {"prediction_type": "sample"}),
    "velocity": ("DDPMScheduler", {"prediction_type": "v_prediction"}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {}),
    "edm": ("EDMEulerScheduler", {"prediction_type": "epsilon"}),
    "edm-velocity": ("EDMEulerScheduler", {"prediction_type": "v_prediction"}),
    "score": ("ScoreSdeVeScheduler", {}),
}
FAST = ("velocity",)


def learned(net, name, steps):
    """Train a network to denoise digits by a convention."""
    denoiser = converted(
        lambda x, t: net(x, t, return_dict=False)[0], name, low=0.0 if name == "score" else -1.0
    )
    digits, optimiser = images.load("digits")[:1200], torch.optim.Adam(net.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        x = digits[torch.randint(len(digits), (24,), generator=generator)]
        sigma = torch.exp(5 * torch.rand(24, generator=generator) - 3.2)
        z = torch.randn(x.shape, generator=generator)
        left = denoiser(x + sigma.view(-1, 1, 1, 1) * z, sigma) - x
        loss = (left.square().mean((1, 2, 3)) * (1 + 0.25 / sigma**2)).mean()
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in LABELS]
)
def test_the_label_of_a_trained_folder_passes_and_every_wrong_one_is_told_the_right_one(
    tmp_path, name
):
    net = network(**{"time_embedding_type": "fourier"} if name == "score" else {})
    learned(net, name, steps=150 if name in FAST else 500)
    x = images.load("digits")[:6]
    for label, (kind, options) in LABELS.items():
        if name == "score" and label != "score":
            continue  # refused as it is opened: its times may be 0
        path = saved(tmp_path / label, net, getattr(diffusers, kind)(**options))
        found = calibration.fits(load(path).denoiser, x, SIGMAS, 0)
        said = calibration.fault(found, SIGMAS)
        if label == name:
            assert said is None
        else:
            right = f"{name} in [{0 if name == 'score' else -1}, 1]"
            assert said.startswith(f"this looks like {right}, not {label} in [")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DDIM", "DDPM"])
def test_our_samples_and_those_of_the_pipeline_have_the_same_distribution(tmp_path, kind):
    """By the energy distance, which tells ours from samples that start at too little noise."""
    net = learned(network(), "epsilon", steps=500)
    scheduler = getattr(diffusers, f"{kind}Scheduler")(clip_sample=False)
    path = saved(tmp_path, net, scheduler)
    steps = {"DDIM": 250, "DDPM": 500}[kind]  # their "leading" times start near 996 of 1,000
    own = SamplingSpec(method="own", steps=steps)
    theirs, _ = draw(load(path), np.arange(150), own, batch=150)
    ways = {
        "DDIM": {"method": "flow", "steps": 60},
        "DDPM": {"method": "ancestral", "steps": 300},
    }[kind]
    same, other = (
        draw(load(path), np.arange(150, 300), SamplingSpec(sigma_max=s, **ways), batch=150)[0]
        for s in (70.0, 0.5)
    )
    p = [
        learned_by.energy_p(*(torch.from_numpy(x.clip(0, 1)) for x in (theirs, ours)), seed=0)
        for ours in (same, other)
    ]
    assert p[0] > 0.01 > p[1]
