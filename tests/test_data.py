"""Folders and settings that do not work, and MNIST without a network."""

import errno
import os
import random
import shutil
import sys
import tarfile
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import fastdownload.core
import numpy as np
import pytest
import torch
from digit_folders import write_small_folder
from fastai.data.external import fastai_cfg

from multilabel_mnist import batches, data
from multilabel_mnist.data import DigitDataLoaders, digits_path

try:
    import resource
except ImportError:  # on Windows
    resource = None


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
        (dict(bs=None), "expected bs .*, got None"),
        (dict(valid_pct="0.1"), "expected valid_pct .*, got '0.1'"),
        (dict(valid_pct=float("nan")), "expected valid_pct .*, got nan"),
        (dict(valid_pct=None), "expected valid_pct .*, got None"),
        (dict(valid_pct=False), "expected valid_pct .*, got False"),
        (dict(valid_pct=np.array([0.1, 0.2])), r"expected valid_pct .*, got a float64 array"),
        (dict(n_train="all"), "expected n_train .*, got 'all'"),
        (dict(n_train=True), "expected n_train .*, got True"),
        (dict(seed="x"), "expected seed .*, got 'x'"),
        (dict(seed=-1), "expected seed .*, got -1"),
        (dict(seed=2**32), "expected seed to be .* 4294967295, got 4294967296"),
        (dict(seed=None), "expected seed .*, got None"),
        (dict(device="gpu"), "expected device to be None or one of torch's.*, got 'gpu'"),
        (dict(device=[1]), "expected device .*, got a list of 1"),
        (dict(device=2.5), "expected device .*, got 2.5"),
        (dict(device=10**30), "expected device .*, got 10{30}"),
        (
            dict(device="meta"),
            "expected a device that this machine has, got 'meta': .*; None takes",
        ),
    ],
)
def test_settings_that_make_no_sense(folder, settings, told):
    with pytest.raises(ValueError, match=told):
        DigitDataLoaders.from_folder(folder, **settings)


NO_FOLDERS = [None, 5, 2.5, b"x", ["x"], np.zeros(3), torch.zeros(2), {}, object()]


@pytest.mark.parametrize("path", NO_FOLDERS, ids=lambda o: type(o).__name__)
def test_what_is_no_path(path):
    with pytest.raises(ValueError, match="expected a folder with training/.*which is no folder"):
        DigitDataLoaders.from_folder(path)
    if path is not None:
        with pytest.raises(ValueError, match="expected 'embedded', 'mnist' or a folder, got"):
            digits_path(path)


@pytest.mark.parametrize("path", ["nowhere", "a\0b", "x" * 5000, "~nobody/x", "setup.py"])
def test_what_is_no_folder(path):
    for call in (DigitDataLoaders.from_folder, digits_path):
        with pytest.raises(ValueError, match="which is no folder"):
            call(path)
        with pytest.raises(ValueError, match="which is no folder"):
            call(Path(path))


def test_any_digits_have_a_running_example(tmp_path):
    for split in ("training", "testing"):
        for name in "0123456789":
            (tmp_path / split / name).mkdir(parents=True)
            for file in ("b.png", "a.png", ".hidden"):
                (tmp_path / split / name / file).touch()
    assert data.running_example(tmp_path) == tmp_path / "testing/7/a.png"
    (tmp_path / "testing/1/4201.png").touch()
    assert data.running_example(str(tmp_path)) == tmp_path / "testing/1/4201.png"


def test_machinery_is_not_public():
    assert batches.__all__ == []
    assert "PixelDL" not in data.__all__


def test_settings_and_random_state_are_left_alone(folder):
    """Only Python's `random` moves on, as the docstring says: fastai's loaders draw from it."""
    before = (np.random.get_state()[1].copy(), torch.get_rng_state(), os.getcwd())
    random.seed(1)
    first = DigitDataLoaders.from_folder(folder, valid_pct=0)
    random.seed(1)
    second = DigitDataLoaders.from_folder(folder, valid_pct=0)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
    assert os.getcwd() == before[2]
    labels = [torch.cat([y for _, y in dls.train]) for dls in (first, second)]
    assert torch.equal(*labels)
    assert "random" in DigitDataLoaders.from_folder.__doc__
    assert "random" in batches.PixelDL.__doc__


@pytest.fixture(scope="module")
def small():
    """The embedded digits, to stand for MNIST."""
    return digits_path("embedded")


@pytest.fixture
def home(monkeypatch, tmp_path, small):
    """A home of fastai's that is empty."""
    monkeypatch.setattr(data, "fastai_path", lambda name: tmp_path / name)
    return tmp_path


def fake_untar(archive_of):
    """Return a stand-in for untar_data that puts a copy of a folder where it is asked to."""

    def untar_data(url, archive, data, base):
        return Path(shutil.copytree(archive_of, Path(data) / "mnist_png"))

    return untar_data


