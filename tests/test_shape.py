"""Small cells, functions and modules, and imports that go one way."""
import ast
import sys
from importlib.metadata import packages_distributions

import nbformat
import pytest
from conftest import MODULES, ROOT, settings
from packaging.requirements import Requirement
from tools.notebooks import split_directives

CHAIN = ["data", "labels", "training", "calibrate", "inference", "draw", "compose", "ambiguity"]
PARTS = {p.stem for p in MODULES if p.stem.startswith("mismatch_")}  # of mismatch, which is longer than one module
SIBLINGS = {name: set(CHAIN[:i]) for i, name in enumerate(CHAIN)} | {"mismatch": PARTS, "explain": {"mismatch"}, "head": set()} | dict.fromkeys(PARTS, PARTS)
SOURCES = [p for folder in ("multilabel_mnist", "tools", "benchmarks", "examples") for p in sorted((ROOT / folder).glob("*.py")) if p.name != "_modidx.py"]


def imports(tree):
    """(names of sibling modules, names of other packages) that a module imports, wherever in it."""
    siblings, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            dots = "multilabel_mnist." if node.level else ""
            names = [dots + node.module] if node.module else [dots + a.name for a in node.names]
            if names == ["multilabel_mnist"]:
                names = [f"multilabel_mnist.{a.name}" for a in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            (siblings if top == "multilabel_mnist" else others).add(rest.partition(".")[0] if top == "multilabel_mnist" else top)
    return siblings, others - set(sys.stdlib_module_names)


def test_cells_are_short(notebook):
    code = [c.source for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]
    long = [f"{n} lines: {split_directives(c)[1].splitlines()[0]}" for c in code if (n := len(c.splitlines())) > 30]
    assert not long, f"cells of more than 30 lines: {long}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_modules_and_functions_are_short(path):
    source = path.read_text(encoding="utf-8")
    lines = len(source.splitlines())
    assert lines <= 250, f"{path.name} has {lines} lines"
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    long = {f.name: n for f in functions if (n := f.end_lineno - f.lineno + 1) > 40}
    assert not long, f"more than 40 lines: {long}"


def test_imports_go_one_way(module):
    assert module.stem in SIBLINGS, f"say in this test which modules {module.stem} may import"
    siblings, others = imports(ast.parse(module.read_text(encoding="utf-8")))
    assert siblings <= SIBLINGS[module.stem], f"{module.stem} imports {sorted(siblings - SIBLINGS[module.stem])}"
    if module.stem in {"mismatch"} | PARTS:
        assert others <= {"torch"}, "mismatch and its parts import torch alone"


def test_what_modules_import_is_required():
    required = {Requirement(r).name.lower().replace("_", "-") for r in settings()["requirements"].split()}
    provides = packages_distributions()
    for module in MODULES:
        tree = ast.parse(module.read_text(encoding="utf-8"))
        tree.body = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]  # what a function imports may be optional
        for name in imports(tree)[1]:
            names = {d.lower().replace("_", "-") for d in provides.get(name, [name])}
            assert not names.isdisjoint(required), f"{module.stem} imports {name}, which settings.ini does not require"


@pytest.mark.parametrize("line, siblings, others", [
    ("from .data import x", {"data"}, set()), ("from . import head", {"head"}, set()), ("import torch.nn as nn, os", set(), {"torch"}),
    ("from multilabel_mnist.labels import *", {"labels"}, set()), ("from multilabel_mnist import head", {"head"}, set()),
    ("def f():\n    import sklearn.metrics", set(), {"sklearn"}), ("import multilabel_mnist.data", {"data"}, set())])
def test_imports_are_read(line, siblings, others):
    assert imports(ast.parse(line)) == (siblings, others)
