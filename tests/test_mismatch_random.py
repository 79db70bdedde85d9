"""`diagnose` on thousands of random pairs: right ones, none of which may be called wrong, and wrong ones of each kind."""
import random
from collections import Counter
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import (BCELossFlat, BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLoss, FocalLossFlat, L1LossFlat, LabelSmoothingCrossEntropy,
                           LabelSmoothingCrossEntropyFlat, MSELossFlat)
from fastai.metrics import accuracy, accuracy_multi, error_rate
from fastai.torch_core import TensorBase
from multilabel_mnist.mismatch import diagnose
from torch import nn


def flip(p=.5): return random.random() < p
def pick(*options): return random.choice(options)
def ints(n, *shape): return torch.randint(0, n, shape)
def bits(*shape): return ints(2, *shape).float()
def classes(): return pick(2, 3, 4, 5, 7, 10, 12, 21, 37, 100)
def batch(): return pick(1, 2, 3, 4, 8, 16, 31, 64)
def places(): return pick((), (), (), (), (pick(1, 5, 9, 12),), (pick(4, 8), pick(6, 8, 11)), (4, 5, 3))


def labels(n, *shape):
    "Class indices, none of them missing where there is room: what a real batch looks like."
    t = ints(n, *shape)
    if t.numel() >= n: t.view(-1)[:n] = torch.randperm(n)
    return t


def logits(*shape):
    "What a model returns: fresh, trained, sure of itself, or after a last ReLU."
    x = torch.randn(shape) * pick(.01, .1, .3, .5, 1, 1, 3, 8) + pick(0, 0, 0, .3, .5, -2)
    return x.relu() if flip(.05) else x


def soft(*shape):
    "Rows of probabilities along axis 1: smoothed, mixed up, a teacher's, or one-hot."
    C, rest = shape[1], (shape[0], *shape[2:])
    hot = F.one_hot(ints(C, *rest), C).movedim(-1, 1).float()
    lam, eps = random.random(), pick(.05, .1, .3)
    return pick(hot, hot*(1-eps) + eps/C, lam*hot + (1-lam)*hot.flip(0), (torch.randn(shape)*pick(.1, 1, 4)).softmax(1))


def disguise(loss, pred, targ):
    "The same pair in another form: type, memory layout, subclass, gradient, partial."
    if not isinstance(loss, partial) and flip(.2): loss = partial(loss)
    if pred.ndim > 1 and flip(.15): pred = pred.transpose(0, -1).contiguous().transpose(0, -1)
    if targ.ndim > 1 and flip(.15): targ = targ.repeat_interleave(2, 0)[::2]
    if flip(.2) and not isinstance(loss, partial): pred, targ = pred.as_subclass(TensorBase), targ.as_subclass(TensorBase)
    if flip(.3) and pred.is_floating_point(): pred = pred.detach().requires_grad_()
    return loss, pred, targ


def cast(dtype, *tensors): return [t.to(dtype) if t.is_floating_point() else t for t in tensors]


def right_softmax():
    N, C, P = batch(), classes(), places()
    pred, targ = logits(N, C, *P), labels(C, N, *P)
    kw = pick({}, {}, {'weight': torch.rand(C)+.1}, {'ignore_index': pick(-1, 255, -100, 0)}, {'label_smoothing': .1}, {'reduction': pick('none', 'sum')})
    form = pick('module', 'module', 'function', 'flat', 'focal', 'smoothing', 'soft', 'nll', 'unbatched')
    if form == 'soft': return nn.CrossEntropyLoss(**{k: v for k, v in kw.items() if k != 'ignore_index'}), pred, soft(*pred.shape)
    if form == 'flat':
        last = flip()
        kw = {k: v for k, v in kw.items() if k in ('weight', 'ignore_index')}
        if last: pred = pred.movedim(1, -1)
        loss = CrossEntropyLossFlat(axis=-1 if last or pred.ndim == 2 else 1, **kw)
    elif form == 'focal': return pick(FocalLoss(), FocalLossFlat(axis=1 if P else -1)), pred, targ
    elif form == 'smoothing': return pick(LabelSmoothingCrossEntropy(), LabelSmoothingCrossEntropyFlat(axis=1 if P else -1)), pred, targ
    elif form == 'nll': pred, loss = pred.log_softmax(1), pick(nn.NLLLoss, lambda **kw: partial(F.nll_loss, **kw))(**{k: v for k, v in kw.items() if k != 'label_smoothing'})
    elif form == 'unbatched': return nn.CrossEntropyLoss(), logits(C), ints(C, 1)[0]
    else: loss = nn.CrossEntropyLoss(**kw) if form == 'module' else partial(F.cross_entropy, **kw)
    if 'ignore_index' in kw and targ.numel() > 2 and kw['ignore_index']:
        targ = torch.where(torch.rand(targ.shape) < .2, kw['ignore_index'], targ)
        targ.view(-1)[0] = 0
    if kw.get('ignore_index') == 0: targ.view(-1)[0] = C-1
    return loss, pred, targ


