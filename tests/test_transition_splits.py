"""How the transition study splits: by rule or by lists, recorded and taken up again."""

import csv
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from twinscore import environment, images, runs
from twinscore.analysis import coin_toss
from twinscore.cli import main
from twinscore.denoisers import NetworkSpec
from twinscore.errors import InputError
from twinscore.experiments import comparison, judgement, standards, transition
from twinscore.experiments.judgement import Drawn, Standard
from twinscore.experiments.transition import Spec
from twinscore.report import reading, transition_content
from twinscore.sampling import SamplingSpec
from twinscore.training import TrainingSpec

SPEC = Spec(
    sizes=(2, 4),
    test=6,
    samples=2,
    split="label",
    network=NetworkSpec(width=2, levels=1),
    training=TrainingSpec(steps=2, batch=4, evaluations=1),
    sampling=SamplingSpec(steps=2),
)
DIGITS = images.load("digits")


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """One thread: two that share a busy core wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "available_cores", lambda: 1)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return transition.run(SPEC, tmp_path_factory.mktemp("runs") / "finished", device="cpu")


def trials(folder):
    return sorted(path.name for path in (folder / "trials").iterdir())


def split_words(folder):
    return dict(transition_content.content(reading.read(folder)).facts).get("Split")


def test_the_run_records_its_split_as_rule_and_as_lists(finished):
    lists = images.read_names(finished.folder / "splits" / "r0", DIGITS)
    keep = np.flatnonzero(~images.near_duplicates(DIGITS).drop)
    split = images.twins(DIGITS, 4, test=6, among=keep, by="label")
    for part in ("a", "b", "test"):
        np.testing.assert_array_equal(getattr(lists, part), getattr(split, part))
    np.testing.assert_array_equal(DIGITS.labels[lists.a], DIGITS.labels[lists.b])
    data = json.loads((finished.folder / "result.json").read_text())["data"]
    assert (data["split"], data["attribute"]) == ("label", None)
    assert split_words(finished.folder).startswith("by label: A, B and the test set hold")


def test_lists_of_a_run_give_its_trials_again(finished, tmp_path):
    folder = shutil.copytree(finished.folder / "splits" / "r0", tmp_path / "mine")
    spec = SPEC.model_copy(update={"split": str(folder)})
    done = transition.run(spec, tmp_path / "run", device="cpu")
    assert trials(done.folder) == trials(finished.folder)
    for own, other in zip(done.result.levels, finished.result.levels, strict=True):
        assert own.verdict == "not testable"
        assert "not declared as dealt at random" in own.why
        assert own.memorisation.p is None
        assert (own.agreement, own.copies) == (other.agreement, other.copies)
    assert done.result.data.split == str(folder)
    assert split_words(done.folder) == f"as the lists in {folder} say"
    random = spec.model_copy(update={"dealt_at_random": True})
    declared = transition.run(random, tmp_path / "run", device="cpu")
    assert trials(declared.folder) == trials(finished.folder)
    assert all(level.verdict != "not testable" for level in declared.result.levels)
    assert [level.memorisation.p is None for level in declared.result.levels] == [True, False]
    assert split_words(done.folder) == f"as the lists in {folder} say, dealt at random"
    moved = folder.rename(tmp_path / "moved")
    again = transition.run(
        spec.model_copy(update={"split": str(moved)}), tmp_path / "run", device="cpu"
    )
    assert again.folder == done.folder
    lines = (moved / "a.txt").read_text().splitlines()
    (moved / "a.txt").write_text("\n".join(reversed(lines)))
    with pytest.raises(InputError, match=r"differs in split\)"):
        transition.run(
            spec.model_copy(update={"split": str(moved)}), tmp_path / "run", device="cpu"
        )
    with pytest.raises(InputError, match=r"differs in split\)"):
        transition.run(SPEC, tmp_path / "run", device="cpu")


def test_auto_is_what_a_trial_has_always_been(tmp_path):
    plain = SPEC.model_copy(update={"split": "auto", "sizes": (2,)})
    done = transition.run(plain, tmp_path / "auto", device="cpu")
    identities = [
        json.loads((tmp_path / "auto" / "trials" / name / "spec.json").read_text())
        for name in trials(done.folder)
    ]
    for identity in identities:
        assert not {"split", "attribute"} & set(identity)
    named = transition.run(
        plain.model_copy(update={"split": "random"}), tmp_path / "random", device="cpu"
    )
    assert trials(named.folder) == trials(done.folder)
    assert done.result.data.split == named.result.data.split == "random"


def test_each_replicate_has_its_own_lists(tmp_path):
    change = {"sizes": (2,), "replicates": 2, "split": "attribute", "attribute": "3"}
    done = transition.run(SPEC.model_copy(update=change), tmp_path / "run", device="cpu")
    splits = [images.read_names(done.folder / "splits" / f"r{r}", DIGITS) for r in (0, 1)]
    assert splits[0].a.tolist() != splits[1].a.tolist()
    for split in splits:
        assert (DIGITS.labels[split.a] == 3).all()
        assert (DIGITS.labels[split.b] != 3).all()
        assert (DIGITS.labels[split.test] == 3).sum() == 3
    assert split_words(done.folder).startswith(
        "by attribute: 3 is in all of A, none of B and half the test set; memory is told by"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split": "attribute"}, "needs the name of one; give --attribute NAME"),
        ({"attribute": "3"}, "attribute '3' needs split attribute, not 'auto'"),
        ({"split": "attribute", "attribute": "3", "test": 3}, "test 3 is too few for split attr"),
        ({"dealt_at_random": True}, "dealt_at_random is for lists in a folder; split 'auto' is a"),
        ({"thresholds": {"gain_between": (0.7, 0.1)}}, "0.7 to 0.1 holds none of the noise levels"),
        ({"split": "folder", "replicates": 2}, "'folder' is a folder with one split; give repl"),
    ],
)
def test_fields_that_do_not_fit_each_other_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        Spec(**change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split": "grup"}, "split: 'grup' is neither a rule nor a folder; did you mean 'group'?"),
        ({"split": "attribute", "attribute": "x"}, "attribute: 'x' is unknown; these images have"),
        ({"split": "label", "sizes": (4000,)}, "images of label"),
        ({"split": "{lists}", "sizes": (5,)}, "n: 5 is 1 more than the 4 images that a.txt and"),
        ({"split": "{lists}", "test": 7}, "test: 7 images are asked for and test.txt lists 6"),
        ({"split": "{copies}"}, "split: 1 listed images are near-duplicates of earlier ones, '"),
        ({"split": "{empty}"}, "a.txt: no such file"),
    ],
)
def test_splits_that_cannot_be_are_refused_before_anything_is_written(
    finished, tmp_path, change, says
):
    copies = shutil.copytree(finished.folder / "splits" / "r0", tmp_path / "copies")
    [dropped, *_] = np.flatnonzero(images.near_duplicates(DIGITS).drop)
    lines = (copies / "a.txt").read_text().splitlines()
    (copies / "a.txt").write_text("\n".join([*lines[:-1], DIGITS.names[dropped]]))
    (tmp_path / "empty").mkdir()
    places = {
        "lists": finished.folder / "splits" / "r0",
        "copies": copies,
        "empty": tmp_path / "empty",
    }
    change = change | {"split": change["split"].format(**places)}
    with pytest.raises(InputError) as caught:
        transition.run(Spec(**SPEC.model_dump() | change), tmp_path / "run", device="cpu")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--split", "attribute"], "twinscore: split attribute needs the name of one"),
        (["--attribute", "3"], "twinscore: attribute '3' needs split attribute, not 'auto'"),
        (["--split", "grup"], "twinscore: split: 'grup' is neither a rule nor a folder"),
        (["--dealt-at-random"], "twinscore: dealt_at_random is for lists in a folder; split 'auto"),
        (["--spec", "celeba-80"], "twinscore: celeba: 'CelebA' is not a folder; give celeba:PATH"),
        (["--spec", "celeba-40"], "twinscore: celeba: 'CelebA' is not a folder; give celeba:PATH"),
        (["--spec", "lsun-bedrooms"], "twinscore: lsun: 'bedrooms' is not a folder; give lsun:"),
        (["--data", "photos,groups=no"], "twinscore: 'photos': groups='no'; give half or photog"),
    ],
)
def test_the_command_line_complains_in_one_line(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    assert main(["transition", *words, "--out", "run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(says)
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_photographs_can_be_the_groups():
    photos = images.load("photos,groups=photograph")
    assert len(set(photos.groups)) == 17
    assert set(photos.groups) == {name.partition("/")[0] for name in photos.names}
    split = images.twins(photos, 100)
    a, b, held_out = ({photos.groups[k] for k in s} for s in (split.a, split.b, split.test))
    assert not a & b
    assert not held_out & (a | b)


def test_old_runs_without_a_split_are_still_drawn(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "old")
    result = runs.read_json(folder / "result.json")
    del result["data"]["split"], result["data"]["attribute"]
    runs.write_json(folder / "result.json", result)
    assert split_words(folder) is None


# What the coin was tossed for


def test_labels_are_strata_of_the_deal():
    split = images.twins(DIGITS, 20, test=6, by="label")
    deal = standards.dealt(DIGITS, "label", split)
    both = np.concatenate([split.a, split.b])
    for stratum in np.unique(deal.strata):
        own = deal.strata == stratum
        assert len(set(DIGITS.labels[both][own])) == 1
        assert deal.labels[own].sum() == own.sum() / 2
    assert len(np.unique(deal.units)) == 40


@pytest.mark.parametrize(("groups", "pairs"), [(8, 4), (12, 6)])
def test_groups_are_dealt_in_pairs_and_four_are_too_few(groups, pairs):
    names = [f"g{k}" for k in range(groups) for _ in range(5)]
    pixels = np.random.default_rng(0).integers(0, 256, (len(names), 1, 4, 4), dtype=np.uint8)
    pictures = images.from_pixels(pixels, groups=names)
    split = images.twins(pictures, 5 * pairs, test=0)
    deal = standards.dealt(pictures, "group", split)
    assert (len(deal.first), len(np.unique(deal.strata))) == (2 * pairs, pairs)
    measured = [
        {
            "psnr_train": np.zeros((7, 4)),
            "psnr_test": np.zeros((7, 4)),
            "samples": pictures[side].numpy(),
            "unfinished": np.array([0]),
        }
        for side in (split.a, split.b)
    ]
    judged = Standard(deal=lambda of: standards.dealt(pictures, "group", of))
    split = replace(split, test=split.a[:4])
    level, _, _ = comparison.compare(pictures, [tuple(measured)], [split], 0, judged)
    assert level.memorisation.value == 1
    assert level.memorisation.p == (None if pairs < 5 else 1 / 2**pairs)
    assert level.why.endswith("; no p, since only 16 deals are possible") == (pairs < 5)


# Twins that differ in kind, and their controls

THREES = {"by": "attribute", "attribute": "3"}
BY_THREE = SPEC.model_copy(update={"split": "attribute", "attribute": "3"})


def of_kind(split, samples):
    """What judges twins that differ in kind."""
    return Drawn(
        samples=[samples],
        training=[(DIGITS[split.a], DIGITS[split.b])],
        controls=[tuple(DIGITS[own] for own in split.controls)],
        splits=[split],
        held_out=(DIGITS[split.test],) * 2,
        psnr=np.zeros((1, 7, len(split.test))),
    )


def voted(split, samples):
    standard = Standard(deal=lambda of: standards.dealt(DIGITS, "attribute", of))
    [toss] = judgement._tosses(of_kind(split, samples), standard, "pixels")
    return toss


def test_samples_that_do_not_depend_on_the_deal_have_an_exact_p_by_kind():
    """The same digits for every one of 300 deals; among halves, these would be memory."""
    fixed = [np.flatnonzero((DIGITS.labels == 3) == kind)[:30] for kind in (True, False)]
    samples = tuple(DIGITS[own] for own in fixed)
    among = np.setdiff1d(np.arange(len(DIGITS)), np.concatenate(fixed))
    m, p = [], []
    for seed in range(300):
        split = images.twins(DIGITS, 20, test=0, seed=seed, among=among, **THREES)
        toss = voted(split, samples)
        m.append(coin_toss.by_seed(toss).mean())
        p.append(coin_toss.redealt([[toss]], seed=seed, redealings=199).p[0])
    assert abs(np.mean(m)) < 4 * np.std(m) / math.sqrt(300)
    for level in (0.05, 0.1, 0.25, 0.5):
        error = math.sqrt(level * (1 - level) / 300)
        assert level - 0.06 - 4 * error < np.mean(np.array(p) <= level) < level + 4 * error
    halves = Standard()
    bare = replace(split, controls=())
    [toss] = judgement._tosses(of_kind(bare, samples), halves, "pixels")
    assert coin_toss.by_seed(toss).mean() > 0.8


def measures_of(samples, test):
    flat = np.full((7, test), 20.0)
    return {
        "psnr_train": flat,
        "psnr_test": flat,
        "samples": samples.numpy(),
        "unfinished": np.array([0]),
    }


def by_three(make, **changes):
    """A level of twins whose samples are made of a split, and the rows of its votes."""
    sizes = {"sizes": (40,), "samples": 64, "test": 60}
    spec = BY_THREE.model_copy(update=sizes | {"duplicate_threshold": 1})
    split = images.twins(DIGITS, 40, test=60, **THREES)
    pair = tuple(measures_of(x, 60) for x in make(split))
    standard = replace(standards.standard(spec, DIGITS, np.arange(len(DIGITS))), **changes)
    level, _, tosses = comparison.compare(DIGITS, [pair], [split], 0, standard)
    return level, split, list(standards.ballots(spec, DIGITS, [split], tosses))


def test_copiers_of_a_kind_memorise():
    level, split, rows = by_three(
        lambda split: [DIGITS[np.resize(x, 64)] for x in (split.a, split.b)]
    )
    assert level.verdict == "memorises"
    assert level.memorisation.value == 1
    assert level.memorisation.low > 0.9  # 64 samples
    assert level.memorisation.p == pytest.approx(1e-4)
    assert level.copies.a.value == level.copies.b.value == 1
    assert level.control_fraction.a.value == level.control_fraction.b.value == 0
    assert {(row[2], row[6]) for row in rows} == {("a", "a"), ("b", "b")}
    assert [row[4] for row in rows] == [*np.resize(split.a, 64), *np.resize(split.b, 64)]


def test_copies_of_controls_are_no_memory():
    level, _, rows = by_three(lambda split: [DIGITS[np.resize(x, 64)] for x in split.controls])
    assert level.memorisation.value == -1
    assert level.copies.a.value == level.copies.b.value == 0
    assert {(row[2], row[6]) for row in rows} == {("a", "control a"), ("b", "control b")}
    assert level.memorised_fraction.a.value == 0
    assert level.control_fraction.a.value > 0.9


def test_learners_of_a_kind_do_not_memorise_and_have_learned_it():
    """Held-out digits of their kind, to which images of both kinds would be no standard."""
    fresh = lambda kind, split: np.setdiff1d(  # noqa: E731
        np.flatnonzero((DIGITS.labels == 3) == kind),
        np.concatenate([split.a, split.b, split.test, *split.controls]),
    )
    make = lambda split: [DIGITS[np.resize(fresh(kind, split), 64)] for kind in (True, False)]  # noqa: E731
    level, _, _ = by_three(make)
    assert level.memorisation.low < 0 < level.memorisation.high
    assert level.memorisation.p > 0.05
    assert level.learned.passed
    mixed, _, _ = by_three(make, kinds=None)
    assert "of A's samples" in mixed.learned.why


def test_without_enough_images_the_level_is_not_testable_and_says_what_is_missing(tmp_path):
    spec = BY_THREE.model_copy(update={"sizes": (4, 90)})
    done = transition.run(spec, tmp_path / "run", device="cpu")
    small, large = done.result.levels
    assert small.verdict != "not testable"
    assert small.memorisation.p is not None
    assert large.verdict == "not testable"
    threes = (DIGITS.labels[~images.near_duplicates(DIGITS).drop] == 3).sum()
    missing = 2 * 90 + 3 - threes
    assert large.why == (
        "each twin needs 90 controls, images of its kind that are neither in a training set nor in "
        f"the test set; {missing} with attribute '3' are missing"
    )
    assert (large.memorisation, large.excess, large.copies) == (None, None, None)
    assert large.control_fraction.a is None
    assert large.agreement is not None
    with (done.folder / "votes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["n"] for row in rows} == {"4"}
    assert {row["half"] for row in rows} <= {"a", "b", "control a", "control b"}
    with (done.folder / "images.csv").open(newline="") as file:
        roles = [row["role_0"] for row in csv.DictReader(file)]
    assert [roles.count(f"control {twin}") for twin in "ab"] == [90 - missing, 90]
    words = transition_content.content(reading.read(done.folder))
    assert [cell.text for cell in words.table.rows[1]][2] == "–"
    assert not any("judge it anew" in note for note in words.notes)


def test_each_kind_has_its_own_baseline():
    spec = BY_THREE.model_copy(update={"sizes": (60,), "test": 60, "duplicate_threshold": 1})
    found = standards.standard(spec, DIGITS, np.arange(len(DIGITS)))
    split = images.twins(DIGITS, 60, test=60, **THREES)
    assert found.kinds[split.test].sum() == 30
    pooled = standards._baseline(spec, DIGITS, np.arange(len(DIGITS)), None)
    better = (found.baseline - pooled)[0].mean(0)
    assert better[found.kinds[split.test]].mean() > 0.3  # of threes alone, it knows threes better


# The baseline


def test_the_baseline_of_the_digits_is_a_good_denoiser_and_fits_the_largest_size():
    spec = Spec(sizes=(10, 800), duplicate_threshold=1, replicates=2)
    found = standards.standard(spec, DIGITS, np.arange(len(DIGITS))).baseline
    assert found.shape == (2, 7, 128)
    known = [27.5, 22.6, 18.4, 16.4, 14.1, 13.1, 11.9]
    np.testing.assert_allclose(found.mean((0, 2)), known, atol=0.4)
    small = spec.model_copy(update={"sizes": (10,)})
    fewer = standards.standard(small, DIGITS, np.arange(len(DIGITS))).baseline
    assert (fewer.mean((0, 2)) < found.mean((0, 2)) - 0.3).all()


def test_images_too_large_for_a_covariance_have_no_baseline():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 1, 101, 100), dtype=np.uint8)
    large = images.from_pixels(pixels)
    assert standards.standard(Spec(split="random"), large, np.arange(6)).baseline is None
