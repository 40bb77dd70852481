"""Tiny shards for the trainer's tests."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.tables import shards_schema


def png(seed: int, *, size: tuple[int, int] = (40, 32)) -> bytes:
    """A smooth random picture of `size` (width, height)."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(encoded, format="PNG")
    return encoded.getvalue()


def flat(shade: int, *, size: int) -> bytes:
    """A square picture of one gray level."""
    encoded = io.BytesIO()
    Image.new("RGB", (size, size), (shade, shade, shade)).save(encoded, format="PNG")
    return encoded.getvalue()


def row(
    number: int,
    *,
    encoded: bytes | None = None,
    repeats: int = 1,
    source: str = "test",
    clusters: Sequence[int] = (),
) -> dict[str, object]:
    """One row of a shard."""
    name, data = f"{number}.png", png(number) if encoded is None else encoded
    return {
        "image": {"bytes": data, "path": name},
        "image_id": number,
        "key": name,
        "source": source,
        "role": "pool",
        "uri": name,
        "width": 40,
        "height": 32,
        "sha256": hashlib.sha256(data).hexdigest(),
        "clusters": list(clusters),
        "origins": [],
        "repeats": repeats,
    }


def write_shard(
    path: Path, rows: list[dict[str, object]], *, group: int = 4, own: Mapping[str, pa.DataType] | None = None
) -> Path:
    """Write `rows` in row groups of `group`; `own` are the types of columns beside those of every shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = shards_schema({})
    for name, kind in (own or {}).items():
        schema = schema.append(pa.field(name, kind))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=group)
    return path


def write_shards(folder: Path, *, num_shards: int = 2, rows_each: int = 10) -> Path:
    """`folder` with shards of consecutive rows."""
    for shard in range(num_shards):
        numbers = range(shard * rows_each, (shard + 1) * rows_each)
        write_shard(folder / f"part-{shard:05d}.parquet", [row(i) for i in numbers])
    return folder