def right_sigmoid():
    N, C, P = batch(), pick(1, 1, classes()), places()
    pred = logits(N, C, *P)
    targ = pick(bits(*pred.shape), bits(*pred.shape), torch.rand(pred.shape), bits(*pred.shape)*.8+.1, F.one_hot(ints(C, N, *P), C).movedim(-1, 1).float())
    if C == 1 and flip(): pred, targ = pred.squeeze(1), targ.squeeze(1)
    form = pick('module', 'weight', 'function', 'flat', 'flat', 'flat-int', 'flat-vector', 'margin', 'probs', 'probs-flat', 'none')
    if form == 'weight':
        w = torch.rand((C, *[1]*(pred.ndim-2)) if pred.ndim > 1 and pred.shape[1] == C else (1,)) + .5
        return pick(nn.BCEWithLogitsLoss(pos_weight=w), nn.BCEWithLogitsLoss(weight=w), partial(F.binary_cross_entropy_with_logits, pos_weight=w)), pred, targ
    if form == 'flat-int' or (form == 'flat' and flip(.2)): targ = targ.round().long()
    if form == 'flat-vector': return BCEWithLogitsLossFlat(), logits(N, 1), pick(bits(N), ints(2, N), bits(N, 1), bits(N).bool())
    if form.startswith('flat'): return BCEWithLogitsLossFlat(**pick({}, {}, {'pos_weight': torch.tensor(3.)})), pred, targ # a pos_weight keeps it from flattening
    if form == 'margin': return pick(nn.MultiLabelSoftMarginLoss(), F.multilabel_soft_margin_loss), logits(N, C), pick(bits(N, C), ints(2, N, C))
    if form == 'probs-flat': return BCELossFlat(), pred.sigmoid(), targ
    if form == 'probs': return pick(nn.BCELoss(), F.binary_cross_entropy, nn.BCELoss(reduction='sum')), pred.sigmoid(), targ
    return (F.binary_cross_entropy_with_logits if form == 'function' else nn.BCEWithLogitsLoss(reduction=pick('mean', 'none'))), pred, targ


def right_distance():
    shape = pick((batch(),), (batch(), 1), (batch(), classes()), (batch(), pick(1, 3), 8, 8), (batch(), 5, 4))
    pred = logits(*shape)
    targ = pick(pred.detach() + torch.randn(shape), torch.rand(shape), torch.randn(shape)*50, bits(*shape), ints(9, *shape).float())
    loss = pick(nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), F.mse_loss, F.l1_loss, F.smooth_l1_loss, MSELossFlat(), L1LossFlat(), nn.MSELoss(reduction='none'))
    if flip(.1) and loss is not F.l1_loss: targ = targ.round().long()
    if flip(.3) and type(loss).__name__ == 'BaseLoss': pred, targ = pick((logits(shape[0], 1), torch.randn(shape[0])), (logits(shape[0]), torch.randn(shape[0], 1)))
    return loss, pred, targ


def right_metric():
    N, C, P = batch(), classes(), places()
    if flip(): return accuracy_multi, logits(N, C, *P), pick(bits, partial(ints, 2))(N, C, *P)
    metric = pick(accuracy, error_rate)
    if P and flip(): return partial(metric, axis=1), logits(N, C, *P), ints(C, N, *P)
    return metric, logits(N, *P, C), pick(labels(C, N, *P), labels(C, N, *P)[..., None])


RIGHT = {f.__name__[6:]: f for f in (right_softmax, right_sigmoid, right_distance, right_metric)}


