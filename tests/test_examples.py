"""Beyond one machine: training by several processes, and verdicts that survive a kill.

Each process here is a real one.
"""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState
from fastai.data.all import get_image_files
from fastai.learner import Learner
from PIL import Image
from torch import nn

from conftest import ROOT, run
from examples import train, verdicts
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.labels import BCEOneHotLossFlat
from multilabel_mnist.training import digit_cnn

try:
    import fcntl
    import resource
except ImportError:  # on Windows
    fcntl = resource = None
posix = pytest.mark.skipif(os.name == "nt", reason="names, pipes, locks and limits of POSIX")

SMALL = ["--source", "embedded", "--n-train", "512", "--epochs", "2", "--cpu"]


def ran(*command, **extra):
    done = run(sys.executable, *command, OMP_NUM_THREADS="1", **extra)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(autouse=True)
def one_process():
    """accelerate remembers its state for as long as a process lives."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    "norm, parts, precision",
    [("batch", 2, ["--double"]), ("group", 1, ["--double"]), ("group", 1, [])],
)
def test_two_processes_have_the_losses_of_one(norm, parts, precision, tmp_path):
    words = [*SMALL, *precision, "--norm", norm, "--results"]
    ran(*TORCHRUN, ROOT / "examples/train.py", *words, tmp_path / "two.json")
    train.main([*words, str(tmp_path / "one.json"), "--parts", str(parts)])
    two, one = (
        json.loads((tmp_path / f"{n}.json").read_text(encoding="utf-8")) for n in ("two", "one")
    )
    assert (one["processes"], two["processes"]) == (1, 2)
    assert len(one["losses"]) == 8 and one["losses"][-1] < 0.6 * one["losses"][0]
    torch.testing.assert_close(
        torch.tensor(two["losses"]),
        torch.tensor(one["losses"]),
        rtol=0,
        atol=1e-8 if precision else 1e-4,
    )
    if norm == "group":  # batch norm keeps only the averages of process 0's parts
        assert abs(one["exact"] - two["exact"]) < 0.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="what machines without a GPU are told")
@pytest.mark.parametrize(
    "words, reason",
    [
        (["--norm", "sync"], "needs GPUs"),
        (["--batch", "5", "--parts", "2"], "expected a multiple of 2.*got 5"),
        (["--learner"], "needs a GPU"),
    ],
)
def test_training_says_what_it_cannot_do(words, reason):
    with pytest.raises(SystemExit, match=reason):
        train.main(["--source", "embedded", *words])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported learner, whose weights need no training here."""
    dls = DigitDataLoaders.from_folder(digits_path("embedded"), device="cpu")
    learn = Learner(dls, digit_cnn(), loss_func=BCEOneHotLossFlat())
    file = tmp_path_factory.mktemp("model") / "export.pkl"
    learn.export(file)
    return learn, file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """360 digits in ten folders, and two files that are no images."""
    res = tmp_path_factory.mktemp("pictures")
    for f in get_image_files(digits_path("embedded") / "testing"):
        (res / f.parent.name).mkdir(exist_ok=True)
        (res / f.parent.name / f.name).symlink_to(f)
    (res / "3" / "broken.png").write_text("no picture", encoding="utf-8")
    (res / "notes.txt").write_text("no picture either, and not called one", encoding="utf-8")
    return res


def parts(out):
    return {p: p.stat().st_mtime_ns for p in out.glob("part-*.parquet")}


