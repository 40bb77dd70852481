import numpy as np
import pyarrow as pa

from curate.report.run import Run, pick
from tests.report.workdir import Workdir, put


def test_small_tables_are_read_whole_and_in_order(workdir: Workdir) -> None:
    run = Run.open(workdir.store)
    sample = run.sample("catalog", ["image_id"])
    assert sample.whole
    assert sample.note == ""
    assert sample.rows.equals(workdir.store.table("catalog").read_all(["image_id"]))


def test_a_role_reads_its_own_parts_only(workdir: Workdir) -> None:
    run = Run.open(workdir.store)
    sample = run.sample("catalog", ["role"], role="curated")
    assert set(sample.rows["role"].to_pylist()) == {"curated"}
    assert sample.whole


def test_large_tables_are_sampled_the_same_way_each_time(workdir: Workdir) -> None:
    numbers = [pa.table({"n": pa.array(np.arange(p * 40_000, (p + 1) * 40_000))}) for p in range(5)]
    put(workdir.store, "numbers", numbers, stage="Count")
    run = Run.open(workdir.store)
    sample = run.sample("numbers", ["n"], max_rows=20_000)
    values = sample.rows["n"].to_numpy()
    assert 20_000 <= len(values) < 40_000  # whole row groups, of one part
    assert sample.note == f"From a sample of {len(values):,} of 200,000 rows."
    assert (np.diff(values) > 0).all()
    assert np.array_equal(values, run.sample("numbers", ["n"], max_rows=20_000).rows["n"].to_numpy())


def test_pick_draws_distinct_values_in_order() -> None:
    values = np.arange(100) * 3
    chosen = pick(values, 10, np.random.default_rng(0))
    assert len(np.unique(chosen)) == 10
    assert (np.diff(chosen) > 0).all()
    assert np.isin(chosen, values).all()
    assert pick(values, 100, np.random.default_rng(0)) is values
