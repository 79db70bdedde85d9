"""to_multilabel and to_multiclass on what the lesson does not show: other loaders, other learners, state that must not be shared."""
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.data import WeightedDL
from fastai.callback.tracker import SaveModelCallback
from fastai.tabular.all import RandomSplitter, TabularDataLoaders, tabular_learner
from fastai.text.all import AWD_LSTM, SortedDL, TextDataLoaders, awd_lstm_clas_config, text_classifier_learner
from fastai.vision.all import (CategoryBlock, DataBlock, ImageBlock, ImageDataLoaders, Learner, MultiCategoryBlock, OptimWrapper, PILImageBW, Resize,
                               TensorCategory, ToTensor, accuracy, accuracy_multi, get_image_files, load_learner, nn, parent_label)
from multilabel_mnist.data import digits_path
from multilabel_mnist.labels import BCEOneHotLossFlat, OneHot, as_list, class_indices, exact_match, one_hot, to_multiclass, to_multilabel


@pytest.fixture(scope="module")
def folder():
    return digits_path("embedded") / "testing"


@pytest.fixture(scope="module")
def files(folder):
    return sorted(get_image_files(folder))[::4]  # 90 pictures of all ten digits


def block(second=CategoryBlock, get_y=parent_label):
    return DataBlock((ImageBlock(PILImageBW), second), get_y=get_y, splitter=RandomSplitter(seed=42))


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))


def quiet(learn, n=1):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, 1e-2)
    return learn


def test_same_batches_in_the_same_order(files):
    dls = block().dataloaders(files, bs=16, num_workers=0)
    multi = to_multilabel(dls)
    for (xa, ya), (xb, yb) in zip(dls.train, multi.train):
        assert torch.equal(xa.as_subclass(torch.Tensor), xb.as_subclass(torch.Tensor))
        assert class_indices(yb).tolist() == ya.tolist()


def test_an_interrupted_loop_does_no_harm(files):
    dls = block().dataloaders(files, bs=16, num_workers=0)
    half = iter(dls.train)
    next(half)
    assert to_multilabel(dls).one_batch()[1].shape == (16, 10)


def test_workers_are_kept(files):
    dls = to_multilabel(block().dataloaders(files, bs=16, num_workers=1))
    assert dls.train.fake_l.num_workers == 1 and len(list(dls.train)) == 72 // 16


def test_weights_of_a_sampler_are_kept(files):
    dsets = block().datasets(files)
    dls = dsets.weighted_dataloaders(np.arange(len(dsets.train)), bs=16, num_workers=0, after_item=ToTensor())
    multi = to_multilabel(dls)
    assert isinstance(multi.train, WeightedDL) and (multi.train.wgts == dls.train.wgts).all()


def test_items_of_a_data_frame(files):
    df = pd.DataFrame({"file": [str(f) for f in files], "label": [f.parent.name for f in files]})
    dls = ImageDataLoaders.from_df(df, "/", valid_pct=.2, seed=42, bs=16, num_workers=0, item_tfms=Resize(28))
    multi = to_multilabel(dls)
    assert list(multi.vocab) == list(dls.vocab) and multi.one_batch()[1].shape == (16, 10)
    assert class_indices(multi.test_dl(df.iloc[:3], with_labels=True).one_batch()[1]).tolist() == [dls.vocab.o2i[v] for v in df.label[:3]]


def test_encoded_rows_become_labels(files):
    def row(f):
        return [float(f.parent.name == str(i)) for i in range(10)]

    multi = block(MultiCategoryBlock(encoded=True, vocab=list("0123456789")), row).dataloaders(files, bs=16, num_workers=0)
    dls = to_multiclass(multi)
    assert [dls.vocab[i] for i in dls.valid.one_batch()[1]] == [f.parent.name for f in dls.valid_ds.items[:16]]


def test_text_and_a_model_that_sets_tensors():
    df = pd.DataFrame({"text": ["a b c d"] * 20 + ["x y z"] * 20, "label": ["p"] * 20 + ["q"] * 20})
    dls = TextDataLoaders.from_df(df, text_col="text", label_col="label", valid_pct=.2, seq_len=8, bs=8)
    config = {**awd_lstm_clas_config, "n_hid": 12, "emb_sz": 6}
    learn = quiet(text_classifier_learner(dls, AWD_LSTM, pretrained=False, config=config, metrics=accuracy))
    multi = quiet(to_multilabel(learn))
    assert type(multi) is type(learn) and isinstance(multi.dls.train, SortedDL)
    assert [type(cb) for cb in multi.cbs] == [type(cb) for cb in learn.cbs]


