"""Probabilities passed where logits are expected: warned of, unlike logits between 0 and 1."""

import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multilabel_mnist.inference import SigmoidCalibrator, SigmoidPreds
from multilabel_mnist.labels import exact_match, one_hot

PROBABILITIES = {
    "sigmoids": lambda z: z.sigmoid(),
    "a softmax": lambda z: z.softmax(1),
    "a softmax of one image": lambda z: z[:1].softmax(1),
    "half": lambda z: z.softmax(1).half(),
    "bfloat16": lambda z: z.softmax(1).bfloat16(),
    "a single class": lambda z: z[:, :1].sigmoid(),
    "an array": lambda z: z.sigmoid().numpy(),
    "three classes, unsure": lambda z: (z.repeat(3, 1) / 3).sigmoid(),
    "two classes, unsure": lambda z: (z[:, :2].repeat(3, 1) / 3).sigmoid(),
    "ten classes near 0.5": lambda z: (z.repeat(1, 4) / 20).sigmoid(),
}
NOT_PROBABILITIES = {
    "logits": lambda z: z,
    "positive logits": lambda z: z.abs(),
    "a few between 0 and 1": lambda z: torch.tensor([[0.2, 0.7, 0.4]]),
    "two rows of them": lambda z: torch.tensor([[0.3, 0.9, 0.1], [0.2, 0.1, 0.8]]),
    "a learned frequency and no more": lambda z: 0.4 + 0.02 * z,
    "zeros": torch.zeros_like,
    "all the same": lambda z: torch.full_like(z, 0.3),
    "zeros and ones": lambda z: (z > 0).float(),
}
MANY = torch.randn((40, 3), generator=torch.Generator().manual_seed(0)) * 3


def takes_logits(scores):
    """Yield what takes logits, with what it says to do if these are probabilities."""
    labels = torch.arange(len(scores)) % scores.shape[1]
    targets = one_hot(labels, scores.shape[1])
    fitted = SigmoidCalibrator().fit(torch.randn(targets.shape) * 9, targets)
    yield lambda: SigmoidPreds(scores), "SigmoidPreds.from_probs"
    yield lambda: SigmoidCalibrator().fit(scores, targets), "pass probs.logit"
    yield lambda: fitted(scores), "pass probs.logit"
    yield lambda: exact_match(torch.as_tensor(scores), targets), "sigmoid=False"


@pytest.mark.parametrize("make", PROBABILITIES.values(), ids=PROBABILITIES)
def test_probabilities_instead_of_logits_are_warned_of(make):
    for consume, remedy in takes_logits(make(MANY)):
        with pytest.warns(UserWarning, match="look like probabilities") as caught:
            consume()
        assert len(caught) == 1 and remedy in str(caught[0].message)
        assert caught[0].filename == __file__


@pytest.mark.parametrize("make", NOT_PROBABILITIES.values(), ids=NOT_PROBABILITIES)
def test_logits_between_0_and_1_by_chance_are_not_warned_of(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for consume, _ in takes_logits(make(MANY)):
            consume()


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9),
    st.sampled_from([1, 2, 3]),
)
def test_fewer_than_ten_logits_are_not_warned_of(values, n_classes):
    values = values[: len(values) // n_classes * n_classes] or [0.5] * n_classes
    scores = torch.tensor(values).reshape(-1, n_classes)
    assume(n_classes == 1 or (scores.sum(1) - 1).abs().max() > 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SigmoidPreds(scores)


@pytest.mark.parametrize("n_classes", [1, 2, 10, 80])
def test_logits_of_untrained_networks_are_not_warned_of(n_classes):
    for seed in range(200):
        torch.manual_seed(seed)
        model = torch.nn.Linear(64, n_classes)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("error")
            exact_match(model(torch.rand(32, 64)), torch.zeros(32, n_classes))


@pytest.mark.parametrize("calibrator", [None, SigmoidCalibrator().fit(MANY, torch.arange(40) % 3)])
@pytest.mark.parametrize("kind", ["sigmoids", "a softmax", "half", "an array", "a single class"])
def test_from_probs_takes_probabilities_as_they_are(kind, calibrator):
    given = PROBABILITIES[kind](MANY)
    probs = torch.as_tensor(given).float()
    n_classes = probs.shape[1]
    if calibrator is not None and n_classes != 3:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preds = SigmoidPreds.from_probs(given, threshold=0.3, calibrator=calibrator)
    torch.testing.assert_close(preds.logits.sigmoid(), probs, atol=1e-6, rtol=0)
    expected = probs if calibrator is None else calibrator(preds.logits)
    assert torch.equal(preds.probs, expected)
    assert torch.equal(preds[[3, 1]].probs, expected[[3, 1]])
    assert torch.equal(preds[5:].read(threshold=0.7).probs, expected[5:])
    assert torch.equal(preds.fires, expected > 0.3)


def test_from_probs_at_the_threshold_and_at_the_ends():
    probs = torch.tensor([[0.0, 0.3, 1.0], [0.1, 0.7, 0.5]])
    preds = SigmoidPreds.from_probs(probs, threshold=probs[0, 1])
    assert preds.labels == [["2"], ["1", "2"]]
    assert preds.logits.isfinite().all()
    with pytest.raises(ValueError, match="expected probs from 0 to 1, got -2 to 3"):
        SigmoidPreds.from_probs([[-2.0, 3.0]])


@pytest.mark.parametrize("targets", [torch.arange(40) % 3, one_hot(torch.arange(40) % 3, 3)])
def test_what_get_preds_returns_can_be_passed_on(targets):
    """A Learner's get_preds returns predictions and targets, in this order."""
    from_probs = SigmoidPreds.from_probs(*(MANY.sigmoid(), targets))
    with pytest.warns(UserWarning, match="look like probabilities"):
        SigmoidPreds(*(MANY.sigmoid(), targets))
    from_logits = SigmoidPreds(*(MANY, targets))
    assert from_probs.vocab == from_logits.vocab == ["0", "1", "2"]
    torch.testing.assert_close(from_probs.targs, one_hot(torch.arange(40) % 3, 3))
    assert torch.equal(from_probs.exact, from_logits.exact)
    assert SigmoidPreds(*(MANY, None)).targs is None


def learner(loss_func, targets):
    from fastai.vision.all import DataLoader, DataLoaders, Learner, nn, set_seed

    set_seed(0)
    x = torch.randn(48, 6)
    dl = DataLoader(list(zip(x, targets, strict=True)), bs=16)
    model = nn.Linear(6, targets.max() + 1 if targets.ndim == 1 else targets.shape[1])
    torch.nn.init.normal_(model.weight, std=2)
    return Learner(DataLoaders(dl, dl, device="cpu"), model, loss_func=loss_func)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("n_classes", [2, 3, 12])
def test_what_a_learner_predicts(loss, n_classes):
    from fastai.vision.all import BCEWithLogitsLossFlat, CrossEntropyLossFlat, noop

    labels = torch.arange(48) % n_classes
    if loss == "softmax":
        learn = learner(CrossEntropyLossFlat(), labels)
    else:
        learn = learner(BCEWithLogitsLossFlat(), one_hot(labels, n_classes))
    with learn.no_bar():
        with pytest.warns(UserWarning, match="look like probabilities"):
            SigmoidPreds(*learn.get_preds())
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="expected logits")
            SigmoidPreds(*learn.get_preds(act=noop))
            SigmoidPreds.from_probs(*learn.get_preds())
