"""Deduplicate: rows and figures, how components are cut, and what it tells of a small pool in which all is known."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.finished import Finished, FinishedTable
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import Gallery, Heading, Text
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.copies.graph import Oversized
from curate.stages.copies.deduplicate import Deduplicate, DeduplicateFigures, curated_matches
from curate.stages.copies.exact import FindExact
from curate.stages.copies.keep_near import KeepNear
from curate.tables import DUPLICATES, IMAGES, NEIGHBORS
from tests.engine.test_finished import opened
from tests.stages.planted import PlantedCatalog, given_table, make

Pair = tuple[tuple[int, int], tuple[int, int], float]


def judged(root: Path, images: list[list[dict[str, Any]]], pairs: list[Pair], **options: Any) -> Pipeline:
    """Verdicts, from rows of `images` by part and given pairs; parts are two of the pool, then other roles."""
    roles = ("pool", "pool", "curated", "heldout")[: len(images)]
    given_table(root, "images", IMAGES, images)
    rows = [
        {"query_id": a[0] << 32 | a[1], "image_id": b[0] << 32 | b[1], "similarity": cosine, "kind": "embedding"}
        for a, b, cosine in pairs
    ]
    given_table(root, "neighbors", NEIGHBORS, [rows])
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=roles, rows=len(images[0])))
    exact = p.add("exact", FindExact(), images=Ref("images", IMAGES), catalog=catalog)
    found = [Ref("neighbors", NEIGHBORS), exact]
    p.add("duplicates", Deduplicate(**options), catalog=catalog, images=Ref("images", IMAGES), neighbors=found)
    make(p)
    return p


def image(part: int, row: int, **facts: Any) -> dict[str, Any]:
    digest = bytes([part + 1]) + row.to_bytes(31, "big")
    return {"image_id": part << 32 | row, "sha256": digest, "width": 10, "height": 10} | facts


# -- rows and figures ----------------------------------------------------------------------------------------


def large_pool(root: Path, pairs: list[Pair], **options: Any) -> Table:
    """Two parts of 300 images; images 7 of both have equal bytes, image 9 of each is rejected."""
    rows = [[image(part, row, height=10 + part) for row in range(300)] for part in range(2)]
    for part in rows:
        part[7]["sha256"], part[9]["reject"] = bytes(32), "corrupt"
    return judged(root, rows, pairs, **options).store.table("duplicates")


def test_rows_keep_the_parts_of_the_catalog_and_leave_out_rejects(tmp_path: Path) -> None:
    found = large_pool(tmp_path, [((0, 1), (1, 2), 0.9)])
    assert [part.rows for part in found.parts()] == [299, 299]
    rows = {r["image_id"]: r for r in found.read_all().to_pylist()}
    assert found.schema().names == DUPLICATES.names
    tied, same = rows[1], rows[7]
    assert (tied["verdict"], tied["partner_id"], tied["kind"], tied["direct"]) == (
        "duplicate",
        1 << 32 | 2,
        "embedding",
        True,
    )
    assert (same["verdict"], same["partner_id"], same["kind"]) == ("duplicate", 1 << 32 | 7, "sha256")
    assert (tied["component_id"], tied["component_size"], rows[0]["component_size"]) == (1, 2, 1)
    figures = DeduplicateFigures.of(found)
    assert (figures.kept, figures.duplicate, figures.benchmark) == (596, 2, 0)
    assert figures.component_sizes == {1: 594, 2: 2}
    assert figures.copies_by_evidence == {"pool": {"embedding": 1, "sha256": 1}}
    assert (figures.largest_component, figures.largest_direct) == (2, 1)


@pytest.mark.parametrize("chained", [True, False])
def test_chains_are_told_from_copies_of_one_picture_and_cut_on_demand(tmp_path: Path, chained: bool) -> None:
    rows = [row for row in range(200) if row != 9]
    chain = [((0, a), (0, b), 0.9) for a, b in itertools.pairwise(rows)]
    star = [((0, 0), (0, row), 0.9) for row in rows[1:]]
    table = large_pool(tmp_path / "whole", chain if chained else star)
    (text,) = Deduplicate().warn(table, Finished(table.store, "toy", {}, ()))
    assert text.startswith("duplicates: one component holds 200 of 598 images, and ")
    assert ("as a chain" if chained else "copies of one picture: look") in text.replace(". Look", ": look")
    assert "oversized={size: 100, threshold: 0.95}" in text
    cut = large_pool(tmp_path / "cut", chain, oversized=Oversized(size=100, threshold=0.95))
    figures = DeduplicateFigures.of(cut)
    assert (figures.largest_component, figures.kept) == (2, 597)  # equal bytes alone are left
    assert not list(Deduplicate().warn(cut, Finished(cut.store, "toy", {}, ())))


# -- what it tells -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A pool image as a copy of a curated one, a copy of a pool image, and two that touch a held-out one."""
    rows = [[image(part, row) for row in range(6)] for part in range(4)]
    rows[0][5]["reject"] = "corrupt"
    pairs: list[Pair] = [
        ((0, 0), (2, 0), 0.97),
        ((0, 2), (0, 1), 0.95),
        ((3, 0), (0, 3), 0.875),
        ((0, 4), (0, 3), 0.99),
        ((3, 1), (2, 1), 0.9),
        ((3, 2), (2, 1), 0.93),
    ]
    p = judged(tmp_path_factory.mktemp("told"), rows, pairs)
    found = opened(p)
    searched = FinishedTable(KeepNear(threshold=0.92, heldout_threshold=0.86), p.store.table("neighbors"))
    return replace(found, tables=(searched, *found.tables))


