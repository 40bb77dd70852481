"""FindExact: images of equal bytes in any part, and no others."""

from pathlib import Path

import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.stages.copies import exact
from curate.stages.copies.exact import FindExact
from curate.tables import IMAGES
from tests.stages.planted import PlantedCatalog, given_table, make


def image(part: int, row: int) -> dict[str, object]:
    """Bytes as in the same row of the other parts, but for most curated images; row 9 is rejected."""
    digest = bytes([row + 40 * (part == 1 and row > 2)]).ljust(32)
    return {"image_id": part << 32 | row, "sha256": digest, "reject": "noise" if row == 9 else None}


@pytest.mark.parametrize("rows_per_part", [1 << 20, 7])
def test_equal_bytes_meet_however_many_parts_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_part: int
) -> None:
    monkeypatch.setattr(exact, "ROWS_PER_PART", rows_per_part)
    given_table(tmp_path, "images", IMAGES, [[image(part, row) for row in range(10)] for part in range(4)])
    p = Pipeline(Store(tmp_path), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "curated", "pool", "heldout"), rows=10))
    p.add("exact", FindExact(), images=Ref("images", IMAGES), catalog=catalog)
    make(p)
    found = p.store.table("exact").read_all().to_pylist()
    assert {row["kind"] for row in found} == {"sha256"}
    assert {row["similarity"] for row in found} == {1.0}
    pool = {(2 << 32 | row, row) for row in range(9)}  # to the first one
    curated = {(part << 32 | row, 1 << 32 | row) for part in (0, 2) for row in range(3)}
    heldout = {(3 << 32 | row, part << 32 | row) for part in (0, 2) for row in range(9)}
    heldout |= {(3 << 32 | row, 1 << 32 | row) for row in range(3)}
    assert {(row["query_id"], row["image_id"]) for row in found} == pool | curated | heldout
    assert len(p.store.table("exact").parts()) == (1 if rows_per_part > 40 else 6)


def test_cost_is_a_shuffle_of_the_hashes() -> None:
    demand, made = FindExact().cost({"images": Shape(pool=90, curated=10)}, Assumptions(images=90))
    assert demand.rows == 300
    assert demand.scratch == pytest.approx(demand.read, rel=0.1)
    assert 4000 < demand.scratch < 5000
    assert made.rows == pytest.approx(10)
