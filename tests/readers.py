"""A small sound input for every reader of images, made on the spot, and what it holds."""

import gzip
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from PIL import Image, features

from twinscore.images import from_pixels, packed

GRAY = np.random.default_rng(0).integers(0, 256, (3, 6, 7), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (3, 6, 7, 3), dtype=np.uint8)
LOSSY = 80
"""By how much a level of noise may change in a lossy file that is asked for its best."""


@dataclass(frozen=True)
class Sample:
    """An input of a reader.

    ``write(folder)`` makes the files and returns the one to damage; ``source`` names the images in
    that folder, which are ``expected``, (N, C, H, W), to ``tolerance`` levels of 255.
    """

    write: Callable[[Path], Path]
    source: str
    expected: np.ndarray
    tolerance: float = 0.01


def put(name, content):
    def write(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content() if callable(content) else content)
        return path

    return write


def written(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def npy(array):
    return written(lambda file: np.save(file, array))


def idx(array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def picture(kind, **options):
    def content():
        return written(lambda file: Image.fromarray(COLOUR[0]).save(file, kind, **options))

    lossy = kind in ("JPEG", "AVIF", "GIF")
    shown = COLOUR[:1].transpose(0, 3, 1, 2)
    return Sample(put("pictures/a", content), "pictures", shown, LOSSY if lossy else 0.01)


def arrays(suffix, content):
    return Sample(put(f"a{suffix}", content), f"a{suffix}", COLOUR.transpose(0, 3, 1, 2))


def table():
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.table({"image": COLOUR.tolist(), "label": [0, 1, 2]})
    return written(lambda file: pq.write_table(rows, file))


def dicom(pixels, syntax="1.2.840.10008.1.2.1", **fields):
    """A DICOM file of ``(frames, H, W)`` or ``(H, W)`` gray, or ``(H, W, 3)`` colour."""
    from pydicom.dataset import Dataset, FileMetaDataset

    data, colour = Dataset(), pixels.ndim == 3 and pixels.shape[2] == 3
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    data.StudyInstanceUID, data.PatientID = "1.2.3", "anna"
    data.Rows, data.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    if pixels.ndim == 3 and not colour:
        data.NumberOfFrames = len(pixels)
    data.SamplesPerPixel = 3 if colour else 1
    if colour:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in fields.items():
        setattr(data, name, value)
    data.HighBit = data.BitsStored - 1
    return written(lambda file: data.save_as(file, enforce_file_format=True))


def nifti(volume, slope=None, intercept=None):
    """A NIfTI file of a volume, with a slope and an intercept if they are given."""
    import nibabel

    image = nibabel.Nifti1Image(volume, np.eye(4))
    content = image.to_bytes()
    if slope is None:
        return content
    return content[:112] + struct.pack("<ff", slope, intercept) + content[120:]


def packed_file(folder):
    path = folder / "packed.safetensors"
    packed.write(path, from_pixels(COLOUR.transpose(0, 3, 1, 2).copy(), groups=["a", "a", "b"]))
    return path


def celeba(folder):
    for k, pixels in enumerate(COLOUR):
        put(
            f"celeba/img_align_celeba/{k:06d}.png",
            written(lambda file, pixels=pixels: Image.fromarray(pixels).save(file, "PNG")),
        )(folder)
    put("celeba/identity_CelebA.txt", "".join(f"{k:06d}.png 7\n" for k in range(3)).encode())(
        folder
    )
    rows = "".join(f"{k:06d}.png 1 -1\n" for k in range(3))
    return put("celeba/list_attr_celeba.txt", f"3\nMale Smiling\n{rows}".encode())(folder)


def saved_data_set(folder):
    from datasets import Dataset

    Dataset.from_dict({"image": COLOUR.tolist()}).save_to_disk(str(folder / "saved"))
    return next((folder / "saved").glob("*.arrow"))


def contents():
    """One sample for each of :data:`twinscore.images.content.CONTENTS`."""
    found = {
        "PNG": picture("PNG"),
        "JPEG": picture("JPEG", quality=100, subsampling=0),
        "WEBP": picture("WEBP", lossless=True),
        "TIFF": picture("TIFF", compression="tiff_lzw"),
        "PPM": picture("PPM"),
        "BMP": picture("BMP"),
        "GIF": picture("GIF"),
        "JPEG2000": picture("JPEG2000"),
        "DICOM": Sample(put("scans/a", lambda: dicom(GRAY)), "scans", GRAY[:, None]),
        "NIfTI": Sample(
            put("brains/a", lambda: gzip.compress(nifti(GRAY.transpose(1, 2, 0)))),
            "brains",
            GRAY[:, None],
        ),
        "AVIF": picture("AVIF", quality=100, subsampling="4:4:4"),
    }
    return found if features.check("avif") else {k: v for k, v in found.items() if k != "AVIF"}


def endings():
    """One sample for each of :data:`twinscore.images.paths.READERS`."""
    tensors = {"images": torch.from_numpy(COLOUR)}
    raw, deflated = idx(COLOUR), gzip.compress(idx(COLOUR))
    return {
        ".npy": arrays(".npy", npy(COLOUR)),
        ".npz": arrays(".npz", written(lambda file: np.savez(file, images=COLOUR))),
        ".pt": arrays(".pt", written(lambda file: torch.save(tensors, file))),
        ".pth": arrays(".pth", written(lambda file: torch.save(tensors["images"], file))),
        ".safetensors": arrays(".safetensors", safetensors.numpy.save({"images": COLOUR})),
        "-ubyte": arrays("-ubyte", raw),
        "-ubyte.gz": arrays("-ubyte.gz", deflated),
        ".idx": arrays(".idx", raw),
        ".idx.gz": arrays(".idx.gz", deflated),
        ".parquet": arrays(".parquet", table),
    }


def kinds():
    """One sample for each of :data:`twinscore.images.sources.KINDS` that reads files."""
    shown = COLOUR.transpose(0, 3, 1, 2)
    return {
        "idx:": Sample(put("b", idx(COLOUR)), "idx:b", shown),
        "parquet:": Sample(put("rows", table), "parquet:rows", shown),
        "hf:": Sample(saved_data_set, "hf:saved", shown),
        "celeba:": Sample(celeba, "celeba:celeba,crop=6,size=6", shown[..., :6]),
        "lsun:": Sample(
            put("lsun/a.png", _png),
            "lsun:lsun,crop=6,size=6",
            shown[:1, :, :6, :6],
        ),
    }


def _png():
    return written(lambda file: Image.fromarray(COLOUR[0]).save(file, "PNG"))


def others():
    """Files that only what they hold, not their name, sets apart from those above."""
    shown = COLOUR.transpose(0, 3, 1, 2)
    deflated = written(lambda file: np.savez_compressed(file, images=COLOUR))
    deep = (GRAY[0].astype(np.float64) / 255).astype(np.float64)
    return {
        "packed": Sample(packed_file, "packed.safetensors", shown),
        "deflated.npz": arrays(".npz", deflated),
        "multi-frame RLE": Sample(put("rle/a.dcm", rle), "rle", GRAY[:, None]),
        "plain.nii": Sample(
            put("brains/a.nii", lambda: nifti(GRAY.transpose(1, 2, 0))), "brains", GRAY[:, None]
        ),
        "float64 TIFF": Sample(put("deep/a.tif", float_tiff(deep)), "deep", GRAY[:1, None]),
    }


def rle():
    from pydicom import dcmread

    data = dcmread(io.BytesIO(dicom(GRAY)))
    data.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    return written(lambda file: data.save_as(file))


def float_tiff(pixels):
    import tifffile

    return written(lambda file: tifffile.imwrite(file, pixels))


def everything():
    """Every sample by a name."""
    return contents() | endings() | kinds() | others()
