"""Speed, side by side, in one run: prints a table, writes a figure and results.json."""
import argparse
import time
import warnings
from importlib import import_module
from pathlib import Path

import torch

OUT = Path(__file__).resolve().parent.parent / "_build" / "bench"
PARTS = {"a": ("fitting", "time to 99 %"), "b": ("loading", "images a second into the network"), "c": ("predicting", "sigmoids of the test images"),
         "d": ("steps", "what each part adds to a training step"), "e": ("diagnosing", "reading a mismatch")}


def arguments(argv=None):
    p = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                epilog="parts: " + "; ".join(f"{k}: {title}" for k, (_, title) in PARTS.items()))
    p.add_argument("--quick", action="store_true", help="see that everything runs: less data and three repetitions, no numbers to quote")
    p.add_argument("--only", default=",".join(PARTS), metavar="a,c", help="these parts only (default: all)")
    p.add_argument("--source", help="embedded, mnist or a folder (default: MNIST where it is on disk, else embedded)")
    p.add_argument("--repeats", type=int, help="repetitions of each side (default: 5)")
    p.add_argument("--device", help="such as cpu or cuda (default: fastai's choice)")
    p.add_argument("--out", type=Path, default=OUT, help="where the figure and results.json go (default: _build/bench)")
    args = p.parse_args(argv)
    args.only = [k.strip() for k in args.only.split(",") if k.strip()]
    if not args.only or set(args.only) - set(PARTS):
        p.error(f"--only {','.join(args.only)}: wanted some of {','.join(PARTS)}")
    args.repeats = args.repeats or (3 if args.quick else 5)
    if args.repeats < 1:
        p.error(f"--repeats {args.repeats}: wanted a number from 1 up")
    return args


def main(argv=None):
    args = arguments(argv)
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    from fastai.torch_core import default_device

    from multilabel_mnist.data import digits_path

    from . import report, timing
    from .lesson import Bench

    path = digits_path(args.source)
    device = torch.device(args.device) if args.device else default_device()
    digits = {"mnist_png": "MNIST", "multilabel_mnist_digits": "the embedded digits, no MNIST figures"}.get(path.name, path.name)
    about = {"digits": digits, "quick": args.quick, "repeats": args.repeats, "date": time.strftime("%Y-%m-%d"), "versions": timing.versions(), "machine": timing.machine(device)}
    print(f"On {digits}; " + ", ".join(f"{k} {v}" for k, v in (about["machine"] | about["versions"]).items()))
    bench, parts, start = Bench(path, args.repeats, args.quick, device), {}, time.perf_counter()
    for key in args.only:
        module, title = PARTS[key]
        bench.say = lambda text, key=key: print(f"  {time.perf_counter() - start:4.0f} s  ({key}) {text}", flush=True)
        parts[key] = {"title": title, **import_module(f".{module}", __package__).run(bench)}
    args.out.mkdir(parents=True, exist_ok=True)
    print(report.text_table(parts))
    report.figure(parts, args.out / "bench.png")
    (args.out / "bench.md").write_text(report.markdown_table(parts, about) + "\n", encoding="utf-8")
    report.write_json(parts, about | {"seconds": time.perf_counter() - start}, args.out / "results.json")
    print(f"\n{time.perf_counter() - start:.0f} s on {digits}. Ratios are medians over repetitions of sides timed in turns. Written: " + ", ".join(sorted(p.name for p in args.out.iterdir())) + f" in {args.out.name}/")


if __name__ == "__main__":
    main()