def right_pair(kind):
    loss, pred, targ = disguise(*RIGHT[kind]())
    if flip(.25):
        as_dtype = cast(pick(torch.float64, torch.float16, torch.bfloat16), pred, targ)
        if not held(loss) and torch_takes(loss, *as_dtype): pred, targ = as_dtype
    elif flip(.3) and not targ.is_floating_point():
        few = targ.to(pick(torch.int32, torch.int16, torch.uint8, torch.bool if int(targ.max()) < 2 else torch.int32))
        if int(targ.min()) >= 0 and int(targ.max()) < 127 and torch_takes(loss, pred, few): targ = few
    return loss, pred, targ


def held(loss):
    "Weights that a change of type would leave behind."
    while isinstance(loss, partial):
        if any(isinstance(v, torch.Tensor) for v in loss.keywords.values()): return True
        loss = loss.func
    inner = getattr(loss, 'func', loss)
    return any(getattr(inner, k, None) is not None for k in ('weight', 'pos_weight'))


def torch_takes(loss, pred, targ):
    try: return bool(torch.isfinite(loss(pred.detach(), targ)).all())
    except Exception: return False


def told(d, loss, pred, targ):
    return f'{d.cause} ({"certain" if d.certain else "probably"}) for {str(loss)[:60]}, {tuple(pred.shape)} {pred.dtype}, {tuple(targ.shape)} {targ.dtype}: {d.explanation}'


@pytest.mark.parametrize('kind', RIGHT)
def test_right_pairs_are_not_called_wrong(kind, n=1000):
    alarms = []
    for seed in range(n):
        random.seed(seed); torch.manual_seed(seed)
        loss, pred, targ = right_pair(kind)
        try: loss(pred, targ)
        except Exception as e: pytest.fail(f'torch refuses this pair: {e} {loss} {pred.shape} {targ.shape} {targ.dtype}')
        d = diagnose(loss, pred, targ)
        if not d.ok: alarms.append(f'{seed}: {told(d, loss, pred, targ)}')
    assert not alarms, f'{len(alarms)} of {n}\n' + '\n'.join(alarms[:12])


## wrong pairs: a function for each kind, named after its cause

WRONG = []


def wrong(cause, *also):
    "Enters a maker of wrong pairs; `also` are causes that say the same truly."
    def enter(make):
        WRONG.append((cause, also, make))
        return make
    return enter


def bce_like(probs=False):
    if probs: return pick(nn.BCELoss(), F.binary_cross_entropy, partial(F.binary_cross_entropy))
    return pick(nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits, BCEWithLogitsLossFlat(), partial(nn.BCEWithLogitsLoss()))


def plain_bce(): return pick(nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits, partial(F.binary_cross_entropy_with_logits, pos_weight=torch.tensor(2.)))
def ce_like(axis=-1): return pick(nn.CrossEntropyLoss(), F.cross_entropy, partial(F.cross_entropy, ignore_index=-100), CrossEntropyLossFlat(axis=axis))
def plain_ce(): return pick(nn.CrossEntropyLoss(), F.cross_entropy, partial(F.cross_entropy, label_smoothing=.1))
def distance(): return pick(nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), F.mse_loss, F.l1_loss, F.smooth_l1_loss, partial(F.mse_loss))
def many(): return pick(4, 7, 8, 16, 32, 64)
def other(n, *options): return pick(*(k for k in (options or range(2, 40)) if k != n))
def side(): return pick(4, 6, 8, 16)


@wrong('class-indices-for-bce')
def labels_for_bce():
    N, C = many(), pick(3, 4, 5, 10, 12, 37)
    form = pick('logits', 'logits', 'probs', 'margin', 'column', 'float', 'int32')
    t = labels(C, N)
    if form == 'margin': return pick(nn.MultiLabelSoftMarginLoss(), F.multilabel_soft_margin_loss), logits(N, C), labels(C, N+C)[:N]
    if form == 'probs': return bce_like(True), logits(N, C).sigmoid(), t
    return bce_like(), logits(N, C), t[:, None] if form == 'column' else t.float() if form == 'float' else t.int() if form == 'int32' else t


@wrong('class-indices-for-bce')
def two_classes_for_bce():
    N = many()
    return bce_like(), logits(N, 2), pick(ints(2, N), bits(N))


@wrong('class-indices-for-bce', 'mask-channels')
def mask_of_indices_for_bce():
    N, C, H, W = pick(1, 2, 4), pick(2, 3, 5, 12), side(), side()
    return bce_like(), logits(N, C, H, W), labels(C, N, H, W) if flip() else labels(C, N, 1, H, W)


