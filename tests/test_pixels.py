"""First reads and caches: right after a change, a kill or a race; and files that do not fit."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from digit_folders import caches, write_small_folder
from fastai.vision.all import ImageDataLoaders, Learner, Resize
from PIL import Image
from torch import nn

from conftest import ROOT, run
from multilabel_mnist import pixels, predict
from multilabel_mnist.data import DigitDataLoaders
from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.labels import BCEOneHotLossFlat
from multilabel_mnist.pixels import grey_image, naming_the_folder, read_pixels, staging_folder

posix = pytest.mark.skipif(os.name == "nt", reason="signals, limits and pipes of POSIX")


@pytest.fixture
def folder(tmp_path):
    """40 digits that a test may change."""
    return write_small_folder(tmp_path)


@pytest.fixture
def many(tmp_path):
    """More files than are decoded in one process; each image has the grey of its number."""
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


def test_files_swapped_within_one_size_and_date(folder):
    """The names, sizes and dates are as before; only ctime tells."""
    one, other = sorted((folder / "training/0").iterdir())[:2]
    images = {}
    for file, grey in ((one, 10), (other, 20)):
        Image.new("L", (28, 28), grey).save(file)
        os.utime(file, ns=(10**18, 10**18))
        images[file] = grey
    assert one.stat().st_size == other.stat().st_size
    load(folder)
    spare = folder / "spare"
    one.rename(spare)
    other.rename(one)
    spare.rename(other)
    assert one.stat().st_mtime_ns == other.stat().st_mtime_ns == 10**18
    after = load(folder).train_ds
    read = {
        file: after.pixels[row][0, 0] for row, file in zip(after.rows, after.items, strict=True)
    }
    assert (read[one], read[other]) == (images[other], images[one])


@pytest.mark.parametrize("files_are_relative", [True, False])
@pytest.mark.parametrize("root_is_relative", [True, False])
def test_relative_and_absolute_names(folder, monkeypatch, files_are_relative, root_is_relative):
    monkeypatch.chdir(folder.parent)
    name = Path(folder.name)
    root = name if root_is_relative else folder
    base = name if files_are_relative else folder
    files = [base / "training/0" / f for f in sorted(os.listdir(folder / "training/0"))]
    before = read_pixels(root, files)
    same = files[0].rename(files[0].with_name("renamed.png"))
    expected = [np.asarray(Image.open(f)) for f in [same, *files[1:]]]
    (old,) = caches(folder)
    assert (read_pixels(root, [same, *files[1:]]) == expected).all()
    assert caches(folder) != [old], "another name, the same stamp"
    assert (before == expected).all()


@pytest.fixture
def cached(folder):
    """A folder with a cache; its pixels, their cache, and what is in it."""
    intact = np.array(load(folder).train_ds.pixels)
    cache = folder / caches(folder)[0]
    return folder, intact, cache, cache.read_bytes()


def assert_read_and_written_again(folder, intact, cache, content):
    assert (load(folder).train_ds.pixels == intact).all()
    assert caches(folder) == [cache.name]
    assert cache.read_bytes() == content


@pytest.mark.parametrize("damage", [b"", b"half a cache", b"\0" * 31364])
def test_a_damaged_cache_is_written_again(cached, damage):
    folder, intact, cache, content = cached
    assert len(content) == 40 * 28 * 28 + 4
    cache.write_bytes(damage)
    assert_read_and_written_again(folder, intact, cache, content)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool", "uint16", "float32", "object"])
@pytest.mark.parametrize("shape", [(40, 28, 28), (40, 784), (39, 28, 28), (20, 28, 28), (0,), ()])
def test_a_cache_of_another_dtype_length_or_shape(cached, dtype, shape):
    folder, intact, cache, content = cached
    with open(cache, "wb") as file:
        np.save(file, np.zeros(shape, dtype))
    assert_read_and_written_again(folder, intact, cache, content)


def test_a_flipped_byte_in_the_cache(cached):
    """Each of the first and last bytes, and bytes and bits anywhere; also a byte more or less."""
    folder, intact, cache, content = cached
    rng = np.random.default_rng(0)
    edges = [*range(150), *range(len(content) - 150, len(content))]
    positions = [*edges, *rng.integers(0, len(content), 100)]
    shape = intact.shape
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        cache.write_bytes(damaged)
        assert pixels._open_cache(cache, shape) is None, position
    for length in (*range(5), 784, len(content) - 1):
        cache.write_bytes(content[:length])
        assert pixels._open_cache(cache, shape) is None, length
    cache.write_bytes(content + b"\0")
    assert_read_and_written_again(folder, intact, cache, content)


def test_a_cache_that_is_a_folder(cached):
    folder, intact, cache, _ = cached
    cache.unlink()
    cache.mkdir()
    with pytest.warns(UserWarning, match="expected to keep the pixels in a file in"):
        assert (load(folder).train_ds.pixels == intact).all()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(folder):
    folder.chmod(0o500)
    try:
        assert len(load(folder).train_ds) == 20
        assert caches(folder) == []
    finally:
        folder.chmod(0o700)


LIMITED = """
import resource, signal, sys, warnings
from multilabel_mnist.data import DigitDataLoaders

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    dls = DigitDataLoaders.from_folder(sys.argv[1], valid_pct=0)
print([str(w.message) for w in caught if "pixels" in str(w.message)])
print(tuple(dls.train.new(bs=5).one_batch()[0].shape))
"""


@posix
def test_no_room_for_a_cache(folder):
    """A limit on the size of files stands for a full disk."""
    done = run(sys.executable, "-c", LIMITED, folder)
    assert (
        f"['expected to keep the pixels in a file in {folder}, got: File too large; " in done.stdout
    )
    assert "make the folder writable or free some space" in done.stdout
    assert "(5, 1, 28, 28)" in done.stdout
    assert caches(folder) == []


def test_an_error_of_the_disk_names_the_folder():
    with pytest.raises(PermissionError, match="expected to write into x, got: no; buy another"):
        with naming_the_folder("x", "buy another"):
            raise PermissionError(13, "no")
    with pytest.raises(OSError, match="^expected to write into x, got: broken; buy another$"):
        with naming_the_folder("x", "buy another"):
            raise OSError("broken")


@posix
def test_a_leftover_that_another_process_removes_first(tmp_path):
    """A link that leads nowhere is listed, and cannot be asked for its date."""
    (tmp_path / ".result-old").symlink_to("nowhere")
    with staging_folder(tmp_path / "result") as staging:
        assert os.path.isdir(staging)


KILLED = """
import os, signal, sys
from matplotlib import pyplot as plt
from multilabel_mnist import data