def test_mnist_without_a_network(monkeypatch, home):
    def no_network(url, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(data, "untar_data", no_network)
    with pytest.raises(ConnectionError, match="connect to a network once, or use digits_path"):
        digits_path("mnist")
    assert list((home / "data").iterdir()) == []


def test_mnist_is_unpacked_beside_its_place_and_renamed(monkeypatch, home, small):
    """What is unpacked is whole, or has another name."""
    seen = []

    def untar_data(url, archive, data, base):
        seen.append((Path(archive), Path(data).parent, (home / "data/mnist_png").exists()))
        return fake_untar(small)(url, archive, data, base)

    monkeypatch.setattr(data, "untar_data", untar_data)
    monkeypatch.setattr(data, "_MNIST_COUNTS", (1437, 360))
    assert digits_path("mnist") == home / "data/mnist_png"
    assert seen == [(home / "archive", home / "data", False)]
    assert [p.name for p in (home / "data").iterdir()] == ["mnist_png"]
    assert digits_path("mnist") == home / "data/mnist_png" and len(seen) == 1


def test_another_process_unpacks_mnist_first(monkeypatch, home, small):

    def untar_data(url, archive, data, base):
        shutil.copytree(small, home / "data/mnist_png")
        return fake_untar(small)(url, archive, data, base)

    monkeypatch.setattr(data, "untar_data", untar_data)
    monkeypatch.setattr(data, "_MNIST_COUNTS", (1437, 360))
    assert digits_path("mnist") == home / "data/mnist_png"
    assert [p.name for p in (home / "data").iterdir()] == ["mnist_png"]


def write_half_of_mnist(home, small):
    half = home / "data/mnist_png"
    for name in "0123":
        shutil.copytree(small / "training" / name, half / "training" / name)
    return half


@pytest.mark.parametrize("source", ["mnist", None])
def test_half_of_mnist_is_not_taken_for_whole(monkeypatch, home, source, small):
    half = write_half_of_mnist(home, small)
    n = sum(1 for _ in half.rglob("*.png"))
    monkeypatch.setattr(data.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("MULTILABEL_MNIST_SOURCE", raising=False)
    told = f"10,000 test images in {half}, got {n} and 0, .*; delete this folder and call"
    with pytest.raises(ValueError, match=told):
        digits_path(source)
    assert n == sum(1 for _ in half.rglob("*.png"))


def test_another_process_that_copies_mnist_is_waited_for(monkeypatch, home, capsys, small):
    half = write_half_of_mnist(home, small)
    missing = [
        f for f in sorted(small.rglob("*.png")) if not (half / f.relative_to(small)).exists()
    ]
    monkeypatch.setattr(data, "_MNIST_COUNTS", (1437, 360))
    batch = -(-len(missing) // 4)

    def copy_a_quarter(seconds):
        for file in missing[:batch]:
            target = half / file.relative_to(small)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        del missing[:batch]

    monkeypatch.setattr(data.time, "sleep", copy_a_quarter)
    assert digits_path("mnist") == half
    assert capsys.readouterr().out.count("waiting for the others") == 4


def test_a_copy_that_is_really_under_way(monkeypatch, home, small):
    monkeypatch.setattr(data, "_MNIST_COUNTS", (1437, 360))
    write_half_of_mnist(home, small)
    copier = Thread(
        target=shutil.copytree,
        args=(small, home / "data/mnist_png"),
        kwargs={"dirs_exist_ok": True},
    )
    copier.start()
    assert digits_path("mnist") == home / "data/mnist_png"
    copier.join()


def test_hidden_files_of_the_system_do_not_count(monkeypatch, home, small):
    path = Path(shutil.copytree(small, home / "data/mnist_png"))
    monkeypatch.setattr(data, "_MNIST_COUNTS", (1437, 360))
    (path / "training/0/.DS_Store").touch()
    assert digits_path("mnist") == path


def test_fastai_unpacks_an_archive_that_is_on_this_machine(monkeypatch, home, small):
    """The real `untar_data`, which finds its archive and needs no network."""
    archive = home / "archive"
    archive.mkdir()
    with tarfile.open(archive / "mnist_png.tgz", "w:gz") as file:
        for split in ("training", "testing"):
            file.add(small / split, f"mnist_png/{split}")
    monkeypatch.setattr(fastdownload.core, "read_checks", lambda module: {})  # of the real archive
    monkeypatch.setattr(data, "_MNIST_COUNTS", (1437, 360))
    before = dict(fastai_cfg().d)
    path = digits_path("mnist")
    assert sum(1 for _ in path.rglob("*.png")) == 1797
    assert [p.name for p in (home / "data").iterdir()] == ["mnist_png"]
    assert dict(fastai_cfg().d) == before


@pytest.mark.parametrize("number", ["ENOSPC", "EROFS", "EACCES", "EDQUOT", "EFBIG"])
@pytest.mark.parametrize("source", ["embedded", "mnist"])
def test_no_room_for_the_digits(monkeypatch, home, source, number):
    def fail(*args, **kwargs):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(data, "untar_data", fail)
    monkeypatch.setattr(data.Image.Image, "save", fail)
    reason = os.strerror(getattr(errno, number))
    told = f"expected to write into {home / 'data'}, got: {reason}; make it writable.*FASTAI_HOME"
    with pytest.raises(OSError, match=told) as caught:
        digits_path(source)
    assert caught.value.errno == getattr(errno, number)
    assert list((home / "data").iterdir()) == []


def limited(source):
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    digits_path(source)


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
def test_a_limit_on_the_size_of_files(home):
    """A limit on the size of files stands for a full disk."""
    told = f"expected to write into {home / 'data'}, got: File too large; make it writable"
    with get_context("fork").Pool(1) as pool, pytest.raises(OSError, match=told):
        pool.apply(limited, ["embedded"])
    assert list((home / "data").iterdir()) == []


def test_a_home_that_cannot_be_made(monkeypatch, tmp_path):
    """There is a file in its place, since root may write into any folder."""
    home = tmp_path / "file/home"
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTAI_HOME", str(home))
    monkeypatch.setattr(data, "fastai_path", lambda name: fastai_cfg.__wrapped__().path(name))
    told = f"expected to write into {home}, got: Not a directory; .* variable FASTAI_HOME"
    for source in ("embedded", "mnist"):
        with pytest.raises(NotADirectoryError, match=told):
            digits_path(source)
