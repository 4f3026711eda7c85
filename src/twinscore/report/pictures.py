"""Turn float images into what a page or a figure can show: 8-bit tiles and PNG sheets."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def to_rgb(images: np.ndarray) -> np.ndarray:
    """Convert float images (N, C, H, W) to 8-bit colour, uint8 (N, H, W, 3).

    They are clipped to [0, 1]. Three channels are red, green and blue; any other number is averaged
    to gray.
    """
    if images.shape[1] != 3:
        images = images.mean(axis=1, keepdims=True).repeat(3, axis=1)
    levels = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
    return levels.transpose(0, 2, 3, 1)


def sheet(columns: Sequence[np.ndarray]) -> str:
    """Lay images out as one sheet: a column for each array, a row for each of its images.

    Each array has float images in [0, 1], (N, C, H, W). Gives the data URI of a PNG of N*H by
    len(columns)*W pixels, gray where every image is.
    """
    tiles = np.stack([to_rgb(column) for column in columns], axis=2)  # (N, H, columns, W, 3)
    count, height, across, width, _ = tiles.shape
    picture = Image.fromarray(tiles.reshape(count * height, across * width, 3))
    if columns[0].shape[1] != 3:
        picture = picture.convert("L")
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def gap(width: int) -> int:
    """Pixels between images of this width that stand side by side."""
    return max(1, width // 12)


def strip(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Put float images in [0, 1], (C, H, W), side by side with a transparent gap between them.

    Gives RGBA, uint8 (H, len(tiles)*W + (len(tiles)-1)*gap(W), 4).
    """
    colours, between = to_rgb(np.stack(tiles)), gap(tiles[0].shape[-1])
    opaque = np.pad(colours, [(0, 0)] * 3 + [(0, 1)], constant_values=255)
    spaced = np.pad(opaque, [(0, 0), (0, 0), (0, between), (0, 0)])
    return np.concatenate(list(spaced), axis=1)[:, : spaced.shape[2] * len(tiles) - between]


def data_uri(content: bytes, kind: str) -> str:
    """Encode bytes of a media type as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
