"""`check-model`: a wrong convention is refused by name, a memoriser is warned of."""

import numpy as np
import pytest
from PIL import Image

from twinscore import cli, images, runs
from twinscore.errors import InputError
from twinscore.experiments import audit, check_model
from twinscore.experiments.audit.membership import try_model
from twinscore.report import style

MINE = """
from twinscore.denoisers import Checkpoint, adapters, load

exact = load("gaussian:digits").denoiser

def epsilon(x, t):
    times, sigmas = adapters.linear_table()[::-1]
    sigma = adapters.tabulated(times + 1, sigmas)(t + 1).view(-1, 1, 1, 1)
    y = x * (1 + sigma**2).sqrt()
    return (y - 2 * exact((y + 1) / 2, sigma.flatten() / 2) + 1) / sigma

def right():
    return Checkpoint(adapters.converted(epsilon, "epsilon"), (1, 8, 8), (0.3,))

def wrong():
    return Checkpoint(adapters.converted(epsilon, "velocity"), (1, 8, 8), (0.3,))

def bare():
    return epsilon
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def checked(tmp_path, capsys, monkeypatch):
    """Run the command, figures drawn but not encoded: exit code, what it printed, the result."""
    monkeypatch.setattr(style, "settle", lambda figure: figure)
    for kind in ("svg", "png", "pdf"):
        monkeypatch.setattr(style, kind, lambda *_: b"drawn")

    def call(*words):
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        code = cli.main(["check-model", *map(str, words), "--out", str(out), "--device", "cpu"])
        result = runs.read_json(out / "result.json") if out.exists() else None
        return code, capsys.readouterr(), result

    return call


@pytest.mark.parametrize(
    ("name", "named"), [("wrong", "velocity in [-1, 1]"), ("bare", "denoised in [0, 1]")]
)
def test_a_wrong_convention_is_told_the_right_one(mine, checked, name, named):
    code, said, result = checked("--model", f"{mine}:{name}", "--data", "digits")
    assert code == 2
    assert f"is wired wrongly: this looks like epsilon in [-1, 1], not {named}: " in said.out
    assert [fit["wiring"] for fit in result["fits"][:2]] == [named, "epsilon in [-1, 1]"]


def test_the_right_convention_passes_on_training_images(mine, checked):
    code, said, result = checked("--model", f"{mine}:right", "--data", "digits")
    assert code == 0
    assert said.out.startswith(f"{mine}:right fits epsilon in [-1, 1]: on digits, no known ")
    errors = np.array(result["fits"][0]["errors"])
    assert (errors < np.square(result["sigmas"])).all()


def test_a_memoriser_is_warned_on_held_out_images_and_never_refused(checked):
    """The exact denoiser of 20 images returns one of them, far from an image that it never saw."""
    words = ["--model", "empirical:discs:count=20,size=8,seed=1", "--images", "8"]
    code, _, result = checked(*words, "--data", "discs:count=20,size=8,seed=1")
    assert (code, result["fault"], result["warning"]) == (0, None, None)
    words += ["--data", "discs:count=20,size=8,seed=2"]
    code, said, result = checked(*words, "--held-out")
    assert (code, result["fault"]) == (0, None)
    assert "no less than the noise itself" in result["warning"]
    assert "a model that memorised others looks so too" in said.out
    assert checked(*words)[0] == 2


def test_no_command_measures_a_model_that_is_wired_wrongly(mine, tmp_path, capsys):
    pixels = np.rint(255 * images.load("digits")[0][0].numpy()).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    commands = {
        "harmonics": ["--data", "digits", "--sigmas", "0.2", "--draws", "2"],
        "restore": ["--image", str(tmp_path / "digit.png"), "--samples", "2", "--steps", "2"],
    }
    for command, words in commands.items():
        out = tmp_path / command
        call = [command, "--model", f"{mine}:wrong", *words, "--device", "cpu", "--out", str(out)]
        assert cli.main(call) == 2
        said = capsys.readouterr().err
        assert f"--model: {mine}:wrong is wired wrongly: " in said
        assert "this looks like epsilon in [-1, 1]" in said
        assert not out.exists()
        assert cli.main([word.replace(":wrong", ":right") for word in call]) == 0
        capsys.readouterr()


def test_samples_are_drawn_of_no_convention_that_images_speak_against(mine, tmp_path, capsys):
    words = ["sample", "--count", "2", "--quality", "draft", "--device", "cpu"]

    def call(name, *more):
        out = tmp_path / f"{name}{len(more)}.npz"
        code = cli.main([*words, "--model", f"{mine}:{name}", *more, "--out", str(out)])
        return code, out.exists(), capsys.readouterr().err

    code, there, said = call("wrong", "--data", "digits")
    assert (code, there) == (2, False)
    assert "wrong is wired wrongly: this looks like epsilon in [-1, 1]" in said
    code, there, said = call("right", "--data", "digits")
    assert (code, there, "untried" in said) == (0, True, False)
    code, there, said = call("right")
    assert (code, there) == (0, True)
    assert "mine.py:right is taken for epsilon in [-1, 1], untried; give --data" in said
    assert "untried" not in call("bare")[2]  # names no convention
    code, there, said = call("right", "--data", "digits,size=7")
    assert (code, "--data: digits,size=7 has images of (1, 7, 7)" in said) == (2, True)


def test_no_model_is_audited_that_is_wired_wrongly(mine):
    def tried(name):
        spec = audit.Spec(model=f"{mine}:{name}", train="digits", held_out="digits", samples="x")
        try_model(spec, images.load("digits"))

    with pytest.raises(InputError, match=r":wrong is wired wrongly: this looks like epsilon in "):
        tried("wrong")
    tried("right")
    tried("bare")  # names no convention


def test_what_a_folder_says_is_passed_on(checked, tmp_path, mine):
    mine.write_text(MINE.replace("(0.3,))", '(0.3,), notes=("averaged weights, of here",))'))
    code, said, result = checked("--model", f"{mine}:right", "--data", "digits")
    assert (code, result["notes"]) == (0, ["averaged weights, of here"])
    assert "\naveraged weights, of here\n" in said.out


def test_images_that_the_model_does_not_take_are_one_line(mine, checked):
    code, said, result = checked("--model", f"{mine}:right", "--data", "digits,size=7")
    assert (code, result) == (2, None)
    assert "digits,size=7 has images of 1 x 7 x 7 (channels, height, width), and" in said.err
    with pytest.raises(InputError, match="--data: not given; give images that it was trained on"):
        check_model.run(check_model.Spec(model="gaussian:digits"))
    with pytest.raises(InputError, match="--model: not given"):
        check_model.run(check_model.Spec())
