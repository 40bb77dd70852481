"""The nearest example is that of comparing with all."""

import numpy as np
import pytest

from curate.ops.screening import nearest_example as under_test
from curate.ops.vectors import normalize


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
def test_nearest_is_that_of_all_products(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "BLOCK_VALUES", block)
    rng = np.random.default_rng(0)
    vectors, examples = (normalize(rng.standard_normal((n, 12))) for n in (83, 7))
    cosine, place = under_test.nearest_example(vectors, examples)
    np.testing.assert_allclose(cosine, (vectors @ examples.T).max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(place, (vectors @ examples.T).argmax(axis=1))
    assert under_test.nearest_example(vectors[:0], examples)[0].shape == (0,)
