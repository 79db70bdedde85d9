"""Executes the course, each notebook in a kernel of its own, and makes its pages.

`python -m tools.course --help` lists the options.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from traitlets.config import Config

from .kernels import kernel_manager_for
from .notebooks import (
    MAX_JOBS,
    NBS,
    ROOT,
    default_jobs,
    environment,
    heading_above,
    reading_order,
    threads_each,
)
from .outputs import tidy
from .pages import build
from .save import save

CELL_TIMEOUT = 1800  # seconds; the slowest cell of the course takes about one minute
MARKER = ".made-by-tools-course"  # in a folder of results, which the next run may delete
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
        """The first line of the error."""
        return self.error.strip().splitlines()[0]

    def __str__(self):
        return "\n".join(
            [
                f'under "{self.heading}", code cell {self.cell}:',
                f"    {self.line}",
                *self.error.strip().splitlines()[:20],
            ]
        )


@dataclass
class Run:
    """What became of one notebook."""

    path: Path
    nb: nbformat.NotebookNode
    seconds: float
    failure: Failure | None

    @property
    def name(self):
        """The notebook's name, which no other has."""
        return self.path.stem

    @property
    def verdict(self):
        """How the run ended, in one line."""
        if self.failure is None:
            return "passed"
        return f'FAILED under "{self.failure.heading}": {self.failure.summary}'


def failure(nb, index, error):
    """Describe the exception that ended a run in the cell at `index`."""
    kind = getattr(error, "ename", type(error).__name__)
    text = getattr(error, "evalue", str(error))
    if isinstance(error, DeadKernelError):
        text = "the kernel died; was there enough memory?"
    arrow = _arrow.search(_ansi.sub("", getattr(error, "traceback", "")))
    first_line = nb.cells[index].source.strip().partition("\n")[0]
    line = arrow[1] if arrow else first_line
    number = [c.cell_type for c in nb.cells[: index + 1]].count("code")
    return Failure(
        heading=heading_above(nb, index),
        cell=number,
        line=line.strip(),
        error=_ansi.sub("", f"{kind}: {text}"),
    )


def execute(path, env, kernel_manager=AsyncKernelManager):
    """Run one notebook from top to bottom, as far as it goes, under the variables of `env`.

    Ctrl-C ends the run; before and after it, what Ctrl-C does is up to the caller.
    """
    nb = nbformat.read(path, 4)
    started = [0]
    found = None
    begin = time.perf_counter()
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    with tempfile.TemporaryDirectory(prefix="kernel") as folder:
        # Sockets in files: the kernel needs no network, not even this machine's own.
        config = Config(KernelManager={"transport": "ipc", "ip": f"{folder}/k"})
        client = NotebookClient(
            nb,
            kernel_name="python3",
            kernel_manager_class=kernel_manager,
            timeout=CELL_TIMEOUT,
            resources={"metadata": {"path": str(path.parent)}},
            record_timing=False,
            config=config,
            extra_arguments=["--InlineBackend.figure_format=retina"],  # figures of twice the pixels
            on_cell_execute=lambda cell, cell_index: started.append(cell_index),
        )
        try:
            client.execute(env=env)
        except Exception as error:
            # This is how nbclient passes on Ctrl-C.
            if getattr(client, "_async_cleanup_kernel_future", None):
                raise KeyboardInterrupt from None
            found = failure(nb, started[-1], error)
        finally:
            signal.signal(signal.SIGINT, on_ctrl_c)  # nbclient has put another handler in place
    seconds = time.perf_counter() - begin
    return Run(path, tidy(nb), seconds, found)


def table(runs, seconds):
    """Return the closing table, as text; `seconds` is how long all of them took together."""
    failed = sum(run.failure is not None for run in runs)
    rows = [
        ("notebook", "seconds", ""),
        *((run.name, f"{run.seconds:.1f}", run.verdict) for run in runs),
        (
            f"{len(runs)} notebooks",
            f"{seconds:.1f}",
            f"{failed} failed" if failed else "all passed",
        ),
    ]
    names = max(len(name) for name, _, _ in rows)
    times = max(len(seconds) for _, seconds, _ in rows)
    lines = [f"{name:<{names}}  {seconds:>{times}}  {end}" for name, seconds, end in rows]
    return "\n".join(line.rstrip() for line in lines)


def fresh_folder(out):
    """Make `out` an empty folder; leave it alone, and stop, if this command did not make it."""
    if out.exists():
        ours = (out / MARKER).is_file()
        if not ours and (not out.is_dir() or any(out.iterdir())):
            sys.exit(
                f"expected {out} to be new, empty, or made by an earlier run, got something else; "
                "name another --out, or remove it yourself"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True)
    note = "The next run of tools.course deletes this folder.\n"
    (out / MARKER).write_text(note, encoding="utf-8")


