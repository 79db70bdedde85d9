"""Cases of `SigmoidPreds` and of what takes one."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from matplotlib import pyplot as plt

from multilabel_mnist.ambiguity import confused_pairs, most_ambiguous, out_of_fold_probs
from multilabel_mnist.inference import SigmoidPreds

from .cases_values import (
    case,
    counts,
    logits_of,
    of_size,
    probs_of,
    scalar,
    sizes,
    targets_of,
    thresholds_of,
)
from .expected import (
    entropy,
    need,
    need_count,
    need_number,
    need_probs,
    need_scores,
    need_targets,
    need_threshold,
    sigmoid,
    too_close,
)
from .judge import UNSURE
from .values import (
    NONSENSE,
    Value,
    anything,
    corrupted,
    names,
    no_numbers,
    often,
    plain,
    scalars,
)

# How class names may be passed; a set has no order.
HOLDERS = (list, tuple, lambda o: pd.Series(o, dtype=object), lambda o: (name for name in o))


@st.composite
def vocab_of(draw, n_classes):
    """Draw class names, in any holder, or too many."""
    found = draw(names(n_classes + draw(st.sampled_from((0,) * 7 + (1,)))))
    if draw(st.integers(0, 4)) == 0:
        return Value(None, None)
    return Value(draw(st.sampled_from(HOLDERS))(found), found)


@st.composite
def named_thresholds(draw, n, n_classes):
    """Draw thresholds, sometimes as a dictionary or a Series by the index of the class."""
    if draw(st.integers(0, 2)):
        return draw(thresholds_of(n_classes))
    as_series = draw(st.booleans())
    last = n_classes - 1 if as_series else n_classes  # no class has the last of these names
    chosen = draw(st.lists(st.integers(0, last), max_size=n_classes, unique=True))
    values = draw(st.lists(st.sampled_from((0.0, 0.3, 1.0)), min_size=len(chosen)))
    named = {str(c): value for c, value in zip(chosen, values, strict=False)}
    given = pd.Series(named, dtype=float) if named and as_series else named
    return Value(given, dict(named))


def read_threshold(m, vocab):
    """Return the thresholds that a number, numbers or a dictionary by name mean."""
    if not isinstance(m, dict):
        return need_threshold(m, len(vocab))
    need(all(name in vocab for name in m))
    return np.array([m.get(name, 0.5) for name in vocab])


def read_vocab(m, n_classes):
    """Return class names; text or a set is none."""
    if m is None:
        return [str(c) for c in range(n_classes)]
    need(isinstance(m, list) and len(m) == n_classes)
    return m


def describe_preds(preds):
    """Return all that predictions say, as plain values."""
    return {
        "len": len(preds),
        "vocab": preds.vocab,
        "fires": preds.fires.tolist(),
        "labels": preds.labels,
        "verdicts": preds.verdicts.tolist(),
        "exact": None if preds.exact is None else preds.exact.tolist(),
        "items": preds.items,
        "probs": preds.probs.double().numpy(),
        "repr": repr(preds)[:12],
        "columns": len(preds.to_frame().columns),
    }


def expected_preds(probs, vocab, targets, threshold):
    """Return the same, by definition."""
    fires = probs > threshold
    n_fire = fires.sum(1)
    exact = None
    if targets is not None:
        exact = ((fires == (targets > 0.5)) | np.isnan(targets)).all(1).tolist()
    return {
        "len": len(probs),
        "vocab": vocab,
        "fires": fires.tolist(),
        "labels": [[vocab[c] for c in np.flatnonzero(row)] for row in fires],
        "verdicts": [("none", "one", "several")[min(n, 2)] for n in n_fire],
        "exact": exact,
        "items": list(range(len(probs))),
        "probs": probs,
        "repr": "SigmoidPreds",
        "columns": 3 + len(vocab),
    }


def assert_same_preds(answer, expected):
    answer, expected = dict(answer), dict(expected)
    probs = answer.pop("probs"), expected.pop("probs")
    assert repr(answer) == repr(expected)
    np.testing.assert_allclose(*probs, atol=1e-6)


def targets_or_none(n, n_classes):
    """Draw targets, or None."""
    return st.one_of(st.just(Value(None, None)), targets_of(n, n_classes))


def answer_of(make):
    """Return a function that makes predictions and describes them."""
    return lambda **arguments: describe_preds(make(**arguments))


def preds_case(name, make, scores):
    """Enter the case of a way to make predictions."""
    good = of_size(
        scores=scores,
        vocab=lambda n, c: vocab_of(c),
        targs=targets_or_none,
        threshold=named_thresholds,
    )

    def make_by_name(scores, **others):
        return describe_preds(make(scores, **others))

    return case(name, make_by_name, corrupted(good), same=assert_same_preds, keeps=False)


@preds_case("inference.SigmoidPreds", SigmoidPreds, lambda n, c: logits_of((n, c)))
def _(scores, vocab, targs, threshold):
    scores = need_scores(scores)
    return preds_from(sigmoid(scores), vocab, targs, threshold)


@preds_case(
    "inference.SigmoidPreds.from_probs", SigmoidPreds.from_probs, lambda n, c: probs_of((n, c))
)
def _(scores, vocab, targs, threshold):
    return preds_from(need_probs(scores), vocab, targs, threshold)


def preds_from(probs, vocab, targs, threshold):
    """Return what is expected of predictions; UNSURE where rounding may decide."""
    if isinstance(vocab, np.ndarray):
        return UNSURE  # numbers as names, or targets in second place
    vocab = read_vocab(vocab, probs.shape[1])
    targets = None
    if targs is not None:
        targets = need_targets(targs, probs.shape, answers=True, unknown=True)
    threshold = read_threshold(threshold, vocab)
    probs = probs.astype("float32")
    if too_close(probs, threshold):
        return UNSURE
    return expected_preds(probs, vocab, targets, threshold.astype("float32"))


# Parts, other thresholds and figures of predictions

LOGITS = np.random.default_rng(0).normal(0, 3, (5, 3))
IMAGES = list(np.random.default_rng(1).integers(0, 256, (5, 4, 4), dtype="uint8"))


def some_preds(vocab=None, **others):
    """Return five predictions of three classes."""
    return SigmoidPreds(LOGITS, vocab, targs=[0, 1, 2, 0, 1], items=list(IMAGES), **others)


indices = st.one_of(
    st.integers(-7, 7).map(lambda i: Value(i, i)),
    st.lists(st.integers(-6, 6), max_size=4).map(lambda o: Value(o, o)),
    st.lists(st.booleans(), min_size=4, max_size=6).map(lambda o: Value(np.array(o), o)),
    st.slices(5).map(plain),
)


@case(
    "inference.SigmoidPreds[...]",
    lambda idx: some_preds()[idx].logits.double().numpy(),
    often(indices, st.one_of(no_numbers, scalars)).map(lambda value: {"idx": value}),
    same=lambda answer, expected: np.testing.assert_allclose(answer, expected, rtol=1e-5),
    errors=(ValueError, TypeError, IndexError),  # which ends a loop over predictions
)
def _(idx):
    if isinstance(idx, np.ndarray):
        return UNSURE
    need(isinstance(idx, (int, list, slice)))
    if isinstance(idx, slice):
        return LOGITS[idx]
    idx = [idx] if isinstance(idx, int) else idx
    if idx and isinstance(idx[0], bool):
        need(len(idx) == 5)
        return LOGITS[idx]
    need(all(-5 <= i < 5 for i in idx))
    return LOGITS[np.array(idx, dtype=int)]


@case(
    "inference.SigmoidPreds.read",
    lambda threshold, calibrator: some_preds().read(threshold, calibrator).fires.tolist(),
    corrupted(
        st.fixed_dictionaries(
            {
                "threshold": st.one_of(st.just(Value(None, None)), named_thresholds(5, 3)),
                "calibrator": st.just(Value(None, None)),
            }
        ),
        replacement=anything.filter(lambda value: not callable(value.given)),
    ),
    same=lambda answer, expected: np.testing.assert_array_equal(answer, expected),
)
def _(threshold, calibrator):
    need(calibrator is None)
    threshold = np.array(0.5) if threshold is None else read_threshold(threshold, list("012"))
    return sigmoid(LOGITS) > threshold


def show(vocab, n, ncols, size):
    """Show predictions, and return the titles once they are drawn."""
    plt.close("all")
    preds = some_preds(vocab)
    preds.show(n, ncols, size)
    figure = plt.gcf()
    figure.canvas.draw()
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    plt.close("all")
    return titles


@case(
    "inference.SigmoidPreds.show",
    show,
    corrupted(
        st.fixed_dictionaries(
            {
                "vocab": vocab_of(3),
                "n": counts,
                "ncols": counts,
                "size": st.sampled_from((0.5, 1, 1.1)).map(scalar),
            }
        )
    ),
    same=lambda answer, expected: np.testing.assert_equal(len(answer), expected),
    keeps=False,
    examples=25,
    budget=240.0,
)
def _(vocab, n, ncols, size):
    if isinstance(vocab, np.ndarray):
        return UNSURE
    read_vocab(vocab, 3)
    n = need_count(n, 0)
    need_count(ncols)
    need_number(size, 0.1, 20)
    return min(n, 5)


@case(
    "ambiguity.most_ambiguous",
    lambda preds, k: most_ambiguous(preds, k).logits.double().numpy(),
    corrupted(st.fixed_dictionaries({"preds": st.builds(some_preds).map(plain), "k": counts})),
    same=lambda answer, expected: np.testing.assert_allclose(answer, expected, rtol=1e-5),
)
def _(preds, k):
    need(isinstance(preds, SigmoidPreds))
    k = need_count(k)
    p = sigmoid(LOGITS)
    bits = (entropy(p) + entropy(1 - p)).sum(1)
    return LOGITS[np.argsort(-bits, kind="stable")[:k]]


@st.composite
def preds_with_names(draw):
    """Draw predictions with targets or without, and with odd class names."""
    n, c = draw(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    probs = rng.random((n, c)).astype("float32")
    targs = rng.integers(0, 2, (n, c)) if draw(st.booleans()) else None
    preds = SigmoidPreds.from_probs(probs, draw(names(c)), targs)
    return {"preds": Value(preds, (probs, targs))}


@case(
    "ambiguity.confused_pairs",
    lambda preds: confused_pairs(preds).to_numpy(),
    often(preds_with_names(), anything.map(lambda value: {"preds": value})),
    same=lambda answer, expected: np.testing.assert_allclose(answer, expected, atol=1e-5),
    keeps=False,
)
def _(preds):
    need(isinstance(preds, tuple))
    probs, targs = preds
    both = np.einsum("na,nb->ab", probs, probs)
    if targs is not None:
        true = probs * targs
        both -= np.einsum("na,nb->ab", true, true)
    np.fill_diagonal(both, 0)
    return both.clip(0)


class FakeLearner:
    """Stands in for a trained learner: knows the probabilities of what was held out."""

    def __init__(self, probs):
        self.probs = probs

    def no_bar(self):
        from contextlib import nullcontext

        return nullcontext()

    def get_preds(self):
        return self.probs, None


def fold_makers(n_items):
    """Draw functions from positions to a learner, good ones and bad ones."""
    import torch

    table = torch.rand(max(n_items, 1), 3, generator=torch.Generator().manual_seed(1))

    def make_learner(held):
        return FakeLearner(table[held[held < len(table)]])

    makers = {
        "good": make_learner,
        "too few": lambda held: FakeLearner(table[: len(held) - 1]),
        "logits": lambda held: FakeLearner(make_learner(held).probs * 9 - 20),
        "no tensor": lambda held: FakeLearner(None),
        "no learner": lambda held: table,
        "nothing": lambda held: None,
    }
    good = Value(makers["good"], table.double().numpy())
    bad = [Value(makers[name], NONSENSE) for name in makers if name != "good"]
    return st.sampled_from((good, good, good, good, *bad))


@case(
    "ambiguity.out_of_fold_probs",
    out_of_fold_probs,
    corrupted(
        st.integers(4, 9).flatmap(
            lambda n: st.fixed_dictionaries(
                {
                    "make_learner": fold_makers(n),
                    "n_items": st.just(scalar(n)),
                    "k": st.integers(2, 4).map(scalar),
                    "seed": st.integers(0, 9).map(scalar),
                }
            )
        )
    ),
)
def _(make_learner, n_items, k, seed):
    k = need_count(k, 2)
    need(need_count(n_items) >= k)
    need_count(seed, 0)
    need(isinstance(make_learner, np.ndarray) and make_learner.ndim == 2)
    need(len(make_learner) >= int(n_items))
    if len(make_learner) > int(n_items):
        return make_learner[: int(n_items)]
    return make_learner
