"""Listings beside joins that DuckDB makes of the same tables."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from curate.answers import rows
from curate.answers.counts import Counts
from curate.answers.rows import NOT_DIRECT, Wanted, list_images
from curate.engine.finished import Finished, FinishedTable
from curate.engine.store import Store
from curate.engine.table import Manifest, Table
from curate.errors import CurateError, TableError
from curate.stages.clusters.assign import Assign
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards
from curate.tables import ASSIGNMENTS, DUPLICATES, LISTED, REJECT_REASONS, ROLES
from tests.answers.conftest import ODD, Made

JOIN = """
    select c.image_id, c.source, c.role, c.key, c.uri, c."offset" is null and c."row" is null as own_file,
        lower(hex(i.sha256)) as sha256, i.width, i.height,
        case when i.reject = 'unavailable' then 'unavailable' when i.reject is not null then 'rejected'
            when c.role = 'curated' then 'kept' when d.verdict = 'benchmark' then 'contaminated'
            when d.verdict = 'kept' then 'kept' when d.verdict is not null then 'dropped' end as verdict,
        s.image_id is not null as selected,
        coalesce(i.reject, case when d.verdict <> 'kept' then d.verdict end) as reason,
        coalesce(i.detail, case when not d.direct then '{not_direct}' end) as detail, null as score,
        d.partner_id, p.key as partner_key, p.uri as partner_uri, d.similarity, d.kind as evidence,
        case when d.component_size > 1 or d.partner_id is not null then d.component_id end as "group",
        case when d.component_size > 1 or d.partner_id is not null then d.component_size end as group_size,
        a.cluster_id as cluster
    from '{run}/catalog/part-*.parquet' c
    join '{run}/images/part-*.parquet' i using (image_id)
    left join '{run}/duplicates/part-*.parquet' d using (image_id)
    left join '{run}/selection/part-*.parquet' s using (image_id)
    left join '{leaves}/part-*.parquet' a using (image_id)
    left join '{run}/catalog/part-*.parquet' p on p.image_id = d.partner_id
    order by c.image_id
"""


@pytest.fixture(scope="module")
def clustered(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run with a leaf for each second image, which its recipe does not make."""
    run = made.run.finished
    assert run.catalog is not None
    table = Store(tmp_path_factory.mktemp("leaves")).table("assignments")
    parts = []
    for number, images in enumerate(run.catalog.scan(["image_id"])):
        ids = images["image_id"].to_numpy()[::2]
        leaves = pa.table([ids, (ids % 3).astype(np.int32), np.ones(len(ids), np.float32)], ASSIGNMENTS)
        parts.append(table.commit(number, ASSIGNMENTS, leaves.to_batches()).__dict__)
    table.write_manifest(Manifest("Assign", 1, {}, {}, {}, {}, complete=True, parts=parts))
    return replace(run, tables=(*run.tables, FinishedTable(Assign(), table)))


def joined(run: Finished) -> list[dict[str, Any]]:
    """Every image, joined by DuckDB."""
    assigned = run.only(Assign)
    assert assigned is not None
    leaves = assigned[1].store.join("assignments")
    found = duckdb.sql(JOIN.format(run=run.store.root, leaves=leaves, not_direct=NOT_DIRECT))
    assert found is not None
    return found.to_arrow_table().cast(pa.schema([field.with_nullable(True) for field in LISTED])).to_pylist()


def listed(run: Finished, wanted: Wanted, **how: Any) -> list[dict[str, Any]]:
    """The rows of a listing, checked against its schema."""
    found: list[dict[str, Any]] = []
    for batch in list_images(run, wanted, **how):
        batch.validate(full=True)
        assert batch.schema.equals(rows.listed_schema(how.get("columns")))
        assert len(batch)
        found += batch.to_pylist()
    return found


IS_WANTED = {
    Wanted.all: lambda row: True,
    Wanted.kept: lambda row: row["verdict"] == "kept",
    Wanted.dropped: lambda row: row["verdict"] == "dropped",
    Wanted.rejected: lambda row: row["verdict"] in ("rejected", "unavailable"),
    Wanted.contaminated: lambda row: row["verdict"] == "contaminated",
    Wanted.selected: lambda row: row["selected"],
}