def ignore_ctrl_c():
    """Leave Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def begin_worker(env):
    """Prepare a process that runs notebooks; its kernels inherit these variables."""
    ignore_ctrl_c()
    os.environ.update(env)


def execute_in_worker(path, env, n_notebooks):
    """Run one of about `n_notebooks`."""
    return execute(path, env, kernel_manager_for(n_notebooks))


@contextmanager
def started(paths, source, jobs):
    """Run notebooks in the background, `jobs` at a time; yield {path: future Run}.

    The processors are shared out: two notebooks of one thread each end sooner than two that run
    one after the other with two threads. Those that have not begun are dropped at the end.
    """
    env = environment(source, n_threads=threads_each(jobs))
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=begin_worker, initargs=[env])
    try:
        each = len(paths) // jobs
        yield {p: pool.submit(execute_in_worker, p, env, each) for p in paths}
    finally:
        pool.shutdown(cancel_futures=True)


def run_all(paths, source, jobs):
    """Run the notebooks and say in reading order how each went; a failure stops only its own."""
    runs = []
    name_width = max(len(p.stem) for p in paths)
    count_width = len(str(len(paths)))
    with started(paths, source, jobs) as results:
        for i, path in enumerate(paths, 1):
            start = f"[{i:>{count_width}}/{len(paths)}] {path.stem:<{name_width}} "
            print(start, end="", flush=True)
            run = results[path].result()
            runs.append(run)
            print(f"{run.seconds:6.1f} s  {'FAILED' if run.failure else 'passed'}", flush=True)
            if run.failure:
                print(
                    "\n".join("    " + line for line in str(run.failure).splitlines()), flush=True
                )
    return runs


def make_pages(nbs, out, runs, source):
    """Make the pages of the course in `out`, with the executed notebooks beside them."""
    for run in runs:
        executed = out / run.path.relative_to(nbs)
        executed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(run.nb, executed)
    for warning in build(nbs, out, runs, source):
        print(warning)
    print(f"\nPages: {out / 'index.html'}")


def data_source(text):
    """Return 'embedded', 'mnist', or the absolute path of a folder, which the notebooks need."""
    if text in ("embedded", "mnist"):
        return text
    folder = Path(text).expanduser().resolve()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(
            f"'{text}' is neither 'embedded' nor 'mnist' nor a folder on this machine"
        )
    return str(folder)


def chosen(folder, names):
    """Return the notebooks to run, in reading order: all of them, or those named."""
    paths = reading_order(folder)
    if not paths:
        sys.exit(f"there are no notebooks in {folder}")
    if not names:
        return paths
    wanted = {Path(name).name.removesuffix(".ipynb") for name in names}
    if unknown := wanted - {p.stem for p in paths}:
        sys.exit(f"no such notebook in {folder}: {', '.join(sorted(unknown))}")
    return [p for p in paths if p.stem in wanted]


def arguments(argv=None):
    """Read the command line."""
    summary = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.course", description=summary)
    parser.add_argument(
        "notebooks", nargs="*", help="names such as 02_labels; all of them when none is given"
    )
    parser.add_argument(
        "--source",
        type=data_source,
        default="embedded",
        help="embedded, mnist or a folder (default: embedded)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=default_jobs(),
        help=f"how many notebooks run at a time (default: one per processor, at most {MAX_JOBS})",
    )
    parser.add_argument(
        "--save", action="store_true", help="put the outputs into the notebooks if all have passed"
    )
    parser.add_argument(
        "--no-run", action="store_true", help="make the pages from the saved outputs"
    )
    parser.add_argument("--nbs", type=Path, default=NBS, help="the folder of the notebooks")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "_build/course",
        help="where the results go: a new folder, or one that an earlier run made",
    )
    args = parser.parse_args(argv)
    args.nbs = args.nbs.resolve()
    args.out = args.out.resolve()
    if args.jobs < 1:
        parser.error(f"expected --jobs of 1 or more, got {args.jobs}")
    return args


def main(argv=None):
    """Run the course, and exit with 1 if a notebook failed or was not saved."""
    args = arguments(argv)
    paths = chosen(args.nbs, args.notebooks)
    fresh_folder(args.out)
    if args.no_run:
        make_pages(args.nbs, args.out, [], args.source)
        return
    print(f"{len(paths)} notebooks, data: {args.source}")
    begin = time.perf_counter()
    try:
        runs = run_all(paths, args.source, args.jobs)
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    seconds = time.perf_counter() - begin
    make_pages(args.nbs, args.out, runs, args.source)
    failed = any(run.failure for run in runs)
    not_saved = []
    if args.save and failed:
        print("Nothing was saved, because a notebook failed.")
    elif args.save:
        not_saved = save({path: run.nb for path, run in zip(paths, runs, strict=True)})
        print(f"Saved the outputs of {len(paths) - len(not_saved)} notebooks in {args.nbs}.")
        for path in not_saved:
            print(f"Not saved, because it was edited during the run: {path.name}")
    print("\n" + table(runs, seconds))
    sys.exit(int(failed or bool(not_saved)))


if __name__ == "__main__":
    main()
