"""Images from disk: folders of pictures, decoded on all cores straight into packed pixels."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from twinscore.errors import InputError
from twinscore.images.content import kind_of
from twinscore.images.formats import FORMATS, SUFFIXES
from twinscore.images.imageset import ImageSet, from_pixels
from twinscore.images.levels import dark_notes, levelled
from twinscore.images.parallel import for_each
from twinscore.images.pictures import CorruptImageError, Picture, corrupt, decode
from twinscore.images.quiet import quiet
from twinscore.images.scratch import scratch
from twinscore.images.transforms import Options, silent, transform

_HIDDEN = (".", "@eaDir")
"""How names begin that are nobody's pictures: hidden ones, and thumbnails of network drives."""

_SHOWN = 5


class _Found(NamedTuple):
    """A file that holds images: its name, kind, how many they are, and their group."""

    name: str
    kind: str
    number: int = 1
    group: str | None = None


@dataclass(frozen=True)
class _Block:
    """The images of a file, ``(n, C, H, W)``, and what is to be said of them."""

    pixels: np.ndarray
    peak: float
    remarks: tuple[str, ...]


def load_folder(folder: Path, options: Options) -> ImageSet:
    """Load all images under a folder, in the order of their relative POSIX paths.

    Hidden files and folders (a leading dot) and links to folders are skipped, links to files are
    followed. One file per core is decoded at a time; the packed pixels lie in :func:`scratch`.

    Parameters
    ----------
    folder : Path
        Searched recursively for files of :data:`twinscore.images.formats.FORMATS`, by content; for
        those that are none, though their suffix says so, too.
    options : Options
        Applied to every image.

    Returns
    -------
    ImageSet
        Names are the relative paths; of a file with several images, followed by their numbers.
        Groups are the patients of DICOM files and the files of volumes.

    Raises
    ------
    InputError
        When the folder holds no picture, one is corrupt (unless ``skip_corrupt``) or beyond the
        limits of ``pictures.decode``, or they differ in size, depth or number of channels after the
        options were applied. Of several such files the first is named.
    """
    return _load(folder, *_listed(folder), options)


def load_file(path: Path, options: Options) -> ImageSet:
    """Load the picture, or the slices of the volume, in a file; as :func:`load_folder`."""
    return _load(path.parent, [path.name], Counter(), options, called=path)


def picture(path: Path, size: int, *, gray: bool) -> torch.Tensor:
    """Load the central square of a picture, resized: ``(1 or 3, size, size)`` float32 in [0, 1].

    Colour becomes luma if ``gray``; otherwise gray becomes three equal channels. Files and errors
    as ``pictures.decode``.
    """
    options = Options(size=size, gray=gray)
    pixels, peak = intensities(decode(path), options, repr(str(path)))
    image = torch.from_numpy(np.array(pixels, dtype=np.float32)) / peak
    return image if gray else image.expand(3, -1, -1).contiguous()


def intensities(found: Picture, options: Options, name: str) -> tuple[np.ndarray, float]:
    """Apply all options to a picture: ``(C, H, W)``, and the value that means intensity 1.

    InputError as :func:`levelled` and :func:`transform`.
    """
    made = levelled(found.pixels[None], options, name, found.levels)
    return transform(np.asarray(made.pixels[0]), made.peak, options, name), made.peak


def _load(
    folder: Path,
    names: Sequence[str],
    passed: Counter[str],
    options: Options,
    called: Path | None = None,
) -> ImageSet:
    """Load files under a folder; ``called`` is what messages call them all."""
    source = repr(str(called or folder))
    with quiet():
        files = _scanned(folder, names, passed, options)
        notes = _passed_over(source, passed)
        if not files:
            besides = f" ({notes[0].partition(': ')[2]})" if notes else ""
            raise InputError(
                f"{source}: no image in this folder{besides}; it should hold "
                f"{', '.join(FORMATS)} files"
            )
        if options.axis is not None and all(file.kind != "NIfTI" for file in files):
            raise InputError(f"{source}: holds no volume; leave axis={options.axis} out")
        before, first = _first_readable(folder, files, options)
        rest = files[before:]
        ends = np.cumsum([file.number for file in rest])
        pixels = scratch((int(ends[-1]), *first.pixels.shape[1:]), first.pixels.dtype)

        def place(job: int) -> tuple[str, ...] | None:
            file = rest[job]
            try:
                block = first if job == 0 else _read(folder, file, options)
            except CorruptImageError:
                if not options.skip_corrupt:
                    raise
                return None
            _require_same_levels(folder, rest[0].name, first, file.name, block)
            pixels[ends[job] - file.number : ends[job]] = block.pixels
            return block.remarks

        told = for_each(place, len(rest), options.progress)
    good = np.repeat([one is not None for one in told], [file.number for file in rest])
    kept = np.flatnonzero(good)
    for target, row in enumerate(kept if len(kept) < len(good) else []):
        pixels[target] = pixels[row]
    read = [file for file, one in zip(rest, told, strict=True) if one is not None]
    notes += _remarks(source, [one for one in told if one is not None])
    notes += dark_notes(pixels[: len(kept)], first.peak, source)
    return from_pixels(
        pixels[: len(kept)],
        peak=first.peak,
        names=[name for file in read for name in _image_names(file)],
        groups=_groups(read),
        skipped=[file.name for file in files[:before]]
        + [file.name for file, one in zip(rest, told, strict=True) if one is None],
        notes=notes,
    )


