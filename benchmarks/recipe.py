"""(h) Training the recipe: in bfloat16 with a fused optimizer, and in float32 without."""

from unittest.mock import patch

from fastai.optimizer import Adam

from multilabel_mnist import compose, precision

from .lesson import silent
from .timing import in_turns, ratio


def plain_adam(params, lr, betas, eps, wd=0.0):
    """Return fastai's own Adam with the settings of torch's, under its names for them."""
    return Adam(params, lr=lr, mom=betas[0], sqr_mom=betas[1], eps=eps, wd=wd)


def run(bench):
    """Time one epoch of some images in both ways, in turns."""
    n = 512 if bench.quick else 12_288  # more than 10,000, so that batches hold 256 images
    dls = bench.loaders(n_train=n)

    def train(seed):
        with silent():
            compose.train_verdicts(dls, seed=max(seed, 0), epochs=1)

    def in_float32(seed):
        with (
            patch.object(precision, "computes_bfloat16", lambda device: False),
            patch.object(compose, "fused_adam", plain_adam),
        ):
            train(seed)

    names = {
        "recipe": "train_verdicts, one epoch",
        "float32": "the same in float32, with fastai's own Adam",
    }
    sides = {"recipe": train, "float32": in_float32}
    times = in_turns(sides, bench.repeats, say=bench.say)
    rows = [(f"{name}: {names[name]}", "s", taken) for name, taken in times.items()]
    ratios = {"recipe_over_float32": ratio(times, "recipe", "float32")}
    note = f"{n:,} training images, validation on {len(dls.valid_ds):,}"
    return {"rows": rows, "ratios": ratios, "note": note}
