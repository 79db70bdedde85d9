"""The benchmark runs, counts what it says and writes what it promises; no test looks at how fast this machine is."""
import json

import nbformat
import pytest
import torch
from benchmarks import __main__ as bench
from benchmarks import fitting, limit, loading, report, timing
from conftest import ROOT, run
from multilabel_mnist.training import digit_cnn
from tools import speed

RATIOS = {"a": {"fit_ours_over_loop", "fit_stock_over_ours"}, "b": {"load_ours_over_stock", "load_ours_over_indexing"}, "c": {"preds_ours_over_forward", "preds_predict_over_ours"},
          "d": {"step_onehot", "step_bce_onehot", "step_explain"}, "e": set()}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A quick run on the embedded digits: what it printed, and its results."""
    out = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as m, open(out / "said.txt", "w+") as said:
        m.setattr("sys.stdout", said)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            bench.main(["--quick", "--source", "embedded", "--repeats", "2", "--device", "cpu", "--out", str(out)])
        finally:
            torch.set_num_threads(threads)
        said.seek(0)
        return said.read(), json.loads((out / "results.json").read_text()), out


def test_every_ratio_has_its_name_and_every_repetition_is_kept(done):
    said, results, _ = done
    names = set().union(*RATIOS.values())
    assert names <= set(results["ratios"]) <= names | {"step_compose"}
    assert all(v > 0 for v in results["ratios"].values())
    assert set(results["parts"]) == set("abcde")
    single = ("physical limit",)
    for key, part in results["parts"].items():
        for row in part["rows"]:
            assert len(row["values"]) == (1 if any(s in row["name"] for s in single) else 2), (key, row["name"])
    for name in results["ratios"]:
        assert name in said


def test_it_says_where_and_with_what(done):
    said, results, out = done
    assert "the embedded digits, no MNIST figures" in said and results["digits"].startswith("the embedded digits") and results["quick"]
    assert results["versions"]["torch"] == torch.__version__.split("+")[0] and {"fastai", "python", "multilabel_mnist"} <= set(results["versions"])
    assert {"cpu", "cores", "torch threads", "device"} <= set(results["machine"])
    assert "physical limit" in said and (out / "bench.png").stat().st_size > 10_000
    assert (out / "bench.md").read_text().startswith("| ")
    assert ("step_compose is left out" in said) == ("step_compose" not in results["ratios"])


@pytest.mark.parametrize("words, told", [(["--only", "a,z"], "wanted some of a,b,c,d,e"), (["--only", ""], "wanted some of"), (["--repeats", "-1"], "wanted a number from 1 up")])
def test_wrong_words(words, told, capsys):
    with pytest.raises(SystemExit):
        bench.arguments(words)
    assert told in capsys.readouterr().err


def test_help_and_the_command():
    said = run("make", "-n", "bench", "SOURCE=embedded", "ARGS=--quick").stdout
    assert '-m benchmarks --source "embedded" --quick' in said
    assert "--source" not in run("make", "-n", "bench").stdout, "left to itself it takes MNIST where it is on disk"
    assert (ROOT / "benchmarks/explain_cost.py").exists()


def test_sides_take_turns():
    calls = []
    sides = {name: lambda r, name=name: calls.append((name, r)) for name in "xyz"}
    times = timing.in_turns(sides, 3)
    assert [n for n, r in calls] == ["x", "y", "z"] + ["x", "y", "z"] + ["y", "z", "x"] + ["z", "x", "y"]
    assert {n: len(ts) for n, ts in times.items()} == {"x": 3, "y": 3, "z": 3}
    assert timing.in_turns({"own": lambda r: 2. + r}, 3, warm_up=False) == {"own": [2., 3., 4.]}


def test_ratio_is_the_median_of_pairs():
    """One repetition in which the machine was busy for both sides changes nothing."""
    assert timing.ratio({"a": [2, 20, 2.2], "b": [1, 10, 1]}, "a", "b") == 2
    assert timing.spread([3, 1, 2]) == (2, 1, 3)


def test_operations_are_those_of_the_layers():
    """By hand: a convolution's forward pass takes 2 x outputs x weights of one output."""
    net, total = digit_cnn(), 0
    x = torch.zeros(1, 1, 28, 28)
    net.eval()
    for layer in [m for block in net for m in (block if isinstance(block, torch.nn.Sequential) else [block])]:
        x = layer(x)
        if hasattr(layer, "weight") and not isinstance(layer, torch.nn.BatchNorm2d):
            total += 2 * x[0].numel() * layer.weight[0].numel()
    step, forward = limit.operations(torch.device("cpu"))
    assert forward == total
    assert 2.5 * forward < step < 3 * forward  # the gradients of weights and of inputs; the first layer needs only the former


def test_hand_written_sides_do_the_same_work():
    """The loop's batches hold every picture once, and its validation gives the share that is right."""
    x, y = torch.randint(256, (10, 1, 28, 28), dtype=torch.uint8), torch.arange(10)
    batches = list(loading.indexed(x, y, 3, .5, 2.))
    assert [len(b) for b, _ in batches] == [3, 3, 3]
    for xb, yb in batches:
        torch.testing.assert_close(xb, (x[yb] / 255 - .5) / 2)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    loss, right = fitting.validate(model, x, y, 4, .5, 2.)
    logits = model((x / 255 - .5) / 2)
    assert abs(right - (logits.argmax(1) == y).float().mean().item()) < 1e-6
    assert abs(loss - torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.eye(10)).item()) < 1e-5


def test_report_reads_what_parts_give():
    parts = {"a": {"title": "t", "note": "n", "rows": [("ours: x", "s", [1., 3., 2.])], "ratios": {"r": .5}}}
    text = report.text_table(parts)
    assert "(a) t: n" in text and "ours: x" in text and "0.500" in text
    about = {"machine": {"cores": 2}, "versions": {"torch": "2"}, "digits": "MNIST", "date": "today", "repeats": 3}
    page = report.markdown_table(parts, about)
    assert "| ours: x | 2 | 1 to 3 | s |" in page and "| `r` | 0.500 |" in page and "On MNIST, today: cores 2, torch 2. (a) n. 3 repetitions" in page


def test_only_a_whole_run_on_mnist_gets_into_index(tmp_path):
    index, whole = tmp_path / "index.ipynb", {"quick": False, "digits": "MNIST", "parts": dict.fromkeys("abcde")}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("## Speed\n" + speed.MARK + "old")]), index)
    with pytest.raises(SystemExit, match="make bench first"):
        speed.main(tmp_path, index)
    (tmp_path / "bench.md").write_text("| new |")
    for change in ({"quick": True}, {"digits": "the embedded digits"}, {"parts": {"a": None}}):
        (tmp_path / "results.json").write_text(json.dumps(whole | change))
        with pytest.raises(SystemExit, match="not for the page"):
            speed.main(tmp_path, index)
    (tmp_path / "results.json").write_text(json.dumps(whole))
    speed.main(tmp_path, index)
    assert nbformat.read(index, 4).cells[0].source == "## Speed\n" + speed.MARK + "\n| new |"
