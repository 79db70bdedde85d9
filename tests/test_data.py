"""DigitDataLoaders where a lesson does not look: as fastai's in every other respect, and whole after a kill or a race."""
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from conftest import ROOT
from fastai.callback.fp16 import MixedPrecision  # noqa: F401  (adds to_fp16 and to_bf16)
from fastai.distributed import DistributedDL
from fastai.vision.all import (CrossEntropyLossFlat, ImageDataLoaders, Learner, PILImageBW, RandomErasing, TensorImageBW, Transform, accuracy, load_learner, nn,
                               set_seed)
from matplotlib import pyplot as plt
from multilabel_mnist import data
from multilabel_mnist.data import DigitDataLoaders, digits_path, read_pixels
from PIL import Image
from torch import Tensor


@pytest.fixture(scope="module")
def path():
    return digits_path("embedded")


@pytest.fixture
def dls(path):
    return DigitDataLoaders.from_folder(path, bs=64, device="cpu")


@pytest.fixture
def folder(path, tmp_path):
    """40 digits that a test may change."""
    for split in ("training", "testing"):
        for c in "01":
            (tmp_path / split / c).mkdir(parents=True)
            for f in sorted((path / split / c).iterdir())[:10]:
                shutil.copy(f, tmp_path / split / c)
    return tmp_path


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def learner(dls, **kwargs):
    return Learner(dls, linear(), loss_func=CrossEntropyLossFlat(), metrics=accuracy, **kwargs)


def quiet(learn, n=1):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, 1e-2)
    return learn


def plain(t):
    return t.as_subclass(Tensor)


def order(dl):
    """The labels of one pass, in the order in which they came."""
    return torch.cat([plain(y) for _, y in dl])


