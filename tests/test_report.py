"""Reports agree with counts made one by one; frequencies are counted without opening an image."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.core import DataLoaders, Datasets
from fastai.data.load import DataLoader as FastaiDataLoader
from fastai.data.transforms import CategoryMap
from fastai.tabular.all import CategoryBlock, Normalize, TabularDataLoaders
from fastai.vision.all import (
    DataBlock,
    ImageBlock,
    ImageDataLoaders,
    MultiCategoryBlock,
    PILImageBW,
    SegmentationDataLoaders,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import classification_report, hamming_loss
from torch import nn
from torch.testing import assert_close
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from multilabel_mnist.calibrate import SigmoidCalibrator
from multilabel_mnist.convert import to_multilabel
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.head import replace_final_linear
from multilabel_mnist.inference import SigmoidPreds
from multilabel_mnist.report import class_frequencies, class_report, overall_scores

NAN = math.nan
AVERAGES = ["micro average", "macro average"]
SCORES = ["precision", "recall", "f1", "average precision", "error rate", "frequency"]
STEADY = settings(deadline=None, derandomize=True, max_examples=60)
ignore_undefined = pytest.mark.filterwarnings("ignore:not defined, and NaN in the report")


def draw(seed, n, n_classes, share_unknown=0.0):
    """Return probabilities with ties, and targets of which some are not known."""
    rng = np.random.default_rng(seed)
    probs = rng.integers(0, 11, (n, n_classes)) / 10
    targets = (rng.random((n, n_classes)) < rng.choice([0, 0.1, 0.5])).astype(float)
    targets[rng.random((n, n_classes)) < share_unknown] = NAN
    return torch.tensor(probs, dtype=torch.float), torch.tensor(targets, dtype=torch.float)


def divide(a, b):
    return a / b if b else NAN


def count(answers, threshold):
    """Score (probability, target) pairs of known answers, one by one."""
    hits = sum(p > threshold and t == 1 for p, t in answers)
    fires = sum(p > threshold for p, t in answers)
    positives = sum(t == 1 for p, t in answers)
    wrong = sum((p > threshold) != (t == 1) for p, t in answers)
    average_precision, recall_before = 0.0, 0.0
    for cut in sorted({p for p, t in answers}, reverse=True):
        found = sum(p >= cut and t == 1 for p, t in answers)
        recall = divide(found, positives)
        precision = found / sum(p >= cut for p, t in answers)
        average_precision += (recall - recall_before) * precision
        recall_before = recall
    return {
        "support": positives,
        "precision": divide(hits, fires),
        "recall": divide(hits, positives),
        "f1": divide(2 * hits, fires + positives),
        "average precision": average_precision if positives else NAN,
        "error rate": divide(wrong, len(answers)),
        "frequency": divide(positives, len(answers)),
    }


def known_answers_of(probs, targets, c):
    pairs = zip(probs[:, c].tolist(), targets[:, c].tolist(), strict=True)
    return [(p, t) for p, t in pairs if not math.isnan(t)]


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4), st.sampled_from([0, 0.3, 0.8]))
@STEADY
@ignore_undefined
def test_the_report_agrees_with_counts_made_one_by_one(seed, n, n_classes, share_unknown):
    probs, targets = draw(seed, n, n_classes, share_unknown)
    if targets.isnan().all():
        return
    thresholds = torch.linspace(0.25, 0.65, n_classes)
    report = class_report(probs, targets, threshold=thresholds)
    assert list(report.index) == [str(c) for c in range(n_classes)] + AVERAGES
    rows = []
    everything = []
    for c in range(n_classes):
        answers = known_answers_of(probs, targets, c)
        # Relative to the threshold, so that the answers of all classes share one.
        everything += [(p - thresholds[c].item() + 0.5, t, p) for p, t in answers]
        rows.append(count(answers, thresholds[c].item()))
    expected = pd.DataFrame(rows)
    for score in expected:
        assert report[score][:n_classes].tolist() == pytest.approx(
            expected[score].tolist(), nan_ok=True
        )
        if score != "support":
            mean = expected[score].mean()
            assert report.loc["macro average", score] == pytest.approx(mean, nan_ok=True)
    micro = count([(p, t) for p, t, _ in everything], 0.5)
    micro["average precision"] = count([(p, t) for _, t, p in everything], 0)["average precision"]
    for score, value in micro.items():
        assert report.loc["micro average", score] == pytest.approx(value, nan_ok=True)
    assert report["support"].dtype.kind == "i"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_classes", [2, 7])
@ignore_undefined
def test_the_report_agrees_with_that_of_scikit_learn(seed, n_classes):
    probs, targets = draw(seed, 50, n_classes)
    report = class_report(probs, targets, threshold=0.3)
    fires = (probs > 0.3).numpy()
    theirs = classification_report(targets.numpy(), fires, output_dict=True, zero_division=NAN)
    rows = {"micro average": "micro avg", "macro average": "macro avg"}
    for name in report.index:
        row = theirs[rows.get(name, name)]
        expected = [row[score] for score in ("precision", "recall", "f1-score", "support")]
        found = report.loc[name, ["precision", "recall", "f1", "support"]].tolist()
        assert found == pytest.approx(expected, nan_ok=True)
    expected = hamming_loss(targets.numpy(), fires)
    assert report.loc["micro average", "error rate"] == pytest.approx(expected)


def test_what_is_not_defined_is_nan_and_said_and_never_an_invented_0():
    probs = torch.tensor([[0.9, 0.9, 0.1, 0.1, 0.6], [0.1, 0.8, 0.2, 0.1, 0.7]])
    targets = torch.tensor([[1, 0, 1, 0, NAN], [0, 0, 0, 0, NAN]])
    with pytest.warns(UserWarning, match="not defined, and NaN in the report") as caught:
        report = class_report(probs, targets, ["found", "absent", "silent", "neither", "unknown"])
    assert len(caught) == 1 and caught[0].filename == __file__
    assert "precision for 3 classes (silent, neither, unknown)" in str(caught[0].message)
    assert "for 3 classes (absent, neither, unknown) without a known" in str(caught[0].message)
    nan = report[SCORES].isna()
    assert not nan.loc["found"].any()
    assert nan.loc["absent"].tolist() == [False, True, False, True, False, False]
    assert nan.loc["silent"].tolist() == [True, False, False, False, False, False]
    assert nan.loc["neither"].tolist() == [True, True, True, True, False, False]
    assert nan.loc["unknown"].all() and report.loc["unknown", "support"] == 0
    assert report.loc["macro average", "recall"] == 0.5  # of found and silent
    assert report.loc["absent", "f1"] == 0  # it fired, and was wrong each time
    assert report.loc["silent", "recall"] == 0


def test_nothing_is_said_where_everything_is_defined():
    with warnings.catch_warnings(action="error"):
        class_report(torch.tensor([[0.9, 0.2], [0.1, 0.8]]), [0, 1])


@ignore_undefined
def test_a_report_of_predictions_is_that_of_their_parts():
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 3
    calibrator = SigmoidCalibrator().fit(logits, labels)
    preds = SigmoidPreds(
        logits, list("abc"), labels, threshold=[0.2, 0.3, 0.4], calibrator=calibrator
    )
    parts = class_report(calibrator(logits), labels, list("abc"), threshold=[0.2, 0.3, 0.4])
    pd.testing.assert_frame_equal(class_report(preds), parts)
    assert parts["threshold"].tolist() == pytest.approx([0.2, 0.3, 0.4, NAN, NAN], nan_ok=True)
    without = SigmoidPreds(logits, list("abc"), calibrator=calibrator)
    again = class_report(without, labels, threshold=[0.2, 0.3, 0.4])
    pd.testing.assert_frame_equal(again, parts)
    assert class_report(preds, threshold={"b": 0.9}).loc["b", "threshold"] == pytest.approx(0.9)
    assert class_report(preds, threshold=0.5)["threshold"].tolist() == [0.5] * 5
    some = preds[:10]
    assert class_report(some)["support"].tolist() == [4, 3, 3, 10, 10]


@pytest.mark.parametrize("report", [class_report, overall_scores])
def test_predictions_without_targets_have_one_clear_error(report):
    with pytest.raises(ValueError, match="^expected predictions with targets, got none; "):
        report(SigmoidPreds(torch.randn(3, 2)))
    with pytest.raises(ValueError, match="^expected targets with known answers, got NaN in all 6"):
        report(torch.rand(3, 2), torch.full((3, 2), NAN))
    with pytest.raises(ValueError, match="^expected targets to be 0s and 1s"):
        report(torch.rand(3, 2), torch.full((3, 2), 0.4))


@ignore_undefined
def test_names_of_any_kind_are_readable():
    names = ["cat", "cat", "<b>&", "$x$", 7, (1, 2), "micro average", None]
    probs, targets = draw(0, 20, len(names))
    report = class_report(probs, targets, names)
    expected = ["cat", "cat (class 1)", *names[2:6], "micro average (class 6)", None, *AVERAGES]
    assert list(report.index) == expected and report.index.is_unique
    html = report._repr_html_()
    assert "&lt;b&gt;&amp;" in html and "<b>" not in html
    assert "$x$" in repr(report)
    assert report.loc["$x$", "support"] == int(targets[:, 3].sum())
    overall = overall_scores(probs, targets, names)
    assert overall.shape == (3, 4)


@ignore_undefined
def test_a_report_of_500_classes_fits_a_notebook():
    probs, targets = draw(1, 30, 500)
    report = class_report(probs, targets)
    assert report.shape == (502, 8)
    html = report._repr_html_()
    assert html.count("<tr>") < 70 and "macro average" in html


@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(1, 4), st.sampled_from([0, 0.3, 0.8]))
@STEADY
@pytest.mark.filterwarnings("ignore:.* items have no known answer")
def test_overall_scores_stand_beside_baselines_counted_one_by_one(seed, n, n_classes, share):
    probs, targets = draw(seed, n, n_classes, share)
    if targets.isnan().all():
        return
    overall = overall_scores(probs, targets, threshold=0.35)
    shares = [
        divide(sum(t for _, t in answers), len(answers)) if answers else -1
        for answers in (known_answers_of(probs, targets, c) for c in range(n_classes))
    ]
    frequent = shares.index(max(shares))
    always = torch.zeros_like(probs)
    always[:, frequent] = 1
    rules = [probs, torch.zeros_like(probs), always]
    assert list(overall.index) == ["predictions", "predict nothing", f"predict {frequent}"]
    for rule, (_, row) in zip(rules, overall.iterrows(), strict=True):
        right = [
            all(math.isnan(t) or (p > 0.35) == (t == 1) for p, t in zip(*pair, strict=True))
            for pair in zip(rule.tolist(), targets.tolist(), strict=True)
        ]
        per_class = [known_answers_of(rule, targets, c) for c in range(n_classes)]
        scores = [count(answers, 0.35)["f1"] for answers in per_class]
        defined = [f1 for f1 in scores if not math.isnan(f1)]
        micro = count([pair for answers in per_class for pair in answers], 0.35)
        expected = [
            np.mean(right),
            micro["error rate"],
            micro["f1"],
            np.mean(defined) if defined else NAN,
        ]
        assert row.tolist() == pytest.approx(expected, nan_ok=True)
    preds = SigmoidPreds.from_probs(probs, targs=targets, threshold=0.35)
    exact = preds.exact.float().mean().item()
    assert overall.loc["predictions", "exact match"] == pytest.approx(exact)


def test_items_of_which_nothing_is_known_are_told():
    probs = torch.tensor([[0.9, 0.2], [0.1, 0.8], [0.1, 0.2]])
    targets = torch.tensor([[0, 0], [NAN, NAN], [NAN, 1]])
    with pytest.warns(UserWarning, match="^1 of 3 items have no known answer") as caught:
        overall = overall_scores(probs, targets)
    assert caught[0].filename == __file__
    assert overall.loc["predictions", "exact match"] == pytest.approx(1 / 3)


# Frequencies

NAMES = ["cat & <dog>", "owl", "ü"]
LABELS = [0, 0, 0, 1, 2, 2, 0, 0, 1, 1]  # of the training images
EXPECTED = torch.tensor([5, 3, 2]) / 10


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of image files in folders named by class; the last three are for validation."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for i, label in enumerate([*LABELS, 2, 2, 2]):
        file = folder / ("valid" if i >= len(LABELS) else "train") / NAMES[label] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(file)
        rows.append((str(file), NAMES[label], *np.eye(3)[label], i >= len(LABELS)))
    return pd.DataFrame(rows, columns=["file", "label", *NAMES, "valid"])


@pytest.fixture
def no_image_is_opened(monkeypatch):
    """Make every attempt to open an image fail, from when it is called."""

    def fail(*args, **kwargs):
        raise AssertionError("an image was opened")

    return lambda: monkeypatch.setattr(Image, "open", fail)


def from_df(df, **kwargs):
    options = dict(fn_col="file", path="/", valid_col="valid", img_cls=PILImageBW)
    return ImageDataLoaders.from_df(df, bs=4, num_workers=0, **options, **kwargs)


def folder_of(df):
    return df["file"][0].rpartition("/train/")[0]


def encoded():
    return MultiCategoryBlock(encoded=True, vocab=NAMES)


def block_of_delimited(df):
    block = DataBlock(
        blocks=(ImageBlock(PILImageBW), MultiCategoryBlock),
        get_x=lambda row: row["file"],
        get_y=lambda row: [row["label"]],
        splitter=lambda df: (list(range(10)), [10, 11, 12]),
    )
    return block.dataloaders(df, bs=4, num_workers=0)


ONE_HOT = torch.eye(3)[LABELS]
IMAGES = torch.zeros(10, 1, 8, 8)
FASTAI = {
    "column of names": lambda df: from_df(df, label_col="label"),
    "delimited names": lambda df: from_df(df, label_col="label", label_delim="|"),
    "a column per class": lambda df: from_df(df, label_col=NAMES, y_block=encoded()),
    "lists of names": block_of_delimited,
    "folders": lambda df: ImageDataLoaders.from_folder(folder_of(df), bs=4, num_workers=0),
    "to_multilabel": lambda df: to_multilabel(from_df(df, label_col="label")),
    "its train alone": lambda df: from_df(df, label_col="label").train,
}
PLAIN = {
    "labels": lambda: DataLoader(TensorDataset(IMAGES, torch.tensor(LABELS)), batch_size=3),
    "targets": lambda: DataLoader(TensorDataset(IMAGES, ONE_HOT), drop_last=True, batch_size=4),
    "Subset": lambda: DataLoader(
        Subset(
            TensorDataset(torch.cat([IMAGES, IMAGES]), torch.cat([ONE_HOT, 1 - ONE_HOT])), range(10)
        )
    ),
    "ConcatDataset": lambda: DataLoader(
        ConcatDataset(
            [TensorDataset(IMAGES[:4], ONE_HOT[:4]), TensorDataset(IMAGES[4:], ONE_HOT[4:])]
        )
    ),
    "DataLoaders of plain loaders": lambda: DataLoaders(
        DataLoader(TensorDataset(IMAGES, ONE_HOT)), DataLoader(TensorDataset(IMAGES, 1 - ONE_HOT))
    ),
    "pairs in a list": lambda: FastaiDataLoader(list(zip(IMAGES, LABELS, strict=True)), bs=4),
    "a tensor of targets": lambda: ONE_HOT,
    "a table of targets": lambda: pd.DataFrame(ONE_HOT.numpy(), columns=NAMES),
    "bool": lambda: ONE_HOT.bool(),
    "a list of labels": lambda: LABELS,
}


@pytest.mark.parametrize("make", FASTAI.values(), ids=FASTAI)
def test_frequencies_of_training_images_without_opening_one(table, make, no_image_is_opened):
    dls = make(table)
    no_image_is_opened()
    found = class_frequencies(dls)
    assert found.dtype == torch.float32 and type(found) is torch.Tensor
    assert_close(found, EXPECTED)
    with pytest.raises(AssertionError, match="an image was opened"):
        next(iter(dls if make is FASTAI["its train alone"] else dls.train))


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_frequencies_without_fastai_data_sets(make):
    found = class_frequencies(make())
    assert found.dtype == torch.float32
    assert_close(found, EXPECTED)


def test_frequencies_of_an_image_folder_of_torchvision(table, no_image_is_opened):
    dataset = ImageFolder(folder_of(table) + "/train")
    no_image_is_opened()
    assert_close(class_frequencies(DataLoader(dataset)), EXPECTED)
    few = Subset(dataset, [i for i, label in enumerate(dataset.targets) if label == 0])
    assert_close(class_frequencies(DataLoader(few), n_classes=3), torch.tensor([1.0, 0, 0]))


@pytest.mark.parametrize("convert", [lambda dls: dls, to_multilabel], ids=["labels", "targets"])
def test_frequencies_of_digits_in_memory(convert, no_image_is_opened):
    dls = DigitDataLoaders.from_folder(digits_path("embedded"), n_train=200)
    expected = torch.from_numpy(np.bincount(dls.train_ds.labels, minlength=10)).float() / 200
    no_image_is_opened()
    assert_close(class_frequencies(convert(dls)), expected)


def test_frequencies_of_a_table_of_numbers():
    rng = np.random.default_rng(0)
    labels = [*LABELS, 2, 2, 2]
    df = pd.DataFrame(np.eye(3)[labels], columns=NAMES)
    df["x"] = rng.random(13)
    df["label"] = [NAMES[label] for label in labels]
    options = dict(cont_names=["x"], procs=[Normalize], valid_idx=[10, 11, 12], bs=4)
    several = TabularDataLoaders.from_df(df, y_names=NAMES, y_block=encoded(), **options)
    assert_close(class_frequencies(several), EXPECTED)
    one = TabularDataLoaders.from_df(df, y_names="label", y_block=CategoryBlock(), **options)
    assert_close(class_frequencies(one), EXPECTED)


def test_a_class_that_no_training_item_has_counts_as_0(table):
    few = table[(table["label"] != "owl") | table["valid"]]
    dls = from_df(few, label_col="label", y_block=CategoryBlock(vocab=NAMES, sort=False))
    assert_close(class_frequencies(dls), torch.tensor([5, 0, 2]) / 7)
    assert_close(class_frequencies([0, 2], n_classes=4), torch.tensor([0.5, 0, 0.5, 0]))


def test_the_vocab_of_a_text_learner_ends_with_the_classes():
    """Its DataLoaders hold the tokens, then the names of the classes."""
    dls = DataLoaders(DataLoader([(0, 1), (0, 0)]), DataLoader([(0, 2)]))
    dls.vocab = [["the", "a", "an", "of"], CategoryMap(["sports", "music", "art"])]
    assert_close(class_frequencies(dls), torch.tensor([0.5, 0.5, 0]))


def test_unknown_answers_count_neither_as_yes_nor_as_no():
    targets = torch.tensor([[1, NAN, NAN], [0, 1, NAN], [NAN, 1, NAN], [0, 0, NAN]])
    loader = DataLoader(TensorDataset(torch.zeros(4), targets))
    expected = torch.tensor([1 / 3, 2 / 3, NAN])
    assert_close(class_frequencies(loader), expected, equal_nan=True)


@pytest.mark.parametrize("targets", [[[], []], torch.zeros(3, 0), [], torch.zeros(0, 3)])
def test_no_items_or_no_classes(targets):
    with pytest.raises(ValueError, match="expected .*, got a"):
        class_frequencies(targets)


def _same(o):
    return o


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(0, 1)])


class OpensImages(torch.utils.data.Dataset):
    def __getitem__(self, i):
        raise AssertionError("an image was opened")

    def __len__(self):
        return 3


NOT_COUNTED = {
    "a stream": lambda: DataLoader(Stream()),
    "a data set of pairs": lambda: DataLoader(OpensImages()),
    "a Subset of one": lambda: DataLoader(Subset(OpensImages(), [0])),
    "two targets": lambda: DataLoaders.from_dsets(
        Datasets([1, 2], [[_same], [_same], [_same]], n_inp=1), bs=1
    ),
    "names in a list": lambda: DataLoader([(0, "cat"), (1, "dog")]),
    "rows of several lengths": lambda: DataLoader([(0, [1, 0]), (1, [1])]),
    "a learner": lambda: SimpleNamespace(dls=1),
    "nothing": lambda: None,
    "no items": lambda: torch.zeros(0, 3),
    "logits": lambda: torch.tensor([[3.0, -2.0]]),
    "one number": lambda: 3,
}


@pytest.mark.parametrize("make", NOT_COUNTED.values(), ids=NOT_COUNTED)
def test_targets_that_cannot_be_counted_have_one_clear_error(make):
    with pytest.raises(ValueError, match="^expected .*got"):
        class_frequencies(make())


def test_masks_are_no_labels(table):
    files = [str(file) for file in table["file"]]
    dls = SegmentationDataLoaders.from_label_func(
        "/", files, label_func=lambda file: file, bs=2, num_workers=0
    )
    with pytest.raises(ValueError, match="^expected .*got"):
        class_frequencies(dls)


def test_frequencies_are_a_prior(table):
    f = class_frequencies(from_df(table, label_col="label"))
    model = replace_final_linear(nn.Sequential(nn.Linear(4, 10)), 3, prior=f)
    assert_close(model[-1].bias.sigmoid(), f)


def test_frequencies_give_the_pos_weight_of_the_documentation_of_torch():
    """100 positive and 300 negative examples: the weight of a positive is 3."""
    f = class_frequencies(torch.tensor([[1.0]] * 100 + [[0.0]] * 300))
    assert_close((1 - f) / f, torch.tensor([3.0]))
