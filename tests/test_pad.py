"""The pad in JupyterLab: the kernel's side by messages, and drawing in a real browser."""

import base64
import io
import json
import os
import re
import sys
import warnings
from contextlib import ExitStack

import browser
import lab
import numpy as np
import pytest
import torch
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.augment import Resize
from fastai.vision.core import PILImage
from fastai.vision.data import ImageDataLoaders
from lab import wait_for
from PIL import Image
from strokes import ONE, SEVEN, ZERO, draw_on, placed
from test_imports import BUILT_ON
from torch import nn
from torch.testing import assert_close

import multilabel_mnist.pad
from conftest import run
from multilabel_mnist.calibrate import margins
from multilabel_mnist.classifier import SigmoidClassifier, tune
from multilabel_mnist.convert import BCEOneHotLossFlat
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.pad import draw
from multilabel_mnist.predict import sigmoid_preds
from multilabel_mnist.shipped import verdict_model
from multilabel_mnist.training import digit_cnn


@pytest.fixture(scope="module")
def dls():
    return DigitDataLoaders.from_folder(digits_path("embedded"))


@pytest.fixture
def learn(dls):
    torch.manual_seed(0)
    return Learner(dls, digit_cnn(), loss_func=BCEOneHotLossFlat(thresh=0.4))


@pytest.fixture
def images(dls):
    """Return some test digits, uint8 (N, 28, 28)."""
    return np.asarray(dls.test_ds.pixels[dls.test_ds.rows])[:5]


def receive(pad, **state):
    """Let a pad get a message from the page."""
    data = {"method": "update", "state": state, "buffer_paths": []}
    pad.comm.handle_msg({"content": {"data": data}, "buffers": [], "header": {"msg_id": "1"}})


def send_image(pad, image):
    """Send an image as the page does."""
    pixels = image.ravel().tolist()
    receive(pad, _drawing={"image": pixels, "strokes": []}, _pixels=pixels)


def sent(pad, call):
    """Return the values that a pad sends to the page during a call."""
    values = {}

    def keep(data=None, **others):
        if data["method"] == "update":
            values.update(data["state"])

    pad.comm.send = keep
    call()
    del pad.comm.send
    return values


# The kernel's side


def test_a_learner_answers_what_sigmoid_preds_says(learn, images):
    pad = draw(learn)
    for image in images:
        answer = sent(pad, lambda image=image: send_image(pad, image))["_answer"]
        expected = sigmoid_preds(learn, [Image.fromarray(image)])
        assert_close(torch.tensor(answer["probs"]), expected.probs[0])
        assert_close(torch.tensor(answer["softmax"]), expected.logits.softmax(1)[0])
        assert answer["fires"] == expected.fires[0].tolist()
        assert re.findall(r"\d", answer["verdict"]) == expected.labels[0]
        assert answer["verdict"].lower().startswith(expected.verdicts[0])
        assert_close(pad.preds.probs, expected.probs)
        assert (pad.preds.items[0] == image).all() and (pad.image == image).all()
    assert pad.threshold == 0.4, "the loss's"


def test_a_classifier_answers_what_it_says_itself(images):
    classifier = verdict_model()
    pad = draw(classifier)
    for image in images:
        answer = sent(pad, lambda image=image: send_image(pad, image))["_answer"]
        expected = classifier(torch.tensor(image)[None])
        assert_close(torch.tensor(answer["probs"]), expected.probs[0])
        bits = -(expected.probs * expected.probs.log2()).sum()
        bits -= ((1 - expected.probs) * (1 - expected.probs).log2()).sum()
        assert abs(float(answer["entropy"].split()[1]) - bits) < 0.006


def test_sliders_read_the_same_logits_anew(images):
    runs = []
    model = verdict_model().model
    model.register_forward_hook(lambda *call: runs.append(call))
    pad = draw(SigmoidClassifier(model, [str(digit) for digit in range(10)]), images[0])
    logits = pad.preds.logits
    runs.clear()
    for threshold, constant in ((0.9, 0.0), (0.5, 3.0), (0.01, -2.5)):
        receive(pad, _thresholds=[threshold] * 10, constant=constant)
        answer = pad._answer
        probs = (logits + constant).sigmoid()[0]
        assert_close(torch.tensor(answer["probs"]), probs)
        assert answer["fires"] == (probs > threshold).tolist()
        assert_close(torch.tensor(answer["softmax"]), logits.softmax(1)[0])
        assert (pad.threshold, pad.constant) == (threshold, constant)
        assert_close(pad.preds.logits, logits + constant)
    assert not runs, "the model need not run again"


