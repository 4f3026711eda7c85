"""Drawing samples: qualities, batches that an interruption does not lose, film strips."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from twinscore.denoisers import Checkpoint, NetworkSpec, build, save
from twinscore.errors import InputError
from twinscore.experiments import folders, sample
from twinscore.sampling import SamplingSpec, noise, samples
from twinscore.sampling.samples import batch_for, draw, draw_batch
from twinscore.sampling.spec import QUALITIES, evaluations

SMALL = NetworkSpec(width=3, levels=1)
SHAPE = (1, 6, 6)


@pytest.fixture(scope="module")
def checkpoint():
    """Untrained, and shrunk so that it changes little: samples stay finite."""
    network = build(SMALL, 1, 0)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 0.3
    return Checkpoint(network.eval(), SHAPE, (0.4,))


@pytest.fixture(scope="module")
def model(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "weights.safetensors"
    save(path, checkpoint, SMALL)
    return path


def spec_of(model, **fields):
    return sample.Spec(model=str(model), **{"sampling": SamplingSpec(steps=3)} | fields)


METHODS = [
    {"solver": "euler"},
    {"solver": "heun"},
    {"solver": "dpm"},
    {"method": "ancestral"},
    {"method": "langevin"},
    {"method": "stochastic", "h0": 0.5, "beta": 0.9, "max_steps": 30},
]


@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_a_seed_gives_the_same_bits_in_any_batch_of_a_size(checkpoint, fields):
    seeds, spec = np.arange(11), SamplingSpec(**{"steps": 4} | fields)
    whole, _ = draw(checkpoint, seeds, spec, batch=4)
    assert whole.shape == (11, *SHAPE)
    assert whole.dtype == np.float32
    shuffled = np.array([10, 3, 7])
    part, _ = draw_batch(checkpoint, shuffled, spec, size=4)
    np.testing.assert_array_equal(part, whole[shuffled])


@pytest.mark.parametrize(("side", "batch"), [(8, 128), (80, 128), (256, 16), (2048, 1)])
def test_the_batch_is_bounded_by_its_pixels(side, batch):
    assert batch_for((1, side, side)) == batch


def test_without_a_batch_samples_are_those_of_the_default_one(model, tmp_path):
    sample.run(spec_of(model, count=3), tmp_path / "default.npz")
    sample.run(spec_of(model, count=3, batch=128), tmp_path / "given.npz")
    with np.load(tmp_path / "default.npz") as ours, np.load(tmp_path / "given.npz") as given:
        np.testing.assert_array_equal(ours["samples"], given["samples"])


@pytest.mark.parametrize("fields", [*METHODS[:-1], {"method": "stochastic", "h0": 1}], ids=str)
def test_evaluations_are_counted_beforehand(checkpoint, fields):
    """Of a stochastic path too, where the noise level falls as its steps are meant to lower it."""
    calls, spec = [], SamplingSpec(**{"steps": 4, "beta": 0.5, "sigma_min": 0.1} | fields)

    def mean(y, sigma=None):
        calls.append(len(y))
        return torch.full_like(y, checkpoint.mean[0])

    draw_batch(replace(checkpoint, denoiser=mean), np.arange(3), spec, size=3)
    assert calls[1:] == [3] * int(evaluations(spec))  # after one that checks the denoiser


def test_a_quality_stands_for_a_sampler_and_gives_way():
    for name, preset in QUALITIES.items():
        assert SamplingSpec(quality=name).resolved.model_dump().items() >= preset.items()
    mixed = SamplingSpec(quality="draft", steps=7).resolved
    assert (mixed.steps, mixed.solver) == (7, QUALITIES["draft"]["solver"])
    assert SamplingSpec().resolved == SamplingSpec(quality="standard").resolved
    with pytest.raises(ValidationError, match="not below"):
        SamplingSpec(sigma_min=3)


def test_paths_that_are_lost_are_black_and_counted(checkpoint, monkeypatch):
    def diverging(denoiser, z, **options):
        out = z.clone()
        out[1] = torch.nan
        return out

    monkeypatch.setattr(samples, "probability_flow", diverging)
    x, lost = draw_batch(checkpoint, np.arange(3), SamplingSpec(), size=3)
    assert lost == 1
    assert (x[1] == 0).all()
    assert (x[[0, 2]] != 0).any()
    never = SamplingSpec(method="stochastic", max_steps=1, sigma_min=1e-6)
    x, lost = draw_batch(checkpoint, np.arange(3), never, size=4)
    assert lost == 3
    assert (x == 0).all()


@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_run_continues_to_the_same_file(model, tmp_path, monkeypatch, stop_after):
    spec = spec_of(model, count=11, batch=4)
    sample.run(spec, tmp_path / "whole.npz", device="cpu")
    calls = []

    def interrupted(*args, **kwargs):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(args)
        return draw_batch(*args, **kwargs)

    monkeypatch.setattr(sample, "draw_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample.run(spec, tmp_path / "broken.npz", device="cpu")
    assert not (tmp_path / "broken.npz").exists()
    calls.clear()
    monkeypatch.setattr(
        sample, "draw_batch", lambda *a, **k: calls.append(a) or draw_batch(*a, **k)
    )
    sample.run(spec, tmp_path / "broken.npz", device="cpu")
    assert len(calls) == 3 - stop_after
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.npz", "whole.npz"]
    whole, broken = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "broken"))
    for name in ("samples", "seeds"):
        np.testing.assert_array_equal(whole[name], broken[name])


def test_batches_of_another_spec_are_not_mixed_in(model, tmp_path, monkeypatch):
    def stop(checkpoint, seeds, *args, **kwargs):
        if len(seeds) == 1:
            raise KeyboardInterrupt
        return draw_batch(checkpoint, seeds, *args, **kwargs)

    monkeypatch.setattr(sample, "draw_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        sample.run(spec_of(model, count=5, batch=4), tmp_path / "a.npz", device="cpu")
    with pytest.raises(InputError, match=r"holds a run of another spec \(differs in seed\)"):
        sample.run(spec_of(model, count=5, batch=4, seed=1), tmp_path / "a.npz", device="cpu")


def test_a_film_strip_goes_from_noise_to_the_sample(model, checkpoint, tmp_path):
    spec = spec_of(model, count=2, film=4, sampling=SamplingSpec(steps=5))
    sample.run(spec, tmp_path / "film.png", device="cpu")
    with Image.open(tmp_path / "film.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 7 + 1, 4 * 7 + 1)
    sample.run(spec_of(model, count=2, sampling=spec.sampling), tmp_path / "s.npz", device="cpu")
    samples, seeds = (np.load(tmp_path / "s.npz")[name] for name in ("samples", "seeds"))
    shown = np.rint(255 * samples[:, 0].clip(0, 1))
    np.testing.assert_array_equal(pixels[1:7, 22:28], shown[0])
    np.testing.assert_array_equal(pixels[8:14, 22:28], shown[1])
    start = 0.4 + spec.sampling.sigma_max * noise(seeds.tolist(), SHAPE).numpy()
    np.testing.assert_array_equal(pixels[1:7, 1:7], np.rint(255 * start[0, 0].clip(0, 1)))


def test_a_film_is_a_picture_of_two_moments_or_more(model, tmp_path):
    with pytest.raises(InputError, match="is not a picture"):
        sample.run(spec_of(model, film=3), tmp_path / "a.npz", device="cpu")
    with pytest.raises(ValidationError, match="2 moments"):
        spec_of(model, film=1)


# What a killed one left, damaged meanwhile


def left_behind(model, out, monkeypatch, after):
    """Files of the hidden folder of samples that were stopped after some batches."""
    drawn, calls = draw_batch, []

    def stopped(*arguments, **options):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return drawn(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sample, "draw_batch", stopped)
        with pytest.raises(KeyboardInterrupt):
            sample.run(spec_of(model, count=6, batch=2), out, device="cpu")
    return sorted(out.with_name(f".{out.name}.parts").iterdir())


@pytest.mark.parametrize(
    "damage", [lambda x: b"", lambda x: x[: len(x) // 2], lambda x: x[:-1] + b"~"]
)
def test_each_damaged_file_of_unfinished_samples_is_made_again_or_named(
    model, tmp_path, monkeypatch, damage
):
    sample.run(spec_of(model, count=6, batch=2), tmp_path / "whole.npz", device="cpu")
    whole = np.load(tmp_path / "whole.npz")
    names = [path.name for path in left_behind(model, tmp_path / "0.npz", monkeypatch, 2)]
    assert names == [".lock", "000000.safetensors", "000001.safetensors", "spec.json"]
    for index, name in enumerate(names, 1):
        out = tmp_path / f"{index}.npz"
        left_behind(model, out, monkeypatch, 2)
        path = out.with_name(f".{out.name}.parts") / name
        path.write_bytes(damage(path.read_bytes()))
        spec = spec_of(model, count=6, batch=2)
        if name == "spec.json":
            with pytest.raises(InputError, match=r"spec.json: .*give another --out$"):
                sample.run(spec, out, device="cpu")
        else:
            sample.run(spec, out, device="cpu")
            np.testing.assert_array_equal(np.load(out)["samples"], whole["samples"])
            assert not path.parent.exists()


def test_a_damaged_note_of_finished_samples_is_named_with_what_helps(model, tmp_path, monkeypatch):
    out, spec = tmp_path / "s.npz", spec_of(model, count=2)

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_inside", killed)
        with pytest.raises(KeyboardInterrupt):
            sample.run(spec, out, device="cpu")
    (tmp_path / ".s.npz.parts" / "finished.json").write_bytes(b"")
    with pytest.raises(InputError, match=r"finished.json: .*s.npz is finished: delete the folder"):
        sample.run(spec, out, device="cpu")
    assert np.load(out)["samples"].shape == (2, *SHAPE)
