"""How code is laid out: ruff's rules, and what ruff has no rule for."""

import ast
import subprocess

import nbformat
import pytest

from conftest import PACKAGE, ROOT, run, script

FOLDERS = ("multilabel_mnist", "tools", "benchmarks", "examples")
SOURCES = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name != "_modidx.py"
]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def test_format():
    done = run(script("ruff"), "format", "--check", "--no-cache", "--output-format=concise", ".")
    assert done.returncode == 0, f"run: make format\n{done.stdout}"


def test_lint():
    done = run(script("ruff"), "check", "--no-cache", "--output-format=concise", ".")
    assert done.returncode == 0, f"`make format` fixes some of these:\n{done.stdout}"


@pytest.mark.parametrize("folder, width", [("nbs", 88), ("nbs/reference", 100)])
def test_notebooks_are_linted_at_their_width(folder, width):
    """A comment of so many columns passes, and one that is longer by one is found."""
    for columns, found in ((width, False), (width + 1, True)):
        comment = "# a word ".ljust(columns - 1, "x").replace("xx", "x ") + "x"
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(comment + "\nx = 1")])
        command = [script("ruff"), "check", "--no-cache", "--output-format=concise", "-"]
        done = subprocess.run(
            [*command, "--stdin-filename", ROOT / folder / "made_up.ipynb"],
            input=nbformat.writes(nb),
            text=True,
            capture_output=True,
        )
        assert len(comment) == columns and ("E501" in done.stdout) is found, done


def nested_conditionals(tree):
    """Line numbers of conditional expressions that hold another one."""
    for outer in ast.walk(tree):
        if isinstance(outer, ast.IfExp):
            inner = [n for n in ast.walk(outer) if isinstance(n, ast.IfExp) and n is not outer]
            if inner:
                yield outer.lineno


def comprehension_depth(node):
    """How many comprehensions are inside each other here; each `for` of one counts."""
    inside = max((comprehension_depth(n) for n in ast.iter_child_nodes(node)), default=0)
    own = len(node.generators) if isinstance(node, COMPREHENSIONS) else 0
    return own + inside


def deep_comprehensions(tree):
    """Line numbers of comprehensions that go more than two deep."""
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS) and comprehension_depth(node) > 2:
            yield node.lineno


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def is_ours(node):
    """Does this `from ... import` read from the package, or from a module beside it?"""
    return node.level > 0 or (node.module or "").split(".")[0] in FOLDERS


def private_imports(tree):
    """Line numbers where another module's `_private` name is imported, or read as an attribute."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_ours(node):
            if any(is_private(a.name) for a in node.names):
                yield node.lineno
            modules |= {a.asname or a.name for a in node.names if a.name in MODULE_STEMS}
        elif isinstance(node, ast.Import):
            ours = [a for a in node.names if a.name.split(".")[0] in FOLDERS]
            modules |= {a.asname or a.name for a in ours}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if ast.unparse(node.value) in modules:
                yield node.lineno


MODULE_STEMS = {p.stem for p in SOURCES} | {p.parent.name for p in PACKAGE.rglob("__init__.py")}
RULES = {
    "nested conditional expression": nested_conditionals,
    "comprehension more than two deep": deep_comprehensions,
    "private name of another module": private_imports,
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_ruff_has_no_rule_for(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [f"line {line}: {what}" for what, rule in RULES.items() for line in set(rule(tree))]
    assert not found, f"{path.relative_to(ROOT)}: {found}"


@pytest.mark.parametrize(
    "rule, source",
    [
        (nested_conditionals, "x = a if b else c if d else e"),
        (nested_conditionals, "x = (a if b else c) if d else e"),
        (nested_conditionals, "x = a if b else f(c if d else e)"),
        (deep_comprehensions, "[[[x for x in y] for y in z] for z in w]"),
        (deep_comprehensions, "{x for w in v for y in w for x in y}"),
        (deep_comprehensions, "[f(x for x in y for y in z) for z in w]"),
        (private_imports, "from .data import _x"),
        (private_imports, "from multilabel_mnist.data import y, _x"),
        (private_imports, "from . import _data"),
        (private_imports, "from . import data\ndata._x"),
        (private_imports, "def f():\n    from .. import data as d\n    return d._x()"),
        (private_imports, "import multilabel_mnist.data\nmultilabel_mnist.data._x"),
        (private_imports, "import multilabel_mnist.data as d\nd._x"),
    ],
)
def test_the_rules_see(rule, source):
    assert list(rule(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "x = a if b else c\ny = [a if b else c for x in y]",
        "[[x for x in y] for y in z]",
        "from fastai.learner import _ConstantFunc\nself._x = torch._C",
        "from .data import __version__, x\nx._y",
        "data = 1\ndata._x",
    ],
)
def test_the_rules_let_pass(source):
    tree = ast.parse(source)
    assert not [line for rule in RULES.values() for line in rule(tree)]
