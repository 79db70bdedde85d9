"""Puts the table of the last `make bench` on MNIST into benchmarks/README.md."""

import json
from pathlib import Path

from benchmarks.__main__ import PARTS

from .files import write_whole
from .notebooks import ROOT

MARK = "<!-- what follows is written by `make speed` -->\n"


def read_results(bench):
    """Return whether the last benchmark was a whole one on MNIST, and its table.

    Exits with a sentence if a file is missing or damaged.
    """
    try:
        about = json.loads((bench / "results.json").read_text(encoding="utf-8"))
        table = (bench / "bench.md").read_text(encoding="utf-8").strip()
        is_whole = about["parts"].keys() >= PARTS.keys() and not about["quick"]
        return is_whole and about["digits"] == "MNIST", table
    except FileNotFoundError as e:
        name = f"{bench.name}/{Path(e.filename).name}"
        raise SystemExit(f"there is no {name} yet: call make bench first") from None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise SystemExit(
            f"expected results of make bench in {bench}, got a damaged results.json "
            f"({type(e).__name__}: {e}): call make bench again"
        ) from None


def main(bench=ROOT / "_build" / "bench", page=ROOT / "benchmarks" / "README.md"):
    """Replace what stands below MARK in `page` by the table in the folder `bench`."""
    is_for_the_page, table = read_results(bench)
    if not is_for_the_page:
        raise SystemExit(
            "the last make bench was a quick one, one of some parts only, or not on MNIST: "
            "its figures are not for the page"
        )
    before, _, _ = page.read_text(encoding="utf-8").partition(MARK)
    write_whole(page, f"{before}{MARK}\n{table}\n")


if __name__ == "__main__":
    main()
