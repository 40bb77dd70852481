"""ListShardRows: which images each shard holds, and the SHA-256 of each file: what the signed manifest is made of.

Shards may take terabytes, so they are digested by tasks, each a shard, and again only where a shard was written anew.
Every block is checked while it is read: a digest must not vouch for bytes that went wrong on the disk since.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.stage import Batches, Input, Map, opened
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.errors import DamagedPart
from curate.sealing import DamagedBytes, digest_parquet
from curate.shard_manifest import DATA, RowsDigest, ShardEntry, ShardManifest
from curate.tables import SHARD_ROWS

TABLE = "shards/.rows"
"""Name of the table: hidden, beside the shards, so that it goes where they go."""
DIGEST_BYTES = 36
"""Bytes of an image in the list beside id and key."""
CHANGED = ("repaired", "blurred")
"""Columns of shards that say where an image holds other bytes than those of its `sha256`; the second is there where
faces are blurred."""
SHARD = pa.schema([SHARD_ROWS.field("image_id")])
"""What a shard must have: it is read as a file."""


class ShardFile(Tally):
    """One shard as a file; summed up over shards it says nothing."""

    sha256: str = ""
    """Of the file, in hex."""
    num_bytes: int = 0
    """Of the file."""
    rows_sha256: str = ""
    """Of which images it holds, see `curate.shard_manifest.RowsDigest`."""


class ListFigures(Figures):
    """What the lists tell of all shards."""

    digest: str
    """Of the manifest that they make."""


class ListShardRows(Map):
    """Digests each shard, as a file and as a list of images."""

    inputs: ClassVar[dict[str, Input]] = {"shards": opened(SHARD)}
    tally: ClassVar[type[Tally] | None] = ShardFile

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return SHARD_ROWS

    def run(self, part: int, *, shards: Table) -> Batches:
        path = shards.part_path(part)
        try:
            with shards.store.fs.open(path) as file:
                sha256, num_bytes = digest_parquet(file)
        except DamagedBytes as error:
            raise DamagedPart(
                f"{path}: damaged ({error}); restore it, or remove it and run again", shards.name, part
            ) from error
        digest = RowsDigest()
        for batch in _rows(shards, part):
            digest.add(batch)
            yield batch
        yield tally_batch(ShardFile(sha256=sha256, num_bytes=num_bytes, rows_sha256=digest.hex()), SHARD_ROWS)

    def summarize(self, table: Table, **inputs: Any) -> ListFigures:
        return ListFigures(digest=manifest_of(table).digest)

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        shards: Shape = inputs["shards"]
        made = shards._replace(row_bytes=ID_BYTES + given.name_bytes + DIGEST_BYTES, columns=len(SHARD_ROWS), widths={})
        again = shards.num_bytes  # as a file, beside its rows
        return Demand(rows=shards.rows, read=again, written=made.num_bytes), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        yield "Manifest", f"shards/manifest.json: digest {ListFigures.of(table).digest[:digits]}"


def manifest_of(table: Table) -> ShardManifest:
    """The manifest of the shards that the lists of a complete table tell of."""
    files = zip(table.parts(), ShardFile.by_part(table), strict=True)
    entries = [
        ShardEntry(f"{DATA}/part-{part.number:05d}.parquet", f.num_bytes, f.sha256, part.rows, f.rows_sha256)
        for part, f in files
    ]
    return ShardManifest(tuple(sorted(entries, key=lambda entry: entry.name)))


def _rows(shards: Table, part: int) -> Iterator[pa.RecordBatch]:
    """The list of a shard, by its row groups."""
    with shards.open(part) as file:
        changes = [name for name in CHANGED if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["image_id", "key", "sha256", "image", *changes])
            data = pc.struct_field(rows["image"].combine_chunks(), "bytes")
            stored: list[bytes | None] = [None] * len(rows)
            changed = np.any([rows[name].is_valid().to_numpy() for name in changes], axis=0)
            for row in np.flatnonzero(changed).tolist():
                stored[row] = hashlib.sha256(data[row].as_py()).digest()
            digests = [bytes.fromhex(text) for text in rows["sha256"].to_pylist()]
            columns = [rows["image_id"].combine_chunks(), rows["key"].combine_chunks()]
            columns += [pa.array(digests, pa.binary(32)), pa.array(stored, pa.binary(32))]
            columns.append(pc.binary_length(data).cast(pa.int64()))
            yield pa.RecordBatch.from_arrays(columns, schema=SHARD_ROWS)
