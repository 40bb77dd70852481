"""The index of all shards, read from their footers, and the images of any of their rows."""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from curate.errors import ConfigError, SourceError
from curate.feed.row_groups import RowGroup, read_row_groups
from curate.feed.settings import FeedSettings
from curate.filesystems import list_shards, open_filesystem
from curate.opening import open_of
from curate.progress import track
from curate.retrying import is_damage, retry
from curate.sealing import open_parquet
from curate.text import shortened, visible_line

logger = logging.getLogger(__name__)

CHANGED = ("repaired", "blurred")
"""Columns that say of an image, where they are not null, that its bytes are others than those of its SHA-256."""
SIZES = ("width", "height")
"""Columns that say how large an image is."""
MAX_TOLD = 600
"""Characters of the names of columns that an error shows."""
READERS = 16
"""Footers read at a time, since a shard on an object store takes a few round trips."""
ResultT = TypeVar("ResultT")


class DamagedData(SourceError):
    """A shard is gone, or its bytes or those of an image are wrong; reading again would not help."""


Encoded = bytes | DamagedData | None
"""The bytes of an image, or what is wrong with them; None: the row has none."""


@dataclass(frozen=True)
class ShardIndex:
    """All row groups of all shards that have an image to show, shards in order of name."""

    filesystem: Any
    groups: tuple[RowGroup, ...]
    damaged: tuple[str, ...] = ()
    """Shards left out because their footers cannot be read."""

    @property
    def num_images(self) -> int:
        """Rows of all row groups."""
        return sum(group.num_rows for group in self.groups)

    @property
    def num_samples(self) -> int:
        """Samples of an epoch: the sum of the rows' weights, rounded to a whole number."""
        return max(1, round(sum(group.weight for group in self.groups)))

    @property
    def sources(self) -> list[str]:
        """Names of the sources with an image to show, where the feed asked for them."""
        return sorted({name for group in self.groups for name in group.sources if group.row_weights(name).any()})

    @property
    def fingerprint(self) -> str:
        """Hash of all that the order of samples follows from: names, sizes and content of the shards, and weights."""
        known = [(g.shard.rsplit("/", 1)[-1], g.number, g.num_rows, g.weight, g.content) for g in self.groups]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:32]

    def read_images(self, group: RowGroup, rows: Iterable[int], *, verified: Collection[int] = ()) -> list[Encoded]:
        """The encoded images of some rows of a row group.

        Args:
            verified: rows among them whose bytes are held against the `sha256` of the shard, where it is curate's; an
                image that differs is returned as the error that its use should raise.

        Raises:
            DamagedData: the shard is gone or its data are damaged.
            SourceError: reading kept failing for another reason.
        """
        checks = bool(verified) and group.hashed
        table = _read_shard(
            self.filesystem,
            group.shard,
            lambda file: _read_columns(file, group.number, ["sha256", *CHANGED] if checks else []),
            problem=f"row group {group.number} cannot be read",
        )
        encoded = table.column("image").combine_chunks().field("bytes")
        found: list[Encoded] = []
        for row in rows:
            found.append(encoded[row].as_py())
            if checks and row in verified and not _is_as_told(found[-1], table, row):
                found[-1] = DamagedData(
                    f"shard {group.shard}, row group {group.number}, row {row}: the image does not have the sha256 "
                    "that the shard says; write the shards again, or set feed.on_damaged=skip"
                )
        return found

    def read_column(self, shard: str, groups: Sequence[int], column: str, *, setting: str) -> pa.ChunkedArray:
        """A column of some row groups of a shard, in their order.

        Args:
            setting: which names the column, for errors.

        Raises:
            DamagedData: the shard is gone or its data are damaged.
            SourceError: the shard has no such column; the error says which there are.
        """

        def read(file: Any) -> pa.ChunkedArray:
            with open_parquet(file) as opened:
                names = opened.schema_arrow.names
                if column not in names:
                    there = ", ".join(visible_line(name) for name in names if name != "image")
                    raise SourceError(
                        f"shard {shard}: no column {visible_line(column)}, which {setting} names; there are: "
                        f"{shortened(there, MAX_TOLD)}; name one of these, or write shards with it"
                    )
                return opened.read_row_groups(list(groups), columns=[column])[column]

        return _read_shard(self.filesystem, shard, read, problem=f"column {visible_line(column)} cannot be read")

    def read_sizes(self, group: RowGroup) -> npt.NDArray[np.int64]:
        """(num_rows, 2) width and height of the images of a row group, pixels; 0 where they are not known.

        Raises:
            DamagedData: the shard is gone or its data are damaged.
            SourceError: the shard has no such columns.
        """

        def read(file: Any) -> pa.Table:
            with open_parquet(file) as shard:
                missing = [name for name in SIZES if name not in shard.schema_arrow.names]
                if missing:
                    raise SourceError(
                        f"shard {group.shard}: no column {' and '.join(missing)}, which say how large its images are; "
                        "write them, or set crops.global_size=PIXELS"
                    )
                return shard.read_row_group(group.number, columns=list(SIZES))

        table = _read_shard(self.filesystem, group.shard, read, problem=f"row group {group.number} cannot be read")
        return np.stack([table[name].fill_null(0).to_numpy().astype(np.int64) for name in SIZES], axis=1)


