"""OneHot, BCEOneHotLossFlat, to_multilabel and to_multiclass, on many loaders and learners."""

import io
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.data import WeightedDL
from fastai.callback.tracker import SaveModelCallback
from fastai.tabular.all import RandomSplitter, TabularDataLoaders, tabular_learner
from fastai.text.all import (
    AWD_LSTM,
    SortedDL,
    TextDataLoaders,
    awd_lstm_clas_config,
    text_classifier_learner,
)
from fastai.vision.all import (
    BCEWithLogitsLossFlat,
    Callback,
    CategoryBlock,
    ClassificationInterpretation,
    CrossEntropyLossFlat,
    DataBlock,
    DataLoaders,
    ImageBlock,
    ImageDataLoaders,
    Learner,
    MixUp,
    MultiCategoryBlock,
    OneHotEncode,
    OptimWrapper,
    PILImageBW,
    Resize,
    TensorCategory,
    TensorMultiCategory,
    ToTensor,
    accuracy,
    accuracy_multi,
    error_rate,
    get_image_files,
    load_learner,
    nn,
    parent_label,
    plt,
)
from test_labels import KINDS, LABELS, NOT_LABELS

from multilabel_mnist.data import digits_path
from multilabel_mnist.labels import (
    BCEOneHotLossFlat,
    OneHot,
    as_list,
    class_indices,
    exact_match,
    to_multiclass,
    to_multilabel,
)


@pytest.fixture(scope="module")
def folder():
    return digits_path("embedded") / "testing"


@pytest.fixture(scope="module")
def files(folder):
    return sorted(get_image_files(folder))[::4]  # 90 images of all ten digits


@pytest.fixture
def dls(files):
    return block().dataloaders(files, bs=16, num_workers=0)


def block(second=CategoryBlock, get_y=parent_label, **kwargs):
    blocks = (ImageBlock(PILImageBW), second)
    return DataBlock(blocks, get_y=get_y, splitter=RandomSplitter(seed=42), **kwargs)


def linear(n_out=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, n_out))


def quiet(learn, n=1):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, 1e-2)
    return learn


# DataLoaders


def test_same_batches_in_the_same_order(dls):
    multi = to_multilabel(dls)
    n = 0
    for (xa, ya), (xb, yb) in zip(dls.train, multi.train, strict=True):
        assert torch.equal(xa.as_subclass(torch.Tensor), xb.as_subclass(torch.Tensor))
        assert class_indices(yb).tolist() == ya.tolist()
        n += 1
    assert n == 72 // 16


def test_an_interrupted_loop_does_no_harm(dls):
    half = iter(dls.train)
    next(half)
    assert to_multilabel(dls).one_batch()[1].shape == (16, 10)


def test_workers_are_kept(files):
    dls = to_multilabel(block().dataloaders(files, bs=16, num_workers=1))
    assert dls.train.fake_l.num_workers == 1
    assert len(list(dls.train)) == 72 // 16


def test_weights_of_a_sampler_are_kept(files):
    dsets = block().datasets(files)
    wgts = np.arange(len(dsets.train))
    dls = dsets.weighted_dataloaders(wgts, bs=16, num_workers=0, after_item=ToTensor())
    multi = to_multilabel(dls)
    assert isinstance(multi.train, WeightedDL)
    assert (multi.train.wgts == dls.train.wgts).all()


def test_items_of_a_data_frame(files):
    df = pd.DataFrame({"file": [str(f) for f in files], "label": [f.parent.name for f in files]})
    dls = ImageDataLoaders.from_df(
        df, "/", valid_pct=0.2, seed=42, bs=16, num_workers=0, item_tfms=Resize(28)
    )
    multi = to_multilabel(dls)
    assert list(multi.vocab) == list(dls.vocab)
    assert multi.one_batch()[1].shape == (16, 10)
    new = multi.test_dl(df.iloc[:3], with_labels=True).one_batch()[1]
    assert class_indices(new).tolist() == [dls.vocab.o2i[v] for v in df.label[:3]]


def test_encoded_targets_become_labels(files):
    def target(f):
        return [float(f.parent.name == str(i)) for i in range(10)]

    encoded = MultiCategoryBlock(encoded=True, vocab=list("0123456789"))
    dls = to_multiclass(block(encoded, target).dataloaders(files, bs=16, num_workers=0))
    found = [dls.vocab[i] for i in dls.valid.one_batch()[1]]
    assert found == [f.parent.name for f in dls.valid_ds.items[:16]]


