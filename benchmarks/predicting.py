"""(c) Sigmoids of the test images: sigmoid_preds, the bare forward pass, get_preds and predict."""

import torch

from multilabel_mnist.inference import sigmoid_preds

from .lesson import learner, silent
from .loading import normalize
from .timing import in_turns, ratio, seconds

NAMES = {
    "ours": "sigmoid_preds",
    "forward": "model(x).sigmoid() in a loop over batches of uint8",
    "get_preds": "Learner.get_preds",
    "predict": "Learner.predict, image by image",
}


@torch.no_grad()
def forward(model, x, bs, mean, std):
    """Return the sigmoids of uint8 images, as one would write it by hand."""
    model.eval()
    batches = [normalize(x[start : start + bs], mean, std) for start in range(0, len(x), bs)]
    return torch.cat([model(batch).sigmoid() for batch in batches]).cpu()


def run(bench):
    """Time the four ways to predict in turns."""
    learn = learner(bench.dls, 0)
    learn.model.to(bench.device)
    mean, std = bench.mean_std()
    ds = bench.dls.test_ds
    x, _ = bench.in_memory(ds)
    bs = bench.dls.test.bs
    some = [ds.pixels[row] for row in ds.rows[: 10 if bench.quick else 50]]

    def ours():
        return sigmoid_preds(learn, dl=learn.dls.test)

    def by_hand():
        return forward(learn.model, x, bs, mean, std)

    def one_by_one():
        for pixels in some:
            learn.predict(pixels)

    torch.testing.assert_close(ours().probs, by_hand(), rtol=1e-3, atol=1e-4)

    def per_image(predict, n, passes=1 if bench.quick else 3):
        def several():
            for _ in range(passes):
                predict()

        def side(repetition):
            with silent():
                return seconds(several) / n / passes

        return side

    sides = {
        "ours": per_image(ours, len(x)),
        "forward": per_image(by_hand, len(x)),
        "get_preds": per_image(lambda: learn.get_preds(dl=learn.dls.test), len(x)),
        "predict": per_image(one_by_one, len(some), passes=1),
    }
    repeats = bench.repeats if bench.quick else max(9, bench.repeats)  # they are short
    times = in_turns(sides, repeats, say=bench.say)
    rows = [
        (f"{name}: {NAMES[name]}", "us/image", [t * 1e6 for t in taken])
        for name, taken in times.items()
    ]
    ratios = {
        "preds_ours_over_forward": ratio(times, "ours", "forward"),
        "preds_predict_over_ours": ratio(times, "predict", "ours"),
    }
    note = (
        f"{len(x):,} images in batches of {bs}, {repeats} times; predict on {len(some)} of them, "
        "from memory"
    )
    return {"rows": rows, "ratios": ratios, "note": note}
