"""Screen on planted scores: rules in their order, roles, lists, and what is told of it."""

from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.finished import Finished, open_finished
from curate.engine.pipeline import Pipeline
from curate.engine.show import Gallery, Histogram, Numbers
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import ConfigError, TableError
from curate.stages.screening.read_columns import ReadColumns
from curate.stages.screening.rejected import read_rejected
from curate.stages.screening.rules import Bounds, ListRule
from curate.stages.screening.screen import Screen, ScreenFigures
from curate.tables import CATALOG, IMAGE_ID, IMAGES, score
from tests.stages.planted import PlantedCatalog, make

ROLES, ROWS = ("pool", "curated", "heldout", "pool"), 40


class GivenFacts(Map):
    """Facts of planted images: each seventh is rejected already; own columns by turns."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return IMAGES

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        rows = [
            {
                "image_id": image,
                "width": 100 + 10 * row,
                "height": 100,
                "reject": "corrupt" if row % 7 == 6 else None,
                "extra": [None, '{"license": "by", "price": "0.5"}', '{"license": "nc", "stars": 3}'][row % 3],
            }
            for row, image in enumerate(catalog["image_id"].to_pylist())
        ]
        yield from pa.Table.from_pylist(rows, schema=IMAGES).to_batches()


class GivenScores(Map):
    """Scores of them: unsafe grows with the row, of each fifth it is not known; each eleventh is listed."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        known = {"model": "planted", "weights": "cd" * 32}
        return pa.schema(
            [
                IMAGE_ID,
                score(
                    "unsafe",
                    pa.float32(),
                    "0..1",
                    preset={"above": 0.9},
                    check="unsafe content",
                    sensitive=True,
                    **known,
                ),
                score("odd", pa.bool_(), "whether the row is odd"),
                score("listed", pa.string(), "list", check="illegal content"),
                pa.field("boxes", pa.list_(pa.int32())),
            ]
        )

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        rows = [
            {
                "image_id": image,
                "unsafe": None if row % 5 == 4 else row / ROWS,
                "odd": row % 2 == 1,
                "listed": "police" if row % 11 == 10 else None,
                "boxes": [],
            }
            for row, image in enumerate(catalog["image_id"].to_pylist())
        ]
        yield from pa.Table.from_pylist(rows, schema=self.output_schema()).to_batches()


def screened(root: Path, screen: Screen) -> tuple[Pipeline, Table]:
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=ROLES, rows=ROWS))
    images, scores = (
        p.add(name, stage, catalog=catalog) for name, stage in (("images", GivenFacts()), ("given", GivenScores()))
    )
    own = tuple(name for name in screen.names if name in ("license", "stars", "lisense", "boxes", "price"))
    columns = p.add("columns", ReadColumns(names=own), catalog=catalog, images=images) if own else None
    p.add(
        "scores",
        screen,
        catalog=catalog,
        images=images,
        scores=[scores],
        named=catalog,
        measured=images,
        columns=[columns] if columns else None,
    )
    make(p)
    return p, p.store.table("scores")


def seen(p: Pipeline) -> tuple[Finished, Screen, Table]:
    run = open_finished(p.store, "toy", {"seed": 0}, p.steps)
    return run, *(run.only(Screen) or pytest.fail("not made"))


def expected(part: int, row: int) -> tuple[str | None, str | None]:
    """Reason and rule under lists, unsafe above 0.8 and odd, in this order."""
    if ROLES[part] == "heldout" or row % 7 == 6:
        return None, None
    if row % 11 == 10:
        return "listed", "police"
    if ROLES[part] == "pool" and row % 5 != 4 and row / ROWS > 0.8:
        return "unsafe", "unsafe above 0.8"
    return ("odd", "odd is true") if ROLES[part] == "pool" and row % 2 else (None, None)


def test_the_first_rule_that_rejects_an_image_is_told_and_curated_ones_feel_lists_alone(tmp_path: Path) -> None:
    screen = Screen(lists=(ListRule(name="police"),), drop={"unsafe": Bounds(above=0.8), "odd": True})
    _, table = screened(tmp_path, screen)
    for part in range(len(ROLES)):
        rows = table.read(part).to_pylist()
        assert [(row["reject"], row["rule"]) for row in rows] == [expected(part, at) for at in range(ROWS)]
        assert all(row["value"] == pytest.approx(row["unsafe"]) for row in rows if row["reject"] == "unsafe")
        assert all(row["with_copies"] == (row["reject"] == "listed") for row in rows if row["reject"])
    assert "boxes" not in table.schema().names
    figures = ScreenFigures.of(table)
    told = [expected(part, row)[0] for part in (0, 3) for row in range(ROWS)]
    assert figures.rejected["pool"] == {reason: told.count(reason) for reason in figures.rejected["pool"]}
    assert figures.rejected["curated"] == {"listed": 3}
    rejected = read_rejected(table, None)
    ids = [part << 32 | row for part in range(4) for row in range(ROWS) if expected(part, row)[0]]
    assert rejected.screened.image_ids.tolist() == ids
    assert rejected.screened.condemning.tolist() == rejected.screened.listed.tolist()
    assert len(rejected.screened.listed) == sum(expected(p, r)[0] == "listed" for p in range(4) for r in range(ROWS))


