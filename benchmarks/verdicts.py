"""What the recipe reaches, by seed: `python -m benchmarks.verdicts --help`.

Trains the recipe once for each seed on all training images and asks each network the same
questions, on images made from testing/ alone, on digits of another scanner and on folders of images
that show no digit. Compares the answers with goals, which were fixed before training, with
predictors that have learned nothing, and with a softmax network of the same architecture. Writes
the scores of every run, with what they come from, to a file that the lesson reads.
"""

import argparse
import json
import random
import re
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import default_device, set_seed
from sklearn.metrics import average_precision_score
from torch import Tensor

from multilabel_mnist.ambiguity import label_suspicion
from multilabel_mnist.compose import ComposeDigits, train_verdicts, verdict_cnn
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.verdicts import verdict_baselines, verdict_scores
from tools.files import write_whole

from .__main__ import DIGITS
from .ablation import digits_from_elsewhere, pixels_and_labels
from .open_set import ACCEPTED, REJECTED, trade_offs
from .resume import earlier_results
from .timing import machine, versions
from .verdict_sets import NoDigits, all_sets, folder_sets

OUT = Path(__file__).resolve().parent / "verdicts.json"
COMMAND = "python -m benchmarks.verdicts"
AVERAGE_PRECISION = "label suspicion: average precision"
N_REVIEWED = 100
N_FOUND = f"label suspicion: of 15 in the first {N_REVIEWED}"
# MNIST's test images whose label got fewer than three of five people's votes, as 07a_people lists
# them (Northcutt et al. 2021, "Pervasive Label Errors in Test Sets").
REJECTED_LABELS = (
    *(947, 1621, 1901, 2130, 2462, 2597, 2654, 3520),
    *(3558, 5937, 6651, 6783, 8527, 9679, 9729),
)
# Shares from 0 to 1, on MNIST and on the embedded digits.
MNIST_GOALS = {
    "top-1": 0.995,
    "exact": 0.99,
    "false none": 0.005,
    "faint": 0.98,
    "overlapping": 0.95,
    "side by side": 0.95,
    "noise": 1.0,
    "blank": 1.0,
    "letters": 0.97,
    "half width": 0.96,
    "MultiMNIST: exact": 0.7,
    "three in a row": 0.8,
    "MultiMNIST: two highest": 0.85,
    "other scanner: exact": 0.975,
    "other scanner: false none": 0.01,
    AVERAGE_PRECISION: 0.35,
    N_FOUND: 13,
    "seconds": 300,
    "parameters": 1_000_000,
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
LESS_IS_BETTER = {"false none", "other scanner: false none", "seconds", "parameters"}
NOT_SHARES = {AVERAGE_PRECISION, N_FOUND, "seconds", "CPU seconds", "parameters"}


def named_right_row(non_digits, digits):
    """Return the name of the row for one point of an open-set curve."""
    prefix = "" if digits == "test digits" else f"{digits}: "
    return f"{prefix}named right, {100 * REJECTED:.0f} % of {non_digits} rejected"


def goals_for(on_mnist, folders):
    """Return {row: goal}. Each folder is expected to hold handwritten characters."""
    if not on_mnist:
        return EMBEDDED_GOALS
    goals = dict(MNIST_GOALS)
    for name in folders:
        goals[f"{name}: none"] = 0.95
        goals[named_right_row(name, "test digits")] = 0.99
        goals[named_right_row(name, "other scanner")] = 0.975
    return goals


@dataclass
class Questions:
    """Hold what every network is asked."""

    tests: dict[str, tuple[Tensor, Tensor]]  # images and targets by row
    elsewhere: dict[str, tuple[Tensor, Tensor]] | None  # of the other scanner
    is_rejected: np.ndarray | None  # bool: which labels of tests["one digit"] people rejected
    folders: dict[str, NoDigits]  # that were given with --none

    def no_digits(self):
        """Return {name: images} of the sets that the open-set curves are about."""
        images = {name: folder.images for name, folder in self.folders.items()}
        return {"letters": self.tests["letters"][0]} | images

    def digits(self):
        """Return {name: (images, labels)} of the single digits."""
        sets = {"test digits": self.tests["one digit"]}
        if self.elsewhere:
            sets["other scanner"] = self.elsewhere["one digit"]
        return {name: (images, targets.argmax(1)) for name, (images, targets) in sets.items()}


def make_questions(dls, on_mnist, folders):
    """Return what every network is asked, from the images in testing/ and in folders."""
    tests = all_sets(*pixels_and_labels(dls.test_ds), folders)
    elsewhere, is_rejected = None, None
    if on_mnist:
        elsewhere = digits_from_elsewhere()
        numbers = [int(file.stem) for file in dls.test_ds.items]
        is_rejected = np.isin(numbers, REJECTED_LABELS)
    return Questions(tests, elsewhere, is_rejected, folders)


def two_highest_share(probs, targets):
    """Return the share of pairs whose two classes get the two highest probabilities."""
    highest = probs.argsort(dim=1, descending=True, stable=True)[:, :2]
    return (targets.gather(1, highest) > 0.5).all(1).float().mean().item()


def suspicion_scores(probs, labels, is_rejected):
    """Return how well label suspicion finds the labels that people rejected.

    Equally suspicious labels count as in random order.
    """
    suspicion = label_suspicion(probs, labels).numpy()
    lowest = np.sort(suspicion)[::-1][N_REVIEWED - 1]
    is_above, is_lowest = suspicion > lowest, suspicion == lowest
    n_more = N_REVIEWED - is_above.sum()
    return {
        AVERAGE_PRECISION: average_precision_score(is_rejected, suspicion),
        N_FOUND: is_rejected[is_above].sum() + n_more * is_rejected[is_lowest].mean(),
    }


def scores_of(predict, questions):
    """Return {row: score} of a function from images, uint8 (n, 28, 28), to probabilities."""
    scores = verdict_scores(predict, questions.tests)
    images, targets = questions.tests["MultiMNIST: exact"]
    scores["MultiMNIST: two highest"] = two_highest_share(predict(images.numpy()), targets)
    if questions.elsewhere:
        for name, score in verdict_scores(predict, questions.elsewhere).items():
            scores[f"other scanner: {name}"] = score
    if questions.is_rejected is not None:
        images, labels = questions.digits()["test digits"]
        probs = predict(images.numpy())
        scores |= suspicion_scores(probs, labels, questions.is_rejected)
    return {name: round(float(score), 5) for name, score in scores.items()}


def scores_by_subfolder(predict, folders):
    """Return {folder: {subfolder: share of its images that are called none}}."""
    found = {}
    for name, folder in folders.items():
        is_none = (predict(folder.images.numpy()) <= 0.5).all(1).numpy()
        shares = pd.Series(is_none).groupby(folder.subfolders).mean()
        found[name] = shares.round(5).to_dict()
    return found


def open_sets_of(network, logits_of, questions):
    """Return {non-digits: {digits: {score: trade-off}}} of a function from images to logits."""
    digits = {
        name: (logits_of(images.numpy()), labels)
        for name, (images, labels) in questions.digits().items()
    }
    found = {}
    for non_digits, images in questions.no_digits().items():
        none_logits = logits_of(images.numpy())
        found[non_digits] = {
            name: trade_offs(network, logits, labels, none_logits)
            for name, (logits, labels) in digits.items()
        }
    return found


def softmax_settings(n_train, epochs):
    """Return what the softmax network is trained with; `epochs` None: a few."""
    is_small = n_train < 5000
    return {
        "network": "verdict_cnn",
        "seed": 0,
        "epochs": epochs or (14 if is_small else 4),
        "learning rate": 4e-3,
        "weight decay": 0.02,
        "batch size": 64 if is_small else 256,
    }


def train_softmax(dls, settings):
    """Train the recipe's architecture with cross-entropy, on images of one digit alone."""
    set_seed(settings["seed"], reproducible=True)
    loaders = [dl.new(bs=settings["batch size"]) for dl in dls.loaders]
    plain = type(dls)(*loaders, path=dls.path, device=dls.device)
    plain.train.rng = random.Random(settings["seed"])
    learn = Learner(plain, verdict_cnn(len(dls.vocab)), loss_func=CrossEntropyLossFlat())
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(
            settings["epochs"], settings["learning rate"], wd=settings["weight decay"]
        )
    return learn


def measure(network, train, questions):
    """Train a network, 'recipe' or 'softmax', and return its scores and trade-offs."""
    start, cpu_start = time.perf_counter(), time.process_time()
    learn = train()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start

    def logits_of(images):
        with warnings.catch_warnings():
            # Of a softmax network the logits are read, and not the sigmoids.
            warnings.filterwarnings("ignore", message=".*trains the softmax")
            return sigmoid_preds(learn, images).logits

    def predict(images):
        logits = logits_of(images)
        return logits.sigmoid() if network == "recipe" else logits.softmax(1)

    scores = scores_of(predict, questions)
    open_sets = open_sets_of(network, logits_of, questions)
    for non_digits, by_digits in open_sets.items():
        for digits, by_score in by_digits.items():
            row = named_right_row(non_digits, digits)
            scores[row] = by_score["largest probability"]["named right"]
    scores["seconds"] = round(seconds, 1)
    scores["CPU seconds"] = round(cpu_seconds, 1)
    scores["parameters"] = sum(p.numel() for p in learn.model.parameters())
    by_subfolder = scores_by_subfolder(predict, questions.folders)
    return {"scores": scores, "by subfolder": by_subfolder, "open set": open_sets}


def spread(values):
    """Return mean, smallest and largest of some numbers."""
    return {"mean": np.mean(values), "smallest": np.min(values), "largest": np.max(values)}


def table(runs, baselines, goals):
    """Return a DataFrame with a row per score: in percent, unless it is none of NOT_SHARES."""
    runs = pd.DataFrame(runs)
    rows = []
    for name in runs:
        scale = 1 if name in NOT_SHARES else 100
        row = spread(runs[name]) | {"goal": goals.get(name, np.nan)}
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


def open_set_table(runs, softmax):
    """Return a list of rows: mean, smallest and largest of each number of each trade-off."""
    rows = []
    for network, measured in (("recipe", runs), ("softmax", [softmax])):
        for non_digits, by_digits in measured[0]["open set"].items():
            for digits, by_score in by_digits.items():
                for score in by_score:
                    of_runs = [run["open set"][non_digits][digits][score] for run in measured]
                    row = {"non-digits": non_digits, "digits": digits}
                    row |= {"network": network, "score": score}
                    for number in ("area", "AUROC", "named right"):
                        numbers = spread([run[number] for run in of_runs])
                        row[number] = [round(float(n), 4) for n in numbers.values()]
                    rows.append(row)
    return rows


def arguments(argv=None):
    """Read the command line."""
    summary = __doc__.partition(":")[0]
    parser = argparse.ArgumentParser(prog=COMMAND, description=summary)
    parser.add_argument(
        "--source", help="embedded, mnist or a folder (default: as the notebooks choose)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="default: the recipe's own")
    parser.add_argument(
        "--none",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of images that show no digit, light on dark, of any size",
    )
    parser.add_argument("--resume", action="store_true", help="keep the runs that --out holds")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(argv)


def command_of(args, folders):
    """Return the command that makes the results, with folders by name."""
    words = [COMMAND]
    if args.source:
        words += ["--source", Path(args.source).name]
    words += ["--seeds", *map(str, args.seeds)]
    if args.epochs:
        words += ["--epochs", str(args.epochs)]
    if folders:
        words += ["--none", *folders]
    return " ".join(words)


def settings_of(args, digits, dls, questions):
    """Return what the scores depend on."""
    n_train = len(dls.train_ds)
    return {
        "digits": digits,
        "n_train": n_train,
        "epochs": args.epochs or "the recipe's own",
        "compose": repr(ComposeDigits()),
        "softmax": softmax_settings(n_train, args.epochs),
        "images": {name: len(images) for name, (images, _) in questions.tests.items()},
        "folders": list(questions.folders),
        "rejected": REJECTED,
        "accepted": list(ACCEPTED),
    }


def summary_of(results, goals):
    """Return the tables over all runs."""
    runs = [run["scores"] for run in results["runs"]]
    baselines = results["baselines"] | {"softmax": results["softmax"]["scores"]}
    rows = table(runs, baselines, goals).to_dict("index")
    return {
        "goals": goals,
        "missed": missed(runs, goals),
        "table": {name: pd.Series(row).dropna().to_dict() for name, row in rows.items()},
        "open-set table": open_set_table(results["runs"], results["softmax"]),
    }


def as_json(results):
    """Return results as text, with each list of numbers on one line."""
    text = json.dumps(results, indent=1)
    return re.sub(r"\[[-\d.,e\s]+\]", lambda found: re.sub(r"\s+", "", found[0]), text) + "\n"


def show(results):
    """Print the tables."""
    print()
    print(pd.DataFrame(results["table"]).T.to_string(na_rep=""))
    print("\nmissed by the mean: " + (", ".join(results["missed"]) or "none") + "\n")
    rows = pd.DataFrame(results["open-set table"])
    for number in ("area", "AUROC", "named right"):
        rows[number] = ["{:.4f} ({:.4f} to {:.4f})".format(*of_row) for of_row in rows[number]]
    print(rows.to_string(index=False))


def train_all(args, dls, questions, results, write):
    """Train and score every network that the results lack; call `write` after each seed."""
    if "softmax" not in results:
        train = partial(train_softmax, dls, results["settings"]["softmax"])
        results["softmax"] = measure("softmax", train, questions)
    done = {run["seed"] for run in results["runs"]}
    for seed in args.seeds:
        if seed not in done:
            train = partial(train_verdicts, dls, seed, args.epochs)
            run = measure("recipe", train, questions)
            results["runs"].append({"seed": seed} | run)
            write()
            seconds, exact = run["scores"]["seconds"], run["scores"]["exact"]
            print(f"seed {seed}: {seconds:.0f} s, exact {exact:.4f}", flush=True)


def main(argv=None):
    """Train and score every network that is missing, print the tables and write the file."""
    args = arguments(argv)
    path = digits_path(args.source)
    digits = DIGITS.get(path.name, path.name)
    on_mnist = digits == "MNIST"
    folders = folder_sets(args.none)
    dls = DigitDataLoaders.from_folder(path, valid_pct=0)
    questions = make_questions(dls, on_mnist, folders)
    settings = settings_of(args, digits, dls, questions)
    results = earlier_results(args, settings) or {"runs": []}
    results["about"] = {
        "command": command_of(args, folders),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(default_device()),
        "versions": versions(),
    }
    results["settings"] = settings
    results["baselines"] = {
        name: scores_of(predict, questions)
        for name, predict in verdict_baselines(dls.train_ds.labels).items()
    }

    def write():
        results.update(summary_of(results, goals_for(on_mnist, folders)))
        write_whole(args.out, as_json(results))

    train_all(args, dls, questions, results, write)
    show(results)


if __name__ == "__main__":
    main()
