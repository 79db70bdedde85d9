"""OneHot, BCEOneHotLossFlat, to_multilabel and to_multiclass, on many loaders and learners."""

import io
import pickle
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.data import WeightedDL
from fastai.callback.tracker import (
    EarlyStoppingCallback,
    ReduceLROnPlateau,
    SaveModelCallback,
    TrackerCallback,
)
from fastai.tabular.all import RandomSplitter, TabularDataLoaders, tabular_learner
from fastai.text.all import (
    AWD_LSTM,
    SortedDL,
    TextDataLoaders,
    awd_lstm_clas_config,
    text_classifier_learner,
)
from fastai.vision.all import (
    APScoreBinary,
    BalancedAccuracy,
    BCEWithLogitsLossFlat,
    Callback,
    Categorize,
    CategoryBlock,
    ClassificationInterpretation,
    CohenKappa,
    CrossEntropyLossFlat,
    CSVLogger,
    CutMix,
    DataBlock,
    DataLoaders,
    Datasets,
    EncodedMultiCategorize,
    F1Score,
    F1ScoreMulti,
    FBeta,
    HammingLoss,
    ImageBlock,
    ImageDataLoaders,
    Jaccard,
    Learner,
    MatthewsCorrCoef,
    MixUp,
    MultiCategorize,
    MultiCategoryBlock,
    OneHotEncode,
    OptimWrapper,
    PILImageBW,
    Precision,
    PrecisionMulti,
    Recall,
    Recorder,
    Resize,
    RocAuc,
    RocAucBinary,
    RocAucMulti,
    ShowGraphCallback,
    TensorCategory,
    TensorImage,
    TensorMultiCategory,
    ToTensor,
    ValueMetric,
    accuracy,
    accuracy_multi,
    error_rate,
    get_image_files,
    load_learner,
    nn,
    parent_label,
    plt,
    set_seed,
    skm_to_fastai,
    top_k_accuracy,
)
from sklearn import metrics as skm
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

NUMPY_CORE = pytest.mark.filterwarnings("ignore:numpy.core is deprecated")  # fastai's


@pytest.fixture(autouse=True)
def same_numbers():
    set_seed(42)


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


@NUMPY_CORE
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


# Small learners on random images, with labels of any kind


IMAGES = torch.rand(40, 3, 12, 12, generator=torch.Generator().manual_seed(42))
WORDS = ("cat", "dog", "owl", "bat", "fox")


def small_loaders(labels, *steps):
    """Return loaders over random images; the first 24 are for training."""

    def image(i):
        return TensorImage(IMAGES[i])

    def label(i):
        return labels[i]

    n = len(labels)
    splits = (list(range(24)), list(range(24, n)))
    return Datasets(range(n), [[image], [label, *steps]], splits=splits).dataloaders(
        bs=8, num_workers=0, device=torch.device("cpu")
    )


def small_learner(n_classes=3, path=None, **kwargs):
    dls = small_loaders((WORDS[:n_classes] * 40)[:40], Categorize())
    return Learner(dls, small_model(n_classes), path=path, **kwargs)


def small_model(n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, n_classes))


class Sure(nn.Module):
    """Make one output fire in each image, the one that `argmax` finds."""

    def __init__(self, n_classes):
        super().__init__()
        self.layers = small_model(n_classes)

    def forward(self, x):
        surest = self.layers(x).argmax(1)
        return F.one_hot(surest, self.layers[1].out_features).float() * 20 - 10


def values(learn):
    """Return the metrics of a learner on its validation images."""
    with learn.no_bar(), learn.no_logging():
        return list(learn.validate())[1:]


