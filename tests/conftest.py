"""What the tests share: the root, the notebooks and modules, and a way to run commands."""

import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.notebooks import (  # noqa: E402
    QUIET,
    default_jobs,
    environment,
    reading_order,
    threads_each,
)

# Processes that test side by side share the processors out; torch reads this when it is imported.
if n_processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_each(n_processes)))

# What `make test ARGS=...` hands down, which is not meant for a `make` that a test calls.
OF_MAKE = ("MAKEFLAGS", "MAKEOVERRIDES", "ARGS", "JOBS")
NOTEBOOKS = reading_order(ROOT / "nbs")
PACKAGE = ROOT / "multilabel_mnist"


def module_name(path):
    """Return the name of a file of the package as one imports it, without the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


# All that is exported from notebooks: not the package's own __init__, nor nbdev's index.
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.name[0] != "_")


def pytest_configure(config):
    for noise in (QUIET, "ignore:The 'mode.chained_assignment' option"):  # the latter is fastai's
        config.addinivalue_line("filterwarnings", noise)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Return how many processes test side by side, as many as notebooks of `make course` run."""
    return default_jobs()


def run(*command, cwd=ROOT, **extra):
    """Run a command on the embedded digits; return it finished, stdout and stderr in one text."""
    env = environment("embedded") | {"MPLBACKEND": "agg"} | extra
    for name in ("PYTHONPATH", "IN_TEST", "PIP_USER", *OF_MAKE):
        env.pop(name, None)
    return subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def script(name):
    """Return the path of a command that is installed beside this Python."""
    return Path(sys.executable).with_name(name + (".exe" if os.name == "nt" else ""))


def settings():
    """Return the metadata of settings.ini."""
    cfg = ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    return cfg["DEFAULT"]


def pytest_generate_tests(metafunc):
    """Run a test that asks for `notebook` or `module` once for each; none at all is an error."""
    for name, paths, ids in (
        ("notebook", NOTEBOOKS, lambda p: p.stem),
        ("module", MODULES, module_name),
    ):
        if name in metafunc.fixturenames:
            if not paths:
                raise pytest.UsageError(f"there is no {name} to test under {ROOT}")
            metafunc.parametrize(name, paths, ids=ids)
