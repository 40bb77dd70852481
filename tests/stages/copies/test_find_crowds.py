"""Crowds of a toy catalog against a direct count, and what the six stages make of their pairs."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.models.thresholds import HASH_THRESHOLD, NEAREST_HASH, STRONG_HASH
from curate.ops.copies.alignment import align, alignment_score
from curate.ops.copies.components import connected_components
from curate.ops.vectors import normalize
from curate.stages.copies.align_crowds import AlignCrowds
from curate.stages.copies.doubt_crowds import DoubtCrowds
from curate.stages.copies.find_candidates import FindCandidates
from curate.stages.copies.find_crowd_pairs import FindCrowdPairs
from curate.stages.copies.find_crowds import CrowdFigures, FindCrowds
from curate.stages.copies.judge_crowds import JudgeCrowds, JudgeFigures
from curate.stages.copies.keep_near import KeepNear
from curate.stages.copies.measure_crowds import MeasureCrowds
from curate.tables import CATALOG, NEIGHBORS
from tests.engine.test_finished import opened
from tests.stages.copies.given_pairs import STRICT
from tests.stages.planted import GivenVectors, PlantedCatalog, make

ROWS, SIDE, MAX_PAIRS = 20, 12, 6
CROWD = 12
"""Rows of each pool part that look alike; the others have a copy at most. The last two of them are copies."""


class GivenEdges(Map):
    """Edges with their kinds, all in the first part."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}
    edges: tuple[tuple[int, int, float, str], ...]

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        rows = [dict(zip(NEIGHBORS.names, edge, strict=True)) for edge in (self.edges if part == 0 else ())]
        yield from pa.Table.from_pylist(rows, schema=NEIGHBORS).to_batches()


def image(part: int, row: int) -> int:
    return part << 32 | row


ALIKE = [image(part, row) for part in (0, 1) for row in range(CROWD)]
OTHERS = [image(part, row) for part in (0, 1) for row in range(CROWD, ROWS)]
COPY = (image(0, CROWD - 1), image(1, CROWD - 1))


def near() -> list[tuple[int, int, float, str]]:
    """All pairs of the crowd, a held-out image that asks for it, and a copy of each of the others."""
    rng = np.random.default_rng(5)
    pairs = [(a, b) for i, a in enumerate(ALIKE) for b in ALIKE[i + 1 :]]
    pairs += [(image(2, 0), a) for a in ALIKE]
    pairs += list(zip(OTHERS[: ROWS - CROWD], OTHERS[ROWS - CROWD :], strict=True))
    return [(a, b, float(np.float32(rng.uniform(0.85, 0.99))), "embedding") for a, b in pairs]


def hashed() -> list[tuple[int, int, float, str]]:
    """Hashes in the crowd: strong, too far, and near to those of two others; and a far one outside of it."""
    far, pairs = HASH_THRESHOLD, [(ALIKE[0], ALIKE[1], STRONG_HASH), (ALIKE[2], ALIKE[3], HASH_THRESHOLD)]
    pairs += [(ALIKE[4], ALIKE[5], far), (ALIKE[4], ALIKE[6], far), (ALIKE[4], ALIKE[7], STRONG_HASH)]
    pairs += [(ALIKE[4], ALIKE[8], NEAREST_HASH), (OTHERS[0], OTHERS[ROWS - CROWD], far)]
    return [(a, b, float(np.float32(similarity)), "hash") for a, b, similarity in pairs]


