"""Answers that are not known, NaN in the targets, are left out wherever targets are read."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.losses import BCEWithLogitsLossFlat
from fastai.vision.all import (
    Adam,
    ColReader,
    ColSplitter,
    DataBlock,
    ImageBlock,
    ImageDataLoaders,
    Learner,
    MultiCategoryBlock,
    PILImageBW,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from multilabel_mnist.ambiguity import confused_pairs, label_suspicion
from multilabel_mnist.calibrate import SigmoidCalibrator, tune_thresholds
from multilabel_mnist.convert import BCEOneHotLossFlat
from multilabel_mnist.explain import ExplainMismatch, MismatchError
from multilabel_mnist.inference import SigmoidPreds
from multilabel_mnist.labels import exact_match
from multilabel_mnist.losses import loss_kind
from multilabel_mnist.masked import MaskedBCEWithLogitsLoss
from multilabel_mnist.mismatch import diagnose
from multilabel_mnist.predict import sigmoid_preds

NAN = math.nan
STEADY = settings(deadline=None, derandomize=True, max_examples=100)


def draw(seed, n=40, n_classes=3, share_unknown=0.3):
    """Return logits, complete targets and the same targets with some unknown."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (n, n_classes)).astype("float32"))
    complete = torch.from_numpy((rng.random((n, n_classes)) < 0.4).astype("float32"))
    unknown = torch.from_numpy(rng.random((n, n_classes)) < share_unknown)
    return logits, complete, complete.masked_fill(unknown, NAN)


def by_hand(logits, targets, weight=None, pos_weight=None):
    """Add up the loss of each known answer in plain Python: the sum, and how many there are."""
    total, n = 0.0, 0
    for row, answers in zip(logits.tolist(), targets.tolist(), strict=True):
        for c, (z, t) in enumerate(zip(row, answers, strict=True)):
            if math.isnan(t):
                continue
            p = 1 / (1 + math.exp(-z))
            yes = 1 if pos_weight is None else pos_weight[c].item()
            one = -(yes * t * math.log(p) + (1 - t) * math.log(1 - p))
            total += one if weight is None else one * weight[c].item()
            n += 1
    return total, n


# The loss


@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.floats(0, 1))
@STEADY
def test_the_loss_is_the_mean_over_known_entries(seed, weighted, pos_weighted, share):
    logits, _, targets = draw(seed, n=6, share_unknown=share)
    weight = torch.tensor([0.5, 1.0, 2.0]) if weighted else None
    pos_weight = torch.tensor([3.0, 1.0, 0.2]) if pos_weighted else None
    options = dict(weight=weight, pos_weight=pos_weight)
    total, n = by_hand(logits, targets, **options)
    found = MaskedBCEWithLogitsLoss(**options)(logits, targets)
    assert found.shape == () and found.item() == pytest.approx(total / max(n, 1), rel=1e-4)
    summed = MaskedBCEWithLogitsLoss(reduction="sum", **options)(logits, targets)
    assert summed.item() == pytest.approx(total, rel=1e-4)
    each = MaskedBCEWithLogitsLoss(reduction="none", **options)(logits, targets)
    assert each.shape == logits.shape and (each[targets.isnan()] == 0).all()
    assert each.sum().item() == pytest.approx(total, rel=1e-4)


@given(st.integers(0, 10**6), st.sampled_from(["mean", "sum", "none"]))
@STEADY
def test_without_unknown_entries_it_is_the_loss_of_torch_and_fastai(seed, reduction):
    logits, targets, _ = draw(seed)
    pos_weight = torch.tensor([3.0, 1.0, 0.2])
    for options in ({}, {"pos_weight": pos_weight}, {"weight": pos_weight}):
        ours = MaskedBCEWithLogitsLoss(reduction=reduction, **options)(logits, targets)
        assert_close(ours, nn.BCEWithLogitsLoss(reduction=reduction, **options)(logits, targets))
        if reduction != "none":
            flat = BCEWithLogitsLossFlat(reduction=reduction, flatten=False, **options)
            assert_close(ours, torch.Tensor(flat(logits, targets)))


