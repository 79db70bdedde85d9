"""What ExplainMismatch adds to a training step once its first batches are over: medians of short fits, taken in turns.

python benchmarks/explain_cost.py"""
import statistics, time
import torch
from torch import nn
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from multilabel_mnist.explain import ExplainMismatch

class Clock(Callback):
    order = -100
    def before_fit(self): self.ticks = []
    def before_batch(self): self.ticks.append(time.perf_counter())

class Empty(Callback): "What fastai's own search for a method at each event costs"

def step_time(dls, cbs, n):
    net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10))
    learn = Learner(dls, net, loss_func=CrossEntropyLossFlat(), cbs=[Clock(), *cbs])
    with learn.no_logging(): learn.fit(1)
    ticks = learn.clock.ticks[10:n] # the training steps after the first ones
    return statistics.median(b-a for a,b in zip(ticks, ticks[1:]))

def measure(n=400, rounds=12):
    "Name: median microseconds of a training step."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batches = [(torch.randn(64, 20), torch.randint(0, 10, (64,))) for _ in range(n)]
    dls = DataLoaders(DataLoader(batches, bs=None, num_workers=0), DataLoader(batches[:2], bs=None, num_workers=0))
    kinds = {'without': [], 'ExplainMismatch': [ExplainMismatch], 'an empty callback': [Empty]}
    times = {k: [] for k in kinds}
    for _ in range(rounds):
        for k,cbs in kinds.items(): times[k].append(step_time(dls, [cb() for cb in cbs], n))
    torch.set_num_threads(threads)
    return {k: statistics.median(t)*1e6 for k,t in times.items()}

if __name__ == '__main__':
    found = measure()
    for k,t in found.items(): print(f'{k:18} {t:6.0f} us a step, a factor of {t/found["without"]:.3f}')
