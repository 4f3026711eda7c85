"""Source strings: ``NAME | path | kind:body``, then ``,key=value``, become image sets.

``digits``, ``photos,size=16``, ``faces/,size=40,gray``, ``pictures.npz,crop=64``. A new kind of
source is one more line in ``KINDS``.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from twinscore.errors import InputError
from twinscore.images.datasets import load_celeba, load_lsun
from twinscore.images.embedded import load_digits, load_faces, load_photos, load_textures
from twinscore.images.hub import load_hub
from twinscore.images.idx import load_idx
from twinscore.images.imageset import ImageSet
from twinscore.images.paths import load_path
from twinscore.images.synthetic import loading
from twinscore.images.synthetic.shuffle import shuffle_pixels
from twinscore.images.tables import load_parquet
from twinscore.images.transforms import Options, silent

_NUMBERS = ("crop", "size")
_SEEDS = ("shuffle",)
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
        Options it takes besides those of every source, handed over as text in ``options.extra``.
    """

    load: Callable[[str, Options], ImageSet]
    keys: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "digits": Kind(load_digits),
    "faces": Kind(load_faces),
    "photos": Kind(load_photos, keys=("groups",)),
    "textures": Kind(load_textures),
    "idx:": Kind(load_idx, keys=("labels",)),
    "parquet:": Kind(load_parquet, keys=("column", "label")),
    "hf:": Kind(load_hub, keys=("split", "config", "column", "label")),
    "celeba:": Kind(load_celeba),
    "lsun:": Kind(load_lsun),
    **{
        kind: Kind(partial(loading.load, kind), keys=tuple(options))
        for kind, (_, options) in loading.CLASSES.items()
    },
}
"""Every source that is not a path. A key that ends with a colon takes a body."""

_PATH = Kind(load_path)


def load(
    source: str | os.PathLike[str], *, progress: Callable[[int, int], None] = silent
) -> ImageSet:
    """Load the images that a source string names.

    Parameters
    ----------
    source : str or path-like
        A name (``digits``, ``photos``, ``faces``, ``textures``), a kind and what it reads or makes
        (``idx:PATH``, ``c_alpha:alpha=2``), or a path to a folder or file that
        :func:`~twinscore.images.paths.load_path` knows; then options, each after a comma:
        ``size=S`` (crop to the central square and resize it to SxS, antialiased; of a synthetic
        class the side that is made), ``crop=S`` (keep the central SxS first), ``gray`` (luma),
        ``skip_corrupt`` (leave out undecodable files, and list them in ``ImageSet.skipped``),
        ``shuffle=SEED`` (permute the pixels last, all images in the same way), and those of its
        kind. Names win over paths: ``./digits`` and ``Path("digits")`` are the folder.
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
    return images if options.shuffle is None else shuffle_pixels(images, options.shuffle)


def parse(source: str | os.PathLike[str]) -> tuple[Kind, str, Options]:
    """Read a source string without loading anything: what loads it, its body, its options.

    The body is the path, the text after ``kind:``, or nothing. A path may itself hold commas: the
    longest beginning that exists is taken. InputError when the name, path or an option does not
    exist, or an option's value is wrong.
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
        if body.partition("=")[0] in (*kind.keys, *_NUMBERS, *_SEEDS, *_FLAGS):
            return kind, "", [body, *words]
        return kind, body, words
    for end in range(len(words), -1, -1):
        path = ",".join([head, *words[:end]])
        if _exists(path):
            return _PATH, path, words[end:]
    raise InputError(
        f"{source!r}: {head!r} is neither a source of images nor an existing path; "
        f"{_choices(head, KINDS, 'sources')}, folders and files of arrays"
    )


def _exists(path: str) -> bool:
    try:
        return path != "" and Path(path).exists()
    except (OSError, ValueError):  # a name that is too long, or that no file system takes
        return False


def _options(source: str, words: list[str], own_keys: tuple[str, ...]) -> Options:
    known = sorted({*_NUMBERS, *_SEEDS, *_FLAGS, *own_keys})
    values: dict[str, int | bool] = {}
    extra: dict[str, str] = {}
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        if key not in known:
            raise InputError(
                f"{source!r}: unknown option {key!r}; {_choices(key, known, 'options')}"
            )
        if key in values or key in extra:
            raise InputError(f"{source!r}: option {key!r} is given twice; give it once")
        if key in own_keys:
            extra[key] = value
        elif key in _FLAGS:
            if equals and value not in ("true", "false"):
                raise InputError(f"{source!r}: {key}={value!r} is not true or false")
            values[key] = value != "false"
        elif key in _SEEDS:
            values[key] = _seed(source, key, value)
        else:
            values[key] = _number(source, key, value)
    return Options(**values, extra=extra)


def _number(source: str, key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) > 0):
        raise InputError(f"{source!r}: {key}={value!r} is not a side in pixels; give {key}=40")
    return int(value)


def _seed(source: str, key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise InputError(f"{source!r}: {key}={value!r} is not a seed; give {key}=0")
    return int(value)


def _choices(given: str, known: Iterable[str], what: str) -> str:
    known = list(known)
    close = get_close_matches(given, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}{what} are {', '.join(known)}"
