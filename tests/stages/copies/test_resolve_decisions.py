"""ResolveDecisions: which images lines mean, what is told of lines, and how its table is applied."""

import hashlib
from pathlib import Path
from typing import Any

import fsspec
import pytest

from curate.decisions import Decision, append_decisions
from curate.engine.cost import Assumptions, Demand, Shape
from curate.engine.demands import around
from curate.engine.executors import ExecutorConfig, InProcess, start_executor
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import ConfigError
from curate.recipe import load_config
from curate.stages.copies.contamination import FindContaminated
from curate.stages.copies.deduplicate import Deduplicate, DeduplicateFigures
from curate.stages.copies.exact import FindExact
from curate.stages.copies.resolve_decisions import MAX_PAIRS, DecisionFigures, DecisionTally, ResolveDecisions
from curate.tables import CATALOG, IMAGES, JUDGED, NEIGHBORS
from tests.engine.test_pipeline import contents
from tests.stages.planted import given_table

SOURCES = [
    ("web", "pool", ["0.tar/a.jpg", "0.tar/b.jpg", "1.tar/a.jpg", "1.tar/x.jpg", "c.jpg"]),
    ("own", "pool", ["a.jpg", "b.jpg", "c.jpg", "broken.jpg"]),
    ("pets", "curated", ["cat.jpg", "dog.jpg"]),
    ("bench", "heldout", ["h.jpg", "c.jpg"]),
]
EQUAL = {"web/c.jpg": 1, "own/c.jpg": 1, "bench/c.jpg": 2, "web/0.tar/b.jpg": 3, "own/b.jpg": 3}
"""Images of equal bytes; the others have bytes of their own."""


def digest(name: str) -> bytes:
    return EQUAL[name].to_bytes(32, "big") if name in EQUAL else name.encode().rjust(32, b".")


NAMES = {(part << 32) | row: f"{s}/{key}" for part, (s, _, keys) in enumerate(SOURCES) for row, key in enumerate(keys)}
IDS = {name: image for image, name in NAMES.items()}
PAIRS = [
    ("web/0.tar/a.jpg", "web/1.tar/a.jpg", 0.9),
    ("web/1.tar/a.jpg", "own/a.jpg", 0.8),
    ("web/c.jpg", "bench/h.jpg", 0.7),
    ("own/b.jpg", "pets/cat.jpg", 0.9),
]


def declare(root: Path, *lines: Decision, applied: bool = False) -> Pipeline:
    catalog, images = [], []
    for part, (source, role, keys) in enumerate(SOURCES):
        ids = [part << 32 | row for row in range(len(keys))]
        places = [f"/{source}/{key.split('.tar')[0] + '.tar' if '.tar' in key else key}" for key in keys]
        about = {"source": source, "role": role}
        catalog.append([about | {"image_id": i, "uri": u, "key": k} for i, u, k in zip(ids, places, keys, strict=True)])
        images.append(
            [
                {"image_id": i, "sha256": digest(NAMES[i]), "width": 10, "height": 10}
                | {"reject": "corrupt" if "broken" in NAMES[i] else None}
                for i in ids
            ]
        )
    figures = CatalogFigures.of_parts((source, role, len(keys)) for source, role, keys in SOURCES)
    given_table(root, "catalog", CATALOG, catalog, figures=figures)
    given_table(root, "images", IMAGES, images)
    pairs = [
        {"query_id": IDS[a], "image_id": IDS[b], "similarity": cosine, "kind": "embedding"} for a, b, cosine in PAIRS
    ]
    given_table(root, "neighbors", NEIGHBORS, [pairs])
    p = Pipeline(Store(root), seed=0)
    given: dict[str, Any] = {"catalog": Ref("catalog", CATALOG), "images": Ref("images", IMAGES)}
    exact = p.add("exact", FindExact(), **given)
    decided = p.add("decided", ResolveDecisions(given=lines), exact=exact, **given)
    if not applied:
        return p
    judged = {"neighbors": [Ref("neighbors", NEIGHBORS), exact], "catalog": given["catalog"], "decided": decided}
    contaminated = p.add("contaminated", FindContaminated(), **judged)
    p.add("duplicates", Deduplicate(), images=given["images"], contaminated=contaminated, **judged)
    return p


def resolve(root: Path, *lines: Decision) -> tuple[set[Any], DecisionTally]:
    """What the table says, by names, and what is told of the lines."""
    p = declare(root, *lines)
    p.run(InProcess(1), Flags())
    table = p.store.table("decided")
    rows = [(r["image_id"], -1 if r["other_id"] is None else r["other_id"]) for r in table.read_all().to_pylist()]
    assert rows == sorted(rows)
    said = {
        (NAMES[r["image_id"]], r["decision"], *([NAMES[r["other_id"]]] if r["other_id"] is not None else []))
        for r in table.read_all().to_pylist()
    }
    return said, DecisionFigures.of(table).found


