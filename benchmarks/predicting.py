"""(c) Sigmoids of the test images: `sigmoid_preds`, the bare forward pass, fastai's get_preds, and predict in a loop."""
import torch

from multilabel_mnist.inference import sigmoid_preds

from .lesson import learner, silent
from .timing import in_turns, ratio, seconds

NAMES = {"ours": "sigmoid_preds", "forward": "model(x).sigmoid() in a loop over batches of uint8", "get_preds": "Learner.get_preds", "predict": "Learner.predict, image by image"}


@torch.no_grad()
def forward(model, x, bs, mean, std):
    model.eval()
    return torch.cat([model(x[i:i + bs].float().div_(255).sub_(mean).div_(std)).sigmoid() for i in range(0, len(x), bs)]).cpu()


def one_by_one(learn, pictures):
    for px in pictures:
        learn.predict(px)


def run(bench):
    learn, (mean, std), ds = learner(bench.dls, 0), bench.mean_std(), bench.dls.test_ds
    learn.model.to(bench.device)
    (x, _), bs = bench.in_memory(ds), bench.dls.test.bs
    some = [ds.pixels[i] for i in ds.rows[:10 if bench.quick else 50]]
    torch.testing.assert_close(sigmoid_preds(learn, dl=learn.dls.test).probs, forward(learn.model, x, bs, mean, std), rtol=1e-3, atol=1e-4)

    def per_image(f, n, passes=1 if bench.quick else 3):
        def timed(r):
            with silent():
                return seconds(lambda: [f() for _ in range(passes)]) / n / passes
        return timed

    sides = {"ours": per_image(lambda: sigmoid_preds(learn, dl=learn.dls.test), len(x)),
             "forward": per_image(lambda: forward(learn.model, x, bs, mean, std), len(x)),
             "get_preds": per_image(lambda: learn.get_preds(dl=learn.dls.test), len(x)),
             "predict": per_image(lambda: one_by_one(learn, some), len(some), 1)}
    times = in_turns(sides, bench.repeats, say=bench.say)
    rows = [(f"{name}: {NAMES[name]}", "us/image", [t * 1e6 for t in ts]) for name, ts in times.items()]
    ratios = {"preds_ours_over_forward": ratio(times, "ours", "forward"), "preds_predict_over_ours": ratio(times, "predict", "ours")}
    return {"rows": rows, "ratios": ratios, "note": f"{len(x):,} images in batches of {bs}; predict on {len(some)} of them, from memory"}
