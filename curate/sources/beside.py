"""What lies beside the images of a folder and describes them, found while the folder is listed.

Looking for `img.txt`, `img.json` and the like when an image is read costs several attempts for each image, most of
them in vain, and on object stores as much as reading. But a listing goes through the names of a folder anyhow. So each
image is told there what describes it, and reading opens nothing that is not there, wherever the images lie.
"""

import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from curate.errors import SourceError
from curate.sources.description_tables import FILE_NAME, KEY, METADATA, RowIndex, index_rows
from curate.sources.files import File, file_exists
from curate.sources.found import Sidecar
from curate.sources.kinds import Kinds
from curate.sources.left_out import NO_ROW, UNMATCHED_ROW, UNREADABLE_TABLE, leave_out
from curate.sources.suffixes import PARQUET, TFRECORD, suffix_of
from curate.sources.uri import decode_uri, encode_uri

STATS = b"_stats.json"
"""End of the name of what img2dataset tells of a shard, beside the shard's Parquet file."""

if TYPE_CHECKING:
    from curate.sources.config import Source


class ShardTable:
    """The Parquet file that img2dataset writes beside a tar or folder, of its name: a row for each `key`."""

    def __init__(self, name: str, index: RowIndex | None) -> None:
        self._name, self._index = name, index

    @classmethod
    def of_archive(cls, file: File, skipped: Counter[str]) -> "ShardTable":
        """That of a tar; without any rows where there is none, or one that holds images itself."""
        for suffix in sorted(PARQUET):
            uri = file.uri[: file.uri.rfind(".")] + suffix
            there = file_exists(uri) if file.around is None else file.around.has(posixpath.basename(uri))
            if there:
                return cls(posixpath.basename(uri), read_index(uri, KEY, uri, skipped) if describes(uri) else None)
        return cls("", None)

    def find(self, key: str) -> tuple[Sidecar, ...]:
        """The row of a key, if there is one."""
        row = None if self._index is None else self._index.find(key.encode("utf-8", "surrogateescape"))
        return () if row is None else (Sidecar("table", self._name, row),)


def describes(uri: str) -> bool:
    """Whether a Parquet file is no source of images itself."""
    from curate.sources.parquet import column_types, holds_images

    try:
        return not holds_images(column_types(uri))
    except SourceError:
        return False


def read_index(uri: str, column: str, key: str, skipped: Counter[str]) -> RowIndex | None:
    """The rows of a table by name; None: it does not tell of images, or cannot be read, which is counted."""
    try:
        return index_rows(uri, column)
    except SourceError:
        leave_out(skipped, UNREADABLE_TABLE, key)
        return None


class Surroundings:
    """What describes the images of one source, folder by folder; made anew for each listing."""

    def __init__(self, source: "Source", skipped: Counter[str]) -> None:
        self.kinds = Kinds(source)
        self.skipped = skipped
        self._tables: list[tuple[str, RowIndex]] = []

    def enter(
        self,
        folder: str,
        key: str,
        names: Iterable[bytes],
        *,
        has: Callable[[bytes], bool],
        refused: Callable[[bytes], str | None],
        above: "Around | None" = None,
        shard_table: str | None = None,
    ) -> "Around":
        """What lies around the images of a folder.

        Args:
            folder: encoded path or URL.
            key: encoded path relative to the source, with a slash at its end; "": the source itself.
            names: of its files; gone through twice.
            has: whether a file of that name is there, or a folder of that name with a slash.
            refused: why a file is not to be read (a link that leads out of the source); None: it may be.
            above: the folder around it.
            shard_table: a Parquet file beside the folder, of the folder's name.
        """
        beside: dict[bytes, list[tuple[str, bytes]]] = {}
        for name in filter(self.kinds.may_describe, names):
            named = self.kinds.split(os.fsdecode(name))
            if named is not None and (why := refused(name)) is None:
                base = os.fsencode(named.base)
                beside.setdefault(base, []).append((named.kind, name[len(base) :]))
            elif named is not None:
                leave_out(self.skipped, why or "", key + encode_uri(name))
        around = Around(self, folder, key, beside, has)
        if beside:
            around.find_described(names)
        around.inherit(above)
        for table in METADATA:
            if has(table.encode()) and around.take_metadata(table, refused):
                break
        around.shard_uri = shard_table if shard_table is not None and describes(shard_table) else None
        return around

    def remember(self, key: str, index: RowIndex) -> None:
        """Count the rows of this table that no image asked for, when the listing is done."""
        self._tables.append((key, index))

    def finish(self) -> None:
        """Count what described no image; to be called when all images are listed."""
        for key, index in self._tables:
            number, first = index.unused()
            if number:
                leave_out(self.skipped, UNMATCHED_ROW, f"{key} row {first}", number)


