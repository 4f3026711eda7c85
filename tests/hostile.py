"""Image files that lie, read in this process, whose memory is bounded: run by test_hostile.py.

``python hostile.py FOLDER SEED COUNT`` reads COUNT mutated files; COUNT 0 reads the bombs. Prints
what came of it that is neither images nor an InputError of one line, then how memory grew.
"""

import collections
import gzip
import io
import os
import pickle
import random
import resource
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

import readers
from readers import dicom, nifti, written
from twinscore import images
from twinscore.errors import InputError

BOUND = 3 * 2**29
"""Bytes of address space beyond what the imports take."""
VALUE = 2**24
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)


def idx(shape, content=b""):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + content


def npy(array, shape=None):
    buffer = io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


def picture(kind):
    return written(lambda file: Image.fromarray(PIXELS[0]).save(file, kind))


def table(column, **options):
    return written(lambda file: pq.write_table(pa.table({"image": column}), file, **options))


def whole(folder):
    """A small sound input of each reader: its file, what is in it, the folder, the source."""
    found = []
    for number, sample in enumerate(readers.everything().values()):
        place = folder / f"sound-{number}"
        place.mkdir(exist_ok=True)
        path = sample.write(place)
        found.append((path, path.read_bytes(), place, sample.source))
    return found


def mutated(content, chance):
    """Flip, overwrite, cut out, repeat or cut off."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(content))
        match chance.randrange(6):
            case 0:
                content[place] ^= 1 << chance.randrange(8)
            case 1:
                content[place] = chance.choice(INTERESTING)
            case 2:
                size = chance.choice((2, 4, 8))
                content[place : place + size] = bytes([chance.choice(INTERESTING)]) * size
            case 3:
                del content[place : place + chance.randrange(1, 20)]
            case 4:
                content[place:place] = content[place : place + chance.randrange(1, 40)]
            case _ if chance.random() < 0.3:
                del content[place + 1 :]
        content = content or bytearray(1)
    return bytes(content)


class Made:
    """What a pickle says to make."""

    def __init__(self, maker, *arguments):
        self.made = maker, arguments

    def __reduce__(self):
        return self.made


def torch_file(value):
    sound = io.BytesIO(written(lambda file: torch.save({"images": torch.zeros(2, 4, 4)}, file)))
    changed = io.BytesIO()
    with zipfile.ZipFile(sound) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = pickle.dumps(value, 2) if name.endswith(".pkl") else old.read(name)
            new.writestr(name, content)
    return changed.getvalue()


def deflated(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)
    return file.getvalue()


def repeated(value, number, kind):
    return pa.DictionaryArray.from_arrays(
        pa.array([0] * number, pa.int32()), pa.array([value], kind)
    )


def nifti_of(shape, declared):
    content = bytearray(nifti(np.zeros(shape, np.uint8)))
    content[42:48] = np.array(declared, "<i2").tobytes()
    return bytes(content)


def declared_tiff(rows, columns):
    """Floats in 64 bits, of which nearly none are there."""
    entries = {256: columns, 257: rows, 258: 64, 259: 1, 262: 1, 273: 8, 277: 1, 278: rows}
    entries |= {279: 16, 339: 3}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)


def bombs():
    """Small files that ask for much, by name."""
    plain = {"compression": "zstd", "store_schema": False}
    large = repeated(bytes(VALUE), 64, pa.binary())
    text = repeated("x" * VALUE, 64, pa.string())
    long = pa.ListArray.from_arrays([0, 1], pa.ListArray.from_arrays([0, 2**22], np.zeros(2**22)))
    labelled = pa.table({"image": [picture("PNG")] * 64, "label": text})
    return {
        "dictionary.parquet": table(large, **plain),
        "labels.parquet": written(lambda file: pq.write_table(labelled, file, **plain)),
        "long.parquet": table(long, **plain),
        "many.npz": deflated(npy(np.zeros(2**25, np.uint8), (2**25, 1, 1))),
        "large.npz": deflated(npy(np.zeros(2**28, np.uint8), (1, 2**14, 2**14))),
        "declared.npz": deflated(npy(np.zeros(0, np.uint8), (4, 2**13, 2**13))),
        "many.idx.gz": gzip.compress(idx((2**25, 1, 1), bytes(2**25))),
        "declared.idx.gz": gzip.compress(idx((4, 2**13, 2**13))),
        "array.pt": torch_file({"images": Made(bytearray, 2**33)}),
        "tensor.pt": torch_file({"images": Made(torch.Tensor, 2**20, 2**12)}),
        "counter.pt": torch_file({"images": Made(collections.Counter, {"a": 1})}),
        "slices.nii.gz": gzip.compress(nifti_of((1, 1, 2**14), (2**14, 2**14, 2**14))),
        "inflated.nii.gz": gzip.compress(nifti(np.zeros((2**8, 2**8, 2**8), np.uint8))),
        "frames.dcm": dicom(PIXELS[0, ..., 0], NumberOfFrames=2**31 - 1),
        "sides.dcm": dicom(PIXELS[0, ..., 0], Rows=2**16 - 1, Columns=2**16 - 1),
        "large.tif": declared_tiff(2**13, 2**13),
        "header.safetensors": (2**33).to_bytes(8, "little") + b"{}",
    }


def write_bombs(folder):
    for name, content in bombs().items():
        path = folder / "bombs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def outcome(source):
    """What came of loading a source, if it is neither images nor one line."""
    try:
        loaded = images.load(source)
        if len(loaded.names) != len(loaded) or not 0 <= loaded[0].min() <= loaded[0].max() <= 1:
            return "not images"
    except InputError as error:
        return "more than one line" if "\n" in str(error) else ""
    except BaseException as error:
        return repr(error)
    return ""


def files(folder, seed, count):
    """Write one hostile file after the other, and give the source that reads it."""
    for path in sorted(folder.glob("bombs/*")):
        yield path, f"{path},skip_corrupt"
    chance, sound = random.Random(seed), whole(folder) if count else []
    for _ in range(count):
        path, content, place, source = chance.choice(sound)
        os.chdir(place)
        path.write_bytes(mutated(content, chance))
        yield path, source
        path.write_bytes(content)


def main(folder, seed, count):
    if count == 0 and os.fork() == 0:  # what it takes to make them is not counted
        write_bombs(folder)
        os._exit(0)
    if count == 0:
        assert os.wait()[1] == 0
    images.load("digits")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BOUND,) * 2)
    before, read = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for path, source in files(folder, seed, count):
        read += 1
        if wrong := outcome(source):
            shutil.copy(path, folder / f"kept-{read}-{path.name}")
            print(source, wrong[:300])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{read} files, {grown // 1024} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
