"""Whenever a command is killed, run again it ends as if never stopped, and leaves nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def attack(folder, *options):
    script = Path(__file__).with_name("attack.py")
    words = [sys.executable, str(script), str(folder), *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr
    *broken, counts = done.stdout.splitlines()
    assert broken == []
    return json.loads(counts)


@pytest.mark.slow
def test_many_kills(tmp_path):
    counts = attack(tmp_path, "--seed", "1", "--kills", "400", "--seconds", "1500")
    assert counts["held"] == counts["tried"] > 50
