"""Cases of the names that take logits, probabilities, labels and targets."""

import functools

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st

from multilabel_mnist import ambiguity, calibrate, labels, training

from .expected import (
    entropy,
    need,
    need_choice,
    need_count,
    need_flag,
    need_labels,
    need_numbers,
    need_probs,
    need_scores,
    need_targets,
    need_threshold,
    one_hot,
    refusing,
    sigmoid,
    softplus,
    too_close,
)
from .judge import UNSURE, Case
from .values import (
    DTYPES,
    FLOATS,
    FORMS,
    INTEGERS,
    UNSIGNED,
    Value,
    below,
    corrupted,
    no_numbers,
    normal,
    numbers,
    often,
    plain,
    scalars,
    uniform,
    zeros_and_ones,
)

ALL_FORMS = tuple(FORMS)
LABEL_DTYPES = (*INTEGERS, *UNSIGNED, torch.float32, torch.float64)


def some_unknown(rng, shape):
    """Make targets of which some are NaN."""
    return np.where(rng.random(shape) < 0.2, np.nan, zeros_and_ones(rng, shape))


sizes = st.tuples(st.integers(1, 5), st.integers(1, 4))
flags = st.booleans().map(scalar := lambda o: Value(o, np.asarray(o)))
counts = st.integers(1, 6).map(scalar)


def probs_of(shape):
    """Draw probabilities in any form."""
    return numbers(shape, uniform, FLOATS, ALL_FORMS)


def logits_of(shape):
    """Draw logits in any form."""
    return numbers(shape, normal, FLOATS, ALL_FORMS)


def labels_of(n, n_classes):
    """Draw labels in any form."""
    return numbers((n,), below(n_classes), LABEL_DTYPES, ALL_FORMS)


def targets_of(n, n_classes):
    """Draw labels, or targets, of the right number or another, some of them unknown."""
    good = (
        numbers((n, n_classes), zeros_and_ones, DTYPES[:-2], ALL_FORMS),
        numbers((n, n_classes), zeros_and_ones, (torch.float32,), ALL_FORMS),
        numbers((n, n_classes), some_unknown, FLOATS, ALL_FORMS),
        numbers((n, n_classes), uniform, FLOATS, ALL_FORMS),
        labels_of(n, n_classes),
        numbers((n, 1), below(n_classes), LABEL_DTYPES, ALL_FORMS),
        numbers((n + 1, n_classes), zeros_and_ones, FLOATS, ALL_FORMS),
    )
    return st.one_of(*good)


def thresholds_of(n_classes):
    """Draw one threshold, or one per class, or another number of them."""
    single = st.sampled_from((0.0, 0.25, 0.5, 0.7, 1.0, 1, np.float32(0.5))).map(scalar)
    several = numbers((n_classes,), uniform, FLOATS, ALL_FORMS)
    other = numbers((n_classes + 1,), uniform, FLOATS, ALL_FORMS)
    return st.one_of(single, single, several, other)


@st.composite
def of_size(draw, **parts):
    """Draw arguments by name; each part is a function of (n, n_classes) to a strategy."""
    n, n_classes = draw(sizes)
    return {name: draw(part(n, n_classes)) for name, part in parts.items()}


def arguments(**parts):
    """Draw arguments that belong together, sometimes with anything in the place of one."""
    return corrupted(of_size(**parts))


CASES = []


def case(name, call, arguments, **options):
    """Enter the function that says what is expected of a call."""

    def enter(expected):
        CASES.append(Case(name, call, arguments, refusing(expected), **options))
        return expected

    return enter


# labels


@case(
    "labels.one_hot",
    labels.one_hot,
    arguments(
        labels=labels_of,
        n_classes=lambda n, c: often(st.just(scalar(c)), st.one_of(counts, scalars)),
    ),
)
def _(labels, n_classes):
    n_classes = need_count(n_classes)
    return one_hot(need_labels(labels, n_classes), n_classes)


@case(
    "labels.class_indices",
    labels.class_indices,
    arguments(
        targets=lambda n, c: st.one_of(
            numbers((n, c), lambda rng, shape: np.eye(c)[rng.integers(0, c, n)], DTYPES, ALL_FORMS),
            numbers((n, c), zeros_and_ones, DTYPES, ALL_FORMS),
        )
    ),
)
def _(targets):
    targets = need_numbers(targets, 2)
    need(targets.shape[1] > 0)
    need(np.isin(targets, (0, 1)).all() and (targets.sum(1) == 1).all())
    return targets.argmax(1)