def pictures() -> np.ndarray:
    """(3, ROWS, SIDE**2): those of the crowd have half of their variance in common, its copy nearly all."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, ROWS, SIDE * SIDE))
    x[:, :CROWD] += rng.standard_normal(SIDE * SIDE)
    x[1, CROWD - 1] = x[0, CROWD - 1] + 0.1 * x[1, CROWD - 1]
    return normalize(x.reshape(-1, SIDE * SIDE).astype(np.float32)).reshape(3, ROWS, -1)


def declare(root: Path) -> Pipeline:
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool", "heldout"), rows=ROWS))
    luma = p.add("luma", GivenVectors(vectors=pictures().tolist()), catalog=catalog)
    found = p.add("near", GivenEdges(edges=tuple(near())), catalog=catalog)
    hashes = p.add("pdq", GivenEdges(edges=tuple(hashed())), catalog=catalog)
    crowds = p.add("crowds", FindCrowds(alike_share=1), catalog=catalog, near=[found], strong=[hashes])
    p.add("sure", KeepNear(**STRICT), neighbors=found, crowds=crowds, catalog=catalog)
    p.add("pairs", FindCandidates(**STRICT), neighbors=found, crowds=crowds, pictures=luma, catalog=catalog)
    offer = FindCrowdPairs(max_pairs=MAX_PAIRS)
    offered = p.add("offered", offer, neighbors=found, crowds=crowds, pictures=luma, catalog=catalog)
    aligned = p.add("aligned", AlignCrowds(), candidates=offered, pictures=luma, catalog=catalog)
    around = p.add("around", MeasureCrowds(), aligned=aligned, crowds=crowds, catalog=catalog)
    judge = JudgeCrowds(threshold=0.5, heldout_threshold=0.5)
    p.add("judged", judge, aligned=aligned, surroundings=around, catalog=catalog)
    p.add("trusted", DoubtCrowds(), neighbors=hashes, crowds=crowds)
    return p


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    p = declare(tmp_path_factory.mktemp("crowds"))
    make(p)
    return p


def rows_of(p: Pipeline, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = p.store.table(name).read_all().to_pylist()
    return rows


def ends(rows: list[dict[str, Any]]) -> set[tuple[int, int]]:
    return {(row["query_id"], row["image_id"]) for row in rows}


def test_crowds_are_those_of_a_direct_count(made: Pipeline) -> None:
    ids = sorted({*ALIKE, *OTHERS, image(2, 0)})
    at = {one: i for i, one in enumerate(ids)}
    strong = [(at[a], at[b]) for a, b, similarity, _ in hashed() if np.float32(similarity) >= np.float32(STRONG_HASH)]
    group = connected_components(len(ids), *np.array(strong).T)
    met: dict[int, set[int]] = {one: set() for one in ids}
    for a, b, *_ in near():
        met[a].add(int(group[at[b]]))
        met[b].add(int(group[at[a]]))
    direct = {one: len(groups - {int(group[at[one]])}) for one, groups in met.items()}
    found = {row["image_id"]: row["groups"] for row in rows_of(made, "crowds")}
    assert set(found) == {one for one, number in direct.items() if number >= 4} == {*ALIKE, image(2, 0)}
    assert all(number - 5 <= found[one] <= number for one, number in direct.items() if one in found)
    assert CrowdFigures.of(made.store.table("crowds")).pairs == len(near()) - (ROWS - CROWD)


def test_pairs_outside_of_crowds_are_judged_as_ever(made: Pipeline) -> None:
    outside = {(a, b): similarity for a, b, similarity, _ in near() if a in OTHERS}
    sure, doubtful = ends(rows_of(made, "sure")), ends(rows_of(made, "pairs"))
    assert sure == {pair for pair, similarity in outside.items() if similarity >= np.float32(0.9)}
    assert sure | doubtful == set(outside)
    assert not sure & doubtful


def test_an_image_offers_its_most_similar_pairs_and_no_more(made: Pipeline) -> None:
    offered = ends(rows_of(made, "offered"))
    for one in [*ALIKE, image(2, 0)]:
        mine = sorted(((similarity, b) for a, b, similarity, _ in near() if a == one), reverse=True)
        assert {b for a, b in offered if a == one} == {b for _, b in mine[:MAX_PAIRS]}
    assert len(offered) <= MAX_PAIRS * (len(ALIKE) + 1)


def test_only_the_copy_stands_out(made: Pipeline) -> None:
    x = pictures()
    for row in rows_of(made, "aligned"):
        small = [x[i >> 32, i & 0xFFFFFFFF][None] for i in (row["query_id"], row["image_id"])]
        assert row["correlation"] == pytest.approx(align(*small)[0], abs=1e-5)
    (kept,) = rows_of(made, "judged")
    assert (kept["query_id"], kept["image_id"], kept["kind"]) == (*COPY, "aligned")
    (pair,) = (row for row in rows_of(made, "aligned") if (row["query_id"], row["image_id"]) == COPY)
    cosine, correlation = np.float32([pair["similarity"]]), np.float32([pair["correlation"]])
    assert kept["similarity"] == pytest.approx(alignment_score(cosine, correlation, weight=0.45)[0])
    figures = JudgeFigures.of(made.store.table("judged"))
    assert (figures.tried, figures.counted) == (len(rows_of(made, "offered")), 1)
    assert figures.alike > 10


def test_hashes_count_where_they_are_near_enough(made: Pipeline) -> None:
    # The pair at the published distance counts, but not of the image whose hash is near to those of several others.
    strong = {(ALIKE[0], ALIKE[1]), (ALIKE[4], ALIKE[8]), (OTHERS[0], OTHERS[ROWS - CROWD])}
    assert ends(rows_of(made, "trusted")) == strong


def test_a_catalog_that_looks_alike_as_a_whole_doubts_every_pair(tmp_path: Path) -> None:
    p = Pipeline(Store(tmp_path), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool"), rows=ROWS))
    pairs = tuple(edge for edge in near() if edge[0] >> 32 < 2)
    found = p.add("near", GivenEdges(edges=pairs), catalog=catalog)
    crowds = p.add("crowds", FindCrowds(), catalog=catalog, near=[found], strong=[])
    p.add("trusted", DoubtCrowds(), neighbors=found, crowds=crowds)
    make(p)
    assert [row["image_id"] for row in rows_of(p, "crowds")] == sorted([*ALIKE, *OTHERS])
    assert rows_of(p, "trusted") == []


def test_a_few_untied_copies_are_no_crowd_in_a_large_catalog(tmp_path: Path) -> None:
    p = Pipeline(Store(tmp_path), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool", "heldout"), rows=600))
    found = p.add("near", GivenEdges(edges=tuple(near())), catalog=catalog)
    p.add("crowds", FindCrowds(), catalog=catalog, near=[found], strong=[])
    p.add("asked", FindCrowds(enough_groups=12), catalog=catalog, near=[found], strong=[])
    make(p)
    assert rows_of(p, "crowds") == []  # 24 alike, so 23 others each, fewer than 24
    assert {row["image_id"] for row in rows_of(p, "asked")} <= {*ALIKE, image(2, 0)}
    assert len(rows_of(p, "asked")) > 20


def test_crowds_are_told_with_numbers_and_pictures(made: Pipeline) -> None:
    run = opened(made)
    stage, table = run.only(FindCrowds)
    (warning,) = stage.warn(table, run)
    assert "25 of 60 images (41.7 %)" in warning
    assert "copies.crowds=trust" in warning
    (section,) = stage.show(table, run)
    assert section.title == "Pictures that look alike"
    judge, judged = run.only(JudgeCrowds)
    text, *blocks = next(iter(judge.show(judged, run))).blocks
    assert f"{JudgeFigures.of(judged).alike} would be copies anywhere else; 1 of them stand out" in text.text
    assert len(blocks) > 3
    doubt, trusted = run.only(DoubtCrowds)
    assert "trusted: 4 pairs of such images did not count" in next(iter(doubt.show(trusted, run))).blocks[0].text


def test_two_runs_give_equal_tables(made: Pipeline, tmp_path: Path) -> None:
    again = declare(tmp_path)
    make(again)
    for name in ("crowds", "offered", "aligned", "around", "judged", "trusted"):
        assert made.store.table(name).read_all().equals(again.store.table(name).read_all())


def test_the_work_of_alignment_is_bounded_by_the_images_in_crowds() -> None:
    inputs = {"neighbors": Shape(pool=10**9, row_bytes=24), "pictures": Shape(pool=1000, row_bytes=1000)}
    _, made_of = FindCrowdPairs().cost(inputs, Assumptions(images=1000))
    assert made_of.rows <= 32 * 1000
    demand, _ = AlignCrowds().cost({"candidates": made_of, "pictures": inputs["pictures"]}, Assumptions(images=1000))
    assert demand.pairs == made_of.rows