def read_index(shards: str, feed: FeedSettings | None = None) -> ShardIndex:
    """Read the footers of all shards, and of their rows the columns that repeats and weights need.

    Args:
        shards: a workdir, its folder `shards`, any folder of shards, a file or a pattern; local or an fsspec URL.

    Raises:
        SourceError: no shard there, one is damaged, or one lacks a column that is needed.
        ConfigError: `feed` names a source or a cluster that no image has, or leaves nothing to show.
    """
    feed = feed or FeedSettings()
    filesystem, path = open_filesystem(shards)
    paths = list_shards(filesystem, path)
    if not paths:
        raise SourceError(f"{shards}: no Parquet shard; give a workdir, a folder, a file or a pattern of shards")
    groups: list[RowGroup] = []
    damaged: list[str] = []
    with ThreadPoolExecutor(READERS) as pool, track("read footers", len(paths), unit="shards") as advance:
        for name, found in zip(paths, pool.map(partial(_row_groups_of, filesystem, feed=feed), paths), strict=True):
            groups += found or []
            damaged += [name] if found is None else []
            advance()
    if not any(group.num_rows for group in groups):
        raise SourceError(f"{shards}: {len(paths)} shards without a single image")
    _check_names(groups, feed)
    index = ShardIndex(filesystem, tuple(group for group in groups if group.weight), tuple(damaged))
    unknown = {group.shard for group in index.groups if not group.hashed}
    if feed.verify and unknown:
        logger.info("%d of %d shards carry no digests of curate: feed.verify skips them", len(unknown), len(paths))
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
    deepest = max(group.depth for group in groups)
    if feed.stratify is not None and deepest < feed.stratify:
        raise ConfigError(
            f"feed.stratify={feed.stratify}: the longest path in column clusters has {deepest} steps; "
            + (f"set {deepest} or less" if deepest else "curate by a recipe that clusters, or leave it out")
        )
    for path in feed.cluster_weights:
        if path not in clusters:
            raise ConfigError(f"feed.cluster_weights: no image lies below cluster {path}; see the column clusters")


def _read_shard(filesystem: Any, path: str, work: Callable[[Any], ResultT], *, problem: str) -> ResultT:
    """What `work` returns for the open shard, tried again after errors that may pass."""

    def once() -> ResultT:
        try:
            with open_of(filesystem, path) as file:
                return work(file)
        except (OSError, pa.ArrowException) as error:
            if not is_damage(error):
                raise
            hint = "write the shards again, remove the file, or set feed.on_damaged=skip"
            raise DamagedData(f"shard {path}: {problem}: {' '.join(str(error).split())}; {hint}") from error

    return retry(once, where=f"shard {path}", remote=not isinstance(filesystem, LocalFileSystem))


def _read_columns(file: Any, group: int, more: list[str]) -> pa.Table:
    """The images of a row group, and those of the other columns that are there."""
    with open_parquet(file) as shard:
        names = [name for name in more if name in shard.schema_arrow.names]
        return shard.read_row_group(group, columns=["image.bytes", *names])


def _is_as_told(encoded: Encoded, rows: pa.Table, row: int) -> bool:
    """Whether an image has the SHA-256 of its row; one that was changed when it was written has that of before."""
    changed = any(name in rows.column_names and rows[name][row].is_valid for name in CHANGED)
    told = rows["sha256"][row].as_py()
    return changed or not isinstance(encoded, bytes) or hashlib.sha256(encoded).hexdigest() == told


def _row_groups_of(filesystem: Any, path: str, *, feed: FeedSettings) -> list[RowGroup] | None:
    """The row groups of one shard; None: it is damaged and left out."""

    def read(file: Any) -> list[RowGroup]:
        return read_row_groups(path, file, feed)

    try:
        return _read_shard(filesystem, path, read, problem="not a readable Parquet file")
    except DamagedData as error:
        if feed.on_damaged == "error":
            raise
        logger.warning("%s: left out", error)
        return None
