"""A small folder of shards with its lists and its manifest, written as a run writes them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.engine.part_writer import Part
from curate.engine.store import Store
from curate.engine.table import Table
from curate.sealed_json import dump_sealed
from curate.shard_manifest import NAME, ShardEntry, ShardManifest
from curate.stages.selection.list_rows import TABLE, ListShardRows, ShardFile
from curate.tables import SHARD_ROWS, shards_schema

OWN = {"caption": pa.string()}


def shard_rows(ids: Sequence[int], **changes: Any) -> list[dict[str, Any]]:
    """Rows of shards with made-up bytes; `changes` replace columns of all of them."""
    rows = []
    for image_id in ids:
        data = hashlib.sha256(str(image_id).encode()).digest() * 40
        row = {
            "image": {"bytes": data, "path": f"{image_id}.jpg"},
            "image_id": image_id,
            "key": f"{image_id}.jpg",
            "source": "pool",
            "role": "pool",
            "width": 8,
            "height": 8,
            "sha256": hashlib.sha256(data).hexdigest(),
            "clusters": [],
            "origins": [],
            "repeats": 1,
            "caption": f"picture {image_id}",
        }
        rows.append(row | changes)
    return rows


def commit_shard(store: Store, part: int, rows: list[dict[str, Any]], own: dict[str, pa.DataType] = OWN) -> Part:
    """Write a shard with its seal."""
    schema = shards_schema(own)
    return store.table("shards/data").commit(part, schema, pa.Table.from_pylist(rows, schema=schema).to_batches())


def list_shards(store: Store, parts: Sequence[int]) -> ShardManifest:
    """Write the lists of shards that are there, and `shards/manifest.json`."""
    shards, lists, entries = store.table("shards/data"), store.table(TABLE), []
    for part in parts:
        batches = ListShardRows().run(part, shards=shards)
        done = lists.commit(part, SHARD_ROWS, batches, tally=ShardFile)
        file = ShardFile.model_validate(done.tally)
        name = f"data/part-{part:05d}.parquet"
        entries.append(ShardEntry(name, file.num_bytes, file.sha256, done.rows, file.rows_sha256))
    manifest = ShardManifest(tuple(entries))
    store.write_bytes(f"shards/{NAME}", dump_sealed(manifest.as_json()))
    return manifest


def write_shards(root: Path, shards: Sequence[Sequence[int]] = ((3, 1, 2), (5, 4))) -> Path:
    """A folder of shards of these images; returns the folder."""
    store = Store(root)
    for part, ids in enumerate(shards):
        commit_shard(store, part, shard_rows(ids))
    list_shards(store, range(len(shards)))
    return root / "shards"


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of a folder says."""
    found: dict[str, Any] = json.loads((folder / NAME).read_text())
    return found


def tables(store: Store) -> Iterator[Table]:
    """The shards and their lists."""
    yield from (store.table("shards/data"), store.table(TABLE))
