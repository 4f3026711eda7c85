r"""Discs: a manifold of images with five parameters, in closed form.

.. math:: x(q) = b + (f - b)\,\Phi(\varphi(q)/w),\qquad
          \varphi(q) = \frac{r^2 - \|q - c\|^2}{2r},

at pixel q, for the centre c, radius r, foreground f and background b. :math:`\varphi` is the
distance to the edge, positive inside, up to second order in it, and unlike it smooth at the centre.
:math:`\Phi` is the normal distribution function (an erf profile) and w the edge's width. So x
depends smoothly on all five parameters (docs/formulas.md#discs).
"""

import math

import torch

from twinscore.errors import InputError
from twinscore.images.synthetic import stream

PARAMETERS = ("centre row", "centre column", "radius", "foreground", "background")
"""The columns of a table of parameters; the first three in pixels, whole at a pixel's centre."""


def discs(
    indices: stream.Indices,
    *,
    size: int = 80,
    radius: tuple[float, float] | None = None,
    edge: float = 1.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make discs of random parameters, rendered on ``device``.

    Parameters and errors as for :func:`sample_parameters` and :func:`render`.

    Returns
    -------
    images : torch.Tensor
        ``(n, 1, size, size)`` float32 in [0, 1].
    parameters : torch.Tensor
        ``(n, 5)`` float32, the exact ones: :func:`render` makes the same images of them.

    Examples
    --------
    >>> from twinscore.images import synthetic
    >>> discs, parameters = synthetic.discs(range(4), size=16)
    >>> discs.shape, parameters.shape
    (torch.Size([4, 1, 16, 16]), torch.Size([4, 5]))
    """
    parameters = sample_parameters(indices, size=size, radius=radius, seed=seed).float().to(device)
    return render(parameters, size, edge=edge), parameters


def sample_parameters(
    indices: stream.Indices,
    *,
    size: int = 80,
    radius: tuple[float, float] | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Draw the parameters of discs that fit into the image, ``(n, 5)`` float64 on the CPU.

    The seed and its index determine a disc. The radius is uniform between the two given, in pixels
    (by default a tenth and four tenths of the side); given the radius, the centre is uniform where
    the disc fits; foreground and background are uniform in [0, 1]. InputError when the size is less
    than 1, the largest disc does not fit, or the smallest is empty.
    """
    draws = torch.empty(len(indices), 5, dtype=torch.float64)
    for row, generator in zip(draws, stream.generators(indices, seed), strict=True):
        generator.random(out=row.numpy())
    return parameters_at(draws, size=size, radius=radius)


def parameters_at(
    draws: torch.Tensor, *, size: int = 80, radius: tuple[float, float] | None = None
) -> torch.Tensor:
    """Turn uniform numbers into parameters: the law and the errors of :func:`sample_parameters`.

    ``draws``, ``(n, 5)`` in [0, 1], are where the centre lies in its range, the radius, the
    intensities; the parameters have their shape, dtype and device.
    """
    if size < 1:
        raise InputError(f"size: {size} is out of range; give at least 1")
    least, most = (0.1 * size, 0.4 * size) if radius is None else radius
    if not 0 < least <= most <= size / 2:
        raise InputError(
            f"radius: discs of {least:g} to {most:g} pixels do not fit into {size}x{size}; "
            f"give 0 < least <= largest <= {size / 2:g}"
        )
    radii = least + (most - least) * draws[:, 2:3]
    centres = radii - 0.5 + (size - 2 * radii) * draws[:, :2]
    return torch.cat([centres, radii, draws[:, 3:]], dim=1)


def render(parameters: torch.Tensor, size: int, *, edge: float = 1.0) -> torch.Tensor:
    """Draw discs, ``(B, 1, size, size)``, of parameters ``(B, 5)``, see ``PARAMETERS``.

    Dtype and device are those of the parameters. ``edge`` is the width w of the edge in pixels: the
    standard deviation of its erf profile. InputError when a disc does not fit into the image, or a
    value is out of its range.
    """
    _require_fit(parameters, size, edge)
    foreground, background = parameters[:, 3:, None, None].unbind(1)
    inside = torch.special.ndtr(_depth(parameters, size)[0] / edge)
    return (background + (foreground - background) * inside).unsqueeze(1)


def tangents(parameters: torch.Tensor, size: int, *, edge: float = 1.0) -> torch.Tensor:
    """Differentiate the image in each parameter; parameters and errors as for :func:`render`.

    ``(B, 5, 1, size, size)``, per pixel or per unit of intensity, in the order of
    ``PARAMETERS``. They span the tangent space: of dimension 5 where foreground and background
    differ, else 2.
    """
    _require_fit(parameters, size, edge)
    radius, foreground, background = parameters[:, 2:, None, None].unbind(1)
    depth, rows, columns = _depth(parameters, size)
    inside = torch.special.ndtr(depth / edge)
    slope = torch.exp(-((depth / edge) ** 2) / 2) / (edge * math.sqrt(2 * math.pi))
    step = (foreground - background) * slope
    in_radius = 0.5 + (rows**2 + columns**2) / (2 * radius**2)
    by_parameter = [step * rows / radius, step * columns / radius, step * in_radius]
    return torch.stack([*by_parameter, inside, 1 - inside], dim=1).unsqueeze(2)


def _depth(parameters: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The distance to the edge, ``(B, H, W)``, and the offsets from the centre."""
    row, column, radius = parameters[:, :3, None, None].unbind(1)
    at = torch.arange(size, dtype=parameters.dtype, device=parameters.device)
    rows, columns = at[:, None] - row, at - column
    return (radius**2 - rows**2 - columns**2) / (2 * radius), rows, columns


def _require_fit(parameters: torch.Tensor, size: int, edge: float) -> None:
    if not 1e-3 <= edge <= size:
        raise InputError(f"edge: {edge} is out of range; give 0.001 to {size} pixels")
    if parameters.ndim != 2 or parameters.shape[1] != 5 or not parameters.is_floating_point():
        raise InputError(
            f"parameters: {parameters.dtype} of shape {tuple(parameters.shape)}; "
            f"give floats of shape (B, 5): {', '.join(PARAMETERS)}"
        )
    centres, radius, intensities = parameters.split([2, 1, 2], dim=1)
    slack = 1e-5 * size
    margin = torch.minimum(centres + 0.5, size - 0.5 - centres)
    fits = ((radius > 0) & (margin >= radius - slack)).all(1)
    in_range = ((intensities >= 0) & (intensities <= 1)).all(1)
    for fine, wrong in (
        (fits, f"does not fit into {size}x{size}; give 0 < radius <= distance to the border"),
        (in_range, "has an intensity outside [0, 1]"),
    ):
        if not fine.all():
            first = int((~fine).nonzero()[0])
            values = ", ".join(f"{value:g}" for value in parameters[first].tolist())
            raise InputError(f"parameters: disc {first} ({values}) {wrong}")
