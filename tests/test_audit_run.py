"""Audits from the command line: every answer, what breaks the test, bad input, exit codes."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from onnx import TensorProto, helper
from pyarrow import parquet
from safetensors.numpy import load_file

from twinscore import cli, images
from twinscore.analysis.audit import shortlist
from twinscore.experiments import audit
from twinscore.experiments.audit import searching
from twinscore.images import packed
from twinscore.images.imageset import from_pixels

pytestmark = pytest.mark.usefixtures("cheap")


@pytest.fixture(scope="module")
def photographs():
    """Patches with contrast, no two of them alike, in random order."""
    photos = images.load("photos,size=16")
    pixels = photos[np.arange(len(photos))]
    rows = np.flatnonzero(pixels.flatten(1).std(1).numpy() > 0.08)
    photos = photos.take(rows)
    rows = np.flatnonzero(~images.near_duplicates(photos, 0.9).drop)
    return np.random.default_rng(0).permutation(photos[rows].numpy()[:, 0])


@pytest.fixture
def sets(photographs, tmp_path):
    """150 training images, 150 held-out ones, 120 others, as arrays in files."""
    split = np.split(photographs[:420], [150, 300])
    parts = dict(zip(("train", "held", "fresh"), split, strict=True))

    def save(**more):
        for name, part in (parts | more).items():
            np.save(tmp_path / f"{name}.npy", part)
        return tmp_path

    return parts, save


@pytest.fixture
def audited(capfd):
    """Audit by the command line: exit code, result, what it printed, its errors."""

    def call(folder, *more, samples="samples", train="train", held="held"):
        words = [
            "audit",
            "--samples",
            f"{folder / samples}.npy",
            "--train",
            f"{folder / train}.npy",
        ]
        words += ["--held-out", f"{folder / held}.npy"] if held else []
        code = cli.main([*words, *more, "--device", "cpu", "--out", str(folder / "run")])
        said, path = capfd.readouterr(), folder / "run" / "result.json"
        found = json.loads(path.read_text()) if path.exists() else None
        return code, found, said.out, said.err

    return call


def with_copies(parts, count, change=lambda x: x):
    samples = parts["fresh"].copy()
    samples[:count] = change(parts["train"][:count])
    return samples


def test_copies_are_listed_with_how_they_are_shown(sets, audited):
    parts, save = sets
    samples = with_copies(parts, 24)
    samples[8:16] = samples[8:16, :, ::-1]
    samples[16:24] = 0.2 + 0.7 * samples[16:24]
    code, found, said, _ = audited(save(samples=samples))
    assert (code, found["verdict"]) == (0, "copies")
    listed = {match["image"]: match for match in found["listed"]}
    assert set(range(24)) <= set(listed)
    for i in range(24):
        assert listed[i]["sample"] == i
        assert listed[i]["transform"]["kind"] == "whole"
        assert listed[i]["transform"]["mirrored"] == (8 <= i < 16)
        assert listed[i]["distance"] < 0.05
    assert found["copies"]["low"] <= 0.2 <= found["copies"]["high"]
    assert found["copies"]["low"] > 0.05
    assert found["dependence"]["p"] < 0.01
    assert said.splitlines()[0] == "copies"
    assert said.splitlines()[1].endswith(f": {found['why']}")


def test_the_table_of_matches_has_every_unit_and_marks_the_listed(sets, audited, tmp_path):
    parts, save = sets
    _, found, _, _ = audited(save(samples=with_copies(parts, 24)))
    with (tmp_path / "run" / "matches.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    marked = [int(row["image"]) for row in rows if row["listed"] == "1"]
    assert marked == [match["image"] for match in found["listed"]]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row["set"] for row in rows} == {"train", "held_out"}
    table = parquet.read_table(tmp_path / "run" / "matches.parquet").to_pylist()
    assert [{name: str(value) for name, value in row.items()} for row in table] == rows


def test_fresh_images_are_no_copies(sets, audited):
    parts, save = sets
    _, found, _, _ = audited(save(samples=parts["fresh"]))
    assert found["verdict"] in ("no copies shown", "inconclusive")
    assert found["listed"] == []
    assert (found["copies"]["value"], found["copies"]["low"]) == (0, 0)


def test_few_copies_are_shown_and_not_claimed(sets, audited):
    parts, save = sets
    code, found, _, _ = audited(save(samples=with_copies(parts, 3)))
    assert (code, found["verdict"]) == (0, "copies shown, not provable")
    assert {match["image"] for match in found["shown"]} == {0, 1, 2}
    assert "a list needs 10" in found["why"]
    assert found["copies"]["low"] == 0


def test_one_image_again_and_again_is_one(sets, audited):
    parts, save = sets
    samples = np.repeat(parts["train"][:1], 120, 0)
    _, found, _, _ = audited(save(samples=samples))
    assert found["verdict"] == "copies shown, not provable"
    assert len(found["shown"]) == 1
    assert found["dependence"]["p"] > 0.4  # one unit: a coin


def test_samples_of_the_training_set_are_all_listed(sets, audited):
    parts, save = sets
    _, found, _, _ = audited(save(samples=parts["train"][:120]))
    assert {match["image"] for match in found["listed"]} == set(range(120))
    assert found["copies"]["value"] == 1


def test_an_audit_says_what_it_could_have_seen(sets, audited):
    """The same copies are planted whichever images were trained on, and both runs see as many."""
    parts, save = sets
    folder = save(samples=parts["fresh"])
    _, found, said, _ = audited(folder)
    seen = found["power"]["seen"]
    assert seen["exact"]["share"]["value"] == seen["mirror"]["share"]["value"] == 1
    assert seen["all at once"]["share"]["value"] < 0.5
    assert "not covered by the upper end, seen too rarely: " in said
    covered = [kind["high"] for kind in seen.values() if kind["covered"]]
    assert found["copies"]["high"] >= max(covered)
    both = np.concatenate([parts["train"], parts["held"]])
    first = planted_votes(folder)
    save(samples=parts["fresh"], train=both[:130], held=both[130:])
    shutil.rmtree(folder / "run")
    audited(folder)
    second = planted_votes(folder)
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values)


def planted_votes(folder):
    """Images near to planted copies, where these have contrast: others are near to none."""
    arrays = load_file(next((folder / "run" / "trials").glob("pool-00*.safetensors")))
    kinds = ("whole", "details", "moved", "tiles")
    return {
        kind: arrays[f"planted/{kind}/image"][arrays[f"planted/{kind}/similarity"].any(1)]
        for kind in kinds
    }


def test_without_held_out_images_there_is_evidence_only(sets, audited):
    parts, save = sets
    code, found, said, _ = audited(save(samples=with_copies(parts, 24)), held=None)
    assert (code, found["verdict"]) == (0, "not testable")
    assert found["dependence"]["p"] is None
    assert set(range(20)) <= {match["image"] for match in found["shown"]}
    assert "no p: there are no held-out images" in said


def test_images_of_both_sets_are_named_and_p_withdrawn_until_they_are_dropped(sets, audited):
    parts, save = sets
    held = parts["held"].copy()
    held[:5] = parts["train"][40:45]
    folder = save(samples=with_copies(parts, 24), held=held)
    _, found, _, _ = audited(folder)
    assert (found["verdict"], found["dependence"]["p"]) == ("not testable", None)
    assert (
        "5 near-duplicates across training and held-out images: 000000 and 000040" in found["why"]
    )
    times = {p: p.stat().st_mtime_ns for p in (folder / "run" / "trials").iterdir()}
    _, found, _, _ = audited(folder, "--overlap", "drop")
    assert found["verdict"] == "copies"
    assert found["data"]["images"] == [145, 145]
    assert {p: p.stat().st_mtime_ns for p in (folder / "run" / "trials").iterdir()} == times


@pytest.mark.parametrize("flag", ["--steered", "--chosen"])
def test_what_was_not_blind_withdraws_p(sets, audited, flag):
    parts, save = sets
    folder = save(samples=with_copies(parts, 24))
    _, found, _, _ = audited(folder, flag, "yes")
    assert (found["verdict"], found["listed"]) == ("not testable", [])
    _, found, _, _ = audited(folder, flag, "no")
    assert found["verdict"] == "copies"


def test_a_copy_with_near_duplicates_in_the_training_set_is_found_once(sets, audited):
    parts, save = sets
    train = parts["train"].copy()
    train[100:112] = np.clip(train[:12] + 0.01, 0, 1)
    _, found, _, _ = audited(save(samples=with_copies(parts, 12), train=train))
    assert found["verdict"] == "copies"
    assert found["data"]["units"] == [138, 150]
    assert len({match["image"] % 100 for match in found["listed"]}) == len(found["listed"])


def assumption(found, name):
    return next(a for a in found["assumptions"] if a["name"] == name)


def save_packed(folder, name, pixels, **own):
    pixels = np.rint(255 * pixels[:, None]).astype(np.uint8)
    packed.write(folder / f"{name}.safetensors", from_pixels(pixels, **own))
    return f"{folder}/{name}.safetensors"


def of_people(sets, folder, person):
    """Audit pictures of persons, three of each; ``person(set, number)`` names them, or is None."""
    parts, save = sets
    save(samples=with_copies(parts, 45))
    sources = {}
    for name in ("train", "held"):
        people = [person(name, i // 3) for i in range(len(parts[name]))]
        own = {"groups": people} if people[0] else {}
        sources[name] = save_packed(folder, name, parts[name], **own)
    samples = f"{folder}/samples.npy"
    spec = audit.Spec(samples=samples, train=sources["train"], held_out=sources["held"])
    return audit.run(spec, folder / "run", device="cpu").result


def test_groups_are_ranked_dealt_and_counted(sets, tmp_path):
    """Of 45 copied pictures, 15 persons are listed."""
    found = of_people(sets, tmp_path, lambda name, i: f"{name} {i}")
    assert (found.data.unit, found.data.units) == ("group", (50, 50))
    assert found.verdict == "copies"
    assert len({match.image // 3 for match in found.listed}) == len(found.listed)
    assert set(range(15)) <= {match.image // 3 for match in found.listed}


@pytest.mark.parametrize(
    ("person", "why"),
    [
        (lambda name, i: f"person {i}", "50 groups are in both sets"),
        (lambda name, i: "a" if name == "train" else None, "only one of the two sets has groups"),
    ],
)
def test_groups_that_no_coin_dealt_withdraw_p(sets, tmp_path, person, why):
    found = of_people(sets, tmp_path, person)
    assert found.verdict == "not testable"
    assert why in found.why


@pytest.mark.parametrize("known", ["labels", "attributes"])
def test_metadata_that_no_coin_dealt_withdraws_p(sets, tmp_path, known):
    parts, save = sets
    save(samples=parts["fresh"])
    sources = {}
    for name, share in (("train", 0.2), ("held", 0.8)):
        has = np.arange(150) < share * 150
        own = {"labels": has.astype(int)} if known == "labels" else {"attributes": {"ill": has}}
        sources[name] = save_packed(tmp_path, name, parts[name], **own)
    samples = f"{tmp_path}/samples.npy"
    spec = audit.Spec(samples=samples, train=sources["train"], held_out=sources["held"])
    found = audit.run(spec, tmp_path / "run", device="cpu").result
    assert found.verdict == "not testable"
    assert "labels and attributes of the two sets differ, most in" in found.why


def test_metadata_are_compared_by_unit(sets, tmp_path):
    """One ill person of 75 pictures is one of many units, and says nothing."""
    parts, save = sets
    save(samples=parts["fresh"])
    sources = {}
    for name in ("train", "held"):
        ill = np.arange(150) < (75 if name == "train" else 0)
        people = [f"{name} ill" if sick else f"{name} {i}" for i, sick in enumerate(ill)]
        own = {"attributes": {"ill": ill}, "groups": people}
        sources[name] = save_packed(tmp_path, name, parts[name], **own)
    samples = f"{tmp_path}/samples.npy"
    spec = audit.Spec(samples=samples, train=sources["train"], held_out=sources["held"])
    found = audit.run(spec, tmp_path / "run", device="cpu").result
    assert next(a for a in found.assumptions if a.name == "metadata").holds


def test_depth_and_colour_are_named(sets, audited):
    parts, save = sets
    folder = save(samples=with_copies(parts, 24) * 0.999)
    _, found, _, _ = audited(folder)
    depth = assumption(found, "depth")
    assert (depth["holds"], found["verdict"]) == (None, "copies")
    assert "samples: of no whole number of bits, train: 8 bits, held_out: 8 bits" in depth["found"]
    folder.joinpath("run").rename(folder / "first")
    coarse = np.rint(65535 * (0.2 + 0.7 * parts["held"])).astype(np.uint16)
    _, found, _, _ = audited(save(samples=parts["fresh"], held=coarse))
    assert found["verdict"] == "not testable"
    assert "T and H are stored apart: samples: 8 bits, train: 8 bits, held_out: 16" in found["why"]
    folder.joinpath("run").rename(folder / "second")
    own = {name: np.repeat(part[:, None], 3, 1) for name, part in parts.items()}
    own["train"] = own["train"] * np.array([1, 0.5, 0.25])[:, None, None]
    save(samples=own["fresh"], **{name: own[name] for name in ("train", "held")})
    _, found, _, _ = audited(folder)
    assert "held_out: 8 bits, gray in 3 channels" in assumption(found, "depth")["found"]


def test_a_long_search_takes_a_shortlist_and_says_what_it_finds(sets, audited, monkeypatch):
    parts, save = sets
    samples = parts["fresh"].copy()
    samples[:20, 3:, :-2] = parts["train"][:20, :-3, 2:]
    folder = save(samples=samples)
    _, whole, _, _ = audited(folder)
    folder.joinpath("run").rename(folder / "whole")
    monkeypatch.setattr(searching, "LONG", 0)
    monkeypatch.setattr(shortlist, "CANDIDATES", 60)
    _, found, said, _ = audited(folder)
    assert whole["recall"] is None
    assert found["recall"]["value"] > 0.8
    assert "moved images by a shortlist, recall " in said
    listed = [len({m["image"] for m in of["listed"]} & set(range(20))) for of in (whole, found)]
    assert min(listed) >= 16, listed


EMBEDDING = """
import torch

