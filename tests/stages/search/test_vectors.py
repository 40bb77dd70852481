"""Vectors of embeddings or of hashes: counted, sampled and described alike."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.engine.cost import ID_BYTES, Shape
from curate.engine.image_ids import Parts
from curate.engine.table import Table
from curate.errors import ConfigError
from curate.ops.vectors import VectorSpec, unpack
from curate.stages.search.vectors import (
    HASHES,
    Role,
    count_vectors,
    num_forms,
    read_vectors,
    read_views,
    sample_vectors,
    share_of,
    vector_spec,
    vectors_shape,
)
from curate.tables import embeddings_schema
from tests.stages.planted import given_catalog, given_table, make, planted

PLANTED = embeddings_schema(8, dtype="float32", model="planted", weights="")


def counts(table: Table, catalog: Table) -> list[int]:
    roles: tuple[Role, ...] = ("pool", "curated", "heldout")
    return [count_vectors(table, (role,), Parts.of(catalog)) for role in roles]


def test_nulls_are_not_counted(tmp_path: Path) -> None:
    p, *_ = planted(tmp_path)
    make(p)
    catalog, vectors = p.store.table("catalog"), p.store.table("vectors")
    assert counts(vectors, catalog) == [2 * 51, 51, 51]
    assert count_vectors(vectors, ("pool", "heldout"), Parts.of(catalog)) == 3 * 51


def test_hashes_of_images_are_counted(tmp_path: Path) -> None:
    parts = [
        [{"image_id": part << 32 | row, "pdq": None if row else b"\0" * 32} for row in range(3)] for part in (0, 1)
    ]
    catalog = given_catalog(tmp_path, [("a", "pool", 3), ("b", "curated", 3)])
    assert counts(given_table(tmp_path, "images", HASHES, parts), catalog) == [1, 1, 0]


def embeddings(ids: list[int], vectors: list[np.ndarray | None]) -> pa.Table:
    rows = [
        {"image_id": one, "vector": None if x is None else x.tobytes()} for one, x in zip(ids, vectors, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=PLANTED)


def test_views_are_the_vectors_and_then_those_within_borders() -> None:
    x = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    whole = embeddings([3, 4, 5], [x[0], None, x[1]])
    within = embeddings([3, 4, 5], [None, None, x[2]])
    found = read_views(whole, None, within)
    assert found.ids.tolist() == [3, 5, 5]
    assert np.array_equal(found.vectors, x[[0, 1, 2]])
    plain = read_views(whole, None, None)
    assert plain.ids.tolist() == [3, 5]
    assert np.array_equal(plain.vectors, read_vectors(whole, None).vectors)
    assert read_views(whole, None, embeddings([3, 4, 5], [None] * 3)).ids.tolist() == [3, 5]


def test_views_of_hashes_lie_beside_them() -> None:
    a, b, c = (bytes([n]) * 32 for n in (1, 2, 3))
    columns = {"image_id": [7, 8, 9], "pdq": [a, None, b], "pdq_within_border": [None, None, c]}
    images = pa.table(columns, schema=HASHES)
    found = read_views(None, images, None)
    assert found.ids.tolist() == [7, 9, 9]
    assert [row.tobytes() for row in found.vectors] == [a, b, c]
    assert read_vectors(None, images).ids.tolist() == [7, 9]
    assert found.spec.dtype == "bits"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_sample_holds_its_share_of_a_part_rounded_up(share: float) -> None:
    x = np.random.default_rng(0).standard_normal((11, 8)).astype(np.float32)
    batch = sample_vectors(x, VectorSpec.of(PLANTED), share, seed=[0])
    found, _ = unpack(batch["vector"], VectorSpec.of(batch.schema))
    assert len(found) == np.ceil(11 * share)
    assert {row.tobytes() for row in found} <= {row.tobytes() for row in x}


def test_share_is_at_most_one() -> None:
    assert [share_of(wanted, count) for wanted, count in ((1, 4), (4, 4), (9, 4), (3, 0))] == [0.25, 1, 1, 1]


def test_either_embeddings_or_hashes_are_searched() -> None:
    assert vector_spec(PLANTED, None).dim == 8
    assert (vector_spec(None, HASHES).dtype, vector_spec(None, HASHES).dim) == ("bits", 256)
    for given in ((None, None), (PLANTED, HASHES)):
        with pytest.raises(ConfigError, match="either embeddings or hashes"):
            vector_spec(*given)


def test_shape_of_hashes_is_that_of_their_bits() -> None:
    embeddings, images = Shape(5, row_bytes=100, dim=46), Shape(5, row_bytes=180)
    assert vectors_shape({"embeddings": embeddings}) == embeddings
    assert vectors_shape({"embeddings": None, "hashes": images}) == Shape(
        5, row_bytes=ID_BYTES + 32, dim=256, columns=2
    )


def test_only_hashes_search_in_mirrored_and_turned_forms() -> None:
    assert num_forms(hashed=True, dihedral=True) == 8
    assert num_forms(hashed=False, dihedral=True) == num_forms(hashed=True, dihedral=False) == 1
