from dataclasses import replace
from pathlib import Path

from curate.engine.store import Manifest
from curate.report.status import status
from tests.report.workdir import Workdir, put


def test_tables_come_after_what_they_are_made_of(workdir: Workdir) -> None:
    names = [row.table for row in status(workdir.store)]
    assert names.index("catalog") < names.index("images") < names.index("duplicates")
    assert names.index("neighbors/copy") < names.index("duplicates")
    assert sorted(names) == workdir.store.table_names()


def test_a_finished_table_tells_rows_and_speed(workdir: Workdir) -> None:
    (row,) = [row for row in status(workdir.store) if row.table == "images"]
    assert (row.parts_done, row.parts_total, row.rows_in, row.rows_out) == (3, 3, 12, 12)
    assert row.images_per_second == 12.0
    assert row.cells() == ("images", "3/3", "12", "12", "1.0", "12.0")


def test_a_speed_is_given_only_where_images_were_worked_through(workdir: Workdir) -> None:
    speeds = {row.table: row.images_per_second for row in status(workdir.store)}
    assert speeds["catalog"] == 12.0
    assert speeds["pretrain"] is None
    put(workdir.store, "catalog", [workdir.store.table("catalog").read(0)], stage="Catalog", seconds=0.001)
    assert status(workdir.store)[0].images_per_second is None


def test_an_embedding_of_some_images_counts_those(workdir: Workdir) -> None:
    inputs, metrics = {"catalog": ["catalog"]}, {"embedded": 6}
    rows = [workdir.store.table("catalog").read(0)]
    put(workdir.store, "embeddings/x", rows, stage="Embed", inputs=inputs, metrics=metrics)
    (row,) = [row for row in status(workdir.store) if row.table == "embeddings/x"]
    assert (row.rows_in, row.images_per_second) == (6, 6.0)


def test_a_table_in_the_making_tells_how_far_it_is(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path).catalog().images()
    table = workdir.store.table("images")
    manifest = table.manifest()
    assert manifest is not None
    table.write_manifest(replace(manifest, complete=False, num_parts=3, parts=[], rows=0))
    table.drop_parts([2])
    for part in (0, 1):
        table.log_task({"phase": "run", "part": part, "rows": 9 - part, "seconds": 2.0})
    row = status(workdir.store)[-1]
    assert not row.complete
    assert (row.parts_done, row.parts_total, row.rows_out, row.seconds) == (2, 3, 17, 4.0)
    assert row.cells()[:2] == ("images (run)", "2/3")


def test_a_table_whose_parts_no_input_tells_has_no_total(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path).catalog()
    inputs = {"catalog": ["catalog"]}
    workdir.store.table("lists/copy").write_manifest(Manifest("BuildLists", 1, {}, {}, {}, inputs))
    row = status(workdir.store)[-1]
    assert row.parts_total is None
    assert row.cells()[:2] == ("lists/copy (begun)", "0/?")


def test_an_empty_workdir_has_no_rows(tmp_path: Path) -> None:
    assert status(Workdir(tmp_path).store) == []
