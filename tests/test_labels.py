"""one_hot, class_indices, as_list, exact_match: every kind of input, every error, no fastai."""

import pickle
import sys
import warnings
from collections import deque
from datetime import date
from enum import Enum, IntEnum, StrEnum
from functools import partial
from pathlib import Path

import fastai.torch_core
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from fastai.vision.all import (
    Category,
    ColReader,
    L,
    MultiCategory,
    MultiCategoryBlock,
    TensorCategory,
    TfmdLists,
    parent_label,
)
from hypothesis import given
from hypothesis import strategies as st

from conftest import run
from multilabel_mnist.labels import as_list, class_indices, exact_match, one_hot

LABELS = [2, 0, 1, 1]
TARGETS = torch.eye(3)[LABELS]
PROBS = torch.tensor([[0.9, 0.2, 0.1], [0.6, 0.6, 0.1], [0.4, 0.1, 0.1]])
KINDS = {
    "list": LABELS,
    "tuple": tuple(LABELS),
    "array": np.array(LABELS),
    "backwards": np.array(LABELS[::-1])[::-1],
    "objects": np.array(LABELS, dtype=object),
    "column": pd.Series(LABELS, index=[9, 7, 5, 3]),
    "nullable column": pd.Series(LABELS, dtype="Int64"),
    "codes": pd.Categorical(list("cabb")).codes,
    "int32": torch.tensor(LABELS).int(),
    "uint8": torch.tensor(LABELS).byte(),
    "uint16": torch.tensor(LABELS).to(torch.uint16),
    "whole floats": torch.tensor(LABELS).double(),
    "every second": torch.tensor([2, 9, 0, 9, 1, 9, 1])[::2],
    "fastai's": TensorCategory(LABELS),
    "items of fastai": [TensorCategory(i) for i in LABELS],
}
NOT_LABELS = [
    (["two", "zero"], "o2i turns a class name into its index"),
    (pd.Series(["a", "b"]), "o2i"),
    ([1, None], "o2i"),
    (None, "o2i"),
    ({0: 1}, "o2i"),
    ([[0], [1, 2]], "o2i"),
    (pd.Series([0, 1, None]), "whole numbers"),
    (torch.tensor([0, torch.nan]), "whole numbers"),
    (torch.tensor([0, torch.inf]), "whole numbers"),
    (torch.tensor([0.5]), "whole numbers"),
    (torch.tensor([1j]), "expected .* class indices of shape .N,., got a complex64 tensor"),
    (torch.tensor([-1]), "expected labels from 0 to 2 for 3 classes, got -1 to -1"),
    (torch.tensor([0, 2**40]), "expected labels from 0 to 2 for 3 classes"),
    (torch.tensor(1), r"shape \(\)"),
    ([True], "True means class 1"),
]


@pytest.mark.parametrize("labels", KINDS.values(), ids=KINDS)
def test_labels_of_any_kind(labels):
    torch.testing.assert_close(one_hot(labels, 3), TARGETS)
    assert type(one_hot(labels, np.int64(3))) is torch.Tensor
    assert exact_match(TARGETS * 9 - 5, labels) == 1


@pytest.mark.parametrize("labels, said", NOT_LABELS)
def test_what_is_no_label(labels, said):
    with pytest.raises(ValueError, match=said):
        one_hot(labels, 3)


@pytest.mark.parametrize("labels", [TARGETS, torch.tensor(LABELS)[:, None]], ids=["targets", "N1"])
def test_labels_have_one_dimension(labels):
    with pytest.raises(ValueError, match=r"class indices of shape .N,., got shape \(4, "):
        one_hot(labels, 3)


@pytest.mark.parametrize("n_classes", [0, -1, 3.0, True, None, "3"])
def test_the_number_of_classes_is_checked(n_classes):
    with pytest.raises(ValueError, match="expected n_classes to be a whole number of at least 1"):
        one_hot(LABELS, n_classes)


def test_one_column_per_class_even_if_a_class_is_missing():
    torch.testing.assert_close(one_hot([0, 1], 3), torch.eye(3)[:2])
    with pytest.raises(ValueError, match="expected labels from 0 to 1 for 2 classes, got 0 to 2"):
        one_hot(LABELS, 2)


