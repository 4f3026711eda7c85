"""Images in Parquet files and Hugging Face data sets, written on the spot by the real libraries."""

import contextlib
import io
import os
import signal
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import metadata

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), dtype=np.uint8)
FIRST = PIXELS.transpose(0, 3, 1, 2)
LABELS = [2, 0, 1, 0, 2, 1, 1]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(one) for one in PIXELS]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
STRUCTS = [{"bytes": one, "path": f"{k}.png"} for k, one in enumerate(PICTURES)]


def write(path, row_group_size=3, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def complaint(source):
    with pytest.raises(InputError) as caught:
        images.load(str(source))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


# Parquet


@pytest.mark.parametrize(
    "column",
    [
        STRUCTS,
        PICTURES,
        pa.array(PICTURES, pa.large_binary()),
        pa.array(PIXELS.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8())))),
        FIRST.tolist(),
        pa.array((FIRST / 255).tolist(), pa.list_(pa.list_(pa.list_(pa.float32(), 6), 4), 3)),
    ],
    ids=["structs", "bytes", "large bytes", "uint8 lists", "int64 lists", "fixed-size float lists"],
)
def test_every_kind_of_column_holds_the_same_images(tmp_path, column):
    path = write(tmp_path / "a.parquet", image=column, label=LABELS)
    loaded = images.load(str(path))
    assert loaded.labels.tolist() == LABELS
    assert loaded.names == tuple(f"00000{k}" for k in range(7))
    np.testing.assert_allclose(loaded[:], FIRST / np.float32(255), rtol=0, atol=1e-7)  # float32
    small = images.load(f"parquet:{path},crop=4,size=2,gray")
    assert small.shape == (1, 2, 2)


def test_flat_lists_of_rows_are_gray_images(tmp_path):
    path = write(tmp_path / "a.parquet", pixels=PIXELS[..., 0].tolist())
    loaded = images.load(str(path))
    np.testing.assert_array_equal(loaded.pixels[:, 0], PIXELS[..., 0])
    assert loaded.labels is None


def test_sixteen_bit_lists_keep_their_depth(tmp_path):
    deep = PIXELS[..., 0].astype(np.uint16) * 257
    kind = pa.list_(pa.list_(pa.uint16()))
    path = write(tmp_path / "a.parquet", image=pa.array(deep.tolist(), kind))
    np.testing.assert_array_equal(images.load(str(path)).pixels[:, 0], deep)


def test_depth_and_window_hold_for_lists_and_for_pictures(tmp_path):
    deep = PIXELS[..., 0].astype(np.int64) * 16 - 100
    path = write(tmp_path / "a.parquet", image=deep.tolist())
    assert "add window=LOW:HIGH" in complaint(path)
    loaded = images.load(f"{path},window=-100:4000")
    expected = ((deep + 100) / 4100).clip(0, 1)
    np.testing.assert_allclose(loaded.pixels[:, 0], expected, atol=1e-7)  # float32
    twelve = (deep + 100).astype(np.uint16)
    for column in (twelve.tolist(), [png(one) for one in twelve]):
        schema = pa.list_(pa.list_(pa.uint16())) if isinstance(column[0], list) else pa.binary()
        path = write(tmp_path / "a.parquet", image=pa.array(column, schema))
        loaded = images.load(f"parquet:{path},depth=12")
        assert loaded.peak == 4095
        np.testing.assert_array_equal(loaded.pixels[:, 0], twelve)


def test_a_folder_is_read_in_the_order_of_paths(tmp_path):
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "0.parquet", image=PICTURES[4:], label=LABELS[4:])
    write(tmp_path / "a.parquet", image=PICTURES[:4], label=LABELS[:4])
    loaded = images.load(f"parquet:{tmp_path}")
    np.testing.assert_array_equal(loaded.pixels, FIRST)
    assert loaded.labels.tolist() == LABELS
    write(tmp_path / "c.parquet", image=STRUCTS)
    assert "c.parquet': its column 'image' is not as in 'a.parquet'" in complaint(
        f"parquet:{tmp_path}"
    )


