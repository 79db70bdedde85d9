"""Executes the course, each notebook in a kernel of its own, and makes its pages: `python -m tools.course --help`."""
import argparse
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from traitlets.config import Config

from .notebooks import NBS, ROOT, checks, environment, heading_above, reading_order, title
from .outputs import tidy
from .pages import Pages
from .save import save

CELL_TIMEOUT = 1800  # seconds; the slowest cell of the course takes about one minute
_ansi = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_arrow = re.compile(r"^-+>\s*\d+ (.*)$", re.M)


@dataclass
class Failure:
    """Where a notebook stopped, and why."""

    heading: str
    cell: int  # which code cell, counted from 1
    line: str
    error: str

    @property
    def summary(self):
        return self.error.strip().splitlines()[0]


@dataclass
class Run:
    """What became of one notebook."""
    name: str
    title: str
    nb: nbformat.NotebookNode
    seconds: float
    tally: str  # how many of its cells test something; where it failed, how many of them ran
    failure: Failure | None

    @property
    def verdict(self):
        return f'FAILED under "{self.failure.heading}": {self.failure.summary}' if self.failure else "passed"


def failure(nb, index, error):
    """Describes the exception that ended a run in the cell at `index`."""
    kind, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    if isinstance(error, DeadKernelError):
        text = "the kernel died; was there enough memory?"
    arrow = _arrow.search(_ansi.sub("", getattr(error, "traceback", "")))
    source = nb.cells[index].source.strip().splitlines() or [""]
    code = [c.cell_type for c in nb.cells[:index + 1]].count("code")
    return Failure(heading_above(nb, index), code, (arrow[1] if arrow else source[0]).strip(), _ansi.sub("", f"{kind}: {text}"))


def execute(path, source):
    """Runs one notebook from top to bottom, as far as it goes."""
    nb, started, found, begin = nbformat.read(path, 4), [0], None, time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="kernel") as folder:
        client = NotebookClient(
            nb, kernel_name="python3", timeout=CELL_TIMEOUT, resources={"metadata": {"path": str(path.parent)}},
            config=Config(KernelManager={"transport": "ipc", "ip": f"{folder}/k"}),  # sockets in files: no network, not even this machine's own
            on_cell_execute=lambda cell, cell_index: started.append(cell_index))
        try:
            client.execute(env=environment(source))
        except Exception as e:
            if getattr(client, "_async_cleanup_kernel_future", None):  # how nbclient passes on Ctrl-C
                raise KeyboardInterrupt from None
            found = failure(nb, started[-1], e)
    tests = checks(nb)
    tally = f"{sum(i < started[-1] for i in tests)} of {len(tests)}" if found else str(len(tests))
    return Run(path.stem, title(nb, path.stem), tidy(nb), time.perf_counter() - begin, tally, found)


def table(runs):
    """The closing table, as text."""
    rows = [("notebook", "seconds", "checks", "")] + [(r.name, f"{r.seconds:.1f}", r.tally, r.verdict) for r in runs]
    failed = sum(r.failure is not None for r in runs)
    rows.append((f"{len(runs)} notebooks", f"{sum(r.seconds for r in runs):.1f}", "", f"{failed} failed" if failed else "all passed"))
    a, b, c = (max(len(row[i]) for row in rows) for i in range(3))
    return "\n".join(f"{x:<{a}}  {y:>{b}}  {z:>{c}}  {v}".rstrip() for x, y, z, v in rows)


def run_all(paths, source, out):
    """Runs the notebooks one after the other, saying how each went; a failure does not keep the others from running."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    pages, runs, width = Pages(paths, out), [], max(len(p.stem) for p in paths)
    for i, path in enumerate(paths, 1):
        print(f"[{i:>{len(str(len(paths)))}}/{len(paths)}] {path.stem:<{width}} ", end="", flush=True)
        run = execute(path, source)
        runs.append(run)
        print(f"{run.seconds:6.1f} s  {run.tally:>8} checks  {'FAILED' if run.failure else 'passed'}", flush=True)
        if f := run.failure:
            lines = [f'under "{f.heading}", code cell {f.cell}:', "    " + f.line, *f.error.strip().splitlines()[:20]]
            print("\n".join("    " + line for line in lines), flush=True)
        nbformat.write(run.nb, out / path.name)
        pages.write(run.name, run.nb)
    index = [r.nb for r in runs if r.name == "index"]
    pages.write_index(index[0] if index else None, runs, source)
    return runs


def data_source(text):
    """'embedded', 'mnist', or a folder, which the notebooks need as an absolute path."""
    if text in ("embedded", "mnist"):
        return text
    folder = Path(text).expanduser().resolve()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is neither 'embedded' nor 'mnist' nor a folder on this machine")
    return str(folder)


def chosen(folder, names):
    """The notebooks to run, in reading order: all of them, or those named."""
    paths = reading_order(folder)
    wanted = {n.removesuffix(".ipynb") for n in names}
    if unknown := wanted - {p.stem for p in paths}:
        sys.exit(f"no such notebook in {folder}: {', '.join(sorted(unknown))}")
    paths = [p for p in paths if not wanted or p.stem in wanted]
    return paths or sys.exit(f"there are no notebooks in {folder}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tools.course", description=__doc__.partition(":")[0])
    parser.add_argument("notebooks", nargs="*", help="names such as 02_labels; all of them when none is given")
    parser.add_argument("--source", type=data_source, default="embedded", help="embedded, mnist or a folder (default: embedded)")
    parser.add_argument("--save", action="store_true", help="put the outputs into the notebooks when all have passed")
    parser.add_argument("--nbs", type=lambda p: Path(p).resolve(), default=NBS, help="the folder of the notebooks")
    parser.add_argument("--out", type=lambda p: Path(p).resolve(), default=ROOT / "_build/course", help="where the results go")
    args = parser.parse_args(argv)
    paths = chosen(args.nbs, args.notebooks)
    print(f"{len(paths)} notebooks, data: {args.source}")
    try:
        runs = run_all(paths, args.source, args.out)
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    status = int(any(r.failure for r in runs))
    print(f"\nPages: {args.out / 'index.html'}")
    if args.save and status:
        print("Nothing was saved, for a notebook failed.")
    elif args.save:
        left = save(dict(zip(paths, (r.nb for r in runs))))
        status = int(bool(left))
        print(f"Saved the outputs of {len(paths) - len(left)} notebooks in {args.nbs}.")
        for path in left:
            print(f"Not saved, because it was edited during the run: {path.name}")
    print("\n" + table(runs))
    sys.exit(status)


if __name__ == "__main__":
    main()
