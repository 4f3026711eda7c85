"""Training: what each step sees, how it continues after a break, what stops it, what it learns."""

import json
import math
import re
import resource
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import nn

from twinscore import images, sealed
from twinscore.denoisers import UNet
from twinscore.denoisers.layers import generator_of
from twinscore.errors import Damaged, InputError
from twinscore.training import TrainingError, TrainingSpec, fit, history
from twinscore.training.fit import RESUME
from twinscore.training.laws import annealing, batch_indices, noise_draw, noise_level

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

SPEC = TrainingSpec(steps=12, batch=3, learning_rate=1e-2, evaluations=4)


def pictures(n=10, size=4, seed=0):
    return torch.rand(n, 1, size, size, generator=generator_of(seed))


def network(seed=0):
    return UNet(width=5, levels=1, seed=seed)  # wide enough for Muon


# What one step sees -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 40), batch=st.integers(1, 60), steps=st.integers(1, 12), seed=st.integers())
def test_every_image_is_seen_as_often_as_any_other(n, batch, steps, seed):
    seen = torch.cat([batch_indices(seed, t, n, batch) for t in range(steps)])
    counts = torch.bincount(seen, minlength=n)
    assert len(seen) == steps * batch
    assert len(counts) == n
    assert counts.max() - counts.min() <= 1
    for deck in seen.split(n)[: len(seen) // n]:
        assert sorted(deck.tolist()) == list(range(n))


def test_batches_depend_on_seed_and_step_only():
    a = [batch_indices(1, t, 50, 8) for t in range(20)]
    b = [batch_indices(1, t, 50, 8) for t in reversed(range(20))][::-1]
    assert all(map(torch.equal, a, b))
    assert not torch.equal(torch.cat(a), torch.cat([batch_indices(2, t, 50, 8) for t in range(20)]))
    decks = [torch.cat([batch_indices(1, t, 50, 50)]) for t in range(2)]
    assert not torch.equal(*decks)


def log_moment(k, sigma_max):
    """E (sigma / sigma_max)^k of the log-uniform law on [1e-3, sigma_max]."""
    ratio = 1e-3 / sigma_max
    return (1 - ratio**k) / (-k * math.log(ratio))


# E (sigma / sigma_max)^k, with u uniform: of u^2k, of u^k, and of the log-uniform law.
MOMENTS = {
    "sqrt": lambda k, sigma_max: 1 / (2 * k + 1),
    "uniform": lambda k, sigma_max: 1 / (k + 1),
    "log": log_moment,
}


@pytest.mark.parametrize("law", MOMENTS)
@pytest.mark.parametrize("sigma_max", [1.0, 0.5])
@pytest.mark.parametrize("spread", [False, True])
def test_noise_levels_follow_their_law(law, sigma_max, spread):
    n = 100_000
    sigma, noise = noise_draw(3, 0, (n, 1, 1, 2), law, sigma_max, spread=spread)
    assert sigma.shape == (n, 1, 1, 1)
    assert 0 <= sigma.min() < sigma.max() <= sigma_max
    first, second, fourth = (MOMENTS[law](k, sigma_max) for k in (1, 2, 4))
    # 5 standard errors of a mean over n draws.
    relative = sigma / sigma_max
    assert abs(relative.mean() - first) < 5 * math.sqrt((second - first**2) / n)
    assert abs(relative.square().mean() - second) < 5 * math.sqrt((fourth - second**2) / n)
    z = (noise / sigma)[sigma.flatten() > 0]
    assert abs(z.mean()) < 5 / math.sqrt(z.numel())
    assert abs(z.square().mean() - 1) < 5 * math.sqrt(2 / z.numel())
    # Two pixels of an image share the level and nothing else.
    assert abs((z[..., 0] * z[..., 1]).mean()) < 5 / math.sqrt(n)


@pytest.mark.parametrize("law", MOMENTS)
@given(batch=st.integers(1, 50), seed=st.integers(0, 2**30))
def test_spread_levels_hold_one_of_each_part(law, batch, seed):
    sigma, _ = noise_draw(seed, 0, (batch, 1, 1, 1), law, 1.0, spread=True)
    ends = noise_level(torch.arange(batch + 1) / batch, law, 1.0)
    found = sigma.flatten().sort().values
    assert (ends[:-1] * (1 - 1e-5) <= found).all()
    assert (found <= ends[1:] * (1 + 1e-5)).all()


def test_noise_depends_on_seed_and_step_only():
    shape = (4, 1, 3, 3)
    first = noise_draw(1, 7, shape, "sqrt", 1.0)
    noise_draw(1, 8, shape, "sqrt", 1.0)
    again = noise_draw(1, 7, shape, "sqrt", 1.0)
    assert all(map(torch.equal, first, again))
    for other in (noise_draw(2, 7, shape, "sqrt", 1.0), noise_draw(1, 8, shape, "sqrt", 1.0)):
        assert not torch.equal(first[0], other[0])
        assert not torch.equal(first[1] / first[0], other[1] / other[0])


def test_learning_rate_schedules():
    steps = 1000

    def rates(schedule):
        spec = TrainingSpec(steps=steps, schedule=schedule)
        return torch.tensor([annealing(spec, t) for t in range(steps)], dtype=torch.float64)

    assert torch.equal(rates("constant"), torch.ones(steps, dtype=torch.float64))
    halving = 0.5 ** torch.arange(10, dtype=torch.float64)
    torch.testing.assert_close(rates("halving"), halving.repeat_interleave(100))
    cosine = rates("cosine")
    top = int(cosine.argmax())
    assert top == 19  # warm-up over 2 % of the steps
    assert (cosine[: top + 1].diff() > 0).all()
    assert (cosine[top:].diff() < 0).all()
    assert 0.99 < cosine.max() <= 1
    assert cosine[500] == pytest.approx(1 / 2)
    assert 0 < cosine[-1] < 1e-5
    assert annealing(TrainingSpec(steps=1), 0) > 0


# Breaks -----------------------------------------------------------------------------------------


class Stop(BaseException):
    """Like KeyboardInterrupt: no Exception."""


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows_of(folder):
    rows = history.read(folder / "history.csv")
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture
def always_saving(monkeypatch):
    monkeypatch.setattr(sys.modules["twinscore.training.fit"], "CHECKPOINT_SECONDS", -1.0)


def stopping_at(*steps):
    remaining = list(steps)

    def on_step(step, row):
        if remaining and step == remaining[0]:
            remaining.pop(0)
            raise Stop

    return on_step


def run(folder, fabric, spec=SPEC, make=network, **options):
    options = {"seed": 5, "test": pictures(6, seed=1)} | options
    return fit(make(), pictures(), spec, folder=folder, fabric=fabric, **options)


@pytest.mark.parametrize("stops", [[1], [3], [7], [12], [2, 3, 11]])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, fabric, stops, ema):
    """Without a periodic checkpoint: the one written when the stop is raised loses no step."""
    spec = SPEC.model_copy(update={"ema": ema})
    whole = run(tmp_path / "whole", fabric, spec)
    reached = []
    for number, stop in enumerate(stops):
        with pytest.raises(Stop):
            run(tmp_path / "broken", fabric, spec, on_step=stopping_at(stop))
        rows = rows_of(tmp_path / "broken")
        assert [row["step"] for row in rows] == [s for s in (3, 6, 9, 12) if s <= stop]
        assert number == 0 or reached[-1] < stop
        reached.append(stop)
    steps = []
    resumed = run(tmp_path / "broken", fabric, spec, on_step=lambda step, row: steps.append(step))
    assert steps == list(range(stops[-1] + 1, 13))
    assert same(weights(whole), weights(resumed))
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "broken")
    assert not resumed.training


