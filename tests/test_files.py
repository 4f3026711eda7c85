"""Folders of pictures: formats, order, what is refused, and broken files of every format."""

import io
import os
import resource
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, features

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import parallel, pictures
from twinscore.images.scratch import scratch
from twinscore.images.transforms import luma, resize


def save(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **kwargs)
    return path


def gray(value, height=4, width=4, dtype=np.uint8):
    return np.full((height, width), value, dtype=dtype)


def complaint(source):
    with pytest.raises(InputError) as caught:
        images.load(str(source))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_is_read_recursively_in_path_order(tmp_path):
    save(tmp_path / "b.png", gray(51))
    save(tmp_path / "a" / "z.PGM", gray(102))
    save(tmp_path / "a.bmp", gray(153))
    save(tmp_path / ".hidden" / "h.png", gray(0))
    save(tmp_path / "._b.png", gray(0))
    (tmp_path / "notes.txt").write_text("not a picture")
    loaded = images.load(str(tmp_path))
    assert loaded.names == ("a.bmp", "a/z.PGM", "b.png")
    assert loaded[:].amax(dim=(1, 2, 3)).tolist() == pytest.approx([0.6, 0.4, 0.2])
    assert (loaded.shape, loaded.peak, loaded.labels, loaded.groups) == ((1, 4, 4), 255, None, None)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "tiff", "ppm", "bmp"])
def test_lossless_colour_formats_keep_every_pixel(tmp_path, suffix):
    colours = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    save(tmp_path / f"a.{suffix}", colours, **({"lossless": True} if suffix == "webp" else {}))
    loaded = images.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.pixels[0], colours.transpose(2, 0, 1))


def test_jpeg_is_read_nearly(tmp_path):
    save(tmp_path / "a.jpg", gray(128, 8, 8), quality=95)
    assert images.load(str(tmp_path))[0].mean().item() == pytest.approx(128 / 255, abs=0.01)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_keep_their_depth(tmp_path, suffix):
    levels = np.array([[0, 1, 257], [40000, 65534, 65535]], dtype=np.uint16)
    save(tmp_path / f"a.{suffix}", levels)
    loaded = images.load(str(tmp_path))
    assert (loaded.pixels.dtype, loaded.peak) == (np.uint16, 65535)
    np.testing.assert_array_equal(loaded.pixels[0, 0], levels)
    torch.testing.assert_close(loaded[0][0], torch.from_numpy(levels / 65535).float())


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after turning clockwise by 90 degrees
    save(tmp_path / "a.png", np.array([[10, 20, 30]], dtype=np.uint8), exif=exif)
    np.testing.assert_array_equal(images.load(str(tmp_path)).pixels[0, 0], [[10], [20], [30]])


def test_alpha_palette_and_cmyk_become_rgb(tmp_path):
    save(tmp_path / "a.png", np.array([[[200, 0, 0, 255], [9, 9, 9, 0]]], dtype=np.uint8))
    palette = Image.fromarray(np.array([[[0, 0, 255], [0, 255, 0]]], dtype=np.uint8))
    palette.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "b.png")
    Image.new("CMYK", (2, 1), (0, 255, 255, 0)).save(tmp_path / "c.tif")
    first, second, third = images.load(str(tmp_path)).pixels.transpose(0, 2, 3, 1)[:, 0]
    np.testing.assert_array_equal(first, [[200, 0, 0], [255, 255, 255]])
    np.testing.assert_array_equal(second, [[0, 0, 255], [0, 255, 0]])
    np.testing.assert_array_equal(third, [[255, 0, 0]] * 2)


def test_gray_with_alpha_stays_gray(tmp_path):
    Image.new("LA", (2, 2), (80, 255)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.load(str(tmp_path)).pixels, np.full((1, 1, 2, 2), 80))


def test_gray_is_the_luma(tmp_path):
    save(tmp_path / "a.png", np.array([[[255, 0, 0], [0, 255, 0], [10, 20, 30]]], dtype=np.uint8))
    save(tmp_path / "b.png", gray(7, 1, 3))
    assert "'a.png' and 'b.png' mix gray and colour" in complaint(tmp_path)
    loaded = images.load(f"{tmp_path},gray")
    np.testing.assert_array_equal(loaded.pixels[:, 0, 0], [[76, 150, 18], [7, 7, 7]])


