"""Folders and settings that do not work, and MNIST without a network."""

import shutil

import pytest
from digit_folders import write_small_folder

from multilabel_mnist import data
from multilabel_mnist.data import DigitDataLoaders, digits_path


@pytest.fixture
def folder(tmp_path):
    """40 digits that a test may change."""
    return write_small_folder(tmp_path)


def remove_training(folder):
    shutil.rmtree(folder / "training")


def remove_testing(folder):
    shutil.rmtree(folder / "testing")


def remove_all_training_classes(folder):
    for name in "01":
        shutil.rmtree(folder / "training" / name)


def add_an_empty_class(folder):
    (folder / "training/7").mkdir()


def remove_a_class_from_testing(folder):
    shutil.rmtree(folder / "testing/1")


def put_a_folder_among_the_images(folder):
    (folder / "training/1/sub").mkdir()


@pytest.mark.parametrize(
    "damage, told",
    [
        (remove_training, "got no folder training/"),
        (remove_testing, "got no folder testing/"),
        (remove_all_training_classes, r"images per class in .*training, got no folders"),
        (add_an_empty_class, r"training/7, got an empty folder"),
        (remove_a_class_from_testing, r"got \['1'\] in only one of them"),
        (put_a_folder_among_the_images, "sub, which cannot be read"),
    ],
)
def test_folders_of_another_shape(folder, damage, told):
    damage(folder)
    with pytest.raises(ValueError, match=told):
        DigitDataLoaders.from_folder(folder)


@pytest.mark.parametrize(
    "settings, told",
    [
        (dict(valid_pct=1), "expected valid_pct .*, got 1$"),
        (dict(valid_pct=-0.1), "share from 0 up to"),
        (dict(n_train=1), "got 18 images and train_size=1 "),
        (dict(n_train=0), "expected n_train .*, got 0"),
        (dict(bs=0), "expected bs .*, got 0"),
        (dict(bs=2.5), "expected bs .*, got 2.5"),
    ],
)
def test_settings_that_make_no_sense(folder, settings, told):
    with pytest.raises(ValueError, match=told):
        DigitDataLoaders.from_folder(folder, **settings)


def test_mnist_without_a_network(monkeypatch, tmp_path):
    def no_network(url):
        raise OSError("no route to host")

    monkeypatch.setattr(data, "fastai_path", lambda name: tmp_path)
    monkeypatch.setattr(data, "untar_data", no_network)
    with pytest.raises(ConnectionError, match="connect to a network once, or use digits_path"):
        digits_path("mnist")
    assert list(tmp_path.iterdir()) == []