def test_python_moves_the_sliders_and_sets_the_image(images):
    pad = draw(verdict_model())
    values = sent(pad, lambda: setattr(pad, "threshold", 0.25))
    assert values["_thresholds"] == [0.25] * 10
    each = torch.linspace(0.1, 0.9, 10)
    pad.threshold = each
    assert_close(pad.threshold, each)
    assert pad._answer["fires"] == (pad.preds.probs[0] > each).tolist()
    assert sent(pad, lambda: setattr(pad, "constant", 4))["constant"] == 4
    values = sent(pad, lambda: setattr(pad, "image", images[1]))
    assert values["_drawing"] == {"image": images[1].ravel().tolist(), "strokes": []}
    assert (pad.image == images[1]).all()


def test_thresholds_per_class_and_calibration_are_kept(learn, images):
    classifier = tune(learn)
    pad = draw(classifier, images[2])
    expected = classifier([Image.fromarray(images[2])])
    assert_close(pad.preds.probs, expected.probs)
    assert_close(pad.threshold, classifier.threshold)
    assert pad._answer["fires"] == expected.fires[0].tolist()


def test_a_constant_does_not_move_margins(learn, images):
    pad = draw(SigmoidClassifier(learn, range(10), calibrator=lambda z: margins(z).sigmoid()))
    pad.image = images[0]
    before = pad.preds.probs
    pad.constant = 6
    assert_close(pad.preds.probs, before, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "state",
    [
        {"_pixels": [0] * 783},
        {"_pixels": [256] * 784},
        {"_pixels": ["0"] * 784},
        {"_thresholds": [1.5] * 10},
        {"constant": "1"},
    ],
)
def test_a_message_with_other_values_changes_nothing(state, images, caplog):
    pad = draw(verdict_model(), images[0])
    before = pad._answer
    receive(pad, **state)
    assert "TraitError" in caplog.text
    assert pad._answer == before and (pad.image == images[0]).all()


def test_settings_from_python_are_checked():
    pad = draw(verdict_model())
    for name, value in (("threshold", 1.2), ("threshold", [0.5] * 3), ("image", np.zeros(784))):
        with pytest.raises(ValueError, match="expected"):
            setattr(pad, name, value)
    with pytest.raises(ValueError, match="expected constant to be a number"):
        pad.constant = float("nan")
    assert (pad.threshold, pad.constant) == (0.5, 0)


def test_a_model_that_breaks_later_is_told_in_the_pad_and_recovers(images):
    classifier = verdict_model()
    pad = draw(classifier, images[0])
    good = pad._answer
    whole = classifier._model
    classifier._model = nn.Linear(3, 10)
    send_image(pad, images[1])
    assert "raises" in pad._answer["verdict"] and pad._answer["probs"] == []
    with pytest.raises(ValueError, match="expected a model that takes a gray image"):
        pad.preds  # noqa: B018
    classifier._model = whole
    send_image(pad, images[0])
    assert pad._answer == good


def test_it_warns_once_of_a_loss_that_does_not_train_sigmoids(dls, images):
    learn = Learner(dls, digit_cnn(), loss_func=CrossEntropyLossFlat())
    with pytest.warns(UserWarning, match="trains the softmax") as caught:
        pad = draw(learn)
    told = [warning for warning in caught if "trains the softmax" in str(warning.message)]
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        send_image(pad, images[0])
        pad.constant = 1


def test_a_learner_with_larger_images_in_color_sees_the_drawing(dls, images):
    files = dls.train_ds.items[:20]
    labels = [file.parent.name for file in files]
    lists = {"img_cls": PILImage, "num_workers": 0, "valid_pct": 0.5, "seed": 1}
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 40, 10))
    fits, does_not = (
        Learner(
            ImageDataLoaders.from_lists(".", files, labels, **lists, item_tfms=tfms),
            network,
            loss_func=nn.BCEWithLogitsLoss(),
        )
        for tfms in (Resize(40), None)
    )
    pad = draw(fits, images[0])
    expected = sigmoid_preds(fits, [Image.fromarray(images[0])], vocab=pad.preds.vocab)
    assert_close(pad.preds.logits, expected.logits)
    with pytest.raises(ValueError, match="28x28 pixels.*item_tfms=Resize"):
        draw(does_not)


