"""(i) `make course` and `make test`, each once, in a fresh process."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tools.notebooks import environment

from .timing import seconds

ROOT = Path(__file__).resolve().parent.parent
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
    """Time both commands."""
    notebooks = ["lazy"] if bench.quick else []
    tests = "tests/test_in_step.py" if bench.quick else "tests"
    with tempfile.TemporaryDirectory() as folder:
        bench.say("make course")
        course = seconds(lambda: run_python(*COURSE, str(Path(folder) / "course"), *notebooks))
    bench.say("make test")
    test = seconds(lambda: run_python(*TESTS, tests))
    rows = [("make course", "s", [course]), ("make test", "s", [test])]
    return {"rows": rows, "ratios": {}, "note": "on the embedded digits, each once"}
