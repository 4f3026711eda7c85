"""DICOM files: windows, rescaling, polarity, patients, frames, and what cannot be decoded."""

import sys

import numpy as np
import pytest

from readers import dicom
from twinscore import images
from twinscore.errors import InputError

pydicom = pytest.importorskip("pydicom")

STORED = np.arange(24, dtype=np.uint16).reshape(4, 6) * 100
SHARED = "SharedFunctionalGroupsSequence"
EACH = "PerFrameFunctionalGroupsSequence"


def put(folder, name, pixels=STORED, **fields):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom(pixels, **fields))
    return path


def complaint(source):
    with pytest.raises(InputError) as caught:
        images.load(str(source))
    message = str(caught.value)
    assert "\n" not in message
    return message


def item(**fields):
    data = pydicom.Dataset()
    for name, value in fields.items():
        setattr(data, name, value)
    return data


def test_the_window_of_the_source_string_is_in_the_units_of_the_file(tmp_path):
    put(tmp_path, "a", RescaleSlope=0.5, RescaleIntercept=-300, WindowCenter=1, WindowWidth=9)
    loaded = images.load(f"{tmp_path},window=-160:240")
    units = STORED * 0.5 - 300
    expected = ((units + 160) / 400).clip(0, 1)
    np.testing.assert_allclose(loaded.pixels[0, 0], expected, atol=1e-7)  # float32
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("shape", "low", "high"), [(None, -160.0, 239.0), ("LINEAR_EXACT", -160.0, 240.0)]
)
def test_the_window_of_the_file_is_applied_as_the_standard_says(tmp_path, shape, low, high):
    """LINEAR, which is meant where nothing is said, is a pixel narrower: PS3.3, C.11.2.1.2."""
    fields = {} if shape is None else {"VOILUTFunction": shape}
    put(tmp_path, "a", RescaleIntercept=-1000, WindowCenter=[40, 1], WindowWidth=[400, 9], **fields)
    loaded = images.load(str(tmp_path))
    centre, width = 40.0, 400.0
    units = STORED - 1000.0
    if shape is None:
        expected = (units - (centre - 0.5)) / (width - 1) + 0.5
    else:
        expected = (units - centre) / width + 0.5
    np.testing.assert_allclose(loaded.pixels[0, 0], expected.clip(0, 1), atol=1e-6)
    [note] = loaded.notes
    assert f"the window that the file states, {low:g}:{high:g}" in note


def test_a_curved_window_is_refused_unless_one_is_given(tmp_path):
    put(tmp_path, "a", WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert "states a window of shape SIGMOID" in complaint(tmp_path)
    assert len(images.load(f"{tmp_path},window=0:9")) == 1


@pytest.mark.parametrize("bits", [12, 16])
def test_without_a_window_the_bits_stored_are_the_range(tmp_path, bits):
    put(tmp_path, "a", BitsStored=bits)
    loaded = images.load(str(tmp_path))
    assert loaded.peak == 2**bits - 1
    np.testing.assert_array_equal(loaded.pixels[0, 0], STORED)
    assert f"no window: the whole range of {bits} bits" in loaded.notes[0]
    assert (len(loaded.notes) == 2) == (bits == 16)  # little of 16 bits is used


def test_a_table_of_display_values_is_told_not_applied(tmp_path):
    table = item(LUTDescriptor=[2, 0, 16], LUTData=b"\0\0\x09\0")
    put(tmp_path, "a", BitsStored=12, VOILUTSequence=[table])
    loaded = images.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.pixels[0, 0], STORED)
    assert "a table of display values (VOI LUT) is not applied" in loaded.notes[0]


def test_numbers_with_a_sign_are_counted_from_the_lowest(tmp_path):
    put(tmp_path, "a", np.array([[-2048, 0], [5, 2047]], dtype=np.int16), BitsStored=12)
    loaded = images.load(str(tmp_path))
    assert (loaded.pixels.dtype, loaded.peak) == (np.uint16, 4095)
    np.testing.assert_array_equal(loaded.pixels[0, 0], [[0, 2048], [2053, 4095]])
    assert "int16 pixels from -2,048 to 2,047; add window" in complaint(f"{tmp_path},depth=12")


