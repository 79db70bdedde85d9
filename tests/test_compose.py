"""ComposeDigits and train_verdicts at their edges: other sizes, seeds, wrong input, export."""

import warnings
from copy import deepcopy

import pytest
import torch
from fastai.basics import ItemTransform, load_learner
from fastcore.test import expect_fail
from torch.testing import assert_close

from multilabel_mnist.compose import ComposeDigits, train_verdicts, verdict_cnn
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.labels import one_hot

IMAGES = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
TARGETS = one_hot(torch.arange(64) % 10, 10)
NOTHING = dict.fromkeys(ComposeDigits().shares | ComposeDigits().of_all, 0.0)


def compose(images=IMAGES, targets=TARGETS, **shares):
    """Apply only the given shares."""
    return ComposeDigits(**NOTHING | shares).encodes((images, targets))


def test_a_seed_fixes_the_batches_and_a_copy_begins_again():
    first = ComposeDigits(seed=7).encodes((IMAGES, TARGETS))
    assert_close(ComposeDigits(seed=7).encodes((IMAGES, TARGETS)), first)
    tfm = ComposeDigits(seed=7)
    tfm.encodes((IMAGES, TARGETS))
    assert not torch.equal(tfm.encodes((IMAGES, TARGETS))[0], first[0])
    assert_close(deepcopy(tfm).encodes((IMAGES, TARGETS)), first)


def test_no_share_changes_nothing():
    assert_close(compose(), (IMAGES, TARGETS))


def test_nudged_changes_its_share_of_the_images():
    images, targets = compose(nudged=0.5)
    assert (images != IMAGES).flatten(1).any(1).sum() == 32
    assert_close(targets, TARGETS)


def test_faint_takes_up_to_half_of_the_ink_with_one_factor_per_image():
    kept = compose(faint=1)[0] / IMAGES.clamp(min=1e-6)
    kept = torch.where(IMAGES > 1e-3, kept, kept.flatten(1).median(1).values.view(-1, 1, 1, 1))
    assert 0.5 < kept.min() < 0.7 < 0.8 < kept.max() <= 1 + 1e-4
    assert kept.flatten(1).std(1).max() < 1e-4


def test_images_of_no_digit_have_targets_of_0s():
    _, targets = compose(strokes=0.5, noise=0.3, pieces=0.2)
    assert targets.sum() == 0


def test_the_target_of_a_pair_is_the_union():
    _, targets = compose(overlaid=0.6, beside=0.4)
    n_labels = targets.sum(1)
    assert ((n_labels == 1) | (n_labels == 2)).all()
    assert (targets >= TARGETS).all()
    assert (n_labels == 2).float().mean() > 0.7


def test_other_sizes_colors_and_small_batches():
    color = torch.rand(16, 3, 40, 32)
    assert ComposeDigits().encodes((color, TARGETS[:16]))[0].shape == (16, 3, 40, 32)
    for n in (0, 1, 2):
        assert ComposeDigits().encodes((IMAGES[:n], TARGETS[:n]))[1].shape == (n, 10)


def test_wrong_batches_and_shares_raise():
    with expect_fail(ValueError, "to_multilabel(dls)"):
        ComposeDigits().encodes((IMAGES, torch.arange(64)))
    with expect_fail(ValueError, "before Normalize"):
        ComposeDigits().encodes((IMAGES * 3 - 1, TARGETS))
    with expect_fail(ValueError, "before Normalize"):
        ComposeDigits().encodes((IMAGES * torch.nan, TARGETS))
    with expect_fail(ValueError, "whose sum is at most 1"):
        ComposeDigits(0.6, 0.6)
    with expect_fail(ValueError, "from 0 to 1"):
        ComposeDigits(faint=1.5)


def test_verdict_cnn_returns_one_logit_per_output():
    assert verdict_cnn(7)(torch.zeros(2, 1, 28, 28)).shape == (2, 7)


@pytest.fixture(scope="module")
def dls():
    path = digits_path("embedded")
    return DigitDataLoaders.from_folder(path, valid_pct=0, n_train=200)


def test_train_verdicts_leaves_all_as_it_was_and_can_be_exported(dls, tmp_path):
    state, order, bs = torch.get_rng_state(), dls.train.rng.getstate(), dls.train.bs
    learn = train_verdicts(dls, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert dls.train.rng.getstate() == order
    assert dls.train.bs == bs
    assert not any(isinstance(f, ComposeDigits) for f in dls.train.after_batch.fs)
    assert any(isinstance(f, ComposeDigits) for f in learn.dls.train.after_batch.fs)

    images = (IMAGES[:8, 0] * 255).byte().numpy()
    before = sigmoid_preds(learn, images).probs
    learn.export(tmp_path / "verdicts.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # load_learner warns of pickles by strangers
        again = load_learner(tmp_path / "verdicts.pkl")
    assert_close(sigmoid_preds(again, images).probs, before, atol=1e-5, rtol=1e-4)


class LeftHalf(ItemTransform):
    """Cut off the right half of each image."""

    order = 50

    def encodes(self, batch):
        images, targets = batch
        return images[..., :14], targets


def test_train_verdicts_takes_images_of_28_by_28_only(dls):
    small = deepcopy(dls)
    for dl in small.loaders:
        dl.after_batch.add(LeftHalf())
    with expect_fail(ValueError, "of MNIST's size"):
        train_verdicts(small, epochs=1)