def test_types_that_a_loader_has_seen_are_converted(files, dls):
    dls.test_dl(files[:2])  # fastai now remembers the types in a batch
    multi = to_multilabel(dls)
    multi.test_dl(files[:2])
    back = to_multiclass(multi)
    for loaders, expected in ((multi, TensorMultiCategory), (back, TensorCategory)):
        assert "_types" in vars(loaders.valid)
        x, y = loaders.valid.one_batch()
        plain = (x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor))
        assert type(loaders.valid.decode(plain)[1]) is expected


def test_two_targets_cannot_be_converted(files):
    blocks = (ImageBlock(PILImageBW), CategoryBlock, CategoryBlock)
    get_y = [parent_label, parent_label]
    two = DataBlock(blocks, get_y=get_y, n_inp=1, splitter=RandomSplitter(seed=42))
    with pytest.raises(ValueError, match="expected items with exactly one target, got 2 targets"):
        to_multilabel(two.dataloaders(files, bs=16, num_workers=0))


@pytest.mark.parametrize("convert", [to_multilabel, to_multiclass])
def test_only_data_loaders_and_learners(convert):
    with pytest.raises(TypeError, match="expected DataLoaders or a Learner, got a list"):
        convert([1])


@pytest.mark.parametrize("names", [["no", "yes"], ["cat", "dog", "owl"]], ids=len)
def test_three_places_agree_on_words(files, names):
    def name(f):
        return names[int(f.parent.name) % len(names)]

    by_item = block(MultiCategoryBlock, as_list(name)).dataloaders(files, bs=16, num_workers=0)
    one_hot_block = block(get_y=name, batch_tfms=OneHot(len(names)))
    by_batch = one_hot_block.dataloaders(files, bs=16, num_workers=0)
    by_loss = block(get_y=name).dataloaders(files, bs=16, num_workers=0)
    assert [list(d.vocab) for d in (by_item, by_batch, by_loss)] == [names] * 3
    assert type(by_batch.one_batch()[1]) is TensorMultiCategory
    net = linear(len(names))
    losses = []
    for d in (by_item, by_batch, by_loss):
        x, y = d.valid.one_batch()
        losses.append(BCEOneHotLossFlat()(net(x), y))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])
    multi = to_multilabel(by_loss)
    shown = multi.valid.decode_batch(multi.valid.one_batch(), max_n=4)
    assert [list(y) for _, y in shown] == [[name(f)] for f in multi.valid_ds.items[:4]]


def test_loaders_can_be_saved_unless_get_y_is_a_lambda(files):
    saved = io.BytesIO()
    torch.save(block(MultiCategoryBlock, as_list(parent_label)).dataloaders(files), saved)
    assert saved.tell() > 0
    with pytest.raises((pickle.PicklingError, AttributeError)):
        by_lambda = block(MultiCategoryBlock, lambda o: [o.parent.name])
        torch.save(by_lambda.dataloaders(files), io.BytesIO())


def test_what_fastais_own_encoder_does_not_check():
    encode = OneHotEncode(3)
    assert encode(TensorMultiCategory([2])).tolist() == [0, 0, 1]
    assert encode(TensorMultiCategory([-1])).tolist() == [0, 0, 1]
    assert encode(torch.tensor(LABELS)).shape == (3,)  # a batch of labels is one target


# The three places, beyond the loss


PLACES = ("item", "batch", "loss")


def place_learner(place, files, **kwargs):
    """Return a Learner whose labels become targets in one of the three places."""
    options = {"bs": 16, "num_workers": 0}
    loss_func = BCEWithLogitsLossFlat()
    if place == "item":
        dls = block(MultiCategoryBlock, as_list(parent_label)).dataloaders(files, **options)
    elif place == "batch":
        dls = block(batch_tfms=OneHot(10)).dataloaders(files, **options)
    else:
        dls = block().dataloaders(files, **options)
        loss_func = BCEOneHotLossFlat()
    return Learner(dls, linear(), loss_func=loss_func, metrics=exact_match, **kwargs)


