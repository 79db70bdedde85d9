"""explain() where errors happen: in Jupyter, in IPython, in a script, in plain torch and fastai."""

import gc
import os
import re
import subprocess
import sys
import traceback
import weakref
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from explain_cases import ROWS, SAYS, Y, caught, learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.metrics import accuracy
from torch import nn

from multilabel_mnist.explain import explain

# a failing loop in which no variable has a telling name
FAILS = """
import torch
from torch import nn
net, criterion = nn.Linear(5, 3), nn.BCEWithLogitsLoss()
def go(batch, truth): return criterion(net(batch), truth)
"""
CALL = "go(torch.zeros(4, 5), torch.tensor([0,2,1,1]))"
OUT_OF_RANGE = """
from torch.nn.functional import cross_entropy as ce
for x, y in [(torch.zeros(2, 3), torch.tensor([0, 5]))]: ce(x, y)
"""
env = {**os.environ, "PYTHONWARNINGS": "ignore"}


# in a Jupyter kernel, in IPython, in a script


def run_cells(*cells):
    import nbformat
    from nbclient import NotebookClient

    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(nb, timeout=300, kernel_name="python3", allow_errors=True).execute()
    return [c.outputs for c in nb.cells]


def shown(outputs):
    return "\n".join(o.data.get("text/plain", "") for o in outputs if "data" in o)


def test_a_bare_explain_after_a_failed_cell_in_jupyter():
    outs = run_cells(
        "from multilabel_mnist.explain import explain",
        "explain()",
        FAILS,
        CALL,
        "explain()",
        "{}['no tensors here']",
        "explain()",
        OUT_OF_RANGE,
        "d = explain()\nd",
    )
    assert "No error to explain" in shown(outs[1])
    assert outs[3][0].output_type == "error"
    (data,) = [o.data for o in outs[4] if "data" in o]
    assert SAYS in data["text/plain"]
    assert "[4, 3]" in data["text/plain"]
    assert "text/html" in data
    assert "no tensors" in shown(outs[6])
    assert "label-out-of-range" in shown(outs[8])


def test_a_bare_explain_in_ipython():
    code = f"""
from IPython.core.interactiveshell import InteractiveShell
sh = InteractiveShell.instance()
load = 'from multilabel_mnist.explain import explain'
for cell in (load, {FAILS!r}, {CALL!r}, 'print(explain())'): sh.run_cell(cell)
"""
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert f"\n{SAYS}" in out.stdout, out.stdout + out.stderr


def test_a_script_that_catches_and_one_that_hooks(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        f"""{FAILS}
import sys
from multilabel_mnist.explain import explain
try: {CALL}
except Exception as e: print('caught', explain(e).cause)
try: {CALL}
except Exception: print('bare', explain().cause)
def hook(kind, exc, tb): print('hooked', explain(exc).cause)
sys.excepthook = hook
{CALL}
""",
        encoding="utf-8",
    )
    out = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    expected = [f"{k} {SAYS}" for k in ("caught", "bare", "hooked")]
    assert out.stdout.splitlines()[:3] == expected, out.stdout + out.stderr


def test_without_fastai_in_a_script(tmp_path):
    script = tmp_path / "loop.py"
    script.write_text(
        f"""
import sys
sys.modules['fastai'] = None # any import of it fails now
{FAILS}
from multilabel_mnist.explain import MismatchError, explain
def train(batches, optimizer):
    for batch, truth in batches:
        loss = go(batch, truth)
        loss.backward(); optimizer.step(); optimizer.zero_grad()
x, y = torch.zeros(4, 5), torch.tensor([0,2,1,1])
batches = [(x, torch.eye(3)[y]), (x, y)]
try: train(batches, torch.optim.SGD(net.parameters(), lr=.1))
except Exception as e: print(explain(e))
try: from multilabel_mnist.explain import ExplainMismatch
except ImportError as e: print(e)
""",
        encoding="utf-8",
    )
    out = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    says = out.stdout + out.stderr
    assert out.stdout.startswith(f"{SAYS} (raises an error)\n[4, 3] is the prediction"), says
    assert "fastai" in out.stdout.splitlines()[-1], says


def test_without_fastai_in_jupyter():
    outs = run_cells(
        FAILS,
        CALL,
        "from multilabel_mnist.explain import explain\nexplain()",
        'import sys; [m for m in sys.modules if m.startswith("fastai")]',
    )
    assert SAYS in shown(outs[2])
    assert shown(outs[3]) == "[]"