@pytest.mark.parametrize(
    "targets",
    [
        np.eye(3),
        np.eye(3).tolist(),
        pd.DataFrame(np.eye(3), index=list("abc")),
        torch.eye(3).bool(),
        torch.eye(3).half(),
        torch.eye(3).T,
    ],
    ids="array list table bool half transposed".split(),
)
def test_targets_of_any_kind(targets):
    assert class_indices(targets).tolist() == [0, 1, 2]
    assert class_indices(targets).dtype == torch.int64


@pytest.mark.parametrize(
    "targets, said",
    [
        ([[0.0, 0, 0], [1, 1, 0]], r"2 of 2 targets differ .first: row 0, \[0.0, 0.0, 0.0\]"),
        ([[1, 0], [1, 1], [0, 0]], r"2 of 3 targets differ .first: row 1, \[1, 1\]"),
        ([[0.9, 0.0], [0, 1]], "1 of 2 targets differ .first: row 0"),
        ([[1.0, 0.1]], "1 of 1 targets differ"),
        ([[1.0, torch.nan]], "1 of 1 targets differ"),
        ([[1, -1]], "1 of 1 targets differ"),
        ([0, 1], r"expected targets of shape .N, C., got shape \(2,\)"),
        (["two"], "expected targets to be 0s and 1s of shape .N, C."),
    ],
)
def test_targets_without_a_class_index(targets, said):
    with pytest.raises(ValueError, match=said):
        class_indices(targets)


def test_no_labels_give_no_targets():
    assert one_hot([], 3).shape == (0, 3)
    assert class_indices(torch.zeros(0, 3)).shape == (0,)


def same(o):
    return o


def to_object_array(labels):
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def to_object_column(labels):
    return pd.Series(to_object_array(labels), dtype=object)


class Animal(Enum):
    CAT = 1
    DOG = 2


class Name(StrEnum):
    CAT = "cat"


class Number(IntEnum):
    ONE = 1


NAMES = np.array(["cat", "dog"])
TABLE = pd.DataFrame({"file": ["1.png", "1.png", "2.png"], "label": ["cat", "dog", "owl"]})
ROW = pd.DataFrame({"first": ["cat"], "second": [None], "third": ["dog"]})
IS_FIRST = TABLE.file == "1.png"

