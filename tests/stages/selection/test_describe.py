"""Figures of a selection, against plain computations on all vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.finished import open_finished
from curate.engine.pipeline import Pipeline, Ref
from curate.ops.selection.diversity import vendi_score
from curate.stages.selection.describe import DescribeSet
from curate.tables import NEIGHBORS, SELECTION
from tests.stages.planted import all_vectors, given_table, make, planted


def test_figures_equal_plain_computations(tmp_path: Path) -> None:
    p, catalog, vectors = planted(tmp_path)
    kept = [part << 32 | row for part, step in ((0, 3), (1, 4), (2, 2)) for row in range(0, 60, step)]
    rows = [{"image_id": i, "clusters": [], "origins": [], "repeats": 1} for i in kept]
    given_table(tmp_path, "selection", SELECTION, [[r for r in rows if r["image_id"] >> 32 == n] for n in range(4)])
    pairs = [(kept[0], kept[1]), (kept[1], kept[0]), (kept[2], 1), (kept[3], kept[4])]
    edges = [{"query_id": q, "image_id": i, "similarity": 0.9, "kind": "embedding"} for q, i in pairs]
    given_table(tmp_path, "neighbors", NEIGHBORS, [edges])
    refs = {"selection": Ref("selection", SELECTION), "neighbors": [Ref("neighbors", NEIGHBORS)]}
    p.add("figures", DescribeSet(), embeddings=vectors, catalog=catalog, **refs)
    make(p)
    found = {(r["name"], r["set"]): r for r in p.store.table("figures").read_all().to_pylist()}

    ids, x = all_vectors(p)
    chosen, role = np.isin(ids, kept), ids >> 32
    assert found["images with a copy left", "selection"]["value"] == 4
    for name, mask in (("pool", role < 2), ("selection", role < 2)):
        near = x[role == 2] @ x[mask & (chosen if name == "selection" else True)].T
        row = found["nearest to curated", name]
        assert row["value"] == pytest.approx(near.max(axis=1).mean(), abs=1e-6)
        assert row["num_images"] == (role == 2).sum()
    assert found["Vendi score", "selection"]["value"] == pytest.approx(vendi_score(x[chosen]), rel=1e-6)
    size = found["Vendi score", "pool"]["num_images"]
    assert size == found["Vendi score", "selection"]["num_images"] == chosen.sum()
    assert 1 < found["Vendi score", "pool"]["value"] < size
    assert_shown(p, found)


def assert_shown(p: Pipeline, found: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The report has a row for each figure, pool beside selection."""
    run = open_finished(p.store, "toy", {}, p.steps)
    (section,) = DescribeSet().show(p.store.table("figures"), run)
    (numbers,) = section.blocks
    assert section.first
    for name, pool, selection, measured_on, _ in numbers.rows:
        assert selection == found[name, "selection"]["value"]
        assert pool == found.get((name, "pool"), {"value": None})["value"]
        assert measured_on == f"{found[name, 'selection']['num_images']} images"
    assert len(numbers.rows) == len({name for name, _ in found})


def test_cost_is_that_of_the_samples_against_all_vectors() -> None:
    vectors = Shape(pool=900, curated=100, row_bytes=100, dim=32)
    for curated, products in ((10**6, 2 * 1000 * 2000 * 32), (100, 2 * 1000 * 100 * 32), (0, 0)):
        inputs = {"embeddings": vectors, "selection": Shape(50), "neighbors": [Shape(30)]}
        demand, _ = DescribeSet().cost(inputs, Assumptions(images=1000, curated=curated))
        assert (demand.products, demand.serial_products, demand.serial_rows) == (products, 0, 8)
