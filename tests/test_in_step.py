"""What is made from something else is in step with it: modules, README, pictures, version."""
import re
import shutil
from importlib.metadata import version

from conftest import PACKAGE, ROOT, run, script, settings
from tools.readme import PICTURES, render


def test_modules_are_what_the_notebooks_export(tmp_path):
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".*", "images"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / PACKAGE.name).mkdir()
    shutil.copy(PACKAGE / "__init__.py", tmp_path / PACKAGE.name)
    done = run(script("nbdev-export"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    fresh, here = ({p.name: p.read_text(encoding="utf-8") for p in folder.glob("*.py")} for folder in (tmp_path / PACKAGE.name, PACKAGE))
    assert "_modidx.py" in fresh and len(fresh) > 2, f"nothing was exported: {sorted(fresh)}"
    differ = sorted(n for n in fresh.keys() | here.keys() if fresh.get(n) != here.get(n))
    assert not differ, f"run make export, and commit: {differ}"
    assert (tmp_path / "pyproject.toml").read_text() == (ROOT / "pyproject.toml").read_text()


def test_readme_is_made_from_index():
    text, pictures = render(ROOT / "nbs/index.ipynb")
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text, "run: make readme"
    there = {f"nbs/{PICTURES}/{p.name}": p.read_bytes() for p in (ROOT / "nbs" / PICTURES).glob("index_*.png")}
    assert there == pictures, "run: make readme"


def test_one_version():
    here = settings()["version"]
    assert version("multilabel_mnist") == here, "the installed package has another version; any make command installs it anew"
    assert f"\n## {here}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), f"CHANGELOG.md has no heading for {here}"
    for path in PACKAGE.glob("*.py"):
        assert not re.search(r"^__version__ *= *['\"]", path.read_text(encoding="utf-8"), re.M), f"{path.name} names a version of its own"
