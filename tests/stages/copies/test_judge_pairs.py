"""JudgePairs: which registered pairs count, by hand; in crowds those that stand out, and what is told of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.pipeline import Pipeline
from curate.engine.table import Table
from curate.models.thresholds import REGISTRATION
from curate.ops.copies.crowds import fisher
from curate.ops.copies.registration import registration_score
from curate.stages.copies.judge_pairs import JudgeFigures, JudgePairs
from curate.stages.copies.measure_crowds import SurroundingsFigures
from curate.tables import CROWDS, NEIGHBORS, REGISTERED, SURROUNDINGS, THRESHOLDS
from tests.engine.test_finished import opened
from tests.stages.copies.given_pairs import is_heldout, rows_of
from tests.stages.planted import given_catalog, given_table

HELD = 1 << 32
MIDDLE, SPREAD = 0.5, 0.125
"""By Fisher's transform, of the image 20, which stands in a crowd."""


def catalog(root: Path) -> Table:
    return given_catalog(root, [("a", "pool", 50), ("b", "heldout", 50)])


def registered(*rows: tuple[int, int, float, float, int]) -> pa.Table:
    """(query, image, agreement, least agreement, points) of each pair."""
    names = ("query_id", "image_id", "agreement", "least_agreement", "num_points")
    listed = [dict(zip(names, row, strict=True)) | {"similarity": 0.8} for row in rows]
    return pa.Table.from_pylist(listed, schema=REGISTERED)


def judged(root: Path, stage: JudgePairs, pairs: pa.Table, **crowds: Table) -> list[tuple[int, int]]:
    given = {"crowds": None, "surroundings": None, "thresholds": None} | crowds
    rows = pa.Table.from_batches(
        list(stage.run(0, registered=pairs, catalog=catalog(root), **given)), schema=NEIGHBORS
    ).to_pylist()
    assert {row["kind"] for row in rows} <= {"aligned"}
    return [(row["query_id"], row["image_id"]) for row in rows]


def one_in_a_crowd(root: Path) -> dict[str, Table]:
    """Image 20 and the held-out image 30 stand in crowds."""
    members = [{"image_id": one, "groups": 9, "hash_groups": 0} for one in (20, HELD | 30)]
    around = [{"image_id": one, "middle": MIDDLE, "spread": SPREAD} for one in (20, HELD | 30)]
    told = SurroundingsFigures(middle=MIDDLE, spread=SPREAD)
    return {
        "crowds": given_table(root, "crowds", CROWDS, [members]),
        "surroundings": given_table(root, "around", SURROUNDINGS, [around], figures=told),
    }


def test_pairs_count_by_their_score_as_each_role_asks(verified: Pipeline) -> None:
    rows = verified.store.table("registered").read_all()
    score = registration_score(rows["agreement"].to_numpy(), rows["num_points"].to_numpy()).tolist()
    pairs = list(zip(rows["query_id"].to_pylist(), rows["image_id"].to_pylist(), strict=True))
    least = [REGISTRATION.heldout_threshold if is_heldout(a) else REGISTRATION.threshold for a, _ in pairs]
    expected = {pair: x for pair, x, at_least in zip(pairs, score, least, strict=True) if x >= at_least}
    assert rows_of(verified, "judged") == pytest.approx(expected)
    figures = JudgeFigures.of(verified.store.table("judged"))
    assert (figures.tried, figures.counted, figures.crowded) == (len(rows), len(expected), 0)
    assert 0 < len(expected) < len(rows)


def test_thresholds_of_pool_and_heldout_pairs(tmp_path: Path) -> None:
    pairs = registered((1, 2, 0.5, 0, 4), (1, 3, 0.49, 0, 4), (HELD, 4, 0.45, 0, 4), (HELD, 5, 0.44, 0, 4))
    assert judged(tmp_path, JudgePairs(), pairs) == [(1, 2), (HELD, 4)]
    assert judged(tmp_path, JudgePairs(threshold=0.4, heldout_threshold=0.5), pairs) == [(1, 2), (1, 3)]


