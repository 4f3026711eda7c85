"""Draw the pictures of docs/images.md: eight images of every built-in source and class.

python docs/gallery.py
"""

from pathlib import Path

import matplotlib.pyplot as plt

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


def draw(sources: tuple[str, ...], path: Path) -> None:
    """Save a row of images for each source, spread over the source."""
    figure, axes = plt.subplots(
        len(sources), ACROSS, figsize=(7, 0.83 * len(sources)), squeeze=False, layout="constrained"
    )
    for row, source in zip(axes, sources, strict=True):
        loaded = images.load(source)
        chosen = range(0, len(loaded), len(loaded) // ACROSS)
        for axis, image in zip(row, loaded[list(chosen)[:ACROSS]], strict=True):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
        row[0].set_title(source, loc="left", fontsize=8, family="monospace")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    figures = Path(__file__).parent / "figures"
    draw(SOURCES, figures / "sources.png")
    draw(CLASSES, figures / "classes.png")