@pytest.mark.parametrize("killed_after", [1, 4, 6, 8])
def test_a_killed_training_continues_from_its_periodic_checkpoint(
    tmp_path, fabric, always_saving, killed_after
):
    """As ``kill -9`` leaves it: a checkpoint of an earlier step and a history beyond it."""
    whole = run(tmp_path / "whole", fabric)
    folder = tmp_path / "broken"
    kept = []

    def on_step(step, row):
        if step == killed_after:
            kept.append((folder / RESUME).read_bytes())

    run(folder, fabric, on_step=on_step)
    (folder / RESUME).write_bytes(kept[0])
    assert len(rows_of(folder)) == 4
    counted = []

    def look(step, row):
        if not counted:
            counted.append((step, [row["step"] for row in rows_of(folder)]))

    resumed = run(folder, fabric, on_step=look)
    first = killed_after + 1
    assert counted == [(first, [s for s in (3, 6, 9, 12) if s <= first])]
    assert same(weights(whole), weights(resumed))
    assert rows_of(tmp_path / "whole") == rows_of(folder)


def test_saving_often_changes_nothing(tmp_path, fabric, monkeypatch):
    seldom = run(tmp_path / "seldom", fabric)
    monkeypatch.setattr(sys.modules["twinscore.training.fit"], "CHECKPOINT_SECONDS", -1.0)
    often = run(tmp_path / "often", fabric)
    assert same(weights(seldom), weights(often))
    assert rows_of(tmp_path / "seldom") == rows_of(tmp_path / "often")


