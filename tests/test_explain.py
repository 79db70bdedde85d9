"""explain() where people fail: in Jupyter, in IPython, in a script; and ExplainMismatch inside fastai's fit."""
import gc, os, pickle, subprocess, sys, traceback, warnings, weakref
from functools import partial
import pytest, torch, torch.nn.functional as F
from torch import nn
from fastai.basics import DataLoaders, Learner, accuracy, accuracy_multi
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.mixup import MixUp
from fastai.data.load import DataLoader
from fastai.learner import load_learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.metrics import F1Score, F1ScoreMulti
from multilabel_mnist.explain import ExplainMismatch, MismatchError, explain

# a failing loop in which no variable has a telling name
FAILS = """
import torch
from torch import nn
net, criterion = nn.Linear(5, 3), nn.BCEWithLogitsLoss()
def go(batch, truth): return criterion(net(batch), truth)
"""
CALL = "go(torch.zeros(4, 5), torch.tensor([0,2,1,1]))"
SAYS = "class-indices-for-bce"
env = {**os.environ, 'PYTHONWARNINGS': 'ignore'}

def caught(f, *args):
    "The error that f raises"
    try: f(*args)
    except Exception as e: return e
    pytest.fail('nothing was raised')

## in a Jupyter kernel, in IPython, in a script

def run_cells(*cells):
    import nbformat
    from nbclient import NotebookClient
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(nb, timeout=300, kernel_name='python3', allow_errors=True).execute()
    return [c.outputs for c in nb.cells]

def shown(outputs): return '\n'.join(o.data.get('text/plain', '') for o in outputs if 'data' in o)

def test_a_bare_explain_after_a_failed_cell_in_jupyter():
    outs = run_cells('from multilabel_mnist.explain import explain', 'explain()', FAILS, CALL, 'explain()',
        "{}['no tensors here']", 'explain()',
        'from torch.nn.functional import cross_entropy as ce\nfor x, y in [(torch.zeros(2, 3), torch.tensor([0, 5]))]: ce(x, y)', 'd = explain()\nd')
    assert 'No error to explain' in shown(outs[1])
    assert outs[3][0].output_type == 'error'
    text, = [o.data for o in outs[4] if 'data' in o]
    assert SAYS in text['text/plain'] and '[4, 3]' in text['text/plain'] and 'text/html' in text
    assert 'no tensors' in shown(outs[6])
    assert 'label-out-of-range' in shown(outs[8])

def test_a_bare_explain_in_ipython():
    code = f"""
from IPython.core.interactiveshell import InteractiveShell
sh = InteractiveShell.instance()
for cell in ('from multilabel_mnist.explain import explain', {FAILS!r}, {CALL!r}, 'print(explain())'): sh.run_cell(cell)
"""
    out = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert f'\n{SAYS}' in out.stdout, out.stdout + out.stderr

def test_a_script_that_catches_and_one_that_hooks(tmp_path):
    script = tmp_path/'train.py'
    script.write_text(f"""{FAILS}
import sys
from multilabel_mnist.explain import explain
try: {CALL}
except Exception as e: print('caught', explain(e).cause)
try: {CALL}
except Exception: print('bare', explain().cause)
def hook(kind, exc, tb): print('hooked', explain(exc).cause)
sys.excepthook = hook
{CALL}
""")
    out = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert out.stdout.split('\n')[:3] == [f'{k} {SAYS}' for k in ('caught', 'bare', 'hooked')], out.stdout + out.stderr

def test_without_fastai_in_a_script(tmp_path):
    script = tmp_path/'loop.py'
    script.write_text(f"""
import sys
sys.modules['fastai'] = None # any import of it fails now
{FAILS}
from multilabel_mnist.explain import MismatchError, explain
def train(batches, optimizer):
    for batch, truth in batches:
        loss = go(batch, truth)
        loss.backward(); optimizer.step(); optimizer.zero_grad()
batches = [(torch.zeros(4, 5), torch.eye(3)[[0,2,1,1]]), (torch.zeros(4, 5), torch.tensor([0,2,1,1]))]
try: train(batches, torch.optim.SGD(net.parameters(), lr=.1))
except Exception as e: print(explain(e))
try: from multilabel_mnist.explain import ExplainMismatch
except ImportError as e: print(e)
""")
    out = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert out.stdout.startswith(f'{SAYS} (refused)\n[4, 3] is the prediction') and 'fastai' in out.stdout.splitlines()[-1], out.stdout + out.stderr

