"""ComposeImages on any background, size and color: what is laid over what, targets, negatives."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders
from fastai.torch_core import TensorImage, TensorMultiCategory
from fastcore.test import expect_fail
from PIL import Image
from torch.testing import assert_close
from torch.utils.data import DataLoader

from multilabel_mnist.compose_images import (
    ComposeImages,
    Negatives,
    page_color,
    read_background,
    unite_targets,
)
from multilabel_mnist.draw import RandomSource
from multilabel_mnist.labels import one_hot

N, C = 32, 5
GENERATOR = torch.Generator().manual_seed(0)
BACKGROUNDS = ("dark", "light", "uniform", "photo")
SHARES = ComposeImages(negatives=torch.zeros(1, 8, 8)).shares
NOTHING = dict.fromkeys(SHARES, 0.0) | {"nudged": 0.0}


@pytest.fixture(autouse=True)
def same_images_in_each_test():
    GENERATOR.manual_seed(0)


def random(*shape):
    return torch.rand(shape, generator=GENERATOR)


def blobs(n=N, n_channels=1, size=28):
    """Return clouds of gray in the middle of black pages."""
    images = F.interpolate(random(n, n_channels, 6, 6), (size // 2, size // 2), mode="bilinear")
    return F.pad(images, [size // 4] * 4).clamp(0, 1)


def made(background, n_channels=3, size=28):
    """Return N images on a background."""
    ink = blobs(N, 1, size)
    if background == "dark":
        return ink.expand(-1, n_channels, -1, -1).clone()
    if background == "light":
        return 1 - ink.expand(-1, n_channels, -1, -1)
    if background == "uniform":
        page, color = random(N, n_channels, 1, 1), random(N, n_channels, 1, 1)
        return page + (color - page) * ink
    coarse = random(N, n_channels, 4, 4)
    return F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)


TARGETS = one_hot(torch.arange(N) % C, C)


def compose(images, targets=TARGETS, seed=0, background=None, negatives=None, **shares):
    """Apply only the given shares; return images and targets."""
    settings = {"seed": seed, "background": background, "negatives": negatives}
    return ComposeImages(**NOTHING | shares, **settings).encodes((images, targets))


def source(seed=0):
    return RandomSource(generator=torch.Generator().manual_seed(seed))


# ---- what the background is


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_background_is_read_from_the_edges(background, n_channels):
    images = made(background, n_channels)
    found = read_background(images)
    assert found.kind == background
    assert found.n_images == N
    assert read_background((images * 255).byte()).kind == background
    tfm = ComposeImages()
    assert tfm.background is None
    tfm.encodes((images, TARGETS))
    assert tfm.background == background
    assert tfm.found == found
    assert f"background='{background}'" in repr(tfm)
    assert str(found).startswith(background)


def test_a_given_background_is_not_read():
    tfm = ComposeImages(background="photo")
    tfm.encodes((made("dark"), TARGETS))
    assert tfm.background == "photo"
    assert tfm.found is None


def test_the_shares_of_the_rule_are_those_that_its_docstring_names():
    dark, light, photo = (made(b)[:20] for b in ("dark", "light", "photo"))
    assert read_background(torch.cat([dark[:15], photo[:5]])).kind == "dark"
    assert read_background(torch.cat([dark[:14], photo[:6]])).kind == "photo"
    assert read_background(torch.cat([dark[:18], light[:2]])).kind == "dark"
    assert read_background(torch.cat([dark[:17], light[:3]])).kind == "uniform"
    assert read_background(torch.cat([light[:18], dark[:2]])).kind == "light"
    for brightness, kind in ((0.32, "dark"), (0.34, "uniform"), (0.66, "uniform"), (0.68, "light")):
        assert read_background(torch.full((4, 3, 9, 9), brightness)).kind == kind


def test_the_page_is_the_median_along_the_edges():
    image = torch.full((1, 1, 28, 28), 0.9)
    image[..., :10, :] = 0.2  # less than half of what is along the edges
    image[..., 4:-4, 4:-4] = 0.0
    assert_close(page_color(image), torch.full((1, 1, 1, 1), 0.9))


# ---- two images in one, by background


def only(kind, images, background=None):
    """Compose every image of the batch with the one after it, and no other way."""
    tfm = ComposeImages(**NOTHING | {kind: 1.0}, background=background, seed=0)
    return tfm.encodes((images, TARGETS))[0]


def in_place(monkeypatch):
    """Let images stay where they are, and pick partner i + 1 for image i."""
    from multilabel_mnist import compose_images

    def shifted(self, n, *shape):
        return (torch.arange(n) + 1) % n if shape == (n,) else torch.zeros(shape).long()

    monkeypatch.setattr(compose_images, "affine", lambda images, *placement: images)
    monkeypatch.setattr(RandomSource, "randint", shifted)
    monkeypatch.setattr(RandomSource, "randperm", lambda self, n: torch.arange(n))


def test_light_on_dark_is_laid_over_by_the_maximum(monkeypatch):
    in_place(monkeypatch)
    images = made("dark", 1)
    assert_close(only("overlapping", images), torch.maximum(images, images.roll(-1, 0)))


def test_dark_on_light_is_laid_over_by_the_minimum(monkeypatch):
    in_place(monkeypatch)
    images = made("light", 1)
    assert_close(only("overlapping", images), torch.minimum(images, images.roll(-1, 0)))


def test_colored_ink_keeps_its_color_on_a_page_of_another_color(monkeypatch):
    in_place(monkeypatch)
    page = torch.tensor([[0.1, 0.3, 0.8], [0.7, 0.6, 0.2]])[:, :, None, None]
    ink = torch.tensor([[0.9, 0.9, 0.1], [0.9, 0.1, 0.1]])[:, :, None, None]
    images = page.expand(2, 3, 28, 28).clone()
    images[0, :, 6:12, 6:12] = ink[0]
    images[1, :, 16:22, 16:22] = ink[1]
    tfm = ComposeImages(**NOTHING | {"overlapping": 1.0}, seed=0)
    both = tfm.encodes((images, one_hot(torch.arange(2), 2)))[0]
    assert tfm.background == "uniform"
    expected = images[0].clone()
    expected[:, 16:22, 16:22] = ink[1]
    assert_close(both[0], expected)


def test_ink_that_would_vanish_on_the_other_page_is_averaged(monkeypatch):
    in_place(monkeypatch)
    white_on_black = torch.zeros(1, 1, 28, 28)
    white_on_black[..., 6:12, 6:12] = 1
    black_on_white = torch.ones(1, 1, 28, 28)
    black_on_white[..., 16:22, 16:22] = 0
    images = torch.cat([white_on_black, black_on_white])
    tfm = ComposeImages(**NOTHING | {"overlapping": 1.0}, seed=0)
    both = tfm.encodes((images, one_hot(torch.arange(2), 2)))[0]
    assert_close(both, images.mean(0, keepdim=True).expand(2, -1, -1, -1))


def test_photographs_overlap_as_a_mean_or_with_one_cut_into_a_corner():
    flat = torch.linspace(0, 1, N).view(N, 1, 1, 1).expand(N, 3, 32, 32).clone()
    pairs, targets = compose(flat, background="photo", overlapping=1.0)
    n_values = [len(image.unique().round(decimals=4).unique()) for image in pairs]
    assert 0 < sum(n == 1 for n in n_values) < N  # means of two flat images are flat
    cut_in = pairs[[n > 1 for n in n_values]]
    assert len(cut_in) > 3
    for image, original in zip(pairs, flat, strict=True):
        values = image[0].round(decimals=4)
        if len(values.unique()) > 1:
            kept = (values - original[0]).abs() < 1e-3
            assert 0.5 < kept.float().mean() < 0.9  # most of the first one stays
            corners = kept[[0, 0, -1, -1], [0, -1, 0, -1]]
            assert corners.sum() == 3  # and the other one is in a corner
    assert (targets >= TARGETS).all()


def test_photographs_side_by_side_fill_a_half_each(monkeypatch):
    in_place(monkeypatch)
    flat = torch.linspace(0, 1, N).view(N, 1, 1, 1).expand(N, 3, 33, 32).clone()
    halves = only("side_by_side", flat, "photo")
    partner = flat.roll(-1, 0)
    beside = torch.cat([flat[..., :16], partner[..., 16:]], 3)
    stacked = torch.cat([flat[..., :16, :], partner[..., 16:, :]], 2)
    is_beside = (halves - beside).flatten(1).abs().amax(1) < 1e-5
    is_stacked = (halves - stacked).flatten(1).abs().amax(1) < 1e-5
    assert (is_beside | is_stacked).all()
    assert is_beside.any() and is_stacked.any()


def test_side_by_side_on_a_page_leaves_both_images_whole():
    dots = torch.zeros(N, 1, 56, 56)
    dots[..., 26:30, 26:30] = 1.0
    pairs, _ = compose(dots, side_by_side=1.0)
    ink = pairs.sum((1, 2, 3))
    assert (ink > 2 * 16 * 0.5**2 * 0.9).all() and (ink < 2 * 16 * 0.8**2 * 1.1).all()
    across = pairs[..., 24:32, :].sum((1, 2, 3)) / ink > 0.9
    down = pairs[..., 24:32].sum((1, 2, 3)) / ink > 0.9
    assert (across | down).all() and across.any() and down.any()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_mosaic_holds_four_images_at_half_their_size(background, monkeypatch):
    in_place(monkeypatch)
    images = made(background, size=32)
    mosaic = only("mosaic", images)
    half = F.avg_pool2d(images, 2)
    assert_close(mosaic[..., :16, :16], half)
    assert_close(mosaic[..., 16:, 16:], half.roll(-1, 0))


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_what_a_smaller_image_leaves_free_shows_the_page(background):
    images = made(background, size=32)
    alone, targets = compose(images, alone=1.0)
    assert_close(targets, TARGETS)
    assert (alone != images).flatten(1).any(1).all()
    if background != "photo":
        assert_close(page_color(alone), page_color(images))


# ---- targets


def test_the_target_of_a_pair_is_the_union_and_of_a_mosaic_of_four():
    for kind, most in (("overlapping", 2), ("side_by_side", 2), ("mosaic", 4)):
        for background in BACKGROUNDS:
            _, targets = compose(made(background), background=background, **{kind: 1.0})
            n_classes = targets.sum(1)
            assert (targets >= TARGETS).all()  # the image itself is one of the parts
            assert n_classes.max() == most
            assert ((targets == 0) | (targets == 1)).all()


def test_targets_of_several_and_of_none_are_united():
    several_and_none = TARGETS.clone()
    several_and_none[::2] = 0
    several_and_none[1::4, :3] = 1
    nothing = torch.zeros_like(TARGETS)
    for background in BACKGROUNDS:
        images = made(background)
        _, targets = compose(images, several_and_none, overlapping=0.5, mosaic=0.5)
        assert (targets >= several_and_none).all()
        assert targets.amax() == 1
        # Two images of no class show none.
        assert compose(images, nothing, overlapping=0.5, mosaic=0.5)[1].sum() == 0


def test_unknown_targets_stay_unknown_unless_a_part_shows_the_class():
    nan = torch.nan
    a = torch.tensor([[0.0, nan, nan, 1.0, nan]])
    b = torch.tensor([[0.0, 0.0, 1.0, nan, nan]])
    for parts in ((a, b), (b, a), (a, b, a)):
        united = unite_targets(*parts)
        assert_close(united, torch.tensor([[0.0, nan, 1.0, 1.0, nan]]), equal_nan=True)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("kind", ["cut_up", "noise", "strokes", "given"])
def test_images_of_no_class_have_targets_of_0s(kind, background):
    images = made(background)
    negatives = random(3, 3, 20, 20) if kind == "given" else None
    composed, targets = compose(images, negatives=negatives, **{kind: 0.5})
    changed = (composed != images).flatten(1).any(1)
    assert changed.sum() == N // 2
    assert (targets[changed] == 0).all()
    assert_close(targets[~changed], TARGETS[~changed])


def test_images_of_several_classes_are_not_cut_up():
    images = made("dark")
    two = TARGETS + TARGETS.roll(1, 1)
    composed, targets = compose(images, two, cut_up=1.0)
    assert_close((composed, targets), (images, two))
    composed, targets = compose(images, torch.zeros_like(two), cut_up=1.0)
    assert_close(composed, images)


def test_cut_up_photographs_show_no_photograph_in_one_piece():
    flat = torch.linspace(0, 1, N).view(N, 1, 1, 1).expand(N, 3, 32, 32).clone()
    pieces, _ = compose(flat, background="photo", cut_up=1.0)
    for image in pieces:
        largest = image[0].round(decimals=4).unique(return_counts=True)[1].max() / 32**2
        assert largest <= 0.5


@pytest.mark.parametrize("brightness", [0.0, 0.1, 0.9, 1.0])
def test_blank_pages_in_the_color_of_the_page_are_among_the_noise(brightness):
    pages = torch.full((256, 1, 28, 28), brightness)
    drawn, _ = compose(pages, torch.zeros(256, C), noise=1.0)
    is_blank = (drawn == brightness).flatten(1).all(1)
    assert 0.03 < is_blank.float().mean() < 0.3


# ---- sizes, colors, devices, types


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (1, 8, 8), (4, 33, 47), (3, 96, 20)])
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_any_size_and_number_of_channels(shape, background):
    images = random(N, *shape)
    tfm = ComposeImages(background=background, strokes=0.1, negatives=random(4, 1, 9, 9), seed=1)
    composed, targets = tfm.encodes((images, TARGETS))
    assert composed.shape == images.shape and targets.shape == TARGETS.shape
    assert 0 <= composed.min() and composed.max() <= 1
    assert ((targets == 0) | (targets == 1)).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_small_batches(n):
    for background in (None, *BACKGROUNDS):
        tfm = ComposeImages(background=background)
        composed, targets = tfm.encodes((made("dark")[:n], TARGETS[:n]))
        assert composed.shape == (n, 3, 28, 28) and targets.shape == (n, C)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_and_the_classes_of_a_batch_are_kept(dtype):
    images = made("uniform").to(dtype).as_subclass(TensorImage)
    batch = images, TARGETS.as_subclass(TensorMultiCategory)
    composed = ComposeImages(negatives=random(2, 8, 8), strokes=0.05).encodes(batch)
    assert [type(o) for o in composed] == [TensorImage, TensorMultiCategory]
    assert composed[0].dtype == dtype and composed[1].dtype == torch.float32


def test_on_the_meta_device_nothing_is_made_on_the_cpu():
    """All that is drawn has the device of the batch: an operation of two devices would raise."""
    from multilabel_mnist.compose_images import _Batch

    images, targets = made("uniform").to("meta"), TARGETS.to("meta")
    for pages in (page_color(images), None):
        batch = _Batch(images, targets, pages, RandomSource("meta"))
        chosen = torch.arange(8, device="meta")
        for kind in ("overlapping", "side_by_side", "mosaic", "alone", "noise", "strokes"):
            drawn, united = batch.compose(kind, chosen)
            assert (drawn.device.type, united.device.type) == ("meta", "meta")
            assert drawn.shape == (8, 3, 28, 28)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_what_came_in_is_left_alone(background):
    images, targets = made(background), TARGETS.clone()
    before = images.clone()
    ComposeImages(nudged=0.5).encodes((images, targets))
    assert_close((images, targets), (before, TARGETS))


# ---- seeds, copies, pickles


def test_a_seed_fixes_the_batches_and_a_copy_begins_again():
    images = made("uniform")
    first = ComposeImages(seed=7).encodes((images, TARGETS))
    tfm = ComposeImages(seed=7)
    state = torch.get_rng_state()
    assert_close(tfm.encodes((images, TARGETS)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(tfm.encodes((images, TARGETS))[0], first[0])
    for copy in (deepcopy(tfm), pickle.loads(pickle.dumps(tfm))):
        assert copy.background is None  # it reads its own first batch
        assert_close(copy.encodes((images, TARGETS)), first)


def test_a_copy_begins_with_the_first_negative_again():
    images, negatives = made("dark"), random(5, 3, 28, 28)
    tfm = ComposeImages(**NOTHING | {"given": 0.25}, negatives=negatives, seed=3)
    first = tfm.encodes((images, TARGETS))
    again = pickle.loads(pickle.dumps(tfm))
    assert_close(again.encodes((images, TARGETS)), first)


def test_repr_names_the_shares_and_the_negatives():
    tfm = ComposeImages(noise=0.25, negatives=random(5, 28, 28), background="light")
    assert "noise=0.25" in repr(tfm)
    assert "background='light'" in repr(tfm)
    assert "negatives=5 images" in repr(tfm)
    assert "given=0," in repr(ComposeImages())


# ---- negatives


@pytest.fixture
def folder(tmp_path):
    """A folder of negatives in two folders: gray, color, with an alpha channel, and a palette."""
    (tmp_path / "deeper").mkdir()
    Image.new("L", (40, 40), 51).save(tmp_path / "a.png")
    Image.new("RGB", (80, 40), (255, 0, 0)).save(tmp_path / "b.png")
    Image.new("RGBA", (40, 40), (0, 0, 255, 255)).save(tmp_path / "deeper" / "ç ü.png")
    Image.new("RGB", (9, 9), (0, 255, 0)).convert("P").save(tmp_path / "deeper" / "d.png")
    return tmp_path


def test_a_folder_of_negatives_is_cycled_in_order(folder):
    for given in (folder, str(folder), sorted(folder.rglob("*.png"))):
        colors = Negatives(given).take(9, (3, 16, 16))[:, :, 8, 8]
        expected = torch.tensor([[0.2, 0.2, 0.2], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        assert_close(colors, expected[[0, 1, 2, 3, 0, 1, 2, 3, 0]])
    gray = Negatives(folder).take(2, (1, 16, 16))
    assert_close(gray[:, 0, 8, 8], torch.tensor([0.2, 0.299]), atol=0.01, rtol=0)


def test_tensors_arrays_and_loaders_of_negatives():
    images = random(5, 3, 28, 28)
    order = [0, 1, 2, 3, 4, 0, 1]
    labelled = DataLoader([(image, 0) for image in images], batch_size=2)
    for given in (images, images.numpy(), DataLoader(images, batch_size=3), labelled):
        assert_close(Negatives(given).take(7, (3, 28, 28)), images[order])
    pixels = (images * 255).round().byte()
    assert_close(Negatives(pixels).take(7, (3, 28, 28)), (pixels / 255)[order])
    gray = random(2, 28, 28)
    assert_close(Negatives(gray).take(1, (3, 28, 28)), gray[:1, None].expand(1, 3, -1, -1))


def test_negatives_are_cut_to_their_middle_and_resized():
    wide = torch.zeros(1, 1, 20, 60)
    wide[..., 20:40] = 1.0
    assert_close(Negatives(wide).take(1, (1, 28, 28)), torch.ones(1, 1, 28, 28))
    half = torch.cat([torch.zeros(1, 1, 32, 16), torch.ones(1, 1, 32, 16)], 3)
    small = Negatives(half).take(1, (1, 8, 8))
    assert small[..., :3].max() < 0.01 and small[..., 5:].min() > 0.99


def test_negatives_come_into_the_batches_in_turn():
    negatives = torch.arange(1, 6).view(5, 1, 1, 1).expand(5, 1, 28, 28) / 10
    tfm = ComposeImages(**NOTHING | {"given": 0.125}, negatives=negatives, seed=0)
    seen = []
    for _ in range(3):
        images, targets = tfm.encodes((made("dark", 1), TARGETS))
        seen += (images[targets.sum(1) == 0][:, 0, 14, 14] * 10).round().int().sort()[0].tolist()
    assert sorted(seen) == sorted(([1, 2, 3, 4, 5] * 3)[:12])


def test_negatives_on_pages_of_the_other_kind_are_warned_of():
    with pytest.warns(UserWarning, match="expected negatives on dark pages"):
        compose(made("dark"), negatives=made("light"), given=0.5)


def test_negatives_that_cannot_be_used_raise(tmp_path):
    with expect_fail(ValueError, "expected a folder with images"):
        ComposeImages(negatives=tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with expect_fail(ValueError, "broken.png"):
        compose(made("dark"), negatives=tmp_path, given=0.5)
    loader = DataLoader(random(4, 3, 8, 8), batch_size=2)
    with expect_fail(TypeError, "pass dls.train"):
        ComposeImages(negatives=DataLoaders(loader, loader))
    with expect_fail(ValueError, "from 0 to 1"):
        ComposeImages(negatives=random(4, 3, 8, 8) * 255)
    with expect_fail(ValueError, "from 0 to 1"):
        compose(made("dark"), negatives=DataLoader(random(4, 3, 8, 8) - 1), given=0.5)
    with expect_fail(ValueError, "at least one negative"):
        compose(made("dark"), negatives=DataLoader([]), given=0.5)
    with expect_fail(ValueError, "2 channels"):
        compose(made("dark"), negatives=random(4, 2, 8, 8), given=0.5)
    for wrong in (3, {1: 2}.values, iter([1]), [], [3], np.zeros((2, 2))):
        with pytest.raises((TypeError, ValueError), match="expected negatives to be"):
            ComposeImages(negatives=wrong)


# ---- one clear sentence


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"overlapping": 0.9}, "whose sum is at most 1"),
        ({"noise": float("nan")}, "to be a number from 0 to 1"),
        ({"noise": -0.1}, "to be a number from 0 to 1"),
        ({"noise": "0.1"}, "to be a number from 0 to 1"),
        ({"nudged": 1.5}, "to be a number from 0 to 1"),
        ({"background": "grey"}, "expected background to be 'dark', 'light'"),
        ({"background": ["dark"]}, "expected background to be 'dark', 'light'"),
        ({"seed": "x"}, "expected seed to be a whole number"),
        ({"seed": True}, "expected seed to be a whole number"),
    ],
)
def test_wrong_settings_raise(settings, message):
    with expect_fail(ValueError, message):
        ComposeImages(**settings)


def test_wrong_batches_raise():
    images = made("dark")
    with expect_fail(ValueError, "put ComposeImages after IntToFloatTensor and before Normalize"):
        ComposeImages().encodes((images * 3 - 1, TARGETS))
    with expect_fail(ValueError, "before Normalize"):
        ComposeImages().encodes((images * torch.nan, TARGETS))
    with expect_fail(ValueError, "before Normalize"):
        ComposeImages().encodes(((images * 255).byte(), TARGETS))
    with expect_fail(ValueError, "before Normalize"):
        ComposeImages().encodes((images.to(torch.complex64), TARGETS))
    with expect_fail(ValueError, "to_multilabel(dls)"):
        ComposeImages().encodes((images, torch.arange(N)))
    with expect_fail(ValueError, "to_multilabel(dls)"):
        ComposeImages().encodes((images, TARGETS.long()))
    with expect_fail(ValueError, "at least 8 x 8 pixels"):
        ComposeImages().encodes((images[..., :5], TARGETS))
    with expect_fail(ValueError, "a batch of images and targets"):
        ComposeImages().encodes((images, TARGETS, TARGETS))
    for wrong in (images[0], images.numpy() * 2, torch.zeros(0, 1, 8, 8), "dark"):
        with pytest.raises(ValueError, match="expected images"):
            read_background(wrong)