def test_where_goes_by_facts_scores_and_own_columns_and_null_is_rejected(tmp_path: Path) -> None:
    screen = Screen(where="license = 'by' and width < 300 and source is not null and (stars is null or unsafe < 0.5)")
    _, table = screened(tmp_path, screen)
    for row, found in enumerate(table.read(3).to_pylist()):
        if row % 11 == 10:
            assert found["reject"] == (None if row % 7 == 6 else "listed")
        elif row % 7 == 6:
            assert found["reject"] is None
        elif row % 3 == 0:
            large = 100 + 10 * row >= 300  # false, which is told before what is null
            assert found["rule"] == ("width < 300" if large else "license = 'by'")
            is_ = f"width is {100 + 10 * row}" if large else "license is null"
            assert found["detail"] == f"{is_}, wanted is {found['rule']}"
        elif row % 3 == 2:
            assert found["detail"] == "license is nc, wanted is license = 'by'"
        else:
            assert (found["reject"] == "where") == (100 + 10 * row >= 300)
            assert found["value"] == (100 + 10 * row if found["reject"] else None)
    assert table.complete_manifest().resolved["column_types"] == {"license": "string", "stars": "int64"}


def test_texts_that_are_numbers_are_compared_as_such_where_a_number_is_asked_for(tmp_path: Path) -> None:
    for name, where, dtype in (("a", "price < 0.51", "double"), ("b", "price = '0.5'", "string")):
        _, table = screened(tmp_path / name, Screen(where=where))
        assert table.complete_manifest().resolved["column_types"] == {"price": dtype}
        passed = {row for row, found in enumerate(table.read(3).to_pylist()) if found["reject"] is None}
        assert passed == {row for row in range(ROWS) if row % 7 == 6 or (row % 3 == 1 and row % 11 != 10)}
    with pytest.raises(ConfigError, match="license > 3: license is text; 3 is a number"):
        screened(tmp_path / "c", Screen(where="license > 3"))


def test_own_columns_are_checked_as_soon_as_they_are_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"where: no column is called lisense; did you mean license or listed\?"):
        screened(tmp_path / "a", Screen(where="lisense = 'by'"))
    with pytest.raises(ConfigError, match=r"where: stars = 'many': stars is a number; 'many' is text"):
        screened(tmp_path / "b", Screen(where="stars = 'many'"))
    with pytest.raises(ConfigError, match=r"where: unsafe = 'x': unsafe is a number"):  # of the scores before it runs
        Screen(where="unsafe = 'x'").output_schema(scores=[GivenScores().output_schema()])


def test_scores_of_two_tables_need_names_of_their_own() -> None:
    schema = GivenScores().output_schema()
    with pytest.raises(TableError, match="scores: unsafe names more than one column"):
        Screen().output_schema(scores=[schema, schema])
    taken = pa.schema([IMAGE_ID, score("width", pa.float32(), "the name of a fact")])
    with pytest.raises(TableError, match="scores: width names more than one column"):
        Screen().output_schema(scores=[taken])


def test_sensitive_pictures_are_blurred_unless_asked_and_listed_ones_never_shown(tmp_path: Path) -> None:
    for asked in (False, True):
        screen = Screen(drop={"unsafe": "preset", "odd": True}, lists=(ListRule(name="police"),), show_sensitive=asked)
        run, stage, table = seen(screened(tmp_path, screen)[0])
        (section,) = stage.show(table, run)
        galleries = [block for block in section.blocks if isinstance(block, Gallery)]
        assert galleries
        assert all(gallery.blurred != asked for gallery in galleries)
        (chart,) = [block for block in section.blocks if isinstance(block, Histogram)]
        assert [marker.at for marker in chart.markers] == [0.9]
        rules = next(block for block in section.blocks if isinstance(block, Numbers))
        assert {row[0] for row in rules.rows} == {"unsafe above 0.9", "odd is true", "police"}
        listed = {row["image_id"] for row in table.read_all().to_pylist() if row["reject"] == "listed"}
        shown = {picture.image_id for gallery in galleries for picture in gallery.pictures}
        assert not listed & shown


def test_what_was_checked_and_what_was_only_measured_is_told(tmp_path: Path) -> None:
    run, stage, table = seen(screened(tmp_path / "a", Screen(drop={"unsafe": "preset"}))[0])
    assert list(stage.checks(table, run)) == ["unsafe content", "illegal content"]
    assert list(stage.gaps(table, run)) == []
    facts = list(stage.facts(table, run, digits=4))
    assert ("Rules", "unsafe above 0.9: 4 images kept out, score by planted, weights cdcd") in facts
    run, stage, table = seen(screened(tmp_path / "b", Screen(where="odd or license = 'by'"))[0])
    assert list(stage.checks(table, run)) == ["illegal content", "licenses"]
    text = "unsafe content: measured as unsafe, but no rule goes by it"
    assert list(stage.gaps(table, run)) == [("unsafe content", text)]
    assert "rules reject" in next(iter(stage.warn(table, run)), "rules reject")


def test_law_has_a_row_for_each_image() -> None:
    inputs = {"catalog": Shape(500, row_bytes=8), "scores": [Shape(500, row_bytes=12, columns=3)]}
    demand, made = Screen().cost(inputs, Assumptions(images=500))
    assert (made.rows, made.columns) == (500, 8)
    assert demand.rows == 2000