@pytest.mark.parametrize("place", PLACES)
def test_an_exported_learner_predicts_the_same(place, files, tmp_path):
    learn = quiet(place_learner(place, files, path=tmp_path))
    learn.export("x.pkl")
    with warnings.catch_warnings(action="ignore"):
        loaded = load_learner(tmp_path / "x.pkl")
    with learn.no_bar(), loaded.no_bar():
        torch.testing.assert_close(loaded.predict(files[0])[2], learn.predict(files[0])[2])


def test_an_exported_lambda_needs_cloudpickle(files, tmp_path):
    by_lambda = block(MultiCategoryBlock, lambda o: [o.parent.name])
    dls = by_lambda.dataloaders(files, bs=16, num_workers=0)
    learn = Learner(dls, linear(), path=tmp_path)
    learn.export("x.pkl")
    with warnings.catch_warnings(action="ignore"):
        assert load_learner(tmp_path / "x.pkl").dls.vocab == dls.vocab
    with pytest.raises((pickle.PicklingError, AttributeError)):
        learn.export("x.pkl", pickle_module=pickle)


@pytest.mark.parametrize("place", PLACES)
def test_mixup_needs_targets_before_the_loss(place, files):
    learn = place_learner(place, files, cbs=MixUp())
    if place == "loss":
        with pytest.raises(RuntimeError):
            quiet(learn)
    else:
        assert len(quiet(learn).recorder.values) == 1


def test_a_confusion_matrix_needs_one_class_per_image(files):
    learn = place_learner("item", files)
    with learn.no_bar():
        matrix = ClassificationInterpretation.from_learner(learn).confusion_matrix()
    assert matrix.sum() == 10 * len(learn.dls.valid_ds)  # it counts outputs, not images
    assert matrix[2:].sum() + matrix[:, 2:].sum() == 0  # "fires" and "does not"
    learn = place_learner("loss", files)
    with learn.no_bar(), pytest.raises(AssertionError):
        ClassificationInterpretation.from_learner(learn).confusion_matrix()


def test_the_loss_trains_on_loaders_of_plain_torch():
    data = torch.utils.data.TensorDataset(torch.rand(64, 1, 28, 28), torch.arange(64) % 10)
    loader = torch.utils.data.DataLoader(data, batch_size=32)
    dls = DataLoaders(loader, loader)
    learn = quiet(Learner(dls, linear(), loss_func=BCEOneHotLossFlat(), metrics=exact_match))
    with learn.no_bar():
        assert learn.get_preds(dl=dls.valid)[0].shape == (64, 10)


# Learners


def test_results_of_a_converted_learner_are_shown(dls):
    multi = to_multilabel(quiet(Learner(dls, linear(), metrics=accuracy)))
    with multi.no_bar():
        multi.show_results(max_n=2, shuffle=False)
    title = plt.gcf().axes[0].get_title()
    plt.close("all")
    assert title.startswith(multi.dls.valid_ds.items[0].parent.name)


def text_loaders(df):
    return TextDataLoaders.from_df(
        df, text_col="text", label_col="label", valid_pct=0.2, seq_len=8, bs=8
    )


def test_text_and_a_model_that_sets_tensors():
    texts = ["a b c d"] * 20 + ["x y z"] * 20
    dls = text_loaders(pd.DataFrame({"text": texts, "label": ["p"] * 20 + ["q"] * 20}))
    config = {**awd_lstm_clas_config, "n_hid": 12, "emb_sz": 6}
    learn = text_classifier_learner(
        dls, AWD_LSTM, pretrained=False, config=config, metrics=accuracy
    )
    quiet(learn)
    multi = quiet(to_multilabel(learn))
    assert type(multi) is type(learn)
    assert isinstance(multi.dls.train, SortedDL)
    assert [type(cb) for cb in multi.cbs] == [type(cb) for cb in learn.cbs]


def test_metrics_of_text_know_the_number_of_classes():
    df = pd.DataFrame({"text": ["a b c", "x y", "u v"] * 12, "label": list("pqr") * 12})
    dls = to_multilabel(text_loaders(df))
    assert dls.c == 3
    assert dls.one_batch()[1].shape == (8, 3)


