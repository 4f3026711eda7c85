"""Draw the figures of docs/sampling.md: one held-out digit restored by every task.

python docs/restoration.py runs/demo
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from twinscore import images
from twinscore.experiments import restore
from twinscore.report import restore as report
from twinscore.report import style

FRACTIONS = {
    "inpainting": 0.2,
    "random_pixels": 0.4,
    "super_resolution": 0.25,
    "deblurring": 0.4,
    "compressive_sensing": 0.4,
}
TEST_IMAGE = 3


def held_out(run: Path, path: Path) -> None:
    """Write a test image of the run, on which no twin was trained, as a picture."""
    with (run / "images.csv").open(newline="") as file:
        rows = [int(row["index"]) for row in csv.DictReader(file) if row["role_0"] == "test"]
    pixels = images.load("digits")[rows[TEST_IMAGE]][0, 0].numpy()
    Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(path)


def main(run: Path) -> None:
    figures = Path(__file__).parent / "figures"
    [model] = (run / "trials").glob("n00800-a-*")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "digit.png"
        held_out(run, picture)
        for task, fraction in FRACTIONS.items():
            for rule in ("conditioned", "projected"):
                spec = restore.Spec(
                    model=str(model), image=str(picture), task=task, fraction=fraction, rule=rule
                )
                done = restore.run(spec, Path(folder) / f"{task}-{rule}", device="cpu")
                result = done.result
                median = np.median([score.psnr for score in result.samples])
                print(
                    f"| {task.replace('_', ' ')} | {rule} | {result.measurements} of 64 "
                    f"| {result.measured.psnr:.1f} | {median:.1f} | {result.mean.psnr:.1f} "
                    f"| {result.mean.ssim:.2f} | {result.inconsistency:.1e} |",
                    flush=True,
                )
                if rule == "conditioned":
                    drawn = report.figures(done.folder)["restored"]
                    (figures / f"restore-{task}.png").write_bytes(style.png(drawn))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
