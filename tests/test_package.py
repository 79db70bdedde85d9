"""The wheel holds the package alone, with subfolders and weights, and works in an own environment.

Requirements and constraints agree.
"""

import json
import re
import shutil
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from conftest import MODULES, PACKAGE, ROOT, module_name, run, settings

SKIP = shutil.ignore_patterns(
    *(".*", "_build", "_docs", "_proc", "__pycache__"),
    *("build", "dist", "*.egg-info", "models", "images", "*.ipynb", "venv"),
)
FIND = """
import sys
from importlib.util import find_spec
print(*(find_spec(name) is not None for name in sys.argv[1:]))
"""
ONNX = {"onnx", "onnxscript", "onnxruntime"}
IMPORT = """
import importlib, json, sys
from importlib.metadata import requires, version
mods = [importlib.import_module(m) for m in sys.argv[1:]]
print(json.dumps({
    "files": [m.__file__ for m in mods],
    "version": mods[0].__version__,
    "requires": requires("multilabel_mnist"),
}))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the tree to build from, so that nothing is built inside the real one."""
    copy = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(ROOT, copy, ignore=SKIP)
    return copy


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """{'.gz': source distribution, '.whl': the wheel that was built from it}."""
    out = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    assert done.returncode == 0, done.stdout[-4000:]
    return {p.suffix: p for p in out.iterdir()}


def environment_of_its_own(folder):
    """Make an environment that borrows the installed requirements, but not the package.

    Return its Python.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    lib = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    # A path named in a .pth file joins sys.path, and the .pth files within it (the editable
    # package's) are not followed.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (lib / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")
    torch, package = run(python, "-c", FIND, "torch", PACKAGE.name, cwd=folder).stdout.split()
    assert (torch, package) == ("True", "False"), "torch is to be borrowed, the package is not"
    return python


def install(python, *what):
    """Install with no network and return the files of the installed package."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    done = run(*pip, "install", "--quiet", "--no-index", "--no-deps", *what)
    assert done.returncode == 0, done.stdout[-4000:]
    (folder,) = python.parent.parent.glob(f"lib/*/site-packages/{PACKAGE.name}")
    return package_files(folder)


def package_files(folder):
    """{path in the folder: bytes} of what belongs to the package, at any depth."""
    kinds = (".py", ".safetensors", ".md", ".js", ".css")
    files = [p for p in folder.rglob("*") if p.suffix in kinds]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_wheel_holds_the_package_alone(built):
    names = zipfile.ZipFile(built[".whl"]).namelist()
    package = {n for n in names if ".dist-info/" not in n}
    assert package == {f"{PACKAGE.name}/{name}" for name in package_files(PACKAGE)}
    assert [n for n in names if n.endswith("licenses/LICENSE")]


def test_wheel_works_in_an_environment_of_its_own(built, tmp_path):
    python = environment_of_its_own(tmp_path)
    assert install(python, built[".whl"]) == package_files(PACKAGE)
    modules = [f"{PACKAGE.name}.{module_name(path)}" for path in MODULES]
    done = run(python, "-c", IMPORT, PACKAGE.name, *modules, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(said["files"]) > 1
    assert all(f.startswith(str(tmp_path)) for f in said["files"]), said["files"]
    assert said["version"] == settings()["version"]
    required = {r.replace(" ", "") for r in said["requires"] if "extra" not in r}
    assert required == set(settings()["requirements"].split())


def test_a_subfolder_of_the_package_gets_into_the_wheel(source, tmp_path):
    """Whatever folders the package has today, one that it gets tomorrow is not forgotten."""
    tree = tmp_path / "tree"
    shutil.copytree(source, tree)
    deep = tree / PACKAGE.name / "made_up/deeper"
    deep.mkdir(parents=True)
    for folder in (deep.parent, deep):
        (folder / "__init__.py").write_text(f"name = '{folder.name}'\n", encoding="utf-8")
    (tree / "made_up_beside").mkdir()
    (tree / "made_up_beside/__init__.py").touch()
    python = environment_of_its_own(tmp_path / "venv")
    found = install(python, "--no-build-isolation", tree)
    assert {"made_up/__init__.py", "made_up/deeper/__init__.py"} <= found.keys()
    code = "from multilabel_mnist.made_up.deeper import name; print(name)"
    assert run(python, "-c", code, cwd=tmp_path / "venv").stdout.split() == ["deeper"]
    assert not list((tmp_path / "venv").glob("lib/*/site-packages/made_up_beside"))


def test_pip_install_of_the_tree_works(source, tmp_path):
    python = environment_of_its_own(tmp_path)
    assert install(python, "--no-build-isolation", source) == package_files(PACKAGE)


def test_metadata_comes_from_settings(built):
    wheel = zipfile.ZipFile(built[".whl"])
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    lines = wheel.read(name).decode().splitlines()
    cfg = settings()
    for line in (
        f"Name: {cfg['name']}",
        f"Version: {cfg['version']}",
        f"Summary: {cfg['description']}",
        f"Author: {cfg['author']}",
        f"License-Expression: {cfg['license']}",
        f"Requires-Python: >={cfg['min_python']}",
    ):
        assert line in lines, line


@pytest.mark.parametrize("extra, packages", [("widgets", {"anywidget"}), ("onnx", ONNX)])
def test_extras_bring_what_their_name_says(built, extra, packages):
    wheel = zipfile.ZipFile(built[".whl"])
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    lines = wheel.read(name).decode().splitlines()
    required = [line.split(": ")[1] for line in lines if line.startswith("Requires-Dist: ")]
    found = {Requirement(r).name for r in required if f'extra == "{extra}"' in r}
    assert f"Provides-Extra: {extra}" in lines and found == packages


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_constraints_pin_what_is_required():
    pinned = {name.lower().replace("_", "-"): v for name, v in pins().items()}
    cfg = settings()
    for text in (cfg["requirements"] + " " + cfg["dev_requirements"]).split():
        wanted = Requirement(text)
        name = wanted.name.lower()
        installed = version(wanted.name)
        assert name in pinned, f"constraints.txt has no {wanted.name}; run: make constraints"
        assert wanted.specifier.contains(pinned[name]), f"constraints.txt against {text}"
        assert wanted.specifier.contains(installed), f"installed is {wanted.name} {installed}"


def test_constraints_hold_on_any_machine():
    for name, number in pins().items():
        assert not re.match("nvidia|cuda|triton", name), f"{name} is for some machines only"
        assert re.fullmatch(r"[\w.]+", number), f"{name}=={number} is one build of a version"
