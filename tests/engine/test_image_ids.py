"""Image ids lead to their place, whatever part and row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curate.engine.image_ids import CatalogFigures, Parts, ids_of_part, part_of, row_of
from tests.stages.planted import given_catalog


@given(st.integers(0, 2**31 - 1), st.integers(1, 50))
def test_part_and_row_follow_from_an_id(part: int, rows: int) -> None:
    ids = ids_of_part(part, rows)
    assert (part_of(ids) == part).all()
    assert row_of(ids).tolist() == list(range(rows))


def test_parts_tell_roles_and_sources_of_images(tmp_path) -> None:
    parts = Parts.of(given_catalog(tmp_path, [("web", "pool", 3), ("pets", "curated", 2), ("web", "pool", 1)]))
    assert parts.role_of(np.array([0, 1 << 32, (2 << 32) + 5])).tolist() == [0, 1, 0]
    assert (parts.num_images(["pool"]), parts.num_images(["pool", "curated"])) == (4, 6)
    assert parts.numbers(0) == [0, 2]
    assert parts.source == ["web", "pets", "web"]
    assert [parts.has(i) for i in (2, 3, (1 << 32) + 1, 3 << 32)] == [True, False, True, False]


def test_sources_rank_by_their_first_parts_and_those_without_one_come_last() -> None:
    figures = CatalogFigures.of_parts([("b", "pool", 1)], sources=["a", "b"])
    assert figures.sources == ("b", "a")
    assert figures.part_source == (0,)
