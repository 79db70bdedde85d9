"""Rows and items in step: whatever a loader does, no verdict stands beside another item."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.utils.data as tud
from fastai.callback.data import PartialDL, WeightedDL
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.load import DataLoader, SkipItemException
from fastai.learner import Learner
from fastai.text.data import SortedDL
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.row_order import in_order

N_FEATURES = 4
UNKNOWN = "which item is in which row is not known: "


class Named(tud.Dataset):
    """Vectors that can be told apart, with names; targets, labels or nothing beside them."""

    def __init__(self, n=11, dtype=torch.float32, target="targets"):
        self.x = torch.randn(n, N_FEATURES, generator=torch.Generator().manual_seed(42)).to(dtype)
        self.items = [f"item {i}.png" for i in range(n)]
        self.targets = {
            "targets": torch.eye(3)[torch.arange(n) % 3],
            "labels": torch.arange(n) % 3,
            "nothing": None,
        }[target]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return (self.x[i],) if self.targets is None else (self.x[i], self.targets[i])


class Cast(nn.Module):
    """A linear layer in float32, whatever the inputs are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(N_FEATURES, 3)

    def forward(self, x):
        return self.linear(x.float())


def learner(dataset=None):
    dataset = dataset or Named()
    dls = DataLoaders(*[TfmdDL(dataset, bs=4, num_workers=0) for _ in range(2)])
    return Learner(dls, Cast(), loss_func=nn.BCEWithLogitsLoss())


def assert_in_step(preds, dataset, learn, n=None):
    """Every row is that of its item: the logits, the targets, and what `show` would open."""
    assert n is None or len(preds) == n
    at = [dataset.items.index(item) for item in preds.items]
    with torch.no_grad():
        expected = learn.model.cpu()(dataset.x[at])
    torch.testing.assert_close(preds.logits, expected)
    if preds.targs is not None:
        assert preds.targs.argmax(1).tolist() == [i % 3 for i in at]
    if preds._dataset is not None:
        for row, i in enumerate(at):
            sample = preds._dataset[row]
            x = sample[0] if isinstance(sample, tuple) else sample
            assert x.equal(dataset.x[i])
    assert len(preds.to_frame()) == len(preds)


def shuffled_batches(ds, bs):
    return tud.BatchSampler(tud.RandomSampler(ds), bs, drop_last=True)


class Oversampling(tud.Sampler):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return 2 * self.n

    def __iter__(self):
        return iter(torch.randint(self.n, (2 * self.n,)).tolist())


class Buckets(tud.Sampler):
    """Batches of neighbors in random order."""

    def __init__(self, n, bs):
        self.n = n
        self.bs = bs

    def __len__(self):
        return math.ceil(self.n / self.bs)

    def __iter__(self):
        starts = np.random.permutation(range(0, self.n, self.bs))
        return iter([list(range(s, min(s + self.bs, self.n))) for s in starts])


