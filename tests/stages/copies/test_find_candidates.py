"""FindCandidates: the doubtful pairs, each once, with the small picture of the query."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.ops.vectors import VectorSpec, unpack
from curate.stages.copies.find_candidates import FindCandidates
from tests.stages.copies.given_pairs import STRICT, is_heldout, made, pairs, pictures, rows_of


def test_candidates_are_the_doubtful_pairs_each_once_from_the_smaller_id(tmp_path: Path) -> None:
    p = made(tmp_path)
    expected = {}
    for a, b, cosine in pairs():
        if cosine < (0.85 if is_heldout(a) else 0.9):
            expected[(a, b) if is_heldout(a) or a < b else (b, a)] = cosine
    assert rows_of(p, "pairs") == pytest.approx(expected)
    assert len(expected) > 60


def test_candidates_lie_in_the_part_of_their_query_with_its_picture(tmp_path: Path) -> None:
    table = made(tmp_path).store.table("pairs")
    for part in table.parts():
        rows = table.read(part.number)
        query = rows["query_id"].to_numpy()
        assert set((query >> 32).tolist()) == {part.number}
        stored, _ = unpack(rows["vector"], VectorSpec.of(rows.schema))
        assert np.array_equal(stored, pictures()[part.number, query & 0xFFFFFFFF])


def test_cost_holds_the_small_picture_of_each_pair() -> None:
    inputs = {"neighbors": Shape(pool=100, row_bytes=24), "pictures": Shape(pool=10, row_bytes=1000)}
    demand, made_of = FindCandidates(**STRICT).cost(inputs, Assumptions(images=10))
    assert (made_of.rows, made_of.row_bytes) == (50, 24 + 1000)
    assert (demand.read, demand.written, demand.scratch) == (4800 + 10_000, 50 * 1024, 2400)
