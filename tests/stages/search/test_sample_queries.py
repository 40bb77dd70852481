"""The sample of images that search."""

from pathlib import Path

import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.image_ids import part_of
from curate.stages.search.sample_queries import SampleQueries
from curate.stages.search.vectors import Role
from tests.stages.planted import all_vectors, make, planted


def sampled(root: Path, sample: SampleQueries) -> list[int]:
    p, catalog, vectors = planted(root)
    p.add("queries", sample, embeddings=vectors, catalog=catalog)
    make(p)
    ids: list[int] = p.store.table("queries").read_all()["image_id"].to_pylist()
    assert set(ids) <= set(all_vectors(p)[0].tolist())
    return ids


@pytest.mark.parametrize(("role", "parts"), [("pool", {0, 1}), ("curated", {2}), ("heldout", {3})])
def test_only_embedded_images_of_the_roles_are_sampled(tmp_path: Path, role: Role, parts: set[int]) -> None:
    ids = sampled(tmp_path, SampleQueries(num_queries=30, queries=(role,)))
    assert 10 < len(ids) <= 50
    assert {part_of(image) for image in ids} == parts
    assert ids == sorted(ids)


def test_more_queries_than_images_are_all_of_them(tmp_path: Path) -> None:
    assert len(sampled(tmp_path, SampleQueries(num_queries=1000))) == 2 * 51


def test_law_samples_no_more_than_there_are() -> None:
    vectors = {"embeddings": Shape(1000, 10, 10, row_bytes=40, dim=16)}
    for queries, rows in (("pool", 200), ("curated", 10)):
        demand, made = SampleQueries(num_queries=200, queries=(queries,)).cost(vectors, Assumptions(images=1000))
        assert (made.rows, made.row_bytes, made.dim) == (rows, 40, 16)
        assert demand.written == rows * 40