def test_verdicts_after_a_kill(model, folder, tmp_path):
    learn, pkl = model
    out = tmp_path / "out"
    sizes = ["--rows", "2", "--batch", "1", "--cpu"]
    command = [ROOT / "examples/verdicts.py", pkl, folder, out, *sizes]
    begun = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    told = []
    for line in begun.stdout:  # killed in the middle of a part, once it says that three are done
        told.append(line)
        if ": 3 of 181 parts" in line:
            begun.send_signal(signal.SIGKILL)
            break
    begun.stdout.close()
    assert begun.wait() == -signal.SIGKILL, "".join(told)
    before = parts(out)
    assert 3 <= len(before) < 181

    said = ran(*TORCHRUN, *command)  # two processes take up what one began
    assert "images/s" in said and "361 images in 181 parts" in said
    after = parts(out)
    assert len(after) == 181
    assert before.items() <= after.items(), "parts that were done are left alone"
    assert [p.name for p in out.iterdir() if p.name.startswith(".")] == []

    df = pd.read_parquet(out)
    wanted = sorted(str(f.relative_to(folder)) for f in folder.rglob("*.png"))
    assert sorted(df.path) == wanted, "an image is lost, or there twice"
    broken = df[df.path == "3/broken.png"].iloc[0]
    assert "broken.png" in broken.error and pd.isna(broken.verdict)
    df = df[df.error.isna()].sort_values("path")
    preds = sigmoid_preds(learn, [folder / p for p in df.path])
    assert list(df.verdict) == list(preds.verdicts)
    assert [list(o) for o in df.labels] == preds.labels
    torch.testing.assert_close(torch.tensor(df[learn.dls.vocab].to_numpy()), preds.probs)


def test_what_a_kill_left_is_not_read(model, folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".part-000000.parquet.99").write_bytes(b"half a part")
    command = [str(model[1]), str(folder), str(out), "--rows", "50", "--batch", "10", "--cpu"]
    verdicts.run(verdicts.arguments(command))
    assert len(pd.read_parquet(out)) == 361
    before = parts(out)
    verdicts.run(verdicts.arguments(command))
    assert "8 of my 8 are done" in capsys.readouterr().out and parts(out) == before
    with pytest.raises(ValueError, match="was begun with other settings"):
        verdicts.run(verdicts.arguments([*command, "--threshold", ".7"]))
    # in memory are the paths of one part and the images of one batch
    listed = pq.ParquetFile(out / "_files.parquet")
    groups = [listed.metadata.row_group(i) for i in range(listed.num_row_groups)]
    assert [group.num_rows for group in groups] == [50] * 7 + [11]
    assert [pq.ParquetFile(f).num_row_groups for f in sorted(before)] == [5] * 7 + [2]


@pytest.fixture
def few(folder, tmp_path):
    """A folder with six digits, to which a test adds its own."""
    res = tmp_path / "few"
    res.mkdir()
    for file in sorted((folder / "4").iterdir())[:6]:
        (res / file.name).symlink_to(file.resolve())
    return res


def run_verdicts(pkl, few, *words, out=None, rows=4, batch=3):
    """Run the script in this process; return its rows by path."""
    out = out or few.parent / "out"
    sizes = ["--rows", str(rows), "--batch", str(batch), "--cpu"]
    verdicts.run(verdicts.arguments([str(pkl), str(few), str(out), *sizes, *words]))
    df = pd.read_parquet(out)
    assert df.path.is_unique
    return df.set_index("path")


@posix
def test_each_bad_image_gets_its_row(model, few):
    good = sorted(few.iterdir())[0]
    content = good.read_bytes()
    Image.new("1", (20_000, 20_000)).save(few / "bomb.png")
    Image.new("1", (60_000, 1)).save(few / "thin.png")
    (few / "empty.jpg").touch()
    (few / "truncated.png").write_bytes(content[:100])
    (few / "broken.png").write_bytes(content[:12] + b"\0\1\2\3" + content[16:])
    (few / "folder.png").symlink_to(few.parent)
    (few / "nowhere.png").symlink_to("nowhere")
    os.mkfifo(few / "pipe.png")
    df = run_verdicts(model[1], few)
    bad = {"bomb", "empty", "truncated", "broken", "folder", "nowhere", "pipe"}
    assert {name.partition(".")[0] for name in df.index[df.error.notna()]} == bad
    assert len(df) == 6 + len(bad) + 1
    assert (df.verdict.isna() == df.error.notna()).all()
    assert "pipe or a device" in df.error["pipe.png"]
    assert "does not exist" in df.error["nowhere.png"]
    assert "pixels" in df.error["bomb.png"]
    assert df.drop(columns=["verdict", "labels", "error"])[df.error.isna()].notna().all(axis=None)


