"""DigitDataLoaders where a lesson does not look: they behave as fastai's in every other respect."""

import pickle

import numpy as np
import pytest
import torch
from fastai.callback.fp16 import MixedPrecision  # noqa: F401  (adds to_fp16 and to_bf16)
from fastai.distributed import DistributedDL
from fastai.vision.all import (
    CrossEntropyLossFlat,
    ImageDataLoaders,
    Learner,
    PILImageBW,
    RandomErasing,
    TensorImageBW,
    Transform,
    accuracy,
    load_learner,
    nn,
    set_seed,
)
from matplotlib import pyplot as plt
from torch import Tensor

from multilabel_mnist.data import DigitDataLoaders, digits_path


@pytest.fixture(scope="module")
def path():
    return digits_path("embedded")


@pytest.fixture
def dls(path):
    return DigitDataLoaders.from_folder(path, bs=64, device="cpu")


def learner(dls, **kwargs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, **kwargs)


def fit_quietly(learn, n=1):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, 1e-2)
    return learn


def plain(t):
    return t.as_subclass(Tensor)


def all_images(dl):
    """Return the images of one pass."""
    return torch.cat([plain(x) for x, _ in dl])


def all_labels(dl):
    """Return the labels of one pass, in the order in which they came."""
    return torch.cat([plain(y) for _, y in dl])


@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_image_is_what_fastai_reads(path, split):
    stock = ImageDataLoaders.from_folder(
        path,
        train="training",
        valid="testing",
        img_cls=PILImageBW,
        bs=64,
        num_workers=0,
        device="cpu",
    )
    ours = DigitDataLoaders.from_folder(path, bs=64, valid_pct=0, device="cpu")
    our_dl = getattr(ours, split).new(shuffle=False, drop_last=False)
    stock_dl = getattr(stock, split).new(shuffle=False, drop_last=False)
    decode = ours.train.after_batch[-1].decode
    our_images = torch.cat([plain(decode(x)) for x, _ in our_dl])
    position = {file: i for i, file in enumerate(our_dl.dataset.items)}
    order = [position[file] for file in stock_dl.dataset.items]
    torch.testing.assert_close(
        our_images[order].mul(255).round(), all_images(stock_dl).mul(255).round()
    )


def test_pixels_are_bytes_in_a_mapped_file(dls):
    pixels = dls.train_ds.pixels
    assert pixels.dtype == np.uint8
    assert isinstance(pixels, np.memmap)
    assert pixels is dls.test_ds.pixels
    kept = pixels[0].copy()
    pixels[0] = 255  # a mistake stays in this process
    try:
        in_the_file = np.fromfile(pixels.filename, "uint8", count=kept.size)
        assert (in_the_file == kept.ravel()).all()
    finally:
        pixels[0] = kept


def test_each_epoch_has_each_image_once_in_a_new_order(dls):
    dl = dls.train.new(drop_last=False)
    first = all_labels(dl)
    second = all_labels(dl)
    assert len(first) == len(dls.train_ds)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sort().values, second.sort().values)
    assert torch.equal(all_labels(dls.valid), torch.as_tensor(dls.valid_ds.labels))


def test_a_seed_fixes_the_order(path):
    def one_pass():
        set_seed(7)
        return all_labels(DigitDataLoaders.from_folder(path, bs=64, device="cpu").train)

    assert torch.equal(one_pass(), one_pass())


@pytest.mark.parametrize("drop_last, n", [(True, 20), (False, 21)])
def test_drop_last_and_length(dls, drop_last, n):
    dl = dls.train.new(drop_last=drop_last)
    sizes = [len(x) for x, _ in dl]
    assert len(dls.train_ds) == 1293
    assert len(dl) == n
    assert len(sizes) == n
    assert sizes == [64] * 20 + [13] * (n - 20)


def test_new_takes_other_settings(dls):
    x, y = dls.valid.new(bs=7).one_batch()
    assert x.shape == (7, 1, 28, 28)
    assert (type(x), x.dtype) == (TensorImageBW, torch.float32)
    assert y.shape == (7,)
    torch.testing.assert_close(plain(x), plain(dls.valid.one_batch()[0])[:7])