def test_an_interrupt_without_a_folder_passes_through(fabric):
    with pytest.raises(KeyboardInterrupt):
        run(None, fabric, on_step=lambda step, row: (_ for _ in ()).throw(KeyboardInterrupt))


def test_the_history_starts_again_without_a_checkpoint(tmp_path, fabric):
    run(tmp_path, fabric)
    (tmp_path / RESUME).unlink(missing_ok=True)
    with pytest.raises(Stop):
        run(tmp_path, fabric, on_step=stopping_at(1))
    assert rows_of(tmp_path) == []


def test_the_history_is_complete(tmp_path, fabric):
    run(tmp_path, fabric)
    rows = history.read(tmp_path / "history.csv")
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert all(set(row) == set(history.columns()) for row in rows)
    assert all(math.isfinite(v) for row in rows for v in row.values())
    # A csv of six digits; the rate of the step just done.
    assert [row["learning_rate"] for row in rows] == pytest.approx(
        [1e-2 * annealing(SPEC, step - 1) for step in (3, 6, 9, 12)], rel=1e-5
    )


def test_equal_images_have_no_gap_in_the_history(tmp_path, fabric):
    """Train and test images take the same noise."""
    fit(network(), pictures(), SPEC, test=pictures(), folder=tmp_path, fabric=fabric)
    for row in history.read(tmp_path / "history.csv"):
        for sigma in history.SIGMAS:
            assert row[f"train_psnr_{sigma:g}"] == row[f"test_psnr_{sigma:g}"]


def test_the_history_holds_the_mean_loss_since_the_last_row(tmp_path, fabric):
    """A network stuck at zero loses ``||x||^2``, summed over pixels, averaged over images."""
    x = pictures(6, size=2)
    spec = TrainingSpec(steps=8, batch=6, learning_rate=1e-12, evaluations=2)
    fit(Linear(4), x, spec, folder=tmp_path, fabric=fabric)
    losses = [row["train_loss"] for row in rows_of(tmp_path)]
    assert losses == pytest.approx([x.square().sum().item() / 6] * 2, rel=1e-5)  # six digits


def test_large_step_numbers_survive_the_history(tmp_path):
    path = tmp_path / "history.csv"
    history.write(path, [{"step": 1_234_567, "train_loss": 0.123456789}])
    assert history.read(path) == [{"step": 1_234_567, "train_loss": 0.123457}]
    before = path.read_bytes()
    history.write(path, history.read(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"step,train_loss\n1,0.\xff\n", b"step,train_loss\n1\n2,0.5\n", b"step,train_loss\n1,x\n"],
    ids=["stray byte", "cut row", "no number"],
)
def test_a_damaged_history_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    with pytest.raises(Damaged, match=f"^{re.escape(str(path))}: cannot be read as a table[^\n]*$"):
        history.read(path)
    history.mend(path, [{"step": 1, "train_loss": 0.5}])
    assert history.read(path) == [{"step": 1, "train_loss": 0.5}]


# Failures ---------------------------------------------------------------------------------------


class PoisonedAt:
    """Images that turn to NaN at one step."""

    def __init__(self, step):
        self.step, self.images, self.calls = step, pictures(), 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, indices):
        self.calls += 1  # the first call is for the history
        return self.images[indices] * (math.nan if self.calls == self.step + 1 else 1)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path, fabric, always_saving, clip):
    spec = SPEC.model_copy(update={"clip": clip})
    with pytest.raises(TrainingError, match="loss became nan at step 8;"):
        fit(network(), PoisonedAt(8), spec, seed=5, folder=tmp_path, fabric=fabric)
    assert json.loads(sealed.check(tmp_path / RESUME)["twinscore"])["counters"][0] == 7
    assert all(torch.isfinite(v).all() for v in load_file(tmp_path / RESUME).values())
    assert [row["step"] for row in rows_of(tmp_path)] == [3, 6]
    # and good pictures continue from there as if nothing had happened
    whole = fit(network(), pictures(), spec, seed=5, fabric=fabric)
    resumed = fit(network(), PoisonedAt(999), spec, seed=5, folder=tmp_path, fabric=fabric)
    assert same(weights(whole), weights(resumed))


