"""The recipes of docs/models.md, run as they stand there on networks with the same calls.

Each network holds the exact denoiser of a Gaussian, so that what a recipe makes of it is known.
"""

import re
from pathlib import Path

import pytest
import torch

from twinscore.analysis import calibration
from twinscore.denoisers import load
from twinscore.denoisers.layers import generator_of

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

DOCS = Path(__file__).parents[1] / "docs" / "models.md"

MY_PROJECT = """
import math

import torch
from torch import nn

from twinscore.denoisers.closed_form import Gaussian

draws = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
gaussian = Gaussian.of(torch.full((3, 2, 2), 0.4), draws @ draws.T / 400)


def clean(y, sigma):
    "Of images in [-1, 1]."
    return 2 * gaussian((y + 1) / 2, sigma / 2) - 1


class EDMPrecond(nn.Module):
    "D = c_skip x + c_out F(c_in x, ln(sigma) / 4), of float32 F, as EDM writes it."

    def __init__(self, label_dim=0, sigma_data=0.5):
        super().__init__()
        self.label_dim, self.sigma_data = label_dim, sigma_data
        self.scale = nn.Parameter(torch.ones(1))

    def model(self, x, noise_labels, class_labels):
        sigma = torch.exp(4 * noise_labels)
        s = self.sigma_data
        level = sigma.view(-1, 1, 1, 1)
        y = x * (level**2 + s**2).sqrt()
        c_skip, c_out = s**2 / (level**2 + s**2), level * s / (level**2 + s**2).sqrt()
        shift = 0 if class_labels is None else class_labels.argmax(1).view(-1, 1, 1, 1) - 7
        return self.scale * (clean(y, sigma) + shift - c_skip * y) / c_out

    def forward(self, x, sigma, class_labels=None, force_fp32=False, **model_kwargs):
        x = x.to(torch.float32)
        sigma = sigma.to(torch.float32).reshape(-1, 1, 1, 1)
        if self.label_dim and class_labels.shape[1] != self.label_dim:
            raise ValueError("one row of label_dim numbers for each image")
        s = self.sigma_data
        c_skip = s**2 / (sigma**2 + s**2)
        c_out = sigma * s / (sigma**2 + s**2).sqrt()
        c_in = 1 / (s**2 + sigma**2).sqrt()
        c_noise = sigma.log() / 4
        F_x = self.model(c_in * x, c_noise.flatten(), class_labels)
        return c_skip * x + c_out * F_x


class UNetModel(nn.Module):
    "The noise and a learned variance, of sqrt(abar) y and whole timesteps."

    def __init__(self, betas, classes=None):
        super().__init__()
        self.abar, self.classes = torch.cumprod(1 - betas, 0), classes
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x, timesteps, y=None):
        if (y is not None) != (self.classes is not None):
            raise ValueError("must specify y if and only if the model is class-conditional")
        if y is not None and y.dtype != torch.long:
            raise TypeError("classes are whole numbers")
        abar = self.abar[timesteps.round().long()].view(-1, 1, 1, 1).to(x)
        level = ((1 - abar) / abar).sqrt()
        noisy = x / abar.sqrt()
        noise = (noisy - clean(noisy, level.flatten())) / level
        shift = 0 if y is None else (y - 7).view(-1, 1, 1, 1)
        return self.scale * torch.cat([noise + shift, torch.full_like(noise, 9.0)], dim=1)


def cosine_betas(steps=1000):
    "One by one, as guided-diffusion does."
    bar = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = [min(1 - bar((i + 1) / steps) / bar(i / steps), 0.999) for i in range(steps)]
    return torch.tensor(betas, dtype=torch.float64)


NETWORKS = {
    "edm.pt": lambda: EDMPrecond(),
    "edm-classes.pt": lambda: EDMPrecond(label_dim=10),
    "guided.pt": lambda: UNetModel(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)),
    "guided-cosine.pt": lambda: UNetModel(cosine_betas(), classes=10),
}


def load_network(name):
    return NETWORKS[name]()
"""
RECIPES = {
    "edm.py": ("unconditional", "of_class_7"),
    "guided.py": ("linear", "cosine_of_class_7"),
}


@pytest.fixture
def recipes(tmp_path):
    """The files that the page shows, by its own words, beside the project that they load from."""
    blocks = re.findall(r"```python\n(# (\w+\.py)\n.*?)```", DOCS.read_text(), flags=re.S)
    for text, name in blocks:
        (tmp_path / name).write_text(text)
    (tmp_path / "my_project.py").write_text(MY_PROJECT)
    return tmp_path


def exact():
    space = {}
    exec(MY_PROJECT, space)
    return space["gaussian"], space["UNetModel"], space["cosine_betas"]


@pytest.mark.parametrize(("file", "name"), [(f, n) for f, names in RECIPES.items() for n in names])
def test_a_recipe_gives_the_denoiser_that_the_network_holds(recipes, file, name):
    model = load(f"{recipes / file}:{name}")
    gaussian, _, cosine_betas = exact()
    assert not any(part.training for part in model.denoiser.modules())
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    betas = cosine_betas() if "cosine" in name else betas
    abar = torch.cumprod(1 - betas, 0)
    times = torch.tensor([20, 100, 250, 500, 800])
    sigma = ((1 - abar) / abar).sqrt()[times].float() / 2  # in our units; on the table's levels
    x = 0.4 + 0.2 * torch.randn(5, 3, 2, 2, generator=generator_of(1))
    y = x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator_of(2))
    with torch.no_grad():
        off = model(y, sigma) - gaussian(y, sigma)
    # float32 sums, times sigma
    assert (off.abs().amax((1, 2, 3)) <= 1e-5 * sigma.clamp(min=1)).all()


@pytest.mark.parametrize(("file", "name"), [(f, n) for f, names in RECIPES.items() for n in names])
def test_a_recipe_passes_the_check(recipes, file, name):
    model = load(f"{recipes / file}:{name}")
    gaussian, *_ = exact()
    root = gaussian.components * gaussian.variances.clamp(min=0).sqrt()
    z = torch.randn(64, 12, generator=generator_of(3), dtype=torch.float64)
    x = (gaussian.mean.double().flatten() + z @ root.T).float().view(-1, 3, 2, 2)
    sigmas = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    assert calibration.fault(calibration.fits(model.denoiser, x, sigmas, 0), sigmas) is None


def test_the_wrong_class_is_seen_by_the_network_itself(recipes):
    """The networks shift what they return for any class but 7."""
    file = recipes / "edm.py"
    file.write_text(file.read_text().replace("torch.eye(10)[7]", "torch.eye(10)[5]"))
    right, wrong = (load(f"{file}:{name}") for name in ("unconditional", "of_class_7"))
    y = torch.full((2, 3, 2, 2), 0.5)
    torch.testing.assert_close(wrong(y, 0.1), right(y, 0.1) - 1, rtol=0, atol=1e-5)


def test_every_recipe_of_the_page_is_tried(recipes):
    found = {f: re.findall(r"^def (\w+)\(\):", (recipes / f).read_text(), re.M) for f in RECIPES}
    assert {f: tuple(names) for f, names in found.items()} == RECIPES