@case(
    "labels.exact_match",
    labels.exact_match,
    arguments(
        inp=lambda n, c: st.one_of(logits_of((n, c)), probs_of((n, c))),
        targ=targets_of,
        thresh=lambda n, c: thresholds_of(c),
        sigmoid=lambda n, c: flags,
    ),
)
def _(inp, targ, thresh, sigmoid_=None, **flag):
    scores = need_scores(inp)
    targets = need_targets(targ, scores.shape, unknown=True)
    threshold = need_threshold(thresh, scores.shape[1])
    probs = sigmoid(scores) if need_flag(flag["sigmoid"]) else scores
    if too_close(probs, threshold):
        return UNSURE
    is_right = ((probs > threshold) == (targets > 0.5)) | np.isnan(targets)
    return np.asarray(is_right.all(1).mean())


def flattened(o):
    """Return the labels in nested Python values, each once it is met; None is no label."""
    if isinstance(o, (list, tuple)):
        return [label for member in o for label in flattened(member)]
    missing = o is None or o == "" or o != o
    return [] if missing else [o]


COLLECTIONS = (
    lambda o: o,
    tuple,
    lambda o: np.array(o, dtype=object),
    lambda o: pd.Series(o, dtype=object),
    lambda o: pd.DataFrame({"a": pd.Series(o, dtype=object)}),
    lambda o: [o, o],
    lambda o: (label for label in o),
    lambda o: [tuple(o), None, o],
    lambda o: dict.fromkeys(o, 0).keys(),
)
words = st.sampled_from(("cat", "dog", "", None, 3, 2.5, float("nan"), "ä", b"b"))


@st.composite
def label_collections(draw):
    """Draw what a `get_y` may return, and the labels in it as nested lists."""
    found = draw(st.lists(words, max_size=4))
    if draw(st.booleans()):
        found = draw(words)
        return {"o": Value(found, found)}
    i = draw(st.integers(0, len(COLLECTIONS) - 1))
    given = COLLECTIONS[i](found)
    if i == len(COLLECTIONS) - 1:
        return {"o": Value(given, list(dict.fromkeys(found)))}
    twice = {5: [found, found], 7: [found, None, found]}
    return {"o": Value(given, twice.get(i, found))}


def assert_equal_lists(answer, expected):
    assert type(answer) is list and answer == expected


@case(
    "labels.as_list",
    lambda o: labels.as_list(lambda item: item)(o),
    label_collections(),
    same=assert_equal_lists,
    keeps=False,
)
def _(o):
    return flattened(o)


@case(
    "labels.as_list (of anything)",
    lambda getter: labels.as_list(getter)("a"),
    often(
        no_numbers.filter(lambda v: not callable(v.given)),
        st.sampled_from((str, repr, len, lambda o: [o])).map(lambda f: Value(f, f)),
        odds=2,
    ).map(lambda value: {"getter": value}),
    same=assert_equal_lists,
)
def _(getter):
    need(callable(getter))
    return flattened(getter("a"))


# training


@case(
    "training.evaluate",
    training.evaluate,
    arguments(
        probs=lambda n, c: probs_of((n, c)),
        targs=targets_of,
        threshold=lambda n, c: thresholds_of(c),
    ),
)
def _(probs, targs, threshold):
    probs = need_probs(probs)
    targets = need_targets(targs, probs.shape)
    threshold = need_threshold(threshold, probs.shape[1])
    if too_close(probs, threshold):
        return UNSURE
    fires = probs > threshold
    rows = np.arange(len(probs))
    top = probs.astype("float32").argmax(1)
    return {
        "top-1": float((targets[rows, top] > 0.5).mean()),
        "exact": float((fires == (targets > 0.5)).all(1).mean()),
        "none fires": float((~fires.any(1)).mean()),
        "several fire": float((fires.sum(1) > 1).mean()),
        "Brier": float(np.square(probs - targets).mean()),
    }


# calibrate


def brute_force(probs, positives, negatives, objective):
    """Return the best score that a shared threshold can have, tried at every place it can be."""
    places = np.unique(np.concatenate([[0, 1], probs.ravel()]))
    return max(threshold_score(probs, positives, negatives, t, objective) for t in places)


def threshold_score(probs, positives, negatives, threshold, objective):
    """Return F1 of the known answers, or the share of images whose known answers are right."""
    fires = probs > threshold
    if objective == "exact":
        return (~np.where(fires, negatives, positives)).all(1).mean()
    hits, alarms = (fires & positives).sum(), (fires & negatives).sum()
    wanted = hits + alarms + positives.sum()
    return 2 * hits / wanted if wanted else 0.0


