"""Sides of a comparison, timed in turns in one run."""

import gc
import os
import platform
import statistics
import time
from importlib.metadata import version

import torch

PACKAGES = ("multilabel_mnist", "fastai", "fastcore", "torch", "torchvision", "numpy", "pillow")


def wait():
    """Wait for the work that is queued on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(f):
    """Return how long one call takes, work queued on a GPU included.

    torch.utils.benchmark's Timer, which short calls are timed with, would make two calls to warm
    up: too many where one call is a training run.
    """
    wait()
    start = time.perf_counter()
    f()
    wait()
    return time.perf_counter() - start


def timed(f, repetition):
    """Return the seconds of f(repetition): those that it returns as a float, else its own time."""
    results = []
    took = seconds(lambda: results.append(f(repetition)))
    return results[0] if isinstance(results[0], float) else took


def in_turns(
    sides,  # {name: f}; f(repetition) is timed, unless it returns seconds of its own as a float
    repeats,  # of each side
    warm_up=True,  # call each side once with -1 before; or the names of the sides to call
    say=None,  # takes a line about the progress
):  # {name: seconds, one for each repetition}
    """Time every side once per repetition, each repetition beginning with another side.

    So what slows the machine for a while slows all of them.
    """
    say = say or (lambda text: None)
    names = list(sides)
    times = {name: [] for name in names}
    for name in names if warm_up is True else warm_up or ():
        say(f"{name}, to warm up")
        sides[name](-1)
    for repetition in range(repeats):
        gc.collect()
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            say(f"{name}, {repetition + 1} of {repeats}")
            times[name].append(timed(sides[name], repetition))
    return times


def ratio(times, over, under):
    """Return the median over the repetitions of one side's time over another's in the same one."""
    pairs = zip(times[over], times[under], strict=True)
    return statistics.median(a / b for a, b in pairs)


def spread(values):
    """Return (median, smallest, largest)."""
    return statistics.median(values), min(values), max(values)


def versions():
    """Return the versions that the numbers depend on."""
    return {"python": platform.python_version()} | {p: version(p) for p in PACKAGES}


def machine(device):
    """Return what the numbers were measured on."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    is_cuda = device.type == "cuda"
    return {
        "cpu": cpu_name(),
        "cores": cores,
        "torch threads": torch.get_num_threads(),
        "system": platform.system(),
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
    }


def cpu_name():
    """Return the processor's name, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            line = next(line for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
    return line.partition(":")[2].strip()