@pytest.mark.parametrize("roles", [None, ("pool",), ("curated", "heldout")])
def test_a_listing_is_the_join_of_all_tables(roles: tuple[str, ...] | None, clustered: Finished) -> None:
    every = joined(clustered)
    for wanted, is_wanted in IS_WANTED.items():
        of = roles or (("pool", "curated") if wanted is Wanted.selected else ("pool",))
        expected = [row for row in every if row["role"] in of and is_wanted(row)]
        assert listed(clustered, wanted, roles=roles) == expected
        assert expected or roles == ("curated", "heldout")


def test_what_is_planted_is_listed(made: Made) -> None:
    """Copies lie in another source than what they are copies of."""
    dropped = {row["key"]: row["partner_key"] for row in listed(made.run.finished, Wanted.dropped)}
    assert dropped == {
        "copy of a.jpg": ODD[0],
        "same.jpg": ODD[1],
        "one.tar/x/1.jpg": ODD[2],
        "rows.parquet#1": "one.tar/x/0.jpg",
        "rows.parquet#3": "c.jpg",
    }
    contaminated = listed(made.run.finished, Wanted.contaminated, columns=["key", "partner_key", "reason"])
    assert contaminated == [{"key": "rows.parquet#4", "partner_key": "h.jpg", "reason": "benchmark"}]
    rejected = {row["key"]: row["reason"] for row in listed(made.run.finished, Wanted.rejected)}
    assert rejected == {"broken.jpg": "not_an_image", "empty.jpg": "empty"}
    assert set(rejected.values()) <= set(REJECT_REASONS)


def test_groups_lie_together_and_what_stays_comes_first(clustered: Finished) -> None:
    found = listed(clustered, Wanted.groups)
    order = [(row["group"], row["verdict"] != "kept", row["image_id"]) for row in found]
    assert order == sorted(order)
    assert sorted(row["image_id"] for row in found) == [
        row["image_id"] for row in joined(clustered) if row["group"] is not None
    ]
    named = listed(clustered, Wanted.groups, columns=["partner_key", "key"])
    assert named == [{name: row[name] for name in ("partner_key", "key")} for row in found]


