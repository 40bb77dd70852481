"""The digests' cost is measured on shards that hold every picture."""

from pathlib import Path

from benchmarks.provenance import bench_provenance
from curate.engine.store import Store


def test_every_step_is_measured_over_all_pictures(tmp_path: Path) -> None:
    figures = bench_provenance(8, workdir=tmp_path / "bench")
    assert [figure.name for figure in figures] == [
        "shards written",
        "listed, digested and counted",
        "verified",
        "size of the lists",
    ]
    assert all(figure.value > 0 for figure in figures)
    store = Store(tmp_path / "bench/run")
    assert store.table("shards/.rows").num_rows() == 8
    assert store.table("shards/data").num_rows() == 8
