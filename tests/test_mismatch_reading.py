"""How a diagnosis reads, in a terminal and in a notebook, and what it leaves untouched."""
import copy
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from fastai.losses import BCEWithLogitsLossFlat
from multilabel_mnist.mismatch import diagnose, facts, table
from multilabel_mnist.mismatch.cause import Cause, Explanation
from multilabel_mnist.mismatch.table import CAUSES
from multilabel_mnist.trial import attempt
from test_mismatch_more import CASES, REPORTED
from test_mismatch_random import RIGHT, WRONG, right_pair, wrong_pair
from torch import nn

pytestmark = pytest.mark.filterwarnings('ignore:Using a target size')
MAKERS = [(made, 1) for _, _, made in CASES+REPORTED] + [(lambda make=make: wrong_pair(make), 5) for *_, make in WRONG] + [(lambda kind=kind: right_pair(kind), 30) for kind in RIGHT]


def pairs():
    "Many calls, the same each time."
    for made, n in MAKERS:
        for seed in range(n):
            random.seed(seed); torch.manual_seed(seed)
            yield made()


class Page(HTMLParser):
    "The tags, attributes and texts of a piece of HTML; every tag that is opened must be closed."
    EMPTY = {'rect', 'circle'}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text); self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY: self.open.append(tag)

    def handle_startendtag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def handle_endtag(self, tag): assert self.open.pop() == tag
    def handle_data(self, data): self.texts.append(data)


def test_three_sentences_then_code():
    for args in pairs():
        d = diagnose(*args)
        sentences = re.split(r'(?<=[.!?]) (?=[A-Za-z0-9\[])', d.explanation)
        assert len(sentences) == 3 and all(s.endswith('.') for s in sentences), d.explanation
        assert 'prediction' in sentences[0] and 'target' in sentences[0]
        lines = str(d).splitlines()
        assert lines[0].startswith(d.cause) and lines[1] == d.explanation and repr(d) == str(d)
        for fix in d.fixes:
            compile(fix, 'fix', 'exec')
            assert '\n'.join(f'    {line}' for line in fix.splitlines()) in str(d)
        assert d.ok == (d.cause == 'ok') and not (d.ok and (d.fixes or d.silent)) and (d.ok or d.fixes or d.cause == 'rows')


def test_html_is_whole_and_without_colours():
    for args in list(pairs())[::7]:
        d = diagnose(*args)
        page = Page(d._repr_html_())
        assert not {tag for tag, _ in page.tags} & {'script', 'img', 'style', 'a'}
        styles = ' '.join(v for _, attrs in page.tags for k, v in attrs.items() if k in ('style', 'fill', 'stroke'))
        assert not re.search(r'#[0-9a-f]{3}|rgb|\b(?:black|white(?!-)|red|green|blue)\b', styles), styles
        svg, = [attrs for tag, attrs in page.tags if tag == 'svg']
        for shape in (d.pred_shape, d.targ_shape): assert f'{torch.Size(shape).numel()} numbers' in svg['aria-label']
        assert svg['role'] == 'img' and d.explanation in page.texts


def test_the_drawing_shows_64_beside_64_x_10():
    page = Page(diagnose(BCEWithLogitsLossFlat(), torch.randn(64, 10), torch.arange(64) % 10)._repr_html_())
    shapes = [tag for tag, _ in page.tags if tag in ('rect', 'circle')]
    assert set(shapes[:70]) == {'rect'} and shapes[70:] == ['circle']*7 # 7 of 64 rows are drawn, the rest is dots
    for text in ('64', '10', '64 × 10', '640 numbers', '64 numbers', 'prediction', 'target'): assert text in page.texts
    labels = [attrs['aria-label'] for tag, attrs in page.tags if tag == 'svg']
    assert labels == ['the prediction has shape 64 × 10: 640 numbers; the target has shape 64: 64 numbers']


EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&</pre></svg>'


def test_what_comes_from_the_user_is_escaped():
    class Loss(nn.Module):
        def forward(self, pred, targ): raise ValueError(EVIL)
    Loss.__name__ = EVIL
    def function(pred, targ): raise TypeError(EVIL)
    function.__name__ = EVIL
    pred, targ = torch.randn(4, 3), torch.randn(4)
    for loss in (Loss(), function):
        html = diagnose(loss, pred, targ)._repr_html_()
        page = Page(html)
        assert not {tag for tag, _ in page.tags} & {'script', 'img'} and not [a for _, attrs in page.tags for a in attrs if a.startswith('on')]
        assert EVIL in page.texts # as the error's text, and so as text alone
    class Weird(torch.Tensor): pass
    Weird.__name__ = EVIL
    Page(diagnose(nn.MSELoss(), {EVIL: pred}, targ.as_subclass(Weird))._repr_html_())


def frozen(o):
    "Everything of a tensor, a loss or a partial that a call could change."
    if isinstance(o, torch.Tensor): return (o.detach().clone(), o.dtype, o.shape, o.stride(), o.requires_grad, o.grad if o.is_leaf else None, o._version, type(o))
    if isinstance(o, nn.Module): return [(k, frozen(v)) for k, v in o.state_dict().items()] + [(k, v) for k, v in vars(o).items() if isinstance(v, (int, float, str))]
    return [frozen(x) for x in (getattr(o, 'func', None), *getattr(o, 'keywords', {}).values())] if hasattr(o, 'func') else []


def same(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a.as_subclass(torch.Tensor), b.as_subclass(torch.Tensor)) or bool(a.isnan().any())
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a is b or a == b


