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
from curate.engine.show import Heading, Pages, Text
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.copies.graph import Oversized
from curate.stages.copies.contamination import FindContaminated
from curate.stages.copies.deduplicate import VERDICT_BYTES, Deduplicate, DeduplicateFigures, curated_matches
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
    given = {"neighbors": found, "catalog": catalog}
    contaminated = p.add("contaminated", FindContaminated(), **given)
    judge = Deduplicate(**options)
    p.add("duplicates", judge, images=Ref("images", IMAGES), contaminated=contaminated, **given)
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


ROWS = [row for row in range(200) if row != 9]
CHAIN = [((0, a), (0, b), 0.9) for a, b in itertools.pairwise(ROWS)]
STAR = [((0, 0), (0, row), 0.9) for row in ROWS[1:]]
FAR = [((0, ROWS[i % 20]), (0, row), 0.9) for i, row in enumerate(ROWS[20:])] + STAR[:19]  # most by another image


def warned(table: Table, **options: Any) -> list[str]:
    return list(Deduplicate(**options).warn(table, Finished(table.store, "toy", {}, ())))


@pytest.mark.parametrize(
    ("pairs", "options", "said"),
    [
        (CHAIN, {"chains": "join"}, "1% of them resemble the image that stays: they hang together as a chain. Look"),
        (STAR, {}, "99% of them resemble the image that stays: they may well be copies of one picture. Look"),
        (FAR, {}, "14% of them resemble the image that stays, the others one of these. Look"),
        (CHAIN, {"keep_every": 50}, "one component holds 200 of 598 images, taken for a burst, of which 5 images stay"),
    ],
)
def test_a_component_that_is_too_large_is_told_with_what_it_is(
    tmp_path: Path, pairs: list[Pair], options: dict[str, Any], said: str
) -> None:
    table = large_pool(tmp_path, pairs, **options)
    (text,) = warned(table, **options)
    assert text.startswith("duplicates: one component holds 200 of 598 images, ")
    assert said in text
    remedy = "chains=split" if options == {"chains": "join"} else "oversized={size: 100, threshold: 0.95}"
    assert text.endswith(f"cut such components: {remedy}")


def test_chains_are_split_by_default_and_large_components_cut_on_demand(tmp_path: Path) -> None:
    split = large_pool(tmp_path / "split", CHAIN)
    figures = DeduplicateFigures.of(split)
    assert figures.largest_component == 4  # two neighbors of the one that stays, and equal bytes
    assert (figures.kept, figures.more_of_bursts) == (398 + 67, 0)  # of 199 in a row every third
    assert not warned(split)
    cut = large_pool(tmp_path / "cut", CHAIN, chains="join", oversized=Oversized(size=100, threshold=0.95))
    figures = DeduplicateFigures.of(cut)
    assert (figures.largest_component, figures.kept) == (2, 597)  # equal bytes alone are left
    assert not warned(cut)


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
    assert (copies.name, copies.pool, copies.kept_out) == ("not copies", 9, "as copies")
    assert set(copies.drops) == {
        ("copies of curated images, by embedding", 1),
        ("copies of pool images, by embedding", 1),
    }
    assert (clean.name, clean.pool, clean.kept_out) == ("clean", 7, "for held-out images")
    assert clean.drops == (("in a group of copies that holds a held-out image", 2),)
    assert stage.headline(table, run) == "7 kept"
    assert list(stage.checks(table, run)) == ["copies", "benchmarks"]


def test_groups_of_copies_show_the_image_that_stays_and_the_evidence(run: Finished) -> None:
    stage, table = told(run)
    copies, heldout = stage.show(table, run)
    assert (copies.title, heldout.title) == ("Copies", "Held-out images")
    text, title, pages = copies.blocks
    assert text == Text("2 images kept out as copies. 2 groups of copies. The largest has 2 images.")
    assert title == Heading("The biggest groups")
    assert isinstance(pages, Pages)
    shown = [[(picture.image_id, picture.captions) for picture in group.pictures] for group in pages.groups]
    assert shown == [
        [(1, ("kept",)), (2, ("0.950 embedding",))],
        [(2 << 32, ("stays: curated",)), (0, ("0.970 embedding",))],
    ]


def test_heldout_images_stand_beside_what_left_because_of_them(run: Finished) -> None:
    stage, table = told(run)
    _, heldout = stage.show(table, run)
    text, pages, title, matches = heldout.blocks
    assert isinstance(text, Text)
    assert text.text.startswith("2 images of the pool kept out")
    assert isinstance(pages, Pages)
    assert isinstance(matches, Pages)
    (group,) = pages.groups
    assert [(p.image_id, p.mark) for p in group.pictures] == [(3 << 32, "heldout"), (4, ""), (3, "")]
    assert title == Heading("Curated images that resemble held-out ones")
    assert [[p.image_id for p in match.pictures] for match in matches.groups] == [[3 << 32 | 2, 2 << 32 | 1]]


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


