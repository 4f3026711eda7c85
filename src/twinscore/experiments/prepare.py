"""Pack the images of any source into one file that every command maps into memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twinscore import environment, images
from twinscore.execution import Report, settled_torch
from twinscore.experiments.folders import making, require, require_end
from twinscore.images import packed
from twinscore.progress import Reporter
from twinscore.results.base import Frozen, Settings


class Spec(Settings):
    """Images to pack."""

    data: str = ""
    """Source of the images, its options included: faces/,size=80,gray."""


class Result(Frozen):
    """What the packed file holds."""

    path: Path
    number: int
    shape: tuple[int, int, int]
    bytes: int
    digest: str
    rounded: str | None
    """The depth that was rounded to 8 bits, if any."""
    skipped: tuple[str, ...]

    def table(self) -> str:
        """What the command prints."""
        channels, height, width = self.shape
        lines = [
            f"number  {self.number}",
            f"shape   {channels}x{height}x{width}",
            f"size    {self.bytes / 2**20:.1f} MiB",
            f"digest  {self.digest}",
        ]
        if self.rounded:
            lines.append(f"rounded from {self.rounded} to multiples of 1/255")
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} corrupt files: {self.skipped[0]!r} first")
        return "\n".join(lines)


@settled_torch()
def run(spec: Spec, out: Path | str | None = None, *, threads: int | None = None) -> Result:
    """Pack images into a new ``.safetensors`` file.

    Pixels of 8 bits are kept as they are; others are rounded to multiples of 1/255, which changes
    the digests. ``threads`` is how many processors may be used.

    Raises
    ------
    InputError
        For a source that cannot be used, an existing file or another kind of file.
    """
    environment.check("cpu", threads=threads)
    require(spec, "data", "a source of images, like faces/,size=80,gray")
    out = require_end(out, ("safetensors",), "a packed file")
    with making(out, {"study": "prepare", "data": spec.data}) as file, Reporter() as report:
        if not file.done:
            with settled_torch(threads):
                file.told.update(_packed(spec, file.whole, report))
    return Result(path=out, **file.told)


def _packed(spec: Spec, whole: Path, report: Report) -> dict[str, Any]:
    """Write the packed file, and say what it holds."""

    def progress(what: str) -> Callable[[int, int], None]:
        return lambda done, steps: report(what, {"step": done, "steps": steps})

    source = images.load(spec.data, progress=progress("read"))
    for note in source.notes:
        report("images", {"text": note})
    rounded = packed.to_uint8(source)
    packed.write(whole, rounded, source=spec.data, progress=progress("written"))
    return {
        "number": len(rounded),
        "shape": rounded.shape,
        "bytes": whole.stat().st_size,
        "digest": rounded.digest,
        "rounded": None if rounded is source else str(source.pixels.dtype),
        "skipped": source.skipped,
    }
