"""Where a workdir stands, by its manifests alone."""

from dataclasses import replace
from pathlib import Path

from curate.counting import Counts
from curate.engine.table import DRIVER, Manifest
from curate.report.status import TableStatus, costs, status
from curate.stages.images.embed import Embed, EmbedFigures
from tests.report.workdir import Workdir


def rows_of(workdir: Workdir) -> dict[str, TableStatus]:
    return {row.table: row for row in status(workdir.store, list(workdir.stages))}


def test_tables_come_as_the_recipe_names_them_and_others_are_not_seen(workdir: Workdir) -> None:
    names = ["duplicates", "catalog", "not_begun"]
    assert [row.table for row in status(workdir.store, names)] == ["duplicates", "catalog"]


def test_a_finished_table_tells_rows_and_speed(workdir: Workdir) -> None:
    row = rows_of(workdir)["images"]
    assert (row.stage, row.complete, row.parts_done, row.parts_total) == ("Inspect", True, 3, 3)
    assert (row.rows_in, row.rows_out, row.rows_per_second) == (12, 12, 12.0)
    assert row.cells() == ("images", "3/3", "12", "12", "1.0", "12.0")


def test_a_speed_is_that_of_the_rows_that_went_in_or_were_listed(workdir: Workdir) -> None:
    found = rows_of(workdir)
    assert (found["catalog"].rows_in, found["catalog"].rows_per_second) == (None, 12.0)
    assert (found["pretrain"].rows_in, found["pretrain"].rows_per_second) == (4, 4.0)


def test_too_short_a_time_tells_no_speed(workdir: Workdir) -> None:
    listed = workdir.store.table("catalog")
    listed.write_manifest(replace(listed.complete_manifest(), seconds=0.001))
    assert rows_of(workdir)["catalog"].rows_per_second is None


def test_an_embedding_of_some_images_counts_those(workdir: Workdir) -> None:
    parts = [workdir.store.table("catalog").read(0)]
    some = EmbedFigures(embedded=6, embedded_by_part=(6,))
    workdir.put("embeddings/x", Embed(model="lite0"), parts, some, inputs={"catalog": ["catalog"]})
    row = rows_of(workdir)["embeddings/x"]
    assert (row.rows_in, row.rows_per_second) == (6, 6.0)


def test_a_table_in_the_making_tells_how_far_it_is(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path).catalog().images()
    table = workdir.store.table("images")
    table.write_manifest(replace(table.complete_manifest(), complete=False, num_parts=3, parts=[], rows=0))
    table.drop_parts([2])
    for part in (0, 1):
        table.log_task({"phase": "run", "part": part, "rows": 9 - part, "seconds": 2.0})
    row = rows_of(workdir)["images"]
    assert not row.complete
    assert (row.parts_done, row.parts_total, row.rows_out, row.seconds) == (2, 3, 17, 4.0)
    assert row.cells()[:2] == ("images (run)", "2/3")


def test_a_table_whose_parts_no_input_tells_has_no_total(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path).catalog()
    inputs = {"catalog": ["catalog"]}
    workdir.store.table("lists").write_manifest(Manifest("BuildLists", 1, {}, {}, {}, inputs))
    (row,) = status(workdir.store, ["lists"])
    assert row.parts_total is None
    assert row.cells()[:2] == ("lists (begun)", "0/?")


def test_a_workdir_in_which_nothing_began_has_no_rows(tmp_path: Path) -> None:
    assert status(Workdir(tmp_path).store, ["catalog", "images"]) == []


def test_costs_tell_tasks_and_driver_together_and_those_of_a_pass_once(workdir: Workdir) -> None:
    counted = {
        "scatter": Counts(1, 20, 3_000_000, 500_000, 1.5, 70_000_000),
        "run": Counts(1, 2000, 1_000_000, 500_000, 0.5, 60_000_000),
        DRIVER: Counts(1, 3, 0, 0, 0.25, 900_000_000),
    }
    for name, others in (("images", ["duplicates"]), ("duplicates", ["images"])):
        table = workdir.store.table(name)
        table.write_manifest(replace(table.complete_manifest(), counted=counted, made_with=others))
    found = costs(workdir.store, ["catalog", "images", "duplicates", "none"])
    assert [row.cells() for row in found] == [
        ("images", "2.2", "4.0", "1.0", "2,023", "70.0"),
        ("duplicates (with images)", "", "", "", "", ""),
    ]


def test_a_cleaned_table_is_marked(workdir: Workdir) -> None:
    table = workdir.store.table("images")
    table.write_manifest(replace(table.complete_manifest(), cleaned=[0, 1]))
    assert rows_of(workdir)["images"].cells()[:2] == ("images (cleaned)", "3/3")
