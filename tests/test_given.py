"""Images that a caller holds: arrays and data sets become image sets, and the data of a study."""

import hashlib

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from twinscore import environment, images, runs
from twinscore.denoisers import NetworkSpec, UNet
from twinscore.errors import InputError
from twinscore.experiments import audit, transition
from twinscore.sampling import SamplingSpec
from twinscore.training import TrainingSpec, fit, single_device

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (40, 1, 6, 6), dtype=np.uint8)


class Items(Dataset):
    """A data set of the items of a list, each a function's."""

    def __init__(self, items, made=lambda item: item):
        self.items, self.made = items, made

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.made(self.items[index])


def labelled(image):
    return torch.from_numpy(image), int(image.sum())


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 1, 4, 6), (5, 3, 4, 6)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_arrays_tensors_and_data_sets_are_the_same_images(shape, dtype):
    array = RANDOM.integers(0, 256, shape).astype(dtype)
    array = array / np.float32(255) if dtype == "float32" else array
    expected = images.from_pixels(array.reshape(5, -1, 4, 6))
    whole = array.reshape(expected.pixels.shape)
    forms = [array, images.from_data(expected), list(whole)]
    forms += [torch.from_numpy(array), TensorDataset(torch.from_numpy(whole))]
    for form in forms:
        assert images.from_data(form).digests == expected.digests


def test_labels_come_along_where_they_are_whole_numbers():
    found = images.from_data(Items(BYTES, labelled))
    assert found.labels.tolist() == BYTES.sum((1, 2, 3)).tolist()
    tensor = images.from_data(Items(BYTES, lambda x: (x, torch.tensor(3), "more")))
    assert set(tensor.labels.tolist()) == {3}
    assert images.from_data(Items(BYTES, lambda x: (x, torch.ones(40)))).labels is None
    assert images.from_data(Items(BYTES, lambda x: (x, 0.5))).labels is None


def test_rounding_is_clipped_and_wider_floats_are_converted():
    array = np.linspace(-5e-6, 1 + 5e-6, 16).reshape(1, 4, 4)
    found = images.from_data(array)[:]
    assert found.dtype == torch.float32
    assert (found.min(), found.max()) == (0, 1)
    half = torch.rand(2, 1, 3, 3).to(torch.bfloat16)
    assert torch.equal(images.from_data(half)[:], half.float())


class Endless(IterableDataset):
    def __iter__(self):
        return iter(BYTES)