@pytest.mark.filterwarnings("ignore:The given NumPy array")  # fastai's, of pandas' columns
def test_tabular_gets_the_loss_instead():
    df = pd.DataFrame(np.random.default_rng(42).normal(size=(60, 2)), columns=["a", "b"]).assign(y=["u", "v", "w"] * 20)
    dls = TabularDataLoaders.from_df(df, y_names="y", cont_names=["a", "b"], y_block=CategoryBlock(), bs=16)
    with pytest.raises(ValueError, match="BCEOneHotLossFlat works with any loader"):
        to_multilabel(dls)
    learn = quiet(tabular_learner(dls, loss_func=BCEOneHotLossFlat(), metrics=[exact_match, accuracy]))
    with learn.no_bar():
        assert learn.get_preds()[0].shape == (12, 3)
        with pytest.raises(ValueError, match="Shape of passed values"):  # fastai's tabular decoding wants one column a target
            learn.predict(df.iloc[0])


@pytest.mark.filterwarnings("ignore:numpy.core is deprecated")  # fastai's
def test_settings_are_kept_and_nothing_is_shared(files, tmp_path):
    dls = block().dataloaders(files, bs=16, num_workers=0)
    mine = SaveModelCallback(fname="best")
    learn = Learner(dls, linear(), metrics=accuracy, lr=.02, wd=.1, moms=(.9, .8, .9), train_bn=False, path=tmp_path, cbs=mine)
    quiet(learn)
    learn.model[1].bias.requires_grad_(False)
    multi = to_multilabel(learn)
    for name in "lr wd moms train_bn path model_dir splitter opt_func".split():
        assert getattr(multi, name) == getattr(learn, name)
    assert multi.opt is None and not multi.model[1].bias.requires_grad
    assert multi.save_model is not mine and multi.save_model.learn is multi and mine.learn is learn
    assert [m.name for m in multi.metrics] == ["exact_match", "accuracy_multi"]
    assert [m.name for m in to_multiclass(multi).metrics] == ["accuracy"]
    assert not {id(f) for tl in dls.train_ds.tls for f in tl.tfms.fs} & {id(f) for tl in multi.dls.train_ds.tls for f in tl.tfms.fs}
    assert not {id(f) for f in dls.after_batch.fs} & {id(f) for f in multi.dls.after_batch.fs}
    before = learn.model[1].weight.clone()
    quiet(multi)
    assert torch.equal(learn.model[1].weight, before) and not torch.equal(multi.model[1].weight, before)


def test_an_optimizer_over_the_originals_weights_is_refused(files):
    learn = Learner(block().dataloaders(files, bs=16, num_workers=0), linear())
    learn.opt_func = OptimWrapper(params=learn.model.parameters(), opt=torch.optim.SGD, lr=.1)
    with pytest.raises(ValueError, match="opt_func is an OptimWrapper over this learner's weights"):
        to_multilabel(learn)


def test_a_loaded_learner_is_converted_both_ways(files, tmp_path):
    learn = Learner(to_multilabel(block().dataloaders(files, bs=16, num_workers=0)), linear(), metrics=[accuracy_multi], path=tmp_path)
    learn.export("x.pkl")
    with warnings.catch_warnings(action="ignore"):
        loaded = load_learner(tmp_path / "x.pkl")
    single = to_multiclass(loaded)
    with single.no_bar():
        assert single.predict(files[0])[0] in list("0123456789")
        assert to_multilabel(single).predict(files[0])[2].shape == (10,)


LABELS = [2, 0, 1, 1]
KINDS = {
    "list": LABELS, "tuple": tuple(LABELS), "array": np.array(LABELS), "backwards": np.array(LABELS[::-1])[::-1], "objects": np.array(LABELS, dtype=object),
    "column": pd.Series(LABELS, index=[9, 7, 5, 3]), "nullable column": pd.Series(LABELS, dtype="Int64"), "codes": pd.Categorical(list("cabb")).codes,
    "uint8": torch.tensor(LABELS).byte(), "uint16": torch.tensor(LABELS).to(torch.uint16), "whole floats": torch.tensor(LABELS).double(),
    "every second": torch.tensor([2, 9, 0, 9, 1, 9, 1])[::2], "fastai's": TensorCategory(LABELS), "items of fastai": [TensorCategory(i) for i in LABELS]}


