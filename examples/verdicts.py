"""Write the verdicts on a folder of images, of any size, to Parquet: in bounded memory, by several processes, and resumed after a kill.

    python examples/verdicts.py export.pkl pictures/ verdicts/
    torchrun --nproc_per_node 2 examples/verdicts.py export.pkl pictures/ verdicts/        (every process takes its share of the parts)
    pandas.read_parquet("verdicts/")

The folder is listed once, into `_files.parquet`, whose row groups are the parts of the work. Part k goes to process k % n, which reads its images a batch
at a time and gives `part-k.parquet` its name only when it is whole. Started again, with as many processes as you like, the script does the parts that are
missing: so no image is lost and none is there twice. What was added to the folder after the listing is not in it; an image that can't be read gets a row with the reason."""
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
    """Paths of images below a folder, relative to it, one at a time and in the order of the file system."""
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for e in entries:
                if e.is_dir(follow_symlinks=False):
                    folders.append(e.path)
                elif e.name.lower().endswith(ENDINGS):
                    yield os.path.relpath(e.path, folder)


def whole(file, write):
    """`write(path)`, but the file has its name only when it is whole."""
    tmp = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(tmp)
        os.replace(tmp, file)
    finally:
        for left in file.parent.glob(f".{file.name}.*"):  # ours, or what a run that was killed had begun
            left.unlink(missing_ok=True)


def write_listing(folder, file, rows, about):
    """One row group for each part of the work, and in the metadata what the verdicts depend on."""
    schema = pa.schema([("path", pa.string())], metadata=about)

    def write(tmp):
        with pq.ParquetWriter(tmp, schema) as out:
            chunk = []
            for path in images(folder):
                chunk.append(path)
                if len(chunk) == rows:
                    out.write_table(pa.table([chunk], schema=schema))
                    chunk = []
            if chunk:
                out.write_table(pa.table([chunk], schema=schema))
    whole(file, write)


def listing(args, about):
    """The parts of the work; ValueError if `out` holds the verdicts of another model, folder or threshold."""
    file = args.out / "_files.parquet"
    if not file.exists():
        args.out.mkdir(parents=True, exist_ok=True)
        write_listing(args.folder, file, args.rows, about)
    parts = pq.ParquetFile(file)
    old = {k.decode(): v.decode() for k, v in (parts.schema_arrow.metadata or {}).items() if k != b"ARROW:schema"}
    if old != about:
        odd = {k: (old.get(k), v) for k, v in about.items() if old.get(k) != v}
        raise ValueError(f"{args.out} was begun with other settings (then, now): {odd}: give another folder for the verdicts, or remove it")
    return parts


def verdicts(learn, folder, paths, threshold):
    """A table for some images: path, verdict, labels, a probability per class, and the reason where an image can't be read."""
    vocab = [str(v) for v in learn.dls.vocab]
    schema = pa.schema([("path", pa.string()), ("verdict", pa.string()), ("labels", pa.list_(pa.string())), *((v, pa.float32()) for v in vocab), ("error", pa.string())])
    try:
        preds = sigmoid_preds(learn, [folder / p for p in paths], threshold=threshold)
        columns = [paths, list(preds.verdicts), preds.labels, *preds.probs.T.numpy(), [None] * len(paths)]
    except (OSError, SyntaxError, ValueError) as e:
        if len(paths) > 1:  # find the image that it was
            return pa.concat_tables([verdicts(learn, folder, half, threshold) for half in (paths[:len(paths) // 2], paths[len(paths) // 2:])])
        columns = [paths, [None], [None], *[[None]] * len(vocab), [str(e)]]
    return pa.table(columns, schema=schema)


def do_part(learn, args, paths, file):
    """Write one part, a batch at a time."""
    def write(tmp):
        out = None
        for i in range(0, len(paths), args.batch):
            table = verdicts(learn, args.folder, paths[i:i + args.batch], args.threshold)
            out = out or pq.ParquetWriter(tmp, table.schema)
            out.write_table(table)
        out.close()
    whole(file, write)


def learner(file, device):
    with warnings.catch_warnings(action="ignore"):  # a pickle can run code: give files that you trust
        learn = load_learner(file)
    learn.dls.to(device)
    learn.model.to(device)
    return learn


def run(args):
    state = PartialState(cpu=args.cpu or not torch.accelerator.is_available())
    about = {"model": hashlib.blake2b(args.model.read_bytes(), digest_size=8).hexdigest(), "folder": str(args.folder), "threshold": str(args.threshold), "rows": str(args.rows)}
    with state.main_process_first():
        parts = listing(args, about)
    state.destroy_process_group()  # from here on nobody waits for anybody
    os.environ.pop("WORLD_SIZE", None)  # where it stands, fastai gathers the predictions of all processes in each of them
    learn = learner(args.model, state.device)
    mine = range(state.process_index, parts.num_row_groups, state.num_processes)
    todo = [k for k in mine if not (args.out / f"part-{k:06}.parquet").exists()]
    print(f"process {state.process_index}: {parts.metadata.num_rows:,} images in {parts.num_row_groups} parts, {len(mine) - len(todo)} of my {len(mine)} are done", flush=True)
    start, done = time.perf_counter(), 0
    for i, k in enumerate(todo, 1):
        paths = parts.read_row_group(k)["path"].to_pylist()
        do_part(learn, args, paths, args.out / f"part-{k:06}.parquet")
        done += len(paths)
        rate = done / (time.perf_counter() - start)
        print(f"process {state.process_index}: {i} of {len(todo)} parts, {rate:,.0f} images/s, {(len(todo) - i) * args.rows / rate:,.0f} s to go", flush=True)


def arguments(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path, help="what Learner.export wrote; a pickle can run code, so only one that you trust")
    p.add_argument("folder", type=Path, help="with images, at any depth")
    p.add_argument("out", type=Path, help="a folder for the Parquet files")
    p.add_argument("--threshold", type=float, default=.5)
    p.add_argument("--rows", type=int, default=20_000, help="images in a part, which is lost if the script is killed in its midst (default: 20000)")
    p.add_argument("--batch", type=int, default=1024, help="images in memory at a time (default: 1024)")
    p.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    args = p.parse_args(argv)
    if not args.folder.is_dir():
        p.error(f"no folder {args.folder}")
    if args.rows < 1 or args.batch < 1:
        p.error(f"--rows {args.rows} --batch {args.batch}: wanted numbers from 1 up")
    args.folder, args.out = args.folder.resolve(), args.out.resolve()
    return args


if __name__ == "__main__":
    run(arguments())
