"""nbs/draw.html: what it holds, its forward pass against torch, and drawing in a real browser."""

import json
import re
import shutil
import subprocess
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from browser import DriverError, browser, what_is_missing
from bs4 import BeautifulSoup
from chains import in_use, residual_network, some_images
from strokes import DIGITS, ONE, SEVEN, ZERO, draw_on, placed

from conftest import ROOT
from multilabel_mnist.ambiguity import ambiguity
from multilabel_mnist.shipped import WEIGHTS, pack_network, read_network
from tools.draw.__main__ import NAMES, PAGE, read_samples, render

NETWORKS = {"softmax": "softmax.safetensors", "recipe": "verdicts.safetensors"}
TOLERANCE = 1e-3  # of logits up to 30: both sides compute with the same weights of one byte
# Node reads the script of the page, the weights and the images, and writes the logits.
NODE = """
const fs = require("fs");
const [script, weights, images] = process.argv.slice(1);
const functions = "return { readNetwork, logitsOf };";
const page = new Function(fs.readFileSync(script, "utf8") + functions)();
const network = page.readNetwork(new Uint8Array(fs.readFileSync(weights)));
const all = JSON.parse(fs.readFileSync(images, "utf8"));
console.log(JSON.stringify(all.map((pixels) => page.logitsOf(network, pixels))));
"""


def fixed_images():
    """Return the samples, the morph and noise of several strengths, uint8 (n, 28, 28)."""
    samples, steps = read_samples()
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, high, (28, 28), "uint8") for high in (2, 60, 256)]
    return np.concatenate([samples, steps, noise])


def torch_logits(file, images):
    """Return the logits that torch computes."""
    model, _ = read_network(file)
    with torch.no_grad():
        return model(torch.from_numpy(images))


def check_logits(found, file, images):
    """Compare the logits of a page with torch's."""
    expected = torch_logits(file, images)
    torch.testing.assert_close(torch.tensor(found), expected, atol=TOLERANCE, rtol=0)


def test_the_page_is_in_step_with_the_weights():
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m tools.draw"