@pytest.fixture(scope="module")
def burst(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Seven frames in a row, the last with the bytes of the first; the fourth is the largest, and every third stays."""
    rows = [[image(part, row) for row in range(7)] for part in range(2)]
    rows[0][6]["sha256"] = rows[0][0]["sha256"]
    rows[0][3]["height"] = 20
    rows[0][2]["reject"] = "corrupt"
    pairs: list[Pair] = [((0, a), (0, b), 0.9) for a, b in itertools.pairwise([0, 1, 3, 4, 5, 6])]
    return opened(judged(tmp_path_factory.mktemp("burst"), [rows[0], rows[1]], pairs, keep_every=3))


def test_of_a_burst_every_so_manieth_frame_stays_and_is_counted(burst: Finished) -> None:
    _, table = told(burst)
    rows = {row["image_id"]: row for row in table.read_all().to_pylist()}
    assert [image_id for image_id, row in rows.items() if row["verdict"] == "kept"][:3] == [0, 3, 4]
    figures = DeduplicateFigures.of(table)
    assert (figures.kept, figures.duplicate, figures.more_of_bursts) == (10, 3, 2)
    assert (figures.largest_component, figures.largest_kept, figures.largest_direct) == (6, 3, 3)


def test_report_and_story_of_a_burst_name_the_frames_that_stay(burst: Finished) -> None:
    stage, table = told(burst)
    (step,) = stage.flow(table, burst, None)
    assert (step.pool, step.note) == (10, "2 more frames of bursts among them")
    assert next(iter(stage.gaps(table, burst))) == (
        "copies",
        "copies among frames of bursts, of which about one of 3 stays",
    )
    (section,) = stage.show(table, burst)
    text, _, pages = section.blocks
    assert isinstance(text, Text)
    assert text.text.endswith("The largest has 6 images. Of bursts 2 more frames stay.")
    assert isinstance(pages, Pages)
    (gallery,) = pages.groups
    assert [(picture.image_id, picture.captions) for picture in gallery.pictures] == [
        (0, ("kept",)),
        (3, ("kept",)),
        (4, ("kept",)),
        (6, ("same bytes",)),
        (1, ("0.900 embedding",)),
        (5, ("0.900 embedding",)),
    ]
    assert story(burst, 4)[:2] == ["kept, as 3 frames of its burst are", "its group has 6 images; the others are"]
    assert story(burst, 5)[0] == "dropped as duplicate: a copy of 4 (image 4)"
    assert story(burst, 6)[:2] == ["dropped as duplicate: a copy of 0 (image 0)", "the bytes are the same"]


def test_an_image_without_a_pair_with_the_one_that_stays_is_no_copy_of_it(tmp_path: Path) -> None:
    rows = [[image(part, row) for row in range(8)] for part in range(2)]
    rows[0][7]["sha256"] = rows[0][2]["sha256"]
    pairs: list[Pair] = [((0, a), (0, a + 1), 0.9) for a in range(6)]
    found = opened(judged(tmp_path / "chain", rows, pairs[:2]))
    assert story(found, 2)[:2] == [
        "dropped as duplicate: its group is represented by 0 (image 0)",
        "the bytes of another image of its group",
    ]
    thinned = opened(judged(tmp_path / "burst", rows, pairs, keep_every=5))
    assert (
        story(thinned, 2)[0] == "dropped as duplicate: of the frames of its burst that stay, the nearest is 0 (image 0)"
    )
    assert story(thinned, 3)[1] == "similarity 0.9000 by embedding to another image of its group"


def test_without_copies_and_heldout_images_little_is_said(tmp_path: Path) -> None:
    found = opened(judged(tmp_path, [[image(part, row) for row in range(3)] for part in range(2)], []))
    stage, table = told(found)
    assert not list(stage.show(table, found))
    assert [(step.pool, step.drops) for step in stage.flow(table, found, None)] == [(6, ())]
    assert list(stage.checks(table, found)) == ["copies"]
    assert not list(stage.warn(table, found))


def test_equal_bytes_need_no_threshold(tmp_path: Path) -> None:
    rows = [[image(part, row, sha256=bytes(32)) for row in range(2)] for part in range(2)]
    found = opened(judged(tmp_path, rows, []))
    assert story(found, 1)[:2] == ["dropped as duplicate: a copy of 0 (image 0)", "the bytes are the same"]


def test_cost_grows_with_images_and_edges_in_one_process() -> None:
    inputs = {"images": Shape(pool=90, curated=10), "neighbors": [Shape(pool=50), Shape(pool=5)]}
    demand, made = Deduplicate(chains="join").cost(inputs, Assumptions(images=90))
    assert (demand.serial_rows, demand.memory) == (155, 2600)
    more = Deduplicate().cost(inputs, Assumptions(images=90))[0]
    assert more.serial_rows == pytest.approx(2.4 * 155)
    assert made.num_bytes == demand.written == 90 * VERDICT_BYTES
    edges, images = Shape(pool=10**8, row_bytes=8), Shape(pool=10**8, row_bytes=80, widths={"width": 4}, parts=1000)
    read = Deduplicate().cost({"images": images, "neighbors": [edges]}, Assumptions(images=1))[0].serial_read
    facts = images.scanned(3, share=4 / 80, ranges=2).read  # of the images the few columns that it needs
    assert read == pytest.approx(8 * edges.num_bytes + facts, rel=0.01)
    assert 3 * 4 * 10**8 < facts < 0.3 * 3 * images.num_bytes
