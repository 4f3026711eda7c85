"""CelebA and LSUN, from small folders in the layout in which they are distributed."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from twinscore import images
from twinscore.errors import InputError
from twinscore.images.datasets import read_attributes, read_identities

NAMES = ("5_o_Clock_Shadow", "Eyeglasses", "Male", "Smiling")


def picture(seed, height=218, width=178):
    """Smooth colours, so that JPEG keeps them within a few levels."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


def celeba(root, number=6, pictures="img_align_celeba", texts="."):
    (root / pictures).mkdir(parents=True)
    (root / texts).mkdir(exist_ok=True)
    files = [f"{k:06d}.jpg" for k in range(1, number + 1)]
    for k, file in enumerate(files):
        picture(k).save(root / pictures / file)
    rows = [f"{file}{''.join(f' {v:2d}' for v in values(k))}" for k, file in enumerate(files)]
    text = "\n".join([str(number), " ".join(NAMES) + " ", *rows, ""])
    (root / texts / "list_attr_celeba.txt").write_text(text)
    people = "".join(f"{file} {2880 + k // 2}\n" for k, file in enumerate(files))
    (root / texts / "identity_CelebA.txt").write_text(people)
    return root


def values(k):
    return [1 if k % (i + 2) == 0 else -1 for i in range(len(NAMES))]


def complaint(source):
    with pytest.raises(InputError) as caught:
        images.load(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def attribute_file(folder, content):
    path = folder / "list_attr_celeba.txt"
    path.write_bytes(content)
    return path


HEAD = b"2\nMale Smiling\n"
FILES = ("1.jpg", "2.jpg")


@pytest.mark.parametrize(
    ("pictures", "texts"),
    [("img_align_celeba", "."), ("Img/img_align_celeba", "Anno")],
)
def test_celeba_comes_with_attributes_and_identities(tmp_path, pictures, texts):
    celeba(tmp_path, pictures=pictures, texts=texts)
    faces = images.load(f"celeba:{tmp_path}")
    assert faces.shape == (3, 80, 80)
    assert faces.names == tuple(f"{k:06d}.jpg" for k in range(1, 7))
    assert faces.groups == ("2880", "2880", "2881", "2881", "2882", "2882")
    assert tuple(faces.attributes) == NAMES
    expected = np.array([values(k) for k in range(6)]) == 1
    np.testing.assert_array_equal(np.stack(list(faces.attributes.values()), axis=1), expected)
    assert images.load(f"celeba:{tmp_path},size=40,gray").shape == (1, 40, 40)


def test_the_crop_is_the_central_160(tmp_path):
    celeba(tmp_path, number=1)
    whole = np.asarray(Image.open(tmp_path / "img_align_celeba" / "000001.jpg"))
    expected = Image.fromarray(whole[29:189, 9:169]).resize((80, 80), Image.Resampling.LANCZOS)
    expected = np.asarray(expected, dtype=np.float32).transpose(2, 0, 1)
    [face] = images.load(f"celeba:{tmp_path}")[[0]].numpy()
    # one level: Pillow rounds between its two passes where it resizes 8 bits, not floats
    np.testing.assert_allclose(255 * face, expected, atol=1.01)
    np.testing.assert_array_equal(
        images.load(f"celeba:{tmp_path},crop=160,size=160")[[0]][0].numpy() * 255,
        whole[29:189, 9:169].transpose(2, 0, 1),
    )


def test_both_files_are_optional(tmp_path):
    celeba(tmp_path)
    for name in ("list_attr_celeba.txt", "identity_CelebA.txt"):
        (tmp_path / name).unlink()
    faces = images.load(f"celeba:{tmp_path}")
    assert (len(faces), faces.groups, dict(faces.attributes)) == (6, None, {})


def test_celeba_is_split_by_identity_and_attribute(tmp_path):
    faces = images.load(f"celeba:{celeba(tmp_path, number=12)},size=8,gray")
    by_person = images.twins(faces, 4, test=2)
    people = [{faces.groups[k] for k in side} for side in vars(by_person).values()]
    assert len(set.union(*people)) == sum(map(len, people))
    by_attribute = images.twins(faces, 2, test=2, by="attribute", attribute="Smiling")
    assert faces.attributes["Smiling"][by_attribute.a].all()


@pytest.mark.parametrize(
    "content",
    [
        HEAD + b"1.jpg -1  1\n2.jpg  1 -1\n",
        b"2\r\nMale Smiling \r\n1.jpg -1  1 \r\n2.jpg  1 -1\r\n",
        b"\xef\xbb\xbf 2 \n Male  Smiling\n\n1.jpg\t-1 1\n2.jpg 1 -1",
        HEAD + b"1.jpg   -1   1\n2.jpg 1-1\n9.jpg ? ? ?\n",
        b"202599\nMale Smiling\n1.jpg -1 1\n1.jpg -1 1\n2.jpg 1 -1\n",
    ],
    ids=["doubled spaces", "Windows", "mark, tab, no end", "no space", "repeated row"],
)
def test_what_is_unambiguous_is_read(tmp_path, content):
    names, rows = read_attributes(attribute_file(tmp_path, content), FILES)
    assert names == ("Male", "Smiling")
    assert rows.values == {0: (False, True), 1: (True, False)}
    assert rows.wrong == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (HEAD + b"1.jpg -1 1\n2.jpg 1\n", "line 4: 1 values for 2 attributes"),
        (HEAD + b"1.jpg -1 1\n2.jpg 1 1 1\n", "line 4: 3 values for 2 attributes"),
        (HEAD + b"1.jpg -1 1\n2.jpg 1 0\n", "line 4: '0' is neither 1 nor -1"),
        (HEAD + b"1.jpg -1 1\n2.jpg 11\n", "line 4: 1 values for 2 attributes"),
        (HEAD + b"1.jpg -1 1\n2.jpg\n", "line 4: 0 values for 2 attributes"),
        (HEAD + b"1.jpg -1 1\n2.jpg 1 1\n2.jpg 1 -1\n", "line 5: '2.jpg' already has a row"),
        (HEAD + b"1.jpg -1 1\n", "no row for '2.jpg'"),
    ],
)
def test_broken_rows_are_named_by_line(tmp_path, content, says):
    _, rows = read_attributes(attribute_file(tmp_path, content), FILES)
    assert list(rows.wrong) == [1]
    assert says in rows.wrong[1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1: '' is not the number of images"),
        (b"Male Smiling\n1.jpg 1 1\n", "line 1: 'Male Smiling' is not the number"),
        (b"2\n", "line 2: not a list of attributes"),
        (b"2\n1.jpg 1 1\n", "line 2: not a list of attributes"),
        (b"2\nMale Male\n", "line 2: not a list of attributes, each named once"),
    ],
)
def test_a_wrong_head_is_refused(tmp_path, content, says):
    with pytest.raises(InputError) as caught:
        read_attributes(attribute_file(tmp_path, content), FILES)
    assert says in str(caught.value)


