"""What lies in the shards, by their footers and a few narrow columns: row groups, weights, sources."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from curate.errors import ConfigError, SourceError
from curate.feed.settings import FeedSettings
from curate.progress import track
from curate.retrying import is_damage, retry
from curate.tables import HF_IMAGE

logger = logging.getLogger(__name__)

CONTENT = b"curate.content"
"""Key of a footer's metadata under which curate writes the digest of a shard's rows."""
MAGIC_BYTES = 4
"""Of a Parquet file's end mark, before which the footer's length stands in as many bytes."""
READERS = 16
"""Footers read at a time: a shard on an object store takes a few round trips."""
ResultT = TypeVar("ResultT")


class DamagedData(SourceError):
    """A shard is gone, or its bytes or an image's are wrong; reading again would not help."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of one shard."""

    shard: str
    number: int
    num_rows: int
    weight: float
    """Sum of the rows' weights: the samples that an epoch is expected to show."""
    content: str
    """Digest of the rows of the whole shard, see `_content`."""
    weights: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    """(num_rows,) times an epoch is expected to show each row; None: once each."""
    sources: tuple[str, ...] = ()
    """Names of the rows' sources, where the feed asks for them."""
    codes: npt.NDArray[np.int16] | None = field(default=None, compare=False)
    """(num_rows,) index of each row's source in `sources`; None: there is one."""
    clusters: frozenset[str] = frozenset()
    """Paths of `FeedSettings.cluster_weights` met in it."""

    def row_weights(self, source: str | None = None) -> npt.NDArray[np.float64]:
        """(num_rows,) expected samples of each row; of other sources than `source`, 0."""
        weights = np.ones(self.num_rows) if self.weights is None else self.weights.astype(np.float64)
        if source is None or self.sources == (source,):
            return weights
        if source not in self.sources:
            return np.zeros(self.num_rows)
        return weights * (self.codes == self.sources.index(source))


@dataclass(frozen=True)
class ShardIndex:
    """All row groups of all shards, shards in order of name."""

    filesystem: Any
    groups: tuple[RowGroup, ...]
    damaged: tuple[str, ...] = ()
    """Shards left out because their footers cannot be read."""

    @property
    def num_images(self) -> int:
        return sum(group.num_rows for group in self.groups)

    @property
    def num_samples(self) -> int:
        """Of an epoch: the sum of the rows' weights, rounded to a whole number."""
        return max(1, round(sum(group.weight for group in self.groups)))

    @property
    def sources(self) -> list[str]:
        """Names of the sources with an image to show, where the feed asked for them."""
        return sorted({name for group in self.groups for name in group.sources if group.row_weights(name).any()})

    @property
    def fingerprint(self) -> str:
        """Hash of the shards' names, their row groups' sizes and their content: what order and rows follow from."""
        told = [(g.shard.rsplit("/", 1)[-1], g.number, g.num_rows, g.weight, g.content) for g in self.groups]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:32]

    def read_images(self, group: RowGroup, rows: Iterable[int]) -> list[bytes | None]:
        """The encoded images of some rows of a row group.

        Raises:
            DamagedData: the shard is gone or its data are damaged.
            SourceError: reading kept failing for another reason.
        """
        table = _read(
            self.filesystem,
            group.shard,
            lambda file: pq.ParquetFile(file).read_row_group(group.number, columns=["image.bytes"]),
            problem=f"row group {group.number} cannot be read",
        )
        encoded = table.column("image").combine_chunks().field("bytes")
        return [encoded[row].as_py() for row in rows]


def read_index(shards: str, feed: FeedSettings | None = None) -> ShardIndex:
    """Read the footers of all shards, and of their rows the columns that repeats and weights need.

    Args:
        shards: a folder, a file or a pattern, local or an fsspec URL.

    Raises:
        SourceError: no shard there, one is damaged, or one lacks a column that is needed.
        ConfigError: `feed` names a source or a cluster that no image has, or leaves nothing to show.
    """
    feed = feed or FeedSettings()
    filesystem, path = fsspec.core.url_to_fs(shards)
    paths = _expand(filesystem, path)
    if not paths:
        raise SourceError(f"{shards}: no Parquet shard; give a folder, a file or a pattern of shards")
    groups: list[RowGroup] = []
    damaged: list[str] = []
    with ThreadPoolExecutor(READERS) as pool, track("read footers", len(paths), unit="shards") as advance:
        for name, found in zip(paths, pool.map(partial(_read_footer, filesystem, feed=feed), paths), strict=True):
            groups += found or []
            damaged += [name] if found is None else []
            advance()
    if not any(group.num_rows for group in groups):
        raise SourceError(f"{shards}: {len(paths)} shards without a single image")
    _check_names(groups, feed)
    index = ShardIndex(filesystem, tuple(group for group in groups if group.weight), tuple(damaged))
    for name in feed.homogeneous_sources if feed.homogeneous_share else ():
        if name not in index.sources:
            raise ConfigError(f"feed.homogeneous_sources: {name!r} shows no image; others: {', '.join(index.sources)}")
    return index


