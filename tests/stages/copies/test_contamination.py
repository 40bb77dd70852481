"""Images that resemble held-out ones: a set of bits, edges, and twins of images with an edge."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.engine.image_ids import Parts
from curate.stages.copies.contamination import ImageSet, curated_warning, touching_heldout
from curate.tables import CURATED, HELDOUT, NEIGHBORS, POOL
from tests.stages.planted import given_table

PARTS = Parts(np.array([POOL, CURATED, HELDOUT]), np.arange(3), np.full(3, 4), ["pool", "curated", "heldout"])


def test_curated_images_identical_to_one_that_resembles_a_heldout_image_are_found(tmp_path: Path) -> None:
    pairs = [((2, 0), (1, 0), 0.7), ((1, 1), (1, 0), 1.0), ((1, 2), (1, 0), 0.9), ((2, 0), (0, 0), 0.9)]
    rows = [
        {"query_id": a[0] << 32 | a[1], "image_id": b[0] << 32 | b[1], "similarity": cosine, "kind": "embedding"}
        for a, b, cosine in pairs
    ]
    found = touching_heldout([given_table(tmp_path, "neighbors", NEIGHBORS, [rows])], PARTS)
    curated = 1 << 32 | np.arange(4)
    assert found.has(curated).tolist() == [True, True, False, False]
    assert [found.count(PARTS, role) for role in (POOL, CURATED, HELDOUT)] == [1, 2, 0]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(0, 12)), max_size=40))
def test_bits_equal_a_set(members: list[tuple[int, int]]) -> None:
    parts = Parts(np.array([POOL, CURATED, POOL]), np.arange(3), np.full(3, 13), ["a", "b", "c"])
    ids = np.array([part << 32 | row for part, row in members], np.int64)
    everything = np.array([part << 32 | row for part in range(3) for row in range(13)])
    found = ImageSet(parts)
    found.add(ids)
    assert np.array_equal(found.has(everything), np.isin(everything, ids))
    assert found.count(parts, POOL) == len({member for member in members if member[0] != 1})


def test_the_warning_counts_its_images() -> None:
    assert curated_warning(1).startswith("1 curated image of this run resembles held-out images")
    assert curated_warning(1200).startswith("1,200 curated images of this run resemble held-out images")
