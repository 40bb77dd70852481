"""`shards/manifest.json`: a digest of digests, by which a copy of the shards is held against those that were written.

A checksum inside a file finds accidents, but whoever changes a file can write another checksum, and a file that is gone
takes its checksum along. So one small file beside the shards names each of them with the SHA-256 of its bytes, and with
a digest of which images it holds; what signs that one file (`signing.py`) signs every byte of every shard. The images
themselves are listed beside it, a hidden folder of small Parquet files (`shards/.rows`), since the name of a missing
image cannot be had from a file that lacks it. These lists need no signature of their own: the digest of each is in the
manifest, and is made from their rows, so that a list counts only where it is the one that was written.

    shards/manifest.json   format, digest, shards: [{name, num_bytes, sha256, rows, rows_sha256}], sha256 of its text
    shards/data/*.parquet  each with `sha256` in the manifest
    shards/.rows/*.parquet image_id, key, sha256, stored, num_bytes: with `rows_sha256` in the manifest
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import pyarrow as pa

NAME = "manifest.json"
"""The manifest, within the folder of the shards."""
SIGNATURE = f"{NAME}.sig"
"""Its signature, in the format of `ssh-keygen -Y sign`, beside it."""
ROWS = ".rows"
"""The folder of the lists of images, beside it; hidden, so that no reader takes them for shards."""
FORMAT = "curate-shards-1"
"""What the manifest calls itself: another way to make its digests gets another number."""
DATA = "data"
"""The folder of the shards, beside it."""


@dataclass(frozen=True)
class ShardEntry:
    """One shard, as the manifest tells of it."""

    name: str
    """Path within the folder of the shards, such as `data/part-00000.parquet`."""
    num_bytes: int
    """Of the file."""
    sha256: str
    """Of the file, in hex."""
    rows: int
    """Images in it."""
    rows_sha256: str
    """Digest of which images these are, see `RowsDigest`."""

    @property
    def list_name(self) -> str:
        """Path of the list of its images."""
        return f"{ROWS}/{self.name.rpartition('/')[2]}"


@dataclass(frozen=True)
class ShardManifest:
    """What `manifest.json` says."""

    shards: tuple[ShardEntry, ...]
    """In order of name."""

    @property
    def digest(self) -> str:
        """SHA-256 in hex of all entries, each a line of JSON in order: one value for the whole data set."""
        lines = "".join(
            json.dumps(asdict(shard), sort_keys=True, separators=(",", ":")) + "\n" for shard in self.shards
        )
        return hashlib.sha256(f"{FORMAT}\n{lines}".encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {
            "format": FORMAT,
            "digest": self.digest,
            "num_rows": sum(shard.rows for shard in self.shards),
            "num_bytes": sum(shard.num_bytes for shard in self.shards),
            "shards": [asdict(shard) for shard in self.shards],
        }

    @classmethod
    def from_json(cls, found: Any) -> Self:
        """What a file says.

        Raises:
            ValueError: it is no such manifest, or of another format, or its digest is not that of its entries.
        """
        if not isinstance(found, Mapping) or found.get("format") != FORMAT:
            kind = found.get("format") if isinstance(found, Mapping) else type(found).__name__
            raise ValueError(f"its format is {kind!r:.60}, not {FORMAT}")
        manifest = cls(tuple(map(_entry, found.get("shards") or ())))
        names = [shard.name for shard in manifest.shards]
        if names != sorted(set(names)):
            raise ValueError("its shards are not in order of name, each once")
        if found.get("digest") != manifest.digest:
            raise ValueError("its digest is not that of its shards")
        return manifest


def _entry(found: Any) -> ShardEntry:
    if not isinstance(found, Mapping) or {*found} != {*ShardEntry.__dataclass_fields__}:
        raise ValueError("a shard is not told by name, num_bytes, sha256, rows and rows_sha256")
    entry = ShardEntry(**found)
    name = entry.name if isinstance(entry.name, str) else ""
    steps = name.split("/")
    if len(steps) != 2 or steps[0] != DATA or not steps[1].endswith(".parquet") or steps[1].startswith("."):
        raise ValueError(f"{entry.name!r:.80} is no name of a shard")
    if not (isinstance(entry.num_bytes, int) and isinstance(entry.rows, int) and isinstance(entry.sha256, str)):
        raise ValueError(f"{entry.name}: its size or digest is none")
    return entry


class RowsDigest:
    """SHA-256 of which images a shard holds, in its order: ids, keys, and the digests of source and stored bytes.

    Each image adds 8 bytes of its id (big-endian), 32 of `sha256`, 32 of `stored` (those of `sha256` where it is null),
    4 of the length of its key in UTF-8, and the key.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Rows of `tables.SHARD_ROWS`."""
        columns = (rows[name].to_pylist() for name in ("image_id", "key", "sha256", "stored"))
        for image_id, key, sha256, stored in zip(*columns, strict=True):
            name = key.encode("utf-8", "surrogatepass")
            self._digest.update(struct.pack(">q", image_id) + sha256 + (stored or sha256))
            self._digest.update(struct.pack(">I", len(name)) + name)

    def hex(self) -> str:
        """The digest of all rows so far."""
        return self._digest.hexdigest()


def rows_digest(batches: Iterable[pa.Table | pa.RecordBatch]) -> str:
    """The digest of a whole list."""
    found = RowsDigest()
    for batch in batches:
        found.add(batch)
    return found.hex()