@wrong('class-indices-for-bce')
def labels_for_distance():
    N, C = many(), pick(3, 5, 10)
    t = ints(C, N); t[0] = C-1
    while N == C: N = many(); t = ints(C, N); t[0] = C-1
    return pick(MSELossFlat(), nn.MSELoss(), nn.L1Loss()), logits(N, C), t


@wrong('one-hot-for-softmax', 'target-dtype')
def whole_one_hot_for_softmax():
    N, C, P = many(), pick(2, 3, 5, 10, 28), pick((), (), (side(), side()), (9,))
    t = F.one_hot(ints(C, N, *P), C).movedim(-1, 1)
    return pick(nn.CrossEntropyLoss(), F.cross_entropy, nn.NLLLoss() if not P else nn.CrossEntropyLoss()), logits(N, C, *P).log_softmax(1), pick(t, t.int(), t.bool())


@wrong('one-hot-for-softmax')
def one_hot_for_flat_or_nll():
    N, C = many(), pick(2, 3, 5, 10)
    t = F.one_hot(ints(C, N), C)
    if flip(.4): return nn.NLLLoss(), logits(N, C).log_softmax(1), t.float()
    return pick(CrossEntropyLossFlat(), LabelSmoothingCrossEntropyFlat(), FocalLossFlat()), logits(N, C), pick(t, t.float())


@wrong('one-hot-for-softmax')
def channels_last_one_hot_mask():
    N, C, H, W = pick(1, 2, 4), pick(3, 5, 9), pick(8, 16), pick(6, 10)
    return nn.CrossEntropyLoss(), logits(N, C, H, W), F.one_hot(ints(C, N, H, W), C).float() if flip() else F.one_hot(ints(C, N, H, W), C)


@wrong('multi-hot-for-softmax')
def several_for_softmax():
    N, C = many(), pick(3, 5, 10, 28)
    t = bits(N, C); t[0] = 0; t[0, :2] = 1; t[-1] = 0; t[-1, 1:3] = 1
    return plain_ce(), logits(N, C), t


@wrong('multi-hot-for-softmax', 'one-hot-for-softmax', 'target-dtype')
def whole_several_for_softmax():
    N, C = many(), pick(3, 5, 10, 28)
    t = ints(2, N, C); t[0] = 0; t[0, :2] = 1
    return ce_like(), logits(N, C), t


@wrong('n-outputs')
def other_columns():
    N, C = many(), pick(1, 2, 4, 6, 10, 12); K = other(C, 2, 3, 5, 8, 11, 21)
    loss = pick(nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits, BCEWithLogitsLossFlat(), nn.MultiLabelSoftMarginLoss())
    if isinstance(loss, nn.MultiLabelSoftMarginLoss) and C == 1: C = 4; K = other(4, 2, 3, 5, 8)
    return loss, logits(N, C), bits(N, K)


@wrong('n-outputs')
def other_columns_of_quantities():
    N, C = many(), pick(2, 4, 6, 10); K = other(C, 3, 5, 8, 11)
    return pick(nn.MSELoss(), nn.L1Loss(), F.smooth_l1_loss, MSELossFlat()), logits(N, C), torch.randn(N, K)


@wrong('n-outputs', 'one-hot-for-softmax')
def one_hot_of_more_classes():
    N, C = many(), pick(2, 5, 10); K = C + pick(1, 2, 3)
    return ce_like(), logits(N, C), F.one_hot(labels(K, max(N, K))[:N], K).float()


@wrong('trailing-axis')
def column_or_vector():
    N = many()
    loss, p, t = pick((plain_bce(), logits(N, 1), bits(N)), (plain_bce(), logits(N), bits(N, 1)), (nn.BCELoss(), logits(N, 1).sigmoid(), bits(N)), (nn.BCELoss(), torch.rand(N), bits(N, 1)))
    return loss, p, t if flip(.8) else t.long()


@wrong('trailing-axis')
def map_without_channel():
    N, H, W = pick(2, 4, 8), side(), side()
    return plain_bce(), *pick((logits(N, 1, H, W), bits(N, H, W)), (logits(N, H, W), bits(N, 1, H, W)), (logits(N, 1, H, W), bits(N, H, W, 1)))


@wrong('trailing-axis')
def pooled_but_not_flattened():
    N, C = many(), pick(3, 10)
    return plain_ce(), logits(N, C, 1, 1), labels(C, N)


@wrong('extra-target-axis')
def column_of_labels():
    N, C = many(), pick(3, 5, 10)
    return plain_ce(), logits(N, C), labels(C, N, 1)


