"""Where sampling should start: contrast and similarities of samples against sampling.sigma_max.

    python benchmarks/start.py RUN [--quick]

RUN is the folder of a finished transition run (`make demo`). For the smallest and the largest N it
samples both twins from the same 256 seeds, starting at several noise levels, and prints the
samples' contrast relative to the data (standard deviation of an image's pixels), the similarities
and the fraction memorised.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch

from twinscore import denoisers, images, sampling
from twinscore.analysis import memorization, similarity


def contrast(x: torch.Tensor) -> float:
    return x.flatten(1).std(1).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--quick", action="store_true", help="two starts only")
    arguments = parser.parse_args()
    spec = json.loads((arguments.run / "spec.json").read_text())
    data = images.load(spec["data"])
    with (arguments.run / "images.csv").open(newline="") as file:
        roles = [row["role_0"] for row in csv.DictReader(file)]
    rank = {role: index for index, role in enumerate(roles) if role[:1] in "ab" and role[1:]}
    z = sampling.noise(range(256), data.shape)
    print("   N  start  contrast    twins  nearest A  nearest B  copied A  copied B")
    for n in (min(spec["sizes"]), max(spec["sizes"])):
        trained = {t: data[np.array([rank[f"{t}{i}"] for i in range(n)])] for t in "ab"}
        for start in (1.0, 2.0) if arguments.quick else (1.0, 1.5, 2.0, 3.0, 4.0):
            x = {}
            for twin in "ab":
                [folder] = (arguments.run / "trials").glob(f"n{n:05d}-{twin}-*")
                model = denoisers.load(folder)
                mean = torch.tensor(model.mean).view(-1, 1, 1)
                x[twin] = sampling.probability_flow(model.denoiser, z, mean=mean, sigma_max=start)
            near = [similarity.nearest(x[t], trained[t])[0].median().item() for t in "ab"]
            copied = [memorization.copied(x[t], trained[t]).float().mean().item() for t in "ab"]
            twins = similarity.cosine_similarity(x["a"], x["b"]).median().item()
            print(
                f"{n:4d}  {start:5.1f}  {contrast(x['a']) / contrast(data[:]):8.2f}  {twins:7.3f}"
                f"  {near[0]:9.3f}  {near[1]:9.3f}  {copied[0]:8.2f}  {copied[1]:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
