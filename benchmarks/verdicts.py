"""What `train_verdicts` reaches, by seed: `python -m benchmarks.verdicts --help`.

Trains the recipe once for each seed on all training images, asks each network the same questions on images from testing/ alone, and prints
mean, smallest and largest beside the bars and beside what two networks score that have learned nothing."""
import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from multilabel_mnist.compose import train_verdicts, verdict_floors, verdict_scores, verdict_tests
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.inference import sigmoid_preds

OUT = Path(__file__).resolve().parent.parent / "_build/bench/verdicts.json"
BARS = {"top-1": .993, "exact": .989, "called none": .006, "faint": .98, "overlaid": .92, "beside": .95, "noise": 1., "blank": 1., "letters": .85}
EMBEDDED_BARS = {"top-1": .965, "exact": .955, "called none": .03, "faint": .94, "overlaid": .8, "beside": .85, "noise": .99, "blank": .99, "letters": .85}


def one_run(dls, tests, seed, epochs):
    """{column: share} of a network trained with this seed, and the seconds that its training took"""
    start = time.perf_counter()
    learn = train_verdicts(dls, seed=seed, epochs=epochs)
    seconds = time.perf_counter() - start
    return verdict_scores(lambda x: sigmoid_preds(learn, x).probs, tests) | {"seconds": seconds}


def table(runs, floor, bars):
    """Per cent, but for the seconds; a row per column of the scores."""
    runs, rows = pd.DataFrame(runs), []
    for column in runs:
        v, times = runs[column], 1 if column == "seconds" else 100
        rows.append({"": column, "mean": times*v.mean(), "smallest": times*v.min(), "largest": times*v.max(),
                     "bar": times*bars.get(column, np.nan), **{k: times*f.get(column, np.nan) for k, f in floor.items()}})
    return pd.DataFrame(rows).set_index("").round(2)


def missed(runs, bars):
    """The columns whose mean does not hold its bar; of what is called none, less is better."""
    mean = pd.DataFrame(runs).mean()
    return [k for k, bar in bars.items() if (mean[k] > bar if k == "called none" else mean[k] < bar)]


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__.partition(":")[0])
    parser.add_argument("--source", default=None, help="embedded, mnist or a folder (default: as the notebooks choose)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=None, help="default: the recipe's own")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    dls = DigitDataLoaders.from_folder(digits_path(args.source), valid_pct=0)
    tests = verdict_tests(np.asarray(dls.test_ds.pixels[dls.test_ds.rows]), dls.test_ds.labels)
    bars = BARS if len(dls.train_ds) == 60_000 else EMBEDDED_BARS
    runs = [one_run(dls, tests, seed, args.epochs) for seed in args.seeds]
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {version('torch')}, fastai {version('fastai')}"
    print(f"\n{len(dls.train_ds):,} training and {len(dls.test_ds):,} test images; seeds {args.seeds}; {machine}\n")
    floors = {name: verdict_scores(read, tests) for name, read in verdict_floors(dls.train_ds.labels).items()}
    print(table(runs, floors, bars).to_string(na_rep=""))
    print("\nbars missed by the mean: " + (", ".join(missed(runs, bars)) or "none"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine, "seeds": args.seeds, "runs": runs, "bars": bars}, indent=1))


if __name__ == "__main__":
    main()
