"""`--network FILE.py:CLASS`: a class of the user's is trained, known by its code, and read back."""

import shutil

import pytest
import torch
import yaml

from twinscore import cli, runs
from twinscore.denoisers import NetworkSpec, build, check, load
from twinscore.denoisers.layers import generator_of
from twinscore.errors import InputError
from twinscore.experiments import train, transition
from twinscore.training import TrainingSpec

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

HELPER = "import torch\n\ndef bent(x):\n    return torch.tanh(x)\n"
MINE = '''
import torch
from torch import nn

from helper import bent


class Net(nn.Module):
    def __init__(self, channels, width=2):
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        self.register_buffer("share", torch.full((1,), 0.5), persistent=False)

    def forward(self, y, sigma):
        level = self.share * sigma.view(-1, 1, 1, 1)
        return y - level * self.last(bent(self.norm(self.first(y))))


class Blind(Net):
    def forward(self, y):
        return y - self.last(bent(self.first(y)))


class Valued(Net):
    """Cannot be traced: it looks at values."""

    def __init__(self, channels, seed):
        super().__init__(channels)
        self.seed, self.numbers = seed, torch.linspace(0, 1, 3).tolist()

    def forward(self, y, sigma):
        return super().forward(y, sigma) if sigma.max().item() < 1e6 else y


class Three(Net):
    def forward(self, y, sigma, label):
        return y


class Wide(Net):
    def __init__(self, channels, width):
        super().__init__(channels, width)


class Cropped(Net):
    def forward(self, y, sigma):
        return y[..., 1:]


class Fails(Net):
    def forward(self, y, sigma):
        raise RuntimeError("bad\\nluck")


class Fixed(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, y):
        return y


class Unmade(Net):
    def __init__(self, channels):
        raise OSError("no licence")


def function(channels):
    return Net(channels)
'''
QUICK = {"steps": 3, "batch": 4, "evaluations": 1, "sigma_max": 2.0}
WORDS = ("--training.steps", "3", "--training.batch", "4", "--training.evaluations", "1")
WORDS += ("--training.sigma-max", "2", "--device", "cpu")
Y = torch.rand(2, 1, 8, 8, generator=generator_of(0))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the file, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text(HELPER)
    return tmp_path


def own(name, **fields):
    return NetworkSpec(source=f"mine.py:{name}", **fields)


def trained(name, out):
    spec = train.Spec(network=own(name), n=8, training=TrainingSpec(**QUICK))
    return train.run(spec, out, device="cpu").folder


@pytest.mark.parametrize("name", ["Net", "Blind", "Valued"])
def test_a_class_is_trained_and_read_back_from_any_folder(here, monkeypatch, name):
    folder = trained(name, here / "out")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    model = load(folder)
    assert model.shape == (1, 8, 8)
    x_hat = check(model.denoiser, Y, 0.5)
    initial = build(NetworkSpec(source=f"{here}/mine.py:{name}"), 1, seed=0).eval()
    state = model.denoiser.state_dict()
    assert any(not torch.equal(value, state[key]) for key, value in initial.state_dict().items())
    initial.load_state_dict(state)
    # the same weights and code; the memory format differs, and with it the order of float32 sums
    torch.testing.assert_close(x_hat, initial(Y, torch.full((2,), 0.5)), rtol=0, atol=1e-6)


