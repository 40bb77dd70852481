"""Densities, against brute force."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.image_ids import part_of
from curate.engine.pipeline import Ref
from curate.stages.clusters.measure_density import MeasureDensity
from curate.stages.search.neighbors import FindNeighbors
from curate.tables import CATALOG, NEIGHBORS
from tests.stages.planted import all_vectors, make
from tests.stages.search.searches import join


@pytest.mark.parametrize("memory", [1 << 30, 1 << 10])
def test_densities_are_mean_cosines_to_the_nearest_images_of_the_pool(tmp_path: Path, memory: int) -> None:
    nearest = FindNeighbors(threshold=-1, heldout_threshold=-1, max_neighbors=5, queries=("pool",), answers=("pool",))
    p = join(tmp_path, num_lists=4, num_probes=4, search=nearest, stored=("pool",), queries=("pool",))
    tables = {"neighbors": Ref("neighbors", NEIGHBORS), "catalog": Ref("catalog", CATALOG)}
    p.add("density", MeasureDensity(num_neighbors=3), **tables)
    p.task_memory = memory
    make(p)
    ids, x = all_vectors(p)
    ids, x = ids[part_of(ids) < 2], x[part_of(ids) < 2]
    cosine = x @ x.T
    np.fill_diagonal(cosine, -np.inf)
    table = p.store.table("density")
    assert [part.rows for part in table.parts()] == [51, 51, 0, 0]
    rows = table.read_all()
    assert rows["image_id"].to_pylist() == ids.tolist()
    assert rows["density"].to_numpy() == pytest.approx(np.sort(cosine, axis=1)[:, -3:].mean(axis=1), abs=1e-5)


def test_law_has_a_row_for_each_image_that_is_kept() -> None:
    given = Assumptions(images=1000, kept=0.5)
    demand, made = MeasureDensity().cost({"neighbors": Shape(2500)}, given)
    assert made.rows == 500
    assert demand.rows == 5000