def converted(convert, learn, *messages):
    """Convert a learner, and check that it warns with exactly these messages."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        new = convert(learn)
    assert [str(w.message) for w in caught] == list(messages)
    assert {w.filename for w in caught} <= {__file__}, "they point at the line that called"
    return new


def dropped(*names):
    return f"dropped metrics that cannot read the new targets: {', '.join(names)}"


# A class for missing labels


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA, "", "cow", "#na#"], ids=str)
@pytest.mark.parametrize("names", [WORDS[:3], (3, 5), (0.5, 1.5, 2.5, 3.5)], ids=len)
def test_add_na_gives_a_target_of_zeros_and_back(names, missing):
    column = pd.Series((list(names) * 40)[:40], dtype=object)
    column[[3, 24, 30]] = [missing] * 3
    data = list(column)
    dls = small_loaders(data, Categorize(vocab=sorted(names), add_na=True))
    expected = [dls.vocab.o2i[label] for label in data]
    assert expected[3] == expected[24] == expected[30] == 0 and sum(expected) > 0

    multi = to_multilabel(dls)
    assert list(multi.vocab) == list(dls.vocab) and multi.c == dls.c == len(names) + 1
    targets = [y for ds in (multi.train_ds, multi.valid_ds) for _, y in ds]
    for target, index in zip(targets, expected, strict=True):
        row = [float(index == i > 0) for i in range(dls.c)]
        assert target.tolist() == row
    assert list(multi.valid_ds.decode(multi.valid_ds[0])[1]) == []

    single = to_multiclass(multi)
    assert list(single.vocab) == list(dls.vocab)
    indices = [int(y) for ds in (single.train_ds, single.valid_ds) for _, y in ds]
    assert indices == expected
    again = to_multilabel(single)
    assert [y.tolist() for _, y in again.valid_ds] == [y.tolist() for y in targets[24:]]


def test_add_na_trains_and_knows_labels_that_are_new():
    dls = small_loaders((["cat", "dog", np.nan, "owl"] * 10), Categorize(add_na=True))
    learn = quiet(Learner(dls, small_model(4), metrics=accuracy))
    multi = quiet(converted(to_multilabel, learn))
    assert multi.dls.one_batch()[1].shape == (8, 4)
    back = quiet(converted(to_multiclass, multi))
    assert list(back.dls.vocab) == list(dls.vocab) == ["#na#", "cat", "dog", "owl"]
    assert [int(y) for _, y in back.dls.valid_ds] == [int(y) for _, y in dls.valid_ds]


def test_a_multi_label_block_with_add_na_can_be_converted():
    dls = small_loaders(
        [[], ["cat"], ["dog", "dog"], ["#na#"]] * 10, MultiCategorize(add_na=True), OneHotEncode()
    )
    single = to_multiclass(dls)
    found = [single.vocab[int(y)] for _, y in single.valid_ds]
    assert found == ["#na#", "cat", "dog", "#na#"] * 4


@pytest.mark.parametrize("names", [("", "cat"), (0, 7, 9), (False, True), (1.5, 2.5)], ids=str)
def test_a_label_of_multi_class_data_is_one_class_whatever_it_is(names):
    dls = small_loaders((list(names) * 40)[:40], Categorize())
    multi = to_multilabel(dls)
    assert list(multi.vocab) == list(dls.vocab)
    targets = torch.stack([y for _, y in multi.valid_ds])
    assert class_indices(targets).tolist() == [int(y) for _, y in dls.valid_ds]


# Labels that are listed twice


@pytest.mark.parametrize("delim", [" ", ";", "|"])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_label_that_is_listed_twice_counts_once(delim, times):
    data = [delim.join([name] * times).split(delim) for name in WORDS * 8]
    dls = small_loaders(data, MultiCategorize(), OneHotEncode())
    single = to_multiclass(dls)
    assert [single.vocab[int(y)] for _, y in single.valid_ds] == list(WORDS * 8)[24:]
    targets = torch.stack([y for _, y in dls.valid_ds])
    assert class_indices(targets).tolist() == [int(y) for _, y in single.valid_ds]


@pytest.mark.parametrize(
    "labels, said",
    [
        (["cat", "dog", "cat"], r"got 2 labels \['cat', 'dog'\]"),
        ([], r"got 0 labels \[\]"),
        ("catt", "got 4 labels .* a string is read letter by letter"),
        ("cc", "got 2 labels .* a string is read letter by letter"),
    ],
    ids=str,
)
def test_items_without_a_single_label_cannot_be_converted(labels, said):
    data = [["cat"]] * 39 + [labels]
    vocab = ["cat", "dog", "c", "a", "t"]
    with pytest.raises(ValueError, match=f"expected exactly one label per item, {said}"):
        to_multiclass(small_loaders(data, MultiCategorize(vocab), OneHotEncode()))


def test_encoded_items_without_a_single_label_cannot_be_converted():
    data = [[0.0, 1.0]] * 39 + [[1.0, 1.0]]
    with pytest.raises(ValueError, match="got 2 labels"):
        to_multiclass(small_loaders(data, EncodedMultiCategorize(["cat", "dog"])))


# What callbacks monitor


TRACKERS = (SaveModelCallback, EarlyStoppingCallback, ReduceLROnPlateau, TrackerCallback)
MONITORED = [
    (accuracy, "accuracy", "exact_match"),
    (error_rate, "error_rate", "exact_match"),
    (F1Score(average="macro"), "f1_score", "f1_score"),
    (HammingLoss(), "hamming_loss", "hamming_loss"),
    (accuracy, "valid_loss", "valid_loss"),
    (accuracy, "train_loss", "train_loss"),
]
MONITOR_IDS = [monitor for _, monitor, _ in MONITORED]


@NUMPY_CORE
@pytest.mark.parametrize("fitted", [False, True], ids=["new", "fitted"])
@pytest.mark.parametrize("metric, monitor, expected", MONITORED, ids=MONITOR_IDS)
@pytest.mark.parametrize("tracker", TRACKERS)
def test_callbacks_monitor_the_new_metrics(tracker, metric, monitor, expected, fitted, tmp_path):
    callback = tracker(monitor=monitor, min_delta=1e-9)
    learn = small_learner(metrics=metric, cbs=callback, path=tmp_path)
    if fitted:
        quiet(learn)
    multi = converted(to_multilabel, learn)
    found = getattr(multi, callback.name)
    lower = "loss" in expected
    assert found.monitor == expected and callback.monitor == monitor
    assert (found.comp, found.min_delta) == ((np.less, -1e-9) if lower else (np.greater, 1e-9))
    assert found.best is None
    quiet(multi, 2)
    values = [row[found.idx] for row in multi.recorder.values]
    assert multi.recorder.metric_names[1 + found.idx] == expected
    assert found.best == (min(values) if lower else max(values))
    quiet(learn)  # the original still trains, and monitors what it did


@NUMPY_CORE
@pytest.mark.parametrize("prefix", ["train_", "valid_"])
@pytest.mark.parametrize("tracker", TRACKERS)
def test_callbacks_monitor_metrics_of_a_recorder_of_both_sets(tracker, prefix, tmp_path):
    callback = tracker(monitor=f"{prefix}accuracy")
    learn = small_learner(metrics=accuracy, cbs=callback, path=tmp_path)
    learn.recorder.train_metrics = True
    multi = quiet(converted(to_multilabel, quiet(learn)))
    assert multi.recorder is not learn.recorder
    assert getattr(multi, callback.name).monitor == f"{prefix}exact_match"
    assert f"{prefix}exact_match" in multi.recorder.metric_names
    assert getattr(converted(to_multiclass, multi), callback.name).monitor == f"{prefix}accuracy"


def test_what_a_recorder_called_its_metrics_stays_with_the_original():
    learn = quiet(small_learner(metrics=accuracy))
    multi = to_multilabel(learn)
    assert not hasattr(multi.recorder, "metric_names")
    assert learn.recorder.metric_names[3] == "accuracy"
    assert quiet(multi).recorder.metric_names[3] == "exact_match"


@pytest.mark.parametrize("monitor", ["exact_match", "accuracy_multi"])
def test_callbacks_monitor_accuracy_after_to_multiclass(monitor, tmp_path):
    dls = to_multilabel(small_learner().dls)
    callback = EarlyStoppingCallback(monitor=monitor, patience=3)
    metrics = [exact_match, accuracy_multi]
    learn = quiet(Learner(dls, small_model(3), metrics=metrics, cbs=callback, path=tmp_path))
    single = quiet(converted(to_multiclass, learn))
    assert [m.name for m in single.metrics] == ["accuracy"]
    assert (single.early_stopping.monitor, single.early_stopping.patience) == ("accuracy", 3)


@NUMPY_CORE
def test_a_best_value_does_not_carry_over_to_another_loss(tmp_path):
    callback = SaveModelCallback(reset_on_fit=False)
    learn = quiet(small_learner(cbs=callback, path=tmp_path))
    multi = to_multilabel(learn)
    assert callback.best < np.inf and multi.save_model.best is None
    quiet(multi)
    assert multi.save_model.best == multi.recorder.values[0][1]


WITHOUT_TWIN = {
    "top_k_accuracy": top_k_accuracy,
    "cohen_kappa_score": CohenKappa(),
    "balanced_accuracy_score": BalancedAccuracy(),
    "matthews_corrcoef": MatthewsCorrCoef(),
}


@NUMPY_CORE
@pytest.mark.parametrize("name, metric", WITHOUT_TWIN.items(), ids=WITHOUT_TWIN)
@pytest.mark.parametrize("tracker", TRACKERS)
def test_callbacks_monitor_the_loss_if_a_metric_is_dropped(tracker, name, metric, tmp_path):
    callback = tracker(monitor=name, min_delta=0.01)
    learn = small_learner(metrics=[metric, accuracy], cbs=callback, path=tmp_path)
    said = f"{tracker.__name__} monitors valid_loss now, because {name} was dropped"
    multi = converted(to_multilabel, learn, dropped(name), said)
    found = getattr(multi, callback.name)
    assert (found.monitor, found.comp, found.min_delta) == ("valid_loss", np.less, -0.01)
    assert [m.name for m in multi.metrics] == ["exact_match", "accuracy_multi"]
    quiet(multi)


def test_one_sentence_names_all_metrics_without_a_twin():
    learn = small_learner(5, metrics=[*WITHOUT_TWIN.values(), accuracy])
    multi = converted(to_multilabel, learn, dropped(*WITHOUT_TWIN))
    assert len(quiet(multi).metrics) == 2


class Monitors(Callback):
    """A callback of one's own that looks up a value by its name."""

    order = Recorder.order + 1

    def __init__(self, monitor):
        self.monitor = monitor

    def after_epoch(self):
        names = self.recorder.metric_names[1:]
        self.found = self.recorder.values[-1][names.index(self.monitor)]


