"""Speed, side by side, in one run: prints a table, writes a figure and results.json."""

import argparse
import time
import warnings
from importlib import import_module
from pathlib import Path

import torch

OUT = Path(__file__).resolve().parent.parent / "_build" / "bench"
PARTS = {
    "a": ("fitting", "time to 99 %"),
    "b": ("loading", "images per second into the network"),
    "c": ("predicting", "sigmoids of the test images"),
    "d": ("steps", "what each part adds to a training step"),
    "e": ("diagnosing", "diagnosing a mismatch"),
    "f": ("importing", "importing a module"),
    "g": ("scaling", "how time and memory grow with items and classes"),
    "h": ("recipe", "training the recipe"),
    "i": ("waiting", "what one waits for"),
}
DIGITS = {
    "mnist_png": "MNIST",
    "multilabel_mnist_digits": "the embedded digits, no MNIST figures",
}


def arguments(argv=None):
    """Read the command line."""
    titles = "; ".join(f"{key}: {title}" for key, (_, title) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog=f"parts: {titles}"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="see that everything runs: less data and three repetitions, no numbers to quote",
    )
    parser.add_argument(
        "--only",
        default=",".join(PARTS),
        metavar="a,c",
        help="these parts only (default: all)",
    )
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep the other parts that an earlier run has left in --out",
    )
    parser.add_argument(
        "--source",
        help="embedded, mnist or a folder (default: MNIST if it is on disk, else embedded)",
    )
    parser.add_argument("--repeats", type=int, help="repetitions of each side (default: 5)")
    parser.add_argument("--device", help="such as cpu or cuda (default: fastai's choice)")
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT,
        help="where the figure and results.json go (default: _build/bench)",
    )
    args = parser.parse_args(argv)
    args.only = [key.strip() for key in args.only.split(",") if key.strip()]
    if not args.only or set(args.only) - set(PARTS):
        got = ",".join(args.only) or "none"
        parser.error(f"--only: expected some of {','.join(PARTS)}, got {got}")
    if args.repeats is None:
        args.repeats = 3 if args.quick else 5
    if args.repeats < 1:
        parser.error(f"--repeats: expected a number from 1 up, got {args.repeats}")
    return args


def run_parts(args, path, device):
    """Yield what each part measured, as a letter, and what its `run` returns with its title."""
    from .lesson import Bench

    start = time.perf_counter()
    bench = Bench(path, args.repeats, args.quick, device)
    for key in args.only:
        name, title = PARTS[key]

        def say(text, key=key):
            print(f"  {time.perf_counter() - start:4.0f} s  ({key}) {text}", flush=True)

        bench.say = say
        part = import_module(f".{name}", __package__)
        yield key, {"title": title, **part.run(bench)}


def main(argv=None):
    """Run the parts that were asked for, and write what they measured."""
    args = arguments(argv)
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    # Late, so that wrong words and --help are answered at once.
    from fastai.torch_core import default_device

    from multilabel_mnist.data import digits_path
    from tools.files import write_whole

    from . import report, timing

    start = time.perf_counter()
    path = digits_path(args.source)
    device = torch.device(args.device) if args.device else default_device()
    digits = DIGITS.get(path.name, path.name)
    about = {
        "digits": digits,
        "quick": args.quick,
        "repeats": args.repeats,
        "date": time.strftime("%Y-%m-%d"),
        "versions": timing.versions(),
        "machine": timing.machine(device),
    }
    facts = about["machine"] | about["versions"]
    print(f"On {digits}; " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.json"
    parts = report.read_json(results, about) if args.add else {}
    for key, measured in run_parts(args, path, device):
        parts = dict(sorted((parts | {key: measured}).items()))
        about["seconds"] = time.perf_counter() - start
        report.write_json(parts, about, results)  # a part that fails does not lose the others
    print(report.text_table(parts))
    report.figure(parts, args.out / "bench.png")
    table = report.markdown_table(parts, about)
    write_whole(args.out / "bench.md", table + "\n")
    written = ", ".join(sorted(p.name for p in args.out.iterdir()))
    print(
        f"\n{about['seconds']:.0f} s on {digits}. Ratios are medians over repetitions of sides "
        f"timed in turns. Written: {written} in {args.out.name}/"
    )


if __name__ == "__main__":
    main()
