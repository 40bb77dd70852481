"""Figures of a selection, against plain computations on all vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.finished import open_finished
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import Numbers, Text
from curate.ops.random_keys import random_keys
from curate.ops.selection.diversity import vendi_score
from curate.stages.selection.describe import SETS, DescribeSet
from curate.tables import DUPLICATES, NEIGHBORS, SELECTION
from tests.stages.planted import all_vectors, given_table, make, planted


def test_figures_equal_plain_computations(tmp_path: Path) -> None:
    p, catalog, vectors = planted(tmp_path)
    kept = [part << 32 | row for part, step in ((0, 3), (1, 4), (2, 2)) for row in range(0, 60, step)]
    rows: list[dict[str, Any]] = [{"image_id": i, "clusters": [], "origins": [], "repeats": 1} for i in kept]
    given_table(tmp_path, "selection", SELECTION, [[r for r in rows if r["image_id"] >> 32 == n] for n in range(4)])
    pairs = [(kept[0], kept[1]), (kept[1], kept[0]), (kept[2], 1), (kept[3], kept[4])]
    edges = [{"query_id": q, "image_id": i, "similarity": 0.9, "kind": "embedding"} for q, i in pairs]
    given_table(tmp_path, "neighbors", NEIGHBORS, [edges])
    p.add("figures", DescribeSet(), embeddings=vectors, catalog=catalog, **given_refs(tmp_path, {}))
    make(p)
    found = {(r["name"], r["set"]): r for r in p.store.table("figures").read_all().to_pylist()}

    ids, x = all_vectors(p)
    chosen, role = np.isin(ids, kept), ids >> 32
    assert found["images with a copy left", "selection"]["value"] == 4
    for name, mask in (("deduplicated", role < 2), ("selection", role < 2)):
        near = x[role == 2] @ x[mask & (chosen if name == "selection" else True)].T
        row = found["nearest to curated", name]
        assert row["value"] == pytest.approx(near.max(axis=1).mean(), abs=1e-6)
        assert row["num_images"] == (role == 2).sum()
    assert found["Vendi score", "selection"]["value"] == pytest.approx(vendi_score(x[chosen]), rel=1e-6)
    for name in ("deduplicated", "usable"):
        assert found["Vendi score", name]["num_images"] == chosen.sum()
        assert 1 < found["Vendi score", name]["value"] < chosen.sum()
    assert_shown(p, found)


def given_refs(root: Path, copies: dict[int, tuple[str, int]]) -> dict[str, Any]:
    """The inputs beside vectors and catalog; verdicts and partners of those pool images that are not kept."""
    judged = [
        [verdict(part << 32 | row, *copies.get(part << 32 | row, ("kept", None))) for row in range(60)]
        for part in range(2)
    ]
    given_table(root, "duplicates", DUPLICATES, [*judged, [], []])
    refs = {"selection": Ref("selection", SELECTION), "duplicates": Ref("duplicates", DUPLICATES)}
    return refs | {"neighbors": [Ref("neighbors", NEIGHBORS)]}


def verdict(image: int, judged: str, partner: int | None) -> dict[str, Any]:
    told = {"image_id": image, "component_id": image, "component_size": 1, "verdict": judged, "partner_id": partner}
    return dict.fromkeys(DUPLICATES.names) | told


def test_a_copy_counts_as_the_image_that_stays_of_it(tmp_path: Path) -> None:
    """The raw pool is measured by the vectors of what deduplication left, whatever part these are in, or it is not."""
    p, catalog, vectors = planted(tmp_path)
    copies = {part << 32 | row: ("duplicate", 1 << 32 | row % 3) for part in (0, 1) for row in range(3, 50)}
    copies |= dict.fromkeys(range(50, 55), ("benchmark", 3 << 32))
    rows = [{"image_id": i, "clusters": [], "origins": [], "repeats": 1} for i in range(40)]
    given_table(tmp_path, "selection", SELECTION, [rows, [], [], []])
    given_table(tmp_path, "neighbors", NEIGHBORS, [[]])
    p.add("figures", DescribeSet(seed=4), embeddings=vectors, catalog=catalog, **given_refs(tmp_path, copies))
    make(p)
    found = {r["set"]: r for r in p.store.table("figures").read_all().to_pylist() if r["name"] == "Vendi score"}
    ids, x = all_vectors(p)
    pool = np.array([part << 32 | row for part in (0, 1) for row in range(60)])
    usable = pool[(pool < 50) | (pool > 54)]
    drawn = usable[np.argsort(random_keys(usable, seed=4, purpose="describe usable"))]
    stays = np.array([copies.get(int(i), ("", int(i)))[1] for i in drawn])
    stays = stays[np.isin(stays, ids)][: found["usable"]["num_images"]]
    assert found["usable"]["value"] == pytest.approx(vendi_score(x[np.searchsorted(ids, stays)]), rel=1e-6)
    assert found["usable"]["value"] < 0.7 * found["deduplicated"]["value"]


def assert_shown(p: Pipeline, found: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The report has a row for each figure, pool beside selection."""
    run = open_finished(p.store, "toy", {}, p.steps)
    (section,) = DescribeSet().show(p.store.table("figures"), run)
    numbers, *told = section.blocks
    assert section.first
    assert isinstance(numbers, Numbers)
    for row in numbers.rows:
        name, *values, measured_on = row
        assert isinstance(name, str)
        assert values == [found.get((name, of), {"value": None})["value"] for of in SETS]
        assert measured_on == f"{found[name, 'selection']['num_images']} images"
        assert any(isinstance(block, Text) and block.text.lower().startswith(f"{name}: ".lower()) for block in told)
    assert len(numbers.rows) == len({name for name, _ in found})


def test_cost_is_that_of_the_samples_against_all_vectors() -> None:
    vectors = Shape(pool=900, curated=100, row_bytes=100, dim=32)
    for curated, products in ((10**6, 2 * 1000 * 2000 * 32), (100, 2 * 1000 * 100 * 32), (0, 0)):
        inputs = {"embeddings": vectors, "selection": Shape(50), "neighbors": [Shape(30)], "duplicates": Shape(900)}
        demand, _ = DescribeSet().cost(inputs, Assumptions(images=1000, curated=curated))
        assert (demand.products, demand.serial_products, demand.serial_rows) == (products, 0, 8)