def test_pairs_below_a_given_cosine_do_not_count_whatever_their_score(tmp_path: Path) -> None:
    pairs = registered(*((1, 2 + n, 0.9, 0.9, 40) for n in range(3)), *((HELD, 2 + n, 0.9, 0.9, 40) for n in range(3)))
    cosines = pa.array([0.6999, 0.7, 0.9] * 2, pa.float32())
    pairs = pairs.set_column(2, REGISTERED.field("similarity"), cosines)
    every = [(query, 2 + n) for query in (1, HELD) for n in range(3)]
    assert judged(tmp_path, JudgePairs(), pairs) == every
    assert judged(tmp_path, JudgePairs(least_cosine=0.7), pairs) == every[1:]
    assert judged(tmp_path, JudgePairs(heldout_least_cosine=0.8), pairs) == [*every[:3], every[5]]
    crowds = one_in_a_crowd(tmp_path)
    assert judged(tmp_path, JudgePairs(least_cosine=0.95), registered((10, 20, 0.9, 0.99, 40)), **crowds) == []


def height(spreads: float) -> float:
    """The agreement that stands out by so many standard deviations."""
    return float(np.tanh(MIDDLE + spreads * SPREAD))


def test_in_crowds_a_pair_must_stand_out_of_both_and_agree(tmp_path: Path) -> None:
    crowds = one_in_a_crowd(tmp_path)
    high, low = height(7.05), height(6.95)
    pairs = registered(
        (10, 20, 0.9, high, 40),  # stands out
        (11, 20, 0.9, low, 40),  # does not
        (11, 12, 0.9, 0.0, 40),  # in no crowd
        (20, 21, 0.9, low, 40),
        (HELD | 30, 13, 0.9, height(5.05), 40),
        (HELD | 30, 14, 0.9, height(4.95), 40),
        (9, 20, 0.1, high, 4),  # stands out, but is no copy anywhere
    )
    assert judged(tmp_path, JudgePairs(), pairs, **crowds) == [(10, 20), (11, 12), (HELD | 30, 13)]
    assert judged(tmp_path, JudgePairs(spreads=6.9), pairs, **crowds)[:2] == [(10, 20), (11, 20)]
    assert fisher(np.float32([high]))[0] == pytest.approx(MIDDLE + 7.05 * SPREAD, abs=1e-5)
    assert judged(tmp_path, JudgePairs(crowd_agreement=1.0), pairs, **crowds) == [(11, 12)]


def test_values_are_those_that_planted_copies_measured(tmp_path: Path) -> None:
    blank = {"precision": 1.0, "precision_low": 1.0, "recall": 1.0}
    rows = [{"use": use, "threshold": at} | blank for use, at in (("pool", 0.75), ("heldout", 0.25), ("sure", 0.5))]
    found = JudgePairs().resolve(thresholds=given_table(tmp_path, "thresholds", THRESHOLDS, [rows]))
    assert (found.threshold, found.heldout_threshold) == (0.75, 0.25)
    assert JudgePairs().resolve() == JudgePairs()


def test_thresholds_and_scores_are_told(verified: Pipeline) -> None:
    run = opened(verified)
    stage, table = run.only(JudgePairs) or pytest.fail("not made")
    assert list(stage.facts(table, run)) == [
        ("Similarity thresholds", "judged: copies from 0.5 on, of held-out images from 0.45 on")
    ]
    assert [section.title for section in stage.show(table, run)] == ["Similarity of the pairs"]


def test_cost_is_one_reading_of_the_pairs() -> None:
    demand, made_of = JudgePairs().cost({"registered": Shape(pool=100, row_bytes=36)}, Assumptions(images=10))
    assert (demand.rows, made_of.rows) == (100, 10)