def test_without_fastai_in_jupyter():
    outs = run_cells(FAILS, CALL, 'from multilabel_mnist.explain import explain\nexplain()', 'import sys; [m for m in sys.modules if m.startswith("fastai")]')
    assert SAYS in shown(outs[2]) and shown(outs[3]) == '[]'

def test_the_prompt_after_a_failed_script(tmp_path):
    script = tmp_path/'train.py'
    script.write_text(f"from multilabel_mnist.explain import explain\n{FAILS}\n{CALL}\n")
    out = subprocess.run([sys.executable, '-i', script], input='print(explain().cause)\n', env=env, capture_output=True, text=True)
    assert SAYS in out.stdout, out.stdout + out.stderr

## what it finds, and what it says when it finds nothing

net, labels = nn.Linear(5, 3), torch.tensor([0,2,1,1])
bce, flat = nn.BCEWithLogitsLoss(), BCEWithLogitsLossFlat()
def batch(): return torch.zeros(4, 5)

class Classifier(nn.Module):
    "As the models of transformers do it: the loss is called inside forward"
    def __init__(self):
        super().__init__()
        self.num_labels, self.score = 3, nn.Linear(5, 3)
    def forward(self, input_ids, labels=None):
        logits = self.score(input_ids)
        loss_fct = nn.BCEWithLogitsLoss()
        return loss_fct(logits, labels), logits

def plain():
    guess, truth = net(batch()), labels
    return F.binary_cross_entropy_with_logits(guess, truth)
def flat_by_name():
    guess = net(batch())
    return flat(guess, labels)

@pytest.mark.parametrize('f', [
    plain, flat_by_name,
    lambda: bce(net(batch()), labels), lambda: bce(target=labels, input=net(batch())), lambda: flat(net(batch()), labels),
    lambda: F.binary_cross_entropy_with_logits(net(batch()), labels, pos_weight=torch.ones(3)),
    lambda: Classifier()(input_ids=batch(), labels=labels)],
    ids='function flat-by-name module keywords flat-inline pos-weight transformers'.split())
def test_finds_the_call_whatever_the_loop_looks_like(f):
    d = explain(caught(f))
    assert d.cause == SAYS and d.pred_shape == (4, 3) and d.targ_shape == (4,)

def test_a_flat_loss_with_its_classes_on_axis_1():
    def f():
        maps, masks = torch.randn(2, 4, 8, 8), torch.zeros(2, 7, 8, dtype=torch.long)
        return CrossEntropyLossFlat(axis=1)(maps, masks)
    d = explain(caught(f))
    assert d.pred_shape == (2, 4, 8, 8) and d.targ_shape == (2, 7, 8)

def test_a_loss_of_ones_own():
    class SoftDiceLoss(nn.Module):
        def forward(self, y_pred, y_true): return 1 - (y_pred*y_true).sum()
    def count_loss(preds, targs): return (preds - targs).abs().mean()
    d = explain(caught(SoftDiceLoss(), torch.zeros(4, 3), torch.zeros(4, 2)))
    assert not d.ok and d.pred_shape == (4, 3) and d.targ_shape == (4, 2)
    globals()['count_loss'] = count_loss
    d = explain(caught(count_loss, torch.zeros(4, 3), torch.zeros(4, 2)))
    assert not d.ok and d.pred_shape == (4, 3)

def test_follows_chained_errors():
    def because():
        try: plain()
        except Exception as e: raise KeyError('later') from e
    def meanwhile():
        try: plain()
        except Exception: {}['later']
    def hidden():
        try: plain()
        except Exception: raise KeyError('later') from None
    for f in because, meanwhile, hidden: assert explain(caught(f)).cause == SAYS

def test_says_plainly_what_it_can_not_do():
    def by_hand():
        out, y = net(batch()), torch.zeros(4, 2)
        return ((out - y)**2).mean()
    stripped, cleared = caught(plain).with_traceback(None), caught(plain)
    traceback.clear_frames(cleared.__traceback__)
    cases = [(caught(by_hand), 'out [4, 3] float32, y [4, 2] float32'), (caught(net, torch.zeros(4, 7)), 'input [4, 7] float32'),
             (caught(lambda: {}['x']), 'no tensors'), (stripped, 'no traceback any more'), (cleared, 'was cleared'), ('text', 'wants an error')]
    for exc, fragment in cases:
        d = explain(exc)
        assert d.cause == 'unexplained' and not d.ok and not d.certain
        assert fragment in d.explanation and fragment in str(d) and '<svg' not in d._repr_html_()

