"""Make the folders of docs/audit.md: photographs, and samples of which some are copies.

    python docs/audit_example.py FOLDER

Writes FOLDER/train, FOLDER/held-out and FOLDER/samples: patches of 32x32 of the photographs that
come with the package. Of some 230 samples, 15 repeat a training image: as it is, mirrored, moved,
brighter, or one tile of it in another picture. The others are patches of neither set.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from twinscore import images

TRAIN, HELD_OUT, SAMPLES, COPIES = 300, 300, 250, 15


def copied(image: np.ndarray, other: np.ndarray, way: int) -> np.ndarray:
    """An image of (32, 32), repeated in one of five ways."""
    mosaic = other.copy()
    mosaic[:16, 16:] = image[:16, 16:]
    moved = other.copy()
    moved[4:, :-4] = image[:-4, 4:]
    return (image, image[:, ::-1], moved, np.clip(0.2 + 0.8 * image, 0, 1), mosaic)[way % 5]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    photos = images.load("photos,size=32")
    pixels = photos[np.flatnonzero(~images.near_duplicates(photos, 0.9).drop)].numpy()[:, 0]
    pixels = pixels[pixels.std((1, 2)) > 0.05]
    pixels = np.random.default_rng(0).permutation(pixels)
    train, held_out, samples = np.split(pixels, [TRAIN, TRAIN + HELD_OUT])
    samples = samples[:SAMPLES]
    for way in range(COPIES):
        samples[way] = copied(train[way], samples[way], way)
    for name, part in {"train": train, "held-out": held_out, "samples": samples}.items():
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(part):
            picture = Image.fromarray(np.rint(255 * image).astype(np.uint8))
            picture.save(folder / name / f"{i:04d}.png")
    print(
        f"{len(train)} training images, {len(held_out)} held-out, {len(samples)} samples: {folder}"
    )


if __name__ == "__main__":
    main()
