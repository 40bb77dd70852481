"""Lists and counts of shards, against the shards read whole; a changed shard alone is digested again."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.errors import DamagedPart
from curate.sealed_json import dump_sealed
from curate.shard_check import check_shards
from curate.shard_manifest import NAME
from curate.stages.selection import count_origins
from curate.stages.selection.count_origins import Counted, CountOrigins, OriginFigures, Origins, origins_of
from curate.stages.selection.list_rows import SHARD, TABLE, ListShardRows, manifest_of
from curate.tables import shards_schema
from tests.engine.test_damage import flip
from tests.shards_on_disk import shard_rows
from tests.stages.planted import given_table

OWN = {"caption": pa.string(), "license": pa.string(), "url": pa.string()}


def rows(shard: int, number: int = 6) -> list[dict[str, Any]]:
    found = []
    for place, row in enumerate(shard_rows(range(shard * 100, shard * 100 + number))):
        url = f"https://www.h{place % 3}.example/{place}"
        found.append(row | {"license": [None, "cc0", "by-nc"][place % 3], "url": url if place else None})
    return found


def run(root: Path, shards: list[list[dict[str, Any]]], own: dict[str, pa.DataType] = OWN) -> tuple[Store, list[str]]:
    given_table(root, "shards/data", shards_schema(own), shards)
    return Store(root), again(root)


def again(root: Path) -> list[str]:
    p = Pipeline(Store(root), seed=0)
    shards = Ref("shards/data", SHARD)
    lists = p.add(TABLE, ListShardRows(), shards=shards)
    p.add("internal/origins", CountOrigins(), shards=shards, rows=lists)
    return p.run(InProcess(1), Flags())


def test_the_lists_of_a_run_vouch_for_its_shards(tmp_path: Path) -> None:
    store, _ = run(tmp_path, [rows(0), rows(1)])
    manifest = manifest_of(store.table(TABLE))
    store.write_bytes(f"shards/{NAME}", dump_sealed(manifest.as_json()))
    found = check_shards(store.fs, store.join("shards"))
    assert (found.rows, found.problems, found.digest) == (12, {}, manifest.digest)
    sizes = [row["num_bytes"] for row in store.table(TABLE).read_all().to_pylist()]
    assert sizes == [len(row["image"]["bytes"]) for row in rows(0) + rows(1)]


def test_only_a_shard_that_changed_is_digested_again(tmp_path: Path) -> None:
    store, made = run(tmp_path, [rows(0), rows(1), rows(2)])
    assert made == [TABLE, "internal/origins"]
    assert again(tmp_path) == []
    stamps = [(tmp_path / TABLE / f"part-0000{n}.parquet").stat().st_mtime_ns for n in range(3)]
    run(tmp_path, [rows(0), rows(1)[1:], rows(2)])
    after = [(tmp_path / TABLE / f"part-0000{n}.parquet").stat().st_mtime_ns for n in range(3)]
    assert [a == b for a, b in zip(stamps, after, strict=True)] == [True, False, True]
    assert store.table(TABLE).num_rows() == 17


def test_damage_is_not_vouched_for(tmp_path: Path) -> None:
    given_table(tmp_path, "shards/data", shards_schema(OWN), [rows(0)])
    flip(tmp_path / "shards/data/part-00000.parquet")
    with pytest.raises(DamagedPart, match=r"part-00000.parquet: damaged"):
        list(ListShardRows().run(0, shards=Store(tmp_path).table("shards/data")))


def test_origins_are_those_of_a_count_of_all_rows(tmp_path: Path) -> None:
    shards = [rows(n, 5 + n) for n in range(3)]
    store, _ = run(tmp_path, shards)
    found, flat = origins_of(store.table("internal/origins")), [row for shard in shards for row in shard]
    names = {None: "unknown", "cc0": "CC0-1.0", "by-nc": "CC-BY-NC"}
    assert {name: one.images for name, one in found.of("license")} == Counter(names[row["license"]] for row in flat)
    hosts = Counter("unknown" if row["url"] is None else row["url"].split("/")[2].removeprefix("www.") for row in flat)
    assert {name: one.images for name, one in found.of("domain")} == hosts
    assert found.get("all") == Counted(len(flat), sum(len(row["image"]["bytes"]) for row in flat))
    assert found.get("has", "license").images == sum(row["license"] is not None for row in flat)
    assert found.get("has", "author") == Counted()
    figures = OriginFigures.of(store.table("internal/origins"))
    assert figures.with_domain == len(flat) - hosts["unknown"]


def test_shards_without_own_columns_know_nothing(tmp_path: Path) -> None:
    plain = [{k: v for k, v in row.items() if k != "caption"} for row in shard_rows(range(3))]
    store, _ = run(tmp_path, [plain], own={})
    found = origins_of(store.table("internal/origins"))
    assert found.get("license", "unknown").images == found.get("domain", "unknown").images == 3


def test_more_names_than_are_counted_cost_the_rare_ones_their_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_origins, "MAX_NAMES", 10)
    found = Origins()
    for number in range(200):
        found.add("domain", f"rare{number}", Counted(1, 1))
        found.add("domain", "often", Counted(1, 50))
    assert len(found.of("domain")) <= 10
    assert found.of("domain")[0] == ("often", Counted(200, 10_000))
    kept = sum(one.images for _, one in found.of("domain"))
    assert kept + found.get("not_counted", "domain").images == 400