def test_the_prompt_after_a_failed_script(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        f"from multilabel_mnist.explain import explain\n{FAILS}\n{CALL}\n", encoding="utf-8"
    )
    out = subprocess.run(
        [sys.executable, "-i", script],
        input="print(explain().cause)\n",
        env=env,
        capture_output=True,
        text=True,
    )
    assert SAYS in out.stdout, out.stdout + out.stderr


# what it finds, and what it says when it finds nothing


net = nn.Linear(5, 3)
labels = torch.tensor([0, 2, 1, 1])
bce = nn.BCEWithLogitsLoss()
flat = BCEWithLogitsLossFlat()


def batch():
    return torch.zeros(4, 5)


class Classifier(nn.Module):
    """A model that calls its loss inside `forward`, as those of transformers do."""

    def __init__(self):
        super().__init__()
        self.num_labels = 3
        self.score = nn.Linear(5, 3)

    def forward(self, input_ids, labels=None):
        logits = self.score(input_ids)
        loss_fct = nn.BCEWithLogitsLoss()
        return loss_fct(logits, labels), logits


def plain():
    guess = net(batch())
    truth = labels
    return F.binary_cross_entropy_with_logits(guess, truth)


def flat_by_name():
    guess = net(batch())
    return flat(guess, labels)


@pytest.mark.parametrize(
    "f",
    [
        plain,
        flat_by_name,
        lambda: bce(net(batch()), labels),
        lambda: bce(target=labels, input=net(batch())),
        lambda: flat(net(batch()), labels),
        lambda: F.binary_cross_entropy_with_logits(net(batch()), labels, pos_weight=torch.ones(3)),
        lambda: Classifier()(input_ids=batch(), labels=labels),
    ],
    ids="function flat-by-name module keywords flat-inline pos-weight transformers".split(),
)
def test_finds_the_call_whatever_the_loop_looks_like(f):
    d = explain(caught(f))
    assert d.cause == SAYS
    assert d.pred_shape == (4, 3)
    assert d.targ_shape == (4,)


def test_a_flat_loss_with_its_classes_on_axis_1():
    def f():
        maps = torch.randn(2, 4, 8, 8)
        masks = torch.zeros(2, 7, 8, dtype=torch.long)
        return CrossEntropyLossFlat(axis=1)(maps, masks)

    d = explain(caught(f))
    assert d.pred_shape == (2, 4, 8, 8)
    assert d.targ_shape == (2, 7, 8)


def test_a_loss_of_your_own(monkeypatch):
    class SoftDiceLoss(nn.Module):
        def forward(self, y_pred, y_true):
            return 1 - (y_pred * y_true).sum()

    def count_loss(preds, targs):
        return (preds - targs).abs().mean()

    d = explain(caught(SoftDiceLoss(), torch.zeros(4, 3), torch.zeros(4, 2)))
    assert not d.ok
    assert d.pred_shape == (4, 3)
    assert d.targ_shape == (4, 2)
    monkeypatch.setitem(globals(), "count_loss", count_loss)
    d = explain(caught(count_loss, torch.zeros(4, 3), torch.zeros(4, 2)))
    assert not d.ok
    assert d.pred_shape == (4, 3)
    assert d.targ_shape == (4, 2)


def test_follows_chained_errors():
    def because():
        try:
            plain()
        except Exception as e:
            raise KeyError("later") from e

    def meanwhile():
        try:
            plain()
        except Exception:
            {}["later"]

    def hidden():
        try:
            plain()
        except Exception:
            raise KeyError("later") from None

    for f in because, meanwhile, hidden:
        assert explain(caught(f)).cause == SAYS


def test_says_why_there_is_no_diagnosis():
    def by_hand():
        out = net(batch())
        y = torch.zeros(4, 2)
        return ((out - y) ** 2).mean()

    stripped = caught(plain).with_traceback(None)
    cleared = caught(plain)
    traceback.clear_frames(cleared.__traceback__)
    cases = [
        (caught(by_hand), "out [4, 3] float32, y [4, 2] float32"),
        (caught(net, torch.zeros(4, 7)), "input [4, 7] float32"),
        (caught(lambda: {}["x"]), "no tensors"),
        (stripped, "no traceback"),
        (cleared, "was cleared"),
        ("text", "expected an error, got 'text'"),
    ]
    for exc, fragment in cases:
        d = explain(exc)
        assert d.cause == "unexplained"
        assert not d.ok
        assert not d.certain
        assert fragment in d.explanation
        assert fragment in str(d)
        assert "<img" not in d._repr_html_()