@wrong('extra-target-axis')
def mask_with_channel():
    N, C, H, W = pick(1, 2, 4), pick(2, 3, 5, 21), side(), side()
    return plain_ce(), logits(N, C, H, W), pick(labels(C, N, 1, H, W), labels(C, N, H, W, 1), labels(C, N, 1, H, W).int(), labels(C, N, 1, H, W).float())


@wrong('extra-target-axis', 'rows', 'one-hot-for-softmax')
def several_labels_per_row():
    N, C = many(), pick(5, 6, 10)
    return plain_ce(), logits(N, C), labels(C, N, other(C, 2, 3, 4, 8, 11))


@wrong('mask-channels', 'n-outputs')
def colour_mask():
    N, H, W = pick(1, 2, 4), side(), side()
    K = pick(3, 3, 4)
    t = pick(bits(N, K, H, W), ints(256, N, K, H, W), torch.zeros(N, K, H, W), bits(N, 1, H, W).expand(N, K, H, W)*255, bits(N, H, W, K))
    return pick(plain_bce(), BCEWithLogitsLossFlat()), logits(N, 1, H, W), t


@wrong('mask-channels')
def colour_mask_for_softmax():
    N, C, H, W = pick(1, 2, 4), pick(2, 5, 12), side(), side()
    t = ints(C, N, 1, H, W).expand(N, 3, H, W) if flip() else ints(256, C, 3)[ints(C, N, H, W)].movedim(-1, 1)
    return pick(nn.CrossEntropyLoss(), F.cross_entropy), logits(N, C, H, W), pick(t, t.movedim(1, -1))


@wrong('class-axis')
def classes_last():
    N, T, C = pick(2, 4, 8), pick(5, 9, 20), pick(3, 7, 13, 50)
    return plain_ce(), logits(N, T, C), labels(C, N, T)


@wrong('class-axis')
def channels_last_map():
    N, C, H, W = pick(2, 4), pick(3, 5, 9), side(), pick(7, 10)
    return plain_ce(), logits(N, H, W, C), labels(C, N, H, W)


@wrong('class-axis')
def flat_reads_the_last_axis():
    N, C, H, W = pick(2, 4), pick(3, 5, 9), side(), pick(7, 10)
    return CrossEntropyLossFlat(), logits(N, C, H, W), labels(C, N, H, W)


@wrong('class-axis')
def other_order_for_bce():
    N, C, H, W = pick(2, 4), pick(3, 5), pick(8, 16), pick(7, 10)
    return plain_bce(), logits(N, C, H, W), bits(N, H, W, C)


@wrong('class-axis', 'rows')
def transposed():
    N, C = pick(8, 16, 64), pick(3, 5, 10)
    return plain_bce(), *pick((logits(C, N), bits(N, C)), (logits(N, C), bits(C, N)))


@wrong('class-axis')
def time_first():
    T, N, C = pick(5, 9), pick(2, 4, 8), pick(11, 13)
    return plain_ce(), logits(T, N, C), labels(C, N, T)


@wrong('rows')
def other_rows():
    N, C = many(), pick(3, 5, 10); K = pick(N+1, N-1, N*2, other(N, 5, 9, 12))
    return pick((ce_like(), logits(N, C), labels(C, K)), (bce_like(), logits(N, C), bits(K, C)), (MSELossFlat(), logits(N, C), torch.randn(K, C)), (nn.L1Loss(), logits(N, C), torch.randn(K, C)))


@wrong('rows')
def other_size_of_map():
    N, C, H, W = pick(1, 2, 4), pick(2, 3, 5), pick(8, 16), pick(8, 16)
    return pick((plain_ce(), logits(N, C, H, W), ints(C, N, H*2, W*2)), (plain_bce(), logits(N, 1, H, W), bits(N, 1, H*2, W*2)), (plain_bce(), logits(N, 1, H, W), bits(1 if N > 1 else 3, 1, H, W)))


@wrong('rows')
def labels_of_all_words():
    N, C, T = pick(4, 16), pick(3, 13), pick(9, 90)
    return ce_like(), logits(N, C), ints(C, N*T)


