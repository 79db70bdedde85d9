"""Beyond one machine: training by several processes, and verdicts that survive a kill.

Each process here is a real one.
"""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState
from fastai.data.all import get_image_files
from fastai.learner import Learner

from conftest import ROOT, run
from examples import train, verdicts
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.labels import BCEOneHotLossFlat
from multilabel_mnist.training import digit_cnn

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
    two, one = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("two", "one"))
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
    (res / "3" / "broken.png").write_text("no picture")
    (res / "notes.txt").write_text("no picture either, and not called one")
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
