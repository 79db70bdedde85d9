"""Kill every writer of the project at random moments: `python -m tests.kills --help`.

A process that writes is killed, alone or with its workers, at a moment that no program notices
(SIGKILL). What it leaves must be the old file as a whole or the new one as a whole, nobody may
outlive it, and the next run must succeed. Prints a row per writer: how many kills came while it was
still at work, and what they left.
"""

import argparse
import os
import random
import select
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from contextlib import redirect_stdout, suppress
from pathlib import Path

import fastdownload.core
import nbformat
import numpy as np
import pyarrow.parquet as pq
import torch
from accelerate.state import AcceleratorState
from fastai.learner import Learner
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from examples import verdicts  # noqa: E402
from multilabel_mnist import data, pixels  # noqa: E402
from multilabel_mnist.labels import BCEOneHotLossFlat  # noqa: E402
from multilabel_mnist.training import digit_cnn  # noqa: E402
from tools.files import write_whole  # noqa: E402
from tools.readme import main as write_readme  # noqa: E402
from tools.save import save  # noqa: E402

GONE = 120  # seconds after a kill in which all workers have ended, even on a busy machine


class Writer:
    """Something that writes into a folder; `state` says what a kill has left there."""

    def __init__(self, folder):
        self.folder = folder
        self.prepare()

    def prepare(self):
        """Make what the writer needs, once."""

    def reset(self):
        """Put the old files back, before each kill."""

    def write(self):
        """Write the new files; runs in a process that is killed."""

    def state(self):
        """Return 'old' or 'new', or what else is there, which is an error."""


class FirstRead(Writer):
    """Many images are decoded by several processes, and their pixels are kept in a cache."""

    n_images = 5200

    def prepare(self):
        self.files = [self.folder / f"{i}.png" for i in range(self.n_images)]
        for i, file in enumerate(self.files):
            Image.new("L", (8, 8), i % 256).save(file)
        self.expected = np.arange(self.n_images) % 256
        self.write()

    def reset(self):
        os.utime(self.files[0], ns=(0, random.randrange(10**18)))  # the old cache is of no use now

    def write(self):
        pixels.read_pixels(self.folder, self.files)

    def state(self):
        current = f".pixels-{pixels._fingerprint(self.files, self.folder)}"
        found = set()
        for cache in self.folder.glob(".pixels-*"):
            read = pixels._open_cache(cache, (self.n_images, 8, 8))
            if read is None or (read[:, 3, 3] != self.expected).any():
                return f"a damaged {cache.name}"
            found.add("new" if cache.name == current else "old")
        return "new" if "new" in found else "old"


class Cache(Writer):
    """A cache of 30 MB alone, without reading images."""

    def prepare(self):
        self.content = {name: np.full((38_000, 28, 28), i, "uint8") for i, name in enumerate("ab")}

    def reset(self):
        for cache in self.folder.glob(".*"):
            shutil.rmtree(cache) if cache.is_dir() else cache.unlink()
        pixels._write_cache(self.folder / ".pixels-a", self.content["a"])

    def write(self):
        pixels._write_cache(self.folder / ".pixels-b", self.content["b"])

    def state(self):
        found = sorted(cache.name[-1] for cache in self.folder.glob(".pixels-*"))
        for name in found:
            read = pixels._open_cache(self.folder / f".pixels-{name}", self.content[name].shape)
            if read is None or (read != self.content[name]).any():
                return f"a damaged cache {name}"
        return {("a",): "old", ("a", "b"): "new", ("b",): "new"}.get(tuple(found), f"{found}")


