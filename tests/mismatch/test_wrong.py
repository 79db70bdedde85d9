"""`diagnose` tells each wrong pair by its cause, and whether it is silent and certain."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilabel_mnist.mismatch import diagnose
from multilabel_mnist.mismatch.table import CAUSES

from .maker import STEADY
from .wrong import WRONG, is_silent

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size")


@pytest.mark.parametrize("kind", WRONG)
@settings(STEADY, max_examples=40)
@given(data=st.data())
def test_a_wrong_pair_is_told_by_its_cause(kind, data):
    pair = data.draw(WRONG[kind].pairs)
    d = diagnose(*pair.args)
    assert d.cause == WRONG[kind].cause and not d.ok, f"{pair}\n{d}"
    assert d.silent == is_silent(pair), f"{pair}\n{d}"
    assert pair.certain in (None, d.certain), f"{pair}\n{d}"


def test_there_are_wrong_pairs_for_every_cause():
    """Those that need two devices, no tensor at all or a `backward()` have tests elsewhere."""
    elsewhere = {
        "other-device",
        "several-outputs",
        "prediction-dtype",
        "class-weight-dtype",
        "loss-not-reduced",
    }
    assert {kind.cause for kind in WRONG.values()} == {c.slug for c in CAUSES} - elsewhere
