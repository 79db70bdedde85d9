"""Puts the table of the last `make bench` on MNIST into benchmarks/README.md."""

import json

from benchmarks.__main__ import PARTS

from .files import write_whole
from .notebooks import ROOT

MARK = "<!-- what follows is written by `make speed` -->\n"


def main(bench=ROOT / "_build" / "bench", page=ROOT / "benchmarks" / "README.md"):
    """Replace what stands below MARK in `page` by the table in the folder `bench`."""
    try:
        about = json.loads((bench / "results.json").read_text())
    except OSError:
        message = f"there is no {bench.name}/results.json yet: call make bench first"
        raise SystemExit(message) from None
    whole = about["parts"].keys() >= PARTS.keys()
    if about["quick"] or about["digits"] != "MNIST" or not whole:
        raise SystemExit(
            "the last make bench was a quick one, one of some parts only, or not on MNIST: "
            "its figures are not for the page"
        )
    table = (bench / "bench.md").read_text(encoding="utf-8").strip()
    before, _, _ = page.read_text(encoding="utf-8").partition(MARK)
    write_whole(page, f"{before}{MARK}\n{table}\n")


if __name__ == "__main__":
    main()