def test_columns_are_chosen(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        front=PICTURES,
        back=PICTURES[::-1],
        kind=["b", "a", "c", "a", "b", "c", "c"],
        weight=[0.5] * 7,
    )
    assert "several columns can hold images; give column=NAME, one of front, back" in complaint(
        path
    )
    loaded = images.load(f"parquet:{path},column=back,label=kind")
    np.testing.assert_array_equal(loaded.pixels, FIRST[::-1])
    assert loaded.labels.tolist() == [1, 0, 2, 0, 1, 2, 2]  # numbered in alphabetical order
    for options, says in {
        "column=kind": "column 'kind' of string holds no images; columns that can are front, back",
        "column=side": "has no column 'side' to hold images; columns that can are front, back",
        "column=back,label=weight": "no column 'weight' of whole numbers or text for labels; "
        "columns that can are kind",
        "column=back,label=none": "no column 'none'",
        "column=back,split=train": "unknown option 'split'",
    }.items():
        assert says in complaint(f"parquet:{path},{options}")
    write(path, image=PICTURES, label=LABELS, labels=LABELS)
    assert "has both 'label' and 'labels'; give label=NAME" in complaint(path)
    assert images.load(f"parquet:{path},label=labels").labels.tolist() == LABELS


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"x": [1, 2], "y": ["a", "b"]}, "no column holds images; give column=NAME, one of x, y"),
        ({"image": pa.array([], pa.binary())}, "has no rows"),
        ({"image": [PICTURES[0], None]}, "row 1': holds no bytes; fill it in or add skip_corrupt"),
        ({"image": pa.array([{"path": "/x.png"}], STRUCT)}, "row 0': holds no bytes"),
        ({"image": PICTURES[:2], "label": [1, None]}, "'label' lacks the label of an image"),
        ({"image": PICTURES[:2], "label": pa.array([1, 2**63], pa.uint64())}, "of 2**63 or more"),
        ({"image": [PICTURES[0], png(PIXELS[0, :3])]}, "differ in size (4x6 and 3x6); add size=3"),
        ({"image": [[[1, 2], [3, 4]], [[1, 2]]]}, "the lists differ in length"),
        ({"image": [[[1, 2], [3]], [[1, 2], [3, 4]]]}, "the lists differ in length"),
        ({"image": [[[1, None]], [[1, 2]]]}, "a number is missing"),
        ({"image": [[[1, 256]]]}, "int64 pixels from 1 to 256; add window=LOW:HIGH"),
        ({"image": [[[-1, 6]]]}, "int64 pixels from -1 to 6"),
        ({"image": [[[0.0, float("nan")]]]}, "holds NaN or infinity"),
        ({"image": [[[0.0, 1.5]]]}, "are outside [0, 1]"),
        ({"image": np.ones((1, 2, 2, 2), int).tolist()}, "holds no images; give (N, H, W)"),
        ({"image": [[[]], [[]]]}, "no column holds images"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, columns, says):
    path = write(tmp_path / "a.parquet", **columns)
    message = complaint(path)
    assert says in message
    assert "a.parquet" in message


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array(PICTURES), pa.array(PICTURES)], ["image", "image"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "has several columns 'image'" in complaint(tmp_path / "a.parquet")


def test_corrupt_rows_stop_the_load_or_are_listed(tmp_path):
    broken = [b"", PICTURES[1], PICTURES[2][:60], None, PICTURES[4]]
    path = write(tmp_path / "a.parquet", image=broken, label=LABELS[:5])
    assert "column image, row 0': cannot be decoded" in complaint(path)
    loaded = images.load(f"{path},skip_corrupt")
    assert (loaded.names, loaded.skipped) == (("000001", "000004"), ("000000", "000002", "000003"))
    np.testing.assert_array_equal(loaded.pixels, FIRST[[1, 4]])
    assert loaded.labels.tolist() == [0, 2]
    write(path, image=[b"", b"x"])
    assert "all 2 images are corrupt" in complaint(f"{path},skip_corrupt")


def test_bombs_are_refused_by_size(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", image=PICTURES)
    monkeypatch.setattr("twinscore.images.tables.MAX_UNPACKED", 100)
    assert "a row group unpacks to more than 100 bytes" in complaint(path)
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "too many pixels" in complaint(f"{path},skip_corrupt")


def test_broken_files_are_refused(tmp_path):
    path = write(tmp_path / "a.parquet", image=PICTURES, label=LABELS)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (
        b"",
        b"PAR1",
        whole[:-1],
        whole[:middle],
        whole[middle:],
        whole[:-300] + b"PAR1",
    ):
        path.write_bytes(content)
        assert repr(str(path)) in complaint(path)
    damaged = bytearray(whole)
    damaged[4:40] = b"\xff" * 36  # the header of the first page
    path.write_bytes(damaged)
    assert "a.parquet" in complaint(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="looks only where it can fork")
def test_a_file_on_which_pyarrow_would_die_is_named(tmp_path, monkeypatch):
    """As it does where a byte of the sizes in its metadata is flipped (found by hostile.py)."""

    def die(paths, sender):
        os.write(sender, b".")
        os.kill(os.getpid(), signal.SIGKILL)

    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", image=PICTURES)
    assert len(images.load(f"parquet:{tmp_path}")) == 14
    monkeypatch.setattr(metadata, "_look", die)
    assert "b.parquet': cannot be read (its metadata are damaged)" in complaint(
        f"parquet:{tmp_path}"
    )


def test_labels_that_are_not_text_are_refused(tmp_path):
    latin = pa.array([b"caf\xe9"] * 7).view(pa.string())
    path = write(tmp_path / "a.parquet", image=PICTURES, label=latin)
    assert "a.parquet': cannot be read (In column 1: Invalid: Invalid UTF8" in complaint(path)


def test_missing_files_and_empty_folders_are_named(tmp_path):
    assert "names no file" in complaint("parquet:")
    assert "no .parquet file in this folder" in complaint(f"parquet:{tmp_path}")
    missing = f"{str(tmp_path / 'x')!r}: cannot be read (No such file or directory)"
    assert missing in complaint(f"parquet:{tmp_path}/x")


def test_memory_holds_the_packed_images_and_little_more(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 64, 64), dtype=np.uint8)
    path = write(tmp_path / "a.parquet", row_group_size=20, image=[png(one) for one in noise])
    images.load(str(path))  # imports
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    try:
        images.load(f"{path},size=16")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pa.total_allocated_bytes() - before < noise.nbytes / 8  # freed with its row group
    # packed: 51 kB; decoding one image and Pillow's buffers: 100 kB; the file: 830 kB
    assert peak < noise.nbytes / 2


# datasets


def features():
    names = ["cat", "dog", "emu"]
    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})


