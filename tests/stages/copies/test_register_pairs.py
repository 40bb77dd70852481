"""RegisterPairs: each candidate as `register` judges its two pictures, however the work is cut."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.executors import ExecutorConfig, start_executor
from curate.engine.freshness import Flags
from curate.engine.part_writer import ROW_GROUP_ROWS
from curate.engine.pipeline import Pipeline
from curate.ops.copies.registration import NONE, Registration, register
from curate.stages.copies import register_pairs as under_test
from curate.stages.copies.register_pairs import PAIRS_AT_ONCE, RegisterPairs
from curate.tables import REGISTERED
from tests.scattered import by_bucket
from tests.stages.copies.given_pairs import NO_FEATURES, ROLES, ROWS, declare, doubtful, features, made


def rows_of(p: Pipeline) -> pa.Table:
    return p.store.table("registered").read_all()


def test_registrations_equal_those_of_each_pair_alone(verified: Pipeline) -> None:
    rows = rows_of(verified).to_pylist()
    assert {(row["query_id"], row["image_id"]): row["similarity"] for row in rows} == pytest.approx(doubtful())
    found = 0
    for row in rows:
        a, b = features(row["query_id"]), features(row["image_id"])
        expected = NONE if a is None or b is None else register(a, b)
        assert tuple(row[name] for name in Registration._fields) == pytest.approx(expected, abs=1e-6)
        found += expected.agreement > 0.8
    assert 3 <= found <= len(rows) / 2


def test_an_image_without_features_is_registered_with_none(verified: Pipeline) -> None:
    rows = [row for row in rows_of(verified).to_pylist() if NO_FEATURES in (row["query_id"], row["image_id"])]
    assert {row["query_id"] == NO_FEATURES for row in rows} == {True, False}
    assert all((row["agreement"], row["least_agreement"], row["num_points"]) == NONE for row in rows)


@pytest.mark.parametrize("blocks", [2, 3, 8])
def test_rows_are_the_same_in_any_number_of_blocks(verified: Pipeline, tmp_path: Path, blocks: int) -> None:
    table = made(tmp_path, blocks=blocks).store.table("registered")
    assert len(table.parts()) == blocks * len(ROLES)
    assert table.read_all().equals(rows_of(verified))


def test_rows_are_the_same_however_many_features_are_read_at_once(
    verified: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "IMAGES_AT_ONCE", 2)
    assert rows_of(made(tmp_path, blocks=2)).equals(rows_of(verified))


def test_rows_are_in_order_of_the_image_with_the_larger_id(verified: Pipeline) -> None:
    rows = rows_of(verified)
    ends = list(zip(rows["image_id"].to_pylist(), rows["query_id"].to_pylist(), strict=True))
    assert ends == sorted(ends)


def test_a_query_sends_its_features_once_to_each_block(verified: Pipeline) -> None:
    stage, tables = RegisterPairs(blocks=2), {name: verified.store.table(name) for name in ("features", "catalog")}
    for part in range(len(ROLES)):
        pairs = verified.store.table("pairs").read(part)
        whole = by_bucket(stage.scatter(part, candidates=pairs, **tables))
        assert sum(map(len, whole.values())) == len(pairs)
        each_block = -(-ROWS // 2)
        for bucket, rows in whole.items():
            assert {(r["image_id"] >> 32) * 2 + (r["image_id"] & 0xFFFFFFFF) // each_block for r in rows} == {bucket}
            carried = [row["query_id"] for row in rows if row["points"] is not None]
            assert sorted(carried) == sorted({row["query_id"] for row in rows} - {NO_FEATURES})


class Counted(NamedTuple):
    """As much of a table as a stage asks to resolve its settings."""

    rows: int = 0
    num_of_parts: int = 0

    def num_rows(self) -> int:
        return self.rows

    def parts(self) -> range:
        return range(self.num_of_parts)


@pytest.mark.parametrize(("pairs", "blocks"), [(0, 1), (100, 1), (2 * PAIRS_AT_ONCE, 1), (20 * PAIRS_AT_ONCE, 10)])
def test_a_task_holds_about_so_many_pairs(pairs: int, blocks: int) -> None:
    inputs = {"candidates": Counted(rows=pairs), "catalog": Counted(num_of_parts=2)}
    stage = RegisterPairs().resolve(**inputs)
    assert (stage.blocks, stage.num_parts(**inputs)) == (blocks, 2 * blocks)
    assert RegisterPairs(blocks=7).resolve(**inputs).blocks == 7


def test_blocks_of_a_part_cover_its_images_in_order() -> None:
    stage, rows = RegisterPairs(blocks=3), np.array([7, 1, 2])
    ids = np.array([part << 32 | row for part, size in enumerate(rows.tolist()) for row in range(size)])
    assert stage._bucket(ids, rows).tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 6, 7]


def test_dask_gives_equal_tables(verified: Pipeline, tmp_path: Path) -> None:
    there = declare(tmp_path)
    with start_executor(ExecutorConfig(kind="local", workers=1, threads=1)) as executor:
        there.run(executor, Flags())
    for name in ("sure", "pairs", "chosen", "registered", "judged"):
        assert verified.store.table(name).read_all().equals(there.store.table(name).read_all())


def test_tables_have_equal_bytes_in_two_folders(verified: Pipeline, tmp_path: Path) -> None:
    again = made(tmp_path)
    for name in ("pairs", "chosen", "registered", "judged"):
        here, there = (p.store.table(name) for p in (verified, again))
        assert [here.footer(part.number) for part in here.parts()] == [
            there.footer(part.number) for part in there.parts()
        ]


def test_cost_is_that_of_registering_every_candidate() -> None:
    given, catalog = Assumptions(images=10**6), Shape(pool=10**6, parts=16)
    inputs = {"catalog": catalog, "candidates": Shape(pool=10**6, row_bytes=24, parts=16)}
    inputs |= {"features": Shape(pool=10**6, row_bytes=1000, parts=16)}
    demand, made_of = RegisterPairs().cost(inputs, given)
    assert (demand.pairs, made_of.rows, made_of.parts) == (10**6, 10**6, 16 * round(10**6 / 16 / PAIRS_AT_ONCE))
    levels = round(demand.scratch / 1e9)
    assert demand.scratch == pytest.approx(levels * 1e9, rel=0.05)  # the features of a query with each of its pairs
    of_images = 1 + 14 * ROW_GROUP_ROWS * 16 / 10**6  # by whole row groups
    assert demand.read == pytest.approx(demand.scratch + (1 + of_images) * 1e9, rel=0.02)


def test_the_schema_is_that_of_registered_pairs() -> None:
    assert RegisterPairs().output_schema() == REGISTERED
