"""The random numbers of synthetic images, and C-alpha images."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore.errors import InputError
from twinscore.execution import settled_torch
from twinscore.images.synthetic import CAlpha, c_alpha, stream
from twinscore.images.synthetic.c_alpha import backgrounds, contours, masks

# the stream


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 12), st.integers(0, 2**70))
def test_numbers_depend_on_seed_and_index_only(order, batch, seed):
    for draw in (stream.uniform, stream.normal):
        together = draw(range(12), 33, seed)
        parts = [draw(order[k : k + batch], 33, seed) for k in range(0, 12, batch)]
        assert torch.equal(torch.cat(parts), together[order])


def test_images_seeds_and_what_they_share_have_numbers_of_their_own():
    rows = [stream.normal([index], 50, seed)[0] for seed in (0, 1) for index in (0, 1, 10**6)]
    shared = np.float32(stream.shared(0).standard_normal(50))
    rows.append(torch.from_numpy(shared))
    correlation = torch.corrcoef(torch.stack(rows)) - torch.eye(len(rows))
    assert correlation.abs().max() < 0.6  # 4 standard errors at 50 numbers


def test_uniform_numbers_are_uniform():
    numbers = stream.uniform(range(200), 1000, 3).double().flatten()
    n = len(numbers)
    assert numbers.abs().max() <= 1
    # moments of U[-1, 1]: 0, 1/3, 1/5, within 4 standard errors
    assert abs(numbers.mean()) < 4 * (1 / 3 / n) ** 0.5
    assert abs((numbers**2).mean() - 1 / 3) < 4 * (4 / 45 / n) ** 0.5
    neighbours = (numbers[1:] * numbers[:-1]).mean()
    assert abs(neighbours) < 4 * (1 / 9 / n) ** 0.5


@pytest.mark.parametrize(
    ("indices", "seed", "says"),
    [
        ([0], -1, "seed: -1 is negative"),
        ([3, -2], 0, "indices: -2 is negative"),
        ([0.5], 0, "indices: float64"),
        ([[0]], 0, "indices: int64 of shape"),
    ],
)
def test_wrong_indices_and_seeds_are_refused(indices, seed, says):
    with pytest.raises(InputError, match=says):
        stream.uniform(indices, 2, seed)


# the laws of contours and backgrounds


def mean_and_error(values):
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def slopes(power, k):
    """Least-squares slope of log power against log k, for each row of ``(n, K)``."""
    x = k.double().log()
    x = x - x.mean()
    return (power.log() @ x) / (x @ x)


@pytest.mark.parametrize("filter_name", ["published", "regularity"])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
def test_spectra_fall_as_requested(alpha, filter_name):
    size, n = 80, 200
    a_contour, a_background = CAlpha(alpha=alpha, filter=filter_name).exponents
    shift = 0.0 if filter_name == "published" else 1.0
    assert (a_contour, a_background) == (alpha + shift / 2, alpha + shift)
    k = torch.arange(1, size // 2)  # without 0 and the Nyquist frequency, which are real

    noise = stream.uniform(range(n), size, 5)
    power = torch.fft.fft(contours(noise, a_contour).double()).abs().square()[:, k]
    slope, error = mean_and_error(slopes(power, k))
    assert abs(slope + 2 * a_contour) < 3 * error

    noise = stream.uniform(range(n), 2 * size * size, 6).view(n, size, size, 2)
    fields = backgrounds(noise, a_background).double().movedim(-1, 1).reshape(-1, size, size)
    rows = torch.fft.fftfreq(size, 1 / size)
    radius = torch.hypot(rows[:, None], rows)[:, k]  # columns 1 to N/2 - 1: no frequency twice
    power = torch.fft.fft2(fields).abs().square()[:, :, k]
    slope, error = mean_and_error(slopes(power.flatten(1), radius.flatten()))
    assert abs(slope + 2 * a_background) < 3 * error


def test_contours_spread_as_the_filter_says():
    # Var h = sum_k |k|^-2a / (3 N): white U[-1, 1] noise has variance 1/3
    size, n, a = 40, 4000, 1.5
    heights = contours(stream.uniform(range(n), size, 2), a).double()
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64).abs()
    k[0] = 1
    expected = (k ** (-2 * a)).sum() / (3 * size)
    value, error = mean_and_error(heights.square().mean(1))
    assert abs(value - expected) < 4 * error


# masks and edges


@pytest.mark.parametrize("blur", [1, 2, 3, 4])
def test_masks_average_the_hard_mask_over_squares(blur):
    size = 16
    heights = torch.from_numpy(np.random.default_rng(0).integers(5, 11, (6, size))).float()
    hard = (torch.arange(size)[:, None] >= heights[:, None]).float().unsqueeze(1)
    left, right = blur // 2, (blur - 1) // 2
    columns = F.pad(hard, (left, right, 0, 0), mode="reflect")
    padded = F.pad(columns, (0, 0, left, right), mode="replicate")
    expected = F.avg_pool2d(padded, blur, stride=1)[:, 0]
    torch.testing.assert_close(masks(heights, blur), expected, rtol=0, atol=1e-6)


def test_a_mask_covers_what_lies_below_the_exact_contour():
    heights = 8 + 6 * stream.uniform(range(5), 16, 0)
    uncovered = (1 - masks(heights, 1)).sum(1)
    torch.testing.assert_close(uncovered, heights, rtol=0, atol=1e-5)  # 16 sums in float32


def test_hard_edges_between_flat_backgrounds_leave_two_intensities():
    hard = c_alpha(range(50), CAlpha(size=32, constant=True, blur=1), seed=1)
    assert all(len(image.unique()) == 2 for image in hard)
    smooth = c_alpha(range(50), CAlpha(size=32, constant=True, blur=1, antialias=True), seed=1)
    assert all(len(image.unique()) > 10 for image in smooth)
    assert (hard - smooth).abs().max() <= 1  # the same contours and intensities,
    differ = ((hard - smooth).abs() > 1e-6).double().sum((1, 2, 3))
    assert differ.max() <= 32  # different in at most one pixel of a column


def test_a_very_regular_contour_is_a_sine_of_one_cycle():
    # only |k| <= 1 survives: edges of antialiased flat images follow mean + one cycle
    image = c_alpha([3], CAlpha(size=64, alpha=40.0, constant=True, blur=1, antialias=True))[0, 0]
    low, high = image[-1, 0], image[0, 0]
    heights = ((image.double() - low) / (high - low)).sum(0)
    power = torch.fft.fft(heights).abs()
    assert power[2:-1].max() < 1e-4 * power[1]


# images


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(
        [
            CAlpha(size=80),
            CAlpha(size=43, beta=1.0, blur=3, antialias=True),
            CAlpha(size=9, filter="regularity", constant=True),
        ]
    ),
    st.permutations(range(40)),
    st.integers(1, 40),
)
def test_images_are_the_same_in_any_batch(law, order, batch):
    together = c_alpha(range(40), law, seed=7)
    parts = [c_alpha(order[k : k + batch], law, seed=7) for k in range(0, 40, batch)]
    assert torch.equal(torch.cat(parts), together[order])
    assert together.min() >= 0
    assert together.max() <= 1
    assert not torch.equal(c_alpha(range(3), law, seed=8), together[:3])


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_images_are_the_same_on_any_number_of_threads(size):
    """Workers have fewer threads than the process that addressed the images."""
    made = []
    for threads in (1, 2, 3):
        with settled_torch(threads):
            made.append(c_alpha(range(1024), CAlpha(size=size, antialias=True), seed=1))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"alpha": -1.0}, "alpha: -1.0 is out of range; give a number of 0 or more"),
        ({"alpha": float("nan")}, "alpha: nan"),
        ({"beta": -0.5}, "beta: -0.5 is out of range"),
        ({"beta": float("inf")}, "beta: inf"),
        ({"filter": "wiener"}, "filter: 'wiener' is unknown; give published or regularity"),
        ({"blur": 0}, "blur: 0 is out of range; give 1 to size=80"),
        ({"blur": 81}, "blur: 81"),
        ({"size": 1}, "size: 1"),
    ],
)
def test_impossible_laws_are_refused(values, says):
    with pytest.raises(InputError, match=says):
        CAlpha(**values)


# against the published generator


def statistics(images):
    """Per-image statistics ``(n, 9)``: mean, variance, spectrum in octaves, edges."""
    return torch.cat([_statistics(chunk[:, 0]) for chunk in images.split(20)]).double()


def _statistics(x):
    size = x.shape[-1]
    centred = x - x.mean((1, 2), keepdim=True)
    power = torch.fft.fft2(centred).abs().square().flatten(1) / size**2
    k = torch.fft.fftfreq(size, 1 / size)
    k = torch.hypot(k[:, None], k).flatten()
    octaves = torch.stack([(k >= low) & (k < 2 * low) for low in (1, 2, 4, 8, 16)], 1).float()
    down, right = x.diff(dim=1).abs(), x.diff(dim=2).abs()
    edge_length = (torch.hypot(down[:, :, :-1], right[:, :-1]) > 0.1).float().sum((1, 2))
    variation = down.mean((1, 2)) + right.mean((1, 2))
    means = torch.stack([x.mean((1, 2)), centred.square().mean((1, 2))], 1)
    edges = torch.stack([edge_length, variation], 1)
    return torch.cat([means, power @ (octaves / octaves.sum(0)), edges], 1)


# mean, standard error of each statistic over 2,000 images of the published generator, 80x80, beta =
# alpha, blur 2x2, torch.manual_seed(0)
PUBLISHED = {
    1.0: [
        (0.500506, 0.00249),
        (0.077408, 0.00101),
        (41.0627, 0.638),
        (1.9473, 0.0261),
        (0.29321, 0.00298),
        (0.0470991, 0.000324),
        (0.00785459, 3.16e-05),
        (2064.36, 23.5),
        (0.109349, 0.000699),
    ],
    2.0: [
        (0.500279, 0.0026),
        (0.08369, 0.00102),
        (49.5796, 0.665),
        (2.22409, 0.0218),
        (0.239619, 0.00281),
        (0.025284, 0.000319),
        (0.00278112, 3.71e-05),
        (186.348, 1.24),
        (0.0289292, 0.000118),
    ],
    3.0: [
        (0.500429, 0.00267),
        (0.0888182, 0.001),
        (54.2152, 0.658),
        (2.17971, 0.0221),
        (0.224923, 0.00286),
        (0.0244779, 0.000318),
        (0.00277002, 3.7e-05),
        (173.485, 1.23),
        (0.02224, 7.9e-05),
    ],
}


def disagreement(ours, mean, error):
    own = ours.std(0) / len(ours) ** 0.5
    return ((ours.mean(0) - mean).abs() / torch.hypot(own, error)).max().item()


@pytest.mark.parametrize("alpha", list(PUBLISHED))
def test_statistics_are_those_of_the_published_generator(alpha):
    ours = statistics(c_alpha(range(2000), CAlpha(alpha=alpha)))
    mean, error = torch.tensor(PUBLISHED[alpha], dtype=torch.float64).T
    assert disagreement(ours, mean, error) < 4


def test_a_law_that_differs_a_little_has_other_statistics():
    mean, error = torch.tensor(PUBLISHED[2.0], dtype=torch.float64).T
    for law in (CAlpha(alpha=2.0, blur=3), CAlpha(alpha=2.2), CAlpha(beta=1.8)):
        assert disagreement(statistics(c_alpha(range(1000), law)), mean, error) > 4


@pytest.mark.skipif(
    "TWINSCORE_PUBLISHED_CODE" not in os.environ,
    reason="TWINSCORE_PUBLISHED_CODE, the published repository's code folder, is not set",
)
@pytest.mark.filterwarnings("ignore")
def test_the_published_generator_still_gives_these_statistics(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(os.environ["TWINSCORE_PUBLISHED_CODE"])))
    from synthetic_data_generators import make_C_alpha_images

    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = make_C_alpha_images(2.0, 2.0, im_size=80, num_samples=2000, factor=(2, 2))
    theirs = statistics(theirs)
    mean, error = torch.tensor(PUBLISHED[2.0], dtype=torch.float64).T
    torch.testing.assert_close(theirs.mean(0), mean, rtol=1e-4, atol=0)
    torch.testing.assert_close(theirs.std(0) / 2000**0.5, error, rtol=1e-2, atol=0)
