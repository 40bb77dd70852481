"""Large lists as grids of lists: every vector meets every query of its list once."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curate.stages.search.list_grid import ListGrid

grids = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(lambda sizes: ListGrid.of(np.array(sizes)))


@given(grids, st.integers(0, 10**6))
def test_every_stored_vector_meets_every_query_of_its_list_once(grid: ListGrid, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(60)
    own, probed = rng.integers(0, len(grid.size), 40), rng.integers(0, len(grid.size), (20, 1))
    stored = zip(*(column.tolist() for column in grid.stored(own, ids[:40])), strict=True)
    queried = list(zip(*(column.tolist() for column in grid.queried(probed, ids[40:])), strict=True))
    met = Counter((image, query) for image, held in stored for query, sent in queried if held == sent)
    assert met == {(i, q): 1 for i in range(40) for q in range(20) if own[i] == probed[q, 0]}


@given(grids, st.integers(0, 10**6))
def test_an_image_meets_itself_in_the_list_that_is_told(grid: ListGrid, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids, own = rng.permutation(30), rng.integers(0, len(grid.size), 30)
    stored, queried = ([set[int]() for _ in ids] for _ in range(2))
    for found, lists in ((grid.stored(own, ids), stored), (grid.queried(own[:, None], ids), queried)):
        for place, number in zip(*(column.tolist() for column in found), strict=True):
            lists[place].add(number)
    assert [a & b for a, b in zip(stored, queried, strict=True)] == [{n} for n in grid.meeting(own, ids).tolist()]


def test_numbers_of_lists_follow_each_other() -> None:
    grid = ListGrid.of(np.array([1, 3, 2]))
    assert grid.first.tolist() == [0, 1, 10]
    assert grid.num_lists == 14
