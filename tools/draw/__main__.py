"""Makes nbs/draw.html from the weights that the package ships: `python -m tools.draw --help`."""

import argparse
import base64
import re
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from multilabel_mnist.shipped import WEIGHTS
from tools.files import beside, write_whole
from tools.notebooks import NBS, ROOT

HERE = Path(__file__).parent
PAD = ROOT / "multilabel_mnist/widget/pad.js"  # the widget in JupyterLab has the same pad
PAGE = NBS / "draw.html"
SAMPLES = HERE / "samples.png"  # the samples and then the steps of the morph, side by side
NAMES = ["a 7", "a 1 that looks like a 7", "10", "the letter A", "noise", "a blank page"]
N_STEPS = 21  # of the morph
SIZE = 28  # pixels


def make_samples(digits):
    """Return the samples and the steps of the morph, uint8 (n, 28, 28), from MNIST's folder."""
    import torch

    from multilabel_mnist.ambiguity import morph
    from multilabel_mnist.draw import affine, printed_characters

    def read(name):
        return np.asarray(Image.open(digits / "testing" / name))

    def smaller(name, shift):
        """Return a digit as one half of a side-by-side pair."""
        return affine(torch.tensor(read(name))[None, None] / 255, 0.7, shift)

    ten = torch.maximum(smaller("1/1004.png", -7), smaller("0/10.png", 7))
    letter = printed_characters("A", each=1)[0, 0].numpy()
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), "uint8")
    samples = [
        read("7/0.png"),
        read("1/4201.png"),
        (ten[0, 0] * 255).round().byte().numpy(),
        letter,
        noise,
        np.zeros((SIZE, SIZE), "uint8"),
    ]
    return np.stack([*samples, *morph(read("1/1004.png"), read("7/0.png"), N_STEPS)])


def write_samples(digits):
    """Write the samples as one strip."""
    strip = np.concatenate(make_samples(digits), 1)
    with beside(SAMPLES) as new:
        Image.fromarray(strip).save(new, optimize=True)


def read_samples():
    """Return the samples, uint8 (n, 28, 28), and the steps of the morph."""
    strip = np.asarray(Image.open(SAMPLES))
    images = np.stack(np.split(strip, strip.shape[1] // SIZE, 1))
    return images[: len(NAMES)], images[len(NAMES) :]


def button(name):
    """Return the button of a sample."""
    canvas = f'<canvas width="{SIZE}" height="{SIZE}" aria-hidden="true"></canvas>'
    return f'<button type="button">{canvas}{escape(name)}</button>'


def render(weights=WEIGHTS):
    """Return the page, which holds all that it needs."""

    def text(name):
        return (HERE / name).read_text(encoding="utf-8").strip()

    def base64_of(data):
        return base64.b64encode(data).decode()

    samples, steps = read_samples()
    parts = {
        "style": text("page.css"),
        "network": text("network.js"),
        "pad": text(PAD),
        "page": text("page.js"),
        "samples": "\n".join(map(button, NAMES)),
        "softmax-weights": base64_of((weights / "softmax.safetensors").read_bytes()),
        "recipe-weights": base64_of((weights / "verdicts.safetensors").read_bytes()),
        "samples-data": base64_of(samples.tobytes()),
        "morph-data": base64_of(steps.tobytes()),
    }
    return re.sub(r"\{\{([\w-]+)\}\}", lambda found: parts[found[1]], text("page.html")) + "\n"


def arguments(argv=None):
    """Read the command line."""
    summary = __doc__.partition(":")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.draw", description=summary)
    parser.add_argument(
        "--samples", action="store_true", help="make the samples anew, which needs MNIST"
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Write the page."""
    if arguments(argv).samples:
        from multilabel_mnist.data import digits_path

        write_samples(digits_path("mnist"))
    page = render()
    write_whole(PAGE, page)
    print(f"{PAGE.name}: {len(page.encode()):,} bytes")


if __name__ == "__main__":
    main()
