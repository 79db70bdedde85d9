"""(g) Time and peak memory of what reads N x C probabilities, and how both grow with N and C.

`python -m benchmarks.scaling 200000 500` measures a size of your own.
"""

import ctypes
import gc
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import torch

from multilabel_mnist.ambiguity import ambiguity, confused_pairs, label_suspicion
from multilabel_mnist.inference import SigmoidCalibrator, SigmoidPreds, tune_thresholds

from .timing import spread

ROOT = Path(__file__).resolve().parent.parent
STEP = 4  # how many times as many rows, or classes, the larger sizes have


class Data:
    """Made-up predictions of N items with one label each."""

    def __init__(self, n, n_classes):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(n_classes, (n,), generator=generator)
        self.logits = torch.randn(n, n_classes, generator=generator).sub_(3)
        self.logits[torch.arange(n), self.labels] += 5
        self.preds = SigmoidPreds(self.logits)
        self.probs = self.preds.probs
        self.calibrator = SigmoidCalibrator().fit(self.logits[:100], self.labels[:100])

    @property
    def size(self):
        """The bytes of what each call reads."""
        return self.probs.nbytes


CALLS = {
    "ambiguity": lambda data: ambiguity(data.probs),
    "label_suspicion": lambda data: label_suspicion(data.probs, data.labels),
    "confused_pairs": lambda data: confused_pairs(data.preds),
    "calibrator_fit": lambda data: SigmoidCalibrator().fit(data.logits, data.labels),
    "calibrator_call": lambda data: data.calibrator(data.logits),
    "to_frame": lambda data: data.preds.to_frame(),
    "exact_per_class": lambda data: tune_thresholds(data.probs, data.labels, True, "exact"),
}


def status(name):
    """Return a line of /proc/self/status in bytes: VmRSS, the memory in use, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def peak(f):
    """Return by how many bytes one call raises the memory of this process at its peak."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed before would hide what is taken
    Path("/proc/self/clear_refs").write_text(
        "5", encoding="utf-8"
    )  # sets the peak to what is in use now
    before = status("VmRSS")
    f()
    return max(0, status("VmHWM") - before)


def measure(n, n_classes, repeats):
    """Return {name: seconds of each repetition, and peak memory in inputs, the input included}."""
    data = Data(n, n_classes)
    small = Data(2000, n_classes)
    found = {}
    for name, call in CALLS.items():
        call(small)  # imports what it needs
        memory = 1 + peak(lambda call=call: call(data)) / data.size
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            call(data)
            seconds.append(time.perf_counter() - start)
        found[name] = {"seconds": seconds, "memory": memory}
    return found


def in_a_fresh_process(n, n_classes, repeats):
    """Return what `measure` finds in a process that has done nothing else."""
    words = [sys.executable, "-m", "benchmarks.scaling", n, n_classes, repeats]
    done = subprocess.run(
        [str(word) for word in words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def exponent(larger, smaller):
    """Return p if the median time grows like size**p."""
    times = [spread(found["seconds"])[0] for found in (larger, smaller)]
    return math.log(times[0] / times[1], STEP)


def run(bench):
    """Measure three sizes: some, and four times as many items or classes."""
    n, n_classes = (4_000, 20) if bench.quick else (50_000, 125)
    sizes = {"": (n, n_classes), "N": (STEP * n, n_classes), "C": (n, STEP * n_classes)}
    found = {}
    for what, size in sizes.items():
        bench.say("{:,} items, {} classes".format(*size))
        found[what] = in_a_fresh_process(*size, bench.repeats)
    rows = []
    ratios = {}
    for name in CALLS:
        rows.append((f"{name}", "s", found[""][name]["seconds"]))
        memory = [found[what][name]["memory"] for what in ("N", "C")]
        rows.append((f"{name}, peak memory", "inputs", memory))
        for what in ("N", "C"):
            ratios[f"{name}_over_{what}"] = exponent(found[what][name], found[""][name])
    note = (
        f"times of {n:,} x {n_classes} probabilities; peak memory of {STEP} times as many, in "
        f"multiples of them, themselves included; name_over_N is p if the time grows like N**p"
    )
    return {"rows": rows, "ratios": ratios, "note": note}


if __name__ == "__main__":
    n, n_classes, *repeats = map(int, sys.argv[1:])
    print(json.dumps(measure(n, n_classes, *(repeats or [1]))))
