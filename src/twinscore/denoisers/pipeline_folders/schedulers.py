"""Schedulers of diffusers: what each says of how its network was trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twinscore.denoisers.adapters import Convention, edm, flow_time, tabulated
from twinscore.denoisers.pipeline_folders.reading import Config, diffusers_of, quietly
from twinscore.errors import InputError, one_line


@dataclass(frozen=True)
class Wired:
    """What a scheduler says of the network.

    Attributes
    ----------
    scheduler : object
        The scheduler itself.
    convention : str or Convention
        What the network returns.
    time : callable or None
        Of a noise level; None is the convention's.
    low : float
        Lowest intensity.
    """

    scheduler: Any
    convention: str | Convention
    time: Callable[[Tensor], Tensor] | None
    low: float


def _table(scheduler: Any) -> Callable[[Tensor], Tensor]:
    """Times of a scheduler's own noise levels, ``sqrt((1 - abar) / abar)``."""
    kept = scheduler.alphas_cumprod.double()
    return tabulated(torch.sqrt((1 - kept) / kept), range(len(kept)))


def _preserving(scheduler: Any, config: Config) -> Wired:
    names = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "velocity"}
    kind = config.get("prediction_type", "epsilon")
    if kind not in names:
        raise InputError(f"prediction_type {kind!r} is not known; known are {', '.join(names)}")
    if kind == "epsilon" and config.get("rescale_betas_zero_snr"):
        raise InputError(
            "prediction_type epsilon with rescale_betas_zero_snr: at the last time the image is "
            "noise alone, and predicting it says nothing of a clean one; it takes v_prediction"
        )
    if config.get("use_flow_sigmas") or config.get("timestep_type") == "continuous":
        raise InputError(
            f"{config['_class_name']} with other times than those of its table is not known; "
            "known are FlowMatchEulerDiscreteScheduler and EDMEulerScheduler"
        )
    return Wired(scheduler, names[kind], _table(scheduler), -1.0)


def _edm(scheduler: Any, config: Config) -> Wired:
    signs = {"epsilon": 1.0, "v_prediction": -1.0}
    kind = config.get("prediction_type", "epsilon")
    if kind not in signs:
        raise InputError(f"prediction_type {kind!r} is not known; known are {', '.join(signs)}")
    return Wired(scheduler, edm(config.get("sigma_data", 0.5), signs[kind]), None, -1.0)


def _exploding(scheduler: Any, config: Config) -> Wired:
    return Wired(scheduler, "score", None, 0.0)


def _flow(scheduler: Any, config: Config) -> Wired:
    time = flow_time(config.get("num_train_timesteps", 1000))
    return Wired(scheduler, "flow", time, -1.0)


def _consistency(scheduler: Any, config: Config) -> Wired:
    raise InputError(
        "is a consistency model, which returns one sample that fits the noisy image, not the mean "
        "of all; draw samples with its pipeline, and audit them"
    )


SCHEDULERS: dict[str, Callable[[Any, Config], Wired]] = {
    **dict.fromkeys(
        (
            *("DDPMScheduler", "DDIMScheduler", "PNDMScheduler"),
            *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
            *("HeunDiscreteScheduler", "DPMSolverMultistepScheduler"),
            *("DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
        ),
        _preserving,
    ),
    "EDMEulerScheduler": _edm,
    "ScoreSdeVeScheduler": _exploding,
    "FlowMatchEulerDiscreteScheduler": _flow,
}
_NO_DENOISERS = {"CMStochasticIterativeScheduler": _consistency, "LCMScheduler": _consistency}


def wired(config: Config) -> Wired:
    """What a scheduler's configuration says of the network.

    Raises
    ------
    InputError
        If it is none of those known, or it says what cannot be used.
    """
    name = config.get("_class_name")
    known = SCHEDULERS | _NO_DENOISERS
    if name not in known:
        raise InputError(
            f"{name} is not a scheduler that is known; known are {', '.join(SCHEDULERS)}"
        )
    diffusers = diffusers_of()
    try:
        with quietly(diffusers.logging):
            scheduler = getattr(diffusers, name).from_config(config)
    except Exception as error:
        raise InputError(f"its scheduler cannot be made: {one_line(error)}") from None
    return known[name](scheduler, config)