@wrong('squeezed-batch', 'rows')
def last_batch_of_one():
    C = pick(3, 5, 10)
    return pick((plain_ce(), logits(1, C), ints(C, 1)[0]), (nn.CrossEntropyLoss(label_smoothing=.1), logits(1, C).squeeze(), ints(C, 1)), (plain_bce(), logits(1, C).squeeze(), bits(1, C)), (plain_bce(), logits(1, C), bits(C)),
                (plain_ce(), logits(1, C, 8, 6).squeeze(), ints(C, 1, 8, 6)), (plain_ce(), logits(1, C, 8, 6), ints(C, 8, 6)))


@wrong('squeezed-batch', 'trailing-axis')
def one_number_of_a_batch_of_one():
    return pick((nn.BCEWithLogitsLoss(), logits(1).squeeze(), bits(1)), (nn.BCELoss(), logits(1, 1).sigmoid().squeeze(), bits(1)), (nn.BCEWithLogitsLoss(), logits(1, 1, 8, 6).squeeze(), bits(1, 1, 8, 6)))


@wrong('label-out-of-range')
def counted_from_1():
    N, C = pick(8, 16, 64), pick(3, 5, 10)
    t = labels(C, max(N, C)) + 1
    return pick(nn.CrossEntropyLoss(), F.cross_entropy, CrossEntropyLossFlat(), nn.CrossEntropyLoss(weight=torch.ones(C))), logits(len(t), C), t


@wrong('label-out-of-range')
def too_few_outputs():
    N, C = pick(8, 16, 64), pick(2, 5, 10)
    t = ints(C+4, N); t[1] = C + pick(0, 2, 3)
    return *pick((nn.CrossEntropyLoss(), logits(N, C)), (F.cross_entropy, logits(N, C)), (nn.NLLLoss(), logits(N, C).log_softmax(1)), (CrossEntropyLossFlat(), logits(N, C))), t


@wrong('label-out-of-range')
def minus_one():
    N, C, P = pick(4, 8), pick(2, 5, 10), pick((), (), (8, 6))
    t = ints(C, N, *P); t.view(-1)[pick(0, -1)] = pick(-1, -1, -2)
    return nn.CrossEntropyLoss(), logits(N, C, *P), t


@wrong('label-out-of-range', 'target-range')
def mask_of_0_and_255():
    N, H, W, C = pick(1, 2, 4), side(), side(), pick(2, 5, 21)
    t = ints(2, N, H, W)*255 if C == 2 else torch.where(torch.rand(N, H, W) < .1, 255, ints(C, N, H, W))
    t[0, 0, 0] = 255
    return pick(nn.CrossEntropyLoss(), F.cross_entropy, CrossEntropyLossFlat(axis=1)), logits(N, C, H, W), pick(t, t.to(torch.uint8))


@wrong('single-logit-softmax', 'label-out-of-range')
def one_output():
    N = many()
    t = ints(2, N); t[0] = 1
    return pick((ce_like(), logits(N, 1), t), (nn.CrossEntropyLoss(), logits(N, 1), t[:, None].float()), (nn.CrossEntropyLoss(), logits(N, 1, 8, 6), ints(2, N, 8, 6)), (nn.CrossEntropyLoss(), logits(N, 1), torch.zeros(N).long()), (nn.CrossEntropyLoss(), logits(N), t.float()))


@wrong('target-dtype')
def index_of_another_type():
    N, C, P = many(), pick(2, 3, 7, 10), pick((), (), (8, 6))
    t = labels(C, N, *P)
    return plain_ce() if flip(.7) else CrossEntropyLossFlat(axis=1 if P else -1), logits(N, C, *P), t.float() if flip() else t.double()


@wrong('target-dtype')
def small_whole_numbers():
    N, C, P = many(), pick(2, 3, 7, 10), pick((), (), (8, 6))
    loss, p = pick((plain_ce(), logits(N, C, *P)), (nn.NLLLoss(), logits(N, C, *P).log_softmax(1)))
    return loss, p, labels(C, N, *P).to(pick(torch.int32, torch.int16, torch.int8))


@wrong('target-dtype')
def whole_targets_for_bce():
    N, C = many(), pick(1, 1, 3, 10)
    return *pick((nn.BCEWithLogitsLoss(), logits(N, C)), (F.binary_cross_entropy_with_logits, logits(N, C)), (nn.BCELoss(), logits(N, C).sigmoid())), pick(ints(2, N, C), ints(2, N, C).bool(), ints(2, N, C).int())


@wrong('target-dtype')
def double_targets():
    N, C = many(), pick(1, 3, 10)
    return *pick((nn.MSELoss(), logits(N, C)), (nn.L1Loss(), logits(N)), (nn.BCELoss(), logits(N, C).sigmoid()), (nn.BCEWithLogitsLoss(), logits(N, C))), None


