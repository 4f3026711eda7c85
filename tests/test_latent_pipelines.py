"""Pipelines that code their images, and those with a prompt: tiny ones, built on the spot."""

import functools
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from twinscore import images  # noqa: E402
from twinscore.cli import main  # noqa: E402
from twinscore.denoisers import load  # noqa: E402
from twinscore.denoisers.checkpoint import model_digest  # noqa: E402
from twinscore.errors import InputError  # noqa: E402
from twinscore.experiments import audit, check_model  # noqa: E402
from twinscore.experiments.audit import membership  # noqa: E402
from twinscore.experiments.audit.drawing import drawn  # noqa: E402
from twinscore.experiments.audit.pool import opened  # noqa: E402
from twinscore.runs import derive_seed  # noqa: E402
from twinscore.sampling import SamplingSpec, noise, probability_flow  # noqa: E402
from twinscore.sampling.samples import draw_batch, settled_for  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("global_random_state_untouched"),
    # what diffusers and transformers say of each other's newest releases
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SEEDS = np.array([5, 11])
PROMPT = "a cat, red"
ENDS = ("<|startoftext|>", "<|endoftext|>")


def the_same(build):
    """Weights that are the same every time."""

    @functools.wraps(build)
    def built(*words, **options):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(*words, **options)

    return built


@the_same
def vae(channels=4, **options):
    blocks = {"block_out_channels": (8, 8), "latent_channels": channels, "norm_num_groups": 4}
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    kinds = {"down_block_types": down, "up_block_types": up, "sample_size": 16}
    return diffusers.AutoencoderKL(**blocks | kinds | options).eval()


@the_same
def plain_unet(channels):
    sizes = {"sample_size": 8, "in_channels": channels, "out_channels": channels}
    blocks = {"layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return diffusers.UNet2DModel(**sizes | blocks | kinds, add_attention=False).eval()


@the_same
def told_unet(**options):
    sizes = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1}
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4}
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    kinds = {"down_block_types": down, "up_block_types": up, "cross_attention_dim": 8}
    return diffusers.UNet2DConditionModel(**sizes | blocks | kinds | options).eval()


@the_same
def dit(classes=1000, **options):
    sizes = {"sample_size": 8, "in_channels": 4, "out_channels": 8, "num_layers": 1}
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "num_embeds_ada_norm": classes}
    return diffusers.DiTTransformer2DModel(**sizes | heads | options).eval()


def tokenizer(folder):
    """Of letters alone."""
    folder.mkdir()
    letters = [chr(c) for c in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *ENDS]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    return transformers.CLIPTokenizer(*files, model_max_length=16)


@the_same
def text(kind="CLIPTextModel"):
    config = transformers.CLIPTextConfig(
        vocab_size=54,
        hidden_size=8,
        intermediate_size=8,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return getattr(transformers, kind)(config).eval()


def stable_diffusion(folder, scheduler=None, coder=None):
    return diffusers.StableDiffusionPipeline(
        vae=coder or vae(),
        text_encoder=text(),
        tokenizer=tokenizer(folder),
        unet=told_unet(),
        scheduler=scheduler or diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(folder):
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    words = tokenizer(folder)
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=text(),
        text_encoder_2=text("CLIPTextModelWithProjection"),
        tokenizer=words,
        tokenizer_2=words,
        unet=told_unet(
            **added, projection_class_embeddings_input_dim=6 * 4 + 8, cross_attention_dim=16
        ),
        scheduler=diffusers.EulerDiscreteScheduler(),
    )


@the_same
def stable_diffusion_3(folder):
    words, both = tokenizer(folder), [text("CLIPTextModelWithProjection") for _ in range(2)]
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.06),
        text_encoder=both[0],
        tokenizer=words,
        text_encoder_2=both[1],
        tokenizer_2=words,
        text_encoder_3=None,
        tokenizer_3=None,
    )


PROMPTED = {"1": stable_diffusion, "XL": stable_diffusion_xl, "3": stable_diffusion_3}


def saved(folder, pipeline):
    pipeline.save_pretrained(folder)
    return f"diffusers:{folder}"