@pytest.mark.parametrize("options", ["", ",window=0:2000", ",depth=12"])
def test_low_values_are_white_where_the_file_says_so(tmp_path, options):
    put(tmp_path / "1", "a", PhotometricInterpretation="MONOCHROME1", BitsStored=12)
    put(tmp_path / "2", "a", PhotometricInterpretation="MONOCHROME2", BitsStored=12)
    negative, positive = (images.load(f"{tmp_path}/{k}{options}")[0] for k in (1, 2))
    np.testing.assert_allclose(negative, 1 - positive, atol=1e-6)
    assert "MONOCHROME1" in images.load(f"{tmp_path}/1{options}").notes[0]


def test_patients_are_groups_and_suffixes_do_not_matter(tmp_path):
    for name, patient in (("b/IM1", "anna"), ("a.dcm", "ben"), ("c.png", "anna"), ("d", "")):
        put(tmp_path, name, PatientID=patient)
    loaded = images.load(f"{tmp_path},depth=12")
    assert loaded.names == ("a.dcm", "b/IM1", "c.png", "d")
    assert loaded.groups == ("ben", "anna", "anna", "1.2.3")  # of no patient, the study


def test_frames_are_images_with_their_own_fields(tmp_path):
    frames = np.stack([STORED, STORED + 1000])
    shared = [item(FrameVOILUTSequence=[item(WindowCenter=1000, WindowWidth=2001)])]
    each = [
        item(PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=shift)])
        for shift in (0, -1000)
    ]
    put(tmp_path, "a", frames, **{SHARED: shared, EACH: each})
    put(tmp_path, "b", WindowCenter=1000, WindowWidth=2001, PatientID="ben")
    loaded = images.load(str(tmp_path))
    assert loaded.names == ("a/000", "a/001", "b")
    assert loaded.groups == ("anna", "anna", "ben")
    assert len(set(loaded.digests)) == 1
    expected = ((STORED + 0.5) / 2000).clip(0, 1)
    np.testing.assert_allclose(loaded.pixels[1, 0], expected, atol=1e-6)


def test_colour_keeps_its_pixels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    put(tmp_path, "a", colours)
    loaded = images.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.pixels[0], colours.transpose(2, 0, 1))


def test_files_without_pixels_are_passed_over_with_their_number(tmp_path):
    put(tmp_path, "a", BitsStored=12)
    report = pydicom.dcmread(tmp_path / "a")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    report.save_as(tmp_path / "report.dcm")
    loaded = images.load(str(tmp_path))
    assert loaded.names == ("a",)
    assert "passed over 1 DICOM without pixels" in loaded.notes[0]
    assert "no image in" in complaint(tmp_path / "report.dcm")


def test_different_depths_are_refused_by_name(tmp_path):
    put(tmp_path, "a", BitsStored=12)
    put(tmp_path, "b", BitsStored=14)
    assert "'a' and 'b' differ in depth (12 and 14 bits); add window" in complaint(tmp_path)
    assert len(images.load(f"{tmp_path},depth=14")) == 2


@pytest.mark.parametrize(
    ("syntax", "says"),
    [
        ("1.2.840.10008.1.2.4.80", "is compressed as JPEG-LS Lossless Image Compression (1.2.840."),
        ("1.2.840.10008.1.2.4.102", "which pydicom cannot decode here"),
        ("1.2.3.4.5", "is compressed as 1.2.3.4.5, which pydicom cannot decode here"),
        ("1.2.840.10008.1.2.1.99", "is deflated as a whole (1.2.840.10008.1.2.1.99)"),
    ],
)
def test_what_pydicom_cannot_decode_is_named(tmp_path, monkeypatch, syntax, says):
    from pydicom.pixels import get_decoder

    path = put(tmp_path, "a", BitsStored=12)
    content = path.read_bytes()
    old, new = b"1.2.840.10008.1.2.1\0", syntax.encode() + b"\0" * (len(syntax) % 2)
    length = (len(new)).to_bytes(2, "little")
    at = content.index(old)
    content = content[: at - 2] + length + new + content[at + len(old) :]
    group = int.from_bytes(content[140:144], "little") + len(new) - len(old)
    path.write_bytes(content[:140] + group.to_bytes(4, "little") + content[144:])
    for known in ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.102"):
        try:
            monkeypatch.setattr(get_decoder(known), "_available", {})
        except NotImplementedError:
            continue
    message = complaint(f"{tmp_path},skip_corrupt")  # the picture is sound, so it is not left out
    assert says in message
    assert str(path) in message


def test_without_the_extra_one_line_names_it(tmp_path, monkeypatch):
    path = put(tmp_path, "a")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    message = f"{str(path)!r}: needs pydicom, which is not installed; "
    assert complaint(tmp_path) == f"{message}pip install 'twinscore[medical]'"
