"""Crowds of a toy catalog against a direct count, and what the other stages make of their pairs."""

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
from curate.ops.copies.components import connected_components
from curate.ops.copies.crowds import Usual, standing_out, surroundings, usual
from curate.ops.copies.registration import registration_score
from curate.stages.copies.doubt_crowds import DoubtCrowds, DoubtFigures
from curate.stages.copies.find_candidates import FindCandidates
from curate.stages.copies.find_crowds import CROWD_SHARE, CrowdFigures, FindCrowds
from curate.stages.copies.judge_pairs import JudgeFigures, JudgePairs
from curate.stages.copies.keep_near import KeepNear
from curate.stages.copies.measure_crowds import MeasureCrowds, read_surroundings, usual_surroundings
from curate.tables import CATALOG, NEIGHBORS, PAIRS, REGISTERED, SURROUNDINGS, THRESHOLDS
from tests.engine.test_finished import opened
from tests.stages.copies.given_pairs import STRICT
from tests.stages.planted import PlantedCatalog, given_table, make

ROWS, MAX_PAIRS = 20, 6
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


def agreements(query: int, image_id: int) -> tuple[float, float, int]:
    """How well the pictures of a pair agree: those of the crowd somewhat, its copy nearly wholly."""
    if (query, image_id) == COPY:
        return 0.97, 0.95, 60
    least = float(np.random.default_rng([query, image_id]).uniform(0.4, 0.55))
    return least + 0.2, least, 12