ONE_LABEL = {
    "word": ("ab", ["ab"]),
    "bytes": (b"ab", [b"ab"]),
    "np.str_": (np.str_("ab"), ["ab"]),
    "fastai's category": (Category("ab"), ["ab"]),
    "path": (Path("a/b"), [Path("a/b")]),
    "int": (3, [3]),
    "zero": (0, [0]),
    "False": (False, [False]),
    "np.int64": (np.int64(3), [3]),
    "np.bool_": (np.bool_(False), [False]),
    "float": (0.5, [0.5]),
    "date": (date(2020, 1, 2), [date(2020, 1, 2)]),
    "timestamp": (pd.Timestamp("2020"), [pd.Timestamp("2020")]),
    "enum": (Animal.CAT, [Animal.CAT]),
    "enum of words": (Name.CAT, ["cat"]),
    "enum of numbers": (Number.ONE, [1]),
    "mapping": ({"a": 1}, [{"a": 1}]),
    "0-d words": (np.array("ab"), ["ab"]),
    "0-d objects": (np.array("ab", dtype=object), ["ab"]),
    "0-d numbers": (np.array(3), [3]),
    "0-d tensor": (torch.tensor(3), [3]),
    "0-d category": (TensorCategory(3), [3]),
    "label_delim not given": ("cat dog", ["cat dog"]),
}
SEVERAL_LABELS = {
    "list": (["a", "b"], ["a", "b"]),
    "tuple": (("a", "b"), ["a", "b"]),
    "tuple of one": (("ab",), ["ab"]),
    "named tuple": (next(ROW.itertuples(index=False)), ["cat", "dog"]),
    "set of one": ({"ab"}, ["ab"]),
    "set": ({"dog", "cat", "owl"}, ["cat", "dog", "owl"]),
    "set of numbers": ({10, 9, 2}, [2, 9, 10]),
    "set of any": ({"cat", 3}, [3, "cat"]),
    "set of enums": ({Animal.DOG, Animal.CAT}, [Animal.CAT, Animal.DOG]),
    "frozenset": (frozenset({"dog", "cat"}), ["cat", "dog"]),
    "keys": ({"dog": 1, "cat": 2}.keys(), ["dog", "cat"]),
    "values": ({1: "dog", 2: "cat"}.values(), ["dog", "cat"]),
    "range": (range(2), [0, 1]),
    "deque": (deque(["a", "b"]), ["a", "b"]),
    "fastai's list": (L("ab", "c"), ["ab", "c"]),
    "fastai's categories": (MultiCategory(["ab", "c"]), ["ab", "c"]),
    "array": (np.array([1, 2]), [1, 2]),
    "words": (NAMES, ["cat", "dog"]),
    "words as objects": (NAMES.astype(object), ["cat", "dog"]),
    "a row of an array": (NAMES[None], ["cat", "dog"]),
    "tensor": (torch.tensor([1, 2]), [1, 2]),
    "column": (TABLE.label[IS_FIRST], ["cat", "dog"]),
    "column of one": (TABLE.label[~IS_FIRST], ["owl"]),
    "column of objects": (TABLE.label[IS_FIRST].astype(object), ["cat", "dog"]),
    "column of categories": (TABLE.label[IS_FIRST].astype("category"), ["cat", "dog"]),
    "column of arrow": (TABLE.label[IS_FIRST].astype("string[pyarrow]"), ["cat", "dog"]),
    "column of lists": (pd.Series([["cat", "dog"]]), ["cat", "dog"]),
    "nullable column": (pd.Series([2, None], dtype="Int64"), [2]),
    "unique": (TABLE.label[IS_FIRST].unique(), ["cat", "dog"]),
    "values of a column": (TABLE.label[IS_FIRST].values, ["cat", "dog"]),
    "categorical": (pd.Categorical(["dog", "cat"]), ["dog", "cat"]),
    "index": (pd.Index(["dog", "cat"]), ["dog", "cat"]),
    "part of a table": (TABLE.loc[IS_FIRST, ["label"]], ["cat", "dog"]),
    "a row": (ROW.iloc[0], ["cat", "dog"]),
    "a row as a table": (ROW, ["cat", "dog"]),
    "arrow": (pa.array(["cat", None, "dog"]), ["cat", "dog"]),
    "arrow in chunks": (pa.chunked_array([["cat"], [None, "dog"]]), ["cat", "dog"]),
    "duplicates": (["cat", "cat"], ["cat", "cat"]),
}
NO_LABEL = {
    "None": None,
    "NaN": float("nan"),
    "np.nan": np.float32("nan"),
    "NA": pd.NA,
    "NaT": pd.NaT,
    "empty word": "",
    "empty bytes": b"",
    "0-d empty": np.array(""),
    "0-d NaN": torch.tensor(torch.nan),
    "list": [],
    "tuple": (),
    "set": set(),
    "array": np.array([]),
    "tensor": torch.tensor([]),
    "column": TABLE.label[:0],
    "unique": TABLE.label[:0].unique(),
    "table": TABLE[:0],
    "missing in a list": [None, float("nan"), "", pd.NA, pd.NaT],
    "missing in a set": {None, pd.NA, ""},
    "missing in a column": pd.Series([None, np.nan, ""]),
    "missing in an array": np.array([None, np.nan, ""], dtype=object),
}


@pytest.mark.parametrize("value, labels", ONE_LABEL.values(), ids=ONE_LABEL)
def test_as_list_wraps_one_label(value, labels):
    found = as_list(same)(value)
    assert type(found) is list and found == labels


@pytest.mark.parametrize("value, labels", SEVERAL_LABELS.values(), ids=SEVERAL_LABELS)
def test_as_list_takes_the_labels_out_of_any_collection(value, labels):
    found = as_list(same)(value)
    assert type(found) is list and found == labels