def digits_in(folder):
    """Return {relative path: content} of the images below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}


class Digits(Writer):
    """The folder of the embedded digits."""

    def prepare(self):
        self.target = self.folder / "digits"
        self.expected = digits_in(data._write_embedded(self.folder / "expected"))

    def reset(self):
        for path in self.folder.iterdir():
            if path.name != "expected":
                shutil.rmtree(path)

    def write(self):
        data._existing_or_new(self.target, data._write_embedded)

    def state(self):
        if not self.target.exists():
            return "old"
        return "new" if digits_in(self.target) == self.expected else "half of the digits"


class Unpacked(Digits):
    """MNIST, for which the embedded digits stand here, from an archive that fastai unpacks."""

    def prepare(self):
        super().prepare()
        (self.folder / "expected").rename(self.folder / "mnist_png")
        archive = self.folder.parent / f"{self.folder.name}_archive"
        archive.mkdir()
        with tarfile.open(archive / "mnist_png.tgz", "w:gz") as file:
            file.add(self.folder / "mnist_png", "mnist_png")
        (self.folder / "mnist_png").rename(self.folder / "expected")
        self.target = self.folder / "mnist_png"
        self.paths = {"data": self.folder, "archive": archive}
        # On Linux another file system, so that fastai has to copy what it has unpacked.
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.elsewhere = tempfile.TemporaryDirectory(dir=memory)

    def write(self):
        tempfile.tempdir = self.elsewhere.name
        data.fastai_path = self.paths.get  # in a process of its own
        data._MNIST_COUNTS = (1437, 360)
        fastdownload.core.read_checks = lambda module: {}  # of the real archive
        data.digits_path("mnist")


class WholeFile(Writer):
    """A text of the tools."""

    texts = {"old": "old\n" * 10**6, "new": "new\n" * 2 * 10**6}

    def prepare(self):
        self.file = self.folder / "README.md"

    def reset(self):
        self.file.write_text(self.texts["old"], encoding="utf-8")

    def write(self):
        write_whole(self.file, self.texts["new"])

    def state(self):
        text = self.file.read_text(encoding="utf-8")
        return {text: name for name, text in self.texts.items()}.get(text, "half a text")


class Notebooks(Writer):
    """Notebooks whose outputs are saved, and the README that is made of one of them."""

    n_notebooks = 5

    def prepare(self):
        (self.folder / "nbs").mkdir()
        self.paths = [self.folder / f"nbs/{i}.ipynb" for i in range(1, self.n_notebooks)]
        self.paths.append(self.folder / "nbs/index.ipynb")
        cells = [nbformat.v4.new_markdown_cell("# Title")]
        cells += [nbformat.v4.new_code_cell(f"print({i})") for i in range(300)]
        self.blank = nbformat.v4.new_notebook(cells=cells)
        self.executed = nbformat.from_dict(self.blank)
        for i, cell in enumerate(self.executed.cells[1:]):
            cell.outputs = [nbformat.v4.new_output("stream", text=f"{i}\n" * 50)]
        self.reset()
        self.old = self.contents()
        self.write()
        self.new = self.contents()

    def reset(self):
        for path in self.paths:
            nbformat.write(self.blank, path)
        (self.folder / "README.md").write_text("old", encoding="utf-8")

    def write(self):
        save(dict.fromkeys(self.paths, self.executed))
        write_readme(self.folder)

    def contents(self):
        files = [*self.paths, self.folder / "README.md"]
        return {file: file.read_bytes() for file in files}

    def state(self):
        found = self.contents()
        for file, content in found.items():
            if content not in (self.old[file], self.new[file]):
                return f"half of {file.name}"
        return "new" if found == self.new else "old"


class Verdicts(Writer):
    """A job of examples/verdicts.py in ten parts, which goes on where it was."""

    def prepare(self):
        source = data.digits_path("embedded")
        dls = data.DigitDataLoaders.from_folder(source, device="cpu")
        self.pkl = self.folder / "export.pkl"
        Learner(dls, digit_cnn(), loss_func=BCEOneHotLossFlat()).export(self.pkl)
        (self.folder / "images").mkdir()
        for file in sorted((source / "testing/3").iterdir())[:30]:
            shutil.copy(file, self.folder / "images")
        self.out = self.folder / "out"
        self.out.mkdir()
        self.write()
        self.n_parts = len(list(self.out.glob("part-*")))
        self.expected = self.rows()

    def reset(self):
        shutil.rmtree(self.out)
        self.out.mkdir()

    def write(self):
        AcceleratorState._reset_state(reset_partial_state=True)
        words = [self.pkl, self.folder / "images", self.out, "--rows", 3, "--batch", 2, "--cpu"]
        verdicts.run(verdicts.arguments([str(word) for word in words]))

    def rows(self):
        """Return the rows of the parts that are there; an error if one is damaged."""
        parts = [pq.read_table(part).to_pylist() for part in sorted(self.out.glob("part-*"))]
        return sorted((row for part in parts for row in part), key=lambda row: row["path"])

    def state(self):
        rows = self.rows()
        expected = {row["path"]: row for row in self.expected}
        for row in rows:
            known = expected[row["path"]]
            if not np.allclose(
                [row[str(c)] for c in range(10)], [known[str(c)] for c in range(10)]
            ):
                return f"another row for {row['path']}"
        if len({row["path"] for row in rows}) != len(rows):
            return "an image twice"
        return "new" if len(rows) == len(expected) else "old"


WRITERS = {
    "first read": FirstRead,
    "cache": Cache,
    "digits": Digits,
    "MNIST": Unpacked,
    "text": WholeFile,
    "notebooks": Notebooks,
    "verdicts": Verdicts,
}


def start(writer):
    """Fork a process that writes; return its id, and a pipe that it and its workers hold open."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    os.close(read_end)
    os.setsid()
    code = 1
    try:
        warnings.simplefilter("ignore")
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            writer.write()
        code = 0
    finally:
        os._exit(code)