@pytest.mark.parametrize("labels", KINDS.values(), ids=KINDS)
def test_labels_of_any_kind(labels):
    rows = torch.eye(3)[LABELS]
    torch.testing.assert_close(one_hot(labels, 3), rows)
    assert type(one_hot(labels, np.int64(3))) is torch.Tensor
    logits = torch.linspace(-1, 1, 12).reshape(4, 3)
    torch.testing.assert_close(BCEOneHotLossFlat()(logits, labels), torch.nn.functional.binary_cross_entropy_with_logits(logits, rows))
    assert exact_match(rows * 9 - 5, labels) == 1


@pytest.mark.parametrize("rows", [np.eye(3), np.eye(3).tolist(), pd.DataFrame(np.eye(3), index=list("abc")), torch.eye(3).bool(), torch.eye(3).half(), torch.eye(3).T],
                         ids="array list table bool half transposed".split())
def test_rows_of_any_kind(rows):
    assert class_indices(rows).tolist() == [0, 1, 2]


@pytest.mark.parametrize("labels, said", [
    (["two", "zero"], "o2i turns a name into its index"), (pd.Series(["a", "b"]), "o2i"), ([1, None], "o2i"), (None, "o2i"), ({0: 1}, "o2i"), ([[0], [1, 2]], "o2i"),
    (pd.Series([0, 1, None]), "not all whole"), (torch.tensor([0, torch.inf]), "not all whole"), (torch.tensor([.5]), "not all whole"), (torch.tensor([1j]), "not all whole"),
    (torch.tensor([-1]), "run from -1 to -1: wanted 0 to 2"), (torch.tensor([0, 2 ** 40]), "wanted 0 to 2"), (torch.tensor(1), r"shape \(\)"), ([True], "True means class 1")])
def test_labels_that_are_none(labels, said):
    with pytest.raises(ValueError, match=said):
        one_hot(labels, 3)
    with pytest.raises(ValueError, match="wanted"):
        BCEOneHotLossFlat()(torch.zeros(2, 3), labels)


def test_no_labels_give_no_rows_and_no_loss():
    assert one_hot([], 3).shape == (0, 3) and class_indices(torch.zeros(0, 3)).shape == (0,)
    with pytest.raises(ValueError, match="wanted .N, C., with at least one row"):
        BCEOneHotLossFlat()(torch.zeros(0, 3), torch.zeros(0).long())


def test_one_output_wants_rows():
    logits, targs = torch.zeros(4, 1), torch.tensor([0, 1, 1, 0])
    with pytest.raises(ValueError, match="a single yes-or-no question go as targets"):
        BCEOneHotLossFlat()(logits, targs)
    assert BCEOneHotLossFlat()(logits, targs[:, None].float()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_another_precision(dtype):
    logits = torch.linspace(-1, 1, 12).reshape(3, 4).T.to(dtype)  # not contiguous either
    torch.testing.assert_close(BCEOneHotLossFlat()(logits, LABELS), BCEOneHotLossFlat()(logits.float(), LABELS), atol=1e-3, rtol=0)


@pytest.mark.parametrize("names", [["no", "yes"], ["cat", "dog", "owl"]], ids=len)
def test_three_places_agree_on_words(files, names):
    def name(f):
        return names[int(f.parent.name) % len(names)]

    dls = [block(MultiCategoryBlock, as_list(name)), block(get_y=name), block(get_y=name)]
    dls = [b.dataloaders(files, bs=16, num_workers=0, **kw) for b, kw in zip(dls, ({}, {"batch_tfms": OneHot(len(names))}, {}))]
    assert [list(d.vocab) for d in dls] == [names] * 3
    net = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, len(names)))
    losses = [BCEOneHotLossFlat()(net(x), y) for x, y in (d.valid.one_batch() for d in dls)]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])
    multi = to_multilabel(dls[2])
    shown = multi.valid.decode_batch(multi.valid.one_batch(), max_n=4)
    assert [list(y) for _, y in shown] == [[name(f)] for f in multi.valid_ds.items[:4]]


def test_metrics_of_text_know_the_number_of_classes():
    df = pd.DataFrame({"text": ["a b c", "x y", "u v"] * 12, "label": list("pqr") * 12})
    dls = to_multilabel(TextDataLoaders.from_df(df, text_col="text", label_col="label", valid_pct=.2, seq_len=8, bs=8))
    assert dls.c == 3 and dls.one_batch()[1].shape == (8, 3)
