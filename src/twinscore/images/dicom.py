"""DICOM files, by pydicom: the window, the polarity and the depth that they state, frame by frame.

Tags and formulas are those of the DICOM standard, PS3.3: rescaling C.11.1, windows C.11.2.1.2.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinscore.errors import InputError, one_line
from twinscore.images.extras import require
from twinscore.images.levels import Levels
from twinscore.images.pictures import (
    Picture,
    corrupt,
    require_few,
    require_picture_file,
)
from twinscore.images.stored import MAX_UNPACKED
from twinscore.images.transforms import Options

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_HEADER = ("Rows", "Columns", "NumberOfFrames", "PatientID", "StudyInstanceUID")
_GRAY = ("MONOCHROME1", "MONOCHROME2")


def scan(path: Path, options: Options) -> tuple[int, str | None]:
    """How many frames a file holds, and the patient, or else the study, if it names either.

    There are none where it holds no pixels, as a report or a directory does. InputError when
    pydicom is not installed; pydicom raises nearly anything on broken files.
    """
    header = _dataset(path, stop_before_pixels=True, specific_tags=list(_HEADER))
    frames = int(header.get("NumberOfFrames") or 1) if "Rows" in header else 0
    if not 0 <= frames <= path.stat().st_size:
        raise ValueError(f"it declares {frames} frames")
    names = (str(header.get(name) or "").strip() for name in ("PatientID", "StudyInstanceUID"))
    return frames, next((name for name in names if name), None)


def read(path: Path, options: Options) -> Iterator[Picture]:
    """Read all frames of a file.

    With ``options.window``, or else the window that the file states, they are rescaled values
    (Hounsfield units of a CT, say); with ``options.depth``, or where there is no window, what is
    stored. Numbers with a sign are then counted from the lowest that their bits can hold.

    Raises
    ------
    CorruptImageError
        When the file is broken.
    InputError
        When pydicom is not installed, or cannot decode the compression; when the file states a
        window that is no straight line, and none is given.
    """
    require_picture_file(path, most=MAX_UNPACKED)
    try:
        yield from _read(path, options)
    except InputError:
        raise
    except MemoryError:  # the file may be sound
        raise InputError(f"{str(path)!r}: does not fit into memory; make some free") from None
    except Exception as error:  # pydicom raises nearly anything on broken files
        raise corrupt(str(path), one_line(error)) from None


def _read(path: Path, options: Options) -> Iterator[Picture]:
    from pydicom.pixels import iter_pixels

    dataset = _dataset(path)
    _require_decoder(dataset, path)
    require_few(int(dataset.Rows) * int(dataset.Columns), str(path))
    if not int(dataset.Rows) * int(dataset.Columns):
        raise ValueError("its images have no pixels")
    for frame, stored in enumerate(iter_pixels(dataset)):
        if dataset.PhotometricInterpretation in _GRAY:
            yield _gray(stored, dataset, frame, options, path)
        else:
            yield _colour(stored, dataset)


def _dataset(path: Path, **options: Any) -> "Dataset":
    pydicom = require("pydicom", str(path), "medical")
    syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", "")
    if syntax == _DEFLATED:  # its size shows only when it was unpacked
        raise InputError(f"{str(path)!r}: is deflated as a whole ({syntax}); save it uncompressed")
    return pydicom.dcmread(path, **options)


def _require_decoder(dataset: "Dataset", path: Path) -> None:
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        able = get_decoder(syntax).is_available
    except NotImplementedError:
        able = False
    if not able:
        name = f"{syntax.name} ({syntax})" if syntax.name != syntax else str(syntax)
        raise InputError(
            f"{str(path)!r}: is compressed as {name}, which pydicom cannot decode here; "
            "pip install pylibjpeg[all] pyjpegls, or save it uncompressed"
        )


def _gray(
    stored: np.ndarray, dataset: "Dataset", frame: int, options: Options, path: Path
) -> Picture:
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    remarks = ("MONOCHROME1, so that low values are white",) if inverted else ()
    window = options.window
    if window is None and options.depth is None:
        window = _window(dataset, frame, path)
        if window is not None:
            remarks += (f"the window that the file states, {window[0]:g}:{window[1]:g}",)
    if window is not None:
        values = _rescaled(stored, dataset, frame)
        return Picture(values[None], Levels(window=window, inverted=inverted), remarks)
    bits = int(dataset.BitsStored)
    if options.depth is not None or stored.dtype.kind == "f" or bits > 16:
        return Picture(stored[None], Levels(inverted=inverted), remarks)
    if stored.dtype.kind == "i":
        unsigned = np.uint8 if stored.dtype.itemsize == 1 else np.uint16
        stored = (stored.astype(np.int32) + 2 ** (bits - 1)).astype(unsigned)
    slope = float(_field(dataset, frame, "PixelValueTransformationSequence", "RescaleSlope") or 1)
    remarks += (f"no window: the whole range of {bits} bits, stored with a slope of {slope:g}",)
    if dataset.get("VOILUTSequence"):
        remarks += ("a table of display values (VOI LUT) is not applied",)
    return Picture(stored[None], Levels(depth=bits, inverted=inverted), remarks)


def _window(dataset: "Dataset", frame: int, path: Path) -> tuple[float, float] | None:
    """The values that become black and white in the first window a file states; None if none."""
    stated = [
        _field(dataset, frame, "FrameVOILUTSequence", name)
        for name in ("WindowCenter", "WindowWidth", "VOILUTFunction")
    ]
    centre, width, shape = (x[0] if isinstance(x, list | tuple) and x else x for x in stated)
    if centre is None or width is None:
        return None
    centre, width, shape = float(centre), float(width), str(shape or "LINEAR")
    if shape == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if shape not in ("LINEAR", "LINEAR_EXACT") or not width > 0:
        raise InputError(
            f"{str(path)!r}: states a window of shape {shape} and width {width:g}; "
            "add window=LOW:HIGH"
        )
    return centre - width / 2, centre + width / 2


def _rescaled(stored: np.ndarray, dataset: "Dataset", frame: int) -> np.ndarray:
    """Values in the units of the file, from a table or a line."""
    from pydicom.pixels import apply_modality_lut

    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, dataset)
    sequence = "PixelValueTransformationSequence"
    slope = _field(dataset, frame, sequence, "RescaleSlope")
    intercept = _field(dataset, frame, sequence, "RescaleIntercept")
    return stored.astype(np.float64) * float(1 if slope is None else slope) + float(intercept or 0)


def _field(dataset: "Dataset", frame: int, sequence: str, name: str) -> Any:
    """A field of the file, or of one of its frames, or of all of these; None if there is none."""
    if dataset.get(name) not in (None, ""):
        return _plain(dataset.get(name))
    each = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for group in (*each[frame : frame + 1], *shared[:1]):
        for item in (group.get(sequence) or ())[:1]:
            if item.get(name) not in (None, ""):
                return _plain(item.get(name))
    return None


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value


def _colour(stored: np.ndarray, dataset: "Dataset") -> Picture:
    from pydicom.pixels import apply_color_lut

    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim != 3 or stored.shape[2] not in (3, 4):
        kind = dataset.PhotometricInterpretation
        raise ValueError(f"{kind} pixels of shape {stored.shape}")
    return Picture(stored[..., :3].transpose(2, 0, 1))
