"""Files that lie are images or one line, in little memory: mutated ones of each kind, and bombs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("pyarrow", "pydicom", "nibabel"):
    pytest.importorskip(module)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds memory as Linux does")

MOST_MIB = 700


def check(folder, seed, count):
    """Read COUNT mutated files, or the bombs, in a process of bounded memory."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hostile.py")), str(folder), seed, count],
        env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=3600,
    )
    *wrong, last = done.stdout.splitlines()
    assert (done.returncode, wrong) == (0, [])
    number, grown = (int(word) for word in last.split() if word.isdecimal())
    assert number > 0
    assert grown < MOST_MIB


def test_mutated_files_are_images_or_one_line(tmp_path):
    check(tmp_path, "0", "200")


@pytest.mark.slow
@pytest.mark.parametrize("seed", "123")
def test_many_mutated_files_are_images_or_one_line(tmp_path, seed):
    check(tmp_path, seed, "10000")


@pytest.mark.slow
def test_bombs_are_images_or_one_line(tmp_path):
    check(tmp_path, "0", "0")
