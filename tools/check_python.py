"""Stops with one sentence where Python is too old.

It runs on any Python, before anything is installed.
"""

import io
import os
import re
import sys

here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The `open` of Python 2 takes no encoding.
with io.open(os.path.join(here, "settings.ini"), encoding="utf-8") as f:  # noqa: UP020
    wanted = re.search(r"^min_python *= *([0-9.]+)", f.read(), re.M).group(1)

if sys.version_info[:2] < tuple(int(n) for n in wanted.split(".")):
    sys.exit(
        f"This is Python {sys.version.split()[0]}, and the course needs {wanted} or newer; "
        f"name another one, for example: make PYTHON=python{wanted} course"
    )
