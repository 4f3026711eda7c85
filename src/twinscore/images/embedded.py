"""Real images that are already installed: scikit-learn's digits, and photographs cut to patches."""

from importlib.resources import as_file, files

import numpy as np

from twinscore.errors import InputError
from twinscore.images.files import decode
from twinscore.images.imageset import ImageSet, from_pixels
from twinscore.images.transforms import Options, luma, transform, transform_all

PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "brick": ("skimage", "data/brick.png"),
    "camera": ("skimage", "data/camera.png"),
    "cell": ("skimage", "data/cell.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "coins": ("skimage", "data/coins.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg"),
    "ihc": ("skimage", "data/ihc.png"),
    "moon": ("skimage", "data/moon.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
_PATCH = 32


def load_digits(body: str, options: Options) -> ImageSet:
    """Load scikit-learn's handwritten digits: 1797 gray images of 8x8, levels k/16.

    Parameters
    ----------
    body : str
        Unused: the source has no body.
    options : Options
        Resized digits are float32, since 17 levels are too few to round to.

    Returns
    -------
    ImageSet
        Labels are the digits 0 to 9.

    Raises
    ------
    InputError
        When the crop is larger than 8.

    References
    ----------
    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998.
    """
    from sklearn.datasets import load_digits as fetch

    bunch = fetch()
    levels = bunch.images[:, None]
    if options.size is None:
        pixels, peak = levels.astype(np.uint8), 16.0
    else:
        pixels, peak = (levels / 16).astype(np.float32), 1.0
    pixels = transform_all(pixels, peak, options, "'digits'")
    return from_pixels(pixels, peak=peak, labels=bunch.target.astype(np.int64))


def load_photos(body: str, options: Options) -> ImageSet:
    """Cut 17 photographs that come with scikit-image and scikit-learn into gray patches.

    Each photograph is converted to luma, cropped if asked, reduced by 2 (means of 2x2 pixels, so
    that a small patch holds some content) and cut on a grid from its top left corner. All patches
    are kept, the nearly constant ones (sky, the dark rim of ``retina``) too. Of the stereo pair
    ``motorcycle`` only the left half is taken. Nothing is downloaded.

    Parameters
    ----------
    body : str
        Unused: the source has no body.
    options : Options
        ``size`` is the side of a patch, 32 by default; ``crop`` keeps the centre of each
        photograph, before it is reduced; ``groups`` is ``half`` (the default) or ``photograph``.

    Returns
    -------
    ImageSet
        uint8, one channel; names like ``astronaut/r03c05``; groups are the left and right halves
        of the photographs, so that twins can be split without a shared half, yet see alike scenes;
        or the photographs, so that twins see no photograph in common.

    Raises
    ------
    InputError
        When a photograph is not installed or smaller than the crop, no patch fits, or ``groups`` is
        neither.
    """
    grouping = options.extra.get("groups", "half")
    if grouping not in ("half", "photograph"):
        raise InputError(f"'photos': groups={grouping!r}; give half or photograph")
    side = options.size or _PATCH
    patches: list[np.ndarray] = []
    names: list[str] = []
    groups: list[str] = []
    for photograph, (package, where) in PHOTOGRAPHS.items():
        reduced = _reduced(photograph, package, where, options.crop)
        for row in range(reduced.shape[0] // side):
            for column in range(reduced.shape[1] // side):
                top, left = row * side, column * side
                patches.append(reduced[top : top + side, left : left + side])
                names.append(f"{photograph}/r{row:02d}c{column:02d}")
                half = "left" if 2 * column + 1 < reduced.shape[1] // side else "right"
                groups.append(f"{photograph}/{half}" if grouping == "half" else photograph)
    if not patches:
        raise InputError(f"'photos': no patch of size={side} fits into any photograph; give less")
    return from_pixels(np.stack(patches)[:, None], names=names, groups=groups)


def _reduced(photograph: str, package: str, where: str, crop: int | None) -> np.ndarray:
    with as_file(files(package) / where) as path:
        if not path.exists():
            raise InputError(f"'photos': {photograph} is not in the installed {package}: {where}")
        image = luma(decode(path))
    gray = transform(image, 255.0, Options(crop=crop), f"'photos': {photograph}")[0]
    height, width = gray.shape[0] // 2, gray.shape[1] // 2
    blocks = gray[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