def edges():
    return lambda x: (x[..., 1:, :] - x[..., :-1, :]).abs().flatten(1)

def number():
    return 3

def matrix():
    return lambda x: x[0]


def failing():
    return lambda x: x[0, 9]
"""


def write_onnx(file, shape):
    """A network whose vectors are the squares of what differs from the middle of the range."""
    values = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *shape]),
        helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", None]),
    ]
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    nodes = [
        helper.make_node("Sub", ["images", "half"], ["left"]),
        helper.make_node("Mul", ["left", "left"], ["squares"]),
        helper.make_node("Flatten", ["squares"], ["vectors"]),
    ]
    graph = helper.make_graph(nodes, "squares", values[:1], values[1:], [half])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file.write_bytes(model.SerializeToString())


def test_an_embedding_is_one_more_way_to_compare(sets, audited):
    """Negatives of training images: nothing else finds them."""
    parts, save = sets
    folder = save(samples=with_copies(parts, 24, lambda x: 1 - x))
    _, found, _, _ = audited(folder)
    assert found["verdict"] != "copies"
    (folder / "mine.py").write_text(EMBEDDING)
    write_onnx(folder / "mine.onnx", (1, 16, 16))
    for embedding in ("mine.py:edges", "mine.onnx"):
        folder.joinpath("run").rename(folder / f"before {embedding}")
        _, found, _, _ = audited(folder, "--embedding", f"{folder}/{embedding}")
        assert found["verdict"] == "copies"
        listed = {match["image"]: match["transform"]["kind"] for match in found["listed"]}
        assert dict.fromkeys(range(24), "embedding").items() <= listed.items()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.py:number", r"returned int; return a function of images"),
        ("mine.py:matrix", r"gives Tensor of shape .* for 64 images; give \(64, k\)"),
        ("mine.py:none", r"mine.py:none: cannot be called"),
        ("mine.py:failing", r"fails on images \(64, 1, 16, 16\): IndexError"),
        ("mine", r"is not FILE.onnx or FILE.py:FUNCTION"),
        ("text.onnx", r"text.onnx is not an ONNX network: "),
        ("missing.onnx", r"missing.onnx: No such file"),
        ("wide.onnx", r"wide.onnx fails on images \(64, 1, 16, 16\): "),
    ],
)
def test_a_wrong_embedding_is_one_line(sets, audited, name, message):
    parts, save = sets
    folder = save(samples=parts["fresh"])
    (folder / "mine.py").write_text(EMBEDDING)
    (folder / "text.onnx").write_text("not a network")
    write_onnx(folder / "wide.onnx", (1, 32, 32))
    code, found, said, errors = audited(folder, "--embedding", f"{folder}/{name}")
    assert (code, found, said) == (2, None, "")
    assert re.search(message, errors.splitlines()[-1]), errors


BAD = [
    ({"samples": np.zeros((40, 20, 16))}, (), r"samples: 1 x 20 x 16 .*; add ,size=16 or"),
    ({"samples": np.zeros((40, 3, 16, 16))}, (), r"samples: 3 x 16 x 16 .*add ,gray to both"),
    ({"samples": np.zeros((4, 16, 16))}, (), r"samples: 4 are too few for any claim: .*give 5"),
    ({"held": np.zeros((1, 16, 16))}, (), r"samples: 120 are too few|held_out: 1 held-out and 150"),
    ({}, ("--fail-if", "copies.lov>0.01"), r"'copies.lov>0.01' is not a condition; give one of"),
    ({}, ("--fail-if", "copies.low"), r"'copies.low' is not a condition"),
    ({}, ("--q", "0"), r"--q: "),
]


@pytest.mark.parametrize(("changed", "words", "message"), BAD)
def test_bad_input_is_one_line_before_work_starts(sets, audited, changed, words, message):
    parts, save = sets
    code, found, said, errors = audited(save(**({"samples": parts["fresh"]} | changed)), *words)
    assert (code, found, said) == (2, None, "")
    assert len(errors.splitlines()) == 1
    assert re.search(message, errors), errors


def test_missing_samples_are_named(capfd, tmp_path):
    assert cli.main(["audit", "--out", str(tmp_path / "run")]) == 2
    assert capfd.readouterr().err == (
        "twinscore: --samples: not given; give the images that the model made\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_exit_codes_say_what_was_found(sets, audited):
    parts, save = sets
    folder = save(samples=with_copies(parts, 24))
    assert audited(folder, "--fail-if", "copies.low>0.01")[0] == 1
    assert audited(folder, "--fail-if", "copies.low > 0.9")[0] == 0
    code, found, said, _ = audited(folder, "--fail-if", "listed>=20")
    assert (code, found["failed"]) == (1, "listed>=20")
    assert "--fail-if listed>=20: met" in said
    code, _, _, errors = audited(save(samples=parts["fresh"]))
    assert (code, len(errors.splitlines())) == (2, 1)  # other samples in the same folder


def test_an_audit_that_cannot_tell_ends_with_3(sets, audited):
    parts, save = sets
    code, found, _, _ = audited(save(samples=parts["fresh"]), "--most", "0.001")
    assert (code, found["verdict"]) == (3, "inconclusive")
    assert "give more samples" in found["why"]
