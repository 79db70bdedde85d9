"""Tensors that are not strided: `diagnose` reads a dense copy, or judges by the call alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multilabel_mnist.mismatch import diagnose

SPARSE = {
    "coo": torch.Tensor.to_sparse,
    "csr": torch.Tensor.to_sparse_csr,
    "csc": torch.Tensor.to_sparse_csc,
    "bsr": lambda t: t.to_sparse_bsr((2, 2)),
}
all_sparse = pytest.mark.parametrize("sparse", SPARSE.values(), ids=SPARSE)
all_jagged = pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)


def bce_of_dense(pred, targ):
    return F.binary_cross_entropy_with_logits(pred.to_dense(), targ.to_dense())


def mse_of_dense(pred, targ):
    return F.mse_loss(pred.to_dense(), targ.to_dense())


@all_sparse
@pytest.mark.parametrize("where", ["pred", "targ", "both"])
@pytest.mark.parametrize("loss", [bce_of_dense, mse_of_dense])
@pytest.mark.parametrize("shape, dtype", [((4, 4), torch.float), ((2, 6), torch.double)])
def test_a_sparse_tensor_that_the_loss_makes_dense_is_right(sparse, where, loss, shape, dtype):
    pred = torch.randn(shape, dtype=dtype)
    targ = torch.eye(*shape, dtype=dtype)
    pred = sparse(pred).requires_grad_() if where != "targ" else pred
    targ = sparse(targ) if where != "pred" else targ
    loss(pred, targ)
    d = diagnose(loss, pred, targ)
    assert d.ok and d.cause == "ok", d
    assert d.pred_shape == d.targ_shape == shape


@all_sparse
def test_what_else_is_wrong_with_a_sparse_target_is_still_told(sparse):
    targ = sparse(torch.zeros(6, 4))
    assert diagnose(bce_of_dense, torch.randn(4, 4), targ).cause == "rows"
    assert not diagnose(nn.BCEWithLogitsLoss(), torch.randn(6, 4), targ).ok


def nested(layout, **kwargs):
    """Return a tensor of a row of 2 numbers and one of 3."""
    return torch.nested.nested_tensor([torch.ones(2), torch.zeros(3)], layout=layout, **kwargs)


def mse_of_items(pred, targ):
    return sum(F.mse_loss(p, t) for p, t in zip(pred.unbind(), targ.unbind(), strict=True))


@all_jagged
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("requires_grad", [True, False])
def test_nested_tensors_are_judged_by_the_call_alone(layout, requires_grad):
    pred = nested(layout, requires_grad=requires_grad)
    d = diagnose(mse_of_items, pred, nested(layout))
    assert d.ok and "nested" in d.explanation
    assert str(d) and d._repr_html_()
    d = diagnose(lambda p, t: F.mse_loss(p, torch.cat(t.unbind())), torch.ones(5), nested(layout))
    assert d.ok
    d = diagnose(nn.MSELoss(), torch.ones(7, 2), nested(layout))
    assert d.cause == "unexplained" and d.message


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8, torch.qint32])
@pytest.mark.parametrize("loss", [F.cross_entropy, F.multi_margin_loss])
def test_a_quantized_prediction_that_the_loss_dequantizes_is_right(dtype, loss):
    pred = torch.quantize_per_tensor(torch.randn(4, 3), 0.1, 0, dtype)
    labels = torch.tensor([0, 1, 2, 0])
    assert diagnose(lambda p, t: loss(p.dequantize(), t), pred, labels).ok
    assert not diagnose(nn.CrossEntropyLoss(), pred, labels).ok