def told(run: Finished) -> tuple[Deduplicate, Table]:
    found = run.only(Deduplicate)
    assert found is not None
    return found


def story(run: Finished, image_id: int) -> list[str]:
    stage, table = told(run)
    return list(stage.explain(run.place(image_id), table, run))


def test_every_image_that_left_is_counted_with_its_evidence(run: Finished) -> None:
    stage, table = told(run)
    copies, clean = stage.flow(table, run, None)
    assert (copies.name, copies.pool) == ("one of each copy", 9)
    assert set(copies.drops) == {
        ("copy of a curated image, by embedding", 1),
        ("copy of a pool image, by embedding", 1),
    }
    assert (clean.name, clean.pool) == ("compared with held-out images", 7)
    assert clean.drops == (("in a group that touches a held-out image", 2),)
    assert stage.headline(table, run) == "7 kept"
    assert list(stage.checks(table, run)) == ["copies", "benchmarks"]


def test_groups_of_copies_show_the_image_that_stays_and_the_evidence(run: Finished) -> None:
    stage, table = told(run)
    copies, heldout = stage.show(table, run)
    assert (copies.title, heldout.title) == ("Copies", "Held-out images")
    text, title, *groups = copies.blocks
    assert text == Text("2 images kept out as copies. 2 groups of copies. The largest has 2 images.")
    assert title == Heading("The biggest groups")
    shown = [
        [(picture.image_id, picture.captions) for picture in group.pictures]
        for group in groups
        if isinstance(group, Gallery)
    ]
    assert shown == [
        [(1, ("kept",)), (2, ("0.950 embedding",))],
        [(2 << 32, ("stays: curated",)), (0, ("0.970 embedding",))],
    ]


def test_heldout_images_stand_beside_what_left_because_of_them(run: Finished) -> None:
    stage, table = told(run)
    _, heldout = stage.show(table, run)
    text, group, title, *matches = heldout.blocks
    assert isinstance(text, Text)
    assert text.text.startswith("2 images of the pool left")
    assert isinstance(group, Gallery)
    assert [(p.image_id, p.mark) for p in group.pictures] == [(3 << 32, "heldout"), (4, ""), (3, "")]
    assert title == Heading("Curated images that resemble held-out ones")
    assert [[p.image_id for p in match.pictures] for match in matches if isinstance(match, Gallery)] == [
        [3 << 32 | 2, 2 << 32 | 1]
    ]


def test_curated_images_that_resemble_heldout_ones_are_found_and_warned_of(run: Finished) -> None:
    assert np.array_equal(curated_matches(run), [[2 << 32 | 1, 3 << 32 | 2]])
    stage, table = told(run)
    (text,) = stage.warn(table, run)
    assert text.startswith("1 curated image of this run resembles held-out images")


def test_a_copy_names_its_partner_its_evidence_and_the_threshold(run: Finished) -> None:
    assert story(run, 2) == [
        "dropped as duplicate: a copy of 1 (image 1)",
        "similarity 0.9500 by embedding, the threshold is 0.92",
        "its group has 2 images; the others are",
        "  1 (image 1)",
    ]
    assert story(run, 1)[0] == "kept"
    assert story(run, 5) == []  # rejected


def test_contamination_names_the_heldout_image_and_its_threshold(run: Finished) -> None:
    lines = story(run, 3)
    assert lines[0] == f"dropped as benchmark: its group touches the held-out image 0 (image {3 << 32})"
    assert lines[1] == "similarity 0.8750 by embedding, the threshold is 0.86"


def test_outside_images_tell_what_they_caused(run: Finished) -> None:
    assert story(run, 2 << 32) == ["1 pool image dropped, as its group consists of copies of it", "  0 (image 0)"]
    assert story(run, 3 << 32)[0] == "2 pool images dropped, as their groups touch it"
    assert story(run, 3 << 32 | 5) == ["0 pool images dropped, as their groups touch it"]


def test_without_copies_and_heldout_images_little_is_said(tmp_path: Path) -> None:
    found = opened(judged(tmp_path, [[image(part, row) for row in range(3)] for part in range(2)], []))
    stage, table = told(found)
    (section,) = stage.show(table, found)
    assert section.blocks == (Text("No copies were found."),)
    assert [(step.pool, step.drops) for step in stage.flow(table, found, None)] == [(6, ())]
    assert list(stage.checks(table, found)) == ["copies"]
    assert not list(stage.warn(table, found))


def test_equal_bytes_need_no_threshold(tmp_path: Path) -> None:
    rows = [[image(part, row, sha256=bytes(32)) for row in range(2)] for part in range(2)]
    found = opened(judged(tmp_path, rows, []))
    assert story(found, 1)[:2] == ["dropped as duplicate: a copy of 0 (image 0)", "the bytes are the same"]


def test_cost_grows_with_images_and_edges_in_one_process() -> None:
    inputs = {"images": Shape(pool=90, curated=10), "neighbors": [Shape(pool=50), Shape(pool=5)]}
    demand, made = Deduplicate().cost(inputs, Assumptions(images=90))
    assert (demand.serial_rows, demand.memory, demand.note) == (155, 2600, "one process")
    assert demand.read == 100 * 40 + 3 * 55 * 24
    assert made.num_bytes == demand.written == demand.scratch == 90 * 50
