"""The benchmark runs, counts what it says and writes what it promises.

No test looks at how fast this machine is.
"""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import __main__ as bench
from benchmarks import (
    diagnosing,
    fitting,
    goals,
    importing,
    limit,
    loading,
    report,
    scaling,
    timing,
    waiting,
)
from multilabel_mnist.mismatch import diagnose
from multilabel_mnist.training import digit_cnn
from tools import speed

RATIOS = {
    "a": {"fit_ours_over_loop", "fit_ours_over_limit", "fit_stock_over_ours"},
    "b": {"load_ours_over_stock", "load_ours_over_indexing"},
    "c": {"preds_ours_over_forward", "preds_predict_over_ours"},
    "d": {"step_onehot", "step_bce_onehot", "step_explain", "step_compose"},
    "e": set(),
    "f": {f"import_{name}" for name in importing.MODULES[:2]},
    "g": {f"{name}_over_{size}" for name in scaling.CALLS for size in "NC"},
    "h": {"recipe_over_float32"},
    "i": set(),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A quick run on the embedded digits: what it printed, its results and its folder."""
    out = tmp_path_factory.mktemp("bench")
    words = ["--quick", "--source", "embedded", "--repeats", "2", "--device", "cpu"]
    threads = torch.get_num_threads()
    with (
        pytest.MonkeyPatch.context() as patch,
        open(out / "said.txt", "w+", encoding="utf-8") as said,
    ):
        patch.setattr("sys.stdout", said)
        patch.setattr(importing, "MODULES", importing.MODULES[:2])  # test_imports tries them all
        patch.setattr(waiting, "run_python", lambda *words: None)  # it takes minutes
        torch.set_num_threads(1)
        try:
            bench.main([*words, "--out", str(out)])
        finally:
            torch.set_num_threads(threads)
        said.seek(0)
        return said.read(), json.loads((out / "results.json").read_text(encoding="utf-8")), out


def test_every_ratio_has_its_name_and_every_repetition_is_kept(done):
    said, results, _ = done
    assert set(results["ratios"]) == set().union(*RATIOS.values())
    times = {name: v for name, v in results["ratios"].items() if name not in RATIOS["g"]}
    assert all(v > 0 for v in times.values())
    # Exponents: 0 if the time stays the same, 1 if it grows in proportion, 2 if with the square.
    assert all(-2 < results["ratios"][name] < 3 for name in RATIOS["g"])
    assert set(results["parts"]) == set(RATIOS)
    for key, part in results["parts"].items():
        assert part["rows"]
        for row in part["rows"]:
            once = key == "i" or "physical limit" in row["name"]
            wanted = 1 if once else 2
            assert len(row["values"]) == wanted, (key, row["name"])
            assert all(value > 0 for value in row["values"]) or row["unit"] == "%"
    for name in results["ratios"]:
        assert name in said


def test_it_says_where_and_with_what(done):
    said, results, out = done
    assert "the embedded digits, no MNIST figures" in said
    assert results["digits"].startswith("the embedded digits") and results["quick"]
    assert results["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"fastai", "python", "multilabel_mnist"} <= set(results["versions"])
    assert {"cpu", "cores", "torch threads", "device"} <= set(results["machine"])
    assert "physical limit" in said
    assert (out / "bench.png").stat().st_size > 10_000
    assert (out / "bench.md").read_text(encoding="utf-8").startswith("| ")


def test_imports_are_those_of_the_modules_that_need_torch_alone(done):
    _, results, _ = done
    names = [row["name"] for row in results["parts"]["f"]["rows"]]
    modules = importing.MODULES[:2]
    wanted = [f"import multilabel_mnist.{name}, after torch" for name in modules]
    assert names == ["import torch", *wanted]
    with pytest.raises(importing.subprocess.CalledProcessError):
        importing.import_seconds("torch", "multilabel_mnist.nothing_of_the_sort")


def test_parts_are_added_to_those_of_an_earlier_run(done, tmp_path):
    _, results, out = done
    shutil.copy(out / "results.json", tmp_path)
    words = ["--quick", "--source", "embedded", "--repeats", "2", "--device", "cpu", "--only", "e"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bench.main([*words, "--add", "--out", str(tmp_path)])
        again = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        with pytest.raises(SystemExit, match="the same repeats"):
            bench.main([*words, "--repeats", "3", "--add", "--out", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    assert again["parts"].keys() == results["parts"].keys() and again["ratios"] == results["ratios"]
    assert again["parts"]["a"] == results["parts"]["a"]
    assert again["parts"]["e"] != results["parts"]["e"]


def test_a_command_that_fails_is_told_and_has_no_time(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    waiting.run_python("-c", "import os; assert 'OMP_NUM_THREADS' not in os.environ")
    with pytest.raises(RuntimeError, match="(?s)failed:.*a notebook is broken"):
        waiting.run_python("-c", "raise SystemExit('a notebook is broken')")
    told = []
    monkeypatch.setattr(waiting, "COURSE", ("-c", "raise SystemExit('a notebook is broken')"))
    monkeypatch.setattr(waiting, "TESTS", ("-c", "pass"))
    part = waiting.run(SimpleNamespace(quick=True, say=told.append))
    assert [row[0] for row in part["rows"]] == ["make test"]
    assert "make course FAILED" in part["note"] and "a notebook is broken" in told[1]


@pytest.mark.parametrize(
    "value, outcome", [(1.08, "at most 1.08"), (1.081, "at most 1.08, missed")]
)
def test_a_goal_that_is_missed_is_told(value, outcome):
    part = {"title": "speed", "note": "once", "rows": [], "ratios": {"fit_ours_over_loop": value}}
    about = {"machine": {}, "versions": {}, "digits": "MNIST", "date": "today", "repeats": 1}
    assert f"| {outcome} |" in report.markdown_table({"a": part}, about)
    assert report.text_table({"a": part}).endswith(f"({outcome})")


def test_every_goal_is_that_of_something_measured(done):
    _, results, _ = done
    rows = {row["name"] for part in results["parts"].values() for row in part["rows"]}
    ratios = set(results["ratios"]) | {f"import_{name}" for name in importing.MODULES}
    assert set(goals.AT_MOST) | set(goals.AT_LEAST) <= rows | ratios


@pytest.mark.parametrize(
    "words, told",
    [
        (["--only", "a,z"], "expected some of a,b,c,d,e,f,g,h,i, got a,z"),
        (["--only", ""], "expected some of a,b,c,d,e,f,g,h,i, got none"),
        (["--repeats", "-1"], "expected a number from 1 up, got -1"),
        (["--repeats", "0"], "expected a number from 1 up, got 0"),
    ],
)
def test_wrong_words(words, told, capsys):
    with pytest.raises(SystemExit):
        bench.arguments(words)
    assert told in capsys.readouterr().err


def test_sides_take_turns():
    calls = []
    sides = {name: lambda r, name=name: calls.append((name, r)) for name in "xyz"}
    times = timing.in_turns(sides, 3)
    order = "".join(name for name, _ in calls)
    assert order == "xyz" + "xyz" + "yzx" + "zxy"
    assert {name: len(taken) for name, taken in times.items()} == {"x": 3, "y": 3, "z": 3}
    own = timing.in_turns({"own": lambda r: 2.0 + r}, 3, warm_up=False)
    assert own == {"own": [2.0, 3.0, 4.0]}


def test_ratio_is_the_median_of_pairs():
    """One repetition in which the machine was busy for both sides changes nothing."""
    assert timing.ratio({"a": [2, 20, 2.2], "b": [1, 10, 1]}, "a", "b") == 2
    assert timing.spread([3, 1, 2]) == (2, 1, 3)


def test_operations_are_those_of_the_layers():
    """By hand: a convolution's forward pass takes 2 x outputs x weights of one output."""
    net = digit_cnn().eval()
    layers = []
    for block in net:
        layers += list(block) if isinstance(block, nn.Sequential) else [block]
    x = torch.zeros(1, 1, 28, 28)
    total = 0
    for layer in layers:
        x = layer(x)
        if hasattr(layer, "weight") and not isinstance(layer, nn.BatchNorm2d):
            total += 2 * x[0].numel() * layer.weight[0].numel()
    step, forward = limit.operations(torch.device("cpu"))
    assert forward == total
    # The gradients of weights and of inputs; the first layer needs only the former.
    assert 2.5 * forward < step < 3 * forward


def test_hand_written_sides_do_the_same_work():
    """The loop's batches hold every image once, and its validation returns the accuracy."""
    x = torch.randint(256, (10, 1, 28, 28), dtype=torch.uint8)
    y = torch.arange(10)
    batches = list(loading.indexed(x, y, 3, 0.5, 2.0))
    assert [len(b) for b, _ in batches] == [3, 3, 3]
    for xb, yb in batches:
        torch.testing.assert_close(xb, (x[yb] / 255 - 0.5) / 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    loss, accuracy = fitting.validate(model, x, y, 4, 0.5, 2.0)
    logits = model((x / 255 - 0.5) / 2)
    bce = nn.functional.binary_cross_entropy_with_logits(logits, torch.eye(10))
    assert abs(accuracy - (logits.argmax(1) == y).float().mean().item()) < 1e-6
    assert abs(loss - bce.item()) < 1e-5


def test_cases_are_what_their_names_say():
    for name, case in diagnosing.cases().items():
        found = diagnose(*case)
        assert found.ok == name.startswith("nothing wrong"), (name, found)


def test_growth_is_an_exponent():
    smaller, larger = ({"seconds": [t, t, 9 * t]} for t in (1.0, 16.0))
    assert scaling.exponent(larger, smaller) == 2


def test_peak_memory_is_what_a_call_takes_at_most():
    size = 40_000_000

    def call():
        first = bytearray(size)
        del first
        second = bytearray(size)
        return len(second)

    assert 0.95 * size < scaling.peak(call) < 1.5 * size
    assert scaling.peak(lambda: None) < 0.1 * size


def test_report_reads_what_parts_give():
    rows = [("ours: x", "s", [1.0, 3.0, 2.0])]
    parts = {"a": {"title": "t", "note": "n", "rows": rows, "ratios": {"r": 0.5}}}
    text = report.text_table(parts)
    assert "(a) t: n" in text and "ours: x" in text and "0.500" in text
    about = {
        "machine": {"cores": 2},
        "versions": {"torch": "2"},
        "digits": "MNIST",
        "date": "today",
        "repeats": 3,
    }
    page = report.markdown_table(parts, about)
    for piece in (
        "| ours: x | 2 | 1 to 3 | s |",
        "| `r` | 0.500 |",
        "On MNIST, today: cores 2, torch 2. (a) n. 3 repetitions",
    ):
        assert piece in page


def test_only_a_whole_run_on_mnist_gets_onto_the_page(tmp_path):
    page = tmp_path / "README.md"
    whole = {"quick": False, "digits": "MNIST", "parts": dict.fromkeys(bench.PARTS)}
    page.write_text("# Speed\n" + speed.MARK + "old", encoding="utf-8")
    with pytest.raises(SystemExit, match="make bench first"):
        speed.main(tmp_path, page)
    (tmp_path / "bench.md").write_text("| new |", encoding="utf-8")
    some = dict.fromkeys(list(bench.PARTS)[1:])
    for change in ({"quick": True}, {"digits": "the embedded digits"}, {"parts": some}):
        (tmp_path / "results.json").write_text(json.dumps(whole | change), encoding="utf-8")
        with pytest.raises(SystemExit, match="not for the page"):
            speed.main(tmp_path, page)
    (tmp_path / "results.json").write_text(json.dumps(whole), encoding="utf-8")
    speed.main(tmp_path, page)
    assert page.read_text(encoding="utf-8") == "# Speed\n" + speed.MARK + "\n| new |\n"
