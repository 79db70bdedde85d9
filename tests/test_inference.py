"""SigmoidPreds on thresholds and indices that the chapter does not show."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from multilabel_mnist.ambiguity import confused_pairs
from multilabel_mnist.inference import SigmoidCalibrator, SigmoidPreds
from multilabel_mnist.labels import exact_match

LOGITS = torch.tensor([[2.0, -1, -3], [1, 1, -2], [-2, -1, 3], [-1, -2, -3]])
LABELS = torch.tensor([0, 1, 2, 0])


BAD_THRESHOLDS = [
    -0.1,
    1.1,
    float("nan"),
    "half",
    [0.1, 0.2],
    [0.1, None, 0.2],
    [[0.1, 0.2, 0.3]],
    {"cat": 0.5},
]


@pytest.mark.parametrize("threshold", BAD_THRESHOLDS, ids=str)
def test_bad_thresholds(threshold):
    for consume in (
        lambda: SigmoidPreds(LOGITS, threshold=threshold),
        lambda: SigmoidPreds(LOGITS).read(threshold=threshold),
        lambda: exact_match(LOGITS, LABELS, threshold),
    ):
        expected = r"expected thresh\w* to be a probability from 0 to 1, or 3 of them"
        with pytest.raises(ValueError, match=expected):
            consume()


GOOD_THRESHOLDS = {
    "list": [0.3, 0.5, 0.7],
    "array": np.array([0.3, 0.5, 0.7]),
    "tensor": torch.tensor([0.3, 0.5, 0.7]).double(),
    "column": pd.Series([0.3, 0.5, 0.7], index=list("xyz")),
}


@pytest.mark.parametrize("threshold", GOOD_THRESHOLDS.values(), ids=GOOD_THRESHOLDS)
def test_thresholds_of_any_kind(threshold):
    preds = SigmoidPreds(LOGITS, threshold=threshold, targs=LABELS)
    assert preds.verdicts.tolist() == ["one", "several", "one", "none"]
    assert exact_match(LOGITS, LABELS, threshold) == preds.exact.float().mean()


def test_items_are_chosen():
    preds = SigmoidPreds(LOGITS)
    indices = [
        [],
        np.array([], int),
        torch.zeros(4).bool(),
        slice(0, 0),
        -1,
        torch.tensor([0, 1]),
        [True, False, True, True],
        slice(None, None, -1),
    ]
    assert [len(preds[idx]) for idx in indices] == [0, 0, 0, 0, 1, 2, 3, 4]
    assert preds[::-1].items == [3, 2, 1, 0]
    assert preds[[]].labels == []
    assert preds[[]].to_frame().shape == (0, 6)
    with pytest.raises(IndexError):
        preds[4]


@pytest.mark.parametrize("step", [-1, -2, 2])
def test_items_are_chosen_backwards(step):
    preds = SigmoidPreds(LOGITS, targs=torch.zeros(4, LOGITS.shape[1]), items=list("abcd"))
    chosen = preds[::step]
    assert chosen.items == list("abcd")[::step]
    at = list(range(4))[::step]
    assert chosen.logits.equal(preds.logits[at]) and chosen.probs.equal(preds.probs[at])


def test_a_selection_keeps_its_images():
    items = [np.full((4, 4), i, "uint8") for i in range(4)]
    preds = SigmoidPreds(LOGITS, items=items)[[3, 1]][1:]
    assert preds.items[0] is items[1]
    assert preds.to_frame()["item"].tolist() == [1]
    preds.show()
    assert (plt.gcf().axes[0].images[0].get_array() == 1).all()
    plt.close("all")


IMAGES = {
    "gray": Image.new("L", (5, 4)),
    "black and white": Image.new("1", (5, 4)),
    "color": Image.new("RGB", (5, 4)),
    "transparent": Image.new("RGBA", (5, 4)),
    "channels first": torch.rand(3, 4, 5),
    "one channel first": torch.rand(1, 4, 5),
    "channels last": np.zeros((4, 5, 3), "uint8"),
    "with a gradient": torch.rand(4, 5, requires_grad=True),
    "bfloat16": torch.rand(4, 5, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_images_of_any_kind_are_shown(image):
    SigmoidPreds(LOGITS[:1], items=[image]).show()
    shown = plt.gcf().axes[0].images[0].get_array()
    plt.close("all")
    assert shown.shape[:2] == (4, 5)


@pytest.mark.parametrize("item", ["nowhere.png", None, 3, torch.rand(5)], ids=str)
def test_items_that_are_not_images(item):
    preds = SigmoidPreds(LOGITS[:1], items=[item])
    with pytest.raises((ValueError, FileNotFoundError)):
        preds.show()
    assert len(preds.to_frame()) == 1


NAMES = {
    "ints": [7, 0, 3],
    "numpy ints": list(np.arange(3)),
    "an array of ints": np.arange(3),
    "tuples": [("a", 1), ("a", 2), ("b", 1)],
    "None among them": ["cat", None, "dog"],
    "floats and bools": [0.5, True, "x"],
    "dollars": ["$5", "a$b$c", "$\\frac{1}$"],
    "markup": ["<b>x</b>", "a_b^c", "%d {0} \\n #1 & ~"],
    "the columns of the table": ["item", "verdict", "labels"],
    "one name twice": ["cat", "cat", "cat"],
    "names with an index": ["item", "item (class 0)", "item (class 0) (class 1)"],
    "empty, and with line breaks": ["", "a\nb", "tab\there"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_class_names_of_any_kind_in_a_table(names):
    preds = SigmoidPreds(LOGITS, vocab=names, targs=LABELS)
    frame = preds.to_frame()
    assert frame.columns.nlevels == 1 and len(frame.columns) == 6
    assert len(set(frame.columns)) == 6
    assert list(frame.columns[:3]) == ["item", "verdict", "labels"]
    assert frame["verdict"].tolist() == ["one", "several", "one", "none"]
    assert frame["labels"].tolist() == [[names[0]], [names[0], names[1]], [names[2]], []]
    np.testing.assert_array_equal(frame.iloc[:, 3:], preds.probs)
    for c, (name, column) in enumerate(zip(names, frame.columns[3:], strict=True)):
        assert column == name or str(name) in column
        np.testing.assert_array_equal(frame[column], preds.probs[:, c])
    assert confused_pairs(preds).shape == (3, 3)
    repr(frame), frame.to_html(), frame.to_csv(), repr(preds)


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("usetex", [False, True])
def test_class_names_of_any_kind_in_a_figure(names, usetex):
    image = np.zeros((6, 6), "uint8")
    with plt.rc_context({"text.usetex": usetex}):
        SigmoidPreds(LOGITS, vocab=names, targs=LABELS, items=[image] * 4).show()
    fig = plt.gcf()
    titles = [ax.title for ax in fig.axes]
    assert not any(title.get_usetex() for title in titles)
    if not usetex:
        fig.canvas.draw()
    shown = titles[0].get_text().replace("\n", " ").replace("\u00a0", " ")
    plt.close("all")
    first = " ".join(str(names[0]).split())
    assert shown.split() == f"one: {first} 0.88 true: {first}".split()


def test_a_dollar_is_drawn_as_a_dollar():
    image = np.zeros((6, 6), "uint8")
    SigmoidPreds(LOGITS[:1], vocab=["$x$", "b", "c"], items=[image]).show()
    title = plt.gcf().axes[0].title
    plt.gcf().canvas.draw()
    assert not title.get_parse_math()
    plt.close("all")


def test_changing_the_table_changes_no_predictions():
    preds = SigmoidPreds(LOGITS)
    frame = preds.to_frame()
    frame.loc[0, "0"] = 0.0
    frame["1"] *= 2
    torch.testing.assert_close(preds.probs, LOGITS.sigmoid())


@pytest.mark.parametrize("n_classes", [1, 3, 40])
@pytest.mark.parametrize("n", [0, 1, 5, 3000])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_labels_are_the_names_of_the_classes_that_fire(n, n_classes, threshold):
    logits = torch.randn((max(n, 1), n_classes), generator=torch.Generator().manual_seed(0))
    preds = SigmoidPreds(logits, threshold=threshold)[:n]
    expected = [
        [name for name, p in zip(preds.vocab, row, strict=True) if p > threshold]
        for row in preds.probs
    ]
    assert preds.labels == expected


THRESHOLDS_BY_NAME = {
    "one": ({"cat": 0.3}, [0.3, 0.5, 0.5]),
    "all": ({"owl": 0.3, "cat": 0.9, "dog": 0.1}, [0.9, 0.1, 0.3]),
    "none": ({}, [0.5, 0.5, 0.5]),
    "a tensor": ({"dog": torch.tensor(0.25)}, [0.5, 0.25, 0.5]),
    "a number of numpy's": ({"dog": np.float64(0.25)}, [0.5, 0.25, 0.5]),
    "the ends": ({"dog": 0, "owl": 1}, [0.5, 0.0, 1.0]),
}


@pytest.mark.parametrize("named, values", THRESHOLDS_BY_NAME.values(), ids=THRESHOLDS_BY_NAME)
def test_thresholds_by_name(named, values):
    vocab = ["cat", "dog", "owl"]
    for preds in (
        SigmoidPreds(LOGITS, vocab, threshold=named),
        SigmoidPreds(LOGITS, vocab).read(named),
        SigmoidPreds.from_probs(LOGITS.sigmoid(), vocab, threshold=named),
    ):
        torch.testing.assert_close(preds.threshold, torch.tensor(values))
        assert torch.equal(preds.fires, preds.probs > torch.tensor(values))


def test_thresholds_by_name_keep_those_of_other_classes():
    preds = SigmoidPreds(LOGITS, ["cat", "dog", "owl"], threshold=0.8)
    torch.testing.assert_close(preds.read({"dog": 0.3}).threshold, torch.tensor([0.8, 0.3, 0.8]))
    changed_twice = preds.read({"dog": 0.3}).read({"owl": 0.1})
    torch.testing.assert_close(changed_twice.threshold, torch.tensor([0.8, 0.3, 0.1]))
    assert preds.threshold == 0.8


@pytest.mark.parametrize(
    "vocab", [[7, 8, 9], [(1, 2), None, "x"], list(np.arange(3)), ["a", "a", "b"]]
)
def test_thresholds_by_names_that_are_not_strings(vocab):
    found = SigmoidPreds(LOGITS, vocab, threshold={vocab[0]: 0.25, vocab[2]: 0.75}).threshold
    expected = [0.25 if name == vocab[0] else 0.5 for name in vocab[:2]] + [0.75]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize(
    "named, told",
    [
        ({"cow": 0.3}, "got one for 'cow'; the classes are 'cat', 'dog', 'owl'"),
        ({0: 0.3}, "got one for 0; the classes are"),
        ({"cat": 1.5}, "a probability from 0 to 1"),
        ({"cat": "high"}, "a probability from 0 to 1"),
        ({"cat": [0.1, 0.2, 0.3]}, "a probability from 0 to 1"),
        ({"cat": None}, "a probability from 0 to 1"),
    ],
    ids=str,
)
def test_bad_thresholds_by_name(named, told):
    for consume in (
        lambda: SigmoidPreds(LOGITS, ["cat", "dog", "owl"], threshold=named),
        lambda: SigmoidPreds(LOGITS, ["cat", "dog", "owl"]).read(named),
    ):
        with pytest.raises(ValueError, match="^expected threshold to be") as error:
            consume()
        assert told in str(error.value)


TABLE = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": list("wxyz")}, index=[10, 20, 30, 40])


def test_the_items_of_a_table_are_its_index():
    preds = SigmoidPreds(LOGITS, items=TABLE)
    assert preds.items == [10, 20, 30, 40]
    assert preds[[2]].to_frame()["item"].tolist() == [30]


NOT_IMAGES = {
    "texts": {"items": ["what a film", "boring" * 200, "fine", "so\0so"]},
    "a text file": {"items": [__file__] * 4},
    "a folder": {"items": ["."] * 4},
    "a table": {"items": TABLE},
    "rows": {"items": [row for _, row in TABLE.iterrows()]},
    "tables": {"items": [TABLE] * 4},
    "token ids": {"dataset": [(torch.arange(9), 0)] * 4},
    "rows of a table": {"dataset": [(TABLE.iloc[0], 0)] * 4},
    "categories and numbers": {"dataset": [(torch.arange(3), torch.rand(2), 0)] * 4},
    "dicts": {"dataset": [{"image": np.zeros((4, 4)), "label": 0}] * 4},
    "volumes": {"items": [torch.rand(8, 9, 10)] * 4},
    "arrays of words": {"items": [np.full((3, 3), "a")] * 4},
    "complex numbers": {"items": [np.zeros((3, 3), complex)] * 4},
    "nothing": {"items": [None] * 4},
}


@pytest.mark.parametrize("parts", NOT_IMAGES.values(), ids=NOT_IMAGES)
def test_what_is_no_image_has_one_clear_error(parts):
    preds = SigmoidPreds(LOGITS, **parts)
    with pytest.raises(ValueError, match="^expected items that are images, got .*to_frame()"):
        preds.show()
    assert len(preds.to_frame()) == 4
    assert not plt.get_fignums()


def test_a_tabular_learner_has_one_clear_error():
    from fastai.tabular.all import (
        BCEWithLogitsLossFlat,
        Categorify,
        TabularDataLoaders,
        tabular_learner,
    )

    df = pd.DataFrame({"x": np.arange(40.0), "k": list("ab") * 20, "y": [0.0, 1.0] * 20})
    dls = TabularDataLoaders.from_df(
        df, procs=[Categorify], cat_names=["k"], cont_names=["x"], y_names="y", device="cpu"
    )
    learn = tabular_learner(dls, n_out=1, loss_func=BCEWithLogitsLossFlat())
    with learn.no_bar():
        logits = learn.get_preds(act=lambda z: z)[0]
    preds = SigmoidPreds(logits, dataset=dls.valid.dataset)
    with pytest.raises(ValueError, match="^expected items that are images, got .*to_frame()"):
        preds.show()


NAMED = pd.DataFrame(np.eye(3)[[0, 1, 2, 0]], columns=["cat", "dog", "owl"])


def test_columns_of_targets_are_matched_with_the_class_names():
    vocab = ["owl", "cat", "dog"]
    expected = torch.tensor(NAMED[vocab].to_numpy()).float()
    torch.testing.assert_close(SigmoidPreds(LOGITS, vocab, NAMED).targs, expected)
    numbered = pd.DataFrame(NAMED.to_numpy())  # pandas has named them 0, 1, 2
    as_given = torch.tensor(NAMED.to_numpy()).float()
    for targs, names in ((numbered, vocab), (NAMED, None)):
        torch.testing.assert_close(SigmoidPreds(LOGITS, names, targs).targs, as_given)
    with pytest.raises(ValueError, match="columns of targets to be the class names .*, got .'cat'"):
        SigmoidPreds(LOGITS, ["owl", "cat", "cow"], NAMED)


def test_thresholds_in_a_column_are_matched_with_the_class_names():
    vocab = ["owl", "cat", "dog"]
    named = pd.Series({"cat": 0.1, "dog": 0.2, "owl": 0.3})
    torch.testing.assert_close(
        SigmoidPreds(LOGITS, vocab, threshold=named).threshold, torch.tensor([0.3, 0.1, 0.2])
    )
    numbered = pd.Series([0.1, 0.2, 0.3])
    torch.testing.assert_close(
        SigmoidPreds(LOGITS, vocab, threshold=numbered).threshold, torch.tensor([0.1, 0.2, 0.3])
    )
    with pytest.raises(ValueError, match="got one for 'cow'"):
        SigmoidPreds(LOGITS, vocab, threshold=pd.Series({"cow": 0.1}))


@pytest.mark.parametrize("vocab", [{"a", "b", "c"}, "abc", {"a": 0, "b": 1, "c": 2}, 3, NAMED])
def test_what_has_no_order_is_no_vocab(vocab):
    with pytest.raises(ValueError, match="^expected vocab to be a list of class names, got"):
        SigmoidPreds(LOGITS, vocab)


def test_class_names_are_no_formulas():
    from matplotlib import pyplot as plt

    preds = SigmoidPreds(LOGITS, ["$x$", "$\\frac{", "a_b^c"], items=[np.zeros((4, 4))] * 4)
    preds.show()
    plt.gcf().canvas.draw()
    plt.close("all")


def test_a_class_is_no_calibrator():
    """The class itself, where a fitted one was meant."""
    with pytest.raises(TypeError, match="expected calibrator to be a fitted SigmoidCalibrator"):
        SigmoidPreds(LOGITS, calibrator=SigmoidCalibrator)
