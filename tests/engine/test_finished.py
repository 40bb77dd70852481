"""What those who only look see of a run: the tables of its recipe, in its order, sampled where they are large."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.engine.executors import InProcess
from curate.engine.finished import Finished, open_finished, pick
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.errors import TableError
from curate.stages.clusters.fit_clusters import FitClusters
from tests.engine.test_pipeline import NONE, AddTo, Total, build
from tests.stages.planted import PlantedCatalog, PlantedVectors, make, planted


def opened(p: Pipeline) -> Finished:
    return open_finished(p.store, "toy", {"seed": 3}, p.steps)


def test_tables_come_in_the_order_of_the_recipe_and_are_found_by_their_stage(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    run = opened(build(tmp_path))
    assert [one.name for one in run.tables] == build(tmp_path).names
    assert [table.name for _, table in run.made_by(Total)] == ["total", "fitted"]
    stage, table = run.only(AddTo)
    assert (stage.amount, table.name) == (1, "added")
    assert run.only(PlantedVectors) is None
    assert [t.name for t in run.inputs_of(Store(tmp_path).table("scaled"), "totals")] == ["fitted"]


def test_tables_that_the_recipe_does_not_declare_are_not_seen(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    shorter = build(tmp_path)
    shorter.steps = shorter.steps[:2]
    assert [one.name for one in opened(shorter).tables] == ["numbers", "added"]


def test_auto_values_are_those_of_the_table(tmp_path: Path) -> None:
    p, catalog, vectors = planted(tmp_path)
    p.add("centroids", FitClusters(levels="auto_flat"), embeddings=vectors, catalog=catalog)
    make(p)
    assert opened(p).only(FitClusters)[0].levels == (102 // 20,)


def test_workdir_without_a_finished_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="holds no finished table"):
        opened(build(tmp_path))


def test_samples_hold_all_rows_of_small_tables_and_few_of_large_ones(tmp_path: Path) -> None:
    p, _, _ = planted(tmp_path)
    make(p)
    run = opened(p)
    table = run.only(PlantedCatalog)[1]
    whole = run.sample(table, ["image_id"])
    assert (whole.whole, len(whole.rows), whole.note) == (True, 240, "")
    pool = run.sample(table, ["image_id"], role="pool")
    assert len(pool.rows) == 120
    assert run.has_role(pool.rows["image_id"].to_numpy(), "pool").all()
    few = run.sample(table, ["image_id"], max_rows=60)
    assert (few.whole, len(few.rows), few.total) == (False, 60, 240)
    assert "From a sample of 60 of 240 rows." in few.note
    assert run.sample(table, ["image_id"], max_rows=60).rows.equals(few.rows)


def test_picks_are_distinct_values_in_their_order() -> None:
    values = np.arange(100)
    chosen = pick(values, 10, np.random.default_rng(0))
    assert len(np.unique(chosen)) == 10
    assert (np.diff(chosen) > 0).all()
    assert pick(values, 200, np.random.default_rng(0)) is values


def test_large_parts_are_sampled_by_whole_row_groups_the_same_way_each_time(tmp_path: Path) -> None:
    p, _, _ = planted(tmp_path)
    make(p)
    schema, done = pa.schema([pa.field("n", pa.int64())]), []
    table = p.store.table("numbers")
    for part in range(5):
        values = pa.table({"n": np.arange(part * 40_000, (part + 1) * 40_000)}, schema=schema)
        done.append(table.commit(part, schema, values.to_batches(max_chunksize=8192)).__dict__)
    table.write_manifest(Manifest("Count", 1, {}, {}, {}, {}, complete=True, parts=done, rows=200_000))
    sample = opened(p).sample(table, ["n"], max_rows=20_000)
    values = sample.rows["n"].to_numpy()
    assert 20_000 <= len(values) < 40_000
    assert len(np.unique(values // 40_000)) == 1
    assert sample.note == f"From a sample of {len(values):,} of 200,000 rows."
    assert (np.diff(values) > 0).all()
    assert np.array_equal(values, opened(p).sample(table, ["n"], max_rows=20_000).rows["n"].to_numpy())