@pytest.mark.parametrize(
    "model, remedy",
    [
        (None, "verdict_model"),
        ("learn", "verdict_model"),
        (nn.Linear(3, 2), r"SigmoidClassifier\(model, vocab\)"),
    ],
)
def test_other_models_are_refused(model, remedy):
    with pytest.raises(TypeError, match=f"expected model to be a fastai Learner.*{remedy}"):
        draw(model)


def test_a_model_for_other_inputs_is_refused():
    with pytest.raises(
        ValueError, match=r"takes a gray image of 28x28 pixels, got one that raises"
    ):
        draw(SigmoidClassifier(nn.Linear(3, 2), ["a", "b"]))


def test_a_picture_is_beside_the_pad_in_the_notebook(monkeypatch, images):
    shown, updated = [], []
    monkeypatch.setattr(multilabel_mnist.pad, "display", lambda o, **kw: shown.append((o, kw)))
    monkeypatch.setattr(
        multilabel_mnist.pad, "update_display", lambda obj, **kw: updated.append((obj, kw))
    )
    pad = draw(verdict_model())
    pad._ipython_display_()
    (view, _), (picture, settings) = shown
    assert view.keys() == {"application/vnd.jupyter.widget-view+json"}
    assert picture["text/plain"] == "None"
    size = settings["metadata"]["image/png"]
    png = Image.open(io.BytesIO(base64.b64decode(picture["image/png"])))
    assert png.size == (2 * size["width"], 2 * size["height"])

    send_image(pad, images[0])
    assert not updated, "not with every stroke"
    content = {"data": {"method": "custom", "content": {"kind": "settled"}}}
    pad.comm.handle_msg({"content": content, "buffers": [], "header": {"msg_id": "2"}})
    ((picture, again),) = updated
    assert picture["text/plain"] == pad._answer["verdict"] != "None"
    assert again["display_id"] == settings["display_id"]


def test_one_sentence_says_what_to_install():
    code = """
import sys
sys.modules["anywidget"] = None
try:
    import multilabel_mnist.pad
except ImportError as e:
    print(e)
"""
    done = run(sys.executable, "-c", code)
    assert done.stdout.splitlines()[-1] == (
        "expected anywidget, which the pad is made with, got none; "
        'run: pip install "multilabel_mnist[widgets]"'
    )


def test_no_other_module_needs_anywidget():
    names = [f"multilabel_mnist.{name}" for name in BUILT_ON if name != "pad"]
    code = f"""
import importlib, sys
sys.modules["anywidget"] = None
for name in {names}:
    importlib.import_module(name)
assert "ipywidgets" not in sys.modules
print("done")
"""
    assert run(sys.executable, "-c", code).stdout.splitlines()[-1] == "done"


# In JupyterLab

