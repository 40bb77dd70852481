"""Figures of evenness."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from curate.ops.entropy import effective_number, normalized_entropy

counts = st.lists(st.integers(0, 1000), min_size=2, max_size=20).filter(any)


@given(counts)
def test_entropy_equals_scipy(values):
    assert normalized_entropy(np.array(values)) == pytest.approx(entropy(values) / np.log(len(values)), abs=1e-12)
    assert effective_number(np.array(values)) == pytest.approx(np.exp(entropy(values)))


def test_even_is_one_and_all_in_one_is_zero():
    assert normalized_entropy(np.full(7, 3)) == pytest.approx(1)
    assert effective_number(np.full(7, 3)) == pytest.approx(7)
    assert normalized_entropy(np.array([0, 9, 0])) == 0
    assert normalized_entropy(np.array([5])) == 1


def test_counts_without_images_are_errors():
    with pytest.raises(ValueError, match="no image in any category"):
        normalized_entropy(np.zeros(3))
    with pytest.raises(ValueError, match="-1 is negative"):
        effective_number(np.array([2, -1]))
