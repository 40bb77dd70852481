"""What the stages of verification share: the threshold of each pair, its orientation, and each pair once."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.engine.image_ids import part_of
from curate.stages.copies.keep_near import KeepNear
from curate.stages.copies.verified_pairs import distinct_pairs, least_similarity, oriented
from curate.tables import HELDOUT, PAIRS
from tests.stages.copies.given_pairs import ROWS, parts


def test_pairs_with_a_heldout_query_have_a_threshold_of_their_own() -> None:
    pairs = pa.table({"query_id": [0, 2 << 32, 1 << 32]})
    stage = KeepNear(threshold=0.9, heldout_threshold=0.5)
    assert least_similarity(stage, pairs, parts()).tolist() == np.array([0.9, 0.5, 0.9], np.float32).tolist()


IDS = st.sampled_from([part << 32 | row for part in range(2) for row in range(ROWS)])
ASKING = st.sampled_from([part << 32 | row for part in range(3) for row in range(ROWS)])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(ASKING, IDS, st.sampled_from([0.5, 0.75, 1.0])), max_size=40))
def test_each_pair_is_left_once_with_its_highest_similarity_and_the_smaller_id_first(
    found: list[tuple[int, int, float]],
) -> None:
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    pairs = pa.table([pa.array(x, f.type) for x, f in zip(columns, PAIRS, strict=True)], schema=PAIRS)
    expected: dict[tuple[int, int], float] = {}
    for a, b, similarity in found:
        key = (a, b) if part_of(a) == HELDOUT else (min(a, b), max(a, b))
        expected[key] = max(similarity, expected.get(key, -1))
    rows = distinct_pairs(oriented(pairs, parts())).to_pylist()
    assert [((r["query_id"], r["image_id"]), r["similarity"]) for r in rows] == sorted(expected.items())