def test_a_fitting_loss_is_not_blamed():
    class Moody(nn.CrossEntropyLoss):
        error = None
        def forward(self, input, target):
            if self.error: raise self.error
            return super().forward(input, target)
    loss = Moody()
    for error, fragment in [(RuntimeError('once'), 'comes from elsewhere'), (OSError('disk full'), 'not about whether'), (torch.OutOfMemoryError('full'), 'not about whether')]:
        loss.error = error
        e, loss.error = caught(loss, torch.randn(4, 3), labels), None
        assert fragment in explain(e).explanation

def test_never_raises():
    class Rude(Exception):
        def __str__(self): raise RuntimeError('no')
    class RudeSelf:
        def __getattr__(self, k): raise RuntimeError('no')
        def loss(self, input, target): raise ValueError('x')
    assert explain(caught(RudeSelf.loss, RudeSelf(), torch.zeros(1), torch.zeros(1))).cause
    def rude(): raise Rude
    assert explain(caught(rude)).cause == 'unexplained'

def test_keeps_no_tensor_alive():
    def life(inner):
        guess = torch.zeros(4, 3)
        try: inner(guess, labels)
        except Exception as e: d = explain(e)
        return weakref.ref(guess), d
    gc.collect(); gc.disable()
    try:
        for inner in bce, flat: assert life(inner)[0]() is None
    finally: gc.enable()

## inside fastai's fit

def tiny_dls(x, y, bs=64, c=None):
    ds = list(zip(x, y))
    dls = DataLoaders(*(DataLoader(list(ds), bs=bs, num_workers=0) for _ in range(2)))
    if c: dls.c = c
    return dls

def learner(y, n_out=10, loss=None, c=10, bs=64, **kwargs):
    learn = Learner(tiny_dls(torch.randn(len(y), 5), y, bs=bs, c=c), nn.Linear(5, n_out), loss_func=loss or CrossEntropyLossFlat(), **kwargs)
    if hasattr(learn, 'progress'): learn.remove_cb(learn.progress)
    learn.logger = lambda *a: None
    learn.ran = []
    learn.model.register_forward_hook(lambda *a: learn.ran.append(1))
    return learn

Y = torch.arange(128) % 10
ROWS = F.one_hot(Y, 10).float()
MULTI = (torch.arange(1280).view(128, 10) % 3 == 0).float()

def test_explain_reads_the_learner_where_the_flat_loss_holds_640():
    learn = learner(Y, loss=BCEWithLogitsLossFlat())
    e = caught(learn.fit, 1)
    d = explain(e)
    assert 'torch.Size([64])' in str(e) and 'torch.Size([640])' in str(e)
    assert d.cause == SAYS and d.pred_shape == (64, 10) and d.targ_shape == (64,)

def test_explain_reads_a_failed_metric():
    d = explain(caught(learner(ROWS, loss=BCEWithLogitsLossFlat(), metrics=accuracy).fit, 1))
    assert d.cause == 'metric-mismatch'

def test_explain_does_not_blame_the_loss_for_the_models_own_error():
    learn = learner(Y)
    learn.fit(1)
    learn.dls.train.dataset[:] = [(torch.zeros(7), y) for y in Y]
    d = explain(caught(learn.fit, 1))
    assert d.cause == 'unexplained' and 'not raised by a loss' in d.explanation

