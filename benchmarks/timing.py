"""Sides of a comparison, timed in turns in one run."""
import gc
import os
import platform
import statistics
import time
from importlib.metadata import version

import torch

PACKAGES = ("multilabel_mnist", "fastai", "fastcore", "torch", "torchvision", "numpy", "pillow")


def seconds(f):
    """How long a call takes, work queued on a GPU included."""
    wait(); start = time.perf_counter()
    f()
    wait()
    return time.perf_counter() - start


def wait():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turns(sides, repeats, warm_up=True, say=None):
    """{name: seconds, one for each repetition}; `sides` is {name: f}. f(repetition) is timed, unless it gives seconds of its own as a float.

    Every repetition calls every side once and begins with another one, so that what slows the machine for a while slows all of them."""
    names, times = list(sides), {name: [] for name in sides}
    for name in names if warm_up is True else warm_up or ():
        if say:
            say(f"{name}, to warm up")
        sides[name](-1)
    for r in range(repeats):
        gc.collect()
        for name in names[r % len(names):] + names[:r % len(names)]:
            if say:
                say(f"{name}, {r + 1} of {repeats}")
            out = []
            took = seconds(lambda: out.append(sides[name](r)))
            times[name].append(out[0] if isinstance(out[0], float) else took)
    return times


def ratio(times, over, under):
    """The median over the repetitions of one side's time over another's in the same repetition."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def spread(values):
    """(median, smallest, largest)"""
    return statistics.median(values), min(values), max(values)


def versions():
    return {"python": platform.python_version()} | {p: version(p) for p in PACKAGES}


def machine(device):
    """What the numbers were measured on."""
    return {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "torch threads": torch.get_num_threads(), "system": platform.system(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type}


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