def theirs(pipeline, **options):
    """What the pipeline itself draws from the same seeds."""
    pipeline.set_progress_bar_config(disable=True)
    drawn = [torch.Generator().manual_seed(int(seed)) for seed in SEEDS]
    with torch.random.fork_rng(devices=[]):
        found = pipeline(**options, generator=drawn, num_inference_steps=3, output_type="np")
    return found.images.transpose(0, 3, 1, 2)


def ours(model, **fields):
    spec = SamplingSpec(**{"steps": 3} | fields)
    return draw_batch(load(model), SEEDS, spec, size=len(SEEDS))[0]


def latent_noise(shape=(2, 4, 8, 8)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def clean(scheduler, output, t, x):
    """What DDIM calls the original sample."""
    plain = diffusers.DDIMScheduler.from_config(scheduler.config, clip_sample=False)
    plain.set_timesteps(1000)
    return plain.step(output, t, x).pred_original_sample


def ratio(scheduler, t=400):
    kept = scheduler.alphas_cumprod[t]
    return kept.sqrt(), ((1 - kept) / kept).sqrt().item()


def test_a_transformer_of_latents_draws_as_its_pipeline_and_denoises_latents(tmp_path):
    scheduler = diffusers.DDIMScheduler()
    pipeline = diffusers.DiTPipeline(dit(), vae(), scheduler)
    model = f"{saved(tmp_path, pipeline)},class=7"
    opened = load(model)
    assert (opened.shape, opened.latents.shape) == ((3, 16, 16), (4, 8, 8))
    assert opened.sampler.about == {"scheduler": "DDIMScheduler", "guidance": 4.0}
    expected = theirs(pipeline, class_labels=[7, 7])
    assert expected.std() > 0.05  # there is something to compare
    np.testing.assert_allclose(ours(model), expected, atol=1e-4)  # guidance of float32 sums
    plain = theirs(pipeline, class_labels=[7, 7], guidance_scale=1.0)
    np.testing.assert_allclose(ours(f"{model},guidance=1"), plain, atol=1e-4)
    x, (kept, sigma) = latent_noise(), ratio(scheduler)
    with torch.no_grad():
        output = pipeline.transformer(x, torch.tensor([400, 400]), torch.tensor([7, 7])).sample
        found = opened.latents.denoiser(x / kept, sigma)
    assert (found - clean(scheduler, output[:, :4], 400, x)).abs().max() < 1e-5


def test_latents_of_a_quantised_autoencoder_are_drawn_as_by_their_pipeline(tmp_path):
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 3}
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    coder = the_same(diffusers.VQModel)(
        **blocks, down_block_types=down, up_block_types=up, num_vq_embeddings=16
    )
    pipeline = diffusers.LDMPipeline(coder.eval(), plain_unet(3), diffusers.DDIMScheduler())
    model = saved(tmp_path, pipeline)
    expected = theirs(pipeline, batch_size=2)
    np.testing.assert_allclose(ours(model), expected, atol=1e-5)
    opened, x = load(model), latent_noise((1, 3, 16, 16)).sigmoid()
    with torch.no_grad():
        encoded = 0.18215 * coder.encode(2 * x - 1).latents
        assert torch.allclose(opened.latents.encode(x), encoded, atol=1e-6)


SCALES = {
    "factor": ({"scaling_factor": 0.5}, lambda z: 0.5 * z),
    "shift": ({"scaling_factor": 0.5, "shift_factor": 0.25}, lambda z: 0.5 * (z - 0.25)),
    "by channel": (
        {"scaling_factor": 0.5, "latents_mean": [1.0, 0, 0, 0], "latents_std": [1.0, 2, 4, 8]},
        lambda z: (
            0.5
            * (z - torch.tensor([1.0, 0, 0, 0]).view(1, 4, 1, 1))
            / torch.tensor([1.0, 2, 4, 8]).view(1, 4, 1, 1)
        ),
    ),
}


