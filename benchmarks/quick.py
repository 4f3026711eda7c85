"""The quick form of every benchmark, one after another, into docs/benchmarks.md: `make bench`.

    python benchmarks/quick.py [--published PATH/TO/published/code] [--only training theory]

Takes some 15 minutes. Replaces what stands after the last heading of that page, with the machine
and the date. What needs a run or a model is left out; what fails is named.
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
HEADING = "## Quick forms\n"
LONGEST = 300.0
"""Seconds after which a benchmark is ended; on a free core it should take less than 60."""


def wanted(only: list[str]) -> list[Path]:
    """Scripts with a quick form that need no run and no model."""
    found = []
    for script in sorted(HERE.glob("*.py")):
        text = script.read_text(encoding="utf-8")
        given = 'add_argument("run"' in text or 'add_argument("model"' in text
        quick = '"--quick"' in text and not given and script != Path(__file__)
        if quick and (not only or script.stem in only):
            found.append(script)
    return found


def section(script: Path, published: Path | None) -> str:
    """What a script printed, as it stands on the page."""
    words = [sys.executable, str(script), "--quick"]
    if published and '"--published"' in script.read_text(encoding="utf-8"):
        words += ["--published", str(published)]
    began = time.monotonic()
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST, check=False)
        said, ended = done.stdout, f"exit status {done.returncode}"
        failed = done.returncode != 0
    except subprocess.TimeoutExpired as error:
        said, ended, failed = (error.stdout or b"").decode(), f"ended after {LONGEST:.0f} s", True
    took = f"{time.monotonic() - began:.0f} s"
    print(f"{script.stem}: {ended if failed else took}", flush=True)
    note = f"**Failed: {ended}.**\n\n" if failed else ""
    return f"### {script.stem}\n\n{note}```\n{said.strip()}\n```\n({took})\n"


def machine() -> str:
    """Processor, cores, torch and date, in a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    return (
        f"{os.cpu_count()} cores ({processor}, {torch.backends.cpu.get_cpu_capability()}), torch "
        f"{torch.__version__}, {datetime.date.today().isoformat()}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=Path, help="the published repository's code folder")
    parser.add_argument("--only", nargs="+", default=[], help="names of benchmarks")
    arguments = parser.parse_args()
    parts = [section(script, arguments.published) for script in wanted(arguments.only)]
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    intro = "`make bench` wrote this on a machine with " + machine()
    new = PAGE.with_suffix(".tmp")
    new.write_text("\n".join([before.rstrip(), "", HEADING, intro, "", *parts]), encoding="utf-8")
    new.replace(PAGE)


if __name__ == "__main__":
    main()
