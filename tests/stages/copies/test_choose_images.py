"""ChooseImages: the images of the candidates, each once, in its part."""

from pathlib import Path

import pyarrow as pa

from curate.engine.cost import Assumptions, Shape
from curate.engine.pipeline import Pipeline
from curate.stages.copies.choose_images import ChooseImages
from curate.tables import PAIRS
from tests.scattered import by_bucket
from tests.stages.copies.given_pairs import ROLES, doubtful
from tests.stages.planted import given_catalog


def test_every_image_of_a_candidate_is_listed_once_in_its_part(verified: Pipeline) -> None:
    table, images = verified.store.table("chosen"), {one for pair in doubtful() for one in pair}
    assert [part.number for part in table.parts()] == list(range(len(ROLES)))
    for part in range(len(ROLES)):
        found = table.read(part)["image_id"].to_pylist()
        assert found == sorted(one for one in images if one >> 32 == part)
    assert table.num_rows() == len(images)


def test_planted_copies_are_no_images(tmp_path: Path) -> None:
    catalog = given_catalog(tmp_path, [("a", "pool", 9), ("b", "pool", 9)])
    pairs = pa.table([[-1, -7, 3], [5, 1 << 32, 5], pa.array([1.0, 0.5, 0.5], pa.float32())], schema=PAIRS)
    sent = by_bucket(ChooseImages().scatter(0, candidates=pairs, catalog=catalog))
    assert {bucket: [row["image_id"] for row in rows] for bucket, rows in sent.items()} == {0: [3, 5], 1: [1 << 32]}


def test_cost_is_at_most_two_images_a_pair() -> None:
    given = Assumptions(images=1000)
    demand, few = ChooseImages().cost({"candidates": Shape(pool=10, row_bytes=24)}, given)
    _, many = ChooseImages().cost({"candidates": Shape(pool=10**6, row_bytes=24)}, given)
    assert (few.rows, many.rows) == (20, given.chosen * 1000)
    assert demand.rows == 20
