"""Mismatches with what the loss should compute after the first fix, computed by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from fastai.losses import (
    BCELossFlat,
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    MSELossFlat,
)
from fastai.metrics import accuracy, accuracy_multi, error_rate
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from .by_hand import linear, reduced, sigmoid_loss, softmax_loss, squared_error

torch.manual_seed(0)
LOGITS = torch.randn(4, 3)
LABELS = torch.tensor([0, 2, 1, 1])
ONE_HOT = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0]])
SEVERAL = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
COLUMN = torch.randn(4, 1)
YES = torch.tensor([1.0, 0, 0, 1])
WEIGHT = torch.tensor([0.5, 2.0, 3.0])
ONE_WEIGHT = torch.tensor([2.5])
MAPS = torch.randn(2, 3, 4, 5)
MASKS = torch.randint(0, 3, (2, 4, 5))
ONE_MAP = torch.randn(2, 1, 4, 5)
YES_MASK = torch.randint(0, 2, (2, 1, 4, 5)).float()
STEPS = torch.randn(2, 5, 3)
WORDS = torch.randint(0, 3, (2, 5))

ONE_HOT_MASKS = torch.stack([MASKS == c for c in range(3)], 1)
HITS = [logits.argmax() == label for logits, label in zip(LOGITS, LABELS, strict=True)]
N_HITS = torch.stack(HITS).sum()


def only(forms, *names):
    return {name: forms[name] for name in names}


def all_but(forms, *names):
    return {name: form for name, form in forms.items() if name not in names}


def mean_squared(pred, targ):
    return (pred - targ).square().mean()


# Forms of each loss: the loss, and its settings for the computation by hand.
SIGMOID = {
    "module": (nn.BCEWithLogitsLoss(), {}),
    "function": (F.binary_cross_entropy_with_logits, {}),
    "sum": (nn.BCEWithLogitsLoss(reduction="sum"), {"reduction": "sum"}),
    "weight": (nn.BCEWithLogitsLoss(weight=WEIGHT), {"weight": WEIGHT}),
    "pos_weight": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), {"pos_weight": WEIGHT}),
    "partial": (
        partial(F.binary_cross_entropy_with_logits, pos_weight=WEIGHT),
        {"pos_weight": WEIGHT},
    ),
    "flat": (BCEWithLogitsLossFlat(), {}),
    "flat pos_weight": (BCEWithLogitsLossFlat(pos_weight=WEIGHT), {"pos_weight": WEIGHT}),
}
ONE_LOGIT = {
    "module": (nn.BCEWithLogitsLoss(), {}),
    "function": (F.binary_cross_entropy_with_logits, {}),
    "pos_weight": (nn.BCEWithLogitsLoss(pos_weight=ONE_WEIGHT), {"pos_weight": ONE_WEIGHT}),
    "partial": (partial(F.binary_cross_entropy_with_logits, reduction="sum"), {"reduction": "sum"}),
}
PROBS = {
    "module": (nn.BCELoss(), {}),
    "function": (F.binary_cross_entropy, {}),
    "partial": (partial(F.binary_cross_entropy, reduction="sum"), {"reduction": "sum"}),
    "weight": (nn.BCELoss(weight=WEIGHT), {"weight": WEIGHT}),
    "flat": (BCELossFlat(), {}),
}
SOFTMAX = {
    "module": (nn.CrossEntropyLoss(), {}),
    "function": (F.cross_entropy, {}),
    "weight": (nn.CrossEntropyLoss(weight=WEIGHT), {"weight": WEIGHT}),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), {"reduction": "sum"}),
    "ignore_index": (nn.CrossEntropyLoss(ignore_index=2), {"ignore_index": 2}),
    "partial": (
        partial(F.cross_entropy, weight=WEIGHT, ignore_index=1),
        {"weight": WEIGHT, "ignore_index": 1},
    ),
    "partial module": (partial(nn.CrossEntropyLoss(weight=WEIGHT)), {"weight": WEIGHT}),
    "flat": (CrossEntropyLossFlat(), {}),
    "flat weight": (CrossEntropyLossFlat(weight=WEIGHT), {"weight": WEIGHT}),
}
PLAIN = all_but(SOFTMAX, "flat", "flat weight")
PLAIN_SIGMOID = all_but(SIGMOID, "flat", "flat pos_weight")
NLL = {
    "module": (nn.NLLLoss(), {}),
    "function": (F.nll_loss, {}),
    "weight": (nn.NLLLoss(weight=WEIGHT, ignore_index=2), {"weight": WEIGHT, "ignore_index": 2}),
    "partial": (
        partial(F.nll_loss, weight=WEIGHT, reduction="sum"),
        {"weight": WEIGHT, "reduction": "sum"},
    ),
}
DISTANCE = {
    "module": (nn.MSELoss(), {}),
    "function": (F.mse_loss, {}),
    "partial": (partial(F.mse_loss), {}),
}


@dataclass(frozen=True)
class FixCase:
    """A mismatch, and what the loss should compute once the first fix has run."""

    cause: str
    name: str
    loss: Callable
    pred: object  # None: the model computes it
    targ: Tensor
    right: object  # a number, or a function of the model that returns it
    model: nn.Module | None

    @property
    def inputs(self):
        """What the model is given."""
        return MANY_INPUTS if self.targ.numel() == 3 * len(MANY_INPUTS) else INPUTS


FIX_CASES = []


def add(cause, forms, pred, targ, right, model=None, name=""):
    """Add a case for each form of the loss; `right` may depend on the settings of the form."""
    for form, (loss, settings) in forms.items():
        value = partial(right, **settings) if callable(right) else right
        FIX_CASES.append(FixCase(cause, f"{name} {form}".strip(), loss, pred, targ, value, model))


add("class-indices-for-bce", SIGMOID, LOGITS, LABELS, partial(sigmoid_loss, LOGITS, ONE_HOT))
add(
    "class-indices-for-bce",
    PROBS,
    LOGITS.sigmoid(),
    LABELS,
    partial(sigmoid_loss, LOGITS, ONE_HOT),
    name="on probabilities",
)
add(
    "class-indices-for-bce",
    only(SIGMOID, "flat", "module"),
    MAPS,
    MASKS[:, None],
    sigmoid_loss(MAPS, ONE_HOT_MASKS),
    name="a mask",
)
add(
    "class-indices-for-bce",
    {"flat": (MSELossFlat(), {}), "module": DISTANCE["module"]},
    LOGITS,
    LABELS,
    squared_error(LOGITS, ONE_HOT),
    name="a distance",
)
SAME_LABELS = partial(softmax_loss, LOGITS, LABELS)
WHOLE = ONE_HOT.long()
FLATTENED = WHOLE.view(-1)
add("one-hot-for-softmax", PLAIN, LOGITS, WHOLE, SAME_LABELS, name="whole")
add("one-hot-for-softmax", PLAIN, LOGITS, ONE_HOT.bool(), SAME_LABELS, name="booleans")
add("one-hot-for-softmax", PLAIN, LOGITS, ONE_HOT[:, None], SAME_LABELS, name="an axis more")
add(
    "one-hot-for-softmax", only(SOFTMAX, "module"), LOGITS, FLATTENED, SAME_LABELS, name="flattened"
)
add(
    "one-hot-for-softmax",
    only(SOFTMAX, "flat", "flat weight"),
    LOGITS,
    ONE_HOT,
    SAME_LABELS,
    name="floats",
)
add(
    "one-hot-for-softmax",
    NLL,
    LOGITS.log_softmax(1),
    ONE_HOT,
    SAME_LABELS,
    name="log-probabilities",
)
add(
    "multi-hot-for-softmax",
    {
        "module": SOFTMAX["module"],
        "function": SOFTMAX["function"],
        "flat": SOFTMAX["flat"],
        "weight": (nn.CrossEntropyLoss(weight=WEIGHT), {}),
    },
    LOGITS,
    SEVERAL,
    sigmoid_loss(LOGITS, SEVERAL),
)
add(
    "multi-hot-for-softmax",
    only(SOFTMAX, "sum"),
    LOGITS,
    SEVERAL,
    partial(sigmoid_loss, LOGITS, SEVERAL),
    name="floats",
)
add(
    "multi-hot-for-softmax",
    only(SOFTMAX, "module", "flat"),
    LOGITS,
    SEVERAL.long(),
    sigmoid_loss(LOGITS, SEVERAL),
    name="whole numbers",
)
add(
    "single-logit-softmax",
    only(SOFTMAX, "module", "function", "flat"),
    COLUMN,
    YES.long(),
    sigmoid_loss(COLUMN, YES[:, None]),
)
add(
    "single-logit-softmax",
    only(SOFTMAX, "module"),
    ONE_MAP,
    YES_MASK[:, 0].long(),
    sigmoid_loss(ONE_MAP, YES_MASK),
    name="a mask",
)
add("trailing-axis", ONE_LOGIT, COLUMN, YES, partial(sigmoid_loss, COLUMN, YES[:, None]))
add(
    "trailing-axis",
    ONE_LOGIT,
    COLUMN,
    YES.long(),
    partial(sigmoid_loss, COLUMN, YES[:, None]),
    name="whole numbers",
)
add(
    "trailing-axis",
    only(PROBS, "module", "function", "partial"),
    COLUMN.sigmoid(),
    YES,
    partial(sigmoid_loss, COLUMN, YES[:, None]),
    name="on probabilities",
)
add(
    "trailing-axis",
    only(ONE_LOGIT, "module"),
    ONE_MAP,
    YES_MASK[:, 0] * 255,
    sigmoid_loss(ONE_MAP, YES_MASK),
    name="a mask of 0 and 255",
)
add(
    "trailing-axis",
    only(SOFTMAX, "module", "weight"),
    LOGITS[:, :, None, None],
    LABELS,
    SAME_LABELS,
    name="pooled",
)
add("extra-target-axis", PLAIN, MAPS, MASKS[:, None], partial(softmax_loss, MAPS, MASKS))
add(
    "extra-target-axis",
    PLAIN,
    MAPS,
    MASKS[:, None].float(),
    partial(softmax_loss, MAPS, MASKS),
    name="floats",
)
add(
    "extra-target-axis",
    PLAIN,
    LOGITS,
    LABELS[:, None],
    SAME_LABELS,
    name="a column",
)
add(
    "extra-target-axis",
    only(DISTANCE, "module"),
    MAPS.flatten(1),
    MAPS * 2,
    squared_error(MAPS, MAPS * 2),
    name="an image",
)
add(
    "extra-target-axis",
    only(SIGMOID, "module"),
    LOGITS,
    torch.stack([SEVERAL, ONE_HOT], 1),
    (sigmoid_loss(LOGITS, SEVERAL) + sigmoid_loss(LOGITS, ONE_HOT)) / 2,
    name="two opinions",
)
add(
    "mask-channels",
    only(SIGMOID, "module", "function", "flat", "sum"),
    ONE_MAP,
    YES_MASK.expand(2, 3, 4, 5) * 255,
    partial(sigmoid_loss, ONE_MAP, YES_MASK),
)
add(
    "mask-channels",
    only(PLAIN, "module", "weight", "partial"),
    MAPS,
    MASKS[:, None].expand(2, 3, 4, 5),
    partial(softmax_loss, MAPS, MASKS),
    name="grey",
)
add(
    "mask-channels",
    only(SOFTMAX, "module"),
    MAPS,
    torch.tensor([[0, 0, 0], [0, 128, 0], [255, 0, 0]])[MASKS],
    softmax_loss(MAPS, MASKS),
    name="colors",
)
add(
    "mask-channels",
    only(SIGMOID, "module", "function", "sum"),
    MAPS,
    torch.tensor([[0, 0, 0], [0, 128, 0], [255, 0, 0]])[MASKS],
    partial(sigmoid_loss, MAPS, ONE_HOT_MASKS),
    name="colors for a sigmoid",
)
add("folded-classes", SOFTMAX, LOGITS.reshape(-1, 1), LABELS, SAME_LABELS)
add(
    "folded-classes",
    PLAIN_SIGMOID,
    LOGITS.reshape(-1, 1),
    SEVERAL,
    partial(sigmoid_loss, LOGITS, SEVERAL),
    name="a sigmoid",
)
add("class-axis", PLAIN, STEPS, WORDS, partial(softmax_loss, STEPS, WORDS, axis=2))
add(
    "class-axis",
    only(SOFTMAX, "module", "function", "sum"),
    MAPS.movedim(1, 2),
    MASKS,
    partial(softmax_loss, MAPS, MASKS),
    name="axis 2",
)
add(
    "class-axis",
    only(SOFTMAX, "flat", "flat weight"),
    MAPS,
    MASKS,
    partial(softmax_loss, MAPS, MASKS),
)
add(
    "class-axis",
    only(SIGMOID, "module", "function"),
    MAPS,
    (MASKS[..., None] == torch.arange(3)).float(),
    sigmoid_loss(MAPS, ONE_HOT_MASKS),
    name="a sigmoid",
)
add(
    "rows",
    SIGMOID,
    torch.cat([LOGITS, LOGITS[:3]]),
    SEVERAL,
    partial(sigmoid_loss, LOGITS, SEVERAL),
)
add("rows", SOFTMAX, torch.cat([LOGITS, LOGITS[:3]]), LABELS, SAME_LABELS)
add(
    "rows",
    only(SOFTMAX, "module"),
    STEPS.flatten(0, 1),
    WORDS,
    softmax_loss(STEPS, WORDS, axis=2),
    name="words",
)
add("squeezed-batch", PLAIN, LOGITS[:1], LABELS[0], partial(softmax_loss, LOGITS[:1], LABELS[:1]))
add(
    "squeezed-batch",
    PLAIN_SIGMOID,
    LOGITS[1],
    SEVERAL[1:2],
    partial(sigmoid_loss, LOGITS[1:2], SEVERAL[1:2]),
    name="a sigmoid",
)
add(
    "squeezed-batch",
    only(ONE_LOGIT, "module"),
    ONE_MAP[0, 0],
    YES_MASK[:1],
    sigmoid_loss(ONE_MAP[:1], YES_MASK[:1]),
    name="a map",
)
add(
    "label-out-of-range",
    SOFTMAX,
    torch.cat([LOGITS, LOGITS]),
    torch.tensor([1, 3, 2, 2, 1, 3, 1, 1]),
    partial(softmax_loss, torch.cat([LOGITS, LOGITS]), torch.tensor([0, 2, 1, 1, 0, 2, 0, 0])),
    name="from 1",
)
add(
    "label-out-of-range",
    all_but(SOFTMAX, "ignore_index", "partial"),
    LOGITS,
    torch.tensor([0, -1, 1, 2]),
    partial(softmax_loss, LOGITS, torch.tensor([0, -100, 1, 2])),
    name="-1",
)
add(
    "label-out-of-range",
    all_but(PLAIN, "ignore_index", "partial"),
    MAPS,
    torch.where(MASKS == 1, 255, MASKS).to(torch.uint8),
    partial(softmax_loss, MAPS, torch.where(MASKS == 1, -100, MASKS)),
    name="255",
)
add(
    "label-out-of-range",
    only(SOFTMAX, "module", "function"),
    MAPS[:, :2],
    YES_MASK[:, 0].long() * 255,
    softmax_loss(MAPS[:, :2], YES_MASK[:, 0]),
    name="a mask of 0 and 255",
)
add(
    "label-out-of-range",
    only(SOFTMAX, "module", "flat"),
    LOGITS[:, :2],
    YES.long() * 2 - 1,
    softmax_loss(LOGITS[:, :2], YES),
    name="-1 and 1",
)
add("target-dtype", PLAIN_SIGMOID, LOGITS, SEVERAL.long(), partial(sigmoid_loss, LOGITS, SEVERAL))
add(
    "target-dtype",
    only(PROBS, "module", "function", "weight", "partial"),
    LOGITS.sigmoid(),
    SEVERAL.double(),
    partial(sigmoid_loss, LOGITS, SEVERAL),
    name="doubles",
)
add("target-dtype", PLAIN, LOGITS, LABELS.int(), SAME_LABELS, name="int32")
add(
    "target-dtype",
    SOFTMAX,
    LOGITS,
    LABELS.float(),
    SAME_LABELS,
    name="floats",
)
add(
    "target-dtype",
    NLL,
    LOGITS.log_softmax(1),
    LABELS.float(),
    SAME_LABELS,
    name="log-probabilities",
)
add(
    "target-dtype",
    DISTANCE,
    LOGITS,
    LOGITS.double() * 2,
    squared_error(LOGITS, LOGITS * 2),
    name="a distance",
)
add(
    "target-range",
    SIGMOID,
    LOGITS,
    SEVERAL * 2 - 1,
    partial(sigmoid_loss, LOGITS, SEVERAL),
    name="-1 and 1",
)
add(
    "target-range",
    PROBS,
    LOGITS.sigmoid(),
    SEVERAL * 255,
    partial(sigmoid_loss, LOGITS, SEVERAL),
    name="0 and 255",
)
add(
    "target-range",
    only(SIGMOID, "module"),
    SEVERAL,
    LOGITS * 3,
    sigmoid_loss(LOGITS * 3, SEVERAL),
    name="changed places",
)
UNKNOWN = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]]).bool()
WITHOUT_UNKNOWN = partial(sigmoid_loss, LOGITS[~UNKNOWN], SEVERAL[~UNKNOWN])
for mark in (-1.0, -100.0, 255.0):
    add(
        "target-range",
        only(SIGMOID, "module", "function", "sum", "flat"),
        LOGITS,
        torch.where(UNKNOWN, mark, SEVERAL),
        WITHOUT_UNKNOWN,
        name=f"{mark:g} for what is unknown",
    )
LISTS = torch.tensor([[0, 1, -1], [2, -1, -1], [1, -1, -1], [-1, -1, -1]])
LISTED = torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]])
LISTS_AS_ROWS = partial(sigmoid_loss, LOGITS, LISTED)
add("target-range", SIGMOID, LOGITS, LISTS, LISTS_AS_ROWS, name="padded lists")
add("class-indices-for-bce", SIGMOID, LOGITS, LISTS[:, :2], LISTS_AS_ROWS, name="padded lists")
LONGER = F.pad(LISTS, (0, 2), value=-1).float()
add("class-indices-for-bce", SIGMOID, LOGITS, LONGER, LISTS_AS_ROWS, name="long padded lists")

AS_ROWS = partial(sigmoid_loss, LOGITS, ONE_HOT)
FROM_1 = LABELS + 1
add("label-out-of-range", SIGMOID, LOGITS, FROM_1, AS_ROWS, name="rows from 1")
add("label-out-of-range", SIGMOID, LOGITS, FROM_1[:, None].float(), AS_ROWS, name="a column from 1")
add(
    "label-out-of-range",
    PROBS,
    LOGITS.sigmoid(),
    FROM_1.int(),
    AS_ROWS,
    name="probabilities from 1",
)
add(
    "label-out-of-range",
    only(SIGMOID, "module", "function", "flat"),
    MAPS,
    MASKS[:, None] + 1,
    sigmoid_loss(MAPS, ONE_HOT_MASKS),
    name="a mask from 1",
)
NO_CLASS = torch.tensor([[0.0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]])
ROWS_OF_ZEROS = partial(sigmoid_loss, LOGITS, NO_CLASS)
for background, labels in {"0": [3, 0, 1, 2], "-1": [2, -1, 0, 1]}.items():
    add(
        "label-out-of-range",
        SIGMOID,
        LOGITS,
        torch.tensor(labels),
        ROWS_OF_ZEROS,
        name=f"{background} for the background",
    )
for mark in (-100, 255):
    add(
        "label-out-of-range",
        SIGMOID,
        LOGITS,
        torch.tensor([2, mark, 0, 1]),
        partial(sigmoid_loss, LOGITS[[0, 2, 3]], NO_CLASS[[0, 2, 3]]),
        name=f"rows, {mark} left out",
    )
add(
    "class-indices-for-soft-targets",
    {
        "timm": (SoftTargetCrossEntropy(), {}),
        "divergence": (nn.KLDivLoss(reduction="batchmean"), {}),
    },
    LOGITS.log_softmax(1),
    LABELS,
    softmax_loss(LOGITS, LABELS),
)
add(
    "class-indices-for-soft-targets",
    {"logarithms": (nn.KLDivLoss(log_target=True), {}), "timm": (SoftTargetCrossEntropy(), {})},
    LOGITS.log_softmax(1),
    LABELS[:, None],
    softmax_loss(LOGITS, LABELS),
    name="a column",
)
NAN = float("nan")
add(
    "target-not-finite",
    all_but(SIGMOID, "weight"),
    LOGITS,
    torch.where(UNKNOWN, NAN, SEVERAL),
    lambda weight=None, reduction="mean", pos_weight=1.0: reduced(
        sigmoid_loss(LOGITS, SEVERAL, pos_weight=pos_weight, reduction="none")[~UNKNOWN], reduction
    ),
)
add(
    "target-not-finite",
    DISTANCE,
    LOGITS,
    torch.where(UNKNOWN, float("inf"), LOGITS * 2),
    squared_error(LOGITS[~UNKNOWN], LOGITS[~UNKNOWN] * 2),
    name="a distance",
)
add(
    "target-not-finite",
    SOFTMAX,
    LOGITS,
    torch.tensor([0, NAN, 2, 1]),
    lambda **settings: softmax_loss(LOGITS[[0, 2, 3]], torch.tensor([0, 2, 1]), **settings),
    name="labels",
)
add(
    "prediction-not-finite",
    SIGMOID,
    torch.where(UNKNOWN[:, 2:], NAN, LOGITS),
    SEVERAL,
    lambda **settings: sigmoid_loss(LOGITS[:3], SEVERAL[:3], **settings),
)
add(
    "loss-not-finite",
    {"weights": (nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1, 1])), {})},
    LOGITS,
    torch.zeros(4).long(),
    torch.tensor(0.0),
)
add("missing-activation", PROBS, LOGITS, SEVERAL, partial(sigmoid_loss, LOGITS, SEVERAL))
add(
    "missing-activation",
    NLL,
    LOGITS,
    LABELS,
    SAME_LABELS,
    name="log-softmax",
)
add(
    "missing-activation",
    NLL,
    LOGITS.softmax(1),
    LABELS,
    SAME_LABELS,
    name="logarithm",
)
add("silent-broadcast", DISTANCE, COLUMN, YES * 3, squared_error(COLUMN, YES[:, None] * 3))
add(
    "silent-broadcast",
    {"own": (mean_squared, {})},
    COLUMN,
    COLUMN[:, 0] * 2,
    squared_error(COLUMN, COLUMN * 2),
)
add(
    "silent-broadcast",
    only(DISTANCE, "module"),
    ONE_MAP,
    ONE_MAP[:, 0] + 1,
    squared_error(ONE_MAP, ONE_MAP + 1),
    name="maps",
)
add(
    "same-count-flattened",
    {
        "flat": (BCEWithLogitsLossFlat(), {}),
        "sum": (BCEWithLogitsLossFlat(reduction="sum"), {"reduction": "sum"}),
    },
    LOGITS,
    SEVERAL.T,
    partial(sigmoid_loss, LOGITS, SEVERAL),
)
add(
    "same-count-flattened",
    {"flat": (MSELossFlat(), {})},
    LOGITS,
    (LOGITS + 1).T,
    squared_error(LOGITS, LOGITS + 1),
    name="a distance",
)
add(
    "same-count-flattened",
    {"flat": (CrossEntropyLossFlat(axis=1), {})},
    MAPS,
    MASKS.movedim(1, 2),
    softmax_loss(MAPS, MASKS),
    name="maps",
)
BALANCED = torch.tensor([4 / 3, 2 / 3, 4 / 3])  # of four labels: a 0, two 1, a 2
TWO_WEIGHTS = torch.tensor([1.0, 2.0])
for form, loss in {
    "module": nn.CrossEntropyLoss(weight=TWO_WEIGHTS),
    "function": partial(F.cross_entropy, weight=TWO_WEIGHTS),
    "flat": CrossEntropyLossFlat(weight=TWO_WEIGHTS),
    "partial module": partial(nn.CrossEntropyLoss(weight=TWO_WEIGHTS)),
}.items():
    add(
        "class-weight-length",
        {form: (loss, {})},
        LOGITS,
        LABELS,
        softmax_loss(LOGITS, LABELS, BALANCED),
    )
add(
    "class-weight-length",
    {
        "module": (nn.CrossEntropyLoss(weight=TWO_WEIGHTS, reduction="sum", ignore_index=0), {}),
        "log-probabilities": (nn.NLLLoss(weight=TWO_WEIGHTS, reduction="sum", ignore_index=0), {}),
    },
    LOGITS.log_softmax(1),
    LABELS,
    softmax_loss(LOGITS, LABELS, BALANCED, 0, "sum"),
    name="sum",
)
for form, loss in {
    "module": nn.BCEWithLogitsLoss(pos_weight=TWO_WEIGHTS),
    "function": partial(F.binary_cross_entropy_with_logits, pos_weight=TWO_WEIGHTS),
    "flat": BCEWithLogitsLossFlat(pos_weight=TWO_WEIGHTS),
    "flat weight": BCEWithLogitsLossFlat(weight=WEIGHT),
}.items():
    add(
        "class-weight-length",
        {form: (loss, {})},
        LOGITS,
        SEVERAL,
        sigmoid_loss(LOGITS, SEVERAL, pos_weight=torch.tensor([1.0, 1 / 3, 1.0])),
        name="pos_weight",
    )
add(
    "class-weight-length",
    {"probabilities": (nn.BCELoss(weight=TWO_WEIGHTS), {})},
    LOGITS.sigmoid(),
    SEVERAL,
    sigmoid_loss(LOGITS, SEVERAL),
    name="weight",
)
add(
    "class-weight-dtype",
    {
        "module": (nn.CrossEntropyLoss(weight=WEIGHT.double()), {}),
        "partial": (partial(F.cross_entropy, weight=WEIGHT.double()), {}),
        "flat": (CrossEntropyLossFlat(weight=WEIGHT.double()), {}),
    },
    LOGITS,
    LABELS,
    softmax_loss(LOGITS, LABELS, WEIGHT),
)
add(
    "empty-target",
    SIGMOID,
    LOGITS,
    torch.zeros(0, 3),
    partial(sigmoid_loss, LOGITS, torch.zeros(4, 3)),
)
add(
    "empty-target",
    only(SOFTMAX, "module", "function"),
    LOGITS,
    torch.zeros(0).long(),
    torch.tensor(0.0),
    name="a softmax",
)
add(
    "empty-target",
    only(SOFTMAX, "module", "function"),
    LOGITS,
    torch.full((4,), -100),
    torch.tensor(0.0),
    name="all ignored",
)
add("metric-mismatch", {"accuracy": (accuracy, {})}, LOGITS, ONE_HOT, N_HITS / 4)
add("metric-mismatch", {"error_rate": (error_rate, {})}, LOGITS, ONE_HOT, (4 - N_HITS) / 4)
add(
    "metric-mismatch",
    {"accuracy": (accuracy, {})},
    LOGITS,
    SEVERAL,
    ((LOGITS > 0) == SEVERAL.bool()).double().mean(),
    name="several",
)
add(
    "metric-mismatch",
    {"accuracy_multi": (accuracy_multi, {}), "partial": (partial(accuracy_multi, thresh=0.3), {})},
    LOGITS,
    LABELS,
    N_HITS / 4,
)
add(
    "metric-mismatch",
    {"accuracy": (accuracy, {})},
    COLUMN,
    YES.long(),
    ((COLUMN[:, 0] > 0) == YES.bool()).double().mean(),
    name="one output",
)
add(
    "prediction-dtype",
    only(SIGMOID, "module", "function"),
    SEVERAL.long(),
    LOGITS,
    sigmoid_loss(LOGITS, SEVERAL),
    name="changed places",
)
add(
    "prediction-dtype",
    SOFTMAX,
    LABELS,
    LOGITS,
    SAME_LABELS,
    name="changed places",
)
add("several-outputs", SOFTMAX, (LOGITS, LOGITS * 2), LABELS, SAME_LABELS)
add(
    "several-outputs",
    only(SOFTMAX, "module"),
    {"logits": LOGITS},
    LABELS,
    softmax_loss(LOGITS, LABELS),
    name="a dictionary",
)

# Here the fix changes the model: its prediction is computed anew, the right value from its weights.
INPUTS = torch.randn(4, 6)


def network(n_out, *last):
    return nn.Sequential(nn.Linear(6, n_out), *last)


def right_sigmoid(model, **settings):
    return sigmoid_loss(linear(model, INPUTS), SEVERAL, **settings)


for form in all_but(ONE_LOGIT, "pos_weight"):
    add("n-outputs", only(ONE_LOGIT, form), None, SEVERAL, right_sigmoid, network(5))
add(
    "n-outputs",
    {"flat": (BCEWithLogitsLossFlat(), {}), "margin": (nn.MultiLabelSoftMarginLoss(), {})},
    None,
    SEVERAL,
    right_sigmoid,
    network(5),
)
add(
    "n-outputs",
    only(PROBS, "module"),
    None,
    SEVERAL,
    right_sigmoid,
    network(5, nn.Sigmoid()),
    name="on probabilities",
)
add(
    "n-outputs",
    only(SOFTMAX, "module"),
    None,
    ONE_HOT,
    lambda model: softmax_loss(linear(model, INPUTS), LABELS),
    network(2),
    name="one-hot",
)
add(
    "n-outputs",
    DISTANCE,
    None,
    LOGITS,
    lambda model: squared_error(linear(model, INPUTS), LOGITS),
    network(5),
    name="quantities",
)
add(
    "label-out-of-range",
    only(SOFTMAX, "module", "function", "flat"),
    None,
    torch.tensor([0, 6, 1, 4]),
    lambda model: softmax_loss(linear(model, INPUTS), torch.tensor([0, 6, 1, 4])),
    network(3),
    name="too few",
)
add(
    "target-dtype",
    only(SOFTMAX, "module"),
    None,
    LOGITS[:, 0] * 7,
    lambda model: squared_error(linear(model, INPUTS), LOGITS[:, :1] * 7),
    network(2),
    name="quantities",
)
add(
    "class-indices-for-bce",
    only(SIGMOID, "module"),
    None,
    torch.tensor([0, 3, 1, 2]),
    lambda model: sigmoid_loss(linear(model, INPUTS), torch.eye(4)[[0, 3, 1, 2]]),
    network(1),
    name="one output",
)
add(
    "double-activation",
    only(SOFTMAX, "module", "function", "weight", "flat"),
    None,
    LABELS,
    lambda model, **settings: softmax_loss(linear(model, INPUTS), LABELS, **settings),
    network(3, nn.Softmax(1)),
)
MANY_INPUTS = torch.randn(64, 6)
add(
    "double-activation",
    only(SIGMOID, "module", "function", "pos_weight", "flat"),
    None,
    (MANY_INPUTS[:, :3] > 0).float(),
    lambda model, **settings: sigmoid_loss(
        linear(model, MANY_INPUTS), MANY_INPUTS[:, :3] > 0, **settings
    ),
    network(3, nn.Sigmoid()),
    name="a sigmoid",
)
with torch.no_grad():
    for model in {case.model for case in FIX_CASES} - {None}:
        model[0].weight.mul_(9)  # surer of itself than a fresh one
add(
    "prediction-dtype",
    only(SOFTMAX, "module"),
    LOGITS.argmax(1),
    LABELS,
    lambda model: softmax_loss(linear(model, INPUTS), LABELS),
    network(3),
    name="labels",
)