def verdicts(table: Table) -> dict[str, str]:
    return {NAMES[row["image_id"]]: row["verdict"] for row in table.read_all(["image_id", "verdict"]).to_pylist()}


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (Decision("own/a.jpg", "keep"), {("own/a.jpg", "keep")}),
        (Decision("0.tar/a.jpg", "drop"), {("web/0.tar/a.jpg", "drop")}),
        (Decision("/web/0.tar", "drop"), {("web/0.tar/a.jpg", "drop"), ("web/0.tar/b.jpg", "drop")}),
        (Decision(digest("web/c.jpg").hex(), "drop"), {("web/c.jpg", "drop"), ("own/c.jpg", "drop")}),
        (Decision(digest("own/c.jpg").hex().upper(), "keep"), {("web/c.jpg", "keep")}),
        (Decision("own/c.jpg", "represent"), {("own/c.jpg", "represent")}),
        (Decision("own/c.jpg", "not-copies"), {("own/c.jpg", "not-copies"), ("web/c.jpg", "not-copies")}),
        (
            Decision("bench/h.jpg", "not-copies", "own/c.jpg"),
            {("web/c.jpg", "not-copies", "bench/h.jpg"), ("own/c.jpg", "not-copies", "bench/h.jpg")},
        ),
        (Decision("pets/cat.jpg", "drop"), {("pets/cat.jpg", "drop")}),
        (Decision("pets/cat.jpg", "represent"), set()),
        (Decision("h.jpg", "drop"), set()),
        (Decision("broken.jpg", "keep"), set()),
        (Decision("web/c.jpg", "not-copies", "own/c.jpg"), set()),
    ],
)
def test_a_line_means_the_images_it_names(line: Decision, meant: set[Any], tmp_path: Path) -> None:
    said, told = resolve(tmp_path, line)
    assert said == meant
    assert (told.idle + told.equal > 0) == (not meant)
    assert told.lines == {line.decision: 1}


def test_a_later_line_about_an_image_counts_however_it_is_named(tmp_path: Path) -> None:
    lines = Decision("own/a.jpg", "keep"), Decision(digest("own/a.jpg").hex(), "drop"), Decision("/own/a.jpg", "drop")
    said, told = resolve(tmp_path, *lines)
    assert said == {("own/a.jpg", "drop")}
    assert told.overruled == 1
    assert "decisions: 1 image with lines that contradict each other; the last counts" in told.warnings()


def test_lines_that_match_none_or_several_are_told(tmp_path: Path) -> None:
    lines = [
        Decision("c.jpg", "drop"),
        Decision("z.jpg", "keep"),
        Decision("0.tar/c", "keep"),
        Decision("0.tar", "keep"),
    ]
    said, told = resolve(tmp_path, *lines, Decision("1.tar/a.jpg", "not-copies", "b.jpg"))
    assert {name for name, decision in {s[:2] for s in said} if decision == "drop"} == {"web/c.jpg", "own/c.jpg"}
    assert list(told.warnings()) == [
        "decisions: 3 of 6 entries match no image: 0.tar, 0.tar/c, z.jpg",
        "decisions: 1 of 6 entries match several images: c.jpg (3)",
        "decisions: 1 named image for which the decision does nothing: rejected, held out, or a curated one that is to "
        "represent a group",
    ]


def test_a_name_without_its_archive_is_told_with_it(tmp_path: Path) -> None:
    _, told = resolve(tmp_path, Decision("x.jpg", "keep"), Decision("b.jpg", "keep"))
    assert told.entries["x.jpg"].named_so == ("1.tar/x.jpg",)
    assert told.entries["b.jpg"].named_so == (), "a key of another source"
    assert list(told.warnings()) == [
        "decisions: 1 of 2 entries match no image: x.jpg (give the whole key: 1.tar/x.jpg)",
    ]


def test_pairs_of_whole_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.stages.copies.resolve_decisions.MAX_PAIRS", 1)
    with pytest.raises(ConfigError, match=r"/web/0.tar,not-copies,own/a.jpg means 2 pairs .* name single images"):
        resolve(tmp_path / "a", Decision("/web/0.tar", "not-copies", "own/a.jpg"))
    with pytest.raises(ConfigError, match="mean more than 1 pairs of images, with those of equal bytes"):
        resolve(tmp_path / "b", Decision("own/c.jpg", "not-copies", "own/a.jpg"))
    assert MAX_PAIRS > 1000


LINES = (
    Decision("web/0.tar/a.jpg", "not-copies", "own/a.jpg"),
    Decision("bench/h.jpg", "not-copies", "web/c.jpg"),
    Decision("own/b.jpg", "keep"),
    Decision("pets/dog.jpg", "drop"),
    Decision("gone.jpg", "drop"),
)


