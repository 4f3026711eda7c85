"""Images in the rows of tables: Parquet files, and what they share with ``datasets``.

A column of images holds encoded pictures (bytes, or a struct with ``bytes``, as Hugging Face
writes them) or nested lists of numbers. Rows are read a batch at a time and packed, so that memory
holds the packed images and one row group.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinscore.errors import InputError
from twinscore.images.arrays import channels_first, require_images
from twinscore.images.extras import require
from twinscore.images.files import intensities, require_same
from twinscore.images.imageset import ImageSet, from_pixels
from twinscore.images.levels import dark_notes
from twinscore.images.mapping import require_regular
from twinscore.images.metadata import require_sound
from twinscore.images.pictures import CorruptImageError, Picture, decode_bytes
from twinscore.images.stored import MAX_UNPACKED, reading
from twinscore.images.transforms import Options

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH = 64
"""Rows that are decoded at a time, at most."""

_DECODED = 2**27
_MOST_NUMBERS = 2**28
_LONGEST_LABEL = 1000
_ADVICE = "give a whole Parquet file"


@dataclass(frozen=True)
class Table:
    """Rows to read images from.

    Attributes
    ----------
    name : str
        What to call it in an error message.
    rows : int
        How many it has.
    schema : pyarrow.Schema
        Its columns.
    batches : callable
        ``batches(columns)`` yields all rows in order, as record batches of those columns.
    """

    name: str
    rows: int
    schema: "pa.Schema"
    batches: Callable[[list[str]], Iterator["pa.RecordBatch"]]


def load_parquet(body: str, options: Options) -> ImageSet:
    """Load the source ``parquet:PATH,column=image,label=label``, see :func:`load_table`.

    A Parquet file, or a folder: all ``*.parquet`` under it, in the order of their paths. InputError
    when pyarrow is not installed, a file cannot be read, or as :func:`load_table`.
    """
    if not body:
        raise InputError("'parquet:': names no file; give parquet:PATH")
    return load_parquet_path(Path(body), options)


def load_parquet_path(path: Path, options: Options) -> ImageSet:
    """Load a Parquet file or a folder of them; as :func:`load_parquet`."""
    parquet = require("pyarrow.parquet", str(path), "hub")
    with reading(path, "give a Parquet file, or a folder of them"):
        if not path.is_dir():
            require_regular(path)
        paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"{str(path)!r}: no .parquet file in this folder")
    require_sound(paths)
    schemas, rows = [], 0
    for one in paths:
        with reading(one, _ADVICE), parquet.ParquetFile(one) as file:
            rows += sum(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
            schemas.append(file.schema_arrow)

    def batches(columns: list[str]) -> Iterator["pa.RecordBatch"]:
        for one, schema in zip(paths, schemas, strict=True):
            for column in columns:
                if column not in schema.names or (
                    schema.field(column).type != schemas[0].field(column).type
                ):
                    raise InputError(
                        f"{str(one)!r}: its column {column!r} is not as in {paths[0].name!r}"
                    )
            with reading(one, _ADVICE), parquet.ParquetFile(one, memory_map=True) as file:
                for group in range(file.num_row_groups):
                    at_a_time = _rows_at_a_time(file.metadata.row_group(group), columns)
                    for batch in file.iter_batches(at_a_time, row_groups=[group], columns=columns):
                        batch.validate(full=True)
                        yield batch

    return load_table(Table(str(path), rows, schemas[0], batches), options)


def _rows_at_a_time(group: "pq.RowGroupMetaData", names: Sequence[str]) -> int:
    """How many rows of some columns can be decoded without taking too much memory.

    A value may be stored once and stand in every row (a dictionary, prefixes in common), so a row
    is taken to hold all that its column unpacks to. ValueError when a single row could still be too
    much: the columns unpack to more than ``MAX_UNPACKED`` bytes or ``_MOST_NUMBERS`` numbers.
    """
    every = (group.column(i) for i in range(group.num_columns))
    columns = [one for one in every if one.path_in_schema.partition(".")[0] in names]
    if any(one.num_values > _MOST_NUMBERS for one in columns):
        raise ValueError(f"a row group holds more than {_MOST_NUMBERS} numbers; write smaller ones")
    most = sum(max(one.total_uncompressed_size, 0) for one in columns)
    if most > MAX_UNPACKED:
        raise ValueError(
            f"a row group unpacks to more than {MAX_UNPACKED} bytes; write smaller ones"
        )
    return min(BATCH, max(1, _DECODED // max(1, most)))


def load_table(table: Table, options: Options) -> ImageSet:
    """Pack the images of a table.

    Parameters
    ----------
    table : Table
        Where the rows are.
    options : Options
        Applied to every image. ``options.extra["column"]`` names the column of images, by default
        ``image`` or the only one that can hold images; ``["label"]`` the column of labels, by
        default ``label`` or ``labels`` if there is one.

    Returns
    -------
    ImageSet
        Names are the rows' numbers. Labels are int64; those that are text are numbered in
        alphabetical order.

    Raises
    ------
    InputError
        When a column does not exist or holds no images or labels, there are two columns of
        labels, a value is missing, an image is corrupt (unless ``skip_corrupt``), or images
        differ in size, depth or channels after the options were applied.
    """
    column = _image_column(table, options.extra.get("column"))
    label = _label_column(table, options.extra.get("label"))
    for name in (column, label):
        if table.schema.names.count(name) > 1:
            raise InputError(f"{table.name!r}: has several columns {name!r}; give each its name")
    if table.rows == 0:
        raise InputError(f"{table.name!r}: has no rows")
    pixels: np.ndarray | None = None
    first_peak = 0.0
    kept: list[str] = []
    skipped: list[str] = []
    labels: list[Any] = []
    for row, (read, value) in enumerate(_rows(table, column, label)):
        name = f"{row:06d}"
        if row == table.rows:
            raise InputError(f"{table.name!r}: holds more than the {table.rows} rows it declares")
        try:
            found = read()
        except CorruptImageError:
            if not options.skip_corrupt:
                raise
            skipped.append(name)
            continue
        image, peak = intensities(found, options, repr(table.name))
        if pixels is None:
            pixels, first_peak = _room(table, image), peak
        if peak != first_peak:
            raise InputError(f"{table.name!r}: {name!r} differs in depth; add window=LOW:HIGH")
        require_same(Path(table.name), kept[0] if kept else name, pixels[0], name, image)
        pixels[len(kept)] = image
        kept.append(name)
        labels.append(value)
    if len(kept) + len(skipped) < table.rows:
        there = len(kept) + len(skipped)
        raise InputError(f"{table.name!r}: holds {there} of the {table.rows} rows it declares")
    if pixels is None:
        raise InputError(f"{table.name!r}: all {table.rows} images are corrupt")
    return from_pixels(
        pixels[: len(kept)],
        peak=first_peak,
        names=kept,
        labels=None if label is None else _numbered(labels, table.name, label),
        skipped=skipped,
        notes=dark_notes(pixels[: len(kept)], first_peak, repr(table.name)),
    )


def _rows(
    table: Table, column: str, label: str | None
) -> Iterator[tuple[Callable[[], Picture], Any]]:
    """What decodes the image, and the label, of each row."""
    start = 0
    for batch in table.batches([column] if label is None else [column, label]):
        if batch.num_rows == 0:
            continue
        if label is not None:
            _require_short(batch.column(label), f"{table.name!r}: column {label!r}")
        image_of = _image_reader(batch.column(column), f"{table.name}, column {column}", start)
        for i in range(batch.num_rows):
            yield partial(image_of, i), None if label is None else batch.column(label)[i].as_py()
        start += batch.num_rows


def _require_short(labels: "pa.Array", where: str) -> None:
    """Refuse texts that are too long for labels, before they are copied."""
    import pyarrow.compute as pc
    from pyarrow import types

    if types.is_string(labels.type) or types.is_large_string(labels.type):
        longest = pc.max(pc.binary_length(labels)).as_py() or 0
        if longest > _LONGEST_LABEL:
            raise InputError(
                f"{where} holds a label of {longest} bytes; give at most {_LONGEST_LABEL}"
            )


def _room(table: Table, image: np.ndarray) -> np.ndarray:
    try:
        return np.empty((table.rows, *image.shape), dtype=image.dtype)
    except (MemoryError, ValueError):
        raise InputError(
            f"{table.name!r}: {table.rows} images of {image.shape} do not fit into memory; "
            "add size=S"
        ) from None


def _image_column(table: Table, given: str | None) -> str:
    fields = {field.name: field.type for field in table.schema}
    able = [name for name, kind in fields.items() if _holds_images(kind)]
    hint = f"columns that can are {', '.join(able)}" if able else "no column can"
    if given is not None:
        if given not in fields:
            raise InputError(f"{table.name!r}: has no column {given!r} to hold images; {hint}")
        if given not in able:
            raise InputError(
                f"{table.name!r}: column {given!r} of {fields[given]} holds no images; {hint}"
            )
        return given
    if "image" in able:
        return "image"
    if len(able) != 1:
        what = "several columns can hold images" if able else "no column holds images"
        listed = ", ".join(able or fields)
        raise InputError(f"{table.name!r}: {what}; give column=NAME, one of {listed}")
    return able[0]


def _label_column(table: Table, given: str | None) -> str | None:
    fields: Mapping[str, Any] = {field.name: field.type for field in table.schema}
    able = [name for name, kind in fields.items() if _holds_labels(kind)]
    if given is not None:
        if given not in able:
            raise InputError(
                f"{table.name!r}: no column {given!r} of whole numbers or text for labels; "
                f"columns that can are {', '.join(able) or 'none'}"
            )
        return given
    found = [name for name in ("label", "labels") if name in able]
    if len(found) > 1:
        raise InputError(f"{table.name!r}: has both 'label' and 'labels'; give label=NAME")
    return found[0] if found else None


def _holds_labels(kind: "pa.DataType") -> bool:
    from pyarrow import types

    known = (types.is_integer, types.is_boolean, types.is_string, types.is_large_string)
    return any(is_one(kind) for is_one in known)


def _holds_images(kind: "pa.DataType") -> bool:
    from pyarrow import types

    kind = getattr(kind, "storage_type", kind)
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    if depth == 0:
        return _is_binary(kind)
    return depth in (2, 3) and (types.is_integer(kind) or types.is_floating(kind))


def _is_binary(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind)


def _is_list(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _image_reader(column: "pa.Array", name: str, start: int) -> Callable[[int], Picture]:
    """What gives image i of a batch whose first row is ``start``."""
    column = getattr(column, "storage", column)
    if _is_list(column.type):
        numbers = _from_lists(column, f"{name!r}, rows from {start}")
        return lambda i: Picture(numbers[i])

    def decoded(i: int) -> Picture:
        where = f"{name}, row {start + i}"
        value = column[i].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise CorruptImageError(f"{where!r}: holds no bytes; fill it in or add skip_corrupt")
        return decode_bytes(content, where)

    return decoded


def _from_lists(column: "pa.Array", name: str) -> np.ndarray:
    """Nested lists of one shape as ``(n, C, H, W)``; small integers of any type are uint8."""
    import pyarrow.compute as pc

    shape = [len(column)]
    while _is_list(column.type):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise InputError(f"{name}: the lists differ in length; give images of one size")
        shape.append(lengths[0])
        column = column.flatten()
    if column.null_count:
        raise InputError(f"{name}: a number is missing")
    numbers = column.to_numpy(zero_copy_only=False).reshape(shape)
    if numbers.dtype.kind in "iu" and numbers.dtype not in (np.uint8, np.uint16) and numbers.size:
        small = numbers.min() >= 0 and numbers.max() <= 255
        numbers = numbers.astype(np.uint8) if small else numbers
    require_images(numbers.shape, name)
    return channels_first(numbers)


def _numbered(labels: list[Any], name: str, column: str) -> np.ndarray:
    if None in labels:
        raise InputError(f"{name!r}: column {column!r} lacks the label of an image")
    if isinstance(labels[0], str):
        numbers = {text: number for number, text in enumerate(sorted(set(labels)))}
        labels = [numbers[text] for text in labels]
    try:
        return np.array(labels, dtype=np.int64)
    except OverflowError:
        raise InputError(f"{name!r}: column {column!r} holds labels of 2**63 or more") from None
