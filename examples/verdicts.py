r"""Write the verdicts on a folder of images to Parquet.

The folder may have any size: memory is bounded, several processes share the work, and a run that
was killed can be resumed.

    python examples/verdicts.py export.pkl pictures/ verdicts/
    torchrun --nproc_per_node 2 examples/verdicts.py export.pkl pictures/ verdicts/
    pandas.read_parquet("verdicts/")

The folder is listed once, into `_files.parquet`, whose row groups are the parts of the work. Part k
goes to process k % n. It reads its images a batch at a time, and gives `part-k.parquet` its name
only when it is whole. Start the script again, with as many processes as you like, and it does the
parts that are missing or damaged. So no image is lost, and none is there twice.

Images that are added to the folder after the listing are not in it. An image that cannot be read
gets a row with the reason, and so does a folder that cannot be listed. Bytes in a name that are no
UTF-8 appear as in `\xff`. A class whose name is taken by another column, such as 'path', gets the
index of its class added: 'path (class 0)'.
"""

import argparse
import hashlib
import os
import sys
import time
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from fastai.learner import load_learner
from PIL import Image

from multilabel_mnist.inference import sigmoid_preds

try:
    import fcntl
except ImportError:  # on Windows, where two runs at the same time are not noticed
    fcntl = None

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
LISTING = pa.schema([("path", pa.binary()), ("error", pa.string())])


def images(folder):
    """Yield (path, error) of the images below a folder, and of the folders that cannot be listed.

    Paths are bytes, relative to the folder, as the file system has them.
    """
    folders = [os.fsencode(folder)]
    while folders:
        below = folders.pop()
        try:
            with os.scandir(below) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif os.fsdecode(entry.name).lower().endswith(ENDINGS):
                        yield os.path.relpath(entry.path, os.fsencode(folder)), None
        except OSError as error:
            yield os.path.relpath(below, os.fsencode(folder)), f"cannot be listed: {error}"


