"""What is made from something else is in step with it: modules, README, pictures, version."""

import re
import shutil
from importlib.metadata import version

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from conftest import PACKAGE, ROOT, settings
from tools import export
from tools.readme import PICTURES, render


def python_files(folder):
    """{path in the folder: text} of its Python files, at any depth."""
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*.py")}


def test_modules_are_what_the_notebooks_export(tmp_path):
    ignore = shutil.ignore_patterns(".*", "images")
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=ignore)
    for name in ("pyproject.toml", "ruff.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / PACKAGE.name).mkdir()
    shutil.copy(PACKAGE / "__init__.py", tmp_path / PACKAGE.name)
    export.main(tmp_path)
    fresh = python_files(tmp_path / PACKAGE.name)
    here = python_files(PACKAGE)
    assert "_modidx.py" in fresh and len(fresh) > 2, f"nothing was exported: {sorted(fresh)}"
    differ = sorted(n for n in fresh.keys() | here.keys() if fresh.get(n) != here.get(n))
    assert not differ, f"run make export, and commit: {differ}"
    assert (tmp_path / "pyproject.toml").read_text(encoding="utf-8") == (
        ROOT / "pyproject.toml"
    ).read_text(encoding="utf-8")


def test_a_lesson_may_add_to_a_module_of_a_reference_chapter(tmp_path):
    """Reference chapters are exported first, and imports are absolute, of many lines or of one."""
    names = ", ".join(f"a_name_that_is_long_{i}" for i in range(6))
    notebooks = {
        "reference/checks": ["#| default_exp checks", f"#| export\n{names} = range(6)"],
        "reference/head": [
            "#| default_exp head",
            f"#| export\nfrom multilabel_mnist.checks import ({names})",
            "#| export\ndef in_chapter(): pass",
        ],
        "03_lesson": [
            "#| export head\nfrom multilabel_mnist.checks import a_name_that_is_long_0 as short",
            "#| export head\ndef in_lesson(): pass",
        ],
    }
    for name, sources in notebooks.items():
        path = tmp_path / "nbs" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=[new_code_cell(s) for s in sources]), path)
    for name in ("pyproject.toml", "ruff.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / PACKAGE.name).mkdir()
    export.main(tmp_path)
    head = python_files(tmp_path / PACKAGE.name)["head.py"]
    imported = re.findall(r"^from (\S+) import", head, re.M)
    assert imported == ["multilabel_mnist.checks", "multilabel_mnist.checks"]
    assert '__all__ = ["in_chapter", "in_lesson"]' in head
    assert head.index("def in_chapter") < head.index("def in_lesson")


def test_readme_is_made_from_index():
    text, pictures = render(ROOT / "nbs/index.ipynb")
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text, "run: make readme"
    folder = ROOT / "nbs" / PICTURES
    there = {f"nbs/{PICTURES}/{p.name}": p.read_bytes() for p in folder.glob("index_*.png")}
    assert there == pictures, "run: make readme"


def test_one_version():
    here = settings()["version"]
    assert version("multilabel_mnist") == here, (
        "the installed package has another version; any make command installs it anew"
    )
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {here}" in changes, f"CHANGELOG.md has no heading for {here}"
    for path, text in python_files(PACKAGE).items():
        own = re.search(r"^__version__ *= *['\"]", text, re.M)
        assert not own, f"{path} names a version of its own"