@pytest.mark.parametrize('c', [10, None], ids=['with-vocab', 'without'])
def test_the_forums_error_becomes_a_MismatchError(c):
    loss = BCEWithLogitsLossFlat()
    learn = learner(Y, loss=loss, c=c, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info: learn.fit(1)
    e = info.value
    assert isinstance(e, ValueError) and e.diagnosis.cause == SAYS and str(e) == e.diagnosis.explanation
    assert isinstance(e.__cause__, ValueError) and 'torch.Size([640])' in str(e.__cause__)
    assert learn.loss_func is loss and explain(e) is e.diagnosis
    assert len(learn.ran) == (0 if c else 1)
    again = pickle.loads(pickle.dumps(e))
    assert str(again) == str(e) and again.diagnosis.cause == SAYS

@pytest.mark.parametrize('how', ['class', 'object', 'fit', 'add_cb'])
def test_however_it_is_given(how):
    learn = learner(Y, loss=BCEWithLogitsLossFlat(), cbs={'class': ExplainMismatch, 'object': ExplainMismatch()}.get(how))
    if how == 'add_cb': learn.add_cb(ExplainMismatch())
    with pytest.raises(MismatchError): learn.fit(1, cbs=ExplainMismatch() if how == 'fit' else None)

def test_a_later_batch_is_explained_too():
    learn = learner(torch.cat([Y, torch.full((64,), 12)]), cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info: learn.fit(1)
    assert info.value.diagnosis.cause == 'label-out-of-range' and isinstance(info.value.__cause__, IndexError)
    assert len(learn.ran) == 3

def test_an_error_that_is_no_mismatch_passes_untouched():
    class Full(OSError): pass
    def loss(pred, targ):
        if len(learn.ran) > 1: raise Full('disk')
        return F.cross_entropy(pred, targ)
    learn = learner(Y, loss=loss, cbs=ExplainMismatch())
    def cancels(pred, targ): raise CancelFitException
    with pytest.raises(OSError): learn.fit(1)
    assert learn.loss_func is loss
    learn.loss_func = cancels
    learn.fit(1)

def test_on_a_gpu_the_call_that_would_end_it_is_not_made():
    from multilabel_mnist.explain import _stop
    from multilabel_mnist.mismatch import diagnose
    class OnGpu(torch.Tensor): is_cuda = property(lambda self: True)
    def never(pred, targ): pytest.fail('was called')
    pred, targ = torch.randn(4, 3), torch.tensor([0, 1, 2, 7])
    with pytest.raises(MismatchError) as info: _stop(diagnose(nn.CrossEntropyLoss(), pred, targ), never, pred.as_subclass(OnGpu), (targ,))
    assert info.value.diagnosis.cause == 'label-out-of-range' and info.value.__cause__ is None

def test_a_refusal_that_no_rule_explains_passes_untouched():
    def loss(pred, targ): raise ValueError('my own reason')
    with pytest.raises(ValueError, match='my own reason') as info: learner(Y, loss=loss, cbs=ExplainMismatch()).fit(1)
    assert not isinstance(info.value, MismatchError)

def test_the_class_is_one_class_and_can_be_pickled():
    import multilabel_mnist.explain as module
    assert module.ExplainMismatch is ExplainMismatch and issubclass(ExplainMismatch, Callback) and 'ExplainMismatch' in module.__all__
    again = pickle.loads(pickle.dumps(ExplainMismatch(allow='rows')))
    assert type(again) is ExplainMismatch and again.allow == {'rows'} and again.name == 'explain_mismatch'
    with pytest.raises(AttributeError, match='no attribute'): module.something_else

def test_a_certain_silent_mismatch_stops_the_first_batch():
    learn = learner(MULTI, loss=nn.CrossEntropyLoss(), cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info: learn.fit(1)
    assert info.value.diagnosis.silent and info.value.diagnosis.cause == 'multi-hot-for-softmax' and len(learn.ran) <= 1
    learn = learner(Y.float(), n_out=1, loss=nn.MSELoss(), c=None, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info: learn.fit(1)
    assert info.value.diagnosis.cause == 'silent-broadcast' and len(learn.ran) == 1

def test_and_the_first_batch_of_validation():
    learn = learner(torch.rand(128, 10).softmax(1), loss=nn.CrossEntropyLoss(), cbs=ExplainMismatch())
    learn.dls.valid.dataset[:] = [(x, y) for (x,_),y in zip(learn.dls.valid.dataset, MULTI)]
    with pytest.raises(MismatchError) as info: learn.fit(1)
    assert info.value.diagnosis.cause == 'multi-hot-for-softmax' and len(learn.ran) == 3

def test_a_deliberate_one_passes():
    for allow in ('multi-hot-for-softmax',), 'multi-hot-for-softmax', ['multi-hot-for-softmax']:
        learner(MULTI, loss=nn.CrossEntropyLoss(), cbs=ExplainMismatch(allow=allow)).fit(1)

def test_an_uncertain_one_warns_once():
    learn = learner(Y, loss=CrossEntropyLossFlat(), cbs=ExplainMismatch())
    learn.model = nn.Sequential(learn.model, nn.Softmax(1))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        learn.fit(2)
        learn.fit(1)
    assert len([w for w in seen if 'double-activation' in str(w.message)]) == 1

@pytest.mark.parametrize('y,loss,cause', [(Y, BCEWithLogitsLossFlat(), SAYS), (MULTI, CrossEntropyLossFlat(), None), (MULTI, nn.CrossEntropyLoss(), None)])
def test_a_loss_that_contradicts_the_block_is_told_before_the_model_runs(y, loss, cause):
    learn = learner(y, loss=loss, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info: learn.fit(1)
    assert learn.ran == [] and cause in (None, info.value.diagnosis.cause)

@pytest.mark.parametrize('y,loss,metric', [(ROWS, BCEWithLogitsLossFlat(), accuracy), (Y, CrossEntropyLossFlat(), accuracy_multi),
    (Y, CrossEntropyLossFlat(), partial(accuracy_multi, thresh=0.2)), (Y, CrossEntropyLossFlat(), F1ScoreMulti()), (ROWS, BCEWithLogitsLossFlat(), F1Score(average='macro'))])
@pytest.mark.parametrize('c', [10, None], ids=['with-vocab', 'without'])
def test_a_metric_that_contradicts_the_targets_is_told_before_any_pass(y, loss, metric, c):
    learn = learner(y, loss=loss, metrics=metric, c=c, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info: learn.fit(1)
    assert info.value.__cause__ is not None and info.value.diagnosis.cause == 'metric-mismatch'
    assert len(learn.ran) == (0 if c or y is ROWS else 1) # the vocab, or the rows, say how many classes there are

def test_a_metric_is_judged_by_the_validation_targets():
    learn = learner(Y, loss=lambda p,t: F.cross_entropy(p, t if t.ndim==1 else t.argmax(1)), metrics=accuracy, cbs=ExplainMismatch())
    learn.dls.train.dataset[:] = [(x, y) for (x,_),y in zip(learn.dls.train.dataset, ROWS)]
    learn.fit(1)

def test_what_fits_is_left_alone():
    for y, loss, metric, n_out, c in [(Y, CrossEntropyLossFlat(), [accuracy, F1Score(average='macro')], 10, 10), (MULTI, BCEWithLogitsLossFlat(), [accuracy_multi, F1ScoreMulti()], 10, 10),
        (Y, nn.CrossEntropyLoss(), accuracy, 10, 10), ((Y%2).float(), BCEWithLogitsLossFlat(), None, 1, None), (Y%2, BCEWithLogitsLossFlat(), None, 1, 2), (Y.float()[:,None], MSELossFlat(), None, 1, None)]:
        torch.manual_seed(0); learn = learner(y, loss=loss, metrics=metric, n_out=n_out, c=c); learn.fit(2); without = learn.recorder.losses
        torch.manual_seed(0); learn = learner(y, loss=loss, metrics=metric, n_out=n_out, c=c, cbs=ExplainMismatch())
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            learn.fit(2)
        assert learn.recorder.losses == without and learn.loss_func is loss
        learn.validate(), learn.get_preds(), learn.get_preds(with_loss=True)

def test_a_short_last_batch_is_no_mismatch():
    learner(Y[:65], cbs=ExplainMismatch()).fit(1)

def test_other_callbacks_see_the_real_loss():
    seen = set()
    class Looks(Callback):
        def look(self): seen.add(id(self.learn.loss_func))
        before_fit = before_batch = after_pred = after_loss = after_batch = after_fit = look
    loss = CrossEntropyLossFlat()
    learner(Y, loss=loss, cbs=[ExplainMismatch(), Looks()]).fit(1)
    assert seen == {id(loss)}

def test_mixup_and_ExplainMismatch():
    learn = learner(Y, cbs=[ExplainMismatch(), MixUp()], metrics=accuracy)
    learn.fit(1)
    assert isinstance(learn.loss_func, CrossEntropyLossFlat)

def test_a_learner_with_it_can_be_exported(tmp_path):
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, PILImageBW, Resize
    import numpy as np
    from PIL import Image
    for i in range(12): Image.fromarray(np.full((8, 8), i*20, 'uint8')).save(tmp_path/f'{i}.png')
    block = DataBlock((ImageBlock(PILImageBW), CategoryBlock), get_y=_parity)
    dls = block.dataloaders(sorted(tmp_path.glob('*.png')), bs=4, num_workers=0, path=tmp_path)
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), loss_func=BCEWithLogitsLossFlat(), cbs=ExplainMismatch(allow='rows'))
    with learn.no_bar(): assert isinstance(caught(learn.fit, 1), MismatchError)
    learn.loss_func = CrossEntropyLossFlat()
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    learn.export(tmp_path/'it.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        again = load_learner(tmp_path/'it.pkl')
    assert again.explain_mismatch.allow == {'rows'} and isinstance(again.loss_func, CrossEntropyLossFlat)

def _parity(file): return str(int(file.stem) % 2)