def test_worker_processes_give_the_same_batches(dls):
    for (x, y), (x2, y2) in zip(dls.valid, dls.valid.new(num_workers=2), strict=True):
        torch.testing.assert_close(plain(x), plain(x2))
        assert torch.equal(plain(y), plain(y2))


def test_a_test_dl_of_files_with_and_without_labels(dls):
    files = dls.test_ds.items[:9]
    (x,) = dls.test_dl(files).one_batch()
    x2, y = dls.test_dl(files, with_labels=True).one_batch()
    torch.testing.assert_close(plain(x), plain(dls.test.one_batch()[0])[:9])
    torch.testing.assert_close(plain(x), plain(x2))
    assert [dls.vocab[i] for i in y] == [f.parent.name for f in files]


class Half(Transform):
    split_idx = 0  # training only

    def encodes(self, x: TensorImageBW):
        return x / 2


def test_batch_transforms_of_your_own(path, dls):
    dls.add_tfms([Half()], "after_batch")
    raw = DigitDataLoaders.from_folder(path, bs=64, device="cpu")
    names = [type(f).__name__ for f in dls.train.after_batch.fs]
    assert names == ["Half", "PixelsToFloat", "NormalizePixels"]
    assert plain(dls.train.one_batch()[0]).max() < plain(raw.train.one_batch()[0]).max()
    torch.testing.assert_close(plain(dls.valid.one_batch()[0]), plain(raw.valid.one_batch()[0]))
    dls.add_tfms([RandomErasing(p=1.0)], "after_batch")
    assert dls.train.one_batch()[0].shape == (64, 1, 28, 28)


def test_to_moves_batches_and_normalization(dls):
    """There is a device without a GPU: meta, which holds no numbers."""
    dls.to(torch.device("meta"))
    x, y = next(iter(dls.train))
    assert x.device.type == "meta"
    assert y.device.type == "meta"
    assert dls.train.after_batch[-1].mean.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda(dls):
    dls.cuda()
    assert all(o.is_cuda for o in dls.train.one_batch())


def test_show_batch(dls):
    dls.show_batch(max_n=4)
    titles = [ax.get_title() for ax in plt.gcf().axes if ax.get_title()]
    assert len(titles) == 4
    assert set(titles) <= set(dls.vocab)


def test_lr_find(dls):
    learn = learner(dls)
    with learn.no_bar(), learn.no_logging():
        assert 1e-6 < learn.lr_find(show_plot=False).valley < 10


def test_half_precision_on_a_cpu(dls):
    learn = fit_quietly(learner(dls).to_bf16())
    assert learn.recorder.values[-1][-1] > 0.5
    assert learn.get_preds()[0].dtype == torch.float32


def test_ranks_share_an_epoch(dls, monkeypatch):
    # fastai's own _broadcast needs a GPU
    monkeypatch.setattr(DistributedDL, "_broadcast", lambda self, t, rank: list(t))
    parts = [DistributedDL(dls.valid, rank=rank, world_size=2) for rank in range(2)]
    assert len(dls.valid_ds) == 144
    images = [all_images(part) for part in parts]
    torch.testing.assert_close(torch.cat(images), all_images(dls.valid))
    assert [len(x) for x in images] == [72, 72]


def test_export_predict_and_pickle(dls, tmp_path):
    learn = fit_quietly(learner(dls))
    learn.export(tmp_path / "e.pkl")
    size = (tmp_path / "e.pkl").stat().st_size
    assert size < 200_000, "an exported learner contains pixels"
    again = load_learner(tmp_path / "e.pkl")
    file = dls.test_ds.items[3]
    assert again.predict(file)[0] == learn.predict(file)[0]
    torch.testing.assert_close(again.predict(file)[2], learn.predict(file)[2])
    x, _ = dls.valid.one_batch()
    x2, _ = pickle.loads(pickle.dumps(dls)).valid.one_batch()
    torch.testing.assert_close(plain(x), plain(x2))


def test_learners_exported_before_the_modules_were_split_find_their_classes():
    from multilabel_mnist import data

    for name in ("DigitDatasets", "PixelDL", "PixelsToFloat", "NormalizePixels", "grey_image"):
        assert hasattr(data, name), f"a pickle looks for multilabel_mnist.data.{name}"
