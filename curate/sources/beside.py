"""What lies beside the images of a folder and describes them, found while the folder is listed.

Looking for `img.txt`, `img.json` and the like when an image is read costs several attempts for each image, most of
them in vain, and on object stores as much as reading. But a listing goes through the names of a folder anyhow. So each
image is told there what describes it, and reading opens nothing that is not there, wherever the images lie.
"""

import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from curate.errors import SourceError
from curate.sources.description_tables import FILE_NAME, KEY, METADATA, RowIndex, index_rows
from curate.sources.files import File, file_exists
from curate.sources.found import Sidecar
from curate.sources.kinds import Kinds
from curate.sources.left_out import NO_ROW, UNMATCHED_ROW, UNREADABLE_TABLE, leave_out, leave_out_once
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
        leave_out_once(skipped, UNREADABLE_TABLE, key)
        return None


class Surroundings:
    """What describes the images of one source, folder by folder; made anew for each listing, and for each task of it.

    A table may describe images of many folders, which several tasks list. So each tells of its tables which rows its
    images asked for, and what nobody asked for is counted at the end, over all of them.
    """

    def __init__(self, source: "Source", skipped: Counter[str]) -> None:
        self.kinds = Kinds(source)
        self.skipped = skipped
        self._tables: dict[str, RowIndex | None] = {}
        """By key: tables of folders; None: one that cannot be used."""
        self._above: dict[str, Around | None] = {}

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
        """What lies around the images of a folder; the caller counts what is `Around.refused`.

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
        out: dict[bytes, str] = {}
        for name in filter(self.kinds.may_describe, names):
            named = self.kinds.split(os.fsdecode(name))
            if named is not None and (why := refused(name)) is None:
                base = os.fsencode(named.base)
                beside.setdefault(base, []).append((named.kind, name[len(base) :]))
            elif named is not None:
                out[name] = why or ""
        around = Around(self, folder, key, beside, has)
        around.refused = out
        if beside:
            around.find_described(names)
        around.inherit(above)
        for table in METADATA:
            if has(table.encode()) and around.take_metadata(table, refused):
                break
        around.shard_uri = shard_table if shard_table is not None and describes(shard_table) else None
        return around

    def above(
        self, folder: str, key: str, tables: Sequence[int], refused: Callable[[str, bytes], str | None]
    ) -> "Around | None":
        """What the folder around a folder hands down to it: the nearest table that can be used.

        Args:
            folder: as of `enter`.
            key: as of `enter`.
            tables: folders around it that hold one, as steps upwards, nearest first.
            refused: as of `enter`, of a file of one of these folders.
        """
        for steps in tables:
            place, where = _upwards(folder, steps), _upwards(key, steps)
            if where not in self._above:
                self._above[where] = self._take_table(place, where, refused)
            found = self._above[where]
            for left in range(steps - 1, 0, -1) if found is not None else ():
                below = Around(self, _upwards(folder, left), _upwards(key, left), {}, lambda name: False)
                below.inherit(found)
                found = below
            if found is not None:
                return found
        return None

    def _take_table(self, folder: str, key: str, refused: Callable[[str, bytes], str | None]) -> "Around | None":
        around = Around(self, folder, key, {}, lambda name: False)
        there = (table for table in METADATA if file_exists(posixpath.join(folder, table)))
        return around if any(around.take_metadata(table, partial(refused, folder)) for table in there) else None

    def index(self, uri: str, key: str) -> RowIndex | None:
        """The rows of a table of a folder, read once; None: it tells of no images, or cannot be read."""
        if key not in self._tables:
            self._tables[key] = read_index(uri, FILE_NAME, key, self.skipped)
        return self._tables[key]

    def tables(self) -> Iterator[tuple[str, RowIndex]]:
        """The tables of folders by key, with the rows that images asked for."""
        yield from ((key, index) for key, index in self._tables.items() if index is not None)

    def finish(self) -> None:
        """Count what described no image; to be called when all images are listed."""
        for key, index in self.tables():
            number, first = index.unused()
            leave_out_rows(self.skipped, key, number, first)


def leave_out_rows(skipped: Counter[str], key: str, number: int, first: int) -> None:
    """Count rows of a table that describe no image."""
    if number:
        leave_out(skipped, UNMATCHED_ROW, f"{key} row {first}", number)


def _upwards(path: str, steps: int) -> str:
    """A folder around the one at an encoded path; a slash at its end stays."""
    slash = "/" if path.endswith("/") else ""
    kept = path.rstrip("/").split("/")[:-steps]
    return "/".join(kept) + slash if kept else ""


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
        self.refused: dict[bytes, str] = {}
        """Files that would describe images and are not read, and why."""
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
            leave_out_once(self._all.skipped, why, self._key + name)
            return False
        uri = posixpath.join(self._folder, name)
        if suffix_of(name) in PARQUET and not describes(uri):
            return False
        index = self._all.index(uri, self._key + name)
        if index is None:
            return False
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
        told = self.describes_by_name(name)
        if told is not None:
            return told
        if name not in self._parquets:
            self._parquets[name] = describes(posixpath.join(self._folder, encode_uri(name)))
        return self._parquets[name]

    def describes_by_name(self, name: bytes) -> bool | None:
        """As `describes`; None: a Parquet file that has to be opened to know."""
        if name == self._own_table or (name.endswith(STATS) and self._has(name.removesuffix(STATS) + b".parquet")):
            return True
        if self._all.kinds.may_describe(name):
            named = self._all.kinds.split(os.fsdecode(name)) if self._described else None
            return named is not None and os.fsencode(named.base) in self._described
        if suffix_of(os.fsdecode(name)) not in PARQUET:
            return False
        stem = name[: name.rfind(b".")]
        mates = (stem + b"/", stem + b".tar", *(stem + suffix.encode() for suffix in TFRECORD))
        return None if any(map(self._has, mates)) else False


class Neighbors(NamedTuple):
    """What of the files beside an archive, or beside a file among archives, has to be known; goes through JSON."""

    told: bool | None
    """Whether the file describes images; None: it has to be opened to know."""
    tables: tuple[str, ...]
    """Parquet files of its stem."""

    @classmethod
    def of(cls, around: Around, name: bytes) -> "Neighbors":
        """Those of a file of that name."""
        stem = encode_uri(name[: name.rfind(b".")] if b"." in name else name)
        there = tuple(stem + suffix for suffix in sorted(PARQUET) if around.has(stem + suffix))
        return cls(around.describes_by_name(name), there)

    def at(self, uri: str) -> "Beside":
        """The same as a view of the file at that URL."""
        return Beside(uri, self)


class Beside:
    """Stands for what lies around a file where the files of its folder are not at hand."""

    def __init__(self, uri: str, neighbors: Neighbors) -> None:
        self._uri, self._neighbors = uri, neighbors

    def has(self, name: str) -> bool:
        """Whether a Parquet file of that encoded name lies beside it."""
        return name in self._neighbors.tables

    def describes(self, name: bytes) -> bool:
        """Whether the file, whose name is known, describes images."""
        told = self._neighbors.told
        return describes(self._uri) if told is None else told

    def of_image(self, name: bytes) -> tuple[Sidecar, ...]:
        """Nothing: among archives no loose image is listed."""
        return ()


View = Around | Beside
"""What a file may ask of what lies around it."""