def test_a_fitting_loss_is_not_blamed():
    class Moody(nn.CrossEntropyLoss):
        error = None

        def forward(self, input, target):
            if self.error:
                raise self.error
            return super().forward(input, target)

    loss = Moody()
    for error, fragment in [
        (RuntimeError("once"), "comes from elsewhere"),
        (OSError("disk full"), "not about whether"),
        (torch.OutOfMemoryError("full"), "not about whether"),
    ]:
        loss.error = error
        e = caught(loss, torch.randn(4, 3), labels)
        loss.error = None
        assert fragment in explain(e).explanation


def test_an_error_without_a_text():
    class NoText(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def fails():
        raise NoText

    d = explain(caught(fails))
    assert d.cause == "unexplained"
    assert d.message is None
    assert d.explanation.startswith("This NoText has no tensors")


def test_an_object_that_has_no_attributes_to_ask_for():
    class NoAttributes:
        def __getattr__(self, name):
            raise RuntimeError("no")

        def loss(self, input, target):
            raise ValueError("x")

    d = explain(caught(NoAttributes.loss, NoAttributes(), torch.zeros(1), torch.zeros(1)))
    assert d.cause == "unexplained"
    assert "nearest to it are in `loss`: input [1] float32" in d.explanation


class LossWithThree(nn.MSELoss):
    def forward(self, input, target, weight):
        raise ValueError("x")


class CountLoss:
    def __call__(self, pred):
        raise ValueError("x")


def no_loss():
    raise ValueError("x")


def pred_loss(pred, targ, weight):
    raise ValueError("x")


def local_loss(guess, truth):
    def loss(pred, targ):
        raise ValueError("x")

    return loss(guess, truth)


@pytest.mark.parametrize(
    "f, args",
    [
        (bce, 1),
        (nn.MSELoss(), 3),
        (LossWithThree(), 3),
        (CountLoss(), 1),
        (no_loss, 0),
        (pred_loss, 3),
        (local_loss, 2),
        (flat, 1),
    ],
    ids=lambda o: getattr(o, "__name__", type(o).__name__),
)
def test_what_looks_like_a_call_of_a_loss_and_is_none(f, args):
    error = caught(f, *[torch.zeros(4, 3)] * args)
    d = explain(error)
    assert d.cause == "unexplained"
    assert "was called with" not in d.explanation
    assert "itself failed" not in d.explanation
    assert d.message == str(error)


def test_a_loss_module_is_called_with_numbers():
    d = explain(caught(bce, [0.5, 0.5], [0.0, 1.0]))
    assert d.cause == "unexplained"
    assert "itself failed" not in d.explanation


def test_tensors_that_can_not_be_read_any_more():
    class OnABrokenGpu(torch.Tensor):
        def cpu(self):
            raise RuntimeError("CUDA error: device-side assert triggered")

    def fails(input, target):
        raise RuntimeError("CUDA error: device-side assert triggered")

    class BrokenLoss(nn.MSELoss):
        forward = staticmethod(fails)

    d = explain(caught(BrokenLoss(), torch.zeros(4, 3).as_subclass(OnABrokenGpu), labels))
    assert d.cause == "unexplained"
    assert "BrokenLoss was called with a prediction [4, 3] float32" in d.explanation
    assert "can no longer be read" in d.explanation


def test_an_error_of_our_own_is_named_with_its_line(monkeypatch):
    def diagnose(loss_func, pred, targ):
        raise KeyError("axis")

    monkeypatch.setattr("multilabel_mnist.explain.diagnose", diagnose)
    error = caught(plain)
    d = explain(error)
    assert d.cause == "unexplained"
    assert d.message == str(error)
    named = re.search(
        r"itself failed: KeyError: 'axis' \(explain.py, line (\d+), in diagnose_call\)",
        d.explanation,
    )
    source = (
        Path(sys.modules["multilabel_mnist.explain"].__file__)
        .read_text(encoding="utf-8")
        .splitlines()
    )
    assert "diagnose(" in source[int(named[1]) - 1]
    assert "Please report it" in d.explanation


def test_an_error_in_the_reading_of_a_traceback_is_named(monkeypatch):
    def read_frames(error):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("multilabel_mnist.explain.read_frames", read_frames)
    d = explain(caught(plain))
    assert d.cause == "unexplained"
    assert "itself failed: ZeroDivisionError: two (explain.py, line" in d.explanation


def test_keeps_no_tensor_alive():
    def life(inner):
        guess = torch.zeros(4, 3)
        try:
            inner(guess, labels)
        except Exception as e:
            d = explain(e)
        return weakref.ref(guess), d

    gc.collect()
    gc.disable()
    try:
        for inner in bce, flat:
            assert life(inner)[0]() is None
    finally:
        gc.enable()


# in a fastai fit


def test_explain_reads_the_learner_where_the_flat_loss_holds_640():
    learn = learner(Y, loss=BCEWithLogitsLossFlat())
    e = caught(learn.fit, 1)
    d = explain(e)
    assert "torch.Size([64])" in str(e)
    assert "torch.Size([640])" in str(e)
    assert d.cause == SAYS
    assert d.pred_shape == (64, 10)
    assert d.targ_shape == (64,)


def test_explain_reads_a_failed_metric():
    d = explain(caught(learner(ROWS, loss=BCEWithLogitsLossFlat(), metrics=accuracy).fit, 1))
    assert d.cause == "metric-mismatch"


def test_explain_does_not_blame_the_loss_for_the_models_own_error():
    learn = learner(Y)
    learn.fit(1)
    learn.dls.train.dataset[:] = [(torch.zeros(7), y) for y in Y]
    d = explain(caught(learn.fit, 1))
    assert d.cause == "unexplained"
    assert "not raised by a loss" in d.explanation


def test_explain_of_a_learner_with_two_targets():
    def two_losses(pred, first, second):
        return F.cross_entropy(pred, first) + F.binary_cross_entropy_with_logits(pred, second)

    learn = learner(Y, loss=two_losses)
    learn.dls.train.dataset[:] = [(x, y, y) for x, y in learn.dls.train.dataset]
    learn.dls.n_inp = 1
    d = explain(caught(learn.fit, 1))
    assert d.cause == SAYS
    assert d.pred_shape == (64, 10)


# A loss that is not reduced, after it has returned


NOT_REDUCED = [
    (nn.CrossEntropyLoss(reduction="none"), torch.tensor([0, 2, 1, 1]), [4]),
    (nn.BCEWithLogitsLoss(reduction="none"), torch.zeros(4, 3), [4, 3]),
    (nn.MSELoss(reduction="none"), torch.randn(4, 3), [4, 3]),
    (lambda pred, targ: (pred - targ).abs().mean(1), torch.randn(4, 3), [4]),
]


@pytest.mark.parametrize("loss, targ, shape", NOT_REDUCED)
def test_backward_on_several_numbers_in_a_loop_of_your_own(loss, targ, shape):
    def step():
        errors = loss(nn.Linear(5, 3)(torch.zeros(4, 5)), targ)
        errors.backward()

    d = explain(caught(step))
    assert (d.ok, d.cause, d.certain, d.silent) == (False, "loss-not-reduced", True, False)
    assert f"`errors`, {shape} float32" in d.explanation and "scalar" in d.message
    names = {"errors": torch.ones(shape)}
    exec(d.fixes[0], names)
    assert names["errors"] == 1


@pytest.mark.parametrize(
    "loss, y",
    [
        (nn.CrossEntropyLoss(reduction="none"), Y),
        (CrossEntropyLossFlat(reduction="none"), Y),
        (BCEWithLogitsLossFlat(reduction="none"), ROWS),
    ],
)
def test_backward_on_several_numbers_in_a_fit(loss, y):
    d = explain(caught(learner(y, loss=loss).fit, 1))
    assert d.cause == "loss-not-reduced" and d.pred_shape == (64, 10)
    assert d.fixes[0].endswith('reduction = "mean"')


@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 2, 2)])
def test_backward_that_fails_for_another_reason(shape):
    value = torch.randn(shape)  # requires no gradient
    d = explain(caught(lambda: value.backward(torch.ones(shape))))
    assert d.cause == "unexplained"
    assert explain(caught(lambda: value.sum().backward())).cause == "unexplained"
