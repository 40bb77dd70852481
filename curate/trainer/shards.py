"""What lies in the shards, by their footers alone: row groups, rows, repeats."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import SourceError
from curate.tables import HF_IMAGE

CONTENT = b"curate.content"
"""Key of a footer's metadata under which curate writes the digest of a shard's rows."""
MAGIC_BYTES = 4
"""Of a Parquet file's end mark, before which the footer's length stands in as many bytes."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of one shard."""

    shard: str
    number: int
    num_rows: int
    num_samples: int
    """Sum of `repeats`: how often an epoch shows its rows."""
    content: str
    """Digest of the rows of the whole shard, see `_content`."""
    repeats: npt.NDArray[np.int32] | None = field(default=None, compare=False)
    """(num_rows,) times each row is shown; None: once each."""


@dataclass(frozen=True)
class ShardIndex:
    """All row groups of all shards, shards in order of name."""

    filesystem: Any
    groups: tuple[RowGroup, ...]

    @property
    def num_images(self) -> int:
        return sum(group.num_rows for group in self.groups)

    @property
    def num_samples(self) -> int:
        return sum(group.num_samples for group in self.groups)

    @property
    def fingerprint(self) -> str:
        """Hash of the shards' names, their row groups' sizes and their content: what order and rows follow from."""
        told = [(g.shard.rsplit("/", 1)[-1], g.number, g.num_rows, g.num_samples, g.content) for g in self.groups]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:32]

    def read_images(self, group: RowGroup) -> list[bytes | None]:
        """The encoded images of a row group.

        Raises:
            SourceError: the shard is gone or its data are damaged.
        """
        try:
            with self.filesystem.open(group.shard, "rb") as file:
                table = pq.ParquetFile(file).read_row_group(group.number, columns=["image.bytes"])
        except (OSError, pa.ArrowException) as error:
            raise _damaged(group.shard, f"row group {group.number} cannot be read: {error}") from error
        column = table.column("image").combine_chunks()
        return column.field("bytes").to_pylist()


def read_index(shards: str) -> ShardIndex:
    """Read the footers of all shards.

    Args:
        shards: a folder, a file or a pattern, local or an fsspec URL.

    Raises:
        SourceError: no shard there, one is damaged, or one has no column `image` as the shards have it.
    """
    filesystem, path = fsspec.core.url_to_fs(shards)
    paths = _expand(filesystem, path)
    if not paths:
        raise SourceError(f"{shards}: no Parquet shard; give a folder, a file or a pattern of shards")
    groups = tuple(group for name in paths for group in _read_footer(filesystem, name))
    if not any(group.num_samples for group in groups):
        raise SourceError(f"{shards}: {len(paths)} shards without a single image")
    return ShardIndex(filesystem, tuple(group for group in groups if group.num_samples))


def _expand(filesystem: Any, path: str) -> list[str]:
    if any(sign in path for sign in "*?["):
        return sorted(filesystem.glob(path))
    if filesystem.isdir(path):
        return sorted(filesystem.glob(f"{path.rstrip('/')}/*.parquet"))
    return [path] if filesystem.exists(path) else []


def _read_footer(filesystem: Any, path: str) -> list[RowGroup]:
    try:
        with filesystem.open(path, "rb") as file:
            shard = pq.ParquetFile(file)
            _check_image_column(path, shard.schema_arrow)
            content = _content(file, shard)
            return [_read_group(path, shard, number, content=content) for number in range(shard.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, f"not a readable Parquet file: {error}") from error


def _check_image_column(path: str, schema: pa.Schema) -> None:
    position = schema.get_field_index("image")
    found = schema.field(position).type if position >= 0 else None
    if found is None or not pa.types.is_struct(found) or found.get_field_index("bytes") < 0:
        raise SourceError(f"{path}: column image is {found or 'missing'}; the trainer needs {HF_IMAGE}")


def _content(file: Any, shard: pq.ParquetFile) -> str:
    """What tells a shard from one of other rows, without reading them: curate's own digest, else a hash of the
    footer, which holds sizes, offsets and statistics of every column."""
    known = (shard.metadata.metadata or {}).get(CONTENT)
    if known is not None:
        return known.decode()
    end = file.seek(0, 2) - 2 * MAGIC_BYTES
    file.seek(end)
    length = int.from_bytes(file.read(MAGIC_BYTES), "little")
    file.seek(end - length)
    return hashlib.sha256(file.read(length)).hexdigest()[:32]


def _read_group(path: str, shard: pq.ParquetFile, number: int, *, content: str) -> RowGroup:
    num_rows = shard.metadata.row_group(number).num_rows
    if "repeats" not in shard.schema_arrow.names or _all_once(shard.metadata.row_group(number)):
        return RowGroup(path, number, num_rows, num_rows, content)
    column = shard.read_row_group(number, columns=["repeats"]).column("repeats")
    repeats = column.fill_null(1).to_numpy().astype(np.int32)
    if (repeats < 0).any():
        raise SourceError(f"{path}: repeats {repeats.min()} in row group {number}; they must be >= 0")
    return RowGroup(path, number, num_rows, int(repeats.sum()), content, repeats)


def _all_once(group: Any) -> bool:
    """Whether the footer's statistics already say that every row is shown once."""
    for i in range(group.num_columns):
        column = group.column(i)
        if column.path_in_schema == "repeats":
            stats = column.statistics
            return stats is not None and stats.has_min_max and stats.min == stats.max == 1
    return False


def _damaged(path: str, problem: str) -> SourceError:
    return SourceError(f"shard {path}: {problem}; write the shards again or remove the file")
