"""How well a score tells digits from images of no digit, at every threshold.

A digit counts as *named right* if its highest class is its label and its score is above the
threshold. An image of no digit is *accepted* if its score is. The open-set curve (OSCR: Dhamija et
al. 2018, "Reducing Network Agnostophobia") is the share of digits named right, by the share of
non-digits accepted. Vaze et al. 2022 ("Open-Set Recognition: A Good Closed-Set Classifier is All
You Need?") compare networks and scores by its area and by AUROC.
"""

import numpy as np
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from multilabel_mnist.calibrate import margins

REJECTED = 0.95  # of the non-digits, where one point of the curve is reported
# Shares of the non-digits accepted at which the curve is kept.
ACCEPTED = (
    *(0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1),
    *(0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)


def largest_logit(logits):
    """Return the largest logit, which orders images as the largest sigmoid does."""
    return logits.amax(1)


def largest_margin(logits):
    """Return the logit of the largest softmax probability, which orders images as that does."""
    return margins(logits).amax(1)


def energy(logits):
    """Return the negative energy of a softmax (Liu et al. 2020, "Energy-based
    Out-of-distribution Detection")."""
    return logits.logsumexp(1)


def joint_energy(logits):
    """Return the sum of the classes' negative energies.

    This is the energy of sigmoids (Wang et al. 2021, "Can multi-label classification networks know
    what they don't know?").
    """
    return F.softplus(logits).sum(1)


# {network: {name: score of logits, shape (n, C), in float64}}
SCORES = {
    "recipe": {"largest probability": largest_logit, "joint energy": joint_energy},
    "softmax": {
        "largest probability": largest_margin,
        "largest logit": largest_logit,
        "energy": energy,
    },
}


def named_right(scores, is_right, none_scores, accepted):
    """Return the share of digits named right where at most a share of the non-digits is accepted.

    The threshold is the lowest that accepts so few.
    """
    n_accepted = int(accepted * len(none_scores) + 1e-9)
    if n_accepted == len(none_scores):
        return is_right.mean()
    threshold = np.sort(none_scores)[::-1][n_accepted]
    return (is_right & (scores > threshold)).mean()


def curve_area(scores, is_right, none_scores):
    """Return the area below the open-set curve.

    It is the probability that a random digit is named right and scores above a random non-digit,
    where equal scores count half. With all digits named right it is AUROC.
    """
    in_order = np.sort(none_scores)
    n_below = np.searchsorted(in_order, scores, "left")
    n_not_above = np.searchsorted(in_order, scores, "right")
    share_below = (n_below + n_not_above) / (2 * len(in_order))
    return (is_right * share_below).mean()


def auroc(scores, none_scores):
    """Return the share of pairs of a digit and a non-digit in which the digit scores higher."""
    is_digit = np.repeat([True, False], [len(scores), len(none_scores)])
    return roc_auc_score(is_digit, np.concatenate([scores, none_scores]))


def trade_off(
    scores,  # of the digits, floats, shape (n,)
    is_right,  # is the highest class the label? bool, shape (n,)
    none_scores,  # of the images that show no digit, shape (m,)
):  # {"area", "AUROC", "named right", "curve"}
    """Return the numbers that say how well a score trades digits for non-digits.

    "curve" has a value for each share in ACCEPTED, "named right" is its value at 1 - REJECTED.
    """
    curve = [named_right(scores, is_right, none_scores, share) for share in ACCEPTED]
    numbers = {
        "area": curve_area(scores, is_right, none_scores),
        "AUROC": auroc(scores, none_scores),
        "named right": named_right(scores, is_right, none_scores, 1 - REJECTED),
    }
    numbers = {name: round(float(number), 5) for name, number in numbers.items()}
    return numbers | {"curve": [round(float(share), 4) for share in curve]}


def trade_offs(network, logits, labels, none_logits):
    """Return {score: trade-off} of a network, 'recipe' or 'softmax', for one kind of non-digits."""
    logits, none_logits = logits.double(), none_logits.double()
    is_right = (logits.argmax(1) == labels).numpy()
    return {
        name: trade_off(score(logits).numpy(), is_right, score(none_logits).numpy())
        for name, score in SCORES[network].items()
    }
