"""Turn float images into what a page or a figure can show: 8-bit tiles and PNG sheets."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def to_rgb(images: np.ndarray) -> np.ndarray:
    """Convert images to 8-bit colour.

    Parameters
    ----------
    images
        Float images, shape (N, C, H, W), clipped to [0, 1]. Three channels are red, green and
        blue; any other number is averaged to gray.

    Returns
    -------
    numpy.ndarray
        uint8, shape (N, H, W, 3).
    """
    if images.shape[1] != 3:
        images = images.mean(axis=1, keepdims=True).repeat(3, axis=1)
    levels = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
    return levels.transpose(0, 2, 3, 1)


def sheet(columns: Sequence[np.ndarray]) -> str:
    """Lay images out as one sheet: a column for each array, a row for each of its images.

    Parameters
    ----------
    columns
        Arrays of float images in [0, 1], each of shape (N, C, H, W).

    Returns
    -------
    str
        Data URI of a PNG of N*H by len(columns)*W pixels, gray where every image is.
    """
    tiles = np.stack([to_rgb(column) for column in columns], axis=2)  # (N, H, columns, W, 3)
    count, height, across, width, _ = tiles.shape
    picture = Image.fromarray(tiles.reshape(count * height, across * width, 3))
    if columns[0].shape[1] != 3:
        picture = picture.convert("L")
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def strip(tiles: Sequence[np.ndarray], gap: int) -> np.ndarray:
    """Put images side by side with a transparent gap between them.

    Parameters
    ----------
    tiles
        Float images in [0, 1], each of shape (C, H, W).
    gap
        Pixels between two images.

    Returns
    -------
    numpy.ndarray
        uint8 RGBA, shape (H, len(tiles)*W + (len(tiles)-1)*gap, 4).
    """
    colours = to_rgb(np.stack(list(tiles)))
    opaque = np.pad(colours, [(0, 0)] * 3 + [(0, 1)], constant_values=255)
    spaced = np.pad(opaque, [(0, 0), (0, 0), (0, gap), (0, 0)])
    return np.concatenate(list(spaced), axis=1)[:, : spaced.shape[2] * len(tiles) - gap]


def data_uri(content: bytes, kind: str) -> str:
    """Encode bytes of a media type as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
