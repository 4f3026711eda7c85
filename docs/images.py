"""Draw the pictures of docs/images.md: eight images of every built-in source and class.

python docs/images.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from twinscore import images

SOURCES = ("digits", "photos", "faces", "textures", "photos,shuffle=0")
CLASSES = (
    "c_alpha:alpha=1",
    "c_alpha:alpha=2",
    "c_alpha:alpha=4",
    "c_alpha:alpha=1,filter=regularity",
    "c_alpha:alpha=1,antialias",
    "c_alpha:alpha=3,constant",
    "discs:",
    "field:spectrum=2",
    "field:spectrum=4",
    "mixture:",
    "subspace:",
)
ACROSS = 8


def strip(source: str) -> np.ndarray:
    """Images spread over the source, side by side with a white gap: (H, W')."""
    loaded = images.load(source)
    chosen = list(range(0, len(loaded), len(loaded) // ACROSS))[:ACROSS]
    gap = max(1, loaded.shape[2] // 10)
    tiles = np.pad(loaded[chosen][:, 0].numpy(), ((0, 0), (0, 0), (0, gap)), constant_values=1)
    return np.concatenate(list(tiles), axis=1)[:, :-gap]


def draw(sources: tuple[str, ...], path: Path) -> None:
    """Save a row of images for each source."""
    figure, axes = plt.subplots(
        len(sources), 1, figsize=(6.5, 0.95 * len(sources)), squeeze=False, layout="constrained"
    )
    for axis, source in zip(axes[:, 0], sources, strict=True):
        axis.imshow(strip(source), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(source, loc="left", fontsize=8, family="monospace", pad=3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    figures = Path(__file__).parent / "figures"
    draw(SOURCES, figures / "sources.png")
    draw(CLASSES, figures / "classes.png")
