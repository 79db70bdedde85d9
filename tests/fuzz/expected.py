"""What is right, computed from the arguments' meanings with numpy alone."""

import functools

import numpy as np

from .judge import REFUSED


class Refuse(Exception):
    """Says that a call with these arguments must raise an error."""


def refusing(compute):
    """Turn a function that raises Refuse into one that returns REFUSED."""

    @functools.wraps(compute)
    def expected(**meanings):
        try:
            return compute(**meanings)
        except Refuse:
            return REFUSED

    return expected


def need(condition):
    """Refuse unless a condition holds."""
    if not condition:
        raise Refuse


def is_numeric(m):
    """Say whether a meaning is real numbers."""
    return isinstance(m, np.ndarray) and m.dtype.kind in "biuf"


def need_numbers(m, ndim=None):
    """Return real numbers as float64."""
    need(is_numeric(m))
    need(ndim is None or m.ndim == ndim)
    return m.astype("float64")


def need_scores(m):
    """Return logits or probabilities, (N, C), without NaN."""
    m = need_numbers(m, 2)
    need(0 not in m.shape and not np.isnan(m).any())
    return m


def need_probs(m):
    """Return probabilities, (N, C)."""
    m = need_scores(m)
    need(((m >= 0) & (m <= 1)).all())
    return m


def need_labels(m, n_classes):
    """Return class indices, (N,)."""
    need(is_numeric(m) and m.ndim == 1 and m.dtype.kind != "b")
    need((m == np.round(m)).all() and (m >= 0).all() and (m < n_classes).all())
    return m.astype("int64")


def one_hot(labels, n_classes):
    """Return one row of 0s and 1s per label."""
    return (labels[:, None] == np.arange(n_classes)).astype("float64")


def need_targets(m, shape, binary=False, answers=False, unknown=False):
    """Return targets (N, C) of targets or labels.

    `answers`: also (N,) for a single class. `unknown`: NaN is an answer that is not known.
    """
    need(is_numeric(m))
    n, n_classes = shape
    if answers and n_classes == 1 and m.shape == (n,):
        m = m[:, None]
    if m.shape == (n, n_classes):
        m = m.astype("float64")
        known = m[~np.isnan(m)] if unknown else m
        need(((known >= 0) & (known <= 1)).all())
        need(not binary or np.isin(known, (0, 1)).all())
        return m
    need(m.shape in ((n,), (n, 1)))
    return one_hot(need_labels(m.reshape(-1), n_classes), n_classes)


def need_threshold(m, n_classes):
    """Return one threshold or one per class."""
    need(is_numeric(m) and m.dtype.kind != "b" and m.shape in ((), (n_classes,)))
    m = m.astype("float64")
    need(((m >= 0) & (m <= 1)).all())
    return m


def need_count(m, minimum=1, maximum=2**31):
    """Return a whole number."""
    need(isinstance(m, np.ndarray) and m.dtype.kind in "iu" and m.ndim == 0)
    need(minimum <= int(m) <= maximum)
    return int(m)


def need_flag(m):
    """Return True or False."""
    need(isinstance(m, np.ndarray) and m.dtype.kind == "b" and m.ndim == 0)
    return bool(m)


def need_choice(m, choices):
    """Return one of some texts."""
    need(isinstance(m, str) and m in choices)
    return m


def need_number(m, low=-np.inf, high=np.inf):
    """Return one real number, which is finite and no bool."""
    need(is_numeric(m) and m.ndim == 0 and m.dtype.kind != "b")
    need(np.isfinite(m) and low <= m <= high)
    return float(m)


def sigmoid(z):
    """Return 1 / (1 + exp(-z)), without an overflow."""
    return np.exp(-np.logaddexp(0, -z))


def softplus(z):
    """Return log(1 + exp(z)), without an overflow."""
    return np.logaddexp(0, z)


def too_close(probs, threshold):
    """Say whether rounding to float32 may decide which classes fire."""
    gap = np.abs(probs - threshold)
    return bool(((gap > 0) & (gap < 1e-6)).any())


def entropy(p):
    """Return -p*log2(p), 0 where p is 0."""
    return -p * np.log2(np.where(p > 0, p, 1))