def hold(out, alone):
    """Lock a folder for as long as this process lives: alone, or together with others of this run.

    Exits with a sentence if another run has locked it. Returns the lock, which must be kept.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = open(out / "_lock", "ab")
    except OSError as error:
        sys.exit(f"expected a folder that can be written, got: {error}; give another one")
    if fcntl is not None:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another run is writing into {out}: wait for it, or give another folder")
    return lock


def share(lock):
    """Let the other processes of this run hold the lock, too."""
    if fcntl is not None:
        fcntl.flock(lock, fcntl.LOCK_SH)


def write_whole(file, write):
    """Call write(path), and give the file its own name only once it is whole and on the disk.

    Exits with a sentence if it cannot be written.
    """
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(unfinished)
        with open(unfinished, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(unfinished, file)
    except OSError as error:
        sys.exit(
            f"expected to write {file.name} into {file.parent}, got: {error}; make the folder "
            "writable or free some space, and start again: what is done is kept"
        )
    finally:
        # Ours, or what a run that was killed had begun.
        for left in file.parent.glob(f".{file.name}.*"):
            left.unlink(missing_ok=True)


def chunks(items, size):
    """Yield lists of `size` items; the last one may be shorter."""
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def write_listing(folder, file, n_rows, settings):
    """List the images in row groups of `n_rows`, with what the verdicts depend on as metadata.

    Exits with a sentence if there are none.
    """
    schema = LISTING.with_metadata(settings)

    def write(path):
        n_images = 0
        with pq.ParquetWriter(path, schema) as out:
            for chunk in chunks(images(folder), n_rows):
                out.write_table(pa.table(list(zip(*chunk, strict=True)), schema=schema))
                n_images += len(chunk)
        if n_images == 0:
            sys.exit(f"expected images ({', '.join(ENDINGS)}) below {folder}, got none")

    write_whole(file, write)


def read_settings(listing):
    """Return the settings that a listing was made with."""
    metadata = listing.schema_arrow.metadata or {}
    return {k.decode(): v.decode() for k, v in metadata.items() if k != b"ARROW:schema"}


def open_listing(args, settings):
    """Return the listing, made if there is none; its row groups are the parts of the work.

    ValueError if `out` holds the verdicts of another model, folder or threshold.
    """
    file = args.out / "_files.parquet"
    if not file.exists():
        write_listing(args.folder, file, args.rows, settings)
    try:
        listing = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        sys.exit(f"expected a listing in {file}, got a damaged file ({error}); remove {args.out}")
    old = read_settings(listing)
    if old != settings:
        differ = {k: (old.get(k), new) for k, new in settings.items() if old.get(k) != new}
        raise ValueError(
            f"{args.out} was begun with other settings (then, now): {differ}: "
            "give another folder for the verdicts, or remove it"
        )
    return listing


def shown(path):
    """Return a path in bytes as text, which need not be possible for a name of a file."""
    return path.decode("utf-8", "backslashreplace")


def schema_of(vocab):
    """Return the columns of the verdicts: the probabilities have the names of the classes."""
    names = ["path", "verdict", "labels", "error"]
    for c, name in enumerate(map(str, vocab)):
        names.append(f"{name} (class {c})" if name in names else name)
    return pa.schema(
        [
            ("path", pa.string()),
            ("verdict", pa.string()),
            ("labels", pa.list_(pa.string())),
            *((name, pa.float32()) for name in names[4:]),
            ("error", pa.string()),
        ]
    )


def try_blank_image(learn, threshold):
    """Raise the error of a learner that fails on any image, so that no image is blamed for it."""
    sigmoid_preds(learn, Image.new("RGB", (64, 64)), threshold=threshold)


def error_rows(paths, errors, schema):
    """Return a table of images without a verdict."""
    nothing = [[None] * len(paths) for _ in schema.names[1:-1]]
    return pa.table([[shown(path) for path in paths], *nothing, errors], schema=schema)


def verdicts(learn, folder, paths, threshold):
    """Return a table with a row per image, of the columns of `schema_of`."""
    schema = schema_of(learn.dls.vocab)
    files = [folder / os.fsdecode(path) for path in paths]
    try:
        preds = sigmoid_preds(learn, files, threshold=threshold)
    except Exception as error:  # whatever PIL, a transform or the model makes of a strange image
        if len(paths) > 1:  # halve them until the image that it was is alone
            middle = len(paths) // 2
            halves = (paths[:middle], paths[middle:])
            return pa.concat_tables([verdicts(learn, folder, h, threshold) for h in halves])
        try_blank_image(learn, threshold)
        return error_rows(paths, [f"{error}" or type(error).__name__], schema)
    probs = preds.probs.T.numpy()
    no_errors = [None] * len(paths)
    columns = [map(shown, paths), preds.verdicts, preds.labels, *probs, no_errors]
    return pa.table([list(column) for column in columns], schema=schema)


def write_part(learn, args, rows, file):
    """Write one part, a batch at a time."""

    def write(unfinished):
        schema = schema_of(learn.dls.vocab)
        with pq.ParquetWriter(unfinished, schema, write_page_checksum=True) as out:
            for batch in chunks(rows, args.batch):
                paths = [path for path, error in batch if error is None]
                if paths:
                    out.write_table(verdicts(learn, args.folder, paths, args.threshold))
                unlisted = [row for row in batch if row[1] is not None]
                if unlisted:
                    out.write_table(error_rows(*zip(*unlisted, strict=True), schema))

    write_whole(file, write)


def is_whole(file, rows, schema):
    """Say whether a part is there, undamaged, and of the images that are listed."""
    try:
        table = pq.read_table(file, page_checksum_verification=True, partitioning=None)
    except (OSError, pa.ArrowException):
        return False
    paths = sorted(shown(path) for path, _ in rows)
    return table.schema.equals(schema) and sorted(table["path"].to_pylist()) == paths


def load(file, device):
    """Load an exported Learner onto the device. A pickle can run code: load only what you trust."""
    with warnings.catch_warnings(action="ignore"):
        learn = load_learner(file)
    learn.dls.to(device)
    learn.model.to(device)
    return learn


def rows_of(listing, k):
    """Return (path, error) of the images of part k."""
    table = listing.read_row_group(k)
    return list(zip(table["path"].to_pylist(), table["error"].to_pylist(), strict=True))


def part_file(args, k):
    """Return the path of part k."""
    return args.out / f"part-{k:06}.parquet"


def run(args):
    """List the folder, then do this process's share of the parts that are missing."""
    state = PartialState(cpu=args.cpu or not torch.accelerator.is_available())
    settings = {
        "format": "2",
        "model": hashlib.blake2b(args.model.read_bytes(), digest_size=8).hexdigest(),
        "folder": str(args.folder),
        "threshold": str(args.threshold),
        "rows": str(args.rows),
    }
    with state.main_process_first():
        lock = hold(args.out, alone=state.is_main_process)
        listing = open_listing(args, settings)
        share(lock)
    state.destroy_process_group()  # from here on nobody waits for anybody
    # Where it is set, fastai gathers the predictions of all processes in each of them.
    os.environ.pop("WORLD_SIZE", None)
    learn = load(args.model, state.device)
    try_blank_image(learn, args.threshold)
    mine = range(state.process_index, listing.num_row_groups, state.num_processes)
    do_parts(learn, args, listing, mine, f"process {state.process_index}")
    lock.close()


