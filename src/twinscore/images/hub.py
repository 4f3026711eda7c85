"""Images from Hugging Face ``datasets``: saved on disk, in a folder it knows, or on its hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinscore.errors import InputError, one_line
from twinscore.images.extras import require
from twinscore.images.imageset import ImageSet
from twinscore.images.tables import BATCH, Table, load_parquet_path, load_table
from twinscore.images.transforms import Options

if TYPE_CHECKING:
    import pyarrow as pa


def load_hub(body: str, options: Options) -> ImageSet:
    """Load the source ``hf:NAME_OR_PATH,split=train,column=image,label=label``.

    A script that the data set brings along is never run.

    Parameters
    ----------
    body : str
        A folder that ``save_to_disk`` wrote, a folder that ``load_dataset`` understands, a Parquet
        file, or a name on the hub, which is downloaded to the library's cache. Paths win over
        names.
    options : Options
        Applied to every image. Of ``options.extra``: ``split``, by default ``train``; ``config``,
        which configuration, where there are several; ``column`` and ``label`` as for
        :func:`twinscore.images.tables.load_table`.

    Returns
    -------
    ImageSet
        Names are the rows' numbers.

    Raises
    ------
    InputError
        When the library is not installed, there is no such data set, split or configuration, the
        hub cannot be reached, or as ``load_table`` does.
    """
    if not body:
        raise InputError("'hf:': names no data set; give hf:NAME or hf:PATH")
    path = Path(body)
    if path.is_file():
        return load_parquet_path(path, options)
    datasets = require("datasets", f"hf:{body}", "hub")
    source = f"hf:{body}"
    try:
        rows = _open(datasets, path, options.extra)
    except InputError:
        raise
    except Exception as error:  # the library, and what it reads, may raise nearly anything
        raise InputError(
            f"{source!r}: cannot be loaded ({one_line(error)}); "
            "give a data set's folder, or its name on the hub"
        ) from None

    def batches(columns: list[str]) -> Iterator["pa.RecordBatch"]:
        chosen = rows.select_columns(columns).with_format("arrow")
        try:
            for table in chosen.iter(batch_size=BATCH):
                whole = _with_files(table)
                whole.validate(full=True)
                yield from whole.to_batches()
        except Exception as error:
            raise InputError(f"{source!r}: cannot be read ({one_line(error)})") from None

    return load_table(Table(source, len(rows), rows.features.arrow_schema, batches), options)


def _open(datasets: Any, path: Path, extra: Any) -> Any:
    split, config = extra.get("split", "train"), extra.get("config")
    saved = (path / "dataset_dict.json", path / "state.json")
    if not any(file.exists() for file in saved):
        if path.is_dir() and set("*?[") & set(str(path.resolve())):
            raise InputError(
                f"'hf:{path}': datasets takes *, ? and [ in the name of a folder for a pattern; "
                "rename it, or leave hf: out to read its pictures"
            )
        return datasets.load_dataset(str(path), config, split=split, trust_remote_code=False)
    rows = datasets.load_from_disk(str(path))
    if isinstance(rows, datasets.DatasetDict):
        if split not in rows:
            raise InputError(
                f"'hf:{path}': has no split {split!r}; give split=NAME, one of {', '.join(rows)}"
            )
        return rows[split]
    if "split" in extra and str(rows.split) != split:
        raise InputError(f"'hf:{path}': is the split {rows.split}, not {split!r}; leave split out")
    return rows


def _with_files(table: "pa.Table") -> "pa.Table":
    """The table with the bytes of pictures that it only names."""
    from datasets.table import embed_table_storage

    return embed_table_storage(table)
