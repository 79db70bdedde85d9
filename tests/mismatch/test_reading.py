"""How a diagnosis reads in a terminal and in a notebook, and that the call changes nothing."""

import re

import pytest
import torch
from fastai.losses import BCEWithLogitsLossFlat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from multilabel_mnist.mismatch import diagnose

from .cases import CASES, THREADS
from .frozen import frozen, random_state, same
from .maker import STEADY
from .page import Page
from .right import RIGHT
from .wrong import WRONG

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size")


COLOR = re.compile(r"#[0-9a-f]{3}|rgb|\b(?:black|white(?!-)|red|green|blue)\b")


def check_text(loss, pred, targ):
    """Three sentences, then code."""
    d = diagnose(loss, pred, targ)
    sentences = re.split(r"(?<=[.!?]) (?=[A-Za-z0-9\[])", d.explanation)
    assert len(sentences) == 3, d.explanation
    assert all(sentence.endswith(".") for sentence in sentences), d.explanation
    assert "prediction" in sentences[0] and "target" in sentences[0]
    assert ("probably" in d.explanation) == (not d.certain)
    lines = str(d).splitlines()
    assert lines[0].startswith(d.cause) and lines[1] == d.explanation
    assert repr(d) == str(d)
    for fix in d.fixes:
        compile(fix, "fix", "exec")
        assert "\n".join(f"    {line}" for line in fix.splitlines()) in str(d)
    assert d.ok == (d.cause == "ok")
    assert not (d.ok and (d.fixes or d.silent))
    assert d.ok or d.fixes or d.cause == "rows"


def check_html(loss, pred, targ):
    """Whole, in colors that read on any page, and each drawing says which shape it shows."""
    d = diagnose(loss, pred, targ)
    page = Page(d._repr_html_())
    # An untrusted notebook loses whatever is not plain HTML.
    assert not page.names & {"script", "svg", "style", "a"}
    assert not COLOR.search(" ".join(page.attributes("style", "color", "bgcolor")))
    drawings = page.images()
    assert len(drawings) == 2
    for what, shape in (("prediction", d.pred_shape), ("target", d.targ_shape)):
        numbers = " \u00d7 ".join(map(str, shape)) or "without axes"
        drawing = Page(drawings[f"{what}: {numbers}"])
        assert set(drawing.attributes("fill", "stroke")) <= {"none", "#777"}
        n = torch.Size(shape).numel()
        assert f"{n:,} number{'' if n == 1 else 's'}" in page.texts
    assert d.explanation in page.texts


def check_nothing_changes(loss, pred, targ):
    before = [frozen(o) for o in (loss, pred, targ)]
    state = random_state()
    grad = torch.is_grad_enabled()
    diagnose(loss, pred, targ)
    assert same(before, [frozen(o) for o in (loss, pred, targ)])
    assert same(state, random_state())
    assert torch.is_grad_enabled() == grad


all_checks = pytest.mark.parametrize("check", [check_text, check_html, check_nothing_changes])


@all_checks
@pytest.mark.parametrize("case", CASES + THREADS, ids=lambda case: case.name)
def test_of_a_case(case, check):
    torch.manual_seed(0)
    check(*case.make())


@all_checks
@pytest.mark.parametrize("kind", WRONG)
@settings(STEADY, max_examples=5)
@given(data=st.data())
def test_of_a_wrong_pair(kind, check, data):
    check(*data.draw(WRONG[kind].pairs).args)


@all_checks
@pytest.mark.parametrize("kind", RIGHT)
@settings(STEADY, max_examples=30)
@given(data=st.data())
def test_of_a_right_pair(kind, check, data):
    check(*data.draw(RIGHT[kind]).args)


def test_the_drawing_shows_64_beside_64_x_10():
    d = diagnose(BCEWithLogitsLossFlat(), torch.randn(64, 10), torch.arange(64) % 10)
    page = Page(d._repr_html_())
    for text in ("64", "64 × 10", "640 numbers", "64 numbers", "prediction", "target"):
        assert text in page.texts
    drawings = {alt: Page(svg) for alt, svg in page.images().items()}
    # 7 of 64 rows are drawn, the rest is dots.
    squares, circles = drawings["prediction: 64 × 10"], drawings["target: 64"]
    assert [tag for tag, _ in squares.tags].count("rect") == 70
    assert [tag for tag, _ in circles.tags].count("circle") == 7
    assert "64" in squares.texts and "10" in squares.texts


EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&</pre></svg>'


def test_what_comes_from_the_user_is_escaped():
    class Loss(nn.Module):
        def forward(self, pred, targ):
            raise ValueError(EVIL)

    def function(pred, targ):
        raise TypeError(EVIL)

    class Weird(torch.Tensor):
        pass

    Loss.__name__ = EVIL
    function.__name__ = EVIL
    Weird.__name__ = EVIL
    pred = torch.randn(4, 3)
    targ = torch.randn(4)
    for loss in (Loss(), function):
        page = Page(diagnose(loss, pred, targ)._repr_html_())
        assert not page.names & {"script", "svg"}
        assert len(page.images()) == 2  # every image is a drawing of ours
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
        assert EVIL in page.texts  # as the error's text, and so as text alone
    Page(diagnose(nn.MSELoss(), {EVIL: pred}, targ.as_subclass(Weird))._repr_html_())