@pytest.mark.parametrize("share", [0.3, 1.0], ids=["some unknown", "all unknown"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("at_unknown", [0.0, 1e30, math.inf, -math.inf, NAN])
def test_the_gradient_at_unknown_entries_is_exactly_0(share, reduction, at_unknown):
    logits, _, targets = draw(0, share_unknown=share)
    unknown = targets.isnan()
    logits[unknown] = at_unknown
    logits.requires_grad_()
    loss = MaskedBCEWithLogitsLoss(reduction=reduction, pos_weight=torch.full((3,), 2.0))
    value = loss(logits, targets)
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()
    assert (logits.grad[unknown] == 0).all() and (logits.grad[~unknown] != 0).all()
    if share == 1:
        assert value == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_loss_in_other_dtypes(dtype):
    logits, _, targets = draw(0)
    expected = MaskedBCEWithLogitsLoss()(logits, targets)
    found = MaskedBCEWithLogitsLoss()(logits.to(dtype), targets)
    assert found.dtype == dtype
    assert_close(found.float(), expected, atol=2e-2, rtol=2e-2)
    assert MaskedBCEWithLogitsLoss()(logits, targets.nan_to_num(0).long()).isfinite()


@pytest.mark.parametrize("shape", [(40,), (40, 1), (1, 3), (40, 2)])
def test_targets_of_another_shape_are_an_error(shape):
    logits, *_ = draw(0)
    with pytest.raises(ValueError, match="^expected targets in the shape of the predictions, got"):
        MaskedBCEWithLogitsLoss()(logits, torch.zeros(shape))


def test_activation_and_decodes_are_those_of_fastai():
    logits, *_ = draw(0)
    ours, theirs = MaskedBCEWithLogitsLoss(thresh=0.3), BCEWithLogitsLossFlat(thresh=0.3)
    probs = ours.activation(logits)
    assert_close(probs, theirs.activation(logits))
    assert_close(ours.decodes(probs), theirs.decodes(probs))
    assert loss_kind(ours) == "sigmoid"


# What reads targets


@given(st.integers(0, 10**6), st.floats(0, 1))
@STEADY
def test_an_image_is_an_exact_match_if_all_known_answers_are_right(seed, share):
    logits, complete, targets = draw(seed, share_unknown=share)
    fires = logits.sigmoid() > 0.5
    right = [
        all(math.isnan(t) or f == (t == 1) for f, t in zip(*pair, strict=True))
        for pair in zip(fires.tolist(), targets.tolist(), strict=True)
    ]
    assert exact_match(logits, targets).item() == pytest.approx(np.mean(right))
    preds = SigmoidPreds(logits, targs=targets)
    assert preds.exact.tolist() == right
    assert exact_match(logits, complete) == (fires == complete.bool()).all(1).float().mean()


def f1(probs, targets, threshold):
    """The F1 score of the known answers, counted one by one."""
    hits = false_alarms = misses = 0
    for p, t in zip(probs.flatten().tolist(), targets.flatten().tolist(), strict=True):
        fires = p > threshold
        hits += fires and t == 1
        false_alarms += fires and t == 0
        misses += not fires and t == 1
    return 2 * hits / max(1, 2 * hits + false_alarms + misses)


def n_exact(probs, targets, threshold):
    return int((((probs > threshold) == (targets == 1)) | targets.isnan()).all(1).sum())


@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.6, 0.9]))
@settings(STEADY, max_examples=40)
def test_thresholds_are_the_best_for_what_is_known(seed, share):
    logits, _, targets = draw(seed, n=15, share_unknown=share)
    if targets.isnan().all():
        return
    probs = (logits.sigmoid() * 20).round() / 20
    tried = [i / 40 + 0.0125 for i in range(40)] + [1.0]
    best = max(f1(probs, targets, t) for t in tried)
    assert f1(probs, targets, tune_thresholds(probs, targets)) == pytest.approx(best)
    per_class = tune_thresholds(probs, targets, per_class=True, min_positives=1)
    for c in range(3):
        if (targets[:, c] == 1).any():
            best = max(f1(probs[:, c], targets[:, c], t) for t in tried)
            assert f1(probs[:, c], targets[:, c], per_class[c].item()) == pytest.approx(best)
    best = max(n_exact(probs, targets, t) for t in tried)
    shared = tune_thresholds(probs, targets, objective="exact")
    assert n_exact(probs, targets, shared) == best
    each = tune_thresholds(probs, targets, per_class=True, objective="exact", min_positives=1)
    assert n_exact(probs, targets, each) >= best


@pytest.mark.parametrize("objective", ["f1", "exact"])
@pytest.mark.parametrize("per_class", [False, True])
def test_thresholds_do_not_depend_on_unknown_answers(objective, per_class):
    for seed in range(10):
        logits, _, targets = draw(seed)
        probs = logits.sigmoid()
        options = dict(per_class=per_class, objective=objective, min_positives=3)
        found = tune_thresholds(probs, targets, **options)
        other = torch.where(targets.isnan(), torch.rand(probs.shape), probs)
        assert_close(tune_thresholds(other, targets, **options), found)