def test_mixed_sizes_name_the_first_two_that_differ(tmp_path):
    save(tmp_path / "a.png", gray(1))
    save(tmp_path / "b.png", gray(1))
    save(tmp_path / "c.png", gray(1, 6, 3))
    message = complaint(tmp_path)
    assert "'a.png' and 'c.png' differ in size (4x4 and 6x3); add size=3" in message
    assert images.load(f"{tmp_path},size=3").shape == (1, 3, 3)


def test_mixed_depths_are_refused(tmp_path):
    save(tmp_path / "a.png", gray(1))
    save(tmp_path / "b.png", gray(1, dtype=np.uint16))
    assert "differ in depth (uint8 and uint16)" in complaint(tmp_path)


def test_missing_empty_and_other_paths_are_refused(tmp_path):
    assert "nor an existing path" in complaint(tmp_path / "missing")
    assert "no image in this folder" in complaint(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    assert "give a folder, an image, an IDX file, or one of .npy" in complaint(tmp_path / "a.txt")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert "gone.png': cannot be read" in complaint(tmp_path)


def test_corrupt_files_stop_the_load_or_are_listed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    whole = save(tmp_path / "b.png", noise).read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").write_bytes(b"")
    assert "a.png': cannot be decoded" in complaint(tmp_path)
    loaded = images.load(f"{tmp_path},skip_corrupt")
    assert (loaded.names, loaded.skipped) == (("b.png",), ("a.png", "c.jpg"))
    np.testing.assert_array_equal(loaded.pixels, noise[None, None])
    (tmp_path / "b.png").unlink()
    assert "all 2 images are corrupt" in complaint(f"{tmp_path},skip_corrupt")


@pytest.mark.parametrize("limit", [10, 100])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    save(tmp_path / "a.png", gray(0, 12, 12))
    monkeypatch.setattr("twinscore.images.pictures.MAX_PIXELS", limit)
    assert "too many pixels" in complaint(f"{tmp_path},skip_corrupt")


def test_a_lack_of_memory_does_not_make_a_picture_corrupt(tmp_path, monkeypatch):
    def fail(image):
        raise MemoryError

    save(tmp_path / "a.png", gray(0))
    monkeypatch.setattr(pictures, "_to_array", fail)
    assert "a.png': does not fit into memory" in complaint(f"{tmp_path},skip_corrupt")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_pictures_are_read_in_the_unit_interval_or_a_window(tmp_path, dtype):
    pixels = np.linspace(0, 1, 20).reshape(4, 5).astype(dtype)
    tiff(tmp_path / "a.tif", pixels, 3)
    np.testing.assert_array_equal(images.load(str(tmp_path)).pixels[0, 0], pixels.astype("f4"))
    tiff(tmp_path / "a.tif", pixels * 4 - 2, 3)
    assert "floats from -2 to 2 are outside [0, 1]; add window=LOW:HIGH" in complaint(tmp_path)
    found = images.load(f"{tmp_path},window=-1:1").pixels[0, 0]
    expected = (np.float64(pixels * 4 - 2) / 2 + 0.5).clip(0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-7)  # float32


# limits


def test_a_bomb_is_refused_by_its_header_alone(tmp_path):
    header = b"P5 100000 100000 255\n"
    (tmp_path / "a.pgm").write_bytes(header)
    tracemalloc.start()
    message = complaint(f"{tmp_path},skip_corrupt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "a.pgm': too many pixels; give images of at most 67 million" in message
    assert peak < 2**21  # Python's side of a decode would be 10 GB


def test_a_file_that_is_too_large_is_not_opened(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(pictures.MAX_BYTES + 2**20)
    assert "a.png': 513 MiB are too large for a picture; give files of at most 512 MiB" in (
        complaint(f"{tmp_path},skip_corrupt")
    )


def test_what_is_not_a_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "a.png': is not a regular file" in complaint(tmp_path)


def test_links_to_folders_are_passed_over_and_links_to_files_followed(tmp_path):
    save(tmp_path / "inside" / "a.png", gray(51))
    save(tmp_path.parent / f"{tmp_path.name}-outside" / "b.png", gray(102))
    (tmp_path / "inside" / "loop").symlink_to(tmp_path)
    (tmp_path / "c.png").symlink_to(tmp_path.parent / f"{tmp_path.name}-outside" / "b.png")
    (tmp_path / "d.png").symlink_to(tmp_path / "inside")
    assert images.load(str(tmp_path)).names == ("c.png", "inside/a.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    assert "self.png': cannot be read" in complaint(tmp_path)


def test_names_that_differ_in_case_or_suffix_only_are_different_images(tmp_path):
    for k, name in enumerate(("a.png", "A.png", "a.bmp", "sub/a.png")):
        save(tmp_path / name, gray(k))
    assert images.load(str(tmp_path)).names == ("A.png", "a.bmp", "a.png", "sub/a.png")


def test_a_name_that_is_not_text_is_refused(tmp_path):
    save(tmp_path / "a.png", gray(0)).rename(tmp_path / os.fsdecode(b"\xff.png"))
    assert r"\udcff.png': its name is not UTF-8; rename it" in complaint(tmp_path)


def test_an_upscaling_beyond_the_limit_is_refused(tmp_path):
    save(tmp_path / "a.png", gray(0))
    assert "size=9000 is too large; give at most 8192" in complaint(f"{tmp_path},size=9000")


# on all cores


@pytest.mark.parametrize("cores", [1, 7])
def test_the_first_bad_file_is_named_in_any_order_of_threads(tmp_path, monkeypatch, cores):
    monkeypatch.setattr(parallel, "available_cores", lambda: cores)
    for k in range(40):
        save(tmp_path / f"{k:02d}.png", gray(k))
    (tmp_path / "23.png").write_bytes(b"")
    save(tmp_path / "24.png", gray(0, 5, 5))
    save(tmp_path / "31.png", gray(0, dtype=np.uint16))
    assert "23.png': cannot be decoded" in complaint(tmp_path)
    assert "'00.png' and '24.png' differ in size" in complaint(f"{tmp_path},skip_corrupt")
    save(tmp_path / "24.png", gray(24))
    assert "'00.png' and '31.png' differ in depth" in complaint(f"{tmp_path},skip_corrupt")
    save(tmp_path / "31.png", gray(31))
    (tmp_path / "00.png").write_bytes(b"")
    loaded = images.load(f"{tmp_path},skip_corrupt")
    assert loaded.skipped == ("00.png", "23.png")
    assert loaded.pixels[:, 0, 0, 0].tolist() == [k for k in range(40) if k not in (0, 23)]
    assert loaded.names == tuple(f"{k:02d}.png" for k in loaded.pixels[:, 0, 0, 0])


@given(st.integers(0, 30), st.sets(st.integers(0, 29)))
def test_jobs_begin_in_order_and_the_first_failure_is_raised(number, bad):
    done = []

    def work(job):
        if job in bad:
            raise InputError(str(job))
        done.append(job)

    seen = []
    failing = sorted(job for job in bad if job < number)
    if failing:
        with pytest.raises(InputError, match=f"^{failing[0]}$"):
            parallel.for_each(work, number, lambda *_: None)
        assert set(done) >= set(range(failing[0]))
    else:
        parallel.for_each(work, number, lambda *event: seen.append(event))
        assert sorted(done) == list(range(number))
        assert [done for done, _ in seen] == [*range(16, number, 16), *([number] if number else [])]


@pytest.mark.parametrize("in_memory", [0, 2**28])
def test_processes_give_what_threads_give(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr("twinscore.images.scratch.IN_MEMORY", in_memory)
    for k in range(40):
        save(tmp_path / f"{k:02d}.png", gray(k))
    (tmp_path / "07.png").write_bytes(b"")
    threads = images.load(f"{tmp_path},skip_corrupt")
    monkeypatch.setattr(parallel, "_LEAST_FOR_PROCESSES", 0)
    processes = images.load(f"{tmp_path},skip_corrupt")
    assert processes.digests == threads.digests
    assert processes.skipped == threads.skipped == ("07.png",)
    assert "07.png': cannot be decoded" in complaint(tmp_path)


def test_pixels_beyond_the_limit_lie_in_a_file_without_a_name(tmp_path, monkeypatch):
    for k in range(5):
        save(tmp_path / "pictures" / f"{k}.png", gray(k))
    monkeypatch.setattr("twinscore.images.scratch.IN_MEMORY", 79)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    loaded = images.load(str(tmp_path / "pictures"))
    assert isinstance(loaded.pixels, np.memmap)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]
    monkeypatch.undo()
    plain = images.load(str(tmp_path / "pictures"))
    assert type(plain.pixels) is np.ndarray
    assert loaded.digests == plain.digests


def test_a_disk_without_room_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"no room for 1152921504\.6 GB of pixels .*TMPDIR"):
        scratch((2**60,), np.dtype(np.uint8))


# resizing


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))
def test_resizing_is_that_of_pillow_in_floats(side, size, channels, seed):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (channels, side, side), dtype=np.uint8)
    planes = [
        np.asarray(
            Image.fromarray(plane.astype(np.float32)).resize((size, size), Image.Resampling.LANCZOS)
        )
        for plane in image
    ]
    exact = np.stack(planes).clip(0, 255)
    floats = resize(image.astype(np.float32), size, 255.0)
    np.testing.assert_allclose(floats, exact, atol=4e-5)  # two float32 roundings of up to 255
    np.testing.assert_allclose(resize(image, size, 255.0), exact, atol=0.5 + 4e-5)