@wrong('target-dtype')
def quantities_for_softmax():
    N, C = many(), pick(2, 5)
    return plain_ce(), logits(N, C), torch.randn(N)*10


@wrong('target-range')
def mask_0_255_for_bce():
    N, P = pick(1, 2, 4), (pick(1, 3), side(), side())
    t = pick(bits(N, *P)*255, ints(256, N, *P).float(), bits(N, *P)*2-1, bits(N, *P)+1); t.view(-1)[:2] = torch.tensor([t.min(), t.max()])
    return pick((plain_bce(), logits(N, *P), t), (nn.BCELoss(), logits(N, *P).sigmoid(), t), (BCEWithLogitsLossFlat(), logits(N, *P), t))


@wrong('target-range', 'class-indices-for-bce')
def indices_beside_one_output():
    N, C = pick(8, 16, 64), pick(3, 5, 10)
    t = labels(C, N); t[0] = C-1
    return pick((plain_bce(), logits(N, 1), t[:, None].float()), (BCEWithLogitsLossFlat(), logits(N, 1), t), (nn.BCELoss(), logits(N, 1).sigmoid(), t[:, None].float()))


@wrong('missing-activation')
def raw_for_bce():
    N, C = pick(8, 16, 64), pick(1, 3, 10)
    p = torch.randn(N, C)*pick(1, 3); p.view(-1)[:2] = torch.tensor([-1.3, 2.1])
    return pick(nn.BCELoss(), F.binary_cross_entropy, BCELossFlat()), p, bits(N, C)


@wrong('missing-activation')
def not_log_probs_for_nll():
    N, C, P = pick(4, 8, 64), pick(2, 4, 10), pick((), (), (8, 6))
    p = torch.randn(N, C, *P)*pick(1, 3)
    return pick(nn.NLLLoss(), F.nll_loss, partial(F.nll_loss, weight=torch.ones(C))), pick(p, p.softmax(1), p.sigmoid()), ints(C, N, *P)


@wrong('double-activation')
def softmaxed_for_softmax():
    N, C, P = pick(4, 8, 64), pick(2, 4, 10), pick((), (), (8, 6))
    return ce_like(1 if P else -1), (torch.randn(N, C, *P)*pick(.1, 1, 5)).softmax(1), ints(C, N, *P)


@wrong('double-activation')
def sigmoided_for_sigmoid():
    N, C = pick(32, 64), pick(1, 3, 10)
    p = (torch.randn(N, C)*pick(3, 5, 8)).sigmoid()
    return bce_like(), p, bits(N, C)


@wrong('silent-broadcast', 'trailing-axis')
def vector_and_column():
    N = many()
    return distance(), *pick((logits(N, 1), torch.randn(N)), (logits(N), torch.randn(N, 1)), (logits(N, 1), ints(9, N).float()), (logits(N, 1), bits(N)))


@wrong('silent-broadcast', 'trailing-axis', 'mask-channels')
def map_and_missing_channel():
    N, H, W = pick(2, 4, 8), side(), side()
    return distance(), logits(N, 1, H, W), torch.rand(N, H, W)


@wrong('silent-broadcast', 'rows', 'n-outputs')
def stretched():
    N, C = many(), pick(3, 5, 10)
    return distance(), *pick((logits(N, C), torch.randn(N, 1)), (logits(N, 1), torch.randn(N, C)), (logits(N, C), torch.randn(C)), (logits(N, C), torch.randn(1, C)))


@wrong('silent-broadcast')
def in_a_loss_of_ones_own():
    N = pick(4, 7, 16, 64)
    return pick(lambda p, t: ((p-t)**2).mean(), lambda p, t: (p-t).abs().mean(), lambda p, t: torch.sqrt(F.mse_loss(p, t))), *pick((logits(N, 1), torch.randn(N)), (logits(N), torch.randn(N, 1)), (logits(N, 1, 6, 8), torch.randn(N, 6, 8)))


@wrong('same-count-flattened', 'class-axis')
def flattened_in_another_order():
    N, C = pick(8, 16, 64), pick(3, 5, 10)
    return pick(BCEWithLogitsLossFlat(), MSELossFlat(), L1LossFlat()), logits(N, C), bits(C, N)


