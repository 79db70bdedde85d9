"""Sigmoid classification with fastai: helpers that the course's notebooks build and test."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("multilabel_mnist")
except PackageNotFoundError:
    __version__ = "unknown"  # a checkout that was never installed