def test_what_was_decided_is_applied_alike_in_process_under_dask_and_in_two_folders(tmp_path: Path) -> None:
    declare(tmp_path / "one", *LINES, applied=True).run(InProcess(1), Flags())
    with start_executor(ExecutorConfig(kind="local", workers=1, threads=1)) as executor:
        declare(tmp_path / "two", *LINES, applied=True).run(executor, Flags())
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    store = Store(tmp_path / "one")
    table = store.table("duplicates")
    assert table.schema().names == JUDGED.names
    found = verdicts(table)
    assert (found["web/0.tar/a.jpg"], found["own/a.jpg"], found["web/1.tar/a.jpg"]) == ("kept", "kept", "duplicate")
    assert (found["web/c.jpg"], found["own/b.jpg"]) == ("kept", "kept")
    assert store.table("contaminated").num_rows() == 0
    assert DeduplicateFigures.of(table).kept_by_decision == {"duplicate": 1}
    declare(tmp_path / "none", applied=True).run(InProcess(1), Flags())
    before = Store(tmp_path / "none")
    assert verdicts(before.table("duplicates"))["web/c.jpg"] == "benchmark"
    assert before.table("contaminated").num_rows() == 2


def test_notes_change_no_pin_and_lines_do() -> None:
    pins = ResolveDecisions(given=(Decision("a", "keep"),)).pins()
    assert ResolveDecisions(given=(Decision("a", "keep", note="why"),)).pins() == pins
    assert ResolveDecisions(given=(Decision("a", "drop"),)).pins() != pins
    assert ResolveDecisions().pins() != pins


def test_lines_lie_in_any_file_system() -> None:
    fsspec.filesystem("memory").store.clear()
    append_decisions("memory://run/decisions.csv", LINES)
    for values in (["workdir=memory://run"], ["workdir=/none", "decisions=memory://run/decisions.csv"]):
        config = load_config("dedup", ["sources.pool=/none", *values])
        assert tuple(config.read_decisions(Store(config.workdir))) == LINES  # type: ignore[attr-defined]
    other = load_config("dedup", ["sources.pool=/none", "workdir=memory://run", "decisions=null"])
    assert other.read_decisions(Store(other.workdir)) == []  # type: ignore[attr-defined]


def test_what_it_costs_is_what_the_file_system_counts(tmp_path: Path) -> None:
    rows, num_parts = 4000, 6
    names = [[hashlib.sha1(f"{part}/{row}".encode()).hexdigest() for row in range(rows)] for part in range(num_parts)]
    ids = [[part << 32 | row for row in range(rows)] for part in range(num_parts)]
    about = {"source": "web", "role": "pool"}
    listed = [
        [about | {"image_id": i, "key": name, "uri": f"/{name}"} for i, name in zip(*part, strict=True)]
        for part in zip(ids, names, strict=True)
    ]
    facts = [
        [{"image_id": i, "sha256": hashlib.sha256(name.encode()).digest()} for i, name in zip(*part, strict=True)]
        for part in zip(ids, names, strict=True)
    ]
    figures = CatalogFigures.of_parts(("web", "pool", rows) for _ in range(num_parts))
    catalog = given_table(tmp_path, "catalog", CATALOG, listed, figures=figures)
    images = given_table(tmp_path, "images", IMAGES, facts)
    given_table(tmp_path, "exact", NEIGHBORS, [[]])
    stage = ResolveDecisions(given=tuple(Decision(names[0][row], "keep") for row in range(10)))
    p = Pipeline(Store(tmp_path), seed=0)
    refs = {"catalog": Ref("catalog", CATALOG), "images": Ref("images", IMAGES), "exact": Ref("exact", NEIGHBORS)}
    p.add("decided", stage, **refs)
    p.run(InProcess(1), Flags())
    counted = p.store.table("decided").complete_manifest().counts()

    widths = {"image_id": 1.2, "sha256": 32, "reject": 0.1}
    sizes = {table.name: sum(table.committed().values()) / catalog.num_rows() for table in (catalog, images)}
    whole = Shape(pool=catalog.num_rows(), parts=num_parts, columns=12)
    shapes = {
        "catalog": whole._replace(row_bytes=sizes["catalog"]),
        "images": whole._replace(row_bytes=sizes["images"], columns=15, widths=widths),
        "exact": Shape(columns=4),
    }
    demand, made = stage.cost(shapes, Assumptions(images=catalog.num_rows()))
    law = Demand.phases([demand, around([stage], {name: [shape] for name, shape in shapes.items()}, [made], demand)])
    assert made.rows == 10
    assert counted.bytes_read == pytest.approx(law.read, rel=0.25)
    assert counted.requests == pytest.approx(law.requests, rel=0.25)