@pytest.mark.filterwarnings("ignore:The given NumPy array")  # fastai's, of pandas' columns
def test_tabular_gets_the_loss_instead():
    numbers = np.random.default_rng(42).normal(size=(60, 2))
    df = pd.DataFrame(numbers, columns=["a", "b"]).assign(y=["u", "v", "w"] * 20)
    dls = TabularDataLoaders.from_df(
        df, y_names="y", cont_names=["a", "b"], y_block=CategoryBlock(), bs=16
    )
    with pytest.raises(ValueError, match="BCEOneHotLossFlat works with any loader"):
        to_multilabel(dls)
    learn = tabular_learner(dls, loss_func=BCEOneHotLossFlat(), metrics=[exact_match, accuracy])
    quiet(learn)
    with learn.no_bar():
        assert learn.get_preds()[0].shape == (12, 3)
        # fastai's tabular decoding needs one column per target
        with pytest.raises(ValueError, match="Shape of passed values"):
            learn.predict(df.iloc[0])


def transforms(dls):
    return {id(f) for pipeline in dls.train_ds.tls for f in pipeline.tfms.fs}


@pytest.mark.filterwarnings("ignore:numpy.core is deprecated")  # fastai's
def test_settings_are_kept_and_nothing_is_shared(dls, tmp_path):
    mine = SaveModelCallback(fname="best")
    learn = Learner(
        dls,
        linear(),
        metrics=accuracy,
        lr=0.02,
        wd=0.1,
        moms=(0.9, 0.8, 0.9),
        train_bn=False,
        path=tmp_path,
        cbs=mine,
    )
    quiet(learn)
    learn.model[1].bias.requires_grad_(False)
    multi = to_multilabel(learn)
    for name in "lr wd moms train_bn path model_dir splitter opt_func".split():
        assert getattr(multi, name) == getattr(learn, name)
    assert multi.opt is None
    assert not multi.model[1].bias.requires_grad
    assert multi.save_model is not mine
    assert multi.save_model.learn is multi
    assert mine.learn is learn
    assert [m.name for m in multi.metrics] == ["exact_match", "accuracy_multi"]
    assert [m.name for m in to_multiclass(multi).metrics] == ["accuracy"]
    assert not transforms(dls) & transforms(multi.dls)
    assert not {id(f) for f in dls.after_batch.fs} & {id(f) for f in multi.dls.after_batch.fs}
    before = learn.model[1].weight.clone()
    quiet(multi)
    assert torch.equal(learn.model[1].weight, before)
    assert not torch.equal(multi.model[1].weight, before)


def test_what_was_recorded_stays_with_the_original(dls):
    learn = quiet(Learner(dls, linear()))
    multi = to_multilabel(learn)
    assert len(learn.recorder.values) == 1
    assert not hasattr(multi.recorder, "values")
    assert len(quiet(multi).recorder.values) == 1


class Holds(Callback):
    """A callback that refers to the model and to the data."""

    def __init__(self, net, data):
        self.net = net
        self.data = data


def test_a_callback_refers_to_the_new_model_and_data(dls):
    net = linear()
    multi = to_multilabel(Learner(dls, net, cbs=Holds(net, dls)))
    assert multi.holds.net is multi.model
    assert multi.holds.data is multi.dls


def test_an_optimizer_over_the_originals_weights_is_refused(dls):
    learn = Learner(dls, linear())
    learn.opt_func = OptimWrapper(params=learn.model.parameters(), opt=torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="got an OptimWrapper over this learner's weights"):
        to_multilabel(learn)


def test_a_loaded_learner_is_converted_both_ways(files, dls, tmp_path):
    learn = Learner(to_multilabel(dls), linear(), metrics=[accuracy_multi], path=tmp_path)
    learn.export("x.pkl")
    with warnings.catch_warnings(action="ignore"):
        loaded = load_learner(tmp_path / "x.pkl")
    single = to_multiclass(loaded)
    with single.no_bar():
        assert single.predict(files[0])[0] in list("0123456789")
        assert to_multilabel(single).predict(files[0])[2].shape == (10,)


def fussy(inp, targ):
    """Raise what no library would, for targets."""
    if targ.ndim == 2:
        raise ZeroDivisionError
    return (inp.argmax(1) == targ).float().mean()


