"""Puts the table of the last `make bench` on MNIST into nbs/index.ipynb: `python -m tools.speed`."""
import json

import nbformat

from .notebooks import NBS, ROOT

MARK = "<!-- what follows is written by `make speed` -->\n"


def main(bench=ROOT / "_build" / "bench", index=NBS / "index.ipynb"):
    try:
        about = json.loads((bench / "results.json").read_text())
    except OSError:
        raise SystemExit(f"there is no {bench.name}/results.json yet: call make bench first") from None
    if about["quick"] or about["digits"] != "MNIST" or len(about["parts"]) < 5:
        raise SystemExit("the last make bench was a quick one, one of some parts only, or not on MNIST: its figures are not for the page")
    nb = nbformat.read(index, 4)
    cell, = (c for c in nb.cells if MARK in c.source)
    cell.source = cell.source.partition(MARK)[0] + MARK + "\n" + (bench / "bench.md").read_text(encoding="utf-8").strip()
    nbformat.write(nb, index)


if __name__ == "__main__":
    main()
