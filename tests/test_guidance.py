"""Advice of an audit: every sentence is there exactly where its number is."""

import json
import re

import numpy as np
import pytest

from twinscore import cli, images, runs
from twinscore.errors import InputError
from twinscore.experiments import audit
from twinscore.experiments.audit import guidance
from twinscore.results import audit as results
from twinscore.results import capacity, transition
from twinscore.results.base import Interval, Kept, Turn, Window

pytestmark = pytest.mark.usefixtures("cheap")

ONE = Interval(value=1, low=1, high=1)
NOWHERE = results.Transform(kind="whole", place="whole")


def match(name):
    numbers = {"rank": 1, "image": 0, "sample": 0, "score": 9, "distance": 0.1, "votes": 1}
    return results.Match(name=name, sample_name="s", transform=NOWHERE, **numbers)


def result(**changes):
    data = results.Data(
        train="t",
        held_out="h",
        samples="s",
        shape=(1, 8, 8),
        side=8,
        images=(100, 100),
        units=(100, 100),
        unit="image",
        drawn=200,
    )
    own = {
        "verdict": "no copies shown",
        "why": "",
        "q": 0.1,
        "dependence": results.Dependence(p=0.5, by_depth=[]),
        "copies": Interval(value=0, low=0, high=0.02),
        "power": results.Power(for_p=5, for_list=10, rate=0.05),
        "extractable": None,
        "data": data,
    }
    own |= {name: [] for name in ("listed", "shown", "decoys", "assumptions", "legacy")}
    return results.Result(**own | changes)


def window(gen, mem, errors=(1.5, 1.2, 1.0)):
    """Of checkpoints 10, 20 and 30, of which those from ``mem`` on remember."""
    steps = (10, 20, 30)
    kept = [
        Kept(
            step=step,
            model="m",
            error=Interval(value=error, low=error, high=error),
            energy=None,
            auc=ONE,
            p=0.01 if mem and step >= mem else 0.5,
        )
        for step, error in zip(steps, errors, strict=True)
    ]
    before = {10: None, 20: 10, 30: 20}
    turn = Turn(value=mem, low=before[mem]) if mem else None
    return Window(tau_gen=Turn(value=gen, low=before[gen]), tau_mem=turn, checkpoints=kept)


def studied(value, low, high):
    """A transition run with this critical N."""
    critical = None
    if value is not None:
        critical = transition.CriticalN(value=value, low=low, high=high)
    data = transition.Data(
        source="faces/", images=900, dropped=0, threshold=1, shape=(1, 8, 8), test=9
    )
    return transition.Result(
        verdict="",
        critical_n=critical,
        critical_n_phrase="",
        closest_pairs=ONE,
        held_out_nearest=ONE,
        data=data,
        levels=[],
    )


def cells(*needed):
    """A capacity run: networks of growing size and the images from which on they generalise."""
    found = []
    for i, need in enumerate(needed):
        known = isinstance(need, int)
        found.append(
            capacity.Cell(
                name=f"width {i}",
                kind="unet",
                parameters=100 * (i + 1),
                pixels=64,
                critical_n=Interval(value=need, low=need, high=need) if known else None,
                beyond=None if known else need,
                bound=500,
            )
        )
    return capacity.Result(verdict="", data="d", sizes=[10, 500], cells=found, exponents=[])


def advice(found, *, at_risk=(), duplicates=0, run=None, **spec):
    asked = audit.Spec(**spec)
    return guidance.guidance(asked, found, at_risk=at_risk, duplicates=duplicates, run=run)


def test_without_numbers_there_is_no_advice():
    assert advice(result()) == []
    assert advice(result(window=window(10, None))) == []  # nothing turned
    assert advice(result(), run=studied(None, None, None)) == []


@pytest.mark.parametrize(
    ("gen", "mem", "said"),
    [
        (10, 30, "stop at step 20: at step 30 memory is there, and quality is reached at step 10"),
        (20, 30, "stop at step 20: at step 30 memory is there, and quality is reached at step 20"),
        (
            30,
            20,
            "stop at step 10: at step 20 memory is there; this costs quality, which is reached at "
            "step 30: the error on held-out images is 1.50 times the smallest",
        ),
        (20, 10, "save earlier checkpoints: from the first on, step 10, the model depends"),
    ],
)
def test_where_to_stop(gen, mem, said):
    [found] = advice(result(window=window(gen, mem)))
    assert found.startswith(said)