def test_the_luma_of_integers_is_that_of_doubles_rounded():
    """Of bytes, except for ties: weights of 16 bits are off by 255 * 1.3e-5 at most."""
    every_third = np.arange(0, 256, 3, dtype=np.uint8)
    colours = np.stack(np.meshgrid(np.arange(256, dtype=np.uint8), every_third, every_third))
    image = colours.reshape(3, -1, 256)
    red, green, blue = image.astype(np.float64)
    exact = 0.299 * red + 0.587 * green + 0.114 * blue
    np.testing.assert_allclose(luma(image)[0], exact, rtol=0, atol=0.5 + 0.0034)
    deep = image.astype(np.uint16) * 257
    red, green, blue = deep.astype(np.float64)
    exact = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
    np.testing.assert_array_equal(luma(deep)[0], exact)


def test_large_images_are_converted_in_pieces(tmp_path, monkeypatch):
    colours = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    save(tmp_path / "a.png", colours)
    whole = images.load(f"{tmp_path},gray,size=13"), images.load(f"{tmp_path},size=13")
    monkeypatch.setattr("twinscore.images.transforms._BLOCK", 7)
    pieces = images.load(f"{tmp_path},gray,size=13"), images.load(f"{tmp_path},size=13")
    assert [one.digest for one in pieces] == [one.digest for one in whole]


