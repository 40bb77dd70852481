"""FindCandidates: the doubtful pairs, each once, of each image the most similar ones."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.pipeline import Pipeline
from curate.stages.copies.find_candidates import FindCandidates
from curate.stages.copies.find_crowds import CROWD_SHARE
from curate.tables import CROWDS, NEIGHBORS, PAIRS, THRESHOLDS
from tests.stages.copies.given_pairs import STRICT, doubtful, made, rows_of
from tests.stages.planted import given_catalog, given_table


def test_candidates_are_the_doubtful_pairs_each_once_from_the_smaller_id(verified: Pipeline) -> None:
    assert rows_of(verified, "pairs") == pytest.approx(doubtful())
    assert len(doubtful()) > 40


def test_candidates_lie_in_the_part_of_their_query_in_order(verified: Pipeline) -> None:
    table = verified.store.table("pairs")
    for part in table.parts():
        rows = table.read(part.number)
        assert set((rows["query_id"].to_numpy() >> 32).tolist()) == {part.number}
        ends = list(zip(rows["query_id"].to_pylist(), rows["image_id"].to_pylist(), strict=True))
        assert ends == sorted(ends)


@pytest.mark.parametrize("most", [1, 3])
def test_an_image_offers_its_most_similar_pairs_alone(tmp_path: Path, most: int) -> None:
    mine = defaultdict(list)
    for (a, b), cosine in doubtful().items():
        mine[a].append((-cosine, b))
    expected = {(a, b) for a, found in mine.items() for _, b in sorted(found)[:most]}
    found = rows_of(made(tmp_path, max_pairs=most), "pairs")
    assert found.keys() == expected
    assert len(found) < len(doubtful())


def test_of_equally_similar_pairs_the_smaller_ids_are_offered(tmp_path: Path) -> None:
    catalog = given_catalog(tmp_path, [("a", "pool", 9)])
    given = pa.table([[0, 0, 0, 0], [7, 3, 5, 4], np.float32([0.8, 0.8, 0.8, 0.7])], schema=PAIRS)
    stage = FindCandidates(max_pairs=2, **STRICT)
    (rows,) = stage.run(0, pieces=given, crowds=None, catalog=catalog, thresholds=None)
    assert rows["image_id"].to_pylist() == [3, 5]


def test_what_is_sure_is_measured_where_thresholds_are(tmp_path: Path) -> None:
    blank = {"precision": 1.0, "precision_low": 1.0, "recall": 1.0}
    rows = [{"use": use, "threshold": value} | blank for use, value in (("pool", 0.5), ("sure", 0.875))]
    found = FindCandidates().resolve(thresholds=given_table(tmp_path, "thresholds", THRESHOLDS, [rows]))
    assert (found.threshold, found.heldout_threshold) == (0.875, 0.875)
    assert FindCandidates(**STRICT).resolve() == FindCandidates(**STRICT)


def test_cost_is_bounded_by_the_images_however_many_pairs_were_found() -> None:
    stage, given = FindCandidates(**STRICT), Assumptions(images=1000)
    demand, made_of = stage.cost({"neighbors": Shape(pool=100, row_bytes=24)}, given)
    assert made_of.rows == 25  # half of them, and each was found in both directions
    assert demand.rows == 200
    _, bounded = stage.cost({"neighbors": Shape(pool=10**9, row_bytes=24)}, given)
    assert bounded.rows == 1000 * (stage.max_pairs + CROWD_SHARE * stage.crowd_pairs)


def test_below_the_floor_pairs_of_images_in_crowds_alone_are_tried(tmp_path: Path) -> None:
    catalog = given_catalog(tmp_path, [("a", "pool", 9)])
    pairs = [(0, 1, 0.8), (0, 2, 0.6), (3, 4, 0.95), (5, 6, 0.6), (5, 7, 0.95)]
    columns = list(zip(*pairs, strict=True))
    given = pa.table([*columns[:2], np.float32(columns[2]), ["embedding"] * len(pairs)], schema=NEIGHBORS)
    crowd = [[{"image_id": 5, "groups": 30, "hash_groups": 0}]]
    crowds = given_table(tmp_path, "crowds", CROWDS, crowd)
    stage = FindCandidates(threshold=0.9, heldout_threshold=0.9, floor=0.7)
    found = list(stage.scatter(0, neighbors=given, crowds=crowds, catalog=catalog, thresholds=None))
    ends = [
        pair for _, rows in found for pair in zip(*(rows[name].to_pylist() for name in PAIRS.names[:2]), strict=True)
    ]
    assert sorted(ends) == [(0, 1), (5, 6), (5, 7)]


def test_the_floor_of_held_out_images_is_that_of_others_or_their_own(tmp_path: Path) -> None:
    catalog, asked = given_catalog(tmp_path, [("a", "pool", 9), ("b", "heldout", 9)]), 1 << 32
    pairs = [(0, 1, 0.6), (0, 2, 0.8), (asked, 3, 0.6), (asked, 4, 0.8)]
    columns = list(zip(*pairs, strict=True))
    given = pa.table([*columns[:2], np.float32(columns[2]), ["embedding"] * len(pairs)], schema=NEIGHBORS)
    for heldout_floor, images in ((None, [2, 4]), (0.5, [2, 3, 4]), (0.85, [2])):
        stage = FindCandidates(threshold=0.9, heldout_threshold=0.9, floor=0.7, heldout_floor=heldout_floor)
        found = stage.scatter(0, neighbors=given, crowds=None, catalog=catalog, thresholds=None)
        assert sorted(image for _, rows in found for image in rows["image_id"].to_pylist()) == images