def test_which_images_to_drop():
    listed = [match(f"{i}.png") for i in range(7)]
    [found] = advice(result(verdict="copies", listed=listed))
    assert found == (
        "drop or deduplicate these images first, which are shown by samples (matches.csv): "
        "0.png, 1.png, 2.png, 3.png, 4.png and 2 more"
    )
    [found] = advice(result(), at_risk=["a.png"])
    assert found.endswith("(risk.csv): a.png")


def test_duplicates_are_counted():
    [found] = advice(result(), duplicates=1234)
    assert found.startswith("deduplicate the training set: 1,234 of its images are near-duplicates")


@pytest.mark.parametrize(
    ("critical", "more"),
    [((150, 100, 300), 200), ((150, 100, None), 50), ((90, 80, 100), None), ((None,) * 3, None)],
)
def test_how_many_images_are_missing(critical, more):
    found = advice(result(), run=studied(*critical))
    assert len(found) == (more is not None)
    if more:
        assert found[0].startswith(
            f"train on {more} more images: the critical N of faces/ is 150 ["
        )


@pytest.mark.parametrize(
    ("needed", "name"),
    [
        ((20, 90, 300), "width 1"),
        ((20, "above"), "width 0"),
        ((20, 90), None),  # the largest is small enough
        ((300, 400), None),  # the smallest is too large
        ((20, None), None),  # nobody knows
        ((), None),
    ],
)
def test_which_network_is_small_enough(needed, name):
    found = advice(result(), run=cells(*needed))
    assert len(found) == (name is not None)
    if name:
        assert found[0].startswith(f"take a smaller network: the critical N of {name}, with ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"power": results.Power(for_p=5, for_list=400, rate=2.0)},
            r"or draw 7,800 more samples: 8,000 have the 400 copies",
        ),
        # from 0.09 to 0.05, like the root: (9 / 5)^2 as many
        (
            {"copies": Interval(value=0, low=0, high=0.09)},
            "or draw about 448 more samples: up to 9",
        ),
        ({"copies": Interval(value=0.06, low=0, high=0.09)}, "no number of samples is known"),
        (
            {
                "copies": Interval(value=0, low=0, high=0.09),
                "dependence": results.Dependence(p=0.001, by_depth=[]),
            },
            "no number of samples is known",
        ),
        (
            {
                "power": results.Power(
                    for_p=5,
                    for_list=10,
                    rate=0.05,
                    seen={"exact": results.Seen(share=ONE, high=1, covered=False)},
                ),
                "why": "too few are seen; give others",
            },
            "^declare it inconclusive: too few are seen$",
        ),
    ],
)
def test_how_many_samples_are_missing(changes, said):
    [found] = advice(result(verdict="inconclusive", **changes))
    assert found.startswith("declare it inconclusive")
    assert re.search(said, found), found
    assert advice(result(**changes)) == []  # another verdict


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "result.json not found"),
        ({"schema_version": 3, "study": "duplicates"}, "is of duplicates; give a run of"),
        ({"schema_version": 3, "study": "capacity"}, "result.json: verdict: Field required"),
    ],
)
def test_a_wrong_run_is_one_line(tmp_path, content, message):
    if content:
        runs.write_json(tmp_path / "result.json", content)
    with pytest.raises(InputError, match=message):
        guidance.studied(audit.Spec(critical=str(tmp_path)))


def test_an_audit_prints_and_keeps_its_advice(tmp_path, capfd):
    """Samples that are training images, two of which are near-duplicates of others."""
    digits = images.load("digits")
    keep = np.flatnonzero(~images.near_duplicates(digits, 0.97).drop)[:160]
    train, held_out = digits[keep[:80]].numpy()[:, 0], digits[keep[80:]].numpy()[:, 0]
    sets = {"train": np.concatenate([train, train[:2]]), "held": held_out, "samples": train[:30]}
    for name, pixels in sets.items():
        np.save(tmp_path / f"{name}.npy", pixels)
    run = tmp_path / "transition"
    run.mkdir()
    runs.write_json(run / "result.json", studied(150, 100, 300).model_dump(mode="json"))
    words = ["--train", f"{tmp_path}/train.npy", "--held-out", f"{tmp_path}/held.npy"]
    words += ["--samples", f"{tmp_path}/samples.npy"]
    out = tmp_path / "run"
    assert cli.main(["audit", *words, "--critical", str(run), "--out", str(out)]) == 0
    said = capfd.readouterr().out
    found = json.loads((out / "result.json").read_text())["guidance"]
    assert [sentence.split()[0] for sentence in found] == ["drop", "deduplicate", "train"]
    assert "2 of its images" in found[1]
    assert "train on 218 more images" in found[2]
    for sentence in found:
        assert f"advice: {sentence}" in said
        assert sentence.split(":")[0] in (out / "report.html").read_text()
