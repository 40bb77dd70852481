"""Curated images that resemble held-out ones."""

from pathlib import Path

import numpy as np

from curate.ops.duplicates import CURATED, HELDOUT, POOL
from curate.stages.catalog import Parts
from curate.stages.deduplicate import curated_heldout
from curate.store import Table
from curate.tables import IMAGES, NEIGHBORS
from tests.stages.planted import given_table

PARTS = Parts(np.array([POOL, CURATED, HELDOUT]), np.arange(3), np.full(3, 4), ["pool", "curated", "heldout"])


def images(root: Path, hashes: list[list[bytes | None]]) -> Table:
    rows = [
        [{"image_id": part << 32 | row, "sha256": sha256 and sha256 * 32} for row, sha256 in enumerate(column)]
        for part, column in enumerate(hashes)
    ]
    return given_table(root, "images", IMAGES, rows)


def edges(root: Path, pairs: list[tuple[tuple[int, int], tuple[int, int], float]]) -> Table:
    rows = [
        {"query_id": a[0] << 32 | a[1], "image_id": b[0] << 32 | b[1], "similarity": cosine, "kind": "embedding"}
        for a, b, cosine in pairs
    ]
    return given_table(root, "neighbors", NEIGHBORS, [rows])


def test_bytes_of_a_heldout_image_are_found_without_an_edge(tmp_path: Path) -> None:
    given = images(tmp_path, [[b"h"], [b"a", b"h", None, b"i"], [b"i", None, b"h"]])
    assert curated_heldout([edges(tmp_path, [])], given, PARTS).tolist() == [1 << 32 | 1, 1 << 32 | 3]


def test_curated_images_identical_to_one_that_resembles_a_heldout_image_are_found(tmp_path: Path) -> None:
    given = images(tmp_path, [[b"p"], [b"a", b"b", b"c", b"d"], [b"h"]])
    pairs = [((2, 0), (1, 0), 0.7), ((1, 1), (1, 0), 1.0), ((1, 2), (1, 0), 0.9), ((2, 0), (0, 0), 0.9)]
    assert curated_heldout([edges(tmp_path, pairs)], given, PARTS).tolist() == [1 << 32, 1 << 32 | 1]