WHOLE = {
    "torch, shuffled": lambda ds, bs: tud.DataLoader(ds, bs, shuffle=True),
    "torch, dropping": lambda ds, bs: tud.DataLoader(ds, bs, drop_last=True),
    "torch, both": lambda ds, bs: tud.DataLoader(ds, bs, shuffle=True, drop_last=True),
    "torch, in order": lambda ds, bs: tud.DataLoader(ds, bs),
    "torch, shuffled batches": lambda ds, bs: tud.DataLoader(
        ds, batch_sampler=shuffled_batches(ds, bs)
    ),
    "torch, buckets": lambda ds, bs: tud.DataLoader(ds, batch_sampler=Buckets(len(ds), bs)),
    "torch, weighted": lambda ds, bs: tud.DataLoader(
        ds, bs, sampler=tud.WeightedRandomSampler([1.0] * len(ds), len(ds))
    ),
    "torch, few draws": lambda ds, bs: tud.DataLoader(
        ds, bs, sampler=tud.RandomSampler(ds, num_samples=2, replacement=True)
    ),
    "fastai, shuffled": lambda ds, bs: TfmdDL(ds, bs, shuffle=True, num_workers=0),
    "fastai, dropping": lambda ds, bs: TfmdDL(ds, bs, drop_last=True, num_workers=0),
    "fastai, plain": lambda ds, bs: DataLoader(ds, bs, shuffle=True, drop_last=True),
    "fastai, weighted": lambda ds, bs: WeightedDL(
        ds, bs, wgts=range(len(ds)), shuffle=True, num_workers=0
    ),
    "fastai, partial": lambda ds, bs: PartialDL(ds, bs, partial_n=2, num_workers=0),
    "fastai, sorted": lambda ds, bs: SortedDL(
        ds, sort_func=lambda sample: sample[0][0].item(), bs=bs, num_workers=0
    ),
}


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
@given(
    n=st.integers(2, 13),
    bs=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
    target=st.sampled_from(["targets", "labels", "nothing"]),
)
def test_rows_and_items_are_in_step_for_every_item(make, n, bs, dtype, target):
    dataset = Named(n, dtype, target)
    learn = learner(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preds = sigmoid_preds(learn, dl=make(dataset, min(n, bs)))
    assert_in_step(preds, dataset, learn, n=n)
    assert sorted(preds.items) == sorted(dataset.items)


PARTS = {
    "a split": (
        lambda ds: tud.DataLoader(ds, 2, sampler=tud.SubsetRandomSampler([7, 2, 5])),
        {2, 5, 7},
    ),
    "a list": (lambda ds: tud.DataLoader(ds, 2, sampler=[7, 2, 5]), [7, 2, 5]),
    "a tensor": (lambda ds: tud.DataLoader(ds, 2, sampler=torch.tensor([7, 2, 5])), [7, 2, 5]),
    "batches": (lambda ds: tud.DataLoader(ds, batch_sampler=[[7], [2, 5]]), [7, 2, 5]),
    "a subset": (lambda ds: tud.DataLoader(tud.Subset(ds, [7, 2, 5]), 2, shuffle=True), {2, 5, 7}),
    "a subset of a subset": (
        lambda ds: tud.DataLoader(tud.Subset(tud.Subset(ds, [9, 7, 2, 5]), [1, 3, 2]), 2),
        [7, 5, 2],
    ),
    "fastai's first": (lambda ds: TfmdDL(ds, 2, n=3, shuffle=True, num_workers=0), {0, 1, 2}),
    "fastai, named": (
        lambda ds: TfmdDL(ds, 2, get_idxs=lambda: [7, 2, 5], num_workers=0),
        {2, 5, 7},
    ),
    "fastai over a subset": (
        lambda ds: TfmdDL(tud.Subset(ds, [7, 2, 5]), 2, shuffle=True, num_workers=0),
        {2, 5, 7},
    ),
}


@pytest.mark.parametrize("make, expected", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("target", ["targets", "labels", "nothing"])
def test_a_part_of_the_items_stays_a_part(make, expected, target):
    dataset = Named(target=target)
    learn = learner(dataset)
    preds = sigmoid_preds(learn, dl=make(dataset))
    assert_in_step(preds, dataset, learn, n=3)
    seen = [dataset.items.index(item) for item in preds.items]
    assert seen == expected or set(seen) == expected


def test_items_that_are_drawn_twice_are_named_twice():
    dataset = Named()
    learn = learner(dataset)
    for dl in (
        tud.DataLoader(dataset, 4, sampler=Oversampling(11)),
        TfmdDL(dataset, 4, get_idxs=lambda: list(Oversampling(11)), num_workers=0),
    ):
        assert_in_step(sigmoid_preds(learn, dl=dl), dataset, learn, n=22)


def test_several_data_sets_in_one():
    first, second = Named(5), Named(7)
    second.x = -second.x
    second.items = [f"other {item}" for item in second.items]
    both = SimpleNamespace(x=torch.cat([first.x, second.x]), items=first.items + second.items)
    learn = learner()
    dl = tud.DataLoader(tud.ConcatDataset([first, second]), 4, shuffle=True, drop_last=True)
    preds = sigmoid_preds(learn, dl=dl)
    preds.targs = None  # counted anew in each
    assert_in_step(preds, both, learn, n=12)


def test_tensors_have_positions_for_items():
    dataset = tud.TensorDataset(Named().x, Named().targets)
    learn = learner()
    for sampler in ([7, 2, 5], tud.SubsetRandomSampler([7, 2, 5])):
        preds = sigmoid_preds(learn, dl=tud.DataLoader(dataset, 2, sampler=sampler))
        with torch.no_grad():
            torch.testing.assert_close(preds.logits, learn.model(dataset.tensors[0][preds.items]))
        assert sorted(preds.items) == [2, 5, 7]
        assert list(preds.to_frame()["item"]) == preds.items


@pytest.mark.parametrize("n_workers", [0, 2])
def test_worker_processes_keep_the_order(n_workers):
    dataset = Named(23)
    learn = learner(dataset)
    settings = dict(shuffle=True, drop_last=True, num_workers=n_workers)
    for dl in (tud.DataLoader(dataset, 4, **settings), TfmdDL(dataset, 4, **settings)):
        assert_in_step(sigmoid_preds(learn, dl=dl), dataset, learn, n=23)


def test_a_split_of_plain_torch_loaders():
    dataset = Named(10)
    dls = DataLoaders(
        tud.DataLoader(dataset, 4, shuffle=True, drop_last=True), tud.DataLoader(dataset, 4)
    )
    learn = Learner(dls, Cast(), loss_func=nn.BCEWithLogitsLoss())
    for split in ("train", "valid", None):
        assert_in_step(sigmoid_preds(learn, dl=split), dataset, learn, n=10)


# ---- loaders whose order cannot be known


def sorts(samples):
    samples.sort(key=lambda sample: -sample[0][0])
    return tud.default_collate(samples)


def sorts_a_copy(samples):
    return tud.default_collate(sorted(samples, key=lambda sample: sample[0][0]))


def turns_around(samples):
    return tud.default_collate(samples[::-1])


def swaps_halves(samples):
    half = len(samples) // 2
    return tud.default_collate(samples[half:] + samples[:half])


def swaps_neighbors(samples):
    pairs = [samples[i : i + 2][::-1] for i in range(0, len(samples), 2)]
    return tud.default_collate([sample for pair in pairs for sample in pair])


def leaves_out(samples):
    return tud.default_collate([s for s in samples if s[0][0] > 0] or samples[:1])


def mixes(samples):
    x, y = tud.default_collate(samples)
    return x + 0.1 * x[torch.randperm(len(x))], y


def pads(samples):
    x, y = zip(*samples, strict=True)
    return nn.utils.rnn.pad_sequence(list(x), batch_first=True), torch.stack(y)


class Mine(tud.DataLoader):
    def __iter__(self):
        return reversed(list(super().__iter__()))


class Reversed(TfmdDL):
    def create_batches(self, samps):
        return super().create_batches(reversed(list(samps)))


class Wrapped:
    def __init__(self, dl):
        self.dl = dl
        self.dataset = dl.dataset

    def __len__(self):
        return len(self.dl)

    def __iter__(self):
        return iter(self.dl)


class Skipping(Named):
    def __getitem__(self, i):
        if i == 3:
            raise SkipItemException
        return super().__getitem__(i)


UNKNOWN_ORDER = {
    "sorts in place": lambda ds: tud.DataLoader(ds, 4, collate_fn=sorts),
    "sorts a copy": lambda ds: tud.DataLoader(ds, 4, collate_fn=sorts_a_copy, num_workers=2),
    "turns around": lambda ds: tud.DataLoader(ds, 4, collate_fn=turns_around),
    "turns two around": lambda ds: tud.DataLoader(ds, 2, collate_fn=turns_around),
    "swaps halves": lambda ds: tud.DataLoader(ds, 4, collate_fn=swaps_halves),
    "swaps neighbors": lambda ds: tud.DataLoader(ds, 4, collate_fn=swaps_neighbors),
    "leaves out": lambda ds: tud.DataLoader(ds, 4, collate_fn=leaves_out),
    "mixes": lambda ds: tud.DataLoader(ds, 4, collate_fn=mixes),
    "a subclass of torch's": lambda ds: Mine(ds, 4),
    "a subclass of fastai's": lambda ds: Reversed(ds, 4, num_workers=0),
    "fastai, sample": lambda ds: TfmdDL(ds, 4, sample=lambda: iter([4, 2, 9]), num_workers=0),
    "fastai, before_batch": lambda ds: TfmdDL(
        ds, 4, before_batch=lambda b: sorted(b, key=lambda s: s[0][0].item()), num_workers=0
    ),
    "fastai, create_batch": lambda ds: DataLoader(ds, 4, create_batch=sorts_a_copy),
    "a wrapper": lambda ds: Wrapped(tud.DataLoader(ds, 4, shuffle=True)),
}


@pytest.mark.parametrize("make", UNKNOWN_ORDER.values(), ids=UNKNOWN_ORDER)
@pytest.mark.parametrize("target", ["targets", "labels"])
def test_no_item_is_named_if_the_order_is_not_known(make, target):
    dataset = Named(target=target)
    with pytest.warns(UserWarning, match=UNKNOWN):
        preds = sigmoid_preds(learner(dataset), dl=make(dataset))
    assert preds.items == list(range(len(preds)))
    assert preds._dataset is None


def test_items_that_are_skipped():
    dataset = Skipping()
    with pytest.warns(UserWarning, match="there are 10 rows for 11 items"):
        preds = sigmoid_preds(learner(Named()), dl=DataLoader(dataset, 4))
    assert preds.items == list(range(10))


@pytest.mark.parametrize("collate", [pads, tud.default_collate, lambda s: tud.default_collate(s)])
def test_a_collate_fn_that_keeps_the_order_keeps_the_items(collate):
    dataset = Named()
    learn = learner(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dl = tud.DataLoader(dataset, 4, shuffle=True, collate_fn=collate)
        assert_in_step(sigmoid_preds(learn, dl=dl), dataset, learn, n=11)


def test_samplers_that_name_no_positions():
    dataset = {name: (x,) for name, x in zip("abc", torch.randn(3, N_FEATURES), strict=True)}
    dl = tud.DataLoader(dataset, 2, sampler=["c", "a", "b"])
    with pytest.warns(UserWarning, match="its items have no positions"):
        assert len(sigmoid_preds(learner(), dl=dl)) == 3


# ---- streams, bare tensors, batches in a list


class Stream(tud.IterableDataset):
    def __init__(self, has_length=True, n=11):
        self.named = Named(n)
        if has_length:
            self.__class__ = StreamWithLength

    def __iter__(self):
        return (self.named[i] for i in range(len(self.named)))


class StreamWithLength(Stream):
    def __len__(self):
        return len(self.named)


STREAMS = {
    "torch": lambda ds: tud.DataLoader(ds, 4),
    "torch, dropping": lambda ds: tud.DataLoader(ds, 4, drop_last=True),
    "torch, workers": lambda ds: tud.DataLoader(ds, 4, num_workers=2),
    "fastai": lambda ds: TfmdDL(ds, 4, num_workers=2),
}


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_read_once_and_in_order(make):
    dataset = Stream()
    learn = learner()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preds = sigmoid_preds(learn, dl=make(dataset))
    with torch.no_grad():
        torch.testing.assert_close(preds.logits, learn.model(dataset.named.x))
    assert preds.items == list(range(11))


@pytest.mark.parametrize("loader", [tud.DataLoader, DataLoader])
def test_a_stream_without_a_length_gets_one_sentence(loader):
    dl = loader(Stream(has_length=False), batch_size=4)
    with pytest.raises(ValueError, match="expected a DataLoader with a length.*itertools.islice"):
        sigmoid_preds(learner(), dl=dl)
    learn = learner()
    preds = sigmoid_preds(learn, dl=[next(iter(dl))])
    with torch.no_grad():
        torch.testing.assert_close(preds.logits, learn.model(Named().x[:4]))


class Bare(Named):
    def __getitem__(self, i):
        return self.x[i]


@pytest.mark.parametrize("bs", [1, 2, 11])
@pytest.mark.parametrize("loader", [tud.DataLoader, DataLoader, TfmdDL])
def test_bare_tensors_give_a_row_per_item(loader, bs):
    dataset = Bare()
    learn = learner()
    preds = sigmoid_preds(learn, dl=loader(dataset, bs, shuffle=True, num_workers=0))
    assert_in_step(preds, dataset, learn, n=11)
    assert preds.targs is None


def test_a_sampler_of_nothing_gets_one_sentence():
    dl = tud.DataLoader(Named(), 4, sampler=[])
    with pytest.raises(ValueError, match="expected a DataLoader with items"):
        sigmoid_preds(learner(), dl=dl)


def test_the_loader_itself_is_left_as_it_was():
    dl = TfmdDL(Named(), 4, shuffle=True, drop_last=True, num_workers=0)
    get_idxs = dl.get_idxs
    sigmoid_preds(learner(), dl=dl)
    assert (dl.shuffle, dl.drop_last, dl.get_idxs) == (True, True, get_idxs)
    state = torch.random.get_rng_state()
    in_order(tud.DataLoader(Named(), 4, shuffle=True))
    assert torch.random.get_rng_state().equal(state)


class StreamOfItems(Stream):
    """A stream that also has a list of items, whose order need not be its own."""

    def __init__(self, has_length=True):
        super().__init__(has_length)
        self.items = self.named.items[::-1]


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_items_of_a_stream_are_not_trusted(make):
    with pytest.warns(UserWarning, match="not known: its data set is a stream"):
        dataset = StreamOfItems(has_length=False)
        dataset.__class__ = StreamOfItemsWithLength
        preds = sigmoid_preds(learner(), dl=make(dataset))
    assert preds.items == list(range(11))
    with pytest.raises(ValueError, match="expected a DataLoader with a length"):
        dataset = StreamOfItems(has_length=False)
        sigmoid_preds(learner(), dl=make(dataset))


class StreamOfItemsWithLength(StreamOfItems):
    def __len__(self):
        return len(self.named)