def made(**options):
    rows = {"image": [Image.fromarray(one) for one in PIXELS], "label": LABELS}
    return datasets.Dataset.from_dict(rows, features=features(), **options)


def test_a_saved_data_set(tmp_path):
    made().save_to_disk(tmp_path / "saved")
    loaded = images.load(f"hf:{tmp_path}/saved")
    np.testing.assert_array_equal(loaded.pixels, FIRST)
    assert loaded.labels.tolist() == LABELS
    small = images.load(f"hf:{tmp_path}/saved,column=image,label=label,size=2,gray")
    assert small.shape == (1, 2, 2)


def test_the_splits_of_a_saved_data_set(tmp_path):
    splits = {"train": made(), "test": made().select([3, 1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert len(images.load(f"hf:{tmp_path}/saved")) == 7
    loaded = images.load(f"hf:{tmp_path}/saved,split=test")
    np.testing.assert_array_equal(loaded.pixels, FIRST[[3, 1]])
    assert "has no split 'valid'; give split=NAME, one of train, test" in complaint(
        f"hf:{tmp_path}/saved,split=valid"
    )
    made(split="test").save_to_disk(tmp_path / "one")
    assert len(images.load(f"hf:{tmp_path}/one")) == 7
    assert "is the split test, not 'train'" in complaint(f"hf:{tmp_path}/one,split=train")


def test_a_folder_of_pictures_by_class(tmp_path):
    for k, picture in enumerate(PICTURES):
        path = tmp_path / "data" / "train" / ["dog", "cat"][k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    loaded = images.load(f"hf:{tmp_path}/data")
    order = [1, 3, 5, 0, 2, 4, 6]
    np.testing.assert_array_equal(loaded.pixels, FIRST[order])
    assert loaded.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert 'cannot be loaded (Unknown split "test"' in complaint(f"hf:{tmp_path}/data,split=test")


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path):
    for folder in ("a[1],b", "saved[1],b"):
        (tmp_path / folder / "cat").mkdir(parents=True)
        (tmp_path / folder / "cat" / "a.png").write_bytes(PICTURES[0])
    said = complaint(f"hf:{tmp_path}/a[1],b,size=2")
    assert "datasets takes *, ? and [ in the name of a folder for a pattern; rename it" in said
    assert images.load(f"{tmp_path}/a[1],b,size=2").shape == (3, 2, 2)
    datasets.Dataset.from_dict({"image": PIXELS.tolist()}).save_to_disk(tmp_path / "s[1],b")
    assert images.load(f"hf:{tmp_path}/s[1],b,size=2").shape == (3, 2, 2)


def test_parquet_and_arrays_through_the_library(tmp_path):
    (tmp_path / "data").mkdir()
    made().to_parquet(tmp_path / "data" / "train-0.parquet")
    for source in (f"hf:{tmp_path}/data", f"hf:{tmp_path}/data/train-0.parquet"):
        np.testing.assert_array_equal(images.load(source).pixels, FIRST)
    kind = datasets.Features({"pixels": datasets.Array3D((4, 6, 3), "uint8")})
    arrays = datasets.Dataset.from_dict({"pixels": PIXELS}, features=kind)
    arrays.save_to_disk(tmp_path / "arrays")
    arrays.to_parquet(tmp_path / "arrays.parquet")
    for source in (f"hf:{tmp_path}/arrays", f"{tmp_path}/arrays.parquet"):
        np.testing.assert_array_equal(images.load(source).pixels, FIRST)


def test_corrupt_rows_of_a_data_set(tmp_path):
    rows = {"image": [*STRUCTS[:2], {"bytes": b"GIF89a", "path": None}], "label": LABELS[:3]}
    datasets.Dataset.from_dict(rows, features=features()).save_to_disk(tmp_path / "saved")
    assert "column image, row 2': cannot be decoded" in complaint(f"hf:{tmp_path}/saved")
    loaded = images.load(f"hf:{tmp_path}/saved,skip_corrupt")
    assert (len(loaded), loaded.skipped) == (2, ("000002",))


def test_unusable_data_sets_are_refused(tmp_path):
    assert "'hf:': names no data set; give hf:NAME or hf:PATH" in complaint("hf:")
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in complaint(f"hf:{tmp_path}/empty")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "text")
    assert "no column holds images; give column=NAME, one of text" in complaint(
        f"hf:{tmp_path}/text"
    )
    made().save_to_disk(tmp_path / "cut")
    (arrow,) = (tmp_path / "cut").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:300])
    assert f"'hf:{tmp_path}/cut': cannot be" in complaint(f"hf:{tmp_path}/cut")
    (tmp_path / "cut" / "state.json").write_text("{")
    assert "cannot be loaded" in complaint(f"hf:{tmp_path}/cut")