def do_parts(learn, args, listing, mine, me):
    """Write the parts among `mine` that are missing or damaged, and say how it goes."""
    schema = schema_of(learn.dls.vocab)
    todo = [k for k in mine if not is_whole(part_file(args, k), rows_of(listing, k), schema)]
    print(
        f"{me}: {listing.metadata.num_rows:,} images in {listing.num_row_groups} parts, "
        f"{len(mine) - len(todo)} of my {len(mine)} are done",
        flush=True,
    )
    start = time.perf_counter()
    n_images = 0
    n_errors = 0
    for n_parts, k in enumerate(todo, 1):
        rows = rows_of(listing, k)
        write_part(learn, args, rows, part_file(args, k))
        n_images += len(rows)
        errors = pq.read_table(part_file(args, k), columns=["error"])["error"]
        n_errors += len(rows) - errors.null_count
        rate = n_images / (time.perf_counter() - start)
        to_go = (len(todo) - n_parts) * args.rows / rate
        print(
            f"{me}: {n_parts} of {len(todo)} parts, {rate:,.0f} images/s, {to_go:,.0f} s to go, "
            f"{n_errors:,} images without a verdict",
            flush=True,
        )


def arguments(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "model",
        type=Path,
        help="what Learner.export wrote; a pickle can run code, so only one that you trust",
    )
    add("folder", type=Path, help="with images, at any depth")
    add("out", type=Path, help="a folder for the Parquet files")
    add("--threshold", type=float, default=0.5)
    add(
        "--rows",
        type=int,
        default=20_000,
        help="images in a part; a script that is killed loses the part it is in (default: 20000)",
    )
    add("--batch", type=int, default=1024, help="images in memory at a time (default: 1024)")
    add("--cpu", action="store_true", help="use CPUs even where there is a GPU")
    args = parser.parse_args(argv)
    if not args.model.is_file():
        parser.error(f"no file {args.model}")
    if not args.folder.is_dir():
        parser.error(f"no folder {args.folder}")
    if not 0 <= args.threshold <= 1:
        parser.error(f"--threshold: expected a number from 0 to 1, got {args.threshold}")
    if args.rows < 1 or args.batch < 1:
        parser.error(
            f"--rows and --batch: expected numbers from 1 up, got {args.rows} and {args.batch}"
        )
    args.folder = args.folder.resolve()
    args.out = args.out.resolve()
    return args


if __name__ == "__main__":
    run(arguments())
