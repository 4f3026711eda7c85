"""Source strings: ``NAME | path | kind:body``, then ``,key=value``, become image sets.

``digits``, ``photos,size=16``, ``faces/,size=40,gray``, ``pictures.npz,crop=64``. A new kind of
source is one more line in ``KINDS``.
"""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from twinscore.errors import InputError
from twinscore.images.datasets import load_celeba, load_lsun
from twinscore.images.embedded import load_digits, load_faces, load_photos, load_textures
from twinscore.images.hub import load_hub
from twinscore.images.idx import load_idx
from twinscore.images.imageset import ImageSet
from twinscore.images.layouts import AXES
from twinscore.images.mirror import with_mirrored
from twinscore.images.name_lists import read_list
from twinscore.images.paths import LEVELS, load_path
from twinscore.images.synthetic import loading
from twinscore.images.synthetic.shuffle import shuffle_pixels
from twinscore.images.tables import load_parquet
from twinscore.images.transforms import Options, silent

_FLAGS = ("gray", "skip_corrupt")


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes
    ----------
    load : callable
        ``load(body, options) -> ImageSet``; the body is the text after the colon, the whole path,
        or empty.
    keys : tuple of str
        Options it takes besides those of every source. Those that :class:`Options` does not have
        are handed over as text in ``options.extra``.
    """

    load: Callable[[str, Options], ImageSet]
    keys: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "digits": Kind(load_digits),
    "faces": Kind(load_faces),
    "photos": Kind(load_photos, keys=("groups",)),
    "textures": Kind(load_textures),
    "idx:": Kind(load_idx, keys=("labels", *LEVELS)),
    "parquet:": Kind(load_parquet, keys=("column", "label", *LEVELS)),
    "hf:": Kind(load_hub, keys=("split", "config", "column", "label", *LEVELS)),
    "celeba:": Kind(load_celeba),
    "lsun:": Kind(load_lsun),
    **{
        kind: Kind(partial(loading.load, kind), keys=tuple(options))
        for kind, (_, options) in loading.CLASSES.items()
    },
}
"""Every source that is not a path. A key that ends with a colon takes a body."""

_PATH = Kind(load_path, keys=("axis", "key", "layout", *LEVELS))
_FILES = {"labels", "only"}
"""Options whose value is a path."""


def load(
    source: str | os.PathLike[str], *, progress: Callable[[int, int], None] = silent
) -> ImageSet:
    """Load the images that a source string names.

    Parameters
    ----------
    source : str or path-like
        A name (``digits``, ``photos``, ``faces``, ``textures``), a kind and what it reads or makes
        (``idx:PATH``, ``c_alpha:alpha=2``), or a path to a folder or file that
        ``images.paths`` knows; then options, each after a comma:
        ``size=S`` (crop to the central square and resize it to SxS, antialiased; of a synthetic
        class the side that is made), ``crop=S`` (keep the central SxS first), ``gray`` (luma),
        ``skip_corrupt`` (leave out undecodable files, and list them in ``ImageSet.skipped``),
        ``augment=mirror`` (every image is followed by its mirrored copy),
        ``shuffle=SEED`` (permute the pixels, all images in the same way), ``only=FILE`` (the
        images that a text file names, a name on a line, in its order), ``first=N`` (the first N of
        what is left), and those of its kind: of files ``depth=BITS`` (bits in use of integers) and
        ``window=LOW:HIGH`` (values that become 0 and 1), of arrays ``layout=NHWC`` and
        ``key=NAME``, of volumes ``axis=0``. Names
        win over paths: ``./digits`` and ``Path("digits")`` are the folder.
    progress : callable
        ``progress(done, total)``, called at intervals while many files are read.

    Raises
    ------
    InputError
        When the string does not name a source, or what it names cannot be used.

    Examples
    --------
    >>> from twinscore import images
    >>> images.load("digits")[[0, 1, 2]].shape
    torch.Size([3, 1, 8, 8])
    """
    kind, body, options = parse(source)
    images = kind.load(body, replace(options, progress=progress))
    name = source.partition(",")[0] if isinstance(source, str) else ""
    if name in KINDS and _exists(name):
        note = f"{name} is the built-in source; what lies here is ./{name}"
        images = replace(images, notes=(*images.notes, note))
    if options.augment == "mirror":
        images = with_mirrored(images)
    if options.shuffle is not None:
        images = shuffle_pixels(images, options.shuffle)
    return _some(images, options, source)


def _some(images: ImageSet, options: Options, source: str | os.PathLike[str]) -> ImageSet:
    """The images that a list names, or all; and the first of them, or all."""
    if options.only is not None:
        images = images.take(read_list(Path(options.only), images))
    if options.first is None:
        return images
    if options.first > len(images):
        raise InputError(
            f"{str(source)!r}: first={options.first} is more than the {len(images)} images"
        )
    return images.take(range(options.first))


def parse(source: str | os.PathLike[str]) -> tuple[Kind, str, Options]:
    """Read a source string without loading anything: what loads it, its body, its options.

    The body is the path, the text after ``kind:``, or nothing. A path may itself hold commas,
    wherever one stands: the longest beginning that exists is taken. InputError when the name, path
    or an option does not exist, or an option's value is wrong.
    """
    if not isinstance(source, str):
        source = os.path.join(os.curdir, source)  # noqa: PTH118  a Path would drop the dot
    kind, body, words = _split(source)
    return kind, body, _options(source, words, kind.keys)


def _split(source: str) -> tuple[Kind, str, list[str]]:
    head, *words = source.split(",")
    if head in KINDS and not head.endswith(":"):
        return KINDS[head], "", words
    prefix, colon, body = head.partition(":")
    if colon and prefix + colon in KINDS:
        kind = KINDS[prefix + colon]
        if body.partition("=")[0] in (*kind.keys, *_READERS, *_FLAGS):
            return kind, "", [body, *words]
        return kind, *_longest(body, words)
    path, rest = _longest(head, words)
    if _exists(path):
        return _PATH, path, rest
    raise InputError(
        f"{source!r}: {head!r} is neither a source of images nor an existing path; "
        f"{_choices(head, KINDS, 'sources')}, folders and files of arrays"
    )


def _longest(head: str, words: list[str]) -> tuple[str, list[str]]:
    """The longest path that exists and begins with a text, or that text; and the words left."""
    for end in range(len(words), 0, -1):
        path = ",".join([head, *words[:end]])
        if _exists(path):
            return path, words[end:]
    return head, words


def _exists(path: str) -> bool:
    try:
        return path != "" and Path(path).exists()
    except (OSError, ValueError):  # a name that is too long, or that no file system takes
        return False


def _options(source: str, words: list[str], own_keys: tuple[str, ...]) -> Options:
    known = sorted({*_EVERY, *_FLAGS, *own_keys})
    values: dict[str, Any] = {}
    extra: dict[str, str] = {}
    while words:
        word, *words = words
        key, equals, value = (part.strip() for part in word.partition("="))
        if key not in known:
            raise InputError(
                f"{source!r}: unknown option {key!r}; {_choices(key, known, 'options')}"
            )
        if key in values or key in extra:
            raise InputError(f"{source!r}: option {key!r} is given twice; give it once")
        if key in _FILES:
            value, words = _longest(value, words)
        if key in _FLAGS:
            if equals and value not in ("true", "false"):
                raise InputError(f"{source!r}: {key}={value!r} is not true or false")
            values[key] = value != "false"
        elif key in _READERS:
            try:
                values[key] = _READERS[key](value)
            except ValueError as error:
                raise InputError(f"{source!r}: {key}={value!r} {error}") from None
        else:
            extra[key] = value
    if {"depth", "window"} <= values.keys():
        raise InputError(f"{source!r}: depth and window exclude each other; give window alone")
    return Options(**values, extra=extra)


def _side(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) > 0):
        raise ValueError("is not a side in pixels; give 40, say")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise ValueError("is not a number of images; give 100, say")
    return int(text)


def _augment(text: str) -> str:
    if text != "mirror":
        raise ValueError("is not a way to augment; give mirror")
    return text


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError("is not a seed; give 0, say")
    return int(text)


def _depth(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and 1 <= int(text) <= 16):
        raise ValueError("is not a number of bits, 1 to 16; give 12, say")
    return int(text)


def _window(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = (0.0, 0.0)
    if not (ends[0] < ends[1] and all(map(math.isfinite, (*ends, ends[1] - ends[0])))):
        raise ValueError("is not LOW:HIGH, two numbers, the lower one first; give -160:240, say")
    return ends


def _layout(text: str) -> str:
    letters = set(text)
    if len(letters) != len(text) or not {"H", "W"} <= letters <= set(AXES):
        raise ValueError("does not name axes by N, C, H and W, each once; give NHWC, say")
    return text


def _axis(text: str) -> int:
    if text not in ("0", "1", "2"):
        raise ValueError("is not an axis of a volume; give 0, 1 or 2")
    return int(text)


_EVERY = ("augment", "crop", "first", "only", "shuffle", "size")
_READERS: dict[str, Callable[[str], Any]] = {
    "augment": _augment,
    "axis": _axis,
    "crop": _side,
    "depth": _depth,
    "first": _count,
    "layout": _layout,
    "only": str,
    "shuffle": _seed,
    "size": _side,
    "window": _window,
}
"""What reads the value of each option; ValueError says what is wrong."""


def _choices(given: str, known: Iterable[str], what: str) -> str:
    known = list(known)
    close = get_close_matches(given, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}{what} are {', '.join(known)}"
