"""All cases."""

from . import cases_images, cases_losses, cases_models, cases_preds  # noqa: F401
from .cases_values import CASES

__all__ = ["CASES"]