def _check_names(groups: list[RowGroup], feed: FeedSettings) -> None:
    if not any(group.weight for group in groups):
        raise ConfigError("feed: weights and repeats leave no image to show; set one above 0")
    sources = sorted({name for group in groups for name in group.sources})
    clusters = {path for group in groups for path in group.clusters}
    for name in feed.source_weights:
        if name not in sources:
            raise ConfigError(f"feed.source_weights: no image is of source {name!r}; there are: {', '.join(sources)}")
    for path in feed.cluster_weights:
        if path not in clusters:
            raise ConfigError(f"feed.cluster_weights: no image lies below cluster {path}; see the column clusters")


def _expand(filesystem: Any, path: str) -> list[str]:
    if any(sign in path for sign in "*?["):
        return sorted(filesystem.glob(path))
    if filesystem.isdir(path):
        return sorted(filesystem.glob(f"{path.rstrip('/')}/*.parquet"))
    return [path] if filesystem.exists(path) else []


def _read(filesystem: Any, path: str, work: Callable[[Any], ResultT], *, problem: str) -> ResultT:
    """What `work` makes of the open shard, tried again after errors that may pass."""

    def once() -> ResultT:
        try:
            with filesystem.open(path, "rb") as file:
                return work(file)
        except (OSError, pa.ArrowException) as error:
            if not is_damage(error):
                raise
            hint = "write the shards again, remove the file, or set feed.on_damaged=skip"
            raise DamagedData(f"shard {path}: {problem}: {' '.join(str(error).split())}; {hint}") from error

    return retry(once, where=f"shard {path}", remote=not isinstance(filesystem, LocalFileSystem))


def _read_footer(filesystem: Any, path: str, *, feed: FeedSettings) -> list[RowGroup] | None:
    """The row groups of one shard; None: it is damaged and left out."""

    def read(file: Any) -> list[RowGroup]:
        shard = pq.ParquetFile(file)
        _check_image_column(path, shard.schema_arrow)
        content = _content(file, shard)
        return [_read_group(path, shard, number, content=content, feed=feed) for number in range(shard.num_row_groups)]

    try:
        return _read(filesystem, path, read, problem="not a readable Parquet file")
    except DamagedData as error:
        if feed.on_damaged == "error":
            raise
        logger.warning("%s: left out", error)
        return None


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


def _read_group(path: str, shard: pq.ParquetFile, number: int, *, content: str, feed: FeedSettings) -> RowGroup:
    num_rows = shard.metadata.row_group(number).num_rows
    columns = _needed_columns(path, shard, number, feed)
    if not columns or not num_rows:
        return RowGroup(path, number, num_rows, num_rows, content)
    table = shard.read_row_group(number, columns=columns)
    weights, met, codes = np.ones(num_rows), frozenset[str](), None
    sources: tuple[str, ...] = ()
    if "repeats" in columns:
        weights = table.column("repeats").fill_null(1).to_numpy().astype(np.float64)
        if (weights < 0).any():
            raise SourceError(f"{path}: repeats {weights.min():g} in row group {number}; they must be >= 0")
    if "clusters" in columns:
        paths = table.column("clusters").combine_chunks()
        factors, met = path_weights(paths.offsets.to_numpy(), paths.values.to_numpy(), feed.cluster_weights)
        weights *= factors
    if "source" in columns:
        names, found = np.unique(table.column("source").fill_null("").to_numpy(), return_inverse=True)
        sources, codes = tuple(map(str, names)), found.astype(np.int16) if len(names) > 1 else None
        weights *= np.array([feed.source_weights.get(name, 1.0) for name in sources])[found]
    kept = None if (weights == 1).all() else weights.astype(np.float32)
    total = num_rows if kept is None else float(kept.sum(dtype=np.float64))
    return RowGroup(path, number, num_rows, total, content, kept, sources, codes, met)


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
        "clusters": "cluster_weights" if feed.cluster_weights else "",
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
