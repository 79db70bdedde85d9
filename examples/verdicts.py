"""Write the verdicts on a folder of images to Parquet.

The folder may have any size: memory is bounded, several processes share the work, and a run that
was killed can be resumed.

    python examples/verdicts.py export.pkl pictures/ verdicts/
    torchrun --nproc_per_node 2 examples/verdicts.py export.pkl pictures/ verdicts/
    pandas.read_parquet("verdicts/")

The folder is listed once, into `_files.parquet`, whose row groups are the parts of the work. Part k
goes to process k % n. It reads its images a batch at a time, and gives `part-k.parquet` its name
only when it is whole. Start the script again, with as many processes as you like, and it does the
parts that are missing. So no image is lost, and none is there twice.

Images that are added to the folder after the listing are not in it. An image that cannot be read
gets a row with the reason.
"""

import argparse
import hashlib
import os
import time
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from fastai.learner import load_learner

from multilabel_mnist.inference import sigmoid_preds

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def images(folder):
    """Yield the paths of the images below a folder, relative to it, as the file system has them."""
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.lower().endswith(ENDINGS):
                    yield os.path.relpath(entry.path, folder)


def write_whole(file, write):
    """Call write(path), and give the file its own name only once it is whole."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(unfinished)
        os.replace(unfinished, file)
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
    """List the images in row groups of `n_rows`, with what the verdicts depend on as metadata."""
    schema = pa.schema([("path", pa.string())], metadata=settings)

    def write(path):
        with pq.ParquetWriter(path, schema) as out:
            for chunk in chunks(images(folder), n_rows):
                out.write_table(pa.table([chunk], schema=schema))

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
        args.out.mkdir(parents=True, exist_ok=True)
        write_listing(args.folder, file, args.rows, settings)
    listing = pq.ParquetFile(file)
    old = read_settings(listing)
    if old != settings:
        differ = {k: (old.get(k), new) for k, new in settings.items() if old.get(k) != new}
        raise ValueError(
            f"{args.out} was begun with other settings (then, now): {differ}: "
            "give another folder for the verdicts, or remove it"
        )
    return listing


def verdicts(learn, folder, paths, threshold):
    """Return a table with a row per image.

    Its columns: path, verdict, labels, a probability per class, and the reason if the image cannot
    be read.
    """
    vocab = [str(v) for v in learn.dls.vocab]
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("verdict", pa.string()),
            ("labels", pa.list_(pa.string())),
            *((v, pa.float32()) for v in vocab),
            ("error", pa.string()),
        ]
    )
    try:
        preds = sigmoid_preds(learn, [folder / path for path in paths], threshold=threshold)
    except (OSError, SyntaxError, ValueError) as error:
        if len(paths) > 1:  # halve them until the image that it was is alone
            middle = len(paths) // 2
            halves = (paths[:middle], paths[middle:])
            return pa.concat_tables([verdicts(learn, folder, h, threshold) for h in halves])
        columns = [paths, [None], [None], *([None] for _ in vocab), [str(error)]]
    else:
        no_errors = [None] * len(paths)
        probs = preds.probs.T.numpy()
        columns = [paths, list(preds.verdicts), preds.labels, *probs, no_errors]
    return pa.table(columns, schema=schema)


def write_part(learn, args, paths, file):
    """Write one part, a batch at a time."""

    def write(unfinished):
        out = None
        for batch in chunks(paths, args.batch):
            table = verdicts(learn, args.folder, batch, args.threshold)
            if out is None:
                out = pq.ParquetWriter(unfinished, table.schema)
            out.write_table(table)
        out.close()

    write_whole(file, write)


def load(file, device):
    """Load an exported Learner onto the device. A pickle can run code: load only what you trust."""
    with warnings.catch_warnings(action="ignore"):
        learn = load_learner(file)
    learn.dls.to(device)
    learn.model.to(device)
    return learn


def part_file(args, k):
    """Return the path of part k."""
    return args.out / f"part-{k:06}.parquet"


def run(args):
    """List the folder, then do this process's share of the parts that are missing."""
    state = PartialState(cpu=args.cpu or not torch.accelerator.is_available())
    settings = {
        "model": hashlib.blake2b(args.model.read_bytes(), digest_size=8).hexdigest(),
        "folder": str(args.folder),
        "threshold": str(args.threshold),
        "rows": str(args.rows),
    }
    with state.main_process_first():
        listing = open_listing(args, settings)
    state.destroy_process_group()  # from here on nobody waits for anybody
    # Where it is set, fastai gathers the predictions of all processes in each of them.
    os.environ.pop("WORLD_SIZE", None)
    learn = load(args.model, state.device)
    mine = range(state.process_index, listing.num_row_groups, state.num_processes)
    todo = [k for k in mine if not part_file(args, k).exists()]
    me = f"process {state.process_index}"
    print(
        f"{me}: {listing.metadata.num_rows:,} images in {listing.num_row_groups} parts, "
        f"{len(mine) - len(todo)} of my {len(mine)} are done",
        flush=True,
    )
    start = time.perf_counter()
    n_images = 0
    for n_parts, k in enumerate(todo, 1):
        paths = listing.read_row_group(k)["path"].to_pylist()
        write_part(learn, args, paths, part_file(args, k))
        n_images += len(paths)
        rate = n_images / (time.perf_counter() - start)
        to_go = (len(todo) - n_parts) * args.rows / rate
        print(
            f"{me}: {n_parts} of {len(todo)} parts, {rate:,.0f} images/s, {to_go:,.0f} s to go",
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
    if not args.folder.is_dir():
        parser.error(f"no folder {args.folder}")
    if args.rows < 1 or args.batch < 1:
        parser.error(
            f"--rows and --batch: expected numbers from 1 up, got {args.rows} and {args.batch}"
        )
    args.folder = args.folder.resolve()
    args.out = args.out.resolve()
    return args


if __name__ == "__main__":
    run(arguments())
