"""Draw the figures of docs/sampling.md: one held-out image restored by every task.

    twinscore transition --spec photos-32 --out runs/photos-32
    python docs/restoration.py runs/photos-32 600 9

Arguments: a run, the size N whose twin A restores, and which of the run's test images is restored.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from twinscore import images
from twinscore.experiments import restore
from twinscore.report import page, style

FRACTIONS = {
    "inpainting": 0.2,
    "random_pixels": 0.4,
    "super_resolution": 0.25,
    "deblurring": 0.4,
    "compressive_sensing": 0.4,
}


def held_out(run: Path, number: int, path: Path) -> None:
    """Write a test image of the run, on which no twin was trained, as a picture."""
    with (run / "images.csv").open(newline="") as file:
        rows = [int(row["index"]) for row in csv.DictReader(file) if row["role_0"] == "test"]
    data = images.load(json.loads((run / "spec.json").read_text())["data"])
    pixels = data[rows[number]][0].numpy()
    Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(path)


def main(run: Path, size: int, number: int) -> None:
    figures = Path(__file__).parent / "figures"
    [model] = (run / "trials").glob(f"n{size:05d}-a-*")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "image.png"
        held_out(run, number, picture)
        for task, fraction in FRACTIONS.items():
            for rule in ("conditioned", "projected"):
                spec = restore.Spec(
                    model=str(model), image=str(picture), task=task, fraction=fraction, rule=rule
                )
                done = restore.run(spec, Path(folder) / f"{task}-{rule}", device="cpu")
                result = done.result
                median = np.median([score.psnr for score in result.samples])
                print(
                    f"| {task.replace('_', ' ')} | {rule} "
                    f"| {result.measurements} of {np.prod(result.shape)} "
                    f"| {result.measured.psnr:.1f} | {median:.1f} | {result.mean.psnr:.1f} "
                    f"| {result.mean.ssim:.2f} | {result.inconsistency:.1e} |",
                    flush=True,
                )
                if rule == "conditioned":
                    drawn = page.figures(done.folder)["restored"]
                    (figures / f"restore-{task}.png").write_bytes(style.png(drawn))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