class Around:
    """What lies around the images of one folder."""

    def __init__(
        self,
        all_around: Surroundings,
        folder: str,
        key: str,
        beside: dict[bytes, list[tuple[str, bytes]]],
        has: Callable[[bytes], bool],
    ) -> None:
        self._all, self._folder, self._key = all_around, folder, key
        self._beside, self._has = beside, has
        self._described: set[bytes] = set()
        self._own_table: bytes | None = None
        self._metadata: tuple[str, str, RowIndex] | None = None
        self.shard_uri: str | None = None
        """The Parquet file beside this folder that describes it."""
        self._shard: ShardTable | None = None
        self._parquets: dict[bytes, bool] = {}  # whether they describe a shard: told by their footers, so asked once

    def find_described(self, names: Iterable[bytes]) -> None:
        """Note which descriptions have an image."""
        kinds = self._all.kinds
        for name in names:
            if kinds.may_describe(name):
                continue
            stem = os.path.splitext(name)[0]  # noqa: PTH122  # a name need not be text
            if stem in self._beside or name in self._beside:
                text = os.fsdecode(name)
                if kinds.is_image(text, kinds.split(text)):
                    self._described.update((stem, name))

    def inherit(self, above: "Around | None") -> None:
        """Take over the metadata table of the folder around this one."""
        if above is not None and above._metadata is not None:
            step = posixpath.basename(self._folder.rstrip("/"))
            table, prefix, index = above._metadata
            self._metadata = (f"../{table}", f"{prefix}{step}/", index)

    def take_metadata(self, name: str, refused: Callable[[bytes], str | None]) -> bool:
        """Use a table of this folder, if it is one that names images."""
        why = refused(name.encode())
        if why is not None:
            leave_out(self._all.skipped, why, self._key + name)
            return False
        uri = posixpath.join(self._folder, name)
        if suffix_of(name) in PARQUET and not describes(uri):
            return False
        index = read_index(uri, FILE_NAME, self._key + name, self._all.skipped)
        if index is None:
            return False
        self._all.remember(self._key + name, index)
        self._own_table, self._metadata = name.encode(), (name, "", index)
        return True

    def of_image(self, name: bytes) -> tuple[Sidecar, ...]:
        """What describes the image of that name: rows of tables, files of its stem, then those of its full name."""
        if self._describes_nothing:
            return ()
        stem, own = os.path.splitext(name)  # noqa: PTH122
        files = [Sidecar(kind, encode_uri(rest)) for kind, rest in self._beside.get(stem, ())]
        if own:
            files += [Sidecar(kind, encode_uri(own + rest)) for kind, rest in self._beside.get(name, ())]
        return (*self._rows_of(name, stem, files), *files)

    def _rows_of(self, name: bytes, stem: bytes, files: list[Sidecar]) -> list[Sidecar]:
        found: list[Sidecar] = []
        if self.shard_uri is not None and not any(sidecar.kind == "json" for sidecar in files):
            if self._shard is None:
                table = posixpath.basename(self.shard_uri)
                self._shard = ShardTable(
                    f"../{table}", read_index(self.shard_uri, KEY, self.shard_uri, self._all.skipped)
                )
            found += self._shard.find(os.fsdecode(stem))
        if self._metadata is not None:
            table, prefix, index = self._metadata
            row = index.find(decode_uri(prefix) + name)
            if row is None:
                leave_out(self._all.skipped, NO_ROW, self._key + encode_uri(name))
            else:
                found.append(Sidecar("table", table, row))
        return found

    @property
    def _describes_nothing(self) -> bool:
        return not self._beside and self._metadata is None and self.shard_uri is None

    def has(self, name: str) -> bool:
        """Whether the folder holds a file of that encoded name."""
        return self._has(decode_uri(name))

    def describes(self, name: bytes) -> bool:
        """Whether a file of the folder describes images of the source, and is none itself."""
        if name == self._own_table or (name.endswith(STATS) and self._has(name.removesuffix(STATS) + b".parquet")):
            return True
        if self._all.kinds.may_describe(name):
            named = self._all.kinds.split(os.fsdecode(name)) if self._described else None
            return named is not None and os.fsencode(named.base) in self._described
        if suffix_of(os.fsdecode(name)) not in PARQUET:
            return False
        if name not in self._parquets:
            self._parquets[name] = self._describes_shard(name)
        return self._parquets[name]

    def _describes_shard(self, name: bytes) -> bool:
        stem = name[: name.rfind(b".")]
        mates = (stem + b"/", stem + b".tar", *(stem + suffix.encode() for suffix in TFRECORD))
        return any(map(self._has, mates)) and describes(posixpath.join(self._folder, encode_uri(name)))