@pytest.mark.parametrize("trained_with", ["sigmoid", "softmax"])
def test_a_calibrator_is_fitted_to_what_is_known_of_each_class(trained_with):
    logits, _, targets = draw(0, n=200)
    targets[:, 2] = NAN
    found = SigmoidCalibrator(trained_with).fit(logits, targets)
    z = found._scaled_part(logits)
    for c in range(2):
        known = ~targets[:, c].isnan()
        alone = SigmoidCalibrator().fit(z[known][:, [c]], targets[known][:, [c]])
        assert_close(found.scale[c], alone.scale[0], rtol=1e-4, atol=1e-5)
        assert_close(found.bias[c], alone.bias[0], rtol=1e-4, atol=1e-5)
    assert_close([found.scale[2].item(), found.bias[2].item()], [1.0, 0.0])


def test_suspicion_and_confusion_leave_out_what_is_not_known():
    logits, complete, targets = draw(0)
    probs = logits.sigmoid()
    bits = label_suspicion(probs, targets)
    for i, row in enumerate(targets):
        known = ~row.isnan()
        expected = 0.0
        if known.any():
            expected = label_suspicion(probs[i, known][None], row[known][None]).item()
        assert bits[i].item() == pytest.approx(expected)
    pairs = confused_pairs(SigmoidPreds(logits, targs=targets))
    for a, b in itertools.combinations(range(3), 2):
        both = (targets[:, a] == 1) & (targets[:, b] == 1)
        expected = (probs[:, a] * probs[:, b])[~both].double().sum().item()
        assert pairs.iloc[a, b] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda logits, targets: tune_thresholds(logits.sigmoid(), targets),
        lambda logits, targets: SigmoidCalibrator().fit(logits, targets),
    ],
    ids=["tune_thresholds", "SigmoidCalibrator"],
)
def test_nothing_can_be_tuned_if_no_answer_is_known(call):
    logits, _, targets = draw(0)
    with pytest.raises(ValueError, match="^expected targets with known answers, got NaN in all"):
        call(logits, targets * NAN)


def test_a_loss_that_cannot_leave_them_out_says_which_one_can():
    logits, _, targets = draw(0)
    n = int(targets.isnan().sum())
    with pytest.raises(ValueError, match=f"got NaN in {n} of 120; .*MaskedBCEWithLogitsLoss"):
        BCEOneHotLossFlat()(logits, targets)


def test_predictions_say_what_is_not_known():
    logits = torch.tensor([[3.0, -1.0, 2.0], [-2.0, -2.0, -2.0]])
    targets = torch.tensor([[1.0, NAN, 1.0], [NAN, NAN, NAN]])
    preds = SigmoidPreds(logits, ["a", "$b$", "<c>"], targets, items=[np.zeros((4, 4))] * 2)
    assert repr(preds).endswith("2 exactly right, 4 answers not known")
    assert preds._truth(0) == "true: a, <c>\nnot known: $b$"
    assert preds._truth(1) == "true: none known\nnot known: a, $b$, <c>"
    assert preds[:1].exact.tolist() == [True]
    complete = SigmoidPreds(logits, ["a", "$b$", "<c>"], targets.nan_to_num(0))
    assert preds.to_frame().drop(columns="item").equals(complete.to_frame().drop(columns="item"))
    assert "not known" not in repr(complete) + complete._truth(0)
    many = SigmoidPreds(torch.zeros(1, 500), targs=torch.full((1, 500), NAN))
    assert many._truth(0) == "true: none known\nnot known: 500 classes"
    preds.show()


