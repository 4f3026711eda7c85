"""How far the verdict of a transition run depends on the sampler.

    python benchmarks/verdict_samplers.py RUN [--quick]

RUN is the folder of a finished transition run with one replicate (`make demo`). Both twins of every
N are sampled again, from the run's own seeds, with each sampler, and compared by the study's own
rule.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from twinscore import images, runs
from twinscore.denoisers import load
from twinscore.experiments import chosen_split, comparison, standards, transition
from twinscore.experiments.trials import distinct
from twinscore.results.base import dashed
from twinscore.sampling import SamplingSpec
from twinscore.sampling.samples import draw

SAMPLERS = {
    "standard": SamplingSpec(),
    "draft": SamplingSpec(quality="draft"),
    "exact": SamplingSpec(quality="exact"),
    "Euler, 60 steps": SamplingSpec(solver="euler", steps=60),
    "ancestral, 60 steps": SamplingSpec(method="ancestral", steps=60),
    "Langevin, 30 steps": SamplingSpec(method="langevin", steps=30),
    "reverse diffusion": SamplingSpec(method="stochastic", sigma_max=1.0, h0=0.1, beta=0.3),
}


def measures(trial: Path, seeds: np.ndarray, spec: SamplingSpec) -> comparison.Measures:
    """What the run measured on a trial, with samples of another sampler."""
    stored = load_file(next(trial.glob("measures-*.safetensors")))
    samples, unfinished = draw(load(trial), seeds, spec, batch=128)
    return stored | {"samples": samples, "unfinished": np.array([unfinished])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--quick", action="store_true", help="64 samples, three samplers")
    arguments = parser.parse_args()
    spec = json.loads((arguments.run / "spec.json").read_text())
    fields = transition.Spec.model_fields
    asked = transition.Spec(**{name: value for name, value in spec.items() if name in fields})
    data = images.load(spec["data"])
    count = 64 if arguments.quick else spec["samples"]
    seeds = np.array([runs.derive_seed(spec["seed"], "image", i) for i in range(count)])
    chosen = dict(list(SAMPLERS.items())[:3]) if arguments.quick else SAMPLERS
    keep = distinct(asked.compared, asked.duplicate_threshold)
    lists = chosen_split.listed(asked, data, keep)
    standard = standards.standard(asked, data, keep)
    print("   N  sampler               verdict          M                   G")
    for n in spec["sizes"]:
        split = chosen_split.twins(asked, data, keep, lists, n, 0)
        for name, sampler in chosen.items():
            pair = []
            for twin in "ab":
                [trial] = (arguments.run / "trials").glob(f"n{n:05d}-{twin}-*")
                pair.append(measures(trial, seeds, sampler))
            level, _, _ = comparison.compare(data, [tuple(pair)], [split], asked.seed, standard)
            print(
                f"{n:4d}  {name:20s}  {level.verdict:15s}  {level.memorisation.text():18s}"
                f"  {dashed(level.agreement):18s}  {level.why}",
                flush=True,
            )


if __name__ == "__main__":
    main()
