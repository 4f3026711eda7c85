"""The command that finds near-duplicates: its folder, its words and its page."""

import csv
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from twinscore import cli, images, runs
from twinscore.errors import InputError
from twinscore.experiments import duplicates
from twinscore.report import content, page, reading, style
from twinscore.report import duplicates as drawn
from twinscore.results.duplicates import Result


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Leave the encoding of figures out, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "settle", lambda figure: figure)
        for kind in ("svg", "png", "pdf"):
            patch.setattr(style, kind, lambda *_: b"")
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return duplicates.run(duplicates.Spec(), tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture
def two(tmp_path):
    """Ten colour images, of which 2 is a copy, 5 and 7 brighter ones, of gray ones."""
    rng = np.random.default_rng(0)
    train = rng.integers(0, 120, (6, 10, 12), dtype=np.uint8)
    samples = rng.integers(0, 120, (10, 10, 12), dtype=np.uint8)
    samples[[2, 5, 7]] = train[[4, 1, 1]]
    samples[[5, 7]] += np.array([50, 60], dtype=np.uint8)[:, None, None]
    np.save(tmp_path / "train.npy", train[:, None])
    np.save(tmp_path / "samples.npy", samples[:, None])
    np.save(tmp_path / "colour.npy", samples[:, None].repeat(3, axis=1))
    return tmp_path


def rows(folder):
    with (folder / "duplicates.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_digits_have_the_known_number_of_near_duplicates(digits):
    result = digits.result
    assert {count.threshold: count.images for count in result.counts} == {
        **{0.95: 538, 0.98: 23},
        **{0.99: 1, 0.995: 0, 0.999: 0},
    }
    assert (result.identical, result.compared_at) == (0, 8)
    assert result.verdict == (
        "Of the 1,797 images of digits, 538 (29.9%) are near-duplicates of an earlier one "
        "(correlation above 0.95)."
    )
    again = Result.model_validate_json((digits.folder / "result.json").read_text())
    assert again == result
    assert result.schema_version == runs.SCHEMA_VERSION


def test_the_table_lists_what_near_duplicates_returns(digits):
    found = images.near_duplicates(images.load("digits"))
    table = rows(digits.folder)
    assert [int(row["index"]) for row in table] == np.flatnonzero(found.drop).tolist()
    assert [int(row["partner_index"]) for row in table] == found.partner[found.drop].tolist()
    np.testing.assert_allclose(
        [float(row["correlation"]) for row in table],
        found.correlation[found.drop],
        rtol=0,
        atol=1e-9,  # written with nine decimals
    )
    assert {row["identical"] for row in table} == {"0"}
    assert table[0]["name"] == f"{int(table[0]['index']):06d}"


def test_pairs_shown_are_the_most_and_the_least_correlated(digits):
    values = np.sort([float(row["correlation"]) for row in rows(digits.folder)])
    pairs, arrays = digits.result.pairs, load_file(digits.folder / "arrays.safetensors")
    assert [len(pairs[name]) for name in drawn.TITLES] == [0, 18, 18]
    for name, expected in (("closest", values[::-1][:18]), ("borderline", values[:18])):
        shown = [pair.correlation for pair in pairs[name]]
        np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-9)
        source = images.load("digits")
        for side, field in (("image", "index"), ("partner", "partner_index")):
            indices = [getattr(pair, field) for pair in pairs[name]]
            np.testing.assert_array_equal(arrays[f"{name}/{side}"], source[indices])
    np.testing.assert_allclose(np.sort(arrays["correlation"]), values, rtol=0, atol=1e-9)


def test_no_pair_is_shown_twice_when_there_are_few(two):
    data = str(two / "samples.npy")
    done = duplicates.run(duplicates.Spec(data=data), two / "within")
    assert {name: [p.index for p in pairs] for name, pairs in done.result.pairs.items()} == {
        **{"identical": [], "borderline": []},
        "closest": [7],
    }


def test_two_sets(two):
    spec = duplicates.Spec(data=str(two / "samples.npy"), against=str(two / "train.npy"))
    done = duplicates.run(spec, two / "run")
    found = [(int(r["index"]), int(r["partner_index"]), r["identical"]) for r in rows(done.folder)]
    assert found == [(2, 4, "1"), (5, 1, "0"), (7, 1, "0")]
    assert done.result.verdict.startswith(f"Of the 10 images of {two / 'samples.npy'}, 3 (30.0%)")
    assert done.result.verdict.endswith("(correlation above 0.95); 1 equal it pixel by pixel.")
    assert done.result.against.images == 6
    facts = dict(drawn.content(reading.read(done.folder)).facts)
    assert facts["Compared with"].endswith("6 images of 10 x 12 pixels, gray")


def test_two_sets_of_other_colours_are_shown_in_the_same_way(two):
    spec = duplicates.Spec(data=str(two / "colour.npy"), against=str(two / "train.npy,size=8"))
    done = duplicates.run(spec.model_copy(update={"threshold": 0.5}), two / "run")
    arrays = load_file(done.folder / "arrays.safetensors")
    pictures = [value.shape[1:] for name, value in arrays.items() if "/" in name]
    assert pictures
    assert set(pictures) == {(1, 10, 12)}


def test_a_finished_run_compares_nothing_again_and_another_is_refused(two, monkeypatch):
    data, against = str(two / "samples.npy"), str(two / "train.npy")
    spec = duplicates.Spec(data=data, against=against)
    first = duplicates.run(spec, two / "run")
    monkeypatch.setattr(images, "near_duplicates", None)
    assert duplicates.run(spec, two / "run").result == first.result
    renamed = (two / "train.npy").rename(two / "other.npy")
    spec = spec.model_copy(update={"against": str(renamed)})
    again = duplicates.run(spec, two / "run").result.model_dump_json()
    assert again == first.result.model_dump_json().replace("train.npy", "other.npy")
    for change, named in (
        ({"threshold": 0.9}, "threshold"),
        ({"against": data}, "against"),
        ({"against": None}, "against"),
        ({"data": against.replace("train", "colour")}, "data"),
    ):
        with pytest.raises(InputError, match=rf"differs in {named}\)"):
            duplicates.run(spec.model_copy(update=change), two / "run")


def test_the_command_prints_verdict_table_and_path(two, capsys):
    out = two / "run"
    words = ["--data", "digits", "--threshold", "0.98", "--out", str(out)]
    assert cli.main(["duplicates", *words]) == 0
    result = Result.model_validate_json((out / "result.json").read_text())
    said = capsys.readouterr().out
    assert said == f"{result.verdict}\n{result.table()}\nreport: {out / 'report.html'}\n"
    assert result.table().splitlines()[1].split() == ["0.98", "23", "1.28%"]
    assert runs.read_json(out / "environment.json")["finished"]
    text = (out / "report.html").read_text()
    assert f"<h1>{result.verdict}</h1>" in text
    assert content.HOLDS in text
    assert '<figure id="pairs">' in text
    assert cli.main(["duplicates", *words, "--no-images"]) == 0
    text = (out / "report.html").read_text()
    assert content.HOLDS_NOT in text
    assert '<figure id="pairs">' not in text
    assert not (out / "figures" / "pairs.png").exists()
    assert (out / "figures" / "histogram.png").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--threshold", "1"], ["--threshold", "less than 1"]),
        (["--threshold", "nan"], ["--threshold", "nan"]),
        (["--size", "0"], ["--size", "0"]),
        (["--data", "nowhere"], ["nowhere"]),
        (["--against", "nowhere"], ["nowhere"]),
        (["--agianst", "digits"], ["--agianst", "--against"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, named):
    assert cli.main(["duplicates", *words, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    [line] = said.err.splitlines()
    assert said.out == ""
    assert all(name in line for name in named)
    assert list(tmp_path.iterdir()) == []


def test_a_set_without_near_duplicates_has_a_page(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    done = duplicates.run(duplicates.Spec(data=str(tmp_path / "x.npy")), tmp_path / "run")
    assert done.result.verdict.startswith("None of the 9 images")
    assert page.figures(done.folder) == {}
    assert "None of the 9 images" in page.write(done.folder).read_text()


def test_pictures_are_where_the_page_says(digits):
    figure = page.figures(digits.folder)["pairs"]
    shown = [axes for part in figure.subfigs for axes in part.axes if axes.images]
    arrays = load_file(digits.folder / "arrays.safetensors")
    assert len(shown) == 36
    tile = shown[0].images[0].get_array()
    partner, image = (arrays[f"closest/{side}"][0, 0] for side in ("partner", "image"))
    np.testing.assert_array_equal(tile[:, :8, 0], np.rint(255 * partner))
    np.testing.assert_array_equal(tile[:, -8:, 0], np.rint(255 * image))
    pair = digits.result.pairs["closest"][0]
    said = [text.get_text() for text in shown[0].texts]
    assert said == [str(pair.partner_index), f"{pair.correlation:.3f}", str(pair.index)]
    assert "pairs" not in page.figures(digits.folder, images=False)


def test_the_histogram_counts_every_near_duplicate(digits):
    axes = page.figures(digits.folder)["histogram"].axes[0]
    assert sum(patch.get_height() for patch in axes.patches) == 538


def test_a_damaged_result_is_one_line(two):
    folder = two / "run"
    duplicates.run(duplicates.Spec(data=str(two / "train.npy")), folder)
    result = json.loads((folder / "result.json").read_text())
    del result["counts"]
    runs.write_json(folder / "result.json", result)
    with pytest.raises(InputError, match="counts: Field required"):
        page.figures(folder)
