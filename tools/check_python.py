"""Stops with one sentence where Python is too old; runs on any Python, before anything is installed."""
import os
import re
import sys

here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
with open(os.path.join(here, "settings.ini")) as f:
    wanted = re.search(r"^min_python *= *([0-9.]+)", f.read(), re.M).group(1)
if sys.version_info[:2] < tuple(int(n) for n in wanted.split(".")):
    sys.exit("This is Python %s, and the course needs %s or newer; name another one, for example: make PYTHON=python%s course"
             % (sys.version.split()[0], wanted, wanted))