def _listed(folder: Path) -> tuple[list[str], Counter[str]]:
    """Names of the files under a folder, and how many links to folders were passed over."""
    names: list[str] = []
    passed: Counter[str] = Counter()
    folders = [""]
    while folders:
        inside = folders.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    if entry.name.startswith(_HIDDEN):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{inside}{entry.name}/")
                    elif Path(entry).is_dir():
                        passed[f"link to a folder ({inside}{entry.name})"] += 1
                    else:
                        names.append(inside + entry.name)
        except OSError as error:
            raise InputError(
                f"{str(folder / inside)!r}: cannot be read: {error.strerror}"
            ) from None
    return sorted(names), passed


def _scanned(
    folder: Path, names: Sequence[str], passed: Counter[str], options: Options
) -> list[_Found]:
    """The files that hold images, by their content; others are counted among ``passed``."""
    files = []
    found = for_each(lambda job: _scan(folder, names[job], options), len(names), silent)
    for name, file in zip(names, found, strict=True):
        if file is None:
            passed[Path(name).suffix.lower() or "without a suffix"] += 1
        elif file.number == 0:
            passed[f"{file.kind} without pixels"] += 1
        elif not name.isascii() and name != name.encode(errors="replace").decode():
            raise InputError(f"{str(folder / name)!r}: its name is not UTF-8; rename it")
        else:
            files.append(file)
    return files


def _scan(folder: Path, name: str, options: Options) -> _Found | None:
    kind = kind_of(folder / name)
    if kind is None:  # reading it will say what is wrong
        return _Found(name, "PNG") if name.lower().endswith(SUFFIXES) else None
    try:
        return _Found(name, kind, *FORMATS[kind].scan(folder / name, options))
    except InputError:
        raise
    except Exception:  # reading it will say what is wrong
        return _Found(name, kind)


def _passed_over(source: str, passed: Counter[str]) -> list[str]:
    """One line on files that were not taken, by suffix; none if there are none."""
    if not passed:
        return []
    shown = [f"{count:,} {kind}" for kind, count in passed.most_common(_SHOWN)]
    more = [f"{len(passed) - _SHOWN} more kinds"] if len(passed) > _SHOWN else []
    return [f"{source}: passed over {', '.join([*shown, *more])}"]


def _remarks(source: str, told: Sequence[tuple[str, ...]]) -> list[str]:
    """One line on what was found in files, with counts; none if nothing was."""
    counts = Counter(remark for remarks in told for remark in remarks)
    if not counts:
        return []
    each = [
        remark if len(told) == 1 else f"{remark} ({count:,} of {len(told):,} files)"
        for remark, count in counts.most_common(_SHOWN)
    ]
    more = [f"{len(counts) - _SHOWN:,} more kinds"] if len(counts) > _SHOWN else []
    return [f"{source}: {'; '.join([*each, *more])}"]


def _image_names(file: _Found) -> Iterable[str]:
    if file.number == 1:
        return [file.name]
    digits = max(3, len(str(file.number - 1)))
    return (f"{file.name}/{k:0{digits}d}" for k in range(file.number))


def _groups(files: Sequence[_Found]) -> list[str] | None:
    if not any(FORMATS[file.kind].grouped for file in files):
        return None
    return [file.group or file.name for file in files for _ in range(file.number)]


def _first_readable(folder: Path, files: Sequence[_Found], options: Options) -> tuple[int, _Block]:
    """The number of corrupt files before the first readable one, and its images."""
    for before, file in enumerate(files):
        try:
            return before, _read(folder, file, options)
        except CorruptImageError:
            if not options.skip_corrupt:
                raise
    raise InputError(f"{str(folder)!r}: all {len(files)} images are corrupt")


def _read(folder: Path, file: _Found, options: Options) -> _Block:
    path = folder / file.name
    remarks: dict[str, None] = {}
    made: list[tuple[np.ndarray, float]] = []
    for one in FORMATS[file.kind].read(path, options):
        made.append(intensities(one, options, repr(str(path))))
        remarks |= dict.fromkeys(one.remarks)
    if len(made) != file.number:
        raise corrupt(str(path), f"it holds {len(made)} of the {file.number} images it declares")
    if len({(image.shape, image.dtype, peak) for image, peak in made}) > 1:
        raise InputError(f"{str(path)!r}: its images differ in size or depth; split the file")
    return _Block(np.stack([image for image, _ in made]), made[0][1], tuple(remarks))


def _require_same_levels(
    folder: Path, first_name: str, first: _Block, name: str, block: _Block
) -> None:
    require_same(folder, first_name, first.pixels[0], name, block.pixels[0])
    if first.peak != block.peak:
        depths = " and ".join(f"{int(one.peak).bit_length()}" for one in (first, block))
        raise InputError(
            f"{str(folder)!r}: {first_name!r} and {name!r} differ in depth ({depths} bits); "
            "add window=LOW:HIGH, or depth=BITS if all are of one"
        )


def require_same(
    folder: Path, first_name: str, first: np.ndarray, name: str, image: np.ndarray
) -> None:
    """Refuse two images (C, H, W) of one source, by name, that cannot stand in one array.

    Raises
    ------
    InputError
        When they differ in channels, depth or size.
    """
    pair = f"{str(folder)!r}: {first_name!r} and {name!r}"
    if first.shape[0] != image.shape[0]:
        kind = {1: "gray", 3: "colour"}
        raise InputError(
            f"{pair} mix gray and colour ({kind[first.shape[0]]} and {kind[image.shape[0]]}); "
            "add the option gray"
        )
    if first.dtype != image.dtype:
        raise InputError(
            f"{pair} differ in depth ({first.dtype} and {image.dtype}); convert them to one"
        )
    if first.shape != image.shape:
        sizes = " and ".join(f"{one.shape[1]}x{one.shape[2]}" for one in (first, image))
        raise InputError(
            f"{pair} differ in size ({sizes}); add size={min(*first.shape[1:], *image.shape[1:])}"
        )
