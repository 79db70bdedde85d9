"""The ablation trains what it says, goes on where it stopped, and its results are today's."""

import json
from itertools import pairwise

import pytest

from benchmarks import ablation
from multilabel_mnist.compose import ComposeDigits

RECIPE = ComposeDigits().shares | ComposeDigits().of_all
RUNGS = ablation.shares_by_rung()
LAST = f"+ {list(ablation.INGREDIENTS)[-1]}"


def test_each_rung_adds_one_ingredient_and_the_last_has_all():
    assert sorted(sum(ablation.INGREDIENTS.values(), ())) == sorted(RECIPE)
    ladder = [RUNGS["BCE alone"]] + [RUNGS[f"+ {name}"] for name in ablation.INGREDIENTS]
    assert not any(ladder[0].values())
    for (before, after), added in zip(pairwise(ladder), ablation.INGREDIENTS.values(), strict=True):
        assert after == before | {argument: RECIPE[argument] for argument in added}
    assert ladder[-1] == RECIPE


def test_without_an_ingredient_all_others_are_there():
    for name, added in list(ablation.INGREDIENTS.items())[:-1]:
        assert RUNGS[f"without {name}"] == RECIPE | dict.fromkeys(added, 0)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """The words of a run of two short trainings on the embedded digits, and its file."""
    out = tmp_path_factory.mktemp("ablation") / "ablation.json"
    words = ["--source", "embedded", "--n-train", "200", "--epochs", "1", "--out", str(out)]
    ablation.main([*words, "--seeds", "7", "--only", "BCE alone", LAST])
    return words, out


def test_each_run_is_kept_with_what_it_comes_from(short_run):
    _, out = short_run
    results = json.loads(out.read_text(encoding="utf-8"))
    assert [(run["name"], run["seed"]) for run in results["runs"]] == [
        ("BCE alone", 7),
        (LAST, 7),
    ]
    for run in results["runs"]:
        assert {"exact", "letters", "small", "cut up", "three"} <= set(run["scores"])
        assert not [name for name in run["scores"] if name.startswith("elsewhere")]
    assert results["settings"]["epochs"] == 1 and results["settings"]["shares"] == RECIPE
    assert results["about"]["command"] == ablation.COMMAND
    assert results["about"]["versions"]["torch"] and results["about"]["machine"]["cpu"]


def test_a_run_goes_on_where_it_stopped(short_run):
    words, out = short_run
    before = json.loads(out.read_text(encoding="utf-8"))["runs"]
    ablation.main([*words, "--seeds", "7", "8", "--only", "BCE alone", "--resume"])
    after = json.loads(out.read_text(encoding="utf-8"))["runs"]
    assert after[:2] == before
    assert [(run["name"], run["seed"]) for run in after[2:]] == [("BCE alone", 8)]


def test_runs_with_other_settings_are_not_mixed(short_run):
    words, out = short_run
    before = out.read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="other settings"):
        ablation.main([*words[:4], "--epochs", "2", "--out", str(out), "--resume"])
    assert out.read_text(encoding="utf-8") == before


def test_the_results_that_lessons_read_are_whole_and_of_todays_recipe():
    results = json.loads(ablation.OUT.read_text(encoding="utf-8"))
    settings, runs = results["settings"], results["runs"]
    assert settings["digits"] == "MNIST" and settings["shares"] == RECIPE
    seeds = {run["seed"] for run in runs}
    assert len(seeds) >= 3
    done = [(run["name"], run["seed"]) for run in runs]
    assert sorted(done) == sorted((name, seed) for name in RUNGS for seed in seeds)
    columns = set(runs[0]["scores"])
    assert {"exact", "overlapping", "letters", "elsewhere: exact"} <= columns
    for run in runs:
        assert set(run["scores"]) == columns
        assert all(0 <= score <= 1 for score in run["scores"].values())