@pytest.mark.parametrize("monitor", ["accuracy", "valid_loss", "error_rate"])
def test_a_callback_of_ones_own_monitors_the_new_metric(monitor):
    learn = quiet(small_learner(metrics=[accuracy, error_rate], cbs=Monitors(monitor)))
    multi = quiet(converted(to_multilabel, learn))
    column = 1 if monitor == "valid_loss" else 2
    assert multi.monitors.found == multi.recorder.values[0][column]


class Counts(Callback):
    """A callback whose value is shown beside the metrics."""

    order = Recorder.order - 1

    def before_fit(self):
        self.n = 0

    def after_epoch(self):
        self.n += 1

    def after_validate(self):
        self.seen = self.n

    def epochs(self):
        return self.seen


@pytest.mark.parametrize("fitted", [False, True], ids=["new", "fitted"])
def test_a_value_of_a_callback_comes_from_the_new_one(fitted):
    counts = Counts()
    learn = small_learner(metrics=[accuracy, ValueMetric(counts.epochs)])
    learn.add_cbs([counts, TrackerCallback("epochs")])
    if fitted:
        quiet(learn, 3)
    multi = quiet(converted(to_multilabel, learn), 2)
    assert [m.name for m in multi.metrics] == ["exact_match", "accuracy_multi", "epochs"]
    assert multi.metrics[2].func.__self__ is multi.counts
    assert multi.recorder.values[-1][-1] == multi.tracker.best == 1