def test_a_picture_that_is_gone_is_named(tmp_path, monkeypatch):
    kind = datasets.Features({"image": datasets.Image()})
    gone = {"image": [str(tmp_path / "gone.png")]}
    rows = datasets.Dataset.from_dict(gone, features=kind)
    monkeypatch.setattr(datasets, "load_dataset", lambda *words, **options: rows)
    message = complaint("hf:someone/pictures")
    assert "'hf:someone/pictures': cannot be read" in message
    assert "gone.png" in message


def test_names_on_the_hub_go_to_the_library(monkeypatch):
    asked = []

    def load_dataset(*words, **options):
        asked.append((*words, options))
        return made()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(images.load("hf:someone/pictures,split=test,config=small")) == 7
    assert asked == [("someone/pictures", "small", {"split": "test", "trust_remote_code": False})]


def test_a_script_in_a_data_set_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_TRUST_REMOTE_CODE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE", True, raising=False)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "cannot be loaded" in complaint(f"hf:{tmp_path}/set")
    made().to_parquet(tmp_path / "set" / "train-0.parquet")
    with contextlib.suppress(InputError):  # the pictures may be found beside the script
        images.load(f"hf:{tmp_path}/set")
    assert not (tmp_path / "ran").exists()


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    def load_dataset(*words, **options):
        raise ConnectionError("Couldn't reach 'someone/pictures'\n on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    says = "'hf:someone/pictures': cannot be loaded (Couldn't reach 'someone/pictures' on the Hub)"
    assert says in complaint("hf:someone/pictures")


@pytest.mark.parametrize("source", ["hf:someone/pictures", "{}/a.parquet"])
def test_without_the_extra_the_line_says_what_to_install(tmp_path, monkeypatch, source):
    write(tmp_path / "a.parquet", image=PICTURES)
    for module in ("datasets", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    message = complaint(source.format(tmp_path))
    assert "is not installed; pip install 'twinscore[hub]'" in message