PAD = """
from multilabel_mnist.pad import draw
from multilabel_mnist.shipped import verdict_model

classifier = verdict_model()
pad = draw(classifier)
pad
"""
# What the classifier says about the image that the pad has, without the pad.
ASKED = """
import json, os, torch

probs = (classifier(torch.tensor(pad.image)[None]).logits + pad.constant).sigmoid()[0]
percents = [round(100 * p) for p in probs.tolist()]
print(json.dumps({"pid": os.getpid(), "percents": percents, "image": pad.image.ravel().tolist()}))
"""
# The image that the page shows, which it has sent or is about to send.
SEEN = """
const { data } = document.querySelector(".mm-seen").getContext("2d").getImageData(0, 0, 28, 28);
return Array.from({ length: 784 }, (_, i) => data[4 * i + 3]);
"""
RUN = """
const done = arguments[arguments.length - 1];
const notebook = window.jupyterapp.shell.currentWidget.content;
notebook.activeCellIndex = 1;
window.jupyterapp.commands.execute("notebook:run-cell").then(() => {
  const outputs = notebook.widgets[1].model.sharedModel.getOutputs();
  done(outputs.flatMap((output) => output.text ?? "").join(""));
});
"""
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
SCREEN = {"width": 1200, "height": 1400, "deviceScaleFactor": 1, "mobile": False}
THEME = "window.jupyterapp.commands.execute('apputils:change-theme', { theme: arguments[0] })"
# A splash screen covers the page while the theme changes.
HAS_THEME = """
const isCovered = document.querySelector("#jupyterlab-splash") !== null;
return document.body.dataset.jpThemeName === arguments[0] && !isCovered;
"""
FITS = "const pad = document.querySelector('.mm-pad'); return pad.scrollWidth <= pad.clientWidth;"
COLOR = "return getComputedStyle(document.querySelector('.mm-verdict')).color"
READY = """
const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
return Boolean(context?.isReady && context.session?.kernel?.status === "idle");
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Notebook:
    """A notebook in a browser."""

    def __init__(self, page, server):
        self.page = page
        self.server = server
        self.pid = None  # of the kernel
        self.url = server.write("drawn.ipynb", PAD.strip(), ASKED.strip())

    def open(self):
        """Open the notebook, which connects with its kernel if there is one."""
        self.page.open(self.url)
        wait_for(lab.START, "the kernel", lambda: self.page.run(READY))

    def command(self, name):
        self.page.run("window.jupyterapp.commands.execute(arguments[0])", name)

    def shown(self, selector):
        """Return the text of an element, None if there is none."""
        return self.page.run("return document.querySelector(arguments[0])?.textContent", selector)

    def start(self):
        """Run the first cell."""
        self.open()
        self.command("notebook:run-cell")  # the first one
        wait_for(lab.RUN, "the pad", lambda: self.shown(".mm-verdict"))

    def has(self, verdict):
        """Wait until the pad shows a verdict."""
        wait_for(20, verdict, lambda: self.shown(".mm-verdict") == verdict)

    def draw(self, *strokes, pointer="mouse"):
        draw_on(self.page, ".mm-canvas", *strokes, pointer=pointer)

    def set_theme(self, theme):
        """Change the theme and wait until the pad stays where it is."""
        self.page.run(THEME, theme)
        wait_for(20, theme, lambda: self.page.run(HAS_THEME, theme))
        boxes = []

        def is_still():
            boxes.append(self.page.box(".mm-canvas"))
            return len(boxes) > 5 and boxes[-1] == boxes[-5]

        wait_for(20, "the layout", is_still)

    def values(self, script):
        """Return something of each bar."""
        bars = "return [...document.querySelectorAll('.mm-bars li')].map((li) => "
        return self.page.run(f"{bars}{script});")

    def percents(self):
        return [int(n) for n in self.values("li.querySelector('.mm-value').textContent")]

    def asked(self):
        """Return the percents that the classifier gives for the image that the page shows."""

        def says():
            said = json.loads(self.page.run_async(RUN))
            self.pid = said["pid"]
            return said["image"] == self.page.run(SEEN) and said["percents"]

        return wait_for(20, "the image in the kernel", says)

    def agrees(self):
        """Wait until the page shows what the classifier says about its image; return that."""
        wait_for(60, "the classifier's answer", lambda: self.asked() == self.percents())
        return self.percents()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Give a notebook in JupyterLab, in a browser; skip where one of these is missing."""
    if missing := lab.what_is_missing() or browser.what_is_missing():
        pytest.skip(missing)
    with ExitStack() as stack:
        try:
            page = stack.enter_context(browser.browser())
        except browser.DriverError as e:
            pytest.skip(f"chromedriver cannot start the browser: {e}")
        page.devtools("Emulation.setDeviceMetricsOverride", **SCREEN)
        with lab.lab(tmp_path_factory.mktemp("lab")) as server:
            found = Notebook(page, server)
            found.start()
            yield found
        if found.pid:
            wait_for(lab.END, "the end of the kernel", lambda: not is_alive(found.pid))


@pytest.fixture
def empty(opened):
    """Give the notebook with a blank pad and its sliders in the middle."""
    for button in (".mm-clear", ".mm-reset"):
        opened.page.run("document.querySelector(arguments[0]).click()", button)
    opened.has("None")
    return opened


@pytest.mark.parametrize("pointer", ["mouse", "pen", "touch"])
def test_strokes_get_a_verdict(empty, pointer):
    empty.draw(SEVEN, pointer=pointer)
    empty.has("One: 7")
    empty.agrees()


