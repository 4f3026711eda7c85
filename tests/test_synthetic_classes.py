"""Discs, Gaussian fields, mixtures, subspaces, pixel shuffle; every synthetic class as a source."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import sources, synthetic
from twinscore.images.synthetic import CAlpha, MixtureLaw, PixelShuffle
from twinscore.images.synthetic.fields import spectrum_of

# discs

SIZE = 24
unit = st.floats(0, 1)


@st.composite
def disc_parameters(draw):
    radius = draw(st.floats(3, 9))
    low, high = radius + 0.5, SIZE - 1.5 - radius
    centre = [draw(st.floats(low, high)) for _ in range(2)]
    intensities = [draw(st.floats(0.01, 0.99)) for _ in range(2)]
    return torch.tensor([[*centre, radius, *intensities]], dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(disc_parameters(), st.floats(0.5, 2))
def test_tangents_are_finite_differences(parameters, edge):
    step = 1e-5
    steps = step * torch.eye(5, dtype=torch.float64)
    forward = synthetic.render(parameters + steps, SIZE, edge=edge)
    backward = synthetic.render(parameters - steps, SIZE, edge=edge)
    differences = (forward - backward) / (2 * step)
    # third derivatives below 20 / edge^3: error 20 * 8 * step^2 / 6 = 3e-9; rounding 1e-16 / step
    tangents = synthetic.tangents(parameters, SIZE, edge=edge)
    assert tangents.shape == (1, 5, 1, SIZE, SIZE)
    torch.testing.assert_close(tangents[0], differences, rtol=0, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(disc_parameters())
def test_the_tangent_has_five_dimensions_and_two_without_contrast(parameters):
    def rank(values):
        return torch.linalg.matrix_rank(synthetic.tangents(values, SIZE).flatten(2)[0], rtol=1e-9)

    flat = parameters.clone()
    flat[:, 4] = flat[:, 3]
    assert rank(flat) == 2
    assume(abs(parameters[0, 3] - parameters[0, 4]) > 1e-3)
    assert rank(parameters) == 5


def test_a_disc_has_its_area_and_half_the_contrast_at_its_edge():
    parameters = torch.tensor([[20.0, 22.0, 10.0, 0.9, 0.2]], dtype=torch.float64)
    disc = synthetic.render(parameters, 44)[0, 0]
    assert disc[20, 32] == pytest.approx(0.55, abs=1e-12)
    assert disc[20, 22] == pytest.approx(0.9, abs=1e-6)  # 5 widths from the edge
    # the profile is odd in d^2, so the area is pi r^2; 1e-6 is the profile's tail at the centre
    inside = (disc - 0.2).sum() / 0.7
    assert inside == pytest.approx(math.pi * 100, rel=1e-6)


def test_discs_come_with_the_parameters_that_make_them():
    made, parameters = synthetic.discs(range(400), size=32, radius=(4, 12), seed=2)
    torch.testing.assert_close(made, synthetic.render(parameters, 32), rtol=0, atol=0)
    part, _ = synthetic.discs([17, 3], size=32, radius=(4, 12), seed=2)
    assert torch.equal(part, made[[17, 3]])
    row, column, radius, foreground, background = parameters.T
    assert 4 <= radius.min() < 4.5 < 11.5 < radius.max() <= 12
    for centre in (row, column):
        assert ((centre + 0.5 >= radius - 1e-4) & (centre + radius <= 31.5 + 1e-4)).all()
    for intensity in (foreground, background):  # uniform: 1/12 is the variance
        assert abs(intensity.mean() - 0.5) < 4 * (1 / 12 / 400) ** 0.5


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ([5.0, 12.0, 8.0, 1.0, 0.0], r"disc 0 \(5, 12, 8, 1, 0\) does not fit into 24x24"),
        ([12.0, 20.0, 6.0, 1.0, 0.0], "does not fit"),
        ([12.0, 12.0, 0.0, 1.0, 0.0], "does not fit"),
        ([12.0, 12.0, float("nan"), 1.0, 0.0], "does not fit"),
        ([12.0, 12.0, 6.0, 1.1, 0.0], "intensity outside"),
        ([12.0, 12.0, 6.0, 1.0], r"give floats of shape \(B, 5\)"),
    ],
)
def test_discs_that_do_not_fit_are_refused(parameters, says):
    for make in (synthetic.render, synthetic.tangents):
        with pytest.raises(InputError, match=says):
            make(torch.tensor([parameters]), SIZE)


@pytest.mark.parametrize("radius", [(4, 13), (0, 5), (6, 5), (float("nan"), 5)])
def test_radii_that_do_not_fit_are_refused(radius):
    with pytest.raises(InputError, match=r"radius: discs of .* do not fit into 24x24"):
        synthetic.discs([0], size=24, radius=radius)
    with pytest.raises(InputError, match="edge: 0"):
        synthetic.discs([0], size=24, edge=0.0)
    with pytest.raises(InputError, match="edge: nan"):
        synthetic.discs([0], size=24, edge=float("nan"))


# fields, mixtures, subspaces


def in_batches(make, count, *sizes):
    together = make(range(count))
    for batch in sizes:
        parts = [make(range(k, min(k + batch, count))) for k in range(0, count, batch)]
        assert torch.equal(torch.cat(parts), together)
    return together


@pytest.mark.parametrize(
    "spectrum",
    [
        3.0,
        lambda k: torch.exp(-k / 4),
        np.random.default_rng(0).random((1, 1)) + np.ones((16, 16)),
    ],
    ids=["power law", "function", "array"],
)
def test_fields_have_the_spectrum_asked_for(spectrum):
    size, n = 16, 1000
    law = synthetic.field_law(size, spectrum, contrast=0.1, mean=0.4)
    fields = in_batches(lambda rows: synthetic.mixture(rows, law, seed=1)[0], n, 37, 600).double()
    assert law.spectra.mean().sqrt().item() == pytest.approx(0.1)
    power = torch.fft.fft2(fields[:, 0] - 0.4).abs().square().mean(0) / size**2
    positive = law.spectra[0] > 0
    ratio = power[positive] / law.spectra[0][positive]
    # a mean of n squared normals (2 / n), or of n exponentials (1 / n) off the real frequencies
    assert (ratio - 1).abs().max() < 5 * (2 / n) ** 0.5
    assert (ratio - 1).square().mean() == pytest.approx(1 / n, rel=0.5)
    assert (power[~positive] < 1e-10).all()  # nothing where the law has nothing


def test_a_power_law_falls_with_its_exponent():
    values = spectrum_of(32, 3.0, contrast=0.2)
    assert values[0, 0] == 0
    assert values[1, 0] / values[0, 4] == pytest.approx(4**3)
    assert values[3, 4] / values[0, 10] == pytest.approx(2**3)


def test_mixtures_say_which_component_an_image_is_from():
    law = synthetic.mixture_law(8, 3, spread=0.2, contrast=0.01, seed=4)
    made = in_batches(lambda rows: synthetic.mixture(rows, law, seed=4)[0], 600, 7, 301)
    components = synthetic.mixture(range(600), law, seed=4)[1]
    distances = torch.cdist(made.flatten(1).double(), law.means.flatten(1))
    assert torch.equal(distances.argmin(1), components)  # means are 20 standard deviations apart
    counts = components.bincount(minlength=3)
    assert ((counts - 200).abs() < 4 * (600 * 2 / 9) ** 0.5).all()
    within = made[:, 0].double() - law.means[components]
    assert within.std().item() == pytest.approx(0.01, rel=0.05)


def test_weights_are_respected():
    means = torch.zeros(2, 4, 4, dtype=torch.float64)
    weights = torch.tensor([0.9, 0.1], dtype=torch.float64)
    law = MixtureLaw(weights, means, torch.ones_like(means))
    share = synthetic.mixture(range(2000), law)[1].double().mean()
    assert abs(share - 0.1) < 4 * (0.09 / 2000) ** 0.5


def test_subspace_images_lie_on_it():
    law = synthetic.subspace_law(16, 5, contrast=0.1, seed=3)
    basis = law.basis.flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(5, dtype=torch.float64))
    made = in_batches(lambda rows: synthetic.subspace(rows, law, seed=3), 1000, 7, 301)
    centred = made.flatten(1).double() - law.mean
    coefficients = centred @ basis.T
    torch.testing.assert_close(coefficients @ basis, centred, rtol=0, atol=1e-6)  # float32
    covariance = coefficients.T @ coefficients / 1000 / law.scale**2
    assert (covariance - torch.eye(5)).abs().max() < 4 * (2 / 1000) ** 0.5
    assert centred.std().item() == pytest.approx(0.1, rel=0.1)


def test_what_images_share_is_independent_of_the_images():
    law = synthetic.mixture_law(16, 1, spread=0.1, contrast=0.1, seed=0)
    within = synthetic.mixture(range(50), law, seed=0)[0][:, 0].double() - law.means
    mean = (law.means[0] - 0.5).flatten()
    along = within.flatten(1) @ mean / mean.norm()
    assert abs(along.mean()) < 4 * along.std() / 50**0.5
    assert along.std() > 0


ONES = torch.ones(1, 4, 4, dtype=torch.float64)
LOPSIDED = ONES.clone()
LOPSIDED[0, 0, 1] = 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: synthetic.field_law(16, np.ones((4, 4))), r"shape \(4, 4\); give \(16, 16\)"),
        (lambda: synthetic.field_law(4, -np.ones((4, 4))), "spectrum: negative"),
        (lambda: synthetic.field_law(4, float("nan")), "spectrum: negative, not finite"),
        (lambda: synthetic.field_law(4, contrast=0.0), "contrast: 0"),
        (lambda: synthetic.field_law(4, contrast=2.0), "contrast: 2"),
        (lambda: synthetic.field_law(4, mean=float("nan")), "mean: nan"),
        (lambda: synthetic.field_law(1), "size: 1"),
        (lambda: synthetic.field_law(4, LOPSIDED[0]), r"S\(-k\) = S\(k\)"),
        (lambda: synthetic.mixture_law(4, 0), "components: 0"),
        (lambda: synthetic.mixture_law(4, seed=-1), "seed: -1"),
        (lambda: synthetic.subspace_law(4, 17), "dimension: 17 is out of range; give 1 to 16"),
        (lambda: MixtureLaw(ONES[0, 0, :1], ONES[0], ONES[0]), "means: shape"),
        (lambda: MixtureLaw(ONES[0, 0, :1], ONES, ONES[:, 1:]), "spectra: shape"),
        (lambda: MixtureLaw(2 * ONES[0, 0, :1], ONES, ONES), "weights: "),
    ],
)
def test_impossible_laws_are_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


# pixel shuffle


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**40))
def test_shuffling_is_undone_and_moves_channels_together(height, width, seed):
    shuffle = synthetic.pixel_shuffle(height, width, seed)
    x = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(0))
    shuffled = shuffle.apply(x)
    assert torch.equal(shuffle.invert(shuffled), x)
    assert torch.equal(shuffle.apply(shuffle.invert(x)), x)
    assert torch.equal(shuffled[:, 0], shuffle.apply(x[:, 0]))
    assert torch.equal(shuffled.flatten(2).sort().values, x.flatten(2).sort().values)


def test_an_image_set_is_shuffled_when_read():
    digits = images.load("digits")
    shuffled = images.load("digits,shuffle=5")
    shuffle = synthetic.pixel_shuffle(8, 8, 5)
    assert torch.equal(shuffled[[3, 1000]], shuffle.apply(digits[[3, 1000]]))
    assert torch.equal(shuffle.invert(shuffled[:10]), digits[:10])
    assert (shuffled.names, shuffled.peak) == (digits.names, digits.peak)
    assert np.array_equal(shuffled.labels, digits.labels)
    assert not set(shuffled.digests) & set(digits.digests)
    assert not torch.equal(synthetic.pixel_shuffle(8, 8, 6).apply(digits[:1]), shuffled[:1])
    back = synthetic.shuffle_pixels(shuffled, PixelShuffle(np.argsort(shuffle.order)))
    assert back.digest == digits.digest


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (np.arange(63), "order: a permutation of 63 pixels for images of 64; give one of 64"),
        (np.zeros(64, dtype=int), "order: not a permutation of 64 pixels"),
        (np.arange(1, 65), "give every number from 0 to 63 once"),
        (np.arange(64.0), "order: float64"),
        (np.arange(64).reshape(8, 8), "order: int64 of shape"),
    ],
)
def test_wrong_permutations_are_refused(order, says):
    digits = images.load("digits")
    with pytest.raises(InputError, match=says):
        synthetic.shuffle_pixels(digits, PixelShuffle(order))
    with pytest.raises(InputError, match=says):
        PixelShuffle(order).invert(digits[:2])


# sources

KINDS = ("c_alpha:", "discs:", "field:", "mixture:", "subspace:")
SOURCES = {
    "c_alpha:alpha=3,beta=1,filter=regularity,blur=1,antialias,size=16,count=50,seed=2": (
        lambda rows: synthetic.c_alpha(
            rows, CAlpha(16, 3.0, 1.0, "regularity", 1, antialias=True), seed=2
        )
    ),
    "discs:size=16,count=50,radius=2..5,edge=0.5,seed=2": (
        lambda rows: synthetic.discs(rows, size=16, radius=(2, 5), edge=0.5, seed=2)[0]
    ),
    "field:spectrum=3,contrast=0.2,mean=0.3,size=16,count=50,seed=2": (
        lambda rows: synthetic.mixture(
            rows, synthetic.field_law(16, 3.0, contrast=0.2, mean=0.3), seed=2
        )[0]
    ),
    "mixture:components=4,size=16,count=50,seed=2": (
        lambda rows: synthetic.mixture(rows, synthetic.mixture_law(16, 4, seed=2), seed=2)[0]
    ),
    "subspace:dimension=3,size=16,count=50,seed=2": (
        lambda rows: synthetic.subspace(rows, synthetic.subspace_law(16, 3, seed=2), seed=2)
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_gives_what_its_function_gives(source):
    loaded = images.load(source)
    made = SOURCES[source](range(50))
    assert loaded.shape == (1, 16, 16)
    assert torch.equal(loaded[:], made)
    assert torch.equal(loaded[[31, 4]], made[[31, 4]])
    assert torch.equal(loaded.take([7, 8])[1], made[8])
    assert loaded.digest == images.from_pixels(made.numpy()).digest
    assert len(set(loaded.digests)) == 50
    assert torch.equal(images.load(f"{source},crop=10,gray")[:], made[..., 3:13, 3:13])
    assert images.load(source.replace("seed=2", "seed=3")).digest != loaded.digest


def test_labels_of_a_mixture_are_its_components():
    loaded = images.load("mixture:components=2,size=8,count=40")
    law = synthetic.mixture_law(8, 2, seed=0)
    assert loaded.labels.tolist() == synthetic.mixture(range(40), law, seed=0)[1].tolist()
    assert images.load("field:size=8,count=4").labels is None


def test_an_option_of_every_source_may_come_first():
    assert images.load("c_alpha:size=8,count=2").shape == (1, 8, 8)
    assert images.load("c_alpha:,size=8,count=2").shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("c_alpha:alpha=-1", "alpha: -1.0 is out of range"),
        ("c_alpha:alpha=two", "c_alpha:alpha=two: 'two' is not a number"),
        ("c_alpha:alpha", "'' is not a number"),
        ("c_alpha:antialias=yes", "'yes' is not true or false"),
        ("c_alpha:count=0", "0 is too few"),
        ("c_alpha:count=-1", "'-1' is not a whole number"),
        ("c_alpha:seed=1e3", "'1e3' is not a whole number"),
        ("c_alpha:size=8,crop=9", "crop=9 is larger than the images"),
        ("c_alpha:faces,size=8", "c_alpha:faces: no such option"),
        (
            "c_alpha:radius=3",
            "c_alpha:radius=3: no such option; options are alpha, antialias, beta",
        ),
        ("c_alpha:size=1025", "size=1025 is too large; give 2 to 1024"),
        ("c_alpha:count=10000000", "'10000000' is not a whole number"),
        ("subspace:size=1024,dimension=200", "dimension: 200 directions of 1024x1024"),
        ("mixture:size=1024,components=200", "components: 200 of 1024x1024"),
        ("discs:size=16,radius=4..9", "radius: discs of 4 to 9 pixels do not fit into 16x16"),
        ("discs:radius=x", "'x' is not a number"),
        ("field:spectrum=nan", "spectrum: "),
        ("subspace:size=2,dimension=5", "dimension: 5"),
        ("digits,shuffle=-1", "shuffle='-1' is not a seed"),
        ("digits,shuffle", "shuffle='' is not a seed"),
    ],
)
def test_wrong_synthetic_sources_are_refused_in_one_line(source, says):
    with pytest.raises(InputError, match=says) as caught:
        images.load(source)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([(kind, key) for kind in KINDS for key in sources.KINDS[kind].keys]),
    st.text(alphabet="0123456789.-e+naif =") | st.floats().map(str) | st.integers().map(str),
)
def test_no_option_ends_in_a_traceback(option, value):
    kind, key = option
    assume(key != "count")  # a large one is honoured, and takes its time
    words = f"size=4,{key}={value},count=2"
    try:
        loaded = images.load(kind + words)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert torch.isfinite(loaded[:]).all()
