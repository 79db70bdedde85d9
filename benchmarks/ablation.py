"""What each ingredient of the recipe buys: `python -m benchmarks.ablation --help`.

Trains the small network of the lesson on compositions, with several seeds: first the ladder, which
adds one ingredient after another, then all ingredients but one. Every network is asked the same
questions on images of testing/ and, if it was trained on MNIST, on scikit-learn's digits, which
other people wrote and another scanner read. Writes the scores of every run, with what they come
from, to a file that the lesson reads.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.torch_core import default_device, set_seed

from multilabel_mnist.compose import ComposeDigits
from multilabel_mnist.convert import to_multilabel
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.draw import RandomSource, affine, hard_negatives, small_digit
from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.labels import one_hot
from multilabel_mnist.training import digit_cnn
from multilabel_mnist.verdicts import verdict_scores, verdict_tests
from tools.files import write_whole

from .__main__ import DIGITS
from .resume import earlier_results
from .timing import machine, versions

OUT = Path(__file__).resolve().parent / "ablation.json"
COMMAND = "python -m benchmarks.ablation"
# In the order of the ladder: the name in tables, and the arguments of ComposeDigits.
INGREDIENTS = {
    "pairs": ("overlaid", "shifted", "beside", "squeezed"),
    "three and small digits": ("three", "alone"),
    "noise and hard negatives": ("noise", "pieces"),
    "letters and strokes": ("characters", "strokes"),
    "other hands": ("nudged",),
    "other pens and scanners": ("thickened", "rescanned", "faint"),
}
LR = 1e-2
BATCH_SIZE = 64


def shares_by_rung():
    """Return {name: arguments of ComposeDigits}: the ladder, then all ingredients but one."""
    recipe = ComposeDigits()
    whole = recipe.shares | recipe.of_all
    so_far = dict.fromkeys(whole, 0.0)
    rungs = {"BCE alone": so_far}
    for name, arguments in INGREDIENTS.items():
        so_far = so_far | {argument: whole[argument] for argument in arguments}
        rungs[f"+ {name}"] = so_far
    # Without the last ingredient is the rung before the last.
    for name, arguments in list(INGREDIENTS.items())[:-1]:
        rungs[f"without {name}"] = whole | dict.fromkeys(arguments, 0.0)
    return rungs


def train(dls, shares, seed, epochs):
    """Train the lesson's network on batches of these compositions."""
    set_seed(seed, reproducible=True)
    composed = to_multilabel(dls)
    composed.add_tfms([ComposeDigits(**shares)], "after_batch", "train")
    composed.train.rng = random.Random(seed)
    learn = Learner(composed, digit_cnn(len(dls.vocab)), loss_func=BCEWithLogitsLossFlat())
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, LR)
    return learn


def pixels_and_labels(dataset):
    """Return the uint8 images and the labels of a data set of digits."""
    return np.asarray(dataset.pixels[dataset.rows]), dataset.labels


def three_in_a_row(digits, targets, source):
    """Put three random digits at half their size next to each other; return images and targets."""
    chosen = source.randint(len(digits), 3, len(digits))
    placed = [affine(digits[i], 0.5, dx) for i, dx in zip(chosen, (-9, 0, 9), strict=True)]
    return torch.stack(placed).amax(0), targets[chosen].amax(0)


def to_bytes(images):
    """Return images of floats, (n, 1, H, W), as uint8 (n, H, W)."""
    return (images[:, 0] * 255).byte()


def test_sets(dls):
    """Return {name: (images, targets)} of the lesson, made from the test digits."""
    pixels, labels = pixels_and_labels(dls.test_ds)
    tests = verdict_tests(pixels, labels)
    source = RandomSource(generator=torch.Generator().manual_seed(42))
    chosen = source.randperm(len(labels))[:1000]
    digits, targets = (o[chosen] for o in tests["one digit"])
    digits = digits[:, None] / 255
    tests["small"] = to_bytes(small_digit(digits, source)), targets
    tests["cut up"] = to_bytes(hard_negatives(digits, source)), torch.zeros_like(targets)
    three, three_targets = three_in_a_row(digits, targets, source)
    tests["three"] = to_bytes(three), three_targets
    return tests


def digits_from_elsewhere():
    """Return scikit-learn's 1,797 digits, as a test set of single digits."""
    dls = DigitDataLoaders.from_folder(digits_path("embedded"), valid_pct=0)
    halves = [pixels_and_labels(dataset) for dataset in (dls.train_ds, dls.test_ds)]
    pixels, labels = (np.concatenate(parts) for parts in zip(*halves, strict=True))
    return {"one digit": (torch.from_numpy(pixels), one_hot(torch.as_tensor(labels), 10))}


def scores_of(learn, tests, elsewhere):
    """Return {column: share} of one network. Columns of digits from elsewhere say so."""

    def predict(images):
        return sigmoid_preds(learn, images).probs

    scores = verdict_scores(predict, tests)
    if elsewhere:
        for name, score in verdict_scores(predict, elsewhere).items():
            scores[f"elsewhere: {name}"] = score
    return {name: round(float(score), 5) for name, score in scores.items()}


def arguments(argv=None):
    """Read the command line."""
    summary = __doc__.partition(":")[0]
    parser = argparse.ArgumentParser(prog=COMMAND, description=summary)
    parser.add_argument(
        "--source", help="embedded, mnist or a folder (default: as the notebooks choose)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--n-train", type=int, default=10_000, help="training images (default: 10000)"
    )
    parser.add_argument("--epochs", type=int, help="default: 6, or 14 of less than 5,000 images")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks only")
    parser.add_argument("--resume", action="store_true", help="keep the runs that --out holds")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(argv)


def settings_of(args, path, dls):
    """Return what the scores depend on."""
    n_train = len(dls.train_ds)
    return {
        "digits": DIGITS.get(path.name, path.name),
        "n_train": n_train,
        "n_test": len(dls.test_ds),
        "epochs": args.epochs or (6 if n_train > 5000 else 14),
        "learning rate": LR,
        "batch size": BATCH_SIZE,
        "network": "digit_cnn",
        "shares": shares_by_rung()[f"+ {list(INGREDIENTS)[-1]}"],
    }


def earlier_runs(args, settings):
    """Return the runs that --out holds, to go on from."""
    earlier = earlier_results(args, settings)
    return earlier["runs"] if earlier else []


def main(argv=None):
    """Train and score every network that is missing, and write the file after each."""
    args = arguments(argv)
    path = digits_path(args.source)
    dls = DigitDataLoaders.from_folder(path, bs=BATCH_SIZE, n_train=args.n_train)
    settings = settings_of(args, path, dls)
    about = {
        "command": COMMAND,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(default_device()),
        "versions": versions(),
    }
    tests = test_sets(dls)
    elsewhere = digits_from_elsewhere() if settings["digits"] == "MNIST" else None
    runs = earlier_runs(args, settings)
    done = {(run["name"], run["seed"]) for run in runs}
    for seed in args.seeds:
        for name, shares in shares_by_rung().items():
            if (name, seed) in done or (args.only and name not in args.only):
                continue
            start = time.perf_counter()
            learn = train(dls, shares, seed, settings["epochs"])
            seconds = round(time.perf_counter() - start, 1)
            scores = scores_of(learn, tests, elsewhere)
            runs.append({"name": name, "seed": seed, "seconds": seconds, "scores": scores})
            print(f"{name}, seed {seed}: {seconds:.0f} s, exact {scores['exact']:.3f}", flush=True)
            results = {"about": about, "settings": settings, "runs": runs}
            write_whole(args.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