# broken files


def encoded(suffix):
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF", "ppm": "PPM", "pgm": "PPM"}.get(suffix, suffix)
    options = {"tif": {"compression": "tiff_lzw"}}.get(suffix, {})
    Image.fromarray(noise[..., 0] if suffix == "pgm" else noise).save(buffer, kind, **options)
    return buffer.getvalue()


WHOLE = {suffix: encoded(suffix) for suffix in ("png", "jpg", "webp", "tif", "ppm", "pgm", "bmp")}


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_broken_picture_is_an_image_or_an_input_error(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(sorted(WHOLE)))
    content = bytearray(WHOLE[suffix])
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(200, len(content)) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path = tmp_path_factory.getbasetemp() / f"broken.{suffix}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        image = pictures.decode(path)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert image.pixels.shape[0] in (1, 3)
        assert image.pixels.dtype.kind in "uif"


@pytest.mark.parametrize("suffix", sorted(WHOLE))
def test_truncated_files_are_corrupt(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for length in (0, 1, 12, len(WHOLE[suffix]) // 3):
        path.write_bytes(WHOLE[suffix][:length])
        with pytest.raises(pictures.CorruptImageError, match="repair it or add skip_corrupt"):
            pictures.decode(path)


def test_a_header_that_lies_about_the_size_costs_no_memory(tmp_path):
    side = 2**16
    chunk = b"IHDR" + struct.pack(">II", side, side) + b"\x08\x02\0\0\0"
    png = WHOLE["png"][:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + WHOLE["png"][33:]
    (tmp_path / "a.png").write_bytes(png)
    bmp = bytearray(WHOLE["bmp"])
    bmp[18:26] = struct.pack("<II", side, side)
    (tmp_path / "b.bmp").write_bytes(bmp)
    canvas = (16383).to_bytes(3, "little") * 2
    frame = WHOLE["webp"][12:]
    extended = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + canvas + frame
    riff = b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended
    (tmp_path / "c.webp").write_bytes(riff)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("a.png", "b.bmp", "c.webp"):
        with pytest.raises(InputError, match=r"too many pixels|cannot be decoded"):
            pictures.decode(tmp_path / name)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # kilobytes; decoding any of them takes over a gigabyte


def test_what_is_passed_over_is_one_line_with_counts(tmp_path):
    for name in ("a.png", "b.jfif.png"):
        save(tmp_path / name, gray(3))
    save(tmp_path / "@eaDir" / "a.png", gray(4))
    for name in ("c.csv", "d.CSV", "notes"):
        (tmp_path / name).write_bytes(b"x")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    save(elsewhere / "e.png", gray(5))
    (tmp_path / "dog").symlink_to(elsewhere)
    found = images.load(str(tmp_path))
    assert found.names == ("a.png", "b.jfif.png")
    [note] = found.notes
    assert note.startswith(f"{str(tmp_path)!r}: passed over 2 .csv")
    assert "1 without a suffix" in note
    assert "1 link to a folder (dog)" in note
    only = tmp_path.parent / f"{tmp_path.name}-only"
    only.mkdir()
    (only / "x.csv").write_bytes(b"x")
    assert "no image in this folder (passed over 1 .csv); it should hold" in complaint(only)


def test_jpegs_have_several_suffixes(tmp_path):
    for suffix in ("jfif", "jpe", "JPG"):
        Image.fromarray(gray(9, 8, 8)[0]).save(tmp_path / f"a.{suffix}", "JPEG")
    assert len(images.load(str(tmp_path))) == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_the_library(tmp_path, orientation):
    picture = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5))
    exif = Image.Exif()
    exif[274] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(pictures.decode(tmp_path / "a.png").pixels[0], expected)


def test_odd_metadata_does_not_make_a_picture_corrupt(tmp_path):
    """Text of more than Pillow takes, and an EXIF record that cannot be read."""
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2_000_000, zip=True)
    Image.fromarray(pixels).save(tmp_path / "text.png", pnginfo=text)
    Image.fromarray(pixels).save(tmp_path / "exif.png", exif=b"Exif\x00\x00II*\x00\xff\xff")
    for name in ("text.png", "exif.png"):
        np.testing.assert_array_equal(pictures.decode(tmp_path / name).pixels[0], pixels)


