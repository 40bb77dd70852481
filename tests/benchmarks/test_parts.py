"""The framework's own cost: what is done once a part stays so."""

from pathlib import Path

from benchmarks.parts import bench_parts
from curate.engine.store import Store


def test_every_step_is_measured_and_the_tables_are_complete(tmp_path: Path) -> None:
    figures = bench_parts(5, workdir=tmp_path / "run")
    assert len(figures) == 7
    assert all(figure.value > 0 for figure in figures)
    store = Store(tmp_path / "run")
    assert [store.table(name).num_rows() for name in ("catalog", "aligned", "folded")] == [10, 10, 5]


def test_fingerprints_of_a_part_depend_on_all_parts_that_it_reads(tmp_path: Path) -> None:
    bench_parts(3, workdir=tmp_path / "run")
    before = {name: Store(tmp_path / "run").table(name).parts() for name in ("aligned", "folded")}
    bench_parts(4, workdir=tmp_path / "again")
    after = {name: Store(tmp_path / "again").table(name).parts() for name in ("aligned", "folded")}
    assert not {p.fingerprint for p in before["folded"]} & {p.fingerprint for p in after["folded"]}
    assert len({p.fingerprint for p in after["aligned"]}) == 4


def test_a_manifest_that_changed_is_read_again(tmp_path: Path) -> None:
    bench_parts(3, workdir=tmp_path / "run")
    table = Store(tmp_path / "run").table("aligned")
    assert table.num_rows() == 6
    name = "aligned/_table.json"
    table.store.write_json(name, table.store.read_json(name) | {"rows": 7})
    assert table.num_rows() == 7
