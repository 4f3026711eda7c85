"""How samples are drawn from a denoiser: every choice that changes them."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from twinscore.errors import InputError
from twinscore.limits import Sigma

QUALITIES: dict[str, dict[str, Any]] = {
    "draft": {"method": "flow", "solver": "dpm", "steps": 10},
    "standard": {"method": "flow", "solver": "dpm", "steps": 20},
    "exact": {"method": "flow", "solver": "dpm", "steps": 100},
}
"""What each quality means; chosen by measurement (docs/sampling.md)."""


class SamplingSpec(BaseModel):
    """How samples are drawn from a denoiser."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    quality: Literal["draft", "standard", "exact"] = "standard"
    """Stands for a method, solver and steps; each of them, where given, goes before."""
    method: Literal["own", "flow", "ancestral", "langevin", "stochastic"] | None = None
    """The pipeline's own sampler (the default of diffusers:); or one of ours: deterministic
    probability flow; ancestral sampling; the flow with Langevin corrections; or the stochastic
    reverse diffusion of the main study."""
    solver: Literal["dpm", "heun", "euler"] | None = None
    """flow: second order, one evaluation a step; second order, two; first order, one."""
    steps: int | None = Field(default=None, ge=1, le=10**6)
    """Noise levels (but not of the stochastic method, which chooses its own steps); of a pipeline's
    own sampler its steps (default: as many as it takes by itself)."""
    rho: float = Field(default=7.0, ge=0.1, le=1000)
    """Noise levels are evenly spaced in sigma^(1/rho)."""
    sigma_max: Sigma = 2.0
    """Noise level at which sampling starts, image units. A bias-free network may start above the
    levels it was trained on; one that is not should start at the largest of them."""
    sigma_min: Sigma = 0.01
    """Noise level at which sampling ends, image units."""
    h0: float = Field(default=0.01, ge=1e-6, le=1)
    """stochastic: first step size."""
    beta: float = Field(default=0.1, ge=1e-6, le=1)
    """stochastic: 1 adds no noise, less adds more."""
    max_steps: int = Field(default=2000, ge=1, le=10**6)
    """stochastic: steps after which a path counts as not converged."""

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min {self.sigma_min:g} is not below sigma_max {self.sigma_max:g}"
            )
        return self

    @property
    def resolved(self) -> "SamplingSpec":
        """The same with method, solver and steps in place of the quality; for a denoiser alone.

        InputError where a pipeline's own sampler is asked for.
        """
        if self.method == "own":
            raise InputError(f"--sampling.method: own is the sampler of a pipeline; {_OURS}")
        preset = QUALITIES[self.quality]
        return self.model_copy(
            update={name: getattr(self, name) or value for name, value in preset.items()}
        )

    def settled(self, own_steps: int | None) -> "SamplingSpec":
        """How a model is drawn from: by default by its pipeline's own sampler, if it has one.

        ``own_steps`` is how many steps that takes by itself; None without one.

        Raises
        ------
        InputError
            If the model has no sampler of its own, or what is given belongs to ours.
        """
        if own_steps is None or self.method not in (None, "own"):
            return self.resolved
        steps = self.steps or own_steps
        settled = SamplingSpec(method="own", steps=steps)
        for name in type(self).model_fields:
            if name not in ("method", "steps") and getattr(self, name) != getattr(settled, name):
                raise InputError(
                    f"--sampling.{name.replace('_', '-')}: the pipeline's own sampler does not "
                    "take it; leave it out, or add --sampling.method flow for ours"
                )
        return settled


_OURS = "this model has none; give flow, ancestral, langevin or stochastic"


def evaluations(spec: SamplingSpec) -> float:
    """Evaluations of the denoiser that a sample takes.

    Of the stochastic method as many as bring a noise level, which a step multiplies by
    ``1 - beta h``, from the first to the last; a path that does not converge takes more. Of a
    pipeline's own sampler, settled, one for each step.
    """
    if spec.method == "own":
        return float(spec.steps)
    spec = spec.resolved
    if spec.method == "stochastic":
        sigma, step = spec.sigma_max, 1
        while sigma > spec.sigma_min and step < spec.max_steps:
            sigma *= 1 - spec.beta * spec.h0 * step / (1 + spec.h0 * (step - 1))
            step += 1
        return step + 1.0
    twice = spec.method == "langevin" or (spec.method == "flow" and spec.solver == "heun")
    return 2.0 * spec.steps - 1 if twice else float(spec.steps)
