"""A few kills of every writer; `python -m tests.kills` kills each 30 times."""

import subprocess
import sys

import pytest

from conftest import ROOT, run

NAMES = ("first read", "cache", "digits", "MNIST", "text", "notebooks", "verdicts")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork, groups and SIGKILL")


@pytest.fixture(scope="module")
def done():
    """All of it in one process of its own, which is cheap to fork."""
    return run(sys.executable, "-m", "tests.kills", "--kills", "3", OMP_NUM_THREADS="1")


def test_a_killed_writer_leaves_the_old_or_the_new(done):
    assert done.returncode == 0, done.stdout
    rows = {line[:12].strip(): line[12:].split() for line in done.stdout.splitlines()}
    for name in NAMES:
        kills, at_work, old, new, _ = rows[name]
        assert (int(kills), int(old) + int(new)) == (3, 3)
        assert 0 <= int(at_work) <= 3


BROKEN = """
import random, sys
from pathlib import Path
from tests import kills

class InPlace(kills.WholeFile):
    def write(self):
        with open(self.file, "w", encoding="utf-8") as file:
            for line in self.texts["new"].splitlines(keepends=True):
                file.write(line)

kills.WRITERS["text"] = InPlace
kills.main(["--only", "text", "--kills", "10"])
"""


def test_a_writer_in_place_is_found():
    command = [sys.executable, "-c", BROKEN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "there is half a text" in done.stderr