def test_weights_differ_between_seeds_and_seed_is_given_to_who_takes_it(here):
    first, again, other = (build(own("Net"), 1, seed).first.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert build(own("Valued"), 1, seed=7).seed == 7
    assert build(own("Net"), 3, seed=0).last.weight.shape == (3, 2, 3, 3)


@pytest.mark.slow
def test_the_transition_takes_it_with_workers_and_goes_by_its_code_alone(here):
    def run(source, workers):
        spec = transition.Spec(
            network=source,
            sizes=(2, 5),
            test=6,
            samples=4,
            training=QUICK,
            sampling={"steps": 2},
        )
        return transition.run(spec, here / "run", device="cpu", workers=workers)

    done = run("mine.py:Net", 2)
    before = {p: p.stat().st_mtime_ns for p in here.glob("run/trials/*/weights.safetensors")}
    assert len(before) == 4
    moved = here / "moved"
    moved.mkdir()
    shutil.copy(here / "helper.py", moved)
    (moved / "mine.py").write_text(f"# told in other words\n{MINE}")
    assert run("moved/mine.py:Net", 1).result == done.result
    assert {p: p.stat().st_mtime_ns for p in before} == before
    (moved / "helper.py").write_text(HELPER.replace("tanh", "relu"))
    with pytest.raises(InputError, match=r"another spec \(differs in network.source\)"):
        run("moved/mine.py:Net", 1)


def test_what_is_printed_can_be_given_and_says_when_the_code_is_another(here, capsys):
    words = ["transition", "--spec", "demo", "--network", "mine.py:Net", "--print-spec"]
    words += ["--training.sigma-max", "2"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    (here / "spec.yaml").write_text(printed)
    network = yaml.safe_load(printed)["network"]
    assert network == own("Net").model_dump()
    assert network["kind"] == "own"
    assert cli.main(["transition", "--spec", "spec.yaml", "--print-spec"]) == 0
    assert capsys.readouterr().out == printed
    (here / "mine.py").write_text(MINE.replace("* self.last", "* 2 * self.last"))
    assert cli.main(["transition", "--spec", "spec.yaml", "--print-spec"]) == 2
    assert "network: mine.py:Net was changed: its code has the digest" in capsys.readouterr().err
    (here / "spec.yaml").write_text("network: mine.py:Net\ntraining: {sigma_max: 2}\n")
    assert cli.main(["transition", "--spec", "spec.yaml", "--print-spec"]) == 0


def test_weights_of_code_that_changed_or_is_gone_are_one_line(here):
    weights = trained("Net", here / "out") / "weights.safetensors"
    (here / "helper.py").write_text(HELPER.replace("tanh", "relu"))
    with pytest.raises(InputError, match=r"a network of your own: .*mine\.py:Net was changed: "):
        load(str(weights))
    (here / "mine.py").unlink()
    with pytest.raises(InputError, match=r"mine\.py: cannot be read: No such file"):
        load(str(weights))

    class Same(torch.nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.first = torch.nn.Conv2d(channels, 2, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(2)
            self.last = torch.nn.Conv2d(2, channels, 3, padding=1)

        def forward(self, y, sigma=None):
            return y - self.last(self.norm(self.first(y)))

    def factory(channels):
        with torch.random.fork_rng(devices=[]):
            return Same(channels)

    assert check(load(str(weights), network=factory).denoiser, Y, 0.5).shape == Y.shape


REFUSED = {
    "mine.py:Three": "--network: mine.py:Three: its forward(self, y, sigma, label) does not take",
    "mine.py:Wide": "--network: mine.py:Wide: Wide(channels, width) cannot be made of the number",
    "mine.py:function": "--network: mine.py:function: is not a class of torch.nn.Module",
    "mine.py:missing": "--network: mine.py:missing: is not a class of torch.nn.Module",
    "mine.py:bent": "--network: mine.py:bent: is not a class of torch.nn.Module",
    "mine.py": "--network: 'mine.py' is not FILE.py:CLASS",
    "none.py:Net": "none.py: cannot be read: No such file or directory",
    "broken.py:Net": "--network: broken.py:Net: cannot be run: ZeroDivisionError: division by zero",
    "mine.py:Cropped": "mine.py:Cropped cannot be trained on images (1, 8, 8): of (2, 1, 8, 8) it",
    "mine.py:Fails": "mine.py:Fails cannot be trained on images (1, 8, 8): bad luck",
    "mine.py:Fixed": "mine.py:Fixed cannot be trained on images (1, 8, 8): it has no parameters",
    "mine.py:Unmade": "mine.py:Unmade: cannot be made of 1 channels: OSError: no licence",
}


@pytest.mark.parametrize("source", REFUSED)
@pytest.mark.parametrize("command", ["train", "transition"])
def test_what_cannot_be_trained_is_one_line_before_anything_is_written(
    here, capsys, source, command
):
    (here / "broken.py").write_text("1 / 0\n")
    code = cli.main([command, "--network", source, *WORDS, "--out", "out"])
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1)
    assert REFUSED[source] in said
    assert not (here / "out").exists()


def test_a_part_of_another_network_is_refused(here, capsys):
    assert cli.main(["train", "--network", "mine.py:Net", "--network.width", "3"]) == 2
    said = "twinscore: --network.width: network mine.py:Net has no width; leave it out\n"
    assert capsys.readouterr().err == said
    assert cli.main(["train", "--network.kind", "own"]) == 2
    assert "own needs a source, FILE.py:CLASS" in capsys.readouterr().err


def test_sampling_starts_where_a_told_network_was_trained(here):
    fields = {"sizes": [2], "training": TrainingSpec(**QUICK | {"sigma_max": 1.0})}
    with pytest.raises(ValueError, match="a network that is told the level knows only those"):
        transition.Spec(network=own("Net"), **fields)
    assert transition.Spec(network=own("Blind"), **fields).network.told is False


def test_a_network_of_this_package_has_the_hash_that_it_had():
    assert NetworkSpec().identity == NetworkSpec().model_dump()
    assert runs.identity({"a": {"b": 1}, "c": 2, "c_digest": 3}) == {"a": {"b": 1}, "c_digest": 3}