def wait(pid, pipe):
    """Wait for a process and all that it has started; return how it ended."""
    _, status = os.waitpid(pid, 0)
    ended, _, _ = select.select([pipe], [], [], GONE)
    os.close(pipe)
    if not ended:
        os.killpg(pid, signal.SIGKILL)
        raise AssertionError("a worker has outlived the process that started it")
    return os.waitstatus_to_exitcode(status)


def kill_once(writer, delay, group):
    """Kill a writer after so many seconds; return (was it still at work, what it left)."""
    writer.reset()
    pid, pipe = start(writer)
    time.sleep(delay)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL) if group else os.kill(pid, signal.SIGKILL)
    code = wait(pid, pipe)
    if code not in (0, -signal.SIGKILL):
        raise AssertionError(f"the writer ended with {code}")
    left = writer.state()
    if left not in ("old", "new"):
        raise AssertionError(f"after a kill at {delay:.3f} s there is {left}")
    again = wait(*start(writer))
    if again != 0:
        raise AssertionError(f"after a kill at {delay:.3f} s the next run ended with {again}")
    if writer.state() != "new":
        raise AssertionError(f"after a kill at {delay:.3f} s the next run left {writer.state()}")
    return code != 0, left


def undisturbed(writer):
    """Return the seconds that a writer takes if nobody kills it."""
    writer.reset()
    begin = time.perf_counter()
    code = wait(*start(writer))
    duration = time.perf_counter() - begin
    if (code, writer.state()) != (0, "new"):
        raise AssertionError(f"without a kill the writer ended with {code}, {writer.state()}")
    return duration


def kill_writer(name, n_kills, seed=0):
    """Kill a writer at so many moments of the time that it needs; return a Counter of what was."""
    rng = random.Random(f"{seed} {name}")
    found = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "writer"
        folder.mkdir()
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            writer = WRITERS[name](folder)
        duration = min(undisturbed(writer) for _ in range(3))
        for i in range(n_kills):
            was_at_work, left = kill_once(writer, rng.uniform(0, duration), group=i % 2 == 0)
            found["kills"] += 1
            found["at work"] += was_at_work
            found[left] += 1
    return found


def main(argv=None):
    """Kill the writers and print the table; the first error ends it."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="of each writer (default: 30)")
    parser.add_argument("--only", nargs="+", choices=WRITERS, default=list(WRITERS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    print(f"{'writer':12} {'kills':>6} {'at work':>8} {'old':>5} {'new':>5} {'seconds':>8}")
    for name in args.only:
        begin = time.perf_counter()
        found = kill_writer(name, args.kills, args.seed)
        seconds = time.perf_counter() - begin
        numbers = f"{found['kills']:6} {found['at work']:8} {found['old']:5} {found['new']:5}"
        print(f"{name:12} {numbers} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
