"""What `train_verdicts` reaches, by seed: `python -m benchmarks.verdicts --help`.

Trains the recipe once for each seed on all training images, asks each network the same questions
on images from testing/ alone, and prints mean, smallest and largest score beside the goal, which
was fixed before training, and beside the baselines, which have learned nothing.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from multilabel_mnist.compose import train_verdicts
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.verdicts import verdict_baselines, verdict_scores, verdict_tests
from tools.files import write_whole

OUT = Path(__file__).resolve().parent.parent / "_build/bench/verdicts.json"
# Shares from 0 to 1, on MNIST and on the embedded digits.
MNIST_GOALS = {
    "top-1": 0.993,
    "exact": 0.989,
    "false none": 0.006,
    "faint": 0.98,
    "overlapping": 0.92,
    "side by side": 0.95,
    "noise": 1.0,
    "blank": 1.0,
    "letters": 0.85,
}
EMBEDDED_GOALS = {
    "top-1": 0.965,
    "exact": 0.955,
    "false none": 0.03,
    "faint": 0.94,
    "overlapping": 0.8,
    "side by side": 0.85,
    "noise": 0.99,
    "blank": 0.99,
    "letters": 0.85,
}
LESS_IS_BETTER = {"false none"}


def one_run(dls, tests, seed, epochs):
    """Return {test set: share} of a network trained with this seed, and the training's seconds."""
    start = time.perf_counter()
    learn = train_verdicts(dls, seed=seed, epochs=epochs)
    seconds = time.perf_counter() - start
    scores = verdict_scores(lambda images: sigmoid_preds(learn, images).probs, tests)
    return scores | {"seconds": seconds}


def table(runs, baselines, goals):
    """Return a DataFrame with a row per score, in percent, and one for the seconds."""
    runs = pd.DataFrame(runs)
    rows = []
    for name in runs:
        scale = 1 if name == "seconds" else 100
        row = {
            "mean": runs[name].mean(),
            "smallest": runs[name].min(),
            "largest": runs[name].max(),
            "goal": goals.get(name, np.nan),
        }
        row |= {baseline: scores.get(name, np.nan) for baseline, scores in baselines.items()}
        rows.append({"": name} | {column: scale * value for column, value in row.items()})
    return pd.DataFrame(rows).set_index("").round(2)


def missed(runs, goals):
    """Return the scores whose mean over the runs misses its goal."""
    means = pd.DataFrame(runs).mean()
    found = []
    for name, goal in goals.items():
        is_worse = means[name] > goal if name in LESS_IS_BETTER else means[name] < goal
        if is_worse:
            found.append(name)
    return found


def arguments(argv=None):
    """Read the command line."""
    summary = __doc__.partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=summary)
    parser.add_argument(
        "--source", help="embedded, mnist or a folder (default: as the notebooks choose)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="default: the recipe's own")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(argv)


def main(argv=None):
    """Train, score, print the table and write it."""
    args = arguments(argv)
    dls = DigitDataLoaders.from_folder(digits_path(args.source), valid_pct=0)
    n_train, n_test = len(dls.train_ds), len(dls.test_ds)
    tests = verdict_tests(np.asarray(dls.test_ds.pixels[dls.test_ds.rows]), dls.test_ds.labels)
    goals = MNIST_GOALS if n_train == 60_000 else EMBEDDED_GOALS
    runs = [one_run(dls, tests, seed, args.epochs) for seed in args.seeds]
    versions = f"torch {version('torch')}, fastai {version('fastai')}"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {versions}"
    print(f"\n{n_train:,} training and {n_test:,} test images; seeds {args.seeds}; {machine}\n")
    baselines = {
        name: verdict_scores(predict, tests)
        for name, predict in verdict_baselines(dls.train_ds.labels).items()
    }
    print(table(runs, baselines, goals).to_string(na_rep=""))
    print("\ngoals missed by the mean: " + (", ".join(missed(runs, goals)) or "none"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine, "seeds": args.seeds, "runs": runs, "goals": goals}
    write_whole(args.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
