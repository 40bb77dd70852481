"""The map: a random sample of all embedded images, placed by their vectors, with what became of each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.finished import open_finished
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import PointMap
from curate.ops.random_keys import random_keys
from curate.ops.selection.projection import project_pca
from curate.stages.selection.draw_map import NUM_COLORED, DrawMap, coloring
from curate.tables import ASSIGNMENTS, DUPLICATES, SELECTION
from tests.stages.planted import all_vectors, given_table, make, planted

COPY, TOUCHING, CHOSEN = 1, 2, {3, 4, 1 << 32 | 5, 2 << 32 | 6}
"""Images of the planted catalog: a copy, one that touches a held-out image, and those that are selected."""


def drawn(root: Path, stage: DrawMap, *, selected: bool = True) -> tuple[Pipeline, list[dict[str, Any]]]:
    """A pipeline with the map, and the rows of the map."""
    p, catalog, vectors = planted(root)
    ids = [[part << 32 | row for row in range(60)] for part in range(4)]
    verdicts = {COPY: "duplicate", TOUCHING: "benchmark"}
    told = [
        [
            dict.fromkeys(DUPLICATES.names)
            | {"image_id": i, "component_id": i, "component_size": 1, "verdict": verdicts.get(i, "kept")}
            for i in of
        ]
        for of in ids[:2]
    ]
    given_table(root, "duplicates", DUPLICATES, [*told, [], []])
    leaves = [[{"image_id": i, "cluster_id": i % 3, "similarity": 0.5} for i in of if i % 2] for of in ids[:3]]
    given_table(root, "leaves", ASSIGNMENTS, [*leaves, []])
    chosen = [[{"image_id": i, "clusters": [], "origins": []} for i in of if i in CHOSEN] for of in ids]
    given_table(root, "selection", SELECTION, chosen)
    refs = {"duplicates": Ref("duplicates", DUPLICATES), "assignments": Ref("leaves", ASSIGNMENTS)}
    refs |= {"selection": Ref("selection", SELECTION)} if selected else {}
    p.add("map", stage, embeddings=vectors, catalog=catalog, **refs)
    make(p)
    return p, p.store.table("map").read_all().to_pylist()


def test_every_embedded_image_of_pool_and_curated_sets_has_its_place(tmp_path: Path) -> None:
    p, rows = drawn(tmp_path, DrawMap())
    ids, x = all_vectors(p)
    asked = ids >> 32 < 3  # no held-out ones
    assert [row["image_id"] for row in rows] == ids[asked].tolist()
    places = project_pca(x[asked])
    assert [row["x"] for row in rows] == pytest.approx(places[:, 0].tolist(), abs=1e-4)
    assert [row["y"] for row in rows] == pytest.approx(places[:, 1].tolist(), abs=1e-4)


def test_each_point_tells_cluster_and_verdict(tmp_path: Path) -> None:
    rows = {row["image_id"]: row for row in drawn(tmp_path, DrawMap())[1]}
    assert {i: row["verdict"] for i, row in rows.items() if i in {COPY, TOUCHING, *CHOSEN}} == {
        COPY: "duplicate",
        TOUCHING: "benchmark",
        **dict.fromkeys(CHOSEN, "selected"),
    }
    others = {(i >> 32, row["verdict"]) for i, row in rows.items() if i not in {COPY, TOUCHING, *CHOSEN}}
    assert others == {(0, "kept"), (1, "kept"), (2, "curated")}
    assert all(row["cluster"] == (i % 3 if i % 2 else None) for i, row in rows.items())


def test_the_sample_is_of_the_smallest_keys_whatever_parts_they_are_in(tmp_path: Path) -> None:
    p, rows = drawn(tmp_path, DrawMap(num_images=20, seed=5))
    ids = all_vectors(p)[0]
    ids = ids[ids >> 32 < 3]
    keys = random_keys(ids, seed=5, purpose="map")
    assert [row["image_id"] for row in rows] == np.sort(ids[np.argsort(keys)[:20]]).tolist()


def test_the_report_shows_points_in_the_colors_of_what_differs(tmp_path: Path) -> None:
    p, rows = drawn(tmp_path, DrawMap(num_images=50), selected=False)
    run = open_finished(p.store, "toy", {}, p.steps)
    (section,) = DrawMap().show(p.store.table("map"), run)
    points = section.blocks[1]
    assert isinstance(points, PointMap)
    assert points.image_ids.tolist() == [row["image_id"] for row in rows]
    assert [one.name for one in points.colorings] == ["verdict", "cluster", "source"]
    assert "kept" in points.colorings[0].labels  # not `not selected`: nothing was selected yet
    assert "not selected" not in points.colorings[0].labels


def test_the_most_frequent_values_have_colors() -> None:
    values = [None, *[str(n) for n in range(NUM_COLORED + 2) for _ in range(1 + (n == 7))]]
    found = coloring("x", values)
    assert found.labels[:3] == ("7", "0", "1")
    assert len(found.labels) == NUM_COLORED
    shown = [None if code < 0 else found.labels[code] for code in found.codes.tolist()]
    assert all(one is None or one == value for one, value in zip(shown, values, strict=True))
    assert shown.count(None) == 3  # the null, and two values of one point each


def test_cost_reads_every_vector_once_and_projects_a_sample() -> None:
    vectors = Shape(pool=10**6, row_bytes=2000, dim=1000, parts=20)
    inputs = {"embeddings": vectors, "duplicates": Shape(10**6, row_bytes=8), "assignments": None, "selection": None}
    demand, made = DrawMap().cost(inputs, Assumptions(images=10**6))
    assert made.rows == 1500
    assert demand.serial_products == 2 * 1500 * 1000 * 1000 + 10 * 1000**3
    assert 1 <= demand.read / vectors.num_bytes < 1.2
