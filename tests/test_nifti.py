"""NIfTI volumes: slices, units, groups, and what is refused."""

import gzip
import sys

import numpy as np
import pytest

from readers import nifti
from twinscore import images
from twinscore.errors import InputError

pytest.importorskip("nibabel")

VOLUME = (np.arange(60).reshape(3, 4, 5) * 40 - 1000).astype(np.int16)


def complaint(source):
    with pytest.raises(InputError) as caught:
        images.load(str(source))
    message = str(caught.value)
    assert "\n" not in message
    return message


def windowed(values, low, high):
    return ((values.astype(float) - low) / (high - low)).clip(0, 1)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "scan"])
def test_volumes_are_slices_along_an_axis(tmp_path, axis, name):
    content = nifti(VOLUME)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    options = "" if axis is None else f",axis={axis}"
    loaded = images.load(f"{tmp_path},window=-500:900{options}")
    along = 2 if axis is None else axis
    expected = windowed(np.moveaxis(VOLUME, along, 0), -500, 900)
    np.testing.assert_allclose(loaded.pixels[:, 0], expected, atol=1e-7)  # float32
    assert loaded.names[-1] == f"{name}/{VOLUME.shape[along] - 1:03d}"
    assert loaded.notes == (
        f"{str(tmp_path)!r}: slices along axis {along} of 0, 1 and 2, as stored (RAS)",
    )
    one = images.load(f"{tmp_path / name},window=-500:900{options}")
    assert one.digests == loaded.digests


def test_the_slope_and_intercept_of_the_file_are_applied(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti(VOLUME, 0.5, -3))
    loaded = images.load(f"{tmp_path},window=-500:100")
    expected = windowed(np.moveaxis(VOLUME * 0.5 - 3, 2, 0), -500, 100)
    np.testing.assert_allclose(loaded.pixels[:, 0], expected, atol=1e-7)


def test_the_file_is_the_group(tmp_path):
    for person in ("p1", "p2"):
        (tmp_path / person).mkdir()
        (tmp_path / person / "t1.nii").write_bytes(nifti(VOLUME))
    loaded = images.load(f"{tmp_path},window=0:1")
    assert loaded.groups == ("p1/t1.nii",) * 5 + ("p2/t1.nii",) * 5


def test_numbers_without_a_known_peak_need_a_window(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti(VOLUME))  # of which the first slice ends at 1,200
    assert "int16 pixels from -1,000 to 1,200; add window=LOW:HIGH" in complaint(path)
    path.write_bytes(nifti((VOLUME + 1000).astype(np.float32)))
    assert "floats from 0 to 2200 are outside [0, 1]; add window=LOW:HIGH" in complaint(path)
    deep = (VOLUME + 1000).astype(np.uint16)
    path.write_bytes(nifti(deep))
    loaded = images.load(f"{path},depth=12")
    assert loaded.peak == 4095
    np.testing.assert_array_equal(loaded.pixels[:, 0], np.moveaxis(deep, 2, 0))


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        (np.zeros((3, 4, 5, 2), np.uint8), "has 4 axes, (3, 4, 5, 2); give volumes of three"),
        (np.zeros((3, 4, 5), np.complex64), "holds complex64; give plain numbers"),
    ],
)
def test_what_is_no_volume_of_numbers_is_refused(tmp_path, volume, says):
    (tmp_path / "a.nii").write_bytes(nifti(volume))
    assert says in complaint(f"{tmp_path},skip_corrupt")


def test_a_fourth_axis_of_one_and_a_missing_third_one_are_no_matter(tmp_path):
    values = VOLUME.astype(np.uint8)
    (tmp_path / "a.nii").write_bytes(nifti(values[..., None]))
    assert len(images.load(str(tmp_path))) == 5
    (tmp_path / "a.nii").write_bytes(nifti(values[..., 0]))
    np.testing.assert_array_equal(images.load(str(tmp_path)).pixels[0, 0], values[..., 0])


def test_a_header_that_declares_too_much_is_refused_before_anything_is_allocated(tmp_path):
    content = bytearray(nifti(VOLUME))
    content[42:48] = np.array([8000, 8000, 8000], "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    assert "its header declares" in complaint(tmp_path)
    (tmp_path / "a.nii").write_bytes(gzip.compress(bytes(content)))
    assert "are held in memory" in complaint(tmp_path)
    content[42:48] = np.array([500, 500, 500], "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(gzip.compress(bytes(content)))
    assert "compressed ones cannot hold them" in complaint(tmp_path)


def test_axis_is_for_volumes(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.uint8))
    assert "axis is not for what this is" in complaint(f"{tmp_path}/a.npy,axis=0")


def test_without_the_extra_one_line_names_it(tmp_path, monkeypatch):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti(VOLUME))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    message = f"{str(path)!r}: needs nibabel, which is not installed; "
    assert complaint(tmp_path) == f"{message}pip install 'twinscore[medical]'"
