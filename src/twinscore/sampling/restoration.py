"""Linear inverse problems: denoisers that also know a measurement, for any sampler to follow.

A sampler follows the density whose posterior mean its denoiser gives. Conditioning the denoiser
on ``m = A x + tau n`` therefore turns every sampler of this room into one of ``p(x | m)``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, denoise
from twinscore.sampling.operators import Operator

Conditioned = Callable[[Tensor, float | Tensor], Tensor]


def projected(denoiser: Denoiser, operator: Operator, measurement: Tensor) -> Conditioned:
    """Published rule for noiseless measurements: correct the measured part of the estimate.

    Kadkhodaie & Simoncelli 2021 replace ``d = f(y) - y`` by ``(I - M M') d + M (m - M' y)`` with
    orthonormal ``M = A'``; that is ``d`` of the denoiser ``f + A' (m - A f)``. Run it with
    :func:`reverse_diffusion`, started at :func:`completed`. A heuristic: even for Gaussian data
    its samples are not from the exact posterior.

    Parameters
    ----------
    denoiser : Denoiser
        Any denoiser.
    operator : Operator
        With ``A A' = I``.
    measurement : Tensor
        (B, m), or (1, m) for all images of a batch.

    Returns
    -------
    callable
        ``(y, sigma) -> (B, C, H, W)``, every result with exactly these measurements.

    Raises
    ------
    ValueError
        If the operator is not orthonormal, or the measurement of the wrong size.
    """
    if not operator.orthonormal:
        raise ValueError("projected needs an operator with A A' = I; use conditioned instead")
    _require(operator, measurement)

    def estimate(y: Tensor, sigma: float | Tensor) -> Tensor:
        x_hat = denoise(denoiser, y, sigma)
        return x_hat + operator.adjoint(measurement - operator.measure(x_hat))

    return estimate


def completed(operator: Operator, measurement: Tensor, mean: Tensor | float) -> Tensor:
    """``(I - A' A) mean + A' m``: the mean with its measured part corrected, (B, C, H, W)."""
    _require(operator, measurement)
    whole = torch.zeros(len(measurement), *operator.shape).to(measurement) + mean
    return whole + operator.adjoint(measurement - operator.measure(whole))


@dataclass(frozen=True)
class Solves:
    """How well the linear systems of :func:`conditioned` were solved; filled by its calls.

    Attributes
    ----------
    residuals : list of float
        Worst relative residual of each call, over the images of its batch.
    """

    residuals: list[float]


def conditioned(
    denoiser: Denoiser,
    operator: Operator,
    measurement: Tensor,
    *,
    noise_level: float = 0.0,
    ridge: float = 0.0,
    iterations: int = 20,
    tolerance: float = 1e-4,
    solves: Solves | None = None,
) -> Conditioned:
    """Posterior mean of ``x`` given ``y`` *and* ``m = A x + tau n``, for any operator.

    ``f + sigma^2 J A' S^-1 (m - A f)`` with ``S = sigma^2 (A J A' + ridge) + tau^2``. Without a
    ridge it is exact where ``x`` given ``y`` is Gaussian, with mean ``f(y)`` and covariance
    ``sigma^2 J(y)``, as for Gaussian data; otherwise it uses the first two moments of ``x`` given
    ``y``. ``J`` acts by reverse products, ``S^-1`` by conjugate gradients.

    Parameters
    ----------
    denoiser : Denoiser
        Differentiable by autograd.
    operator : Operator
        Any linear operator.
    measurement : Tensor
        (B, m), or (1, m) for all images of a batch.
    noise_level : float
        tau, standard deviation of the measurement's noise, image units.
    ridge : float
        Added to the eigenvalues of ``A J A'``, which are those of a covariance over ``sigma^2``:
        0 for exact denoisers; for networks, whose Jacobian is neither symmetric nor non-negative,
        a small positive number keeps directions that they treat as certain from blowing up.
    iterations : int
        Largest number of steps of conjugate gradients.
    tolerance : float
        Relative residual at which they stop.
    solves : Solves, optional
        Where to note the residuals reached.

    Returns
    -------
    callable
        ``(y, sigma) -> (B, C, H, W)``. Cost: one evaluation and at most ``iterations + 1`` reverse
        products; memory: one differentiated evaluation.

    Raises
    ------
    ValueError
        If the measurement is of the wrong size, or a parameter out of range.
    """
    _require(operator, measurement)
    if not (noise_level >= 0 and ridge >= 0 and iterations >= 1 and tolerance > 0):
        raise ValueError(
            "need noise_level >= 0, ridge >= 0, iterations >= 1 and tolerance > 0; "
            f"got {noise_level}, {ridge}, {iterations}, {tolerance}"
        )

    def estimate(y: Tensor, sigma: float | Tensor) -> Tensor:
        variance = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).square().view(-1, 1)
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            x_hat = denoise(denoiser, point, sigma)

        def spread(u: Tensor) -> Tensor:
            """``sigma^2 J' A' u`` as an image."""
            pulled = torch.autograd.grad(x_hat, point, operator.adjoint(u), retain_graph=True)[0]
            return variance.view(-1, 1, 1, 1) * pulled

        def system(u: Tensor) -> Tensor:
            return operator.measure(spread(u)) + (noise_level**2 + ridge * variance) * u

        missing = measurement - operator.measure(x_hat.detach())
        solution, residual = _conjugate_gradients(system, missing, iterations, tolerance)
        if solves:
            solves.residuals.append(residual)
        return x_hat.detach() + spread(solution)

    return estimate


def _conjugate_gradients(
    system: Callable[[Tensor], Tensor], target: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, float]:
    """Solve ``system(u) = target`` for each row; its best iterate, and the worst of the residuals.

    A row stops where the system is not positive, as can happen with a network's Jacobian.
    """
    solution = best = torch.zeros_like(target)
    residual, direction = target, target
    energy = least = residual.square().sum(1, keepdim=True)
    scale = energy.clamp_min(torch.finfo(energy.dtype).tiny)
    goal = tolerance**2 * energy
    for _ in range(iterations):
        image = system(direction)
        curvature = (direction * image).sum(1, keepdim=True)
        going = (energy > goal) & (curvature > 0)
        if not going.any():
            break
        step = torch.where(going, energy / curvature, 0.0)
        solution, residual = solution + step * direction, residual - step * image
        after = residual.square().sum(1, keepdim=True)
        direction = residual + torch.where(going, after / energy, 0.0) * direction
        energy = after
        best = torch.where(energy < least, solution, best)
        least = torch.minimum(energy, least)
    return best, (least / scale).max().sqrt().item()


def inconsistency(operator: Operator, images: Tensor, measurement: Tensor) -> Tensor:
    """Relative distance ``|A x - m| / |m|`` of each image from its measurement, (B,)."""
    _require(operator, measurement)
    return (operator.measure(images) - measurement).norm(dim=1) / measurement.norm(dim=1)


def _require(operator: Operator, measurement: Tensor) -> None:
    if measurement.ndim != 2 or measurement.shape[1] != operator.size:
        raise ValueError(
            f"measurement must be (B, {operator.size}), got {tuple(measurement.shape)}"
        )