def either(inp, targ):
    """Accept labels and targets."""
    return torch.tensor(float(targ.ndim))


def test_metrics_are_translated_tried_or_dropped(dls):
    learn = Learner(dls, linear(), metrics=[accuracy, error_rate, fussy, either])
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match="dropped metrics that cannot read the new") as caught:
        multi = to_multilabel(learn)
    assert torch.equal(torch.get_rng_state(), state), "the next random numbers are the same"
    assert [m.name for m in multi.metrics] == ["exact_match", "accuracy_multi", "either"]
    assert str(caught[0].message).endswith("targets: fussy")
    assert caught[0].filename == __file__, "the warning points at the line that called"
    assert [m.name for m in learn.metrics] == ["accuracy", "error_rate", "fussy", "either"]


@pytest.mark.parametrize(
    "loss_func",
    [
        CrossEntropyLossFlat(weight=torch.ones(10)),
        CrossEntropyLossFlat(label_smoothing=0.1),
        nn.MultiMarginLoss(),
    ],
    ids=["weight", "smoothing", "other"],
)
def test_a_loss_with_settings_is_replaced_with_a_warning(dls, loss_func):
    learn = Learner(dls, linear(), loss_func=loss_func)
    with pytest.warns(UserWarning, match="by a plain BCEWithLogitsLossFlat") as caught:
        multi = to_multilabel(learn)
    assert caught[0].filename == __file__
    assert type(multi.loss_func).__name__ == "BCEWithLogitsLossFlat"
    assert learn.loss_func is loss_func


@pytest.mark.parametrize(
    "loss_func", [None, nn.CrossEntropyLoss(), torch.nn.functional.cross_entropy]
)
def test_a_plain_loss_is_replaced_without_a_warning(dls, loss_func):
    with warnings.catch_warnings(action="error"):
        multi = to_multilabel(Learner(dls, linear(), loss_func=loss_func))
    assert type(multi.loss_func).__name__ == "BCEWithLogitsLossFlat"


# The batch transform and the loss


def test_one_hot_is_for_labels_alone():
    once = OneHot(3)(TensorCategory(LABELS))
    assert type(once) is TensorMultiCategory
    assert once.dtype == torch.float32
    assert once.tolist() == torch.eye(3)[LABELS].tolist()
    assert OneHot(3)(once) is once
    plain = torch.tensor(LABELS)
    assert OneHot(3)(plain) is plain
    with pytest.raises(ValueError, match=r"shape \(N, 2\) for OneHot\(2\), got \(4, 3\)"):
        OneHot(2)(once)
    with pytest.raises(ValueError, match="expected labels from 0 to 1 for 2 classes"):
        OneHot(2)(TensorCategory(LABELS))


@pytest.mark.parametrize("labels", KINDS.values(), ids=KINDS)
def test_the_loss_accepts_labels_of_any_kind(labels):
    logits = torch.linspace(-1, 1, 12).reshape(4, 3)
    expected = nn.functional.binary_cross_entropy_with_logits(logits, torch.eye(3)[LABELS])
    torch.testing.assert_close(BCEOneHotLossFlat()(logits, labels), expected)


@pytest.mark.parametrize("labels, _", NOT_LABELS)
def test_the_loss_accepts_nothing_else(labels, _):
    with pytest.raises(ValueError, match="expected"):
        BCEOneHotLossFlat()(torch.zeros(2, 3), labels)


def test_no_images_give_no_loss():
    with pytest.raises(ValueError, match="shape .N, C. with at least one row"):
        BCEOneHotLossFlat()(torch.zeros(0, 3), torch.zeros(0).long())


def test_one_output_needs_targets():
    logits, targs = torch.zeros(4, 1), torch.tensor([0, 1, 1, 0])
    with pytest.raises(ValueError, match="a single yes-or-no question as targets"):
        BCEOneHotLossFlat()(logits, targs)
    assert BCEOneHotLossFlat()(logits, targs[:, None].float()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_another_precision(dtype):
    logits = torch.linspace(-1, 1, 12).reshape(3, 4).T.to(dtype)  # not contiguous either
    loss = BCEOneHotLossFlat()
    in_float32 = loss(logits.float(), LABELS)
    torch.testing.assert_close(loss(logits, LABELS), in_float32, atol=1e-3, rtol=0)