def test_partners_are_the_same_whatever_the_windows(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = listed(made.run.finished, Wanted.all)
    for first, most in ((1, 1), (1, 2), (2, 2)):
        monkeypatch.setattr(rows, "FIRST_PARTNERS", first)
        monkeypatch.setattr(rows, "MOST_PARTNERS", most)
        assert listed(made.run.finished, Wanted.all) == expected


def test_parts_of_the_catalog_are_read_once_a_window(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not once for each part that is listed: no more than twice in all where one window holds all partners."""
    run, read = made.run.finished, list[int]()
    plain = Table.read

    def counted(self: Table, part: int, columns: list[str] | None = None) -> pa.Table:
        if self.name == "catalog":
            read.append(part)
        return plain(self, part, columns)

    monkeypatch.setattr(Table, "read", counted)
    assert len(listed(run, Wanted.dropped, columns=["key", "partner_key"])) == 5
    assert len(read) > len(set(read))
    assert max(map(read.count, read)) == 2


def test_columns_come_in_the_order_that_is_asked_for(clustered: Finished) -> None:
    asked = ["similarity", "verdict", "image_id", "cluster", "sha256"]
    found = listed(clustered, Wanted.all, columns=asked)
    assert [*found[0]] == asked
    assert found == [{name: row[name] for name in asked} for row in joined(clustered) if row["role"] == "pool"]
    with pytest.raises(CurateError, match=r"^test: no role of a source; there are pool, curated, heldout"):
        list_images(clustered, Wanted.all, roles=["test"])
    with pytest.raises(CurateError, match=r"^colour: no column of a listing; there are image_id, source"):
        list_images(clustered, Wanted.all, ["colour"])


def without(run: Finished, *kinds: type) -> Finished:
    """A run whose recipe does not make the tables of these stages."""
    left = tuple(one for one in run.tables if not isinstance(one.stage, kinds))
    return Finished(run.store, run.recipe, run.config, left)


def test_what_is_not_there_yet_is_said(made: Made) -> None:
    run = made.run.finished
    with pytest.raises(TableError, match="has no verdicts; run its config first"):
        list_images(without(run, Deduplicate), Wanted.kept)
    changed = replace(without(run, Deduplicate), outdated={"duplicates": "chains is 'join' now"})
    with pytest.raises(TableError, match=r"has no verdicts \(duplicates: chains is 'join' now\)"):
        list_images(changed, Wanted.kept)
    with pytest.raises(TableError, match="has no selection; ask for the images that are kept instead"):
        list_images(without(run, Select), Wanted.selected)
    assert {row["selected"] for row in listed(without(run, Select), Wanted.all)} == {None}


@pytest.mark.parametrize("written", [True, False])
def test_what_a_removal_list_names_is_not_selected(written: bool, made: Made, tmp_path: Path) -> None:
    """As the stage of the shards says; where these are not made yet, as the config does."""
    run = made.run.finished
    chosen = listed(run, Wanted.selected)
    (tmp_path / "gone.txt").write_text(f"{chosen[0]['sha256']}\n{chosen[1]['source']}/{chosen[1]['key']}\n")
    stage = WriteShards(removal_list=str(tmp_path / "gone.txt"))
    tables = without(run, WriteShards).tables
    if written:
        tables += tuple(one._replace(stage=stage) for one in run.tables if isinstance(one.stage, WriteShards))
    config = run.config if written else {**run.config, "write": {"removal_list": str(tmp_path / "gone.txt")}}
    removed = Finished(run.store, run.recipe, config, tables)
    assert [row["image_id"] for row in listed(removed, Wanted.selected)] == [row["image_id"] for row in chosen[2:]]


def test_what_a_person_decided_is_told(made: Made, tmp_path: Path) -> None:
    """Verdicts as decisions make them: `dropped`, and `kept` with what the image would have gone for."""
    run = made.run.finished
    judged = run.only(Deduplicate)
    assert judged is not None
    verdicts = [row for part in judged[1].scan() for row in part.to_pylist()]
    copy = next(row for row in verdicts if row["verdict"] == "duplicate")
    alone = next(row for row in verdicts if row["component_size"] == 1 and row["verdict"] == "kept")
    changed = {copy["image_id"]: copy | {"verdict": "kept"}, alone["image_id"]: alone | {"verdict": "dropped"}}
    table, parts = Store(tmp_path).table("duplicates"), []
    for number, part in enumerate(judged[1].scan()):
        now = [changed.get(row["image_id"], row) for row in part.to_pylist()]
        batches = pa.Table.from_pylist(now, schema=DUPLICATES).to_batches()
        parts.append(table.commit(number, DUPLICATES, batches).__dict__)
    table.write_manifest(Manifest("Deduplicate", 1, {}, {}, {}, {}, complete=True, parts=parts))
    decided = replace(run, tables=(*without(run, Deduplicate).tables, FinishedTable(judged[0], table)))
    told = {row["image_id"]: row for row in listed(decided, Wanted.all, roles=ROLES)}
    kept, dropped = told[copy["image_id"]], told[alone["image_id"]]
    assert (kept["verdict"], kept["reason"], kept["partner_id"]) == ("kept", "decision", copy["partner_id"])
    assert kept["partner_key"] == told[copy["partner_id"]]["key"]
    assert (dropped["verdict"], dropped["reason"], dropped["partner_id"]) == ("dropped", "decision", None)
    assert kept in listed(decided, Wanted.kept)
    assert dropped in listed(decided, Wanted.dropped)


def test_counts_are_those_of_the_rows(made: Made) -> None:
    run = made.run.finished
    counts = Counts.of(run)
    for wanted in Wanted:
        number = counts.number_of(wanted)
        assert number == (None if wanted is Wanted.groups else len(listed(run, wanted)))
    assert counts.listed == len(listed(run, Wanted.all, roles=["pool"]))
    assert counts.sentence().startswith("20 images in the pool: 12 kept, 5 dropped for another image that stays, ")


def test_rows_stream(made: Made) -> None:
    """The first rows come before the last part is read."""
    found: Iterator[pa.RecordBatch] = list_images(made.run.finished, Wanted.all, ["key"])
    assert len(next(found)) == 4
