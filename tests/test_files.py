"""How the project reads and writes its own files: whole or not at all, and in UTF-8."""

import ast
import errno
import json
import os
import re
import time
from multiprocessing import get_context

import pytest

from benchmarks import __main__ as bench
from benchmarks import ablation
from conftest import ROOT
from tools import speed
from tools.files import LEFTOVER_AGE, beside, write_whole

try:
    import resource
except ImportError:  # on Windows
    resource = None

FOLDERS = ("multilabel_mnist", "tools", "benchmarks", "examples", "tests")
SOURCES = [ROOT / "setup.py", *(p for f in FOLDERS for p in sorted((ROOT / f).rglob("*.py")))]


def mode_of(call):
    """Return the mode in which `open` or `Path.open` opens a file; None for another function."""
    is_builtin = ast.unparse(call.func) in ("open", "io.open")
    is_method = isinstance(call.func, ast.Attribute) and call.func.attr == "open"
    if not is_builtin and not is_method:
        return None
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    modes = modes or call.args[1 if is_builtin else 0 :][:1]
    mode = ast.literal_eval(modes[0]) if modes and isinstance(modes[0], ast.Constant) else "r"
    is_mode = isinstance(mode, str) and re.fullmatch("[rwaxbt+]+", mode)
    return (
        mode if is_builtin or (is_mode and modes and isinstance(modes[0], ast.Constant)) else None
    )


def without_encoding(tree):
    """Yield the calls that read or write text in whatever encoding the machine prefers."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if any(keyword.arg == "encoding" for keyword in call.keywords):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else None
        mode = mode_of(call)
        if name in ("read_text", "write_text") or (mode is not None and "b" not in mode):
            yield call


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_read_and_write_of_text_names_its_encoding(path):
    found = without_encoding(ast.parse(path.read_text(encoding="utf-8")))
    assert not [f"line {call.lineno}: {ast.unparse(call)}" for call in found]


@pytest.mark.parametrize(
    "source, n",
    [
        ("open('a')", 1),
        ("open(a, 'w')", 1),
        ("open(a, mode='a+')", 1),
        ("io.open(a)", 1),
        ("a.open('w')", 1),
        ("a.read_text()", 1),
        ("a.write_text(b)", 1),
        ("open(a, 'rb')", 0),
        ("a.open('wb')", 0),
        ("open(a, encoding='utf-8')", 0),
        ("a.write_text(b, encoding='utf-8')", 0),
        ("Image.open(a)", 0),
        ("tarfile.open('a.tgz', 'w:gz')", 0),
        ("a.read_bytes()", 0),
    ],
)
def test_the_rule_sees(source, n):
    assert len(list(without_encoding(ast.parse(source)))) == n


def test_what_a_killed_write_left_is_removed_later(tmp_path):
    path = tmp_path / "a.txt"
    names = [".a.123.txt", ".a.456.txt", ".a.b.txt", ".other.123.txt"]
    old, recent, *others = [tmp_path / name for name in names]
    for file in (old, recent, *others):
        file.touch()
    long_ago = time.time() - 2 * LEFTOVER_AGE
    for file in (old, *others):
        os.utime(file, (long_ago, long_ago))
    write_whole(path, "new")
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", *names[1:]}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_no_room_leaves_the_old_file_and_says_so(tmp_path, monkeypatch, number):
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def fail(file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    told = f"expected to write a.txt into {tmp_path}, got: {os.strerror(number)}; free some space"
    with pytest.raises(OSError, match=told) as caught:
        write_whole(path, "new")
    assert caught.value.errno == number
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def limited(path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    write_whole(path, "new" * 1000)


@pytest.mark.skipif(resource is None, reason="limits of POSIX")
def test_a_limit_on_the_size_of_files(tmp_path):
    """A limit on the size of files stands for a full disk."""
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    told = f"expected to write a.txt into {tmp_path}, got: File too large; free some space"
    with get_context("fork").Pool(1) as pool, pytest.raises(OSError, match=told):
        pool.apply(limited, [path])
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path):
    told = f"expected to write a.txt into {tmp_path / 'x'}, got: No such file"
    with pytest.raises(FileNotFoundError, match=told), beside(tmp_path / "x/a.txt") as new:
        new.touch()


WHOLE = {"quick": False, "digits": "MNIST", "parts": dict.fromkeys(bench.PARTS)}


@pytest.mark.parametrize(
    "content",
    [json.dumps(WHOLE)[:n] for n in range(0, len(json.dumps(WHOLE)), 7)]
    + ["null", "[]", "1", "{}", '{"parts": null}', '{"parts": [], "quick": 0}'],
)
def test_half_a_results_json_gets_a_sentence(tmp_path, content):
    page = tmp_path / "README.md"
    (tmp_path / "bench.md").write_text("| new |", encoding="utf-8")
    (tmp_path / "results.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        SystemExit, match=f"in {tmp_path}, got a damaged results.json .*bench again"
    ):
        speed.main(tmp_path, page)
    assert not page.exists()


def test_results_without_their_table_get_a_sentence(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(WHOLE), encoding="utf-8")
    with pytest.raises(SystemExit, match="there is no .*/bench.md yet: call make bench first"):
        speed.main(tmp_path, tmp_path / "README.md")


def test_half_of_an_ablation_gets_a_sentence(tmp_path):
    out = tmp_path / "ablation.json"
    out.write_text('{"settings": {', encoding="utf-8")
    args = ablation.arguments(["--out", str(out), "--resume"])
    with pytest.raises(SystemExit, match="got a damaged file .*: remove it"):
        ablation.earlier_runs(args, {})
