"""Names of codes equal a lookup one by one."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.codes import names_of

NAMES = ("pool", "curated", "heldout")


@settings(deadline=None)
@given(st.lists(st.integers(-2, len(NAMES) - 1)))
def test_codes_become_their_names_and_negative_ones_null(codes: list[int]) -> None:
    found = names_of(np.array(codes, np.int8), NAMES)
    assert found.type == pa.string()
    assert found.to_pylist() == [NAMES[code] if code >= 0 else None for code in codes]
