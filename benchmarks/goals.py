"""What we aim for on two cores; the tables say which goals are missed."""

from .importing import MODULES

AT_MOST = {
    "fit_ours_over_loop": 1.08,
    "fit_ours_over_limit": 2,
    "preds_ours_over_forward": 1.08,
    "step_onehot": 1.01,
    "step_compose": 1.2,
    "recipe_over_float32": 0.6,
    "make course": 210,  # seconds
    "make test": 360,
} | {f"import_{name}": 1.15 for name in MODULES}
AT_LEAST = {"fit_stock_over_ours": 7}


def goal(name):
    """Return the goal of a row or ratio in words, or an empty text."""
    if name in AT_MOST:
        return f"at most {AT_MOST[name]:g}"
    if name in AT_LEAST:
        return f"at least {AT_LEAST[name]:g}"
    return ""


def is_missed(name, value):
    """Return whether a row or ratio has a goal and has not reached it."""
    return value > AT_MOST.get(name, float("inf")) or value < AT_LEAST.get(name, float("-inf"))


def goal_and_outcome(name, value):
    """Return the goal in words, and whether it was missed; an empty text where there is none."""
    return goal(name) + (", missed" if is_missed(name, value) else "")