def test_two_digits_are_several_and_undo_leads_back(empty):
    empty.draw(placed(SEVEN, 0.3, 0.6))
    empty.has("One: 7")
    empty.draw(placed(ZERO, 0.7, 0.6))
    empty.has("Several: 0 and 7")
    empty.agrees()
    assert empty.values("li.classList.contains('mm-fires')") == [
        digit in (0, 7) for digit in range(10)
    ]
    empty.page.press(".mm-canvas", "\ue009", "z")  # Control and Z
    empty.has("One: 7")
    empty.page.press(".mm-undo", "\ue007")
    empty.has("None")


def test_a_small_digit_in_a_corner_is_scaled_and_centered_as_mnist_is(empty):
    empty.draw([(0.2 * x, 0.2 * y) for x, y in ONE])
    empty.has("One: 1")
    empty.agrees()


def test_the_sliders_redraw_live(empty):
    empty.draw(ONE)
    empty.has("One: 1")
    percents = empty.agrees()
    circles = empty.values("li.querySelector('.mm-softmax').style.bottom")
    empty.page.press(".mm-threshold", "\ue010")  # End
    empty.has("None")
    assert empty.percents() == percents, "the threshold does not change what the model says"
    lines = empty.values("li.querySelector('.mm-line').style.bottom")
    assert lines == ["100%"] * 10
    empty.page.press(".mm-reset", "\ue007")
    empty.has("One: 1")

    empty.page.press(".mm-constant", "\ue011")  # Home
    empty.has("None")
    assert empty.shown(".mm-constant + output") == "-10.0"
    assert empty.agrees() != percents
    assert empty.values("li.querySelector('.mm-softmax').style.bottom") == circles
    empty.page.press(".mm-reset", "\ue007")
    empty.has("One: 1")
    assert empty.percents() == percents


def test_the_keys_of_a_slider_do_not_move_through_the_notebook(empty):
    active = "return window.jupyterapp.shell.currentWidget.content.activeCellIndex"
    empty.command("notebook:enter-command-mode")
    before = empty.page.run(active)
    for key, threshold in (("\ue015", "0.49"), ("\ue013", "0.50"), ("\ue014", "0.51")):
        empty.page.press(".mm-threshold", key)  # down, up, right
        assert empty.shown(".mm-threshold + output") == threshold
    assert empty.page.run(active) == before

    dirty = "return window.jupyterapp.shell.currentWidget.content.model.dirty"
    assert empty.page.run(dirty)
    empty.page.press(".mm-threshold", "\ue009", "s")  # Control and S
    wait_for(20, "saving", lambda: not empty.page.run(dirty))


@pytest.mark.parametrize("width", [390, 700, 1200])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_pad_fits_in_and_can_be_read(empty, width, theme):
    screen = SCREEN | {"width": width, "mobile": width < 500}
    empty.page.devtools("Emulation.setDeviceMetricsOverride", **screen)
    empty.set_theme(theme)
    try:
        empty.draw(SEVEN)
        empty.has("One: 7")
        assert empty.page.run(FITS)
        brightness = np.mean([int(n) for n in re.findall(r"\d+", empty.page.run(COLOR))[:3]])
        assert brightness > 200 if theme == DARK else brightness < 100
    finally:
        empty.page.devtools("Emulation.setDeviceMetricsOverride", **SCREEN)
        empty.set_theme(LIGHT)


def test_the_drawing_outlives_the_page_and_a_picture_the_kernel(empty):
    empty.draw(SEVEN)
    empty.has("One: 7")

    def saved():
        empty.command("docmanager:save")
        outputs = empty.server.read("drawn.ipynb").cells[0].outputs
        pictures = [o.data for o in outputs if "image/png" in o.get("data", {})]
        return pictures if [p["text/plain"] for p in pictures] == ["One: 7"] else None

    (picture,) = wait_for(60, "the picture", saved)
    png = Image.open(io.BytesIO(base64.b64decode(picture["image/png"])))
    assert min(png.size) > 100

    empty.open()
    empty.has("One: 7")
    hidden = "return document.querySelector('.jp-OutputArea-child img').offsetParent === null"
    assert empty.page.run(hidden), "the pad is there"
    empty.page.press(".mm-undo", "\ue007")
    empty.has("None")

    empty.server.end_kernels()
    empty.open()
    wait_for(60, "the picture", lambda: empty.page.run(hidden) is False)
    assert empty.shown(".mm-verdict") is None
