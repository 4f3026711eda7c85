"""Which images of a set repeat each other, or repeat images of another set, with their pictures."""

import csv
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import save as serialise

from twinscore import environment, runs
from twinscore import images as image_sets
from twinscore.execution import torch_threads
from twinscore.experiments.folders import Done, run_folder
from twinscore.experiments.study import of_old
from twinscore.images import Duplicates, ImageSet

__all__ = ["Done", "Result", "Spec", "run"]


LADDER = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
SHOWN = {"identical": 6, "closest": 18, "borderline": 18}
LARGEST_PICTURE = 128


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spec(_Model):
    """Near-duplicates within a set of images, or between two sets."""

    data: str = "digits"
    """Images: a name (digits), a path, or kind:body, then ,key=value (docs/images.md)."""
    against: str | None = None
    """Compare with these images instead of with the earlier ones of the set."""
    threshold: float = Field(default=0.95, ge=0, lt=1)
    """An image whose correlation with another exceeds this is a near-duplicate."""
    size: int = Field(default=20, ge=1)
    """Side in pixels at which images are compared, at most their own."""


class Data(_Model):
    """A set of images."""

    source: str
    images: int
    shape: tuple[int, int, int]


class Count(_Model):
    """Near-duplicates at a threshold; those equal pixel by pixel are among them."""

    threshold: float
    images: int


class Pair(_Model):
    """An image and the one it repeats."""

    index: int
    name: str
    partner_index: int
    partner_name: str
    correlation: float


class Result(_Model):
    """The numbers of ``result.json``.

    ``pairs`` are those whose pictures are in ``arrays.safetensors``: up to 6 of those that are
    ``identical`` pixel by pixel, the 18 ``closest`` of the others, most correlated first, and the
    18 nearest to the threshold, least correlated first.
    """

    schema_version: int = runs.SCHEMA_VERSION
    study: Literal["duplicates"] = "duplicates"
    verdict: str
    data: Data
    against: Data | None
    compared_at: int
    identical: int
    counts: list[Count]
    pairs: dict[str, list[Pair]]

    def table(self) -> str:
        """Near-duplicates at the threshold and at higher ones."""
        lines = ["threshold  near-duplicates  of images"]
        lines += [
            f"{c.threshold:9g}  {c.images:15,}  {c.images / self.data.images:9.2%}"
            for c in self.counts
        ]
        return "\n".join(lines)


def run(spec: Spec, out: Path | None = None) -> Done[Result]:
    """Find the near-duplicates and write the run folder; a finished one is read back.

    ``duplicates.csv`` lists every near-duplicate: ``index``, ``name``, ``partner_index``,
    ``partner_name``, ``correlation`` and ``identical``, in the order of the images.

    Parameters
    ----------
    spec : Spec
        What to compare.
    out : Path, optional
        Run folder; default ``runs/duplicates-<hash>``.

    Returns
    -------
    Done
        The folder and the result, also written there as ``result.json``.

    Raises
    ------
    InputError
        For images that cannot be read, or a folder of another run or in use.
    """
    images = image_sets.load(spec.data)
    against = image_sets.load(spec.against) if spec.against else None
    content = (
        {"study": "duplicates"} | spec.model_dump(mode="json") | {"data_digest": images.digest}
    )
    content |= {"against_digest": against.digest} if against else {}
    with run_folder(content, out) as (folder, report):
        path = folder / "result.json"
        if path.exists():
            runs.check_schema(path, runs.read_json(path))
            return Done(folder, Result.model_validate(runs.read_json(path)))
        for image_set in filter(None, (images, against)):
            for name in image_set.skipped:
                report("images", {"text": f"left out {name}: it cannot be read"})
        how = environment.start(folder, device="cpu", workers=1, trials=1)
        with environment.timed(folder), torch_threads(how.threads):
            found = image_sets.near_duplicates(
                images,
                spec.threshold,
                spec.size,
                against=against,
                report=lambda done: report("compared", {"step": done, "steps": len(images)}),
            )
            return Done(folder, _write(folder, spec, images, against, found))


