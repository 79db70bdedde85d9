"""`diagnose` never calls a pair wrong that is right, whatever its loss, shape and dtype."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilabel_mnist.mismatch import diagnose

from .maker import STEADY
from .right import RIGHT


@pytest.mark.parametrize("kind", RIGHT)
@settings(STEADY, max_examples=1000)
@given(data=st.data())
def test_a_right_pair_is_called_ok(kind, data):
    pair = data.draw(RIGHT[kind])
    pair.loss(pair.pred, pair.targ)  # torch itself raises no error
    d = diagnose(*pair.args)
    assert d.ok and d.cause == "ok" and d.certain and not d.silent and not d.fixes, f"{pair}\n{d}"