@pytest.mark.parametrize("case", SCALES)
@pytest.mark.parametrize("half", [False, True])
def test_latents_are_the_mode_scaled_and_shifted_in_single_precision(tmp_path, case, half):
    options, scaled = SCALES[case]
    coder = vae(**options)
    coder = coder.half() if half else coder
    model = saved(tmp_path, diffusers.DiTPipeline(dit(), coder, diffusers.DDIMScheduler()))
    found, x = load(f"{model},class=0").latents, latent_noise((2, 3, 16, 16)).sigmoid()
    coder = coder.float()
    with torch.no_grad():
        mode = coder.encode(2 * x - 1).latent_dist.mode()
        assert found.encode(x).dtype == torch.float32
        assert torch.allclose(found.encode(x), scaled(mode), atol=1e-6)
        decoded = coder.decode(mode).sample / 2 + 0.5
        assert torch.allclose(found.decode(scaled(mode)), decoded, atol=1e-5)


@pytest.mark.parametrize("case", PROMPTED)
def test_a_prompt_with_commas_is_drawn_as_by_its_pipeline(tmp_path, case):
    pipeline = PROMPTED[case](tmp_path / "words")
    model = saved(tmp_path / "model", pipeline)
    opened = load(f"{model},prompt={PROMPT}")
    assert opened.shape == (3, 16, 16)
    expected = theirs(pipeline, prompt=[PROMPT] * 2)
    assert expected.std() > 0.05
    np.testing.assert_allclose(ours(f"{model},prompt={PROMPT}"), expected, atol=1e-4)
    weighed = theirs(pipeline, prompt=[PROMPT] * 2, guidance_scale=2.0)
    np.testing.assert_allclose(ours(f"{model},guidance=2,prompt={PROMPT}"), weighed, atol=1e-4)
    assert np.abs(weighed - expected).max() > 1e-3
    other = load(f"{model},prompt=a dog")
    assert model_digest(other) != model_digest(opened)


def test_a_denoiser_of_latents_is_told_the_prompt(tmp_path):
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    pipeline = stable_diffusion(tmp_path / "words", scheduler)
    model, x = saved(tmp_path / "model", pipeline), latent_noise()
    kept, sigma = ratio(scheduler)
    with torch.no_grad():
        words = pipeline.encode_prompt([PROMPT] * 2, "cpu", 1, True)
        own, plain = (
            clean(scheduler, pipeline.unet(x, 400, each).sample, 400, x) for each in words
        )
        found = load(f"{model},prompt={PROMPT}").latents.denoiser(x / kept, sigma)
        guided = load(f"{model},guidance=3,prompt={PROMPT}").latents.denoiser(x / kept, sigma)
    assert (found - own).abs().max() < 1e-5
    assert (guided - plain - 3 * (own - plain)).abs().max() < 1e-5
    assert (own - plain).abs().max() > 1e-4


def test_a_denoiser_of_xl_is_told_the_prompt_and_the_size(tmp_path):
    pipeline = stable_diffusion_xl(tmp_path / "words")
    model, x = saved(tmp_path / "model", pipeline), latent_noise()
    scheduler = diffusers.DDIMScheduler()  # the same table
    kept, sigma = ratio(scheduler)
    size = torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 2)
    with torch.no_grad():
        words, _, pooled, _ = pipeline.encode_prompt([PROMPT] * 2, device="cpu")
        added = {"text_embeds": pooled, "time_ids": size}
        output = pipeline.unet(x, 400, words, added_cond_kwargs=added).sample
        found = load(f"{model},prompt={PROMPT}").latents.denoiser(x / kept, sigma)
    assert (found - clean(scheduler, output, 400, x)).abs().max() < 1e-5


@pytest.fixture
def latent(tmp_path):
    pipeline = diffusers.DiTPipeline(dit(), vae(), diffusers.DDIMScheduler())
    return f"{saved(tmp_path / 'model', pipeline)},class=7"


def test_our_sampler_walks_through_latents_and_decodes(latent):
    spec = SamplingSpec(method="flow", steps=3, sigma_max=20.0)
    found, model = ours(latent, **spec.model_dump()), load(latent)
    with torch.no_grad():
        z = probability_flow(
            model.latents.denoiser,
            noise(SEEDS, (4, 8, 8)),
            seeds=SEEDS,
            mean=0.0,
            steps=3,
            sigma_max=20.0,
            sigma_min=0.01,
        )
        expected = model.latents.decode(z).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert settled_for(model, SamplingSpec()).method == "own"


