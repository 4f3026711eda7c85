"""The search of the best basis, against brute force."""

import numpy as np
import pytest
import torch

from twinscore.denoisers.layers import generator_of
from twinscore.denoisers.shrinkage import BandletBasis, Bandlets, Wavelets, oracle_risk

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def cost_of(basis, x, threshold, geometry_cost):
    """Of each image of a batch, whose coefficients are all transformed together."""
    capped = basis.forward(x).square().clamp_max(threshold**2).flatten(1).sum(1)
    directed = sum((choice >= 0).flatten(1).sum(1) for choice in basis.choices.values())
    return capped + geometry_cost * threshold**2 * directed


def divisions(side, least, directions):
    """All divisions of a square into those that follow a direction, down to sides of ``least``.

    For each side a map of directions, -1 for none, of every division: (N, side/s, side/s).
    """
    if side == least:
        return {side: np.arange(-1, directions).reshape(-1, 1, 1)}
    quarter = divisions(side // 2, least, directions)
    four = np.indices((len(quarter[least]),) * 4).reshape(4, -1)
    found = {}
    for s, maps in quarter.items():
        a, b, c, d = maps[four]
        whole = -np.ones((directions, side // s, side // s), dtype=int)
        found[s] = np.concatenate([np.block([[a, b], [c, d]]), whole])
    split = -np.ones((four.shape[1], 1, 1), dtype=int)
    return found | {side: np.concatenate([split, np.arange(directions).reshape(-1, 1, 1)])}


def test_divisions_are_all_there_are():
    """Of the smallest square 2 directions or none; of the next 3^4, or 2 directions of its own."""
    assert divisions(2, 2, 2)[2].ravel().tolist() == [-1, 0, 1]
    found = divisions(4, 2, 2)
    together = {
        (*small.ravel(), *large.ravel()) for small, large in zip(*found.values(), strict=True)
    }
    assert len(together) == len(found[2]) == 3**4 + 2
    assert all(large < 0 or set(small) == {-1} for *small, large in together)


def least_cost(x, threshold, geometry_cost, wavelets, directions, sides, bands):
    """Least of all bases that divide some bands, in every way, and leave the others plain."""
    size, parts = x.shape[-1], [divisions(side, sides[0], directions) for *_, side in bands]
    combined = np.indices([len(options[sides[0]]) for options in parts]).reshape(len(parts), -1)
    least = np.inf
    for chosen in np.array_split(combined, -(-combined.shape[1] // 4096), axis=1):
        count = chosen.shape[1]
        choices = {s: -np.ones((count, 1, size // s, size // s), dtype=int) for s in sides}
        for (row, column, side), options, chosen_here in zip(bands, parts, chosen, strict=True):
            for s, maps in options.items():
                rows, columns = (slice(at // s, (at + side) // s) for at in (row, column))
                choices[s][:, 0, rows, columns] = maps[chosen_here]
        maps = {s: torch.from_numpy(choice) for s, choice in choices.items()}
        basis = BandletBasis(wavelets, directions, maps)
        costs = cost_of(basis, x.expand(count, -1, -1, -1), threshold, geometry_cost)
        least = min(least, costs.min().item())
    return least


def found_and_least(x, geometry_cost, directions, sides, bands):
    """Cost of the basis that is found, the least of all, and that of wavelets."""
    wavelets, threshold = Wavelets("db2"), 0.8
    family = Bandlets(
        geometry_cost=geometry_cost, wavelets=wavelets, directions=directions, sides=sides
    )
    found = cost_of(family.adapted(x, threshold), x, threshold, geometry_cost).item()
    least = least_cost(x, threshold, geometry_cost, wavelets, directions, sides, bands)
    return found, least, oracle_risk(x, threshold, wavelets).item()


BANDS_8 = [(0, 4, 4), (4, 0, 4), (4, 4, 4), (0, 2, 2), (2, 0, 2), (2, 2, 2)]


@pytest.mark.parametrize("geometry_cost", [0.0, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_search_equals_brute_force_over_all_bands_at_once(seed, geometry_cost):
    """17^3 2^3 = 39,304 bases of an 8x8 image, with one direction."""
    x = normal(1, 1, 8, 8, seed=seed)
    found, least, plain = found_and_least(x, geometry_cost, 1, (2, 4), BANDS_8)
    assert found == pytest.approx(least, abs=1e-10)
    assert found < plain


@pytest.mark.parametrize("band", range(3))
def test_the_search_chooses_the_best_of_two_directions(band):
    """All divisions of a band of 4x4 and of one of 2x2: 83 times 3."""
    x = in_bands(8, [BANDS_8[band], BANDS_8[3 + band]], seed=band)
    bands = [BANDS_8[band], BANDS_8[3 + band]]
    found, least, plain = found_and_least(x, 0.2, 2, (2, 4), bands)
    assert found == pytest.approx(least, abs=1e-10)
    assert found < plain


def test_the_search_equals_brute_force_over_three_sides():
    """17^4 + 1 = 83,522 divisions of a band of 8x8 into squares of 8, 4 and 2."""
    band = (8, 8, 8)
    x = in_bands(16, [band], seed=2)
    found, least, plain = found_and_least(x, 0.3, 1, (2, 4, 8), [band])
    assert found == pytest.approx(least, abs=1e-10)
    assert found < plain


def in_bands(size, bands, seed):
    """An image whose coefficients are zero outside some bands, so that nothing is gained there."""
    coefficients, draws = (
        torch.zeros(1, 1, size, size).double(),
        normal(1, 1, size, size, seed=seed),
    )
    for row, column, side in bands:
        area = np.s_[..., row : row + side, column : column + side]
        coefficients[area] = draws[area]
    return Wavelets("db2").inverse(coefficients)