# From a table with empty cells


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder of images, and a table of them with a column per class and empty cells."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = ["file,cat & <dog>,owl,valid"]
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
        cells = [["", "0", "1"][k] for k in rng.integers(0, 3, 2)]
        rows.append(f"{i}.png,{cells[0]},{cells[1]},{i >= 16}")
    (folder / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


CLASSES = ["cat & <dog>", "owl"]


def loaders(folder, df):
    return ImageDataLoaders.from_df(
        df,
        folder,
        fn_col="file",
        label_col=CLASSES,
        y_block=MultiCategoryBlock(encoded=True, vocab=CLASSES),
        valid_col="valid",
        img_cls=PILImageBW,
        bs=8,
        num_workers=0,
    )


def test_empty_cells_are_nan_in_the_targets(table):
    df = pd.read_csv(table / "table.csv")
    expected = torch.from_numpy(df[CLASSES].to_numpy("float32"))
    assert expected.isnan().any() and not expected.isnan().all()
    block = DataBlock(
        blocks=(ImageBlock(PILImageBW), MultiCategoryBlock(encoded=True, vocab=CLASSES)),
        get_x=ColReader("file", pref=table),
        get_y=ColReader(CLASSES),
        splitter=ColSplitter("valid"),
    )
    nullable = df.astype(dict.fromkeys(CLASSES, "Int64"))
    nullable[CLASSES] = nullable[CLASSES].astype(float)
    for dls in (
        loaders(table, df),
        block.dataloaders(df, bs=8, num_workers=0),
        loaders(table, nullable),
    ):
        targets = torch.cat([torch.Tensor(y) for _, y in dls.valid])
        assert_close(targets, expected[16:], equal_nan=True)


def test_from_a_table_with_empty_cells_to_verdicts(table):
    dls = loaders(table, pd.read_csv(table / "table.csv"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    learn = Learner(dls, model, metrics=exact_match, opt_func=Adam)
    with learn.no_bar(), learn.no_logging(), pytest.raises(MismatchError) as raised:
        learn.fit(1, cbs=ExplainMismatch())
    diagnosis = raised.value.diagnosis
    assert diagnosis.cause == "target-not-finite"
    names = {"loss_func": dls.loss_func}
    exec(diagnosis.fixes[0], names)
    learn.loss_func = names["loss_func"]
    assert isinstance(learn.loss_func, MaskedBCEWithLogitsLoss)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 0.1, cbs=ExplainMismatch())
    assert all(p.isfinite().all() for p in model.parameters())
    preds = sigmoid_preds(learn)
    assert preds.vocab == CLASSES and preds.targs.isnan().any()
    with learn.no_bar():
        loss, exact = learn.validate()
        probs, targets, losses = learn.get_preds(with_loss=True)
    assert_close(probs, preds.probs)
    assert_close(torch.Tensor(targets), preds.targs, equal_nan=True)
    assert exact == pytest.approx(preds.exact.float().mean().item())
    total = losses.sum() * len(CLASSES)  # fastai returns the mean of each item
    assert_close(total / preds.targs.isfinite().sum(), torch.tensor(loss))


def test_a_plain_training_loop_learns_from_what_is_known():
    """With a weight per class and no bias, a class learns from its known answers alone."""
    x, complete, targets = draw(0, n=20)
    targets[:, 2] = NAN
    model = nn.Linear(3, 3)
    before = model.weight[2].detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for xb, yb in DataLoader(TensorDataset(x, targets), batch_size=5):
        optimizer.zero_grad()
        MaskedBCEWithLogitsLoss()(model(xb), yb).backward()
        optimizer.step()
    assert model.weight.isfinite().all()
    assert model.weight[2].equal(before) and not model.weight[0].equal(before)


# What diagnose offers

LOSSES = {
    "module": nn.BCEWithLogitsLoss(),
    "fastai": BCEWithLogitsLossFlat(),
    "threshold": BCEWithLogitsLossFlat(thresh=0.3),
    "labels or targets": BCEOneHotLossFlat(),
    "function": nn.functional.binary_cross_entropy_with_logits,
    "pos_weight": nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0, 1.0, 0.2])),
    "fastai, pos_weight": BCEWithLogitsLossFlat(pos_weight=torch.tensor([3.0, 1.0, 0.2])),
    "sum": nn.BCEWithLogitsLoss(reduction="sum"),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("share", [0.3, 1.0], ids=["some unknown", "all unknown"])
def test_diagnose_offers_the_loss_that_leaves_them_out(loss, share):
    logits, complete, targets = draw(0, share_unknown=share)
    diagnosis = diagnose(loss, logits, targets)
    assert diagnosis.cause == "target-not-finite"
    names = {"loss_func": loss, "torch": torch, "nn": nn}
    exec(diagnosis.fixes[0], names)
    found = names["loss_func"]
    assert isinstance(found, MaskedBCEWithLogitsLoss)
    assert_close(found(logits, complete), torch.Tensor(loss(logits, complete)))
    assert found.thresh == getattr(loss, "thresh", 0.5)
    assert diagnose(found, logits, targets).ok


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.BCELoss(), nn.MultiLabelSoftMarginLoss()])
def test_diagnose_does_not_offer_it_for_other_losses(loss):
    logits, _, targets = draw(0)
    diagnosis = diagnose(loss, logits.sigmoid(), targets)
    assert diagnosis.cause == "target-not-finite" and diagnosis.fixes
    assert not any("MaskedBCE" in fix for fix in diagnosis.fixes)


def test_diagnose_still_tells_infinite_targets():
    logits, complete, _ = draw(0)
    complete[0, 0] = math.inf
    for loss in (nn.BCEWithLogitsLoss(), MaskedBCEWithLogitsLoss()):
        diagnosis = diagnose(loss, logits, complete)
        assert diagnosis.cause == "target-not-finite"
        assert not any("MaskedBCE" in fix for fix in diagnosis.fixes)


def test_a_metric_that_leaves_them_out_is_right():
    logits, _, targets = draw(0)
    assert diagnose(exact_match, logits, targets).ok
