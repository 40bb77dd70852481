"""Stars of equal bytes, against loops over all pairs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curate.ops.copies.exact import equal_bytes
from curate.tables import CURATED, HELDOUT, POOL

images = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([POOL, CURATED, HELDOUT]), st.integers(0, 2)))
"""Digest, role and source rank; the position is the id."""


def expected_pairs(rows: list[tuple[int, int, int]]) -> set[tuple[int, int]]:
    """(asking, answering): each image and the preferred one of its digest, for every pair of roles that matters."""
    pairs = set()
    for i, (digest, role, _) in enumerate(rows):
        for center_role in {POOL: (POOL, CURATED, HELDOUT), CURATED: (HELDOUT,), HELDOUT: ()}[role]:
            same = [j for j, row in enumerate(rows) if row[:2] == (digest, center_role)]
            center = min(same, key=lambda j: (rows[j][2] if center_role == POOL else 0, j), default=i)
            if center != i:
                pairs.add((center, i) if center_role == HELDOUT else (i, center))
    return pairs


@given(images, st.randoms())
def test_each_image_pairs_with_the_preferred_one_of_its_bytes(rows, random):
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    digest, role, rank = (np.array([rows[i][column] for i in shuffled], np.int64) for column in range(3))
    sha256 = np.zeros((len(rows), 32), np.uint8)
    sha256[:, 31] = digest  # bytes that differ only at their end differ
    ids = np.array(shuffled, np.int64)
    asking, answering = equal_bytes(ids, sha256, role=role.astype(np.int8), rank=rank)
    found = list(zip(asking.tolist(), answering.tolist(), strict=True))
    assert len(set(found)) == len(found)
    assert set(found) == expected_pairs(rows)
