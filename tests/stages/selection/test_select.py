"""Select part by part against dictionaries and sorts: routes, shares, caps, junk, contamination."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.engine.cost import PASS_ROWS, Assumptions, Shape
from curate.engine.executors import Executor, ExecutorConfig, InProcess, start_executor
from curate.engine.finished import Finished
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import FlowStep, Gallery, Numbers, Section, SortedBars, Text
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import ConfigError, TableError
from curate.ops.random_keys import nearest_keys, random_keys
from curate.ops.selection.sampling import balanced_targets, temperature_targets
from curate.stages.copies.contamination import FindContaminated
from curate.stages.selection.balance import Balance
from curate.stages.selection.cluster_sizes import cluster_sizes
from curate.stages.selection.mix import Mix
from curate.stages.selection.retrieve import Retrieve, RetrieveFigures
from curate.stages.selection.select import Select
from curate.stages.selection.selection_figures import ContaminationCount, JunkCount, SelectFigures
from curate.tables import (
    ASSIGNMENTS,
    CATALOG,
    CENTROIDS,
    CONTAMINATED,
    DECIDED,
    DUPLICATES,
    IMAGES,
    JUNK,
    NEIGHBORS,
    RETRIEVED,
    centroids_schema,
)
from tests.stages.planted import PlantedCatalog, given_catalog, given_table, opened

Rows = list[dict[str, Any]]
SOURCES = [("web", "pool"), ("pets", "curated"), ("bench", "heldout"), ("web", "pool"), ("birds", "curated")]
ROWS, SEED = 50, 3
PARENTS = [0, 0, 0, 1, 1, 1]
"""Of six leaves; the seventh image of every part is rejected, the fifth of every pool part a duplicate."""
INPUTS = {
    "catalog": CATALOG,
    "images": IMAGES,
    "duplicates": DUPLICATES,
    "contaminated": CONTAMINATED,
    "retrieved": RETRIEVED,
    "assignments": ASSIGNMENTS,
    "centroids": CENTROIDS,
    "junk": JUNK,
    "decided": DECIDED,
}
CLUSTERED = ("assignments", "centroids")


def role(image_id: int) -> str:
    return SOURCES[image_id >> 32][1]


def plant(root: Path, *, edges: Rows | None = None) -> dict[str, list[Any]]:
    """Every table that Select reads; returned by name as rows."""
    rng = np.random.default_rng(1)
    ids = [[part << 32 | row for row in range(ROWS)] for part in range(len(SOURCES))]
    images = [
        [{"image_id": i, "reject": "corrupt" if i % ROWS == 6 else None, "sha256": (i + 1).to_bytes(32)} for i in part]
        for part in ids
    ]
    accepted = [[row["image_id"] for row in part if row["reject"] is None] for part in images]
    verdicts = [
        [
            {"image_id": i, "component_id": i, "verdict": "duplicate" if i & 0xFFFFFFFF == 4 else "kept"}
            for i in part
            if role(i) == "pool"
        ]
        for part in accepted
    ]
    left = [[row["image_id"] for row in part if row["verdict"] == "kept"] for part in verdicts]
    clustered = [left[part] if SOURCES[part][1] == "pool" else accepted[part] for part in range(len(SOURCES))]
    clustered[2] = []
    leaves = [
        [
            {"image_id": i, "cluster_id": int(rng.integers(0, 36) ** 0.5), "similarity": round(rng.random(), 1)}
            for i in part
        ]
        for part in clustered
    ]
    pool = [i for part in left for i in part]
    retrieved = [
        {"query_id": int(rng.choice(accepted[1])), "image_id": int(i), "similarity": round(rng.random(), 2)}
        | {"origin": "sample" if rng.random() < 0.5 else "cluster", "set": "pets"}
        for i in sorted(rng.choice(pool, 40))
    ]
    retrieved.sort(key=lambda r: (r["image_id"], -r["similarity"]))
    junk = [
        [{"image_id": r["image_id"], "density": 0.5, "coherence": 0.5, "junk": r["cluster_id"] == 5} for r in part]
        if SOURCES[number][1] == "pool"
        else []
        for number, part in enumerate(leaves)
    ]
    tree = [{"level": 0, "cluster_id": k, "parent_id": PARENTS[k], "centroid": b"0000"} for k in range(6)]
    tree += [{"level": 1, "cluster_id": k, "parent_id": None, "centroid": b"0000"} for k in range(2)]
    given_catalog(root, [(name, kind, ROWS) for name, kind in SOURCES])
    given_table(root, "images", IMAGES, images)
    given_table(root, "duplicates", DUPLICATES, verdicts)
    given_table(root, "neighbors", NEIGHBORS, [edges or []])
    by_part = [[r for r in retrieved if r["image_id"] >> 32 == part] for part in range(len(SOURCES))]
    told = RetrieveFigures(unique=len({r["image_id"] for r in retrieved}), sets={})
    given_table(root, "retrieved", RETRIEVED, by_part, figures=told)
    given_table(root, "assignments", ASSIGNMENTS, leaves)
    given_table(root, "centroids", centroids_schema(1, model="m", weights=""), [[r | {"num_images": 1} for r in tree]])
    given_table(root, "junk", JUNK, junk)
    names = {"accepted": accepted, "left": left, "leaves": leaves, "junk": junk}
    found = {name: [row for part in parts for row in part] for name, parts in names.items()}
    return found | {"retrieved": retrieved}


def select(root: Path, stage: Select, *optional: str, executor: Executor | None = None) -> Rows:
    """The rows of `selection`, made from the planted tables."""
    p = Pipeline(Store(root), seed=SEED)
    given = {name: Ref(name, schema) for name, schema in INPUTS.items()}
    given["centroids"] = Ref("centroids", centroids_schema(1, model="m", weights=""))
    wanted = {"catalog", "images", "duplicates", "contaminated", *optional}
    contaminated = p.add(
        "contaminated", FindContaminated(), neighbors=[Ref("neighbors", NEIGHBORS)], catalog=given["catalog"]
    )
    given["contaminated"] = contaminated
    p.add("selection", stage, **{name: ref for name, ref in given.items() if name in wanted})
    p.run(executor or InProcess(1), Flags(rebuild=frozenset({"all"})))
    table = p.store.table("selection")
    for part in table.parts():
        ids = table.read(part.number)["image_id"].to_numpy()
        assert (ids >> 32 == part.number).all()
        assert (np.diff(ids) > 0).all()
    return table.read_all().to_pylist()


def figures(root: Path) -> SelectFigures:
    return SelectFigures.of(Store(root).table("selection"))


def told(root: Path, stage: Select) -> tuple[Table, Finished]:
    """The selection, and the run as the report sees it."""
    stages = {"catalog": PlantedCatalog(), "retrieved": Retrieve(), "selection": stage}
    return Store(root).table("selection"), opened(root, stages)


def sections(root: Path, stage: Select) -> dict[str, Section]:
    return {section.title: section for section in stage.show(*told(root, stage))}


def draw(ids: list[int], count: int, keys: dict[int, int]) -> Counter[int]:
    """How often each of `ids` is drawn: round and round in the order of their keys."""
    order = sorted(ids, key=keys.__getitem__)
    return Counter(order[turn % len(order)] for turn in range(count))


def draw_leaves(rows: Rows, draws: np.ndarray, keys: dict[int, int]) -> Counter[int]:
    found: Counter[int] = Counter()
    for leaf, count in enumerate(draws.tolist()):
        found += draw([r["image_id"] for r in rows if r["cluster_id"] == leaf], count, keys)
    return found


def keys_of(ids: list[int], purpose: str) -> dict[int, int]:
    return dict(zip(ids, random_keys(np.array(ids), seed=SEED, purpose=purpose).tolist(), strict=True))


def sizes_of(rows: Rows) -> np.ndarray:
    return np.bincount([r["cluster_id"] for r in rows], minlength=6)


def pool_leaves(planted: dict[str, list[Any]]) -> Rows:
    return [r for r in planted["leaves"] if role(r["image_id"]) == "pool"]


@pytest.mark.parametrize(
    ("include", "parts"),
    [(True, {0, 1, 3, 4}), (False, {0, 3}), (("birds",), {0, 3, 4}), (("birds", "pets"), {0, 1, 3, 4})],
)
def test_curated_sources_enter_all_none_or_by_name(include: Any, parts: set[int], tmp_path: Path) -> None:
    planted = plant(tmp_path)
    rows = select(tmp_path, Select(include_curated=include))
    pool = set(planted["left"])
    wanted = {i for i in planted["accepted"] if i >> 32 in parts and (role(i) == "curated" or i in pool)}
    assert {row["image_id"] for row in rows} == wanted
    for row in rows:
        name = SOURCES[row["image_id"] >> 32][0]
        kept = {"route": "kept", "set": None, "query_id": None}
        expected = kept if name == "web" else {"route": "curated", "set": name, "query_id": None}
        assert (row["origins"], row["repeats"], row["clusters"]) == ([expected], 1, [])


@pytest.mark.parametrize("max_bytes", [1, 1 << 30])
@pytest.mark.parametrize("order", ["random", "closest"])
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_balance_and_retrieval_unite_as_by_dictionaries(max_bytes: int, order: Any, alpha: Any, tmp_path: Path) -> None:
    planted = plant(tmp_path)
    pool = pool_leaves(planted)
    balance = Balance(target=130, max_repeats=2, order=order, alpha=alpha)
    rows = select(tmp_path, Select(balance=balance, max_bytes=max_bytes), "retrieved", *CLUSTERED)
    ids = [r["image_id"] for r in pool]
    keys = keys_of(ids, "balance")
    if order == "closest":
        close = np.array([r["similarity"] for r in pool], np.float32)
        keys = dict(zip(ids, nearest_keys(close, np.array(ids), seed=SEED, purpose="balance").tolist(), strict=True))
    tree = [np.array(PARENTS)]
    draws = balanced_targets(sizes_of(pool) * 2, tree, 130)
    if alpha is not None:
        draws = temperature_targets(sizes_of(pool), alpha, 130, max_repeats=2)
    drawn = draw_leaves(pool, draws, keys)
    assert sum(drawn.values()) == 130
    retrieved = {r["image_id"] for r in planted["retrieved"]}
    found = {row["image_id"]: row for row in rows if role(row["image_id"]) == "pool"}
    assert found.keys() == drawn.keys() | retrieved
    leaf = {r["image_id"]: r["cluster_id"] for r in pool}
    for i, row in found.items():
        assert row["repeats"] == max(1, drawn[i])
        assert row["clusters"] == [PARENTS[leaf[i]], leaf[i]]
        asked = [(r["origin"], r["set"], r["query_id"]) for r in planted["retrieved"] if r["image_id"] == i]
        expected = asked + [("balance", None, None)] * (i in drawn)
        assert [(o["route"], o["set"], o["query_id"]) for o in row["origins"]] == expected


def test_cap_keeps_the_first_of_each_leaf_over_all_routes(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    rows = select(tmp_path, Select(balance=Balance(target=60), cap=7), "retrieved", *CLUSTERED)
    capped = {r["image_id"] for r in rows if role(r["image_id"]) == "pool"}
    rows = select(tmp_path, Select(balance=Balance(target=60)), "retrieved", *CLUSTERED)
    union = {r["image_id"] for r in rows if role(r["image_id"]) == "pool"}
    inside = [r for r in pool_leaves(planted) if r["image_id"] in union]
    draws = np.minimum(sizes_of(inside), 7)
    assert draws.sum() < len(union)
    assert capped == draw_leaves(inside, draws, keys_of(sorted(union), "cap")).keys()


@pytest.mark.parametrize("max_bytes", [1, 1 << 30])
def test_mix_shows_exactly_its_shares_and_no_image_counts_twice(max_bytes: int, tmp_path: Path) -> None:
    planted = plant(tmp_path)
    mix = Mix(routes={"retrieval": 3, "balance": 5, "curated": 2}, total=101, max_repeats=3)
    rows = select(tmp_path, Select(mix=mix, max_bytes=max_bytes), "retrieved", *CLUSTERED)
    shown = Counter[str]()
    for row in rows:
        first = row["origins"][0]["route"]
        shown["retrieval" if first in ("sample", "cluster") else first] += row["repeats"]
        assert len({o["route"] in ("sample", "cluster") for o in row["origins"]}) == 1
    assert shown == {"retrieval": 30, "balance": 51, "curated": 20}
    retrieved = sorted({r["image_id"] for r in planted["retrieved"]})
    taken = draw(retrieved, 30, keys_of(retrieved, "retrieval"))
    pool = [r for r in pool_leaves(planted) if r["image_id"] not in taken]
    even = draw_leaves(
        pool,
        balanced_targets(sizes_of(pool) * 3, [np.array(PARENTS)], 51),
        keys_of([r["image_id"] for r in pool], "balance"),
    )
    curated = sorted(i for i in planted["accepted"] if role(i) == "curated")
    trusted = draw(curated, 20, keys_of(curated, "curated"))
    assert {row["image_id"]: row["repeats"] for row in rows} == taken + even + trusted
    assert {name: share.shown for name, share in figures(tmp_path).shares.items()} == shown
    assert figures(tmp_path).shown == 101


def test_dask_and_in_process_select_equal_tables(tmp_path: Path) -> None:
    mix = Mix(routes={"retrieval": 3, "balance": 5, "curated": 2}, total=101, max_repeats=3)
    stages = [Select(mix=mix), Select(balance=Balance(target=60, alpha=0.3, order="closest"), cap=9)]
    found: list[list[Any]] = []
    for name, config in (("here", None), ("there", ExecutorConfig(kind="local", workers=2, threads=1))):
        root = tmp_path / name
        plant(root)
        with start_executor(config or ExecutorConfig(threads=1)) as executor:
            found.append([])
            for stage in stages:
                rows = select(root, stage, "retrieved", "junk", *CLUSTERED, executor=executor)
                contents = [part.content for part in Store(root).table("selection").parts()]
                found[-1].append((rows, contents, figures(root)))
    assert found[0] == found[1]


KEPT = [1, 3 << 32 | 2]
"""Pool images that a person keeps."""


def decide(root: Path) -> None:
    """Keep some pool images and a curated one, drop two curated ones and one of the pool."""
    said = [*((i, "keep") for i in [*KEPT, 1 << 32 | 3]), *((i, "drop") for i in (7, 1 << 32 | 1, 4 << 32 | 2))]
    given_table(root, "decided", DECIDED, [[{"image_id": i, "decision": what} for i, what in sorted(said)]])


@pytest.mark.parametrize(
    ("stage", "optional"),
    [
        (Select(), ()),
        (Select(), ("retrieved",)),
        (Select(balance=Balance(target=20)), ("junk", *CLUSTERED)),
        (Select(cap=1), ("retrieved", *CLUSTERED)),
        (Select(mix=Mix(routes={"retrieval": 0.5, "curated": 0.5}, total=20)), ("retrieved", *CLUSTERED)),
    ],
)
def test_what_a_person_keeps_is_added_and_curated_images_that_he_drops_are_not(
    stage: Select, optional: tuple[str, ...], tmp_path: Path
) -> None:
    plant(tmp_path)
    decide(tmp_path)
    before = {row["image_id"]: row for row in select(tmp_path, stage, *optional)}
    after = {row["image_id"]: row for row in select(tmp_path, stage, *optional, "decided")}
    routes = {i: [origin["route"] for origin in row["origins"]] for i, row in after.items()}
    assert {i for i, found in routes.items() if "decision" in found} == set(KEPT)
    assert all(after[i]["repeats"] >= 1 for i in KEPT)
    assert not {1 << 32 | 1, 4 << 32 | 2} & after.keys()
    if stage.mix is None and stage.cap is None:  # where others may take the places of these
        gone = {1 << 32 | 1, 4 << 32 | 2}
        assert after.keys() == (before.keys() - gone) | set(KEPT)
        assert all(after[i] == row for i, row in before.items() if i not in gone | set(KEPT))


def test_images_that_a_person_keeps_though_like_heldout_ones_are_counted_apart(tmp_path: Path) -> None:
    heldout = 2 << 32
    pairs = [(heldout, KEPT[0]), (heldout, 2), (heldout, 1 << 32 | 3), (heldout, 1 << 32 | 4)]
    plant(tmp_path, edges=[{"query_id": q, "image_id": i, "similarity": 0.9, "kind": "hash"} for q, i in pairs])
    decide(tmp_path)
    stage = Select(drop_contaminated=True)
    chosen = {row["image_id"] for row in select(tmp_path, stage, "decided")}
    assert (1 << 32 | 3 in chosen, 1 << 32 | 4 in chosen) == (True, False), "curated ones, too"
    found = figures(tmp_path).contaminated
    assert (found.pool, found.curated, found.by_decision) == (1, 1, 1)
    assert any(
        line.endswith("though like a held-out one: 1 selected image") for _, line in stage.facts(*told(tmp_path, stage))
    )


def test_small_routes_repeat_to_meet_their_share(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    unique = len({r["image_id"] for r in planted["retrieved"]})
    mix = Mix(routes={"retrieval": 2 * unique + 3, "balance": 10}, max_repeats=3)
    rows = select(tmp_path, Select(mix=mix), "retrieved", *CLUSTERED)
    repeats = Counter(row["repeats"] for row in rows if row["origins"][0]["route"] != "balance")
    assert repeats == {2: unique - 3, 3: 3}
    assert {role(row["image_id"]) for row in rows} == {"pool"}  # no share for curated images


def test_routes_left_out_of_a_mix_give_nothing(tmp_path: Path) -> None:
    plant(tmp_path)
    rows = select(tmp_path, Select(balance=Balance(), mix=Mix(routes={"curated": 30})), "retrieved", *CLUSTERED)
    assert {o["route"] for row in rows for o in row["origins"]} == {"curated"}
    assert len(rows) == 30


def test_images_of_no_cluster_are_not_capped(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    alone = [i for i in planted["left"] if i >> 32 == 0][:5]
    rest = [[r for r in planted["leaves"] if r["image_id"] >> 32 == part] for part in range(len(SOURCES))]
    rest[0] = [r for r in rest[0] if r["image_id"] not in alone]
    given_table(tmp_path, "assignments", ASSIGNMENTS, rest)
    rows = select(tmp_path, Select(cap=1, include_curated=False), *CLUSTERED)
    assert {r["image_id"] for r in rows if not r["clusters"]} == set(alone)
    leaves = {r["cluster_id"] for part in (0, 3) for r in rest[part]}
    assert len(rows) == len(alone) + len(leaves)


def test_share_larger_than_its_route_says_what_would_do(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    unique = len({r["image_id"] for r in planted["retrieved"]})
    message = rf"routes.retrieval: 500 images are wanted, the route holds {unique}, .* at most {2 * unique}; ask for"
    with pytest.raises(ConfigError, match=message):
        select(tmp_path, Select(mix=Mix(routes={"retrieval": 500}, max_repeats=2)), "retrieved", *CLUSTERED)
    with pytest.raises(ConfigError, match=r"routes.balance: 500 images are wanted"):
        select(tmp_path, Select(mix=Mix(routes={"balance": 500})), *CLUSTERED)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Select(mix=Mix(routes={"balance": 0})), "every share is 0"),
        (Select(mix=Mix(routes={"balance": 0.5})), "are no whole sizes"),
        (Select(mix=Mix(routes={"retrieval": 1})), "this recipe retrieves nothing"),
        (Select(mix=Mix(routes={"balance": 1}), cap=1), "cap and mix exclude each other"),
        (Select(mix=Mix(routes={"balance": 1}), balance=Balance(target=1)), "leave out target"),
        (Select(mix=Mix(routes={"curated": 1}), include_curated=False), "include_curated is false"),
    ],
)
def test_mixes_that_cannot_be_are_refused_before_any_compute(stage: Select, message: str, tmp_path: Path) -> None:
    given = {name: INPUTS[name] for name in CLUSTERED} | {"retrieved": None}
    with pytest.raises(ConfigError, match=message):
        stage.output_schema(**given)
    with pytest.raises(ConfigError, match=r"mix.routes.balance: needs clusters; this recipe makes none"):
        Select(mix=Mix(routes={"balance": 1})).output_schema(assignments=None, retrieved=None)


def test_junk_is_left_out_of_the_balance_alone(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    stage = Select(balance=Balance(target="auto"))
    rows = select(tmp_path, stage, "retrieved", "junk", *CLUSTERED)
    junk = {r["image_id"] for r in planted["junk"] if r["junk"]}
    retrieved = {r["image_id"] for r in planted["retrieved"]}
    chosen = {r["image_id"] for r in rows if any(o["route"] == "balance" for o in r["origins"])}
    clean = len(pool_leaves(planted)) - len(junk)
    assert not chosen & junk
    assert len(chosen) == clean * 3 // 4
    assert {r["image_id"] for r in rows} >= retrieved
    assert junk & retrieved
    assert figures(tmp_path).junk == JunkCount(found=len(junk), selected=len(junk & retrieved))
    with pytest.raises(
        ConfigError, match=rf"^target={clean + 1}: {clean} pool images are left beside {len(junk)} that"
    ):
        select(tmp_path, Select(balance=Balance(target=clean + 1)), "junk", *CLUSTERED)


def test_junk_of_other_images_is_an_error(tmp_path: Path) -> None:
    plant(tmp_path)
    given_table(tmp_path, "junk", JUNK, [[], [], [], [], []])
    with pytest.raises(TableError, match=r"junk part 0: 0 images, assignments have \d+ or others"):
        select(tmp_path, Select(balance=Balance(target=10)), "junk", *CLUSTERED)


HELDOUT_IMAGE = 2 << 32 | 9


def edge(query: int, image: int, similarity: float = 0.9, *, kind: str = "embedding") -> dict[str, Any]:
    return {"query_id": query, "image_id": image, "similarity": similarity, "kind": kind}


def test_selected_images_that_touch_held_out_ones_are_counted_by_role_and_route(tmp_path: Path) -> None:
    direct, twin, other = 1 << 32 | 1, 1 << 32 | 2, 1 << 32 | 3
    in_pool, with_bytes = 0 << 32 | 11, 4 << 32 | 5
    edges = [edge(HELDOUT_IMAGE, direct), edge(twin, direct, 1.0), edge(other, direct)]
    edges += [edge(HELDOUT_IMAGE, in_pool), edge(in_pool, 3 << 32 | 2, 1.0)]
    edges += [edge(HELDOUT_IMAGE, with_bytes, 1.0, kind="sha256")]
    plant(tmp_path, edges=edges)
    select(tmp_path, Select())
    found = figures(tmp_path).contaminated
    assert found == ContaminationCount(pool=2, curated=3, routes={"curated": 3, "kept": 2})
    said = list(Select().warn(*told(tmp_path, Select())))
    assert "2 selected pool images resemble held-out ones (by route, curated images included: curated 3" in said[0]
    assert said[1].startswith("3 curated images of this run resemble held-out images as closely as contamination")


def test_contaminated_curated_images_are_dropped_where_asked(tmp_path: Path) -> None:
    direct, with_bytes = 1 << 32 | 1, 4 << 32 | 5
    edges = [edge(HELDOUT_IMAGE, direct), edge(HELDOUT_IMAGE, with_bytes, 1.0, kind="sha256")]
    planted = plant(tmp_path, edges=edges)
    rows = select(tmp_path, Select(drop_contaminated=True))
    curated = {i for i in planted["accepted"] if role(i) == "curated"}
    assert {r["image_id"] for r in rows if role(r["image_id"]) == "curated"} == curated - {direct, with_bytes}
    assert figures(tmp_path).contaminated == ContaminationCount(pool=0, curated=0, routes={})
    assert list(Select().warn(*told(tmp_path, Select()))) == []


def test_unknown_curated_source_is_an_error(tmp_path: Path) -> None:
    plant(tmp_path)
    message = r"^include_curated: 'cats' is no curated source; they are \['birds', 'pets'\]"
    with pytest.raises(ConfigError, match=message):
        select(tmp_path, Select(include_curated=("pets", "cats")))


def test_cap_larger_than_the_pool_names_the_largest_valid_one(tmp_path: Path) -> None:
    left = len(pool_leaves(plant(tmp_path)))
    select(tmp_path, Select(cap=left), *CLUSTERED)
    for balance in (None, Balance()):
        with pytest.raises(ConfigError, match=rf"^cap={left + 1}: {left} pool images are left; set it to"):
            select(tmp_path, Select(cap=left + 1, balance=balance), *CLUSTERED)


def test_funnel_tells_retrieval_apart_where_it_decides_who_stays(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    kept, unique = len(planted["left"]), len({r["image_id"] for r in planted["retrieved"]})
    select(tmp_path, Select(), "retrieved")
    retrieved, selected = Select().flow(*told(tmp_path, Select()), None)
    drops, why = (("resemble no curated image", kept - unique),), "as unlike the curated images"
    assert retrieved == FlowStep("like curated images", unique, drops=drops, kept_out=why)
    assert (selected.name, selected.pool, selected.curated) == ("selected", unique, 98)
    stage = Select(balance=Balance(target=20))
    select(tmp_path, stage, "retrieved", *CLUSTERED)
    (selected,) = stage.flow(*told(tmp_path, stage), None)
    assert selected.drops == (("chosen by no route, or above a cap", kept - selected.pool),)
    assert "balance 20" in selected.note
    assert stage.headline(*told(tmp_path, stage)) == f"{selected.pool + 98} selected"


def test_report_shows_the_shares_of_an_epoch_and_what_was_checked_again(tmp_path: Path) -> None:
    plant(tmp_path)
    mix = Mix(routes={"retrieval": 3, "balance": 5, "curated": 2}, total=50)
    select(tmp_path, Select(mix=mix), "retrieved", "junk", *CLUSTERED)
    section = sections(tmp_path, Select(mix=mix))["What the selection is made of"]
    assert section.first
    numbers, text = section.blocks
    assert isinstance(numbers, Numbers)
    assert [row[:4] for row in numbers.rows] == [
        ("balance: even sample over the clusters", 25, 25, "50.0 %"),
        ("curated: curated sets", 10, 10, "20.0 %"),
        ("retrieval: resemble the curated sets", 15, 15, "30.0 %"),
    ]
    assert isinstance(text, Text)
    assert "0 selected pool images and 0 selected curated images resemble a held-out image" in text.text
    junk = figures(tmp_path).junk
    assert f"{junk.found} images left out as junk before balancing, {junk.selected} of them" in text.text


def test_report_shows_what_was_selected_and_what_was_passed_over(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    rows = select(tmp_path, Select(balance=Balance(target=60)), "retrieved", *CLUSTERED)
    chosen = {row["image_id"] for row in rows}
    found = sections(tmp_path, Select(balance=Balance(target=60)))
    _, gallery = found["Selected"].blocks
    assert isinstance(gallery, Gallery)
    shown = {picture.image_id for picture in gallery.pictures}
    assert shown == {i for i in chosen if role(i) == "pool"}
    assert gallery.more == 0
    heading, _, gallery = found["Kept out"].blocks
    assert heading.text == f"not selected: {len(set(planted['left']) - chosen)} images"
    assert {picture.image_id for picture in gallery.pictures} <= set(planted["left"]) - chosen


def test_cluster_sizes_count_pool_images_only(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    rows = select(tmp_path, Select(balance=Balance(target=40)), *CLUSTERED)
    table, run = told(tmp_path, Select())
    sizes = cluster_sizes(run, run.store.table("assignments"), table)
    assert sizes.before.tolist() == sizes_of(pool_leaves(planted)).tolist()
    chosen = {row["image_id"] for row in rows}
    assert sizes.after.tolist() == sizes_of([r for r in pool_leaves(planted) if r["image_id"] in chosen]).tolist()
    bars, numbers, _ = sections(tmp_path, Select())["Cluster sizes before and after"].blocks
    assert isinstance(bars, SortedBars)
    assert bars.bars.values.sum() == pytest.approx(100)
    assert [row[1] for row in numbers.rows] == [len(planted["left"]), 40]


def test_an_image_is_told_its_routes_or_that_it_was_left_out(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    stage = Select(mix=Mix(routes={"retrieval": 60}, max_repeats=3))
    rows = select(tmp_path, stage, "retrieved", *CLUSTERED)
    table, run = told(tmp_path, stage)
    row = next(row for row in rows if row["repeats"] == 2)
    path = " > ".join(map(str, row["clusters"]))
    (line,) = stage.explain(run.place(row["image_id"]), table, run)
    assert line.startswith("yes, by ")
    assert line.endswith(f"(pets); cluster path {path}, shown 2 times an epoch")
    passed_over = next(iter(set(planted["left"]) - {row["image_id"] for row in rows}))
    assert list(stage.explain(run.place(passed_over), table, run)) == ["no"]
    (line,) = stage.explain(run.place(2 << 32 | 3), table, run)
    assert line == "no: held-out images never are"


def test_cost_follows_what_the_settings_ask_for() -> None:
    given = Assumptions(images=1000, curated=100, kept=0.5)
    read = {name: Shape(1000) for name in ("catalog", "images", "contaminated")} | {
        "duplicates": Shape(1000, row_bytes=8)
    }
    plain = read | {"assignments": None, "retrieved": None}
    leaves = read | {"assignments": Shape(600), "retrieved": Shape(50)}
    assert Select().cost(plain, given)[1].rows == 600
    assert Select().cost(leaves, given)[1].rows == 150
    assert Select(balance=Balance(target=70)).cost(leaves, given)[1].rows == 70
    assert Select(mix=Mix(routes={"balance": 1}, total=80)).cost(leaves, given)[1].rows == 80
    assert Select().cost(leaves, given.model_copy(update={"selected": 9}))[1].rows == 9
    whole, drawn = (stage.cost(leaves, given)[0] for stage in (Select(), Select(balance=Balance())))
    assert (whole.rows, whole.serial_rows, whole.memory) == (600, 0, 0)
    assert (drawn.rows, drawn.memory) == (600, Select().max_bytes)
    assert drawn.serial_rows == pytest.approx(2 * PASS_ROWS * 600)
