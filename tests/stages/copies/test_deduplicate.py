"""Deduplicate: curated images that resemble held-out ones, warnings of chains, and how components are cut."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store, Table
from curate.ops.copies.graph import Oversized
from curate.ops.roles import CURATED, HELDOUT, POOL
from curate.stages.copies.contamination import touching_heldout
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.copies.exact import FindExact
from curate.stages.images.catalog import Parts
from curate.tables import CATALOG, DUPLICATES, IMAGES, NEIGHBORS
from tests.stages.planted import given_catalog, given_table, make

PARTS = Parts(np.array([POOL, CURATED, HELDOUT]), np.arange(3), np.full(3, 4), ["pool", "curated", "heldout"])


def edges(root: Path, pairs: list[tuple[tuple[int, int], tuple[int, int], float]]) -> Table:
    rows = [
        {"query_id": a[0] << 32 | a[1], "image_id": b[0] << 32 | b[1], "similarity": cosine, "kind": "embedding"}
        for a, b, cosine in pairs
    ]
    return given_table(root, "neighbors", NEIGHBORS, [rows])


def test_curated_images_identical_to_one_that_resembles_a_heldout_image_are_found(tmp_path: Path) -> None:
    pairs = [((2, 0), (1, 0), 0.7), ((1, 1), (1, 0), 1.0), ((1, 2), (1, 0), 0.9), ((2, 0), (0, 0), 0.9)]
    found = touching_heldout([edges(tmp_path, pairs)], PARTS)
    curated = 1 << 32 | np.arange(4)
    assert found.has(curated).tolist() == [True, True, False, False]
    assert [found.count(PARTS, role) for role in (POOL, CURATED, HELDOUT)] == [1, 2, 0]


def judged(root: Path, pairs: list[tuple[tuple[int, int], tuple[int, int], float]], **options: Any) -> Table:
    """Verdicts on a pool of two parts of 300 images; images 7 of both have equal bytes, image 9 of each is rejected."""
    given_catalog(root, [("pool", "pool", 300), ("pool", "pool", 300)])
    rows = [
        [
            {
                "image_id": part << 32 | row,
                "sha256": bytes([0 if row == 7 else part + 1]) + row.to_bytes(31, "big"),
                "width": 10,
                "height": 10 + part,
                "reject": "corrupt" if row == 9 else None,
            }
            for row in range(300)
        ]
        for part in range(2)
    ]
    given_table(root, "images", IMAGES, rows)
    edges(root, pairs)
    p = Pipeline(Store(root), seed=0)
    refs = {name: Ref(name, s) for name, s in (("catalog", CATALOG), ("images", IMAGES), ("neighbors", NEIGHBORS))}
    exact = p.add("exact", FindExact(), images=refs["images"], catalog=refs["catalog"])
    p.add("duplicates", Deduplicate(**options), **refs | {"neighbors": [refs["neighbors"], exact]})
    make(p)
    return p.store.table("duplicates")


def test_rows_keep_the_parts_of_the_catalog_and_leave_out_rejects(tmp_path: Path) -> None:
    found = judged(tmp_path, [((0, 1), (1, 2), 0.9)])
    assert [part.rows for part in found.parts()] == [299, 299]
    rows = {r["image_id"]: r for r in found.read_all().to_pylist()}
    assert found.schema().names == DUPLICATES.names
    tied, same = rows[1], rows[7]
    assert (tied["verdict"], tied["partner_id"], tied["kind"], tied["direct"]) == (
        "duplicate",
        1 << 32 | 2,
        "embedding",
        True,
    )
    assert (same["verdict"], same["partner_id"], same["kind"]) == ("duplicate", 1 << 32 | 7, "sha256")
    assert (tied["component_id"], tied["component_size"], rows[0]["component_size"]) == (1, 2, 1)
    metrics = found.metrics
    assert (metrics["kept"], metrics["duplicate"], metrics["largest_component"]) == (596, 2, 2)
    assert metrics["component_sizes"] == {"1": 594, "2": 2}
    assert "warning" not in metrics


def test_chains_are_told_from_copies_of_one_picture_and_cut_on_demand(tmp_path: Path) -> None:
    rows = [row for row in range(200) if row != 9]
    chain = [((0, a), (0, b), 0.9) for a, b in itertools.pairwise(rows)]
    star = [((0, 0), (0, row), 0.9) for row in rows[1:]]
    assert "as a chain" in judged(tmp_path / "chain", chain).metrics["warning"]
    assert "copies of one picture" in judged(tmp_path / "star", star).metrics["warning"]
    cut = judged(tmp_path / "cut", chain, oversized=Oversized(size=100, threshold=0.95))
    assert (cut.metrics["largest_component"], cut.metrics["kept"]) == (2, 597)  # equal bytes alone are left