def test_identities_are_numbers(tmp_path):
    path = tmp_path / "identity_CelebA.txt"
    path.write_bytes(b"1.jpg 2880 \r\n2.jpg Alice\r\n")
    rows = read_identities(path, FILES)
    assert rows.values == {0: "2880"}
    assert rows.wrong == {1: f"{path}, line 2: 'Alice' is not the number of a person"}


def test_images_without_a_usable_row_are_named_or_left_out(tmp_path):
    celeba(tmp_path)
    attributes, identities = tmp_path / "list_attr_celeba.txt", tmp_path / "identity_CelebA.txt"
    broken = attributes.read_text().replace("000002.jpg -1", "000002.jpg")
    attributes.write_text(broken)
    identities.write_text(identities.read_text().replace("000005.jpg 2882\n", ""))
    said = complaint(f"celeba:{tmp_path}")
    assert "list_attr_celeba.txt, line 4: 3 values for 4 attributes (and so for 1 more im" in said
    assert "add skip_corrupt" in said
    faces = images.load(f"celeba:{tmp_path},skip_corrupt")
    assert faces.skipped == ("000002.jpg", "000005.jpg")
    assert faces.names == tuple(f"00000{k}.jpg" for k in (1, 3, 4, 6))
    assert faces.groups == ("2880", "2881", "2881", "2882")
    assert faces.attributes["Male"].tolist() == [values(k)[2] == 1 for k in (0, 2, 3, 5)]
    attributes.write_text(broken.partition("000001")[0])
    assert "no row for '000001.jpg'; so for all 6 images" in complaint(
        f"celeba:{tmp_path},skip_corrupt"
    )


