"""The story of one image, told by the stages of the recipe."""

from pathlib import Path

import pytest

from curate.errors import CurateError
from curate.report.explain import explain
from curate.stages.clusters.find_junk import FindJunk, JunkFigures
from curate.stages.copies.drop_similar import DropSimilar, DropSimilarFigures
from curate.stages.selection.write_shards import ShardFigures
from curate.tables import DUPLICATES, JUNK
from tests.report.workdir import HOSTILE, Workdir, rows


def test_a_reject_says_why(workdir: Workdir) -> None:
    story = explain(workdir.run, "empty.jpg")
    assert "rejected: empty: 0 bytes" in story
    assert "not in the shards" in story


def test_a_duplicate_names_its_partner_its_evidence_and_the_threshold(workdir: Workdir) -> None:
    story = explain(workdir.run, "a_copy.jpg")
    assert f"dropped as duplicate: a copy of a.jpg (image {workdir.ids['a.jpg']})" in story
    assert "similarity 0.9500 by embedding, the threshold is 0.9" in story


def test_contamination_names_the_heldout_image_and_its_threshold(workdir: Workdir) -> None:
    story = explain(workdir.run, "bench.jpg")
    assert "its group touches the held-out image h.jpg" in story
    assert "similarity 0.8750 by embedding, the threshold is 0.85" in story
    assert "bench_copy.jpg" in story


def test_a_selected_image_is_followed_to_its_row(workdir: Workdir) -> None:
    story = explain(workdir.run, HOSTILE)
    assert f"by sample, set curated: q1.jpg (image {workdir.ids['q1.jpg']}), 0.7000 to it" in story
    assert "yes, by sample (curated); cluster path 1" in story
    table = workdir.store.table("shards/data")
    row = table.read(0, ["image_id"])["image_id"].to_pylist().index(workdir.ids[HOSTILE])
    assert f"shards/data/part-00000.parquet, row {row}" in story


def test_an_image_that_was_not_selected_is_told_so(workdir: Workdir) -> None:
    lines = [line.split() for line in explain(workdir.run, "left.jpg").splitlines()]
    assert ["copies", "kept"] in lines
    assert ["selected", "no"] in lines


def test_curated_and_heldout_images_tell_what_they_caused(workdir: Workdir) -> None:
    assert "asked for 1 pool image by sample" in explain(workdir.run, "q1.jpg")
    story = explain(workdir.run, "h.jpg")
    assert "2 pool images dropped, as their groups touch it" in story
    assert "held-out images never are" in story


def test_own_columns_and_repeats_are_shown(workdir: Workdir) -> None:
    assert "CC0" in explain(workdir.run, "b.jpg")
    assert "shown 2 times an epoch" in explain(workdir.run, "q1.jpg")