def changing():
    generator = torch.Generator().manual_seed(0)
    return Items(range(3), lambda _: torch.rand(1, 2, 2, generator=generator))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Endless(), "Endless is neither an array nor a map-style data set; give one with len"),
        (7, "int is neither"),
        ([], "the data set is empty"),
        (np.zeros((4, 4)), "an array of shape (4, 4) holds no images; give (N, H, W) or"),
        (np.zeros((4, 8, 8, 3)), "shape (4, 8, 8, 3) holds no images; give (N, H, W) or (N, C"),
        (np.zeros((0, 3, 8, 8)), "the array is empty"),
        (np.full((1, 2, 2), 1.1), "floats from 1.1 to 1.1 are not in [0, 1]; rescale"),
        (np.full((1, 2, 2), np.nan), "floats from nan to nan are not in [0, 1]"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), "int64 pixels; give uint8, uint16 or floats"),
        (["a.png"], "item 0: str is no image; give tensors or arrays"),
        ([{"image": 3}], "item 0: dict is no image"),
        ([np.zeros((2, 2))], "item 0 has shape (2, 2); give (C, H, W)"),
        (
            [np.zeros((1, 2, 2)), np.zeros((1, 2, 3))],
            "item 1 is float64 (1, 2, 3) and item 0 is float64 (1, 2, 2); give items of one shape",
        ),
        ([(BYTES[0], 3), (BYTES[1], None)], "item 1 has no whole number as its label"),
        (changing(), "item 0 is another image each time it is read; take random transforms out"),
    ],
)
def test_what_is_no_set_of_images_is_refused_in_one_line(given, says):
    with pytest.raises(InputError) as caught:
        images.from_data(given)
    assert str(caught.value).startswith("images: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fit_takes_them_and_goes_by_their_content(tmp_path):
    spec = TrainingSpec(steps=3, batch=2, evaluations=1)
    own = {"fabric": single_device("cpu"), "seed": 1}
    plain = images.from_pixels(BYTES)
    trained = [
        fit(UNet(width=2, levels=1, seed=0), form, spec, **own).state_dict()
        for form in (plain, plain[:], BYTES, Items(BYTES, labelled))
    ]
    for other in trained[1:]:
        assert all(torch.equal(trained[0][name], other[name]) for name in other)

    def stop(step, row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(UNet(width=2, levels=1), BYTES, spec, folder=tmp_path, on_step=stop, **own)
    with pytest.raises(InputError, match="belongs to something else"):
        fit(UNet(width=2, levels=1), BYTES[::-1].copy(), spec, folder=tmp_path, **own)
    fit(UNet(width=2, levels=1), Items(BYTES), spec, folder=tmp_path, **own)


SPEC = transition.Spec(
    sizes=(3, 8),
    test=4,
    samples=4,
    network=NetworkSpec(width=2, levels=1),
    training=TrainingSpec(steps=6, batch=2, evaluations=1),
    sampling=SamplingSpec(steps=2),
)


@pytest.fixture
def one_core(monkeypatch):
    monkeypatch.setattr(environment, "available_cores", lambda: 1)


def content(folder):
    """What a run left of its trainings: paths, and digests of the files but for their times."""
    files = folder.glob("trials/*/*.safetensors")
    return {
        f"{path.relative_to(folder)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.mark.usefixtures("one_core")
def test_a_study_of_given_images_is_that_of_their_packed_file(tmp_path):
    own = tmp_path / "own"
    done = transition.run(SPEC, own, device="cpu", images=Items(BYTES, labelled))
    file = own / "images.safetensors"
    kept = images.load(file)
    assert (
        kept.digest
        == images.from_pixels(BYTES).digest
        == runs.read_json(own / "spec.json")["data_digest"]
    )
    assert kept.labels.tolist() == BYTES.sum((1, 2, 3)).tolist()
    assert done.result.data.source == str(file)
    before = content(own)
    named = SPEC.model_copy(update={"data": str(file)})
    transition.run(named, tmp_path / "named", device="cpu")
    assert content(tmp_path / "named") == before
    # again: nothing is trained, from whatever the same images are in; a damaged file is mended
    file.write_bytes(b"damaged")
    written = {path: path.stat().st_mtime_ns for path in own.glob("trials/*/weights*")}
    transition.run(SPEC, own, device="cpu", images=torch.from_numpy(BYTES))
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert images.load(file).digest == kept.digest
    with pytest.raises(InputError, match="another spec \\(differs in data\\)"):
        transition.run(SPEC, own, device="cpu", images=255 - BYTES)
    assert images.load(file).digest == kept.digest


def test_nothing_is_written_for_what_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    large = SPEC.model_copy(update={"sizes": (30,)})
    for out in (None, tmp_path / "out"):
        with pytest.raises(InputError, match="2\\*30 \\+ 4 images"):
            transition.run(large, out, device="cpu", images=BYTES)
    with pytest.raises(InputError, match="images: audit has no data to replace"):
        audit.run(audit.Spec(), tmp_path / "out", images=BYTES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_workers_read_the_images_of_the_caller(tmp_path):
    floats = images.from_pixels(BYTES / np.float32(255), groups=[str(k // 2) for k in range(40)])
    spec = SPEC.model_copy(update={"duplicate_threshold": 1})
    transition.run(spec, tmp_path / "one", device="cpu", workers=1, images=floats)
    transition.run(spec, tmp_path / "two", device="cpu", workers=2, images=floats)
    names = [sorted(of) for of in (content(tmp_path / "one"), content(tmp_path / "two"))]
    assert names[0] == names[1]
    assert images.load(tmp_path / "two/images.safetensors").groups == floats.groups
