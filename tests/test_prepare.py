"""The command that packs images."""

import numpy as np
import pytest
from PIL import Image

from twinscore import cli, images
from twinscore.errors import InputError
from twinscore.experiments import prepare
from twinscore.images.mapping import MappedPixels


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "faces").mkdir()
    for k in range(5):
        pixels = generator.integers(0, 256, (9, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / f"{k}.png")
    return tmp_path / "faces"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "made" / "faces.safetensors"


def test_a_folder_is_packed_and_mapped(folder, out, capsys):
    assert cli.main(["prepare", "--data", f"{folder},size=4,gray", "--out", str(out)]) == 0
    said = capsys.readouterr()
    plain, loaded = images.load(f"{folder},size=4,gray"), images.load(str(out))
    assert said.out.splitlines() == [
        "number  5",
        "shape   1x4x4",
        "size    0.0 MiB",
        f"digest  {plain.digest}",
        f"images: {out}",
    ]
    assert said.err.splitlines() == ["read: step 5 of 5", "written: step 5 of 5"]
    assert isinstance(loaded.pixels, MappedPixels)
    assert (loaded.digest, loaded.names) == (plain.digest, plain.names)


@pytest.mark.parametrize("source", ["digits", "textures", "photos,size=64", "faces"])
def test_embedded_sets_keep_every_pixel_and_all_they_know(source, out):
    result = prepare.run(prepare.Spec(data=source), out)
    plain, loaded = images.load(source), images.load(str(out))
    assert result.rounded is None
    assert (result.digest, result.number) == (plain.digest, len(plain))
    for known in ("peak", "names", "digests", "groups", "shape"):
        assert getattr(loaded, known) == getattr(plain, known)
    np.testing.assert_array_equal(loaded.labels, plain.labels)


def test_packing_twice_gives_the_same_bytes(folder, out):
    prepare.run(prepare.Spec(data=str(folder)), out)
    again = out.with_name("again.safetensors")
    prepare.run(prepare.Spec(data=str(folder)), again)
    assert again.read_bytes() == out.read_bytes()


def test_rounding_and_corrupt_files_are_said(folder, out, tmp_path):
    assert prepare.run(prepare.Spec(data="digits,size=4"), out).table().splitlines()[-1] == (
        "rounded from float32 to multiples of 1/255"
    )
    (folder / "bad.png").write_bytes(b"")
    result = prepare.run(prepare.Spec(data=f"{folder},skip_corrupt"), tmp_path / "b.safetensors")
    assert "skipped 1 corrupt files: 'bad.png' first" in result.table()


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        ("", "a.safetensors", "--data: not given"),
        ("digits", None, "--out: not given; give one that ends in .safetensors"),
        ("digits", "a.npz", "is not a packed file"),
        ("digits", "there.safetensors", "exists; give a new name"),
        ("digits,size=x", "a.safetensors", "size='x'"),
        ("nowhere", "a.safetensors", "neither a source"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(tmp_path, data, name, says):
    (tmp_path / "there.safetensors").write_text("precious")
    with pytest.raises(InputError, match=says):
        prepare.run(prepare.Spec(data=data), None if name is None else tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["there.safetensors"]
    assert (tmp_path / "there.safetensors").read_text() == "precious"