@pytest.mark.parametrize("monitor", ["memory", 3, None])
def test_a_monitor_that_is_no_metric_stays(monitor):
    learn = small_learner(metrics=[accuracy, fussy], cbs=Monitors(monitor))
    assert converted(to_multilabel, learn, dropped("fussy")).monitors.monitor == monitor


# Callbacks that cannot be copied whole


class HoldsResources(Callback):
    """A callback with a lock, an open file, a generator and notes."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.file = path.open("w", encoding="utf-8")
        self.numbers = (i for i in range(99))
        self.notes = [0]

    def after_epoch(self):
        with self.lock:
            self.notes.append(next(self.numbers))
            print(self.notes, file=self.file)


@pytest.mark.parametrize("convert", [to_multilabel, to_multiclass])
def test_a_callback_shares_what_cannot_be_copied_and_copies_the_rest(convert, tmp_path):
    learn = small_learner()
    if convert is to_multiclass:
        learn = to_multilabel(learn)
    mine = HoldsResources(tmp_path / "log.txt")
    learn.add_cb(mine)
    quiet(learn)
    new = converted(convert, learn)
    copied = new.holds_resources
    assert copied is not mine and copied.learn is new and mine.learn is learn
    for name in ("lock", "file", "numbers"):
        assert getattr(copied, name) is getattr(mine, name)
    quiet(new)
    mine.file.close()
    assert (mine.notes, copied.notes) == ([0, 0], [0, 0, 1])


def test_a_csv_logger_that_has_logged_a_fit(tmp_path):
    learn = small_learner(metrics=accuracy, cbs=CSVLogger(append=True), path=tmp_path)
    with learn.no_bar():
        learn.fit(1)
    multi = converted(to_multilabel, learn)
    with multi.no_bar():
        multi.fit(2)
    log = (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[3] for line in log if line.startswith("epoch")] == [
        "accuracy",
        "exact_match",
    ]
    assert len(log) == 2 + 3


class Interrupts(Callback):
    """Interrupt the first fit, as a reader does who has seen enough."""

    def __init__(self):
        self.n = 0

    def after_step(self):
        self.n += 1
        if self.n == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("mix", [MixUp, CutMix])
def test_a_fit_that_was_interrupted_leaves_nothing_behind(mix, tmp_path):
    cbs = [CSVLogger("first.csv"), mix(), Interrupts()]
    learn = small_learner(metrics=accuracy, cbs=cbs, path=tmp_path)
    with learn.no_bar(), pytest.raises(KeyboardInterrupt):
        learn.fit(1)
    multi = converted(to_multilabel, learn)
    assert type(multi.loss_func) is BCEWithLogitsLossFlat
    multi.csv_logger.fname = "second.csv"
    with multi.no_bar():
        multi.fit(2)
    assert len(multi.csv_logger.read_log()) == 2
    assert (tmp_path / "first.csv").read_text(encoding="utf-8").count(
        "\n"
    ) <= 1  # the names of its metrics
    cbs[0].file.close()


@pytest.mark.parametrize("fitted", [False, True], ids=["new", "fitted"])
@pytest.mark.parametrize("mix", [MixUp, CutMix])
def test_images_are_mixed_before_and_after_a_conversion(mix, fitted):
    learn = small_learner(metrics=accuracy, cbs=mix(0.4))
    if fitted:
        quiet(learn)
    multi = quiet(converted(to_multilabel, learn))
    mixed = getattr(multi, mix.__name__.lower().replace("mixup", "mix_up").replace("cutm", "cut_m"))
    assert not mixed.stack_y  # the targets are mixed instead of the losses
    back = quiet(converted(to_multiclass, multi))
    assert type(back.loss_func) is CrossEntropyLossFlat and len(back.recorder.values) == 1
    quiet(learn)


@pytest.mark.filterwarnings("ignore:.*non-interactive")
def test_a_graph_is_shown_after_a_conversion():
    learn = small_learner(cbs=ShowGraphCallback())
    with learn.no_logging():
        learn.fit(2)
        multi = converted(to_multilabel, learn)
    with multi.no_logging():
        multi.fit(2)
    plt.close("all")
    assert len(multi.show_graph.nb_batches) == 2
    assert multi.show_graph.nb_batches is not learn.show_graph.nb_batches


class Refers(Callback):
    """A callback that refers to many things, beside a lock."""

    def __init__(self, learn, other):
        self.layer = learn.model[1]
        self.weight = learn.model[1].weight
        self.loader = learn.dls.valid
        self.its_learner = learn
        self.others_method = other.after_epoch
        self.lock = threading.Lock()


def test_a_callback_refers_to_new_layers_loaders_and_callbacks(tmp_path):
    other = HoldsResources(tmp_path / "log.txt")
    learn = small_learner()
    learn.add_cbs([Refers(learn, other), other])
    multi = to_multilabel(learn)
    other.file.close()
    found = multi.refers
    assert found.layer is multi.model[1] and found.weight is multi.model[1].weight
    assert found.loader is multi.dls.valid and found.its_learner is multi
    assert found.others_method.__self__ is multi.holds_resources
    assert learn.refers.layer is learn.model[1] and learn.refers.learn is learn


# Metrics that come in pairs


AVERAGED = (F1Score, Precision, Recall, Jaccard, lambda **o: FBeta(beta=0.5, **o))


@pytest.mark.filterwarnings("ignore:.*is ill-defined")  # of a class that never fires
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("make", AVERAGED, ids="F1 precision recall Jaccard FBeta".split())
def test_twins_agree_where_exactly_one_class_fires(make, average, n_classes):
    metric = make(average=average)
    learn = small_learner(n_classes, metrics=metric)
    learn.model = Sure(n_classes)
    expected = values(learn)
    assert 0 < expected[0] < 1
    multi = converted(to_multilabel, learn)
    assert [m.name for m in multi.metrics] == [metric.name]
    torch.testing.assert_close(values(multi), expected)
    single = converted(to_multiclass, multi)
    torch.testing.assert_close(values(single), expected)


BINARY = {
    **dict(zip("F1 precision recall Jaccard FBeta".split(), AVERAGED, strict=True)),
    "scikit-learn's": lambda: skm_to_fastai(skm.f1_score, average="binary"),
}


@pytest.mark.parametrize("make", BINARY.values(), ids=BINARY)
def test_the_twin_of_a_binary_metric_is_about_class_1(make):
    learn = small_learner(2, metrics=make())
    learn.model = Sure(2)
    multi = converted(to_multilabel, learn)
    torch.testing.assert_close(values(multi), values(learn))


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_other_twins(n_classes):
    own = skm_to_fastai(skm.recall_score, average="macro", name="my recall")
    metrics = [HammingLoss(), RocAucBinary() if n_classes == 2 else RocAuc(), own]
    learn = small_learner(n_classes, metrics=metrics)
    learn.model = Sure(n_classes)
    multi = converted(to_multilabel, learn)
    assert [m.name for m in multi.metrics] == ["hamming_loss", "roc_auc_score", "my recall"]
    wrong, auc, recall = values(learn)
    expected = [wrong * 2 / n_classes, auc, recall]  # an error is two wrong outputs of C
    torch.testing.assert_close(values(multi), expected)
    single = converted(to_multiclass, multi)
    torch.testing.assert_close(values(single), [wrong, auc, recall])


def test_a_twin_reads_sigmoids_and_not_softmax():
    learn = small_learner(3, metrics=RocAuc())
    found = to_multilabel(learn).metrics[0]
    assert (found.activation, found.name) == (RocAucMulti().activation, "roc_auc_score")


def test_average_precision_of_two_classes():
    multi = converted(to_multilabel, small_learner(2, metrics=APScoreBinary()))
    assert 0 < values(multi)[0] <= 1


def test_metrics_of_the_new_kind_stay_as_they_are():
    metrics = [exact_match, F1ScoreMulti(thresh=0.3), accuracy, PrecisionMulti(average="samples")]
    multi = converted(to_multilabel, small_learner(3, metrics=metrics))
    names = ["exact_match", "f1_score", "accuracy_multi", "precision_score"]
    assert [m.name for m in multi.metrics] == names
    assert multi.metrics[1].thresh == 0.3
    single = converted(to_multiclass, multi, dropped("precision_score"))
    assert [m.name for m in single.metrics] == ["accuracy", "f1_score"]


def test_a_metric_that_cannot_be_copied_is_kept():
    metric = skm_to_fastai(skm.f1_score, average="macro")
    metric.lock = threading.Lock()
    twice = F1ScoreMulti()
    twice.lock = threading.Lock()
    multi = converted(to_multilabel, small_learner(3, metrics=[metric, twice]))
    assert len(values(multi)) == 2


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