class GivenAgreements(Map):
    """What `RegisterPairs` would find."""

    inputs: ClassVar[dict[str, Input]] = {"candidates": each(PAIRS)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return REGISTERED

    def run(self, part: int, *, candidates: pa.Table) -> Batches:
        names = REGISTERED.names[len(PAIRS) :]
        rows = [
            row | dict(zip(names, agreements(row["query_id"], row["image_id"]), strict=True))
            for row in candidates.to_pylist()
        ]
        yield from pa.Table.from_pylist(rows, schema=REGISTERED).to_batches()


def declare(root: Path) -> Pipeline:
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool", "heldout"), rows=ROWS))
    found = p.add("near", GivenEdges(edges=tuple(near())), catalog=catalog)
    hashes = p.add("pdq", GivenEdges(edges=tuple(hashed())), catalog=catalog)
    crowds = p.add("crowds", FindCrowds(alike_share=1), catalog=catalog, near=[found], strong=[hashes])
    given = {"neighbors": found, "crowds": crowds, "catalog": catalog}
    p.add("sure", KeepNear(**STRICT), **given)
    offered = p.add("pairs", FindCandidates(crowd_pairs=MAX_PAIRS, max_pairs=1, **STRICT), **given)
    registered = p.add("registered", GivenAgreements(), candidates=offered)
    around = p.add("around", MeasureCrowds(), registered=registered, crowds=crowds, catalog=catalog)
    judging = {"registered": registered, "crowds": crowds, "surroundings": around, "catalog": catalog}
    p.add("judged", JudgePairs(), **judging)
    p.add("trusted", DoubtCrowds(), neighbors=hashes, crowds=crowds, catalog=catalog)
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
    sure, tried = ends(rows_of(made, "sure")), ends(rows_of(made, "pairs"))
    doubtful = {pair for pair in tried if pair[0] in OTHERS}
    assert sure == {pair for pair, similarity in outside.items() if similarity >= np.float32(0.9)}
    assert sure | doubtful == set(outside)
    assert not sure & doubtful
    assert doubtful


def test_an_image_in_a_crowd_offers_its_most_similar_pairs_however_near_and_no_more(made: Pipeline) -> None:
    offered = ends(rows_of(made, "pairs"))
    for one in [*ALIKE, image(2, 0)]:
        mine = sorted(((similarity, b) for a, b, similarity, _ in near() if a == one), reverse=True)
        assert {b for a, b in offered if a == one} == {b for _, b in mine[:MAX_PAIRS]}
    assert any(similarity >= 0.9 for a, b, similarity, _ in near() if (a, b) in offered and a in ALIKE)


def test_look_alikes_do_not_crowd_out_the_other_pairs_of_an_image(tmp_path: Path) -> None:
    """An image outside of the crowd resembles one of the others most, and two of the crowd more."""
    p = Pipeline(Store(tmp_path), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool", "heldout"), rows=ROWS))
    lone = image(2, 5)
    extra = [
        (lone, ALIKE[1], 0.84, "embedding"),
        (lone, ALIKE[2], 0.83, "embedding"),
        (lone, OTHERS[0], 0.8, "embedding"),
    ]
    found = p.add("near", GivenEdges(edges=tuple(near() + extra)), catalog=catalog)
    crowds = p.add("crowds", FindCrowds(alike_share=1), catalog=catalog, near=[found], strong=[])
    stage = FindCandidates(crowd_pairs=1, max_pairs=1, **STRICT)
    p.add("pairs", stage, neighbors=found, crowds=crowds, catalog=catalog)
    make(p)
    assert lone not in {row["image_id"] for row in rows_of(p, "crowds")}
    assert {pair for pair in ends(rows_of(p, "pairs")) if pair[0] == lone} == {(lone, ALIKE[1]), (lone, OTHERS[0])}


def test_surroundings_are_those_of_all_pairs_of_an_image(made: Pipeline) -> None:
    rows, crowd = rows_of(made, "registered"), {row["image_id"] for row in rows_of(made, "crowds")}
    both = [
        (row[name], row["least_agreement"]) for row in rows for name in ("query_id", "image_id") if row[name] in crowd
    ]
    ids, agreement = (np.array(column) for column in zip(*both, strict=True))
    expected = surroundings(ids, agreement.astype(np.float32), min_pairs=3)
    found = read_surroundings(made.store.table("around"))
    assert np.array_equal(found.image_ids, expected.image_ids)
    np.testing.assert_allclose(found.middle, expected.middle, rtol=1e-6)
    np.testing.assert_allclose(found.spread, expected.spread, rtol=1e-4, atol=1e-6)
    assert usual_surroundings(made.store.table("around")) == pytest.approx(usual(expected), rel=1e-5)


def test_with_too_few_pairs_nothing_is_usual(tmp_path: Path) -> None:
    figures = MeasureCrowds().summarize(given_table(tmp_path, "around", SURROUNDINGS, [[]]))
    assert figures.middle is None
    table = given_table(tmp_path, "told", SURROUNDINGS, [[]], figures=figures)
    assert usual_surroundings(table) == Usual(float("inf"), 0.0)


def test_only_the_copy_stands_out(made: Pipeline) -> None:
    rows = rows_of(made, "registered")
    crowd = {row["image_id"] for row in rows_of(made, "crowds")}
    known = read_surroundings(made.store.table("around"))
    query, other, least = (
        np.array([row[name] for row in rows]) for name in ("query_id", "image_id", "least_agreement")
    )
    height = standing_out(
        known, query, other, least.astype(np.float32), usual=usual_surroundings(made.store.table("around"))
    )
    kept = {(row["query_id"], row["image_id"]): row for row in rows_of(made, "judged")}
    outside = {(row["query_id"], row["image_id"]) for row in rows if not {row["query_id"], row["image_id"]} & crowd}
    assert kept.keys() == outside | {COPY}
    assert kept.keys() == {
        pair for pair, z in zip(zip(query.tolist(), other.tolist(), strict=True), height, strict=True) if z >= 6
    }
    score = registration_score(np.float32([0.97]), np.array([60]))[0]
    assert (kept[COPY]["kind"], kept[COPY]["similarity"]) == ("aligned", score)
    figures = JudgeFigures.of(made.store.table("judged"))
    assert (figures.tried, figures.counted) == (len(rows), len(kept))
    assert figures.crowded == figures.crowded_alike == len(rows) - len(outside) > 50
    assert figures.crowded_counted == 1


def test_hashes_count_where_they_are_near_enough(made: Pipeline) -> None:
    # The pair at the published distance counts, but not of the image whose hash is near to those of several others.
    strong = {(ALIKE[0], ALIKE[1]), (ALIKE[4], ALIKE[8]), (OTHERS[0], OTHERS[ROWS - CROWD])}
    assert ends(rows_of(made, "trusted")) == strong


def test_where_pairs_are_verified_near_hashes_alone_count_anywhere(tmp_path: Path) -> None:
    p = Pipeline(Store(tmp_path), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool", "heldout"), rows=ROWS))
    asked = [(image(2, 1), OTHERS[1], HASH_THRESHOLD, "hash")]
    hashes = p.add("pdq", GivenEdges(edges=tuple(hashed() + asked)), catalog=catalog)
    p.add("trusted", DoubtCrowds(threshold=STRONG_HASH), neighbors=hashes, catalog=catalog)
    make(p)
    expected = {(a, b) for a, b, similarity, _ in hashed() if similarity >= STRONG_HASH}
    assert ends(rows_of(p, "trusted")) == expected | {(image(2, 1), OTHERS[1])}
    assert DoubtFigures.of(p.store.table("trusted")).doubted == len(hashed()) - len(expected) > 0


def test_pairs_less_similar_than_images_that_look_alike_make_no_crowd(tmp_path: Path) -> None:
    p = Pipeline(Store(tmp_path), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool", "heldout"), rows=ROWS))
    found = p.add("near", GivenEdges(edges=tuple(near())), catalog=catalog)
    for name, alike in (("loose", 0.85), ("strict", 0.97)):
        p.add(name, FindCrowds(alike_share=1, alike=alike), catalog=catalog, near=[found], strong=[])
    make(p)
    assert len(rows_of(p, "loose")) == len(ALIKE) + 1
    met = {
        one: {b if a == one else a for a, b, x, _ in near() if x >= np.float32(0.97) and one in (a, b)} for one in ALIKE
    }
    strict = {row["image_id"] for row in rows_of(p, "strict")} - {image(2, 0)}
    assert strict <= {one for one, others in met.items() if len(others) >= 4}
    assert len(strict) < len(ALIKE)
    assert CrowdFigures.of(p.store.table("strict")).pairs < CrowdFigures.of(p.store.table("loose")).pairs


def test_what_looks_alike_is_measured_where_thresholds_are(tmp_path: Path) -> None:
    row = {"use": "alike", "threshold": 0.75, "precision": 1.0, "precision_low": 1.0, "recall": 1.0}
    found = FindCrowds().resolve(thresholds=given_table(tmp_path, "thresholds", THRESHOLDS, [[row]]))
    assert (found.alike, FindCrowds().resolve().alike) == (0.75, None)


def test_a_catalog_that_looks_alike_as_a_whole_doubts_every_pair(tmp_path: Path) -> None:
    p = Pipeline(Store(tmp_path), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool"), rows=ROWS))
    pairs = tuple(edge for edge in near() if edge[0] >> 32 < 2)
    found = p.add("near", GivenEdges(edges=pairs), catalog=catalog)
    crowds = p.add("crowds", FindCrowds(), catalog=catalog, near=[found], strong=[])
    p.add("trusted", DoubtCrowds(), neighbors=found, crowds=crowds, catalog=catalog)
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
    judge, judged = run.only(JudgePairs)
    *_, crowded = judge.show(judged, run)
    text, *blocks = crowded.blocks
    figures = JudgeFigures.of(judged)
    assert f"{figures.crowded} pairs of such images were laid over each other" in text.text
    assert f"{figures.crowded_alike} would be copies anywhere else; 1 of them stand out" in text.text
    assert len(blocks) > 3
    doubt, trusted = run.only(DoubtCrowds)
    assert "trusted: 4 pairs did not count" in next(iter(doubt.show(trusted, run))).blocks[0].text


def test_two_runs_give_equal_tables(made: Pipeline, tmp_path: Path) -> None:
    again = declare(tmp_path)
    make(again)
    for name in ("crowds", "pairs", "around", "judged", "trusted"):
        assert made.store.table(name).read_all().equals(again.store.table(name).read_all())


def test_costs_of_crowds_are_bounded_by_the_images_in_them() -> None:
    registered = Shape(pool=10_000, row_bytes=36)
    demand, made_of = MeasureCrowds().cost({"registered": registered}, Assumptions(images=1000))
    assert made_of.rows == 1000 * CROWD_SHARE
    assert demand.rows == 20_000
