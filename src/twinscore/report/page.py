"""Write a run's report: one HTML page that needs nothing else, and each figure as PDF and PNG.

Where a run holds another one, the page has a link to that one's, and is whole without it.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from twinscore.errors import InputError
from twinscore.report import reading, style
from twinscore.report.content import HOLDS_NOT, Content, Drawing
from twinscore.report.pictures import data_uri
from twinscore.report.reading import Run
from twinscore.runs import clear_temporaries, locked, make_within, write_atomic, write_text


def write(folder: Path, *, images: bool = True) -> Path:
    """Draw a run folder's report into it, after those of the runs within that its page links to.

    Holds the run's lock meanwhile. Writes ``report.html`` and ``figures/<name>.pdf`` and ``.png``,
    each to a temporary name that is then renamed. A figure of an earlier report that is not drawn
    now is deleted, and what a killed one was writing, so that nothing is left of the images when
    they are left out.

    Parameters
    ----------
    folder
        Run folder of any study, finished or not.
    images
        Whether the page, whose path is returned, and the figures may show images.

    Raises
    ------
    InputError
        If the folder is not a run folder, its study is unknown, nothing of it is finished, one of
        its files is damaged or the report cannot be written.
    """
    with locked(reading.read(folder, images=images).folder):
        clear_temporaries(Path(folder))
        run = reading.read(folder, images=images)
        return _written(run)


def _written(run: Run) -> Path:
    study = import_module(f"twinscore.report.{run.study}")
    content = study.content(run) if run.result else _unfinished(run)
    for part in content.parts:
        write(run.folder / part.folder, images=run.images)
    drawings = _drawings(run.study)
    themed = {theme: _figures(run, drawings, theme) for theme in ("light", "dark")}
    light = themed["light"]
    viewers = {name: draw(run) for name in light if (draw := drawings[name].viewer)}
    pictures = {
        name: {t: data_uri(style.svg(of[name], t), "image/svg+xml") for t, of in themed.items()}
        for name in light
        if name not in viewers or viewers[name].beside
    }
    html = _render(
        content=content,
        missing=[*_missing(run), *content.missing],
        captions={name: drawings[name].caption(run) for name in light},
        pictures=pictures,
        viewers=viewers,
        holding=content.holding if run.images else HOLDS_NOT,
        background=_background(run),
    )
    path = run.folder / "report.html"
    make_within(run.folder, run.folder / "figures")
    _remove(run.folder / "figures", set(drawings) - set(light))
    for name, figure in light.items():
        for kind, encoded in (("pdf", style.pdf(figure)), ("png", style.png(figure))):
            target = run.folder / "figures" / f"{name}.{kind}"
            write_atomic(target, lambda temporary, content=encoded: temporary.write_bytes(content))
    write_text(path, html)
    return path


def figures(
    folder: Path | str, *, images: bool = True, theme: Literal["light", "dark"] = "light"
) -> dict[str, Figure]:
    """Draw the figures of a run folder, by their names, in the order of the page.

    docs/figures.md lists them. They are matplotlib's, to be changed and saved.

    Parameters
    ----------
    folder : Path or str
        Run folder of any study, finished or not.
    images : bool
        Whether to draw those that show training images or samples.
    theme : str
        ``light`` or ``dark``.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        Those for which the run has the numbers.

    Raises
    ------
    InputError
        As :func:`~twinscore.report.page.write`, or for another theme.
    """
    if theme not in style.THEMES:
        raise InputError(f"theme: give one of {', '.join(style.THEMES)}; got {theme!r}")
    run = reading.read(Path(folder), images=images)
    return _figures(run, _drawings(run.study), theme)


def shows_images(study: str) -> bool:
    """Whether the report of a study has figures that show images."""
    return any(drawing.images for drawing in _drawings(study).values())


def _drawings(study: str) -> dict[str, Drawing]:
    """The figures that its module declares, in their order there."""
    module = import_module(f"twinscore.report.{study}")
    found = [value for value in vars(module).values() if isinstance(value, Drawing)]
    return {drawing.name: drawing for drawing in found}


def _figures(run: Run, drawings: Mapping[str, Drawing], theme: str) -> dict[str, Figure]:
    """Draw what the run has the numbers for, and may show."""
    shown = (x for x in drawings.values() if run.images or not x.images)
    with style.applied(theme) as look:
        drawn = {x.name: x.draw(run, look) for x in shown if run.result or x.early}
        return {name: style.settle(figure) for name, figure in drawn.items() if figure}


def _unfinished(run: Run) -> Content:
    """What can be said of a run before any part of its result is there."""
    if not run.histories:
        raise InputError(f"{run.folder}: nothing is finished yet; run the same command again")
    return Content(f"twinscore: {run.study}", "No part of this run is finished yet.", ())


def _missing(run: Run) -> Iterator[str]:
    """What the run lacks, in words."""
    if run.result:
        yield from run.result.missing
    else:
        yield "result.json: the run was interrupted before it was written"
    steps = run.spec.get("training", {}).get("steps")
    of_steps = f" of {steps:,}" if isinstance(steps, int) else ""
    for history in run.histories:
        done = history.columns.get("step", ())
        if not history.finished and len(done):
            yield f"trial {history.name}: stopped at step {int(done[-1]):,}{of_steps}"


def _render(**values: object) -> str:
    loader = PackageLoader("twinscore.report")
    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, undefined=StrictUndefined, **options)
    script = loader.get_source(environment, "page.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("page.html.j2").render(
        **values,
        style=Markup(loader.get_source(environment, "page.css")[0].strip()),
        script=Markup(script),
        script_digest=digest,
    )


def _background(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Collect the tables of spec, versions and machine, without the empty ones."""
    environment = run.environment
    keys = ("device", "processor", "threads", "workers")
    machine = {key: environment[key] for key in keys if key in environment}
    times = {
        "started": environment.get("started") or "unknown",
        "finished": environment.get("finished") or "not finished",
    }
    if environment.get("wall_seconds") is not None:
        times["wall time"] = _duration(environment["wall_seconds"])
    sections = (
        ("Spec", run.spec),
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


def _remove(folder: Path, names: set[str]) -> None:
    """Delete the figures of these names."""
    for name in names:
        for stale in folder.glob(f"{name}.p[dn][fg]"):
            try:
                stale.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(
                    f"{stale}: cannot be deleted: {error.strerror}; delete it yourself"
                ) from error
