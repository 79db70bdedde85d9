"""Imports go one way, every module has one notebook, and the plain torch part needs torch alone."""

import ast
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from importlib.util import resolve_name

import nbformat
import pytest
from packaging.requirements import Requirement

from conftest import MODULES, NOTEBOOKS, PACKAGE, module_name, run, settings
from tools.notebooks import split_directives

# Modules that hold causes of a mismatch; none of them needs another.
CAUSES = [
    f"mismatch.{name}"
    for name in "finite targets axes counts values weights reduction metrics outputs".split()
]
# What each module is built on. It may import these, and whatever these are built on.
BUILT_ON = {
    "checks": (),
    "lazy": (),
    "trial": (),
    "losses": ("trial", "checks"),
    "pixels": ("checks",),
    "batches": ("pixels",),
    "data": ("batches",),
    "labels": ("checks", "lazy"),
    "convert": ("labels",),
    "final_linear": ("checks", "trial"),
    "head": ("final_linear", "losses"),
    "training": ("checks",),
    "masked": ("checks",),
    "calibrate": ("checks",),
    "inference": ("calibrate", "lazy"),
    "report": ("inference",),
    "items": ("batches", "checks"),
    "row_order": ("checks",),
    "predict": ("inference", "losses", "items", "row_order"),
    "pipeline": ("items",),
    "onnx_export": ("inference", "final_linear"),
    "classifier": ("predict", "pipeline", "onnx_export"),
    "shipped": ("classifier",),
    "draw": ("checks",),
    "deform": ("draw",),
    "characters": ("deform",),
    "compose_images": ("draw",),
    "verdicts": ("draw", "labels"),
    "precision": (),
    "compose": (
        "verdicts",
        "compose_images",
        "convert",
        "training",
        "precision",
        "deform",
        "characters",
    ),
    "ambiguity": ("calibrate",),
    "pad": ("classifier", "ambiguity"),
    "mismatch.parts": ("losses",),
    "mismatch.facts": ("mismatch.parts",),
    "mismatch.cause": ("mismatch.facts",),
    "mismatch.fixes": ("mismatch.facts",),
    **dict.fromkeys(CAUSES, ("mismatch.cause", "mismatch.fixes", "checks")),
    "mismatch.finite": ("mismatch.cause", "mismatch.fixes"),
    "mismatch.targets": ("mismatch.cause", "mismatch.fixes"),
    "mismatch.values": ("mismatch.finite", "mismatch.targets"),
    "mismatch.table": CAUSES,
    "mismatch.display": ("mismatch.facts",),
    "mismatch": ("mismatch.table", "mismatch.display"),
    "explain": ("mismatch", "checks", "lazy"),
    "callback": ("explain",),
}
NO_FASTAI = """
import importlib, sys

class NoFastai:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("fastai", "fastcore"):
            raise ImportError(f"{name} is imported, and this process has no fastai")

sys.meta_path.insert(0, NoFastai())
"""
HEAVY = ("fastai", "pandas", "sklearn", "scipy", "matplotlib")
PLAIN = (
    "ambiguity calibrate checks classifier explain final_linear head inference labels lazy losses "
    "masked mismatch report shipped"
).split()


def resolved(node, package):
    """Return the full names that an import statement of a module in `package` may mean."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    source = node.module or ""
    if node.level:
        source = resolve_name("." * node.level + source, package)
    return [f"{source}.{alias.name}" for alias in node.names]


def imports(tree, package=PACKAGE.name):
    """Return (modules of the package, other packages) that a module imports, wherever in it."""
    ours = set()
    others = set()
    statements = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    for name in (name for node in statements for name in resolved(node, package)):
        top, _, rest = name.partition(".")
        if top == PACKAGE.name:
            ours.add(rest)
        else:
            others.add(top)
    return ours, others - set(sys.stdlib_module_names)


@cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


NAMES = {module_name(path): path for path in MODULES}


def known_module(name):
    """Return the module of the package that `name`, perhaps of something within it, belongs to."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name


def package_of(path):
    """Return the full name of the package that the module at `path` is in."""
    return ".".join([PACKAGE.name, *path.relative_to(PACKAGE).parent.parts])


def imported_modules(path):
    """Return the names of the package's modules that the module at `path` imports."""
    ours, _ = imports(parse(path), package_of(path))
    return {known_module(name) for name in ours} - {""}


def foundation(name):
    """Return all that `name` is built on, directly or not."""
    found = set()
    for below in BUILT_ON[name]:
        found |= {below} | foundation(below)
    return found


def test_imports_go_one_way(module):
    name = module_name(module)
    assert name in BUILT_ON, f"say in BUILT_ON, in this test, what {name} is built on"
    allowed = foundation(name) | {name}
    wrong = imported_modules(module) - allowed
    assert not wrong, f"{name} imports {sorted(wrong)}, and is built on {sorted(allowed)}"


def test_the_list_leads_nowhere_back():
    TopologicalSorter(BUILT_ON).prepare()  # CycleError names the modules