class Thresholds:
    """What is known of the best thresholds: the probabilities, the targets and the arguments."""

    def __init__(self, probs, targets, per_class, objective, min_positives):
        self.probs = probs.astype("float32").astype("float64")
        self.positives, self.negatives = targets == 1, targets == 0
        self.per_class = per_class
        self.objective = objective
        self.min_positives = min_positives

    def check(self, answer):
        """Raise an AssertionError unless thresholds score as well as any could."""
        probs = self.probs
        answers = self.positives, self.negatives
        best = brute_force(probs, *answers, self.objective)
        if not self.per_class:
            assert type(answer) is float and 0 <= answer <= 1
            score = threshold_score(probs, *answers, answer, self.objective)
            assert np.isclose(score, best), (answer, score, best)
            return
        assert answer.dtype == torch.float32 and answer.shape == probs.shape[1:]
        answer = answer.double().numpy()
        assert ((answer >= 0) & (answer <= 1)).all()
        searched = self.positives.sum(0) >= self.min_positives
        assert len(np.unique(answer[~searched])) <= 1, "classes with few positives share one"
        if self.objective == "exact":
            score = threshold_score(probs, *answers, answer, "exact")
            assert score >= best - 1e-9, (answer, score, best)
            return
        for c in np.flatnonzero(searched):
            p, *own = (o[:, [c]] for o in (probs, *answers))
            score = threshold_score(p, *own, answer[c], "f1")
            assert np.isclose(score, brute_force(p, *own, "f1")), (c, answer, score)


@case(
    "calibrate.tune_thresholds",
    calibrate.tune_thresholds,
    arguments(
        probs=lambda n, c: probs_of((n, c)),
        targs=targets_of,
        per_class=lambda n, c: flags,
        objective=lambda n, c: st.sampled_from(("f1", "exact", "exact")).map(plain),
        min_positives=lambda n, c: st.integers(0, 3).map(scalar),
    ),
    same=lambda answer, expected: expected.check(answer),
)
def _(probs, targs, per_class, objective, min_positives):
    need_choice(objective, ("f1", "exact"))
    min_positives = need_count(min_positives, 0)
    per_class = need_flag(per_class)
    probs = need_probs(probs)
    targets = need_targets(targs, probs.shape, binary=True, answers=True, unknown=True)
    need(not np.isnan(targets).all())
    return Thresholds(probs, targets, per_class, objective, min_positives)


def logsumexp(z):
    """Return log(sum(exp(z))) along the last axis."""
    top = z.max(-1, keepdims=True)
    return (top + np.log(np.exp(z - top).sum(-1, keepdims=True)))[..., 0]


@case(
    "calibrate.margins",
    calibrate.margins,
    arguments(logits=lambda n, c: logits_of((n, c + 1))),
)
def _(logits):
    logits = need_numbers(logits, 2)
    need(logits.shape[1] >= 2)
    if len(logits) == 0 or not np.isfinite(logits).all() or np.abs(logits).max() > 1e4:
        return UNSURE
    others = [np.delete(logits, c, axis=1) for c in range(logits.shape[1])]
    margins = np.stack([logits[:, c] - logsumexp(o) for c, o in enumerate(others)], 1)
    return margins if np.abs(margins).max() < 15 else UNSURE  # float16 and cancellation beyond


def assert_near_margins(answer, expected):
    tolerance = {torch.float16: 0.1, torch.bfloat16: 0.5}.get(answer.dtype, 2e-3)
    assert tuple(answer.shape) == expected.shape
    error = np.abs(answer.detach().double().numpy() - expected).max()
    assert error < tolerance * max(1, np.abs(expected).max()), error


CASES[-1] = Case(**{**vars(CASES[-1]), "same": assert_near_margins})


def fit_and_call(trained_with, logits, targs, others):
    """Fit a calibrator, and read other logits with it."""
    return calibrate.SigmoidCalibrator(trained_with).fit(logits, targs)(others)


def penalized(slope_and_bias, z, y):
    """Return the negative log posterior of a scale and a bias, and its gradient."""
    scale, bias = slope_and_bias
    logits = scale * z + bias
    error = sigmoid(logits) - y
    penalty = ((scale - 1) / 0.3) ** 2 / 2 + bias**2 / 2
    loss = (softplus(logits) - y * logits).sum() + penalty
    return loss, np.array([(error * z).sum() + (scale - 1) / 0.09, error.sum() + bias])