os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
data.DigitDataLoaders.from_folder(sys.argv[1], valid_pct=0)
"""


@posix
def test_a_killed_first_read_leaves_no_cache(folder):
    command = [sys.executable, "-c", KILLED, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (left,) = caches(folder)
    assert left.startswith("..pixels-")
    assert len(load(folder).train_ds) == 20
    long_ago = time.time() - 7200
    os.utime(folder / left, (long_ago, long_ago))
    any_file = folder / "training/0" / os.listdir(folder / "training/0")[0]
    (folder / "training/0/more.png").write_bytes(any_file.read_bytes())
    load(folder)
    (cache,) = caches(folder)  # the next write has removed what was left
    assert cache.startswith(".pixels-")


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


@posix
def test_a_pipe_among_the_images(folder):
    os.mkfifo(folder / "testing/1/z.png")
    with pytest.raises(ValueError, match=r"z\.png, which cannot be read \(it is a folder, a pipe"):
        DigitDataLoaders.from_folder(folder)


SLOW = """
import os, sys, time
from pathlib import Path
from multilabel_mnist import pixels

parent = os.getpid()
read = pixels.open_image

def slow(file):
    if os.getpid() != parent:
        os.write(1, b"at work\\n")
        time.sleep(0.05)
    return read(file)

pixels.open_image = slow
pixels.read_pixels(sys.argv[1], sorted(Path(sys.argv[1]).rglob("*.png")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
def test_workers_end_with_their_parent(many):
    """They hold the pipe open, so it is read to its end only once all of them have ended."""
    command = [sys.executable, "-c", SLOW, str(many[0])]
    begun = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert b"at work" in begun.stdout.readline()
        begun.kill()
        begun.communicate(timeout=60)  # of the 130 seconds that they would need
        assert begun.returncode == -signal.SIGKILL
    finally:
        with suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)
    assert caches(many[0]) == []


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
def test_a_killed_worker_does_not_end_the_reading(many, monkeypatch):
    folder, files = many
    parent = os.getpid()
    read = pixels.open_image

    def die_in_a_worker(file):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(file)

    monkeypatch.setattr(pixels, "open_image", die_in_a_worker)
    px = read_pixels(folder, files)
    assert (px[:, 5, 5] == [(int(f.stem) + len(f.parent.parent.name)) % 256 for f in files]).all()


THIN = """
import resource, sys
import numpy as np
from fastai.learner import Learner
from PIL import Image
from multilabel_mnist.data import DigitDataLoaders
from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.labels import BCEOneHotLossFlat
from multilabel_mnist.training import digit_cnn

folder, *files = sys.argv[1:]
dls = DigitDataLoaders.from_folder(folder, valid_pct=0, device="cpu")
learn = Learner(dls, digit_cnn(2), loss_func=BCEOneHotLossFlat())
sigmoid_preds(learn, [dls.valid_ds.items[0]])
learn.predict(dls.valid_ds.items[0])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sigmoid_preds(learn, files)
for file in files:
    with learn.no_bar():
        learn.predict(file)
    sigmoid_preds(learn, Image.open(file))
    sigmoid_preds(learn, np.asarray(Image.open(file).convert("L")))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("took", (after - before) // (1024 if sys.platform == "linux" else 1024**2), "MB")
"""


@posix
def test_thin_images_do_not_take_gigabytes(folder, tmp_path_factory):
    """Padded to a square, an image of 60,000 x 1 pixels would have 3.6 billion."""
    out = tmp_path_factory.mktemp("thin")
    files = []
    for size in ((60_000, 1), (1, 200_000)):
        files.append(out / f"{size[0]}.png")
        Image.new("1", size).save(files[-1])
    assert files[0].stat().st_size < 200
    done = run(sys.executable, "-c", THIN, folder, *files, OMP_NUM_THREADS="1")
    taken = int(done.stdout.rpartition("took ")[2].split()[0])
    assert taken < 200, done.stdout


def test_bombs_are_not_decoded(tmp_path):
    """PIL warns of the first one, and raises an error of its own about the second."""
    for side in (10_000, 20_000):
        file = tmp_path / f"{side}.png"
        Image.new("1", (side, side)).save(file)
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            with pytest.raises(ValueError, match=rf"{side}\.png, which cannot be read \(.* pixels"):
                grey_image(file)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F", "HSV", "YCbCr"])
@pytest.mark.parametrize("size", [(28, 28), (5000, 2), (3, 9000)])
def test_long_images_of_all_modes_keep_their_aspect(mode, size):
    grey = grey_image(Image.new(mode, size))
    factor = 1 if max(size) < 4096 else -(-max(size) // 4096)
    assert grey.mode == "L"
    assert grey.size == tuple(-(-side // factor) for side in size)


def test_a_reduced_image_is_the_mean_of_its_blocks():
    image = np.random.default_rng(0).integers(0, 256, (6, 8000), dtype="uint8")
    reduced = np.asarray(grey_image(image)).astype(float)
    expected = image.reshape(3, 2, 4000, 2).mean((1, 3))
    assert abs(reduced - expected).max() <= 0.5


def write_bad_images(folder):
    """Write files that PIL fails on in different ways; return {kind: file}."""
    good = folder / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype="uint8")).save(good)
    content = bytearray(good.read_bytes())
    broken = content.copy()
    broken[12:16] = b"\x00\x01\x02\x03"  # the name of the first chunk: PIL raises a SyntaxError
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    (folder / "text.png").write_bytes(b"not an image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "truncated.png").write_bytes(content[:200])
    (folder / "broken.png").write_bytes(broken)
    return good, [
        folder / f"{kind}.png" for kind in ("bomb", "text", "empty", "truncated", "broken")
    ]


def stock_learner(folder, num_workers):
    dls = ImageDataLoaders.from_folder(
        folder,
        train="training",
        valid="testing",
        item_tfms=Resize(28),
        bs=4,
        num_workers=num_workers,
        device="cpu",
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 784, 2))
    return Learner(dls, model, loss_func=BCEOneHotLossFlat())


def our_learner(folder):
    dls = load(folder).to("cpu")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    return Learner(dls, model, loss_func=BCEOneHotLossFlat())


LEARNERS = {
    "ours": our_learner,
    "fastai's": lambda folder: stock_learner(folder, 0),
    "fastai's, with workers": lambda folder: stock_learner(folder, 2),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_sigmoid_preds_names_the_file_that_cannot_be_read(folder, tmp_path_factory, make):
    learn = make(folder)
    good, bad = write_bad_images(tmp_path_factory.mktemp("bad"))
    expected = sigmoid_preds(learn, [good]).logits
    for file in bad:
        told = rf"expected (an image|image files), got {file}, which cannot be read \(.*\); repair "
        with pytest.raises(ValueError, match=told + r"or remove it.*verify_images\(files\)"):
            sigmoid_preds(learn, [good, good, file, good])
    assert torch.equal(sigmoid_preds(learn, [good]).logits, expected)


@pytest.mark.parametrize("error", [RuntimeError("of the model"), ValueError("x"), KeyError("PIL")])
def test_an_error_of_the_model_is_not_taken_for_one_of_a_file(folder, monkeypatch, error):
    learn = our_learner(folder)

    def fail(self, x):
        raise error

    monkeypatch.setattr(nn.Linear, "forward", fail)
    monkeypatch.setattr(predict, "_unreadable_file", None)  # no file is opened to find out
    with pytest.raises(type(error)) as caught:
        sigmoid_preds(learn, learn.dls.valid_ds.items[:3])
    assert caught.value is error
