"""Writes the modules of multilabel_mnist/ from the notebooks: `python -m tools.export`."""

import subprocess
import sys
from pathlib import Path

from .notebooks import ROOT


def command(name, *words, root):
    """Run a command that is installed beside this Python."""
    program = Path(sys.executable).with_name(name)
    done = subprocess.run([program, *words], cwd=root, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stdout}{done.stderr}")


def main(root=ROOT):
    """Export the notebooks below `root`, and give what nbdev wrote the form of the rest."""
    # The reference chapters first, so that a lesson may add to a module that one of them begins.
    command("nbdev-export", "--path", "nbs/reference", root=root)
    command("nbdev-export", "--path", "nbs", "--skip-folder-re", "^[_.]|^reference$", root=root)
    # nbdev makes imports of one line relative, and those of several lines not: all are absolute
    # here, as in the notebooks. It also writes a wide __all__, which the formatter wraps.
    absolute = ["--select", "TID252", "--fix-only", "--unsafe-fixes", "--quiet"]
    config = ["--config", "lint.flake8-tidy-imports.ban-relative-imports = 'all'"]
    command("ruff", "check", *absolute, *config, "multilabel_mnist", root=root)
    command("ruff", "format", "--quiet", "multilabel_mnist", root=root)


if __name__ == "__main__":
    main()