@wrong('same-count-flattened', 'class-axis')
def flattened_maps():
    N, C, H, W = pick(2, 4), pick(3, 5), pick(8, 16), pick(7, 10)
    return pick((BCEWithLogitsLossFlat(), logits(N, C, H, W), bits(N, H, W, C)), (BCEWithLogitsLossFlat(), logits(N, C, H, W), bits(N, C, W, H)), (CrossEntropyLossFlat(axis=1), logits(N, C, H, W), labels(C, N, W, H)))


@wrong('class-weight-length')
def weights_of_other_classes():
    N, C, P = many(), pick(3, 5, 10), pick((), (), (8, 6)); K = other(C, 2, 4, 6, 11)
    w = torch.rand(K)+.1
    return pick((nn.CrossEntropyLoss(weight=w), logits(N, C, *P)), (partial(F.cross_entropy, weight=w), logits(N, C, *P)), (CrossEntropyLossFlat(weight=w, axis=1 if P else -1), logits(N, C, *P)),
                (nn.NLLLoss(weight=w), logits(N, C, *P).log_softmax(1))) + (labels(C, N, *P),)


@wrong('class-weight-length')
def pos_weights_of_other_classes():
    N, C = many(), pick(3, 5, 10); K = other(C, 2, 4, 6, 11)
    w = torch.rand(K)+.1
    return pick(nn.BCEWithLogitsLoss(pos_weight=w), nn.BCEWithLogitsLoss(weight=w), partial(F.binary_cross_entropy_with_logits, pos_weight=w), BCEWithLogitsLossFlat(pos_weight=w)), logits(N, C), bits(N, C)


@wrong('class-weight-length')
def pos_weights_along_the_wrong_axis():
    N, C, H, W = pick(1, 2, 4), pick(3, 5), side(), side()
    return nn.BCEWithLogitsLoss(pos_weight=torch.rand(C)+.1), logits(N, C, H, W), bits(N, C, H, W)


@wrong('empty-target', 'rows', 'n-outputs')
def nothing():
    N, C = many(), pick(3, 6, 10)
    return pick((bce_like(), logits(N, C), torch.zeros(0, C)), (bce_like(), logits(N, C), torch.zeros(N, 0)), (plain_ce(), logits(N, C), torch.zeros(0).long()), (plain_ce(), logits(N, C), torch.full((N,), -100)),
                (bce_like(), logits(N, C), torch.zeros(0)), (distance(), logits(N, C), torch.zeros(N, 0)), (nn.CrossEntropyLoss(ignore_index=255), logits(N, C, 4, 4), torch.full((N, 4, 4), 255)))


@wrong('metric-mismatch')
def metric_of_the_other_sort():
    N, C = many(), pick(2, 3, 10)
    return pick((accuracy, logits(N, C), bits(N, C)), (accuracy, logits(N, C), F.one_hot(ints(C, N), C).float()), (error_rate, logits(N, C), F.one_hot(ints(C, N), C)), (accuracy_multi, logits(N, C), ints(C, N)),
                (partial(accuracy_multi, thresh=.3), logits(N, C), ints(C, N)), (accuracy, logits(N, 1), ints(2, N)), (accuracy, logits(N, C, 8, 6), ints(C, N, 8, 6)), (accuracy_multi, logits(N, C, 8, 6), ints(C, N, 8, 6)))


def wrong_pair(make):
    loss, pred, targ = make()
    if targ is None: targ = (torch.rand(pred.shape) if isinstance(loss, (nn.MSELoss, nn.L1Loss)) else bits(*pred.shape)).double()
    return loss, pred, targ


def test_wrong_pairs_are_told_by_their_cause(n=40):
    score, missed = Counter(), []
    for cause, also, make in WRONG:
        for seed in range(n):
            random.seed(seed); torch.manual_seed(seed)
            loss, pred, targ = wrong_pair(make)
            d = diagnose(loss, pred, targ)
            right = d.cause in (cause, *also)
            score[cause, right] += 1
            if not right: missed.append(f'{make.__name__} {seed}: {told(d, loss, pred, targ)}')
    print()
    for cause in sorted({c for c, _, _ in WRONG}): print(f'{cause:24}{score[cause, True]:5} of {score[cause, True]+score[cause, False]}')
    low = [c for c, _, _ in WRONG if score[c, True] < .95*(score[c, True]+score[c, False])]
    assert not low, '\n'.join([f'below 95 %: {sorted(set(low))}', *missed[:40]])
