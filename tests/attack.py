"""Kill commands at file operations and at random moments; run again; compare with undisturbed runs.

    python tests/attack.py FOLDER [--seed 0] [--kills 40] [--seconds 600]

Each command runs in a forked child of this process, which has imported everything once. Prints a
line for each attack that did not end as it should, then a JSON object: tried, held.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from twinscore import cli, environment
from twinscore.experiments import prepare, sample, train, transition  # noqa: F401
from twinscore.report import page, style  # noqa: F401

STEPS = (
    "--network.width 2 --network.levels 1 --training.steps 6 --training.batch 4 "
    "--training.evaluations 2 --device cpu"
)
DRAWN = "--model {model} --count 8 --batch 4 --sampling.steps 2 --device cpu"
COMMANDS = {
    "transition": (
        "transition --sizes 2 5 --test 6 --samples 4 --sampling.steps 2 --workers 1 "
        f"{STEPS} --out {{new}}/run"
    ),
    "train": f"train --test 4 --n 4 {STEPS} --out {{new}}/run",
    "duplicates": "duplicates --threshold 0.98 --out {new}/run",
    "harmonics": (
        "harmonics --model {model} --vectors 4 --sigmas 0.1 0.4 --draws 2 --device cpu "
        "--out {new}/run"
    ),
    "prepare": "prepare --data digits --out {new}/deep/digits.safetensors",
    "sample": f"sample {DRAWN} --out {{new}}/deep/samples.npz",
    "picture": f"sample {DRAWN} --out {{new}}/samples.png",
    "report": "report {new}/run --no-images",
}
"""Each writes below ``{new}``; ``report`` finds a finished run with a page full of images there."""
VARIES = {".lock", "log.txt", "environment.json", "report.html"}


def forked(words: list[str], attack: Callable[[], None], delay: float | None = None) -> int:
    """Run a command in a child, killed after a delay if one is given; its exit code or -signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        attack()
        os._exit(cli.main(words))
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killing(at: int, after: bool) -> Callable[[], None]:
    """Kill this process at its n-th operation that changes a folder, before or after it."""

    def install() -> None:
        seen = 0

        def watched(operation: Callable) -> Callable:
            def call(*arguments: object, **options: object) -> object:
                nonlocal seen
                seen += 1
                if seen == at and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                outcome = operation(*arguments, **options)
                if seen == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return outcome

            return call

        for name in ("replace", "unlink", "mkdir", "rmdir"):
            setattr(Path, name, watched(getattr(Path, name)))

    return install


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its name; those that must not be the same, or tables with times, by none."""
    found = {}
    for path in sorted(folder.rglob("*")):
        varies = path.name in VARIES or path.name == "history.csv" or "figures" in path.parts
        if path.name != ".lock":
            same = path.is_dir() or varies
            found[str(path.relative_to(folder))] = b"" if same else path.read_bytes()
    return found


def main() -> None:
    """Attack every command in turn until kills or seconds are used up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=600)
    asked = parser.parse_args()
    began, rng = time.monotonic(), random.Random(asked.seed)
    torch.set_num_threads(1)
    environment.available_cores = lambda: 1
    style.settle = lambda figure: figure
    for kind in ("svg", "png", "pdf"):
        setattr(style, kind, lambda *_: b"drawn")

    def words(name: str, new: Path) -> list[str]:
        return shlex.split(COMMANDS[name].format(new=new, model=asked.folder / "model"))

    def prepared(name: str, new: Path) -> Path:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        if name == "report":
            shutil.copytree(asked.folder / "whole-transition" / "run", new / "run")
        return new

    nothing = lambda: None  # noqa: E731
    assert forked([*words("train", asked.folder)[:-1], str(asked.folder / "model")], nothing) == 0
    whole, seconds = {}, {}
    for name in COMMANDS:
        place, start = prepared(name, asked.folder / f"whole-{name}"), time.monotonic()
        assert forked(words(name, place), nothing) == 0, name
        whole[name], seconds[name] = contents(place), time.monotonic() - start
    tried, held, new = 0, 0, asked.folder / "new"
    while tried < asked.kills and time.monotonic() - began < asked.seconds:
        name = rng.choice(list(COMMANDS))
        prepared(name, new)
        told = [name]
        for _ in range(rng.choice((1, 1, 2, 3))):
            if rng.random() < 0.7:
                at, after = rng.randrange(1, 60 if name == "transition" else 16), rng.random() < 0.5
                told.append(f"{'after' if after else 'before'} {at}: ")
                code = forked(words(name, new), killing(at, after))
            else:
                delay = rng.uniform(0, seconds[name])
                told.append(f"at {delay:.2f} s: ")
                code = forked(words(name, new), nothing, delay)
            told[-1] += str(code)
        code = forked(words(name, new), nothing)
        named = name in ("prepare", "sample", "picture")  # whose file may be there already
        right = code == 0 or (code == 2 and named)
        same = contents(new) == whole[name]
        tried, held = tried + 1, held + (right and same)
        if not (right and same):
            found = contents(new)
            names = [k for k in found.keys() | whole[name] if found.get(k) != whole[name].get(k)]
            print(f"{told} then {code}: {'same' if same else names}")
    print(json.dumps({"tried": tried, "held": held}))


if __name__ == "__main__":
    main()
