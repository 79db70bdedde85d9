"""Trains the networks that the package ships, and writes their files: `python -m tools.weights`.

One is the recipe, `train_verdicts`; the other learns the same images with softmax. Beside the
weights it writes their scores into the card, README.md. Afterwards `python -m tools.draw` puts the
new weights into the page that one can draw on.
"""

import argparse
import random
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from fastai.basics import Learner, Normalize, no_random
from fastai.losses import CrossEntropyLossFlat
from torch import nn

from multilabel_mnist.classifier import SigmoidClassifier
from multilabel_mnist.compose import train_verdicts
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.shipped import WEIGHTS, pack_network, read_network
from multilabel_mnist.training import digit_cnn
from multilabel_mnist.verdicts import verdict_baselines, verdict_scores, verdict_tests

from .files import write_whole

CARD = "README.md"
MARK = "<!-- what follows is written by `python -m tools.weights` -->\n"
FILES = {"the recipe": "verdicts.safetensors", "softmax": "softmax.safetensors"}
ACTIVATIONS = {"the recipe": torch.sigmoid, "softmax": lambda logits: logits.softmax(1)}
SOFTMAX_EPOCHS = 3


@dataclass
class Trained:
    """A network, and how the images were normalized that it was trained on."""

    model: nn.Module
    mean: float
    std: float


def of_learner(learn):
    """Return the network of a learner."""
    (normalize,) = (f for f in learn.dls.valid.after_batch.fs if isinstance(f, Normalize))
    return Trained(learn.model.cpu(), normalize.mean.item(), normalize.std.item())


def train_softmax(dls, seed, epochs):
    """Train the small network of the lessons with softmax."""
    dls.train.rng = random.Random(seed)  # the order of the images
    with no_random(seed):
        learn = Learner(dls, digit_cnn(), loss_func=CrossEntropyLossFlat())
        learn.fit_one_cycle(epochs, 1e-2)
    return learn


def train(source, seed=0, epochs=None):
    """Return both networks by name; `epochs` are those of the recipe, None its own."""
    dls = DigitDataLoaders.from_folder(digits_path(source), valid_pct=0)
    return {
        "the recipe": of_learner(train_verdicts(dls, seed=seed, epochs=epochs)),
        "softmax": of_learner(train_softmax(dls, seed, epochs or SOFTMAX_EPOCHS)),
    }


def write_networks(networks, folder):
    """Write each network into its file."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = [str(digit) for digit in range(10)]
    for name, trained in networks.items():
        packed = pack_network(trained.model, trained.mean, trained.std, vocab)
        write_whole(folder / FILES[name], packed)


def probs_of(folder, name):
    """Return the function from images to the probabilities of a network that was written."""
    classifier = SigmoidClassifier(*read_network(folder / FILES[name]))
    return lambda images: ACTIVATIONS[name](classifier(images).logits)


def digits_to_score(source):
    """Return images, uint8 (n, 28, 28), and labels that no network here was trained on."""
    dls = DigitDataLoaders.from_folder(digits_path(source), valid_pct=0)
    sets = [dls.test_ds] if source == "mnist" else [dls.train_ds, dls.test_ds]
    pixels = np.concatenate([np.asarray(ds.pixels[ds.rows]) for ds in sets])
    return pixels, np.concatenate([ds.labels for ds in sets])


def scores_on(source, folder):
    """Return the scores of both networks and of the baselines, and how many digits there are."""
    images, labels = digits_to_score(source)
    tests = verdict_tests(images, labels)
    predictors = {name: probs_of(folder, name) for name in FILES} | verdict_baselines(labels)
    scores = {name: verdict_scores(predict, tests) for name, predict in predictors.items()}
    return scores, len(labels)


def table(scores):
    """Return scores as a markdown table, in percent."""
    columns = list(next(iter(scores.values())))
    lines = [["", *columns], ["---", *["---:"] * len(columns)]]
    for name, row in scores.items():
        lines.append([name, *(f"{100 * row[column]:.1f}" for column in columns)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_card(folder, how, sources=("mnist", "embedded")):
    """Write the scores of the networks in a folder into its card, below the mark."""
    titles = {
        "mnist": "MNIST's {n:,} test digits",
        "embedded": "The {n:,} embedded digits, of other writers and another scanner",
    }
    parts = [how]
    for source in sources:
        scores, n = scores_on(source, folder)
        parts += [f"### {titles[source].format(n=n)}", table(scores)]
    card = WEIGHTS / CARD
    before, _, _ = card.read_text(encoding="utf-8").partition(MARK)
    write_whole(folder / CARD, f"{before}{MARK}\n" + "\n\n".join(parts) + "\n")


def arguments(argv=None):
    """Read the command line."""
    summary = __doc__.partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.weights", description=summary)
    parser.add_argument("--source", default="mnist", help="embedded or mnist (default: mnist)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="default: the recipe's own")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="default: the package's folder")
    return parser.parse_args(argv)


def how_trained(source, seed, epochs=None):
    """Say by which command the networks were trained, and with which versions."""
    words = ["python -m tools.weights", f"--source {source}", f"--seed {seed}"]
    words += [] if epochs is None else [f"--epochs {epochs}"]
    versions = f"torch {version('torch')} and fastai {version('fastai')}"
    return f"Trained by `{' '.join(words)}` with {versions}. All scores are in percent."


def main(argv=None):
    """Train both networks, write them and their card."""
    args = arguments(argv)
    write_networks(train(args.source, args.seed, args.epochs), args.out)
    # Networks that were trained on the embedded digits are not scored on them.
    sources = ["mnist", "embedded"] if args.source == "mnist" else []
    write_card(args.out, how_trained(args.source, args.seed, args.epochs), sources)
    for name in [*FILES.values(), CARD]:
        print(f"{args.out / name}: {(args.out / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
