"""What is measured on twins: PSNR and likelihood of images, and samples from shared noise.

Of a study whose spec has ``seed``, ``samples``, ``sampling`` and ``training``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis.denoising import psnr_table
from twinscore.denoisers import Checkpoint
from twinscore.execution import Report
from twinscore.experiments.folders import remembered
from twinscore.experiments.trials import Trial, open_images
from twinscore.runs import derive_seed
from twinscore.sampling.bits import LikelihoodSpec, bits_per_dimension
from twinscore.sampling.samples import draw
from twinscore.training import single_device
from twinscore.training.history import SIGMAS


def noise_seeds(spec: Any, replicate: int = 0) -> NDArray[np.int64]:
    """Seed of the noise of each sample, (S,): replicates are independent, their noise too."""
    own = (replicate,) if replicate else ()
    return np.array([derive_seed(spec.seed, "image", i, *own) for i in range(spec.samples)])


def key(spec: Any, trial: Trial) -> dict[str, Any]:
    """What the measures depend on besides the weights."""
    return {
        "seeds": noise_seeds(spec, trial.replicate).tolist(),
        "sampling": spec.sampling.resolved.model_dump(exclude={"quality"}),
        "test": trial.test.tolist(),
        "sigmas": SIGMAS,
    }


def measure(spec: Any, trial: Trial, model: Checkpoint, report: Report) -> dict[str, NDArray]:
    """Measure one twin.

    Returns
    -------
    dict
        ``psnr_train``, ``psnr_test``: (K, T) dB at ``SIGMAS``, of T images of its own training set
        (repeated if it is smaller, each time with other noise) and of the test set; ``samples``:
        (S, C, H, W), as drawn; ``unfinished``: (1,), samples whose path was lost, which are black.
    """
    device, batch = single_device(trial.device).device, spec.training.batch
    denoiser, images = model.on(device), open_images(trial.source)
    seed = derive_seed(trial.seed, "psnr", trial.replicate)
    rows = {"train": np.resize(trial.indices, len(trial.test)), "test": trial.test}
    own = {"seed": seed, "batch": batch}
    curves = {
        f"psnr_{part}": psnr_table(denoiser, images[of].to(device), SIGMAS, **own).numpy()
        for part, of in rows.items()
    }
    seeds = noise_seeds(spec, trial.replicate)
    samples, unfinished = draw(model, seeds, spec.sampling, batch=batch, device=device)
    return curves | {"samples": samples, "unfinished": np.array([unfinished])}


def bits_of(
    trial: Trial, model: Checkpoint, spec: LikelihoodSpec, report: Report
) -> dict[str, NDArray]:
    """Bits per dimension of the first images of a trial, or what was computed; stored beside it.

    Returns
    -------
    dict
        ``bits/train`` and ``bits/test``, (L,) each; nothing if ``spec`` leaves them out.
    """
    if not spec.images:
        return {}
    trained = trial.training.sigma_max
    parts = {"train": trial.indices[: spec.images], "test": trial.test[: spec.images]}
    key = spec.model_dump() | {"sigma_max": spec.highest(trained)}
    key |= {name: rows.tolist() for name, rows in parts.items()}

    def compute() -> dict[str, NDArray]:
        images, device = open_images(trial.source), single_device(trial.device).device
        return {
            name: bits_per_dimension(
                model.on(device),
                images[rows].to(device),
                images[trial.indices],
                spec,
                trained=trained,
                seed=derive_seed(trial.seed, "likelihood", trial.replicate),
                batch=trial.training.batch,
            )
            for name, rows in parts.items()
        }

    own = {"of": trial.seal, "report": report}
    found = remembered(trial.path, "likelihood", key, compute, **own)
    return {f"bits/{name}": values for name, values in found.items()}
