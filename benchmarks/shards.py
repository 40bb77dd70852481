"""Encoded pictures as a shard that the trainer streams, without a run of the pipeline."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.tables import shards_schema

ROW_GROUP = 500


def write_shard(folder: Path, encoded: Sequence[bytes], *, source: str) -> None:
    """One shard in `folder`, rows in the given order."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(number, image, source) for number, image in enumerate(encoded)]
    table = pa.Table.from_pylist(rows, schema=shards_schema({}))
    pq.write_table(table, folder / "part-00000.parquet", row_group_size=ROW_GROUP)


def _row(number: int, encoded: bytes, source: str) -> dict[str, object]:
    with Image.open(io.BytesIO(encoded)) as picture:
        (width, height), suffix = picture.size, str(picture.format).lower()
    name = f"{source}-{number:04d}.{suffix}"
    return {
        "image": {"bytes": encoded, "path": name},
        "image_id": number,
        "key": name,
        "source": source,
        "role": "pool",
        "uri": name,
        "width": width,
        "height": height,
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "clusters": [],
        "origins": [],
        "repeats": 1,
    }
