"""What the recipe reaches: the sets are what they say, the numbers are right, the file is whole.

No test looks at how well a network trains.
"""

import ast
import json

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks import open_set, verdict_sets, verdicts
from conftest import ROOT
from multilabel_mnist.compose import ComposeDigits
from multilabel_mnist.data import DigitDataLoaders, digits_path

N = 12
LABELS = torch.arange(40) % 10
TARGETS = torch.eye(10)[LABELS]
IMAGES = torch.randint(0, 256, (40, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
SETS = {
    "half width": (verdict_sets.half_width_pairs, 2, 11),
    "MultiMNIST": (verdict_sets.multi_mnist, 2, 13),
    "three in a row": (verdict_sets.three_in_a_row, 3, 14),
}


@pytest.mark.parametrize("name", SETS)
def test_sets_are_bytes_with_the_digits_as_targets_and_reproducible(name):
    make, n_digits, seed = SETS[name]
    images, targets = make(IMAGES, TARGETS, n=N)
    assert images.dtype == torch.uint8 and images.shape == (N, 28, 28)
    assert targets.shape == (N, 10) and set(targets.unique().tolist()) == {0, 1}
    rows = drawn_rows(n_digits, seed)
    for target, row in zip(targets, rows, strict=True):
        assert target.nonzero().flatten().tolist() == sorted(set(LABELS[row].tolist()))
    again, _ = make(IMAGES, TARGETS, n=N)
    other, _ = make(IMAGES, TARGETS, n=N, seed=seed + 1)
    assert (again == images).all() and (other != images).any()


def drawn_rows(n_digits, seed, source=None):
    """The rows that a set is made of."""
    source = source or np.random.default_rng(seed)
    return verdict_sets.draw_rows(LABELS, N, n_digits, source, distinct=n_digits == 2)


def test_pairs_are_of_different_digits():
    rows = drawn_rows(2, seed=3)
    assert rows.shape == (N, 2) and (LABELS[rows[:, 0]] != LABELS[rows[:, 1]]).all()
    with pytest.raises(ValueError, match="groups differ"):
        verdict_sets.draw_rows(torch.zeros(5).long(), 2, 2, np.random.default_rng(0))


def resized(image, height, width):
    """An image in another size, as Pillow makes it; its BILINEAR filter is antialiased."""
    page = Image.fromarray(np.asarray(image, dtype="float32"))
    return np.asarray(page.resize((width, height), Image.Resampling.BILINEAR))


def assert_same_but_for_rounding(images, expected):
    assert np.abs(images.numpy().astype(float) - np.stack(expected)).max() < 0.51


def test_half_width_against_a_slow_computation():
    images, _ = verdict_sets.half_width_pairs(IMAGES, TARGETS, n=N)
    expected = []
    for left, right in drawn_rows(2, seed=11):
        halves = [resized(IMAGES[left], 28, 14), resized(IMAGES[right], 28, 14)]
        expected.append(np.concatenate(halves, axis=1))
    assert_same_but_for_rounding(images, expected)


def test_multi_mnist_against_a_slow_computation():
    images, _ = verdict_sets.multi_mnist(IMAGES, TARGETS, n=N)
    source = np.random.default_rng(13)
    rows = drawn_rows(2, 13, source)
    pages = np.zeros((N, 36, 36))
    moves = set()
    for k in range(2):
        down, right = source.integers(-4, 5, size=(2, N))
        moves |= {*down, *right}
        for i in range(N):
            top, left = 4 + down[i], 4 + right[i]
            pages[i, top : top + 28, left : left + 28] += IMAGES[rows[i, k]].numpy()
    assert {-4, 4} <= moves
    assert_same_but_for_rounding(images, [resized(page.clip(0, 255), 28, 28) for page in pages])


def test_three_in_a_row_against_a_slow_computation():
    images, _ = verdict_sets.three_in_a_row(IMAGES, TARGETS, n=N)
    expected = np.zeros((N, 28, 28))
    for i, row in enumerate(drawn_rows(3, seed=14)):
        height, width = (13, 13) if i % 2 == 0 else (22, 10)
        for digit, center in zip(row, (5, 14, 23), strict=True):
            small = resized(IMAGES[digit], height, width)
            for y in range(height):
                for x in range(width):
                    at = 14 - (height + 1) // 2 + y, center - width // 2 + x
                    if 0 <= at[1] < 28:
                        expected[i][at] = max(expected[i][at], small[y, x])
    assert_same_but_for_rounding(images, expected)


def test_what_is_not_on_the_page_is_cut_off():
    image = torch.arange(1, 5).reshape(1, 2, 2)
    page = verdict_sets.place(image, 3, torch.tensor([2]), torch.tensor([-1]))
    assert page.tolist() == [[[0, 0, 0], [0, 0, 0], [2, 0, 0]]]


def test_a_folder_of_images_of_any_size(tmp_path):
    digit = IMAGES[0].numpy() // 4
    Image.fromarray(digit).save(tmp_path / "a.png")
    (tmp_path / "more").mkdir()
    Image.fromarray(np.full((60, 30), 255, "uint8")).convert("RGB").save(tmp_path / "more/b.png")
    [(name, folder)] = verdict_sets.folder_sets([tmp_path]).items()
    images = folder.images
    assert name == tmp_path.name and images.dtype == torch.uint8
    assert folder.subfolders.tolist() == ["", "more"]
    assert (images[0].numpy() == digit).all()
    assert (images[1, :, 7:21] == 255).all()  # 14 columns wide, in the middle
    assert (images[1, :, :7] == 0).all() and (images[1, :, 21:] == 0).all()


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(SystemExit, match="image files"):
        verdict_sets.folder_sets([tmp_path])
    Image.new("L", (28, 28), 255).save(tmp_path / "a.png")
    with pytest.raises(SystemExit, match="dark pages"):
        verdict_sets.folder_sets([tmp_path])
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit, match="different names"):
        verdict_sets.folder_sets([tmp_path, tmp_path])


DIGITS = np.array([4.0, 3.0, 2.0, 1.0])
IS_RIGHT = np.array([True, True, False, True])
NO_DIGITS = np.array([0.5, 2.5])


def test_the_open_set_curve_by_hand():
    shares = {0: 0.5, 0.49: 0.5, 0.5: 0.75, 0.99: 0.75, 1: 0.75}
    for accepted, right in shares.items():
        assert open_set.named_right(DIGITS, IS_RIGHT, NO_DIGITS, accepted) == right
    assert open_set.curve_area(DIGITS, IS_RIGHT, NO_DIGITS) == (1 + 1 + 0 + 0.5) / 4
    assert open_set.auroc(DIGITS, NO_DIGITS) == 6 / 8
    assert open_set.curve_area(np.array([2.5]), np.array([True]), NO_DIGITS) == 0.75  # half a tie


def test_named_right_where_95_percent_are_rejected():
    numbers = open_set.trade_off(np.array([18.5, 19.0, 19.5, 30]), IS_RIGHT, np.arange(1.0, 21))
    assert numbers["named right"] == 0.25  # above 19, of 1 to 20, and named right: 30 alone
    assert len(numbers["curve"]) == len(open_set.ACCEPTED) <= 50
    assert numbers["curve"] == sorted(numbers["curve"]) and numbers["curve"][-1] == 0.75
    assert numbers["curve"][open_set.ACCEPTED.index(0.05)] == numbers["named right"]


def test_the_area_is_that_below_the_curve_and_auroc_if_all_are_named_right():
    source = np.random.default_rng(0)
    digits, no_digits = source.normal(1, 1, 50), source.normal(0, 1, 30)
    is_right = source.random(50) < 0.8
    steps = [open_set.named_right(digits, is_right, no_digits, k / 30) for k in range(30)]
    assert np.isclose(open_set.curve_area(digits, is_right, no_digits), np.mean(steps))
    by_sklearn = roc_auc_score(np.repeat([1, 0], [50, 30]), np.r_[digits, no_digits])
    area = open_set.curve_area(digits, np.ones(50, dtype=bool), no_digits)
    assert np.isclose(area, by_sklearn) and np.isclose(open_set.auroc(digits, no_digits), area)


def test_scores_of_logits():
    logits = torch.tensor([[0.0, 2.0, -1.0]], dtype=torch.double)
    found = {name: score(logits).item() for name, score in open_set.SCORES["softmax"].items()}
    exp = np.exp([0, 2, -1])
    assert np.isclose(found["largest probability"], np.log(exp[1] / (exp[0] + exp[2])))
    assert found["largest logit"] == 2 and np.isclose(found["energy"], np.log(exp.sum()))
    joint = open_set.SCORES["recipe"]["joint energy"](logits).item()
    assert np.isclose(joint, np.log(1 + exp).sum())


def test_certain_answers_are_still_told_apart():
    logits = torch.tensor([[0.0, 40.0], [0.0, 50.0]])
    assert (logits.softmax(1)[:, 1] == 1).all()
    for network, scores in open_set.SCORES.items():
        certain, more_certain = scores["largest probability"](logits.double())
        assert certain < more_certain, network
    found = open_set.trade_offs("recipe", logits, torch.tensor([1, 1]), logits[:1])
    assert found["largest probability"]["AUROC"] == 0.75


def test_the_two_highest_of_a_pair():
    targets = torch.tensor([[1.0, 0, 1], [1, 0, 1], [0, 1, 1]])
    probs = torch.tensor([[0.3, 0.1, 0.2], [0.3, 0.25, 0.2], [0.1, 0.9, 0.8]])
    assert np.isclose(verdicts.two_highest_share(probs, targets), 2 / 3)


def test_label_suspicion_finds_rejected_labels():
    probs = torch.tensor([[0.9, 0.1]]).repeat(200, 1)
    labels = torch.zeros(200).long()
    labels[[20, 50]] = 1
    is_rejected = np.isin(np.arange(200), [20, 199])
    found = verdicts.suspicion_scores(probs, labels, is_rejected)
    # 20 is surprising, and so is 50. 199 is one of 198 others, of which 98 come into the first 100.
    assert np.isclose(found[verdicts.N_FOUND], 1 + 98 / 198)
    assert np.isclose(found[verdicts.AVERAGE_PRECISION], (1 / 2 + 2 / 200) / 2)
    probs[:, 0] -= torch.linspace(0, 0.1, 200)
    assert verdicts.suspicion_scores(probs, labels, is_rejected)[verdicts.N_FOUND] == 2


def test_rejected_labels_are_those_of_the_lesson_on_people():
    nb = nbformat.read(ROOT / "nbs/07a_people.ipynb", as_version=4)
    cells = [cell.source for cell in nb.cells if cell.source.find("\nvotes = {") >= 0]
    [votes] = [
        ast.literal_eval(line.value)
        for line in ast.parse(cells[0]).body
        if isinstance(line, ast.Assign) and line.targets[0].id == "votes"
    ]
    rejected = [i for i, (_, _, for_label, _, _) in votes.items() if for_label < 3]
    assert rejected == list(verdicts.REJECTED_LABELS)


NO_SIGNS = verdict_sets.NoDigits(IMAGES[:3], np.array(["a", "b", "b"]))


def test_shares_by_subfolder():
    fires = torch.tensor([[0.9, 0.1], [0.2, 0.1], [0.4, 0.6]])
    found = verdicts.scores_by_subfolder(lambda images: fires, {"signs": NO_SIGNS})
    assert found == {"signs": {"a": 0, "b": 0.5}}


def test_on_mnist_there_are_rows_for_every_goal():
    dls = DigitDataLoaders.from_folder(digits_path("embedded"), valid_pct=0)
    folders = {"signs": NO_SIGNS}
    questions = verdicts.make_questions(dls, True, folders)
    assert len(questions.elsewhere["one digit"][0]) == 1797
    scores = verdicts.scores_of(lambda images: torch.zeros(len(images), 10), questions)
    goals = verdicts.goals_for(True, folders)
    measured = {"seconds", "parameters"}
    measured |= {verdicts.named_right_row("signs", digits) for digits in questions.digits()}
    assert set(goals) - set(scores) == measured
    assert scores["signs: none"] == scores["false none"] == 1 and scores["half width"] == 0
    assert verdicts.LESS_IS_BETTER <= set(goals)


def test_table_and_goals():
    runs = [{"exact": 0.9, "false none": 0.02, "seconds": 3.0}]
    runs.append({"exact": 0.7, "false none": 0.04, "seconds": 5.0})
    nothing = {"exact": 0.0, "false none": 1.0}
    goals = {"exact": 0.8, "false none": 0.02}
    found = verdicts.table(runs, {"predict nothing": nothing}, goals)
    assert found.loc["exact"].tolist() == [80, 70, 90, 80, 0]
    assert found.loc["seconds"].tolist()[:3] == [4, 3, 5]
    assert verdicts.missed(runs, goals) == ["false none"]
    assert verdicts.missed(runs, {"exact": 0.81, "false none": 0.03}) == ["exact"]


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """The words of a run of one epoch on the embedded digits, its file and what it printed."""
    out = tmp_path_factory.mktemp("verdicts")
    signs = out / "signs"
    signs.mkdir()
    for i, page in enumerate(IMAGES[:5].numpy() // 3):
        Image.fromarray(page).save(signs / f"{i}.png")
    words = ["--source", "embedded", "--epochs", "1", "--none", str(signs)]
    words += ["--out", str(out / "verdicts.json")]
    with (
        pytest.MonkeyPatch.context() as patch,
        open(out / "said.txt", "w", encoding="utf-8") as said,
    ):
        patch.setattr("sys.stdout", said)
        verdicts.main([*words, "--seeds", "7"])
    return words, out / "verdicts.json", (out / "said.txt").read_text(encoding="utf-8")


def check_whole(results):
    """Rows, goals, tables and curves are there, and the tables are those of the runs."""
    scores = [run["scores"] for run in results["runs"]]
    rows = set(scores[0])
    assert all(set(of_run) == rows for of_run in scores)
    assert set(results["table"]) == rows and set(results["goals"]) <= rows
    for name, row in results["table"].items():
        scale = 1 if name in verdicts.NOT_SHARES else 100
        values = [scale * of_run[name] for of_run in scores]
        assert row["mean"] == pytest.approx(np.mean(values), abs=0.006)
        assert row["smallest"] == pytest.approx(min(values), abs=0.006)
        assert row["largest"] == pytest.approx(max(values), abs=0.006)
        assert "softmax" in row
    assert results["missed"] == verdicts.missed(scores, results["goals"])
    n_points = len(results["settings"]["accepted"])
    for network, run in [
        ("softmax", results["softmax"]),
        *(("recipe", r) for r in results["runs"]),
    ]:
        assert list(run["open set"]) == ["letters", *results["settings"]["folders"]]
        for by_digits in run["open set"].values():
            for by_score in by_digits.values():
                assert set(by_score) == set(open_set.SCORES[network])
                assert all(len(numbers["curve"]) == n_points for numbers in by_score.values())
    expected = verdicts.open_set_table(results["runs"], results["softmax"])
    assert results["open-set table"] == expected


def test_a_run_is_kept_with_what_it_comes_from(short_run):
    _, out, said = short_run
    results = json.loads(out.read_text(encoding="utf-8"))
    assert [run["seed"] for run in results["runs"]] == [7]
    check_whole(results)
    about, settings = results["about"], results["settings"]
    assert about["command"] == (
        "python -m benchmarks.verdicts --source embedded --seeds 7 --epochs 1 --none signs"
    )
    assert about["versions"]["torch"] and about["machine"]["cpu"]
    assert settings["folders"] == ["signs"] and settings["images"]["signs: none"] == 5
    assert settings["epochs"] == settings["softmax"]["epochs"] == 1
    share = results["runs"][0]["scores"]["signs: none"]
    assert results["runs"][0]["by subfolder"] == {"signs": {"": share}}
    assert not [row for row in results["table"] if row.startswith(("other", "label"))]
    assert str(out.parent) not in out.read_text(encoding="utf-8")
    assert all(row in said for row in results["table"]) and "missed by the mean: " in said


def test_a_run_goes_on_where_it_stopped(short_run, monkeypatch):
    words, out, _ = short_run
    before = json.loads(out.read_text(encoding="utf-8"))
    trained = []

    def measure(network, train, questions):
        trained.append((network, train.args[1]))
        return {name: value for name, value in before["runs"][0].items() if name != "seed"}

    monkeypatch.setattr(verdicts, "measure", measure)
    verdicts.main([*words, "--seeds", "7", "8", "--resume"])
    after = json.loads(out.read_text(encoding="utf-8"))
    assert trained == [("recipe", 8)]
    assert after["runs"][0] == before["runs"][0] and after["softmax"] == before["softmax"]
    assert [run["seed"] for run in after["runs"]] == [7, 8]
    check_whole(after)


def test_runs_with_other_settings_are_not_mixed(short_run):
    words, out, _ = short_run
    before = out.read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="other settings"):
        verdicts.main([*words, "--epochs", "2", "--resume"])
    assert out.read_text(encoding="utf-8") == before


@pytest.mark.skipif(not verdicts.OUT.exists(), reason="the recipe has not been measured yet")
def test_the_results_that_lessons_read_are_whole_and_of_todays_recipe():
    text = verdicts.OUT.read_text(encoding="utf-8")
    assert len(text) < 60_000
    results = json.loads(text)
    settings = results["settings"]
    assert settings["digits"] == "MNIST" and settings["n_train"] == 60_000
    assert settings["epochs"] == "the recipe's own"
    assert settings["compose"] == repr(ComposeDigits())
    assert len({run["seed"] for run in results["runs"]}) == len(results["runs"]) >= 3
    assert results["goals"] == verdicts.goals_for(True, settings["folders"])
    check_whole(results)
