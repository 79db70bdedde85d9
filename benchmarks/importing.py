"""(f) What importing a module costs a program that uses torch anyway; each in a fresh process."""

import subprocess
import sys

from .timing import in_turns, ratio

MODULES = ("mismatch", "explain", "inference", "calibrate", "ambiguity", "labels", "head")
PROGRAM = """
import sys, time
*before, last = sys.argv[1:]
for name in before:
    __import__(name)
start = time.perf_counter()
__import__(last)
print(time.perf_counter() - start)
"""


def import_seconds(*names):
    """Return the seconds that a fresh process takes to import the last of the names.

    The others are imported before.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def run(bench):
    """Time `import torch`, and each module's import after it, in turns."""
    modules = [f"multilabel_mnist.{name}" for name in MODULES]
    import_seconds("torch", *modules)  # compiles what is not compiled yet

    def side(*names):
        return lambda repetition: import_seconds(*names)

    sides = {"import torch": side("torch")}
    for module in modules:
        sides[f"import {module}, after torch"] = side("torch", module)
    repeats = bench.repeats if bench.quick else max(7, bench.repeats)
    times = in_turns(sides, repeats, warm_up=False, say=bench.say)
    rows = [(name, "ms", [1000 * t for t in taken]) for name, taken in times.items()]
    ratios = {
        f"import_{name}": 1
        + ratio(times, f"import multilabel_mnist.{name}, after torch", "import torch")
        for name in MODULES
    }
    note = (
        f"a fresh process each time, {repeats} of each kind; import_name is torch and the module "
        "over torch alone"
    )
    return {"rows": rows, "ratios": ratios, "note": note}
