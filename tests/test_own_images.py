"""The benchmark on images of one's own draws what it says, and its results are whole."""

import json

import pytest
import torch

from benchmarks import own_images as own
from multilabel_mnist.compose import ComposeDigits
from multilabel_mnist.compose_images import ComposeImages, read_background

LOOKS = {name: look for name, (_, look, _) in own.SETS.items()}


def masks(n=12):
    mask = torch.zeros(n, 1, 28, 28)
    mask[..., 6:22, 10:18] = 1
    return mask


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_pages_are_what_they_are_called_and_ink_differs_from_them(look):
    source = own.seeded(0)
    images = own.draw([masks(64)], look, source)
    expected = "uniform" if look.page == "colored" else look.page
    assert images.shape == (64, look.n_channels, look.size, look.size)
    assert read_background(images).kind == expected
    middle, corner = images[..., look.size // 2, look.size // 2], images[..., 0, 0]
    assert ((middle - corner).abs().amax(1) > 0.39).all()


def test_a_pair_holds_both_masks_each_in_an_ink_of_its_own():
    left, right = masks(), masks().roll(8, 3)
    images = own.draw([left, right], LOOKS["color digits, colored pages"], own.seeded(0))
    inks = images[..., 32, 26], images[..., 32, 44]
    page = images[..., 0, 0]
    for ink in inks:
        assert ((ink - page).abs().amax(1) > 0.39).all()
    assert ((inks[0] - inks[1]).abs().amax(1) > 0.01).all()


def test_fonts_and_signs_of_the_test_are_not_trained_on():
    assert not set(own.TEST_FONTS) & set(own.train_fonts())
    assert len(own.train_fonts()) + len(own.TEST_FONTS) == len(own.FONTS)
    for tested, given in (own.NO_DIGITS, own.NO_LETTERS):
        assert not set(tested) & set(given)
    assert not set("".join(own.NO_LETTERS)) & set(own.LETTERS)
    upright, labels = own.characters("AB", [3], each=2)
    assert upright.shape == (4, 1, 28, 28) and labels.tolist() == [0, 0, 1, 1]


def test_a_short_run_is_kept_with_what_it_comes_from_and_goes_on(tmp_path):
    out = tmp_path / "own.json"
    words = ["--source", "embedded", "--n-train", "130", "--images", "130", "--out", str(out)]
    own.main([*words, "--only", "letters"])
    first = json.loads(out.read_text(encoding="utf-8"))
    transforms = own.SETS["letters"][2]
    assert [run["transform"] for run in first["runs"]] == list(transforms)
    assert first["about"]["command"] == own.COMMAND
    assert set(first["baselines"]["letters"]) == {
        "predict nothing",
        "predict the most frequent class",
    }
    own.main([*words, "--only", "letters", "--seeds", "0", "1", "--resume"])
    both = json.loads(out.read_text(encoding="utf-8"))["runs"]
    assert both[: len(transforms)] == first["runs"]
    assert [run["seed"] for run in both] == [0] * len(transforms) + [1] * len(transforms)
    with pytest.raises(SystemExit, match="other settings"):
        own.main(["--source", "embedded", "--n-train", "140", "--out", str(out), "--resume"])


def test_the_results_that_the_chapter_reads_are_whole_and_of_todays_transforms():
    results = json.loads(own.OUT.read_text(encoding="utf-8"))
    assert results["settings"]["digits"] == "MNIST"
    today = [repr(ComposeDigits()), repr(ComposeImages(negatives=torch.zeros(1, 8, 8)))]
    assert results["settings"]["transforms"] == today
    seeds = {run["seed"] for run in results["runs"]}
    done = sorted((run["set"], run["transform"], run["seed"]) for run in results["runs"])
    expected = [(n, how, s) for n, (_, _, hows) in own.SETS.items() for how in hows for s in seeds]
    assert done == sorted(expected)
    columns = {"one", "overlapping", "side by side", "noise", "blank", "signs"}
    for scores in [run["scores"] for run in results["runs"]]:
        assert set(scores) == columns and all(0 <= score <= 1 for score in scores.values())
    for name in own.SETS:
        nothing = results["baselines"][name]["predict nothing"]
        assert nothing == dict.fromkeys(columns, 1.0) | {
            "one": 0.0,
            "overlapping": 0.0,
            "side by side": 0.0,
        }