def test_nan_is_named_by_its_own_step_when_noticed_later(tmp_path, fabric):
    with pytest.raises(TrainingError, match="at step 4;"):
        fit(network(), PoisonedAt(4), SPEC, folder=tmp_path, fabric=fabric)
    assert not (tmp_path / RESUME).exists()


class Exploding(nn.Module):
    """A finite loss with an infinite gradient: the root of zero."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, y, sigma=None):
        return y * self.weight.abs().sqrt()


def test_weights_at_nan_are_never_saved_or_returned(tmp_path, fabric, always_saving):
    spec = TrainingSpec(steps=1, batch=2, evaluations=1)
    with pytest.raises(TrainingError, match="a weight became infinite or NaN by step 1;"):
        fit(Exploding(), pictures(), spec, folder=tmp_path, fabric=fabric)
    assert not (tmp_path / RESUME).exists()


@pytest.mark.parametrize("content", [b"", b"garbage", "cut", "other"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, fabric, content):
    path = tmp_path / RESUME
    with pytest.raises(Stop):
        run(tmp_path, fabric, on_step=stopping_at(5))
    make = network
    if content == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif content == "other":
        make = lambda: UNet(width=4, levels=1)  # noqa: E731
    else:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        run(tmp_path, fabric, make=make)
    assert str(caught.value).startswith(f"{path}: not a checkpoint of this training")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [
        {"spec": SPEC.model_copy(update={"steps": SPEC.steps + 1})},
        {"seed": 9},
        {"images": pictures(7)},
        {"images": pictures(seed=1)},
    ],
    ids=["spec", "seed", "images", "content"],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, fabric, other):
    same = {"spec": SPEC, "seed": 0, "images": pictures()}
    keep = {"folder": tmp_path, "fabric": fabric}

    def train(spec, seed, images, **options):
        return fit(network(), images, spec, seed=seed, **keep, **options)

    with pytest.raises(Stop):
        train(**same, on_step=stopping_at(5))
    with pytest.raises(InputError, match="belongs to something else"):
        train(**same | other)


def test_a_full_disk_is_bad_input_and_keeps_the_old_checkpoint(tmp_path, fabric, always_saving):
    path = tmp_path / RESUME
    with pytest.raises(Stop):
        run(tmp_path, fabric, on_step=stopping_at(2))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"resume\.safetensors: cannot be written"):
            run(tmp_path, fabric)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.csv", RESUME]


# What is learned --------------------------------------------------------------------------------


class Linear(nn.Module):
    """One matrix applied to every image, from zero."""

    def __init__(self, d):
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(d, d))

    def forward(self, y, sigma=None):
        return (y.flatten(1) @ self.matrix.T).view_as(y)


def test_a_linear_denoiser_reaches_the_wiener_optimum(fabric):
    """Over all noise levels, ``M = S (S + E sigma^2)^-1`` with S the second moments of the images.

    E sigma^2 = 1/5 for the published law. The excess loss ``tr (M - M*)(S + 1/5)(M - M*)^T`` is
    compared with what is left of the loss at the optimum; 2 % is ten times what was measured.
    """
    x = pictures(500, size=2) * torch.tensor([1.0, 0.7, 0.4, 0.2]).view(1, 1, 2, 2)
    second = x.flatten(1).T.double() @ x.flatten(1).double() / len(x)
    noisy = second + torch.eye(4, dtype=torch.float64) / 5
    optimum = second @ torch.linalg.inv(noisy)
    least = torch.trace(second - optimum @ second)
    spec = TrainingSpec(steps=600, batch=256, learning_rate=0.02, evaluations=2)
    before = torch.random.get_rng_state()
    trained = fit(Linear(4), x, spec, fabric=fabric)
    assert torch.equal(torch.random.get_rng_state(), before)
    error = trained.matrix.detach().double() - optimum
    excess = torch.trace(error @ noisy @ error.T)
    assert excess < 0.02 * least


def test_a_network_repeats_the_one_image_it_knows(fabric):
    """Trained on a single image, the best estimate is that image at any noise level."""
    x = torch.tensor([0.1, 0.1, 0.9, 0.9]).repeat(2).expand(1, 1, 8, 8).contiguous()
    spec = TrainingSpec(steps=150, batch=32, learning_rate=1e-2, evaluations=1)
    model = fit(UNet(width=8, levels=1), x, spec, fabric=fabric)
    noise = torch.randn(64, 1, 8, 8, generator=generator_of(9))
    with torch.no_grad():
        error = (model(x + 0.5 * noise) - x).square().mean()
    # The noise has 0.25; the constant image, the best that knows nothing but the mean, 0.16.
    assert error < x.var(correction=0) / 2


def test_ema_returns_the_average_of_the_weights(fabric):
    """``average <- decay average + (1 - decay) weights`` after each step, from the initial ones;
    the decay of step k is ``(1 + k) / (10 + k)`` until that exceeds the one asked for."""
    ema, spec = 0.3, TrainingSpec(steps=6, batch=4, evaluations=1)
    model = network()
    average = weights(model)
    seen = []
    fit(model, pictures(), spec, fabric=fabric, on_step=lambda *_: seen.append(weights(model)))
    for step, state in enumerate(seen):
        decay = min(ema, (1 + step) / (10 + step))
        average = {k: decay * average[k] + (1 - decay) * v for k, v in state.items()}
    found = fit(network(), pictures(), spec.model_copy(update={"ema": ema}), fabric=fabric)
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, average[name])  # float32 rounding


def test_ema_takes_networks_with_integer_buffers(fabric):
    class Normalised(nn.Sequential):
        def forward(self, y, sigma=None):
            return super().forward(y)

    def make():
        with torch.random.fork_rng(devices=[]):
            return Normalised(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1))

    model = fit(make(), pictures(), SPEC.model_copy(update={"ema": 0.9}), fabric=fabric)
    assert model[1].num_batches_tracked == SPEC.steps


def test_clipping_bounds_the_gradient(fabric):
    norms = []

    class Watching(Linear):
        def forward(self, y, sigma=None):
            if self.matrix.grad is not None:
                norms.append(self.matrix.grad.norm().item())
            return super().forward(y)

    def on_step(step, row):
        norms.append(model.matrix.grad.norm().item())

    for clip in (None, 0.01):
        norms.clear()
        model = Watching(16)
        fit(
            model,
            pictures(),
            SPEC.model_copy(update={"clip": clip}),
            fabric=fabric,
            on_step=on_step,
        )
        assert (max(norms) > 0.011) == (clip is None)


def test_tensors_and_image_sets_give_the_same_weights(fabric):
    packed = images.from_pixels((255 * pictures()).round().to(torch.uint8).numpy())
    a = fit(network(), packed, SPEC, fabric=fabric)
    b = fit(network(), packed[:], SPEC, fabric=fabric)
    assert same(weights(a), weights(b))


def test_seeds_change_order_and_noise_only(fabric):
    a, again, other = (fit(network(), pictures(), SPEC, seed=s, fabric=fabric) for s in (1, 1, 2))
    assert same(weights(a), weights(again))
    assert not same(weights(a), weights(other))


def test_one_image_and_large_batches(fabric):
    model = fit(network(), pictures(1), SPEC.model_copy(update={"batch": 7}), fabric=fabric)
    assert not same(weights(model), weights(network()))


# bfloat16 keeps 8 bits, float32 24; twelve steps of Adam add up the differences.
@pytest.mark.parametrize(
    ("precision", "kept", "close"),
    [("bf16-mixed", torch.float32, 0.1), ("64-true", torch.float64, 1e-3)],
)
def test_other_precisions_learn_the_same(fabric, precision, kept, close):
    other = Fabric(accelerator="cpu", devices=1, precision=precision)
    rows = {}
    for name, chosen in {"float32": fabric, "other": other}.items():
        rows[name] = []
        on_step = lambda _, row, kept=rows[name]: kept.append(row["train_loss"])  # noqa: E731
        spec = SPEC.model_copy(update={"evaluations": SPEC.steps})
        model = fit(network(), pictures(), spec, fabric=chosen, on_step=on_step)
    assert all(v.dtype == kept for v in model.state_dict().values())
    assert rows["other"] == pytest.approx(rows["float32"], rel=close)


def test_evaluating_has_no_influence(fabric):
    a = fit(network(), pictures(), SPEC, fabric=fabric)
    more = SPEC.model_copy(update={"evaluations": 12})
    b = fit(network(), pictures(), more, fabric=fabric, test=pictures(3, seed=2))
    assert same(weights(a), weights(b))
