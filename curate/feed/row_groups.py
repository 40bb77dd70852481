"""The row groups of one shard: how many rows they have, and how often each row is shown.

A footer says how many rows each row group has, which is all that the order of samples needs. Columns are read only
where the feed asks for weights or sources, and of repeats only where the footer's statistics leave open that all are 1.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import SourceError
from curate.feed.settings import FeedSettings
from curate.feed.strata import path_strata
from curate.sealing import open_parquet
from curate.tables import HF_IMAGE

CONTENT = b"curate.content"
"""Key of a footer's metadata under which curate writes the digest of a shard's rows."""
MAGIC_BYTES = 4
"""Length of the mark at a Parquet file's end, before which the footer's length stands in as many bytes."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of one shard."""

    shard: str
    number: int
    num_rows: int
    weight: float
    """Sum of the rows' weights: the number of samples that an epoch is expected to show."""
    content: str
    """Digest of the rows of the whole shard."""
    weights: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    """(num_rows,) how often an epoch is expected to show each row; None: once each."""
    sources: tuple[str, ...] = ()
    """Names of the rows' sources, sorted; empty unless the feed asks for them."""
    codes: npt.NDArray[np.int16] | None = field(default=None, compare=False)
    """(num_rows,) index of each row's source in `sources`; None: there is one."""
    clusters: frozenset[str] = frozenset()
    """Those of the paths in `FeedSettings.cluster_weights` below which some row lies."""
    strata: npt.NDArray[np.uint32] | None = field(default=None, compare=False)
    """(num_rows,) the cluster of each row at the level `FeedSettings.stratify`, as a number; None: not asked for."""
    depth: int = field(default=0, compare=False)
    """Steps of the longest path of a row; 0 unless the feed stratifies."""
    hashed: bool = field(default=False, compare=False)
    """Whether column `sha256` is curate's own: the digest of the image's bytes."""

    def row_weights(self, source: str | None = None) -> npt.NDArray[np.float64]:
        """(num_rows,) expected samples of each row in an epoch; with `source`, 0 for the rows of all others."""
        weights = np.ones(self.num_rows) if self.weights is None else self.weights.astype(np.float64)
        if source is None or self.sources == (source,):
            return weights
        if source not in self.sources:
            return np.zeros(self.num_rows)
        return weights * (self.codes == self.sources.index(source))


def read_row_groups(path: str, file: Any, feed: FeedSettings) -> list[RowGroup]:
    """The row groups of an open shard.

    Args:
        path: name of the shard, for errors.
        file: seekable, binary.

    Raises:
        SourceError: the shard lacks a column that is needed, or has repeats below 0.
    """
    shard = open_parquet(file)
    _check_image_column(path, shard.schema_arrow)
    content = _content(file, shard)
    return [_read_row_group(path, shard, number, content=content, feed=feed) for number in range(shard.num_row_groups)]


def _check_image_column(path: str, schema: pa.Schema) -> None:
    position = schema.get_field_index("image")
    found = schema.field(position).type if position >= 0 else None
    if found is None or not pa.types.is_struct(found) or found.get_field_index("bytes") < 0:
        raise SourceError(f"{path}: column image is {found or 'missing'}; the trainer needs {HF_IMAGE}")


def _content(file: Any, shard: pq.ParquetFile) -> str:
    """A digest that no shard of other rows shares, without reading the rows: curate's own, else a hash of the footer,
    which holds sizes, offsets and statistics of every column."""
    known = (shard.metadata.metadata or {}).get(CONTENT)
    if known is not None:
        return known.decode()
    end = file.seek(0, 2) - 2 * MAGIC_BYTES
    file.seek(end)
    length = int.from_bytes(file.read(MAGIC_BYTES), "little")
    file.seek(end - length)
    return hashlib.sha256(file.read(length)).hexdigest()[:32]


def _read_row_group(path: str, shard: pq.ParquetFile, number: int, *, content: str, feed: FeedSettings) -> RowGroup:
    num_rows = shard.metadata.row_group(number).num_rows
    columns = _needed_columns(path, shard, number, feed)
    hashed = CONTENT in (shard.metadata.metadata or {}) and "sha256" in shard.schema_arrow.names
    if not columns or not num_rows:
        return RowGroup(path, number, num_rows, num_rows, content, hashed=hashed)
    table = shard.read_row_group(number, columns=columns)
    weights, met, codes = np.ones(num_rows), frozenset[str](), None
    strata, depth = None, 0
    sources: tuple[str, ...] = ()
    if "repeats" in columns:
        weights = table.column("repeats").fill_null(1).to_numpy().astype(np.float64)
        if (weights < 0).any():
            raise SourceError(f"{path}: repeats {weights.min():g} in row group {number}; they must be >= 0")
    if "clusters" in columns:
        paths = table.column("clusters").combine_chunks()
        offsets, steps = paths.offsets.to_numpy(), paths.values.to_numpy()
        factors, met = path_weights(offsets, steps, feed.cluster_weights)
        weights *= factors
        if feed.stratify is not None:
            strata, depth = path_strata(offsets, steps, feed.stratify), int(np.diff(offsets).max())
    if "source" in columns:
        names, found = np.unique(table.column("source").fill_null("").to_numpy(), return_inverse=True)
        sources, codes = tuple(map(str, names)), found.astype(np.int16) if len(names) > 1 else None
        weights *= np.array([feed.source_weights.get(name, 1.0) for name in sources])[found]
    kept = None if (weights == 1).all() else weights.astype(np.float32)
    total = num_rows if kept is None else float(kept.sum(dtype=np.float64))
    return RowGroup(path, number, num_rows, total, content, kept, sources, codes, met, strata, depth, hashed)


def path_weights(
    offsets: np.ndarray, values: np.ndarray, weights: Mapping[str, float]
) -> tuple[np.ndarray, frozenset[str]]:
    """The weight of each path by the longest prefix that has one, 1 without; and the prefixes that some path has.

    Args:
        offsets: (N + 1,) path i is values[offsets[i]:offsets[i + 1]].
        weights: by prefix, such as 3 or 3/7.
    """
    lengths, found, met = np.diff(offsets), np.ones(len(offsets) - 1), set()
    for name in sorted(weights, key=lambda name: name.count("/")):
        prefix = [int(part) for part in name.split("/")]
        rows = np.flatnonzero(lengths >= len(prefix))
        below = rows[(values[offsets[rows, None] + np.arange(len(prefix))] == prefix).all(axis=1)]
        found[below] = weights[name]
        met |= {name} if len(below) else set()
    return found, frozenset(met)


def _needed_columns(path: str, shard: pq.ParquetFile, number: int, feed: FeedSettings) -> list[str]:
    names = shard.schema_arrow.names
    asked = {
        "clusters": "cluster_weights" if feed.cluster_weights else "stratify" if feed.stratify is not None else "",
        "source": "source_weights" if feed.source_weights else "homogeneous_share" if feed.homogeneous_share else "",
    }
    for column, setting in asked.items():
        if setting and column not in names:
            raise SourceError(f"{path}: no column {column}, which feed.{setting} needs; write it or unset that")
    repeats = "repeats" in names and not _all_once(shard.metadata.row_group(number))
    return ["repeats"] * repeats + [column for column, setting in asked.items() if setting]


def _all_once(group: Any) -> bool:
    """Whether the footer's statistics already say that every row is shown once."""
    for i in range(group.num_columns):
        column = group.column(i)
        if column.path_in_schema == "repeats":
            stats = column.statistics
            return stats is not None and stats.has_min_max and stats.min == stats.max == 1
    return False