def test_an_image_is_found_by_id_key_path_and_relative_path(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(workdir.sources.pool[0].path)
    monkeypatch.chdir(folder.parent)
    names = [
        str(workdir.ids["b.jpg"]),
        "b.jpg",
        str(folder / "b.jpg"),
        "pool/b.jpg",
        "./pool/b.jpg",
        "pictures/pool/b.jpg",
    ]
    assert len({explain(workdir.run, name) for name in names}) == 1


def test_a_removed_image_is_told_so(workdir: Workdir) -> None:
    table = workdir.store.table("shards/data")
    rows = table.read(0)
    table.commit(0, rows.schema, rows.slice(0, 0).to_batches())
    workdir.tell("shards/data", ShardFigures(num_bytes=1, removed=1))
    assert "left out: it is on the removal list" in explain(workdir.run, "b.jpg")


def test_several_matches_are_listed(workdir: Workdir) -> None:
    (Path(workdir.sources.curated[0].path) / "a.jpg").write_bytes(b"")
    again = Workdir(Path(workdir.store.root).parent / "again")
    (Path(again.sources.curated[0].path) / "a.jpg").write_bytes(b"")
    again.catalog()
    with pytest.raises(
        CurateError,
        match=r"2 images fit; name one by its id, such as .*curate explain .*:\n.* pool: a.jpg\n.* curated: a.jpg",
    ):
        explain(again.run, "a.jpg")


@pytest.mark.parametrize("name", ["nowhere.jpg", "9", "999999999999", "04", ""])
def test_an_unknown_image_is_an_error(workdir: Workdir, name: str) -> None:
    with pytest.raises(CurateError, match="none of the 12 images of .* has this image_id, key or path"):
        explain(workdir.run, name)


def test_a_part_of_a_name_is_enough_and_several_are_listed(workdir: Workdir) -> None:
    assert explain(workdir.run, "ISE.p") == explain(workdir.run, "noise.png")
    with pytest.raises(CurateError, match=r"(?s)^bench: 2 images fit; .* pool: bench.jpg\n.* pool: bench_copy.jpg$"):
        explain(workdir.run, "bench")
    with pytest.raises(CurateError, match=r"(?s)jpg: 11 images fit; .*\n  and 1 more$"):
        explain(workdir.run, "jpg")


def test_an_exact_name_wins_over_a_part(workdir: Workdir) -> None:
    assert f"image {workdir.ids['a.jpg']} " in explain(workdir.run, "a.jpg")
    assert explain(workdir.run, "pool/a.jpg") == explain(workdir.run, "a.jpg")


def test_near_names_are_told(workdir: Workdir) -> None:
    with pytest.raises(CurateError, match=rf"near names:\n  {workdir.ids['bench.jpg']}  pool: bench.jpg"):
        explain(workdir.run, "benhc.jpg")
    with pytest.raises(CurateError, match=r"pool: noise.png"):
        explain(workdir.run, "somewhere/noise.jpg")


def test_folders_may_be_written_as_on_windows(workdir: Workdir) -> None:
    assert explain(workdir.run, r"pictures\pool\b.jpg") == explain(workdir.run, "b.jpg")


def test_names_are_found_as_they_are_written_in_tables_and_as_they_are_shown(tmp_path: Path) -> None:
    made = Workdir(tmp_path)
    for name in ("back\\slash.jpg", "two\nlines.jpg"):
        (Path(made.sources.pool[0].path) / name).write_bytes(b"")
    run = made.catalog().run
    assert "back" in explain(run, "back\\slash.jpg")
    assert explain(run, r"back\\slash.jpg") == explain(run, "back\\slash.jpg")
    assert explain(run, r"two\nlines.jpg") == explain(run, "two\nlines.jpg")


def test_a_file_that_is_no_picture_is_told_so(workdir: Workdir) -> None:
    pool = Path(workdir.sources.pool[0].path)
    (pool / "notes.md").write_text("no picture")
    with pytest.raises(CurateError, match=r"pool/notes.md was left out, since it is no picture: other file \(\.md\)"):
        explain(workdir.run, "notes.md")
    (pool / "later.jpg").write_bytes(b"")
    with pytest.raises(CurateError, match=r"pool/later.jpg is there, but is not in the catalog; .* --rescan"):
        explain(workdir.run, str(pool / "later.jpg"))


def test_a_story_ends_where_the_tables_end(tmp_path: Path) -> None:
    story = explain(Workdir(tmp_path).catalog().images().run, "b.jpg")
    assert "accepted" in story
    assert "shards" not in story


def test_junk_and_images_alike_are_told_with_their_figures(workdir: Workdir) -> None:
    i = workdir.ids
    judged = [rows(JUNK, (i["b.jpg"], 0.95, None, True)), rows(JUNK), rows(JUNK)]
    workdir.put("internal/junk", FindJunk(), judged, JunkFigures(junk=1, too_alike=1, low=0.1, high=0.9))
    similar = (i["b.jpg"], i["b.jpg"], 1, "similar", i["a.jpg"], 0.96, "embedding", True)
    parts = [rows(DUPLICATES, similar), rows(DUPLICATES), rows(DUPLICATES)]
    workdir.put("internal/semdedup/verdicts", DropSimilar(), parts, DropSimilarFigures(kept=3, similar=1))
    story = explain(workdir.run, "b.jpg")
    assert "left out of the balanced draw as junk: mean cosine to its neighbors 0.950, in its cluster unknown" in story
    assert "usual is 0.100 to 0.900" in story
    assert "dropped: alike to a.jpg (image " in story
    assert "cosine 0.9600" in story


def test_stages_speak_in_the_order_of_the_recipe_each_after_its_word(workdir: Workdir) -> None:
    lines = explain(workdir.run, "b.jpg").splitlines()
    assert [line.split()[0] for line in lines[1:] if line[2] != " "] == [
        "listed",
        "inspected",
        "copies",
        "cluster",
        "retrieved",
        "selected",
        "shards",
    ]


def test_a_name_neither_breaks_the_story_nor_commands_the_terminal(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {type(stage) for stage, _ in workdir.run.tables}
    for stage in stages:
        monkeypatch.setattr(stage, "explain", lambda *_: iter(["a\x1b[2J\nimage 1 is yours"]))
    story = explain(workdir.run, "a.jpg")
    assert r"a\x1b[2J\nimage 1 is yours" in story
    assert not [line for line in story.splitlines()[1:] if not line.startswith("  ")]
