"""Real images that are already installed: digits, faces, and photographs cut to patches."""

from importlib.resources import as_file, files

import numpy as np

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet, from_pixels
from twinscore.images.pictures import decode
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
TEXTURES = ("brick", "grass", "gravel")
_FACES = ("skimage", "data/lfw_subset.npy")
_PATCH = 32


def load_digits(body: str, options: Options) -> ImageSet:
    """Load scikit-learn's handwritten digits: 1797 gray images of 8x8, levels k/16.

    Labels are the digits 0 to 9; ``body`` is not used. Resized digits are float32, since 17 levels
    are too few to round to. InputError when the crop is larger than 8.

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

    Patches are uint8, one channel, with names like ``astronaut/r03c05``; ``size`` is their side, 32
    by default, and ``crop`` keeps the centre of each photograph before it is reduced. Their groups
    are by default (``groups=half``) the left and right halves of the photographs, so that twins can
    be split with no shared half, yet see similar scenes; with ``groups=photograph`` twins see no
    photograph in common. ``body`` is not used. InputError when a photograph is not installed or
    smaller than the crop, no patch fits, or ``groups`` is neither.
    """
    grouping = options.extra.get("groups", "half")
    if grouping not in ("half", "photograph"):
        raise InputError(f"'photos': groups={grouping!r}; give half or photograph")
    names, patches = _patches("photos", tuple(PHOTOGRAPHS), options)
    groups = [photograph for photograph, _, _ in names]
    if grouping == "half":
        groups = _halves(names)
    return from_pixels(patches, names=[_patch_name(*name) for name in names], groups=groups)


def _halves(names: list[tuple[str, int, int]]) -> list[str]:
    last = {}
    for photograph, _, column in names:
        last[photograph] = max(last.get(photograph, 0), column)
    return [
        f"{photograph}/{'left' if 2 * column < last[photograph] else 'right'}"
        for photograph, _, column in names
    ]


def load_textures(body: str, options: Options) -> ImageSet:
    """Cut the brick, grass and gravel that come with scikit-image into gray patches.

    Reduced and cut like :func:`load_photos`, of which they are a part, with its options and errors.
    Names are like ``brick/r03c05``; the group is the texture, the label its number: brick 0, grass
    1, gravel 2.
    """
    names, patches = _patches("textures", TEXTURES, options)
    groups = [texture for texture, _, _ in names]
    return from_pixels(
        patches,
        names=[_patch_name(*name) for name in names],
        labels=np.array([TEXTURES.index(texture) for texture in groups]),
        groups=groups,
    )


def load_faces(body: str, options: Options) -> ImageSet:
    """Load the 100 gray faces of 25x25 pixels that come with scikit-image, without labels.

    They are cut from the photographs of *Labeled Faces in the Wild*; who they show is not recorded.
    scikit-image holds them as floats, which are rounded to multiples of 1/255 (uint8). ``body`` is
    not used. InputError when the faces are not installed, or the crop is larger than 25.

    Huang, Mattar, Lee and Learned-Miller, Learning to Align from Scratch, NeurIPS 2012.
    """
    package, where = _FACES
    with as_file(files(package) / where) as path:
        if not path.exists():
            raise InputError(f"'faces': they are not in the installed {package}: {where}")
        faces = np.load(path)[:100, None]
    pixels = np.rint(255 * faces).astype(np.uint8)
    return from_pixels(transform_all(pixels, 255.0, options, "'faces'"))


def _patches(
    source: str, photographs: tuple[str, ...], options: Options
) -> tuple[list[tuple[str, int, int]], np.ndarray]:
    """Photograph, row and column of each patch, and the patches (N, 1, size, size)."""
    side = options.size or _PATCH
    patches: list[np.ndarray] = []
    names: list[tuple[str, int, int]] = []
    for photograph in photographs:
        reduced = _reduced(source, photograph, options.crop)
        for row in range(reduced.shape[0] // side):
            for column in range(reduced.shape[1] // side):
                top, left = row * side, column * side
                patches.append(reduced[top : top + side, left : left + side])
                names.append((photograph, row, column))
    if not patches:
        raise InputError(f"{source!r}: no patch of size={side} fits into any photograph; give less")
    return names, np.stack(patches)[:, None]


def _patch_name(photograph: str, row: int, column: int) -> str:
    return f"{photograph}/r{row:02d}c{column:02d}"


def _reduced(source: str, photograph: str, crop: int | None) -> np.ndarray:
    package, where = PHOTOGRAPHS[photograph]
    with as_file(files(package) / where) as path:
        if not path.exists():
            raise InputError(f"{source!r}: {photograph} is not in the installed {package}: {where}")
        image = luma(decode(path).pixels)
    gray = transform(image, 255.0, Options(crop=crop), f"{source!r}: {photograph}")[0]
    height, width = gray.shape[0] // 2, gray.shape[1] // 2
    blocks = gray[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