def test_nothing_is_changed():
    for loss, pred, targ in pairs():
        before = [frozen(o) for o in (loss, pred, targ)]
        state, dice, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
        grad = torch.is_grad_enabled()
        diagnose(loss, pred, targ)
        assert same(before, [frozen(o) for o in (loss, pred, targ)])
        assert torch.equal(torch.get_rng_state(), state) and random.getstate() == dice and torch.is_grad_enabled() == grad
        assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy))


class Noisy(nn.Module):
    "Counts its calls, draws from every generator, and writes into what it is given."
    def __init__(self):
        super().__init__()
        self.calls, self.seen = 0, []
        self.register_buffer('mean', torch.zeros(()))
        self.drop = nn.Dropout()

    def forward(self, pred, targ):
        self.calls += 1
        self.seen.append(pred.shape)
        self.mean += random.random() + np.random.rand()
        pred.mul_(0); targ.add_(1)
        return self.drop(pred).mean() + torch.rand(())


@pytest.mark.parametrize('pred', [torch.ones(4, 3), torch.ones(4, 3, requires_grad=True), torch.ones(3, 4).T])
def test_nor_by_a_loss_that_changes_everything(pred):
    loss, targ = Noisy(), torch.ones(4, 3)
    before, state, dice, numpy = copy.deepcopy(vars(loss)), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    diagnose(loss, pred, targ)
    assert (loss.calls, loss.seen, loss.mean.item()) == (0, [], 0) and before['training'] == loss.training
    assert torch.equal(pred.detach(), torch.ones(4, 3)) and torch.equal(targ, torch.ones(4, 3))
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == dice and np.array_equal(np.random.get_state()[1], numpy)


def test_inside_no_grad_and_inference_mode():
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert diagnose(nn.MSELoss(), torch.randn(4, 1), torch.randn(4)).cause == 'silent-broadcast'
            assert diagnose(nn.CrossEntropyLoss(), torch.randn(4, 3), torch.arange(4) % 3).ok


def test_a_pair_of_a_graph_keeps_its_gradient():
    x = torch.randn(4, 3, requires_grad=True)
    pred = x*2
    loss = nn.CrossEntropyLoss()(pred, torch.arange(4) % 3)
    diagnose(nn.CrossEntropyLoss(), pred, torch.arange(4) % 3)
    loss.backward()
    assert x.grad is not None and attempt(nn.CrossEntropyLoss(), pred, torch.arange(4) % 3).error is None


class NanTarget(Cause):
    """A target that is not a number."""

    slug = "nan-target"
    kinds = ("distance",)

    def see(self, f):
        return True if f.targ.isnan().any() else None

    def say(self, f, seen):
        return Explanation("One of the targets is not a number.", "Leave it out.")

    def fix(self, f, seen):
        return ["keep = targ.isfinite()\npred,targ = pred[keep],targ[keep]"]


def test_a_cause_is_one_entry(monkeypatch):
    monkeypatch.setattr(table, "CAUSES", (*CAUSES, NanTarget()))
    d = diagnose(nn.MSELoss(), torch.randn(3), torch.tensor([1.0, float("nan"), 2.0]))
    assert d.cause == "nan-target" and d.silent and d.certain
    assert "Leave it out." in d.explanation and "<pre" in d._repr_html_()


def test_every_entry_has_its_name_and_its_sentence():
    slugs = [c.slug for c in CAUSES]
    assert len(set(slugs)) == len(slugs) and all(re.fullmatch('[a-z-]+', s) for s in slugs)
    assert all(c.summary and c.summary.endswith('.') for c in CAUSES)
    asked = '''class-indices-for-bce one-hot-for-softmax multi-hot-for-softmax n-outputs trailing-axis extra-target-axis mask-channels class-axis rows squeezed-batch label-out-of-range
        single-logit-softmax target-dtype target-range missing-activation double-activation silent-broadcast same-count-flattened class-weight-length empty-target metric-mismatch'''
    assert set(asked.split()) <= set(slugs)


def test_on_a_gpu_ranges_are_looked_at_before_anything_is_tried_there(monkeypatch):
    tried = []
    def attempt(loss, pred, targ, device='cpu'):
        tried.append(device)
        return original(loss, pred, targ, device)
    original = facts.attempt
    monkeypatch.setattr(facts, 'attempt', attempt)
    def loss(pred, targ): raise RuntimeError('works on a GPU only')
    for labels, devices in ((torch.tensor([0, 5]), {'cpu'}), (torch.tensor([0, -1]), {'cpu'}), (torch.tensor([0, 2]), {'cpu', None})):
        tried.clear()
        f = facts.Facts(loss, torch.randn(2, 3), labels)
        f.devices = {torch.device('cuda', 0)} # as if both lay there
        assert f.failed and set(tried) == devices
    for loss in (nn.CrossEntropyLoss(), nn.functional.nll_loss): # what is known is never tried there
        tried.clear()
        f = facts.Facts(loss, torch.randn(2, 3), torch.tensor([0, 5]))
        f.devices = {torch.device('cuda', 0)}
        assert f.failed and set(tried) == {'cpu'}


def test_two_devices():
    pred, targ = torch.randn(4, 1, device='meta'), torch.randn(4, 1)
    d = diagnose(nn.MSELoss(), pred, targ)
    assert d.cause == 'other-device' and 'meta' in d.explanation
    names = dict(pred=pred, targ=targ)
    exec(d.fixes[0], names)
    assert nn.MSELoss()(names['pred'], names['targ']).device == pred.device
