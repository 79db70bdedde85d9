"""What reads N x C probabilities takes little memory beside them."""

import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux keeps a peak of the memory that can be reset"
)
PROGRAM = """
import json

from benchmarks.scaling import CALLS, Data, peak
from multilabel_mnist.ambiguity import confused_pairs, label_suspicion
from multilabel_mnist.inference import SigmoidCalibrator, SigmoidPreds
from multilabel_mnist.labels import one_hot


class Variants(Data):
    def __init__(self, n, n_classes):
        super().__init__(n, n_classes)
        self.double = self.probs.double()
        self.double_logits = self.logits.double()
        self.targets = one_hot(self.labels, n_classes)
        self.with_targets = SigmoidPreds(self.logits, targs=self.targets)
        self.softmax = SigmoidCalibrator("softmax").fit(self.logits[:100], self.labels[:100])
        self.numbered = SigmoidPreds(self.logits, vocab=range(n_classes))


MORE_CALLS = {
    "label_suspicion of targets": lambda d: label_suspicion(d.probs, d.targets),
    "label_suspicion of a column": lambda d: label_suspicion(d.probs, d.labels[:, None]),
    "label_suspicion, float64": lambda d: label_suspicion(d.double, d.labels),
    "confused_pairs with targets": lambda d: confused_pairs(d.with_targets),
    "calibrator_fit to targets": lambda d: SigmoidCalibrator().fit(d.logits, d.targets),
    "calibrator_fit to margins": lambda d: SigmoidCalibrator("softmax").fit(d.logits, d.labels),
    "calibrator_fit, float64": lambda d: SigmoidCalibrator().fit(d.double_logits, d.labels),
    "calibrator_call on margins": lambda d: d.softmax(d.logits),
    "to_frame with targets": lambda d: d.with_targets.to_frame(),
    "to_frame with numbers as names": lambda d: d.numbered.to_frame(),
}
found = {}
del CALLS["exact_per_class"]  # takes long
for shape in ((15_000, 200), (6_000, 500)):
    data, small = Variants(*shape), Variants(2_000, shape[1])
    for name, call in (CALLS | MORE_CALLS).items():
        call(small)  # imports what it needs
        size = data.size * (2 if "float64" in name else 1)
        taken = peak(lambda: call(data))
        found[f"{name}, {shape[0]} x {shape[1]}"] = 1 + taken / size
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def peaks():
    """The peak memory of each call, in multiples of its input, which is counted as well."""
    # Otherwise malloc keeps what was freed, as it does not with inputs of more than 32 MB.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "name", ["ambiguity", "label_suspicion", "confused_pairs", "calibrator", "to_frame"]
)
def test_peak_memory_is_at_most_three_times_the_input(peaks, name):
    of_this = {call: peak for call, peak in peaks.items() if call.startswith(name)}
    assert of_this and max(of_this.values()) <= 3, of_this


def test_what_is_measured_is_memory(peaks):
    """A call that returns as many numbers as it reads takes at least twice the input."""
    for call, peak in peaks.items():
        if call.startswith(("to_frame", "calibrator_call")):
            assert peak > 1.9, (call, peak)