@posix
def test_names_that_are_not_utf_8(model, few):
    content = sorted(few.iterdir())[0].read_bytes()
    below = os.path.join(os.fsencode(few), b"fol\xe9der")
    os.mkdir(below)
    with open(os.path.join(below, b"d\xe9j\xe0.png"), "wb") as file:
        file.write(content)
    (few / "déjà \n vu.png").write_bytes(content)
    df = run_verdicts(model[1], few)
    assert {"fol\\xe9der/d\\xe9j\\xe0.png", "déjà \n vu.png"} < set(df.index)
    assert df.error.isna().all() and len(df) == 8


@posix
def test_a_folder_that_cannot_be_listed_has_a_row(model, few, monkeypatch):
    """Root may list every folder, so the error is made up."""
    (few / "closed").mkdir()
    (few / "closed/a.png").symlink_to(sorted(few.iterdir())[0].resolve())
    scandir = os.scandir

    def refuse(path):
        if os.fsencode(path).endswith(b"closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    df = run_verdicts(model[1], few)
    assert len(df) == 7
    assert "cannot be listed" in df.error["closed"] and "Permission denied" in df.error["closed"]
    assert df.error.notna().sum() == 1


def test_a_folder_without_images(model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").touch()
    with pytest.raises(SystemExit, match=r"expected images \(.png, .*\) below .*empty, got none"):
        run_verdicts(model[1], tmp_path / "empty")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["_lock"]


@posix
def test_two_runs_on_one_folder(model, few):
    out = few.parent / "out"
    out.mkdir()
    for kind, alone in ((fcntl.LOCK_EX, True), (fcntl.LOCK_SH, True), (fcntl.LOCK_EX, False)):
        with open(out / "_lock", "ab") as other:
            fcntl.flock(other, kind)
            with pytest.raises(SystemExit, match=f"another run is writing into {out}: wait"):
                verdicts.hold(out, alone)
    with open(out / "_lock", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(SystemExit, match="another run is writing"):
            run_verdicts(model[1], few)
        verdicts.hold(out, alone=False).close()  # as another process of the same run
    assert len(run_verdicts(model[1], few)) == 6
    assert len(run_verdicts(model[1], few)) == 6


def test_a_part_that_was_damaged_later_is_written_again(model, few):
    df = run_verdicts(model[1], few)
    out = few.parent / "out"
    part = out / "part-000000.parquet"
    content = part.read_bytes()
    rng = np.random.default_rng(0)
    schema = verdicts.schema_of(model[0].dls.vocab)
    rows = verdicts.rows_of(pq.ParquetFile(out / "_files.parquet"), 0)
    intact = pq.read_table(part)
    assert verdicts.is_whole(part, rows, schema)
    n_found = 0
    for position in rng.integers(0, len(content), 150):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        part.write_bytes(damaged)
        if verdicts.is_whole(part, rows, schema):  # the byte says nothing about the rows
            assert pq.read_table(part).equals(intact), position
        else:
            n_found += 1
    assert n_found > 75
    for damage in (b"", content[:100], content[:-1], b"x" * len(content)):
        part.write_bytes(damage)
        pd.testing.assert_frame_equal(run_verdicts(model[1], few), df)
    (out / "part-000001.parquet").replace(part)  # another part in its place
    pd.testing.assert_frame_equal(run_verdicts(model[1], few), df)
    (out / "_files.parquet").write_bytes(b"x")
    with pytest.raises(SystemExit, match="got a damaged file .*; remove"):
        run_verdicts(model[1], few)


@pytest.mark.parametrize("name", ["path", "verdict", "labels", "error"])
def test_classes_with_the_names_of_columns(few, name, tmp_path):
    root = tmp_path / "classes"
    for split in ("training", "testing"):
        for label in (name, "other"):
            (root / split / label).mkdir(parents=True)
            for i in range(2):
                Image.new("L", (28, 28), 100 * i).save(root / split / label / f"{i}.png")
    dls = DigitDataLoaders.from_folder(root, valid_pct=0, device="cpu")
    learn = Learner(dls, digit_cnn(2), loss_func=BCEOneHotLossFlat())
    learn.export(tmp_path / "export.pkl")
    df = run_verdicts(tmp_path / "export.pkl", few)
    c = dls.vocab.o2i[name]
    preds = sigmoid_preds(learn, [few / path for path in df.index])
    torch.testing.assert_close(
        torch.tensor(df[f"{name} (class {c})"].to_numpy()), preds.probs[:, c]
    )
    assert list(df.verdict) == list(preds.verdicts)
    assert set(df.columns) == {"verdict", "labels", "error", f"{name} (class {c})", "other"}


def test_a_learner_that_fails_on_any_image_ends_the_job(few, tmp_path):
    dls = DigitDataLoaders.from_folder(digits_path("embedded"), device="cpu")
    model = nn.Sequential(nn.Flatten(), nn.Linear(7, 10))  # for images of another size
    Learner(dls, model, loss_func=BCEOneHotLossFlat()).export(tmp_path / "export.pkl")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run_verdicts(tmp_path / "export.pkl", few)
    assert list((few.parent / "out").glob("part-*")) == []


def test_an_error_that_a_blank_image_has_too_is_nobody_elses(model, few, monkeypatch):
    """As when a GPU stops working in the middle: no image is blamed for it."""
    calls = []

    def stop_working(learn, items, **kwargs):
        calls.append(items)
        if len(calls) > 2:
            raise RuntimeError("the device is gone")
        return sigmoid_preds(learn, items, **kwargs)

    monkeypatch.setattr(verdicts, "sigmoid_preds", stop_working)
    with pytest.raises(RuntimeError, match="the device is gone"):
        run_verdicts(model[1], few)
    assert list((few.parent / "out").glob("part-*")) == []


LIMITED = """
import resource, sys
from examples import verdicts

size, *words = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
verdicts.run(verdicts.arguments(words))
"""


@pytest.mark.skipif(resource is None, reason="limits of POSIX")
@pytest.mark.parametrize("size, file", [(100, "_files.parquet"), (1600, "part-000000.parquet")])
def test_no_room_for_the_verdicts(model, few, size, file):
    """A limit on the size of files stands for a full disk."""
    out = few.parent / "out"
    words = [model[1], few, out, "--rows", 4, "--batch", 3, "--cpu"]
    done = run(sys.executable, "-B", "-c", LIMITED, size, *words)
    assert done.returncode == 1, done.stdout
    assert f"expected to write {file} into {out}, got: " in done.stdout
    assert "make the folder writable or free some space, and start again" in done.stdout
    assert not list(out.glob("part-*")) and not list(out.glob(".*"))
    assert len(run_verdicts(model[1], few, out=out)) == 6


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda a: [a[0] + "x", *a[1:]], "no file .*export.pklx"),
        (lambda a: [a[0], a[1] + "x", a[2]], "no folder .*fewx"),
        (
            lambda a: [*a, "--threshold", "nan"],
            "--threshold: expected a number from 0 to 1, got nan",
        ),
        (lambda a: [*a, "--rows", "0"], "--rows and --batch: expected numbers from 1 up"),
    ],
)
def test_wrong_words(model, few, capsys, change, told):
    words = [str(model[1]), str(few), str(few.parent / "out")]
    with pytest.raises(SystemExit):
        verdicts.arguments(change(words))
    assert re.search(told, capsys.readouterr().err)


def test_an_out_that_is_a_file(model, few):
    (few.parent / "out").touch()
    with pytest.raises(SystemExit, match="expected a folder that can be written, got: .*out"):
        run_verdicts(model[1], few)
