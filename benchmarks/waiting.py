"""(i) `make course` and `make test`, each once, in a fresh process."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tools.notebooks import ROOT, environment

from .timing import seconds

# What `make` runs; in a quick benchmark, one notebook and one file of tests.
COURSE = ("-m", "tools.course", "--source", "embedded", "--out")
TESTS = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto", "--dist", "worksteal")


def run_python(*words):
    """Run this Python with some words; RuntimeError with the end of its output if that fails."""
    # Both share the processors out by themselves; a test that calls this is not to be seen.
    env = {
        name: value
        for name, value in environment("embedded").items()
        if name != "OMP_NUM_THREADS" and not name.startswith("PYTEST_")
    }
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def run(bench):
    """Time both commands; one that fails is told, and has no time."""
    notebooks = ["lazy"] if bench.quick else []
    tests = "tests/test_in_step.py" if bench.quick else "tests"
    rows = []
    note = "on the embedded digits, each once"
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "make course": (*COURSE, str(Path(folder) / "course"), *notebooks),
            "make test": (*TESTS, tests),
        }
        for name, words in commands.items():
            bench.say(name)
            try:
                rows.append((name, "s", [seconds(lambda words=words: run_python(*words))]))
            except RuntimeError as e:
                bench.say(str(e))
                note += f"; {name} FAILED"
    return {"rows": rows, "ratios": {}, "note": note}
