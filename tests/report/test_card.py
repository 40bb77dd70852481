"""The dataset card: what the hub reads, what was done to the images, and what was not."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from markdown_it import MarkdownIt

from curate.engine.finished import Finished
from curate.engine.image_ids import CatalogFigures
from curate.engine.show import Check
from curate.engine.table import Table
from curate.errors import TableError
from curate.report.card import UNCHECKED, _safe, front_matter, render_card, size_category, write_card
from curate.report.sections import warnings
from curate.stages.copies.exact import FindExact
from curate.stages.images.catalog import Catalog
from curate.stages.images.inspect import InspectFigures, LostImages
from curate.stages.selection.reader_figures import ReaderFigures
from curate.stages.selection.write_shards import ShardFigures, WriteShards
from curate.tables import CURATED, HELDOUT, ROLES, SHARD_COLUMNS
from tests.report.workdir import Workdir


def written(workdir: Workdir) -> Path:
    path = write_card(workdir.run)
    assert path is not None
    return Path(path)


def card(workdir: Workdir) -> tuple[dict[str, Any], str]:
    text = written(workdir).read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_is_what_the_hub_reads(workdir: Workdir) -> None:
    front, _ = card(workdir)
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    assert front["license"] == "other"
    assert front["size_categories"] == ["n<1K"]
    assert "toy" in front["tags"]


def test_the_front_matter_names_the_rows_so_that_no_cache_takes_others_for_them(workdir: Workdir) -> None:
    before = card(workdir)[0]["configs"]
    assert card(workdir)[0]["configs"] == before
    shards = workdir.store.table("shards/data")
    rows = shards.read_all()
    workdir.put("shards/data", workdir.stages["shards/data"], [rows.slice(1)], ShardFigures(num_bytes=1, removed=1))
    assert card(workdir)[0]["configs"] != before


def test_datasets_loads_the_folder_by_its_card(workdir: Workdir, tmp_path: Path) -> None:
    shards = written(workdir).parent
    rows = datasets.load_dataset(str(shards), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 4
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows[0]["image"].size == (96, 72)


def test_every_column_is_explained(workdir: Workdir) -> None:
    _, body = card(workdir)
    for name in [*SHARD_COLUMNS.names, "caption"]:
        assert f"| `{name}` |" in body


def test_steps_thresholds_and_screenings_are_told(workdir: Workdir) -> None:
    _, body = card(workdir)
    assert "usable: 7 and 2 curated (kept out as unusable: 2, of these empty: 1; noise: 1)" in body
    assert "copies from 0.9 on, of held-out images from 0.85 on" in body
    missing = body.split("## What was not checked")[1].split("## ")[0]
    for screening in ("NSFW", "faces", "watermarks", "licenses", "illegal content"):
        assert screening in missing
    assert "no held-out source" not in missing
    assert "removal_list" in body


def test_a_card_names_no_place_on_the_machine(workdir: Workdir, tmp_path: Path) -> None:
    assert str(tmp_path) not in written(workdir).read_text(encoding="utf-8")


def test_a_recipe_in_a_file_is_named_without_its_folder(workdir: Workdir) -> None:
    run = dataclasses.replace(workdir.run, recipe="/home/anna/my_recipe.py:mine")
    assert "anna" not in render_card(run)
    assert "by the recipe `my_recipe.py:mine`" in render_card(run)
    assert front_matter(run)["tags"][-1] == "my_recipe.py:mine"


def test_names_from_outside_cannot_break_the_card(workdir: Workdir) -> None:
    _, body = card(workdir)
    assert "| `license\\|&lt;b&gt;` |" in body
    assert "<b>" not in body
    for line in body.splitlines():
        if line.startswith("| `"):
            assert line.replace("\\|", "").count("|") == 4


@pytest.mark.parametrize(
    "name",
    [
        "# head", "--- ", "- item", "1. item", "+ x", "=== y", "a [click](http://evil) b", "![i](http://evil/x.png)",
        "*bold* and _so_", "<script>alert(1)</script>", "a | b", "`code`", "[ref]: http://evil", "<http://evil>",
        "\\[x](http://evil)", "&lt;b&gt;", "~~~", "a\n\n# head", "| a | b |\n|---|---|", "tail\\",
    ],
)  # fmt: skip
def test_text_from_outside_stays_text_in_markdown(name: str) -> None:
    read = MarkdownIt("commonmark").enable("table")
    plain = " ".join(name.split()).replace("`", "'")
    for text, wanted in ((f"- {_safe(name)}", ["bullet_list"]), (f"| a |\n|---|\n| {_safe(name)} |", ["table"])):
        tokens = read.parse(text)
        tops = [token.type.removesuffix("_open") for token in tokens if token.level == 0 and token.nesting == 1]
        assert tops == wanted
        (cell,) = [token for token in tokens if token.type == "inline" and token.content != "a"]
        assert {child.type for child in cell.children or ()} <= {"text", "text_special"}
        assert "".join(child.content for child in cell.children or ()) == plain


def test_pictures_that_readers_cannot_decode_and_repaired_ones_are_told_if_there_are_any(workdir: Workdir) -> None:
    assert "do not decode" not in card(workdir)[1]
    assert "Repaired" not in card(workdir)[1]
    figures = ShardFigures.of(workdir.store.table("shards/data"))
    readers = ReaderFigures(warnings={"EXIF: SyntaxError": 2, "orientation: <b>": 1}, repaired=1)
    workdir.tell("shards/data", figures.model_copy(update={"readers": readers}))
    _, body = card(workdir)
    assert "fail on 3 pictures, whose pixels are sound: EXIF: SyntaxError (2), orientation: &lt;b&gt; (1)." in body
    assert 'rows.filter(lambda warning: warning is None, input_columns="reader_warning")' in body
    assert "The metadata of 1 picture were repaired, since readers would fail on them" in body


def test_classes_are_named_by_their_numbers(workdir: Workdir) -> None:
    names = ("a|b", *(f"class {number}" for number in range(1, 12)))
    stage = WriteShards(columns={"label": "int64", "x": "int64"}, classes={"label": names})
    workdir.stages["shards/data"] = stage
    _, body = card(workdir)
    assert "| `label` | class | of the sources, 12 classes: 0 a\\|b, 1 class 1, 2 class 2, " in body
    assert "9 class 9, ...; null where they do not say |" in body
    assert "| `x` | int64 | of the sources, as they give it; null where they do not say |" in body


def test_a_run_without_heldout_images_says_that_it_did_not_look_for_them(workdir: Workdir) -> None:
    figures = CatalogFigures.of(workdir.store.table("catalog"))
    others = tuple(CURATED if role == HELDOUT else role for role in figures.part_role)
    workdir.tell("catalog", figures.model_copy(update={"part_role": others}))
    assert "no held-out source was given" in card(workdir)[1]


def test_what_no_stage_checked_is_listed_and_what_one_checked_is_not(workdir: Workdir) -> None:
    class CheckFaces(Catalog):
        def checks(self, table: Table, run: Finished) -> Iterator[Check]:
            yield "faces"

    assert UNCHECKED["faces"] in card(workdir)[1]
    assert UNCHECKED["copies"] not in card(workdir)[1]
    workdir.stages["catalog"] = CheckFaces(sources=workdir.sources)
    assert UNCHECKED["faces"] not in card(workdir)[1]


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (142_109_386, "100M<n<1B"), (10**9, "1B<n<10B"), (10**13, "n>1T")],
)
def test_size_categories_are_those_of_the_hub(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_a_run_without_shards_has_no_card(tmp_path: Path) -> None:
    run = Workdir(tmp_path).catalog().run
    assert write_card(run) is None
    with pytest.raises(TableError, match="holds no finished shards; run a recipe that writes them first"):
        front_matter(run)


REASONS = {"corrupt": 2, "empty": 1}


def lose(workdir: Workdir, role: str, number: int, reasons: dict[str, int]) -> Workdir:
    """Let a catalog of `number` images of a role have lost some of them."""
    parts = workdir.store.table("catalog")
    figures = CatalogFigures.of(parts)
    rows = tuple(number if ROLES[r] == role else n for r, n in zip(figures.part_role, figures.part_rows, strict=True))
    workdir.tell("catalog", figures.model_copy(update={"part_rows": rows}))
    known = InspectFigures.of(workdir.store.table("images"))
    lost = LostImages(reasons=reasons, first=(workdir.ids["h.jpg" if role == "heldout" else "q1.jpg"],))
    workdir.tell("images", known.model_copy(update={"lost": {role: lost}}))
    return workdir


def unchecked(workdir: Workdir) -> str:
    return card(workdir)[1].split("## What was not checked")[1].split("## ")[0]


def test_heldout_images_that_could_not_be_compared_are_counted_and_named(workdir: Workdir) -> None:
    lose(workdir, "heldout", 10, REASONS)
    body = card(workdir)[1]
    assert "7 of 10 held-out images could be compared; not 2 corrupt, 1 empty: h.jpg, ..." in body
    assert "compared with 7 of 10 held-out images" in body
    assert "3 of 10 held-out images could not be compared (2 corrupt, 1 empty: h.jpg, ...)" in unchecked(workdir)
    assert "no held-out source was given" not in body
    (said,) = (text for text in warnings(workdir.run) if "compared with the pool" in text)
    assert said.startswith("7 of 10 held-out images could be compared with the pool, so the result may hold copies of")
    assert "(2 corrupt, 1 empty: h.jpg, ...)" in said


def test_with_all_heldout_images_lost_nothing_is_said_to_be_compared(workdir: Workdir) -> None:
    lose(workdir, "heldout", 3, REASONS)
    assert "0 of 3 held-out images could be compared" in card(workdir)[1]
    assert "3 of 3 held-out images could not be compared" in unchecked(workdir)
    assert any(text.startswith("0 of 3 held-out images could be compared") for text in warnings(workdir.run))


def test_with_all_heldout_images_compared_their_number_is_told_and_nothing_is_open(workdir: Workdir) -> None:
    assert "1 of 1 held-out image could be compared" in card(workdir)[1]
    assert "benchmark" not in unchecked(workdir)
    assert not any("compared with the pool" in text for text in warnings(workdir.run))


def test_curated_images_that_could_not_be_used_are_named(workdir: Workdir) -> None:
    lose(workdir, "curated", 5, {"truncated": 1})
    assert "4 of 5 curated images could be used; not 1 truncated: q1.jpg" in card(workdir)[1]
    assert any(text.startswith("4 of 5 curated images could be used; the others") for text in warnings(workdir.run))


def test_curated_images_that_resemble_heldout_ones_and_stay_are_told(workdir: Workdir) -> None:
    assert "1 selected curated image resembles a held-out one" in card(workdir)[1]


def test_heldout_images_that_no_stage_compares_are_not_checked(workdir: Workdir) -> None:
    del workdir.stages["duplicates"]
    assert "the held-out images of this run were compared with nothing" in unchecked(workdir)
    assert UNCHECKED["copies"] in unchecked(workdir)


def test_a_search_for_equal_bytes_alone_claims_no_more(workdir: Workdir) -> None:
    workdir.stages["internal/neighbors/copy"] = FindExact()
    assert "copies within the dataset beside those of equal bytes" in unchecked(workdir)
    assert "copies of benchmark images beside those of equal bytes" in unchecked(workdir)


def test_the_recall_of_the_search_is_told(workdir: Workdir) -> None:
    assert "internal/neighbors/copy: 0.7500 +- 0.1250" in card(workdir)[1].split("Recall of the searches:")[1]