def caches(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


# as fastai's

@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_picture_is_what_fastai_reads(path, split):
    stock = ImageDataLoaders.from_folder(path, train="training", valid="testing", img_cls=PILImageBW, bs=64, num_workers=0, device="cpu")
    ours = DigitDataLoaders.from_folder(path, bs=64, valid_pct=0, device="cpu")
    where = {f: i for i, f in enumerate(getattr(ours, split).dataset.items)}
    mine = torch.cat([plain(ours.train.after_batch[-1].decode(x)) for x, _ in getattr(ours, split).new(shuffle=False, drop_last=False)])
    dl = getattr(stock, split).new(shuffle=False, drop_last=False)
    theirs = torch.cat([plain(x) for x, _ in dl])
    torch.testing.assert_close(mine[[where[f] for f in dl.dataset.items]].mul(255).round(), theirs.mul(255).round())


def test_pixels_are_bytes_in_a_mapped_file(dls):
    px = dls.train_ds.pixels
    assert px.dtype == np.uint8 and isinstance(px, np.memmap) and px is dls.test_ds.pixels
    kept = px[0].copy()
    px[0] = 255  # a mistake stays in this process
    try:
        assert (np.load(px.filename)[0] == kept).all()
    finally:
        px[0] = kept


def test_each_epoch_has_each_picture_once_in_a_new_order(dls):
    dl = dls.train.new(drop_last=False)
    first, second = order(dl), order(dl)
    assert len(first) == len(dls.train_ds) and not torch.equal(first, second)
    torch.testing.assert_close(first.sort().values, second.sort().values)
    assert torch.equal(order(dls.valid), torch.as_tensor(dls.valid_ds.labels))


def test_a_seed_fixes_the_order(path):
    def passed():
        set_seed(7)
        return order(DigitDataLoaders.from_folder(path, bs=64, device="cpu").train)
    assert torch.equal(passed(), passed())


@pytest.mark.parametrize("drop_last, n", [(True, 20), (False, 21)])
def test_drop_last_and_length(dls, drop_last, n):
    dl = dls.train.new(drop_last=drop_last)
    sizes = [len(x) for x, _ in dl]
    assert len(dls.train_ds) == 1293 and len(dl) == n == len(sizes)
    assert sizes == [64] * 20 + [13] * (n - 20)


def test_new_takes_other_settings(dls):
    x, y = dls.valid.new(bs=7).one_batch()
    assert x.shape == (7, 1, 28, 28) and (type(x), x.dtype) == (TensorImageBW, torch.float32) and y.shape == (7,)
    torch.testing.assert_close(plain(x), plain(dls.valid.one_batch()[0])[:7])


def test_worker_processes_give_the_same_batches(dls):
    for (x, y), (x2, y2) in zip(dls.valid, dls.valid.new(num_workers=2), strict=True):
        torch.testing.assert_close(plain(x), plain(x2))
        assert torch.equal(plain(y), plain(y2))


def test_a_test_dl_of_files_with_and_without_labels(dls):
    files = dls.test_ds.items[:9]
    x, = dls.test_dl(files).one_batch()
    x2, y = dls.test_dl(files, with_labels=True).one_batch()
    torch.testing.assert_close(plain(x), plain(dls.test.one_batch()[0])[:9])
    torch.testing.assert_close(plain(x), plain(x2))
    assert [dls.vocab[i] for i in y] == [f.parent.name for f in files]


class Half(Transform):
    split_idx = 0  # training only
    def encodes(self, x: TensorImageBW): return x / 2


def test_batch_transforms_of_ones_own(path, dls):
    dls.add_tfms([Half()], "after_batch")
    raw = DigitDataLoaders.from_folder(path, bs=64, device="cpu")
    names = [type(f).__name__ for f in dls.train.after_batch.fs]
    assert names == ["Half", "PixelsToFloat", "NormalizePixels"]
    assert plain(dls.train.one_batch()[0]).max() < plain(raw.train.one_batch()[0]).max()
    torch.testing.assert_close(plain(dls.valid.one_batch()[0]), plain(raw.valid.one_batch()[0]))
    dls.add_tfms([RandomErasing(p=1.)], "after_batch")
    assert dls.train.one_batch()[0].shape == (64, 1, 28, 28)


def test_to_takes_batch_and_normalisation_along(dls):
    """There is a device without a GPU: meta, which holds no numbers."""
    dls.to(torch.device("meta"))
    x, y = next(iter(dls.train))
    assert (x.device.type, y.device.type, dls.train.after_batch[-1].mean.device.type) == ("meta",) * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda(dls):
    dls.cuda()
    assert all(o.is_cuda for o in dls.train.one_batch())


def test_show_batch(dls):
    dls.show_batch(max_n=4)
    titles = [ax.get_title() for ax in plt.gcf().axes if ax.get_title()]
    assert len(titles) == 4 and set(titles) <= set(dls.vocab)


def test_lr_find(dls):
    with (learn := learner(dls)).no_bar(), learn.no_logging():
        assert 1e-6 < learn.lr_find(show_plot=False).valley < 10


def test_half_precision_on_a_cpu(dls):
    learn = quiet(learner(dls).to_bf16())
    assert learn.recorder.values[-1][-1] > .5
    assert learn.get_preds()[0].dtype == torch.float32


def test_ranks_share_an_epoch(dls, monkeypatch):
    monkeypatch.setattr(DistributedDL, "_broadcast", lambda self, t, rank: list(t))  # fastai's own needs a GPU
    parts = [DistributedDL(dls.valid, rank=r, world_size=2) for r in range(2)]
    assert len(dls.valid_ds) == 144
    xs = [torch.cat([plain(x) for x, _ in p]) for p in parts]
    torch.testing.assert_close(torch.cat(xs), torch.cat([plain(x) for x, _ in dls.valid]))
    assert [len(x) for x in xs] == [72, 72]


def test_export_predict_and_pickle(dls, tmp_path):
    learn = quiet(learner(dls))
    learn.export(tmp_path / "e.pkl")
    assert (tmp_path / "e.pkl").stat().st_size < 200_000, "no pixels travel with a learner"
    again = load_learner(tmp_path / "e.pkl")
    file = dls.test_ds.items[3]
    assert again.predict(file)[0] == learn.predict(file)[0]
    torch.testing.assert_close(again.predict(file)[2], learn.predict(file)[2])
    b, c = dls.valid.one_batch(), pickle.loads(pickle.dumps(dls)).valid.one_batch()
    torch.testing.assert_close(plain(b[0]), plain(c[0]))


# first reads, caches, kills and races

@pytest.fixture
def many(path, tmp_path):
    """More files than are read in one process."""
    files = []
    for split in ("training", "testing"):
        for c in "01":
            (tmp_path / split / c).mkdir(parents=True)
            for i in range(1300):
                files.append(tmp_path / split / c / f"{i}.png")
                Image.fromarray(np.full((28, 28), (i + len(split)) % 256, dtype="uint8")).save(files[-1])
    return tmp_path, files


def test_a_long_first_read_shows_a_bar_and_uses_all_cores(many, capsys, monkeypatch):
    folder, files = many
    px = read_pixels(folder, files)
    assert "100.00%" in capsys.readouterr().out
    assert px.shape == (5200, 28, 28) and (px[:, 5, 5] == [(int(f.stem) + len(f.parent.parent.name)) % 256 for f in files]).all()
    monkeypatch.setattr(data, "_decode_all", None)  # the second read decodes nothing
    assert (read_pixels(folder, files) == px).all() and capsys.readouterr().out == ""


def test_a_long_first_read_names_the_bad_file(many):
    folder, files = many
    Image.new("L", (28, 30)).save(files[4321])
    with pytest.raises(ValueError, match=r"421\.png has mode 'L' and shape \(30, 28\)"):
        read_pixels(folder, files)
    for f in files[4000:5000]:  # as large as each other, not as the rest
        Image.new("L", (28, 30)).save(f)
    with pytest.raises(ValueError, match=r"shape \(30, 28\), wanted grey \('L'\) and \(28, 28\)"):
        read_pixels(folder, files)
    assert caches(folder) == []


@pytest.mark.parametrize("change", ["content", "added", "removed", "renamed"])
def test_the_cache_follows_the_files(folder, change):
    before = DigitDataLoaders.from_folder(folder, valid_pct=0)
    name, = caches(folder)
    file = folder / "training/0/new.png" if change == "added" else before.train_ds.items[3]
    if change in ("content", "added"):
        Image.new("L", (28, 28), 77).save(file)
    elif change == "removed":
        file.unlink()
    else:
        file.rename(file.with_name("zzz.png"))
    after = DigitDataLoaders.from_folder(folder, valid_pct=0)
    assert caches(folder) != [name] and len(caches(folder)) == 1, "one cache, another one"
    for i, f in enumerate(after.train_ds.items):
        assert (after.train_ds.pixels[after.train_ds.rows[i]] == np.asarray(Image.open(f))).all()


def test_a_moved_folder_keeps_its_cache(folder, tmp_path_factory, monkeypatch):
    DigitDataLoaders.from_folder(folder, valid_pct=0)
    moved = tmp_path_factory.mktemp("moved") / "x"
    shutil.move(folder, moved)
    monkeypatch.setattr(data, "_decode_all", None)
    assert len(DigitDataLoaders.from_folder(moved, valid_pct=0).train_ds) == 20


@pytest.mark.parametrize("harm", [b"", b"half a cache"])
def test_a_cache_that_can_not_be_read_is_made_anew(folder, harm):
    whole = np.array(DigitDataLoaders.from_folder(folder, valid_pct=0).train_ds.pixels)
    cache = folder / caches(folder)[0]
    cache.write_bytes(harm)
    assert (DigitDataLoaders.from_folder(folder, valid_pct=0).train_ds.pixels == whole).all()
    assert (np.load(cache) == whole).all()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="whoever may write everywhere")
