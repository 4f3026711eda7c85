"""Write a run's report: one HTML page that needs nothing else, and each figure as PDF and PNG.

Where a run holds another one, the page has a link to that one's, and is whole without it.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from twinscore.errors import InputError
from twinscore.report import (
    clusters,
    duplicates,
    harmonics,
    manifold,
    mixture,
    reading,
    regularity,
    restore,
    shuffled,
    style,
    transition,
)
from twinscore.report.pictures import data_uri
from twinscore.report.pieces import HOLDS_NOT
from twinscore.report.reading import Run
from twinscore.runs import write_atomic, write_text

STUDIES = {
    "clusters": clusters,
    "duplicates": duplicates,
    "harmonics": harmonics,
    "manifold": manifold,
    "mixture": mixture,
    "regularity": regularity,
    "restore": restore,
    "shuffled": shuffled,
    "transition": transition,
}


def write(folder: Path, *, images: bool = True) -> Path:
    """Draw a run folder's report into it, after those of the runs within that its page links to.

    Writes ``report.html`` and ``figures/<name>.pdf`` and ``.png``, each to a temporary name that
    is then renamed. A figure of an earlier report that is not drawn now is deleted, so that
    nothing is left of the images when they are left out.

    Parameters
    ----------
    folder
        Run folder of any study, finished or not.
    images
        Whether the page and the figures may show training images and samples.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    InputError
        If the folder is no run folder, its study is unknown, one of its files is damaged or the
        report cannot be written.
    """
    run = reading.read(folder)
    if run.study not in STUDIES:
        raise InputError(
            f"{run.folder / 'result.json'}: unknown study {run.study!r}; "
            f"this twinscore reports on: {', '.join(sorted(STUDIES))}"
        )
    study = STUDIES[run.study]
    content = study.content(run.folder, images=images)
    for part in content.parts:
        write(run.folder / part.folder, images=images)
    light = study.figures(run.folder, images=images)
    dark = study.figures(run.folder, images=images, theme="dark")
    replaced = {name for name, viewer in content.viewers.items() if not viewer.beside}
    pictures = {
        name: {
            "light": data_uri(style.svg(light[name], "light"), "image/svg+xml"),
            "dark": data_uri(style.svg(figure, "dark"), "image/svg+xml"),
        }
        for name, figure in dark.items()
        if name not in replaced
    }
    html = _render(
        content=content,
        pictures=pictures,
        shown=[name for name in study.FIGURES if name in light],
        holding=content.holding if images else HOLDS_NOT,
        background=_background(run),
    )
    path = run.folder / "report.html"
    _remove(run.folder / "figures", set(study.FIGURES) - set(light))
    for name, figure in light.items():
        for kind, encoded in (("pdf", style.pdf(figure)), ("png", style.png(figure))):
            _write_bytes(run.folder / "figures" / f"{name}.{kind}", encoded)
    write_text(path, html)
    return path


def _render(**values: object) -> str:
    loader = PackageLoader("twinscore.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = loader.get_source(environment, "page.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("page.html.j2").render(
        **values,
        style=Markup(loader.get_source(environment, "page.css")[0].strip()),
        script=Markup(script),
        script_digest=digest,
    )


def _background(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Collect the tables of spec, seeds, versions and machine, without the empty ones."""
    environment = run.environment
    machine = {
        key: environment[key]
        for key in ("device", "processor", "threads", "workers")
        if key in environment
    }
    times = {
        "started": environment.get("started") or "unknown",
        "finished": environment.get("finished") or "not finished",
    }
    if environment.get("wall_seconds") is not None:
        times["wall time"] = _duration(environment["wall_seconds"])
    sections = (
        ("Spec", run.spec),
        ("Seeds", environment.get("seeds", {})),
        ("Versions", environment.get("versions", {})),
        ("Machine", machine),
        ("Time", times if environment else {}),
    )
    return [(title, list(_flat(values))) for title, values in sections if values]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{key}", str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def _write_bytes(path: Path, content: bytes) -> None:
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def _remove(folder: Path, names: set[str]) -> None:
    """Delete the figures of these names, and what an interrupted report left of them."""
    for name in names:
        for stale in (*folder.glob(f"{name}.p[dn][fg]"), *folder.glob(f".{name}.*")):
            try:
                stale.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(
                    f"{stale}: cannot be deleted: {error.strerror}; delete it yourself"
                ) from error
