"""Integers in the order of floats."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curate.ops.float_order import from_ordered_integers, to_ordered_integers

floats = st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=40)


@given(floats)
def test_integers_have_the_order_of_the_floats(values: list[float]) -> None:
    x = np.array(values, np.float32)
    ordered = to_ordered_integers(x)
    assert ordered.dtype == np.uint32
    assert x[np.argsort(ordered)].tolist() == sorted(values)


@given(floats)
def test_no_bit_is_lost(values: list[float]) -> None:
    x = np.array(values, np.float32)
    assert from_ordered_integers(to_ordered_integers(x)).tobytes() == x.tobytes()