def test_the_list_holds_no_module_that_is_gone():
    gone = BUILT_ON.keys() - NAMES.keys()
    assert not gone, f"BUILT_ON names what is not in the package: {sorted(gone)}"


def test_every_module_has_one_notebook():
    owners = Counter()
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "code":
                owners.update(split_directives(cell)[0].get("default_exp", "").split())
    owners = Counter({name.removesuffix(".__init__"): n for name, n in owners.items()})
    twice = sorted(name for name, n in owners.items() if n > 1)
    assert not twice, f"more than one notebook has the default_exp {twice}"
    empty = {name for name, path in NAMES.items() if not parse(path).body}
    assert set(NAMES) - empty == set(owners), "modules, and what notebooks have as default_exp"


def test_no_module_hides_behind_a_folder_of_its_name():
    assert len(NAMES) == len(MODULES), "mismatch.py beside mismatch/, say: delete one of them"


def test_what_modules_import_is_required():
    required = {_canonical(Requirement(r).name) for r in settings()["requirements"].split()}
    provides = packages_distributions()
    for name, path in NAMES.items():
        tree = parse(path)
        # What a function imports may be optional.
        top = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
        for other in imports(ast.Module(top, []), package_of(path))[1]:
            names = {_canonical(d) for d in provides.get(other, [other])}
            message = f"{name} imports {other}, which settings.ini does not require"
            assert not names.isdisjoint(required), message


def _canonical(name):
    return name.lower().replace("_", "-")


@pytest.mark.parametrize(
    "line, package, ours, others",
    [
        ("from .data import x", "", {"data.x"}, set()),
        ("from . import head", "", {"head"}, set()),
        ("import torch.nn as nn, os", "", set(), {"torch"}),
        ("from multilabel_mnist.labels import *", "", {"labels.*"}, set()),
        ("from multilabel_mnist import head", "", {"head"}, set()),
        ("def f():\n    import sklearn.metrics", "", set(), {"sklearn"}),
        ("import multilabel_mnist.data", "", {"data"}, set()),
        ("from .facts import x", ".mismatch", {"mismatch.facts.x"}, set()),
        ("from ..checks import x", ".mismatch", {"checks.x"}, set()),
        ("from .. import facts", ".mismatch.causes", {"mismatch.facts"}, set()),
    ],
)
def test_imports_are_read(line, package, ours, others):
    assert imports(ast.parse(line), PACKAGE.name + package) == (ours, others)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_modules_import_torch_alone(name):
    code = f"""{NO_FASTAI}
importlib.import_module("multilabel_mnist.{name}")
print("heavy:", [m for m in {HEAVY} if m in sys.modules])
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "heavy: []" in done.stdout, done.stdout


USE = """
import numpy as np
import torch
from torch import nn
from torch.testing import assert_close

from multilabel_mnist.ambiguity import ambiguity, confused_pairs, label_suspicion
from multilabel_mnist.explain import explain
from multilabel_mnist.final_linear import final_linear
from multilabel_mnist.head import final_linear as same, head_table, replace_final_linear
from multilabel_mnist.inference import SigmoidCalibrator, SigmoidPreds, margins, tune_thresholds
from multilabel_mnist.labels import class_indices, one_hot
from multilabel_mnist.mismatch import diagnose

heavy = [m for m in HEAVY if m in sys.modules]
assert not heavy, heavy

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
x, y = torch.randn(40, 1, 4, 4), torch.arange(40) % 3

assert same is final_linear and final_linear(model) == ("3", model[3])
replace_final_linear(model, 4, prior=0.25)
assert_close(model(x).shape, torch.Size([40, 4]))

targets = one_hot(y, 4)
assert_close(targets.sum(1), torch.ones(40))
assert_close(class_indices(targets), y)

loss = nn.BCEWithLogitsLoss()
assert not diagnose(loss, model(x), y).ok
assert diagnose(loss, model(x), targets).ok
try:
    loss(model(x), y)
except ValueError as error:
    assert explain(error) is not None

assert list(head_table(model, x).layer)[-1].startswith("Linear")
logits = model(x).detach()
probs = logits.sigmoid()
assert margins(logits).shape == logits.shape
thresholds = tune_thresholds(probs, targets)
calibrated = SigmoidCalibrator().fit(logits, targets)(logits)
assert calibrated.shape == logits.shape
preds = SigmoidPreds(logits, vocab=list("abcd"), targs=targets, threshold=thresholds)
assert len(preds.verdicts) == len(preds.labels) == 40
assert preds.exact.shape == (40,)

assert len(ambiguity(probs)) == len(label_suspicion(probs, y)) == 40
assert confused_pairs(preds).shape == (4, 4)
"""


def test_public_names_work_without_fastai():
    done = run(sys.executable, "-c", f"{NO_FASTAI}\nHEAVY = {HEAVY}\n{USE}")
    assert done.returncode == 0, done.stdout[-4000:]
