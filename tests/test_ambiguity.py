"""Scores in bits: what they refuse, and that predictions of any class with the right fields do."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from multilabel_mnist.ambiguity import (
    ambiguity,
    confused_pairs,
    label_suspicion,
    morph,
    most_ambiguous,
    out_of_fold_probs,
)
from multilabel_mnist.inference import SigmoidPreds

PROBS = tensor([[0.5, 0.25], [0.999, 0.001]])
ONE = np.zeros((28, 28), dtype=np.uint8)
ONE[4:24, 13:16] = 255
SEVEN = ONE.copy()
SEVEN[4:7, 6:16] = 255


@pytest.mark.parametrize(
    "probs, message",
    [
        (tensor([[2.0, -1.0]]), "expected probs from 0 to 1, got -1 to 2"),
        (tensor([0.5, 0.5]), "expected probs of shape (N, C)"),
        (tensor([[0.5, torch.nan]]), "without NaN"),
        ("three", "expected probs to be numbers"),
    ],
)
def test_probs_that_are_none(probs, message):
    for score in (ambiguity, lambda p: label_suspicion(p, tensor([0]))):
        with pytest.raises(ValueError) as error:
            score(probs)
        assert message in str(error.value)


def test_answers_to_a_single_question():
    probs = tensor([[0.5], [0.25]])
    assert_close(label_suspicion(probs, tensor([1, 1])), tensor([1.0, 2.0]).double())


@pytest.mark.parametrize(
    "labels, message",
    [
        (tensor([0, 2]), "expected labels from 0 to 1 for 2 classes, got 0 to 2"),
        (tensor([0, 1, 0]), "got shape (3,)"),
        (tensor([[0.5, 0], [0, 1]]), "expected labels to be 0s and 1s"),
        (["a", "b"], "dls.vocab.o2i"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(ValueError) as error:
        label_suspicion(PROBS, labels)
    assert message in str(error.value)


def test_lists_and_arrays_are_taken():
    assert_close(ambiguity(PROBS.tolist()), ambiguity(PROBS.double()))
    assert_close(ambiguity(PROBS.numpy()), ambiguity(PROBS))
    assert_close(label_suspicion(PROBS.numpy(), [0, 1]), label_suspicion(PROBS, tensor([0, 1])))


def test_suspicion_of_a_certain_network_is_finite():
    bits = label_suspicion(tensor([[0.0, 1.0]]), tensor([0]))
    assert torch.isfinite(bits).all() and bits.item() > 50


def test_ambiguity_of_float64_stays_float64():
    assert ambiguity(PROBS.double()).dtype == torch.float64


def test_most_ambiguous_first():
    preds = SigmoidPreds(tensor([[4.0, -4.0], [0.1, 0.0], [1.0, 0.0]]))
    assert_close(most_ambiguous(preds, 2).probs, preds.probs[[1, 2]])
    assert len(most_ambiguous(preds)) == 3
    for k in (0, 1.5, True):
        with pytest.raises(ValueError, match="expected k to be a whole number of at least 1"):
            most_ambiguous(preds, k)


def test_confused_pairs_needs_probs_targs_and_vocab_only():
    preds = SimpleNamespace(probs=PROBS, targs=None, vocab=["a", "b"])
    pairs = confused_pairs(preds)
    assert list(pairs.columns) == ["a", "b"] and (np.diag(pairs) == 0).all()
    assert_close(pairs.loc["a", "b"], 0.5 * 0.25 + 0.999 * 0.001, atol=1e-6, rtol=0)
    preds.targs = tensor([[1.0, 1.0], [1.0, 0.0]])
    assert_close(confused_pairs(preds).loc["a", "b"], 0.999 * 0.001, atol=1e-6, rtol=0)


def test_a_morph_begins_and_ends_with_its_images_and_keeps_the_ink():
    images = morph(ONE, SEVEN, 5)
    assert images.shape == (5, 28, 28) and images.dtype == np.uint8
    assert (images[0] == ONE).all() and (images[-1] == SEVEN).all()
    ink = images.sum((1, 2), dtype=float)
    assert (ink[1:-1] > 0.8 * ink[0]).all() and (ink[1:-1] < 1.2 * ink[-1]).all()


@pytest.mark.parametrize(
    "a, b, steps, message",
    [
        (ONE, ONE[:9], 3, "two uint8 images of one shape (H, W), got a uint8 array of shape"),
        (ONE, ONE / 255, 3, "got a uint8 array of shape (28, 28) and a float64 array"),
        (ONE[None], ONE[None], 3, "two uint8 images"),
        (ONE, 0 * ONE, 3, "expected ink in both images"),
        (ONE, ONE, 1, "expected steps to be a whole number of at least 2, got 1"),
    ],
)
def test_images_that_cannot_be_morphed(a, b, steps, message):
    with pytest.raises(ValueError) as error:
        morph(a, b, steps)
    assert message in str(error.value)


def test_out_of_fold_probs_come_from_networks_that_did_not_see_the_item():
    held_out_so_far = []

    def make_learner(held_out):
        held_out_so_far.append(held_out)
        return FakeLearner(held_out)

    probs = out_of_fold_probs(make_learner, 10, k=3)
    # The fake learner of fold f answers with the position of the item.
    assert_close(probs, torch.arange(10.0)[:, None].expand(10, 2) / 100)
    # In order, so that a split which keeps the order of the items is right as well.
    assert all((np.diff(held_out) > 0).all() for held_out in held_out_so_far)
    assert sorted(len(held_out) for held_out in held_out_so_far) == [3, 3, 4]
    assert sorted(np.concatenate(held_out_so_far)) == list(range(10))


class FakeLearner:
    """Answer like a Learner whose validation set holds the items at some positions."""

    def __init__(self, positions):
        self.positions = positions

    def no_bar(self):
        return nullcontext()

    def get_preds(self):
        return torch.as_tensor(self.positions).float()[:, None].expand(-1, 2) / 100, None


@pytest.mark.parametrize("factor", [10.0, -1.0, 200.0])
def test_outputs_that_are_no_probabilities_are_an_error(factor):
    class Logits(FakeLearner):
        def get_preds(self):
            probs, _ = super().get_preds()
            return probs * 100 * factor, None

    with pytest.raises(ValueError, match="from 0 to 1"):
        out_of_fold_probs(Logits, 10, k=2)


def test_folds_depend_on_the_seed_alone():
    def folds(seed):
        seen = []
        out_of_fold_probs(
            lambda held_out: seen.append(held_out) or FakeLearner(held_out), 20, 4, seed
        )
        return np.concatenate(seen).tolist()

    assert folds(1) == folds(1) != folds(2)


def test_out_of_fold_probs_with_a_data_block():
    import pandas as pd
    from fastai.vision.all import (
        BCEWithLogitsLossFlat,
        ColReader,
        DataBlock,
        IndexSplitter,
        Learner,
        MultiCategoryBlock,
        RegressionBlock,
        nn,
    )

    df = pd.DataFrame(
        {"number": np.linspace(-3, 3, 23), "labels": ["a", "b c", ""] * 7 + ["a"] * 2}
    )
    seen = []

    def make_learner(held_out):
        block = DataBlock(
            blocks=(RegressionBlock, MultiCategoryBlock(vocab=["a", "b", "c"])),
            get_x=ColReader("number"),
            get_y=ColReader("labels", label_delim=" "),
            splitter=IndexSplitter(held_out),
        )
        dls = block.dataloaders(df, bs=4, device="cpu")
        seen.extend(dls.valid_ds.items.index)
        model = nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 3))
        with torch.no_grad():
            model[1].weight[:] = tensor([[1.0], [2.0], [3.0]])
            model[1].bias.zero_()
        return Learner(dls, model, loss_func=BCEWithLogitsLossFlat())

    probs = out_of_fold_probs(make_learner, len(df))
    numbers = torch.tensor(df["number"].to_numpy(), dtype=torch.float32)
    assert sorted(seen) == list(range(23))
    assert_close(probs, (numbers[:, None] * tensor([1.0, 2.0, 3.0])).sigmoid())
    assert type(probs) is torch.Tensor


def test_a_learner_with_another_valid_set_is_an_error():
    with pytest.raises(ValueError) as error:
        out_of_fold_probs(lambda held_out: FakeLearner(held_out[1:]), 10, k=5)
    assert "expected the 2 held-out items in the learner's valid, got 1" in str(error.value)


@pytest.mark.parametrize(
    "n_items, k, message",
    [
        (10, 1, "expected k to be a whole number of at least 2, got 1"),
        (4, 5, "expected n_items to be a whole number of at least 5"),
        (10.0, 5, "expected n_items to be a whole number"),
    ],
)
def test_folds_that_cannot_be_made(n_items, k, message):
    with pytest.raises(ValueError) as error:
        out_of_fold_probs(FakeLearner, n_items, k=k)
    assert message in str(error.value)


def test_out_of_fold_probs_with_loaders_of_torch():
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.losses import BCEWithLogitsLossFlat
    from torch.utils.data import DataLoader, Subset, TensorDataset

    x = torch.arange(6.0)[:, None]
    data = TensorDataset(x, torch.zeros(6, 1))
    model = torch.nn.Linear(1, 1)

    def make_learner(held_out, shuffle=False):
        valid = DataLoader(Subset(data, held_out), batch_size=2, shuffle=shuffle)
        dls = DataLoaders(DataLoader(data, batch_size=2), valid)
        return Learner(dls, model, loss_func=BCEWithLogitsLossFlat())

    probs = out_of_fold_probs(make_learner, 6, k=3)
    torch.testing.assert_close(probs, model(x).sigmoid().detach())
    with pytest.raises(ValueError, match="expected valid in order, got a RandomSampler"):
        out_of_fold_probs(lambda held_out: make_learner(held_out, shuffle=True), 6, k=3)