def test_folders_of_another_layout_are_refused(tmp_path):
    assert "holds neither img_align_celeba/ nor Img/img_align" in complaint(f"celeba:{tmp_path}")
    for kind in ("celeba", "lsun"):
        assert f"{kind}: '' is not a folder; give {kind}:PATH" in complaint(f"{kind}:")
        assert "is not a folder" in complaint(f"{kind}:{tmp_path}/nowhere")
        assert "is not a folder" in complaint(f"{kind}:{'x' * 5000}")
    assert "no image in this folder" in complaint(f"lsun:{tmp_path}")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b"2", b"Male", b"1.jpg", b"2.jpg", b" ", b"1", b"-1", b"\n", b"\r\n"])
    ).map(b"".join)
    | st.binary(max_size=60).map(lambda tail: HEAD + b"1.jpg 1 1\n2.jpg" + tail)
)
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, content):
    path = attribute_file(tmp_path, content)
    people = read_identities(path, FILES)
    assert people.values.keys() | people.wrong.keys() == {0, 1}
    try:
        names, rows = read_attributes(path, FILES)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert rows.values.keys() | rows.wrong.keys() == {0, 1}
    assert all(len(row) == len(names) for row in rows.values.values())
    assert not any("\n" in text for text in [*rows.wrong.values(), *names])


def test_a_line_without_end_takes_no_memory_for_itself(tmp_path):
    content = HEAD + b"1.jpg 1 1\n2.jpg 1 1\n" + b"x" * 2**22 + b"\n"
    _, rows = read_attributes(attribute_file(tmp_path, content), FILES)
    assert rows.wrong == {}


def test_lsun_is_cropped_at_the_top_left(tmp_path):
    for name, height, width in (("0/a.webp", 256, 341), ("1/b.webp", 300, 256)):
        (tmp_path / name).parent.mkdir()
        picture(7, height, width).save(tmp_path / name, lossless=True)
    rooms = images.load(f"lsun:{tmp_path},size=256")
    assert rooms.names == ("0/a.webp", "1/b.webp")
    for k, name in enumerate(rooms.names):
        expected = np.asarray(Image.open(tmp_path / name))[:256, :256].transpose(2, 0, 1)
        np.testing.assert_array_equal(255 * rooms[[k]][0].numpy(), expected)
    assert images.load(f"lsun:{tmp_path},gray").shape == (1, 80, 80)
    picture(8, 200, 300).save(tmp_path / "small.jpg")
    assert "crop=256 is larger than the image (200x300)" in complaint(f"lsun:{tmp_path}")


@pytest.mark.slow
def test_the_recipe_runs_on_a_thousand_images(tmp_path):
    from twinscore.cli import main

    celeba(tmp_path / "CelebA", number=1000, pictures="Img/img_align_celeba", texts="Anno")
    words = [
        "transition",
        "--spec",
        "celeba-40",
        "--data",
        f"celeba:{tmp_path}/CelebA,size=40,gray",
    ]
    words += ["--sizes", "10", "100", "--split", "group", "--duplicate-threshold", "1"]
    words += ["--training.steps", "2", "--training.batch", "4", "--samples", "2", "--test", "8"]
    words += ["--network.width", "4", "--sampling.method", "flow", "--sampling.steps", "2"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").exists()


def test_the_table_of_kaggle_is_that_of_celeba(tmp_path):
    root = celeba(tmp_path / "one", pictures="img_align_celeba/img_align_celeba")
    lines = (root / "list_attr_celeba.txt").read_text().split("\n")
    rows = [",".join(line.split()) for line in lines[2:]]
    table = "\n".join([",".join(["image_id", *NAMES]), *rows])
    expected = images.load(f"celeba:{root},size=16").attributes
    (root / "list_attr_celeba.txt").unlink()
    (root / "list_attr_celeba.csv").write_text(table)
    found = images.load(f"celeba:{root},size=16").attributes
    assert {name: list(x) for name, x in found.items()} == {k: list(x) for k, x in expected.items()}
    (root / "list_attr_celeba.csv").write_text(table.replace(",1,", ",2,", 1))
    assert "list_attr_celeba.csv, line " in complaint(f"celeba:{root},size=16")


def test_png_files_have_the_rows_of_the_jpegs(tmp_path):
    root = celeba(tmp_path / "one")
    expected = images.load(f"celeba:{root},size=16")
    folder = root / "img_align_celeba"
    for path in folder.iterdir():
        with Image.open(path) as opened:
            opened.save(path.with_suffix(".png"))
        path.unlink()
    folder.rename(root / "img_align_celeba_png")
    found = images.load(f"celeba:{root},size=16")
    assert found.groups == expected.groups
    assert list(found.attributes["Male"]) == list(expected.attributes["Male"])
