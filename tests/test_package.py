"""The wheel holds the package alone and works in an environment of its own; requirements and constraints agree."""
import json
import re
import shutil
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version

import pytest
from conftest import MODULES, PACKAGE, ROOT, run, settings
from packaging.requirements import Requirement

SKIP = shutil.ignore_patterns(".*", "_*", "build", "dist", "*.egg-info", "models", "images", "*.ipynb", "venv")
IMPORT = """
import importlib, json, sys
from importlib.metadata import requires, version
mods = [importlib.import_module(m) for m in sys.argv[1:]]
print(json.dumps(dict(files=[m.__file__ for m in mods], version=mods[0].__version__, requires=requires("multilabel_mnist"))))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the tree to build from, so that nothing is built inside the real one."""
    copy = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(ROOT, copy, ignore=SKIP)
    for path in PACKAGE.glob("_*.py"):
        shutil.copy(path, copy / PACKAGE.name)
    return copy


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """{'.gz': source distribution, '.whl': the wheel that was built from it}"""
    out = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    assert done.returncode == 0, done.stdout[-4000:]
    return {p.suffix: p for p in out.iterdir()}


def environment_of_its_own(folder):
    """A fresh environment that borrows the installed requirements, but not the package; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    lib = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    # A path named in a .pth file joins sys.path, and the .pth files within it (the editable package's) are not followed.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (lib / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    found = run(python, "-c", "from importlib.util import find_spec; print(bool(find_spec('torch')), find_spec('multilabel_mnist'))", cwd=folder)
    assert found.stdout.split() == ["True", "None"], "torch is to be borrowed, and the package is not"
    return python


def install(python, *what):
    """Installs with no network and returns the folder of the installed package's files, by name."""
    done = run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet", "--no-index", "--no-deps", *what)
    assert done.returncode == 0, done.stdout[-4000:]
    return {p.name: p.read_bytes() for p in python.parent.parent.glob(f"lib/*/site-packages/{PACKAGE.name}/*.py")}


def package_files():
    return {p.name: p.read_bytes() for p in PACKAGE.glob("*.py")}


def test_wheel_holds_the_package_alone(built):
    names = zipfile.ZipFile(built[".whl"]).namelist()
    package = {n for n in names if ".dist-info/" not in n}
    assert package == {f"{PACKAGE.name}/{p.name}" for p in PACKAGE.glob("*.py")}
    assert [n for n in names if n.endswith("licenses/LICENSE")]


def test_wheel_works_in_an_environment_of_its_own(built, tmp_path):
    python = environment_of_its_own(tmp_path)
    assert install(python, built[".whl"]) == package_files()
    done = run(python, "-c", IMPORT, PACKAGE.name, *(f"{PACKAGE.name}.{m.stem}" for m in MODULES), cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(said["files"]) > 1 and all(f.startswith(str(tmp_path)) for f in said["files"]), said["files"]
    assert said["version"] == settings()["version"]
    assert {r.replace(" ", "") for r in said["requires"] if "extra" not in r} == set(settings()["requirements"].split())


def test_pip_install_of_the_tree_works(source, tmp_path):
    assert install(environment_of_its_own(tmp_path), "--no-build-isolation", source) == package_files()


def test_metadata_comes_from_settings(built):
    wheel = zipfile.ZipFile(built[".whl"])
    text = wheel.read(next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))).decode()
    cfg = settings()
    for line in (f"Name: {cfg['name']}", f"Version: {cfg['version']}", f"Summary: {cfg['description']}", f"Author: {cfg['author']}",
                 f"License-Expression: {cfg['license']}", f"Requires-Python: >={cfg['min_python']}"):
        assert line in text.splitlines(), line


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_constraints_pin_what_is_required():
    pinned = {name.lower().replace("_", "-"): v for name, v in pins().items()}
    cfg = settings()
    for text in (cfg["requirements"] + " " + cfg["dev_requirements"]).split():
        wanted = Requirement(text)
        assert wanted.name.lower() in pinned, f"constraints.txt has no {wanted.name}; run: make constraints"
        assert wanted.specifier.contains(pinned[wanted.name.lower()]), f"constraints.txt against {text}"
        assert wanted.specifier.contains(version(wanted.name)), f"installed is {wanted.name} {version(wanted.name)}"


def test_constraints_hold_on_any_machine():
    for name, number in pins().items():
        assert not re.match("nvidia|cuda|triton", name), f"{name} is for some machines only"
        assert re.fullmatch(r"[\w.]+", number), f"{name}=={number} is one build of a version"
