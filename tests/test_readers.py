"""Every reader, by enumeration: reads its sample, and of damaged ones makes images or one line."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import features

import readers
from twinscore import images
from twinscore.errors import InputError
from twinscore.images import content, formats, paths, sources

pytest.importorskip("pyarrow")
pytest.importorskip("pydicom")
pytest.importorskip("nibabel")

SAMPLES = readers.everything()
MADE = {"digits", "faces", "photos", "textures", *sources.loading.CLASSES}
"""Sources that read no file of the user's."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_reader_has_a_sample():
    without = set() if features.check("avif") else {"AVIF"}
    assert readers.contents().keys() | without == content.CONTENTS.keys() == formats.FORMATS.keys()
    assert readers.endings().keys() == paths.READERS.keys()
    assert readers.kinds().keys() == sources.KINDS.keys() - MADE


def test_the_docs_name_every_reader():
    text = (Path(__file__).parents[1] / "docs" / "images.md").read_text(encoding="utf-8")
    table = text.partition("## Every kind of file")[2].partition("### Depth")[0].lower()
    spelt = {"jpeg2000": "jpeg 2000", "-ubyte": "idx", ".parquet": "parquet", "parquet:": "parquet"}
    for name in (*content.CONTENTS, *paths.READERS, *(sources.KINDS.keys() - MADE)):
        plain = name.lower().removesuffix(".gz")
        plain = "idx" if plain in (".idx", "idx:") else plain
        assert spelt.get(plain, plain) in table, name


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sound_file_is_read(place, name):
    sample = SAMPLES[name]
    sample.write(place)
    loaded = images.load(sample.source)
    assert loaded.shape == sample.expected.shape[1:]
    found = 255 * loaded[:].numpy()
    np.testing.assert_allclose(found, sample.expected, atol=sample.tolerance)


def damaged(whole):
    """The content cut off at several places, and with a byte flipped at several others."""
    chance = random.Random(0)
    for share in (0, 0.02, 0.3, 0.7, 0.98):
        yield whole[: int(share * len(whole))]
    places = [chance.randrange(len(whole)) for _ in range(12)]
    for at in (*range(0, min(len(whole), 40), 5), *places):
        yield whole[:at] + bytes([whole[at] ^ chance.randrange(1, 256)]) + whole[at + 1 :]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_damaged_file_is_images_or_one_line(place, name, capfd):
    """Of the shape or the content it then declares, since pixels carry no checksum in most."""
    sample = SAMPLES[name]
    path = sample.write(place)
    for damage in damaged(path.read_bytes()):
        path.write_bytes(damage)
        try:
            loaded = images.load(sample.source)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            pixels = loaded[:]
            assert len(loaded.names) == len(loaded) == len(pixels)
            assert 0 <= pixels.min() <= pixels.max() <= 1
    told = capfd.readouterr().err
    assert told == "" or name in ("hf:", "TIFF")  # datasets shows its progress, libtiff complains


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_that_lost_its_second_half_says_so(place, name):
    sample = SAMPLES[name]
    path = sample.write(place)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as caught:
        images.load(sample.source)
    assert "\n" not in str(caught.value)