def test_as_list_takes_the_labels_out_of_generators():
    assert as_list(str.split)("cat dog") == ["cat", "dog"]
    assert as_list(iter)(["cat", "dog"]) == ["cat", "dog"]
    assert as_list(lambda o: (f"{x}!" for x in o.split()))("cat dog") == ["cat!", "dog!"]
    assert as_list(lambda o: map(str.lower, o))(["CAT", ""]) == ["cat"]


@pytest.mark.parametrize("value", NO_LABEL.values(), ids=NO_LABEL)
def test_as_list_of_what_means_no_label_is_empty(value):
    assert as_list(same)(value) == []


@pytest.mark.parametrize("delim", [" ", ";", "|"])
@pytest.mark.parametrize("cells", ["cat", "cat,dog", "", "dog,,cat"])
def test_as_list_of_a_column_with_a_delimiter(cells, delim):
    row = {"label": cells.replace(",", delim)}
    labels = as_list(ColReader("label", label_delim=delim))(row)
    assert labels == [name for name in cells.split(",") if name]


ANY_LABEL = st.one_of(
    st.text(min_size=1),
    st.binary(min_size=1),
    st.integers(),
    st.booleans(),
    st.sampled_from(Animal),
)
MISSING = st.sampled_from([None, float("nan"), pd.NA, pd.NaT, ""])
COLLECTIONS = (list, tuple, L, deque, iter, to_object_array, to_object_column)


@given(st.lists(st.one_of(ANY_LABEL, MISSING)))
def test_as_list_gives_the_same_labels_for_every_ordered_collection(labels):
    expected = [o for o in labels if not any(o is missing for missing in (None, pd.NA, pd.NaT))]
    expected = [o for o in expected if o != "" and o == o]
    for collection in COLLECTIONS:
        assert as_list(collection)(labels) == expected


@given(st.lists(ANY_LABEL))
def test_as_list_gives_each_label_of_a_set_once(labels):
    for collection in (set, frozenset):
        found = as_list(collection)(labels)
        assert len(found) == len(set(labels)) and set(found) == set(labels)


SETS = """
from multilabel_mnist.labels import as_list
words = "zero one two three four five six seven eight nine".split()
print(as_list(set)(words), as_list(frozenset)(words + [3, 1]))
"""


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_the_labels_of_a_set_come_in_the_same_order_in_every_run(seed):
    words = sorted("zero one two three four five six seven eight nine".split())
    done = run(sys.executable, "-c", SETS, PYTHONHASHSEED=seed)
    assert done.stdout.strip() == f"{words} {['1', '3', *words]}".replace("'1', '3'", "1, 3")


BLOCKS = {
    "series": lambda label, o: label[TABLE.file == o],
    "unique": lambda label, o: label[TABLE.file == o].unique(),
    "values": lambda label, o: label[TABLE.file == o].values,
    "frozenset": lambda label, o: frozenset(label[TABLE.file == o]),
    "generator": lambda label, o: (name for name in label[TABLE.file == o]),
    "table": lambda label, o: label[TABLE.file == o].to_frame(),
}


@pytest.mark.parametrize("dtype", ["str", "object", "category", "string[pyarrow]"])
@pytest.mark.parametrize("get_labels", BLOCKS.values(), ids=BLOCKS)
def test_as_list_in_a_multi_category_block(get_labels, dtype):
    label = TABLE.label.astype(dtype)
    block = MultiCategoryBlock()
    steps = [as_list(partial(get_labels, label)), *block.type_tfms]
    targets = TfmdLists(["1.png", "2.png", "3.png"], steps)
    assert list(targets.vocab) == ["cat", "dog", "owl"]
    assert [target.tolist() for target in targets] == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("words", [["two", "zero"], ["cat", "dog", "owl"], ["7", "77"]])
def test_without_as_list_a_string_is_read_letter_by_letter(words):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spelled = TfmdLists(words, [same, *MultiCategoryBlock().type_tfms])
        found = [[spelled.vocab[i] for i in target.nonzero().flatten()] for target in spelled]
    assert list(spelled.vocab) == sorted(set("".join(words)))
    assert found == [sorted(set(word)) for word in words]
    assert [str(w.message) for w in caught if "label" in str(w.message).lower()] == []
    whole = TfmdLists(words, [as_list(same), *MultiCategoryBlock().type_tfms])
    assert list(whole.vocab) == sorted(words)