def test_what_takes_images_says_that_a_model_denoises_latents(latent, tmp_path, capsys):
    photos = "photos,size=16"
    for words in (
        ["harmonics", "--model", latent, "--data", photos],
        ["sample", "--model", latent, "--size", "8"],
    ):
        assert main([*words, "--out", str(tmp_path / "x.png")]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert "DiTPipeline denoises latents of 4 x 8 x 8 (channels, height, width), not" in said
    with pytest.raises(InputError, match="denoises latents of 4 x 8 x 8"):
        load(latent)(torch.zeros(1, 3, 16, 16), 0.5)


@pytest.fixture
def colours(tmp_path):
    """An array of images in colour."""
    values = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "colours.npy", values)
    return str(tmp_path / "colours.npy")


def test_an_audit_compares_errors_on_latents(latent, colours, tmp_path):
    spec = audit.Spec(
        model=latent, train=colours, count=3, draws=2, sigmas=(0.4,), sampling={"steps": 2}
    )
    sets = opened(drawn(spec, tmp_path / "run", "cpu"))
    found = membership.errors(spec, sets, load(latent), torch.device("cpu"), lambda *_: None)
    space, x = load(latent).latents, images.load(colours)[:]
    seeds = [derive_seed(0, "membership", draw) for draw in range(2)]
    with torch.no_grad():
        z, own = noise(seeds, (4, 8, 8)), space.encode(x)
        each = [space.denoiser(own + 0.4 * of, torch.full((12,), 0.4)) - own for of in z]
    expected = torch.stack(each).square().mean((0, 2, 3, 4))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)


def test_a_wrong_convention_of_latents_is_seen_on_coded_images(latent, colours, tmp_path):
    """An untrained network denoises nothing: the table says so, and the strip shows images."""
    spec = check_model.Spec(model=latent, data=colours, images=2, sigmas=(0.2, 1.0))
    run = check_model.run(spec, tmp_path / "run", device="cpu")
    assert run.result.fault
    assert run.result.fits[0].wiring == "epsilon in [0, 1]"
    with torch.no_grad():
        x = load(latent).latents
        y = images.load(colours)[:]
        coded = x.decode(x.encode(y)).numpy()
    clean = load_file(run.folder / "arrays.safetensors")["clean"]
    assert min(np.abs(clean - each).max() for each in coded) < 1e-5


REFUSED = {
    "": "StableDiffusionPipeline needs a prompt; add ,prompt=TEXT, the last option",
    ",class=3,prompt=a": "StableDiffusionPipeline knows no classes; leave out class=3",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_prompt_that_is_missing_is_asked_for_in_one_line(tmp_path, capsys, words):
    model = saved(tmp_path / "model", stable_diffusion(tmp_path / "words"))
    capsys.readouterr()
    assert main(["sample", "--model", model + words, "--out", str(tmp_path / "x.png")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith(REFUSED[words])
    assert "\n" not in said


def test_a_part_that_overflowed_or_is_missing_is_refused(tmp_path):
    pipeline = stable_diffusion(tmp_path / "words")
    with torch.no_grad():
        pipeline.vae.decoder.conv_in.weight.mul_(torch.inf)
    model = saved(tmp_path / "model", pipeline)
    with pytest.raises(InputError, match=r"weights of vae hold NaN or infinity; were they saved"):
        load(f"{model},prompt=a")
    (tmp_path / "model" / "text_encoder" / "config.json").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded as StableDiffusionPipeline: "):
        load(f"{model},prompt=a")


def test_a_part_of_a_pipeline_of_latents_is_not_taken_for_one_of_pixels(latent):
    path = latent.removesuffix(",class=7")
    with pytest.raises(InputError, match=r"is a part of a pipeline that codes images; give "):
        load(f"{path}/transformer,class=7")
