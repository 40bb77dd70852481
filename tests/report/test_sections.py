"""Sections of several stages become one page: equal titles are joined, the result comes first, times last."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from curate.engine.finished import Finished
from curate.engine.show import Beside, Block, Heading, Numbers, Section, Text
from curate.engine.table import Table
from curate.report.sections import facts, headline, sections, timings, warnings
from curate.stages.copies.deduplicate import DeduplicateFigures
from curate.stages.images.catalog import Catalog
from tests.report.workdir import Workdir


def showing(workdir: Workdir, *shown: Section) -> Finished:
    """A run of which one table shows these sections."""

    class Shows(Catalog):
        def show(self, table: Table, run: Finished) -> Iterator[Section]:
            yield from shown

    workdir.stages["catalog"] = Shows(sources=workdir.sources)
    return workdir.run


def titles(found: list[Section]) -> list[str]:
    return [section.title for section in found]


def test_sections_of_the_result_come_first_and_times_last(tmp_path: Path) -> None:
    text: tuple[Block, ...] = (Text("t"),)
    given = [Section("step", text), Section("result", text, first=True), Section("other", text)]
    found = sections(showing(Workdir(tmp_path).catalog(), *given))
    assert titles(found) == ["result", "step", "other", "Timings"]


def test_sections_of_one_title_are_one_in_the_place_of_the_first(tmp_path: Path) -> None:
    head = ("a", "b")
    given = [
        Section("x", (Text("said"), Numbers(head, (("one", 1),)))),
        Section("y", (Text("between"),)),
        Section("x", (Heading("h"), Text("said"), Numbers(head, (("two", 2),)), Numbers(("other",), ()))),
        Section("x", (Heading("h"),)),
    ]
    found = sections(showing(Workdir(tmp_path).catalog(), *given))
    assert titles(found) == ["x", "y", "Timings"]
    assert found[0].blocks == (
        Text("said"),
        Numbers(head, (("one", 1), ("two", 2))),
        Heading("h"),
        Numbers(("other",), ()),
        Heading("h"),
    )


def test_columns_of_several_stages_stand_side_by_side_where_nothing_is_between_them(tmp_path: Path) -> None:
    one, two, three = ((Text(name),) for name in ("one", "two", "three"))
    given = [
        Section("x", (Text("said"), Beside((one,)))),
        Section("x", (Text("said"), Beside((two,)))),
        Section("x", three),
    ]
    given += [Section("x", (Beside((one,)), Beside((two,), wide=True)))]
    found = sections(showing(Workdir(tmp_path).catalog(), *given))[0]
    assert found.blocks == (Text("said"), Beside((one, two)), *three, Beside((one,)), Beside((two,), wide=True))


def test_several_stages_tell_of_what_was_dropped_in_one_section(workdir: Workdir) -> None:
    found = sections(workdir.run)
    assert titles(found).count("Kept out") == 1
    dropped = next(section for section in found if section.title == "Kept out")
    (reasons,) = (block for block in dropped.blocks if isinstance(block, Beside))
    shown = [*(block for column in reasons.columns for block in column), *dropped.blocks]
    headings = [block.text for block in shown if isinstance(block, Heading)]
    assert headings == ["empty: 1 image", "noise: 1 image", "not selected: 2 images"]


def time_rows(run: Finished) -> dict[object, object]:
    """Table to what the column of times says."""
    (numbers,) = (block for block in timings(run).blocks if isinstance(block, Numbers))
    return {row[0]: row[numbers.head.index("time")] for row in numbers.rows}


def test_every_table_has_its_time_and_the_sum_is_theirs(workdir: Workdir) -> None:
    found = time_rows(workdir.run)
    assert [*found] == [*workdir.stages, "all"]
    assert found["catalog"] == "1.0 s"
    assert found["all"] == f"{len(workdir.stages)}.0 s"


def test_a_pass_that_made_several_tables_counts_once(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path).catalog().images().copies()
    for name, others in (("images", ["duplicates"]), ("duplicates", ["images"])):
        table = workdir.store.table(name)
        table.write_manifest(replace(table.complete_manifest(), seconds=5.0, made_with=others))
    found = time_rows(workdir.run)
    assert (found["images"], found["duplicates"]) == ("5.0 s", "5.0 s")
    assert found["all"] == "8.0 s"  # 1 of the catalog, 5 of the pass, 1 of the search, 1 of its recall


def test_facts_warnings_and_headline_are_those_of_the_stages(workdir: Workdir) -> None:
    told = facts(workdir.run)
    assert told["Sources"] == ["pool: 9 images", "curated: 2 images", "heldout: 1 image"]
    assert told["Seed"] == ["3"]
    assert [text.split(":")[0] for text in warnings(workdir.run)][-1] == "shards/data"
    assert headline(workdir.run) == "12 images listed, 4 in the shards."


def test_a_run_that_has_just_begun_tells_what_it_listed(tmp_path: Path) -> None:
    assert headline(Workdir(tmp_path).catalog().run) == "12 images listed."


def test_steps_that_took_much_away_are_told(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path).everything()
    table = workdir.store.table("duplicates")
    figures = DeduplicateFigures.of(table)
    for copies, largest, told in ((3, 20, 0), (4, 20, 1), (3, 21, 1)):
        workdir.tell("duplicates", figures.model_copy(update={"duplicate": copies, "largest_component": largest}))
        said = [text for text in warnings(workdir.run) if text.startswith("duplicates")]
        assert len(said) == told
        if copies == 4:
            assert said[0].startswith("duplicates: 4 of 7 images (57.1 %) are kept out as copies.")
        if largest == 21:
            assert "one component holds 21 of 7 images" in said[0]
            assert "oversized={size: 20, threshold: 0.95}" in said[0]


def test_a_balanced_draw_whose_size_nobody_chose_is_told(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path).everything()
    table = workdir.store.table("selection")
    for target, left, told in (("auto", 2, True), ("auto", 0, False), (2, 2, False)):
        manifest = replace(table.complete_manifest(), config={"balance": {"target": target}})
        table.write_manifest(manifest)
        workdir.tell("selection", workdir.selected(kept=2 + left))
        said = [text for text in warnings(workdir.run) if "balanced draw" in text]
        assert bool(said) == told
        if told:
            assert said[0].startswith(
                "selection: the balanced draw leaves out 2 of the 4 images that deduplication kept (50"
            )