def _write(
    folder: Path, spec: Spec, images: ImageSet, against: ImageSet | None, found: Duplicates
) -> Result:
    others = images if against is None else against
    dropped = np.flatnonzero(found.drop)
    identical = np.array(
        [images.digests[i] == others.digests[found.partner[i]] for i in dropped], dtype=bool
    )
    shown = _shown(dropped, identical, found.correlation[dropped])
    arrays = {"correlation": found.correlation[dropped], "identical": identical}
    for name, indices in shown.items():
        arrays |= _pictures(name, images, indices, others, found.partner[indices])
    result = Result(
        verdict=_verdict(spec, len(images), len(dropped), int(identical.sum())),
        data=Data(source=spec.data, images=len(images), shape=images.shape),
        against=against
        and Data(source=spec.against or "", images=len(against), shape=against.shape),
        compared_at=min(spec.size, *images.shape[1:], *others.shape[1:]),
        identical=int(identical.sum()),
        counts=_counts(spec.threshold, identical, found.correlation[dropped]),
        pairs={
            name: [_pair(images, others, found, int(i)) for i in indices]
            for name, indices in shown.items()
        },
    )
    runs.write_text(folder / "duplicates.csv", _table(images, others, found, dropped, identical))
    runs.write_atomic(
        folder / "arrays.safetensors", lambda path: path.write_bytes(serialise(arrays))
    )
    runs.write_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    return result


def _shown(
    dropped: np.ndarray, identical: np.ndarray, correlation: np.ndarray
) -> dict[str, np.ndarray]:
    """Choose the pairs to show: no pair twice, the closest and the borderline ones evenly."""
    rest, values = dropped[~identical], correlation[~identical]
    rest = rest[np.argsort(-values, kind="stable")]
    closest = min(SHOWN["closest"], -(-len(rest) // 2))
    borderline = min(SHOWN["borderline"], len(rest) - closest)
    return {
        "identical": dropped[identical][: SHOWN["identical"]],
        "closest": rest[:closest],
        "borderline": rest[len(rest) - borderline :][::-1],
    }


def _pictures(
    name: str, images: ImageSet, indices: np.ndarray, others: ImageSet, partners: np.ndarray
) -> dict[str, np.ndarray]:
    """Both sides of the pairs at one size and number of channels, at most 128 pixels large."""
    if not len(indices):
        return {}
    _, height, width = images.shape
    shrink = min(1.0, LARGEST_PICTURE / max(height, width))
    shape = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    colour = images.shape[0] == others.shape[0]
    arrays = {}
    for side, source, chosen in (("image", images, indices), ("partner", others, partners)):
        pictures = source[chosen] if colour else source[chosen].mean(dim=1, keepdim=True)
        if pictures.shape[2:] != shape:
            pictures = F.interpolate(pictures, shape, mode="bilinear", antialias=True)
        arrays[f"{name}/{side}"] = pictures.numpy()
    return arrays


def _pair(images: ImageSet, others: ImageSet, found: Duplicates, index: int) -> Pair:
    partner = int(found.partner[index])
    return Pair(
        index=index,
        name=images.names[index],
        partner_index=partner,
        partner_name=others.names[partner],
        correlation=float(found.correlation[index]),
    )


def _counts(threshold: float, identical: np.ndarray, correlation: np.ndarray) -> list[Count]:
    return [
        Count(threshold=level, images=int((identical | (correlation > level)).sum()))
        for level in (threshold, *(level for level in LADDER if level > threshold))
    ]


def _verdict(spec: Spec, total: int, dropped: int, identical: int) -> str:
    of_what = f"an image of {spec.against}" if spec.against else "an earlier one"
    what = f"{of_what} (correlation above {spec.threshold:g})"
    if not dropped:
        return f"None of the {total:,} images of {spec.data} is a near-duplicate of {what}."
    share = f"{dropped / total:.1%}" if dropped / total >= 0.001 else "under 0.1%"
    verb = "is a near-duplicate" if dropped == 1 else "are near-duplicates"
    exact = f"; {identical:,} equal it pixel by pixel" if identical else ""
    return f"Of the {total:,} images of {spec.data}, {dropped:,} ({share}) {verb} of {what}{exact}."


def _table(
    images: ImageSet,
    others: ImageSet,
    found: Duplicates,
    dropped: np.ndarray,
    identical: np.ndarray,
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "name", "partner_index", "partner_name", "correlation", "identical"])
    for i, equal in zip(dropped.tolist(), identical.tolist(), strict=True):
        partner = int(found.partner[i])
        row: list[Any] = [i, images.names[i], partner, others.names[partner]]
        writer.writerow([*row, f"{found.correlation[i]:.9f}", int(equal)])
    return text.getvalue()


STUDY = of_old("duplicates", Spec, lambda *a, **k: run(*a, **k), ())
