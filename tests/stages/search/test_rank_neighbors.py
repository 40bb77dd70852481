"""The nearest images of each curated query, whatever lists they were found in."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.image_ids import part_of
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.rank_neighbors import RankNeighbors
from tests.stages.planted import all_vectors, make
from tests.stages.search.searches import join, ref


@pytest.mark.parametrize("memory", [1 << 30, 1 << 10])
def test_ranks_are_those_of_brute_force_whatever_stays_on_the_way(tmp_path: Path, memory: int) -> None:
    search = FindNeighbors(threshold=-1, heldout_threshold=-1, max_neighbors=9, queries=("curated",), answers=("pool",))
    p = join(tmp_path, num_lists=3, num_probes=3, search=search, stored=("pool",), queries=("curated",))
    p.add("nearest", RankNeighbors(k=4), neighbors=ref(p, "neighbors"), catalog=ref(p, "catalog"))
    p.task_memory = memory
    make(p)
    ids, x = all_vectors(p)
    pool, queries = part_of(ids) < 2, part_of(ids) == 2
    order = np.argsort(-(x[queries] @ x[pool].T), axis=1)[:, :4]
    expected = {
        (query, image, rank)
        for query, near in zip(ids[queries].tolist(), ids[pool][order].tolist(), strict=True)
        for rank, image in enumerate(near)
    }
    rows = p.store.table("nearest").read_all()
    assert {(r["query_id"], r["image_id"], r["rank"]) for r in rows.to_pylist()} == expected
    assert rows["image_id"].to_pylist() == sorted(rows["image_id"].to_pylist())


def test_law_ranks_no_more_than_were_found() -> None:
    given = Assumptions(images=10**6, curated=100)
    for found, ranked in ((1000, 400), (300, 300)):
        demand, made = RankNeighbors(k=4).cost({"neighbors": Shape(found)}, given)
        assert made.rows == ranked
        assert demand.rows == 3 * found
