"""What sigmoid_preds takes for items: rows of a DataFrame, color pixels, plain data sets, texts."""

from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.utils.data as tud
from fastai.learner import load_learner
from fastai.tabular.all import (
    Categorify,
    FillMissing,
    Normalize,
    TabularDataLoaders,
    tabular_learner,
)
from fastai.text.all import (
    AWD_LSTM,
    TextDataLoaders,
    awd_lstm_clas_config,
    awd_lstm_lm_config,
    language_model_learner,
    text_classifier_learner,
)
from fastai.vision.all import (
    CategoryBlock,
    ColReader,
    DataBlock,
    DataLoaders,
    FlipItem,
    ImageBlock,
    ImageDataLoaders,
    Learner,
    MultiCategoryBlock,
    PILImage,
    PILImageBW,
    RandomErasing,
    RandomSplitter,
    Resize,
    Rotate,
    TensorImageBase,
    Transform,
    nn,
    noop,
)
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.labels import BCEOneHotLossFlat

SIZE = 12
N = 14
INDEXES = {
    "positions": range(N),
    "reversed": range(N - 1, -1, -1),
    "shifted": range(100, 100 + N),
    "names": [f"row {i}" for i in range(N)],
    "all the same": [7] * N,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*pickle:UserWarning")


def linear(n_channels, n_out=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(n_channels * SIZE * SIZE, n_out))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with images x0.png, x1.png, ... that can be told apart."""
    folder = tmp_path_factory.mktemp("table") / "images"
    folder.mkdir()
    rng = np.random.default_rng(42)
    for i, pixels in enumerate(rng.integers(0, 256, (N, SIZE, SIZE, 3), "uint8")):
        Image.fromarray(pixels).save(folder / f"x{i}.png")
    return folder


@pytest.fixture(scope="module")
def df():
    return pd.DataFrame(
        {
            "name": [f"x{i}" for i in range(N)],
            "label": [*"abc"] * 4 + ["a", "b"],
            "file": [f"x{i}.png" for i in range(N)],
            "tags": ["a b", "c", "b", ""] * 3 + ["c a", "a"],
        }
    )


def open_name(row, folder):
    return folder / f"{row['name']}.png"


def blocks(labels, get_x, get_y, image=PILImage):
    block = DataBlock(
        (ImageBlock(image), labels), get_x=get_x, get_y=get_y, splitter=RandomSplitter(seed=1)
    )
    return partial(block.dataloaders, bs=4, num_workers=0)


def from_csv(df, folder):
    df[["name", "label"]].to_csv(folder.parent / "labels.csv", index=False)
    return ImageDataLoaders.from_csv(
        folder.parent, folder="images", suff=".png", bs=4, num_workers=0
    )


LEARNERS = {
    "from_df by positions": lambda df, folder: ImageDataLoaders.from_df(
        df, folder.parent, folder="images", suff=".png", bs=4, num_workers=0
    ),
    "from_df by names": lambda df, folder: ImageDataLoaders.from_df(
        df, folder, fn_col="file", label_col="label", img_cls=PILImageBW, bs=4, num_workers=0
    ),
    "from_df, several labels": lambda df, folder: ImageDataLoaders.from_df(
        df, folder, fn_col="file", label_col="tags", label_delim=" ", bs=4, num_workers=0
    ),
    "from_csv": from_csv,
    "ColReader": lambda df, folder: blocks(
        CategoryBlock, ColReader("name", pref=folder, suff=".png"), ColReader("label")
    )(df),
    "a function": lambda df, folder: blocks(
        MultiCategoryBlock, partial(open_name, folder=folder), ColReader("tags", label_delim=" ")
    )(df),
}


@pytest.fixture(scope="module", params=LEARNERS.values(), ids=LEARNERS)
def learn(request, folder, df):
    dls = request.param(df, folder)
    n_channels = dls.one_batch()[0].shape[1]
    loss_func = nn.BCEWithLogitsLoss()
    if dls.one_batch()[1].ndim == 1:
        loss_func = BCEOneHotLossFlat()
    return Learner(dls, linear(n_channels), loss_func=loss_func)


@pytest.fixture(scope="module")
def loaded(learn, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "learner.pkl"
    learn.export(path)
    return load_learner(path)


def number_of(item):
    """Return which image a file is."""
    assert isinstance(item, (str, Path))
    return int(Path(item).stem.removeprefix("x"))


def assert_in_step(preds, learn, folder, numbers):
    """Row by row, these are the files in this order, and their logits."""
    assert [number_of(item) for item in preds.items] == list(numbers)
    assert [number_of(item) for item in preds.to_frame()["item"]] == list(numbers)
    mode = "L" if learn.model[1].in_features == SIZE * SIZE else "RGB"
    for item, logits in zip(preds.items, preds.logits, strict=True):
        assert Path(item).is_file()
        pixels = np.array(Image.open(folder / Path(item).name).convert(mode)) / 255
        x = torch.tensor(pixels, dtype=torch.float32).reshape(SIZE, SIZE, -1).permute(2, 0, 1)
        with torch.no_grad():
            expected = learn.model.cpu()(x[None])[0]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_every_row_of_a_frame_whatever_its_index(learn, loaded, folder, df, index):
    shuffled = df.sample(frac=1, random_state=1)
    numbers = [number_of(file) for file in shuffled["file"]]
    shuffled.index = index
    for learner in (learn, loaded):
        preds = sigmoid_preds(learner, shuffled)
        assert_in_step(preds, learner, folder, numbers)
        assert preds.vocab == ["a", "b", "c"]
        assert preds.targs is None


ONE_ROW = {
    "a frame": lambda df: df.iloc[[3]],
    "a Series": lambda df: df.iloc[3],
    "a Series of a frame with names": lambda df: df.set_axis(INDEXES["names"]).iloc[3],
    "a dict": lambda df: df.iloc[3].to_dict(),
    "a named tuple": lambda df: next(df.iloc[3:].itertuples(index=False)),
    "a list of one": lambda df: [df.iloc[3]],
}


@pytest.mark.parametrize("one", ONE_ROW.values(), ids=ONE_ROW)
def test_one_row(learn, loaded, folder, df, one):
    for learner in (learn, loaded):
        assert_in_step(sigmoid_preds(learner, one(df)), learner, folder, [3])


SEVERAL_ROWS = {
    "Series": lambda df: [df.iloc[5], df.iloc[2]],
    "dicts": lambda df: df.iloc[[5, 2]].to_dict("records"),
    "named tuples": lambda df: list(df.iloc[[5, 2]].itertuples(index=False)),
    "a generator": lambda df: (row for _, row in df.iloc[[5, 2]].iterrows()),
    "a frame": lambda df: df.iloc[[5, 2]],
}


@pytest.mark.parametrize("several", SEVERAL_ROWS.values(), ids=SEVERAL_ROWS)
def test_several_rows(learn, loaded, folder, df, several):
    for learner in (learn, loaded):
        assert_in_step(sigmoid_preds(learner, several(df)), learner, folder, [5, 2])


def test_files_and_columns_of_files_still_work(learn, loaded, folder, df):
    files = pd.Series([str(folder / file) for file in df["file"]])
    for learner in (learn, loaded):
        for items in (files[4:7], list(files[4:7]), [Path(f) for f in files[4:7]]):
            assert_in_step(sigmoid_preds(learner, items), learner, folder, [4, 5, 6])
        mixed = [files[4], df.iloc[5], Path(files[6])]
        assert_in_step(sigmoid_preds(learner, mixed), learner, folder, [4, 5, 6])


@pytest.mark.parametrize("split", ["train", "valid"])
def test_splits_are_named_by_their_files(learn, folder, split):
    dl = learn.dls[0 if split == "train" else 1]
    numbers = [int(str(row["name"]).removeprefix("x")) for _, row in dl.dataset.items.iterrows()]
    preds = sigmoid_preds(learn, dl=split)
    assert_in_step(preds, learn, folder, numbers)
    for item, targ in zip(preds.items, preds.targs, strict=True):
        row = dl.dataset.items[dl.dataset.items["name"] == f"x{number_of(item)}"].iloc[0]
        is_multi = targ.sum() != 1 or "tags" in str(learn.dls.tls[1].tfms.fs)
        true = row["tags"].split(" ") if is_multi else [row["label"]]
        assert [c for c, t in zip(preds.vocab, targ, strict=True) if t] == sorted(
            filter(None, true)
        )


@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_a_test_dl_of_rows_is_named_by_its_files(learn, folder, df, index, with_labels):
    rows = df.iloc[::-1].set_axis(index)
    dl = learn.dls.test_dl(rows, with_labels=with_labels)
    preds = sigmoid_preds(learn, dl=dl)
    assert_in_step(preds, learn, folder, range(N - 1, -1, -1))
    assert (preds.targs is not None) is with_labels


OTHER_ROWS = {
    "dicts": lambda df: df.to_dict("records"),
    "named tuples": lambda df: list(df.itertuples(index=False)),
    "a frame": lambda df: df,
}


@pytest.mark.parametrize("source", OTHER_ROWS.values(), ids=OTHER_ROWS)
def test_a_learner_of_any_kind_of_row_takes_all_of_them(folder, df, source):
    make = blocks(CategoryBlock, ColReader("name", pref=folder, suff=".png"), ColReader("label"))
    learner = Learner(make(source(df)), linear(3), loss_func=BCEOneHotLossFlat())
    for one in ONE_ROW.values():
        assert_in_step(sigmoid_preds(learner, one(df)), learner, folder, [3])
    for several in SEVERAL_ROWS.values():
        assert_in_step(sigmoid_preds(learner, several(df)), learner, folder, [5, 2])
    for item, path in zip(sigmoid_preds(learner).items, learner.dls.valid_ds.items, strict=False):
        assert isinstance(item, str), path


def test_lists_of_files_and_labels(folder, df):
    files = [str(folder / file) for file in df["file"]]
    dls = ImageDataLoaders.from_lists(folder, files, list(df["label"]), bs=4, num_workers=0)
    learner = Learner(dls, linear(3), loss_func=BCEOneHotLossFlat())
    preds = sigmoid_preds(learner, dl="train")
    assert_in_step(preds, learner, folder, [number_of(item[0]) for item in dls.train_ds.items])
    assert_in_step(sigmoid_preds(learner, files[:3]), learner, folder, range(3))


def test_pixels_in_the_columns_of_a_table():
    rng = np.random.default_rng(42)
    columns = [f"pixel{i}" for i in range(SIZE * SIZE)]
    df = pd.DataFrame(rng.integers(0, 256, (N, SIZE * SIZE)), columns=columns)
    df["label"] = [*"ab"] * (N // 2)

    def image(row):
        return row[columns].to_numpy("uint8").reshape(SIZE, SIZE)

    dls = blocks(CategoryBlock, image, ColReader("label"), PILImageBW)(df)
    learner = Learner(dls, linear(1, 2), loss_func=BCEOneHotLossFlat())
    preds = sigmoid_preds(learner, df)
    pixels = torch.tensor(df[columns].to_numpy(), dtype=torch.float32) / 255
    with torch.no_grad():
        expected = learner.model.cpu()(pixels)
    torch.testing.assert_close(preds.logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sigmoid_preds(learner, df.iloc[3]).logits, expected[[3]])
    assert sigmoid_preds(learner).items == list(dls.valid_ds.items.index)


def test_rows_that_cannot_be_read_get_one_sentence(folder, df):
    make = blocks(CategoryBlock, ColReader("name", pref=folder, suff=".png"), ColReader("label"))
    learner = Learner(make(df), linear(3), loss_func=BCEOneHotLossFlat())
    with pytest.raises(ValueError, match="expected rows that .* 'label', 'tags' .KeyError: 'name'"):
        sigmoid_preds(learner, df[["label", "tags"]])
    with pytest.raises(ValueError, match="x99.png, which does not exist"):
        sigmoid_preds(learner, df.assign(name="x99"))
    with pytest.raises(ValueError, match="expected at least one item"):
        sigmoid_preds(learner, df[:0])
    paths = ImageDataLoaders.from_path_func(
        folder, sorted(folder.iterdir()), lambda f: f.stem[-1], bs=4, num_workers=0
    )
    learner = Learner(paths, linear(3, 10), loss_func=BCEOneHotLossFlat())
    with pytest.raises(ValueError, match="got a DataFrame; this learner reads files, not rows"):
        sigmoid_preds(learner, df)


def test_names_of_files_without_their_folder_get_one_sentence(folder, df):
    make = blocks(CategoryBlock, ColReader("name", pref=folder, suff=".png"), ColReader("label"))
    learner = Learner(make(df), linear(3), loss_func=BCEOneHotLossFlat())
    for names in (df["name"], list(df["name"]), "x3"):
        with pytest.raises(ValueError, match="got x[03], which does not exist; pass the rows"):
            sigmoid_preds(learner, names)


class MixesImages(Transform):
    """A batch transform of training that moves every image to another row."""

    split_idx = 0
    order = 90

    def encodes(self, x: TensorImageBase):
        return x.roll(1, 0)


AUGMENTATIONS = {
    "flips": dict(item_tfms=FlipItem(p=1.0)),
    "turns": dict(batch_tfms=Rotate(max_deg=90, p=1.0, draw=45.0)),
    "mixes": dict(batch_tfms=MixesImages()),
    "erases": dict(batch_tfms=RandomErasing(p=1.0, sl=0.5)),
}


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
@pytest.mark.parametrize("image", [PILImage, PILImageBW])
def test_training_images_are_predicted_as_they_are(folder, df, augment, image):
    block = DataBlock(
        (ImageBlock(image), CategoryBlock),
        get_x=ColReader("name", pref=folder, suff=".png"),
        get_y=ColReader("label"),
        splitter=RandomSplitter(seed=1),
        **augment,
    )
    dls = block.dataloaders(df, bs=4, num_workers=0)
    learner = Learner(dls, linear(3 if image is PILImage else 1), loss_func=BCEOneHotLossFlat())
    numbers = [number_of(name) for name in dls.train_ds.items["name"]]
    for kwargs in (dict(dl="train"), dict(dl=dls.train.new(shuffle=True)), dict(dl=0)):
        assert_in_step(sigmoid_preds(learner, **kwargs), learner, folder, numbers)
    augmented = dls.train.new(shuffle=False, drop_last=False)
    with learner.no_bar():
        logits, _ = learner.get_preds(dl=augmented, act=noop)
    assert not logits.allclose(sigmoid_preds(learner, dl="train").logits)  # training goes on so


def test_shown_images_are_those_of_the_rows(learn, folder, df):
    for preds in (
        sigmoid_preds(learn, df.sample(frac=1, random_state=2)),
        sigmoid_preds(learn),
        sigmoid_preds(learn, dl="train")[::-1],
    ):
        for item, image in zip(preds.items, preds._images(), strict=True):
            shown = np.array(PILImage.create(image).convert("L"))
            pixels = np.array(Image.open(folder / Path(item).name).convert("L"))
            assert np.array_equal(shown, pixels)


def test_a_learner_with_a_training_split_alone_gets_one_sentence():
    dataset = tud.TensorDataset(torch.randn(6, 4), torch.eye(3)[torch.arange(6) % 3])
    learner = Learner(
        DataLoaders(tud.DataLoader(dataset, 2)), nn.Linear(4, 3), loss_func=nn.BCEWithLogitsLoss()
    )
    assert len(sigmoid_preds(learner, dl="train")) == 6
    with pytest.raises(ValueError, match="expected a learner with a validation split"):
        sigmoid_preds(learner, torch.randn(2, 4))


# ---- color images in memory


@pytest.fixture(scope="module", params=[PILImage, PILImageBW], ids=["color", "gray"])
def image_learner(request, folder):
    files = sorted(folder.iterdir())
    dls = ImageDataLoaders.from_path_func(
        folder,
        files,
        lambda f: f.stem[-1],
        img_cls=request.param,
        item_tfms=Resize(SIZE),
        bs=4,
        num_workers=0,
    )
    model = linear(3 if request.param is PILImage else 1, 10)
    return Learner(dls, model, loss_func=BCEOneHotLossFlat())


@pytest.fixture(scope="module")
def pixels(folder):
    return np.stack([np.array(Image.open(folder / f"x{i}.png")) for i in range(N)])


CONTAINERS = {"array": np.asarray, "tensor": lambda a: torch.from_numpy(np.ascontiguousarray(a))}


@pytest.mark.parametrize("kind", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("size", [(SIZE, SIZE), (SIZE, 20), (5, 8)])
def test_one_color_image_is_one_item(image_learner, pixels, kind, size):
    height, width = size
    image = np.ascontiguousarray(np.resize(pixels[0], (height, width, 3)))
    expected = sigmoid_preds(image_learner, Image.fromarray(image)).logits
    is_color = image_learner.model[1].in_features == 3 * SIZE * SIZE
    shapes = [image, [image], image[None]]
    if is_color:
        first = image.transpose(2, 0, 1)
        shapes += [first, [first], first[None]]
    for items in shapes:
        items = [kind(o) for o in items] if isinstance(items, list) else kind(items)
        preds = sigmoid_preds(image_learner, items)
        torch.testing.assert_close(preds.logits, expected)


@pytest.mark.parametrize("kind", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("n", [1, 3, 4])
def test_batches_of_color_images(image_learner, pixels, kind, n):
    expected = sigmoid_preds(image_learner, [Image.fromarray(p) for p in pixels[:n]]).logits
    batches = [pixels[:n]]
    if image_learner.model[1].in_features == 3 * SIZE * SIZE:
        batches.append(pixels[:n].transpose(0, 3, 1, 2))
    for batch in batches:
        torch.testing.assert_close(sigmoid_preds(image_learner, kind(batch)).logits, expected)


def test_gray_images_stay_several(image_learner, pixels):
    gray = pixels[:5, ..., 0]
    expected = sigmoid_preds(image_learner, [Image.fromarray(g) for g in gray]).logits
    torch.testing.assert_close(sigmoid_preds(image_learner, gray).logits, expected)
    torch.testing.assert_close(sigmoid_preds(image_learner, gray[:, None]).logits, expected)
    torch.testing.assert_close(sigmoid_preds(image_learner, gray[0]).logits, expected[:1])


# ---- plain data sets


@pytest.fixture(scope="module")
def image_folder(folder, df):
    """Return a folder with a folder of images per class."""
    root = folder.parent / "classes"
    for name, label in zip(df["file"], df["label"], strict=True):
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.open(folder / name).save(root / label / name)
    return root


def torch_loaders(train, valid):
    return DataLoaders(
        tud.DataLoader(train, 4, shuffle=True, drop_last=True), tud.DataLoader(valid, 4)
    )


LOADERS = {"torch's": torch_loaders, "fastai's": partial(DataLoaders.from_dsets, num_workers=0)}


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("is_split", [True, False])
def test_image_folders_know_their_classes_and_files(image_folder, make, is_split):
    whole = ImageFolder(image_folder, ToTensor())
    parts = (whole, whole)
    if is_split:
        parts = tud.random_split(whole, [N - 5, 5], torch.Generator().manual_seed(1))
    learner = Learner(make(*parts), linear(3), loss_func=BCEOneHotLossFlat())
    for split in ("train", "valid"):
        preds = sigmoid_preds(learner, dl=split)
        assert preds.vocab == ["a", "b", "c"]
        true = [preds.vocab[c] for c in preds.targs.argmax(1)]
        assert [Path(file).parent.name for file in preds.items] == true
        files = sigmoid_preds(learner, preds.items)
        torch.testing.assert_close(files.logits, preds.logits)
        assert files.items == preds.items
        images = [Image.open(file).convert("RGB") for file in preds.items]
        torch.testing.assert_close(sigmoid_preds(learner, images).logits, preds.logits)
        one = sigmoid_preds(learner, preds.items[0])
        torch.testing.assert_close(one.logits, preds.logits[:1])
    with pytest.raises(ValueError, match="nowhere.png, which does not exist"):
        sigmoid_preds(learner, "nowhere.png")


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_of_a_plain_data_set(make, dtype):
    x = torch.randn(9, 4, dtype=dtype)
    dataset = tud.TensorDataset(x, torch.arange(9) % 3)
    model = nn.Linear(4, 3, dtype=dtype)
    learner = Learner(make(dataset, dataset), model, loss_func=BCEOneHotLossFlat())
    with torch.no_grad():
        expected = model.cpu()(x).float()
    for items in (x, list(x), [(row,) for row in x], (row for row in x)):
        torch.testing.assert_close(sigmoid_preds(learner, items).logits, expected)
    for wrong in ("a.png", [Path("a.png")], Image.new("L", (4, 4)), pd.DataFrame({"a": [1]})):
        with pytest.raises(ValueError, match="expected inputs as the learner's data set returns"):
            sigmoid_preds(learner, wrong)


# ---- tables and texts


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(42)
    df = pd.DataFrame(
        {
            "size": rng.normal(size=40).astype("float32"),
            "age": rng.integers(0, 9, 40),
            "kind": rng.choice(["x", "y", "z"], 40),
        },
        index=range(140, 100, -1),
    )
    df["label"] = np.where(df["size"] > 0, "big", "small")
    df["is_old"] = (df["age"] > 4).astype("float32")
    df["is_x"] = (df["kind"] == "x").astype("float32")
    return df


TARGETS = {
    "a category": (dict(y_names="label", y_block=CategoryBlock()), ["big", "small"]),
    "a column per class": (dict(y_names=["is_old", "is_x"]), ["is_old", "is_x"]),
    "one-hot": (
        dict(
            y_names=["is_old", "is_x"],
            y_block=MultiCategoryBlock(encoded=True, vocab=["is_old", "is_x"]),
        ),
        ["is_old", "is_x"],
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target, names", TARGETS.values(), ids=TARGETS)
def test_tables(table, target, names, tmp_path):
    dls = TabularDataLoaders.from_df(
        table,
        procs=[Categorify, FillMissing, Normalize],
        cat_names=["kind"],
        cont_names=["size", "age"],
        bs=8,
        **target,
    )
    loss_func = BCEOneHotLossFlat() if names[0] == "big" else nn.BCEWithLogitsLoss()
    learner = tabular_learner(dls, layers=[8], n_out=2, loss_func=loss_func)
    whole = sigmoid_preds(learner, table)
    assert whole.vocab == names
    assert whole.items == list(table.index)
    learner.export(tmp_path / "table.pkl")
    for learn in (learner, load_learner(tmp_path / "table.pkl")):
        one = dict(atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(sigmoid_preds(learn, table).logits, whole.logits, **one)
        rows = table.iloc[[5, 2]]
        several = (rows, [table.iloc[5], table.iloc[2]], rows.to_dict("records"))
        for items in several:
            torch.testing.assert_close(
                sigmoid_preds(learn, items).logits, whole.logits[[5, 2]], **one
            )
        assert sigmoid_preds(learn, rows).items == list(rows.index)
        tuple_of_row = next(table.iloc[[5]].itertuples(index=False))
        for items in (rows[:1], table.iloc[5], table.iloc[5].to_dict(), tuple_of_row):
            torch.testing.assert_close(sigmoid_preds(learn, items).logits, whole.logits[[5]], **one)
        without_targets = table[["kind", "age", "size"]]
        torch.testing.assert_close(
            sigmoid_preds(learn, without_targets).logits, whole.logits, **one
        )
        with pytest.raises(ValueError, match="expected the columns .* with, got .*'age'"):
            sigmoid_preds(learn, table.drop(columns="age"))
    for preds in (sigmoid_preds(learner), sigmoid_preds(learner, table.iloc[[5, 2]])):
        with pytest.raises(ValueError, match="expected items that are images"):
            preds.show()
    for split in ("train", "valid"):
        preds = sigmoid_preds(learner, dl=split)
        at = [table.index.get_loc(i) for i in preds.items]
        torch.testing.assert_close(preds.logits, whole.logits[at], **one)
        true = [bool(t) for t in preds.targs[:, 1]]
        column = table["label"] == "small" if names[0] == "big" else table["is_x"] > 0
        assert true == [bool(column.iloc[i]) for i in at]


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(42)
    words = [*"abcdefgh"]
    return pd.DataFrame(
        {
            "text": [" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(60)],
            "label": [*"pqr"] * 20,
        },
        index=range(160, 100, -1),
    )


@pytest.mark.filterwarnings("ignore")
def test_texts_of_different_lengths_are_in_step(texts):
    dls = TextDataLoaders.from_df(
        texts, text_col="text", label_col="label", valid_pct=0.5, seq_len=8, bs=8, seed=1
    )
    config = {**awd_lstm_clas_config, "n_hid": 12, "emb_sz": 6}
    learner = text_classifier_learner(
        dls, AWD_LSTM, pretrained=False, config=config, loss_func=BCEOneHotLossFlat()
    )
    one_by_one = torch.cat([sigmoid_preds(learner, [text]).logits for text in texts["text"]])
    close = dict(atol=1e-4, rtol=1e-3)
    whole = sigmoid_preds(learner, texts)
    assert whole.items == list(texts.index)
    torch.testing.assert_close(whole.logits, one_by_one, **close)
    in_list = sigmoid_preds(learner, list(texts["text"]))
    assert in_list.items == list(texts["text"])
    torch.testing.assert_close(in_list.logits, one_by_one, **close)
    torch.testing.assert_close(
        sigmoid_preds(learner, texts.iloc[5]).logits, one_by_one[[5]], **close
    )
    for split in ("train", "valid"):
        preds = sigmoid_preds(learner, dl=split)
        at = [texts.index.get_loc(i) for i in preds.items]
        dl = learner.dls[split == "valid"].new(shuffle=False, drop_last=False)
        with learner.no_bar():
            logits, _ = learner.get_preds(dl=dl, act=noop)
        torch.testing.assert_close(preds.logits, logits)
        assert [preds.vocab[c] for c in preds.targs.argmax(1)] == list(texts["label"].iloc[at])


@pytest.mark.filterwarnings("ignore")
def test_a_language_model_gets_one_sentence(texts):
    dls = TextDataLoaders.from_df(texts, text_col="text", is_lm=True, seq_len=8, bs=4)
    config = {**awd_lstm_lm_config, "n_hid": 12, "emb_sz": 6}
    learner = language_model_learner(dls, AWD_LSTM, pretrained=False, config=config)
    for kwargs in ({}, {"dl": "train"}, {"items": ["a b c"]}, {"items": texts}):
        with pytest.raises(ValueError, match="expected a learner .* predicts the next word"):
            sigmoid_preds(learner, **kwargs)


Point = namedtuple("Point", "x y")


def test_named_tuples_are_no_rows_where_files_are_read(image_learner):
    with pytest.raises(ValueError, match="expected items to be files"):
        sigmoid_preds(image_learner, Point(1, 2))
