"""All cases."""

from . import (  # noqa: F401
    cases_images,
    cases_losses,
    cases_models,
    cases_more,
    cases_preds,
)
from .cases_values import CASES

__all__ = ["CASES"]