def test_the_page_holds_all_that_it_needs():
    html = PAGE.read_text(encoding="utf-8")
    soup = BeautifulSoup(html, "html.parser")
    assert not soup.find_all(["link", "img", "iframe"]) and not soup.find_all(src=True)
    style = soup.style.get_text()
    assert "url(" not in style and "@import" not in style
    scripts = [tag.get_text() for tag in soup.find_all("script") if not tag.get("type")]
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(", "".join(scripts))
    links = [tag["href"] for tag in soup.find_all("a")]
    assert len(links) == 2 and all((PAGE.parent / link).is_file() for link in links)
    assert len(soup.select("#samples button")) == len(NAMES)
    assert "{{" not in html


def test_samples():
    samples, steps = read_samples()
    assert samples.shape == (len(NAMES), 28, 28) and steps.shape[1:] == (28, 28)
    assert samples.dtype == np.uint8 and not samples[-1].any() and len(steps) > 10
    assert all(image.any() for image in [*samples[:-1], *steps])


def node_logits(file, images, tmp_path):
    """Return the logits that the script of the page computes in Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    pixels = tmp_path / "images.json"
    pixels.write_text(json.dumps(images.reshape(len(images), -1).tolist()), encoding="utf-8")
    command = [node, "-e", NODE, ROOT / "tools/draw/network.js", file, pixels]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_script_computes_what_torch_computes(name, tmp_path):
    images = fixed_images()
    file = WEIGHTS / NETWORKS[name]
    check_logits(node_logits(file, images, tmp_path), file, images)


def test_the_script_knows_all_kinds_of_layers(tmp_path):
    file = tmp_path / "network.safetensors"
    file.write_bytes(pack_network(in_use(residual_network), 0.13, 0.31, list("0123456789")))
    images = some_images()
    check_logits(node_logits(file, images, tmp_path), file, images)


# In a browser


@pytest.fixture(scope="module")
def chromium():
    """Give a browser for the tests of this module; skip them where there is none."""
    if missing := what_is_missing():
        pytest.skip(missing)
    with ExitStack() as stack:
        try:
            page = stack.enter_context(browser())
        except DriverError as e:
            pytest.skip(f"chromedriver cannot start the browser: {e}")
        yield page


@pytest.fixture
def page(chromium):
    """Give the page, freshly opened; nothing may go wrong in it meanwhile."""
    chromium.open(PAGE.as_uri())
    yield chromium
    assert chromium.logged() == []


def verdicts(page):
    """Return what the page says of the image, softmax and the recipe."""
    return tuple(page.text(f"#{name} .verdict") for name in NETWORKS)


def recipe(page):
    return verdicts(page)[1]


def draw(page, *strokes, pointer="mouse"):
    draw_on(page, "#pad", *strokes, pointer=pointer)


@pytest.mark.parametrize("pointer", ["mouse", "pen", "touch"])
@pytest.mark.parametrize("digit", DIGITS)
def test_a_drawn_digit_is_one(page, digit, pointer):
    draw(page, DIGITS[digit], pointer=pointer)
    assert verdicts(page) == (f"One: {digit}", f"One: {digit}")


@pytest.mark.parametrize("pair", [("1", "0"), ("7", "0"), ("7", "3")])
def test_two_drawn_digits_are_several_and_softmax_names_one(page, pair):
    left, right = (DIGITS[digit] for digit in pair)
    draw(page, placed(left, 0.3, 0.6), placed(right, 0.7, 0.6))
    softmax, several = verdicts(page)
    assert several == "Several: " + " and ".join(sorted(pair))
    assert re.fullmatch(r"One: \d", softmax)


def test_an_empty_page_is_none_and_softmax_names_a_digit(page):
    softmax, none = verdicts(page)
    assert none == "None" and re.fullmatch(r"One: \d", softmax)


def test_a_small_digit_in_a_corner_is_scaled_and_centered(page):
    draw(page, [(0.2 * x, 0.2 * y) for x, y in SEVEN])
    assert recipe(page) == "One: 7"
    seen = np.array(page.run("return Array.from(imageOf(current()))")).reshape(28, 28)
    rows, columns = np.nonzero(seen)
    assert rows.max() - rows.min() > 12
    center = np.average([rows, columns], axis=1, weights=seen[seen > 0])
    assert np.abs(center - 13.5).max() < 1.5


def test_undo_and_clear(page):
    assert page.run("return document.querySelector('#undo').disabled")
    draw(page, placed(SEVEN, 0.3, 0.6))
    assert recipe(page) == "One: 7"
    draw(page, placed(ZERO, 0.7, 0.6))
    assert recipe(page) == "Several: 0 and 7"
    page.press("#undo", "\ue007")  # Enter
    assert recipe(page) == "One: 7"
    page.press("#clear", "\ue007")
    assert recipe(page) == "None"
    page.press("body", "\ue009", "z")  # Control and Z
    assert recipe(page) == "One: 7"
    page.press("#undo", "\ue007")
    assert recipe(page) == "None"
    assert page.run("return document.querySelector('#undo').disabled")


def test_samples_are_reached_by_the_keyboard(page):
    images, _ = read_samples()
    expected = torch_logits(WEIGHTS / "verdicts.safetensors", images) > 0
    for i in range(len(NAMES)):
        page.press(f"#samples button:nth-child({i + 1})", "\ue007")
        named = [str(digit) for digit in expected[i].nonzero()[:, 0].tolist()]
        assert re.findall(r"\d", recipe(page)) == named
    page.press("#samples button:nth-child(1)", "\ue007")
    assert verdicts(page) == ("One: 7", "One: 7")


def test_one_draws_over_a_sample(page):
    page.press("#samples button:nth-child(6)", "\ue007")
    draw(page, ONE)
    assert recipe(page) == "One: 1", "a blank page is a sample as well"
    page.press("#samples button:nth-child(1)", "\ue007")
    draw(page, [(0.5, 0.5), (0.5, 0.6)])
    seen = np.array(page.run("return Array.from(imageOf(current()))"))
    assert (seen >= read_samples()[0][0].ravel()).all(), "the sample is still there"
    page.press("#undo", "\ue007")
    assert recipe(page) == "One: 7"


def test_the_slider_morphs_from_a_1_to_a_7(page):
    said = set()
    steps = page.run("return Number(document.querySelector('#morph').max)")
    page.press("#morph", "\ue010")  # End
    assert recipe(page) == "One: 7"
    for _ in range(steps):
        page.press("#morph", "\ue012")  # arrow to the left
        said.add(recipe(page))
    assert recipe(page) == "One: 1" and said >= {"One: 1", "One: 7"}
    page.press("#undo", "\ue007")
    assert page.run("return document.querySelector('#undo').disabled"), "one step back for all"


def test_a_screen_reader_is_told_the_verdict(page):
    draw(page, SEVEN)
    said = page.run("return [...document.querySelectorAll('#recipe li')].map(o => o.textContent)")
    assert [re.match(r"(\d): \d+$", text)[1] for text in said] == list("0123456789")
    assert int(said[7].split(": ")[1]) > 50
    script = """
    const done = arguments[arguments.length - 1];
    const told = document.querySelector("#spoken");
    const look = () => (told.textContent ? done(told.textContent) : setTimeout(look, 50));
    look();
    """
    told = page.run_async(script)
    assert told == "Softmax: One: 7. The recipe: One: 7."


def test_numbers_on_the_page(page):
    page.press("#samples button:nth-child(2)", "\ue007")
    image = read_samples()[0][1:2]
    probs = {
        "softmax": torch_logits(WEIGHTS / "softmax.safetensors", image).softmax(1),
        "recipe": torch_logits(WEIGHTS / "verdicts.safetensors", image).sigmoid(),
    }
    expected = {
        "softmax": torch.special.entr(probs["softmax"]).sum().item() / np.log(2),
        "recipe": ambiguity(probs["recipe"]).item(),
    }
    for name, bits in expected.items():
        shown = float(page.text(f"#{name} .entropy").removesuffix(" bits"))
        assert abs(shown - bits) < 0.006
        percents = [
            int(page.text(f"#{name} li:nth-child({digit + 1}) .value")) for digit in range(10)
        ]
        assert np.abs(np.array(percents) - 100 * probs[name][0].numpy()).max() < 0.51


@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_computes_what_torch_computes(page, name):
    images = fixed_images()
    script = "return arguments[1].map((pixels) => logitsOf(networks[arguments[0]], pixels));"
    found = page.run(script, name, images.reshape(len(images), -1).tolist())
    check_logits(found, WEIGHTS / NETWORKS[name], images)


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_fits_a_phone_and_a_desk(page, mode, width):
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    features = [{"name": "prefers-color-scheme", "value": mode}]
    page.devtools("Emulation.setDeviceMetricsOverride", **screen)
    page.devtools("Emulation.setEmulatedMedia", features=features)
    try:
        page.settle()
        draw(page, SEVEN)
        assert recipe(page) == "One: 7"
        assert page.run("return document.documentElement.scrollWidth") <= width
        background = page.run("return getComputedStyle(document.body).backgroundColor")
        brightness = np.mean([int(n) for n in re.findall(r"\d+", background)[:3]])
        assert brightness > 200 if mode == "light" else brightness < 60
        tops = [page.box(f"#{name}")["top"] for name in NETWORKS]
        assert tops[0] == tops[1], "both networks are side by side"
    finally:
        page.devtools("Emulation.clearDeviceMetricsOverride")
        page.devtools("Emulation.setEmulatedMedia", features=[])
