"""First reads and caches: right after a change, a kill or a race; and files that do not fit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import numpy as np
import pytest
from digit_folders import caches, write_small_folder
from PIL import Image

from conftest import ROOT
from multilabel_mnist import pixels
from multilabel_mnist.data import DigitDataLoaders
from multilabel_mnist.pixels import read_pixels


@pytest.fixture
def folder(tmp_path):
    """40 digits that a test may change."""
    return write_small_folder(tmp_path)


@pytest.fixture
def many(tmp_path):
    """More files than are decoded in one process."""
    files = []
    for split in ("training", "testing"):
        for name in "01":
            class_folder = tmp_path / split / name
            class_folder.mkdir(parents=True)
            for i in range(1300):
                file = class_folder / f"{i}.png"
                image = np.full((28, 28), (i + len(split)) % 256, dtype="uint8")
                Image.fromarray(image).save(file)
                files.append(file)
    return tmp_path, files


def load(folder):
    return DigitDataLoaders.from_folder(folder, valid_pct=0)


def test_a_long_first_read_shows_a_bar_and_uses_all_cores(many, capsys, monkeypatch):
    folder, files = many
    px = read_pixels(folder, files)
    assert "100.00%" in capsys.readouterr().out
    assert px.shape == (5200, 28, 28)
    expected = [(int(f.stem) + len(f.parent.parent.name)) % 256 for f in files]
    assert (px[:, 5, 5] == expected).all()
    monkeypatch.setattr(pixels, "_decode_all", None)  # the second read decodes nothing
    assert (read_pixels(folder, files) == px).all()
    assert capsys.readouterr().out == ""


def test_a_long_first_read_names_the_bad_file(many):
    folder, files = many
    Image.new("L", (28, 30)).save(files[4321])
    told = r"got mode 'L' and shape \(30, 28\) in .*421\.png"
    with pytest.raises(ValueError, match=told):
        read_pixels(folder, files)
    for file in files[4000:5000]:  # as large as each other, not as the rest
        Image.new("L", (28, 30)).save(file)
    told = r"grey images \(mode 'L'\) of shape \(28, 28\).* got mode 'L' and shape \(30, 28\)"
    with pytest.raises(ValueError, match=told):
        read_pixels(folder, files)
    assert caches(folder) == []


@pytest.mark.parametrize("change", ["content", "added", "removed", "renamed"])
def test_the_cache_follows_the_files(folder, change):
    before = load(folder)
    (name,) = caches(folder)
    file = before.train_ds.items[3]
    if change == "content":
        Image.new("L", (28, 28), 77).save(file)
    elif change == "added":
        Image.new("L", (28, 28), 77).save(folder / "training/0/new.png")
    elif change == "removed":
        file.unlink()
    else:
        file.rename(file.with_name("zzz.png"))
    after = load(folder).train_ds
    assert caches(folder) != [name], "the old cache is still there"
    assert len(caches(folder)) == 1
    for row, item in zip(after.rows, after.items, strict=True):
        assert (after.pixels[row] == np.asarray(Image.open(item))).all()


def test_a_moved_folder_keeps_its_cache(folder, tmp_path_factory, monkeypatch):
    load(folder)
    moved = tmp_path_factory.mktemp("moved") / "x"
    shutil.move(folder, moved)
    monkeypatch.setattr(pixels, "_decode_all", None)
    assert len(load(moved).train_ds) == 20


@pytest.mark.parametrize("damage", [b"", b"half a cache"])
def test_a_damaged_cache_is_written_again(folder, damage):
    intact = np.array(load(folder).train_ds.pixels)
    cache = folder / caches(folder)[0]
    cache.write_bytes(damage)
    assert (load(folder).train_ds.pixels == intact).all()
    assert (np.load(cache) == intact).all()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(folder):
    folder.chmod(0o500)
    try:
        assert len(load(folder).train_ds) == 20
        assert caches(folder) == []
    finally:
        folder.chmod(0o700)


def test_no_room_for_a_cache(folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    dls = load(folder)
    assert dls.train.new(bs=5).one_batch()[0].shape == (5, 1, 28, 28)
    assert caches(folder) == []


KILLED = """
import numpy as np, os, signal, sys
from matplotlib import pyplot as plt
from multilabel_mnist import data

def save(file, px):
    open(file, 'wb').write(b'half')
    os.kill(os.getpid(), signal.SIGKILL)

np.save = save
data.DigitDataLoaders.from_folder(sys.argv[1], valid_pct=0)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_first_read_leaves_no_cache(folder):
    command = [sys.executable, "-c", KILLED, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (left,) = caches(folder)
    assert not left.endswith(".npy")
    assert len(load(folder).train_ds) == 20
    long_ago = time.time() - 7200
    os.utime(folder / left, (long_ago, long_ago))
    any_file = folder / "training/0" / os.listdir(folder / "training/0")[0]
    (folder / "training/0/more.png").write_bytes(any_file.read_bytes())
    load(folder)
    (cache,) = caches(folder)  # the next write has removed what was left
    assert cache.endswith(".npy")


def total(folder):
    return int(load(folder).train_ds.pixels.sum(dtype=np.int64))


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
def test_first_reads_at_the_same_time(folder):
    with get_context("fork").Pool(4) as pool:
        totals = pool.map(total, [folder] * 12, chunksize=1)
    assert set(totals) == {total(folder)}
    assert len(caches(folder)) == 1


@pytest.mark.parametrize("kept", [10, 33, 45, 60, 100, 150])
def test_truncated_files(folder, kept):
    file = folder / "testing/1/z.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (28, 28), dtype="uint8")).save(file)
    file.write_bytes(file.read_bytes()[:kept])
    told = r"z\.png, which cannot be read \(.*\); repair or remove it"
    with pytest.raises(ValueError, match=told):
        DigitDataLoaders.from_folder(folder)
    assert caches(folder) == []


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGB", "RGBA", "I;16"])
def test_other_modes(folder, mode):
    Image.new(mode, (28, 28)).save(folder / "testing/1/z.png")
    told = r"got mode '.+' and shape .* in .*z\.png; .*convert\('L'\)"
    with pytest.raises(ValueError, match=told):
        DigitDataLoaders.from_folder(folder)