def test_as_list_shows_what_it_wraps():
    assert repr(as_list(same)) == as_list(same).__name__ == "as_list(same)"
    with pytest.raises(TypeError, match="expected a function, such as parent_label, got 'two'"):
        as_list("two")


def test_as_list_can_be_pickled_and_a_lambda_cannot():
    copy = pickle.loads(pickle.dumps(as_list(parent_label)))
    assert copy(Path("training/two/1.png")) == ["two"]
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(lambda o: [o.parent.name])


def test_fastai_has_a_one_hot_of_another_kind():
    labels = torch.tensor(LABELS)
    assert fastai.torch_core.one_hot(labels, 3).shape == (3,)  # of one item with several labels
    assert one_hot(labels, 3).shape == (4, 3)


def test_exact_match_by_hand():
    zeros = [0, 0, 0]
    third = torch.tensor(1 / 3)
    per_class = [0.3, 0.7, 0.5]
    torch.testing.assert_close(exact_match(PROBS, zeros, sigmoid=False), third)
    torch.testing.assert_close(exact_match(PROBS.logit(), one_hot(zeros, 3)), third)
    assert exact_match(PROBS, zeros, thresh=per_class, sigmoid=False) == 1
    assert exact_match(PROBS, zeros, thresh=torch.tensor(per_class), sigmoid=False) == 1
    assert exact_match(torch.tensor([[0.5]]), [[1.0]], sigmoid=False) == 0  # at the threshold
    assert exact_match(PROBS.half().logit(), zeros).dtype == torch.float32


@pytest.mark.parametrize(
    "args, said",
    [
        ((PROBS, TARGETS), r"for predictions \(3, 3\), got shape \(4, 3\)"),
        ((PROBS * np.nan, [0, 1, 2]), "expected predictions without NaN, got NaN in 3 of 3 rows"),
        ((PROBS, [0, 1, 2], 1.5), "expected thresh to be a probability from 0 to 1, .*, got 1.5"),
        ((PROBS, [0, 1, 2], -0.1), "expected thresh"),
        ((PROBS, [0, 1, 2], [0.1, 0.2]), "or 3 of them .one per class."),
        ((PROBS, [0, 1, 2], "half"), "expected thresh"),
        ((PROBS[:0], []), r"shape \(N, C\) with at least one row"),
        ((PROBS[0], [0]), r"shape \(N, C\)"),
        ((PROBS, [0, 1, 3]), "expected labels from 0 to 2"),
        ((PROBS, PROBS * 2), "expected targets from 0 to 1"),
    ],
)
def test_exact_match_checks_its_input(args, said):
    with pytest.raises(ValueError, match=said):
        exact_match(*args)


BLOCKED = """
import sys
for name in "fastai fastcore pandas sklearn scipy matplotlib".split():
    sys.modules[name] = None  # importing it raises an ImportError
import torch
from multilabel_mnist.labels import as_list, class_indices, exact_match, one_hot
targets = one_hot([2, 0, 1], 3)
assert class_indices(targets).tolist() == [2, 0, 1]
assert exact_match(targets * 9 - 5, targets) == 1
assert as_list(str)("two") == ["two"]
import multilabel_mnist.labels as labels
assert not hasattr(labels, "nothing")
try:
    labels.OneHot
except ImportError as e:
    print("no fastai:", e.name)
"""


def test_works_without_fastai():
    done = run(sys.executable, "-c", BLOCKED)
    assert done.returncode == 0, done.stdout
    assert "no fastai: fastai" in done.stdout


def test_names_that_need_fastai_are_served():
    import multilabel_mnist.convert as convert
    import multilabel_mnist.labels as labels

    for name in ("OneHot", "BCEOneHotLossFlat", "to_multilabel", "to_multiclass"):
        assert name in labels.__all__
        assert getattr(labels, name) is getattr(convert, name)
