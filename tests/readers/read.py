"""Read shards with the `datasets` and DuckDB of the Python that runs this file, which needs Arrow and Pillow besides.

    PYTHON tests/readers/read.py CACHE FOLDER [FOLDER ...]

Loads each folder as README says, through one cache, and compares every row, read at random, streamed and by DuckDB.
Prints a line of JSON a folder: features, and the rows by key with their pictures as digests.
"""

import datetime
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pyarrow.parquet as pq
from PIL import Image, ImageOps


def by_datasets(folder: Path, cache: Path, *, streaming: bool) -> tuple[Any, list[dict[str, Any]]]:
    """Features and rows, each with its decoded picture."""
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache), streaming=streaming)
    return loaded.features, list(loaded)


def by_duckdb(folder: Path) -> list[dict[str, Any]]:
    """The same rows in the order of the files; pictures as a struct of bytes and path."""
    return duckdb.sql(f"select * from '{folder}/data/*.parquet'").to_arrow_table().to_pylist()


def digest(picture: Image.Image) -> str:
    """Of mode, size and pixels."""
    return hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).hexdigest()


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON holds it, its picture as a digest of the pixels as `datasets` turns them."""
    image = row["image"]
    if isinstance(image, dict):
        with Image.open(io.BytesIO(image["bytes"])) as file:
            image = ImageOps.exif_transpose(file)
    return json.loads(json.dumps({**row, "image": digest(image)}, default=spelled))


def spelled(value: Any) -> str:
    """What JSON has no form for: bytes in hexadecimal, points in time in UTC, whatever their zone is called."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.UTC)
    return value.isoformat()


def read(folder: Path, cache: Path) -> dict[str, Any]:
    """Features and rows by key; raises where two ways to read them differ."""
    footer = pq.read_schema(min((folder / "data").glob("*.parquet"))).metadata[b"huggingface"]
    declared = datasets.Features.from_dict(json.loads(footer)["info"]["features"])
    stored = by_duckdb(folder)
    wanted = [comparable(row) for row in stored]
    for streaming in (False, True):
        features, rows = by_datasets(folder, cache, streaming=streaming)
        if features != declared:
            raise ValueError(f"{folder}: features {features}, the footer declares {declared} (streaming={streaming})")
        found = [comparable(row) for row in rows]
        if len(found) != len(wanted):
            raise ValueError(f"{folder}: {len(found)} rows, DuckDB reads {len(wanted)} (streaming={streaming})")
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            if one != other:
                differing = {name: (one.get(name), other.get(name)) for name in one | other}
                differing = {name: (ours, theirs) for name, (ours, theirs) in differing.items() if ours != theirs}
                raise ValueError(f"{folder} row {number}, datasets and DuckDB (streaming={streaming}): {differing}")
    sha256 = [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in stored]
    return {
        "features": {name: str(feature) for name, feature in features.items()},
        "rows": {row["key"]: row | {"image": bytes_} for row, bytes_ in zip(wanted, sha256, strict=True)},
    }


def main() -> None:
    """See the top of the file."""
    cache, *folders = map(Path, sys.argv[1:])
    datasets.disable_progress_bars()
    for folder in folders:
        print(json.dumps(read(folder, cache)))


if __name__ == "__main__":
    main()