def tiff(path, pixels, form, zero=1, largest=None, bits=None, content=None):
    """An uncompressed TIFF with one strip, whose samples have this format, and what 0 means."""
    content = (
        pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() if content is None else content
    )
    bits = 8 * pixels.itemsize if bits is None else bits
    entries = {256: pixels.shape[1], 257: pixels.shape[0], 258: bits, 259: 1}
    entries |= {262: zero, 273: 0, 277: 1, 278: pixels.shape[0], 279: len(content), 339: form}
    entries |= {} if largest is None else {341: largest}
    start = 8 + 2 + 12 * len(entries) + 4
    entries[273] = start
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0)
    path.write_bytes(head + content)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_negative_is_turned_whatever_its_depth(tmp_path, dtype):
    """Photometric interpretation 0 of a TIFF: white is zero."""
    pixels = (np.arange(20).reshape(4, 5) * 3000 // (257 if dtype == np.uint8 else 1)).astype(dtype)
    tiff(tmp_path / "a.tif", pixels, 1, zero=0)
    turned = images.load(str(tmp_path)).pixels[0, 0]
    np.testing.assert_array_equal(turned, np.iinfo(dtype).max - pixels)


@pytest.mark.parametrize(
    ("dtype", "form", "named"), [(np.int16, 2, "int16"), (np.int32, 2, "int32")]
)
@pytest.mark.parametrize("lowest", [0, -5])
def test_signed_and_deeper_pixels_are_refused_by_what_the_file_says(
    tmp_path, dtype, form, named, lowest
):
    tiff(tmp_path / "a.tif", np.arange(lowest, lowest + 20, dtype=dtype).reshape(4, 5), form)
    named += f" pixels from {lowest} to {lowest + 19}; add window=LOW:HIGH"
    assert named in complaint(tmp_path)
    found = images.load(f"{tmp_path},window={lowest}:{lowest + 19}")[0]
    np.testing.assert_allclose(found.flatten(), np.arange(20) / 19, rtol=1e-6)  # float32


def test_sixteen_bits_without_a_sign_are_read(tmp_path):
    pixels = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    tiff(tmp_path / "a.tif", pixels, 1)
    np.testing.assert_array_equal(pictures.decode(tmp_path / "a.tif").pixels[0], pixels)


@pytest.mark.parametrize(("largest", "bits"), [(4095, 12), (1000, 10), (16383, 14)])
def test_images_that_use_little_of_their_range_are_told(tmp_path, largest, bits):
    pixels = np.linspace(0, largest, 20).astype(np.uint16).reshape(1, 4, 5)
    np.save(tmp_path / "a.npy", pixels)
    (tmp_path / "pictures").mkdir()
    save(tmp_path / "pictures" / "a.png", pixels[0])
    for source in ("a.npy", "pictures"):
        [note] = images.load(str(tmp_path / source)).notes
        assert f"values from 0 to {largest:,} use less than a quarter of the range" in note
        assert f"add depth={bits} if they are of {bits} bits, or window=LOW:HIGH" in note
        deep = images.load(f"{tmp_path / source},depth={bits}")
        assert (deep.peak, deep.notes) == (2**bits - 1, ())
    np.save(tmp_path / "a.npy", np.linspace(0, 16384, 20).astype(np.uint16).reshape(1, 4, 5))
    assert images.load(str(tmp_path / "a.npy")).notes == ()


def png_of(pixels, kind, chunks=b""):
    """A PNG of 16 bits, gray (``kind`` 0) or gray with alpha (4), with ``chunks`` before them."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def chunk(name, content):
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def test_gray_of_sixteen_bits_keeps_them_beside_alpha(tmp_path):
    """Laid over white, in its own depth: 65535 (1 - a) + a v, rounded."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 2**16, (5, 7, 2), dtype=np.uint16)
    pixels[0, :, 1] = [0, 65535, 1, 65534, 0, 65535, 32768]
    (tmp_path / "a.png").write_bytes(png_of(pixels, 4))
    value, alpha = pixels[..., 0].astype(float), pixels[..., 1] / 65535
    expected = np.rint(65535 * (1 - alpha) + alpha * value)
    np.testing.assert_array_equal(images.load(str(tmp_path)).pixels[0, 0], expected)


def test_the_transparent_gray_of_sixteen_bits_is_white(tmp_path):
    pixels = np.array([[5, 6, 4005], [70, 5, 261]], dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png_of(pixels, 0, chunk(b"tRNS", b"\0\5")))
    found = images.load(str(tmp_path)).pixels[0, 0]
    np.testing.assert_array_equal(found, [[65535, 6, 4005], [70, 65535, 261]])


def test_significant_bits_of_a_png_are_already_scaled_to_all(tmp_path):
    """The standard has them in the upper bits: sBIT does not change what the numbers mean."""
    pixels = np.array([[0, 4095 << 4]], dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png_of(pixels, 0, chunk(b"sBIT", b"\x0c")))
    loaded = images.load(str(tmp_path))
    assert (loaded.peak, loaded.pixels.max()) == (65535, 4095 << 4)


@pytest.mark.parametrize("zero", [0, 1])
def test_the_depth_that_a_tiff_states_is_its_peak(tmp_path, zero):
    pixels = np.linspace(0, 4095, 20).astype(np.uint16).reshape(4, 5)
    tiff(tmp_path / "a.tif", pixels, 1, zero=zero, largest=4095)
    loaded = images.load(str(tmp_path))
    assert loaded.peak == 4095
    np.testing.assert_array_equal(loaded.pixels[0, 0], pixels if zero else 4095 - pixels)
    assert "12 bits are in use, as the file says" in loaded.notes[0]
    tiff(tmp_path / "a.tif", pixels, 1, zero=zero, largest=4000)  # the largest value, no depth
    assert images.load(str(tmp_path)).peak == 65535
    tiff(tmp_path / "a.tif", pixels, 1, zero=zero, largest=1023)
    assert "its largest value 4,095 is beyond 10 bits (1,023); add depth=12" in complaint(tmp_path)


def test_packed_samples_of_twelve_bits_are_read(tmp_path):
    values = np.array([[0, 1, 4095, 2048]], dtype=np.uint16)
    packed = b"".join((int(a) << 12 | int(b)).to_bytes(3, "big") for a, b in values.reshape(-1, 2))
    tiff(tmp_path / "a.tif", values, 1, bits=12, content=packed)
    loaded = images.load(str(tmp_path))
    assert loaded.peak == 4095
    np.testing.assert_array_equal(loaded.pixels[0, 0], values)


def test_thirty_two_bits_without_a_sign_need_a_window(tmp_path):
    pixels = np.array([[0, 2**31 + 5, 2**32 - 1]], dtype=np.uint32)
    tiff(tmp_path / "a.tif", pixels, 1)
    assert "uint32 pixels from 0 to 4,294,967,295; add window" in complaint(tmp_path)
    found = images.load(f"{tmp_path},window=0:4294967295").pixels[0, 0, 0]
    np.testing.assert_allclose(found, pixels[0] / (2**32 - 1), rtol=1e-7)  # float32


@pytest.mark.parametrize("suffix", ["gif", "jp2", "jfif", "", "dat", "jpg", "nii", "dcm"])
@pytest.mark.parametrize("kind", ["GIF", "PNG", "JPEG2000"])
def test_the_content_decides_not_the_suffix(tmp_path, suffix, kind):
    name = f"a.{suffix}" if suffix else "a"
    Image.fromarray(gray(40, 8, 8)).save(tmp_path / name, kind)
    assert images.load(str(tmp_path)).names == (name,)
    alone = images.load(str(tmp_path / name))
    assert alone.names == (name,)
    assert alone[0].mean().item() == pytest.approx(40 / 255)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_nearly(tmp_path):
    Image.fromarray(gray(128, 8, 8)).save(tmp_path / "a", "AVIF", quality=95)
    assert images.load(str(tmp_path))[0].mean().item() == pytest.approx(128 / 255, abs=0.01)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>\n<p>", "its content is not a picture, it begins with '<!DOCTYPE html>'"),
        (b"\x89PNG\r\n\x1a\nzz", "it begins as PNG, but does not go on so"),
        (b"\0\1\2\3", "its content is not a picture, it begins with 00 01 02 03"),
    ],
)
def test_what_is_no_picture_is_told_by_its_beginning(tmp_path, content, says):
    (tmp_path / "a.jpg").write_bytes(content)
    assert f"a.jpg': cannot be decoded ({says}); repair it" in complaint(tmp_path)


def test_what_a_pillow_does_not_have_is_named(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"\0\0\0\x20ftypavif" + bytes(20))
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    assert "it is AVIF, which needs a newer Pillow" in complaint(tmp_path)


def test_several_frames_are_told_with_their_number(tmp_path):
    frames = [Image.fromarray(gray(value, 8, 8)) for value in (40, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b.tif", save_all=True, append_images=frames[1:])
    save(tmp_path / "c.png", gray(40, 8, 8))
    loaded = images.load(f"{tmp_path},gray")
    assert len(set(loaded.digests)) == 1
    assert loaded.notes == (
        f"{str(tmp_path)!r}: several frames, of which the first is taken (2 of 3 files)",
    )


def test_depth_belongs_to_integers_that_can_have_it(tmp_path):
    save(tmp_path / "a.png", gray(3))
    assert images.load(f"{tmp_path},depth=4").peak == 15
    assert "a.png': is of 8 bits, not 12; give no depth" in complaint(f"{tmp_path},depth=12")
    assert "largest value 3 is beyond 1 bits (1); add depth=2" in complaint(f"{tmp_path},depth=1")