def test_a_folder_that_can_not_be_written_to(folder):
    folder.chmod(0o500)
    try:
        assert len(DigitDataLoaders.from_folder(folder, valid_pct=0).train_ds) == 20 and caches(folder) == []
    finally:
        folder.chmod(0o700)


def test_no_room_for_a_cache(folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(np, "save", full)
    dls = DigitDataLoaders.from_folder(folder, valid_pct=0)
    assert dls.train.new(bs=5).one_batch()[0].shape == (5, 1, 28, 28) and caches(folder) == []


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
def test_a_killed_first_read_leaves_nothing_that_counts(folder):
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    left, = caches(folder)
    assert not left.endswith(".npy")
    assert len(DigitDataLoaders.from_folder(folder, valid_pct=0).train_ds) == 20
    long_ago = time.time() - 7200
    os.utime(folder / left, (long_ago, long_ago))
    (folder / "training/0/more.png").write_bytes((folder / "training/0" / os.listdir(folder / "training/0")[0]).read_bytes())
    DigitDataLoaders.from_folder(folder, valid_pct=0)
    assert len(caches(folder)) == 1 and caches(folder)[0].endswith(".npy"), "the next write sweeps up"


def total(folder):
    return int(DigitDataLoaders.from_folder(folder, valid_pct=0).train_ds.pixels.sum(dtype=np.int64))


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
def test_first_reads_at_the_same_time(folder):
    with get_context("fork").Pool(4) as pool:
        totals = pool.map(total, [folder] * 12, chunksize=1)
    assert set(totals) == {total(folder)} and len(caches(folder)) == 1


# bad input

@pytest.mark.parametrize("kept", [10, 33, 45, 60, 100, 150])
def test_truncated_files(folder, kept):
    file = folder / "testing/1/z.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (28, 28), dtype="uint8")).save(file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"z\.png can't be read as an image .*: repair or remove it"):
        DigitDataLoaders.from_folder(folder)
    assert caches(folder) == []


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGB", "RGBA", "I;16"])
def test_other_modes(folder, mode):
    Image.new(mode, (28, 28)).save(folder / "testing/1/z.png")
    with pytest.raises(ValueError, match=r"z\.png has mode '.+'.*convert\('L'\)"):
        DigitDataLoaders.from_folder(folder)


@pytest.mark.parametrize("harm, told", [
    (lambda f: shutil.rmtree(f / "training"), "has no folder training/"), (lambda f: shutil.rmtree(f / "testing"), "has no folder testing/"),
    (lambda f: [shutil.rmtree(f / "training" / c) for c in "01"], "has no class folders"),
    (lambda f: (f / "training/7").mkdir(), "training/7 is empty"), (lambda f: shutil.rmtree(f / "testing/1"), r"differ in the classes \['1'\]"),
    (lambda f: (f / "training/1/sub").mkdir(), "sub can't be read as an image")])
def test_folders_of_another_shape(folder, harm, told):
    harm(folder)
    with pytest.raises(ValueError, match=told):
        DigitDataLoaders.from_folder(folder)


@pytest.mark.parametrize("words, told", [(dict(valid_pct=1), "valid_pct is 1"), (dict(valid_pct=-.1), "wanted a share from 0"), (dict(n_train=1), "can't be split with 1"),
                                         (dict(n_train=0), "can't be split with 0"), (dict(bs=0), "bs is 0")])
def test_settings_that_make_no_sense(folder, words, told):
    with pytest.raises(ValueError, match=told):
        DigitDataLoaders.from_folder(folder, **words)


def test_mnist_without_a_network(monkeypatch, tmp_path):
    def no_network(url):
        raise OSError("no route to host")
    monkeypatch.setattr(data, "fastai_path", lambda name: tmp_path)
    monkeypatch.setattr(data, "untar_data", no_network)
    with pytest.raises(ConnectionError, match="connect to a network once, or use digits_path"):
        digits_path("mnist")
    assert list(tmp_path.iterdir()) == []
