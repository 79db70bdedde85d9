"""What the tests share: the repository's root, its notebooks, and a way to run commands."""
import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.notebooks import environment, reading_order  # noqa: E402

NOTEBOOKS = reading_order(ROOT / "nbs")
PACKAGE = ROOT / "multilabel_mnist"
MODULES = sorted(p for p in PACKAGE.glob("*.py") if not p.name.startswith("_"))


def pytest_configure(config):
    for noise in ("ignore:`torch.jit.script` is deprecated:FutureWarning", "ignore:The 'mode.chained_assignment' option"):  # torchvision's and fastai's
        config.addinivalue_line("filterwarnings", noise)


def run(*command, cwd=ROOT, **extra):
    """Runs a command on the embedded digits and returns it finished, stdout and stderr in one text."""
    env = environment("embedded") | {"MPLBACKEND": "agg"} | extra
    for name in ("PYTHONPATH", "IN_TEST", "PIP_USER"):
        env.pop(name, None)
    return subprocess.run([str(c) for c in command], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def script(name):
    """A command that is installed beside this Python."""
    return Path(sys.executable).with_name(name + (".exe" if os.name == "nt" else ""))


def settings():
    cfg = ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    return cfg["DEFAULT"]


def pytest_generate_tests(metafunc):
    """A test that asks for `notebook` or `module` runs once for each; none at all is an error, not a pass."""
    for name, paths in (("notebook", NOTEBOOKS), ("module", MODULES)):
        if name in metafunc.fixturenames:
            if not paths:
                raise pytest.UsageError(f"there is no {name} to test under {ROOT}")
            metafunc.parametrize(name, paths, ids=lambda p: p.stem)