class Calibrated:
    """What is known of calibrated probabilities: the margins or logits, and the targets."""

    def __init__(self, z, targets, others):
        self.z, self.targets, self.others = z, targets, others

    def check(self, answer):
        from scipy.optimize import minimize

        expected = np.empty_like(self.others)
        for c in range(self.z.shape[1]):
            known = ~np.isnan(self.targets[:, c])
            z, y = self.z[known, c], self.targets[known, c]
            fun = functools.partial(penalized, z=z, y=y)
            found = minimize(fun, (1.0, 0.0), jac=True, method="BFGS", options={"gtol": 1e-9})
            expected[:, c] = sigmoid(found.x[0] * self.others[:, c] + found.x[1])
        assert answer.dtype == torch.float32
        np.testing.assert_allclose(answer.double().numpy(), expected, atol=2e-3)


def margins_of(logits):
    """Return margins in float64, by their definition."""
    others = [np.delete(logits, c, axis=1) for c in range(logits.shape[1])]
    return np.stack([logits[:, c] - logsumexp(o) for c, o in enumerate(others)], 1)


@case(
    "calibrate.SigmoidCalibrator",
    fit_and_call,
    arguments(
        trained_with=lambda n, c: st.sampled_from(("sigmoid", "softmax")).map(plain),
        logits=lambda n, c: logits_of((n, c)),
        targs=targets_of,
        others=lambda n, c: logits_of((n, c)),
    ),
    same=lambda answer, expected: expected.check(answer),
    budget=150.0,
)
def _(trained_with, logits, targs, others):
    need_choice(trained_with, ("sigmoid", "softmax"))
    logits, others = need_scores(logits), need_scores(others)
    targets = need_targets(targs, logits.shape, binary=True, answers=True, unknown=True)
    need(not np.isnan(targets).all())
    need(np.isfinite(logits).all() and np.isfinite(others).all())
    need(others.shape[1] == logits.shape[1])
    if trained_with == "softmax":
        need(logits.shape[1] > 1)
        logits, others = margins_of(logits), margins_of(others)
    if max(np.abs(logits).max(), np.abs(others).max()) > 50:
        return UNSURE  # scipy's search is no better than ours there
    return Calibrated(logits, targets, others)


# ambiguity


@case("ambiguity.ambiguity", ambiguity.ambiguity, arguments(probs=lambda n, c: probs_of((n, c))))
def _(probs):
    probs = need_probs(probs)
    return (entropy(probs) + entropy(1 - probs)).sum(1)


@case(
    "ambiguity.label_suspicion",
    ambiguity.label_suspicion,
    arguments(probs=lambda n, c: probs_of((n, c)), labels=targets_of),
)
def _(probs, labels):
    probs = need_probs(probs)
    targets = need_targets(labels, probs.shape, binary=True, answers=True, unknown=True)
    probs = probs.clip(1e-9, 1 - 1e-9)
    bits = -np.log2(np.where(targets == 1, probs, 1 - probs))
    return np.where(np.isnan(targets), 0, bits).sum(1)


def make_images(rng, shape):
    """Make images with some ink."""
    return rng.integers(0, 256, shape) * (rng.random(shape) < 0.5)


@st.composite
def two_images(draw):
    """Draw two images of one size, and a number of steps."""
    shape = draw(st.tuples(st.integers(0, 6), st.integers(0, 6)))
    forms = ("array", "array", "Fortran", "reversed", "read only", "tensor")
    image = numbers(shape, make_images, (torch.uint8,), forms)
    return {"a": draw(image), "b": draw(image), "steps": draw(st.integers(2, 4).map(scalar))}


def assert_morphed(answer, expected):
    first, last, steps = expected
    assert isinstance(answer, np.ndarray) and answer.dtype == np.uint8
    assert answer.shape == (steps, *first.shape)
    np.testing.assert_array_equal(answer[0], first)
    np.testing.assert_array_equal(answer[-1], last)


@case(
    "ambiguity.morph",
    ambiguity.morph,
    corrupted(two_images()),
    same=assert_morphed,
    examples=60,
    budget=120.0,
)
def _(a, b, steps):
    steps = need_count(steps, 2)
    for image in (a, b):
        need(isinstance(image, np.ndarray) and image.dtype == np.uint8)
        need(image.ndim == 2 and image.any())
    need(a.shape == b.shape)
    return (a, b, steps) if steps < 100 else UNSURE
